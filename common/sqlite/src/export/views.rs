//! Views: of tables that are joined and filtered, as PostgreSQL writes them back. Groups, orders, sets and subqueries are told.

use common::ident::printable;

use super::{
    ExportPlan, Untranslated, ViewDesign,
    design::TableDesign,
    expression::{Known, Scope},
    kind::Kind,
    names::{self, Names},
    structure::{Structure, View},
    tokens::{Token, Tokens, tokens},
};
use crate::sql::quoted;

/// Words with which something begins that is not translated.
const BEYOND: [&str; 12] = [
    "GROUP",
    "HAVING",
    "ORDER",
    "LIMIT",
    "OFFSET",
    "UNION",
    "INTERSECT",
    "EXCEPT",
    "WINDOW",
    "FETCH",
    "FOR",
    "WITH",
];

/// Adds those that have a translation.
pub(super) fn add(structure: &Structure, taken: &mut Names, made: &mut ExportPlan) {
    for view in &structure.views {
        let shown = names::of(&view.name.0, &view.name.1);
        match translate(view, structure, &made.tables) {
            Ok((columns, select)) => {
                let name = taken.take(&shown);
                let sql = format!("CREATE VIEW {} ({columns}) AS {select}", quoted(&name));
                made.views.push(ViewDesign { name, sql, original: view.sql.clone() });
            }
            Err(reason) => made.untranslated.push(Untranslated {
                what: format!("view {}", printable(&shown)),
                sql: view.sql.clone(),
                reason,
            }),
        }
    }
}

/// The names of the columns, and the query.
fn translate(view: &View, structure: &Structure, tables: &[TableDesign]) -> Result<(String, String), String> {
    let all = tokens(&view.select)?;
    let mut rest = Tokens::new(&view.select, &all);
    if !rest.words(&["SELECT"]) {
        return Err("a query that begins with something else than SELECT".to_owned());
    }
    if rest.peek().is_some_and(|token| token.is_word("DISTINCT") || token.is_word("ALL")) {
        return Err("a query with DISTINCT".to_owned());
    }
    let list = rest.until(|rest| is_one_of(rest, &["FROM"]) || is_one_of(rest, &BEYOND));
    let mut from = Tables { designs: tables, known: Vec::new(), structure };
    let source = if rest.words(&["FROM"]) { from.from(&mut rest)? } else { String::new() };
    let scope = Scope { columns: &from.known, types: &structure.types, is_lenient: false, is_checked: false };
    let condition = if rest.words(&["WHERE"]) {
        let tokens = rest.until(|rest| is_one_of(rest, &BEYOND));
        let value = scope.whole(tokens)?;
        if value.kind != Kind::Bool {
            return Err("a filter that is no condition".to_owned());
        }
        format!(" WHERE {}", value.sql)
    } else {
        String::new()
    };
    if !rest.is_at_end() {
        return Err("a query with groups, an order, a limit, or of several queries".to_owned());
    }
    let (mut names, mut values) = (Vec::new(), Vec::new());
    for mut part in list.list() {
        let value = part.until(|rest| is_one_of(rest, &["AS"]));
        let name = if part.words(&["AS"]) {
            part.name()?
        } else {
            last_name(&value).ok_or("a column without a name")?
        };
        values.push(scope.whole(value)?.sql);
        names.push(name);
    }
    if values.is_empty() {
        return Err("a view without columns".to_owned());
    }
    let names: Vec<String> = Names::default().take_all(&names).iter().map(|name| quoted(name)).collect();
    let source = if source.is_empty() { source } else { format!(" FROM {source}") };
    Ok((names.join(", "), format!("SELECT {}{source}{condition}", values.join(", "))))
}

fn is_one_of(rest: &Tokens<'_>, words: &[&str]) -> bool {
    words.iter().any(|word| rest.peek().is_some_and(|token| token.is_word(word)))
}

/// The name of a column that has none but its own.
fn last_name(value: &Tokens<'_>) -> Option<String> {
    let mut value = value.clone();
    let mut last = None;
    while let Some(token) = value.next() {
        last = token.name().map(str::to_owned);
    }
    last
}

struct Tables<'a> {
    designs: &'a [TableDesign],
    known: Vec<Known>,
    structure: &'a Structure,
}

impl Tables<'_> {
    /// Tables behind FROM, parted by commas.
    fn from(&mut self, rest: &mut Tokens<'_>) -> Result<String, String> {
        let mut sql = self.joined(rest)?;
        while rest.mark(",") {
            sql = format!("{sql}, {}", self.joined(rest)?);
        }
        Ok(sql)
    }

    fn joined(&mut self, rest: &mut Tokens<'_>) -> Result<String, String> {
        let mut sql = self.table(rest)?;
        loop {
            let kind = [
                (&["JOIN"][..], "JOIN"),
                (&["LEFT", "JOIN"], "LEFT JOIN"),
                (&["RIGHT", "JOIN"], "RIGHT JOIN"),
                (&["FULL", "JOIN"], "FULL JOIN"),
                (&["CROSS", "JOIN"], "CROSS JOIN"),
            ]
            .into_iter()
            .find(|(words, _)| rest.words(words));
            let Some((_, kind)) = kind else { return Ok(sql) };
            let other = self.table(rest)?;
            sql = format!("{sql} {kind} {other}");
            if kind == "CROSS JOIN" {
                continue;
            }
            if !rest.words(&["ON"]) {
                return Err("a join by USING".to_owned());
            }
            let scope = Scope {
                columns: &self.known,
                types: &self.structure.types,
                is_lenient: false,
                is_checked: false,
            };
            sql.push_str(&format!(" ON {}", scope.condition(rest.bracket()?.text())?));
        }
    }

    fn table(&mut self, rest: &mut Tokens<'_>) -> Result<String, String> {
        if rest.peek().is_some_and(|token| token.is_mark("(")) {
            let mut inner = rest.bracket()?;
            let sql = self.joined(&mut inner)?;
            return if inner.is_at_end() { Ok(format!("({sql})")) } else { Err("a subquery".to_owned()) };
        }
        if is_one_of(rest, &["ONLY", "LATERAL", "SELECT", "VALUES"]) {
            return Err("a query of something else than tables".to_owned());
        }
        let (schema, name) = rest.qualified()?;
        let design = self
            .designs
            .iter()
            .find(|design| design.source.schema.as_str() == schema && design.source.name.as_str() == name)
            .ok_or_else(|| format!("{} is no table that is exported", printable(&name)))?;
        let is_parent = self
            .structure
            .tables
            .values()
            .any(|table| table.parents.iter().any(|parent| parent.0 == schema && parent.1 == name));
        if is_parent {
            return Err("it reads a table with those that inherit from it".to_owned());
        }
        let alias = match rest.peek() {
            Some(Token::Quoted(alias)) => Some(alias.clone()),
            Some(Token::Word(alias))
                if !is_one_of(rest, &["JOIN", "LEFT", "RIGHT", "FULL", "CROSS", "ON", "WHERE"])
                    && !is_one_of(rest, &BEYOND) =>
            {
                Some(alias.clone())
            }
            _ => None,
        };
        if alias.is_some() {
            rest.next();
            if rest.peek().is_some_and(|token| token.is_mark("(")) {
                return Err("names of columns behind a table".to_owned());
            }
        }
        let alias = alias.unwrap_or(name);
        if self.known.iter().any(|known| known.table.eq_ignore_ascii_case(&alias)) {
            return Err("two tables whose names are one to SQLite".to_owned());
        }
        for column in design.known() {
            let sql = format!("{}.{}", quoted(&alias), column.sql);
            self.known.push(Known { table: alias.clone(), sql, ..column });
        }
        Ok(format!("{} AS {}", quoted(&design.name), quoted(&alias)))
    }
}
