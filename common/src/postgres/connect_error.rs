//! Why a connection failed → what a person reads: server, database and user named, the next action, the right kind.
//!
//! Busy means that the same command may work later; Refused that somebody has to change something. No message has a
//! password: neither the driver nor the server repeats one.

use std::{error::Error as StdError, io, time::Duration};

use super::{
    settings::{ConnectionSettings, Place, Server, SslMode, TargetSession},
    tls,
};
use crate::{
    error::{Error, ErrorKind},
    ident::printable,
};

/// How one attempt failed.
pub(super) enum Failure {
    /// The server could not be reached.
    Dial(io::Error),
    /// What the driver says.
    Driver(tokio_postgres::Error),
    /// Nothing happened for this long.
    Timeout(Duration),
}

/// The driver's kinds, which it gives only as text: its own fixed labels, in the version that Cargo.lock pins. An unknown
/// label falls through to the general message.
const LABEL_TLS: &str = "error performing TLS handshake";
const LABEL_CONFIG: &str = "invalid configuration";
const LABEL_AUTHENTICATION: &str = "authentication error";

/// SQLSTATE `connection_failure`.
const CONNECTION_FAILURE: &str = "08006";
/// SQLSTATE `admin_shutdown`: the server stops, or somebody ended this one session.
const ADMIN_SHUTDOWN: &str = "57P01";

/// Whether the session was ended while it began, which a fence of another run does to everybody on its database. The server says so
/// only after the login; until then it closes the connection without a word.
pub(super) fn was_ended(error: &Error) -> bool {
    matches!(error.sqlstate(), Some(CONNECTION_FAILURE | ADMIN_SHUTDOWN))
}

impl Failure {
    fn has_label(&self, label: &str) -> bool {
        matches!(self, Self::Driver(error) if error.to_string() == label || error.to_string().starts_with(&format!("{label}:")))
    }

    fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Driver(error) => error.code().map(tokio_postgres::error::SqlState::code),
            Self::Dial(_) | Self::Timeout(_) => None,
        }
    }

    /// Whether it is TLS itself that failed.
    pub(super) fn is_about_tls(&self) -> bool {
        self.has_label(LABEL_TLS) || matches!(self, Self::Driver(error) if tls_error(error).is_some())
    }

    /// Whether the other kind of connection may fare better: TLS itself failed, or pg_hba.conf refused this kind.
    pub(super) fn may_differ_with_tls(&self, other_is_tls: bool) -> bool {
        self.sqlstate() == Some("28000") || (!other_is_tls && self.is_about_tls())
    }
}

/// Each cause in the chain, with what an [`io::Error`] wraps (its own `source` skips that).
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> Vec<&'a (dyn StdError + 'static)> {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push(cause);
        let wrapped = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match wrapped {
            Some(inner) => Some(inner as &(dyn StdError + 'static)),
            None => cause.source(),
        };
    }
    causes
}

fn tls_error(error: &tokio_postgres::Error) -> Option<&rustls::Error> {
    causes(error).into_iter().find_map(|cause| cause.downcast_ref())
}

fn io_error(error: &tokio_postgres::Error) -> Option<&io::Error> {
    causes(error).into_iter().find_map(|cause| cause.downcast_ref())
}

/// The failure as a person reads it.
pub(super) fn explain(settings: &ConnectionSettings, server: &Server, failure: &Failure) -> Error {
    let place = server.label();
    let error = match failure {
        Failure::Timeout(limit) => {
            return Error::busy(format!("{place} did not answer within {} s", limit.as_secs())).with_hint(
                "Check the host and the port, and that the network and firewalls let the connection through; \
                 connect_timeout sets another limit. From PostgreSQL 17 on a login event trigger that waits for a lock holds \
                 a session up as well.",
            );
        }
        Failure::Dial(cause) => return unreachable(settings, server, cause),
        Failure::Driver(error) => error,
    };
    if let Some(server_error) = error.as_db_error() {
        let refused = refused_by_server(settings, server, server_error);
        // The two after which the same server is tried again with other startup options.
        return match server_error.code().code() {
            code @ "08P01" if settings.options().is_none() => refused.with_sqlstate(code),
            code @ "25P04" => refused.with_sqlstate(code),
            _ => refused,
        };
    }
    let tls = settings.tls();
    let mode = tls.mode.as_str();
    if let Some(tls_error) = tls_error(error) {
        let roots = match tls_error {
            rustls::Error::InvalidCertificate(_) => format!(", authorities: {}", tls::roots_label(tls)),
            _ => String::new(),
        };
        return Error::refused(format!(
            "TLS with {place} failed (sslmode={mode}{roots}): {}",
            tls::describe(tls_error)
        ))
        .with_hint(tls::failure_hint(tls, tls_error));
    }
    if let Some(cause) = io_error(error) {
        return unreachable(settings, server, cause);
    }
    if failure.has_label(LABEL_TLS) {
        return Error::refused(format!("{place} does not support TLS, and sslmode={mode} needs it")).with_hint(
            "Turn TLS on in the server (ssl = on), or, only within a network that you trust, use sslmode=prefer or disable.",
        );
    }
    let user = printable(settings.user());
    if failure.has_label(LABEL_CONFIG) && settings.password_for(server).is_none() {
        return Error::refused(format!(
            "{place} asks for the password of user \"{user}\", and none was given"
        ))
        .with_hint("Set PGPASSWORD, add a line to ~/.pgpass (mode 0600), or put it into the database URL.");
    }
    let detail = causes(error).iter().map(|cause| format!(": {cause}")).collect::<String>();
    if failure.has_label(LABEL_AUTHENTICATION) {
        return Error::refused(format!("could not log in to {place} as user \"{user}\"{detail}")).with_hint(
            "Passwords (scram-sha-256, md5) and client certificates are supported; channel_binding=require needs TLS and a \
             SCRAM password.",
        );
    }
    if error.is_closed() {
        return Error::busy(format!("{place} closed the connection before it was established"))
            .with_sqlstate(CONNECTION_FAILURE)
            .with_hint("The server may be stopping or starting; its log says more. Try again.");
    }
    Error::failed(format!("could not connect to {place}: {error}{detail}"))
        .with_hint("Check that the port is PostgreSQL's and not another service's.")
}

fn refused_by_server(
    settings: &ConnectionSettings,
    server: &Server,
    error: &tokio_postgres::error::DbError,
) -> Error {
    let place = server.label();
    let user = printable(settings.user());
    let database = printable(settings.database());
    let says = printable(error.message());
    let code = error.code().code();
    let (kind, message, hint) = match code {
        "28P01" => (
            ErrorKind::Refused,
            format!("wrong password for user \"{user}\" on {place}, database \"{database}\""),
            "Check the password in the URL, PGPASSWORD or ~/.pgpass, in this order, and the user's name.".to_owned(),
        ),
        "28000" => (
            ErrorKind::Refused,
            format!("{place} does not let user \"{user}\" in to database \"{database}\": {says}"),
            if matches!(server.place, Place::Socket(_)) {
                "Over a socket the role is usually that of the operating system's user (peer): run as that user, name the \
                 right role, or connect over TCP with a password (host=localhost)."
                    .to_owned()
            } else {
                format!(
                    "Check that the role exists, and let it in with a line in the server's pg_hba.conf (then reload); this \
                     connection used sslmode={}.",
                    settings.tls().mode.as_str()
                )
            },
        ),
        "3D000" => (
            ErrorKind::Refused,
            format!("database \"{database}\" does not exist on {place}"),
            format!(
                "List the databases with `psql -l \"{}\"`, then correct the name, or create it.",
                settings.with_database("postgres").redacted_url()
            ),
        ),
        "57P03" => (
            ErrorKind::Busy,
            format!("{place} does not accept connections yet: {says}"),
            "Wait until it has started, for example with --wait.".to_owned(),
        ),
        ADMIN_SHUTDOWN | "57P02" => (
            ErrorKind::Busy,
            format!("{place} ended the connection as it began: {says}"),
            "The server is stopping, or somebody ends sessions (pg_terminate_backend). Try again, for example with --wait.".to_owned(),
        ),
        "53300" => (
            ErrorKind::Busy,
            format!("{place} has no free connection for user \"{user}\", database \"{database}\": {says}"),
            "Close idle sessions or raise max_connections, the role's or the database's CONNECTION LIMIT; fewer --jobs \
             need fewer connections."
                .to_owned(),
        ),
        "55000" => (
            ErrorKind::Refused,
            format!("database \"{database}\" on {place} is closed: {says}"),
            format!(
                "It was closed with ALLOW_CONNECTIONS false; open it with ALTER DATABASE {} ALLOW_CONNECTIONS true.",
                quoted(settings.database())
            ),
        ),
        "42501" => (
            ErrorKind::Refused,
            format!("user \"{user}\" may not connect to database \"{database}\" on {place}: {says}"),
            format!("Run GRANT CONNECT ON DATABASE {} TO {}.", quoted(settings.database()), quoted(settings.user())),
        ),
        // PgBouncer answers so to `options`, which the real server takes.
        "08P01" if settings.options().is_some() => (
            ErrorKind::Refused,
            format!("{place} does not take startup options: {says}"),
            "It is probably a connection pooler: use the direct URL of the database.".to_owned(),
        ),
        "22023" | "42704" | "42601" => (
            ErrorKind::Usage,
            format!("{place} refuses the startup options: {says}"),
            "Correct `options` in the connection string, or PGOPTIONS.".to_owned(),
        ),
        _ if code.starts_with("53") || code == "40001" => (
            ErrorKind::Busy,
            format!("{place} cannot take a connection now: {says}"),
            "Try again; the server's log says more.".to_owned(),
        ),
        _ => (
            ErrorKind::Failed,
            format!("could not connect to database \"{database}\" on {place} as \"{user}\": {says} (SQLSTATE {code})"),
            "The server's log says more.".to_owned(),
        ),
    };
    Error::new(kind, message)
        .with_sqlstate(code)
        .with_hint(error.hint().filter(|_| kind == ErrorKind::Failed).map_or(hint, str::to_owned))
}

fn quoted(name: &str) -> String {
    printable(&crate::ident::Ident::from(name).to_string())
}

fn unreachable(settings: &ConnectionSettings, server: &Server, cause: &io::Error) -> Error {
    let place = server.label();
    match (cause.kind(), &server.place) {
        (io::ErrorKind::NotFound, Place::Socket(directory)) => Error::busy(format!(
            "there is no server socket .s.PGSQL.{} in {}",
            server.port,
            printable(&directory.display().to_string())
        ))
        .with_hint(
            "Start the server, correct the port, or name the directory of its socket (SHOW unix_socket_directories) as \
             host; for TCP use host=localhost.",
        ),
        (io::ErrorKind::PermissionDenied, Place::Socket(_)) => {
            Error::refused(format!("no permission to use the {place}"))
                .with_hint("Run as a user whom unix_socket_permissions lets in, or connect over TCP (host=localhost).")
        }
        (io::ErrorKind::ConnectionRefused, _) => Error::busy(format!("{place} refuses connections: no server listens there"))
            .with_hint(
                "Start the server, or correct host and port; over TCP listen_addresses must include the address. --wait waits \
                 for a server that is starting.",
            ),
        (io::ErrorKind::TimedOut, _) => Error::busy(format!("{place} did not answer"))
            .with_hint("Check the host, the port, and firewalls in between."),
        (io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable, _) => {
            Error::busy(format!("{place} cannot be reached: {cause}"))
                .with_hint("Check the network, VPN and routes to the server.")
        }
        (io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe, _) => {
            let tls = match settings.tls().mode {
                SslMode::Disable | SslMode::Allow => "",
                _ => ", or not speak PostgreSQL's protocol",
            };
            Error::busy(format!("{place} closed the connection before it was established"))
                .with_sqlstate(CONNECTION_FAILURE)
                .with_hint(format!("The server may be starting or stopping{tls}; its log says more. Try again."))
        }
        (io::ErrorKind::InvalidInput, Place::Tcp { .. }) => Error::usage(format!("{place} is not a valid host for TLS: {cause}"))
            .with_hint("Use the server's DNS name or address."),
        _ => Error::busy(format!("could not connect to {place}: {cause}"))
            .with_hint("Check the host, the port, and that the server runs."),
    }
}

/// A name without an address.
pub(super) fn unresolved(settings: &ConnectionSettings, server: &Server, cause: Option<io::Error>) -> Error {
    let host = match &server.place {
        Place::Tcp { host, .. } => printable(host),
        Place::Socket(directory) => printable(&directory.display().to_string()),
    };
    let why = cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default();
    let error = Error::busy(format!(
        "no address for host \"{host}\" (port {}, database \"{}\"){why}",
        server.port,
        printable(settings.database())
    ))
    .with_hint("Check the spelling of the host, and that this machine's DNS knows it.");
    match cause {
        Some(cause) => error.with_source(cause),
        None => error,
    }
}

/// `target_session_attrs` is not met.
pub(super) fn wrong_kind_of_server(server: &Server, target: TargetSession) -> Error {
    let wanted = match target {
        TargetSession::ReadWrite => "read-write",
        TargetSession::ReadOnly => "read-only",
        TargetSession::Primary => "a primary",
        TargetSession::Standby | TargetSession::PreferStandby => "a standby",
        TargetSession::Any => "any server",
    };
    Error::busy(format!("{} is not {wanted}, as target_session_attrs asks for", server.label()))
        .with_hint("Name all servers of the cluster as hosts, or wait for the failover to finish.")
}

/// All servers failed in ways that may pass.
pub(super) fn all_failed(settings: &ConnectionSettings, mut failures: Vec<Error>) -> Error {
    if failures.len() == 1
        && let Some(error) = failures.pop()
    {
        return error;
    }
    if settings.servers_are_default() {
        let reasons: Vec<&str> = failures.iter().map(Error::message).collect();
        return Error::busy(format!("no server was found in the usual places: {}", reasons.join("; "))).with_hint(
            "Start the server, or say where it is: --database-url postgresql://user@host:5432/database, DATABASE_URL or PGHOST.",
        );
    }
    let hint = failures.first().and_then(Error::hint).unwrap_or("Check that the servers run.").to_owned();
    let reasons: Vec<&str> = failures.iter().map(Error::message).collect();
    Error::busy(format!("none of {} servers could be used: {}", reasons.len(), reasons.join("; ")))
        .with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::Environment;

    /// The answer to this kind of failure of the system, for a connection string.
    fn told(url: &str, kind: io::ErrorKind) -> String {
        let settings = ConnectionSettings::resolve(Some(url), &Environment::from_pairs("ann", [("X", "y")]))
            .expect("a connection string");
        let error = explain(&settings, &settings.servers()[0], &Failure::Dial(io::Error::from(kind)));
        format!("{:?}: {}\n  {}", error.kind(), error.message(), error.hint().expect("a hint"))
    }

    #[test]
    fn every_way_in_which_the_system_can_not_reach_a_server_has_its_own_next_step() {
        use io::ErrorKind as Io;
        let socket = "postgresql:///shop?host=/run/pg";
        let encrypted = "postgresql://ann@db/shop?sslmode=require";
        let plain = "postgresql://ann@db/shop?sslmode=disable";
        let answers = [
            told(socket, Io::NotFound),
            told(socket, Io::PermissionDenied),
            told(plain, Io::ConnectionRefused),
            told(plain, Io::TimedOut),
            told(plain, Io::HostUnreachable),
            told(plain, Io::NetworkUnreachable),
            told(plain, Io::ConnectionReset),
            told(encrypted, Io::UnexpectedEof),
            told(encrypted, Io::InvalidInput),
            told(plain, Io::OutOfMemory),
        ];
        insta::assert_snapshot!(answers.join("\n"));
    }

    #[test]
    fn where_all_servers_fail_each_is_named_and_the_first_ones_next_step_is_told() {
        let settings = |url: &str| {
            ConnectionSettings::resolve(Some(url), &Environment::from_pairs("ann", [("X", "y")]))
                .expect("a connection string")
        };
        let two = settings("postgresql://ann@a,b/shop");
        let failures = || vec![Error::busy("a is asleep").with_hint("Wake it."), Error::busy("b is too")];
        let named = all_failed(&two, failures());
        assert_eq!(named.message(), "none of 2 servers could be used: a is asleep; b is too");
        assert_eq!(named.hint(), Some("Wake it."));
        assert_eq!(
            all_failed(&two, vec![Error::busy("a"), Error::busy("b")]).hint(),
            Some("Check that the servers run.")
        );
        let usual = all_failed(&settings("postgresql:///shop"), failures());
        assert_eq!(
            usual.hint(),
            Some(
                "Start the server, or say where it is: --database-url postgresql://user@host:5432/database, DATABASE_URL or PGHOST."
            )
        );
    }
}
