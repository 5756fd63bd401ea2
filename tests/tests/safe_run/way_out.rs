//! `recover --keep` opens the database and settles the run, whatever became of what the undo needs; and nothing of it waits for ever.

use std::process::Command;

use tests::{ProtectedRun, psql};

/// A run that was killed after its command had changed the database, behind the read-only fence.
fn killed(major: u32) -> ProtectedRun<'static> {
    let run = ProtectedRun::shop(major);
    run.crash("safe-run.applied", &["--snapshot", "file", "--", "psql", "-Xqc", "DELETE FROM order_items"]);
    run
}

#[track_caller]
fn assert_kept(run: &ProtectedRun) {
    run.assert_open();
    assert_eq!(run.database.psql("SELECT count(*) FROM order_items"), "0");
    run.database.psql("CREATE TABLE written_since ()");
}

fn a_role_is_gone(major: u32) {
    let run = ProtectedRun::shop(major);
    let role = format!("{}_gone", run.database.name());
    run.database.psql(&format!(
        "CREATE ROLE {role}; ALTER TABLE audit OWNER TO {role}; GRANT SELECT ON orders TO {role}"
    ));
    let dropped = format!(
        "DELETE FROM order_items; REASSIGN OWNED BY {role} TO postgres; DROP OWNED BY {role}; DROP ROLE {role}"
    );
    let before = run.fingerprint();
    let flags = ["--snapshot", "file", "--", "psql", "-Xqc", &dropped];
    let made =
        format!("the role \"{role}\" was gone and was made again, without its password and its members");
    run.run(&[&flags[..], &["-c", "SELECT 1/0"]].concat())
        .exits(12)
        .says(&made)
        .never_says("is as it was before");
    before.assert_same(&run.fingerprint());
    // The same after a crash.
    run.crash("safe-run.applied", &flags);
    run.run(&["recover"]).exits(0).says(&made);
    before.assert_same(&run.fingerprint());
}

#[test]
fn a_role_that_the_command_dropped_is_made_again_by_the_undo_postgresql_14() {
    a_role_is_gone(14);
}

#[test]
fn a_role_that_the_command_dropped_is_made_again_by_the_undo_postgresql_18() {
    a_role_is_gone(18);
}

/// A file system of a few megabytes, which only root may make.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(path: &std::path::Path) -> Option<SmallDisk> {
        std::fs::create_dir_all(path).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(path).output();
        mounted.ok()?.status.success().then(|| SmallDisk(path.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_keeps_nobody_from_keeping_the_database() {
    use std::io::Write;
    let run = ProtectedRun::shop(18);
    let snapshots = run.folder().join("snapshots");
    let Some(_disk) = SmallDisk::mount(&snapshots) else {
        println!("NOT TESTED: only root may mount a small disk");
        return;
    };
    for fence in ["read-only", "exclusive"] {
        run.crash(
            "safe-run.applied",
            &["--fence", fence, "--snapshot", "file", "--", "psql", "-Xqc", "DELETE FROM order_items"],
        );
        // What is there fills its pages: another line needs another one.
        let journal = snapshots.join("runs").join(run.runs().pop().unwrap()).join("journal.jsonl");
        let mut lines = std::fs::read_to_string(&journal).unwrap().trim_end().to_owned();
        while !(lines.len() + 1).is_multiple_of(4096) {
            lines.push(' ');
        }
        std::fs::write(&journal, lines + "\n").unwrap();
        let filling = snapshots.join("filling");
        let mut file = std::fs::File::create(&filling).unwrap();
        while file.write_all(&[7; 4096]).is_ok() {}
        while file.write_all(&[7]).is_ok() {}
        drop(file);
        run.run(&["recover"]).exits(20).says("No space left on device").says("safe-run recover --keep");
        run.run(&["recover", "--keep"])
            .exits(1)
            .says("could not be recorded")
            .says("is left as the run left it");
        run.assert_open();
        assert_eq!(run.database.psql("SELECT count(*) FROM order_items"), "0", "{fence}");
        std::fs::remove_file(&filling).unwrap();
        run.run(&["recover", "--keep"]).exits(0).says("STOPPED");
        run.run(&["recover"]).exits(0).says("Nothing to recover");
        run.assert_open();
        run.database.psql("INSERT INTO order_items (order_id, sku) SELECT 1, 'new'");
    }
}

/// Somebody has changed the settings of the database and not committed: what has to change them waits for that.
#[test]
fn recover_and_release_wait_for_a_lock_on_the_database_for_a_time_and_say_for_what() {
    let run = killed(18);
    let mut somebody = psql::Session::open(&run.database.cluster().url("postgres"));
    let hold = format!("BEGIN; ALTER DATABASE \"{}\" SET work_mem = '7MB'", run.database.name());
    somebody.run(&hold);
    let mut command = run.command(&["recover", "--keep"]);
    command.env("SAFE_RUN_FAULT_NUMBER", "safe-run.patience=1");
    let ended = tests::Running::start(command).outcome();
    drop(
        ended
            .exits(4)
            .says("Then run `safe-run recover`, which lifts the fence")
            .says("holds what the failed run left behind"),
    );
    somebody.run("ROLLBACK");
    run.run(&["recover", "--keep"]).exits(0).says("STOPPED");
    assert_kept(&run);

    run.run(&["--hold-fence", "--snapshot", "file", "--", "psql", "-Xqc", "DELETE FROM audit"]).exits(0);
    somebody.run(&hold);
    let mut command = run.command(&["release"]);
    command.env("SAFE_RUN_FAULT_NUMBER", "safe-run.patience=1");
    let ended = tests::Running::start(command).outcome();
    drop(ended.exits(4).says("then run `safe-run release` again").never_says("safe-run recover"));
    somebody.run("ROLLBACK");
    run.run(&["release"]).exits(0);
    run.assert_open();

    // Before a run the way is another one.
    somebody.run(&hold);
    let mut command = run.command(&["--snapshot", "none", "--on-failure", "stop", "--", "true"]);
    command.env("SAFE_RUN_FAULT_NUMBER", "safe-run.patience=1");
    drop(
        tests::Running::start(command)
            .outcome()
            .exits(4)
            .says("end it (pg_stat_activity, backend_xid), then run the command again"),
    );
    somebody.run("ROLLBACK");
}
