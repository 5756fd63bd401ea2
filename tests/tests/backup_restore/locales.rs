//! Locale providers and encodings: kept where the server has them, refused before anything is made where it has not.

use tests::oracle::{fingerprint, fingerprint_without};
use tests::{Cluster, Database, Options, Outcome, Snapshots, psql};

fn try_database<'c>(cluster: &'c Cluster, options: &str) -> Database<'c> {
    let database = cluster.fresh_database_with("locale", &format!("TEMPLATE template0 {options}"));
    database.psql("CREATE TABLE t (s text PRIMARY KEY); INSERT INTO t VALUES ('a'), ('B'), ('c'), ('Z')");
    database
}

fn locale_of(cluster: &Cluster, name: &str) -> String {
    cluster.psql(&format!(
        "SELECT concat_ws(' ', to_jsonb(d)->>'datlocprovider', to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale',
                datcollate, datctype, pg_encoding_to_char(encoding), to_jsonb(d)->>'datcollversion') FROM pg_database d WHERE datname = '{name}'"
    ))
}

fn comes_back_equal(cluster: &Cluster, options: &str) {
    let database = try_database(cluster, options);
    let snapshots = Snapshots::new();
    snapshots.create(&database, &[]);
    snapshots.restore_copy(&database, &[]);
    let copy = database.family().into_iter().find(|name| name != database.name()).unwrap();
    assert_eq!(locale_of(cluster, &copy), locale_of(cluster, database.name()));
    fingerprint(&database).assert_same(&fingerprint_without(&cluster.url(&copy), &[]));
}

#[test]
fn builtin_icu_and_libc_locales_come_back() {
    comes_back_equal(
        Cluster::shared(17),
        "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LC_COLLATE 'C' LC_CTYPE 'C' ENCODING 'UTF8'",
    );
    comes_back_equal(
        Cluster::shared(18),
        "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'PG_UNICODE_FAST' LC_COLLATE 'C' LC_CTYPE 'C' ENCODING 'UTF8'",
    );
    comes_back_equal(Cluster::shared(15), "LC_COLLATE 'C.UTF-8' LC_CTYPE 'C' ENCODING 'UTF8'");
    for encoding in ["EUC_JP", "LATIN1", "SQL_ASCII"] {
        comes_back_equal(Cluster::shared(14), &format!("LC_COLLATE 'C' LC_CTYPE 'C' ENCODING '{encoding}'"));
    }
}

/// A server of 15 or newer with ICU; one that has it not is a failure, never a test that proves nothing.
fn with_icu() -> &'static Cluster {
    [15, 16, 17, 18]
        .into_iter()
        .map(Cluster::shared)
        .find(|cluster| cluster.psql("SELECT count(*) FROM pg_collation WHERE collprovider = 'i'") != "0")
        .expect("a PostgreSQL 15 to 18 with ICU; the distribution's package and npm's have it")
}

/// A server of the same major that looks as if it was built without ICU.
fn without_icu(major: u32) -> Cluster {
    let cluster = Cluster::start(major, &Options::new());
    for name in ["postgres", "template1"] {
        psql::run(&cluster.url(name), "DELETE FROM pg_collation WHERE collprovider = 'i'");
    }
    cluster
}

/// What names collations of its own: a column, an index, a domain, a partition key, a range, a view's expression.
const NAMED: &str = r#"
CREATE SCHEMA app; CREATE COLLATION app.german (PROVIDER = icu, LOCALE = 'de-AT');
CREATE TABLE app.t (c text COLLATE app.german, plain text); INSERT INTO app.t VALUES ('a', 'b');
CREATE INDEX t_plain ON app.t (plain COLLATE "en-US-x-icu"); CREATE DOMAIN app.d AS text COLLATE "sv-SE-x-icu";
CREATE TABLE app.p (s text) PARTITION BY RANGE (s COLLATE "fr-FR-x-icu");
CREATE TYPE app.r AS RANGE (SUBTYPE = text, COLLATION = "it-IT-x-icu");
CREATE VIEW app.v AS SELECT plain COLLATE "da-DK-x-icu" AS x FROM app.t;
"#;

#[test]
fn collations_that_single_objects_name_are_refused_before_the_restore_where_they_are_missing() {
    let icu = with_icu();
    let database = icu.fresh_database("named");
    database.psql(NAMED);
    let snapshots = Snapshots::new();
    let id = snapshots.create(&database, &[]);
    let url = snapshots.restore_copy(&database, &[]);
    fingerprint(&database).assert_same(&fingerprint_without(&url, &[]));
    let target = without_icu(icu.major());
    for dry in [&[][..], &["--dry-run"]] {
        let arguments = [&[id.as_str(), "--into", "refused_copy"], dry].concat();
        snapshots.run("restore", &target.url("postgres"), &arguments).fails(
            3,
            &[
                "the collation app.german (icu, locale de-AT), and the server was built without ICU (used by table column app.t.c",
                "en-US-x-icu",
                "index app.t_plain",
                "sv-SE-x-icu",
                "type app.d",
                "fr-FR-x-icu",
                "table app.p",
                "it-IT-x-icu",
                "type app.r",
                "da-DK-x-icu",
                "No database was changed.",
            ],
        );
    }
    assert_eq!(target.psql("SELECT count(*) FROM pg_database WHERE datname = 'refused_copy'"), "0");
}

#[test]
fn a_libc_locale_of_one_column_that_the_machine_lacks_is_refused_and_named() {
    for major in tests::cluster::ends() {
        let database = Cluster::shared(major).fresh_database("libc");
        database.psql(
            "CREATE COLLATION absent (PROVIDER = libc, LOCALE = 'C'); CREATE TABLE t (c text COLLATE absent); INSERT INTO t VALUES ('a');
             SET allow_system_table_mods = on; UPDATE pg_collation SET collcollate = 'xx_XX.utf8', collctype = 'xx_XX.utf8' WHERE collname = 'absent'",
        );
        let snapshots = Snapshots::new();
        let id = snapshots.create(&database, &[]);
        let copy = format!("{}copy", database.name());
        snapshots.run("restore", &database.url(), &[&id, "--into", &copy]).fails(
            3,
            &[
                "the collation absent (libc, locale xx_XX.utf8)",
                "has no locale xx_XX.utf8",
                "table column public.t.c",
                "No database was changed.",
            ],
        );
        assert_eq!(database.family(), [database.name()]);
    }
}

#[test]
fn a_server_without_the_provider_is_refused_before_anything_is_made() {
    let snapshots = Snapshots::new();
    let refuses = |source: &Database, target: &Cluster, text: &str| {
        let id = snapshots.create(source, &[]);
        let databases =
            "SELECT array_agg(datname ORDER BY datname) FROM pg_database WHERE datname LIKE 'refused_copy%'";
        for dry in [&[][..], &["--dry-run"]] {
            let arguments = [&[id.as_str(), "--into", "refused_copy", "--force"], dry].concat();
            let outcome: Outcome = snapshots.run("restore", &target.url("postgres"), &arguments);
            outcome.fails(3, &[text, "No database was changed."]);
        }
        assert_eq!(target.psql(databases), "");
    };
    let builtin = try_database(
        Cluster::shared(18),
        "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LC_COLLATE 'C' LC_CTYPE 'C' ENCODING 'UTF8'",
    );
    refuses(&builtin, Cluster::shared(14), "the builtin locale C.UTF-8, which PostgreSQL 14 does not know");
    let icu = with_icu();
    let options = "LOCALE_PROVIDER icu ICU_LOCALE 'de-AT' LC_COLLATE 'C' LC_CTYPE 'C' ENCODING 'UTF8'";
    comes_back_equal(icu, options);
    let source = try_database(icu, options);
    refuses(&source, Cluster::shared(14), "can have no ICU locale");
    refuses(&source, &without_icu(icu.major()), "the server was built without ICU");
}

#[test]
fn a_locale_that_the_machine_lacks_is_refused_and_named() {
    let cluster = Cluster::shared(18);
    let database = try_database(cluster, "LC_COLLATE 'C' LC_CTYPE 'C' ENCODING 'UTF8'");
    // The catalog's word is what is recorded: as if it came from a machine that has the locale.
    cluster.psql(&format!(
        "UPDATE pg_database SET datcollate = 'xx_XX.utf8' WHERE datname = '{}'",
        database.name()
    ));
    let snapshots = Snapshots::new();
    let created = snapshots.run("backup", &database.url(), &["create"]);
    if created.code != 0 {
        // The server lets nobody into such a database.
        assert!(created.stderr.contains("locale"), "{}", created.stderr);
        cluster
            .psql(&format!("UPDATE pg_database SET datcollate = 'C' WHERE datname = '{}'", database.name()));
        return;
    }
    let copy = format!("{}copy", database.name());
    snapshots
        .run("restore", &cluster.url("postgres"), &[created.stdout.trim(), "--into", &copy])
        .fails(3, &["LC_COLLATE xx_XX.utf8", "Install it on the server's machine"]);
}

#[test]
fn another_version_of_the_collation_is_said_with_what_depends_on_it() {
    let cluster = with_icu();
    let database = try_database(
        cluster,
        "LOCALE_PROVIDER icu ICU_LOCALE 'en-US' LC_COLLATE 'C' LC_CTYPE 'C' ENCODING 'UTF8'",
    );
    database.psql("CREATE TABLE parts (s text) PARTITION BY RANGE (s); CREATE INDEX not_unique ON t (s)");
    cluster.psql(&format!(
        "UPDATE pg_database SET datcollversion = '0.1' WHERE datname = '{}'",
        database.name()
    ));
    let snapshots = Snapshots::new();
    let id = snapshots.create(&database, &[]);
    let copy = format!("{}copy", database.name());
    let outcome = snapshots.run("restore", &database.url(), &[&id, "--into", &copy]).expect(0).says(&[
        "the collation's version was 0.1",
        "unique index public.t_pkey",
        "range partitions of public.parts",
    ]);
    assert!(!outcome.stderr.contains("not_unique"), "{}", outcome.stderr);
    assert_eq!(psql::run(&cluster.url(&copy), "SELECT count(*) FROM t"), "4");
}

/// We read names as UTF-8; bytes in rows are another thing.
#[test]
fn a_name_that_is_no_utf_8_is_refused_with_its_bytes_and_rows_of_such_bytes_are_not() {
    let cluster = Cluster::shared(18);
    let options = "ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0";
    let database = cluster.fresh_database_with("bytes", options);
    database.psql(r"CREATE TABLE t (i int, v text); INSERT INTO t VALUES (1, E'na\xefve')");
    let snapshots = Snapshots::new();
    snapshots.create(&database, &[]);
    database.psql(r#"DO $$ BEGIN EXECUTE E'ALTER TABLE t ADD "na\xefve" int'; EXECUTE E'CREATE TYPE "t\xff" AS (i int)'; END $$"#);
    let told = r#""na\xefve" is no UTF-8"#;
    snapshots
        .run("backup", &database.url(), &["create"])
        .fails(3, &["column", told, "SQL_ASCII", "and 1 more"]);
    let checked = snapshots.run("backup", &database.url(), &["check"]).expect(3);
    assert!(checked.stdout.contains(told), "{}", checked.stdout);
    snapshots.run("safe-run", &database.url(), &["check"]).fails(3, &[told]);
    let mut command = tests::binaries::command("safe-run");
    command.args(["--", "true"]).env("DATABASE_URL", database.url()).current_dir(snapshots.path());
    Outcome::of(&mut command).fails(3, &[told]);
}
