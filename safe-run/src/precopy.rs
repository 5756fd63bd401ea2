//! A first snapshot with writers at work, so that the one behind the fence has to read only what changed since.
//!
//! The first one is an ordinary snapshot, tagged `precopy`, and deleted when the second has taken over its files. A run that
//! dies in between leaves it as what it is: a whole snapshot of a moment before the migration.

use std::{collections::BTreeMap, time::Instant};

use common::{
    Error, Result,
    cli::format,
    postgres::{Session, wal_summary},
    repository::StoredSnapshot,
    snapshot::manifest::Kind,
};

use crate::run::{Context, RunLog, SnapshotChoice, SnapshotWhen, expected_snapshot_time};

/// Longest snapshot that writers are made to wait for when nobody says otherwise.
pub const FENCED_LIMIT: std::time::Duration = std::time::Duration::from_secs(10);

/// How long the database is expected to take behind the fence.
pub async fn expected(session: &Session) -> Result<std::time::Duration> {
    let bytes: i64 = session
        .query_one("SELECT pg_catalog.pg_database_size(pg_catalog.current_database())", &[])
        .await
        .map_err(|source| Error::postgres("could not read the size of the database", source))?
        .get(0);
    Ok(expected_snapshot_time(bytes.unsigned_abs()))
}

/// Whether a first snapshot pays: told so, or it would take long behind the fence and the server tells what changed.
pub async fn pays(context: &Context, session: &Session) -> Result<bool> {
    let options = &context.options;
    Ok(match options.snapshot_when {
        _ if options.snapshot == SnapshotChoice::None => false,
        SnapshotWhen::Precopy => true,
        SnapshotWhen::Auto => {
            expected(session).await? > FENCED_LIMIT && wal_summary::unavailable(session).await?.is_none()
        }
        SnapshotWhen::Before | SnapshotWhen::Fenced => false,
    })
}

/// The first snapshot, and since when writers wait.
#[derive(Debug)]
pub struct Precopy {
    snapshot: StoredSnapshot,
    fenced: Option<Instant>,
}

/// Takes the first snapshot.
pub async fn take(context: &Context, log: &mut RunLog) -> Result<Precopy> {
    let options = backup::CreateOptions {
        kind: Kind::Manual,
        tags: BTreeMap::from([("precopy".to_owned(), context.run.to_string())]),
        reuse: backup::reuse::ReusePolicy::default(),
        ..context.backup_options(None)
    };
    let taken = backup::create(&context.connection, &context.repository, &options, &context.progress);
    let snapshot = log.phase("first snapshot, with writers at work", taken).await?;
    Ok(Precopy { snapshot, fenced: None })
}

impl Precopy {
    /// From now on writers wait.
    pub fn fence_begins(&mut self) {
        self.fenced = Some(Instant::now());
    }

    /// Says what it was good for, and deletes it. `taken` is the snapshot behind the fence, if it came to that.
    pub fn end(self, context: &Context, log: &mut RunLog, taken: Option<&StoredSnapshot>) {
        let first = &self.snapshot.manifest.id;
        let Some(taken) = taken else { return };
        if let (Some(reading), Some(fenced)) = (&taken.manifest.reading, self.fenced) {
            let told = format!(
                "snapshot behind the fence, after a first one before it: it read {} of {} chunks, and writers had waited {} \
                 when it was there",
                format::count(reading.chunks_read),
                format::count(reading.chunks),
                format::duration(fenced.elapsed()),
            );
            context.progress.note(&told);
            log.report.protection.push(told);
        }
        let deleted = context
            .repository
            .lock_exclusive()
            .and_then(|alone| context.repository.remove(&alone, std::slice::from_ref(first)));
        // It is whole and does no harm; prune's rules decide on it like on any other.
        if let Err(error) = deleted {
            context.progress.note(format!("the first snapshot {first} stays: {error}"));
        }
    }
}
