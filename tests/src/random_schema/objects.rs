//! What stands on tables that have their rows: keys, constraints, indexes, triggers, views, grants; and large objects.

use super::{Column, GRANTEES, Generator, OWNER, Table};

impl Generator {
    /// Keys first, then columns that point to them, in any direction: to itself and in circles too.
    pub(super) fn foreign_keys(&mut self) {
        for table in 0..self.tables.len() {
            let mut key: Vec<usize> = vec![0];
            key.extend(&self.tables[table].partitioned_by);
            if self.random.percent(70) {
                let kind = if self.random.percent(70) { "PRIMARY KEY" } else { "UNIQUE" };
                let deferrable = self.random.percent(15);
                self.add_key(table, key.clone(), kind, deferrable);
            }
            let other = (1..self.tables[table].columns.len())
                .find(|&index| !key.contains(&index) && self.tables[table].columns[index].kind.rank > 0);
            if let Some(other) = other.filter(|_| self.random.percent(50)) {
                key.push(other);
                let distinct = self.major >= 15 && self.random.percent(30);
                self.add_key(
                    table,
                    key,
                    if distinct { "UNIQUE NULLS NOT DISTINCT" } else { "UNIQUE" },
                    false,
                );
            }
        }
        for table in 0..self.tables.len() {
            if self.tables[table].inherited || self.tables[table].owner_changes {
                continue;
            }
            for _ in 0..self.random.below(3) {
                let target = self.random.below(self.tables.len());
                if self.tables[target].keys.is_empty() || self.tables[target].owner_changes {
                    continue;
                }
                let key = self.random.pick(&self.tables[target].keys.clone()).clone();
                self.foreign_key(table, target, &key);
            }
        }
    }

    fn add_key(&mut self, table: usize, key: Vec<usize>, kind: &str, deferrable: bool) {
        let constraint = self.name();
        let Table { name, columns, .. } = &self.tables[table];
        let list: Vec<&str> = key.iter().map(|&index| columns[index].name.as_str()).collect();
        let late = if deferrable { " DEFERRABLE INITIALLY DEFERRED" } else { "" };
        let statement =
            format!("ALTER TABLE {name} ADD CONSTRAINT {constraint} {kind} ({}){late}", list.join(", "));
        self.line(&statement);
        // A foreign key can't point to a deferrable one, nor compare domains over enums and ranges.
        if !deferrable && !key.iter().any(|&index| self.tables[table].columns[index].kind.is_domain()) {
            self.tables[table].keys.push(key);
        }
    }

    fn foreign_key(&mut self, table: usize, target: usize, key: &[usize]) {
        let (name, target_name) = (self.tables[table].name.clone(), self.tables[target].name.clone());
        let columns: Vec<Column> =
            key.iter().map(|&index| self.tables[target].columns[index].clone()).collect();
        let mut names = Vec::new();
        for column in &columns {
            let new = self.name();
            // The collation of the referenced column, which it must equal in newer versions.
            let collate = if column.rest.starts_with("COLLATE") { " COLLATE \"C\"" } else { "" };
            self.line(&format!("ALTER TABLE {name} ADD COLUMN {new} {}{collate}", column.kind.sql));
            names.push(new);
        }
        let there: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let own = self.tables[table].columns[0].name.clone();
        let (here, there) = (names.join(", "), there.join(", "));
        // Keys are unique in a parent alone, and its foreign keys see no children.
        let only = if self.tables[target].inherited { "ONLY " } else { "" };
        self.line(&format!(
            "UPDATE {name} AS a SET ({here}) = (SELECT {there} FROM {only}{target_name} AS b ORDER BY b.{} OFFSET a.{own} % 7 LIMIT 1) WHERE a.{own} % 4 <> 0",
            columns[0].name
        ));
        let constraint = self.name();
        let action =
            *self.random.pick(&["", " ON DELETE CASCADE", " ON UPDATE SET NULL", " ON DELETE RESTRICT"]);
        let late = *self.random.pick(&["", " DEFERRABLE", " DEFERRABLE INITIALLY DEFERRED"]);
        // Not on partitioned tables before 18.
        let plain = self.tables[table].partitioned_by.is_empty();
        let state = match self.random.below(8) {
            0 if plain => " NOT VALID",
            1 if plain && self.major >= 18 => " NOT ENFORCED",
            _ => "",
        };
        if state == " NOT VALID" && columns.len() == 1 {
            // An orphan, which is older than the constraint.
            self.line(&format!("UPDATE {name} SET {here} = -7 WHERE {own} % 4 = 0"));
        }
        self.line(&format!(
            "ALTER TABLE {name} ADD CONSTRAINT {constraint} FOREIGN KEY ({here}) REFERENCES {target_name} ({there}){action}{late}{state}"
        ));
    }

    pub(super) fn constraints(&mut self, table: usize) {
        let Table { name, columns, partitioned_by, .. } = &self.tables[table];
        let (name, columns, partitioned) = (name.clone(), columns.clone(), !partitioned_by.is_empty());
        for _ in 0..self.random.below(3) {
            let column = self.random.pick(&columns).clone();
            let constraint = self.name();
            let check = match column.kind.sql.as_str() {
                "text" => format!(
                    "octet_length({}) >= 0 AND {}({0}) IS DISTINCT FROM E'never\\n'",
                    column.name, self.function
                ),
                _ if column.kind.rank > 0 && !column.kind.is_domain() => {
                    format!("{0} = {0} OR {0} IS NULL", column.name)
                }
                // IS NULL and IS NOT NULL are both false for a row with some NULLs in it.
                _ => format!("num_nulls({}) <= 1", column.name),
            };
            let check = if column.generated {
                format!("{} IS NOT DISTINCT FROM {0}", columns[0].name)
            } else {
                check
            };
            let end = if self.random.percent(15) { " NOT VALID" } else { "" };
            self.line(&format!("ALTER TABLE {name} ADD CONSTRAINT {constraint} CHECK ({check}){end}"));
        }
        if self.random.percent(15) && !partitioned {
            // Rows that break it may be there already.
            let (constraint, key) = (self.name(), &columns[0].name);
            let state =
                if self.major >= 18 && self.random.percent(50) { "NOT ENFORCED" } else { "NOT VALID" };
            self.line(&format!(
                "ALTER TABLE {name} ADD CONSTRAINT {constraint} CHECK ({key} % 2 = 0) {state}"
            ));
        }
        if let Some(range) = columns.iter().find(|column| column.kind.sql == "int8range" && column.generated)
            && !partitioned
        {
            let constraint = self.name();
            let late = if self.random.percent(50) { " DEFERRABLE INITIALLY DEFERRED" } else { "" };
            let statement = format!(
                "ALTER TABLE {name} ADD CONSTRAINT {constraint} EXCLUDE USING gist ({} WITH &&) WHERE ({} > 10){late}",
                range.name, columns[0].name
            );
            self.line(&statement);
        }
    }

    pub(super) fn indexes(&mut self, table: usize) {
        let Table { name, columns, .. } = &self.tables[table];
        let (name, columns) = (name.clone(), columns.clone());
        for _ in 0..self.random.below(4) {
            let column = self.random.pick(&columns).clone();
            let (index, key) = (self.name(), columns[0].name.clone());
            let sql = column.kind.sql.as_str();
            let virtual_column = column.rest.ends_with("VIRTUAL");
            let text = match (sql, self.random.below(4)) {
                _ if virtual_column => format!("({key}) INCLUDE ({key})"),
                ("text", 0) => format!("({}({}) COLLATE \"C\" DESC)", self.function, column.name),
                ("text", 1) => format!("({} text_pattern_ops)", column.name),
                ("jsonb", _) => format!("USING gin ({} jsonb_path_ops)", column.name),
                ("tsvector", _) => format!("USING gin ({})", column.name),
                ("point", _) => format!("USING spgist ({} kd_point_ops)", column.name),
                ("int[]", _) => format!("USING gin ({})", column.name),
                ("inet", _) => format!("USING gist ({} inet_ops)", column.name),
                (_, 2) => format!(
                    "(({key} * 2), {key} DESC NULLS LAST) INCLUDE ({key}) WHERE ({} IS NOT NULL)",
                    column.name
                ),
                (_, 3) => format!("USING brin ({key}) WITH (pages_per_range = 4)"),
                _ if column.kind.rank == 2 && self.random.percent(40) => {
                    format!("USING hash ({})", column.name)
                }
                _ if column.kind.rank > 0 => format!("({} NULLS FIRST, {key})", column.name),
                _ => format!("(({} IS NULL), {key})", column.name),
            };
            self.line(&format!("CREATE INDEX {index} ON {name} {text}"));
            if self.random.percent(20) {
                let comment = self.nasty();
                let schema = schema_of(&name).to_owned();
                self.line(&format!("COMMENT ON INDEX {schema}.{index} IS {comment}"));
            }
        }
    }

    pub(super) fn triggers(&mut self, table: usize) {
        let (name, function) = (self.tables[table].name.clone(), self.trigger_function.clone());
        for _ in 0..self.random.below(3) {
            let trigger = self.name();
            let argument = self.nasty();
            let (when, each) =
                *self.random.pick(&[("BEFORE", "ROW"), ("AFTER", "ROW"), ("AFTER", "STATEMENT")]);
            // An argument is an identifier or a plain constant: no E'' is lost on the way.
            self.line(&format!("CREATE TRIGGER {trigger} {when} INSERT OR UPDATE ON {name} FOR EACH {each} EXECUTE FUNCTION {function}({argument})"));
            if self.tables[table].partitioned_by.is_empty() {
                let state = *self.random.pick(&["ENABLE", "ENABLE ALWAYS", "ENABLE REPLICA", "DISABLE"]);
                self.line(&format!("ALTER TABLE {name} {state} TRIGGER {trigger}"));
            }
        }
    }

    pub(super) fn decorations(&mut self, table: usize) {
        let Table { name, columns, partitioned_by, .. } = &self.tables[table];
        let (name, columns, partitioned) = (name.clone(), columns.clone(), !partitioned_by.is_empty());
        let column = self.random.pick(&columns).clone();
        let comment = self.nasty();
        match self.random.percent(50) {
            true => self.line(&format!("COMMENT ON TABLE {name} IS {comment}")),
            false => self.line(&format!("COMMENT ON COLUMN {name}.{} IS {comment}", column.name)),
        }
        let grantee = *self.random.pick(&GRANTEES);
        match self.random.below(4) {
            0 => self.line(&format!("GRANT SELECT, INSERT ({}) ON {name} TO {grantee}", column.name)),
            1 if grantee != "PUBLIC" => {
                self.line(&format!("GRANT ALL ON {name} TO {grantee} WITH GRANT OPTION"));
            }
            2 => self.line(&format!("REVOKE ALL ON {name} FROM postgres")),
            _ => {}
        }
        if self.random.percent(15) {
            let policy = self.name();
            self.line(&format!(
                "CREATE POLICY {policy} ON {name} FOR SELECT TO {OWNER} USING ({} IS NOT NULL)",
                columns[0].name
            ));
            self.line(&format!("ALTER TABLE {name} ENABLE ROW LEVEL SECURITY"));
        }
        if self.random.percent(20) {
            let statistics = self.qualified();
            self.line(&format!(
                "CREATE STATISTICS {statistics} ON ({} % 10), ({0} + 1) FROM {name}",
                columns[0].name
            ));
        }
        if self.random.percent(20) && !partitioned {
            self.line(&format!("ALTER TABLE {name} REPLICA IDENTITY FULL"));
        }
        if self.random.percent(15) {
            self.line(&format!("ALTER TABLE {name} ALTER COLUMN {} SET STATISTICS 77", columns[0].name));
        }
        if let Some(bytes) = columns.iter().find(|column| column.kind.sql == "bytea") {
            self.line(&format!("ALTER TABLE {name} ALTER COLUMN {} SET STORAGE EXTERNAL", bytes.name));
        }
        if self.tables[table].owner_changes {
            self.line(&format!("ALTER TABLE {name} OWNER TO {OWNER}"));
        }
    }

    /// Last of all that reads rows, so that no materialized view is stale.
    pub(super) fn views(&mut self) {
        let mut readable: Vec<(String, String)> =
            self.tables.iter().map(|table| (table.name.clone(), table.columns[0].name.clone())).collect();
        for _ in 0..3 + self.random.below(4) {
            let (from, key) = self.random.pick(&readable).clone();
            let (name, count) = (self.qualified(), self.name());
            let body = match self.random.below(4) {
                0 => format!("SELECT * FROM {from} WHERE {key} > 3"),
                1 => format!("SELECT {key}, count(*) AS {count} FROM {from} GROUP BY {key}"),
                2 => {
                    let (other, joined) = self.random.pick(&readable).clone();
                    format!(
                        "SELECT a.{key}, row_number() OVER (ORDER BY a.{key}, b.{joined}) AS {count} FROM {from} a LEFT JOIN {other} b ON a.{key} = b.{joined}"
                    )
                }
                _ => format!(
                    "WITH w AS (SELECT {key}, {}({key}::text) AS {count} FROM {from}) SELECT * FROM w",
                    self.function
                ),
            };
            match self.random.below(4) {
                0 => self.line(&format!("CREATE VIEW {name} WITH (security_barrier) AS {body}")),
                1 => self.line(&format!("CREATE VIEW {name} AS {body}")),
                2 => {
                    let index = self.name();
                    self.line(&format!("CREATE MATERIALIZED VIEW {name} AS {body}"));
                    self.line(&format!("CREATE INDEX {index} ON {name} ({key})"));
                }
                _ => {
                    self.line(&format!("CREATE MATERIALIZED VIEW {name} AS {body} WITH NO DATA"));
                    continue;
                }
            }
            readable.push((name, key));
        }
    }

    pub(super) fn large_objects(&mut self) {
        for _ in 0..self.random.below(4) {
            let oid = 3_000_000_000_u64 + self.random.next() % 1_000_000_000;
            let size = *self.random.pick(&[0, 1, 2047, 2048, 2049, 10_000]);
            let character = 1 + self.random.below(120);
            self.line(&format!("SELECT lo_from_bytea({oid}, convert_to(repeat(chr({character}), {size}), 'UTF8')) \\g /dev/null\n"));
            let comment = self.nasty();
            match self.random.below(3) {
                0 => self.line(&format!("COMMENT ON LARGE OBJECT {oid} IS {comment}")),
                1 => self.line(&format!("GRANT SELECT ON LARGE OBJECT {oid} TO {}", GRANTEES[1])),
                _ => self.line(&format!("ALTER LARGE OBJECT {oid} OWNER TO {OWNER}")),
            }
        }
    }

    pub(super) fn database_objects(&mut self) {
        let schema = self.random.pick(&self.schemas).clone();
        self.line(&format!(
            "ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT SELECT ON TABLES TO {}",
            GRANTEES[0]
        ));
        let (table, publication) = (self.tables[0].name.clone(), self.name());
        if !self.sql.contains(&format!("UNLOGGED TABLE {table}")) {
            self.line(&format!(
                "CREATE PUBLICATION {publication} FOR TABLE {table} WITH (publish = 'insert')"
            ));
        }
    }
}

/// The schema of a name that [`Generator::qualified`] made: schemas are quoted but for `public`.
fn schema_of(name: &str) -> &str {
    if name.starts_with("public.") {
        return "public";
    }
    let mut quotes = 0;
    for (at, character) in name.char_indices() {
        quotes += usize::from(character == '"');
        if character == '.' && quotes % 2 == 0 {
            return &name[..at];
        }
    }
    unreachable!("a qualified name has a dot: {name}")
}
