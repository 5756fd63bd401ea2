//! Functions with a setting that the server does not accept: it knows it no more, or takes another value only. With --skip-settings they
//! are made without it, and named.

use std::sync::Mutex;

use common::{
    ident::{Ident, printable},
    postgres::Session,
};

use crate::restore_errors::RestoreError;

/// Whether they may be left out, and what was.
#[derive(Debug, Default)]
pub struct FunctionSettings {
    may_skip: bool,
    left_out: Mutex<Vec<String>>,
}

impl FunctionSettings {
    /// Nothing is left out yet.
    pub fn new(may_skip: bool) -> Self {
        Self { may_skip, left_out: Mutex::default() }
    }

    /// Makes the function that an entry failed with, without what the server does not accept; says what was left out, if that helped.
    pub async fn make_without(&self, session: &Session, error: &RestoreError) -> Option<String> {
        let mut statement = error.statement.clone().filter(|_| self.may_skip)?;
        let mut refused = refused(&error.message)?;
        let mut names = Vec::new();
        loop {
            statement = without(&statement, &refused)?;
            names.push(refused);
            // As pg_restore has it: what the body names may come later.
            let make = format!("SET LOCAL check_function_bodies = off; {statement}");
            match session.batch_execute(&make).await {
                Ok(()) => break,
                Err(source) => refused = self::refused(source.as_db_error()?.message())?,
            }
        }
        let entry = error.entry.as_deref().unwrap_or("a function");
        let said = printable(&format!(
            "{entry} was made without what the server does not accept: {}",
            names.join(", ")
        ));
        if let Ok(mut left_out) = self.left_out.lock() {
            left_out.push(said.clone());
        }
        Some(said)
    }

    /// What was left out, one sentence each.
    pub fn left_out(&self) -> Vec<String> {
        self.left_out.lock().map(|left_out| left_out.clone()).unwrap_or_default()
    }
}

/// The setting that the server does not accept. pg_restore gives no SQLSTATE; these are the C locale's texts.
pub fn refused(message: &str) -> Option<String> {
    let first = message.lines().next()?;
    // What 19 says to standard_conforming_strings = off.
    if first == "non-standard string literals are not supported" {
        return Some("standard_conforming_strings".to_owned());
    }
    let starts = ["unrecognized configuration parameter \"", "invalid value for parameter \""];
    let rest = starts.iter().find_map(|start| first.strip_prefix(start))?;
    Some(rest.split('"').next()?.to_owned())
}

/// The definition of a function without one of its settings, each of which pg_dump writes on a line of its own before the body.
fn without(statement: &str, name: &str) -> Option<String> {
    let is_function =
        ["CREATE FUNCTION ", "CREATE PROCEDURE "].iter().any(|start| statement.starts_with(start));
    // As pg_dump writes a name.
    let plain = format!("\n    SET {name} TO ");
    let quoted = format!("\n    SET {} TO ", Ident::new(name));
    let (at, line) = [plain, quoted].into_iter().find_map(|line| Some((statement.find(&line)?, line)))?;
    let value = &statement[at + line.len()..];
    let end = end_of_value(value)?;
    is_function.then(|| format!("{}{}", &statement[..at], &value[end..]))
}

/// Where a value ends: literals, or the elements of a list, with a comma between them.
fn end_of_value(text: &str) -> Option<usize> {
    let mut at = 0;
    loop {
        let rest = &text[at..];
        if !rest.starts_with('\'') {
            return None;
        }
        let mut inner = 1;
        loop {
            let quote = inner + rest[inner..].find('\'')?;
            inner = quote + 1;
            if !rest[inner..].starts_with('\'') {
                break;
            }
            inner += 1;
        }
        at += inner;
        match text[at..].strip_prefix(", ") {
            Some(_) => at += 2,
            None => return Some(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_setting_goes_and_the_rest_of_a_function_stays() {
        let head = "CREATE FUNCTION public.f() RETURNS integer\n    LANGUAGE sql";
        let body = "\n    AS $$ select '\n    SET a TO ''x''' $$;\n";
        let statement = |settings: &str| format!("{head}{settings}{body}");
        let all =
            "\n    SET search_path TO 'public', 'it''s, x'\n    SET a TO 'of\nf'\n    SET \"B.c\" TO '1'";
        let gone = |name: &str| without(&statement(all), name);
        assert_eq!(
            gone("a"),
            Some(statement("\n    SET search_path TO 'public', 'it''s, x'\n    SET \"B.c\" TO '1'"))
        );
        assert_eq!(gone("search_path"), Some(statement("\n    SET a TO 'of\nf'\n    SET \"B.c\" TO '1'")));
        assert_eq!(
            gone("B.c"),
            Some(statement("\n    SET search_path TO 'public', 'it''s, x'\n    SET a TO 'of\nf'"))
        );
        assert_eq!(gone("other"), None);
        assert_eq!(without("CREATE TABLE t (i integer)\n    SET a TO 'x';", "a"), None);
    }

    #[test]
    fn what_the_server_does_not_accept_is_read_from_its_words() {
        for (said, name) in [
            ("unrecognized configuration parameter \"escape_string_warning\"", Some("escape_string_warning")),
            ("invalid value for parameter \"xmloption\": \"x\"\nHINT:  Available values", Some("xmloption")),
            ("non-standard string literals are not supported", Some("standard_conforming_strings")),
            ("permission denied to set parameter \"x\"", None),
        ] {
            assert_eq!(refused(said).as_deref(), name, "{said}");
        }
    }
}
