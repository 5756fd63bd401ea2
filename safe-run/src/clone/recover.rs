//! What `recover` does with the clone of a run that was killed.

use common::{
    Error, ErrorKind, Result, fault,
    postgres::{ConnectionSettings, Session, database},
};

use super::undo::{names_of_databases, not_as_before, ready, swap_in};
use crate::{
    database_clone::{DatabaseClone, Found, drop_clone, look},
    journal::{Journal, PastRun, Step},
    report::Verdict,
};

/// For `recover`: whether the clone had taken the database's place before the run died. Says so.
pub async fn took_its_place(
    settings: &ConnectionSettings,
    control: &Session,
    past: &PastRun,
    what: &mut Vec<String>,
) -> Result<bool> {
    let began = past.steps.iter().rev().find_map(|step| match step {
        Step::UndoingByClone { oid, kept_as } => Some((*oid, kept_as.clone())),
        _ => None,
    });
    let Some((oid, kept_as)) = began else { return Ok(false) };
    // Behind an exclusive fence the settings lead to the hidden name.
    let live = past.database().unwrap_or_else(|| settings.database());
    let stands = control
        .query_opt(
            "SELECT FROM pg_catalog.pg_database WHERE oid = $1 AND datname = ANY ($2)",
            &[&oid, &vec![live, settings.database()]],
        )
        .await
        .map_err(|source| Error::postgres("could not look up the clone", source))?;
    if stands.is_none() {
        return Ok(false);
    }
    what.push("its clone had taken the database's place".to_owned());
    say_kept(control, &kept_as, what).await.map(|()| true)
}

/// For `recover`: undoes the killed run by its clone. False when that is not the way.
pub async fn recover_by(
    settings: &ConnectionSettings,
    control: &Session,
    past: &PastRun,
    journal: &mut Journal,
    what: &mut Vec<String>,
) -> Result<bool> {
    let Some(mut clone) = DatabaseClone::of_run(past)? else { return Ok(false) };
    let mut began = None;
    for step in &past.steps {
        match step {
            Step::UndoingByClone { kept_as, .. } => began = Some(kept_as.clone()),
            // The clone could not be used, and the snapshot is the undo.
            Step::Undoing { .. } => return Ok(false),
            _ => {}
        }
    }
    if let Some(names) = past.hidden() {
        clone.kept_as = names.kept_as();
    }
    if let Some(kept_as) = began {
        clone.kept_as = kept_as;
    }
    let has_file = past.steps.iter().any(|step| matches!(step, Step::SnapshotTaken { .. }));
    let oid = match ready(control, &clone).await {
        Ok(oid) => oid,
        Err(error) if has_file => {
            what.push(format!("the clone could not be used, the snapshot is restored instead: {error}"));
            return Ok(false);
        }
        Err(error) => return Err(error.with_kind(ErrorKind::Unknown)),
    };
    journal.write(Step::UndoingByClone { oid, kept_as: clone.kept_as.clone() })?;
    fault::point("safe-run.recovering");
    let read_only = past.holds_fence() && past.hidden().is_none();
    swap_in(settings, &clone, read_only).await?;
    journal.write(Step::Undone)?;
    what.push(
        "it was killed while it changed the database: its clone took the database's place now".to_owned(),
    );
    let mut account = not_as_before(clone.differences(control, settings.database()).await, read_only);
    let live = past.hidden().map_or(settings.database().to_owned(), |names| names.live);
    account.add(names_of_databases(settings, &live, Some(&clone.kept_as)).await);
    what.extend(account.lines());
    say_kept(control, &clone.kept_as, what).await.map(|()| true)
}

async fn say_kept(control: &Session, kept_as: &str, what: &mut Vec<String>) -> Result<()> {
    if database::exists(control, kept_as).await? {
        what.push(format!("the half-changed state is kept as database \"{kept_as}\""));
    }
    Ok(())
}

/// For `recover`, at the end: what is left of a clone goes, unless it was to stay.
pub async fn recover_leftover(
    control: &Session,
    past: &PastRun,
    verdict: &str,
    what: &mut Vec<String>,
) -> Result<()> {
    let Some(clone) = DatabaseClone::of_run(past)? else { return Ok(()) };
    let found = look(control, &clone).await?;
    if found == Found::Nothing {
        return Ok(());
    }
    let is_kept = verdict == Verdict::Stopped.word() || (clone.keep && verdict == Verdict::Committed.word());
    if is_kept {
        what.push(format!("the clone \"{}\" of the state before is kept, closed", clone.name));
        what.extend(clone.by_hand());
        return Ok(());
    }
    match drop_clone(control, &clone).await? {
        None => what.push(format!("the clone \"{}\" was dropped", clone.name)),
        Some(why) => what.push(format!("the database \"{}\" was left: {why}", clone.name)),
    }
    fault::point("safe-run.clone-dropped");
    Ok(())
}
