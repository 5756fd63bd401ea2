//! A connected session: the driver's client, the task that drives it, its notices and its cancellation.
//!
//! The task ends when the [`Session`] is dropped; [`Session::close`] waits for that, so that the server is known to have
//! been told goodbye before, say, its database is renamed.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    ops::Deref,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    task::JoinHandle,
};
use tokio_postgres::{AsyncMessage, CancelToken, Connection, NoTls, SimpleQueryMessage, error::Severity};

use super::{
    client::Client,
    settings::ConnectionSettings,
    tap::{Begins, RowSink, Tap, TapHandle},
    tls::Connector,
    wire::Route,
};
use crate::{
    error::{Error, Result},
    ident::printable,
    interrupt,
};

/// Most notices that a session keeps when nobody asked to be called for each: enough for a person, and a loop of RAISE
/// NOTICE must not fill the memory.
const NOTICES_KEPT: usize = 1000;

/// How long a cancel request may take: it is a new connection, and the server may be gone.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);

/// What the session is for, which decides the parameters that are set when it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionProfile {
    /// Ours: everything that changes the text of values or the meaning of names is pinned, and no timeout ends it.
    Pinned,
    /// A migration's: the user's defaults hold (search_path, DateStyle, row_security …), because the migration was
    /// written for them; only the timeouts that would end an idle session are off.
    Migration,
}

/// A message that the server sent beside its results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// `WARNING`, `NOTICE`, `INFO` …, in the server's language.
    pub severity: String,
    /// The SQLSTATE.
    pub code: String,
    /// The message, as the server sent it: may contain data of the database.
    pub message: String,
    /// More about it.
    pub detail: Option<String>,
    /// What the server suggests.
    pub hint: Option<String>,
}

impl fmt::Display for Notice {
    /// `WARNING: message (detail)` on one line, control characters escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", printable(&self.severity), printable(&self.message))?;
        match &self.detail {
            Some(detail) => write!(f, " ({})", printable(detail)),
            None => Ok(()),
        }
    }
}

/// Called for each notice as it arrives, from the task that drives the connection: it must not block.
pub type NoticeHandler = Arc<dyn Fn(Notice) + Send + Sync>;

/// Where notices go.
#[derive(Clone)]
pub(super) enum Notices {
    Kept(Arc<Mutex<KeptNotices>>),
    Handled(NoticeHandler),
}

#[derive(Default)]
pub(super) struct KeptNotices {
    notices: VecDeque<Notice>,
    dropped: u64,
}

impl Notices {
    pub(super) fn new(handler: Option<NoticeHandler>) -> Self {
        handler.map_or_else(|| Self::Kept(Arc::default()), Self::Handled)
    }

    fn add(&self, notice: Notice) {
        match self {
            Self::Handled(handler) => handler(notice),
            Self::Kept(kept) => {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                if kept.notices.len() == NOTICES_KEPT {
                    kept.notices.pop_front();
                    kept.dropped += 1;
                }
                kept.notices.push_back(notice);
            }
        }
    }
}

/// Runs the connection until the client is dropped or the connection breaks; gives the reason of a break. Warnings while
/// `logging_in` are those of the login.
pub(super) fn drive<S, T>(
    mut connection: Connection<S, T>,
    notices: Notices,
    logging_in: Arc<AtomicBool>,
) -> JoinHandle<Result<(), tokio_postgres::Error>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notice(notice) = message? {
                let is_warning = notice.parsed_severity() == Some(Severity::Warning);
                let notice = Notice {
                    severity: notice.severity().to_owned(),
                    code: notice.code().code().to_owned(),
                    message: notice.message().to_owned(),
                    detail: notice.detail().map(str::to_owned),
                    hint: notice.hint().map(str::to_owned),
                };
                if is_warning && logging_in.load(Ordering::Relaxed) {
                    super::login::heard(notice);
                } else {
                    notices.add(notice);
                }
            }
        }
        Ok(())
    })
}

/// One connected session. Dereferences to the driver's client.
pub struct Session {
    pub(super) client: Client,
    pub(super) driver: JoinHandle<Result<(), tokio_postgres::Error>>,
    pub(super) notices: Notices,
    pub(super) tls: Option<Connector>,
    pub(super) route: Route,
    pub(super) tap: TapHandle,
    pub(super) settings: ConnectionSettings,
    pub(super) backend_pid: i32,
    pub(super) key_pid: i32,
    pub(super) version_num: i32,
    pub(super) _registration: interrupt::Registration,
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("settings", &self.settings)
            .field("backend_pid", &self.backend_pid)
            .field("version_num", &self.version_num)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// `pg_backend_pid()` when the session started.
    pub fn backend_pid(&self) -> i32 {
        self.backend_pid
    }

    /// The process id that came with the cancel key. A pooler in between makes one up.
    pub(super) fn key_pid(&self) -> i32 {
        self.key_pid
    }

    /// `server_version_num`: 150018 for 15.18.
    pub fn server_version_num(&self) -> i32 {
        self.version_num
    }

    /// 15 for 15.18.
    pub fn server_major(&self) -> u32 {
        u32::try_from(self.version_num / 10_000).unwrap_or(0)
    }

    /// Whether the session is encrypted.
    pub fn uses_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// The settings reduced to the server that answered: for children and further sessions that must reach the same one.
    pub fn settings(&self) -> &ConnectionSettings {
        &self.settings
    }

    /// Cancels what this session runs, from another task.
    pub fn cancel_handle(&self) -> CancelHandle {
        CancelHandle::new(&self.client, self.tls.clone(), self.route.clone(), self.settings.host_label())
    }

    /// Runs `statements`, each of them a `COPY … TO STDOUT`, and hands all their rows to `sink`. Gives it back, and the number
    /// of rows that the server says it sent for each statement.
    ///
    /// # Errors
    ///
    /// What the sink failed with, after which the connection is gone; `failed` with what the server says, or with a connection
    /// that broke.
    pub async fn copy_out<S: RowSink + 'static>(
        &self,
        statements: &str,
        sink: S,
        failed: &str,
    ) -> Result<(S, Vec<u64>)> {
        let sink = Arc::new(Mutex::new(sink));
        let open = self.tap.open(sink.clone());
        let answered = self.client.simple_query(statements).await;
        if let Some(failure) = open.failure() {
            return Err(failure);
        }
        // Nobody else has the sink any more.
        drop(open);
        let answers = answered.map_err(|source| Error::postgres(failed, source))?;
        let counts = answers.iter().filter_map(|answer| match answer {
            SimpleQueryMessage::CommandComplete(rows) => Some(*rows),
            _ => None,
        });
        let counts = counts.collect();
        let sink =
            Arc::into_inner(sink).ok_or_else(|| Error::failed("the rows' destination is still in use"))?;
        Ok((sink.into_inner().unwrap_or_else(PoisonError::into_inner), counts))
    }

    /// Takes back what a migration set with SET, SET ROLE or SET SESSION AUTHORIZATION, as a new connection would.
    ///
    /// # Errors
    ///
    /// The transaction is aborted, or the connection is gone.
    pub async fn reset_settings(&self) -> Result<()> {
        let setup = setup_sql(SessionProfile::Migration, self.version_num);
        self.client
            .batch_execute(&format!("RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; {setup}"))
            .await
            .map_err(|source| Error::postgres("could not reset the session's settings", source))
    }

    /// Sets everything that changes the text of values or the meaning of names, as it is in sessions of ours.
    ///
    /// # Errors
    ///
    /// The transaction is aborted, or the connection is gone.
    pub async fn pin_settings(&self) -> Result<()> {
        self.client
            .batch_execute(&setup_sql(SessionProfile::Pinned, self.version_num))
            .await
            .map_err(|source| Error::postgres("could not set the session's settings", source))
    }

    /// Lets names mean PostgreSQL's own alone, for what is ours between the statements of a migration: its `search_path` may lead to
    /// what others made, also before `pg_catalog`. Until [`Session::own_names`] or [`Session::reset_settings`].
    ///
    /// # Errors
    ///
    /// The transaction is aborted, or the connection is gone.
    pub async fn only_catalog_names(&self) -> Result<()> {
        self.client
            .batch_execute("SET search_path = ''")
            .await
            .map_err(|source| Error::postgres("could not set the session's search_path", source))
    }

    /// Gives the session its own `search_path` again.
    ///
    /// # Errors
    ///
    /// The transaction is aborted, or the connection is gone.
    pub async fn own_names(&self) -> Result<()> {
        self.client
            .batch_execute("RESET search_path")
            .await
            .map_err(|source| Error::postgres("could not set the session's search_path", source))
    }

    /// The id of the open transaction, where it has one.
    ///
    /// # Errors
    ///
    /// The transaction is aborted, or the connection is gone.
    pub async fn assigned_xid(&self) -> Result<Option<String>> {
        let row = self
            .query_one("SELECT pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.text", &[])
            .await
            .map_err(|source| Error::postgres("could not read the transaction's id", source))?;
        Ok(row.get(0))
    }

    /// The notices since the last call, oldest first, and how many older ones were dropped. Empty with a handler.
    pub fn take_notices(&self) -> (Vec<Notice>, u64) {
        match &self.notices {
            Notices::Handled(_) => (Vec::new(), 0),
            Notices::Kept(kept) => {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                (kept.notices.drain(..).collect(), std::mem::take(&mut kept.dropped))
            }
        }
    }

    /// Ends the session and waits until the goodbye is sent.
    ///
    /// # Errors
    ///
    /// The connection had already broken.
    pub async fn close(self) -> Result<()> {
        let label = self.settings.host_label();
        drop(self.client);
        match self.driver.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Error::postgres(format!("the session on {label} broke"), error)),
            Err(error) => {
                Err(Error::failed(format!("the session on {label} broke: {error}")).with_source(error))
            }
        }
    }
}

/// Asks the server to cancel what one session is running, with the same TLS as the session.
#[derive(Clone)]
pub struct CancelHandle {
    token: CancelToken,
    tls: Option<Connector>,
    route: Route,
    label: String,
}

impl fmt::Debug for CancelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelHandle").field("server", &self.label).finish_non_exhaustive()
    }
}

impl CancelHandle {
    pub(super) fn new(client: &Client, tls: Option<Connector>, route: Route, label: String) -> Self {
        Self { token: client.cancel_token(), tls, route, label }
    }

    /// What a signal calls for as long as the session is registered for it.
    pub(super) fn on_signal(self) -> interrupt::Cancel {
        Arc::new(move || {
            let handle = self.clone();
            Box::pin(async move { handle.cancel().await })
        })
    }

    /// Sends the request and waits until the server has passed it on. Whether it came in time shows in the session's own
    /// result (SQLSTATE 57014).
    ///
    /// # Errors
    ///
    /// The server could not be reached within ten seconds.
    pub async fn cancel(&self) -> Result<()> {
        let request = async {
            let unreachable = |source| {
                let what = format!("could not reach {} to cancel a statement: {source}", self.label);
                Error::busy(what).with_source(source)
            };
            let wire = self.route.dial().await.map_err(unreachable)?;
            let mut answer = wire.duplicate().map_err(unreachable)?;
            let tap = TapHandle::default();
            // Nothing is read here, so there is nothing to follow.
            let wire = Tap::new(wire, Begins::Encrypted, tap.clone());
            let sent = match &self.tls {
                Some(tls) => self.token.cancel_query_raw(wire, tls.for_host(&self.route.host, tap)).await,
                None => self.token.cancel_query_raw(wire, NoTls).await,
            };
            let failed =
                |error| Error::postgres(format!("could not send a cancel request to {}", self.label), error);
            sent.map_err(failed)?;
            // The server closes the connection when it has passed the request on. Before that it could hit a later statement.
            let mut nothing = [0; 64];
            while answer.read(&mut nothing).await.is_ok_and(|read| read > 0) {}
            Ok(())
        };
        match tokio::time::timeout(CANCEL_TIMEOUT, request).await {
            Ok(sent) => sent,
            Err(_) => Err(Error::busy(format!(
                "a cancel request to {} was not answered within {} s",
                self.label,
                CANCEL_TIMEOUT.as_secs()
            ))),
        }
    }
}

/// The statements that a new session runs, as one batch: they come after the server applied the settings of the role
/// and the database, and so beat them.
pub(super) fn setup_sql(profile: SessionProfile, version_num: i32) -> String {
    let mut sql = String::new();
    if profile == SessionProfile::Pinned {
        sql.push_str(
            "SET client_encoding = 'UTF8'; SET \"DateStyle\" = 'ISO, YMD'; SET \"IntervalStyle\" = 'postgres'; \
             SET \"TimeZone\" = 'UTC'; SET extra_float_digits = 3; SET bytea_output = 'hex'; \
             SET standard_conforming_strings = on; SET row_security = off; SET synchronize_seqscans = off; \
             SET search_path = ''; SET statement_timeout = 0; SET lock_timeout = 0; \
             SET lc_monetary = 'C'; SET xmloption = 'content'; SET array_nulls = on; \
             SET quote_all_identifiers = off; SET transform_null_equals = off; SET constraint_exclusion = off; \
             SET default_transaction_read_only = off; ",
        );
    }
    sql.push_str("SET idle_in_transaction_session_timeout = 0; ");
    if version_num >= 140_000 {
        sql.push_str("SET idle_session_timeout = 0; ");
    }
    if version_num >= 170_000 {
        sql.push_str("SET transaction_timeout = 0; ");
    }
    sql
}

/// `15.18 (Debian 15.18-0+deb12u1)` → 150018, `18beta1` → 180000, `9.6.24` → 90624; 0 if it is none of these.
pub(super) fn version_num(server_version: &str) -> i32 {
    let number = server_version.split(|c: char| !(c.is_ascii_digit() || c == '.')).next().unwrap_or_default();
    let mut parts = number.split('.').map(|part| part.parse::<i32>().ok().filter(|part| *part < 1000));
    let mut next = || parts.next().flatten();
    match (next(), next(), next()) {
        (Some(major), minor, _) if major >= 10 => major * 10_000 + minor.unwrap_or(0),
        (Some(major), minor, patch) => major * 10_000 + minor.unwrap_or(0) * 100 + patch.unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_strings_become_numbers() {
        for (text, number) in [
            ("15.18 (Debian 15.18-0+deb12u1)", 150_018),
            ("18beta1", 180_000),
            ("19devel", 190_000),
            ("9.6.24", 90_624),
            ("14.2.0-pgbouncer", 140_002),
            ("", 0),
            ("99999999999.1", 0),
        ] {
            assert_eq!(version_num(text), number, "{text}");
        }
    }

    #[test]
    fn timeouts_are_only_set_where_the_server_knows_them() {
        let at = |version| setup_sql(SessionProfile::Migration, version);
        assert_eq!(at(130_010), "SET idle_in_transaction_session_timeout = 0; ");
        assert!(
            at(140_000).contains("idle_session_timeout = 0; ")
                && !at(160_000).contains("transaction_timeout")
        );
        assert!(at(170_000).contains("SET transaction_timeout = 0"));
        assert!(!at(170_000).contains("search_path"));
        assert!(setup_sql(SessionProfile::Pinned, 150_000).contains("SET search_path = ''"));
    }
}
