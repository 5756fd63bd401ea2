//! The clone takes the place of the failed database.

use std::time::Instant;

use common::{
    Account, Error, ErrorKind, Ident, Result, fault,
    ident::literal,
    postgres::{
        ConnectionSettings, Session,
        database::{self, SwapNames},
        regdatabase,
    },
};

use crate::{
    database_clone::{DatabaseClone, Found, look},
    fence::Fence,
    journal::Step,
    lower_fence::settle_fence,
    report::{Report, UndoReport, Verdict},
    run::{Context, RunLog, Stage},
};

/// What became of an undo by clone.
pub enum Undone {
    /// It is over.
    Yes(Box<Report>),
    /// Nothing was changed: there is a snapshot to restore.
    No(Box<RunLog>),
}

/// Puts the clone in the place of the failed database. With `is_last`, a failure is the end of the run as well.
pub(crate) async fn undo(
    context: &Context,
    mut log: RunLog,
    control: &Session,
    standing: &mut Option<Fence>,
    (stage, error): (Stage, &Error),
    is_last: bool,
) -> Result<Undone> {
    let Some(mut clone) = log.clone.take() else { return Ok(Undone::No(Box::new(log))) };
    if let Some(Fence::Exclusive { names, .. }) = standing {
        clone.kept_as = names.kept_as();
    }
    let began = Instant::now();
    context.progress.note(format!("undoing by the clone: {}", error.message()));
    let read_only = context.options.hold_fence && matches!(standing, Some(Fence::ReadOnly { .. }));
    let swapped = async {
        let oid = ready(control, &clone).await?;
        // On a full disk the undo goes on without its line, and that is said.
        log.note_step(Step::UndoingByClone { oid, kept_as: clone.kept_as.clone() });
        fault::point("safe-run.undoing-by-clone");
        swap_in(&context.connection, &clone, read_only).await
    };
    let replaced = match swapped.await {
        Ok(replaced) => replaced,
        Err(second) if is_last || second.kind() == ErrorKind::Unknown => {
            log.report.undo = Some(UndoReport {
                how: "clone",
                seconds: began.elapsed().as_secs_f64(),
                failed_database_kept_as: None,
                error: Some((&second).into()),
            });
            log.report.state = format!(
                "database \"{}\" holds what the failed run left behind{}; database \"{}\" is left as well",
                log.report.database,
                standing.as_ref().map_or(String::new(), |fence| format!(", and {}", fence.state())),
                clone.name
            );
            log.report.next.extend(crate::report::WAYS_OUT.map(str::to_owned));
            return Ok(Undone::Yes(Box::new(log.finish(Verdict::Unknown, ErrorKind::Unknown.exit_code()))));
        }
        Err(second) => {
            let text = format!("the clone could not be used, the snapshot is restored instead: {second}");
            context.progress.warn(text.clone());
            log.report.notes.push(text);
            log.clone = Some(clone);
            return Ok(Undone::No(Box::new(log)));
        }
    };
    fault::point("safe-run.undone");
    let seconds = began.elapsed().as_secs_f64();
    log.timed("undo: the clone swapped in", began);
    log.note_step(Step::Undone);
    let kept_as = replaced.then(|| clone.kept_as.clone());
    let differences = clone.differences(control, context.connection.database()).await;
    // Before the fence is lifted: behind the exclusive one our connection leads to a name that is gone then.
    let names = names_of_databases(&context.connection, &log.report.database, kept_as.as_deref()).await;
    let mut undo =
        UndoReport { how: "clone", seconds, failed_database_kept_as: kept_as.clone(), error: None };
    if let Some(error) = settle_fence(context, &mut log, control, standing.take(), kept_as.as_deref()).await {
        log.report.notes.push(format!("the fence could not be lifted: {error}"));
        log.report.next.extend(crate::report::WAYS_OUT.map(str::to_owned));
        undo.error = Some((&error).into());
        log.report.undo = Some(undo);
        return Ok(Undone::Yes(Box::new(log.finish(Verdict::Unknown, ErrorKind::Unknown.exit_code()))));
    }
    let report = &mut log.report;
    report.account = not_as_before(differences, read_only);
    report.account.add(names);
    let before = match report.account.is_whole() {
        true => "is as it was before".to_owned(),
        false => format!("has its rows of before{}", report.account.but()),
    };
    report.state = format!(
        "database \"{}\" {before} · its clone, made behind the fence and closed since, took its name; rows were not read again",
        report.database
    );
    if let Some(kept_as) = &kept_as {
        report.notes.push(format!("the failed state is kept as database \"{kept_as}\""));
        report.next.push(format!("when it is no longer needed: DROP DATABASE {}", Ident::new(&**kept_as)));
    }
    report.undo = Some(undo);
    Ok(Undone::Yes(Box::new(log.finish(Verdict::Restored, stage.exit_code_undone(error)))))
}

/// A role that the run renamed or dropped is the server's, and no undo of a database brings it back.
pub(super) fn not_as_before(differences: Result<Vec<String>>, held: bool) -> Account {
    match differences {
        Ok(differences) => {
            let differs = differences.iter().filter(|one| !(held && one.as_str() == "other settings"));
            let differs = differs.map(|one| format!("the database itself has {one}")).collect();
            Account { differs, ..Account::default() }
        }
        Err(error) => {
            let line = format!("the database's own settings could not be compared: {error}");
            Account { not_checked: vec![line], ..Account::default() }
        }
    }
}

/// Values that name the database that was replaced, which was `live` to everybody, whatever its fence called it.
pub(super) async fn names_of_databases(
    settings: &ConnectionSettings,
    live: &str,
    kept_as: Option<&str>,
) -> Account {
    let mut account = Account::default();
    let Some(kept_as) = kept_as else { return account };
    let found = async {
        let session = settings.connect().await?;
        let found = regdatabase::after_swap(&session, live, kept_as).await?;
        session.close().await.map(|()| found)
    };
    match found.await {
        Ok(found) => account.differs = found,
        Err(error) => account
            .not_checked
            .push(format!("whether values name the replaced database could not be found out: {error}")),
    }
    account
}

/// The clone's oid, if it may take the place of the database.
pub(super) async fn ready(control: &Session, clone: &DatabaseClone) -> Result<u32> {
    let (why, hint) = match look(control, clone).await? {
        Found::Closed(oid) => return Ok(oid),
        Found::Nothing => (
            "it is gone".to_owned(),
            "Somebody dropped or renamed it: psql -l lists what there is. Without it, restore an older snapshot.".to_owned(),
        ),
        // Nothing is changed before it has its mark, so the mark was there.
        Found::HalfMade => ("somebody took its comment away, which is its mark".to_owned(), by_hand_hint(clone)),
        Found::Foreign(why) => (why, by_hand_hint(clone)),
    };
    Err(Error::refused(format!("the clone \"{}\" can't be trusted: {why}", clone.name)).with_hint(hint))
}

fn by_hand_hint(clone: &DatabaseClone) -> String {
    format!(
        "Look into it by hand; if it is right, give it the database's name: ALTER DATABASE {} RENAME TO ….",
        common::ident::printable(&Ident::new(&*clone.name).to_string())
    )
}

/// Both renames, and what only the live database has, in one transaction. Whether a database had the name before.
pub(super) async fn swap_in(
    settings: &ConnectionSettings,
    clone: &DatabaseClone,
    read_only: bool,
) -> Result<bool> {
    let live = settings.database();
    let names =
        SwapNames { live: live.to_owned(), staged: clone.name.clone(), replaced: clone.kept_as.clone() };
    let name = Ident::new(live);
    let comment = clone.state.comment.as_deref().map_or("NULL".to_owned(), literal);
    let limit = clone.state.connection_limit;
    let mut then = vec![
        format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true CONNECTION LIMIT {limit}"),
        format!("COMMENT ON DATABASE {name} IS {comment}"),
    ];
    if read_only {
        then.push(format!(
            "ALTER DATABASE {name} SET default_transaction_read_only TO '{}'",
            database::FENCED
        ));
    }
    database::swap_and(settings, &names, &then).await
}
