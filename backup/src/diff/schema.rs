//! Two schemas as text, compared object by object. Pure.
//!
//! The text is what `pg_restore --file=-` prints of an archive: a header of comments (`-- Name: t; Type: TABLE; Schema:
//! public; Owner: shop`) and then the object's statements. It is only compared and shown, never run, so that a function
//! whose body imitates a header costs no more than a strange line in the output.

use std::collections::BTreeMap;

use common::{Ident, QualifiedName};
use serde::Serialize;

/// Unchanged lines around a change that are shown.
const CONTEXT: usize = 2;
/// Most cells of the table that finds common lines; above it all lines count as changed (32 MB of memory).
const MAX_CELLS: usize = 8 << 20;
/// Types whose statements depend on the `SET default_…` lines that come some time before them.
const WITH_DEFAULTS: [&str; 4] = ["TABLE", "INDEX", "CONSTRAINT", "MATERIALIZED VIEW"];

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Only the second snapshot has it.
    Added,
    /// Only the first snapshot has it.
    Removed,
    /// Both have it, with other statements.
    Changed,
}

/// One object that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ObjectChange {
    /// Type and name, such as `TABLE public.orders`.
    pub object: String,
    /// What happened to it.
    pub change: Change,
    /// Its statements, each line with `-`, `+` or a space before it, and `@@` where unchanged lines are left out.
    pub lines: Vec<String>,
}

/// Every object that differs, by type and name.
pub fn compare(a: &str, b: &str) -> Vec<ObjectChange> {
    compare_some(a, b, |_, _| true)
}

/// Every object that differs and is one of these tables or made for one: its constraints, indexes, triggers, rules, policies,
/// grants and comments. Names are written as in SQL.
pub fn compare_of(a: &str, b: &str, tables: &[QualifiedName]) -> Vec<ObjectChange> {
    let written: Vec<String> = tables.iter().flat_map(spellings).collect();
    compare_some(a, b, |object, lines| is_of(object, lines, &written))
}

/// Kinds of objects that belong to one table, and that pg_dump writes with it: extended statistics it does not.
const OF_TABLES: [&str; 16] = [
    "TABLE",
    "TABLE ATTACH",
    "CONSTRAINT",
    "CHECK CONSTRAINT",
    "FK CONSTRAINT",
    "NOT NULL CONSTRAINT",
    "DEFAULT",
    "INDEX",
    "TRIGGER",
    "RULE",
    "POLICY",
    "ROW SECURITY",
    "ACL",
    "COMMENT",
    "SECURITY LABEL",
    "FOREIGN TABLE",
];
/// What stands before the table's name in their statements.
const BEFORE: [&str; 9] =
    ["TABLE ", "TABLE ONLY ", "ON ", "ON ONLY ", "ON TABLE ", "TO ", "FROM ", "COLUMN ", "ATTACH PARTITION "];

/// A name with and without the quotes that pg_dump sets where they are needed.
fn spellings(table: &QualifiedName) -> Vec<String> {
    let both = |ident: &Ident| [ident.as_str().to_owned(), ident.to_string()];
    let names = both(&table.name);
    both(&table.schema)
        .iter()
        .flat_map(|schema| names.iter().map(move |name| format!("{schema}.{name}")))
        .collect()
}

fn is_of(object: &str, lines: &[String], written: &[String]) -> bool {
    let is_kind = |kind: &str| object.strip_prefix(kind).is_some_and(|rest| rest.starts_with(' '));
    if !OF_TABLES.into_iter().any(is_kind) {
        return false;
    }
    let names_it = |line: &String, name: &String| {
        line.match_indices(name.as_str()).any(|(at, _)| {
            let (before, after) = (&line[..at], &line[at + name.len()..]);
            let ends = after.chars().next().is_none_or(|c| matches!(c, ' ' | '.' | ';' | '(' | ',' | ')'));
            // A trigger or a key that leads to the table belongs to another one.
            ends && BEFORE.iter().any(|word| before.ends_with(word))
        })
    };
    lines.iter().any(|line| written.iter().any(|name| names_it(line, name)))
}

fn compare_some(a: &str, b: &str, keep: impl Fn(&str, &[String]) -> bool) -> Vec<ObjectChange> {
    let (mut a, mut b) = (objects(a), objects(b));
    a.retain(|name, lines| keep(name, lines));
    b.retain(|name, lines| keep(name, lines));
    let mut names: Vec<&String> = a.keys().chain(b.keys()).collect();
    names.sort();
    names.dedup();
    let empty = Vec::new();
    names
        .into_iter()
        .filter_map(|name| {
            let change = match (a.get(name), b.get(name)) {
                (Some(a), Some(b)) if a == b => return None,
                (Some(_), Some(_)) => Change::Changed,
                (Some(_), None) => Change::Removed,
                _ => Change::Added,
            };
            let lines = diff_lines(a.get(name).unwrap_or(&empty), b.get(name).unwrap_or(&empty));
            Some(ObjectChange { object: name.clone(), change, lines })
        })
        .collect()
}

/// Type and name, the settings that hold for it, its statements.
type Entry = (String, Vec<String>, Vec<String>);

/// Takes the text apart: type and name → lines without blank ones at the ends.
fn objects(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut objects: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut defaults: BTreeMap<&str, &str> = BTreeMap::new();
    let mut current: Option<Entry> = None;
    let lines: Vec<&str> = text.lines().collect();
    for (number, line) in lines.iter().enumerate() {
        let is_frame = *line == "--" && {
            let is_header = |at: Option<usize>| at.and_then(|at| lines.get(at)).and_then(|line| header(line));
            is_header(Some(number + 1)).is_some() || is_header(number.checked_sub(1)).is_some()
        };
        if is_frame || line.starts_with("\\restrict ") || line.starts_with("\\unrestrict ") {
            continue;
        }
        if *line == "-- PostgreSQL database dump complete" {
            break;
        }
        if let Some((kind, name)) = header(line) {
            finish(&mut objects, current.take());
            let before: Vec<String> = defaults
                .iter()
                .filter(|_| WITH_DEFAULTS.contains(&kind))
                .map(|(key, value)| format!("{key} = {value}"))
                .collect();
            current = Some((name, before, Vec::new()));
        } else if let Some((key, value)) = default_setting(line) {
            // In force from here on: a part of every object that it holds for, not of the one before it.
            match value {
                "'';" | "heap;" => defaults.remove(key),
                _ => defaults.insert(key, value),
            };
        } else if let Some((_, _, lines)) = &mut current {
            lines.push((*line).to_owned());
        }
    }
    finish(&mut objects, current);
    objects
}

/// `SET default_tablespace = fast;` and its like.
fn default_setting(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once(" = ")?;
    ["SET default_tablespace", "SET default_table_access_method"].contains(&key).then_some((key, value))
}

/// The type, and `TYPE schema.name`, of a header. The owner is left out: it has a statement of its own.
fn header(line: &str) -> Option<(&str, String)> {
    let (name, rest) = line.strip_prefix("-- Name: ")?.split_once("; Type: ")?;
    let (kind, rest) = rest.split_once("; Schema: ")?;
    let (schema, _) = rest.split_once("; Owner: ")?;
    let name = if schema == "-" { format!("{kind} {name}") } else { format!("{kind} {schema}.{name}") };
    Some((kind, name))
}

fn finish(objects: &mut BTreeMap<String, Vec<String>>, current: Option<Entry>) {
    let Some((name, before, mut lines)) = current else { return };
    while lines.last().is_some_and(|line| line.trim().is_empty() || line == "--") {
        lines.pop();
    }
    let start = lines.iter().take_while(|line| line.trim().is_empty()).count();
    lines.drain(..start);
    // pg_restore puts two between statements.
    lines.dedup_by(|line, before| line.is_empty() && before.is_empty());
    // One name may have several entries, such as the grants of a table and of its columns.
    objects.entry(name).or_default().extend(before.into_iter().chain(lines));
}

/// The lines of both, in order, marked.
fn diff_lines(a: &[String], b: &[String]) -> Vec<String> {
    let before = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let after = a[before..].iter().rev().zip(b[before..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (middle_a, middle_b) = (&a[before..a.len() - after], &b[before..b.len() - after]);
    let mut marked: Vec<(char, &str)> = a[..before].iter().map(|line| (' ', line.as_str())).collect();
    marked.extend(middle(middle_a, middle_b));
    marked.extend(a[a.len() - after..].iter().map(|line| (' ', line.as_str())));
    let is_near = |at: usize| {
        let range = at.saturating_sub(CONTEXT)..(at + CONTEXT + 1).min(marked.len());
        marked[range].iter().any(|(mark, _)| *mark != ' ')
    };
    let mut out = Vec::new();
    let mut left_out = false;
    for (at, (mark, line)) in marked.iter().enumerate() {
        if is_near(at) {
            if std::mem::take(&mut left_out) {
                out.push("@@".to_owned());
            }
            out.push(format!("{mark}{line}"));
        } else {
            left_out = true;
        }
    }
    out
}

/// Marks what is between the common beginning and end, by the longest common subsequence.
fn middle<'a>(a: &'a [String], b: &'a [String]) -> Vec<(char, &'a str)> {
    let width = b.len() + 1;
    let mut out = Vec::new();
    let (mut i, mut j) = (0, 0);
    if (a.len() + 1).saturating_mul(width) <= MAX_CELLS {
        let mut common = vec![0u32; (a.len() + 1) * width];
        for i in (0..a.len()).rev() {
            for j in (0..b.len()).rev() {
                common[i * width + j] = if a[i] == b[j] {
                    common[(i + 1) * width + j + 1] + 1
                } else {
                    common[(i + 1) * width + j].max(common[i * width + j + 1])
                };
            }
        }
        while i < a.len() && j < b.len() {
            if a[i] == b[j] {
                out.push((' ', a[i].as_str()));
                (i, j) = (i + 1, j + 1);
            } else if common[(i + 1) * width + j] >= common[i * width + j + 1] {
                out.push(('-', a[i].as_str()));
                i += 1;
            } else {
                out.push(('+', b[j].as_str()));
                j += 1;
            }
        }
    }
    out.extend(a[i..].iter().map(|line| ('-', line.as_str())));
    out.extend(b[j..].iter().map(|line| ('+', line.as_str())));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump(token: &str, objects: &[(&str, &str)]) -> String {
        let mut text = format!("--\n-- PostgreSQL database dump\n--\n\n\\restrict {token}\n\nSET x = 0;\n\n");
        for (header, body) in objects {
            text.push_str(&format!("--\n-- Name: {header}; Owner: o\n--\n\n{body}\n\n\n"));
        }
        text + &format!("--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict {token}\n\n")
    }

    const T: &str = "t; Type: TABLE; Schema: public";

    #[test]
    fn random_tokens_and_the_order_of_objects_are_no_difference() {
        let objects = [(T, "CREATE TABLE t ();"), ("i; Type: INDEX; Schema: public", "CREATE INDEX i;")];
        let mut turned = objects;
        turned.reverse();
        assert_eq!(compare(&dump("a", &objects), &dump("b", &turned)), []);
    }

    #[test]
    fn changes_are_shown_with_their_surroundings() {
        let a = dump(
            "a",
            &[
                (T, "CREATE TABLE t (\n a int,\n b int,\n c int,\n d int,\n e int\n);"),
                ("s; Type: SCHEMA; Schema: -", "CREATE SCHEMA s;"),
            ],
        );
        let b = dump(
            "a",
            &[
                (T, "CREATE TABLE t (\n a int,\n b int,\n c int,\n d text,\n e int\n);"),
                ("v; Type: VIEW; Schema: s", "CREATE VIEW v;"),
            ],
        );
        let changes = compare(&a, &b);
        let show = |change: &ObjectChange| {
            format!("{:?} {}\n{}", change.change, change.object, change.lines.join("\n"))
        };
        assert_eq!(changes.len(), 3);
        assert_eq!(show(&changes[0]), "Removed SCHEMA s\n-CREATE SCHEMA s;");
        assert_eq!(
            show(&changes[1]),
            "Changed TABLE public.t\n@@\n  b int,\n  c int,\n- d int,\n+ d text,\n  e int\n );"
        );
        assert_eq!(show(&changes[2]), "Added VIEW s.v\n+CREATE VIEW v;");
    }

    #[test]
    fn what_belongs_to_a_table_is_compared_with_it_and_nothing_else() {
        let objects = [
            (T, "CREATE TABLE public.t (\n a int\n);"),
            ("i; Type: INDEX; Schema: public", "CREATE UNIQUE INDEX i ON public.t USING btree (a);"),
            ("TABLE t; Type: ACL; Schema: public", "GRANT SELECT ON TABLE public.t TO x;"),
            ("COLUMN t.a; Type: COMMENT; Schema: public", "COMMENT ON COLUMN public.t.a IS 'x';"),
            ("s; Type: STATISTICS; Schema: public", "CREATE STATISTICS public.s ON a, b FROM public.t;"),
            (
                "t t_pkey; Type: CONSTRAINT; Schema: public",
                "ALTER TABLE ONLY public.t\n    ADD CONSTRAINT t_pkey PRIMARY KEY (a);",
            ),
            (
                "u u_fkey; Type: FK CONSTRAINT; Schema: public",
                "ALTER TABLE ONLY public.u\n    ADD CONSTRAINT u_fkey FOREIGN KEY (a) REFERENCES public.t(a);",
            ),
            ("t2 d; Type: INDEX; Schema: public", "CREATE INDEX d ON public.t2 USING btree (a);"),
            ("v; Type: VIEW; Schema: public", "CREATE VIEW public.v AS SELECT a FROM public.t;"),
        ];
        let changes = compare_of(&dump("a", &objects), &dump("a", &[]), &[QualifiedName::new("public", "t")]);
        let found: Vec<&str> = changes.iter().map(|change| change.object.as_str()).collect();
        assert_eq!(
            found,
            [
                "ACL public.TABLE t",
                "COMMENT public.COLUMN t.a",
                "CONSTRAINT public.t t_pkey",
                "INDEX public.i",
                "TABLE public.t"
            ]
        );
    }

    #[test]
    fn a_table_that_moved_to_another_tablespace_differs() {
        let with = |tablespace: &str| {
            dump(
                "a",
                &[
                    (
                        "s; Type: SCHEMA; Schema: -",
                        &format!("CREATE SCHEMA s;\n\n\nSET default_tablespace = {tablespace};\n"),
                    ),
                    (T, "CREATE TABLE t ();"),
                ],
            )
        };
        let changes = compare(&with("''"), &with("fast"));
        assert_eq!(changes.len(), 1, "{changes:?}");
        assert_eq!(changes[0].lines, ["+SET default_tablespace = fast;", " CREATE TABLE t ();"]);
    }
}
