//! What pg_dump and pg_restore bring back in another form than it was, and how to tell beforehand. Nothing of this loses a
//! row; it is found by comparing PostgreSQL's own test databases with their copies, and announced because a person who
//! compares two schemas should not have to wonder.

use std::collections::{BTreeMap, HashMap};

use super::{Client, Row, sql};
use crate::{Error, QualifiedName, Result};

/// Names in a line, before the rest is only counted.
const NAMED: usize = 5;

/// One sentence for each kind.
pub struct Told {
    /// By which a restored database differs, so that another undo is better.
    pub differ: Vec<String>,
    /// By which it differs too, but by nothing that changes a row or the answer of a query: no reason for another undo.
    pub differ_little: Vec<String>,
    /// What is only spelt in another way.
    pub mean_the_same: Vec<String>,
}

/// Left by a fault of earlier minor releases (`known_fixes`). A foreign partition has no part of any index.
const EARLY_INDEXES: &str = "
SELECT pg_catalog.format('%I.%I', n.nspname, x.relname)
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid AND x.relkind = 'I'
JOIN pg_catalog.pg_namespace n ON n.oid = x.relnamespace
WHERE i.indisvalid AND EXISTS (
  SELECT FROM pg_catalog.pg_inherits t JOIN pg_catalog.pg_class p ON p.oid = t.inhrelid AND p.relkind IN ('r', 'p')
  WHERE t.inhparent = i.indrelid AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_inherits a JOIN pg_catalog.pg_index c ON c.indexrelid = a.inhrelid AND c.indisvalid
    WHERE a.inhparent = i.indexrelid AND c.indrelid = t.inhrelid))
ORDER BY 1";

/// Partitions that were being detached when somebody or something stopped it.
const HALF_DETACHED: &str = "
SELECT i.inhrelid::pg_catalog.regclass::text FROM pg_catalog.pg_inherits i WHERE i.inhdetachpending ORDER BY 1";

/// What pg_dump leaves out because nothing reads it. An invalid index of a partitioned table is written.
const INVALID_INDEXES: &str = "
SELECT i.indexrelid::pg_catalog.regclass::text FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
WHERE NOT i.indisvalid AND c.relkind = 'i' AND c.relpersistence <> 't' AND c.oid >= 16384
  AND i.indrelid NOT IN (SELECT t.oid FROM pg_catalog.pg_class t WHERE t.relkind = 't') ORDER BY 1";

/// Tables whose REPLICA IDENTITY USING INDEX has no index any more: PostgreSQL then treats it as NOTHING.
const LOST_REPLICA_IDENTITIES: &str = "
SELECT c.oid::pg_catalog.regclass::text FROM pg_catalog.pg_class c
WHERE c.relreplident = 'i' AND c.relpersistence <> 't' AND NOT EXISTS (
  SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisreplident) ORDER BY 1";

/// Tables whose foreign keys or deferrable keys nobody looks after, because their triggers are not enabled as they are made.
const KEYS_SWITCHED_OFF: &str = "
SELECT DISTINCT t.tgrelid::pg_catalog.regclass::text FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
WHERE t.tgisinternal AND t.tgenabled <> 'O' AND p.oid < 16384 AND (p.proname LIKE 'RI\\_FKey%' OR p.proname = 'unique_key_recheck') ORDER BY 1";

/// What every new database has, and somebody dropped here.
const DROPPED_OF_INITDB: &str = "
SELECT w.what FROM (VALUES
  ('the extension plpgsql', (SELECT count(*) FROM pg_catalog.pg_extension WHERE extname = 'plpgsql')),
  ('the schema information_schema', (SELECT count(*) FROM pg_catalog.pg_namespace WHERE nspname = 'information_schema'))) w(what, there)
WHERE w.there = 0 ORDER BY 1";

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weight {
    Differs,
    DiffersLittle,
    Spelling,
}

/// One kind of it.
struct Kind {
    /// Gives the names.
    query: &'static str,
    weight: Weight,
    one: &'static str,
    many: &'static str,
    rest: &'static str,
}

const KINDS: [Kind; 11] = [
    Kind {
        query: sql::MADE_IN_SYSTEM_SCHEMAS,
        weight: Weight::Differs,
        one: "object that somebody made in a schema of the system's",
        many: "objects that somebody made in schemas of the system's",
        rest: "pg_dump writes nothing of pg_catalog, information_schema and other schemas whose names begin with pg_",
    },
    Kind {
        query: DROPPED_OF_INITDB,
        weight: Weight::Differs,
        one: "thing that PostgreSQL brings and somebody dropped",
        many: "things that PostgreSQL brings and somebody dropped",
        rest: "a new database has it, and so has a restored one",
    },
    Kind {
        query: HALF_DETACHED,
        weight: Weight::Differs,
        one: "partition whose DETACH CONCURRENTLY was not finished",
        many: "partitions whose DETACH CONCURRENTLY was not finished",
        rest: "restored as attached, so that queries of the partitioned table find its rows again; \
               ALTER TABLE … DETACH PARTITION … FINALIZE finishes it",
    },
    Kind {
        query: INVALID_INDEXES,
        weight: Weight::DiffersLittle,
        one: "index that is not valid",
        many: "indexes that are not valid",
        rest: "pg_dump leaves such an index out; REINDEX makes it valid",
    },
    Kind {
        query: LOST_REPLICA_IDENTITIES,
        weight: Weight::DiffersLittle,
        one: "table whose index of REPLICA IDENTITY was dropped",
        many: "tables whose indexes of REPLICA IDENTITY were dropped",
        rest: "restored with REPLICA IDENTITY DEFAULT, the primary key",
    },
    Kind {
        query: KEYS_SWITCHED_OFF,
        weight: Weight::Differs,
        one: "table whose foreign keys or deferrable keys are switched off (DISABLE TRIGGER ALL)",
        many: "tables whose foreign keys or deferrable keys are switched off (DISABLE TRIGGER ALL)",
        rest: "restored with their triggers enabled",
    },
    Kind {
        query: sql::RENAMED_PARTITION_KEYS,
        weight: Weight::Differs,
        one: "foreign key of a partition under a name of its own",
        many: "foreign keys of partitions under names of their own",
        rest: "restored under the name of the partitioned table's",
    },
    Kind {
        query: sql::ON_SYSTEM_COLUMNS,
        weight: Weight::Differs,
        one: "rule over a column of the system's",
        many: "rules over columns of the system's",
        rest: "tableoid, xmin and their like have other values in a restored database, where it can mean something else",
    },
    Kind {
        query: EARLY_INDEXES,
        weight: Weight::Differs,
        one: "index of a partitioned table that is marked as valid although a partition has no valid part of it",
        many: "indexes of partitioned tables that are marked as valid although partitions have no valid part of them",
        rest: "restored as not valid, until each partition has its part",
    },
    Kind {
        query: sql::HIDDEN_DOMAIN_DEFAULTS,
        weight: Weight::Differs,
        one: "column of a partition or child table without the default of its parent",
        many: "columns of partitions or child tables without the defaults of their parents",
        rest: "restored with DEFAULT NULL, which hides the default of their domain",
    },
    Kind {
        query: sql::RESPELT_EXPRESSIONS,
        weight: Weight::Spelling,
        one: "index or CHECK constraint",
        many: "indexes or CHECK constraints",
        rest: "the expression is spelt differently after a restore, with the same meaning",
    },
];

/// Looks for all of it.
pub async fn differences(client: &Client) -> Result<Told> {
    let failed = |source| Error::postgres("could not read what a dump spells differently", source);
    let mut told = Told { differ: Vec::new(), differ_little: Vec::new(), mean_the_same: Vec::new() };
    for kind in KINDS {
        let names: Vec<String> =
            client.query(kind.query, &[]).await.map_err(failed)?.iter().map(name).collect();
        let lines = match kind.weight {
            Weight::Differs => &mut told.differ,
            Weight::DiffersLittle => &mut told.differ_little,
            Weight::Spelling => &mut told.mean_the_same,
        };
        lines.extend(line(&names, kind.one, kind.many, kind.rest));
    }
    told.differ.extend(given_away(client).await?);
    let children = client.query(sql::INHERITANCE, &[]).await.map_err(failed)?;
    let relations: BTreeMap<u32, Heir> = children.iter().map(|row| (row.get(0), heir(row))).collect();
    told.differ.extend(line(
        &reordered(&relations),
        "inheritance child",
        "inheritance children",
        "restored with the columns in another order, the parent's first",
    ));
    Ok(told)
}

/// Members of extensions that have an owner of their own. A restored database of which the same is said has them as they were: the
/// extension's script gave them away.
///
/// # Errors
/// The catalog can't be read.
pub async fn given_away(client: &Client) -> Result<Option<String>> {
    Ok(who_owns_members(client).await?.0)
}

/// [`given_away`], unless the sentence names only some: then an equal one does not say that all are the same.
///
/// # Errors
/// As [`given_away`].
pub async fn given_away_by_name(client: &Client) -> Result<Option<String>> {
    let (line, count) = who_owns_members(client).await?;
    Ok(line.filter(|_| count <= NAMED))
}

/// The sentence, and how many there are.
async fn who_owns_members(client: &Client) -> Result<(Option<String>, usize)> {
    let failed = |source| Error::postgres("could not read who owns objects of extensions", source);
    let rows = client.query(sql::GIVEN_AWAY_MEMBERS, &[]).await.map_err(failed)?;
    let names: Vec<String> = rows.iter().map(name).collect();
    let line = line(
        &names,
        "object of an extension with an owner of its own",
        "objects of extensions with owners of their own",
        "restored with the owner that CREATE EXTENSION gives",
    );
    Ok((line, names.len()))
}

fn name(row: &Row) -> String {
    row.get(0)
}

fn line(names: &[String], one: &str, many: &str, rest: &str) -> Option<String> {
    if names.is_empty() {
        return None;
    }
    let what = if names.len() == 1 { one } else { many };
    let mut list = names[..names.len().min(NAMED)].join(", ");
    if names.len() > NAMED {
        list.push_str(&format!(" and {} more", names.len() - NAMED));
    }
    Some(format!("{} {what} ({list}): {rest}", names.len()))
}

/// A table that inherits or is inherited from, but no partition: those keep their order.
struct Heir {
    name: String,
    columns: Vec<String>,
    parents: Vec<u32>,
}

fn heir(row: &Row) -> Heir {
    let name = QualifiedName::new(row.get::<_, String>(1), row.get::<_, String>(2)).short();
    Heir { name, columns: row.get(3), parents: row.get(4) }
}

/// The tables whose columns a restore puts in another order: `CREATE TABLE … INHERITS` begins with the parents' columns, in
/// the order that the parents then have.
fn reordered(relations: &BTreeMap<u32, Heir>) -> Vec<String> {
    let mut orders = HashMap::new();
    relations
        .iter()
        .filter(|(oid, heir)| restored_order(**oid, relations, &mut orders) != heir.columns)
        .map(|(_, heir)| heir.name.clone())
        .collect()
}

fn restored_order(
    oid: u32,
    relations: &BTreeMap<u32, Heir>,
    orders: &mut HashMap<u32, Vec<String>>,
) -> Vec<String> {
    if let Some(order) = orders.get(&oid) {
        return order.clone();
    }
    let Some(heir) = relations.get(&oid) else { return Vec::new() };
    let mut order: Vec<String> = Vec::new();
    // PostgreSQL refuses a circle of parents.
    for parent in &heir.parents {
        for column in restored_order(*parent, relations, orders) {
            if !order.contains(&column) {
                order.push(column);
            }
        }
    }
    let own: Vec<String> = heir.columns.iter().filter(|column| !order.contains(column)).cloned().collect();
    order.extend(own);
    orders.insert(oid, order.clone());
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heir(name: &str, columns: &str, parents: &[u32]) -> Heir {
        let columns = columns.chars().map(String::from).collect();
        Heir { name: name.to_owned(), columns, parents: parents.to_vec() }
    }

    #[test]
    fn a_childs_columns_come_after_its_parents_in_the_parents_restored_order() {
        let relations = BTreeMap::from([
            (1, heir("parent", "abc", &[])),
            (2, heir("usual", "abcx", &[1])),
            (3, heir("late column in the parent", "abxc", &[1])),
            (4, heir("of the late one, same order", "abxcy", &[3])),
            (5, heir("other", "mn", &[])),
            (6, heir("of two", "abcmnz", &[1, 5])),
            (7, heir("of two, turned round", "mnabc", &[1, 5])),
        ]);
        let expected = ["late column in the parent", "of the late one, same order", "of two, turned round"];
        assert_eq!(reordered(&relations), expected);
    }

    #[test]
    fn many_names_are_counted() {
        let names: Vec<String> = ('a'..='h').map(String::from).collect();
        assert_eq!(
            line(&names, "thing", "things", "rest").unwrap(),
            "8 things (a, b, c, d, e and 3 more): rest"
        );
        assert_eq!(line(&names[..1], "thing", "things", "rest").unwrap(), "1 thing (a): rest");
        assert_eq!(line(&[], "thing", "things", "rest"), None);
    }
}
