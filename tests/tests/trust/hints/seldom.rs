//! What seldom happens: a killed run and a damaged journal, databases of other encodings, locks that nobody waits for, and what a
//! role that may almost everything may not.

use super::steps::Step::{self, As, File, Hold, Plain, Release, Remove, Run, Server, Sql};

/// Runs that were killed, settings, folders and other encodings.
pub const SELDOM: &[Step] = &[
    Run(&["safe-run", "--config", "format.toml", "status"]),
    Run(&["safe-run", "-q"]),
    Run(&["safe-run", "stamp", "1"]),
    Run(&["safe-run", "--", "./lost"]),
    File("two/20240101_a/migration.sql", "SELECT 1;"),
    File("two/20240102_b/migration.sql", "SELECT 1;"),
    Run(&["safe-run", "--dir", "two", "--format", "prisma", "stamp", "2024"]),
    File("gm/1_a.up.sql", "SELECT 1;"),
    File(
        "sqlx.toml",
        "[migrate]\nignored-chars = [\"a\", \"b\", \"c\", \"d\", \"e\", \"f\", \"g\", \"h\", \"i\", \"j\", \"k\", \"l\", \"m\", \"n\", \"o\", \"p\", \"q\"]\n",
    ),
    Run(&["safe-run", "--dir", "gm", "--format", "sqlx", "status"]),
    Remove("sqlx.toml"),
    // A lock that the file does not wait for, where it can't be sent again.
    File(
        "migrations/2_b.sql",
        "-- safe-run: no-transaction\nDO $$BEGIN LOCK TABLE b IN ROW EXCLUSIVE MODE NOWAIT; END$$;",
    ),
    Hold("BEGIN; LOCK TABLE b IN SHARE MODE"),
    Run(&["safe-run", "--fence", "none"]),
    Release,
    Run(&["safe-run", "--fence", "none"]),
    Run(&["safe-run", "recover", "--keep", "-y"]),
    // A run that is killed before it has written a report.
    Run(&["SAFE_RUN_FAULT=safe-run.begun", "safe-run", "-q", "--", "true"]),
    Run(&["safe-run", "report"]),
    Run(&["safe-run", "recover", "--keep", "-y"]),
    // A scheduler elsewhere holds the database's lock.
    Hold("SELECT pg_advisory_lock(7089056601640820595)"),
    Run(&["backup", "schedule", "--once"]),
    Release,
    // Nothing is known of a run but that it was.
    File("migrations/2_b.sql", "CREATE TABLE z (i int);"),
    Run(&["SAFE_RUN_FAULT=safe-run.before-commit", "safe-run", "-q"]),
    Run(&["safe-run", "report", "{RUN}"]),
    File("snapshots/runs/{RUN}/journal.jsonl", "x\n"),
    Run(&["safe-run", "recover"]),
    Run(&["safe-run", "recover", "--keep", "-y"]),
    Server("CREATE DATABASE {DATABASE}_3 TEMPLATE template0 ENCODING LATIN1 LC_COLLATE 'C' LC_CTYPE 'C'"),
    File("latin3/1_a.sql", "CREATE TABLE a (i int PRIMARY KEY);"),
    Plain(&["safe-run", "-q", "-d", "{URL_3}", "--dir", "latin3"]),
    Plain(&["backup", "create", "-q", "-d", "{URL_3}"]),
    Run(&["backup", "diff", "{ID}", "{LAST}", "--table", "a"]),
    Server("DROP DATABASE {DATABASE}_3"),
];

/// A role that may make databases and roles, and is a member of two others.
pub const MIGHTY: &str = "
    CREATE ROLE {DATABASE}_a; CREATE ROLE {DATABASE}_b; CREATE ROLE {DATABASE}_s SUPERUSER;
    CREATE ROLE {DATABASE}_r LOGIN CREATEDB CREATEROLE; GRANT {DATABASE}_a, {DATABASE}_b TO {DATABASE}_r;
    CREATE TABLE a (i int); GRANT SELECT ON a TO {DATABASE}_r;
    CREATE SCHEMA s; GRANT USAGE, CREATE ON SCHEMA s TO {DATABASE}_a; CREATE TABLE s.o (i int); ALTER TABLE s.o OWNER TO {DATABASE}_a";

/// What it may not.
pub const LIMITS: &[Step] = &[
    Sql("REVOKE SELECT ON pg_catalog.pg_transform FROM PUBLIC"),
    As(&["backup", "create"]),
    Sql("GRANT SELECT ON pg_catalog.pg_transform TO PUBLIC"),
    Run(&["backup", "create", "-q"]),
    As(&["restore", "{ID}", "--into", "{DATABASE}_2", "--map-role", "{DATABASE}_a={DATABASE}_b"]),
    Sql("ALTER TABLE a OWNER TO {DATABASE}_s"),
    Run(&["backup", "create", "-q"]),
    Sql("ALTER TABLE a OWNER TO postgres"),
    Server("DROP ROLE {DATABASE}_s"),
    As(&["restore", "{LAST}", "--into", "{DATABASE}_2", "--create-roles"]),
    Server("ALTER DATABASE {DATABASE} OWNER TO {DATABASE}_r"),
    Sql("ALTER TABLE a OWNER TO {DATABASE}_r; ALTER SCHEMA public OWNER TO {DATABASE}_r"),
    File("migrations/1_a.sql", "CREATE ROLE hints_nobody SUPERUSER;"),
    As(&["safe-run", "-q"]),
    Hold("SELECT 1"),
    As(&["restore", "{ID}", "--replace", "-y", "--no-owner"]),
    Release,
    File("safe-run.toml", "lock-timeout = \"100ms\"\nlock-retries = 0\n"),
    Hold("BEGIN; LOCK TABLE a IN SHARE MODE"),
    Run(&["restore", "{ID}", "--table", "a", "--replace", "-y"]),
    Release,
    Server("ALTER DATABASE {DATABASE} OWNER TO postgres"),
    Server("REASSIGN OWNED BY {DATABASE}_r TO postgres; DROP OWNED BY {DATABASE}_r"),
    Sql("REASSIGN OWNED BY {DATABASE}_r, {DATABASE}_a TO postgres; DROP OWNED BY {DATABASE}_r, {DATABASE}_a"),
    Server("DROP ROLE {DATABASE}_r; DROP ROLE {DATABASE}_a; DROP ROLE {DATABASE}_b"),
];
