//! Takes snapshots. The flow on one screen:
//!
//! settings → session → lock every table → exported snapshot, held to the end → { schema by pg_dump ‖ catalog → plan →
//! workers: COPY out → compress → hash → chunk files } → large objects → sequences → manifest → publish.
//!
//! `safe-run` enters in the middle, with the snapshot that its own migration transaction exported.

pub mod admission;
pub mod beside;
pub mod check;
pub mod cli;
pub mod copy_out;
pub mod diff;
pub mod drill;
pub mod half_done;
mod left_fence;
pub mod manage;
pub mod orphans;
pub mod part;
pub mod plan;
pub mod planning_guard;
pub mod prune;
mod restorable;
pub mod reuse;
pub mod schedule;
mod schema;
pub mod space;
mod to_sqlite;
mod too_large;
pub mod transfer;
mod zone;

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use chrono::Utc;
use common::{
    Cause, Error, ErrorKind, Progress, Result,
    catalog::{Catalog, DatabaseState, Table},
    fault,
    ident::printable,
    postgres::{
        ConnectionSettings, Secret, Session, connect,
        exported_snapshot::{ExportedSnapshot, JOINED_LOCK_WAIT, LockMode, LockWait, join, lock_tables},
        introspect, lock_room,
        names::Schemas,
        names_as_bytes, role_passwords, scratch,
        session_room::{self, Need},
        tools, trust,
    },
    random,
    repository::{PartialSnapshot, Repository, StoredSnapshot},
    snapshot::{
        Codec, Manifest, SnapshotId,
        copy_sql::Cut,
        manifest::{
            DATABASE_FILE, FORMAT, FileEntry, Filters, GLOBALS_FILE, Kind, LIST_FILE, LOAD_SCRIPT_FILE,
            PARTIAL_FORMAT, Partial, README_FILE, SCHEMA_FILE, SEQUENCES_FILE, VIEWS_FILE,
        },
        readme,
        toc::{self, Kind as EntryKind},
    },
};
use futures_util::future::maybe_done;

pub use common::cli::config::default_jobs;

pub use admission::Guards;
use admission::admit;
use copy_out::CopyOptions;
use reuse::{ReusePolicy, Settle};
use schema::dump_schema;

/// Oldest major version whose snapshots are exact: page ranges need its TID range scans (docs/exactness.md, E3).
pub const OLDEST_SERVER: u32 = 14;

/// What a snapshot shall be.
#[derive(Debug, Clone)]
pub struct CreateOptions {
    /// Why it is taken.
    pub kind: Kind,
    /// A name given by a person.
    pub name: Option<String>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Connections that copy.
    pub jobs: usize,
    /// Compression.
    pub codec: Codec,
    /// Sizes of chunks and pieces.
    pub cut: Cut,
    /// What may be taken over from an earlier snapshot.
    pub reuse: ReusePolicy,
    /// The part of the database to take; without filters, the whole.
    pub filters: Filters,
    /// The rows of these tables (`pg_class.oid`) alone, and the definitions of all: for a trial of the undo.
    pub rows_of: Option<HashSet<u32>>,
    /// How long to wait for table locks.
    pub lock_wait: LockWait,
    /// Longest time that the exported snapshot may be held: meanwhile the server can't clean up behind it.
    pub max_duration: Option<Duration>,
    /// Database-level state to record instead of what is read: a fence changes the settings of the database, and the
    /// snapshot has to hold them as they were without it.
    pub database_state: Option<DatabaseState>,
    /// Begin although the repository seems to have no room for it.
    pub skip_space_check: bool,
    /// Rows that violate a foreign key are looked for, and said.
    pub check_foreign_keys: bool,
    /// Read the roles' password hashes, and store them.
    pub role_passwords: bool,
    /// What a person should know of this snapshot, whoever restores it.
    pub notes: Vec<String>,
    /// Note where the database looks as if a run that this repository does not know had left its fence.
    pub tell_fence: bool,
}

impl Default for CreateOptions {
    fn default() -> Self {
        Self {
            kind: Kind::Manual,
            name: None,
            tags: BTreeMap::new(),
            jobs: default_jobs(),
            codec: Codec::default(),
            cut: Cut::default(),
            reuse: ReusePolicy::default(),
            filters: Filters::default(),
            rows_of: None,
            lock_wait: LockWait::default(),
            max_duration: None,
            database_state: None,
            skip_space_check: false,
            check_foreign_keys: false,
            role_passwords: false,
            notes: Vec::new(),
            tell_fence: false,
        }
    }
}

/// Takes a snapshot of the database that `settings` name, and publishes it in `repository`.
///
/// # Errors
/// The database is never changed. Busy when the locks can't be had; refused for an old server, an old pg_dump, a pooler
/// or missing rights. On every error the partial snapshot is removed.
pub async fn create(
    settings: &ConnectionSettings,
    repository: &Repository,
    options: &CreateOptions,
    progress: &Progress,
) -> Result<StoredSnapshot> {
    // As long as the locks may be waited for, so long may the whole be tried again.
    let budget = (options.lock_wait.timeout + LONGEST_PAUSE) * options.lock_wait.retries;
    let mut retries = budget.as_millis().div_ceil(JOINED_LOCK_WAIT.as_millis());
    let mut renamed = 0;
    loop {
        match create_locked(settings, repository, options, progress).await.map_err(explain) {
            Err(error) if error.is_caused_by(Cause::GaveWay) && retries > 0 => {
                retries -= 1;
                progress.warn(format!("{error}: gave way, and begins again"));
            }
            Err(error) if error.is_caused_by(Cause::NameChanged) && renamed < RENAMED_AT_MOST => {
                renamed += 1;
                progress.warn(format!("{error}: the backup begins again"));
            }
            result => return result,
        }
        common::interrupt::check()?;
    }
}

/// How often a backup begins again because a name came to mean another table. Each time may have taken as long as a backup
/// does, and who renames all the time will not stop for it.
const RENAMED_AT_MOST: u32 = 5;

/// Between two attempts to get the tables' locks, at most.
const LONGEST_PAUSE: std::time::Duration = std::time::Duration::from_secs(1);

/// A missing right is refused, in our kinds.
pub(crate) fn explain_rights(error: Error) -> Error {
    match error.sqlstate() {
        // Insufficient privilege. Row-level security that would hide rows comes as the same.
        Some("42501") => error.with_kind(ErrorKind::Refused).with_hint(
            "Run `backup check`: it prints every GRANT that is missing, and BYPASSRLS where row-level security hides rows.",
        ),
        _ => error,
    }
}

/// What the server says, in our kinds: a missing right is refused, and a lock that can't be had is busy.
fn explain(error: Error) -> Error {
    let error = explain_rights(error);
    match error.sqlstate() {
        // Lock not available.
        Some("55P03") if error.kind() == ErrorKind::Failed => {
            schema::gave_way(error.with_kind(ErrorKind::Busy))
        }
        _ => error,
    }
}

async fn create_locked(
    settings: &ConnectionSettings,
    repository: &Repository,
    options: &CreateOptions,
    progress: &Progress,
) -> Result<StoredSnapshot> {
    let holder = settings.connect().await?;
    // With several hosts, every further session and pg_dump must reach the server that answered.
    let settings = &holder.settings().clone();
    let observer = settings.connect().await?;
    check_server(&observer).await?;
    connect::refuse_pooler(&observer).await?;
    // Beside these two, of which one goes: the reader, pg_dump, and who copies.
    let need = Need { fixed: 1, per_job: 1, jobs: options.jobs, same_database: true };
    let room = session_room::find(&observer, need).await?;
    if let Some(said) = room.said {
        progress.note(said);
    }
    let options = &CreateOptions { jobs: room.jobs, ..options.clone() };
    // Of a part, whether there is room shows when its tables are locked.
    if options.filters.is_empty() {
        lock_room::find(&observer).await?.require()?;
    }
    repository.sweep()?;
    let mut points = reuse::points(&observer).await?;
    progress.phase("locking tables", None);
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    let list = async |session: &Session| {
        let all = introspect::relations(session).await?;
        if options.filters.is_empty() {
            return Ok(all);
        }
        Ok(part::find(session, &options.filters).await?.relations(all))
    };
    lock_tables(&holder, &observer, begin, LockMode::AccessShare, options.lock_wait, list, progress).await?;
    progress.done();
    reuse::later_point(&observer, &mut points).await?;
    observer.close().await?;
    let exported = ExportedSnapshot::export(&holder).await?.with_points(points);
    let more = More { settle: Settle::Always, looks: true };
    let created = copy_state(settings, &exported, repository, options, more, progress);
    let created = within(options.max_duration, Box::pin(created), progress).await;
    match created {
        Ok(snapshot) => {
            // Complete and published, with the holder alive until then: how it ends changes nothing any more.
            let _ = holder.close().await;
            Ok(snapshot)
        }
        Err(error) => Err(explain_conflict(error, holder).await),
    }
}

/// Bounds the time that a snapshot is held, and says from time to time how long it has been.
///
/// # Errors
/// When the time is over: what was under way is dropped, with its sessions, programs and files.
async fn within<T>(
    limit: Option<Duration>,
    work: impl Future<Output = Result<T>>,
    progress: &Progress,
) -> Result<T> {
    /// An hour of dead rows that VACUUM may not remove begins to be worth a word on a busy server.
    const SAY_EVERY: Duration = Duration::from_secs(3600);
    let mut work = std::pin::pin!(work);
    let started = std::time::Instant::now();
    loop {
        let held = started.elapsed();
        let left = limit.map(|limit| limit.saturating_sub(held));
        tokio::select! {
            done = &mut work => return done,
            () = tokio::time::sleep(left.unwrap_or(SAY_EVERY).min(SAY_EVERY)) => {}
        }
        let held = started.elapsed();
        if let Some(limit) = limit.filter(|limit| held >= *limit) {
            return Err(Error::failed(format!(
                "the backup was not done after {} s, and --max-duration ends it",
                limit.as_secs_f64()
            ))
            .with_hint(
                "Nothing was stored. Allow more time, more --jobs or a faster --compress, or back up from a standby.",
            ));
        }
        progress.warn(format!(
            "the snapshot has been held for {} min: meanwhile VACUUM can't remove dead rows in this database",
            held.as_secs() / 60
        ));
    }
}

/// On a standby, replay may cancel what reads: whichever session or program noticed first, that is the reason.
///
/// The holder of the snapshot has every lock and the oldest view, so a conflict ends it as well, with a SQLSTATE that
/// pg_dump's text or a worker that came too late to join does not have.
async fn explain_conflict(error: Error, holder: Session) -> Error {
    /// How long the server may take to end the holder after another session of ours.
    const GRACE: std::time::Duration = std::time::Duration::from_secs(2);
    /// `serialization_failure` in a transaction that only reads: a conflict with recovery, never anything else.
    const CONFLICT: Option<&str> = Some("40001");
    // pg_dump gives no SQLSTATE; this is the C locale's text.
    let cancelled = error.sqlstate() == CONFLICT
        || error.message().contains("due to conflict with recovery")
        || match holder.query_one("SELECT pg_catalog.pg_is_in_recovery()", &[]).await {
            Ok(row) if !row.get::<_, bool>(0) => false,
            _ => {
                let deadline = std::time::Instant::now() + GRACE;
                while !holder.is_closed() && std::time::Instant::now() < deadline {
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
                holder.is_closed() && holder.close().await.is_err_and(|error| error.sqlstate() == CONFLICT)
            }
        };
    if !cancelled {
        return error;
    }
    Error::busy(format!("the standby cancelled the backup because of a conflict with recovery ({error})"))
        .with_hint(
            "Raise max_standby_streaming_delay on the standby (-1 waits for ever) or set hot_standby_feedback = on \
             there, or back up from the primary; then run the command again.",
        )
        .with_source(error)
}

/// Refuses servers whose snapshots could not be exact.
pub async fn check_server(session: &Session) -> Result<()> {
    refuse_older(session.server_major())?;
    names_as_bytes::refuse(session).await
}

fn refuse_older(major: u32) -> Result<()> {
    if major >= OLDEST_SERVER {
        return Ok(());
    }
    Err(Error::refused(format!("the server is PostgreSQL {major}; {OLDEST_SERVER} is the oldest supported"))
        .with_hint("Use pg_dump for this server."))
}

/// Takes a snapshot of the state that `exported` stands for. Its tables must be locked by the holder.
///
/// Others wait for the holder, so no CHECKPOINT is run for later snapshots' sake alone.
pub async fn create_from(
    settings: &ConnectionSettings,
    exported: &ExportedSnapshot<'_>,
    repository: &Repository,
    options: &CreateOptions,
    progress: &Progress,
) -> Result<StoredSnapshot> {
    let more = More { settle: Settle::IfKnown, looks: false };
    let created = copy_state(settings, exported, repository, options, more, progress);
    Box::pin(created).await.map_err(explain)
}

const ONE_SESSION: &str = "this standby's PostgreSQL can damage rows when several sessions share a snapshot, so one session \
                           reads everything: it takes longer, and an upgrade to the newest minor release ends it";

/// What a whole backup does beside copying.
struct More {
    /// Whether a CHECKPOINT may be run for later snapshots.
    settle: Settle,
    /// Whether what this role could not restore is looked for.
    looks: bool,
}

/// [`copy_named`], and where it fails because a name means another table by now, an error that says so.
async fn copy_state(
    settings: &ConnectionSettings,
    exported: &ExportedSnapshot<'_>,
    repository: &Repository,
    options: &CreateOptions,
    more: More,
    progress: &Progress,
) -> Result<StoredSnapshot> {
    let joining = async {
        match exported.only_session() {
            None => join(settings, exported).await.map(Some),
            Some(_) => {
                progress.warn(ONE_SESSION);
                Ok(None)
            }
        }
    };
    // Programs are started to ask them for their versions.
    let (joined, installed) = tokio::join!(joining, tools::installed("pg_dump"));
    let joined = joined?;
    let reader = joined.as_ref().or(exported.only_session());
    let reader = reader.ok_or_else(|| Error::failed("no session reads the snapshot"))?;
    let schemas = Schemas::seen_by(reader).await?;
    let copied =
        copy_named(settings, exported, reader, &schemas, &installed, repository, options, more, progress);
    let error = match Box::pin(copied).await {
        Err(error) => error,
        Ok(published) => {
            if let Some(joined) = joined {
                joined.close().await?;
            }
            return Ok(published);
        }
    };
    // A missing table or column, a view, another owner's table: the server's word (class 42), or pg_dump's, which has no code.
    let may_be_renamed = error.sqlstate().is_none_or(|code| code.starts_with("42") || code.starts_with("3F"));
    if may_be_renamed && common::interrupt::received().is_none() && !error.is_caused_by(Cause::NameChanged) {
        let now = Schemas::now(settings).await;
        if let Ok(Err(renamed)) = now.map(|now| schemas.check_same(&now, &schemas.names())) {
            return Err(renamed.with_source(error));
        }
    }
    Err(error)
}

/// The mark of a database that one of our programs made for itself is no comment of the database's: what is restored from the snapshot
/// must not bear it.
fn leave_mark_out(database: &mut DatabaseState, progress: &Progress) -> Option<String> {
    let mark = database.comment.take_if(|comment| scratch::is_mark(comment))?;
    progress.warn(format!(
        "the snapshot does not keep the comment of the database \"{}\", which is a mark of these programs: \"{}\". If that is still so, the \
         database is not complete, and neither is what is restored from the snapshot",
        printable(&database.name),
        printable(&mark)
    ));
    Some(format!(
        "the comment of the database, \"{}\": a mark of these programs, which a restored one does not get",
        printable(&mark)
    ))
}

#[expect(clippy::too_many_arguments, reason = "one step of the flow in copy_state")]
async fn copy_named(
    settings: &ConnectionSettings,
    exported: &ExportedSnapshot<'_>,
    reader: &Session,
    schemas: &Schemas,
    installed: &[tools::Tool],
    repository: &Repository,
    options: &CreateOptions,
    More { settle, looks }: More,
    progress: &Progress,
) -> Result<StoredSnapshot> {
    reader
        .batch_execute(trust::ONLY_TABLES)
        .await
        .map_err(|source| Error::postgres("could not prepare a reading session", source))?;
    let pg_dump = tools::choose_pg_dump(installed, reader.server_version_num())?;
    if let Some(older) = tools::older_minor(&pg_dump, reader.server_version_num()) {
        progress.warn(older);
    }
    let server = introspect::server(reader).await?;
    let filters = &options.filters;
    let scope = match (&options.rows_of, filters.is_empty()) {
        (Some(rows), _) => part::definitions(reader, rows).await?,
        (None, true) => None,
        (None, false) => Some(part::find(reader, filters).await?),
    };
    let state = options.database_state.as_ref();
    let (name, encoding) = introspect::name_and_encoding(reader).await?;
    let id = SnapshotId::new(exported.taken_at(), state.map_or(&name, |state| &state.name), random::bits()?);
    let partial = repository.begin(id.clone())?;
    fault::point("backup.begun");
    let dump = async |arguments: Vec<String>| {
        dump_schema(settings, &pg_dump, exported, &encoding, &arguments, &partial, progress).await
    };
    // The schema of a whole database needs nothing of what is read here, so pg_dump is at work meanwhile.
    let is_early = scope.is_none() && exported.only_session().is_none();
    let mut whole = Box::pin(maybe_done(dump(Vec::new())));
    let target = reuse::Target {
        database: state.map_or(&name, |state| &state.name),
        codec: options.codec,
        cut: options.cut,
        policy: options.reuse,
    };
    let prepared = Box::pin(async {
        let begun = reuse::begin(exported, reader, repository, target).await?;
        let mut settling = Box::pin(maybe_done(begun.settle(settings)));
        let looked = Box::pin(async {
            let mut catalog =
                introspect::catalog_around(reader, scope.as_ref().map(|scope| &scope.chosen)).await?;
            if let Some(state) = &options.database_state {
                catalog.database = state.clone();
            }
            if let Some(line) = leave_mark_out(&mut catalog.database, progress) {
                catalog.not_kept.push(line.clone());
                catalog.differs.push(line);
            }
            let absent_unlogged: Vec<_> = if server.in_recovery {
                catalog.tables.extract_if(.., |table| table.is_unlogged).collect()
            } else {
                Vec::new()
            };
            drop(absent_unlogged);
            if !options.skip_space_check {
                let blocks = catalog.tables.iter().map(Table::all_blocks).sum();
                space::check(repository, &catalog.database.name, blocks, options.codec)?;
            }
            let passwords = if options.role_passwords {
                Some(role_passwords::read(reader, &catalog.roles).await?)
            } else {
                None
            };
            // A part is decided on before its rows are read: by the archive, which says what needs what.
            let part = match &scope {
                None => None,
                Some(scope) => {
                    progress.phase("reading the schema", None);
                    let arguments = scope.pg_dump_arguments();
                    let schema = dump(arguments).await?;
                    let entries = part::contents(&pg_dump, &partial.dir().join(SCHEMA_FILE)).await?;
                    let part =
                        take_part(reader, scope, schema, &entries, &options.filters, &mut catalog).await?;
                    progress.done();
                    Some(part)
                }
            };
            let named = catalog.tables.iter().map(|table| (table.oid, &table.name));
            let named = named.chain(catalog.partitioned.iter().map(|table| (table.oid, &table.name)));
            exported.check_locked(reader, named).await?;
            let guards =
                admit(settings, exported, reader, &mut catalog.tables, options.cut, progress).await?;
            Ok::<_, Error>((catalog, passwords, part, guards))
        });
        let (catalog, passwords, part, guards) = beside_of(&mut settling, looked).await?;
        settling.as_mut().await;
        let settled_early = settling.as_mut().take_output().transpose()?.flatten();
        drop(settling);
        fault::wait("backup.admitted");
        let block_bytes = 8192;
        let estimate: u64 = catalog.tables.iter().map(|table| table.all_blocks() * block_bytes).sum();
        progress.phase(format!("copying {} tables", catalog.tables.len()), Some(estimate));
        let reuse = begun.prepare(settings, reader, &catalog.tables, settled_early).await?;
        let copy = CopyOptions {
            jobs: options.jobs.max(1),
            codec: options.codec,
            cut: options.cut,
            meter: Arc::default(),
        };
        let partitioned = catalog.partitioned.iter().map(|table| table.oid);
        let oids: HashSet<u32> = catalog.tables.iter().map(|table| table.oid).chain(partitioned).collect();
        let plannable = match options.check_foreign_keys {
            true => orphans::plannable(reader, &oids, &catalog.inherits).await?,
            false => HashSet::new(),
        };
        Ok::<_, Error>((catalog, passwords, part, guards, reuse, copy, oids, plannable))
    });
    let (catalog, passwords, part, guards, reuse, copy, oids, plannable) = match is_early {
        true => beside_of(&mut whole, prepared).await?,
        false => prepared.await?,
    };
    // On the heap: one after the other or all at once, they would stand twice in this future, and in all around it.
    let schema = Box::pin(async {
        match &part {
            Some(part) => Ok(part.schema.clone()),
            None => {
                whole.as_mut().await;
                let schema = whole.as_mut().take_output();
                schema.ok_or_else(|| Error::failed("pg_dump ended without a schema"))?
            }
        }
    });
    let orphans = Box::pin(async {
        match options.check_foreign_keys {
            true => orphans::find(settings, exported, &oids, &plannable, progress).await,
            false => Ok(Vec::new()),
        }
    });
    let settled = Box::pin(reuse.settle(settings, settle));
    let (database, all) = (&catalog.database, catalog.tables);
    let rows = Box::pin(copy_out::tables(
        settings,
        exported,
        &partial,
        database,
        all,
        copy_out::Ways { guards, reuse: &reuse },
        copy.clone(),
        progress,
    ));
    let noted = Box::pin(async {
        let noted = match looks {
            true => restorable::not_by_this_role(reader, progress).await?,
            false => Vec::new(),
        };
        let beside = match &part {
            None => beside::Beside::read(settings, reader, progress).await?,
            Some(_) => beside::Beside::of_part(settings, reader, options.rows_of.as_ref(), progress).await?,
        };
        Ok((noted, beside))
    });
    let (schema, orphans, settled, (noted, beside), (mut tables, reading)) = match exported.only_session() {
        None => tokio::try_join!(schema, orphans, settled, noted, rows)?,
        Some(_) => (schema.await?, orphans.await?, settled.await?, noted.await?, rows.await?),
    };
    drop(whole);
    fault::point("backup.copied");
    let count = catalog.large_objects.count;
    let large_objects =
        copy_out::large_objects(settings, exported, reader, &partial, count, copy.clone(), progress).await?;
    // Sequences are not transactional: read after the data, so that none is behind a row that was copied (docs/exactness.md, E11).
    let sequences = introspect::sequences_of(reader, part.as_ref().map(|part| &part.sequences)).await?;
    // What a newer pg_dump writes for a server before 15 that the server does not understand.
    let is_foreign = server.major() < 15 && pg_dump.major >= 15;
    let identities = if is_foreign { introspect::unlogged_identities(reader).await? } else { Vec::new() };
    progress.done();
    // Nothing is read of the snapshot any more: a session of ours alone can be asked what holds now, without a new one.
    if exported.only_session().is_none() {
        let ended = reader.batch_execute("COMMIT").await;
        ended.map_err(|source| Error::postgres("could not end the reading of the snapshot", source))?;
    }
    let wal_base = reuse.base(reader, &mut tables, settle, settled, progress).await?;
    // What was decided for this role and these sessions is nobody else's.
    tables.iter_mut().for_each(|data| data.table.may_plan = false);

    // The schema of a trial's snapshot is whole, though its rows are not.
    let is_whole = part.is_none() || options.rows_of.is_some();
    let fence = options.tell_fence.then(|| left_fence::note(&catalog.database)).flatten();
    let mut manifest = Manifest {
        format: if part.is_some() { PARTIAL_FORMAT } else { FORMAT },
        id,
        kind: options.kind,
        name: options.name.clone(),
        tags: options.tags.clone(),
        taken_at: exported.taken_at(),
        finished_at: Utc::now(),
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        server,
        pg_dump_version: pg_dump.version,
        pg_dump_major: pg_dump.major,
        database: catalog.database,
        wal_base,
        reading: Some(reading),
        database_bytes: Some(catalog.database_bytes),
        placed: catalog.placed,
        codec: options.codec,
        tables,
        partitioned: catalog.partitioned,
        inherits: catalog.inherits,
        partial: part.map(|part| part.facts),
        sequences,
        large_objects,
        extensions: catalog.extensions,
        materialized_views: catalog.materialized_views,
        roles: catalog.roles,
        role_passwords: passwords.is_some(),
        grants: catalog.grants,
        revoked: Some(catalog.revoked),
        builtin_rights: is_whole.then_some(catalog.builtin_rights),
        absent: if is_whole { catalog.absent } else { Vec::new() },
        not_kept: options
            .notes
            .iter()
            .cloned()
            .chain(fence)
            .chain(catalog.not_kept)
            .chain(orphans)
            .chain(noted)
            .chain(beside.not_written())
            .collect(),
        differs: Some(catalog.differs),
        extension_tables: beside.extension_tables,
        extension_objects: beside.extension_objects,
        extension_sequences: beside.extension_sequences,
        generated: beside.generated,
        cost: Some(copy.meter.read()),
        owners: catalog.owners,
        collations: catalog.collations,
        files: vec![schema],
    };
    let files = write_stock_files(&partial, &manifest, &identities, passwords.as_deref())?;
    manifest.files.extend(files);
    manifest.finished_at = Utc::now().max(manifest.taken_at);
    exported.check_held().await?;
    let tables = manifest.tables.iter().map(|data| &data.table.name);
    let tables = tables.chain(manifest.partitioned.iter().map(|table| &table.name));
    let used = tables.chain(manifest.sequences.iter().map(|sequence| &sequence.name));
    let now = match exported.only_session() {
        None => Schemas::seen_by(reader).await?,
        Some(_) => Schemas::now(settings).await?,
    };
    schemas.check_same(&now, &used.map(|name| name.schema.as_str()).collect())?;
    partial.publish(manifest)
}

/// Works on `main` until it is done, and on `other` meanwhile, however far that comes.
async fn beside_of<T>(other: &mut (impl Future<Output = ()> + Unpin), main: impl Future<Output = T>) -> T {
    let mut main = std::pin::pin!(main);
    std::future::poll_fn(|context| {
        let _ = std::pin::Pin::new(&mut *other).poll(context);
        main.as_mut().poll(context)
    })
    .await
}

/// The files that make the snapshot restorable without these tools.
fn write_stock_files(
    partial: &PartialSnapshot,
    manifest: &Manifest,
    identities: &[String],
    passwords: Option<&[(String, Secret)]>,
) -> Result<Vec<FileEntry>> {
    let mut globals = readme::globals_sql(&manifest.roles);
    if let Some(passwords) = passwords {
        globals.push_str(role_passwords::globals_sql(passwords).expose());
    }
    let list = manifest.partial.as_ref().map(|partial| {
        let lines: String = partial.entries.iter().map(|entry| format!("{entry};\n")).collect();
        (
            LIST_FILE,
            format!(
                "; The entries of {SCHEMA_FILE} that belong to this snapshot, by their numbers.\n{lines}"
            ),
        )
    });
    let files = [
        (SEQUENCES_FILE, readme::sequences_sql(&manifest.sequences, &manifest.extension_sequences)),
        (VIEWS_FILE, readme::views_sql(&manifest.materialized_views)),
        (DATABASE_FILE, readme::database_sql(&manifest.database)),
        (GLOBALS_FILE, globals),
        (LOAD_SCRIPT_FILE, readme::load_script(manifest, identities)),
        (README_FILE, readme::readme(manifest, identities)),
    ];
    files.into_iter().chain(list).map(|(name, text)| partial.write(name, text.as_bytes())).collect()
}

/// The part of the database that a snapshot holds.
struct Part {
    schema: FileEntry,
    facts: Partial,
    sequences: HashSet<u32>,
}

/// Decides what belongs to the part, and reduces the catalog to it.
async fn take_part(
    reader: &Session,
    scope: &part::Scope,
    schema: FileEntry,
    entries: &[toc::Entry],
    filters: &Filters,
    catalog: &mut Catalog,
) -> Result<Part> {
    let choice = scope.choose(reader, entries, filters).await?;
    let facts = scope.apply(filters, entries, &choice, catalog);
    let chosen: Vec<&toc::Entry> =
        entries.iter().filter(|entry| choice.entries.contains(&entry.id)).collect();
    let objects = chosen.iter().map(|entry| entry.object).collect();
    let rights = introspect::object_rights_of(reader, Some(&objects)).await?;
    (catalog.grants, catalog.revoked) = (rights.granted, rights.revoked);
    let sequences = chosen.iter().filter(|entry| entry.kind == EntryKind::Sequence);
    let mut sequences: HashSet<u32> = sequences.map(|entry| entry.object.1).collect();
    sequences.extend(scope.sequences_of_extensions(entries));
    Ok(Part { schema, facts, sequences })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_too_old_is_refused_with_the_tool_that_reads_it() {
        let error = refuse_older(OLDEST_SERVER - 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert_eq!(error.hint(), Some("Use pg_dump for this server."));
        refuse_older(OLDEST_SERVER).unwrap();
    }
}
