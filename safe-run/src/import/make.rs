//! Into an empty database: the schema is made from SQLite's own. Tables first, then the rows, then keys, indexes, checks, foreign
//! keys and views, each of which PostgreSQL checks as it makes them.

use std::collections::BTreeMap;

use common::{Error, Ident, Progress, QualifiedName, Result, format::plural, postgres::Session};
use sqlite::{
    ddl::{self, DdlOptions, Stage, Translation},
    file::Reader,
    rows::RowidRange,
    scan::{TableScan, scan},
    target::Target as TypeOf,
};

use super::{
    Source,
    load::ranges,
    options::ImportOptions,
    plan::{ColumnPlan, Plan, TablePlan, left_alone, unknown_names},
    readers::share_out,
    target::{Target, TargetColumn, TargetTable, TargetType},
    tell,
};

/// A schema that can be made, and what goes where.
#[derive(Debug)]
pub struct Made {
    /// The statements, and what has no translation.
    pub translation: Translation,
    /// The plan, with tables that are not there yet.
    pub plan: Plan,
}

/// Makes the schema. Reads every row of the file once: the types go by what is there.
///
/// # Errors
/// The file can't be read.
pub fn translate(source: &Source, options: &ImportOptions, into: &str) -> Result<Made> {
    check_flags(source, options)?;
    let scans = scan_all(source)?;
    // What is left alone has no place in the schema either.
    let (mut schema, mut kept, mut plan) = (source.schema.clone(), Vec::new(), Plan::default());
    let mut places = Vec::new();
    schema.tables.clear();
    for (place, table) in source.schema.tables.iter().enumerate() {
        match left_alone(table, options) {
            Some(why) => plan.left_alone.push((table.name.clone(), why)),
            None => {
                schema.tables.push(table.clone());
                kept.push(scans[place].clone());
                places.push(place);
            }
        }
    }
    plan.left_alone.extend(schema.left_out.iter().map(|left| (left.name.clone(), left.reason.clone())));
    let translation = ddl::translate(&schema, &kept, &ddl_options(options, into));
    plan.notes.extend(translation.notes.iter().cloned());
    for table in &translation.tables {
        let source_table = &schema.tables[table.source];
        let columns = table.columns.iter().map(|column| ColumnPlan {
            source: column.source,
            source_name: source_table.columns[column.source].name.clone(),
            target: TargetColumn {
                name: column.name.as_str().to_owned(),
                takes: TargetType { shown: column.rule.target.to_string(), ..TargetType::default() },
                not_null: source_table.columns[column.source].is_not_null,
                has_default: false,
                generated: false,
                sequence: None,
            },
            rule: column.rule.clone(),
        });
        plan.tables.push(TablePlan {
            source: places[table.source],
            source_name: source_table.name.clone(),
            columns: columns.collect(),
            target: TargetTable {
                oid: 0,
                name: QualifiedName::new(into, table.name.clone()),
                visible: true,
                owned: true,
                partitioned: false,
                columns: Vec::new(),
                triggers: Vec::new(),
            },
        });
    }
    Ok(Made { translation, plan })
}

/// What every table holds. Each reader takes a table, or a range of its rows, as long as there are any.
fn scan_all(source: &Source) -> Result<Vec<TableScan>> {
    let mut readers = source.readers();
    let found = scan_with(source, &mut readers);
    source.give_back(readers);
    found
}

fn scan_with(source: &Source, readers: &mut [Reader]) -> Result<Vec<TableScan>> {
    let tables = &source.schema.tables;
    let mut parts: Vec<(usize, Option<RowidRange>)> = Vec::new();
    for (place, table) in tables.iter().enumerate() {
        let ranges = ranges(readers, table)?;
        parts.extend(ranges.into_iter().map(|range| (place, range)));
    }
    let found = share_out(readers, parts, |reader, (place, range)| {
        Ok((place, scan(reader, &tables[place], range)?))
    })?;
    let mut scans = vec![TableScan::default(); tables.len()];
    for (place, scan) in found {
        scans[place].merge(&scan);
    }
    Ok(scans)
}

/// Flags that have no meaning here, or name what the file does not have.
fn check_flags(source: &Source, options: &ImportOptions) -> Result<()> {
    let meaningless = [
        ("--map", !options.maps.is_empty()),
        ("--skip-column", !options.skip_columns.is_empty()),
        ("--epoch without a column", options.meanings.epochs.iter().any(|(column, _)| column.is_none())),
    ];
    if let Some((flag, _)) = meaningless.iter().find(|(_, is_given)| *is_given) {
        return Err(Error::usage(format!(
            "{flag} has no meaning where the schema is made from the file's own"
        ))
        .with_hint(
            "`safe-run import FILE --schema-only -o schema.sql` writes the schema into a file: correct it, load it into the \
             database, and import the rows into that.",
        ));
    }
    for (name, wanted) in &options.types {
        if TypeOf::parse(&wanted.to_ascii_lowercase(), None).changes_values() {
            return Err(Error::usage(format!(
                "--type {name}: {} changes values without an error",
                common::ident::printable(wanted)
            ))
            .with_hint("Choose another type."));
        }
    }
    match unknown_names(&source.schema, options).as_slice() {
        [] => Ok(()),
        problems => Err(tell::undecided(problems)),
    }
}

fn ddl_options(options: &ImportOptions, into: &str) -> DdlOptions {
    let lower = |table: &str, column: &str| (table.to_ascii_lowercase(), column.to_ascii_lowercase());
    let types = options.types.iter().map(|(name, wanted)| (lower(&name.table, &name.column), wanted.clone()));
    let epochs = options.meanings.epochs.iter().filter_map(|(name, unit)| {
        let name = name.as_ref()?;
        Some((lower(&name.table, &name.column), *unit))
    });
    DdlOptions {
        schema: Ident::new(into),
        types: types.collect(),
        epochs: epochs.collect::<BTreeMap<_, _>>(),
        zone: options.meanings.timezone,
        null_empty_strings: options.meanings.null_empty_strings,
    }
}

impl Made {
    /// Makes the tables.
    pub async fn before_rows(&self, session: &Session) -> Result<()> {
        self.make(session, &[Stage::Tables]).await
    }

    /// Makes what comes after the rows.
    pub async fn after_rows(&self, session: &Session, progress: &Progress) -> Result<()> {
        progress.phase("making keys and indexes", None);
        let stages =
            [Stage::Keys, Stage::Indexes, Stage::Checks, Stage::ForeignKeys, Stage::Sequences, Stage::Views];
        let made = self.make(session, &stages).await;
        progress.done();
        made
    }

    async fn make(&self, session: &Session, stages: &[Stage]) -> Result<()> {
        for stage in stages {
            for statement in self.translation.of_stage(*stage) {
                session.batch_execute(&statement.sql).await.map_err(|source| {
                    let of = statement.table.as_deref().map_or(String::new(), |table| {
                        format!(" for SQLite's table {}", common::ident::printable(table))
                    });
                    let first = statement.sql.lines().next().unwrap_or_default();
                    Error::postgres(format!("could not run `{}`{of}", common::ident::printable(first)), source).with_hint(
                        "`safe-run import FILE --schema-only -o schema.sql` writes the schema into a file: correct it, load it into \
                         the database, and import the rows into that.",
                    )
                })?;
            }
        }
        Ok(())
    }

    /// The plan with the tables as they are there now.
    pub fn settle(&self, there: &Target) -> Result<Plan> {
        let mut plan = self.plan.clone();
        for table in &mut plan.tables {
            let name = table.target.name.short();
            let missing = |what: &str| Error::failed(format!("{what} of {name} was not made"));
            let found = there.tables.iter().find(|found| found.name == table.target.name);
            table.target = found.ok_or_else(|| missing("the table"))?.clone();
            for column in &mut table.columns {
                let found = table.target.columns.iter().find(|found| found.name == column.target.name);
                column.target = found.ok_or_else(|| missing("a column"))?.clone();
            }
        }
        Ok(plan)
    }

    /// The schema as one script, with what has no translation beside.
    pub fn script(&self, file: &str) -> String {
        let mut out = format!(
            "-- The schema of {file}, for PostgreSQL.\n-- Load it into an empty database, then run: safe-run import FILE\n"
        );
        out.push_str(&format!(
            "-- {} no translation: see the end.\n\n",
            plural(self.translation.untranslated.len() as u64, "part has", "parts have")
        ));
        let statements =
            self.translation.statements.iter().filter(|statement| statement.stage != Stage::Sequences);
        for statement in statements {
            out.push_str(&format!("{};\n\n", statement.sql));
        }
        for (name, why) in &self.plan.left_alone {
            out.push_str(&format!("-- table {} is left out: {}\n", commented(name), commented(why)));
        }
        for note in &self.translation.notes {
            out.push_str(&format!("-- note: {}\n", commented(note)));
        }
        for part in &self.translation.untranslated {
            out.push_str(&format!(
                "\n-- NOT TRANSLATED: {}\n-- why: {}\n-- SQLite: {}\n",
                commented(&part.what),
                commented(&part.reason),
                commented(&part.sql)
            ));
        }
        out
    }
}

/// Text within a comment of one line: its line breaks begin further ones.
fn commented(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(common::ident::printable).collect();
    lines.join("\n--   ")
}
