//! Copies: `backup copy`, `backup collect`, and what `list`, `show`, `verify` and `delete` are with a URL as `--repo`.

use std::{collections::HashSet, time::Duration};

use common::{
    Error, ErrorKind, Result, Verdict,
    cli::{Output, Settings, args::parse_duration, output::Tone},
    format,
    ident::printable,
    repository::{Repository, StoredSnapshot},
    snapshot::SnapshotId,
};
use serde::Serialize;
use store::{Copies, ListedRecord, Record, Sent, collect::Plan};

use super::{Command, list::ListArgs, verify::VerifyArgs};
use crate::manage;

/// Arguments of `backup copy`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct CopyArgs {
    /// Ids, unique starts of ids, latest, or latest:tag=value
    #[arg(required_unless_present = "all", value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    /// Every snapshot of the repository
    #[arg(long, conflicts_with = "snapshots")]
    all: bool,
    /// Where to: s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, or file:///path
    #[arg(long, value_name = "URL")]
    to: String,
}

/// Arguments of `backup collect`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct CollectArgs {
    /// Delete only what an earlier run noted at least this long ago
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_duration)]
    grace: Duration,
    /// Say what would be deleted, and delete nothing
    #[arg(long)]
    dry_run: bool,
}

/// Whether `--repo` is a URL.
pub(super) fn is_for(settings: &Settings) -> bool {
    store::is_url(&settings.repo)
}

pub(super) fn no_url() -> Error {
    Error::usage("`backup collect` is for copy repositories, and --repo names a folder").with_hint(
        "Give the URL with --repo. A folder's own files are deleted by `backup prune` and `backup delete`.",
    )
}

/// Runs a command on a copy repository.
pub(super) async fn run(command: &Command, settings: &Settings, output: &Output) -> Result<u8> {
    let url = settings.repo.to_string_lossy();
    match command {
        Command::List(args) => list(args, &Copies::open(&url).await?, output).await,
        Command::Show(args) => show(&args.snapshot, &Copies::open(&url).await?, output).await,
        Command::Verify(args) => verify(args, &Copies::open(&url).await?, output).await,
        Command::Delete(args) => delete(&args.snapshots, &Copies::open(&url).await?, output).await,
        Command::Collect(args) => collect(args, &Copies::open(&url).await?, output).await,
        _ => Err(Error::usage("this command works on a folder, and --repo is a URL").with_hint(
            "Take snapshots into a folder with `backup create`, and copy them with `backup copy ID --to URL`. A URL is taken by \
             list, show, verify, delete, collect, and by `restore`.",
        )),
    }
}

#[derive(Serialize)]
struct Copied {
    id: String,
    was_there: bool,
    files_sent: u64,
    bytes_sent: u64,
    files_there: u64,
    bytes_there: u64,
}

/// Runs `backup copy`.
pub(super) async fn copy(args: &CopyArgs, settings: &Settings, output: &Output) -> Result<u8> {
    let repository = Repository::open(&settings.repo)?;
    // From before the look until the end: nobody deletes what is being read.
    let _lock = repository.lock_reading()?;
    let snapshots = chosen(args, &repository, settings)?;
    let copies = Copies::open_or_create(&args.to).await?;
    let progress = output.progress();
    let (mut done, mut damaged) = (Vec::new(), Vec::new());
    for (id, snapshot) in snapshots {
        match async { copies.send(&snapshot?, &progress).await }.await {
            Ok(sent) => {
                say_copied(&id, &sent, &copies, output)?;
                done.push((id, sent));
            }
            // One that is damaged does not keep the others from being copied.
            Err(error) if args.all && error.kind() == ErrorKind::Damaged => {
                output.error(&error.context(&id));
                damaged.push(id);
            }
            Err(error) => return Err(error.context(&id)),
        }
    }
    if output.is_json() {
        #[derive(Serialize)]
        struct Document {
            repository: String,
            copied: Vec<Copied>,
            damaged: Vec<String>,
        }
        let row = |(id, sent): (String, Sent)| Copied {
            id,
            was_there: sent.was_there,
            files_sent: sent.files,
            bytes_sent: sent.bytes,
            files_there: sent.files_there,
            bytes_there: sent.bytes_there,
        };
        let is_damaged = !damaged.is_empty();
        let copied = done.into_iter().map(row).collect();
        output.document(&Document { repository: copies.shown().to_owned(), copied, damaged })?;
        return Ok(if is_damaged { ErrorKind::Damaged.exit_code() } else { 0 });
    }
    Ok(if damaged.is_empty() { 0 } else { ErrorKind::Damaged.exit_code() })
}

type Chosen = Vec<(String, Result<StoredSnapshot>)>;

fn chosen(args: &CopyArgs, repository: &Repository, settings: &Settings) -> Result<Chosen> {
    if args.all {
        return Ok(repository
            .list()?
            .into_iter()
            .map(|entry| (entry.id.to_string(), entry.snapshot))
            .collect());
    }
    args.snapshots
        .iter()
        .map(|wanted| manage::find(settings, wanted).map(|found| (found.manifest.id.to_string(), Ok(found))))
        .collect()
}

fn say_copied(id: &str, sent: &Sent, copies: &Copies, output: &Output) -> Result<()> {
    if output.is_json() {
        return Ok(());
    }
    let what = if sent.was_there {
        "is there already".to_owned()
    } else {
        format!(
            "sent {} in {}, {} in {} there already",
            format::bytes(sent.bytes),
            format::plural(sent.files, "file", "files"),
            format::bytes(sent.bytes_there),
            format::plural(sent.files_there, "file", "files"),
        )
    };
    output.say(&format!("{} {id} to {}: {what}", output.paint(Tone::Good, "COPIED"), copies.shown()));
    output.data(&format!("{id}\n"))
}

async fn list(args: &ListArgs, copies: &Copies, output: &Output) -> Result<u8> {
    let mut listed = copies.list().await?;
    if let Some(name) = &args.database {
        listed.retain(|one| one.record.as_ref().map_or(true, |record| record.database == *name));
    }
    if output.is_json() {
        #[derive(Serialize)]
        struct Row<'a> {
            id: &'a str,
            database: Option<&'a str>,
            rows: Option<u64>,
            bytes: Option<u64>,
            problem: Option<String>,
        }
        let row = |one: &'_ ListedRecord| {
            let record = one.record.as_ref().ok();
            serde_json::to_value(Row {
                id: one.id.as_str(),
                database: record.map(|record| record.database.as_str()),
                rows: record.map(|record| record.rows),
                bytes: record.map(Record::bytes),
                problem: one.record.as_ref().err().map(ToString::to_string),
            })
        };
        let rows: std::result::Result<Vec<_>, _> = listed.iter().map(row).collect();
        let rows = rows.map_err(|source| Error::failed(format!("could not encode the list: {source}")))?;
        output.document(&serde_json::json!({ "repository": copies.shown(), "snapshots": rows }))?;
        return Ok(0);
    }
    if listed.is_empty() {
        output.say(&format!("No snapshots at {}.", copies.shown()));
        return Ok(0);
    }
    let rows: Vec<Vec<String>> = listed
        .iter()
        .map(|one| match &one.record {
            Ok(record) => vec![
                one.id.to_string(),
                one.id.taken_at().format("%Y-%m-%d %H:%M:%SZ").to_string(),
                printable(&record.database),
                printable(&record.server_version),
                format::count(record.tables),
                format::count(record.rows),
                format::bytes(record.bytes()),
            ],
            Err(_) => {
                let mut row = vec!["-".to_owned(); 7];
                row[0] = one.id.to_string();
                row[1] = Verdict::Damaged.word().to_owned();
                row
            }
        })
        .collect();
    let header = ["ID", "TIME", "DATABASE", "PG", "TABLES", "ROWS", "STORED"];
    output.data(&format::table(&header, &[false, false, false, false, true, true, true], &rows))?;
    for one in &listed {
        if let Err(error) = &one.record {
            output.warn(&format!("{}: {error}", one.id));
        }
    }
    Ok(0)
}

async fn show(wanted: &str, copies: &Copies, output: &Output) -> Result<u8> {
    let found = copies.find(wanted, None).await?;
    let record = found.record.map_err(|error| error.context(&found.id))?;
    if output.is_json() {
        let (manifest, _) = copies.manifest(&record).await?;
        output.document(&manifest)?;
        return Ok(0);
    }
    output.data(&format!(
        "{}\n  database   {}\n  server     PostgreSQL {}\n  taken      {}\n  content    {}, {}\n  stored     {} in {}\n  at         {}\n",
        output.paint(Tone::Strong, &record.id),
        printable(&record.database),
        printable(&record.server_version),
        found.id.taken_at().format("%Y-%m-%d %H:%M:%SZ"),
        format::plural(record.tables, "table", "tables"),
        format::plural(record.rows, "row", "rows"),
        format::bytes(record.bytes()),
        format::plural(record.files.len() as u64, "file", "files"),
        copies.shown(),
    ))?;
    Ok(0)
}

async fn verify(args: &VerifyArgs, copies: &Copies, output: &Output) -> Result<u8> {
    #[derive(Serialize)]
    struct Verified {
        id: String,
        ok: bool,
        problem: Option<String>,
    }
    let listed = if args.all {
        copies.list().await?
    } else {
        let mut found = Vec::new();
        for wanted in &args.snapshots {
            found.push(copies.find(wanted, None).await?);
        }
        found
    };
    let progress = output.progress();
    let mut seen = HashSet::new();
    let mut results = Vec::new();
    for ListedRecord { id, record } in listed {
        let result = match record {
            Ok(record) => copies.verify(&record, &mut seen, &progress).await,
            Err(error) => Err(error),
        };
        let problem = match result {
            Ok(()) => None,
            Err(error) if error.kind() == ErrorKind::Damaged => {
                let text = error.to_string();
                if !output.is_json() {
                    output.error(&error.context(&id));
                }
                Some(text)
            }
            Err(error) => return Err(error.context(&id)),
        };
        let verdict = if problem.is_none() { Verdict::Ok } else { Verdict::Damaged };
        if !output.is_json() {
            output
                .say(&format!("{}  {id}", output.paint(verdict.tone(), &format!("{:<11}", verdict.word()))));
        }
        results.push(Verified { id: id.to_string(), ok: problem.is_none(), problem });
    }
    let is_damaged = results.iter().any(|result| !result.ok);
    if output.is_json() {
        output.document(&serde_json::json!({ "repository": copies.shown(), "verified": results }))?;
    }
    Ok(if is_damaged { ErrorKind::Damaged.exit_code() } else { 0 })
}

async fn delete(wanted: &[String], copies: &Copies, output: &Output) -> Result<u8> {
    let mut ids: Vec<SnapshotId> = Vec::new();
    for wanted in wanted {
        let found = copies.find(wanted, None).await?;
        if !ids.contains(&found.id) {
            output.say(&format!("{}  at {}", found.id, copies.shown()));
            ids.push(found.id);
        }
    }
    let count = format::plural(ids.len() as u64, "copy", "copies");
    output.confirm_typed(&format!("Delete {count} for good? Type yes to go on:"), "yes")?;
    for id in &ids {
        copies.forget(id).await?;
    }
    if output.is_json() {
        let ids: Vec<&str> = ids.iter().map(SnapshotId::as_str).collect();
        output.document(&serde_json::json!({ "deleted": ids }))?;
        return Ok(0);
    }
    for id in &ids {
        output.say(&format!("{} {id}", output.paint(Tone::Good, "DELETED ")));
        output.data(&format!("{id}\n"))?;
    }
    output.say("Its bytes stay until `backup collect --repo URL` finds that no other copy names them.");
    Ok(0)
}

async fn collect(args: &CollectArgs, copies: &Copies, output: &Output) -> Result<u8> {
    let plan: Plan = copies.look(args.grace).await?;
    if !args.dry_run {
        copies.collect(&plan).await?;
    }
    if output.is_json() {
        output.document(&serde_json::json!({
            "repository": copies.shown(),
            "dry_run": args.dry_run,
            "deleted": plan.delete.len(),
            "bytes": plan.bytes,
            "noted": plan.condemn.len(),
            "held_by_a_copy": plan.is_held,
        }))?;
        return Ok(0);
    }
    let would = if args.dry_run { "would be " } else { "" };
    output.say(&format!(
        "{} {would}deleted ({}); {} {would}noted, for a run at least {} later",
        format::plural(plan.delete.len() as u64, "object", "objects"),
        format::bytes(plan.bytes),
        format::plural(plan.condemn.len() as u64, "object", "objects"),
        format::duration(args.grace),
    ));
    if plan.is_held {
        output.say("A copy runs, or died less than a day ago: nothing is deleted meanwhile.");
    }
    Ok(0)
}
