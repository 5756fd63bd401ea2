//! Views: columns and expressions of tables, joined and filtered. Everything else is told and not made.

use std::collections::HashSet;

use common::ident::{Ident, MAX_IDENT_BYTES, QualifiedName};
use sqlite3_parser::{
    Bump,
    ast::{
        As, Distinctness, Expr, FromClause, IndexedColumn, JoinConstraint, JoinOperator, JoinType, OneSelect,
        ResultColumn, Select, SelectTable, Stmt,
    },
};

use super::{
    DdlOptions, Stage, Statement, Translation, Untranslated, expression::Scope, kind::Known, tables::Design,
};
use crate::{
    schema::View,
    sql::{self, Shown},
};

/// CREATE VIEW, or the reason why not.
pub(super) fn create(view: &View, designs: &[Design<'_>], options: &DdlOptions, made: &mut Translation) {
    match translate(view, designs, options) {
        Ok(sql) => made.statements.push(Statement { stage: Stage::Views, table: None, sql }),
        Err(reason) => made.untranslated.push(Untranslated {
            what: format!("view {}", view.name),
            sql: view.sql.clone(),
            reason,
        }),
    }
}

fn translate(view: &View, designs: &[Design<'_>], options: &DdlOptions) -> Result<String, String> {
    let bump = Bump::new();
    let Stmt::CreateView { columns, select, .. } = sql::statement(&bump, &view.sql)? else {
        return Err("it is no view".to_owned());
    };
    if view.name.is_empty() || view.name.len() > MAX_IDENT_BYTES {
        return Err(format!("its name has more than {MAX_IDENT_BYTES} bytes, or none"));
    }
    if designs.iter().any(|design| design.plan.name.as_str() == view.name) {
        return Err("a table has its name".to_owned());
    }
    let query = query(select, columns, designs, options)?;
    let name = QualifiedName { schema: options.schema.clone(), name: Ident::new(view.name.as_str()) };
    Ok(format!("CREATE VIEW {name} AS\n{query}"))
}

fn query(
    select: &Select<'_>,
    names: Option<&[IndexedColumn<'_>]>,
    designs: &[Design<'_>],
    options: &DdlOptions,
) -> Result<String, String> {
    if select.with.is_some()
        || select.body.compounds.is_some()
        || select.limit.is_some()
        || select.order_by.is_some()
    {
        return Err(
            "only SELECT … FROM … WHERE is translated, without WITH, UNION, ORDER BY and LIMIT".to_owned()
        );
    }
    let OneSelect::Select {
        distinctness,
        columns,
        from: Some(from),
        where_clause,
        group_by: None,
        having: None,
        window_clause: None,
    } = &select.body.select
    else {
        return Err("a query without FROM, groups, windows and VALUES are not translated".to_owned());
    };
    let mut known = Vec::new();
    let from = tables(from, designs, options, &mut known)?;
    let list = result(columns, names, &known)?;
    let distinct = if matches!(distinctness, Some(Distinctness::Distinct)) { "DISTINCT " } else { "" };
    let mut sql = format!("SELECT {distinct}{}\nFROM {from}", list.join(", "));
    if let Some(condition) = where_clause {
        sql.push_str(&format!("\nWHERE {}", Scope(&known).condition_of(condition)?));
    }
    Ok(sql)
}

/// FROM with its joins; puts the columns of its tables down in `known`.
fn tables(
    from: &FromClause<'_>,
    designs: &[Design<'_>],
    options: &DdlOptions,
    known: &mut Vec<Known>,
) -> Result<String, String> {
    let first = from.select.ok_or("it reads no table")?;
    let mut sql = table(first, designs, options, known)?;
    for join in from.joins.iter().flatten() {
        let right = table(&join.table, designs, options, known)?;
        let is_left = match &join.operator {
            JoinOperator::Comma | JoinOperator::TypedJoin(None) => false,
            JoinOperator::TypedJoin(Some(kind)) if *kind == JoinType::INNER => false,
            JoinOperator::TypedJoin(Some(kind)) if *kind == JoinType::LEFT | JoinType::OUTER => true,
            JoinOperator::TypedJoin(_) => return Err("this kind of join is not translated".to_owned()),
        };
        let condition = match &join.constraint {
            None => "true".to_owned(),
            Some(JoinConstraint::On(condition)) => Scope(known).condition_of(condition)?,
            Some(JoinConstraint::Using(_)) => return Err("USING is not translated".to_owned()),
        };
        let join = if is_left { "LEFT JOIN" } else { "JOIN" };
        sql.push_str(&format!("\n{join} {right} ON {condition}"));
    }
    Ok(sql)
}

fn alias_of(alias: &As<'_>) -> String {
    match alias {
        As::As(name) | As::Elided(name) => sql::unquoted(name.0),
    }
}

fn table(
    table: &SelectTable<'_>,
    designs: &[Design<'_>],
    options: &DdlOptions,
    known: &mut Vec<Known>,
) -> Result<String, String> {
    let SelectTable::Table(name, alias, None) = table else {
        return Err("it reads something else than a table".to_owned());
    };
    let bare = sql::unquoted(name.name.0);
    let design =
        designs.iter().find(|design| design.table.name.eq_ignore_ascii_case(&bare)).ok_or_else(|| {
            format!("it reads {}, which is no table that is taken over", common::ident::printable(&bare))
        })?;
    let alias = alias.as_ref().map_or(bare, alias_of);
    if known.iter().any(|known| known.table.eq_ignore_ascii_case(&alias)) || alias.len() > MAX_IDENT_BYTES {
        return Err("two of its tables have one name".to_owned());
    }
    let quoted = Ident::new(alias.as_str());
    known.extend(design.known().into_iter().map(|column| Known {
        sql: format!("{quoted}.{}", column.sql),
        table: alias.clone(),
        ..column
    }));
    Ok(format!("{} AS {quoted}", design.name(options)))
}

/// The columns of the result, each with its name.
fn result(
    columns: &[ResultColumn<'_>],
    names: Option<&[IndexedColumn<'_>]>,
    known: &[Known],
) -> Result<Vec<String>, String> {
    let scope = Scope(known);
    let mut list: Vec<(String, String)> = Vec::new();
    for column in columns {
        match column {
            ResultColumn::Star => {
                list.extend(known.iter().map(|known| (known.sql.clone(), known.name.clone())));
            }
            ResultColumn::TableStar(table) => {
                let table = sql::unquoted(table.0);
                let of_table = known.iter().filter(|known| known.table.eq_ignore_ascii_case(&table));
                list.extend(of_table.map(|known| (known.sql.clone(), known.name.clone())));
            }
            ResultColumn::Expr(expression, alias) => {
                let name = match (alias, expression) {
                    (Some(alias), _) => alias_of(alias),
                    (None, Expr::Qualified(_, name) | Expr::Name(name)) => sql::unquoted(name.0),
                    (None, Expr::Id(name)) => sql::unquoted(name.0),
                    (None, other) => Shown(other).to_string(),
                };
                list.push((scope.value_of(expression)?, name));
            }
        }
    }
    if let Some(names) = names {
        if names.len() != list.len() {
            return Err("it names another number of columns than it has".to_owned());
        }
        list.iter_mut().zip(names).for_each(|((_, name), said)| *name = sql::unquoted(said.col_name.0));
    }
    let mut seen = HashSet::new();
    if list
        .iter()
        .any(|(_, name)| name.is_empty() || name.len() > MAX_IDENT_BYTES || !seen.insert(name.clone()))
    {
        return Err("two of its columns have one name, or one is too long".to_owned());
    }
    Ok(list.into_iter().map(|(sql, name)| format!("{sql} AS {}", Ident::new(name))).collect())
}
