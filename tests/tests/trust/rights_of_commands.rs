//! Every command that `rights.rs` and `owners_code.rs` do not have, run by a superuser on one database with a low role's code in
//! every place where PostgreSQL evaluates some: it runs as its owner, or not at all.

// The helpers of tests are tests too; clippy.toml covers only the functions marked as such.
#![allow(clippy::unwrap_used)]

use tests::{Outcome, Planted, ProtectedRun, Snapshots, psql};

/// The oldest and the newest server, and the next one where it is to be had.
fn ends() -> Vec<u32> {
    tests::cluster::majors().into_iter().filter(|major| [14, 18, 19].contains(major)).collect()
}

/// Makes a SQLite file by Python's own library.
fn sqlite(run: &ProtectedRun, name: &str, sql: &str) -> String {
    let path = run.folder().join(name);
    let code = "import sqlite3,sys\nc=sqlite3.connect(sys.argv[1])\nc.executescript(sys.argv[2])\nc.commit()";
    let mut python = std::process::Command::new("python3");
    python.args(["-c", code]).arg(&path).arg(sql);
    psql::succeed(python);
    path.to_str().unwrap().to_owned()
}

/// Commands of `backup` and `restore`, with the code that they end with.
#[test]
fn backup_and_restore_run_nothing_of_the_tables_owners_in_any_command() {
    for major in ends() {
        let run = ProtectedRun::shop(major);
        let mut planted = Planted::plant(&run.database);
        let url = run.database.url();
        let snapshots = Snapshots::new();
        let first = snapshots.create(&run.database, &[]);
        run.database.psql("UPDATE orders SET total = total + 1");
        planted.heard();
        let folder = run.folder().to_str().unwrap().to_owned();
        let (archive, file) = (format!("{folder}/it.tar"), format!("{folder}/it.sqlite3"));
        let (into, alone, mapped) = (
            format!("{}_into", run.database.name()),
            format!("{}_alone", run.database.name()),
            format!("{}_mapped", run.database.name()),
        );
        let role = planted.role().to_owned();
        let other = format!("{role}_other");
        run.database.psql(&format!("CREATE ROLE {}", psql::quote_ident(&other)));
        let map = format!("{role}={other}");
        for (program, arguments, code) in [
            ("backup", &["schedule", "--once", "--keep-last", "5"][..], 0),
            ("backup", &["check"], 0),
            ("backup", &["diff", &first, &url], 1),
            ("backup", &["diff", &url, &first], 1),
            ("backup", &["diff", &url, &url], 0),
            ("backup", &["diff", &first, "latest"], 1),
            ("backup", &["export", "latest", "-o", &archive], 0),
            ("backup", &["export", &first, "--sqlite", &file], 0),
            ("backup", &["diff", &file, &url], 1),
            ("backup", &["drill", &first], 0),
            ("backup", &["prune", "--keep-last", "5"], 0),
            ("backup", &["pin", &first], 0),
            ("backup", &["unpin", &first], 0),
            ("backup", &["delete", "-y", &first], 0),
            ("backup", &["undelete"], 0),
            ("restore", &["latest", "--table", "orders", "--into", &alone], 0),
            ("restore", &[&archive, "--dry-run"], 0),
            ("restore", &[&archive, "--into", &into], 0),
            ("restore", &["latest", "--replace", "-y", "--drop-replaced"], 0),
        ] {
            let outcome = snapshots.run(program, &url, arguments);
            assert_eq!(outcome.code, code, "{program} {arguments:?} on {major}: {outcome:?}");
            planted.ran_only_as_itself(&format!("{program} {arguments:?} on {major}"));
        }
        // Whoever takes a role's place is its code's owner then.
        let taken = ["latest", "--into", &mapped, "--map-role", &map];
        snapshots.run("restore", &url, &taken).expect(0);
        let (_, strange) = planted.heard_apart();
        for (place, roles) in strange {
            assert!(
                !roles.contains(&"postgres".to_owned()),
                "{place} as {roles:?} after {taken:?} on {major}"
            );
        }
        for name in [&into, &alone, &mapped] {
            run.database.cluster().psql(&format!("DROP DATABASE {} WITH (FORCE)", psql::quote_ident(name)));
        }
        planted.remove();
        run.database.cluster().psql(&format!("DROP ROLE {}", psql::quote_ident(&other)));
    }
}

/// Commands of `safe-run`, behind every fence, killed and recovered.
#[test]
fn safe_run_runs_an_owners_code_as_the_owner_in_every_command() {
    for major in ends() {
        let run = ProtectedRun::shop(major);
        let mut planted = Planted::plant(&run.database);
        let url = run.database.url();
        run.file("verify/1_orders.sql", "SELECT * FROM orders WHERE total < 0");
        let change = ["psql", "-X", "-v", "ON_ERROR_STOP=1", "-c", "UPDATE orders SET note = note"];
        let fails =
            ["psql", "-X", "-v", "ON_ERROR_STOP=1", "-c", "DELETE FROM order_items", "-c", "SELECT 1/0"];
        let migrations = [
            &["--verify", "verify"][..],
            &["--fence", "exclusive"],
            &["--fence", "exclusive", "--tx", "file", "--verify", "verify"],
            &["--fence", "read-only", "--tx", "file"],
            &["--fence", "lock"],
            &["--fence", "none"],
        ];
        for (number, arguments) in migrations.iter().enumerate() {
            run.migration(
                &format!("{number}_add.sql"),
                &format!("ALTER TABLE orders ADD COLUMN c{number} int;"),
            );
            run.run(arguments).exits(0);
            planted.ran_only_as_itself(&format!("safe-run {arguments:?} on {major}"));
        }
        for (options, command, code) in [
            (&["--fence", "exclusive", "--verify", "verify"][..], &change[..], 0),
            (&["--fence", "exclusive"], &fails, 12),
            (&["--fence", "exclusive", "--snapshot", "clone"], &fails, 12),
            (&["--fence", "read-only", "--hold-fence"], &change, 0),
        ] {
            run.run(&[options, &["--"], command].concat()).exits(code);
            planted.ran_only_as_itself(&format!("safe-run {options:?} -- {command:?} on {major}"));
        }
        run.run(&["release"]).exits(0);
        planted.ran_only_as_itself(&format!("release on {major}"));
        for (point, options, recover) in [
            ("safe-run.applying", &["--snapshot", "file"][..], &["recover"][..]),
            ("safe-run.applied", &["--snapshot", "clone"], &["recover"]),
            ("safe-run.applied", &["--snapshot", "file", "--fence", "exclusive"], &["recover"]),
            ("safe-run.applied", &["--snapshot", "file"], &["recover", "--keep"]),
            ("safe-run.applied", &["--snapshot", "file", "--fence", "none"], &["recover", "--undo"]),
        ] {
            run.crash(point, &[options, &["--"], &change].concat());
            planted.ran_only_as_itself(&format!("{options:?}, killed at {point} on {major}"));
            run.run(recover).exits(0);
            planted.ran_only_as_itself(&format!("{recover:?} of {options:?} on {major}"));
        }
        for arguments in [&["history"][..], &["report"], &["check", "--list"], &["repair"], &["new", "more"]]
        {
            run.run(arguments).exits(0);
            planted.ran_only_as_itself(&format!("safe-run {arguments:?} on {major}"));
        }
        assert!(Outcome::of(&mut run.command(&["check", "-d", &url, "--only", "views"])).code >= 0);
        planted.ran_only_as_itself("check --only views");
        planted.remove();
    }
}

/// An import is an INSERT of our own: into a table of another role it would run what that calls, for a dry run already.
#[test]
fn an_import_runs_nothing_of_another_role_or_is_refused_before_anything() {
    for major in ends() {
        let run = ProtectedRun::shop(major);
        let mut planted = Planted::plant(&run.database);
        let role = psql::quote_ident(planted.role());
        run.database.psql(&format!(
            "CREATE SEQUENCE public.not_his; GRANT USAGE ON SEQUENCE public.not_his TO {role}"
        ));
        planted.psql(
            "SET planted.quiet = on;
            CREATE TABLE planted.fruits (id int PRIMARY KEY, name text CHECK (name <> ''), made timestamptz DEFAULT now(),
              number serial, uid uuid DEFAULT gen_random_uuid(), day date DEFAULT CURRENT_DATE, least int DEFAULT GREATEST(1, 2),
              label text DEFAULT format('%s-%s', to_char(now(), 'YYYY'), md5(random()::text)), list int[] DEFAULT ARRAY[1, 2],
              document jsonb DEFAULT jsonb_build_object('a', 1), given planted.span DEFAULT '[1,2]');
            CREATE TABLE planted.by_default (id int PRIMARY KEY, n int DEFAULT planted.number('default of an import'));
            CREATE TABLE planted.reads (id int PRIMARY KEY, n text DEFAULT pg_read_file('PG_VERSION'));
            CREATE DOMAIN planted.given_word AS int DEFAULT planted.number('default of a domain');
            CREATE TABLE planted.by_domain (id int PRIMARY KEY, n planted.given_word);
            CREATE DOMAIN planted.checked AS text CHECK (planted.say('domain within a default'));
            CREATE TABLE planted.by_cast (id int PRIMARY KEY, n text DEFAULT ('x'::planted.checked)::text);
            CREATE TABLE planted.by_array (id int PRIMARY KEY, n text DEFAULT (string_to_array('y', ',')::planted.element[])::text);
            CREATE TABLE planted.by_row (id int PRIMARY KEY, n text DEFAULT (CAST(concat('(z)') AS planted.row))::text);
            CREATE TABLE planted.as_json (id int PRIMARY KEY, n text DEFAULT to_jsonb('good'::planted.mood)::text);
            CREATE TABLE planted.as_word (id int PRIMARY KEY, n text DEFAULT 'x' || 'good'::planted.mood);
            CREATE TABLE planted.populates (id int PRIMARY KEY,
              n text DEFAULT (jsonb_populate_record(NULL::planted.row, '{\"field\": \"x\"}')).field);
            CREATE TABLE planted.asks (id int PRIMARY KEY, n text DEFAULT query_to_xml('SELECT 1', true, true, '')::text);
            CREATE TABLE planted.ranges (id int PRIMARY KEY, n planted.span);
            CREATE INDEX ranges_n ON planted.ranges USING gist (n);
            CREATE TABLE planted.numbered (id int PRIMARY KEY, n int DEFAULT nextval('public.not_his'));
            CREATE TABLE planted.tells (id int PRIMARY KEY, n text DEFAULT current_setting('primary_conninfo'));
            CREATE TABLE planted.later (id int PRIMARY KEY, made timestamptz DEFAULT now() + interval '1 day') PARTITION BY RANGE (id);
            CREATE TABLE planted.late PARTITION OF planted.later FOR VALUES FROM (1) TO (100);
            CREATE TRIGGER t BEFORE UPDATE ON planted.late FOR EACH ROW EXECUTE FUNCTION planted.fires();
            CREATE TRIGGER s BEFORE INSERT ON planted.late EXECUTE FUNCTION planted.fires();
            CREATE TABLE planted.heir_of () INHERITS (planted.fruits);
            CREATE TABLE planted.stays (id int PRIMARY KEY);
            CREATE TABLE planted.heir_of_stays () INHERITS (planted.stays);
            CREATE TRIGGER t BEFORE TRUNCATE ON planted.heir_of_stays EXECUTE FUNCTION planted.fires();
            CREATE TRIGGER t BEFORE TRUNCATE ON planted.heir_of EXECUTE FUNCTION planted.fires();
            CREATE TABLE planted.with_partial (id int PRIMARY KEY);
            CREATE INDEX ON planted.with_partial (id) WHERE planted.say('partial index of an import');
            CREATE TABLE planted.fired (id int PRIMARY KEY);
            CREATE TRIGGER t BEFORE INSERT ON planted.fired FOR EACH ROW EXECUTE FUNCTION planted.fires();
            CREATE TABLE planted.parts (id int PRIMARY KEY) PARTITION BY RANGE (id);
            CREATE TABLE planted.part PARTITION OF planted.parts FOR VALUES FROM (1) TO (100);
            CREATE TRIGGER t BEFORE INSERT ON planted.part FOR EACH ROW EXECUTE FUNCTION planted.fires()",
        );
        run.database.psql(
            "SET planted.quiet = on;
            CREATE TABLE ours_plain (id int PRIMARY KEY);
            CREATE TABLE ours_default (id int PRIMARY KEY, n int DEFAULT planted.number('default of ours'));
            CREATE TABLE ours_check (id int PRIMARY KEY CHECK (planted.say('check of ours')))",
        );
        run.database.psql(&format!(
            "GRANT USAGE ON SCHEMA public TO {role}; REVOKE ALL ON SEQUENCE public.not_his FROM {role}"
        ));
        planted.heard();
        let import = |table: &str, columns: &str, more: &[&str]| {
            let name = table.rsplit('.').next().unwrap();
            let sql = format!("CREATE TABLE {name} ({columns}); INSERT INTO {name} (id) VALUES (50)");
            let file = sqlite(&run, &format!("{name}.db"), &sql);
            let map = format!("{name}={table}");
            let ended = run.run(&[&["import", &file, "--map", &map, "--append"], more].concat());
            std::fs::remove_file(&file).unwrap();
            ended
        };
        let id = "id INTEGER PRIMARY KEY";
        for (table, says) in [
            ("planted.whole", "what its rules call"),
            ("planted.t", "planted.t: "),
            ("planted.parent", "planted.parent: "),
            ("planted.by_default", "the default of n calls planted.number(text)"),
            ("planted.reads", "the default of n calls pg_read_file(text)"),
            ("planted.by_domain", "the default of n calls planted.number(text)"),
            ("planted.by_cast", "the default of n calls planted.say(text)"),
            ("planted.tells", "the default of n calls current_setting(text)"),
            ("planted.with_partial", "planted.say(text)"),
            (
                "planted.parts",
                "planted.part (a partition of planted.parts): the trigger t calls planted.fires()",
            ),
            ("ours_default", "the default of n calls planted.number(text)"),
            ("ours_check", "planted.say(text)"),
        ] {
            let before = run.database.psql(&format!("SET planted.quiet = on; SELECT count(*) FROM {table}"));
            for more in [&["--dry-run"][..], &[]] {
                let at = format!("import into {table} {more:?} on {major}");
                let ended = import(table, id, more).exits(3).says(says).says("--run-owners-code");
                assert!(ended.stderr.contains("not changed"), "{at}: {ended}");
                planted.ran_only_as_itself(&at);
            }
            let after = run.database.psql(&format!("SET planted.quiet = on; SELECT count(*) FROM {table}"));
            assert_eq!(before, after, "{table} on {major}");
        }
        // All of one file are named at once.
        let hidden = [
            ("by_array", "the default of n calls planted.say(text)"),
            ("by_row", "the default of n calls planted.say(text)"),
            ("as_json", "the default of n calls to_jsonb(anyelement)"),
            ("as_word", "the default of n calls textanycat(text,anynonarray)"),
            ("populates", "the default of n calls "),
            ("asks", "the default of n calls query_to_xml"),
            ("ranges", "what its rules call"),
            ("numbered", "the default of n calls nextval(regclass)"),
        ];
        let made = |(name, _): &(&str, &str)| {
            format!("CREATE TABLE {name} (id INTEGER PRIMARY KEY); INSERT INTO {name} VALUES (50);")
        };
        let file = sqlite(&run, "hidden.db", &hidden.iter().map(made).collect::<String>());
        let maps: Vec<String> = hidden
            .iter()
            .flat_map(|(name, _)| ["--map".to_owned(), format!("{name}=planted.{name}")])
            .collect();
        let maps = maps.iter().map(String::as_str);
        let mut ended =
            run.run(&["import", &file, "--append"].into_iter().chain(maps).collect::<Vec<_>>()).exits(3);
        for (name, says) in hidden {
            ended = ended.says(&format!("planted.{name}: {says}"));
        }
        planted.ran_only_as_itself(&format!("an import of hidden code on {major}"));
        import("planted.fired", id, &["--fire-triggers"])
            .exits(3)
            .says("the trigger t calls planted.fires()");
        planted.ran_only_as_itself("import --fire-triggers");
        // What calls nothing of anybody's is filled as ever, by whoever owns it.
        for (table, columns) in [
            ("planted.fruits", "id INTEGER PRIMARY KEY, name TEXT"),
            ("planted.fired", id),
            ("planted.later", id),
            ("ours_plain", id),
            // The value is the file's.
            ("planted.by_default", "id INTEGER PRIMARY KEY, n INTEGER"),
        ] {
            import(table, columns, &["--dry-run"]).exits(0);
            import(table, columns, &[]).exits(0);
            planted.ran_only_as_itself(&format!("import into {table} on {major}"));
            assert_eq!(run.database.psql(&format!("SELECT count(*) FROM {table} WHERE id = 50")), "1");
        }
        // What inherits from a table is not emptied with it, and its trigger does not fire.
        let file = sqlite(
            &run,
            "heirs.db",
            "CREATE TABLE fruits (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO fruits VALUES (60, 'fig')",
        );
        let words = [
            "import",
            &file,
            "--map",
            "fruits=planted.fruits",
            "--force-recreate",
            "--allow-loss",
            "planted.fruits",
        ];
        let heirs = || run.database.psql("SELECT count(*) FROM planted.heir_of");
        let before = heirs();
        run.run(&words).exits(0);
        assert_eq!(run.database.psql("SELECT string_agg(name, ',') FROM ONLY planted.fruits"), "fig");
        assert_eq!(heirs(), before);
        planted.ran_only_as_itself("import --force-recreate");
        // Without a row there is nothing to empty.
        let file = sqlite(
            &run,
            "stays.db",
            "CREATE TABLE stays (id INTEGER PRIMARY KEY); INSERT INTO stays VALUES (60)",
        );
        run.run(&["import", &file, "--map", "stays=planted.stays", "--force-recreate"]).exits(0);
        planted.ran_only_as_itself("import --force-recreate of an empty table");
        // A schema of his, in which rows would be put aside.
        planted.psql("CREATE SCHEMA safe_run");
        for more in [["--bad-values", "quarantine"], ["--orphans", "skip"]] {
            import("ours_plain", id, &more)
                .exits(3)
                .says("safe_run, which belongs to")
                .says("ALTER SCHEMA safe_run OWNER");
        }
        planted.psql("DROP SCHEMA safe_run");
        // As told.
        import("planted.whole", id, &["--run-owners-code"]).exits(0);
        let (_, strange) = planted.heard_apart();
        assert!(strange.contains_key("check of a row"), "{strange:?}");
        planted.remove();
    }
}
