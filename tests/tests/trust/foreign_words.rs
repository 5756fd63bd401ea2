//! Every text of a foreign manifest, wherever it stands, says that another superuser be made: none of them becomes SQL.

use std::process::Command;

use serde_json::{Value, json};
use tests::{Cluster, Snapshots, psql};

/// The places of all texts of a document; of a list only its first.
fn texts(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::String(_) => found.push(at.to_owned()),
        Value::Array(values) => {
            for (number, value) in values.iter().enumerate().take(1) {
                texts(value, &format!("{at}/{number}"), found);
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                texts(value, &format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn sha256(text: &str) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let output = Command::new("sha256sum").arg(file.path()).output().unwrap();
    String::from_utf8(output.stdout).unwrap()[..64].to_owned()
}

/// A bit of everything that a manifest tells.
const RICH: &str = r#"
CREATE ROLE "$R" LOGIN PASSWORD 'x' CONNECTION LIMIT 7; CREATE ROLE "$R_m"; GRANT "$R_m" TO "$R";
ALTER ROLE "$R" IN DATABASE "$D" SET work_mem = '5MB'; COMMENT ON ROLE "$R" IS 'a role';
CREATE SCHEMA s AUTHORIZATION "$R"; CREATE EXTENSION btree_gist SCHEMA s;
CREATE TYPE s.mood AS ENUM ('a', 'b'); CREATE DOMAIN s.word AS text CHECK (VALUE <> 'no');
CREATE TABLE s.t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, m s.mood, w s.word, d numeric(9, 2) DEFAULT 1, r text COLLATE "C",
  g int GENERATED ALWAYS AS (1 + 1) STORED);
INSERT INTO s.t (m, w) SELECT 'a', 'x' FROM generate_series(1, 50);
CREATE TABLE s.u (t_id int REFERENCES s.t) PARTITION BY RANGE (t_id); CREATE TABLE s.u1 PARTITION OF s.u FOR VALUES FROM (1) TO (1000);
INSERT INTO s.u SELECT i FROM generate_series(1, 50) i;
CREATE MATERIALIZED VIEW s.v AS SELECT count(*) FROM s.t; CREATE VIEW s.w AS SELECT id FROM s.t;
CREATE SEQUENCE s.q; SELECT nextval('s.q'); SELECT lo_from_bytea(0, 'x');
CREATE STATISTICS s.stat ON id, m FROM s.t; ANALYZE s.t;
CREATE PUBLICATION p FOR TABLE s.t; ALTER TABLE s.t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON s.t USING (true);
ALTER TABLE s.t OWNER TO "$R"; GRANT SELECT ON s.t TO "$R_m"; GRANT CREATE ON DATABASE "$D" TO "$R_m" WITH GRANT OPTION;
ALTER DATABASE "$D" SET work_mem = '9MB'; ALTER DATABASE "$D" OWNER TO "$R"; COMMENT ON DATABASE "$D" IS 'rich';
ALTER DEFAULT PRIVILEGES FOR ROLE "$R" IN SCHEMA s GRANT SELECT ON TABLES TO "$R_m";
"#;

#[test]
fn no_text_of_a_foreign_manifest_becomes_sql_wherever_it_stands() {
    let database = Cluster::shared(18).fresh_database("texts");
    let role = format!("{}_app", database.name());
    database.psql(&RICH.replace("$R", &role).replace("$D", database.name()));
    let snapshots = Snapshots::new();
    let id = snapshots.create(&database, &["--check-foreign-keys", "--tag", "a=b", "--name", "n"]);
    let path = snapshots.folder_of(&id).join("manifest.json");
    let good = std::fs::read_to_string(&path).unwrap();
    let manifest: Value = serde_json::from_str(&good).unwrap();
    let mut places = Vec::new();
    texts(&manifest["snapshot"], "", &mut places);
    assert!(places.len() > 45, "{places:?}");
    let evil = format!("evil_{}", database.name());
    let create = format!("CREATE ROLE {evil} SUPERUSER");
    let copy = format!("{}_copy", database.name());
    let made = format!("SELECT count(*) FROM pg_roles WHERE rolname = '{evil}'");
    // Of the roles that bear the name of this database: other tests make theirs meanwhile.
    let known = format!(
        "SELECT string_agg(rolname, E'\\n' ORDER BY 1) FROM pg_roles WHERE strpos(rolname, '{}') > 0",
        database.name()
    );
    let before = database.psql(&known);
    let mut restored = 0;
    for place in &places {
        let old = manifest["snapshot"].pointer(place).unwrap().as_str().unwrap().to_owned();
        for word in [
            format!("x'; {create}; --\"; {create}; --\n; {create}; --$$; {create}; --"),
            format!("{old}; {create}; --"),
        ] {
            let mut forged = manifest["snapshot"].clone();
            *forged.pointer_mut(place).unwrap() = json!(word);
            let body = forged.to_string();
            std::fs::write(&path, format!("{{\"sha256\":\"{}\",\"snapshot\":{body}}}\n", sha256(&body)))
                .unwrap();
            let outcome = snapshots.run(
                "restore",
                &database.url(),
                &[&id, "--into", &copy, "--create-roles", "--force"],
            );
            assert_eq!(database.psql(&made), "0", "{place}: {outcome:?}");
            assert!([0, 1, 3, 5, 6].contains(&outcome.code), "{place}: {outcome:?}");
            assert!(!outcome.stderr.contains("panicked"), "{place}: {outcome:?}");
            if database.family().contains(&copy) {
                restored += 1;
                database.cluster().psql(&format!("DROP DATABASE {copy} WITH (FORCE)"));
            }
            // Roles that have the text as their name.
            for name in database
                .psql(&format!(
                    "SELECT quote_ident(rolname) FROM pg_roles WHERE strpos(rolname, '{evil}') > 0"
                ))
                .lines()
            {
                database.psql(&format!("DROP ROLE {name}"));
            }
        }
    }
    assert!(restored > 0, "texts that may say anything are restored as texts");
    std::fs::write(&path, good).unwrap();
    assert_eq!(database.psql(&known), before);
    snapshots.run("restore", &database.url(), &[&id, "--into", &copy]).expect(0);
    database.cluster().psql(&format!("DROP DATABASE {copy} WITH (FORCE)"));
    let name = psql::quote_ident(database.name());
    // Not both at once: PostgreSQL does not find the default privileges of the one any more then.
    database.psql(&format!(
        "ALTER DATABASE {name} OWNER TO postgres; REASSIGN OWNED BY \"{role}\", \"{role}_m\" TO postgres; \
         DROP OWNED BY \"{role}_m\"; DROP OWNED BY \"{role}\"; DROP ROLE \"{role}\", \"{role}_m\""
    ));
}
