//! Finishes what a run that was killed could not: its journal says how far it came, the server says the rest.
//!
//! Every step here can itself be interrupted and done again.

mod restore;

use common::{
    Error, ErrorKind, Progress, Result,
    catalog::Sequence,
    fault, interrupt,
    postgres::{ConnectionSettings, Session, database},
    repository::Repository,
};

use crate::{
    clone, fence,
    journal::{Journal, Mode, PastRun, Step},
    report::{
        Verdict, document,
        recovered::{self, Recovered},
    },
    sequences, transactional,
};

/// What a person has decided about a run: one that no fence protected, since others may have written after the snapshot, or one
/// that can't be undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing yet.
    Open,
    /// Back to the snapshot; what others wrote is saved where that is possible.
    Undo,
    /// The database stays as it is, every fence is lifted, and the run is settled, whatever its snapshot can do.
    Keep,
}

/// How to recover.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// What a person has decided.
    pub decision: Decision,
    /// Connections.
    pub jobs: usize,
}

/// Recovers runs on the database, oldest first: unfinished ones, and finished ones whose replication slot is still there.
/// `settings` lead to it by the name that it has now.
pub async fn recover(
    settings: &ConnectionSettings,
    runs: &[PastRun],
    repository: &Repository,
    Options { decision, jobs }: Options,
    progress: &Progress,
) -> Result<Vec<Recovered>> {
    let _guard = interrupt::begin_undo().await;
    let mut done = Vec::new();
    for past in runs {
        if decision == Decision::Open && past.is_undecided() {
            continue;
        }
        let control = fence::control(settings).await?;
        end_sessions_of(&control, &past.run).await?;
        let mut journal = Journal::reopen(past)?;
        let mut work = Recovery {
            settings,
            repository,
            control: &control,
            past,
            jobs,
            progress,
            decision,
            what: Vec::new(),
            next: Vec::new(),
        };
        let mode = past.steps.iter().find_map(|step| match step {
            Step::Begun { mode, .. } => Some(*mode),
            _ => None,
        });
        let outcome = match mode {
            _ if past.damage.is_some() && decision != Decision::Keep => Err(work.unreadable()),
            _ if past.finished().is_some() && past.damage.is_none() => work.after_the_end(&mut journal).await,
            Some(Mode::Transaction) if past.damage.is_none() => work.transaction().await,
            Some(Mode::Restore) if past.damage.is_none() => work.restore(&mut journal).await,
            _ if decision == Decision::Keep => work.keep(&mut journal).await,
            _ => Err(Error::damaged(format!("the journal of run {} has no beginning", past.run))),
        };
        let (verdict, exit_code) = outcome.map_err(|error| work.explain(error))?;
        let (what, next) = (work.what, work.next);
        fault::point("safe-run.recovered");
        let settled = Recovered { run: past.run.clone(), what, exit_code, verdict: verdict.to_owned(), next };
        // A report that can't be read, or written, keeps nobody from finishing.
        let earlier = document::load(&past.dir).unwrap_or_default();
        let report = recovered::report(earlier, past, settings, &settled);
        if let Err(error) = document::store(&report, &past.dir) {
            progress.warn(format!("the report of run {} could not be written: {error}", past.run));
        }
        journal.write(Step::Finished { exit_code, verdict: verdict.to_owned() }).map_err(|error| {
            let done = settled.what.join("; ");
            error
                .context(format!("run {} is recovered, and that could not be recorded", past.run))
                .with_hint("Free some space for the repository, then run the same command again: it finds everything done.")
                .with_database_state(format!("What was done: {done}."))
        })?;
        done.push(settled);
    }
    Ok(done)
}

/// A killed client's statement may still be running on the server: it must not go on beside the recovery.
async fn end_sessions_of(control: &Session, run: &str) -> Result<()> {
    let name = format!("safe-run/{run}");
    for _ in 0..100 {
        let row = control
            .query_one(
                "SELECT pg_catalog.count(pg_catalog.pg_terminate_backend(pid)) FROM pg_catalog.pg_stat_activity
                 WHERE application_name = $1 AND pid <> pg_catalog.pg_backend_pid()",
                &[&name],
            )
            .await
            .map_err(|source| Error::postgres("could not end the sessions of the killed run", source))?;
        if row.get::<_, i64>(0) == 0 {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    Err(still_there(run))
}

fn still_there(run: &str) -> Error {
    Error::busy(format!("sessions of run {run} are still on the server and do not end")).with_hint(format!(
        "Look at pg_stat_activity for the application safe-run/{run}, then run `safe-run recover` again."
    ))
}

fn still_committing() -> Error {
    Error::busy("the server is still working on the killed run's transaction")
        .with_hint("Run `safe-run recover` again in a moment.")
}

fn fate_unknown() -> Error {
    Error::new(ErrorKind::Unknown, "the server no longer knows the killed run's transaction")
        .with_hint("Look whether the migrations are applied; then `safe-run recover --keep` settles the run.")
}

struct Recovery<'a> {
    settings: &'a ConnectionSettings,
    repository: &'a Repository,
    control: &'a Session,
    past: &'a PastRun,
    jobs: usize,
    progress: &'a Progress,
    decision: Decision,
    what: Vec<String>,
    next: Vec<String>,
}

impl Recovery<'_> {
    fn say(&mut self, text: impl Into<String>) {
        self.what.push(text.into());
    }

    fn has(&self, wanted: impl Fn(&Step) -> bool) -> bool {
        self.past.steps.iter().any(wanted)
    }

    /// Writes a step whose effect is there. Whoever has decided to keep the database is not kept from it by a full disk: done
    /// again, such a step finds nothing to do.
    fn record(&mut self, journal: &mut Journal, step: Step) -> Result<()> {
        match journal.write(step) {
            Err(error) if self.decision == Decision::Keep => {
                self.progress.warn(format!("a step could not be recorded: {error}"));
                Ok(())
            }
            outcome => outcome,
        }
    }

    fn unreadable(&self) -> Error {
        let why = self.past.damage.as_deref().unwrap_or("its journal can't be read");
        Error::damaged(format!("how far run {} came is not known: {why}", self.past.run))
            .with_hint(
                "Look at the database. `safe-run recover --keep` lifts the fence and takes it as it is; the snapshot that the run \
                 took, if it came to that, is in `backup list`.",
            )
    }

    /// The name that applications use.
    fn live(&self) -> String {
        self.past.hidden().map_or_else(|| self.settings.database().to_owned(), |names| names.live)
    }

    /// Says what state an undo that failed has left the database in, and that there is a way out of it.
    fn explain(&self, error: Error) -> Error {
        let changed = self.past.damage.is_some() || self.has(|step| *step == Step::Applying);
        let settled = self.has(|step| matches!(step, Step::Stands | Step::Undone));
        let passes = matches!(error.kind(), ErrorKind::Busy | ErrorKind::Interrupted | ErrorKind::Terminated);
        if !changed || settled || self.past.finished().is_some() {
            return error;
        }
        let fence = match self.past.hidden() {
            _ if self.has(|step| *step == Step::FenceLifted) => String::new(),
            Some(names) => format!(", is called \"{}\" now, and its name is closed", names.hidden),
            None if self.has(|step| matches!(step, Step::Fencing { .. })) => {
                ", and is read-only for new sessions".to_owned()
            }
            None => String::new(),
        };
        let way_out = "Run `safe-run recover` again when the reason is gone, or `safe-run recover --keep` to go on from the \
                       database as it is: that lifts the fence and settles the run.";
        let hint = match error.hint() {
            Some(hint) => format!("{hint} {way_out}"),
            None => way_out.to_owned(),
        };
        let kind = if passes { error.kind() } else { ErrorKind::Unknown };
        error.with_kind(kind).with_hint(hint).with_database_state(format!(
            "The database \"{}\" holds what the failed run left behind{fence}.",
            self.live()
        ))
    }

    /// Leaves the database as it is. What else was made for the undo goes if it can; nothing of it is needed any more, so nothing
    /// of it is in the way.
    async fn keep(&mut self, journal: &mut Journal) -> Result<(&'static str, u8)> {
        let staged = self.past.steps.iter().rev().find_map(|step| match step {
            Step::Undoing { staged, .. } => Some(staged.clone()),
            _ => None,
        });
        if let Some(staged) = staged
            && let Err(error) = database::drop_database(self.control, &staged).await
        {
            self.say(format!("the half-restored database \"{staged}\" is left: {error}"));
        }
        self.say(format!("\"{}\" is left as the run left it, as you have decided", self.live()));
        if let Some(damage) = &self.past.damage {
            self.say(format!("what its journal does not tell is not done: {damage}"));
        }
        let taken = self.past.steps.iter().find_map(|step| match step {
            Step::SnapshotTaken { id } => Some(id.clone()),
            _ => None,
        });
        if let Some(id) = taken.filter(|id| self.repository.find(id, None).is_ok()) {
            self.next.push(format!("look at the state before, beside the live database: restore {id}"));
        }
        let outcome = (Verdict::Stopped.word(), ErrorKind::Stopped.exit_code());
        self.lift_fence(journal, false).await?;
        self.settle_writes(journal, outcome.0).await?;
        if let Err(error) = clone::recover_leftover(self.control, self.past, outcome.0, &mut self.what).await
        {
            self.say(format!("its clone is left: {error}"));
        }
        Ok(outcome)
    }

    async fn transaction(&mut self) -> Result<(&'static str, u8)> {
        if self.has(|step| *step == Step::Stands) {
            self.say("the migrations had been committed");
            return Ok((Verdict::Committed.word(), 0));
        }
        let session = self.settings.connect().await?;
        let xid = self.past.steps.iter().find_map(|step| match step {
            Step::Committing { xid } => Some(xid.clone()),
            _ => None,
        });
        if let Some(xid) = xid.flatten() {
            match transactional::fate(&session, &xid).await?.as_deref() {
                Some("committed") => {
                    self.say("the commit had gone through: the migrations are applied");
                    return Ok((Verdict::Committed.word(), 0));
                }
                Some("aborted") => {}
                Some("in progress") => {
                    return Err(still_committing());
                }
                _ if self.decision == Decision::Keep => {
                    self.say(
                        "the server no longer knows its transaction: `safe-run status` shows what is applied",
                    );
                    return Ok((Verdict::Stopped.word(), ErrorKind::Stopped.exit_code()));
                }
                _ => {
                    return Err(fate_unknown());
                }
            }
        }
        if !self.has(|step| *step == Step::Applying) {
            self.say("it was killed before the first migration: nothing had been changed");
            return Ok((Verdict::Failed.word(), ErrorKind::Failed.exit_code()));
        }
        self.say("the server had rolled the migrations back");
        let path = self.past.dir.join(sequences::SEQUENCES_FILE);
        let read = || -> Result<Vec<Sequence>> {
            let bytes = common::files::read_plain(&path, common::files::MOST_FACTS)
                .map_err(|source| Error::io("read", &path, source))?;
            serde_json::from_slice(&bytes)
                .map_err(|source| Error::damaged(format!("{} can't be read: {source}", path.display())))
        };
        let before = match read() {
            Err(error) if self.decision == Decision::Keep => {
                self.say(format!("sequences were left where they stand: {error}"));
                return Ok((Verdict::RolledBack.word(), ErrorKind::MigrationRolledBack.exit_code()));
            }
            before => before?,
        };
        let put_back = sequences::put_back(&session, &before).await?;
        self.what.extend(put_back.restored.into_iter().chain(put_back.ahead));
        Ok((Verdict::RolledBack.word(), ErrorKind::MigrationRolledBack.exit_code()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_recover_can_not_settle_now_says_what_to_look_at() {
        let there = still_there("r1");
        assert_eq!(there.kind(), ErrorKind::Busy);
        assert!(there.hint().is_some_and(|hint| hint.contains("the application safe-run/r1, then")));
        assert_eq!(still_committing().hint(), Some("Run `safe-run recover` again in a moment."));
        assert_eq!(fate_unknown().kind(), ErrorKind::Unknown);
        assert_eq!(
            fate_unknown().hint(),
            Some("Look whether the migrations are applied; then `safe-run recover --keep` settles the run.")
        );
    }
}
