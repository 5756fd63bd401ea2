//! Random databases: the same seed and major version always make the same script.
//!
//! Decides names, types, tables, rows and what stands on them. Everything that it writes must load: an error is one of
//! the generator, never ignored. Kept out on purpose, since pg_dump itself does not bring it back: columns added to a
//! parent after its child (their order), names of foreign keys on partitions, a partition's `DEFAULT NULL`, predicates
//! like `varchar IN (…)` that are re-spelt, and materialized views that are stale. Kept out too, since two databases
//! would differ by themselves: defaults that depend on the clock or on chance.

use crate::psql::{quote_ident, quote_literal};

mod objects;
mod strangers;
mod values;

use values::{Class, Type, builtin_types, word};

/// A random database.
pub struct RandomSchema {
    /// The script, for psql and a superuser; the roles of [`crate::fixtures::ROLES`] come first.
    pub sql: String,
    /// Partitioned tables in which a row's leaf depends on object ids, as the hash of an enum does; quoted.
    pub moving: Vec<String>,
}

/// A small generator of random numbers (splitmix64): the same on every machine and forever.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `end`.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("less than a usize")
    }

    fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

#[derive(Clone)]
struct Column {
    /// Quoted.
    name: String,
    kind: Type,
    /// Everything after the type.
    rest: String,
    not_null: bool,
    /// Whether an INSERT names it: neither generated nor left to its sequence.
    inserted: bool,
    generated: bool,
}

impl Column {
    fn definition(&self) -> String {
        format!("{} {} {}", self.name, self.kind.sql, self.rest)
    }
}

struct Table {
    /// Schema and name, quoted.
    name: String,
    /// The first is the key, a bigint that fills itself.
    columns: Vec<Column>,
    partitioned_by: Vec<usize>,
    inherited: bool,
    owner_changes: bool,
    /// Columns that are a key together.
    keys: Vec<Vec<usize>>,
}

struct Generator {
    random: Random,
    major: u32,
    sql: String,
    /// Names given so far: one pool for all kinds, as types, tables and indexes share theirs.
    names: std::collections::BTreeSet<String>,
    schemas: Vec<String>,
    types: Vec<Type>,
    enums: Vec<Type>,
    /// Immutable, text to text.
    function: String,
    trigger_function: String,
    tables: Vec<Table>,
    moving: Vec<String>,
}

const OWNER: &str = "safe_run_test_owner";
const GRANTEES: [&str; 3] = ["safe_run_test_reader", "\"safe_run_test_o'dd \"\"role\"\"\"", "PUBLIC"];

/// Makes the database of this seed.
pub fn random_schema(seed: u64, major: u32) -> RandomSchema {
    let mut generator = Generator {
        random: Random(seed),
        major,
        sql: crate::fixtures::ROLES.to_owned(),
        names: ["log", "public"].map(str::to_owned).into(),
        schemas: vec!["public".to_owned()],
        types: builtin_types(major),
        enums: Vec::new(),
        function: String::new(),
        trigger_function: String::new(),
        tables: Vec::new(),
        moving: Vec::new(),
    };
    generator.schemas();
    generator.functions();
    generator.user_types();
    for _ in 0..3 + generator.random.below(4) {
        generator.plain_table();
    }
    for _ in 0..2 + generator.random.below(2) {
        generator.partitioned_table();
    }
    generator.inheritance();
    generator.sequences();
    for table in 0..generator.tables.len() {
        generator.rows(table);
        generator.late_columns(table);
    }
    generator.foreign_keys();
    for table in 0..generator.tables.len() {
        generator.constraints(table);
        generator.indexes(table);
        generator.triggers(table);
        generator.decorations(table);
    }
    generator.views();
    generator.large_objects();
    generator.database_objects();
    generator.strangers();
    RandomSchema { sql: generator.sql, moving: generator.moving }
}

impl Generator {
    fn line(&mut self, statement: &str) {
        self.sql.push_str(statement);
        self.sql.push_str(";\n");
    }

    /// A new odd name, quoted.
    fn name(&mut self) -> String {
        let mut name = word(&mut self.random, 55);
        if name.is_empty() || !self.names.insert(name.clone()) {
            name = format!("{name}{}", self.names.len());
            self.names.insert(name.clone());
        }
        // To the last byte that a name may have.
        if self.random.percent(10) {
            let fill = if self.random.percent(50) { 'ß' } else { 'x' };
            while name.len() + fill.len_utf8() <= 63 {
                name.push(fill);
            }
            while name.len() < 63 {
                name.push('_');
            }
            if !self.names.insert(name.clone()) {
                return self.name();
            }
        }
        quote_ident(&name)
    }

    fn qualified(&mut self) -> String {
        let schema = self.random.pick(&self.schemas).clone();
        format!("{schema}.{}", self.name())
    }

    fn nasty(&mut self) -> String {
        quote_literal(&word(&mut self.random, 200))
    }

    fn schemas(&mut self) {
        for _ in 0..2 + self.random.below(2) {
            let name = self.name();
            self.line(&format!("CREATE SCHEMA {name}"));
            self.line(&format!("GRANT USAGE ON SCHEMA {name} TO {OWNER}"));
            let comment = self.nasty();
            self.line(&format!("COMMENT ON SCHEMA {name} IS {comment}"));
            self.schemas.push(name);
        }
    }

    fn functions(&mut self) {
        self.line("CREATE TABLE public.log (id bigint GENERATED ALWAYS AS IDENTITY, what text)");
        self.line(&format!("GRANT INSERT ON public.log TO {OWNER}"));
        let name = self.qualified();
        let atomic = self.random.percent(50);
        self.line(&match !atomic {
            true => format!("CREATE FUNCTION {name}(text) RETURNS text LANGUAGE sql IMMUTABLE STRICT AS $$SELECT lower($1) || ';--'$$"),
            false => format!("CREATE FUNCTION {name}(a text) RETURNS text LANGUAGE sql IMMUTABLE BEGIN ATOMIC SELECT upper(a) || '\"'; END"),
        });
        self.function = name;
        let name = self.qualified();
        self.line(&format!(
            "CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               INSERT INTO public.log (what) VALUES (TG_NAME || TG_OP || coalesce(TG_ARGV[0], '')); RETURN NEW; END $$"
        ));
        self.trigger_function = name;
    }

    fn user_types(&mut self) {
        for _ in 0..2 {
            let name = self.qualified();
            let mut labels: Vec<String> = Vec::new();
            while labels.len() < 3 + self.random.below(4) {
                let label = word(&mut self.random, 60);
                if !labels.contains(&label) && !label.is_empty() {
                    labels.push(label);
                }
            }
            let list: Vec<String> = labels.iter().map(|label| quote_literal(label)).collect();
            self.line(&format!("CREATE TYPE {name} AS ENUM ({})", list[1..].join(", ")));
            self.line(&format!("ALTER TYPE {name} ADD VALUE {} BEFORE {}", list[0], list[list.len() - 1]));
            self.enums.push(Type::of(&name, Class::Literals(list), 2));
        }
        self.types.extend(self.enums.clone());
        for _ in 0..2 + self.random.below(3) {
            let base = self.random.pick(&self.types).clone();
            let name = self.qualified();
            let default = values::constant(&mut self.random, &base);
            let check = match base.rank {
                // Operators of ranges and enums are not found for domains over them.
                _ if base.is_domain() || base.rank == 0 => "VALUE IS NOT NULL OR VALUE IS NULL".to_owned(),
                _ => format!(
                    "VALUE IS NULL OR VALUE = VALUE OR VALUE <> {}",
                    values::value(&mut self.random, &base)
                ),
            };
            self.line(&format!("CREATE DOMAIN {name} AS {} DEFAULT {default} CHECK ({check})", base.sql));
            let rank = base.rank;
            self.types.push(Type::of(&name, Class::Domain(Box::new(base)), rank));
        }
        for _ in 0..1 + self.random.below(3) {
            let fields: Vec<Type> =
                (0..1 + self.random.below(4)).map(|_| self.random.pick(&self.types).clone()).collect();
            let name = self.qualified();
            let list: Vec<String> =
                fields.iter().map(|field| format!("{} {}", self.name(), field.sql)).collect();
            self.line(&format!("CREATE TYPE {name} AS ({})", list.join(", ")));
            // Never a key: comparing rows of rows of domains is PostgreSQL's own adventure.
            self.types.push(Type::of(&name, Class::Composite(fields), 0));
        }
        let (name, multi) = (self.qualified(), self.name());
        let schema = self.random.pick(&self.schemas).clone();
        self.line(&format!(
            "CREATE TYPE {name} AS RANGE (SUBTYPE = text, COLLATION = \"C\", MULTIRANGE_TYPE_NAME = {schema}.{multi})"
        ));
        let values = ["empty", "[a,b)", "(,)", "[\"\",\"a,\\\"\\\\b\")", "(\"\n\",é]"];
        let range = Type::of(&name, Class::Literals(values.map(quote_literal).into()), 2);
        let sets = ["{}", "{[a,b),[c,d)}", "{(,)}"];
        let multirange =
            Type::of(&format!("{schema}.{multi}"), Class::Literals(sets.map(quote_literal).into()), 2);
        self.types.extend([range, multirange]);
        // Arrays of anything there is by now.
        for _ in 0..6 {
            let of = self.random.pick(&self.types).clone();
            if !of.is_array() {
                let name = format!("{}[]", of.sql);
                self.types.push(Type::of(&name, Class::Array(Box::new(of)), 0));
            }
        }
    }

    /// The key, and some columns of random types.
    fn columns(&mut self, identity: bool) -> Vec<Column> {
        let int8 = Type::of("bigint", Class::Literals(Vec::new()), 2);
        let start = 1 + self.random.below(1_000_000);
        let rest = match self.random.below(if identity { 4 } else { 2 }) {
            0 | 1 => {
                let sequence = self.qualified();
                let (step, cache) = (1 + self.random.below(7), 1 + self.random.below(3));
                self.line(&format!(
                    "CREATE SEQUENCE {sequence} START {start} INCREMENT {step} CACHE {cache}"
                ));
                format!("DEFAULT nextval({}) NOT NULL", quote_literal(&sequence))
            }
            2 => format!("GENERATED ALWAYS AS IDENTITY (START WITH {start})"),
            _ => format!("GENERATED BY DEFAULT AS IDENTITY (START WITH {start} INCREMENT BY 3)"),
        };
        let name = self.name();
        let mut columns =
            vec![Column { name, kind: int8, rest, not_null: true, inserted: false, generated: false }];
        for _ in 0..1 + self.random.below(9) {
            let kind = self.random.pick(&self.types).clone();
            let not_null = self.random.percent(20);
            let default = match () {
                () if kind.sql == "text" && self.random.percent(50) => {
                    let argument = self.nasty();
                    format!("DEFAULT {}({argument})", self.function)
                }
                // NOT NULL with a default, so that a row of nothing but defaults can be written.
                () if not_null || self.random.percent(40) => {
                    format!("DEFAULT {}", values::constant(&mut self.random, &kind))
                }
                () => String::new(),
            };
            let collate = if kind.sql == "text" && self.random.percent(20) { "COLLATE \"C\" " } else { "" };
            let null = if not_null { " NOT NULL" } else { "" };
            let name = self.name();
            let rest = format!("{collate}{default}{null}");
            columns.push(Column { name, kind, rest, not_null, inserted: true, generated: false });
        }
        columns
    }

    fn generated_columns(&mut self, columns: &mut Vec<Column>) {
        let key = columns[0].name.clone();
        let text = columns.iter().find(|column| column.kind.sql == "text").map(|column| column.name.clone());
        let virtual_too = self.major >= 18;
        let mut add = |generator: &mut Generator, sql: &str, expression: &str, simple: bool| {
            // Virtual columns may use neither user-defined types nor functions.
            let keyword =
                if virtual_too && simple && generator.random.percent(50) { "VIRTUAL" } else { "STORED" };
            let rank = if keyword == "STORED" { 2 } else { 0 };
            let name = generator.name();
            let kind = Type::of(sql, Class::Literals(Vec::new()), rank);
            let rest = format!("GENERATED ALWAYS AS ({expression}) {keyword}");
            columns.push(Column { name, kind, rest, not_null: false, inserted: false, generated: true });
        };
        if self.random.percent(40) {
            add(self, "int8range", &format!("int8range({key} * 10, {key} * 10 + 5)"), false);
        }
        if self.random.percent(30) {
            add(self, "numeric", &format!("{key}::numeric * 1.50"), true);
        }
        if let Some(text) = text.filter(|_| self.random.percent(70)) {
            let function = self.function.clone();
            match self.random.percent(50) {
                true => add(self, "text", &format!("{function}({text})"), false),
                false => add(self, "text", &format!("md5({text}) || 'x'"), true),
            }
        }
    }

    fn plain_table(&mut self) {
        let name = self.qualified();
        let mut columns = self.columns(true);
        self.generated_columns(&mut columns);
        let unlogged = if self.random.percent(10) { "UNLOGGED " } else { "" };
        let with =
            if self.random.percent(20) { " WITH (fillfactor = 70, autovacuum_enabled = false)" } else { "" };
        let list: Vec<String> = columns.iter().map(Column::definition).collect();
        self.line(&format!("CREATE {unlogged}TABLE {name} ({}){with}", list.join(", ")));
        let owner_changes = unlogged.is_empty() && self.random.percent(15);
        self.tables.push(Table {
            name,
            columns,
            partitioned_by: Vec::new(),
            inherited: false,
            // Also left out of foreign keys, which an unlogged table could not have with a logged one.
            owner_changes: owner_changes || !unlogged.is_empty(),
            keys: Vec::new(),
        });
    }

    fn inheritance(&mut self) {
        let parent = self.qualified();
        let columns = self.columns(false);
        let list: Vec<String> = columns.iter().map(Column::definition).collect();
        self.line(&format!("CREATE TABLE {parent} ({})", list.join(", ")));
        let mut children = Vec::new();
        for _ in 0..1 + self.random.below(2) {
            let name = self.qualified();
            let more = self.columns(false).split_off(1);
            let list: Vec<String> = more.iter().map(Column::definition).collect();
            self.line(&format!("CREATE TABLE {name} ({}) INHERITS ({parent})", list.join(", ")));
            children.push((name, [columns.clone(), more].concat()));
        }
        children.push((parent, columns));
        for (name, columns) in children {
            let keys = Vec::new();
            let table = Table {
                name,
                columns,
                partitioned_by: Vec::new(),
                inherited: true,
                owner_changes: false,
                keys,
            };
            self.tables.push(table);
        }
    }

    /// What PARTITION BY says, and the bounds of the partitions, for a new column of a fitting type.
    fn partitioning(&mut self, columns: &mut Vec<Column>) -> (String, Vec<String>, bool) {
        let bounds = |list: &[&str]| list.iter().map(|&bound| bound.to_owned()).collect::<Vec<_>>();
        let enum_type = self.random.pick(&self.enums.clone()).clone();
        let literals =
            |values: &[&str]| Class::Literals(values.iter().map(|value| quote_literal(value)).collect());
        let mut moves = false;
        let (kind, by, list) = match self.random.below(6) {
            0 => (
                Type::of(
                    "int",
                    literals(&["-2147483648", "-11", "-10", "0", "9", "10", "55", "2147483647"]),
                    2,
                ),
                "RANGE",
                bounds(&[
                    "FOR VALUES FROM (MINVALUE) TO (-10)",
                    "FOR VALUES FROM (-10) TO (10)",
                    "FOR VALUES FROM (10) TO (100)",
                    "DEFAULT",
                ]),
            ),
            1 => (
                Type::of(
                    "timestamptz",
                    literals(&[
                        "-infinity",
                        "4713-01-01 00:00:00+00 BC",
                        "2024-10-27 02:30:00+02",
                        "2025-06-01 00:00+00",
                        "infinity",
                    ]),
                    2,
                ),
                "RANGE",
                bounds(&[
                    "FOR VALUES FROM (MINVALUE) TO ('2024-01-01 00:00+00')",
                    "FOR VALUES FROM ('2024-01-01 00:00+00') TO ('2025-01-01 00:00+00')",
                    "DEFAULT",
                ]),
            ),
            2 => (
                Type::of("text", literals(&["", "a", "it's", "\\", "new\nline", "Ω", "zz"]), 2),
                "LIST",
                bounds(&[
                    "FOR VALUES IN ('', 'a')",
                    "FOR VALUES IN ('it''s', E'new\\nline')",
                    "FOR VALUES IN (E'\\\\')",
                    "DEFAULT",
                ]),
            ),
            3 => {
                let Class::Literals(labels) = &enum_type.class else { unreachable!("an enum has labels") };
                let list = vec![
                    format!("FOR VALUES IN ({})", labels[0]),
                    format!("FOR VALUES IN ({})", labels[1..2].join(", ")),
                    "DEFAULT".to_owned(),
                ];
                (enum_type.clone(), "LIST", list)
            }
            hash => {
                let kind = match (hash, self.random.below(3)) {
                    (4, 0) => {
                        moves = true;
                        enum_type
                    }
                    (4, 1) => {
                        moves = true;
                        Type::of(&format!("{}[]", enum_type.sql), Class::Array(Box::new(enum_type)), 2)
                    }
                    (4, _) => {
                        moves = true;
                        let name = self.qualified();
                        self.line(&format!("CREATE DOMAIN {name} AS {}", enum_type.sql));
                        Type::of(&name, Class::Domain(Box::new(enum_type)), 2)
                    }
                    _ => builtin_types(self.major)
                        .into_iter()
                        .filter(|kind| kind.rank == 2)
                        .nth(self.random.below(12))
                        .expect("more than a dozen"),
                };
                let list = bounds(&[
                    "FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
                    "FOR VALUES WITH (MODULUS 4, REMAINDER 1)",
                    "FOR VALUES WITH (MODULUS 4, REMAINDER 3)",
                ]);
                (kind, "HASH", list)
            }
        };
        let default = format!("DEFAULT {} NOT NULL", values::constant(&mut self.random, &kind));
        let name = self.name();
        let clause = format!("{by} ({name})");
        columns.push(Column { name, kind, rest: default, not_null: true, inserted: true, generated: false });
        (clause, list, moves)
    }

    fn partitioned_table(&mut self) {
        let root = self.qualified();
        // Partitions of an identity column have it since 17 only, and may then not be attached with one.
        let mut columns = self.columns(false);
        let (clause, bounds, mut moves) = self.partitioning(&mut columns);
        let mut partitioned_by = vec![columns.len() - 1];
        let below = self.random.percent(50).then(|| {
            let below = self.partitioning(&mut columns);
            partitioned_by.push(columns.len() - 1);
            moves |= below.2;
            below
        });
        self.generated_columns(&mut columns);
        let list: Vec<String> = columns.iter().map(Column::definition).collect();
        self.line(&format!("CREATE TABLE {root} ({}) PARTITION BY {clause}", list.join(", ")));
        for (number, bound) in bounds.iter().enumerate() {
            let leaf = self.qualified();
            if let Some((clause, bounds, _)) = below.as_ref().filter(|_| number == 0) {
                self.line(&format!("CREATE TABLE {leaf} PARTITION OF {root} {bound} PARTITION BY {clause}"));
                for bound in bounds {
                    let name = self.qualified();
                    self.line(&format!("CREATE TABLE {name} PARTITION OF {leaf} {bound}"));
                }
            } else if self.random.percent(30) {
                // Another order of columns than the root's, and a hole in it.
                let mut list = list.clone();
                list.reverse();
                let hole = self.name();
                self.line(&format!("CREATE TABLE {leaf} ({hole} int, {})", list.join(", ")));
                self.line(&format!("ALTER TABLE {leaf} DROP COLUMN {hole}"));
                self.line(&format!("ALTER TABLE {root} ATTACH PARTITION {leaf} {bound}"));
            } else {
                self.line(&format!("CREATE TABLE {leaf} PARTITION OF {root} {bound}"));
            }
        }
        if moves {
            self.moving.push(root.clone());
        }
        self.tables.push(Table {
            name: root,
            columns,
            partitioned_by,
            inherited: false,
            owner_changes: false,
            keys: Vec::new(),
        });
    }

    fn sequences(&mut self) {
        for _ in 0..3 {
            let name = self.qualified();
            let options = [
                "AS smallint INCREMENT -3 MINVALUE -30000 MAXVALUE -5 CYCLE",
                "START 9223372036854775000 CACHE 20",
                "MINVALUE 5 MAXVALUE 9 CYCLE",
                "AS int",
            ];
            let options = *self.random.pick(&options);
            self.line(&format!("CREATE SEQUENCE {name} {options}"));
            match self.random.below(3) {
                0 => self.line(&format!("SELECT nextval({}) \\g /dev/null\n", quote_literal(&name))),
                1 => self.line(&format!(
                    "SELECT setval({}, start_value, false) FROM (SELECT seqstart AS start_value FROM pg_sequence WHERE seqrelid = {}::regclass) AS s \\g /dev/null\n",
                    quote_literal(&name), quote_literal(&name)
                )),
                _ => {}
            }
        }
    }

    fn rows(&mut self, table: usize) {
        let count = *self.random.pick(&[0, 1, 5, 20, 40]);
        let columns: Vec<Column> =
            self.tables[table].columns.iter().filter(|column| column.inserted).cloned().collect();
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let (name, names) = (self.tables[table].name.clone(), names.join(", "));
        let mut rows = Vec::new();
        for _ in 0..count {
            let mut row = Vec::new();
            for column in &columns {
                row.push(match () {
                    () if !column.not_null && self.random.percent(20) => "NULL".to_owned(),
                    () => values::value(&mut self.random, &column.kind),
                });
            }
            rows.push(format!("({})", row.join(", ")));
        }
        if count > 0 {
            self.line(&format!("INSERT INTO {name} ({names}) VALUES\n{}", rows.join(",\n")));
            if self.random.percent(50) {
                // Many pages, so that there are many chunks.
                let times = 5 + self.random.below(20);
                self.line(&format!(
                    "INSERT INTO {name} ({names}) SELECT {names} FROM {name}, generate_series(1, {times})"
                ));
            }
            if self.random.percent(30) {
                let key = &self.tables[table].columns[0].name;
                self.line(&format!("DELETE FROM {name} WHERE {key} % 3 = 0"));
            }
        }
    }

    /// Columns dropped, and columns added to rows that exist: these have the value without being written again.
    fn late_columns(&mut self, table: usize) {
        if self.tables[table].inherited || !self.tables[table].partitioned_by.is_empty() {
            return;
        }
        let name = self.tables[table].name.clone();
        if self.random.percent(40) {
            let kind = self.random.pick(&self.types).clone();
            let value = values::constant(&mut self.random, &kind);
            let column = self.name();
            let rest = format!("DEFAULT {value}");
            self.line(&format!("ALTER TABLE {name} ADD COLUMN {column} {} {rest}", kind.sql));
            self.tables[table].columns.push(Column {
                name: column,
                kind,
                rest,
                not_null: false,
                inserted: true,
                generated: false,
            });
        }
        let depended_on = self.tables[table].columns.iter().any(|column| column.generated);
        if self.random.percent(40) && self.tables[table].columns.len() > 2 && !depended_on {
            let gone = self.tables[table].columns.remove(1);
            self.line(&format!("ALTER TABLE {name} DROP COLUMN {}", gone.name));
        }
    }
}
