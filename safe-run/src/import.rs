//! A SQLite file becomes rows of PostgreSQL, without one changed value: what is imported, and the steps inside of the
//! transaction of a protected run ([`crate::transactional`]).
//!
//! file → schema → plan (or a schema made from the file's own) → orphans → [fence, snapshot, checks] → tables made ready → rows
//! → keys, triggers, sequences → rows read back and compared → [checks, COMMIT] → ANALYZE
//!
//! What must never happen: a value that is another one afterwards, a row that is left out unsaid, a table that is emptied unasked.

mod analyze;
mod around;
mod aside;
pub mod choices;
pub mod describe;
mod load;
mod make;
mod options;
mod order;
mod orphans;
pub mod plan;
mod readers;
mod rights;
mod source;
pub mod target;
mod tell;
mod verify;

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Mutex, PoisonError},
    time::Instant,
};

use common::{Error, Result, fault, interrupt, postgres::Session};

pub use options::ImportOptions;

use crate::{
    report::{Report, import::ImportReport},
    run::{Announced, Context, RunLog, RunOptions},
};
use aside::Quarantine;
use checks::{Accepted, Expectation, LossLimits};
use choices::{BadValues, Existing, Orphans};
use load::{Job, Loaded, OrphanRows, Outcome};
use make::Made;
use orphans::Found;
use plan::{Plan, TablePlan};
pub use source::Source;
use verify::Held;

/// Where the rows go.
#[derive(Debug)]
enum Way {
    /// Into tables that are there.
    Into(Plan),
    /// Into tables that are made from the file's schema.
    Make(Made),
}

/// An import that nothing speaks against so far.
#[derive(Debug)]
pub struct Import {
    source: Source,
    options: ImportOptions,
    limits: LossLimits,
    search_path: String,
    way: Way,
    orphans: Vec<Found>,
    /// Rows that the tables had when they were looked at.
    existing: BTreeMap<u32, i64>,
    done: Mutex<Option<Done>>,
}

/// What was loaded, to be compared.
#[derive(Debug)]
struct Done {
    plan: Plan,
    tables: Vec<Loaded>,
    /// What the tables held before, where rows are added.
    before: Vec<Held>,
}

impl Import {
    /// Looks at the database and makes the plan. Changes nothing.
    ///
    /// # Errors
    /// Refused, with everything that a person has to decide.
    pub async fn prepare(
        source: Source,
        options: ImportOptions,
        run: &RunOptions,
        session: &Session,
    ) -> Result<Self> {
        let search_path = target::search_path(session).await?;
        let there = target::read(session, &search_path).await?;
        let way = if there.tables.is_empty() {
            let schema = target::first_schema(session, &search_path).await?;
            Way::Make(make::translate(&source, &options, &schema)?)
        } else {
            if let Some((name, _)) = options.types.first() {
                return Err(Error::usage(format!(
                    "--type {name}: the database has tables already, and their types decide"
                ))
                .with_hint(
                    "Leave --type away. --epoch and --timezone say what numbers and local times mean.",
                ));
            }
            Way::Into(
                plan::plan(&source.schema, &there, &options)
                    .map_err(|problems| tell::undecided(&problems))?,
            )
        };
        if let Way::Into(plan) = &way {
            // Before anything is read: to count rows is a query, too.
            rights::refuse(session, plan, &options, rights::Use::Filled).await?;
        }
        if options.bad_values == BadValues::Quarantine || options.orphans == Orphans::Skip {
            rights::refuse_others_schema(session).await?;
        }
        let limits = crate::run::loss_limits(run, &[]);
        let mut import = Self {
            source,
            options,
            limits,
            search_path,
            way,
            orphans: Vec::new(),
            existing: BTreeMap::new(),
            done: Mutex::new(None),
        };
        if matches!(import.way, Way::Into(_)) {
            import.existing = around::existing_rows(session, import.plan()).await?;
            let used = rights::Use::with(import.options.existing, !import.existing.is_empty());
            if used == rights::Use::EmptiedAndFilled {
                rights::refuse(session, import.plan(), &import.options, used).await?;
            }
        }
        // Rows that are added may refer to rows that only PostgreSQL has: it checks them.
        if import.options.existing != Existing::Append {
            let keys = match &import.way {
                Way::Into(plan) => orphans::keys_of_target(&import.source.schema, plan, &there.foreign_keys),
                Way::Make(_) => orphans::keys_of_file(&import.source.schema, import.plan()),
            };
            let keeps = import.options.orphans != Orphans::Fail;
            import.orphans = import
                .source
                .with_readers(|readers| orphans::find(readers, &import.source.schema, &keys, keeps))?;
        }
        Ok(import)
    }

    /// Refuses what can be known before anything is changed.
    ///
    /// # Errors
    /// Refused: tables that are not empty, orphans that nobody decided about.
    pub fn refuse(&self) -> Result<()> {
        around::refuse_existing(self.plan(), &self.existing, self.options.existing, &self.limits)?;
        let is_quarantined = self.options.bad_values == BadValues::Quarantine;
        orphans::refuse_nameless(&self.source.schema, self.plan(), &self.orphans, is_quarantined)?;
        match self.options.orphans {
            Orphans::Fail => orphans::refuse(&self.orphans),
            Orphans::Skip | Orphans::Null => Ok(()),
        }
    }

    fn plan(&self) -> &Plan {
        match &self.way {
            Way::Into(plan) => plan,
            Way::Make(made) => &made.plan,
        }
    }

    /// What is going to run, for the journal.
    pub fn what(&self) -> String {
        format!("import of {} (SHA-256 {})", self.source.name(), self.source.digest.file)
    }

    /// What is known before it begins.
    pub fn report(&self) -> ImportReport {
        let left = |(name, why): &(String, String)| format!("{}: {why}", common::ident::printable(name));
        ImportReport {
            file: self.source.name(),
            file_bytes: self.source.digest.file_bytes,
            sha256: self.source.digest.file.clone(),
            wal_sha256: self.source.digest.wal.clone(),
            made_schema: matches!(self.way, Way::Make(_)),
            untranslated: match &self.way {
                Way::Make(made) => made.translation.untranslated.len() as u64,
                Way::Into(_) => 0,
            },
            left_alone: self.plan().left_alone.iter().map(left).collect(),
            ..ImportReport::default()
        }
    }

    /// The sentence beside the verdict of a success.
    pub fn succeeded(&self, report: &Report, checks: &str) -> String {
        let amount = report.import.as_ref().map(ImportReport::amount).unwrap_or_default();
        let is_equal =
            report.import.as_ref().is_some_and(|import| import.tables.iter().all(|table| table.verified));
        let found =
            if is_equal { "read back equal" } else { "read back, some columns counted only (see the notes)" };
        format!("{amount} imported into \"{}\" and {found}, {checks}", report.database)
    }

    /// What the checks have to expect of every table.
    pub fn announced(&self, options: &RunOptions) -> Announced {
        let recreates = self.options.existing == Existing::Recreate;
        let filled: Vec<u32> = self.plan().tables.iter().map(|table| table.target.oid).collect();
        let fires = self.options.fire_triggers
            && self.plan().tables.iter().any(|table| !table.target.triggers.is_empty());
        Announced {
            rows: Box::new(move |oid| match filled.contains(&oid) {
                true if recreates => Expectation::MustAcknowledge { why: "--force-recreate".to_owned() },
                true => Expectation::NotFewer,
                false if fires => Expectation::Unknown { why: "triggers that fired".to_owned() },
                false => Expectation::Equal,
            }),
            limits: crate::run::loss_limits(options, &[]),
            accepted: Accepted::default(),
        }
    }

    /// Tables that were made, and whose keys and constraints were made after the last row of all.
    pub fn made(&self) -> HashSet<u32> {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        match (&self.way, &*done) {
            (Way::Make(_), Some(done)) => done.plan.tables.iter().map(|table| table.target.oid).collect(),
            _ => HashSet::new(),
        }
    }

    /// Loads everything into the transaction that is open in `session`.
    ///
    /// # Errors
    /// The first thing that keeps the import from being exact; the transaction has to be rolled back.
    pub async fn load(&self, context: &Context, session: &Session, log: &mut RunLog) -> Result<()> {
        let began = Instant::now();
        session.pin_settings().await?;
        // Whoever waits for a lock makes everybody behind wait too.
        let limit = format!("SET LOCAL lock_timeout = {}", context.options.lock_wait.timeout.as_millis());
        around::run(session, "set lock_timeout", &limit).await?;
        let plan = self.ready(context, session, log).await?;
        fault::point("safe-run.import-ready");
        log.timed("tables made ready", began);

        let began = Instant::now();
        let mut quarantine = Quarantine::new(log.journal.dir());
        let loaded = self.rows(context, session, (&plan, &mut quarantine), log).await;
        log.timed("rows", began);
        let (tables, before) = loaded?;
        fault::point("safe-run.import-loaded");
        self.source.file.unchanged()?;

        let began = Instant::now();
        if let Way::Make(made) = &self.way {
            made.after_rows(session, &context.progress).await?;
        }
        around::finish(session, &plan, self.options.fire_triggers).await?;
        let given_out =
            |table: &TablePlan| self.source.schema.tables.get(table.source).and_then(|t| t.autoincrement);
        log.report.notes.extend(around::set_sequences(session, &plan, given_out).await?);
        let stored = quarantine.store(session, &context.run).await?;
        if let (Some((name, path)), Some(report)) = (stored, log.report.import.as_mut()) {
            report.quarantined = quarantine.rows;
            report.quarantine_table = Some(name.short());
            report.quarantine_file = Some(common::ident::printable(&path.display().to_string()));
        }
        log.timed("keys, triggers and sequences", began);
        fault::point("safe-run.import-finished");
        *self.done.lock().unwrap_or_else(PoisonError::into_inner) = Some(Done { plan, tables, before });
        Ok(())
    }

    /// Makes the tables ready, behind the fence: they have to be what they were when the plan was made.
    async fn ready(&self, context: &Context, session: &Session, log: &mut RunLog) -> Result<Plan> {
        let recreates = self.options.existing == Existing::Recreate && !self.existing.is_empty();
        if let Some(sql) =
            around::lock_sql(self.plan(), recreates).filter(|_| matches!(self.way, Way::Into(_)))
        {
            around::lock(context, session, &sql).await?;
        }
        let there = target::read(session, &self.search_path).await?;
        let changed = || {
            Error::refused("the tables of the database were changed while the import was being prepared")
                .with_hint("Run the import again.")
        };
        let plan = match &self.way {
            Way::Into(planned) => {
                let plan = plan::plan(&self.source.schema, &there, &self.options).map_err(|_| changed())?;
                if plan != *planned {
                    return Err(changed());
                }
                // What the owners might have added before the lock.
                let used = rights::Use::with(self.options.existing, recreates);
                rights::refuse(session, &plan, &self.options, used).await?;
                let existing = around::existing_rows(session, &plan).await?;
                around::refuse_existing(&plan, &existing, self.options.existing, &self.limits)?;
                plan
            }
            Way::Make(made) => {
                if !there.tables.is_empty() {
                    return Err(changed());
                }
                made.before_rows(session).await?;
                let there = target::read(session, &self.search_path).await?;
                made.settle(&there)?
            }
        };
        log.report.notes.extend(plan.notes.iter().cloned());
        let notes = around::prepare(session, &plan, recreates, self.options.fire_triggers).await?;
        log.report.notes.extend(notes);
        Ok(plan)
    }

    /// The rows of all tables. After a bad value the rest is only looked at, so that all of them can be told.
    async fn rows(
        &self,
        context: &Context,
        session: &Session,
        (plan, quarantine): (&Plan, &mut Quarantine),
        log: &mut RunLog,
    ) -> Result<(Vec<Loaded>, Vec<Held>)> {
        let (mut tables, mut before) = (Vec::new(), Vec::new());
        let mut session = Some(session);
        context.progress.phase("importing rows", Some(self.source.digest.file_bytes));
        for table in &plan.tables {
            let began = Instant::now();
            context.progress.step(table.target.name.short());
            if let (Some(session), Existing::Append) = (session, self.options.existing) {
                before.push(verify::read_back(session, table, &context.progress).await?);
            }
            let loaded = self.table(session, table, quarantine, &context.progress).await?;
            fault::point("safe-run.import-table");
            if let Some(report) = &mut log.report.import {
                tell::note_table(report, table, &loaded, began.elapsed().as_secs_f64());
            }
            if loaded.bad_rows > 0 && self.options.bad_values == BadValues::Stop {
                session = None;
            }
            tables.push(loaded);
        }
        context.progress.done();
        match session {
            Some(_) => Ok((tables, before)),
            None => Err(tell::bad_values(plan, &tables)),
        }
    }

    /// One table. Rows that the server refuses, each by itself, are set aside too, if that was asked for.
    async fn table(
        &self,
        session: Option<&Session>,
        table: &TablePlan,
        quarantine: &mut Quarantine,
        progress: &common::Progress,
    ) -> Result<Loaded> {
        /// Each costs another attempt.
        const MOST_REFUSED: usize = 50;
        let sets_aside = self.options.bad_values == BadValues::Quarantine;
        let mut refused = BTreeMap::new();
        let savepoint = "\"safe-run: one table\"";
        loop {
            interrupt::check()?;
            let job = Job {
                table: self.source.schema.tables[table.source].clone(),
                plan: table.clone(),
                orphans: self.orphan_rows(table),
                null_orphans: self.options.orphans == Orphans::Null,
                sets_aside,
                // With savepoints the table was made in another subtransaction, which FREEZE refuses.
                freezes: matches!(self.way, Way::Make(_)) && !sets_aside,
                refused: refused.clone(),
            };
            let kept = quarantine.mark()?;
            if let (Some(session), true) = (session, sets_aside) {
                around::run(session, "set a savepoint", &format!("SAVEPOINT {savepoint}")).await?;
            }
            let readers = self.source.readers();
            let (readers, outcome) =
                load::load(session, readers, job, |aside| quarantine.add(&aside), progress).await?;
            self.source.give_back(readers);
            match (outcome, session) {
                (Outcome::Loaded(loaded), session) => {
                    if let (Some(session), true) = (session, sets_aside) {
                        around::run(
                            session,
                            "release a savepoint",
                            &format!("RELEASE SAVEPOINT {savepoint}"),
                        )
                        .await?;
                    }
                    return Ok(loaded);
                }
                (Outcome::Refused { error, row: Some(row) }, Some(session))
                    if sets_aside && refused.len() < MOST_REFUSED && !error.is_retryable() =>
                {
                    refused.insert(row, error.message().to_owned());
                    quarantine.rewind(kept)?;
                    let back = format!("ROLLBACK TO SAVEPOINT {savepoint}");
                    around::run(session, "go back to before a table", &back).await?;
                }
                (Outcome::Refused { error, .. }, _) => return Err(error),
            }
        }
    }

    /// The orphans of a table, their columns by their place in the plan.
    fn orphan_rows(&self, table: &TablePlan) -> OrphanRows {
        let mut rows = OrphanRows::default();
        for found in self.orphans.iter().filter(|found| found.source == table.source) {
            found.put_into(&mut rows, &table.columns);
        }
        rows
    }

    /// Reads everything back and compares it with what was read from the file.
    ///
    /// # Errors
    /// A table holds other rows than the file.
    pub async fn verify(&self, context: &Context, session: &Session, log: &mut RunLog) -> Result<()> {
        let began = Instant::now();
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Done { plan, tables, before }) = done else {
            return Err(Error::failed("nothing was loaded that could be compared"));
        };
        session.pin_settings().await?;
        context.progress.phase("reading the rows back", Some(self.source.digest.file_bytes));
        for (place, (table, loaded)) in plan.tables.iter().zip(&tables).enumerate() {
            interrupt::check()?;
            context.progress.step(table.target.name.short());
            let mut expected = Held { all: loaded.sent, comparable: loaded.comparable };
            if let Some(before) = before.get(place) {
                expected.all.merge(before.all);
                expected.comparable.merge(before.comparable);
            }
            let found = verify::read_back(session, table, &context.progress).await?;
            let only_counted = verify::compare(table, expected, found)?;
            if let Some(told) = log.report.import.as_mut().and_then(|report| report.tables.get_mut(place)) {
                told.verified = only_counted.is_none();
            }
            log.report.notes.extend(only_counted);
        }
        context.progress.done();
        log.timed("rows read back", began);
        Ok(())
    }
}
