//! CREATE TABLE and ALTER TABLE, as pg_dump writes them.

use common::snapshot::archive::ArchiveEntry;

use super::{Column, Constraint, ForeignKey, Generated, Rule, Table, is_one_of};
use crate::export::tokens::{Tokens, tokens};

/// Where the type of a column or a domain ends.
pub(super) fn ends_type(rest: &Tokens<'_>) -> bool {
    is_one_of(
        rest,
        &[
            "COLLATE",
            "NOT",
            "NULL",
            "DEFAULT",
            "GENERATED",
            "CONSTRAINT",
            "COMPRESSION",
            "STORAGE",
            "CHECK",
            "OPTIONS",
        ],
    ) || rest.peek().is_some_and(|token| token.is_mark(";"))
        || (is_one_of(rest, &["WITH"]) && rest.ahead(1).is_some_and(|token| token.is_word("OPTIONS")))
}

/// Where a default ends: pg_dump writes NOT NULL and constraints behind it.
pub(super) fn ends_default(rest: &Tokens<'_>) -> bool {
    let is_not_null = is_one_of(rest, &["NOT"]) && rest.ahead(1).is_some_and(|token| token.is_word("NULL"));
    is_not_null || is_one_of(rest, &["CONSTRAINT"]) || rest.peek().is_some_and(|token| token.is_mark(";"))
}

pub(super) fn read_table(entry: &ArchiveEntry) -> Result<Table, String> {
    let all = tokens(&entry.definition)?;
    let mut rest = Tokens::new(&entry.definition, &all);
    if !rest.words(&["CREATE"]) {
        return Err("its statement is not known".to_owned());
    }
    rest.words(&["UNLOGGED"]);
    if !rest.words(&["TABLE"]) {
        return Err("its statement is not known".to_owned());
    }
    let mut table = Table { name: rest.qualified()?, ..Table::default() };
    if rest.words(&["OF"]) {
        table.of_type = Some(rest.qualified()?);
    }
    if rest.peek().is_some_and(|token| token.is_mark("(")) {
        for mut part in rest.bracket()?.list() {
            if is_one_of(&part, &["CONSTRAINT", "CHECK"]) {
                let sql = part.text();
                match constraint(&mut part, sql)? {
                    Some(constraint) => table.constraints.push(constraint),
                    None => not_null(&mut table, sql)?,
                }
            } else {
                table.columns.push(column(&mut part)?);
            }
        }
    }
    if rest.words(&["INHERITS"]) {
        for mut parent in rest.bracket()?.list() {
            table.parents.push(parent.qualified()?);
        }
    }
    if rest.words(&["PARTITION", "BY"]) {
        let by = rest
            .until(|rest| is_one_of(rest, &["WITH"]) || rest.peek().is_some_and(|token| token.is_mark(";")));
        table.partition_by = Some(format!("PARTITION BY {}", by.text()));
    }
    alter_columns(&mut table, &all, &entry.definition)?;
    Ok(table)
}

/// `CONSTRAINT name NOT NULL column` of PostgreSQL 18.
fn not_null(table: &mut Table, sql: &str) -> Result<(), String> {
    let all = tokens(sql)?;
    let mut rest = Tokens::new(sql, &all);
    rest.until(|rest| is_one_of(rest, &["NULL"]));
    rest.next();
    let name = rest.name()?;
    match table.columns.iter_mut().find(|column| column.name == name) {
        Some(column) => column.is_not_null = true,
        // An inherited column.
        None => table.columns.push(Column { name, is_not_null: true, ..Column::default() }),
    }
    Ok(())
}

/// ALTER COLUMN … SET NOT NULL and SET DEFAULT, wherever they stand.
pub(super) fn alter_columns(
    table: &mut Table,
    all: &[super::super::tokens::Placed],
    sql: &str,
) -> Result<(), String> {
    let mut rest = Tokens::new(sql, all);
    while !rest.is_at_end() {
        if rest.words(&["ALTER", "COLUMN"]) {
            let name = rest.name()?;
            let column = match table.columns.iter_mut().position(|column| column.name == name) {
                Some(at) => &mut table.columns[at],
                None => {
                    table.columns.push(Column { name, ..Column::default() });
                    let last = table.columns.len() - 1;
                    &mut table.columns[last]
                }
            };
            if rest.words(&["SET", "NOT", "NULL"]) {
                column.is_not_null = true;
            } else if rest.words(&["SET", "DEFAULT"]) {
                column.default = Some(rest.until(ends_default).text().to_owned());
            }
        } else {
            rest.next();
        }
    }
    Ok(())
}

pub(super) fn column(part: &mut Tokens<'_>) -> Result<Column, String> {
    let mut column = Column { name: part.name()?, ..Column::default() };
    column.type_name = part.until(ends_type).text().to_owned();
    while !part.is_at_end() {
        if part.words(&["COLLATE"]) {
            let (schema, name) = part.qualified()?;
            column.collation = Some(if schema.is_empty() { name } else { format!("{schema}.{name}") });
        } else if part.words(&["NOT", "NULL"]) {
            column.is_not_null = true;
        } else if part.words(&["DEFAULT"]) {
            column.default = Some(part.until(ends_default).text().to_owned());
        } else if part.words(&["GENERATED", "ALWAYS", "AS"]) {
            let expression = part.bracket()?.text().to_owned();
            column.generated = Some(Generated { expression, is_stored: part.words(&["STORED"]) });
        } else {
            part.next();
        }
    }
    Ok(column)
}

/// `[CONSTRAINT name] …`; `None` for NOT NULL.
pub(super) fn constraint(rest: &mut Tokens<'_>, sql: &str) -> Result<Option<Constraint>, String> {
    let name = if rest.words(&["CONSTRAINT"]) { rest.name()? } else { String::new() };
    let mut made = Constraint { name, rule: Rule::Untranslatable(""), sql: sql.to_owned(), lost: Vec::new() };
    if rest.words(&["NOT", "NULL"]) {
        return Ok(None);
    }
    let is_foreign = is_one_of(rest, &["FOREIGN"]);
    made.rule = if rest.words(&["CHECK"]) {
        Rule::Check { expression: rest.bracket()?.text().to_owned(), is_valid: true }
    } else if rest.words(&["PRIMARY", "KEY"]) {
        key(rest, Rule::PrimaryKey)?
    } else if rest.words(&["UNIQUE"]) {
        if rest.words(&["NULLS", "NOT", "DISTINCT"]) {
            made.lost.push("NULL is equal to NULL there, and never in SQLite");
        }
        key(rest, Rule::Unique)?
    } else if rest.words(&["FOREIGN", "KEY"]) {
        foreign_key(rest, &mut made.lost)?
    } else {
        Rule::Untranslatable("SQLite has no such constraint")
    };
    while !rest.is_at_end() && !rest.peek().is_some_and(|token| token.is_mark(";")) {
        if rest.words(&["NOT", "VALID"]) {
            if let Rule::Check { is_valid, .. } = &mut made.rule {
                *is_valid = false;
            }
        } else if rest.words(&["NOT", "ENFORCED"]) {
            made.rule = Rule::Untranslatable("it is not enforced");
        } else if rest.words(&["INCLUDE"]) {
            rest.bracket()?;
        } else if !is_foreign && rest.words(&["DEFERRABLE"]) {
            made.lost.push("SQLite checks it at once, and not at the end of a statement or transaction");
        } else {
            rest.next();
        }
    }
    Ok(Some(made))
}

fn names(rest: Tokens<'_>) -> Result<Vec<String>, String> {
    rest.list().into_iter().map(|mut part| part.name()).collect()
}

fn key(rest: &mut Tokens<'_>, rule: impl Fn(Vec<String>) -> Rule) -> Result<Rule, String> {
    let columns = rest.bracket()?;
    if columns.text().to_ascii_uppercase().ends_with(" WITHOUT OVERLAPS") {
        return Ok(Rule::Untranslatable("SQLite has no WITHOUT OVERLAPS"));
    }
    Ok(rule(names(columns)?))
}

fn foreign_key(rest: &mut Tokens<'_>, lost: &mut Vec<&'static str>) -> Result<Rule, String> {
    let columns = rest.bracket()?;
    if is_period(&columns) {
        return Ok(Rule::Untranslatable("SQLite has no PERIOD"));
    }
    let mut key = ForeignKey { columns: names(columns)?, ..ForeignKey::default() };
    if !rest.words(&["REFERENCES"]) {
        return Err("REFERENCES is missing".to_owned());
    }
    key.parent = rest.qualified()?;
    key.parent_columns = names(rest.bracket()?)?;
    while !rest.is_at_end() && !rest.peek().is_some_and(|token| token.is_mark(";")) {
        let event = ["UPDATE", "DELETE"].into_iter().find(|event| rest.words(&["ON", event]));
        if let Some(event) = event {
            let action =
                [&["NO", "ACTION"][..], &["RESTRICT"], &["CASCADE"], &["SET", "NULL"], &["SET", "DEFAULT"]]
                    .into_iter()
                    .find(|action| rest.words(action))
                    .ok_or("an action that is unknown")?;
            key.actions.push_str(&format!(" ON {event} {}", action.join(" ")));
            if rest.peek().is_some_and(|token| token.is_mark("(")) {
                return Ok(Rule::Untranslatable("SQLite sets all columns of a key to NULL, and not some"));
            }
        } else if rest.words(&["MATCH", "FULL"]) {
            lost.push("SQLite does not refuse keys that are NULL in part");
        } else if rest.words(&["INITIALLY", "DEFERRED"]) {
            key.is_deferred = true;
        } else if is_one_of(rest, &["NOT"]) {
            break;
        } else {
            rest.next();
        }
    }
    Ok(Rule::ForeignKey(key))
}

/// `PERIOD column` of PostgreSQL 18: a word before a name.
fn is_period(columns: &Tokens<'_>) -> bool {
    columns
        .clone()
        .list()
        .into_iter()
        .any(|part| part.peek().is_some_and(|token| token.is_word("PERIOD")) && part.ahead(1).is_some())
}
