//! Rules that ask for a column of the system's, which has other values in a restored database.

use super::{As, Constellation, WRECKS};

/// Rules over `tableoid` and its like, each with how it is named.
const ON_SYSTEM_COLUMNS: [(&str, &str); 4] = [
    (
        "CREATE TABLE own (i int); INSERT INTO own VALUES (1);
         DO $$ BEGIN EXECUTE format('ALTER TABLE own ADD CONSTRAINT here CHECK (tableoid = %s)', 'own'::regclass::oid); END $$",
        "constraint here on table public.own",
    ),
    (
        "CREATE TABLE own (i int, o bigint GENERATED ALWAYS AS (tableoid::bigint) STORED); INSERT INTO own VALUES (1)",
        "default value for column o of table public.own",
    ),
    (
        "CREATE TABLE own (i int); INSERT INTO own VALUES (1); CREATE POLICY here ON own USING (xmin::text <> '3')",
        "policy here on table public.own",
    ),
    (
        "CREATE TABLE own (i int); CREATE TRIGGER here BEFORE UPDATE ON own FOR EACH ROW WHEN (OLD.tableoid <> 4711)
         EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "trigger here on table public.own",
    ),
];

fn rules_over_system_columns(major: u32) {
    for (sql, named) in ON_SYSTEM_COLUMNS {
        let made = Constellation::new(major, sql);
        let (code, said) = made.wreck(As::Superuser, named, &[]).unwrap_or_else(|said| panic!("{said}"));
        assert_eq!(code, 12, "{said}");
        let why = format!(
            "the undo is a clone, made behind the fence, because a restore of the snapshot would lack 1 rule over a column of the system's ({named})"
        );
        assert!(said.contains(&why), "{why}: {said}");
        let run = [&["--snapshot", "file"][..], &WRECKS].concat();
        made.run
            .run(&run)
            .exits(12)
            .says("the undo would lack 1 rule over a column")
            .never_says("is as it was before");
    }
    // The name of a table is the same afterwards.
    let made = Constellation::new(
        major,
        "CREATE TABLE own (i int, CHECK (tableoid::regclass::text ~ 'own')); INSERT INTO own VALUES (1);
         ALTER TABLE own ADD CHECK (tableoid = 'own'::regclass)",
    );
    let (code, said) =
        made.wreck(As::Superuser, "names", &["--snapshot", "file"]).unwrap_or_else(|said| panic!("{said}"));
    assert_eq!(code, 12, "{said}");
    assert!(!said.contains("column of the system"), "{said}");
}

#[test]
fn a_rule_over_a_system_column_is_told_before_anything_postgresql_14() {
    rules_over_system_columns(14);
}

#[test]
fn a_rule_over_a_system_column_is_told_before_anything_postgresql_18() {
    rules_over_system_columns(18);
}
