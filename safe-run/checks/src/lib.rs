//! What is proved about a database before a migration stands.
//!
//! [`run`] reads one state of the database into [`CheckResults`]; [`compare()`] says what a migration made worse.
//! A pass never writes, never aborts the transaction it runs in, leaves no setting behind, and never skips silently:
//! what could not be looked at is in [`CheckResults::skipped`].

mod accepted;
mod advice;
pub mod carried;
mod catalogue;
mod changed_rows;
mod check_constraints;
mod code;
mod collations;
mod compare;
mod compare_rows;
mod content;
mod created;
mod domains;
mod enforcement;
mod enums;
pub mod exclude;
pub mod exclude_build;
mod foreign_keys;
mod indexes;
mod job;
mod maybe_wrong;
mod model;
mod not_null;
mod options;
mod outcome;
mod partitions;
mod privileges;
mod question;
mod replica_identity;
mod rule;
mod sequences;
mod session;
mod states;
mod statistics;
mod structure;
mod table_scan;
mod tables;
mod triggers;
mod unique;
pub mod untouched;
mod violations;
mod work;

use std::time::Instant;

use common::{error::Result, format::plural, postgres::Client};
use futures_util::future::join_all;

pub use accepted::{Accepted, how_to_accept};
pub use catalogue::{CheckKind, Entry, Level};
pub use compare::{Comparison, FailOn, compare, compare_announced};
pub use compare_rows::{Expectation, LossLimits, RowComparison, RowFinding, compare_rows};
pub use content::compare_content;
use job::{Job, Work};
pub use model::{
    CheckResults, Finding, Known, RuleKey, RuleState, SENTENCE_KEYS, SequenceState, Severity, Skipped,
    TableFacts, TableRows, WHOLE_CHECK,
};
pub use options::Options;
use outcome::{Outcome, merge};
use session::CheckSession;
pub use states::States;
pub use statistics::LostStatistics;
use work::{Queue, work_off};

/// Runs the checks on one session, in its transaction if it has one, else in a read-only one of its own.
///
/// The session is left as it was found. An error means that the pass could not run at all: connection lost, query
/// cancelled, catalog unreadable.
pub async fn run(client: &Client, options: &Options) -> Result<CheckResults> {
    run_parallel(&[client], options).await
}

/// Runs the checks on several sessions that see the same state: all have joined one exported snapshot.
///
/// The first session reads the catalog; every session then takes the largest piece of work that is left.
pub async fn run_parallel(clients: &[&Client], options: &Options) -> Result<CheckResults> {
    run_with_scratch(clients, None, options).await
}

/// [`run_parallel`], with a session outside of any transaction: what has to be created for a check (amcheck where it is
/// not installed) is created in a transaction of that session, which is rolled back.
///
/// Without one the first session's own transaction is used, if it may write.
pub async fn run_with_scratch(
    clients: &[&Client],
    scratch: Option<&Client>,
    options: &Options,
) -> Result<CheckResults> {
    let Some(first) = clients.first() else {
        return Err(common::error::Error::failed("the checks were given no session"));
    };
    let Planned { mut results, jobs, to_create_for } = list(first, options).await?;
    common::fault::wait("safe-run.checks-planned");
    let queue = Queue::new(jobs, clients.len(), options.progress.clone());
    let mut workers = Vec::with_capacity(clients.len());
    for client in clients {
        workers.push(work_off(client, options, &queue));
    }
    for outcome in join_all(workers).await {
        merge(&mut results, outcome?);
    }
    if !to_create_for.is_empty() {
        let started = Instant::now();
        let mut outcome = Outcome::default();
        let client = scratch.unwrap_or(first);
        created::run_with_created(client, scratch.is_some(), &to_create_for, &mut outcome).await?;
        outcome.took.insert(CheckKind::Structure, started.elapsed());
        merge(&mut results, outcome);
    }
    in_order(&mut results);
    Ok(results)
}

/// Tries the functions that a pass with [`Options::functions_later`] left out, on the session that holds the fence's locks.
pub async fn add_functions(client: &Client, options: &Options, results: &mut CheckResults) -> Result<()> {
    if !options.wants(CheckKind::Code) {
        return Ok(());
    }
    let session = CheckSession::open(client, options.parallel_workers).await?;
    let mut outcome = Outcome::default();
    let done = async {
        let functions = code::functions(&session, &session.standings().await?).await?;
        let jobs = functions.into_iter().map(|work| code_job(work, results)).collect();
        Queue::new(jobs, 1, options.progress.clone()).drain(&session, None, &mut outcome).await
    };
    let done = done.await;
    outcome.skipped.extend(session.take_refused());
    let closed = session.close().await;
    done?;
    closed?;
    merge(results, outcome);
    in_order(results);
    Ok(())
}

/// By check, object and rule, whichever session found it.
fn in_order(results: &mut CheckResults) {
    let order = |finding: &Finding| (finding.key.check, finding.object.clone(), finding.key.rule.clone());
    results.findings.sort_by_cached_key(order);
    results.skipped.sort();
}

fn code_job(work: code::Code, results: &mut CheckResults) -> Job {
    results.rules.insert(work.key.clone(), RuleState::default());
    Job { size_bytes: 0, work: Work::Code(work) }
}

/// What the catalog said.
struct Planned {
    results: CheckResults,
    jobs: Vec<Job>,
    /// What can only be looked at with an extension that is not there.
    to_create_for: Vec<structure::Target>,
}

/// [`plan`] between opening and closing the session, which is closed on every path.
async fn list(client: &Client, options: &Options) -> Result<Planned> {
    let session = CheckSession::open(client, options.parallel_workers).await?;
    let planned = plan(&session, options).await;
    let refused = session.take_refused();
    let closed = session.close().await;
    let mut planned = planned?;
    closed?;
    planned.results.skipped.extend(refused);
    Ok(planned)
}

/// Reads the catalog, runs the checks that need nothing else, and lists the work that reads tables.
async fn plan(session: &CheckSession<'_>, options: &Options) -> Result<Planned> {
    let mut results = CheckResults {
        level: options.level,
        tables: tables::list(session).await?,
        ..CheckResults::default()
    };
    let standings = session.standings().await?;
    let mut jobs = Vec::new();
    let mut to_create_for = Vec::new();
    run_on_catalog(session, options, &mut results).await?;

    if options.wants(CheckKind::ForeignKeys) {
        for work in foreign_keys::list(session, &standings).await? {
            let mut heaps = tables::heaps(&results.tables, work.table);
            heaps.extend(tables::heaps(&results.tables, work.referenced));
            let size_bytes = tables::size(&results.tables, &heaps);
            let question = || carried::question(&work, &heaps);
            if note_rule(&mut results, options, &work.key, &work.definition, &heaps, question) {
                jobs.push(Job { size_bytes, work: Work::ForeignKey(work) });
            }
        }
    }
    for work in table_scan::list(session, &standings, &mut results, options).await? {
        let mut work = work;
        let mut rules = std::mem::take(&mut work.rules);
        rules.retain(|rule| {
            let question = || carried::question(&(work.context(), rule), &[work.table]);
            note_rule(&mut results, options, &rule.key, &rule.definition, &[work.table], question)
        });
        work.rules = rules;
        let untouched = options.level < Level::Deep && options.untouched.contains(&work.table);
        let counted = work.counts_rows && take_over_rows(&mut results, options, &work);
        if !work.rules.is_empty() || (work.counts_rows && !untouched && !counted) {
            jobs.push(Job {
                size_bytes: tables::size(&results.tables, &[work.table]),
                work: Work::Scan(work),
            });
        }
    }
    if options.wants(CheckKind::Unique) {
        for work in unique::list(session, &standings).await? {
            let (table, question) = ([work.key.object_oid], || carried::question(&work, &[]));
            if note_rule(&mut results, options, &work.key, &work.definition, &table, question) {
                let size_bytes = tables::size(&results.tables, &[work.key.object_oid]);
                jobs.push(Job { size_bytes, work: Work::Unique(work) });
            }
        }
    }
    if options.wants(CheckKind::Exclude) {
        for work in exclude::list(session, &standings).await? {
            let (table, question) = ([work.key.object_oid], || carried::question(&work, &[]));
            if !note_rule(&mut results, options, &work.key, &work.definition, &table, question) {
                continue;
            }
            let size_bytes = tables::size(&results.tables, &[work.key.object_oid]);
            if options.level < Level::Deep && size_bytes > exclude::SELF_JOIN_BYTES {
                results.skipped.push(work.too_large());
            } else {
                jobs.push(Job { size_bytes, work: Work::Exclude(work) });
            }
        }
    }
    if options.wants(CheckKind::Sequences) {
        for work in sequences::list(session, &standings).await? {
            // Never passed over: setval leaves no trace in the table, and max() of a unique column is an index look-up.
            results.rules.insert(work.key.clone(), RuleState { ran: false, definition: String::new() });
            jobs.push(Job { size_bytes: 0, work: Work::Sequence(work) });
        }
    }
    if options.wants(CheckKind::Code) {
        let mut code = code::views(session, &standings).await?;
        if !options.functions_later {
            code.extend(code::functions(session, &standings).await?);
        }
        jobs.extend(code.into_iter().map(|work| code_job(work, &mut results)));
    }
    if options.wants(CheckKind::Content) {
        for work in content::list(session, &standings, options).await? {
            let size_bytes = tables::size(&results.tables, &[work.key.object_oid]);
            jobs.push(Job { size_bytes, work: Work::Content(work) });
        }
    }
    if options.wants(CheckKind::Structure) {
        let structure::Plan { targets, amcheck } = structure::plan(session, &mut results, options).await?;
        for target in &targets {
            results.rules.insert(target.key.clone(), RuleState::default());
        }
        match amcheck {
            Some(amcheck) => {
                jobs.extend(targets.into_iter().map(|target| Job::of_structure(target, &amcheck)));
            }
            None => to_create_for = targets,
        }
    }
    if options.level == Level::Standard {
        results.untouched =
            results.tables.keys().copied().filter(|table| options.untouched.contains(table)).collect();
        results.skipped.extend(untouched::skipped(&results));
    }
    if options.level < Level::Deep && !options.made.is_empty() {
        results.skipped.push(Skipped {
            check: CheckKind::Rows,
            object: plural(options.made.len() as u64, "new table", "new tables"),
            why: "PostgreSQL has just looked at every row for each of their keys, constraints and indexes: not read again for them"
                .to_owned(),
            counts_for_strict: false,
        });
    }
    Ok(Planned { results, jobs, to_create_for })
}

/// The checks that the catalog answers, and the states that are compared with another pass.
async fn run_on_catalog(
    session: &CheckSession<'_>,
    options: &Options,
    results: &mut CheckResults,
) -> Result<()> {
    for check in CheckKind::ALL.into_iter().filter(|check| options.wants(*check)) {
        let started = Instant::now();
        let findings = match check {
            CheckKind::Indexes => indexes::run(session).await?,
            CheckKind::Triggers => {
                results.states.constraints = enforcement::read(session).await?;
                triggers::run(session).await?
            }
            CheckKind::Partitions => partitions::run(session).await?,
            CheckKind::ReplicaIdentity => replica_identity::run(session).await?,
            CheckKind::Collations => collations::run(session).await?,
            CheckKind::Advice => {
                let mut notes = advice::run(session).await?;
                notes.extend(maybe_wrong::run(session).await?);
                notes
            }
            CheckKind::Privileges => {
                results.states.privileges = privileges::read(session).await?;
                Vec::new()
            }
            CheckKind::Enums => {
                results.states.enums = enums::read(session).await?;
                Vec::new()
            }
            CheckKind::Statistics => {
                results.states.statistics = statistics::read(session).await?;
                Vec::new()
            }
            _ => continue,
        };
        results.took.insert(check, started.elapsed());
        for finding in findings {
            results.rules.insert(finding.key.clone(), RuleState { ran: true, definition: String::new() });
            results.findings.push(finding);
        }
    }
    Ok(())
}

/// Records that the rule exists; `true` if it has to be looked at. `question` is everything that the answer depends on but
/// the content of `heaps`; see [`carried::question`].
fn note_rule(
    results: &mut CheckResults,
    options: &Options,
    key: &RuleKey,
    definition: &str,
    heaps: &[u32],
    question: impl Fn() -> String,
) -> bool {
    results.rules.insert(key.clone(), RuleState { ran: false, definition: definition.to_owned() });
    if options.was_just_made(heaps) {
        if let Some(state) = results.rules.get_mut(key) {
            state.ran = true;
        }
        return false;
    }
    if options.is_first {
        results.questions.insert(key.clone(), question());
    }
    if let Some(carried) = &options.carried
        && carried.answer(results, key, &question(), heaps)
    {
        return false;
    }
    !options.passes_over(key, heaps)
}

/// Whether a pass before the fence has counted the heap's rows, and they are still as many.
fn take_over_rows(results: &mut CheckResults, options: &Options, scan: &table_scan::Scan) -> bool {
    let Some(carried) = &options.carried else { return false };
    let Some(rows) = carried.rows(scan.table, &scan.no_rows()) else { return false };
    results.rows.insert(scan.table, rows);
    results.carried_rows.insert(scan.table);
    true
}
