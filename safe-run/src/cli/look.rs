//! The commands that only look: status, plan, check, history, report.

use std::path::Path;

use common::{
    Error, ErrorKind, Result,
    cli::{format, output::Tone},
    postgres::exported_snapshot::ExportedSnapshot,
    repository::Repository,
};
use serde::Serialize;

use super::{Invocation, args::CheckArgs};
use crate::{
    check, history, journal,
    migration::{self, MigrationFile},
    report::{document, html, targets},
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
    pub(super) async fn status(&self) -> Result<u8> {
        let files = migration::load(&self.settings.dirs)?;
        let session = self.connection("safe-run status").await?.connect().await?;
        let applied = history::read(&session).await?;
        let plan = migration::plan(
            &files,
            &applied,
            self.migrations.to.as_ref(),
            &self.migrations.allow_out_of_order,
        )?;
        self.tell_drift(&plan);
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
            self.output.document(&serde_json::json!({"migrations": lines}))?;
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
                "{}, {} pending",
                format::plural(plan.applied.len() as u64, "migration applied", "migrations applied"),
                plan.pending.len()
            ));
        }
        Ok(if plan.pending.is_empty() { 0 } else { ErrorKind::Pending.exit_code() })
    }

    pub(super) async fn plan(&self) -> Result<u8> {
        let files = migration::load(&self.settings.dirs)?;
        let session = self.connection("safe-run plan").await?.connect().await?;
        let applied = history::read(&session).await?;
        let plan = migration::plan(
            &files,
            &applied,
            self.migrations.to.as_ref(),
            &self.migrations.allow_out_of_order,
        )?;
        self.tell_drift(&plan);
        plan.refuse_stray_transaction_control()?;
        let alone =
            plan.pending.iter().find_map(|file| file.no_transaction.as_ref().map(|why| (file.name(), why)));
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
            statements: Vec<PlannedStatement>,
        }
        let planned: Vec<PlannedFile> = plan
            .pending
            .iter()
            .map(|file| PlannedFile {
                version: file.version.as_str().to_owned(),
                file: file.name(),
                no_transaction: file.no_transaction.clone(),
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
        let how = match &alone {
            None => "all in one transaction; the undo is a ROLLBACK".to_owned(),
            Some((file, why)) => {
                format!("not in one transaction ({file}: {why}); the undo restores the snapshot")
            }
        };
        if self.output.is_json() {
            self.output.document(&serde_json::json!({
                "pending": planned, "in_one_transaction": alone.is_none(), "how": how,
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

    pub(super) async fn check(&self, args: &CheckArgs) -> Result<u8> {
        let connection = self.connection("safe-run check").await?;
        let holder = connection.connect().await?;
        holder
            .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .await
            .map_err(|source| Error::postgres("could not begin the checks", source))?;
        let exported = ExportedSnapshot::export(&holder).await?;
        let options = check::Options {
            level: args.level,
            only: args.only.clone(),
            skip: args.skip.clone(),
            ..check::Options::default()
        };
        let jobs = self.settings.jobs.unwrap_or_else(backup::default_jobs);
        let mut sessions = Vec::new();
        for _ in 0..jobs {
            sessions.push(common::postgres::exported_snapshot::join(&connection, exported.id()).await?);
        }
        let clients: Vec<&common::postgres::Client> = sessions.iter().map(|session| &**session).collect();
        let results = check::run_parallel(&clients, &options).await?;
        let failing: Vec<_> =
            results.findings.iter().filter(|finding| finding.severity == check::Severity::Failure).collect();
        let unchecked = results.skipped.iter().filter(|skipped| skipped.counts_for_strict).count();
        let bad = !failing.is_empty() || (args.strict && unchecked > 0);
        if self.output.is_json() {
            self.output.document(&results)?;
        } else {
            let mut text = if bad {
                format!(
                    "{}  {}\n",
                    self.output.paint(Tone::Bad, "VIOLATIONS"),
                    format::plural(failing.len() as u64, "rule does not hold", "rules do not hold")
                )
            } else {
                format!(
                    "{}  {} checked, every rule holds\n",
                    self.output.paint(Tone::Good, "CLEAN"),
                    format::plural(results.tables.len() as u64, "table", "tables")
                )
            };
            for finding in &results.findings {
                text.push_str(&format!("  {}\n", finding.detail));
                if let (true, Some(repair)) = (self.output.is_verbose(), &finding.repair_sql) {
                    text.push_str(&format!("    repair (not run): {}\n", repair.replace('\n', " ")));
                }
            }
            for skipped in &results.skipped {
                text.push_str(&format!(
                    "  not checked: {} of {}: {}\n",
                    skipped.check, skipped.object, skipped.why
                ));
            }
            self.output.data(&text)?;
        }
        Ok(if bad { ErrorKind::Violations.exit_code() } else { 0 })
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
                verdict: run.finished().map_or("UNFINISHED", |(_, verdict)| verdict).to_owned(),
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
            Some(path) if path.as_os_str() != "-" => Some(targets::writable("--html", path)?),
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
            (Some(_), None) => self.output.data(&html::page(&report))?,
            (None, None) if self.output.is_json() => self.output.data(&document::to_json(&report)?)?,
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
