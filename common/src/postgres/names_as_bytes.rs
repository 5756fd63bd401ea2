//! Names that are no UTF-8: a database of the encoding SQL_ASCII keeps whatever bytes it is given, and converts none. We, JSON and
//! most clients read names as UTF-8, so such a database is refused with the object named. Bytes in rows are copied as they are.
//! Roles are all databases': one that was made in a database of another encoding is refused where this database uses it.

use super::{
    Client,
    shared_text::{UNCHECKED, escaped, raw_bytes},
    sql,
};
use crate::{Error, Result};

/// Whether names are looked at, and whether roles' are: planning either question takes milliseconds. Where names are what a server of
/// this encoding says, only roles may come from elsewhere, and mostly each is ASCII.
fn may_hold_others() -> String {
    format!(
        "SELECT pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.=) 'SQL_ASCII',
       CASE WHEN pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.=) ANY ({UNCHECKED})
            THEN EXISTS (SELECT FROM pg_catalog.pg_roles r
                         WHERE pg_catalog.encode({}, 'hex') OPERATOR(pg_catalog.~) '^(..)*[89a-f]')
            ELSE true END",
        raw_bytes("r.rolname")
    )
}

/// Names with a byte beyond ASCII, as hexadecimal, with what bears them.
const NAMES: &str = r"
SELECT n.what, pg_catalog.encode(pg_catalog.convert_to(n.name::text, 'SQL_ASCII'), 'hex')
FROM (
  SELECT 'schema' AS what, nspname AS name FROM pg_catalog.pg_namespace
  UNION ALL SELECT 'relation', relname FROM pg_catalog.pg_class WHERE oid >= 16384 AND relkind <> 'c'
  UNION ALL SELECT 'column', attname FROM pg_catalog.pg_attribute WHERE attrelid >= 16384 AND attnum > 0
  UNION ALL SELECT 'type', t.typname FROM pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
    WHERE t.oid >= 16384 AND t.typcategory <> 'A' AND (c.oid IS NULL OR c.relkind = 'c')
  UNION ALL SELECT 'function', proname FROM pg_catalog.pg_proc WHERE oid >= 16384
  UNION ALL SELECT 'constraint', conname FROM pg_catalog.pg_constraint WHERE oid >= 16384
  UNION ALL SELECT 'trigger', tgname FROM pg_catalog.pg_trigger WHERE oid >= 16384
  UNION ALL SELECT 'enum label', enumlabel FROM pg_catalog.pg_enum
) n
WHERE n.name::text ~ '[^\x01-\x7f]'
ORDER BY 1, 2 LIMIT 10000";

/// Refuses a database with a name that is no UTF-8.
///
/// # Errors
/// Refused, naming the first one with its bytes as escapes; or the catalog can't be read.
pub async fn refuse(client: &Client) -> Result<()> {
    let failed = |source| Error::postgres("could not look at the names in the database", source);
    let may = client.query_one(&may_hold_others(), &[]).await.map_err(failed)?;
    let (keeps_any, has_odd_role): (bool, bool) = (may.get(0), may.get(1));
    let names = if keeps_any { client.query(NAMES, &[]).await.map_err(failed)? } else { Vec::new() };
    let roles =
        if has_odd_role { client.query(&sql::role_names(), &[]).await.map_err(failed)? } else { Vec::new() };
    if let Some(name) = roles.iter().find_map(|row| shown(row.get(0))) {
        return Err(Error::refused(format!(
            "the name of the role \"{name}\" is no UTF-8, and this database uses the role"
        ))
        .with_hint(
            "Rename it in a database of the encoding that it was made in (ALTER ROLE … RENAME TO), to a name in ASCII, which is the same \
             in all of them.",
        ));
    }
    let mut wrong = names.iter().filter_map(|row| {
        let (what, hex): (&str, &str) = (row.get(0), row.get(1));
        Some((what, shown(hex)?))
    });
    let Some((what, name)) = wrong.next() else { return Ok(()) };
    let more = match wrong.count() {
        0 => String::new(),
        count => format!(", and {count} more"),
    };
    Err(Error::refused(format!(
        "the name of the {what} \"{name}\" is no UTF-8{more}: the database has the encoding SQL_ASCII, which keeps any bytes"
    ))
    .with_hint(
        "Rename it with a client that sends the same bytes (PGCLIENTENCODING=SQL_ASCII psql), to a name in ASCII or UTF-8. Bytes in \
         rows are no obstacle. pg_dump can back such a database up as it is.",
    ))
}

/// The name for a person, with its bytes as escapes; `None` if it is UTF-8.
fn shown(hex: &str) -> Option<String> {
    let bytes: Vec<u8> = (0..hex.len())
        .step_by(2)
        .filter_map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok())
        .collect();
    if std::str::from_utf8(&bytes).is_ok() {
        return None;
    }
    Some(crate::ident::printable(&escaped(&bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_utf_8_are_shown_as_escapes() {
        assert_eq!(shown("6e61ef7665").as_deref(), Some("na\\xefve"));
        assert_eq!(shown("6e61c3af7665"), None);
        assert_eq!(shown("6162"), None);
        assert_eq!(shown(""), None);
    }
}
