//! SQLite files as real frameworks write them go into the schema that the same framework makes on PostgreSQL, and come back
//! through the framework: every object is equal.

use std::os::unix::fs::symlink;
use std::process::Command;

use tests::other_tools::{copy, fixtures, node_modules, python};
use tests::{Cluster, ProtectedRun, psql};

struct Project {
    run: ProtectedRun<'static>,
    /// What runs its programs.
    language: &'static str,
}

impl Project {
    fn new(major: u32, language: &'static str) -> Project {
        let run = ProtectedRun::on(Cluster::shared(major).fresh_database("frameworks"));
        copy(&fixtures().join("frameworks"), &run.folder().join("project"));
        Project { run, language }
    }

    fn in_python(major: u32) -> Project {
        Project::new(major, "python3")
    }

    fn in_node(major: u32) -> Project {
        let project = Project::new(major, "node");
        symlink(node_modules(), project.run.folder().join("project/node_modules")).expect("it is ours");
        project
    }

    /// Runs a program of the project, on the SQLite file or on PostgreSQL.
    fn program(&self, on_sqlite: bool, words: &[&str]) -> String {
        let database = &self.run.database;
        let mut command = Command::new(self.language);
        command.args(words).current_dir(self.run.folder().join("project"));
        if self.language == "python3" {
            let path = std::env::join_paths([python(), self.run.folder().join("project")]).expect("no colon");
            command.env("PYTHONPATH", path).env("PYTHONDONTWRITEBYTECODE", "1");
        }
        if on_sqlite {
            command.env("DATABASE_URL", "sqlite:///../app.sqlite3").env("SQLITE", "../app.sqlite3");
        } else {
            let port = database.cluster().port().to_string();
            command.env("DATABASE_URL", database.url().replacen("postgresql:", "postgresql+psycopg:", 1));
            command.env("PGHOST", database.cluster().socket_dir()).env("PGPORT", port);
            command.env("PGUSER", "postgres").env("PGDATABASE", database.name());
        }
        psql::succeed(command)
    }

    /// The objects on both sides, as the framework reads them.
    fn assert_equal(&self, words: &[&str]) {
        let (source, target) = (self.program(true, words), self.program(false, words));
        assert!(source.lines().count() > 50, "{source}");
        for (one, other) in source.lines().zip(target.lines()) {
            assert_eq!(one, other);
        }
        assert_eq!(source.lines().count(), target.lines().count());
    }
}

fn sqlalchemy(major: u32) {
    let project = Project::in_python(major);
    let alembic = ["-m", "alembic", "-c", "alembic.ini", "upgrade", "head"];
    project.program(true, &alembic);
    project.program(true, &["models.py", "fill"]);
    project.program(false, &alembic);
    // Local times without a zone are no guess of ours.
    let before = project.run.fingerprint();
    project.run.run(&["import", "app.sqlite3"]).exits(10).says("zone-missing").says("--timezone");
    project.run.assert_unchanged(&before);
    project
        .run
        .run(&["import", "sqlite+aiosqlite:///app.sqlite3", "--timezone", "UTC"])
        .exits(0)
        .verdict("COMMITTED")
        .says("not imported: alembic_version: the history of Alembic");
    project.assert_equal(&["models.py", "dump"]);
    assert_eq!(project.program(false, &["models.py", "add"]).trim(), "204");
    project.program(false, &alembic);
}

#[test]
fn real_alembic_and_sqlalchemy_read_every_object_equal_on_postgresql_14() {
    sqlalchemy(14);
}

#[test]
fn real_alembic_and_sqlalchemy_read_every_object_equal_on_postgresql_18() {
    sqlalchemy(18);
}

fn django(major: u32) {
    let project = Project::in_python(major);
    for on_sqlite in [true, false] {
        project.program(on_sqlite, &["django_main.py", "migrate"]);
    }
    project.program(true, &["django_main.py", "fill"]);
    // The migrations have written rows on PostgreSQL too: replacing them is a decision, and the refusal has its words.
    let before = project.run.fingerprint();
    let refused =
        project.run.run(&["import", "app.sqlite3", "--timezone", "UTC"]).exits(3).says("auth_permission (");
    let hint = refused.stderr.lines().find(|line| line.starts_with("hint: ")).expect("a hint").to_owned();
    project.run.assert_unchanged(&before);
    let flags =
        hint.split("--force-recreate ").nth(1).and_then(|rest| rest.split(". ").next()).expect("the flags");
    let words: Vec<&str> = flags.split(' ').collect();
    let import =
        [&["import", "app.sqlite3", "--timezone", "UTC", "--force-recreate"], words.as_slice()].concat();
    project
        .run
        .run(&import)
        .exits(0)
        .verdict("COMMITTED")
        .says("not imported: django_migrations: the history of Django");
    project.assert_equal(&["django_main.py", "dump"]);
    assert_eq!(project.program(false, &["django_main.py", "add"]).trim(), "103");
    project.program(false, &["django_main.py", "migrate"]);
}

#[test]
fn real_django_reads_every_object_equal_on_postgresql_14() {
    django(14);
}

#[test]
fn real_django_reads_every_object_equal_on_postgresql_18() {
    django(18);
}

/// The unit of a number that is a date is not in the file, nor the zone of what SQLite's clock wrote: dates before 1980 leave open
/// what the numbers are.
fn knex(major: u32) {
    let project = Project::in_node(major);
    for on_sqlite in [true, false] {
        project.program(on_sqlite, &["knex_main.mjs", "migrate"]);
    }
    project.program(true, &["knex_main.mjs", "fill"]);
    let before = project.run.fingerprint();
    project
        .run
        .run(&["import", "app.sqlite3"])
        .exits(10)
        .says("things.seen (59, epoch-unit)")
        .says("things.made (1, zone-missing)")
        .says("--epoch TABLE.COLUMN=seconds (or milliseconds")
        .says("--timezone");
    project.run.assert_unchanged(&before);
    project
        .run
        .run(&["import", "app.sqlite3", "--timezone", "UTC", "--epoch", "things.seen=milliseconds"])
        .exits(0)
        .verdict("COMMITTED")
        .says("not imported: knex_migrations: the history of Knex")
        .says("not imported: knex_migrations_lock");
    project.assert_equal(&["knex_main.mjs", "dump"]);
    // SQLite lost it: Knex declares a decimal as float there, which keeps 15 to 17 digits. It was 123456789012345678.91.
    assert_eq!(
        project.run.database.psql("SELECT total FROM things WHERE label = 'all'"),
        "123456789012345680.00"
    );
    assert_eq!(project.program(false, &["knex_main.mjs", "add"]).trim(), "61 61");
    project.program(false, &["knex_main.mjs", "migrate"]);
}

#[test]
fn real_knex_reads_every_object_equal_on_postgresql_14() {
    knex(14);
}

#[test]
fn real_knex_reads_every_object_equal_on_postgresql_18() {
    knex(18);
}

/// Its `jsonb` is SQLite's own binary JSON in the file.
fn typeorm(major: u32) {
    let project = Project::in_node(major);
    for on_sqlite in [true, false] {
        assert_eq!(project.program(on_sqlite, &["typeorm_main.mjs", "migrate"]).trim(), "1 true");
    }
    project.program(true, &["typeorm_main.mjs", "fill"]);
    let before = project.run.fingerprint();
    project
        .run
        .run(&["import", "app.sqlite3"])
        .exits(10)
        .says("things.made (1, zone-missing), things.seen (59, zone-missing)")
        .says("--timezone");
    project.run.assert_unchanged(&before);
    project
        .run
        .run(&["import", "app.sqlite3", "--timezone", "UTC"])
        .exits(0)
        .verdict("COMMITTED")
        .says("not imported: migrations: the history of TypeORM");
    project.assert_equal(&["typeorm_main.mjs", "dump"]);
    // TypeORM reads a bigint of SQLite as a double: what is equal there is equal in all digits here.
    assert_eq!(
        project.run.database.psql("SELECT big FROM things WHERE id IN (1, 3, 60) ORDER BY id"),
        "9223372036854775807\n-9223372036854775808\n539999999999999997"
    );
    assert_eq!(
        project.run.database.psql("SELECT count(DISTINCT jsonb_typeof(doc)) FROM things"),
        "4",
        "objects, arrays, numbers and texts"
    );
    assert_eq!(project.program(false, &["typeorm_main.mjs", "add"]).trim(), "61");
    assert_eq!(project.program(false, &["typeorm_main.mjs", "migrate"]).trim(), "0 false", "nothing to do");
}

#[test]
fn real_typeorm_reads_every_object_equal_on_postgresql_14() {
    typeorm(14);
}

#[test]
fn real_typeorm_reads_every_object_equal_on_postgresql_18() {
    typeorm(18);
}

/// Its dates say their offset, and everything is decided without a flag.
fn prisma(major: u32) {
    let project = Project::in_node(major);
    let folder = project.run.folder().join("project");
    std::fs::copy(fixtures().join("prisma/engine"), folder.join("engine")).expect("it is ours");
    std::thread::scope(|scope| {
        scope.spawn(|| project.program(true, &["prisma_main.mjs", "migrate"]));
        project.program(false, &["prisma_main.mjs", "migrate"]);
    });
    project.program(true, &["prisma_main.mjs", "fill"]);
    let history =
        || project.run.database.psql("SELECT id, migration_name, finished_at FROM _prisma_migrations");
    let before = history();
    assert!(before.contains("1_things"), "{before}");
    project
        .run
        .run(&["import", "app.sqlite3"])
        .exits(0)
        .verdict("COMMITTED")
        .says("not imported: _prisma_migrations: the history of Prisma");
    project.assert_equal(&["prisma_main.mjs", "dump"]);
    // SQLite lost it: Prisma declares DECIMAL there, which keeps 15 to 17 digits. It was 123456789012345678.91.
    assert_eq!(
        project.run.database.psql("SELECT trim_scale(total) FROM \"Thing\" WHERE label = 'all'"),
        "123456789012345680"
    );
    assert_eq!(project.program(false, &["prisma_main.mjs", "add"]).trim(), "61 61");
    assert_eq!(history(), before);
}

#[test]
fn real_prisma_reads_every_object_equal_on_postgresql_14() {
    prisma(14);
}

#[test]
fn real_prisma_reads_every_object_equal_on_postgresql_18() {
    prisma(18);
}
