//! Changes what the history says, without running a migration: baseline, stamp, repair. One transaction, journaled like a
//! run. It must never touch anything but the history table.

use common::{
    Error, ErrorKind, Result, fault,
    format::plural,
    postgres::{Session, SessionProfile},
};

use crate::{
    history::Outcome,
    journal::{Mode, Step},
    report::{Report, Verdict},
    run::{Context, RunLog},
};
use sql::{migration::MigrationFile, version::Version};

/// What the history shall say.
#[derive(Debug, Clone)]
pub enum Change<'a> {
    /// Everything up to the version is applied; the files are those.
    Baseline(Version, Vec<&'a MigrationFile>),
    /// These are applied.
    Stamp(Vec<&'a MigrationFile>),
    /// These are as they are now (each with its version as recorded), and failed rows are gone.
    Repair(Vec<(&'a MigrationFile, String)>, bool),
}

impl Change<'_> {
    /// Lines for a person.
    pub fn describe(&self) -> Vec<String> {
        match self {
            Self::Baseline(version, files) if files.is_empty() => {
                vec![format!("everything up to {version} counts as applied")]
            }
            Self::Baseline(_, files) | Self::Stamp(files) => {
                files.iter().map(|file| format!("{} counts as applied", file.name())).collect()
            }
            Self::Repair(files, failed) => files
                .iter()
                .map(|(file, _)| format!("{}: its checksum is recorded as it is now", file.name()))
                .chain(failed.then(|| "failed migrations are taken out of the history".to_owned()))
                .collect(),
        }
    }

    fn count(&self) -> usize {
        match self {
            Self::Baseline(_, files) | Self::Stamp(files) => files.len(),
            Self::Repair(files, _) => files.len(),
        }
    }

    fn headline(&self, table: &str) -> String {
        match self {
            Self::Baseline(version, _) => format!("{table} says that everything up to {version} is applied"),
            Self::Stamp(files) => format!(
                "{table} says that {} applied",
                if let [only] = files.as_slice() {
                    format!("{} is", only.name())
                } else {
                    format!("{} are", plural(files.len() as u64, "migration", "migrations"))
                }
            ),
            Self::Repair(files, _) => format!(
                "{table} repaired: {} recorded anew",
                plural(files.len() as u64, "checksum", "checksums")
            ),
        }
    }
}

/// Makes the change; the report says what happened.
///
/// # Errors
/// Only what prevents a report: the journal can't be written. Everything else is in the report.
pub async fn run(context: &Context, change: &Change<'_>) -> Result<Report> {
    let what = change.describe().join("; ");
    let mut log = RunLog::begin(context, Mode::Transaction, what, change.count())?;
    fault::point("safe-run.begun");
    let session = match context.connection.connect_as(SessionProfile::Migration, None).await {
        Ok(session) => session,
        Err(error) => return Ok(failed(log, &error)),
    };
    let written = async {
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL search_path = ''; SET LOCAL lock_timeout = {}",
            context.options.lock_wait.timeout.as_millis()
        );
        session.batch_execute(&begin).await.map_err(|source| Error::postgres("could not begin", source))?;
        write(context, change, &session).await?;
        log.journal.write(Step::Committing { xid: session.assigned_xid().await? })
    };
    if let Err(error) = written.await {
        // A connection that is gone has rolled back; there is nothing else to undo.
        if let Err(second) = session.batch_execute("ROLLBACK").await {
            log.report.notes.push(format!("the ROLLBACK was not answered: {second}"));
        }
        return Ok(failed(log, &error));
    }
    fault::point("safe-run.before-commit");
    if let Err(source) = session.batch_execute("COMMIT").await {
        let error = Error::postgres("could not commit", source);
        let refused =
            error.sqlstate().is_some_and(|code| !code.starts_with("08") && !code.starts_with("57P"));
        if refused {
            return Ok(failed(log, &error));
        }
        log.fail(&error);
        log.report.state = format!("{} may or may not be changed", context.history.table.short());
        log.report.next.extend(crate::report::WAYS_OUT.map(str::to_owned));
        return Ok(log.finish(Verdict::Unknown, ErrorKind::Unknown.exit_code()));
    }
    fault::point("safe-run.after-commit");
    log.note_step(Step::Stands);
    log.report.headline = change.headline(&context.history.table.short());
    log.report.state = format!("nothing else in database \"{}\" was touched", log.report.database);
    Ok(log.finish(Verdict::Committed, 0))
}

fn failed(mut log: RunLog, error: &Error) -> Report {
    log.fail(error);
    log.report.state = format!("database \"{}\" unchanged", log.report.database);
    log.finish(Verdict::Failed, error.kind().exit_code())
}

async fn write(context: &Context, change: &Change<'_>, session: &Session) -> Result<()> {
    let history = &context.history;
    let outcome = Outcome::Marked { run: context.run.as_str() };
    match change {
        Change::Baseline(version, files) => {
            history.ensure(session).await?;
            if !history.baseline(session, version).await? {
                for file in files {
                    history.record(session, file, &outcome).await?;
                }
            }
        }
        Change::Stamp(files) => {
            history.ensure(session).await?;
            for file in files {
                history.clear(session, file).await?;
                history.record(session, file, &outcome).await?;
            }
        }
        Change::Repair(files, failed) => {
            for (file, recorded) in files {
                if history.repair(session, file, recorded).await? != 1 {
                    return Err(Error::failed(format!(
                        "{} has no single row for {}",
                        history.table.short(),
                        file.name()
                    )));
                }
            }
            if *failed {
                history.clear_all(session).await?;
            }
        }
    }
    Ok(())
}
