//! What the restored database lacks, and why: objects that an older server does not understand (`--force`), and foreign
//! keys that can neither be validated nor be left unchecked. Everything that is missing is named; nothing else may be.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use common::{Error, QualifiedName, Result, ident::printable, postgres::Session, repository::StoredSnapshot};
use serde::Serialize;

use crate::function_settings;

/// One object that could not be restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MissingObject {
    /// The object, as `pg_restore --list` or a person names it.
    pub object: String,
    /// Why.
    pub reason: String,
    /// The statement that would make it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
}

impl MissingObject {
    fn is_function(&self) -> bool {
        let sql = self.definition.as_deref().unwrap_or_default();
        sql.starts_with("CREATE FUNCTION ") || sql.starts_with("CREATE PROCEDURE ")
    }

    /// One line for a person.
    pub fn line(&self) -> String {
        printable(&format!("{}: {}", self.object, self.reason.split('\n').next().unwrap_or_default()))
    }
}

/// The snapshot without the tables and sequences that could not be made; each that had rows is added to `missing`.
///
/// A table of which only a column is missing counts as missing: its rows can't be loaded as they were.
pub async fn without_missing_tables(
    session: &Session,
    snapshot: &StoredSnapshot,
    missing: &mut Vec<MissingObject>,
) -> Result<StoredSnapshot> {
    let failed = |source| Error::postgres("could not list the tables that were made", source);
    let rows = session
        .query(
            "SELECT n.nspname::text, c.relname::text, c.relkind = 'S',
                    ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0
                          AND NOT a.attisdropped AND a.attgenerated = '')
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind IN ('r', 'p', 'S')",
            &[],
        )
        .await
        .map_err(failed)?;
    let (mut tables, mut sequences) = (HashMap::new(), HashSet::new());
    for row in &rows {
        let name = QualifiedName::new(row.get::<_, String>(0), row.get::<_, String>(1));
        if row.get(2) {
            sequences.insert(name);
        } else {
            tables.insert(name, row.get::<_, Vec<String>>(3).into_iter().collect::<HashSet<String>>());
        }
    }
    let mut kept = snapshot.clone();
    kept.manifest.tables.retain(|data| {
        let table = &data.table;
        let has = |name: &QualifiedName| {
            let columns = tables.get(name);
            columns
                .is_some_and(|columns| table.columns.iter().all(|column| columns.contains(column.as_str())))
        };
        let is_there = has(&table.name) && table.load_into.as_ref().is_none_or(has);
        if !is_there && data.rows() > 0 {
            missing.push(MissingObject {
                object: format!("rows of {}", table.name.short()),
                reason: format!(
                    "the table could not be made as it was, and its {} rows are not restored",
                    data.rows()
                ),
                definition: None,
            });
        }
        is_there
    });
    kept.manifest.sequences.retain(|sequence| {
        let is_there = sequences.contains(&sequence.name);
        if !is_there {
            missing.push(MissingObject {
                object: format!("value of the sequence {}", sequence.name.short()),
                reason: format!("the sequence could not be made; it stood at {}", sequence.last_value),
                definition: None,
            });
        }
        is_there
    });
    Ok(kept)
}

/// The snapshot without the materialized views that could not be made; they are in `missing` by pg_restore's word.
pub async fn without_missing_views(
    session: &Session,
    mut snapshot: StoredSnapshot,
) -> Result<StoredSnapshot> {
    let rows = session
        .query(
            "SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'm'",
            &[],
        )
        .await
        .map_err(|source| Error::postgres("could not list the views that were made", source))?;
    let views: BTreeSet<QualifiedName> =
        rows.iter().map(|row| QualifiedName::new(row.get::<_, String>(0), row.get::<_, String>(1))).collect();
    snapshot.manifest.materialized_views.retain(|view| views.contains(&view.name));
    Ok(snapshot)
}

/// The snapshot without the tables whose rows the server did not take; each is added to `missing`.
pub fn without_refused_rows(
    mut snapshot: StoredSnapshot,
    refused: Vec<(QualifiedName, String)>,
    missing: &mut Vec<MissingObject>,
) -> StoredSnapshot {
    for (table, why) in refused {
        let data = snapshot.manifest.tables.iter().position(|data| data.table.name == table);
        let Some(data) = data.map(|at| snapshot.manifest.tables.remove(at)) else { continue };
        missing.push(MissingObject {
            object: format!("rows of {}", table.short()),
            reason: format!(
                "the server does not take them, and the table is empty: {} rows; {why}",
                data.rows()
            ),
            definition: None,
        });
    }
    snapshot
}

/// `pg_restore --list`, as number → what the line says of the entry, without its owner.
pub fn entries(listed: &str) -> BTreeMap<u32, String> {
    listed
        .lines()
        .filter_map(|line| {
            let (id, rest) = line.split_once("; ")?;
            let entry = rest.splitn(3, ' ').nth(2)?;
            let entry = entry.rsplit_once(' ').map_or(entry, |(entry, _)| entry);
            Some((id.parse().ok()?, entry.to_owned()))
        })
        .collect()
}

/// What helps where these could not be restored.
pub fn hint(fatal: &[MissingObject]) -> &'static str {
    // pg_restore gives no SQLSTATE; the C locale's text of 42501 is the only sign there is.
    if fatal.iter().any(|object| object.reason.starts_with("permission denied for type ")) {
        return "Whoever makes something of a type needs USAGE on it, and the minor releases of August 2026 and later ask for it in \
                more places. Grant it where the snapshot comes from (GRANT USAGE ON TYPE … TO …) and take a new one, or restore as \
                a superuser.";
    }
    if fatal.iter().any(|object| object.is_function() && function_settings::refused(&object.reason).is_some())
    {
        return "The server does not accept a setting of a function (SET … in its definition). --skip-settings makes such functions without \
                it, and names them.";
    }
    "The server's own words say why. A role, extension or privilege that is missing can be made there; a definition that the server \
     does not take has to be put right where the snapshot comes from. Then restore again."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_without_usage_is_told_with_the_grant_that_helps() {
        let object = |reason: &str| MissingObject {
            object: "DEFAULT app t c".to_owned(),
            reason: reason.to_owned(),
            definition: None,
        };
        let told = |fatal: &[MissingObject]| {
            let error = common::Error::failed("could not restore").with_hint(hint(fatal));
            error.hint().map(str::to_owned).unwrap_or_default()
        };
        let other = object("type \"app.mood\" does not exist");
        assert!(
            told(&[other.clone(), object("permission denied for type mood")]).contains("GRANT USAGE ON TYPE")
        );
        assert!(!told(&[other]).contains("GRANT"));
        let mut function = object("unrecognized configuration parameter \"escape_string_warning\"");
        assert!(!told(std::slice::from_ref(&function)).contains("--skip-settings"));
        function.definition = Some("CREATE FUNCTION public.f() RETURNS integer".to_owned());
        assert!(told(&[function]).contains("--skip-settings"));
    }

    #[test]
    fn entries_are_named_as_the_list_names_them() {
        let listed =
            "; comment\n215; 1259 16395 TABLE app orders shop\n7; 0 0 COMMENT app TABLE orders shop\n";
        let entries = entries(listed);
        assert_eq!(entries.get(&215).map(String::as_str), Some("TABLE app orders"));
        assert_eq!(entries.len(), 2);
    }
}
