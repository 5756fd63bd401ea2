//! A real PgBouncer in between: where it shares server sessions between clients everything is refused, naming the way
//! out; where a client keeps its session, everything works.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tests::oracle::{fingerprint, fingerprint_without};
use tests::{Cluster, Database, Options, Outcome, Snapshots, until};

/// A PgBouncer in front of a server; it ends with the value.
struct Pooler {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Pooler {
    fn start(cluster: &Cluster, mode: &str) -> Pooler {
        Pooler::start_with(cluster, mode, "ignore_startup_parameters = options\n")
    }

    fn start_with(cluster: &Cluster, mode: &str, more: &str) -> Pooler {
        // /tmp and not TMPDIR: the server's user has to reach it.
        let folder = tests::cluster::short_folder("sr.pool.");
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let file = folder.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host={} port={} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = any\npool_mode = {mode}\ndefault_pool_size = 40\n{more}",
            cluster.socket_dir().display(),
            cluster.port()
        );
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(program());
        command.arg("-q").arg(&file);
        if Outcome::of(Command::new("id").arg("-u")).stdout.trim() == "0" {
            // It refuses to run as root, and changes to this user by itself.
            command.args(["-u", "nobody"]);
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let pooler = Pooler { child, port, folder };
        until("PgBouncer listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        pooler
    }

    fn url(&self, database: &str) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/{database}", self.port)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = self.folder.path();
    }
}

/// PgBouncer's program. A missing one is a failure, as a missing server is.
fn program() -> PathBuf {
    let mut folders: Vec<PathBuf> =
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    // Not on the PATH of an ordinary user.
    folders.extend(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    folders.iter().map(|folder| folder.join("pgbouncer")).find(|path| path.is_file()).unwrap_or_else(|| {
        panic!(
            "no pgbouncer: `scripts/setup` installs it as root with apt; otherwise install your system's package \
             pgbouncer"
        )
    })
}

/// A server of this test alone: a pooler keeps sessions open, in which no other test's database may be.
fn server() -> Cluster {
    Cluster::start(18, &Options::new())
}

fn small(cluster: &Cluster) -> Database<'_> {
    let database = cluster.fresh_database("pooled");
    database.psql(
        "CREATE TABLE t (i int PRIMARY KEY, t text); INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 2000) i;
         CREATE TABLE u (i int REFERENCES t); INSERT INTO u SELECT i FROM t; SELECT lo_create(5)",
    );
    database
}

/// `safe-run` in an empty folder with one migration and `arguments`.
fn safe_run(url: &str, arguments: &[&str]) -> (Outcome, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("migrations")).unwrap();
    std::fs::write(folder.path().join("migrations/1_x.sql"), "CREATE TABLE x ()").unwrap();
    let mut command = tests::binaries::command("safe-run");
    command.args(arguments).current_dir(folder.path()).env("DATABASE_URL", url);
    let outcome = Outcome::of(&mut command);
    (outcome, tests::outcome::names_in(folder.path()))
}

fn is_refused(mode: &str) {
    let cluster = server();
    let database = small(&cluster);
    let snapshots = Snapshots::new();
    let id = snapshots.create(&database, &[]);
    let before = fingerprint(&database);
    let pooler = Pooler::start(&cluster, mode);
    let url = pooler.url(database.name());

    let says = ["connection pooler", "direct URL", "5432"];
    snapshots.run("backup", &url, &["create"]).fails(3, &says);
    let checked = snapshots.run("backup", &url, &["check"]);
    assert_eq!(checked.code, 3, "{checked:?}");
    assert!(checked.stdout.contains("direct URL") || checked.stderr.contains("direct URL"), "{checked:?}");
    for target in [&["latest", "--into", "elsewhere"][..], &["latest"], &["latest", "--replace", "--yes"]] {
        snapshots.run("restore", &url, target).fails(3, &says);
    }
    for arguments in [&[][..], &["--", "touch", "was-run"]] {
        let (outcome, files) = safe_run(&url, arguments);
        outcome.fails(3, &says);
        assert_eq!(files, ["migrations"], "nothing is made and no command is run");
    }

    drop(pooler);
    assert_eq!(snapshots.ids(), [id]);
    assert!(snapshots.leftovers().is_empty());
    assert_eq!(database.family(), [database.name()]);
    assert_eq!(cluster.psql("SELECT count(*) FROM pg_database WHERE datname = 'elsewhere'"), "0");
    before.assert_same(&fingerprint(&database));
}

#[test]
fn transaction_pooling_is_refused_by_every_program() {
    is_refused("transaction");
}

#[test]
fn statement_pooling_is_refused_by_every_program() {
    is_refused("statement");
}

#[test]
fn session_pooling_takes_a_backup_and_restores_it() {
    let cluster = server();
    let database = small(&cluster);
    let before = fingerprint(&database);
    let snapshots = Snapshots::new();
    let pooler = Pooler::start(&cluster, "session");
    let url = pooler.url(database.name());
    snapshots.run("backup", &url, &["check"]).expect(0);
    snapshots.run("backup", &url, &["create", "--jobs", "3"]).expect(0);
    let copy = format!("{}copy", database.name());
    snapshots.run("restore", &url, &["latest", "--into", &copy]).expect(0);
    before.assert_same(&fingerprint_without(&cluster.url(&copy), &[]));
    before.assert_same(&fingerprint(&database));

    // It drops the options without a word: no command gets through the read-only fence.
    let (outcome, files) = safe_run(&url, &["--", "touch", "was-run"]);
    outcome.fails(3, &["takes no startup options", "--fence exclusive", "was not changed"]);
    assert_eq!(files, ["migrations"]);
    // And it hands a session on that has had another client: what the command did there is seen, checked and undone.
    for fence in ["exclusive", "none"] {
        let make = format!("CREATE TABLE {fence}_made ()");
        drop(safe_run(&url, &["--fence", fence, "--", "psql", "-Xqc", &make]).0.expect(0));
    }
    let before = fingerprint(&database);
    for snapshot in ["file", "clone"] {
        let wreck = ["psql", "-Xqv", "ON_ERROR_STOP=1", "-c", "DROP TABLE u", "-c", "SELECT 1/0"];
        let flags = ["--fence", "exclusive", "--snapshot", snapshot, "--"];
        let (outcome, _) = safe_run(&url, &[&flags[..], &wreck].concat());
        assert!(outcome.expect(12).stdout.starts_with("RESTORED"));
        before.assert_same(&fingerprint(&database));
    }
    drop(pooler);
}

/// As PgBouncer is by itself: a connection with `options` is refused, which PostgreSQL's programs are given elsewhere.
#[test]
fn a_session_pooler_that_takes_no_options_works_or_is_refused_before_anything_runs() {
    let cluster = server();
    let database = small(&cluster);
    let before = fingerprint(&database);
    let snapshots = Snapshots::new();
    let pooler = Pooler::start_with(&cluster, "session", "");
    let url = pooler.url(database.name());
    snapshots.run("backup", &url, &["check"]).expect(0);
    snapshots.run("backup", &url, &["create", "--jobs", "3"]).expect(0);
    let copy = format!("{}copy", database.name());
    snapshots.run("restore", &url, &["latest", "--into", &copy]).expect(0);
    snapshots
        .run("restore", &url, &["latest", "--table", "u", "--replace", "--drop-replaced", "--yes"])
        .expect(0);
    before.assert_same(&fingerprint_without(&cluster.url(&copy), &[]));
    before.assert_same(&fingerprint(&database));

    // A command gets through the read-only fence by an option.
    for snapshot in ["file", "clone"] {
        let (outcome, files) = safe_run(&url, &["--snapshot", snapshot, "--", "touch", "was-run"]);
        outcome.fails(3, &["takes no startup options", "--fence exclusive", "was not changed"]);
        assert_eq!(files, ["migrations"], "nothing is made and no command is run");
    }
    before.assert_same(&fingerprint(&database));
    for fence in ["exclusive", "none"] {
        let change = format!("UPDATE t SET t = '{fence}' WHERE i = 1");
        let (outcome, _) = safe_run(&url, &["--fence", fence, "--", "psql", "-X", "-c", &change]);
        drop(outcome.expect(0));
        assert_eq!(database.psql("SELECT t FROM t WHERE i = 1"), fence);
    }
    let (outcome, _) = safe_run(
        &url,
        &["--fence", "exclusive", "--snapshot", "clone", "--", "psql", "-X", "-c", "SELECT 1"],
    );
    drop(outcome.expect(0));
    for arguments in [&[][..], &["--fence", "read-only", "--snapshot", "clone"]] {
        let (outcome, _) = safe_run(&url, arguments);
        drop(outcome.expect(0));
        // The migration ran: its table is there.
        database.psql("DROP TABLE x; DROP SCHEMA safe_run CASCADE");
    }

    // What the programs would have to be told, and can't be.
    database.psql(&format!("ALTER DATABASE \"{}\" SET quote_all_identifiers = on", database.name()));
    drop(pooler);
    let pooler = Pooler::start_with(&cluster, "session", "");
    let url = pooler.url(database.name());
    snapshots.run("backup", &url, &["create"]).fails(3, &["quote_all_identifiers is on", "direct URL"]);
    drop(pooler);
}

/// PgBouncer lets a client wait for a session of the server, by itself for two minutes.
#[test]
fn a_session_pooler_with_a_small_pool_is_named_before_anything_begins() {
    let cluster = server();
    let database = small(&cluster);
    let snapshots = Snapshots::new();
    let direct = snapshots.create(&database, &[]);
    let before = fingerprint(&database);
    let pooler = Pooler::start_with(
        &cluster,
        "session",
        "ignore_startup_parameters = options\nmax_db_connections = 3\n",
    );
    let url = pooler.url(database.name());
    let says = ["a connection pooler", "gives no more", "max_db_connections", "changed"];
    drop(snapshots.run("backup", &url, &["create"]).fails(4, &says));
    let (outcome, files) = safe_run(&url, &["--fence", "exclusive", "--", "touch", "was-run"]);
    drop(outcome.fails(4, &says));
    assert!(!files.iter().any(|file| file == "was-run"), "the command was run: {files:?}");
    assert_eq!(snapshots.ids(), [direct]);
    assert!(snapshots.leftovers().is_empty());
    drop(pooler);
    before.assert_same(&fingerprint(&database));
    // With room for one job, one does it.
    let pooler = Pooler::start_with(
        &cluster,
        "session",
        "ignore_startup_parameters = options\nmax_db_connections = 5\n",
    );
    let url = pooler.url(database.name());
    drop(snapshots.run("backup", &url, &["create", "--jobs", "4"]).expect(0).says(&["of 4 jobs"]));
    drop(pooler);
    before.assert_same(&fingerprint(&database));
}
