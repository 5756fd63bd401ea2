//! A first snapshot, and first checks, with writers at work, so that behind the fence only what changed since is read.
//!
//! The first snapshot is an ordinary one, tagged `precopy`, and deleted when the second has taken over its files. A run that
//! dies in between leaves it as what it is: a whole snapshot of a moment before the migration.
//!
//! The first checks are a whole pass at a state of their own, after the first snapshot: the later they see the database, the
//! fewer of their answers are out of date behind the fence ([`checks::carried`] says which still hold).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use common::{
    Cause, Error, ErrorKind, Result, fault, format,
    postgres::{
        Session,
        exported_snapshot::{ExportedSnapshot, LockMode, join_for_checks, lock_all_tables},
        wal_summary::{self, Point},
    },
    repository::StoredSnapshot,
    snapshot::manifest::Kind,
};

use crate::run::{
    Baseline, Context, RunLog, RunOptions, SnapshotWhen, check_options, check_parallel, expected_checks_time,
    expected_snapshot_time,
};
use checks::{
    self, CheckKind, CheckResults, Level, RuleKey,
    carried::{Beginning, Carried, FirstPass, FirstState},
};

/// Longest wait that writers are made to bear when nobody says otherwise.
pub const FENCED_LIMIT: Duration = Duration::from_secs(10);

/// Tables that a report names where it says what changed.
const NAMED: usize = 5;

/// How long the database is expected to take behind the fence.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    /// Its snapshot.
    pub snapshot: Duration,
    /// The checks before the migration.
    pub checks: Duration,
}

impl Expected {
    /// Both, which share the same processors.
    pub fn both(self) -> Duration {
        self.snapshot + self.checks
    }

    /// Why a first look before the fence pays.
    pub fn why(self) -> String {
        match (self.snapshot.as_secs(), self.checks.as_secs()) {
            (snapshot, 0) => format!("otherwise writers would wait about {snapshot} s"),
            (0, checks) => format!("otherwise writers would wait about {checks} s for the checks"),
            (snapshot, checks) => format!(
                "otherwise writers would wait about {} s, {snapshot} s for the snapshot and {checks} s for the checks",
                snapshot + checks
            ),
        }
    }
}

/// How long the database is expected to take behind the fence.
pub async fn expected(options: &RunOptions, session: &Session) -> Result<Expected> {
    let bytes: i64 = session
        .query_one("SELECT pg_catalog.pg_database_size(pg_catalog.current_database())", &[])
        .await
        .map_err(|source| Error::postgres("could not read the size of the database", source))?
        .get(0);
    let bytes = fault::number("safe-run.database-bytes").unwrap_or(bytes.unsigned_abs());
    let when = |does: bool, time: Duration| if does { time } else { Duration::ZERO };
    Ok(Expected {
        snapshot: when(options.snapshot.has_file(), expected_snapshot_time(bytes)),
        checks: when(reads_tables(options), expected_checks_time(bytes)),
    })
}

/// Whether the checks read more than the catalog.
fn reads_tables(options: &RunOptions) -> bool {
    let checks = check_options(options);
    options.level > Level::Fast
        && [CheckKind::ForeignKeys, CheckKind::Unique, CheckKind::Rows, CheckKind::Check, CheckKind::NotNull]
            .into_iter()
            .any(|kind| checks.wants(kind))
}

/// Whether a first look pays: told so, or it would take long behind the fence and the server tells what changed. Gives the
/// reason.
pub async fn pays(context: &Context, session: &Session) -> Result<Option<String>> {
    let options = &context.options;
    Ok(match options.snapshot_when {
        SnapshotWhen::Precopy => Some("as told".to_owned()),
        SnapshotWhen::Auto => {
            let expected = expected(options, session).await?;
            let pays = expected.both() > FENCED_LIMIT && wal_summary::unavailable(session).await?.is_none();
            pays.then(|| expected.why())
        }
        SnapshotWhen::Before | SnapshotWhen::Fenced => None,
    })
}

/// The first snapshot and the first checks, and since when writers wait.
#[derive(Debug)]
pub struct Precopy {
    snapshot: Option<StoredSnapshot>,
    /// Why the checks are all run behind the fence, where they are.
    checks: std::result::Result<First, String>,
    fenced: Option<Instant>,
}

/// The first checks, and a session that still sees what they saw.
#[derive(Debug)]
struct First {
    pass: FirstPass,
    reader: Option<Session>,
}

/// Takes the first snapshot, if the run takes any, and runs the first checks.
pub async fn take(context: &Context, log: &mut RunLog) -> Result<Precopy> {
    // One more place in the log, from before: whoever is at work at the first checks for longer than they last.
    let points = backup::reuse::points(&context.control).await?;
    let mut snapshot = None;
    if context.options.snapshot.has_file() {
        let options = backup::CreateOptions {
            kind: Kind::Manual,
            tags: BTreeMap::from([("precopy".to_owned(), context.run.to_string())]),
            reuse: backup::reuse::ReusePolicy::default(),
            ..context.backup_options(None)
        };
        let taken = backup::create(&context.connection, &context.repository, &options, &context.progress);
        snapshot = Some(log.phase("first snapshot, with writers at work", taken).await?);
    }
    let checks = if reads_tables(&context.options) {
        match wal_summary::unavailable(&context.control).await? {
            Some(why) => Err(why),
            None => log.phase("first checks, with writers at work", first_checks(context, points)).await?,
        }
    } else {
        Err("they read no table".to_owned())
    };
    fault::wait("safe-run.precopied");
    Ok(Precopy { snapshot, checks, fenced: None })
}

/// A whole pass at a state of its own. The inner error says why its answers are of no use later.
async fn first_checks(
    context: &Context,
    mut points: Vec<Point>,
) -> Result<std::result::Result<First, String>> {
    // Summaries begin and end at checkpoints: what was written after one and before our place in the log would count.
    match wal_summary::settle(&context.control).await {
        Ok(None) => {}
        Ok(Some(why)) => return Ok(Err(why)),
        Err(error) if error.sqlstate().is_some() => return Ok(Err(error.to_string())),
        Err(error) => return Err(error),
    }
    let holder = context.connection.connect().await?;
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    let wait = context.options.lock_wait;
    let locked =
        lock_all_tables(&holder, &context.control, begin, LockMode::AccessShare, wait, &context.progress)
            .await;
    match locked {
        Ok(_) => {}
        // A table that can't be read, or had, is the business of the checks behind the fence.
        Err(error) if matches!(error.kind(), ErrorKind::Refused | ErrorKind::Busy) => {
            return Ok(Err(error.to_string()));
        }
        Err(error) => return Err(error),
    }
    points.extend(backup::reuse::points(&context.control).await?);
    backup::reuse::later_point(&context.control, &mut points).await?;
    let exported = ExportedSnapshot::export(&holder).await?;
    let reader = join_for_checks(&context.connection, &exported).await?;
    let beginning = Beginning::read(&reader, &points).await?;
    let beginning = match beginning {
        Ok(beginning) => beginning,
        Err(why) => return Ok(Err(why)),
    };
    context.progress.phase("checking, with writers at work", None);
    let options = checks::Options {
        is_first: true,
        progress: Some(context.progress.clone()),
        ..check_options(&context.options)
    };
    let results = check_parallel(context, &exported, &options).await;
    context.progress.done();
    let results = match results {
        Err(error) if error.is_caused_by(Cause::NameChanged) => return Ok(Err(error.to_string())),
        results => results?,
    };
    exported.check_held().await?;
    drop(exported);
    holder.close().await?;
    let ended = beginning.end(&context.control, results).await?;
    Ok(ended.map(|pass| First { pass, reader: Some(reader) }))
}

impl Precopy {
    /// From now on writers wait.
    pub fn fence_begins(&mut self) {
        self.fenced = Some(Instant::now());
    }

    /// Lets go of the first checks' state, where the fence ends every session. Of a table that changed everything is read again
    /// then.
    pub async fn let_go(&mut self) -> Result<()> {
        match self.checks.as_mut().ok().and_then(|first| first.reader.take()) {
            Some(reader) => reader.close().await,
            None => Ok(()),
        }
    }

    /// What of the first checks still holds at the state behind the fence. To be called once.
    ///
    /// The inner error says why nothing does.
    pub async fn carried(
        &mut self,
        context: &Context,
        exported: &ExportedSnapshot<'_>,
    ) -> Result<std::result::Result<Arc<Carried>, String>> {
        let taken = Err("they were used already".to_owned());
        let first = match std::mem::replace(&mut self.checks, taken) {
            Ok(first) => first,
            Err(why) => return Ok(Err(why)),
        };
        let client = context.connection.connect().await?;
        let reader = join_for_checks(&context.connection, exported).await?;
        let state = first.reader.map(|reader| Box::new(reader) as FirstState);
        let carried = first.pass.hold_against(&reader, &client, state).await?;
        reader.close().await?;
        client.close().await?;
        Ok(carried.map(Arc::new))
    }

    /// Says what it was good for, and deletes the first snapshot. `taken` is the one behind the fence, if it came to that.
    pub fn end(
        self,
        context: &Context,
        log: &mut RunLog,
        taken: Option<&StoredSnapshot>,
        baseline: &Baseline,
    ) {
        let waited = |joined: &str, when: &str| match self.fenced {
            Some(since) => format!("{joined}writers had waited {} {when}", format::duration(since.elapsed())),
            // Without a fence nobody waits.
            None => String::new(),
        };
        let mut tell = |told: String| {
            context.progress.note(&told);
            log.report.protection.push(told);
        };
        let reading = taken.and_then(|taken| taken.manifest.reading.as_ref());
        if let Some(reading) = reading {
            tell(format!(
                "snapshot behind the fence, after a first one before it: it read {} of {} chunks{}",
                format::count(reading.chunks_read),
                format::count(reading.chunks),
                waited(", and ", "when it was there"),
            ));
        }
        // Said once: both are there at the same moment.
        let waited = if reading.is_some() { String::new() } else { waited("; ", "when they were there") };
        match &baseline.carried {
            None => {}
            Some(Err(why)) => {
                tell(format!("checks before the migration: all behind the fence: {why}{waited}"));
            }
            Some(Ok(_)) => tell(format!(
                "checks before the migration, after first ones before the fence: {}{waited}",
                taken_over(&baseline.results)
            )),
        }
        let (Some(first), Some(_)) = (&self.snapshot, taken) else { return };
        let first = &first.manifest.id;
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

/// Which answers were taken over, and which tables were read again as a whole.
fn taken_over(results: &CheckResults) -> String {
    /// The checks that could have been.
    const READING: [CheckKind; 7] = [
        CheckKind::ForeignKeys,
        CheckKind::Check,
        CheckKind::NotNull,
        CheckKind::Domains,
        CheckKind::Unique,
        CheckKind::Exclude,
        CheckKind::Partitions,
    ];
    // What the catalog alone shows has no definition.
    let ran = results.rules.iter().filter(|(_, state)| state.ran && !state.definition.is_empty());
    let ran: Vec<&RuleKey> = ran.map(|(key, _)| key).filter(|key| READING.contains(&key.check)).collect();
    let is_over = |key: &RuleKey| results.carried_rules.contains(key) || results.changed_rules.contains(key);
    let mut parts = Vec::new();
    for kind in READING {
        let of_kind = || ran.iter().filter(|key| key.check == kind);
        let over = of_kind().filter(|key| is_over(key)).count();
        match of_kind().count() {
            0 => {}
            all => parts.push(format!("{over} of {all} {kind}")),
        }
    }
    if !results.rows.is_empty() {
        parts.push(format!("{} of {} row counts", results.carried_rows.len(), results.rows.len()));
    }
    let mut told = format!("took over {}", parts.join(", "));
    if parts.is_empty() {
        "nothing to take over".clone_into(&mut told);
    }
    if !results.changed_rules.is_empty() {
        told.push_str(&format!(
            " ({} of the rules by a look at the changed rows alone)",
            results.changed_rules.len()
        ));
    }
    let rules = ran.iter().filter(|key| !is_over(key)).map(|key| key.object_oid);
    let counted = results.rows.keys().filter(|oid| !results.carried_rows.contains(oid)).copied();
    let again: BTreeSet<u32> = rules.chain(counted).collect();
    let again: BTreeSet<String> =
        again.iter().filter_map(|oid| results.tables.get(oid)).map(|facts| facts.name.short()).collect();
    if !again.is_empty() {
        let named: Vec<&str> = again.iter().take(NAMED).map(String::as_str).collect();
        let more =
            if again.len() > NAMED { format!(" and {} more", again.len() - NAMED) } else { String::new() };
        told.push_str(&format!("; read again: {}{more}", named.join(", ")));
    }
    told
}
