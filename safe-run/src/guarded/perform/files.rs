//! Migration files, which are run by sessions of ours.

use std::sync::Arc;

use common::{
    Error, Result,
    postgres::{Session, SessionProfile},
};

use super::{super::Prepared, Place};
use crate::{
    apply,
    attempts::Waiting,
    own_writes::OwnWrites,
    run::{RunLog, Stage},
    statement_facts::Watch,
};
use sql::migration::{MigrationFile, TransactionPlan};

/// Runs the files as planned; the log has what became of each.
pub(super) async fn run(
    place: &Place<'_>,
    files: &[&MigrationFile],
    plan: &TransactionPlan,
    prepared: &Prepared,
    log: &mut RunLog,
) -> Result<(), (Stage, Error)> {
    let migration = |error| (Stage::Migration, error);
    let context = place.context;
    let session = connect(place).await.map_err(migration)?;
    let mut trace = apply::Trace { ours: OwnWrites::of(&mut log.journal), ..apply::Trace::default() };
    let mut watch = Watch::new(&prepared.baseline.results.tables, false);
    watch.prepare(&session).await.map_err(migration)?;
    let wait = context.options.lock_wait;
    let waiting = Waiting { migrator: &session, observer: place.control, wait, progress: &context.progress };
    let applying = context.applying(&session, &log.report.run);
    let began = applying.began;
    let applied = apply::as_planned(&waiting, applying, files, plan, &mut trace, &mut watch).await;
    let apply::Trace { reports, committed, notes, ours: _ } = trace;
    if applied.is_err() {
        log.outside = apply::effects_outside(files, &reports);
    }
    log.applied(reports, began);
    log.report.notes.extend(notes);
    let stage = if committed { Stage::Migration } else { Stage::Uncommitted };
    applied.map_err(|error| (stage, error))?;
    session.close().await.map_err(migration)
}

/// A session that the fence lets write.
async fn connect(place: &Place<'_>) -> Result<Session> {
    let notices = place.context.progress.clone();
    // What is in between may refuse the option; then it comes right after.
    let takes_options = place.settings.takes_options();
    let settings = if takes_options { &place.through } else { &place.settings };
    let session = settings
        .connect_as(
            SessionProfile::Migration,
            Some(Arc::new(move |notice| notices.note(format!("{notice}")))),
        )
        .await?;
    if !takes_options {
        let set = session.batch_execute("SET default_transaction_read_only = off").await;
        set.map_err(|source| Error::postgres("could not pass the fence", source))?;
    }
    Ok(session)
}
