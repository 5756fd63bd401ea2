//! `restore --replace`: the live name gets the snapshot's state, the replaced database is kept, and nothing in between
//! can be seen.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tests::oracle::{fingerprint, fingerprint_without};
use tests::{Cluster, Database, Fingerprint, Options, Snapshots, fixtures, on_every_major, psql};

fn shop<'c>(cluster: &'c Cluster, name: &str) -> Database<'c> {
    let database = cluster.fresh_database(name);
    fixtures::load_shop(&database, 0.01);
    database
}

/// Settings, grants, owner, comment and limit of the database itself; and rows, schema and sequences.
fn change_everything(database: &Database) {
    database.psql(
        &"DELETE FROM events; DROP TABLE order_items CASCADE; CREATE TABLE added (i int);
         SELECT setval(pg_get_serial_sequence('orders', 'id'), 1);
         ALTER DATABASE $D SET work_mem = '9MB'; ALTER DATABASE $D RESET search_path;
         ALTER DATABASE $D CONNECTION LIMIT 77; COMMENT ON DATABASE $D IS 'changed';
         REVOKE CONNECT ON DATABASE $D FROM PUBLIC"
            .replace("$D", &psql::quote_ident(database.name())),
    );
}

fn kept(database: &Database) -> Vec<String> {
    database.family().into_iter().filter(|name| name.contains("_replaced_")).collect()
}

fn of(database: &Database, name: &str) -> Fingerprint {
    fingerprint_without(&database.cluster().url(name), &[])
}

on_every_major! {
    fn the_live_name_gets_the_snapshots_state_and_the_replaced_database_keeps_its_own(cluster: &Cluster) {
        let database = shop(cluster, "live");
        database.psql(
            &"ALTER DATABASE $D SET search_path = app, public; ALTER DATABASE $D SET DateStyle = 'SQL, DMY';
             ALTER DATABASE $D CONNECTION LIMIT 50; COMMENT ON DATABASE $D IS 'the shop';
             ALTER ROLE postgres IN DATABASE $D SET work_mem = '5MB';
             GRANT CREATE ON DATABASE $D TO PUBLIC"
                .replace("$D", &psql::quote_ident(database.name())),
        );
        let before = fingerprint(&database);
        let snapshots = Snapshots::new();
        snapshots.create(&database, &[]);
        change_everything(&database);
        let changed = fingerprint(&database);
        snapshots.run("restore", &database.url(), &["latest", "--replace", "-y"]).expect(0);
        before.assert_same(&fingerprint(&database));
        let kept = kept(&database);
        assert_eq!(kept.len(), 1, "{:?}", database.family());
        changed.assert_same(&of(&database, &kept[0]));
        assert_eq!(database.family().len(), 2, "{:?}", database.family());
    }
}

#[test]
fn drop_replaced_leaves_only_the_live_database() {
    let database = shop(Cluster::shared(18), "dropped");
    let before = fingerprint(&database);
    let snapshots = Snapshots::new();
    snapshots.create(&database, &[]);
    change_everything(&database);
    snapshots.run("restore", &database.url(), &["latest", "--replace", "-y", "--drop-replaced"]).expect(0);
    before.assert_same(&fingerprint(&database));
    assert_eq!(database.family(), [database.name()]);
}

#[test]
fn a_dry_run_and_a_missing_confirmation_change_nothing() {
    let database = shop(Cluster::shared(18), "untouched");
    let snapshots = Snapshots::new();
    snapshots.create(&database, &[]);
    change_everything(&database);
    let changed = fingerprint(&database);
    let mut session = database.session();
    let dry = snapshots.run("restore", &database.url(), &["latest", "--replace", "--dry-run"]).expect(0);
    assert!(dry.stdout.contains(&format!("\"{}\" becomes", database.name())), "{}", dry.stdout);
    snapshots
        .run("restore", &database.url(), &["latest", "--replace"])
        .fails(3, &["there is no terminal to ask on", "Give --yes if you are sure.", "Nothing was changed."]);
    assert_eq!(session.run("SELECT 'still connected'"), "still connected");
    drop(session);
    changed.assert_same(&fingerprint(&database));
    assert_eq!(database.family(), [database.name()]);
}

#[test]
fn connected_sessions_are_ended_and_none_keeps_the_swap_from_happening() {
    let database = shop(Cluster::shared(18), "hammered");
    let before = fingerprint(&database);
    let snapshots = Snapshots::new();
    snapshots.create(&database, &[]);
    change_everything(&database);
    let mut idle = database.session();
    let mut busy = database.session();
    busy.run("BEGIN; UPDATE users SET name = name WHERE id = 1");
    let (stop, connections) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    // An error is a session that was ended, or a name that did not exist for a moment.
                    if database.try_psql("SELECT count(*) FROM users").is_ok() {
                        connections.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
        while connections.load(Ordering::SeqCst) < 3 {
            std::thread::yield_now();
        }
        let outcome = snapshots.run("restore", &database.url(), &["latest", "--replace", "-y"]);
        stop.store(true, Ordering::SeqCst);
        outcome.expect(0);
    });
    before.assert_same(&fingerprint(&database));
    assert!(idle.try_run("SELECT 1").is_err() || idle.run("SELECT 1").contains("psql ended"));
    assert!(busy.try_run("COMMIT").is_err() || busy.run("SELECT 1").contains("psql ended"));
    assert_eq!(kept(&database).len(), 1);
}

/// One server whose databases can have what a swap would leave behind.
#[test]
fn slots_and_prepared_transactions_of_the_live_database_refuse_a_swap_until_their_loss_is_accepted() {
    let cluster =
        Cluster::start(15, &Options::new().conf("wal_level = logical").conf("max_prepared_transactions = 5"));
    let database = shop(&cluster, "slots");
    let snapshots = Snapshots::new();
    snapshots.create(&database, &[]);
    let before = fingerprint(&database);
    database.psql("SELECT pg_create_logical_replication_slot('a_slot', 'test_decoding')");
    let replace = |more: &[&str]| {
        snapshots.run("restore", &database.url(), &[&["latest", "--replace", "-y"], more].concat())
    };
    replace(&[]).fails(3, &["replication slot a_slot", "--accept-slot-loss", "No database was changed."]);
    assert_eq!(database.family(), [database.name()]);
    database.psql("SELECT pg_drop_replication_slot('a_slot')");

    database.psql("BEGIN; CREATE TABLE prepared (i int); PREPARE TRANSACTION 'a transaction'");
    // PostgreSQL renames no database with a prepared transaction: there is nothing to accept, and no need to load first.
    for more in [&[][..], &["--accept-slot-loss"]] {
        replace(more).fails(3, &["prepared transactions", "a transaction", "ROLLBACK PREPARED"]);
        assert_eq!(database.family(), [database.name()]);
    }
    database.psql("ROLLBACK PREPARED 'a transaction'");
    before.assert_same(&fingerprint(&database));

    database.psql("SELECT pg_create_logical_replication_slot('a_slot', 'test_decoding')");
    replace(&["--accept-slot-loss"]).expect(0);
    before.assert_same(&fingerprint(&database));
    assert_eq!(kept(&database).len(), 1);
    database.psql("SELECT pg_drop_replication_slot('a_slot') FROM pg_replication_slots");
}

#[test]
fn the_name_typed_on_a_terminal_decides() {
    let database = shop(Cluster::shared(18), "typed");
    let before = fingerprint(&database);
    let snapshots = Snapshots::new();
    snapshots.create(&database, &[]);
    change_everything(&database);
    let changed = fingerprint(&database);
    let command = snapshots.command("restore", &database.url(), &["latest", "--replace"]);
    let line: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|part| format!("'{}'", part.to_string_lossy()))
        .collect();
    // script(1) gives the program a terminal; what is typed comes from its standard input.
    let type_name = |name: &str| {
        let mut terminal = std::process::Command::new("script");
        terminal.args(["-qec", &line.join(" "), "/dev/null"]).env("PATH", command_path(&command));
        terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = terminal.spawn().expect("script(1) is there");
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), format!("{name}\n").as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, said) = type_name("something else");
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("Type the database's name to go on:") && said.contains("not confirmed"), "{said}");
    changed.assert_same(&fingerprint(&database));
    let (code, said) = type_name(database.name());
    assert_eq!(code, Some(0), "{said}");
    before.assert_same(&fingerprint(&database));
}

fn command_path(command: &std::process::Command) -> std::ffi::OsString {
    let path = command.get_envs().find(|(name, _)| *name == "PATH");
    path.and_then(|(_, value)| value).expect("set by tests::binaries").to_owned()
}
