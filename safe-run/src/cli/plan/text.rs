//! A plan as a person reads it.

use std::time::Duration;

use common::{cli::output::Tone, format};

use super::{Planned, PlannedFile, PlannedStatement};
use crate::{
    cli::Invocation,
    outlook::{Blocked, Effort, Estimate, Outlook, PlannedLock, What},
};

/// With more pending files than this, statements are shown only where there is something to say about them.
const FILES_IN_FULL: usize = 20;

impl Invocation<'_> {
    pub(super) fn plan_as_text(&self, plan: &Planned) -> String {
        if plan.files.is_empty() {
            return "Nothing is pending.\n".to_owned();
        }
        let brief = plan.files.len() > FILES_IN_FULL && !self.output.is_verbose();
        let mut text: String = plan.files.iter().map(|file| self.file_as_text(file, brief)).collect();
        let mut lines: Vec<String> = Vec::new();
        if brief {
            lines.push(
                "Of so many files, only statements with a warning are shown; --verbose shows all.".to_owned(),
            );
        }
        let migrations = format::plural(plan.files.len() as u64, "migration", "migrations");
        lines.push(format!("{migrations}: {}", plan.undo.how));
        lines.extend(plan.undo.as_text());
        if plan
            .statements()
            .flat_map(|statement| &statement.outlook.locks)
            .any(|lock| lock_as_text(lock).is_some())
        {
            lines.push(
                "A lock is held until the COMMIT, and the checks come before it. Rows and sizes are those of the last ANALYZE."
                    .to_owned(),
            );
        }
        let mut efforts = plan.statements().flat_map(|statement| &statement.outlook.efforts);
        if efforts.any(|effort| effort.estimate.is_some()) {
            lines.push(
                "Times are estimated from how fast this server counts: other work and a cold disk make them longer."
                    .to_owned(),
            );
        }
        let warnings = plan.warnings() as u64;
        if warnings > 0 {
            let warnings = format::plural(warnings, "warning", "warnings");
            lines.push(format!(
                "{warnings}: https://squawkhq.com/docs/RULE explains a rule, `-- squawk-ignore RULE` before a statement silences it there"
            ));
        }
        lines.push("Nothing was changed.".to_owned());
        text.push('\n');
        text.extend(lines.iter().map(|line| format!("{line}\n")));
        text
    }

    /// A file with its statements; a brief one has only those that a warning is about.
    pub(super) fn file_as_text(&self, file: &PlannedFile, brief: bool) -> String {
        let mark = self.output.paint(Tone::Warning, "!");
        let name = self.output.paint(Tone::Strong, &file.file);
        let mut text = if brief {
            let count = format::plural(file.statements.len() as u64, "statement", "statements");
            format!("{name}  {count}\n")
        } else {
            format!("{name}\n")
        };
        for warning in &file.warnings {
            text.push_str(&format!("  {mark} {warning}\n"));
        }
        let told = |statement: &&PlannedStatement| !brief || statement.is_told();
        for statement in file.statements.iter().filter(told) {
            text.push_str(&format!("  {:>4}  {}\n", statement.line, statement.summary));
            let outlook = &statement.outlook;
            let lines = outlook.locks.iter().filter_map(lock_as_text);
            let lines =
                lines.chain(outlook.efforts.iter().map(|effort| effort_as_text(effort, &outlook.locks)));
            let lines = lines.chain(statement.dearer_undo.iter().cloned());
            for line in lines.chain(unknown_as_text(outlook)) {
                text.push_str(&format::wrapped("        ", "          ", &line));
            }
            for warning in statement.warnings.iter().cloned().chain(warnings_as_text(&statement.outlook)) {
                text.push_str(&format::wrapped(&format!("        {mark} "), "          ", &warning));
            }
        }
        text
    }
}

/// Who waits for it; nothing where plain reading and writing goes on.
pub(super) fn lock_as_text(lock: &PlannedLock) -> Option<String> {
    let who = match lock.blocks {
        Blocked::ReadsAndWrites => "nobody reads or writes",
        Blocked::Writes => "nobody writes to",
        Blocked::Schema => return None,
    };
    let (table, size) = (common::ident::printable(&lock.table), size_as_text(lock.rows, lock.bytes));
    Some(format!("{who} {table} meanwhile ({}; {size})", lock.mode))
}

/// What happens to its rows; how many they are stands in the line of the lock.
fn effort_as_text(effort: &Effort, locks: &[PlannedLock]) -> String {
    let table = common::ident::printable(&effort.table);
    let indexes = format::plural(effort.indexes as u64, "index", "indexes");
    let what = match effort.what {
        What::Rewrite if effort.indexes > 0 => {
            format!("all rows of {table} are written anew, with {indexes}")
        }
        What::Rewrite => format!("all rows of {table} are written anew"),
        What::Scan | What::Lookup => format!("all rows of {table} are read"),
        What::Index if effort.indexes == 1 => format!("an index is built over {table}"),
        What::Index => format!("{indexes} are built over {table}"),
    };
    let why = match effort.why.as_str() {
        "" => String::new(),
        why => format!(": {}", common::ident::printable(why)),
    };
    let is_told = locks.iter().any(|lock| lock.table == effort.table && lock_as_text(lock).is_some());
    let rows = (!is_told).then(|| size_as_text(effort.rows, effort.bytes));
    let facts: Vec<String> =
        rows.into_iter().chain(effort.estimate.as_ref().and_then(time_as_text)).collect();
    let facts = if facts.is_empty() { String::new() } else { format!(" ({})", facts.join("; ")) };
    format!("{what}{why}{facts}")
}

/// A range of whole seconds; nothing where it is less than one.
fn time_as_text(estimate: &Estimate) -> Option<String> {
    let text = |seconds: f64| format::seconds(Duration::from_secs_f64(seconds));
    match (estimate.from_seconds, estimate.to_seconds) {
        (_, to) if to < 1.0 => None,
        (from, to) if from < 1.0 => Some(format!("estimated: up to {}", text(to.ceil()))),
        (from, to) => Some(format!("estimated: {} to {}", text(from), text(to.ceil()))),
    }
}

fn size_as_text(rows: Option<u64>, bytes: u64) -> String {
    let size = if bytes > 0 { format!(", {}", format::bytes(bytes)) } else { String::new() };
    format!("{}{size}", rows_as_text(rows))
}

fn rows_as_text(rows: Option<u64>) -> String {
    match rows {
        Some(rows) => format!("about {}", format::plural(rows, "row", "rows")),
        None => "never analyzed".to_owned(),
    }
}

fn unknown_as_text(outlook: &Outlook) -> Option<String> {
    outlook.unknown.as_ref().map(|what| format!("{what}: what it locks or loses can't be told from its text"))
}

pub(super) fn warnings_as_text(outlook: &Outlook) -> Vec<String> {
    let losses = outlook.losses.iter().map(|loss| {
        format!(
            "{} loses all its rows ({}): unless they come back, the run is undone; {} lets them go",
            common::ident::printable(&loss.table),
            rows_as_text(loss.rows),
            loss.flag
        )
    });
    let findings = outlook.findings.iter().map(|finding| {
        let help = finding.help.as_ref().map(|help| format!(" {help}")).unwrap_or_default();
        format!("{}: {}{help}", finding.rule, finding.message)
    });
    losses.chain(findings).collect()
}
