//! `backup create`.

use std::{collections::BTreeMap, time::Duration};

use common::{
    Error, Result, Verdict,
    cli::{
        Output, Settings, SharedArgs,
        args::{parse_duration, parse_tag},
        config::CommandFlags,
        output::Tone,
        process,
    },
    format,
    postgres::exported_snapshot::LockWait,
    repository::{Repository, StoredSnapshot, sharing::Sharing},
    snapshot::{
        Manifest,
        copy_sql::{CHUNK_BLOCKS, Cut, PIECE_BLOCKS},
        manifest::{Filters, Kind},
    },
};
use serde::Serialize;

use super::{list::Row, show::part_text};
use crate::{
    CreateOptions, half_done,
    manage::Facts,
    reuse::{FULL_EVERY, ReusePolicy},
};

#[derive(Debug, clap::Args)]
pub(super) struct CreateArgs {
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

impl CreateArgs {
    pub(super) fn flags(&self) -> CommandFlags {
        CommandFlags {
            jobs: self.jobs,
            compress: self.compress.clone(),
            lock_timeout: self.lock_timeout,
            lock_retries: self.lock_retries,
            ..CommandFlags::default()
        }
    }
}

pub(super) async fn create(
    args: &CreateArgs,
    shared: &SharedArgs,
    settings: &Settings,
    output: &Output,
) -> Result<u8> {
    let connection = settings.connection()?.with_application_name("backup create");
    connection.warnings().iter().for_each(|warning| output.warn(warning));
    process::wait_for_server(&connection, shared.wait, output).await?;
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
