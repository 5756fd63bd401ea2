//! The commands that keep a repository: pin, delete, verify's log, export and import, drill, prune, diff.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use tests::binaries::command;
use tests::oracle::fingerprint;
use tests::{Cluster, Database, fixtures};

/// A repository of one test, and the programs run on it.
struct Repo {
    dir: tempfile::TempDir,
}

impl Repo {
    fn new() -> Repo {
        Repo { dir: tempfile::tempdir().unwrap() }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("snapshots")
    }

    fn command(&self, program: &str, arguments: &[&str]) -> std::process::Command {
        let mut command = command(program);
        command.current_dir(self.dir.path()).args(arguments).arg("--repo").arg(self.root());
        command.stdin(Stdio::null());
        command
    }

    /// Runs a program that must exit with `code`; returns stdout and stderr.
    fn run(&self, program: &str, arguments: &[&str], code: i32) -> (String, String) {
        judge(&self.command(program, arguments).output().unwrap(), arguments, code)
    }

    fn backup(&self, arguments: &[&str]) -> String {
        self.run("backup", arguments, 0).0
    }

    fn create(&self, database: &Database) -> String {
        self.backup(&["create", "-q", "-d", &database.url()]).trim().to_owned()
    }

    fn ids(&self) -> Vec<String> {
        let mut ids: Vec<String> = std::fs::read_dir(self.root().join("snapshots"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        ids.sort();
        ids
    }

    /// Nothing that a command left behind.
    fn assert_tidy(&self) {
        for folder in ["partial", "trash"] {
            let left: Vec<_> = std::fs::read_dir(self.root().join(folder)).unwrap().collect();
            assert!(left.is_empty(), "{folder}: {left:?}");
        }
        let entries = std::fs::read_dir(self.dir.path()).unwrap();
        let hidden: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with('.'))
            .collect();
        assert!(hidden.is_empty(), "{hidden:?}");
    }
}

fn judge(output: &Output, what: &[&str], code: i32) -> (String, String) {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{what:?}\n{stdout}\n{stderr}");
    (stdout, stderr)
}

fn small_database<'c>(cluster: &'c Cluster, name: &str) -> Database<'c> {
    let database = cluster.fresh_database(name);
    database.psql(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'value ' || i FROM generate_series(1, 900) i",
    );
    database
}

fn copy_tree(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_pinned_snapshot_is_neither_deleted_nor_pruned_until_it_is_unpinned() {
    let database = small_database(Cluster::shared(18), "pinned");
    let repo = Repo::new();
    let id = repo.create(&database);
    let others = [repo.create(&database), repo.create(&database)];
    repo.backup(&["pin", &id, "--note", "before the audit"]);
    assert!(repo.backup(&["list"]).lines().any(|line| line.starts_with(&id) && line.contains("  pinned  ")
        || line.starts_with(&id) && line.ends_with("  pinned")));

    let (_, error) = repo.run("backup", &["delete", "-y", &others[0], &id], 3);
    assert!(error.contains(&format!("snapshot {id} is pinned since ")), "{error}");
    assert!(
        error.contains("(\"before the audit\")") && error.contains(&format!("backup unpin {id}")),
        "{error}"
    );
    assert_eq!(repo.ids().len(), 3, "all or none");

    let (_, error) = repo.run("backup", &["delete", &others[0]], 3);
    assert!(error.contains("no terminal to ask on"), "{error}");

    let table = repo.backup(&["prune", "--keep-last", "1", "--keep-min", "0", "--dry-run"]);
    assert_eq!(repo.ids().len(), 3, "a dry run deletes nothing");
    assert!(
        table.lines().any(|line| line.starts_with("keep") && line.contains(&id) && line.contains("pinned"))
    );
    repo.backup(&["prune", "--keep-last", "1", "--keep-min", "0"]);
    let mut expected = vec![id.clone(), others[1].clone()];
    expected.sort();
    assert_eq!(repo.ids(), expected);

    repo.backup(&["unpin", &id]);
    repo.backup(&["delete", "-y", &id]);
    assert_eq!(repo.ids().len(), 1);
    repo.run("backup", &["delete", "-y", &id], 5);
    repo.assert_tidy();
}

#[test]
fn the_snapshot_of_an_unfinished_run_is_not_deleted() {
    let database = small_database(Cluster::shared(18), "unfinished");
    let repo = Repo::new();
    let id = repo.create(&database);
    let run = repo.root().join("runs/20200101T000000Z-shop-7f3k9q");
    std::fs::create_dir_all(&run).unwrap();
    let journal = run.join("journal.jsonl");
    let begun = format!(
        "{{\"at\":\"2020-01-01T00:00:00Z\",\"step\":\"begun\",\"database\":\"x\",\"mode\":\"restore\",\"what\":\"w\"}}\n\
         {{\"at\":\"2020-01-01T00:00:00Z\",\"step\":\"snapshot-taken\",\"id\":\"{id}\"}}\n"
    );
    std::fs::write(&journal, &begun).unwrap();
    let (_, error) = repo.run("backup", &["delete", "-y", &id], 3);
    assert!(error.contains("needed by the run 20200101T000000Z-shop-7f3k9q"), "{error}");
    let finished =
        "{\"at\":\"2020-01-01T00:00:00Z\",\"step\":\"finished\",\"exit_code\":0,\"verdict\":\"x\"}\n";
    std::fs::write(&journal, begun + finished).unwrap();
    repo.backup(&["delete", "-y", &id]);
    assert!(repo.ids().is_empty());
}

#[test]
fn verify_writes_its_result_to_the_log_and_list_shows_it() {
    let database = small_database(Cluster::shared(18), "verified");
    let repo = Repo::new();
    let id = repo.create(&database);
    let shown = |word: &str| {
        let list = repo.backup(&["list"]);
        assert!(list.lines().next().unwrap().contains("  VERIFIED"), "{list}");
        assert!(
            list.lines().any(|line| line.starts_with(&id) && line.contains(&format!("  {word}"))),
            "{list}"
        );
    };
    shown("never");
    repo.backup(&["verify", "--all"]);
    shown("files ");
    let readme = repo.root().join("snapshots").join(&id).join("README.txt");
    let good = std::fs::read(&readme).unwrap();
    std::fs::write(&readme, b"x").unwrap();
    repo.run("backup", &["verify", &id[..18]], 6);
    shown("FAILED ");
    std::fs::write(&readme, good).unwrap();
    repo.backup(&["verify", "latest"]);
    shown("files ");
    let log = std::fs::read_to_string(repo.root().join("verifications.jsonl")).unwrap();
    assert_eq!(log.lines().count(), 3);
    assert!(repo.backup(&["list", "--json"]).contains("\"last_hash\""));
}

#[test]
fn a_snapshot_travels_through_files_and_pipes_and_restores_from_its_archive() {
    let cluster = Cluster::shared(18);
    let database = cluster.fresh_database("travel");
    fixtures::load_shop(&database, 0.01);
    let (here, there) = (Repo::new(), Repo::new());
    let id = here.create(&database);

    let (stdout, _) = here.run("backup", &["export", &id], 0);
    assert_eq!(stdout, format!("{id}.tar\n"));
    let tar = here.dir.path().join(format!("{id}.tar"));
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(tar.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    here.run("backup", &["export", &id], 3);
    here.run("backup", &["export", &id, "--force"], 0);
    let bytes = std::fs::read(&tar).unwrap();
    assert!(
        std::process::Command::new("tar")
            .arg("-tf")
            .arg(&tar)
            .stdout(Stdio::null())
            .status()
            .unwrap()
            .success()
    );

    // A pipe from one to the other.
    let mut export =
        here.command("backup", &["export", &id, "-o", "-"]).stdout(Stdio::piped()).spawn().unwrap();
    let import =
        there.command("backup", &["import", "-"]).stdin(export.stdout.take().unwrap()).output().unwrap();
    assert!(export.wait().unwrap().success());
    assert_eq!(judge(&import, &["import"], 0).0, format!("{id}\n"));
    let difference = std::process::Command::new("diff")
        .arg("-r")
        .args([here.root().join("snapshots"), there.root().join("snapshots")])
        .output()
        .unwrap();
    assert!(difference.status.success(), "{}", String::from_utf8_lossy(&difference.stdout));
    there.backup(&["verify", &id]);
    let (_, error) = there.run("backup", &["import", tar.to_str().unwrap()], 3);
    assert!(error.contains("is in the repository already"), "{error}");

    // Broken streams leave nothing.
    let nowhere = Repo::new();
    for (bytes, code) in [(&bytes[..bytes.len() - 512], 6), (&bytes[..bytes.len() / 2], 6), (b"no tar", 6)] {
        let mut import = nowhere
            .command("backup", &["import", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // One that refuses the beginning does not read the rest.
        let _ = import.stdin.take().unwrap().write_all(bytes);
        judge(&import.wait_with_output().unwrap(), &["import"], code);
        assert!(nowhere.ids().is_empty());
        nowhere.assert_tidy();
    }

    // Straight from the archive, without a repository.
    let name = format!("{}_from_tar", database.name());
    let restored = ["-d", &database.url(), tar.to_str().unwrap(), "--into", &name];
    let (plan, _) = nowhere.run("restore", &[&restored[..], &["--dry-run"]].concat(), 0);
    assert!(plan.contains(&id), "{plan}");
    nowhere.run("restore", &restored, 0);
    let copy = tests::oracle::fingerprint_without(&cluster.url(&name), &[]);
    fingerprint(&database).assert_same(&copy);
    nowhere.run("restore", &restored, 3);
    let mut bad = bytes;
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    std::fs::write(&tar, bad).unwrap();
    let again = format!("{name}_2");
    nowhere.run("restore", &["-d", &database.url(), tar.to_str().unwrap(), "--into", &again], 6);
    assert!(!database.family().contains(&again));
    nowhere.run("restore", &["-d", &database.url(), "missing.tar"], 5);
    here.assert_tidy();
    nowhere.assert_tidy();
}

#[test]
fn an_import_that_is_interrupted_while_its_pipe_is_silent_leaves_nothing() {
    let database = small_database(Cluster::shared(18), "silent");
    let (here, there) = (Repo::new(), Repo::new());
    let id = here.create(&database);
    here.backup(&["export", &id]);
    let bytes = std::fs::read(here.dir.path().join(format!("{id}.tar"))).unwrap();
    let mut import = there.command("backup", &["import", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut pipe = import.stdin.take().unwrap();
    pipe.write_all(&bytes[..bytes.len() - 2048]).unwrap();
    let partial = there.root().join("partial").join(&id);
    while !partial.exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let pid = import.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(import.wait().unwrap().code(), Some(143));
    assert!(there.ids().is_empty());
    there.assert_tidy();
}

tests::on_every_major! {
    fn a_drill_proves_a_snapshot_and_leaves_no_database(cluster: &Cluster) {
        let database = small_database(cluster, "drill");
        let repo = Repo::new();
        let id = repo.create(&database);
        let (_, said) = repo.run("backup", &["drill", "-d", &database.url()], 0);
        assert!(said.contains(&format!("DRILL OK {id}: 1 table and 900 rows restored")), "{said}");
        assert!(said.contains("a restore of this snapshot takes "), "{said}");
        assert_eq!(database.family(), [database.name()]);
        assert!(repo.backup(&["list"]).contains("  restored "));
        let log = std::fs::read_to_string(repo.root().join("verifications.jsonl")).unwrap();
        assert!(log.contains("\"how\":\"restored\"") && log.contains("\"ok\":true"), "{log}");
    }
}

#[test]
fn a_drill_of_a_damaged_snapshot_fails_and_is_remembered() {
    let database = small_database(Cluster::shared(18), "bad_drill");
    let repo = Repo::new();
    let id = repo.create(&database);
    let schema = repo.root().join("snapshots").join(&id).join("schema.dump");
    std::fs::write(&schema, b"x").unwrap();
    let (_, said) = repo.run("backup", &["drill", &id, "--server", &database.url(), "--json"], 6);
    assert!(said.contains("\"exit_code\":6"), "{said}");
    assert_eq!(database.family(), [database.name()]);
    assert!(repo.backup(&["list"]).contains("  FAILED "));
    // A server that can't be reached says nothing about the snapshot.
    let log = std::fs::read_to_string(repo.root().join("verifications.jsonl")).unwrap();
    repo.run("backup", &["drill", &id, "--server", "postgresql://nobody@127.0.0.1:1/x"], 4);
    assert_eq!(std::fs::read_to_string(repo.root().join("verifications.jsonl")).unwrap(), log);
}

#[test]
fn a_simulation_shows_what_will_survive_and_deletes_nothing() {
    let database = small_database(Cluster::shared(18), "simulated");
    let repo = Repo::new();
    let old = repo.create(&database);
    // Ids tell the second, and so does the pace.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let pinned = repo.create(&database);
    repo.backup(&["pin", &pinned]);
    let prune = ["prune", "--keep-last", "2", "--keep-min", "0", "--simulate", "60s"];
    let (table, said) = repo.run("backup", &prune, 0);
    let line = |id: &str| table.lines().find(|line| line.contains(id)).unwrap_or_else(|| panic!("{table}"));
    assert!(line(&old).starts_with("delete") && line(&old).contains("no rule keeps it from"), "{table}");
    assert!(line(&pinned).starts_with("keep") && line(&pinned).contains("pinned"), "{table}");
    assert_eq!(table.matches("(to come)").count(), 2, "{table}");
    assert!(said.contains("WOULD KEEP 3 snapshots") && said.contains("a backup every"), "{said}");
    let (json, _) = repo.run("backup", &[&prune[..], &["--json"]].concat(), 0);
    assert!(json.contains("\"schema\": 1") && json.contains("\"pace_seconds\""), "{json}");
    repo.run("backup", &["prune", "--keep-last", "2", "--simulate", "9000d"], 2);
    assert_eq!(repo.ids().len(), 2);
}

#[test]
fn prune_needs_a_rule_and_keeps_the_floor_and_what_is_damaged() {
    let database = small_database(Cluster::shared(18), "prune");
    let repo = Repo::new();
    let (_, error) = repo.run("backup", &["prune", "--keep-min", "5"], 2);
    assert!(error.contains("no rule says what to keep"), "{error}");
    let ids: Vec<String> = (0..5).map(|_| repo.create(&database)).collect();
    assert!(repo.backup(&["show", "latest"]).starts_with(&ids[4]), "the latest, not the last by name");
    // A copy under another id has an unreadable manifest: it is nobody's to prune.
    let broken = "20200101T000000Z-shop-7f3k9q";
    copy_tree(&repo.root().join("snapshots").join(&ids[0]), &repo.root().join("snapshots").join(broken));
    repo.backup(&["verify", &ids[0]]);
    let (json, _) = repo.run("backup", &["prune", "--keep-last", "1", "--keep-min", "2", "--json"], 0);
    assert!(json.contains("\"floor of 2 good snapshots\"") && json.contains(broken), "{json}");
    // The newest by the rule; the verified one is the second of the floor.
    let mut expected = vec![broken.to_owned(), ids[0].clone(), ids[4].clone()];
    expected.sort();
    assert_eq!(repo.ids(), expected);
    repo.backup(&["delete", "-y", broken]);
    repo.assert_tidy();
}

tests::on_every_major! {
    fn diff_tells_what_changed_between_two_snapshots(cluster: &Cluster) {
        let database = cluster.fresh_database("diff");
        database.psql(
            "CREATE SEQUENCE s; CREATE TABLE same (i int); INSERT INTO same VALUES (1);
             CREATE TABLE grows (i int); CREATE TABLE turned (v text); INSERT INTO turned VALUES ('a'), ('b');
             CREATE TABLE gone (i int); CREATE VIEW v AS SELECT i FROM same",
        );
        let repo = Repo::new();
        let a = repo.create(&database);
        let b = repo.create(&database);
        let text = repo.backup(&["diff", &a, &b]);
        assert!(text.ends_with("No difference: schema, content of 4 tables, sequences, settings.\n"), "{text}");
        database.psql(&format!(
            "INSERT INTO grows SELECT generate_series(1, 5); UPDATE turned SET v = 'c' WHERE v = 'b'; DROP TABLE gone;
             CREATE TABLE fresh (i int); SELECT nextval('s'); CREATE OR REPLACE VIEW v AS SELECT i FROM same WHERE i > 0;
             ALTER DATABASE \"{}\" SET work_mem = '9MB'",
            database.name()
        ));
        let c = repo.create(&database);
        let (text, _) = repo.run("backup", &["diff", &a, &c], 1);
        let has = |parts: &[&str]| {
            let found = text.lines().any(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                words == parts
            });
            assert!(found, "no line {parts:?} in\n{text}");
        };
        has(&["added:", "TABLE", "public.fresh"]);
        has(&["removed:", "TABLE", "public.gone"]);
        has(&["changed:", "VIEW", "public.v"]);
        assert!(text.contains("\n  +  WHERE ("), "{text}");
        has(&["grows", "0", "5", "+5", "0", "B", "10", "B"]);
        has(&["turned", "2", "2", "0", "4", "B", "4", "B", "content", "changed"]);
        has(&["gone", "0", "-", "0", "0", "B", "-", "gone"]);
        has(&["fresh", "-", "0", "0", "-", "0", "B", "new"]);
        has(&["1", "table", "is", "equal,", "row", "for", "row"]);
        has(&["sequence", "s:", "1", "(not", "called)", "->", "1", "(called)"]);
        has(&["database", "setting", "work_mem:", "-", "->", "9MB"]);
        let (json, _) = repo.run("backup", &["diff", &a, &c, "--json"], 1);
        assert!(json.contains("\"equal\": false") && json.contains("\"rows_after\": 5"), "{json}");
    }
}

#[test]
fn an_archive_is_not_written_to_a_terminal_and_delete_asks_on_one() {
    let database = small_database(Cluster::shared(18), "terminal");
    let repo = Repo::new();
    let id = repo.create(&database);
    let on_terminal = |arguments: &[&str], typed: &str| {
        let mut inner = repo.command("backup", arguments);
        let words: Vec<String> = std::iter::once(inner.get_program())
            .chain(inner.get_args())
            .map(|word| format!("'{}'", word.to_str().unwrap()))
            .collect();
        inner = std::process::Command::new("script");
        inner.args(["-q", "-e", "-c", &words.join(" "), "/dev/null"]).current_dir(repo.dir.path());
        let mut child = inner.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, said) = on_terminal(&["export", &id, "-o", "-"], "");
    assert!(code == Some(2) && said.contains("an archive is not for a terminal"), "{code:?} {said}");
    let (code, said) = on_terminal(&["delete", &id], "no\n");
    assert!(code == Some(3) && said.contains("Type yes to go on"), "{code:?} {said}");
    assert_eq!(repo.ids(), [id.as_str()]);
    let (code, said) = on_terminal(&["delete", &id], "yes\n");
    assert!(code == Some(0) && said.contains("DELETED"), "{code:?} {said}");
    assert!(repo.ids().is_empty());
}

#[test]
fn a_kill_in_the_middle_of_deleting_or_importing_leaves_whole_snapshots_or_none() {
    let database = small_database(Cluster::shared(18), "killed");
    let repo = Repo::new();
    let (a, b) = (repo.create(&database), repo.create(&database));
    repo.backup(&["export", &a]);
    let killed = |arguments: &[&str], point: &str| {
        let output = repo.command("backup", arguments).env("SAFE_RUN_FAULT", point).output().unwrap();
        assert_eq!(output.status.code(), None, "{arguments:?} was not killed at {point}");
    };
    killed(&["delete", "-y", &a, &b], "backup.after-trash");
    assert_eq!(repo.ids(), [b.as_str()], "the first is gone, the second untouched");
    repo.backup(&["verify", "--all"]);
    let tar = format!("{a}.tar");
    for point in ["backup.before-manifest", "backup.before-rename"] {
        killed(&["import", &tar], point);
        assert_eq!(repo.ids(), [b.as_str()]);
    }
    killed(&["import", &tar], "backup.after-rename");
    repo.backup(&["verify", &a]);
    repo.backup(&["delete", "-y", &a, &b]);
    assert!(repo.ids().is_empty());
    repo.assert_tidy();
}

#[test]
fn deleting_and_reading_keep_out_of_each_others_way() {
    let database = small_database(Cluster::shared(18), "locked");
    let repo = Repo::new();
    let id = repo.create(&database);
    // Who reads holds the lock shared.
    let lock = std::fs::File::open(repo.root().join("locks/repository.lock")).unwrap();
    lock.lock_shared().unwrap();
    let (_, error) = repo.run("backup", &["delete", "-y", &id], 4);
    assert!(error.contains("another process uses the repository"), "{error}");
    assert_eq!(repo.ids(), [id.as_str()]);
    lock.unlock().unwrap();
    let deleter = std::fs::File::open(repo.root().join("locks/repository.lock")).unwrap();
    deleter.lock().unwrap();
    let name = format!("{}_r", database.name());
    repo.run("restore", &["-d", &database.url(), &id, "--into", &name], 4);
    repo.run("backup", &["verify", &id], 4);
    repo.run("backup", &["export", &id], 4);
    assert_eq!(database.family(), [database.name()]);
}

/// A database whose rows take long to load and no time to read.
fn slow_to_restore<'c>(cluster: &'c Cluster, name: &str) -> Database<'c> {
    let database = cluster.fresh_database(name);
    database.psql(
        "CREATE FUNCTION slow(int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RETURN true; END';
         CREATE TABLE t (i int CHECK (slow(i))); INSERT INTO t SELECT generate_series(1, 5000);
         CREATE OR REPLACE FUNCTION slow(int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.1); RETURN true; END'",
    );
    database
}

#[test]
fn a_drill_or_a_restore_from_an_archive_that_is_terminated_cleans_up() {
    let database = slow_to_restore(Cluster::shared(18), "terminated");
    let repo = Repo::new();
    let id = repo.create(&database);
    repo.backup(&["export", &id]);
    let tar = format!("{id}.tar");
    let into = format!("{}_into", database.name());
    let url = database.url();
    let log = repo.root().join("verifications.jsonl");
    for (program, arguments) in
        [("backup", vec!["drill", "-d", &url]), ("restore", vec!["-d", &url, &tar, "--into", &into])]
    {
        let mut child = repo.command(program, &arguments).spawn().unwrap();
        let loading =
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY%' AND datname LIKE '$NAME\\_%'";
        let loading = loading.replace("$NAME", database.name());
        while database.cluster().psql(&loading) == "0" {
            assert!(child.try_wait().unwrap().is_none(), "{program} ended too early");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let pid = child.id().to_string();
        assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(143), "{program}");
        assert_eq!(database.family(), [database.name()], "{program}");
        repo.assert_tidy();
        assert!(!log.exists(), "an interrupted drill says nothing about the snapshot");
    }
}

/// A copy of a snapshot with another id, as if the clock had stood elsewhere.
fn dated(repo: &Repo, id: &str, time: &str) -> String {
    let dated = format!("{time}{}", &id[16..]);
    let at = format!(
        "{}-{}-{}T{}:{}:{}Z",
        &time[..4],
        &time[4..6],
        &time[6..8],
        &time[9..11],
        &time[11..13],
        &time[13..15]
    );
    let folder = |id: &str| repo.root().join("snapshots").join(id);
    std::fs::rename(folder(id), folder(&dated)).unwrap();
    let manifest = folder(&dated).join("manifest.json");
    let text = std::fs::read_to_string(&manifest).unwrap().replace(id, &dated);
    let (_, body) = text.trim_end().split_once("\"snapshot\":").unwrap();
    let body = body.strip_suffix('}').unwrap();
    let (before, rest) = body.split_once("\"taken_at\":\"").unwrap();
    let (_, after) = rest.split_once('"').unwrap();
    let body = format!("{before}\"taken_at\":\"{at}\"{after}");
    std::fs::write(&manifest, &body).unwrap();
    let sum = std::process::Command::new("sha256sum").arg(&manifest).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap()[..64].to_owned();
    std::fs::write(&manifest, format!("{{\"sha256\":\"{sum}\",\"snapshot\":{body}}}\n")).unwrap();
    let order = repo.root().join("published.jsonl");
    let text = std::fs::read_to_string(&order).unwrap();
    std::fs::write(&order, text.replace(id, &dated)).unwrap();
    dated
}

#[test]
fn the_latest_is_what_was_published_last_and_never_from_the_future() {
    let database = Cluster::shared(18).fresh_database("order");
    database.psql("CREATE TABLE t AS SELECT 1 AS i");
    let repo = Repo::new();
    let first = repo.create(&database);
    let second = repo.create(&database);
    let shown = |repo: &Repo| repo.backup(&["show", "latest"]);
    assert!(shown(&repo).starts_with(&second));
    // The clock was two years behind when the last one was taken.
    let behind = dated(&repo, &second, "20240102T030405Z");
    assert!(shown(&repo).starts_with(&behind), "{}", shown(&repo));
    // And ahead before: named, and not taken.
    let ahead = dated(&repo, &behind, "20990102T030405Z");
    let (_, said) = repo.run("backup", &["show", "latest"], 3);
    for text in [ahead.as_str(), "dated in the future", "2099-01-02", first.as_str()] {
        assert!(said.contains(text), "{text}: {said}");
    }
    repo.run("restore", &["latest", "-d", &database.url()], 3);
    repo.run("backup", &["drill", "-d", &database.url()], 3);
    assert!(repo.backup(&["show", &ahead]).starts_with(&ahead));
    // One that comes after it is the latest, although its date is earlier.
    let third = repo.create(&database);
    assert!(shown(&repo).starts_with(&third));
    // Of another database there is none, and that is what is said.
    let (_, said) = repo.run("backup", &["list", "--database", "nope"], 0);
    assert!(
        said.contains("No snapshot of the database \"nope\"") && said.contains("there are 3 of"),
        "{said}"
    );
}
