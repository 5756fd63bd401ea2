//! What pg_restore prints is in the encoding of the database that the archive comes from, which a restore's database has as well.

use common::{Error, Result, postgres::Session};

/// What was printed, as text: exactly what it says.
///
/// # Errors
/// It holds bytes without a meaning, as a database with the encoding SQL_ASCII may; or the server can't be asked.
pub async fn exact(session: &Session, printed: Vec<u8>) -> Result<String> {
    read(session, printed).await?.map_err(|_| not_exact())
}

fn not_exact() -> Error {
    Error::refused(
        "the database has the encoding SQL_ASCII, and a definition or a name in it that is not UTF-8: what an owner has to make can't be \
         read exactly",
    )
    .with_hint("Restore with --no-owner: then whoever restores makes everything, and becomes its owner (docs/trust.md).")
}

/// What was printed, for choosing entries by their numbers and for messages.
///
/// # Errors
/// The server can't be asked.
pub async fn shown(session: &Session, printed: Vec<u8>) -> Result<String> {
    Ok(read(session, printed).await?.unwrap_or_else(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// Text, or the bytes that are none. Bytes in another encoding that look like UTF-8 are not taken for it.
async fn read(session: &Session, printed: Vec<u8>) -> Result<std::result::Result<String, Vec<u8>>> {
    const ENCODING: &str = "SELECT pg_catalog.getdatabaseencoding()::pg_catalog.text";
    const CONVERTED: &str = "SELECT pg_catalog.convert_from($1, pg_catalog.getdatabaseencoding())";
    let failed =
        |source| Error::postgres("could not read the archive in the encoding of its database", source);
    let utf8 = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(std::string::FromUtf8Error::into_bytes);
    if printed.is_ascii() {
        return Ok(utf8(printed));
    }
    let encoding: String = session.query_one(ENCODING, &[]).await.map_err(failed)?.get(0);
    if ["UTF8", "SQL_ASCII"].contains(&encoding.as_str()) {
        return Ok(utf8(printed));
    }
    Ok(Ok(session.query_one(CONVERTED, &[&printed]).await.map_err(failed)?.get(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_that_can_not_be_read_exactly_has_a_way_out() {
        let error = not_exact();
        assert_eq!(error.kind(), common::ErrorKind::Refused);
        assert!(error.hint().is_some_and(|hint| hint.starts_with("Restore with --no-owner: ")));
    }
}
