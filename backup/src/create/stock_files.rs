//! What stock tools restore a snapshot from.

use common::{
    Result,
    postgres::{Secret, role_passwords},
    repository::PartialSnapshot,
    snapshot::{
        Manifest,
        manifest::{
            DATABASE_FILE, FileEntry, GLOBALS_FILE, LIST_FILE, LOAD_SCRIPT_FILE, README_FILE, SCHEMA_FILE,
            SEQUENCES_FILE, VIEWS_FILE,
        },
        readme,
    },
};

/// The files that make the snapshot restorable without these tools.
pub(super) fn write_stock_files(
    partial: &PartialSnapshot,
    manifest: &Manifest,
    identities: &[String],
    passwords: Option<&[(String, Secret)]>,
) -> Result<Vec<FileEntry>> {
    let mut globals = readme::globals_sql(&manifest.roles);
    if let Some(passwords) = passwords {
        globals.push_str(role_passwords::globals_sql(passwords).expose());
    }
    let list = manifest.partial.as_ref().map(|partial| {
        let lines: String = partial.entries.iter().map(|entry| format!("{entry};\n")).collect();
        (
            LIST_FILE,
            format!(
                "; The entries of {SCHEMA_FILE} that belong to this snapshot, by their numbers.\n{lines}"
            ),
        )
    });
    let files = [
        (SEQUENCES_FILE, readme::sequences_sql(&manifest.sequences, &manifest.extension_sequences)),
        (VIEWS_FILE, readme::views_sql(&manifest.materialized_views)),
        (DATABASE_FILE, readme::database_sql(&manifest.database)),
        (GLOBALS_FILE, globals),
        (LOAD_SCRIPT_FILE, readme::load_script(manifest, identities)),
        (README_FILE, readme::readme(manifest, identities)),
    ];
    files.into_iter().chain(list).map(|(name, text)| partial.write(name, text.as_bytes())).collect()
}
