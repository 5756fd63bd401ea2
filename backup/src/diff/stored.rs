//! A snapshot as a side: its rows from its files, verified as they are read.

use std::sync::Arc;

use common::{
    Error, Progress, Result,
    postgres::tools,
    repository::StoredSnapshot,
    snapshot::{
        chunk_reader::ChunkReader,
        manifest::{LIST_FILE, SCHEMA_FILE, TableData},
    },
};

use super::{
    rows::{Shape, Taker, TextRows},
    state::State,
};

/// A snapshot that is being read.
#[derive(Debug, Clone)]
pub struct Snapshot {
    stored: Arc<StoredSnapshot>,
    /// What is there.
    pub state: State,
}

impl Snapshot {
    /// Reads its schema.
    ///
    /// # Errors
    /// Damaged where that can't be done.
    pub async fn open(stored: StoredSnapshot, pg_restore: &tools::Tool) -> Result<Self> {
        let schema = schema_text(pg_restore, &stored).await?;
        let state = State::of_manifest(&stored.manifest, schema);
        Ok(Self { stored: Arc::new(stored), state })
    }

    /// Hands the rows of some tables to `taker`, each read in its shape. Where it wants no more, the rest is not read.
    ///
    /// # Errors
    /// Damaged files, the taker's.
    pub async fn scan<T: Taker>(
        &self,
        tables: &[(usize, Shape)],
        taker: T,
        progress: &Progress,
    ) -> Result<T> {
        let mut work: Vec<(TableData, Shape)> = Vec::new();
        for (number, shape) in tables {
            let Some(wanted) = self.state.tables.get(*number) else { continue };
            let found = self.stored.manifest.tables.iter().find(|data| data.table.oid == wanted.table.oid);
            work.extend(found.map(|data| (data.clone(), shape.clone())));
        }
        let (stored, progress) = (self.stored.clone(), progress.clone());
        let read = move || read(&stored, &work, taker, &progress);
        tokio::task::spawn_blocking(read)
            .await
            .map_err(|source| Error::failed(format!("the reader of the snapshot died: {source}")))?
    }
}

fn read<T: Taker>(
    stored: &StoredSnapshot,
    work: &[(TableData, Shape)],
    mut taker: T,
    progress: &Progress,
) -> Result<T> {
    for (data, shape) in work {
        let mut rows = TextRows::new(shape.clone());
        for chunk in &data.chunks {
            let path = stored.path(&chunk.path);
            let mut reader = ChunkReader::open(&path, stored.manifest.codec, &chunk.content)?;
            while let Some(piece) = reader.read()? {
                rows.feed(&piece, &mut taker)?;
                progress.advance(piece.len() as u64, 0);
                if rows.enough {
                    return Ok(taker);
                }
            }
            rows.end()?;
            reader.finish()?;
        }
    }
    Ok(taker)
}

async fn schema_text(pg_restore: &tools::Tool, snapshot: &StoredSnapshot) -> Result<String> {
    let mut command = tools::offline_command(&pg_restore.path);
    if snapshot.manifest.is_partial() {
        command.arg("--use-list").arg(snapshot.path(LIST_FILE));
    }
    command.args(["--file=-", "--schema-only"]).arg(snapshot.path(SCHEMA_FILE));
    let (finished, text) = tools::capture(command, "pg_restore").await?;
    if !finished.success {
        return Err(Error::damaged(format!(
            "the schema of snapshot {} can't be read: {}",
            snapshot.manifest.id,
            finished.stderr.trim()
        ))
        .with_hint(format!("Run `backup verify {}`.", snapshot.manifest.id)));
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}
