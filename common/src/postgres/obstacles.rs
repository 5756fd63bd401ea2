//! What this role on this server could not make again in another database: by name, with the reason and the SQL that would
//! help. One list for `backup check`, for snapshots, and for the undo of `safe-run`, which has to know it before it begins.
//!
//! It reads the catalog alone and changes nothing. What no catalog tells (code of rules, libraries that are gone) is for a trial.

mod queries;

use serde::Serialize;

use super::{Session, database, known_settings, shared_text, sql};
pub use queries::{LARGE_OBJECTS, UNREADABLE};

use crate::{Error, Ident, QualifiedName, Result, ident::printable};

/// Something that stands in the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Obstacle {
    /// What it is, such as `event trigger`.
    pub kind: String,
    /// Its name, as a person reads it.
    pub object: String,
    /// Why it can't be made again.
    pub why: String,
    /// Statements that would help, each complete. Empty where nothing but another role or another way would.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub helps: Vec<String>,
    /// It stops a backup of the whole database.
    pub stops_backup: bool,
    /// It stops a restore into a new database.
    pub stops_restore: bool,
    /// It stops that a restored database takes the place of this one.
    pub stops_replace: bool,
    /// It stops a copy by the server from taking the place of this one.
    pub stops_clone: bool,
}

impl Obstacle {
    /// One line: the object and the reason.
    pub fn line(&self) -> String {
        printable(&format!("{} {}: {}", self.kind, self.object, self.why))
    }
}

/// What an obstacle is in the way of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// A backup of the whole database.
    Backup,
    /// A restore into a new database.
    Restore,
    /// The same, and then the place of the live one.
    Replace,
    /// A backup, and its restore in the place of the live one: the undo by a snapshot.
    File,
    /// A copy by the server, and then the place of the live one.
    Clone,
}

impl Way {
    /// Whether the obstacle is in this way.
    pub fn is_stopped_by(self, obstacle: &Obstacle) -> bool {
        match self {
            Self::Backup => obstacle.stops_backup,
            Self::Restore => obstacle.stops_restore,
            Self::Replace => obstacle.stops_restore || obstacle.stops_replace,
            Self::File => obstacle.stops_backup || obstacle.stops_restore || obstacle.stops_replace,
            Self::Clone => obstacle.stops_clone,
        }
    }
}

/// Everything that stands in any way, in the order in which a person would look at it.
///
/// # Errors
/// The catalog can't be read.
pub async fn find(session: &Session) -> Result<Vec<Obstacle>> {
    let facts = Facts::read(session).await?;
    let mut found = facts.of_role();
    found.extend(of_identity(session, &facts.database).await?);
    found.extend(extensions(session, &facts).await?);
    if !facts.is_superuser {
        found.extend(unreadable(session, &facts).await?);
        found.extend(others_objects(session, &facts).await?);
        found.extend(superusers_objects(session, &facts).await?);
        found.extend(schema_public(session, &facts).await?);
    }
    Ok(found)
}

/// Groups the lines of many obstacles: the first of each kind, and how many more there are.
pub fn lines(obstacles: &[&Obstacle], shown: usize) -> Vec<String> {
    let mut lines: Vec<String> = obstacles.iter().take(shown).map(|obstacle| obstacle.line()).collect();
    if obstacles.len() > shown {
        lines.push(format!("and {} more", obstacles.len() - shown));
    }
    lines
}

/// The role and the database.
struct Facts {
    role: String,
    database: String,
    owner: String,
    superuser_owns: bool,
    is_superuser: bool,
    may_create: bool,
    is_owner: bool,
    major: u32,
}

impl Facts {
    async fn read(session: &Session) -> Result<Self> {
        let row = session
            .query_one(
                "SELECT current_user::text, d.datname::text, pg_catalog.pg_get_userbyid(d.datdba)::text, r.rolsuper,
                        r.rolsuper OR r.rolcreatedb, r.rolsuper OR pg_catalog.pg_has_role(d.datdba, 'USAGE'),
                        (SELECT o.rolsuper FROM pg_catalog.pg_roles o WHERE o.oid = d.datdba)
                 FROM pg_catalog.pg_database d, pg_catalog.pg_roles r
                 WHERE d.datname = pg_catalog.current_database() AND r.rolname = current_user",
                &[],
            )
            .await
            .map_err(|source| Error::postgres("could not look up the role", source))?;
        Ok(Self {
            role: row.get(0),
            database: row.get(1),
            owner: row.get(2),
            is_superuser: row.get(3),
            may_create: row.get(4),
            is_owner: row.get(5),
            superuser_owns: row.get(6),
            major: session.server_major(),
        })
    }

    fn of_role(&self) -> Vec<Obstacle> {
        let (role, owner) = (Ident::new(&*self.role), Ident::new(&*self.owner));
        let mut found = Vec::new();
        if !self.may_create {
            found.push(Obstacle {
                kind: "role".to_owned(),
                object: self.role.clone(),
                why: "it may not create databases (CREATEDB)".to_owned(),
                helps: vec![format!("ALTER ROLE {role} CREATEDB;")],
                stops_backup: false,
                stops_restore: true,
                stops_replace: true,
                stops_clone: true,
            });
        }
        if !self.is_owner {
            let database = Ident::new(&*self.database);
            found.push(Obstacle {
                kind: "database".to_owned(),
                object: self.database.clone(),
                why: format!("it belongs to \"{}\", and only its owner may rename it", self.owner),
                helps: vec![if self.superuser_owns {
                    format!("ALTER DATABASE {database} OWNER TO {role};")
                } else {
                    format!("GRANT {owner} TO {role};")
                }],
                // A new database is given to the owner of the old one.
                stops_backup: false,
                stops_restore: true,
                stops_replace: true,
                stops_clone: true,
            });
        }
        found
    }
}

/// What the role may not read. Without the rows of a table nothing can look after them, by whatever way.
async fn unreadable(session: &Session, facts: &Facts) -> Result<Vec<Obstacle>> {
    let failed = |source| Error::postgres("could not read the role's privileges", source);
    let role = Ident::new(&*facts.role);
    let mut found = Vec::new();
    for row in &session.query(UNREADABLE, &[]).await.map_err(failed)? {
        let name = QualifiedName::new(row.get::<_, String>(0), row.get::<_, String>(1));
        let mut helps = Vec::new();
        if row.get("no_usage") {
            helps.push(format!("GRANT USAGE ON SCHEMA {} TO {role};", name.schema));
        }
        if row.get("no_select") {
            helps.push(format!("GRANT SELECT ON {name} TO {role};"));
        }
        if row.get("hides_rows") {
            helps.push(format!("ALTER ROLE {role} BYPASSRLS;"));
        }
        found.push(Obstacle {
            kind: if row.get("is_sequence") { "sequence" } else { "table" }.to_owned(),
            object: name.short(),
            why: "the role may not read all of it".to_owned(),
            helps,
            stops_backup: true,
            stops_restore: false,
            stops_replace: false,
            stops_clone: true,
        });
    }
    let row = session.query_one(LARGE_OBJECTS, &[]).await.map_err(failed)?;
    let (count, readable): (i64, bool) = (row.get(0), row.get(1));
    if count > 0 && !readable {
        found.push(Obstacle {
            kind: "large objects".to_owned(),
            object: format!("({count})"),
            why: "the role may not read them".to_owned(),
            helps: vec![format!("GRANT SELECT ON pg_catalog.pg_largeobject TO {role};")],
            stops_backup: true,
            stops_restore: false,
            stops_replace: false,
            stops_clone: false,
        });
    }
    Ok(found)
}

/// What ties a database to its identity.
async fn of_identity(session: &Session, name: &str) -> Result<Vec<Obstacle>> {
    let mut found = Vec::new();
    let mut add = |kind: &str, object: String, why: &str| {
        found.push(Obstacle {
            kind: kind.to_owned(),
            object,
            why: why.to_owned(),
            helps: Vec::new(),
            stops_backup: false,
            stops_restore: false,
            stops_replace: true,
            stops_clone: true,
        });
    };
    for what in database::swap_obstacles(session, name).await? {
        let (kind, object) = what.rsplit_once(' ').unwrap_or(("", &what));
        add(kind, object.to_owned(), "it would stay behind with the replaced database");
    }
    for gid in database::prepared_transactions(session, name).await? {
        add("prepared transaction", gid, "PostgreSQL renames no database that has one");
    }
    Ok(found)
}

async fn extensions(session: &Session, facts: &Facts) -> Result<Vec<Obstacle>> {
    let rows = session
        .query(queries::EXTENSION_OBSTACLES, &[])
        .await
        .map_err(|source| Error::postgres("could not look at the extensions", source))?;
    let mut found = Vec::new();
    for row in &rows {
        let name: String = row.get("name");
        let (available, superuser): (bool, bool) = (row.get("available"), row.get("superuser"));
        let why = if name == "pg_cron" {
            "it can be made only in the database that cron.database_name names"
        } else if !available {
            "its files are not on the server any more"
        } else if superuser && !facts.is_superuser {
            "only a superuser may make it, because it is not trusted"
        } else {
            continue;
        };
        found.push(restore_only("extension", name, why.to_owned(), Vec::new()));
    }
    Ok(found)
}

fn restore_only(kind: &str, object: String, why: String, helps: Vec<String>) -> Obstacle {
    Obstacle {
        kind: kind.to_owned(),
        object,
        why,
        helps,
        stops_backup: false,
        stops_restore: true,
        stops_replace: true,
        stops_clone: false,
    }
}

/// Objects whose owner the role can't be.
async fn others_objects(session: &Session, facts: &Facts) -> Result<Vec<Obstacle>> {
    let failed = |source| Error::postgres("could not look at the owners of the objects", source);
    // What it takes to give an object away.
    let right = if facts.major >= 16 { "SET" } else { "MEMBER" };
    let roles = session
        .query(
            &format!(
                "SELECT {}, rolsuper FROM pg_catalog.pg_roles WHERE NOT pg_catalog.pg_has_role(oid, $1)",
                shared_text::bytes("rolname")
            ),
            &[&right],
        )
        .await
        .map_err(failed)?;
    let strangers: std::collections::BTreeMap<String, bool> =
        roles.iter().filter_map(|row| Some((shared_text::name(row, 0)?, row.get(1)))).collect();
    let role = Ident::new(&*facts.role);
    let mut found = Vec::new();
    for row in &session.query(sql::OWNERS, &[]).await.map_err(failed)? {
        let (kind, identity): (String, String) = (row.get("type"), row.get("identity"));
        let owner: String = row.get("owner");
        let Some(is_superuser) = strangers.get(&owner) else { continue };
        // Whoever owns the database is its only member.
        if owner == "pg_database_owner" {
            continue;
        }
        // The schema public of every new database belongs to the same role.
        let is_public = kind == "schema" && identity == "public" && *is_superuser;
        // Theirs is another reason, and told with it.
        if is_public || ["event trigger", "foreign-data wrapper", "language"].contains(&&*kind) {
            continue;
        }
        let word = match &*kind {
            "statistics object" => "STATISTICS".to_owned(),
            "composite type" => "TYPE".to_owned(),
            kind => kind.to_uppercase(),
        };
        let help = match is_superuser {
            // One FOR ALL TABLES can only be a superuser's.
            true if kind == "publication" => None,
            true => Some(format!("ALTER {word} {identity} OWNER TO {role};")),
            false => Some(format!("GRANT {} TO {role};", Ident::new(&*owner))),
        };
        let why = format!("it belongs to \"{owner}\", and \"{}\" may not give it to that role", facts.role);
        found.push(restore_only(&kind, identity, why, help.into_iter().collect()));
    }
    Ok(found)
}

/// Until 14 the schema public of a new database belongs to the superuser who made the server, and a database's owner may not give it away.
async fn schema_public(session: &Session, facts: &Facts) -> Result<Option<Obstacle>> {
    if facts.major >= 15 {
        return Ok(None);
    }
    let row = session
        .query_opt(
            "SELECT pg_catalog.pg_get_userbyid(n.nspowner)::text, pg_catalog.pg_get_userbyid(10)::text FROM pg_catalog.pg_namespace n
             WHERE n.nspname = 'public' AND n.nspowner <> 10 AND NOT pg_catalog.pg_has_role(10, 'USAGE')",
            &[],
        )
        .await
        .map_err(|source| Error::postgres("could not look for the owner of the schema public", source))?;
    Ok(row.map(|row| {
        let (owner, maker): (String, String) = (row.get(0), row.get(1));
        restore_only(
            "schema",
            "public".to_owned(),
            format!(
                "it belongs to \"{owner}\"; in a new database it belongs to \"{maker}\", and before PostgreSQL 15 only a superuser may give \
                 it to somebody else"
            ),
            vec![format!("ALTER SCHEMA public OWNER TO {};", Ident::new(maker))],
        )
    }))
}

/// What only a superuser may make.
async fn superusers_objects(session: &Session, facts: &Facts) -> Result<Vec<Obstacle>> {
    let failed = |source| Error::postgres("could not look for what only a superuser may make", source);
    let mut statements = vec![queries::SUPERUSER_OBJECTS, queries::OTHERS_RIGHTS];
    if facts.major >= 15 {
        statements.push(queries::PUBLISHED_SCHEMAS);
    }
    known_settings::know_plpgsql(session).await?;
    let settings = queries::superuser_settings(facts.major);
    statements.push(&settings);
    let mut found = Vec::new();
    for statement in statements {
        for row in &session.query(statement, &[]).await.map_err(failed)? {
            let (kind, object): (String, String) = (row.get("kind"), row.get("object"));
            let helps: Option<String> = row.get("helps");
            let helps = helps.into_iter().collect();
            let is_databases: bool = row.get("of_database");
            let obstacle = restore_only(&kind, object, row.get("why"), helps);
            found.push(Obstacle { stops_clone: is_databases, ..obstacle });
        }
    }
    Ok(found)
}
