//! Locales: what the server can't provide is refused before anything is made, and another version of the same one is said.

use common::{
    Error, Ident, Result,
    catalog::{DatabaseState, NamedCollation},
    ident::{literal, printable},
    postgres::Session,
    snapshot::Manifest,
};

use crate::facts::TargetFacts;

/// Adds a reason if the server has no such locale provider.
pub fn check(manifest: &Manifest, facts: &TargetFacts, reasons: &mut Vec<String>) {
    let state = &manifest.database;
    let locale = printable(state.locale.as_deref().unwrap_or(&state.collate));
    match state.locale_provider.as_str() {
        // A database's own provider can be named from 15 on.
        "icu" if facts.major < 15 => reasons.push(format!(
            "the database has the ICU locale {locale}, and databases of PostgreSQL {} can have no ICU locale",
            facts.major
        )),
        "icu" if !facts.has_icu => {
            reasons.push(format!(
                "the database has the ICU locale {locale}, and the server was built without ICU"
            ));
        }
        "builtin" if facts.major < 17 => reasons.push(format!(
            "the database has the builtin locale {locale}, which PostgreSQL {} does not know",
            facts.major
        )),
        "builtin" if locale == "PG_UNICODE_FAST" && facts.major < 18 => {
            reasons.push(format!("PostgreSQL {} does not know the builtin locale {locale}", facts.major));
        }
        _ => {}
    }
}

/// A locale that the server's operating system or ICU does not have.
pub fn explain_create(error: Error, state: &DatabaseState) -> Error {
    explain(error, &state.collate, &state.ctype, &state.encoding)
}

fn explain(error: Error, collate: &str, ctype: &str, encoding: &str) -> Error {
    // 42809: invalid locale name; 22023: an encoding that the locale does not go with.
    if !matches!(error.sqlstate(), Some("42809" | "22023")) {
        return error;
    }
    error.with_kind(common::ErrorKind::Refused).with_hint(format!(
        "The server needs the locale of the database: LC_COLLATE {}, LC_CTYPE {}, encoding {encoding}. Install it on the server's \
         machine (Debian: locale-gen or locales-all), restart the server, and restore again.",
        printable(collate),
        printable(ctype),
    ))
}

/// Collations that columns, indexes, partitions and types of the snapshot name and that the server can't provide, each with
/// what names it, as phrases. Nothing is made for the look: what has to be tried is rolled back.
pub async fn missing(session: &Session, manifest: &Manifest) -> Result<Vec<String>> {
    let failed = |source| Error::postgres("could not look at the server's collations", source);
    if manifest.collations.is_empty() {
        return Ok(Vec::new());
    }
    let rows = session
        .query(
            "SELECT collname::text, collprovider = 'i' FROM pg_catalog.pg_collation
             WHERE collnamespace = 'pg_catalog'::pg_catalog.regnamespace
               AND collencoding IN (-1, pg_catalog.pg_char_to_encoding($1::text))",
            &[&manifest.database.encoding],
        )
        .await
        .map_err(failed)?;
    let there: std::collections::BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
    let has_icu = rows.iter().any(|row| row.get(1));
    let own: String = session
        .query_one("SELECT pg_catalog.current_setting('server_encoding')", &[])
        .await
        .map_err(failed)?
        .get(0);
    let mut phrases = Vec::new();
    for collation in &manifest.collations {
        let reason = if collation.name.schema.as_str() == "pg_catalog" {
            (!there.contains(collation.name.name.as_str()))
                .then(|| "the server has none of that name".to_owned())
        } else {
            match &*collation.provider {
                "icu" => (!has_icu).then(|| "the server was built without ICU".to_owned()),
                // The locale has to go with the encoding of the database that it is tried in.
                "libc" if own == manifest.database.encoding => try_locale(session, collation).await?,
                _ => None,
            }
        };
        phrases.extend(reason.map(|reason| phrase(collation, &reason)));
    }
    Ok(phrases)
}

/// Why the server's operating system has no such locale, if it has not.
async fn try_locale(session: &Session, collation: &NamedCollation) -> Result<Option<String>> {
    let failed = |source| Error::postgres("could not look at the server's locales", source);
    let Some(collate) = &collation.locale else { return Ok(None) };
    let ctype = collation.ctype.as_ref().unwrap_or(collate);
    let name = Ident::new("safe_run_look");
    session.batch_execute("BEGIN").await.map_err(failed)?;
    let tried = session
        .batch_execute(&format!(
            "CREATE COLLATION pg_temp.{name} (PROVIDER = libc, LC_COLLATE = {}, LC_CTYPE = {})",
            literal(collate),
            literal(ctype)
        ))
        .await;
    session.batch_execute("ROLLBACK").await.map_err(failed)?;
    match tried {
        Ok(()) => Ok(None),
        // 22023, 42704, 58P01: there is no such locale. Anything else (no right to try) says nothing about it.
        Err(source) => match source.code().map(|code| code.code().to_owned()).as_deref() {
            Some("22023" | "42704" | "58P01") => {
                Ok(Some(format!("the server's machine has no locale {}", printable(collate))))
            }
            Some(_) => Ok(None),
            None => Err(failed(source)),
        },
    }
}

fn phrase(collation: &NamedCollation, reason: &str) -> String {
    let mut objects: Vec<String> = collation.objects.iter().map(|object| printable(object)).collect();
    // One made by the user counts itself.
    let itself = u64::from(collation.name.schema.as_str() != "pg_catalog");
    let more = collation.count.saturating_sub(objects.len() as u64 + itself);
    if more > 0 {
        objects.push(format!("and {more} more"));
    }
    let used = if objects.is_empty() { String::new() } else { format!(" (used by {})", objects.join(", ")) };
    let locale =
        collation.locale.as_deref().map_or(String::new(), |locale| format!(", locale {}", printable(locale)));
    format!(
        "the snapshot needs the collation {} ({}{locale}), and {reason}{used}",
        printable(&collation.name.short()),
        collation.provider
    )
}

/// Unique indexes over text in the database's own collation, and tables that are partitioned by ranges of it.
const DEPEND: &str = "
SELECT 'unique index ' || i.indexrelid::pg_catalog.regclass::text FROM pg_catalog.pg_index i
WHERE i.indisunique AND i.indexrelid >= 16384 AND 100 = ANY (i.indcollation::oid[])
UNION ALL SELECT 'range partitions of ' || p.partrelid::pg_catalog.regclass::text FROM pg_catalog.pg_partitioned_table p
WHERE p.partstrat = 'r' AND 100 = ANY (p.partcollation::oid[]) ORDER BY 1";

/// Whether the collation sorts as it did where the snapshot was taken; if it may not, what depends on that, as a sentence.
///
/// Indexes were just built with the new order. Uniqueness and the borders of partitions were proved again by that.
pub async fn changed_version(session: &Session, manifest: &Manifest) -> Result<Option<String>> {
    let failed = |source| Error::postgres("could not compare the versions of the collation", source);
    let Some(before) = &manifest.database.collation_version else { return Ok(None) };
    if session.server_major() < 15 {
        return Ok(None);
    }
    let row = session
        .query_one(
            "SELECT pg_catalog.pg_database_collation_actual_version(oid) FROM pg_catalog.pg_database
             WHERE datname = pg_catalog.current_database()",
            &[],
        )
        .await
        .map_err(failed)?;
    let now: Option<String> = row.get(0);
    if now.as_ref() == Some(before) {
        return Ok(None);
    }
    const SHOWN: usize = 10;
    let rows = session.query(DEPEND, &[]).await.map_err(failed)?;
    let names: Vec<String> = rows.iter().take(SHOWN).map(|row| printable(row.get(0))).collect();
    let more = rows.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let depend = if names.is_empty() {
        "nothing unique depends on it".to_owned()
    } else {
        format!("{}{more} depend on it", names.join(", "))
    };
    Ok(Some(format!(
        "the collation's version was {}, and is {} here: text may sort and compare differently; {depend}, and were built anew",
        printable(before),
        now.as_deref().map_or("unknown".to_owned(), printable)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locale_that_the_server_lacks_is_named_and_another_error_is_left_as_it_is() {
        let refused = Error::failed("could not create the database").with_sqlstate("42809");
        let error = explain(refused, "de_DE.utf8", "de_DE.utf8", "UTF8");
        assert_eq!(error.kind(), common::ErrorKind::Refused);
        let told = error.hint().expect("a hint");
        assert!(
            told.contains("LC_COLLATE de_DE.utf8, LC_CTYPE de_DE.utf8, encoding UTF8. Install"),
            "{told}"
        );
        let other = explain(Error::failed("no right").with_sqlstate("42501"), "C", "C", "UTF8");
        assert_eq!(other.hint(), None);
    }
}
