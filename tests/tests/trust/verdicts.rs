//! Every verdict of the three programs: the case that leads to it, its first line, and its word in JSON.
//!
//! The cases are real ones on a real server. A verdict that is added without a case fails here, and one without a row in
//! docs/verdicts.md too.

use std::collections::BTreeSet;

use common::Verdict;
use tests::{Outcome, Running, binaries, cluster::Cluster, outcome::Snapshots, protected_run::ProtectedRun};

/// First lines and JSON words, as they are collected.
struct Golden {
    lines: Vec<String>,
    seen: BTreeSet<String>,
    /// What is another in each run, and what stands for it.
    names: Vec<(String, &'static str)>,
}

impl Golden {
    fn new(names: Vec<(String, &'static str)>) -> Golden {
        Golden { lines: Vec::new(), seen: BTreeSet::new(), names }
    }

    /// The line that begins with the verdict's word, and the word of the JSON where the same command was run with `--json`.
    #[track_caller]
    fn take(&mut self, case: &str, verdict: Verdict, said: &str, json: Option<&str>) {
        let line = said.lines().find(|line| line.starts_with(verdict.word()));
        let line = line.unwrap_or_else(|| panic!("{case}: {} is not said:\n{said}", verdict.word()));
        if let Some(json) = json {
            let document: serde_json::Value =
                serde_json::from_str(json).unwrap_or_else(|error| panic!("{case}: {error}: {json}"));
            let found = document.get("verdict").or_else(|| document.pointer("/verified/0/verdict"));
            assert_eq!(found, Some(&serde_json::to_value(verdict).expect("a word")), "{case}: {json}");
        }
        let line = self.names.iter().fold(line.to_owned(), |line, (name, stands)| line.replace(name, stands));
        self.lines.push(format!("{case}: {}", masked(&line)));
        self.seen.insert(verdict.word().to_owned());
    }

    /// Every verdict of this kind was taken.
    fn assert_all(&self, is_wanted: impl Fn(Verdict) -> bool) {
        for verdict in Verdict::ALL.iter().filter(|verdict| is_wanted(**verdict)) {
            assert!(self.seen.contains(verdict.word()), "no case for {}", verdict.word());
        }
    }
}

/// Whether it is one of `safe-run`, or of both. A verdict that is added does not compile before it is put into one of the two.
fn is_of_a_run(verdict: Verdict) -> bool {
    match verdict {
        Verdict::Snapshot
        | Verdict::PartialSnapshot
        | Verdict::Ok
        | Verdict::Damaged
        | Verdict::DrillOk
        | Verdict::Ready
        | Verdict::ReadyFor
        | Verdict::NotReady
        | Verdict::RestoredWithMissing
        | Verdict::Replaced => false,
        Verdict::Restored
        | Verdict::UpToDate
        | Verdict::Committed
        | Verdict::RolledBack
        | Verdict::Stopped
        | Verdict::NotRun
        | Verdict::NotConnected
        | Verdict::UnknownState
        | Verdict::Unfinished
        | Verdict::Released
        | Verdict::Clean
        | Verdict::CleanSoFar
        | Verdict::NotChecked
        | Verdict::NothingChecked
        | Verdict::Violations => true,
    }
}

/// Ids, times and sizes are others in each run.
fn masked(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let bare = |word: &str| word.trim_end_matches([',', ';', ':', ')']).to_owned();
    let is_number = |word: &str| word.parse::<f64>().is_ok();
    let is_id = |word: &str| {
        word.len() > 16 && word.as_bytes()[..8].iter().all(u8::is_ascii_digit) && word.as_bytes()[8] == b'T'
    };
    let shown = words.iter().enumerate().map(|(at, word)| {
        let unit = words.get(at + 1).map(|next| bare(next)).unwrap_or_default();
        let is_amount = ["ms", "s", "min", "h", "B", "kB", "MB", "GB"].contains(&unit.as_str());
        match bare(word) {
            id if is_id(&id) => word.replace(&id, "<id>"),
            pid if at > 0 && words[at - 1] == "pid" && is_number(&pid) => word.replace(&pid, "<pid>"),
            number if is_number(&number) && is_amount => word.replace(&number, "<n>"),
            _ => (*word).to_owned(),
        }
    });
    let line = shown.collect::<Vec<_>>().join(" ");
    // `5 min 02 s`
    line.replace("<n> min <n> s", "<n> s").replace("<n> ms", "<n> s").replace("<n> MB", "<n> kB")
}

/// The verdicts about snapshots.
#[test]
fn every_verdict_of_backup_and_restore_is_what_its_case_holds() {
    let run = ProtectedRun::shop(18);
    let database = &run.database;
    let url = database.url();
    let snapshots = Snapshots::new();
    let mut golden = Golden::new(vec![
        (database.name().to_owned(), "shop"),
        (database.cluster().socket_dir().display().to_string(), "<socket>"),
    ]);
    let both = |program: &str, url: &str, arguments: &[&str], code: i32| {
        let told = snapshots.run(program, url, arguments).expect(code);
        let json = snapshots.run(program, url, &[arguments, &["--json"]].concat()).expect(code);
        (format!("{}{}", told.stdout, told.stderr), json.stdout)
    };
    let mut case = |case: &str, verdict: Verdict, (said, json): (String, String)| {
        golden.take(case, verdict, &said, Some(&json));
    };

    case("create", Verdict::Snapshot, both("backup", &url, &["create"], 0));
    case(
        "create --table",
        Verdict::PartialSnapshot,
        both("backup", &url, &["create", "--table", "users"], 0),
    );
    let ids = snapshots.ids();
    let id = ids[0].as_str();
    case("verify", Verdict::Ok, both("backup", &url, &["verify", id], 0));
    case("drill", Verdict::DrillOk, both("backup", &url, &["drill", id], 0));
    case("check", Verdict::Ready, both("backup", &url, &["check"], 0));
    case(
        "replaced",
        Verdict::Replaced,
        both("restore", &url, &[id, "--table", "audit", "--replace", "-y"], 0),
    );
    let into = |name: &str| format!("{}_{name}", database.name());
    let restored = |name: &str| {
        let told = snapshots.run("restore", &url, &[id, "--into", &into(name)]).expect(0);
        let json =
            snapshots.run("restore", &url, &[id, "--into", &into(&format!("{name}j")), "--json"]).expect(0);
        (told.stderr, json.stdout)
    };
    case("restore", Verdict::Restored, restored("plain"));

    // A generated column whose function is another now: no row is lost, and the value differs.
    database.psql(
        "CREATE FUNCTION one() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1';
         CREATE TABLE generated (i int, g int GENERATED ALWAYS AS (one() + i) STORED); INSERT INTO generated VALUES (1);
         CREATE OR REPLACE FUNCTION one() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 2'",
    );
    let differing = snapshots.create(database, &[]);
    let told = |arguments: &[&str]| snapshots.run("restore", &url, arguments).expect(0);
    let text = told(&[&differing, "--into", &into("differs")]);
    let json = told(&[&differing, "--into", &into("differsj"), "--json"]);
    assert!(text.stderr.contains("differs: generated column of generated (g)"), "{}", text.stderr);
    case("restore of what differs", Verdict::Restored, (text.stderr, json.stdout));
    case("drill of what differs", Verdict::DrillOk, both("backup", &url, &["drill", &differing], 0));

    // A role that can read everything and make no database.
    let cluster = database.cluster();
    let reader = format!("{}_reader", database.name());
    cluster.psql(&format!("CREATE ROLE {reader} LOGIN IN ROLE pg_read_all_data"));
    database.psql(&format!("GRANT SELECT ON pg_largeobject TO {reader}"));
    let as_reader = cluster.url_as(&reader, database.name());
    let ready = both("backup", &as_reader, &["check"], 0);
    let not_ready = both("backup", &as_reader, &["check", "--can", "restore"], 3);
    database.psql(&format!("DROP OWNED BY {reader}"));
    cluster.psql(&format!("DROP ROLE {reader}"));
    let plain = |(said, json): (String, String)| (said.replace(&reader, "reader"), json);
    case("check of a reader", Verdict::ReadyFor, plain(ready));
    case("check --can restore of a reader", Verdict::NotReady, plain(not_ready));

    // What an older server does not know.
    database.psql("CREATE TABLE virtual (i int, v int GENERATED ALWAYS AS (i + 1) VIRTUAL)");
    let newer = snapshots.create(database, &[]);
    let older = Cluster::shared(14).fresh_database("older");
    let forced = |name: &str, json: &[&str]| {
        let name = format!("{}_{name}", older.name());
        let arguments = [&[newer.as_str(), "--into", &name, "--force"], json].concat();
        snapshots.run("restore", &older.url(), &arguments).expect(1)
    };
    let (text, json) = (forced("text", &[]), forced("json", &["--json"]));
    let said = text.stderr.replace(older.name(), "older");
    case("restore --force on 14", Verdict::RestoredWithMissing, (said, json.stdout));
    let part = [newer.as_str(), "--table", "virtual", "--into", &format!("{}_part", older.name()), "--force"];
    snapshots.run("restore", &older.url(), &part).fails(1, &["The new database holds everything else."]);

    let chunk = snapshots.chunks(id).remove(0);
    let mut bytes = std::fs::read(&chunk).expect("a chunk");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&chunk, bytes).expect("a chunk");
    case("verify of a flipped bit", Verdict::Damaged, both("backup", &url, &["verify", id], 6));

    golden.assert_all(|verdict| !is_of_a_run(verdict));
    insta::assert_snapshot!(golden.lines.join("\n"));
}

/// The verdicts about runs and checks.
#[test]
fn every_verdict_of_safe_run_is_what_its_case_holds() {
    let run = ProtectedRun::shop(18);
    let mut golden = Golden::new(vec![
        (run.database.name().to_owned(), "shop"),
        (run.database.cluster().socket_dir().display().to_string(), "<socket>"),
    ]);
    let report = || run.run(&["report", "--json"]).exits(0).stdout;

    run.migration("1_a.sql", "ALTER TABLE audit ADD COLUMN b int;\n");
    let said = run.run(&[]).exits(0).stdout;
    golden.take("a migration", Verdict::Committed, &said, Some(&report()));
    let (said, json) = (run.run(&[]).exits(0).stdout, run.run(&["--json"]).exits(0).stdout);
    golden.take("nothing pending", Verdict::UpToDate, &said, Some(&json));
    run.migration("2_b.sql", "DELETE FROM order_items WHERE id < 5;\n");
    let said = run.run(&["--max-loss", "0%"]).exits(11).stdout;
    golden.take("rows lost", Verdict::RolledBack, &said, Some(&report()));
    std::fs::remove_file(run.folder().join("migrations/2_b.sql")).expect("it is there");

    let fails = ["--", "sh", "-c", "psql -Xqc 'DROP TABLE audit'; exit 3"];
    let said = run.run(&[&["--snapshot", "file"], &fails[..]].concat()).exits(12).stdout;
    golden.take("a command fails, by file", Verdict::Restored, &said, Some(&report()));
    let said = run.run(&[&["--snapshot", "clone"], &fails[..]].concat()).exits(12).stdout;
    golden.take("a command fails, by clone", Verdict::Restored, &said, Some(&report()));
    let said = run.run(&["--", "true"]).exits(1).stdout;
    golden.take("a command that never connects", Verdict::NotConnected, &said, None);
    run.migration("3_c.sql", "ALTER TABLE audit ADD COLUMN c int;\n");
    let mut other = run.database.session();
    other.run("BEGIN; UPDATE orders SET note = 'in the way' WHERE id = 1");
    let said = run.run(&["--lock-timeout", "100ms", "--lock-retries", "0"]).exits(4).stdout;
    golden.take("a lock is not had", Verdict::NotRun, &said, Some(&report()));
    other.run("ROLLBACK");
    std::fs::remove_file(run.folder().join("migrations/3_c.sql")).expect("it is there");
    let said = run.run(&["--only", "structure", "--", "psql", "-Xqc", "SELECT 1"]).exits(0).stdout;
    golden.take("nothing to check", Verdict::Committed, &said, Some(&report()));

    let checked = |arguments: &[&str], code: i32| {
        let said = run.run(&[&["check"], arguments].concat()).exits(code).stdout;
        (said, run.run(&[&["check", "--json"], arguments].concat()).exits(code).stdout)
    };
    let (said, json) = checked(&[], 0);
    golden.take("check", Verdict::Clean, &said, Some(&json));
    let (said, json) = checked(&["--only", "structure"], 0);
    golden.take("check of nothing", Verdict::NothingChecked, &said, Some(&json));

    // A role that may not read one table: what it may read holds.
    let cluster = run.database.cluster();
    let reader = format!("{}_reader", run.database.name());
    cluster.psql(&format!("CREATE ROLE {reader} LOGIN"));
    run.database.psql(&format!("GRANT SELECT ON users, orders TO {reader}"));
    let as_reader = |arguments: &[&str], code: i32| {
        let mut command = run.command(&[&["check"], arguments].concat());
        command.env("DATABASE_URL", cluster.url_as(&reader, run.database.name()));
        Running::start(command).outcome().exits(code).stdout
    };
    let so_far = (as_reader(&[], 0), as_reader(&["--json"], 0));
    let strict = (as_reader(&["--strict"], 31), as_reader(&["--strict", "--json"], 31));
    run.database.psql(&format!("DROP OWNED BY {reader}"));
    cluster.psql(&format!("DROP ROLE {reader}"));
    golden.take("check of a reader", Verdict::CleanSoFar, &so_far.0, Some(&so_far.1));
    golden.take("check --strict of a reader", Verdict::NotChecked, &strict.0, Some(&strict.1));

    run.database.psql(
        "SET session_replication_role = replica; INSERT INTO order_items (order_id, sku) VALUES (9999, 'x')",
    );
    let (said, json) = checked(&[], 31);
    golden.take("check with an orphan", Verdict::Violations, &said, Some(&json));
    run.database.psql("DELETE FROM order_items WHERE order_id = 9999");

    run.run(&["--hold-fence", "--fence", "read-only", "--", "psql", "-Xqc", "CREATE TABLE held ()"]).exits(0);
    golden.take("release", Verdict::Released, &run.run(&["release"]).exits(0).stdout, None);
    let stop = ["--on-failure", "stop", "--", "sh", "-c", "psql -Xqc 'CREATE TABLE left_behind ()'; exit 3"];
    let said = run.run(&stop).exits(14).stdout;
    golden.take("--on-failure stop", Verdict::Stopped, &said, Some(&report()));
    run.run(&["recover", "--keep"]).exits(0);

    // The undo itself fails: its snapshot is gone by then.
    let wreck = "psql -Xqc 'DROP TABLE left_behind'; rm -rf snapshots/snapshots; exit 3";
    let said = run.run(&["--snapshot", "file", "--", "sh", "-c", wreck]).exits(20).stdout;
    golden.take("the undo fails", Verdict::UnknownState, &said, Some(&report()));
    run.run(&["recover", "--keep"]).exits(0);
    run.crash("safe-run.applied", &["--snapshot", "clone", "--", "psql", "-Xqc", "CREATE TABLE half ()"]);
    let history = run.run(&["history"]).exits(0).stdout;
    let word = Verdict::Unfinished.word();
    let line = history.lines().find(|line| line.contains(word)).expect("the killed run");
    let line = line[line.find(word).expect("its verdict")..].split_whitespace().collect::<Vec<_>>().join(" ");
    golden.take("a run is killed", Verdict::Unfinished, &line, None);
    run.run(&["recover", "--undo"]).exits(0);

    golden.assert_all(is_of_a_run);
    insta::assert_snapshot!(golden.lines.join("\n"));
}

#[test]
fn the_documentation_has_a_row_for_every_verdict_and_no_other() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/verdicts.md");
    let text = std::fs::read_to_string(path).expect("docs/verdicts.md");
    let table = text.split("\n## ").next().expect("the first part");
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| `")).collect();
    let wanted: Vec<String> = Verdict::ALL
        .iter()
        .map(|verdict| {
            let word = if *verdict == Verdict::ReadyFor { "READY to …" } else { verdict.word() };
            format!(
                "| `{word}` | `{}` |",
                serde_json::to_value(verdict).expect("a word").as_str().expect("a word")
            )
        })
        .collect();
    assert_eq!(rows.len(), wanted.len(), "{rows:?}");
    for (row, wanted) in rows.iter().zip(&wanted) {
        assert!(row.starts_with(wanted), "{row}\nbegins otherwise than\n{wanted}");
    }
}

/// A word that is nobody's is still told from a usage error.
#[test]
fn a_mistyped_command_is_answered_with_the_one_that_was_meant() {
    for (program, word, meant) in
        [("safe-run", "staus", "status"), ("backup", "creat", "create"), ("backup", "dril", "drill")]
    {
        let outcome = Outcome::of(binaries::command(program).arg(word)).expect(2);
        assert!(outcome.stderr.contains(meant), "{program} {word}: {}", outcome.stderr);
    }
}

#[test]
fn the_manual_page_is_asked_for_in_the_same_way_in_all_three() {
    for program in ["backup", "restore", "safe-run"] {
        let page = |argument: &str| Outcome::of(binaries::command(program).arg(argument)).expect(0).stdout;
        assert!(page("--man").contains(".TH "), "{program}");
        assert_eq!(page("--man"), page("man"), "{program}");
        let script = Outcome::of(binaries::command(program).args(["--completions", "bash"])).expect(0).stdout;
        assert!(script.contains(program), "{program}");
    }
}
