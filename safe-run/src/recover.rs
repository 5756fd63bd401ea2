//! Finishes what a run that was killed could not: its journal says how far it came, the server says the rest.
//!
//! Every step here can itself be interrupted and done again.

use common::{
    Error, ErrorKind, Progress, Result,
    catalog::Sequence,
    fault, interrupt,
    postgres::{ConnectionSettings, Session, database},
    repository::Repository,
};
use restore::{Choices, RestoreOptions, Target};
use serde::Serialize;

use crate::{
    clone, exclusive, fence,
    journal::{Journal, Mode, PastRun, Step},
    others,
    report::{self, document},
    sequences, transactional,
};

/// The file in the run's folder that holds where the sequences stood.
pub const SEQUENCES_FILE: &str = "sequences.json";

/// What was done about one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Recovered {
    /// The run.
    pub run: String,
    /// What had happened to it, and what was done now.
    pub what: Vec<String>,
    /// The exit code that the run is closed with.
    pub exit_code: u8,
    /// Its verdict's word.
    pub verdict: String,
}

/// Recovers the unfinished runs on the database, oldest first. `settings` lead to it by the name that it has now.
pub async fn recover(
    settings: &ConnectionSettings,
    unfinished: &[PastRun],
    repository: &Repository,
    jobs: usize,
    progress: &Progress,
) -> Result<Vec<Recovered>> {
    let _guard = interrupt::begin_undo();
    let mut done = Vec::new();
    for past in unfinished {
        let control = fence::control(settings).await?;
        end_sessions_of(&control, &past.run).await?;
        let mut journal = Journal::reopen(past)?;
        let mut work =
            Recovery { settings, repository, control: &control, past, jobs, progress, what: Vec::new() };
        let mode = past.steps.iter().find_map(|step| match step {
            Step::Begun { mode, .. } => Some(*mode),
            _ => None,
        });
        let (verdict, exit_code) = match mode {
            Some(Mode::Transaction) => work.transaction().await?,
            Some(Mode::Restore) => work.restore(&mut journal).await?,
            None => return Err(Error::damaged(format!("the journal of run {} has no beginning", past.run))),
        };
        let what = work.what;
        fault::point("safe-run.recovered");
        let recovered = Recovered { run: past.run.clone(), what, exit_code, verdict: verdict.to_owned() };
        // A report that can't be read, or written, keeps nobody from finishing.
        let earlier = document::load(&past.dir).unwrap_or_default();
        let report = report::recovered::report(earlier, past, settings, &recovered);
        if let Err(error) = document::store(&report, &past.dir) {
            progress.warn(format!("the report of run {} could not be written: {error}", past.run));
        }
        journal.write(Step::Finished { exit_code, verdict: verdict.to_owned() })?;
        done.push(recovered);
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
    Err(Error::busy(format!("sessions of run {run} are still on the server and do not end"))
        .with_hint("Look at pg_stat_activity, then run `safe-run recover` again."))
}

struct Recovery<'a> {
    settings: &'a ConnectionSettings,
    repository: &'a Repository,
    control: &'a Session,
    past: &'a PastRun,
    jobs: usize,
    progress: &'a Progress,
    what: Vec<String>,
}

impl Recovery<'_> {
    fn say(&mut self, text: impl Into<String>) {
        self.what.push(text.into());
    }

    fn has(&self, wanted: impl Fn(&Step) -> bool) -> bool {
        self.past.steps.iter().any(wanted)
    }

    async fn transaction(&mut self) -> Result<(&'static str, u8)> {
        if self.has(|step| *step == Step::Stands) {
            self.say("the migrations had been committed");
            return Ok(("COMMITTED", 0));
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
                    return Ok(("COMMITTED", 0));
                }
                Some("aborted") => {}
                Some("in progress") => {
                    return Err(Error::busy("the server is still working on the killed run's transaction")
                        .with_hint("Run `safe-run recover` again in a moment."));
                }
                _ => {
                    return Err(Error::new(
                        ErrorKind::Unknown,
                        "the server no longer knows the killed run's transaction",
                    )
                    .with_hint("`safe-run status` shows whether the migrations are applied."));
                }
            }
        }
        if !self.has(|step| *step == Step::Applying) {
            self.say("it was killed before the first migration: nothing had been changed");
            return Ok(("NOT RUN", ErrorKind::Failed.exit_code()));
        }
        self.say("the server had rolled the migrations back");
        let path = self.past.dir.join(SEQUENCES_FILE);
        let bytes = std::fs::read(&path).map_err(|source| Error::io("read", &path, source))?;
        let before: Vec<Sequence> = serde_json::from_slice(&bytes)
            .map_err(|source| Error::damaged(format!("{} can't be read: {source}", path.display())))?;
        let put_back = sequences::put_back(&session, &before).await?;
        self.what.extend(put_back.restored.into_iter().chain(put_back.ahead));
        Ok(("ROLLED BACK", ErrorKind::MigrationRolledBack.exit_code()))
    }

    async fn restore(&mut self, journal: &mut Journal) -> Result<(&'static str, u8)> {
        let undoing = self.past.steps.iter().rev().find_map(|step| match step {
            Step::Undoing { staged, kept_as, .. } => Some((staged.clone(), kept_as.clone())),
            _ => None,
        });
        let outcome = if self.has(|step| *step == Step::Stands) {
            self.say("the checks had passed: the changes stand");
            ("COMMITTED", 0)
        } else if self.has(|step| *step == Step::Undone) {
            self.say("the state before had been brought back");
            ("RESTORED", ErrorKind::MigrationRestored.exit_code())
        } else if let Some((_, kept_as)) = undoing.as_ref().filter(|(_, kept_as)| !kept_as.is_empty())
            && database::exists(self.control, kept_as).await?
        {
            self.say(format!(
                "the snapshot had been restored; the failed state is kept as database \"{kept_as}\""
            ));
            ("RESTORED", ErrorKind::MigrationRestored.exit_code())
        } else if self.has(|step| *step == Step::Applying)
            && clone::recover_by(self.settings, self.control, self.past, journal, &mut self.what).await?
        {
            ("RESTORED", ErrorKind::MigrationRestored.exit_code())
        } else if self.has(|step| *step == Step::Applying) {
            if let Some((staged, _)) = &undoing {
                database::drop_database(self.control, staged).await?;
            }
            self.undo(journal).await?
        } else {
            self.say("it was killed before anything was changed");
            ("NOT RUN", ErrorKind::Failed.exit_code())
        };
        let nothing_happened = outcome.0 == "NOT RUN";
        self.lift_fence(journal, nothing_happened).await?;
        clone::recover_leftover(self.control, self.past, outcome.0, &mut self.what).await?;
        Ok(outcome)
    }

    async fn undo(&mut self, journal: &mut Journal) -> Result<(&'static str, u8)> {
        let snapshot = self.past.steps.iter().find_map(|step| match step {
            Step::SnapshotTaken { id } => Some(id.clone()),
            _ => None,
        });
        let fenced = self.has(|step| matches!(step, Step::Fencing { .. } | Step::Hiding { .. }));
        let Some(id) = snapshot else {
            self.say(
                "it was killed while it changed the database, and there is no snapshot: look at the database",
            );
            return Ok(("STOPPED", ErrorKind::Stopped.exit_code()));
        };
        if !fenced {
            return self.stop_for_a_person(&id).await;
        }
        let snapshot = self.repository.find(&id, None)?;
        let options = RestoreOptions { jobs: self.jobs, choices: Choices::undo() };
        let mut plan =
            restore::prepare(self.settings, self.control, &snapshot, &Target::Replace, &options).await?;
        match self.past.hidden() {
            Some(names) => plan.kept_as = Some(names.kept_as()),
            None => plan.read_only = self.past.holds_fence(),
        }
        journal.write(Step::Undoing {
            snapshot: id.clone(),
            staged: plan.staged.clone(),
            kept_as: plan.kept_as.clone().unwrap_or_default(),
        })?;
        fault::point("safe-run.recovering");
        let verified = restore::verified(snapshot, options.jobs, self.progress).await?;
        let report =
            restore::execute(self.settings, self.control, &verified, plan, &options, self.progress).await?;
        journal.write(Step::Undone)?;
        self.say(format!("it was killed while it changed the database: snapshot {id} was restored now"));
        for grant in &report.missing_grants {
            self.say(format!("NOT as before: the role may not grant {grant}; do it by hand"));
        }
        for object in &report.missing {
            self.say(format!("NOT as before: {}", object.line()));
        }
        if let Some(kept_as) = report.replaced_as {
            self.say(format!("the half-changed state is kept as database \"{kept_as}\""));
        }
        Ok(("RESTORED", ErrorKind::MigrationRestored.exit_code()))
    }

    /// Without a fence others may have written: what differs is said, and a person decides.
    async fn stop_for_a_person(&mut self, id: &str) -> Result<(&'static str, u8)> {
        let database = self.settings.database();
        self.say(format!(
            "it was killed while it changed the database, and no fence stood: \"{database}\" was left as it is"
        ));
        let snapshot = self.repository.find(id, None)?;
        let found = others::compare(self.settings, &snapshot, None, self.progress).await?;
        self.what.extend(found.sentences(&format!("a restore of {id} goes without it")));
        self.say("keep what others wrote: repair the database by hand or with a further migration");
        self.say(format!("go back to the state before: restore {id} --replace"));
        Ok(("STOPPED", ErrorKind::Stopped.exit_code()))
    }

    async fn lift_fence(&mut self, journal: &mut Journal, nothing_happened: bool) -> Result<()> {
        if self.past.holds_fence() && !nothing_happened {
            self.say("the fence is held, as the run was told (--hold-fence): `safe-run release` lifts it");
            return Ok(());
        }
        if let Some(names) = self.past.hidden()
            && !self.has(|step| *step == Step::FenceLifted)
        {
            exclusive::lift(self.settings, self.control, &names).await?;
            fault::point("safe-run.fence-lifted");
            journal.write(Step::FenceLifted)?;
            self.say("the database has its name back");
        }
        let fencing = self.past.steps.iter().find_map(|step| match step {
            Step::Fencing { previous } => Some(previous.clone()),
            _ => None,
        });
        if let Some(previous) = fencing
            && !self.has(|step| *step == Step::FenceLifted)
        {
            fence::lift(self.control, self.settings.database(), previous.as_deref(), &[]).await?;
            fault::point("safe-run.fence-lifted");
            journal.write(Step::FenceLifted)?;
            self.say("the fence was lifted");
        }
        Ok(())
    }
}
