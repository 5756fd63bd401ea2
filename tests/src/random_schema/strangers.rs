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
const PLACES: [&str; 11] = [
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
    // Since 17 nothing of a path is there while an index is built or a view filled: the rows come later, or the function does.
    "CREATE TABLE \"on path\".x% (x text); CREATE UNIQUE INDEX ON x% (slug(x)); CREATE INDEX ON x% (x) WHERE slug(x) <> 'never';
     CREATE INDEX ON x% USING hash (bucket(x)); INSERT INTO x% VALUES ('A'), ('b'), (NULL)",
    "CREATE FUNCTION \"Of others\".shown%(t text) RETURNS text LANGUAGE plpgsql STABLE AS 'BEGIN RETURN lower(t); END';
     CREATE TABLE \"on path\".w% (x text); INSERT INTO w% VALUES ('A'), ('b'); CREATE MATERIALIZED VIEW \"on path\".m% AS SELECT shown%(x) AS s FROM w%;
     CREATE OR REPLACE FUNCTION \"Of others\".shown%(t text) RETURNS text LANGUAGE plpgsql STABLE AS 'BEGIN RETURN norm(t); END'",
    "CREATE FUNCTION \"Of others\".spans%(t text) RETURNS int4range LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN int4range(length(norm(t)), NULL); END';
     CREATE TABLE \"on path\".o% (x text, EXCLUDE USING gist (spans%(x) WITH &&) WHERE (slug(x) <> 'never')); INSERT INTO o% VALUES ('A'), ('never')",
    "CREATE TABLE \"on path\".v% (x text); INSERT INTO v% VALUES ('A'); CREATE VIEW \"on path\".vv% AS SELECT slug(x) AS s FROM v%;
     CREATE FUNCTION \"Of others\".tr%() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.x := norm(NEW.x); RETURN NEW; END';
     CREATE TRIGGER tr% BEFORE INSERT ON v% FOR EACH ROW WHEN (NEW.x IS NOT NULL) EXECUTE FUNCTION tr%(); CREATE RULE ru% AS ON UPDATE TO v% WHERE slug(OLD.x) = 'x' DO INSTEAD NOTHING;
     ALTER TABLE v% ENABLE ROW LEVEL SECURITY; CREATE POLICY po% ON v% USING (slug(x) <> 'never')",
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

/// What one role has in a schema of another, with rights that they gave each other.
const OF_SEVERAL: &str = "
CREATE SCHEMA shared AUTHORIZATION $READER; GRANT ALL ON SCHEMA shared TO $OWNER WITH GRANT OPTION;
CREATE TABLE shared.tree (id int, until date CHECK (until > '2000-01-01')) PARTITION BY LIST (id); ALTER TABLE shared.tree OWNER TO $OWNER;
CREATE TABLE shared.tree_1 PARTITION OF shared.tree FOR VALUES IN (1); ALTER TABLE shared.tree_1 OWNER TO $READER;
CREATE TABLE shared.tree_2 PARTITION OF shared.tree FOR VALUES IN (2); INSERT INTO shared.tree VALUES (1, '2020-01-01'), (2, 'infinity');
CREATE TABLE shared.parent (id int CONSTRAINT small CHECK (id < 10)); CREATE TABLE shared.heir (more int) INHERITS (shared.parent);
ALTER TABLE shared.heir OWNER TO $OWNER; INSERT INTO shared.heir VALUES (1, 2); CREATE SEQUENCE shared.q; ALTER SEQUENCE shared.q OWNER TO $OWNER; ALTER SEQUENCE shared.q OWNED BY shared.heir.more;
CREATE FUNCTION shared.ok(i int) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN i IS NOT NULL; END'; ALTER FUNCTION shared.ok(int) OWNER TO $OWNER;
CREATE DOMAIN shared.d AS int CHECK (shared.ok(VALUE)); CREATE TABLE shared.ours (id int CHECK (shared.ok(id)), v shared.d); INSERT INTO shared.ours VALUES (1, 2);
CREATE TABLE shared.theirs (v shared.d PRIMARY KEY); ALTER TABLE shared.theirs OWNER TO $READER; INSERT INTO shared.theirs VALUES (1), (2);
CREATE MATERIALIZED VIEW shared.mv AS SELECT count(*) AS c FROM shared.theirs; ALTER MATERIALIZED VIEW shared.mv OWNER TO $READER;
GRANT SELECT ON shared.theirs TO $OWNER WITH GRANT OPTION; SET ROLE $OWNER; GRANT SELECT ON shared.theirs TO PUBLIC; RESET ROLE;
SELECT lo_from_bytea(47110, 'theirs'); ALTER LARGE OBJECT 47110 OWNER TO $OWNER; GRANT SELECT ON LARGE OBJECT 47110 TO $READER;
ALTER DEFAULT PRIVILEGES FOR ROLE $OWNER IN SCHEMA shared GRANT SELECT ON TABLES TO $READER; CREATE STATISTICS shared.st ON id, until FROM shared.tree_2;
CREATE FUNCTION shared.later() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT now()';
CREATE TABLE shared.timed (at timestamptz CHECK (at <= shared.later())); ALTER TABLE shared.timed OWNER TO $OWNER; INSERT INTO shared.timed VALUES ('2001-01-01');
GRANT USAGE ON SCHEMA shared TO PUBLIC
";

/// They refuse what a restore, a check or an undo of ours would do, where it is not asked for.
const REFUSE: &str = "
CREATE FUNCTION \"on path\".refuse() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''not here: %'', tg_tag; END';
CREATE EVENT TRIGGER refuses ON ddl_command_start WHEN TAG IN ('CREATE INDEX', 'CREATE FUNCTION', 'ALTER FUNCTION', 'ALTER DOMAIN', 'COMMENT',
  'GRANT', 'REVOKE', 'REFRESH MATERIALIZED VIEW', 'CREATE EXTENSION') EXECUTE FUNCTION \"on path\".refuse();
CREATE EVENT TRIGGER at_rewrite ON table_rewrite EXECUTE FUNCTION \"on path\".refuse()";

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
            self.line(&OF_SEVERAL.replace("$OWNER", OWNER).replace("$READER", GRANTEES[0]));
        }
        let states = ["ENABLE", "ENABLE ALWAYS", "ENABLE REPLICA", "DISABLE"];
        if self.random.percent(60) {
            self.line(EVENT_TRIGGERS);
            let state = *self.random.pick(&states);
            self.line(&format!("ALTER EVENT TRIGGER \"at End\" {state}"));
        }
        if self.random.percent(40) {
            self.line(REFUSE);
            let state = *self.random.pick(&states);
            self.line(&format!("ALTER EVENT TRIGGER refuses {state}"));
        }
    }
}
