//! Who owns a database sets its `search_path`, and may put a schema of his before `pg_catalog`. Whatever a name means there, none of ours is looked
//! up in it: no operator, function, type or table.

use tests::{ProtectedRun, Snapshots, psql};

/// One of the same name for nearly everything that PostgreSQL brings, which tells the server's log as whom it is used and does the same.
const SHADOWS: &str = r#"
CREATE FUNCTION shadows.tells(what text) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
  RAISE LOG 'shadow of % used in $DATABASE by %', what, current_user; RETURN true; END $$;
DO $do$ DECLARE r record; BEGIN
  FOR r IN SELECT p.proname, pg_get_function_identity_arguments(p.oid) AS arguments, p.prorettype::regtype AS type,
      (SELECT string_agg('$' || n, ', ') FROM generate_series(1, p.pronargs) n) AS values FROM pg_proc p
    WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND NOT p.proretset AND p.provariadic = 0 AND p.proargmodes IS NULL
      AND p.prorettype NOT IN (SELECT oid FROM pg_type WHERE typtype = 'p') AND NOT p.proargtypes::oid[] && ARRAY(SELECT oid FROM pg_type WHERE typtype = 'p') LOOP
    EXECUTE format('CREATE OR REPLACE FUNCTION shadows.%I(%s) RETURNS %s LANGUAGE plpgsql AS $f$ BEGIN PERFORM shadows.tells(%L); RETURN pg_catalog.%I(%s); END $f$',
      r.proname, r.arguments, r.type, 'the function ' || r.proname, r.proname, r.values);
  END LOOP;
  FOR r IN SELECT o.oid, o.oprname, o.oprleft::regtype AS left, o.oprright::regtype AS right, o.oprresult::regtype AS type FROM pg_operator o
    WHERE o.oprnamespace = 'pg_catalog'::regnamespace AND o.oprleft <> 0 LOOP
    EXECUTE format('CREATE FUNCTION shadows.of_%s(%s, %s) RETURNS %s LANGUAGE plpgsql IMMUTABLE AS $f$ BEGIN
        PERFORM shadows.tells(%L); RETURN $1 OPERATOR(pg_catalog.%s) $2; END $f$; CREATE OPERATOR shadows.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = shadows.of_%s)',
      r.oid, r.left, r.right, r.type, 'the operator ' || r.oprname, r.oprname, r.oprname, r.left, r.right, r.oid);
  END LOOP;
  FOR r IN SELECT relname FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind IN ('r', 'v')
      AND relname NOT IN ('pg_attribute', 'pg_statistic', 'pg_stats', 'pg_stats_ext', 'pg_stats_ext_exprs', 'pg_statistic_ext_data') LOOP
    EXECUTE format('CREATE VIEW shadows.%I AS SELECT * FROM pg_catalog.%I WHERE shadows.tells(%L)', r.relname, r.relname, 'the table ' || r.relname);
    EXECUTE format('GRANT SELECT ON shadows.%I TO PUBLIC', r.relname);
  END LOOP;
  FOR r IN SELECT typname FROM pg_catalog.pg_type WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype = 'b' AND typelem = 0 LOOP
    EXECUTE format('CREATE DOMAIN shadows.%I AS pg_catalog.%I CHECK (shadows.tells(%L))', r.typname, r.typname, 'the type ' || r.typname);
  END LOOP;
END $do$;
"#;

#[test]
fn no_name_is_looked_up_in_a_path_that_others_set() {
    for major in [14, 18] {
        let run = ProtectedRun::shop(major);
        let (cluster, name) = (run.database.cluster(), run.database.name());
        let low = psql::quote_ident(&format!("low_{name}"));
        run.database.psql(&format!(
            "CREATE ROLE {low} LOGIN; CREATE SCHEMA shadows AUTHORIZATION {low}; GRANT USAGE ON SCHEMA shadows TO PUBLIC;
             ALTER DATABASE {} OWNER TO {low}; ALTER SEQUENCE tickets RESTART 500",
            psql::quote_ident(name)
        ));
        let as_low = cluster.url_as(&format!("low_{name}"), name);
        psql::run(&as_low, &SHADOWS.replace("$DATABASE", name));
        psql::run(
            &as_low,
            &format!(
                "ALTER DATABASE {} SET search_path = shadows, pg_catalog, public",
                psql::quote_ident(name)
            ),
        );
        let used = |since: usize| -> Vec<String> {
            let end = format!(" used in {name} by postgres");
            let lines = cluster.log()[since..].to_owned();
            lines.lines().filter(|line| line.ends_with(&end)).map(str::to_owned).collect()
        };
        let since = cluster.log().len();
        run.database.psql("SELECT now()::text = 'x' FROM pg_class LIMIT 1");
        for shadow in ["function now", "operator =", "table pg_class", "type text"] {
            assert!(used(since).iter().any(|line| line.contains(shadow)), "{shadow} is not seen on {major}");
        }
        let url = run.database.url();
        let all = std::cell::RefCell::new(Vec::new());
        let look = |since: usize, after: String| {
            let used = used(since);
            if !used.is_empty() {
                all.borrow_mut().push((after, used));
            }
        };
        let snapshots = Snapshots::new();
        let into = format!("{name}_into");
        let commands = [
            ("backup", &["check"][..]),
            ("backup", &["create", "--check-foreign-keys"]),
            ("backup", &["diff", "latest", &url]),
            ("restore", &["latest", "--into", &into]),
            ("restore", &["latest", "--table", "public.audit", "--replace", "-y"]),
        ];
        // What they ask does not depend on the server; what a run asks in the session of the migrations does.
        for (program, arguments) in commands.into_iter().filter(|_| major == 18) {
            let since = cluster.log().len();
            snapshots.run(program, &url, arguments).expect(0);
            look(since, format!("{program} {arguments:?}"));
        }
        let safe_run = |arguments: &[&str], code: i32| {
            let since = cluster.log().len();
            run.run(arguments).exits(code);
            look(since, format!("safe-run {arguments:?}"));
        };
        safe_run(&["check", "--level", "deep"], 0);
        run.migration("1_more.sql", "ALTER TABLE public.orders ADD COLUMN more int;");
        safe_run(&["--level", "deep"], 0);
        run.migration("2_much.sql", "ALTER TABLE public.orders ADD COLUMN much int;");
        safe_run(&["--tx", "file", "--snapshot", "file"], 0);
        run.migration(
            "3_alone.sql",
            "-- safe-run: no-transaction\nCREATE INDEX CONCURRENTLY ON public.orders (more);",
        );
        safe_run(&["--snapshot", "none", "--on-failure", "stop"], 0);
        run.migration(
            "4_fails.sql",
            "SELECT pg_catalog.setval('public.tickets', 1); SELECT pg_catalog.int4div(1, 0);",
        );
        safe_run(&["--fence", "none"], 10);
        safe_run(&["stamp", "4", "-y"], 0);
        assert!(all.borrow().is_empty(), "on {major}: {:#?}", all.borrow());
        for database in run.database.family() {
            psql::run(
                &cluster.url(&database),
                &format!(
                    "SET search_path = pg_catalog; SET default_transaction_read_only = off; DROP OWNED BY {low} CASCADE"
                ),
            );
        }
        cluster.psql(&format!("ALTER DATABASE {} OWNER TO postgres", psql::quote_ident(name)));
        for database in run.database.family().into_iter().filter(|database| database != name) {
            cluster.psql(&format!("DROP DATABASE {} WITH (FORCE)", psql::quote_ident(&database)));
        }
        cluster.psql(&format!("DROP ROLE {low}"));
    }
}
