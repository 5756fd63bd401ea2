//! Where and how to connect, resolved: servers, user, database, password, TLS, options; and the same as a URL or as a
//! child's environment. Pure: `resolve.rs` makes these values, `connect.rs` uses them.
//!
//! Passwords are [`Secret`]s; no `Debug` and no URL but the child's shows one.

mod url;

use std::{
    collections::BTreeMap,
    fmt,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use super::{passfile::Passfile, secret::Secret};
use crate::ident::printable;

pub(super) use url::{IN_QUERY, encode};

/// PostgreSQL's port.
pub(super) const DEFAULT_PORT: u16 = 5432;

/// Variables to remove from a child's environment before [`ConnectionSettings::child_environment`] is added, so that
/// nothing of the surroundings leads the child to another server or database.
///
/// `PGCLIENTENCODING`, `PGTZ`, `PGDATESTYLE` and `PGGEQO` stay: they choose no server, and migrations may rely on them.
pub const VARIABLES_TO_CLEAR: &[&str] = &[
    "PGHOST",
    "PGHOSTADDR",
    "PGPORT",
    "PGDATABASE",
    "PGUSER",
    "PGPASSWORD",
    "PGPASSFILE",
    "PGSERVICE",
    "PGSERVICEFILE",
    "PGSYSCONFDIR",
    "PGREQUIREAUTH",
    "PGCHANNELBINDING",
    "PGCONNECT_TIMEOUT",
    "PGOPTIONS",
    "PGAPPNAME",
    "PGGSSENCMODE",
    "PGGSSDELEGATION",
    "PGKRBSRVNAME",
    "PGGSSLIB",
    "PGSSLMODE",
    "PGREQUIRESSL",
    "PGSSLNEGOTIATION",
    "PGSSLCOMPRESSION",
    "PGSSLCERT",
    "PGSSLKEY",
    "PGSSLCERTMODE",
    "PGSSLROOTCERT",
    "PGSSLCRL",
    "PGSSLCRLDIR",
    "PGSSLSNI",
    "PGREQUIREPEER",
    "PGSSLMINPROTOCOLVERSION",
    "PGSSLMAXPROTOCOLVERSION",
    "PGMINPROTOCOLVERSION",
    "PGMAXPROTOCOLVERSION",
    "PGTARGETSESSIONATTRS",
    "PGLOADBALANCEHOSTS",
];

/// libpq's `sslmode`, from no TLS to a verified host name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// Never TLS.
    Disable,
    /// TLS only if the server insists.
    Allow,
    /// TLS if the server has it; libpq's default.
    Prefer,
    /// TLS, unverified unless a root certificate file exists.
    Require,
    /// TLS with a certificate of a known authority.
    VerifyCa,
    /// TLS with a certificate of a known authority for this host name.
    VerifyFull,
}

impl SslMode {
    /// libpq's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// Where trusted authorities come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootCertificates {
    /// `~/.postgresql/root.crt`, if it exists; `None` without a home directory.
    Default(Option<PathBuf>),
    /// The file that `sslrootcert` names.
    File(PathBuf),
    /// The operating system's (`sslrootcert=system`).
    System,
}

/// Everything that decides about TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// `sslmode`.
    pub mode: SslMode,
    /// `sslrootcert`.
    pub roots: RootCertificates,
    /// `sslcert` if given, else the default path; `None`: never send one.
    pub certificate: Option<PathBuf>,
    /// `sslkey` if given, else the default path.
    pub key: Option<PathBuf>,
    /// Whether the certificate was named, so that its absence is an error.
    pub certificate_is_explicit: bool,
    /// `sslcrl` if given, else the default path.
    pub revocations: Option<PathBuf>,
    /// Whether the revocation list was named, so that its absence is an error.
    pub revocations_are_explicit: bool,
    /// `sslsni`: send the host name in the clear, as servers behind one address need.
    pub send_host_name: bool,
    /// `sslnegotiation=direct` (PostgreSQL 17 and later).
    pub direct: bool,
    /// Whether TLS 1.2 is allowed.
    pub allow_tls12: bool,
    /// Whether TLS 1.3 is allowed.
    pub allow_tls13: bool,
}

/// `target_session_attrs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetSession {
    /// Any server.
    Any,
    /// Transactions are read-write by default.
    ReadWrite,
    /// Transactions are read-only by default, or it is a standby.
    ReadOnly,
    /// Not in recovery.
    Primary,
    /// In recovery.
    Standby,
    /// In recovery if there is such a server, else any.
    PreferStandby,
}

/// `channel_binding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// If both sides can.
    Prefer,
    /// Or fail.
    Require,
}

/// TCP keepalives. Defaults notice a dead network within two minutes, not after the system's two hours: a fence or a
/// lock must not outlive its owner's network for that long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalives {
    /// Whether to send them.
    pub enabled: bool,
    /// Silence before the first.
    pub idle: Duration,
    /// Time between two.
    pub interval: Duration,
    /// How many may be lost.
    pub count: u32,
    /// How long sent data may stay unacknowledged; `None` is the system's.
    pub user_timeout: Option<Duration>,
}

/// Where one server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A host name or address; `address` is libpq's `hostaddr`, which spares the look-up.
    Tcp {
        /// The name, also for TLS.
        host: String,
        /// The address, if given.
        address: Option<IpAddr>,
    },
    /// The directory of a Unix socket.
    Socket(PathBuf),
}

/// One server of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Where it listens.
    pub place: Place,
    /// The TCP port, or the number in the socket's name.
    pub port: u16,
}

impl Server {
    /// `db.example.com:5432` or `socket /var/run/postgresql:5432`; safe to print.
    pub fn label(&self) -> String {
        match &self.place {
            Place::Tcp { host, .. } if host.contains(':') => format!("[{}]:{}", printable(host), self.port),
            Place::Tcp { host, .. } => format!("{}:{}", printable(host), self.port),
            Place::Socket(directory) => {
                format!("socket {}:{}", printable(&directory.display().to_string()), self.port)
            }
        }
    }

    fn host_text(&self) -> String {
        match &self.place {
            Place::Tcp { host, .. } => host.clone(),
            Place::Socket(directory) => directory.display().to_string(),
        }
    }

    fn address_text(&self) -> Option<String> {
        match &self.place {
            Place::Tcp { address, .. } => address.map(|address| address.to_string()),
            Place::Socket(_) => None,
        }
    }
}

/// A resolved connection: servers, user, database, password, TLS and session options.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionSettings {
    pub(super) servers: Vec<Server>,
    pub(super) servers_are_default: bool,
    pub(super) user: String,
    pub(super) database: String,
    pub(super) password: Option<Secret>,
    pub(super) passfile: Arc<Passfile>,
    /// The other keywords, as libpq writes them; what URLs and children's environments are made from.
    pub(super) keywords: BTreeMap<&'static str, String>,
    pub(super) tls: TlsSettings,
    pub(super) target: TargetSession,
    pub(super) channel_binding: ChannelBinding,
    pub(super) keepalives: Keepalives,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) scheme: Option<String>,
    /// The host that stands in the URL before the folder of a socket in its query, which wins: some drivers want one there.
    pub(super) before_socket: Option<String>,
    pub(super) foreign: Vec<(String, String)>,
    pub(super) warnings: Vec<String>,
    /// Set once a pooler in between was seen to refuse `options`; one answer for all copies of these settings.
    pub(super) options_refused: Arc<OnceLock<()>>,
    /// Something in between keeps sessions of the server and hands them on.
    pub(super) pooled: Arc<OnceLock<()>>,
    pub(super) no_event_triggers: bool,
}

impl ConnectionSettings {
    /// Whether sessions can be given settings by `options`: a pooler in between, found by [`super::refuse_pooler`], may refuse
    /// every connection that has some.
    pub fn takes_options(&self) -> bool {
        self.options_refused.get().is_none()
    }

    /// Whether sessions may have had clients before: what is in between, as far as it was asked, may hand on sessions of the server.
    pub fn is_pooled(&self) -> bool {
        self.pooled.get().is_some()
    }

    /// The same server, user and options, another database.
    #[must_use]
    pub fn with_database(&self, name: &str) -> Self {
        Self { database: name.to_owned(), ..self.clone() }
    }

    /// The same with `application_name` set, by which sessions are told apart on the server.
    #[must_use]
    pub fn with_application_name(&self, name: &str) -> Self {
        let mut settings = self.clone();
        settings.keywords.insert("application_name", name.to_owned());
        settings
    }

    /// The same without an `application_name`, for a URL that a person is given.
    #[must_use]
    pub fn without_application_name(&self) -> Self {
        let mut settings = self.clone();
        settings.keywords.remove("application_name");
        settings
    }

    /// The same with `-c guc=value` added to the startup options, after those that were there, so that it wins.
    #[must_use]
    pub fn with_option(&self, guc: &str, value: &str) -> Self {
        let mut settings = self.clone();
        let options = settings.keywords.entry("options").or_default();
        if !options.is_empty() {
            options.push(' ');
        }
        options.push_str("-c ");
        // The server splits at white space and takes the character after a backslash as it is (pg_split_opts).
        for character in format!("{guc}={value}").chars() {
            if character.is_ascii_whitespace() || character == '\u{b}' || character == '\\' {
                options.push('\\');
            }
            options.push(character);
        }
        settings
    }

    /// The same, for sessions of ours in which no event trigger fires, one for logins neither (PostgreSQL 17 and later, superusers
    /// only: others are not let in with it). A migration's sessions, and a command that gets this as its environment or URL, are
    /// as they would be without.
    #[must_use]
    pub fn without_event_triggers(&self) -> Self {
        Self { no_event_triggers: true, ..self.clone() }
    }

    /// Whether [`ConnectionSettings::without_event_triggers`] was asked for.
    pub fn has_no_event_triggers(&self) -> bool {
        self.no_event_triggers
    }

    /// The same, reduced to one server of the list: what a connected session hands to children, so that they reach the
    /// same server.
    #[must_use]
    pub fn narrowed_to(&self, server: &Server) -> Self {
        let mut settings = self.clone();
        settings.servers = vec![server.clone()];
        settings.servers_are_default = false;
        settings.target = TargetSession::Any;
        settings.keywords.remove("target_session_attrs");
        settings
    }

    /// The database.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The role to log in as.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The servers to try, in order; never empty.
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// Whether no server was named, so that the servers are libpq's usual places.
    pub fn servers_are_default(&self) -> bool {
        self.servers_are_default
    }

    /// The password for `server`: the given one, else the password file's.
    pub fn password_for(&self, server: &Server) -> Option<&Secret> {
        self.password.as_ref().or_else(|| {
            let name = server.host_text();
            let names: &[&str] = match server.place {
                // libpq lists only its built-in directory as localhost, and builds differ in which one that is.
                Place::Socket(_) => &["localhost", &name],
                Place::Tcp { .. } => &[&name],
            };
            self.passfile.find(names, server.port, &self.database, &self.user)
        })
    }

    /// TLS.
    pub fn tls(&self) -> &TlsSettings {
        &self.tls
    }

    /// Which kind of server is wanted.
    pub fn target_session(&self) -> TargetSession {
        self.target
    }

    /// Channel binding.
    pub fn channel_binding(&self) -> ChannelBinding {
        self.channel_binding
    }

    /// TCP keepalives.
    pub fn keepalives(&self) -> Keepalives {
        self.keepalives
    }

    /// The time for one attempt at one address, if it was given; `Some(ZERO)` never occurs.
    pub fn connect_timeout(&self) -> Option<Duration> {
        self.connect_timeout
    }

    /// Startup options, in libpq's escaping.
    pub fn options(&self) -> Option<&str> {
        self.keywords.get("options").map(String::as_str)
    }

    /// `application_name`.
    pub fn application_name(&self) -> Option<&str> {
        self.keywords.get("application_name").map(String::as_str)
    }

    /// What was ignored and why; lower case, to be shown once.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// `db.example.com:5432` or `socket /var/run/postgresql:5432`; several are separated by commas.
    pub fn host_label(&self) -> String {
        if self.servers_are_default {
            return self.servers[0].label();
        }
        self.servers.iter().map(Server::label).collect::<Vec<_>>().join(", ")
    }

    /// The parameters of the URL that are another tool's, and mean nothing to us as a connection.
    pub fn parameters_of_others(&self) -> &[(String, String)] {
        &self.foreign
    }
}

impl fmt::Debug for ConnectionSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionSettings")
            .field("url", &self.redacted_url())
            .field("password", &self.password)
            .field("warnings", &self.warnings)
            .finish_non_exhaustive()
    }
}
