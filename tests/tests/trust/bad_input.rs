//! Whatever is wrong with what a user gives, it ends with a clear message, a next step and the documented exit code, and
//! nothing is changed or left behind.

use std::path::{Path, PathBuf};
use std::process::Command;

use tests::oracle::fingerprint;
use tests::outcome::names_in;
use tests::{Cluster, Database, Options, Outcome, Snapshots, psql};

fn small<'c>(cluster: &'c Cluster, name: &str) -> Database<'c> {
    let database = cluster.fresh_database(name);
    database.psql(
        "CREATE TABLE t (i int PRIMARY KEY, t text); INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 2000) i;
         CREATE TABLE u (i int REFERENCES t); INSERT INTO u SELECT i FROM t",
    );
    database
}

/// A role of this test alone, dropped with the database's server or at the end.
fn role<'d>(database: &'d Database, options: &str) -> Role<'d> {
    let name = format!("{}_role", database.name());
    database.psql(&format!("CREATE ROLE {name} LOGIN {options}"));
    Role { database, name }
}

struct Role<'d> {
    database: &'d Database<'d>,
    name: String,
}

impl Role<'_> {
    fn url(&self) -> String {
        self.database.cluster().url_as(&self.name, self.database.name())
    }
}

impl Drop for Role<'_> {
    fn drop(&mut self) {
        let _ = self.database.try_psql(&format!("DROP OWNED BY {0}; DROP ROLE {0}", self.name));
    }
}

fn is_root() -> bool {
    Outcome::of(Command::new("id").arg("-u")).stdout.trim() == "0"
}

/// The command as a user without privileges: nobody when the tests run as root.
fn unprivileged(command: &Command) -> Command {
    if !is_root() {
        let mut same = Command::new(command.get_program());
        same.args(command.get_args());
        return same;
    }
    let mut other = Command::new("setpriv");
    other.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    other.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => other.env(name, value),
            None => other.env_remove(name),
        };
    }
    other.current_dir("/");
    other
}

#[test]
fn an_unreachable_server_is_busy_and_named() {
    let snapshots = Snapshots::new();
    let folder = tempfile::tempdir().unwrap();
    let url = format!("postgresql://postgres@/shop?host={}", folder.path().display());
    for (program, arguments) in [("backup", vec!["create"]), ("backup", vec!["check"])] {
        snapshots.run(program, &url, &arguments).fails(4, &[&folder.path().display().to_string()]);
    }
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("postgresql://postgres@127.0.0.1:{free}/shop");
    snapshots.run("backup", &url, &["create"]).fails(4, &["127.0.0.1", &free.to_string()]);
}

#[test]
fn a_wrong_password_and_a_missing_one_are_refused() {
    let cluster = Cluster::start(18, &Options::new().scram());
    cluster.psql("CREATE ROLE someone LOGIN PASSWORD 'right'");
    let snapshots = Snapshots::new();
    let create =
        |user: &str| snapshots.run("backup", &cluster.tcp_url(user, "127.0.0.1", "postgres"), &["create"]);
    let wrong = create("someone:wrong-one").fails(3, &["wrong password for user \"someone\"", "PGPASSWORD"]);
    assert!(!wrong.stderr.contains("wrong-one"));
    create("someone").fails(3, &["asks for the password of user \"someone\"", ".pgpass"]);
    assert!(snapshots.ids().is_empty());
}

#[test]
fn an_unknown_database_is_refused() {
    let snapshots = Snapshots::new();
    let url = Cluster::shared(18).url("no_such_database");
    snapshots
        .run("backup", &url, &["create"])
        .fails(3, &["database \"no_such_database\" does not exist", "psql -l", "was not changed"]);
}

#[test]
fn without_pg_dump_the_package_to_install_is_named() {
    let database = small(Cluster::shared(18), "nodump");
    let snapshots = Snapshots::new();
    let empty = tempfile::tempdir().unwrap();
    let mut command = snapshots.command("backup", &database.url(), &["create"]);
    Outcome::of(command.env("SAFE_RUN_PG_BIN", empty.path()))
        .fails(3, &["pg_dump is not installed", "postgresql-client-18", "SAFE_RUN_PG_BIN"]);
    assert!(snapshots.ids().is_empty() && snapshots.leftovers().is_empty());
    snapshots.create(&database, &[]);
    let mut command = snapshots.command("restore", &database.url(), &["latest"]);
    Outcome::of(command.env("SAFE_RUN_PG_BIN", empty.path())).fails(3, &["pg_restore is not installed"]);
    assert_eq!(database.family(), [database.name()]);
}

#[test]
fn a_pg_dump_older_than_the_server_is_refused() {
    let database = small(Cluster::shared(18), "olddump");
    let snapshots = Snapshots::new();
    // Whatever version the real ones have: these say that they are 15.
    let folder = tempfile::tempdir().unwrap();
    for name in ["pg_dump", "pg_restore"] {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\necho '{name} (PostgreSQL) 15.18'\n")).unwrap();
        Outcome::of(Command::new("chmod").arg("755").arg(&path)).expect(0);
    }
    let mut command = snapshots.command("backup", &database.url(), &["create"]);
    Outcome::of(command.env("SAFE_RUN_PG_BIN", folder.path()))
        .fails(3, &["pg_dump 15.18", "is older than the server's PostgreSQL 18", "postgresql-client-18"]);
    assert!(snapshots.ids().is_empty() && snapshots.leftovers().is_empty());
}

#[test]
fn a_repository_without_rights_is_named() {
    let database = small(Cluster::shared(18), "norights");
    let folder = tempfile::tempdir().unwrap();
    Outcome::of(Command::new("chmod").arg("755").arg(folder.path())).expect(0);
    let closed = folder.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    Outcome::of(Command::new("chmod").arg("555").arg(&closed)).expect(0);
    let program = runnable_by_all(folder.path(), "backup");
    let mut command = tests::binaries::command("backup");
    let mut command = with_program(&mut command, &program);
    command.args(["create", "-d", &database.url(), "--repo"]).arg(closed.join("repo"));
    let outcome = Outcome::of(&mut unprivileged(&command));
    outcome.fails(1, &["could not create the folder", "closed/repo", "ermission denied", "--repo"]);
    assert!(names_in(&closed).is_empty());
}

/// A copy that nobody may start too: the build folder may lie in root's home.
fn runnable_by_all(folder: &Path, name: &str) -> PathBuf {
    let copy = folder.join(name);
    std::fs::copy(tests::binaries::binary(name), &copy).unwrap();
    Outcome::of(Command::new("chmod").arg("755").arg(&copy)).expect(0);
    copy
}

/// The same command with another program.
fn with_program(command: &mut Command, program: &Path) -> Command {
    let mut other = Command::new(program);
    other.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => other.env(name, value),
            None => other.env_remove(name),
        };
    }
    other
}

#[test]
fn a_full_disk_fails_the_backup_and_leaves_nothing() {
    let database = small(Cluster::shared(18), "full");
    database.psql("INSERT INTO t SELECT i, repeat(md5(i::text), 20) FROM generate_series(2001, 12000) i");
    let snapshots = Snapshots::new();
    let command = snapshots.command("backup", &database.url(), &["create", "--compress", "none"]);
    let line: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|part| format!("'{}'", part.to_string_lossy()))
        .collect();
    // No file larger than 1 MiB may be written, and the signal that would say so is ignored: write() fails. That is the
    // same path through the program as a full disk, which needs root; the next test has one.
    let mut limited = Command::new("sh");
    limited.arg("-c").arg(format!("trap '' XFSZ; ulimit -f 2048; exec {}", line.join(" ")));
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    let outcome = Outcome::of(&mut limited).expect(1).says(&["error: could not write", "was not changed"]);
    assert!(outcome.stderr.contains("File too large"), "{}", outcome.stderr);
    assert!(snapshots.ids().is_empty() && snapshots.leftovers().is_empty());
    snapshots.run_offline("backup", &["list"]).expect(0).says(&["No snapshots in"]);
}

#[test]
fn a_full_file_system_is_said_with_what_to_do() {
    if !is_root() {
        // Only root can mount a small file system. The limit on a file's size, above, takes the same path.
        return;
    }
    let database = small(Cluster::shared(18), "tmpfs");
    database.psql("INSERT INTO t SELECT i, repeat(md5(i::text), 20) FROM generate_series(2001, 12000) i");
    let folder = tempfile::tempdir().unwrap();
    let mounted =
        Outcome::of(Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(folder.path()));
    if mounted.code != 0 {
        // Root in a container without the right to mount: as an ordinary user.
        assert!(mounted.stderr.contains("permi") || mounted.stderr.contains("denied"), "{}", mounted.stderr);
        return;
    }
    let repo = folder.path().join("repo");
    let run = |arguments: &[&str]| {
        let mut command = tests::binaries::command("backup");
        Outcome::of(command.args(arguments).args(["-d", &database.url(), "--repo"]).arg(&repo))
    };
    let outcome = run(&["create", "--compress", "none", "--skip-space-check"]);
    let (listed, left) = (run(&["list"]), names_in(&repo.join("partial")));
    Outcome::of(Command::new("umount").arg(folder.path())).expect(0);
    outcome.fails(1, &["No space left on device", "Free some space", "was not changed"]);
    listed.expect(0).says(&["No snapshots in"]);
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_folder_with_other_files_is_no_repository() {
    let database = small(Cluster::shared(18), "other");
    let snapshots = Snapshots::new();
    std::fs::create_dir(snapshots.path()).unwrap();
    std::fs::write(snapshots.path().join("thesis.tex"), "years of work").unwrap();
    snapshots
        .run("backup", &database.url(), &["create"])
        .fails(3, &["holds other files and is not a repository", "Name an empty or new folder"]);
    assert_eq!(names_in(&snapshots.path()), ["thesis.tex"]);
}

#[test]
fn unknown_and_ambiguous_snapshots_are_told_apart() {
    let database = small(Cluster::shared(18), "ids");
    let snapshots = Snapshots::new();
    for program in [&["restore", "latest"][..], &["backup", "list"], &["backup", "show", "latest"]] {
        snapshots.run(program[0], &database.url(), &program[1..]).fails(5, &["there is no repository at"]);
    }
    snapshots.create(&database, &[]);
    snapshots.create(&database, &[]);
    snapshots.run("restore", &database.url(), &["2001"]).fails(5, &["no snapshot \"2001\"", "backup list"]);
    snapshots
        .run("restore", &database.url(), &["2"])
        .fails(2, &["is the start of several ids", "more characters"]);
    snapshots.run("backup", &database.url(), &["show", "2"]).fails(2, &["is the start of several ids"]);
    snapshots.run("restore", &database.url(), &["latest:tag"]).expect(2);
    snapshots.run("restore", &database.url(), &["latest:a=b"]).fails(5, &["no such snapshot"]);
    // Without a terminal and without a name there is a list and nothing else.
    let outcome = snapshots.run("restore", &database.url(), &[]).expect(2);
    assert_eq!(outcome.stdout.lines().count(), 3, "{}", outcome.stdout);
    assert_eq!(database.family(), [database.name()]);
}

#[test]
fn the_exact_grants_that_are_missing_are_printed_and_are_enough() {
    let database = small(Cluster::shared(18), "grants");
    database.psql(
        "CREATE SCHEMA inner_schema; CREATE TABLE inner_schema.\"Odd \"\"name\" (i int); CREATE SEQUENCE inner_schema.s;
         SELECT lo_create(77)",
    );
    let role = role(&database, "");
    let snapshots = Snapshots::new();
    let refused = snapshots.run("backup", &role.url(), &["create"]);
    assert_ne!(refused.code, 0);
    refused.says(&["error: ", "hint: ", "permission denied for ", "`backup check`"]);
    assert!(snapshots.ids().is_empty() && snapshots.leftovers().is_empty());
    // What it prints is run until it is content.
    let checked = snapshots.run("backup", &role.url(), &["check"]).expect(3);
    assert!(checked.stdout.starts_with("NOT READY"), "{}", checked.stdout);
    let grants: Vec<&str> =
        checked.stdout.lines().map(str::trim).filter(|line| line.starts_with("GRANT ")).collect();
    assert!(grants.iter().any(|grant| grant.contains("\"Odd \"\"name\"")), "{grants:?}");
    database.psql(&grants.join("\n"));
    let checked = snapshots.run("backup", &role.url(), &["check"]).expect(0);
    assert!(checked.stdout.starts_with("READY"), "{}", checked.stdout);
    snapshots.run("backup", &role.url(), &["create"]).expect(0);
    let before = fingerprint(&database);
    let url = snapshots.restore_copy(&database, &[]);
    before.assert_same(&tests::oracle::fingerprint_without(&url, &[]));
}

#[test]
fn row_level_security_is_an_error_and_never_a_subset() {
    let database = small(Cluster::shared(18), "rls");
    let role = role(&database, "");
    database.psql(&format!(
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON t USING (i < 10);
         GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}",
        role.name
    ));
    let snapshots = Snapshots::new();
    snapshots.run("backup", &role.url(), &["create"]).fails(3, &["\"t\"", "row-level security", "BYPASSRLS"]);
    assert!(snapshots.ids().is_empty() && snapshots.leftovers().is_empty());
    let checked = snapshots.run("backup", &role.url(), &["check"]).expect(3);
    let fix = format!("ALTER ROLE \"{}\" BYPASSRLS;", role.name);
    assert!(checked.stdout.contains(&fix), "{}", checked.stdout);
    database.psql(&fix);
    snapshots.run("backup", &role.url(), &["check"]).expect(0);
    snapshots.run("backup", &role.url(), &["create"]).expect(0);
}

#[test]
fn a_lock_that_cannot_be_had_is_busy_and_names_its_holder() {
    let database = small(Cluster::shared(18), "locked");
    let mut session = database.session();
    session.run("SET application_name = 'the nightly job'; BEGIN; LOCK TABLE t");
    let pid = session.backend_pid();
    let snapshots = Snapshots::new();
    snapshots
        .run("backup", &database.url(), &["create", "--lock-timeout", "200ms", "--lock-retries", "1"])
        .fails(
            4,
            &[&format!("pid {pid}"), "user postgres", "application \"the nightly job\"", "--lock-timeout"],
        );
    assert!(snapshots.ids().is_empty() && snapshots.leftovers().is_empty());
    assert_eq!(session.run("SELECT 'not ended'"), "not ended");
}

#[test]
fn old_orphans_under_a_validated_foreign_key_do_not_make_a_snapshot_unrestorable() {
    let database = small(Cluster::shared(18), "orphans");
    database.psql("SET session_replication_role = replica; INSERT INTO u VALUES (-1)");
    let before = fingerprint(&database);
    let snapshots = Snapshots::new();
    snapshots.create(&database, &[]);
    let name = format!("{}copy", database.name());
    snapshots.run("restore", &database.url(), &["latest", "--into", &name]).expect(0).says(&[
        "warning: ",
        "u_i_fkey",
        "NOT VALID",
    ]);
    let url = database.cluster().url(&name);
    let after = tests::oracle::fingerprint_without(&url, &[]);
    let diff = before.diff(&after);
    assert!(diff.contains("NOT VALID") && diff.lines().count() <= 6, "{diff}");
    assert_eq!(psql::run(&url, "SELECT convalidated FROM pg_constraint WHERE conname = 'u_i_fkey'"), "f");
}

#[test]
fn orphans_are_said_when_the_snapshot_is_taken_if_somebody_asks() {
    for major in tests::cluster::ends() {
        let database = small(Cluster::shared(major), "asked");
        let snapshots = Snapshots::new();
        let asked = ["create", "--check-foreign-keys"];
        let sound = snapshots.run("backup", &database.url(), &asked).expect(0);
        assert!(!sound.stderr.contains("orphan"), "{}", sound.stderr);
        database.psql("SET session_replication_role = replica; INSERT INTO u VALUES (-1), (-2)");
        let says = "2 orphans of public.u in no row of public.t (foreign key u_i_fkey)";
        let told = snapshots.run("backup", &database.url(), &asked).expect(0);
        told.says(&["warning: ", says]);
        // And whoever restores it reads it before anything is made.
        let plan = snapshots.run("restore", &database.url(), &["latest", "--dry-run"]).expect(0);
        assert!(plan.stdout.contains(says), "{}", plan.stdout);
        let silent = snapshots.run("backup", &database.url(), &["create"]).expect(0);
        assert!(!silent.stderr.contains("orphan"), "{}", silent.stderr);
    }
}

#[test]
fn a_database_is_not_restored_over_another_nor_into_an_older_server() {
    let database = small(Cluster::shared(18), "over");
    let snapshots = Snapshots::new();
    snapshots.create(&database, &[]);
    let before = fingerprint(&database);
    snapshots
        .run("restore", &database.url(), &["latest", "--into", database.name()])
        .fails(3, &["exists already", "No database was changed."]);
    before.assert_same(&fingerprint(&database));
    let older = Cluster::shared(15);
    let id = snapshots.ids().remove(0);
    snapshots
        .run("restore", &older.url("postgres"), &[&id, "--into", database.name()])
        .fails(3, &["the snapshot is from PostgreSQL 18 and the server is PostgreSQL 15"]);
    assert_eq!(
        older.psql(&format!("SELECT count(*) FROM pg_database WHERE datname = '{}'", database.name())),
        "0"
    );
}
