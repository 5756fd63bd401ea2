//! Brings single tables back: beside the live ones, into a database of their own, or as the content of the live ones.
//!
//! Only the chunks of these tables are read and verified, with the manifest and the schema archive. Whatever is done to
//! the live database is one transaction of one session: it is there as a whole or not at all, also after kill -9.

mod aside;
pub mod beside;
mod dry_run;
pub mod plan;
pub mod replace;
pub mod rights;
pub mod run;
pub mod scratch;
pub mod select;
pub mod transaction;

use common::{
    Error, Result,
    postgres::tools::{self, Tool},
    repository::StoredSnapshot,
    snapshot::{
        manifest::SCHEMA_FILE,
        toc::{self, Entry},
    },
};

/// Reads the table of contents of the snapshot's archive, which was verified or is not trusted with more than names.
pub async fn contents(pg_restore: &Tool, archive: &std::path::Path) -> Result<Vec<Entry>> {
    Ok(toc::parse(&String::from_utf8_lossy(&printed_contents(pg_restore, archive).await?)))
}

/// The same as pg_restore prints it, in the encoding of the snapshot's database.
pub async fn printed_contents(pg_restore: &Tool, archive: &std::path::Path) -> Result<Vec<u8>> {
    let mut command = tools::offline_command(&pg_restore.path);
    command.args(["--list", "--verbose"]).arg(archive);
    let (finished, text) = tools::capture(command, "pg_restore").await?;
    if !finished.success {
        return Err(Error::damaged(format!(
            "the schema archive {} can't be read: {}",
            archive.display(),
            finished.stderr.trim()
        ))
        .with_hint("Run `backup verify` to list every damaged file, or restore an older snapshot."));
    }
    Ok(text)
}

/// The archive of a snapshot.
pub fn archive(snapshot: &StoredSnapshot) -> std::path::PathBuf {
    snapshot.path(SCHEMA_FILE)
}
