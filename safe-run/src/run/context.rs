//! Where to run: the database, the repository, and what is known before the run begins.

use std::time::Instant;

use chrono::{DateTime, Utc};
use common::{
    Progress, Result,
    postgres::{ConnectionSettings, Session, exported_snapshot::ExportedSnapshot},
    random,
    repository::{Repository, StoredSnapshot},
    snapshot::{SnapshotId, manifest::Kind},
};

use super::{Proof, RunOptions, SnapshotWhen};
use crate::{apply::Applying, history::History, journal::Mode, report::Report};

/// Smaller databases are read whole behind the fence: the CHECKPOINT that tells what changed may take longer.
const REUSE_FROM_BYTES: u64 = 1_000_000_000;

/// Where to run.
#[derive(Debug)]
pub struct Context {
    /// The database, narrowed to the server that answered.
    pub connection: ConnectionSettings,
    /// An idle session on the database that holds the advisory lock.
    pub control: Session,
    /// The repository.
    pub repository: Repository,
    /// How.
    pub options: RunOptions,
    /// Where to tell.
    pub progress: Progress,
    /// The run's id.
    pub run: SnapshotId,
    /// What was found out about the undo before anything began.
    pub proof: Proof,
    /// Where migrations are recorded.
    pub history: History,
    /// The command line that repeats it, secrets masked.
    pub invocation: String,
}

impl Context {
    /// What applying files on this session needs.
    pub fn applying<'a>(&'a self, session: &'a Session, run: &'a str) -> Applying<'a> {
        Applying {
            session,
            history: &self.history,
            run,
            lock_timeout: self.options.lock_wait.timeout,
            progress: &self.progress,
            began: Instant::now(),
        }
    }

    /// A fresh id for a run on `database`.
    pub fn new_run(database: &str) -> Result<SnapshotId> {
        Ok(SnapshotId::new(Utc::now(), database, random::bits()?))
    }

    /// A report on this database that says nothing yet of what happened.
    pub fn report(&self, mode: Mode) -> Report {
        let mut report = Report::new(self.connection.database().to_owned(), mode, Utc::now());
        report.utc_offset_seconds = local_offset(report.started_at);
        report.host = self.connection.host_label();
        report.user = self.connection.user().to_owned();
        report.database_url = self.connection.without_application_name().redacted_url();
        let version = self.control.server_version_num();
        report.server_version = format!("{}.{}", version / 10_000, version % 10_000);
        report.repository = self.repository.root().display().to_string();
        report.invocation = self.invocation.clone();
        report
    }

    /// Takes the pre-migration snapshot of the state that `exported` stands for.
    pub async fn snapshot(
        &self,
        exported: &ExportedSnapshot<'_>,
        database_state: Option<common::catalog::DatabaseState>,
    ) -> Result<StoredSnapshot> {
        let options = self.backup_options(database_state);
        backup::create_from(&self.connection, exported, &self.repository, &options, &self.progress).await
    }

    /// Options of the pre-migration snapshot.
    pub fn backup_options(
        &self,
        database_state: Option<common::catalog::DatabaseState>,
    ) -> backup::CreateOptions {
        backup::CreateOptions {
            kind: Kind::PreMigration,
            tags: std::iter::once(("run".to_owned(), self.run.to_string())).collect(),
            jobs: self.options.jobs,
            codec: self.options.codec,
            lock_wait: self.options.lock_wait,
            reuse: backup::reuse::ReusePolicy {
                from_bytes: match self.options.snapshot_when {
                    SnapshotWhen::Precopy => 0,
                    _ => REUSE_FROM_BYTES,
                },
                ..backup::reuse::ReusePolicy::default()
            },
            database_state,
            skip_space_check: self.options.skip_space_check,
            ..backup::CreateOptions::default()
        }
    }
}

/// How far the local time is ahead of UTC, in seconds.
pub fn local_offset(at: DateTime<Utc>) -> i32 {
    at.with_timezone(&chrono::Local).offset().local_minus_utc()
}
