//! `safe-run import`: the flags, the dry run, the schema as a file, and the run.

use std::{io::IsTerminal as _, path::PathBuf};

use clap::Args;
use common::{Error, ErrorKind, Result, files::replace_private_file, repository::output_file::settle};

use super::{
    Invocation,
    args::{ProtectionArgs, ReportArgs, ValidationArgs},
};
use crate::{
    import::{
        Import, ImportOptions, Source,
        choices::{self, BadValues, ColumnName, Existing, Map, Orphans},
    },
    room::{self, Way},
    run::{FenceChoice, SnapshotChoice},
    transactional::{self, Work},
};
use sqlite::{choices::Meanings, target::EpochUnit};

/// The flags of an import.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The SQLite file: a path, or a URL such as sqlite:///app.db. It is only read
    pub file: String,
    /// Say what would be done, and which values and rows speak against it; changes nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Only write the schema that would be made in an empty database; needs no server
    #[arg(long, conflicts_with = "dry_run")]
    pub schema_only: bool,
    /// With --schema-only: the file to write; - is stdout
    #[arg(short, long, value_name = "FILE", requires = "schema_only", default_value = "-")]
    pub output: PathBuf,
    /// Rows of SQLite's table go into another table, values of its column into another column; may be repeated
    #[arg(long, value_name = "A=B", value_parser = choices::map)]
    pub map: Vec<Map>,
    /// Leave a table of SQLite out; may be repeated
    #[arg(long, value_name = "TABLE", value_parser = choices::table)]
    pub skip_table: Vec<String>,
    /// Leave a column of SQLite out; may be repeated
    #[arg(long, value_name = "TABLE.COLUMN", value_parser = choices::column)]
    pub skip_column: Vec<ColumnName>,
    /// Where the schema is made: the type of a column; may be repeated
    #[arg(long = "type", value_name = "TABLE.COLUMN=TYPE", value_parser = choices::typed)]
    pub types: Vec<(ColumnName, String)>,
    /// What numbers mean as dates: seconds, milliseconds, microseconds, nanoseconds or julian; may be repeated
    #[arg(long, value_name = "[TABLE.COLUMN=]UNIT", value_parser = choices::epoch)]
    pub epoch: Vec<(Option<ColumnName>, EpochUnit)>,
    /// The time zone of times that have no offset, such as Europe/Berlin or UTC
    #[arg(long, value_name = "ZONE", value_parser = choices::time_zone)]
    pub timezone: Option<chrono_tz::Tz>,
    /// An empty text becomes NULL, where the column takes NULL
    #[arg(long)]
    pub null_empty_strings: bool,
    /// What becomes of rows with values that PostgreSQL can't hold unchanged
    #[arg(long, value_enum, default_value = "stop")]
    pub bad_values: BadValues,
    /// What becomes of rows whose foreign key leads nowhere
    #[arg(long, value_enum, default_value = "fail")]
    pub orphans: Orphans,
    /// Empty the tables that are filled, in the same transaction; their rows have to be given up with --allow-loss
    #[arg(long, conflicts_with = "append")]
    pub force_recreate: bool,
    /// Add to tables that have rows
    #[arg(long)]
    pub append: bool,
    /// Let the triggers of the tables fire for every imported row
    #[arg(long)]
    pub fire_triggers: bool,
    /// Run what tables of other roles call for new rows (checks, defaults, index expressions, triggers) with your rights
    #[arg(long)]
    pub run_owners_code: bool,
    #[command(flatten)]
    pub protection: ProtectionArgs,
    #[command(flatten)]
    pub checks: ValidationArgs,
    #[command(flatten)]
    pub reports: ReportArgs,
}

impl ImportArgs {
    fn options(&self) -> ImportOptions {
        ImportOptions {
            maps: self.map.clone(),
            types: self.types.clone(),
            skip_tables: self.skip_table.clone(),
            skip_columns: self.skip_column.clone(),
            meanings: Meanings {
                epochs: self.epoch.clone(),
                timezone: self.timezone,
                null_empty_strings: self.null_empty_strings,
            },
            existing: match (self.force_recreate, self.append) {
                (true, _) => Existing::Recreate,
                (_, true) => Existing::Append,
                _ => Existing::Refuse,
            },
            bad_values: self.bad_values,
            orphans: self.orphans,
            fire_triggers: self.fire_triggers,
            run_owners_code: self.run_owners_code,
        }
    }

    /// Flags of protection that an import in one transaction has no use for.
    fn refuse_useless(&self) -> Result<()> {
        let protection = &self.protection;
        let useless = [
            ("--hold-fence", protection.hold_fence),
            ("--keep-clone", protection.keep_clone),
            ("--end-workers", protection.end_workers),
            ("--snapshot-only", protection.snapshot_only),
            ("--on-failure", protection.on_failure.is_some()),
            ("--snapshot clone", matches!(protection.snapshot, SnapshotChoice::Clone | SnapshotChoice::Both)),
            ("this fence", matches!(protection.fence, FenceChoice::ReadOnly | FenceChoice::Exclusive)),
        ];
        match useless.into_iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((flag, _)) => Err(Error::usage(format!("{flag} means nothing to `safe-run import`"))
                .with_hint("An import is one transaction, and its undo is a ROLLBACK: leave the flag away.")),
        }
    }
}

impl Invocation<'_> {
    pub(super) async fn import(&self, args: &ImportArgs) -> Result<u8> {
        args.refuse_useless()?;
        if args.schema_only {
            return self.import_schema(args);
        }
        if args.dry_run {
            return self.import_dry_run(args).await;
        }
        self.reported(async { self.import_run(args).await.map(Some) }).await
    }

    fn source(&self, args: &ImportArgs) -> Result<Source> {
        let unchanged = |error: Error| match error.database_state() {
            Some(_) => error,
            None => error.with_database_state("Nothing was changed."),
        };
        let jobs = self.settings.jobs.unwrap_or_else(backup::default_jobs);
        Source::open(&args.file, jobs).map_err(unchanged)
    }

    /// The schema that would be made in an empty database.
    fn import_schema(&self, args: &ImportArgs) -> Result<u8> {
        let source = self.source(args)?;
        let script = Import::schema_script(&source, &args.options())?;
        if args.output.as_os_str() == "-" {
            // What a program reads is as it is; a terminal is shown no control characters.
            match std::io::stdout().is_terminal() {
                true => self.output.data(&script)?,
                false => self.output.exactly(&script)?,
            }
        } else {
            replace_private_file(&settle("--output", &args.output)?, script.as_bytes())?;
        }
        Ok(0)
    }

    /// The whole plan, with everything that would be refused. Changes nothing.
    async fn import_dry_run(&self, args: &ImportArgs) -> Result<u8> {
        let source = self.source(args)?;
        let connection = self.connection("safe-run import --dry-run").await?;
        let session = connection.connect().await?;
        let import = Import::prepare(source, args.options(), &self.run_options(Vec::new()), &session).await?;
        session.close().await?;
        let looked = import.look(&self.output.progress()).await?;
        if self.output.is_json() {
            self.output.document(&looked.document()?)?;
        } else {
            self.output.data(&looked.text(self.output.is_verbose()))?;
        }
        Ok(if looked.refusals.is_empty() { 0 } else { ErrorKind::Refused.exit_code() })
    }

    async fn import_run(&self, args: &ImportArgs) -> Result<crate::report::Report> {
        let source = self.source(args)?;
        let (mut context, _lock) = self.context().await?;
        room::make(&mut context, Way::OneTransaction).await?;
        let import = Import::prepare(source, args.options(), &context.options, &context.control).await?;
        import.refuse()?;
        let report = transactional::run(&context, &Work::Import(&import)).await?;
        self.keep_runs(&context, &report);
        Ok(report)
    }
}
