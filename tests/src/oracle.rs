//! Is this database the same as that one? The judge of every backup, restore and undo.
//!
//! It looks with PostgreSQL's own `pg_dump -s` and with row hashes that the server computes, and never with
//! code of ours. It leaves nothing out silently: what it can't read (foreign tables, unpopulated materialized
//! views) is in the fingerprint as just that. Not part of a database's state and so not compared: statistics,
//! physical order of rows, object ids (but those of large objects), a sequence's `log_cnt`.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::cluster::Database;
use crate::psql;

/// All of a database's content in a form that can be compared; see [`Fingerprint::diff`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// `pg_dump -s`, without the lines that differ from run to run.
    schema: String,
    /// `table "public"."users"` → `rows 10, hash 123…`, and likewise every sequence, large object and setting.
    parts: BTreeMap<String, String>,
}

/// The fingerprint of a database.
pub fn fingerprint(database: &Database) -> Fingerprint {
    fingerprint_without(&database.url(), &[])
}

/// The fingerprint of the database at `url`, leaving out whole schemas (such as one of our own, `safe_run`).
pub fn fingerprint_without(url: &str, schemas: &[&str]) -> Fingerprint {
    Fingerprint { schema: schema(url, schemas), parts: parts(url, schemas) }
}

impl Fingerprint {
    /// What differs, for people; empty if nothing does. `-` is only here, `+` only in `other`.
    pub fn diff(&self, other: &Fingerprint) -> String {
        let mut text = String::new();
        let keys = self.parts.keys().chain(other.parts.keys().filter(|key| !self.parts.contains_key(*key)));
        for key in keys {
            match (self.parts.get(key), other.parts.get(key)) {
                (Some(a), Some(b)) if a == b => {}
                (Some(a), Some(b)) => writeln!(text, "{key}:\n  - {a}\n  + {b}").expect("memory"),
                (a, _) => {
                    let (sign, value) = a.map_or_else(|| ('+', &other.parts[key]), |value| ('-', value));
                    writeln!(text, "{key}:\n  {sign} {value}").expect("memory");
                }
            }
        }
        if self.schema != other.schema {
            text.push_str("pg_dump -s:\n");
            text.push_str(&line_diff(&self.schema, &other.schema));
        }
        text
    }

    /// Panics with the difference, if there is one.
    #[track_caller]
    pub fn assert_same(&self, other: &Fingerprint) {
        let diff = self.diff(other);
        assert!(diff.is_empty(), "the databases differ (- before, + after):\n{diff}");
        assert!(self == other, "the diff misses a difference");
    }

    /// Without the parts whose names begin with one of these, where a difference is expected and named by the
    /// test.
    pub fn without(mut self, kinds: &[&str]) -> Fingerprint {
        self.parts.retain(|key, _| !kinds.iter().any(|kind| key.starts_with(kind)));
        self
    }

    /// How many tables, sequences, large objects and other parts there are; for tests that the oracle isn't
    /// blind.
    pub fn count(&self, kind: &str) -> usize {
        self.parts.keys().filter(|key| key.starts_with(kind)).count()
    }

    /// The parts whose names begin with `kind`, such as `table ` or `sequence `.
    pub fn parts(&self, kind: &str) -> impl Iterator<Item = (&str, &str)> {
        let kind = kind.to_owned();
        self.parts
            .iter()
            .filter(move |(key, _)| key.starts_with(&kind))
            .map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// The normalised `pg_dump -s`.
    pub fn schema(&self) -> &str {
        &self.schema
    }
}

fn schema(url: &str, without: &[&str]) -> String {
    let mut command = psql::tool("pg_dump");
    command.args(["--schema-only", "--no-password", "-d", url]);
    // pg_dump prints defaults and partition bounds in the database's own time zone.
    command.env("PGOPTIONS", "-c TimeZone=UTC");
    for schema in without {
        command.arg(format!("--exclude-schema={}", psql::quote_ident(schema)));
    }
    let text = psql::succeed(command);
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines() {
        // Only whole lines of pg_dump's own, which can't be the middle of a function: versions and a random
        // token.
        let own = line.starts_with("-- Dumped from database version ")
            || line.starts_with("-- Dumped by pg_dump version ")
            || line.starts_with("\\restrict ")
            || line.starts_with("\\unrestrict ");
        if !own {
            lines.push(line);
        }
    }
    lines.join("\n")
}

fn parts(url: &str, without: &[&str]) -> BTreeMap<String, String> {
    let mut command = psql::psql(url);
    // In the connection's options, which outrank settings of the role and of the database, both of which may
    // differ.
    command.env(
        "PGOPTIONS",
        "-c client_min_messages=error -c search_path= -c extra_float_digits=1 -c bytea_output=hex \
         -c IntervalStyle=postgres -c DateStyle=ISO -c TimeZone=UTC -c row_security=off -c statement_timeout=0 \
         -c lock_timeout=0 -c default_transaction_read_only=on -c lc_monetary=C -c standard_conforming_strings=on \
         -c xmlbinary=base64",
    );
    let list: Vec<String> = without.iter().map(|schema| psql::quote_literal(schema)).collect();
    let without = format!("ARRAY[{}]::text[]", list.join(", "));
    let script = PARTS.replace("$WITHOUT", &without);
    let output =
        psql::try_run_with(command, &script).unwrap_or_else(|error| panic!("oracle on {url}: {error}"));
    let mut parts = BTreeMap::new();
    for line in output.lines() {
        let (key, value) = line.split_once('|').unwrap_or_else(|| panic!("oracle: no | in {line}"));
        assert!(parts.insert(key.to_owned(), value.to_owned()).is_none(), "oracle: twice {key}");
    }
    parts
}

/// Prints `key|value` lines. A name may hold newlines and bars, so it goes through quote_ident, then JSON's
/// escapes, then `|` as its code.
///
/// A row is hashed as the text of the whole row, with two seeds; the sums don't depend on the order of the
/// rows.
const PARTS: &str = r#"
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SELECT format($$SELECT %L, format('rows %%s, hash %%s %%s', count(*),
           coalesce(sum(hashtextextended("the row of the oracle"::text COLLATE "C", 0)::numeric), 0),
           coalesce(sum(hashtextextended("the row of the oracle"::text COLLATE "C", 1)::numeric), 0))
         FROM ONLY %I.%I AS "the row of the oracle"$$,
         CASE c.relkind WHEN 'm' THEN 'materialized view ' ELSE 'table ' END
           || replace(to_json(format('%I.%I', n.nspname, c.relname))::text, '|', '\u007c'),
         n.nspname, c.relname)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'm') AND (c.relkind = 'r' OR c.relispopulated)
   AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp_|toast_temp_)'
   AND n.nspname <> ALL ($WITHOUT)
 ORDER BY 1
\gexec
SELECT CASE c.relkind WHEN 'm' THEN 'materialized view ' ELSE 'foreign table ' END
         || replace(to_json(format('%I.%I', n.nspname, c.relname))::text, '|', '\u007c'),
       CASE c.relkind WHEN 'm' THEN 'not populated' ELSE 'not read' END
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE ((c.relkind = 'm' AND NOT c.relispopulated) OR c.relkind = 'f') AND n.nspname <> ALL ($WITHOUT);
SELECT 'invalid index ' || replace(to_json(format('%I.%I', n.nspname, c.relname))::text, '|', '\u007c'),
       format('valid %s, ready %s, live %s', i.indisvalid, i.indisready, i.indislive)
  FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE NOT (i.indisvalid AND i.indisready AND i.indislive) AND n.nspname <> ALL ($WITHOUT);
SELECT format($$SELECT %L, format('last value %%s, called %%s', last_value, is_called) FROM %I.%I$$,
         'sequence ' || replace(to_json(format('%I.%I', n.nspname, c.relname))::text, '|', '\u007c'),
         n.nspname, c.relname)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'S' AND n.nspname !~ '^pg_temp_' AND n.nspname <> ALL ($WITHOUT)
\gexec
SELECT 'large object ' || m.oid,
       json_build_object('owner', m.lomowner::regrole::text, 'comment', d.description,
         'acl', (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(m.lomacl) a),
         'bytes', length(lo_get(m.oid)), 'md5', md5(lo_get(m.oid)))
  FROM pg_largeobject_metadata m
  LEFT JOIN pg_description d ON d.objoid = m.oid AND d.classoid = 'pg_largeobject'::regclass AND d.objsubid = 0;
SELECT 'extension ' || to_json(quote_ident(extname))::text, 'owner ' || extowner::regrole::text FROM pg_extension;
SELECT 'subscription ' || to_json(quote_ident(s.subname))::text,
       format('owner %s, enabled %s, slot %s', s.subowner::regrole, s.subenabled, coalesce(quote_ident(s.subslotname), 'none'))
  FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = current_database();
SELECT 'database', json_build_object('owner', d.datdba::regrole::text, 'encoding', pg_encoding_to_char(d.encoding),
         'collate', d.datcollate, 'ctype', d.datctype, 'template', d.datistemplate, 'connections', d.datallowconn,
         'limit', d.datconnlimit, 'tablespace', t.spcname,
         -- Rights that are written down and those that everybody has anyway are the same, to pg_dump too.
         'acl', (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(d.datacl) a
           WHERE NOT (d.datacl @> acldefault('d', d.datdba) AND d.datacl <@ acldefault('d', d.datdba))),
         'comment', shobj_description(d.oid, 'pg_database'))
  FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace WHERE d.datname = current_database();
SELECT 'database setting ' || CASE s.setrole WHEN 0 THEN '' ELSE 'of role ' || s.setrole::regrole::text || ' ' END
         || split_part(setting, '=', 1),
       to_json(substr(setting, strpos(setting, '=') + 1))::text
  FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) AS setting
 WHERE d.datname = current_database();
COMMIT;
"#;

/// The lines that differ, in order, each with the nearest comment of pg_dump above it that names the object.
fn line_diff(a: &str, b: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (a.lines().collect(), b.lines().collect());
    let same = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let tail = a[same..].iter().rev().zip(b[same..].iter().rev()).take_while(|(x, y)| x == y).count();
    let (x, y) = (&a[same..a.len() - tail], &b[same..b.len() - tail]);
    // Longest common subsequence, by the table; cut off where it would take minutes.
    if x.len().saturating_mul(y.len()) > 50_000_000 {
        return format!("  {} lines and {} lines, too different to show\n", x.len(), y.len());
    }
    let width = y.len() + 1;
    let mut table = vec![0u32; (x.len() + 1) * width];
    for i in (0..x.len()).rev() {
        for j in (0..y.len()).rev() {
            table[i * width + j] = match x[i] == y[j] {
                true => table[(i + 1) * width + j + 1] + 1,
                false => table[(i + 1) * width + j].max(table[i * width + j + 1]),
            };
        }
    }
    let mut text = String::new();
    let (mut i, mut j) = (0, 0);
    let mut object = None;
    while i < x.len() || j < y.len() {
        if i < x.len() && j < y.len() && x[i] == y[j] {
            (i, j) = (i + 1, j + 1);
            continue;
        }
        let here = a[..same + i].iter().rposition(|line| line.starts_with("-- Name: "));
        if let Some(line) = here.filter(|_| here != object) {
            object = here;
            writeln!(text, "  {}", a[line]).expect("memory");
        }
        let removed = j == y.len() || (i < x.len() && table[(i + 1) * width + j] >= table[i * width + j + 1]);
        if removed {
            writeln!(text, "  - {}", x[i]).expect("memory");
            i += 1;
        } else {
            writeln!(text, "  + {}", y[j]).expect("memory");
            j += 1;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::line_diff;

    #[test]
    fn a_changed_line_is_shown_alone_under_the_object_that_it_is_in() {
        let before = "x\n-- Name: t; Type: TABLE\none\ntwo\nthree\nfour";
        let after = "x\n-- Name: t; Type: TABLE\none\nTWO\nthree\nfour\nfive";
        assert_eq!(line_diff(before, after), "  -- Name: t; Type: TABLE\n  - two\n  + TWO\n  + five\n");
    }
}
