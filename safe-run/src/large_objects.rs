//! Large objects behind the read-only fence. Before PostgreSQL 16 the server lets a read-only transaction make, write and
//! delete them, so the fence does not keep others from it. After an undo the restored database and the failed one are
//! compared: what differs is in the failed one, which is kept, and is named.

use std::collections::BTreeMap;

use common::{
    Error, Result,
    format::plural,
    ident::printable,
    postgres::{ConnectionSettings, Session},
};

/// First major version that refuses to write large objects in a read-only transaction.
const FENCED_FROM: u32 = 16;

/// Most that are named.
const NAMED: usize = 10;

/// Every large object: its content as a hash. Whoever may not read the contents gets their numbers.
const CONTENTS: &str = "
SELECT m.oid, COALESCE((SELECT pg_catalog.md5(pg_catalog.string_agg(pg_catalog.md5(l.data) || l.pageno, ' ' ORDER BY l.pageno))
                        FROM pg_catalog.pg_largeobject l WHERE l.loid = m.oid), '')
FROM pg_catalog.pg_largeobject_metadata m";
const NUMBERS: &str = "SELECT oid, '' FROM pg_catalog.pg_largeobject_metadata";

/// Says which large objects the failed database has that the restored one has not as they are there, or lacks.
pub async fn after_undo(live: &ConnectionSettings, failed: &ConnectionSettings) -> Result<Option<String>> {
    let restored = live.connect().await?;
    if restored.server_major() >= FENCED_FROM {
        restored.close().await?;
        return Ok(None);
    }
    let kept = failed.connect().await?;
    let row = kept
        .query_one(
            "SELECT pg_catalog.has_table_privilege('pg_catalog.pg_largeobject', 'SELECT'),
                    EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata)",
            &[],
        )
        .await
        .map_err(|source| Error::postgres("could not look for large objects", source))?;
    let (may_read, query): (bool, _) = (row.get(0), if row.get(0) { CONTENTS } else { NUMBERS });
    let (before, after) = (read(&restored, query).await?, read(&kept, query).await?);
    restored.close().await?;
    kept.close().await?;
    Ok(sentence(&before, &after, failed.database(), may_read))
}

async fn read(session: &Session, query: &str) -> Result<BTreeMap<u32, String>> {
    let rows = session
        .query(query, &[])
        .await
        .map_err(|source| Error::postgres("could not compare large objects", source))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

fn sentence(
    before: &BTreeMap<u32, String>,
    after: &BTreeMap<u32, String>,
    kept_as: &str,
    may_read: bool,
) -> Option<String> {
    let gone = before.keys().filter(|oid| !after.contains_key(oid));
    let oids: Vec<u32> = after
        .iter()
        .filter(|(oid, content)| before.get(oid) != Some(content))
        .map(|(oid, _)| oid)
        .chain(gone)
        .copied()
        .collect();
    let unread =
        if may_read { "" } else { "; their contents were not compared, because the role may not read them" };
    if oids.is_empty() {
        return (!may_read && !after.is_empty()).then(|| {
            format!(
                "large objects: this server's read-only fence does not keep others from writing them{unread}; as they were \
                 when it failed they are in \"{}\"",
                printable(kept_as)
            )
        });
    }
    let named: Vec<String> = oids.iter().take(NAMED).map(ToString::to_string).collect();
    let more = oids.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Some(format!(
        "{} written or deleted since the snapshot, by this run or by others, whom this server's read-only fence does not keep \
         from it: {}{more}; as they were then they are in \"{}\" only (psql's \\lo_export reads one){unread}",
        plural(oids.len() as u64, "large object was", "large objects were"),
        named.join(", "),
        printable(kept_as)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_changed_and_deleted_large_objects_are_named() {
        let of =
            |objects: &[(u32, &str)]| objects.iter().map(|(oid, text)| (*oid, (*text).to_owned())).collect();
        let before = of(&[(1, "a"), (2, "b"), (3, "c")]);
        assert_eq!(sentence(&before, &before, "kept", true), None);
        let said = sentence(&before, &of(&[(1, "a"), (2, "x"), (9, "new")]), "kept", true).unwrap();
        assert!(
            said.starts_with("3 large objects were written or deleted") && said.contains(": 2, 9, 3;"),
            "{said}"
        );
        assert!(sentence(&before, &before, "kept", false).unwrap().contains("not compared"));
    }
}
