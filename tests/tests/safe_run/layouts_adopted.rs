//! Migrations laid out by other tools: we write the history that the tool itself writes, and each goes on after the other.
//!
//! What the tools wrote for the files in `fixtures/layouts` is kept beside them as `<tool>.history`. sqlx, dbmate and Prisma are there
//! themselves (`scripts/setup-tools`); `scripts/compare-tools` makes those files anew from every real tool that it finds, and lets
//! each tool and ours go on after the other.

use std::path::{Path, PathBuf};
use std::process::Command;

use tests::oracle::fingerprint;
use tests::other_tools::{self, copy};
use tests::{Cluster, Database, ProtectedRun, Running, cluster::Options, psql, until};

/// A tool, and what of its history is the same each time: all but times, durations and random ids.
struct Tool {
    name: &'static str,
    table: &'static str,
    columns: &'static str,
    order: &'static str,
    /// A later migration: its file, and its text.
    later: (&'static str, &'static str),
}

const TOOLS: [Tool; 8] = [
    Tool {
        name: "sqlx",
        table: "_sqlx_migrations",
        columns: "version, description, success, checksum, execution_time > 0 AS took",
        order: "version",
        later: ("20250101_more.sql", "CREATE TABLE more (i int);\n"),
    },
    Tool {
        name: "golang-migrate",
        table: "schema_migrations",
        columns: "version, dirty",
        order: "version",
        later: ("000011_more.up.sql", "CREATE TABLE more (i int);\n"),
    },
    Tool {
        name: "dbmate",
        table: "schema_migrations",
        columns: "version",
        order: "version",
        later: ("20250101_more.sql", "-- migrate:up\nCREATE TABLE more (i int);\n-- migrate:down\n"),
    },
    Tool {
        name: "goose",
        table: "goose_db_version",
        columns: "id, version_id, is_applied",
        order: "id",
        later: ("20250101000000_more.sql", "-- +goose Up\nCREATE TABLE more (i int);\n"),
    },
    Tool {
        name: "flyway",
        table: "flyway_schema_history",
        columns: "installed_rank, version, description, type, script, checksum, installed_by, success",
        order: "installed_rank",
        later: ("V3__more.sql", "CREATE TABLE more (i int);\n"),
    },
    Tool {
        name: "refinery",
        table: "refinery_schema_history",
        columns: "version, name, checksum",
        order: "version",
        later: ("V11__more.sql", "CREATE TABLE more (i int);\n"),
    },
    Tool {
        name: "diesel",
        table: "__diesel_schema_migrations",
        columns: "version",
        order: "version",
        later: ("2025-01-01-000000_more/up.sql", "CREATE TABLE more (i int);\n"),
    },
    Tool {
        name: "prisma",
        table: "_prisma_migrations",
        columns: "length(id) AS id_length, checksum, finished_at IS NOT NULL AS finished, migration_name, logs, rolled_back_at, \
                  applied_steps_count",
        order: "migration_name",
        later: ("20250101000000_more/migration.sql", "CREATE TABLE more (i int);\n"),
    },
];

fn tool(name: &str) -> &'static Tool {
    TOOLS.iter().find(|tool| tool.name == name).expect(name)
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/layouts")
}

impl Tool {
    /// An empty database, and the tool's files.
    fn run<'c>(&self, cluster: &'c Cluster) -> ProtectedRun<'c> {
        let run = ProtectedRun::on(cluster.fresh_database("adopted"));
        copy(&fixtures().join(self.name), &run.folder().join("migrations"));
        run
    }

    /// The flags: where the files and an empty database leave a doubt.
    fn flags(&self) -> &'static [&'static str] {
        match self.name {
            "sqlx" => &["--format", "sqlx"],
            "golang-migrate" => &["--format", "golang-migrate"],
            _ => &[],
        }
    }

    fn add_later(&self, run: &ProtectedRun) {
        run.file(&format!("migrations/{}", self.later.0), self.later.1);
    }

    /// The table's definition and its rows, as text.
    fn history(&self, database: &Database) -> String {
        let definition = format!(
            "SELECT format('%s %s%s%s', attname, format_type(atttypid, atttypmod), CASE WHEN attnotnull THEN ' not null' END,
                      concat(' ' || pg_get_expr(adbin, adrelid), attidentity))
               FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
              WHERE attrelid = '{0}'::regclass AND attnum > 0 ORDER BY attnum;
             SELECT format('%s %s', conname, pg_get_constraintdef(oid)) FROM pg_constraint
              WHERE conrelid = '{0}'::regclass AND contype = 'p';
             SELECT indexdef FROM pg_indexes WHERE tablename = '{0}' ORDER BY indexname;",
            self.table
        );
        let rows = format!(
            "SELECT row_to_json(r) FROM (SELECT {} FROM {} ORDER BY {}) r",
            self.columns, self.table, self.order
        );
        format!("{}\n{}\n", database.psql(&definition), database.psql(&rows))
    }
}

fn applies_as_the_tool_does(tool: &Tool, cluster: &Cluster) {
    let run = tool.run(cluster);
    run.run(&[&["status"], tool.flags()].concat()).exits(30).says(tool.name);
    run.run(tool.flags()).exits(0).verdict("COMMITTED");
    let recorded = std::fs::read_to_string(fixtures().join(format!("{}.history", tool.name))).unwrap();
    assert_eq!(tool.history(&run.database), recorded, "{}", tool.name);
    run.assert_open();
    // From here on the history tells whose it is.
    run.run(&["status"]).exits(0).says(tool.name);
    run.run(&[]).exits(0).verdict("UP TO DATE");
    tool.add_later(&run);
    run.run(&[]).exits(0).verdict("COMMITTED").says("1 migration");
    assert_eq!(run.database.psql("SELECT count(*) FROM more"), "0");
    assert_eq!(run.database.psql("SELECT to_regnamespace('safe_run') IS NULL"), "t");
}

macro_rules! histories {
    ($($test:ident: $name:literal on $major:literal;)*) => {$(
        #[test]
        fn $test() {
            applies_as_the_tool_does(tool($name), Cluster::shared($major));
        }
    )*};
}

histories! {
    sqlx_history_is_written_as_sqlx_writes_it: "sqlx" on 14;
    golang_migrate_history_is_written_as_golang_migrate_writes_it: "golang-migrate" on 18;
    dbmate_history_is_written_as_dbmate_writes_it: "dbmate" on 14;
    goose_history_is_written_as_goose_writes_it: "goose" on 18;
    flyway_history_is_written_as_flyway_writes_it: "flyway" on 14;
    refinery_history_is_written_as_refinery_writes_it: "refinery" on 18;
    diesel_history_is_written_as_diesel_writes_it: "diesel" on 14;
    prisma_history_is_written_as_prisma_writes_it: "prisma" on 18;
}

/// The real tool on the folder `migrations`: from `SAFE_RUN_TOOL_<NAME>`, or as `scripts/setup-tools` got it.
fn real(tool: &Tool, run: &ProtectedRun, url: &str) -> Option<Command> {
    let variable = format!("SAFE_RUN_TOOL_{}", tool.name.to_uppercase().replace('-', "_"));
    let given = std::env::var_os(variable).map(Command::new);
    let mut command = match tool.name {
        "prisma" => other_tools::prisma(run.folder(), url),
        "dbmate" => given.unwrap_or_else(|| Command::new(other_tools::node_modules().join(".bin/dbmate"))),
        "sqlx" => given.unwrap_or_else(|| Command::new(other_tools::python().join("bin/sqlx"))),
        _ => given?,
    };
    let dir = run.folder().join("migrations");
    command.current_dir(run.folder()).env("DATABASE_URL", url);
    match tool.name {
        "sqlx" => command.args(["migrate", "run", "--source"]).arg(dir),
        "dbmate" => command.args(["--no-dump-schema", "--migrations-dir"]).arg(dir).arg("migrate"),
        "diesel" => command
            .args(["migration", "run", "--migration-dir"])
            .arg(dir)
            .env("DIESEL_CONFIG_FILE", "none.toml"),
        "refinery" => command.args(["migrate", "-e", "DATABASE_URL", "-p"]).arg(dir),
        "golang-migrate" => command.arg("-path").arg(dir).args(["-database", url, "up"]),
        "goose" => command.arg("-dir").arg(dir).args(["postgres", url, "up"]),
        "flyway" => command
            .arg(format!("-locations=filesystem:{}", dir.display()))
            .arg(format!("-url=jdbc:postgresql://{}", url.split_once('@').expect("a user").1))
            .args(["-user=postgres", "migrate"]),
        _ => command.args(["migrate", "deploy"]),
    };
    Some(command)
}

/// The tool migrates one database and we another: the histories are equal, row by row, and so is everything else; each has
/// nothing to do after the other, and applies what comes later. The result is the tool's history, if there is the tool.
fn go_on_after_each_other(
    tool: &Tool,
    cluster: &Cluster,
    url: impl Fn(&ProtectedRun) -> String,
) -> Option<String> {
    let (theirs, ours) = (tool.run(cluster), tool.run(cluster));
    let migrate = |run: &ProtectedRun| psql::succeed(real(tool, run, &url(run)).expect("it was there"));
    let finds_nothing = |run: &ProtectedRun| {
        let before = tool.history(&run.database);
        migrate(run);
        assert_eq!(tool.history(&run.database), before, "{} found something to do", tool.name);
    };
    println!("{}", psql::succeed(real(tool, &theirs, &url(&theirs))?));
    let history = tool.history(&theirs.database);
    ours.run(tool.flags()).exits(0).verdict("COMMITTED");
    assert_eq!(tool.history(&ours.database), history, "{}", tool.name);
    // The schemas and the rows of everything but the history are equal.
    let kept = |run: &ProtectedRun| {
        fingerprint(&run.database).without(&[&format!("table \"public.{}\"", tool.table)])
    };
    kept(&theirs).assert_same(&kept(&ours));

    finds_nothing(&ours);
    tool.add_later(&ours);
    migrate(&ours);
    assert_eq!(ours.database.psql("SELECT count(*) FROM more"), "0");
    ours.run(&[]).exits(0).verdict("UP TO DATE");

    theirs.run(&["status"]).exits(0).says(tool.name);
    theirs.run(&[]).exits(0).verdict("UP TO DATE");
    tool.add_later(&theirs);
    theirs.run(&[]).exits(0).verdict("COMMITTED");
    finds_nothing(&theirs);
    assert_eq!(tool.history(&theirs.database), tool.history(&ours.database), "{}", tool.name);
    Some(history)
}

/// Over the socket of a shared server, which speaks no TLS.
fn socket_url(run: &ProtectedRun) -> String {
    format!("{}&sslmode=disable", run.database.url())
}

fn goes_on_and_writes_what_is_recorded(tool: &Tool, cluster: &Cluster) {
    let recorded = std::fs::read_to_string(fixtures().join(format!("{}.history", tool.name))).unwrap();
    assert_eq!(go_on_after_each_other(tool, cluster, socket_url), Some(recorded));
}

#[test]
fn real_dbmate_and_safe_run_go_on_after_each_other() {
    let dbmate = tool("dbmate");
    goes_on_and_writes_what_is_recorded(dbmate, Cluster::shared(18));

    // Of a file with several pairs it keeps the first and fails at recording the second; we run all of it, and record it once.
    let run = dbmate.run(Cluster::shared(18));
    let pair = |table: &str| {
        format!("-- migrate:up\nCREATE TABLE {table} ();\n-- migrate:down\nDROP TABLE {table};\n")
    };
    run.migration("20250102_pairs.sql", &format!("{}{}", pair("one"), pair("two")));
    run.run(&[]).exits(0).verdict("COMMITTED");
    let before = dbmate.history(&run.database);
    assert_eq!(before.matches("20250102").count(), 1, "{before}");
    psql::succeed(real(dbmate, &run, &socket_url(&run)).unwrap());
    assert_eq!(dbmate.history(&run.database), before);
    assert_eq!(run.database.psql("SELECT count(*) FROM one; SELECT count(*) FROM two"), "0\n0");
}

#[test]
fn real_sqlx_and_safe_run_go_on_after_each_other() {
    // Its driver wants a host before the one that is a folder.
    let url = |run: &ProtectedRun| socket_url(run).replacen("@/", "@localhost/", 1);
    let recorded = std::fs::read_to_string(fixtures().join("sqlx.history")).unwrap();
    assert_eq!(go_on_after_each_other(tool("sqlx"), Cluster::shared(14), url), Some(recorded));

    // Under protection it gets a URL like its own.
    let run = tool("sqlx").run(Cluster::shared(14));
    let program = other_tools::python().join("bin/sqlx").display().to_string();
    for fence in ["read-only", "exclusive"] {
        let words = ["--fence", fence, "--", program.as_str(), "migrate", "run", "--source", "migrations"];
        let mut command = run.command(&words);
        command.env("DATABASE_URL", url(&run));
        Running::start(command).outcome().exits(0).says("COMMITTED  ");
        tool("sqlx").add_later(&run);
    }
    assert_eq!(run.database.psql("SELECT count(*) FROM more"), "0");
}

#[test]
fn real_prisma_and_safe_run_go_on_after_each_other() {
    goes_on_and_writes_what_is_recorded(tool("prisma"), Cluster::shared(14));
}

/// A file that ends a transaction in its middle, as Prisma makes it for a label that goes.
#[test]
fn real_prisma_and_safe_run_run_a_files_own_transactions_alike() {
    let text = "CREATE TYPE \"Mood\" AS ENUM ('sad', 'ok');\nCREATE TABLE people (m \"Mood\" DEFAULT 'ok');\nBEGIN;\n\
        CREATE TYPE \"Mood_new\" AS ENUM ('ok');\nALTER TABLE people ALTER m DROP DEFAULT;\n\
        ALTER TABLE people ALTER m TYPE \"Mood_new\" USING (m::text::\"Mood_new\");\n\
        ALTER TYPE \"Mood\" RENAME TO \"Mood_old\";\nALTER TYPE \"Mood_new\" RENAME TO \"Mood\";\nDROP TYPE \"Mood_old\";\n\
        COMMIT;\nALTER TABLE people ADD n int;\nALTER TYPE \"Mood\" ADD VALUE 'glad';\n";
    let prisma = tool("prisma");
    let made = ["theirs", "ours"].map(|name| {
        let run = ProtectedRun::on(Cluster::shared(18).fresh_database(name));
        run.file("migrations/20240101000000_a/migration.sql", text);
        run
    });
    let [theirs, ours] = &made;
    psql::succeed(real(prisma, theirs, &socket_url(theirs)).unwrap());
    ours.run(&[]).exits(0).verdict("COMMITTED").says("a COMMIT ends a transaction of the file's own");
    let kept =
        |run: &ProtectedRun| fingerprint(&run.database).without(&["table \"public._prisma_migrations\""]);
    kept(theirs).assert_same(&kept(ours));
    assert_eq!(prisma.history(&theirs.database), prisma.history(&ours.database));
}

/// What Prisma makes of a failed migration and of a baseline, we take up, and the other way round.
#[test]
fn real_prisma_and_safe_run_resolve_what_the_other_left() {
    const MARKS: &str = "SELECT string_agg(concat(migration_name, ' ', applied_steps_count, ' ', finished_at IS NOT NULL, ' ',
        rolled_back_at IS NOT NULL, ' ', coalesce(logs, '-')), '; ' ORDER BY started_at) FROM _prisma_migrations";
    let prisma = |run: &ProtectedRun, words: &[&str]| {
        let mut command = other_tools::prisma(run.folder(), &socket_url(run));
        command.arg("migrate").args(words);
        Running::start(command).outcome()
    };
    let (first, second) = ("20240101000000_a", "20240102000000_b");
    let project = |name: &str| {
        let run = ProtectedRun::on(Cluster::shared(18).fresh_database(name));
        run.file(&format!("migrations/{first}/migration.sql"), "CREATE TABLE a (i int);\n");
        run.file(&format!("migrations/{second}/migration.sql"), "CREATE TABLE b (i int);\nSELECT 1 / 0;\n");
        run
    };
    let correct = |run: &ProtectedRun| {
        run.file(&format!("migrations/{second}/migration.sql"), "CREATE TABLE b (i int);\n");
    };

    // It marks the first by hand as we do, and fails at the second: we refuse as it does, mark that as it does, and go on.
    let (theirs, ours) = (project("theirs"), project("ours"));
    theirs.database.psql("CREATE TABLE a (i int)");
    ours.database.psql("CREATE TABLE a (i int)");
    prisma(&theirs, &["resolve", "--applied", first]).exits(0);
    ours.run(&["baseline", first, "--yes"]).exits(0);
    assert_eq!(ours.database.psql(MARKS), theirs.database.psql(MARKS));
    prisma(&theirs, &["deploy"]).exits(1).says("division by zero");
    theirs.run(&[]).exits(3).says("failed half-way").says("safe-run repair");
    correct(&theirs);
    theirs.run(&["repair", "--yes"]).exits(0);
    assert_eq!(
        theirs.database.psql("SELECT count(*) FROM _prisma_migrations WHERE rolled_back_at IS NOT NULL"),
        "1"
    );
    theirs.run(&[]).exits(0).verdict("COMMITTED").says("1 migration");
    prisma(&theirs, &["status"]).exits(0).says("Database schema is up to date!");

    // A file without a transaction that fails with us: Prisma refuses as after its own failure, and resolves it for us.
    ours.file(
        &format!("migrations/{second}/migration.sql"),
        "INSERT INTO a VALUES (1), (1);\nCREATE UNIQUE INDEX CONCURRENTLY once ON a (i);\n",
    );
    ours.run(&["--on-failure", "stop"]).exits(14);
    prisma(&ours, &["deploy"]).exits(1).says("P3009").says(second);
    ours.run(&["status"]).exits(3).says("failed half-way");
    prisma(&ours, &["resolve", "--rolled-back", second]).exits(0);
    correct(&ours);
    ours.run(&[]).exits(0).verdict("COMMITTED").says("1 migration");
    prisma(&ours, &["status"]).exits(0).says("Database schema is up to date!");

    // While it migrates, its lock keeps us out.
    ours.database.psql("CREATE SEQUENCE gate");
    ours.file(
        "migrations/20240103000000_c/migration.sql",
        "DO $$ BEGIN WHILE (SELECT NOT is_called FROM gate) LOOP PERFORM pg_sleep(0.02); END LOOP; END $$;\n",
    );
    let mut deploy = other_tools::prisma(ours.folder(), &socket_url(&ours));
    deploy.args(["migrate", "deploy"]);
    let running = Running::start(deploy);
    let open = "SELECT count(*) FROM _prisma_migrations WHERE finished_at IS NULL AND rolled_back_at IS NULL";
    until("it migrates", || ours.database.psql(open) == "1");
    ours.run(&["--lock-timeout", "200ms", "--lock-retries", "1"])
        .exits(4)
        .says("prisma works on the database");
    ours.database.psql("SELECT nextval('gate')");
    running.outcome().exits(0);
    ours.run(&[]).exits(0).verdict("UP TO DATE");
}

#[test]
#[ignore = "needs the real tools: scripts/compare-tools"]
fn each_real_tool_and_safe_run_go_on_after_the_other() {
    let cluster = Cluster::start(18, &Options::new().tcp());
    let url = |run: &ProtectedRun| {
        format!("{}?sslmode=disable", cluster.tcp_url("postgres", "127.0.0.1", run.database.name()))
    };
    let mut compared = Vec::new();
    for tool in &TOOLS {
        if let Some(history) = go_on_after_each_other(tool, &cluster, url) {
            std::fs::write(fixtures().join(format!("{}.history", tool.name)), history).unwrap();
            compared.push(tool.name);
        }
    }
    println!("compared with the real tools: {}", compared.join(", "));
}
