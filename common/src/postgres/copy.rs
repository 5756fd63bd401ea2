//! COPY as streams between a session and a chunk file.
//!
//! A connection that breaks in mid-COPY is an error here, never an end of data: the driver reports the missing
//! CommandComplete, and the row counts on both sides are compared.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, TryStreamExt};

use super::{Client, Session, tap::RowSink};
use crate::{
    Error, Progress, Result,
    catalog::LsnFields,
    snapshot::{
        Codec, RowHash,
        chunk_reader::ChunkReader,
        chunk_writer::{ChunkWriter, Compressor, Finished},
        codec::{RowCounter, StoredChunk, UnsyncedChunk},
        cost::{CostMeter, Spent},
        earlier_file::EarlierFile,
        pieces::Piece,
    },
};

/// Bytes between two progress events: often enough for a bar, rarely enough to cost nothing.
const REPORT_BYTES: u64 = 1024 * 1024;

/// One chunk to be made.
pub struct OutChunk {
    /// Its file, which must not exist yet.
    pub path: PathBuf,
    /// Blocks of each of its pieces.
    pub piece_blocks: u64,
    /// Where its pieces come from, in the order of their blocks.
    pub steps: Vec<Step>,
    /// Where the pieces that are kept lie. Every byte of it is told by a step, but for the end.
    pub earlier: Option<EarlierFile>,
}

/// Where one piece comes from.
pub enum Step {
    /// From the server.
    Read {
        /// A `COPY … TO STDOUT`.
        statement: String,
        /// Bytes of the earlier file that it takes the place of.
        replaces: u64,
    },
    /// From the earlier file.
    Keep(Piece),
}

/// What became of a chunk.
pub enum Written {
    /// It is there, and has to be synced.
    Chunk(StoredChunk, UnsyncedChunk),
    /// The earlier file is not what it was, and why: all of the chunk has to be read.
    EarlierDamaged(String),
}

/// Makes chunks from the results of `COPY … TO STDOUT`, in few round trips. The caller has to sync them.
///
/// The compressor is left where it was, for the next call.
pub async fn out_to_files(
    session: &Session,
    chunks: Vec<OutChunk>,
    compressor: &mut Option<Compressor>,
    codec: Codec,
    progress: &Progress,
    meter: &CostMeter,
) -> Result<Vec<Written>> {
    let started = std::time::Instant::now();
    let batches = batches(&chunks);
    let compressor_now = match compressor.take() {
        Some(compressor) => compressor,
        None => Compressor::new(codec)?,
    };
    let mut sink = ChunkSink::new(chunks, compressor_now, progress.clone());
    sink.go_on()?;
    let mut sent = Vec::new();
    for statements in batches {
        let counts;
        (sink, counts) = session.copy_out(&statements, sink, "could not copy rows out").await?;
        sent.extend(counts);
    }
    if sink.read != sent || !sink.to_do.is_empty() {
        return Err(Error::failed(format!(
            "the server says that it sent {} rows in {} parts, and {} arrived in {}",
            sent.iter().sum::<u64>(),
            sent.len(),
            sink.read.iter().sum::<u64>(),
            sink.read.len()
        )));
    }
    *compressor = sink.compressor;
    meter.add(&sink.spent, started.elapsed());
    Ok(sink.done)
}

/// The statements of all steps, as many in one text as a server parses without a thought.
fn batches(chunks: &[OutChunk]) -> Vec<String> {
    /// Bytes of SQL in one message. The server has the parsed statements of a whole message in memory.
    const BATCH_BYTES: usize = 128 * 1024;
    let mut batches = vec![String::new()];
    for step in chunks.iter().flat_map(|chunk| &chunk.steps) {
        let Step::Read { statement, .. } = step else { continue };
        if let Some(last) = batches.last_mut().filter(|last| last.len() < BATCH_BYTES) {
            last.push_str(statement);
            last.push(';');
        } else {
            batches.push(format!("{statement};"));
        }
    }
    batches.retain(|batch| !batch.is_empty());
    batches
}

/// Puts rows into one chunk after another.
struct ChunkSink {
    to_do: VecDeque<OutChunk>,
    /// The chunk at the front of `to_do`, and its next step.
    writing: Option<(ChunkWriter, usize)>,
    compressor: Option<Compressor>,
    done: Vec<Written>,
    /// Rows of each COPY.
    read: Vec<u64>,
    spent: Spent,
    progress: Progress,
    /// Bytes of this chunk that progress was told of.
    told: u64,
    /// Takes what no chunk wants.
    stray: Vec<u8>,
}

impl ChunkSink {
    fn new(chunks: Vec<OutChunk>, compressor: Compressor, progress: Progress) -> Self {
        Self {
            to_do: chunks.into(),
            writing: None,
            compressor: Some(compressor),
            done: Vec::new(),
            read: Vec::new(),
            spent: Spent::default(),
            progress,
            told: 0,
            stray: Vec::new(),
        }
    }

    /// Does all steps that need no rows from the server, until the next that does.
    fn go_on(&mut self) -> Result<()> {
        while let Some(chunk) = self.to_do.front_mut() {
            let (mut writer, mut next) = match (self.writing.take(), self.compressor.take()) {
                (Some(writing), _) => writing,
                (None, Some(compressor)) => {
                    (ChunkWriter::create(&chunk.path, chunk.piece_blocks, compressor)?, 0)
                }
                (None, None) => return Err(Error::failed("a chunk was left without its compressor")),
            };
            while let Some(Step::Keep(piece)) = chunk.steps.get(next) {
                if let Some(earlier) = &mut chunk.earlier {
                    earlier.pass(piece.stored_bytes, Some(&mut writer))?;
                }
                writer.kept(*piece);
                next += 1;
            }
            if let Some(Step::Read { replaces, .. }) = chunk.steps.get(next) {
                if let Some(earlier) = &mut chunk.earlier {
                    earlier.pass(*replaces, None)?;
                }
                self.writing = Some((writer, next));
                return Ok(());
            }
            let Finished { stored, unsynced, spent, compressor } = writer.finish()?;
            self.compressor = Some(compressor);
            self.spent.merge(&spent);
            self.tell(stored.raw_bytes, 0);
            self.told = 0;
            let Some(chunk) = self.to_do.pop_front() else { break };
            self.done.push(match chunk.earlier.map_or(Ok(None), EarlierFile::problem)? {
                None => Written::Chunk(stored, unsynced),
                Some(problem) => {
                    std::fs::remove_file(&chunk.path)
                        .map_err(|source| Error::io("remove", &chunk.path, source))?;
                    Written::EarlierDamaged(problem)
                }
            });
        }
        Ok(())
    }

    /// Tells of what was read, from time to time.
    fn tell(&mut self, raw_bytes: u64, at_least: u64) {
        if raw_bytes - self.told >= at_least {
            self.progress.advance(raw_bytes - self.told, 0);
            self.told = raw_bytes;
        }
    }
}

impl RowSink for ChunkSink {
    fn buffer(&mut self) -> &mut Vec<u8> {
        match &mut self.writing {
            Some((writer, _)) => writer.buffer(),
            None => &mut self.stray,
        }
    }

    fn added(&mut self) -> Result<()> {
        let Some((writer, _)) = &mut self.writing else {
            return Err(Error::failed("the server sent more rows than were asked for"));
        };
        writer.added()?;
        let raw_bytes = writer.raw_bytes();
        self.tell(raw_bytes, REPORT_BYTES);
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        let Some((writer, next)) = &mut self.writing else {
            return Err(Error::failed("the server sent more rows than were asked for"));
        };
        self.read.push(writer.end_piece()?);
        *next += 1;
        self.go_on()
    }
}

/// Counts and hashes the rows that a `COPY … TO STDOUT` gives, without storing them.
pub async fn hash_rows(session: &Session, statement: &str, progress: &Progress) -> Result<(u64, RowHash)> {
    hash_rows_of(session, statement, &LsnFields::default(), progress).await
}

/// [`hash_rows`] with these fields in the form that they are compared in.
pub async fn hash_rows_of(
    session: &Session,
    statement: &str,
    lsn_fields: &LsnFields,
    progress: &Progress,
) -> Result<(u64, RowHash)> {
    let sink =
        HashSink { progress: Some(progress.clone()), lsn_fields: lsn_fields.clone(), ..HashSink::default() };
    let (sink, sent) = session.copy_out(statement, sink, "could not read the rows back").await?;
    progress.advance(sink.unreported, 0);
    if !sink.begun.is_empty() {
        return Err(Error::failed("could not read the rows back: the last row has no end"));
    }
    let (rows, hash) = sink
        .counter
        .finish()
        .map_err(|source| Error::failed(format!("could not read the rows back: {source}")))?;
    if sent != [rows] {
        return Err(Error::failed(format!("{rows} rows were read back, and the server sent {sent:?}")));
    }
    Ok((rows, hash))
}

/// [`hash_rows`] of each of these statements, many of them in one round trip: thousands of small tables do not wait for each other.
///
/// # Errors
/// As of the first that fails.
pub async fn hash_each(session: &Session, statements: &[String]) -> Result<Vec<(u64, RowHash)>> {
    /// Statements of one message, which share a transaction and hold their locks until its end.
    const TOGETHER: usize = 100;
    let mut found = Vec::with_capacity(statements.len());
    for batch in statements.chunks(TOGETHER) {
        let (sink, sent) =
            session.copy_out(&batch.join("; "), EachSink::default(), "could not read the rows").await?;
        let rows: Vec<u64> = sink.done.iter().map(|(rows, _)| *rows).collect();
        if sent != rows || rows.len() != batch.len() {
            return Err(Error::failed(format!("{rows:?} rows were read, and the server sent {sent:?}")));
        }
        found.extend(sink.done);
    }
    Ok(found)
}

/// Counts and hashes, each statement by itself.
#[derive(Default)]
struct EachSink {
    buffer: Vec<u8>,
    counter: RowCounter,
    done: Vec<(u64, RowHash)>,
}

impl RowSink for EachSink {
    fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    fn added(&mut self) -> Result<()> {
        self.counter.feed(&self.buffer);
        self.buffer.clear();
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        let counted = std::mem::take(&mut self.counter).finish();
        self.done
            .push(counted.map_err(|source| Error::failed(format!("could not read the rows: {source}")))?);
        Ok(())
    }
}

/// Counts and hashes.
#[derive(Default)]
struct HashSink {
    buffer: Vec<u8>,
    lsn_fields: LsnFields,
    /// A row whose end has not come yet, where fields are rewritten.
    begun: Vec<u8>,
    counter: RowCounter,
    progress: Option<Progress>,
    unreported: u64,
}

impl RowSink for HashSink {
    fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    fn added(&mut self) -> Result<()> {
        if self.lsn_fields.is_empty() {
            self.counter.feed(&self.buffer);
        } else {
            self.begun.extend_from_slice(&self.buffer);
            let mut rewritten = Vec::with_capacity(self.begun.len());
            let mut from = 0;
            while let Some(length) = memchr::memchr(b'\n', &self.begun[from..]) {
                self.lsn_fields.write_row(&self.begun[from..from + length], &mut rewritten);
                rewritten.push(b'\n');
                from += length + 1;
            }
            self.begun.drain(..from);
            self.counter.feed(&rewritten);
        }
        self.unreported += self.buffer.len() as u64;
        self.buffer.clear();
        if let (true, Some(progress)) = (self.unreported >= REPORT_BYTES, &self.progress) {
            progress.advance(std::mem::take(&mut self.unreported), 0);
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Streams a chunk file into a `COPY … FROM STDIN`, checking the file on the way. Returns the server's row count.
///
/// The COPY is completed only after the whole file has matched `expected`: a damaged chunk leaves no rows.
pub async fn in_from_file(
    client: &Client,
    statement: &str,
    path: &Path,
    codec: Codec,
    expected: &StoredChunk,
    progress: &Progress,
) -> Result<u64> {
    /// Pieces of 256 KiB that may wait between the decoder and the server.
    const QUEUE: usize = 4;
    let failed = |source| Error::postgres("could not copy rows in", source);
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<Bytes>(QUEUE);
    let (owned_path, owned_expected) = (path.to_owned(), expected.clone());
    let decoder = tokio::task::spawn_blocking(move || -> Result<()> {
        let mut reader = ChunkReader::open(&owned_path, codec, &owned_expected)?;
        while let Some(piece) = reader.read()? {
            if sender.blocking_send(piece).is_err() {
                // The receiving side failed and says why.
                return Ok(());
            }
        }
        reader.finish()
    });
    let sink = client.copy_in::<_, Bytes>(statement).await.map_err(failed)?;
    let mut sink = std::pin::pin!(sink);
    while let Some(piece) = receiver.recv().await {
        let length = piece.len() as u64;
        sink.feed(piece).await.map_err(failed)?;
        progress.advance(length, 0);
    }
    decoder
        .await
        .map_err(|source| Error::failed(format!("the reader of {} died: {source}", path.display())))??;
    sink.finish().await.map_err(failed)
}

/// A `COPY … FROM STDIN` that is being fed.
pub struct CopyIn(std::pin::Pin<Box<tokio_postgres::CopyInSink<Bytes>>>);

impl CopyIn {
    /// Begins it.
    ///
    /// # Errors
    /// The server refuses the statement.
    pub async fn begin(client: &Client, statement: &str) -> Result<Self> {
        let sink = client
            .copy_in(statement)
            .await
            .map_err(|source| Error::postgres("could not copy rows in", source))?;
        Ok(Self(Box::pin(sink)))
    }

    /// Sends text, cut anywhere.
    ///
    /// # Errors
    /// The server has refused something that was sent before.
    pub async fn send(&mut self, text: Vec<u8>) -> Result<()> {
        let sent = self.0.feed(Bytes::from(text)).await;
        match sent {
            Ok(()) => Ok(()),
            // The connection to the sink is closed by the server's refusal, which is told at the end.
            Err(_) => match self.0.as_mut().finish().await {
                Ok(_) => Err(Error::failed("the server ended a COPY before its end")),
                Err(source) => Err(Error::postgres("could not copy rows in", source)),
            },
        }
    }

    /// Ends it. Returns the server's count of rows.
    ///
    /// # Errors
    /// The server refuses what was sent.
    pub async fn finish(mut self) -> Result<u64> {
        self.0.as_mut().finish().await.map_err(|source| Error::postgres("could not copy rows in", source))
    }

    /// Ends it without its rows: the transaction can only be rolled back after that.
    pub fn give_up(self) {
        drop(self);
    }
}

/// Collects a small `COPY … TO STDOUT` in memory.
pub async fn out_to_memory(client: &Client, statement: &str) -> Result<Vec<u8>> {
    let failed = |source| Error::postgres("could not copy rows out", source);
    let stream = client.copy_out(statement).await.map_err(failed)?;
    let parts: Vec<Bytes> = stream.boxed().try_collect().await.map_err(failed)?;
    Ok(parts.concat())
}

/// Sends a COPY data block that is already in memory. Returns the server's row count.
pub async fn in_from_memory(client: &Client, statement: &str, data: &[u8]) -> Result<u64> {
    let failed = |source| Error::postgres("could not copy rows in", source);
    let sink = client.copy_in::<_, Bytes>(statement).await.map_err(failed)?;
    let mut sink = std::pin::pin!(sink);
    sink.send(Bytes::copy_from_slice(data)).await.map_err(failed)?;
    sink.finish().await.map_err(failed)
}
