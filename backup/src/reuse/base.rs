//! What a later snapshot can build on.

use common::{
    Progress, Result,
    postgres::{
        ConnectionSettings, Session,
        wal_summary::{self, or_why_not},
    },
    snapshot::{manifest::TableData, wal_base::WalBase},
};

use super::{Reuse, Settle};

impl Reuse {
    /// Runs the CHECKPOINT that a later snapshot needs, if nobody has yet: after the place in the log that this one is
    /// known by, and while its rows are read. On a busy server it takes minutes.
    ///
    /// Nothing where there is none to run; the inner error says why the next backup will read everything.
    pub async fn settle(
        &self,
        settings: &ConnectionSettings,
        settle: Settle,
    ) -> Result<std::result::Result<(), String>> {
        if self.settled || settle == Settle::IfKnown || self.position.is_none() || self.from.is_none() {
            return Ok(Ok(()));
        }
        let session = settings.connect().await?;
        let asked = async { Ok(wal_summary::settle(&session).await?.map_or(Ok(()), Err)) };
        let settled = or_why_not(asked.await)?;
        session.close().await?;
        Ok(settled)
    }

    /// What a later snapshot can build on. Call it when all rows have been read, with what [`Reuse::settle`] said, and with a session
    /// that sees the state of now.
    ///
    /// Takes the form from tables where it is another one now: their rows may have been read in either.
    pub async fn base(
        &self,
        session: &Session,
        tables: &mut [TableData],
        settle: Settle,
        settled: std::result::Result<(), String>,
        progress: &Progress,
    ) -> Result<Option<WalBase>> {
        let (Some(identity), Some(to)) = (&self.identity, self.position) else { return Ok(None) };
        if !self.settled && settle == Settle::IfKnown {
            return Ok(None);
        }
        let Some(from) = self.from else {
            progress.note("the next backup will read everything: a transaction that is in progress began before this one");
            return Ok(None);
        };
        let asked = async {
            let oids: Vec<u32> = tables.iter().map(|table| table.table.oid).collect();
            let forms = wal_summary::forms(session, &oids).await?;
            for table in tables.iter_mut() {
                let oid = table.table.oid;
                if forms.get(&oid) != self.forms.get(&oid) {
                    table.form = None;
                }
            }
            // After it, all that the snapshot has seen is durable: a crash can't take back a commit that is in it.
            if let Err(why) = settled {
                return Ok(Err(why));
            }
            let anchor = wal_summary::anchor(session, identity.1, to).await?;
            Ok(anchor.ok_or_else(|| "its place in the log is in no summary".to_owned()))
        };
        let anchor = or_why_not(asked.await)?;
        match anchor {
            Ok(anchor) => Ok(Some(WalBase {
                system_identifier: identity.0.clone(),
                timeline: identity.1,
                database_oid: identity.2,
                from,
                to,
                anchor,
            })),
            Err(why) => {
                progress.note(format!("the next backup will read everything: {why}"));
                Ok(None)
            }
        }
    }
}
