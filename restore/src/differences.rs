//! What of a restored database is not as it was, or can't be said to be, although every stored row was compared. It is a part of
//! the verdict: nothing that is known to differ may be called "as it was before".

use std::collections::{BTreeMap, HashMap};

use common::{
    Account, Error, Progress, QualifiedName, Remark, Result,
    format::{count, plural},
    ident::printable,
    postgres::{ConnectionSettings, Session, beside_rows, extension_objects, introspect, round_trip},
    repository::StoredSnapshot,
    snapshot::{
        Manifest,
        manifest::{Counted, ExtensionObjects, ExtensionTable, GeneratedColumns},
        readme::setval,
    },
};

use crate::{extensions, missing::MissingObject, plan::RestorePlan};

/// First major version in which partitions have the identity of the table that they belong to.
const IDENTITY_OF_PARTITIONS: u32 = 17;

/// Columns of partitions that make no value of their own while those of the partitioned table do.
const PARTITIONS_WITHOUT_IDENTITY: &str = "
SELECT n.nspname::text || '.' || c.relname::text || '.' || a.attname::text
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid
JOIN pg_catalog.pg_attribute p ON p.attrelid = i.inhparent AND p.attidentity <> '' AND NOT p.attisdropped
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = p.attname AND a.attidentity = '' AND NOT a.attisdropped
WHERE c.relispartition ORDER BY 1";

/// One thing: how it counts, and a sentence.
type Found = (Remark, String);

/// What differs, and what could not be compared.
#[derive(Debug, Clone, Default)]
pub struct Differences {
    /// All of it.
    pub account: Account,
    /// What of it only a restore tells, also one of a part: generated columns of which the snapshot speaks, and objects of extensions.
    pub by_rows: Vec<String>,
    /// Rows of extensions that the snapshot does not hold and that are not there again.
    pub lost_rows: Vec<LostRows>,
}

/// Rows that were in a table and are not in a restored database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostRows {
    /// The table.
    pub table: QualifiedName,
    /// How many it had: nobody knows which of them are there again.
    pub rows: u64,
    /// One sentence.
    pub line: String,
}

/// Finds all of it, one sentence each. The database's own code may have run for the last time.
pub async fn find(
    session: &Session,
    settings: &ConnectionSettings,
    manifest: &Manifest,
    progress: &Progress,
) -> Result<Differences> {
    // Earlier versions did not tell what differs from what is only good to know.
    let known = manifest.differs.clone().unwrap_or_else(|| manifest.not_kept.clone());
    let by_script = round_trip::given_away_by_name(session).await?;
    let known = known.into_iter().filter(|line| Some(line) != by_script.as_ref());
    let known = known.chain(extensions::differences(session, manifest).await?.into_values());
    let mut found: Vec<Found> = known.map(|line| (Remark::Differs, line)).collect();
    let now = beside_rows::extension_tables(settings, session, None, progress).await?;
    let (lost_rows, unknown) = of_extension_tables(manifest.extension_tables.as_deref(), &now);
    found.extend(lost_rows.iter().map(|lost| (Remark::Differs, lost.line.clone())));
    found.extend(unknown);
    let objects = match &manifest.extension_objects {
        Some(before) => of_extension_objects(before, session, manifest).await?,
        None => Vec::new(),
    };
    let now = beside_rows::generated(session, None, progress).await?;
    let (by_rows, unknown) = of_generated(manifest.generated.as_deref(), &now);
    let by_rows_lines = by_rows.iter().map(|(_, line)| line).chain(&objects);
    let by_rows_lines = by_rows_lines.map(|line| printable(line)).collect();
    found.extend(by_rows);
    found.extend(objects.into_iter().map(|line| (Remark::Differs, line)));
    found.extend(unknown);
    let of = |wanted: Remark| {
        let lines = found.iter().filter(|(remark, _)| *remark == wanted);
        lines.map(|(_, line)| printable(line)).collect()
    };
    let account =
        Account { missing: Vec::new(), not_checked: of(Remark::NotChecked), differs: of(Remark::Differs) };
    Ok(Differences { account, by_rows: by_rows_lines, lost_rows })
}

/// What is lost, and what nobody knows.
fn of_extension_tables(
    before: Option<&[ExtensionTable]>,
    now: &[ExtensionTable],
) -> (Vec<LostRows>, Vec<Found>) {
    let Some(before) = before else {
        let unsaid = match now.iter().filter(|table| !table.is_partly_written).count() as u64 {
            0 => Vec::new(),
            some => vec![(
                Remark::NotChecked,
                format!(
                    "{} that pg_dump does not write: the snapshot does not say what was in them",
                    plural(some, "table of an extension", "tables of extensions")
                ),
            )],
        };
        return (Vec::new(), unsaid);
    };
    let now: HashMap<&QualifiedName, &ExtensionTable> =
        now.iter().map(|table| (&table.name, table)).collect();
    let (mut lost, mut unknown) = (Vec::new(), Vec::new());
    for table in before {
        let what = format!("table {} of the extension {}", table.name.short(), table.extension);
        let have = now.get(&table.name).map(|table| &table.found);
        let mut lose = |want: u64, line: String| {
            lost.push(LostRows { table: table.name.clone(), rows: want, line: printable(&line) });
        };
        let writes = |all: &str| match table.is_partly_written {
            true => "pg_dump writes only those that the extension's own condition names".to_owned(),
            false => format!("pg_dump writes none of {all}"),
        };
        match (&table.found, have) {
            (Some(Counted { rows: 0, .. }), None) => {}
            (Some(want), Some(Some(have))) if want == have => {}
            (Some(want), Some(Some(have))) if want.rows == have.rows => {
                let rows = format!("its {}", plural(want.rows, "row", "rows"));
                lose(want.rows, format!("{what}: other content than before; {}", writes(&rows)));
            }
            (Some(want), have) => {
                let have = have.and_then(Option::as_ref).map_or(0, |have| have.rows);
                let (have, rows) = (plural(have, "row", "rows"), count(want.rows));
                lose(want.rows, format!("{what}: {have} instead of {rows}; {}", writes("them")));
            }
            (None, _) => unknown
                .push((Remark::NotChecked, format!("{what}: not compared, because it could not be read"))),
        }
    }
    (lost, unknown)
}

/// What of extensions in the same version is not what it was: somebody added, replaced, altered or dropped it, or gave it an index, a trigger
/// or a comment.
async fn of_extension_objects(
    before: &BTreeMap<String, ExtensionObjects>,
    session: &Session,
    manifest: &Manifest,
) -> Result<Vec<String>> {
    let now = extension_objects::read(session, true).await?;
    let versions = extensions::differences(session, manifest).await?;
    let is_same_version = |name: &str| {
        manifest.extensions.iter().any(|extension| extension.name == name) && !versions.contains_key(name)
    };
    Ok(before
        .iter()
        .filter(|(name, _)| is_same_version(name))
        .filter_map(|(name, before)| other_objects(name, before, now.get(name)?))
        .collect())
}

/// A sentence on the objects of one extension that are not as they were.
fn other_objects(name: &str, before: &ExtensionObjects, now: &ExtensionObjects) -> Option<String> {
    const NAMED: usize = 5;
    if before.hash == now.hash {
        return None;
    }
    let rest =
        "pg_dump writes nothing of what an extension owns, and CREATE EXTENSION makes what its script says";
    if before.objects.is_empty() {
        let (have, want) = (plural(now.count, "object", "objects"), count(before.count));
        return Some(format!("the extension {name}: {have} instead of {want}, or other definitions; {rest}"));
    }
    let names: std::collections::BTreeSet<&String> =
        before.objects.keys().chain(now.objects.keys()).collect();
    let mut lines = Vec::new();
    for object in names {
        match (before.objects.get(object), now.objects.get(object)) {
            (Some(want), Some(have)) if want == have => {}
            (Some(_), Some(_)) => lines.push(format!("{object} is defined otherwise")),
            (Some(_), None) => lines.push(format!("{object} is not there")),
            (None, _) => lines.push(format!("{object} was not there")),
        }
    }
    let more = lines.len().saturating_sub(NAMED);
    lines.truncate(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Some(format!("the extension {name}: {}{more}; {rest}", lines.join(", ")))
}

/// Those that have other values than before, or could; and those of which the snapshot says nothing.
fn of_generated(before: Option<&[GeneratedColumns]>, now: &[GeneratedColumns]) -> (Vec<Found>, Vec<Found>) {
    let known: HashMap<&QualifiedName, &GeneratedColumns> =
        before.unwrap_or_default().iter().map(|columns| (&columns.table, columns)).collect();
    let (mut by_rows, mut unknown) = (Vec::new(), Vec::new());
    for columns in now {
        let what = format!(
            "generated {} of {} ({})",
            if columns.columns.len() == 1 { "column" } else { "columns" },
            columns.table.short(),
            columns.columns.join(", ")
        );
        let by = columns.made_by.join(", ");
        let uncompared = (Remark::NotChecked, format!("{what}: computed again by {by}, and not compared"));
        match (known.get(&columns.table).map(|before| before.found.as_ref()), &columns.found) {
            (Some(Some(want)), Some(have)) if want == have => {}
            (Some(Some(_)), Some(_)) => {
                by_rows.push((
                    Remark::Differs,
                    format!("{what}: other values than before, computed again by {by}"),
                ));
            }
            (Some(_), _) => by_rows.push(uncompared),
            (None, _) => unknown.push(uncompared),
        }
    }
    (by_rows, unknown)
}

/// Sets the sequences of extensions that are no configuration; one that can't be set is a difference.
pub async fn set_extension_sequences(session: &Session, snapshot: &StoredSnapshot) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for sequence in &snapshot.manifest.extension_sequences {
        match session.query_one(&setval(sequence), &[]).await {
            Ok(_) => {}
            Err(source) if source.code().is_some() => {
                let error = Error::postgres("it could not be set", source);
                lines.push(format!(
                    "sequence {} of an extension stood at {}: {error}",
                    sequence.name.short(),
                    sequence.last_value
                ));
            }
            Err(source) => return Err(Error::postgres("could not set the sequences of extensions", source)),
        }
    }
    Ok(lines)
}

/// What an older server takes for granted otherwise, so that nothing fails: it is missing all the same.
pub async fn lost_on_an_older_server(
    session: &Session,
    manifest: &Manifest,
    plan: &RestorePlan,
) -> Result<Vec<MissingObject>> {
    if !plan.force
        || session.server_major() >= IDENTITY_OF_PARTITIONS
        || manifest.server.major() < IDENTITY_OF_PARTITIONS
    {
        return Ok(Vec::new());
    }
    let rows = session
        .query(PARTITIONS_WITHOUT_IDENTITY, &[])
        .await
        .map_err(|source| Error::postgres("could not look for identity columns of partitions", source))?;
    Ok(rows
        .iter()
        .map(|row| MissingObject {
            object: format!("identity of the column {}", row.get::<_, String>(0)),
            reason: format!(
                "PostgreSQL {} gives a partition none: a row that is written to it directly gets no value",
                session.server_major()
            ),
            definition: None,
        })
        .collect())
}

/// Drops the schema public, which every new database has, where the snapshot's had none; why it is there all the same, if it is.
///
/// # Errors
/// The connection.
pub async fn leave_out_public(session: &Session) -> Result<Option<String>> {
    if introspect::lacks_public(session).await? {
        return Ok(None);
    }
    let Err(source) = session.batch_execute("DROP SCHEMA public").await else { return Ok(None) };
    let error = Error::postgres("it could not be dropped", source);
    if error.sqlstate().is_none() {
        return Err(error);
    }
    let why = error.message();
    Ok(Some(format!("schema public is there, which the snapshot's database had not: {why}")))
}

#[cfg(test)]
mod tests {
    use common::snapshot::RowHash;

    use super::*;

    fn table(rows: Option<u64>) -> ExtensionTable {
        ExtensionTable {
            name: QualifiedName::new("ext", "nodes"),
            extension: "ext".to_owned(),
            is_partly_written: false,
            found: rows.map(|rows| Counted { rows, row_hash: RowHash::default() }),
        }
    }

    #[test]
    fn rows_that_nobody_dumps_are_named_unless_they_are_there_again() {
        let of = |before: Option<u64>, now: &[ExtensionTable]| {
            let (lost, unknown) = of_extension_tables(Some(&[table(before)]), now);
            assert_eq!(unknown, []);
            lost.into_iter().map(|lost| (lost.rows, lost.line)).collect::<Vec<_>>()
        };
        assert_eq!(of(Some(3), &[table(Some(3))]), []);
        assert_eq!(of(Some(0), &[]), []);
        let gone = "table ext.nodes of the extension ext: 0 rows instead of 3; pg_dump writes none of them";
        let gone = [(3, gone.to_owned())];
        assert_eq!(of(Some(3), &[table(Some(0))]), gone);
        assert_eq!(of(Some(3), &[]), gone);
    }

    #[test]
    fn what_could_not_be_read_is_not_called_different() {
        let remark = |before: Option<&[ExtensionTable]>, now: Option<u64>| {
            let (lost, unknown) = of_extension_tables(before, &[table(now)]);
            assert_eq!(lost, []);
            unknown.iter().map(|(remark, _)| *remark).collect::<Vec<_>>()
        };
        assert_eq!(remark(Some(&[table(None)]), Some(3)), [Remark::NotChecked]);
        assert_eq!(remark(None, Some(0)), [Remark::NotChecked]);
    }

    #[test]
    fn objects_of_an_extension_are_named_where_the_snapshot_names_them() {
        let of = |names: &[(&str, &str)], hash: &str| ExtensionObjects {
            count: names.len() as u64,
            hash: hash.to_owned(),
            objects: names.iter().map(|(name, hash)| ((*name).to_owned(), (*hash).to_owned())).collect(),
        };
        let before = of(&[("table a", "1"), ("function b()", "1"), ("view c", "1")], "x");
        assert_eq!(other_objects("ext", &before, &before), None);
        let now = of(&[("table a", "2"), ("view c", "1"), ("type d", "1")], "y");
        let said = other_objects("ext", &before, &now).expect("it differs");
        let wanted = "the extension ext: function b() is not there, table a is defined otherwise, type d was not there; ";
        assert!(said.starts_with(wanted), "{said}");
        let unnamed = ExtensionObjects { objects: BTreeMap::new(), ..before };
        let said = other_objects("ext", &unnamed, &now).expect("it differs");
        assert!(
            said.starts_with("the extension ext: 3 objects instead of 3, or other definitions; "),
            "{said}"
        );
    }
}
