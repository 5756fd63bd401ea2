//! The rows of the list of hazards that concern what a snapshot's text means: settings, encodings, versions, timeouts.

use tests::oracle::{fingerprint, fingerprint_without};
use tests::{Cluster, Database, Snapshots, fixtures, psql};

fn round_trip(database: &Database, cluster: &Cluster, restore: &[&str]) -> (Snapshots, String) {
    let snapshots = Snapshots::new();
    let id = snapshots.create(database, &["--chunk-blocks", "2"]);
    let name = format!("{}copy", database.name());
    let arguments = [&[&id, "--into", &name], restore].concat();
    snapshots.run("restore", &cluster.url("postgres"), &arguments).expect(0);
    (snapshots, name)
}

#[test]
fn odd_settings_of_the_database_and_the_role_change_no_value() {
    odd_settings_change_no_value(18);
}

#[test]
fn odd_settings_of_the_database_and_the_role_change_no_value_postgresql_14() {
    odd_settings_change_no_value(14);
}

fn odd_settings_change_no_value(major: u32) {
    let cluster = Cluster::shared(major);
    let database = cluster.fresh_database("settings");
    fixtures::load_everything(&database);
    // A role of its own: settings of the role postgres would reach every other test.
    let role = format!("{}_role", database.name());
    let mut script = format!("CREATE ROLE {role} LOGIN SUPERUSER;");
    for setting in [
        "DateStyle = 'German, DMY'",
        "IntervalStyle = 'sql_standard'",
        "TimeZone = 'Australia/Lord_Howe'",
        "extra_float_digits = -15",
        "bytea_output = 'escape'",
        "lc_monetary = 'C.UTF-8'",
        "client_encoding = 'LATIN1'",
        "search_path = 'types'",
        "standard_conforming_strings = off",
        "row_security = on",
        // Shorter than anything takes.
        "statement_timeout = '1ms'",
        "lock_timeout = '1ms'",
        "idle_in_transaction_session_timeout = '1ms'",
        "default_transaction_read_only = on",
        "xmloption = 'document'",
        "xmlbinary = 'hex'",
        "default_transaction_isolation = 'serializable'",
        "default_transaction_deferrable = on",
        "session_replication_role = 'replica'",
        "backslash_quote = off",
        "escape_string_warning = on",
        "array_nulls = off",
        "transform_null_equals = on",
        "quote_all_identifiers = on",
        "check_function_bodies = on",
        "default_table_access_method = 'heap'",
        "default_with_oids = off",
        "client_min_messages = 'debug1'",
        "synchronize_seqscans = on",
    ] {
        script.push_str(&format!("ALTER ROLE {role} SET {setting};"));
    }
    if major >= 17 {
        // Long enough for a connection to be made: what a child program sets back itself.
        script.push_str(&format!("ALTER ROLE {role} SET transaction_timeout = '300ms';"));
    }
    database.psql(&script);
    let before = fingerprint(&database);
    let snapshots = Snapshots::new();
    let url = cluster.url_as(&role, database.name());
    let created = snapshots.run("backup", &url, &["create"]);
    let name = format!("{}copy", database.name());
    let restored = snapshots.run("restore", &url, &["latest", "--into", &name]);
    created.expect(0);
    restored.expect(0);
    let stale = ["materialized view \"app.stale\""];
    let after = fingerprint_without(&cluster.url(&name), &[]).without(&stale);
    drop(database);
    cluster.psql(&format!("DROP ROLE {role}"));
    before.without(&stale).assert_same(&after);
}

#[test]
fn latin1_and_sql_ascii_databases_keep_every_byte() {
    let cluster = Cluster::shared(18);
    for (encoding, bytes) in [
        (
            "LATIN1",
            "SELECT i, convert_from(set_byte('\\x00'::bytea, 0, i), 'LATIN1') FROM generate_series(1, 255) i",
        ),
        // Not valid in any encoding: a lone continuation byte, a cut-off sequence.
        (
            "SQL_ASCII",
            "SELECT i, convert_from(set_byte('\\x00'::bytea, 0, i), 'SQL_ASCII') FROM generate_series(1, 255) i",
        ),
    ] {
        let options = format!("TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'");
        let database = cluster.fresh_database_with("bytes", &options);
        database.psql(&format!("CREATE TABLE t (i int PRIMARY KEY, s text); INSERT INTO t {bytes}"));
        let sums = "SELECT count(*), min(octet_length(s)), max(octet_length(s)), \
                    md5(string_agg(s::bytea::text, ',' ORDER BY i)), md5(string_agg(convert_to(s, getdatabaseencoding())::text, ',' ORDER BY i)) FROM t WHERE s <> E'\\\\'";
        let before = database.psql(sums);
        assert!(before.starts_with("254|1|1|"), "{before}");
        let (_snapshots, name) = round_trip(&database, cluster, &[]);
        assert_eq!(psql::run(&cluster.url(&name), sums), before, "{encoding}");
        let found = format!("SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = '{name}'");
        assert_eq!(cluster.psql(&found), encoding);
    }
}

#[test]
fn unlogged_tables_keep_their_rows_and_stay_unlogged() {
    let cluster = Cluster::shared(15);
    let database = cluster.fresh_database("unlogged");
    database.psql("CREATE UNLOGGED TABLE t AS SELECT i FROM generate_series(1, 3000) i");
    let (_snapshots, name) = round_trip(&database, cluster, &[]);
    let state = "SELECT count(*), (SELECT relpersistence FROM pg_class WHERE relname = 't') FROM t";
    assert_eq!(psql::run(&cluster.url(&name), state), "3000|u");
}

#[test]
fn snapshots_of_older_servers_restore_into_newer_ones() {
    for (from, to) in [(14, 18), (15, 18), (14, 15)] {
        let database = Cluster::shared(from).fresh_database("older");
        fixtures::load_shop(&database, 0.004);
        let target = Cluster::shared(to);
        let (_snapshots, name) = round_trip(&database, target, &[]);
        let url = target.url(&name);
        let rows = |print: &tests::Fingerprint| -> Vec<(String, String)> {
            ["table ", "sequence ", "materialized view ", "large object "]
                .iter()
                .flat_map(|kind| {
                    print.parts(kind).map(|(k, v)| (k.to_owned(), v.to_owned())).collect::<Vec<_>>()
                })
                .collect()
        };
        // The schema's text differs between majors; the rows, the sequences and the objects must not.
        let (before, after) = (rows(&fingerprint(&database)), rows(&fingerprint_without(&url, &[])));
        target.psql(&format!("DROP DATABASE {}", psql::quote_ident(&name)));
        assert!(before.len() > 20, "{}", before.len());
        assert_eq!(before, after, "{from} to {to}");
    }
}

#[test]
fn a_transaction_timeout_of_a_millisecond_ends_no_session_of_ours() {
    for major in tests::cluster::majors().into_iter().filter(|major| *major >= 17) {
        let cluster = Cluster::shared(major);
        let database = cluster.fresh_database("timeouts");
        fixtures::load_shop(&database, 0.001);
        let role = format!("{}_role", database.name());
        database.psql(&format!(
            "CREATE ROLE {role} LOGIN SUPERUSER; ALTER ROLE {role} SET transaction_timeout = '1ms';
             ALTER ROLE {role} SET statement_timeout = '1ms'"
        ));
        let snapshots = Snapshots::new();
        let checked: Vec<i32> = (0..5)
            .map(|_| snapshots.run("backup", &cluster.url_as(&role, database.name()), &["check"]).code)
            .collect();
        database.psql(&format!("DROP ROLE {role}"));
        assert_eq!(checked, [0; 5]);
    }
}

/// The marks that minor releases of November 2026 give to columns, as a pg_dump of before takes them along.
fn marks_of_columns_stop_no_restore(major: u32) {
    let cluster = Cluster::shared(major);
    let database = cluster.fresh_database("marks");
    database.psql(
        "CREATE SCHEMA app; CREATE TABLE app.parent (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, t text DEFAULT 'it''s') \
         PARTITION BY RANGE (id);
         CREATE TABLE app.part PARTITION OF app.parent FOR VALUES FROM (1) TO (100);
         CREATE TABLE app.child (id serial PRIMARY KEY, parent int REFERENCES app.parent, \"a \"\"b\" text CHECK (\"a \"\"b\" <> ''));
         ALTER TABLE app.child ALTER parent SET (n_distinct = 5); COMMENT ON TABLE app.child IS 'one';
         CREATE MATERIALIZED VIEW app.seen AS SELECT count(*) AS n FROM app.child;
         CREATE VIEW app.looked AS SELECT * FROM app.child JOIN app.parent USING (id);
         INSERT INTO app.parent (t) SELECT 'x' FROM generate_series(1, 50); INSERT INTO app.child (parent) SELECT 3;
         GRANT SELECT ON app.child TO PUBLIC; REFRESH MATERIALIZED VIEW app.seen",
    );
    let before = fingerprint(&database);
    database.psql(
        "BEGIN; SET LOCAL allow_system_table_mods = on;
         UPDATE pg_attribute SET attoptions = coalesce(attoptions, '{}') || ARRAY['pg_attver=' || attnum] WHERE attnum > 0
           AND attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'app'::regnamespace AND relkind IN ('r', 'p', 'm'));
         COMMIT",
    );
    let (snapshots, name) = round_trip(&database, cluster, &[]);
    before.assert_same(&fingerprint_without(&cluster.url(&name), &[]));
    let (copy, id) = (format!("{name}2"), snapshots.ids().remove(0));
    snapshots.run("restore", &cluster.url("postgres"), &[&id, "--into", &copy, "--jobs", "1"]).expect(0);
    before.assert_same(&fingerprint_without(&cluster.url(&copy), &[]));
}

#[test]
fn marks_that_a_newer_minor_release_gives_to_columns_stop_no_restore_postgresql_14() {
    marks_of_columns_stop_no_restore(14);
}

#[test]
fn marks_that_a_newer_minor_release_gives_to_columns_stop_no_restore_postgresql_18() {
    marks_of_columns_stop_no_restore(18);
}
