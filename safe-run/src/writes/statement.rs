//! One change as SQL for the database as it was in the snapshot. Pure. A statement changes exactly one row or fails; what
//! can't be written so is said, and never guessed.

use std::collections::BTreeSet;

use common::{Ident, QualifiedName, ident::literal};

use super::{
    decoding::{Field, Row, Value},
    known::{Identity, KnownColumn, KnownTable},
};

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// A statement, without its semicolon.
    Sql(String),
    /// Nothing has to be done.
    Nothing,
    /// It can't be written; why.
    Impossible(String),
}

/// What the statements leave out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Columns that the snapshot's tables do not have.
    pub columns: BTreeSet<String>,
    /// Columns that rows lack, and that get their defaults.
    pub defaults: BTreeSet<String>,
}

/// Writes one change of a row. `what` names the transaction in the error of a statement that does not find its row.
pub fn write(table: &KnownTable, row: &Row, what: &str, left_out: &mut LeftOut) -> Written {
    let written = match row {
        Row::Insert(fields) => insert(table, fields, left_out),
        Row::Update { old, new } => update(table, old.as_deref(), new, what, left_out),
        Row::Delete(old) => delete(table, old, what, left_out),
    };
    written.unwrap_or_else(Written::Impossible)
}

/// TRUNCATE of tables that the snapshot has. A partitioned table is emptied with its partitions, which are named as well.
pub fn truncate(tables: &[&KnownTable]) -> Option<String> {
    let names: Vec<String> = tables
        .iter()
        .map(|table| if table.kind == "p" { table.name.to_string() } else { format!("ONLY {}", table.name) })
        .collect();
    (!names.is_empty()).then(|| format!("TRUNCATE TABLE {}", names.join(", ")))
}

fn label(table: &KnownTable, name: &str) -> String {
    let column = QualifiedName::new("public", name).short();
    format!("{}.{column}", table.name.short())
}

/// The columns of a new row that the table has. A column that is new and one that is gone may be the same one, renamed.
fn fitting<'f, 't>(
    table: &'t KnownTable,
    fields: &'f [Field],
    left_out: &mut LeftOut,
) -> Result<Vec<(&'t KnownColumn, &'f Value)>, String> {
    let unknown: Vec<&Field> = fields.iter().filter(|field| table.column(&field.name).is_none()).collect();
    let lacking: Vec<&KnownColumn> = table
        .columns
        .iter()
        .filter(|column| !column.is_generated)
        .filter(|column| !fields.iter().any(|field| field.name == column.name.as_str()))
        .collect();
    if let (Some(new), Some(gone)) = (unknown.first(), lacking.first()) {
        return Err(format!(
            "the row has a column {} that the snapshot has not, and lacks {}: it may have been renamed",
            label(table, &new.name),
            label(table, gone.name.as_str())
        ));
    }
    left_out.columns.extend(unknown.iter().map(|field| label(table, &field.name)));
    left_out.defaults.extend(lacking.iter().map(|column| label(table, column.name.as_str())));
    Ok(fields
        .iter()
        .filter_map(|field| Some((table.column(&field.name)?, &field.value)))
        .filter(|(column, _)| !column.is_generated)
        .collect())
}

fn value(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some("NULL".to_owned()),
        Value::Text(text) => Some(literal(text).trim_start().to_owned()),
        Value::Unchanged => None,
    }
}

fn insert(table: &KnownTable, fields: &[Field], left_out: &mut LeftOut) -> Result<Written, String> {
    let mut columns = Vec::new();
    let mut values = Vec::new();
    let mut overriding = "";
    for (column, found) in fitting(table, fields, left_out)? {
        let found = value(found).ok_or_else(|| {
            format!("the value of {} is not in the log", label(table, column.name.as_str()))
        })?;
        if column.is_always_identity {
            overriding = " OVERRIDING SYSTEM VALUE";
        }
        columns.push(column.name.to_string());
        values.push(found);
    }
    Ok(Written::Sql(if columns.is_empty() {
        format!("INSERT INTO {} DEFAULT VALUES", table.name)
    } else {
        format!(
            "INSERT INTO {} ({}){overriding} VALUES ({})",
            table.name,
            columns.join(", "),
            values.join(", ")
        )
    }))
}

fn update(
    table: &KnownTable,
    old: Option<&[Field]>,
    new: &[Field],
    what: &str,
    left_out: &mut LeftOut,
) -> Result<Written, String> {
    let row = match old {
        Some(old) => condition(table, old, left_out)?,
        None => {
            let key: Vec<Field> = table
                .key()
                .filter_map(|column| new.iter().find(|field| field.name == column.name.as_str()))
                .cloned()
                .collect();
            if key.len() != table.key().count() {
                return Err("what its row is found by is not in the log".to_owned());
            }
            condition(table, &key, left_out)?
        }
    };
    let mut set = Vec::new();
    for (column, found) in fitting(table, new, left_out)? {
        let Some(text) = value(found) else { continue };
        if column.is_always_identity {
            // PostgreSQL takes no value for it; it is the same as before, or else it was made anew.
            let before = old.and_then(|old| old.iter().find(|field| field.name == column.name.as_str()));
            if before.is_some_and(|before| before.value != *found) {
                return Err(format!(
                    "{} is GENERATED ALWAYS and got another value",
                    label(table, column.name.as_str())
                ));
            }
            continue;
        }
        set.push(format!("{} = {text}", column.name));
    }
    if set.is_empty() {
        return Ok(Written::Nothing);
    }
    let statement = format!("UPDATE ONLY {} SET {} WHERE {row} RETURNING 1", table.name, set.join(", "));
    Ok(Written::Sql(exactly_one(&statement, &format!("{what}, UPDATE of {}", table.name.short()))))
}

fn delete(table: &KnownTable, old: &[Field], what: &str, left_out: &mut LeftOut) -> Result<Written, String> {
    let row = condition(table, old, left_out)?;
    let statement = format!("DELETE FROM ONLY {} WHERE {row} RETURNING 1", table.name);
    Ok(Written::Sql(exactly_one(&statement, &format!("{what}, DELETE of {}", table.name.short()))))
}

/// What one row is found by.
fn condition(table: &KnownTable, old: &[Field], left_out: &mut LeftOut) -> Result<String, String> {
    if old.is_empty() {
        return Err(
            "the table has no primary key and no replica identity, so its row can't be found".to_owned()
        );
    }
    let is_full = table.identity == Identity::Full;
    let mut parts = Vec::new();
    let mut is_unique = true;
    for field in old {
        let Some(column) = table.column(&field.name) else {
            if is_full {
                left_out.columns.insert(label(table, &field.name));
                continue;
            }
            return Err(format!(
                "its row is found by {}, which the snapshot has not",
                label(table, &field.name)
            ));
        };
        if column.is_generated {
            continue;
        }
        let name = &column.name;
        parts.push(match (&field.value, &column.equals) {
            (Value::Null, _) => format!("{name} IS NULL"),
            (Value::Unchanged, _) => {
                return Err(format!("the value of {} is not in the log", label(table, name.as_str())));
            }
            (Value::Text(text), Some(equals)) if column.is_key && !is_full => {
                format!("{name} {equals} {}", literal(text).trim_start())
            }
            (Value::Text(text), _) => {
                is_unique &= column.is_key && !is_full;
                // format() gives what the type's output function gives, which is what the log's reader has printed; some
                // types have no equality, and some take for equal what is not the same.
                format!(
                    "({name} IS NOT NULL AND pg_catalog.format('%s', {name}) COLLATE pg_catalog.\"C\" OPERATOR(pg_catalog.=) {})",
                    literal(text).trim_start()
                )
            }
        });
    }
    if is_full {
        // The whole row, from which nulls are left out.
        let absent = table
            .columns
            .iter()
            .filter(|column| !column.is_generated)
            .filter(|column| !old.iter().any(|field| field.name == column.name.as_str()));
        parts.extend(absent.map(|column| format!("{} IS NULL", column.name)));
        is_unique = false;
    }
    let all = parts.join(" AND ");
    Ok(if is_unique {
        all
    } else {
        // There may be several such rows, of which one was meant, whichever.
        format!("ctid = (SELECT ctid FROM ONLY {} WHERE {all} LIMIT 1)", table.name)
    })
}

/// The cast fails with the whole text in its message: the plainest way in SQL alone to stop with words of one's own.
fn exactly_one(statement: &str, what: &str) -> String {
    let changed = Ident::new("changed");
    format!(
        "WITH {changed} AS ({statement}) SELECT CASE WHEN pg_catalog.count(*) OPERATOR(pg_catalog.=) 1 THEN 1 ELSE pg_catalog.concat({}, pg_catalog.count(*))::int END FROM {changed}",
        literal(&format!("safe-run: {what}: rows that it found instead of 1: ")).trim_start()
    )
}

/// A statement that always fails with these words.
pub fn refusal(text: &str) -> String {
    format!("SELECT {}::int", literal(text).trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str) -> KnownColumn {
        KnownColumn {
            name: Ident::new(name),
            is_generated: false,
            is_always_identity: false,
            is_key: false,
            equals: None,
        }
    }

    fn key(name: &str) -> KnownColumn {
        KnownColumn { is_key: true, equals: Some("OPERATOR(\"pg_catalog\".=)".to_owned()), ..column(name) }
    }

    fn table(columns: Vec<KnownColumn>) -> KnownTable {
        KnownTable {
            name: QualifiedName::new("public", "t"),
            kind: "r".to_owned(),
            is_unlogged: false,
            is_history: false,
            identity: Identity::Key,
            columns,
        }
    }

    fn text(name: &str, value: &str) -> Field {
        Field { name: name.to_owned(), value: Value::Text(value.to_owned()) }
    }

    fn sql(table: &KnownTable, row: &Row) -> String {
        let mut left_out = LeftOut::default();
        match write(table, row, "transaction 7", &mut left_out) {
            Written::Sql(sql) if left_out == LeftOut::default() => sql,
            other => panic!("{other:?} {left_out:?}"),
        }
    }

    fn impossible(table: &KnownTable, row: &Row) -> String {
        match write(table, row, "transaction 7", &mut LeftOut::default()) {
            Written::Impossible(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn rows_are_written_with_every_value_as_text() {
        let identity = KnownColumn { is_always_identity: true, ..key("id") };
        let generated = KnownColumn { is_generated: true, ..column("sum") };
        let table = table(vec![identity, column("a\"b"), generated]);
        let row = vec![text("id", "1"), text("a\"b", "it's \\"), text("sum", "3")];
        assert_eq!(
            sql(&table, &Row::Insert(row.clone())),
            "INSERT INTO \"public\".\"t\" (\"id\", \"a\"\"b\") OVERRIDING SYSTEM VALUE VALUES ('1', E'it''s \\\\')"
        );
        assert_eq!(
            sql(&table, &Row::Update { old: None, new: row.clone() }),
            "WITH \"changed\" AS (UPDATE ONLY \"public\".\"t\" SET \"a\"\"b\" = E'it''s \\\\' WHERE \"id\" \
             OPERATOR(\"pg_catalog\".=) '1' RETURNING 1) SELECT CASE WHEN pg_catalog.count(*) OPERATOR(pg_catalog.=) 1 THEN 1 ELSE pg_catalog.concat('safe-run: \
             transaction 7, UPDATE of t: rows that it found instead of 1: ', pg_catalog.count(*))::int END FROM \"changed\""
        );
        let moved = Row::Update { old: Some(vec![text("id", "0")]), new: row };
        assert!(impossible(&table, &moved).contains("GENERATED ALWAYS"));
    }

    #[test]
    fn a_large_value_that_stayed_is_not_written() {
        let table = table(vec![key("id"), column("big"), column("n")]);
        let unchanged = Field { name: "big".to_owned(), value: Value::Unchanged };
        let row = |n: Field| Row::Update { old: None, new: vec![text("id", "1"), unchanged.clone(), n] };
        assert!(sql(&table, &row(text("n", "2"))).contains("SET \"id\" = '1', \"n\" = '2' WHERE"));
        assert!(
            impossible(&table, &Row::Insert(vec![text("id", "1"), unchanged.clone(), text("n", "2")]))
                .contains("not in the log")
        );
    }

    #[test]
    fn a_row_without_a_key_is_found_by_all_of_it_or_not_at_all() {
        let plain = table(vec![column("a"), column("b")]);
        assert!(impossible(&plain, &Row::Delete(Vec::new())).contains("no replica identity"));
        let new = vec![text("a", "1"), text("b", "2")];
        assert!(impossible(&plain, &Row::Update { old: None, new }).contains("can't be found"));
        let full = KnownTable { identity: Identity::Full, ..plain };
        let found = sql(&full, &Row::Delete(vec![text("a", "x")]));
        let wanted = "ctid = (SELECT ctid FROM ONLY \"public\".\"t\" WHERE (\"a\" IS NOT NULL AND pg_catalog.format('%s', \
                      \"a\") COLLATE pg_catalog.\"C\" OPERATOR(pg_catalog.=) 'x') AND \"b\" IS NULL LIMIT 1)";
        assert!(found.contains(wanted), "{found}");
    }

    #[test]
    fn columns_that_came_or_went_are_said_and_a_renamed_one_is_never_lost() {
        let table = table(vec![key("id"), column("b")]);
        let mut left_out = LeftOut::default();
        let row = Row::Insert(vec![text("id", "1"), text("b", "2"), text("new", "3")]);
        let Written::Sql(written) = write(&table, &row, "", &mut left_out) else { panic!() };
        assert!(!written.contains("new"), "{written}");
        let row = Row::Insert(vec![text("id", "1")]);
        assert!(matches!(write(&table, &row, "", &mut left_out), Written::Sql(_)));
        assert_eq!(left_out.columns.into_iter().collect::<Vec<_>>(), ["t.new"]);
        assert_eq!(left_out.defaults.into_iter().collect::<Vec<_>>(), ["t.b"]);
        let row = Row::Insert(vec![text("id", "1"), text("c", "2")]);
        assert!(impossible(&table, &row).contains("renamed"));
        assert!(
            impossible(&table, &Row::Delete(vec![text("c", "2")])).contains("which the snapshot has not")
        );
    }

    #[test]
    fn an_update_that_can_change_nothing_is_left_out() {
        let identity = KnownColumn { is_always_identity: true, ..key("id") };
        let row = Row::Update { old: None, new: vec![text("id", "1")] };
        assert_eq!(write(&table(vec![identity]), &row, "", &mut LeftOut::default()), Written::Nothing);
    }

    #[test]
    fn truncate_names_what_the_snapshot_has() {
        let parent = KnownTable { kind: "p".to_owned(), ..table(vec![]) };
        let leaf = KnownTable { name: QualifiedName::new("public", "leaf"), ..table(vec![]) };
        assert_eq!(
            truncate(&[&parent, &leaf]).unwrap(),
            "TRUNCATE TABLE \"public\".\"t\", ONLY \"public\".\"leaf\""
        );
        assert_eq!(truncate(&[]), None);
    }
}
