//! Writes one row into every table of a database, as an application would after a restore, and says what came of it.

/// A script for psql that prints `table|outcome`: what two equal databases must both print.
///
/// A row of defaults; where a column without one refuses that, a copy of the first row in those columns, with an x behind
/// texts, which are often unique. An outcome is the
/// SQLSTATE of the refusal, or the values that sequences gave to the new row's columns, each with whether it is beyond
/// every value that was there. Triggers, identities and deferred constraints act; partitions are written through their root.
pub const ONE_ROW_INTO_EVERY_TABLE: &str = r#"
SET search_path = pg_catalog;
CREATE TEMP TABLE written (name text, outcome text);
DO $$
DECLARE
    r record; c record; plain text; copied text; answer jsonb; outcome text; state text; beyond text;
BEGIN
    FOR r IN SELECT k.oid, format('%I.%I', n.nspname, k.relname) AS name
               FROM pg_class k JOIN pg_namespace n ON n.oid = k.relnamespace
              WHERE k.relkind IN ('r', 'p') AND NOT k.relispartition
                AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_'
              ORDER BY n.nspname COLLATE "C", k.relname COLLATE "C"
    LOOP
        SELECT string_agg(format('%I', a.attname), ', ' ORDER BY a.attname COLLATE "C"),
               string_agg(format(CASE a.atttypid WHEN 'text'::regtype THEN '%I || ''x''' ELSE '%I' END, a.attname), ', ' ORDER BY a.attname COLLATE "C")
          INTO plain, copied FROM pg_attribute a
         WHERE a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped AND NOT a.atthasdef AND a.attidentity = '';
        CREATE TEMP TABLE tops ON COMMIT DROP AS SELECT ''::text AS name, 0::numeric AS top WITH NO DATA;
        FOR c IN SELECT a.attname FROM pg_attribute a WHERE a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
                  AND a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)
                  AND pg_get_serial_sequence(r.name, a.attname) IS NOT NULL
        LOOP
            EXECUTE format('INSERT INTO tops SELECT %L, max(%I) FROM %s', c.attname, c.attname, r.name);
        END LOOP;
        BEGIN
            BEGIN
                EXECUTE format('INSERT INTO %s AS "the row" DEFAULT VALUES RETURNING to_jsonb("the row")', r.name) INTO answer;
            EXCEPTION WHEN not_null_violation OR check_violation THEN
                EXECUTE format('INSERT INTO %s AS "the row" (%s) SELECT %s FROM %s AS "first" ORDER BY "first"::text COLLATE "C" LIMIT 1
                                RETURNING to_jsonb("the row")', r.name, plain, copied, r.name) INTO answer;
            END;
            SET CONSTRAINTS ALL IMMEDIATE;
            SELECT string_agg(format(' %s=%s %s', t.name, answer->>t.name,
                       CASE WHEN (answer->>t.name)::numeric > coalesce(t.top, '-Infinity') THEN 'beyond' ELSE 'not beyond' END), ''
                       ORDER BY t.name COLLATE "C") INTO beyond FROM tops t;
            outcome := CASE WHEN answer IS NULL THEN 'no row' ELSE 'written' END || coalesce(beyond, '');
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE;
            outcome := 'refused ' || state;
        END;
        SET CONSTRAINTS ALL DEFERRED;
        DROP TABLE tops;
        INSERT INTO written VALUES (r.name, outcome);
    END LOOP;
END $$;
SELECT name, outcome FROM written ORDER BY name COLLATE "C";
"#;
