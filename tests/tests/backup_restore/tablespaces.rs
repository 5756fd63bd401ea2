//! Tablespaces, and the room on their disks: what is missing is said before anything is made, with what to do; what is
//! mapped lies where it shall.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::oracle::{fingerprint, fingerprint_without};
use tests::{Cluster, Options, Outcome, Snapshots, psql};

/// Makes a folder the server's own.
fn give_to_server(cluster: &Cluster, folder: &Path) {
    let data = std::fs::metadata(cluster.data_dir()).expect("the data folder is there");
    std::os::unix::fs::chown(folder, Some(data.uid()), Some(data.gid()))
        .expect("we are root or the server's user");
}

/// Makes a tablespace in a folder of its own, beside the server's data.
fn make_tablespace(cluster: &Cluster, name: &str) {
    let folder = cluster.data_dir().parent().expect("it has one").join(format!("space {name}"));
    std::fs::create_dir(&folder).expect("the folder is writable");
    give_to_server(cluster, &folder);
    cluster.psql(&format!("CREATE TABLESPACE \"{name}\" LOCATION '{}'", folder.display()));
}

const PLACED: &str = r#"
CREATE TABLE plain (id int PRIMARY KEY, n int); INSERT INTO plain SELECT i, i FROM generate_series(1, 3000) i;
CREATE TABLE fast_table (id int PRIMARY KEY USING INDEX TABLESPACE "big", s text) TABLESPACE "fa st";
INSERT INTO fast_table SELECT i, repeat('x', i) FROM generate_series(1, 1000) i;
CREATE INDEX fast_index ON plain (n) TABLESPACE "fa st";
CREATE MATERIALIZED VIEW fast_view TABLESPACE "fa st" AS SELECT id, n FROM plain; CREATE UNIQUE INDEX ON fast_view (id) TABLESPACE big;
CREATE TABLE parts (i int, n int) PARTITION BY RANGE (i) TABLESPACE big;
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (100) TO (200) TABLESPACE "fa st";
CREATE INDEX parts_i ON parts (i) TABLESPACE big; INSERT INTO parts SELECT i, i FROM generate_series(1, 190) i;
"#;

const WHERE: &str = "SELECT string_agg(format('%s %s', c.relname, coalesce(t.spcname, '-')), ', ' ORDER BY c.relname)
    FROM pg_class c LEFT JOIN pg_tablespace t ON t.oid = c.reltablespace WHERE c.relnamespace = 'public'::regnamespace";

fn tablespaces_are_kept_mapped_or_left_out(major: u32) {
    let source = Cluster::start(major, &Options::new());
    make_tablespace(&source, "fa st");
    make_tablespace(&source, "big");
    source.psql("CREATE DATABASE app TEMPLATE template0 TABLESPACE \"fa st\"");
    psql::run(&source.url("app"), PLACED);
    // In a database of a tablespace, what lies in the default one is what is apart.
    psql::run(
        &source.url("app"),
        "CREATE TABLE apart (i int) TABLESPACE pg_default; INSERT INTO apart VALUES (1)",
    );
    let before = fingerprint_without(&source.url("app"), &[]);
    let places = psql::run(&source.url("app"), WHERE);
    let snapshots = Snapshots::new();
    let id = snapshots.run("backup", &source.url("app"), &["create"]).expect(0).stdout.trim().to_owned();

    // The same server has them: everything is where it was.
    snapshots.run("restore", &source.url("app"), &[&id, "--into", "copy"]).expect(0);
    before.assert_same(&fingerprint_without(&source.url("copy"), &[]));
    assert_eq!(psql::run(&source.url("copy"), WHERE), places);

    let target = Cluster::start(major, &Options::new());
    make_tablespace(&target, "elsewhere");
    let restore = |arguments: &[&str]| {
        snapshots.run("restore", &target.url("postgres"), &[&[id.as_str()], arguments].concat())
    };
    let databases = "SELECT array_agg(datname) FROM pg_database";
    let untouched = target.psql(databases);
    for dry in [&[][..], &["--dry-run"]] {
        restore(&[&["--into", "copy"], dry].concat()).fails(
            3,
            &[
                "no tablespace \"fa st\" for the database itself",
                "no tablespace \"big\" for index fast_table_pkey, index fast_view_id_idx, index parts_1_i_idx",
                "--map-tablespace",
                "--no-tablespaces",
            ],
        );
    }
    restore(&["--into", "copy", "--map-tablespace", "big=elsewhere"]).fails(3, &["no tablespace \"fa st\""]);
    restore(&["--into", "copy", "--no-tablespaces", "--map-tablespace", "big=elsewhere"]).expect(2);
    assert_eq!(target.psql(databases), untouched);

    let content = |print: &tests::Fingerprint| {
        print
            .parts("")
            .filter(|(key, _)| *key != "database")
            .map(|(k, v)| format!("{k} {v}"))
            .collect::<Vec<_>>()
    };
    restore(&["--into", "copy", "--map-tablespace", "big=elsewhere", "--map-tablespace", "fa st=pg_default"])
        .expect(0);
    let url = target.url("copy");
    let restored = fingerprint_without(&url, &[]);
    assert_eq!(content(&before), content(&restored));
    // What is in the database's own tablespace has no mark of its own.
    assert_eq!(
        psql::run(&url, WHERE),
        places.replace("big", "elsewhere").replace("pg_default", "-").replace("fa st", "-")
    );
    let statements = |print: &tests::Fingerprint| {
        let lines = print
            .schema()
            .lines()
            .filter(|line| !line.starts_with("--") && !line.starts_with("SET default_tablespace"));
        lines.filter(|line| !line.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(statements(&before), statements(&restored));

    restore(&["--into", "plain", "--no-tablespaces"]).expect(0);
    assert_eq!(content(&before), content(&fingerprint_without(&target.url("plain"), &[])));
    let elsewhere = "SELECT count(*) FROM pg_class WHERE reltablespace <> 0 AND oid >= 16384";
    assert_eq!(psql::run(&target.url("plain"), elsewhere), "0");

    // A tablespace that the role may not use.
    target.psql("CREATE ROLE plain LOGIN CREATEDB");
    snapshots
        .run(
            "restore",
            &target.url_as("plain", "postgres"),
            &[
                &id,
                "--into",
                "x",
                "--no-owner",
                "--map-tablespace",
                "big=elsewhere",
                "--map-tablespace",
                "fa st=elsewhere",
            ],
        )
        .fails(3, &["may not use the tablespace \"elsewhere\"", "GRANT CREATE ON TABLESPACE"]);
}

#[test]
fn tablespaces_are_kept_mapped_or_left_out_on_14() {
    tablespaces_are_kept_mapped_or_left_out(14);
}

#[test]
fn tablespaces_are_kept_mapped_or_left_out_on_18() {
    tablespaces_are_kept_mapped_or_left_out(18);
}

/// A small file system in memory, gone with the value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None where that is not allowed: as an ordinary user, or in a container.
    fn mount(size: &str) -> Option<SmallDisk> {
        let folder = tempfile::Builder::new().prefix("sr.disk.").tempdir_in("/tmp").unwrap().keep();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"]).arg(&folder);
        let outcome = Outcome::of(&mut mount);
        if outcome.code == 0 {
            return Some(SmallDisk(folder));
        }
        assert!(
            ["permi", "denied", "superuser"].iter().any(|word| outcome.stderr.contains(word)),
            "{}",
            outcome.stderr
        );
        std::fs::remove_dir(&folder).unwrap();
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Outcome::of(Command::new("umount").arg("--lazy").arg(&self.0));
        assert!(unmounted.code == 0 && std::fs::remove_dir(&self.0).is_ok(), "{}", unmounted.stderr);
    }
}

#[test]
fn a_server_with_too_little_room_is_refused_and_a_full_disk_leaves_nothing_behind() {
    let Some(disk) = SmallDisk::mount("24m") else { return };
    for major in tests::cluster::ends() {
        let cluster = Cluster::start(major, &Options::new());
        let place = disk.0.join(major.to_string());
        std::fs::create_dir(&place).unwrap();
        std::os::unix::fs::chown(&disk.0, Some(0), Some(0)).unwrap();
        give_to_server(&cluster, &place);
        cluster.psql(&format!("CREATE TABLESPACE small LOCATION '{}'", place.display()));
        cluster.psql("CREATE DATABASE app TEMPLATE template0");
        psql::run(
            &cluster.url("app"),
            "CREATE TABLE t (i int PRIMARY KEY, s text); ALTER TABLE t ALTER s SET STORAGE EXTERNAL;
             INSERT INTO t SELECT i, repeat(md5(i::text), 30) FROM generate_series(1, 30000) i",
        );
        let before = fingerprint_without(&cluster.url("app"), &[]);
        let snapshots = Snapshots::new();
        let url = cluster.url("app");
        let id = snapshots.run("backup", &url, &["create"]).expect(0).stdout.trim().to_owned();
        let databases = "SELECT string_agg(datname, ',' ORDER BY datname) FROM pg_database";
        let untouched = cluster.psql(databases);
        let target = [id.as_str(), "--into", "copy", "--map-tablespace", "pg_default=small"];
        let says = ["needs about", "free", "--skip-space-check", "No database was changed."];
        snapshots.run("restore", &url, &target).fails(3, &says);
        snapshots.run("restore", &url, &[&target[..], &["--dry-run"]].concat()).fails(3, &says);
        // All the same: the disk is full in the middle, and everything is as before.
        snapshots
            .run("restore", &url, &[&target[..], &["--skip-space-check"]].concat())
            .fails(1, &["Check free disk space", "No existing database was changed."]);
        assert_eq!(cluster.psql(databases), untouched);
        before.assert_same(&fingerprint_without(&url, &[]));
        // Where there is room, it is said.
        let planned = snapshots.run("restore", &url, &[&id, "--into", "copy", "--dry-run"]).expect(0);
        assert!(
            planned.stdout.contains("needs about") && planned.stdout.contains(" free"),
            "{}",
            planned.stdout
        );
    }
}

#[test]
fn a_repository_with_too_little_room_is_refused_before_a_byte_is_written() {
    let Some(disk) = SmallDisk::mount("2m") else { return };
    let database = Cluster::shared(18).fresh_database("room");
    database.psql(
        "CREATE TABLE t AS SELECT i, repeat(md5(i::text), 20) AS s FROM generate_series(1, 20000) i; ANALYZE",
    );
    let before = fingerprint(&database);
    let repo = disk.0.join("repo");
    let run = |arguments: &[&str]| {
        let mut command = tests::binaries::command("backup");
        Outcome::of(command.args(arguments).args(["-d", &database.url(), "--repo"]).arg(&repo))
    };
    run(&["create", "--compress", "none"])
        .fails(3, &["the snapshot will take about", "--skip-space-check", "was not changed"]);
    assert_eq!(tests::outcome::names_in(&repo.join("snapshots")), Vec::<String>::new());
    run(&["create", "--compress", "none", "--skip-space-check"]).fails(1, &["No space left on device"]);
    // Well compressed there is room, and the next one is estimated from that.
    run(&["create"]).expect(0);
    let checked = run(&["check"]).expect(0);
    assert!(checked.stdout.contains("a snapshot will take about"), "{}", checked.stdout);
    before.assert_same(&fingerprint(&database));
}
