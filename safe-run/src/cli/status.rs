//! `safe-run status`: what is applied and what is pending, and the runs that left something behind.

use common::{ErrorKind, Result, format};
use serde::Serialize;

use super::Invocation;
use crate::{journal::PastRun, release};
use sql::migration::{self, MigrationFile, MigrationPlan};

/// A migration, as it is listed.
#[derive(Serialize)]
struct Line {
    version: String,
    name: String,
    state: &'static str,
    applied_at: Option<String>,
}

/// What runs on the database left behind.
struct Left {
    /// Runs whose fence still stands.
    held: Vec<String>,
    /// Runs that wait for a person's decision.
    undecided: Vec<String>,
    unfinished: Vec<PastRun>,
}

impl Left {
    fn unfinished_ids(&self) -> Vec<&str> {
        self.unfinished.iter().map(|run| run.run.as_str()).collect()
    }
}

/// Which lines `status` shows of a long list, whose first `applied` lines are applied migrations: the newest of those, and
/// the first of what is pending. A list of a screen or so is shown whole.
fn status_window(applied: usize, all: usize) -> std::ops::Range<usize> {
    const SCREEN: usize = 40;
    const APPLIED: usize = 10;
    const PENDING: usize = 25;
    if all <= SCREEN {
        return 0..all;
    }
    applied.saturating_sub(APPLIED)..all.min(applied + PENDING)
}

impl Invocation<'_> {
    pub(super) async fn status(&self) -> Result<u8> {
        // An unfinished run is told also where there is no folder: commands need none.
        let folders = migration::signs(&self.settings.dirs);
        let connection = match self.connection("safe-run status").await {
            Ok(connection) => connection,
            Err(error) => return Err(folders.err().unwrap_or(error)),
        };
        let left = self.left_by_runs(connection.database())?;
        let state = match folders {
            Ok(_) => self.read_only_state(&connection).await,
            Err(error) => Err(error),
        };
        // Behind its fence the database may let nobody in.
        let (session, state) = if left.unfinished.is_empty() {
            state?
        } else {
            state.map_err(|error| error.with_kind(ErrorKind::Unknown))?
        };
        let plan = self.plan_of(&state)?;
        self.refuse_applied_elsewhere(&session, &state, &plan).await?;
        let lines = lines(&plan);
        if self.output.is_json() {
            self.output.document(&serde_json::json!({
                "format": state.history.layout.format, "history": state.history.table.short(), "migrations": lines,
                "held_fences": left.held, "undecided_runs": left.undecided, "unfinished_runs": left.unfinished_ids(),
            }))?;
        } else {
            self.show_lines(lines, plan.applied.len())?;
            self.output.say(&format!(
                "{}, {} pending ({}, {})",
                format::plural(plan.applied.len() as u64, "migration applied", "migrations applied"),
                plan.pending.len(),
                state.history.layout.format,
                state.history.table.short()
            ));
            self.warn_of_open_runs(&left);
        }
        Ok(match plan.pending.is_empty() {
            _ if !left.unfinished.is_empty() => ErrorKind::Unknown.exit_code(),
            true => 0,
            false => ErrorKind::Pending.exit_code(),
        })
    }

    /// Unfinished runs are told at once: what comes after may fail because of them.
    fn left_by_runs(&self, database: &str) -> Result<Left> {
        let repository = &self.settings.repo;
        let left = Left {
            held: release::held_fences(repository, database)?,
            undecided: release::undecided(repository, database)?,
            unfinished: release::left_behind(repository, database)?,
        };
        for run in &left.unfinished {
            self.output.warn(&format!(
                "run {} ({}) did not finish: what is listed here may be half of what it did; `safe-run recover` finishes it, \
                 `safe-run recover --keep` leaves the database as it is",
                run.run,
                run.what()
            ));
        }
        Ok(left)
    }

    /// The table of migrations, of which the first `applied` are applied ones; of a long one what is around now.
    fn show_lines(&self, lines: Vec<Line>, applied: usize) -> Result<()> {
        let all = lines.len();
        let shown = if self.output.is_verbose() { 0..all } else { status_window(applied, all) };
        if shown.start > 0 {
            let applied = format::plural(shown.start as u64, "applied migration", "applied migrations");
            self.output.say(&format!("{applied} before these (--verbose lists all)"));
        }
        let rows: Vec<Vec<String>> = lines
            .into_iter()
            .skip(shown.start)
            .take(shown.len())
            .map(|line| {
                vec![line.version, line.name, line.state.to_owned(), line.applied_at.unwrap_or_default()]
            })
            .collect();
        self.output.data(&format::table(&["VERSION", "NAME", "STATE", "APPLIED AT"], &[false; 4], &rows))?;
        if shown.end < all {
            self.output.say(&format!("and {} more (--verbose lists all)", all - shown.end));
        }
        Ok(())
    }

    fn warn_of_open_runs(&self, left: &Left) {
        for run in &left.held {
            self.output.warn(&format!("the fence of run {run} still stands: `safe-run release` lifts it"));
        }
        for run in &left.undecided {
            self.output.warn(&format!(
                "run {run} failed and waits for your decision, while its replication slot fills the server's disk: \
                 `safe-run recover --undo` or `--keep`"
            ));
        }
    }
}

/// Applied migrations, then those that are pending, then those above `--to`.
fn lines(plan: &MigrationPlan<'_>) -> Vec<Line> {
    let applied = plan.applied.iter().map(|done| Line {
        version: done.version.as_str().to_owned(),
        name: done.description.clone(),
        state: "applied",
        applied_at: Some(done.applied_at.clone()),
    });
    let waiting = |file: &MigrationFile, state| Line {
        version: file.version.as_str().to_owned(),
        name: file.description.clone(),
        state,
        applied_at: None,
    };
    let pending = plan.pending.iter().map(|file| waiting(file, "pending"));
    let held_back = plan.held_back.iter().map(|file| waiting(file, "held back"));
    applied.chain(pending).chain(held_back).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_long_status_shows_what_is_around_now() {
        for (applied, all, shown) in
            [(0, 0, 0..0), (30, 40, 0..40), (200, 200, 190..200), (200, 203, 190..203), (0, 200, 0..25)]
        {
            assert_eq!(super::status_window(applied, all), shown);
        }
    }
}
