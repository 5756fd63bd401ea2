//! A live database as a side: one state of it, read-only, under the rules of docs/trust.md. Rows are read by plain `COPY table TO
//! STDOUT`, which plans and evaluates nothing of a table's owner, whoever that is.

use std::collections::{BTreeMap, HashSet};

use common::{
    Error, Progress, QualifiedName, Result,
    catalog::Catalog,
    fault,
    postgres::{
        ConnectionSettings, Session, connect,
        copy::hash_rows,
        exported_snapshot::{ExportedSnapshot, JOINED_LOCK_WAIT, LockMode, LockWait, join, lock_tables},
        introspect, lend,
        names::Schemas,
        tap::RowSink,
        tools,
        trust::{self, Others},
    },
    snapshot::{
        copy_sql::{BlockRange, copy_out_statement},
        definitions::Definitions,
        pattern::Pattern,
    },
};

use super::{
    rows::{Shape, Taker, TextRows},
    state::{Facts, Objects, State, Stored, values},
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

/// Schemas of the search_path that a session of this role has by itself.
const VISIBLE: &str = "
SELECT n.nspname::pg_catalog.text FROM pg_catalog.pg_namespace n WHERE n.nspname::pg_catalog.text IN (
  SELECT CASE WHEN part = '\"$user\"' THEN current_user::pg_catalog.text ELSE pg_catalog.btrim(part, '\"') END
  FROM (SELECT pg_catalog.btrim(p) AS part FROM pg_catalog.pg_settings s,
          pg_catalog.regexp_split_to_table(s.reset_val, ',') p WHERE s.name = 'search_path') parts)";

impl Live {
    /// Locks the tables and fixes the state; only those that the patterns mean, where there are any.
    ///
    /// # Errors
    /// Busy when the locks can't be had; refused for an old server, a pooler, missing rights.
    pub async fn open(
        settings: &ConnectionSettings,
        patterns: &[Pattern],
        wait: LockWait,
        progress: &Progress,
    ) -> Result<Self> {
        let holder = settings.connect().await?;
        let settings = holder.settings().clone();
        let observer = settings.connect().await?;
        crate::check_server(&observer).await?;
        connect::refuse_pooler(&observer).await?;
        progress.phase("locking tables", None);
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        let list = async |session: &Session| chosen(session, patterns).await;
        let locked =
            lock_tables(&holder, &observer, begin, LockMode::AccessShare, wait, list, progress).await?;
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
        fault::wait("diff.opened");
        progress.phase("reading the schema", None);
        let of: Vec<&QualifiedName> = match patterns.is_empty() {
            true => Vec::new(),
            false => catalog.tables.iter().map(|table| &table.name).chain(roots(&catalog)).collect(),
        };
        let is_nothing = of.is_empty() && !patterns.is_empty();
        let (schema, pg_dump_major) = match is_nothing {
            true => (String::new(), 0),
            false => schema_text(&settings, &exported, &catalog.database.encoding, &of).await?,
        };
        progress.done();
        let visible = reader
            .query(VISIBLE, &[])
            .await
            .map_err(|source| Error::postgres("could not read the search_path", source))?;
        let visible = visible.iter().map(|row| row.get(0)).collect();
        // Of a part only the tables are compared.
        let (objects, sequences) = match patterns.is_empty() {
            true => (
                large_objects(reader, catalog.large_objects.count, progress).await?,
                introspect::sequences_of(reader, None).await?,
            ),
            false => (None, Vec::new()),
        };
        let values = values(&Facts {
            database: &catalog.database,
            server: &server.version,
            sequences: &sequences,
            extensions: &catalog.extensions,
            materialized_views: &catalog.materialized_views,
            large_objects: objects,
        });
        let stored = |table| Stored { table, known: None };
        let mut state = State {
            label: settings.without_application_name().redacted_url(),
            is_live: true,
            partial: None,
            encoding: catalog.database.encoding,
            pg_dump_major,
            tables: catalog.tables.into_iter().map(stored).collect(),
            partitioned: catalog.partitioned,
            inherits: catalog.inherits,
            definitions: Definitions::read(&schema),
            schema,
            values,
        };
        if !patterns.is_empty() {
            add_types(reader, &mut state.definitions).await?;
        }
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

    /// Makes sure that everything that was read was one state under the names that it is told under, and ends the sessions.
    ///
    /// # Errors
    /// Busy: a schema was renamed meanwhile; the session that held the locks was ended.
    pub async fn close(self) -> Result<()> {
        self.holder.simple_query("SELECT 1").await.map(drop).map_err(|source| {
            Error::postgres("the session that held the tables' locks was ended", source)
                .with_hint("Look into the server's log for who ended it, then run the command again.")
        })?;
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

fn roots(catalog: &Catalog) -> impl Iterator<Item = &QualifiedName> {
    catalog.partitioned.iter().map(|table| &table.name)
}

/// What pg_dump does not write where only some tables are asked for.
async fn add_types(reader: &Session, definitions: &mut Definitions) -> Result<()> {
    let failed = |source| Error::postgres("could not read the types from the catalog", source);
    let enums = "SELECT pg_catalog.format_type(t.oid, NULL),
        ARRAY(SELECT e.enumlabel::pg_catalog.text FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder)
        FROM pg_catalog.pg_type t WHERE t.typtype = 'e'";
    for row in reader.query(enums, &[]).await.map_err(failed)? {
        definitions.add_enum(row.get(0), row.get(1));
    }
    let domains =
        "SELECT pg_catalog.format_type(oid, NULL), pg_catalog.format_type(typbasetype, typtypmod), typnotnull
        FROM pg_catalog.pg_type WHERE typtype = 'd'";
    for row in reader.query(domains, &[]).await.map_err(failed)? {
        definitions.add_domain(row.get(0), row.get(1), row.get(2));
    }
    Ok(())
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
    let parents: BTreeMap<u32, u32> = parents.iter().map(|row| (row.get(0), row.get(1))).collect();
    let meant = |name: &QualifiedName| patterns.iter().any(|pattern| pattern.matches_table(name));
    let by_name: HashSet<u32> =
        all.iter().filter(|relation| meant(&relation.name)).map(|relation| relation.oid).collect();
    let is_meant = |relation: &introspect::Relation| {
        let mut oid = Some(relation.oid);
        while let Some(at) = oid {
            if by_name.contains(&at) {
                return true;
            }
            oid = parents.get(&at).copied();
        }
        false
    };
    Ok(all.into_iter().filter(is_meant).collect())
}

/// The schema as pg_dump prints it, in the same state as the rows.
async fn schema_text(
    settings: &ConnectionSettings,
    exported: &ExportedSnapshot<'_>,
    encoding: &str,
    only: &[&QualifiedName],
) -> Result<(String, u32)> {
    let folder = tempfile::tempdir()
        .map_err(|source| Error::failed(format!("could not make a temporary folder: {source}")))?;
    let path = folder.path().join("schema.sql");
    let holder_version = match exported.only_session() {
        Some(session) => session.server_version_num(),
        None => {
            let session = settings.connect().await?;
            let version = session.server_version_num();
            session.close().await?;
            version
        }
    };
    let pg_dump = tools::choose_pg_dump(&tools::installed("pg_dump").await, holder_version)?;
    let describe = |command: &mut tokio::process::Command| {
        command
            .args(["--schema-only", "--format=plain", "--no-password", "--no-sync"])
            .arg(format!("--encoding={encoding}"))
            .arg(format!("--lock-wait-timeout={}", JOINED_LOCK_WAIT.as_millis()))
            .args(only.iter().map(|name| format!("--table={name}")))
            .arg("--file")
            .arg(&path);
    };
    let finished = match exported.only_session() {
        None => {
            let mut command = tools::command(&pg_dump.path, settings);
            command.arg(format!("--snapshot={}", exported.id()));
            describe(&mut command);
            tools::run(command, "pg_dump").await?
        }
        Some(session) => lend::run_in_session(session, &pg_dump.path, "pg_dump", describe).await?,
    };
    crate::schema::judge(&finished, settings, exported).await?;
    let text = std::fs::read(&path).map_err(|source| Error::io("read", &path, source))?;
    Ok((String::from_utf8_lossy(&text).into_owned(), pg_dump.major))
}

/// What a snapshot would store of the large objects.
async fn large_objects(reader: &Session, count: u64, progress: &Progress) -> Result<Option<Objects>> {
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
