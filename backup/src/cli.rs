//! The `backup` command line.

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use chrono::{DateTime, Utc};
use clap::{Parser, Subcommand};
use common::{
    Error, ErrorKind, Result, Verdict,
    cli::{
        Output, Settings, SharedArgs,
        args::{parse_duration, parse_tag},
        config::CommandFlags,
        output::Tone,
        process,
    },
    format,
    postgres::{Environment, exported_snapshot::LockWait},
    repository::{
        Listed, Repository, StoredSnapshot,
        pins::Pin,
        sharing::Sharing,
        verifications::{How, Standing},
        verify,
    },
    snapshot::{
        Manifest, SnapshotId,
        copy_sql::{CHUNK_BLOCKS, Cut, PIECE_BLOCKS},
        cost::Cost,
        manifest::{Filters, Kind, Partial, Reading},
    },
};
use serde::Serialize;

use crate::{
    CreateOptions, check, diff, drill, half_done,
    manage::{self, Facts},
    prune,
    reuse::{FULL_EVERY, ReusePolicy},
    schedule, transfer,
};

/// Make, list and verify snapshots of PostgreSQL databases.
///
/// A snapshot is one consistent, compressed state of a whole database, in a folder that holds everything needed to
/// restore it: with `restore`, or with pg_restore and psql alone.
#[derive(Debug, Parser)]
#[command(
    name = "backup",
    version,
    max_term_width = 100,
    after_help = "Examples:\n  \
        backup create -d postgresql://app@db.example.com/shop     take a snapshot\n  \
        backup create --table 'app.*' --exclude-table-data app.log   a part: PARTIAL in the list\n  \
        backup list                                               what there is\n  \
        backup show latest                                        one snapshot in detail\n  \
        backup verify --all                                       is every byte still right?\n  \
        backup diff latest postgresql://app@db.example.com/shop   what changed since, by key and column\n  \
        backup drill                                              restore the latest, compare it, drop it again\n  \
        backup prune --keep-daily 7 --keep-weekly 4 --dry-run     what would go, and why the rest stays\n  \
        backup schedule --cron \"0 3 * * *\" --keep-daily 7       every night, verified, pruned, watched\n  \
        backup export latest -o - | ssh host backup import -      carry a snapshot elsewhere\n  \
        backup check -d postgresql://app@db.example.com/shop      can this role back up this database?\n\n\
        Exit codes: 0 done · 1 failed, database unchanged · 2 usage · 3 refused · 4 busy, try again · 5 no such snapshot · \
        6 damaged · 130/143 interrupted"
)]
pub struct Cli {
    #[command(flatten)]
    shared: SharedArgs,
    /// Print the manual page and exit, as `backup man` does (in roff: `… --man | man -l -`)
    #[arg(long, exclusive = true)]
    man: bool,
    /// Print a completion script for a shell and exit
    #[arg(long, value_name = "SHELL", exclusive = true)]
    completions: Option<common::cli::completions::Shell>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take a snapshot of the whole database
    Create(CreateArgs),
    /// List the snapshots; --verbose for every column
    List(ListArgs),
    /// Show one snapshot: tables, rows, sizes, and what it can't bring back
    Show(ShowArgs),
    /// Compare two of snapshots, live databases and SQLite files: schema, rows by key and column, sequences, settings
    ///
    /// Each side is read in one state and never changed; two snapshots need no server. The exit code is 0 where nothing differs
    /// and 1 where something does.
    Diff(Box<diff::DiffArgs>),
    /// Check every file of snapshots against their manifests; needs no server
    Verify(VerifyArgs),
    /// Restore a snapshot into a scratch database, compare every row, drop it, and record how long it took
    Drill(drill::DrillArgs),
    /// Keep snapshots: neither delete nor prune removes them until they are unpinned
    Pin(manage::PinArgs),
    /// Take pins away
    Unpin(manage::UnpinArgs),
    /// Delete snapshots for good; asks first, and refuses pinned ones
    Delete(manage::DeleteArgs),
    /// Delete what the keep rules do not keep, with a reason for every snapshot
    ///
    /// Pinned, damaged and future-dated snapshots, those from before migrations, and those that an unfinished run needs are
    /// always kept.
    Prune(prune::PruneArgs),
    /// Back up on a schedule: verify, prune, raise the alarm, drill, and show how it goes
    ///
    /// One process that is started and forgotten. Jobs come from the flags, or from `[[job]]` in safe-run.toml. A snapshot that
    /// was verified prunes by the keep rules; one that is strangely unlike its predecessor holds all pruning until somebody
    /// has looked.
    Schedule(Box<schedule::cli::ScheduleArgs>),
    /// Say that an alarm is none: who, when and why is kept; without an id, list the alarms
    Acknowledge(manage::AcknowledgeArgs),
    /// Take snapshots back out of the trash; without an id, list what is there
    Undelete(manage::UndeleteArgs),
    /// Write a snapshot as one tar file or stream, or as a SQLite database; needs no server
    Export(transfer::ExportArgs),
    /// Take in a snapshot that `backup export` wrote; every byte is compared with its manifest
    Import(transfer::ImportArgs),
    /// Check whether this role, on this machine, can back up the database, restore it, replace it, and undo commands
    Check {
        /// Exit with 3 unless this is possible too; may be repeated [default: backup]
        #[arg(long, value_name = "ABILITY", value_enum)]
        can: Vec<check::Ability>,
    },
    /// Print the manual page (in roff: `… man | man -l -`)
    Man,
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: common::cli::completions::Shell,
    },
}

#[derive(Debug, clap::Args)]
struct CreateArgs {
    /// Take only these tables, views or sequences, with the types and functions that they need; may be repeated
    ///
    /// A name, schema.name, or a pattern with * and ?, in double quotes where case or other characters matter, as for pg_dump. A
    /// partitioned table brings its partitions. A snapshot of a part is marked PARTIAL, and never restored in place of the
    /// whole database.
    #[arg(short = 't', long = "table", value_name = "PATTERN", help_heading = "A part of the database")]
    tables: Vec<String>,
    /// Take only these schemas; may be repeated
    #[arg(short = 'n', long = "schema", value_name = "PATTERN", help_heading = "A part of the database")]
    schemas: Vec<String>,
    /// Leave these tables out, and what needs them; may be repeated
    #[arg(
        short = 'T',
        long = "exclude-table",
        value_name = "PATTERN",
        help_heading = "A part of the database"
    )]
    exclude_tables: Vec<String>,
    /// Leave these schemas out; may be repeated
    #[arg(
        short = 'N',
        long = "exclude-schema",
        value_name = "PATTERN",
        help_heading = "A part of the database"
    )]
    exclude_schemas: Vec<String>,
    /// Take the definition of these tables without their rows; they come back empty
    #[arg(long = "exclude-table-data", value_name = "PATTERN", help_heading = "A part of the database")]
    exclude_table_data: Vec<String>,
    /// Name the snapshot
    #[arg(long)]
    name: Option<String>,
    /// Attach a tag; may be repeated
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = parse_tag)]
    tags: Vec<(String, String)>,
    /// Connections that copy [default: one per processor, at most 8]
    #[arg(short, long)]
    jobs: Option<usize>,
    /// Compression: zstd[:1-19], gzip[:1-9] or none [default: zstd:1]
    #[arg(long)]
    compress: Option<String>,
    /// How long one attempt waits for table locks [default: 2s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    lock_timeout: Option<Duration>,
    /// Further attempts to get the locks [default: 30]
    #[arg(long, value_name = "N")]
    lock_retries: Option<u32>,
    /// Read every row, and share no file with an earlier snapshot [default: chunks that the server says have not changed are
    /// taken over from it]
    #[arg(long)]
    full: bool,
    /// Read again, and store again, what was stored longer ago than this [default: 7d]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    full_every: Option<Duration>,
    /// Store the password hashes of the roles too, for `restore --create-roles`; needs a superuser or
    /// pg_read_all_data, and makes the snapshot a secret
    #[arg(long)]
    role_passwords: bool,
    /// Begin although the repository seems to have too little room
    #[arg(long)]
    skip_space_check: bool,
    /// Take the snapshot although a run of safe-run has left the database half-changed; note it in the snapshot
    #[arg(long)]
    despite_unfinished_run: bool,
    /// Look for rows that violate a foreign key, by joins in the snapshot: a restore can't validate such a key
    #[arg(long)]
    check_foreign_keys: bool,
    /// Give up when the copy takes longer than this: the server can't clean up behind the snapshot that is held [default: no
    /// limit]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    max_duration: Option<Duration>,
    /// Blocks of a table per chunk, for tests and measurements
    #[arg(long, value_name = "N", hide = true, default_value_t = CHUNK_BLOCKS,
          value_parser = clap::value_parser!(u64).range(1..))]
    chunk_blocks: u64,
    /// Blocks of a table per piece of a chunk, for tests and measurements
    #[arg(long, value_name = "N", hide = true, default_value_t = PIECE_BLOCKS,
          value_parser = clap::value_parser!(u64).range(1..))]
    piece_blocks: u64,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Only snapshots of this database
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// An id, a unique start of one, latest, or latest:tag=value
    snapshot: String,
}

#[derive(Debug, clap::Args)]
struct VerifyArgs {
    /// Ids, unique starts of ids, or latest
    #[arg(required_unless_present = "all", value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    /// Every snapshot of the repository
    #[arg(long, conflicts_with = "snapshots")]
    all: bool,
}

/// Parses the command line, runs it, and returns the exit code.
pub fn main() -> ExitCode {
    process::main(|cli: &Cli| &cli.shared, run)
}

async fn run(cli: &Cli, output: &Output) -> Result<u8> {
    if cli.man {
        output.data(&common::cli::completions::manual::<Cli>()?)?;
        return Ok(0);
    }
    if let Some(shell) = cli.completions {
        output.data(&common::cli::completions::script::<Cli>(shell))?;
        return Ok(0);
    }
    let mut flags = CommandFlags::default();
    if let Some(Command::Create(args)) = &cli.command {
        flags.jobs = args.jobs;
        flags.compress.clone_from(&args.compress);
        flags.lock_timeout = args.lock_timeout;
        flags.lock_retries = args.lock_retries;
    }
    if let Some(Command::Diff(args)) = &cli.command {
        flags.lock_timeout = args.lock_timeout;
        flags.lock_retries = args.lock_retries;
    }
    let settings = Settings::load(&cli.shared, flags, Environment::from_process())?;
    settings.apply_trust();
    settings.warnings.iter().for_each(|warning| output.warn(warning));
    if cli.shared.show_config {
        output.data(&settings.show()?)?;
        return Ok(0);
    }
    match &cli.command {
        None => Err(Error::usage("no command given")
            .with_hint("Run `backup --help`; the first command is `backup create`.")),
        Some(Command::Create(args)) => create(cli, args, &settings, output).await,
        Some(Command::List(args)) => list(args, &settings, output),
        Some(Command::Show(args)) => show(args, &settings, output),
        Some(Command::Verify(args)) => verify_all(args, &settings, output),
        Some(Command::Drill(args)) => drill::run(args, &cli.shared, &settings, output).await,
        Some(Command::Pin(args)) => manage::pin(args, &settings, output),
        Some(Command::Unpin(args)) => manage::unpin(args, &settings, output),
        Some(Command::Delete(args)) => manage::delete(args, &settings, output),
        Some(Command::Diff(args)) => Box::pin(diff::run(args, &settings, output)).await,
        Some(Command::Prune(args)) => prune::run(args, &settings, output),
        Some(Command::Schedule(args)) => schedule::cli::run(args, &cli.shared, output).await,
        Some(Command::Acknowledge(args)) => manage::acknowledge(args, &settings, output),
        Some(Command::Undelete(args)) => manage::undelete(args, &settings, output),
        // Who reads a snapshot holds the lock from before it looks for it: nobody deletes it in between.
        Some(Command::Export(args)) => {
            let _lock = Repository::open(&settings.repo)?.lock_reading()?;
            let snapshot = manage::find(&settings, &args.snapshot)?;
            transfer::export(args.clone(), snapshot, output).await
        }
        Some(Command::Import(args)) => transfer::import(args.clone(), &settings, output).await,
        Some(Command::Check { can }) => check::run(can, &cli.shared, &settings, output).await,
        Some(Command::Man) => {
            output.data(&common::cli::completions::manual::<Cli>()?)?;
            Ok(0)
        }
        Some(Command::Completions { shell }) => {
            output.data(&common::cli::completions::script::<Cli>(*shell))?;
            Ok(0)
        }
    }
}

async fn create(cli: &Cli, args: &CreateArgs, settings: &Settings, output: &Output) -> Result<u8> {
    let connection = settings.connection()?.with_application_name("backup create");
    connection.warnings().iter().for_each(|warning| output.warn(warning));
    process::wait_for_server(&connection, cli.shared.wait, output).await?;
    let unchanged = |error: Error| match error.database_state() {
        Some(_) => error,
        None => {
            error.with_database_state(format!("The database \"{}\" was not changed.", connection.database()))
        }
    };
    // Before the first lock is taken: a repository that can't be written is found out at once.
    let repository = Repository::open_or_create(&settings.repo)?;
    let mut options = CreateOptions {
        kind: Kind::Manual,
        name: args.name.clone(),
        tags: args.tags.iter().cloned().collect::<BTreeMap<_, _>>(),
        jobs: settings.jobs.unwrap_or_else(crate::default_jobs),
        codec: settings.codec,
        cut: Cut { chunk_blocks: args.chunk_blocks, piece_blocks: args.piece_blocks },
        reuse: ReusePolicy {
            full: args.full,
            full_every: args.full_every.unwrap_or(FULL_EVERY),
            ..ReusePolicy::default()
        },
        filters: Filters {
            schemas: args.schemas.clone(),
            tables: args.tables.clone(),
            exclude_schemas: args.exclude_schemas.clone(),
            exclude_tables: args.exclude_tables.clone(),
            exclude_table_data: args.exclude_table_data.clone(),
        },
        lock_wait: LockWait { timeout: settings.lock_timeout, retries: settings.lock_retries },
        skip_space_check: args.skip_space_check,
        check_foreign_keys: args.check_foreign_keys,
        role_passwords: args.role_passwords,
        max_duration: args.max_duration,
        ..CreateOptions::default()
    };
    let (database, despite) = (connection.database(), args.despite_unfinished_run);
    half_done::mark(&repository, database, despite, &mut options).map_err(unchanged)?;
    let snapshot =
        crate::create(&connection, &repository, &options, &output.progress()).await.map_err(unchanged)?;
    report_created(&snapshot, output)?;
    Ok(0)
}

fn created(manifest: &Manifest) -> Verdict {
    if manifest.is_partial() { Verdict::PartialSnapshot } else { Verdict::Snapshot }
}

fn report_created(snapshot: &StoredSnapshot, output: &Output) -> Result<()> {
    let manifest = &snapshot.manifest;
    if output.is_json() {
        let sharing = Sharing::read(std::iter::once(snapshot));
        #[derive(Serialize)]
        struct Created {
            verdict: Verdict,
            #[serde(flatten)]
            row: Row,
        }
        let row = Row::new(snapshot, &Facts::default(), &sharing);
        return output.document(&Created { verdict: created(manifest), row });
    }
    for line in &manifest.not_kept {
        output.say(&format!("{} {line}", output.paint(Tone::Dim, "note:")));
    }
    output.say(&format!(
        "{} {} of \"{}\": {}, {}, {} stored as {} in {}",
        output.verdict(created(manifest)),
        manifest.id,
        manifest.database.name,
        format::plural(manifest.tables.len() as u64, "table", "tables"),
        format::plural(manifest.rows(), "row", "rows"),
        format::bytes(manifest.raw_bytes()),
        format::bytes(manifest.stored_bytes()),
        format::duration(manifest.took()),
    ));
    if let Some(partial) = &manifest.partial {
        output.say(&format!("         only {}", part_text(manifest, partial)));
    }
    if let (Some(cost), true) = (&manifest.cost, output.is_verbose()) {
        output.say(&format!("         time of all connections: {cost}"));
    }
    output.say(&format!("         restore it beside the live database with: restore {}", manifest.id));
    // The id alone on stdout: `id=$(backup create -q)` works.
    output.data(&format!("{}\n", manifest.id))
}

/// How much was read for a snapshot, in one line.
fn reading_text(reading: &Reading) -> String {
    let mut text =
        format!("{} of {} chunks", format::count(reading.chunks_read), format::count(reading.chunks));
    if reading.chunks_in_part > 0 {
        text.push_str(&format!(", {} of them in part", format::count(reading.chunks_in_part)));
    }
    if let (Some(earlier), 1..) = (&reading.earlier, reading.chunks_shared) {
        let (shared, bytes) = (format::count(reading.chunks_shared), format::bytes(reading.bytes_shared));
        text.push_str(&format!("; {shared} shared with {earlier} ({bytes})"));
    }
    if let Some(why) = &reading.why_all {
        text.push_str(&format!("; all, because {}", common::ident::printable(why)));
    }
    text
}

/// What a partial snapshot holds, in one line.
fn part_text(manifest: &Manifest, partial: &Partial) -> String {
    let mut text = partial.filters.to_string();
    text.push_str(&format!(
        ": {} with rows",
        format::plural(manifest.tables.len() as u64, "table", "tables")
    ));
    if !partial.without_rows.is_empty() {
        text.push_str(&format!(", {} without", partial.without_rows.len()));
    }
    text.push_str(&format!(
        "; left out: {}",
        format::plural(partial.left_out.len() as u64, "object", "objects")
    ));
    text
}

/// One snapshot as `list --json` and `create --json` show it.
#[derive(Debug, Serialize)]
struct Row {
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
    fn new(snapshot: &StoredSnapshot, facts: &Facts, sharing: &Sharing) -> Self {
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

fn list(args: &ListArgs, settings: &Settings, output: &Output) -> Result<u8> {
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
pub fn snapshot_table(listed: &[Listed], facts: &Facts, now: DateTime<Utc>, is_wide: bool) -> String {
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

fn show(args: &ShowArgs, settings: &Settings, output: &Output) -> Result<u8> {
    let snapshot = manage::find(settings, &args.snapshot)?;
    let manifest = &snapshot.manifest;
    if output.is_json() {
        output.document(manifest)?;
        return Ok(0);
    }
    let mut text = format!(
        "{}\n  database   {} (owner {}, {}, {})\n  server     PostgreSQL {}\n  taken      {} in {}\n  \
         kind       {}\n  stored     {} as {} ({})\n  path       {}\n",
        output.paint(Tone::Strong, manifest.id.as_str()),
        common::ident::printable(&manifest.database.name),
        common::ident::printable(&manifest.database.owner),
        manifest.database.encoding,
        manifest.database.collate,
        manifest.server.version,
        manifest.taken_at.format("%Y-%m-%d %H:%M:%S UTC"),
        format::duration(manifest.took()),
        manifest.kind_cell(),
        format::bytes(manifest.raw_bytes()),
        format::bytes(manifest.stored_bytes()),
        manifest.codec,
        snapshot.dir.display(),
    );
    if let Some(cost) = &manifest.cost {
        text.push_str(&format!("  time       {cost}, of all connections\n"));
    }
    let facts = Facts::read(&Repository::open(&settings.repo)?)?;
    text.push_str(&format!("  verified   {}\n", facts.verified_cell(&manifest.id, Utc::now())));
    if let Some(pin) = facts.pin(&manifest.id) {
        text.push_str(&format!(
            "  pinned     {}\n",
            pin.note.as_deref().map_or("yes".to_owned(), common::ident::printable)
        ));
    }
    if let Some(reading) = &manifest.reading {
        text.push_str(&format!("  read       {}\n", reading_text(reading)));
    }
    if manifest.role_passwords {
        text.push_str("  secret     holds password hashes of roles (globals.sql)\n");
    }
    if let Some(name) = &manifest.name {
        text.push_str(&format!("  name       {name}\n"));
    }
    for (key, value) in &manifest.tags {
        text.push_str(&format!("  tag        {key}={value}\n"));
    }
    if let Some(partial) = &manifest.partial {
        text.push_str(&format!("  PARTIAL    only {}\n", part_text(manifest, partial)));
    }
    if let Some(objects) = &manifest.large_objects {
        text.push_str(&format!("  large objects  {}\n", format::count(objects.count)));
    }
    text.push('\n');
    let rows: Vec<Vec<String>> = manifest
        .tables
        .iter()
        .map(|table| {
            let sum = |of: fn(&common::snapshot::codec::StoredChunk) -> u64| {
                table.chunks.iter().map(|chunk| of(&chunk.content)).sum::<u64>()
            };
            vec![
                table.table.name.short(),
                format::count(table.rows()),
                format::bytes(sum(|content| content.raw_bytes)),
                format::bytes(sum(|content| content.stored_bytes)),
                table.chunks.len().to_string(),
            ]
        })
        .collect();
    text.push_str(&format::table(
        &["TABLE", "ROWS", "SIZE", "STORED", "CHUNKS"],
        &[false, true, true, true, true],
        &rows,
    ));
    if let Some(partial) = &manifest.partial {
        for name in &partial.without_rows {
            text.push_str(&format!(
                "\n{}: its definition only, its rows are not in the snapshot",
                name.short()
            ));
        }
        text.push_str("\nNot in this snapshot:\n");
        for line in &partial.left_out {
            text.push_str(&format!("  - {line}\n"));
        }
    }
    if !manifest.not_kept.is_empty() {
        text.push_str("\nWhat it can't bring back as it was:\n");
        for line in &manifest.not_kept {
            text.push_str(&format!("  - {line}\n"));
        }
    }
    output.data(&text)?;
    Ok(0)
}

fn verify_all(args: &VerifyArgs, settings: &Settings, output: &Output) -> Result<u8> {
    #[derive(Serialize)]
    struct Verified {
        id: String,
        verdict: Verdict,
        ok: bool,
        problem: Option<String>,
    }
    let repository = Repository::open(&settings.repo)?;
    // Before the look: what is deleted in between would be taken for damaged.
    let _lock = repository.lock_reading()?;
    let snapshots: Vec<(String, Result<StoredSnapshot>)> = if args.all {
        let listed = repository.list()?;
        listed.into_iter().map(|entry| (entry.id.to_string(), entry.snapshot)).collect()
    } else {
        let mut found = Vec::new();
        for wanted in &args.snapshots {
            let entry = manage::find_entry(settings, wanted)?;
            found.push((entry.id.to_string(), entry.snapshot));
        }
        found
    };
    let progress = output.progress();
    let jobs = crate::default_jobs();
    let seen = verify::Seen::default();
    let mut results = Vec::new();
    for (id, snapshot) in snapshots {
        let started = std::time::Instant::now();
        let result = snapshot.and_then(|snapshot| {
            progress.phase(format!("verifying {id}"), Some(snapshot.manifest.stored_bytes()));
            let done = verify::verify_one_of(snapshot, verify::Depth::Content, jobs, &seen, &|bytes| {
                progress.advance(bytes, 0);
            });
            progress.done();
            done
        });
        common::interrupt::check()?;
        if let Err(error) = &result
            && !output.is_json()
        {
            output.error(error);
        }
        let is_damaged = result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Damaged);
        if let (Ok(id), true) = (SnapshotId::parse(&id), result.is_ok() || is_damaged) {
            let seconds = started.elapsed().as_secs_f64();
            manage::record(&repository, &id, How::Hash, seconds, result.is_ok(), output);
        }
        results.push(Verified {
            id,
            verdict: match &result {
                Ok(_) => Verdict::Ok,
                Err(_) if is_damaged => Verdict::Damaged,
                // A file that may not be read, for example: nothing is known of it.
                Err(_) => Verdict::NotChecked,
            },
            ok: result.is_ok(),
            problem: result.err().map(|error| error.to_string()),
        });
    }
    let damaged = results.iter().filter(|result| !result.ok).count();
    if output.is_json() {
        #[derive(Serialize)]
        struct Document<'a> {
            verified: &'a [Verified],
        }
        output.document(&Document { verified: &results })?;
    } else {
        for result in &results {
            let word = format!("{:<11}", result.verdict.word());
            output.say(&format!("{}  {}", output.paint(result.verdict.tone(), &word), result.id));
        }
    }
    Ok(if damaged == 0 { 0 } else { ErrorKind::Damaged.exit_code() })
}
