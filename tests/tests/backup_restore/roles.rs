//! Roles' passwords and privileges that only newer servers have.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tests::oracle::fingerprint_without;
use tests::{Cluster, Options, Outcome, Snapshots, psql};

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}

/// The names of the files that hold one of the texts.
fn holding(folder: &Path, texts: &[String]) -> Vec<String> {
    let holds = |path: &PathBuf| {
        let bytes = std::fs::read(path).unwrap();
        texts.iter().any(|text| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
    };
    files_below(folder)
        .iter()
        .filter(|path| holds(path))
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect()
}

fn passwords_are_stored_only_on_request(major: u32) {
    let source = Cluster::start(major, &Options::new().conf("log_statement = all"));
    source.psql(
        "CREATE ROLE app LOGIN PASSWORD 'secret of app' VALID UNTIL '2099-01-01'; CREATE ROLE \"o'dd \"\"role\" LOGIN PASSWORD 'second';
         SET password_encryption = 'md5'; CREATE ROLE old LOGIN PASSWORD 'third'; CREATE ROLE noone; CREATE ROLE plain LOGIN;
         CREATE DATABASE shop TEMPLATE template0",
    );
    psql::run(
        &source.url("shop"),
        "CREATE TABLE t (i int); ALTER TABLE t OWNER TO app; GRANT SELECT ON t TO \"o'dd \"\"role\", old, noone; GRANT SELECT ON t TO plain",
    );
    let hashes = "SELECT rolname || ' ' || coalesce(rolpassword, '-') FROM pg_authid
                  WHERE rolname IN ('app', 'o''dd \"role', 'old', 'noone') ORDER BY 1";
    let before = source.psql(hashes);
    let secrets: Vec<String> = source
        .psql("SELECT rolpassword FROM pg_authid WHERE rolpassword IS NOT NULL")
        .lines()
        .map(str::to_owned)
        .collect();
    assert_eq!(secrets.len(), 3);
    let shown = |outcome: &Outcome| {
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        secrets.iter().any(|secret| said.contains(secret.as_str()))
    };

    // Not asked for: not even read.
    let snapshots = Snapshots::new();
    let lines_before = source.log().matches("rolpassword").count();
    let without = snapshots.run("backup", &source.url("shop"), &["create", "--compress", "none"]).expect(0);
    assert_eq!(source.log().matches("rolpassword").count(), lines_before, "{}", source.log());
    assert_eq!(holding(&snapshots.path(), &secrets), Vec::<String>::new());
    assert!(!shown(&without));

    // Only for who may read them, before anything is written.
    snapshots
        .run("backup", &source.url_as("plain", "shop"), &["create", "--role-passwords"])
        .fails(3, &["may not read the passwords", "superuser"]);

    let created = snapshots
        .run("backup", &source.url("shop"), &["create", "--role-passwords", "--compress", "none"])
        .expect(0);
    let id = created.stdout.trim().to_owned();
    assert_eq!(holding(&snapshots.path(), &secrets), ["globals.sql"]);
    let globals = snapshots.folder_of(&id).join("globals.sql");
    assert_eq!(std::fs::metadata(&globals).unwrap().permissions().mode() & 0o777, 0o600);
    let readme = std::fs::read_to_string(snapshots.folder_of(&id).join("README.txt")).unwrap();
    assert!(readme.contains("keep it secret"), "{readme}");
    let listed = snapshots.run_offline("backup", &["list"]).expect(0);
    assert_eq!(listed.stdout.matches("(role passwords)").count(), 1, "{}", listed.stdout);
    let mut outcomes = vec![created, listed];
    for arguments in
        [&["show", &id][..], &["show", &id, "--json"], &["list", "--json"], &["verify", &id, "-v"]]
    {
        outcomes.push(snapshots.run_offline("backup", arguments).expect(0));
    }
    let tar = snapshots.path().with_extension("tar");
    let exported = snapshots.run_offline("backup", &["export", &id, "-o", tar.to_str().unwrap()]).expect(0);
    outcomes.push(exported.says(&["password hashes", "keep it secret"]));

    // Given only to roles that are made.
    let target = Cluster::start(major, &Options::new().conf("log_statement = all"));
    target.psql("CREATE ROLE old LOGIN PASSWORD 'kept'");
    let kept = target.psql("SELECT rolpassword FROM pg_authid WHERE rolname = 'old'");
    let planned = snapshots
        .run("restore", &target.url("postgres"), &[&id, "--into", "copy", "--create-roles", "--dry-run"])
        .expect(0);
    assert!(planned.stdout.contains("with the passwords of the snapshot"), "{}", planned.stdout);
    outcomes.push(planned);
    for extra in [&["-v"][..], &["--json"]] {
        let arguments = [&[id.as_str(), "--into", "copy", "--create-roles"], extra].concat();
        outcomes.push(snapshots.run("restore", &target.url("postgres"), &arguments).expect(0));
        let expected: String = before
            .lines()
            .map(|line| if line.starts_with("old ") { format!("old {kept}") } else { line.to_owned() })
            .collect::<Vec<_>>()
            .join("\n");
        assert_eq!(target.psql(hashes), expected);
        assert!(!secrets.iter().any(|secret| target.log().contains(secret.as_str())), "in the server's log");
        target.psql("DROP DATABASE copy");
        target.psql("DROP ROLE app, \"o'dd \"\"role\", noone");
    }
    assert!(!outcomes.iter().any(shown), "{outcomes:?}");
}

#[test]
fn passwords_are_stored_only_on_request_on_14() {
    passwords_are_stored_only_on_request(14);
}

#[test]
fn passwords_are_stored_only_on_request_on_18() {
    passwords_are_stored_only_on_request(18);
}

#[test]
fn passwords_are_stored_only_on_request_postgresql_19() {
    passwords_are_stored_only_on_request(19);
}

#[test]
fn grant_all_of_an_older_server_gives_nobody_maintain() {
    let source = Cluster::start(14, &Options::new());
    let target = Cluster::start(18, &Options::new());
    for cluster in [&source, &target] {
        cluster.psql("CREATE ROLE reader; CREATE ROLE owner");
    }
    source.psql("CREATE DATABASE app TEMPLATE template0");
    psql::run(
        &source.url("app"),
        "CREATE SCHEMA app AUTHORIZATION owner; SET ROLE owner; GRANT USAGE ON SCHEMA app TO reader; CREATE TABLE app.t (i int); CREATE VIEW app.v AS SELECT i FROM app.t;
         CREATE MATERIALIZED VIEW app.m AS SELECT i FROM app.t; GRANT ALL ON app.t, app.v, app.m TO reader WITH GRANT OPTION;
         SET ROLE reader; GRANT ALL ON app.t TO PUBLIC; SET ROLE owner;
         ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO reader; ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT ALL ON TABLES TO PUBLIC",
    );
    let grants = "SELECT count(*), count(*) FILTER (WHERE privilege_type = 'MAINTAIN') FROM (
                    SELECT a.* FROM pg_class, aclexplode(relacl) a WHERE relnamespace = 'app'::regnamespace AND a.grantee <> relowner
                    UNION ALL SELECT a.* FROM pg_default_acl, aclexplode(defaclacl) a WHERE a.grantee <> defaclrole) g";
    let before = psql::run(&source.url("app"), grants);
    assert!(before.ends_with("|0") && before != "0|0", "{before}");
    // The client that the program chooses, and the newest: an older pg_dump writes ALL.
    let newest = psql::tool("pg_dump");
    let newest = Path::new(newest.get_program()).parent().unwrap().to_owned();
    let program = |snapshots: &Snapshots, copy: &str, name: &str, url: &str, arguments: &[&str]| {
        let mut command = snapshots.command(name, url, arguments);
        if copy == "again" {
            command.env("SAFE_RUN_PG_BIN", &newest);
        }
        Outcome::of(&mut command).expect(0)
    };
    for copy in ["copy", "again"] {
        let snapshots = Snapshots::new();
        let id =
            program(&snapshots, copy, "backup", &source.url("app"), &["create"]).stdout.trim().to_owned();
        program(&snapshots, copy, "restore", &target.url("postgres"), &[&id, "--into", copy]);
        assert_eq!(psql::run(&target.url(copy), grants), before);
        let owners = "SELECT bool_and(has_table_privilege('owner', oid, 'MAINTAIN')) FROM pg_class WHERE relname IN ('t', 'm')";
        assert_eq!(psql::run(&target.url(copy), owners), "t", "an owner may always");
        assert!(fingerprint_without(&target.url(copy), &[]).schema().contains("GRANT"));
    }
}
