//! Text that all databases of a server share, read as bytes: names of roles, databases, tablespaces and subscriptions, and what
//! others' sessions run. It is in the encoding of the database in which it was made, which nobody wrote down.

use tokio_postgres::{Row, row::RowIndex};

/// The encodings in which text that comes from elsewhere is not checked, as an array of SQL.
pub const UNCHECKED: &str = "'{UTF8,SQL_ASCII}'::pg_catalog.name[]";

/// An SQL expression for the bytes of the text `expression` as they are, in a database of an encoding that is one of [`UNCHECKED`].
#[must_use]
pub fn raw_bytes(expression: &str) -> String {
    // Backslashes begin escapes in the input of bytea.
    format!(
        "pg_catalog.byteain(pg_catalog.textout(pg_catalog.replace(({expression})::pg_catalog.text, E'\\\\', E'\\\\\\\\')))"
    )
}

/// An SQL expression for the bytes of the text `expression`: as UTF-8 where the session's database has an encoding that can be
/// converted, and as they are where it is UTF8 or SQL_ASCII, which check nothing that comes from elsewhere.
#[must_use]
pub fn bytes(expression: &str) -> String {
    format!(
        "CASE WHEN pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.=) ANY ({UNCHECKED})
         THEN {}
         ELSE pg_catalog.convert_to(({expression})::pg_catalog.text, 'UTF8') END",
        raw_bytes(expression)
    )
}

/// A name of a column that [`bytes`] made; `None` if it is no UTF-8, and so no name that a snapshot or a command line can hold.
///
/// # Panics
/// The column is none of bytes.
#[must_use]
pub fn name<I: RowIndex + std::fmt::Display>(row: &Row, column: I) -> Option<String> {
    let bytes: Option<&[u8]> = row.get(column);
    std::str::from_utf8(bytes?).ok().map(str::to_owned)
}

/// The text of such a column for a person: bytes that are no UTF-8 as escapes. Empty for NULL.
///
/// # Panics
/// The column is none of bytes.
#[must_use]
pub fn shown<I: RowIndex + std::fmt::Display>(row: &Row, column: I) -> String {
    escaped(row.get::<_, Option<&[u8]>>(column).unwrap_or_default())
}

/// `m\xfcller` for what is no UTF-8.
pub(super) fn escaped(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| out.push_str(&format!("\\x{byte:02x}")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_utf_8_are_shown_as_escapes() {
        assert_eq!(escaped(b"m\xfcller"), "m\\xfcller");
        assert_eq!(escaped("müller 数".as_bytes()), "müller 数");
        assert_eq!(escaped(b"\xff\xfe"), "\\xff\\xfe");
        // A character that a limit has cut.
        assert_eq!(escaped(&"aü".as_bytes()[..2]), "a\\xc3");
        assert_eq!(escaped(b""), "");
    }

    proptest::proptest! {
        #[test]
        fn text_is_shown_as_it_is(text in ".{0,30}") {
            proptest::prop_assert_eq!(escaped(text.as_bytes()), text);
        }
    }
}
