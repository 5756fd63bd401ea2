//! Writes that arrive after the snapshot while no fence keeps others out: a logical replication slot holds them from before
//! the snapshot on, and an undo saves them as a file that can be replayed.
//!
//! The slot is made before the snapshot, so nothing falls between; what the snapshot saw is left out by its list of
//! transactions, so nothing is there twice. After the undo's swap the slot still belongs to the failed database, whose
//! sessions have all been ended: what is read then is everything that was ever acknowledged. The slot is read as often as
//! need be and never advanced: a crash loses nothing. It is dropped once the file is durable, or nobody needs it; a slot that
//! is forgotten fills the server's disk, so it is in the journal before it is made (docs/exactness.md, E14).
//!
//! Only `test_decoding` is used. `pgoutput` would need a publication, which is an object of the database that the snapshot
//! would show, and one for all tables makes UPDATE and DELETE of tables without a key fail: the application would break.

mod attribution;
mod decoding;
mod known;
mod script;
mod slot;
mod statement;

use std::{
    fs::File,
    io::{BufReader, BufWriter, Seek, Write},
    path::{Path, PathBuf},
};

use common::{
    Error, ErrorKind, Result, fault,
    files::{sync_dir, write_new_file},
    format::plural,
    ident::{printable, shell_word},
    postgres::{ConnectionSettings, Session, exported_snapshot::ExportedSnapshot, introspect},
};
use futures_util::{StreamExt, pin_mut};

use attribution::Attribution;
use known::Known;
use script::{Script, Summary};
use slot::is_readable;
pub use slot::{drop_slot, make_slot};

use crate::{
    journal::{Journal, Step, open_slot},
    run::{Context, RunLog},
};

/// The file in the run's folder.
pub const FILE: &str = "writes-after-snapshot.sql";

/// Everything that the slot holds, to the end of the log.
const CHANGES: &str = "SELECT data FROM pg_catalog.pg_logical_slot_peek_changes($1, NULL, NULL, 'include-xids', '1', \
    'include-timestamp', '1', 'skip-empty-xacts', '1')";

/// Writes something and waits until it is on the server's disk, and with it every commit that was acknowledged before, also
/// one that did not wait (`synchronous_commit = off`).
const FLUSH: &str = "BEGIN; SET LOCAL synchronous_commit = 'local'; \
    SELECT pg_catalog.pg_logical_emit_message(true, 'safe-run', ''); COMMIT";

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

/// Removes the file of a run whose database is left as it is: it holds all of it.
pub fn remove_file(dir: &Path) -> Result<()> {
    let path = dir.join(FILE);
    match std::fs::remove_file(&path) {
        Ok(()) => sync_dir(dir),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Error::io("remove", &path, source)),
    }
}
