//! `backup export` and `backup import`: snapshots as tar files or streams.

use std::{
    fs::File,
    io::{self, BufWriter, IsTerminal},
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use common::{
    Error, Progress, Result,
    cli::{Output, Settings, output::Tone},
    files::write_new_file,
    format, input, interrupt,
    repository::{Repository, StoredSnapshot, output_file::settle},
    snapshot::bundle::{self, Incoming},
};
use serde::Serialize;

/// Bytes that are read or written at once.
const BUFFER_BYTES: usize = 256 << 10;

/// Arguments of `backup export`.
#[derive(Debug, Clone, clap::Args)]
pub struct ExportArgs {
    /// An id, a unique start of one, latest, or latest:tag=value
    #[arg(value_name = "SNAPSHOT")]
    pub snapshot: String,
    /// Where to: a new file, or - for stdout [default: <id>.tar here]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace a file that exists
    #[arg(long)]
    force: bool,
    /// Write a SQLite database instead, into a new file; every row is read back and compared
    #[arg(long, value_name = "FILE", conflicts_with_all = ["output", "force"])]
    sqlite: Option<PathBuf>,
    /// Only tables of this name, such as orders or 'app.*' [with --sqlite; may be repeated; default: all]
    #[arg(short, long, value_name = "PATTERN", requires = "sqlite")]
    table: Vec<String>,
}

/// Arguments of `backup import`.
#[derive(Debug, Clone, clap::Args)]
pub struct ImportArgs {
    /// A file that `backup export` wrote, or - for stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Serialize)]
struct Exported<'a> {
    id: &'a str,
    file: String,
    bytes: u64,
}

#[derive(Serialize)]
struct Imported<'a> {
    id: &'a str,
    database: &'a str,
    path: String,
}

/// Work that blocks on a pipe: it is left behind when a signal comes in, and cleans up by itself if it can.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let mut task = tokio::task::spawn_blocking(work);
    loop {
        tokio::select! {
            done = &mut task => {
                return done.map_err(|source| Error::failed(format!("the transfer died: {source}")))?;
            }
            () = tokio::time::sleep(std::time::Duration::from_millis(100)) => interrupt::check()?,
        }
    }
}

/// Runs `backup export`. The caller holds the repository's lock.
pub async fn export(args: ExportArgs, snapshot: StoredSnapshot, output: &Output) -> Result<u8> {
    if let Some(file) = &args.sqlite {
        return crate::to_sqlite::export(file, &args.table, snapshot, output).await;
    }
    let to_stdout = args.output.as_deref() == Some(Path::new("-"));
    if to_stdout && io::stdout().is_terminal() {
        return Err(Error::usage("an archive is not for a terminal")
            .with_hint("Redirect stdout to a file or a pipe, or name a file with --output."));
    }
    let id = snapshot.manifest.id.clone();
    if snapshot.manifest.role_passwords {
        output
            .warn(&format!("{id} holds password hashes of roles, and so does this archive: keep it secret"));
    }
    let target = args.output.unwrap_or_else(|| PathBuf::from(format!("{id}.tar")));
    let file = if to_stdout { target.clone() } else { settle("--output", &target)? };
    let progress = output.progress();
    progress.phase(format!("exporting {id}"), Some(snapshot.manifest.stored_bytes()));
    let (sink, force) = (progress.clone(), args.force);
    if to_stdout {
        output.take_stdout();
    }
    let bytes = blocking(move || {
        if to_stdout {
            // Unbuffered: Rust's own stdout looks for line ends in what is none of text.
            let stdout = io::stdout().as_fd().try_clone_to_owned().map_err(|source| {
                Error::failed(format!("could not write to stdout: {source}")).with_source(source)
            })?;
            write(&snapshot, &File::from(stdout), &sink)
        } else {
            write_new_file(&file, force, |temporary| write(&snapshot, temporary, &sink))
        }
    })
    .await?;
    progress.done();
    if to_stdout {
        return Ok(0);
    }
    if output.is_json() {
        output.document(&Exported { id: id.as_str(), file: target.display().to_string(), bytes })?;
    } else {
        output.say(&format!("{} {id}: {}", output.paint(Tone::Good, "EXPORTED"), format::bytes(bytes)));
        output.data(&format!("{}\n", target.display()))?;
    }
    Ok(0)
}

fn write(snapshot: &StoredSnapshot, file: &File, progress: &Progress) -> Result<u64> {
    let mut counting = Counting { file: BufWriter::with_capacity(BUFFER_BYTES, file), bytes: 0 };
    bundle::write(&snapshot.dir, &snapshot.manifest, &mut counting, &|bytes| {
        progress.advance(bytes, 0);
        interrupt::check()
    })?;
    Ok(counting.bytes)
}

struct Counting<'a> {
    file: BufWriter<&'a File>,
    bytes: u64,
}

impl io::Write for Counting<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let written = self.file.write(data)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Runs `backup import`.
pub async fn import(args: ImportArgs, settings: &Settings, output: &Output) -> Result<u8> {
    let from = input::open(&args.file)?;
    let repository = Repository::open_or_create(&settings.repo)?;
    repository.sweep()?;
    let progress = output.progress();
    let sink = progress.clone();
    let snapshot = blocking(move || {
        let incoming = Incoming::open(from)?;
        let manifest = incoming.manifest();
        sink.phase(format!("importing {}", manifest.id), Some(manifest.stored_bytes()));
        repository.import(incoming, &|bytes| {
            sink.advance(bytes, 0);
            interrupt::check()
        })
    })
    .await?;
    progress.done();
    let manifest = &snapshot.manifest;
    if output.is_json() {
        let path = snapshot.dir.display().to_string();
        output.document(&Imported { id: manifest.id.as_str(), database: &manifest.database.name, path })?;
        return Ok(0);
    }
    output.say(&format!(
        "{} {} of \"{}\": {}, {}, every file compared with the manifest",
        output.paint(Tone::Good, "IMPORTED"),
        manifest.id,
        common::ident::printable(&manifest.database.name),
        format::plural(manifest.tables.len() as u64, "table", "tables"),
        format::plural(manifest.rows(), "row", "rows"),
    ));
    output.say(
        "         restoring it runs the functions and triggers that it holds: trust where it comes from",
    );
    output.data(&format!("{}\n", manifest.id))?;
    Ok(0)
}
