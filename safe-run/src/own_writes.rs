//! Which transactions are the run's own: written down, so that what a slot holds of them is not taken for the writes of others.

use common::{Error, Result, postgres::Session};

use crate::journal::{self, Journal, Step};

/// Writes down which transactions are the run's own. Does nothing where nothing is saved.
#[derive(Debug)]
pub struct OwnWrites<'j> {
    journal: &'j mut Journal,
}

impl<'j> OwnWrites<'j> {
    /// For a run that saves the writes of others.
    pub fn of(journal: &'j mut Journal) -> Option<Self> {
        journal::open_slot(journal.steps())?;
        Some(Self { journal })
    }

    /// The transaction that is open in `session` is ours. Before its COMMIT.
    pub async fn in_transaction(&mut self, session: &Session) -> Result<()> {
        match session.assigned_xid().await?.and_then(|xid| xid.parse().ok()) {
            Some(xid) => self.journal.write(Step::OwnTransaction { xid }),
            None => Ok(()),
        }
    }

    /// A transaction that was seen to be ours; the lower half of its id.
    pub fn seen(&mut self, xid: u32) -> Result<()> {
        self.journal.write(Step::OwnTransaction { xid: u64::from(xid) })
    }

    /// From here on transactions can be ours without being known.
    pub async fn unknown_from(&mut self, session: &Session) -> Result<()> {
        let xid = next_transaction(session).await?;
        self.journal.write(Step::UnknownFrom { xid })
    }

    /// To here.
    pub async fn unknown_to(&mut self, session: &Session) -> Result<()> {
        let xid = next_transaction(session).await?;
        self.journal.write(Step::UnknownTo { xid })
    }
}

/// Every transaction that has ended has an id below this one.
async fn next_transaction(session: &Session) -> Result<u64> {
    let row = session
        .query_one("SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text", &[])
        .await
        .map_err(|source| Error::postgres("could not read the next transaction's id", source))?;
    let text: String = row.get(0);
    text.parse().map_err(|_| Error::failed(format!("the server gave \"{text}\" as a transaction's id")))
}
