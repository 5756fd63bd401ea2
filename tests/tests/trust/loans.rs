//! Who owns a tree of partitions is lent what belongs to others while a restore puts it together. His code runs in that very moment.

use tests::{ProtectedRun, Snapshots, cluster::Cluster, psql};

/// The low role's tree with a partition of another role, whose key does what the comment on the low role says, in a restored database alone. Such a
/// comment is in no snapshot.
const TREE: &str = "
CREATE ROLE $LOW; CREATE ROLE $OTHER; CREATE SCHEMA low AUTHORIZATION $LOW; CREATE SCHEMA others AUTHORIZATION $OTHER;
GRANT USAGE ON SCHEMA low TO PUBLIC;
CREATE FUNCTION low.misuses() RETURNS void LANGUAGE plpgsql AS $$ DECLARE does text; BEGIN
  SELECT shobj_description(oid, 'pg_authid') INTO does FROM pg_roles WHERE rolname = '$LOW';
  IF current_database() = '$DATABASE' OR does IS NULL THEN RETURN; END IF;
  EXECUTE does; RAISE LOG '$LOW did it as %', current_user;
EXCEPTION WHEN OTHERS THEN RAISE LOG '$LOW could not: %', SQLERRM; END $$;
CREATE FUNCTION low.key(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM low.misuses(); RETURN 1; END $$;
CREATE FUNCTION low.fires() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TABLE low.tree (id int NOT NULL, v int, s int, n numeric(10, 2)) PARTITION BY RANGE ((low.key(1) + id));
CREATE TABLE others.leaf (id int NOT NULL, v int, s serial, n numeric(10, 2));
ALTER TABLE low.tree ATTACH PARTITION others.leaf FOR VALUES FROM (MINVALUE) TO (MAXVALUE);
CREATE TABLE low.kept (v int); CREATE TABLE others.target (v int PRIMARY KEY); CREATE TABLE others.shut (v int);
INSERT INTO others.target SELECT generate_series(1, 30); INSERT INTO others.shut VALUES (42); GRANT SELECT ON others.shut TO PUBLIC;
INSERT INTO low.tree SELECT i, i, i, i + 0.25 FROM generate_series(1, 20) i;
ALTER TABLE low.tree ADD FOREIGN KEY (v) REFERENCES others.target;
CREATE TRIGGER of_tree AFTER INSERT ON low.tree FOR EACH ROW EXECUTE FUNCTION low.fires();
ALTER FUNCTION low.misuses OWNER TO $LOW; ALTER FUNCTION low.key OWNER TO $LOW; ALTER FUNCTION low.fires OWNER TO $LOW;
ALTER TABLE low.tree OWNER TO $LOW; ALTER TABLE low.kept OWNER TO $LOW;
ALTER TABLE others.leaf OWNER TO $OTHER; ALTER TABLE others.target OWNER TO $OTHER; ALTER TABLE others.shut OWNER TO $OTHER;
";

/// What he could do with a loan that would stay.
const KEPT: [&str; 5] = [
    "INSERT INTO others.leaf (id, v, s) VALUES (7, 7, 7)",
    "GRANT UPDATE ON SEQUENCE others.leaf_s_seq TO PUBLIC",
    "ALTER SEQUENCE others.leaf_s_seq INCREMENT BY 5",
    "CREATE TRIGGER mine BEFORE INSERT ON others.leaf FOR EACH ROW EXECUTE FUNCTION low.fires()",
    "CREATE VIEW low.peeks AS SELECT * FROM others.leaf",
];

/// What is of no use to him: the server refuses it, or the restore fails, or nothing of it is left.
const NOTHING: [&str; 3] = [
    "ALTER TABLE others.leaf ALTER n TYPE numeric(10, 0)",
    "INSERT INTO low.kept SELECT v FROM others.target",
    "INSERT INTO low.kept SELECT v FROM others.shut",
];

#[test]
fn the_owner_of_a_tree_keeps_nothing_of_what_he_is_lent_while_it_is_put_together() {
    for major in [14, 18] {
        let run = ProtectedRun::on(Cluster::shared(major).fresh_database("loans"));
        let (cluster, name) = (run.database.cluster(), run.database.name());
        let [low, other] = ["low", "other"].map(|word| psql::quote_ident(&format!("{word}_{name}")));
        let log_name = format!("low_{name}");
        run.database.psql(
            &TREE
                .replace("'$LOW", &format!("'{log_name}"))
                .replace("$LOW", &low)
                .replace("$OTHER", &other)
                .replace("$DATABASE", name),
        );
        let snapshots = Snapshots::new();
        snapshots.create(&run.database, &[]);
        let into = format!("{name}_into");
        let restore = |does: &str| {
            cluster.psql(&format!("COMMENT ON ROLE {low} IS $does${does}$does$"));
            let seen = cluster.log().len();
            let outcome = snapshots.run("restore", &run.database.url(), &["latest", "--into", &into]);
            let log = cluster.log()[seen..].to_owned();
            let did = log.contains(&format!("{log_name} did it as {log_name}"));
            assert!(
                did || log.contains(&format!("{log_name} could not: ")),
                "{does} was not tried on {major}"
            );
            (outcome, did)
        };
        for does in KEPT {
            let (outcome, did) = restore(does);
            assert!(did, "{does} on {major} could not be done");
            let refused = outcome.expect(1);
            let says = "code of the owner changed what a table of another role has meanwhile";
            assert!(refused.stderr.contains(says), "{does} on {major}: {}", refused.stderr);
            assert_eq!(run.database.family(), [name], "{does} on {major}");
        }
        let state = |url: &str| {
            let rows = psql::run(
                url,
                "SELECT (SELECT sum(n) FROM low.tree), (SELECT count(*) FROM low.kept), (SELECT count(*) FROM others.target)",
            );
            (rows, tests::oracle::fingerprint_without(url, &[]).schema().to_owned())
        };
        cluster.psql(&format!("COMMENT ON ROLE {low} IS NULL"));
        let before = state(&run.database.url());
        for does in NOTHING {
            let (outcome, _) = restore(does);
            cluster.psql(&format!("COMMENT ON ROLE {low} IS NULL"));
            if outcome.code == 0 {
                assert_eq!(state(&cluster.url(&into)), before, "{does} on {major}");
                cluster.psql(&format!("DROP DATABASE {} WITH (FORCE)", psql::quote_ident(&into)));
            }
            assert_eq!(run.database.family(), [name], "{does} on {major}");
        }
        run.database.psql(&format!("DROP OWNED BY {low}, {other} CASCADE; DROP ROLE {low}, {other}"));
    }
}
