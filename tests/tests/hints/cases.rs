//! Wrong command lines, settings and files, and what each program answers: the message and the next step.
//!
//! None needs a server: what can be wrong is told before one is asked, or nobody listens at the port.

use std::{
    fmt::Write as _,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use tests::binaries;

/// Nobody listens there.
const NOWHERE: &str = "postgresql://u@127.0.0.1:1/db";

/// What the files of a case are.
fn prepare(folder: &Path) {
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder is ours");
        std::fs::write(path, text).expect("the folder is ours");
    };
    write("migrations/1_a.sql", "SELECT 1;\n");
    write("other/x", "");
    write("plain", "");
    write("x.tar", "x\n");
    write("twice/1_a.sql", "SELECT 1;\n");
    write("twice/1_b.sql", "SELECT 2;\n");
    write("latin/1_a.sql", "");
    std::fs::write(folder.join("latin/1_a.sql"), b"SELECT '\xe4';\n").expect("the folder is ours");
    write("open/1_a.sql", "BEGIN; SELECT 1;\n");
    write("down/1_a.sql", "SELECT 1;\n-- ==== DOWN ====\nSELECT 2;\n");
    write("quote/1_a.sql", "SELECT 'x;\n");
    write("verify/a.sql", "SELECT 1 WHERE;;\n-- safe-run: nonsense\n");
    write("bad.toml", "nonsense = 1\n");
    write("broken.toml", "[[\n");
    write("jobs.toml", "[[job]]\nname = \"a\"\n[[job]]\nname = \"a\"\n");
    write("name.toml", "[[job]]\nname = \"a b\"\n");
    write("sources.toml", "[[job]]\nname = \"a\"\ndatabase-url = \"x\"\ndatabase-url-file = \"y\"\n");
    std::fs::create_dir(folder.join("empty")).expect("the folder is ours");
    std::fs::set_permissions(folder.join("plain"), std::fs::Permissions::from_mode(0o644)).expect("ours");
}

/// Connection strings, for `backup check -d`.
const URLS: &[&str] = &[
    "postgresql://a@h:x/db",
    "mysql://h/db",
    "postgresql://a@h/db?sslmode",
    "postgresql://a@::1/db",
    "postgresql://a@[::1/db",
    "postgresql://a%zz@h/db",
    "host=h dbname=a b",
    "host=h password='x",
    "service=nope",
    "host=h nosuch=1",
    "host=a,b hostaddr=127.0.0.1 dbname=x user=y",
    "host=a,b,c port=1,2 user=a dbname=b",
    "host=h sslmode=disable sslrootcert=system user=a dbname=b",
    "host=h sslmode=what user=a dbname=b",
    "host=h user=a dbname=b sslmode=require ssl_max_protocol_version=TLSv1.1",
    "host=h user=a dbname=b connect_timeout=x",
    "host=h user=a dbname=b gssencmode=require",
    "host=@abstract user=a dbname=b",
    "host=/nonexistent user=a dbname=b",
    "host=127.0.0.1 port=1 user=a dbname=b",
];

/// Command lines; `{URL}` is [`NOWHERE`].
const LINES: &[&[&str]] = &[
    &["backup"],
    &["backup", "list"],
    &["backup", "verify", "--all"],
    &["backup", "create", "-d", "{URL}", "--compress", "lz4"],
    &["backup", "create", "-d", "{URL}", "--lock-timeout", "soon"],
    &["backup", "create", "-d", "{URL}", "--repo", "other"],
    &["backup", "create", "-d", "{URL}", "--config", "bad.toml"],
    &["backup", "create", "-d", "{URL}", "--config", "broken.toml"],
    &["backup", "prune"],
    &["backup", "import", "x.tar"],
    &["backup", "pin", "x"],
    &["backup", "undelete", "x"],
    &["backup", "acknowledge", "x", "--why", "y"],
    &["backup", "schedule"],
    &["backup", "schedule", "--cron", "* * *", "-d", "{URL}"],
    &["backup", "schedule", "--cron", "@reboot", "-d", "{URL}"],
    &["backup", "schedule", "--cron", "0 3 * * *", "--timezone", "Berlin", "-d", "{URL}"],
    &["backup", "schedule", "--cron", "0 3 * * *", "--listen", "x", "-d", "{URL}"],
    &["backup", "schedule", "--cron", "0 3 * * *", "--listen", "0.0.0.0:9187", "-d", "{URL}"],
    &["backup", "schedule", "--config", "jobs.toml"],
    &["backup", "schedule", "--config", "name.toml"],
    &["backup", "schedule", "--config", "sources.toml"],
    &["restore"],
    &["restore", "latest"],
    &["restore", "x.tar", "-d", "{URL}"],
    &["safe-run", "-d", "{URL}", "--dir", "nosuch"],
    &["safe-run", "-d", "{URL}", "--", "nosuchprogram"],
    &["safe-run", "-d", "{URL}", "--", "./nosuch"],
    &["safe-run", "-d", "{URL}", "--", "./plain"],
    &["safe-run", "psql", "x"],
    &["safe-run", "staus"],
    &["safe-run", "-d", "{URL}", "--max-loss", "x"],
    &["safe-run", "-d", "{URL}", "--verify", "nosuch"],
    &["safe-run", "-d", "{URL}", "--verify", "empty"],
    &["safe-run", "-d", "{URL}", "--verify", "verify"],
    &["safe-run", "check", "--only", "nope"],
    &["safe-run", "-d", "{URL}", "--keep-clone", "--", "true"],
    &["safe-run", "-d", "{URL}", "--snapshot", "clone", "--fence", "none", "--", "true"],
    &["safe-run", "-d", "{URL}", "--snapshot-only", "--snapshot", "clone"],
    &["safe-run", "-d", "{URL}", "--report", "a.html", "--report-json", "a.html"],
    &["safe-run", "-d", "{URL}", "--report", "empty"],
    &["safe-run", "report"],
    &["safe-run", "new", "///"],
    &["safe-run", "--allow-loss", "x=1", "status"],
    &["safe-run", "--tx", "all", "--", "true"],
];

/// One answer, with the folder's own name masked, and the hints that were given.
fn answer(folder: &Path, arguments: &[&str]) -> (String, String) {
    let trace = folder.join("hints.trace");
    let _ = std::fs::remove_file(&trace);
    let (program, rest) = arguments.split_first().expect("a program");
    let url =
        |argument: &&str| if *argument == "{URL}" { NOWHERE.to_owned() } else { (*argument).to_owned() };
    let mut command: Command = binaries::command(program);
    command.args(rest.iter().map(url)).current_dir(folder).stdin(Stdio::null());
    command.env("HOME", folder).env("SAFE_RUN_HINT_TRACE", &trace).env("LC_ALL", "C");
    let output = command.output().expect("the program runs");
    let code = output.status.code().expect("it ends by itself");
    let said = String::from_utf8_lossy(&output.stderr).replace(&folder.display().to_string(), "<folder>");
    let wanted = |line: &&str| line.starts_with("error: ") || line.starts_with("hint: ");
    let lines: Vec<&str> = said.lines().filter(wanted).collect();
    let answer = format!("$ {}\n{}\nexit {code}\n", arguments.join(" "), lines.join("\n"));
    (answer, std::fs::read_to_string(trace).unwrap_or_default())
}

/// What is answered to everything in [`URLS`] and [`LINES`], and the hints that were given meanwhile.
pub fn answers() -> (String, String) {
    let folder = tempfile::tempdir().expect("a folder");
    prepare(folder.path());
    let (mut said, mut given) = (String::new(), String::new());
    let urls: Vec<Vec<&str>> = URLS.iter().map(|url| vec!["backup", "check", "-d", url]).collect();
    for arguments in urls.iter().map(Vec::as_slice).chain(LINES.iter().copied()) {
        let (answer, hints) = answer(folder.path(), arguments);
        writeln!(said, "{answer}").expect("a string");
        given.push_str(&hints);
    }
    (said, given)
}

/// One step of what happens on a server.
enum Step {
    /// A command line; `{ID}` is the first snapshot.
    Run(&'static [&'static str]),
    /// A file with this text.
    File(&'static str, &'static str),
    /// It goes.
    Remove(&'static str),
}

use Step::{File, Remove, Run};

/// What goes wrong with a database that has a table `a`, a table `b` that refers to it, and a table `"S".t`.
const STEPS: &[Step] = &[
    Run(&["backup", "create", "-q"]),
    Run(&["backup", "create", "-q"]),
    Run(&["restore", "{ID}", "--table", "nope"]),
    Run(&["restore", "{ID}", "--table", "\"s\".t"]),
    Run(&["restore", "{ID}", "--table", "a.b.c.d"]),
    Run(&["restore", "{ID}", "--table", "\"a"]),
    Run(&["restore", "{ID}", "--into", "{DATABASE}"]),
    Run(&["restore", "{ID}", "--into", "{DATABASE}_2", "--map-role", "x=y"]),
    Run(&["restore", "{ID}", "--replace"]),
    Run(&["backup", "pin", "{ID}"]),
    Run(&["backup", "delete", "-y", "{ID}"]),
    Run(&["backup", "create", "-T", "*"]),
    Run(&["backup", "create", "-t", "zzz"]),
    Run(&["backup", "export", "{ID}", "-o", "e.tar"]),
    Run(&["backup", "export", "{ID}", "-o", "e.tar"]),
    Run(&["backup", "import", "e.tar"]),
    Remove("migrations/1_a.sql"),
    Run(&["safe-run", "status"]),
    File("migrations/1_a.sql", "SELECT 1;"),
    File("migrations/2_b.sql", "CREATE TABLE z (i int);"),
    Run(&["safe-run", "stamp", "9"]),
    Run(&["safe-run", "baseline", "x"]),
    Run(&["safe-run", "--to", "9"]),
    Run(&["safe-run", "-q"]),
    File("migrations/1_a.sql", "SELECT 2;"),
    Run(&["safe-run"]),
    Run(&["safe-run", "repair"]),
    File("migrations/1_a.sql", "SELECT 1;"),
    File("migrations/1.5_x.sql", "SELECT 5;"),
    Run(&["safe-run"]),
    Remove("migrations/1.5_x.sql"),
    File("migrations/3_c.sql", "VACUUM; SELECT 1;"),
    Run(&["safe-run", "--tx", "all"]),
    File("migrations/3_c.sql", "BEGIN; SELECT 1;"),
    Run(&["safe-run"]),
    File("migrations/3_c.sql", "SELECT 'x"),
    Run(&["safe-run"]),
    Remove("migrations/3_c.sql"),
    Run(&["safe-run", "baseline", "1"]),
    Run(&["safe-run", "--snapshot", "none", "--", "true"]),
    Run(&["safe-run", "--fence", "lock", "--", "true"]),
    Run(&["safe-run", "--hold-fence", "--fence", "none", "--", "true"]),
    Run(&["safe-run", "report", "9"]),
    Remove("migrations/1_a.sql"),
    Run(&["safe-run"]),
];

/// What is answered to [`STEPS`], and the hints that were given meanwhile.
pub fn answers_of(database: &tests::Database<'_>) -> (String, String) {
    database.psql(
        "CREATE TABLE a (i int PRIMARY KEY); CREATE TABLE b (i int REFERENCES a); CREATE SCHEMA \"S\"; CREATE TABLE \"S\".t (i int)",
    );
    let folder = tempfile::tempdir().expect("a folder");
    prepare(folder.path());
    let (mut said, mut given, mut id) = (String::new(), String::new(), String::new());
    for step in STEPS {
        let arguments = match step {
            File(name, text) => {
                std::fs::write(folder.path().join(name), text).expect("the folder is ours");
                continue;
            }
            Remove(name) => {
                std::fs::remove_file(folder.path().join(name)).expect("it is there");
                continue;
            }
            Run(arguments) => arguments,
        };
        let (url, name) = (database.url(), database.name());
        let told: Vec<String> =
            arguments.iter().map(|word| word.replace("{ID}", &id).replace("{DATABASE}", name)).collect();
        let mut told: Vec<&str> = told.iter().map(String::as_str).collect();
        // Before `--`, and not behind it.
        told.splice(1..1, if told[0] == "safe-run" { vec!["-d", &url] } else { vec![] });
        if told[0] != "safe-run" {
            told.extend(["-d", &url]);
        }
        let (answer, hints) = answer(folder.path(), &told);
        if id.is_empty() {
            let first =
                std::fs::read_dir(folder.path().join("snapshots/snapshots")).expect("a repository").next();
            id = first.expect("a snapshot").expect("its name").file_name().to_string_lossy().into_owned();
        }
        let answer = answer.replace(&format!(" -d {url}"), "").replace(&id, "<id>").replace(name, "app");
        writeln!(said, "{}", without_times(&answer)).expect("a string");
        given.push_str(&hints);
    }
    (said, given)
}

/// Dates and times are others in each run.
fn without_times(text: &str) -> String {
    let shape =
        |word: &str| -> String { word.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect() };
    let word = |word: &str| match shape(word).as_str() {
        "0000-00-00" => "<date>".to_owned(),
        "00:00:00Z" => "<time>".to_owned(),
        time if time.starts_with("00:00:00.") => "<time>)".to_owned(),
        _ => word.to_owned(),
    };
    let lines = text.lines().map(|line| line.split(' ').map(word).collect::<Vec<_>>().join(" "));
    lines.collect::<Vec<_>>().join("\n") + "\n"
}
