//! Password hashes of roles: read only when a person asked for it, written into `globals.sql` and nowhere else, and found
//! again there. A hash is a [`Secret`]: whoever has it can log in (SCRAM's allows pretending to be the server, MD5's is the
//! password itself).

use super::{Client, Secret, sql};
use crate::{Error, Ident, Result, catalog::Role, ident::literal};

/// The hashes of those of `roles` that have one.
///
/// # Errors
/// Refused for a role that may not read them, before anything is.
pub async fn read(client: &Client, roles: &[Role]) -> Result<Vec<(String, Secret)>> {
    let failed = |source| Error::postgres("could not read the roles' passwords", source);
    let may_read = "SELECT pg_catalog.has_table_privilege('pg_catalog.pg_authid', 'SELECT')";
    if !client.query_one(may_read, &[]).await.map_err(failed)?.get::<_, bool>(0) {
        return Err(Error::refused("the role may not read the passwords of roles (--role-passwords)")
            .with_hint("Run as a superuser or with pg_read_all_data, or without --role-passwords: the roles are then restored without passwords."));
    }
    let names: Vec<&str> = roles.iter().map(|role| role.name.as_str()).collect();
    let rows = client.query(sql::ROLE_PASSWORDS, &[&names]).await.map_err(failed)?;
    Ok(rows.iter().map(|row| (row.get(0), Secret::new(row.get::<_, String>(1)))).collect())
}

/// The statement that gives a role its password. Only for `globals.sql` and for the server.
pub fn statement(role: &str, hash: &Secret) -> Secret {
    Secret::new(format!("{}{}", start(role), literal(hash.expose())))
}

fn start(role: &str) -> String {
    format!("ALTER ROLE {} PASSWORD ", Ident::new(role))
}

/// The part of `globals.sql` that follows the roles.
pub fn globals_sql(passwords: &[(String, Secret)]) -> Secret {
    let mut out = String::from("-- Password hashes: keep this file secret.\n");
    for (role, hash) in passwords {
        out.push_str(statement(role, hash).expose());
        out.push_str(";\n");
    }
    Secret::new(out)
}

/// The statement for `role` in a `globals.sql` that [`globals_sql`] is a part of.
///
/// The file may come from anybody: what stands there as a hash must be one, and the statement is made anew of it.
///
/// # Errors
/// Damaged for anything else in the place of a hash.
pub fn find(globals: &Secret, role: &str) -> Result<Option<Secret>> {
    let Some(found) = find_text(globals, role) else { return Ok(None) };
    let quoted = found.expose().strip_prefix('\'').and_then(|text| text.strip_suffix('\''));
    match quoted.filter(|hash| is_hash(hash)) {
        Some(hash) => Ok(Some(statement(role, &Secret::new(hash)))),
        None => Err(Error::damaged(format!(
            "globals.sql has something else than a password hash for the role \"{}\"",
            crate::ident::printable(role)
        ))
        .with_hint(
            "The snapshot can't be trusted. Restore without --create-roles, and make the roles by hand.",
        )),
    }
}

/// What `pg_authid` can hold: `SCRAM-SHA-256$4096:salt$stored:server`, or `md5` and 32 digits. None of it needs an escape.
fn is_hash(text: &str) -> bool {
    let is_md5 = text
        .strip_prefix("md5")
        .is_some_and(|digits| digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit()));
    let is_scram = text.strip_prefix("SCRAM-SHA-256$").is_some_and(|rest| {
        rest.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b':' | b'$'))
    });
    is_md5 || is_scram
}

/// What stands behind `ALTER ROLE … PASSWORD `.
fn find_text(globals: &Secret, role: &str) -> Option<Secret> {
    let start = start(role);
    let text = globals.expose();
    let (_, passwords) = text.split_once("\n-- Password hashes: keep this file secret.\n")?;
    // A name may hold a newline, a hash never does.
    let at = if passwords.starts_with(&start) { 0 } else { passwords.find(&format!("\n{start}"))? + 1 };
    let statement = passwords.get(at..)?;
    let text = statement.get(start.len()..)?;
    Some(Secret::new(text.get(..text.find(";\n")?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_finds_its_own_hash_again() {
        let hash = |text: &str| Secret::new(format!("SCRAM-SHA-256$4096:{text}="));
        let odd = "a\nALTER ROLE \"b\" PASSWORD 'x'";
        let passwords = [
            ("b\"c".to_owned(), hash("one")),
            ("b".to_owned(), hash("two")),
            (odd.to_owned(), hash("three")),
        ];
        let file = Secret::new(format!("-- Roles\nCREATE ROLE x;\n{}", globals_sql(&passwords).expose()));
        for (role, hash) in &passwords {
            assert_eq!(
                find(&file, role).unwrap().map(|s| s.expose().to_owned()),
                Some(statement(role, hash).expose().to_owned())
            );
        }
        assert!(find(&file, "c").unwrap().is_none());
        assert!(find(&Secret::new("-- Roles\nALTER ROLE \"b\" PASSWORD 'x';\n"), "b").unwrap().is_none());
    }

    #[test]
    fn nothing_but_a_hash_is_taken_for_one() {
        let find = |text: &str| {
            let globals =
                format!("\n-- Password hashes: keep this file secret.\nALTER ROLE \"b\" PASSWORD {text};\n");
            find(&Secret::new(globals), "b").map(|found| found.unwrap().expose().to_owned())
        };
        for hash in ["md5c5ad16dd51fc4a8a4dbbb27fd5e3c4ae", "SCRAM-SHA-256$4096:c2FsdA==$c3Q=:c2U/+w=="] {
            assert_eq!(find(&format!("'{hash}'")).unwrap(), format!("ALTER ROLE \"b\" PASSWORD '{hash}'"));
        }
        for bad in [
            "'x'",
            "NULL",
            "'SCRAM-SHA-256$x' SUPERUSER",
            "'SCRAM-SHA-256$x'; ALTER ROLE b SUPERUSER; SELECT '",
            "'md5c5ad16dd51fc4a8a4dbbb27fd5e3c4ae' SUPERUSER VALID UNTIL 'infinity'",
            "E'SCRAM-SHA-256$x'",
            "",
            "'",
        ] {
            let error = find(bad).unwrap_err();
            assert!(
                error.kind() == crate::ErrorKind::Damaged && !error.message().contains("SHA"),
                "{bad}: {error}"
            );
        }
    }
}
