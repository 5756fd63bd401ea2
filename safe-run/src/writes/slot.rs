//! The replication slot that holds what others write: made before the snapshot, dropped when nobody needs it.

use std::time::Duration;

use common::{
    Error, Result, fault,
    ident::printable,
    interrupt,
    postgres::{Session, sql},
};

use crate::{
    journal::Step,
    run::{Context, FenceChoice, RunLog},
};

/// What the names of our slots begin with.
const PREFIX: &str = "safe_run_";

/// The plugin: every distribution has it beside the server.
const PLUGIN: &str = "test_decoding";

/// Longest time to wait for a slot. The server waits for the transactions that are open when it is made; nobody waits behind
/// it.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// The slot of a run: its time and its random end are enough to recognise it.
pub(super) fn slot_name(run: &str) -> String {
    let (time, token) =
        (run.split('-').next().unwrap_or_default(), run.rsplit('-').next().unwrap_or_default());
    format!("{PREFIX}{time}_{token}")
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' })
        .collect()
}

/// Makes the slot where writes could be lost otherwise. That it can't be made is said, and stops nothing.
///
/// # Errors
/// Only the journal's, and a signal.
pub async fn make_slot(context: &Context, log: &mut RunLog) -> Result<()> {
    if context.options.fence != FenceChoice::None || !context.options.snapshot.has_file() {
        return Ok(());
    }
    let session = &context.control;
    let row = session
        .query_one("SELECT pg_catalog.current_setting('wal_level')", &[])
        .await
        .map_err(|source| Error::postgres("could not read wal_level", source))?;
    let level: String = row.get(0);
    // A slot makes it logical for as long as there is one (effective_wal_level).
    let becomes_logical = session.server_major() >= 19 && level == "replica";
    if level != "logical" && !becomes_logical {
        let text = format!("writes of others are not saved: wal_level is {level}, not logical");
        log.report.protection.push(text);
        return Ok(());
    }
    let slot = slot_name(&log.report.run);
    log.journal.write(Step::MakingSlot { slot: slot.clone() })?;
    fault::point("safe-run.slot-making");
    context.progress.phase("making a replication slot", None);
    let limit = |millis: u128| format!("SET statement_timeout = {millis}");
    let open_for_long = || {
        format!(
            "transactions were open for longer than {} s, and a replication slot waits for their end",
            LONGEST_WAIT.as_secs()
        )
    };
    let made = async {
        let failed = |source| Error::postgres("no replication slot", source);
        session.batch_execute(&limit(LONGEST_WAIT.as_millis())).await.map_err(failed)?;
        let made = session
            .query_one("SELECT pg_catalog.pg_create_logical_replication_slot($1, $2)", &[&slot, &PLUGIN])
            .await;
        session.batch_execute(&limit(0)).await.map_err(failed)?;
        made.map_err(failed)?;
        fault::point("safe-run.slot-made");
        if !has_settled(session).await? {
            return Err(Error::busy(open_for_long()));
        }
        Ok(())
    };
    let made = made.await;
    context.progress.done();
    match made {
        Ok(()) => {
            log.report.protection.push(format!(
                "writes of others are kept by the replication slot {slot} until the run is over, and saved if it is undone"
            ));
            Ok(())
        }
        Err(error) => {
            interrupt::check()?;
            // A connection that broke may have left it.
            drop_slot(session, &slot).await?;
            let why = match error.sqlstate() {
                _ if !is_plugin_allowed(session).await => {
                    format!("the server's setting output_plugin_libraries does not name {PLUGIN}")
                }
                Some("42501") => "the role lacks REPLICATION".to_owned(),
                Some("53400") => "no replication slot is free (max_replication_slots)".to_owned(),
                Some("58P01") => format!("the server lacks the plugin {PLUGIN} (contrib)"),
                Some("57014") => open_for_long(),
                _ => error.to_string(),
            };
            let text = format!("what others write meanwhile is compared, but not saved for a replay: {why}");
            context.progress.warn(text.clone());
            log.report.notes.push(text);
            log.journal.write(Step::SlotDropped)
        }
    }
}

/// Whether slots may have the plugin: from 14.24, 15.19, 16.15, 17.11 and 18.6 on, a setting says which may.
async fn is_plugin_allowed(session: &Session) -> bool {
    let row =
        session.query_one("SELECT pg_catalog.current_setting('output_plugin_libraries', true)", &[]).await;
    // What can't be asked is not the reason.
    let list: Option<String> = row.ok().and_then(|row| row.get(0));
    list.is_none_or(|list| list.split(',').any(|name| name.trim().trim_matches('"') == PLUGIN))
}

/// Waits until every transaction that was open when the slot had been made has ended; false if that takes too long.
///
/// A transaction is in the log before others can see it: in between it waits, maybe for a standby. One that was logged before
/// the slot's beginning and is not yet visible to the snapshot would be in neither.
async fn has_settled(session: &Session) -> Result<bool> {
    const PAUSE: Duration = Duration::from_millis(20);
    // Every transaction in progress has an earlier id than one that is drawn now.
    let row = session
        .query_one(sql::DRAW_XID, &[])
        .await
        .map_err(|source| Error::postgres("could not draw a transaction's id", source))?;
    let wanted = row.get::<_, i64>(0).unsigned_abs();
    let began = std::time::Instant::now();
    while began.elapsed() < LONGEST_WAIT {
        let row = session
            .query_one("SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text", &[])
            .await
            .map_err(|source| Error::postgres("could not read the oldest transaction's id", source))?;
        if row.get::<_, String>(0).parse::<u64>().is_ok_and(|oldest| oldest >= wanted) {
            return Ok(true);
        }
        interrupt::check()?;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(false)
}

pub(super) fn stays(slot: &str, error: Error) -> Error {
    error.with_hint(format!(
        "It keeps the server's log and fills its disk: SELECT pg_drop_replication_slot('{slot}')"
    ))
}

/// Drops the slot, wherever the database stands now; one that is gone is fine. Nobody else's is ever dropped.
pub async fn drop_slot(control: &Session, slot: &str) -> Result<()> {
    if !slot.starts_with(PREFIX) {
        return Err(Error::damaged(format!("\"{}\" is not the name of a slot of ours", printable(slot))));
    }
    let mut attempts = 50;
    loop {
        let dropped = control
            .batch_execute(&format!(
                "SELECT pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots \
                 WHERE slot_name = {}",
                common::ident::literal(slot)
            ))
            .await
            .map_err(|source| {
                stays(slot, Error::postgres(format!("could not drop the replication slot {slot}"), source))
            });
        attempts -= 1;
        match dropped {
            // Its last reader has not gone yet.
            Err(error) if error.sqlstate() == Some("55006") && attempts > 0 => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            // A cancel request that was sent for an earlier statement.
            Err(error) if error.sqlstate() == Some("57014") && attempts > 0 => {}
            // Somebody was quicker.
            Err(error) if error.sqlstate() == Some("42704") => return Ok(()),
            dropped => return dropped,
        }
    }
}

/// Whether the slot still has what it was made for.
pub(super) async fn is_readable(control: &Session, slot: &str) -> bool {
    let row = control
        .query_opt(
            "SELECT wal_status IS DISTINCT FROM 'lost' FROM pg_catalog.pg_replication_slots WHERE slot_name = $1",
            &[&slot],
        )
        .await;
    // Who can't be asked may have it.
    row.map_or(true, |row| row.is_some_and(|row| row.get(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_that_stays_is_told_with_the_statement_that_drops_it() {
        let error = stays("safe_run_x", Error::busy("it is in use"));
        assert_eq!(
            error.hint(),
            Some(
                "It keeps the server's log and fills its disk: SELECT pg_drop_replication_slot('safe_run_x')"
            )
        );
    }

    #[test]
    fn a_slot_is_named_after_its_run_and_fits() {
        let long = format!("20261121T034149Z-{}-7f3k9q", "x-y_z".repeat(30));
        for run in ["20261121T034149Z-shop-7f3k9q", long.as_str()] {
            assert_eq!(slot_name(run), "safe_run_20261121t034149z_7f3k9q");
        }
    }
}
