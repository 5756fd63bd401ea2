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
mod search;

use crate::owned::search::{Roles, Search, is_code, may_hold_values};
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

#[cfg(test)]
mod tests;
