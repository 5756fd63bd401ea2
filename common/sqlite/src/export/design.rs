//! The tables of the SQLite file: names, columns and keys, as they are made before the rows.

mod rules;

use std::collections::BTreeSet;

use common::{QualifiedName, ident::printable, snapshot::Manifest};

use super::{
    ExportPlan, Untranslated,
    expression::Known,
    keys,
    kind::Kind,
    names::{self, Names},
    structure::{Column, Name, Structure, Table},
    types::SqliteType,
    views,
};
use crate::{
    export::design::rules::{add_defaults, add_domains, add_generated},
    sql::quoted,
    target::Target,
};

/// One table of the file.
#[derive(Debug, Clone)]
pub struct TableDesign {
    /// Its name in SQLite.
    pub name: String,
    /// Its name in PostgreSQL.
    pub source: QualifiedName,
    /// The oids of the tables of the snapshot whose rows it gets: more than one where they are partitions.
    pub oids: Vec<u32>,
    /// Whether SQLite enforces the types.
    pub is_strict: bool,
    pub(super) columns: Vec<ColumnDesign>,
    pub(super) primary_key: Vec<usize>,
    /// INTEGER PRIMARY KEY.
    pub(super) rowid: Option<usize>,
    pub(super) is_autoincrement: bool,
    /// The highest key that a sequence gave out.
    pub(super) counter: Option<i64>,
    pub(super) uniques: Vec<Vec<usize>>,
    pub(super) checks: Vec<CheckDesign>,
    /// As they stand in CREATE TABLE.
    pub(super) foreign_keys: Vec<String>,
}

/// One column.
#[derive(Debug, Clone)]
pub(super) struct ColumnDesign {
    /// In SQLite.
    pub name: String,
    /// In PostgreSQL.
    pub source: String,
    pub kind: Kind,
    pub stored: SqliteType,
    /// The values are of more kinds than the type of a STRICT table takes: it is ANY there.
    pub is_any: bool,
    pub is_not_null: bool,
    pub is_nocase: bool,
    pub default: Option<String>,
    /// The expression that computes it.
    pub generated: Option<(String, bool)>,
}

/// A CHECK constraint.
#[derive(Debug, Clone)]
pub(super) struct CheckDesign {
    pub name: String,
    pub condition: String,
    /// PostgreSQL's own, for what turns out not to hold.
    pub sql: String,
    /// Whether PostgreSQL vouches for the rows.
    pub is_valid: bool,
}

impl TableDesign {
    /// The columns whose values come from the snapshot, by number.
    pub(super) fn loaded(&self) -> impl Iterator<Item = (usize, &ColumnDesign)> {
        self.columns.iter().enumerate().filter(|(_, column)| column.generated.is_none())
    }

    /// The number of a column by its name in PostgreSQL.
    pub(super) fn column(&self, source: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.source == source)
    }

    /// The names of these columns as a list of SQL.
    pub(super) fn list(&self, columns: &[usize]) -> String {
        let names: Vec<String> = columns.iter().map(|at| quoted(&self.columns[*at].name)).collect();
        names.join(", ")
    }

    /// What expressions may name.
    pub(super) fn known(&self) -> Vec<Known> {
        let known = |column: &ColumnDesign| Known {
            table: self.source.name.as_str().to_owned(),
            name: column.source.clone(),
            sql: quoted(&column.name),
            kind: column.kind,
        };
        self.columns.iter().map(known).collect()
    }

    /// CREATE TABLE.
    pub(super) fn create(&self) -> String {
        let mut parts: Vec<String> =
            self.columns.iter().enumerate().map(|(at, _)| self.column_sql(at)).collect();
        if self.rowid.is_none() && !self.primary_key.is_empty() {
            parts.push(format!("PRIMARY KEY ({})", self.list(&self.primary_key)));
        }
        parts.extend(self.uniques.iter().map(|unique| format!("UNIQUE ({})", self.list(unique))));
        for check in &self.checks {
            let name = if check.name.is_empty() {
                String::new()
            } else {
                format!("CONSTRAINT {} ", quoted(&check.name))
            };
            parts.push(format!("{name}CHECK ({})", check.condition));
        }
        parts.extend(self.foreign_keys.iter().cloned());
        let strict = if self.is_strict { " STRICT" } else { "" };
        format!("CREATE TABLE {} (\n  {}\n){strict}", quoted(&self.name), parts.join(",\n  "))
    }

    fn column_sql(&self, at: usize) -> String {
        let column = &self.columns[at];
        let mut sql = quoted(&column.name);
        let declared = match (self.is_strict, column.is_any) {
            (true, true) => "ANY".to_owned(),
            (true, false) => column.stored.strict().unwrap_or("ANY").to_owned(),
            (false, true) => String::new(),
            (false, false) => column.stored.declared(),
        };
        if !declared.is_empty() {
            sql.push_str(&format!(" {declared}"));
        }
        if self.rowid == Some(at) {
            sql.push_str(" PRIMARY KEY");
            if self.is_autoincrement {
                sql.push_str(" AUTOINCREMENT");
            }
            return sql;
        }
        if column.is_not_null {
            sql.push_str(" NOT NULL");
        }
        if column.is_nocase {
            sql.push_str(" COLLATE NOCASE");
        }
        if let Some(default) = &column.default {
            sql.push_str(&format!(" DEFAULT {default}"));
        }
        if let Some((expression, is_stored)) = &column.generated {
            let how = if *is_stored { "STORED" } else { "VIRTUAL" };
            sql.push_str(&format!(" GENERATED ALWAYS AS ({expression}) {how}"));
        }
        sql
    }
}

/// A table that is chosen, with what becomes part of it.
struct Chosen {
    name: QualifiedName,
    /// The oid of its definition.
    oid: u32,
    oids: Vec<u32>,
    /// The columns of the snapshot, where it has rows of its own.
    columns: Vec<String>,
}

/// Makes the plan for these tables of a snapshot.
pub(super) fn plan(
    manifest: &Manifest,
    mut structure: Structure,
    selected: &BTreeSet<QualifiedName>,
) -> ExportPlan {
    let mut made =
        ExportPlan { untranslated: std::mem::take(&mut structure.untranslated), ..ExportPlan::default() };
    let chosen = choose(manifest, &structure, selected, &mut made);
    let wanted: Vec<String> = chosen
        .iter()
        .map(|chosen| names::of(chosen.name.schema.as_str(), chosen.name.name.as_str()))
        .collect();
    let mut taken = Names::default();
    let given = taken.take_all(&wanted);
    for ((chosen, wanted), name) in chosen.iter().zip(&wanted).zip(given) {
        if *wanted != name {
            made.notes.push(format!(
                "the table {} is called {} there",
                chosen.name.short(),
                printable(&name)
            ));
        }
        let design = table(chosen, name, &structure, &mut made.untranslated, &mut made.notes);
        if design.loaded().next().is_some() {
            made.tables.push(design);
        } else {
            made.untranslated.push(Untranslated {
                what: format!("table {}", chosen.name.short()),
                sql: String::new(),
                reason: "it has no column that holds values, and SQLite has no such table".to_owned(),
            });
        }
    }
    keys::add(manifest, &structure, &mut taken, &mut made);
    views::add(&structure, &mut taken, &mut made);
    made
}

fn key_of(name: &QualifiedName) -> Name {
    (name.schema.as_str().to_owned(), name.name.as_str().to_owned())
}

/// Which tables come, partitions as a part of the outermost table that comes.
fn choose(
    manifest: &Manifest,
    structure: &Structure,
    selected: &BTreeSet<QualifiedName>,
    made: &mut ExportPlan,
) -> Vec<Chosen> {
    let chosen = |name: &QualifiedName, oid: u32| Chosen {
        name: name.clone(),
        oid,
        oids: Vec::new(),
        columns: Vec::new(),
    };
    let outermost = |name: &QualifiedName| -> Option<QualifiedName> {
        let mut found = selected.contains(name).then(|| name.clone());
        let mut at = key_of(name);
        // No partition is in itself, but an archive from elsewhere may say so.
        for _ in 0..structure.partitions.len() {
            let Some(parent) = structure.partitions.get(&at) else { break };
            let parent_name = QualifiedName::new(parent.0.as_str(), parent.1.as_str());
            if selected.contains(&parent_name) {
                found = Some(parent_name);
            }
            at = parent.clone();
        }
        found
    };
    let mut tables: Vec<Chosen> = Vec::new();
    for root in &manifest.partitioned {
        if outermost(&root.name).as_ref() == Some(&root.name) && structure.tables.contains_key(&root.oid) {
            tables.push(chosen(&root.name, root.oid));
        }
    }
    for data in &manifest.tables {
        let Some(home) = outermost(&data.table.name) else { continue };
        if !structure.tables.contains_key(&data.table.oid) && home == data.table.name {
            if data.table.extension_filter.is_none() {
                made.refused = Some(format!(
                    "the definition of the table {} in the snapshot's archive is not understood, and its rows can't be exported",
                    data.table.name.short()
                ));
                continue;
            }
            made.notes.push(format!(
                "{} of {}, which belongs to an extension, not exported",
                common::format::plural(data.rows(), "row", "rows"),
                data.table.name.short()
            ));
            made.untranslated.push(Untranslated {
                what: format!("table {}", data.table.name.short()),
                sql: String::new(),
                reason: "it belongs to an extension, which makes it; its rows are not exported".to_owned(),
            });
            continue;
        }
        let columns = || data.table.columns.iter().map(|column| column.as_str().to_owned()).collect();
        match tables.iter_mut().find(|table| table.name == home) {
            Some(table) => table.oids.push(data.table.oid),
            None => tables.push(Chosen {
                oids: vec![data.table.oid],
                columns: columns(),
                ..chosen(&data.table.name, data.table.oid)
            }),
        }
    }
    for name in manifest.partial.iter().flat_map(|partial| &partial.without_rows) {
        if outermost(name).is_some() {
            made.untranslated.push(Untranslated {
                what: format!("table {}", name.short()),
                sql: String::new(),
                reason: "the snapshot has its definition, and not its rows".to_owned(),
            });
        }
    }
    tables.sort_by(|one, other| {
        let key = |table: &Chosen| (table.name.schema.as_str() != "public", table.name.clone());
        key(one).cmp(&key(other))
    });
    tables
}

/// All columns of a table: what it inherits, and its own.
fn columns_of(table: &Table, structure: &Structure, depth: usize) -> Vec<Column> {
    let mut columns: Vec<Column> = Vec::new();
    let parents =
        table.parents.iter().filter_map(|name| structure.tables.values().find(|table| table.name == *name));
    for parent in parents.filter(|_| depth < 32) {
        for column in columns_of(parent, structure, depth + 1) {
            if !columns.iter().any(|known| known.name == column.name) {
                columns.push(column);
            }
        }
    }
    for own in &table.columns {
        match columns.iter_mut().find(|column| column.name == own.name) {
            Some(column) => {
                column.is_not_null |= own.is_not_null;
                if own.default.is_some() {
                    column.default.clone_from(&own.default);
                }
                if own.generated.is_some() {
                    column.generated.clone_from(&own.generated);
                }
            }
            None => columns.push(own.clone()),
        }
    }
    columns
}

fn table(
    chosen: &Chosen,
    name: String,
    structure: &Structure,
    untranslated: &mut Vec<Untranslated>,
    notes: &mut Vec<String>,
) -> TableDesign {
    let empty = Table::default();
    let definition = structure.tables.get(&chosen.oid).unwrap_or(&empty);
    let mut columns = columns_of(definition, structure, 0);
    for missing in &chosen.columns {
        if !columns.iter().any(|column| column.name == *missing) {
            // Of a typed table: the type has its columns.
            notes.push(format!(
                "values of {}.{} are exported as text: its type is not in the table's own definition",
                chosen.name.short(),
                printable(missing)
            ));
            columns.push(Column {
                name: missing.clone(),
                type_name: "unknown".to_owned(),
                ..Column::default()
            });
        }
    }
    if let Some(by) = &definition.partition_by {
        untranslated.push(Untranslated {
            what: format!("partitions of table {}", chosen.name.short()),
            sql: by.clone(),
            reason: "SQLite has no partitions: the rows of all of them are in one table".to_owned(),
        });
    }
    if !definition.parents.is_empty() {
        notes.push(format!(
            "the table {} inherits from others in PostgreSQL: its rows are in its own table alone",
            chosen.name.short()
        ));
    }
    let wanted: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
    let given = Names::default().take_all(&wanted);
    let mut design = TableDesign {
        name,
        source: chosen.name.clone(),
        oids: chosen.oids.clone(),
        is_strict: false,
        columns: Vec::new(),
        primary_key: Vec::new(),
        rowid: None,
        is_autoincrement: false,
        counter: None,
        uniques: Vec::new(),
        checks: Vec::new(),
        foreign_keys: Vec::new(),
    };
    for (column, name) in columns.iter().zip(given) {
        if column.name != name {
            notes.push(format!(
                "the column {} of {} is called {} there",
                printable(&column.name),
                chosen.name.short(),
                printable(&name)
            ));
        }
        let stored = structure.types.of(&column.type_name);
        let is_nocase =
            matches!(stored.target, Target::Text) && column.type_name.rsplit('.').next() == Some("citext");
        let own_collation = column.collation.as_ref().filter(|name| !name.starts_with("pg_catalog."));
        if let Some(collation) = own_collation {
            notes.push(format!(
                "the column {} of {} compares by the collation {}, and by its bytes there",
                printable(&column.name),
                chosen.name.short(),
                printable(collation)
            ));
        }
        let domains = structure.types.domains(&column.type_name);
        design.columns.push(ColumnDesign {
            name,
            source: column.name.clone(),
            // By what is equal there nothing can be checked here.
            kind: if own_collation.is_some() || is_nocase { Kind::Other } else { Kind::of(&stored) },
            is_any: false,
            is_not_null: column.is_not_null || domains.iter().any(|domain| domain.is_not_null),
            is_nocase,
            default: None,
            generated: None,
            stored,
        });
    }
    add_defaults(&columns, &mut design, structure, untranslated);
    add_generated(&columns, &mut design, structure, untranslated);
    add_domains(&columns, &mut design, structure, untranslated);
    design.is_strict = design.columns.iter().all(|column| column.stored.strict().is_some());
    design
}
