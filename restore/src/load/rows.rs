//! The rows of a table come in, chunk by chunk or all in one transaction.

use common::{
    Error, Result, interrupt,
    postgres::Session,
    snapshot::copy_sql::{copy_in_frozen_statement, copy_in_statement},
};

use super::Shared;
use crate::{broken_rules::Seen, collisions::Again, copy_in, lent_paths, rule_settings};

/// Draws a transaction id.
pub(super) async fn transaction_id(session: &Session) -> Result<u32> {
    let row = session
        .query_one("SELECT (pg_catalog.pg_current_xact_id()::text::numeric % 4294967296)::bigint", &[])
        .await
        .map_err(|source| Error::postgres("could not draw a transaction id", source))?;
    Ok(u32::try_from(row.get::<_, i64>(0)).expect("a remainder of 2^32"))
}

impl Shared {
    async fn load_chunks(
        &self,
        session: &Session,
        table: usize,
        chunks: &[usize],
        frozen: bool,
    ) -> Result<()> {
        let manifest = &self.snapshot.manifest;
        let data = &manifest.tables[table];
        let encoding = &manifest.database.encoding;
        let statement = if frozen {
            copy_in_frozen_statement(&data.table, encoding)
        } else {
            copy_in_statement(&data.table, encoding)
        };
        for chunk in chunks {
            interrupt::check()?;
            let chunk = &data.chunks[*chunk];
            let work = copy_in::load_chunk(&self.snapshot, chunk, statement.clone(), data.table.name.short());
            if let Err(error) = copy_in::perform(session, &work, manifest.codec, &self.progress).await {
                // So that the step can be done again; where the session is lost, the first error says why.
                let _ = session.batch_execute("ROLLBACK").await;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Chunk by chunk, each in a session of its own; one that fails has inserted nothing.
    pub(super) async fn load_contained(&self, table: usize) -> Result<()> {
        let data = &self.snapshot.manifest.tables[table];
        let contained = self.contained.get(&data.table.name);
        let contained =
            contained.ok_or_else(|| Error::failed("a table is loaded in a way that it is not"))?;
        for chunk in data.chunks.iter().filter(|chunk| chunk.content.rows > 0) {
            interrupt::check()?;
            let mut is_lent = self.remedies.paths.are_lent();
            let (mut seen, mut again) = (Seen::default(), Again::default());
            // Nothing of the chunk is there after an error, and each remedy can help once.
            while let Err(error) =
                contained.load(&self.settings, &self.snapshot, data, chunk, &self.progress).await
            {
                interrupt::check()?;
                if lent_paths::may_be_a_name(&error) && self.remedies.paths.lend(is_lent).await? {
                    is_lent = true;
                } else if again.after(&error).await? {
                    // What it met is over.
                } else if !self.remedies.broken_rules.take_off(&error, &data.table.name, &mut seen).await? {
                    return Err(lent_paths::hint(error));
                }
            }
        }
        Ok(())
    }

    pub(super) async fn load_one(&self, session: &Session, table: usize, chunk: usize) -> Result<()> {
        let short = self.snapshot.manifest.tables[table].table.name.short();
        let failed = |source| Error::postgres(format!("could not load the table {short}"), source);
        session.batch_execute(&rule_settings::begin()).await.map_err(failed)?;
        self.load_chunks(session, table, &[chunk], false).await?;
        session.batch_execute("COMMIT").await.map_err(failed)
    }

    /// COPY FREEZE wants a table that its own transaction made or emptied.
    pub(super) async fn load_frozen(&self, session: &Session, table: usize) -> Result<()> {
        let data = &self.snapshot.manifest.tables[table];
        let (name, short) = (&data.table.name, data.table.name.short());
        let chunks: Vec<usize> =
            (0..data.chunks.len()).filter(|chunk| data.chunks[*chunk].content.rows > 0).collect();
        let failed = |source| Error::postgres(format!("could not load the table {short}"), source);
        session.batch_execute(&rule_settings::begin()).await.map_err(failed)?;
        let mut frozen = true;
        if let Err(source) = session.batch_execute(&format!("TRUNCATE TABLE ONLY {name}")).await {
            // 42501: an owner may have taken this right from itself. Rows can be loaded all the same.
            if source.code().is_none_or(|code| code.code() != "42501") {
                return Err(failed(source));
            }
            // One transaction here too: where a chunk fails and the step is done again, none is there twice.
            session.batch_execute(&format!("ROLLBACK; {}", rule_settings::begin())).await.map_err(failed)?;
            frozen = false;
        }
        self.load_chunks(session, table, &chunks, frozen).await?;
        session.batch_execute("COMMIT").await.map_err(failed)
    }
}
