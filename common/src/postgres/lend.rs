//! Lends an open transaction to a client program: pg_dump reads in it as if it had connected itself.
//!
//! For servers on which no second session may share a snapshot. The program connects to a Unix socket in a folder that only
//! we can enter, is greeted as by a server, and from then on its messages and the server's are passed on as they are. Only
//! its `BEGIN` becomes a savepoint. All that it set is taken back at the end.

use std::path::Path;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    net::{UnixListener, UnixStream},
    process::Command,
    time::{Duration, timeout},
};

use super::{
    Session,
    tools::{self, Finished},
};
use crate::{Error, Result};

/// In the name of the socket; nobody listens there but us.
const PORT: &str = "5432";

/// Bytes of a socket's path that every system takes, with the name of the socket still to come.
const LONGEST_FOLDER: usize = 80;

/// How long the rest of an answer may take when the program has ended before it.
const REST_OF_AN_ANSWER: Duration = Duration::from_secs(10);

/// Longest statement that is taken: those of client programs have a few kB, and some bytes for each table.
const LONGEST_MESSAGE: u32 = 256 * 1024 * 1024;

const SAVEPOINT: &str = "safe_run_lent";

/// Messages that come before a protocol is spoken, and the protocol.
const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;

const QUERY: u8 = b'Q';
const TERMINATE: u8 = b'X';
const READY_FOR_QUERY: u8 = b'Z';

/// Runs `tool` to its end; what it asks is answered in the transaction that is open in `session`, which is as before then.
///
/// # Errors
/// The program could not be started, or spoke in a way that can't be passed on; or the session broke. What the program
/// itself ran into is in [`Finished`].
pub async fn run_in_session(
    session: &Session,
    tool: &Path,
    name: &str,
    arguments: impl FnOnce(&mut Command),
) -> Result<Finished> {
    let failed = |source| Error::failed(format!("could not lend a session to {name}: {source}"));
    let base = std::env::temp_dir();
    let base = if base.as_os_str().len() > LONGEST_FOLDER { Path::new("/tmp") } else { &base };
    // Made with mode 0700.
    let folder = tempfile::Builder::new().prefix("safe-run-").tempdir_in(base).map_err(failed)?;
    let listener = UnixListener::bind(folder.path().join(format!(".s.PGSQL.{PORT}"))).map_err(failed)?;
    let mut command = tools::offline_command(tool);
    command
        .env("PGHOST", folder.path())
        .env("PGPORT", PORT)
        .env("PGUSER", session.settings().user())
        .env("PGDATABASE", session.settings().database())
        .env("PGSSLMODE", "disable")
        .env("PGGSSENCMODE", "disable")
        .env("PGMAXPROTOCOLVERSION", "3.0");
    arguments(&mut command);
    let greeting = greeting(session).await?;
    let on_session = |source| Error::postgres(format!("could not lend a session to {name}"), source);
    session.batch_execute(&format!("SAVEPOINT {SAVEPOINT}")).await.map_err(on_session)?;
    let connected = std::cell::Cell::new(false);
    let mut serving = std::pin::pin!(async {
        let (program, _) = listener.accept().await.map_err(failed)?;
        connected.set(true);
        serve(session, program, &greeting).await
    });
    let mut running = std::pin::pin!(tools::run(command, name));
    let finished = tokio::select! {
        finished = &mut running => {
            let finished = finished?;
            if connected.get() {
                timeout(REST_OF_AN_ANSWER, serving)
                    .await
                    .unwrap_or_else(|_| Err(Error::failed(format!("{name} ended, and the server's answer to it did not"))))?;
            }
            finished
        }
        served = &mut serving => {
            served?;
            running.await?
        }
    };
    if finished.success || !session.is_closed() {
        let back = format!("ROLLBACK TO SAVEPOINT {SAVEPOINT}; RELEASE SAVEPOINT {SAVEPOINT}");
        match session.batch_execute(&back).await {
            // What the program says is nearer to the reason.
            Err(_) if !finished.success => {}
            result => result.map_err(on_session)?,
        }
    }
    Ok(finished)
}

/// What a server says to a new connection: that it may come in, and its parameters.
async fn greeting(session: &Session) -> Result<Vec<u8>> {
    const REPORTED: [&str; 11] = [
        "server_version",
        "server_encoding",
        "client_encoding",
        "DateStyle",
        "IntervalStyle",
        "TimeZone",
        "integer_datetimes",
        "standard_conforming_strings",
        "is_superuser",
        "session_authorization",
        "in_hot_standby",
    ];
    let rows = session
        .query(
            "SELECT n, pg_catalog.current_setting(n, true) FROM pg_catalog.unnest($1::pg_catalog.text[]) n",
            &[&REPORTED.as_slice()],
        )
        .await
        .map_err(|source| Error::postgres("could not read the server's parameters", source))?;
    let mut greeting = Vec::new();
    // Authenticated.
    message(&mut greeting, b'R', &0_u32.to_be_bytes());
    for row in rows {
        if let (name, Some(value)) = (row.get::<_, String>(0), row.get::<_, Option<String>>(1)) {
            message(&mut greeting, b'S', format!("{name}\0{value}\0").as_bytes());
        }
    }
    // Nobody is asked to cancel anything: a program that is ended closes its connection.
    message(&mut greeting, b'K', &[0; 8]);
    message(&mut greeting, READY_FOR_QUERY, b"T");
    Ok(greeting)
}

fn message(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    out.push(kind);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(body);
}

/// Greets the program and passes on what it asks, until it says goodbye or is gone.
async fn serve(session: &Session, mut program: UnixStream, greeting: &[u8]) -> Result<()> {
    let failed = |source| Error::failed(format!("could not speak for a client program: {source}"));
    loop {
        let length = program.read_u32().await.map_err(failed)?;
        let code = program.read_u32().await.map_err(failed)?;
        match code {
            SSL_REQUEST | GSS_REQUEST => program.write_all(b"N").await.map_err(failed)?,
            CANCEL_REQUEST => {
                return Err(Error::failed("a client program asked to cancel before it asked anything"));
            }
            _ => {
                let mut parameters = vec![0; length.saturating_sub(8).min(64 * 1024) as usize];
                program.read_exact(&mut parameters).await.map_err(failed)?;
                break;
            }
        }
    }
    program.write_all(greeting).await.map_err(failed)?;
    let mut loan = session.tap.lend();
    // Whoever ends without a goodbye has ended as well.
    while let Ok(kind) = program.read_u8().await {
        let Ok(length) = program.read_u32().await else { break };
        if kind == TERMINATE {
            break;
        }
        if kind != QUERY || !(4..=LONGEST_MESSAGE).contains(&length) {
            return Err(Error::failed(format!(
                "a client program sent a message of type {kind}, which can't be passed on"
            )));
        }
        let mut body = vec![0; length as usize - 4];
        if program.read_exact(&mut body).await.is_err() {
            break;
        }
        if body == b"BEGIN\0" {
            // In a transaction there is no BEGIN without a warning.
            body = format!("SAVEPOINT {SAVEPOINT}_begun\0").into_bytes();
        }
        let mut query = Vec::with_capacity(body.len() + 5);
        message(&mut query, QUERY, &body);
        loan.write_all(&query).await.map_err(failed)?;
        if !answer(&mut loan, &mut program).await.map_err(failed)? {
            // The server is gone, and so is our connection to it.
            return Ok(());
        }
    }
    session.tap.returned();
    drop(loan);
    Ok(())
}

/// Passes one answer on, up to and with the message that ends it. Returns whether it came to its end.
async fn answer(loan: &mut DuplexStream, program: &mut UnixStream) -> std::io::Result<bool> {
    let mut messages = Messages::default();
    let mut bytes = vec![0; 32 * 1024];
    loop {
        let count = loan.read(&mut bytes).await?;
        if count == 0 {
            return Ok(false);
        }
        messages.follow(&bytes[..count]);
        // A program that ended does not read any more; the rest of the answer is still the server's to give.
        let _ = program.write_all(&bytes[..count]).await;
        if messages.is_ready && messages.is_between() {
            return Ok(true);
        }
    }
}

/// Where in the server's messages the next byte stands.
#[derive(Default)]
struct Messages {
    header: Vec<u8>,
    left: usize,
    /// Whether the server said that it waits for the next statement.
    is_ready: bool,
}

impl Messages {
    fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let count = self.left.min(bytes.len());
                self.left -= count;
                bytes = &bytes[count..];
                continue;
            }
            self.header.push(bytes[0]);
            bytes = &bytes[1..];
            if let [kind, a, b, c, d] = self.header[..] {
                self.is_ready |= kind == READY_FOR_QUERY;
                self.left = (u32::from_be_bytes([a, b, c, d]) as usize).saturating_sub(4);
                self.header.clear();
            }
        }
    }

    fn is_between(&self) -> bool {
        self.left == 0 && self.header.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn an_answer_ends_at_its_last_message_however_it_is_cut(
            bodies in proptest::collection::vec(proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40), 0..6),
            cut in 1_usize..20,
        ) {
            let mut answer = Vec::new();
            for body in &bodies {
                message(&mut answer, b'D', body);
            }
            message(&mut answer, READY_FOR_QUERY, b"T");
            let mut messages = Messages::default();
            let last = answer.len() - 1;
            let (begin, end) = answer.split_at(last);
            for piece in begin.chunks(cut) {
                messages.follow(piece);
                proptest::prop_assert!(!(messages.is_ready && messages.is_between()));
            }
            messages.follow(end);
            proptest::prop_assert!(messages.is_ready && messages.is_between());
        }
    }
}
