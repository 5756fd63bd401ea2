//! Compares the files with the history: what is pending, and what does not fit.

use common::{Error, Result, digest::sha256_hex};

use super::{MigrationFile, Version};

/// A row of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedMigration {
    /// Its version.
    pub version: Version,
    /// Its description when it was applied.
    pub description: String,
    /// SHA-256 of the file's bytes at that time, hexadecimal. `None`: the history does not record one.
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

/// How `file` differs from what was applied; `None` when it does not, or when the history has no checksum.
pub fn classify_drift(file: &MigrationFile, applied: &AppliedMigration) -> Option<DriftKind> {
    let recorded = applied.checksum.as_deref()?;
    if recorded.eq_ignore_ascii_case(&file.checksum) {
        return None;
    }
    if same_but_for_line_ends(&file.sql, recorded) {
        Some(DriftKind::LineEndings)
    } else if applied.checksum_normalized.as_deref() == Some(file.checksum_normalized.as_str()) {
        Some(DriftKind::Comments)
    } else {
        Some(DriftKind::Real)
    }
}

/// Whether some form of `sql` with other line ends, mark or last break has the recorded checksum.
fn same_but_for_line_ends(sql: &str, recorded: &str) -> bool {
    let plain = sql.trim_start_matches('\u{feff}').replace("\r\n", "\n");
    let unix = plain.trim_end_matches('\n').to_owned();
    let forms = [plain, format!("{unix}\n"), unix];
    forms.iter().any(|form| {
        [form.clone(), form.replace('\n', "\r\n")].iter().any(|text| {
            ["", "\u{feff}"].iter().any(|mark| sha256_hex(format!("{mark}{text}").as_bytes()) == recorded)
        })
    })
}

/// Decides what is pending. `files` are in order of version, as [`super::load`] returns them.
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
    let file = |version: &Version| files.iter().find(|file| file.version == *version);
    for version in to.into_iter().chain(allow_out_of_order) {
        if file(version).is_none() {
            return Err(Error::usage(format!("no migration has version {version}"))
                .with_hint("`safe-run status` lists the versions that there are."));
        }
    }
    let mut history: Vec<&AppliedMigration> = applied.iter().collect();
    history.sort_by(|a, b| a.version.cmp(&b.version));
    let (squashed, missing): (Vec<_>, Vec<_>) = history
        .iter()
        .copied()
        .filter(|applied| file(&applied.version).is_none())
        .partition(|applied| files.first().is_some_and(|oldest| applied.version < oldest.version));
    refuse_missing(&missing)?;
    let drift = drift(&history, &file)?;

    let is_applied = |file: &&MigrationFile| history.iter().any(|applied| applied.version == file.version);
    let (held_back, pending): (Vec<_>, Vec<_>) = files
        .iter()
        .filter(|file| !is_applied(file))
        .partition(|file| to.is_some_and(|to| file.version > *to));
    if let Some(newest) = history.last() {
        let late: Vec<&&MigrationFile> = pending
            .iter()
            .filter(|file| file.version < newest.version && !allow_out_of_order.contains(&file.version))
            .collect();
        refuse_late(&late, newest)?;
    }
    Ok(MigrationPlan { pending, held_back, applied: history, drift, squashed })
}

fn drift<'a>(
    history: &[&AppliedMigration],
    file: &impl Fn(&Version) -> Option<&'a MigrationFile>,
) -> Result<Vec<Drift<'a>>> {
    let pairs = history.iter().filter_map(|applied| file(&applied.version).map(|file| (*applied, file)));
    let all: Vec<(Drift<'a>, &AppliedMigration)> = pairs
        .filter_map(|(applied, file)| {
            classify_drift(file, applied).map(|kind| (Drift { file, kind }, applied))
        })
        .collect();
    let edited: Vec<String> = all
        .iter()
        .filter(|(drift, _)| drift.kind == DriftKind::Real)
        .map(|(drift, applied)| format!("{} (applied {})", drift.file.path.display(), applied.applied_at))
        .collect();
    if edited.is_empty() {
        return Ok(all.into_iter().map(|(drift, _)| drift).collect());
    }
    Err(Error::refused(format!("edited after it was applied: {}", edited.join(", "))).with_hint(
        "Put the file back as it was (`git log -p` shows its history) and write the change as a new migration.",
    ))
}

fn refuse_missing(missing: &[&AppliedMigration]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = missing
        .iter()
        .map(|applied| {
            format!("{} {} (applied {})", applied.version, applied.description, applied.applied_at)
        })
        .collect();
    Err(Error::refused(format!("applied, but its file is missing: {}", names.join(", "))).with_hint(
        "This checkout is probably older than the database: update it, or name the directory with --dir as well.",
    ))
}

fn refuse_late(late: &[&&MigrationFile], newest: &AppliedMigration) -> Result<()> {
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
