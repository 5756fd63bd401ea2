//! Names that a server keeps for all of its databases, in the bytes of another encoding than the one they are read in: they stop
//! nobody who does not use them, and what uses one says so.

use tests::{Cluster, Database, Options, Outcome, Snapshots, psql};

/// `müller` as LATIN1 writes it.
const NAME: &str = r"m\xfcller";

/// A server on which a role, a database, a tablespace and a setting have names that are no UTF-8.
fn servers() -> Vec<Cluster> {
    let start = |major| {
        let cluster = Cluster::start(major, &Options::new());
        cluster
            .psql("CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
        psql::run(
            &cluster.url("latin"),
            "CREATE ROLE \"müller\" LOGIN; CREATE ROLE group_of_all; GRANT group_of_all TO \"müller\"; CREATE ROLE lone;
             ALTER ROLE \"müller\" SET search_path = 'schön';
             CREATE DATABASE \"müll\"",
        );
        cluster
    };
    tests::cluster::ends().into_iter().map(start).collect()
}

fn fill(database: &Database) {
    database.psql(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'x' || i FROM generate_series(1, 100) i;
         CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE VIEW v AS SELECT count(*) FROM t",
    );
}

#[test]
fn names_of_other_encodings_stop_no_command_that_does_not_use_them() {
    for cluster in servers() {
        for (word, options) in [
            ("utf8", "ENCODING 'UTF8' TEMPLATE template0"),
            ("ascii", "ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"),
        ] {
            let database = cluster.fresh_database_with(word, options);
            fill(&database);
            let url = database.url();
            let snapshots = Snapshots::new();
            snapshots.create(&database, &[]);
            snapshots.run("backup", &url, &["check"]).expect(0);
            snapshots.run("backup", &url, &["drill"]).expect(0);
            snapshots.run("restore", &url, &["latest", "--replace", "-y"]).expect(0);
            assert_eq!(database.psql("SELECT count(*) FROM t"), "100");
            snapshots.run("safe-run", &url, &["check", "--level", "deep"]).expect(0);
            let mut command = snapshots.command("safe-run", &url, &[]);
            command.args(["--", "psql", "-X", "-c", "ALTER TABLE t ADD COLUMN more int", &url]);
            Outcome::of(&mut command).expect(0);
            // As a role that is no superuser, obstacles are looked for.
            database.psql(&format!(
                "ALTER ROLE lone LOGIN CREATEDB; ALTER DATABASE {} OWNER TO lone",
                psql::quote_ident(database.name())
            ));
            let as_lone = cluster.url_as("lone", database.name());
            let checked = snapshots.run("backup", &as_lone, &["check"]);
            assert!(!checked.stderr.contains("panicked"), "{}", checked.stderr);
        }
    }
}

#[test]
fn a_role_of_another_encoding_that_the_database_uses_is_named_before_anything() {
    for cluster in servers() {
        let database = cluster.fresh_database_with("uses", "ENCODING 'UTF8' TEMPLATE template0");
        fill(&database);
        // UTF-8 can't write the name: the role is found by a group that it is in.
        database.psql(
            "DO $$ DECLARE member oid; BEGIN
               SELECT m.member INTO member FROM pg_auth_members m WHERE m.roleid = 'group_of_all'::regrole;
               EXECUTE format('ALTER TABLE t OWNER TO %s', member::regrole); END $$",
        );
        let snapshots = Snapshots::new();
        snapshots.run("backup", &database.url(), &["create"]).fails(3, &[NAME, "no UTF-8", "uses the role"]);
        snapshots.run("safe-run", &database.url(), &["check"]).fails(3, &[NAME]);
        assert!(snapshots.ids().is_empty());
    }
}

/// What is no name and can't be passed over is an error, and no panic.
#[test]
fn a_comment_of_another_encoding_is_an_error_that_says_so() {
    for cluster in servers() {
        let database = cluster.fresh_database_with("told", "ENCODING 'UTF8' TEMPLATE template0");
        fill(&database);
        let comment = format!("COMMENT ON DATABASE {} IS 'schön'", psql::quote_ident(database.name()));
        psql::run(&cluster.url("latin"), &comment);
        Snapshots::new()
            .run("backup", &database.url(), &["create"])
            .fails(1, &["is no UTF-8", "hint: The server keeps names", "write them in ASCII"]);
    }
}

/// Nobody reads what a statement of a migration returns.
#[test]
fn what_a_migration_returns_may_be_no_utf_8() {
    for cluster in servers() {
        let database = cluster.fresh_database_with("returned", "ENCODING 'UTF8' TEMPLATE template0");
        fill(&database);
        let snapshots = Snapshots::new();
        let path = snapshots.path();
        let folder = path.parent().unwrap();
        std::fs::create_dir(folder.join("migrations")).unwrap();
        let shows =
            "SELECT * FROM pg_roles; SELECT rolname FROM pg_roles; INSERT INTO t VALUES (101) RETURNING id;";
        std::fs::write(folder.join("migrations/1_shows.sql"), shows).unwrap();
        snapshots.run("safe-run", &database.url(), &[]).expect(0);
        assert_eq!(database.psql("SELECT count(*) FROM t"), "101");
        // A promise that is broken shows the row as far as it can be shown.
        std::fs::write(folder.join("migrations/2_more.sql"), "INSERT INTO t VALUES (102);").unwrap();
        let promise = "SELECT rolname, 5 AS five FROM pg_roles WHERE rolcanlogin AND NOT rolsuper;";
        std::fs::create_dir(folder.join("promises")).unwrap();
        std::fs::write(folder.join("promises/promise.sql"), promise).unwrap();
        let promises = folder.join("promises");
        let broken = snapshots.run("safe-run", &database.url(), &["--verify", promises.to_str().unwrap()]);
        let told = format!("{}{}", broken.stdout, broken.stderr);
        assert!(told.contains("(rolname (no UTF-8), five 5)"), "{told}");
    }
}

/// Who is in the way is told to a person, whatever he is called.
#[test]
fn a_session_of_a_role_of_another_encoding_that_is_in_the_way_is_shown() {
    for cluster in servers() {
        let database = cluster.fresh_database_with("waits", "ENCODING 'UTF8' TEMPLATE template0");
        fill(&database);
        database.psql("CREATE SCHEMA shut; ALTER ROLE lone LOGIN CREATEDB; GRANT ALL ON t TO group_of_all");
        let url = cluster.url_as("müller", database.name()).replace("%C3%BC", "%FC");
        let mut other = psql::Session::open(&url);
        other.run("BEGIN; LOCK TABLE public.t IN ACCESS EXCLUSIVE MODE");
        let snapshots = Snapshots::new();
        let waits = ["create", "--lock-timeout", "200ms", "--lock-retries", "1"];
        let refused = snapshots.run("backup", &database.url(), &waits).expect(4);
        assert!(refused.stderr.contains(&format!("user {NAME}")), "{}", refused.stderr);
        std::fs::create_dir(snapshots.path().parent().unwrap().join("migrations")).unwrap();
        std::fs::write(
            snapshots.path().parent().unwrap().join("migrations/1_add.sql"),
            "ALTER TABLE t ADD COLUMN more int;",
        )
        .unwrap();
        let waits = ["--snapshot", "none", "--lock-timeout", "300ms", "--lock-retries", "0"];
        let refused = snapshots.run("safe-run", &database.url(), &waits);
        assert!(refused.stdout.contains(&format!("user {NAME}")), "{} {}", refused.stdout, refused.stderr);
        other.run("ROLLBACK");
        snapshots.create(&database, &[]);
        let name = psql::quote_ident(database.name());
        database.psql(&format!("ALTER DATABASE {name} OWNER TO lone; ALTER TABLE t OWNER TO lone; ALTER VIEW v OWNER TO lone;
            ALTER FUNCTION f() OWNER TO lone; ALTER SCHEMA shut OWNER TO lone; ALTER SCHEMA public OWNER TO lone"));
        snapshots.create(&database, &[]);
        let as_lone = cluster.url_as("lone", database.name());
        let refused = snapshots.run("restore", &as_lone, &["latest", "--replace", "-y"]).expect(3);
        assert!(refused.stderr.contains(&format!("role \"{NAME}\"")), "{}", refused.stderr);
    }
}
