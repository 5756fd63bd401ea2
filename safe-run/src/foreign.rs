//! Whether the migrations stand in the history of another tool: what that tool has applied must not run again.
//!
//! Tables of the tools that we know are found by their names and by their columns; any other table counts when the names of
//! the files, or numbers that are times, stand in it. Nothing of the database's own code runs for that: plain tables
//! are copied out, with no condition and no plan, in columns of built-in types. What can't be read decides nothing.

mod folder;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use common::{
    Error, Result,
    ident::{Ident, QualifiedName},
    postgres::{Session, copy},
};
use futures_util::future::join_all;

use crate::version_tables::{Known, TOOLS};
use folder::Fit;
pub use folder::Folder;

/// Most tables that are looked into. Histories come first, then narrow tables.
const MAX_TABLES: i64 = 100;

/// Largest table that is looked into without being known as a history, in bytes.
const MAX_BYTES: i64 = 1 << 20;

/// Largest history, in bytes of rows: statements and scripts beside the versions lie out of line, mostly.
const MAX_HISTORY_BYTES: i64 = 256 << 20;

/// Longest that the look may wait for a lock, and take.
const LIMITS: &str = "SET LOCAL lock_timeout = '2s'; SET LOCAL statement_timeout = '10s'";

/// What a history is called, by those who gave it a name of their own.
const HISTORY_NAMES: &str = "migration|schema_?(version|history|change|patch|info)|(db|database)_?(version|history|change|patch)|\
                             evolution|flyway|goose|sqlx|sqitch|liquibase|refinery|dbmate";

/// Columns that hold versions.
const VERSION_COLUMNS: [&str; 10] = [
    "version",
    "version_id",
    "version_num",
    "version_number",
    "schema_version",
    "db_version",
    "revision",
    "migration",
    "migration_id",
    "patch",
];

/// Plain tables that we may read, the likely ones first: schema, name, columns of simple types in order, columns in all,
/// size (-1: not known to the catalog), whether the name is like a history's.
const TABLES: &str = "
SELECT n.nspname::text, c.relname::text, a.simple, a.names, c.size, c.named
FROM (
  SELECT c.oid, c.relname, c.relnamespace, c.relnatts,
         CASE WHEN c.relpages = 0 THEN -1
              ELSE c.relpages::int8 * pg_catalog.current_setting('block_size')::int8 END AS size,
         (c.relname = ANY ($1) OR c.relname::text ~* $2) AS named
  FROM pg_catalog.pg_class c
  WHERE c.relkind = 'r' AND c.relpersistence <> 't'
) c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (
  SELECT pg_catalog.array_agg(a.attname::text ORDER BY a.attnum) AS names,
         pg_catalog.array_agg(a.attname::text ORDER BY a.attnum)
           FILTER (WHERE a.atttypid IN (19, 20, 21, 23, 25, 1042, 1043, 1700)) AS simple
  FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
) a
WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('information_schema', 'safe_run')
  AND (c.named OR c.relnatts <= 20 AND c.size <= $3) AND a.simple IS NOT NULL
  AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
  AND NOT pg_catalog.row_security_active(c.oid)
ORDER BY c.named DESC, c.relnatts, c.size, 1, 2 LIMIT $4";

/// Another tool's history in which migrations of the folders stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// The table.
    pub table: QualifiedName,
    /// Whose it is; `None` where only its content tells.
    pub tool: Option<&'static str>,
    /// How that tool is told to migrate.
    pub command: Option<&'static str>,
    /// Its columns: whether it is a history that an adopted tool could have under another name.
    pub columns: Vec<String>,
    /// The files and folders that stand in it.
    pub paths: BTreeSet<PathBuf>,
}

impl Elsewhere {
    /// Whether the file, or the folder that it lies in, stands there.
    pub fn has(&self, path: &Path) -> bool {
        self.paths.contains(path) || path.parent().is_some_and(|folder| self.paths.contains(folder))
    }
}

/// A table to look into.
struct Candidate {
    table: QualifiedName,
    /// All of its columns.
    columns: Vec<String>,
    /// Those that are read.
    read: Vec<String>,
    size: i64,
    tool: Option<&'static Known>,
    named: bool,
}

/// Looks for migrations of `dirs` in tables other than `own`, and in those that are not named in `left_out`, each as
/// `[schema.]table`. The one in which most of them stand comes first.
///
/// # Errors
/// The connection's own. What can't be read, for a lock or a right, is left out.
pub async fn find(
    session: &Session,
    dirs: &[PathBuf],
    own: Option<&QualifiedName>,
    left_out: &[crate::statement::TableName],
) -> Result<Vec<Elsewhere>> {
    let mut folder = Folder::read(dirs);
    if folder.is_empty() {
        return Ok(Vec::new());
    }
    let candidates: Vec<Candidate> = candidates(session)
        .await?
        .into_iter()
        .filter(|candidate| own != Some(&candidate.table))
        .filter(|candidate| {
            !left_out.iter().any(|name| {
                name.name == candidate.table.name.as_str()
                    && name.schema.as_ref().is_none_or(|schema| *schema == candidate.table.schema.as_str())
            })
        })
        .collect();
    let has_hashes = |candidate: &Candidate| {
        candidate.read.iter().any(|column| matches!(column.as_str(), "hash" | "checksum"))
    };
    if candidates.iter().any(has_hashes) {
        folder.add_hashes();
    }
    if let Some(journal) = Folder::journal(dirs) {
        folder.add_journal(&journal);
    }
    let contents = contents(session, &candidates).await?;
    let mut found: Vec<Elsewhere> = candidates
        .iter()
        .zip(contents)
        .filter_map(|(candidate, text)| {
            let rows = rows(&text?, candidate.read.len());
            let places = recorded(candidate, &rows, &folder);
            (!places.is_empty()).then(|| Elsewhere {
                table: candidate.table.clone(),
                tool: candidate.tool.map(|tool| tool.tool),
                command: candidate.tool.map(|tool| tool.command).filter(|command| !command.is_empty()),
                columns: candidate.columns.clone(),
                paths: places.into_iter().map(|place| folder.path(place).to_owned()).collect(),
            })
        })
        .collect();
    found.sort_by_key(|elsewhere| (std::cmp::Reverse(elsewhere.paths.len()), elsewhere.tool.is_none()));
    Ok(found)
}

fn failed(source: common::postgres::DriverError) -> Error {
    Error::postgres("could not look for the histories of other tools", source)
}

/// The tables to look into.
async fn candidates(session: &Session) -> Result<Vec<Candidate>> {
    let names: Vec<&str> = TOOLS.iter().map(|known| known.table).collect();
    let rows =
        session.query(TABLES, &[&names, &HISTORY_NAMES, &MAX_BYTES, &MAX_TABLES]).await.map_err(failed)?;
    let candidate = |row: &common::postgres::Row| {
        let (schema, name): (String, String) = (row.get(0), row.get(1));
        let (simple, columns): (Vec<String>, Vec<String>) = (row.get(2), row.get(3));
        let has = |wanted: &&str| columns.iter().any(|column| column == wanted);
        let fits = |known: &&Known| known.columns.iter().all(&has);
        // Two columns alone stand in many tables, and no tool's table is wide.
        let by_columns = |known: &&Known| {
            let tells = known.columns.len() > 2 || known.columns.len() == columns.len();
            known.by_columns && columns.len() <= 16 && tells && fits(known)
        };
        let named = TOOLS.iter().filter(|known| known.table == name).find(fits);
        let tool = named.or_else(|| TOOLS.iter().find(by_columns));
        let read = match tool {
            Some(tool) => {
                simple.iter().filter(|column| tool.names.contains(&column.as_str())).cloned().collect()
            }
            None => simple,
        };
        Candidate {
            table: QualifiedName::new(schema, name),
            columns,
            read,
            size: row.get(4),
            tool,
            named: row.get(5),
        }
    };
    let found: Vec<Candidate> =
        rows.iter().map(candidate).filter(|candidate| !candidate.read.is_empty()).collect();
    small(session, found).await
}

/// Those that are not too large. A table that was never analyzed has no size in the catalog.
async fn small(session: &Session, candidates: Vec<Candidate>) -> Result<Vec<Candidate>> {
    let limit = |candidate: &Candidate| {
        if candidate.tool.is_some() || candidate.named { MAX_HISTORY_BYTES } else { MAX_BYTES }
    };
    let unknown: Vec<String> = candidates
        .iter()
        .filter(|candidate| candidate.size < 0)
        .map(|candidate| candidate.table.to_string())
        .collect();
    let mut sizes = BTreeMap::new();
    if !unknown.is_empty() {
        // Whoever has the table locked for long is changing it: it is left out then.
        let asked = async {
            session.batch_execute(&format!("BEGIN READ ONLY; {LIMITS}")).await?;
            session
                .query(
                    "SELECT name, pg_catalog.pg_relation_size(pg_catalog.to_regclass(name)) FROM pg_catalog.unnest($1::text[]) name",
                    &[&unknown],
                )
                .await
        };
        let asked = asked.await;
        session.batch_execute("ROLLBACK").await.map_err(failed)?;
        for row in asked.unwrap_or_default() {
            sizes.insert(row.get::<_, String>(0), row.get::<_, Option<i64>>(1).unwrap_or(i64::MAX));
        }
    }
    Ok(candidates
        .into_iter()
        .filter(|candidate| {
            let size = match candidate.size {
                size if size >= 0 => size,
                _ => sizes.get(&candidate.table.to_string()).copied().unwrap_or(i64::MAX),
            };
            size <= limit(candidate)
        })
        .collect())
}

/// What stands in the tables, as COPY writes it; `None` for one that could not be read.
async fn contents(session: &Session, candidates: &[Candidate]) -> Result<Vec<Option<String>>> {
    let copies: Vec<String> = candidates
        .iter()
        .map(|candidate| {
            let columns: Vec<String> =
                candidate.read.iter().map(|column| Ident::new(column.as_str()).to_string()).collect();
            format!("COPY {} ({}) TO STDOUT", candidate.table, columns.join(", "))
        })
        .collect();
    let begin = format!("BEGIN READ ONLY; {LIMITS}");
    session.batch_execute(&begin).await.map_err(failed)?;
    // Sent behind each other: the way to the server counts, and not the few rows.
    let together = join_all(copies.iter().map(|sql| copy::out_to_memory(session, sql))).await;
    session.batch_execute("ROLLBACK").await.map_err(failed)?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let mut contents = Vec::with_capacity(copies.len());
    for (sql, read) in copies.iter().zip(together) {
        contents.push(match read {
            Ok(bytes) => Some(text(bytes)),
            // The first that can't be read makes the server refuse all that follow.
            Err(_) => {
                session.batch_execute(&begin).await.map_err(failed)?;
                let alone = copy::out_to_memory(session, sql).await;
                session.batch_execute("ROLLBACK").await.map_err(failed)?;
                alone.ok().map(text)
            }
        });
    }
    Ok(contents)
}

/// The rows of a COPY; NULL is `None`. What stands in a version or a name needs no other escape than the backslash.
fn rows(text: &str, columns: usize) -> Vec<Vec<Option<String>>> {
    text.lines()
        .map(|line| {
            let fields = line.split('\t').map(|field| (field != "\\N").then(|| field.replace("\\\\", "\\")));
            fields.take(columns).collect()
        })
        .collect()
}

/// The entries that stand in the table. Pure.
fn recorded(candidate: &Candidate, rows: &[Vec<Option<String>>], folder: &Folder) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    for (at, column) in candidate.read.iter().enumerate() {
        let values: Vec<&str> = rows.iter().filter_map(|row| row.get(at)?.as_deref()).collect();
        let fits: Vec<(Fit, &[usize])> = values.iter().filter_map(|value| folder.find(value)).collect();
        if let Some(tool) = candidate.tool {
            let places = fits.iter().flat_map(|(_, places)| places.iter().copied());
            let before = values.iter().filter(|_| tool.up_to).flat_map(|value| folder.up_to(value));
            found.extend(places.chain(before).filter(|place| folder.has_ending(*place, tool.endings)));
            continue;
        }
        // Small numbers stand in every table: here only where nothing else stands in a column of versions.
        let is_version = VERSION_COLUMNS.contains(&column.to_ascii_lowercase().as_str());
        let all = is_version && fits.len() == values.len();
        let counts = |fit: Fit| match fit {
            Fit::Name | Fit::Time => true,
            Fit::Date | Fit::Word => candidate.named,
            Fit::Number => candidate.named && all,
        };
        found.extend(
            fits.iter().filter(|(fit, _)| counts(*fit)).flat_map(|(_, places)| places.iter().copied()),
        );
    }
    found
}
