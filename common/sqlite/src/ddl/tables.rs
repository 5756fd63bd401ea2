//! Tables and their columns.

use std::{cell::RefCell, collections::HashSet};

use common::ident::{Ident, QualifiedName, with_suffix};

use super::{
    ColumnPlan, DdlOptions, Stage, Statement, TablePlan, Translation, Untranslated, defaults,
    expression::Scope,
    kind::{Kind, Known},
    names::Names,
    types::{self, Chosen},
};
use crate::{
    orphans,
    scan::{ColumnScan, TableScan},
    schema::{Column, Schema, Table},
    target::{ColumnRule, Target},
};

/// Everything that is decided about one table.
pub(super) struct Design<'a> {
    pub table: &'a Table,
    pub scan: &'a TableScan,
    pub plan: TablePlan,
    /// Of every column, generated ones too.
    pub columns: Vec<Designed>,
    /// Names of constraints that were given: SQLite lets several have one.
    constraints: RefCell<HashSet<String>>,
}

/// What is decided about one column.
pub(super) struct Designed {
    pub name: Ident,
    pub rule: ColumnRule,
    pub type_sql: String,
    pub reason: String,
    /// The expression of a column that PostgreSQL computes.
    pub generated: Option<String>,
}

impl Design<'_> {
    /// `CONSTRAINT "name" `, or nothing where there is no name, or another constraint of the table has it already.
    pub fn constraint(&self, name: Option<&String>) -> String {
        match name {
            Some(name) if !name.is_empty() && self.constraints.borrow_mut().insert(with_suffix(name, "")) => {
                format!("CONSTRAINT {} ", Ident::new(with_suffix(name, "")))
            }
            _ => String::new(),
        }
    }

    /// Whether values of these columns can be compared at all: json has no equality.
    pub fn has_json(&self, columns: &[usize]) -> bool {
        columns.iter().any(|at| self.columns[*at].rule.target == Target::Json)
    }

    pub fn name(&self, options: &DdlOptions) -> QualifiedName {
        QualifiedName { schema: options.schema.clone(), name: self.plan.name.clone() }
    }

    pub fn known(&self) -> Vec<Known> {
        let pairs = self.columns.iter().zip(&self.table.columns);
        pairs
            .map(|(designed, column)| Known {
                name: column.name.clone(),
                sql: designed.name.to_string(),
                table: self.table.name.clone(),
                kind: Kind::of(&designed.rule.target),
                has_collation: column.collation.is_some(),
            })
            .collect()
    }

    pub fn column_list(&self, columns: &[usize]) -> String {
        let names: Vec<String> = columns.iter().map(|at| self.columns[*at].name.to_string()).collect();
        names.join(", ")
    }
}

static NO_SCAN: TableScan = TableScan { rows: 0, columns: Vec::new() };

pub(super) fn scan_of(scan: &TableScan, column: usize) -> ColumnScan {
    scan.columns.get(column).cloned().unwrap_or_default()
}

/// Decides names and types.
pub(super) fn design<'a>(
    schema: &'a Schema,
    scans: &'a [TableScan],
    options: &DdlOptions,
    made: &mut Translation,
) -> Vec<Design<'a>> {
    let mut names = Names::default();
    let mut designs: Vec<Design<'a>> = Vec::new();
    for (source, table) in schema.tables.iter().enumerate() {
        let (name, is_changed) = names.take(&table.name);
        if is_changed {
            made.notes.push(format!("table {} is called {}", table.name, name.as_str()));
        }
        let scan = scans.get(source).unwrap_or(&NO_SCAN);
        let mut column_names = Names::of_columns();
        let columns = (0..table.columns.len())
            .map(|at| designed(table, at, scan, options, &mut column_names, made))
            .collect();
        designs.push(Design {
            table,
            scan,
            plan: TablePlan { source, name, columns: Vec::new() },
            columns,
            constraints: RefCell::default(),
        });
    }
    // A foreign key of a foreign key of one: types travel along it.
    for _ in 0..3 {
        follow_parents(schema, &mut designs, options);
    }
    for design in &mut designs {
        generated(design, made);
        let loaded = design.columns.iter().enumerate().filter(|(_, column)| column.generated.is_none());
        design.plan.columns = loaded
            .map(|(source, column)| ColumnPlan {
                source,
                name: column.name.clone(),
                rule: column.rule.clone(),
                reason: column.reason.clone(),
            })
            .collect();
    }
    designs
}

/// What the column holds once empty texts are NULL, if they shall be.
fn held(scan: &TableScan, column: usize, empty_is_null: bool) -> ColumnScan {
    let mut scan = scan_of(scan, column);
    if empty_is_null {
        scan.nulls += scan.empty_texts;
        scan.texts -= scan.empty_texts;
        scan.empty_texts = 0;
    }
    scan
}

fn key_of(table: &Table, column: &Column) -> (String, String) {
    (table.name.to_ascii_lowercase(), column.name.to_ascii_lowercase())
}

fn designed(
    table: &Table,
    at: usize,
    scan: &TableScan,
    options: &DdlOptions,
    names: &mut Names,
    made: &mut Translation,
) -> Designed {
    let column = &table.columns[at];
    let (name, is_changed) = names.take(&column.name);
    if is_changed {
        made.notes.push(format!("column {}.{} is called {}", table.name, column.name, name.as_str()));
    }
    let key = key_of(table, column);
    let Chosen { target, epoch, reason, is_surprising } = types::choose(
        column,
        &held(scan, at, options.null_empty_strings && !column.is_not_null),
        table.rowid_column == Some(at),
    );
    let (type_sql, target, reason) = match options.types.get(&key) {
        Some(asked) => {
            (asked.clone(), Target::parse(&asked.to_ascii_lowercase(), None), "asked for".to_owned())
        }
        None => {
            if is_surprising {
                made.notes.push(format!("column {}.{} becomes {target}: {reason}", table.name, column.name));
            }
            (target.to_string(), target, reason)
        }
    };
    let rule = ColumnRule {
        epoch: options.epochs.get(&key).copied().or(epoch).or(ColumnRule::new(target.clone()).epoch),
        empty_is_null: options.null_empty_strings && !column.is_not_null,
        zone: options.zone,
        target,
    };
    Designed { name, rule, type_sql, reason, generated: None }
}

/// A column takes the type of the one that its foreign key leads to, where everything in it fits: the key could not be made otherwise.
fn follow_parents(schema: &Schema, designs: &mut [Design<'_>], options: &DdlOptions) {
    let mut changes: Vec<(usize, usize, Target)> = Vec::new();
    for (at, design) in designs.iter().enumerate() {
        for key in &design.table.foreign_keys {
            let Ok((parent, theirs)) = orphans::parent(schema, key) else { continue };
            let Some(parent) = designs.iter().find(|other| other.table.name == parent.name) else { continue };
            for (ours, theirs) in key.columns.iter().zip(theirs) {
                let (mine, wanted) =
                    (&design.columns[*ours].rule.target, &parent.columns[theirs].rule.target);
                let is_asked =
                    options.types.contains_key(&key_of(design.table, &design.table.columns[*ours]));
                if mine != wanted && !is_asked && types::fits(&scan_of(design.scan, *ours), wanted) {
                    changes.push((at, *ours, wanted.clone()));
                }
            }
        }
    }
    for (table, column, target) in changes {
        let designed = &mut designs[table].columns[column];
        designed.type_sql = target.to_string();
        designed.rule.target = target;
        designed.reason.push_str(", as the column that its foreign key leads to");
    }
}

/// Generated columns that PostgreSQL can compute the same way; the others are loaded as they are.
fn generated(design: &mut Design<'_>, made: &mut Translation) {
    let known = design.known();
    for (at, column) in design.table.columns.iter().enumerate() {
        let Some(generated) = &column.generated else { continue };
        // PostgreSQL computes none from another.
        let plain: Vec<Known> = known
            .iter()
            .zip(&design.table.columns)
            .filter(|(_, column)| column.generated.is_none())
            .map(|(known, _)| known.clone())
            .collect();
        match Scope(&plain).generated(&generated.expression, &design.columns[at].rule.target) {
            Ok(sql) => design.columns[at].generated = Some(sql),
            Err(reason) => made.untranslated.push(Untranslated {
                what: format!(
                    "generated column {}.{}, which becomes a plain one",
                    design.table.name, column.name
                ),
                sql: generated.expression.clone(),
                reason,
            }),
        }
    }
}

/// CREATE TABLE.
pub(super) fn create(design: &Design<'_>, options: &DdlOptions, made: &mut Translation) {
    let table = design.table;
    let mut lines = Vec::new();
    for (at, (column, designed)) in table.columns.iter().zip(&design.columns).enumerate() {
        let mut line = format!("{} {}", designed.name, designed.type_sql);
        if let Some(expression) = &designed.generated {
            line.push_str(&format!(" GENERATED ALWAYS AS ({expression}) STORED"));
        } else if table.rowid_column == Some(at) {
            line.push_str(" GENERATED BY DEFAULT AS IDENTITY");
        } else if let Some(default) = &column.default {
            match defaults::translate(default, &designed.rule) {
                Ok(Some(sql)) => line.push_str(&format!(" DEFAULT {sql}")),
                Ok(None) => {}
                Err(reason) => made.untranslated.push(Untranslated {
                    what: format!("DEFAULT of {}.{}", table.name, column.name),
                    sql: default.clone(),
                    reason,
                }),
            }
        }
        if column.is_not_null {
            line.push_str(" NOT NULL");
        }
        lines.push(line);
    }
    if let Some(why) = &table.unparsed {
        made.untranslated.push(Untranslated {
            what: format!("CHECKs and names of constraints of {}", table.name),
            sql: table.sql.clone(),
            reason: format!("the statement could not be parsed: {why}"),
        });
    }
    let sql = format!("CREATE TABLE {} (\n    {}\n)", design.name(options), lines.join(",\n    "));
    made.statements.push(Statement { stage: Stage::Tables, table: Some(table.name.clone()), sql });
}
