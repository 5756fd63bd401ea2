//! What only the statement of a table says: CHECK, names of constraints, collations, generated columns, AUTOINCREMENT.

use sqlite3_parser::{
    Bump,
    ast::{
        ColumnConstraint, CreateTableBody, DeferSubclause, Expr, InitDeferredPred, NamedTableConstraint,
        Stmt, TableConstraint,
    },
};

use super::{Check, IndexPart, Table};
use crate::sql::{Shown, statement, unquoted};

/// What a CREATE TABLE declares.
#[derive(Debug, Default)]
pub(super) struct Declared {
    pub columns: Vec<DeclaredColumn>,
    pub checks: Vec<Check>,
    pub foreign_keys: Vec<DeclaredForeignKey>,
    pub uniques: Vec<(String, Vec<String>)>,
    pub is_autoincrement: bool,
    pub unparsed: Option<String>,
}

#[derive(Debug)]
pub(super) struct DeclaredColumn {
    pub name: String,
    pub collation: Option<String>,
    pub generated: Option<String>,
}

#[derive(Debug)]
pub(super) struct DeclaredForeignKey {
    pub name: Option<String>,
    pub is_deferred: bool,
}

impl Declared {
    pub fn parse(sql: &str) -> Self {
        let bump = Bump::new();
        let mut declared = Self::default();
        match statement(&bump, sql) {
            Ok(Stmt::CreateTable {
                body: CreateTableBody::ColumnsAndConstraints { columns, constraints, .. },
                ..
            }) => {
                for column in &columns {
                    declared.take_column(column);
                }
                for constraint in constraints.unwrap_or_default() {
                    declared.take_constraint(constraint);
                }
            }
            Ok(_) => declared.unparsed = Some("it is no CREATE TABLE with columns".to_owned()),
            Err(error) => declared.unparsed = Some(error),
        }
        declared
    }

    pub fn column(&self, name: &str) -> Option<&DeclaredColumn> {
        self.columns.iter().find(|column| column.name.eq_ignore_ascii_case(name))
    }

    /// The name of the UNIQUE over these columns.
    pub fn unique_name(&self, table: &Table, columns: &[usize]) -> Option<String> {
        let is_same = |names: &[String]| {
            names.len() == columns.len()
                && names
                    .iter()
                    .zip(columns)
                    .all(|(name, at)| table.columns[*at].name.eq_ignore_ascii_case(name))
        };
        self.uniques.iter().find(|(_, names)| is_same(names)).map(|(name, _)| name.clone())
    }

    fn take_column(&mut self, column: &sqlite3_parser::ast::ColumnDefinition<'_>) {
        let column_name = unquoted(column.col_name.0);
        let mut made = DeclaredColumn { name: column_name.clone(), collation: None, generated: None };
        for constraint in column.constraints {
            let name = constraint.name.as_ref().map(|name| unquoted(name.0));
            match &constraint.constraint {
                ColumnConstraint::PrimaryKey { auto_increment, .. } => {
                    self.is_autoincrement |= auto_increment;
                }
                ColumnConstraint::Unique(_) => {
                    self.uniques.extend(name.map(|name| (name, vec![column_name.clone()])));
                }
                ColumnConstraint::Check(expression) => self.check(name, expression),
                ColumnConstraint::Collate { collation_name } => {
                    made.collation = Some(unquoted(collation_name.0));
                }
                ColumnConstraint::ForeignKey { defer_clause, .. } => {
                    let is_deferred = defer_clause.as_ref().is_some_and(is_deferred);
                    self.foreign_keys.push(DeclaredForeignKey { name, is_deferred });
                }
                ColumnConstraint::Generated { expr, .. } => made.generated = Some(Shown(expr).to_string()),
                ColumnConstraint::Defer(clause) => {
                    if let Some(last) = self.foreign_keys.last_mut() {
                        last.is_deferred = is_deferred(clause);
                    }
                }
                ColumnConstraint::NotNull { .. } | ColumnConstraint::Default(_) => {}
            }
        }
        self.columns.push(made);
    }

    fn take_constraint(&mut self, constraint: &NamedTableConstraint<'_>) {
        let name = constraint.name.as_ref().map(|name| unquoted(name.0));
        match &constraint.constraint {
            TableConstraint::PrimaryKey { auto_increment, .. } => {
                self.is_autoincrement |= auto_increment;
            }
            TableConstraint::Unique { columns, .. } => {
                let columns = columns.iter().filter_map(|column| plain_name(&column.expr)).collect();
                self.uniques.extend(name.map(|name| (name, columns)));
            }
            TableConstraint::Check(expression, _) => self.check(name, expression),
            TableConstraint::ForeignKey { defer_clause, .. } => {
                let is_deferred = defer_clause.as_ref().is_some_and(is_deferred);
                self.foreign_keys.push(DeclaredForeignKey { name, is_deferred });
            }
        }
    }

    fn check(&mut self, name: Option<String>, expression: &Expr<'_>) {
        self.checks.push(Check { name, expression: Shown(expression).to_string() });
    }
}

fn is_deferred(clause: &DeferSubclause) -> bool {
    clause.deferrable && clause.init_deferred == Some(InitDeferredPred::InitiallyDeferred)
}

fn plain_name(expression: &Expr<'_>) -> Option<String> {
    match expression {
        Expr::Id(id) => Some(unquoted(id.0)),
        Expr::Name(name) => Some(unquoted(name.0)),
        Expr::Collate(inner, _) => plain_name(inner),
        _ => None,
    }
}

/// Completes the parts of an index by its statement: expressions, and the predicate.
pub(super) fn index_parts(sql: &str, mut parts: Vec<IndexPart>) -> (Vec<IndexPart>, Option<String>) {
    let bump = Bump::new();
    let Ok(Stmt::CreateIndex { columns, where_clause, .. }) = statement(&bump, sql) else {
        return (parts, None);
    };
    for (part, said) in parts.iter_mut().zip(columns) {
        if part.column.is_none() {
            let inner = match &said.expr {
                Expr::Collate(inner, _) => inner,
                other => other,
            };
            part.expression = Some(Shown(inner).to_string());
        }
    }
    (parts, where_clause.as_ref().map(|clause| Shown(clause).to_string()))
}
