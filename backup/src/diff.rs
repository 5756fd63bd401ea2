//! `backup diff A B`: what changed between two snapshots. Needs no server: the schemas are two archives that pg_restore
//! prints as text, and everything else is in the manifests.

pub mod schema;

use std::collections::{BTreeMap, BTreeSet};

use common::{
    Error, Result,
    cli::{Output, format, output::Tone},
    ident::printable,
    postgres::tools,
    repository::StoredSnapshot,
    snapshot::{
        Manifest,
        manifest::{LIST_FILE, SCHEMA_FILE, TableData},
    },
};
use serde::Serialize;

use schema::{Change, ObjectChange};

/// Arguments of `backup diff`.
#[derive(Debug, clap::Args)]
pub struct DiffArgs {
    /// The first snapshot: an id, a unique start of one, latest, or latest:tag=value
    #[arg(value_name = "A")]
    pub a: String,
    /// The second snapshot
    #[arg(value_name = "B")]
    pub b: String,
}

/// A table whose rows differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableChange {
    /// Its name.
    pub table: String,
    /// What happened to it: `changed` when both snapshots have it.
    pub change: Change,
    /// Rows in the first snapshot.
    pub rows_before: Option<u64>,
    /// Rows in the second snapshot.
    pub rows_after: Option<u64>,
    /// Bytes of COPY text in the first snapshot.
    pub bytes_before: Option<u64>,
    /// Bytes of COPY text in the second snapshot.
    pub bytes_after: Option<u64>,
    /// Whether the stored columns differ: then the content always does.
    pub columns_differ: bool,
}

/// Something with a value that differs; `None` is absence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ValueChange {
    /// What it is, such as `sequence public.orders_id_seq`.
    pub what: String,
    /// Its value in the first snapshot.
    pub before: Option<String>,
    /// Its value in the second snapshot.
    pub after: Option<String>,
}

/// Everything that differs.
#[derive(Debug, Clone, Serialize)]
pub struct Difference {
    /// The first snapshot.
    pub a: String,
    /// The second snapshot.
    pub b: String,
    /// Which of the two hold only a part of their database, and by which filters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub partial: Vec<String>,
    /// Whether nothing differs.
    pub equal: bool,
    /// Schema objects.
    pub schema: Vec<ObjectChange>,
    /// Tables with other rows.
    pub tables: Vec<TableChange>,
    /// Tables with the same rows.
    pub equal_tables: usize,
    /// Sequences, extensions, large objects, materialized views, and state of the database itself.
    pub values: Vec<ValueChange>,
}

/// Compares two snapshots and the texts of their schemas. Pure.
pub fn compare(a: &Manifest, b: &Manifest, schema_a: &str, schema_b: &str) -> Difference {
    let schema = schema::compare(schema_a, schema_b);
    let (tables, equal_tables) = compare_tables(a, b);
    let values = compare_values(&values(a), &values(b));
    Difference {
        a: a.id.to_string(),
        b: b.id.to_string(),
        partial: [a, b]
            .into_iter()
            .filter_map(|one| Some(format!("{} is PARTIAL ({})", one.id, one.partial.as_ref()?.filters)))
            .collect(),
        equal: schema.is_empty() && tables.is_empty() && values.is_empty(),
        schema,
        tables,
        equal_tables,
        values,
    }
}

fn compare_tables(a: &Manifest, b: &Manifest) -> (Vec<TableChange>, usize) {
    fn by_name(manifest: &Manifest) -> BTreeMap<String, &TableData> {
        manifest.tables.iter().map(|table| (table.table.name.short(), table)).collect()
    }
    let (a, b) = (by_name(a), by_name(b));
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let bytes = |table: &&TableData| {
        table.chunks.iter().map(|chunk| chunk.content.raw_bytes).fold(0, u64::saturating_add)
    };
    let mut changes = Vec::new();
    let mut equal = 0;
    for name in names {
        let (before, after) = (a.get(name), b.get(name));
        let mut columns_differ = false;
        let change = match (before, after) {
            (Some(a), Some(b)) => {
                columns_differ = a.table.columns != b.table.columns;
                if !columns_differ && a.rows() == b.rows() && a.row_hash() == b.row_hash() {
                    equal += 1;
                    continue;
                }
                Change::Changed
            }
            (Some(_), None) => Change::Removed,
            _ => Change::Added,
        };
        changes.push(TableChange {
            table: name.clone(),
            change,
            rows_before: before.map(|table| table.rows()),
            rows_after: after.map(|table| table.rows()),
            bytes_before: before.map(bytes),
            bytes_after: after.map(bytes),
            columns_differ,
        });
    }
    (changes, equal)
}

/// Everything of a manifest that is neither schema text nor rows, as lines of name and value.
fn values(manifest: &Manifest) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    let mut add = |what: String, value: String| {
        values.insert(what, value);
    };
    for sequence in &manifest.sequences {
        let next = if sequence.is_called { "called" } else { "not called" };
        add(format!("sequence {}", sequence.name.short()), format!("{} ({next})", sequence.last_value));
    }
    for extension in &manifest.extensions {
        add(format!("extension {}", extension.name), extension.version.clone());
    }
    for view in &manifest.materialized_views {
        let state = if view.is_populated { "populated" } else { "not populated" };
        add(format!("materialized view {}", view.name.short()), state.to_owned());
    }
    if let Some(objects) = &manifest.large_objects {
        let mut hash = objects.metadata.content.row_hash;
        objects.pages.iter().for_each(|page| hash.merge(page.content.row_hash));
        add("large objects".to_owned(), format!("{} (content {hash})", format::count(objects.count)));
    }
    let database = &manifest.database;
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
        ("comment", database.comment.clone()),
    ];
    for (what, value) in texts {
        if let Some(value) = value {
            add(format!("database {what}"), value);
        }
    }
    add("server".to_owned(), format!("PostgreSQL {}", manifest.server.version));
    values
}

fn compare_values(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) -> Vec<ValueChange> {
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

/// Runs `backup diff`.
pub async fn run(a: &StoredSnapshot, b: &StoredSnapshot, output: &Output) -> Result<u8> {
    // One program for both: two versions of it may print the same object in two ways.
    let need = a.manifest.pg_dump_major.max(b.manifest.pg_dump_major);
    let pg_restore = tools::choose("pg_restore", &tools::installed("pg_restore").await, need)?;
    let (schema_a, schema_b) = (schema_text(&pg_restore, a).await?, schema_text(&pg_restore, b).await?);
    let difference = compare(&a.manifest, &b.manifest, &schema_a, &schema_b);
    if output.is_json() {
        output.document(&difference)?;
        return Ok(0);
    }
    if a.manifest.pg_dump_major != b.manifest.pg_dump_major {
        output.say(&format!(
            "note: the schemas were dumped by pg_dump {} and {}, which may word the same object in two ways",
            a.manifest.pg_dump_major, b.manifest.pg_dump_major
        ));
    }
    for line in &difference.partial {
        output.say(&format!("note: {line}: what it left out shows as a difference"));
    }
    output.data(&render(&difference, output))?;
    Ok(0)
}

async fn schema_text(pg_restore: &tools::Tool, snapshot: &StoredSnapshot) -> Result<String> {
    let mut command = tools::offline_command(&pg_restore.path);
    if snapshot.manifest.is_partial() {
        command.arg("--use-list").arg(snapshot.path(LIST_FILE));
    }
    command.args(["--file=-", "--schema-only"]).arg(snapshot.path(SCHEMA_FILE));
    let (finished, text) = tools::capture(command, "pg_restore").await?;
    if !finished.success {
        return Err(Error::damaged(format!(
            "the schema of snapshot {} can't be read: {}",
            snapshot.manifest.id,
            finished.stderr.trim()
        ))
        .with_hint(format!("Run `backup verify {}`.", snapshot.manifest.id)));
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The difference as a person reads it.
fn render(difference: &Difference, output: &Output) -> String {
    let paint = |line: &str| match line.chars().next() {
        Some('-') => output.paint(Tone::Bad, &printable(line)),
        Some('+') => output.paint(Tone::Good, &printable(line)),
        _ => printable(line),
    };
    let mut text = format!("--- {}\n+++ {}\n", difference.a, difference.b);
    if difference.equal {
        let tables = format::plural(difference.equal_tables as u64, "table", "tables");
        return text + &format!("No difference: schema, content of {tables}, sequences, settings.\n");
    }
    for object in &difference.schema {
        let word = match object.change {
            Change::Added => "added",
            Change::Removed => "removed",
            Change::Changed => "changed",
        };
        let title = format!("\n{word}: {}", printable(&object.object));
        text.push_str(&output.paint(Tone::Strong, &title));
        text.push('\n');
        for line in &object.lines {
            text.push_str(format!("  {}", paint(line)).trim_end());
            text.push('\n');
        }
    }
    if !difference.tables.is_empty() {
        text.push('\n');
        text.push_str(&format::table(
            &["TABLE", "ROWS A", "ROWS B", "CHANGE", "SIZE A", "SIZE B", ""],
            &[false, true, true, true, true, true, false],
            &difference.tables.iter().map(table_row).collect::<Vec<_>>(),
        ));
        let equal = format::plural(difference.equal_tables as u64, "table is", "tables are");
        text.push_str(&format!("{equal} equal, row for row\n"));
    }
    if !difference.values.is_empty() {
        text.push('\n');
        for value in &difference.values {
            let show = |value: &Option<String>| value.as_deref().map_or("-".to_owned(), printable);
            let (before, after) = (show(&value.before), show(&value.after));
            text.push_str(&format!("{}: {before} -> {after}\n", printable(&value.what)));
        }
    }
    text
}

fn table_row(table: &TableChange) -> Vec<String> {
    let rows = |rows: Option<u64>| rows.map_or("-".to_owned(), format::count);
    let bytes = |bytes: Option<u64>| bytes.map_or("-".to_owned(), format::bytes);
    let (before, after) = (table.rows_before.unwrap_or(0), table.rows_after.unwrap_or(0));
    let change = match before.cmp(&after) {
        std::cmp::Ordering::Less => format!("+{}", format::count(after - before)),
        std::cmp::Ordering::Greater => format!("-{}", format::count(before - after)),
        std::cmp::Ordering::Equal => "0".to_owned(),
    };
    let note = match table.change {
        Change::Added => "new",
        Change::Removed => "gone",
        Change::Changed if table.columns_differ => "columns changed",
        Change::Changed if before == after => "content changed",
        Change::Changed => "",
    };
    vec![
        printable(&table.table),
        rows(table.rows_before),
        rows(table.rows_after),
        change,
        bytes(table.bytes_before),
        bytes(table.bytes_after),
        note.to_owned(),
    ]
}
