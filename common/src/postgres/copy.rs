//! COPY as streams between a session and a chunk file.
//!
//! A connection that breaks in mid-COPY is an error here, never an end of data: the driver reports the missing
//! CommandComplete, and the row counts on both sides are compared.

use std::path::Path;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, TryStreamExt};

use super::Client;
use crate::{
    Error, Progress, Result,
    snapshot::{
        Codec, RowHash,
        codec::{ChunkReader, ChunkWriter, RowCounter, StoredChunk, UnsyncedChunk},
        cost::CostMeter,
    },
};

/// Bytes between two progress events: often enough for a bar, rarely enough to cost nothing.
const REPORT_BYTES: u64 = 1024 * 1024;

/// Streams the result of a `COPY … TO STDOUT` into a new chunk file, which the caller has to sync.
pub async fn out_to_file(
    client: &Client,
    statement: &str,
    path: &Path,
    codec: Codec,
    progress: &Progress,
    meter: &CostMeter,
) -> Result<(StoredChunk, UnsyncedChunk)> {
    let failed = |source| Error::postgres("could not copy rows out", source);
    let started = std::time::Instant::now();
    let stream = client.copy_out(statement).await.map_err(failed)?;
    let mut stream = std::pin::pin!(stream);
    let mut writer = ChunkWriter::create(path, codec)?;
    let mut unreported = 0;
    while let Some(data) = stream.try_next().await.map_err(failed)? {
        writer.write(&data)?;
        unreported += data.len() as u64;
        if unreported >= REPORT_BYTES {
            progress.advance(unreported, 0);
            unreported = 0;
        }
    }
    let (stored, unsynced, spent) = writer.finish()?;
    meter.add(&spent, started.elapsed());
    progress.advance(unreported, 0);
    Ok((stored, unsynced))
}

/// Counts and hashes the rows that a `COPY … TO STDOUT` gives, without storing them.
pub async fn hash_rows(client: &Client, statement: &str, progress: &Progress) -> Result<(u64, RowHash)> {
    let failed = |source| Error::postgres("could not read the rows back", source);
    let stream = client.copy_out(statement).await.map_err(failed)?;
    let mut stream = std::pin::pin!(stream);
    let mut counter = RowCounter::default();
    let mut unreported = 0;
    while let Some(data) = stream.try_next().await.map_err(failed)? {
        counter.feed(&data);
        unreported += data.len() as u64;
        if unreported >= REPORT_BYTES {
            progress.advance(unreported, 0);
            unreported = 0;
        }
    }
    progress.advance(unreported, 0);
    counter.finish().map_err(|source| Error::failed(format!("could not read the rows back: {source}")))
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
        let mut reader = ChunkReader::open(&owned_path, codec)?;
        while let Some(piece) = reader.read()? {
            if sender.blocking_send(piece).is_err() {
                // The receiving side failed and says why.
                return Ok(());
            }
        }
        reader.finish(&owned_expected)
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
