//! Copies: what is listed can be restored, whatever was killed, cut, flipped or taken away; and nothing is sent twice.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use tests::oracle::{fingerprint, fingerprint_without};
use tests::{Cluster, Database, Outcome, Snapshots, fixtures};

struct Copies {
    snapshots: Snapshots,
    folder: tempfile::TempDir,
}

impl Copies {
    fn new() -> Self {
        Self { snapshots: Snapshots::new(), folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("copies")
    }

    fn url(&self) -> String {
        format!("file://{}", self.path().display())
    }

    fn command(&self, program: &str, database: Option<&str>, arguments: &[&str]) -> std::process::Command {
        let mut command = tests::binaries::command(program);
        command.args(arguments).current_dir(self.folder.path()).env("TMPDIR", self.folder.path());
        if let Some(url) = database {
            command.args(["-d", url]);
        }
        command
    }

    /// A command on the copies.
    fn there(&self, arguments: &[&str]) -> Outcome {
        Outcome::of(&mut self.command("backup", None, &[arguments, &["--repo", &self.url()]].concat()))
    }

    fn copy(&self, arguments: &[&str]) -> Outcome {
        self.snapshots.run_offline("backup", &[&["copy", "--to", &self.url()], arguments].concat())
    }

    fn restore(&self, database: &Database, id: &str, into: &str) -> Outcome {
        let (url, repo) = (database.url(), self.url());
        Outcome::of(&mut self.command("restore", Some(&url), &[id, "--into", into, "--repo", &repo]))
    }

    fn files(&self, folder: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        walk(&self.path().join(folder), &mut found);
        found.sort();
        found
    }

    fn ids(&self) -> Vec<String> {
        let list = self.there(&["list", "--json"]).expect(0).stdout;
        let list: serde_json::Value = serde_json::from_str(&list).unwrap();
        let rows = list["snapshots"].as_array().unwrap();
        assert!(rows.iter().all(|row| row["problem"].is_null()), "{rows:?}");
        rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    }
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().map(Result::unwrap) {
        if entry.path().is_dir() { walk(&entry.path(), found) } else { found.push(entry.path()) }
    }
}

fn shop(major: u32) -> Database<'static> {
    let database = Cluster::shared(major).fresh_database("copies");
    fixtures::load_shop(&database, 0.004);
    database
}

#[test]
fn a_copy_is_restored_with_every_row_and_the_next_one_sends_only_what_is_new() {
    for major in [18, 14] {
        let (database, copies) = (shop(major), Copies::new());
        let first = copies.snapshots.create(&database, &[]);
        copies.copy(&[&first]).expect(0).says(&["COPIED", " in 0 files there already"]);
        copies.copy(&["--all"]).expect(0).says(&["is there already"]);
        let objects = copies.files("objects").len();
        database.psql("UPDATE users SET email = 'new@example.com' WHERE id = 1");
        let second = copies.snapshots.create(&database, &[]);
        let copied = copies.copy(&[&second, "--json"]).expect(0).stdout;
        let copied: serde_json::Value = serde_json::from_str(&copied).unwrap();
        let number = |key: &str| copied["copied"][0][key].as_u64().unwrap();
        assert_eq!(copies.files("objects").len() as u64, objects as u64 + number("files_sent"));
        assert!(number("bytes_there") > number("bytes_sent") && number("files_there") > 0, "{copied}");
        assert_eq!(copies.ids(), [first.clone(), second.clone()]);
        copies.there(&["verify", "--all"]).expect(0);
        copies.there(&["show", "latest"]).expect(0);

        // The machine is gone, and with it the local repository.
        std::fs::remove_dir_all(copies.snapshots.path()).unwrap();
        let before = fingerprint(&database);
        let name = format!("{}_back", database.name());
        let restored =
            copies.restore(&database, "latest", &name).expect(0).says(&["was not made in this repository"]);
        before.assert_same(&fingerprint_without(restored.stdout.trim(), &[]));
        copies.restore(&database, &first, &format!("{name}_dry")).expect(0);
        let left = |name: &str| name.starts_with(".restore-unpacked-");
        let names = std::fs::read_dir(copies.folder.path()).unwrap();
        assert!(!names.map(|entry| entry.unwrap().file_name()).any(|name| left(&name.to_string_lossy())));
    }
}

#[test]
fn what_is_flipped_taken_away_or_put_there_is_named() {
    let (database, copies) = (shop(18), Copies::new());
    let id = copies.snapshots.create(&database, &[]);
    copies.copy(&[&id]).expect(0);
    for (number, path) in copies.files("objects").iter().enumerate() {
        let whole = std::fs::read(path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        if !whole.is_empty() {
            let mut flipped = whole.clone();
            let at = (number * 7919) % whole.len();
            flipped[at] ^= 1;
            std::fs::write(path, &flipped).unwrap();
            copies.there(&["verify", &id]).expect(6).says(&["checksum mismatch", name]);
            copies.restore(&database, &id, "never").expect(6);
        }
        std::fs::remove_file(path).unwrap();
        copies.there(&["verify", &id]).expect(6).says(&["is missing", name]);
        std::fs::write(path, &whole).unwrap();
    }
    copies.there(&["verify", &id]).expect(0);
    // A record of elsewhere, and one under another's name.
    let other = Copies::new();
    let foreign = other.snapshots.create(&database, &[]);
    other.copy(&[&foreign]).expect(0);
    let record = format!("snapshots/{foreign}.json");
    std::fs::copy(other.path().join(&record), copies.path().join(&record)).unwrap();
    copies.there(&["verify", &foreign]).expect(6).says(&["a record of another repository"]);
    copies.there(&["collect"]).expect(6).says(&["nothing is deleted"]);
    copies.restore(&database, &foreign, "never").expect(6);
    std::fs::copy(copies.path().join(format!("snapshots/{id}.json")), copies.path().join(&record)).unwrap();
    copies.there(&["verify", "--all"]).expect(6).says(&["the record of another snapshot"]);
    // A file that is damaged where it was made does not become a copy.
    let chunk = &other.snapshots.chunks(&foreign)[0];
    let mut bytes = std::fs::read(chunk).unwrap();
    bytes[10] ^= 1;
    std::fs::write(chunk, bytes).unwrap();
    let third = format!("file://{}", other.folder.path().join("third").display());
    other.snapshots.run_offline("backup", &["copy", &foreign, "--to", &third]).expect(6);
    assert!(!other.folder.path().join("third/snapshots").exists());
}

#[test]
fn a_copy_or_a_collector_that_is_killed_anywhere_loses_nothing_and_the_next_one_finishes() {
    let (database, copies) = (shop(18), Copies::new());
    let id = copies.snapshots.create(&database, &[]);
    let killed = |point: &str, command: &mut std::process::Command| {
        Outcome::of(command.env("SAFE_RUN_FAULT", point)).expect(-9);
    };
    for (point, is_listed) in
        [("copy:leased", false), ("copy:object", false), ("copy:sent", false), ("copy:published", true)]
    {
        let (url, repo) = (copies.url(), copies.snapshots.path());
        let words = ["copy", &id, "--to", &url, "--repo", repo.to_str().unwrap()];
        killed(point, &mut copies.command("backup", None, &words));
        assert_eq!(copies.ids().len(), usize::from(is_listed), "{point}");
        copies.there(&["verify", "--all"]).expect(0);
        // What a copy that died left keeps everything for a day.
        copies
            .there(&["collect", "--grace", "0s"])
            .expect(0)
            .says(&["0 objects deleted", "died less than a day ago"]);
    }
    for lease in copies.files("leases") {
        std::fs::remove_file(lease).unwrap();
    }
    database.psql("UPDATE users SET email = 'new@example.com' WHERE id = 1");
    let second = copies.snapshots.create(&database, &[]);
    copies.copy(&[&second]).expect(0);
    copies.there(&["delete", &id, "-y"]).expect(0);
    let collect = ["collect", "--grace", "0s", "--repo"];
    let url = copies.url();
    let words = [&collect[..], &[&url]].concat();
    for point in ["collect:condemned", "collect:object", "collect:deleted"] {
        // Times of files are compared in seconds.
        std::thread::sleep(std::time::Duration::from_millis(2100));
        killed(point, &mut copies.command("backup", None, &words));
        copies.there(&["verify", "--all"]).expect(0);
        assert_eq!(copies.ids(), std::slice::from_ref(&second), "{point}");
    }
    std::thread::sleep(std::time::Duration::from_millis(2100));
    copies.there(&collect[..3]).expect(0);
    let record = std::fs::read_to_string(&copies.files("snapshots")[0]).unwrap();
    for object in copies.files("objects") {
        let name = object.file_name().unwrap().to_str().unwrap();
        assert!(record.contains(name), "{name} is named by nothing, and there");
    }
    assert!(copies.files("condemned").is_empty() && copies.files("leases").is_empty());
    let restored = copies.restore(&database, &second, &format!("{}_back", database.name())).expect(0);
    fingerprint(&database).assert_same(&fingerprint_without(restored.stdout.trim(), &[]));
}

/// A store that answers everything alike.
fn store_that_says(status: &'static str) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let _ = stream.read(&mut [0; 8192]);
            let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    format!("s3://bucket/prefix?endpoint=http://127.0.0.1:{port}&region=here")
}

#[test]
fn what_a_copy_can_not_do_is_answered_with_the_next_step_and_without_secrets() {
    let (database, copies) = (shop(18), Copies::new());
    let id = copies.snapshots.create(&database, &[]);
    let url = copies.url();
    copies.there(&["list"]).expect(5).says(&["there is no copy repository", "hint: "]);
    for wrong in ["ftp://x/y", "file://relative", "s3://a/../b", "s3://u:hunter2@b/c", "s3://b/c?key=hunter2"]
    {
        let outcome =
            copies.snapshots.run_offline("backup", &["copy", &id, "--to", wrong]).expect(2).says(&["hint: "]);
        assert!(!outcome.stderr.contains("hunter2"), "{}", outcome.stderr);
    }
    copies.snapshots.run_offline("backup", &["collect"]).expect(2).says(&["hint: "]);
    copies.copy(&[&id]).expect(0);
    copies.there(&["create"]).expect(2).says(&["backup copy"]);
    copies.there(&["list", "--database", "nosuch"]).expect(0).says(&["No snapshots at"]);
    copies.there(&["show", "nosuch"]).expect(5).says(&["hint: "]);
    let restore =
        |arguments: &[&str]| Outcome::of(&mut copies.command("restore", Some(&database.url()), arguments));
    restore(&["--repo", &url]).expect(2).says(&["no snapshot is named"]);
    let mut run = copies.command("safe-run", Some(&database.url()), &["history", "--repo", &url]);
    Outcome::of(&mut run).expect(2).says(&["is a URL", "backup copy"]);
    let folder = copies.snapshots.path();
    restore(&[&id, "--spool", "/tmp", "--repo", folder.to_str().unwrap()]).expect(2).says(&["--spool"]);
    restore(&[&id, "--into", "dry", "--dry-run", "--repo", &url]).expect(0);

    let second = copies.snapshots.create(&database, &[]);
    copies.copy(&[&second]).expect(0);
    copies.there(&["show", "2"]).expect(2).says(&["the start of several ids"]);
    let other = Cluster::shared(18).fresh_database("copies_other");
    copies.snapshots.create(&other, &[]);
    copies.copy(&["--all"]).expect(0);
    copies.there(&["show", "latest"]).expect(2).says(&["several databases"]);
    for (status, code) in [("403 Forbidden", 3), ("400 Bad Request", 1)] {
        let there = store_that_says(status);
        let mut command = copies.command("backup", None, &["list", "--repo", &there]);
        command.env("AWS_ACCESS_KEY_ID", "id").env("AWS_SECRET_ACCESS_KEY", "hunter2");
        let outcome = Outcome::of(&mut command).expect(code).says(&["hint: "]);
        assert!(!outcome.stderr.contains("hunter2"), "{}", outcome.stderr);
    }
    let file = copies.path().join("repository.json");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("\"layout\":1", "\"layout\":2")).unwrap();
    copies.there(&["list"]).expect(3).says(&["has layout 2", "newer version"]);
}
