//! Nobody's code runs with our rights: a low role plants code wherever PostgreSQL evaluates some, and every command is run as
//! a superuser. What pg_dump and pg_restore let run is the control.

use tests::{Planted, ProtectedRun, Snapshots, cluster::Cluster, psql};

/// The oldest and the newest server, and the next one where it is to be had.
fn ends() -> Vec<u32> {
    tests::cluster::majors().into_iter().filter(|major| [14, 18, 19].contains(major)).collect()
}

#[test]
fn the_planted_code_tells_as_whom_it_runs_and_is_found_out_when_only_set_role_holds_it() {
    for major in ends() {
        let run = ProtectedRun::shop(major);
        let mut planted = Planted::plant(&run.database);
        run.database.psql("SELECT id FROM planted.t WHERE id = 1 AND feeling::text = 'x'");
        let heard = planted.heard();
        for place in ["partial index", "index expression", "statistics", "cast"] {
            assert_eq!(heard.get(place).map(Vec::as_slice), Some(&["postgres".to_owned()][..]), "{heard:?}");
        }
        run.database.psql(&format!(
            "BEGIN; SET LOCAL ROLE {}; SELECT id FROM planted.t WHERE id = 1; ROLLBACK",
            psql::quote_ident(planted.role())
        ));
        let held = planted.heard();
        assert_eq!(held["partial index"], [planted.role().to_owned(), "postgres".to_owned()], "{held:?}");
        planted.remove();
    }
}

#[test]
fn checks_and_plans_run_an_owners_code_as_the_owner() {
    for major in ends() {
        let run = ProtectedRun::shop(major);
        let mut planted = Planted::plant(&run.database);
        // Violations, so that keys are listed and cast to text.
        planted.psql(
            "SET planted.quiet = on; UPDATE planted.with_mood SET n = -1;
            ALTER TABLE planted.with_mood ADD CHECK (n > 0) NOT VALID",
        );
        planted.heard();
        run.run(&["check", "--level", "fast"]).exits(0);
        planted.ran_only_as_itself("check --level fast");
        for level in ["standard", "deep"] {
            let ended = run.run(&["check", "--level", level]).exits(31).says("good");
            assert!(!ended.stdout.contains("forged"), "a row's key is its own text: {ended}");
            let own = planted.ran_only_as_itself(&format!("check --level {level} on {major}"));
            for place in [
                "cast between rows",
                "operator in statistics",
                "check",
                "not null domain",
                "domain",
                "index expression",
                "partial index",
                "unique expression",
                "unique predicate",
                "exclude",
                "statistics",
                "operator",
                "view",
            ] {
                assert!(own.iter().any(|heard| heard == place), "{place} was not looked at: {own:?}");
            }
        }
        run.migration("1_add.sql", "ALTER TABLE orders ADD COLUMN more int;");
        for command in [&["plan"][..], &["status"], &["history"]] {
            run.run(command);
            planted.ran_only_as_itself(command[0]);
        }
        planted.remove();
    }
}

#[test]
fn a_run_checks_an_owners_tables_as_the_owner_before_and_after() {
    for major in ends() {
        let run = ProtectedRun::shop(major);
        let mut planted = Planted::plant(&run.database);
        run.migration("1_add.sql", "ALTER TABLE orders ADD COLUMN more int;");
        run.run(&["--snapshot", "none"]).exits(0);
        planted.ran_only_as_itself("safe-run");
        run.migration(
            "2_outside.sql",
            "-- safe-run: no-transaction\nCREATE INDEX CONCURRENTLY ON orders (more);",
        );
        run.run(&["--snapshot", "none", "--on-failure", "stop", "--level", "deep"]).exits(0);
        planted.ran_only_as_itself("safe-run outside of a transaction");
        let url = run.database.url();
        let psql = ["--snapshot", "clone", "--", "psql", "-X", "-v", "ON_ERROR_STOP=1", &url, "-c"];
        run.run(&[&psql[..], &["ALTER TABLE orders ADD COLUMN fine int"]].concat()).exits(0);
        planted.ran_only_as_itself("a command behind a clone");
        planted.remove();
    }
}

#[test]
fn a_backup_runs_nothing() {
    for major in ends() {
        let run = ProtectedRun::shop(major);
        let mut planted = Planted::plant(&run.database);
        let snapshots = Snapshots::new();
        let first = snapshots.create(&run.database, &[]);
        planted.ran_only_as_itself("backup create");
        let second = snapshots.create(&run.database, &["--check-foreign-keys"]);
        planted.ran_only_as_itself("backup create --check-foreign-keys");
        let url = run.database.url();
        for command in [
            &["check"][..],
            &["verify"],
            &["list"],
            &["show", "latest"],
            &["diff", &first, &second],
            &["diff", &first, &url],
            &["diff", &url, &url],
        ] {
            snapshots.run("backup", &run.database.url(), command);
            planted.ran_only_as_itself(&command.join(" "));
        }
        planted.remove();
    }
}

/// What pg_restore evaluates as whoever restores when it makes definitions: constants of a generated column and of a partition
/// key when the table is made or attached, and those of indexes and statistics when a foreign key is checked.
const DEFINITIONS: [&str; 9] = [
    "exclude",
    "generated column",
    "index expression",
    "partial index",
    "partition key",
    "statistics",
    "statistics of a column",
    "unique expression",
    "unique predicate",
];

/// What only rows call: the owner's code at every row, as its owner in a restore of the whole snapshot.
const ROWS: [&str; 4] = ["check", "domain", "not null domain", "operator"];

/// Of the whole snapshot: rows are loaded and definitions made as the owner.
#[track_caller]
fn restored_as_its_owner(planted: &mut Planted, after: &str) {
    let own = planted.ran_only_as_itself(after);
    for place in
        ROWS.iter().chain(&["generated column", "partition key", "index expression", "check of a row"])
    {
        assert!(own.iter().any(|heard| heard == place), "after {after}: {place} was not called: {own:?}");
    }
}

/// The control: what a superuser's pg_dump and pg_restore let run as the superuser.
#[test]
fn pg_dump_lets_nothing_run_and_pg_restore_the_rules_of_rows_and_definitions() {
    for major in ends() {
        let run = ProtectedRun::shop(major);
        let cluster = run.database.cluster();
        let mut planted = Planted::plant(&run.database);
        let file = run.folder().join("dump");
        let file = file.to_str().unwrap();
        let mut dump = psql::tool("pg_dump");
        dump.args(["-Fc", "-f", file, "-d", &run.database.url()]);
        psql::succeed(dump);
        planted.ran_only_as_itself("pg_dump");
        let copy = format!("{}_control", run.database.name());
        cluster.psql(&format!("CREATE DATABASE {}", psql::quote_ident(&copy)));
        let ended = psql::tool("pg_restore").args(["-d", &cluster.url(&copy), file]).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        // A newer pg_restore sets what an older server does not have.
        let only_a_setting = said.contains("transaction_timeout") && said.contains("ignored on restore: 1\n");
        assert!(ended.status.success() || major < 17 && only_a_setting, "{said}");
        let (_, strange) = planted.heard_apart();
        for place in ROWS.iter().chain(&DEFINITIONS) {
            let roles = strange.get(*place).unwrap_or_else(|| panic!("{place} on {major}: {strange:?}"));
            assert!(roles.iter().any(|role| role == "postgres"), "{place} on {major}: {strange:?}");
        }
        planted.remove();
    }
}

#[test]
fn a_restore_and_a_drill_load_rows_and_make_definitions_as_their_owner() {
    for major in ends() {
        let run = ProtectedRun::shop(major);
        let mut planted = Planted::plant(&run.database);
        let url = run.database.url();
        let snapshots = Snapshots::new();
        snapshots.create(&run.database, &[]);
        planted.ran_only_as_itself("backup create");
        let into = format!("{}_into", run.database.name());
        for (program, arguments) in [
            ("backup", &["drill"][..]),
            ("restore", &["latest", "--into", &into]),
            ("restore", &["latest", "--replace", "-y"]),
        ] {
            snapshots.run(program, &url, arguments).expect(0);
            restored_as_its_owner(&mut planted, &format!("{arguments:?} on {major}"));
        }
        planted.remove();
    }
}

#[test]
fn an_undo_by_clone_runs_nothing_and_one_by_file_an_owners_code_as_the_owner() {
    for major in ends() {
        let run = ProtectedRun::shop(major);
        let mut planted = Planted::plant(&run.database);
        let url = run.database.url();
        let psql = ["--", "psql", "-X", "-v", "ON_ERROR_STOP=1", &url];
        let fails = ["-c", "DELETE FROM order_items", "-c", "SELECT 1/0"];
        for kind in ["clone", "file"] {
            let options = ["--snapshot", kind, "--on-failure", "undo"];
            run.run(&[&options[..], &psql, &fails].concat()).exits(12).says("RESTORED ");
            assert_eq!(run.database.psql("SELECT count(*) FROM order_items"), "300", "{kind} on {major}");
            if kind == "clone" {
                planted.ran_only_as_itself(&format!("an undo by clone on {major}"));
            } else {
                restored_as_its_owner(&mut planted, &format!("an undo by file on {major}"));
            }
        }
        planted.remove();
    }
}

/// Naming somebody's table would run its code, and is refused; naming another does not. Into a database of its own its owner runs it.
#[test]
fn restoring_one_table_that_calls_its_owners_code_is_refused_unless_it_goes_into_a_database_of_its_own() {
    for major in ends() {
        let run = ProtectedRun::shop(major);
        let mut planted = Planted::plant(&run.database);
        let role = planted.role().to_owned();
        // A trusted role's table that points to the planted one, with code in an index of its own.
        run.database.psql(
            "CREATE TABLE pointing (t_id int REFERENCES planted.t);
            SET planted.quiet = on; CREATE INDEX pointing_code ON pointing ((planted.number('index of another')))",
        );
        let url = run.database.url();
        let snapshots = Snapshots::new();
        snapshots.create(&run.database, &[]);
        for arguments in [
            &["latest", "--table", "orders"][..],
            &["latest", "--table", "orders", "--replace", "-y"],
            &["latest", "--table", "planted.child"],
            &["latest", "--table", "planted.child", "--replace", "-y"],
        ] {
            snapshots.run("restore", &url, arguments).expect(0);
            planted.ran_only_as_itself(&format!("{arguments:?} on {major}"));
        }
        let owner = "SELECT tableowner FROM pg_tables WHERE starts_with(tablename, 'child_restored_')";
        assert_eq!(run.database.psql(owner), role, "a table beside belongs to its owner on {major}");
        let before = run.fingerprint();
        planted.heard();
        for (table, says) in [("planted.t", "planted.t: "), ("planted.parent", "planted.parent: ")] {
            for more in [&[][..], &["--dry-run"], &["--replace", "-y"], &["--replace", "--dry-run"]] {
                let arguments = [&["latest", "--table", table][..], more].concat();
                let refused = snapshots.run("restore", &url, &arguments).expect(3);
                for said in [says, &role, "--run-owners-code", "--into"] {
                    assert!(refused.stderr.contains(said), "{arguments:?} on {major}: {}", refused.stderr);
                }
                planted.ran_only_as_itself(&format!("{arguments:?} on {major}"));
            }
        }
        // The foreign key to it would be made again.
        let refused =
            snapshots.run("restore", &url, &["latest", "--table", "planted.t", "--replace", "-y"]).expect(3);
        assert!(refused.stderr.contains("pointing: function planted.number(text)"), "{}", refused.stderr);
        run.assert_unchanged(&before);
        planted.heard();
        let into = format!("{}_alone", run.database.name());
        let tables = ["planted.t", "planted.parent", "planted.whole", "planted.leaving"];
        let named = tables.iter().flat_map(|table| ["--table", table]);
        let arguments: Vec<&str> = ["latest", "--into", &into].into_iter().chain(named).collect();
        snapshots.run("restore", &url, &arguments).expect(0);
        restored_as_its_owner(&mut planted, &format!("{arguments:?} on {major}"));
        // The ways on: as the role itself, or as it is.
        run.database.psql(&format!("DROP TABLE pointing; ALTER ROLE {} CREATEDB", psql::quote_ident(&role)));
        let as_owner = run.database.cluster().url_as(&role, run.database.name());
        snapshots.run("restore", &as_owner, &["latest", "--table", "planted.t", "--replace", "-y"]).expect(0);
        planted.ran_only_as_itself(&format!("a restore by the role itself on {major}"));
        let accepted = ["latest", "--table", "planted.t", "--run-owners-code"];
        snapshots.run("restore", &url, &accepted).expect(0);
        let (_, strange) = planted.heard_apart();
        assert!(strange.contains_key("check"), "{accepted:?} on {major}: {strange:?}");
        let owner = "SELECT tableowner FROM pg_tables WHERE starts_with(tablename, 't_restored_')";
        assert_eq!(run.database.psql(owner), role);
        snapshots.run("restore", &url, &[&accepted[..], &["--replace", "-y"]].concat()).expect(0);
        planted.remove();
    }
}

/// The table as safe-run makes it.
const HISTORY: &str = "version text PRIMARY KEY, description text NOT NULL, file_name text NOT NULL, checksum text NOT NULL,
  checksum_normalized text NOT NULL, applied_at timestamptz NOT NULL DEFAULT clock_timestamp(), applied_by text NOT NULL DEFAULT CURRENT_USER,
  execution_ms bigint NOT NULL, run text NOT NULL";

#[test]
fn a_history_that_another_role_made_is_refused_before_anything_runs() {
    for major in ends() {
        let run = ProtectedRun::shop(major);
        let mut planted = Planted::plant(&run.database);
        run.migration("1_add.sql", "ALTER TABLE orders ADD COLUMN more int;");
        let role = planted.role().to_owned();
        let trigger = "CREATE TRIGGER t BEFORE INSERT OR UPDATE OR DELETE ON safe_run.migrations FOR EACH ROW EXECUTE FUNCTION planted.fires()";
        for (made, says) in [
            ("CREATE SCHEMA safe_run".to_owned(), format!("schema safe_run belongs to {role}")),
            (
                format!("CREATE SCHEMA safe_run; CREATE TABLE safe_run.migrations ({HISTORY}); {trigger}"),
                "it has trigger t".to_owned(),
            ),
            (
                "CREATE SCHEMA safe_run; CREATE VIEW safe_run.migrations AS SELECT * FROM planted.seen"
                    .to_owned(),
                "it is a view and not a table".to_owned(),
            ),
        ] {
            planted.psql(&made);
            let before = run.fingerprint();
            planted.heard();
            run.run(&[]).exits(3).says(&says);
            run.run(&["status"]).exits(3).says(&says);
            planted.ran_only_as_itself(&made);
            run.assert_unchanged(&before);
            planted.psql("DROP SCHEMA safe_run CASCADE");
            planted.heard();
        }
        run.run(&["--snapshot", "none"]).exits(0);
        // A trigger on the table of a trusted role, by one who was given the right.
        run.database.psql(&format!(
            "GRANT USAGE ON SCHEMA safe_run TO \"{role}\"; GRANT TRIGGER ON safe_run.migrations TO \"{role}\""
        ));
        planted.psql(trigger);
        planted.heard();
        run.migration("2_more.sql", "ALTER TABLE orders ADD COLUMN much int;");
        run.run(&["--snapshot", "none"])
            .exits(3)
            .says("its trigger t uses function planted.fires() of another role");
        planted.ran_only_as_itself("a trigger on the history");
        run.database.psql("DROP TRIGGER t ON safe_run.migrations; CREATE SCHEMA other");
        run.database.psql("ALTER TABLE safe_run.migrations ALTER applied_by TYPE planted.word");
        run.run(&["--snapshot", "none"]).exits(3).says("its column applied_by has type planted.word");
        run.database
            .psql("SET planted.quiet = on; ALTER TABLE safe_run.migrations ALTER applied_by TYPE text");
        planted.heard();
        run.run(&["--snapshot", "none"]).exits(0);
        planted.remove();
    }
}

#[test]
fn another_tools_history_of_another_role_is_used_only_without_code() {
    for major in ends() {
        let run = ProtectedRun::shop(major);
        let mut planted = Planted::plant(&run.database);
        run.migration("1_add.sql", "ALTER TABLE orders ADD COLUMN more int;");
        run.database.psql(&format!("GRANT CREATE ON SCHEMA public TO \"{}\"", planted.role()));
        planted.psql(
            "CREATE TABLE public._sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL,
             installed_on TIMESTAMPTZ NOT NULL DEFAULT now(), success BOOLEAN NOT NULL, checksum BYTEA NOT NULL, execution_time BIGINT NOT NULL)",
        );
        for (made, taken, says) in [
            (
                "CREATE TRIGGER t BEFORE INSERT ON _sqlx_migrations FOR EACH ROW EXECUTE FUNCTION planted.fires()",
                "DROP TRIGGER t ON _sqlx_migrations",
                "it has trigger t",
            ),
            (
                "ALTER TABLE _sqlx_migrations ADD CHECK (planted.say('history check')) NOT VALID",
                "ALTER TABLE _sqlx_migrations DROP CONSTRAINT _sqlx_migrations_check",
                "it has constraint _sqlx_migrations_check",
            ),
            (
                "CREATE INDEX i ON _sqlx_migrations (version) WHERE planted.say('history index')",
                "DROP INDEX i",
                "it has index i",
            ),
            (
                "ALTER TABLE _sqlx_migrations ALTER installed_on SET DEFAULT now() + planted.number('history default') * interval '1 s'",
                "ALTER TABLE _sqlx_migrations ALTER installed_on SET DEFAULT now()",
                "it has default of installed_on",
            ),
            (
                "ALTER TABLE _sqlx_migrations ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON _sqlx_migrations USING (planted.say('history policy'))",
                "ALTER TABLE _sqlx_migrations DISABLE ROW LEVEL SECURITY; DROP POLICY p ON _sqlx_migrations",
                "it has policy p",
            ),
            (
                "CREATE STATISTICS s ON (planted.number('history statistics')), version FROM _sqlx_migrations",
                "DROP STATISTICS s",
                "it has statistics",
            ),
            (
                "CREATE RULE r AS ON INSERT TO _sqlx_migrations DO ALSO SELECT planted.say('history rule')",
                "DROP RULE r ON _sqlx_migrations",
                "it has rule r",
            ),
        ] {
            planted.psql(made);
            planted.heard();
            run.run(&["--snapshot", "none", "--format", "sqlx"]).exits(3).says(says);
            planted.ran_only_as_itself(made);
            planted.psql(taken);
        }
        planted.heard();
        run.run(&["--snapshot", "none", "--format", "sqlx"]).exits(0);
        planted.ran_only_as_itself("a plain history of another role");
        planted.remove();
    }
}

/// What an owner makes comes in batches, with all that has no section of its own: comments, grants. A function that is shut to the
/// owner is shut while his code runs. Views that group by a key have their indexes.
#[test]
fn comments_and_grants_come_back_and_shut_functions_stay_shut_where_an_owner_makes_a_table() {
    for major in ends() {
        let run = ProtectedRun::shop(major);
        let mut planted = Planted::plant(&run.database);
        let name = run.database.name();
        run.database.psql(&format!(
            "CREATE SCHEMA vault; GRANT USAGE ON SCHEMA vault TO PUBLIC;
            CREATE FUNCTION vault.secret() RETURNS int LANGUAGE plpgsql SECURITY DEFINER AS
              $$ BEGIN RAISE LOG 'the vault of {name} is open'; RETURN 1; END $$;
            REVOKE ALL ON FUNCTION vault.secret() FROM PUBLIC"
        ));
        planted.psql(
            "CREATE FUNCTION planted.tries() RETURNS int LANGUAGE plpgsql IMMUTABLE AS
              $$ BEGIN RETURN vault.secret(); EXCEPTION WHEN insufficient_privilege THEN RETURN 1; END $$;
            CREATE TABLE planted.trying (id int PRIMARY KEY, n int GENERATED ALWAYS AS (planted.tries() + id) STORED);
            CREATE MATERIALIZED VIEW planted.by_key AS SELECT id, n FROM planted.trying GROUP BY id;
            CREATE UNIQUE INDEX by_key_n ON planted.by_key (n);
            COMMENT ON SCHEMA planted IS 'a schema';
            COMMENT ON TABLE planted.t IS 'a table'; COMMENT ON COLUMN planted.trying.n IS 'a column';
            COMMENT ON FUNCTION planted.tries() IS 'a function';
            REVOKE ALL ON FUNCTION planted.tries() FROM PUBLIC; GRANT SELECT ON planted.t TO PUBLIC",
        );
        planted.heard();
        let snapshots = Snapshots::new();
        snapshots.create(&run.database, &[]);
        let into = format!("{name}_into");
        snapshots.run("restore", &run.database.url(), &["latest", "--into", &into]).expect(0);
        restored_as_its_owner(&mut planted, &format!("a restore on {major}"));
        let opened = run.database.cluster().log().contains(&format!("the vault of {name} is open"));
        assert!(!opened, "an owner's code called what is shut to it on {major}");
        let url = run.database.cluster().url(&into);
        let schema = |url: &str| tests::oracle::fingerprint_without(url, &[]).schema().to_owned();
        let (before, after) = (schema(&run.database.url()), schema(&url));
        assert!(before.contains("COMMENT ON TABLE planted.t IS 'a table'"), "the oracle is blind: {before}");
        let lost: Vec<&str> =
            before.lines().filter(|line| !after.lines().any(|other| other == *line)).collect();
        assert!(lost.is_empty(), "on {major}: {lost:#?}");
        planted.remove();
    }
}

#[test]
fn definitions_of_an_owner_come_back_in_every_encoding() {
    for major in ends() {
        for encoding in ["LATIN1", "EUC_JP"] {
            let cluster = Cluster::shared(major);
            let options = format!("TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'");
            let database = cluster.fresh_database_with("encoded", &options);
            let word = if encoding == "LATIN1" { "é" } else { "語" };
            let role = psql::quote_ident(&format!("low_{}", database.name()));
            let run = |sql: &str| {
                let mut command = psql::tool("psql");
                command.env("PGCLIENTENCODING", "UTF8").args(["-XAtq", "-v", "ON_ERROR_STOP=1"]);
                psql::succeed({
                    command.args(["-d", &database.url(), "-c", sql]);
                    command
                })
            };
            run(&format!(
                "CREATE ROLE {role}; CREATE SCHEMA s AUTHORIZATION {role}; SET ROLE {role};
                CREATE FUNCTION s.f(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1';
                CREATE TABLE s.t (\"{word}\" text, made text GENERATED ALWAYS AS (s.f('{word}')) STORED);
                INSERT INTO s.t VALUES ('{word}')"
            ));
            let snapshots = Snapshots::new();
            snapshots.create(&database, &[]);
            let into = format!("{}_into", database.name());
            snapshots.run("restore", &database.url(), &["latest", "--into", &into]).expect(0);
            let url = cluster.url(&into);
            let definition = "SELECT pg_get_expr(adbin, adrelid)::bytea::text || c.relowner::text FROM pg_attrdef JOIN pg_class c ON c.oid = adrelid";
            let before = psql::run(&database.url(), definition);
            assert_eq!(psql::run(&url, definition), before, "{encoding} on {major}");
            let rows = "SELECT t::text::bytea FROM s.t";
            assert_eq!(psql::run(&url, rows), psql::run(&database.url(), rows), "{encoding} on {major}");
            cluster.psql(&format!("DROP DATABASE {} WITH (FORCE)", psql::quote_ident(&into)));
            run(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}"));
        }
    }
}
