//! Takes a snapshot. The flow on one screen:
//!
//! settings → session → lock every table → exported snapshot, held to the end → { schema by pg_dump ‖ catalog → plan →
//! workers: COPY out → compress → hash → chunk files } → large objects → sequences → manifest → publish.
//!
//! `safe-run` enters in the middle, with the snapshot that its own migration transaction exported.

mod copy_state;
mod explain;
mod stock_files;
mod taken_part;
mod time_limit;

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use common::{
    Cause, Error, Progress, Result,
    catalog::DatabaseState,
    cli::config::default_jobs,
    postgres::{
        ConnectionSettings, Session, connect,
        exported_snapshot::{ExportedSnapshot, JOINED_LOCK_WAIT, LockMode, LockWait, lock_tables},
        introspect, lock_room, names_as_bytes,
        session_room::{self, Need},
    },
    repository::{Repository, StoredSnapshot},
    snapshot::{
        Codec,
        copy_sql::Cut,
        manifest::{Filters, Kind},
    },
};

use crate::{
    part,
    reuse::{self, ReusePolicy, Settle},
};
use copy_state::{More, copy_state};
use explain::explain_conflict;
pub(crate) use explain::{explain, explain_rights};
use time_limit::within;

/// Oldest major version whose snapshots are exact: page ranges need its TID range scans (docs/exactness.md, E3).
pub const OLDEST_SERVER: u32 = 14;

/// What a snapshot shall be.
#[derive(Debug, Clone)]
pub struct CreateOptions {
    /// Why it is taken.
    pub kind: Kind,
    /// A name given by a person.
    pub name: Option<String>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Connections that copy.
    pub jobs: usize,
    /// Compression.
    pub codec: Codec,
    /// Sizes of chunks and pieces.
    pub cut: Cut,
    /// What may be taken over from an earlier snapshot.
    pub reuse: ReusePolicy,
    /// The part of the database to take; without filters, the whole.
    pub filters: Filters,
    /// The rows of these tables (`pg_class.oid`) alone, and the definitions of all: for a trial of the undo.
    pub rows_of: Option<HashSet<u32>>,
    /// How long to wait for table locks.
    pub lock_wait: LockWait,
    /// Longest time that the exported snapshot may be held: meanwhile the server can't clean up behind it.
    pub max_duration: Option<Duration>,
    /// Database-level state to record instead of what is read: a fence changes the settings of the database, and the
    /// snapshot has to hold them as they were without it.
    pub database_state: Option<DatabaseState>,
    /// Begin although the repository seems to have no room for it.
    pub skip_space_check: bool,
    /// Rows that violate a foreign key are looked for, and said.
    pub check_foreign_keys: bool,
    /// Read the roles' password hashes, and store them.
    pub role_passwords: bool,
    /// What a person should know of this snapshot, whoever restores it.
    pub notes: Vec<String>,
    /// Note where the database looks as if a run that this repository does not know had left its fence.
    pub tell_fence: bool,
}

impl Default for CreateOptions {
    fn default() -> Self {
        Self {
            kind: Kind::Manual,
            name: None,
            tags: BTreeMap::new(),
            jobs: default_jobs(),
            codec: Codec::default(),
            cut: Cut::default(),
            reuse: ReusePolicy::default(),
            filters: Filters::default(),
            rows_of: None,
            lock_wait: LockWait::default(),
            max_duration: None,
            database_state: None,
            skip_space_check: false,
            check_foreign_keys: false,
            role_passwords: false,
            notes: Vec::new(),
            tell_fence: false,
        }
    }
}

/// Takes a snapshot of the database that `settings` name, and publishes it in `repository`.
///
/// # Errors
/// The database is never changed. Busy when the locks can't be had; refused for an old server, an old pg_dump, a pooler
/// or missing rights. On every error the partial snapshot is removed.
pub async fn create(
    settings: &ConnectionSettings,
    repository: &Repository,
    options: &CreateOptions,
    progress: &Progress,
) -> Result<StoredSnapshot> {
    // As long as the locks may be waited for, so long may the whole be tried again.
    let budget = (options.lock_wait.timeout + LONGEST_PAUSE) * options.lock_wait.retries;
    let mut retries = budget.as_millis().div_ceil(JOINED_LOCK_WAIT.as_millis());
    let mut renamed = 0;
    loop {
        match create_locked(settings, repository, options, progress).await.map_err(explain) {
            Err(error) if error.is_caused_by(Cause::GaveWay) && retries > 0 => {
                retries -= 1;
                progress.warn(format!("{error}: gave way, and begins again"));
            }
            Err(error) if error.is_caused_by(Cause::NameChanged) && renamed < RENAMED_AT_MOST => {
                renamed += 1;
                progress.warn(format!("{error}: the backup begins again"));
            }
            result => return result,
        }
        common::interrupt::check()?;
    }
}

/// How often a backup begins again because a name came to mean another table. Each time may have taken as long as a backup
/// does, and who renames all the time will not stop for it.
const RENAMED_AT_MOST: u32 = 5;

/// Between two attempts to get the tables' locks, at most.
const LONGEST_PAUSE: std::time::Duration = std::time::Duration::from_secs(1);

async fn create_locked(
    settings: &ConnectionSettings,
    repository: &Repository,
    options: &CreateOptions,
    progress: &Progress,
) -> Result<StoredSnapshot> {
    let holder = settings.connect().await?;
    // With several hosts, every further session and pg_dump must reach the server that answered.
    let settings = &holder.settings().clone();
    let observer = settings.connect().await?;
    check_server(&observer).await?;
    connect::refuse_pooler(&observer).await?;
    // Beside these two, of which one goes: the reader, pg_dump, and who copies.
    let need = Need { fixed: 1, per_job: 1, jobs: options.jobs, same_database: true };
    let room = session_room::find(&observer, need).await?;
    if let Some(said) = room.said {
        progress.note(said);
    }
    let options = &CreateOptions { jobs: room.jobs, ..options.clone() };
    // Of a part, whether there is room shows when its tables are locked.
    if options.filters.is_empty() {
        lock_room::find(&observer).await?.require()?;
    }
    repository.sweep()?;
    let mut points = reuse::points(&observer).await?;
    progress.phase("locking tables", None);
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    let list = async |session: &Session| {
        let all = introspect::relations(session).await?;
        if options.filters.is_empty() {
            return Ok(all);
        }
        Ok(part::find(session, &options.filters).await?.relations(all))
    };
    lock_tables(&holder, &observer, begin, LockMode::AccessShare, options.lock_wait, list, progress).await?;
    progress.done();
    reuse::later_point(&observer, &mut points).await?;
    observer.close().await?;
    let exported = ExportedSnapshot::export(&holder).await?.with_points(points);
    let more = More { settle: Settle::Always, looks: true };
    let created = copy_state(settings, &exported, repository, options, more, progress);
    let created = within(options.max_duration, Box::pin(created), progress).await;
    match created {
        Ok(snapshot) => {
            // Complete and published, with the holder alive until then: how it ends changes nothing any more.
            let _ = holder.close().await;
            Ok(snapshot)
        }
        Err(error) => Err(explain_conflict(error, holder).await),
    }
}

/// Refuses servers whose snapshots could not be exact.
pub async fn check_server(session: &Session) -> Result<()> {
    refuse_older(session.server_major())?;
    names_as_bytes::refuse(session).await
}

fn refuse_older(major: u32) -> Result<()> {
    if major >= OLDEST_SERVER {
        return Ok(());
    }
    Err(Error::refused(format!("the server is PostgreSQL {major}; {OLDEST_SERVER} is the oldest supported"))
        .with_hint("Use pg_dump for this server."))
}

/// Takes a snapshot of the state that `exported` stands for. Its tables must be locked by the holder.
///
/// Others wait for the holder, so no CHECKPOINT is run for later snapshots' sake alone.
pub async fn create_from(
    settings: &ConnectionSettings,
    exported: &ExportedSnapshot<'_>,
    repository: &Repository,
    options: &CreateOptions,
    progress: &Progress,
) -> Result<StoredSnapshot> {
    let more = More { settle: Settle::IfKnown, looks: false };
    let created = copy_state(settings, exported, repository, options, more, progress);
    Box::pin(created).await.map_err(explain)
}

#[cfg(test)]
mod tests {
    use common::ErrorKind;

    use super::*;

    #[test]
    fn a_server_that_is_too_old_is_refused_with_the_tool_that_reads_it() {
        let error = refuse_older(OLDEST_SERVER - 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert_eq!(error.hint(), Some("Use pg_dump for this server."));
        refuse_older(OLDEST_SERVER).unwrap();
    }
}
