//! `backup schedule`: what it runs, what it keeps, when it shouts, and what of it is seen from outside.

use std::process::Command;

use tests::daemon::{Listener, get};
use tests::{Cluster, Daemon, Database, Outcome, Snapshots, until};

/// How much faster the clock of a scheduler runs that shall run every hour: an hour is a second.
const FAST: &str = "3600";

fn database<'c>(cluster: &'c Cluster, name: &str) -> Database<'c> {
    let database = cluster.fresh_database(name);
    database.psql(
        "CREATE TABLE orders (id int PRIMARY KEY, v text); CREATE TABLE notes (id int);
         INSERT INTO orders SELECT i, 'order ' || i FROM generate_series(1, 1000) i; INSERT INTO notes VALUES (1)",
    );
    database
}

fn once(repo: &Snapshots, database: &Database, arguments: &[&str]) -> Outcome {
    repo.run("backup", &database.url(), &[&["schedule", "--once", "--trash-grace", "0s"], arguments].concat())
}

fn scheduler(repo: &Snapshots, database: &Database, arguments: &[&str]) -> Command {
    let arguments = [&["schedule", "--trash-grace", "0s", "--listen", "127.0.0.1:0"], arguments].concat();
    let mut command = repo.command("backup", &database.url(), &arguments);
    command.env("SAFE_RUN_CLOCK_SPEED", FAST);
    command
}

/// The value of a metric of the only job.
fn metric(body: &str, name: &str) -> Option<f64> {
    let line = body.lines().find(|line| line.starts_with(&format!("safe_run_backup_{name}{{")))?;
    line.rsplit(' ').next()?.parse().ok()
}

fn attempts(repo: &Snapshots, job: &str) -> Vec<serde_json::Value> {
    let path = repo.path().join("schedule").join(format!("{job}.jsonl"));
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_coming_runs_are_printed_in_local_time_and_utc() {
    let repo = Snapshots::new();
    let arguments =
        ["schedule", "--cron", "30 2 * * *", "--timezone", "Europe/Berlin", "--next", "3", "--json"];
    let shown = repo.run("backup", "postgresql://x@localhost/shop", &arguments).expect(0).stdout;
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let runs = shown["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 3);
    for run in runs {
        assert!(
            run["local"].as_str().unwrap().contains(" 02:30 CE")
                || run["local"].as_str().unwrap().contains(" 03:00 CE")
        );
        assert_eq!((run["job"].as_str(), run["work"].as_str()), (Some("shop"), Some("backup")));
    }
    // The variable of crontabs counts too; the expression's own zone beats it.
    for (expression, zone) in [("30 2 * * *", "Asia/Tokyo"), ("CRON_TZ=Asia/Tokyo 30 2 * * *", "UTC")] {
        let arguments = ["schedule", "--cron", expression, "--next", "1"];
        let mut command = repo.command("backup", "postgresql://x@localhost/shop", &arguments);
        let shown = Outcome::of(command.env("CRON_TZ", zone)).expect(0).stdout;
        assert!(shown.contains(" 02:30 JST") && shown.contains(" 17:30:00Z"), "{shown}");
    }
    let wrong = ["schedule", "--cron", "30 2 * * *", "--timezone", "Berlin", "--next"];
    repo.run("backup", "postgresql://x@localhost/shop", &wrong).fails(2, &["\"Berlin\" is not a time zone"]);
    repo.run("backup", "postgresql://x@localhost/shop", &["schedule"]).fails(2, &["--cron"]);
}

/// The story of a database that somebody emptied at night.
fn a_loss_raises_the_alarm(major: u32) {
    let database = database(Cluster::shared(major), "alarm");
    let repo = Snapshots::new();
    let keep_one = ["--keep-last", "1", "--keep-min", "1"];
    let first = once(&repo, &database, &keep_one).expect(0).stdout.trim().to_owned();
    let second = once(&repo, &database, &keep_one).expect(0).stdout.trim().to_owned();
    assert_eq!(repo.ids(), [second.as_str()], "pruned after a verified success: {first}");

    database.psql("DELETE FROM orders WHERE id > 400; DROP TABLE notes");
    let third = once(&repo, &database, &keep_one).fails(
        14,
        &["table orders has 400 rows instead of 1,000", "table notes is gone", "backup acknowledge"],
    );
    let third = third.stdout.trim().to_owned();
    // The next night looks like the one before, and still nothing goes.
    once(&repo, &database, &keep_one).fails(14, &["table notes is gone", &third]);
    assert_eq!(repo.ids().len(), 3);
    repo.run_offline("backup", &["prune", "--keep-last", "1", "--keep-min", "0"]).expect(0);
    assert_eq!(repo.ids().len(), 3, "held for the hand as well");

    let listed = repo.run_offline("backup", &["acknowledge"]).expect(0).stdout;
    assert!(listed.contains(&third) && listed.contains("OPEN"), "{listed}");
    repo.run_offline("backup", &["acknowledge", &third]).expect(2);
    repo.run_offline("backup", &["acknowledge", "nosuch", "--why", "x"]).fails(5, &["no alarm"]);
    let said = ["acknowledge", &third, "--why", "archived to the lake", "--who", "ada"];
    repo.run_offline("backup", &said).expect(0).says(&["ACKNOWLEDGED"]);
    let listed = repo.run_offline("backup", &["acknowledge"]).expect(0).stdout;
    assert!(listed.contains("ada: archived to the lake"), "{listed}");
    let last = once(&repo, &database, &keep_one).expect(0).stdout.trim().to_owned();
    assert_eq!(repo.ids(), [last]);
}

#[test]
fn a_loss_raises_the_alarm_and_holds_pruning_until_somebody_says_why_14() {
    a_loss_raises_the_alarm(14);
}

#[test]
fn a_loss_raises_the_alarm_and_holds_pruning_until_somebody_says_why_18() {
    a_loss_raises_the_alarm(18);
}

#[test]
fn a_snapshot_that_the_disk_spoilt_is_found_and_nothing_is_pruned() {
    let database = database(Cluster::shared(18), "spoilt");
    let repo = Snapshots::new();
    for _ in 0..2 {
        once(&repo, &database, &[]).expect(0);
    }
    let good = repo.ids();
    let gate = repo.path().with_file_name("gate");
    std::fs::write(&gate, "").unwrap();
    let arguments = ["schedule", "--once", "--keep-last", "1", "--keep-min", "0", "--trash-grace", "0s"];
    let mut command = repo.command("backup", &database.url(), &arguments);
    command.env("SAFE_RUN_FAULT_WAIT", format!("schedule.before-verification={}", gate.display()));
    let outcome = std::thread::scope(|scope| {
        let running = scope.spawn(|| Outcome::of(&mut command));
        until("it is before the verification", || gate.with_file_name("gate.reached").exists());
        let new = repo.ids().into_iter().find(|id| !good.contains(id)).unwrap();
        let chunk = repo.chunks(&new).pop().unwrap();
        let mut bytes = std::fs::read(&chunk).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&chunk, bytes).unwrap();
        std::fs::remove_file(&gate).unwrap();
        running.join().unwrap()
    });
    outcome.fails(6, &["is damaged"]);
    assert!(good.iter().all(|id| repo.ids().contains(id)), "{good:?} {:?}", repo.ids());
    // The next night is good, and takes no damaged one for one that was verified.
    once(&repo, &database, &["--keep-last", "1", "--keep-min", "1"]).expect(0);
    let listed = repo.run_offline("backup", &["list"]).expect(0).stdout;
    assert!(listed.contains("FAILED"), "the damaged one stays for a person to see: {listed}");
}

#[test]
fn what_was_pruned_lies_in_the_trash_for_its_time_and_comes_back_whole() {
    let database = database(Cluster::shared(18), "trash");
    let repo = Snapshots::new();
    let old = repo.create(&database, &[]);
    let new = repo.create(&database, &[]);
    let prune = ["prune", "--keep-last", "1", "--keep-min", "0", "--trash-grace", "1h"];
    repo.run_offline("backup", &prune).expect(0);
    assert_eq!(repo.ids(), [new.as_str()]);
    // The next backup sweeps what a crash left, and not what has its time.
    repo.create(&database, &[]);
    let listed = repo.run_offline("backup", &["undelete"]).expect(0).stdout;
    assert!(listed.contains(&old), "{listed}");
    repo.run_offline("backup", &["undelete", &new]).fails(5, &["in the trash"]);
    repo.run_offline("backup", &["undelete", &old]).expect(0);
    repo.run_offline("backup", &["verify", &old]).expect(0);
    assert!(repo.leftovers().is_empty(), "{:?}", repo.leftovers());
    // Its time has come: the next run empties it.
    repo.run_offline("backup", &prune).expect(0);
    let until = repo.path().join("trash").join(format!("{old}.until"));
    std::fs::write(&until, "2026-01-01T00:00:00Z").unwrap();
    repo.create(&database, &[]);
    assert!(!until.exists() && !repo.path().join("trash").join(&old).exists());
}

#[test]
fn it_runs_and_drills_on_time_is_seen_from_outside_and_ends_cleanly() {
    let database = database(Cluster::shared(18), "nightly");
    let repo = Snapshots::new();
    let name = database.name().to_owned();
    let file = repo.path().with_file_name("metrics.prom");
    let file = file.to_str().unwrap().to_owned();
    let arguments =
        ["--cron", "@hourly", "--drill", "30 */2 * * *", "--keep-last", "2", "--metrics-file", &file];
    let daemon = Daemon::start(scheduler(&repo, &database, &arguments));
    daemon.says_times("backup ok", 4);
    daemon.says("drill ok");
    assert_eq!(daemon.get("/health").body, "ok\n");
    assert_eq!(daemon.get("/health/db").body, format!("{name}: ok\n"));
    assert_eq!(daemon.get("/nothing").status, 404);
    let body = daemon.get("/metrics").body;
    assert_eq!(metric(&body, "last_attempt_success"), Some(1.0), "{body}");
    assert!(metric(&body, "last_drill_duration_seconds").unwrap() > 0.0, "{body}");
    assert!(
        metric(&body, "next_run_timestamp_seconds").is_some() && metric(&body, "prune_held") == Some(0.0)
    );
    assert_eq!(metric(&body, "latest_rows"), Some(1001.0));
    lint(&body);
    lint(&std::fs::read_to_string(&file).unwrap());
    let page = daemon.get("/");
    assert!(page.head.contains("text/html") && page.head.contains("default-src 'none'"), "{}", page.head);
    assert!(page.body.contains("<svg") && page.body.contains("● good") && !page.body.contains("<script"));
    // A web page elsewhere that a browser of this machine shows must not read it.
    assert_eq!(get(daemon.address(), "/", &[("Host", "attacker.example")]).status, 403);
    let (code, said) = daemon.end("TERM");
    assert_eq!(code, 143, "{said}");
    assert!(repo.leftovers().is_empty(), "{:?}", repo.leftovers());
    assert!(repo.ids().len() <= 3, "{:?}", repo.ids());
    repo.run_offline("backup", &["verify", "--all"]).expect(0);
    assert_eq!(database.family(), [name], "every scratch database is gone");
}

/// By Prometheus's own parser, where it is installed.
fn lint(metrics: &str) {
    use std::io::Write;
    let started = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn();
    let Ok(mut child) = started else { return parse(metrics) };
    child.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
    parse(metrics);
}

/// The grammar of the text format, written again: a name, labels in quotes, a number; each name explained once.
fn parse(metrics: &str) {
    let mut explained = std::collections::BTreeSet::new();
    for line in metrics.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let name = rest.split(' ').next().unwrap();
            assert!(explained.insert(name.to_owned()), "{name} is explained twice");
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let name = series.split('{').next().unwrap();
            assert!(explained.contains(name), "{line}");
            assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{line}");
        }
    }
    assert!(explained.len() > 10);
}

#[test]
fn a_token_is_asked_for_and_others_can_reach_nothing_without_one() {
    let database = database(Cluster::shared(18), "token");
    let repo = Snapshots::new();
    let file = repo.path().with_file_name("token");
    std::fs::write(&file, "0123456789abcdef0123\n").unwrap();
    let id = repo.create(&database, &[]);
    let open = ["schedule", "--cron", "@daily", "--listen", "0.0.0.0:0"];
    repo.run("backup", &database.url(), &open).fails(3, &["there is no token"]);
    let arguments = ["--cron", "@daily", "--token-file", file.to_str().unwrap()];
    let daemon = Daemon::start(scheduler(&repo, &database, &arguments));
    let address = daemon.address();
    for path in ["/", "/metrics", "/health/db"] {
        let refused = get(address, path, &[]);
        assert!(refused.status == 401 && refused.head.contains("www-authenticate"), "{path}: {refused:?}");
        assert_eq!(get(address, path, &[("Authorization", "Bearer 0123456789abcdef0124")]).status, 401);
        assert_eq!(
            get(address, path, &[("Authorization", "Bearer 0123456789abcdef0123")]).status,
            200,
            "{path}"
        );
    }
    assert_eq!(get(address, "/health", &[]).status, 200);
    // What was read once is read again when its file is another.
    let damaged = || {
        metric(
            &get(address, "/metrics", &[("Authorization", "Bearer 0123456789abcdef0123")]).body,
            "snapshots_damaged",
        )
    };
    assert_eq!(damaged(), Some(0.0));
    let manifest = repo.folder_of(&id).join("manifest.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replace("1001", "1002") + " ").unwrap();
    assert_eq!(damaged(), Some(1.0));
    assert_eq!(daemon.end("INT").0, 130);
}

#[test]
fn everybody_who_wants_to_know_is_told_and_no_secret_is_shown() {
    let database = database(Cluster::shared(18), "told");
    let repo = Snapshots::new();
    let listener = Listener::new();
    let folder = repo.path().parent().unwrap().to_owned();
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    write("ping", &listener.url("/ping/secret-key"));
    write("hook", &listener.url("/hook?token=secret-key"));
    let settings = |before: &str| {
        write(
            "safe-run.toml",
            &format!(
                "[[job]]\nname = \"shop\"\nping-url-file = \"ping\"\nwebhook-url-command = [\"cat\", \"hook\"]\n\
             before = [\"{before}\"]\nafter = [\"sh\", \"-c\", \"echo after $BACKUP_JOB $BACKUP_EVENT $BACKUP_SNAPSHOT\"]\n\
             on-error = [\"sh\", \"-c\", \"echo on-error $BACKUP_EVENT: $BACKUP_PROBLEM\"]\n"
            ),
        );
    };
    settings("true");
    let done = once(&repo, &database, &[]).expect(0);
    let id = done.stdout.trim().to_owned();
    let done = done.says(&[&format!("after shop success {id}")]);
    let heard = listener.heard();
    let lines: Vec<&str> = heard.iter().map(|(line, _)| line.as_str()).collect();
    assert_eq!(
        lines,
        [
            "POST /ping/secret-key/start HTTP/1.1",
            "POST /ping/secret-key HTTP/1.1",
            "POST /hook?token=secret-key HTTP/1.1"
        ]
    );
    let document: serde_json::Value = serde_json::from_str(&heard[2].1).unwrap();
    assert_eq!(document["event"], "success");
    assert_eq!(document["snapshot"], id.as_str());
    assert_eq!(document["schema"], 1);

    // A command before that fails stops the run; whoever waits for a ping hears of it.
    settings("false");
    let failed = once(&repo, &database, &[]).fails(1, &["the command before the run", "on-error failure: "]);
    assert_eq!(repo.ids(), [id.as_str()]);
    let heard = listener.heard();
    assert!(heard.iter().any(|(line, _)| line == "POST /ping/secret-key/fail HTTP/1.1"), "{heard:?}");

    // Nobody answers: the backup is good all the same, and the URL stays unseen.
    settings("true");
    write("ping", "http://127.0.0.1:9/ping/secret-key");
    let deaf = once(&repo, &database, &[]).expect(0).says(&["the ping: could not reach 127.0.0.1"]);
    for outcome in [&done, &failed, &deaf] {
        assert!(!outcome.stderr.contains("secret-key"), "{}", outcome.stderr);
    }
}

#[test]
fn several_jobs_of_a_file_a_reload_and_a_broken_file() {
    let database = database(Cluster::shared(18), "file");
    let repo = Snapshots::new();
    let folder = repo.path().parent().unwrap().to_owned();
    std::fs::write(folder.join("url"), database.url()).unwrap();
    let settings = |text: &str| std::fs::write(folder.join("safe-run.toml"), text).unwrap();
    let job = |name: &str, cron: &str| {
        format!(
            "[[job]]\nname = \"{name}\"\ncron = \"{cron}\"\nrepo = \"repo-{name}\"\ndatabase-url-file = \"url\"\n"
        )
    };
    settings(&format!(
        "[schedule]\nlisten = \"127.0.0.1:0\"\n{}{}",
        job("a", "@hourly"),
        job("b", "@yearly")
    ));
    let mut command = tests::binaries::command("backup");
    command.arg("schedule").current_dir(&folder).env("SAFE_RUN_CLOCK_SPEED", FAST);
    let daemon = Daemon::start(command);
    daemon.says("a: backup ok");
    assert!(!daemon.said().contains("b: backup ok"));

    settings(&format!("{}cron2 = 7\n", job("a", "@hourly")));
    daemon.signal("HUP");
    daemon.says("the old ones hold");
    let before = daemon.said().matches("a: backup ok").count();
    daemon.says_times("a: backup ok", before + 1);

    settings(&job("c", "@hourly"));
    daemon.signal("HUP");
    daemon.says("c: backup ok");
    let (code, said) = daemon.end("TERM");
    assert_eq!(code, 143);
    let after = said.split("the settings were read again").nth(1).unwrap();
    assert!(after.matches("a: backup ok").count() <= 1, "only one that was running: {said}");
}

#[test]
fn a_run_that_was_missed_is_caught_up_once_and_one_that_overlaps_is_skipped() {
    let database = database(Cluster::shared(18), "missed");
    let repo = Snapshots::new();
    let start = || Daemon::start(scheduler(&repo, &database, &["--cron", "@hourly"]));
    let daemon = start();
    daemon.says("backup ok");
    assert_eq!(daemon.end("TERM").0, 143);
    // As if it had been off for days: its last slot lies back.
    let path = repo.path().join("schedule").join(format!("{}.jsonl", database.name()));
    let mut last: serde_json::Value =
        serde_json::from_str(std::fs::read_to_string(&path).unwrap().lines().last().unwrap()).unwrap();
    last["slot"] = "2026-01-05T03:00:00Z".into();
    std::fs::write(&path, format!("{last}\n")).unwrap();
    let shown = repo.run("backup", &database.url(), &["schedule", "--cron", "@hourly", "--next", "1"]);
    assert!(shown.expect(0).stdout.contains("was missed"));
    let daemon = start();
    daemon.says("missed before it");
    daemon.says_times("backup ok", 2);
    // Somebody holds a table: the run waits for it, and the next ones are skipped and reported.
    let mut holder = database.session();
    holder.run("BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE");
    daemon.says("was skipped: the run of");
    holder.run("ROLLBACK");
    let before = daemon.said().matches("backup ok").count();
    daemon.says_times("backup ok", before + 1);
    assert!(attempts(&repo, database.name()).iter().any(|attempt| attempt["outcome"] == "skipped"));
    daemon.end("TERM");
    let missed = attempts(&repo, database.name()).iter().filter(|attempt| attempt["missed"] != 0).count();
    assert!(missed >= 1);
}

#[test]
fn a_run_in_progress_is_cleaned_up_at_the_end_and_done_at_the_next_start() {
    let database = database(Cluster::shared(18), "stopped");
    let repo = Snapshots::new();
    let start = || Daemon::start(scheduler(&repo, &database, &["--cron", "@hourly"]));
    let mut holder = database.session();
    holder.run("BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE");
    let daemon = start();
    let waits = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND query LIKE 'LOCK TABLE%' AND state = 'active'",
        database.name()
    );
    until("it waits for the lock", || database.cluster().psql(&waits) != "0");
    let (code, said) = daemon.end("TERM");
    assert_eq!(code, 143, "{said}");
    assert!(repo.leftovers().is_empty() && attempts(&repo, database.name()).is_empty(), "{said}");
    let ours = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND application_name LIKE 'backup%'",
        database.name()
    );
    until("its sessions are gone", || database.cluster().psql(&ours) == "0");
    holder.run("ROLLBACK");
    let daemon = start();
    daemon.says("backup ok");
    assert_eq!(daemon.end("TERM").0, 143);
}

#[test]
fn of_two_schedulers_one_does_each_slot() {
    let database = database(Cluster::shared(18), "replicas");
    let repo = Snapshots::new();
    let start = || Daemon::start(scheduler(&repo, &database, &["--cron", "@hourly"]));
    let replicas = [start(), start()];
    until("six slots are done", || attempts(&repo, database.name()).len() >= 6);
    for replica in replicas {
        assert_eq!(replica.end("TERM").0, 143);
    }
    let attempts = attempts(&repo, database.name());
    let mut slots: Vec<&str> = attempts.iter().map(|attempt| attempt["slot"].as_str().unwrap()).collect();
    let count = slots.len();
    slots.sort_unstable();
    slots.dedup();
    assert_eq!(slots.len(), count, "{attempts:?}");
}

#[test]
fn systemd_is_told_what_it_wants_to_know() {
    let database = database(Cluster::shared(18), "systemd");
    let repo = Snapshots::new();
    let path = repo.path().with_file_name("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    let mut command = scheduler(&repo, &database, &["--cron", "@daily"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000");
    let daemon = Daemon::start(command);
    let mut buffer = [0; 4096];
    let mut next = || {
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    assert_eq!(next(), "READY=1");
    assert!(next().starts_with("WATCHDOG=1\nSTATUS="));
    daemon.signal("HUP");
    until("a reload is told", || next().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(next(), "READY=1");
    daemon.signal("TERM");
    until("the end is told", || next().starts_with("STOPPING=1"));
    assert_eq!(daemon.end("TERM").0, 143);
}

/// A file system of a few megabytes for a repository; only root may make one.
struct SmallDisk {
    path: std::path::PathBuf,
}

impl SmallDisk {
    /// `None` for an ordinary user, or where mounting is forbidden.
    fn mount(path: &std::path::Path) -> Option<SmallDisk> {
        std::fs::create_dir_all(path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(path);
        let mounted = mount.output().ok()?.status.success();
        mounted.then(|| SmallDisk { path: path.to_owned() })
    }

    /// Leaves no room.
    fn fill(&self) -> std::path::PathBuf {
        use std::io::Write;
        let path = self.path.join("locks/filling");
        let mut file = std::fs::File::create(&path).unwrap();
        while file.write_all(&[7; 4096]).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

/// Open files and kilobytes of memory of a process.
fn resources(pid: u32) -> (usize, u64) {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    (files, line.split_whitespace().nth(1).unwrap().parse().unwrap())
}

#[test]
fn a_day_with_a_crash_of_the_server_and_a_full_disk_leaves_good_snapshots_and_takes_nothing_more() {
    let cluster = Cluster::start(18, &tests::Options::new());
    let database = database(&cluster, "day");
    let repo = Snapshots::new();
    let disk = SmallDisk::mount(&repo.path());
    let mut command =
        scheduler(&repo, &database, &["--cron", "*/20 * * * *", "--keep-last", "3", "--retries", "9"]);
    // Twenty minutes in a third of a second, while a run takes about as long.
    command.env("SAFE_RUN_CLOCK_SPEED", FAST);
    let daemon = Daemon::start(command);
    daemon.says_times("backup ok", 8);
    daemon.get("/");
    let (files, kilobytes) = resources(daemon.id());

    // The server loses a process and restarts all of them, as after a crash.
    let mut victim = database.session();
    let pid = victim.backend_pid().to_string();
    tests::protected_run::kill("KILL", &pid);
    until("the server is back", || database.try_psql("SELECT 1").is_ok());
    let before = daemon.said().matches("backup ok").count();
    daemon.says_times("backup ok", before + 4);

    if let Some(disk) = &disk {
        let filling = disk.fill();
        daemon.says("Free some space");
        assert!(!repo.ids().is_empty());
        std::fs::remove_file(filling).unwrap();
        let before = daemon.said().matches("backup ok").count();
        daemon.says_times("backup ok", before + 4);
    }
    daemon.says_times("backup ok", 24);
    let page = daemon.get("/");
    assert_eq!(page.status, 200);
    assert_eq!(metric(&daemon.get("/metrics").body, "repository_up"), Some(1.0));
    let (files_after, kilobytes_after) = resources(daemon.id());
    assert!(files_after <= files + 6, "{files} open files became {files_after}");
    assert!(kilobytes_after < kilobytes * 3 / 2 + 8192, "{kilobytes} kB became {kilobytes_after} kB");
    let (code, said) = daemon.end("TERM");
    assert_eq!(code, 143, "{said}");
    assert!(repo.leftovers().is_empty(), "{:?}", repo.leftovers());
    repo.run_offline("backup", &["verify", "--all"]).expect(0);
    assert!(repo.ids().len() >= 3 && !said.contains("panicked"), "{said}");
}

#[test]
fn the_settings_file_that_is_shipped_is_valid_and_every_setting_is_explained() {
    let top = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let repo = Snapshots::new();
    let config = top.join("deploy/safe-run.toml");
    let mut command = tests::binaries::command("backup");
    command
        // A week and a day: the drill is weekly.
        .args(["schedule", "--next", "9", "--config"])
        .arg(&config)
        .current_dir(repo.path().parent().unwrap());
    let shown = Outcome::of(&mut command).expect(0).stdout;
    assert!(shown.contains("shop") && shown.contains("drill"), "{shown}");

    let source = std::fs::read_to_string(top.join("common/src/cli/jobs.rs")).unwrap();
    let explained = std::fs::read_to_string(top.join("docs/schedule.md")).unwrap();
    let list = source.split("job_file! {").nth(1).unwrap().split("\n}\n").next().unwrap();
    let fields: Vec<String> = list
        .lines()
        .filter_map(|line| line.trim().split_once(": "))
        .filter(|(name, _)| !name.starts_with('/'))
        .map(|(name, _)| name.replace('_', "-"))
        .collect();
    assert!(fields.len() > 30, "{fields:?}");
    for field in fields {
        assert!(explained.contains(&format!("`{field}`")), "docs/schedule.md does not explain {field}");
    }
}

/// What a hook passes on may come from anywhere: a terminal that follows the log must not act on it.
#[test]
fn what_hooks_print_comes_into_the_log_without_anything_that_a_terminal_acts_on() {
    let database = database(Cluster::shared(18), "printed");
    let repo = Snapshots::new();
    let settings = "[[job]]\nname = \"shop\"\n\
        before = [\"printf\", 'one\\033[2J\\n\\342\\200\\256two\\rthree\\twithout an end']\n\
        after = [\"sh\", \"-c\", \"printf 'err\\\\007or' >&2; (sleep 300; echo late) & exit 0\"]\n";
    std::fs::write(repo.path().parent().unwrap().join("safe-run.toml"), settings).unwrap();
    let told = once(&repo, &database, &[]).expect(0);
    for line in ["one\\u{1b}[2J\n", "\\u{202e}two\\rthree\twithout an end\n", "err\\u{7}or\n"] {
        assert!(told.stderr.contains(line), "{line:?} in {:?}", told.stderr);
    }
    let hidden = |c: char| c.is_control() && c != '\n' && c != '\t';
    assert!(!told.stderr.contains(hidden), "{:?}", told.stderr);
    let told = once(&repo, &database, &["--json"]).expect(0);
    let events: Vec<serde_json::Value> = told
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
        .collect();
    assert!(
        events.iter().any(|event| event["event"] == "command" && event["text"] == "one\u{1b}[2J"),
        "{events:?}"
    );
}
