//! Rules that rows break, and rules that read tables: what a restore, a drill and an undo by file make of them.

use tests::oracle::{fingerprint, fingerprint_without};
use tests::{Cluster, Database, Snapshots, psql};

use super::{As, Constellation};

/// Every CHECK constraint with its state and its comment.
const CHECKS: &str = "SELECT conrelid::regclass::text, contypid::regtype::text, conname, pg_get_constraintdef(oid), convalidated,
    conislocal, coninhcount, obj_description(oid, 'pg_constraint') FROM pg_constraint WHERE contype = 'c' AND connamespace = 'public'::regnamespace
    ORDER BY 1, 2, 3";

/// A table, a partitioned one, an heir, a domain over a domain, an array of it, and an owner who is nobody special.
const BROKEN: &str = "
SET ROLE $OWNER; CREATE TABLE late (id int PRIMARY KEY, until timestamptz CONSTRAINT ahead CHECK (until > now()));
COMMENT ON CONSTRAINT ahead ON late IS 'it''s not yet'; INSERT INTO late VALUES (1, clock_timestamp() + interval '50 ms');
CREATE TABLE parted (id int, until timestamptz, CONSTRAINT ahead CHECK (until > now())) PARTITION BY LIST (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1); CREATE TABLE parted_2 PARTITION OF parted FOR VALUES IN (2);
INSERT INTO parted VALUES (1, clock_timestamp() + interval '50 ms'), (2, 'infinity');
CREATE TABLE parent (id int, CONSTRAINT small CHECK (id < 10)); CREATE TABLE heir (more int) INHERITS (parent);
INSERT INTO heir VALUES (1); CREATE DOMAIN soon AS timestamptz CONSTRAINT ahead CHECK (VALUE > now());
CREATE DOMAIN sooner AS soon CHECK (VALUE < 'infinity'); CREATE TABLE of_domain (until sooner, more soon[]);
INSERT INTO of_domain VALUES (clock_timestamp() + interval '50 ms', ARRAY[clock_timestamp() + interval '50 ms']::soon[]);
SELECT pg_sleep(0.1)";

/// No server validates the rule of a domain of which a column has an array: whether rows break it, nobody saw.
fn expected() -> Vec<String> {
    let line = |what: &str, why: &str| {
        format!("the CHECK constraint ahead of the {what}: it came back NOT VALID, because {why}")
    };
    let array = "the server could not look at the rows: cannot alter type \"public.soon\" because column \"of_domain.more\" uses it";
    let broken = "rows break it";
    let mut lines =
        vec![line("domain soon", array), line("table late", broken), line("table parted", broken)];
    lines.sort();
    lines
}

/// Sorted: which table is loaded first is nobody's business.
pub fn differences(document: &str) -> Vec<String> {
    let report: serde_json::Value = serde_json::from_str(document).expect("one document");
    let lines = report["account"]["differs"].as_array().unwrap_or_else(|| panic!("{document}"));
    let mut lines: Vec<String> = lines.iter().map(|line| line.as_str().unwrap().to_owned()).collect();
    lines.sort();
    lines
}

/// As `before` says, but that nobody vouches for the rows that are there.
fn assert_not_valid(database: &Database, url: &str, before: &str) {
    let names = ["late|-|ahead", "parted|-|ahead", "parted_1|-|ahead", "parted_2|-|ahead", "-|soon|ahead"];
    let wanted: Vec<String> = before
        .lines()
        .map(|line| match names.iter().any(|name| line.starts_with(name)) {
            true => line.replacen("|t|", "|f|", 1).replacen("())))|", "()))) NOT VALID|", 1).replacen(
                "()))|",
                "())) NOT VALID|",
                1,
            ),
            false => line.to_owned(),
        })
        .collect();
    assert_eq!(psql::run(url, CHECKS).lines().collect::<Vec<_>>(), wanted, "{}", database.name());
}

fn rules_that_rows_break_come_back_not_valid(major: u32) {
    let made = Constellation::new(major, BROKEN);
    let (database, url) = (made.database(), made.database().url());
    let before = database.psql(CHECKS);
    let rows = |url: &str| psql::run(url, "SELECT * FROM late, parted, heir, of_domain ORDER BY 1, 3");
    let snapshots = Snapshots::new();
    snapshots.create(database, &[]);
    for (name, flags) in [("one", &["--jobs", "1"][..]), ("more", &["--jobs", "4"])] {
        let into = format!("{}_{name}", database.name());
        let arguments = [&["latest", "--into", &into, "--json"], flags].concat();
        let told = snapshots.run("restore", &url, &arguments).expect(0).stdout;
        assert_eq!(differences(&told), expected());
        let copy = database.cluster().url(&into);
        assert_not_valid(database, &copy, &before);
        assert_eq!(rows(&copy), rows(&url));
        // They hold for new rows.
        let refused = psql::try_run(&copy, "INSERT INTO late VALUES (2, '2020-01-01')").unwrap_err();
        assert!(refused.contains("violates check constraint \"ahead\""), "{refused}");
    }
    let drilled = snapshots.run("backup", &url, &["drill", "--json"]).expect(0).stdout;
    assert_eq!(differences(&drilled), expected());

    let live = rows(&url);
    let ended = made
        .run
        .run(&["--snapshot", "file", "--", "psql", "-Xqc", "DELETE FROM late", "-c", "SELECT 1/0"])
        .exits(12)
        .says("has its rows of before, but 3 things differ");
    assert!(expected().iter().all(|line| ended.to_string().contains(line)), "{ended}");
    assert_not_valid(database, &url, &before);
    assert_eq!(rows(&url), live);
}

#[test]
fn rules_that_rows_break_come_back_not_valid_and_are_named_postgresql_14() {
    rules_that_rows_break_come_back_not_valid(14);
}

#[test]
fn rules_that_rows_break_come_back_not_valid_and_are_named_postgresql_18() {
    rules_that_rows_break_come_back_not_valid(18);
}

#[test]
fn rules_that_rows_break_come_back_not_valid_and_are_named_postgresql_19() {
    rules_that_rows_break_come_back_not_valid(19);
}

/// In every place, over functions that lie; what they read is large, comes later by name, and has rules that read as well.
const READERS: &str = "
SET ROLE $OWNER; CREATE TABLE zz (id int PRIMARY KEY, name text); INSERT INTO zz SELECT i, 'name ' || i FROM generate_series(1, 20000) i;
CREATE FUNCTION has(i int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT EXISTS (SELECT FROM public.zz WHERE id = i)';
CREATE TABLE yy (id int CHECK (has(id))); INSERT INTO yy VALUES (1), (20000);
CREATE FUNCTION called(i int) RETURNS text LANGUAGE plpgsql IMMUTABLE
  AS 'BEGIN RETURN (SELECT z.name FROM public.zz z JOIN public.yy y USING (id) WHERE z.id = i); END';
CREATE TABLE aa (id int CHECK (called(id) IS NOT NULL), g text GENERATED ALWAYS AS (called(id)) STORED);
CREATE UNIQUE INDEX ON aa (called(id)); CREATE INDEX ON aa (id) WHERE called(id) <> ''; INSERT INTO aa VALUES (1), (20000);
CREATE DOMAIN d AS int CHECK (has(VALUE)); CREATE TABLE bb (id d); INSERT INTO bb VALUES (20000);
CREATE FUNCTION part(i int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT id % 2 FROM public.zz WHERE id = i';
CREATE TABLE cc (id int) PARTITION BY LIST (part(id)); CREATE TABLE cc0 PARTITION OF cc FOR VALUES IN (0);
CREATE TABLE cc1 PARTITION OF cc FOR VALUES IN (1); INSERT INTO cc VALUES (1), (20000);
CREATE TABLE dd (id int, EXCLUDE USING btree (called(id) WITH =)); INSERT INTO dd VALUES (1), (20000)";

fn rules_that_read_tables(major: u32) {
    let made = Constellation::new(major, READERS);
    let (database, url) = (made.database(), made.database().url());
    let before = fingerprint(database);
    let snapshots = Snapshots::new();
    snapshots.create(database, &["--chunk-blocks", "50"]);
    for jobs in ["1", "4"] {
        let large = &[tests::outcome::ALL_LARGE];
        for environment in [&[][..], large] {
            let copy = snapshots.restore_copy_with(database, &["--jobs", jobs], environment);
            before.assert_same(&fingerprint_without(&copy, &[]));
        }
    }
    snapshots.run("backup", &url, &["drill"]).expect(0);
    let wreck = ["--", "psql", "-Xqc", "DELETE FROM zz", "-c", "SELECT 1/0"];
    // A trial can't prove what others may change in a moment.
    made.run.run(&wreck).exits(12).says("the undo is a clone").says("reads tables, or may");
    before.assert_same(&fingerprint(database));
    made.run.run(&[&["--snapshot", "file"], &wreck[..]].concat()).exits(12).says("reads tables, or may");
    before.assert_same(&fingerprint(database));
    // Before 15 the schema public is a superuser's to give.
    if major >= 15 {
        let (code, said) =
            made.wreck(As::Owner, "readers", &["--snapshot", "file"]).unwrap_or_else(|said| panic!("{said}"));
        assert_eq!(code, 12, "{said}");
    }
}

#[test]
fn rules_that_read_tables_come_back_by_file_and_a_clone_is_preferred_postgresql_14() {
    rules_that_read_tables(14);
}

#[test]
fn rules_that_read_tables_come_back_by_file_and_a_clone_is_preferred_postgresql_18() {
    rules_that_read_tables(18);
}

#[test]
fn rules_that_read_tables_come_back_by_file_and_a_clone_is_preferred_postgresql_19() {
    rules_that_read_tables(19);
}

/// Rows beyond what a trial takes, and an index over the database's own code.
#[test]
fn what_is_too_large_for_a_trial_makes_the_clone_the_undo() {
    let made = Constellation::on(
        Cluster::shared(18),
        "SET ROLE $OWNER; CREATE FUNCTION key(i int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT i';
         CREATE TABLE aa (id int, filler text); CREATE INDEX ON aa (key(id));
         INSERT INTO aa SELECT i, repeat(md5(i::text), 30) FROM generate_series(1, 40000) i",
    );
    let (code, said) = made.wreck(As::Superuser, "large", &[]).unwrap_or_else(|said| panic!("{said}"));
    assert_eq!(code, 12, "{said}");
    assert!(said.contains("the undo is a clone") && said.contains("too many for a trial"), "{said}");
}

/// No trial has rows of a table so large: of a function that a CHECK calls, nobody knows whether it raises.
#[test]
fn a_check_that_may_raise_over_too_many_rows_makes_the_clone_the_undo() {
    let made = Constellation::on(
        Cluster::shared(14),
        "SET ROLE $OWNER; CREATE FUNCTION raises(i int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true';
         CREATE TABLE aa (id int CHECK (raises(id)), filler text);
         INSERT INTO aa SELECT i, repeat(md5(i::text), 30) FROM generate_series(1, 40000) i;
         CREATE OR REPLACE FUNCTION raises(i int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT 1 / (i - i) = 1'",
    );
    let (code, said) = made.wreck(As::Superuser, "raises", &[]).unwrap_or_else(|said| panic!("{said}"));
    assert_eq!(code, 12, "{said}");
    assert!(said.contains("the undo is a clone") && said.contains("too many for a trial"), "{said}");
}

/// A NOT NULL of a domain can't be NOT VALID; the rows are seen before anybody's session is ended.
fn a_null_of_a_domain_that_has_none(major: u32) {
    for made in [
        "CREATE DOMAIN nn AS int NOT NULL; CREATE TABLE b (id int, v nn); CREATE TABLE n (v nn);
         INSERT INTO n VALUES ((SELECT v FROM b WHERE false))",
        "CREATE DOMAIN nn AS int NOT NULL; CREATE TABLE b (id int, v nn); CREATE TYPE held AS (v nn); CREATE TABLE n (v held[]);
         INSERT INTO n VALUES (ARRAY[ROW((SELECT v FROM b WHERE false))::held])",
    ] {
        let made = Constellation::new(major, &format!("SET ROLE $OWNER; {made}"));
        for who in [As::Superuser, As::Owner] {
            let (code, said) = made.wreck(who, "null", &["--snapshot", "file"]).unwrap_or_else(|said| panic!("{said}"));
            assert_eq!(code, 3, "{said}");
            assert!(said.contains("an undo by a snapshot would not be possible"), "{said}");
            std::fs::remove_dir_all(made.run.folder().join("snapshots")).expect("the first run made it");
            let (code, said) = made.wreck(who, "null", &[]).unwrap_or_else(|said| panic!("{said}"));
            assert_eq!(code, 12, "{said}");
            assert!(said.contains("the undo is a clone"), "{said}");
            std::fs::remove_dir_all(made.run.folder().join("snapshots")).expect("the second run made it");
        }
    }
}

#[test]
fn a_null_of_a_domain_that_has_none_is_refused_by_file_postgresql_14() {
    a_null_of_a_domain_that_has_none(14);
}

#[test]
fn a_null_of_a_domain_that_has_none_is_refused_by_file_postgresql_18() {
    a_null_of_a_domain_that_has_none(18);
}

/// As they are, but for the rule.
fn single_tables_with_broken_rules(major: u32) {
    let made = Constellation::new(major, BROKEN);
    let (database, url) = (made.database(), made.database().url());
    let snapshots = Snapshots::new();
    snapshots.create(database, &[]);
    let checks = |of: &str| {
        database.psql(&format!(
            "SELECT pg_get_constraintdef(oid) || ' ' || obj_description(oid, 'pg_constraint') FROM pg_constraint
             WHERE conrelid = '{of}'::regclass AND contype = 'c'"
        ))
    };
    let says = "it came back NOT VALID, because rows break it";
    let rows = database.psql("SELECT * FROM late");
    let beside = snapshots.run("restore", &url, &["latest", "--table", "late"]).expect(0);
    assert!(beside.stderr.contains(says), "{}", beside.stderr);
    let name = beside.stdout.trim();
    assert_eq!(checks(name), "CHECK ((until > now())) NOT VALID it's not yet");
    assert_eq!(database.psql(&format!("SELECT * FROM {name}")), rows);
    assert_eq!(checks("late"), "CHECK ((until > now())) it's not yet");
    database.psql("DELETE FROM late");
    let told =
        snapshots.run("restore", &url, &["latest", "--table", "late", "--replace", "-y", "--json"]).expect(0);
    assert_eq!(differences(&told.stdout), [format!("the CHECK constraint ahead of the table late: {says}")]);
    assert_eq!(checks("late"), "CHECK ((until > now())) NOT VALID it's not yet");
    assert_eq!(database.psql("SELECT * FROM late"), rows);
    // One with all its partitions, and one of them, whose rule is the whole's.
    database.psql("DELETE FROM parted");
    snapshots.run("restore", &url, &["latest", "--table", "parted", "--replace", "-y"]).expect(0);
    assert_eq!(database.psql("SELECT count(*) FROM parted"), "2");
    let one = snapshots.run("restore", &url, &["latest", "--table", "parted_1", "--replace", "-y"]);
    one.fails(1, &["violates check constraint \"ahead\"", "others may use it too"]);
    // Rows whose bound's function is another now have no place in their partition, and no bound can be NOT VALID.
    database.psql(
        "CREATE FUNCTION half(i int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT i % 2';
         CREATE TABLE halves (i int) PARTITION BY LIST (half(i)); CREATE TABLE halves_0 PARTITION OF halves FOR VALUES IN (0);
         INSERT INTO halves VALUES (2);
         CREATE OR REPLACE FUNCTION half(i int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT i % 2 + 5'",
    );
    let halves = snapshots.create(database, &["--table", "halves*"]);
    let words =
        ["violates partition constraint", "hint: The bounds of the partitions do not let these rows in"];
    snapshots.run("restore", &url, &[&halves, "--table", "halves_0", "--replace", "-y"]).fails(1, &words);
    let into = format!("{}_halves", database.name());
    snapshots.run("restore", &url, &[&halves, "--into", &into]).fails(1, &words);
    // Where it was NOT VALID before, there is nothing to tell.
    let again = snapshots.run("restore", &url, &["latest", "--table", "late", "--replace", "-y"]).expect(0);
    assert!(!again.stderr.contains(says), "{}", again.stderr);
}

#[test]
fn a_single_table_comes_back_with_the_rule_that_its_rows_break_not_valid_postgresql_14() {
    single_tables_with_broken_rules(14);
}

#[test]
fn a_single_table_comes_back_with_the_rule_that_its_rows_break_not_valid_postgresql_18() {
    single_tables_with_broken_rules(18);
}

/// An owner's function names somebody else's rule that his own table has: no row breaks it, and it comes back as it was.
fn a_forged_violation_of_a_shared_rule(major: u32) {
    let made = Constellation::new(
        major,
        "CREATE DOMAIN shared AS int CONSTRAINT small CHECK (VALUE < 10); SET ROLE $OWNER;
         CREATE FUNCTION lies(i int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RETURN true; END';
         CREATE TABLE aa (id shared CONSTRAINT forges CHECK (lies(id))); INSERT INTO aa VALUES (1);
         CREATE OR REPLACE FUNCTION lies(i int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN
           IF EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE conname = ''small'') THEN
             RAISE check_violation USING MESSAGE = ''forged'', SCHEMA = ''public'', DATATYPE = ''shared'', CONSTRAINT = ''small'';
           END IF; RETURN true; END'",
    );
    let before = fingerprint(made.database());
    let snapshots = Snapshots::new();
    snapshots.create(made.database(), &[]);
    let copy = snapshots.restore_copy_with(made.database(), &[], &[]);
    before.assert_same(&fingerprint_without(&copy, &[]));
}

#[test]
fn a_forged_violation_of_a_shared_rule_leaves_it_as_it_was_postgresql_14() {
    a_forged_violation_of_a_shared_rule(14);
}

#[test]
fn a_forged_violation_of_a_shared_rule_leaves_it_as_it_was_postgresql_18() {
    a_forged_violation_of_a_shared_rule(18);
}

/// The rule belongs to one role, and its partitions to another: nobody's rights are enough for both but a superuser's.
fn a_broken_rule_of_a_tree_of_two_owners(major: u32) {
    let made = Constellation::new(
        major,
        "SET ROLE $OWNER; CREATE FUNCTION ahead(t timestamptz) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RETURN t > now(); END';
         CREATE TABLE parted (id int, until timestamptz, CONSTRAINT ahead CHECK (ahead(until))) PARTITION BY LIST (id);
         CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1); CREATE TABLE parted_2 PARTITION OF parted FOR VALUES IN (2);
         INSERT INTO parted VALUES (1, clock_timestamp() + interval '50 ms'), (2, 'infinity'); SELECT pg_sleep(0.1); RESET ROLE;
         ALTER TABLE parted_1 OWNER TO $OTHER; GRANT SELECT ON parted_1 TO $OWNER; GRANT USAGE ON SCHEMA public TO $OTHER; GRANT EXECUTE ON FUNCTION ahead(timestamptz) TO $OTHER",
    );
    let owners = "SELECT relname, pg_get_userbyid(relowner), relacl FROM pg_class WHERE relname LIKE 'parted%' ORDER BY 1";
    let before = made.psql(owners);
    let snapshots = Snapshots::new();
    snapshots.create(made.database(), &[]);
    let into = format!("{}_told", made.database().name());
    let told = snapshots
        .run("restore", &made.database().url(), &["latest", "--into", &into, "--json"])
        .expect(0)
        .stdout;
    let why = "and nobody looked whether rows break it, because its tables belong to several roles";
    let line = format!("the CHECK constraint ahead of the table parted: it came back NOT VALID, {why}");
    assert!(differences(&told).contains(&line), "{told}");
    let copy = made.database().cluster().url(&into);
    assert_eq!(psql::run(&copy, owners), before);
    assert_eq!(psql::run(&copy, "SELECT count(*) FROM parted"), "2");
    assert_eq!(
        psql::run(&copy, "SELECT DISTINCT conname, convalidated FROM pg_constraint WHERE conname = 'ahead'"),
        "ahead|f"
    );
}

#[test]
fn a_broken_rule_of_a_tree_of_two_owners_comes_back_not_valid_postgresql_14() {
    a_broken_rule_of_a_tree_of_two_owners(14);
}

#[test]
fn a_broken_rule_of_a_tree_of_two_owners_comes_back_not_valid_postgresql_18() {
    a_broken_rule_of_a_tree_of_two_owners(18);
}

/// A constant of the rule calls the owner's code as soon as it is read. It never runs as us, nor with the rights of both roles.
fn a_tree_of_two_owners_whose_rule_calls_code(major: u32) {
    let made = Constellation::new(
        major,
        "SET ROLE $OWNER; CREATE FUNCTION looks(i int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN
           IF pg_catalog.pg_has_role(''$OWNER'', ''USAGE'') AND pg_catalog.pg_has_role(''$OTHER'', ''USAGE'')
           THEN RAISE ''ran with rights of others''; END IF; RETURN true; END';
         CREATE DOMAIN looked AS int CHECK (looks(VALUE)); CREATE TYPE held AS (v looked);
         CREATE FUNCTION ahead(t timestamptz, h held) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RETURN t > now(); END';
         CREATE TABLE parted (id int, until timestamptz, CONSTRAINT ahead CHECK (ahead(until, '(1)'::held))) PARTITION BY LIST (id);
         CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
         INSERT INTO parted VALUES (1, clock_timestamp() + interval '50 ms'); SELECT pg_sleep(0.1); RESET ROLE;
         ALTER TABLE parted_1 OWNER TO $OTHER; GRANT USAGE ON SCHEMA public TO $OTHER",
    );
    let snapshots = Snapshots::new();
    snapshots.create(made.database(), &[]);
    let into = format!("{}_calls", made.database().name());
    let told = snapshots.run("restore", &made.database().url(), &["latest", "--into", &into]);
    let told = told.fails(
        1,
        &[
            "could not make the CHECK constraint ahead of the table parted again",
            "its tables belong to several roles",
        ],
    );
    assert!(!told.stderr.contains("rights of others"), "{}", told.stderr);
    assert!(!made.database().family().contains(&into));
    // As the hint says: everything is one role's, and its own code runs as itself.
    let owner = made.database().cluster().url_as(&made.owner, made.database().name());
    let told =
        snapshots.run("restore", &owner, &["latest", "--into", &into, "--no-owner", "--json"]).expect(0);
    let line =
        "the CHECK constraint ahead of the table parted: it came back NOT VALID, because rows break it";
    assert!(differences(&told.stdout).iter().any(|told| told == line), "{}", told.stdout);
}

#[test]
fn a_rule_that_calls_code_when_it_is_read_is_not_made_in_a_tree_of_two_owners_postgresql_14() {
    a_tree_of_two_owners_whose_rule_calls_code(14);
}

#[test]
fn a_rule_that_calls_code_when_it_is_read_is_not_made_in_a_tree_of_two_owners_postgresql_18() {
    a_tree_of_two_owners_whose_rule_calls_code(18);
}

/// An error that names a constraint which no row breaks ends the load, and takes off nobody's constraint.
fn a_forged_violation(major: u32) {
    let database = Cluster::shared(major).fresh_database("forged");
    database.psql(
        "CREATE TABLE other (id int CONSTRAINT small CHECK (id < 10)); INSERT INTO other VALUES (1);
         CREATE FUNCTION raises(i int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RETURN true; END';
         CREATE TABLE aa (id int CONSTRAINT forges CHECK (raises(id))); INSERT INTO aa VALUES (1)",
    );
    for named in ["TABLE = ''other'', CONSTRAINT = ''small''", "TABLE = ''aa'', CONSTRAINT = ''none''"] {
        database.psql(&format!(
            "CREATE OR REPLACE FUNCTION raises(i int) RETURNS bool LANGUAGE plpgsql AS
             'BEGIN RAISE check_violation USING MESSAGE = ''forged'', SCHEMA = ''public'', {named}; END'"
        ));
        let snapshots = Snapshots::new();
        snapshots.create(&database, &[]);
        let told = snapshots.run("restore", &database.url(), &["latest", "--replace", "-y"]);
        told.fails(1, &["forged"]);
        assert_eq!(database.family(), [database.name()]);
    }
}

#[test]
fn a_forged_violation_takes_nothing_off_and_ends_the_load_postgresql_14() {
    a_forged_violation(14);
}

#[test]
fn a_forged_violation_takes_nothing_off_and_ends_the_load_postgresql_18() {
    a_forged_violation(18);
}

/// A look at the rows that somebody ends, by a cancel, says nothing about them. The rule is broken by an error's word, and by no row.
fn a_look_that_is_ended(major: u32, way: &[&str], is_copy: bool) {
    for (ended, comes_back) in [("< 1", true), ("= 1", true), ("> 0", false)] {
        let database = Cluster::shared(major).fresh_database("ended");
        database.psql(&format!(
            "CREATE SEQUENCE looks; CREATE FUNCTION ok(i int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RETURN true; END';
             CREATE TABLE aa (id int CONSTRAINT fine CHECK (ok(id))); INSERT INTO aa VALUES (1);
             CREATE OR REPLACE FUNCTION ok(i int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN
               IF pg_catalog.current_query() !~ ''ADD CONSTRAINT'' THEN RETURN false; END IF;
               IF pg_catalog.nextval(''public.looks'') {ended} THEN
                 PERFORM pg_catalog.pg_cancel_backend(pg_catalog.pg_backend_pid()); PERFORM pg_catalog.pg_sleep(60);
               END IF; RETURN true; END'"
        ));
        let snapshots = Snapshots::new();
        snapshots.create(&database, &[]);
        let into = format!("{}_copy", database.name());
        let way: Vec<&str> =
            way.iter().map(|word| if *word == "$INTO" { into.as_str() } else { word }).collect();
        let told =
            snapshots.run("restore", &database.url(), &[&["latest", "--json"], &way[..]].concat()).expect(0);
        let url = if is_copy { database.cluster().url(&into) } else { database.url() };
        let valid = "SELECT bool_and(convalidated) FROM pg_constraint WHERE conname = 'fine'";
        assert_eq!(psql::run(&url, valid) == "t", comes_back, "{way:?} {ended}: {}", told.stdout);
        let said = "it came back NOT VALID, because the server's look at the rows was ended 2 times (canceling statement due to user request); \
                    nothing is known to break it";
        assert_eq!(
            differences(&told.stdout).iter().any(|line| line.contains(said)),
            !comes_back,
            "{}",
            told.stdout
        );
        assert!(!told.stdout.contains("because rows break it"), "{}", told.stdout);
    }
}

fn looks_that_are_ended(major: u32) {
    a_look_that_is_ended(major, &["--into", "$INTO"], true);
    a_look_that_is_ended(major, &["--table", "aa"], false);
    a_look_that_is_ended(major, &["--table", "aa", "--replace", "-y"], false);
}

#[test]
fn a_look_at_the_rows_that_somebody_ends_makes_no_rule_not_valid_postgresql_14() {
    looks_that_are_ended(14);
}

#[test]
fn a_look_at_the_rows_that_somebody_ends_makes_no_rule_not_valid_postgresql_18() {
    looks_that_are_ended(18);
}
