//! Settings to session: tries the servers in order, with and without TLS as `sslmode` says.
//!
//! Safety of the order: a password goes to a server without TLS only when `sslmode` allows plain connections *and* the
//! server offered no TLS, the handshake failed, or its pg_hba.conf refused the encrypted connection before any password was
//! asked for. A wrong password is never tried again in the clear.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

use super::{
    client::Client,
    connect_error::{Failure, all_failed, explain, unresolved, was_ended, wrong_kind_of_server},
    pooler,
    session::{Notices, drive, setup_sql, version_num},
    settings::{ChannelBinding, Place, TargetSession},
    tap::{Begins, Tap, TapHandle},
    tls::{self, Connector},
    wire::{Address, Route},
};
pub use super::{
    environment::Environment,
    pooler::refuse_pooler,
    secret::Secret,
    session::{CancelHandle, Notice, NoticeHandler, Session, SessionProfile},
    settings::{ConnectionSettings, Server, SslMode, VARIABLES_TO_CLEAR},
};
use crate::{
    error::{Error, ErrorKind, Result},
    interrupt,
};

/// Limit for one attempt at one address when `connect_timeout` is not given: a firewall that drops packets would hold a
/// connection for over two minutes otherwise, and a loaded server answers well within it.
const DEFAULT_ATTEMPT_LIMIT: Duration = Duration::from_secs(30);

/// First and longest pause between two attempts of [`ConnectionSettings::connect_waiting`].
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// SQLSTATE `too_many_connections`.
const TOO_MANY: &str = "53300";

/// Pauses before a connection is tried again whose session was ended while it began, or had no place.
const PAUSES_AFTER_AN_END: [Duration; 3] =
    [Duration::from_millis(50), Duration::from_millis(150), Duration::from_millis(400)];

impl ConnectionSettings {
    /// Connects a session of ours, with every parameter pinned; its notices are kept in the session.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Busy`] while the server cannot be reached, is starting or is full; [`ErrorKind::Refused`] when it, or
    /// TLS, says no; [`ErrorKind::Usage`] for startup options that the server does not know.
    pub async fn connect(&self) -> Result<Session> {
        self.connect_as(SessionProfile::Pinned, None).await
    }

    /// Connects a session of ours whose notices go to `handler` as they arrive.
    ///
    /// # Errors
    ///
    /// As [`ConnectionSettings::connect`].
    pub async fn connect_with_notices(&self, handler: NoticeHandler) -> Result<Session> {
        self.connect_as(SessionProfile::Pinned, Some(handler)).await
    }

    /// Connects with a profile; without a handler the notices are kept in the session.
    ///
    /// # Errors
    ///
    /// As [`ConnectionSettings::connect`].
    pub async fn connect_as(
        &self,
        profile: SessionProfile,
        handler: Option<NoticeHandler>,
    ) -> Result<Session> {
        let notices = Notices::new(handler);
        // A preference is a requirement first, and no requirement when nobody meets it.
        let passes: &[TargetSession] = match self.target_session() {
            TargetSession::PreferStandby => &[TargetSession::Standby, TargetSession::Any],
            other => &[other],
        };
        let mut failures = Vec::new();
        for target in passes {
            failures.clear();
            for server in self.servers() {
                // On the heap: every caller's future would hold all of it, and so would theirs.
                let connect = || Box::pin(self.connect_to(server, *target, profile, &notices));
                match again_after_an_end(connect).await {
                    Ok(session) => return Ok(session),
                    // As libpq: a server that answers with a refusal ends the search.
                    Err(error) if error.kind() != ErrorKind::Busy => return Err(error),
                    Err(error) => failures.push(error),
                }
            }
        }
        Err(all_failed(self, failures))
    }

    /// Connects a session of ours, and while the server cannot be reached, is starting or is full tries again for up to
    /// `limit`. `progress` is called with the reason of every failed attempt that will be repeated.
    ///
    /// # Errors
    ///
    /// As [`ConnectionSettings::connect`]; a wrong password or an unknown database at once.
    pub async fn connect_waiting(
        &self,
        limit: Duration,
        mut progress: impl FnMut(&Error),
    ) -> Result<Session> {
        let started = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let left = limit.saturating_sub(started.elapsed());
            match tokio::time::timeout(left.max(FIRST_PAUSE), self.connect()).await {
                Ok(Err(error)) if error.kind() == ErrorKind::Busy && started.elapsed() + pause < limit => {
                    progress(&error);
                }
                Ok(Err(error)) if error.kind() == ErrorKind::Busy => {
                    return Err(error.context(format!("gave up after waiting {} s", limit.as_secs())));
                }
                Ok(outcome) => return outcome,
                Err(_) => {
                    return Err(Error::busy(format!(
                        "gave up after waiting {} s: {} does not answer",
                        limit.as_secs(),
                        self.host_label()
                    ))
                    .with_hint("Check that the server runs and that the network lets its port through."));
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn connect_to(
        &self,
        server: &Server,
        target: TargetSession,
        profile: SessionProfile,
        notices: &Notices,
    ) -> Result<Session> {
        // Ours, so that the first batch of a role with a short statement_timeout is not cut off.
        let ours = profile == SessionProfile::Pinned;
        let addresses = match &server.place {
            Place::Socket(_) => vec![None],
            Place::Tcp { address: Some(address), .. } => vec![Some(*address)],
            Place::Tcp { host, address: None } => {
                resolve(self, server, host).await?.into_iter().map(Some).collect()
            }
        };
        let mut failures = Vec::new();
        for address in addresses {
            let limit = self.connect_timeout().unwrap_or(DEFAULT_ATTEMPT_LIMIT);
            let attempt = |pins| Attempt { settings: self, server, address, notices, pins };
            let started = async {
                let start = async |pins| {
                    let opened = attempt(pins).open().await?;
                    attempt(pins).start(opened, target, profile).await
                };
                let is_silent = self.has_no_event_triggers();
                let first = start(match (ours, is_silent) {
                    (false, _) => "",
                    (true, false) => TIMEOUT_OFF,
                    (true, true) => SILENT_17,
                })
                .await;
                match &first {
                    // A pooler that knows no startup options: the first batch sets what they would have set.
                    Err(error) if ours && error.sqlstate() == Some("08P01") && self.options().is_none() => {
                        start("").await
                    }
                    // Ended by the role's own transaction_timeout, which exists from 17 on: there it can be named.
                    Err(error) if ours && !is_silent && error.sqlstate() == Some("25P04") => {
                        start(TIMEOUTS_OFF_17).await
                    }
                    _ => first,
                }
            };
            match tokio::time::timeout(limit, started).await {
                Ok(Ok(session)) => return Ok(session),
                Ok(Err(error)) if error.kind() != ErrorKind::Busy => return Err(error),
                Ok(Err(error)) => failures.push(error),
                Err(_) => failures.push(explain(self, server, &Failure::Timeout(limit))),
            }
        }
        // The addresses of one name are one server to a person: the last one's reason stands for all.
        Err(failures.pop().unwrap_or_else(|| unresolved(self, server, None)))
    }
}

/// Connects, again where the session is ended while it begins: another run's fence ends everybody's, and who comes back learns from the
/// server, or from that run's mark, what is going on. And where there is no place: a session of ours that was just closed has its for
/// a moment longer.
async fn again_after_an_end<F: Future<Output = Result<Session>>>(connect: impl Fn() -> F) -> Result<Session> {
    for pause in PAUSES_AFTER_AN_END {
        match connect().await {
            Err(error) if was_ended(&error) || error.sqlstate() == Some(TOO_MANY) => {
                tokio::time::sleep(pause).await;
            }
            outcome => return outcome,
        }
    }
    connect().await
}

async fn resolve(settings: &ConnectionSettings, server: &Server, host: &str) -> Result<Vec<IpAddr>> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    match tokio::net::lookup_host((host, server.port)).await {
        Ok(found) => {
            let mut addresses: Vec<IpAddr> = Vec::new();
            for address in found.map(|address: SocketAddr| address.ip()) {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
            if addresses.is_empty() { Err(unresolved(settings, server, None)) } else { Ok(addresses) }
        }
        Err(error) => Err(unresolved(settings, server, Some(error))),
    }
}

/// A connection that the server accepted, before its session is set up.
struct Opened {
    client: Client,
    driver: tokio::task::JoinHandle<Result<(), tokio_postgres::Error>>,
    server_version: String,
    tls: Option<Connector>,
    route: Route,
    tap: TapHandle,
    /// Until the first statement is answered: what the server warns of so long belongs to the login.
    logging_in: Arc<AtomicBool>,
}

/// What must hold before the first statement of a session of ours: `ALTER ROLE … SET statement_timeout = '5ms'` ends it
/// otherwise. Options of the startup packet outrank the settings of the role and of the database.
const TIMEOUT_OFF: &str = "-c statement_timeout=0";
/// The same with a setting that an older server refuses a connection for.
const TIMEOUTS_OFF_17: &str = "-c statement_timeout=0 -c transaction_timeout=0";

/// The same for a superuser whose sessions shall fire no event triggers.
const SILENT_17: &str = "-c statement_timeout=0 -c transaction_timeout=0 -c event_triggers=off";

/// One address of one server.
struct Attempt<'a> {
    settings: &'a ConnectionSettings,
    server: &'a Server,
    address: Option<IpAddr>,
    notices: &'a Notices,
    /// Startup options of ours, after the user's own.
    pins: &'static str,
}

/// How one attempt uses TLS.
#[derive(Clone, Copy, PartialEq, Eq)]
enum UseTls {
    No,
    IfOffered,
    Yes,
}

impl Attempt<'_> {
    /// Opens the connection with the fall-backs of `sslmode`.
    async fn open(&self) -> Result<Opened> {
        let tls = self.settings.tls();
        if matches!(self.server.place, Place::Socket(_)) || tls.mode == SslMode::Disable {
            return self.once(UseTls::No, None).await.map_err(|failure| self.explain(&failure));
        }
        let (first, second) = match tls.mode {
            SslMode::Allow => (UseTls::No, Some(UseTls::Yes)),
            SslMode::Prefer => (UseTls::IfOffered, Some(UseTls::No)),
            _ => (UseTls::Yes, None),
        };
        // With `allow` the files are needed only for the second attempt, but a broken one is better known at once.
        let connector = tls::connector(tls)?;
        let failure = match self.once(first, Some(&connector)).await {
            Ok(opened) => return Ok(opened),
            Err(failure) => failure,
        };
        let Some(second) = second.filter(|second| failure.may_differ_with_tls(*second == UseTls::Yes)) else {
            return Err(self.explain(&failure));
        };
        match self.once(second, Some(&connector)).await {
            Ok(opened) => Ok(opened),
            // Of two reasons the encrypted connection's is the one to solve, unless the other says more than "no".
            Err(other) => {
                let encrypted_first = second == UseTls::No;
                let (encrypted, plain) =
                    if encrypted_first { (&failure, &other) } else { (&other, &failure) };
                let shown = if encrypted.is_about_tls() { plain } else { encrypted };
                Err(self.explain(shown))
            }
        }
    }

    fn explain(&self, failure: &Failure) -> Error {
        explain(self.settings, self.server, failure)
    }

    async fn once(&self, use_tls: UseTls, connector: Option<&Connector>) -> Result<Opened, Failure> {
        let mut config = self.config();
        config.ssl_mode(match use_tls {
            UseTls::No => tokio_postgres::config::SslMode::Disable,
            UseTls::IfOffered => tokio_postgres::config::SslMode::Prefer,
            UseTls::Yes => tokio_postgres::config::SslMode::Require,
        });
        let route = self.route();
        let wire = route.dial().await.map_err(Failure::Dial)?;
        let tap = TapHandle::default();
        let logging_in = Arc::new(AtomicBool::new(true));
        match connector.filter(|_| use_tls != UseTls::No) {
            Some(connector) => {
                let is_direct = self.settings.tls().direct;
                let begins = if is_direct { Begins::Encrypted } else { Begins::WithAnswer };
                let handshake = connector.for_host(&route.host, tap.clone());
                let wire = Tap::new(wire, begins, tap.clone());
                let (client, connection) =
                    config.connect_raw(wire, handshake).await.map_err(Failure::Driver)?;
                let server_version = connection.parameter("server_version").unwrap_or_default().to_owned();
                let driver = drive(connection, self.notices.clone(), logging_in.clone());
                let tls = Some(connector.clone()).filter(Connector::was_used);
                Ok(Opened { client: client.into(), driver, server_version, tls, route, tap, logging_in })
            }
            None => {
                let wire = Tap::new(wire, Begins::Plain, tap.clone());
                let (client, connection) = config.connect_raw(wire, NoTls).await.map_err(Failure::Driver)?;
                let server_version = connection.parameter("server_version").unwrap_or_default().to_owned();
                let driver = drive(connection, self.notices.clone(), logging_in.clone());
                let client = client.into();
                Ok(Opened { client, driver, server_version, tls: None, route, tap, logging_in })
            }
        }
    }

    fn route(&self) -> Route {
        let (address, host) = match (&self.server.place, self.address) {
            (Place::Socket(folder), _) => (Address::Unix(folder.into()), String::new()),
            // The name is what TLS verifies; the address is what is dialled.
            (Place::Tcp { host, .. }, Some(address)) => (Address::Tcp(address), host.clone()),
            (Place::Tcp { .. }, None) => unreachable!("every host is looked up before it is tried"),
        };
        Route { address, port: self.server.port, host, keepalives: self.settings.keepalives() }
    }

    fn config(&self) -> Config {
        let settings = self.settings;
        let mut config = Config::new();
        config.user(settings.user()).dbname(settings.database());
        if let Some(password) = settings.password_for(self.server) {
            config.password(password.expose());
        }
        let options = [settings.options().unwrap_or_default(), self.pins];
        let options = options.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(" ");
        if !options.is_empty() {
            config.options(options);
        }
        if let Some(name) = settings.application_name() {
            config.application_name(name);
        }
        if settings.tls().direct {
            config.ssl_negotiation(tokio_postgres::config::SslNegotiation::Direct);
        }
        config.channel_binding(match settings.channel_binding() {
            ChannelBinding::Disable => tokio_postgres::config::ChannelBinding::Disable,
            ChannelBinding::Prefer => tokio_postgres::config::ChannelBinding::Prefer,
            ChannelBinding::Require => tokio_postgres::config::ChannelBinding::Require,
        });
        config
    }

    /// Checks the kind of server and pins the session's parameters.
    async fn start(&self, opened: Opened, target: TargetSession, profile: SessionProfile) -> Result<Session> {
        let Opened { client, driver, server_version, tls, route, tap, logging_in } = opened;
        let mut sql = setup_sql(profile, version_num(&server_version));
        // One round trip: the parameters, and what we need to know about the server.
        sql.push_str(
            "SELECT pg_catalog.pg_backend_pid(), pg_catalog.current_setting('server_version_num'), \
             pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('transaction_read_only')",
        );
        let rows = client.simple_query(&sql).await.map_err(|error| self.explain(&Failure::Driver(error)))?;
        logging_in.store(false, Ordering::Relaxed);
        let row = rows.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let field = |index| row.and_then(|row| row.try_get(index).ok().flatten());
        let number = |index| field(index).and_then(|text: &str| text.parse::<i32>().ok());
        let (Some(backend_pid), Some(version_num)) = (number(0), number(1)) else {
            return Err(Error::refused(format!(
                "{} does not answer as a PostgreSQL server",
                self.server.label()
            ))
            .with_hint(
                "Check the host and the port; connect to PostgreSQL itself, not to another service.",
            ));
        };
        let in_recovery = field(2) == Some("t");
        let read_only = in_recovery || field(3) == Some("on");
        let wanted = match target {
            TargetSession::Any | TargetSession::PreferStandby => true,
            TargetSession::ReadWrite => !read_only,
            TargetSession::ReadOnly => read_only,
            TargetSession::Primary => !in_recovery,
            TargetSession::Standby => in_recovery,
        };
        if !wanted {
            return Err(wrong_kind_of_server(self.server, target));
        }
        let key_pid = pooler::key_pid(&client.cancel_token()).await?;
        let settings = self.settings.narrowed_to(self.server);
        let notices = self.notices.clone();
        let cancel = CancelHandle::new(&client, tls.clone(), route.clone(), settings.host_label());
        let _registration = interrupt::Registration::new(cancel.on_signal());
        Ok(Session {
            client,
            driver,
            notices,
            tls,
            route,
            tap,
            settings,
            backend_pid,
            key_pid,
            version_num,
            _registration,
        })
    }
}
