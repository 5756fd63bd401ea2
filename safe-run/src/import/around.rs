//! What is done to the tables around the load, in the same transaction: locks, rows that are there already, triggers, keys that
//! are checked late; and afterwards the same put back, the sequences, the statistics.

use std::collections::BTreeMap;

use common::{
    Error, Ident, QualifiedName, Result,
    format::{count, plural},
    postgres::Session,
};

use super::{
    choices::Existing,
    plan::{Plan, TablePlan},
    target::TargetForeignKey,
};
use crate::{
    attempts::{Failed, Waiting, until_locked},
    run::Context,
};
use checks::LossLimits;

/// How many rows each table has already, by oid; tables without rows are left out.
///
/// # Errors
/// A table can't be read.
pub async fn existing_rows(session: &Session, plan: &Plan) -> Result<BTreeMap<u32, i64>> {
    let mut found = BTreeMap::new();
    for table in &plan.tables {
        let name = &table.target.name;
        let count = format!("SELECT pg_catalog.count(*) FROM {}", table.target.own_rows());
        let row = session.query_one(&count, &[]).await.map_err(|source| {
            Error::postgres(format!("could not count the rows of {}", name.short()), source)
        })?;
        let rows: i64 = row.get(0);
        if rows > 0 {
            found.insert(table.target.oid, rows);
        }
    }
    Ok(found)
}

/// Refuses tables that have rows, unless a person decided about them.
///
/// # Errors
/// Refused, with every such table and the flags that would do.
pub fn refuse_existing(
    plan: &Plan,
    rows: &BTreeMap<u32, i64>,
    existing: Existing,
    limits: &LossLimits,
) -> Result<()> {
    if existing == Existing::Append {
        return Ok(());
    }
    let with_rows: Vec<(&TablePlan, i64)> = plan
        .tables
        .iter()
        .filter_map(|table| Some((table, *rows.get(&table.target.oid)?)))
        .filter(|(table, rows)| {
            existing == Existing::Refuse || !limits.allows(std::slice::from_ref(&table.target.name), *rows)
        })
        .collect();
    if with_rows.is_empty() {
        return Ok(());
    }
    let named: Vec<String> = with_rows
        .iter()
        .map(|(table, rows)| format!("{} ({})", table.target.name.short(), plural_rows(*rows)))
        .collect();
    let flags: Vec<String> = with_rows
        .iter()
        .map(|(table, rows)| {
            format!("--allow-loss {}={rows}", common::ident::shell_word(&table.target.name.short()))
        })
        .collect();
    let flags = flags.join(" ");
    Err(match existing {
        Existing::Recreate => Error::refused(format!(
            "--force-recreate would delete rows that nobody gave up: {}",
            named.join(", ")
        ))
        .with_hint(format!("If these rows may go, say so: {flags}")),
        _ => Error::refused(format!("tables are not empty: {}", named.join(", "))).with_hint(format!(
            "To replace these rows: --force-recreate {flags}. To add to them: --append. To leave a table as it is: --skip-table."
        )),
    })
}

/// `1,204 rows`.
pub fn plural_rows(rows: i64) -> String {
    plural(rows.unsigned_abs(), "row", "rows")
}

/// The locks that are needed beyond those of the fence.
pub fn lock_sql(plan: &Plan, recreates: bool) -> Option<String> {
    let mut names: Vec<&QualifiedName> = Vec::new();
    if recreates {
        names.extend(plan.tables.iter().map(|table| &table.target.name));
    } else {
        let late = plan.checked_late.iter().filter(|key| !key.deferrable);
        for oid in late.flat_map(|key| [key.table, key.references]) {
            names.extend(
                plan.tables.iter().filter(|table| table.target.oid == oid).map(|table| &table.target.name),
            );
        }
    }
    names.sort();
    names.dedup();
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    (!names.is_empty()).then(|| format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", names.join(", ")))
}

/// Makes the tables ready. Returns what a person should know.
///
/// # Errors
/// The server refuses a step: mostly because the role does not own a table.
pub async fn prepare(
    session: &Session,
    plan: &Plan,
    recreates: bool,
    fire_triggers: bool,
) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    for table in plan.tables.iter().filter(|table| !table.target.triggers.is_empty()) {
        let names: Vec<&str> = table.target.triggers.iter().map(|(name, _)| name.as_str()).collect();
        let (shown, names) = (table.target.name.short(), common::ident::printable(&names.join(", ")));
        if fire_triggers {
            notes
                .push(format!("triggers of {shown} fire for every row, as told by --fire-triggers: {names}"));
            continue;
        }
        // By name: USER would mean those too that fire only in a replica, or never, and they would not come back.
        let off: Vec<String> = table
            .target
            .triggers
            .iter()
            .map(|(name, _)| format!("DISABLE TRIGGER {}", Ident::new(name.as_str())))
            .collect();
        run(
            session,
            &format!("turn the triggers of {shown} off"),
            &format!("ALTER TABLE {} {}", table.target.name, off.join(", ")),
        )
        .await?;
        notes.push(format!("triggers of {shown} did not fire for the imported rows: {names}"));
    }
    if recreates {
        let names: Vec<String> = plan.tables.iter().map(|table| table.target.own_rows()).collect();
        let emptied = run(session, "empty the tables", &format!("TRUNCATE {}", names.join(", "))).await;
        emptied.map_err(|error| {
            if error.sqlstate() == Some("0A000") {
                error.with_hint(
                    "A table that the import does not fill refers to one of these: take its foreign key away for the time of the import, or let the import fill it too.",
                )
            } else {
                error
            }
        })?;
    }
    for key in &plan.checked_late {
        let (table, name) = (name_of(plan, key), Ident::new(key.name.as_str()));
        if !key.deferrable {
            let sql = format!("ALTER TABLE {table} ALTER CONSTRAINT {name} DEFERRABLE INITIALLY DEFERRED");
            run(session, &format!("let the foreign key {name} wait"), &sql).await?;
        }
        run(
            session,
            &format!("let the foreign key {name} wait"),
            &format!("SET CONSTRAINTS {} DEFERRED", in_schema(&table, &name)),
        )
        .await?;
    }
    Ok(notes)
}

/// Checks every key that waited, and puts back what [`prepare`] changed.
///
/// # Errors
/// A foreign key does not hold.
pub async fn finish(session: &Session, plan: &Plan, fire_triggers: bool) -> Result<()> {
    run(session, "check the foreign keys that had to wait", "SET CONSTRAINTS ALL IMMEDIATE").await?;
    for key in plan.checked_late.iter().filter(|key| !key.deferrable) {
        let (table, name) = (name_of(plan, key), Ident::new(key.name.as_str()));
        let sql = format!("ALTER TABLE {table} ALTER CONSTRAINT {name} NOT DEFERRABLE");
        run(session, &format!("put the foreign key {name} back"), &sql).await?;
    }
    if fire_triggers {
        return Ok(());
    }
    for table in &plan.tables {
        for (trigger, enabled) in &table.target.triggers {
            let how = if *enabled == 'A' { "ENABLE ALWAYS TRIGGER" } else { "ENABLE TRIGGER" };
            let sql = format!("ALTER TABLE {} {how} {}", table.target.name, Ident::new(trigger.as_str()));
            run(session, &format!("turn the trigger {trigger} on again"), &sql).await?;
        }
    }
    Ok(())
}

/// Lets the sequences of the loaded columns go on behind the highest key, and behind the highest that SQLite ever gave out.
/// A ROLLBACK takes that back, as nothing else about sequences.
///
/// # Errors
/// The server refuses: mostly because the role does not own the sequence.
pub async fn set_sequences(
    session: &Session,
    plan: &Plan,
    given_out: impl Fn(&TablePlan) -> Option<i64>,
) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    for table in &plan.tables {
        for column in &table.target.columns {
            let Some(sequence) = &column.sequence else { continue };
            let shown = sequence.name.short();
            if sequence.increment < 1 {
                notes.push(format!("sequence {shown} counts down and was left where it stands"));
                continue;
            }
            let sql = format!(
                "SELECT pg_catalog.max({}::bigint) FROM {}",
                Ident::new(column.name.as_str()),
                table.target.name
            );
            let row = session.query_one(&sql, &[]).await.map_err(|source| {
                Error::postgres(format!("could not read the highest key for {shown}"), source)
            })?;
            let loaded = table.columns.iter().any(|planned| planned.target.name == column.name);
            let highest: Option<i64> = row.get(0);
            let kept = given_out(table).filter(|_| loaded);
            let Some(last) = highest.max(kept) else { continue };
            let read = format!("SELECT last_value, is_called FROM {}", sequence.name);
            let row = session
                .query_one(&read, &[])
                .await
                .map_err(|source| Error::postgres(format!("could not read the sequence {shown}"), source))?;
            let (stands, called): (i64, bool) = (row.get(0), row.get(1));
            // Behind what it has given out itself it must not go back.
            if last < stands || (last == stands && called) || last < sequence.min {
                continue;
            }
            let Some(next) = last.checked_add(1).filter(|next| *next <= sequence.max) else {
                notes.push(format!(
                    "sequence {shown} has no value left: the highest key is {}, and it ends at {}",
                    last, sequence.max
                ));
                continue;
            };
            run(
                session,
                &format!("set the sequence {shown}"),
                &format!("ALTER SEQUENCE {} RESTART WITH {next}", sequence.name),
            )
            .await?;
            let why = if highest == Some(last) {
                "the highest key"
            } else {
                "the highest key that SQLite ever gave out"
            };
            notes.push(format!("sequence {shown} goes on with {}, behind {why}", count(next.unsigned_abs())));
        }
    }
    Ok(notes)
}

fn name_of(plan: &Plan, key: &TargetForeignKey) -> QualifiedName {
    let table = plan.tables.iter().find(|table| table.target.oid == key.table);
    table.expect("a key that waits is between tables of the plan").target.name.clone()
}

fn in_schema(table: &QualifiedName, constraint: &Ident) -> QualifiedName {
    QualifiedName { schema: table.schema.clone(), name: constraint.clone() }
}

/// Runs a statement; `doing` is what for.
pub async fn run(session: &Session, doing: &str, sql: &str) -> Result<()> {
    session.batch_execute(sql).await.map_err(|source| {
        let error = Error::postgres(format!("could not {doing}"), source);
        match error.sqlstate() {
            Some("42501") if error.hint().is_none() => {
                error.with_hint("Run the import as the owner of the tables.")
            }
            _ => error,
        }
    })
}

/// Takes locks in short attempts.
///
/// # Errors
/// No attempt got them.
pub async fn lock(context: &Context, session: &Session, sql: &str) -> Result<()> {
    let wait = context.options.lock_wait;
    let waiting =
        Waiting { migrator: session, observer: &context.control, wait, progress: &context.progress };
    let savepoint = "\"safe-run: before the import\"";
    run(session, "set a savepoint", &format!("SAVEPOINT {savepoint}")).await?;
    until_locked(&waiting, &format!("ROLLBACK TO SAVEPOINT {savepoint}"), async || {
        let sql = format!("SET LOCAL lock_timeout = {}; {sql}", wait.timeout.as_millis());
        session
            .batch_execute(&sql)
            .await
            .map_err(|source| Failed::repeatable(Error::postgres("could not lock the tables", source)))
    })
    .await?;
    run(session, "release a savepoint", &format!("RELEASE SAVEPOINT {savepoint}")).await
}
