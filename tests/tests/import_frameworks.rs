//! SQLite files as real frameworks write them go into the schema that the same framework makes on PostgreSQL, and come back
//! through the framework: every object is equal.

use std::process::Command;

use tests::other_tools::{copy, fixtures, python};
use tests::{Cluster, ProtectedRun, psql};

struct Project {
    run: ProtectedRun<'static>,
}

impl Project {
    fn new(major: u32) -> Project {
        let run = ProtectedRun::on(Cluster::shared(major).fresh_database("frameworks"));
        copy(&fixtures().join("frameworks"), &run.folder().join("project"));
        Project { run }
    }

    /// Runs Python in the project, on the SQLite file or on PostgreSQL.
    fn python(&self, on_sqlite: bool, words: &[&str]) -> String {
        let database = &self.run.database;
        let mut command = Command::new("python3");
        command.args(words).current_dir(self.run.folder().join("project"));
        let path = std::env::join_paths([python(), self.run.folder().join("project")]).expect("no colon");
        command.env("PYTHONPATH", path).env("PYTHONDONTWRITEBYTECODE", "1");
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
        let (source, target) = (self.python(true, words), self.python(false, words));
        assert!(source.lines().count() > 50, "{source}");
        for (one, other) in source.lines().zip(target.lines()) {
            assert_eq!(one, other);
        }
        assert_eq!(source.lines().count(), target.lines().count());
    }
}

fn sqlalchemy(major: u32) {
    let project = Project::new(major);
    let alembic = ["-m", "alembic", "-c", "alembic.ini", "upgrade", "head"];
    project.python(true, &alembic);
    project.python(true, &["models.py", "fill"]);
    project.python(false, &alembic);
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
    assert_eq!(project.python(false, &["models.py", "add"]).trim(), "204");
    project.python(false, &alembic);
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
    let project = Project::new(major);
    for on_sqlite in [true, false] {
        project.python(on_sqlite, &["django_main.py", "migrate"]);
    }
    project.python(true, &["django_main.py", "fill"]);
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
    assert_eq!(project.python(false, &["django_main.py", "add"]).trim(), "103");
    project.python(false, &["django_main.py", "migrate"]);
}

#[test]
fn real_django_reads_every_object_equal_on_postgresql_14() {
    django(14);
}

#[test]
fn real_django_reads_every_object_equal_on_postgresql_18() {
    django(18);
}
