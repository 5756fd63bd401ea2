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
mod plan;
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

use common::{error::Result, postgres::Client};
use futures_util::future::join_all;

pub use accepted::{Accepted, how_to_accept};
pub use catalogue::{CheckKind, Entry, Level};
pub use compare::{Comparison, FailOn, compare, compare_announced};
pub use compare_rows::{Expectation, LossLimits, RowComparison, RowFinding, compare_rows};
pub use content::compare_content;
pub use model::{
    CheckResults, Finding, Known, RuleKey, RuleState, SENTENCE_KEYS, SequenceState, Severity, Skipped,
    TableFacts, TableRows, WHOLE_CHECK,
};
pub use options::Options;
use outcome::{Outcome, merge};
use plan::{Planned, code_job};
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
    let Planned { mut results, jobs, to_create_for } = plan::list(first, options).await?;
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
