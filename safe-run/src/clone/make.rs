//! Makes the clone: what can't be copied, or given to the copy, is refused before anything runs.

use std::time::Instant;

use chrono::Utc;
use common::{
    Error, Result,
    catalog::DatabaseState,
    fault,
    ident::with_suffix,
    interrupt,
    postgres::{Session, database, database_copy, known_settings},
    random, server_space,
    snapshot::readme::database_statements,
};

use crate::{
    database_clone::{DatabaseClone, Found, drop_clone, look, unlike},
    journal::Step,
    run::{Context, RunLog, RunOptions, SnapshotChoice},
};

/// Refuses, before anybody's session is ended, what can't be copied or would be left behind by the swap.
pub async fn refuse_obstacles(context: &Context, control: &Session) -> Result<()> {
    let database = context.connection.database();
    let mut reasons = database::swap_obstacles(control, database).await?;
    let prepared = database::prepared_transactions(control, database).await?;
    reasons.extend(prepared.iter().map(|gid| format!("prepared transaction {gid}")));
    let row = control
        .query_one("SELECT d.datistemplate FROM pg_catalog.pg_database d WHERE d.datname = $1", &[&database])
        .await
        .map_err(|source| Error::postgres("could not look up the database", source))?;
    if row.get(0) {
        reasons.push("it is a template database".to_owned());
    }
    reasons.extend(database::lacks_to_swap(control, database).await?);
    let unchanged = || format!("The database \"{database}\" was not changed.");
    if !reasons.is_empty() {
        return Err(Error::refused(format!(
            "the database \"{database}\" can't be undone by a clone: {}",
            reasons.join("; ")
        ))
        .with_hint("Change what is named, or use --snapshot file.")
        .with_database_state(unchanged()));
    }
    let (text, is_too_little) = room(context, control).await?;
    if is_too_little && !context.options.skip_space_check {
        return Err(no_room(&text).with_database_state(unchanged()));
    }
    context.progress.note(format!("the clone {text}; the server makes two checkpoints for it"));
    Ok(())
}

/// What the clone needs on the disk of each tablespace, and whether that is clearly more than there is.
async fn room(context: &Context, control: &Session) -> Result<(String, bool)> {
    let failed = |source| Error::postgres("could not read the size of the database", source);
    let row = context
        .control
        .query_one(
            "SELECT pg_catalog.pg_database_size(d.oid), t.spcname::text FROM pg_catalog.pg_database d
             JOIN pg_catalog.pg_tablespace t ON t.oid = d.dattablespace WHERE d.datname = pg_catalog.current_database()",
            &[],
        )
        .await
        .map_err(failed)?;
    let (total, default): (i64, String) = (row.get(0), row.get(1));
    // From the planner's numbers, which need no lock: nobody may be kept waiting for an estimate.
    let rows = context
        .control
        .query(
            "SELECT t.spcname::text, pg_catalog.sum(GREATEST(c.relpages, 0)::bigint
                    * pg_catalog.current_setting('block_size')::bigint)::bigint
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_tablespace t ON t.oid = c.reltablespace
             WHERE t.spcname <> 'pg_global' GROUP BY 1",
            &[],
        )
        .await
        .map_err(failed)?;
    let mut parts: Vec<(String, u64)> =
        rows.iter().map(|row| (row.get(0), row.get::<_, i64>(1).unsigned_abs())).collect();
    let elsewhere: u64 = parts.iter().map(|(_, bytes)| bytes).sum();
    parts.insert(0, (default, total.unsigned_abs().saturating_sub(elsewhere)));
    let mut texts = Vec::new();
    let mut is_too_little = false;
    for (tablespace, bytes) in parts {
        let (text, too_little) =
            server_space::compare(bytes, &server_space::look(control, &tablespace).await);
        texts.push(text);
        is_too_little |= too_little;
    }
    Ok((texts.join("; "), is_too_little))
}

/// The clone's name, and that of the database which an undo replaces.
fn names(live: &str, stamp: &str) -> [String; 2] {
    ["clone", "replaced"].map(|kind| with_suffix(live, &format!("_{kind}_{stamp}")))
}

/// The time, and a number where an earlier run of the same second has taken the names.
async fn free_stamp(control: &Session, live: &str) -> Result<String> {
    let time = Utc::now().format("%Y%m%d_%H%M%S").to_string();
    let mut stamp = time.clone();
    let mut number = 1;
    loop {
        let [clone, kept_as] = names(live, &stamp);
        if !database::exists(control, &clone).await? && !database::exists(control, &kept_as).await? {
            return Ok(stamp);
        }
        number += 1;
        stamp = format!("{time}_{number}");
    }
}

/// Makes the clone if one is wanted, and gives the context with which to go on: every session of the database has ended.
///
/// # Errors
/// There is no clone then.
pub async fn make(
    context: &Context,
    control: &Session,
    log: &mut RunLog,
    state: &DatabaseState,
) -> Result<Option<Context>> {
    if !context.options.snapshot.has_clone() {
        return Ok(None);
    }
    make_now(context, control, log, state).await.map(Some)
}

/// Makes the clone; see [`make`].
///
/// # Errors
/// There is no clone then.
pub async fn make_now(
    context: &Context,
    control: &Session,
    log: &mut RunLog,
    state: &DatabaseState,
) -> Result<Context> {
    interrupt::check()?;
    let live = log.report.database.clone();
    let stamp = free_stamp(control, &live).await?;
    let [name, kept_as] = names(&live, &stamp);
    let clone = DatabaseClone {
        name,
        kept_as,
        token: i32::try_from(random::bits()? % 0x7fff_0000).unwrap_or_default() + 0xffff,
        run: log.report.run.clone(),
        keep: context.options.keep_clone,
        state: state.clone(),
    };
    clone.write(log.journal.dir())?;
    log.journal.write(Step::Cloning { clone: clone.name.clone() })?;
    fault::point("safe-run.cloning");
    let began = Instant::now();
    context.progress.phase(format!("cloning the database to \"{}\"", clone.name), None);
    let made = fill(context, control, &clone).await;
    context.progress.done();
    let connection = context.connection.clone();
    let made = match made {
        // Our session has ended with all others.
        Ok(()) => crate::take_control(&connection).await,
        Err(error) => Err(error),
    };
    let control_session = match made {
        Ok(session) => session,
        Err(error) => {
            let _guard = interrupt::begin_undo().await;
            let error = match drop_clone(control, &clone).await {
                Ok(None) => error,
                Ok(Some(why)) => error.context(format!("\"{}\" was left: {why}", clone.name)),
                Err(second) => error.context(format!("the clone \"{}\" is left ({second})", clone.name)),
            };
            return Err(error.with_database_state(format!("The database \"{live}\" was not changed.")));
        }
    };
    log.timed("clone of the database", began);
    log.report.protection.push(format!(
        "clone \"{}\": a copy by files, made while nobody was connected; it accepts no connection",
        clone.name
    ));
    log.clone = Some(clone);
    fault::point("safe-run.cloned");
    let snapshot = match context.options.snapshot {
        SnapshotChoice::File | SnapshotChoice::Auto => SnapshotChoice::Both,
        chosen => chosen,
    };
    Ok(Context {
        connection,
        control: control_session,
        repository: context.repository.clone(),
        options: RunOptions { snapshot, ..context.options.clone() },
        progress: context.progress.clone(),
        run: context.run.clone(),
        proof: context.proof.clone(),
        history: context.history.clone(),
        invocation: context.invocation.clone(),
    })
}

fn no_room(text: &str) -> Error {
    Error::refused(format!("the clone {text}"))
        .with_hint("Make room, use --snapshot file, or try all the same with --skip-space-check.")
}

/// Copies, and gives the copy what a copy does not carry, so that what can't be given is found out now.
async fn fill(context: &Context, control: &Session, clone: &DatabaseClone) -> Result<()> {
    database_copy::copy(&context.connection, &clone.order(context.connection.database())).await?;
    fault::point("safe-run.clone-made");
    let marked =
        DatabaseState { comment: Some(clone.marker()), connection_limit: clone.token, ..clone.state.clone() };
    known_settings::know(control, &marked.settings).await?;
    // One transaction: a clone with its marker is complete.
    let statements = database_statements(&marked, &clone.name).join("; ");
    control.batch_execute(&statements).await.map_err(|source| {
        let doing = format!("could not give the clone \"{}\" the database's settings", clone.name);
        unlike(Error::postgres(doing, source))
    })?;
    let differences = clone.differences(control, &clone.name).await?;
    if !differences.is_empty() {
        return Err(unlike(Error::failed(format!(
            "the clone \"{}\" is not like the database: {}",
            clone.name,
            differences.join("; ")
        ))));
    }
    match look(control, clone).await? {
        Found::Closed(_) => Ok(()),
        other => Err(Error::failed(format!("the clone \"{}\" is not as it was made: {other:?}", clone.name))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_without_room_or_without_all_that_belongs_to_the_database_is_refused() {
        let room = no_room("needs 2 GB, and 1 GB is free");
        assert_eq!(
            (room.kind(), room.message()),
            (common::ErrorKind::Refused, "the clone needs 2 GB, and 1 GB is free")
        );
        assert_eq!(
            room.hint(),
            Some("Make room, use --snapshot file, or try all the same with --skip-space-check.")
        );
        let other = unlike(Error::failed("other settings"));
        assert_eq!(other.kind(), common::ErrorKind::Refused);
        assert_eq!(other.hint(), Some("Use --snapshot file, or run it as a superuser."));
    }
}
