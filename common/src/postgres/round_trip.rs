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
    /// By which a restored database differs.
    pub differ: Vec<String>,
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

/// Looks for all of it.
pub async fn differences(client: &Client) -> Result<Told> {
    let failed = |source| Error::postgres("could not read what a dump spells differently", source);
    let mut told = Told { differ: Vec::new(), mean_the_same: Vec::new() };
    for (query, is_different, one, many, rest) in [
        (
            sql::MADE_IN_PG_CATALOG,
            true,
            "object that somebody made in pg_catalog",
            "objects that somebody made in pg_catalog",
            "pg_dump writes nothing of that schema",
        ),
        (
            sql::RENAMED_PARTITION_KEYS,
            true,
            "foreign key of a partition under a name of its own",
            "foreign keys of partitions under names of their own",
            "restored under the name of the partitioned table's",
        ),
        (
            sql::ON_SYSTEM_COLUMNS,
            true,
            "rule over a column of the system's",
            "rules over columns of the system's",
            "tableoid, xmin and their like have other values in a restored database, where it can mean something else",
        ),
        (
            EARLY_INDEXES,
            true,
            "index of a partitioned table that is marked as valid although a partition has no valid part of it",
            "indexes of partitioned tables that are marked as valid although partitions have no valid part of them",
            "restored as not valid, until each partition has its part",
        ),
        (
            sql::HIDDEN_DOMAIN_DEFAULTS,
            true,
            "column of a partition or child table without the default of its parent",
            "columns of partitions or child tables without the defaults of their parents",
            "restored with DEFAULT NULL, which hides the default of their domain",
        ),
        (
            sql::RESPELT_EXPRESSIONS,
            false,
            "index or CHECK constraint",
            "indexes or CHECK constraints",
            "the expression is spelt differently after a restore, with the same meaning",
        ),
    ] {
        let names: Vec<String> = client.query(query, &[]).await.map_err(failed)?.iter().map(name).collect();
        let lines = if is_different { &mut told.differ } else { &mut told.mean_the_same };
        lines.extend(line(&names, one, many, rest));
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
