//! The real alembic and the real Django under protection: what they did stands or is undone, they have nothing to do after it,
//! and they go on from there.

use std::path::PathBuf;

use tests::other_tools::{copy, fixtures, python};
use tests::{Cluster, Ended, ProtectedRun, Running, psql};

/// A Python project beside a small shop.
struct Project<'c> {
    run: ProtectedRun<'c>,
    /// The driver, as DATABASE_URL names it.
    driver: &'static str,
    /// The tool and its first words.
    tool: &'static [&'static str],
    flags: &'static [&'static str],
}

const ALEMBIC: [&str; 5] = ["python3", "-m", "alembic", "-c", "project/alembic.ini"];
const DJANGO: [&str; 2] = ["python3", "project/manage.py"];

impl<'c> Project<'c> {
    fn new(cluster: &'c Cluster, name: &str, tool: &'static [&'static str]) -> Project<'c> {
        let run = ProtectedRun::shop_on(cluster);
        copy(&fixtures().join(name), &run.folder().join("project"));
        Project { run, driver: "", tool, flags: &[] }
    }

    fn alembic(cluster: &'c Cluster, driver: &'static str, flags: &'static [&'static str]) -> Project<'c> {
        Project { driver, flags, ..Project::new(cluster, "alembic", &ALEMBIC) }
    }

    fn url(&self) -> String {
        self.run.database.url().replacen("postgresql:", &format!("postgresql{}:", self.driver), 1)
    }

    fn environment(&self, command: &mut std::process::Command) {
        command
            .env("DATABASE_URL", self.url())
            .env("PYTHONPATH", python())
            .env("PYTHONDONTWRITEBYTECODE", "1");
    }

    /// `safe-run FLAGS -- TOOL WORDS`, with one more variable.
    fn protected_with(&self, flags: &[&str], words: &[&str], variable: (&str, &str)) -> Ended {
        let mut command = self.run.command(&[self.flags, flags, &["--"], self.tool, words].concat());
        self.environment(&mut command);
        command.env(variable.0, variable.1);
        Running::start(command).outcome()
    }

    fn protected(&self, words: &[&str]) -> Ended {
        self.protected_with(&[], words, ("UNUSED", ""))
    }

    /// The tool by itself, as its user runs it: it has to succeed.
    fn alone(&self, words: &[&str]) -> String {
        let (program, first) = self.tool.split_first().expect("a tool has a name");
        let mut command = std::process::Command::new(program);
        command.args(first).args(words).current_dir(self.run.folder());
        self.environment(&mut command);
        let database = &self.run.database;
        let port = database.cluster().port().to_string();
        command.env("PGHOST", database.cluster().socket_dir()).env("PGPORT", port);
        command.env("PGUSER", "postgres").env("PGDATABASE", database.name());
        psql::succeed(command)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.run.folder().join("project").join(name)
    }

    /// Corrects a file, as its author would after the failure.
    fn correct(&self, name: &str, wrong: &str, right: &str) {
        let text = std::fs::read_to_string(self.file(name)).unwrap();
        assert!(text.contains(wrong), "{text}");
        std::fs::write(self.file(name), text.replace(wrong, right)).unwrap();
    }
}

/// Its first revision stands; of the next two one is committed when the other fails, and both are undone.
fn alembic_is_undone(project: &Project) {
    let run = &project.run;
    project
        .protected(&["upgrade", "a1"])
        .exits(0)
        .verdict("COMMITTED")
        .says("alembic_version: not there → a1 (1 row)");
    let before = run.fingerprint();
    project
        .protected(&["upgrade", "head"])
        .exits(12)
        .verdict("RESTORED")
        .says("could not create unique index")
        .says("alembic_version is back at a1 (1 row); the command had left it at b2 (1 row)");
    run.assert_unchanged(&before);
    assert!(project.alone(&["current"]).contains("a1"));
}

fn alembic_is_undone_and_goes_on(project: &Project) {
    alembic_is_undone(project);
    let run = &project.run;
    project.protected(&["upgrade", "a1"]).exits(0).says("alembic_version is unchanged at a1 (1 row)");
    project.correct("versions/c3_unique.py", "[\"user_id\"]", "[\"user_id\", \"id\"]");
    project.protected(&["upgrade", "head"]).exits(0).verdict("COMMITTED").says("a1 (1 row) → c3 (1 row)");
    let after = run.fingerprint();
    project.alone(&["upgrade", "head"]);
    project.alone(&["current", "--check-heads"]);
    run.assert_unchanged(&after);
    let done = "SELECT version_num FROM alembic_version; SELECT count(*) FILTER (WHERE status = 'old') FROM orders; SELECT count(*) FROM archive;
                SELECT indisvalid FROM pg_index WHERE indexrelid = 'orders_by_status'::regclass";
    assert_eq!(run.database.psql(done), "c3\n50\n0\nt");
    // It goes on by itself from there, and finds that done under protection.
    let later = "from alembic import op\nrevision = \"d4\"\ndown_revision = \"c3\"\n\ndef upgrade():\n    op.execute(\"CREATE TABLE later ()\")\n";
    std::fs::write(project.file("versions/d4_later.py"), later).unwrap();
    project.alone(&["upgrade", "head"]);
    assert_eq!(
        run.database.psql("SELECT version_num FROM alembic_version; SELECT count(*) FROM later"),
        "d4\n0"
    );
    project.protected(&["upgrade", "head"]).exits(0).says("alembic_version is unchanged at d4 (1 row)");
}

#[test]
fn real_alembic_with_psycopg_is_undone_and_goes_on() {
    alembic_is_undone_and_goes_on(&Project::alembic(Cluster::shared(14), "+psycopg", &[]));
}

#[test]
fn real_alembic_with_psycopg2_is_undone_by_a_clone_and_goes_on() {
    alembic_is_undone_and_goes_on(&Project::alembic(
        Cluster::shared(18),
        "+psycopg2",
        &["--snapshot", "clone"],
    ));
}

#[test]
fn real_alembic_with_asyncpg_is_undone() {
    alembic_is_undone(&Project::alembic(Cluster::shared(18), "+asyncpg", &[]));
}

#[test]
fn real_django_is_undone_and_goes_on() {
    let project = Project::new(Cluster::shared(18), "django", &DJANGO);
    let run = &project.run;
    project
        .protected(&["migrate", "shop", "0001"])
        .exits(0)
        .says("COMMITTED  ")
        .says("django_migrations: not there → shop.0001_coupons (1 row)");
    project.protected(&["migrate", "shop", "0001"]).exits(0).says("No migrations to apply");

    // 0002 is committed in pieces when 0003 fails in Python.
    let before = run.fingerprint();
    project
        .protected(&["migrate"])
        .exits(12)
        .says("RESTORED  ")
        .says("DoesNotExist")
        .says("django_migrations is back at shop.0001_coupons (1 row); the command had left it at shop.0002_codes (2 rows)")
        .never_says("--fence exclusive");
    run.assert_unchanged(&before);
    let state = project.alone(&["showmigrations", "--plan"]);
    assert!(state.contains("[X]  shop.0001_coupons") && state.contains("[ ]  shop.0002_codes"), "{state}");

    // Options of its own take the place of PGOPTIONS: the fence keeps it out, and that is said.
    let own = ("OWN_OPTIONS", "-c statement_timeout=60s");
    project
        .protected_with(&[], &["migrate"], own)
        .exits(12)
        .says("read-only transaction")
        .says("hint: Only if the server refused it as read-only")
        .says("--fence exclusive");
    run.assert_unchanged(&before);

    project.correct("shop/migrations/0003_backfill.py", "get(code=\"twenty\")", "get(code=\"five\")");
    project.protected_with(&["--fence", "exclusive"], &["migrate"], own).exits(0).says("COMMITTED  ");
    let after = run.fingerprint();
    project.alone(&["migrate", "--check"]);
    assert!(project.alone(&["migrate"]).contains("No migrations to apply"));
    run.assert_unchanged(&after);
    assert_eq!(run.database.psql("SELECT used FROM shop_coupon WHERE code = 'ten'"), "10");

    // It goes on by itself from there.
    let later = "from django.db import migrations\n\nclass Migration(migrations.Migration):\n    dependencies = [(\"shop\", \"0003_backfill\")]\n    \
                 operations = [migrations.RunSQL(\"CREATE TABLE later ()\")]\n";
    std::fs::write(project.file("shop/migrations/0004_later.py"), later).unwrap();
    assert!(project.alone(&["migrate"]).contains("shop.0004_later"));
    assert_eq!(run.database.psql("SELECT count(*) FROM later"), "0");
}
