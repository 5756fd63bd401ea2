//! A live database as a side: one state of it, read-only, under the rules of docs/trust.md. Rows are read by plain `COPY table TO
//! STDOUT`, which plans and evaluates nothing of a table's owner, whoever that is.

use std::collections::{BTreeSet, HashSet};

use common::{
    Error, Progress, QualifiedName, Result,
    catalog::Catalog,
    postgres::{
        ConnectionSettings, Row, Session, connect,
        copy::hash_rows,
        exported_snapshot::{
            ExportedSnapshot, JOINED_LOCK_WAIT, LockMode, LockWait, check_held, join, lock_tables,
        },
        introspect, lock_room,
        names::Schemas,
        session_room::{self, Need},
        tap::RowSink,
        tools,
        trust::{self, Others},
    },
    snapshot::{
        copy_sql::{BlockRange, copy_out_statement},
        definitions::{Column, Definitions},
        pattern::Pattern,
    },
};

use super::{
    rows::{Shape, Taker, TextRows},
    state::{Facts, Objects, State, Stored, values, with_heirs},
};

/// A database that is being read.
pub struct Live {
    /// Holds the locks and the state.
    holder: Session,
    /// Joined it; where none may join, the holder reads.
    reader: Option<Session>,
    settings: ConnectionSettings,
    schemas: Schemas,
    /// What is there.
    pub state: State,
    /// Tables that a plain name can mean: their schema is on the role's search_path.
    pub visible: HashSet<String>,
}

/// What is wanted of a live database.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Only these tables; without patterns all.
    pub patterns: &'a [Pattern],
    /// How long locks are waited for.
    pub wait: LockWait,
    /// The schema as text, sequences, large objects: what only another side of PostgreSQL is compared with.
    pub wants_schema: bool,
}

/// Schemas of the search_path that a session of this role has by itself.
const VISIBLE: &str = "
SELECT n.nspname::pg_catalog.text FROM pg_catalog.pg_namespace n WHERE n.nspname::pg_catalog.text IN (
  SELECT CASE WHEN part = '\"$user\"' THEN current_user::pg_catalog.text ELSE pg_catalog.btrim(part, '\"') END
  FROM (SELECT pg_catalog.btrim(p) AS part FROM pg_catalog.pg_settings s,
          pg_catalog.regexp_split_to_table(s.reset_val, ',') p WHERE s.name = 'search_path') parts)";

impl Live {
    /// Locks the tables and fixes the state.
    ///
    /// # Errors
    /// Busy when the locks can't be had; refused for an old server, a pooler, missing rights.
    pub async fn open(
        settings: &ConnectionSettings,
        wanted: Wanted<'_>,
        progress: &Progress,
    ) -> Result<Self> {
        let holder = settings.connect().await?;
        let settings = holder.settings().clone();
        let observer = settings.connect().await?;
        crate::check_server(&observer).await?;
        connect::refuse_pooler(&observer).await?;
        // Who reads or pg_dump, when the observer has gone.
        session_room::find(&observer, Need { fixed: 1, per_job: 0, jobs: 1, same_database: true }).await?;
        if wanted.patterns.is_empty() {
            lock_room::find(&observer).await?.require()?;
        }
        progress.phase("locking tables", None);
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        let list = async |session: &Session| chosen(session, wanted.patterns).await;
        let locked =
            lock_tables(&holder, &observer, begin, LockMode::AccessShare, wanted.wait, list, progress)
                .await?;
        progress.done();
        observer.close().await?;
        let exported = ExportedSnapshot::export(&holder).await?;
        let joined = match exported.only_session() {
            None => Some(join(&settings, &exported).await?),
            Some(_) => None,
        };
        let reader = joined.as_ref().unwrap_or(&holder);
        let schemas = Schemas::seen_by(reader).await?;
        reader
            .batch_execute(trust::ONLY_TABLES)
            .await
            .map_err(|source| Error::postgres("could not prepare a reading session", source))?;
        let locked: HashSet<u32> = locked.iter().map(|relation| relation.oid).collect();
        let mut catalog = introspect::catalog_around(reader, Some(&locked)).await?;
        let server = introspect::server(reader).await?;
        catalog.tables.retain(|table| locked.contains(&table.oid));
        catalog.partitioned.retain(|table| locked.contains(&table.oid));
        if server.in_recovery {
            catalog.tables.retain(|table| !table.is_unlogged);
        }
        let named = catalog.tables.iter().map(|table| (table.oid, &table.name));
        let named = named.chain(catalog.partitioned.iter().map(|table| (table.oid, &table.name)));
        exported.check_locked(reader, named).await?;
        // Only the extensions' own condition has to be asked by a query; everything else is read whole.
        trust::admit_by_oid(reader, &mut catalog.tables, Others::MayInterfere).await?;
        catalog.tables.iter_mut().for_each(|table| table.may_plan &= table.is_filtered());
        let visible = reader
            .query(VISIBLE, &[])
            .await
            .map_err(|source| Error::postgres("could not read the search_path", source))?;
        let visible = visible.iter().map(|row| row.get(0)).collect();
        let state =
            describe(&settings, &exported, reader, catalog, (&server.version, wanted), progress).await?;
        Ok(Self { reader: joined, holder, settings, schemas, state, visible })
    }

    fn session(&self) -> &Session {
        self.reader.as_ref().unwrap_or(&self.holder)
    }

    /// Hands the rows of some tables to `taker`, each read in its shape.
    ///
    /// # Errors
    /// The server's, the taker's.
    pub async fn scan<T: Taker>(
        &self,
        tables: &[(usize, Shape)],
        encoding: &str,
        taker: T,
        progress: &Progress,
    ) -> Result<T> {
        let mut taker = taker;
        for (number, shape) in tables {
            let Some(stored) = self.state.tables.get(*number) else { continue };
            let name = stored.table.name.short();
            let statement = copy_out_statement(&stored.table, BlockRange::ALL, encoding)?;
            let sink = Sink {
                buffer: Vec::new(),
                rows: TextRows::new(shape.clone()),
                taker,
                told: 0,
                progress: progress.clone(),
            };
            let (sink, sent) =
                self.session().copy_out(&statement, sink, &format!("could not read {name}")).await?;
            sink.rows.end()?;
            if sent != [sink.rows.rows] {
                return Err(Error::failed(format!(
                    "{} rows of {name} were read, and the server sent {sent:?}",
                    sink.rows.rows
                )));
            }
            taker = sink.taker;
        }
        Ok(taker)
    }

    /// Why reading failed: because a name means another table by now, or a right is missing.
    pub async fn explain(&self, error: Error) -> Error {
        // A missing table or column, a view, another owner's table.
        let may_be_renamed =
            error.sqlstate().is_some_and(|code| code.starts_with("42") || code.starts_with("3F"));
        if may_be_renamed
            && let Ok(now) = Schemas::now(&self.settings).await
            && let Err(renamed) = self.schemas.check_same(&now, &self.schemas.names())
        {
            return renamed.with_source(error);
        }
        match error.sqlstate() {
            // The connection broke, or the server is going down or coming up.
            Some(code) if code.starts_with("08") || ["57P01", "57P02", "57P03"].contains(&code) => {
                error.with_kind(common::ErrorKind::Busy)
            }
            _ => crate::create::explain(error),
        }
    }

    /// Makes sure that everything that was read was one state under the names that it is told under, and ends the sessions.
    ///
    /// # Errors
    /// Busy: a schema was renamed meanwhile; the session that held the locks was ended.
    pub async fn close(self) -> Result<()> {
        check_held(&self.holder).await?;
        let used = self.state.tables.iter().map(|stored| stored.table.name.schema.as_str());
        let used: HashSet<&str> =
            used.chain(self.state.partitioned.iter().map(|table| table.name.schema.as_str())).collect();
        self.schemas.check_same(&Schemas::now(&self.settings).await?, &used)?;
        // Everything was read: how the sessions end changes nothing any more.
        if let Some(reader) = self.reader {
            let _ = reader.close().await;
        }
        let _ = self.holder.close().await;
        Ok(())
    }
}

/// What there is, in the words of a [`State`].
async fn describe(
    settings: &ConnectionSettings,
    exported: &ExportedSnapshot<'_>,
    reader: &Session,
    catalog: Catalog,
    (server, wanted): (&str, Wanted<'_>),
    progress: &Progress,
) -> Result<State> {
    let is_part = !wanted.patterns.is_empty();
    let of: Vec<&QualifiedName> = match is_part {
        true => catalog.tables.iter().map(|table| &table.name).chain(roots(&catalog)).collect(),
        false => Vec::new(),
    };
    let (mut schema, mut pg_dump_major) = (String::new(), 0);
    if wanted.wants_schema && !(is_part && of.is_empty()) {
        progress.phase("reading the schema", None);
        let encoding = &catalog.database.encoding;
        (schema, pg_dump_major) =
            schema_text(settings, exported, reader.server_version_num(), encoding, &of).await?;
        progress.done();
    }
    let (mut large_objects, mut sequences) = (None, Vec::new());
    if wanted.wants_schema && !is_part {
        large_objects = objects(reader, catalog.large_objects.count, progress).await?;
        sequences = introspect::sequences_of(reader, None).await?;
    }
    let values = values(&Facts {
        database: &catalog.database,
        server,
        sequences: &sequences,
        extensions: &catalog.extensions,
        materialized_views: &catalog.materialized_views,
        large_objects,
    });
    let definitions = definitions(reader, &catalog).await?;
    Ok(State {
        label: settings.without_application_name().redacted_url(),
        is_live: true,
        partial: None,
        encoding: catalog.database.encoding,
        pg_dump_major,
        tables: catalog.tables.into_iter().map(|table| Stored { table, known: None }).collect(),
        partitioned: catalog.partitioned,
        inherits: catalog.inherits,
        definitions,
        schema,
        values,
    })
}

fn roots(catalog: &Catalog) -> impl Iterator<Item = &QualifiedName> {
    catalog.partitioned.iter().map(|table| &table.name)
}

const COLUMNS: &str = "
SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text, a.attname::pg_catalog.text,
       pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attgenerated <> ''
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY c.oid, a.attnum";

const KEYS: &str = "
SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text,
       ARRAY(SELECT a.attname::pg_catalog.text FROM pg_catalog.unnest(k.conkey) WITH ORDINALITY p (number, place)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = p.number ORDER BY p.place)
FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE k.contype = 'p' AND c.oid = ANY ($1)";

const ENUMS: &str = "
SELECT pg_catalog.format_type(t.oid, NULL),
       ARRAY(SELECT e.enumlabel::pg_catalog.text FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder)
FROM pg_catalog.pg_type t WHERE t.typtype = 'e'";

const DOMAINS: &str = "
SELECT pg_catalog.format_type(oid, NULL), pg_catalog.format_type(typbasetype, typtypmod), typnotnull
FROM pg_catalog.pg_type WHERE typtype = 'd'";

/// What the catalog says of the tables' columns, keys and types.
async fn definitions(reader: &Session, catalog: &Catalog) -> Result<Definitions> {
    let failed = |source| Error::postgres("could not read the columns from the catalog", source);
    let partitioned = catalog.partitioned.iter().map(|table| table.oid);
    let oids: Vec<u32> = catalog.tables.iter().map(|table| table.oid).chain(partitioned).collect();
    let mut found = Definitions::default();
    let name = |row: &Row| QualifiedName::new(row.get::<_, String>(0), row.get::<_, String>(1));
    for row in reader.query(COLUMNS, &[&oids]).await.map_err(failed)? {
        let column =
            Column { name: row.get(2), type_name: row.get(3), not_null: row.get(4), generated: row.get(5) };
        found.tables.entry(name(&row)).or_default().columns.push(column);
    }
    for row in reader.query(KEYS, &[&oids]).await.map_err(failed)? {
        found.tables.entry(name(&row)).or_default().key = row.get(2);
    }
    for row in reader.query(ENUMS, &[]).await.map_err(failed)? {
        found.add_enum(row.get(0), row.get(1));
    }
    for row in reader.query(DOMAINS, &[]).await.map_err(failed)? {
        found.add_domain(row.get(0), row.get(1), row.get(2));
    }
    Ok(found)
}

/// The relations that are locked: all, or those that are meant, with every partition of a table that is.
async fn chosen(session: &Session, patterns: &[Pattern]) -> Result<Vec<introspect::Relation>> {
    let all = introspect::relations(session).await?;
    if patterns.is_empty() {
        return Ok(all);
    }
    let parents = session
        .query("SELECT inhrelid, inhparent FROM pg_catalog.pg_inherits", &[])
        .await
        .map_err(|source| Error::postgres("could not read the partitions from the catalog", source))?;
    let parents: Vec<(u32, u32)> = parents.iter().map(|row| (row.get(0), row.get(1))).collect();
    let meant = |name: &QualifiedName| patterns.iter().any(|pattern| pattern.matches_table(name));
    let by_name: BTreeSet<u32> =
        all.iter().filter(|relation| meant(&relation.name)).map(|relation| relation.oid).collect();
    let meant = with_heirs(by_name, &parents);
    let is_meant = |relation: &introspect::Relation| meant.contains(&relation.oid);
    Ok(all.into_iter().filter(is_meant).collect())
}

/// The schema as pg_dump prints it, in the same state as the rows.
async fn schema_text(
    settings: &ConnectionSettings,
    exported: &ExportedSnapshot<'_>,
    server_version_num: i32,
    encoding: &str,
    only: &[&QualifiedName],
) -> Result<(String, u32)> {
    let folder = tempfile::tempdir()
        .map_err(|source| Error::failed(format!("could not make a temporary folder: {source}")))?;
    let path = folder.path().join("schema.sql");
    let pg_dump = tools::choose_pg_dump(&tools::installed("pg_dump").await, server_version_num)?;
    let describe = |command: &mut tokio::process::Command| {
        command
            .args(["--schema-only", "--format=plain", "--no-password", "--no-sync"])
            .arg(format!("--encoding={encoding}"))
            .arg(format!("--lock-wait-timeout={}", JOINED_LOCK_WAIT.as_millis()))
            .args(only.iter().map(|name| format!("--table={name}")))
            .arg("--file")
            .arg(&path);
    };
    crate::schema::run_pg_dump(settings, &pg_dump, exported, describe).await?;
    let text = std::fs::read(&path).map_err(|source| Error::io("read", &path, source))?;
    Ok((String::from_utf8_lossy(&text).into_owned(), pg_dump.major))
}

/// What a snapshot would store of the large objects.
async fn objects(reader: &Session, count: u64, progress: &Progress) -> Result<Option<Objects>> {
    if count == 0 {
        return Ok(None);
    }
    crate::copy_out::may_read_large_objects(reader, count).await?;
    let (_, mut hash) = hash_rows(reader, crate::copy_out::LARGE_OBJECTS, progress).await?;
    let pages = "COPY (SELECT loid, pageno, data FROM pg_catalog.pg_largeobject) TO STDOUT";
    hash.merge(hash_rows(reader, pages, progress).await?.1);
    Ok(Some((count, hash)))
}

/// Bytes between two progress events.
const REPORT_BYTES: usize = 1024 * 1024;

struct Sink<T> {
    buffer: Vec<u8>,
    rows: TextRows,
    taker: T,
    told: usize,
    progress: Progress,
}

impl<T: Taker> RowSink for Sink<T> {
    fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    fn added(&mut self) -> Result<()> {
        self.told += self.buffer.len();
        if self.told >= REPORT_BYTES {
            self.progress.advance(std::mem::take(&mut self.told) as u64, 0);
        }
        self.rows.feed(&self.buffer, &mut self.taker)?;
        self.buffer.clear();
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        Ok(())
    }
}
