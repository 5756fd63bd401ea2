//! A drill that was killed leaves its scratch database behind, and the next one drops it: that one, and no other.

use tests::{Cluster, Options, Outcome, ProtectedRun, Running, Snapshots, psql};

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

/// A comment can't be given with CREATE DATABASE.
#[test]
fn what_a_drill_left_that_was_killed_before_it_had_its_mark_is_dropped_and_nothing_else_that_is_closed() {
    for major in tests::cluster::ends() {
        let cluster = Cluster::start(major, &Options::new());
        cluster.psql("CREATE DATABASE shop TEMPLATE template0");
        let (snapshots, url) = (Snapshots::new(), cluster.url("shop"));
        snapshots.run("backup", &url, &["create"]).expect(0);
        // Of a person: closed, with a drill's name.
        cluster.psql("CREATE DATABASE shop_drill_20260101_000000 ALLOW_CONNECTIONS false");
        cluster.psql(
            "CREATE DATABASE shop_drill_20260102_000000 ALLOW_CONNECTIONS false CONNECTION LIMIT 71234567",
        );
        // As a drill runs it.
        let scratch = "shop_drill_20260103_000000";
        let mut killed =
            snapshots.command("restore", &url, &["latest", "--into", scratch, "--marker", "of a drill"]);
        Outcome::of(killed.env("SAFE_RUN_FAULT", "restore.made")).expect(-9);
        let facts = format!(
            "SELECT datallowconn, shobj_description(oid, 'pg_database') IS NULL FROM pg_database WHERE datname = '{scratch}'"
        );
        assert_eq!(cluster.psql(&facts), "f|t", "closed, and without its mark");
        let checked = snapshots.run("backup", &url, &["check"]).expect(0);
        assert!(checked.stdout.contains(&format!("killed drills left {scratch};")), "{}", checked.stdout);
        // While somebody is alive behind it, it stays.
        let mut alive = psql::Session::open(&cluster.url("postgres"));
        alive.run(&format!("SELECT pg_advisory_lock(hashtextextended('safe-run drill {scratch}', 0))"));
        snapshots.run("backup", &url, &["drill"]).expect(0);
        assert_eq!(cluster.psql(&facts), "f|t");
        drop(alive);
        // Its server process lets go a moment later.
        let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
        tests::until("the lock is gone", || cluster.psql(locks) == "0");
        let drilled = snapshots.run("backup", &url, &["drill"]).expect(0);
        drilled.says(&[&format!("dropped \"{scratch}\""), "DRILL OK"]);
        let left =
            "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE datname LIKE '%drill%'";
        assert_eq!(cluster.psql(left), "shop_drill_20260101_000000 shop_drill_20260102_000000");
    }
}

/// An owner without more rights has it tried whether a clone can get what belongs to the database itself.
#[test]
fn what_a_trial_left_that_was_killed_before_it_had_its_mark_is_dropped() {
    for major in tests::cluster::ends() {
        let cluster = Cluster::start(major, &Options::new());
        cluster.psql("CREATE ROLE owner LOGIN CREATEDB; GRANT pg_signal_backend TO owner");
        let run = ProtectedRun::on(cluster.fresh_database_with("trial", "TEMPLATE template0 OWNER owner"));
        let url = cluster.url_as("owner", run.database.name());
        psql::run(&url, "CREATE TABLE t AS SELECT i FROM generate_series(1, 10) i");
        let start = |fault: Option<&str>| {
            let mut command =
                run.command(&["--snapshot", "clone", "--", "psql", "-Xqc", "INSERT INTO t VALUES (11)"]);
            command.env("DATABASE_URL", &url).envs(fault.map(|point| ("SAFE_RUN_FAULT", point)));
            Running::start(command).outcome()
        };
        let killed = start(Some("safe-run.trial-made"));
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&killed.status), Some(9), "{killed}");
        let left = run.others();
        assert!(left.len() == 1 && left[0].contains("_trial_"), "{left:?}");
        start(None).says(&format!("dropped \"{}\", which a killed run had left behind", left[0])).exits(0);
        assert_eq!(run.others(), Vec::<String>::new());
    }
}
