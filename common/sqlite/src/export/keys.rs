//! Keys, checks, indexes and sequences of the designed tables.

use std::collections::HashSet;

use common::{QualifiedName, ident::printable, snapshot::Manifest};

use super::{
    ExportPlan, Untranslated,
    design::{CheckDesign, TableDesign},
    expression::Scope,
    names::{self, Names},
    structure::{Constraint, ForeignKey, Index, Name, Rule, Structure, Table},
    types::Form,
};
use crate::sql::quoted;

/// Adds them to the plan.
pub(super) fn add(manifest: &Manifest, structure: &Structure, taken: &mut Names, made: &mut ExportPlan) {
    let mut tables = std::mem::take(&mut made.tables);
    let mut used: HashSet<Name> = HashSet::new();
    for design in &mut tables {
        for constraint in constraints_of(design, structure) {
            add_rule(&constraint, design, structure, made);
        }
        rowid(design, manifest, structure, &mut used, made);
    }
    add_indexes(&tables, structure, taken, made);
    for at in 0..tables.len() {
        for constraint in constraints_of(&tables[at], structure) {
            let Rule::ForeignKey(key) = &constraint.rule else { continue };
            match foreign_key(&constraint, key, &tables[at], &tables, made) {
                Ok(sql) => {
                    tables[at].foreign_keys.push(sql);
                    lost(&constraint, &tables[at], made);
                }
                Err(reason) => refuse(&constraint, &tables[at], &reason, made),
            }
        }
    }
    of_partitions(&tables, structure, made);
    made.tables = tables;
    sequences(manifest, structure, &used, made);
}

fn definition<'a>(design: &TableDesign, structure: &'a Structure) -> Option<&'a Table> {
    let name = (design.source.schema.as_str(), design.source.name.as_str());
    structure.tables.values().find(|table| (table.name.0.as_str(), table.name.1.as_str()) == name)
}

/// A table's own constraints, and the CHECKs that it inherits.
fn constraints_of(design: &TableDesign, structure: &Structure) -> Vec<Constraint> {
    let Some(table) = definition(design, structure) else { return Vec::new() };
    let mut found = table.constraints.clone();
    let mut parents: Vec<&Name> = table.parents.iter().collect();
    let mut seen: HashSet<&Name> = HashSet::new();
    while let Some(parent) = parents.pop() {
        if !seen.insert(parent) {
            continue;
        }
        if let Some(table) = structure.tables.values().find(|table| table.name == *parent) {
            let checks = table.constraints.iter().filter(|constraint| {
                matches!(constraint.rule, Rule::Check { .. }) && !constraint.sql.ends_with("NO INHERIT")
            });
            found.extend(checks.cloned());
            parents.extend(&table.parents);
        }
    }
    found
}

fn refuse(constraint: &Constraint, design: &TableDesign, reason: &str, made: &mut ExportPlan) {
    made.untranslated.push(Untranslated {
        what: format!("constraint {} of {}", printable(&constraint.name), design.source.short()),
        sql: constraint.sql.clone(),
        reason: reason.to_owned(),
    });
}

fn lost(constraint: &Constraint, design: &TableDesign, made: &mut ExportPlan) {
    for what in &constraint.lost {
        made.notes.push(format!(
            "constraint {} of {}: {what}",
            printable(&constraint.name),
            design.source.short()
        ));
    }
}

/// The numbers of columns by their names in PostgreSQL.
fn numbers(design: &TableDesign, columns: &[String]) -> Result<Vec<usize>, String> {
    let number = |column: &String| {
        design.column(column).ok_or_else(|| format!("its column {} is not exported", printable(column)))
    };
    columns.iter().map(number).collect()
}

fn add_rule(constraint: &Constraint, design: &mut TableDesign, structure: &Structure, made: &mut ExportPlan) {
    let added = match &constraint.rule {
        Rule::PrimaryKey(columns) => numbers(design, columns).map(|columns| {
            columns.iter().for_each(|at| design.columns[*at].is_not_null = true);
            design.primary_key = columns;
        }),
        Rule::Unique(columns) => numbers(design, columns).map(|columns| design.uniques.push(columns)),
        Rule::Check { expression, is_valid } => {
            let known = design.known();
            let scope =
                Scope { columns: &known, types: &structure.types, is_lenient: false, is_checked: *is_valid };
            scope.condition(expression).map(|condition| {
                design.checks.push(CheckDesign {
                    name: constraint.name.clone(),
                    condition,
                    sql: constraint.sql.clone(),
                    is_valid: *is_valid,
                });
            })
        }
        Rule::Untranslatable(reason) => Err((*reason).to_owned()),
        // When all keys are known that it may lead to.
        Rule::ForeignKey(_) => return,
    };
    match added {
        Ok(()) => lost(constraint, design, made),
        Err(reason) => refuse(constraint, design, &reason, made),
    }
}

/// INTEGER PRIMARY KEY, and the sequence behind it.
fn rowid(
    design: &mut TableDesign,
    manifest: &Manifest,
    structure: &Structure,
    used: &mut HashSet<Name>,
    made: &mut ExportPlan,
) {
    let [at] = *design.primary_key.as_slice() else { return };
    let column = &design.columns[at];
    if column.stored.form != Form::Integer || column.generated.is_some() {
        return;
    }
    let owned = structure.owned.iter().find(|(table, name, _)| {
        (table.0.as_str(), table.1.as_str()) == (design.source.schema.as_str(), design.source.name.as_str())
            && *name == column.source
    });
    if owned.is_none() && column.default.is_some() {
        // SQLite ignores the default of such a column.
        return;
    }
    design.rowid = Some(at);
    let Some((_, _, name)) = owned else { return };
    used.insert(name.clone());
    design.is_autoincrement = true;
    let wanted = QualifiedName::new(name.0.as_str(), name.1.as_str());
    let Some(sequence) = manifest.sequences.iter().find(|sequence| sequence.name == wanted) else { return };
    if sequence.increment != 1 {
        made.notes.push(format!(
            "the sequence {} counts by {}; AUTOINCREMENT of {} counts by 1, behind the highest key",
            wanted.short(),
            sequence.increment,
            design.source.short()
        ));
    }
    let given = if sequence.is_called {
        Some(sequence.last_value)
    } else {
        sequence.last_value.checked_sub(sequence.increment)
    };
    design.counter = given.filter(|given| sequence.increment > 0 && *given > 0);
}

fn foreign_key(
    constraint: &Constraint,
    key: &ForeignKey,
    design: &TableDesign,
    tables: &[TableDesign],
    made: &ExportPlan,
) -> Result<String, String> {
    let parent = QualifiedName::new(key.parent.0.as_str(), key.parent.1.as_str());
    let parent = tables
        .iter()
        .find(|table| table.source == parent)
        .ok_or_else(|| format!("the table {} is not exported", parent.short()))?;
    let ours = numbers(design, &key.columns)?;
    let theirs = numbers(parent, &key.parent_columns)?;
    let same = |columns: &[usize]| {
        let (mut one, mut other) = (columns.to_vec(), theirs.clone());
        one.sort_unstable();
        other.sort_unstable();
        one == other
    };
    let by_index =
        made.indexes.iter().any(|index| index.table == parent.name && index.key.as_deref().is_some_and(same));
    if !same(&parent.primary_key) && !parent.uniques.iter().any(|unique| same(unique)) && !by_index {
        return Err("what it leads to is not unique in SQLite".to_owned());
    }
    let deferred = if key.is_deferred { " DEFERRABLE INITIALLY DEFERRED" } else { "" };
    Ok(format!(
        "CONSTRAINT {} FOREIGN KEY ({}) REFERENCES {} ({}){}{deferred}",
        quoted(&constraint.name),
        design.list(&ours),
        quoted(&parent.name),
        parent.list(&theirs),
        key.actions
    ))
}

/// An index that is made after the rows.
#[derive(Debug, Clone)]
pub struct IndexDesign {
    /// Its name in SQLite.
    pub name: String,
    /// The table in SQLite.
    pub table: String,
    /// CREATE INDEX.
    pub sql: String,
    /// The columns of a unique index that a foreign key may lead to.
    pub(super) key: Option<Vec<usize>>,
}

fn add_indexes(tables: &[TableDesign], structure: &Structure, taken: &mut Names, made: &mut ExportPlan) {
    for design in tables {
        let indexes: &[Index] = definition(design, structure).map_or(&[], |table| &table.indexes);
        for index in indexes {
            match index_parts(design, index, structure) {
                Ok((parts, key)) => {
                    let name = taken.take(&names::of(&index.name.0, &index.name.1));
                    let unique = if index.is_unique { "UNIQUE " } else { "" };
                    let sql =
                        format!("CREATE {unique}INDEX {} ON {} {parts}", quoted(&name), quoted(&design.name));
                    for what in &index.lost {
                        made.notes.push(format!("index {}: {what}", printable(&name)));
                    }
                    made.indexes.push(IndexDesign { name, table: design.name.clone(), sql, key });
                }
                Err(reason) => refuse_index(index, &reason, made),
            }
        }
    }
}

fn refuse_index(index: &Index, reason: &str, made: &mut ExportPlan) {
    made.untranslated.push(Untranslated {
        what: format!("index {}", printable(&names::of(&index.name.0, &index.name.1))),
        sql: index.sql.clone(),
        reason: reason.to_owned(),
    });
}

type Parts = (String, Option<Vec<usize>>);

fn index_parts(design: &TableDesign, index: &Index, structure: &Structure) -> Result<Parts, String> {
    if let Some(refused) = &index.refused {
        return Err(refused.clone());
    }
    let known = design.known();
    // A unique index is a rule for the rows; another one only makes queries fast.
    let scope =
        Scope { columns: &known, types: &structure.types, is_lenient: !index.is_unique, is_checked: false };
    let mut parts = Vec::new();
    let mut key = Some(Vec::new());
    for part in &index.parts {
        let value = scope.translate(&part.expression)?;
        let at = design.columns.iter().position(|column| quoted(&column.name) == value.sql);
        key = key.zip(at).map(|(mut key, at)| {
            key.push(at);
            key
        });
        let order = if part.is_descending { " DESC" } else { "" };
        parts.push(format!("{}{order}", value.sql));
    }
    let mut sql = format!("({})", parts.join(", "));
    if let Some(predicate) = &index.predicate {
        sql.push_str(&format!(" WHERE {}", Scope { is_lenient: false, ..scope }.condition(predicate)?));
        key = None;
    }
    Ok((sql, key.filter(|_| index.is_unique)))
}

/// Constraints and indexes that one partition has alone.
fn of_partitions(tables: &[TableDesign], structure: &Structure, made: &mut ExportPlan) {
    const REASON: &str = "one partition has it alone, and the rows of all of them are in one table";
    let is_own = |table: &Table| {
        tables.iter().any(|design| {
            (design.source.schema.as_str(), design.source.name.as_str())
                == (table.name.0.as_str(), table.name.1.as_str())
        })
    };
    let folded = tables.iter().flat_map(|design| &design.oids).filter_map(|oid| structure.tables.get(oid));
    for table in folded.filter(|table| !is_own(table)) {
        for index in table.indexes.iter().filter(|index| !structure.attached.contains(&index.name)) {
            refuse_index(index, REASON, made);
        }
        for constraint in &table.constraints {
            let name = (table.name.0.clone(), constraint.name.clone());
            let is_inherited =
                structure.attached.contains(&name) || is_of_parent(table, constraint, structure);
            if !is_inherited {
                made.untranslated.push(Untranslated {
                    what: format!(
                        "constraint {} of {}",
                        printable(&constraint.name),
                        printable(&names::of(&table.name.0, &table.name.1))
                    ),
                    sql: constraint.sql.clone(),
                    reason: REASON.to_owned(),
                });
            }
        }
    }
}

/// Whether the partitioned table has a constraint of the same name: its partitions repeat it.
fn is_of_parent(table: &Table, constraint: &Constraint, structure: &Structure) -> bool {
    let parent = structure.partitions.get(&table.name);
    let parent = parent.and_then(|name| structure.tables.values().find(|table| table.name == *name));
    parent.is_some_and(|parent| parent.constraints.iter().any(|other| other.name == constraint.name))
}

/// Sequences that are no AUTOINCREMENT.
fn sequences(manifest: &Manifest, structure: &Structure, used: &HashSet<Name>, made: &mut ExportPlan) {
    for sequence in &manifest.sequences {
        let name = (sequence.name.schema.as_str().to_owned(), sequence.name.name.as_str().to_owned());
        if used.contains(&name) {
            continue;
        }
        let owner = structure.owned.iter().find(|(_, _, owned)| *owned == name);
        let reason = match owner {
            Some((table, column, _)) => {
                let table = QualifiedName::new(table.0.as_str(), table.1.as_str());
                if !made.tables.iter().any(|design| design.source == table) {
                    continue;
                }
                format!(
                    "it counts {}.{}, and SQLite counts an INTEGER PRIMARY KEY alone",
                    table.short(),
                    printable(column)
                )
            }
            None => "SQLite has no sequences".to_owned(),
        };
        made.untranslated.push(Untranslated {
            what: format!("sequence {}", sequence.name.short()),
            sql: format!("-- last_value {}, is_called {}", sequence.last_value, sequence.is_called),
            reason,
        });
    }
}
