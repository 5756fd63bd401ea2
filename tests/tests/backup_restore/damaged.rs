//! A snapshot with a byte that is wrong is never restored: the damage is found before anything is made, and named.

use std::path::Path;

use tests::oracle::fingerprint;
use tests::{Cluster, Database, Snapshots};

fn with_two_snapshots<'c>(cluster: &'c Cluster, name: &str) -> (Database<'c>, Snapshots, String, String) {
    let database = cluster.fresh_database(name);
    database.psql("CREATE TABLE t AS SELECT i, md5(i::text) AS t FROM generate_series(1, 3000) i; SELECT lo_from_bytea(7, 'lo')");
    let snapshots = Snapshots::new();
    let first = snapshots.create(&database, &[]);
    // With files of its own: a damaged file that two snapshots share is the concern of sharing.rs.
    let second = snapshots.create(&database, &["--full"]);
    (database, snapshots, first, second)
}

fn flip_a_byte(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// Restores are refused with code 6, nothing is made, and verify names the file.
fn assert_found(database: &Database, snapshots: &Snapshots, id: &str, file: &str) {
    let before = fingerprint(database);
    for target in [&["--replace", "-y"][..], &[]] {
        let arguments = [&[id], target].concat();
        snapshots.run("restore", &database.url(), &arguments).fails(6, &[file]);
        assert_eq!(database.family(), [database.name()]);
    }
    before.assert_same(&fingerprint(database));
    snapshots.run_offline("backup", &["verify", id]).expect(6).says(&[file, "DAMAGED"]);
    let all = snapshots.run_offline("backup", &["verify", "--all"]).expect(6);
    assert_eq!(all.stderr.lines().filter(|line| line.starts_with("OK ")).count(), 1, "{}", all.stderr);
}

#[test]
fn a_flipped_bit_in_any_kind_of_file_is_found_and_named() {
    let (database, snapshots, _, id) = with_two_snapshots(Cluster::shared(18), "flipped");
    let folder = snapshots.folder_of(&id);
    let chunk = snapshots.chunks(&id).remove(0);
    let chunk = chunk.strip_prefix(&folder).unwrap().to_string_lossy().into_owned();
    for file in [&chunk[..], "schema.dump", "large-objects/objects.copy.zst", "load.sh", "database.sql"] {
        let path = folder.join(file);
        let good = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        flip_a_byte(&path);
        assert_found(&database, &snapshots, &id, file);
        std::fs::write(&path, good).unwrap();
    }
    snapshots.run_offline("backup", &["verify", "--all"]).expect(0);
}

#[test]
fn a_truncated_a_missing_and_an_added_file_are_found_and_named() {
    let (database, snapshots, _, id) = with_two_snapshots(Cluster::shared(18), "truncated");
    let path = snapshots.chunks(&id).remove(0);
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let good = std::fs::read(&path).unwrap();
    std::fs::write(&path, &good[..good.len() - 1]).unwrap();
    assert_found(&database, &snapshots, &id, &name);
    std::fs::remove_file(&path).unwrap();
    assert_found(&database, &snapshots, &id, &name);
    std::fs::write(&path, good).unwrap();
    std::fs::write(snapshots.folder_of(&id).join("data/added"), "").unwrap();
    assert_found(&database, &snapshots, &id, "data/added");
}

#[test]
fn a_damaged_manifest_is_listed_as_damaged_beside_the_whole_ones() {
    let (database, snapshots, whole, id) = with_two_snapshots(Cluster::shared(18), "manifest");
    let before = fingerprint(&database);
    let path = snapshots.folder_of(&id).join("manifest.json");
    let good = std::fs::read_to_string(&path).unwrap();
    for bad in
        [good.replacen("\"rows\":3000", "\"rows\":3001", 1), good[..good.len() / 2].to_owned(), String::new()]
    {
        assert_ne!(bad, good);
        std::fs::write(&path, bad).unwrap();
        snapshots
            .run("restore", &database.url(), &[&id, "--replace", "-y"])
            .fails(6, &[&id, "manifest.json"]);
        snapshots.run("backup", &database.url(), &["show", &id]).fails(6, &[&id, "manifest.json"]);
        snapshots.run_offline("backup", &["verify", "--all"]).expect(6);
        let listed = snapshots.run_offline("backup", &["list"]).expect(0).says(&[&id, "manifest.json"]);
        let line = |id: &str| listed.stdout.lines().find(|line| line.starts_with(id)).unwrap().to_owned();
        assert!(line(&id).contains("DAMAGED") && !line(&whole).contains("DAMAGED"), "{}", listed.stdout);
        let json = snapshots.run_offline("backup", &["list", "--json"]).expect(0);
        assert!(json.stdout.contains("\"damaged\"") && json.stdout.contains(&whole), "{}", json.stdout);
    }
    std::fs::remove_file(&path).unwrap();
    snapshots.run("restore", &database.url(), &[&id]).fails(6, &["has no manifest.json"]);
    assert_eq!(database.family(), [database.name()]);
    before.assert_same(&fingerprint(&database));
    // The newest is never left out in silence, whoever asks for the latest.
    for arguments in [
        &["restore", "latest"][..],
        &["restore", "latest", "--table", "app.everything"],
        &["backup", "show", "latest"],
        &["backup", "verify", "latest"],
        &["backup", "drill"],
        &["backup", "export", "latest", "-o", "-"],
        &["backup", "diff", "latest", &whole],
    ] {
        let ended = snapshots.run(arguments[0], &database.url(), &arguments[1..]);
        ended.fails(6, &[&id, "has no manifest.json", &whole, "by its id"]);
    }
    assert_eq!(database.family(), [database.name()]);
    snapshots
        .run("restore", &database.url(), &[&whole, "--into", &format!("{}copy", database.name())])
        .expect(0);
    // The only one: damaged is another thing than absent.
    std::fs::remove_dir_all(snapshots.folder_of(&whole)).unwrap();
    snapshots
        .run("restore", &database.url(), &["latest"])
        .fails(6, &[&id, "has no manifest.json", "there is no other one"]);
    // Another database's is no reason.
    let other = database.cluster().fresh_database("another");
    snapshots.run("restore", &other.url(), &["latest"]).fails(5, &["no such snapshot"]);
}

#[test]
fn every_json_document_has_its_schema_version() {
    let (database, snapshots, _, id) = with_two_snapshots(Cluster::shared(18), "json");
    let url = database.url();
    let name = format!("{}json", database.name());
    let commands: [&[&str]; 8] = [
        &["backup", "create"],
        &["backup", "list"],
        &["backup", "show", &id],
        &["backup", "verify", "--all"],
        &["backup", "check"],
        &["restore", &id, "--dry-run"],
        &["restore", &id, "--into", &name],
        &["restore", &id, "--replace", "-y"],
    ];
    for command in commands {
        let arguments = [&command[1..], &["--json"]].concat();
        let outcome = snapshots.run(command[0], &url, &arguments).expect(0);
        let parsed = database
            .cluster()
            .psql(&format!("SELECT {}::json->>'schema'", tests::psql::quote_literal(&outcome.stdout)));
        assert_eq!(parsed, "1", "{command:?}: {}", outcome.stdout);
        for line in outcome.stderr.lines() {
            let event = database
                .cluster()
                .psql(&format!("SELECT {}::json->>'event'", tests::psql::quote_literal(line)));
            assert!(!event.is_empty(), "{command:?}: {line}");
        }
    }
    let error = snapshots.run("backup", &url, &["show", "2001", "--json"]).expect(5);
    assert!(error.stderr.contains("\"exit_code\":5"), "{}", error.stderr);
    for (program, arguments, code) in [
        ("backup", &["show", "2001"][..], 5),
        ("backup", &["verify", "2001"], 5),
        ("backup", &["prune"], 2),
        ("backup", &["prune", "--keep-last", "many"], 2),
        ("backup", &["export", "2001", "-o", "-"], 5),
        ("restore", &["2001"], 5),
        ("restore", &["latest", "--replace"], 3),
    ] {
        let told = snapshots.run(program, &url, &[arguments, &["--json"]].concat()).expect(code);
        let document: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
        assert_eq!(
            (&document["schema"], &document["error"]["exit_code"]),
            (&1.into(), &code.into()),
            "{told:?}"
        );
    }
}
