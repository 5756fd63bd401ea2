//! When everything is read after all, and in which words that is told; and what becomes of files that snapshots share.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tests::{Cluster, Database, Options, Outcome, ProtectedRun, Snapshots, fixtures, oracle, psql};

const PLAIN: &str =
    "CREATE TABLE t (id int, v text); INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 5000) i;
    VACUUM (FREEZE) t;";

fn telling() -> Cluster {
    Cluster::start(18, &Options::new().conf("summarize_wal = on").conf("autovacuum = off"))
}

fn create(snapshots: &Snapshots, database: &Database, arguments: &[&str]) -> (String, Outcome) {
    create_as(snapshots, &database.url(), arguments)
}

fn create_as(snapshots: &Snapshots, url: &str, arguments: &[&str]) -> (String, Outcome) {
    let outcome =
        snapshots.run("backup", url, &[&["create", "--chunk-blocks", "8"], arguments].concat()).expect(0);
    (outcome.stdout.trim().to_owned(), outcome)
}

/// Chunks, those that were read, and those whose file is shared.
fn reading(snapshots: &Snapshots, id: &str) -> (u64, u64, u64) {
    let manifest: serde_json::Value = serde_json::from_str(&snapshots.manifest(id)).unwrap();
    let number = |key: &str| manifest["snapshot"]["reading"][key].as_u64().unwrap();
    (number("chunks"), number("chunks_read"), number("chunks_shared"))
}

fn links(snapshots: &Snapshots, id: &str) -> Vec<u64> {
    snapshots.chunks(id).iter().map(|path| std::fs::metadata(path).unwrap().nlink()).collect()
}

tests::on_every_major! {
    fn where_the_server_does_not_tell_unchanged_chunks_are_stored_once_all_the_same(cluster: &Cluster) {
        let database = cluster.fresh_database("untold");
        database.psql(PLAIN);
        let snapshots = Snapshots::new();
        create(&snapshots, &database, &[]);
        database.psql("UPDATE t SET v = 'new' WHERE id = 1");
        let (id, outcome) = create(&snapshots, &database, &[]);
        let why = if cluster.major() < 17 {
            format!("PostgreSQL {} does not tell what changed", cluster.major())
        } else {
            "summarize_wal is off on the server".to_owned()
        };
        let (chunks, read, shared) = reading(&snapshots, &id);
        outcome.says(&[&format!("read all {chunks} chunks: {why}"), &format!("{shared} are the same as in")]);
        // The row's old version lies in the first chunk, its new one at the end.
        assert!(read == chunks && shared >= chunks - 2 && shared < chunks, "{chunks} {read} {shared}");
        assert_eq!(links(&snapshots, &id).iter().filter(|&&links| links == 2).count() as u64, shared);
        let copy = snapshots.restore_copy(&database, &[]);
        oracle::fingerprint(&database).assert_same(&oracle::fingerprint_without(&copy, &[]));
    }
}

#[test]
fn what_is_in_doubt_is_read_and_the_reason_is_told() {
    let cluster = telling();
    let database = cluster.fresh_database("doubt");
    database.psql(&format!(
        "{PLAIN} CREATE TYPE mood AS ENUM ('good', 'bad');
         CREATE TABLE moods (m mood); INSERT INTO moods VALUES ('good');
         CREATE TABLE reg (c regclass); INSERT INTO reg VALUES ('t');
         CREATE UNLOGGED TABLE quick (id int); INSERT INTO quick VALUES (1);
         CREATE ROLE plain LOGIN; GRANT pg_read_all_data TO plain; VACUUM (FREEZE); CHECKPOINT;"
    ));
    let snapshots = Snapshots::new();
    create(&snapshots, &database, &[]).1.says(&["there is no earlier snapshot of this database to build on"]);

    let (id, outcome) = create(&snapshots, &database, &[]);
    let (chunks, read, _) = reading(&snapshots, &id);
    assert_eq!(read, 2, "the table with a regclass, and the unlogged one");
    outcome.says(&[&format!("read 2 of {chunks} chunks, reused {} of ", chunks - 2)]);
    let shown = snapshots.run_offline("backup", &["show", &id]).expect(0).stdout;
    assert!(shown.contains(&format!("read       2 of {chunks} chunks; ")), "{shown}");
    let json = create(&snapshots, &database, &["--json"]).1.stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (json["reading"]["chunks"].as_u64(), json["reading"]["chunks_read"].as_u64()),
        (Some(chunks), Some(2))
    );
    assert!(
        json["reading"]["bytes_shared"].as_u64() > Some(0) && json["shared_bytes"].as_u64() > Some(0),
        "{json}"
    );

    database.psql("ALTER TYPE mood RENAME VALUE 'good' TO 'fine'");
    assert_eq!(
        reading(&snapshots, &create(&snapshots, &database, &[]).0).1,
        3,
        "and the one with the renamed label"
    );
    // Named back at once, what was read meanwhile may have had either label.
    database.psql("ALTER TYPE mood RENAME VALUE 'fine' TO 'x'; ALTER TYPE mood RENAME VALUE 'x' TO 'fine'");
    assert_eq!(reading(&snapshots, &create(&snapshots, &database, &[]).0).1, 3);

    let (id, outcome) = create(&snapshots, &database, &["--full"]);
    outcome.says(&["--full was given"]);
    assert!(links(&snapshots, &id).iter().all(|&links| links == 1));

    let (id, outcome) = create(&snapshots, &database, &["--full-every", "1ms"]);
    outcome.says(&[&format!("{} unchanged chunks were stored longer ago than --full-every", chunks - 2)]);
    assert!(links(&snapshots, &id).iter().all(|&links| links == 1), "stored again, not linked");

    let (_, outcome) = create_as(&snapshots, &cluster.url_as("plain", database.name()), &[]);
    outcome.says(&["may not run CHECKPOINT", "GRANT pg_checkpoint TO role"]);

    let (whole, _) = create(&snapshots, &database, &[]);
    let (part, _) = create(&snapshots, &database, &["--table", "moods"]);
    let (_, outcome) = create(&snapshots, &database, &[]);
    outcome.says(&[&format!("reused {} of {whole}", chunks - 2)]);
    assert_eq!(reading(&snapshots, &part).1, 0);

    // Found damaged: nothing is built on it, and nothing of it is shared.
    for id in snapshots.ids() {
        // Not twice the same file.
        if snapshots.run_offline("backup", &["verify", &id]).code == 0 {
            damage(&snapshots.chunks(&id)[0]);
            snapshots.run_offline("backup", &["verify", &id]).expect(6);
        }
    }
    create(&snapshots, &database, &[]).1.says(&["there is no earlier snapshot of this database to build on"]);

    // A gap: the summaries that the last snapshot ends in are gone.
    let summaries = cluster.data_dir().join("pg_wal/summaries");
    for file in std::fs::read_dir(&summaries).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    let (_, outcome) = create(&snapshots, &database, &[]);
    outcome.says(&["the server no longer has the log of the last snapshot"]);

    // The same name, and another database.
    cluster.psql(&format!("DROP DATABASE {0}; CREATE DATABASE {0}", database.name()));
    database.psql(PLAIN);
    create(&snapshots, &database, &[]).1.says(&["is of another server, timeline or database of this name"]);
}

fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_shared_file_is_whole_or_damaged_for_all_and_frees_nothing_until_the_last_is_gone() {
    let cluster = telling();
    let database = cluster.fresh_database("shared");
    fixtures::load_shop(&database, 0.01);
    database.psql("VACUUM (FREEZE); CHECKPOINT");
    let snapshots = Snapshots::new();
    let first = create(&snapshots, &database, &[]).0;
    let second = create(&snapshots, &database, &[]).0;
    let third = create(&snapshots, &database, &[]).0;
    assert_eq!(reading(&snapshots, &third).1, 0);
    assert!(links(&snapshots, &third).iter().all(|&links| links == 3));
    let json = |arguments: &[&str]| -> serde_json::Value {
        let arguments = [arguments, &["--json"]].concat();
        serde_json::from_str(&snapshots.run_offline("backup", &arguments).expect(0).stdout).unwrap()
    };
    let all = ["prune", "--keep-last", "1", "--keep-min", "1", "--dry-run"];
    let listed = json(&["list"]);
    let alone = |id: &String| {
        let row = listed["snapshots"].as_array().unwrap().iter().find(|row| row["id"] == **id).unwrap();
        let (stored, shared) = (row["stored_bytes"].as_u64().unwrap(), row["shared_bytes"].as_u64().unwrap());
        assert!(shared > 0 && shared < stored, "{row}");
        stored - shared
    };
    // Two go, and with them only what they alone have.
    assert_eq!(json(&all)["freed_bytes"].as_u64(), Some(alone(&first) + alone(&second)));

    // A copy elsewhere is complete, and has files of its own.
    let tar = snapshots.path().with_extension("tar");
    snapshots.run_offline("backup", &["export", &third, "-o", tar.to_str().unwrap()]).expect(0);
    let elsewhere = Snapshots::new();
    elsewhere.run_offline("backup", &["import", tar.to_str().unwrap()]).expect(0);
    assert!(links(&elsewhere, &third).iter().all(|&links| links == 1));
    let listed = elsewhere.run_offline("backup", &["list", "--json"]).expect(0).stdout;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["snapshots"][0]["shared_bytes"].as_u64(), Some(0));

    // Whoever wrote the files may go.
    snapshots.run_offline("backup", &["pin", &third]).expect(0);
    snapshots.run_offline("backup", &["delete", "-y", &first]).expect(0).says(&["frees "]);
    snapshots.run("backup", &database.url(), &["drill", &third]).expect(0);
    let copy = database.cluster().fresh_database("stock");
    let folder = snapshots.folder_of(&third);
    stock_restore(&folder, &copy);
    oracle::fingerprint(&database)
        .without(&["database"])
        .assert_same(&oracle::fingerprint(&copy).without(&["database"]));

    damage(&snapshots.chunks(&second)[0]);
    let outcome = snapshots.run_offline("backup", &["verify", &second]).expect(6);
    outcome.says(&["data/", &format!("the same file is in {third}")]);
    let outcome = snapshots.run_offline("backup", &["verify", "--all"]).expect(6);
    outcome.says(&[&format!("DAMAGED      {second}"), &format!("DAMAGED      {third}")]);
    // Whatever is found damaged stays where it is, and the next one does not share it.
    let fourth = create(&snapshots, &database, &[]).0;
    snapshots.run_offline("backup", &["verify", &fourth]).expect(0);
    elsewhere.run_offline("backup", &["verify", "--all"]).expect(0);
}

/// As README.txt says, with pg_restore, psql and zstd alone.
fn stock_restore(folder: &Path, copy: &Database) {
    let restore = |section: &str| {
        let mut command = psql::tool("pg_restore");
        command.args(["--section", section, "-d", &copy.url()]).arg(folder.join("schema.dump"));
        psql::succeed(command);
    };
    restore("pre-data");
    let mut load = std::process::Command::new("sh");
    let tools = std::path::PathBuf::from(psql::tool("psql").get_program());
    let path = format!("{}:{}", tools.parent().unwrap().display(), std::env::var("PATH").unwrap());
    load.arg("load.sh").current_dir(folder).env("PATH", path);
    load.env("PGHOST", copy.cluster().socket_dir()).env("PGPORT", copy.cluster().port().to_string());
    load.env("PGUSER", "postgres").env("PGDATABASE", copy.name());
    psql::succeed(load);
    restore("post-data");
    for script in ["sequences.sql", "views.sql"] {
        psql::run_file(&copy.url(), &folder.join(script));
    }
}

#[test]
fn behind_the_fence_only_what_changed_since_a_first_snapshot_is_read() {
    let cluster = telling();
    let run = ProtectedRun::shop_on(&cluster);
    run.database.psql("VACUUM (FREEZE); CHECKPOINT");
    run.migration("0001_note.sql", "ALTER TABLE orders ADD COLUMN extra text;");
    let ended = run.run(&["--snapshot-when", "precopy"]).exits(0);
    ended.says("after a first one before it: it read 0 of ").says(" chunks, and writers had waited ");
    let list = || -> serde_json::Value {
        let mut command = tests::binaries::command("backup");
        command.args(["list", "--json", "--repo"]).arg(run.folder().join("snapshots"));
        serde_json::from_str(&Outcome::of(&mut command).expect(0).stdout).unwrap()
    };
    let kinds = |listed: &serde_json::Value| -> Vec<String> {
        listed["snapshots"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["kind"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(kinds(&list()), ["pre-migration"], "the first one is gone, and its files are not");

    // What was restored came from files of both.
    let before = oracle::fingerprint(&run.database);
    let script = "psql -qc 'DELETE FROM order_items; DROP TABLE audit' \"$DATABASE_URL\" && exit 3";
    let ended = run.run(&["--snapshot-when", "precopy", "--", "sh", "-c", script]).exits(12);
    ended.says("after a first one before it").says("and writers had waited");
    oracle::fingerprint(&run.database).assert_same(&before);
    assert_eq!(kinds(&list()), ["pre-migration", "pre-migration"]);
}
