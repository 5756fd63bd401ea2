//! What happens on a server, step by step: each command line is answered, and what it says is kept.

use std::{collections::BTreeSet, fmt::Write as _, path::Path};

use tests::{Database, psql};

use super::{
    answer::{answer, without_times},
    lines::prepare,
};

/// One step of what happens on a server. In texts `{DATABASE}` is the database's name, `{ID}` the first snapshot, `{LAST}` the newest,
/// and `{RUN}` the newest run.
pub enum Step {
    /// A command line; it gets `-d`.
    Run(&'static [&'static str]),
    /// The same, as the role `{DATABASE}_r`.
    As(&'static [&'static str]),
    /// The same as the superuser, with this added to the URL.
    With(&'static str, &'static [&'static str]),
    /// A command line as it stands.
    Plain(&'static [&'static str]),
    /// A file with this text.
    File(&'static str, &'static str),
    /// It goes.
    Remove(&'static str),
    /// Somebody does this to the database.
    Sql(&'static str),
    /// Somebody does this in the database `postgres`.
    Server(&'static str),
    /// A session does this, and stays.
    Hold(&'static str),
    /// It ends.
    Release,
}

use Step::{As, File, Hold, Plain, Release, Remove, Run, Server, Sql, With};

/// What a story has met so far.
struct Story<'d> {
    database: &'d Database<'d>,
    folder: tempfile::TempDir,
    said: String,
    given: String,
    id: String,
    held: Option<psql::Session>,
}

fn newest(folder: &Path) -> String {
    let names: BTreeSet<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(|entry| entry.expect("it is readable").file_name().to_string_lossy().into_owned())
        .collect();
    names.last().cloned().unwrap_or_default()
}

impl Story<'_> {
    fn filled(&self, text: &str) -> String {
        let place = self.folder.path().join("snapshots");
        let (last, run) = (newest(&place.join("snapshots")), newest(&place.join("runs")));
        let text = text.replace("{ID}", &self.id).replace("{LAST}", &last).replace("{RUN}", &run);
        let third = self.database.cluster().url(&format!("{}_3", self.database.name()));
        text.replace("{DATABASE}", self.database.name()).replace("{URL_3}", &third)
    }

    /// Runs it as this role.
    fn run(&mut self, arguments: &[&str], role: Option<&str>, suffix: &str) {
        let name = self.database.name();
        let cluster = self.database.cluster();
        let url = role.map(|role| cluster.url_as(role, name) + suffix);
        let told: Vec<String> = arguments.iter().map(|word| self.filled(word)).collect();
        let mut told: Vec<&str> = told.iter().map(String::as_str).collect();
        if let Some(url) = &url {
            let at = told.iter().position(|word| !word.contains('=')).expect("a program");
            if told[at] == "safe-run" {
                // Before `--`, and not behind it.
                told.splice(at + 1..at + 1, ["-d", url]);
            } else {
                told.extend(["-d", url]);
            }
        }
        let last = self.filled("{LAST}");
        let run = self.filled("{RUN}");
        let (answer, hints) = answer(self.folder.path(), &told);
        if self.id.is_empty() {
            self.id = newest(&self.folder.path().join("snapshots/snapshots"));
        }
        let mut answer = answer.replace(&format!(" -d {}", url.unwrap_or_default()), "");
        if let Some(role) = role.filter(|role| *role != "postgres") {
            answer = answer.replacen("$ ", &format!("$ as {role}: "), 1);
        }
        let place = self.database.cluster().socket_dir().display().to_string();
        let encoded = place.replace('/', "%2F");
        // A run's own snapshot, and a scratch database of this moment, are named too.
        let newer = [
            newest(&self.folder.path().join("snapshots/snapshots")),
            newest(&self.folder.path().join("snapshots/runs")),
        ];
        let masks = [
            (&self.id, "<id>"),
            (&last, "<last>"),
            (&newer[0], "<last>"),
            (&run, "<run>"),
            (&newer[1], "<run>"),
        ];
        for (found, stands) in masks {
            if !found.is_empty() {
                answer = answer.replace(found.as_str(), stands);
            }
        }
        let answer = answer.replace(name, "app").replace(&place, "<socket>").replace(&encoded, "<socket>");
        writeln!(self.said, "{}", without_times(&answer)).expect("a string");
        self.given.push_str(&hints);
    }

    fn go(&mut self, step: &Step) {
        let place = |name: &str| self.folder.path().join(self.filled(name));
        match step {
            Run(arguments) => self.run(arguments, Some("postgres"), ""),
            With(suffix, arguments) => self.run(arguments, Some("postgres"), suffix),
            Plain(arguments) => self.run(arguments, None, ""),
            As(arguments) => {
                let role = format!("{}_r", self.database.name());
                self.run(arguments, Some(&role), "");
            }
            File(name, text) => {
                std::fs::create_dir_all(place(name).parent().expect("a folder")).expect("the folder is ours");
                std::fs::write(place(name), text).expect("the folder is ours");
            }
            Remove(name) => std::fs::remove_file(place(name)).expect("it is there"),
            Sql(sql) => drop(self.database.psql(&self.filled(sql))),
            Server(sql) => drop(self.database.cluster().psql(&self.filled(sql))),
            Hold(sql) => {
                let mut session = self.database.session();
                session.run(&self.filled(sql));
                self.held = Some(session);
            }
            Release => self.held = None,
        }
    }
}

/// What is answered to these steps, and the hints that were given meanwhile. The database gets `setup` first.
pub fn story(database: &Database<'_>, setup: &str, steps: &[Step]) -> (String, String) {
    let folder = tempfile::tempdir().expect("a folder");
    prepare(folder.path());
    let mut story =
        Story { database, folder, said: String::new(), given: String::new(), id: String::new(), held: None };
    database.psql(&story.filled(setup));
    for step in steps {
        story.go(step);
    }
    (story.said, story.given)
}

/// A table `a`, a table `b` that refers to it, and a table `"S".t`.
pub const SMALL: &str = "CREATE TABLE a (i int PRIMARY KEY); CREATE TABLE b (i int REFERENCES a); CREATE SCHEMA \"S\"; CREATE TABLE \"S\".t (i int)";

/// What goes wrong with a database like [`SMALL`].
pub const STEPS: &[Step] = &[
    Run(&["backup", "create", "-q"]),
    // The pace of backups is counted in whole seconds.
    Sql("SELECT pg_sleep(1.1)"),
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
    Run(&["backup", "import", "x.tar"]),
    Run(&["backup", "prune", "--keep-daily", "7", "--simulate", "3650d"]),
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
    Run(&["safe-run", "--dir", "twice"]),
    Run(&["safe-run", "--dir", "latin"]),
    Run(&["safe-run", "--dir", "unnamed"]),
    File(
        "migrations/3_c.sql",
        "CREATE TABLE d (i int REFERENCES a DEFERRABLE INITIALLY DEFERRED); INSERT INTO d VALUES (99);",
    ),
    Run(&["safe-run"]),
    File("migrations/3_c.sql", "-- safe-run: no-transaction\nBEGIN; SELECT 1;"),
    Run(&["safe-run"]),
    File("migrations/3_c.sql", "-- safe-run: no-transaction\nBEGIN; VACUUM; COMMIT;"),
    Run(&["safe-run"]),
    File("migrations/3_c.sql", "-- safe-run: no-transaction\nBEGIN; PREPARE TRANSACTION 'x';"),
    Run(&["safe-run"]),
    File("migrations/3_c.sql", "DO $$BEGIN EXECUTE 'VACUUM'; END$$;"),
    Run(&["safe-run"]),
    Remove("migrations/3_c.sql"),
    Sql("DROP TABLE b"),
    Run(&["restore", "{ID}", "--table", "b", "--replace", "-y"]),
    Run(&["backup", "create", "-q", "-t", "a"]),
    Run(&["restore", "latest", "--replace", "-y"]),
    Run(&["restore", "latest", "--table", "\"S\".t"]),
    Run(&["restore", "{ID}", "--table", "a.b.\"c"]),
    Remove("migrations/1_a.sql"),
    Run(&["safe-run"]),
];
