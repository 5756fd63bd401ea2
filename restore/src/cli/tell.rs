//! What a person and a program are told: whose code runs, the plan, and what was done.

use common::{
    Account, Result, Verdict, cli::Output, format, postgres::ConnectionSettings, repository::StoredSnapshot,
};
use serde::Serialize;

use super::Cli;
use crate::{RestorePlan, RestoreReport, load};

/// A snapshot that no backup made in this repository may be somebody else's.
pub(super) fn say_whose_code_runs(snapshot: &StoredSnapshot, output: &Output) {
    output.say(&format!(
        "{} was not made in this repository: restoring it runs the functions and triggers that it holds, so trust where it comes from",
        snapshot.manifest.id
    ));
}

/// Says what was done, to a person and to programs.
pub(super) fn told(
    cli: &Cli,
    output: &Output,
    connection: &ConnectionSettings,
    report: &RestoreReport,
) -> Result<()> {
    if !output.is_json() {
        print(report, output);
    }
    if output.is_json() || cli.document {
        let (verdict, account) = (report.verdict(), &report.account());
        output.document(&Document { verdict, report, account })
    } else {
        let url = connection.without_application_name().with_database(&report.database).redacted_url();
        output.data(&format!("{url}\n"))
    }
}

pub(super) fn describe(plan: &RestorePlan) -> String {
    let mut text = format!(
        "Snapshot {}: {}, {}, {}\n  1. make the database \"{}\" and fill it\n  2. compare every row with the snapshot\n",
        plan.snapshot,
        format::plural(plan.tables as u64, "table", "tables"),
        format::plural(plan.rows, "row", "rows"),
        format::bytes(plan.raw_bytes),
        plan.staged
    );
    if !plan.create_roles.is_empty() {
        text.push_str(&format!(
            "  first: make the roles {} {}\n",
            plan.create_roles.join(", "),
            if plan.role_passwords { "with the passwords of the snapshot" } else { "without passwords" }
        ));
    }
    for mapping in &plan.map_roles {
        let made = if mapping.is_temporary { " (made for the time of the restore, and dropped)" } else { "" };
        text.push_str(&format!("  role \"{}\"{made} becomes \"{}\"\n", mapping.from, mapping.to));
    }
    if let (Some(live), Some(kept)) = (&plan.replaces, &plan.kept_as) {
        text.push_str(&format!(
            "  3. in one transaction: \"{live}\" becomes \"{kept}\", and \"{}\" becomes \"{live}\"\n",
            plan.staged
        ));
        if plan.drop_replaced {
            text.push_str(&format!("  4. drop \"{kept}\"\n"));
        }
    }
    text.push_str(&format!("  it {}\n", plan.space));
    for note in &plan.notes {
        text.push_str(&format!("  note: {note}\n"));
    }
    text
}

/// The JSON of a restore.
#[derive(Debug, Serialize)]
struct Document<'a> {
    verdict: Verdict,
    #[serde(flatten)]
    report: &'a RestoreReport,
    account: &'a Account,
}

fn print(report: &RestoreReport, output: &Output) {
    let took = format::duration(std::time::Duration::from_secs_f64(report.seconds));
    if output.is_verbose() && !report.spent.is_empty() {
        let cell = |spent: &load::Spent| {
            let time = format::duration(std::time::Duration::from_secs_f64(spent.seconds));
            vec![spent.what.to_owned(), spent.count.to_string(), time]
        };
        let rows: Vec<_> = report.spent.iter().map(cell).collect();
        output.say("What the connections did, their times added up:");
        output.say(format::table(&["WORK", "TASKS", "TIME"], &[false, true, true], &rows).trim_end());
    }
    let account = report.account();
    output.say(&format!(
        "{} {} as \"{}\": {} compared with the snapshot and equal{}, in {took}",
        output.verdict(report.verdict()),
        report.plan.snapshot,
        report.database,
        format::plural(report.plan.rows, "row", "rows"),
        account.but(),
    ));
    // They belong to the verdict, as in the JSON: --quiet leaves them too.
    for line in account.lines() {
        output.warn(&line);
    }
    for missing in &report.missing {
        // A constraint that was left out can be added again when the rows are mended.
        if (output.is_verbose() || missing.object.starts_with("FK CONSTRAINT "))
            && let Some(definition) = &missing.definition
        {
            output.say(&format!("         {}", definition.replace('\n', "\n         ")));
        }
    }
    if let (false, Some(live)) = (report.missing.is_empty(), &report.plan.replaces) {
        output.say(&format!(
            "         it did not take the place of \"{live}\", which was not changed; if it shall, rename the two by hand"
        ));
    }
    if let Some(kept) = &report.replaced_as {
        output.say(&format!(
            "         the replaced database is kept as \"{kept}\"; when it is no longer needed: DROP DATABASE {}",
            common::Ident::new(&**kept)
        ));
    }
}
