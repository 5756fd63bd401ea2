//! Connection strings: a URL, `key=value` pairs or a bare database name → settings by libpq's keywords. Pure.
//!
//! Errors never repeat text of the input other than a keyword: in a malformed string any piece may be part of the
//! password (`postgres://u:pa/ss@host/db` has the "port" `pa`).

use percent_encoding::percent_decode_str;

use crate::error::{Error, Result};

/// What a connection string says.
#[derive(Default, PartialEq, Eq)]
pub struct Parsed {
    /// The scheme as it was written, such as `postgresql+psycopg2`; `None` when it was not a URL.
    pub scheme: Option<String>,
    /// libpq's keywords and their values, in order; later ones win.
    pub settings: Vec<(String, String)>,
    /// Query parameters that belong to another tool, kept for that tool.
    pub foreign: Vec<(String, String)>,
}

/// Reads a URL, `key=value` pairs, or a bare database name.
pub fn parse(text: &str) -> Result<Parsed> {
    let text = without_quotes(text.trim());
    let parsed = if let Some((scheme, rest)) = split_scheme(text)? {
        parse_url(scheme, rest)?
    } else if text.contains('=') {
        Parsed { settings: parse_pairs(text)?, ..Parsed::default() }
    } else {
        if text.contains('@') || text.chars().any(char::is_whitespace) {
            return Err(Error::usage("the database is neither a URL, nor key=value pairs, nor a plain name")
                .with_hint(URL_HINT));
        }
        Parsed { settings: vec![("dbname".to_owned(), text.to_owned())], ..Parsed::default() }
    };
    let nul = parsed.settings.iter().find(|(_, value)| value.contains('\0'));
    match nul {
        Some((key, _)) => Err(Error::usage(format!("the connection setting \"{key}\" contains a zero byte"))),
        None => Ok(parsed),
    }
}

/// Without the quotes of a file that was read literally: Docker's `--env-file` keeps them.
pub(super) fn without_quotes(text: &str) -> &str {
    let inner =
        |quote: char| text.strip_prefix(quote)?.strip_suffix(quote).filter(|inner| !inner.contains(quote));
    inner('"').or_else(|| inner('\'')).map_or(text, str::trim)
}

const URL_HINT: &str = "Write it as postgresql://user@host:5432/database, with special characters of a password \
                        percent-encoded (@ is %40, / is %2F, : is %3A), or leave the password to PGPASSWORD or ~/.pgpass.";

/// Splits `postgresql+psycopg2://…`; refuses schemes of other systems.
fn split_scheme(text: &str) -> Result<Option<(&str, &str)>> {
    let Some((scheme, rest)) = text.split_once("://") else { return Ok(None) };
    // `host=… password=a://b` is not a URL.
    if scheme.contains(['=', ' ', '@']) {
        return Ok(None);
    }
    let lower = scheme.to_ascii_lowercase();
    let plain = lower.strip_prefix("jdbc:").unwrap_or(&lower);
    let (base, driver) = plain.split_once('+').unwrap_or((plain, ""));
    let driver_is_a_word = driver.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    // Django's URL packages also write pgsql:// and postgis://, Phoenix ecto://, Tortoise and aerich asyncpg:// and psycopg://.
    let known = matches!(base, "postgres" | "postgresql" | "postgis" | "pgsql" | "ecto");
    if known && driver_is_a_word || matches!(plain, "asyncpg" | "psycopg") {
        return Ok(Some((scheme, rest)));
    }
    let named = base.chars().all(|c| c.is_ascii_alphanumeric()) && base.len() <= 20;
    let what = if named { format!(" \"{base}\"") } else { String::new() };
    Err(Error::usage(format!("the database URL has the unknown scheme{what}"))
        .with_hint("Only PostgreSQL is supported: postgresql://user@host:5432/database."))
}

fn parse_url(scheme: &str, rest: &str) -> Result<Parsed> {
    let mut parsed = Parsed { scheme: Some(scheme.to_owned()), ..Parsed::default() };
    let mut set = |key: &str, value: String| parsed.settings.push((key.to_owned(), value));

    // As libpq: the user's part ends at the first @ before the first slash.
    let slash = rest.find('/').unwrap_or(rest.len());
    let (credentials, after) = match rest[..slash].find('@') {
        Some(at) => (Some(&rest[..at]), &rest[at + 1..]),
        None => (None, rest),
    };
    let host_end = after.find(['/', '?']).unwrap_or(after.len());
    let (authority, path_and_query) = after.split_at(host_end);
    let (path, query) = match path_and_query.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path_and_query, None),
    };
    // An unencoded @ or / in the password: everything after it would be taken for a host or a database, and shown.
    if authority.contains('@') || path.contains('@') {
        return Err(Error::usage(
            "the database URL has an @ or / inside its password, user or database name",
        )
        .with_hint(URL_HINT));
    }

    if let Some(credentials) = credentials {
        let (user, password) = match credentials.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (credentials, None),
        };
        if !user.is_empty() {
            set("user", decode(user, "user")?);
        }
        if let Some(password) = password.filter(|password| !password.is_empty()) {
            set("password", decode(password, "password")?);
        }
    }

    let mut hosts = Vec::new();
    let mut ports = Vec::new();
    for server in authority.split(',') {
        let (host, port) = split_port(server)?;
        hosts.push(decode(host, "host")?);
        ports.push(decode(port, "port")?);
    }
    if hosts.iter().any(|host| !host.is_empty()) {
        set("host", hosts.join(","));
    }
    if ports.iter().any(|port| !port.is_empty()) {
        set("port", ports.join(","));
    }

    let database = path.strip_prefix('/').unwrap_or(path);
    if !database.is_empty() {
        set("dbname", decode(database, "database name")?);
    }

    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(
                Error::usage("a query parameter of the database URL has no value").with_hint(URL_HINT)
            );
        };
        let key = decode(key, "query parameter")?;
        let value = decode(value, "query parameter")?;
        if is_foreign(&key) {
            parsed.foreign.push((key, value));
        } else {
            parsed.settings.push((key, value));
        }
    }
    Ok(parsed)
}

/// `host`, `host:port`, `[::1]` or `[::1]:port` → host and port, still encoded; the port may be empty.
fn split_port(server: &str) -> Result<(&str, &str)> {
    let Some(bracketed) = server.strip_prefix('[') else {
        return match server.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                Err(Error::usage("the host of the database URL has more than one colon").with_hint(
                    "Put an IPv6 address into brackets, as in postgresql://user@[::1]:5432/database, and \
                     percent-encode special characters of a password.",
                ))
            }
            Some(parts) => Ok(parts),
            None => Ok((server, "")),
        };
    };
    let broken = || {
        Error::usage("the IPv6 address in the database URL is not closed by a bracket and an optional :port")
            .with_hint("Write it as postgresql://user@[::1]:5432/database.")
    };
    let (address, after) = bracketed.split_once(']').ok_or_else(broken)?;
    if address.is_empty() {
        return Err(broken());
    }
    match after.strip_prefix(':') {
        Some(port) => Ok((address, port)),
        None if after.is_empty() => Ok((address, "")),
        None => Err(broken()),
    }
}

/// Percent-decodes; a stray `%` is an error, as it is for libpq, because the password would silently be another one.
fn decode(text: &str, what: &str) -> Result<String> {
    let bytes = text.as_bytes();
    let stray = bytes.iter().enumerate().any(|(at, byte)| {
        *byte == b'%' && !bytes.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
    });
    if stray {
        return Err(Error::usage(format!("the {what} in the database URL has a % that starts no escape"))
            .with_hint("Write a percent sign as %25."));
    }
    match percent_decode_str(text).decode_utf8() {
        Ok(decoded) => Ok(decoded.into_owned()),
        Err(_) => Err(Error::usage(format!("the {what} in the database URL is not UTF-8 after decoding"))),
    }
}

/// libpq's `key=value` pairs: values end at white space unless quoted with `'`; a backslash takes the next character as
/// it is, inside and outside quotes.
pub fn parse_pairs(text: &str) -> Result<Vec<(String, String)>> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    let mut characters = text.chars().peekable();
    loop {
        while characters.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        if characters.peek().is_none() {
            return Ok(pairs);
        }
        let mut key = String::new();
        while let Some(c) = characters.next_if(|c| *c != '=' && !c.is_ascii_whitespace()) {
            key.push(c);
        }
        while characters.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        if characters.next_if_eq(&'=').is_none() {
            return Err(Error::usage(format!(
                "word {} of the key=value connection string has no \"=\"",
                pairs.len() + 1
            ))
            .with_hint("Put a value that contains spaces into single quotes, as in password='two words'."));
        }
        // After an unquoted password with a space in it, the "keyword" is the rest of the password.
        let after_password = pairs.iter().any(|(key, _)| key == "password");
        if !is_known(&key) && after_password {
            return Err(Error::usage(
                "unknown keyword in the key=value connection string, after the password",
            )
            .with_hint("Put a value that contains spaces into single quotes, as in password='two words'."));
        }
        while characters.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        let mut value = String::new();
        if characters.next_if_eq(&'\'').is_some() {
            loop {
                match characters.next() {
                    Some('\'') => break,
                    Some('\\') => value.extend(characters.next()),
                    Some(c) => value.push(c),
                    None => {
                        return Err(Error::usage("a quote in the key=value connection string is not closed")
                            .with_hint("Write a quote inside a value as \\'."));
                    }
                }
            }
        } else {
            while let Some(c) = characters.next_if(|c| !c.is_ascii_whitespace()) {
                if c == '\\' {
                    value.extend(characters.next());
                } else {
                    value.push(c);
                }
            }
        }
        pairs.push((key, value));
    }
}

/// A keyword of libpq.
pub struct Keyword {
    /// The name in connection strings and service files.
    pub name: &'static str,
    /// The environment variable that gives it, if one does.
    pub variable: Option<&'static str>,
}

const fn keyword(name: &'static str, variable: &'static str) -> Keyword {
    Keyword { name, variable: Some(variable) }
}

const fn no_variable(name: &'static str) -> Keyword {
    Keyword { name, variable: None }
}

/// Every keyword of libpq 9 to 18, with its variable ("Parameter Key Words" and "Environment Variables" there).
pub const KEYWORDS: &[Keyword] = &[
    keyword("host", "PGHOST"),
    keyword("hostaddr", "PGHOSTADDR"),
    keyword("port", "PGPORT"),
    keyword("dbname", "PGDATABASE"),
    keyword("user", "PGUSER"),
    keyword("password", "PGPASSWORD"),
    keyword("passfile", "PGPASSFILE"),
    keyword("service", "PGSERVICE"),
    keyword("servicefile", "PGSERVICEFILE"),
    keyword("require_auth", "PGREQUIREAUTH"),
    keyword("channel_binding", "PGCHANNELBINDING"),
    keyword("connect_timeout", "PGCONNECT_TIMEOUT"),
    keyword("client_encoding", "PGCLIENTENCODING"),
    keyword("options", "PGOPTIONS"),
    keyword("application_name", "PGAPPNAME"),
    no_variable("fallback_application_name"),
    no_variable("keepalives"),
    no_variable("keepalives_idle"),
    no_variable("keepalives_interval"),
    no_variable("keepalives_count"),
    no_variable("tcp_user_timeout"),
    no_variable("replication"),
    keyword("gssencmode", "PGGSSENCMODE"),
    keyword("gssdelegation", "PGGSSDELEGATION"),
    keyword("krbsrvname", "PGKRBSRVNAME"),
    keyword("gsslib", "PGGSSLIB"),
    keyword("sslmode", "PGSSLMODE"),
    keyword("requiressl", "PGREQUIRESSL"),
    keyword("sslnegotiation", "PGSSLNEGOTIATION"),
    keyword("sslcompression", "PGSSLCOMPRESSION"),
    keyword("sslcert", "PGSSLCERT"),
    keyword("sslkey", "PGSSLKEY"),
    keyword("sslcertmode", "PGSSLCERTMODE"),
    no_variable("sslpassword"),
    keyword("sslrootcert", "PGSSLROOTCERT"),
    keyword("sslcrl", "PGSSLCRL"),
    keyword("sslcrldir", "PGSSLCRLDIR"),
    keyword("sslsni", "PGSSLSNI"),
    no_variable("sslkeylogfile"),
    keyword("requirepeer", "PGREQUIREPEER"),
    keyword("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION"),
    keyword("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION"),
    keyword("min_protocol_version", "PGMINPROTOCOLVERSION"),
    keyword("max_protocol_version", "PGMAXPROTOCOLVERSION"),
    keyword("target_session_attrs", "PGTARGETSESSIONATTRS"),
    keyword("load_balance_hosts", "PGLOADBALANCEHOSTS"),
];

/// Whether libpq, or the `ssl` alias of its URLs, has this keyword.
pub fn is_known(key: &str) -> bool {
    key == "ssl" || KEYWORDS.iter().any(|keyword| keyword.name == key)
}

/// Query parameters that other tools read from the same URL and libpq does not know. They are ignored, with a warning,
/// and kept for the command that will read them.
const FOREIGN: &[&str] = &[
    // Prisma
    "schema",
    "connection_limit",
    "pool_timeout",
    "socket_timeout",
    "pgbouncer",
    "sslidentity",
    "sslaccept",
    "statement_cache_size",
    "single_use_connections",
    "uselibpqcompat",
    // sqlx
    "statement-cache-capacity",
    "ssl-mode",
    "ssl-root-cert",
    "ssl-cert",
    "ssl-key",
    // SQLAlchemy, asyncpg, psycopg pools, dj-database-url
    "async_fallback",
    "prepared_statement_cache_size",
    "prepared_statement_name_func",
    "command_timeout",
    "statement_timeout",
    "search_path",
    "server_settings",
    "timeout",
    "pool_size",
    "max_overflow",
    "pool_recycle",
    "pool_pre_ping",
    "conn_max_age",
    "conn_health_checks",
    "executemany_mode",
    "use_native_hstore",
    // Go: pgx, golang-migrate, dbmate, lib/pq
    "binary_parameters",
    "default_query_exec_mode",
    "pool_max_conns",
    "pool_min_conns",
    "pool_max_conn_lifetime",
    "pool_max_conn_idle_time",
    "pool_health_check_period",
    "pool_max_conn_lifetime_jitter",
    "statement_cache_capacity",
    "description_cache_capacity",
    "statement_cache_mode",
    "x-migrations-table",
    "x-migrations-table-quoted",
    "x-statement-timeout",
    "x-multi-statement",
    "x-multi-statement-max-size",
    "x-lock-strategy",
    "x-lock-table",
    // asyncpg
    "dsn",
    // JDBC
    "currentSchema",
    "ApplicationName",
    "prepareThreshold",
    "preparedStatementCacheQueries",
    "reWriteBatchedInserts",
    "stringtype",
    "tcpKeepAlive",
    "socketTimeout",
    "connectTimeout",
    "loginTimeout",
    "sslfactory",
    "targetServerType",
    "defaultRowFetchSize",
    "autosave",
    "assumeMinServerVersion",
    // Rails, Ecto, Node
    "pool",
    "prepared_statements",
    "advisory_locks",
    "encoding",
    "adapter",
    "reaping_frequency",
    "checkout_timeout",
    "max",
    "idle_timeout",
    "max_lifetime",
    "prepare",
    "supa",
    "workaround",
    "pool_mode",
    "connection_pool_size",
];

fn is_foreign(key: &str) -> bool {
    FOREIGN.contains(&key)
}
