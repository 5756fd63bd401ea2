//! Rows that no restore has a place for: whatever the run was told to check, and however large the table is, they are seen before the
//! command runs.

use tests::oracle::fingerprint;

use super::Constellation;

const BOUND: &str = "CREATE TABLE parted (id int) PARTITION BY LIST (id); CREATE TABLE part (id int); INSERT INTO part VALUES (1), (7);
     ALTER TABLE part ADD CONSTRAINT one CHECK (id IS NOT NULL AND id = 1) NOT VALID; UPDATE pg_constraint SET convalidated = true WHERE conname = 'one';
     ALTER TABLE parted ATTACH PARTITION part FOR VALUES IN (1); ALTER TABLE part DROP CONSTRAINT one";
const TWICE: &str =
    "CREATE TABLE twice (id int); INSERT INTO twice VALUES (1), (1); CREATE INDEX ix ON twice (id);
     UPDATE pg_index SET indisunique = true WHERE indexrelid = 'ix'::regclass";
const CONFLICT: &str = "CREATE TABLE spans (s int4range); INSERT INTO spans VALUES ('[1,5)'); ALTER TABLE spans ADD CONSTRAINT apart EXCLUDE USING gist (s WITH &&);
     UPDATE pg_index SET indisready = false WHERE indexrelid = 'apart'::regclass; INSERT INTO spans VALUES ('[2,3)'); UPDATE pg_index SET indisready = true WHERE indexrelid = 'apart'::regclass";
const NULLS: &str = "CREATE TABLE nulls (id int); INSERT INTO nulls VALUES (NULL); UPDATE pg_attribute SET attnotnull = true WHERE attrelid = 'nulls'::regclass AND attname = 'id'";

const WRECK: [&str; 6] = ["--", "psql", "-Xqc", "DELETE FROM t", "-c", "SELECT 1/0"];

/// By file it is refused before the command; by `auto` the clone is made there and then, and is the undo.
fn is_seen(made: &Constellation, told: &[&str], fences: &[&str]) {
    let before = fingerprint(made.database());
    made.run
        .run(&[&["--snapshot", "file"], told, &WRECK].concat())
        .exits(3)
        .says("an undo by a snapshot would not be possible")
        .says("Repair the rows or the rule, or take --snapshot clone");
    before.assert_same(&fingerprint(made.database()));
    made.run.assert_open();
    for fence in fences {
        made.run
            .run(&[&["--fence", fence], told, &WRECK].concat())
            .exits(12)
            .says("the undo is a clone, made now, because a restore of the snapshot would fail");
        before.assert_same(&fingerprint(made.database()));
        made.run.assert_open();
    }
}

fn rows_without_a_place(major: u32) {
    // From 18 on a NOT NULL is a row of the catalog, and a column that only says so no rule.
    let nulls = (major < 18).then_some(NULLS);
    for sql in [BOUND, TWICE, CONFLICT].into_iter().chain(nulls) {
        let made = Constellation::new(major, sql);
        is_seen(&made, &[], &["read-only", "exclusive"]);
        // What succeeds needs no undo, and leaves no clone.
        made.run.run(&["--", "psql", "-Xqc", "UPDATE t SET id = id"]).exits(0);
        assert!(!made.database().family().iter().any(|name| name.contains("_clone_")));
    }
}

#[test]
fn rows_that_no_restore_has_a_place_for_make_the_clone_the_undo_behind_the_fence_postgresql_14() {
    rows_without_a_place(14);
}

#[test]
fn rows_that_no_restore_has_a_place_for_make_the_clone_the_undo_behind_the_fence_postgresql_18() {
    rows_without_a_place(18);
}

fn whatever_was_to_be_checked(major: u32) {
    for (sql, check) in [(BOUND, "partitions"), (TWICE, "unique"), (CONFLICT, "exclude")] {
        let made = Constellation::new(major, sql);
        for told in [&["--level", "fast"][..], &["--skip", check], &["--only", "rows"]] {
            is_seen(&made, told, &["read-only"]);
        }
    }
}

#[test]
fn rows_without_a_place_are_seen_whatever_the_run_was_told_to_check_postgresql_14() {
    whatever_was_to_be_checked(14);
}

#[test]
fn rows_without_a_place_are_seen_whatever_the_run_was_told_to_check_postgresql_18() {
    whatever_was_to_be_checked(18);
}

/// The index itself would be the quickest way to the few rows of its condition, and lacks the one that is looked for.
const FEW: &str = "SET ROLE $OWNER; CREATE TABLE spans (s int4range, held bool);
     INSERT INTO spans SELECT int4range(i * 10, i * 10 + 7), i % 500 = 0 FROM generate_series(1, 40000) i;
     ALTER TABLE spans ADD CONSTRAINT apart EXCLUDE USING gist (s WITH &&) WHERE (held); ANALYZE spans; RESET ROLE;
     UPDATE pg_index SET indisready = false WHERE indexrelid = 'apart'::regclass; INSERT INTO spans VALUES ('[5001,5002)', true);
     UPDATE pg_index SET indisready = true WHERE indexrelid = 'apart'::regclass";

fn a_few_rows_of_a_large_table(major: u32) {
    let made = Constellation::new(major, FEW);
    assert_eq!(made.psql("SELECT pg_relation_size('spans') > 1 << 20"), "t");
    is_seen(&made, &[], &["read-only"]);
}

#[test]
fn a_conflict_that_the_index_itself_hides_is_seen_postgresql_14() {
    a_few_rows_of_a_large_table(14);
}

#[test]
fn a_conflict_that_the_index_itself_hides_is_seen_postgresql_18() {
    a_few_rows_of_a_large_table(18);
}

/// Too many rows for a join of all: a condition, an expression, an owner who is nobody special.
const LARGE: &str = "SET ROLE $OWNER; CREATE TABLE spans (room text, s int4range, gone bool DEFAULT false);
     INSERT INTO spans SELECT 'room ' || i % 7, int4range(i * 10, i * 10 + 7) FROM generate_series(1, 25000) i;
     ALTER TABLE spans ADD CONSTRAINT apart EXCLUDE USING gist (int4range(lower(s), upper(s)) WITH &&) WHERE (NOT gone)";

fn large_tables(major: u32) {
    let made = Constellation::new(major, LARGE);
    assert_eq!(made.psql("SELECT pg_relation_size('spans') > 1 << 20"), "t");
    // Nothing is in conflict: the snapshot is the undo, for both. Before 15 the schema public is a superuser's to give.
    let owner = (major >= 15).then_some((super::As::Owner, &["--snapshot", "file"][..]));
    let superuser = [(super::As::Superuser, &[][..]), (super::As::Superuser, &["--level", "fast"])];
    for (who, flags) in superuser.into_iter().chain(owner) {
        let (code, said) = made.wreck(who, "large", flags).unwrap_or_else(|said| panic!("{said}"));
        assert!(code == 12 && !said.contains("the undo is a clone"), "{said}");
    }
    made.psql(
        "UPDATE pg_index SET indisready = false WHERE indexrelid = 'apart'::regclass; INSERT INTO spans VALUES ('Room 3', '[13,14)', true);
         UPDATE pg_index SET indisready = true WHERE indexrelid = 'apart'::regclass",
    );
    let (code, said) = made.wreck(super::As::Superuser, "gone", &[]).unwrap_or_else(|said| panic!("{said}"));
    assert!(code == 12 && !said.contains("the undo is a clone"), "{said}");
    made.psql(
        "UPDATE pg_index SET indisready = false WHERE indexrelid = 'apart'::regclass; INSERT INTO spans VALUES ('Room 3', '[13,14)');
         UPDATE pg_index SET indisready = true WHERE indexrelid = 'apart'::regclass",
    );
    for told in [&[][..], &["--level", "fast"]] {
        is_seen(&made, told, &["read-only"]);
    }
}

#[test]
fn rows_in_conflict_are_seen_in_a_table_too_large_for_a_join_of_all_postgresql_14() {
    large_tables(14);
}

#[test]
fn rows_in_conflict_are_seen_in_a_table_too_large_for_a_join_of_all_postgresql_18() {
    large_tables(18);
}
