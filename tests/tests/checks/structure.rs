//! Damaged index and heap pages: bytes of the files are changed, as a disk would.

use std::io::{Read, Seek, SeekFrom, Write};

use super::*;

/// A number whose bytes stand nowhere else.
const MARK: i32 = 0x5AFE_12C7;

/// Overwrites what stands at the first place of `bytes` in the files of a relation.
fn overwrite(path: &std::path::Path, bytes: &[u8], by: &[u8]) {
    let mut file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut content = Vec::new();
    file.read_to_end(&mut content).unwrap();
    let place = content.windows(bytes.len()).position(|window| window == bytes).expect("the bytes are there");
    file.seek(SeekFrom::Start(place as u64)).unwrap();
    file.write_all(by).unwrap();
}

/// A database whose copy, made from its files, is damaged: the server never read the copy before, so nothing is cached.
async fn damaged(cluster: &Cluster) -> (tests::Database<'_>, tests::Database<'_>) {
    let whole = cluster.fresh_database("whole");
    whole.psql(&format!(
        "CREATE TABLE t (id int PRIMARY KEY, n int, tags int[]);
        INSERT INTO t SELECT i, CASE i WHEN 500 THEN {MARK} ELSE i END, ARRAY[i] FROM generate_series(1, 1000) i;
        CREATE INDEX t_n ON t (n); CREATE TABLE heap (t text); CREATE INDEX t_tags ON t USING gin (tags);
        INSERT INTO heap SELECT 'row ' || i FROM generate_series(1, 100) i; VACUUM (FREEZE) heap; CHECKPOINT"
    ));
    let path = |name: &str| {
        cluster.data_dir().join(whole.psql(&format!("SELECT pg_relation_filepath('{name}')")).trim())
    };
    // The largest key is put where 500 belongs; and the first row of the other table ends where no page does.
    overwrite(&path("t_n"), &MARK.to_ne_bytes(), &3_i32.to_ne_bytes());
    let heap = path("heap");
    let mut first_pointer = [0_u8; 4];
    let mut file = std::fs::File::open(&heap).unwrap();
    file.seek(SeekFrom::Start(24)).unwrap();
    file.read_exact(&mut first_pointer).unwrap();
    let broken = u32::from_ne_bytes(first_pointer) | 0x7FFF;
    overwrite(&heap, &first_pointer, &broken.to_ne_bytes());
    let strategy = if cluster.major() >= 15 { "STRATEGY file_copy" } else { "" };
    let copy = cluster.fresh_database_with("damaged", &format!("TEMPLATE \"{}\" {strategy}", whole.name()));
    (whole, copy)
}

fn only_structure(level: Level) -> Options {
    Options { level, only: vec![CheckKind::Structure], ..Options::default() }
}

#[tokio::test]
async fn damaged_pages_are_found_with_amcheck_installed_or_not() {
    for major in tests::cluster::majors() {
        eprintln!("on PostgreSQL {major}");
        // A server of its own with a folder that this process may write to, and without checksums.
        let options = if major >= 18 {
            tests::Options::new().initdb(&["--no-locale", "--auth=trust", "--no-data-checksums"])
        } else {
            tests::Options::new()
        };
        let cluster = Cluster::start(major, &options);
        let (_whole, fresh) = damaged(&cluster).await;
        let config: Config = fresh.url().parse().unwrap();
        let (client, scratch) = (connect(&config).await, connect(&config).await);
        let deep = only_structure(Level::Deep);
        let created = run_with_scratch(&[&client], Some(&scratch), &deep).await.unwrap();
        let found = details(&created.findings).join("\n");
        assert_eq!(created.findings.len(), 2, "{found}");
        assert!(
            found.contains("index t_n of t is damaged: item order invariant violated for index \"t_n\""),
            "{found}"
        );
        assert!(found.contains("table heap is damaged: block 0 item 1: line pointer"), "{found}");
        let gin: Vec<_> = created.skipped.iter().map(|skipped| skipped.object.as_str()).collect();
        assert_eq!(gin, if major >= 18 { vec![] } else { vec!["t (t_tags)"] });
        // In a transaction of ours it is created behind a savepoint; nothing of it stays in either case.
        client.batch_execute("BEGIN; CREATE TABLE made ()").await.unwrap();
        let inside = run(&client, &deep).await.unwrap();
        assert_eq!(details(&inside.findings), details(&created.findings));
        client.batch_execute("COMMIT; TABLE made").await.unwrap();
        let left = "SELECT count(*) FROM pg_extension WHERE extname = 'amcheck'";
        assert_eq!(client.query_one(left, &[]).await.unwrap().get::<_, i64>(0), 0);
        // Read-only, and without a session that may write: said, never silent.
        client.batch_execute("BEGIN READ ONLY").await.unwrap();
        let unable = run(&client, &deep).await.unwrap();
        client.batch_execute("ROLLBACK").await.unwrap();
        assert_eq!(unable.findings, []);
        assert!(unable.skipped[0].why.contains("could not be created"), "{:?}", unable.skipped);
        assert!(unable.skipped[0].counts_for_strict);
        // Installed, in a schema with an odd name: several sessions share the work.
        client.batch_execute("CREATE SCHEMA \"a m\"; CREATE EXTENSION amcheck SCHEMA \"a m\"").await.unwrap();
        let installed = run_parallel(&[&client, &scratch], &deep).await.unwrap();
        assert_eq!(details(&installed.findings), details(&created.findings));
        // The repair of an index repairs.
        client
            .batch_execute(installed.findings.iter().find_map(|f| f.repair_sql.as_deref()).unwrap())
            .await
            .unwrap();
        assert_eq!(run(&client, &deep).await.unwrap().findings.len(), 1);
        // A role that may not call it is told what it lacks.
        client
            .batch_execute("CREATE ROLE plain LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO plain")
            .await
            .unwrap();
        let mut config = config.clone();
        let plain = connect(config.user("plain")).await;
        let skipped = run(&plain, &deep).await.unwrap().skipped;
        assert!(
            skipped
                .iter()
                .all(|skipped| skipped.why.starts_with("this role may not call amcheck: GRANT USAGE ON SCHEMA \"a m\" TO plain; GRANT EXECUTE ON FUNCTION \"a m\"."))
        );
        assert!(!skipped.is_empty());
    }
}

#[tokio::test]
async fn standard_looks_at_indexes_that_a_run_made_rebuilt_or_wrote_through() {
    on_every_server(async |db| {
        db.sql(
            "CREATE TABLE a (id int PRIMARY KEY, n int); CREATE TABLE b (id int PRIMARY KEY); CREATE TABLE c (id int PRIMARY KEY);
            CREATE EXTENSION amcheck; INSERT INTO a SELECT i, i FROM generate_series(1, 100) i",
        )
        .await;
        let looked_at = |results: &CheckResults| {
            let mut names: Vec<_> =
                results.rules.iter().filter(|(key, state)| key.check == CheckKind::Structure && state.ran).map(|(key, _)| key.rule.clone()).collect();
            names.sort();
            names
        };
        db.sql("BEGIN").await;
        let before = db.checked().await;
        assert_eq!(looked_at(&before), Vec::<String>::new());
        let start = untouched::write_counters(&db.client).await.unwrap().expect("counters are on");
        // Rows that only this transaction sees, and broken HOT chains below a new index.
        db.sql("UPDATE a SET n = n + 1; CREATE INDEX a_n ON a (n); REINDEX INDEX b_pkey").await;
        let touched = untouched::touched_tables(&db.client, &start, &before.tables).await.unwrap().unwrap();
        let options = Options {
            untouched: untouched::untouched(&before.tables, &touched),
            known_rules: before.rules.keys().cloned().collect(),
            known: Some(before.known()),
            ..Options::default()
        };
        let after = db.checked_with(options.clone()).await;
        assert_eq!(looked_at(&after), ["a_n", "a_pkey", "b_pkey"]);
        assert_eq!(compared(&before, &after).new, []);
        // Without a proof of what was not touched, only new files count.
        let after = db.checked_with(Options { untouched: Default::default(), ..options }).await;
        assert_eq!(looked_at(&after), ["a_n", "b_pkey"]);
        db.sql("ROLLBACK").await;
    })
    .await;
}

#[tokio::test]
async fn content_that_nothing_was_seen_to_change_is_found_at_deep() {
    on_every_server(async |db| {
        db.sql(
            "CREATE TABLE a (id int, n text); CREATE TABLE b (id int, gone int); CREATE TABLE c (id int);
            INSERT INTO a VALUES (1, 'x'), (2, NULL); INSERT INTO b VALUES (1, 1); INSERT INTO c VALUES (1)",
        )
        .await;
        let deep = Options { level: Level::Deep, only: vec![CheckKind::Content], ..Options::default() };
        let before = db.checked_with(deep.clone()).await;
        let deep = Options { known: Some(before.known()), ..deep };
        // An added column, another order of the rows and a dropped column are no other values.
        db.sql("ALTER TABLE a ADD added int DEFAULT 7; UPDATE a SET id = 1 WHERE id = 1; ALTER TABLE b DROP gone; ALTER TABLE c ALTER id TYPE text").await;
        let after = db.checked_with(deep.clone()).await;
        assert_eq!(compare_content(&before, &after, |_| Expectation::Equal), []);
        db.sql("UPDATE a SET n = 'y' WHERE id = 1").await;
        let after = db.checked_with(deep).await;
        let found = compare_content(&before, &after, |_| Expectation::Equal);
        assert_eq!(
            details(&found),
            ["a holds other values than before, and nothing in the migration was seen to reach it"]
        );
        assert_eq!(compare_content(&before, &after, |_| Expectation::Updated), []);
        let unknown = compare_content(&before, &after, |_| Expectation::Unknown { why: "DO block".into() });
        assert_eq!((details(&unknown), unknown[0].severity), (vec!["a holds other values than before (DO block)"], Severity::Note));
    })
    .await;
}
