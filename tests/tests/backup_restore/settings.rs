//! Rules that ask for settings of their database: its sessions have them, and so have those that load its rows into a new one.

use tests::oracle::fingerprint_without;
use tests::{Cluster, ProtectedRun, Snapshots, psql};

/// In every place where a row passes a rule, for a superuser's tables and for those of a role that is not trusted.
const RULES: &str = "
CREATE FUNCTION tag(x text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN current_setting(''app.tenant'') || x; END';
CREATE FUNCTION day(at timestamptz) RETURNS date IMMUTABLE LANGUAGE sql AS 'SELECT $1::date';
CREATE DOMAIN ours AS text CHECK (VALUE = current_setting('app.tenant'));
CREATE TABLE asks (tenant text CHECK (tenant = current_setting('app.tenant')), region text CHECK (region = current_setting('app.region')),
  o ours, s text GENERATED ALWAYS AS (tag(tenant)) STORED, EXCLUDE USING btree (tag(region) WITH =));
CREATE INDEX ON asks (tag(tenant)) WHERE tag(tenant) <> '';
CREATE TABLE days (at timestamptz, d date GENERATED ALWAYS AS (day(at)) STORED, CHECK (at::date = d));
CREATE TABLE words (w text CHECK (to_tsvector(w) @@ to_tsquery('haus')));
CREATE TABLE dated (d date CHECK (d::text = '24.12.2020'));
CREATE TABLE parted (at timestamptz) PARTITION BY LIST (day(at)); CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN ('2020-01-02');
INSERT INTO asks (tenant, region, o) VALUES ('x', 'eu', 'x'); INSERT INTO days (at) VALUES ('2020-01-01 20:00+00'), ('2020-01-02 01:00+00');
INSERT INTO words VALUES ('Häuser'); INSERT INTO dated VALUES ('2020-12-24'); INSERT INTO parted VALUES ('2020-01-01 20:00+00');
CREATE MATERIALIZED VIEW by_day AS SELECT at::date AS d, count(*) FROM days GROUP BY 1;";

/// Made by sessions that have these settings: the database's, and one of a role in it.
fn filled(major: u32) -> (ProtectedRun<'static>, String) {
    let run = ProtectedRun::on(Cluster::shared(major).fresh_database("tenant"));
    let (name, role) = (run.database.name().to_owned(), format!("{}_app", run.database.name()));
    run.database.psql(&format!(
        "CREATE ROLE {role} LOGIN CREATEDB; ALTER DATABASE {name} SET app.tenant = 'x'; ALTER DATABASE {name} SET work_mem = '5MB';
         ALTER DATABASE {name} SET \"TimeZone\" = 'Asia/Tokyo'; ALTER DATABASE {name} SET \"DateStyle\" = 'German';
         ALTER DATABASE {name} SET default_text_search_config = 'pg_catalog.german'; ALTER ROLE {role} IN DATABASE {name} SET app.region = 'eu'"
    ));
    let asks = format!("SET app.region = 'eu'; {RULES}");
    run.database.psql(&asks);
    run.database.psql(&format!(
        "CREATE SCHEMA low AUTHORIZATION {role}; SET ROLE {role}; SET search_path = low, public; {asks}"
    ));
    (run, role)
}

fn rules_find_their_settings(major: u32) {
    let (run, role) = filled(major);
    let before = run.fingerprint();
    let snapshots = Snapshots::new();
    snapshots.create(&run.database, &[]);
    before.assert_same(&fingerprint_without(&snapshots.restore_copy(&run.database, &[]), &[]));
    let copy = snapshots.restore_copy_with(&run.database, &["--jobs", "4"], &[tests::outcome::ALL_LARGE]);
    before.assert_same(&fingerprint_without(&copy, &[]));
    snapshots.run("backup", &run.database.url(), &["drill"]).expect(0);
    let wreck = ["--", "psql", "-Xqc", "DELETE FROM asks; DROP TABLE days CASCADE", "-c", "SELECT 1/0"];
    for how in ["file", "auto"] {
        run.run(&[&["--snapshot", how], &wreck[..]].concat()).exits(12).never_says("differs:");
        run.assert_unchanged(&before);
    }
    for name in run.database.family() {
        psql::run(&run.database.cluster().url(&name), &format!("DROP OWNED BY {role} CASCADE"));
    }
    run.database.cluster().psql(&format!("DROP ROLE {role}"));
}

#[test]
fn rules_that_ask_for_settings_of_the_database_find_them_in_a_new_one_postgresql_14() {
    rules_find_their_settings(14);
}

#[test]
fn rules_that_ask_for_settings_of_the_database_find_them_in_a_new_one_postgresql_18() {
    rules_find_their_settings(18);
}

/// Who is no superuser may not store a setting that no library knows, and has it in his sessions all the same.
#[test]
fn rules_find_a_setting_that_the_restoring_role_may_not_give_to_a_database() {
    for major in [14, 18] {
        let run = ProtectedRun::on(Cluster::shared(major).fresh_database("tenant"));
        let (name, role) = (run.database.name().to_owned(), format!("{}_app", run.database.name()));
        run.database.psql(&format!(
            "CREATE ROLE {role} LOGIN CREATEDB; ALTER DATABASE {name} OWNER TO {role}; ALTER DATABASE {name} SET app.tenant = 'it''s \\ x';
             CREATE SCHEMA low AUTHORIZATION {role}; SET ROLE {role};
             CREATE TABLE low.asks (tenant text CHECK (tenant = current_setting('app.tenant')))"
        ));
        run.database.psql("INSERT INTO low.asks VALUES ('it''s \\ x')");
        let snapshots = Snapshots::new();
        let url = run.database.cluster().url_as(&role, &name);
        snapshots.run("backup", &url, &["create"]).expect(0);
        let copy = format!("{name}_copy");
        snapshots.run("restore", &url, &["latest", "--into", &copy, "--skip-settings"]).expect(0);
        let validated =
            "SELECT tenant, convalidated FROM low.asks, pg_constraint WHERE conrelid = 'low.asks'::regclass";
        assert_eq!(psql::run(&run.database.cluster().url(&copy), validated), "it's \\ x|t");
        for name in run.database.family() {
            psql::run(&run.database.cluster().url(&name), &format!("DROP OWNED BY {role} CASCADE"));
            if name != run.database.name() {
                run.database.cluster().psql(&format!("DROP DATABASE \"{name}\""));
            } else {
                run.database.cluster().psql(&format!("ALTER DATABASE \"{name}\" OWNER TO postgres"));
            }
        }
        run.database.cluster().psql(&format!("DROP ROLE {role}"));
    }
}
