//! What another tool has applied is never applied a second time: it is refused before anything, with the ways on; recorded as
//! told, it is not run, and what comes later is.
//!
//! Their tables are made as they make them; `foreign_tools.rs` lets the tools themselves make them.

use tests::{Cluster, ProtectedRun};

/// A tool, the table that it makes, with rows for two files, and those files: `a` and `b` run, `c` is new.
struct Foreign {
    name: &'static str,
    /// `$H` is the SHA-256 of the first file.
    table: &'static str,
    files: [&'static str; 3],
}

const fn foreign(name: &'static str, table: &'static str, files: [&'static str; 3]) -> Foreign {
    Foreign { name, table, files }
}

const TIMES: [&str; 3] = ["20240101120000_a.sql", "20240102120000_b.sql", "20240103120000_c.sql"];
const NUMBERS: [&str; 3] = ["0001_a.sql", "0002_b.sql", "0003_c.sql"];

const FOREIGN: [Foreign; 31] = [
    foreign(
        "the Supabase CLI",
        "CREATE TABLE x.schema_migrations (version text PRIMARY KEY, statements text[], name text);
         INSERT INTO x.schema_migrations VALUES ('20240101120000', '{a}', 'a'), ('20240102120000', '{b}', 'b')",
        TIMES,
    ),
    foreign(
        "Atlas",
        "CREATE TABLE x.atlas_schema_revisions (version varchar PRIMARY KEY, description varchar, type bigint, applied bigint,
           total bigint, executed_at timestamptz, execution_time bigint, error text, error_stmt text, hash varchar,
           partial_hashes jsonb, operator_version varchar);
         INSERT INTO x.atlas_schema_revisions (version, description, hash) VALUES ('20240101120000', 'a', 'x'), ('20240102120000', 'b', 'y')",
        TIMES,
    ),
    foreign("tern", "CREATE TABLE x.schema_version (version int4 NOT NULL); INSERT INTO x.schema_version VALUES (2)", NUMBERS),
    foreign(
        "sql-migrate",
        "CREATE TABLE x.gorp_migrations (id text PRIMARY KEY, applied_at timestamptz);
         INSERT INTO x.gorp_migrations VALUES ('0001_a.sql', now()), ('0002_b.sql', now())",
        NUMBERS,
    ),
    foreign(
        "pgmigrate",
        "CREATE TABLE x.schema_version (version bigint PRIMARY KEY, description text, type text, installed_by text, installed_on timestamp);
         INSERT INTO x.schema_version VALUES (1, 'a'), (2, 'b')",
        NUMBERS,
    ),
    foreign(
        "Play evolutions",
        "CREATE TABLE x.play_evolutions (id int PRIMARY KEY, hash varchar, applied_at timestamp, apply_script text, revert_script text,
           state varchar, last_problem text);
         INSERT INTO x.play_evolutions (id) VALUES (1), (2)",
        ["1.sql", "2.sql", "3.sql"],
    ),
    foreign(
        "TypeORM",
        "CREATE TABLE x.migrations (id serial PRIMARY KEY, \"timestamp\" bigint, name varchar);
         INSERT INTO x.migrations (\"timestamp\", name) VALUES (20240101120000, 'a20240101120000'), (20240102120000, 'b')",
        TIMES,
    ),
    foreign(
        "MikroORM",
        "CREATE TABLE x.mikro_orm_migrations (id serial PRIMARY KEY, name varchar, executed_at timestamptz);
         INSERT INTO x.mikro_orm_migrations (name) VALUES ('20240101120000_a.sql'), ('20240102120000_b.sql')",
        TIMES,
    ),
    foreign(
        "Kysely",
        "CREATE TABLE x.kysely_migration (name varchar PRIMARY KEY, \"timestamp\" varchar);
         INSERT INTO x.kysely_migration VALUES ('0001_a', ''), ('0002_b', '')",
        NUMBERS,
    ),
    foreign(
        "Graphile Migrate",
        "CREATE TABLE x.migrations (hash text PRIMARY KEY, previous_hash text, filename text, date timestamptz);
         INSERT INTO x.migrations VALUES ('sha1:x', NULL, '0001_a.sql'), ('sha1:y', 'sha1:x', '0002_b.sql')",
        NUMBERS,
    ),
    foreign(
        "Sqitch",
        "CREATE TABLE x.changes (change_id text PRIMARY KEY, script_hash text, change text, project text, note text,
           committed_at timestamptz, committer_name text, committer_email text, planned_at timestamptz, planner_name text, planner_email text);
         INSERT INTO x.changes (change_id, change) VALUES ('1', '0001_a'), ('2', '0002_b')",
        NUMBERS,
    ),
    foreign(
        "Rails or dbmate",
        "CREATE TABLE x.schema_migrations (version varchar PRIMARY KEY); CREATE TABLE x.ar_internal_metadata (key varchar, value varchar);
         INSERT INTO x.schema_migrations VALUES ('20240101120000'), ('20240102120000')",
        TIMES,
    ),
    foreign(
        "Ecto",
        "CREATE TABLE x.schema_migrations (version bigint PRIMARY KEY, inserted_at timestamp);
         INSERT INTO x.schema_migrations VALUES (20240101120000, now()), (20240102120000, now())",
        TIMES,
    ),
    foreign(
        "Liquibase",
        "CREATE TABLE x.databasechangelog (id varchar, author varchar, filename varchar, dateexecuted timestamp, orderexecuted int,
           exectype varchar, md5sum varchar);
         INSERT INTO x.databasechangelog (id, author, filename, orderexecuted) VALUES
           ('a', 'me', 'db/changelog/0001_a.sql', 1), ('b', 'me', 'db/changelog/0002_b.sql', 2)",
        NUMBERS,
    ),
    foreign(
        "Drizzle",
        "CREATE TABLE x.__drizzle_migrations (id serial PRIMARY KEY, hash text NOT NULL, created_at bigint);
         INSERT INTO x.__drizzle_migrations (hash, created_at) VALUES ('$H', 1700000000000), ('$H', 1700000000001)",
        NUMBERS,
    ),
    foreign(
        "shmig",
        "CREATE TABLE x.shmig_version (version int PRIMARY KEY, migrated_at timestamp);
         INSERT INTO x.shmig_version VALUES (1, now()), (2, now())",
        NUMBERS,
    ),
    foreign(
        "MyBatis Migrations",
        "CREATE TABLE x.changelog (id numeric(20, 0) PRIMARY KEY, applied_at varchar, description varchar);
         INSERT INTO x.changelog VALUES (20240101120000, '', 'a'), (20240102120000, '', 'b')",
        TIMES,
    ),
    foreign(
        "micrate",
        "CREATE TABLE x.micrate_db_version (id serial, version_id bigint, is_applied boolean, tstamp timestamp);
         INSERT INTO x.micrate_db_version (version_id) VALUES (20240101120000), (20240102120000)",
        TIMES,
    ),
    foreign(
        "rambler",
        "CREATE TABLE x.migrations (migration varchar); INSERT INTO x.migrations VALUES ('0001_a.sql'), ('0002_b.sql')",
        NUMBERS,
    ),
    foreign(
        "db-migrate",
        "CREATE TABLE x.migrations (id serial, name varchar, run_on timestamp);
         INSERT INTO x.migrations (name) VALUES ('/20240101120000_a'), ('/20240102120000_b')",
        TIMES,
    ),
    foreign(
        "bun",
        "CREATE TABLE x.bun_migrations (id bigserial, name varchar, group_id bigint, migrated_at timestamptz);
         INSERT INTO x.bun_migrations (name) VALUES ('20240101120000'), ('20240102120000')",
        TIMES,
    ),
    foreign(
        "Phinx",
        "CREATE TABLE x.phinxlog (version bigint, migration_name varchar, start_time timestamp, end_time timestamp, breakpoint boolean);
         INSERT INTO x.phinxlog (version, migration_name) VALUES (20240101120000, 'A'), (20240102120000, 'B')",
        TIMES,
    ),
    foreign(
        "DbUp",
        "CREATE TABLE x.schemaversions (schemaversionsid serial, scriptname varchar, applied timestamp);
         INSERT INTO x.schemaversions (scriptname) VALUES ('Shop.Scripts.0001_a.sql'), ('0002_b.sql'), ('0001_a.sql')",
        NUMBERS,
    ),
    // The same under names that nobody can know: by the columns, or by what stands there.
    foreign(
        "sqlx",
        "CREATE TABLE x.what_ran (version bigint PRIMARY KEY, description text, installed_on timestamptz, success boolean,
           checksum bytea, execution_time bigint);
         INSERT INTO x.what_ran (version, success) VALUES (1, true), (2, true)",
        NUMBERS,
    ),
    foreign(
        "goose",
        "CREATE TABLE x.app_version (id serial, version_id bigint, is_applied boolean, tstamp timestamp);
         INSERT INTO x.app_version (version_id) VALUES (0), (1), (2)",
        NUMBERS,
    ),
    foreign(
        "Flyway",
        "CREATE TABLE x.steps (installed_rank int, version varchar, description varchar, type varchar, script varchar, checksum int);
         INSERT INTO x.steps VALUES (1, '1', 'a', 'SQL', 'V0001__a.sql'), (2, '2', 'b', 'SQL', 'V0002__b.sql')",
        NUMBERS,
    ),
    foreign(
        "DbUp",
        "CREATE TABLE x.what_dbup_did (schemaversionsid serial, scriptname varchar, applied timestamp);
         INSERT INTO x.what_dbup_did (scriptname) VALUES ('Shop.0001_a.sql'), ('Shop.Scripts.0002_b.sql')",
        NUMBERS,
    ),
    foreign(
        "",
        "CREATE TABLE x.done (what text, at timestamptz); INSERT INTO x.done VALUES ('0001_a.sql'), ('0002_b.sql')",
        NUMBERS,
    ),
    foreign(
        "",
        "CREATE TABLE x.applied_things (stamp bigint); INSERT INTO x.applied_things VALUES (20240101120000), (20240102120000)",
        TIMES,
    ),
    foreign(
        "",
        "CREATE TABLE x.db_version (version int); INSERT INTO x.db_version VALUES (1), (2)",
        NUMBERS,
    ),
    foreign(
        "",
        "CREATE TABLE x.\"Deployed\" (id serial, \"Script\" varchar(200)); INSERT INTO x.\"Deployed\" (\"Script\") VALUES
           ('database\\0001_a'), ('database\\0002_b')",
        NUMBERS,
    ),
];

const TEXT: &str = "CREATE TABLE made_again ();\n";

fn is_refused(major: u32) {
    let run = ProtectedRun::on(Cluster::shared(major).fresh_database("foreign"));
    for tool in FOREIGN {
        let folder = run.folder().join("migrations");
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).unwrap();
        for file in tool.files {
            run.migration(file, TEXT);
        }
        run.database.psql("DROP SCHEMA IF EXISTS x CASCADE; CREATE SCHEMA x");
        // What has no row of its own here stands there by its content's hash alone.
        let hash = "sha256(convert_to(E'CREATE TABLE made_again ();\\n', 'UTF8'))";
        run.database.psql(&tool.table.replace("'$H'", &format!("encode({hash}, 'hex')")));
        let told = run
            .run(&["status"])
            .exits(3)
            .says("of these migrations stand")
            .says("--ignore-history ")
            .says("was not changed");
        if !tool.name.is_empty() {
            told.says(&format!(", the history of {}", tool.name));
        }
    }
}

#[test]
fn a_folder_that_stands_in_the_history_of_another_tool_is_refused_on_14() {
    is_refused(14);
}

#[test]
fn a_folder_that_stands_in_the_history_of_another_tool_is_refused_on_18() {
    is_refused(18);
}

/// A folder of three, two of which another tool has applied.
fn applied_by_supabase(run: &ProtectedRun) {
    for (file, table) in TIMES.iter().zip(["a", "b", "c"]) {
        run.migration(file, &format!("CREATE TABLE {table} ();\n"));
    }
    run.database.psql(
        "CREATE SCHEMA supabase_migrations; CREATE TABLE supabase_migrations.schema_migrations (version text PRIMARY KEY, statements text[],
           name text);
         INSERT INTO supabase_migrations.schema_migrations VALUES ('20240101120000', '{}', 'a'), ('20240102120000', '{}', 'b');
         CREATE TABLE a (); CREATE TABLE b ();",
    );
}

#[test]
fn what_is_refused_goes_on_in_each_of_the_ways_that_are_told() {
    let cluster = Cluster::shared(18);
    let run = ProtectedRun::on(cluster.fresh_database("ways"));
    applied_by_supabase(&run);
    let before = run.fingerprint();
    for words in [&[][..], &["plan"], &["status"], &["--format", "safe-run"]] {
        run.run(words)
            .exits(3)
            .says("2 of these migrations stand in supabase_migrations.schema_migrations, the history of the Supabase CLI")
            .says("`safe-run -- supabase migration up --db-url URL`")
            .says("--ignore-history supabase_migrations.schema_migrations");
    }
    run.run(&[]).exits(3).says("`safe-run baseline 20240102120000`");
    run.assert_unchanged(&before);
    run.run(&["--yes", "baseline", "20240102120000"]).exits(0);
    run.run(&["status"]).exits(30).says("2 migrations applied, 1 pending");
    run.run(&[]).exits(0).verdict("COMMITTED").says("1 migration");
    assert_eq!(run.database.psql("SELECT to_regclass('c') IS NOT NULL"), "t");

    // Said to be something else, the files are what they are.
    let other = ProtectedRun::on(cluster.fresh_database("other"));
    applied_by_supabase(&other);
    other.database.psql("DROP TABLE a, b");
    other
        .run(&["--ignore-history", "supabase_migrations.schema_migrations"])
        .exits(0)
        .verdict("COMMITTED")
        .says("3 migrations");
}

#[test]
fn what_lies_in_other_tables_by_chance_or_can_not_be_read_is_in_nobodys_way() {
    for major in [14, 18] {
        let run = ProtectedRun::on(Cluster::shared(major).fresh_database("chance"));
        for (number, table) in ["a", "b", "c"].iter().enumerate() {
            run.migration(&format!("000{}_{table}.sql", number + 1), &format!("CREATE TABLE {table} ();\n"));
        }
        run.migration("20240101_date.sql", "CREATE TABLE d ();\n");
        // Code that must not run, in a policy, a view, an index and an output function of a domain's check.
        run.database.psql(
            "CREATE FUNCTION trap() RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'foreign code ran'; END $$;
             CREATE TABLE users (id serial PRIMARY KEY, version int, name text); INSERT INTO users (version) VALUES (1), (2), (3);
             CREATE TABLE dim_date (day int); INSERT INTO dim_date VALUES (20240101), (20240102);
             CREATE TABLE document_versions (id serial, version int); INSERT INTO document_versions (version) VALUES (1), (2), (2), (7);
             CREATE TABLE words (word text); INSERT INTO words VALUES ('a'), ('0001'), ('date');
             CREATE VIEW schema_migrations AS SELECT '0001' AS version WHERE trap();
             CREATE TABLE releases (file text); INSERT INTO releases VALUES ('v2.0001_a.sql'), ('Shop.0002_b.sql');
             CREATE SCHEMA secret; CREATE TABLE secret.schema_migrations (version text, statements text[]);
             CREATE TABLE trapped_migrations (version text); CREATE INDEX ON trapped_migrations (version) WHERE version > 'z' AND version IS NULL;
             INSERT INTO trapped_migrations VALUES ('20300101');",
        );
        // What only code can answer is named, and not asked.
        let views = [
            ("schema_migrations", "Rails or dbmate", "a view"),
            ("flyway_schema_history", "Flyway", "a materialized view"),
            ("goose_db_version", "goose", "a partitioned table"),
        ];
        run.database.psql(
            "CREATE MATERIALIZED VIEW flyway_schema_history AS SELECT 1 installed_rank, '1' AS version, 'a' description, 'V1__a.sql' script WHERE trap() WITH NO DATA;
             CREATE TABLE goose_db_version (id int, version_id int, is_applied boolean) PARTITION BY LIST (id)",
        );
        let mut ignored = Vec::new();
        for (name, tool, kind) in [views[1], views[2], views[0]] {
            let said = format!("{name} is called like the history of {tool}, and is {kind}");
            run.run(&[&["--format", "safe-run"][..], &ignored, &["status"]].concat()).exits(3).says(&said);
            run.run(&[&["--format", "safe-run"][..], &ignored].concat())
                .exits(3)
                .says(&said)
                .says(&format!("`--ignore-history {name}`"))
                .says("was not changed");
            ignored.extend(["--ignore-history", name]);
        }
        run.run(&[&["--format", "safe-run"][..], &ignored].concat())
            .exits(0)
            .verdict("COMMITTED")
            .says("4 migrations");
        run.migration("0005_e.sql", "CREATE TABLE e ();\n");
        run.run(&["--allow-out-of-order", "5", "--format", "safe-run"])
            .exits(0)
            .verdict("COMMITTED")
            .says("1 migration");
    }
}

/// Another application's history lies in the database, in the table of an adopted tool that could not have these files.
#[test]
fn a_history_of_other_files_is_in_nobodys_way_and_one_of_the_same_names_no_time_that_it_has_not() {
    let cluster = Cluster::shared(18);
    let run = ProtectedRun::on(cluster.fresh_database("others"));
    run.migration("0001_a.sql", "CREATE TABLE a ();\n");
    run.database.psql(
        "CREATE TABLE schema_migrations (version varchar PRIMARY KEY); INSERT INTO schema_migrations VALUES ('20200101000000')",
    );
    run.run(&[]).exits(0).verdict("COMMITTED").says("1 migration");
    assert_eq!(
        run.database.psql("SELECT count(*) FROM schema_migrations; SELECT count(*) FROM safe_run.migrations"),
        "1\n1"
    );

    // The same table with the very files.
    let same = ProtectedRun::on(cluster.fresh_database("same"));
    same.migration("20200101000000_a.sql", "CREATE TABLE a ();\n");
    same.database.psql(
        "CREATE TABLE schema_migrations (version varchar PRIMARY KEY); INSERT INTO schema_migrations VALUES ('20200101000000')",
    );
    same.run(&[]).exits(3).says("stands in schema_migrations, the history of Rails or dbmate");

    // dbmate's own files, one of which is gone: its table has neither name nor time.
    let gone = ProtectedRun::on(cluster.fresh_database("gone"));
    gone.migration("20200101000000_a.sql", "-- migrate:up\nCREATE TABLE a ();\n-- migrate:down\n");
    gone.database.psql(
        "CREATE TABLE schema_migrations (version varchar PRIMARY KEY);
         INSERT INTO schema_migrations VALUES ('20200101000000'), ('20200202000000')",
    );
    gone.run(&[])
        .exits(3)
        .says("error: applied, but its file is missing: 20200202000000\n")
        .never_says("(applied");
}

#[test]
fn the_settings_file_can_say_that_a_table_is_no_history_of_these_files() {
    let run = ProtectedRun::on(Cluster::shared(14).fresh_database("ignored"));
    run.migration("0001_a.sql", "CREATE TABLE a ();\n");
    run.database.psql("CREATE TABLE done (what text); INSERT INTO done VALUES ('0001_a.sql')");
    run.run(&[]).exits(3).says("--ignore-history done");
    run.file("safe-run.toml", "ignore-history = [\"public.done\"]\n");
    run.run(&["--show-config"]).exits(0).says("ignore-history = [\"public.done\"]  # safe-run.toml");
    run.run(&[]).exits(0).verdict("COMMITTED");
}
