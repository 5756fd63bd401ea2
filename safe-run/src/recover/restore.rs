//! The recovery of a run outside of one transaction: its undo, the writes of others, its fence.

use common::{ErrorKind, Result, fault, postgres::database};
use restore::{Choices, RestoreOptions, Target};

use super::{Decision, Recovery};
use crate::{
    clone, exclusive, fence,
    journal::{self, Journal, Step},
    large_objects, others, proof,
    report::Verdict,
    room, writes,
};

impl Recovery<'_> {
    pub(super) async fn restore(&mut self, journal: &mut Journal) -> Result<(&'static str, u8)> {
        let undoing = self.past.steps.iter().rev().find_map(|step| match step {
            Step::Undoing { staged, kept_as, .. } => Some((staged.clone(), kept_as.clone())),
            _ => None,
        });
        let outcome = if self.has(|step| *step == Step::Stands) {
            self.say("the checks had passed: the changes stand");
            (Verdict::Committed.word(), 0)
        } else if self.has(|step| *step == Step::Undone) {
            self.say("the state before had been brought back");
            (Verdict::Restored.word(), ErrorKind::MigrationRestored.exit_code())
        } else if let Some((_, kept_as)) = undoing.as_ref().filter(|(_, kept_as)| !kept_as.is_empty())
            && database::exists(self.control, kept_as).await?
        {
            self.say(format!(
                "the snapshot had been restored; the failed state is kept as database \"{kept_as}\""
            ));
            (Verdict::Restored.word(), ErrorKind::MigrationRestored.exit_code())
        } else if clone::took_its_place(self.settings, self.control, self.past, &mut self.what).await? {
            (Verdict::Restored.word(), ErrorKind::MigrationRestored.exit_code())
        } else if self.has(|step| *step == Step::Applying) && self.decision == Decision::Keep {
            return self.keep(journal).await;
        } else if self.has(|step| *step == Step::Applying)
            && clone::recover_by(self.settings, self.control, self.past, journal, &mut self.what).await?
        {
            (Verdict::Restored.word(), ErrorKind::MigrationRestored.exit_code())
        } else if self.has(|step| *step == Step::Applying) {
            if let Some((staged, _)) = &undoing {
                database::drop_database(self.control, staged).await?;
            }
            self.undo(journal).await?
        } else {
            self.say("it was killed before anything was changed");
            (Verdict::Failed.word(), ErrorKind::Failed.exit_code())
        };
        self.settle_writes(journal, outcome.0).await?;
        let nothing_happened = outcome.0 == Verdict::Failed.word();
        self.lift_fence(journal, nothing_happened).await?;
        clone::recover_leftover(self.control, self.past, outcome.0, &mut self.what).await?;
        Ok(outcome)
    }

    /// A run that has ended, and whose replication slot is still there: a person had to decide, or it could not be read or
    /// dropped.
    pub(super) async fn after_the_end(&mut self, journal: &mut Journal) -> Result<(&'static str, u8)> {
        let (code, word) = self.past.finished().unwrap_or_default();
        let word = Verdict::ALL.into_iter().map(Verdict::word).find(|known| *known == word);
        let mut outcome = (word.unwrap_or_default(), code);
        if self.past.is_undecided() && self.decision == Decision::Undo {
            outcome = self.undo(journal).await?;
        } else if self.past.is_undecided() {
            self.say(format!("\"{}\" is left as it is, as you have decided", self.settings.database()));
        }
        self.settle_writes(journal, outcome.0).await?;
        Ok(outcome)
    }

    /// Saves what others wrote, if the outcome goes without it, and drops the slot that held it; only who still has to decide
    /// keeps it.
    pub(super) async fn settle_writes(&mut self, journal: &mut Journal, verdict: &str) -> Result<()> {
        let Some(slot) = journal::open_slot(journal.steps()).map(str::to_owned) else { return Ok(()) };
        let kept_as = journal.steps().iter().rev().find_map(|step| match step {
            Step::Undoing { kept_as, .. } => Some(kept_as.clone()),
            _ => None,
        });
        if self.decision != Decision::Keep && verdict == Verdict::Restored.word() {
            let kept_as = kept_as.unwrap_or_default();
            let (what, next) = writes::settle(self.settings, self.control, &kept_as, journal).await;
            self.what.extend(what);
            self.next.extend(next);
            return Ok(());
        }
        if self.decision == Decision::Open && verdict == Verdict::Stopped.word() {
            let dir = journal.dir().to_owned();
            let source = writes::Source {
                settings: self.settings,
                control: self.control,
                dir: &dir,
                steps: journal.steps(),
                database: self.settings.database(),
            };
            match writes::save(source).await {
                Ok(saved) => self.what.extend(saved.sentences()),
                Err(error) => self.say(error.to_string()),
            }
            self.say(writes::waits(&slot));
            return Ok(());
        }
        writes::drop_slot(self.control, &slot).await?;
        self.record(journal, Step::SlotDropped)?;
        fault::point("safe-run.slot-dropped");
        if verdict == Verdict::Stopped.word() {
            // The database itself has all of it.
            writes::remove_file(journal.dir())?;
        }
        self.say(format!("the replication slot {slot} was dropped"));
        Ok(())
    }

    pub(super) async fn undo(&mut self, journal: &mut Journal) -> Result<(&'static str, u8)> {
        let snapshot = self.past.steps.iter().find_map(|step| match step {
            Step::SnapshotTaken { id } => Some(id.clone()),
            _ => None,
        });
        let fenced = self.has(|step| matches!(step, Step::Fencing { .. } | Step::Hiding { .. }));
        let Some(id) = snapshot else {
            self.say(
                "it was killed while it changed the database, and there is no snapshot: look at the database",
            );
            return Ok((Verdict::Stopped.word(), ErrorKind::Stopped.exit_code()));
        };
        if !fenced && self.decision != Decision::Undo {
            let waits = journal::open_slot(journal.steps()).is_some() && self.decision == Decision::Open;
            return self.stop_for_a_person(&id, waits).await;
        }
        let snapshot = self.repository.find(&id, None)?;
        let own_slot = journal::open_slot(journal.steps()).map(str::to_owned);
        let choices = Choices { own_slot, ..Choices::undo() };
        let jobs = room::for_restore(self.control, self.jobs, self.progress).await?;
        let options = RestoreOptions { jobs, choices };
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
        let mut report =
            restore::execute(self.settings, self.control, &verified, plan, &options, self.progress).await?;
        journal.write(Step::Undone)?;
        report.account_for_made_roles();
        match proof::moved_in(self.settings).await {
            Ok(moved) => report.differences.extend(moved),
            Err(error) => report.not_checked.push(format!("which sequences checks had moved ({error})")),
        }
        self.say(if self.past.finished().is_some() {
            format!("snapshot {id} was restored now, as you have decided")
        } else {
            format!("it was killed while it changed the database: snapshot {id} was restored now")
        });
        for line in report.account().lines() {
            self.say(line);
        }
        if let (true, Some(kept_as)) = (fenced, &report.replaced_as) {
            let failed = self.settings.with_database(kept_as);
            match large_objects::after_undo(self.settings, &failed).await {
                Ok(told) => self.what.extend(told),
                Err(error) => self.say(format!(
                    "large objects that others wrote behind the fence could not be looked for: {error}"
                )),
            }
        }
        if let Some(kept_as) = report.replaced_as {
            self.say(format!("the half-changed state is kept as database \"{kept_as}\""));
        }
        Ok((Verdict::Restored.word(), ErrorKind::MigrationRestored.exit_code()))
    }

    /// Without a fence others may have written: what differs is said, and a person decides.
    async fn stop_for_a_person(&mut self, id: &str, waits: bool) -> Result<(&'static str, u8)> {
        let database = self.settings.database();
        self.say(format!(
            "it was killed while it changed the database, and no fence stood: \"{database}\" was left as it is"
        ));
        let snapshot = self.repository.find(id, None)?;
        let found = others::compare(self.settings, &snapshot, None, self.progress).await?;
        self.what.extend(found.sentences(&format!("a restore of {id} goes without it")));
        let keep = "keep what others wrote: repair the database by hand or with a further migration";
        if waits {
            self.next.push(format!("{keep}, then `safe-run recover --keep`"));
            self.next.push("go back to the state before: safe-run recover --undo".to_owned());
        } else {
            self.next.push(keep.to_owned());
            self.next.push(format!("go back to the state before: restore {id} --replace"));
        }
        Ok((Verdict::Stopped.word(), ErrorKind::Stopped.exit_code()))
    }

    pub(super) async fn lift_fence(&mut self, journal: &mut Journal, nothing_happened: bool) -> Result<()> {
        if self.past.holds_fence() && !nothing_happened && self.decision != Decision::Keep {
            self.say("the fence is held, as the run was told (--hold-fence): `safe-run release` lifts it");
            return Ok(());
        }
        if let Some(names) = self.past.hidden()
            && !self.has(|step| *step == Step::FenceLifted)
        {
            exclusive::lift(self.settings, self.control, &names).await?;
            fault::point("safe-run.fence-lifted");
            self.record(journal, Step::FenceLifted)?;
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
            self.record(journal, Step::FenceLifted)?;
            self.say("the fence was lifted");
        }
        Ok(())
    }
}
