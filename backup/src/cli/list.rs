//! `backup list`.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use common::{
    Result, Verdict,
    cli::{Output, Settings},
    format,
    repository::{Listed, Repository, StoredSnapshot, pins::Pin, sharing::Sharing, verifications::Standing},
    snapshot::{
        cost::Cost,
        manifest::{Filters, Reading},
    },
};
use serde::Serialize;

use crate::manage::{self, Facts};

#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// Only snapshots of this database
    #[arg(long, value_name = "NAME")]
    pub(super) database: Option<String>,
}

/// One snapshot as `list --json` and `create --json` show it.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    id: String,
    time: chrono::DateTime<Utc>,
    database: String,
    server_version: String,
    kind: String,
    name: Option<String>,
    tables: u64,
    rows: u64,
    raw_bytes: u64,
    stored_bytes: u64,
    /// Of the stored bytes, those in files that other snapshots hold as well.
    shared_bytes: u64,
    /// How much was read for it, and how much taken over from an earlier one.
    #[serde(skip_serializing_if = "Option::is_none")]
    reading: Option<Reading>,
    seconds: f64,
    tags: BTreeMap<String, String>,
    not_kept: Vec<String>,
    /// For a snapshot of a part of the database: the filters, what is left out, and tables without their rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    partial: Option<PartRow>,
    role_passwords: bool,
    /// Where the time of copying rows went.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<Cost>,
    path: String,
    verified: Standing,
    pin: Option<Pin>,
}

/// What `list --json` says about a partial snapshot.
#[derive(Debug, Serialize)]
struct PartRow {
    filters: Filters,
    left_out: Vec<String>,
    without_rows: Vec<String>,
}

impl Row {
    pub(super) fn new(snapshot: &StoredSnapshot, facts: &Facts, sharing: &Sharing) -> Self {
        let manifest = &snapshot.manifest;
        Self {
            id: manifest.id.to_string(),
            time: manifest.taken_at,
            database: manifest.database.name.clone(),
            server_version: manifest.server.version.clone(),
            kind: manifest.kind.to_string(),
            name: manifest.name.clone(),
            tables: manifest.tables.len() as u64,
            rows: manifest.rows(),
            raw_bytes: manifest.raw_bytes(),
            stored_bytes: manifest.stored_bytes(),
            shared_bytes: sharing.shared_bytes(&manifest.id),
            reading: manifest.reading.clone(),
            seconds: manifest.took().as_secs_f64(),
            tags: manifest.tags.clone(),
            not_kept: manifest.not_kept.clone(),
            partial: manifest.partial.as_ref().map(|partial| PartRow {
                filters: partial.filters.clone(),
                left_out: partial.left_out.clone(),
                without_rows: partial.without_rows.iter().map(|name| name.short()).collect(),
            }),
            role_passwords: manifest.role_passwords,
            cost: manifest.cost,
            path: snapshot.dir.display().to_string(),
            verified: facts.standing(&manifest.id),
            pin: facts.pin(&manifest.id).cloned(),
        }
    }
}

pub(super) fn list(args: &ListArgs, settings: &Settings, output: &Output) -> Result<u8> {
    let repository = Repository::open(&settings.repo)?;
    let wanted = |entry: &Listed| match (&args.database, &entry.snapshot) {
        (Some(name), Ok(snapshot)) => snapshot.manifest.database.name == *name,
        _ => true,
    };
    let (listed, others): (Vec<Listed>, Vec<Listed>) = repository.list()?.into_iter().partition(wanted);
    let facts = Facts::read(&repository)?;
    if output.is_json() {
        #[derive(Serialize)]
        struct Damaged {
            id: String,
            problem: String,
        }
        #[derive(Serialize)]
        struct List {
            snapshots: Vec<Row>,
            damaged: Vec<Damaged>,
        }
        let sharing = Sharing::read(listed.iter().filter_map(|entry| entry.snapshot.as_ref().ok()));
        let (mut snapshots, mut damaged) = (Vec::new(), Vec::new());
        for entry in listed {
            match entry.snapshot {
                Ok(snapshot) => snapshots.push(Row::new(&snapshot, &facts, &sharing)),
                Err(error) => damaged.push(Damaged { id: entry.id.to_string(), problem: error.to_string() }),
            }
        }
        output.document(&List { snapshots, damaged })?;
        return Ok(0);
    }
    if let (true, Some(name), 1..) = (listed.is_empty(), &args.database, others.len()) {
        output.say(&manage::none_of(name, &repository, &others));
        return Ok(0);
    }
    if listed.is_empty() {
        output
            .say(&format!("No snapshots in {}. Take one with `backup create`.", repository.root().display()));
        return Ok(0);
    }
    output.data(&snapshot_table(&listed, &facts, Utc::now(), output.is_verbose()))?;
    for entry in &listed {
        if let Err(error) = &entry.snapshot {
            output.warn(&format!("{}: {error}", entry.id));
        }
    }
    Ok(0)
}

/// Columns that the short table of `backup list` takes.
const LIST_WIDTH: usize = 100;

/// The table of `backup list`: what fits a terminal of 100 columns, or everything. SHARED is the part of STORED that other
/// snapshots hold as well.
fn snapshot_table(listed: &[Listed], facts: &Facts, now: DateTime<Utc>, is_wide: bool) -> String {
    const ALL: [(&str, bool, bool); 15] = [
        ("ID", false, true),
        ("TIME", false, false),
        ("AGE", true, true),
        ("DATABASE", false, false),
        ("PG", true, false),
        ("KIND", false, true),
        ("TABLES", true, false),
        ("ROWS", true, true),
        ("SIZE", true, false),
        ("STORED", true, true),
        ("SHARED", true, false),
        ("TOOK", true, false),
        ("VERIFIED", false, true),
        ("PIN", false, true),
        ("TAGS", false, true),
    ];
    let sharing = Sharing::read(listed.iter().filter_map(|entry| entry.snapshot.as_ref().ok()));
    let row = |entry: &Listed| match &entry.snapshot {
        Ok(snapshot) => {
            let manifest = &snapshot.manifest;
            let age = (now - manifest.taken_at).to_std().unwrap_or_default();
            let mut tags: Vec<String> =
                manifest.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
            tags.extend(manifest.role_passwords.then(|| "(role passwords)".to_owned()));
            tags.extend(manifest.name.iter().map(|name| format!("\"{name}\"")));
            vec![
                manifest.id.to_string(),
                manifest.taken_at.format("%Y-%m-%d %H:%M:%SZ").to_string(),
                format::age(age),
                common::ident::printable(&manifest.database.name),
                manifest.server.major().to_string(),
                manifest.kind_cell(),
                format::count(manifest.tables.len() as u64),
                format::count(manifest.rows()),
                format::bytes(manifest.raw_bytes()),
                format::bytes(manifest.stored_bytes()),
                match sharing.shared_bytes(&manifest.id) {
                    0 => "-".to_owned(),
                    shared => format::bytes(shared),
                },
                format::duration(manifest.took()),
                facts.verified_cell(&manifest.id, now),
                facts.pin_cell(&manifest.id).to_owned(),
                common::ident::printable(&tags.join(" ")),
            ]
        }
        Err(_) => {
            let mut row = vec!["-".to_owned(); ALL.len()];
            row[0] = entry.id.to_string();
            row[1] = Verdict::Damaged.word().to_owned();
            row[5] = Verdict::Damaged.word().to_owned();
            row[13] = facts.pin_cell(&entry.id).to_owned();
            row
        }
    };
    let chosen = |(number, _): &(usize, &(&str, bool, bool))| is_wide || ALL[*number].2;
    let columns: Vec<usize> = ALL.iter().enumerate().filter(chosen).map(|(number, _)| number).collect();
    let mut rows: Vec<Vec<String>> = listed
        .iter()
        .map(|entry| {
            let cells = row(entry);
            columns.iter().map(|number| cells[*number].clone()).collect()
        })
        .collect();
    let header: Vec<&str> = columns.iter().map(|number| ALL[*number].0).collect();
    let right: Vec<bool> = columns.iter().map(|number| ALL[*number].1).collect();
    if !is_wide {
        // The last column takes what is left.
        let width = |column: usize| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.chain([header[column].len()]).max().unwrap_or(0)
        };
        let others: usize = (0..columns.len() - 1).map(|column| width(column) + 2).sum();
        let left = LIST_WIDTH.saturating_sub(others).max("TAGS".len());
        for row in &mut rows {
            if let Some(tags) = row.last_mut() {
                *tags = format::cut(tags, left);
            }
        }
    }
    format::table(&header, &right, &rows)
}
