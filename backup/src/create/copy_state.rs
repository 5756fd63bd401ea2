//! Copies the state that an exported snapshot stands for, and publishes it.

use std::{collections::HashSet, sync::Arc};

use chrono::Utc;
use common::{
    Cause, Error, Progress, Result,
    catalog::{DatabaseState, Table},
    fault,
    ident::printable,
    postgres::{
        ConnectionSettings, Session,
        exported_snapshot::{ExportedSnapshot, join},
        introspect,
        names::Schemas,
        role_passwords, scratch, tools, trust,
    },
    random,
    repository::{Repository, StoredSnapshot},
    snapshot::{
        Manifest, SnapshotId,
        manifest::{FORMAT, PARTIAL_FORMAT, SCHEMA_FILE},
    },
};
use futures_util::future::maybe_done;

use super::{CreateOptions, stock_files::write_stock_files, taken_part::take_part};
use crate::{
    admission::admit,
    beside,
    copy_out::{self, CopyOptions},
    left_fence, orphans, part, restorable,
    reuse::{self, Settle},
    schema::dump_schema,
    space,
};

const ONE_SESSION: &str = "this standby's PostgreSQL can damage rows when several sessions share a snapshot, so one session \
                           reads everything: it takes longer, and an upgrade to the newest minor release ends it";

/// What a whole backup does beside copying.
pub(super) struct More {
    /// Whether a CHECKPOINT may be run for later snapshots.
    pub(super) settle: Settle,
    /// Whether what this role could not restore is looked for.
    pub(super) looks: bool,
}

/// [`copy_named`], and where it fails because a name means another table by now, an error that says so.
pub(super) async fn copy_state(
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
        lacks_public: is_whole && catalog.lacks_public,
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
