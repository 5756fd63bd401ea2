//! `public` stands in everybody's path, and so does the schema that has the session's own name. `pg_catalog` comes before both, but PostgreSQL
//! takes what matches the arguments best, wherever it is: a function for `name` is nearer to our question about a `name` than one for `text`
//! that has to convert. So nothing of ours may leave out where a function or operator is.

use tests::{ProtectedRun, Snapshots, psql};

/// One for each pair of usual types for which PostgreSQL itself has none, of the names that questions use.
const OVERLOADS: &str = r#"
CREATE FUNCTION $OPERATORS.tells(what text) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
  RAISE LOG 'overload of % used in $DATABASE by %', what, current_user; RETURN true; END $$;
GRANT EXECUTE ON FUNCTION $OPERATORS.tells(text) TO PUBLIC;
DO $do$ DECLARE t text; u text; name text; function text; type text;
  types text[] := ARRAY['name', 'text', 'varchar', '"char"', 'oid', 'int4', 'text[]'];
BEGIN
  FOREACH t IN ARRAY types LOOP
    FOREACH u IN ARRAY types LOOP
      function := 'of_' || md5(t || ',' || u);
      EXECUTE format('CREATE FUNCTION $OPERATORS.%I(%s, %s) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $f$ BEGIN
        RETURN $OPERATORS.tells(%L); END $f$', function, t, u, 'an operator for ' || t || ' and ' || u);
      FOREACH name IN ARRAY ARRAY['=', '<>', '<', '>', '<=', '>=', '||', '~', '!~', '~~', '!~~', '+', '-', '*', '/', '%', '@>', '<@', '&&', '->', '->>'] LOOP
        CONTINUE WHEN EXISTS (SELECT FROM pg_operator o WHERE o.oprname = name AND o.oprleft = t::regtype AND o.oprright = u::regtype);
        EXECUTE format('CREATE OPERATOR $OPERATORS.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = $OPERATORS.%I)', name, t, u, function);
      END LOOP;
    END LOOP;
  END LOOP;
  FOR name, type IN SELECT p.proname, min(p.prorettype::regtype::text) FROM pg_proc p
    WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prorettype NOT IN (SELECT oid FROM pg_type WHERE typtype = 'p')
      AND p.proname = ANY (ARRAY['format', 'concat', 'quote_ident', 'quote_literal', 'length', 'lower', 'upper', 'starts_with', 'left', 'right', 'substr',
        'replace', 'array_to_string', 'string_to_array', 'has_table_privilege', 'has_schema_privilege', 'has_database_privilege', 'pg_has_role', 'to_regclass',
        'to_regtype', 'current_setting', 'set_config', 'count', 'max', 'min', 'sum', 'bool_and', 'bool_or', 'string_agg', 'md5', 'encode', 'convert_to',
        'array_position', 'array_length', 'cardinality', 'to_json', 'to_jsonb', 'row_to_json', 'pg_get_userbyid', 'pg_get_expr', 'pg_get_constraintdef',
        'pg_get_indexdef', 'pg_get_viewdef', 'pg_get_functiondef', 'obj_description', 'col_description', 'shobj_description', 'pg_describe_object',
        'nextval', 'setval', 'pg_relation_size', 'pg_total_relation_size', 'pg_table_size', 'pg_database_size', 'age', 'text', 'int4', 'int8', 'oid', 'name', 'varchar',
        'coalesce', 'pg_terminate_backend', 'pg_advisory_lock', 'pg_try_advisory_lock', 'hashtext', 'txid_status', 'pg_table_is_visible', 'pg_encoding_to_char'])
    GROUP BY 1 LOOP
    FOREACH t IN ARRAY types LOOP
      FOREACH u IN ARRAY ARRAY['', ', name', ', text', ', varchar'] LOOP
        CONTINUE WHEN to_regprocedure(format('pg_catalog.%I(%s%s)', name, t, u)) IS NOT NULL;
        EXECUTE format('CREATE FUNCTION $FUNCTIONS.%I(%s%s) RETURNS %s LANGUAGE plpgsql AS $f$ BEGIN
          PERFORM $OPERATORS.tells(%L); RETURN NULL; END $f$', name, t, u, type, 'the function ' || name || '(' || t || u || ')');
      END LOOP;
    END LOOP;
  END LOOP;
END $do$;
"#;

#[test]
fn nothing_that_matches_better_than_what_postgresql_brought_is_used() {
    for (major, functions, operators) in [(14, "public", "\"$user\""), (18, "\"$user\"", "public")] {
        let run = ProtectedRun::shop(major);
        let (cluster, name) = (run.database.cluster(), run.database.name());
        let role = format!("low_{name}");
        let low = psql::quote_ident(&role);
        run.database.psql(&format!(
            "CREATE ROLE {low} LOGIN; CREATE SCHEMA postgres AUTHORIZATION {low}; GRANT USAGE ON SCHEMA postgres TO PUBLIC;
             GRANT CREATE ON SCHEMA public TO {low}; ALTER SEQUENCE tickets RESTART 500"
        ));
        let schema = |of: &str| of.replace("\"$user\"", "postgres");
        let overloads = OVERLOADS
            .replace("$DATABASE", name)
            .replace("$FUNCTIONS", &schema(functions))
            .replace("$OPERATORS", &schema(operators));
        psql::run(&cluster.url_as(&role, name), &overloads);
        let used = |since: usize| -> Vec<String> {
            let end = format!(" used in {name} by postgres");
            let lines = cluster.log()[since..].to_owned();
            lines.lines().filter(|line| line.ends_with(&end)).map(str::to_owned).collect()
        };
        let since = cluster.log().len();
        run.database.psql("SELECT relname = 'x'::varchar FROM pg_class LIMIT 1; SELECT length(relname) FROM pg_class LIMIT 1");
        let seen = used(since);
        for overload in ["an operator for name and varchar", "the function length(name)"] {
            assert!(
                seen.iter().any(|line| line.contains(overload)),
                "{overload} is not seen on {major}: {seen:?}"
            );
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
        let folder = run.folder().to_str().unwrap().to_owned();
        let (archive, file) = (format!("{folder}/it.tar"), format!("{folder}/it.sqlite3"));
        let (into, alone) = (format!("{name}_into"), format!("{name}_alone"));
        for (program, arguments, code) in [
            ("backup", &["check"][..], 0),
            ("backup", &["create", "--check-foreign-keys"], 0),
            ("backup", &["create", "--table", "orders"], 0),
            ("backup", &["schedule", "--once", "--keep-last", "9"], 0),
            ("backup", &["diff", "latest", &url], 0),
            ("backup", &["diff", &url, &url], 0),
            ("backup", &["verify", "latest"], 0),
            ("backup", &["drill", "latest"], 0),
            ("backup", &["export", "latest", "-o", &archive], 0),
            ("backup", &["export", "latest", "--sqlite", &file, "--table", "orders"], 0),
            ("backup", &["diff", &file, &url, "--table", "orders"], 0),
            ("restore", &["latest", "--dry-run"], 0),
            ("restore", &[&archive, "--into", &into], 0),
            ("restore", &["latest", "--table", "orders", "--into", &alone], 0),
            ("restore", &["latest", "--table", "audit"], 0),
            ("restore", &["latest", "--table", "audit", "--replace", "-y"], 0),
            ("restore", &["latest", "--replace", "-y", "--drop-replaced"], 0),
        ] {
            let since = cluster.log().len();
            snapshots.run(program, &url, arguments).expect(code);
            look(since, format!("{program} {arguments:?}"));
        }
        let safe_run = |arguments: &[&str], code: i32| {
            let since = cluster.log().len();
            run.run(arguments).exits(code);
            look(since, format!("safe-run {arguments:?}"));
        };
        let change = [
            "psql",
            "-X",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            "SET search_path = pg_catalog; UPDATE public.orders SET note = note",
        ];
        let fails = [
            "psql",
            "-X",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            "DELETE FROM public.order_items",
            "-c",
            "SELECT pg_catalog.int4div(1, 0)",
        ];
        run.migration("1_more.sql", "ALTER TABLE public.orders ADD COLUMN more int;");
        safe_run(&["plan"], 0);
        safe_run(&["check", "--level", "deep"], 0);
        safe_run(&["--level", "deep"], 0);
        run.migration("2_much.sql", "ALTER TABLE public.orders ADD COLUMN much int;");
        safe_run(&["--tx", "file", "--snapshot", "file", "--fence", "exclusive"], 0);
        run.migration(
            "3_alone.sql",
            "-- safe-run: no-transaction\nCREATE INDEX CONCURRENTLY ON public.orders (more);",
        );
        safe_run(&["--snapshot", "clone", "--fence", "read-only"], 0);
        run.migration(
            "4_fails.sql",
            "SELECT pg_catalog.setval('public.tickets', 1); SELECT pg_catalog.int4div(1, 0);",
        );
        safe_run(&["--fence", "none"], 10);
        safe_run(&["--fence", "lock"], 10);
        safe_run(&["stamp", "4", "-y"], 0);
        for (options, command, code) in [
            (&["--snapshot", "file"][..], &change[..], 0),
            (&["--snapshot", "file", "--fence", "exclusive"], &fails, 12),
            (&["--snapshot", "clone"], &fails, 12),
            (&["--hold-fence"], &change, 0),
        ] {
            safe_run(&[options, &["--"], command].concat(), code);
        }
        safe_run(&["release"], 0);
        for (point, options, recover) in [
            ("safe-run.applied", &["--snapshot", "file"][..], &["recover"][..]),
            ("safe-run.applied", &["--snapshot", "clone"], &["recover", "--keep"]),
            ("safe-run.applied", &["--snapshot", "file", "--fence", "none"], &["recover", "--undo"]),
        ] {
            let since = cluster.log().len();
            run.crash(point, &[options, &["--"], &change].concat());
            run.run(recover).exits(0);
            look(since, format!("{options:?}, killed at {point}, and {recover:?}"));
        }
        for arguments in [&["status"][..], &["history"], &["report"], &["repair"], &["plan"]] {
            safe_run(arguments, 0);
        }
        assert!(all.borrow().is_empty(), "on {major}: {:#?}", all.borrow());
        run.drop_others();
        psql::run(
            &cluster.url(name),
            &format!(
                "SET search_path = pg_catalog; SET default_transaction_read_only = off; DROP OWNED BY {low} CASCADE"
            ),
        );
        cluster.psql(&format!("DROP ROLE {low}"));
    }
}
