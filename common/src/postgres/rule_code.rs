//! What the rules of tables call: CHECK, domains, generated columns, indexes, EXCLUDE, partition keys, statistics. PostgreSQL wants
//! functions there that answer the same for ever, and believes the word IMMUTABLE. Here the text of the function is read.
//!
//! A rule that reads tables holds or not by which rows are there when it is asked, which in a restore depends on the order in which
//! tables are loaded. A rule that asks for the time holds or not by the moment. What can't be seen in a text (dynamic SQL, other
//! languages, operators and casts over such functions) counts as reading everything: the wrong answer that costs time and no rows.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::Session;
use crate::{Error, QualifiedName, Result, ident::printable};

/// What the rules of one table call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleCode {
    /// `pg_class.oid`.
    pub oid: u32,
    /// The table.
    pub table: QualifiedName,
    /// What its rules may read.
    pub reads: Reads,
    /// Why its rules may answer otherwise in a moment, over the same row.
    pub unsteady: Option<String>,
}

/// What code may read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reads {
    /// Relations, by their names without a schema, in lower case.
    relations: BTreeSet<String>,
    /// It can't be seen which.
    anything: bool,
}

impl Reads {
    /// Whether it reads no row of a table.
    pub fn is_nothing(&self) -> bool {
        self.relations.is_empty() && !self.anything
    }

    fn add(&mut self, other: &Self) {
        self.relations.extend(other.relations.iter().cloned());
        self.anything |= other.anything;
    }
}

/// For each table the functions in its rules, but for what PostgreSQL brought and calls IMMUTABLE; and whether a rule asks for the
/// time by a word of the language.
const RULES: &str = concat!(
    r"
WITH RECURSIVE
 tables(rel) AS MATERIALIZED (
  SELECT oid FROM pg_catalog.pg_class WHERE relkind = 'r' AND relpersistence <> 't' AND oid >= 16384),
 types(rel, typ) AS (
  SELECT t.rel, a.atttypid FROM tables t JOIN pg_catalog.pg_attribute a ON a.attrelid = t.rel
   WHERE a.attnum > 0 AND NOT a.attisdropped AND a.atttypid >= 16384
  UNION
  SELECT u.rel, n.typ FROM types u JOIN pg_catalog.pg_type t ON t.oid = u.typ, LATERAL ",
    crate::types_within!(),
    r" n(typ) WHERE n.typ >= 16384),
 rules(rel, tree) AS (
  SELECT t.rel, k.conbin::text FROM tables t JOIN pg_catalog.pg_constraint k ON k.conrelid = t.rel AND k.contype = 'c' AND k.convalidated
  UNION ALL SELECT t.rel, k.conbin::text FROM types t JOIN pg_catalog.pg_constraint k
    ON k.contypid = t.typ AND k.contype = 'c' AND k.convalidated
  UNION ALL SELECT t.rel, f.adbin::text FROM tables t JOIN pg_catalog.pg_attrdef f ON f.adrelid = t.rel
    JOIN pg_catalog.pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum AND a.attgenerated <> ''
  UNION ALL SELECT t.rel, pg_catalog.concat(i.indexprs::text, i.indpred::text) FROM tables t JOIN pg_catalog.pg_index i
    ON i.indrelid = t.rel AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL)
  UNION ALL SELECT t.rel, p.partexprs::text FROM tables t, pg_catalog.pg_partition_ancestors(t.rel) r
    JOIN pg_catalog.pg_partitioned_table p ON p.partrelid = r WHERE p.partexprs IS NOT NULL
  UNION ALL SELECT t.rel, s.stxexprs::text FROM tables t JOIN pg_catalog.pg_statistic_ext s
    ON s.stxrelid = t.rel AND s.stxexprs IS NOT NULL),
 called(rel, function) AS (
  SELECT r.rel, m[1]::pg_catalog.oid FROM rules r, pg_catalog.regexp_matches(r.tree, ':[a-z]*funcid (\d+)', 'g') m
  UNION SELECT r.rel, o.oprcode::pg_catalog.oid FROM rules r, pg_catalog.regexp_matches(r.tree, ':opno (\d+)', 'g') m
    JOIN pg_catalog.pg_operator o ON o.oid = m[1]::pg_catalog.oid
  -- What an operator class of somebody's own compares with.
  UNION SELECT t.rel, a.amproc::pg_catalog.oid FROM tables t JOIN pg_catalog.pg_index i ON i.indrelid = t.rel,
    pg_catalog.unnest(i.indclass::pg_catalog.oid[]) u JOIN pg_catalog.pg_opclass c ON c.oid = u AND c.oid >= 16384
    JOIN pg_catalog.pg_amproc a ON a.amprocfamily = c.opcfamily),
 code(rel, function) AS (
  SELECT c.rel, c.function FROM called c JOIN pg_catalog.pg_proc p ON p.oid = c.function
   WHERE p.provolatile <> 'i' OR p.oid >= 16384),
 value(rel) AS (SELECT DISTINCT rel FROM rules WHERE tree ~ '\{(SQLVALUEFUNCTION|NEXTVALUEEXPR)')
SELECT c.oid, n.nspname::text, c.relname::text, EXISTS (SELECT FROM value v WHERE v.rel = c.oid) AS asks_time,
       ARRAY(SELECT DISTINCT k.function FROM code k WHERE k.rel = c.oid ORDER BY 1) AS functions
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid IN (SELECT rel FROM code UNION SELECT rel FROM value) ORDER BY 2, 3"
);

/// Functions that a rule calls, with `$1`, and all that they could call: whether an operator or a cast may call it unseen, and what
/// its text is. An aggregate has no text but the names of its functions.
const FUNCTIONS: &str = "
SELECT p.oid, pg_catalog.lower(p.proname::text), p.oid::pg_catalog.regprocedure::text, l.lanname::text, p.provolatile::text,
       EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid
               AND d.deptype = 'e') AS of_extension,
       EXISTS (SELECT FROM pg_catalog.pg_operator o WHERE o.oprcode::pg_catalog.oid = p.oid)
         OR EXISTS (SELECT FROM pg_catalog.pg_cast k WHERE k.castfunc = p.oid) AS is_unseen,
       p.prokind = 'a' AS is_aggregate,
       pg_catalog.concat_ws(' ', CASE WHEN p.prosqlbody IS NOT NULL THEN pg_catalog.pg_get_function_sqlbody(p.oid) ELSE p.prosrc END,
         pg_catalog.pg_get_expr(p.proargdefaults, 0),
         (SELECT pg_catalog.concat_ws(' ', g.aggtransfn, g.aggfinalfn, g.aggcombinefn) FROM pg_catalog.pg_aggregate g
           WHERE g.aggfnoid = p.oid)) AS text
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
WHERE p.oid >= 16384 OR p.oid = ANY ($1) ORDER BY p.oid";

/// Names of relations that a text could read; of the system's own the catalogs.
const RELATIONS: &str = "
SELECT DISTINCT pg_catalog.lower(c.relname::text) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('information_schema', 'pg_toast')";

/// Relations whose rows are another relation's.
const VIEWS: &str = "
SELECT DISTINCT pg_catalog.lower(c.relname::text) FROM pg_catalog.pg_class c WHERE c.relkind IN ('v', 'm', 'f') AND c.relpersistence <> 't'";

/// Words by which a text can read what it does not name.
const DYNAMIC: [&str; 13] = [
    "execute",
    "information_schema",
    "query_to_xml",
    "query_to_xmlschema",
    "query_to_xml_and_xmlschema",
    "table_to_xml",
    "schema_to_xml",
    "database_to_xml",
    "cursor_to_xml",
    "ts_stat",
    "ts_rewrite",
    "dblink",
    "lo_get",
];

/// Words by which a text asks for the time, or for something that is never the same.
const MOMENT: [&str; 25] = [
    "now",
    "clock_timestamp",
    "statement_timestamp",
    "transaction_timestamp",
    "current_timestamp",
    "current_date",
    "current_time",
    "localtime",
    "localtimestamp",
    "timeofday",
    "age",
    "today",
    "tomorrow",
    "yesterday",
    "random",
    "random_normal",
    "gen_random_uuid",
    "uuidv4",
    "uuidv7",
    "nextval",
    "currval",
    "lastval",
    "setval",
    "txid_current",
    "pg_current_xact_id",
];

/// Where a function's code is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    /// PostgreSQL's own, or an extension's in C that is not volatile: reads no table.
    Trusted,
    /// A text in SQL or PL/pgSQL.
    Text,
    /// Nobody can see what it does.
    Opaque,
}

#[derive(Debug, Clone)]
struct Function {
    oid: u32,
    name: String,
    /// As a person reads it.
    label: String,
    code: Code,
    is_immutable: bool,
    /// An operator or a cast calls it, by no name.
    is_unseen: bool,
    text: String,
}

/// The tables whose rules call more than what PostgreSQL brought and calls IMMUTABLE, by their names.
///
/// # Errors
/// The catalog can't be read.
pub async fn find(session: &Session) -> Result<Vec<RuleCode>> {
    let failed = |source| Error::postgres("could not look for code in the rules of tables", source);
    let rules = session.query(RULES, &[]).await.map_err(failed)?;
    if rules.is_empty() {
        return Ok(Vec::new());
    }
    let called: Vec<u32> = rules.iter().flat_map(|row| row.get::<_, Vec<u32>>("functions")).collect();
    let functions: Vec<Function> = session
        .query(FUNCTIONS, &[&called])
        .await
        .map_err(failed)?
        .iter()
        .map(|row| {
            let (oid, language, volatility): (u32, String, String) = (row.get(0), row.get(3), row.get(4));
            let name: String = row.get(1);
            let code = match language.as_str() {
                _ if row.get("is_aggregate") => Code::Text,
                "sql" | "plpgsql" => Code::Text,
                "internal" if oid < 16384 && name.ends_with("_to_xml") => Code::Opaque,
                "internal" => Code::Trusted,
                "c" if row.get("of_extension") && volatility != "v" => Code::Trusted,
                _ => Code::Opaque,
            };
            Function {
                oid,
                name,
                label: printable(row.get(2)),
                code,
                is_immutable: volatility == "i",
                is_unseen: row.get("is_unseen"),
                text: row.get("text"),
            }
        })
        .collect();
    let names = |rows: Vec<super::Row>| rows.iter().map(|row| row.get(0)).collect::<HashSet<String>>();
    let relations = names(session.query(RELATIONS, &[]).await.map_err(failed)?);
    let views = names(session.query(VIEWS, &[]).await.map_err(failed)?);
    let facts = Facts::new(&functions, &relations, &views);
    Ok(rules
        .iter()
        .map(|row| {
            let called: Vec<u32> = row.get("functions");
            let (reads, why) = facts.of(&called);
            let asks_time: bool = row.get("asks_time");
            RuleCode {
                oid: row.get(0),
                table: QualifiedName::new(row.get::<_, String>(1), row.get::<_, String>(2)),
                reads,
                unsteady: if asks_time { Some("they ask for the time or the role".to_owned()) } else { why },
            }
        })
        .collect())
}

/// In which order to load the tables whose rules read others: those that are read first, where that is possible. It depends on
/// nothing but the catalog, so that it is the same in every restore.
pub fn load_order(codes: &[RuleCode]) -> Vec<QualifiedName> {
    let mut waiting: BTreeMap<&QualifiedName, &Reads> =
        codes.iter().filter(|code| !code.reads.is_nothing()).map(|code| (&code.table, &code.reads)).collect();
    let mut order = Vec::new();
    while !waiting.is_empty() {
        let is_free = |(table, reads): &(&&QualifiedName, &&Reads)| {
            waiting.keys().filter(|other| *other != *table).all(|other| {
                !reads.anything && !reads.relations.contains(&other.name.as_str().to_lowercase())
            })
        };
        let next = waiting.iter().find(is_free).or_else(|| waiting.iter().next()).map(|(table, _)| *table);
        let Some(next) = next else { break };
        waiting.remove(next);
        order.push(next.clone());
    }
    order
}

/// What is known of all functions.
struct Facts<'a> {
    functions: HashMap<u32, &'a Function>,
    by_name: HashMap<&'a str, Vec<u32>>,
    relations: &'a HashSet<String>,
    /// Names that are no word.
    odd_relations: Vec<&'a String>,
    views: &'a HashSet<String>,
    /// What an operator or a cast may do within any text.
    unseen: Reads,
}

impl<'a> Facts<'a> {
    fn new(functions: &'a [Function], relations: &'a HashSet<String>, views: &'a HashSet<String>) -> Self {
        let mut by_name: HashMap<&str, Vec<u32>> = HashMap::new();
        for function in functions {
            by_name.entry(&function.name).or_default().push(function.oid);
        }
        let odd_relations = relations.iter().filter(|name| words(name).len() != 1 || name.contains('"'));
        let mut facts = Self {
            functions: functions.iter().map(|function| (function.oid, function)).collect(),
            by_name,
            relations,
            odd_relations: odd_relations.collect(),
            views,
            unseen: Reads::default(),
        };
        let unseen = functions.iter().filter(|function| function.is_unseen && function.oid >= 16384);
        let reads: Vec<Reads> = unseen.map(|function| facts.reach(function.oid).0).collect();
        facts.unseen.anything = reads.iter().any(|reads| !reads.is_nothing());
        facts
    }

    /// What functions that a rule calls read together, and why they may answer otherwise in a moment.
    fn of(&self, called: &[u32]) -> (Reads, Option<String>) {
        let (mut reads, mut why) = (Reads::default(), None);
        for oid in called {
            let Some(function) = self.functions.get(oid) else { continue };
            let (found, asks_moment) = self.reach(*oid);
            let reason = if !function.is_immutable {
                Some("is not IMMUTABLE")
            } else if !found.is_nothing() {
                Some("reads tables, or may")
            } else if asks_moment {
                Some("asks for the time, or for what is never the same")
            } else {
                None
            };
            reads.add(&found);
            why = why.or_else(|| reason.map(|reason| format!("{} {reason}", function.label)));
        }
        (reads, why)
    }

    /// What a function reads, with all that its text may call; and whether one of them asks for the moment.
    fn reach(&self, start: u32) -> (Reads, bool) {
        let (mut reads, mut asks_moment) = (Reads::default(), false);
        let (mut seen, mut waiting) = (HashSet::from([start]), vec![start]);
        while let Some(oid) = waiting.pop() {
            let Some(function) = self.functions.get(&oid) else { continue };
            match function.code {
                Code::Trusted => continue,
                Code::Opaque => reads.anything = true,
                Code::Text => reads.add(&self.unseen),
            }
            let text = function.text.to_lowercase();
            let words = words(&text);
            reads.anything |= DYNAMIC.iter().any(|word| words.contains(word)) || text.contains("u&\"");
            asks_moment |= MOMENT.iter().any(|word| words.contains(word));
            for word in &words {
                if self.views.contains(*word) {
                    reads.anything = true;
                } else if self.relations.contains(*word) {
                    reads.relations.insert((*word).to_owned());
                }
                for called in self.by_name.get(*word).into_iter().flatten() {
                    if seen.insert(*called) {
                        waiting.push(*called);
                    }
                }
            }
            let odd = self.odd_relations.iter().filter(|name| text.contains(name.as_str()));
            reads.relations.extend(odd.map(|name| (*name).clone()));
        }
        (reads, asks_moment)
    }
}

/// What could be a name in a text of SQL.
fn words(text: &str) -> HashSet<&str> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$'))
        .filter(|word| !word.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(oid: u32, name: &str, text: &str) -> Function {
        Function {
            oid,
            name: name.to_owned(),
            label: format!("{name}()"),
            code: Code::Text,
            is_immutable: true,
            is_unseen: false,
            text: text.to_owned(),
        }
    }

    fn strings(names: &[&str]) -> HashSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn what_a_text_reads_is_seen_through_what_it_calls() {
        let opaque = Function { code: Code::Opaque, ..function(20_006, "py", "return 1") };
        let functions = [
            function(20_001, "plain", "SELECT lower($1) FROM unnest(ARRAY[1])"),
            function(20_002, "reads", "SELECT count(*) FROM public.Lim"),
            function(20_003, "calls", "BEGIN RETURN reads(); END"),
            function(20_004, "dynamic", "BEGIN EXECUTE format('SELECT 1'); END"),
            function(20_005, "late", "SELECT $1 > CURRENT_DATE"),
            opaque,
            function(20_007, "odd", "SELECT 1 FROM \"Odd Name\""),
            function(20_008, "by_view", "TABLE v"),
        ];
        let (relations, views) = (strings(&["lim", "odd name", "v"]), strings(&["v"]));
        let facts = Facts::new(&functions, &relations, &views);
        let of = |oid| {
            let (reads, why) = facts.of(&[oid]);
            (reads.relations.into_iter().collect::<Vec<_>>().join(","), reads.anything, why.is_some())
        };
        assert_eq!(of(20_001), (String::new(), false, false));
        assert_eq!(of(20_002), ("lim".to_owned(), false, true));
        assert_eq!(of(20_003), ("lim".to_owned(), false, true));
        assert_eq!(of(20_004), (String::new(), true, true));
        assert_eq!(of(20_005), (String::new(), false, true));
        assert_eq!(of(20_006), (String::new(), true, true));
        assert_eq!(of(20_007), ("odd name".to_owned(), false, true));
        assert_eq!(of(20_008), (String::new(), true, true));
    }

    #[test]
    fn an_operator_that_reads_makes_every_text_suspicious() {
        let operator = Function { is_unseen: true, ..function(20_001, "op", "SELECT 1 FROM lim") };
        let functions = [operator, function(20_002, "uses", "SELECT $1 === $2")];
        let relations = strings(&["lim"]);
        let none = HashSet::new();
        assert!(Facts::new(&functions, &relations, &none).of(&[20_002]).0.anything);
        assert!(Facts::new(&functions[1..], &relations, &none).of(&[20_002]).0.is_nothing());
    }

    #[test]
    fn what_is_read_is_loaded_before_what_reads_it() {
        let code = |name: &str, reads: &[&str], anything| RuleCode {
            oid: 1,
            table: QualifiedName::new("s", name),
            reads: Reads { relations: reads.iter().map(|&name| name.to_owned()).collect(), anything },
            unsteady: None,
        };
        let order = |codes: &[RuleCode]| {
            load_order(codes).iter().map(|table| table.name.as_str().to_owned()).collect::<Vec<_>>().join(" ")
        };
        let codes = [
            code("any", &[], true),
            code("a", &["b", "elsewhere"], false),
            code("b", &["c", "b"], false),
            code("c", &["elsewhere"], false),
            code("plain", &[], false),
        ];
        assert_eq!(order(&codes), "c b a any");
        // In a circle there is no right order, but one.
        assert_eq!(order(&[code("y", &["x"], false), code("x", &["y"], false)]), "x y");
        assert_eq!(order(&[]), "");
    }
}
