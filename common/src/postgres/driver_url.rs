//! A URL's parameters as the driver that its scheme names takes them. Pure.
//!
//! SQLAlchemy hands the parameters of `postgresql+DRIVER://` to the driver as arguments. psycopg takes libpq's; asyncpg and
//! pg8000 refuse to connect when they meet one that they do not know. That must stay so where a connection without it would
//! be a weaker one: such a parameter is handed on for the driver to refuse.

use std::collections::BTreeMap;

use percent_encoding::utf8_percent_encode;

use super::settings::{IN_QUERY, encode};

/// What asyncpg knows, or sends on to the server, when it stands in a `dsn`. The certificates it reads from PGSSL*.
const ASYNCPG: [&str; 3] = ["application_name", "options", "sslmode"];

/// What libpq would refuse to connect without, and asyncpg has nothing for.
const ASYNCPG_LACKS: [&str; 3] = ["channel_binding", "require_auth", "requirepeer"];

/// The parameters for a URL with this scheme, from libpq's.
pub(super) fn parameters(scheme: &str, keywords: &BTreeMap<&'static str, String>) -> Vec<(String, String)> {
    let those = |wanted: &dyn Fn(&str) -> bool| -> Vec<(String, String)> {
        let found = keywords.iter().filter(|(key, _)| wanted(key));
        found.map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
    };
    let scheme = scheme.to_ascii_lowercase();
    match scheme.split_once('+').map(|(_, driver)| driver) {
        // Tortoise's: every parameter becomes an argument of asyncpg, which reads PGSSLMODE by itself.
        None if scheme == "asyncpg" => those(&|key| ASYNCPG_LACKS.contains(&key)),
        // Its arguments have no place for these, but one of them is another URL, which has.
        Some("asyncpg") => {
            let mut parameters = those(&|key| ASYNCPG_LACKS.contains(&key));
            let inner: Vec<String> = those(&|key| ASYNCPG.contains(&key))
                .iter()
                .map(|(key, value)| format!("{}={}", encode(key), utf8_percent_encode(value, IN_QUERY)))
                .collect();
            if !inner.is_empty() {
                parameters.push(("dsn".to_owned(), format!("postgresql://?{}", inner.join("&"))));
            }
            parameters
        }
        // It sends none, not even from PGOPTIONS.
        Some("pg8000") => those(&|key| key != "options"),
        _ => those(&|_| true),
    }
}
