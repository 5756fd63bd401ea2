//! Compares the files with the history: what is pending, and what does not fit.

use std::collections::HashMap;

use common::{Error, Result};

use super::MigrationFile;
use crate::version::Version;

/// What a row of the history stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RowKind {
    /// One migration, which has a file.
    Migration,
    /// This migration and every older one: golang-migrate keeps one row.
    UpTo,
    /// Everything up to this version counts as applied, and none of it needs a file.
    Baseline,
    /// A migration that is no SQL file: a Java class, a schema marker.
    Foreign,
}

/// A row of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedMigration {
    /// What it stands for.
    pub kind: RowKind,
    /// Its version.
    pub version: Version,
    /// Its description when it was applied.
    pub description: String,
    /// The checksum of the file at that time, as its history writes it. `None`: the history does not record one.
    pub checksum: Option<String>,
    /// [`MigrationFile::checksum_normalized`] at that time, if it was recorded.
    pub checksum_normalized: Option<String>,
    /// When, as the history says it.
    pub applied_at: String,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationPlan<'a> {
    /// To apply, in this order.
    pub pending: Vec<&'a MigrationFile>,
    /// Pending too, but above `--to`.
    pub held_back: Vec<&'a MigrationFile>,
    /// In the history, in order of version.
    pub applied: Vec<&'a AppliedMigration>,
    /// Files that changed in a way that does not matter: shown, and the run goes on.
    pub drift: Vec<Drift<'a>>,
    /// In the history but older than every file: taken for squashed, shown, and the run goes on.
    pub squashed: Vec<&'a AppliedMigration>,
}

/// A file that is not what was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift<'a> {
    /// The file as it is now.
    pub file: &'a MigrationFile,
    /// How much it differs.
    pub kind: DriftKind,
}

/// How much an applied file differs from what was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DriftKind {
    /// Line ends, a byte order mark or the last line break.
    LineEndings,
    /// Comments, white space, line ends, or the way down.
    Comments,
    /// What runs.
    Real,
}

impl DriftKind {
    /// What differs, for a person.
    pub fn what(self) -> &'static str {
        match self {
            Self::LineEndings => "line ends",
            Self::Comments => "comments or white space",
            Self::Real => "what it does",
        }
    }
}

/// How `file` differs from what was applied; `None` when it does not, or when the history has no checksum.
pub fn classify_drift(file: &MigrationFile, applied: &AppliedMigration) -> Option<DriftKind> {
    let recorded = applied.checksum.as_deref()?;
    if file.checksum.is_empty() || recorded.eq_ignore_ascii_case(&file.checksum) {
        return None;
    }
    if same_but_for_line_ends(file, recorded) {
        Some(DriftKind::LineEndings)
    } else if applied.checksum_normalized.as_deref() == Some(file.checksum_normalized.as_str()) {
        Some(DriftKind::Comments)
    } else {
        Some(DriftKind::Real)
    }
}

/// Whether some form of the text with other line ends, mark or last break has the recorded checksum.
fn same_but_for_line_ends(file: &MigrationFile, recorded: &str) -> bool {
    let is_it =
        |text: &str| file.checksum_of(text).is_some_and(|checksum| checksum.eq_ignore_ascii_case(recorded));
    let plain = file.sql.trim_start_matches('\u{feff}').replace("\r\n", "\n");
    let unix = plain.trim_end_matches('\n').to_owned();
    let forms = [plain, format!("{unix}\n"), unix];
    forms.iter().any(|form| {
        [form.clone(), form.replace('\n', "\r\n")]
            .iter()
            .any(|text| ["", "\u{feff}"].iter().any(|mark| is_it(&format!("{mark}{text}"))))
    })
}

/// Decides what is pending. `files` are in the order in which they run, as [`super::load`] returns them.
///
/// # Errors
///
/// Refused, each naming every file it concerns: an applied file whose SQL changed; an applied migration without a file
/// (unless it is older than every file: then its history was squashed); a pending file older than the newest applied
/// migration that `allow_out_of_order` does not name. Usage: `to` or `allow_out_of_order` name a version that no file
/// has.
pub fn plan<'a>(
    files: &'a [MigrationFile],
    applied: &'a [AppliedMigration],
    to: Option<&Version>,
    allow_out_of_order: &[Version],
) -> Result<MigrationPlan<'a>> {
    let places: HashMap<&Version, usize> =
        files.iter().enumerate().map(|(at, file)| (&file.version, at)).collect();
    let place = |version: &Version| places.get(version).copied();
    let file = |version: &Version| place(version).map(|at| &files[at]);
    for version in to.into_iter().chain(allow_out_of_order) {
        if file(version).is_none() {
            return Err(Error::usage(format!("no migration has version {version}"))
                .with_hint("`safe-run status` lists the versions that there are."));
        }
    }
    let mut history: Vec<&AppliedMigration> = applied.iter().collect();
    // In the order of the files; a row without one stands where its file would.
    history.sort_by_cached_key(|applied| match place(&applied.version) {
        Some(at) => (at, true, applied.version.clone()),
        None => {
            let before = files.iter().filter(|file| file.version < applied.version).count();
            (before, false, applied.version.clone())
        }
    });
    let baseline = history
        .iter()
        .filter(|applied| matches!(applied.kind, RowKind::UpTo | RowKind::Baseline))
        .map(|applied| &applied.version)
        .max();
    let (squashed, missing): (Vec<_>, Vec<_>) = history
        .iter()
        .copied()
        .filter(|applied| matches!(applied.kind, RowKind::Migration | RowKind::UpTo))
        .filter(|applied| file(&applied.version).is_none())
        .partition(|applied| {
            !applied.version.is_repeatable()
                && files.first().is_some_and(|oldest| applied.version < oldest.version)
        });
    refuse_missing(&missing)?;
    let drift = drift(&history, &file)?;

    let rows: HashMap<&Version, &AppliedMigration> =
        history.iter().map(|applied| (&applied.version, *applied)).collect();
    let is_applied = |file: &MigrationFile| match rows.get(&file.version) {
        // A repeatable migration runs again when it changed.
        Some(row) if file.version.is_repeatable() => row.checksum.as_deref() == Some(file.checksum.as_str()),
        Some(_) => true,
        None => !file.version.is_repeatable() && baseline.is_some_and(|baseline| file.version <= *baseline),
    };
    let last = to.and_then(place);
    let (held_back, pending): (Vec<_>, Vec<_>) = files
        .iter()
        .enumerate()
        .filter(|(_, file)| !is_applied(file))
        .partition(|(at, file)| last.is_some_and(|last| *at > last) && !file.version.is_repeatable());
    let numbered: Vec<&AppliedMigration> =
        history.iter().copied().filter(|applied| !applied.version.is_repeatable()).collect();
    let last_place = numbered.iter().filter_map(|applied| place(&applied.version)).max();
    let last_without_file = numbered
        .iter()
        .filter(|applied| place(&applied.version).is_none())
        .map(|applied| &applied.version)
        .max();
    let is_late = |at: usize, file: &MigrationFile| {
        last_place.is_some_and(|last| last > at) || last_without_file.is_some_and(|last| *last > file.version)
    };
    if let Some(newest) = numbered.last() {
        let late: Vec<&MigrationFile> = pending
            .iter()
            .filter(|(_, file)| !file.any_order && !allow_out_of_order.contains(&file.version))
            .filter(|(at, file)| is_late(*at, file))
            .map(|(_, file)| *file)
            .collect();
        refuse_late(&late, newest)?;
    }
    let files_of =
        |numbered: Vec<(usize, &'a MigrationFile)>| numbered.into_iter().map(|(_, file)| file).collect();
    Ok(MigrationPlan {
        pending: files_of(pending),
        held_back: files_of(held_back),
        applied: history,
        drift,
        squashed,
    })
}

fn drift<'a>(
    history: &[&AppliedMigration],
    file: &impl Fn(&Version) -> Option<&'a MigrationFile>,
) -> Result<Vec<Drift<'a>>> {
    let pairs = history
        .iter()
        .filter(|applied| applied.kind == RowKind::Migration && !applied.version.is_repeatable())
        .filter_map(|applied| file(&applied.version).map(|file| (*applied, file)));
    let all: Vec<(Drift<'a>, &AppliedMigration)> = pairs
        .filter_map(|(applied, file)| {
            classify_drift(file, applied).map(|kind| (Drift { file, kind }, applied))
        })
        .collect();
    let edited: Vec<String> = all
        .iter()
        .filter(|(drift, _)| drift.kind == DriftKind::Real)
        .map(|(drift, applied)| match applied.applied_at.as_str() {
            "" => drift.file.path.display().to_string(),
            at => format!("{} (applied {at})", drift.file.path.display()),
        })
        .collect();
    if edited.is_empty() {
        return Ok(all.into_iter().map(|(drift, _)| drift).collect());
    }
    Err(Error::refused(format!("edited after it was applied: {}", edited.join(", "))).with_hint(
        "Put the file back as it was (`git log -p` shows its history) and write the change as a new migration. If what the \
         database holds is right all the same, `safe-run repair --accept VERSION` records the file as it is now.",
    ))
}

fn refuse_missing(missing: &[&AppliedMigration]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = missing
        .iter()
        .map(|applied| {
            // Most tools record neither a name nor a time.
            let name = match applied.description.as_str() {
                "" => applied.version.to_string(),
                description => format!("{} {description}", applied.version),
            };
            if applied.applied_at.is_empty() {
                name
            } else {
                format!("{name} (applied {})", applied.applied_at)
            }
        })
        .collect();
    Err(Error::refused(format!("applied, but its file is missing: {}", names.join(", "))).with_hint(
        "This checkout is probably older than the database: update it, or name the directory with --dir as well.",
    ))
}

fn refuse_late(late: &[&MigrationFile], newest: &AppliedMigration) -> Result<()> {
    if late.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = late.iter().map(|file| file.path.display().to_string()).collect();
    let flags: Vec<String> =
        late.iter().map(|file| format!("--allow-out-of-order {}", file.version)).collect();
    Err(Error::refused(format!(
        "older than the newest applied migration {}: {}",
        newest.version,
        names.join(", ")
    ))
    .with_hint(format!(
        "Give it a newer version; or, if it does not depend on the order, allow it with {}.",
        flags.join(" ")
    )))
}
