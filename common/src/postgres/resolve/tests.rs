//! What libpq does with the same input, case by case.

use proptest::prelude::*;

use super::*;
use crate::ErrorKind;

fn nobody() -> Environment {
    Environment::from_pairs("ann", [("X", "y")])
}

fn resolve(value: &str) -> ConnectionSettings {
    match ConnectionSettings::resolve(Some(value), &nobody()) {
        Ok(settings) => settings,
        Err(error) => panic!("{value}: {error}"),
    }
}

fn refusal(value: &str, env: &Environment) -> Error {
    match ConnectionSettings::resolve(Some(value), env) {
        Ok(settings) => panic!("{value} was accepted: {settings:?}"),
        Err(error) => error,
    }
}

/// `user@host/database password`, for tables.
fn gist(value: &str) -> String {
    let settings = resolve(value);
    let password = settings.password_for(&settings.servers()[0]).map_or("-", Secret::expose);
    format!("{}@{}/{} {password}", settings.user(), settings.host_label(), settings.database())
}

#[test]
fn a_user_that_nobody_names_and_a_variable_that_is_no_text_are_told_with_the_next_step() {
    let nameless = refusal("postgresql://db/shop", &nobody().without_user_name());
    assert_eq!(
        nameless.hint(),
        Some("Name it in the URL, as in postgresql://user@host/database, or set PGUSER.")
    );
    let bytes = refusal("postgresql://db/shop", &nobody().with_not_utf8("PGUSER"));
    assert_eq!(bytes.message(), "the environment variable PGUSER is not UTF-8");
    assert_eq!(bytes.hint(), Some("Set it again in a UTF-8 locale, or unset it."));
}

#[test]
fn connection_strings_mean_what_libpq_takes_them_for() {
    for (value, expected) in [
        ("postgresql://bob:pw@db.example.com:6000/shop", "bob@db.example.com:6000/shop pw"),
        ("postgres://db.example.com", "ann@db.example.com:5432/ann -"),
        ("postgresql+psycopg2://bob@db/shop", "bob@db:5432/shop -"),
        ("postgres+asyncpg://bob@db/shop", "bob@db:5432/shop -"),
        ("asyncpg://bob@db/shop", "bob@db:5432/shop -"),
        // As Docker's --env-file leaves them.
        ("\"postgresql://bob:pw@db/shop\"", "bob@db:5432/shop pw"),
        ("'host=db user=bob dbname=shop'", "bob@db:5432/shop -"),
        ("jdbc:postgresql://db/shop?user=bob&password=pw&ssl=true", "bob@db:5432/shop pw"),
        ("postgresql:///shop?host=/run/pg&port=6000", "ann@socket /run/pg:6000/shop -"),
        ("postgresql://%2Frun%2Fpg/shop", "ann@socket /run/pg:5432/shop -"),
        ("postgresql://bob@%2Frun%2Fpg:6000/shop", "bob@socket /run/pg:6000/shop -"),
        ("postgresql:///shop", "ann@socket /var/run/postgresql:5432/shop -"),
        ("postgresql://", "ann@socket /var/run/postgresql:5432/ann -"),
        ("postgresql://:6000/shop", "ann@socket /var/run/postgresql:6000/shop -"),
        ("postgresql://bob@[::1]:6000/shop", "bob@[::1]:6000/shop -"),
        ("postgresql://bob@[::1]/shop", "bob@[::1]:5432/shop -"),
        ("postgresql://bob@a:1,b:2/shop", "bob@a:1, b:2/shop -"),
        ("postgresql://bob@a,b/shop?port=7", "bob@a:7, b:7/shop -"),
        ("postgresql://b%40b:p%3A%2F%40%25@db/s%2Fh", "b@b@db:5432/s/h p:/@%"),
        ("postgresql://bob:a:b@db/shop", "bob@db:5432/shop a:b"),
        ("postgresql://bob:@db/shop", "bob@db:5432/shop -"),
        ("postgresql://bob@db?dbname=shop", "bob@db:5432/shop -"),
        ("shop", "ann@socket /var/run/postgresql:5432/shop -"),
        ("host=db user=bob dbname=shop", "bob@db:5432/shop -"),
        ("host = db user = 'b o b' password='it\\'s \\\\ ok'", "b o b@db:5432/b o b it's \\ ok"),
        (r"host=db password=a\ b dbname=''", "ann@db:5432/ann a b"),
        ("hostaddr=127.0.0.1 port=6000 dbname=shop", "ann@127.0.0.1:6000/shop -"),
        (
            "host=a,,c port=1,2,3",
            "ann@a:1, socket /var/run/postgresql:2, socket /tmp:2, localhost:2, c:3/ann -",
        ),
        ("host=db port=6000 port=6001", "ann@db:6001/ann -"),
        ("  \n", "ann@socket /var/run/postgresql:5432/ann -"),
    ] {
        assert_eq!(gist(value), expected, "{value}");
    }
}

#[test]
fn errors_of_malformed_strings_never_repeat_the_secret() {
    for value in [
        "postgres://bob:hun/ter2@db/shop",
        "postgres://bob:12/hunter2@db/shop",
        "postgres://bob:hun@hunter2@db/shop",
        "postgres://bob:hun%hunter2@db/shop",
        "postgres://bob:%ffhunter2@db/shop",
        "postgres://bob:hunter2",
        "postgres://[hunter2/shop",
        "postgres://bob:x@db:hunter2/shop",
        "postgres://db/shop?hunter2",
        "postgres://db/shop?password=%hunter2",
        "postgres://db:1,b:hunter2/shop",
        "password=my hunter2",
        "password=my hunter=hunter2",
        "password=my hunter2= x",
        "password='hunter2",
        "postgres://a/b?password=hunter2&sslmode=x",
        "bob:hunter2@db",
        "hunter2@db/shop",
        "bob:hunter2@db://x",
        "postgres://u:hunter2%00@db/shop",
    ] {
        let error = refusal(value, &nobody());
        assert_eq!(error.kind(), ErrorKind::Usage, "{value}: {error}");
        let shown = format!("{error} {error:?} {:?}", error.hint());
        assert!(!shown.contains("hunter2") && !shown.contains("%ff"), "{value}: {shown}");
    }
}

#[test]
fn what_libpq_would_refuse_is_a_usage_error_that_names_the_setting() {
    for (value, named) in [
        ("mysql://db/shop", "MySQL"),
        ("cassandra://db/shop", "\"cassandra\""),
        ("host=db frobnicate=1", "\"frobnicate\""),
        ("postgres://db/shop?frobnicate=1", "\"frobnicate\""),
        ("host=db sslmode=strict", "\"sslmode\""),
        ("host=db port=0", "port"),
        ("host=db port=65536", "port"),
        ("host=a,b port=1,2,3", "3 port numbers do not match 2 hosts"),
        ("host=a,b hostaddr=127.0.0.1", "2 host names do not match 1"),
        ("hostaddr=localhost", "\"hostaddr\""),
        ("host=@abstract", "abstract"),
        ("host=db connect_timeout=soon", "\"connect_timeout\""),
        ("host=db target_session_attrs=best", "\"target_session_attrs\""),
        ("host=db sslrootcert=system sslmode=require", "sslmode=require is too weak"),
        ("host=db sslnegotiation=direct", "sslmode=prefer is too weak"),
        ("host=db require_auth=scram-sha-256", "\"require_auth\""),
        ("host=db requirepeer=postgres", "\"requirepeer\""),
        ("host=db gssencmode=require", "\"gssencmode\""),
        ("host=db sslpassword=x", "\"sslpassword\""),
        ("service=none", "\"none\""),
    ] {
        let error = refusal(value, &nobody());
        assert_eq!(error.kind(), ErrorKind::Usage, "{value}");
        assert!(error.message().contains(named), "{value}: {error}");
        assert!(error.hint().is_some(), "{value}: {error} has no hint");
    }
}

#[test]
fn missing_pieces_come_from_the_variables() {
    let env = Environment::from_pairs(
        "ann",
        [
            ("PGHOST", "env.example.com"),
            ("PGPORT", "6000"),
            ("PGUSER", "bob"),
            ("PGPASSWORD", "pw"),
            ("PGSSLMODE", "require"),
            ("PGOPTIONS", "-c a=b"),
            ("PGDATABASE", ""),
        ],
    );
    let settings = ConnectionSettings::resolve(None, &env).unwrap();
    assert_eq!(
        settings.redacted_url(),
        "postgresql://bob@env.example.com:6000/bob?options=-c%20a%3Db&sslmode=require"
    );
    let settings =
        ConnectionSettings::resolve(Some("postgresql://carl@db/shop?sslmode=disable"), &env).unwrap();
    assert_eq!(settings.redacted_url(), "postgresql://carl@db:6000/shop?options=-c%20a%3Db&sslmode=disable");
    assert_eq!(settings.password_for(&settings.servers()[0]).map(Secret::expose), Some("pw"));
}

#[test]
fn an_address_of_the_environment_never_redirects_a_named_host() {
    let env = Environment::from_pairs("ann", [("PGHOSTADDR", "10.0.0.1")]);
    let settings = ConnectionSettings::resolve(Some("postgres://db/shop"), &env).unwrap();
    assert_eq!(settings.redacted_url(), "postgresql://ann@db:5432/shop");
    assert!(settings.warnings()[0].contains("PGHOSTADDR"));
    let settings = ConnectionSettings::resolve(Some("shop"), &env).unwrap();
    assert_eq!(settings.host_label(), "10.0.0.1:5432");
}

#[test]
fn parameters_of_other_tools_are_warned_about_and_kept_for_the_child() {
    let settings = resolve("postgresql+asyncpg://bob:p%40w@db/shop?schema=app&pgbouncer=true");
    assert!(settings.warnings()[0].contains("\"schema\", \"pgbouncer\""));
    assert_eq!(settings.redacted_url(), "postgresql://bob@db:5432/shop");
    assert_eq!(
        settings.url_for_child().expose(),
        "postgresql+asyncpg://bob:p%40w@db:5432/shop?schema=app&pgbouncer=true"
    );
}

#[test]
fn the_childs_url_is_one_that_its_driver_takes() {
    for (url, child) in [
        (
            "postgresql+psycopg://db/shop?sslmode=disable",
            "postgresql+psycopg://ann@db:5432/shop?application_name=a&options=-c%20x%3D1&sslmode=disable",
        ),
        (
            "postgresql+asyncpg://db/shop?ssl=require&prepared_statement_cache_size=0&sslrootcert=/r.crt",
            "postgresql+asyncpg://ann@db:5432/shop?dsn=postgresql://%3Fapplication_name%3Da%26options%3D-c%2520x%253D1\
             %26sslmode%3Drequire&prepared_statement_cache_size=0",
        ),
        // What it can't promise stays in its way.
        (
            "postgresql+asyncpg://db/shop?channel_binding=require",
            "postgresql+asyncpg://ann@db:5432/shop?channel_binding=require\
             &dsn=postgresql://%3Fapplication_name%3Da%26options%3D-c%2520x%253D1",
        ),
        ("asyncpg://db/shop?sslmode=require", "asyncpg://ann@db:5432/shop"),
        ("postgresql+pg8000://db/shop", "postgresql+pg8000://ann@db:5432/shop?application_name=a"),
        // sqlx wants a host before that of the socket, and has one there.
        (
            "postgres://localhost/shop?host=/run/pg",
            "postgres://ann@localhost/shop?host=/run/pg&port=5432&application_name=a&options=-c%20x%3D1",
        ),
        (
            "postgres:///shop?host=/run/pg",
            "postgres://ann@/shop?host=/run/pg&port=5432&application_name=a&options=-c%20x%3D1",
        ),
    ] {
        let settings = resolve(url).with_option("x", "1").with_application_name("a");
        assert_eq!(settings.url_for_child().expose(), child);
        let again = resolve(child);
        assert_eq!(again.database(), "shop", "{child}");
    }
    assert!(refusal("postgresql://db/shop?ssl=perhaps", &nobody()).message().contains("ssl"));
}

#[test]
fn options_are_escaped_as_the_server_splits_them() {
    let settings = resolve("host=db options='-c x=1'").with_option("search_path", r"a b\c");
    assert_eq!(settings.options(), Some(r"-c x=1 -c search_path=a\ b\\c"));
}

#[test]
fn the_childs_variables_are_complete_and_every_other_is_cleared() {
    let settings =
        resolve("postgresql://bob:pw@db:6000/shop?sslmode=verify-full&sslrootcert=/r.crt&connect_timeout=5")
            .with_application_name("safe-run/7")
            .with_option("default_transaction_read_only", "off");
    let variables = settings.child_environment();
    let shown: Vec<String> =
        variables.iter().map(|(name, value)| format!("{name}={}", value.expose())).collect();
    assert_eq!(
        shown,
        [
            "PGHOST=db",
            "PGPORT=6000",
            "PGUSER=bob",
            "PGDATABASE=shop",
            "PGPASSWORD=pw",
            "PGCONNECT_TIMEOUT=5",
            "PGOPTIONS=-c default_transaction_read_only=off",
            "PGAPPNAME=safe-run/7",
            "PGSSLMODE=verify-full",
            "PGSSLROOTCERT=/r.crt",
        ]
    );
    assert!(!format!("{variables:?} {settings:?}").contains("pw"));
    for keyword in
        KEYWORDS.iter().filter_map(|keyword| keyword.variable).filter(|name| *name != "PGCLIENTENCODING")
    {
        assert!(crate::postgres::settings::VARIABLES_TO_CLEAR.contains(&keyword), "{keyword} is not cleared");
    }
}

#[test]
fn password_files_count_only_when_nobody_else_can_read_them() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join(".pgpass");
    std::fs::write(&file, "db:*:shop:ann:one\nlocalhost:*:*:*:two\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let env = nobody().with_home(home.path());
    let found = |value: &str| {
        let settings = ConnectionSettings::resolve(Some(value), &env).unwrap();
        (settings.password_for(&settings.servers()[0]).map(|secret| secret.expose().to_owned()), settings)
    };
    let (password, settings) = found("postgres://db/shop");
    assert_eq!(password.as_deref(), Some("one"));
    let other = settings.with_database("other");
    assert_eq!(other.password_for(&other.servers()[0]), None, "the lines name databases");
    assert_eq!(found("host=/run/pg").0.as_deref(), Some("two"));
    assert_eq!(found("postgres://ann:given@db/shop").0.as_deref(), Some("given"));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    let (password, settings) = found("postgres://db/shop");
    assert_eq!(password, None);
    assert!(settings.warnings()[0].contains("0600"), "{:?}", settings.warnings());
}

#[test]
fn services_come_between_the_string_and_the_variables() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(
        home.path().join(".pg_service.conf"),
        "[shop]\nhost=db\nport=6000\nuser=bob\npassword=pw\n[nested]\nservice=shop\n[odd]\nfrob=1\n[bad]\nhunter2\n",
    )
    .unwrap();
    let env = Environment::from_pairs("ann", [("PGPORT", "1"), ("PGSERVICE", "shop")]).with_home(home.path());
    let settings = ConnectionSettings::resolve(Some("dbname=x user=carl"), &env).unwrap();
    assert_eq!(settings.redacted_url(), "postgresql://carl@db:6000/x");
    assert_eq!(settings.password_for(&settings.servers()[0]).map(Secret::expose), Some("pw"));
    assert!(refusal("service=nested", &env).message().contains("refers to another service"));
    assert!(refusal("service=odd", &env).message().contains("\"frob\" in service \"odd\""));
    let error = refusal("service=bad", &env);
    assert!(error.message().contains("line 11") && !error.message().contains("hunter2"), "{error}");
    let error = refusal("service=nowhere", &env);
    assert!(
        error.message().contains("\"nowhere\" is not defined")
            && error.hint().is_some_and(|hint| hint.contains(".pg_service.conf"))
    );
}

#[test]
fn system_authorities_imply_verify_full() {
    assert_eq!(resolve("host=db sslrootcert=system").tls().mode, SslMode::VerifyFull);
    assert_eq!(resolve("host=db").tls().mode, SslMode::Prefer);
    assert_eq!(resolve("host=db requiressl=1").tls().mode, SslMode::Require);
}

#[test]
fn narrowing_names_the_server_that_answered() {
    let settings = resolve("postgresql:///shop?target_session_attrs=primary");
    let narrowed = settings.narrowed_to(&settings.servers()[1]);
    assert_eq!(narrowed.redacted_url(), "postgresql://ann@/shop?host=/tmp&port=5432");
    assert!(
        narrowed
            .child_environment()
            .iter()
            .any(|(name, value)| *name == "PGHOST" && value.expose() == "/tmp")
    );
}

proptest! {
    #[test]
    fn any_text_is_resolved_or_refused_without_panic(text in any::<String>()) {
        let _ = ConnectionSettings::resolve(Some(&text), &nobody());
    }

    #[test]
    fn any_url_is_resolved_or_refused_without_panic(text in "postgresql://[a-z:@/?=&%,0-9\\[\\].]{0,40}") {
        let _ = ConnectionSettings::resolve(Some(&text), &nobody());
    }

    #[test]
    fn urls_and_pairs_round_trip(
        user in "[^\\x00]{1,10}",
        database in "[^\\x00]{1,10}",
        password in "[^\\x00]{1,10}",
        host in "[a-z][a-z0-9.-]{0,8}|/[^\\x00,]{1,8}|::1|10\\.0\\.0\\.1",
        port in 1..=u16::MAX,
        application in "[^\\x00]{1,10}",
    ) {
        prop_assume!(host.trim() == host);
        let pairs = format!(
            "host={} port={port} user={} dbname={} password={} application_name={}",
            crate::ident::conninfo_value(&host),
            crate::ident::conninfo_value(&user),
            crate::ident::conninfo_value(&database),
            crate::ident::conninfo_value(&password),
            crate::ident::conninfo_value(&application),
        );
        let settings = ConnectionSettings::resolve(Some(&pairs), &nobody()).unwrap();
        prop_assert_eq!(settings.user(), &user);
        prop_assert_eq!(settings.database(), &database);
        prop_assert_eq!(settings.application_name(), Some(application.as_str()));
        let again = ConnectionSettings::resolve(Some(&settings.redacted_url()), &nobody()).unwrap();
        prop_assert_eq!(again.redacted_url(), settings.redacted_url());
        prop_assert_eq!(again.servers(), settings.servers());
        let child = ConnectionSettings::resolve(Some(settings.url_for_child().expose()), &nobody()).unwrap();
        prop_assert_eq!(child.password_for(&child.servers()[0]).map(Secret::expose), Some(password.as_str()));
        prop_assert_eq!(child.user(), &user);
        prop_assert_eq!(child.database(), &database);
    }
}
