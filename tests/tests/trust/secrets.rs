//! A password is never seen: not in what is printed, not in what is stored, not in a process list.

use std::path::Path;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tests::binaries::command;
use tests::{Cluster, Options, Outcome, ProtectedRun};

/// Letters only, so that no encoding changes them.
const PASSWORD: &str = "correcthorsebatterystaple";

/// What a person has put onto a command line, where the process list shows it: another one, for tests that run at once.
const TYPED: &str = "troubadourthreezeroes";

/// The command lines of all processes, and the names of the programs among them.
fn command_lines() -> Vec<String> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    processes
        .filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok())
        .map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "))
        .collect()
}

fn files_below(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}

/// Whatever ends the test ends the thread that looks.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_password_is_in_no_output_in_no_file_and_in_no_command_line() {
    let cluster = Cluster::start(18, &Options::new().scram());
    cluster.psql(&format!("CREATE ROLE someone LOGIN SUPERUSER PASSWORD '{PASSWORD}'"));
    let database = cluster.fresh_database("secret");
    database.psql("CREATE TABLE t (i int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 1000)");
    let folder = tempfile::tempdir().unwrap();
    let repo = folder.path().join("repo");
    let with_password = cluster.tcp_url(&format!("someone:{PASSWORD}"), "127.0.0.1", database.name());
    let without = cluster.tcp_url("someone", "127.0.0.1", database.name());
    let (stop, seen) = (AtomicBool::new(false), Mutex::new(Vec::<String>::new()));
    std::thread::scope(|scope| {
        let _stop = StopAtEnd(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                let lines = command_lines();
                seen.lock().unwrap().extend(lines.into_iter().filter(|line| {
                    line.contains(PASSWORD) || line.contains("pg_dump ") || line.contains("pg_restore ")
                }));
            }
        });
        let into = format!("{}copy", database.name());
        let (archive, file) = (folder.path().join("it.tar"), folder.path().join("it.sqlite3"));
        let (archive, file) = (archive.to_str().unwrap(), file.to_str().unwrap());
        std::fs::create_dir(folder.path().join("migrations")).unwrap();
        let migration = folder.path().join("migrations/1_a.sql");
        std::fs::write(&migration, "CREATE TABLE more (i int);").unwrap();
        let own = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(migration, own).unwrap();
        let commands: [(i32, &[&str]); 36] = [
            (0, &["backup", "check"]),
            (0, &["backup", "check", "--json"]),
            (0, &["backup", "create", "-v"]),
            (0, &["backup", "create", "--json"]),
            (0, &["backup", "create", "--show-config"]),
            (0, &["backup", "schedule", "--once", "--json"]),
            (0, &["backup", "schedule", "--once", "-v"]),
            (0, &["backup", "list"]),
            (0, &["backup", "list", "--json"]),
            (0, &["backup", "show", "latest", "--json"]),
            (0, &["backup", "verify", "latest", "--json"]),
            (0, &["backup", "diff", "latest", "latest", "--json"]),
            (0, &["backup", "drill", "latest", "--json"]),
            (0, &["backup", "prune", "--keep-last", "9", "--json"]),
            (0, &["backup", "pin", "latest", "--json"]),
            (0, &["backup", "unpin", "latest", "--json"]),
            (0, &["backup", "acknowledge", "--json"]),
            (0, &["backup", "undelete", "--json"]),
            (0, &["backup", "export", "latest", "-o", archive, "--force", "--json"]),
            (0, &["restore", archive, "--dry-run", "--json"]),
            (0, &["backup", "export", "latest", "--sqlite", file, "--json"]),
            (0, &["safe-run", "plan", "--json"]),
            (0, &["safe-run", "check", "--json"]),
            (0, &["safe-run", "--json"]),
            (0, &["safe-run", "--json", "--", "psql", "-Xqc", "SELECT 1"]),
            (0, &["safe-run", "status", "--json"]),
            (0, &["safe-run", "history", "--json"]),
            (0, &["safe-run", "report", "--json"]),
            (0, &["safe-run", "recover", "--json"]),
            (0, &["safe-run", "release", "--json"]),
            (3, &["safe-run", "import", file, "--dry-run", "--json"]),
            (0, &["restore", "latest", "--dry-run"]),
            (0, &["restore", "latest", "--into", &into]),
            (0, &["restore", "latest", "--replace", "-y", "--json"]),
            (3, &["restore", "latest", "--into", &into]),
            (5, &["restore", "no-such-snapshot", "--json"]),
        ];
        // The URL in the environment (on the command line it is the user's own doing), and PGPASSWORD.
        for (url, password) in [(&with_password, None), (&without, Some(PASSWORD))] {
            if Path::new(file).exists() {
                std::fs::remove_file(file).unwrap();
            }
            for (code, arguments) in commands {
                let mut command = command(arguments[0]);
                // Of a run of a command, its own flags stand before the command.
                let own = arguments.iter().position(|word| *word == "--").unwrap_or(arguments.len());
                command.args(&arguments[1..own]).arg("--repo").arg(&repo).args(&arguments[own..]);
                command.env("DATABASE_URL", url);
                command.current_dir(folder.path()).stdin(Stdio::null());
                command.envs(password.map(|password| ("PGPASSWORD", password)));
                let outcome = Outcome::of(&mut command);
                assert_eq!(outcome.code, code, "{arguments:?}: {outcome:?}");
                let said = format!("{}{}", outcome.stdout, outcome.stderr);
                assert!(!said.contains(PASSWORD), "{arguments:?}: {said}");
            }
            cluster.psql(&format!("DROP DATABASE \"{into}\""));
        }
    });
    let seen = seen.into_inner().unwrap();
    assert!(seen.iter().any(|line| line.contains("pg_dump ")), "the process list was never read in time");
    assert!(seen.iter().any(|line| line.contains("pg_restore ")), "the process list was never read in time");
    assert!(!seen.iter().any(|line| line.contains(PASSWORD)), "{seen:?}");
    let files = files_below(folder.path());
    assert!(files.iter().any(|path| path.ends_with("README.txt")), "{files:?}");
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains(PASSWORD), "{}", file.display());
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&file).unwrap());
        assert_eq!(mode & 0o077, 0, "{} can be read by others", file.display());
    }
}

#[test]
fn a_password_in_a_commands_arguments_and_in_its_sql_is_masked_wherever_the_run_is_told() {
    for major in tests::cluster::ends() {
        let run = ProtectedRun::shop(major);
        let sql = format!("alter role nobody password '{TYPED}'");
        let mapping =
            format!("create user mapping for nobody server s options (user 'a', password '{TYPED}')");
        let environment = format!("PGPASSWORD={TYPED}");
        let url = format!("postgresql://nobody:{TYPED}@nowhere/x");
        let script = format!("psql -Xqc \"{sql}\" 2>/dev/null || exit 3");
        let raise = format!(
            "do $$ begin raise exception using message = $q$in {sql}$q$, hint = $q${mapping} set_config('app.jwt_secret', '{TYPED}')$q$; end $$"
        );
        let psql = |sql: &str| {
            ["--", "env", &environment, "psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-c", sql].map(str::to_owned)
        };
        let forms = [
            format!("PGPASSWORD=with blanks {TYPED}"),
            format!("host=h password = 'with blanks {TYPED}' sslpassword={TYPED}"),
            format!("jdbc:postgresql://h/d?user=u&password={TYPED}&ssl=true"),
            format!("h:5432:d:u:{TYPED}"),
            format!("u:{TYPED}@tcp(h:3306)/d"),
            format!("PRIVATE-TOKEN: {TYPED}"),
            format!("Authorization: Basic {TYPED}"),
            format!("select set_config('app.jwt_secret', '{TYPED}', false)"),
            format!("[\"--password\", \"{TYPED}\"]"),
            format!("MYSQL_PWD={TYPED} SECRET_KEY={TYPED} db_pw={TYPED}"),
            format!("alter subscription s connection 'host=h password=''{TYPED}'' '"),
        ];
        let of_forms = ["--", "sh", "-c", "psql -Xqc 'select 1'; exit 3", "x"].map(str::to_owned);
        let commands = [
            of_forms.into_iter().chain(forms).collect(),
            psql(&sql).to_vec(),
            psql(&mapping).to_vec(),
            ["--", "sh", "-c", &script].map(str::to_owned).to_vec(),
            ["--", "sh", "-c", "psql -Xqc 'select 1'; exit 3", "x", "--password", TYPED, "-d", &url]
                .map(str::to_owned)
                .to_vec(),
        ];
        let folder = run.folder().to_owned();
        let (page, json) = (folder.join("run.html"), folder.join("run.json"));
        let targets = ["--report", page.to_str().unwrap(), "--report-json", json.to_str().unwrap()];
        let says_nothing = |arguments: &[&str]| {
            let ended = Outcome::of(&mut run.command(arguments));
            let said = format!("{}{}", ended.stdout, ended.stderr);
            assert!(!said.contains(TYPED), "{arguments:?}: {said}");
            ended
        };
        for command in &commands {
            for json in [&[][..], &["--json"]] {
                let words: Vec<&str> = command.iter().map(String::as_str).collect();
                let ended = says_nothing(&[&targets[..], json, &words].concat());
                assert!(ended.code != 0 && ended.stderr.len() + ended.stdout.len() > 0, "{ended:?}");
            }
        }
        // A file of migrations, and what the server says about it.
        run.migration("0001_a.sql", &format!("{raise};"));
        says_nothing(&targets);
        says_nothing(&["--json"]);
        let runs = run.runs();
        for run in [&runs[0], runs.last().unwrap()] {
            says_nothing(&["report", run]);
            says_nothing(&["report", run, "--json"]);
        }
        says_nothing(&["history"]);
        says_nothing(&["history", "--json"]);
        says_nothing(&["recover"]);
        let migrations = folder.join("migrations");
        let files = files_below(&folder);
        assert!(
            files.iter().any(|file| file.ends_with("journal.jsonl"))
                && files.contains(&page)
                && files.contains(&json)
        );
        for file in files.iter().filter(|file| !file.starts_with(&migrations)) {
            let bytes = std::fs::read(file).unwrap();
            assert!(!String::from_utf8_lossy(&bytes).contains(TYPED), "{}", file.display());
        }
    }
}

#[test]
fn a_file_with_a_password_that_others_can_read_is_told() {
    use std::os::unix::fs::PermissionsExt;
    let cluster = Cluster::start(18, &Options::new().scram());
    cluster.psql(&format!("CREATE ROLE someone LOGIN SUPERUSER PASSWORD '{TYPED}'"));
    let database = cluster.fresh_database("told");
    let folder = tempfile::tempdir().unwrap();
    let url = cluster.tcp_url(&format!("someone:{TYPED}"), "127.0.0.1", database.name());
    let file = folder.path().join("safe-run.toml");
    let service = folder.path().join("services");
    std::fs::write(&file, format!("database-url = \"{url}\"\n")).unwrap();
    let (_, address) = url.split_once('@').unwrap();
    let port = address.split(['/', ':']).nth(1).unwrap();
    std::fs::write(
        &service,
        format!(
            "[here]\nhost=127.0.0.1\nport={port}\nuser=someone\npassword={TYPED}\ndbname={}\n",
            database.name()
        ),
    )
    .unwrap();
    let check = |arguments: &[&str]| {
        let mut command = command("backup");
        command.arg("check").args(arguments).current_dir(folder.path());
        command.env_remove("DATABASE_URL").env("PGSERVICEFILE", &service);
        let outcome = Outcome::of(&mut command).expect(0);
        assert!(!outcome.stderr.contains(TYPED) && !outcome.stdout.contains(TYPED), "{outcome:?}");
        outcome.stderr
    };
    for mode in [0o644, 0o640, 0o604] {
        for path in [&file, &service] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let said = check(&[]);
        assert!(said.contains("others may read it") && said.contains("chmod go-rw safe-run.toml"), "{said}");
        let said = check(&["-d", "service=here"]);
        assert!(said.contains(&format!("chmod go-rw {}", service.display())), "{said}");
    }
    for path in [&file, &service] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    assert!(
        !check(&[]).contains("others may read")
            && !check(&["-d", "service=here"]).contains("others may read")
    );
}

/// What a schedule tells others: hooks, the log, metrics, the page, pings, and what lies in the repository. Its jobs succeed and fail in
/// every way in which a connection string is looked at.
#[test]
fn no_secret_is_in_what_a_schedule_tells() {
    use std::os::unix::fs::PermissionsExt;
    let cluster = Cluster::start(18, &Options::new().scram());
    cluster.psql(&format!("CREATE ROLE someone LOGIN SUPERUSER PASSWORD '{TYPED}'"));
    let database = cluster.fresh_database("told");
    database.psql("CREATE TABLE t (i int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 1000)");
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let write = |name: &str, text: &str| {
        std::fs::write(at(name), text).unwrap();
        std::fs::set_permissions(at(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    let good = cluster.tcp_url(&format!("someone:{TYPED}"), "127.0.0.1", database.name());
    let (_, address) = good.split_once('@').unwrap();
    let port = address.split(['/', ':']).nth(1).unwrap();
    let bad = [
        good.replace(TYPED, &format!("{TYPED}wrong")),
        good.replace(&format!(":{port}/"), ":1/"),
        format!("host=127.0.0.1 port={port} user=someone password='{TYPED}' dbname=nowhere"),
    ];
    let malformed = [
        good.replace(&format!(":{port}/"), ":port/"),
        format!("host=127.0.0.1 port={port} user=someone password={TYPED} nonsense=1"),
        format!("postgresql//someone:{TYPED}@127.0.0.1:{port}/x"),
        format!("someone:{TYPED}@127.0.0.1:{port}/x"),
        format!("{good}?sslmode=nonsense&password={TYPED}"),
    ];
    write("token", &format!("{TYPED}{TYPED}"));
    write("ping", &format!("http://127.0.0.1:1/{TYPED}"));
    write("hook", &format!("http://me:{TYPED}@127.0.0.1:1/{TYPED}?token={TYPED}"));
    let mut settings = format!(
        "[schedule]\nlisten = \"127.0.0.1:0\"\ntoken-file = \"token\"\nmetrics-file = \"metrics.prom\"\n[schedule.defaults]\nretries = 0\n\
         cron = \"0 0 1 1 *\"\ndrill = \"0 0 1 1 *\"\nrepo = \"repo\"\nbefore = [\"sh\", \"-c\", \"env >> {envs}\"]\n\
         after = [\"sh\", \"-c\", \"env >> {envs}\"]\non-error = [\"sh\", \"-c\", \"env >> {envs}; echo told >&2\"]\n\
         ping-url-file = \"ping\"\nwebhook-url-file = \"hook\"\n",
        envs = at("envs")
    );
    let job = |number: usize, url: &str| {
        write(&format!("url{number}"), url);
        format!("[[job]]\nname = \"job{number}\"\ndatabase-url-file = \"url{number}\"\n")
    };
    let schedule = |arguments: &[&str]| {
        let mut command = command("backup");
        command.arg("schedule").args(arguments).current_dir(folder.path()).env_remove("DATABASE_URL");
        command
    };
    let mut said = String::new();
    // What is no connection at all ends the schedule before any job.
    for (number, url) in malformed.iter().enumerate() {
        write("safe-run.toml", &(settings.clone() + &job(number, url)));
        for arguments in [&["--once"][..], &["--once", "--json"], &["--next", "3"], &[]] {
            let outcome = Outcome::of(&mut schedule(arguments));
            assert_eq!(outcome.code, 2, "{arguments:?}: {outcome:?}");
            said += &format!("{}{}", outcome.stdout, outcome.stderr);
        }
    }
    for (number, url) in [&good].into_iter().chain(&bad).enumerate() {
        settings += &job(number, url);
    }
    write("safe-run.toml", &settings);
    for (arguments, code) in [
        (&["--once"][..], 3),
        (&["--once", "--json"], 3),
        (&["--once", "-v"], 3),
        (&["--next", "3"], 0),
        (&["--next", "3", "--json"], 0),
    ] {
        let outcome = Outcome::of(&mut schedule(arguments));
        assert_eq!(outcome.code, code, "{arguments:?}: {outcome:?}");
        said += &format!("{}{}", outcome.stdout, outcome.stderr);
    }
    let envs = std::fs::read_to_string(at("envs")).unwrap();
    for event in ["before", "success", "failure"] {
        assert!(envs.contains(&format!("BACKUP_EVENT={event}")), "{event}: {said}");
    }
    let daemon = tests::Daemon::start(schedule(&[]));
    let token = format!("Authorization: Bearer {TYPED}{TYPED}");
    for path in ["/", "/metrics", "/health", "/health/db"] {
        let (name, value) = token.split_once(": ").unwrap();
        let answer = tests::daemon::get(daemon.address(), path, &[(name, value)]);
        assert!([200, 503].contains(&answer.status), "{path}: {answer:?}");
        said += &format!("{}{}", answer.head, answer.body);
        said += &daemon.get(path).body;
    }
    said += &daemon.end("TERM").1;
    assert!(!said.contains(TYPED), "{said}");
    let given = |path: &Path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        ["token", "ping", "hook"].contains(&name) || name.starts_with("url")
    };
    let files = files_below(folder.path());
    assert!(files.iter().any(|file| file.ends_with("metrics.prom")), "{files:?}");
    assert!(files.iter().any(|file| file.parent().unwrap().ends_with("schedule")), "{files:?}");
    for file in files.iter().filter(|file| !given(file)) {
        let bytes = std::fs::read(file).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains(TYPED), "{}", file.display());
    }
}
