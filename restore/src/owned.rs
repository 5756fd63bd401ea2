//! Which entries of the archive evaluate code while they are made, and who has to make them. Pure.
//!
//! pg_restore makes everything as whoever restores, who is mostly a superuser, and PostgreSQL computes what is constant in a
//! generated column or a partition key when the table is made or attached, and the CHECK constraints of a partition when it
//! is attached. So where such a table belongs to a role that is not trusted (`common::postgres::trust`) and calls anything that the
//! archive makes, its owner makes it ([`crate::archive`]); and so with definitions that may hold a value as text (`'{x}'::words`), which
//! is read by the functions of its type, and those ask a domain's rules. What indexes and statistics hold is computed when a query is planned: the
//! check of a foreign key is one, and comes before them ([`crate::passes`]).
//!
//! In a tree of partitions of several owners, who wrote a key makes what computes it, and is lent what he needs of the others
//! ([`crate::lent_tables`]).
//!
//! An owner is read from the end of an entry, where pg_restore prints it without quotes: the longest name of a role that fits.

pub mod look;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use common::{
    QualifiedName,
    postgres::trust::Role,
    snapshot::toc::{Entry, Kind},
};

/// Who makes what, and in which order.
#[derive(Debug, Default)]
pub struct Owned {
    /// Entries that their owner makes.
    pub makers: BTreeMap<u32, Role>,
    /// Entries of the post-data section that come after the foreign keys.
    pub late: BTreeSet<u32>,
    /// What each entry needs; empty where no owner makes anything.
    needs: HashMap<u32, Vec<u32>>,
    /// Grants that come last: until then everybody may use types, as whoever made the tables could. Those on functions and
    /// schemas come with these: code of an owner must not find open what is shut.
    grants: HashSet<u32>,
    /// What the maker of an entry is lent for its time.
    pub lent: BTreeMap<u32, Lending>,
    /// The names of tables by their oids at the source.
    pub names: HashMap<u32, QualifiedName>,
}

/// Tables of other roles that the maker of an entry needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lending {
    /// The partition that is attached, an entry of the archive: it is his meanwhile.
    Partition(u32),
    /// An index of a partition, which is attached to his: he may use its schema.
    Index,
    /// Partitioned tables of his, by their oids at the source: he gets the right to make triggers on their partitions.
    Trees(Vec<u32>),
    /// Tables, by their oids at the source: he gets the right to refer to them.
    References(Vec<u32>),
}

/// Entries that are made one after another by one role.
#[derive(Debug, PartialEq, Eq)]
pub enum Batch {
    /// By pg_restore.
    Ours(Vec<u32>),
    /// By their owner.
    Owner(Vec<u32>),
}

/// Whether anything in the archive could belong to a role that is not trusted, and call something.
pub fn may_matter(entries: &[Entry], roles: &[Role]) -> bool {
    let roles = Roles::new(roles);
    entries.iter().any(is_code) && entries.iter().any(|entry| roles.untrusted(entry).is_some())
}

/// What is known beside the archive and the roles.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The entries of the post-data section.
    pub post_data: &'a BTreeSet<u32>,
    /// The oids of the partitioned tables at the source.
    pub partitioned: &'a BTreeSet<u32>,
    /// Constraints that may be exclusion constraints: the archive does not say what those call.
    pub exclusions: &'a BTreeSet<u32>,
    /// Whether whoever restores may lend tables of one role to another: a superuser.
    pub may_lend: bool,
}

/// Decides.
pub fn find(entries: &[Entry], roles: &[Role], known: Known<'_>) -> Owned {
    let Known { post_data, partitioned, exclusions, may_lend } = known;
    let search = Search::new(entries, roles);
    let mut owned = Owned::default();
    let is_table = |entry: &&Entry| matches!(entry.kind, Kind::Table | Kind::ForeignTable);
    for entry in entries.iter().filter(is_table) {
        if let Some(role) = search.roles.untrusted(entry).filter(|_| search.calls(entry)) {
            owned.makers.insert(entry.id, role.clone());
        }
    }
    // One without partitions is a tree as well.
    let is_tree = |entry: &&Entry| {
        entry.kind == Kind::Table
            && partitioned.contains(&entry.object.1)
            && owned.makers.contains_key(&entry.id)
    };
    let mut in_trees: HashSet<u32> = entries.iter().filter(is_tree).map(|entry| entry.id).collect();
    for entry in entries.iter().filter(|entry| entry.kind == Kind::Attach) {
        let tables = search.tables_of(entry);
        if entry.text.starts_with("TABLE ATTACH ") && tables.iter().any(|id| owned.makers.contains_key(id)) {
            if let Some(role) = search.owner_of_all(&tables) {
                owned.makers.insert(entry.id, role.clone());
            } else if may_lend && let Some((role, partition)) = search.attached(entry, &tables) {
                owned.makers.insert(entry.id, role.clone());
                owned.lent.insert(entry.id, Lending::Partition(partition));
            }
            in_trees.extend(tables);
        }
    }
    let (cast, torn) = (search.cast_by_others(), search.torn());
    for entry in entries.iter().filter(|entry| post_data.contains(&entry.id)) {
        let is_check = entry.text.starts_with("CHECK CONSTRAINT ") && search.calls(entry);
        // These look at the key of a partitioned table.
        let looks_at_keys = matches!(entry.kind, Kind::ForeignKey | Kind::Trigger | Kind::Attach);
        let tables = if looks_at_keys { search.tables_of(entry) } else { BTreeSet::new() };
        let role = if is_check {
            search.roles.untrusted(entry)
        } else if entry.kind == Kind::Trigger && tables.iter().any(|table| torn.contains(table)) {
            // It is made on every partition, and no owner has the right to that on another one's.
            let trees = search.trees_of(entry, &tables, partitioned);
            let role = (may_lend && tables.iter().any(|table| in_trees.contains(table)) && !trees.is_empty())
                .then(|| search.roles.untrusted(entry))
                .flatten();
            if role.is_some() {
                owned.lent.insert(entry.id, Lending::Trees(trees));
            }
            role
        } else if tables.iter().any(|table| in_trees.contains(table)) {
            search.owner_of_all(&tables).or_else(|| match entry.kind {
                _ if !may_lend => None,
                Kind::ForeignKey => search.roles.untrusted(entry),
                // Who owns the index above needs no right to the one below.
                Kind::Attach => search.owner_of_trees(&tables, partitioned),
                _ => None,
            })
        } else if entry.kind == Kind::ForeignKey && tables.iter().any(|id| search.has_one_of(*id, &cast)) {
            // Where the types of the two sides differ, its check calls an implicit cast.
            search.owner_of_all(&tables).or_else(|| search.roles.untrusted(entry))
        } else {
            None
        };
        if let Some(role) = role {
            owned.makers.insert(entry.id, role.clone());
            let others = search.of_others(&tables, role);
            if may_lend && !others.is_empty() {
                match entry.kind {
                    Kind::ForeignKey => drop(owned.lent.insert(entry.id, Lending::References(others))),
                    Kind::Attach => drop(owned.lent.insert(entry.id, Lending::Index)),
                    _ => {}
                }
            }
        }
    }
    for entry in entries.iter().filter(|entry| may_hold_values(entry)) {
        let is_value = |need: &&u32| search.values.contains(need) && !search.is_table(**need);
        if entry.needs.iter().any(|need| is_value(&need))
            && let Some(role) = search.roles.untrusted(entry)
        {
            owned.makers.insert(entry.id, role.clone());
        }
    }
    owned.late = search.late(post_data, exclusions);
    if !owned.makers.is_empty() {
        owned.needs = entries.iter().map(|entry| (entry.id, entry.needs.clone())).collect();
        let is_grant = |entry: &&Entry| entry.kind == Kind::Acl && !shuts(entry);
        owned.grants = entries.iter().filter(is_grant).map(|entry| entry.id).collect();
    }
    owned
}

/// The owner of an entry, if it is a role of the server that is not trusted.
pub fn untrusted_owner<'a>(entry: &Entry, roles: &'a [Role]) -> Option<&'a Role> {
    Roles::new(roles).untrusted(entry)
}

/// A table that calls what is not of trusted roles.
#[derive(Debug, PartialEq, Eq)]
pub struct TableWithCode {
    /// The table, for messages.
    pub table: String,
    /// Whose it is, if that role is not trusted.
    pub owner: Option<String>,
    /// One of the things that it calls.
    pub calls: String,
}

/// The tables among `entries` that call something themselves, or by their indexes, constraints and statistics.
pub fn tables_with_code(entries: &[Entry], roles: &[Role], exclusions: &BTreeSet<u32>) -> Vec<TableWithCode> {
    let search = Search::new(entries, roles);
    let tables = entries.iter().filter(|entry| entry.kind == Kind::Table);
    let found = tables.filter_map(|table| {
        let owner = search.roles.untrusted(table);
        let calls = |entry: &Entry| {
            let is_called = |need: &&u32| match owner {
                Some(_) => search.code.contains(need) && **need != table.id,
                None => search.foreign.contains(need),
            };
            let needs = entry.needs.iter().find(is_called).and_then(|need| search.by_id.get(need));
            let is_exclusion = owner.is_some() && exclusions.contains(&entry.id);
            needs.map(|need| need.describe()).or_else(|| is_exclusion.then(|| entry.describe()))
        };
        let parts = entries.iter().filter(|entry| {
            matches!(entry.kind, Kind::Index | Kind::Constraint | Kind::Statistics)
                && entry.needs.contains(&table.id)
        });
        let calls = std::iter::once(table).chain(parts).find_map(calls)?;
        Some(TableWithCode { table: table.describe(), owner: owner.map(|role| role.name.clone()), calls })
    });
    found.collect()
}

impl Owned {
    /// What these entries need.
    pub fn needed(&self, ids: &[u32]) -> BTreeSet<u32> {
        ids.iter().filter_map(|id| self.needs.get(id)).flatten().copied().collect()
    }

    /// The entries `order` of a section in batches, each after all that it needs.
    pub fn batches(&self, order: &[u32]) -> Vec<Batch> {
        let (grants, mut left): (Vec<u32>, Vec<u32>) =
            order.iter().copied().partition(|id| self.grants.contains(id));
        let mut batches = Vec::new();
        let mut maker: Option<&Role> = None;
        while !left.is_empty() {
            let mut waiting: HashSet<u32> = left.iter().copied().collect();
            let (mut batch, mut rest) = (Vec::new(), Vec::new());
            for id in left {
                let is_ready = self
                    .needs
                    .get(&id)
                    .is_none_or(|needs| needs.iter().all(|need| !waiting.contains(need) || *need == id));
                if is_ready && self.makers.get(&id) == maker {
                    waiting.remove(&id);
                    batch.push(id);
                } else {
                    rest.push(id);
                }
            }
            left = rest;
            let made_nothing = batch.is_empty();
            match maker {
                _ if made_nothing => {}
                None => batches.push(Batch::Ours(batch)),
                Some(_) => batches.push(Batch::Owner(batch)),
            }
            let open: HashSet<u32> = left.iter().copied().collect();
            let ready = left.iter().find(|id| {
                self.needs
                    .get(*id)
                    .is_none_or(|needs| needs.iter().all(|need| !open.contains(need) || need == *id))
            });
            // In a circle, which pg_dump does not write, the first one is tried by whoever has to make it.
            maker = match (maker, ready.or(left.first())) {
                (Some(_), _) if !made_nothing => None,
                (_, next) => next.and_then(|id| self.makers.get(id)),
            };
            if ready.is_none() && made_nothing && !left.is_empty() {
                let id = left.remove(0);
                let is_owned = self.makers.contains_key(&id);
                batches.push(if is_owned { Batch::Owner(vec![id]) } else { Batch::Ours(vec![id]) });
            }
        }
        if !grants.is_empty() {
            batches.push(Batch::Ours(grants));
        }
        batches
    }
}

/// Whether grants say who may call a function, or use a schema or a server. The words may be part of a name: then a grant comes
/// earlier than it has to, and that is all.
fn shuts(entry: &Entry) -> bool {
    const SHUT: [&str; 5] = [" FUNCTION ", " PROCEDURE ", " AGGREGATE ", " SCHEMA ", " FOREIGN SERVER "];
    SHUT.iter().any(|kind| entry.text.contains(kind))
}

/// Whether an entry is something that can be called, or calls something when a value comes in.
fn is_code(entry: &Entry) -> bool {
    const CALLED: [&str; 4] = ["FUNCTION ", "AGGREGATE ", "OPERATOR ", "DOMAIN "];
    entry.kind == Kind::Other && CALLED.iter().any(|kind| entry.text.starts_with(kind))
}

/// Whether a definition may hold a value as text, which is read when the definition is, and that its owner can make by himself.
fn may_hold_values(entry: &Entry) -> bool {
    match entry.kind {
        Kind::View
        | Kind::MaterializedView
        | Kind::Index
        | Kind::Default
        | Kind::Rule
        | Kind::Policy
        | Kind::Statistics
        | Kind::Trigger => true,
        Kind::Other => entry.text.starts_with("DOMAIN "),
        Kind::Constraint => entry.text.starts_with("CONSTRAINT "),
        _ => false,
    }
}

struct Roles<'a>(HashMap<&'a str, &'a Role>);

impl<'a> Roles<'a> {
    fn new(roles: &'a [Role]) -> Self {
        Self(roles.iter().map(|role| (role.name.as_str(), role)).collect())
    }

    fn owner(&self, entry: &Entry) -> Option<&'a Role> {
        // The longest one comes first.
        let mut ends = entry.text.match_indices(' ').map(|(at, _)| &entry.text[at + 1..]);
        ends.find_map(|end| self.0.get(end)).copied()
    }

    /// The owner of an entry, if it is a role that is not trusted.
    fn untrusted(&self, entry: &Entry) -> Option<&'a Role> {
        self.owner(entry).filter(|role| !role.is_trusted)
    }
}

struct Search<'a> {
    entries: &'a [Entry],
    by_id: HashMap<u32, &'a Entry>,
    roles: Roles<'a>,
    /// What can be called, and types and tables whose values are made of such.
    code: HashSet<u32>,
    /// Domains, and types and tables that are made of them: to read a value calls what they say.
    values: HashSet<u32>,
    /// What of it belongs to a role that is not trusted, or needs such.
    foreign: HashSet<u32>,
}

impl<'a> Search<'a> {
    fn new(entries: &'a [Entry], roles: &'a [Role]) -> Self {
        let mut search = Self {
            entries,
            by_id: entries.iter().map(|entry| (entry.id, entry)).collect(),
            roles: Roles::new(roles),
            code: HashSet::new(),
            values: HashSet::new(),
            foreign: HashSet::new(),
        };
        // What is needed mostly comes before, and not always.
        loop {
            let before = (search.code.len(), search.foreign.len());
            for entry in entries {
                let is_made_of_values = (entry.kind == Kind::Table || entry.text.starts_with("TYPE "))
                    && entry.needs.iter().any(|need| search.values.contains(need));
                if entry.text.starts_with("DOMAIN ") || is_made_of_values {
                    search.values.insert(entry.id);
                }
                let is_made_of_code = (entry.kind == Kind::Table || entry.text.starts_with("TYPE "))
                    && entry.needs.iter().any(|need| search.code.contains(need));
                if is_code(entry) || is_made_of_code {
                    search.code.insert(entry.id);
                    let needs_foreign = entry.needs.iter().any(|need| search.foreign.contains(need));
                    if needs_foreign || search.roles.untrusted(entry).is_some() {
                        search.foreign.insert(entry.id);
                    }
                }
            }
            if (search.code.len(), search.foreign.len()) == before {
                return search;
            }
        }
    }

    fn is_table(&self, id: u32) -> bool {
        self.by_id.get(&id).is_some_and(|entry| entry.kind == Kind::Table)
    }

    fn calls(&self, entry: &Entry) -> bool {
        entry.needs.iter().any(|need| self.code.contains(need))
    }

    /// Types with a cast that calls what is not of trusted roles. The archive does not say which casts are implicit.
    fn cast_by_others(&self) -> HashSet<u32> {
        let is_foreign = |need: &&u32| {
            self.foreign.contains(need)
                || self.by_id.get(need).is_some_and(|entry| self.roles.untrusted(entry).is_some())
        };
        let casts = self.entries.iter().filter(|entry| entry.text.starts_with("CAST "));
        casts
            .filter(|entry| entry.needs.iter().any(|need| is_foreign(&need)))
            .flat_map(|entry| entry.needs.iter().copied())
            .filter(|need| !self.by_id.get(need).is_some_and(|entry| entry.text.starts_with("FUNCTION ")))
            .collect()
    }

    /// Whether a table has columns of one of these types, or of a type that is made of one.
    fn has_one_of(&self, table: u32, types: &HashSet<u32>) -> bool {
        let mut waiting = vec![table];
        let mut seen = HashSet::new();
        while let Some(id) = waiting.pop() {
            let is_type = |need: &&u32| {
                let starts = |word| self.by_id.get(need).is_some_and(|entry| entry.text.starts_with(word));
                starts("TYPE ") || starts("DOMAIN ") || self.is_table(**need)
            };
            let needs = self.by_id.get(&id).map_or(&[][..], |entry| &entry.needs);
            if needs.iter().any(|need| types.contains(need)) {
                return true;
            }
            waiting.extend(needs.iter().filter(is_type).copied().filter(|need| seen.insert(*need)));
        }
        false
    }

    fn tables_of(&self, entry: &Entry) -> BTreeSet<u32> {
        let mut near: BTreeSet<u32> = entry.needs.iter().copied().collect();
        // What is attached names indexes and keys.
        for need in entry.needs.iter().filter_map(|need| self.by_id.get(need)) {
            if need.kind != Kind::Table {
                near.extend(&need.needs);
            }
        }
        near.retain(|id| {
            self.by_id.get(id).is_some_and(|entry| matches!(entry.kind, Kind::Table | Kind::ForeignTable))
        });
        near
    }

    /// Who owns the table that a partition is attached to, and the partition: the entry has its name.
    fn attached(&self, entry: &Entry, tables: &BTreeSet<u32>) -> Option<(&'a Role, u32)> {
        let name = entry.text.strip_prefix("TABLE ATTACH ")?;
        let is_partition = |id: &&u32| {
            let text = self.by_id.get(*id).map(|table| table.text.as_str()).unwrap_or_default();
            let table = text.strip_prefix("TABLE ").or_else(|| text.strip_prefix("FOREIGN TABLE "));
            table == Some(name)
        };
        let partition = *tables.iter().find(is_partition)?;
        let parent = tables.iter().find(|id| **id != partition).and_then(|id| self.by_id.get(id))?;
        Some((self.roles.owner(parent)?, partition))
    }

    /// The partitioned tables among these that belong to whom the entry belongs to: their oids.
    fn trees_of(&self, entry: &Entry, tables: &BTreeSet<u32>, partitioned: &BTreeSet<u32>) -> Vec<u32> {
        let owner = self.roles.owner(entry);
        let trees = tables
            .iter()
            .filter_map(|id| self.by_id.get(id))
            .filter(|table| partitioned.contains(&table.object.1) && self.roles.owner(table) == owner);
        trees.map(|table| table.object.1).collect()
    }

    /// The role that all partitioned tables among these belong to, if it is one, and not trusted.
    fn owner_of_trees(&self, tables: &BTreeSet<u32>, partitioned: &BTreeSet<u32>) -> Option<&'a Role> {
        let is_tree =
            |id: &&u32| self.by_id.get(*id).is_some_and(|table| partitioned.contains(&table.object.1));
        self.owner_of_all(&tables.iter().filter(is_tree).copied().collect())
    }

    /// The tables among these that are not this role's: their oids.
    fn of_others(&self, tables: &BTreeSet<u32>, role: &Role) -> Vec<u32> {
        let others = tables.iter().filter_map(|id| self.by_id.get(id));
        others.filter(|table| self.roles.owner(table) != Some(role)).map(|table| table.object.1).collect()
    }

    /// The role that all these tables belong to, if it is one, and not trusted.
    fn owner_of_all(&self, tables: &BTreeSet<u32>) -> Option<&'a Role> {
        let mut owners =
            tables.iter().map(|id| self.by_id.get(id).and_then(|table| self.roles.untrusted(table)));
        let first = owners.next()??;
        owners.all(|owner| owner == Some(first)).then_some(first)
    }

    /// Tables of partition trees that do not belong to one role that is not trusted.
    fn torn(&self) -> HashSet<u32> {
        let is_attached =
            |entry: &&Entry| entry.kind == Kind::Attach && entry.text.starts_with("TABLE ATTACH ");
        let attached: Vec<BTreeSet<u32>> =
            self.entries.iter().filter(is_attached).map(|entry| self.tables_of(entry)).collect();
        let is_torn = |tables: &&BTreeSet<u32>| self.owner_of_all(tables).is_none();
        let mut torn: HashSet<u32> = attached.iter().filter(is_torn).flatten().copied().collect();
        loop {
            let before = torn.len();
            for tables in &attached {
                if tables.iter().any(|table| torn.contains(table)) {
                    torn.extend(tables);
                }
            }
            if torn.len() == before {
                return torn;
            }
        }
    }

    /// Indexes, keys and statistics that hold code of somebody else, and what needs them.
    fn late(&self, post_data: &BTreeSet<u32>, exclusions: &BTreeSet<u32>) -> BTreeSet<u32> {
        let of_keys: HashSet<u32> = self
            .entries
            .iter()
            .filter(|entry| entry.kind == Kind::ForeignKey)
            .flat_map(|entry| entry.needs.iter().copied())
            .collect();
        let holds = |entry: &Entry| match entry.kind {
            Kind::Constraint if exclusions.contains(&entry.id) => true,
            Kind::Constraint if entry.text.starts_with("CHECK ") => false,
            Kind::Index | Kind::Constraint | Kind::Statistics => {
                let mut needs = entry.needs.iter().filter(|need| !self.is_table(**need));
                needs.any(|need| match self.roles.untrusted(entry) {
                    Some(_) => self.code.contains(need),
                    None => self.foreign.contains(need),
                })
            }
            _ => false,
        };
        let mut late: BTreeSet<u32> = BTreeSet::new();
        for entry in self.entries.iter().filter(|entry| post_data.contains(&entry.id)) {
            let needs_late = entry.needs.iter().any(|need| late.contains(need));
            if (holds(entry) || needs_late) && !of_keys.contains(&entry.id) {
                late.insert(entry.id);
            }
        }
        late
    }
}

#[cfg(test)]
mod tests {
    use common::snapshot::toc;

    use super::*;

    const LISTED: &str = "\
1; 2615 11 SCHEMA - app low
2; 1255 12 FUNCTION app f() low
;	depends on: 1
3; 1247 13 TYPE app mood low
;	depends on: 1
4; 1259 14 TABLE app plain low
;	depends on: 1 3
5; 1259 15 TABLE app t low
;	depends on: 1 2
6; 1255 16 FUNCTION app of_t() low
;	depends on: 5
7; 1259 17 TABLE app u low
;	depends on: 6
8; 1259 18 TABLE app ours postgres
;	depends on: 1 2
9; 1259 19 TABLE app p low
;	depends on: 2
10; 1259 20 TABLE app p1 low
;	depends on: 1
11; 0 0 TABLE ATTACH app p1 low
;	depends on: 9 10
12; 0 0 ACL app TABLE t low
;	depends on: 5
20; 2606 31 CONSTRAINT app plain plain_pkey low
;	depends on: 4
21; 2606 32 CONSTRAINT app plain plain_excl low
;	depends on: 4
22; 1259 33 INDEX app by_f low
;	depends on: 4 2
23; 1259 34 INDEX app by_id low
;	depends on: 5
24; 3381 35 STATISTICS app s low
;	depends on: 4 2
25; 2606 36 FK CONSTRAINT app t t_plain_fk low
;	depends on: 5 4 20
26; 2606 37 FK CONSTRAINT app p p_plain_fk low
;	depends on: 9 4 20
27; 2606 38 CHECK CONSTRAINT app plain checked low
;	depends on: 4 2
28; 2620 39 TRIGGER app t fires low
;	depends on: 5 2
29; 2620 40 TRIGGER app p fires low
;	depends on: 9 2
30; 1247 41 DOMAIN app word low
;	depends on: 1
31; 1247 42 TYPE app pair low
;	depends on: 30
32; 1259 43 VIEW app v low
;	depends on: 31 4
33; 1259 44 INDEX app by_pair low
;	depends on: 31 4
34; 1259 45 VIEW app plain_v low
;	depends on: 5
35; 1247 46 DOMAIN app words low
;	depends on: 31
36; 1259 50 TABLE app empty_tree low
;	depends on: 2
37; 2620 51 TRIGGER app empty_tree fires low
;	depends on: 36 6
38; 1259 52 FOREIGN TABLE app far low
;	depends on: 2
39; 0 0 ACL app FUNCTION f() low
;	depends on: 2
";

    fn role(name: &str, is_trusted: bool) -> Role {
        Role { oid: 10, name: name.to_owned(), is_trusted }
    }

    fn found(roles: &[Role]) -> Owned {
        find_in(LISTED, roles, &(20..30).chain([33, 37]).collect(), &BTreeSet::from([50]), true)
    }

    fn find_in(
        listed: &str,
        roles: &[Role],
        post_data: &BTreeSet<u32>,
        partitioned: &BTreeSet<u32>,
        may_lend: bool,
    ) -> Owned {
        let known = Known { post_data, partitioned, exclusions: &BTreeSet::from([21]), may_lend };
        find(&toc::parse(listed), roles, known)
    }

    #[test]
    fn the_owner_of_a_tree_is_lent_what_others_own_in_it_and_without_the_right_to_lend_nobody_is() {
        let listed = "\
1; 1255 12 FUNCTION app f() low
2; 1259 13 TABLE app p low
;	depends on: 1
3; 1259 14 TABLE app p1 other
4; 0 0 TABLE ATTACH app p1 other
;	depends on: 2 3
5; 1259 15 TABLE app o other
6; 1259 16 TABLE app ours postgres
7; 1259 17 TABLE app checked other
;	depends on: 1
8; 0 0 TABLE ATTACH app checked other
;	depends on: 6 7
20; 2620 20 TRIGGER app p fires low
;	depends on: 2 1
21; 2606 21 FK CONSTRAINT app p p_fk low
;	depends on: 2 5
22; 2606 22 FK CONSTRAINT app o o_fk other
;	depends on: 2 5
23; 2620 23 TRIGGER app p1 own other
;	depends on: 3 1
";
        let roles = [role("low", false), role("other", false), role("postgres", true)];
        let makers = |may_lend| {
            let owned = find_in(listed, &roles, &(20..24).collect(), &BTreeSet::from([13, 16]), may_lend);
            let names = owned.makers.iter().map(|(id, role)| format!("{id} {}", role.name));
            (names.collect::<Vec<_>>(), owned.lent)
        };
        let (names, lent) = makers(true);
        assert_eq!(names, ["2 low", "4 low", "7 other", "8 postgres", "20 low", "21 low", "22 other"]);
        let expected = [
            (4, Lending::Partition(3)),
            (8, Lending::Partition(7)),
            (20, Lending::Trees(vec![13])),
            (21, Lending::References(vec![15])),
            (22, Lending::References(vec![13])),
        ];
        assert_eq!(lent, BTreeMap::from(expected));
        let (names, lent) = makers(false);
        assert_eq!((names, lent), (vec!["2 low".to_owned(), "7 other".to_owned()], BTreeMap::new()));
    }

    #[test]
    fn owners_make_what_calls_code_and_nothing_of_trusted_roles_is_made_otherwise() {
        let owned = found(&[role("low", false), role("postgres", true)]);
        assert_eq!(
            owned.makers.keys().copied().collect::<Vec<_>>(),
            [5, 7, 9, 11, 26, 27, 29, 32, 33, 35, 36, 37, 38]
        );
        assert_eq!(owned.late.iter().copied().collect::<Vec<_>>(), [21, 22, 24, 33]);
        let trusted = found(&[role("low", true), role("postgres", true)]);
        assert!(trusted.makers.is_empty(), "{trusted:?}");
        assert!(!may_matter(&toc::parse(LISTED), &[role("low", true)]));
        assert!(may_matter(&toc::parse(LISTED), &[role("low", false)]));
    }

    #[test]
    fn a_batch_comes_after_all_that_it_needs_and_after_what_shuts_functions_and_other_grants_come_last() {
        let owned = found(&[role("low", false), role("postgres", true)]);
        let order: Vec<u32> = (1..=12).chain([39]).collect();
        assert_eq!(
            owned.batches(&order),
            [
                Batch::Ours(vec![1, 2, 3, 4, 8, 10, 39]),
                Batch::Owner(vec![5, 9, 11]),
                Batch::Ours(vec![6]),
                Batch::Owner(vec![7]),
                Batch::Ours(vec![12]),
            ]
        );
        assert_eq!(Owned::default().batches(&order), [Batch::Ours(order.clone())]);
    }

    #[test]
    fn a_table_calls_what_it_or_its_indexes_need() {
        let found = |roles: &[Role]| -> Vec<String> {
            let found = tables_with_code(&toc::parse(LISTED), roles, &BTreeSet::from([21]));
            found
                .into_iter()
                .map(|found| format!("{} {:?} {}", found.table, found.owner, found.calls))
                .collect()
        };
        assert_eq!(
            found(&[role("low", false), role("postgres", true)]),
            [
                "table app.plain Some(\"low\") constraint app.plain plain_excl",
                "table app.t Some(\"low\") function app.f()",
                "table app.u Some(\"low\") function app.of_t()",
                "table app.ours None function app.f()",
                "table app.p Some(\"low\") function app.f()",
                "table app.empty_tree Some(\"low\") function app.f()",
            ]
        );
        assert!(found(&[role("low", true)]).is_empty());
    }

    #[test]
    fn the_owner_of_an_entry_is_the_longest_name_that_fits() {
        let roles = [role("low", true), role("not low", false)];
        let entry = &toc::parse("1; 1259 14 TABLE app t not low\n")[0];
        assert_eq!(Roles::new(&roles).untrusted(entry).map(|role| role.name.as_str()), Some("not low"));
    }
}
