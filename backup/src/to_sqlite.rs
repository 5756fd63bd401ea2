//! `backup export SNAPSHOT --sqlite FILE`: a snapshot as a SQLite database, without a server.
//!
//! The order of steps is the safety argument: everything is written into a file that nobody knows, read back from it, and compared with
//! the snapshot's own rows; only then it is made durable and gets its name. Whatever fails before leaves nothing.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, mpsc},
};

use common::{
    Error, Progress, QualifiedName, Result,
    cli::{Output, output::Tone},
    digest, fault,
    files::{free_space, open_plain, read_plain, replace_private_file, sync_dir},
    format, interrupt,
    repository::{StoredSnapshot, output_file::settle},
    snapshot::{
        Manifest, archive,
        chunk_reader::ChunkReader,
        manifest::{MAX_SCHEMA_BYTES, SCHEMA_FILE},
        pattern::Pattern,
    },
};
use serde::Serialize;
use sqlite::{
    export::{
        Batch, Encoding, ExportPlan, Filled, InterruptHandle, LineError, Lines, TableDesign, Writer, plan,
        read_back,
    },
    hash::Fingerprint,
};

/// Batches of rows that wait to be written. A batch has 256 KiB, or one row that is larger: few of them bound the memory.
const WAITING: usize = 2;

/// What `--json` says.
#[derive(Serialize)]
struct Exported<'a> {
    id: &'a str,
    file: String,
    bytes: u64,
    rows: u64,
    /// Every row was read back from the file and compared with the snapshot's own.
    verified: bool,
    tables: Vec<ExportedTable>,
    indexes: usize,
    views: usize,
    untranslated: Vec<Missing<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    untranslated_file: Option<String>,
    notes: &'a [String],
}

#[derive(Serialize)]
struct ExportedTable {
    source: String,
    name: String,
    rows: u64,
    strict: bool,
}

#[derive(Serialize)]
struct Missing<'a> {
    what: &'a str,
    reason: &'a str,
}

struct Finished {
    plan: ExportPlan,
    rows: Vec<u64>,
    bytes: u64,
}

/// Runs the export. The caller holds the repository's lock.
pub async fn export(
    file: &Path,
    patterns: &[String],
    snapshot: StoredSnapshot,
    output: &Output,
) -> Result<u8> {
    if file == Path::new("-") {
        return Err(Error::usage("a SQLite database is a file, and can't be written to stdout"));
    }
    let id = snapshot.manifest.id.clone();
    let settled = settle("--sqlite", file)?;
    let progress = output.progress();
    let handle: Arc<OnceLock<InterruptHandle>> = Arc::default();
    let job = Job {
        selected: select(&snapshot.manifest, patterns)?,
        snapshot,
        beside: beside(&settled),
        file: settled,
        progress: progress.clone(),
        handle: handle.clone(),
    };
    let mut task = tokio::task::spawn_blocking(move || job.run());
    let finished = loop {
        tokio::select! {
            done = &mut task => {
                break done.map_err(|source| Error::failed(format!("the export died: {source}")))??;
            }
            () = tokio::time::sleep(std::time::Duration::from_millis(100)) => {
                // The work looks for signals itself, but for a long statement; it is waited for, since it takes its file away.
                if interrupt::check().is_err() && let Some(handle) = handle.get() {
                    handle.interrupt();
                }
            }
        }
    };
    progress.done();
    tell(&finished, id.as_str(), file, output)?;
    Ok(0)
}

/// The file of what has no translation.
fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".untranslated.sql");
    PathBuf::from(name)
}

fn tell(finished: &Finished, id: &str, file: &Path, output: &Output) -> Result<()> {
    let Finished { plan, rows, bytes } = finished;
    let all: u64 = rows.iter().sum();
    let listed = (!plan.untranslated.is_empty()).then(|| beside(file).display().to_string());
    if output.is_json() {
        return output.document(&Exported {
            id,
            file: file.display().to_string(),
            bytes: *bytes,
            rows: all,
            verified: true,
            tables: plan
                .tables
                .iter()
                .zip(rows)
                .map(|(table, rows)| ExportedTable {
                    source: table.source.to_string(),
                    name: table.name.clone(),
                    rows: *rows,
                    strict: table.is_strict,
                })
                .collect(),
            indexes: plan.indexes.len(),
            views: plan.views.len(),
            untranslated: plan
                .untranslated
                .iter()
                .map(|missing| Missing { what: &missing.what, reason: &missing.reason })
                .collect(),
            untranslated_file: listed,
            notes: &plan.notes,
        });
    }
    output.say(&format!(
        "{} {id}: {}, {}, {} as SQLite; every row read back and compared",
        output.paint(Tone::Good, "EXPORTED"),
        format::plural(plan.tables.len() as u64, "table", "tables"),
        format::plural(all, "row", "rows"),
        format::bytes(*bytes)
    ));
    for note in &plan.notes {
        output.say(&format!("         {note}"));
    }
    if let Some(listed) = listed {
        let count = format::plural(plan.untranslated.len() as u64, "object has", "objects have");
        output.say(&format!("         {count} no translation; {listed} lists them with the reasons"));
    }
    output.data(&format!("{}\n", file.display()))
}

/// The tables and partitioned tables that are meant.
fn select(manifest: &Manifest, patterns: &[String]) -> Result<BTreeSet<QualifiedName>> {
    let without_rows = manifest.partial.iter().flat_map(|partial| &partial.without_rows);
    let names: Vec<&QualifiedName> = manifest
        .tables
        .iter()
        .map(|table| &table.table.name)
        .chain(manifest.partitioned.iter().map(|table| &table.name))
        .chain(without_rows)
        .collect();
    if patterns.is_empty() {
        return Ok(names.into_iter().cloned().collect());
    }
    let mut selected = BTreeSet::new();
    for pattern in patterns {
        selected.extend(Pattern::table(pattern)?.find(&names)?.into_iter().cloned());
    }
    Ok(selected)
}

/// What the work needs on its own thread.
struct Job {
    snapshot: StoredSnapshot,
    selected: BTreeSet<QualifiedName>,
    file: PathBuf,
    beside: PathBuf,
    progress: Progress,
    handle: Arc<OnceLock<InterruptHandle>>,
}

impl Job {
    fn run(self) -> Result<Finished> {
        self.nothing_there()?;
        let dir =
            self.file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
        let manifest = &self.snapshot.manifest;
        let encoding = Encoding::parse(&manifest.database.encoding).ok_or_else(|| {
            Error::refused(format!(
                "the rows of this snapshot are in the encoding {}, and only UTF8, SQL_ASCII and LATIN1 are exported",
                manifest.database.encoding
            ))
        })?;
        let mut plan = self.plan(encoding)?;
        let raw_bytes = self.raw_bytes(&plan);
        check_space(&dir, &self.file, raw_bytes)?;
        let prefix = format!(".{}.incomplete-", self.file.file_name().unwrap_or_default().to_string_lossy());
        let temporary = tempfile::Builder::new()
            .prefix(&prefix)
            .tempfile_in(&dir)
            .map_err(|source| Error::io("write in", &dir, source))?;
        // For as long as it is locked, no other export takes it for one that was left.
        temporary
            .as_file()
            .try_lock()
            .map_err(|source| Error::io("lock", temporary.path(), source.into()))?;
        sweep(&dir, &prefix)?;
        let written = self.write(temporary.path(), &mut plan, encoding, raw_bytes)?;
        self.compare(temporary.path(), &plan, &written, raw_bytes)?;
        fault::point("export-compared");
        self.publish(temporary, &dir, &plan)?;
        let bytes = self.file.metadata().map_err(|source| Error::io("look at", &self.file, source))?.len();
        Ok(Finished { plan, rows: written.iter().map(|fingerprint| fingerprint.rows).collect(), bytes })
    }

    /// Neither the file nor anything that SQLite would take for a part of it: a journal of an earlier file would be played back into ours.
    fn nothing_there(&self) -> Result<()> {
        let named = |suffix: &str| {
            let mut name = self.file.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        let paths = [self.file.clone(), self.beside.clone(), named("-journal"), named("-wal"), named("-shm")];
        match paths.iter().find(|path| path.symlink_metadata().is_ok()) {
            Some(path) => Err(exists(path)),
            None => Ok(()),
        }
    }

    /// Reads the archive of the schema, which has to be what the manifest says.
    fn plan(&self, encoding: Encoding) -> Result<ExportPlan> {
        let manifest = &self.snapshot.manifest;
        let path = self.snapshot.path(SCHEMA_FILE);
        let entry = manifest
            .files
            .iter()
            .find(|file| file.path == SCHEMA_FILE)
            .ok_or_else(|| Error::damaged(format!("snapshot {} has no {SCHEMA_FILE}", manifest.id)))?;
        let bytes = read_plain(&path, entry.bytes.min(MAX_SCHEMA_BYTES))
            .map_err(|source| Error::io("read", &path, source).with_kind(common::ErrorKind::Damaged))?;
        if digest::sha256_hex(&bytes) != entry.sha256 {
            return Err(Error::damaged(format!("checksum mismatch in {}", path.display())));
        }
        let made = plan(manifest, &archive::entries(&bytes, |text| encoding.decode(text))?, &self.selected);
        match &made.refused {
            Some(refused) => Err(Error::refused(refused.clone())),
            None => Ok(made),
        }
    }

    /// Bytes of COPY text of the rows that come.
    fn raw_bytes(&self, plan: &ExportPlan) -> u64 {
        let oids: BTreeSet<u32> = plan.tables.iter().flat_map(|design| &design.oids).copied().collect();
        let chunks = self.snapshot.manifest.tables.iter().filter(|table| oids.contains(&table.table.oid));
        chunks
            .flat_map(|table| &table.chunks)
            .fold(0, |sum, chunk| sum.saturating_add(chunk.content.raw_bytes))
    }

    fn write(
        &self,
        path: &Path,
        plan: &mut ExportPlan,
        encoding: Encoding,
        raw_bytes: u64,
    ) -> Result<Vec<Fingerprint>> {
        let writer = Writer::new(path)?;
        let _ = self.handle.set(writer.interrupt_handle());
        self.progress.phase("writing rows", Some(raw_bytes));
        let mut found = Vec::new();
        let ExportPlan { tables, untranslated, notes, .. } = plan;
        for design in tables.iter_mut() {
            self.progress.step(design.source.short());
            found.push(loop {
                writer.create(design)?;
                match self.rows(&writer, design, encoding)? {
                    Rows::All(fingerprint) => {
                        if !writer.drop_wrong_checks(design, untranslated)? {
                            break fingerprint;
                        }
                    }
                    Rows::Widen(column) => design.widen(column),
                    Rows::AsText(column, why) => match design.take_as_text(column) {
                        Some(name) => notes.push(format!(
                            "values of {}.{} are only compared as text, and `safe-run import` refuses some: {why}",
                            design.source.short(),
                            common::ident::printable(&name)
                        )),
                        None => return Err(Error::failed(why)),
                    },
                }
                writer.drop_table(design)?;
            });
            fault::point("export-table-written");
        }
        self.progress.done();
        self.progress.phase("making indexes", None);
        let progress = self.progress.clone();
        writer.finish(plan, &|index| progress.step(index))?;
        self.progress.done();
        Ok(found)
    }

    /// The rows of one table: decoded on a thread of its own, written on this one.
    fn rows(&self, writer: &Writer, design: &TableDesign, encoding: Encoding) -> Result<Rows> {
        let (sender, receiver) = mpsc::sync_channel::<Result<Batch, Stop>>(WAITING);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                if let Err(stop) = self.decode(design, encoding, &sender) {
                    // Nobody listens any more where the table is made again.
                    let _ = sender.send(Err(stop));
                }
            });
            let mut as_text = None;
            let filled = writer.fill(design, || match receiver.recv() {
                Ok(Ok(batch)) => {
                    self.progress.advance(batch.lines.len() as u64, batch.fingerprint.rows);
                    Ok(Some(batch))
                }
                Ok(Err(Stop::Error(error))) => Err(error),
                Ok(Err(Stop::AsText(column, why))) => {
                    as_text = Some((column, why));
                    Ok(None)
                }
                Ok(Err(Stop::NotWanted)) | Err(mpsc::RecvError) => Ok(None),
            });
            drop(receiver);
            Ok(match (filled?, as_text) {
                (_, Some((column, why))) => Rows::AsText(column, why),
                (Filled::All(fingerprint), None) => Rows::All(fingerprint),
                (Filled::NeedsAny(column), None) => Rows::Widen(column),
            })
        })
    }

    fn decode(
        &self,
        design: &TableDesign,
        encoding: Encoding,
        sender: &mpsc::SyncSender<Result<Batch, Stop>>,
    ) -> Result<(), Stop> {
        let manifest = &self.snapshot.manifest;
        for table in manifest.tables.iter().filter(|table| design.oids.contains(&table.table.oid)) {
            let stop = |error| Stop::of(error, &table.table.name);
            for chunk in &table.chunks {
                let mut lines = Lines::new(design, &table.table.columns, encoding).map_err(stop)?;
                let path = self.snapshot.path(&chunk.path);
                let mut reader = ChunkReader::open(&path, manifest.codec, &chunk.content)?;
                while let Some(piece) = reader.read()? {
                    if let Some(batch) = lines.take(&piece).map_err(stop)? {
                        sender.send(Ok(batch)).map_err(|_| Stop::NotWanted)?;
                    }
                }
                reader.finish()?;
            }
        }
        Ok(())
    }

    /// Reads the file as any SQLite file, and compares every table with the snapshot's rows.
    fn compare(&self, path: &Path, plan: &ExportPlan, written: &[Fingerprint], raw_bytes: u64) -> Result<()> {
        self.progress.phase("reading the rows back", Some(raw_bytes));
        let found = read_back(path, &plan.tables, &|bytes| self.progress.advance(bytes, 0))?;
        self.progress.done();
        for ((design, written), found) in plan.tables.iter().zip(written).zip(found) {
            if *written != found {
                return Err(Error::failed(format!(
                    "the rows of {} in the file are not those of the snapshot ({} of {} rows, or other values); \
                     the file was taken away: this is a defect, please report it",
                    design.source.short(),
                    found.rows,
                    written.rows
                )));
            }
        }
        Ok(())
    }

    /// Makes the file durable and gives it its name.
    fn publish(&self, temporary: tempfile::NamedTempFile, dir: &Path, plan: &ExportPlan) -> Result<()> {
        temporary.as_file().sync_all().map_err(|source| Error::io("write", temporary.path(), source))?;
        interrupt::check()?;
        self.nothing_there()?;
        let has_list = !plan.untranslated.is_empty();
        if has_list {
            let list = dir.join(self.beside.file_name().unwrap_or_default());
            replace_private_file(&list, plan.untranslated_sql().as_bytes())?;
        }
        let named = temporary.persist_noclobber(&self.file).map_err(|error| match error.error.kind() {
            std::io::ErrorKind::AlreadyExists => exists(&self.file),
            _ => Error::io("write", &self.file, error.error),
        });
        if let Err(error) = named {
            if has_list {
                std::fs::remove_file(&self.beside)
                    .map_err(|source| Error::io("remove", &self.beside, source))?;
            }
            return Err(error);
        }
        sync_dir(dir)
    }
}

/// How the rows of a table went in.
enum Rows {
    All(Fingerprint),
    Widen(usize),
    AsText(usize, String),
}

/// Why decoding ended early.
enum Stop {
    Error(Error),
    AsText(usize, String),
    NotWanted,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl Stop {
    fn of(error: LineError, table: &QualifiedName) -> Self {
        match error {
            LineError::Unreadable(unreadable) => Self::AsText(unreadable.column, unreadable.to_string()),
            LineError::NoColumn(column) => Self::Error(Error::damaged(format!(
                "the archive of the schema does not have the column {} of {}, whose values the snapshot holds",
                common::ident::printable(&column),
                table.short()
            ))),
            LineError::Encoding => Self::Error(Error::refused(format!(
                "{} holds text that is not UTF-8, which SQLite's text has to be",
                table.short()
            ))),
        }
    }
}

fn exists(path: &Path) -> Error {
    Error::refused(format!("{} exists already", path.display()))
        .with_hint("Name another file: an export never replaces one.")
}

/// Takes away what killed exports of the same file left. Whose process lives holds a lock on its file.
fn sweep(dir: &Path, prefix: &str) -> Result<()> {
    for entry in std::fs::read_dir(dir).map_err(|source| Error::io("read", dir, source))? {
        let entry = entry.map_err(|source| Error::io("read", dir, source))?;
        if !entry.file_name().to_string_lossy().starts_with(prefix) {
            continue;
        }
        // What is no plain file, or is not ours to read, is not one that was left.
        let Ok(file) = open_plain(&entry.path()) else { continue };
        if file.try_lock().is_ok() {
            std::fs::remove_file(entry.path())
                .map_err(|source| Error::io("remove", &entry.path(), source))?;
        }
    }
    Ok(())
}

/// Refuses an export for which there is clearly no room: rows take about half of their text at least.
fn check_space(dir: &Path, file: &Path, raw_bytes: u64) -> Result<()> {
    let (free, needed) =
        (fault::number("export-free-bytes").map_or_else(|| free_space(dir), Ok)?, raw_bytes / 2);
    if free >= needed {
        return Ok(());
    }
    Err(Error::refused(format!(
        "{} will take {} at least, and {} are free there",
        file.display(),
        format::bytes(needed),
        format::bytes(free)
    ))
    .with_hint("Free some space, or name a file on another disk."))
}
