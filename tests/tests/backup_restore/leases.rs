//! A snapshot that somebody reads can't be deleted under them, and who was killed reads no more. Real processes on both
//! sides: the locks are the operating system's.

use std::io::Read;
use std::process::{Child, Stdio};

use tests::{Cluster, Database, Snapshots, until};

/// A database whose rows take long to load, and which has more rows than a pipe holds.
fn slow_to_restore<'c>(cluster: &'c Cluster, name: &str) -> Database<'c> {
    let database = cluster.fresh_database(name);
    database.psql(
        "CREATE FUNCTION slow(int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RETURN true; END';
         CREATE TABLE t (i int CHECK (slow(i)), t text);
         INSERT INTO t SELECT i, repeat(md5(i::text), 10) FROM generate_series(1, 5000) i;
         CREATE OR REPLACE FUNCTION slow(int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.1); RETURN true; END'",
    );
    database
}

/// A reader in the middle of its work.
struct Reader {
    child: Child,
    name: &'static str,
}

impl Reader {
    fn start(snapshots: &Snapshots, database: &Database, name: &'static str, id: &str) -> Reader {
        let into = format!("{}_r", database.name());
        let (program, arguments) = match name {
            "restore" => ("restore", vec![id, "--into", &into]),
            "drill" => ("backup", vec!["drill", id]),
            _ => ("backup", vec![name, id, "-o", "-"]),
        };
        let mut command = snapshots.command(program, &database.url(), &arguments);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        if name == "export" {
            // It writes into a pipe that nobody empties.
            child.stdout.as_mut().unwrap().read_exact(&mut [0; 512]).unwrap();
        } else {
            let loading = format!(
                "SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE 'COPY%' AND datname LIKE '{}\\_%'",
                database.name()
            );
            until(&format!("{name} loads rows"), || database.cluster().psql(&loading) == "t");
        }
        assert!(child.try_wait().unwrap().is_none(), "{name} has ended too early");
        Reader { child, name }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn nobody_deletes_under_a_reader(name: &'static str) {
    let database = slow_to_restore(Cluster::shared(18), "lease");
    let snapshots = Snapshots::new();
    // Not compressed: more than a pipe holds.
    let id = snapshots.create(&database, &["--compress", "none"]);
    let newer = snapshots.create(&database, &["--compress", "none"]);
    let prune = ["prune", "--keep-last", "1", "--keep-min", "0"];
    let reader = Reader::start(&snapshots, &database, name, &id);
    for command in [&["delete", "-y", &id][..], &prune] {
        snapshots.run_offline("backup", command).fails(4, &["another process uses the repository"]);
    }
    let mut both = [id.as_str(), newer.as_str()];
    both.sort_unstable();
    assert_eq!(snapshots.ids(), both, "{}", reader.name);
    // Others read and write meanwhile.
    snapshots.run_offline("backup", &["verify", &id]).expect(0);
    let third = snapshots.create(&database, &[]);
    reader.kill();
    if name == "drill" {
        // Its restore lives on and still reads: the lock ends with the last of them.
        snapshots.run_offline("backup", &prune).fails(4, &["another process uses the repository"]);
        let end =
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname LIKE '$NAME\\_%'";
        database.cluster().psql(&end.replace("$NAME", database.name()));
    }
    until("the reader's lock is gone", || snapshots.run_offline("backup", &prune).code == 0);
    assert_eq!(snapshots.ids(), [third.as_str()]);
    assert!(snapshots.leftovers().is_empty(), "{:?}", snapshots.leftovers());
}

#[test]
fn a_snapshot_is_not_deleted_under_a_restore() {
    nobody_deletes_under_a_reader("restore");
}

#[test]
fn a_snapshot_is_not_deleted_under_an_export() {
    nobody_deletes_under_a_reader("export");
}

#[test]
fn a_snapshot_is_not_deleted_under_a_drill() {
    nobody_deletes_under_a_reader("drill");
}
