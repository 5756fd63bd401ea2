//! EXCLUDE constraints and keys WITHOUT OVERLAPS of tables that are too large for a join of all rows: PostgreSQL builds the index
//! again, over a temporary copy of its keys, as a restore would. It costs what that index costs, and nothing of it stays. Where the
//! disk has no room for that, it is not begun.

use std::collections::BTreeSet;

use common::{
    error::{Error, Result},
    ident::{QualifiedName, printable},
    interrupt,
    postgres::{
        ConnectionSettings, Row, Session,
        as_owner::{self, OWN_PATH},
        who_asks::{self, Rights, Standings},
    },
    progress::Progress,
    server_space,
};

use crate::{
    exclude::SELF_JOIN_BYTES,
    question::{HEAP_ONLY, OF_RULES},
};

/// Table (oid, schema, name), constraint, the statements that copy the keys and build the index, and the bytes of both: for tables of
/// more than `$1` bytes. A key takes no more room in a table's row than twice what it takes in the index, or than the row itself.
const BUILDS: &str = r"
SELECT co.conrelid, n.nspname::text, c.relname::text, co.conname::text,
  format('CREATE TEMPORARY TABLE safe_run_keys ON COMMIT DROP AS SELECT %s FROM ONLY %I.%I%s; '
         'ALTER TABLE pg_temp.safe_run_keys ADD CONSTRAINT %I EXCLUDE USING %I (%s)',
    k.list, n.nspname, c.relname, COALESCE(' WHERE ' || pg_get_expr(i.indpred, i.indrelid), ''), co.conname, am.amname, k.elements),
  pg_relation_size(x.oid) + least(2 * pg_relation_size(x.oid), pg_table_size(c.oid))
FROM pg_constraint co JOIN pg_index i ON i.indexrelid = co.conindid JOIN pg_class x ON x.oid = i.indexrelid
JOIN pg_am am ON am.oid = x.relam JOIN pg_class c ON c.oid = co.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (
 SELECT string_agg(format('%s AS k%s', e.key, e.k), ', ' ORDER BY e.k) AS list,
  string_agg(format('k%s %I.%I WITH OPERATOR(%I.%s)', e.k, e.class_schema, e.class, e.operator_schema, e.operator), ', ' ORDER BY e.k)
    AS elements
 FROM (SELECT s.k, o.oprname AS operator, opn.nspname AS operator_schema, oc.opcname AS class, ocn.nspname AS class_schema,
         pg_get_indexdef(i.indexrelid, s.k::int, true) || COALESCE((
         SELECT format(' COLLATE %I.%I', cn.nspname, cl.collname)
         FROM pg_collation cl JOIN pg_namespace cn ON cn.oid = cl.collnamespace
         WHERE cl.oid = i.indcollation[s.k - 1]), '') AS key
       FROM unnest(co.conexclop) WITH ORDINALITY AS s(op, k)
       JOIN pg_operator o ON o.oid = s.op JOIN pg_namespace opn ON opn.oid = o.oprnamespace
       JOIN pg_opclass oc ON oc.oid = i.indclass[s.k - 1] JOIN pg_namespace ocn ON ocn.oid = oc.opcnamespace) e) k
WHERE co.conexclop IS NOT NULL AND c.relkind = 'r' AND c.relpersistence <> 't' AND pg_relation_size(c.oid) > $1
ORDER BY 2, 3, 4";

/// Where temporary tables may come to lie: each of the tablespaces that are named, exist, and let this role in, of which the server takes
/// one by chance; otherwise, and for an empty name, the database's own.
const TABLESPACES: &str = r#"
WITH own AS (SELECT t.spcname::text AS name FROM pg_catalog.pg_database d JOIN pg_catalog.pg_tablespace t ON t.oid = d.dattablespace
             WHERE d.datname = pg_catalog.current_database()),
 listed AS (SELECT CASE WHEN m[1] LIKE '"%' THEN pg_catalog.replace(pg_catalog.substr(m[1], 2, pg_catalog.length(m[1]) - 2), '""', '"')
                        ELSE pg_catalog.lower(m[1]) END AS name
            FROM pg_catalog.regexp_matches(pg_catalog.current_setting('temp_tablespaces'), '("(?:[^"]|"")*"|[^,[:space:]"]+)', 'g') m),
 used AS (SELECT l.name FROM listed l JOIN pg_catalog.pg_tablespace t ON t.spcname::text = l.name
          WHERE pg_catalog.has_tablespace_privilege(t.oid, 'CREATE')
          UNION SELECT own.name FROM own, listed WHERE listed.name = '')
SELECT name FROM used UNION ALL SELECT name FROM own WHERE NOT EXISTS (SELECT FROM used) ORDER BY 1"#;

/// The first constraint under which rows are in conflict, or of which that could not be seen, as a sentence.
///
/// # Errors
/// The connection is gone, or a signal came in.
///
/// `looks_at_space`: not where the disk has no room for what is built.
pub async fn conflict(
    settings: &ConnectionSettings,
    looks_at_space: bool,
    progress: &Progress,
) -> Result<Option<String>> {
    let session = settings.connect().await?;
    let failed = |source| Error::postgres("could not look at EXCLUDE constraints", source);
    session
        .batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL search_path = ''")
        .await
        .map_err(failed)?;
    let builds = session.query(BUILDS, &[&SELF_JOIN_BYTES]).await.map_err(failed)?;
    let found = if builds.is_empty() {
        None
    } else if let Some(why) = too_little_room(&session, &builds, looks_at_space).await? {
        Some(why)
    } else {
        progress
            .phase("building the indexes of EXCLUDE constraints again, to see whether a restore could", None);
        let found = first_of(&session, &builds, progress).await;
        progress.done();
        found?
    };
    session.batch_execute("ROLLBACK").await.map_err(failed)?;
    session.close().await?;
    Ok(found)
}

fn unseen(build: &Row, why: &str) -> String {
    let (table, rule) = names(build);
    format!("whether rows are in conflict in {table} under {rule} could not be seen: {why}")
}

/// The table and the constraint.
fn names(build: &Row) -> (String, String) {
    let table = QualifiedName::new(build.get::<_, String>(1), build.get::<_, String>(2)).short();
    (table, printable(build.get(3)))
}

/// The largest of what is to be built, one after the other, if the disk has no room for it.
async fn too_little_room(session: &Session, builds: &[Row], looks: bool) -> Result<Option<String>> {
    let Some(largest) = builds.iter().max_by_key(|build| build.get::<_, i64>(5)).filter(|_| looks) else {
        return Ok(None);
    };
    let rows = session
        .query(TABLESPACES, &[])
        .await
        .map_err(|source| Error::postgres("could not look at the tablespaces of temporary tables", source))?;
    for row in &rows {
        let room = server_space::look(session, row.get(0)).await;
        let (text, is_too_little) = server_space::compare(largest.get::<_, i64>(5).unsigned_abs(), &room);
        if is_too_little {
            return Ok(Some(unseen(largest, &format!("building its index again {text}"))));
        }
    }
    Ok(None)
}

async fn first_of(session: &Session, builds: &[Row], progress: &Progress) -> Result<Option<String>> {
    let failed = |source| Error::postgres("could not look at EXCLUDE constraints", source);
    // Our temporary tables are no news for anybody's event trigger. Who may not set it is no superuser, and has no snapshot as the
    // undo of a database with event triggers.
    let silent = match session.server_major() {
        17.. => "SAVEPOINT silent; SET LOCAL event_triggers = off",
        _ => "SAVEPOINT silent; SET LOCAL session_replication_role = replica",
    };
    if let Err(source) = session.batch_execute(silent).await {
        let error = failed(source);
        // insufficient_privilege
        if error.sqlstate() != Some("42501") {
            return Err(error);
        }
        session.batch_execute("ROLLBACK TO SAVEPOINT silent").await.map_err(failed)?;
    }
    // A partial index that is not what the heap is would hide the very rows that are looked for.
    session.batch_execute(&format!("{OF_RULES} {HEAP_ONLY}")).await.map_err(failed)?;
    session.batch_execute("SAVEPOINT owners").await.map_err(failed)?;
    if let Err(source) = session.batch_execute(&as_owner::create_for_all_sql(&who_asks::owners())).await {
        let error = failed(source);
        if !as_owner::can_not_be_made(error.sqlstate()) {
            return Err(error);
        }
        session.batch_execute("ROLLBACK TO SAVEPOINT owners").await.map_err(failed)?;
    }
    let made = session.query(as_owner::MADE, &[]).await.map_err(failed)?;
    let made: BTreeSet<u32> = made.iter().map(|row| row.get(0)).collect();
    let standings = Standings::read(session, made).await?;
    for build in builds {
        let (table, rule) = names(build);
        progress.step(format!("{rule} of {table}"));
        let sql = match standings.of(build.get(0)) {
            Rights::Session => build.get(4),
            // From here on only text statements: nothing may be prepared where code of somebody else has been.
            Rights::Owner(owner, _) => owner.run_sql(build.get(4), OWN_PATH),
            Rights::Nobody(why) => return Ok(Some(unseen(build, &why))),
        };
        session.batch_execute("SAVEPOINT before_build").await.map_err(failed)?;
        if let Err(source) = session.simple_query(&sql).await {
            let error = failed(source);
            return match error.sqlstate() {
                Some("23P01") => Ok(Some(format!("rows are in conflict in {table} under {rule}"))),
                Some(state) => {
                    if state == "57014" {
                        interrupt::check()?;
                    }
                    Ok(Some(unseen(build, &printable(error.message()))))
                }
                None => Err(error),
            };
        }
        session.batch_execute("ROLLBACK TO SAVEPOINT before_build").await.map_err(failed)?;
    }
    Ok(None)
}
