//! Who owns what, and what runs, after a restore: owners of every kind of object are the snapshot's, or it is said; a
//! subscription comes back disabled and without a slot; foreign tables are not read; the planner has its statistics.

use tests::oracle::{fingerprint, fingerprint_without};
use tests::{Cluster, Snapshots, psql};

/// Restored by another superuser than the one who made it.
fn owners_come_back(major: u32) {
    let cluster = Cluster::shared(major);
    let database = cluster.fresh_database("owners");
    let (owner, other) = (format!("{}_owner", database.name()), format!("{}_other", database.name()));
    cluster.psql(&format!("CREATE ROLE {owner} SUPERUSER LOGIN; CREATE ROLE {other} SUPERUSER LOGIN"));
    let script = "CREATE SCHEMA app; CREATE TABLE app.t (id int PRIMARY KEY, s serial); CREATE TYPE app.e AS ENUM ('a');
        CREATE FUNCTION app.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE AGGREGATE app.g(int) (SFUNC = int4pl, STYPE = int);
        CREATE COLLATION app.c FROM \"C\"; CREATE STATISTICS app.st ON id, s FROM app.t; CREATE PUBLICATION pub FOR TABLE app.t;
        CREATE FUNCTION app.ev() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
        CREATE EVENT TRIGGER ev ON ddl_command_end EXECUTE FUNCTION app.ev(); CREATE FOREIGN DATA WRAPPER w;
        CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE app.ft (i int) SERVER s;
        CREATE FUNCTION app.plus(app.e, app.e) RETURNS int LANGUAGE sql AS 'SELECT 2';
        CREATE OPERATOR app.+ (LEFTARG = app.e, RIGHTARG = app.e, FUNCTION = app.plus); CREATE EXTENSION hstore SCHEMA app;
        CREATE SUBSCRIPTION sub CONNECTION 'dbname=nowhere' PUBLICATION p WITH (connect = false, slot_name = 'of_the_live_one');
        CREATE VIEW app.v AS SELECT 1 AS one; INSERT INTO app.t SELECT i FROM generate_series(1, 500) i";
    psql::run(&cluster.url_as(&owner, database.name()), script);
    if major < 16 {
        // A newer pg_dump writes options for it that an older server, from which it was dumped, refuses.
        database.psql("ALTER SUBSCRIPTION sub SET (slot_name = NONE); DROP SUBSCRIPTION sub");
    }
    let snapshots = Snapshots::new();
    let id = snapshots.create(&database, &[]);
    let copy = format!("{}copy", database.name());
    let url = cluster.url_as(&other, database.name());
    let outcome = snapshots.run("restore", &url, &[&id, "--into", &copy]);
    let says = format!(
        "extension hstore belongs to {other} and not to {owner}: PostgreSQL lets nobody give it away"
    );
    let shown = snapshots.run_offline("backup", &["show", &id]).expect(0).stdout;
    let before = fingerprint(&database);
    let subscription = psql::run(
        &cluster.url(&copy),
        "SELECT subenabled, subslotname FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE datname = current_database()",
    );
    if major >= 16 {
        // The copy's has no slot: whoever drops the copy must not drop the live one's slot on the publisher.
        psql::run(&cluster.url(&copy), "ALTER SUBSCRIPTION sub SET (slot_name = 'of_the_live_one')");
    }
    let after = fingerprint_without(&cluster.url(&copy), &[]);
    let statistics = psql::run(
        &cluster.url(&copy),
        "SELECT count(*) FROM pg_stats WHERE schemaname = 'app' AND tablename = 't'",
    );
    for name in database.family().iter().rev() {
        if major >= 16 {
            psql::run(
                &cluster.url(name),
                "ALTER SUBSCRIPTION sub SET (slot_name = NONE); DROP SUBSCRIPTION sub",
            );
        }
    }
    cluster.psql(&format!("ALTER DATABASE {copy} OWNER TO postgres; DROP DATABASE {copy}"));
    drop(database);
    cluster.psql(&format!("DROP ROLE {owner}; DROP ROLE {other}"));
    outcome.expect(0).says(&[&says]);
    assert_eq!(statistics, "2");
    if major >= 16 {
        assert!(
            shown.contains("1 subscription: restored disabled and without a replication slot"),
            "{shown}"
        );
        assert_eq!(subscription, "f|");
    }
    // The definition of a foreign table comes back; nobody asked its server, which does not exist.
    assert!(shown.contains("1 foreign table: the definition is kept, the remote rows are not"), "{shown}");
    assert_eq!(after.count("foreign table "), 1);
    let left = ["extension ", "subscription "];
    before.without(&left).assert_same(&after.without(&left));
}

#[test]
fn owners_of_every_kind_come_back_and_what_nobody_can_give_away_is_said_postgresql_14() {
    owners_come_back(14);
}

#[test]
fn owners_of_every_kind_come_back_and_what_nobody_can_give_away_is_said_postgresql_18() {
    owners_come_back(18);
}
