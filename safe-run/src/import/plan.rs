//! Which table takes which rows, which column which values, and what has no partner: a value, made before anything is changed.
//! Pure.
//!
//! Names are matched exactly first; where that finds nothing, without the case of ASCII letters if that leaves one. A table
//! whose schema is on the search_path comes before one whose is not. Nothing is left out unless a person said so; what a
//! migration tool keeps for itself is left alone always.

mod columns;

use common::{QualifiedName, migration_tools};
use sqlite::{
    partner,
    schema::{Schema, Table},
    target::ColumnRule,
};

use super::{
    choices::{Map, written},
    options::ImportOptions,
    target::{Target, TargetColumn, TargetForeignKey, TargetTable},
};

/// The whole plan.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// The tables, in the order in which they are loaded: what is referred to comes first.
    pub tables: Vec<TablePlan>,
    /// Foreign keys that can be checked only at the end: their tables refer to each other.
    pub checked_late: Vec<TargetForeignKey>,
    /// Tables of SQLite that are not imported, each with the reason.
    pub left_alone: Vec<(String, String)>,
    /// Tables of PostgreSQL that nothing is imported into.
    pub not_in_file: Vec<QualifiedName>,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// How one table is taken over.
#[derive(Debug, Clone, PartialEq)]
pub struct TablePlan {
    /// Its number in [`Schema::tables`].
    pub source: usize,
    /// Its name in SQLite.
    pub source_name: String,
    /// The table that takes its rows.
    pub target: TargetTable,
    /// The columns that are loaded.
    pub columns: Vec<ColumnPlan>,
}

/// How one column is taken over.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnPlan {
    /// Its number in the table of SQLite.
    pub source: usize,
    /// Its name in SQLite.
    pub source_name: String,
    /// The column that takes its values.
    pub target: TargetColumn,
    /// How they are converted.
    pub rule: ColumnRule,
}

/// A decision that nobody has made, and the flag that makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The sentence.
    pub what: String,
    /// What decides it, such as `--skip-column t.c`.
    pub way_out: String,
}

/// Makes the plan, or says everything that keeps it from being one.
pub fn plan(schema: &Schema, target: &Target, options: &ImportOptions) -> Result<Plan, Vec<Problem>> {
    let mut plan = Plan::default();
    let mut problems = unknown_names(schema, options);
    for (source, table) in schema.tables.iter().enumerate() {
        if let Some(why) = left_alone(table, options) {
            plan.left_alone.push((table.name.clone(), why));
            continue;
        }
        match partner(table, target, options) {
            Err(problem) => problems.push(problem),
            Ok(found) => match columns::plan(table, found, options, &mut plan.notes) {
                Err(found) => problems.extend(found),
                Ok(columns) => plan.tables.push(TablePlan {
                    source,
                    source_name: table.name.clone(),
                    target: found.clone(),
                    columns,
                }),
            },
        }
    }
    plan.left_alone.extend(schema.left_out.iter().map(|left| (left.name.clone(), left.reason.clone())));
    plan.left_alone
        .extend(schema.views.iter().map(|view| (view.name.clone(), "a view holds no rows".to_owned())));
    problems.extend(same_target(&plan.tables));
    if !problems.is_empty() {
        return Err(problems);
    }
    plan.not_in_file = target
        .tables
        .iter()
        .filter(|table| plan.tables.iter().all(|planned| planned.target.oid != table.oid))
        .filter(|table| plan.left_alone.iter().all(|(name, _)| name != table.name.name.as_str()))
        .map(|table| table.name.clone())
        .collect();
    super::order::sort(&mut plan, &target.foreign_keys);
    Ok(plan)
}

/// Why a table of SQLite is not imported, if it is not.
pub fn left_alone(table: &Table, options: &ImportOptions) -> Option<String> {
    if options.skip_tables.iter().any(|skipped| skipped.eq_ignore_ascii_case(&table.name)) {
        return Some("as told by --skip-table".to_owned());
    }
    if options.map_of_table(&table.name).is_some() {
        return None;
    }
    migration_tools::keeps(&table.name, |name| table.columns.iter().any(|column| column.name == name))
}

/// Flags that name what the file does not have.
pub(super) fn unknown_names(schema: &Schema, options: &ImportOptions) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut unknown = |what: String| {
        problems.push(Problem { what, way_out: "correct the flag".to_owned() });
    };
    let tables = options.skip_tables.iter().chain(options.maps.iter().filter_map(|map| match map {
        Map::Table(table, ..) => Some(table),
        Map::Column(..) => None,
    }));
    for table in tables {
        if schema.table(table).is_none() {
            unknown(format!("the file has no table {}, which a flag names", written(table)));
        }
    }
    let columns = options.skip_columns.iter().chain(options.types.iter().map(|(name, _)| name));
    let columns = columns.chain(options.meanings.epochs.iter().filter_map(|(name, _)| name.as_ref()));
    let columns = columns.chain(options.maps.iter().filter_map(|map| match map {
        Map::Column(name, _) => Some(name),
        Map::Table(..) => None,
    }));
    for name in columns {
        if schema.table(&name.table).and_then(|table| table.column(&name.column)).is_none() {
            unknown(format!("the file has no column {name}, which a flag names"));
        }
    }
    problems
}

/// The table that takes the rows of `table`.
fn partner<'t>(
    table: &Table,
    target: &'t Target,
    options: &ImportOptions,
) -> Result<&'t TargetTable, Problem> {
    let shown = written(&table.name);
    let skip = format!("--skip-table {shown}");
    if let Some((schema, name)) = options.map_of_table(&table.name) {
        let fits = |there: &&TargetTable| {
            there.name.name.as_str() == name
                && schema.is_none_or(|schema| there.name.schema.as_str() == schema)
        };
        let found: Vec<&TargetTable> = target.tables.iter().filter(fits).collect();
        return choose(&found).ok_or_else(|| Problem {
            what: match found.len() {
                0 => format!("the database has no table {}, which --map names for {shown}", written(name)),
                _ => format!("several schemas have a table {}, which --map names for {shown}", written(name)),
            },
            way_out: format!("--map {shown}=SCHEMA.TABLE"),
        });
    }
    let names = target.tables.iter().map(|there| there.name.name.as_str());
    let mut candidates: Vec<&TargetTable> =
        partner::candidates(&table.name, names).into_iter().map(|place| &target.tables[place]).collect();
    if candidates.is_empty() {
        let qualified = target.tables.iter().filter(|there| partner::is_qualified(&table.name, &there.name));
        candidates.extend(qualified);
    }
    if let Some(found) = choose(&candidates) {
        return Ok(found);
    }
    let names: Vec<String> = candidates.iter().map(|there| there.name.short()).collect();
    Err(Problem {
        what: match names.as_slice() {
            [] => format!("table {shown} has no partner in PostgreSQL"),
            _ => format!("table {shown} could go into {}", names.join(" or ")),
        },
        way_out: format!("--map {shown}=TABLE, or {skip} to leave its rows out"),
    })
}

/// The only one; of several the only one that a plain name can mean.
fn choose<'t>(found: &[&'t TargetTable]) -> Option<&'t TargetTable> {
    let places: Vec<usize> = (0..found.len()).collect();
    partner::choose(&places, |place| found[place].visible).map(|place| found[place])
}

fn same_target(tables: &[TablePlan]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (place, table) in tables.iter().enumerate() {
        if let Some(other) = tables[..place].iter().find(|other| other.target.oid == table.target.oid) {
            problems.push(Problem {
                what: format!(
                    "tables {} and {} both go into {}",
                    written(&other.source_name),
                    written(&table.source_name),
                    table.target.name.short()
                ),
                way_out: format!("--map {}=TABLE, or --skip-table", written(&table.source_name)),
            });
        }
    }
    problems
}

impl TablePlan {
    /// The columns that are loaded, for SQL.
    pub fn column_list(&self) -> String {
        let names: Vec<String> = self
            .columns
            .iter()
            .map(|column| common::Ident::new(column.target.name.as_str()).to_string())
            .collect();
        names.join(", ")
    }

    /// Whether the rows go to the server and come back in COPY's binary format, which costs the server less. Else it is text.
    pub fn is_binary(&self) -> bool {
        self.columns.iter().all(|column| sqlite::binary::has_binary_form(&column.rule.target))
    }

    /// The places of the columns whose values PostgreSQL gives back in a form that is known; `None` where these are all.
    pub fn comparable(&self) -> Option<Vec<usize>> {
        let known = |(_, column): &(usize, &ColumnPlan)| column.rule.target.has_canonical_form();
        let places: Vec<usize> =
            self.columns.iter().enumerate().filter(known).map(|(place, _)| place).collect();
        (places.len() < self.columns.len()).then_some(places)
    }
}
