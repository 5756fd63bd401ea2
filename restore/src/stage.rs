//! The database that is made beside the live one, and the proofs of how far it has come.
//!
//! Each step consumes the type of the step before: what was not loaded can't be validated, and what was not validated
//! can't take the live name.

mod finish;

use std::{sync::Arc, time::Duration};

use common::{
    Error, Progress, QualifiedName, Result,
    format::plural,
    interrupt,
    postgres::{
        ConnectionSettings, Session, database, lsn_columns, regdatabase, scratch,
        tools::Tool,
        trust::{self, Others},
    },
    repository::verify::VerifiedSnapshot,
    snapshot::{manifest::SCHEMA_FILE, readme::create_database_statement},
};

use crate::{
    archive::{self, ArchiveOptions, Remedies},
    collation, compare,
    contents::Section,
    copy_in,
    differences::{self, LostRows},
    extension_tables, extensions, gate, grants, lent_paths,
    load::{self, LoadOptions, Spent},
    maintain,
    missing::{self, MissingObject},
    owned::{self, Owned},
    owners::{self, Which},
    plan::RestorePlan,
    role_map, rule_settings, sessions, tablespaces,
};

use finish::{analyze, flush, refresh_views, set_sequences};

/// A database that this run made. Not yet trusted with anything.
#[derive(Debug)]
pub struct StagedDatabase {
    name: String,
    settings: ConnectionSettings,
    /// Its users may not connect until [`gate::open`].
    is_shut: bool,
    /// How long dropping it again may take.
    patience: Duration,
}

/// Dropping a database takes as long as a checkpoint of the whole server, and this for each GiB of its files.
const DROP_PATIENCE: [Duration; 2] = [Duration::from_secs(600), Duration::from_secs(1)];

/// After this time a person is told what is waited for.
const DROP_NOTE: Duration = Duration::from_secs(60);

/// A database whose rows, counts and content equal the snapshot's.
#[derive(Debug)]
pub struct ValidatedDatabase {
    name: String,
    found: Found,
}

/// What was found on the way to it.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Grants that the restoring role could neither give nor take back.
    pub grants: grants::Differences,
    /// Objects that belong to another role than in the snapshot, as phrases.
    pub other_owners: Vec<String>,
    /// Objects of the snapshot that it lacks.
    pub missing: Vec<MissingObject>,
    /// What else is not as in the snapshot, one sentence each.
    pub differences: Vec<String>,
    /// What of it the rows decided.
    pub by_rows: Vec<String>,
    /// Rows that the snapshot does not hold.
    pub lost_rows: Vec<LostRows>,
    /// What could not be compared with the snapshot, one sentence each.
    pub not_checked: Vec<String>,
    /// Where the time of loading went.
    pub spent: Vec<Spent>,
}

impl ValidatedDatabase {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is not as it was, and where the time went.
    pub fn found(&self) -> &Found {
        &self.found
    }
}

/// How to fill it.
#[derive(Debug, Clone, Copy)]
pub struct FillOptions {
    /// Connections.
    pub jobs: usize,
}

/// Gives the plan other names where somebody has taken one since: an undo may come long after it was planned.
///
/// # Errors
/// The server can't be asked.
pub async fn renew_names(maintenance: &Session, plan: &mut RestorePlan) -> Result<()> {
    for name in std::iter::once(&mut plan.staged).chain(&mut plan.kept_as) {
        let planned = name.clone();
        let mut number = 1;
        while database::exists(maintenance, name).await? {
            number += 1;
            *name = common::ident::with_suffix(&planned, &format!("_{number}"));
        }
    }
    Ok(())
}

impl StagedDatabase {
    /// Makes the empty database.
    pub async fn create(
        maintenance: &Session,
        settings: &ConnectionSettings,
        snapshot: &VerifiedSnapshot,
        plan: &RestorePlan,
        progress: &Progress,
    ) -> Result<Self> {
        let mut state = snapshot.snapshot().manifest.database.clone();
        state.tablespace.clone_from(&plan.tablespace);
        let mut statement = create_database_statement(&state, &plan.staged, maintenance.server_major());
        // Nobody else comes in before the database is complete, so no owner of a table that was just made can do anything to it
        // while it is filled and compared. Superusers are not counted, so for them a limit of none does it. Another role is: it
        // takes from everybody but itself the right to connect, and nobody can before that.
        let is_superuser = gate::is_superuser(maintenance).await?;
        let has_owners_rights = gate::has_owners_rights(maintenance).await?;
        // Closed in any case until it has its comment: a run that is killed before that is known by the limit.
        let closed = scratch::closed_limit(&plan.staged);
        statement.push_str(&format!(" ALLOW_CONNECTIONS false CONNECTION LIMIT {closed}"));
        maintenance.batch_execute(&statement).await.map_err(|source| {
            let error = Error::postgres(format!("could not create the database \"{}\"", plan.staged), source);
            collation::explain_create(error, &snapshot.snapshot().manifest.database)
        })?;
        common::fault::point("restore.made");
        let settings = settings.with_database(&plan.staged);
        let gib = snapshot.snapshot().manifest.raw_bytes() >> 30;
        let [base, for_gib] = DROP_PATIENCE;
        let mut staged = Self {
            name: plan.staged.clone(),
            settings,
            is_shut: !is_superuser,
            patience: base + for_gib * u32::try_from(gib).unwrap_or(u32::MAX),
        };
        let name = common::Ident::new(&*plan.staged);
        let marker = plan.marker.as_deref().unwrap_or(scratch::HALF_MADE);
        let mut prepare = vec![
            format!("COMMENT ON DATABASE {name} IS {}", common::ident::literal(marker)),
            format!("ALTER DATABASE {name} CONNECTION LIMIT {}", if is_superuser { 0 } else { -1 }),
        ];
        if staged.is_shut {
            prepare.push(format!("REVOKE CONNECT ON DATABASE {name} FROM PUBLIC"));
            // ALTER ROLE … SET role: who logs in is not who owns.
            if !has_owners_rights {
                prepare.push(format!("GRANT CONNECT ON DATABASE {name} TO SESSION_USER"));
            }
        }
        prepare.push(format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true"));
        // In one message, and so in one transaction.
        if let Err(source) = maintenance.batch_execute(&prepare.join("; ")).await {
            let name = &plan.staged;
            let what = match staged.discard(maintenance, progress).await {
                Ok(()) => format!("could not prepare the database \"{name}\""),
                Err(second) => format!(
                    "could not prepare the database \"{name}\", nor drop it again ({second}; drop it by hand)"
                ),
            };
            return Err(Error::postgres(what, source));
        }
        common::fault::point("restore.created");
        let manifest = &snapshot.snapshot().manifest;
        match rule_settings::lend(maintenance, staged.settings.clone(), manifest, &plan.staged).await {
            Ok(settings) => staged.settings = settings,
            Err(error) => {
                return Err(match staged.discard(maintenance, progress).await {
                    Ok(()) => error,
                    Err(second) => error.context(format!("nor could it be dropped again ({second})")),
                });
            }
        }
        Ok(staged)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Drops it again: this run made it, and nobody else has been told its name.
    ///
    /// # Errors
    /// It is still there: a server can take for ever, and says so to nobody.
    pub async fn discard(self, maintenance: &Session, progress: &Progress) -> Result<()> {
        let _undo = interrupt::begin_undo().await;
        let dropped = database::drop_database_within(maintenance, &self.name, self.patience);
        let told = async {
            tokio::time::sleep(DROP_NOTE).await;
            progress.note(format!(
                "dropping the database \"{}\" takes long: the server writes a checkpoint and waits for all its processes; it has {} s",
                common::ident::printable(&self.name),
                self.patience.as_secs()
            ));
            std::future::pending::<()>().await;
        };
        tokio::select! {
            dropped = dropped => dropped,
            () = told => Ok(()),
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
        let mut snapshot = snapshot.snapshot().clone();
        let settings = &self.settings;
        let session = settings.connect().await?;
        let archive = snapshot.path(SCHEMA_FILE);
        let entries = snapshot.manifest.partial.as_ref().map(|partial| partial.entries.clone());
        let remedies = Arc::new(Remedies::new(settings, &snapshot.manifest, plan.skip_settings, progress));
        let owned = if plan.no_owner {
            Owned::default()
        } else {
            owned::look::find(&session, pg_restore, &archive, &snapshot.manifest, entries.as_deref()).await?
        };
        let archive_options = ArchiveOptions {
            jobs: options.jobs,
            no_owner: plan.no_owner,
            entries: entries.as_deref(),
            no_tablespaces: plan.no_tablespaces,
            keep_going: plan.force,
            session: sessions::SESSION,
            ahead: None,
            owned: Some(&owned),
            remedies: &remedies,
        };

        progress.phase("making tables", None);
        let to = extensions::To { pg_restore, settings, session: &session, archive: &archive };
        let extensions = extensions::make(to, &snapshot.manifest, archive_options, progress).await?;
        remedies.event_triggers.silence(&session, progress).await?;
        let with_extensions = ArchiveOptions { ahead: Some(&extensions), ..archive_options };
        let made = archive::restore(
            pg_restore,
            settings,
            &session,
            &archive,
            Section::PreData,
            with_extensions,
            progress,
        );
        let facts = load::archive_facts(pg_restore, &archive, &snapshot.manifest);
        let (mut missing, facts) = tokio::try_join!(made, facts)?;
        let facts = facts.only(entries.as_deref());
        progress.done();
        remedies.event_triggers.silence(&session, progress).await?;
        // Empty, tables are moved at once.
        tablespaces::place(&session, &plan.placed, |kind| kind == "table").await?;
        if plan.force {
            snapshot = missing::without_missing_tables(&session, &snapshot, &mut missing).await?;
        }
        let manifest = &snapshot.manifest;

        let (others, theirs) = extension_tables::apart(&session, &snapshot).await?;
        let bytes = manifest.raw_bytes() + if plan.force { 0 } else { others.manifest.raw_bytes() };
        progress.phase(
            format!("loading and reading back {}", plural(manifest.tables.len() as u64, "table", "tables")),
            Some(bytes),
        );
        copy_in::run(settings, 1, theirs, manifest.codec, progress).await?;
        if let Some(objects) = &manifest.large_objects {
            let (jobs, no_owner) = (options.jobs, plan.no_owner);
            copy_in::load_large_objects(settings, &session, &snapshot, objects, jobs, no_owner, progress)
                .await?;
        }
        let (has_code, has_event_triggers) = (facts.has_code(), facts.has_event_triggers());
        let load_options = LoadOptions {
            jobs: options.jobs,
            pg_restore,
            archive: archive_options,
            remedies: &remedies,
            only_load: plan.force,
        };
        let loaded = load::load(settings, &session, &others, facts, load_options, progress).await?;
        progress.done();
        let broken = remedies.broken_rules.put_back(&session).await?;
        let compared = compare::loaded(&others.manifest, &loaded.read)?;
        common::fault::point("restore.loaded");
        let refused: Vec<(QualifiedName, String)> = loaded
            .refused
            .iter()
            .map(|(table, why)| (others.manifest.tables[*table].table.name.clone(), why.clone()))
            .collect();

        progress.phase("restoring everything else", None);
        let archive_options = ArchiveOptions { ahead: Some(&loaded.ahead), ..archive_options };
        let failed = archive::restore(
            pg_restore,
            settings,
            &session,
            &archive,
            Section::PostData,
            archive_options,
            progress,
        );
        missing.extend(failed.await?);
        progress.done();
        tablespaces::place(&session, &plan.placed, |kind| kind != "table").await?;
        if plan.force {
            snapshot = missing::without_missing_views(&session, snapshot).await?;
            snapshot = missing::without_refused_rows(snapshot, refused, &mut missing);
        }

        if let Some(changed) = collation::changed_version(&session, &snapshot.manifest).await? {
            progress.warn(changed);
        }
        let taken = maintain::take_back(&session, &snapshot.manifest).await?;
        if taken > 0 {
            progress.note(format!(
                "{taken} grants of MAINTAIN were taken back: PostgreSQL {} has GRANT ALL without it",
                snapshot.manifest.server.major()
            ));
        }
        // Before views are filled, which is done in their owners' name: those of the time of the restore have no rights.
        role_map::apply(&session, &plan.map_roles).await?;

        progress.phase("setting sequences, refreshing views, analyzing", None);
        set_sequences(&session, &snapshot).await?;
        let (mut differences, mut by_rows) = (broken.clone(), broken);
        let keys = remedies.orphaned_keys.lines();
        differences.extend(keys.iter().cloned());
        by_rows.extend(keys);
        differences.extend(remedies.settings.left_out());
        let unset = differences::set_extension_sequences(&session, &snapshot).await?;
        by_rows.extend(unset.iter().cloned());
        differences.extend(unset);
        // An undo brings the rows back where a view can't be filled.
        let keep_going = plan.force || plan.accept_missing_objects;
        refresh_views(&session, &snapshot, &remedies.paths, keep_going, &mut missing).await?;
        let analyze = || analyze(&session, settings, options.jobs, &snapshot, &loaded.analyzed, progress);
        let were_lent = remedies.paths.are_lent();
        if let Err(error) = analyze().await {
            if !lent_paths::may_be_a_name(&error) || !remedies.paths.lend(were_lent).await? {
                return Err(lent_paths::hint(error));
            }
            analyze().await.map_err(lent_paths::hint)?;
        }
        remedies.paths.take_back(&session).await?;
        progress.done();

        // With its indexes and statistics a table may have got what a query on it must not run.
        let tables = snapshot.manifest.tables.iter_mut().map(|data| &mut data.table);
        trust::admit_by_name(&session, tables, Others::AreKeptOut).await?;
        let major = snapshot.manifest.server.major();
        let tables = snapshot.manifest.tables.iter_mut().map(|data| &mut data.table);
        lsn_columns::mark(&session, major, tables).await?;
        let compared = if has_code {
            compare::still(settings, options.jobs, compared, &snapshot.manifest, progress).await?
        } else {
            compared
        };
        compare::rest(settings, &snapshot, &compared, options.jobs, progress).await?;
        let (wanted, major) = (&snapshot.manifest.owners, snapshot.manifest.server.major());
        missing.extend(differences::lost_on_an_older_server(&session, &snapshot.manifest, plan).await?);
        let found = differences::find(&session, settings, &snapshot.manifest, progress).await?;
        let not_checked = found.account.not_checked;
        differences.extend(found.account.differs);
        by_rows.extend(found.by_rows);
        let lost_rows = found.lost_rows;
        if let (Some(live), Some(kept_as)) = (&plan.replaces, &plan.kept_as) {
            differences.extend(regdatabase::after_swap(&session, live, kept_as).await?);
        }
        let mut other_owners = owners::settle(&session, wanted, major, plan, Which::Objects).await?;
        let grants = grants::settle(&session, &snapshot.manifest, plan).await?;
        if plan.replaces.is_none() {
            database::detach_subscriptions(&session).await?;
        }
        if snapshot.manifest.lacks_public {
            differences.extend(differences::leave_out_public(&session).await?);
        }
        // The last of all: what came after it would fire them.
        let archive_options = ArchiveOptions { ahead: None, ..archive_options };
        if has_event_triggers {
            let section = Section::EventTriggers;
            let failed = archive::restore(
                pg_restore,
                settings,
                &session,
                &archive,
                section,
                archive_options,
                progress,
            );
            missing.extend(failed.await?);
            role_map::apply_to_event_triggers(&session, &plan.map_roles).await?;
            other_owners.extend(owners::settle(&session, wanted, major, plan, Which::EventTriggers).await?);
        }
        remedies.event_triggers.restore(&session).await?;
        flush(&session).await?;
        session.close().await?;
        if self.is_shut {
            gate::open(maintenance, &self.name).await?;
        }
        differences.extend(gate::apply_database_state(maintenance, &snapshot, &self.name, plan).await?);
        gate::complete(maintenance, &snapshot, &self.name, plan).await?;
        let found = Found {
            grants,
            other_owners,
            missing,
            differences,
            not_checked,
            by_rows,
            lost_rows,
            spent: loaded.spent,
        };
        Ok(ValidatedDatabase { name: self.name.clone(), found })
    }
}
