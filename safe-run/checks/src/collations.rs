//! Collations that sort differently from when the indexes that use them were built: the commonest way to get duplicates
//! under a unique index. Notes only: no migration does it, and no ROLLBACK helps.

use common::error::Result;
use common::ident::{Ident, QualifiedName, printable};

use super::catalogue::CheckKind;
use super::model::{Finding, RuleKey, Severity};
use super::session::{CheckSession, text};

/// Collations of indexes, columns and types that changed: schema, name, version then, now.
const CHANGED_COLLATIONS: &str = r"
SELECT n.nspname, c.collname, c.collversion, pg_collation_actual_version(c.oid)
FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
WHERE c.collversion <> pg_collation_actual_version(c.oid)
  AND EXISTS (SELECT FROM pg_index i WHERE c.oid = ANY (i.indcollation::oid[]))
ORDER BY n.nspname, c.collname";

/// The same for the database's own collation: name, version then, now. 14 does not keep it.
const CHANGED_DATABASE_COLLATION: &str = r"
SELECT d.datname, to_jsonb(d)->>'datcollversion', pg_database_collation_actual_version(d.oid)
FROM pg_database d
WHERE d.datname = current_database()
  AND to_jsonb(d)->>'datcollversion' <> pg_database_collation_actual_version(d.oid)";

/// Whether this server keeps the version of a database's collation.
const KEEPS_DATABASE_VERSION: &str =
    "SELECT 1 FROM pg_proc WHERE proname = 'pg_database_collation_actual_version'";

/// Every collation that changed.
pub(super) async fn run(session: &CheckSession<'_>) -> Result<Vec<Finding>> {
    let mut notes = Vec::new();
    for row in session.catalog(CheckKind::Collations, CHANGED_COLLATIONS).await? {
        let name = QualifiedName::new(text(&row, 0), text(&row, 1));
        let repair =
            format!("REINDEX the indexes that use it, then: ALTER COLLATION {name} REFRESH VERSION;");
        notes.push(changed("collation", &name.short(), &text(&row, 2), &text(&row, 3), repair));
    }
    if !session.catalog(CheckKind::Collations, KEEPS_DATABASE_VERSION).await?.is_empty() {
        for row in session.catalog(CheckKind::Collations, CHANGED_DATABASE_COLLATION).await? {
            let name = Ident::new(text(&row, 0)).to_string();
            let repair = format!("REINDEX DATABASE {name}; ALTER DATABASE {name} REFRESH COLLATION VERSION;");
            let label = "collation of database";
            notes.push(changed(label, &printable(&name), &text(&row, 1), &text(&row, 2), repair));
        }
    }
    Ok(notes)
}

fn changed(what: &str, name: &str, then: &str, now: &str, repair: String) -> Finding {
    let key =
        RuleKey { check: CheckKind::Collations, object_oid: 0, rule_oid: 0, rule: format!("{what} {name}") };
    let detail = format!(
        "{what} {name} was version {then} when its indexes were built and is {now} now: \
         text in them may be in the wrong order, so REINDEX them"
    );
    let mut note = Finding::state(key, name.to_owned(), "collation", detail);
    note.severity = Severity::Note;
    note.repair_sql = Some(repair);
    note
}
