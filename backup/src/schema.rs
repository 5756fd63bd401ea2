//! The schema of a snapshot, by pg_dump.

use std::path::Path;

use common::{
    Cause, Error, Progress, Result,
    postgres::{
        ConnectionSettings,
        exported_snapshot::{ExportedSnapshot, JOINED_LOCK_WAIT},
        lend, tools,
    },
    repository::PartialSnapshot,
    snapshot::manifest::{FileEntry, SCHEMA_FILE},
};

/// Runs pg_dump for the schema, in the same snapshot as the rows.
pub(crate) async fn dump_schema(
    settings: &ConnectionSettings,
    pg_dump: &tools::Tool,
    exported: &ExportedSnapshot<'_>,
    encoding: &str,
    arguments: &[String],
    partial: &PartialSnapshot,
    progress: &Progress,
) -> Result<FileEntry> {
    let path: &Path = &partial.dir().join(SCHEMA_FILE);
    let describe = |command: &mut tokio::process::Command| {
        command
            .args(["--schema-only", "--format=custom", "--no-password", "--no-sync"])
            // The server's own, so that nothing is converted: a role's client_encoding may not have every character.
            .arg(format!("--encoding={encoding}"))
            .arg(format!("--lock-wait-timeout={}", JOINED_LOCK_WAIT.as_millis()))
            .args(arguments)
            .arg("--file")
            .arg(path);
    };
    let finished = run_pg_dump(settings, pg_dump, exported, describe).await?;
    for line in finished.stderr.trim().lines().filter(|line| !line.trim().is_empty()) {
        progress.warn(format!("pg_dump says: {line}"));
    }
    partial.adopt(SCHEMA_FILE)
}

/// Runs pg_dump in the state that `exported` holds, and judges how it ended. `describe` gives it its arguments.
pub(crate) async fn run_pg_dump(
    settings: &ConnectionSettings,
    pg_dump: &tools::Tool,
    exported: &ExportedSnapshot<'_>,
    describe: impl Fn(&mut tokio::process::Command),
) -> Result<tools::Finished> {
    let dump = async || {
        let mut command = tools::command(&pg_dump.path, settings);
        command.arg(format!("--snapshot={}", exported.id()));
        describe(&mut command);
        tools::run(command, "pg_dump").await
    };
    let finished = match exported.only_session() {
        None => tools::run_with_a_place("pg_dump", dump).await?,
        Some(session) => lend::run_in_session(session, &pg_dump.path, "pg_dump", describe).await?,
    };
    judge(&finished, settings, exported).await?;
    Ok(finished)
}

/// What is busy because the backup made room for somebody who waits for an exclusive lock, and will have its turn after that.
pub(crate) fn gave_way(error: Error) -> Error {
    error.with_cause(Cause::GaveWay).with_hint(
        "Somebody waits for an exclusive lock on a table (ALTER TABLE, TRUNCATE, VACUUM FULL …), and the backup gave way, again \
         and again. Try again when that is done; a lock_timeout on such statements lets both through.",
    )
}

/// Whether pg_dump did what it should, and if not, why.
async fn judge(
    finished: &tools::Finished,
    settings: &ConnectionSettings,
    exported: &ExportedSnapshot<'_>,
) -> Result<()> {
    let messages = finished.stderr.trim();
    // pg_dump gives no SQLSTATE; these are the C locale's texts. Its --lock-wait-timeout is a statement_timeout.
    let waited = ["canceling statement due to lock timeout", "canceling statement due to statement timeout"];
    if !finished.success && waited.iter().any(|text| messages.contains(text)) {
        return Err(gave_way(Error::busy("pg_dump could not lock a table")));
    }
    if !finished.success && exported.only_session().is_none() {
        // Where there is no place for one more session (a connection limit, a server that stops) that is the reason, with a
        // SQLSTATE.
        settings.connect().await?.close().await?;
    }
    // A session of this backup may have ended since, and left its place.
    if !finished.success
        && let Some(error) = tools::no_place("pg_dump", messages)
    {
        return Err(error);
    }
    if !finished.success {
        // The C locale's text.
        let hint = match messages.contains("permission denied") {
            true => {
                "What the role may not read stands in pg_dump's own words. `backup check` lists what it lacks on tables, sequences and \
                     large objects; the rest is granted by its owner, or by a superuser."
            }
            false => "pg_dump's own words say why; pg_dump --schema-only alone should fail in the same way.",
        };
        return Err(Error::failed(format!("pg_dump could not read the schema:\n{messages}")).with_hint(hint));
    }
    Ok(())
}
