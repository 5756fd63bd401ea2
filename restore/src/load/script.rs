//! What the statements of the post-data section say of indexes and keys: how they are built, and along which column a foreign
//! key goes. Pure, and only for the order, the memory and the way of a check: a name that is misread costs time, and nothing
//! else.

use std::collections::HashMap;

use common::snapshot::toc::{Entry, Kind};

/// How an index is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Sorted, and written in that order: most indexes, and every key.
    BTree,
    /// The keys of many rows are collected in a tree in memory, and each time that it is full all of it goes into the index.
    Gin,
    /// Row by row, or sorted where the type can: gist, spgist.
    Tree,
    /// Nearest neighbours: hnsw, ivfflat. They want all the memory that they can get.
    Vector,
    /// Anything else, and what is not known.
    Other,
}

impl Method {
    fn of(name: &str) -> Self {
        match name {
            "btree" => Self::BTree,
            "gin" => Self::Gin,
            "gist" | "spgist" => Self::Tree,
            "hnsw" | "ivfflat" => Self::Vector,
            _ => Self::Other,
        }
    }

    /// How much longer than a b-tree it takes.
    pub fn slowness(self) -> u64 {
        match self {
            Self::BTree | Self::Other => 1,
            Self::Tree => 4,
            Self::Gin => 6,
            Self::Vector => 20,
        }
    }
}

/// How the indexes and keys are built, by their entries; what is in no statement, or under one name in two ways, is left out.
pub fn methods(script: &str, entries: &[Entry]) -> HashMap<u32, Method> {
    let mut by_name: HashMap<&str, Option<Method>> = HashMap::new();
    for (name, method) in script.lines().filter_map(index_of).chain(script.lines().filter_map(key_of)) {
        let known = by_name.entry(name.trim_matches('"')).or_insert(Some(method));
        // Two schemas may have an index of one name: then it is not known which is meant.
        known.take_if(|known| *known != method);
    }
    let method = |entry: &Entry| {
        // `INDEX schema name owner`, `CONSTRAINT schema table name owner`; one with blanks in a name is not known.
        let words: Vec<&str> = entry.text.split(' ').collect();
        let name = match (entry.kind, words.as_slice()) {
            (Kind::Index, ["INDEX", _, name, _]) | (Kind::Constraint, ["CONSTRAINT", _, _, name, _]) => name,
            _ => return None,
        };
        Some((entry.id, (*by_name.get(name)?)?))
    };
    entries.iter().filter_map(method).collect()
}

/// The name and method in a line such as `CREATE UNIQUE INDEX name ON schema.table USING btree (a)`.
fn index_of(line: &str) -> Option<(&str, Method)> {
    let rest = line.strip_prefix("CREATE INDEX ").or_else(|| line.strip_prefix("CREATE UNIQUE INDEX "))?;
    let (name, rest) = rest.split_once(" ON ")?;
    let (_, method) = rest.split_once(" USING ")?;
    Some((name, Method::of(method.split(' ').next()?)))
}

/// The name and method in a line such as `    ADD CONSTRAINT name PRIMARY KEY (a);`.
fn key_of(line: &str) -> Option<(&str, Method)> {
    let rest = line.strip_prefix("    ADD CONSTRAINT ")?;
    for key in [" PRIMARY KEY (", " UNIQUE (", " UNIQUE NULLS NOT DISTINCT ("] {
        if let Some((name, _)) = rest.split_once(key) {
            return Some((name, Method::BTree));
        }
    }
    let (name, rest) = rest.split_once(" EXCLUDE USING ")?;
    Some((name, Method::of(rest.split(' ').next()?)))
}

/// The columns of foreign keys that have one, by their entries.
pub fn one_column_keys(script: &str, entries: &[Entry]) -> HashMap<u32, String> {
    let mut columns: HashMap<&str, Option<String>> = HashMap::new();
    for line in script.lines() {
        let Some(rest) = line.strip_prefix("    ADD CONSTRAINT ") else { continue };
        let Some((name, rest)) = rest.split_once(" FOREIGN KEY (") else { continue };
        let Some((column, _)) = rest.split_once(") REFERENCES ") else { continue };
        let unquoted = column.trim_matches('"');
        let is_one = !unquoted.contains(['"', ',']);
        // Two tables may have keys of one name: then it is not known which is meant.
        columns
            .entry(name.trim_matches('"'))
            .and_modify(|column| *column = None)
            .or_insert_with(|| is_one.then(|| unquoted.to_owned()));
    }
    entries
        .iter()
        .filter_map(|entry| {
            // `FK CONSTRAINT schema table name owner`
            let words: Vec<&str> = entry.text.strip_prefix("FK CONSTRAINT ")?.split(' ').collect();
            let [_, _, name, _] = words.as_slice() else { return None };
            Some((entry.id, columns.get(name)?.clone()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use common::snapshot::toc;

    use super::*;

    const LISTED: &str = "\
10; 2606 21 CONSTRAINT app items items_pkey o
11; 2606 22 CONSTRAINT app items items_once o
12; 2606 23 CONSTRAINT app items items_apart o
13; 1259 24 INDEX app items_order o
14; 1259 25 INDEX app items_body o
15; 1259 26 INDEX app two_ways o
16; 1259 27 INDEX other two_ways o
17; 1259 28 INDEX app not_in_the_script o
18; 1259 29 INDEX app items_near o
20; 2606 31 FK CONSTRAINT app items items_order_fk o
21; 2606 32 FK CONSTRAINT app items items_both_fk o
";

    const SCRIPT: &str = r#"
ALTER TABLE ONLY app.items
    ADD CONSTRAINT items_pkey PRIMARY KEY (id);
ALTER TABLE ONLY app.items
    ADD CONSTRAINT items_once UNIQUE NULLS NOT DISTINCT (a, b);
ALTER TABLE ONLY app.items
    ADD CONSTRAINT items_apart EXCLUDE USING gist (serial WITH =);
CREATE UNIQUE INDEX items_order ON app.items USING btree (order_id);
CREATE INDEX items_body ON app.items USING gin (body jsonb_path_ops);
CREATE INDEX two_ways ON app.items USING gin (body);
CREATE INDEX two_ways ON other.items USING btree (id);
CREATE INDEX items_near ON app.items USING hnsw (place);
ALTER TABLE ONLY app.items
    ADD CONSTRAINT items_order_fk FOREIGN KEY (order_id) REFERENCES app.orders(id);
ALTER TABLE ONLY app.items
    ADD CONSTRAINT items_both_fk FOREIGN KEY (a, b) REFERENCES app.kinds(a, b);
"#;

    #[test]
    fn how_indexes_and_keys_are_built_is_read_from_their_statements() {
        let expected = [
            (10, Method::BTree),
            (11, Method::BTree),
            (12, Method::Tree),
            (13, Method::BTree),
            (14, Method::Gin),
            (18, Method::Vector),
        ];
        assert_eq!(methods(SCRIPT, &toc::parse(LISTED)), HashMap::from(expected));
    }

    #[test]
    fn foreign_keys_of_one_column_are_read_from_their_statements() {
        let expected = HashMap::from([(20, "order_id".to_owned())]);
        assert_eq!(one_column_keys(SCRIPT, &toc::parse(LISTED)), expected);
    }
}
