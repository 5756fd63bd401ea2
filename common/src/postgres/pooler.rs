//! Detects a connection pooler between us and the server.
//!
//! Behind transaction pooling every transaction may run in another session: locks, SET, temporary tables and exported
//! snapshots silently lose their meaning. Session pooling, or a proxy that only replaces the cancel key, is harmless.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio_postgres::{
    CancelToken, SimpleQueryMessage,
    tls::{ChannelBinding, TlsConnect, TlsStream},
};

use super::{session::Session, settings::ConnectionSettings};
use crate::error::{Error, ErrorKind, Result};

/// Other sessions opened to provoke the pooler into handing out our server connection.
const PROBES: usize = 3;

/// Refuses a pooler that shares server sessions between clients.
///
/// A direct connection costs one query. Only when the process id that came with the cancel key is not the backend's
/// (every pooler and some proxies make one up) are up to three more connections opened: each holds a transaction open, and if
/// our own queries then run in another backend than before, or in the same one as a probe, sessions are shared.
///
/// What keeps a client's session is asked whether it takes `options`; where it does not, PostgreSQL's programs go without
/// ([`super::ConnectionSettings::takes_options`]).
///
/// # Errors
///
/// [`ErrorKind::Refused`] for a transaction pooler, and for one that takes no `options` where PostgreSQL's programs need some;
/// what the server says if it cannot be asked.
pub async fn refuse_pooler(session: &Session) -> Result<()> {
    let before = backend_pid(session).await?;
    if before != session.backend_pid() {
        return Err(pooled(session));
    }
    if before == session.key_pid() {
        return Ok(());
    }
    let mut probes = Vec::new();
    let mut shared = false;
    for _ in 0..PROBES {
        // No free connection proves nothing.
        let Some(probe) = in_time(session.settings()).await? else { break };
        // Statement pooling refuses transactions outright; a server never does.
        if probe.batch_execute("BEGIN").await.is_err_and(|error| error.as_db_error().is_some()) {
            shared = true;
            break;
        }
        let other = backend_pid(&probe).await?;
        probes.push(probe);
        if other == before || backend_pid(session).await? != before {
            shared = true;
            break;
        }
    }
    for probe in probes {
        // The transaction changed nothing; closing ends it.
        let _ = probe.close().await;
    }
    if shared { Err(pooled(session)) } else { learn_options(session).await }
}

/// Finds out whether what is in between takes `options`: it may refuse them, or drop them without a word.
async fn learn_options(session: &Session) -> Result<()> {
    /// A parameter that nobody else sets, and that any server takes.
    const TRIED: &str = "safe_run.option";
    let settings = session.settings();
    let _ = settings.pooled.set(());
    let taken = match in_time(&settings.with_option(TRIED, "taken")).await {
        Ok(Some(probe)) => {
            let found = probe
                .query_one(
                    "SELECT pg_catalog.current_setting($1, true) IS NOT DISTINCT FROM 'taken'",
                    &[&TRIED],
                )
                .await
                .map_err(|error| Error::postgres("could not look for a pooler", error))?;
            probe.close().await?;
            found.get(0)
        }
        // Protocol violation: PgBouncer's answer to a startup parameter that it does not track.
        Err(error) if error.sqlstate() == Some("08P01") => false,
        // No free connection proves nothing.
        Ok(None) => true,
        Err(error) => return Err(error),
    };
    if taken {
        return Ok(());
    }
    let _ = settings.options_refused.set(());
    refuse_unusual_defaults(session).await
}

/// A session, or nothing where none is free. A pooler lets a client wait for one, PgBouncer by itself for two minutes.
async fn in_time(settings: &ConnectionSettings) -> Result<Option<Session>> {
    const LIMIT: Duration = Duration::from_secs(5);
    match tokio::time::timeout(LIMIT, settings.connect()).await {
        Ok(Ok(session)) => Ok(Some(session)),
        Ok(Err(error)) if error.kind() == ErrorKind::Busy => Ok(None),
        Ok(Err(error)) => Err(error),
        Err(_) => Ok(None),
    }
}

/// Refuses defaults that change what PostgreSQL's programs write or read, where they can't be told otherwise.
async fn refuse_unusual_defaults(session: &Session) -> Result<()> {
    let rows = session
        .query(
            "SELECT name FROM pg_catalog.pg_settings
             WHERE name IN ('quote_all_identifiers', 'transform_null_equals') AND reset_val = 'on' ORDER BY 1",
            &[],
        )
        .await
        .map_err(|error| Error::postgres("could not read the server's settings", error))?;
    let names: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    if names.is_empty() {
        return Ok(());
    }
    Err(Error::refused(format!(
        "{} is a connection pooler that takes no startup options, and pg_dump and pg_restore need some here: {} is on",
        session.settings().host_label(),
        names.join(" and ")
    ))
    .with_hint("Use the direct URL of the database, or set it to off where it is set: for the role, the database or the server."))
}

fn pooled(session: &Session) -> Error {
    Error::refused(format!(
        "{} is a connection pooler that shares server sessions between clients (transaction or statement pooling)",
        session.settings().host_label()
    ))
    .with_hint(
        "Use the direct URL of the database (with PgBouncer usually port 5432 instead of 6432; hosting services list it \
         as the direct or session connection).",
    )
}

async fn backend_pid(session: &Session) -> Result<i32> {
    // The simple protocol: poolers lose prepared statements too.
    let answer = session
        .simple_query("SELECT pg_catalog.pg_backend_pid()")
        .await
        .map_err(|error| Error::postgres("could not look for a pooler", error))?;
    answer
        .iter()
        .find_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                row.try_get(0).ok().flatten().and_then(|text: &str| text.parse().ok())
            }
            _ => None,
        })
        .ok_or_else(|| Error::failed("could not look for a pooler: the server gave no backend process id"))
}

/// The process id of the cancel key. The driver keeps it to itself, but writes it into a cancel request: one is written
/// into memory here, and read back.
pub(super) async fn key_pid(token: &CancelToken) -> Result<i32> {
    let (ours, mut theirs) = tokio::io::duplex(64);
    let written = token.cancel_query_raw(ours, InMemory);
    let read = async {
        let mut head = [0_u8; 8];
        theirs.read_exact(&mut head).await?;
        // A request for TLS is 8 bytes long, a cancel request 16: length, code, process id, key.
        if head[..4] == 8_u32.to_be_bytes() {
            theirs.write_all(b"S").await?;
            theirs.read_exact(&mut head).await?;
        }
        let mut pid = [0_u8; 4];
        theirs.read_exact(&mut pid).await?;
        let mut rest = Vec::new();
        theirs.read_to_end(&mut rest).await?;
        io::Result::Ok(i32::from_be_bytes(pid))
    };
    let (written, read) = tokio::join!(written, read);
    written.map_err(|error| Error::postgres("could not read the cancel key", error))?;
    read.map_err(|error| Error::failed(format!("could not read the cancel key: {error}")).with_source(error))
}

/// Stands for TLS in memory, where there is nobody to hide from.
struct InMemory;

impl TlsConnect<DuplexStream> for InMemory {
    type Stream = InMemoryStream;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<InMemoryStream>>;

    fn connect(self, stream: DuplexStream) -> Self::Future {
        std::future::ready(Ok(InMemoryStream(stream)))
    }
}

struct InMemoryStream(DuplexStream);

impl TlsStream for InMemoryStream {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for InMemoryStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for InMemoryStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
