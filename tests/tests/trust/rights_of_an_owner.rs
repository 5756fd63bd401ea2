//! The owner of a database who is no superuser has rights that are worth stealing too: on every table, schema and snapshot of the
//! application. Every command that he runs, on one database with a low role's code in every place where PostgreSQL evaluates some: it
//! runs as the low role, or not at all.

use tests::{Outcome, Planted, ProtectedRun, Snapshots, psql};

/// Gives everything but the planted schema to a role that may make databases and read all rows, and returns its name. As on managed
/// servers it may be a member of the roles of the application.
fn owner(run: &ProtectedRun, planted: &Planted, is_member: bool) -> String {
    let owner = format!("owns_{}", run.database.name());
    let (role, database) = (psql::quote_ident(&owner), psql::quote_ident(run.database.name()));
    run.database.psql(&format!(
        "CREATE ROLE {role} LOGIN CREATEDB BYPASSRLS; GRANT pg_read_all_data TO {role};
         ALTER DATABASE {database} OWNER TO {role}; ALTER SCHEMA public OWNER TO {role}; ALTER LARGE OBJECT 900001 OWNER TO {role};
         DO $$ DECLARE r record; BEGIN
           FOR r IN SELECT c.oid::regclass AS name, c.relkind FROM pg_class c WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' LOOP
             EXECUTE format('ALTER TABLE %s OWNER TO {role}', r.name);
           END LOOP;
           ALTER SEQUENCE tickets OWNER TO {role};
         END $$;
         ALTER SERVER planted_far OWNER TO {role}; GRANT USAGE ON FOREIGN SERVER planted_far TO {low}",
        low = psql::quote_ident(planted.role())
    ));
    if is_member {
        run.database.psql(&format!("GRANT {} TO {role}", psql::quote_ident(planted.role())));
    }
    owner
}

/// What it owns goes back, and it goes.
fn remove(run: &ProtectedRun, owner: &str) {
    let role = psql::quote_ident(owner);
    psql::run(
        &run.database.url(),
        &format!(
            "SET default_transaction_read_only = off; REASSIGN OWNED BY {role} TO postgres; DROP OWNED BY {role} CASCADE"
        ),
    );
    run.database.cluster().psql(&format!("DROP ROLE {role}"));
}

#[test]
fn every_command_of_a_databases_owner_runs_an_owners_code_as_its_owner() {
    for (major, is_member) in [(14, false), (14, true), (18, false), (18, true)] {
        let run = ProtectedRun::shop(major);
        let mut planted = Planted::plant(&run.database);
        let owner = owner(&run, &planted, is_member);
        let url = run.database.cluster().url_as(&owner, run.database.name());
        let at = format!("on {major}, {}", if is_member { "a member" } else { "no member" });
        let snapshots = Snapshots::new();
        let folder = run.folder().to_str().unwrap().to_owned();
        let (archive, file) = (format!("{folder}/it.tar"), format!("{folder}/it.sqlite3"));
        let into = format!("{}_into", run.database.name());
        planted.heard();
        for (code, program, arguments) in [
            (0, "backup", &["check"][..]),
            (0, "backup", &["create"]),
            (0, "backup", &["create", "--check-foreign-keys", "--full"]),
            (0, "backup", &["create", "--table", "planted.*"]),
            (0, "backup", &["schedule", "--once"]),
            (0, "backup", &["diff", "latest", &url]),
            (0, "backup", &["diff", &url, &url]),
            (0, "backup", &["export", "latest", "-o", &archive]),
            (0, "backup", &["export", "latest", "--sqlite", &file]),
            (3, "backup", &["drill", "latest"]),
            (3, "restore", &["latest", "--dry-run"]),
            (3, "restore", &["latest", "--into", &into]),
            (3, "restore", &["latest", "--replace", "-y"]),
            (0, "restore", &["latest", "--table", "orders", "--replace", "-y"]),
            (3, "restore", &["latest", "--table", "planted.whole", "--replace", "-y"]),
            (3, "restore", &["latest", "--table", "planted.t"]),
            (1, "restore", &["latest", "--table", "planted.parent", "--into", &into]),
        ] {
            let outcome = snapshots.run(program, &url, arguments);
            assert_eq!(outcome.code, code, "{program} {arguments:?} {at}: {outcome:?}");
            planted.ran_only_as_itself(&format!("{program} {arguments:?} {at}"));
            run.database
                .cluster()
                .psql(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", psql::quote_ident(&into)));
        }
        run.migration("1_add.sql", "ALTER TABLE public.orders ADD COLUMN c1 int;");
        let change = ["psql", "-X", "-v", "ON_ERROR_STOP=1", "-c", "UPDATE public.orders SET note = note"];
        let fails = [
            "psql",
            "-X",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            "DELETE FROM public.order_items",
            "-c",
            "SELECT 1/0",
        ];
        let safe_run = |arguments: &[&str]| {
            let mut command = run.command(arguments);
            command.env("DATABASE_URL", &url);
            Outcome::of(&mut command)
        };
        let in_vain = |flags: &[&'static str]| [flags, &["--"], &fails].concat();
        for (code, arguments) in [
            (0, vec!["plan"]),
            (0, vec!["check", "--level", "deep"]),
            (0, vec!["--level", "deep", "--fence", "none"]),
            (0, vec!["status"]),
            (0, vec!["history"]),
            (
                0,
                [&["--fence", "none", "--snapshot", "none", "--on-failure", "stop", "--"][..], &change]
                    .concat(),
            ),
            // An undo by file could not make everything again as this role.
            (3, in_vain(&["--fence", "none"])),
            (12, in_vain(&["--fence", "exclusive"])),
            (12, in_vain(&["--snapshot", "clone"])),
        ] {
            let outcome = safe_run(&arguments);
            assert_eq!(outcome.code, code, "safe-run {arguments:?} {at}: {outcome:?}");
            planted.ran_only_as_itself(&format!("safe-run {arguments:?} {at}"));
        }
        run.drop_others();
        planted.remove();
        remove(&run, &owner);
    }
}
