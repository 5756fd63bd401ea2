//! The `restore` command line.

mod choose;
mod tell;

use std::process::ExitCode;

use clap::Parser;
use common::{
    Error, ErrorKind, Result,
    cli::{Output, Settings, SharedArgs, config::CommandFlags, process},
    postgres::{
        ConnectionSettings, Environment,
        connect::refuse_pooler,
        database,
        session_room::{self, Need},
    },
    repository::{Repository, StoredSnapshot},
};

use crate::{Choices, RestoreOptions, Target, bundle, parts::run::PartRequest};
use choose::choose;
use tell::{describe, say_whose_code_runs, told};

/// Bring a snapshot back: beside the live database, or in its place.
///
/// The snapshot is restored into a new database, and every row is compared with the snapshot. With --replace the two
/// databases then swap names in one transaction, and the replaced one is kept. Until that moment the live database is
/// not touched.
///
/// Restoring runs the code that the snapshot holds, as pg_restore does. One from somebody else is restored with --no-owner, by a
/// role without rights, on a server of its own (docs/trust.md).
#[derive(Debug, Parser)]
#[command(
    name = "restore",
    version,
    long_version = common::cli::version::long(),
    max_term_width = 100,
    after_help = "Examples:\n  \
        restore                              choose from a list\n  \
        restore latest                       into a new database beside the live one\n  \
        restore 20261121T034149Z --into shop_test\n  \
        restore 20261121T034149Z-shop-7f3k9q.tar  from an exported snapshot, without a repository\n  \
        restore latest --repo s3://bucket/shop    from a copy on object storage\n  \
        restore latest --table orders        one table beside the live one, under another name\n  \
        restore latest --table orders --replace   the live table's content, in one transaction\n  \
        restore latest --replace             put the live database back to that state\n  \
        restore latest --replace --dry-run   only say what would be done\n\n\
        Exit codes: 0 done · 1 failed, live database unchanged · 2 usage · 3 refused · 4 busy, try again · \
        5 no such snapshot · 6 damaged · 20 unknown state · 130/143 interrupted"
)]
pub struct Cli {
    #[command(flatten)]
    shared: SharedArgs,

    /// An id, a unique start of one, latest, latest:tag=value, or the path of an exported .tar; without it, choose from
    /// a list
    snapshot: Option<String>,

    /// Only these tables: a name, schema.name, or a pattern with * and ?, as in psql; may be repeated
    ///
    /// They come back beside the live ones, as NAME_restored_TIME in the same schema; with --into in a database of their own;
    /// with --replace as the content of the live tables.
    #[arg(long = "table", short = 't', value_name = "PATTERN")]
    tables: Vec<String>,

    /// Only the tables of these schemas; may be repeated
    #[arg(long = "schema", short = 'n', value_name = "PATTERN")]
    schemas: Vec<String>,

    /// Restore into a new database of this name
    #[arg(long, value_name = "NAME", conflicts_with = "replace")]
    into: Option<String>,

    /// Put the restored database (or tables) in the place of the live one; asks for the name to be typed
    #[arg(long)]
    replace: bool,

    /// With --replace: drop the replaced database (or the tables' old content) afterwards instead of keeping it
    #[arg(long, requires = "replace")]
    drop_replaced: bool,

    /// With --replace: leave replication slots and subscriptions behind
    #[arg(long, requires = "replace")]
    accept_slot_loss: bool,

    /// Objects belong to the connected role; leave grants out
    #[arg(long)]
    no_owner: bool,

    /// Make the roles that are missing; without passwords, unless the snapshot holds them (backup create --role-passwords)
    #[arg(long, conflicts_with = "no_owner")]
    create_roles: bool,

    /// What belongs to OLD, or is granted to OLD, becomes NEW's; NEW must exist, OLD need not; may be repeated
    #[arg(long = "map-role", value_name = "OLD=NEW", value_parser = parse_mapping, conflicts_with = "no_owner")]
    map_roles: Vec<(String, String)>,

    /// Restore on a server that is older than the snapshot: objects that it does not understand are left out, each is
    /// named, the exit code is 1, and no live database is replaced unless nothing is missing
    #[arg(long)]
    force: bool,

    /// Put what lies in tablespace OLD into NEW; may be repeated
    #[arg(long = "map-tablespace", value_name = "OLD=NEW", value_parser = parse_mapping, conflicts_with = "no_tablespaces")]
    map_tablespaces: Vec<(String, String)>,

    /// Put everything into the default tablespace
    #[arg(long)]
    no_tablespaces: bool,

    /// Leave out settings of the database and of functions that the server does not accept, and name them
    #[arg(long)]
    skip_settings: bool,

    /// Begin although the server seems to have too little disk space
    #[arg(long)]
    skip_space_check: bool,

    /// Connections that load [default: one per processor, at most 8]
    #[arg(short, long)]
    jobs: Option<usize>,

    /// With --table or --schema, beside or in place: run code of other roles with the rights of this one
    ///
    /// Functions that CHECK constraints, domains, generated columns, indexes, statistics and partition keys call. Without it such
    /// tables are refused, unless they go into a database of their own (--into), where owners run their code.
    #[arg(long)]
    run_owners_code: bool,

    /// With a URL as --repo: fetch the snapshot into a new folder below this one, and remove it at the end [default: TMPDIR]
    #[arg(long, value_name = "DIR")]
    spool: Option<std::path::PathBuf>,

    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,

    /// Mark the new database with this comment in place of its own, for `backup drill`
    #[arg(long, value_name = "TEXT", hide = true, requires = "into")]
    marker: Option<String>,

    /// Print the report as JSON to stdout, beside the text for people, for `backup drill`
    #[arg(long, hide = true, requires = "into")]
    document: bool,

    /// Print the manual page and exit, as `restore man` does (in roff: `restore --man | man -l -`)
    #[arg(long, exclusive = true)]
    man: bool,

    /// Print a completion script for a shell and exit
    #[arg(long, value_name = "SHELL", exclusive = true)]
    completions: Option<common::cli::completions::Shell>,
}

/// Parses the command line, runs it, and returns the exit code.
pub fn main() -> ExitCode {
    process::main(|cli: &Cli| &cli.shared, run)
}

async fn run(cli: &Cli, output: &Output) -> Result<u8> {
    flow(cli, output).await.map_err(|error| match (error.database_state(), error.kind()) {
        (None, kind) if kind != ErrorKind::Unknown => error.with_database_state("No database was changed."),
        _ => error,
    })
}

/// What ends before a restore begins may leave out that no database was changed.
async fn flow(cli: &Cli, output: &Output) -> Result<u8> {
    // No id begins like that.
    if cli.man || cli.snapshot.as_deref() == Some("man") {
        output.data(&common::cli::completions::manual::<Cli>()?)?;
        return Ok(0);
    }
    if let Some(shell) = cli.completions {
        output.data(&common::cli::completions::script::<Cli>(shell))?;
        return Ok(0);
    }
    let flags = CommandFlags { jobs: cli.jobs, ..CommandFlags::default() };
    let settings = Settings::load(&cli.shared, flags, Environment::from_process())?;
    settings.apply_trust();
    settings.warnings.iter().for_each(|warning| output.warn(warning));
    if cli.shared.show_config {
        output.data(&settings.show()?)?;
        return Ok(0);
    }
    if cli.into.as_ref().is_some_and(|name| name.contains("://")) {
        return Err(Error::usage("--into takes the name of a database, and was given a URL").with_hint(
            "Give the name alone, such as --into shop_test. The server is the one of -d or DATABASE_URL.",
        ));
    }
    if let Some(archive) = cli.snapshot.as_deref().and_then(bundle::archive) {
        return restore_archive(cli, &settings, &archive, output).await;
    }
    if store::is_url(&settings.repo) {
        return restore_copy(cli, &settings, output).await;
    }
    if cli.spool.is_some() {
        return Err(Error::usage("--spool is for a copy, and --repo names a folder")
            .with_hint("Leave --spool out: a snapshot in a folder is read where it lies."));
    }
    // A wrong URL is wrong whatever the repository holds.
    let connection = settings.connection()?.with_application_name("restore");
    let repository = Repository::open(&settings.repo)?;
    let _lock = repository.lock_reading()?;
    let Some(wanted) = choose(cli, &repository, output)? else { return Ok(ErrorKind::Usage.exit_code()) };
    // `latest` means the latest of the database that the settings name, when they name one.
    connection.warnings().iter().for_each(|warning| output.warn(warning));
    let database = settings.names_database().then(|| connection.database().to_owned());
    let snapshot = repository.find(&wanted, database.as_deref())?;
    if !repository.is_made_here(&snapshot) {
        say_whose_code_runs(&snapshot, output);
    }
    restore(cli, &settings, connection, snapshot, output).await
}

async fn restore_archive(
    cli: &Cli,
    settings: &Settings,
    archive: &std::path::Path,
    output: &Output,
) -> Result<u8> {
    let connection = settings.connection()?.with_application_name("restore");
    connection.warnings().iter().for_each(|warning| output.warn(warning));
    if cli.dry_run && !part_request(cli).is_some() {
        // The plan comes from the manifest alone: nothing is unpacked.
        let snapshot = StoredSnapshot { dir: archive.to_owned(), manifest: bundle::manifest(archive)? };
        return restore(cli, settings, connection, snapshot, output).await;
    }
    let unpacked = bundle::unpack(archive, &output.progress()).await?;
    say_whose_code_runs(unpacked.snapshot(), output);
    let result = restore(cli, settings, connection, unpacked.snapshot().clone(), output).await;
    if let Err(error) = unpacked.remove() {
        output.warn(&format!("the unpacked snapshot is still there: {error}"));
    }
    result
}

/// A copy is fetched as an archive is unpacked, and then restored from there.
async fn restore_copy(cli: &Cli, settings: &Settings, output: &Output) -> Result<u8> {
    let connection = settings.connection()?.with_application_name("restore");
    connection.warnings().iter().for_each(|warning| output.warn(warning));
    let Some(wanted) = &cli.snapshot else {
        return Err(Error::usage("no snapshot is named")
            .with_hint("Give an id or latest; `backup list --repo URL` shows what there is."));
    };
    let copies = store::interruptible(store::Copies::open(&settings.repo.to_string_lossy())).await?;
    let database = settings.names_database().then(|| connection.database().to_owned());
    let found = store::interruptible(copies.find(wanted, database.as_deref())).await?;
    let record = found.record.map_err(|error| error.context(&found.id))?;
    if cli.dry_run && !part_request(cli).is_some() {
        // The plan comes from the manifest alone: nothing else is fetched.
        let (manifest, _) = copies.manifest(&record).await?;
        let snapshot = StoredSnapshot { dir: settings.repo.clone(), manifest };
        return restore(cli, settings, connection, snapshot, output).await;
    }
    let parent = cli.spool.clone().unwrap_or_else(std::env::temp_dir);
    let fetched =
        copies.fetch(&record, &parent, &output.progress()).await.map_err(|error| match error.hint() {
            None => {
                error.with_hint("Run `backup verify --repo URL` to see everything that is damaged, or restore another snapshot.")
            }
            Some(_) => error,
        })?;
    say_whose_code_runs(fetched.snapshot(), output);
    let result = restore(cli, settings, connection, fetched.snapshot().clone(), output).await;
    if let Err(error) = fetched.remove() {
        output.warn(&format!("the fetched snapshot is still there: {error}"));
    }
    result
}

async fn restore(
    cli: &Cli,
    settings: &Settings,
    connection: ConnectionSettings,
    snapshot: StoredSnapshot,
    output: &Output,
) -> Result<u8> {
    let origin = snapshot.manifest.database.name.clone();
    // Nothing named a database: the snapshot's own name is what a person means.
    let connection = if settings.names_database() { connection } else { connection.with_database(&origin) };
    let target = match (&cli.into, cli.replace) {
        (Some(name), _) => Target::Into(name.clone()),
        (None, true) => Target::Replace,
        (None, false) => Target::Beside,
    };
    let live = connection.database().to_owned();
    let request = part_request(cli);
    if target == Target::Replace && live != origin {
        output.warn(&format!("the snapshot is of \"{origin}\", and \"{live}\" is to be replaced"));
    }
    let mut options = RestoreOptions {
        jobs: settings.jobs.unwrap_or_else(common::cli::config::default_jobs),
        choices: Choices {
            no_owner: cli.no_owner,
            create_roles: cli.create_roles,
            accept_missing_grants: false,
            accept_slot_loss: cli.accept_slot_loss,
            own_slot: None,
            drop_replaced: cli.drop_replaced,
            map_roles: cli.map_roles.clone(),
            force: cli.force,
            accept_missing_objects: false,
            skip_settings: cli.skip_settings,
            no_tablespaces: cli.no_tablespaces,
            map_tablespaces: cli.map_tablespaces.clone(),
            skip_space_check: cli.skip_space_check,
            marker: cli.marker.clone(),
            read_only: false,
        },
    };
    let maintenance_settings = connection.with_database("postgres");
    process::wait_for_server(&maintenance_settings, cli.shared.wait, output).await?;
    let maintenance = database::connect_maintenance(&connection, &[&live]).await?;
    // CREATE DATABASE and the swap need a session that stays the same.
    refuse_pooler(&maintenance).await?;
    if !cli.dry_run {
        // Beside this one: a session of ours or pg_restore's own, and who loads.
        let need = Need { fixed: 1, per_job: 1, jobs: options.jobs, same_database: false };
        let room = session_room::find(&maintenance, need).await?;
        if let Some(said) = room.said {
            output.progress().note(said);
        }
        options.jobs = room.jobs;
    }
    // With several hosts, every further session and pg_restore must reach the server that answered.
    let connection = maintenance.settings().with_database(&live);
    if request.is_some() {
        let code =
            crate::parts::run::run(&request, settings, &connection, &maintenance, snapshot, options, output)
                .await?;
        maintenance.close().await?;
        return Ok(code);
    }
    let plan = crate::whole::prepare(&connection, &maintenance, &snapshot, &target, &options).await?;
    if cli.dry_run {
        if output.is_json() {
            output.document(&plan)?;
        } else {
            output.data(&describe(&plan))?;
        }
        return Ok(0);
    }
    if let Some(replaced) = &plan.replaces {
        output.say(&describe(&plan));
        output.confirm_typed(
            &format!("Sessions in \"{replaced}\" are ended. Type the database's name to go on:"),
            replaced,
        )?;
    }
    let progress = output.progress();
    let verified = crate::whole::verified(snapshot, options.jobs, &progress).await?;
    let report =
        crate::whole::execute(&connection, &maintenance, &verified, plan, &options, &progress).await?;
    let name = &report.database;
    told(cli, output, &connection, &report)
        .map_err(|error| error.with_database_state(format!("The restore is done: database \"{name}\".")))?;
    // What it was for is done.
    let _ = maintenance.close().await;
    Ok(if report.missing.is_empty() { 0 } else { ErrorKind::Failed.exit_code() })
}

/// Reads `OLD=NEW`. A name with an equals sign can't be given: which one parts the two would be a guess.
fn parse_mapping(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((old, new)) if !old.is_empty() && !new.is_empty() && !new.contains('=') => {
            Ok((old.to_owned(), new.to_owned()))
        }
        _ => Err("not of the form OLD=NEW".to_owned()),
    }
}

fn part_request(cli: &Cli) -> PartRequest<'_> {
    PartRequest {
        tables: &cli.tables,
        schemas: &cli.schemas,
        into: cli.into.as_deref(),
        replace: cli.replace,
        drop_replaced: cli.drop_replaced,
        run_owners_code: cli.run_owners_code,
        dry_run: cli.dry_run,
    }
}
