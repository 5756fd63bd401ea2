//! Foreign keys that old rows violate: never a reason not to restore, always said, however many, on any number of
//! connections.

use tests::oracle::{fingerprint, fingerprint_without};
use tests::{Cluster, Database, Snapshots, on_every_major, psql};

/// Ten foreign keys, each with orphans that came behind its back, five without, and odd names.
fn ten_orphaned_keys(database: &Database) {
    let mut script = String::from(
        "CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent SELECT generate_series(1, 5000);",
    );
    for i in 0..15 {
        let orphan = if i < 10 { "UPDATE" } else { "SELECT 1 FROM" };
        let set = if i < 10 { "SET p = -p WHERE p > 4990" } else { "" };
        script.push_str(&format!(
            "CREATE TABLE \"child\r{i}\" (p int, CONSTRAINT \"key\r\n{i} FOREIGN KEY (x)\" FOREIGN KEY (p) REFERENCES parent);
             INSERT INTO \"child\r{i}\" SELECT generate_series(1, 5000);
             COMMENT ON CONSTRAINT \"key\r\n{i} FOREIGN KEY (x)\" ON \"child\r{i}\" IS 'it''s kept';
             CREATE INDEX \"index\r{i}\" ON \"child\r{i}\" (p);
             SET session_replication_role = replica; {orphan} \"child\r{i}\" {set}; RESET session_replication_role;"
        ));
    }
    database.psql(&script);
}

on_every_major! {
    fn ten_orphaned_foreign_keys_come_back_not_valid_with_four_jobs(cluster: &Cluster) {
        let database = cluster.fresh_database("orphans");
        ten_orphaned_keys(&database);
        let before = fingerprint(&database);
        let snapshots = Snapshots::new();
        let id = snapshots.create(&database, &[]);
        for jobs in ["4", "1"] {
            let copy = format!("{}copy{jobs}", database.name());
            let outcome = snapshots
                .run("restore", &database.url(), &[&id, "--into", &copy, "--jobs", jobs])
                .expect(0);
            assert_eq!(outcome.stderr.matches("came back NOT VALID").count(), 10, "{}", outcome.stderr);
            let url = cluster.url(&copy);
            let keys = "SELECT count(*), count(*) FILTER (WHERE convalidated),
                        count(*) FILTER (WHERE obj_description(oid, 'pg_constraint') = 'it''s kept')
                        FROM pg_constraint WHERE contype = 'f'";
            assert_eq!(psql::run(&url, keys), "15|5|15");
            let restored = fingerprint_without(&url, &[]);
            let of = |print: &tests::Fingerprint| print.parts("").filter(|(k, _)| *k != "database").map(|(k, v)| format!("{k} {v}")).collect::<Vec<_>>();
            assert_eq!(of(&before), of(&restored));
            assert_eq!(before.schema(), restored.schema().replace(" NOT VALID;", ";"));
        }
    }
}

const PARTITIONED: &str = "
CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent SELECT generate_series(1, 100);
CREATE TABLE child (i int, p int) PARTITION BY RANGE (i);
CREATE TABLE child_1 PARTITION OF child FOR VALUES FROM (0) TO (50);
CREATE TABLE child_2 PARTITION OF child FOR VALUES FROM (50) TO (200);
INSERT INTO child SELECT i, i FROM generate_series(1, 100) i;
ALTER TABLE child ADD CONSTRAINT child_to_parent FOREIGN KEY (p) REFERENCES parent;
COMMENT ON CONSTRAINT child_to_parent ON child IS 'of the partitioned one';
CREATE TABLE other (p int CONSTRAINT other_to_parent REFERENCES parent); INSERT INTO other VALUES (7);
SET session_replication_role = replica; DELETE FROM parent WHERE id = 70; RESET session_replication_role;
";

#[test]
fn before_18_an_orphaned_key_of_a_partitioned_table_is_left_out_and_said() {
    for major in [14, 17] {
        let cluster = Cluster::shared(major);
        let database = cluster.fresh_database("partitioned");
        database.psql(PARTITIONED);
        let before = fingerprint(&database);
        let snapshots = Snapshots::new();
        let id = snapshots.create(&database, &[]);
        let copy = format!("{}copy", database.name());
        snapshots.run("restore", &database.url(), &[&id, "--into", &copy, "--jobs", "4"]).expect(1).says(&[
            "RESTORED WITH",
            "FK CONSTRAINT public child child_to_parent: left out",
            "ADD CONSTRAINT child_to_parent FOREIGN KEY (p) REFERENCES public.parent(id)",
        ]);
        let rest = "SELECT (SELECT count(*) FROM child), (SELECT count(*) FROM parent), \
                    (SELECT string_agg(conname, ',') FROM pg_constraint WHERE contype = 'f')";
        assert_eq!(psql::run(&cluster.url(&copy), rest), "100|99|other_to_parent");
        // Not unasked in the place of a database that has the key.
        snapshots
            .run("restore", &database.url(), &[&id, "--replace", "--yes"])
            .expect(1)
            .says(&["did not take the place of"]);
        before.assert_same(&fingerprint(&database));
    }
}

#[test]
fn from_18_on_an_orphaned_key_of_a_partitioned_table_comes_back_not_valid() {
    let cluster = Cluster::shared(18);
    let database = cluster.fresh_database("partitioned");
    database.psql(PARTITIONED);
    let snapshots = Snapshots::new();
    snapshots.create(&database, &[]);
    let url = snapshots.restore_copy(&database, &["--jobs", "4"]);
    let keys = "SELECT string_agg(conname || convalidated, ',' ORDER BY conname) FROM pg_constraint
                WHERE contype = 'f' AND conparentid = 0";
    assert_eq!(psql::run(&url, keys), "child_to_parentfalse,other_to_parenttrue");
}
