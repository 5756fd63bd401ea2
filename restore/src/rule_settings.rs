//! The settings that rules lean on. `current_setting('app.tenant')` in a CHECK, `default_text_search_config` behind a generated
//! column, the time zone that makes a day of a time: a session of the database has them from `ALTER DATABASE … SET` and `ALTER ROLE …
//! IN DATABASE … SET`, and a new database has neither before it is complete.
//!
//! So it *is lent* them from its first moment on, where every session of ours and every function finds them, and they are taken off
//! before it gets its own. Only those that change what an expression means are lent: none that loads a library, names a
//! role, a path or a file, or is of an extension, which may take it for the name of a function to call.

use common::{
    Error, Result,
    catalog::{DatabaseSetting, Role},
    postgres::{ConnectionSettings, Session},
    snapshot::{Manifest, readme::setting_statement},
};

/// What changes the value of an expression, and nothing else.
const OF_EXPRESSIONS: [&str; 15] = [
    "array_nulls",
    "backslash_quote",
    "bytea_output",
    "datestyle",
    "default_text_search_config",
    "extra_float_digits",
    "intervalstyle",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "timezone",
    "timezone_abbreviations",
    "transform_null_equals",
    "xmlbinary",
    "xmloption",
];

/// Of what PostgreSQL brings: settings of these run nothing.
const HARMLESS_CLASSES: [&str; 2] = ["plpgsql", "pg_trgm"];

/// The first parts of names that a library knows, or may know once it is loaded: those of extensions and of loaded libraries.
const CLASSES: &str = "
SELECT pg_catalog.lower(name::text) FROM pg_catalog.pg_available_extensions
UNION SELECT pg_catalog.lower(pg_catalog.split_part(name, '.', 1)) FROM pg_catalog.pg_settings WHERE name LIKE '%.%'";

/// Bytes of options that a new session is given at most: the server takes 10,000 in all.
const MOST_OPTION_BYTES: usize = 4096;

/// For a transaction in which rows pass their rules or are looked at, in a session of ours: what its text needs is pinned, and this
/// is not needed to read a text that we wrote.
pub const OF_ITS_SESSIONS: &str = "SET LOCAL \"TimeZone\" TO DEFAULT; SET LOCAL \"DateStyle\" TO DEFAULT; \
                                   SET LOCAL bytea_output TO DEFAULT; SET LOCAL extra_float_digits TO DEFAULT";

/// Begins a transaction in which rows pass their rules.
pub fn begin() -> String {
    format!("BEGIN; {OF_ITS_SESSIONS}")
}

/// Gives them to a database that was just made; the connection to it, with what only a session could be given.
///
/// One that the server does not take is left out here: the database gets its own settings in the end, and what is refused
/// then is said.
///
/// # Errors
/// The catalog can't be read, or the connection is lost.
pub async fn lend(
    maintenance: &Session,
    settings: ConnectionSettings,
    manifest: &Manifest,
    name: &str,
) -> Result<ConnectionSettings> {
    if manifest.database.settings.is_empty() && manifest.roles.iter().all(|role| role.settings.is_empty()) {
        return Ok(settings);
    }
    let rows = maintenance
        .query(CLASSES, &[])
        .await
        .map_err(|source| Error::postgres("could not list the settings of extensions", source))?;
    let classes: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let (mut settings, mut bytes) = (settings, 0);
    for setting in chosen(
        manifest.database.owner.as_str(),
        &manifest.database.settings,
        &manifest.roles,
        settings.user(),
        &classes,
    ) {
        let Err(source) = maintenance.batch_execute(&setting_statement(&setting, name)).await else {
            continue;
        };
        let Some(code) = source.code().map(|code| code.code()) else {
            return Err(Error::postgres(
                format!("could not give the database \"{name}\" its settings"),
                source,
            ));
        };
        // 42501: to store one that no library knows takes a superuser, to have one in a session nobody.
        bytes += setting.name.len() + setting.value.len();
        if code == "42501" && is_plain(&setting.name) && bytes < MOST_OPTION_BYTES && settings.takes_options()
        {
            settings = settings.with_option(&setting.name, &setting.value);
        }
    }
    Ok(settings)
}

/// Takes off what was lent.
pub fn take_back(name: &str) -> String {
    format!("ALTER DATABASE {} RESET ALL", common::Ident::new(name))
}

/// Which are lent, each once, as settings of the database: what the sessions of `user` have, else those of everybody, of the
/// database's owner, and of any role.
fn chosen(
    owner: &str,
    in_database: &[DatabaseSetting],
    roles: &[Role],
    user: &str,
    classes: &[String],
) -> Vec<DatabaseSetting> {
    let rank = |setting: &DatabaseSetting| match setting.role.as_deref() {
        Some(role) if role == user => 0,
        None => 1,
        Some(role) if role == owner => 2,
        Some(_) => 3,
    };
    let mut found: Vec<(u8, DatabaseSetting)> =
        in_database.iter().map(|setting| (rank(setting), setting.clone())).collect();
    for Role { name, settings, .. } in roles {
        found.extend(settings.iter().map(|(setting, value)| {
            let one =
                DatabaseSetting { role: Some(name.clone()), name: setting.clone(), value: value.clone() };
            (if name == owner { 4 } else { 5 }, one)
        }));
    }
    // Of a rank, in the order of the manifest.
    found.sort_by_key(|(rank, _)| *rank);
    let mut lent: Vec<DatabaseSetting> = Vec::new();
    for (rank, setting) in found {
        let is_known = lent.iter().any(|known| known.name.eq_ignore_ascii_case(&setting.name));
        // A day in the time zone of some other role is not better than one in the server's.
        let is_somebodys = rank > 2 && !setting.name.contains('.');
        if !is_known && !is_somebodys && is_lent(&setting.name, classes) {
            lent.push(DatabaseSetting { role: None, ..setting });
        }
    }
    lent
}

fn is_lent(name: &str, classes: &[String]) -> bool {
    let name = name.to_ascii_lowercase();
    match name.split_once('.') {
        None => OF_EXPRESSIONS.contains(&name.as_str()),
        Some((class, _)) => HARMLESS_CLASSES.contains(&class) || !classes.iter().any(|known| known == class),
    }
}

/// Whether it can be an option of a session: of a name that the server takes and that no library has.
fn is_plain(name: &str) -> bool {
    let is_word = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    name.contains('.')
        && name.split('.').all(is_word)
        && !HARMLESS_CLASSES.contains(&name.split('.').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lent(
        settings: &[(Option<&str>, &str, &str)],
        of_roles: &[(&str, &str, &str)],
    ) -> Vec<(String, String)> {
        let in_database: Vec<_> = settings
            .iter()
            .map(|(role, name, value)| DatabaseSetting {
                role: role.map(str::to_owned),
                name: (*name).to_owned(),
                value: (*value).to_owned(),
            })
            .collect();
        let role = |(name, setting, value): &(&str, &str, &str)| Role {
            name: (*name).to_owned(),
            attributes: Vec::new(),
            connection_limit: -1,
            valid_until: None,
            member_of: Vec::new(),
            settings: vec![((*setting).to_owned(), (*value).to_owned())],
            comment: None,
        };
        let roles: Vec<Role> = of_roles.iter().map(role).collect();
        let classes = ["plpgsql", "plv8", "pg_trgm"].map(str::to_owned);
        let chosen = chosen("app", &in_database, &roles, "me", &classes);
        assert!(chosen.iter().all(|setting| setting.role.is_none()));
        chosen.into_iter().map(|setting| (setting.name, setting.value)).collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_changes_an_expression_is_lent_and_nothing_that_loads_or_names_anything() {
        let all = [
            (None, "app.tenant", "x"),
            (None, "TimeZone", "Europe/Berlin"),
            (None, "plpgsql.variable_conflict", "use_column"),
            (None, "plv8.start_proc", "evil"),
            (None, "PLV8.Start_Proc", "evil"),
            (None, "session_preload_libraries", "evil"),
            (None, "local_preload_libraries", "evil"),
            (None, "role", "evil"),
            (None, "search_path", "evil"),
            (None, "default_transaction_read_only", "on"),
            (None, "session_replication_role", "replica"),
            (None, "statement_timeout", "1"),
        ];
        let wanted =
            [("app.tenant", "x"), ("TimeZone", "Europe/Berlin"), ("plpgsql.variable_conflict", "use_column")];
        assert_eq!(lent(&all, &[]), pairs(&wanted));
    }

    #[test]
    fn of_several_values_that_counts_which_the_nearest_sessions_have() {
        let (everybody, mine) = ((None, "app.tenant", "all"), (Some("me"), "app.tenant", "mine"));
        let (owners, others) = ((Some("app"), "App.Tenant", "app"), (Some("web"), "app.tenant", "web"));
        assert_eq!(lent(&[everybody, others, owners, mine], &[]), pairs(&[("app.tenant", "mine")]));
        assert_eq!(lent(&[others, owners, everybody], &[]), pairs(&[("app.tenant", "all")]));
        assert_eq!(lent(&[others, owners], &[]), pairs(&[("App.Tenant", "app")]));
        assert_eq!(lent(&[others], &[("app", "app.tenant", "far")]), pairs(&[("app.tenant", "web")]));
        let of_roles = [("web", "app.tenant", "web"), ("app", "app.tenant", "app")];
        assert_eq!(lent(&[], &of_roles), pairs(&[("app.tenant", "app")]));
        assert_eq!(lent(&[(Some("web"), "TimeZone", "Asia/Tokyo")], &[("app", "TimeZone", "UTC")]), []);
    }

    #[test]
    fn a_session_is_given_only_names_that_the_server_takes() {
        for (name, is) in [
            ("app.tenant", true),
            ("a._b.c1", true),
            ("timezone", false),
            ("app.", false),
            ("app.ten ant", false),
            ("1app.x", false),
            ("plpgsql.check_asserts", false),
        ] {
            assert_eq!(is_plain(name), is, "{name}");
        }
    }
}
