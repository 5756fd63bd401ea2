//! Several programs on one database at the same instant, and names that are taken.

use tests::{Cluster, ProtectedRun, Running, Snapshots, psql, until};

tests::on_every_major! {
    fn of_many_runs_at_the_same_instant_one_runs_and_the_others_name_it(cluster: &Cluster) {
        let run = ProtectedRun::shop_on(cluster);
        let script = "psql -Xqc \"INSERT INTO audit VALUES (1, 'ran')\"; while [ ! -e go ]; do sleep 0.05; done";
        // In one repository, and each in its own.
        let mut running: Vec<Running> = (0..6)
            .map(|number| {
                let elsewhere = format!("elsewhere{number}");
                let repository = if number % 2 == 0 { "snapshots" } else { &elsewhere };
                run.start(&["--repo", repository, "--", "sh", "-c", script])
            })
            .collect();
        until("one is left", || running.iter_mut().filter_map(|one| one.is_running().then_some(())).count() == 1);
        run.file("go", "");
        let ended: Vec<_> = running.into_iter().map(Running::outcome).collect();
        let winner = ended.iter().position(|one| one.status.code() == Some(0)).expect("one runs");
        let (repository, name) = if winner % 2 == 0 {
            ("snapshots".to_owned(), run.runs().pop().unwrap())
        } else {
            let repository = format!("elsewhere{winner}");
            let mut runs = std::fs::read_dir(run.folder().join(&repository).join("runs")).unwrap();
            (repository, runs.next().unwrap().unwrap().file_name().into_string().unwrap())
        };
        for (number, one) in ended.into_iter().enumerate() {
            if number == winner {
                drop(one.exits(0).verdict("COMMITTED"));
            } else {
                drop(one.exits(4).says("another safe-run works on the database").says(&name).says("hint: "));
            }
        }
        assert_eq!(run.database.psql("SELECT count(*) FROM audit"), "1");
        run.assert_open();
        run.run(&["--repo", &repository, "recover"]).exits(0).says("Nothing to recover");
    }
}

#[test]
fn a_clone_whose_name_is_taken_gets_another_and_the_other_database_is_left_alone() {
    let run = ProtectedRun::shop(18);
    let cluster = run.database.cluster();
    let name = run.database.name();
    // Every second of the near future is taken, by databases that are nobody's clone.
    for try_ in 0..5 {
        let taken = cluster.psql(&format!(
            "SELECT format('{name}_%s_', CASE i % 2 WHEN 0 THEN 'clone' ELSE 'replaced' END)
                    || to_char((now() AT TIME ZONE 'UTC') + make_interval(secs => i), 'YYYYMMDD_HH24MISS') FROM generate_series(1, 12) i"
        ));
        let made: Vec<String> = taken
            .lines()
            .filter(|other| {
                psql::try_run(&cluster.url("postgres"), &format!("CREATE DATABASE {other}")).is_ok()
            })
            .map(str::to_owned)
            .collect();
        let script = format!("psql -Xqc 'UPDATE orders SET total = {try_}'");
        run.run(&["--snapshot", "clone", "--keep-clone", "--", "sh", "-c", &script])
            .exits(0)
            .verdict("COMMITTED");
        let others = run.others();
        assert!(made.iter().all(|other| others.contains(other)), "{made:?} {others:?}");
        if others.iter().any(|other| other.ends_with("_2")) {
            return;
        }
    }
    panic!("no run met a name that was taken: {:?}", run.others());
}

#[test]
fn an_undo_whose_planned_names_were_taken_meanwhile_takes_others() {
    for fence in ["read-only", "exclusive"] {
        let run = ProtectedRun::shop(18);
        let before = run.fingerprint();
        let cluster = run.database.cluster();
        let name = run.database.name();
        let epoch = || cluster.psql("SELECT floor(date_part('epoch', now()))::bigint");
        let began = epoch();
        let script =
            "psql -Xqc 'DROP TABLE order_items'; touch ready; while [ ! -e go ]; do sleep 0.05; done; exit 1";
        let running = run.start(&["--fence", fence, "--", "sh", "-c", script]);
        until("the command has begun", || run.folder().join("ready").exists());
        // Whichever second it was when the undo was planned.
        let hidden = run.others().into_iter().find(|other| other.contains("_hidden_"));
        let live = hidden.as_deref().unwrap_or(name);
        let taken = cluster.psql(&format!(
            "SELECT format('{live}_%s_', kind) || to_char(to_timestamp(s) AT TIME ZONE 'UTC', 'YYYYMMDD_HH24MISS')
             FROM generate_series({began}, {}) s, unnest(ARRAY['restored', 'replaced']) kind",
            epoch()
        ));
        for other in taken.lines() {
            cluster.psql(&format!("CREATE DATABASE \"{other}\""));
        }
        run.file("go", "");
        running.outcome().exits(12).verdict("RESTORED");
        run.assert_unchanged(&before);
        let others = run.others();
        assert!(taken.lines().all(|other| others.iter().any(|left| left == other)), "{taken} {others:?}");
        assert_eq!(others.len(), taken.lines().count() + 1, "{others:?}");
    }
}

#[test]
fn restores_at_the_same_instant_never_touch_each_others_database() {
    let database = Cluster::shared(18).fresh_database("same");
    database.psql("CREATE TABLE t AS SELECT generate_series(1, 1000) i");
    let snapshots = Snapshots::new();
    snapshots.create(&database, &[]);
    let restores: Vec<Running> =
        (0..4).map(|_| Running::start(snapshots.command("restore", &database.url(), &["latest"]))).collect();
    let mut made = 0;
    for restore in restores {
        let ended = restore.outcome();
        match ended.status.code() {
            Some(0) => made += 1,
            // Who comes second is told; the other's database stays.
            Some(1 | 3 | 4) => drop(ended.says("already exists")),
            _ => panic!("{ended}"),
        }
    }
    let restored: Vec<String> =
        database.family().into_iter().filter(|name| name.contains("_restored_")).collect();
    assert_eq!(restored.len(), made, "{restored:?}");
    assert!(made >= 1);
    for name in restored {
        assert_eq!(psql::run(&database.cluster().url(&name), "SELECT count(*) FROM t"), "1000");
    }
}
