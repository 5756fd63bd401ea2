//! The real tools apply their folders, and safe-run is pointed at them: refused, taken over where they are SQL, never applied again.
//!
//! They are there where PyPI and npm have them (`scripts/setup-tools`).

use std::process::Command;

use tests::other_tools::{self, copy, fixtures, node_modules};
use tests::{Cluster, ProtectedRun, psql};

/// The folder in which the tool runs: with the packages beside the migrations.
fn project<'c>(cluster: &'c Cluster, files: &[(&str, &str)]) -> ProtectedRun<'c> {
    let run = ProtectedRun::on(cluster.fresh_database("real"));
    copy(&fixtures().join("foreign"), run.folder());
    std::os::unix::fs::symlink(node_modules(), run.folder().join("node_modules")).unwrap();
    for (name, text) in files {
        run.file(&format!("migrations/{name}"), text);
    }
    run
}

fn let_run(run: &ProtectedRun, mut command: Command) -> String {
    let database = &run.database;
    command
        .current_dir(run.folder())
        .env("DATABASE_URL", format!("{}&sslmode=disable", database.url()))
        .env("PGHOST", database.cluster().socket_dir())
        .env("PGPORT", database.cluster().port().to_string())
        .env("PGUSER", "postgres")
        .env("PGDATABASE", database.name());
    psql::succeed(command)
}

fn node_tool(name: &str, words: &[&str]) -> Command {
    let mut command = Command::new(node_modules().join(".bin").join(name));
    command.args(words);
    command
}

fn library(name: &str) -> Command {
    let mut command = Command::new("node");
    command.args(["migrate.mjs", name]);
    command
}

/// It applies its folder; we refuse to apply that, and its files are none that we could take over.
fn is_refused(run: &ProtectedRun, tool: Command, dir: &str, says: &[&str]) {
    let_run(run, tool);
    let before = run.fingerprint();
    let mut ended = run.run(&["--dir", dir]).exits(3).says("--ignore-history").says("was not changed");
    for text in says {
        ended = ended.says(text);
    }
    run.assert_unchanged(&before);
}

/// It applies its folder; we refuse to apply that again, take it over as told, and apply what comes later. Its own history stays, and
/// the tool has nothing to do by it.
fn is_not_applied_again(
    run: &ProtectedRun,
    tool: impl Fn() -> Command,
    name: &str,
    baseline: &str,
    later: (&str, &str),
) {
    let_run(run, tool());
    let before = run.fingerprint();
    run.run(&[]).exits(3).says(&format!("the history of {name}")).says(&format!("baseline {baseline}"));
    run.assert_unchanged(&before);
    run.run(&["--yes", "baseline", baseline]).exits(0);
    run.run(&["status"]).exits(0);
    let before = run.fingerprint();
    let_run(run, tool());
    before.assert_same(&run.fingerprint());
    run.file(&format!("migrations/{}", later.0), later.1);
    run.run(&[]).exits(0).verdict("COMMITTED").says("1 migration");
    assert_eq!(run.database.psql("SELECT count(*) FROM t; SELECT count(*) FROM later"), "1\n0");
}

const CREATE: &str = "CREATE TABLE t (i int);\nINSERT INTO t VALUES (1);\n";
const LATER: &str = "CREATE TABLE later ();\n";

#[test]
fn real_node_pg_migrate_is_not_applied_again() {
    let text = format!("-- Up Migration\n{CREATE}\n-- Down Migration\nDROP TABLE t;\n");
    let run = project(Cluster::shared(14), &[("1700000000000_t.sql", &text)]);
    let tool = || node_tool("node-pg-migrate", &["up", "-m", "migrations"]);
    let later = (
        "1700000000001_later.sql",
        "-- Up Migration\nCREATE TABLE later ();\n-- Down Migration\nDROP TABLE later;\n",
    );
    is_not_applied_again(&run, tool, "node-pg-migrate", "1700000000000", later);
}

#[test]
fn real_drizzle_is_not_applied_again() {
    let journal = r#"{"version": "7", "dialect": "postgresql", "entries": [
        {"idx": 0, "version": "7", "when": 1700000000000, "tag": "0000_init", "breakpoints": true}]}"#;
    let run = project(Cluster::shared(18), &[("0000_init.sql", CREATE), ("meta/_journal.json", journal)]);
    is_not_applied_again(&run, || library("drizzle"), "Drizzle", "0000", ("0001_later.sql", LATER));
}

#[test]
fn real_postgres_migrations_are_not_applied_again() {
    let run = project(Cluster::shared(18), &[("1_t.sql", CREATE)]);
    is_not_applied_again(
        &run,
        || library("postgres-migrations"),
        "postgres-migrations",
        "1",
        ("2_later.sql", LATER),
    );
}

#[test]
fn real_sequelize_is_not_applied_again() {
    let run = project(Cluster::shared(14), &[("20240101120000-t.sql", CREATE)]);
    is_not_applied_again(
        &run,
        || library("umzug"),
        "Sequelize",
        "20240101120000",
        ("20240102120000-later.sql", LATER),
    );
}

fn yoyo(run: &ProtectedRun) -> Command {
    let cluster = run.database.cluster();
    let (name, place, port) = (run.database.name(), cluster.socket_dir().display(), cluster.port());
    let url = format!("postgresql://postgres@/{name}?host={place}&port={port}");
    let program = "import sys; from yoyo.scripts.main import main; sys.exit(main())";
    let mut tool = Command::new("python3");
    tool.env("PYTHONPATH", other_tools::python()).env("PYTHONDONTWRITEBYTECODE", "1");
    tool.args(["-c", program, "apply", "--batch", "--no-config-file", "--database", &url, "migrations"]);
    tool
}

#[test]
fn real_yoyo_is_not_applied_again() {
    let run =
        project(Cluster::shared(14), &[("0001_t.sql", CREATE), ("0001_t.rollback.sql", "DROP TABLE t;\n")]);
    let tool = || yoyo(&run);
    is_not_applied_again(&run, tool, "yoyo", "0001", ("0002_later.sql", LATER));
}

#[test]
fn real_sqitch_is_not_applied_again() {
    let run = project(Cluster::shared(18), &[("0001_t.sql", &format!("BEGIN;\n{CREATE}COMMIT;\n"))]);
    run.file(
        "sqitch.plan",
        "%syntax-version=1.0.0\n%project=app\n\n0001_t 2026-01-02T03:04:05Z somebody <somebody@example.org> # a table\n",
    );
    run.file("sqitch.conf", "[core]\n\tengine = pg\n\tdeploy_dir = migrations\n");
    let target = format!("db:pg:{}", run.database.name());
    let tool = || {
        let mut tool = other_tools::sqitch();
        tool.args(["deploy", &target]);
        tool
    };
    is_not_applied_again(&run, tool, "Sqitch", "0001", ("0002_later.sql", LATER));
}

#[test]
fn real_knex_is_refused_although_its_files_are_no_sql() {
    let text = "exports.up = (knex) => knex.raw('CREATE TABLE t (i int)')\nexports.down = (knex) => knex.raw('DROP TABLE t')\n";
    let run = project(Cluster::shared(18), &[("20240101120000_t.js", text)]);
    run.file(
        "knexfile.js",
        "module.exports = { client: 'pg', connection: process.env.DATABASE_URL, migrations: { directory: 'migrations' } }\n",
    );
    let tool = node_tool("knex", &["migrate:latest"]);
    is_refused(
        &run,
        tool,
        "migrations",
        &["the history of Knex: 20240101120000_t.js", "npx knex migrate:latest"],
    );
}

const PLACE: &str = "host: process.env.PGHOST, port: Number(process.env.PGPORT), username: 'postgres', database: process.env.PGDATABASE";

#[test]
fn real_typeorm_is_refused_although_its_files_are_no_sql() {
    let text = "exports.Init1700000000000 = class {\n  name = 'Init1700000000000'\n  async up(q) { await q.query('CREATE TABLE t (i int)') }\n  \
                async down(q) { await q.query('DROP TABLE t') }\n}\n";
    let run = project(Cluster::shared(14), &[("1700000000000-Init.js", text)]);
    run.file(
        "datasource.js",
        &format!(
            "const {{ DataSource }} = require('typeorm')\nmodule.exports = new DataSource({{ type: 'postgres', {PLACE}, migrations: \
             ['migrations/*.js'] }})\n"
        ),
    );
    let tool = node_tool("typeorm", &["migration:run", "-d", "datasource.js"]);
    is_refused(
        &run,
        tool,
        "migrations",
        &["the history of TypeORM: 1700000000000-Init.js", "npx typeorm migration:run"],
    );
}

#[test]
fn real_sequelize_with_its_own_command_line_is_refused_although_its_files_are_no_sql() {
    let text = "module.exports = {\n  up: (q) => q.sequelize.query('CREATE TABLE t (i int)'),\n  down: (q) => q.dropTable('t'),\n}\n";
    let run = project(Cluster::shared(18), &[("20240101120000-t.js", text)]);
    run.file(
        "config/config.js",
        &format!("module.exports = {{ development: {{ dialect: 'postgres', {PLACE} }} }}\n"),
    );
    let tool = node_tool("sequelize-cli", &["db:migrate"]);
    is_refused(
        &run,
        tool,
        "migrations",
        &["the history of Sequelize: 20240101120000-t.js", "npx sequelize-cli db:migrate"],
    );
}

/// A Python tool of the fixtures beside a small shop, which its migrations change.
fn python_project<'c>(cluster: &'c Cluster, name: &str, words: &[&str]) -> (ProtectedRun<'c>, Command) {
    let run = ProtectedRun::shop_on(cluster);
    copy(&fixtures().join(name), &run.folder().join("project"));
    let mut tool = Command::new("python3");
    tool.args(words).env("PYTHONPATH", other_tools::python()).env("PYTHONDONTWRITEBYTECODE", "1");
    (run, tool)
}

#[test]
fn real_alembic_is_refused_by_the_revisions_that_its_files_say() {
    let words = ["-m", "alembic", "-c", "project/alembic.ini", "upgrade", "a1"];
    let (run, _) = python_project(Cluster::shared(18), "alembic", &words);
    // The driver stands in the scheme of the URL.
    let mut tool = Command::new("sh");
    tool.args(["-c", "DATABASE_URL=$(echo \"$DATABASE_URL\" | sed 's/^postgresql:/postgresql+psycopg:/') exec python3 \"$@\"", "sh"])
        .args(words)
        .env("PYTHONPATH", other_tools::python())
        .env("PYTHONDONTWRITEBYTECODE", "1");
    is_refused(
        &run,
        tool,
        "project/versions",
        &["the history of Alembic: a1_status.py", "`safe-run -- alembic upgrade head`"],
    );
}

#[test]
fn real_django_is_refused_although_its_files_are_no_sql() {
    let (run, tool) =
        python_project(Cluster::shared(14), "django", &["project/manage.py", "migrate", "shop", "0001"]);
    is_refused(
        &run,
        tool,
        "project/shop/migrations",
        &["the history of Django: 0001_coupons.py", "`safe-run -- python manage.py migrate`"],
    );
}

/// Each fence lets the tool's own driver through, by whatever way it reads its settings, and the tool finds its work done after it.
#[test]
fn real_knex_and_real_typeorm_and_real_sequelize_work_behind_each_fence() {
    let knex = "exports.up = (knex) => knex.raw('CREATE TABLE t (i int)')\nexports.down = (knex) => knex.raw('DROP TABLE t')\n";
    let typeorm = "exports.Init1700000000000 = class {\n  name = 'Init1700000000000'\n  async up(q) { await q.query('CREATE TABLE t (i int)') }\n}\n";
    let sequelize = "module.exports = { up: (q) => q.sequelize.query('CREATE TABLE t (i int)') }\n";
    let knexfile = "module.exports = { client: 'pg', connection: process.env.DATABASE_URL, migrations: { directory: 'migrations' } }\n";
    let source = format!(
        "const {{ DataSource }} = require('typeorm')\nmodule.exports = new DataSource({{ type: 'postgres', {PLACE}, migrations: ['migrations/*.js'] }})\n"
    );
    let config = format!("module.exports = {{ development: {{ dialect: 'postgres', {PLACE} }} }}\n");
    let tools: [(&str, &str, &str, &str, &[&str]); 3] = [
        ("20240101120000_t.js", knex, "knexfile.js", knexfile, &["knex", "migrate:latest"]),
        (
            "1700000000000-Init.js",
            typeorm,
            "datasource.js",
            &source,
            &["typeorm", "migration:run", "-d", "datasource.js"],
        ),
        ("20240101120000-t.js", sequelize, "config/config.js", &config, &["sequelize-cli", "db:migrate"]),
    ];
    for (file, text, settings, told, words) in tools {
        for (fence, major) in [("read-only", 18), ("exclusive", 14), ("none", 18)] {
            let run = project(Cluster::shared(major), &[(file, text)]);
            run.file(settings, told);
            let program = node_modules().join(".bin").join(words[0]).display().to_string();
            let command = [&["--fence", fence, "--", program.as_str()], &words[1..]].concat();
            // What the tool says comes first.
            run.run(&command).exits(0).says("COMMITTED  ");
            let before = run.fingerprint();
            let_run(&run, node_tool(words[0], &words[1..]));
            run.assert_unchanged(&before);
            assert_eq!(run.database.psql("SELECT count(*) FROM t"), "0");
            // It goes on by itself from what it recorded under protection.
            let (later, next) = (file.replacen("000", "001", 1), text.replace("17000000000", "17000000010"));
            run.file(
                &format!("migrations/{later}"),
                &next.replace("TABLE t", "TABLE later").replace("('t')", "('later')"),
            );
            let_run(&run, node_tool(words[0], &words[1..]));
            assert_eq!(run.database.psql("SELECT count(*) FROM later"), "0");
        }
    }
}

/// Under protection it applies its folder and records that itself; by itself it goes on from there.
fn goes_on_by_itself(run: &ProtectedRun, tool: &dyn Fn(&ProtectedRun) -> Command, later: &[(&str, &str)]) {
    let inner = tool(run);
    let words: Vec<String> = std::iter::once(inner.get_program())
        .chain(inner.get_args())
        .map(|word| word.to_str().expect("it is text").to_owned())
        .collect();
    let mut command = run.command(&["--"]);
    command.args(&words);
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    tests::Running::start(command).outcome().exits(0).says("COMMITTED  ");
    assert_eq!(run.database.psql("SELECT count(*) FROM t"), "1");
    for (name, text) in later {
        run.file(&format!("migrations/{name}"), text);
    }
    let_run(run, tool(run));
    assert_eq!(run.database.psql("SELECT count(*) FROM t; SELECT count(*) FROM later"), "1\n0");
}

#[test]
fn real_node_pg_migrate_and_real_drizzle_and_real_yoyo_go_on_from_what_they_did_under_protection() {
    let up = |sql: &str| format!("-- Up Migration\n{sql}\n-- Down Migration\nSELECT 1;\n");
    let run = project(Cluster::shared(18), &[("1700000000000_t.sql", &up(CREATE))]);
    let node_pg = |_: &ProtectedRun| node_tool("node-pg-migrate", &["up", "-m", "migrations"]);
    goes_on_by_itself(&run, &node_pg, &[("1700000000001_later.sql", &up(LATER))]);

    let first =
        r#"{"idx": 0, "version": "7", "when": 1700000000000, "tag": "0000_init", "breakpoints": true}"#;
    let second =
        r#"{"idx": 1, "version": "7", "when": 1700000000001, "tag": "0001_later", "breakpoints": true}"#;
    let journal =
        |entries: &str| format!(r#"{{"version": "7", "dialect": "postgresql", "entries": [{entries}]}}"#);
    let (one, two) = (journal(first), journal(&format!("{first}, {second}")));
    let run = project(Cluster::shared(14), &[("0000_init.sql", CREATE), ("meta/_journal.json", &one)]);
    let later = [("0001_later.sql", LATER), ("meta/_journal.json", &two)];
    goes_on_by_itself(&run, &|_: &ProtectedRun| library("drizzle"), &later);

    let run = project(Cluster::shared(18), &[("0001_t.sql", CREATE)]);
    goes_on_by_itself(&run, &yoyo, &[("0002_later.sql", LATER)]);
}
