//! The report in the making, the journal beside it, and the time that each step takes.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use common::{Error, Progress, Result, repository::StoredSnapshot};

use super::Context;
use crate::{
    database_clone::DatabaseClone,
    journal::{Journal, Mode, Step},
    report::{ErrorReport, Phase, Report, SnapshotReport, Verdict, document, migrations::MigrationReport},
};
use sql::migration::MigrationFile;

/// The report in the making, and the journal beside it.
#[derive(Debug)]
pub struct RunLog {
    /// What is reported at the end.
    pub report: Report,
    /// Written before each effect.
    pub journal: Journal,
    /// What was done outside of the transaction, as sentences; said when it is rolled back.
    pub outside: Vec<String>,
    /// Whether a command succeeded, wrote nothing, and may have swallowed a refusal of the fence.
    pub may_be_refused: bool,
    /// Whether new sessions were read-only before there was a fence.
    pub read_only_anyway: bool,
    /// The copy of the database by which it can be undone, as long as nobody has decided about it.
    pub clone: Option<DatabaseClone>,
    /// The history table, whose rows change with every run.
    pub(super) history_table: String,
    started: Instant,
    fence_since: Option<Instant>,
}

impl RunLog {
    /// Begins the journal.
    pub fn begin(context: &Context, mode: Mode, what: String, pending: usize) -> Result<Self> {
        let database = context.connection.database().to_owned();
        let step = Step::Begun { database, mode, what };
        let journal = Journal::begin(&context.repository, &context.run, step)?;
        let mut report = context.report(mode);
        report.run = context.run.to_string();
        report.pending = pending;
        let history_table = context.history.table.short();
        let started = Instant::now();
        Ok(Self {
            report,
            journal,
            outside: Vec::new(),
            may_be_refused: false,
            read_only_anyway: false,
            clone: None,
            history_table,
            started,
            fence_since: None,
        })
    }

    /// Runs a step and notes its time, whether it succeeds or not.
    pub async fn phase<T>(&mut self, name: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        let began = Instant::now();
        let result = work.await;
        self.timed(name, began);
        result
    }

    /// Notes the time of a step that began at `began`.
    pub fn timed(&mut self, name: &str, began: Instant) {
        self.took(name, began, began.elapsed());
    }

    /// Notes the time of a step that is over.
    pub fn took(&mut self, name: &str, began: Instant, took: Duration) {
        self.report.phases.push(Phase {
            name: name.to_owned(),
            started_seconds: began.saturating_duration_since(self.started).as_secs_f64(),
            seconds: took.as_secs_f64(),
        });
    }

    /// Takes over what happened to the files that ran since `began`.
    pub fn applied(&mut self, mut migrations: Vec<MigrationReport>, began: Instant) {
        let offset = began.saturating_duration_since(self.started).as_secs_f64();
        for migration in &mut migrations {
            migration.started_seconds += offset;
        }
        self.report.migrations = migrations;
        self.timed("migrations", began);
    }

    /// Other writers wait, or are refused, from now on.
    pub fn fence_is_up(&mut self) {
        self.fence_since = Some(Instant::now());
    }

    /// Nobody waits any more.
    pub fn fence_is_down(&mut self) {
        if let Some(since) = self.fence_since.take() {
            self.report.fence_seconds = Some(since.elapsed().as_secs_f64());
        }
    }

    /// Says which snapshot holds the state before, and writes it into the journal.
    pub fn took_snapshot(&mut self, snapshot: &StoredSnapshot) -> Result<()> {
        let id = snapshot.manifest.id.to_string();
        self.report.snapshot = Some(id.clone());
        self.journal.write(Step::SnapshotTaken { id })?;
        self.report.snapshot_facts = Some(SnapshotReport::of(snapshot)?);
        Ok(())
    }

    /// Records why the run fails.
    pub fn fail(&mut self, error: &Error) {
        self.report.error = Some(ErrorReport::from(error));
        self.report.headline = error.message().to_owned();
    }

    /// Writes a step whose effect has happened already: what can't be written now changes nothing about it, and is said.
    pub fn note_step(&mut self, step: Step) {
        if let Err(error) = self.journal.write(step) {
            self.report.notes.push(format!("the journal could not be written: {error}"));
        }
    }

    /// Sets the outcome, ends the journal, and writes the report beside it.
    ///
    /// Never fails: the outcome is what it is, and the exit code has to say it even on a full disk.
    pub fn finish(mut self, verdict: Verdict, exit_code: u8) -> Report {
        self.report.verdict = verdict;
        self.report.exit_code = exit_code;
        self.fence_is_down();
        self.report.seconds = self.started.elapsed().as_secs_f64();
        if let Err(error) = self.write_report() {
            self.report.notes.push(format!("the report could not be written: {error}"));
        }
        // An unknown outcome stays unfinished: `recover` has to look at it.
        if verdict != Verdict::Unknown {
            self.note_step(Step::Finished { exit_code, verdict: verdict.word().to_owned() });
        }
        self.report
    }

    fn write_report(&self) -> Result<()> {
        document::store(&self.report, self.journal.dir())
    }
}

/// What came of a piece of work, when it began, and how long it took.
pub type Timed<T> = (T, Instant, Duration);

/// Runs a step beside others and says when it began and how long it took.
async fn with_time<T>(work: impl Future<Output = Result<T>>) -> Result<Timed<T>> {
    let began = Instant::now();
    let done = work.await?;
    Ok((done, began, began.elapsed()))
}

/// Looks at the state and takes its snapshot, both at once, each with its time. What is told is how far the snapshot is; a look that
/// lasts longer is a phase of its own.
pub async fn look_beside<A, B>(
    progress: &Progress,
    look: impl Future<Output = Result<A>>,
    snapshot: impl Future<Output = Result<B>>,
) -> Result<(Timed<A>, Timed<B>)> {
    let (is_over, is_phase) = (AtomicBool::new(false), AtomicBool::new(false));
    let look = async {
        let found = with_time(look).await;
        is_over.store(true, Ordering::Relaxed);
        found
    };
    let snapshot = async {
        let taken = with_time(snapshot).await?;
        if !is_over.load(Ordering::Relaxed) {
            progress.phase("checking", None);
            is_phase.store(true, Ordering::Relaxed);
        }
        Ok(taken)
    };
    let both = tokio::try_join!(look, snapshot);
    if is_phase.load(Ordering::Relaxed) {
        progress.done();
    }
    both
}

/// The files as a person is told of them: all names, or the first and the last of many.
pub fn describe_files(files: &[&MigrationFile]) -> String {
    const NAMED: usize = 5;
    match files {
        [first, .., last] if files.len() > NAMED => {
            format!("{} … {} ({} files)", first.name(), last.name(), files.len())
        }
        files => files.iter().map(|file| file.name()).collect::<Vec<_>>().join(" "),
    }
}
