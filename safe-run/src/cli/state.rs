//! What the database says is applied, and what the folders hold: read in one place for every command.

use common::{Error, Result, postgres::Session};

use super::{Invocation, args::FormatChoice};
use crate::{
    history::{History, Recorded},
    layout::Layout,
    migration::{self, DriftKind, MigrationFile, MigrationPlan, Version},
};

/// The files and their history.
pub(super) struct State {
    /// Where it is recorded.
    pub history: History,
    /// In the order in which they run.
    pub files: Vec<MigrationFile>,
    /// What is applied.
    pub recorded: Recorded,
}

impl Invocation<'_> {
    /// Finds out whose history it is. The folders are looked at before anything is asked of the server.
    pub(super) async fn find_history(&self, session: &Session) -> Result<History> {
        let signs = migration::signs(&self.settings.dirs)?;
        let wanted = match self.settings.format.as_deref() {
            Some(text) => FormatChoice::parse(text)?.format(),
            None => None,
        };
        History::find(session, wanted, &signs).await
    }

    /// Reads the files and the history.
    pub(super) async fn state(&self, session: &Session, history: History) -> Result<State> {
        let files = migration::load(&self.settings.dirs, history.layout)?;
        let mut recorded = history.read(session).await?;
        for row in &mut recorded.rows {
            if let Some(file) = files.iter().find(|file| file.version == row.version) {
                find_original(file, row);
            }
        }
        Ok(State { history, files, recorded })
    }

    /// Decides what is pending, and tells what changed without mattering.
    pub(super) fn plan_of<'s>(&self, state: &'s State) -> Result<MigrationPlan<'s>> {
        state.recorded.refuse_dirty(&state.history)?;
        let layout = state.history.layout;
        let version = |text: &String| resolve(text, &state.files, layout);
        let to = self.migrations.to.as_ref().map(version).transpose()?;
        let late: Vec<Version> =
            self.migrations.allow_out_of_order.iter().map(version).collect::<Result<_>>()?;
        let plan = migration::plan(&state.files, &state.recorded.rows, to.as_ref(), &late)?;
        self.tell_drift(&plan);
        Ok(plan)
    }

    fn tell_drift(&self, plan: &MigrationPlan<'_>) {
        for drift in &plan.drift {
            self.output.warn(&format!(
                "{} was edited after it was applied: only {} differ",
                drift.file.name(),
                drift.kind.what()
            ));
        }
        for squashed in &plan.squashed {
            self.output.say(&format!(
                "note: {} is applied, and its file is gone (older than every file)",
                squashed.version.as_str()
            ));
        }
    }
}

/// Tools record no more than a checksum. When it no longer fits, git may still have the text that does, and then it can be
/// told whether the change matters.
fn find_original(file: &MigrationFile, row: &mut migration::AppliedMigration) {
    if row.checksum_normalized.is_none()
        && !file.version.is_repeatable()
        && migration::classify_drift(file, row) == Some(DriftKind::Real)
    {
        let is_it = |text: &str| file.checksum_of(text) == row.checksum;
        row.checksum_normalized =
            migration::original(&file.path, is_it).and_then(|text| file.normalized_of(&text));
    }
}

/// The version that a person means: as it is recorded, or, where versions are names, a unique start of one.
pub(super) fn resolve(text: &str, files: &[MigrationFile], layout: Layout) -> Result<Version> {
    let exact = layout.version(text);
    if let Some(file) = exact.as_ref().and_then(|exact| files.iter().find(|file| file.version == *exact)) {
        return Ok(file.version.clone());
    }
    let starts: Vec<&MigrationFile> = files
        .iter()
        .filter(|file| {
            !text.is_empty() && layout.format.has_folders() && file.version.as_str().starts_with(text)
        })
        .collect();
    match (starts.as_slice(), exact) {
        ([only], _) => Ok(only.version.clone()),
        ([], Some(exact)) => Ok(exact),
        ([], None) => Err(Error::usage(format!("\"{text}\" is not a version"))
            .with_hint("A version is made of digits, such as 0007; `safe-run status` lists them.")),
        (several, _) => Err(Error::usage(format!("\"{text}\" is the start of {} versions", several.len()))
            .with_hint("Give more of it; `safe-run status` lists them.")),
    }
}
