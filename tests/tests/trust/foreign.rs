//! A snapshot from somebody else, whose manifest has a right hash: whoever writes a snapshot can make one. Nothing that it
//! says becomes SQL of ours, nothing in its folder keeps us waiting or fills the memory.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tests::{Cluster, Database, Outcome, Snapshots};

/// Changes what the manifest says, and makes its hash anew.
pub(crate) fn forge(snapshots: &Snapshots, id: &str, edit: impl FnOnce(&mut Value)) {
    let path = snapshots.folder_of(id).join("manifest.json");
    let mut manifest: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    edit(&mut manifest["snapshot"]);
    let body = manifest["snapshot"].to_string();
    let hash = sha256(body.as_bytes());
    std::fs::write(&path, format!("{{\"sha256\":\"{hash}\",\"snapshot\":{body}}}\n")).unwrap();
}

fn sha256(bytes: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let output = Command::new("sha256sum").arg(file.path()).output().unwrap();
    String::from_utf8(output.stdout).unwrap()[..64].to_owned()
}

/// Puts other bytes into a file, and lets the manifest agree.
fn forge_file(snapshots: &Snapshots, id: &str, name: &str, bytes: &[u8]) {
    std::fs::write(snapshots.folder_of(id).join(name), bytes).unwrap();
    forge(snapshots, id, |manifest| {
        let files = manifest["files"].as_array_mut().unwrap();
        let file = files.iter_mut().find(|file| file["path"] == name).unwrap();
        file["bytes"] = json!(bytes.len());
        file["sha256"] = json!(sha256(bytes));
    });
}

/// A database with a role of its own that owns it, and a snapshot of it.
pub(crate) fn with_snapshot<'c>(
    cluster: &'c Cluster,
    name: &str,
    arguments: &[&str],
) -> (Database<'c>, Snapshots, String) {
    let database = cluster.fresh_database(name);
    let role = format!("{}_app", database.name());
    database.psql(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'x'; CREATE TABLE t AS SELECT i FROM generate_series(1, 3000) i;
         ALTER TABLE t OWNER TO {role}; GRANT CREATE ON DATABASE {db} TO {role};
         ALTER DATABASE {db} SET work_mem = '9MB'; CREATE SEQUENCE q",
        db = database.name()
    ));
    let snapshots = Snapshots::new();
    let id = snapshots.create(&database, arguments);
    (database, snapshots, id)
}

pub(crate) fn drop_role(database: &Database) {
    let role = format!("{}_app", database.name());
    database.psql(&format!("REASSIGN OWNED BY {role} TO postgres; DROP OWNED BY {role}; DROP ROLE {role}"));
}

fn roles(database: &Database) -> String {
    database.psql("SELECT string_agg(format('%s %s', rolname, rolsuper), ', ' ORDER BY 1) FROM pg_roles WHERE rolname LIKE 'evil%' OR rolsuper")
}

#[test]
fn no_word_of_a_foreign_manifest_becomes_sql() {
    for major in [14, 18] {
        let (database, snapshots, id) = with_snapshot(Cluster::shared(major), "words", &[]);
        drop_role(&database);
        let evil = format!("evil{}", database.name());
        let create = format!("CREATE ROLE {evil} SUPERUSER");
        let grant = format!("CONNECT ON DATABASE {0} TO PUBLIC; {create}; GRANT CONNECT", database.name());
        let good = snapshots.manifest(&id);
        let before = roles(&database);
        for (pointer, word, field) in [
            ("/database/acl/0/privilege", grant, "database.acl.privilege"),
            ("/roles/0/attributes/0", format!("NOSUPERUSER; {create}; --"), "roles.attributes"),
            ("/database/encoding", format!("UTF8'; {create}; --"), "database.encoding"),
            ("/database/locale_provider", format!("libc; {create}; --"), "locale_provider"),
            ("/database/settings/0/name", format!("work_mem\n; {create}; --"), "settings.name"),
            ("/sequences/0/last_value", format!("1); {create}; --"), "manifest.json"),
        ] {
            forge(&snapshots, &id, |manifest| *manifest.pointer_mut(pointer).unwrap() = json!(word));
            let arguments = [&id, "--create-roles"];
            snapshots.run("restore", &database.url(), &arguments).fails(6, &[field]);
            snapshots.run_offline("backup", &["verify", &id]).fails(6, &[field]);
            assert_eq!(roles(&database), before, "{pointer}");
            assert_eq!(database.family(), [database.name()]);
            std::fs::write(snapshots.folder_of(&id).join("manifest.json"), &good).unwrap();
        }
        // The same words where a text may stand are texts.
        let name = format!("x'; {create}; --\"; {create}; --");
        forge(&snapshots, &id, |manifest| {
            manifest["database"]["comment"] = json!(name);
            manifest["database"]["settings"][0]["value"] = json!("8MB");
            manifest["roles"][0]["comment"] = json!(name);
            manifest["roles"][0]["settings"] = json!([["app.x", name]]);
        });
        let copy = format!("{}copy", database.name());
        snapshots.run("restore", &database.url(), &[&id, "--into", &copy, "--create-roles"]).expect(0);
        assert_eq!(roles(&database), before);
        let comment = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()";
        assert_eq!(tests::psql::run(&database.cluster().url(&copy), comment), name);
        database.psql(&format!("DROP DATABASE {copy} WITH (FORCE); DROP ROLE {}_app", database.name()));
    }
}

#[test]
fn what_follows_a_password_in_a_foreign_globals_sql_is_not_run() {
    let (database, snapshots, id) = with_snapshot(Cluster::shared(18), "globals", &["--role-passwords"]);
    drop_role(&database);
    let before = roles(&database);
    let path = snapshots.folder_of(&id).join("globals.sql");
    let good = std::fs::read_to_string(&path).unwrap();
    let role = format!("{}_app", database.name());
    let at = good.find(&format!("ALTER ROLE \"{role}\" PASSWORD '")).unwrap();
    let end = at + good[at..].find(";\n").unwrap();
    for more in [" SUPERUSER".to_owned(), format!("; CREATE ROLE evil{role} SUPERUSER")] {
        let forged = format!("{}{more}{}", &good[..end], &good[end..]);
        forge_file(&snapshots, &id, "globals.sql", forged.as_bytes());
        let outcome =
            snapshots.run("restore", &database.url(), &[&id, "--create-roles"]).fails(6, &["globals.sql"]);
        assert!(!outcome.stderr.contains("SCRAM"), "{}", outcome.stderr);
        assert_eq!(roles(&database), before);
        assert_eq!(database.family(), [database.name()]);
        database.psql(&format!("DROP ROLE IF EXISTS {role}"));
    }
    forge_file(&snapshots, &id, "globals.sql", good.as_bytes());
    let copy = format!("{}copy", database.name());
    snapshots.run("restore", &database.url(), &[&id, "--into", &copy, "--create-roles"]).expect(0);
    let hash = format!("SELECT left(rolpassword, 14) FROM pg_authid WHERE rolname = '{role}'");
    assert_eq!(database.psql(&hash), "SCRAM-SHA-256$");
    database.psql(&format!("DROP DATABASE {copy} WITH (FORCE); DROP ROLE {role}"));
}

#[test]
fn a_condition_of_a_foreign_manifest_is_run_only_if_it_compares() {
    for major in [14, 18] {
        let (database, snapshots, id) = with_snapshot(Cluster::shared(major), "condition", &[]);
        for filter in ["WHERE lo_create(4711) > 0", "WHERE i > 0; CREATE ROLE evil SUPERUSER; SELECT 1"] {
            forge(&snapshots, &id, |manifest| manifest["tables"][0]["extension_filter"] = json!(filter));
            snapshots.run("restore", &database.url(), &[&id]).fails(3, &["condition", filter]);
            assert_eq!(database.family(), [database.name()]);
        }
        forge(&snapshots, &id, |manifest| manifest["tables"][0]["extension_filter"] = json!("WHERE i > 0"));
        snapshots.restore_copy(&database, &[]);
    }
}

#[test]
fn a_file_that_a_manifest_names_twice_is_refused() {
    let (_database, snapshots, id) = with_snapshot(Cluster::shared(18), "twice", &[]);
    forge(&snapshots, &id, |manifest| {
        let files = manifest["files"].as_array_mut().unwrap();
        files.push(files[0].clone());
    });
    snapshots.run_offline("backup", &["verify", &id]).fails(6, &["twice"]);
}

/// Runs a program of ours that must not wait for anybody: it is killed after a while, and its exit code is none of ours then.
fn at_once(command: &Command) -> Outcome {
    let mut limited = Command::new("timeout");
    limited.args(["-s", "KILL", "120"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        limited.current_dir(folder);
    }
    Outcome::of(&mut limited)
}

/// Puts something in the place of a file that is none, and has somebody wait at the other end for ever.
fn replace(path: &Path, by: &str) {
    let _ = std::fs::remove_file(path);
    let elsewhere = path.with_file_name("elsewhere");
    match by {
        "fifo" => assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
        "socket" => {
            // Through a short link: a socket's path may have 107 bytes at most.
            let short = tests::cluster::short_folder("sr.s.");
            let link = short.path().join("l");
            std::os::unix::fs::symlink(path.parent().unwrap(), &link).unwrap();
            drop(std::os::unix::net::UnixListener::bind(link.join(path.file_name().unwrap())).unwrap());
        }
        "device" => std::os::unix::fs::symlink("/dev/zero", path).unwrap(),
        "folder" => std::fs::create_dir(path).unwrap(),
        "link" => std::os::unix::fs::symlink(elsewhere, path).unwrap(),
        _ => panic!("{by}"),
    }
}

fn put_back(path: &Path, bytes: &[u8]) {
    if path.is_dir() && !path.is_symlink() {
        std::fs::remove_dir(path).unwrap();
    } else {
        std::fs::remove_file(path).unwrap();
    }
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn what_lies_in_the_place_of_a_snapshots_file_is_not_opened() {
    let (database, snapshots, id) = with_snapshot(Cluster::shared(18), "plain", &[]);
    let folder = snapshots.folder_of(&id);
    let chunk = snapshots.chunks(&id).remove(0);
    let files = [folder.join("manifest.json"), chunk, folder.join("schema.dump"), folder.join("load.sh")];
    for (number, path) in files.iter().enumerate() {
        let good = std::fs::read(path).unwrap();
        for by in ["fifo", "socket", "device", "folder", "link"] {
            replace(path, by);
            for (program, arguments) in
                [("restore", vec![&*id]), ("backup", vec!["verify", &id]), ("backup", vec!["export", &id])]
            {
                at_once(&snapshots.command(program, &database.url(), &arguments)).fails(6, &[]);
            }
            let listed = at_once(&snapshots.command("backup", &database.url(), &["list"])).expect(0);
            assert_eq!(listed.stdout.contains("DAMAGED"), number == 0, "{by}: {}", listed.stdout);
            put_back(path, &good);
        }
    }
    assert_eq!(database.family(), [database.name()]);
    // A folder of the snapshot as a link.
    let data = folder.join("data");
    std::fs::rename(&data, folder.with_file_name("data")).unwrap();
    std::os::unix::fs::symlink(folder.with_file_name("data"), &data).unwrap();
    snapshots.run("restore", &database.url(), &[&id]).fails(6, &["data is a link"]);
}

#[test]
fn what_lies_in_the_place_of_a_repositorys_file_is_not_opened() {
    let (database, snapshots, id) = with_snapshot(Cluster::shared(18), "facts", &[]);
    snapshots.run_offline("backup", &["pin", &id]).expect(0);
    snapshots.run_offline("backup", &["verify", &id]).expect(0);
    for name in ["repository.json", "locks/repository.lock", "verifications.jsonl", &format!("pins/{id}")] {
        let path = snapshots.path().join(name);
        let good = std::fs::read(&path).unwrap();
        for by in ["fifo", "socket", "device", "link"] {
            replace(&path, by);
            for arguments in [vec!["list"], vec!["create"], vec!["verify", &id], vec!["delete", "-y", &id]] {
                let outcome = at_once(&snapshots.command("backup", &database.url(), &arguments));
                assert!([0, 3, 6].contains(&outcome.code), "{name} {by} {arguments:?}: {outcome:?}");
            }
            assert!(snapshots.ids().contains(&id), "a pin that can't be read pins: {name} {by}");
            assert!(!path.with_file_name("elsewhere").exists(), "nothing is made through a link");
            put_back(&path, &good);
        }
    }
}

#[test]
fn a_chunk_that_unpacks_to_more_than_the_manifest_says_does_not_fill_the_memory() {
    let (database, snapshots, id) = with_snapshot(Cluster::shared(18), "bomb", &[]);
    let chunk = snapshots.chunks(&id).remove(0);
    let bomb =
        Command::new("sh").arg("-c").arg("head -c 1600000000 /dev/zero | zstd -cq").output().unwrap().stdout;
    assert!(bomb.len() < 1 << 20);
    let forge_bomb = |raw_bytes: u64| {
        std::fs::write(&chunk, &bomb).unwrap();
        forge(&snapshots, &id, |manifest| {
            let stored = &mut manifest["tables"][0]["chunks"][0];
            stored["stored_bytes"] = json!(bomb.len());
            stored["sha256"] = json!(sha256(&bomb));
            stored["raw_bytes"] = json!(raw_bytes);
        });
    };
    // 1 GB of addresses, and few arenas, which would be most of it: what is held in memory must be far less.
    let limited = |program: &str, arguments: &[&str]| {
        let command = snapshots.command(program, &database.url(), arguments);
        let mut limited = Command::new("sh");
        limited
            .args(["-c", "ulimit -v 1000000; exec \"$@\"", "sh"])
            .arg(command.get_program())
            .args(command.get_args());
        limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        limited.current_dir(snapshots.path()).env("MALLOC_ARENA_MAX", "2");
        Outcome::of(&mut limited)
    };
    limited("backup", &["verify", &id]).expect(0);
    forge_bomb(30_000);
    limited("backup", &["verify", &id]).fails(6, &["more than the 30000 bytes of text"]);
    limited("restore", &[&id]).fails(6, &["more than the 30000 bytes of text"]);
    // What the manifest declares is read, and held nowhere: it is one row, longer than any.
    forge_bomb(1_600_000_000);
    limited("backup", &["verify", &id]).fails(6, &["a row that is longer than PostgreSQL writes any"]);
    assert_eq!(database.family(), [database.name()]);
}

#[test]
fn a_repository_of_somebody_else_or_open_to_others_is_refused_unless_it_is_trusted() {
    use std::os::unix::fs::{PermissionsExt, chown};
    let (database, snapshots, id) = with_snapshot(Cluster::shared(18), "whose", &[]);
    let commands: [(&str, &[&str]); 4] = [
        ("backup", &["create"]),
        ("backup", &["list"]),
        ("restore", &[&id, "--dry-run"]),
        ("safe-run", &["recover"]),
    ];
    let all = |code: i32, texts: &[&str]| {
        for (program, arguments) in commands {
            let outcome = snapshots.run(program, &database.url(), arguments);
            assert_eq!(outcome.code, code, "{program}: {}", outcome.stderr);
            outcome.says(texts);
        }
    };
    let set_mode = |name: &str, mode: u32| {
        let path = snapshots.path().join(name);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    for name in ["", "snapshots", "partial", "locks", "runs"] {
        for mode in [0o770, 0o1777] {
            set_mode(name, mode);
            all(3, &["may be written by others", "chmod go-w", "--trust-repo"]);
            set_mode(name, 0o755);
        }
    }
    // Who may give files away: the superuser.
    if std::fs::metadata("/proc/self").map(|own| std::os::unix::fs::MetadataExt::uid(&own)).unwrap() == 0 {
        chown(snapshots.path(), Some(12_345), None).unwrap();
        all(3, &["belongs to the user with id 12345", "chown -R 0", "--trust-repo"]);
        for (program, arguments) in commands {
            let arguments = [arguments, &["--trust-repo"]].concat();
            snapshots.run(program, &database.url(), &arguments).expect(0);
        }
        let mut command = snapshots.command("backup", &database.url(), &["list"]);
        Outcome::of(command.env("SAFE_RUN_TRUST_REPO", "1")).expect(0);
        Outcome::of(command.env("SAFE_RUN_TRUST_REPO", "0")).expect(3);
        Outcome::of(command.env("SAFE_RUN_TRUST_REPO", "maybe")).expect(2);
        chown(snapshots.path(), Some(0), None).unwrap();
    }
    all(0, &[]);
}

#[test]
fn a_folder_of_the_repository_that_is_a_link_is_not_followed() {
    let (database, snapshots, _) = with_snapshot(Cluster::shared(18), "linked", &[]);
    let precious = snapshots.path().with_file_name("precious");
    std::fs::create_dir_all(precious.join("photos")).unwrap();
    for name in ["partial", "trash", "snapshots", "runs", "locks"] {
        let (path, aside) = (snapshots.path().join(name), snapshots.path().with_file_name("aside"));
        std::fs::rename(&path, &aside).unwrap();
        std::os::unix::fs::symlink(&precious, &path).unwrap();
        for arguments in
            [vec!["create"], vec!["create", "--trust-repo"], vec!["prune", "--keep-last", "1", "-y"]]
        {
            snapshots.run("backup", &database.url(), &arguments).fails(3, &[name, "link"]);
        }
        assert_eq!(tests::outcome::names_in(&precious), ["photos"]);
        std::fs::remove_file(&path).unwrap();
        std::fs::rename(&aside, &path).unwrap();
    }
    // A link within partial/ is what a sweep takes away, and not what it leads to.
    std::os::unix::fs::symlink(&precious, snapshots.path().join("partial/x")).unwrap();
    snapshots.create(&database, &[]);
    assert_eq!(tests::outcome::names_in(&precious), ["photos"]);
    assert!(snapshots.leftovers().is_empty());
}

#[test]
fn a_signal_ends_the_wait_for_an_archive_that_never_comes() {
    let (database, snapshots, _) = with_snapshot(Cluster::shared(18), "waiting", &[]);
    let fifo = snapshots.path().with_file_name("never.tar");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let archive = fifo.to_str().unwrap();
    for (program, arguments) in [("restore", vec![archive]), ("backup", vec!["import", archive])] {
        let mut child = snapshots.command(program, &database.url(), &arguments).spawn().unwrap();
        let descriptors = format!("/proc/{}/fd", child.id());
        let is_open = || {
            let entries = std::fs::read_dir(&descriptors).into_iter().flatten().flatten();
            entries.filter_map(|entry| std::fs::read_link(entry.path()).ok()).any(|target| target == fifo)
        };
        while !is_open() {
            assert!(child.try_wait().unwrap().is_none(), "{program} ended by itself");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(143), "{program}");
    }
}

#[test]
fn a_snapshot_that_was_not_made_here_is_restored_with_a_word_about_whose_code_runs() {
    let (database, snapshots, id) = with_snapshot(Cluster::shared(18), "origin", &[]);
    let said = "was not made in this repository: restoring it runs the functions and triggers that it holds";
    let says = |arguments: &[&str]| {
        let outcome = snapshots.run("restore", &database.url(), arguments).expect(0);
        outcome.stderr.contains(said)
    };
    assert!(!says(&[&id, "--dry-run"]));
    let archive = snapshots.path().with_file_name("it.tar");
    let archive = archive.to_str().unwrap();
    snapshots.run_offline("backup", &["export", &id, "-o", archive]).expect(0);
    let copy = format!("{}copy", database.name());
    assert!(says(&[archive, "--into", &copy]));
    // A copy of the folder, as `cp -a` makes it.
    let (folder, aside) = (snapshots.folder_of(&id), snapshots.path().with_file_name("aside"));
    std::fs::rename(&folder, &aside).unwrap();
    assert!(Command::new("cp").arg("-a").arg(&aside).arg(&folder).status().unwrap().success());
    assert!(says(&[&id, "--dry-run"]));
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::rename(&aside, &folder).unwrap();
    assert!(!says(&[&id, "--dry-run"]));
    snapshots.run_offline("backup", &["delete", "-y", &id]).expect(0);
    snapshots.run_offline("backup", &["import", archive]).expect(0).says(&["trust where it comes from"]);
    assert!(says(&[&id, "--dry-run"]));
    snapshots.run("backup", &database.url(), &["delete", "-y", &id]).expect(0);
    snapshots.create(&database, &[]);
    assert_eq!(
        tests::outcome::names_in(&snapshots.path().join("made")),
        snapshots.ids(),
        "notes go with snapshots"
    );
}

#[test]
fn a_migration_that_is_no_plain_file_is_named_and_not_waited_for() {
    let run = tests::ProtectedRun::shop(18);
    let path = run.folder().join("migrations/1_x.sql");
    for by in ["fifo", "device"] {
        replace(&path, by);
        for arguments in [&["status"][..], &["plan"], &[]] {
            at_once(&run.command(arguments)).fails(2, &["1_x.sql: it is no plain file"]);
        }
        std::fs::remove_file(&path).unwrap();
    }
}
