//! Which table of one side is compared with which of the other, by which columns and which key. Pure.

use std::collections::{BTreeMap, BTreeSet};

use common::{Ident, QualifiedName, migration_tools, snapshot::pattern::Pattern};
use sqlite::{
    choices::{ColumnName, Map, Meanings, map_of_column, map_of_table},
    partner,
    schema::{Schema, Table as SqliteTable},
    target::{ColumnRule, Target},
};

use super::{
    compare::{Pair, Part},
    file::Selection,
    rows::Shape,
    state::{State, Stored},
};

/// What a person says of the SQLite side.
#[derive(Debug, Clone, Default)]
pub struct Choices {
    /// `--map`.
    pub maps: Vec<Map>,
    /// `--skip-table`.
    pub skip_tables: Vec<String>,
    /// `--skip-column`.
    pub skip_columns: Vec<ColumnName>,
    /// `--epoch`, `--timezone`, `--null-empty-strings`.
    pub meanings: Meanings,
}

/// A table that is compared, or that only one side has.
#[derive(Debug, Clone, Default)]
pub struct Planned {
    /// Its name.
    pub name: String,
    /// What is compared; nothing where only one side has it.
    pub pair: Option<Pair>,
    /// Whether each side has it.
    pub has: [bool; 2],
    /// Rows and bytes where they are known without reading.
    pub known: [Option<(u64, u64)>; 2],
    /// Columns that only one side has.
    pub only: [Vec<String>; 2],
    /// Columns that are not compared, each with the reason.
    pub not_compared: Vec<String>,
}

/// The plan of all tables.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    /// Tables, in order.
    pub tables: Vec<Planned>,
    /// What a person should know.
    pub notes: Vec<String>,
}

fn known(tables: &[&Stored]) -> Option<(u64, u64)> {
    tables.iter().try_fold((0_u64, 0_u64), |(rows, bytes), stored| {
        let known = stored.known?;
        Some((rows.saturating_add(known.rows), bytes.saturating_add(known.bytes)))
    })
}

fn known_sum(tables: &[&Stored], shapes: &[(usize, Shape)]) -> Option<(u64, u128)> {
    if shapes.iter().any(|(_, shape)| shape.columns.is_some()) {
        return None;
    }
    tables.iter().try_fold((0_u64, 0_u128), |(rows, sum), stored| {
        let known = stored.known?;
        Some((rows.saturating_add(known.rows), sum.wrapping_add(known.hash.to_bits())))
    })
}

/// Two sides of PostgreSQL: tables and columns by their names.
pub fn of_postgres(a: &State, b: &State) -> Tables {
    let (whole_a, whole_b) = (a.whole_tables(), b.whole_tables());
    let names: BTreeSet<&QualifiedName> = whole_a.keys().chain(whole_b.keys()).collect();
    let mut tables = Vec::new();
    for name in names {
        let leaves = |state: &State, whole: &BTreeMap<QualifiedName, Vec<usize>>| {
            whole.get(name).map(|leaves| {
                let mut named: Vec<(QualifiedName, usize)> =
                    leaves.iter().map(|leaf| (state.tables[*leaf].table.name.clone(), *leaf)).collect();
                named.sort();
                named
            })
        };
        match (leaves(a, &whole_a), leaves(b, &whole_b)) {
            (Some(in_a), Some(in_b)) => {
                let same = in_a.iter().map(|leaf| &leaf.0).eq(in_b.iter().map(|leaf| &leaf.0));
                if same {
                    for ((leaf, in_a), (_, in_b)) in in_a.iter().zip(&in_b) {
                        tables.push(both(leaf, name, [a, b], [&[*in_a], &[*in_b]]));
                    }
                } else {
                    // Cut into other partitions: the rows under the root are compared.
                    let places = |leaves: &[(QualifiedName, usize)]| {
                        leaves.iter().map(|leaf| leaf.1).collect::<Vec<usize>>()
                    };
                    tables.push(both(name, name, [a, b], [&places(&in_a), &places(&in_b)]));
                }
            }
            (Some(leaves), None) => tables.extend(alone(name, a, &leaves, 0)),
            (None, Some(leaves)) => tables.extend(alone(name, b, &leaves, 1)),
            (None, None) => {}
        }
    }
    tables.sort_by(|one, other| one.name.cmp(&other.name));
    Tables { tables, notes: Vec::new() }
}

/// What only one side has: leaf by leaf, as it is stored.
fn alone(
    name: &QualifiedName,
    state: &State,
    leaves: &[(QualifiedName, usize)],
    side: usize,
) -> Vec<Planned> {
    let planned = |name: &QualifiedName, stored: &[&Stored]| {
        let mut planned = Planned { name: name.short(), ..Planned::default() };
        planned.has[side] = true;
        planned.known[side] = known(stored);
        planned
    };
    match leaves {
        [] => vec![planned(name, &[])],
        leaves => leaves.iter().map(|(name, leaf)| planned(name, &[&state.tables[*leaf]])).collect(),
    }
}

/// The names of the columns that are read of some tables.
fn columns(state: &State, name: &QualifiedName, leaves: &[usize]) -> Vec<String> {
    // Every leaf has the columns of its root; one that has not, in a manifest that was made up, takes them from all.
    let has = |leaf: &usize, column: &Ident| state.tables[*leaf].table.columns.contains(column);
    match leaves.first() {
        Some(first) => {
            let columns = state.tables[*first].table.columns.iter();
            let in_all = columns.filter(|column| leaves.iter().all(|leaf| has(leaf, column)));
            in_all.map(|column| column.as_str().to_owned()).collect()
        }
        None => {
            let defined = state.definitions.tables.get(name);
            let columns = defined.map_or(&[][..], |table| &table.columns);
            columns.iter().filter(|column| !column.generated).map(|column| column.name.clone()).collect()
        }
    }
}

fn both(name: &QualifiedName, whole: &QualifiedName, states: [&State; 2], leaves: [&[usize]; 2]) -> Planned {
    let [a, b] = states;
    let (columns_a, columns_b) = (columns(a, name, leaves[0]), columns(b, name, leaves[1]));
    let compared: Vec<String> =
        columns_a.iter().filter(|column| columns_b.contains(column)).cloned().collect();
    let only = |own: &[String], other: &[String]| {
        own.iter().filter(|column| !other.contains(column)).cloned().collect::<Vec<String>>()
    };
    let key = [a.key(name), b.key(name), a.key(whole), b.key(whole)]
        .into_iter()
        .find_map(|key| places_of(key, &compared))
        .unwrap_or_default();
    let shape = |state: &State, leaf: usize| {
        let there: Vec<&str> = state.tables[leaf].table.columns.iter().map(Ident::as_str).collect();
        let is_whole = there.iter().copied().eq(compared.iter().map(String::as_str));
        let place = |column: &String| there.iter().position(|name| name == column);
        let places = compared.iter().filter_map(place).collect();
        Shape { columns: (!is_whole).then_some(places), key: key.clone(), types: None }
    };
    let shapes = |side: usize| {
        let shaped = leaves[side].iter().map(|leaf| (*leaf, shape(states[side], *leaf)));
        shaped.collect::<Vec<(usize, Shape)>>()
    };
    let stored =
        |side: usize| leaves[side].iter().map(|leaf| &states[side].tables[*leaf]).collect::<Vec<_>>();
    let encoding = common_encoding(a, b);
    let (shapes_a, shapes_b) = (shapes(0), shapes(1));
    Planned {
        name: name.short(),
        has: [true, true],
        known: [known(&stored(0)), known(&stored(1))],
        only: [only(&columns_a, &columns_b), only(&columns_b, &columns_a)],
        not_compared: Vec::new(),
        pair: Some(Pair {
            name: name.short(),
            known: [known_sum(&stored(0), &shapes_a), known_sum(&stored(1), &shapes_b)],
            sides: [Part::Text(shapes_a, encoding.clone()), Part::Text(shapes_b, encoding)],
            columns: compared,
            key,
        }),
    }
}

/// The encoding in which live sides are read, so that equal text is equal bytes: that of a snapshot, whose bytes are what they are.
fn common_encoding(a: &State, b: &State) -> String {
    match (a.is_live, b.is_live) {
        (false, _) => a.encoding.clone(),
        (true, false) => b.encoding.clone(),
        (true, true) if a.encoding == b.encoding => a.encoding.clone(),
        (true, true) => "UTF8".to_owned(),
    }
}

/// The places of the key's columns, if there is a key and all of it is compared.
fn places_of(key: &[String], compared: &[String]) -> Option<Vec<usize>> {
    let places: Option<Vec<usize>> =
        key.iter().map(|name| compared.iter().position(|column| column == name)).collect();
    places.filter(|places| !places.is_empty())
}

/// A side of PostgreSQL and one of SQLite. `sqlite` is its number.
pub fn with_sqlite(
    state: &State,
    schema: &Schema,
    sqlite: usize,
    choices: &Choices,
    patterns: &[Pattern],
    is_visible: impl Fn(&str) -> bool,
) -> Tables {
    let mut found = Tables::default();
    let whole: Vec<(QualifiedName, Vec<usize>)> = state
        .whole_tables()
        .into_iter()
        .filter(|(name, leaves)| {
            let is_extensions =
                leaves.iter().any(|leaf| state.tables[*leaf].table.extension_filter.is_some());
            name.schema.as_str() != "safe_run" && !is_extensions
        })
        .collect();
    let postgres = 1 - sqlite;
    let mut taken: BTreeSet<usize> = BTreeSet::new();
    for (place, table) in schema.tables.iter().enumerate() {
        let why = if choices.skip_tables.iter().any(|skipped| skipped.eq_ignore_ascii_case(&table.name)) {
            Some("as told by --skip-table".to_owned())
        } else if map_of_table(&choices.maps, &table.name).is_some() {
            None
        } else {
            migration_tools::keeps(&table.name, |name| table.columns.iter().any(|column| column.name == name))
        };
        let partner = partner_of(table, &whole, choices, &is_visible);
        if let Some(why) = why {
            taken.extend(partner);
            found.notes.push(format!("{} is not compared: {why}", common::ident::printable(&table.name)));
            continue;
        }
        match partner {
            Some(there) if taken.insert(there) => {
                let (name, leaves) = &whole[there];
                let side = Postgres { state, name, leaves };
                found.tables.push(typed(&side, table, place, sqlite, choices));
            }
            _ if patterns.is_empty() || is_meant(table, patterns) => {
                let mut planned =
                    Planned { name: common::ident::printable(&table.name), ..Planned::default() };
                planned.has[sqlite] = true;
                found.tables.push(planned);
            }
            _ => {}
        }
    }
    for (_, (name, leaves)) in whole.iter().enumerate().filter(|(place, _)| !taken.contains(place)) {
        let stored: Vec<&Stored> = leaves.iter().map(|leaf| &state.tables[*leaf]).collect();
        let names: Vec<String> = columns(state, name, leaves);
        if let Some(why) =
            migration_tools::keeps(name.name.as_str(), |column| names.iter().any(|name| name == column))
        {
            found.notes.push(format!("{} is not compared: {why}", name.short()));
            continue;
        }
        let mut planned = Planned { name: name.short(), ..Planned::default() };
        planned.has[postgres] = true;
        planned.known[postgres] = known(&stored);
        found.tables.push(planned);
    }
    found.notes.extend(
        schema
            .left_out
            .iter()
            .map(|left| format!("{} is not compared: {}", common::ident::printable(&left.name), left.reason)),
    );
    found.tables.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

fn is_meant(table: &SqliteTable, patterns: &[Pattern]) -> bool {
    let name = QualifiedName::new("public", table.name.as_str());
    patterns.iter().any(|pattern| pattern.matches_table(&name))
}

fn partner_of(
    table: &SqliteTable,
    whole: &[(QualifiedName, Vec<usize>)],
    choices: &Choices,
    is_visible: impl Fn(&str) -> bool,
) -> Option<usize> {
    let is_visible = |place: usize| is_visible(whole[place].0.schema.as_str());
    if let Some((schema, name)) = map_of_table(&choices.maps, &table.name) {
        let fits = |there: &QualifiedName| {
            there.name.as_str() == name && schema.is_none_or(|schema| there.schema.as_str() == schema)
        };
        let found = whole.iter().enumerate().filter(|(_, (there, _))| fits(there));
        let found: Vec<usize> = found.map(|(place, _)| place).collect();
        return partner::choose(&found, is_visible);
    }
    let names = whole.iter().map(|(name, _)| name.name.as_str());
    let mut found = partner::candidates(&table.name, names);
    if found.is_empty() {
        found.extend((0..whole.len()).filter(|place| partner::is_qualified(&table.name, &whole[*place].0)));
    }
    partner::choose(&found, is_visible)
}

struct Postgres<'a> {
    state: &'a State,
    name: &'a QualifiedName,
    leaves: &'a [usize],
}

/// A column on both sides.
struct Compared {
    name: String,
    source: usize,
    rule: ColumnRule,
}

fn typed(
    side: &Postgres<'_>,
    table: &SqliteTable,
    place: usize,
    sqlite: usize,
    choices: &Choices,
) -> Planned {
    let Postgres { state, name, leaves } = side;
    let postgres = 1 - sqlite;
    let read = columns(state, name, leaves);
    let defined = state.definitions.tables.get(name);
    let facts =
        |column: &str| defined.and_then(|table| table.columns.iter().find(|there| there.name == column));
    // What the server computes is not read, but has a partner.
    let all: Vec<String> = match defined {
        Some(table) if !table.columns.is_empty() => {
            table.columns.iter().map(|column| column.name.clone()).collect()
        }
        _ => read.clone(),
    };
    let type_of = |column: &str| {
        let Some(facts) = facts(column) else { return (Target::Other("unknown".to_owned()), true) };
        let base = state.definitions.base_of(&facts.type_name);
        (Target::parse(&base.name, base.labels.as_deref()), !(facts.not_null || base.not_null))
    };
    let mut planned = Planned { name: name.short(), has: [true, true], ..Planned::default() };
    let stored: Vec<&Stored> = leaves.iter().map(|leaf| &state.tables[*leaf]).collect();
    planned.known[postgres] = known(&stored);
    let mut compared: Vec<Compared> = Vec::new();
    let mut taken: BTreeSet<&str> = BTreeSet::new();
    for (source, column) in table.columns.iter().enumerate() {
        let of_sqlite = ColumnName { table: table.name.clone(), column: column.name.clone() };
        let wanted = map_of_column(&choices.maps, &of_sqlite).unwrap_or(&column.name);
        let partner = match partner::candidates(wanted, all.iter().map(String::as_str)).as_slice() {
            [only] => Some(&all[*only]),
            _ => None,
        };
        if choices.skip_columns.iter().any(|skipped| skipped.is(&table.name, &column.name)) {
            taken.extend(partner.map(String::as_str));
            planned
                .not_compared
                .push(format!("{} (as told by --skip-column)", common::ident::printable(&column.name)));
            continue;
        }
        let Some(partner) = partner.filter(|partner| taken.insert(partner)) else {
            planned.only[sqlite].push(column.name.clone());
            continue;
        };
        let shown = common::ident::printable(partner);
        let (target, nullable) = type_of(partner);
        if !read.contains(partner) {
            planned.not_compared.push(format!("{shown} (PostgreSQL computes it)"));
        } else if target.has_canonical_form() {
            let rule = choices.meanings.rule(&of_sqlite, target, nullable);
            compared.push(Compared { name: partner.clone(), source, rule });
        } else {
            planned.not_compared.push(format!("{shown} ({target}, which PostgreSQL spells in its own way)"));
        }
    }
    let is_alone = |column: &&String| !taken.contains(column.as_str()) && read.contains(column);
    planned.only[postgres] = all.iter().filter(is_alone).cloned().collect();
    let names: Vec<String> = compared.iter().map(|column| column.name.clone()).collect();
    let of_file = || {
        let place = |source: &usize| compared.iter().position(|column| column.source == *source);
        let places: Option<Vec<usize>> = table.primary_key.iter().map(place).collect();
        places.filter(|places| !places.is_empty())
    };
    let key = places_of(state.key(name), &names).or_else(of_file).unwrap_or_default();
    let shape = |leaf: usize| {
        let there: Vec<&str> = state.tables[leaf].table.columns.iter().map(Ident::as_str).collect();
        let place = |column: &String| there.iter().position(|name| name == column);
        let types = there.iter().map(|column| type_of(column).0).collect();
        Shape {
            columns: Some(names.iter().filter_map(place).collect()),
            key: key.clone(),
            types: Some(types),
        }
    };
    let text = Part::Text(leaves.iter().map(|leaf| (*leaf, shape(*leaf))).collect(), "UTF8".to_owned());
    let cells = Part::Cells(Selection {
        table: place,
        columns: compared.iter().map(|column| column.source).collect(),
        rules: Some(compared.into_iter().map(|column| column.rule).collect()),
        key: key.clone(),
    });
    let sides = if sqlite == 0 { [cells, text] } else { [text, cells] };
    planned.pair = Some(Pair { name: name.short(), sides, columns: names, key, known: [None, None] });
    planned
}

/// Two files of SQLite: by storage class and bytes.
pub fn of_sqlite(a: &Schema, b: &Schema, choices: &Choices, patterns: &[Pattern]) -> Tables {
    let mut found = Tables::default();
    let is_wanted = |table: &SqliteTable| {
        (patterns.is_empty() || is_meant(table, patterns))
            && !choices.skip_tables.iter().any(|skipped| skipped.eq_ignore_ascii_case(&table.name))
    };
    for (place, table) in a.tables.iter().enumerate().filter(|(_, table)| is_wanted(table)) {
        let mut planned = Planned { name: common::ident::printable(&table.name), ..Planned::default() };
        planned.has[0] = true;
        let there = b.tables.iter().position(|there| there.name.eq_ignore_ascii_case(&table.name));
        if let Some(there) = there {
            planned.has[1] = true;
            let other = &b.tables[there];
            let columns: Vec<(usize, usize)> = table
                .columns
                .iter()
                .enumerate()
                .filter_map(|(at, column)| Some((at, other.column(&column.name)?)))
                .collect();
            let only = |own: &SqliteTable, other: &SqliteTable| {
                let alone = own.columns.iter().filter(|column| other.column(&column.name).is_none());
                alone.map(|column| column.name.clone()).collect::<Vec<String>>()
            };
            planned.only = [only(table, other), only(other, table)];
            let key: Option<Vec<usize>> =
                table.primary_key.iter().map(|part| columns.iter().position(|(at, _)| at == part)).collect();
            let key = key.unwrap_or_default();
            let selection = |table: usize, columns: Vec<usize>| {
                Part::Cells(Selection { table, columns, rules: None, key: key.clone() })
            };
            planned.pair = Some(Pair {
                name: planned.name.clone(),
                sides: [
                    selection(place, columns.iter().map(|pair| pair.0).collect()),
                    selection(there, columns.iter().map(|pair| pair.1).collect()),
                ],
                columns: columns.iter().map(|pair| table.columns[pair.0].name.clone()).collect(),
                key,
                known: [None, None],
            });
        }
        found.tables.push(planned);
    }
    for left in a.left_out.iter().chain(&b.left_out) {
        let note = format!("{} is not compared: {}", common::ident::printable(&left.name), left.reason);
        if !found.notes.contains(&note) {
            found.notes.push(note);
        }
    }
    for table in b.tables.iter().filter(|table| is_wanted(table) && a.table(&table.name).is_none()) {
        let mut planned = Planned { name: common::ident::printable(&table.name), ..Planned::default() };
        planned.has[1] = true;
        found.tables.push(planned);
    }
    found.tables.sort_by(|one, other| one.name.cmp(&other.name));
    found
}
