//! The structure of a PostgreSQL database, from the statements that pg_dump writes into its archive.

mod table;

use std::collections::{HashMap, HashSet};

use common::snapshot::archive::ArchiveEntry;

use super::{
    Untranslated,
    tokens::{Token, Tokens, tokens},
    types::{Defined, Domain, Types},
};
use crate::export::structure::table::{alter_columns, constraint, ends_default, ends_type, read_table};

/// A name with its schema.
pub(super) type Name = (String, String);

/// Everything that can be translated, and what can't.
#[derive(Debug, Default)]
pub(super) struct Structure {
    /// Tables by oid.
    pub tables: HashMap<u32, Table>,
    pub types: Types,
    pub views: Vec<View>,
    /// Which table is a partition of which.
    pub partitions: HashMap<Name, Name>,
    /// Sequences and the column that each belongs to: schema and table, column, sequence.
    pub owned: Vec<(Name, String, Name)>,
    /// Names of indexes that only are a part of a partitioned table's.
    pub attached: HashSet<Name>,
    pub untranslated: Vec<Untranslated>,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    pub name: Name,
    pub columns: Vec<Column>,
    pub parents: Vec<Name>,
    /// PARTITION BY, if it is partitioned.
    pub partition_by: Option<String>,
    /// The composite type of a typed table.
    pub of_type: Option<Name>,
    pub constraints: Vec<Constraint>,
    pub indexes: Vec<Index>,
}

#[derive(Debug, Default, Clone)]
pub(super) struct Column {
    pub name: String,
    pub type_name: String,
    pub collation: Option<String>,
    pub is_not_null: bool,
    pub default: Option<String>,
    pub generated: Option<Generated>,
}

#[derive(Debug, Clone)]
pub(super) struct Generated {
    pub expression: String,
    pub is_stored: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Constraint {
    pub name: String,
    pub rule: Rule,
    /// The statement, for what is not translated.
    pub sql: String,
    /// What SQLite does not do, one phrase each.
    pub lost: Vec<&'static str>,
}

#[derive(Debug, Clone)]
pub(super) enum Rule {
    PrimaryKey(Vec<String>),
    Unique(Vec<String>),
    Check { expression: String, is_valid: bool },
    ForeignKey(ForeignKey),
    Untranslatable(&'static str),
}

#[derive(Debug, Clone, Default)]
pub(super) struct ForeignKey {
    pub columns: Vec<String>,
    pub parent: Name,
    pub parent_columns: Vec<String>,
    /// ON UPDATE and ON DELETE, as they stand.
    pub actions: String,
    pub is_deferred: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Index {
    pub name: Name,
    pub is_unique: bool,
    /// The parts as text, each with DESC where it is descending.
    pub parts: Vec<IndexPart>,
    pub predicate: Option<String>,
    pub sql: String,
    pub refused: Option<String>,
    pub lost: Vec<&'static str>,
}

#[derive(Debug, Clone)]
pub(super) struct IndexPart {
    pub expression: String,
    pub is_descending: bool,
}

#[derive(Debug, Clone)]
pub(super) struct View {
    pub name: Name,
    pub select: String,
    pub sql: String,
}

/// Reads the entries, of a partial snapshot those that belong to it.
pub(super) fn read(entries: &[&ArchiveEntry]) -> Structure {
    let mut structure = Structure::default();
    for entry in entries.iter().filter(|entry| entry.kind == "TABLE") {
        match read_table(entry) {
            Ok(table) => {
                structure.tables.insert(entry.object.1, table);
            }
            Err(reason) => structure.refuse(entry, reason),
        }
    }
    for entry in entries {
        let read = match entry.kind.as_str() {
            "TABLE" => Ok(()),
            "TYPE" => structure.type_(entry),
            "DOMAIN" => structure.domain(entry),
            "TABLE ATTACH" => structure.attach(entry),
            "INDEX ATTACH" => structure.attach_index(entry),
            "DEFAULT" => structure.alter(entry),
            "CONSTRAINT" | "CHECK CONSTRAINT" | "FK CONSTRAINT" => structure.alter(entry),
            "SEQUENCE" => structure.sequence(entry),
            "SEQUENCE OWNED BY" => structure.owned_by(entry),
            "INDEX" => structure.index(entry),
            "VIEW" => structure.view(entry),
            kind => match reason_of(kind) {
                Some(reason) => Err(reason.to_owned()),
                None => Ok(()),
            },
        };
        if let Err(reason) = read {
            structure.refuse(entry, reason);
        }
    }
    structure
}

/// Why objects of a kind have no translation; `None` for what says nothing of its own.
fn reason_of(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "ENCODING"
        | "STDSTRINGS"
        | "SEARCHPATH"
        | "DATABASE"
        | "DATABASE PROPERTIES"
        | "SCHEMA"
        | "TABLE DATA"
        | "SEQUENCE SET"
        | "BLOB"
        | "BLOBS"
        | "BLOB METADATA"
        | "SHELL TYPE" => return None,
        "FUNCTION" | "PROCEDURE" | "AGGREGATE" | "PROCEDURAL LANGUAGE" => {
            "SQLite has no functions of a database's own"
        }
        "TRIGGER" | "EVENT TRIGGER" => "it calls a function, and SQLite has none of a database's own",
        "RULE" => "SQLite has no rules",
        "ACL" | "DEFAULT ACL" | "POLICY" | "ROW SECURITY" | "USER MAPPING" => "SQLite has no roles",
        "COMMENT" | "SECURITY LABEL" => "SQLite keeps no comments and no labels",
        "MATERIALIZED VIEW" => "SQLite has no materialized views, and a snapshot holds no rows of one",
        "MATERIALIZED VIEW DATA" => return None,
        "FOREIGN TABLE" | "SERVER" | "FOREIGN DATA WRAPPER" | "FOREIGN SERVER" => {
            "the rows are in another database"
        }
        "PUBLICATION" | "PUBLICATION TABLE" | "PUBLICATION TABLES IN SCHEMA" | "SUBSCRIPTION" => {
            "SQLite has no replication"
        }
        "STATISTICS" | "STATISTICS DATA" => "SQLite has no extended statistics",
        "EXTENSION" => "SQLite has no extensions of PostgreSQL's",
        _ => "SQLite has nothing of this kind",
    })
}

impl Structure {
    fn refuse(&mut self, entry: &ArchiveEntry, reason: impl Into<String>) {
        let tag = match &entry.schema {
            Some(schema) if schema != "public" => format!("{schema}.{}", entry.tag),
            _ => entry.tag.clone(),
        };
        self.untranslated.push(Untranslated {
            what: common::ident::printable(&format!("{} {tag}", entry.kind.to_lowercase())),
            sql: entry.definition.trim().to_owned(),
            reason: reason.into(),
        });
    }

    pub fn table_mut(&mut self, name: &Name) -> Option<&mut Table> {
        self.tables.values_mut().find(|table| table.name == *name)
    }

    fn type_(&mut self, entry: &ArchiveEntry) -> Result<(), String> {
        let all = tokens(&entry.definition)?;
        let mut rest = Tokens::new(&entry.definition, &all);
        let name = match rest.words(&["CREATE", "TYPE"]) {
            true => rest.qualified()?,
            false => return Err("its statement is not known".to_owned()),
        };
        let defined = if rest.words(&["AS", "ENUM"]) {
            let labels = rest.bracket()?.list().into_iter().filter_map(|mut part| match part.next() {
                Some(Token::Text(label)) => Some(label.clone()),
                _ => None,
            });
            Defined::Enum(labels.collect())
        } else {
            Defined::Other
        };
        let is_enum = matches!(defined, Defined::Enum(_));
        self.types.0.insert(name, defined);
        if is_enum {
            Ok(())
        } else {
            Err("its values are stored as text, as PostgreSQL writes them".to_owned())
        }
    }

    fn domain(&mut self, entry: &ArchiveEntry) -> Result<(), String> {
        let all = tokens(&entry.definition)?;
        let mut rest = Tokens::new(&entry.definition, &all);
        if !rest.words(&["CREATE", "DOMAIN"]) {
            return Err("its statement is not known".to_owned());
        }
        let name = rest.qualified()?;
        rest.words(&["AS"]);
        let base = rest.until(ends_type).text().to_owned();
        let mut domain = Domain { base, ..Domain::default() };
        while !rest.is_at_end() {
            if rest.words(&["NOT", "NULL"]) {
                domain.is_not_null = true;
            } else if rest.words(&["DEFAULT"]) {
                domain.default = Some(rest.until(ends_default).text().to_owned());
            } else if rest.words(&["CHECK"]) {
                domain.checks.push(rest.bracket()?.text().to_owned());
            } else {
                rest.next();
            }
        }
        self.types.0.insert(name, Defined::Domain(domain));
        Ok(())
    }

    fn attach(&mut self, entry: &ArchiveEntry) -> Result<(), String> {
        let all = tokens(&entry.definition)?;
        let mut rest = Tokens::new(&entry.definition, &all);
        let parent = altered(&mut rest)?;
        if !rest.words(&["ATTACH", "PARTITION"]) {
            return Err("its statement is not known".to_owned());
        }
        self.partitions.insert(rest.qualified()?, parent);
        Ok(())
    }

    fn attach_index(&mut self, entry: &ArchiveEntry) -> Result<(), String> {
        let all = tokens(&entry.definition)?;
        let mut rest = Tokens::new(&entry.definition, &all);
        if rest.words(&["ALTER", "INDEX"]) {
            rest.qualified()?;
            if rest.words(&["ATTACH", "PARTITION"]) {
                self.attached.insert(rest.qualified()?);
            }
        }
        Ok(())
    }

    /// ALTER TABLE that adds a constraint or sets a default.
    fn alter(&mut self, entry: &ArchiveEntry) -> Result<(), String> {
        let all = tokens(&entry.definition)?;
        let mut rest = Tokens::new(&entry.definition, &all);
        let name = altered(&mut rest)?;
        let constraint =
            if rest.words(&["ADD"]) { constraint(&mut rest, entry.definition.trim())? } else { None };
        let table = self.table_mut(&name).ok_or("its table is not in the archive")?;
        match constraint {
            Some(constraint) => {
                table.constraints.push(constraint);
                Ok(())
            }
            None => alter_columns(table, &all, &entry.definition),
        }
    }

    /// A sequence alone says nothing; an identity says whose it is.
    fn sequence(&mut self, entry: &ArchiveEntry) -> Result<(), String> {
        let all = tokens(&entry.definition)?;
        let mut rest = Tokens::new(&entry.definition, &all);
        if !rest.words(&["ALTER", "TABLE"]) {
            return Ok(());
        }
        rest.words(&["ONLY"]);
        let table = rest.qualified()?;
        if rest.words(&["ALTER", "COLUMN"]) {
            let column = rest.name()?;
            rest.until(|rest| rest.peek().is_some_and(|token| token.is_mark("(")));
            let mut options = rest.bracket()?;
            options.until(|rest| rest.peek().is_some_and(|token| token.is_word("NAME")));
            options.next();
            self.owned.push((table, column, options.qualified()?));
        }
        Ok(())
    }

    fn owned_by(&mut self, entry: &ArchiveEntry) -> Result<(), String> {
        let all = tokens(&entry.definition)?;
        let mut rest = Tokens::new(&entry.definition, &all);
        if rest.words(&["ALTER", "SEQUENCE"]) {
            let sequence = rest.qualified()?;
            if rest.words(&["OWNED", "BY"]) {
                let table = rest.qualified()?;
                rest.expect_mark(".")?;
                self.owned.push((table, rest.name()?, sequence));
            }
        }
        Ok(())
    }

    fn index(&mut self, entry: &ArchiveEntry) -> Result<(), String> {
        let (table, index) = read_index(entry)?;
        let table = self.table_mut(&table).ok_or("its table or materialized view is not exported")?;
        table.indexes.push(index);
        Ok(())
    }

    fn view(&mut self, entry: &ArchiveEntry) -> Result<(), String> {
        let all = tokens(&entry.definition)?;
        let mut rest = Tokens::new(&entry.definition, &all);
        if !rest.words(&["CREATE", "VIEW"]) {
            return Err("its statement is not known".to_owned());
        }
        let name = rest.qualified()?;
        rest.until(|rest| rest.peek().is_some_and(|token| token.is_word("AS")));
        rest.next();
        let select = rest.until(|rest| rest.peek().is_some_and(|token| token.is_mark(";"))).text().to_owned();
        self.views.push(View { name, select, sql: entry.definition.trim().to_owned() });
        Ok(())
    }
}

/// `ALTER TABLE [ONLY] name`
fn altered(rest: &mut Tokens<'_>) -> Result<Name, String> {
    if !(rest.words(&["ALTER", "TABLE"]) || rest.words(&["ALTER", "FOREIGN", "TABLE"])) {
        return Err("its statement is not known".to_owned());
    }
    rest.words(&["ONLY"]);
    rest.qualified()
}

fn is_one_of(rest: &Tokens<'_>, words: &[&str]) -> bool {
    words.iter().any(|word| rest.peek().is_some_and(|token| token.is_word(word)))
}

fn read_index(entry: &ArchiveEntry) -> Result<(Name, Index), String> {
    let all = tokens(&entry.definition)?;
    let mut rest = Tokens::new(&entry.definition, &all);
    if !rest.words(&["CREATE"]) {
        return Err("its statement is not known".to_owned());
    }
    let is_unique = rest.words(&["UNIQUE"]);
    if !rest.words(&["INDEX"]) {
        return Err("its statement is not known".to_owned());
    }
    let name = (entry.schema.clone().unwrap_or_default(), rest.name()?);
    if !rest.words(&["ON"]) {
        return Err("its statement is not known".to_owned());
    }
    rest.words(&["ONLY"]);
    let table = rest.qualified()?;
    let mut index = Index {
        name,
        is_unique,
        parts: Vec::new(),
        predicate: None,
        sql: entry.definition.trim().to_owned(),
        refused: None,
        lost: Vec::new(),
    };
    if rest.words(&["USING"]) {
        let method = rest.name()?;
        if !["btree", "hash"].contains(&method.as_str()) {
            index.refused = Some(format!("SQLite has no index of the method {method}"));
        }
    }
    for part in rest.bracket()?.list() {
        index.parts.push(index_part(part)?);
    }
    while !rest.is_at_end() && !rest.peek().is_some_and(|token| token.is_mark(";")) {
        if rest.words(&["INCLUDE"]) {
            rest.bracket()?;
        } else if rest.words(&["NULLS", "NOT", "DISTINCT"]) {
            index.lost.push("NULL is equal to NULL there, and never in SQLite");
        } else if rest.words(&["WHERE"]) {
            let predicate = rest.until(|rest| rest.peek().is_some_and(|token| token.is_mark(";")));
            index.predicate = Some(predicate.text().to_owned());
        } else {
            rest.next();
        }
    }
    Ok((table, index))
}

/// A column or an expression, with a collation, an operator class and an order behind it, which only matter for speed here.
fn index_part(mut part: Tokens<'_>) -> Result<IndexPart, String> {
    let start = part.clone();
    let expression = match part.peek() {
        Some(token) if token.is_mark("(") => part.bracket()?.text(),
        _ => {
            part.qualified()?;
            if part.peek().is_some_and(|token| token.is_mark("(")) {
                part.bracket()?;
            }
            let rest = part.text();
            let whole = start.text();
            whole[..whole.len() - rest.len()].trim_end()
        }
    };
    let mut is_descending = false;
    while let Some(token) = part.next() {
        is_descending |= token.is_word("DESC");
    }
    Ok(IndexPart { expression: expression.to_owned(), is_descending })
}
