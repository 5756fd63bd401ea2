//! The clone in the middle of its bytes, and made by a role that is no superuser: what it carries over, and what is refused.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

use tests::protected_run::kill;
use tests::{Cluster, Ended, Options, ProtectedRun, Running, psql, until};

fn entries(folder: &Path) -> BTreeSet<PathBuf> {
    // A folder may go while it is read.
    std::fs::read_dir(folder)
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
        .unwrap_or_default()
}

/// Lets the server copy a few files of the clone and stops it there: its process id.
fn stop_in_the_middle(
    cluster: &Cluster,
    run: &ProtectedRun,
    before: &BTreeSet<PathBuf>,
) -> (Running, String) {
    let base = cluster.data_dir().join("base");
    let oid = run.database.psql("SELECT oid FROM pg_database WHERE datname = current_database()");
    let all = entries(&base.join(&oid)).len();
    // Who holds pg_database stops CREATE DATABASE before its first file.
    let mut holder = psql::Session::open(&cluster.url("postgres"));
    let running = run.start(&["--snapshot", "clone", "--", "psql", "-Xqc", "DROP TABLE audit"]);
    holder.run("BEGIN; LOCK TABLE pg_database IN SHARE MODE");
    let asked =
        "SELECT pid FROM pg_stat_activity WHERE query LIKE 'CREATE DATABASE%' AND wait_event_type = 'Lock'";
    until("the server is asked to copy", || !cluster.psql(asked).is_empty());
    let pid = cluster.psql(asked);
    kill("STOP", &pid);
    holder.run("COMMIT");
    // It gets on by slices of a moment: one of them ends between the first file and the last.
    let copied = || {
        let made = entries(&base).difference(before).next().cloned();
        made.map_or(0, |folder| entries(&folder).len())
    };
    until("some files are copied", || {
        let sh = "kill -CONT $0; kill -STOP $0";
        assert!(std::process::Command::new("sh").args(["-c", sh, &pid]).status().unwrap().success());
        copied() > 0
    });
    assert!(copied() < all, "the copy was complete before it could be stopped");
    (running, pid)
}

#[test]
fn a_signal_or_a_kill_in_the_middle_of_the_files_leaves_nothing_of_the_copy() {
    for (major, signals) in [(14, ["INT", "KILL"]), (18, ["TERM", "KILL"])] {
        let cluster = Cluster::start(major, &Options::new());
        let run = ProtectedRun::shop_on(&cluster);
        run.database.psql(
            "DO $$ BEGIN FOR i IN 1..400 LOOP EXECUTE format('CREATE TABLE many_%s (i int PRIMARY KEY, t text)', i); END LOOP; END $$",
        );
        let before = run.fingerprint();
        for signal in signals {
            let folders = entries(&cluster.data_dir().join("base"));
            let (running, pid) = stop_in_the_middle(&cluster, &run, &folders);
            running.signal(signal);
            if signal == "KILL" {
                assert_eq!(running.outcome().status.signal(), Some(9));
                kill("CONT", &pid);
                run.run(&["recover"]).exits(0).says("NOT RUN");
            } else {
                kill("CONT", &pid);
                let code = if signal == "INT" { 130 } else { 143 };
                running.outcome().exits(code).says("NOT RUN").says("unchanged");
                run.run(&["recover"]).exits(0).says("Nothing to recover");
            }
            run.assert_unchanged(&before);
            assert_eq!(run.others(), Vec::<String>::new(), "{major} {signal}");
            let left = || entries(&cluster.data_dir().join("base"));
            // Files of a dropped database go with the next checkpoint at the latest.
            cluster.psql("CHECKPOINT");
            until("its files are gone", || left() == folders);
        }
    }
}

/// A database of a role that is no superuser, with a schema of its own and a table that is another's.
fn weak(cluster: &Cluster) -> (ProtectedRun<'_>, String) {
    let run = ProtectedRun::on(cluster.fresh_database("weak"));
    let name = run.database.name().to_owned();
    let role = format!("weak_of_{name}");
    run.database.psql(&format!(
        "CREATE ROLE {role} LOGIN CREATEDB; ALTER DATABASE {name} OWNER TO {role}; CREATE SCHEMA app AUTHORIZATION {role};
         CREATE TABLE theirs AS SELECT 7 AS i; GRANT SELECT ON theirs TO {role}"
    ));
    psql::run(
        &cluster.url_as(&role, &name),
        &format!(
            "CREATE TABLE app.t (id serial PRIMARY KEY, t text); INSERT INTO app.t (t) SELECT 'x' || i FROM generate_series(1, 500) i;
             ALTER DATABASE {name} SET work_mem = '9MB'; ALTER ROLE {role} IN DATABASE {name} SET search_path = app;
             ALTER DATABASE {name} CONNECTION LIMIT 30; COMMENT ON DATABASE {name} IS 'weak';
             GRANT TEMPORARY ON DATABASE {name} TO pg_monitor WITH GRANT OPTION; REVOKE CONNECT ON DATABASE {name} FROM PUBLIC"
        ),
    );
    (run, role)
}

fn as_role(run: &ProtectedRun<'_>, role: &str, arguments: &[&str]) -> Ended {
    let mut command = run.command(arguments);
    command.env("DATABASE_URL", run.database.cluster().url_as(role, run.database.name()));
    Running::start(command).outcome()
}

fn forget(cluster: &Cluster, run: ProtectedRun<'_>, role: &str) {
    drop(run);
    cluster.psql(&format!("DROP ROLE {role}"));
}

const WRECKS: [&str; 6] = [
    "--snapshot",
    "clone",
    "--",
    "sh",
    "-c",
    "psql -Xqc 'DROP SCHEMA app CASCADE' -c \"ALTER DATABASE \\\"$PGDATABASE\\\" SET work_mem = '1MB'\"; exit 7",
];

tests::on_every_major! {
    fn the_owner_with_createdb_gets_all_of_the_database_back_by_its_clone(cluster: &Cluster) {
        let (run, role) = weak(cluster);
        let name = run.database.name();
        // One that a session knows only when it has used PL/pgSQL, and one that pg_settings does not show.
        run.database.psql(&format!(
            "ALTER DATABASE {name} SET plpgsql.extra_errors = 'all'; ALTER ROLE {role} IN DATABASE {name} SET role = '{role}'"
        ));
        let before = run.fingerprint();
        let outcome = as_role(&run, &role, &WRECKS).exits(12).verdict("RESTORED");
        drop(outcome.says("its clone, made behind the fence").never_says("differs: "));
        run.assert_unchanged(&before);
        as_role(&run, &role, &["--snapshot", "clone", "--", "psql", "-Xqc", "UPDATE app.t SET t = 'y'"]).exits(0);
        let left = run.others();
        assert!(left.len() == 1 && left[0].contains("_replaced_"), "{left:?}");
        forget(cluster, run, &role);
    }
}

#[test]
fn what_the_owner_may_not_give_to_a_clone_is_refused_before_anything_runs() {
    for major in tests::cluster::ends() {
        let cluster = Cluster::shared(major);
        let (run, role) = weak(cluster);
        let name = run.database.name().to_owned();
        let refuses = |set: &str, unset: &str, says: &str| {
            run.database.psql(set);
            let before = run.fingerprint();
            let outcome = as_role(&run, &role, &WRECKS).exits(3).says(says);
            drop(outcome.says("--snapshot file").says("was not changed").never_says("sessions ended"));
            run.assert_unchanged(&before);
            assert_eq!(run.others(), Vec::<String>::new(), "{set}");
            as_role(&run, &role, &["recover"]).exits(0).says("Nothing to recover");
            run.database.psql(unset);
        };
        // A setting that only a superuser may make, and one of another role.
        refuses(
            &format!("ALTER DATABASE {name} SET log_statement = 'ddl'"),
            &format!("ALTER DATABASE {name} RESET log_statement"),
            "log_statement of the database: only a superuser may set it",
        );
        refuses(
            &format!("ALTER ROLE postgres IN DATABASE {name} SET work_mem = '5MB'"),
            &format!("ALTER ROLE postgres IN DATABASE {name} RESET work_mem"),
            "work_mem of the role postgres in the database",
        );
        // A grant that another role gave.
        refuses(
            &format!("SET ROLE pg_monitor; GRANT TEMPORARY ON DATABASE {name} TO pg_read_all_stats"),
            &format!("SET ROLE pg_monitor; REVOKE TEMPORARY ON DATABASE {name} FROM pg_read_all_stats"),
            "TEMPORARY on the database to pg_read_all_stats",
        );
        // A label of a provider that the server has not loaded can't be given to anything.
        let oid = format!("(SELECT oid FROM pg_database WHERE datname = '{name}')");
        refuses(
            &format!(
                "SET allow_system_table_mods = on; INSERT INTO pg_shseclabel VALUES ({oid}, 'pg_database'::regclass, 'nobody', 'secret')"
            ),
            &format!("SET allow_system_table_mods = on; DELETE FROM pg_shseclabel WHERE objoid = {oid}"),
            "security label provider",
        );
        as_role(&run, &role, &WRECKS).exits(12).verdict("RESTORED");
        forget(cluster, run, &role);
    }
}
