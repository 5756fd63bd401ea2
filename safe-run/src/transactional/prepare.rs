//! What comes before the first change: the fence, the snapshot, and what the checks find. Whatever fails here has changed nothing.

use std::time::Instant;

use common::{
    Error, Result, fault,
    postgres::{
        Session,
        exported_snapshot::{ExportedSnapshot, LockMode, lock_all_tables},
    },
};

use crate::{
    precopy::{self, Precopy},
    run::{
        Baseline, Context, FenceChoice, RunLog, SnapshotChoice, SnapshotWhen, baseline, check_options,
        look_beside,
    },
};
use checks;

/// Begins the transaction in `migrator`, takes the snapshot, and gives back the state before the migration.
pub(super) async fn prepare(context: &Context, migrator: &Session, log: &mut RunLog) -> Result<Baseline> {
    let observer = context.connection.connect().await?;
    let first = precopy::pays(context, &observer).await?;
    let looks_first = first.is_some();
    let when = choose_when(context, &observer, log, first).await?;
    if when == Some(SnapshotWhen::Before) {
        let create = context.backup_options(None);
        let taken = backup::create(&context.connection, &context.repository, &create, &context.progress);
        let snapshot = log.phase("snapshot before the fence", taken).await?;
        log.took_snapshot(&snapshot)?;
    }
    let mut first = if looks_first { Some(precopy::take(context, log).await?) } else { None };
    let points = backup::reuse::points(&observer).await?;

    begin(context, migrator, &observer, log, first.as_mut()).await?;
    fault::point("safe-run.fenced");
    let fenced = context.options.fence != FenceChoice::None;
    let takes_snapshot = matches!(when, Some(SnapshotWhen::Fenced | SnapshotWhen::Precopy));
    let holder =
        if takes_snapshot && !fenced { Some(unfenced_holder(context, &observer).await?) } else { None };
    observer.close().await?;

    // The workers have to be gone before the migration begins: their locks would be in its way.
    let exported = ExportedSnapshot::export(holder.as_ref().unwrap_or(migrator)).await?.with_points(points);
    let snapshot =
        async { if takes_snapshot { context.snapshot(&exported, None).await.map(Some) } else { Ok(None) } };
    let found = async {
        let carried = match first.as_mut() {
            Some(first) => Some(first.carried(context, &exported).await?),
            None => None,
        };
        baseline(context, &exported, carried, fenced).await
    };
    let both = look_beside(&context.progress, found, snapshot).await;
    let ((mut found, checks_began, mut checks_took), (snapshot, began, took)) = both?;
    drop(exported);
    if fenced {
        let began = Instant::now();
        let options = check_options(&context.options);
        checks::add_functions(migrator, &options, &mut found.results).await?;
        checks_took += began.elapsed();
    }
    if let Some(holder) = holder {
        holder.close().await?;
    }
    if let Some(snapshot) = &snapshot {
        log.took("snapshot", began, took);
        log.took_snapshot(snapshot)?;
    }
    log.took("checks before", checks_began, checks_took);
    if let Some(first) = first {
        first.end(context, log, snapshot.as_ref(), &found);
    }
    Ok(found)
}

/// Begins the migration's transaction, with the locks of the fence in it.
async fn begin(
    context: &Context,
    migrator: &Session,
    observer: &Session,
    log: &mut RunLog,
    first: Option<&mut Precopy>,
) -> Result<()> {
    let begin = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
    if context.options.fence == FenceChoice::None {
        let begun = migrator.batch_execute(begin).await;
        begun.map_err(|source| Error::postgres("could not begin the transaction", source))?;
        log.report.protection.push("no fence: others may write while the migration runs".to_owned());
        return Ok(());
    }
    let (wait, progress) = (context.options.lock_wait, &context.progress);
    let locked = lock_all_tables(migrator, observer, begin, LockMode::Exclusive, wait, progress);
    first.into_iter().for_each(Precopy::fence_begins);
    log.phase("fence: EXCLUSIVE locks on all tables", locked).await?;
    log.fence_is_up();
    log.report
        .protection
        .push("fence lock: reads go on, writes wait for the end of the migration".to_owned());
    Ok(())
}

/// A session that has every table locked as a backup does, where no fence has: else one that is truncated while it is copied would
/// read as empty. It has to be gone before the migration begins.
async fn unfenced_holder(context: &Context, observer: &Session) -> Result<Session> {
    let holder = context.connection.connect().await?;
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    let (wait, progress) = (context.options.lock_wait, &context.progress);
    lock_all_tables(&holder, observer, begin, LockMode::AccessShare, wait, progress).await?;
    Ok(holder)
}

/// Whether and when to take the snapshot; the reason goes into the report. `looks_first`: why there is a first look before
/// the fence, if there is one.
async fn choose_when(
    context: &Context,
    observer: &Session,
    log: &mut RunLog,
    looks_first: Option<String>,
) -> Result<Option<SnapshotWhen>> {
    if context.options.snapshot == SnapshotChoice::None {
        log.report.protection.push("no snapshot: a ROLLBACK is the only undo".to_owned());
        if let Some(why) = looks_first {
            log.report.protection.push(format!("checks once before and once behind the fence: {why}"));
        }
        return Ok(None);
    }
    let expected = precopy::expected(&context.options, observer).await?.snapshot;
    let (when, why) = match (context.options.snapshot_when, looks_first) {
        (_, Some(why)) => (SnapshotWhen::Precopy, why),
        (SnapshotWhen::Before, None) => (SnapshotWhen::Before, "as told".to_owned()),
        (SnapshotWhen::Fenced, None) => (SnapshotWhen::Fenced, "as told".to_owned()),
        (SnapshotWhen::Auto | SnapshotWhen::Precopy, None) if expected <= precopy::FENCED_LIMIT => {
            (SnapshotWhen::Fenced, format!("it takes about {} s", expected.as_secs().max(1)))
        }
        (SnapshotWhen::Auto | SnapshotWhen::Precopy, None) => (
            SnapshotWhen::Before,
            format!(
                "behind the fence, writers would wait about {} s, and a ROLLBACK is exact without it",
                expected.as_secs()
            ),
        ),
    };
    let place = match when {
        SnapshotWhen::Fenced => "behind",
        SnapshotWhen::Precopy => "and checks once before and once behind",
        SnapshotWhen::Before | SnapshotWhen::Auto => "before",
    };
    log.report.protection.push(format!("snapshot {place} the fence: {why}"));
    Ok(Some(when))
}
