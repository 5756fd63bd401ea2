//! A database of another system, named where a PostgreSQL database is wanted: every command of the three tools says what it is,
//! and which command would serve.

// The helpers of tests are tests too; clippy.toml covers only the functions marked as such.
#![allow(clippy::unwrap_used)]

use tests::{Outcome, binaries::command};

/// Commands that want a database, of each tool.
const COMMANDS: &[(&str, &[&str])] = &[
    ("backup", &["create"]),
    ("backup", &["check"]),
    ("backup", &["schedule", "--cron", "0 3 * * *"]),
    ("restore", &["latest", "--into", "x"]),
    ("restore", &["latest", "--replace", "--yes"]),
    ("safe-run", &[]),
    ("safe-run", &["status"]),
    ("safe-run", &["plan"]),
    ("safe-run", &["check"]),
    ("safe-run", &["recover"]),
    ("safe-run", &["--", "true"]),
];

/// Each command, with the database from the flag and from the environment.
fn refuses(url: &str, texts: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("migrations")).unwrap();
    std::fs::write(folder.path().join("app.sqlite3"), b"SQLite format 3\0 and so on").unwrap();
    for (program, words) in COMMANDS {
        for by_flag in [true, false] {
            let mut command = command(program);
            command.current_dir(folder.path());
            if by_flag {
                // Before the words: behind `--` it would be the command's.
                command.args(["-d", url]).args(*words);
            } else {
                command.args(*words).env("DATABASE_URL", url);
            }
            let outcome = Outcome::of(&mut command).fails(2, texts);
            assert!(!outcome.stderr.contains("secret"), "{program} {words:?}: {}", outcome.stderr);
        }
    }
}

#[test]
fn a_url_of_sqlite_is_told_from_a_wrong_one() {
    let says = [
        "the database URL leads to SQLite, and these programs work on PostgreSQL",
        "`safe-run import FILE -d postgresql://",
    ];
    refuses("sqlite:///app.sqlite3", &says);
    refuses("sqlite+aiosqlite:///app.sqlite3?secret=1", &says);
}

#[test]
fn the_path_of_a_sqlite_file_is_no_database_name() {
    refuses(
        "./app.sqlite3",
        &["the database that was given is a file of SQLite", "`safe-run import FILE -d postgresql://"],
    );
    refuses("dbname=app.sqlite3", &["the database that was given is a file of SQLite"]);
}

#[test]
fn urls_of_other_systems_are_told_too() {
    refuses(
        "mysql+pymysql://root:secret@db/shop",
        &["the database URL leads to MySQL, and", "No command here reads MySQL"],
    );
    refuses("mssql://sa:secret@db/shop", &["the database URL leads to SQL Server, and"]);
}
