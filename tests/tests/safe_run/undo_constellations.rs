//! An undo never turns out to be impossible after the damage is done: whatever stands in a database, a command that destroys
//! rows and fails is refused before anything begins (exit code 3, nobody disconnected), or the database is as it was before
//! (12). The oracle says which.

mod cases;
mod extensions;
mod heirs;
mod more;
mod place;
mod rules;
mod system_columns;

use cases::{BROKEN_SINCE, OF_OTHERS, OWN};
use tests::oracle::fingerprint;
use tests::{Cluster, Database, ProtectedRun, Session, psql};

/// What destroys rows, and fails.
const WRECKS: [&str; 9] =
    ["--", "psql", "-X", "-v", "ON_ERROR_STOP=1", "-c", "delete from t", "-c", "select 1/0"];

/// As whom the command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum As {
    Superuser,
    /// The owner of the database, with CREATEDB, and no superuser.
    Owner,
}

/// Something in a database, made by a superuser; `$OWNER` owns the database, `$OTHER` is a role that it is no member of.
struct Case {
    name: &'static str,
    /// The oldest server that knows it.
    from: u32,
    sql: &'static str,
}

const fn case(name: &'static str, sql: &'static str) -> Case {
    Case { name, from: 14, sql }
}

/// A database of an owner who is no superuser, with this in it.
struct Constellation<'c> {
    run: ProtectedRun<'c>,
    owner: String,
    other: String,
}

impl Constellation<'static> {
    fn new(major: u32, sql: &str) -> Self {
        Constellation::on(Cluster::shared(major), sql)
    }
}

impl<'c> Constellation<'c> {
    fn on(cluster: &'c Cluster, sql: &str) -> Self {
        let database = cluster.fresh_database("undo");
        let (owner, other) = (format!("{}_owner", database.name()), format!("{}_other", database.name()));
        database.psql(&format!(
            "CREATE ROLE {owner} LOGIN CREATEDB; CREATE ROLE {other}; ALTER DATABASE {} OWNER TO {owner};
             ALTER SCHEMA public OWNER TO {owner}",
            database.name()
        ));
        psql::run(
            &cluster.url_as(&owner, database.name()),
            "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'row ' || i FROM generate_series(1, 40) i",
        );
        let made = Constellation { run: ProtectedRun::on(database), owner, other };
        made.psql(sql);
        made
    }

    fn database(&self) -> &Database<'c> {
        &self.run.database
    }

    fn psql(&self, sql: &str) -> String {
        let sql = sql.replace("$OWNER", &self.owner).replace("$OTHER", &self.other);
        self.database().psql(&sql.replace("$DATABASE", self.database().name()))
    }

    /// Runs the failing command; its exit code and what it said, or what does not hold that must.
    fn wreck(&self, who: As, name: &str, flags: &[&str]) -> Result<(i32, String), String> {
        let url = match who {
            As::Superuser => self.database().url(),
            As::Owner => self.database().cluster().url_as(&self.owner, self.database().name()),
        };
        let before = fingerprint(self.database());
        let mut somebody = Session::open(&url);
        let mut command = self.run.command(&[flags, &WRECKS].concat());
        command.env("DATABASE_URL", &url);
        let ended = tests::Running::start(command).outcome();
        let code = ended.status.code().unwrap_or(-1);
        let said = format!("{name} as {who:?} {flags:?}: {ended}");
        if ![3, 12].contains(&code) {
            return Err(said);
        }
        let difference = before.diff(&fingerprint(self.database()));
        if !difference.is_empty() {
            return Err(format!("{said}\n{difference}"));
        }
        if code == 3 {
            let snapshots = std::fs::read_dir(self.run.folder().join("snapshots/snapshots"));
            if somebody.try_run("SELECT 1") != Ok("1".to_owned()) {
                return Err(format!("a session was ended: {said}"));
            }
            if snapshots.map_or(0, Iterator::count) != 0 {
                return Err(format!("a snapshot was made in vain: {said}"));
            }
            if !said.contains("hint: ") {
                return Err(format!("no hint: {said}"));
            }
        }
        self.run.assert_open();
        match self.database().family().into_iter().find(|name| name.contains("_trial_")) {
            Some(left) => Err(format!("{left} is left: {said}")),
            None => Ok((code, said)),
        }
    }
}

/// Panics with all of what does not hold.
#[track_caller]
fn none(faults: &[String]) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n=========\n"));
}

impl Drop for Constellation<'_> {
    fn drop(&mut self) {
        for database in self.database().family() {
            let url = self.database().cluster().url(&database);
            let drop_owned = format!("DROP OWNED BY {}, {} CASCADE", self.owner, self.other);
            let give = format!("REASSIGN OWNED BY {}, {} TO postgres", self.owner, self.other);
            let _ = psql::try_run(&url, &give);
            let _ = psql::try_run(&url, &drop_owned);
        }
        let _ = self.database().try_psql(&format!("DROP ROLE {}, {}", self.owner, self.other));
    }
}

/// Of each kind of which only a superuser makes, one: all of it in one database, for a superuser.
fn of_others_together(major: u32) -> String {
    // These can't stand beside each other, or speak of a table that is there once.
    let apart = [
        "publication of a schema",
        "table of another role",
        "table that can't be read",
        "function of a superuser",
        "materialized view of a superuser",
        "security definer",
        "procedure of a superuser",
        "leakproof function",
        "server of a wrapper",
        "text search dictionary",
        "operator family",
        "collation, conversion, sequence",
        "domain, range, composite",
        "setting of a function",
    ];
    let together = OF_OTHERS.iter().filter(|case| case.from <= major && !apart.contains(&case.name));
    together.map(|case| format!("{};\n", case.sql)).collect()
}

fn owner_with_objects_of_others(major: u32, part: usize) {
    let mut faults = Vec::new();
    for case in OF_OTHERS.iter().skip(part).step_by(4).filter(|case| case.from <= major) {
        let made = Constellation::new(major, case.sql);
        faults.extend(made.wreck(As::Owner, case.name, &[]).err());
        // Told to rely on the snapshot, it is refused, and says what is in the way.
        std::fs::remove_dir_all(made.run.folder().join("snapshots")).expect("the first run made it");
        match made.wreck(As::Owner, case.name, &["--snapshot", "file"]) {
            Ok((3, _)) => {}
            Ok((_, said)) | Err(said) => faults.push(said),
        }
    }
    none(&faults);
}

fn rows_that_broke_their_rules(major: u32, who: As) {
    let cases = BROKEN_SINCE.iter().filter(|case| case.from <= major);
    let faults: Vec<String> = cases
        .filter_map(|case| Constellation::new(major, case.sql).wreck(who, case.name, &[]).err())
        .collect();
    none(&faults);
}

macro_rules! majors {
    ($($name:ident => $body:expr;)+) => { $(
        mod $name {
            use super::*;
            #[test] fn postgresql_14() { let body: fn(u32) = $body; body(14); }
            #[test] fn postgresql_18() { let body: fn(u32) = $body; body(18); }
            #[test] fn postgresql_19() { let body: fn(u32) = $body; body(19); }
        }
    )+ };
}

majors! {
    objects_of_others_never_make_the_undo_of_an_owner_impossible_1 => |major| owner_with_objects_of_others(major, 0);
    objects_of_others_never_make_the_undo_of_an_owner_impossible_2 => |major| owner_with_objects_of_others(major, 1);
    objects_of_others_never_make_the_undo_of_an_owner_impossible_3 => |major| owner_with_objects_of_others(major, 2);
    objects_of_others_never_make_the_undo_of_an_owner_impossible_4 => |major| owner_with_objects_of_others(major, 3);
    rows_that_broke_their_rules_never_make_an_undo_impossible => |major| rows_that_broke_their_rules(major, As::Superuser);
    rows_that_broke_their_rules_never_make_the_undo_of_an_owner_impossible => |major| rows_that_broke_their_rules(major, As::Owner);
    what_an_owner_makes_is_undone_for_him_and_for_a_superuser => |major| {
        let made = Constellation::new(major, OWN);
        for who in [As::Owner, As::Superuser] {
            let (code, said) = made.wreck(who, "own", &[]).unwrap_or_else(|said| panic!("{said}"));
            assert_eq!(code, 12, "{said}");
        }
    };
    what_only_superusers_make_is_undone_for_a_superuser => |major| {
        let made = Constellation::new(major, &of_others_together(major));
        let (code, said) = made.wreck(As::Superuser, "of others", &[]).unwrap_or_else(|said| panic!("{said}"));
        assert_eq!(code, 12, "{said}");
    };
}

#[test]
fn a_command_that_is_not_there_is_refused_before_anything_is_asked() {
    let made = Constellation::new(18, "");
    let mut somebody = Session::open(&made.database().url());
    made.run.file("plain", "no program");
    let headless = made.run.file("headless", "#!/nowhere/sh -e\n");
    std::fs::set_permissions(headless, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for (program, says) in [
        ("nosuchcommand", "on PATH"),
        ("./nosuchcommand", "there is no"),
        ("./plain", "not executable"),
        ("./headless", "is to be run by /nowhere/sh, which is not there"),
    ] {
        made.run.run(&["--", program]).exits(2).says(says);
    }
    assert_eq!(somebody.try_run("SELECT 1"), Ok("1".to_owned()));
    assert!(made.run.runs().is_empty());
}

#[test]
fn a_role_that_may_not_create_databases_is_refused_with_the_statement_that_helps() {
    let made = Constellation::new(18, "ALTER ROLE $OWNER NOCREATEDB");
    let (code, said) = made.wreck(As::Owner, "no CREATEDB", &[]).unwrap();
    assert_eq!(code, 3, "{said}");
    assert!(said.contains(&format!("ALTER ROLE \"{}\" CREATEDB;", made.owner)), "{said}");
    assert!(said.contains("--on-failure stop --snapshot none"), "{said}");
}

#[test]
fn a_trial_is_remembered_until_something_changes_and_what_a_killed_one_left_is_dropped() {
    let cluster = Cluster::start(18, &tests::Options::new());
    let made = Constellation::on(&cluster, "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'");
    let fine = ["--", "psql", "-Xc", "SELECT 1"];
    made.run.run(&fine).exits(0).says("came back in a scratch database");
    made.run
        .run(&fine)
        .exits(0)
        .says("nothing that it depends on has changed")
        .never_says("scratch database");
    // Roles that this database has nothing to do with come and go.
    let elsewhere = cluster.fresh_database("elsewhere");
    elsewhere.psql(
        "CREATE ROLE far LOGIN; CREATE ROLE further; CREATE ROLE beyond; GRANT further TO far; CREATE TABLE x (); ALTER TABLE x OWNER TO far;
         GRANT SELECT ON x TO further; ALTER ROLE far IN DATABASE postgres SET work_mem = '3MB'",
    );
    made.run.run(&fine).exits(0).never_says("scratch database");
    // What a role that owns something here is a member of decides what it may do; so do its attributes.
    for change in ["GRANT further TO $OWNER", "GRANT beyond TO further", "ALTER ROLE beyond BYPASSRLS"] {
        made.psql(change);
        made.run.run(&fine).exits(0).says("came back in a scratch database");
        made.run.run(&fine).exits(0).never_says("scratch database");
    }
    // As it was at first: the same proof.
    made.psql("REVOKE further FROM $OWNER");
    made.run.run(&fine).exits(0).never_says("scratch database");
    made.psql("CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 2'");
    made.run.crash("restore.loaded", &fine);
    assert_eq!(made.run.others().len(), 1, "the trial's database is left");
    made.run
        .run(&fine)
        .exits(0)
        .says("which a killed run had left behind")
        .says("came back in a scratch database");
    assert_eq!(made.run.others(), Vec::<String>::new());
}

#[test]
fn a_trial_with_rows_is_remembered_until_a_row_changes() {
    let cluster = Cluster::start(18, &tests::Options::new());
    let made = Constellation::on(
        &cluster,
        "CREATE FUNCTION ok(i int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT i > 0';
         CREATE TABLE aa (id int CHECK (ok(id))); INSERT INTO aa VALUES (1), (2);
         CREATE MATERIALIZED VIEW m AS SELECT count(*) FROM aa",
    );
    let (fine, trial) = (["--", "psql", "-Xc", "SELECT 1"], "came back in a scratch database");
    let known = "nothing that it depends on has changed";
    made.run.run(&fine).exits(0).says(trial);
    made.run.run(&fine).exits(0).says(known).never_says("scratch database");
    for change in
        ["INSERT INTO aa VALUES (3)", "UPDATE aa SET id = 4 WHERE id = 3", "DELETE FROM t WHERE id = 1"]
    {
        made.psql(change);
        made.run.run(&fine).exits(0).says(trial);
        made.run.run(&fine).exits(0).says(known);
    }
    // As before the first change but one: the same rows are the same proof.
    made.psql("UPDATE aa SET id = 3 WHERE id = 4; UPDATE aa SET id = 4 WHERE id = 3");
    made.run.run(&fine).exits(0).says(known);
}

#[test]
fn a_schema_public_that_an_owner_could_not_have_again_is_named_before_anything() {
    let made = Constellation::new(14, "ALTER SCHEMA public OWNER TO $OWNER");
    let (code, said) = made.wreck(As::Owner, "public", &["--snapshot", "file"]).unwrap();
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("schema public: it belongs to "), "{said}");
    assert!(said.contains("ALTER SCHEMA public OWNER TO \"postgres\";"), "{said}");
    assert!(!said.contains("scratch database"), "{said}");
    for who in [As::Owner, As::Superuser] {
        let (code, said) = made.wreck(who, "public", &[]).unwrap();
        assert_eq!(code, 12, "{said}");
    }
}
