//! What needs more than the archive: functions that find what they name only by the database's search_path, in every place where a
//! rule calls one; objects and rules of a role that is nobody special; event triggers that write.

use super::{GRANTEES, Generator, OWNER};

/// Functions in one schema that name those of another without it. `public` is no part of the path: a role without rights has
/// things there, and no restore lends a path that leads to them.
const UNQUALIFIED: &str = "
CREATE SCHEMA \"on path\"; CREATE SCHEMA \"Of others\";
SELECT format('ALTER DATABASE %I SET search_path = \"Of others\", \"on path\"', current_database()) \\gexec
CREATE FUNCTION \"on path\".norm(t text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)';
CREATE FUNCTION \"Of others\".slug(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN norm(t); END';
CREATE FUNCTION \"Of others\".bucket(t text) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN length(slug(t)) % 2; END';
SET search_path = \"Of others\", \"on path\"";

/// Places for a rule that calls `slug`, or `bucket` of what it makes; each stands for itself. `%` is a number.
const PLACES: [&str; 7] = [
    "CREATE TABLE \"on path\".c% (x text DEFAULT slug('D') CHECK (slug(x) <> 'never')); INSERT INTO c% VALUES ('A'), (NULL), ('b')",
    "CREATE DOMAIN \"on path\".d% AS text CHECK (slug(VALUE) <> 'never'); CREATE TABLE \"on path\".of_d% (x d%, y d%[]);
     INSERT INTO of_d% VALUES ('A', ARRAY['B', 'C']), (NULL, NULL)",
    "CREATE TABLE \"on path\".g% (x text, s text GENERATED ALWAYS AS (slug(x)) STORED); INSERT INTO g% (x) VALUES ('A'), ('B')",
    "CREATE TABLE \"on path\".i% (x text); INSERT INTO i% VALUES ('A'), ('B'); CREATE UNIQUE INDEX ON i% (md5(x)) WHERE x <> 'never'",
    "CREATE TABLE \"on path\".e% (x text, EXCLUDE USING btree (slug(x) WITH =)); INSERT INTO e% VALUES ('A'), ('B')",
    "CREATE TABLE \"on path\".p% (x text) PARTITION BY LIST (bucket(x)); CREATE TABLE \"on path\".p%_0 PARTITION OF p% FOR VALUES IN (0);
     CREATE TABLE \"on path\".p%_1 PARTITION OF p% FOR VALUES IN (1); INSERT INTO p% VALUES ('A'), ('bb'), ('ccc')",
    "CREATE TABLE \"on path\".s% (x text); INSERT INTO s% VALUES ('A'), ('B'); CREATE STATISTICS \"on path\".st% ON (x || 'a'), x FROM s%;
     ALTER TABLE s% ADD CHECK (bucket(x) < 2)",
];

/// The same places of a role without rights, whose functions name their schema; what it owns belongs to it alone.
const OF_OWNER: &str = "
CREATE SCHEMA theirs AUTHORIZATION $OWNER; SET ROLE $OWNER;
CREATE FUNCTION theirs.ok(i int) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN i > 0; END';
CREATE FUNCTION theirs.twice(i int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * i';
CREATE DOMAIN theirs.positive AS int CHECK (theirs.ok(VALUE)); CREATE TABLE theirs.t (id int PRIMARY KEY CHECK (theirs.ok(id)),
  p theirs.positive, g int GENERATED ALWAYS AS (theirs.twice(id)) STORED); INSERT INTO theirs.t VALUES (1, 1), (2, NULL);
CREATE INDEX ON theirs.t (theirs.twice(id)) WHERE theirs.ok(id); CREATE VIEW theirs.v AS SELECT theirs.twice(id) AS two FROM theirs.t;
CREATE TABLE theirs.parts (id int) PARTITION BY LIST (theirs.twice(id)); CREATE TABLE theirs.parts_2 PARTITION OF theirs.parts FOR VALUES IN (2);
INSERT INTO theirs.parts VALUES (1); CREATE FUNCTION theirs.def() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1';
GRANT SELECT ON theirs.t TO $READER WITH GRANT OPTION; RESET ROLE;
SELECT format('ALTER ROLE $OWNER IN DATABASE %I SET search_path = theirs', current_database()) \\gexec
";

/// They write a row for all that is done to definitions, and fire even for replicas.
const EVENT_TRIGGERS: &str = "
CREATE FUNCTION \"on path\".watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.log (what) VALUES (tg_tag); END';
CREATE EVENT TRIGGER \"at End\" ON ddl_command_end EXECUTE FUNCTION \"on path\".watch();
CREATE EVENT TRIGGER at_drop ON sql_drop EXECUTE FUNCTION \"on path\".watch();
COMMENT ON EVENT TRIGGER \"at End\" IS 'it''s watching'";

impl Generator {
    /// Last of all: with event triggers, whatever came after would be written down.
    pub(super) fn strangers(&mut self) {
        self.line(UNQUALIFIED);
        for number in 0..2 + self.random.below(6) {
            let place = self.random.pick(&PLACES).replace('%', &number.to_string());
            self.line(&place);
        }
        self.line("RESET search_path");
        if self.random.percent(70) {
            self.line(&OF_OWNER.replace("$OWNER", OWNER).replace("$READER", GRANTEES[0]));
        }
        if self.random.percent(60) {
            self.line(EVENT_TRIGGERS);
            let state = *self.random.pick(&["ENABLE", "ENABLE ALWAYS", "ENABLE REPLICA", "DISABLE"]);
            self.line(&format!("ALTER EVENT TRIGGER \"at End\" {state}"));
        }
    }
}
