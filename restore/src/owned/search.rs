//! What of an archive can be called, who owns it, and which tables belong together.

use std::collections::{BTreeSet, HashMap, HashSet};

use common::{
    postgres::trust::Role,
    snapshot::toc::{Entry, Kind},
};

pub(super) struct Roles<'a>(HashMap<&'a str, &'a Role>);

impl<'a> Roles<'a> {
    pub(super) fn new(roles: &'a [Role]) -> Self {
        Self(roles.iter().map(|role| (role.name.as_str(), role)).collect())
    }

    pub(super) fn owner(&self, entry: &Entry) -> Option<&'a Role> {
        // The longest one comes first.
        let mut ends = entry.text.match_indices(' ').map(|(at, _)| &entry.text[at + 1..]);
        ends.find_map(|end| self.0.get(end)).copied()
    }

    /// The owner of an entry, if it is a role that is not trusted.
    pub(super) fn untrusted(&self, entry: &Entry) -> Option<&'a Role> {
        self.owner(entry).filter(|role| !role.is_trusted)
    }
}

pub(super) struct Search<'a> {
    pub(super) entries: &'a [Entry],
    pub(super) by_id: HashMap<u32, &'a Entry>,
    pub(super) roles: Roles<'a>,
    /// What can be called, and types and tables whose values are made of such.
    pub(super) code: HashSet<u32>,
    /// Domains, and types and tables that are made of them: to read a value calls what they say.
    pub(super) values: HashSet<u32>,
    /// What of it belongs to a role that is not trusted, or needs such.
    pub(super) foreign: HashSet<u32>,
}

impl<'a> Search<'a> {
    pub(super) fn new(entries: &'a [Entry], roles: &'a [Role]) -> Self {
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

    pub(super) fn is_table(&self, id: u32) -> bool {
        self.by_id.get(&id).is_some_and(|entry| entry.kind == Kind::Table)
    }

    pub(super) fn calls(&self, entry: &Entry) -> bool {
        entry.needs.iter().any(|need| self.code.contains(need))
    }

    /// Types with a cast that calls what is not of trusted roles. The archive does not say which casts are implicit.
    pub(super) fn cast_by_others(&self) -> HashSet<u32> {
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
    pub(super) fn has_one_of(&self, table: u32, types: &HashSet<u32>) -> bool {
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

    pub(super) fn tables_of(&self, entry: &Entry) -> BTreeSet<u32> {
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
    pub(super) fn attached(&self, entry: &Entry, tables: &BTreeSet<u32>) -> Option<(&'a Role, u32)> {
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
    pub(super) fn trees_of(
        &self,
        entry: &Entry,
        tables: &BTreeSet<u32>,
        partitioned: &BTreeSet<u32>,
    ) -> Vec<u32> {
        let owner = self.roles.owner(entry);
        let trees = tables
            .iter()
            .filter_map(|id| self.by_id.get(id))
            .filter(|table| partitioned.contains(&table.object.1) && self.roles.owner(table) == owner);
        trees.map(|table| table.object.1).collect()
    }

    /// The role that all partitioned tables among these belong to, if it is one, and not trusted.
    pub(super) fn owner_of_trees(
        &self,
        tables: &BTreeSet<u32>,
        partitioned: &BTreeSet<u32>,
    ) -> Option<&'a Role> {
        let is_tree =
            |id: &&u32| self.by_id.get(*id).is_some_and(|table| partitioned.contains(&table.object.1));
        self.owner_of_all(&tables.iter().filter(is_tree).copied().collect())
    }

    /// The tables among these that are not this role's: their oids.
    pub(super) fn of_others(&self, tables: &BTreeSet<u32>, role: &Role) -> Vec<u32> {
        let others = tables.iter().filter_map(|id| self.by_id.get(id));
        others.filter(|table| self.roles.owner(table) != Some(role)).map(|table| table.object.1).collect()
    }

    /// The role that all these tables belong to, if it is one, and not trusted.
    pub(super) fn owner_of_all(&self, tables: &BTreeSet<u32>) -> Option<&'a Role> {
        let mut owners =
            tables.iter().map(|id| self.by_id.get(id).and_then(|table| self.roles.untrusted(table)));
        let first = owners.next()??;
        owners.all(|owner| owner == Some(first)).then_some(first)
    }

    /// Tables of partition trees that do not belong to one role that is not trusted.
    pub(super) fn torn(&self) -> HashSet<u32> {
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
    pub(super) fn late(&self, post_data: &BTreeSet<u32>, exclusions: &BTreeSet<u32>) -> BTreeSet<u32> {
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

/// Whether an entry is something that can be called, or calls something when a value comes in.
pub(super) fn is_code(entry: &Entry) -> bool {
    const CALLED: [&str; 4] = ["FUNCTION ", "AGGREGATE ", "OPERATOR ", "DOMAIN "];
    entry.kind == Kind::Other && CALLED.iter().any(|kind| entry.text.starts_with(kind))
}

/// Whether a definition may hold a value as text, which is read when the definition is, and that its owner can make by himself.
pub(super) fn may_hold_values(entry: &Entry) -> bool {
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
