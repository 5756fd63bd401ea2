//! Writes that arrive after the snapshot while no fence keeps others out: a logical replication slot holds them from before
//! the snapshot on, and an undo saves them as a file that can be replayed.
//!
//! The slot is made before the snapshot, so nothing falls between; what the snapshot saw is left out by its list of
//! transactions, so nothing is there twice. After the undo's swap the slot still belongs to the failed database, whose
//! sessions have all been ended: what is read then is everything that was ever acknowledged. The slot is read as often as
//! need be and never advanced: a crash loses nothing. It is dropped once the file is durable, or nobody needs it; a slot that
//! is forgotten fills the server's disk, so it is in the journal before it is made.
//!
//! Only `test_decoding` is used. `pgoutput` would need a publication, which is an object of the database that the snapshot
//! would show, and one for all tables makes UPDATE and DELETE of tables without a key fail: the application would break.

mod attribution;
mod decoding;
mod known;
mod script;
mod statement;

use std::{
    fs::File,
    io::{BufReader, BufWriter, Seek, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use common::{
    Error, ErrorKind, Result, fault,
    files::{sync_dir, write_new_file},
    format::plural,
    ident::{printable, shell_word},
    interrupt,
    postgres::{ConnectionSettings, Session, exported_snapshot::ExportedSnapshot, introspect},
};
use futures_util::{StreamExt, pin_mut};

use attribution::Attribution;
use known::Known;
use script::{Script, Summary};

use crate::{
    journal::{Journal, Step, open_slot},
    own_writes::next_transaction,
    run::{Context, FenceChoice, RunLog},
};

/// The file in the run's folder.
pub const FILE: &str = "writes-after-snapshot.sql";

/// What the names of our slots begin with.
const PREFIX: &str = "safe_run_";

/// The plugin: every distribution has it beside the server.
const PLUGIN: &str = "test_decoding";

/// Longest time to wait for a slot. The server waits for the transactions that are open when it is made; nobody waits behind
/// it.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Everything that the slot holds, to the end of the log.
const CHANGES: &str = "SELECT data FROM pg_catalog.pg_logical_slot_peek_changes($1, NULL, NULL, 'include-xids', '1', \
    'include-timestamp', '1', 'skip-empty-xacts', '1')";

/// Writes something and waits until it is on the server's disk, and with it every commit that was acknowledged before, also
/// one that did not wait (`synchronous_commit = off`).
const FLUSH: &str = "BEGIN; SET LOCAL synchronous_commit = 'local'; \
    SELECT pg_catalog.pg_logical_emit_message(true, 'safe-run', ''); COMMIT";

/// The slot of a run: its time and its random end are enough to recognise it.
fn slot_name(run: &str) -> String {
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
    let wanted = next_transaction(session).await?;
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

/// The slot is there and the snapshot is taken: from which transaction on, and what the tables are like.
pub async fn snapshot_taken(
    context: &Context,
    log: &mut RunLog,
    holder: &Session,
    _: &ExportedSnapshot<'_>,
) -> Result<()> {
    if open_slot(log.journal.steps()).is_none() {
        return Ok(());
    }
    let row = holder
        .query_one("SELECT pg_catalog.pg_current_snapshot()::text", &[])
        .await
        .map_err(|source| Error::postgres("could not read the snapshot's transactions", source))?;
    Known::read(holder, &context.history.table).await?.store(log.journal.dir())?;
    log.journal.write(Step::SavingSince { snapshot: row.get(0) })
}

/// What was saved.
#[derive(Debug, Clone)]
pub struct Saved {
    path: PathBuf,
    summary: Summary,
    unlogged: Vec<String>,
}

impl Saved {
    /// What a person has to know of it.
    pub fn sentences(&self) -> Vec<String> {
        let summary = &self.summary;
        let mut list = vec![if summary.transactions() == 0 {
            "nobody else wrote since the snapshot, as far as the server's log tells: the file to replay is empty".to_owned()
        } else {
            format!(
                "what was written since the snapshot is saved: {} in {} ({} by others, {} unknown) in {}, which holds rows of \
                 the database",
                plural(summary.changes, "changed row", "changed rows"),
                plural(summary.transactions(), "transaction", "transactions"),
                summary.others,
                summary.unknown,
                self.path.display()
            )
        }];
        list.extend(script::sentences(summary));
        if !self.unlogged.is_empty() {
            let tables = self.unlogged.join(", ");
            list.push(format!("unlogged tables are not in the server's log, nor in the file: {tables}"));
        }
        list
    }

    /// How it is replayed.
    pub fn commands(&self, settings: &ConnectionSettings) -> Vec<String> {
        if self.summary.transactions() == 0 {
            return Vec::new();
        }
        vec![
            format!("replay it: {}", replay_command(settings, &self.path)),
            "then look for rows that refer to no row: safe-run check".to_owned(),
        ]
    }
}

/// The psql command, without a secret.
pub fn replay_command(settings: &ConnectionSettings, path: &Path) -> String {
    format!(
        "psql -X -q -o /dev/null -v ON_ERROR_STOP=1 -d {} -f {}",
        shell_word(&settings.without_application_name().redacted_url()),
        shell_word(&path.display().to_string())
    )
}

/// Where the writes are now, and which run they belong to.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// How to reach the database that has them.
    pub settings: &'a ConnectionSettings,
    /// A session on another database.
    pub control: &'a Session,
    /// The run's folder.
    pub dir: &'a Path,
    /// Its journal.
    pub steps: &'a [Step],
    /// The name that the file is for.
    pub database: &'a str,
}

/// Reads the slot to its end and writes the file; an earlier one is replaced. The slot stays.
///
/// # Errors
/// There is no file then, or the earlier one.
pub async fn save(source: Source<'_>) -> Result<Saved> {
    let Source { settings, control, dir, steps, database } = source;
    let lost = |why: &str| Error::failed(format!("the writes of others could not be saved: {why}"));
    let slot = open_slot(steps).ok_or_else(|| lost("there is no replication slot"))?;
    let attribution =
        Attribution::of(steps).ok_or_else(|| lost("the run's journal does not say from where on"))?;
    let known = Known::load(dir)?;
    let row = control
        .query_opt("SELECT wal_status FROM pg_catalog.pg_replication_slots WHERE slot_name = $1", &[&slot])
        .await
        .map_err(|source| Error::postgres("could not look up the replication slot", source))?;
    match row.map(|row| row.get::<_, Option<String>>(0)) {
        None => return Err(lost(&format!("the replication slot {slot} is gone"))),
        Some(Some(status)) if status == "lost" => {
            return Err(lost(&format!(
                "the server has removed the log that the replication slot {slot} needs (max_slot_wal_keep_size)"
            )));
        }
        Some(_) => {}
    }
    control
        .batch_execute(FLUSH)
        .await
        .map_err(|source| Error::postgres("could not wait for the server's log", source))?;
    let session = settings.connect().await?;
    let path = dir.join(FILE);
    let io = |source| Error::io("write", &path, source);
    // With the rows in it, it must be nobody else's either.
    let body = tempfile_in(dir)?;
    let mut script = Script::new(&known, &attribution, BufWriter::new(body));
    let rows = session
        .query_raw(CHANGES, [slot])
        .await
        .map_err(|source| Error::postgres("could not read the replication slot", source))?;
    pin_mut!(rows);
    while let Some(row) = rows.next().await {
        let row = row.map_err(|source| Error::postgres("could not read the replication slot", source))?;
        let text: &str = row.try_get(0).map_err(|_| {
            lost("its rows are in no encoding that can be read").with_kind(ErrorKind::Damaged)
        })?;
        script.line(&decoding::parse(text)?).map_err(io)?;
    }
    let (body, summary) = script.finish().map_err(io)?;
    let mut body = body.into_inner().map_err(|error| io(error.into_error()))?;
    let sequences = introspect::sequences(&session).await?;
    session.close().await?;
    let snapshot = steps.iter().find_map(|step| match step {
        Step::SnapshotTaken { id } => Some(id.as_str()),
        _ => None,
    });
    let run = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let heading = script::heading(&summary, database, &run, snapshot.unwrap_or_default());
    let ending = script::ending(&known.sequences, &sequences);
    write_new_file(&path, true, |mut file| {
        file.write_all(heading.as_bytes())
            .and_then(|()| body.rewind())
            .and_then(|()| std::io::copy(&mut BufReader::new(&mut body), &mut file))
            .and_then(|_| file.write_all(ending.as_bytes()))
            .map_err(io)
    })?;
    fault::point("safe-run.writes-saved");
    let unlogged = known.unlogged().map(|table| table.name.short()).collect();
    Ok(Saved { path, summary, unlogged })
}

fn tempfile_in(dir: &Path) -> Result<File> {
    common::files::nameless_file(dir)
}

fn stays(slot: &str, error: Error) -> Error {
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

/// The run is over and needs no slot any more. One that stays is no failure of the run, and said.
pub async fn end(log: &mut RunLog, control: &Session) {
    let Some(slot) = open_slot(log.journal.steps()).map(str::to_owned) else { return };
    match drop_slot(control, &slot).await {
        Ok(()) => {
            log.note_step(Step::SlotDropped);
            fault::point("safe-run.slot-dropped");
        }
        Err(error) => {
            log.report.notes.push(format!("{error}; it keeps the server's log and fills its disk"));
            log.report.next.push("drop it: safe-run recover".to_owned());
        }
    }
}

/// A run stops for a person: saves what was written so far, so that the person can look at it. The slot stays until the
/// person has decided, because others write on. Whether it does.
pub async fn preview(settings: &ConnectionSettings, control: &Session, log: &mut RunLog) -> bool {
    let Some(slot) = open_slot(log.journal.steps()).map(str::to_owned) else { return false };
    let dir = log.journal.dir().to_owned();
    let source =
        Source { settings, control, dir: &dir, steps: log.journal.steps(), database: settings.database() };
    match save(source).await {
        Ok(saved) => log.report.notes.extend(saved.sentences()),
        Err(error) => log.report.notes.push(error.to_string()),
    }
    log.report.notes.push(waits(&slot));
    true
}

/// That the slot can't stay for long.
pub fn waits(slot: &str) -> String {
    format!(
        "the replication slot {slot} holds what others go on writing, and the server's log with it, which fills the server's \
         disk: decide soon (safe-run recover --undo, or --keep)"
    )
}

/// After an undo: saves what the failed database, now called `kept_as`, was told since the snapshot, and drops the slot.
/// Sentences and commands for the report; nothing where nothing was saved from the beginning.
pub async fn settle(
    settings: &ConnectionSettings,
    control: &Session,
    kept_as: &str,
    journal: &mut Journal,
) -> (Vec<String>, Vec<String>) {
    let Some(slot) = open_slot(journal.steps()).map(str::to_owned) else { return Default::default() };
    let failed = settings.with_database(kept_as);
    let carried = restore::sequences_ahead::carry(&failed, settings, 0).await.err();
    let dir = journal.dir().to_owned();
    let source = Source {
        settings: &failed,
        control,
        dir: &dir,
        steps: journal.steps(),
        database: settings.database(),
    };
    let (mut what, mut next) = match save(source).await {
        Ok(saved) => (saved.sentences(), saved.commands(settings)),
        Err(error) => {
            let text = format!("{error}; those rows are in \"{}\" only", printable(kept_as));
            // A full disk or a broken connection: another attempt may succeed.
            if error.kind() != ErrorKind::Damaged && is_readable(control, &slot).await {
                let next = "save it once more: safe-run recover (or give it up: safe-run recover --keep)";
                return (vec![text, waits(&slot)], vec![next.to_owned()]);
            }
            (vec![text], Vec::new())
        }
    };
    what.push(match carried {
        None => "sequences stand ahead of the snapshot: keys of the saved rows are not given to new ones"
            .to_owned(),
        Some(error) => format!("new rows may get keys of rows that are saved for a replay: {error}"),
    });
    match drop_slot(control, &slot).await {
        Ok(()) => {
            if let Err(error) = journal.write(Step::SlotDropped) {
                what.push(format!("the journal could not be written: {error}"));
            }
            fault::point("safe-run.slot-dropped");
        }
        Err(error) => {
            what.push(error.to_string());
            next.push("drop it: safe-run recover".to_owned());
        }
    }
    (what, next)
}

/// Whether the slot still has what it was made for.
async fn is_readable(control: &Session, slot: &str) -> bool {
    let row = control
        .query_opt(
            "SELECT wal_status IS DISTINCT FROM 'lost' FROM pg_catalog.pg_replication_slots WHERE slot_name = $1",
            &[&slot],
        )
        .await;
    // Who can't be asked may have it.
    row.map_or(true, |row| row.is_some_and(|row| row.get(0)))
}

/// Removes the file of a run whose database is left as it is: it holds all of it.
pub fn remove_file(dir: &Path) -> Result<()> {
    let path = dir.join(FILE);
    match std::fs::remove_file(&path) {
        Ok(()) => sync_dir(dir),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Error::io("remove", &path, source)),
    }
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
