//! Functions that find what they name only with the search path of their database.
//!
//! pg_restore and our own sessions have an empty one, so that every name in a definition means one thing. A function whose
//! text says `norm(t)` and not `ext.norm(t)` then fails wherever a rule of a table calls it: CHECK, domain, generated column,
//! index expression, partition key, materialized view. PostgreSQL 17 builds indexes and views with an empty path in any
//! session, so it does not help to set one.
//!
//! What is done instead, and only after something has failed: each such function *is lent* the path that a session of its
//! owner has (`ALTER FUNCTION … SET search_path`), what failed is done again, and at the end the functions are as they were.
//! The names in definitions are still read with an empty path: they come out equal.
//!
//! What it must never do: let a role slip its own code under a name that somebody else's function calls. A function gets
//! no path on which a third role has functions, operators, views or domains of its own.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
};

use common::{
    Error, Progress, Result,
    format::plural,
    ident::{literal, printable},
    postgres::{ConnectionSettings, Session, SessionProfile},
    snapshot::{Manifest, readme::split_identifier_list},
};
use tokio::sync::Mutex;

/// Functions whose body is text that is read with the caller's search path: name and owner.
const FUNCTIONS: &str = "
SELECT p.oid::pg_catalog.regprocedure::text, pg_catalog.pg_get_userbyid(p.proowner)::text
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
WHERE p.oid >= 16384 AND p.prokind IN ('f', 'w') AND l.lanname NOT IN ('internal', 'c') AND p.prosqlbody IS NULL
  AND p.prorettype NOT IN ('pg_catalog.trigger'::pg_catalog.regtype, 'pg_catalog.event_trigger'::pg_catalog.regtype)
  AND NOT EXISTS (SELECT FROM pg_catalog.unnest(p.proconfig) c WHERE c LIKE 'search\\_path=%')
ORDER BY 1";

/// What can be called by a name without its schema and is neither a superuser's, nor an extension's, nor of the schema's own
/// owner: schema, owner, and the object as PostgreSQL identifies it.
const STRANGERS: &str = "
SELECT n.nspname::text, pg_catalog.pg_get_userbyid(o.owner)::text, i.type || ' ' || i.identity
FROM (SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass::oid AS class, oid AS object, pronamespace AS schema, proowner AS owner
        FROM pg_catalog.pg_proc
      UNION ALL SELECT 'pg_catalog.pg_operator'::pg_catalog.regclass, oid, oprnamespace, oprowner FROM pg_catalog.pg_operator
      UNION ALL SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, oid, typnamespace, typowner FROM pg_catalog.pg_type
        WHERE typtype = 'd'
      UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, oid, relnamespace, relowner FROM pg_catalog.pg_class
        WHERE relkind IN ('v', 'f') OR relkind IN ('r', 'p') AND (relhasrules OR relrowsecurity)) o
JOIN pg_catalog.pg_namespace n ON n.oid = o.schema AND o.owner <> n.nspowner
JOIN pg_catalog.pg_roles r ON r.oid = o.owner AND NOT r.rolsuper,
     pg_catalog.pg_identify_object(o.class, o.object, 0) i
WHERE o.object >= 16384 AND i.identity IS NOT NULL AND n.nspname <> 'pg_catalog'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = o.class AND d.objid = o.object AND d.deptype = 'e')";

/// Who else may make something in a schema, which in a database that is in use can happen at any moment.
const MAY_CREATE: &str = "
SELECT n.nspname::text, COALESCE(r.rolname::text, 'PUBLIC'), 'anything in schema ' || n.nspname::text
FROM pg_catalog.pg_namespace n, pg_catalog.aclexplode(COALESCE(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) a
LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
WHERE a.privilege_type = 'CREATE' AND a.grantee <> n.nspowner AND (a.grantee = 0 OR NOT r.rolsuper)";

/// Lends search paths to the functions of one database that is being made.
#[derive(Debug)]
pub struct LentPaths {
    settings: ConnectionSettings,
    paths: Paths,
    progress: Progress,
    are_lent: AtomicBool,
    state: Mutex<Option<Vec<String>>>,
}

/// Which path the sessions of whom have.
#[derive(Debug)]
struct Paths {
    /// Roles and what they have set in this database, or in all; no role for the database's own.
    set: Vec<(Option<String>, Vec<String>)>,
    database_owner: String,
}

#[derive(Debug, PartialEq, Eq)]
struct Stranger {
    schema: String,
    owner: String,
    object: String,
}

impl LentPaths {
    /// Nothing is lent yet.
    pub fn new(settings: &ConnectionSettings, manifest: &Manifest, progress: &Progress) -> Self {
        let is_path = |name: &str| name.eq_ignore_ascii_case("search_path");
        let in_database = manifest.database.settings.iter().filter(|setting| is_path(&setting.name));
        let mut paths: Vec<_> = in_database
            .map(|setting| (setting.role.clone(), split_identifier_list(&setting.value)))
            .collect();
        // What a role has in all databases counts less than what it has in this one.
        for role in &manifest.roles {
            let everywhere = role.settings.iter().find(|(name, _)| is_path(name));
            let is_known = paths.iter().any(|(known, _)| known.as_ref() == Some(&role.name));
            if let (Some((_, value)), false) = (everywhere, is_known) {
                paths.push((Some(role.name.clone()), split_identifier_list(value)));
            }
        }
        Self {
            settings: settings.clone(),
            paths: Paths { set: paths, database_owner: manifest.database.owner.clone() },
            progress: progress.clone(),
            are_lent: AtomicBool::new(false),
            state: Mutex::new(None),
        }
    }

    /// Whether functions have a path of ours now. What failed before that is worth another try.
    pub fn are_lent(&self) -> bool {
        self.are_lent.load(Ordering::Acquire)
    }

    /// Lends once; whether functions have a path now that they had not when `were_lent` was asked.
    pub async fn lend(&self, were_lent: bool) -> Result<bool> {
        let mut state = self.state.lock().await;
        if state.is_some() {
            return Ok(self.are_lent() && !were_lent);
        }
        let session = self.settings.connect().await?;
        let lent = self.lend_in(&session, STRANGERS).await?;
        session.close().await?;
        let some = !lent.is_empty();
        *state = Some(lent);
        self.are_lent.store(some, Ordering::Release);
        Ok(some)
    }

    /// Lends in the transaction of this session, in a database that others use; the functions that have a path now. It is for
    /// [`take_back_in`] to take it back before the transaction ends.
    pub async fn lend_within(&self, session: &Session) -> Result<Vec<String>> {
        self.lend_in(session, &format!("{STRANGERS} UNION ALL {MAY_CREATE}")).await
    }

    async fn lend_in(&self, session: &Session, strangers: &str) -> Result<Vec<String>> {
        let failed = |source| Error::postgres("could not look for functions that need a search path", source);
        let functions = session.query(FUNCTIONS, &[]).await.map_err(failed)?;
        if functions.is_empty() {
            return Ok(Vec::new());
        }
        let strangers: Vec<Stranger> = session
            .query(strangers, &[])
            .await
            .map_err(failed)?
            .iter()
            .map(|row| Stranger { schema: row.get(0), owner: row.get(1), object: row.get(2) })
            .collect();
        let default = self.default_path().await?;
        let mut lent = Vec::new();
        let mut withheld = BTreeSet::new();
        for row in &functions {
            let (function, owner): (String, String) = (row.get(0), row.get(1));
            match self.paths.of_owner(&owner, &default, &strangers) {
                Ok(path) => {
                    let path: Vec<String> = path.iter().map(|schema| literal(schema)).collect();
                    if path.is_empty() {
                        continue;
                    }
                    let statement =
                        format!("ALTER FUNCTION {function} SET search_path = {}", path.join(", "));
                    match session.batch_execute(&statement).await {
                        Ok(()) => lent.push(function),
                        // 42501: not this role's function. What needs it fails as before, and says so.
                        Err(source) if source.code().is_some_and(|code| code.code() == "42501") => {}
                        Err(source) => return Err(Error::postgres("could not lend a search path", source)),
                    }
                }
                Err(stranger) => {
                    withheld.insert(format!("{} of {}", stranger.object, stranger.owner));
                }
            }
        }
        if !lent.is_empty() {
            self.progress.note(format!(
                "something failed with an empty search path: {} got the one of the database until the end of the restore",
                plural(lent.len() as u64, "function", "functions")
            ));
        }
        if !withheld.is_empty() {
            let objects: Vec<String> = withheld.into_iter().take(5).collect();
            self.progress.warn(printable(&format!(
                "functions were not given the search path of the database, because it leads to what other roles than their owners \
                 made: {}",
                objects.join(", ")
            )));
        }
        Ok(lent)
    }

    /// What a session has here that nothing else was set for.
    async fn default_path(&self) -> Result<Vec<String>> {
        let session = self.settings.connect_as(SessionProfile::Migration, None).await?;
        let row = session
            .query_one("SELECT pg_catalog.current_setting('search_path')", &[])
            .await
            .map_err(|source| Error::postgres("could not read the search path", source))?;
        let path = split_identifier_list(row.get(0));
        session.close().await?;
        Ok(path)
    }

    /// Takes all paths back.
    ///
    /// # Errors
    /// A function could not be changed back: the database is not as the snapshot says.
    pub async fn take_back(&self, session: &Session) -> Result<()> {
        let mut state = self.state.lock().await;
        self.are_lent.store(false, Ordering::Release);
        take_back_in(session, &state.take().unwrap_or_default()).await
    }
}

/// Takes the paths of these functions back.
///
/// # Errors
/// A function could not be changed back.
pub async fn take_back_in(session: &Session, functions: &[String]) -> Result<()> {
    for function in functions {
        let statement = format!("ALTER FUNCTION {function} RESET search_path");
        session.batch_execute(&statement).await.map_err(|source| {
            Error::postgres(format!("could not take the search path of {} back", printable(function)), source)
        })?;
    }
    Ok(())
}

impl Paths {
    /// The path that a session of this role has, and after it what other sessions of this database have; or what is in the way.
    fn of_owner<'a>(
        &self,
        owner: &str,
        default: &[String],
        strangers: &'a [Stranger],
    ) -> std::result::Result<Vec<String>, &'a Stranger> {
        let of = |role: Option<&str>| {
            self.set.iter().find(|(known, _)| known.as_deref() == role).map(|(_, path)| path.as_slice())
        };
        let own = of(Some(owner)).or_else(|| of(None)).unwrap_or(default);
        let in_the_way = |schema: &str| {
            strangers.iter().find(|stranger| {
                stranger.schema == schema && stranger.owner != owner && stranger.owner != self.database_owner
            })
        };
        let mut path: Vec<String> = Vec::new();
        let add = |path: &mut Vec<String>, schema: &str| {
            let schema = if schema == "$user" { owner } else { schema };
            if !path.iter().any(|known| known == schema) {
                path.push(schema.to_owned());
            }
        };
        for schema in own {
            if let Some(stranger) = in_the_way(if schema == "$user" { owner } else { schema }) {
                return Err(stranger);
            }
            add(&mut path, schema);
        }
        for schema in self.set.iter().flat_map(|(_, path)| path) {
            if schema != "$user" && in_the_way(schema).is_none() {
                add(&mut path, schema);
            }
        }
        Ok(path)
    }
}

/// Whether an error may come from a name that was not found: class 42 of the SQL standard's states, and a schema that is not
/// there.
pub fn may_be_a_name(error: &Error) -> bool {
    error.sqlstate().is_some_and(|state| state.starts_with("42") || state == "3F000")
}

/// How to mend for good what fails with an empty search path.
pub fn hint(error: Error) -> Error {
    // Not every error of that class, and not the server's own advice, such as to add type casts: the definition was right where it
    // comes from.
    let is_name = matches!(error.sqlstate(), Some("42883" | "42P01" | "42704" | "42703" | "3F000"))
        // No schema helps a setting that nobody has made: the server's text, in the C locale.
        && !error.message().contains("unrecognized configuration parameter");
    if !is_name {
        return error;
    }
    error.with_hint(
        "A function that a rule of the table calls names something without its schema. Set a path on it in the source \
         (ALTER FUNCTION … SET search_path = …), or write the schema into its text, and take a new snapshot.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The server's advice to add type casts is none for whoever restores.
    #[test]
    fn a_name_that_is_not_found_is_answered_with_where_to_mend_it_and_nothing_else_is() {
        let of = |state: &str| {
            let error = Error::failed("x")
                .with_sqlstate(state)
                .with_hint("You might need to add explicit type casts.");
            hint(error).hint().is_some_and(|hint| hint.contains("without its schema"))
        };
        assert_eq!(
            ["42883", "42P01", "3F000", "42501", "42601", "23505"].map(of),
            [true, true, true, false, false, false]
        );
        let of_setting =
            Error::failed("unrecognized configuration parameter \"app.tenant\"").with_sqlstate("42704");
        assert_eq!(hint(of_setting).hint(), None);
        assert!(hint(Error::failed("type \"mood\" does not exist").with_sqlstate("42704")).hint().is_some());
    }

    fn paths() -> Paths {
        let strings = |path: &[&str]| path.iter().map(|&schema| schema.to_owned()).collect();
        Paths {
            set: vec![
                (None, strings(&["public", "ext"])),
                (Some("app".to_owned()), strings(&["$user", "more"])),
            ],
            database_owner: "dba".to_owned(),
        }
    }

    #[test]
    fn a_function_gets_the_path_of_its_owner_and_after_it_what_others_have() {
        let paths = paths();
        assert_eq!(paths.of_owner("app", &[], &[]).unwrap(), ["app", "more", "public", "ext"]);
        assert_eq!(paths.of_owner("other", &[], &[]).unwrap(), ["public", "ext", "more"]);
    }

    #[test]
    fn a_path_on_which_a_third_role_has_code_is_not_lent() {
        let stranger = |owner: &str| Stranger {
            schema: "public".to_owned(),
            owner: owner.to_owned(),
            object: "f".to_owned(),
        };
        let paths = paths();
        assert_eq!(paths.of_owner("other", &[], &[stranger("third")]), Err(&stranger("third")));
        assert_eq!(paths.of_owner("app", &[], &[stranger("third")]).unwrap(), ["app", "more", "ext"]);
        for owner in ["other", "dba"] {
            assert_eq!(paths.of_owner("other", &[], &[stranger(owner)]).unwrap(), ["public", "ext", "more"]);
        }
    }
}
