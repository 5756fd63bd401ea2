//! Code of a low role in every place where PostgreSQL evaluates some, which tells the server's log as whom it ran.
//!
//! The code does nothing else, and works in read-only transactions. It also tries to become the session's user again, and
//! tells whom it was then: SET ROLE alone is no containment. What may run it is its owner, whoever asks.

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::Database;
use crate::psql;

/// The role that planted its code in a database, which is dropped with everything it owns by [`Planted::remove`].
pub struct Planted<'a, 'c> {
    database: &'a Database<'c>,
    role: String,
    seen: usize,
}

/// What was planted where, in the order in which the role makes it. `say` is its function: it takes the name of the place, gives
/// true, and is called with nothing but constants wherever that can be, so that planning alone evaluates it.
const PLACES: &str = r"
CREATE TYPE planted.mood AS ENUM ('good', 'bad');
CREATE FUNCTION planted.as_text(planted.mood) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
  $$ BEGIN PERFORM planted.say('cast'); RETURN 'forged'; END $$;
CREATE CAST (planted.mood AS text) WITH FUNCTION planted.as_text(planted.mood);
CREATE FUNCTION planted.same(int, int) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS
  $$ BEGIN PERFORM planted.say('operator'); RETURN $1 = $2; END $$;
CREATE OPERATOR planted.=== (LEFTARG = int, RIGHTARG = int, FUNCTION = planted.same);
CREATE FUNCTION planted.add(int, int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
  $$ BEGIN PERFORM planted.say('aggregate'); RETURN COALESCE($1, 0) + $2; END $$;
CREATE AGGREGATE planted.total(int) (SFUNC = planted.add, STYPE = int);
CREATE FUNCTION planted.distance(float8, float8) RETURNS float8 LANGUAGE plpgsql IMMUTABLE AS
  $$ BEGIN PERFORM planted.say('range type'); RETURN $1 - $2; END $$;
CREATE TYPE planted.span AS RANGE (subtype = float8, subtype_diff = planted.distance);
CREATE DOMAIN planted.given AS int NOT NULL CHECK (planted.say('not null domain') AND VALUE > 0);
CREATE DOMAIN planted.word AS text DEFAULT 'w' CHECK (planted.say('domain'));
CREATE TYPE planted.pair AS (one planted.given, two planted.word);

CREATE TABLE planted.t (
  id int PRIMARY KEY, feeling planted.mood NOT NULL DEFAULT 'good', given planted.given DEFAULT 1, word planted.word,
  pair planted.pair, words planted.word[], span planted.span, other int,
  CONSTRAINT checked CHECK (planted.say('check') AND id OPERATOR(planted.===) id),
  made int GENERATED ALWAYS AS (planted.number('generated column') + id) STORED,
  has_default int DEFAULT planted.number('default'));
INSERT INTO planted.t (id, pair, words, span) SELECT i, ROW(1, 'x')::planted.pair, ARRAY['y']::planted.word[], planted.span(i, i + 1)
  FROM generate_series(1, 30) i;
CREATE TABLE planted.with_mood (feeling planted.mood PRIMARY KEY, n int);
INSERT INTO planted.with_mood VALUES ('good', 1);
CREATE INDEX plain ON planted.t ((planted.number('index expression')));
CREATE INDEX partial ON planted.t (id) WHERE planted.say('partial index');
CREATE UNIQUE INDEX one ON planted.t ((planted.number('unique expression') + id));
CREATE UNIQUE INDEX two ON planted.t (id) WHERE planted.say('unique predicate');
CREATE INDEX spans ON planted.t USING gist (span);
ALTER TABLE planted.t ADD CONSTRAINT excluded EXCLUDE USING btree ((planted.number('exclude') + id) WITH =);
CREATE STATISTICS planted.s ON (planted.number('statistics')), (id + planted.number('statistics of a column')) FROM planted.t;

CREATE TABLE planted.parent (id int NOT NULL, v int) PARTITION BY RANGE ((planted.number('partition key') + id));
CREATE TABLE planted.low PARTITION OF planted.parent FOR VALUES FROM (MINVALUE) TO (planted.number('partition bound') + 9);
CREATE TABLE planted.high PARTITION OF planted.parent FOR VALUES FROM (10) TO (MAXVALUE);
INSERT INTO planted.parent SELECT i, i FROM generate_series(1, 20) i;
CREATE TABLE planted.child (id serial PRIMARY KEY, t_id int REFERENCES planted.t, feeling planted.mood REFERENCES planted.with_mood);
INSERT INTO planted.child (t_id, feeling) SELECT i, 'good' FROM generate_series(1, 10) i;
ALTER TABLE planted.parent ADD FOREIGN KEY (v) REFERENCES planted.t;
CREATE INDEX of_parts ON planted.parent ((planted.number('index of partitions') + v));
CREATE TABLE planted.whole (id int PRIMARY KEY);
INSERT INTO planted.whole VALUES (1);
CREATE FUNCTION planted.is_whole(planted.whole) RETURNS bool LANGUAGE plpgsql AS
  $$ BEGIN RETURN planted.say('check of a row'); END $$;
ALTER TABLE planted.whole ADD CHECK (planted.is_whole(whole));
CREATE FUNCTION planted.leaves() RETURNS bool LANGUAGE plpgsql AS
  $$ BEGIN
    EXECUTE 'DECLARE left_behind CURSOR WITH HOLD FOR SELECT planted.say(''cursor that outlives the transaction'')';
    RETURN true;
  EXCEPTION WHEN duplicate_cursor THEN RETURN true; END $$;
CREATE TABLE planted.leaving (id int CHECK (planted.leaves()));
INSERT INTO planted.leaving VALUES (1);

-- Casts that no tree names: what makes JSON or a text of any value looks for them.
CREATE FUNCTION planted.as_json(planted.mood) RETURNS json LANGUAGE plpgsql IMMUTABLE AS
  $$ BEGIN PERFORM planted.say('cast to json'); RETURN '0'; END $$;
CREATE CAST (planted.mood AS json) WITH FUNCTION planted.as_json(planted.mood);
CREATE TABLE planted.told (id int PRIMARY KEY, feeling planted.mood, CHECK (to_jsonb(feeling) IS NOT NULL));
CREATE TABLE planted.joined (id int PRIMARY KEY, feeling planted.mood, CHECK (feeling || 'x' <> ''), CHECK (quote_literal(feeling) <> ''));
INSERT INTO planted.told VALUES (1, 'good');
INSERT INTO planted.joined VALUES (1, 'good');
-- Domains that only the input of another type asks.
CREATE DOMAIN planted.element AS text CHECK (planted.say('domain within an array'));
CREATE DOMAIN planted.field AS text CHECK (planted.say('domain within a row'));
CREATE TYPE planted.row AS (field planted.field);
CREATE CAST (text AS planted.row) WITH INOUT;
CREATE TABLE planted.nested (id int PRIMARY KEY, v text, CHECK (('{' || v || '}')::planted.element[] IS NOT NULL),
  CHECK (CAST('(' || v || ')' AS planted.row) IS NOT NULL));
INSERT INTO planted.nested VALUES (1, 'x');

-- A cast between rows, and an operator that only planning asks.
CREATE TYPE planted.metres AS (v int);
CREATE TYPE planted.feet AS (v int);
CREATE FUNCTION planted.to_feet(planted.metres) RETURNS planted.feet LANGUAGE plpgsql IMMUTABLE AS
  $$ BEGIN PERFORM planted.say('cast between rows'); RETURN ROW($1.v * 3); END $$;
CREATE CAST (planted.metres AS planted.feet) WITH FUNCTION planted.to_feet(planted.metres) AS IMPLICIT;
CREATE TABLE planted.lengths (id int PRIMARY KEY, m planted.metres, CHECK ((m::planted.feet).v > 0));
INSERT INTO planted.lengths VALUES (1, ROW(1));
CREATE INDEX of_feet ON planted.lengths (id) WHERE ((ROW(1)::planted.metres)::planted.feet).v > 0;
CREATE FUNCTION planted.equal(int, int) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS
  $$ BEGIN PERFORM planted.say('operator in statistics'); RETURN $1 = $2; END $$;
CREATE OPERATOR planted.~=~ (LEFTARG = int, RIGHTARG = int, FUNCTION = planted.equal);
CREATE STATISTICS planted.by_operator ON (1 OPERATOR(planted.~=~) 1), id FROM planted.t;

CREATE VIEW planted.seen AS SELECT id, planted.number('view') AS n FROM planted.t WHERE planted.say('view predicate')
  AND id OPERATOR(planted.===) 1;
CREATE VIEW planted.values_as_text AS SELECT '(1,x)'::planted.pair AS pair, '{y}'::planted.word[] AS words;
CREATE INDEX of_values ON planted.t (id) WHERE pair IS DISTINCT FROM '(2,z)'::planted.pair;
CREATE VIEW planted.summed AS SELECT planted.total(id) FROM planted.t;
CREATE MATERIALIZED VIEW planted.kept AS SELECT id, planted.number('materialized view') AS n FROM planted.t;
CREATE UNIQUE INDEX kept_one ON planted.kept ((planted.number('index of a materialized view') + id));
CREATE RULE noting AS ON UPDATE TO planted.t DO ALSO SELECT planted.number('rule');
CREATE FUNCTION planted.fires() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN PERFORM planted.say('trigger'); RETURN NEW; END $$;
CREATE TRIGGER fires BEFORE INSERT OR UPDATE OR DELETE ON planted.t FOR EACH ROW EXECUTE FUNCTION planted.fires();
CREATE TRIGGER fires_for_parts AFTER INSERT ON planted.parent FOR EACH ROW EXECUTE FUNCTION planted.fires();
ALTER TABLE planted.t ENABLE ROW LEVEL SECURITY;
CREATE POLICY reading ON planted.t USING (planted.say('policy'));
CREATE FUNCTION planted.body() RETURNS SETOF int LANGUAGE sql AS 'SELECT id FROM planted.t WHERE planted.say(''function body'')';
CREATE FUNCTION planted.given_by_default(n int DEFAULT planted.number('argument default')) RETURNS int LANGUAGE sql AS 'SELECT $1';
CREATE FOREIGN TABLE planted.far (id int DEFAULT planted.number('foreign table'), CHECK (planted.say('foreign check'))) SERVER planted_far;
";

/// The functions that tell. `set_config` in place of RESET ROLE, because an immutable function may say no utility statement;
/// what it did is taken back.
const FUNCTIONS: &str = r"
CREATE FUNCTION planted.say(place text) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE before text := current_setting('role'); ran_as text := current_user; became text := current_user;
BEGIN
  IF current_setting('planted.quiet', true) = 'on' THEN RETURN true; END IF;
  BEGIN
    PERFORM set_config('role', 'none', true);
    became := current_user;
    PERFORM set_config('role', before, true);
  EXCEPTION WHEN OTHERS THEN became := current_user; END;
  RAISE LOG 'planted|MARK|%|%|%|%', place, ran_as, became, session_user;
  RETURN true;
END $$;
CREATE FUNCTION planted.number(place text) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
  $$ BEGIN PERFORM planted.say(place); RETURN 1; END $$;
";

impl<'a, 'c> Planted<'a, 'c> {
    /// Lets a fresh role with CREATE on the database plant its code.
    pub fn plant(database: &'a Database<'c>) -> Planted<'a, 'c> {
        let role = format!("low_{}", database.name());
        let mut planted = Planted { database, role, seen: 0 };
        let role = psql::quote_ident(&planted.role);
        database.psql(&format!(
            "CREATE ROLE {role} LOGIN; GRANT CREATE, TEMPORARY ON DATABASE {} TO {role};
            CREATE EXTENSION postgres_fdw; CREATE SERVER planted_far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '/nowhere');
            GRANT USAGE ON FOREIGN SERVER planted_far TO {role};",
            psql::quote_ident(database.name())
        ));
        let functions = FUNCTIONS.replace("MARK", &planted.role);
        planted.psql(&format!("SET planted.quiet = on; CREATE SCHEMA planted; {functions} {PLACES}"));
        if database.cluster().major() >= 18 {
            planted.psql(
                "SET planted.quiet = on;
                CREATE TABLE planted.computed (id int PRIMARY KEY, n int GENERATED ALWAYS AS (id + 1) VIRTUAL)",
            );
        }
        if database.cluster().major() >= 15 {
            planted.psql("CREATE PUBLICATION planted_changes FOR TABLE planted.t WHERE (id > 0)");
        }
        planted.heard();
        planted
    }

    /// The places that `say` and `number` are called in, by their names.
    pub fn places() -> BTreeSet<&'static str> {
        let calls = ["planted.say('", "planted.number('", "planted.say(''"];
        let names = calls.iter().flat_map(|call| PLACES.split(call).skip(1));
        names.filter_map(|rest| rest.split('\'').next()).filter(|name| !name.is_empty()).collect()
    }

    /// The role.
    pub fn role(&self) -> &str {
        &self.role
    }

    /// Runs SQL as the role, in a session of its own.
    pub fn psql(&self, sql: &str) -> String {
        psql::run(&self.database.cluster().url_as(&self.role, self.database.name()), sql)
    }

    /// As whom its code ran since the last time, by place; more than one where it could become somebody else.
    pub fn heard(&mut self) -> BTreeMap<String, Vec<String>> {
        let log = self.database.cluster().log();
        let mark = format!("planted|{}|", self.role);
        let lines: Vec<&str> = log.lines().filter_map(|line| Some(line.split_once(&mark)?.1)).collect();
        let mut heard: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in &lines[self.seen..] {
            let words: Vec<&str> = line.split('|').collect();
            let roles = heard.entry(words[0].to_owned()).or_default();
            for role in &words[1..3] {
                if !roles.contains(&(*role).to_owned()) {
                    roles.push((*role).to_owned());
                }
            }
        }
        self.seen = lines.len();
        heard
    }

    /// Panics if its code ran as anybody but itself since the last time; gives the places that were heard of.
    #[track_caller]
    pub fn ran_only_as_itself(&mut self, after: &str) -> Vec<String> {
        let (own, strange) = self.heard_apart();
        assert!(strange.is_empty(), "after {after}, code of {} ran as: {strange:?}", self.role);
        own
    }

    /// The places since the last time whose code ran as the role alone, and the others with whom they ran as.
    pub fn heard_apart(&mut self) -> (Vec<String>, BTreeMap<String, Vec<String>>) {
        let (own, strange): (BTreeMap<_, _>, BTreeMap<_, _>) =
            self.heard().into_iter().partition(|(_, roles)| roles.as_slice() == [self.role.clone()]);
        (own.into_keys().collect(), strange)
    }

    /// Drops the role, here and in every database of the family.
    pub fn remove(self) {
        let role = psql::quote_ident(&self.role);
        for name in self.database.family() {
            psql::run(
                &self.database.cluster().url(&name),
                &format!(
                    "SET default_transaction_read_only = off; DROP OWNED BY {role} CASCADE; DROP SERVER IF EXISTS planted_far CASCADE"
                ),
            );
        }
        self.database.cluster().psql(&format!("DROP ROLE {role}"));
    }
}
