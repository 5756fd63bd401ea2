//! Constants as SQL of SQLite.

use super::{
    convert::{Buffers, Stored, stored},
    types::SqliteType,
};

/// A string.
pub(super) fn text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A constant of PostgreSQL, as it writes values of this type, in the form in which such a value is stored.
pub(super) fn constant(word: &str, column: &SqliteType) -> Result<String, String> {
    let mut buffers = Buffers::default();
    let no_value = || format!("`{}` is no {}", common::ident::printable(word), column.target);
    Ok(match stored(word.as_bytes(), column, &mut buffers).ok_or_else(no_value)? {
        Stored::Null => "NULL".to_owned(),
        Stored::Integer(value) => value.to_string(),
        Stored::Real(value) if value == f64::INFINITY => "9e999".to_owned(),
        Stored::Real(value) if value == f64::NEG_INFINITY => "-9e999".to_owned(),
        Stored::Real(value) => zmij::Buffer::new().format_finite(value).to_owned(),
        Stored::Text(bytes) => text(std::str::from_utf8(bytes).map_err(|_| no_value())?),
        Stored::Blob(bytes) => format!("x'{}'", common::digest::hex(bytes)),
    })
}

/// A pattern of LIKE as one of GLOB, which tells upper from lower case as LIKE does in PostgreSQL.
pub(super) fn glob(pattern: &str) -> Result<String, String> {
    let mut glob = String::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        let c = match c {
            '%' => {
                glob.push('*');
                continue;
            }
            '_' => {
                glob.push('?');
                continue;
            }
            '\\' => chars.next().ok_or("a pattern that ends with a backslash")?,
            c => c,
        };
        if matches!(c, '*' | '?' | '[') {
            glob.push_str(&format!("[{c}]"));
        } else {
            glob.push(c);
        }
    }
    Ok(glob)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_like_become_globs() {
        for (like, expected) in [("a%", "a*"), ("_[x]*", "?[[]x][*]"), ("100\\%", "100%"), ("\\_?", "_[?]")] {
            assert_eq!(glob(like).as_deref(), Ok(expected), "{like}");
        }
        assert!(glob("a\\").is_err());
    }
}
