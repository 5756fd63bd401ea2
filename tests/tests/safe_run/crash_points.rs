//! Every fault point in every kind of run. Killed at any of them, `recover` brings the database to the state before or to the
//! complete result, never between; the fence is gone, and so is everything that the run had made for itself.
//!
//! The matrix says which points a run passes, and a run that nobody kills proves it. A point of the source that stands in
//! no row fails [`every_fault_point_of_the_source_is_in_the_matrix`]. The kills are spread over all major versions.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use tests::oracle::fingerprint_without;
use tests::{Ended, Fingerprint, ProtectedRun, Running};

const MAJORS: [u32; 5] = [18, 14, 17, 15, 16];

/// What the runs that succeed do, in several transactions.
const CHANGES: &str =
    "ALTER TABLE users ADD nick text; UPDATE orders SET total = 0; CREATE TABLE made (i int)";
const COMMITS: &str = "psql -Xq -v ON_ERROR_STOP=1 -c 'ALTER TABLE users ADD nick text' \
    -c 'UPDATE orders SET total = 0' -c 'CREATE TABLE made (i int)'";

/// Nothing of the shop is left, nor of what belongs to the database itself.
const WRECKS: &str = "psql -Xq -v ON_ERROR_STOP=1 -c 'DROP SCHEMA public CASCADE' -c 'SELECT lo_unlink(900001)' \
    -c \"ALTER DATABASE \\\"$PGDATABASE\\\" SET work_mem = '1MB'\" -c \"ALTER DATABASE \\\"$PGDATABASE\\\" CONNECTION LIMIT 9\" \
    -c \"COMMENT ON DATABASE \\\"$PGDATABASE\\\" IS 'wrecked'\" -c \"GRANT ALL ON DATABASE \\\"$PGDATABASE\\\" TO PUBLIC\" \
    > wrecked || exit 9; exit 7";

type Files = &'static [(&'static str, &'static str)];

const FILES: Files = &[
    ("0001_a.sql", "ALTER TABLE users ADD nick text;\n"),
    ("0002_b.sql", "UPDATE orders SET total = 0;\nCREATE TABLE made (i int);\n"),
];
const IN_PARTS: Files = &[
    ("0001_a.sql", "ALTER TABLE users ADD nick text;\n"),
    ("0002_b.sql", "-- safe-run: no-transaction\nUPDATE orders SET total = 0;\nCREATE TABLE made (i int);\n"),
];
const FAILS_AT_ONCE: Files = &[("0001_a.sql", "ALTER TABLE users ADD nick text;\nSELECT 1 / 0;\n")];
const FAILS_LATE: Files = &[
    ("0001_a.sql", "ALTER TABLE users ADD nick text;\n"),
    ("0002_b.sql", "-- safe-run: no-transaction\nALTER TABLE orders ADD status text;\nSELECT 1 / 0;\n"),
];

/// One kind of run.
struct Flow {
    files: Files,
    prepared: Prepared,
    arguments: &'static [&'static str],
    /// How it ends if nobody kills it.
    exits: i32,
    /// The points that it passes, in order.
    passes: &'static [&'static [&'static str]],
    /// A flow that is the same up to some point: not killed before it once more.
    like: &'static str,
}

/// What comes before the run that is killed.
enum Prepared {
    Nothing,
    /// A run that ends like this.
    Run(i32, &'static [&'static str]),
    /// A run that is killed at this point.
    Killed(&'static str, &'static [&'static str]),
}

const FLOW: Flow =
    Flow { files: &[], prepared: Prepared::Nothing, arguments: &[], exits: 0, passes: &[], like: "" };

const READ_ONLY: &[&str] = &["safe-run.begun", "safe-run.fencing", "safe-run.read-only", "safe-run.fenced"];
const HIDDEN: &[&[&str]] = &[
    &["safe-run.begun", "safe-run.hiding", "safe-run.placeholder"],
    SWAP,
    &["safe-run.hidden", "safe-run.fenced"],
];
const CLONE: &[&str] = &["safe-run.cloning", "database.copied", "safe-run.clone-made", "safe-run.cloned"];
const BACKUP: &[&str] = &[
    "backup.begun",
    "backup.copied",
    "backup.before-manifest",
    "backup.before-rename",
    "backup.after-rename",
];
const READY: &[&str] = &["safe-run.snapshot", "safe-run.applying"];
const PARTS: &[&str] = &[
    "safe-run.before-file-commit",
    "safe-run.file-committed",
    "safe-run.statement-done",
    "safe-run.statement-done",
    "safe-run.file-committed",
];
const LOADED: &[&str] = &["restore.made", "restore.created", "restore.loaded", "restore.before-complete"];
const SWAP: &[&str] = &["restore.before-swap-commit", "restore.after-swap-commit"];
const WRITABLE: &[&str] = &["safe-run.writable", "safe-run.fence-lifted"];
const UNHIDDEN: &[&str] = &["safe-run.unhidden", "safe-run.fence-lifted"];
const APPLIED: &[&str] = &["safe-run.applied"];
const STANDS: &[&str] = &["safe-run.stands"];
const UNDONE: &[&str] = &["safe-run.undone"];
const UNDOING: &[&str] = &["safe-run.undoing"];
const BY_CLONE: &[&str] = &["safe-run.undoing-by-clone"];
const RELEASING: &[&str] = &["safe-run.releasing"];
const RELEASED: &[&str] = &["safe-run.released"];
const RECOVERING: &[&str] = &["safe-run.recovering"];
const RECOVERED: &[&str] = &["safe-run.recovered"];

macro_rules! flows {
    ($($name:ident: $flow:expr;)+) => {
        const FLOWS: &[(&str, Flow)] = &[$((stringify!($name), $flow)),+];
        mod killed_anywhere {
            $(#[test] fn $name() { super::is_killed_everywhere(stringify!($name)); })+
        }
    };
}

flows! {
    in_one_transaction: Flow {
        files: FILES,
        passes: &[
            &["safe-run.begun", "safe-run.fenced"], BACKUP, READY, APPLIED, &["safe-run.before-commit", "safe-run.after-commit"],
        ],
        ..FLOW
    };
    in_one_transaction_that_fails: Flow {
        files: FAILS_AT_ONCE,
        exits: 10,
        passes: &[&["safe-run.begun", "safe-run.fenced"], BACKUP, READY, &["safe-run.rolled-back"]],
        like: "in_one_transaction",
        ..FLOW
    };
    in_files_with_transactions_of_their_own: Flow {
        files: IN_PARTS,
        passes: &[READ_ONLY, BACKUP, READY, PARTS, APPLIED, WRITABLE, STANDS],
        ..FLOW
    };
    in_files_of_which_the_first_fails: Flow {
        files: FAILS_AT_ONCE,
        arguments: &["--fence", "read-only"],
        exits: 10,
        passes: &[READ_ONLY, BACKUP, READY, &["safe-run.rolled-back"], WRITABLE],
        like: "in_files_with_transactions_of_their_own",
        ..FLOW
    };
    in_files_of_which_the_last_fails: Flow {
        files: FAILS_LATE,
        exits: 12,
        passes: &[
            READ_ONLY, BACKUP, READY,
            &["safe-run.before-file-commit", "safe-run.file-committed", "safe-run.statement-done"],
            UNDOING, LOADED, SWAP, UNDONE, WRITABLE,
        ],
        like: "in_files_with_transactions_of_their_own",
        ..FLOW
    };
    in_files_behind_the_exclusive_fence: Flow {
        files: IN_PARTS,
        arguments: &["--fence", "exclusive"],
        passes: &[HIDDEN[0], HIDDEN[1], HIDDEN[2], BACKUP, READY, PARTS, APPLIED, SWAP, UNHIDDEN, STANDS],
        ..FLOW
    };
    in_a_command: Flow {
        arguments: &["--", "sh", "-c", COMMITS],
        passes: &[READ_ONLY, BACKUP, READY, APPLIED, WRITABLE, STANDS],
        like: "in_files_with_transactions_of_their_own",
        ..FLOW
    };
    in_a_command_that_fails: Flow {
        arguments: &["--", "sh", "-c", WRECKS],
        exits: 12,
        passes: &[READ_ONLY, BACKUP, READY, UNDOING, LOADED, SWAP, UNDONE, WRITABLE],
        like: "in_a_command",
        ..FLOW
    };
    in_a_command_behind_the_exclusive_fence: Flow {
        arguments: &["--fence", "exclusive", "--", "sh", "-c", COMMITS],
        passes: &[HIDDEN[0], HIDDEN[1], HIDDEN[2], BACKUP, READY, APPLIED, SWAP, UNHIDDEN, STANDS],
        like: "in_files_behind_the_exclusive_fence",
        ..FLOW
    };
    in_a_command_that_fails_behind_the_exclusive_fence: Flow {
        arguments: &["--fence", "exclusive", "--", "sh", "-c", WRECKS],
        exits: 12,
        passes: &[
            HIDDEN[0], HIDDEN[1], HIDDEN[2], BACKUP, READY, UNDOING, LOADED, SWAP, UNDONE, SWAP, UNHIDDEN,
        ],
        like: "in_a_command_behind_the_exclusive_fence",
        ..FLOW
    };
    with_a_clone: Flow {
        arguments: &["--snapshot", "clone", "--", "sh", "-c", COMMITS],
        passes: &[READ_ONLY, CLONE, READY, APPLIED, WRITABLE, STANDS],
        like: "in_a_command",
        ..FLOW
    };
    with_a_clone_that_is_needed: Flow {
        arguments: &["--snapshot", "clone", "--", "sh", "-c", WRECKS],
        exits: 12,
        passes: &[READ_ONLY, CLONE, READY, BY_CLONE, SWAP, UNDONE, WRITABLE],
        like: "with_a_clone",
        ..FLOW
    };
    with_a_clone_that_is_needed_behind_the_exclusive_fence: Flow {
        arguments: &["--fence", "exclusive", "--snapshot", "both", "--", "sh", "-c", WRECKS],
        exits: 12,
        passes: &[
            HIDDEN[0], HIDDEN[1], HIDDEN[2], CLONE, BACKUP, READY, BY_CLONE, SWAP, UNDONE, SWAP, UNHIDDEN,
        ],
        like: "in_a_command_behind_the_exclusive_fence",
        ..FLOW
    };
    in_the_release_of_a_read_only_fence: Flow {
        prepared: Prepared::Run(0, &["--hold-fence", "--", "sh", "-c", COMMITS]),
        arguments: &["release"],
        passes: &[RELEASING, &["safe-run.writable"], RELEASED],
        ..FLOW
    };
    in_the_release_of_an_exclusive_fence: Flow {
        prepared: Prepared::Run(0, &["--hold-fence", "--fence", "exclusive", "--", "sh", "-c", COMMITS]),
        arguments: &["release"],
        passes: &[RELEASING, SWAP, &["safe-run.unhidden"], RELEASED],
        ..FLOW
    };
    in_the_release_after_an_undo: Flow {
        prepared: Prepared::Run(12, &["--hold-fence", "--snapshot", "clone", "--", "sh", "-c", WRECKS]),
        arguments: &["release"],
        passes: &[RELEASING, &["safe-run.writable"], RELEASED],
        ..FLOW
    };
    in_a_recovery_that_lifts_the_read_only_fence: Flow {
        prepared: Prepared::Killed("safe-run.fenced", &["--", "sh", "-c", WRECKS]),
        arguments: &["recover"],
        passes: &[WRITABLE, RECOVERED],
        ..FLOW
    };
    in_a_recovery_that_lifts_the_exclusive_fence: Flow {
        prepared: Prepared::Killed("safe-run.hidden", &["--fence", "exclusive", "--", "sh", "-c", WRECKS]),
        arguments: &["recover"],
        passes: &[SWAP, UNHIDDEN, RECOVERED],
        ..FLOW
    };
    in_a_recovery_that_lifts_the_exclusive_fence_of_what_stands: Flow {
        prepared: Prepared::Killed("restore.before-swap-commit#2", &["--fence", "exclusive", "--", "sh", "-c", COMMITS]),
        arguments: &["recover"],
        passes: &[SWAP, UNHIDDEN, RECOVERED],
        ..FLOW
    };
    in_a_recovery_that_restores: Flow {
        prepared: Prepared::Killed("safe-run.undoing", &["--", "sh", "-c", WRECKS]),
        arguments: &["recover"],
        passes: &[RECOVERING, LOADED, SWAP, WRITABLE, RECOVERED],
        ..FLOW
    };
    in_a_recovery_that_restores_behind_the_exclusive_fence: Flow {
        prepared: Prepared::Killed("safe-run.undoing", &["--fence", "exclusive", "--", "sh", "-c", WRECKS]),
        arguments: &["recover"],
        passes: &[RECOVERING, LOADED, SWAP, SWAP, UNHIDDEN, RECOVERED],
        ..FLOW
    };
    in_a_recovery_that_swaps_the_clone_in: Flow {
        prepared: Prepared::Killed("safe-run.undoing-by-clone", &["--snapshot", "clone", "--", "sh", "-c", WRECKS]),
        arguments: &["recover"],
        passes: &[RECOVERING, SWAP, WRITABLE, RECOVERED],
        ..FLOW
    };
    in_a_recovery_that_drops_the_clone: Flow {
        prepared: Prepared::Killed("safe-run.fence-lifted", &["--snapshot", "clone", "--", "sh", "-c", COMMITS]),
        arguments: &["recover"],
        passes: &[WRITABLE, &["safe-run.clone-dropped"], RECOVERED],
        ..FLOW
    };
    in_the_recovery_of_a_transaction: Flow {
        files: FILES,
        prepared: Prepared::Killed("safe-run.after-commit", &[]),
        arguments: &["recover"],
        passes: &[RECOVERED],
        ..FLOW
    };
    in_the_recovery_of_a_transaction_that_was_rolled_back: Flow {
        files: FILES,
        prepared: Prepared::Killed("safe-run.applied", &[]),
        arguments: &["recover"],
        passes: &[RECOVERED],
        ..FLOW
    };
}

impl Flow {
    fn points(&self) -> Vec<&'static str> {
        self.passes.concat()
    }

    /// What to kill it at: `name#2` is the second time. The steps of a snapshot are the same behind every fence.
    fn kills(&self) -> Vec<String> {
        let like = FLOWS.iter().find(|(name, _)| *name == self.like);
        assert_eq!(like.is_some(), !self.like.is_empty(), "no flow is called {}", self.like);
        let known = like.map_or(Vec::new(), |(_, flow)| flow.points());
        let points = self.points();
        let same = points.iter().zip(&known).take_while(|(a, b)| a == b).count();
        let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
        let mut kills = Vec::new();
        for (place, point) in points.into_iter().enumerate() {
            let time = seen.entry(point).or_default();
            *time += 1;
            let again = point.starts_with("backup.") && self.arguments.contains(&"exclusive");
            if place >= same && !again {
                kills.push(format!("{point}#{time}"));
            }
        }
        kills
    }

    /// Up to where it is killed.
    fn prepare(&self, major: u32) -> ProtectedRun<'static> {
        let run = ProtectedRun::shop(major);
        for (name, sql) in self.files {
            run.migration(name, sql);
        }
        match self.prepared {
            Prepared::Nothing => {}
            Prepared::Run(code, arguments) => drop(run.run(arguments).exits(code)),
            Prepared::Killed(point, arguments) => drop(run.crash(point, arguments)),
        }
        run
    }
}

/// The two states that there may be in the end, on one major version.
struct States {
    before: Fingerprint,
    complete: Fingerprint,
}

impl States {
    fn of(major: u32) -> States {
        let run = ProtectedRun::shop(major);
        let before = run.fingerprint();
        run.database.psql(CHANGES);
        States { before, complete: run.fingerprint() }
    }
}

fn is_killed_everywhere(name: &str) {
    let number = FLOWS.iter().position(|(known, _)| *known == name).unwrap();
    let flow = &FLOWS[number].1;
    let mut states: BTreeMap<u32, States> = BTreeMap::new();
    // Nobody kills it.
    let major = MAJORS[number % MAJORS.len()];
    let run = flow.prepare(major);
    let (ended, points) = walk(&run, flow);
    let ended = ended.exits(flow.exits);
    assert_eq!(points, flow.points(), "other points than in the matrix: {ended}");
    let complete_in_the_end =
        is_complete(&run, states.entry(major).or_insert_with(|| States::of(major)), name);
    // Once it stands it stands, wherever it dies.
    let mut stood = false;
    let kills = flow.kills();
    assert!(!kills.is_empty(), "nothing of {name} is killed");
    for (place, point) in kills.iter().enumerate() {
        let major = MAJORS[(number + place) % MAJORS.len()];
        let run = flow.prepare(major);
        drop(run.crash(point, flow.arguments));
        let at = format!("{name} at {point} on PostgreSQL {major}");
        let id = run.runs().pop().expect("the run has a folder");
        if flow.arguments != ["release"] {
            run.run(&["--lock-retries", "0", "--", "true"]).exits(3).says(&id).says("safe-run recover");
            run.run(&["recover"]).exits(0).says(&id);
        }
        run.run(&["release"]).exits(0);
        let stands = is_complete(&run, states.entry(major).or_insert_with(|| States::of(major)), &at);
        assert!(stands || !stood, "{at}: what stood at an earlier point does not stand any more");
        assert!(complete_in_the_end || !stands, "{at}: what never stands does so after a crash");
        stood = stands;
        run.run(&["recover"]).exits(0).says("Nothing to recover");
        run.run(&["release"]).exits(0).says("Nothing to release");
        if name == "in_one_transaction" && !stands {
            run.run(&[]).exits(0).verdict("COMMITTED");
            assert!(is_complete(&run, &states[&major], &at));
        }
    }
    assert_eq!(stood, complete_in_the_end, "killed at its last point, {name} ends differently");
}

/// Runs it to its end; the points that it passes, in order.
fn walk(run: &ProtectedRun, flow: &Flow) -> (Ended, Vec<String>) {
    let file = run.folder().join("trace");
    let mut command = run.command(flow.arguments);
    command.env("SAFE_RUN_FAULT_TRACE", &file);
    let ended = Running::start(command).outcome();
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    (ended, text.lines().map(str::to_owned).collect())
}

/// Whether the complete result is there; if not, it has to be the state before, and what safe-run says has to fit. No fence
/// stands, and no other database is left but a failed one that was replaced.
#[track_caller]
fn is_complete(run: &ProtectedRun, states: &States, at: &str) -> bool {
    let history = run.run(&["history", "--json"]).exits(0).stdout;
    let says_complete = history.rsplit("\"verdict\"").next().is_some_and(|last| last.contains("COMMITTED"));
    let wanted = if says_complete { &states.complete } else { &states.before };
    let found = fingerprint_without(&run.database.url(), if says_complete { &["safe_run"] } else { &[] });
    let diff = wanted.diff(&found);
    assert!(diff.is_empty(), "{at}, said complete: {says_complete} (- wanted, + found):\n{diff}\n{history}");
    run.assert_open();
    let left = run.others();
    assert!(left.iter().all(|name| name.contains("_replaced_")), "{at}: left: {left:?}");
    says_complete
}

/// Tests that kill where a setting of the server is needed, or a file of SQLite.
const ELSEWHERE: &[(&str, &[&str])] = &[
    (
        "a_killed_run_leaves_no_slot_once_it_is_recovered",
        &["safe-run.slot-making", "safe-run.slot-made", "safe-run.writes-saved", "safe-run.slot-dropped"],
    ),
    ("what_a_trial_left_that_was_killed_before_it_had_its_mark_is_dropped", &["safe-run.trial-made"]),
    (
        "a_killed_import_leaves_the_database_as_it_was",
        &[
            "safe-run.import-ready",
            "safe-run.import-table",
            "safe-run.import-loaded",
            "safe-run.import-finished",
        ],
    ),
];

#[test]
fn every_fault_point_of_the_source_is_in_the_matrix() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let killed: BTreeSet<String> = FLOWS
        .iter()
        .flat_map(|(_, flow)| flow.kills())
        .map(|kill| kill.split('#').next().unwrap_or_default().to_owned())
        .collect();
    // Points that no run of the matrix passes are killed in tests of their own.
    let mut others = String::new();
    read(&root.join("tests/tests"), &mut others);
    let elsewhere = |point: &str| {
        ELSEWHERE.iter().any(|(test, points)| {
            let body =
                others.split(&format!("fn {test}(")).nth(1).and_then(|rest| rest.split("\n}\n").next());
            points.contains(&point) && body.is_some_and(|body| body.contains(&format!("\"{point}\"")))
        })
    };
    let mut count = 0;
    for package in ["common", "common/store", "backup", "restore", "safe-run"] {
        let mut source = String::new();
        read(&root.join(package).join("src"), &mut source);
        for rest in source.split("fault::point(\"").skip(1) {
            let point = rest.split('"').next().unwrap();
            let is_ours = package == "safe-run" || point.starts_with("safe-run.");
            let is_killed = killed.contains(point)
                || if is_ours { elsewhere(point) } else { others.contains(&format!("\"{point}\"")) };
            assert!(is_killed, "no test kills {package} at {point}");
            count += 1;
        }
    }
    assert!(count > 40, "{count} fault points");
}

fn read(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(&path, text);
        } else if path.extension().is_some_and(|end| end == "rs")
            && !path.ends_with("safe_run_crash_points.rs")
        {
            text.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
}
