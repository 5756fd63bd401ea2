//! Proof that the names of tables meant the same from the first statement that used one to the last.
//!
//! A lock on a table keeps others from renaming, moving and dropping it. It does not keep them from renaming its schema, and
//! then another table may have the name: every statement looks names up anew. What ALTER SCHEMA does is a new version of
//! the schema's row. So if the rows are the very same afterwards (oid, name and the transaction that wrote them), no name
//! in them meant anything else meanwhile. A schema that was renamed and renamed back has another version; one whose
//! privileges were changed as well, and can't be told from it (docs/exactness.md, E2).

use std::collections::{BTreeMap, HashSet};

use super::{Client, ConnectionSettings};
use crate::{Cause, Error, Result, ident::printable};

const SCHEMAS: &str =
    "SELECT oid, nspname::pg_catalog.text, xmin::pg_catalog.text FROM pg_catalog.pg_namespace";

const HINT: &str = "Names of tables may have meant other tables meanwhile, so nothing that was read is used. Run the command \
                    again while nobody renames or swaps schemas, or changes their privileges.";

/// The versions of the schemas' rows, as one session sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schemas(BTreeMap<u32, (String, String)>);

impl Schemas {
    /// As `client` sees them: in a transaction with a snapshot of its own, the state of that snapshot.
    ///
    /// # Errors
    /// The catalog can't be read.
    pub async fn seen_by(client: &Client) -> Result<Self> {
        let rows = client
            .query(SCHEMAS, &[])
            .await
            .map_err(|source| Error::postgres("could not read the schemas from the catalog", source))?;
        Ok(Self(rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect()))
    }

    /// As they are now, for everybody.
    ///
    /// # Errors
    /// As [`Self::seen_by`], and those of the connection.
    pub async fn now(settings: &ConnectionSettings) -> Result<Self> {
        let session = settings.connect().await?;
        let schemas = Self::seen_by(&session).await?;
        session.close().await?;
        Ok(schemas)
    }

    /// Makes sure that those of the names `used` are the same in `later`.
    ///
    /// # Errors
    /// Busy, with the schema that is another one: see [`Cause::NameChanged`].
    pub fn check_same(&self, later: &Self, used: &HashSet<&str>) -> Result<()> {
        for (oid, (name, version)) in self.0.iter().filter(|(_, (name, _))| used.contains(name.as_str())) {
            let what = match later.0.get(oid) {
                Some((now, _)) if now != name => format!("was renamed to \"{now}\""),
                Some((_, now)) if now != version => {
                    "was renamed and renamed back, or altered otherwise,".to_owned()
                }
                Some(_) => continue,
                None => "was dropped".to_owned(),
            };
            return Err(changed(format!("the schema \"{name}\" {what} while its tables were read")));
        }
        match used.iter().find(|used| !self.0.values().any(|(name, _)| name == *used)) {
            Some(unknown) => Err(changed(format!("there is no schema \"{unknown}\""))),
            None => Ok(()),
        }
    }

    /// The names of all of them.
    pub fn names(&self) -> HashSet<&str> {
        self.0.values().map(|(name, _)| name.as_str()).collect()
    }
}

/// An error that says that a name does not mean what it meant.
pub fn changed(what: impl Into<String>) -> Error {
    Error::busy(printable(&what.into())).with_hint(HINT).with_cause(Cause::NameChanged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schemas(rows: &[(u32, &str, &str)]) -> Schemas {
        Schemas(
            rows.iter().map(|(oid, name, xmin)| (*oid, ((*name).to_owned(), (*xmin).to_owned()))).collect(),
        )
    }

    #[test]
    fn a_schema_that_is_another_version_is_named() {
        let before = schemas(&[(1, "a", "10"), (2, "b", "11"), (3, "c", "12")]);
        let check = |later: &[(u32, &str, &str)]| {
            before
                .check_same(&schemas(later), &HashSet::from(["a", "b"]))
                .map_err(|error| error.message().to_owned())
        };
        // The third one is used by nobody, and a new one did not have any of the names.
        assert_eq!(check(&[(1, "a", "10"), (2, "b", "11"), (4, "new", "13")]), Ok(()));
        assert!(
            check(&[(1, "b", "20"), (2, "a", "20"), (3, "c", "12")])
                .unwrap_err()
                .contains("renamed to \"b\"")
        );
        assert!(check(&[(1, "a", "20"), (2, "b", "11")]).unwrap_err().contains("renamed back"));
        assert!(check(&[(2, "b", "11")]).unwrap_err().contains("dropped"));
        let unknown = before.check_same(&before, &HashSet::from(["z"])).unwrap_err();
        assert!(unknown.is_caused_by(Cause::NameChanged) && unknown.is_retryable(), "{unknown}");
    }
}
