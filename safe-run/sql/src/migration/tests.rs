use std::path::Path;

use proptest::prelude::*;

use super::*;

fn file(name: &str, sql: &str) -> MigrationFile {
    try_file(name, sql).unwrap_or_else(|error| panic!("{name}: {error:?}"))
}

fn try_file(name: &str, sql: &str) -> Result<MigrationFile> {
    let version = Version::parse(name.split('_').next().unwrap_or_default()).expect("a version");
    MigrationFile::parse(PathBuf::from("migrations").join(name), version, "d".to_owned(), sql.to_owned())
}

fn texts(file: &MigrationFile) -> Vec<&str> {
    file.statements.iter().map(|statement| statement.text.as_str()).collect()
}

fn applied(file: &MigrationFile) -> AppliedMigration {
    AppliedMigration {
        kind: RowKind::Migration,
        version: file.version.clone(),
        description: file.description.clone(),
        checksum: Some(file.checksum.clone()),
        checksum_normalized: Some(file.checksum_normalized.clone()),
        applied_at: "2026-11-20 03:00".to_owned(),
    }
}

fn version(text: &str) -> Version {
    Version::parse(text).expect(text)
}

#[test]
fn the_way_down_of_every_tool_is_cut_off_and_lines_stay_true() {
    let files = [
        "-- migrate:up\n{up}\n-- migrate:down\n{down}\n",
        "--migrate:up transaction:false\n{up}\n-- migrate:down transaction:false\n{down}\n",
        "-- +goose Up\n{up}\n-- +goose Down\n{down}\n",
        "-- +goose Up\n-- +goose StatementBegin\n{up}\n-- +goose StatementEnd\n-- +goose Down\n-- +goose StatementBegin\n{down}\n-- +goose StatementEnd",
        "-- +migrate Up\r\n{up}\r\n-- +migrate Down\r\n{down}\r\n",
        "-- +goose Down\n{down}\n-- +goose Up\n{up}\n",
        "{up}\n---- create above / drop below ----\n{down}\n",
        "{up}\n-- //@UNDO\n{down}\n",
        "-- rambler up\n{up}\n-- rambler down\n{down}",
        "-- Up Migration\n{up}\n-- Down Migration\n{down}",
    ];
    for template in files {
        let sql = template.replace("{up}", "create table a (x int);").replace("{down}", "drop table a;");
        let parsed = match try_file("1_a.sql", &sql) {
            Ok(parsed) => parsed,
            // A way down before any way up is refused, never run.
            Err(error) => {
                assert!(
                    template.starts_with("-- +goose Down") && error.message().contains(":1:"),
                    "{error:?}"
                );
                continue;
            }
        };
        assert_eq!(texts(&parsed), ["create table a (x int)"], "{sql}");
        let line = sql.lines().position(|line| line.starts_with("create")).expect("there") as u32 + 1;
        assert_eq!(parsed.statements[0].line, line, "{sql}");
    }
}

#[test]
fn sections_that_alternate_run_every_way_up() {
    let sql = "-- +migrate Up\nselect 1;\n-- +migrate Down\nselect 2;\n-- +migrate Up\nselect 3;\n";
    assert_eq!(texts(&file("1_a.sql", sql)), ["select 1", "select 3"]);
}

#[test]
fn a_file_with_sections_but_no_statements_runs_nothing() {
    assert_eq!(
        texts(&file("1_a.sql", "-- migrate:up\n\n-- migrate:down\ndrop table a;\n")),
        Vec::<&str>::new()
    );
}

#[test]
fn doubtful_sections_are_refused() {
    let cases = [
        ("select 1;\n-- migrate:up\nselect 2;", "1_a.sql:1: `select 1` stands before"),
        ("-- migrate:down\ndrop table a;", "before any way up"),
        ("-- +goose Up\n-- +goose ENVSUB ON\nselect '${X}';", "1_a.sql:2: goose would fill in"),
        ("-- migrate:up\nselect '\n-- migrate:down\n';", "1_a.sql:2:8: a string begins here"),
    ];
    for (sql, message) in cases {
        let error = try_file("1_a.sql", sql).expect_err(sql);
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.message().contains(message) && error.hint().is_some(), "{sql}: {error:?}");
    }
}

#[test]
fn the_way_down_of_every_tool_is_cut_off() {
    for sql in [
        "-- ==== UP ====\ncreate table a (x int);\n-- ==== DOWN ====\ndrop table a;\n",
        "-- +micrate Up\ncreate table a (x int);\n-- +micrate Down\ndrop table a;\n",
        "# Users schema\n\n# --- !Ups\ncreate table a (x int);\n\n# --- !Downs\ndrop table a;\n",
        "-- !Ups\ncreate table a (x int);\n-- !Downs\ndrop table a;\n",
        "-- Up Migration\ncreate table a (x int);\n-- Down Migration\ndrop table a;\n",
        "---- Up Migration\ncreate table a (x int);\n---- Down Migration\ndrop table a;\n",
        "-- // add a\ncreate table a (x int);\n\n-- //@UNDO\ndrop table a;\n",
        "--// add a\ncreate table a (x int);\n--//@UNDO\ndrop table a;\n",
        "-- rambler up\ncreate table a (x int);\n-- rambler down\ndrop table a;\n",
        "--liquibase formatted sql\n--changeset me:1\ncreate table a (x int);\n--rollback drop table a;\n",
    ] {
        let read = file("1_a.sql", sql);
        let texts: Vec<&str> = read.statements.iter().map(|statement| statement.text.trim()).collect();
        assert_eq!(texts, ["create table a (x int)"], "{sql}");
    }
}

#[test]
fn a_comment_that_reads_like_a_way_down_is_refused_by_its_line() {
    for comment in [
        "-- Down",
        "-- DOWN:",
        "-- rollback",
        "--Rollback script",
        "-- ***** ROLLBACK *****",
        "-- Undo migration",
        "-- revert",
        "/* Down */",
        "-- roll back",
        "-- [DOWN]",
        "-- Migration Down",
        "-- <<< downgrade",
    ] {
        let sql = format!("create table a (x int);\n\n{comment}\ndrop table a;\n");
        let error = try_file("1_a.sql", &sql).expect_err(comment);
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.message().contains("1_a.sql:3: `"), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("--whole-file")), "{error:?}");
        // Said to be an ordinary comment, all of it runs.
        let whole = file("1_a.sql", &format!("-- safe-run: whole-file\n{sql}"));
        assert_eq!(whole.statements.len(), 2, "{comment}");
    }
    for sql in [
        "create table a (x int);\n-- Down\n-- drop table a;\n",
        "-- Rollback of the prices that 0012 had wrong\nupdate a set x = 1;",
        "create function f() returns int language plpgsql as $$ begin\n-- rollback\nreturn 1; end $$;\nselect 1;",
        "select '\n-- down\n';\nselect 2;",
        "select 1; -- down\nselect 2;",
        "copy t from stdin;\n-- down\n\\.\nselect 2;",
        "create table a (x int);\n/* ROLLBACK; begin */\ninsert into a values (1);",
        "create table a (x int);\n-- rollback;\n-- begin;\ninsert into a values (1);",
        "create table a (x int);\n-- revert\nupdate b set y = 1;",
        "create table a (x int);\n-- revert\nalter table b drop column y;",
        "-- revert\nalter table a drop column x;\nselect 1;",
        "-- Rollback\ndrop table a;",
        "create table a (\n  x int,\n  -- down\n  y int\n);\nselect 1;",
        "select 1;\n/* down */ select 2;",
        "-- Up migration of the users\nselect 1;",
    ] {
        let read = try_file("1_a.sql", sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        let expected = crate::statement::split(sql).unwrap().len();
        assert_eq!(read.statements.len(), expected, "all of it runs: {sql}");
    }
    // Up or down: what takes away what the file has made, or stands under a heading of either.
    for (sql, line) in [
        ("create table a (x int);\n-- revert\ndrop table if exists public.a;", 2),
        ("alter table b rename c to d;\n/* undo */\nalter table b rename d to c;", 2),
        ("create table a (x int);\n-- == revert ==\ninsert into b values (1);", 2),
        ("-- up\ncreate table a (x int);\n-- revert\ninsert into b values (1);", 3),
        ("-- undo\ndrop table a;\n-- apply\ncreate table a (x int);", 1),
        ("select 1;\n-- Down migration is below\nselect 2;", 2),
    ] {
        let error = try_file("1_a.sql", sql).expect_err(sql);
        assert!(error.message().contains(&format!("1_a.sql:{line}: `")), "{sql}: {error}");
    }
}

#[test]
fn transactions_of_the_file_become_transactions_of_ours() {
    let read = |sql: &str| {
        let file = file("1_a.sql", sql);
        let commits: Vec<usize> = file.own_commits.iter().map(|(place, _)| *place).collect();
        (file.statements.len(), commits, file.no_transaction.is_some())
    };
    // Around everything they are none.
    assert_eq!(read("begin; select 1; commit;"), (1, vec![], false));
    assert_eq!(read("set x = 1; begin; select 1; commit;"), (2, vec![], false));
    assert_eq!(read("begin; select 1; commit; select 2;"), (2, vec![1], false));
    assert_eq!(
        read("select 0; begin; select 1; commit; begin transaction; select 2; end; select 3"),
        (4, vec![2, 3], false)
    );
    assert_eq!(read("begin; commit; select 1; begin; commit; select 2;"), (2, vec![1], false));
    assert_eq!(read("begin isolation level serializable; select 1; commit;"), (3, vec![], true));
    for sql in
        ["begin; select 1;", "select 1; commit; select 2", "select 1; rollback;", "prepare transaction 'x'"]
    {
        assert!(file("1_a.sql", sql).statements_without_wrapper().is_err(), "{sql}");
    }
}

#[test]
fn every_no_transaction_marker_is_honoured() {
    let marked = [
        "-- no-transaction\nselect 1",
        "-- safe-run: no-transaction\nselect 1",
        "/* licence */\n--safe-run: NO-TRANSACTION\nselect 1",
        "-- migrate:up transaction:false\nselect 1",
        "-- +goose NO TRANSACTION\n-- +goose Up\nselect 1",
        "-- +migrate Up notransaction\nselect 1",
        "-- atlas:txmode none\n\nselect 1",
        "---- tern: disable-tx ----\nselect 1",
        "--! no-transaction\nselect 1",
        "select 1;\ncreate index concurrently i on t (a)",
        "-- safe-run: no-transaction\n-- migrate:up\nselect 1;\n-- migrate:down\nselect 2;",
    ];
    for sql in marked {
        let reason = file("1_a.sql", sql).no_transaction;
        assert!(reason.as_ref().is_some_and(|reason| reason.starts_with("line ")), "{sql}: {reason:?}");
    }
    let plain = [
        "select 1 -- no-transaction",
        "select '\n-- safe-run: no-transaction\n'",
        "select 1;\n-- no-transaction",
        "-- migrate:up\nselect 1;\n-- migrate:down transaction:false\nvacuum;",
    ];
    for sql in plain {
        assert_eq!(file("1_a.sql", sql).no_transaction, None, "{sql}");
    }
}

#[test]
fn annotations_are_read_and_misspelt_ones_refused() {
    let sql = "-- safe-run: rows orders = -1200..-1000\n-- safe-run: rows s.\"T\" = +3\ndelete from orders;\n\
               -- safe-run: allow-loss shop.carts\n-- safe-run: allow-loss orders=500\n";
    let annotations = file("1_a.sql", sql).annotations;
    let rows: Vec<_> = annotations
        .rows
        .iter()
        .map(|rows| (rows.table.to_string(), rows.change.clone(), rows.line))
        .collect();
    assert_eq!(rows, [("orders".to_owned(), -1200..=-1000, 1), ("s.T".to_owned(), 3..=3, 2)]);
    let losses: Vec<_> =
        annotations.allow_loss.iter().map(|loss| (loss.table.to_string(), loss.at_most, loss.line)).collect();
    assert_eq!(losses, [("shop.carts".to_owned(), None, 4), ("orders".to_owned(), Some(500), 5)]);

    let sql = "-- safe-run: allow-lost-labels app.mood\n-- safe-run: allow-lost-labels Mood = ok, 'it''s', Sad\n\
               -- safe-run: allow-lost-grants \"Totals\"\nselect 1;\n";
    let annotations = file("1_a.sql", sql).annotations;
    let labels: Vec<_> =
        annotations.lost_labels.iter().map(|(name, labels)| (name.to_string(), labels.join("|"))).collect();
    assert_eq!(
        labels,
        [("app.mood".to_owned(), String::new()), ("mood".to_owned(), "ok|it's|Sad".to_owned())]
    );
    assert_eq!(annotations.lost_grants.iter().map(|name| name.name.as_str()).collect::<Vec<_>>(), ["Totals"]);

    for wrong in [
        "allow-lost-labels",
        "allow-lost-labels mood =",
        "allow-lost-labels mood = ok,",
        "allow-lost-labels mood = ok sad",
        "allow-lost-labels mood = 7",
        "allow-lost-grants t = 3",
        "allow-los t",
        "rows t",
        "rows t = x",
        "rows t = 3..1",
        "allow-loss",
        "allow-loss a b",
        "allow-loss t=-1",
        "",
    ] {
        let error = try_file("1_a.sql", &format!("select 1;\n-- safe-run: {wrong}\n")).expect_err(wrong);
        assert_eq!(error.kind(), ErrorKind::Usage, "{wrong}");
        assert!(error.message().starts_with("migrations/1_a.sql:2: "), "{wrong}: {error:?}");
    }
    assert_eq!(file("1_a.sql", "select '-- safe-run: nonsense'").annotations, Annotations::default());
    let data = file("1_a.sql", "copy t from stdin;\n-- safe-run: nonsense\n\\.\n-- safe-run: allow-loss t\n");
    assert_eq!(data.annotations.allow_loss.len(), 1);
}

#[test]
fn a_transaction_around_the_whole_file_is_taken_off_and_a_loose_end_refused() {
    let inner = |sql: &str| -> Result<Vec<String>> {
        let file = file("1_a.sql", sql);
        file.statements_without_wrapper().map(|all| all.iter().map(|s| s.text.clone()).collect())
    };
    assert_eq!(inner("begin; select 1; commit;").ok(), Some(vec!["select 1".to_owned()]));
    assert_eq!(
        inner("START TRANSACTION; savepoint a; rollback to a; END").map(|all| all.len()).ok(),
        Some(2)
    );
    assert_eq!(inner("select 1").map(|all| all.len()).ok(), Some(1));
    for sql in ["begin; select 1; commit; begin; select 2", "begin; select 1; rollback", "rollback; select 1"]
    {
        assert!(inner(sql).is_err_and(|error| error.kind() == ErrorKind::Refused), "{sql}");
    }
}

#[test]
fn drift_is_told_apart_by_what_changed() {
    let old = file("1_a.sql", "create table a (x int); -- first\n");
    let cases = [
        ("create table a (x int); -- first\n", None),
        ("create table a (x int); -- first\r\n", Some(DriftKind::LineEndings)),
        ("create table a (x int); -- first", Some(DriftKind::LineEndings)),
        ("\u{feff}create table a (x int); -- first\n", Some(DriftKind::LineEndings)),
        ("create table a (\n  x int\n);\n/* second */", Some(DriftKind::Comments)),
        ("create table a (x bigint); -- first\n", Some(DriftKind::Real)),
        ("create table a (x int, y text default ' '); -- first\n", Some(DriftKind::Real)),
        ("create table a (x int); select 1; -- first\n", Some(DriftKind::Real)),
    ];
    for (sql, expected) in cases {
        assert_eq!(classify_drift(&file("1_a.sql", sql), &applied(&old)), expected, "{sql:?}");
    }
    let up = file("1_a.sql", "-- migrate:up\nselect 1;\n-- migrate:down\nselect 2;");
    let edited_down = file("1_a.sql", "-- migrate:up\nselect 1;\n-- migrate:down\nselect 3;");
    assert_eq!(classify_drift(&edited_down, &applied(&up)), Some(DriftKind::Comments));
    let unrecorded = AppliedMigration { checksum: None, checksum_normalized: None, ..applied(&old) };
    assert_eq!(classify_drift(&up, &unrecorded), None);
}

#[test]
fn only_what_was_not_applied_is_pending_in_numeric_order() {
    let files = [file("1_a.sql", "select 1"), file("2_b.sql", "select 2"), file("10_c.sql", "select 3")];
    let history = [AppliedMigration { version: version("001"), ..applied(&files[0]) }];
    let made = plan(&files, &history, None, &[]).expect("fits");
    assert_eq!(made.pending.iter().map(|f| f.name()).collect::<Vec<_>>(), ["2_b.sql", "10_c.sql"]);
    let made = plan(&files, &history, Some(&version("2")), &[]).expect("fits");
    assert_eq!(made.pending.len(), 1);
    assert_eq!(made.held_back.iter().map(|f| f.name()).collect::<Vec<_>>(), ["10_c.sql"]);
}

#[test]
fn a_history_that_does_not_fit_is_refused_by_name() {
    let files = [file("1_a.sql", "select 1"), file("2_b.sql", "select 2"), file("3_c.sql", "select 3")];
    let newest = [applied(&files[0]), applied(&files[2])];
    let error = plan(&files, &newest, None, &[]).expect_err("2 is late");
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(
        error.message().contains("2_b.sql")
            && error.hint().is_some_and(|h| h.contains("--allow-out-of-order 2"))
    );
    assert_eq!(plan(&files, &newest, None, &[version("2")]).expect("allowed").pending.len(), 1);

    let edited = [AppliedMigration {
        checksum: Some("0".repeat(64)),
        checksum_normalized: Some("0".repeat(64)),
        ..applied(&files[0])
    }];
    let error = plan(&files, &edited, None, &[]).expect_err("edited");
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.message().contains("1_a.sql (applied 2026-11-20 03:00)"), "{error:?}");

    let missing = [applied(&files[0]), AppliedMigration { version: version("7"), ..applied(&files[0]) }];
    let error = plan(&files, &missing, None, &[]).expect_err("7 has no file");
    assert!(error.message().contains("file is missing: 7 d"), "{error:?}");

    let squashed = [AppliedMigration { version: version("0"), ..applied(&files[0]) }, applied(&files[0])];
    let made = plan(&files, &squashed, None, &[]).expect("squashed");
    assert_eq!((made.squashed.len(), made.pending.len()), (1, 2));

    for (to, allow) in [(Some(version("9")), vec![]), (None, vec![version("9")])] {
        let error = plan(&files, &[], to.as_ref(), &allow).expect_err("no 9");
        assert_eq!(error.kind(), ErrorKind::Usage);
    }
}

/// A directory of files that is removed with the value.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str, files: &[(&str, &[u8])]) -> Self {
        let path = std::env::temp_dir().join(format!("safe-run-load-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        for (name, bytes) in files {
            std::fs::write(path.join(name), bytes).expect("a file");
        }
        Self(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_directory_is_read_in_order_and_other_files_are_left_alone() {
    let dir = Dir::new(
        "order",
        &[
            ("10_c.sql", b"select 3"),
            ("9_b.SQL", b"select 2"),
            ("001_a.up.sql", b"select 1"),
            ("001_a.down.sql", b"drop table a"),
            ("README.md", b"x"),
            (".2_x.sql", b"x"),
            ("V11__d.sql", b"create table d (x int)"),
            ("V11__d.sql.conf", b"executeInTransaction=false\n"),
        ],
    );
    let files = load(std::slice::from_ref(&dir.0), Layout::OWN).expect("loads");
    assert_eq!(files.iter().map(|f| f.version.as_str()).collect::<Vec<_>>(), ["001", "9", "10", "11"]);
    assert_eq!(files[0].checksum, sha256_hex(b"select 1"));
    assert!(files[3].no_transaction.as_ref().is_some_and(|reason| reason.contains("executeInTransaction")));
}

#[test]
fn bad_directories_and_files_are_named_with_a_next_step() {
    let missing = Path::new("/nonexistent/migrations").to_path_buf();
    let empty = Dir::new("empty", &[]);
    let twice = Dir::new("twice", &[("1_a.sql", b"select 1"), ("001_b.sql", b"select 2")]);
    let unnamed = Dir::new("unnamed", &[("1_a.sql", b"select 1"), ("schema.sql", b"select 2")]);
    let latin = Dir::new("latin", &[("1_a.sql", b"select 1;\nselect '\xe9'")]);
    let broken = Dir::new("broken", &[("1_a.sql", b"select 1;\n\\i x")]);
    let cases = [
        (missing, ErrorKind::Usage, "does not exist"),
        (twice.0.join("1_a.sql"), ErrorKind::Usage, "is not a directory"),
        (empty.0.clone(), ErrorKind::Usage, "no migrations in"),
        (twice.0.clone(), ErrorKind::Refused, "001_b.sql and "),
        (unnamed.0.clone(), ErrorKind::Usage, "schema.sql is no migration"),
        (latin.0.clone(), ErrorKind::Usage, "1_a.sql:2: not valid UTF-8"),
        (broken.0.clone(), ErrorKind::Refused, "1_a.sql:2:1: `\\i` is a command of psql"),
    ];
    for (dir, kind, message) in cases {
        let error = load(std::slice::from_ref(&dir), Layout::OWN).expect_err(message);
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.message().contains(message) && error.hint().is_some(), "{error:?}");
    }
}

proptest! {
    /// Whatever stands around it: the words of an ordinary comment refuse nothing and leave nothing out.
    #[test]
    fn an_ordinary_comment_takes_no_statement_away(
        words in prop::collection::vec(prop::sample::select(vec![
            "rollback", "revert", "the", "down", "payment", "undo", "log", "up", "prices", "of", "0012", "migration",
        ]), 2..7),
        form in prop::sample::select(vec![("-- ", ""), ("--", " "), ("/* ", " */"), ("  -- ", "")]),
    ) {
        // A sentence has a word that is no word of a heading.
        let says_more = words.iter().any(|word| ["payment", "log", "prices", "0012"].contains(word));
        let text = words.join(" ");
        prop_assume!(says_more && !text.starts_with("down migration") && !text.starts_with("up migration"));
        let sql = format!("create table a (x int);\n{}{text}{}\ndrop table a;\n", form.0, form.1);
        let read = try_file("1_a.sql", &sql);
        prop_assert!(read.as_ref().is_ok_and(|file| file.statements.len() == 2), "{sql:?}: {read:?}");
    }

    /// A heading for the way down, in whatever decoration, runs nothing that follows it unseen.
    #[test]
    fn a_heading_for_the_way_down_never_runs_what_follows(
        word in prop::sample::select(vec!["down", "DOWN", "Rollback", "revert", "UNDO", "roll back", "Downgrade"]),
        before in prop::sample::select(vec!["=== ", "### ", "[", "<<<", "*** ", "--- ", "@"]),
        after in prop::sample::select(vec!["", " ===", "]", ":", " migration", " script"]),
        statement in prop::sample::select(vec!["drop table a;", "update b set c = 1;", "insert into b values (1);"]),
    ) {
        let sql = format!("create table a (x int);\n\n-- {before}{word}{after}\n{statement}\n");
        let read = try_file("1_a.sql", &sql);
        let runs = read.as_ref().map_or(0, |file| file.statements.len());
        prop_assert!(runs < 2, "{sql:?}: {read:?}");
    }

    #[test]
    fn reading_a_file_never_panics_and_never_runs_the_way_down(
        lines in prop::collection::vec(prop::sample::select(vec![
            "-- migrate:up", "-- migrate:down", "-- +goose Up", "-- +goose Down", "-- +goose StatementBegin", "select 1;",
            "drop table down;", "-- safe-run: allow-loss t", "copy t from stdin;", "1\t2", "\\.", "do $$ begin", "end $$;",
            "/* c", "*/", "---- create above / drop below ----", "\u{feff}", "'", "-- no-transaction", "",
        ]), 0..24),
        ends in prop::sample::select(vec!["\n", "\r\n"]),
    ) {
        let sql = lines.join(ends);
        if let Ok(file) = try_file("1_a.sql", &sql) {
            for statement in &file.statements {
                let before = lines[..statement.line as usize].iter().rev();
                let section = before.copied().find(|line| {
                    line.contains("migrate:") || line.contains("+goose Up") || line.contains("+goose Down")
                });
                prop_assert!(!section.is_some_and(|line| line.ends_with("own")), "{sql:?}: {statement:?}");
            }
        }
    }
}
