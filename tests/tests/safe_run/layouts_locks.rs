//! The advisory lock of each tool that has one: we hold it while we run, and who holds it keeps us out and is named.

use tests::{Cluster, ProtectedRun, until};

/// Every tool that takes a lock, a file of its own, and the keys, computed apart from the code under test.
fn tools(database: &str) -> [(&'static str, &'static str, Vec<i64>); 5] {
    let crc = |text: &str| crc32(text) as i64;
    let migrate = |database: &str| {
        (crc32(&format!("public\0schema_migrations\0{database}")).wrapping_mul(1_486_364_155)) as i64
    };
    let flyway = java_hash("\"public\".\"flyway_schema_history\"");
    [
        ("sqlx", "1_a.sql", vec![crc(database) * 0x3d32_ad9e]),
        // Its command line spells the database as the path of its URL, its library as its name.
        ("golang-migrate", "1_a.up.sql", vec![migrate(&format!("/{database}")), migrate(database)]),
        ("goose", "1_a.sql", vec![4_097_083_626]),
        // The letters of its name, and the table.
        ("flyway", "V1__a.sql", vec![77_431_708_279_161 + i64::from(flyway)]),
        ("prisma", "1_a/migration.sql", vec![72_707_369]),
    ]
}

#[test]
fn the_tools_own_lock_keeps_us_out_and_ours_keeps_the_tool_out() {
    let brief = ["--lock-timeout", "200ms", "--lock-retries", "1"];
    for index in 0..5 {
        let run = ProtectedRun::on(Cluster::shared(18).fresh_database("locks"));
        let (format, file, keys) = tools(run.database.name())[index].clone();
        // It runs until it is told to go on.
        run.database.psql("CREATE SEQUENCE gate");
        run.file(
            &format!("migrations/{file}"),
            "-- +goose Up\n-- +goose StatementBegin\nDO $$ BEGIN\n  WHILE (SELECT NOT is_called FROM gate) LOOP PERFORM \
             pg_sleep(0.02); END LOOP;\nEND $$;\n-- +goose StatementEnd\n",
        );
        let mut tool = run.database.session();
        let before = run.fingerprint();
        for key in &keys {
            tool.run(&format!("SELECT pg_advisory_lock({key})"));
            let pid = tool.backend_pid();
            run.run(&[&["--format", format], &brief[..]].concat())
                .exits(4)
                .says(&format!("{format} works on the database"))
                .says(&format!("pid {pid}"))
                .says("hint: ");
            tool.run(&format!("SELECT pg_advisory_unlock({key})"));
        }
        run.assert_unchanged(&before);
        let running = run.start(&["--format", format]);
        for key in keys {
            until("the lock is held", || {
                tool.run(&format!("SELECT pg_try_advisory_lock({key})")) == "f" || {
                    tool.run(&format!("SELECT pg_advisory_unlock({key})"));
                    false
                }
            });
        }
        tool.run("SELECT nextval('gate')");
        running.outcome().exits(0).verdict("COMMITTED");
    }
}

/// CRC-32, bit by bit.
fn crc32(text: &str) -> u32 {
    !text.bytes().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// Java's `String.hashCode` of ASCII.
fn java_hash(text: &str) -> i32 {
    text.bytes().fold(0, |hash: i32, byte| hash.wrapping_mul(31).wrapping_add(i32::from(byte)))
}
