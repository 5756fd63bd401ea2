//! Reads the catalog. Runs in a session that has joined the exported snapshot, so that what it says is the state that
//! the copy holds.

mod not_kept;
mod sequences;

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Client, Row, sql};
use crate::{
    Error, QualifiedName, Result,
    catalog::{
        BuiltinRights, Catalog, DatabasePrivilege, DatabaseSetting, DatabaseState, Extension, Grant,
        LargeObjectTotals, LocaleProvider, LsnFields, MaterializedView, NamedCollation, ObjectGrant,
        PartitionedTable, PlacedKind, PlacedRelation, Role, RoleAttribute, Table,
    },
    snapshot::manifest::Server,
};

pub use not_kept::certain_differences;
use not_kept::{NotKept, not_kept};
pub use sequences::{sequences, sequences_of};

/// A relation to lock: a table with rows, or the root or branch of a partitioned one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// `pg_class.oid`.
    pub oid: u32,
    /// Its name.
    pub name: QualifiedName,
}

fn failed(what: &str) -> impl FnOnce(tokio_postgres::Error) -> Error {
    let what = format!("could not read {what} from the catalog");
    move |source| Error::postgres(what, source)
}

/// A word that no version of PostgreSQL that this program knows has: of a newer one, most likely.
fn unknown_word(problem: impl std::fmt::Display) -> Error {
    Error::refused(format!("could not read the catalog: {problem}"))
        .with_hint("Use a version of this program that knows the server's version.")
}

/// Reads everything that the tools decide on.
pub async fn catalog(client: &Client) -> Result<Catalog> {
    catalog_around(client, None).await
}

/// Like [`catalog`], where only the tables with the oids `locked` are locked: the sizes of the others are 0.
pub async fn catalog_around(client: &Client, locked: Option<&HashSet<u32>>) -> Result<Catalog> {
    let locked: Option<Vec<u32>> = locked.map(|oids| oids.iter().copied().collect());
    let roots: HashMap<u32, Root> = client
        .query(sql::UNSTABLE_HASH_PARTITIONS, &[])
        .await
        .map_err(failed("partitions"))?
        .iter()
        .map(|row| {
            let name = QualifiedName::new(row.get::<_, String>(1), row.get::<_, String>(2));
            (row.get(0), Root { name, columns: row.get(3) })
        })
        .collect();
    let relations = client.query(sql::TABLES, &[&locked]).await.map_err(failed("tables"))?;
    let partitioned = relations
        .iter()
        .filter(|row| row.get::<_, String>("kind") == "p")
        .map(|row| PartitionedTable {
            oid: row.get("oid"),
            name: QualifiedName::new(row.get::<_, String>("nspname"), row.get::<_, String>("relname")),
        })
        .collect();
    let inherits = client.query(sql::INHERITS, &[]).await.map_err(failed("partitions"))?;
    let mut tables: Vec<Table> = relations
        .iter()
        .filter(|row| row.get::<_, String>("kind") == "r")
        .map(|row| table(row, &roots))
        .collect();
    tables.sort_by(|a, b| b.all_blocks().cmp(&a.all_blocks()).then_with(|| a.name.cmp(&b.name)));
    let (theirs, mut tables): (Vec<Table>, Vec<Table>) =
        tables.into_iter().partition(|table| table.extension_filter.is_some());
    if !theirs.is_empty() {
        tables.extend(after_what_they_reference(client, theirs).await?);
    }
    let extensions = client
        .query(sql::EXTENSIONS, &[])
        .await
        .map_err(failed("extensions"))?
        .iter()
        .map(|row| Extension { name: row.get(0), version: row.get(1) })
        .collect();
    let count: i64 =
        client.query_one(sql::LARGE_OBJECT_COUNT, &[]).await.map_err(failed("large objects"))?.get(0);
    let rows = client.query(&sql::roles(), &[]).await.map_err(failed("roles"))?;
    let roles = roles(&rows)?;
    let size: i64 =
        client.query_one(sql::DATABASE_BYTES, &[]).await.map_err(failed("the database's size"))?.get(0);
    let placed = client
        .query(sql::PLACED, &[])
        .await
        .map_err(failed("tablespaces"))?
        .iter()
        .map(|row| {
            Ok(PlacedRelation {
                kind: PlacedKind::parse(row.get(0)).map_err(unknown_word)?,
                name: QualifiedName::new(row.get::<_, String>(1), row.get::<_, String>(2)),
                tablespace: row.get(3),
            })
        })
        .collect::<Result<_>>()?;
    let rights = object_rights(client).await?;
    let NotKept { lines, differs, .. } = not_kept(client).await?;
    Ok(Catalog {
        database: database_state(client).await?,
        database_bytes: size.unsigned_abs(),
        placed,
        tables,
        partitioned,
        inherits: inherits.iter().map(|row| (row.get(0), row.get(1))).collect(),
        extensions,
        materialized_views: materialized_views(client).await?,
        large_objects: LargeObjectTotals { count: count.unsigned_abs() },
        roles,
        grants: rights.granted,
        revoked: rights.revoked,
        builtin_rights: builtin_rights(client).await?,
        lacks_public: lacks_public(client).await?,
        owners: owners(client).await?,
        collations: collations(client).await?,
        not_kept: lines,
        differs,
    })
}

/// Whether the session's database has no schema public, which every new one has.
///
/// # Errors
/// The connection.
pub async fn lacks_public(client: &Client) -> Result<bool> {
    let row = client.query_one(sql::LACKS_PUBLIC, &[]).await;
    Ok(row.map_err(failed("whether there is a schema public"))?.get(0))
}

/// Configuration tables of extensions in an order in which they can be loaded: their foreign keys are there before the rows.
async fn after_what_they_reference(client: &Client, tables: Vec<Table>) -> Result<Vec<Table>> {
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let rows = client.query(sql::REFERENCES, &[&oids]).await.map_err(failed("foreign keys"))?;
    let mut references: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for row in &rows {
        references.entry(row.get(0)).or_default().push(row.get(1));
    }
    let order = refresh_order(&oids, &references);
    let mut tables: HashMap<u32, Table> = tables.into_iter().map(|table| (table.oid, table)).collect();
    Ok(order.iter().filter_map(|oid| tables.remove(oid)).collect())
}

/// The table that a leaf's rows are loaded through.
struct Root {
    name: QualifiedName,
    columns: Vec<String>,
}

fn table(row: &Row, roots: &HashMap<u32, Root>) -> Table {
    let oid: u32 = row.get("oid");
    let root = roots.get(&oid);
    // A row may come back in another leaf, whose columns may stand in another order: one order for all of them, or the
    // text of the row, which is compared, would depend on where it lies.
    let columns = root.map_or_else(|| row.get("columns"), |root| root.columns.clone());
    Table {
        oid,
        name: QualifiedName::new(row.get::<_, String>("nspname"), row.get::<_, String>("relname")),
        columns: columns.into_iter().map(Into::into).collect(),
        blocks: row.get::<_, i64>("blocks").unsigned_abs(),
        toast_blocks: row.get::<_, Option<i64>>("toast_blocks").unwrap_or(0).unsigned_abs(),
        is_heap: row.get("is_heap"),
        is_unlogged: row.get::<_, String>("persistence") == "u",
        load_into: root.map(|root| root.name.clone()),
        extension_filter: row.get("extension_filter"),
        may_plan: false,
        lsn_fields: LsnFields::default(),
    }
}

fn roles(rows: &[Row]) -> Result<Vec<Role>> {
    let named: HashSet<String> = rows.iter().map(|row| row.get(0)).collect();
    rows.iter()
        .map(|row| {
            let groups: Vec<&[u8]> = row.get("member_of");
            let may_admit: Vec<bool> = row.get("may_admit");
            let settings: Vec<String> = row.get("settings");
            let attributes: Vec<String> = row.get("attributes");
            let attributes = attributes.iter().map(|attribute| RoleAttribute::parse(attribute));
            Ok(Role {
                name: row.get(0),
                attributes: attributes.collect::<Result<_, _>>().map_err(unknown_word)?,
                connection_limit: row.get("rolconnlimit"),
                valid_until: row.get("rolvaliduntil"),
                // A group that the snapshot does not know can't be made by it.
                member_of: groups
                    .into_iter()
                    .map(|group| String::from_utf8_lossy(group).into_owned())
                    .zip(may_admit)
                    .filter(|(group, _)| named.contains(group) || group.starts_with("pg_"))
                    .collect(),
                settings: settings
                    .iter()
                    .filter_map(|setting| setting.split_once('='))
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect(),
                comment: row.get("comment"),
            })
        })
        .collect()
}

/// Every relation that has to be locked before the snapshot is taken, by oid.
pub async fn relations(client: &Client) -> Result<Vec<Relation>> {
    let rows = client.query(sql::RELATIONS, &[]).await.map_err(failed("tables"))?;
    Ok(rows
        .iter()
        .map(|row| Relation {
            oid: row.get("oid"),
            name: QualifiedName::new(row.get::<_, String>("nspname"), row.get::<_, String>("relname")),
        })
        .collect())
}

/// How the privileges on the user's objects differ from what holds when nobody has granted or revoked anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectRights {
    /// Held beyond the default, sorted.
    pub granted: Vec<ObjectGrant>,
    /// Parts of the default that were taken away, sorted.
    pub revoked: Vec<ObjectGrant>,
    /// The extensions of those objects that belong to one.
    pub extensions: HashMap<String, String>,
}

/// Privileges on the user's objects.
pub async fn object_rights(client: &Client) -> Result<ObjectRights> {
    object_rights_of(client, None).await
}

/// Like [`object_rights`], of these objects only: catalog and oid of each.
pub async fn object_rights_of(
    client: &Client,
    objects: Option<&HashSet<(u32, u32)>>,
) -> Result<ObjectRights> {
    rights(client, sql::OBJECT_GRANTS, objects).await
}

async fn rights(
    client: &Client,
    statement: &str,
    objects: Option<&HashSet<(u32, u32)>>,
) -> Result<ObjectRights> {
    let rows = client.query(statement, &[]).await.map_err(failed("privileges"))?;
    let mut rights = ObjectRights::default();
    for row in &rows {
        if objects.is_some_and(|objects| !objects.contains(&(row.get("class"), row.get("oid")))) {
            continue;
        }
        // What somebody dropped since the snapshot has no name any more.
        let Some(object) = row.get("object") else { continue };
        let grant = ObjectGrant {
            object,
            grantee: row.get("grantee"),
            privilege: row.get("privilege_type"),
            grantable: row.get("is_grantable"),
        };
        if let Some(extension) = row.get::<_, Option<String>>("extension") {
            rights.extensions.insert(grant.object.clone(), extension);
        }
        let list = if row.get("is_given") { &mut rights.granted } else { &mut rights.revoked };
        list.push(grant);
    }
    Ok(rights)
}

/// Privileges on what PostgreSQL itself brought.
///
/// # Errors
/// The catalog can't be read.
pub async fn builtin_rights(client: &Client) -> Result<BuiltinRights> {
    let rights = rights(client, sql::BUILTIN_GRANTS, None).await?;
    Ok(BuiltinRights { granted: rights.granted, revoked: rights.revoked })
}

/// Who owns what, by role: objects as PostgreSQL identifies them, such as `table app.orders`. Large objects have their own list.
pub async fn owners(client: &Client) -> Result<BTreeMap<String, Vec<String>>> {
    let mut owners: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for statement in [sql::OWNERS, sql::EXTENSION_OWNERS] {
        for row in &client.query(statement, &[]).await.map_err(failed("owners"))? {
            // What somebody dropped since the snapshot has no name any more.
            let kind: Option<String> = row.get("type");
            let identity: Option<String> = row.get("identity");
            if let (Some(kind), Some(identity)) = (kind, identity)
                && kind != "large object"
            {
                owners.entry(row.get("owner")).or_default().push(format!("{kind} {identity}"));
            }
        }
    }
    Ok(owners)
}

async fn collations(client: &Client) -> Result<Vec<NamedCollation>> {
    let rows = client.query(sql::COLLATIONS, &[]).await.map_err(failed("collations"))?;
    Ok(rows
        .iter()
        .map(|row| {
            let (locale, ctype): (Option<String>, Option<String>) = (row.get("locale"), row.get("ctype"));
            let provider: String = row.get("provider");
            NamedCollation {
                name: QualifiedName::new(row.get::<_, String>(0), row.get::<_, String>(1)),
                ctype: ctype.filter(|ctype| provider == "libc" && Some(ctype) != locale.as_ref()),
                locale,
                provider,
                count: row.get::<_, i64>("count").unsigned_abs(),
                objects: row.get("objects"),
            }
        })
        .collect())
}

/// The identity columns of unlogged tables as statements that servers before 15 understand.
pub async fn unlogged_identities(client: &Client) -> Result<Vec<String>> {
    let rows = client.query(sql::UNLOGGED_IDENTITIES, &[]).await.map_err(failed("identity columns"))?;
    Ok(rows.iter().filter_map(|row| row.get::<_, Option<String>>(0)).collect())
}

/// Database-level state of the database that the session is connected to.
pub async fn database_state(client: &Client) -> Result<DatabaseState> {
    state_of(client, None).await
}

/// The same of any database of the server, which is not connected to.
pub async fn database_state_of(client: &Client, name: &str) -> Result<DatabaseState> {
    state_of(client, Some(name)).await
}

async fn state_of(client: &Client, name: Option<&str>) -> Result<DatabaseState> {
    let row =
        client.query_one(sql::DATABASE_STATE, &[&name]).await.map_err(failed("the database's settings"))?;
    let acl = if row.get("has_acl") {
        let rows =
            client.query(sql::DATABASE_GRANTS, &[&name]).await.map_err(failed("the database's grants"))?;
        Some(
            rows.iter()
                .map(|row| {
                    Ok(Grant {
                        grantor: row.get(0),
                        grantee: row.get(1),
                        privilege: DatabasePrivilege::parse(row.get(2)).map_err(unknown_word)?,
                        grantable: row.get(3),
                    })
                })
                .collect::<Result<_>>()?,
        )
    } else {
        None
    };
    let settings = client
        .query(sql::DATABASE_SETTINGS, &[&name])
        .await
        .map_err(failed("the database's settings"))?
        .iter()
        .map(|row| DatabaseSetting { role: row.get(0), name: row.get(1), value: row.get(2) })
        .collect();
    let security_labels = client
        .query(sql::DATABASE_LABELS, &[&name])
        .await
        .map_err(failed("the database's security labels"))?
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    Ok(DatabaseState {
        name: row.get("datname"),
        encoding: row.get("encoding"),
        collate: row.get("collate"),
        ctype: row.get("ctype"),
        locale_provider: LocaleProvider::parse(row.get("provider")).map_err(unknown_word)?,
        locale: row.get("locale"),
        icu_rules: row.get("icu_rules"),
        collation_version: row.get("collation_version"),
        owner: row.get("owner"),
        tablespace: row.get("tablespace"),
        connection_limit: row.get("datconnlimit"),
        comment: row.get("comment"),
        acl,
        settings,
        security_labels,
        is_template: row.get("datistemplate"),
    })
}

/// The server that the session is connected to.
pub async fn server(client: &Client) -> Result<Server> {
    let row = client.query_one(sql::SERVER, &[]).await.map_err(failed("the server's version"))?;
    Ok(Server { version_num: row.get(0), version: row.get(1), in_recovery: row.get(2), wal_lsn: row.get(3) })
}

/// The name of the session's database, and its encoding.
///
/// # Errors
/// When the server can't be asked.
pub async fn name_and_encoding(client: &Client) -> Result<(String, String)> {
    let row = client
        .query_one("SELECT pg_catalog.current_database()::text, pg_catalog.getdatabaseencoding()::text", &[])
        .await;
    let row = row.map_err(failed("the database's encoding"))?;
    Ok((row.get(0), row.get(1)))
}

async fn materialized_views(client: &Client) -> Result<Vec<MaterializedView>> {
    let rows = client.query(sql::MATERIALIZED_VIEWS, &[]).await.map_err(failed("materialized views"))?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let edges = client.query(sql::VIEW_DEPENDENCIES, &[]).await.map_err(failed("views"))?;
    let mut reads: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for edge in &edges {
        reads.entry(edge.get(0)).or_default().push(edge.get(1));
    }
    let order = refresh_order(&rows.iter().map(|row| row.get(0)).collect::<Vec<u32>>(), &reads);
    let by_oid: HashMap<u32, &Row> = rows.iter().map(|row| (row.get(0), row)).collect();
    Ok(order
        .iter()
        .filter_map(|oid| by_oid.get(oid))
        .map(|row| MaterializedView {
            name: QualifiedName::new(row.get::<_, String>(1), row.get::<_, String>(2)),
            is_populated: row.get(3),
        })
        .collect())
}

/// Orders `views` so that each comes after everything it reads, through plain views too.
///
/// In a circle, which tables can form with their foreign keys, one of them comes first.
fn refresh_order(views: &[u32], reads: &BTreeMap<u32, Vec<u32>>) -> Vec<u32> {
    fn visit(oid: u32, reads: &BTreeMap<u32, Vec<u32>>, seen: &mut HashSet<u32>, order: &mut Vec<u32>) {
        if !seen.insert(oid) {
            return;
        }
        for next in reads.get(&oid).into_iter().flatten() {
            visit(*next, reads, seen, order);
        }
        order.push(oid);
    }
    let mut order = Vec::new();
    let mut seen = HashSet::new();
    for view in views {
        visit(*view, reads, &mut seen, &mut order);
    }
    order.retain(|oid| views.contains(oid));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_refreshed_after_what_they_read_through_plain_views_too() {
        // 1 reads the view 10, which reads 2; 2 reads 3.
        let reads = BTreeMap::from([(1, vec![10]), (10, vec![2]), (2, vec![3])]);
        assert_eq!(refresh_order(&[1, 2, 3], &reads), vec![3, 2, 1]);
    }

    #[test]
    fn a_word_of_the_catalog_that_no_known_version_has_is_refused() {
        let error = LocaleProvider::parse("x").map_err(unknown_word).expect_err("no such provider");
        assert_eq!(error.kind(), crate::ErrorKind::Refused);
        assert_eq!(error.hint(), Some("Use a version of this program that knows the server's version."));
    }

    #[test]
    fn a_cycle_through_functions_does_not_hang() {
        let reads = BTreeMap::from([(1, vec![2]), (2, vec![1])]);
        assert_eq!(refresh_order(&[1, 2], &reads).len(), 2);
    }
}
