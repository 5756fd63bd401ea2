//! A drill that was killed leaves its scratch database behind, and the next one drops it: that one, and no other.

use tests::{Cluster, Options, Outcome, Snapshots, psql};

fn next_drill_drops_what_a_killed_one_left(major: u32) {
    let cluster = Cluster::start(major, &Options::new());
    cluster.psql("CREATE DATABASE shop TEMPLATE template0");
    cluster.psql("COMMENT ON DATABASE shop IS 'the shop'");
    psql::run(&cluster.url("shop"), "CREATE TABLE t AS SELECT i FROM generate_series(1, 100) i");
    // No database can be dropped while it has one.
    psql::run(
        &cluster.url("shop"),
        "CREATE SUBSCRIPTION \"Odd; one\" CONNECTION 'dbname=nowhere' PUBLICATION p WITH (connect = false, slot_name = 'of_shop');
         CREATE SUBSCRIPTION two CONNECTION 'dbname=nowhere' PUBLICATION p WITH (connect = false, slot_name = NONE)",
    );
    let snapshots = Snapshots::new();
    let url = cluster.url("shop");
    snapshots.run("backup", &url, &["create"]).expect(0);
    // Of a person: by its name a drill's, by its comment not; and the other way round.
    cluster.psql("CREATE DATABASE shop_drill_20260101_000000");
    let databases =
        "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE datname LIKE '%drill%'";

    let killed =
        Outcome::of(snapshots.command("backup", &url, &["drill"]).env("SAFE_RUN_FAULT", "drill.restored"));
    assert_eq!(killed.code, -9);
    let left = cluster.psql(databases);
    assert_eq!(left.split(' ').count(), 2, "{left}");
    let scratch =
        left.split(' ').find(|name| !name.ends_with("20260101_000000")).expect("the scratch database");
    cluster.psql("CREATE DATABASE my_own_drill");
    cluster.psql(&format!(
        "SELECT format('COMMENT ON DATABASE my_own_drill IS %L', shobj_description(oid, 'pg_database'))
         FROM pg_database WHERE datname = '{scratch}'\n\\gexec\n"
    ));
    let checked = snapshots.run("backup", &url, &["check"]).expect(0);
    assert!(checked.stdout.contains(&format!("killed drills left {scratch};")), "{}", checked.stdout);

    snapshots
        .run("backup", &url, &["drill"])
        .expect(0)
        .says(&[&format!("dropped \"{scratch}\""), "DRILL OK"]);
    assert_eq!(cluster.psql(databases), "my_own_drill shop_drill_20260101_000000");
    let checked = snapshots.run("backup", &url, &["check"]).expect(0);
    assert!(!checked.stdout.contains("leftovers"), "{}", checked.stdout);

    // One that is alive is left alone: its session on the server says that it is.
    let scratch = "shop_drill_20260102_000000";
    cluster.psql(&format!("CREATE DATABASE {scratch}"));
    cluster.psql(&format!(
        "SELECT format('COMMENT ON DATABASE {scratch} IS %L', shobj_description(oid, 'pg_database'))
         FROM pg_database WHERE datname = 'my_own_drill'\n\\gexec\n"
    ));
    let mut alive = psql::Session::open(&cluster.url("postgres"));
    alive.run(&format!("SELECT pg_advisory_lock(hashtextextended('safe-run drill {scratch}', 0))"));
    snapshots.run("backup", &url, &["drill"]).expect(0);
    assert!(cluster.psql(databases).contains(scratch));
    drop(alive);
    assert_eq!(
        cluster.psql("SELECT string_agg(subname || ' ' || subslotname, ', ') FROM pg_subscription"),
        "Odd; one of_shop"
    );
}

#[test]
fn the_next_drill_drops_what_a_killed_one_left_on_14() {
    next_drill_drops_what_a_killed_one_left(14);
}

#[test]
fn the_next_drill_drops_what_a_killed_one_left_on_18() {
    next_drill_drops_what_a_killed_one_left(18);
}
