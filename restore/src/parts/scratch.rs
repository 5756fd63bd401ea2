//! An empty database with the definitions of the tables, which is dropped at the end on every path.
//!
//! There the tables are what they were, whatever became of the live ones; there they get their other names; and from there
//! pg_dump takes them on. Never is the text of a definition changed.

use std::collections::BTreeMap;

use common::{
    Error, Ident, Progress, QualifiedName, Result,
    ident::literal,
    postgres::{
        ConnectionSettings, Session,
        tools::{self, Tool},
    },
    repository::verify::VerifiedSnapshot,
    snapshot::toc::{Entry, Kind},
};

use super::plan::FreeNames;
use crate::{
    RestorePlan,
    archive::{self, ArchiveOptions, Remedies},
    contents::{self, Section},
    stage::StagedDatabase,
};

/// The user's tables, their indexes, sequences and extended statistics: everything with a name of its own in a schema.
const NAMED: &str = "
SELECT c.relkind::text AS kind, n.nspname, c.relname
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'i', 'I', 'S') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
  AND n.nspname NOT LIKE 'pg\\_toast%' AND n.nspname NOT LIKE 'pg\\_temp%'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                  AND d.objid = c.oid AND d.deptype = 'e')
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i JOIN pg_catalog.pg_depend d ON d.objid = i.indrelid
                  AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype = 'e'
                  WHERE i.indexrelid = c.oid)
UNION ALL SELECT 'statistics', n.nspname, s.stxname
FROM pg_catalog.pg_statistic_ext s JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace
ORDER BY 1, 2, 3";

/// Sequences that a default draws from and that belong to no column, with the column that shall own each.
const UNOWNED: &str = "
SELECT DISTINCT ON (s.oid) sn.nspname, s.relname, tn.nspname, t.relname, a.attname::text
FROM pg_catalog.pg_class s JOIN pg_catalog.pg_namespace sn ON sn.oid = s.relnamespace
JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = s.oid
  AND d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass
JOIN pg_catalog.pg_attrdef f ON f.oid = d.objid
JOIN pg_catalog.pg_class t ON t.oid = f.adrelid JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum
WHERE s.relkind = 'S' AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend o
      WHERE o.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND o.objid = s.oid AND o.deptype IN ('a', 'i')
        AND o.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass)
ORDER BY s.oid, t.relkind = 'p' DESC, t.relispartition, t.oid, a.attnum";

/// What defines an object, as far as two databases can be compared; NULL where only its existence can.
const DEFINITION: &str = "
SELECT CASE $1::oid
  WHEN 'pg_catalog.pg_proc'::pg_catalog.regclass THEN
    (SELECT CASE WHEN p.prokind <> 'a' THEN pg_catalog.pg_get_functiondef(p.oid) END FROM pg_catalog.pg_proc p WHERE p.oid = $2)
  WHEN 'pg_catalog.pg_type'::pg_catalog.regclass THEN
    (SELECT pg_catalog.concat_ws(' ', CASE t.typtype WHEN 'e' THEN 'enum' WHEN 'd' THEN 'domain' WHEN 'c' THEN 'composite'
                                 WHEN 'r' THEN 'range' ELSE t.typtype::text END,
       (SELECT pg_catalog.string_agg(pg_catalog.quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder)
          FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid),
       (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname) || ' '
               || pg_catalog.format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum)
          FROM pg_catalog.pg_attribute a WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped),
       CASE WHEN t.typtype = 'd' THEN pg_catalog.format_type(t.typbasetype, t.typtypmod) END,
       CASE WHEN t.typnotnull THEN 'NOT NULL' END, 'DEFAULT ' || t.typdefault,
       (SELECT pg_catalog.string_agg(pg_catalog.pg_get_constraintdef(k.oid), ' ' ORDER BY pg_catalog.pg_get_constraintdef(k.oid))
          FROM pg_catalog.pg_constraint k WHERE k.contypid = t.oid AND k.contype = 'c'),
       (SELECT pg_catalog.format_type(r.rngsubtype, NULL) FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid))
     FROM pg_catalog.pg_type t WHERE t.oid = $2)
  WHEN 'pg_catalog.pg_collation'::pg_catalog.regclass THEN
    (SELECT pg_catalog.concat_ws(' ', c.collprovider, c.collisdeterministic, c.collcollate::text,
            pg_catalog.to_jsonb(c)->>'colllocale', pg_catalog.to_jsonb(c)->>'colliculocale')
     FROM pg_catalog.pg_collation c WHERE c.oid = $2)
  END";

/// Every name of a relation, type or statistics object.
pub const TAKEN: &str = "
SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
UNION SELECT n.nspname, t.typname FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
UNION SELECT n.nspname, s.stxname FROM pg_catalog.pg_statistic_ext s JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace";

/// The names that are taken in the database of a session.
pub async fn taken(session: &Session) -> Result<Vec<QualifiedName>> {
    let rows = session
        .query(TAKEN, &[])
        .await
        .map_err(|source| Error::postgres("could not read the names in the database", source))?;
    Ok(rows.iter().map(|row| name(row, 0)).collect())
}

pub(super) fn name(row: &common::postgres::Row, at: usize) -> QualifiedName {
    QualifiedName::new(row.get::<_, String>(at), row.get::<_, String>(at + 1))
}

/// Fills the scratch database with definitions, without rows.
pub async fn define(
    staged: &StagedDatabase,
    settings: &ConnectionSettings,
    snapshot: &VerifiedSnapshot,
    plan: &RestorePlan,
    pg_restore: &Tool,
    sections: &[Section],
    progress: &Progress,
) -> Result<Session> {
    let stored = snapshot.snapshot();
    let settings = settings.with_database(staged.name());
    let session = settings.connect().await?;
    let remedies = Remedies::new(&settings, &stored.manifest, plan.skip_settings, progress);
    let options = ArchiveOptions {
        jobs: 1,
        no_owner: plan.no_owner,
        entries: stored.manifest.partial.as_ref().map(|partial| partial.entries.as_slice()),
        // Definitions only, and the live tables stay where they are.
        no_tablespaces: true,
        keep_going: false,
        session: "",
        ahead: None,
        owned: None,
        remedies: &remedies,
    };
    for section in sections {
        let archive = contents::archive(stored);
        let missing =
            archive::restore(pg_restore, &settings, &session, &archive, *section, options, progress).await?;
        if let Some(object) = missing.first() {
            return Err(Error::failed(format!("a definition could not be restored: {}", object.line())));
        }
    }
    remedies.paths.take_back(&session).await?;
    Ok(session)
}

/// The new name of everything that was renamed.
#[derive(Debug, Default)]
pub struct Renamed {
    /// Tables and sequences: old name to new one.
    pub names: BTreeMap<QualifiedName, QualifiedName>,
}

/// Gives tables, indexes, sequences and statistics the names that `fixed` says, or free ones with `suffix`.
///
/// Every sequence becomes the own one of the column that draws from it.
pub async fn rename(
    session: &Session,
    fixed: &BTreeMap<QualifiedName, QualifiedName>,
    free: &mut FreeNames,
    suffix: &str,
) -> Result<Renamed> {
    let failed = |source| Error::postgres("could not rename the tables in the scratch database", source);
    let mut statements = Vec::new();
    for row in session.query(UNOWNED, &[]).await.map_err(failed)? {
        let column = Ident::new(row.get::<_, String>(4));
        statements.push(format!("ALTER SEQUENCE {} OWNED BY {}.{column}", name(&row, 0), name(&row, 2)));
    }
    let mut renamed = Renamed::default();
    for row in session.query(NAMED, &[]).await.map_err(failed)? {
        let kind: String = row.get(0);
        let old = name(&row, 1);
        let new = match fixed.get(&old) {
            Some(new) if matches!(&*kind, "r" | "p") => new.clone(),
            _ => free.take(&old, suffix)?,
        };
        let word = match &*kind {
            "i" | "I" => "INDEX",
            "S" => "SEQUENCE",
            "statistics" => "STATISTICS",
            _ => "TABLE",
        };
        statements.push(format!("ALTER {word} {old} RENAME TO {}", new.name));
        if matches!(word, "TABLE" | "SEQUENCE") {
            renamed.names.insert(old, new);
        }
    }
    for statement in statements {
        session.batch_execute(&statement).await.map_err(failed)?;
    }
    Ok(renamed)
}

/// The definitions as SQL for the live database, in two halves: before the rows and after them.
#[derive(Debug)]
pub struct Definitions {
    /// Schemas and types that are missing there, and the tables.
    pub before: String,
    /// Indexes, constraints, statistics.
    pub after: String,
    /// What the live database does not have and gets.
    pub made: Vec<String>,
}

/// Dumps the scratch database, leaving out what the live one has already.
///
/// # Errors
/// Refused when an object exists there with another definition.
pub async fn definitions(
    settings: &ConnectionSettings,
    scratch: &Session,
    live: &Session,
    pg_dump: &Tool,
    pg_restore: &Tool,
) -> Result<Definitions> {
    let folder = tempfile::tempdir()
        .map_err(|source| Error::failed(format!("could not make a temporary folder: {source}")))?;
    let archive = folder.path().join("tables.dump");
    let mut command = tools::command(&pg_dump.path, settings);
    command
        .args([
            "--schema-only",
            "--format=custom",
            "--no-password",
            "--no-owner",
            "--no-privileges",
            "--encoding=UTF8",
        ])
        .arg("--file")
        .arg(&archive);
    let finished = tools::run(command, "pg_dump").await?;
    if !finished.success {
        return Err(Error::failed(format!(
            "pg_dump could not read the scratch database:\n{}",
            finished.stderr.trim()
        )));
    }
    let entries = contents::contents(pg_restore, &archive).await?;
    let (entries, made) = missing(&entries, scratch, live).await?;
    let list = contents::list_of(&entries)?;
    let text = async |section: &str| -> Result<String> {
        let mut command = tools::offline_command(&pg_restore.path);
        command.args(["--file=-", "--no-owner", "--no-privileges", section]);
        command.arg("--use-list").arg(list.path()).arg(&archive);
        let (finished, text) = tools::capture(command, "pg_restore").await?;
        if !finished.success {
            return Err(Error::failed(format!("pg_restore failed: {}", finished.stderr.trim())));
        }
        let text = String::from_utf8(text).map_err(|_| {
            Error::refused("a definition has bytes that are not UTF-8, which only a whole restore keeps")
        })?;
        Ok(contents::for_the_server(&text, live.server_major()))
    };
    Ok(Definitions {
        before: text("--section=pre-data").await?,
        after: text("--section=post-data").await?,
        made,
    })
}

/// The entries that the live database does not have, and what they are.
async fn missing(entries: &[Entry], scratch: &Session, live: &Session) -> Result<(Vec<u32>, Vec<String>)> {
    let mut there = std::collections::HashSet::new();
    let (mut made, mut different) = (Vec::new(), Vec::new());
    for entry in entries.iter().filter(|entry| matches!(entry.kind, Kind::Other | Kind::Extension)) {
        match compare(entry, scratch, live).await? {
            Standing::Missing => made.push(entry.describe()),
            Standing::Same => {
                there.insert(entry.id);
            }
            Standing::Different(wanted, found) => different.push(format!(
                "{} differs in the live database: the snapshot has {}, the database has {}",
                entry.describe(),
                shown(&wanted),
                shown(&found)
            )),
        }
    }
    if !different.is_empty() {
        return Err(Error::refused(different.join("; "))
            .with_hint("Restore the tables into a database of their own: --into NAME."));
    }
    let chosen = entries
        .iter()
        .filter(|entry| !there.contains(&entry.id) && (entry.kind != Kind::Global || entry.object.0 == 0))
        // A comment, or a CHECK of a domain, of what is there already.
        .filter(|entry| {
            let is_remark = matches!(entry.kind, Kind::Comment | Kind::SecurityLabel | Kind::Acl);
            !(is_remark && entry.needs.iter().any(|need| there.contains(need)))
        })
        .filter(|entry| {
            entry.kind != Kind::Constraint || !entry.needs.iter().all(|need| there.contains(need))
        })
        .map(|entry| entry.id)
        .collect();
    Ok((chosen, made))
}

fn shown(definition: &str) -> String {
    let line = common::ident::printable(&definition.split_whitespace().collect::<Vec<_>>().join(" "));
    if line.chars().count() > 200 { line.chars().take(200).collect::<String>() + " …" } else { line }
}

enum Standing {
    Missing,
    Same,
    Different(String, String),
}

async fn compare(entry: &Entry, scratch: &Session, live: &Session) -> Result<Standing> {
    let failed = |source| Error::postgres(format!("could not look for {}", entry.describe()), source);
    let (catalog, oid) = entry.object;
    let row = scratch
        .query_one(
            "SELECT type, object_names, object_args FROM pg_catalog.pg_identify_object_as_address($1, $2, 0)",
            &[&catalog, &oid],
        )
        .await
        .map_err(failed)?;
    let (kind, names, arguments): (String, Vec<String>, Vec<String>) = (row.get(0), row.get(1), row.get(2));
    let found = live
        .query_one(
            "SELECT classid, objid FROM pg_catalog.pg_get_object_address($1, $2, $3)",
            &[&kind, &names, &arguments],
        )
        .await;
    let found = match found {
        Ok(row) => (row.get::<_, u32>(0), row.get::<_, u32>(1)),
        // Classes 42 and 3F: no object, schema, function … of that name.
        Err(source) => {
            let error = failed(source);
            let is_missing =
                error.sqlstate().is_some_and(|state| state.starts_with("42") || state.starts_with("3F"));
            return if is_missing { Ok(Standing::Missing) } else { Err(error) };
        }
    };
    let definition = async |session: &Session, object: (u32, u32)| -> Result<Option<String>> {
        Ok(session.query_one(DEFINITION, &[&object.0, &object.1]).await.map_err(failed)?.get(0))
    };
    match (definition(scratch, entry.object).await?, definition(live, found).await?) {
        (Some(wanted), Some(found)) if wanted != found => Ok(Standing::Different(wanted, found)),
        _ => Ok(Standing::Same),
    }
}

/// One column, for the comparison with the live table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type, with modifier and a collation that is not the type's own.
    pub kind: String,
    /// Whether its value is computed.
    pub is_generated: bool,
}

/// The columns of a table, in order; nothing if there is no such table.
pub async fn columns(session: &Session, table: &QualifiedName) -> Result<Option<Vec<Column>>> {
    let rows = session
        .query(
            "SELECT a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod)
                    || COALESCE(' COLLATE ' || (SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.collname)
                       FROM pg_catalog.pg_collation c JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace
                       WHERE c.oid = a.attcollation AND a.attcollation <> t.typcollation), ''),
                    a.attgenerated <> '', c.oid
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
             LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
             LEFT JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
             WHERE s.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p') ORDER BY a.attnum",
            &[&table.schema.as_str(), &table.name.as_str()],
        )
        .await
        .map_err(|source| Error::postgres(format!("could not read the columns of {}", table.short()), source))?;
    if rows.is_empty() {
        return Ok(None);
    }
    Ok(Some(
        rows.iter()
            .filter_map(|row| {
                Some(Column {
                    name: row.get::<_, Option<String>>(0)?,
                    kind: row.get::<_, Option<String>>(1)?,
                    is_generated: row.get(2),
                })
            })
            .collect(),
    ))
}

/// The name of a regclass in SQL.
pub fn regclass(name: &QualifiedName) -> String {
    format!("{}::pg_catalog.regclass", literal(&name.to_string()))
}
