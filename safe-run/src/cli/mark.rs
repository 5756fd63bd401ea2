//! baseline, stamp, repair: the commands that only change what the history says.

use clap::Args;
use common::{Error, Result};

use super::{
    Invocation,
    args::FolderArgs,
    state::{State, resolve},
};
use crate::{
    mark::{self, Change},
    report::Report,
    run::Context,
};
use sql::layout::Format;
use sql::migration::{self, DriftKind, MigrationFile, RowKind};
use sql::version::Version;

#[derive(Debug, Clone, Args)]
pub struct MarkArgs {
    #[command(flatten)]
    pub folder: FolderArgs,
    /// Only say what would be recorded
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

impl Invocation<'_> {
    pub(super) async fn baseline(&self, version: &str, args: &MarkArgs) -> Result<u8> {
        self.reported(self.baseline_report(version, args)).await
    }

    pub(super) async fn stamp(&self, versions: &[String], args: &MarkArgs) -> Result<u8> {
        self.reported(self.stamp_report(versions, args)).await
    }

    pub(super) async fn repair(&self, accept: &[String], args: &MarkArgs) -> Result<u8> {
        self.reported(self.repair_report(accept, args)).await
    }

    async fn baseline_report(&self, version: &str, args: &MarkArgs) -> Result<Option<Report>> {
        let (mut context, _lock) = self.context().await?;
        let state = self.take_history(&mut context).await?;
        let table = state.history.table.short();
        if !state.recorded.rows.is_empty() || state.recorded.dirty.is_some() {
            return Err(Error::refused(format!("{table} is not empty"))
                .with_hint("A baseline is the beginning of a history. Single migrations are marked with `safe-run stamp`.")
                .with_database_state("Nothing was changed."));
        }
        let layout = state.history.layout;
        let version = resolve(version, &state.files, layout)?;
        let place = state.files.iter().position(|file| file.version == version);
        let files: Vec<&MigrationFile> = match (place, layout.format) {
            (_, Format::Flyway) => Vec::new(),
            (None, _) => return Err(no_file(&version)),
            // One row says it all.
            (Some(last), Format::GolangMigrate) => vec![&state.files[last]],
            (Some(last), _) => state.files[..=last].iter().collect(),
        };
        refuse_without_checksum(&files)?;
        self.mark(&context, &Change::Baseline(version, files), args).await
    }

    async fn stamp_report(&self, versions: &[String], args: &MarkArgs) -> Result<Option<Report>> {
        let (mut context, _lock) = self.context().await?;
        let state = self.take_history(&mut context).await?;
        let layout = state.history.layout;
        let mut files: Vec<&MigrationFile> = Vec::new();
        for text in versions {
            let version = resolve(text, &state.files, layout)?;
            let file = state.files.iter().find(|file| file.version == version);
            let file = file.ok_or_else(|| no_file(&version))?;
            let applied = state.recorded.rows.iter().any(|row| row.version == version);
            if applied && layout.format != Format::GolangMigrate {
                return Err(Error::refused(format!("{} is applied already", file.name()))
                    .with_hint(
                        "`safe-run status` shows what the history says; `safe-run repair` mends checksums.",
                    )
                    .with_database_state("Nothing was changed."));
            }
            if !files.contains(&file) {
                files.push(file);
            }
        }
        if layout.format == Format::GolangMigrate && files.len() > 1 {
            return Err(Error::usage(
                "golang-migrate's history holds one version, so only one can be stamped",
            )
            .with_hint("Give the newest of them: it stands for all before it."));
        }
        refuse_without_checksum(&files)?;
        self.mark(&context, &Change::Stamp(files), args).await
    }

    async fn repair_report(&self, accept: &[String], args: &MarkArgs) -> Result<Option<Report>> {
        let (mut context, _lock) = self.context().await?;
        let state = self.take_history(&mut context).await?;
        let layout = state.history.layout;
        let accepted: Vec<Version> =
            accept.iter().map(|text| resolve(text, &state.files, layout)).collect::<Result<_>>()?;
        let drifted = drifted(&state);
        let refused: Vec<&MigrationFile> = drifted
            .iter()
            .filter(|(file, kind, _)| *kind == DriftKind::Real && !accepted.contains(&file.version))
            .map(|(file, ..)| *file)
            .collect();
        if !refused.is_empty() {
            let names: Vec<String> = refused.iter().map(|file| file.name()).collect();
            let flags: Vec<String> =
                refused.iter().map(|file| format!("--accept {}", file.version)).collect();
            return Err(Error::refused(format!("changed in more than comments and line ends: {}", names.join(", ")))
                .with_hint(format!(
                    "The database holds what the file said when it was applied. If the file is right as it is now all the \
                     same, add {}.",
                    flags.join(" ")
                ))
                .with_database_state("Nothing was changed."));
        }
        let failed = state.recorded.dirty.is_some();
        if failed && matches!(layout.format, Format::GolangMigrate | Format::Goose) {
            // Only a person knows what became of it.
            state.recorded.refuse_dirty(&state.history)?;
        }
        if drifted.is_empty() && !failed {
            let why = if layout.format.has_checksums() {
                "every recorded checksum fits its file"
            } else {
                "this history records no checksums"
            };
            return self.nothing_to_mark(&context, why);
        }
        let files = drifted.into_iter().map(|(file, _, recorded)| (file, recorded)).collect();
        self.mark(&context, &Change::Repair(files, failed), args).await
    }

    fn nothing_to_mark(&self, context: &Context, why: &str) -> Result<Option<Report>> {
        if self.output.is_json() {
            self.output.document(&serde_json::json!({"changes": [], "why": why}))?;
        } else {
            self.output
                .data(&format!("Nothing to repair in \"{}\": {why}.\n", context.connection.database()))?;
        }
        Ok(None)
    }

    /// What was recorded; nothing for a dry run, which says itself what would be.
    async fn mark(&self, context: &Context, change: &Change<'_>, args: &MarkArgs) -> Result<Option<Report>> {
        let lines = change.describe();
        let table = context.history.table.short();
        if args.dry_run {
            if self.output.is_json() {
                self.output.document(&serde_json::json!({
                    "format": context.history.layout.format, "history": table, "changes": lines,
                }))?;
            } else {
                let list: String = lines.iter().map(|line| format!("  {line}\n")).collect();
                self.output.data(&format!(
                    "{table} ({}):\n{list}Nothing was changed.\n",
                    context.history.layout.format
                ))?;
            }
            return Ok(None);
        }
        for line in &lines {
            self.output.say(&format!("{table}: {line}"));
        }
        self.output.confirm_typed(
            &format!(
                "Change the history of \"{}\", without running anything? Type yes to go on:",
                context.connection.database()
            ),
            "yes",
        )?;
        mark::run(context, change).await.map(Some)
    }
}

/// Files that are not what was applied, with the version as it is recorded.
fn drifted(state: &State) -> Vec<(&MigrationFile, DriftKind, String)> {
    let rows = state
        .recorded
        .rows
        .iter()
        .filter(|row| row.kind == RowKind::Migration && !row.version.is_repeatable());
    rows.filter_map(|row| {
        let file = state.files.iter().find(|file| file.version == row.version)?;
        let kind = migration::classify_drift(file, row)?;
        Some((file, kind, row.version.as_str().to_owned()))
    })
    .collect()
}

fn no_file(version: &Version) -> Error {
    Error::usage(format!("no migration has version {version}"))
        .with_hint("`safe-run status` lists the versions that there are.")
        .with_database_state("Nothing was changed.")
}

/// A migration in another language has no checksum that we could record.
fn refuse_without_checksum(files: &[&MigrationFile]) -> Result<()> {
    match files.iter().find(|file| file.layout.format.has_checksums() && file.checksum.is_empty()) {
        None => Ok(()),
        Some(file) => {
            Err(Error::refused(format!("{} is no SQL file, so its checksum is not known here", file.name()))
                .with_hint("Let its own tool record it.")
                .with_database_state("Nothing was changed."))
        }
    }
}
