//! Which column takes which values, and what the columns without a partner get. Pure.

use std::collections::BTreeSet;

use common::ident::printable;
use sqlite::{
    partner,
    schema::{Column, Table},
    target::Target as TypeOf,
};

use super::{ColumnPlan, Problem};
use crate::import::{
    choices::{ColumnName, written},
    options::ImportOptions,
    target::{TargetColumn, TargetTable},
};

/// The partners of all columns of a table.
pub(super) fn plan(
    table: &Table,
    target: &TargetTable,
    options: &ImportOptions,
    notes: &mut Vec<String>,
) -> Result<Vec<ColumnPlan>, Vec<Problem>> {
    let pair = Pair { table, target, options };
    let (mut planned, mut problems): (Vec<ColumnPlan>, Vec<Problem>) = (Vec::new(), Vec::new());
    let mut taken: BTreeSet<&str> = BTreeSet::new();
    for (source, column) in table.columns.iter().enumerate() {
        let name = ColumnName { table: table.name.clone(), column: column.name.clone() };
        if options.skip_columns.iter().any(|skipped| skipped.is(&table.name, &column.name)) {
            notes.push(format!("column {name} is left out, as told by --skip-column"));
            continue;
        }
        let found = match pair.partner(&name) {
            Ok(found) => found,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        if !taken.insert(&found.name) {
            problems.push(pair.taken_twice(&name, found));
            continue;
        }
        match pair.column(source, column, &name, found) {
            Ok(Some(column)) => planned.push(column),
            Ok(None) => notes.push(format!("column {name} is computed by PostgreSQL, and not loaded")),
            Err(problem) => problems.push(problem),
        }
    }
    let is_left = |column: &&TargetColumn| !taken.contains(column.name.as_str()) && !column.generated;
    for column in target.columns.iter().filter(is_left) {
        match pair.without_partner(column) {
            Ok(note) => notes.push(note),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(planned) } else { Err(problems) }
}

/// A table of SQLite, and the one that takes its rows.
struct Pair<'a> {
    table: &'a Table,
    target: &'a TargetTable,
    options: &'a ImportOptions,
}

impl<'a> Pair<'a> {
    /// The column that takes the values of `name`.
    fn partner(&self, name: &ColumnName) -> Result<&'a TargetColumn, Problem> {
        let mapped = self.options.map_of_column(name);
        let wanted = mapped.unwrap_or(&name.column);
        let names = self.target.columns.iter().map(|column| column.name.as_str());
        let alike: Vec<&TargetColumn> =
            partner::candidates(wanted, names).into_iter().map(|place| &self.target.columns[place]).collect();
        if let Some(exact) = alike.iter().find(|column| column.name == wanted) {
            return Ok(exact);
        }
        match (alike.as_slice(), mapped) {
            ([only], None) => Ok(only),
            (_, Some(mapped)) => Err(Problem {
                what: format!(
                    "table {} has no column {}, which --map names for {name}",
                    self.target.name.short(),
                    written(mapped)
                ),
                way_out: format!("--map {name}=COLUMN"),
            }),
            ([], None) => Err(Problem {
                what: format!("column {name} has no partner in {}", self.target.name.short()),
                way_out: format!("--map {name}=COLUMN, or --skip-column {name} to leave its values out"),
            }),
            (several, None) => {
                let names: Vec<String> = several.iter().map(|column| written(&column.name)).collect();
                Err(Problem {
                    what: format!(
                        "column {name} could go into {} of {}",
                        names.join(" or "),
                        self.target.name.short()
                    ),
                    way_out: format!("--map {name}=COLUMN"),
                })
            }
        }
    }

    fn taken_twice(&self, name: &ColumnName, found: &TargetColumn) -> Problem {
        Problem {
            what: format!(
                "two columns of {} go into {}.{}",
                written(&self.table.name),
                self.target.name.short(),
                found.name
            ),
            way_out: format!("--map {name}=COLUMN, or --skip-column {name}"),
        }
    }

    /// How a column is taken over; `None` where PostgreSQL computes it as SQLite does.
    fn column(
        &self,
        source: usize,
        column: &Column,
        name: &ColumnName,
        found: &TargetColumn,
    ) -> Result<Option<ColumnPlan>, Problem> {
        let shown = || format!("{}.{}", self.target.name.short(), printable(&found.name));
        if found.generated && column.generated.is_none() {
            return Err(Problem {
                what: format!("column {name} holds values, and PostgreSQL computes {} itself", shown()),
                way_out: format!("--skip-column {name} to leave its values out"),
            });
        }
        if found.generated {
            return Ok(None);
        }
        let takes = TypeOf::parse(&found.takes.base, found.takes.labels.as_deref());
        if takes.changes_values() {
            return Err(Problem {
                what: format!(
                    "{} is of type {}, which changes values without an error",
                    shown(),
                    found.takes.shown
                ),
                way_out: format!(
                    "another type of the column in PostgreSQL, or --skip-column {name} to leave its values out"
                ),
            });
        }
        Ok(Some(ColumnPlan {
            source,
            source_name: column.name.clone(),
            target: found.clone(),
            rule: self.options.rule(name, takes, !found.not_null),
        }))
    }

    /// What every row gets in a column that takes no values, as a note.
    fn without_partner(&self, column: &TargetColumn) -> Result<String, Problem> {
        let shown = format!("{}.{}", self.target.name.short(), printable(&column.name));
        let table = written(&self.table.name);
        if column.not_null && !column.has_default {
            return Err(Problem {
                what: format!(
                    "column {shown} is NOT NULL, has no default, and has no partner in SQLite's {table}"
                ),
                way_out: format!(
                    "--map {table}.COLUMN={}, or give it a default in PostgreSQL",
                    written(&column.name)
                ),
            });
        }
        let by = if column.has_default { "its default" } else { "NULL" };
        Ok(format!("column {shown} has no partner in SQLite: every row gets {by}"))
    }
}
