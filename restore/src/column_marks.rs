//! The option `pg_attver` of columns, which only some servers know. Pure.
//!
//! From the minor releases of 2026-11-12 on, servers mark columns with it, for themselves. A pg_dump of an earlier minor takes it
//! for an option of the user's and writes `ALTER TABLE ONLY t ALTER COLUMN c SET (pg_attver=1);` behind the definition of the
//! table, in one message with it; other servers then refuse both. It says nothing about the table, so it is left out.

use crate::restore_errors::RestoreError;

const OPTION: &str = "pg_attver=";

/// The statement without the marks, if they are what the server refused.
pub fn without_marks(error: &RestoreError) -> Option<String> {
    let is_refused = error.message.lines().next() == Some("unrecognized parameter \"pg_attver\"");
    let statement = error.statement.as_deref().filter(|_| is_refused)?;
    let cleaned = cleaned(statement);
    (cleaned != statement).then_some(cleaned)
}

/// Takes the mark out of every statement that sets it; a statement that sets nothing else goes.
pub fn cleaned(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len());
    let mut quotes = Quotes::default();
    for line in sql.split_inclusive('\n') {
        let begins_outside = quotes.are_closed();
        quotes.follow(line);
        let kept = match parts(line).filter(|_| begins_outside && quotes.are_closed()) {
            Some((before, options)) => {
                let others: Vec<&str> = options.split(", ").filter(|option| !is_mark(option)).collect();
                match others.len() {
                    0 => continue,
                    count if count == options.split(", ").count() => line.to_owned(),
                    _ => format!("{before}{});\n", others.join(", ")),
                }
            }
            None => line.to_owned(),
        };
        out.push_str(&kept);
    }
    out
}

/// `ALTER TABLE ONLY t ALTER COLUMN c SET (` and what stands in the parentheses, of a line that is such a statement.
fn parts(line: &str) -> Option<(&str, &str)> {
    let is_alter = line.starts_with("ALTER TABLE ONLY ") || line.starts_with("ALTER FOREIGN TABLE ONLY ");
    let open = line.rfind(" SET (").filter(|_| is_alter && line.contains(" ALTER COLUMN "))? + " SET (".len();
    let options = line.trim_end().strip_suffix(");")?.get(open..)?;
    Some((&line[..open], options))
}

fn is_mark(option: &str) -> bool {
    option.strip_prefix(OPTION).is_some_and(|number| {
        let digits = number.trim_matches('\'');
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Whether a place in SQL that pg_dump wrote stands in a literal or a quoted name.
#[derive(Default)]
struct Quotes {
    within: Option<char>,
    has_escapes: bool,
    is_escaped: bool,
    last: Option<char>,
}

impl Quotes {
    fn are_closed(&self) -> bool {
        self.within.is_none()
    }

    fn follow(&mut self, text: &str) {
        for character in text.chars() {
            match self.within {
                Some(_) if std::mem::take(&mut self.is_escaped) => {}
                Some('\'') if self.has_escapes && character == '\\' => self.is_escaped = true,
                // A doubled quote closes and opens again.
                Some(quote) if quote == character => self.within = None,
                Some(_) => {}
                None if character == '\'' || character == '"' => {
                    // Doubled, it goes on with the same literal.
                    if self.last != Some(character) {
                        self.has_escapes = character == '\'' && matches!(self.last, Some('E' | 'e'));
                    }
                    self.within = Some(character);
                }
                None => {}
            }
            self.last = Some(character);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(message: &str, statement: &str) -> RestoreError {
        RestoreError {
            dump_id: None,
            entry: None,
            message: message.to_owned(),
            statement: Some(statement.to_owned()),
        }
    }

    const REFUSED: &str = "unrecognized parameter \"pg_attver\"";

    #[test]
    fn exactly_the_marks_go() {
        let create = "CREATE TABLE public.t (\n    a integer DEFAULT 1,\n    b text\n);\n";
        let marks = "ALTER TABLE ONLY public.t ALTER COLUMN a SET (pg_attver=1);\n\
                     ALTER TABLE ONLY public.t ALTER COLUMN \"b ' c\" SET (n_distinct=5, pg_attver='2');\n";
        assert_eq!(
            without_marks(&error(REFUSED, &format!("{create}{marks}"))).unwrap(),
            format!("{create}ALTER TABLE ONLY public.t ALTER COLUMN \"b ' c\" SET (n_distinct=5);\n")
        );
        assert_eq!(without_marks(&error(REFUSED, create)), None);
        let other = "ALTER TABLE ONLY public.t ALTER COLUMN a SET (pg_attver=x, n_distinct=1);\n";
        assert_eq!(without_marks(&error(REFUSED, other)), None);
        let both = format!("{create}{marks}");
        assert_eq!(without_marks(&error("unrecognized parameter \"pg_attver2\"", &both)), None);
        assert_eq!(without_marks(&error("permission denied for table t", &both)), None);
    }

    #[test]
    fn what_stands_in_a_literal_or_a_name_stays() {
        let mark = "ALTER TABLE ONLY public.t ALTER COLUMN a SET (pg_attver=1);\n";
        for (before, after) in [
            ("CREATE TABLE t (a text DEFAULT 'it''s\n", "');\n"),
            ("CREATE TABLE t (a text DEFAULT E'it\\'s\n", "');\n"),
            ("CREATE TABLE \"t\"\"\n", "\" ();\n"),
            ("CREATE TABLE t (a text DEFAULT '\"', b text DEFAULT '\n", "');\n"),
        ] {
            let text = format!("{before}{mark}{after}");
            assert_eq!(cleaned(&text), text);
            assert_eq!(cleaned(&format!("{text}{mark}")), text);
        }
    }
}
