//! What an owner's code leaves behind in a schema in which he may make things only while his part of the archive is made.
//!
//! His code could make, or move there, a function that others call by its name alone. So the schema is looked at before and after:
//! every object that is new, or has another name or schema, has to be what one of the entries makes. Rows of types, indexes and the like that come with an object
//! are no objects of their own here: nobody calls them.

use std::collections::BTreeMap;

use common::{
    Error, Result,
    ident::{literal, printable},
    postgres::{Session, SimpleQueryMessage},
};

/// What lies in some schemas, by catalog and oid: schema and name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Contents(BTreeMap<(String, String), (String, String)>);

/// The objects of the schemas that stand in the place of `SCHEMAS`: catalog, oid, schema, name. Without what an object brings
/// along: types of its rows, arrays, multiranges, functions of ranges, sequences of identity columns.
const OBJECTS: &str = "SET LOCAL search_path = pg_catalog, pg_temp;
SELECT o.catalog, o.oid::text, n.nspname::text, o.name::text FROM pg_namespace n JOIN (
  SELECT 'pg_class' AS catalog, c.oid, c.relnamespace AS schema, c.relname AS name FROM pg_class c
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND NOT EXISTS (SELECT FROM pg_depend d
      WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'i' AND c.relkind = 'S')
  UNION ALL SELECT 'pg_proc', p.oid, p.pronamespace, p.proname FROM pg_proc p WHERE NOT EXISTS (SELECT FROM pg_depend d
      WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'i')
  UNION ALL SELECT 'pg_type', t.oid, t.typnamespace, t.typname FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
    WHERE (c.oid IS NULL OR c.relkind = 'c') AND t.typtype <> 'm'
      AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)
  UNION ALL SELECT 'pg_operator', oid, oprnamespace, oprname FROM pg_operator
  UNION ALL SELECT 'pg_collation', oid, collnamespace, collname FROM pg_collation
  UNION ALL SELECT 'pg_conversion', oid, connamespace, conname FROM pg_conversion
  UNION ALL SELECT 'pg_ts_config', oid, cfgnamespace, cfgname FROM pg_ts_config
  UNION ALL SELECT 'pg_ts_dict', oid, dictnamespace, dictname FROM pg_ts_dict
  UNION ALL SELECT 'pg_statistic_ext', oid, stxnamespace, stxname FROM pg_statistic_ext) o ON o.schema = n.oid
WHERE n.nspname = ANY (ARRAY[SCHEMAS]::name[])";

impl Contents {
    /// What lies in `schemas` now. Text, because nothing may be prepared where code of somebody else has been.
    ///
    /// # Errors
    /// The catalog can't be read.
    pub async fn of(session: &Session, schemas: &[String]) -> Result<Self> {
        if schemas.is_empty() {
            return Ok(Self::default());
        }
        let names: Vec<String> = schemas.iter().map(|name| literal(name)).collect();
        let asked = OBJECTS.replace("SCHEMAS", &names.join(", "));
        let messages = session
            .simple_query(&asked)
            .await
            .map_err(|source| Error::postgres("could not look at what lies in a schema", source))?;
        let object = |message: &SimpleQueryMessage| {
            let SimpleQueryMessage::Row(row) = message else { return None };
            let text = |column| row.get(column).unwrap_or_default().to_owned();
            Some(((text(0), text(1)), (text(2), text(3))))
        };
        Ok(Self(messages.iter().filter_map(object).collect()))
    }

    /// Makes sure that all that is here and was not there `before`, or had another name or schema, is what `entries` make, one
    /// object each.
    ///
    /// # Errors
    /// Refused, naming the first other object.
    pub fn check_made(&self, before: &Self, entries: &[&str]) -> Result<()> {
        let mut entries = entries.to_vec();
        for ((catalog, _), (schema, name)) in
            self.0.iter().filter(|(key, name)| before.0.get(*key) != Some(*name))
        {
            match entries.iter().position(|entry| makes(entry, catalog, schema, name)) {
                Some(at) => drop(entries.swap_remove(at)),
                None => {
                    return Err(Error::refused(format!(
                        "code of the owner made, renamed or moved {} in the schema {} meanwhile, which the snapshot does not have",
                        printable(name),
                        printable(schema)
                    )));
                }
            }
        }
        Ok(())
    }
}

/// Words that an entry of an archive begins with, by the catalog of what it makes.
const KINDS: [(&str, &[&str]); 9] = [
    ("pg_class", &["TABLE", "FOREIGN TABLE", "VIEW", "MATERIALIZED VIEW", "SEQUENCE"]),
    ("pg_proc", &["FUNCTION", "PROCEDURE", "AGGREGATE"]),
    ("pg_type", &["TYPE", "DOMAIN", "SHELL TYPE"]),
    ("pg_operator", &["OPERATOR"]),
    ("pg_collation", &["COLLATION"]),
    ("pg_conversion", &["CONVERSION"]),
    ("pg_ts_config", &["TEXT SEARCH CONFIGURATION"]),
    ("pg_ts_dict", &["TEXT SEARCH DICTIONARY"]),
    ("pg_statistic_ext", &["STATISTICS"]),
];

/// Whether the entry `FUNCTION app total(integer) low` makes this object. Names are printed without line ends.
fn makes(entry: &str, catalog: &str, schema: &str, name: &str) -> bool {
    let one_line = |name: &str| name.replace(['\n', '\r'], " ");
    let (schema, name) = (one_line(schema), one_line(name));
    let quoted = format!("\"{}\"", name.replace('"', "\"\""));
    let kinds = KINDS.iter().find(|(of, _)| *of == catalog).map_or(&[][..], |(_, kinds)| kinds);
    kinds.iter().any(|kind| {
        let rest = entry.strip_prefix(kind).and_then(|rest| rest.strip_prefix(' '));
        let rest = rest.and_then(|rest| rest.strip_prefix(schema.as_str())?.strip_prefix(' '));
        let ends = |rest: &str| rest.is_empty() || rest.starts_with([' ', '(']);
        rest.is_some_and(|rest| {
            [&name, &quoted].iter().any(|name| rest.strip_prefix(name.as_str()).is_some_and(ends))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(objects: &[(&str, &str, &str)]) -> Contents {
        let one = |(catalog, oid, name): &(&str, &str, &str)| {
            (((*catalog).to_owned(), (*oid).to_owned()), ("app".to_owned(), (*name).to_owned()))
        };
        Contents(objects.iter().map(one).collect())
    }

    #[test]
    fn what_no_entry_makes_is_named() {
        let before = contents(&[("pg_proc", "1", "old")]);
        let entries = ["TABLE app t low", "FUNCTION app f(integer) low", "CHECK CONSTRAINT app t lower low"];
        let check = |made: &[(&str, &str, &str)]| {
            let all = [&[("pg_proc", "1", "old")], made].concat();
            contents(&all).check_made(&before, &entries).map_err(|error| error.message().to_owned())
        };
        assert_eq!(check(&[]), Ok(()));
        assert_eq!(check(&[("pg_class", "2", "t"), ("pg_proc", "3", "f")]), Ok(()));
        // One entry makes one object: of two functions with its name, one is somebody else's.
        for (made, name) in [
            (&[("pg_proc", "2", "lower")][..], "lower"),
            (&[("pg_proc", "2", "t")], "t"),
            (&[("pg_proc", "2", "f"), ("pg_proc", "3", "f")], "f"),
            (&[("pg_class", "2", "t"), ("pg_operator", "3", "=")], "="),
            // What was there has another name now.
            (&[("pg_proc", "1", "lower")], "lower"),
        ] {
            let refused = check(made).unwrap_err();
            assert!(refused.contains(&format!("renamed or moved {name} in the schema app")), "{refused}");
        }
    }

    #[test]
    fn an_entry_is_known_by_its_kind_and_its_name() {
        for (entry, catalog, name, is_its) in [
            ("TABLE app two words low", "pg_class", "two words", true),
            ("TABLE app line end low", "pg_class", "line\nend", true),
            ("TABLE DATA app t low", "pg_class", "t", false),
            ("TABLE ATTACH app t low", "pg_class", "t", false),
            ("FUNCTION app \"F\"\"x\"(integer) low", "pg_proc", "F\"x", true),
            ("VIEW app v low", "pg_proc", "v", false),
            ("VIEW other v low", "pg_class", "v", false),
            ("MATERIALIZED VIEW app v low", "pg_class", "v", true),
            ("DOMAIN app d low", "pg_type", "d", true),
            ("TYPE app d low", "pg_type", "de", false),
        ] {
            assert_eq!(makes(entry, catalog, "app", name), is_its, "{entry}");
        }
    }
}
