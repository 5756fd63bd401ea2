//! `backup create --table … --exclude-table …`: which part of the database a snapshot holds.
//!
//! What is left out is not in the archive's list, and neither is what needs it: an empty table that comes back looks like
//! lost rows. Only `--exclude-table-data` keeps a definition without its rows.

use std::collections::{BTreeSet, HashMap, HashSet};

use common::{
    Error, QualifiedName, Result,
    catalog::Catalog,
    postgres::{Session, introspect::Relation, sql, tools},
    snapshot::{
        manifest::{Filters, Partial},
        pattern::Pattern,
        toc::{self, Choice, Entry, Kind, ObjectId, Others, Wish},
    },
};

/// Anything that a pattern can name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// `pg_class.oid`.
    pub oid: u32,
    /// Its name.
    pub name: QualifiedName,
    /// `pg_class.relkind`.
    pub kind: char,
    /// For a sequence, the table whose column owns it; otherwise 0.
    pub owner: u32,
}

impl Candidate {
    fn is_table(&self) -> bool {
        matches!(self.kind, 'r' | 'p')
    }

    fn describe(&self) -> String {
        let kind = match self.kind {
            'v' => "view",
            'm' => "materialized view",
            'f' => "foreign table",
            'S' => "sequence",
            _ => "table",
        };
        format!("{kind} {}", self.name.short())
    }
}

/// What the filters mean in a database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// Everything that patterns can name.
    pub candidates: Vec<Candidate>,
    /// Oids of what belongs to the snapshot.
    pub chosen: HashSet<u32>,
    /// Oids of what was excluded by name.
    pub excluded: HashSet<u32>,
    /// Oids of tables whose rows do not.
    pub without_rows: HashSet<u32>,
    /// Schemas that belong to it as a whole.
    pub schemas: BTreeSet<String>,
    /// Schemas that were excluded as a whole.
    pub excluded_schemas: BTreeSet<String>,
}

/// Decides. Pure.
///
/// # Errors
/// Refused for a pattern without a match, and when nothing is left.
pub fn scope(filters: &Filters, candidates: Vec<Candidate>, inherits: &[(u32, u32)]) -> Result<Scope> {
    let names: Vec<&QualifiedName> = candidates.iter().map(|candidate| &candidate.name).collect();
    let tables: Vec<&QualifiedName> =
        candidates.iter().filter(|candidate| candidate.is_table()).map(|candidate| &candidate.name).collect();
    let all_schemas: BTreeSet<&str> = names.iter().map(|name| name.schema.as_str()).collect();
    let schemas = |patterns: &[String]| -> Result<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        for pattern in patterns {
            found
                .extend(Pattern::schema(pattern)?.find_schemas(&all_schemas)?.into_iter().map(str::to_owned));
        }
        Ok(found)
    };
    let named = |patterns: &[String], among: &[&QualifiedName]| -> Result<HashSet<u32>> {
        let mut found = HashSet::new();
        for pattern in patterns {
            let pattern = Pattern::table(pattern)?;
            let matches: HashSet<&QualifiedName> = pattern.find(among)?.into_iter().collect();
            found.extend(candidates.iter().filter(|one| matches.contains(&one.name)).map(|one| one.oid));
        }
        Ok(with_children(found, inherits))
    };
    let (whole, excluded_schemas) = (schemas(&filters.schemas)?, schemas(&filters.exclude_schemas)?);
    let wanted = named(&filters.tables, &names)?;
    let excluded = named(&filters.exclude_tables, &names)?;
    let data = named(&filters.exclude_table_data, &tables)?;
    let chosen: HashSet<u32> = candidates
        .iter()
        .filter(|one| {
            let schema = one.name.schema.as_str();
            (!filters.choose() || wanted.contains(&one.oid) || whole.contains(schema))
                && !excluded.contains(&one.oid)
                && !excluded_schemas.contains(schema)
        })
        .map(|one| one.oid)
        .collect();
    let without_rows = candidates
        .iter()
        .filter(|one| data.contains(&one.oid) && one.kind == 'r')
        .map(|one| one.oid)
        .collect();
    if !candidates.iter().any(|one| one.is_table() && chosen.contains(&one.oid)) {
        return Err(Error::refused("no table is left to back up")
            .with_hint("Name at least one table that is not excluded."));
    }
    Ok(Scope { candidates, chosen, excluded, without_rows, schemas: whole, excluded_schemas })
}

fn with_children(mut found: HashSet<u32>, inherits: &[(u32, u32)]) -> HashSet<u32> {
    loop {
        let below: Vec<u32> = inherits
            .iter()
            .filter(|(child, parent)| found.contains(parent) && !found.contains(child))
            .map(|(child, _)| *child)
            .collect();
        if below.is_empty() {
            return found;
        }
        found.extend(below);
    }
}

/// The whole database, with the rows of these tables alone. `None` where it has no table.
pub async fn definitions(session: &Session, rows: &HashSet<u32>) -> Result<Option<Scope>> {
    let everything = Scope::whole(candidates(session).await?);
    if !everything.candidates.iter().any(Candidate::is_table) {
        return Ok(None);
    }
    let without_rows = everything
        .candidates
        .iter()
        .filter(|one| one.kind == 'r' && !rows.contains(&one.oid))
        .map(|one| one.oid)
        .collect();
    Ok(Some(Scope { without_rows, ..everything }))
}

async fn candidates(session: &Session) -> Result<Vec<Candidate>> {
    let rows = session
        .query(sql::CANDIDATES, &[])
        .await
        .map_err(|source| Error::postgres("could not read the tables from the catalog", source))?;
    Ok(rows
        .iter()
        .map(|row| Candidate {
            oid: row.get(0),
            name: QualifiedName::new(row.get::<_, String>(1), row.get::<_, String>(2)),
            kind: row.get::<_, String>(3).chars().next().unwrap_or('r'),
            owner: row.get(4),
        })
        .collect())
}

/// Reads the catalog and decides.
pub async fn find(session: &Session, filters: &Filters) -> Result<Scope> {
    let failed = |source| Error::postgres("could not read the tables from the catalog", source);
    let candidates = candidates(session).await?;
    let inherits: Vec<(u32, u32)> = session
        .query(sql::INHERITS, &[])
        .await
        .map_err(failed)?
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    scope(filters, candidates, &inherits)
}

impl Scope {
    /// Nothing is left out.
    fn whole(candidates: Vec<Candidate>) -> Self {
        let chosen = candidates.iter().map(|one| one.oid).collect();
        Self { candidates, chosen, ..Self::default() }
    }

    /// The tables to lock, of all that there are.
    pub fn relations(&self, all: Vec<Relation>) -> Vec<Relation> {
        all.into_iter().filter(|relation| self.chosen.contains(&relation.oid)).collect()
    }

    /// Arguments of pg_dump that leave the other tables and views alone: it would lock them, and need rights for that.
    pub fn pg_dump_arguments(&self) -> Vec<String> {
        self.candidates
            .iter()
            .filter(|one| self.is_outside(one))
            .map(|one| format!("--exclude-table={}", one.name))
            .collect()
    }

    /// Chooses the entries of the archive.
    ///
    /// # Errors
    /// Refused when a chosen table needs one that is left out.
    pub async fn choose(&self, session: &Session, entries: &[Entry], filters: &Filters) -> Result<Choice> {
        let outside: Vec<u32> =
            self.candidates.iter().filter(|one| self.is_outside(one)).map(|one| one.oid).collect();
        let rows = session
            .query(sql::DEPENDENTS, &[&outside])
            .await
            .map_err(|source| Error::postgres("could not read the dependencies of the tables", source))?;
        let listed: HashSet<ObjectId> = entries.iter().map(|entry| entry.object).collect();
        let mut refused: HashSet<ObjectId> = HashSet::new();
        for row in &rows {
            let object = (row.get::<_, u32>(0), row.get::<_, u32>(1));
            let relation: u32 = row.get(2);
            refused.insert(object);
            // A default or CHECK that stands within its table's definition takes the table with it.
            if relation != 0 && !listed.contains(&object) {
                refused.insert((1259, relation));
            }
        }
        let others = if filters.choose() { Others::Schemas(self.schemas.clone()) } else { Others::All };
        let wish = Wish {
            relations: self.chosen.clone(),
            others,
            by_schema: false,
            refused,
            without: BTreeSet::new(),
            schemas: self.candidates.iter().map(|one| one.name.schema.as_str().to_owned()).collect(),
            excluded_schemas: self.excluded_schemas.clone(),
        };
        let choice = toc::choose(entries, &wish);
        if choice.impossible.is_empty() {
            return Ok(choice);
        }
        let reasons: Vec<String> =
            choice.impossible.iter().map(|(table, needs)| format!("{table} needs {needs}")).collect();
        Err(Error::refused(format!("a table can't be backed up without another: {}", reasons.join("; "))).with_hint(
            "Name also the table that it inherits from, or whose row type or sequence it uses; or exclude both.",
        ))
    }

    /// Chosen sequences that an extension marks as the user's: the archive has no entry for them.
    pub fn sequences_of_extensions(&self, entries: &[Entry]) -> HashSet<u32> {
        let listed: HashSet<ObjectId> = entries.iter().map(|entry| entry.object).collect();
        self.candidates
            .iter()
            .filter(|one| one.kind == 'S' && self.chosen.contains(&one.oid))
            .filter(|one| !listed.contains(&(1259, one.oid)))
            .map(|one| one.oid)
            .collect()
    }

    /// Whether something must not come. A sequence that nobody named comes along with the table that draws from it, unless
    /// it is another table's own.
    fn is_outside(&self, one: &Candidate) -> bool {
        let is_free = one.kind == 'S'
            && !self.excluded.contains(&one.oid)
            && (one.owner == 0 || self.chosen.contains(&one.owner));
        !self.chosen.contains(&one.oid) && !is_free
    }

    /// What the manifest says about it; reduces the catalog to what is in the part.
    pub fn apply(
        &self,
        filters: &Filters,
        entries: &[Entry],
        choice: &Choice,
        catalog: &mut Catalog,
    ) -> Partial {
        let chosen: Vec<&Entry> = entries.iter().filter(|entry| choice.entries.contains(&entry.id)).collect();
        let objects: HashSet<ObjectId> = chosen.iter().map(|entry| entry.object).collect();
        let names: HashMap<&QualifiedName, u32> =
            self.candidates.iter().map(|one| (&one.name, one.oid)).collect();
        let mut left_out: Vec<String> = self
            .candidates
            .iter()
            .filter(|one| !self.chosen.contains(&one.oid) && !objects.contains(&(1259, one.oid)))
            .map(Candidate::describe)
            .collect();
        left_out.extend(
            choice.left_out.iter().map(|(what, why)| {
                if why.is_empty() { what.clone() } else { format!("{what} (needs {why})") }
            }),
        );
        let without_rows = catalog
            .tables
            .iter()
            .filter(|table| self.chosen.contains(&table.oid) && self.without_rows.contains(&table.oid))
            .map(|table| table.name.clone())
            .collect();
        catalog
            .tables
            .retain(|table| self.chosen.contains(&table.oid) && !self.without_rows.contains(&table.oid));
        catalog.partitioned.retain(|table| self.chosen.contains(&table.oid));
        catalog
            .inherits
            .retain(|(child, parent)| self.chosen.contains(child) && self.chosen.contains(parent));
        catalog
            .materialized_views
            .retain(|view| names.get(&view.name).is_some_and(|oid| objects.contains(&(1259, *oid))));
        catalog.extensions.retain(|extension| {
            let text = format!("EXTENSION - {} ", extension.name);
            chosen.iter().any(|entry| entry.kind == Kind::Extension && entry.text.starts_with(&text))
        });
        if filters.choose() && catalog.large_objects.count > 0 {
            left_out.push(format!("{} large objects, which belong to no table", catalog.large_objects.count));
            catalog.large_objects.count = 0;
        }
        left_out.sort();
        left_out.dedup();
        Partial {
            filters: filters.clone(),
            entries: chosen.iter().map(|entry| entry.id).collect(),
            left_out,
            without_rows,
        }
    }
}

/// The table of contents of an archive that was just written.
pub async fn contents(pg_dump: &tools::Tool, archive: &std::path::Path) -> Result<Vec<Entry>> {
    let pg_restore = tools::choose("pg_restore", &tools::installed("pg_restore").await, pg_dump.major)?;
    let mut command = tools::offline_command(&pg_restore.path);
    command.args(["--list", "--verbose"]).arg(archive);
    let (finished, text) = tools::capture(command, "pg_restore").await?;
    if !finished.success {
        return Err(Error::failed(format!(
            "pg_restore could not list the schema: {}",
            finished.stderr.trim()
        )));
    }
    let mut entries = toc::parse(&String::from_utf8_lossy(&text));
    if toc::may_lack_operator_classes(&entries) {
        let mut command = tools::offline_command(&pg_restore.path);
        command.args(["--section=post-data", "--file=-"]).arg(archive);
        toc::add_operator_classes(&mut entries, &tools::output(command, "pg_restore").await?);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates() -> Vec<Candidate> {
        let one = |oid, schema: &str, name: &str, kind| Candidate {
            oid,
            name: QualifiedName::new(schema, name),
            kind,
            owner: 0,
        };
        vec![
            one(1, "app", "orders", 'r'),
            one(2, "app", "events", 'p'),
            one(3, "app", "events_1", 'r'),
            one(4, "app", "totals", 'v'),
            one(5, "log", "lines", 'r'),
        ]
    }

    fn chosen(filters: &Filters) -> Vec<u32> {
        let mut oids: Vec<u32> =
            scope(filters, candidates(), &[(3, 2)]).unwrap().chosen.into_iter().collect();
        oids.sort_unstable();
        oids
    }

    #[test]
    fn filters_choose_and_exclude_as_those_of_pg_dump() {
        let list = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let mut filters = Filters { tables: list(&["orders"]), ..Filters::default() };
        assert_eq!(chosen(&filters), [1]);
        filters.schemas = list(&["log"]);
        assert_eq!(chosen(&filters), [1, 5]);
        assert_eq!(chosen(&Filters { tables: list(&["app.ev*s"]), ..Filters::default() }), [2, 3]);
        assert_eq!(chosen(&Filters { exclude_tables: list(&["events"]), ..Filters::default() }), [1, 4, 5]);
        assert_eq!(chosen(&Filters { exclude_schemas: list(&["app"]), ..Filters::default() }), [5]);
        let data = Filters { exclude_table_data: list(&["events"]), ..Filters::default() };
        assert_eq!(chosen(&data), [1, 2, 3, 4, 5]);
        assert_eq!(scope(&data, candidates(), &[(3, 2)]).unwrap().without_rows, HashSet::from([3]));
        let none =
            Filters { tables: list(&["log.*"]), exclude_tables: list(&["lines"]), ..Filters::default() };
        assert!(scope(&none, candidates(), &[]).is_err());
    }
}
