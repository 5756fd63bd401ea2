//! What the maker of an entry is lent of tables that belong to others, for one transaction.
//!
//! Whoever attaches a partition has to own both tables, and PostgreSQL computes the constants of the key above, and of the CHECK
//! constraints below, with his rights. The key's owner does it, who wrote it, and has the partition meanwhile, which has no rows yet. The
//! partition's own CHECK constraints that call anything are away for that time, and its owner puts them back. For foreign keys and triggers,
//! which come when there are rows, a privilege is lent that reads nothing.
//!
//! His code could use the loan: what depends on the tables, their columns, sequences, rows and rights are looked at before and after.

use std::collections::BTreeSet;

use common::{
    Error, Ident, QualifiedName, Result,
    ident::{literal, printable},
    postgres::{DriverError, Session, SimpleQueryMessage, trust::Role},
};

use crate::owned::{Lending, Owned};

/// A definition that was taken away, and that another role puts back.
#[derive(Debug)]
pub struct Aside {
    /// Who.
    pub owner: Role,
    /// The entry of the table.
    pub entry: u32,
    /// The statements.
    pub sql: String,
}

/// What is lent.
#[derive(Debug, Default)]
pub struct Loans {
    /// Statements that end it.
    ends: Vec<String>,
    aside: Vec<Aside>,
    /// The tables of others, by their oids, and what was true of them.
    tables: Vec<u32>,
    before: BTreeSet<String>,
    /// The name of the partition that is attached, which has no rows yet.
    empty: Option<String>,
    /// What the entry itself makes.
    made: Made,
}

/// What an entry makes that can be seen at the tables of others.
#[derive(Debug, Default, Clone, Copy)]
struct Made {
    keys: usize,
    triggers: usize,
}

impl Loans {
    /// Lends `role` what it needs for the entry `ids`, one if anything is lent for it. In the transaction that makes it.
    ///
    /// # Errors
    /// The server refuses it.
    pub async fn give(
        session: &Session,
        owned: Option<&Owned>,
        role: &Role,
        ids: &[u32],
        body: &str,
    ) -> Result<Self> {
        let mut loans = Self::default();
        let Some((owned, lending)) = owned.and_then(|owned| Some((owned, owned.lent.get(ids.first()?)?)))
        else {
            return Ok(loans);
        };
        let names = |oids: &[u32]| -> Vec<QualifiedName> {
            oids.iter().filter_map(|oid| owned.names.get(oid).cloned()).collect()
        };
        match lending {
            Lending::Partition(entry) => loans.partition(session, role, *entry, body).await?,
            Lending::Index => loans.usage(session, role, body).await?,
            Lending::Trees(oids) => {
                for tree in names(oids) {
                    loans.trigger(session, role, &tree).await?;
                }
            }
            Lending::References(oids) => {
                for table in names(oids) {
                    loans.references(session, role, &table).await?;
                }
            }
        }
        loans.before = seen(session, &loans.tables).await?;
        Ok(loans)
    }

    /// Ends it; what has to be put back is given.
    ///
    /// # Errors
    /// Refused, if the tables of others have anything that they did not have.
    pub async fn take_back(self, session: &Session) -> Result<Vec<Aside>> {
        let after = seen(session, &self.tables).await?;
        let new = |kind: &str| after.difference(&self.before).filter(|line| line.starts_with(kind)).count();
        let is_expected = |line: &&String| line.starts_with(KEY) || line.starts_with(CLONE);
        let strange = (after.difference(&self.before).find(|line| !is_expected(line)))
            .or_else(|| self.before.difference(&after).next());
        if strange.is_some() || new(KEY) > self.made.keys || new(CLONE) > self.made.triggers {
            let what = strange.map_or("a foreign key or a trigger", String::as_str);
            return Err(Error::refused(format!(
                "code of the owner changed what a table of another role has meanwhile: {}",
                printable(what)
            )));
        }
        if let Some(partition) = &self.empty {
            still_empty(session, partition).await?;
        }
        for end in &self.ends {
            run(session, end).await?;
        }
        Ok(self.aside)
    }

    async fn partition(&mut self, session: &Session, role: &Role, entry: u32, body: &str) -> Result<()> {
        const OWNER: &str = "SELECT c.oid, r.oid, r.rolname::pg_catalog.text FROM pg_catalog.pg_class c
            JOIN pg_catalog.pg_roles r ON r.oid = c.relowner WHERE c.oid = $1::pg_catalog.text::pg_catalog.regclass";
        // Those of the parent's are handed down, and have to be there.
        const CHECKS: &str = "SELECT k.conname::pg_catalog.text, pg_catalog.pg_get_constraintdef(k.oid),
            pg_catalog.obj_description(k.oid, 'pg_constraint') FROM pg_catalog.pg_constraint k
            WHERE k.conrelid = $1 AND k.contype = 'c' AND k.convalidated AND k.conbin::pg_catalog.text ~ ' [1-9][0-9]{4,}'
              AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint p WHERE p.contype = 'c' AND p.conname = k.conname
                AND p.conrelid = $2::pg_catalog.text::pg_catalog.regclass)";
        let (parent, partition) = attached(body).ok_or_else(|| {
            Error::failed("the statement that attaches a partition is not what it is in an archive")
        })?;
        let row = session.query_one(OWNER, &[&partition]).await.map_err(failed)?;
        let oid: u32 = row.get(0);
        let owner = Role { oid: row.get(1), name: row.get(2), is_trusted: false };
        let mut back = String::new();
        for check in session.query(CHECKS, &[&oid, &parent]).await.map_err(failed)? {
            let name = Ident::new(check.get::<_, String>(0));
            let definition: String = check.get(1);
            run(session, &format!("ALTER TABLE {partition} DROP CONSTRAINT {name}")).await?;
            back.push_str(&format!("ALTER TABLE {partition} ADD CONSTRAINT {name} {definition};\n"));
            if let Some(comment) = check.get::<_, Option<String>>(2) {
                let comment = literal(&comment);
                back.push_str(&format!("COMMENT ON CONSTRAINT {name} ON {partition} IS {comment};\n"));
            }
        }
        if owner.oid != role.oid {
            let change =
                |to: &Role| format!("ALTER TABLE {partition} OWNER TO {}", Ident::new(to.name.as_str()));
            run(session, &change(role)).await?;
            self.ends.push(change(&owner));
        }
        if !back.is_empty() {
            self.aside.push(Aside { owner, entry, sql: back });
        }
        self.tables.push(oid);
        self.empty = Some(partition.to_owned());
        Ok(())
    }

    /// The schema in which the index lies that is attached.
    async fn usage(&mut self, session: &Session, role: &Role, body: &str) -> Result<()> {
        const SCHEMA: &str =
            "SELECT n.oid, n.nspname::pg_catalog.text, pg_catalog.has_schema_privilege($2::pg_catalog.oid, n.oid, 'USAGE')
            FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE c.oid = $1::pg_catalog.text::pg_catalog.regclass";
        let Some((_, index)) = attached(body) else { return Ok(()) };
        let row = session.query_one(SCHEMA, &[&index, &role.oid]).await.map_err(failed)?;
        if !row.get::<_, bool>(2) {
            let schema = Ident::new(row.get::<_, String>(1));
            self.grant(session, role, &format!("USAGE ON SCHEMA {schema}")).await?;
        }
        Ok(())
    }

    async fn trigger(&mut self, session: &Session, role: &Role, tree: &QualifiedName) -> Result<()> {
        const PARTITIONS: &str = "SELECT c.oid, n.nspname::pg_catalog.text, c.relname::pg_catalog.text,
            pg_catalog.has_table_privilege($2::pg_catalog.oid, c.oid, 'TRIGGER')
            FROM pg_catalog.pg_partition_tree($1::pg_catalog.text::pg_catalog.regclass) p
            JOIN pg_catalog.pg_class c ON c.oid = p.relid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relowner <> $2::pg_catalog.oid";
        for row in session.query(PARTITIONS, &[&tree.to_string(), &role.oid]).await.map_err(failed)? {
            self.tables.push(row.get(0));
            self.made.triggers += 1;
            if !row.get::<_, bool>(3) {
                let table = QualifiedName::new(row.get::<_, String>(1), row.get::<_, String>(2));
                self.grant(session, role, &format!("TRIGGER ON TABLE {table}")).await?;
            }
        }
        Ok(())
    }

    async fn references(&mut self, session: &Session, role: &Role, table: &QualifiedName) -> Result<()> {
        const RIGHTS: &str = "SELECT c.oid, pg_catalog.has_schema_privilege($2::pg_catalog.oid, c.relnamespace, 'USAGE'),
            pg_catalog.has_any_column_privilege($2::pg_catalog.oid, c.oid, 'REFERENCES') FROM pg_catalog.pg_class c
            WHERE c.oid = $1::pg_catalog.text::pg_catalog.regclass";
        let row = session.query_one(RIGHTS, &[&table.to_string(), &role.oid]).await.map_err(failed)?;
        self.tables.push(row.get(0));
        self.made.keys += 1;
        if !row.get::<_, bool>(1) {
            self.grant(session, role, &format!("USAGE ON SCHEMA {}", table.schema)).await?;
        }
        if !row.get::<_, bool>(2) {
            self.grant(session, role, &format!("REFERENCES ON TABLE {table}")).await?;
        }
        Ok(())
    }

    async fn grant(&mut self, session: &Session, role: &Role, privilege: &str) -> Result<()> {
        let name = Ident::new(role.name.as_str());
        run(session, &format!("GRANT {privilege} TO {name}")).await?;
        self.ends.push(format!("REVOKE {privilege} FROM {name}"));
        Ok(())
    }
}

fn failed(source: DriverError) -> Error {
    Error::postgres("could not lend a table to the owner of another", source)
}

async fn run(session: &Session, sql: &str) -> Result<()> {
    session.batch_execute(sql).await.map_err(failed)
}

/// Makes sure that a partition has no rows. Asked when it is known to have nothing that planning the query would evaluate.
async fn still_empty(session: &Session, partition: &str) -> Result<()> {
    let asked = format!("SELECT 1 FROM ONLY {partition} LIMIT 1");
    let messages = session.simple_query(&asked).await.map_err(failed)?;
    if messages.iter().any(|message| matches!(message, SimpleQueryMessage::Row(_))) {
        return Err(Error::refused(format!(
            "code of the owner changed what a table of another role has meanwhile: rows in {}",
            printable(partition)
        )));
    }
    Ok(())
}

const KEY: &str = "foreign key ";
const CLONE: &str = "trigger of a tree ";

/// What is true of some tables, in lines. Text, because nothing may be prepared where code of somebody else has been.
async fn seen(session: &Session, tables: &[u32]) -> Result<BTreeSet<String>> {
    if tables.is_empty() {
        return Ok(BTreeSet::new());
    }
    let oids: Vec<String> = tables.iter().map(ToString::to_string).collect();
    let messages = session.simple_query(&SEEN.replace("TABLES", &oids.join(", "))).await.map_err(failed)?;
    let lines = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    Ok(lines.collect())
}

/// Triggers, rules, policies, indexes, constraints, statistics, publications, views and partitions all depend on their table. Sequences of
/// its columns are lent with it.
const SEEN: &str = "SET LOCAL search_path = pg_catalog, pg_temp;
WITH t AS (SELECT c.* FROM pg_class c WHERE c.oid IN (TABLES) OR c.relkind = 'S' AND EXISTS (SELECT FROM pg_depend d
  WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i')
    AND d.refclassid = 'pg_class'::regclass AND d.refobjid IN (TABLES)))
SELECT concat_ws(' ', 'table', oid, relname, relnamespace, relowner, relkind, relam, relpersistence, reltablespace, relrowsecurity,
  relforcerowsecurity, relreplident, reloptions) FROM t
UNION ALL SELECT concat_ws(' ', 'column', a.attrelid, a.attnum, a.attname, a.atttypid, a.atttypmod, a.attcollation, a.attnotnull, a.attidentity,
  a.attgenerated, a.attstorage, a.attcompression, COALESCE(a.attstattarget, -1), a.attacl, a.attoptions)
  FROM t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0
UNION ALL SELECT concat_ws(' ', 'sequence', s.seqrelid, s.seqtypid, s.seqstart, s.seqincrement, s.seqmax, s.seqmin, s.seqcache, s.seqcycle)
  FROM t JOIN pg_sequence s ON s.seqrelid = t.oid
UNION ALL SELECT concat_ws(' ', 'right', t.oid, a.grantor, a.grantee, a.privilege_type, a.is_grantable)
  FROM t, aclexplode(COALESCE(t.relacl, acldefault(CASE t.relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\", t.relowner))) a
UNION ALL SELECT concat_ws(' ', 'object', pg_describe_object(d.classid, d.objid, d.objsubid), d.objid, 'of', d.refobjid, d.refobjsubid)
  FROM t JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = t.oid
  LEFT JOIN pg_trigger g ON d.classid = 'pg_trigger'::regclass AND g.oid = d.objid
  LEFT JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
  WHERE COALESCE(g.tgparentid, 0) = 0 AND k.contype IS DISTINCT FROM 'f'
UNION ALL SELECT concat_ws(' ', 'member of', pg_describe_object(d.refclassid, d.refobjid, 0), t.oid) FROM t
  JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = t.oid AND d.deptype IN ('e', 'x')
UNION ALL SELECT concat_ws(' ', 'comment', t.oid, o.objsubid, o.description) FROM t
  JOIN pg_description o ON o.classoid = 'pg_class'::regclass AND o.objoid = t.oid
UNION ALL SELECT concat_ws(' ', 'foreign key', k.conname, k.oid) FROM t JOIN pg_constraint k ON k.contype = 'f' AND k.conparentid = 0
  AND t.oid IN (k.conrelid, k.confrelid)
UNION ALL SELECT concat_ws(' ', 'trigger of a tree', g.tgname, g.oid) FROM t
  JOIN pg_trigger g ON g.tgrelid = t.oid AND g.tgparentid <> 0 AND NOT g.tgisinternal";

/// The two names of `ALTER TABLE ONLY app.parent ATTACH PARTITION app.part …`, as they stand there.
fn attached(body: &str) -> Option<(&str, &str)> {
    let begins = |word: &str| body.split_once(word).map(|(_, rest)| rest);
    let rest = begins("\nALTER TABLE ONLY ").or_else(|| begins("\nALTER INDEX "))?;
    let (above, rest) = name(rest)?;
    let (below, _) = name(rest.strip_prefix(" ATTACH PARTITION ")?)?;
    Some((above, below))
}

/// The name that a text begins with, quoted or not, and the rest.
fn name(text: &str) -> Option<(&str, &str)> {
    let mut is_quoted = false;
    let end = text.char_indices().find(|(_, c)| {
        is_quoted ^= *c == '"';
        !is_quoted && (c.is_whitespace() || *c == ';')
    });
    let (name, rest) = text.split_at(end?.0);
    (!name.is_empty()).then_some((name, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_what_is_attached_are_read_as_they_stand() {
        for (body, expected) in [
            (
                "--\n-- Name: p1; Type: TABLE ATTACH\n--\n\nALTER TABLE ONLY app.p ATTACH PARTITION app.p1 FOR VALUES FROM (1) TO (2);\n",
                Some(("app.p", "app.p1")),
            ),
            (
                "\nALTER TABLE ONLY \"a ATTACH PARTITION \"\"b\".p ATTACH PARTITION s.\"p;1\" DEFAULT;",
                Some(("\"a ATTACH PARTITION \"\"b\".p", "s.\"p;1\"")),
            ),
            ("\nALTER INDEX app.i ATTACH PARTITION app.\"I 1\";\n", Some(("app.i", "app.\"I 1\""))),
            ("\nALTER TABLE ONLY app.p ADD CONSTRAINT c CHECK (true);", None),
        ] {
            assert_eq!(attached(body), expected, "{body}");
        }
    }
}
