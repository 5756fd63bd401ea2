//! Opening files: nothing is ever written, and what can't be read is said.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{
    collections::BTreeMap,
    io::{BufRead, Write},
    path::Path,
};

use proptest::prelude::*;
use rusqlite::Connection;
use sqlite::{
    ReadError,
    file::{Location, Reader, SqliteFile},
    rows::{Cells, RowQuery},
    schema::Schema,
    value::Cell,
};
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Every file with its bytes: what must be the same afterwards.
fn content(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap()))
        .collect()
}

fn open(path: &Path) -> Result<SqliteFile, ReadError> {
    SqliteFile::open(&Location::of_path(path))
}

fn numbers(reader: &Reader) -> Vec<i64> {
    let schema = Schema::read(reader).unwrap();
    let query = RowQuery::new(schema.table("t").unwrap(), &[0], None, reader.encoding());
    let mut found = Vec::new();
    reader
        .rows(&query, |row| {
            let Cell::Integer(value) = row.cell(0) else { panic!("no integer") };
            found.push(value);
            Ok::<_, ReadError>(())
        })
        .unwrap();
    found
}

fn made(path: &Path, journal: &str) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.query_row(&format!("pragma journal_mode = {journal}"), [], |_| Ok(())).unwrap();
    connection.execute_batch("create table t (n); insert into t values (1), (2), (3)").unwrap();
    connection
}

/// Another process that has a file open: locks mean nothing within one.
struct Application {
    child: std::process::Child,
    answers: std::io::BufReader<std::process::ChildStdout>,
}

/// What the process says when a statement is done.
const DONE: &str = "<done>";

impl Application {
    fn open(path: &Path) -> Self {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "application", "--nocapture"])
            .env("SQLITE_TEST_FILE", path)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let answers = std::io::BufReader::new(child.stdout.take().unwrap());
        Self { child, answers }
    }

    fn run(&mut self, sql: &str) {
        self.send(sql);
        let mut line = String::new();
        while !line.contains(DONE) {
            line.clear();
            assert!(self.answers.read_line(&mut line).unwrap() > 0, "the application ended");
        }
    }

    fn send(&mut self, sql: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{sql}").unwrap();
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// No test of its own: the process that [`Application`] starts.
#[test]
fn application() {
    let Ok(path) = std::env::var("SQLITE_TEST_FILE") else { return };
    let connection = Connection::open(path).unwrap();
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        if let Some(sql) = line.strip_prefix("for ever ") {
            println!("{DONE}");
            loop {
                connection.execute_batch(sql).unwrap();
            }
        }
        connection.execute_batch(&line).unwrap();
        println!("{DONE}");
    }
}

/// A WAL and its index as a process that was killed leaves them.
fn crashed_wal(folder: &Path, with_shm: bool) -> std::path::PathBuf {
    let live = folder.join("live.db");
    let connection = made(&live, "wal");
    let dead = folder.join("dead");
    std::fs::create_dir(&dead).unwrap();
    for suffix in ["", "-wal", "-shm"] {
        if suffix != "-shm" || with_shm {
            std::fs::copy(folder.join(format!("live.db{suffix}")), dead.join(format!("x.db{suffix}")))
                .unwrap();
        }
    }
    drop(connection);
    dead.join("x.db")
}

#[test]
fn nothing_is_written_created_or_checkpointed_whatever_lies_there() {
    let folder = folder();
    let closed = folder.path().join("closed.db");
    drop(made(&closed, "wal"));
    let plain = folder.path().join("plain.db");
    drop(made(&plain, "delete"));
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    std::fs::create_dir(&one).unwrap();
    std::fs::create_dir(&two).unwrap();
    for path in [closed, plain, crashed_wal(&one, true), crashed_wal(&two, false)] {
        let parent = path.parent().unwrap().to_owned();
        let files = |folder: &Path| {
            let plain = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file());
            plain.map(|p| (p.clone(), std::fs::read(&p).unwrap())).collect::<BTreeMap<_, _>>()
        };
        let before = files(&parent);
        let file = open(&path).unwrap();
        let readers = file.readers(3).unwrap();
        assert_eq!(readers.len(), 3);
        for reader in &readers {
            assert_eq!(numbers(reader), [1, 2, 3], "{path:?}");
        }
        file.digest().unwrap();
        file.unchanged().unwrap();
        drop(readers);
        assert!(files(&parent) == before, "{path:?}");
    }
}

#[test]
fn what_a_live_application_committed_is_read_and_it_goes_on() {
    let folder = folder();
    let path = folder.path().join("x.db");
    drop(made(&path, "wal"));
    let mut application = Application::open(&path);
    application.run("insert into t values (4)");
    let file = open(&path).unwrap();
    let readers = file.readers(2).unwrap();
    application.run("insert into t values (5)");
    for reader in &readers {
        assert_eq!(numbers(reader), [1, 2, 3, 4], "the state of the beginning");
    }
    assert_eq!(numbers(&file.readers(1).unwrap()[0]), [1, 2, 3, 4, 5]);
    file.unchanged().unwrap();
    drop(readers);
    application.run("insert into t values (6)");
}

#[test]
fn readers_that_began_while_somebody_commits_see_one_state() {
    let folder = folder();
    let path = folder.path().join("x.db");
    drop(made(&path, "wal"));
    let mut application = Application::open(&path);
    application.run("for ever insert into t values (9)");
    let file = open(&path).unwrap();
    for _ in 0..10 {
        let readers = file.readers(4).unwrap();
        let seen: Vec<usize> = readers.iter().map(|reader| numbers(reader).len()).collect();
        assert!(seen.iter().all(|count| *count == seen[0]), "{seen:?}");
    }
}

#[test]
fn a_reader_keeps_its_lock_whatever_else_is_read_of_the_file() {
    let folder = folder();
    let path = folder.path().join("x.db");
    drop(made(&path, "delete"));
    let file = open(&path).unwrap();
    let readers = file.readers(2).unwrap();
    file.digest().unwrap();
    drop(file.readers(1).unwrap());
    let mut application = Application::open(&path);
    application.run("create temp table seen as select 1");
    application.send("insert into t values (4)");
    // The statement fails at once, and the process with it.
    assert!(!application.child.wait().unwrap().success());
    assert_eq!(numbers(&readers[0]), [1, 2, 3]);
}

#[test]
fn a_file_that_was_changed_without_locks_does_not_count() {
    let folder = folder();
    let path = folder.path().join("x.db");
    drop(made(&path, "wal"));
    let file = open(&path).unwrap();
    let readers = file.readers(1).unwrap();
    let application = Connection::open(&path).unwrap();
    application.execute_batch("insert into t values (4)").unwrap();
    drop(readers);
    assert!(matches!(file.unchanged(), Err(ReadError::Changed(_))));
}

#[test]
fn a_writer_in_the_middle_of_its_transaction_is_told_from_a_hot_journal() {
    let folder = folder();
    let path = folder.path().join("x.db");
    let application = made(&path, "delete");
    application.execute_batch("pragma cache_size = 1; begin exclusive; insert into t values (4)").unwrap();
    let mut journal = std::fs::read(folder.path().join("x.db-journal")).unwrap();
    assert!(matches!(open(&path), Err(ReadError::Locked(_))));
    application.execute_batch("commit").unwrap();
    drop(application);
    // The journal as it is once it was synced: with the number of its pages.
    if journal[..8] == [0; 8] {
        journal[..8].copy_from_slice(&[0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7]);
    }
    std::fs::write(folder.path().join("x.db-journal"), journal).unwrap();
    let before = content(folder.path());
    assert!(matches!(open(&path), Err(ReadError::HotJournal(_))));
    assert!(content(folder.path()) == before);
}

#[test]
fn what_is_no_database_is_said() {
    let folder = folder();
    let path = folder.path().join("x.db");
    drop(made(&path, "delete"));
    let whole = std::fs::read(&path).unwrap();
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = whole.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    let mut seed = 1_u64;
    let random: Vec<u8> = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed.to_be_bytes()[0]
    })
    .take(8192)
    .collect();
    let cases: [(Vec<u8>, &str); 12] = [
        (Vec::new(), "NoDatabase"),
        (b"SQLite form".to_vec(), "Truncated"),
        (whole[..60].to_vec(), "Truncated"),
        (whole[..4096].to_vec(), "Truncated"),
        (whole[..5000].to_vec(), "Truncated"),
        (random, "Encrypted"),
        (b"hello, this is some text\n".repeat(100), "NoDatabase"),
        (b"\x1f\x8b\x08\0\0\0\0\0".to_vec(), "NoDatabase"),
        (with(44, &[0, 0, 0, 5]), "NewerFormat"),
        (with(18, &[3, 3]), "NewerFormat"),
        (with(16, &[0, 3]), "Damaged"),
        (with(100, &[0x77; 8]), "Damaged"),
    ];
    for (bytes, kind) in cases {
        std::fs::write(&path, &bytes).unwrap();
        let error = open(&path).unwrap_err();
        assert!(format!("{error:?}").starts_with(kind), "{kind}: {error:?}");
        assert!(error.hint().is_some() && !error.to_string().is_empty());
    }
    assert!(matches!(open(&folder.path().join("nothing.db")), Err(ReadError::NotThere(_))));
    assert!(matches!(open(folder.path()), Err(ReadError::NotPlain(_))));
}

#[test]
fn text_in_utf_16_is_read_and_half_a_pair_is_told() {
    for encoding in ["UTF-16le", "UTF-16be"] {
        let folder = folder();
        let path = folder.path().join("x.db");
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch(&format!("pragma encoding = '{encoding}'; create table t (v)")).unwrap();
        let half: &[u8] =
            if encoding == "UTF-16le" { &[0x00, 0xd8, 0x41, 0x00] } else { &[0xd8, 0x00, 0x00, 0x41] };
        connection
            .execute(
                "insert into t values (?1), (7), (cast(?2 as text)), (x'00')",
                rusqlite::params!["aä🐘", half],
            )
            .unwrap();
        drop(connection);
        let file = open(&path).unwrap();
        let reader = file.readers(1).unwrap().remove(0);
        let schema = Schema::read(&reader).unwrap();
        let query = RowQuery::new(&schema.tables[0], &[0], None, reader.encoding());
        let mut seen = Vec::new();
        reader
            .rows(&query, |row| {
                seen.push(format!("{} {}", row.key().0, row.cell(0)));
                Ok::<_, ReadError>(())
            })
            .unwrap();
        assert_eq!(seen[0], "1 'aä🐘'");
        assert_eq!(seen[1], "2 7");
        assert!(seen[2].starts_with("3 x'"), "{seen:?}");
        assert_eq!(seen[3], "4 x'00'");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// The header alone: what lies behind it is for SQLite to judge.
    #[test]
    fn a_changed_header_gives_an_error_or_the_rows_and_never_a_panic(
        changes in proptest::collection::vec((0_usize..100, any::<u8>()), 1..6)
    ) {
        let folder = folder();
        let path = folder.path().join("x.db");
        drop(made(&path, "delete"));
        let mut bytes = std::fs::read(&path).unwrap();
        changes.iter().for_each(|(at, byte)| bytes[*at] = *byte);
        std::fs::write(&path, &bytes).unwrap();
        if let Ok(file) = open(&path) {
            let reader = file.readers(1).unwrap().remove(0);
            let _ = Schema::read(&reader);
        }
        prop_assert!(std::fs::read(&path).unwrap() == bytes);
    }
}
