//! The commands that only look: status, plan, history, report.

use std::path::Path;

use common::{
    Error, ErrorKind, Result,
    cli::output::Tone,
    format,
    postgres::{ConnectionSettings, Session},
    repository::{Repository, output_file::settle},
};
use serde::Serialize;

use super::{Invocation, state::State};
use crate::{
    journal, release,
    report::{document, html, targets},
};
use sql::{
    migration::{self, MigrationFile},
    statement::TransactionClass,
};

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

/// With more pending files than this, `plan` shows statements only where there is something to say about them.
const FILES_IN_FULL: usize = 20;

impl Invocation<'_> {
    /// Where to connect to. A folder that is not there is said before the server is asked.
    async fn connection_to_folders(&self, purpose: &str) -> Result<ConnectionSettings> {
        migration::signs(&self.settings.dirs)?;
        self.connection(purpose).await
    }

    async fn read_only_state(&self, connection: &ConnectionSettings) -> Result<(Session, State)> {
        let session = connection
            .connect()
            .await
            .map_err(|error| release::explain_closed(error, &self.settings.repo, connection.database()))?;
        let history = self.find_history(&session).await?;
        let state = self.state(&session, history).await?;
        Ok((session, state))
    }

    pub(super) async fn status(&self) -> Result<u8> {
        // An unfinished run is told also where there is no folder: commands need none.
        let folders = migration::signs(&self.settings.dirs);
        let connection = match self.connection("safe-run status").await {
            Ok(connection) => connection,
            Err(error) => return Err(folders.err().unwrap_or(error)),
        };
        let held = release::held_fences(&self.settings.repo, connection.database())?;
        let undecided = release::undecided(&self.settings.repo, connection.database())?;
        let left = release::left_behind(&self.settings.repo, connection.database())?;
        for run in &left {
            self.output.warn(&format!(
                "run {} ({}) did not finish: what is listed here may be half of what it did; `safe-run recover` finishes it, \
                 `safe-run recover --keep` leaves the database as it is",
                run.run,
                run.what()
            ));
        }
        let left: Vec<&str> = left.iter().map(|run| run.run.as_str()).collect();
        let state = match folders {
            Ok(_) => self.read_only_state(&connection).await,
            Err(error) => Err(error),
        };
        // Behind its fence the database may let nobody in.
        let (session, state) = if left.is_empty() {
            state?
        } else {
            state.map_err(|error| error.with_kind(ErrorKind::Unknown))?
        };
        let plan = self.plan_of(&state)?;
        self.refuse_applied_elsewhere(&session, &state, &plan).await?;
        #[derive(Serialize)]
        struct Line {
            version: String,
            name: String,
            state: &'static str,
            applied_at: Option<String>,
        }
        let mut lines: Vec<Line> = plan
            .applied
            .iter()
            .map(|done| Line {
                version: done.version.as_str().to_owned(),
                name: done.description.clone(),
                state: "applied",
                applied_at: Some(done.applied_at.clone()),
            })
            .collect();
        let waiting = |files: &[&MigrationFile], state| {
            files
                .iter()
                .map(|file| Line {
                    version: file.version.as_str().to_owned(),
                    name: file.description.clone(),
                    state,
                    applied_at: None,
                })
                .collect::<Vec<_>>()
        };
        lines.extend(waiting(&plan.pending, "pending"));
        lines.extend(waiting(&plan.held_back, "held back"));
        if self.output.is_json() {
            self.output.document(&serde_json::json!({
                "format": state.history.layout.format, "history": state.history.table.short(), "migrations": lines,
                "held_fences": held, "undecided_runs": undecided, "unfinished_runs": left,
            }))?;
        } else {
            let all = lines.len();
            let shown =
                if self.output.is_verbose() { 0..all } else { status_window(plan.applied.len(), all) };
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
            self.output.data(&format::table(
                &["VERSION", "NAME", "STATE", "APPLIED AT"],
                &[false; 4],
                &rows,
            ))?;
            if shown.end < all {
                self.output.say(&format!("and {} more (--verbose lists all)", all - shown.end));
            }
            self.output.say(&format!(
                "{}, {} pending ({}, {})",
                format::plural(plan.applied.len() as u64, "migration applied", "migrations applied"),
                plan.pending.len(),
                state.history.layout.format,
                state.history.table.short()
            ));
            for run in &held {
                self.output
                    .warn(&format!("the fence of run {run} still stands: `safe-run release` lifts it"));
            }
            for run in &undecided {
                self.output.warn(&format!(
                    "run {run} failed and waits for your decision, while its replication slot fills the server's disk: \
                     `safe-run recover --undo` or `--keep`"
                ));
            }
        }
        Ok(match plan.pending.is_empty() {
            _ if !left.is_empty() => ErrorKind::Unknown.exit_code(),
            true => 0,
            false => ErrorKind::Pending.exit_code(),
        })
    }

    pub(super) async fn plan(&self) -> Result<u8> {
        let connection = self.connection_to_folders("safe-run plan").await?;
        let (session, state) = self.read_only_state(&connection).await?;
        let plan = self.plan_of(&state)?;
        self.refuse_applied_elsewhere(&session, &state, &plan).await?;
        let transactions = self.transactions(&session, &plan).await?;
        #[derive(Serialize)]
        struct PlannedStatement {
            line: u32,
            summary: String,
            transaction: &'static str,
            warnings: Vec<String>,
        }
        #[derive(Serialize)]
        struct PlannedFile {
            version: String,
            file: String,
            no_transaction: Option<String>,
            /// About the file as a whole; those of a statement stand there.
            warnings: Vec<String>,
            statements: Vec<PlannedStatement>,
        }
        let planned: Vec<PlannedFile> = plan
            .pending
            .iter()
            .map(|file| PlannedFile {
                version: file.version.as_str().to_owned(),
                file: file.name(),
                no_transaction: file.no_transaction.clone(),
                warnings: file.warnings.iter().filter(|text| !text.starts_with("line ")).cloned().collect(),
                statements: file
                    .statements
                    .iter()
                    .map(|statement| PlannedStatement {
                        line: statement.line,
                        summary: statement.summary(90),
                        transaction: match &statement.class.transaction {
                            TransactionClass::Transactional => "yes",
                            TransactionClass::MustRunAlone { .. } => "no",
                            TransactionClass::Unknown { .. } => "unknown",
                        },
                        warnings: statement
                            .class
                            .warnings
                            .iter()
                            .chain(&statement.class.outside_transaction)
                            .cloned()
                            .collect(),
                    })
                    .collect(),
            })
            .collect();
        self.refuse_clone_usage()?;
        let choice = self.cli.protection().snapshot;
        let how = match (transactions.one, choice.has_clone()) {
            (true, false) => "all in one transaction; the undo is a ROLLBACK".to_owned(),
            (true, true) => format!(
                "all in one transaction, and after its COMMIT the undo is {}",
                crate::clone::undo_phrase(choice)
            ),
            (false, _) => format!(
                "not in one transaction ({}); the undo is {}",
                transactions.why.join("; "),
                crate::clone::undo_phrase(choice)
            ),
        };
        if self.output.is_json() {
            self.output.document(&serde_json::json!({
                "pending": planned, "in_one_transaction": transactions.one, "how": how,
                "why_not_in_one_transaction": transactions.why,
            }))?;
            return Ok(0);
        }
        if planned.is_empty() {
            self.output.data("Nothing is pending.\n")?;
            return Ok(0);
        }
        let mut text = String::new();
        let brief = planned.len() > FILES_IN_FULL && !self.output.is_verbose();
        for file in &planned {
            let count = format::plural(file.statements.len() as u64, "statement", "statements");
            let name = self.output.paint(Tone::Strong, &file.file);
            text.push_str(&if brief { format!("{name}  {count}\n") } else { format!("{name}\n") });
            for warning in &file.warnings {
                text.push_str(&format!("  {} {warning}\n", self.output.paint(Tone::Warning, "!")));
            }
            let told = |statement: &&PlannedStatement| !brief || !statement.warnings.is_empty();
            for statement in file.statements.iter().filter(told) {
                text.push_str(&format!("  {:>4}  {}\n", statement.line, statement.summary));
                for warning in &statement.warnings {
                    text.push_str(&format!("        {} {warning}\n", self.output.paint(Tone::Warning, "!")));
                }
            }
        }
        if brief {
            text.push_str(
                "\nOf so many files, only statements with a warning are shown; --verbose shows all.\n",
            );
        }
        text.push_str(&format!(
            "\n{}: {how}\nNothing was changed.\n",
            format::plural(planned.len() as u64, "migration", "migrations")
        ));
        self.output.data(&text)?;
        Ok(0)
    }

    pub(super) fn history(&self) -> Result<u8> {
        let runs = journal::past_runs(&Repository::open(&self.settings.repo)?)?;
        #[derive(Serialize)]
        struct Line {
            run: String,
            began_at: Option<chrono::DateTime<chrono::Utc>>,
            database: String,
            verdict: String,
            exit_code: Option<u8>,
            what: String,
        }
        let lines: Vec<Line> = runs
            .iter()
            .map(|run| Line {
                run: run.run.clone(),
                began_at: run.began_at,
                database: run.database().unwrap_or_default().to_owned(),
                verdict: run
                    .finished()
                    .map_or(common::Verdict::Unfinished.word(), |(_, verdict)| verdict)
                    .to_owned(),
                exit_code: run.finished().map(|(code, _)| code),
                what: run.what().to_owned(),
            })
            .collect();
        if self.output.is_json() {
            self.output.document(&serde_json::json!({"runs": lines}))?;
            return Ok(0);
        }
        if lines.is_empty() {
            self.output.say("No runs yet.");
            return Ok(0);
        }
        let rows: Vec<Vec<String>> = lines
            .into_iter()
            .map(|line| {
                let code = line.exit_code.map_or("-".to_owned(), |code| code.to_string());
                let mut what: String = line.what.chars().take(60).collect();
                if what.len() < line.what.len() {
                    what.push('…');
                }
                vec![line.run, line.database, line.verdict, code, what]
            })
            .collect();
        self.output.data(&format::table(
            &["RUN", "DATABASE", "VERDICT", "EXIT", "WHAT"],
            &[false, false, false, true, false],
            &rows,
        ))?;
        Ok(0)
    }

    pub(super) fn report(&self, wanted: Option<&str>, page: Option<&Path>) -> Result<u8> {
        let target = match page {
            Some(path) if path.as_os_str() != "-" => Some(settle("--html", path)?),
            _ => None,
        };
        let runs = journal::past_runs(&Repository::open(&self.settings.repo)?)?;
        let matching: Vec<_> =
            runs.iter().filter(|run| wanted.is_none_or(|wanted| run.run.starts_with(wanted))).collect();
        let run = match (wanted, matching.as_slice()) {
            (_, []) => {
                return Err(Error::new(ErrorKind::NoSuchSnapshot, "there is no such run")
                    .with_hint("Run `safe-run history`."));
            }
            (None, [.., last]) | (Some(_), [last]) => last,
            (Some(wanted), _) => {
                return Err(Error::usage(format!("\"{wanted}\" is the start of several runs"))
                    .with_hint("Give more characters of the id."));
            }
        };
        let report = document::load(&run.dir)?.ok_or_else(|| {
            Error::failed(format!("run {} has no report: it was killed", run.run))
                .with_hint("Run `safe-run recover`, or read its journal.jsonl.")
        })?;
        match (page, target) {
            (_, Some(file)) => {
                targets::write(&file, html::page(&report).as_bytes())?;
                self.output.say(&format!("written: {}", file.display()));
            }
            (Some(_), None) => self.output.exactly(&html::page(&report))?,
            (None, None) if self.output.is_json() => self.output.exactly(&document::to_json(&report)?)?,
            (None, None) => self.print_with(&report, true)?,
        }
        Ok(0)
    }
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
