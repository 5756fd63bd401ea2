//! What is made after the rows: keys, indexes, checks, foreign keys, sequences.

use common::ident::{Ident, literal, with_suffix};

use super::{
    DdlOptions, Stage, Statement, Translation, Untranslated,
    expression::{Scope, in_lower_case},
    tables::{Design, scan_of},
};
use crate::{
    orphans::{self, NoParent},
    schema::{ForeignKey, Index, IndexPart, Schema},
    target::Target,
};

fn add(design: &Design<'_>, stage: Stage, sql: String, made: &mut Translation) {
    made.statements.push(Statement { stage, table: Some(design.table.name.clone()), sql });
}

fn refuse(what: String, sql: &str, reason: impl Into<String>, made: &mut Translation) {
    made.untranslated.push(Untranslated { what, sql: sql.to_owned(), reason: reason.into() });
}

/// PRIMARY KEY and UNIQUE.
pub(super) fn keys(design: &Design<'_>, options: &DdlOptions, made: &mut Translation) {
    let (table, name) = (design.table, design.name(options));
    let json = "json has no equality: ask for another type of the column, such as jsonb";
    if design.has_json(&table.primary_key) {
        refuse(format!("primary key of {}", table.name), &table.sql, json, made);
    } else if !table.primary_key.is_empty() {
        let columns = design.column_list(&table.primary_key);
        // SQLite lets NULL into such a key, which PostgreSQL does not.
        let with_nulls = table.primary_key.iter().any(|at| scan_of(design.scan, *at).nulls > 0);
        let kind = if with_nulls { "UNIQUE" } else { "PRIMARY KEY" };
        if with_nulls {
            made.notes.push(format!("the primary key of {} holds NULL: it becomes UNIQUE", table.name));
        }
        add(design, Stage::Keys, format!("ALTER TABLE {name} ADD {kind} ({columns})"), made);
        let collations: Vec<Option<&str>> =
            table.primary_key.iter().map(|at| table.columns[*at].collation.as_deref()).collect();
        ignoring_case(design, &table.primary_key, &collations, options, made);
    }
    for unique in &table.uniques {
        if design.has_json(&unique.columns) {
            refuse(format!("UNIQUE of {}", table.name), &table.sql, json, made);
            continue;
        }
        let columns = design.column_list(&unique.columns);
        add(design, Stage::Keys, format!("ALTER TABLE {name} ADD UNIQUE ({columns})"), made);
        // Those of the constraint: it may name others than the columns.
        let collations: Vec<Option<&str>> = unique.collations.iter().map(Option::as_deref).collect();
        ignoring_case(design, &unique.columns, &collations, options, made);
    }
}

/// A key whose columns ignore case gets a second index that does.
fn ignoring_case(
    design: &Design<'_>,
    columns: &[usize],
    collations: &[Option<&str>],
    options: &DdlOptions,
    made: &mut Translation,
) {
    if collations.iter().all(Option::is_none) {
        return;
    }
    let parts: Result<Vec<String>, String> = columns
        .iter()
        .zip(collations)
        .map(|(at, collation)| {
            collated(&design.columns[*at].name.to_string(), &design.columns[*at].rule.target, *collation)
        })
        .collect();
    match parts {
        Ok(parts) => {
            let sql = format!("CREATE UNIQUE INDEX ON {} ({})", design.name(options), parts.join(", "));
            add(design, Stage::Indexes, sql, made);
        }
        Err(reason) => refuse(format!("collation of a key of {}", design.table.name), "", reason, made),
    }
}

/// A part of an index by its collation: NOCASE is `lower` in the collation "C", which knows ASCII letters alone.
fn collated(sql: &str, target: &Target, collation: Option<&str>) -> Result<String, String> {
    match collation {
        None => Ok(sql.to_owned()),
        Some(name) if name.eq_ignore_ascii_case("nocase") => match target {
            Target::Text | Target::Varchar(_) => Ok(in_lower_case(sql)),
            // Values without letters have no case.
            _ => Ok(sql.to_owned()),
        },
        Some(name) => Err(format!("PostgreSQL has no collation {}", common::ident::printable(name))),
    }
}

/// CREATE INDEX.
pub(super) fn indexes(design: &Design<'_>, options: &DdlOptions, made: &mut Translation) {
    for index in &design.table.indexes {
        match index_sql(design, index, options) {
            Ok(sql) => add(design, Stage::Indexes, sql, made),
            Err(reason) => {
                refuse(format!("index {} of {}", index.name, design.table.name), &index.sql, reason, made);
            }
        }
    }
}

fn index_sql(design: &Design<'_>, index: &Index, options: &DdlOptions) -> Result<String, String> {
    let known = design.known();
    let scope = Scope(&known);
    let part = |part: &IndexPart| -> Result<String, String> {
        let order = if part.is_descending { " DESC" } else { "" };
        let sql = match (part.column, &part.expression) {
            (Some(at), _) => {
                let designed = design.columns.get(at).ok_or("it names no column")?;
                if matches!(designed.rule.target, Target::Json) {
                    return Err("json has no order".to_owned());
                }
                collated(&designed.name.to_string(), &designed.rule.target, part.collation.as_deref())?
            }
            (None, Some(expression)) if part.collation.is_none() => format!("({})", scope.value(expression)?),
            _ => return Err("an expression with a collation".to_owned()),
        };
        // SQLite sorts NULL before everything, PostgreSQL behind: an index for the same ORDER BY.
        Ok(format!("{sql}{order}"))
    };
    let parts = index.parts.iter().map(part).collect::<Result<Vec<String>, String>>()?;
    let unique = if index.is_unique { "UNIQUE " } else { "" };
    let mut sql = format!(
        "CREATE {unique}INDEX {} ON {} ({})",
        Ident::new(with_suffix(&index.name, "")),
        design.name(options),
        parts.join(", ")
    );
    if let Some(predicate) = &index.predicate {
        sql.push_str(&format!(" WHERE {}", scope.condition(predicate)?));
    }
    Ok(sql)
}

/// CHECK.
pub(super) fn checks(design: &Design<'_>, options: &DdlOptions, made: &mut Translation) {
    let known = design.known();
    for check in &design.table.checks {
        match Scope(&known).condition(&check.expression) {
            Ok(condition) => {
                let name = design.constraint(check.name.as_ref());
                let sql = format!("ALTER TABLE {} ADD {name}CHECK ({condition})", design.name(options));
                add(design, Stage::Checks, sql, made);
            }
            Err(reason) => refuse(format!("CHECK of {}", design.table.name), &check.expression, reason, made),
        }
    }
}

/// FOREIGN KEY, with its actions.
pub(super) fn foreign_keys(
    design: &Design<'_>,
    designs: &[Design<'_>],
    schema: &Schema,
    options: &DdlOptions,
    made: &mut Translation,
) {
    for key in &design.table.foreign_keys {
        match foreign_key(design, key, designs, schema, options) {
            Ok(sql) => add(design, Stage::ForeignKeys, sql, made),
            Err(reason) => {
                let columns = design.column_list(&key.columns);
                let what = format!("foreign key of {} ({columns})", design.table.name);
                refuse(what, &format!("REFERENCES {}", key.parent), reason, made);
            }
        }
    }
}

fn foreign_key(
    design: &Design<'_>,
    key: &ForeignKey,
    designs: &[Design<'_>],
    schema: &Schema,
    options: &DdlOptions,
) -> Result<String, String> {
    let (parent, theirs) = orphans::parent(schema, key).map_err(|why| match why {
        NoParent::Table(name) => format!("there is no table {}", common::ident::printable(&name)),
        NoParent::Columns(why) => format!("of the table {}: {why}", common::ident::printable(&key.parent)),
    })?;
    let other =
        designs.iter().find(|other| other.table.name == parent.name).ok_or("there is no such table")?;
    let mut wanted = theirs.clone();
    wanted.sort_unstable();
    let is_same = |columns: &[usize]| {
        let mut columns = columns.to_vec();
        columns.sort_unstable();
        columns == wanted
    };
    let by_index = |index: &Index| {
        let columns: Option<Vec<usize>> = index.parts.iter().map(|part| part.column).collect();
        let is_plain = index.parts.iter().all(|part| part.collation.is_none()) && index.predicate.is_none();
        index.is_unique && is_plain && columns.is_some_and(|columns| is_same(&columns))
    };
    let is_unique = is_same(&parent.primary_key)
        || parent.uniques.iter().any(|unique| is_same(&unique.columns))
        || parent.indexes.iter().any(by_index);
    if !is_unique {
        return Err("the columns that it leads to are not unique".to_owned());
    }
    for (ours, theirs) in key.columns.iter().zip(&theirs) {
        let (mine, target) = (&design.columns[*ours].rule.target, &other.columns[*theirs].rule.target);
        let is_text = |target: &Target| matches!(target, Target::Text | Target::Varchar(_));
        if mine != target && !(is_text(mine) && is_text(target)) {
            return Err(format!("it leads from {mine} to {target}"));
        }
    }
    let actions = [("UPDATE", &key.on_update), ("DELETE", &key.on_delete)]
        .iter()
        .filter(|(_, action)| !action.eq_ignore_ascii_case("no action"))
        .map(|(event, action)| format!(" ON {event} {action}"))
        .collect::<String>();
    let deferred = if key.is_deferred { " DEFERRABLE INITIALLY DEFERRED" } else { "" };
    Ok(format!(
        "ALTER TABLE {} ADD {}FOREIGN KEY ({}) REFERENCES {} ({}){actions}{deferred}",
        design.name(options),
        design.constraint(key.name.as_ref()),
        design.column_list(&key.columns),
        other.name(options),
        other.column_list(&theirs)
    ))
}

/// The next key of an identity: behind the highest one, and behind the counter of AUTOINCREMENT.
pub(super) fn sequence(design: &Design<'_>, options: &DdlOptions, made: &mut Translation) {
    let Some(column) = design.table.rowid_column else { return };
    let highest = scan_of(design.scan, column).integer_range.map_or(0, |(_, high)| high);
    let last = highest.max(design.table.autoincrement.unwrap_or(0));
    if last < 1 {
        return;
    }
    let sequence = format!(
        "pg_get_serial_sequence({}, {})",
        literal(&design.name(options).to_string()),
        literal(design.columns[column].name.as_str())
    );
    add(design, Stage::Sequences, format!("SELECT setval({sequence}, {last})"), made);
}
