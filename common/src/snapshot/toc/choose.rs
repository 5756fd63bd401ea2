//! Which entries a part of the database needs, and which can not come. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{Entry, Kind, ObjectId, PG_CLASS, namespace};

/// What comes beside the relations that were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Others {
    /// Everything that does not need what is left out.
    All,
    /// What the relations need, and everything in these schemas.
    Schemas(BTreeSet<String>),
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Oids of the tables, views and so on that shall come, and of sequences that come for their own sake.
    pub relations: HashSet<u32>,
    /// What else.
    pub others: Others,
    /// Whether a schema of `others` brings its views and foreign tables too, whose oids are not in `relations`.
    pub by_schema: bool,
    /// Objects that must not come, nor what needs them.
    pub refused: HashSet<ObjectId>,
    /// Kinds that are left out, although they belong to what comes.
    pub without: BTreeSet<Kind>,
    /// The names of all schemas, to tell in which one an entry is.
    pub schemas: BTreeSet<String>,
    /// Schemas of which only what is needed comes.
    pub excluded_schemas: BTreeSet<String>,
}

impl Wish {
    /// Whether a relation is asked for: by its oid, or, without rows of its own, by its schema.
    fn wants(&self, entry: &Entry) -> bool {
        if self.relations.contains(&entry.object.1) {
            return true;
        }
        let Others::Schemas(schemas) = &self.others else { return false };
        self.by_schema
            && matches!(entry.kind, Kind::View | Kind::MaterializedView | Kind::ForeignTable)
            && namespace(&entry.text, &self.schemas).is_some_and(|name| schemas.contains(name))
    }
}

/// The entries that come, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// Numbers of the entries, which stay in the archive's order.
    pub entries: BTreeSet<u32>,
    /// Objects that came along: what it is, and what needs it.
    pub along: Vec<(String, String)>,
    /// What was left out, and because of what.
    pub left_out: Vec<(String, String)>,
    /// Tables that were asked for and can't come: the table, and what it needs.
    pub impossible: Vec<(String, String)>,
}

/// In place of a culprit that the archive does not have.
const LEFT_OUT: &str = "what is left out";

/// Decides.
pub fn choose(entries: &[Entry], wish: &Wish) -> Choice {
    let by_id: HashMap<u32, &Entry> = entries.iter().map(|entry| (entry.id, entry)).collect();
    let graph = Graph::new(entries, &by_id);
    let excluded = graph.excluded(wish);
    let mut choice = Choice::default();
    let mut included = BTreeSet::new();
    let mut because: BTreeMap<u32, u32> = BTreeMap::new();
    let mut waiting: Vec<u32> = Vec::new();
    for entry in entries {
        let asked = entry.object.0 == PG_CLASS && wish.wants(entry);
        let wanted = match &wish.others {
            Others::All => {
                (entry.kind != Kind::Global || entry.object.0 != 0)
                    && !namespace(&entry.text, &wish.schemas)
                        .is_some_and(|name| wish.excluded_schemas.contains(name))
            }
            Others::Schemas(schemas) => {
                asked
                    || (!entry.kind.is_relation()
                        && !entry.kind.is_attached()
                        && namespace(&entry.text, &wish.schemas).is_some_and(|name| schemas.contains(name)))
            }
        };
        match excluded.get(&entry.id) {
            Some(culprit) if entry.kind == Kind::Table && asked => {
                let culprit =
                    if *culprit == entry.id { LEFT_OUT.to_owned() } else { graph.describe(*culprit) };
                choice.impossible.push((entry.describe(), culprit));
            }
            None if wanted => waiting.push(entry.id),
            _ => {}
        }
    }
    loop {
        while let Some(id) = waiting.pop() {
            let Some(entry) = by_id.get(&id) else { continue };
            if wish.without.contains(&entry.kind) || !included.insert(id) {
                continue;
            }
            for need in
                graph.needs(entry).filter(|need| !included.contains(need) && !excluded.contains_key(need))
            {
                because.entry(need).or_insert(id);
                waiting.push(need);
            }
        }
        for entry in entries.iter().filter(|entry| !included.contains(&entry.id)) {
            if !excluded.contains_key(&entry.id) && graph.comes_along(entry, &included) {
                waiting.push(entry.id);
            }
        }
        waiting.retain(|id| by_id.get(id).is_some_and(|entry| !wish.without.contains(&entry.kind)));
        if waiting.is_empty() {
            break;
        }
    }
    for (id, reason) in &because {
        let Some(entry) = by_id.get(id) else { continue };
        let speaks = matches!(entry.kind, Kind::Other | Kind::Extension | Kind::Sequence);
        if speaks && included.contains(id) {
            choice.along.push((entry.describe(), graph.describe(*reason)));
        }
    }
    for entry in entries.iter().filter(|entry| !included.contains(&entry.id) && !entry.kind.is_remark()) {
        let belongs = entry.kind.is_attached()
            && entry.needs.iter().any(|need| {
                included.contains(need)
                    && by_id.get(need).is_some_and(|need| need.kind.is_relation() && need.is_table_of(entry))
            });
        let missing = match excluded.get(&entry.id) {
            Some(culprit) if *culprit != entry.id => graph.describe(*culprit),
            Some(_)
                if wish.refused.contains(&entry.object)
                    && (!(entry.kind.is_relation() || entry.kind == Kind::Sequence)
                        || wish.relations.contains(&entry.object.1)) =>
            {
                LEFT_OUT.to_owned()
            }
            Some(_) => continue,
            None if wish.without.contains(&entry.kind) => String::new(),
            None => continue,
        };
        let all = wish.others == Others::All;
        let is_asked = wish.relations.contains(&entry.object.1) && entry.object.0 == PG_CLASS;
        let is_table = is_asked && entry.kind == Kind::Table;
        // What belongs to a table that does not come goes without saying.
        let alone = !entry.kind.is_attached();
        if !is_table && (belongs || is_asked || (all && alone)) {
            choice.left_out.push((entry.describe(), missing));
        }
    }
    choice.entries = included;
    choice
}

/// Who needs whom, without what a partition can do without.
struct Graph<'a> {
    entries: &'a [Entry],
    by_id: &'a HashMap<u32, &'a Entry>,
    /// Partition and its parent, by entry.
    partitions: HashSet<(u32, u32)>,
}

impl<'a> Graph<'a> {
    fn new(entries: &'a [Entry], by_id: &'a HashMap<u32, &'a Entry>) -> Self {
        let is_table = |id: &u32| by_id.get(id).is_some_and(|entry| entry.kind.is_relation());
        let partitions = entries
            .iter()
            .filter(|entry| entry.kind == Kind::Attach && entry.text.starts_with("TABLE ATTACH "))
            .filter_map(|entry| {
                let tables: Vec<u32> = entry.needs.iter().copied().filter(is_table).collect();
                let (first, second) = (*tables.first()?, *tables.get(1)?);
                // The partition needs its parent, never the other way round.
                let child_first = by_id.get(&first).is_some_and(|child| child.needs.contains(&second));
                Some(if child_first { (first, second) } else { (second, first) })
            })
            .collect();
        Self { entries, by_id, partitions }
    }

    fn describe(&self, id: u32) -> String {
        self.by_id.get(&id).map_or_else(|| "what is not in the archive".to_owned(), |entry| entry.describe())
    }

    /// The table that an entry is or belongs to.
    fn table(&self, id: u32) -> Option<u32> {
        let entry = self.by_id.get(&id)?;
        if entry.kind == Kind::Table {
            return Some(id);
        }
        let tables = || {
            entry
                .needs
                .iter()
                .copied()
                .filter(|need| self.by_id.get(need).is_some_and(|need| need.kind == Kind::Table))
        };
        // An index of a partition may name its table and the parent's.
        tables().find(|table| !tables().any(|other| self.partitions.contains(&(other, *table))))
    }

    /// What an entry can't do without. A partition stands alone as well, and so do its indexes and triggers.
    fn needs(&self, entry: &'a Entry) -> impl Iterator<Item = u32> {
        entry.needs.iter().copied().filter(move |need| {
            if entry.kind == Kind::Attach || !self.by_id.contains_key(need) {
                return entry.kind == Kind::Attach;
            }
            match (self.table(entry.id), self.table(*need)) {
                (Some(child), Some(parent)) => !self.partitions.contains(&(child, parent)),
                _ => true,
            }
        })
    }

    /// Every entry that can't come, with the entry that is to blame: itself, if it was not asked for.
    fn excluded(&self, wish: &Wish) -> HashMap<u32, u32> {
        let mut excluded: HashMap<u32, u32> = self
            .entries
            .iter()
            .filter(|entry| {
                (entry.kind.is_relation() && !wish.wants(entry))
                    || (entry.object.1 != 0 && wish.refused.contains(&entry.object))
            })
            .map(|entry| (entry.id, entry.id))
            .collect();
        loop {
            let more: Vec<(u32, u32)> = self
                .entries
                .iter()
                .filter(|entry| !excluded.contains_key(&entry.id))
                .filter_map(|entry| {
                    let alone = entry.kind == Kind::Attach && self.attached(entry) < 2;
                    if alone {
                        return Some((entry.id, entry.id));
                    }
                    let culprit = self.needs(entry).find_map(|need| excluded.get(&need).copied())?;
                    Some((entry.id, culprit))
                })
                .collect();
            if more.is_empty() {
                return excluded;
            }
            excluded.extend(more);
        }
    }

    /// How many tables, or how many indexes, an attachment ties together: one alone has nothing to be attached to.
    fn attached(&self, entry: &Entry) -> usize {
        let is_table = entry.text.starts_with("TABLE ATTACH ");
        let ends: HashSet<u32> = entry
            .needs
            .iter()
            .copied()
            .filter(|need| {
                self.by_id.get(need).is_some_and(|need| {
                    if is_table {
                        need.kind.is_relation()
                    } else {
                        matches!(need.kind, Kind::Index | Kind::Constraint)
                    }
                })
            })
            .collect();
        ends.len()
    }

    /// Whether an entry belongs to what is included.
    fn comes_along(&self, entry: &Entry, included: &BTreeSet<u32>) -> bool {
        let needs = || entry.needs.iter().filter(|need| self.by_id.contains_key(need));
        let relation = |need: &&u32| self.by_id.get(need).is_some_and(|need| need.kind.is_relation());
        if entry.kind.is_remark() {
            return needs().next().is_some() && needs().all(|need| included.contains(need));
        }
        if entry.kind == Kind::Sequence {
            // Its own column's: it depends on the table.
            return needs().filter(relation).any(|need| included.contains(need));
        }
        let owned =
            needs().filter(relation).all(|need| included.contains(need) || self.is_parent_of(entry, *need));
        entry.kind.is_attached()
            && owned
            && needs().any(|need| included.contains(need))
            && needs().any(|need| {
                included.contains(need)
                    && self
                        .by_id
                        .get(need)
                        .is_some_and(|need| need.kind.is_relation() || need.kind == Kind::Other)
            })
            && (needs().any(|need| relation(&need)) || !matches!(entry.kind, Kind::Trigger | Kind::Rule))
    }

    fn is_parent_of(&self, entry: &Entry, parent: u32) -> bool {
        self.table(entry.id).is_some_and(|child| self.partitions.contains(&(child, parent)))
    }
}
