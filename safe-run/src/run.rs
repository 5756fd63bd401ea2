//! What every protected run shares: its options, its context, its log, and the look at the database before and after.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use common::{
    Error, Progress, Result,
    catalog::Sequence,
    postgres::{
        ConnectionSettings, Session,
        exported_snapshot::{ExportedSnapshot, LockWait, join_for_checks},
        introspect,
        names::Schemas,
    },
    random,
    repository::{Repository, StoredSnapshot},
    snapshot::{Codec, SnapshotId, manifest::Kind},
};

use crate::{
    apply::{Applying, MigrationReport},
    clone::DatabaseClone,
    facts::{self, Functions},
    history::History,
    journal::{Journal, Mode, Step},
    precopy::Precopy,
    proof::Proof,
    report::{ErrorReport, Phase, Report, SnapshotReport, Verdict, document, tables},
    verify::VerifyFile,
};
use checks::{
    self, Accepted, CheckKind, CheckResults, Expectation, FailOn, Level, LossLimits, carried::Carried,
};
use sql::{
    expectation::{self, Facts, RowExpectation},
    migration::MigrationFile,
    statement::TableName,
};

/// Which fence to put up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum FenceChoice {
    /// `lock` for migrations in one transaction, `read-only` otherwise.
    Auto,
    /// EXCLUSIVE locks on all tables, in the migration's transaction: reads go on, writes wait.
    Lock,
    /// The database is read-only for everybody but the command; other sessions are ended.
    ReadOnly,
    /// The database has another name while it runs, which the command gets: nobody else can connect.
    Exclusive,
    /// Nothing: others may write while it runs.
    None,
}

/// Whether a snapshot is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SnapshotChoice {
    /// `file` where that is proved to be an undo; where it can't be and the clone can, `both`.
    Auto,
    /// A snapshot in the repository.
    File,
    /// A copy of the database on its server, for the time of the run: the undo is a swap of names, at any size.
    Clone,
    /// A snapshot in the repository and a copy on the server.
    Both,
    /// Nothing is stored: a ROLLBACK is the only undo.
    None,
}

impl SnapshotChoice {
    /// Whether the repository gets a snapshot.
    pub fn has_file(self) -> bool {
        matches!(self, Self::Auto | Self::File | Self::Both)
    }

    /// Whether the server makes a copy.
    pub fn has_clone(self) -> bool {
        matches!(self, Self::Clone | Self::Both)
    }
}

/// When the snapshot is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SnapshotWhen {
    /// Behind the fence; precopy where that would take long and the server tells what changed; before, where it does not
    /// and a ROLLBACK is the undo.
    Auto,
    /// Before the fence: writers do not wait for it.
    Before,
    /// Behind the fence: exactly the state before the migration.
    Fenced,
    /// Once before the fence with writers at work, the checks too, and then, behind it, only what changed.
    Precopy,
}

/// What to do when it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OnFailure {
    /// Undo everything.
    Undo,
    /// Keep the failed state for a person; a transaction is rolled back all the same.
    Stop,
}

/// Smaller databases are read whole behind the fence: the CHECKPOINT that tells what changed may take longer.
const REUSE_FROM_BYTES: u64 = 1_000_000_000;

/// How to run.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Connections.
    pub jobs: usize,
    /// Compression of the snapshot.
    pub codec: Codec,
    /// The snapshot, or the clone, begins although there seems to be no room for it.
    pub skip_space_check: bool,
    /// How long to wait for locks.
    pub lock_wait: LockWait,
    /// The fence.
    pub fence: FenceChoice,
    /// The fence stays after the run.
    pub hold_fence: bool,
    /// The snapshot.
    pub snapshot: SnapshotChoice,
    /// The clone stays after a success.
    pub keep_clone: bool,
    /// Background workers of extensions may be ended.
    pub end_workers: bool,
    /// When it is taken.
    pub snapshot_when: SnapshotWhen,
    /// How much is checked.
    pub level: Level,
    /// Only these checks.
    pub only: Vec<CheckKind>,
    /// Not these checks.
    pub skip: Vec<CheckKind>,
    /// Which findings fail the run.
    pub fail_on: FailOn,
    /// A check that could not run fails the run.
    pub strict: bool,
    /// `--allow-loss`.
    pub allow_loss: Vec<(String, Option<i64>)>,
    /// `--allow-lost-labels`: enum types, and which of their labels; any if none is listed.
    pub lost_labels: Vec<(TableName, Vec<String>)>,
    /// `--allow-lost-grants`: objects.
    pub lost_grants: Vec<TableName>,
    /// `--max-loss`, a fraction.
    pub max_loss: f64,
    /// The team's own checks, from `--verify`.
    pub verify: Vec<VerifyFile>,
    /// What to do on failure; `None` is the mode's own default.
    pub on_failure: Option<OnFailure>,
}

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
    history_table: String,
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

/// How far the local time is ahead of UTC, in seconds.
pub fn local_offset(at: DateTime<Utc>) -> i32 {
    at.with_timezone(&chrono::Local).offset().local_minus_utc()
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

/// The state before the migration.
#[derive(Debug)]
pub struct Baseline {
    /// What the checks found.
    pub results: CheckResults,
    /// Where there were first checks before the fence: what of them holds, or why nothing does.
    pub carried: Option<std::result::Result<Arc<Carried>, String>>,
    /// Tables, foreign keys, triggers.
    pub facts: Facts,
    /// Which functions can change rows.
    pub functions: Functions,
    /// Where every sequence stood.
    pub sequences: Vec<Sequence>,
}

/// Looks at the database before the migration, with several sessions on one exported snapshot. What `first` answered before
/// the fence, and still holds, is not asked again. With `functions_later` the session that holds the locks tries the functions.
pub async fn baseline(
    context: &Context,
    exported: &ExportedSnapshot<'_>,
    first: Option<&mut Precopy>,
    functions_later: bool,
) -> Result<Baseline> {
    let carried = match first {
        Some(first) => Some(first.carried(context, exported).await?),
        None => None,
    };
    let sessions = join_many(context, exported).await?;
    let first = sessions.first().ok_or_else(|| Error::failed("no session for the checks"))?;
    let (facts, functions) = facts::read(first).await?;
    let sequences = introspect::sequences(first).await?;
    let still_holds = carried.as_ref().and_then(|carried| carried.as_ref().ok()).cloned();
    // It tells nobody how far it is: rows are copied meanwhile, and that is the phase.
    let options =
        checks::Options { carried: still_holds, functions_later, ..check_options(&context.options) };
    let results = check_on(&context.connection, &sessions, &options).await?;
    close_all(sessions).await?;
    // Its locks would be in the migration's way.
    if let Some(Ok(carried)) = &carried {
        carried.release().await;
    }
    Ok(Baseline { results, carried, facts, functions, sequences })
}

/// Runs the checks with several sessions on one exported snapshot.
pub async fn check_parallel(
    context: &Context,
    exported: &ExportedSnapshot<'_>,
    options: &checks::Options,
) -> Result<CheckResults> {
    let sessions = join_many(context, exported).await?;
    let results = check_on(&context.connection, &sessions, options).await?;
    close_all(sessions).await?;
    Ok(results)
}

/// Runs the checks on `sessions`, which see one snapshot, with one more session for what has to be created and taken
/// back.
///
/// # Errors
/// Busy if a schema got another name since the snapshot: then a query may have met another table.
pub async fn check_on<'s>(
    connection: &ConnectionSettings,
    sessions: impl IntoIterator<Item = &'s Session>,
    options: &checks::Options,
) -> Result<CheckResults> {
    let clients: Vec<&common::postgres::Client> = sessions.into_iter().map(|session| &**session).collect();
    let first = clients.first().ok_or_else(|| Error::failed("no session for the checks"))?;
    let schemas = Schemas::seen_by(first).await?;
    let results = check_by_names(connection, &clients, options).await?;
    check_names(&schemas, &Schemas::now(connection).await?, &results)?;
    Ok(results)
}

/// Makes sure that the names that a pass looked its tables up by meant the same at its end.
///
/// A schema that only the migration's own transaction sees is nobody else's to rename.
///
/// # Errors
/// Busy, with the schema that got another name.
pub fn check_names(before: &Schemas, after: &Schemas, results: &CheckResults) -> Result<()> {
    let tables = results.tables.values().map(|table| &table.name);
    let names = tables.chain(results.sequences.values().map(|sequence| &sequence.name));
    let used = names.map(|name| name.schema.as_str()).collect::<HashSet<_>>();
    before.check_same(after, &before.names().intersection(&used).copied().collect())
}

/// [`check_on`] without the proof of the names.
async fn check_by_names(
    connection: &ConnectionSettings,
    clients: &[&common::postgres::Client],
    options: &checks::Options,
) -> Result<CheckResults> {
    // Before a run at `standard` there is nothing that would have to be created.
    let creates = options.level >= Level::Deep || options.known.is_some();
    if !creates || !options.wants(CheckKind::Structure) || is_standby(clients).await? {
        return checks::run_parallel(clients, options).await;
    }
    let scratch = connection.connect().await?;
    // What is created must not wait for somebody else's locks behind which others queue.
    scratch
        .batch_execute("SET lock_timeout = '10s'; SET default_transaction_read_only = off")
        .await
        .map_err(|source| Error::postgres("could not prepare a session", source))?;
    let results = checks::run_with_scratch(clients, Some(&scratch), options).await?;
    scratch.close().await?;
    Ok(results)
}

/// Whether the server replays another's log: nothing can be created there, not even for a moment.
async fn is_standby(clients: &[&common::postgres::Client]) -> Result<bool> {
    let Some(client) = clients.first() else { return Ok(false) };
    let row = client.query_one("SELECT pg_catalog.pg_is_in_recovery()", &[]).await;
    row.map(|row| row.get(0)).map_err(|source| Error::postgres("could not ask the server", source))
}

async fn join_many(context: &Context, exported: &ExportedSnapshot<'_>) -> Result<Vec<Session>> {
    let mut sessions = Vec::new();
    for _ in 0..context.options.jobs.max(1) {
        sessions.push(join_for_checks(&context.connection, exported).await?);
    }
    Ok(sessions)
}

async fn close_all(sessions: Vec<Session>) -> Result<()> {
    for session in sessions {
        session.close().await?;
    }
    Ok(())
}

/// The options of a pass that looks at everything.
pub fn check_options(options: &RunOptions) -> checks::Options {
    checks::Options {
        level: options.level,
        only: options.only.clone(),
        skip: options.skip.clone(),
        ..checks::Options::default()
    }
}

/// What the migration's SQL and the flags let us expect of the pass afterwards.
pub struct Announced {
    /// Of each table's rows, by oid.
    pub rows: Box<dyn Fn(u32) -> Expectation>,
    /// Losses that are allowed.
    pub limits: LossLimits,
    /// What may change of owners, grants and enum labels.
    pub accepted: Accepted,
}

/// What files announce.
pub fn announced(options: &RunOptions, files: &[&MigrationFile], baseline: &Baseline) -> Announced {
    Announced {
        rows: Box::new(expectations(files, baseline)),
        limits: loss_limits(options, files),
        accepted: accepted(options, files),
    }
}

/// A command's SQL can't be seen: it may have done anything.
pub fn announced_by_command(options: &RunOptions) -> Announced {
    Announced {
        rows: Box::new(|_| Expectation::Unknown { why: "an external command".to_owned() }),
        limits: loss_limits(options, &[]),
        accepted: Accepted { privileges: true, ..accepted(options, &[]) },
    }
}

/// What the flags and the files say.
fn accepted(options: &RunOptions, files: &[&MigrationFile]) -> Accepted {
    let annotations = || files.iter().map(|file| &file.annotations);
    let written = options.lost_labels.iter().cloned();
    let granted = options.lost_grants.iter().cloned();
    Accepted {
        privileges: announces_privileges(files),
        lost_labels: written.chain(annotations().flat_map(|file| file.lost_labels.iter().cloned())).collect(),
        lost_grants: granted.chain(annotations().flat_map(|file| file.lost_grants.iter().cloned())).collect(),
    }
}

/// Whether a word of the files changes privileges; also inside of DO blocks and strings, which run as well.
fn announces_privileges(files: &[&MigrationFile]) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    files.iter().flat_map(|file| &file.statements).any(|statement| {
        statement.text.split(|c| !is_word(c)).any(|word| {
            ["grant", "revoke", "owner", "owned", "privileges"]
                .iter()
                .any(|known| word.eq_ignore_ascii_case(known))
        })
    })
}

/// Compares the two passes and puts the result into the report.
///
/// # Errors
/// The first failing finding, as the error that the run ends with.
pub fn judge(
    log: &mut RunLog,
    options: &RunOptions,
    baseline: &Baseline,
    after: &CheckResults,
    announced: &Announced,
    verified: Vec<checks::Finding>,
) -> Result<()> {
    let before = &baseline.results;
    let mut comparison = checks::compare_announced(before, after, options.fail_on, &announced.accepted);
    comparison.add(checks::compare_content(before, after, &announced.rows));
    comparison.add(verified);
    let rows = check_options(options)
        .wants(CheckKind::Rows)
        .then(|| checks::compare_rows(before, after, &announced.rows, &announced.limits))
        // The history grows with every run: no news.
        .map(|mut rows| {
            rows.changes.retain(|change| change.table != log.history_table);
            rows
        });
    let report = &mut log.report;
    report.skipped = after.skipped.clone();
    report.skipped.extend(after.never_checked(before));
    report.skipped.sort();
    let verified_files = (!options.verify.is_empty()).then_some(CheckKind::Verify);
    report.checked = after.checked().into_iter().chain(verified_files).collect();
    report.tables = tables::compare(&baseline.results, after, &log.history_table);
    if let Some(rows) = &rows {
        for table in &rows.not_compared {
            report.notes.push(format!("the rows of {table} could not be counted afterwards"));
        }
    }
    report.findings = Some(comparison);
    // The sums are those of the tables, one by one.
    report.rows = rows.map(|rows| {
        let totals = tables::totals(&report.tables);
        checks::RowComparison {
            tables: totals.tables,
            rows_before: totals.before,
            rows_after: totals.after,
            ..rows
        }
    });
    let skipped = after.skipped.iter().find(|skipped| skipped.counts_for_strict);
    if let (true, Some(skipped)) = (options.strict, skipped) {
        return Err(Error::failed(format!(
            "{} of {} could not be checked: {}",
            skipped.check, skipped.object, skipped.why
        )));
    }
    if options.strict && report.checked.is_empty() {
        return Err(Error::failed("no check had anything to look at, and --strict was given").with_hint(
            "Choose checks that look at what the run changed (--only, --level), or leave --strict away.",
        ));
    }
    let Some(first) = report.failures().into_iter().next() else { return Ok(()) };
    let error = Error::failed(first);
    let failing = report.findings.iter().flat_map(|findings| findings.failing());
    Err(match failing.filter_map(checks::how_to_accept).next() {
        Some(hint) => error.with_hint(hint),
        None => error,
    })
}

/// Gathers the planner's statistics again that the run took away, once it stands. Never fails the run.
pub async fn analyze_what_lost_statistics(session: &Session, log: &mut RunLog, progress: &Progress) {
    let lost = log.report.findings.as_ref().map_or_else(Vec::new, |found| found.lost_statistics.clone());
    if lost.is_empty() {
        return;
    }
    let began = Instant::now();
    progress.phase("analyzing", None);
    for lost in &lost {
        let statement = lost.analyze_sql();
        let table = lost.table.short();
        log.report.notes.push(match session.batch_execute(&statement).await {
            Ok(()) => format!(
                "{} of {table} had lost the planner's statistics: analyzed",
                common::format::plural(lost.columns.len() as u64, "column", "columns")
            ),
            Err(source) => {
                let error = Error::postgres("could not analyze", source);
                format!("{table} lost planner's statistics, and {error}; run: {statement};")
            }
        });
    }
    progress.done();
    log.timed("analyze", began);
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

/// What the pending files let us expect of each table, with their annotations.
fn expectations(files: &[&MigrationFile], baseline: &Baseline) -> impl Fn(u32) -> Expectation + use<> {
    let classes = files.iter().flat_map(|file| &file.statements).map(|statement| &statement.class);
    let facts = &baseline.facts;
    let mut expected: std::collections::BTreeMap<u32, Expectation> = expectation::expectations(
        classes,
        facts,
        |name| expectation::by_name(facts, name),
        |name| baseline.functions.may_write(name),
    )
    .into_iter()
    .map(|(oid, expectation)| (oid, mirror(expectation)))
    .collect();
    for rows in files.iter().flat_map(|file| &file.annotations.rows) {
        for oid in expectation::by_name(facts, &rows.table) {
            expected.insert(oid, Expectation::Between(*rows.change.start(), *rows.change.end()));
        }
    }
    move |oid| expected.get(&oid).cloned().unwrap_or(Expectation::Equal)
}

fn mirror(expectation: RowExpectation) -> Expectation {
    match expectation {
        RowExpectation::Equal => Expectation::Equal,
        RowExpectation::Updated => Expectation::Updated,
        RowExpectation::NotFewer => Expectation::NotFewer,
        RowExpectation::FewerAllowed => Expectation::FewerAllowed,
        RowExpectation::MustAcknowledge { why } => Expectation::MustAcknowledge { why },
        RowExpectation::Unknown { why } => Expectation::Unknown { why },
    }
}

/// Losses that the flags and the files' annotations allow.
pub(crate) fn loss_limits(options: &RunOptions, files: &[&MigrationFile]) -> LossLimits {
    let written = |name: &TableName| match &name.schema {
        Some(schema) => format!("{schema}.{}", name.name),
        None => name.name.clone(),
    };
    let annotated = files.iter().flat_map(|file| &file.annotations.allow_loss).map(|allowed| {
        (written(&allowed.table), allowed.at_most.map(|rows| i64::try_from(rows).unwrap_or(i64::MAX)))
    });
    LossLimits {
        max_loss: options.max_loss,
        allow_loss: annotated.chain(options.allow_loss.iter().cloned()).collect(),
    }
}

/// Seconds that a snapshot of this size is expected to take: 100 MB/s is what a small machine does.
pub fn expected_snapshot_time(database_bytes: u64) -> Duration {
    Duration::from_secs(database_bytes / 100_000_000)
}

/// Seconds that the checks of a database of this size are expected to take: two processors do 200 MB/s.
pub fn expected_checks_time(database_bytes: u64) -> Duration {
    Duration::from_secs(database_bytes / 200_000_000)
}
