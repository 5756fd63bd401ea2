//! `safe-run check`: the rules that the database breaks today, and the catalogue of checks.

use common::{
    Error, ErrorKind, Remark, Result, Verdict,
    cli::output::Tone,
    format,
    postgres::{
        Session, SessionProfile, exported_snapshot,
        session_room::{self, Need},
    },
};
use serde::Serialize;

use super::{Invocation, args::CheckArgs};
use crate::{proof, release, run::check_on, verify};
use checks::{self, CheckKind, CheckResults, Entry, Finding, Severity};

impl Invocation<'_> {
    pub(super) fn list_checks(&self) -> Result<u8> {
        let entries: Vec<Entry> = CheckKind::ALL.into_iter().map(CheckKind::entry).collect();
        if self.output.is_json() {
            self.output.document(&serde_json::json!({"checks": entries}))?;
            return Ok(0);
        }
        let mut text = String::new();
        for entry in entries {
            let effect = if entry.fails { "fails a run" } else { "notes" };
            let name = format!("{:<18}", entry.check.as_str());
            text.push_str(&format!(
                "{}from level {:<10}{effect}\n",
                self.output.paint(Tone::Strong, &name),
                entry.level.to_string()
            ));
            text.push_str(&format::wrapped("    ", "      ", &format!("finds {}", entry.finds)));
            text.push_str(&format::wrapped("    ", "      ", &format!("costs {}", entry.costs)));
        }
        text.push_str("\nUse these names with --only and --skip.\n");
        self.output.data(&text)?;
        Ok(0)
    }

    /// As many readers as there is room for.
    async fn readers(&self, holder: &Session) -> Result<usize> {
        let jobs = self.settings.jobs.unwrap_or_else(backup::default_jobs);
        // Beside the holder: the readers, and who looks for event triggers.
        let need = Need { fixed: 1, per_job: 1, jobs, same_database: true };
        let room = session_room::find(holder, need).await?;
        if let Some(said) = room.said {
            self.output.progress().note(said);
        }
        Ok(room.jobs)
    }

    pub(super) async fn check(&self, args: &CheckArgs) -> Result<u8> {
        // The files are read, and refused, before anything is asked of the server.
        let files = verify::load(&args.verify)?;
        let connection = self.connection("safe-run check").await?;
        for run in release::left_behind(&self.settings.repo, connection.database())? {
            self.output.warn(&format!(
                "run {} ({}) did not finish: what is checked here may be half of what it did; `safe-run recover` finishes it, \
                 `safe-run recover --keep` leaves the database as it is",
                run.run,
                run.what()
            ));
        }
        let holder = connection.connect().await?;
        backup::check_server(&holder).await?;
        holder
            // Not READ ONLY: the checks make it so, once they have what they need to ask as an owner.
            .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            .await
            .map_err(|source| Error::postgres("could not begin the checks", source))?;
        let exported = exported_snapshot::ExportedSnapshot::export(&holder).await?;
        let progress = self.output.progress();
        let options = checks::Options {
            level: args.level,
            only: args.only.clone(),
            skip: args.skip.clone(),
            progress: Some(progress.clone()),
            ..checks::Options::default()
        };
        let jobs = self.readers(&holder).await?;
        let mut sessions: Vec<Session> = Vec::new();
        if exported.only_session().is_none() {
            for _ in 0..jobs {
                sessions.push(exported_snapshot::join_for_checks(&connection, &exported).await?);
            }
        }
        let sessions = exported.only_session().into_iter().chain(&sessions);
        progress.phase("checking", None);
        let checked = check_on(&connection, sessions, &options).await;
        progress.done();
        let mut results = checked?;
        if !files.is_empty() && options.wants(CheckKind::Verify) {
            let session = connection.connect_as(SessionProfile::Migration, None).await?;
            results.findings.extend(verify::run_all(&session, &files, &progress).await?);
            session.close().await?;
        }
        if let Some(moved) = proof::moved_in(&connection).await? {
            let detail = format!("this check may have moved {moved}");
            results.findings.push(Finding::of_looking(CheckKind::Sequences, "event triggers", detail));
        }
        // What compares two states has nothing to compare here.
        let mut checked: Vec<CheckKind> =
            results.checked().into_iter().filter(|kind| !kind.compares_states()).collect();
        if !files.is_empty() && options.wants(CheckKind::Verify) {
            checked.push(CheckKind::Verify);
        }
        let unchecked = results.unchecked();
        let failing = of(&results, Severity::Failure).count();
        let verdict = match (failing, unchecked) {
            (1.., _) => Verdict::Violations,
            (0, _) if checked.is_empty() => Verdict::NothingChecked,
            (0, 0) => Verdict::Clean,
            (0, _) if args.strict => Verdict::NotChecked,
            (0, _) => Verdict::CleanSoFar,
        };
        let bad = failing > 0 || (args.strict && verdict != Verdict::Clean);
        if self.output.is_json() {
            let document =
                Document { verdict, results: &results, checked: &checked, violations: failing, unchecked };
            self.output.document(&document)?;
        } else {
            self.output.data(&self.told(verdict, &results, &checked, failing, unchecked))?;
        }
        Ok(if bad { ErrorKind::Violations.exit_code() } else { 0 })
    }

    /// The verdict first, then what was not checked, violations, and advice.
    fn told(
        &self,
        verdict: Verdict,
        results: &CheckResults,
        checked: &[CheckKind],
        failing: usize,
        unchecked: usize,
    ) -> String {
        let tables = match results.tables.len() {
            0 => "what there is without tables".to_owned(),
            count => format::plural(count as u64, "table", "tables"),
        };
        let not_checked = format::plural(unchecked as u64, "thing", "things");
        let level = results.level;
        let said = match verdict {
            Verdict::NothingChecked if unchecked > 0 => {
                format!("nothing was checked at level {level}: {not_checked} could not be")
            }
            Verdict::NothingChecked if results.is_empty() => {
                "the database has no table, view, function or sequence".to_owned()
            }
            Verdict::NothingChecked => {
                format!("no check that was asked for had anything to look at, at level {level}")
            }
            Verdict::NotChecked => format!("{not_checked} could not be checked, and --strict was given"),
            Verdict::Violations => {
                let rest = match unchecked {
                    0 => String::new(),
                    _ => format!(", and {not_checked} could not be checked"),
                };
                format!("{}{rest}", format::plural(failing as u64, "rule does not hold", "rules do not hold"))
            }
            Verdict::CleanSoFar => format!(
                "{tables} looked at, at level {level}: every rule that could be checked holds, but {not_checked} could not be"
            ),
            _ if results.skipped.is_empty() => format!("{tables} checked at level {level}, every rule holds"),
            _ => format!("{tables} checked at level {level}, every rule that can be checked here holds"),
        };
        let mut text = format!("{}  {said}\n", self.output.verdict(verdict));
        for skipped in &results.skipped {
            text.push_str(&format!("  {}\n", Remark::NotChecked.line(&skipped.phrase())));
        }
        if checked.is_empty() && unchecked == 0 && !results.is_empty() {
            text.push_str(
                "  structure looks at what a run made or rebuilt, and at everything with --level deep; privileges, enums, statistics and \
                 content compare the states before and after a run\n",
            );
        } else if self.output.is_verbose() {
            let names: Vec<&str> = checked.iter().map(|check| check.as_str()).collect();
            text.push_str(&format!("  checked: {}\n", names.join(", ")));
        }
        for finding in of(results, Severity::Failure) {
            text.push_str(&format!("  {}\n", finding.detail));
            if let (true, Some(repair)) = (self.output.is_verbose(), &finding.repair_sql) {
                text.push_str(&format!(
                    "    repair (not run):\n      {}\n",
                    repair.replace('\n', "\n      ")
                ));
            }
        }
        if failing > 0 && !self.output.is_verbose() && results.findings.iter().any(|f| f.repair_sql.is_some())
        {
            text.push_str("  --verbose shows SQL that would repair this\n");
        }
        for note in of(results, Severity::Note) {
            text.push_str(&format!("  note: {}\n", note.detail));
            if let (true, Some(repair)) = (self.output.is_verbose(), &note.repair_sql) {
                text.push_str(&format!("    {}\n", repair.replace('\n', "\n    ")));
            }
        }
        text
    }
}

fn of(results: &CheckResults, severity: Severity) -> impl Iterator<Item = &Finding> {
    results.findings.iter().filter(move |finding| finding.severity == severity)
}

/// Everything that was found, and how it counts.
#[derive(Serialize)]
struct Document<'a> {
    verdict: Verdict,
    #[serde(flatten)]
    results: &'a CheckResults,
    /// The checks that looked at something.
    checked: &'a [CheckKind],
    violations: usize,
    unchecked: usize,
}
