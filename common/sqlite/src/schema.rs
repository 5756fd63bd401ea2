//! What a SQLite file has: tables, keys, indexes, views, triggers, as they are and not as they were declared.

use crate::file::Encoding;

mod declared;
mod read;

pub use read::read;

/// Everything in the main database of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema {
    /// How text is stored.
    pub encoding: Encoding,
    /// `PRAGMA user_version`.
    pub user_version: i32,
    /// The tables that hold rows, in the order in which they were made.
    pub tables: Vec<Table>,
    /// The views.
    pub views: Vec<View>,
    /// The triggers.
    pub triggers: Vec<Trigger>,
    /// Tables that are left out, each with the reason: virtual tables, and the shadow tables in which these keep their content.
    pub left_out: Vec<LeftOut>,
}

impl Schema {
    /// Reads the schema as this reader sees it.
    pub fn read(reader: &crate::file::Reader) -> crate::Result<Self> {
        read(reader)
    }

    /// The table of this name, as SQLite compares names: without the case of ASCII letters.
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.name.eq_ignore_ascii_case(name))
    }
}

/// One table.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Its name, in the case in which it was made.
    pub name: String,
    /// Its columns in their order, generated ones too, hidden ones not.
    pub columns: Vec<Column>,
    /// Whether the types are enforced.
    pub is_strict: bool,
    /// Whether it is WITHOUT ROWID.
    pub is_without_rowid: bool,
    /// The primary key, in the order of the key; empty where there is none.
    pub primary_key: Vec<usize>,
    /// The column that is another name of the rowid: INTEGER PRIMARY KEY.
    pub rowid_column: Option<usize>,
    /// A name by which the rowid can be read: none if the table is WITHOUT ROWID, or has columns of all three of its names.
    pub rowid_name: Option<&'static str>,
    /// AUTOINCREMENT, with the highest key that was ever given out (0 before the first).
    pub autoincrement: Option<i64>,
    /// UNIQUE constraints of columns.
    pub uniques: Vec<Unique>,
    /// CHECK constraints, of columns and of the table.
    pub checks: Vec<Check>,
    /// Foreign keys.
    pub foreign_keys: Vec<ForeignKey>,
    /// Indexes made by CREATE INDEX, unique ones too.
    pub indexes: Vec<Index>,
    /// The statement that made it.
    pub sql: String,
    /// Why the statement could not be parsed, if so: then checks, and the names of constraints, are not known.
    pub unparsed: Option<String>,
}

impl Table {
    /// Whether something tells each row from any other: the rowid by one of its names, or a key without NULL. A table whose
    /// columns take all names of the rowid may have two rows that nothing tells apart.
    pub fn tells_rows_apart(&self) -> bool {
        self.rowid_name.is_some() || self.is_without_rowid || self.rowid_column.is_some()
    }

    /// The column of this name, as SQLite compares names.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name))
    }
}

/// One column.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The declared type as it was written; empty where there is none.
    pub declared_type: String,
    /// What the declared type makes of values.
    pub affinity: Affinity,
    /// NOT NULL, or a part of a primary key that can't be NULL.
    pub is_not_null: bool,
    /// DEFAULT: the expression as text.
    pub default: Option<String>,
    /// The collation, where it is not BINARY.
    pub collation: Option<String>,
    /// Whether it is computed from others.
    pub generated: Option<Generated>,
}

/// A computed column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// The expression as text; empty if the table's statement could not be parsed.
    pub expression: String,
    /// Stored in the row, or computed whenever it is read.
    pub is_stored: bool,
}

/// What SQLite tries to make of a value when it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Affinity {
    /// Numbers become text.
    Text,
    /// Text that looks like a number becomes one, of 15 digits at best.
    Numeric,
    /// The same, and `CAST` differs.
    Integer,
    /// The same, and integers become doubles.
    Real,
    /// Nothing is changed: BLOB, no type at all, `ANY` of a STRICT table.
    Blob,
}

impl Affinity {
    /// By the letters of the declared type, as <https://www.sqlite.org/datatype3.html#determination_of_column_affinity> has it.
    pub fn of(declared_type: &str) -> Self {
        let upper = declared_type.to_ascii_uppercase();
        let has = |part: &str| upper.contains(part);
        if has("INT") {
            Self::Integer
        } else if has("CHAR") || has("CLOB") || has("TEXT") {
            Self::Text
        } else if has("BLOB") || upper.is_empty() {
            Self::Blob
        } else if has("REAL") || has("FLOA") || has("DOUB") {
            Self::Real
        } else {
            Self::Numeric
        }
    }
}

/// A UNIQUE constraint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unique {
    /// Its name, if it was given one.
    pub name: Option<String>,
    /// The columns, by number.
    pub columns: Vec<usize>,
    /// The collation of each, where it is not BINARY.
    pub collations: Vec<Option<String>>,
}

/// A CHECK constraint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Its name, if it was given one.
    pub name: Option<String>,
    /// The expression as text.
    pub expression: String,
}

/// A foreign key. The table and the columns that it names need not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignKey {
    /// Its number in `PRAGMA foreign_key_list`.
    pub id: i64,
    /// Its name, if it was given one.
    pub name: Option<String>,
    /// The columns of this table, by number.
    pub columns: Vec<usize>,
    /// The table that it names.
    pub parent: String,
    /// The columns there by name; empty: its primary key.
    pub parent_columns: Vec<String>,
    /// ON UPDATE, such as `NO ACTION` or `CASCADE`.
    pub on_update: String,
    /// ON DELETE.
    pub on_delete: String,
    /// DEFERRABLE INITIALLY DEFERRED.
    pub is_deferred: bool,
}

/// An index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// Its name.
    pub name: String,
    /// UNIQUE.
    pub is_unique: bool,
    /// What is indexed, in order.
    pub parts: Vec<IndexPart>,
    /// WHERE of a partial index, as text.
    pub predicate: Option<String>,
    /// The statement that made it.
    pub sql: String,
}

/// A column or an expression of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexPart {
    /// The expression as text; a plain column as `None`.
    pub expression: Option<String>,
    /// The column, by number, where it is a plain one.
    pub column: Option<usize>,
    /// The collation, where it is not BINARY.
    pub collation: Option<String>,
    /// DESC.
    pub is_descending: bool,
}

/// A view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Its name.
    pub name: String,
    /// The statement that made it.
    pub sql: String,
}

/// A trigger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trigger {
    /// Its name.
    pub name: String,
    /// The table or view that it is for.
    pub table: String,
    /// The statement that made it.
    pub sql: String,
}

/// A table whose rows are not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Its name.
    pub name: String,
    /// Why, such as `a virtual table of fts5`.
    pub reason: String,
    /// Whether it is a virtual table, which has shadow tables.
    pub is_virtual: bool,
    /// The statement that made it.
    pub sql: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn affinity_goes_by_letters_in_their_order() {
        for (declared, affinity) in [
            ("POINT", Affinity::Integer),
            ("CHARINT", Affinity::Integer),
            ("varchar(20)", Affinity::Text),
            ("BLOB", Affinity::Blob),
            ("", Affinity::Blob),
            ("DOUBLE PRECISION", Affinity::Real),
            ("STRING", Affinity::Numeric),
            ("DECIMAL(10,2)", Affinity::Numeric),
            ("BOOLEAN", Affinity::Numeric),
        ] {
            assert_eq!(Affinity::of(declared), affinity, "{declared}");
        }
    }
}
