//! What is done in the one transaction, between the checks before and the checks after: migration files, or the rows of a
//! SQLite file. The protection around it is the same.

use std::{collections::HashSet, time::Instant};

use common::{Error, Result, format::plural, postgres::Session};

use crate::{
    apply,
    attempts::{Failed, Waiting, until_locked},
    import::Import,
    lock_ahead,
    report::{Report, migrations::MigrationReport},
    run::{Announced, Baseline, Context, RunLog, RunOptions, announced, describe_files},
    statement_facts::Watch,
};
use sql::{
    migration::{MigrationFile, TransactionPlan},
    statement::locks::LockMode,
};

/// The work of one run.
#[derive(Debug)]
pub enum Work<'a> {
    /// Pending migrations, and the transactions that they need.
    Files(&'a [&'a MigrationFile], &'a TransactionPlan),
    /// The rows of a SQLite file.
    Import(&'a Import),
}

impl Work<'_> {
    /// What is going to run, for the journal.
    pub fn what(&self) -> String {
        match self {
            Self::Files(files, _) => describe_files(files),
            Self::Import(import) => import.what(),
        }
    }

    /// Migrations that are going to run.
    pub(super) fn pending(&self) -> usize {
        match self {
            Self::Files(files, _) => files.len(),
            Self::Import(_) => 0,
        }
    }

    /// Tells the report what is known of the work before it begins.
    pub(super) fn begun(&self, report: &mut Report) {
        if let Self::Import(import) = self {
            report.import = Some(import.report());
        }
    }

    /// Does it, in the transaction that is open in `migrator`.
    pub(super) async fn apply(
        &self,
        context: &Context,
        migrator: &Session,
        log: &mut RunLog,
        found: &Baseline,
        fenced: bool,
    ) -> Result<()> {
        match self {
            Self::Files(files, transactions) => {
                let mut watch = Watch::new(&found.results.tables, fenced);
                watch.prepare(migrator).await?;
                let began = Instant::now();
                let mut reports = Vec::new();
                let run = log.report.run.clone();
                let applying = context.applying(migrator, &run);
                let applied = apply_with_retries(
                    context,
                    applying,
                    (files, transactions),
                    fenced,
                    &mut reports,
                    &mut watch,
                )
                .await;
                log.outside = apply::effects_outside(files, &reports);
                log.applied(reports, began);
                applied
            }
            Self::Import(import) => import.load(context, migrator, log).await,
        }
    }

    /// Tables that the transaction made, and whose keys and constraints PostgreSQL made over all of their rows.
    pub(super) fn made(&self) -> HashSet<u32> {
        match self {
            Self::Files(..) => HashSet::new(),
            Self::Import(import) => import.made(),
        }
    }

    /// Whether the result is what it has to be, beside the checks of every run.
    pub(super) async fn verify(&self, context: &Context, migrator: &Session, log: &mut RunLog) -> Result<()> {
        match self {
            Self::Files(..) => Ok(()),
            Self::Import(import) => import.verify(context, migrator, log).await,
        }
    }

    /// What the checks have to expect.
    pub(super) fn announced(&self, options: &RunOptions, found: &Baseline) -> Announced {
        match self {
            Self::Files(files, _) => announced(options, files, found),
            Self::Import(import) => import.announced(options),
        }
    }

    /// What is good to do once it stands. Never fails the run.
    pub(super) async fn after_commit(&self, context: &Context, session: &Session, log: &mut RunLog) {
        if let Self::Import(import) = self {
            import.analyze(context, session, log).await;
        }
    }

    /// The sentence beside the verdict of a success.
    pub(super) fn succeeded(&self, report: &Report) -> String {
        let checks = report.checks_phrase();
        match self {
            Self::Files(..) => format!(
                "{} applied to \"{}\" in one transaction, {checks}",
                plural(report.migrations.len() as u64, "migration", "migrations"),
                report.database
            ),
            Self::Import(import) => import.succeeded(report, &checks),
        }
    }

    /// What a lost COMMIT may have made of the database.
    pub(super) fn all_or_none(&self) -> &'static str {
        match self {
            Self::Files(..) => "all of the migrations or none",
            Self::Import(_) => "everything that was imported or nothing of it",
        }
    }

    /// How far it came before it was rolled back.
    pub(super) fn had_run(&self, report: &Report) -> String {
        match self {
            Self::Files(..) => {
                let ran = report.migrations.iter().filter(|migration| migration.complete).count();
                format!("{ran} of {} migrations had run", report.pending)
            }
            Self::Import(_) => report.import.as_ref().map_or_else(String::new, |import| import.had_loaded()),
        }
    }
}

/// Where the transaction goes back to when a lock can't be had: the fence, the snapshot and the checks before stay valid,
/// and only what the statements did is taken back.
const SAVEPOINT: &str = "\"safe-run: before the first statement\"";

/// Runs the files, and once more from the first statement on when a lock could not be had in time.
async fn apply_with_retries(
    context: &Context,
    applying: apply::Applying<'_>,
    (files, transactions): (&[&MigrationFile], &TransactionPlan),
    fenced: bool,
    reports: &mut Vec<MigrationReport>,
    watch: &mut Watch,
) -> Result<()> {
    let migrator = applying.session;
    let savepoint = async |verb: &str| {
        let failed = |source| Error::postgres("could not set the savepoint before the migrations", source);
        migrator.batch_execute(&format!("{verb} {SAVEPOINT}")).await.map_err(failed)
    };
    savepoint("SAVEPOINT").await?;
    let wait = context.options.lock_wait;
    let held = fenced.then_some(LockMode::Exclusive);
    let waiting = Waiting { migrator, observer: &context.control, wait, progress: &context.progress };
    let restart = format!("ROLLBACK TO SAVEPOINT {SAVEPOINT}");
    if transactions.outside_savepoints {
        // Only the locks are waited for within it: what the files do must not stand in a savepoint, and is not tried again.
        let wanted = lock_ahead::wanted(files.iter().flat_map(|file| &file.statements));
        until_locked(&waiting, &restart, async || {
            let taken = lock_ahead::take(migrator, &wanted, held, wait.timeout).await;
            taken.map(drop).map_err(Failed::repeatable)
        })
        .await?;
        savepoint("RELEASE SAVEPOINT").await?;
        return apply::in_transaction(applying, files, held, reports, watch).await;
    }
    until_locked(&waiting, &restart, async || {
        reports.clear();
        let applied = apply::in_transaction(applying, files, held, reports, watch).await;
        applied.map_err(|error| {
            let repeatable = apply::effects_outside(files, reports).is_empty();
            Failed { error, repeatable }
        })
    })
    .await?;
    savepoint("RELEASE SAVEPOINT").await
}
