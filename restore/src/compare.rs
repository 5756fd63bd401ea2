//! Every row of the new database against the manifest: its number and content. Nothing gets the live name before.
//!
//! Most tables are read back while others are still being loaded. What follows only makes indexes, keys and the like and
//! writes no rows, unless code that somebody wrote for this database runs on the way: then it is proved that no row was
//! written since, and where that can't be proved, the table is read once more (docs/exactness.md, E8).
//!
//! Tables that were loaded through a common root are compared together: their rows may lie in other partitions now.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use common::{
    Error, Progress, QualifiedName, Result,
    catalog::LsnFields,
    postgres::ConnectionSettings,
    repository::StoredSnapshot,
    snapshot::{
        Manifest, RowHash,
        copy_sql::{CHUNK_BLOCKS, copy_out_statement, page_ranges},
        manifest::TableData,
    },
};

use crate::{
    copy_in::{self, Work},
    load::ReadBack,
};

/// What to do about rows that are not the snapshot's, although the server took what is in the files.
const DIFFERS: &str = "The files of the snapshot are whole. Look for what writes into a new database by itself (event triggers, a scheduler \
                       such as pg_cron, extensions in template1), and for a type whose text is another on this server (another version \
                       of an extension). If there is neither, report it with the snapshot's id.";

/// Tables that were found equal.
#[derive(Debug, Default)]
pub struct Compared(BTreeMap<QualifiedName, Seen>);

#[derive(Debug)]
struct Seen {
    /// The root, or the table itself.
    key: QualifiedName,
    is_heap: bool,
    found: ReadBack,
}

/// Rows and content, as the manifest has them and as they were found.
type Sides = [(u64, RowHash); 2];

/// The table that a table's rows were loaded through.
fn key(table: &TableData) -> QualifiedName {
    table.table.load_into.clone().unwrap_or_else(|| table.table.name.clone())
}

/// Compares what was read back while the tables were loaded; tables that were not all read are left for [`rest`].
///
/// # Errors
/// Names every table that differs, with both counts.
pub fn loaded(manifest: &Manifest, read: &HashMap<usize, ReadBack>) -> Result<Compared> {
    let unread: BTreeSet<QualifiedName> = manifest
        .tables
        .iter()
        .enumerate()
        .filter(|(number, _)| !read.contains_key(number))
        .map(|(_, table)| key(table))
        .collect();
    let mut sides: BTreeMap<QualifiedName, Sides> = BTreeMap::new();
    let mut compared = BTreeMap::new();
    for (number, table) in manifest.tables.iter().enumerate() {
        let key = key(table);
        let Some(found) = read.get(&number).filter(|_| !unread.contains(&key)) else { continue };
        let [want, have] = sides.entry(key.clone()).or_default();
        want.0 += table.rows();
        want.1.merge(table.row_hash());
        have.0 += found.rows;
        have.1.merge(found.hash);
        let seen = Seen { key, is_heap: table.table.is_heap, found: *found };
        compared.insert(table.table.name.clone(), seen);
    }
    judge(&sides, &[])?;
    Ok(Compared(compared))
}

/// Drops the tables in which a row was written, or from which one was taken, since they were compared.
///
/// As many rows as then, none of them written by a later transaction: they are the same rows. Where no such question may be
/// planned, the table is read once more.
pub async fn still(
    settings: &ConnectionSettings,
    jobs: usize,
    compared: Compared,
    manifest: &Manifest,
    progress: &Progress,
) -> Result<Compared> {
    let Compared(mut compared) = compared;
    let read_whole: BTreeSet<QualifiedName> =
        manifest.tables.iter().filter(|data| !data.table.may_plan).map(key).collect();
    compared.retain(|_, seen| !read_whole.contains(&seen.key));
    if compared.is_empty() {
        return Ok(Compared(compared));
    }
    progress.phase("looking for rows that were written since the comparison", None);
    // Only the heap promises to say who wrote a row.
    let work: Vec<Work> = compared
        .iter()
        .filter(|(_, seen)| seen.is_heap)
        .map(|(name, seen)| Work::Count {
            statement: unchanged(name, seen.found.before),
            table: name.short(),
        })
        .collect();
    let counts = copy_in::run(settings, jobs, work, manifest.codec, progress).await?;
    let mut counts = counts.iter().map(|(rows, _)| *rows);
    let changed: BTreeSet<QualifiedName> = compared
        .values()
        .filter(|seen| !(seen.is_heap && counts.next() == Some(seen.found.rows)))
        .map(|seen| seen.key.clone())
        .collect();
    compared.retain(|_, seen| !changed.contains(&seen.key));
    progress.done();
    Ok(Compared(compared))
}

/// The number of rows, or -1 if one of them was written by a transaction after this one.
fn unchanged(table: &QualifiedName, before: u32) -> String {
    format!(
        "SELECT CASE WHEN pg_catalog.count(*) = pg_catalog.count(*) FILTER \
         (WHERE pg_catalog.age(xmin) > pg_catalog.age('{before}'::pg_catalog.xid)) THEN pg_catalog.count(*) ELSE -1 END \
         FROM ONLY {table}"
    )
}

/// Reads back and compares all that is not in `compared`.
///
/// # Errors
/// Names every table that differs, with both counts.
pub async fn rest(
    settings: &ConnectionSettings,
    snapshot: &StoredSnapshot,
    compared: &Compared,
    jobs: usize,
    progress: &Progress,
) -> Result<()> {
    let manifest = &snapshot.manifest;
    let encoding = &manifest.database.encoding;
    let tables: Vec<&TableData> =
        manifest.tables.iter().filter(|data| !compared.0.contains_key(&data.table.name)).collect();
    if tables.is_empty() && manifest.large_objects.is_none() {
        return Ok(());
    }
    let bytes = tables.iter().flat_map(|data| &data.chunks).map(|chunk| chunk.content.raw_bytes).sum();
    progress.phase("comparing rows with the snapshot", Some(bytes));
    let blocks = table_blocks(settings).await?;
    let mut owners = Vec::new();
    let mut work = Vec::new();
    for data in tables.iter().copied() {
        let blocks = blocks.get(&data.table.name).copied().unwrap_or(0);
        for range in page_ranges(&data.table, blocks, CHUNK_BLOCKS) {
            owners.push(data);
            work.push(Work::ReadBack {
                statement: copy_out_statement(&data.table, range, encoding)?,
                lsn_fields: data.table.lsn_fields.clone(),
                table: data.table.name.short(),
            });
        }
    }
    if manifest.large_objects.is_some() {
        work.push(Work::ReadBack {
            statement: "COPY (SELECT loid, pageno, data FROM pg_catalog.pg_largeobject) TO STDOUT".to_owned(),
            lsn_fields: LsnFields::default(),
            table: "large objects".to_owned(),
        });
    }
    let found = copy_in::run(settings, jobs, work, manifest.codec, progress).await?;
    let mut sides: BTreeMap<QualifiedName, Sides> = BTreeMap::new();
    for data in &tables {
        let [want, _] = sides.entry(key(data)).or_default();
        want.0 += data.rows();
        want.1.merge(data.row_hash());
    }
    for (data, (rows, hash)) in owners.iter().zip(&found) {
        let [_, have] = sides.entry(key(data)).or_default();
        have.0 += rows;
        have.1.merge(*hash);
    }
    let mut others = Vec::new();
    if let (Some(objects), Some(have)) = (&manifest.large_objects, found.get(owners.len())) {
        let mut want = (0, RowHash::default());
        for chunk in &objects.pages {
            want.0 += chunk.content.rows;
            want.1.merge(chunk.content.row_hash);
        }
        if want != *have {
            others.push("large objects: their content differs".to_owned());
        }
    }
    judge(&sides, &others)?;
    progress.done();
    Ok(())
}

fn judge(sides: &BTreeMap<QualifiedName, Sides>, others: &[String]) -> Result<()> {
    let differs = sides.iter().filter(|(_, [want, have])| want != have).map(|(name, [want, have])| {
        if want.0 == have.0 {
            format!("{}: {} rows, but their content differs", name.short(), have.0)
        } else {
            format!("{}: {} rows instead of {}", name.short(), have.0, want.0)
        }
    });
    let problems: Vec<String> = differs.chain(others.iter().cloned()).collect();
    if problems.is_empty() {
        return Ok(());
    }
    Err(Error::damaged(format!("the restored database differs from the snapshot: {}", problems.join("; ")))
        .with_hint(DIFFERS))
}

/// Size of every table in blocks, so that a large one is read by several connections.
async fn table_blocks(settings: &ConnectionSettings) -> Result<BTreeMap<QualifiedName, u64>> {
    let session = settings.connect().await?;
    let rows = session
        .query(
            "SELECT n.nspname, c.relname, pg_catalog.pg_relation_size(c.oid, 'main')
                    / pg_catalog.current_setting('block_size')::bigint
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r'",
            &[],
        )
        .await
        .map_err(|source| Error::postgres("could not read the sizes of the tables", source))?;
    session.close().await?;
    Ok(rows
        .iter()
        .map(|row| {
            let name = QualifiedName::new(row.get::<_, String>(0), row.get::<_, String>(1));
            (name, row.get::<_, i64>(2).unsigned_abs())
        })
        .collect())
}
