//! The database that is made beside the live one, and the proofs of how far it has come.
//!
//! Each step consumes the type of the step before: what was not loaded can't be validated, and what was not validated
//! can't take the live name.

use std::collections::HashSet;

use common::{
    Error, Progress, Result, interrupt,
    postgres::{ConnectionSettings, Session, database, introspect, tools::Tool},
    repository::{StoredSnapshot, verify::VerifiedSnapshot},
    snapshot::{
        manifest::SCHEMA_FILE,
        readme::{create_database_statement, database_statements, setval},
    },
};

use crate::{
    archive::{self, ArchiveOptions, Section},
    copy_in,
    plan::RestorePlan,
};

/// A database that this run made. Not yet trusted with anything.
#[derive(Debug)]
pub struct StagedDatabase {
    name: String,
    settings: ConnectionSettings,
}

/// A database whose rows, counts and content equal the snapshot's.
#[derive(Debug)]
pub struct ValidatedDatabase {
    name: String,
    missing_grants: Vec<String>,
}

impl ValidatedDatabase {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Grants of the snapshot that the restoring role could not give, as sentences.
    pub fn missing_grants(&self) -> &[String] {
        &self.missing_grants
    }
}

/// How to fill it.
#[derive(Debug, Clone, Copy)]
pub struct FillOptions {
    /// Connections.
    pub jobs: usize,
}

impl StagedDatabase {
    /// Makes the empty database.
    pub async fn create(
        maintenance: &Session,
        settings: &ConnectionSettings,
        snapshot: &VerifiedSnapshot,
        plan: &RestorePlan,
    ) -> Result<Self> {
        let state = &snapshot.snapshot().manifest.database;
        let statement = create_database_statement(state, &plan.staged, maintenance.server_major());
        maintenance.batch_execute(&statement).await.map_err(|source| {
            Error::postgres(format!("could not create the database \"{}\"", plan.staged), source)
        })?;
        common::fault::point("restore.created");
        Ok(Self { name: plan.staged.clone(), settings: settings.with_database(&plan.staged) })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Drops it again: this run made it, and nobody else has been told its name.
    pub async fn discard(self, maintenance: &Session) -> Result<()> {
        let _undo = interrupt::begin_undo();
        // What can't be taken away makes the drop fail, and that says why.
        let _ = drop_subscriptions(&self.settings).await;
        // 57014: cancelled. The cancel request of the signal that brought us here may come as late as this.
        match database::drop_database(maintenance, &self.name).await {
            Err(error) if error.sqlstate() == Some("57014") => {
                database::drop_database(maintenance, &self.name).await
            }
            result => result,
        }
    }

    /// Fills and validates it: pre-data, rows, post-data, sequences, views, ANALYZE, comparison, database settings.
    pub async fn fill(
        &self,
        maintenance: &Session,
        snapshot: &VerifiedSnapshot,
        plan: &RestorePlan,
        pg_restore: &Tool,
        options: FillOptions,
        progress: &Progress,
    ) -> Result<ValidatedDatabase> {
        let snapshot = snapshot.snapshot();
        let manifest = &snapshot.manifest;
        let settings = &self.settings;
        let session = settings.connect().await?;
        let archive = snapshot.path(SCHEMA_FILE);
        let archive_options = ArchiveOptions {
            jobs: options.jobs,
            no_owner: plan.no_owner,
            entries: manifest.partial.as_ref().map(|partial| partial.entries.as_slice()),
        };

        progress.phase("making tables", None);
        archive::restore(
            pg_restore,
            settings,
            &session,
            &archive,
            Section::PreData,
            archive_options,
            progress,
        )
        .await?;
        progress.done();

        progress.phase(format!("loading {} tables", manifest.tables.len()), Some(manifest.raw_bytes()));
        copy_in::run(settings, options.jobs, copy_in::load_tables(snapshot), manifest.codec, progress)
            .await?;
        if let Some(objects) = &manifest.large_objects {
            let (jobs, no_owner) = (options.jobs, plan.no_owner);
            copy_in::load_large_objects(settings, &session, snapshot, objects, jobs, no_owner, progress)
                .await?;
        }
        progress.done();
        common::fault::point("restore.loaded");

        progress.phase("building indexes and constraints", None);
        archive::restore(
            pg_restore,
            settings,
            &session,
            &archive,
            Section::PostData,
            archive_options,
            progress,
        )
        .await?;
        progress.done();

        progress.phase("setting sequences, refreshing views, analyzing", None);
        set_sequences(&session, snapshot).await?;
        refresh_views(&session, snapshot).await?;
        analyze(&session, settings, options.jobs, snapshot, progress).await?;
        progress.done();

        progress.phase("comparing every row with the snapshot", Some(manifest.raw_bytes()));
        copy_in::compare_content(settings, snapshot, options.jobs, progress).await?;
        progress.done();
        let missing_grants = missing_grants(&session, snapshot, plan).await?;
        session.close().await?;
        apply_database_state(maintenance, snapshot, &self.name, plan.no_owner).await?;
        Ok(ValidatedDatabase { name: self.name.clone(), missing_grants })
    }
}

/// PostgreSQL drops no database with a subscription in it. The slot on the publisher is the live database's.
async fn drop_subscriptions(settings: &ConnectionSettings) -> Result<()> {
    let failed = |source| Error::postgres("could not drop a subscription", source);
    let session = settings.connect().await?;
    let rows = session
        .query(
            "SELECT pg_catalog.format('ALTER SUBSCRIPTION %1$I DISABLE; ALTER SUBSCRIPTION %1$I SET (slot_name = NONE); \
             DROP SUBSCRIPTION %1$I', s.subname) FROM pg_catalog.pg_subscription s
             JOIN pg_catalog.pg_database d ON d.oid = s.subdbid WHERE d.datname = pg_catalog.current_database()",
            &[],
        )
        .await
        .map_err(failed)?;
    for row in &rows {
        session.batch_execute(row.get(0)).await.map_err(failed)?;
    }
    session.close().await
}

/// Grants that the snapshot has and the restored database has not. A server only warns when a role gives what it does not
/// hold, and pg_restore does not pass that on.
async fn missing_grants(
    session: &Session,
    snapshot: &StoredSnapshot,
    plan: &RestorePlan,
) -> Result<Vec<String>> {
    if plan.no_owner {
        return Ok(Vec::new());
    }
    let have: HashSet<_> = introspect::object_grants(session).await?.into_iter().collect();
    let missing: Vec<String> = snapshot
        .manifest
        .grants
        .iter()
        .filter(|grant| !have.contains(grant))
        .map(|grant| {
            let grantee = grant.grantee.as_deref().unwrap_or("PUBLIC");
            common::ident::printable(&format!("{} on {} to {grantee}", grant.privilege, grant.object))
        })
        .collect();
    if missing.is_empty() || !plan.grants_must_match {
        return Ok(missing);
    }
    const SHOWN: usize = 10;
    let more =
        if missing.len() > SHOWN { format!("; and {} more", missing.len() - SHOWN) } else { String::new() };
    Err(Error::refused(format!(
        "{} could not be restored: {}{more}",
        common::cli::format::plural(missing.len() as u64, "grant", "grants"),
        missing.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ")
    ))
    .with_hint("Restore as a superuser or as the role that gave them, or leave owners and grants out with --no-owner."))
}

async fn set_sequences(session: &Session, snapshot: &StoredSnapshot) -> Result<()> {
    for sequence in &snapshot.manifest.sequences {
        session.query_one(&setval(sequence), &[]).await.map_err(|source| {
            Error::postgres(format!("could not set the sequence {}", sequence.name.short()), source)
        })?;
    }
    Ok(())
}

/// Refreshes in the recorded order; one that fails is tried again after the others, because a function that it calls
/// may read another view, and such dependencies are recorded nowhere.
async fn refresh_views(session: &Session, snapshot: &StoredSnapshot) -> Result<()> {
    let mut waiting: Vec<_> =
        snapshot.manifest.materialized_views.iter().filter(|view| view.is_populated).collect();
    while !waiting.is_empty() {
        let before = waiting.len();
        let mut failed = Vec::new();
        let mut last = None;
        for view in waiting {
            let statement = format!("REFRESH MATERIALIZED VIEW {}", view.name);
            if let Err(source) = session.batch_execute(&statement).await {
                let what = format!("could not fill the materialized view {}", view.name.short());
                last = Some(Error::postgres(what, source));
                failed.push(view);
            }
        }
        if let (Some(error), true) = (last, failed.len() == before) {
            return Err(error.with_hint(
                "Its query fails with an empty search_path? Set one on the functions that it calls (ALTER FUNCTION … SET search_path).",
            ));
        }
        waiting = failed;
    }
    Ok(())
}

async fn analyze(
    session: &Session,
    settings: &ConnectionSettings,
    jobs: usize,
    snapshot: &StoredSnapshot,
    progress: &Progress,
) -> Result<()> {
    let rows = session
        .query(
            "SELECT pg_catalog.format('ANALYZE %I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
               AND n.nspname NOT LIKE 'pg\\_toast%' AND (c.relkind <> 'm' OR c.relispopulated)
             UNION ALL SELECT 'ANALYZE pg_catalog.pg_class, pg_catalog.pg_attribute'",
            &[],
        )
        .await
        .map_err(|source| Error::postgres("could not list the tables to analyze", source))?;
    let work = rows
        .iter()
        .map(|row| copy_in::Work::Run { statement: row.get(0), what: "could not analyze a table".to_owned() })
        .collect();
    copy_in::run(settings, jobs, work, snapshot.manifest.codec, progress).await?;
    // Partitioned tables and inheritance parents have statistics of their own, from all their children; after the
    // children, so that no two sessions analyze one table at once.
    let parents = session
        .query(
            "SELECT pg_catalog.format('ANALYZE %I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'p' AND NOT c.relispartition",
            &[],
        )
        .await
        .map_err(|source| Error::postgres("could not list the tables to analyze", source))?;
    for row in &parents {
        session
            .batch_execute(row.get(0))
            .await
            .map_err(|source| Error::postgres("could not analyze a partitioned table", source))?;
    }
    Ok(())
}

/// Owner, grants, comment, settings and limits of the database itself.
async fn apply_database_state(
    maintenance: &Session,
    snapshot: &StoredSnapshot,
    name: &str,
    no_owner: bool,
) -> Result<()> {
    let mut state = snapshot.manifest.database.clone();
    if no_owner {
        state.acl = None;
        state.settings.retain(|setting| setting.role.is_none());
    }
    for statement in database_statements(&state, name) {
        if no_owner && statement.contains(" OWNER TO ") {
            continue;
        }
        maintenance.batch_execute(&statement).await.map_err(|source| {
            Error::postgres(format!("could not give the database \"{name}\" its settings"), source)
        })?;
    }
    Ok(())
}
