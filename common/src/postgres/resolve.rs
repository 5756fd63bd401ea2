//! From a connection string, a service file, PG* variables and libpq's defaults to [`ConnectionSettings`].
//!
//! The order is libpq's: what the connection string says, then the service file, then the environment, then the
//! password file and the defaults. Reads the service file and the password file; never connects, never prints. What libpq
//! knows and this program cannot honour is refused, because leaving it out could weaken the connection.

mod files;
mod servers;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    connection_string::{self, KEYWORDS, Parsed},
    environment::Environment,
    other_engine,
    passfile::Passfile,
    secret::Secret,
    service,
    settings::{
        ChannelBinding, ConnectionSettings, Keepalives, RootCertificates, SslMode, TargetSession, TlsSettings,
    },
};
use crate::{
    error::{Error, Result},
    ident::printable,
};

pub use files::others_may_read;
use files::read_passfile;
use servers::servers;

impl ConnectionSettings {
    /// Resolves `value` (the flag's or DATABASE_URL's: a URL, `key=value` pairs or a database name; an empty one counts
    /// as none) with the surroundings. Reads the service file and the password file; connects to nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for malformed strings, unknown keywords, values that libpq would
    /// refuse, and settings that would silently weaken the connection if they were ignored.
    pub fn resolve(value: Option<&str>, env: &Environment) -> Result<Self> {
        let parsed = match value.map(str::trim).filter(|value| !value.is_empty()) {
            Some(value) => {
                let value = connection_string::without_quotes(value);
                other_engine::refuse_url(value)?;
                connection_string::parse(value)?
            }
            None => Parsed::default(),
        };
        let mut warnings = Vec::new();
        if !parsed.foreign.is_empty() {
            let names: Vec<String> =
                parsed.foreign.iter().map(|(key, _)| format!("\"{}\"", printable(key))).collect();
            warnings.push(format!(
                "the database URL has parameters of another tool, ignored here and passed on to commands: {}",
                names.join(", ")
            ));
        }
        let hosts: Vec<&String> =
            parsed.settings.iter().filter(|(key, _)| key == "host").map(|(_, value)| value).collect();
        let before_socket = match hosts.as_slice() {
            [first, socket]
                if parsed.scheme.is_some() && socket.starts_with('/') && !first.contains([',', '/', ':']) =>
            {
                Some((*first).clone())
            }
            _ => None,
        };
        let mut given = Given::default();
        given.add_layer(parsed.settings, "the connection string")?;
        given.add_service(env, &mut warnings)?;
        given.add_variables(env, &mut warnings)?;
        let mut settings = given.settle(env, warnings)?;
        // In a URL, the name can be nothing but a database's.
        if parsed.scheme.is_none() {
            other_engine::refuse_file(&settings.database)?;
        }
        settings.scheme = parsed.scheme;
        settings.before_socket = before_socket;
        settings.foreign = parsed.foreign;
        Ok(settings)
    }
}

/// The layers on their way to settings: the first that gives a keyword wins.
#[derive(Default)]
struct Given {
    values: BTreeMap<&'static str, String>,
}

impl Given {
    /// Adds a layer below those that are there. `origin` is for messages.
    fn add_layer(&mut self, settings: Vec<(String, String)>, origin: &str) -> Result<()> {
        let mut layer: BTreeMap<&'static str, String> = BTreeMap::new();
        for (key, value) in settings {
            let (key, value) = match (key.as_str(), value.as_str()) {
                // The alias that JDBC, Node and libpq's URLs share.
                ("ssl", "true" | "1" | "on") => ("sslmode".to_owned(), SslMode::Require.as_str().to_owned()),
                ("ssl", "false" | "0" | "off") => {
                    ("sslmode".to_owned(), SslMode::Disable.as_str().to_owned())
                }
                // As asyncpg has it: one of the modes.
                ("ssl", "disable" | "allow" | "prefer" | "require" | "verify-ca" | "verify-full") => {
                    ("sslmode".to_owned(), value)
                }
                _ => (key, value),
            };
            let Some(keyword) = KEYWORDS.iter().find(|keyword| keyword.name == key) else {
                return Err(unknown_keyword(&key, origin));
            };
            // A later one of the same layer wins, and an empty one takes it back.
            if value.is_empty() {
                layer.remove(keyword.name);
            } else {
                layer.insert(keyword.name, value);
            }
        }
        if let Some(value) = layer.remove("requiressl")
            && value == "1"
        {
            layer.entry("sslmode").or_insert_with(|| SslMode::Require.as_str().to_owned());
        }
        if let Some(value) = layer.remove("fallback_application_name") {
            layer.entry("application_name").or_insert(value);
        }
        // An address of a lower layer would silently redirect the host of a higher one.
        if self.values.contains_key("host") {
            layer.remove("hostaddr");
        }
        for (key, value) in layer {
            self.values.entry(key).or_insert(value);
        }
        Ok(())
    }

    fn add_service(&mut self, env: &Environment, warnings: &mut Vec<String>) -> Result<()> {
        let Some(name) =
            self.values.get("service").cloned().or_else(|| env.get("PGSERVICE").map(str::to_owned))
        else {
            return Ok(());
        };
        let shown = printable(&name);
        let named = self.values.get("servicefile").map(String::as_str).or_else(|| env.get("PGSERVICEFILE"));
        let mut candidates: Vec<PathBuf> = Vec::new();
        match named {
            Some(file) => candidates.push(PathBuf::from(file)),
            None => candidates.extend(env.home().map(|home| home.join(".pg_service.conf"))),
        }
        match env.get("PGSYSCONFDIR") {
            Some(directory) => candidates.push(Path::new(directory).join("pg_service.conf")),
            // Debian's libpq is built with this one, Red Hat's with /etc.
            None => {
                candidates.extend(
                    ["/etc/postgresql-common/pg_service.conf", "/etc/pg_service.conf"].map(PathBuf::from),
                );
            }
        }
        for (index, path) in candidates.iter().enumerate() {
            let text = match crate::input::read_text(path) {
                Ok(text) => text,
                Err(error)
                    if error.kind() == std::io::ErrorKind::NotFound && !(index == 0 && named.is_some()) =>
                {
                    continue;
                }
                Err(error) => {
                    return Err(Error::usage(format!("could not read the service file {}: {error}", path.display()))
                        .with_hint(format!(
                            "The connection service \"{shown}\" is looked up there; correct PGSERVICEFILE or the file's permissions."
                        ))
                        .with_source(error));
                }
            };
            match service::group(&text, &name) {
                Ok(None) => {}
                Ok(Some(settings)) => {
                    if settings.iter().any(|(key, _)| key == "service" || key == "servicefile") {
                        return Err(Error::usage(format!(
                            "service \"{shown}\" in {} refers to another service",
                            path.display()
                        ))
                        .with_hint("Write the other service's settings out; services cannot be nested."));
                    }
                    let has_password = settings.iter().any(|(key, _)| crate::masking::names_secret(key));
                    warnings
                        .extend(has_password.then(|| others_may_read("the service file", path)).flatten());
                    let origin = format!("service \"{shown}\" in {}", path.display());
                    return self.add_layer(settings, &origin);
                }
                Err(line) => {
                    return Err(Error::usage(format!(
                        "line {line} of the service file {} is not key=value",
                        path.display()
                    ))
                    .with_hint(
                        "Correct the line, or comment it out with #. LDAP look-ups are not supported.",
                    ));
                }
            }
        }
        let looked: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
        Err(Error::usage(format!("connection service \"{shown}\" is not defined")).with_hint(format!(
            "Add a group [{shown}] to {}, or correct PGSERVICE. Looked in: {}.",
            looked.first().map_or("~/.pg_service.conf", String::as_str),
            looked.join(", ")
        )))
    }

    fn add_variables(&mut self, env: &Environment, warnings: &mut Vec<String>) -> Result<()> {
        let mut layer = Vec::new();
        for keyword in KEYWORDS {
            let Some(variable) = keyword.variable else { continue };
            if env.is_not_utf8(variable) {
                return Err(Error::usage(format!("the environment variable {variable} is not UTF-8"))
                    .with_hint("Set it again in a UTF-8 locale, or unset it."));
            }
            if let Some(value) = env.get(variable) {
                layer.push((keyword.name.to_owned(), value.to_owned()));
            }
        }
        if let Some(address) = env.get("PGHOSTADDR")
            && self.values.contains_key("host")
        {
            warnings.push(format!(
                "PGHOSTADDR ({}) is ignored, because the connection string or the service names the host",
                printable(address)
            ));
        }
        self.add_layer(layer, "the environment")
    }

    fn take(&mut self, key: &str) -> Option<String> {
        self.values.remove(key)
    }

    /// Everything is in: check, default and type it.
    fn settle(mut self, env: &Environment, mut warnings: Vec<String>) -> Result<ConnectionSettings> {
        self.refuse_unsupported()?;
        self.take("service");
        self.take("servicefile");
        let host = self.take("host");
        let address = self.take("hostaddr");
        let port = self.take("port");
        let servers_are_default = host.is_none() && address.is_none();
        let servers = servers(host.as_deref(), address.as_deref(), port.as_deref())?;
        let user = match self.take("user") {
            Some(user) => user,
            None => env.user_name().map(str::to_owned).ok_or_else(|| {
                Error::usage(
                    "no database user is given, and the operating system does not name the current user",
                )
                .with_hint("Name it in the URL, as in postgresql://user@host/database, or set PGUSER.")
            })?,
        };
        let database = self.take("dbname").unwrap_or_else(|| user.clone());
        let password = self.take("password").map(Secret::new);
        let passfile_path = self.take("passfile");
        let passfile = if password.is_some() {
            Passfile::default()
        } else {
            read_passfile(passfile_path.as_deref(), env, &mut warnings)
        };
        if self.values.get("load_balance_hosts").is_some_and(|value| value == "random") {
            warnings.push(
                "load_balance_hosts=random is ignored: servers are tried in the given order".to_owned(),
            );
        }
        let tls = self.tls(env)?;
        let seconds = |given: &Self, key: &str| -> Result<Option<u64>> {
            let Some(text) = given.values.get(key) else { return Ok(None) };
            match text.trim().parse::<i64>() {
                Ok(number) => Ok(u64::try_from(number).ok().filter(|number| *number > 0)),
                Err(_) => Err(invalid(key, text, "a whole number")),
            }
        };
        // libpq rounds 1 up to 2 seconds: less is a misunderstanding of the unit.
        let connect_timeout =
            seconds(&self, "connect_timeout")?.map(|limit| Duration::from_secs(limit.max(2)));
        let keepalives = Keepalives {
            enabled: self.values.get("keepalives").is_none_or(|value| value.trim() != "0"),
            idle: Duration::from_secs(seconds(&self, "keepalives_idle")?.unwrap_or(60)),
            interval: Duration::from_secs(seconds(&self, "keepalives_interval")?.unwrap_or(10)),
            count: seconds(&self, "keepalives_count")?
                .and_then(|count| u32::try_from(count).ok())
                .unwrap_or(6),
            user_timeout: seconds(&self, "tcp_user_timeout")?.map(Duration::from_millis),
        };
        let target = self.choice(
            "target_session_attrs",
            TargetSession::Any,
            &[
                ("any", TargetSession::Any),
                ("read-write", TargetSession::ReadWrite),
                ("read-only", TargetSession::ReadOnly),
                ("primary", TargetSession::Primary),
                ("standby", TargetSession::Standby),
                ("prefer-standby", TargetSession::PreferStandby),
            ],
        )?;
        let channel_binding = self.choice(
            "channel_binding",
            ChannelBinding::Prefer,
            &[
                ("disable", ChannelBinding::Disable),
                ("prefer", ChannelBinding::Prefer),
                ("require", ChannelBinding::Require),
            ],
        )?;
        Ok(ConnectionSettings {
            servers,
            servers_are_default,
            user,
            database,
            password,
            passfile: Arc::new(passfile),
            keywords: self.values,
            tls,
            target,
            channel_binding,
            keepalives,
            connect_timeout,
            scheme: None,
            before_socket: None,
            foreign: Vec::new(),
            warnings,
            options_refused: Arc::default(),
            pooled: Arc::default(),
            no_event_triggers: false,
        })
    }

    /// Settings that this program cannot honour and must not drop: without them the connection would be weaker, or
    /// other than asked for.
    fn refuse_unsupported(&mut self) -> Result<()> {
        for (key, harmless, instead) in [
            (
                "require_auth",
                &[][..],
                "Restrict the methods in the server's pg_hba.conf, or use channel_binding=require.",
            ),
            ("requirepeer", &[], "Use a socket directory that only the server's user can write to."),
            ("sslcrldir", &[], "Put the revocation lists into one PEM file and name it with sslcrl."),
            ("sslpassword", &[], "Store the client key unencrypted, readable only by its owner (mode 0600)."),
            ("sslkeylogfile", &[], "Remove it: keys of the connection are never written."),
            ("replication", &["0", "off", "false", "no"], "Remove it: backups here use ordinary sessions."),
            (
                "gssencmode",
                &["disable", "prefer"],
                "Use TLS (sslmode=require): GSSAPI encryption is not supported.",
            ),
            ("min_protocol_version", &["3.0"], "Remove it: protocol version 3.0 is spoken."),
        ] {
            if let Some(value) = self.values.get(key)
                && !harmless.contains(&value.as_str())
            {
                return Err(Error::usage(format!("the connection setting \"{key}\" is not supported"))
                    .with_hint(instead));
            }
        }
        self.take("replication");
        // Compression in TLS is gone from every current library, and requests for it are ignored by libpq too.
        self.take("sslcompression");
        Ok(())
    }

    fn choice<T: Copy>(&self, key: &str, default: T, choices: &[(&str, T)]) -> Result<T> {
        let Some(text) = self.values.get(key) else { return Ok(default) };
        choices.iter().find(|(word, _)| word == text).map(|(_, choice)| *choice).ok_or_else(|| {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            invalid(key, text, &format!("one of {}", words.join(", ")))
        })
    }

    fn tls(&self, env: &Environment) -> Result<TlsSettings> {
        let in_home = |name: &str| env.home().map(|home| home.join(".postgresql").join(name));
        let path = |key: &str| self.values.get(key).map(PathBuf::from);
        let roots = match self.values.get("sslrootcert").map(String::as_str) {
            Some("system") => RootCertificates::System,
            Some(file) => RootCertificates::File(PathBuf::from(file)),
            None => RootCertificates::Default(in_home("root.crt")),
        };
        let system = roots == RootCertificates::System;
        let default_mode = if system { SslMode::VerifyFull } else { SslMode::Prefer };
        let modes = [
            SslMode::Disable,
            SslMode::Allow,
            SslMode::Prefer,
            SslMode::Require,
            SslMode::VerifyCa,
            SslMode::VerifyFull,
        ];
        let mode = self.choice("sslmode", default_mode, &modes.map(|mode| (mode.as_str(), mode)))?;
        if system && mode != SslMode::VerifyFull {
            // Anybody can get a certificate of a public authority: without the host name it proves nothing.
            return Err(Error::usage(format!(
                "sslmode={} is too weak for sslrootcert=system",
                mode.as_str()
            ))
            .with_hint("Use sslmode=verify-full, or name the authority's own file with sslrootcert."));
        }
        let direct = self.choice("sslnegotiation", false, &[("postgres", false), ("direct", true)])?;
        if direct && mode < SslMode::Require {
            return Err(Error::usage(format!(
                "sslmode={} is too weak for sslnegotiation=direct",
                mode.as_str()
            ))
            .with_hint("Use sslmode=require, verify-ca or verify-full."));
        }
        let versions = [("TLSv1", 0), ("TLSv1.1", 1), ("TLSv1.2", 2), ("TLSv1.3", 3)];
        let lowest = self.choice("ssl_min_protocol_version", 2, &versions)?;
        let highest = self.choice("ssl_max_protocol_version", 3, &versions)?;
        if highest < 2 || highest < lowest {
            return Err(Error::usage(
                "ssl_max_protocol_version leaves no TLS version: 1.2 and 1.3 are supported",
            )
            .with_hint("Remove ssl_max_protocol_version, or set it to TLSv1.2 or TLSv1.3."));
        }
        let send_certificate =
            self.choice("sslcertmode", true, &[("disable", false), ("allow", true), ("require", true)])?;
        Ok(TlsSettings {
            mode,
            roots,
            certificate: path("sslcert").or_else(|| in_home("postgresql.crt")).filter(|_| send_certificate),
            key: path("sslkey").or_else(|| in_home("postgresql.key")),
            certificate_is_explicit: self.values.contains_key("sslcert"),
            revocations: path("sslcrl").or_else(|| in_home("root.crl")),
            revocations_are_explicit: self.values.contains_key("sslcrl"),
            send_host_name: self.values.get("sslsni").is_none_or(|value| value != "0"),
            direct,
            allow_tls12: lowest <= 2,
            allow_tls13: highest == 3,
        })
    }
}

fn invalid(key: &str, value: &str, expected: &str) -> Error {
    Error::usage(format!("invalid value \"{}\" of the connection setting \"{key}\"", printable(value)))
        .with_hint(format!("It must be {expected}."))
}

fn unknown_keyword(key: &str, origin: &str) -> Error {
    let is_word = !key.is_empty()
        && key.len() <= 40
        && key.chars().all(|c| c.is_ascii_alphabetic() || matches!(c, '_' | '-'));
    let named = if is_word { format!(" \"{key}\"") } else { String::new() };
    Error::usage(format!("unknown connection setting{named} in {origin}")).with_hint(
        "Use libpq's names, such as host, port, dbname, user, sslmode, sslrootcert, application_name and options.",
    )
}

#[cfg(test)]
mod tests;
