//! What is done about earlier runs: `recover` and `release`.

use common::{Result, cli::output::Tone, repository::Repository};

use super::Invocation;
use crate::{
    recover::{self, Decision},
    release,
};

impl Invocation<'_> {
    pub(super) async fn recover(&self, decision: Decision) -> Result<u8> {
        let connection = self.connection("safe-run recover").await?;
        let live = connection.database().to_owned();
        let repository = match Repository::open(&self.settings.repo) {
            Ok(repository) => repository,
            Err(error) => return Err(release::without_repository(&connection, error).await),
        };
        let _lock = repository.lock_named(&crate::run_lock(&live))?;
        let unfinished = crate::journal::unfinished(&repository, &live)?;
        let with_slot = crate::journal::with_slot(&repository, &live)?;
        let held = crate::journal::held(&repository, &live)?;
        let connection = release::entrance(&connection, &[unfinished.clone(), held.clone()].concat()).await?;
        // The killed run's own session is gone with it; whoever holds the lock now is another run.
        let control = crate::take_control(&connection).await?;
        let connection = control.settings().clone();
        let jobs = self.settings.jobs.unwrap_or_else(backup::default_jobs);
        let options = recover::Options { decision, jobs };
        let runs = [unfinished, with_slot.clone()].concat();
        let done =
            recover::recover(&connection, &runs, &repository, options, &self.output.progress()).await?;
        let undecided: Vec<&str> = with_slot
            .iter()
            .filter(|run| run.is_undecided() && done.iter().all(|done| done.run != run.run))
            .map(|run| run.run.as_str())
            .collect();
        repository.sweep()?;
        if self.output.is_json() {
            self.output.document(&serde_json::json!({"recovered": done, "undecided": undecided}))?;
            return Ok(0);
        }
        for run in &undecided {
            self.output.data(&format!(
                "{}  run {run} waits for your decision, and its replication slot fills the server's disk\n         \
                 safe-run recover --undo: back to its snapshot; what others wrote since is saved for a replay\n         \
                 safe-run recover --keep: the database stays as it is\n",
                self.output.verdict(common::Verdict::Stopped),
            ))?;
        }
        if done.is_empty() && undecided.is_empty() {
            self.output.data("Nothing to recover: every run on this database has finished.\n")?;
            if held.is_empty()
                && let Some(fence) = release::fence_of_nobody(&connection).await
            {
                self.output.warn(&fence);
            }
            for run in &held {
                self.output
                    .warn(&format!("the fence of run {} still stands: `safe-run release` lifts it", run.run));
            }
        }
        for run in &done {
            let mut text = format!("{}  run {}\n", self.output.paint(Tone::Good, &run.verdict), run.run);
            for line in &run.what {
                text.push_str(&format!("{}{line}\n", " ".repeat(run.verdict.len() + 2)));
            }
            for line in &run.next {
                text.push_str(&format!("{}next: {line}\n", " ".repeat(run.verdict.len() + 2)));
            }
            self.output.data(&text)?;
        }
        Ok(0)
    }

    pub(super) async fn release(&self) -> Result<u8> {
        let connection = self.connection("safe-run release").await?;
        let repository = Repository::open(&self.settings.repo)?;
        let _lock = repository.lock_named(&crate::run_lock(connection.database()))?;
        crate::refuse_unfinished(&repository, connection.database())?;
        let held = crate::journal::held(&repository, connection.database())?;
        let entrance = release::entrance(&connection, &held).await?;
        let control = crate::take_control(&entrance).await?;
        let released = release::release(&connection, &control, &held).await?;
        if self.output.is_json() {
            self.output.document(&serde_json::json!({"released": released}))?;
            return Ok(0);
        }
        if released.is_empty() {
            self.output.data("Nothing to release: no run on this database holds a fence.\n")?;
        }
        for run in &released {
            self.output.data(&format!(
                "{}  the fence of run {run} is lifted; everybody can write to \"{}\" again\n",
                self.output.verdict(common::Verdict::Released),
                connection.database()
            ))?;
        }
        Ok(0)
    }
}
