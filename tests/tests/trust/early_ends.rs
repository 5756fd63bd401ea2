//! Whatever ends early says in what state the database is.

use std::path::Path;

use tests::{Cluster, Outcome, Snapshots};

const STATES: [&str; 5] = [
    "was not changed.",
    "No database was changed",
    "Nothing was changed",
    "No existing database was changed.",
    "no other database was changed.",
];

/// The last lines are message, hint and state; in JSON the state is `database`.
#[track_caller]
fn says_the_state(outcome: &Outcome, what: &str) {
    assert!((1..=6).contains(&outcome.code), "{what}: {outcome:?}");
    assert!(
        STATES.iter().any(|state| outcome.stderr.contains(state)),
        "{what}: no word on the database\n{}",
        outcome.stderr
    );
}

fn damage(folder: &Path) {
    let chunks = folder.join("data");
    let chunk = std::fs::read_dir(&chunks).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&chunk).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&chunk, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(&chunk, bytes).unwrap();
}

#[test]
fn every_early_end_says_that_the_database_was_not_changed() {
    let cluster = Cluster::shared(18);
    let database = cluster.fresh_database("early");
    database.psql("CREATE TABLE t (i int PRIMARY KEY); INSERT INTO t VALUES (1)");
    let snapshots = Snapshots::new();
    let id = snapshots.create(&database, &[]);
    let (url, gone) = (database.url(), cluster.url("early_nowhere"));
    let nobody = cluster.url_as("early_nobody", database.name());
    let nothing_listens = "postgresql://postgres@127.0.0.1:1/x";
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    drop(at("good/1_a.sql", "CREATE TABLE a ();"));
    drop(at("bad/1_a.sql", "CREATE TABLE a ();\n-- ROLLBACK\nDROP TABLE a;"));
    let (good, bad) = (folder.path().join("good"), folder.path().join("bad"));
    let (good, bad) = (good.to_str().unwrap(), bad.to_str().unwrap());
    let no_sqlite = at("no.sqlite3", "this is no database");
    let live = database.name();

    for arguments in [
        &["nosuch"][..],
        &[&id, "--into", live],
        &[&id, "--into", "postgresql://x/y"],
        &[&id, "--table", "nosuch"],
        &[&id, "--replace"],
        &[&id, "--table", "t", "--replace"],
        &["nosuch.tar"],
    ] {
        says_the_state(&snapshots.run("restore", &url, arguments), &format!("restore {arguments:?}"));
    }
    for url in [&*nobody, nothing_listens, "postgresql://x:y:z@/"] {
        says_the_state(&snapshots.run("restore", url, &[&id]), &format!("restore at {url}"));
        says_the_state(&snapshots.run("backup", url, &["drill", &id]), &format!("drill at {url}"));
        says_the_state(&snapshots.run("backup", url, &["create"]), &format!("create at {url}"));
        says_the_state(&snapshots.run("safe-run", url, &["--dir", good]), &format!("safe-run at {url}"));
    }
    says_the_state(&snapshots.run("backup", &gone, &["create"]), "create of no database");
    says_the_state(&snapshots.run("backup", &url, &["drill", "nosuch"]), "drill of nothing");
    for arguments in [
        &["--dir", "nosuch"][..],
        &["--dir", bad],
        &["--dir", good, "--format", "goose"],
        &["--dir", good, "--to", "77"],
        &["--dir", good, "--snapshot", "none", "--fence", "read-only"],
        &["import", &no_sqlite],
        &["import", "nosuch.sqlite3"],
        &["--verify", "nosuch", "--dir", good],
    ] {
        says_the_state(&snapshots.run("safe-run", &url, arguments), &format!("safe-run {arguments:?}"));
    }
    for url in [&*gone, &*nobody, nothing_listens] {
        let mut command = tests::binaries::command("safe-run");
        command.args(["--", "true"]).current_dir(folder.path()).env("DATABASE_URL", url);
        says_the_state(&Outcome::of(&mut command), &format!("a command at {url}"));
    }
    let mut command = tests::binaries::command("safe-run");
    command.args(["--", "nosuchcommand"]).current_dir(folder.path()).env("DATABASE_URL", &url);
    says_the_state(&Outcome::of(&mut command), "a command that is not there");

    damage(&snapshots.folder_of(&id));
    for arguments in [
        &["latest"][..],
        &["latest", "--replace", "--yes"],
        &["latest", "--table", "t"],
        &["latest", "--table", "t", "--into", "early_part"],
    ] {
        says_the_state(
            &snapshots.run("restore", &url, arguments).expect(6),
            &format!("damaged: {arguments:?}"),
        );
    }
    says_the_state(&snapshots.run("backup", &url, &["drill", "latest"]).expect(6), "drill of a damaged one");
    let manifest = snapshots.folder_of(&id).join("manifest.json");
    std::fs::remove_file(manifest).unwrap();
    says_the_state(&snapshots.run("restore", &url, &["latest"]).expect(6), "no manifest");
    assert_eq!(database.psql("TABLE t"), "1");
    assert_eq!(database.family(), [database.name()]);
}
