//! A report as lines for a terminal. Pure.

use std::time::Duration;

use common::{Remark, format};

use super::{Report, Verdict};
use checks::{Finding, Severity};

impl Report {
    /// The whole report as lines for a person; `paint` colours the verdict.
    pub fn text(&self, verbose: bool, paint: impl Fn(Verdict, &str) -> String) -> String {
        let word = self.verdict.word();
        let indent = " ".repeat(word.len() + 2);
        let mut out = format!(
            "{}  {}\n",
            paint(self.verdict, word),
            self.headline.replace('\n', &format!("\n{indent}"))
        );
        if !self.state.is_empty() {
            out.push_str(&format!("{indent}{}\n", self.state));
        }
        let mut line = |text: &str| out.push_str(&format!("{indent}{text}\n"));
        for detail in self.more_failures() {
            line(&detail);
        }
        if let Some(hint) = self.error.as_ref().and_then(|error| error.hint.as_ref()) {
            line(&format!("hint: {hint}"));
        }
        if let Some(error) = self.undo.as_ref().and_then(|undo| undo.error.as_ref()) {
            line(&format!("the undo failed: {}", error.message));
            if let Some(hint) = &error.hint {
                line(&format!("hint: {hint}"));
            }
        }
        // Part of the verdict: what was not looked at did not pass, and what differs is not as before.
        for text in self.account.lines() {
            line(&text);
        }
        for skipped in self.skipped.iter().filter(|skipped| verbose || skipped.counts_for_strict) {
            line(&Remark::NotChecked.line(&skipped.phrase()));
        }
        for change in
            self.rows.iter().flat_map(|rows| &rows.changes).filter(|change| change.severity == Severity::Note)
        {
            line(&format!("rows: {}", change.detail));
        }
        self.findings_text(verbose, &mut line);
        for table in self.command.iter().flat_map(|command| &command.version_tables) {
            let undone = matches!(self.verdict, Verdict::RolledBack | Verdict::Restored);
            line(&if undone { table.told_as_undone() } else { table.to_string() });
        }
        for told in self.import.iter().flat_map(|import| import.lines(verbose)) {
            line(&told);
        }
        for note in &self.notes {
            line(&Remark::Note.line(note));
        }
        if verbose {
            self.details(&mut line);
        }
        for next in &self.next {
            line(&format!("next: {next}"));
        }
        out
    }

    /// Failing findings beyond the first, which is the headline.
    fn more_failures(&self) -> Vec<String> {
        const SHOWN: usize = 10;
        let all = self.failures();
        let mut lines: Vec<String> = all.iter().skip(1).take(SHOWN).cloned().collect();
        if all.len() > SHOWN + 1 {
            lines.push(format!(
                "and {} more; `safe-run report {}` lists all",
                all.len() - SHOWN - 1,
                self.run
            ));
        }
        lines
    }

    fn findings_text(&self, verbose: bool, line: &mut impl FnMut(&str)) {
        let Some(findings) = &self.findings else { return };
        let list = |title: &str, list: &[Finding], line: &mut dyn FnMut(&str)| {
            const SHOWN: usize = 3;
            let shown = if verbose { list.len() } else { SHOWN };
            for finding in list.iter().take(shown) {
                line(&format!("{title}: {}", finding.detail));
            }
            if list.len() > shown {
                line(&format!("{title}: and {} more (--verbose shows all)", list.len() - shown));
            }
        };
        if !findings.fails() {
            list("new", &findings.new, line);
        }
        list("there before", &findings.pre_existing, line);
        list("resolved", &findings.resolved, line);
        // Rows that break a rule are no advice, also where the rule that the run made lets them be.
        let (accepted, advice): (Vec<Finding>, Vec<Finding>) =
            findings.notes.iter().cloned().partition(|finding| finding.definition.ends_with(" NOT VALID"));
        list("note", &accepted, line);
        if verbose {
            list("advice", &advice, line);
            for finding in findings.new.iter().chain(&findings.pre_existing) {
                if let Some(repair) = &finding.repair_sql {
                    line(&format!("repair (not run): {}", repair.replace('\n', " ")));
                }
            }
        }
    }

    fn details(&self, line: &mut impl FnMut(&str)) {
        if !self.checked.is_empty() {
            let names: Vec<&str> = self.checked.iter().map(|check| check.as_str()).collect();
            line(&format!("checked: {}", names.join(", ")));
        }
        for text in &self.protection {
            line(&format!("protection: {text}"));
        }
        for migration in &self.migrations {
            let seconds = format::duration(Duration::from_secs_f64(migration.seconds));
            line(&format!(
                "{}  {}{seconds}",
                migration.file,
                if migration.complete { "" } else { "stopped after " }
            ));
            for statement in &migration.statements {
                let seconds = format::duration(Duration::from_secs_f64(statement.seconds));
                line(&format!(
                    "  line {}: {} ({seconds}, {})",
                    statement.line,
                    statement.summary,
                    format::plural(statement.rows, "row", "rows")
                ));
            }
        }
        for phase in &self.phases {
            line(&format!("{}: {}", phase.name, format::duration(Duration::from_secs_f64(phase.seconds))));
        }
    }
}
