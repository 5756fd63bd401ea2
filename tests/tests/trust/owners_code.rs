//! What an owner's code could do in the less usual places: as `pg_database_owner`, behind a cast, in a schema that is lent to it, and in
//! every command beside the great ones of `rights.rs`.

use tests::{Planted, ProtectedRun, Snapshots, psql};

/// The oldest and the newest server, and the next one where it is to be had.
fn ends() -> Vec<u32> {
    tests::cluster::majors().into_iter().filter(|major| [14, 18, 19].contains(major)).collect()
}

/// `pg_database_owner` is the low role where the snapshot was taken, and stands for nobody else while it is restored.
#[test]
fn tables_of_pg_database_owner_run_their_code_with_its_rights_where_the_database_belongs_to_a_low_role() {
    for major in ends() {
        let run = ProtectedRun::shop(major);
        let mut planted = Planted::plant(&run.database);
        let (name, role) = (psql::quote_ident(run.database.name()), psql::quote_ident(planted.role()));
        run.database.psql(&format!(
            "SET planted.quiet = on; GRANT USAGE ON SCHEMA planted TO pg_database_owner;
            CREATE TABLE common (id int PRIMARY KEY, CHECK (planted.say('common check') AND id > 0),
              made int GENERATED ALWAYS AS (planted.number('common generated') + id) STORED) WITH (autovacuum_enabled = off);
            INSERT INTO common SELECT i FROM generate_series(1, 500) i;
            CREATE INDEX common_some ON common (id) WHERE planted.say('common predicate');
            ALTER TABLE common OWNER TO pg_database_owner;
            ALTER DATABASE {name} OWNER TO {role}"
        ));
        let url = run.database.url();
        let snapshots = Snapshots::new();
        snapshots.create(&run.database, &["--chunk-blocks", "1"]);
        planted.ran_only_as_itself("backup create");
        let into = format!("{}_into", run.database.name());
        for (program, arguments) in [("backup", &["drill"][..]), ("restore", &["latest", "--into", &into])] {
            snapshots.run(program, &url, arguments).expect(0);
            let (_, strange) = planted.heard_apart();
            assert!(
                strange.contains_key("common check"),
                "{arguments:?} on {major} did not call it: {strange:?}"
            );
            for (place, roles) in strange {
                assert_eq!(roles, ["pg_database_owner"], "{place} after {arguments:?} on {major}");
            }
        }
        let rows = "SELECT count(*), sum(made) FROM common";
        assert_eq!(psql::run(&run.database.cluster().url(&into), rows), "500|125750");
        run.database.psql(&format!("ALTER DATABASE {name} OWNER TO postgres"));
        run.database.cluster().psql(&format!("DROP DATABASE {} WITH (FORCE)", psql::quote_ident(&into)));
        planted.remove();
    }
}

/// The first check of a foreign key is a query of whoever makes it.
#[test]
fn an_implicit_cast_between_the_types_of_a_foreign_key_runs_as_its_owner() {
    for major in ends() {
        let run = ProtectedRun::shop(major);
        let mut planted = Planted::plant(&run.database);
        planted.psql(
            "SET planted.quiet = on;
            CREATE TYPE planted.kind AS ENUM ('one');
            CREATE FUNCTION planted.as_int(planted.kind) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
              $$ BEGIN PERFORM planted.say('implicit cast'); RETURN 1; END $$;
            CREATE CAST (planted.kind AS int) WITH FUNCTION planted.as_int(planted.kind) AS IMPLICIT;
            CREATE TABLE planted.of_kind (kind planted.kind REFERENCES planted.whole);
            INSERT INTO planted.of_kind VALUES ('one')",
        );
        planted.heard();
        let url = run.database.url();
        let snapshots = Snapshots::new();
        snapshots.create(&run.database, &["--check-foreign-keys"]);
        planted.ran_only_as_itself("backup create");
        let into = format!("{}_into", run.database.name());
        for (program, arguments) in [("backup", &["drill"][..]), ("restore", &["latest", "--into", &into])] {
            snapshots.run(program, &url, arguments).expect(0);
            let own = planted.ran_only_as_itself(&format!("{arguments:?} on {major}"));
            assert!(own.iter().any(|place| place == "implicit cast"), "{arguments:?} on {major}: {own:?}");
        }
        run.run(&["check", "--level", "deep"]);
        planted.ran_only_as_itself("check --level deep");
        let keys = "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND convalidated AND conrelid = 'planted.of_kind'::regclass";
        assert_eq!(psql::run(&run.database.cluster().url(&into), keys), "1");
        run.database.cluster().psql(&format!("DROP DATABASE {} WITH (FORCE)", psql::quote_ident(&into)));
        planted.remove();
    }
}

/// While he makes his table, its owner may make things in a schema that was shut to him since.
#[test]
fn what_an_owners_code_leaves_behind_in_a_schema_that_was_lent_to_it_is_refused_and_named() {
    for major in ends() {
        let run = ProtectedRun::shop(major);
        let mut planted = Planted::plant(&run.database);
        let (name, role) = (run.database.name(), psql::quote_ident(planted.role()));
        run.database.psql(&format!("CREATE SCHEMA common; GRANT USAGE, CREATE ON SCHEMA common TO {role}"));
        planted.psql(
            "SET planted.quiet = on;
            CREATE FUNCTION common.renamed() RETURNS int LANGUAGE sql AS 'SELECT 1';
            CREATE FUNCTION planted.trojan() RETURNS int LANGUAGE sql AS 'SELECT 1';
            CREATE TYPE planted.trojan AS (one int);
            CREATE FUNCTION planted.leaves_function() RETURNS void LANGUAGE plpgsql AS $$ BEGIN END $$;
            CREATE FUNCTION planted.hides() RETURNS int LANGUAGE plpgsql IMMUTABLE AS
              $$ BEGIN PERFORM planted.leaves_function(); RETURN 1; END $$;
            CREATE TABLE common.fine (id int, made int GENERATED ALWAYS AS (planted.number('in a lent schema') + id) STORED);
            CREATE SEQUENCE common.numbers; CREATE TYPE common.span AS RANGE (subtype = int);",
        );
        run.database.psql(&format!("REVOKE CREATE ON SCHEMA common FROM {role}"));
        let url = run.database.url();
        let snapshots = Snapshots::new();
        snapshots.create(&run.database, &[]);
        snapshots.run("backup", &url, &["drill"]).expect(0);
        planted.ran_only_as_itself("a drill");
        run.database.psql(&format!("GRANT CREATE ON SCHEMA common TO {role}"));
        planted.psql(
            "SET planted.quiet = on;
            CREATE TABLE common.leaving (id int, made int GENERATED ALWAYS AS (planted.hides() + id) STORED)",
        );
        run.database.psql(&format!("REVOKE CREATE ON SCHEMA common FROM {role}"));
        let into = format!("{name}_into");
        for leaves in [
            "CREATE FUNCTION common.trojan() RETURNS int LANGUAGE sql AS ''SELECT 1''",
            // What was listed before under another name, or in another schema.
            "ALTER FUNCTION common.renamed() RENAME TO trojan",
            "ALTER FUNCTION planted.trojan() SET SCHEMA common",
            "ALTER TYPE planted.trojan SET SCHEMA common",
            "CREATE VIEW common.trojan AS SELECT 1",
        ] {
            planted.psql(&format!(
                "CREATE OR REPLACE FUNCTION planted.leaves_function() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
                  IF current_database() <> '{name}' THEN EXECUTE '{leaves}'; END IF; END $$"
            ));
            snapshots.create(&run.database, &[]);
            let refused = snapshots.run("restore", &url, &["latest", "--into", &into]).expect(1);
            for said in ["common leaving", "trojan in the schema common"] {
                assert!(refused.stderr.contains(said), "{leaves} on {major}: {}", refused.stderr);
            }
            assert!(!run.database.family().contains(&into), "{leaves} on {major}");
            planted.ran_only_as_itself(&format!("a restore that was refused: {leaves}"));
        }
        planted.remove();
    }
}

/// Its users may connect to a database when it is complete, whoever restores.
#[test]
fn nobody_else_connects_to_a_database_that_a_role_without_rights_restores() {
    for major in ends() {
        let run = ProtectedRun::shop(major);
        let cluster = run.database.cluster();
        let (owner, other) =
            (format!("owner_{}", run.database.name()), format!("other_{}", run.database.name()));
        let (owner_ident, other_ident) = (psql::quote_ident(&owner), psql::quote_ident(&other));
        cluster.psql(&format!("CREATE ROLE {owner_ident} LOGIN CREATEDB; CREATE ROLE {other_ident} LOGIN"));
        let source = format!("{}_of_owner", run.database.name());
        psql::run(
            &cluster.url_as(&owner, "postgres"),
            &format!("CREATE DATABASE {}", psql::quote_ident(&source)),
        );
        let url = cluster.url_as(&owner, &source);
        psql::run(&url, "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 1000)");
        let snapshots = Snapshots::new();
        snapshots.run("backup", &url, &["create"]).expect(0);
        let into = format!("{}_into", run.database.name());
        let mut command = snapshots.command("restore", &url, &["latest", "--into", &into]);
        command.env("SAFE_RUN_FAULT", "restore.loaded");
        assert!(!command.output().unwrap().status.success());
        let others = "SELECT string_agg(datname, ' ') FROM pg_database WHERE has_database_privilege('OTHER', oid, 'CONNECT') \
                      AND datname LIKE 'INTO%'";
        let others = others.replace("OTHER", &other).replace("INTO", &into);
        assert_eq!(cluster.psql(&others), "", "while it is filled, on {major}");
        let half = cluster.psql(&format!("SELECT datname FROM pg_database WHERE datname LIKE '{into}%'"));
        assert!(!half.is_empty(), "the database that was left is looked at");
        let refused = psql::try_run(&cluster.url_as(&other, &half), "SELECT 1").unwrap_err();
        assert!(refused.contains("permission denied for database"), "{refused}");
        cluster.psql(&format!("DROP DATABASE {}", psql::quote_ident(&half)));
        snapshots.run("restore", &url, &["latest", "--into", &into]).expect(0);
        assert_eq!(psql::run(&cluster.url_as(&other, &into), "SELECT 1"), "1");
        // What holds without a list of grants needs none in the next snapshot either.
        let next = Snapshots::new();
        let id = next.run("backup", &cluster.url_as(&owner, &into), &["create"]).expect(0).stdout;
        assert!(!next.manifest(id.trim()).contains("\"acl\""), "{}", next.manifest(id.trim()));
        for name in [&source, &into] {
            cluster.psql(&format!("DROP DATABASE {} WITH (FORCE)", psql::quote_ident(name)));
        }
        cluster.psql(&format!("DROP ROLE {owner_ident}; DROP ROLE {other_ident}"));
    }
}

/// What nobody may look at without running somebody's code is named, and nothing says that everything was checked.
#[test]
fn what_only_two_owners_together_could_check_is_said_in_every_verdict() {
    for major in ends() {
        let run = ProtectedRun::shop(major);
        let name = run.database.name();
        let [one, two] = ["one", "two"].map(|word| format!("{word}_{name}"));
        let idents = [psql::quote_ident(&one), psql::quote_ident(&two)];
        run.database.psql(&format!(
            "CREATE ROLE {one}; CREATE ROLE {two}; CREATE SCHEMA one AUTHORIZATION {one}; CREATE SCHEMA two AUTHORIZATION {two};
            CREATE TABLE one.parent (id int PRIMARY KEY); ALTER TABLE one.parent OWNER TO {one}; INSERT INTO one.parent VALUES (1);
            CREATE TABLE two.child (id int REFERENCES one.parent); ALTER TABLE two.child OWNER TO {two}; INSERT INTO two.child VALUES (1);
            CREATE TABLE two.forced (id int CHECK (id > 0)); ALTER TABLE two.forced OWNER TO {two}; INSERT INTO two.forced VALUES (1);
            ALTER TABLE two.forced ENABLE ROW LEVEL SECURITY; ALTER TABLE two.forced FORCE ROW LEVEL SECURITY",
            one = idents[0],
            two = idents[1],
        ));
        let checked = run.run(&["check"]).exits(0).verdict("CLEAN SO FAR");
        for said in ["child", "forced", "not checked"] {
            assert!(checked.stdout.contains(said), "{said} on {major}: {checked}");
        }
        run.run(&["check", "--strict"]).exits(31).verdict("NOT CHECKED");
        let json = run.run(&["check", "--json"]).exits(0);
        let document: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
        assert!(document["unchecked"].as_u64() >= Some(2), "{}", json.stdout);
        run.migration("1_add.sql", "ALTER TABLE orders ADD COLUMN more int;");
        let ended = run.run(&["--snapshot", "none"]).exits(0).never_says("every check passed");
        assert!(ended.stdout.contains("could not be checked"), "{ended}");
        run.database
            .psql(&format!("DROP OWNED BY {0}, {1} CASCADE; DROP ROLE {0}, {1}", idents[0], idents[1]));
    }
}

/// Every command that `rights.rs` does not have.
#[test]
fn the_other_commands_run_an_owners_code_as_the_owner() {
    for major in ends() {
        let run = ProtectedRun::shop(major);
        let mut planted = Planted::plant(&run.database);
        let url = run.database.url();
        let snapshots = Snapshots::new();
        snapshots.create(&run.database, &[]);
        for (program, arguments) in [
            ("backup", &["create", "--table", "planted.t"][..]),
            ("backup", &["create", "--schema", "planted"]),
            ("backup", &["create", "--full"]),
            ("backup", &["create", "--exclude-table-data", "planted.t"]),
            ("restore", &["latest", "--dry-run"]),
            ("restore", &["latest", "--replace", "--dry-run"]),
            ("backup", &["verify", "--all"]),
        ] {
            snapshots.run(program, &url, arguments).expect(0);
            planted.ran_only_as_itself(&format!("{program} {arguments:?} on {major}"));
        }
        run.migration("1_add.sql", "ALTER TABLE orders ADD COLUMN more int;");
        for arguments in [
            &["stamp", "1"][..],
            &["repair"],
            &["status", "--json"],
            &["plan", "--json"],
            &["check", "--json", "--level", "deep", "--strict"],
        ] {
            let ended = run.run(arguments);
            assert!(!ended.stderr.contains("unexpected argument"), "{arguments:?}: {ended}");
            planted.ran_only_as_itself(&format!("safe-run {arguments:?} on {major}"));
        }
        run.migration("2_more.sql", "ALTER TABLE orders ADD COLUMN again int;");
        run.run(&["--tx", "file", "--snapshot", "file", "--level", "deep"]).exits(0);
        planted.ran_only_as_itself(&format!("a run with a snapshot in files on {major}"));
        planted.remove();
    }
}

/// Only a superuser makes an event trigger, but whose function it calls is another thing. What makes something in the live database fires
/// it, as psql does: migrations, and `restore --table`. What these commands do does not. (Types with input and output functions of their
/// own take a superuser, and functions in C.)
#[test]
fn an_event_trigger_that_calls_an_owners_function_is_not_fired_by_what_the_commands_do_themselves() {
    for major in ends() {
        let run = ProtectedRun::shop(major);
        let mut planted = Planted::plant(&run.database);
        planted.psql(
            "SET planted.quiet = on;
            CREATE FUNCTION planted.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS
              $$ BEGIN PERFORM planted.say('event trigger'); END $$",
        );
        let trigger = psql::quote_ident(&format!("e_{}", run.database.name()));
        run.database.psql(&format!(
            "CREATE EVENT TRIGGER {trigger} ON ddl_command_end EXECUTE FUNCTION planted.on_ddl(); CREATE TABLE fires_it (id int)"
        ));
        let fired = planted.heard();
        assert!(fired.contains_key("event trigger"), "it can be seen: {fired:?}");
        let url = run.database.url();
        let snapshots = Snapshots::new();
        let into = format!("{}_into", run.database.name());
        let folder = run.folder().to_str().unwrap().to_owned();
        let (archive, file) = (format!("{folder}/it.tar"), format!("{folder}/it.sqlite3"));
        let alone = format!("{}_alone", run.database.name());
        for (program, arguments) in [
            ("backup", &["create", "--check-foreign-keys"][..]),
            ("backup", &["check"]),
            ("backup", &["create", "--table", "orders"]),
            ("backup", &["schedule", "--once", "--keep-last", "9"]),
            ("backup", &["verify", "latest"]),
            ("backup", &["diff", "latest", &url]),
            ("backup", &["export", "latest", "-o", &archive]),
            ("backup", &["export", "latest", "--sqlite", &file, "--table", "orders"]),
            ("backup", &["diff", &file, &url, "--table", "orders"]),
            ("backup", &["drill"]),
            ("restore", &["latest", "--dry-run"]),
            ("restore", &["latest", "--into", &into]),
            ("restore", &["latest", "--table", "orders", "--into", &alone]),
            ("restore", &["latest", "--replace", "-y", "--drop-replaced"]),
        ] {
            snapshots.run(program, &url, arguments).expect(0);
            planted.ran_only_as_itself(&format!("{program} {arguments:?} on {major}"));
        }
        for level in ["fast", "deep"] {
            run.run(&["check", "--level", level]);
            planted.ran_only_as_itself(&format!("check --level {level} on {major}"));
        }
        // What a run makes for itself: its history, what asks as an owner, what is refreshed, a copy, an undo.
        let change = ["psql", "-X", "-v", "ON_ERROR_STOP=1", "-c", "UPDATE orders SET note = note"];
        let fails =
            ["psql", "-X", "-v", "ON_ERROR_STOP=1", "-c", "DELETE FROM order_items", "-c", "SELECT 1/0"];
        run.migration("1_a.sql", "UPDATE orders SET note = note;");
        for (options, command, code) in [
            (&["plan"][..], &[][..], 0),
            (&["--level", "deep"], &[], 0),
            (&["history"], &[], 0),
            (&["--snapshot", "file"], &change, 0),
            (&["--snapshot", "file", "--fence", "exclusive"], &fails, 12),
            (&["--snapshot", "clone"], &fails, 12),
            (&["--hold-fence"], &change, 0),
            (&["release"], &[], 0),
        ] {
            let words =
                if command.is_empty() { options.to_vec() } else { [options, &["--"], command].concat() };
            run.run(&words).exits(code);
            planted.ran_only_as_itself(&format!("safe-run {words:?} on {major}"));
        }
        for (options, recover) in [
            (&["--snapshot", "file"][..], &["recover"][..]),
            (&["--snapshot", "clone"], &["recover", "--keep"]),
            (&["--snapshot", "file", "--fence", "none"], &["recover", "--undo"]),
        ] {
            run.crash("safe-run.applied", &[options, &["--"], &change].concat());
            run.run(recover).exits(0);
            planted.ran_only_as_itself(&format!("{options:?} and {recover:?} on {major}"));
        }
        run.database.psql(&format!("DROP EVENT TRIGGER {trigger}"));
        run.drop_others();
        planted.remove();
    }
}

/// Who owns a tree writes its key, and may put an index on every partition, whosever it is.
#[test]
fn the_code_of_a_trees_owner_is_run_as_the_owner_of_a_partition_by_postgresql_alone() {
    for major in ends() {
        let run = ProtectedRun::shop(major);
        let mut planted = Planted::plant(&run.database);
        let low = planted.role().to_owned();
        let other = format!("other_{}", run.database.name());
        let ident = psql::quote_ident(&other);
        run.database.psql(&format!(
            "SET planted.quiet = on; CREATE ROLE {ident}; GRANT USAGE ON SCHEMA planted TO {ident}; ALTER TABLE planted.high OWNER TO {ident};
            CREATE TABLE planted.flat (id int) PARTITION BY LIST (id); ALTER TABLE planted.flat OWNER TO {};
            CREATE TABLE planted.flat_one PARTITION OF planted.flat FOR VALUES IN (1); ALTER TABLE planted.flat_one OWNER TO {ident};
            INSERT INTO planted.flat VALUES (1)",
            psql::quote_ident(&low)
        ));
        planted.heard();
        // What is named: both sides of the tree with code. The tree without is looked at.
        let checked = run.run(&["check"]).exits(0).verdict("CLEAN SO FAR").never_says("flat");
        for said in ["planted.high", "planted.parent", "not checked"] {
            assert!(checked.stdout.contains(said), "{said} on {major}: {checked}");
        }
        planted.ran_only_as_itself(&format!("check on {major}"));
        let snapshots = Snapshots::new();
        snapshots.create(&run.database, &["--check-foreign-keys"]);
        planted.ran_only_as_itself(&format!("backup create on {major}"));
        let into = format!("{}_into", run.database.name());
        snapshots.run("restore", &run.database.url(), &["latest", "--into", &into]).expect(0);
        let heard = planted.heard();
        // Rows are loaded by whoever wrote the key; PostgreSQL builds an index, and ANALYZEs, as the owner of the partition.
        assert!(!heard["partition key"].contains(&other), "{heard:?} on {major}");
        assert!(heard["partition key"].contains(&low), "{heard:?} on {major}");
        let rows = "SET planted.quiet = on; SELECT count(*), sum(id) FROM planted.high";
        let cluster = run.database.cluster();
        assert_eq!(psql::run(&cluster.url(&into), rows), run.database.psql(rows), "on {major}");
        cluster.psql(&format!("DROP DATABASE {} WITH (FORCE)", psql::quote_ident(&into)));
        run.database
            .psql(&format!("SET planted.quiet = on; DROP OWNED BY {ident} CASCADE; DROP ROLE {ident}"));
        planted.remove();
    }
}

/// ATTACH PARTITION, a foreign key and a trigger compute the constants of a tree's key, and the first those of the partition's CHECK
/// constraints, with the rights of whoever makes them. Each runs as who wrote it, also what was handed down to a partition that was given away.
#[test]
fn a_tree_of_several_owners_is_put_together_without_anybody_running_the_code_of_another() {
    for major in ends() {
        let run = ProtectedRun::shop(major);
        let mut planted = Planted::plant(&run.database);
        let (low, other) = (planted.role().to_owned(), format!("other_{}", run.database.name()));
        let [low_ident, ident] = [psql::quote_ident(&low), psql::quote_ident(&other)];
        let cluster = run.database.cluster();
        run.database.psql(&format!(
            "SET planted.quiet = on; CREATE ROLE {ident}; CREATE SCHEMA others AUTHORIZATION {ident};
            GRANT USAGE ON SCHEMA planted TO {ident}; GRANT USAGE ON SCHEMA others TO {low_ident};
            CREATE FUNCTION others.say(place text) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
              IF current_setting('planted.quiet', true) = 'on' THEN RETURN true; END IF;
              RAISE LOG 'planted|{low}|%|%|%|%', place, current_user, current_user, session_user; RETURN true; END $$;
            ALTER FUNCTION others.say OWNER TO {ident};
            -- The tree of the one with partitions of the other and of a superuser; their keys to each other.
            CREATE TABLE planted.tree (id int NOT NULL, v int, CONSTRAINT above CHECK (planted.say('check above') AND v > 0)) PARTITION BY RANGE ((planted.number('key above') + id));
            CREATE TABLE others.leaf PARTITION OF planted.tree FOR VALUES FROM (MINVALUE) TO (50);
            CREATE TABLE others.empty PARTITION OF planted.tree (CONSTRAINT below CHECK (others.say('check below') AND id > 0))
              FOR VALUES FROM (50) TO (90);
            COMMENT ON CONSTRAINT below ON others.empty IS 'of the other';
            CREATE TABLE public.leaf PARTITION OF planted.tree FOR VALUES FROM (90) TO (MAXVALUE);
            CREATE TABLE others.target (v int PRIMARY KEY); INSERT INTO others.target SELECT generate_series(1, 20);
            ALTER TABLE others.target OWNER TO {ident};
            ALTER TABLE planted.tree OWNER TO {low_ident}; ALTER TABLE others.leaf OWNER TO {ident}; ALTER TABLE others.empty OWNER TO {ident};
            INSERT INTO planted.tree (id, v) SELECT i, i FROM generate_series(1, 20) i;
            ALTER TABLE planted.tree ADD FOREIGN KEY (v) REFERENCES others.target;
            CREATE INDEX by_v ON planted.tree (v);
            CREATE TRIGGER of_tree AFTER INSERT ON planted.tree FOR EACH ROW EXECUTE FUNCTION planted.fires();
            -- A superuser's tree with a partition whose CHECK is a low role's.
            CREATE TABLE our_tree (id int) PARTITION BY RANGE (id);
            CREATE TABLE planted.ours PARTITION OF our_tree (CHECK (planted.say('check of a partition of ours') AND id > 0)) FOR VALUES FROM (1) TO (9);
            ALTER TABLE planted.ours OWNER TO {low_ident}; INSERT INTO our_tree VALUES (1)"
        ));
        planted.heard();
        let url = run.database.url();
        let snapshots = Snapshots::new();
        snapshots.create(&run.database, &[]);
        let into = format!("{}_into", run.database.name());
        snapshots.run("restore", &url, &["latest", "--into", &into]).expect(0);
        let heard = planted.heard();
        for (place, owner) in [
            ("key above", &low),
            ("check above", &low),
            ("check of a partition of ours", &low),
            ("check below", &other),
        ] {
            assert_eq!(heard.get(place), Some(&vec![owner.clone()]), "{place} on {major}: {heard:?}");
        }
        let schema = |url: &str| tests::oracle::fingerprint_without(url, &[]).schema().to_owned();
        assert_eq!(schema(&cluster.url(&into)), schema(&url), "on {major}");
        for table in ["others.leaf", "others.target", "our_tree"] {
            let rows = format!(
                "SET planted.quiet = on; SELECT count(*), md5(string_agg(t::text, ' ' ORDER BY t::text)) FROM {table} t"
            );
            assert_eq!(psql::run(&cluster.url(&into), &rows), run.database.psql(&rows), "{table} on {major}");
        }
        cluster.psql(&format!("DROP DATABASE {} WITH (FORCE)", psql::quote_ident(&into)));
        run.database
            .psql(&format!("SET planted.quiet = on; DROP OWNED BY {ident} CASCADE; DROP ROLE {ident}"));
        planted.remove();
    }
}

/// A superuser's COPY would have been let in; the owner of the table inserts its rows.
#[test]
fn an_owner_who_may_not_run_what_the_rules_of_its_table_call_is_told_with_the_way_out() {
    let run = ProtectedRun::shop(18);
    let low = format!("{}_low", run.database.name());
    run.database.psql(&format!(
        "CREATE ROLE {low}; CREATE FUNCTION over_zero(int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RETURN $1 > 0; END';
         REVOKE EXECUTE ON FUNCTION over_zero(int) FROM PUBLIC; CREATE TABLE guarded (n int CHECK (over_zero(n)));
         INSERT INTO guarded VALUES (1), (2); ALTER TABLE guarded OWNER TO {low}"
    ));
    let snapshots = Snapshots::new();
    snapshots.create(&run.database, &[]);
    let into = format!("{}_into", run.database.name());
    let restore = |more: &[&str]| {
        snapshots.run("restore", &run.database.url(), &[&["latest", "--into", &into], more].concat())
    };
    let refused = restore(&[]).expect(1);
    drop(refused.says(&[
        "could not load the table guarded: permission denied for function over_zero",
        "restore with --no-owner",
    ]));
    restore(&["--no-owner"]).expect(0);
    assert_eq!(psql::run(&run.database.cluster().url(&into), "SELECT count(*) FROM guarded"), "2");
    run.database.cluster().psql(&format!("DROP DATABASE {} WITH (FORCE)", psql::quote_ident(&into)));
    run.database.psql(&format!("DROP TABLE guarded; DROP ROLE {low}"));
}
