//! What the programs say in cases in which they once said more, less or something else than was so.

use tests::{Outcome, cluster::Cluster, outcome::Snapshots, psql};

/// A role with rights on one schema alone, for as long as `with` lasts.
fn as_role(database: &tests::Database<'_>, rights: &str, with: impl FnOnce(&str)) {
    let role = format!("{}_role", database.name());
    let cluster = database.cluster();
    cluster.psql(&format!("CREATE ROLE {role} LOGIN {rights}"));
    with(&role);
    database.psql(&format!("DROP OWNED BY {role}"));
    cluster.psql(&format!("DROP ROLE {role}"));
}

/// What a dry run of some tables refuses, the run refuses too, with the same words.
fn a_dry_run_refuses_what_the_run_refuses(major: u32) {
    let database = Cluster::shared(major).fresh_database("dry");
    database.psql("CREATE SCHEMA app; CREATE TABLE app.t (i int, s text); INSERT INTO app.t VALUES (1, 'a')");
    let snapshots = Snapshots::new();
    let id = snapshots.create(&database, &[]);
    let both = |url: &str, arguments: &[&str], code: i32| -> Outcome {
        let arguments = [&[id.as_str(), "--table", "app.t", "-y"], arguments].concat();
        let dry = snapshots.run("restore", url, &[&arguments[..], &["--dry-run"]].concat()).expect(code);
        if code != 0 {
            let error = |outcome: &Outcome| {
                let line = outcome.stderr.lines().find(|line| line.starts_with("error: ")).expect("an error");
                // The type of a column is in the scratch database alone.
                line.replace("column s text is missing", "column s is missing")
            };
            let run = snapshots.run("restore", url, &arguments).expect(code);
            assert_eq!(error(&dry), error(&run));
        }
        dry
    };
    let url = database.url();
    let told = both(&url, &["--replace"], 0);
    assert!(
        told.stdout.contains("not checked: types and definitions of the live database"),
        "{}",
        told.stdout
    );

    as_role(&database, "", |role| {
        let url = database.cluster().url_as(role, database.name());
        let refused = both(&url, &[], 3);
        assert!(
            refused.stderr.contains(&format!("ALTER ROLE \"{role}\" CREATEDB"))
                || refused.stderr.contains(&format!("ALTER ROLE {role} CREATEDB")),
            "{}",
            refused.stderr
        );
    });
    as_role(&database, "CREATEDB", |role| {
        database.psql(&format!("GRANT USAGE ON SCHEMA app TO {role}; GRANT SELECT ON app.t TO {role}"));
        let url = database.cluster().url_as(role, database.name());
        let arguments = [id.as_str(), "--table", "app.t", "-y", "--replace"];
        let dry = snapshots.run("restore", &url, &[&arguments[..], &["--dry-run"]].concat()).expect(3);
        let grant = dry.stderr.split("superuser: ").nth(1).and_then(|rest| rest.split(';').next());
        // These are the grants that help: with them neither the dry run nor the run has anything to refuse.
        let dry_run = [&arguments[..], &["--dry-run"]].concat();
        database.psql(grant.expect("a grant"));
        let kept = snapshots.run("restore", &url, &dry_run);
        database.psql(&format!("REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC", database.name()));
        let bare = [&dry_run[..], &["--drop-replaced"]].concat();
        let temporary = format!("GRANT TEMPORARY ON DATABASE {} TO {role}", database.name());
        snapshots.run("restore", &url, &bare).fails(3, &[&temporary]);
        database.psql(&format!("{temporary}; GRANT USAGE ON SCHEMA app TO {role}"));
        snapshots.run("restore", &url, &bare).expect(0);
        let create = format!("GRANT CREATE ON SCHEMA \"app\" TO {role}");
        kept.fails(3, &[&create]);
        database.psql(&create);
        snapshots.run("restore", &url, &dry_run).expect(0);
        // Somebody else's table refers to it: only its owner may take its key away and put it back.
        database
            .psql("ALTER TABLE app.t ADD UNIQUE (i); CREATE TABLE app.refers (i int REFERENCES app.t (i))");
        snapshots.run("restore", &url, &dry_run).fails(3, &["does not own app.refers"]);
        database.psql("DROP TABLE app.refers");
        snapshots.run("restore", &url, &arguments).expect(0);
        database.psql("ALTER TABLE app.t DROP CONSTRAINT t_i_key");
    });

    // A partitioned table has its rows in others.
    database.psql("CREATE TABLE app.p (i int) PARTITION BY LIST (i); CREATE TABLE app.p1 PARTITION OF app.p FOR VALUES IN (1);
                   CREATE TABLE app.none (i int) PARTITION BY LIST (i); INSERT INTO app.p VALUES (1)");
    let parted = snapshots.create(&database, &[]);
    for table in ["app.p", "app.none"] {
        for dry_run in [&["--dry-run"][..], &[]] {
            let arguments = [&[parted.as_str(), "--table", table, "-y", "--replace"], dry_run].concat();
            snapshots.run("restore", &url, &arguments).expect(0);
        }
    }

    database.psql("ALTER TABLE app.t DROP COLUMN s");
    both(&url, &["--replace"], 3);
    database.psql("DROP TABLE app.t");
    both(&url, &["--replace"], 3);
    both(&url, &["--into", database.name()], 3);
}

#[test]
fn a_dry_run_of_some_tables_refuses_what_the_run_refuses_postgresql_14() {
    a_dry_run_refuses_what_the_run_refuses(14);
}

#[test]
fn a_dry_run_of_some_tables_refuses_what_the_run_refuses_postgresql_18() {
    a_dry_run_refuses_what_the_run_refuses(18);
}

/// Every row is read back, and is no more rows or bytes for that.
#[test]
fn what_is_loaded_and_read_back_is_counted_once() {
    let database = Cluster::shared(18).fresh_database("once");
    database.psql("CREATE TABLE t AS SELECT i, repeat('x', 1000) AS s FROM generate_series(1, 5000) i");
    let snapshots = Snapshots::new();
    let created = snapshots.run("backup", &database.url(), &["create", "--json"]).expect(0);
    let created: serde_json::Value = serde_json::from_str(&created.stdout).expect("one document");
    let bytes = created["raw_bytes"].as_u64().expect("a number");
    let restored = snapshots.run(
        "restore",
        &database.url(),
        &["latest", "--into", &format!("{}_copy", database.name())],
    );
    let line =
        restored.stderr.lines().find(|line| line.starts_with("loading ")).expect("the phase").to_owned();
    let told = format!("{:.2} MB, 5,000 rows", bytes as f64 / 1e6);
    assert!(line.contains(&told), "{line} without {told}");
}

/// A snapshot's list fits a terminal of 100 columns, whatever the tags are.
#[test]
fn the_list_of_snapshots_fits_a_hundred_columns() {
    let database = Cluster::shared(18).fresh_database("narrow");
    let snapshots = Snapshots::new();
    let tag = format!("why={}", "because ".repeat(30).trim());
    snapshots
        .run("backup", &database.url(), &["create", "--tag", &tag, "--name", "before the move"])
        .expect(0);
    snapshots.run_offline("backup", &["verify", "--all"]).expect(0);
    let width = |arguments: &[&str]| {
        let listed = snapshots.run_offline("backup", arguments).expect(0).stdout;
        listed.lines().map(|line| line.chars().count()).max().expect("a line")
    };
    assert!(width(&["list"]) <= 100);
    assert!(width(&["list", "-v"]) > 200, "every column, and the whole tag");
    // Whoever asks for JSON gets no list to choose from.
    let told = snapshots.run_offline("restore", &["--json"]).expect(2).stdout;
    let told: serde_json::Value =
        serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}"));
    assert_eq!(told["error"]["exit_code"], 2);
}

/// There is no database from which another could be made.
#[test]
fn a_server_without_a_maintenance_database_is_told_apart_from_one_that_keeps_the_role_out() {
    let cluster = Cluster::start(18, &tests::Options::new());
    cluster.psql("CREATE DATABASE app");
    psql::run(&cluster.url("app"), "CREATE TABLE t ()");
    let snapshots = Snapshots::new();
    snapshots.run("backup", &cluster.url("app"), &["create"]).expect(0);
    let restored = |hint: &str| {
        snapshots.run("restore", &cluster.url("app"), &["latest"]).fails(3, &[hint]);
    };
    psql::run(
        &cluster.url("app"),
        "CREATE ROLE low LOGIN; REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC",
    );
    let low = cluster.url_as("low", "app");
    snapshots
        .run("restore", &low, &["latest"])
        .fails(3, &["GRANT CONNECT ON DATABASE \"postgres\" TO \"low\""]);
    psql::run(&cluster.url("app"), "GRANT CONNECT ON DATABASE postgres, template1 TO PUBLIC");
    psql::run(&cluster.url("app"), "ALTER DATABASE template1 IS_TEMPLATE false");
    psql::run(&cluster.url("app"), "DROP DATABASE template1");
    psql::run(&cluster.url("app"), "DROP DATABASE postgres");
    restored("run CREATE DATABASE postgres");
}
