//! A snapshot is restorable without our programs: its README.txt is followed to the letter, with pg_restore, psql and
//! the codec's stock tool.

use std::path::Path;
use std::process::Command;

use tests::oracle::{fingerprint, fingerprint_without};
use tests::{Cluster, Database, Outcome, Snapshots, fixtures, on_every_major, psql};

/// The commands of the README, in its order: every line that is indented as far as a command.
fn commands(readme: &str) -> Vec<&str> {
    readme.lines().filter_map(|line| line.strip_prefix("       ")).collect()
}

/// Runs the README's own lines as one shell script in the snapshot's folder, with the stock tools first on PATH.
fn follow(folder: &Path, database: &Database, restored: &str) {
    let readme = std::fs::read_to_string(folder.join("README.txt")).unwrap();
    // The two things that the README leaves to its reader: the new name, in its commands and in a copy of database.sql,
    // and no --exit-on-error where the server does not know a setting of the newest pg_restore.
    let sql = std::fs::read_to_string(folder.join("database.sql")).unwrap();
    let copy = tempfile::NamedTempFile::new().unwrap();
    let old_name = psql::quote_ident(database.name());
    std::fs::write(copy.path(), sql.replace(&old_name, &psql::quote_ident(restored))).unwrap();
    let mut script = commands(&readme)
        .join("\n")
        .replace("PGDATABASE=restored", &format!("PGDATABASE={restored}"))
        .replace("--dbname=restored", &format!("--dbname={restored}"))
        .replace("\"restored\"", &psql::quote_ident(restored))
        .replace("-f database.sql", &format!("-f {}", copy.path().display()));
    if database.cluster().major() < 17 {
        script = script.replace("pg_restore --exit-on-error", "! pg_restore");
    }
    let outcome = Outcome::of(shell(&format!("set -e\n{script}\n"), folder, database).env("LC_ALL", "C"));
    assert_eq!(outcome.code, 0, "{readme}\n{script}\n{}\n{}", outcome.stdout, outcome.stderr);
    let errors: Vec<&str> = outcome.stderr.lines().filter(|line| line.contains("error: ")).collect();
    for error in errors {
        let is_announced = ["\"transaction_timeout\"", "\"LOGGED\"", "public.u_id_seq\" does not exist"];
        assert!(is_announced.iter().any(|text| error.contains(text)), "{error}");
    }
}

fn shell(script: &str, folder: &Path, database: &Database) -> Command {
    let mut command = psql::tool("psql");
    let tools = Path::new(command.get_program()).parent().unwrap().to_owned();
    command = Command::new("sh");
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("PG") {
            command.env_remove(variable);
        }
    }
    let path = std::env::var("PATH").unwrap();
    command.arg("-c").arg(script).current_dir(folder);
    command.env("PATH", format!("{}:{path}", tools.display()));
    command
        .env("PGHOST", database.cluster().socket_dir())
        .env("PGPORT", database.cluster().port().to_string());
    command.env("PGUSER", "postgres");
    command
}

fn assert_restorable_by_hand(cluster: &Cluster, codec: &str) {
    let database = cluster.fresh_database("stock");
    fixtures::load_everything(&database);
    // Servers before 15 do not understand what a newer pg_dump writes for its identity column.
    database.psql(
        "CREATE UNLOGGED TABLE public.u (id int GENERATED ALWAYS AS IDENTITY (START 7 INCREMENT 3 MAXVALUE 999 CACHE 2 CYCLE), t text);
         INSERT INTO public.u (t) SELECT 'x' FROM generate_series(1, 20); COMMENT ON SEQUENCE public.u_id_seq IS 'it''s kept';
         GRANT USAGE ON SEQUENCE public.u_id_seq TO PUBLIC",
    );
    let snapshots = Snapshots::new();
    let id =
        snapshots.create(&database, &["--compress", codec, "--chunk-blocks", "4", "--piece-blocks", "1"]);
    let restored = format!("{}byhand", database.name());
    follow(&snapshots.folder_of(&id), &database, &restored);
    let stale = ["materialized view \"app.stale\""];
    fingerprint(&database)
        .without(&stale)
        .assert_same(&fingerprint_without(&cluster.url(&restored), &[]).without(&stale));
}

on_every_major! {
    fn the_readme_restores_a_gzip_snapshot_with_stock_tools_alone(cluster: &Cluster) {
        assert_restorable_by_hand(cluster, "gzip");
    }
}

#[test]
fn the_readme_restores_a_zstd_snapshot_with_stock_tools_alone() {
    assert!(
        Command::new("zstd").arg("--version").output().is_ok_and(|output| output.status.success()),
        "no zstd; run `scripts/setup` as root, or install your system's package zstd"
    );
    assert_restorable_by_hand(Cluster::shared(18), "zstd");
}

#[test]
fn the_readme_restores_an_uncompressed_snapshot_with_stock_tools_alone() {
    assert_restorable_by_hand(Cluster::shared(18), "none");
}

#[test]
fn settings_of_the_role_and_the_database_do_not_change_what_load_sh_loads() {
    let cluster = Cluster::shared(18);
    let database = cluster.fresh_database("pins");
    database.psql(
        "CREATE TABLE t (d date, i interval, m money, f float8, b bytea, ts timestamptz);
         INSERT INTO t VALUES ('2024-02-01', '-1 year 2 mons -3 days 04:05:06.7', 1234.5, 0.1::float8 + 0.2, '\\x00ff', '2024-10-27 02:30+01')",
    );
    let snapshots = Snapshots::new();
    let id = snapshots.create(&database, &["--compress", "gzip"]);
    let before = database.psql("SET TimeZone = 'UTC'; SELECT * FROM t");
    let restored = format!("{}byhand", database.name());
    cluster.psql(&format!(
        "CREATE DATABASE \"{restored}\" TEMPLATE template0;
         ALTER DATABASE \"{restored}\" SET DateStyle = 'SQL, DMY';
         ALTER DATABASE \"{restored}\" SET IntervalStyle = 'sql_standard';
         ALTER DATABASE \"{restored}\" SET statement_timeout = '1ms';
         ALTER DATABASE \"{restored}\" SET client_encoding = 'LATIN1'"
    ));
    let script = format!(
        "set -e; export PGDATABASE={restored} PGOPTIONS='-c statement_timeout=0'
         pg_restore --exit-on-error --section=pre-data --dbname={restored} schema.dump
         unset PGOPTIONS; sh load.sh"
    );
    let outcome = Outcome::of(&mut shell(&script, &snapshots.folder_of(&id), &database)).expect(0);
    assert_eq!(outcome.stdout, "", "load.sh says nothing");
    let after = psql::run(
        &cluster.url(&restored),
        "SET statement_timeout = 0; SET DateStyle = ISO; SET IntervalStyle = postgres; SET TimeZone = 'UTC'; SELECT * FROM t",
    );
    assert_eq!(after, before);
}

#[test]
fn load_sh_stops_at_a_damaged_file() {
    let database = Cluster::shared(18).fresh_database("damaged");
    database.psql("CREATE TABLE t AS SELECT i, md5(i::text) FROM generate_series(1, 5000) i");
    let snapshots = Snapshots::new();
    let id = snapshots.create(&database, &["--compress", "gzip"]);
    let chunk = &snapshots.chunks(&id)[0];
    let bytes = std::fs::read(chunk).unwrap();
    std::fs::write(chunk, &bytes[..bytes.len() - 20]).unwrap();
    let restored = format!("{}byhand", database.name());
    let script = format!(
        "set -e; export PGDATABASE={restored}; createdb -T template0 {restored} 2>/dev/null || \
         psql -X -q -d postgres -c 'CREATE DATABASE \"{restored}\"'
         pg_restore --exit-on-error --section=pre-data --dbname={restored} schema.dump
         sh load.sh"
    );
    let outcome = Outcome::of(&mut shell(&script, &snapshots.folder_of(&id), &database));
    assert_ne!(outcome.code, 0, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("could not decode data/"), "{}", outcome.stderr);
}
