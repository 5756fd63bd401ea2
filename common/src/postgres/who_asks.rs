//! With whose rights a question is asked.
//!
//! A question about a table evaluates what its owner wrote: CHECKs, domains, expressions of indexes, statistics and keys,
//! views, casts. So it is asked as the owner ([`super::as_owner`]), unless the owner is trusted
//! ([`super::trust`]) and nothing of anybody else is involved: then nothing is different from any query of ours.
//! Where neither can be, the question is not asked, and what was not checked is named.

use std::collections::{BTreeSet, HashMap};

use tokio_postgres::SimpleQueryMessage;

use super::{Client, as_owner::AsOwner, trust::TRUSTED_ROLES};
use crate::{Error, Result, ident::printable};

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Rights {
    /// This session: everything that is evaluated is of trusted roles.
    #[default]
    Session,
    /// The owner of the object, and its name.
    Owner(AsOwner, String),
    /// Nobody; why.
    Nobody(String),
}

impl Rights {
    /// Who may ask about two tables at once.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Nobody(why), _) | (_, Self::Nobody(why)) => Self::Nobody(why.clone()),
            (Self::Session, rights) | (rights, Self::Session) => rights.clone(),
            (Self::Owner(one, name), Self::Owner(two, other)) if one != two => Self::Nobody(format!(
                "the tables belong to {} and {}: code of the one would run with the rights of the other",
                printable(name),
                printable(other)
            )),
            (owner, _) => owner.clone(),
        }
    }
}

/// A condition on the owner `$owner`: it is not trusted.
macro_rules! foreign {
    ($owner:literal) => {
        concat!($owner, " NOT IN (SELECT oid FROM trusted)")
    };
}

/// One row if anything that could be evaluated belongs to a role that is not trusted. What PostgreSQL brought does not.
fn any_foreign() -> String {
    format!(
        "WITH trusted AS MATERIALIZED ({TRUSTED_ROLES})
SELECT 1 WHERE EXISTS (SELECT FROM pg_class WHERE oid >= 16384 AND {})
  OR EXISTS (SELECT FROM pg_proc WHERE oid >= 16384 AND {}) OR EXISTS (SELECT FROM pg_type WHERE oid >= 16384 AND {})
  OR EXISTS (SELECT FROM pg_operator WHERE oid >= 16384 AND {}) OR EXISTS (SELECT FROM pg_opclass WHERE oid >= 16384 AND {})
  OR EXISTS (SELECT FROM pg_opfamily WHERE oid >= 16384 AND {})",
        foreign!("relowner"),
        foreign!("proowner"),
        foreign!("typowner"),
        foreign!("oprowner"),
        foreign!("opcowner"),
        foreign!("opfowner")
    )
}

/// The roles for which a pass may have to ask: owners that are not trusted, of whatever can be asked about.
#[must_use]
pub fn owners() -> String {
    format!(
        "WITH trusted AS MATERIALIZED ({TRUSTED_ROLES})
SELECT o.owner FROM (SELECT relowner AS owner FROM pg_catalog.pg_class
    WHERE oid >= 16384 AND relkind IN ('r', 'p', 'm', 'v', 'S') AND relpersistence <> 't'
  UNION SELECT proowner FROM pg_catalog.pg_proc WHERE oid >= 16384) o
WHERE {}",
        foreign!("o.owner")
    )
}

/// Every relation that needs thought: oid, the oid and name of the role that has to ask, an object of somebody else, and with whose rights its
/// code would run, if not with this session's. The role is the owner, if he is not trusted. Of a trusted one's: whose objects asking
/// could evaluate, if that is one role, and may read it; else 0.
///
/// Who owns a table above another one plants code in it: its key is evaluated for every row below, and an index that he makes on it is made
/// on every partition, whosever it is. (CHECK constraints and columns he can only hand down to what is his.) And a query on his
/// table plans the indexes of what lies below. So in a tree of several owners nobody asks about a table with code of another one than its
/// owner.
///
/// A relation (`rel`) leads to its indexes, constraints, generated columns, statistics, the query of a view, the types of its
/// columns, the partitions of a partitioned table, and the keys (`key`) of the trees that it is a partition of. Everything leads
/// to what it depends on. Foreign keys are left out, because they are asked about as a pair; plain defaults, triggers and
/// policies, because no question evaluates them.
fn relations() -> String {
    format!(
        "WITH RECURSIVE trusted AS MATERIALIZED ({TRUSTED_ROLES}),
 asked AS (SELECT c.oid, c.relowner FROM pg_class c WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'm', 'v', 'S') AND c.relpersistence <> 't'),
 parts(kind, oid, next_kind, next) AS MATERIALIZED (
  SELECT 'rel'::text, i.indrelid, 'index'::text, i.indexrelid FROM pg_index i
  UNION ALL SELECT 'rel', o.conrelid, 'constraint', o.oid FROM pg_constraint o WHERE o.contype IN ('c', 'p', 'u', 'x', 'n')
  UNION ALL SELECT 'rel', d.adrelid, 'default', d.oid FROM pg_attrdef d
    JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum WHERE a.attgenerated <> ''
  UNION ALL SELECT 'rel', s.stxrelid, 'statistic', s.oid FROM pg_statistic_ext s
  UNION ALL SELECT 'rel', r.ev_class, 'rule', r.oid FROM pg_rewrite r WHERE r.rulename = '_RETURN'
  UNION ALL SELECT 'rel', a.attrelid, 'type', a.atttypid FROM pg_attribute a WHERE a.attnum > 0 AND a.atttypid >= 16384
  UNION ALL SELECT 'rel', h.inhparent, 'rel', h.inhrelid FROM pg_inherits h JOIN pg_class p ON p.oid = h.inhparent AND p.relkind = 'p'
  UNION ALL SELECT 'rel', h.inhrelid, 'key', h.inhparent FROM pg_inherits h
  UNION ALL SELECT 'key', h.inhrelid, 'key', h.inhparent FROM pg_inherits h
  UNION ALL SELECT 'type', t.oid, 'type', x.oid FROM pg_type t, unnest(ARRAY[t.typbasetype, t.typelem]) x(oid) WHERE x.oid >= 16384
  UNION ALL SELECT 'type', t.oid, 'rel', t.typrelid FROM pg_type t WHERE t.typrelid >= 16384
  UNION ALL SELECT 'type', o.contypid, 'constraint', o.oid FROM pg_constraint o WHERE o.contypid <> 0
  UNION ALL SELECT 'type', k.castsource, 'function', k.castfunc FROM pg_cast k WHERE k.castfunc >= 16384
  UNION ALL SELECT f.kind, d.objid, t.kind, d.refobjid FROM pg_depend d
    JOIN (VALUES ('pg_class'::regclass, 'rel'), ('pg_class', 'key'), ('pg_class', 'index'), ('pg_constraint', 'constraint'),
      ('pg_attrdef', 'default'), ('pg_statistic_ext', 'statistic'), ('pg_rewrite', 'rule'), ('pg_proc', 'function'),
      ('pg_operator', 'operator'), ('pg_opclass', 'class'), ('pg_opfamily', 'family'), ('pg_type', 'type')) f(class, kind) ON f.class = d.classid
    JOIN (VALUES ('pg_class'::regclass, 'rel'), ('pg_proc', 'function'), ('pg_operator', 'operator'), ('pg_opclass', 'class'),
      ('pg_opfamily', 'family'), ('pg_type', 'type')) t(class, kind) ON t.class = d.refclassid
    WHERE d.refobjid >= 16384 AND d.deptype <> 'e' AND (t.kind <> 'rel' OR f.kind = 'rule')),
 used(root, kind, oid) AS (
  SELECT a.oid, 'rel'::text, a.oid FROM asked a WHERE a.relowner IN (SELECT oid FROM trusted)
    OR EXISTS (SELECT FROM pg_inherits h JOIN pg_class p ON p.oid = h.inhparent JOIN pg_class c ON c.oid = h.inhrelid AND c.relowner <> p.relowner)
      AND EXISTS (SELECT FROM pg_inherits h WHERE a.oid IN (h.inhrelid, h.inhparent))
  UNION
  SELECT u.root, p.next_kind, p.next FROM used u JOIN parts p ON p.kind = u.kind AND p.oid = u.oid),
 found AS (
  SELECT u.root, o.owner, o.object, u.kind IN ('rel', 'key') AS is_table FROM used u CROSS JOIN LATERAL (
    SELECT o.proowner AS owner, format('function %s', u.oid::regprocedure) AS object FROM pg_proc o WHERE u.kind = 'function' AND o.oid = u.oid
    UNION ALL SELECT o.oprowner, format('operator %s', u.oid::regoperator) FROM pg_operator o WHERE u.kind = 'operator' AND o.oid = u.oid
    UNION ALL SELECT o.typowner, format('type %s', u.oid::regtype) FROM pg_type o WHERE u.kind = 'type' AND o.oid = u.oid
    UNION ALL SELECT o.opcowner, format('operator class %I', o.opcname) FROM pg_opclass o WHERE u.kind = 'class' AND o.oid = u.oid
    UNION ALL SELECT o.opfowner, format('operator family %I', o.opfname) FROM pg_opfamily o WHERE u.kind = 'family' AND o.oid = u.oid
    UNION ALL SELECT o.relowner, format('relation %s', u.oid::regclass) FROM pg_class o
      WHERE u.kind IN ('rel', 'key') AND o.oid = u.oid AND o.relkind <> 'S') o
  WHERE {}),
 one AS (SELECT f.root, min(f.object) AS object, CASE WHEN count(DISTINCT f.owner) = 1 THEN min(f.owner::bigint)::oid END AS owner
  FROM found f JOIN asked a ON a.oid = f.root WHERE a.relowner IN (SELECT oid FROM trusted) GROUP BY f.root),
 torn AS (SELECT f.root, min(f.object) FILTER (WHERE NOT f.is_table) AS object FROM found f JOIN asked a ON a.oid = f.root
  WHERE f.owner <> a.relowner AND {} GROUP BY f.root HAVING bool_or(f.is_table) AND NOT bool_and(f.is_table))
SELECT a.oid, CASE WHEN t.root IS NULL THEN a.relowner ELSE 0 END, pg_get_userbyid(a.relowner), t.object, pg_get_userbyid(a.relowner)
FROM asked a LEFT JOIN torn t ON t.root = a.oid WHERE {}
UNION ALL
SELECT o.root, CASE WHEN o.owner IS NOT NULL AND has_table_privilege(o.owner, o.root, 'SELECT') THEN o.owner ELSE 0 END,
  pg_get_userbyid(o.owner), o.object, NULL FROM one o",
        foreign!("o.owner"),
        foreign!("a.relowner"),
        foreign!("a.relowner")
    )
}

/// The schemas in which a role that is not trusted may make things, and the session's role.
fn open_schemas() -> String {
    format!(
        "WITH trusted AS MATERIALIZED ({TRUSTED_ROLES})
SELECT 'schema', n.nspname FROM pg_namespace n WHERE n.nspname NOT LIKE 'pg\\_%' AND ({} OR EXISTS (
  SELECT FROM aclexplode(COALESCE(n.nspacl, acldefault('n', n.nspowner))) a WHERE a.privilege_type = 'CREATE' AND {}))
UNION ALL SELECT 'user', current_user",
        foreign!("n.nspowner"),
        foreign!("a.grantee")
    )
}

/// Who may ask about what.
#[derive(Debug, Default)]
pub struct Standings {
    /// Relations that this session may not ask about itself.
    relations: HashMap<u32, Rights>,
    /// Something in this database belongs to a role that is not trusted.
    mixed: bool,
    /// The roles as which the session can ask.
    made: BTreeSet<u32>,
    /// Schemas in which a role that is not trusted may make things. Not read unless something is mixed.
    open: BTreeSet<String>,
    /// The session's role, whose name `$user` stands for.
    user: String,
}

impl Standings {
    /// Reads them. Two catalog queries, or one where everything is of trusted roles. `made`: the roles whose functions the
    /// session has ([`super::as_owner::MADE`]). Its `search_path` is empty.
    ///
    /// # Errors
    /// The catalog can't be read.
    pub async fn read(client: &Client, made: BTreeSet<u32>) -> Result<Self> {
        let mut standings = Self { made, ..Self::default() };
        standings.mixed = !rows(client, &any_foreign()).await?.is_empty();
        if standings.mixed {
            for row in rows(client, &open_schemas()).await? {
                let mut row = row.into_iter().flatten();
                let (kind, name) = (row.next(), row.next().unwrap_or_default());
                match kind.as_deref() {
                    Some("user") => standings.user = name,
                    _ => drop(standings.open.insert(name)),
                }
            }
            for row in rows(client, &relations()).await? {
                let value = |column: usize| row.get(column).and_then(Option::as_deref).unwrap_or_default();
                let owner: u32 = value(1).parse().unwrap_or_default();
                let rights = if owner == 0 {
                    let whose = match value(4) {
                        "" => "this session".to_owned(),
                        owner => printable(owner),
                    };
                    Rights::Nobody(format!(
                        "{} belongs to another role, and its code would run with the rights of {whose}",
                        printable(value(3))
                    ))
                } else {
                    standings.of_owner(owner, value(2))
                };
                standings.relations.insert(value(0).parse().unwrap_or_default(), rights);
            }
        }
        Ok(standings)
    }

    /// How to ask about what belongs to a role that is not trusted, with its name.
    #[must_use]
    pub fn of_owner(&self, owner: u32, name: &str) -> Rights {
        if self.made.contains(&owner) {
            return Rights::Owner(AsOwner::of(owner), name.to_owned());
        }
        Rights::Nobody(format!(
            "it belongs to {}, whose code would run with the rights of this session, and this session can't ask as that role \
             (that takes a superuser or a member of it, on a server that may be written to)",
            printable(name)
        ))
    }

    /// Whether a name without a schema could be found in a schema in which a role that is not trusted may make things. `path` as
    /// SET takes it.
    #[must_use]
    pub fn path_is_open(&self, path: &str) -> bool {
        path.split(',').any(|schema| {
            let schema = schema.trim();
            // A comma within a name: whatever it is called, nothing is known of it.
            if !schema.matches('"').count().is_multiple_of(2) {
                return true;
            }
            let plain = schema.strip_prefix('"').and_then(|inner| inner.strip_suffix('"'));
            let name = plain.map_or_else(|| schema.to_lowercase(), |inner| inner.replace("\"\"", "\""));
            self.open.contains(if name == "$user" { &self.user } else { &name })
        })
    }

    /// Who may ask about a relation.
    #[must_use]
    pub fn of(&self, relation: u32) -> Rights {
        self.relations.get(&relation).cloned().unwrap_or_default()
    }

    /// Who may have the queries inside of a function planned: his tables may be anybody's. `owner` is 0 for a trusted one.
    #[must_use]
    pub fn of_body(&self, owner: u32, name: &str) -> Rights {
        match (owner, self.mixed) {
            (0, false) => Rights::Session,
            (0, true) => Rights::Nobody(
                "in this database there are objects of other roles, whose code would run with the rights of this session"
                    .to_owned(),
            ),
            _ => self.of_owner(owner, name),
        }
    }

    /// The relations of `all` by who may ask about them, for questions about many at once.
    pub fn grouped(&self, all: impl Iterator<Item = u32>) -> Vec<(Rights, Vec<u32>)> {
        let mut groups: Vec<(Rights, Vec<u32>)> = Vec::new();
        for oid in all {
            let rights = self.of(oid);
            match groups.iter_mut().find(|(theirs, _)| *theirs == rights) {
                Some((_, oids)) => oids.push(oid),
                None => groups.push((rights, vec![oid])),
            }
        }
        groups
    }
}

async fn rows(client: &Client, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
    let messages = client.simple_query(sql).await.map_err(|source| {
        Error::postgres("could not read from the catalog whose code the tables have", source)
    })?;
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
        }
        _ => None,
    };
    Ok(messages.into_iter().filter_map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_tables_are_asked_about_by_who_may_run_the_code_of_both() {
        let owner = |oid| Rights::Owner(AsOwner::of(oid), format!("role {oid}"));
        assert_eq!(Rights::Session.and(&Rights::Session), Rights::Session);
        assert_eq!(Rights::Session.and(&owner(1)), owner(1));
        assert_eq!(owner(1).and(&owner(1)), owner(1));
        assert!(matches!(owner(1).and(&owner(2)), Rights::Nobody(why) if why.contains("role 1 and role 2")));
        assert!(matches!(owner(1).and(&Rights::Nobody("x".into())), Rights::Nobody(why) if why == "x"));
    }
}
