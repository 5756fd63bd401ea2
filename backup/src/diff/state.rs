//! What a side of PostgreSQL holds, from a manifest or from a live catalog: the same questions for both. Pure.

use std::collections::{BTreeMap, BTreeSet};

use common::{
    QualifiedName,
    catalog::{DatabaseState, Extension, MaterializedView, PartitionedTable, Sequence, Table},
    format,
    snapshot::{Manifest, RowHash, definitions::Definitions, pattern::Pattern},
};
use serde::Serialize;

/// What is known of a table's rows without reading them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// How many.
    pub rows: u64,
    /// Bytes of COPY text.
    pub bytes: u64,
    /// The hash of their text.
    pub hash: RowHash,
}

/// A table with rows of its own.
#[derive(Debug, Clone)]
pub struct Stored {
    /// As the catalog has it.
    pub table: Table,
    /// Of a snapshot.
    pub known: Option<Known>,
}

/// A side of PostgreSQL.
#[derive(Debug, Clone)]
pub struct State {
    /// How it is called in what is told.
    pub label: String,
    /// It is a database that is alive, and no snapshot.
    pub is_live: bool,
    /// The filters of a snapshot that holds only a part.
    pub partial: Option<String>,
    /// Its encoding.
    pub encoding: String,
    /// The major version of the pg_dump that wrote the schema.
    pub pg_dump_major: u32,
    /// Tables with rows.
    pub tables: Vec<Stored>,
    /// Roots and branches of partitioned tables.
    pub partitioned: Vec<PartitionedTable>,
    /// Child and parent.
    pub inherits: Vec<(u32, u32)>,
    /// The schema as SQL.
    pub schema: String,
    /// What that SQL says of tables.
    pub definitions: Definitions,
    /// Everything that is neither schema text nor rows, as lines of name and value.
    pub values: BTreeMap<String, String>,
}

/// Large objects: how many, and the hash of all that is stored of them.
pub type Objects = (u64, RowHash);

/// What [`values`] are made of.
pub struct Facts<'a> {
    /// State of the database itself.
    pub database: &'a DatabaseState,
    /// `server_version`.
    pub server: &'a str,
    /// Sequences.
    pub sequences: &'a [Sequence],
    /// Extensions.
    pub extensions: &'a [Extension],
    /// Materialized views.
    pub materialized_views: &'a [MaterializedView],
    /// Large objects, if there are any.
    pub large_objects: Option<Objects>,
}

impl State {
    /// A snapshot, with the text of its schema.
    pub fn of_manifest(manifest: &Manifest, schema: String) -> Self {
        let large_objects = manifest.large_objects.as_ref().map(|objects| {
            let mut hash = objects.metadata.content.row_hash;
            objects.pages.iter().for_each(|page| hash.merge(page.content.row_hash));
            (objects.count, hash)
        });
        let values = values(&Facts {
            database: &manifest.database,
            server: &manifest.server.version,
            sequences: &manifest.sequences,
            extensions: &manifest.extensions,
            materialized_views: &manifest.materialized_views,
            large_objects,
        });
        let stored = |data: &common::snapshot::manifest::TableData| Stored {
            table: data.table.clone(),
            known: Some(Known {
                rows: data.rows(),
                bytes: data.chunks.iter().map(|chunk| chunk.content.raw_bytes).fold(0, u64::saturating_add),
                hash: data.row_hash(),
            }),
        };
        Self {
            label: manifest.id.to_string(),
            is_live: false,
            partial: manifest.partial.as_ref().map(|partial| partial.filters.to_string()),
            encoding: manifest.database.encoding.clone(),
            pg_dump_major: manifest.pg_dump_major,
            tables: manifest.tables.iter().map(stored).collect(),
            partitioned: manifest.partitioned.clone(),
            inherits: manifest.inherits.clone(),
            definitions: Definitions::read(&schema),
            schema,
            values,
        }
    }

    /// Tables as a person means them: a partitioned one with all leaves below it, and any other by itself. The numbers are places in
    /// [`Self::tables`].
    pub fn whole_tables(&self) -> BTreeMap<QualifiedName, Vec<usize>> {
        let roots: BTreeMap<u32, &QualifiedName> =
            self.partitioned.iter().map(|table| (table.oid, &table.name)).collect();
        let parents: BTreeMap<u32, u32> =
            self.inherits.iter().filter(|(_, parent)| roots.contains_key(parent)).copied().collect();
        let mut tables: BTreeMap<QualifiedName, Vec<usize>> = BTreeMap::new();
        let top = |oid: u32| {
            let mut top = oid;
            // No deeper than there are tables: a catalog that was made up could have a circle.
            for _ in 0..=parents.len() {
                match parents.get(&top) {
                    Some(parent) => top = *parent,
                    None => break,
                }
            }
            top
        };
        for table in self.partitioned.iter().filter(|table| top(table.oid) == table.oid) {
            tables.entry(table.name.clone()).or_default();
        }
        for (number, stored) in self.tables.iter().enumerate() {
            let name = roots.get(&top(stored.table.oid)).copied().unwrap_or(&stored.table.name);
            tables.entry(name.clone()).or_default().push(number);
        }
        tables
    }

    /// Whether a table is meant by a pattern.
    pub fn has(&self, pattern: &Pattern) -> bool {
        let stored = self.tables.iter().map(|stored| &stored.table.name);
        let mut names = stored.chain(self.partitioned.iter().map(|table| &table.name));
        names.any(|name| pattern.matches_table(name))
    }

    /// Leaves only the tables that the patterns mean, with every partition and heir of one that is meant.
    pub fn restrict(&mut self, patterns: &[Pattern]) {
        let meant = |name: &QualifiedName| patterns.iter().any(|pattern| pattern.matches_table(name));
        let stored = self.tables.iter().map(|stored| (stored.table.oid, &stored.table.name));
        let all = stored.chain(self.partitioned.iter().map(|table| (table.oid, &table.name)));
        let by_name: BTreeSet<u32> = all.filter(|(_, name)| meant(name)).map(|(oid, _)| oid).collect();
        let meant = with_heirs(by_name, &self.inherits);
        self.tables.retain(|stored| meant.contains(&stored.table.oid));
        self.partitioned.retain(|table| meant.contains(&table.oid));
    }

    /// The columns of a table's primary key.
    pub fn key(&self, table: &QualifiedName) -> &[String] {
        self.definitions.tables.get(table).map_or(&[], |table| &table.key)
    }
}

/// Tables with everything below them. `inherits` is child and parent; a child may have several.
pub fn with_heirs(mut tables: BTreeSet<u32>, inherits: &[(u32, u32)]) -> BTreeSet<u32> {
    loop {
        let below = inherits.iter().filter(|(_, parent)| tables.contains(parent)).map(|(child, _)| *child);
        let more: Vec<u32> = below.filter(|child| !tables.contains(child)).collect();
        if more.is_empty() {
            return tables;
        }
        tables.extend(more);
    }
}

/// Something with a value that differs; `None` is absence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ValueChange {
    /// What it is, such as `sequence public.orders_id_seq`.
    pub what: String,
    /// Its value on the first side.
    pub before: Option<String>,
    /// Its value on the second side.
    pub after: Option<String>,
}

/// Everything that is neither schema text nor rows, as lines of name and value.
pub fn values(facts: &Facts<'_>) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    let mut add = |what: String, value: String| {
        values.insert(what, value);
    };
    for sequence in facts.sequences {
        let next = if sequence.is_called { "called" } else { "not called" };
        add(format!("sequence {}", sequence.name.short()), format!("{} ({next})", sequence.last_value));
    }
    for extension in facts.extensions {
        add(format!("extension {}", extension.name), extension.version.clone());
    }
    for view in facts.materialized_views {
        let state = if view.is_populated { "populated" } else { "not populated" };
        add(format!("materialized view {}", view.name.short()), state.to_owned());
    }
    if let Some((count, hash)) = facts.large_objects {
        add("large objects".to_owned(), format!("{} (content {hash})", format::count(count)));
    }
    let database = facts.database;
    for setting in &database.settings {
        let role = setting.role.as_deref().map(|role| format!(" for role {role}")).unwrap_or_default();
        add(format!("database setting {}{role}", setting.name), setting.value.clone());
    }
    for (provider, label) in &database.security_labels {
        add(format!("database security label {provider}"), label.clone());
    }
    for grant in database.acl.iter().flatten() {
        let grantee = grant.grantee.as_deref().unwrap_or("PUBLIC");
        let option = if grant.grantable { "with grant option" } else { "granted" };
        let what = format!("database privilege {} of {grantee} by {}", grant.privilege, grant.grantor);
        add(what, option.to_owned());
    }
    let texts = [
        ("name", Some(database.name.clone())),
        ("encoding", Some(database.encoding.clone())),
        ("collation", Some(database.collate.clone())),
        ("character type", Some(database.ctype.clone())),
        ("locale provider", Some(database.locale_provider.to_string())),
        ("locale", database.locale.clone()),
        ("ICU rules", database.icu_rules.clone()),
        ("collation version", database.collation_version.clone()),
        ("owner", Some(database.owner.clone())),
        ("tablespace", Some(database.tablespace.clone())),
        ("connection limit", Some(database.connection_limit.to_string())),
        ("template", database.is_template.then(|| "yes".to_owned())),
        ("comment", database.comment.clone()),
    ];
    for (what, value) in texts {
        if let Some(value) = value {
            add(format!("database {what}"), value);
        }
    }
    add("server".to_owned(), format!("PostgreSQL {}", facts.server));
    values
}

/// The lines that differ.
pub fn compare_values(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) -> Vec<ValueChange> {
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    names
        .into_iter()
        .filter(|name| a.get(*name) != b.get(*name))
        .map(|name| ValueChange {
            what: name.clone(),
            before: a.get(name).cloned(),
            after: b.get(name).cloned(),
        })
        .collect()
}
