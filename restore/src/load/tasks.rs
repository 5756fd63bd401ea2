//! What is done with each table, and what has to wait for what. Pure.
//!
//! Every table is loaded and read back here. For large tables, and for those that their foreign keys point to, the
//! indexes and keys of the archive become tasks of their own as well, so that they begin when their table is loaded.
//! Everything else of the archive is left to one run of pg_restore afterwards, which also does again what failed here:
//! so a task is taken out of the archive only if nothing but tables and tasks stands before it, and no other entry has to
//! come first.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use common::{
    QualifiedName,
    snapshot::{
        copy_sql::{BlockRange, CHUNK_BLOCKS, page_ranges},
        manifest::TableData,
        toc::{Entry, Kind},
    },
};

use super::{
    schedule::{Lock, Shape},
    script::Method,
};

/// Bytes of COPY text from which a table's indexes are worth a pg_restore of their own, which takes some 20 ms.
pub const LARGE_BYTES: u64 = 2 * 1024 * 1024;

/// ANALYZE reads a sample: it takes no longer for larger tables.
const ANALYZE_BYTES: u64 = 30 * 1024 * 1024;

/// One thing that a worker does. Tables are numbers in the manifest's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Load a chunk.
    Load {
        /// The table.
        table: usize,
        /// Its chunk.
        chunk: usize,
    },
    /// Load a whole table in one transaction, with its rows frozen: no later visitor has to look up or note who wrote them,
    /// and foreign keys can be checked by the indexes alone.
    LoadFrozen {
        /// The table.
        table: usize,
    },
    /// Load a whole table through its owner, whose code its rules call.
    LoadContained {
        /// The table.
        table: usize,
    },
    /// Read rows back.
    ReadBack {
        /// The table.
        table: usize,
        /// Which of its pages.
        range: BlockRange,
    },
    /// Restore an entry of the archive: an index or a key.
    Build {
        /// Its number.
        entry: u32,
        /// The table that it is of.
        table: usize,
    },
    /// Restore a foreign key, which PostgreSQL then checks.
    ForeignKey {
        /// Its number.
        entry: u32,
        /// The table that it is of, and the one that it points to, which may be the same.
        ends: Vec<usize>,
    },
    /// ANALYZE.
    Analyze {
        /// The table.
        table: usize,
    },
}

/// A step, and when it may run.
#[derive(Debug, Clone)]
pub struct Task {
    /// What is done.
    pub step: Step,
    /// When.
    pub shape: Shape,
}

/// What the archive and the server say.
#[derive(Debug, Default)]
pub struct Facts {
    /// The archive's entries; none if all of them are left to pg_restore.
    pub entries: Vec<Entry>,
    /// Numbers of those in the post-data section.
    pub post_data: BTreeSet<u32>,
    /// Tables that inherit or are inherited from, partitions among them; and whether others inherit from them.
    pub in_trees: HashMap<QualifiedName, bool>,
    /// How indexes and keys are built, where that is known: by their entries.
    pub methods: HashMap<u32, Method>,
    /// Tables whose rules call somebody else's code.
    pub contained: HashSet<QualifiedName>,
    /// Tables whose rules read tables, in the order in which they are loaded: after all others and one after the other, so that
    /// every restore asks those rules about the same rows.
    pub in_order: Vec<QualifiedName>,
    /// Entries that come after the foreign keys.
    pub late: BTreeSet<u32>,
    /// From how many bytes a table is large.
    pub large_bytes: u64,
    /// Connections.
    pub jobs: usize,
    /// Whether rows are read back at once.
    pub reads_back: bool,
}

/// Decides.
pub fn tasks(data: &[TableData], facts: &Facts) -> Vec<Task> {
    let mut plan = Plan::new(data, facts);
    plan.load();
    if facts.reads_back {
        plan.read_back();
    }
    plan.build();
    plan.analyze();
    plan.foreign_keys();
    plan.tasks
}

/// Tables with an index, a key or statistics in the archive that need more than tables: what their expressions use. A query on
/// such a table could run it as soon as it is there.
pub fn that_get_code(data: &[TableData], facts: &Facts) -> BTreeSet<usize> {
    let plan = Plan::new(data, facts);
    let is_known = |need: &u32| plan.tables.contains_key(need) || facts.post_data.contains(need);
    facts
        .entries
        .iter()
        .filter(|entry| plan.is_post_data(entry))
        .filter(|entry| matches!(entry.kind, Kind::Index | Kind::Constraint | Kind::Statistics))
        .filter(|entry| !entry.needs.iter().all(is_known))
        .flat_map(|entry| plan.tables_of(entry))
        .collect()
}

struct Plan<'a> {
    data: &'a [TableData],
    facts: &'a Facts,
    /// The bytes of each table's COPY text.
    bytes: Vec<u64>,
    /// For each table, the first one of those that are loaded through the same root: their rows may lie anywhere among them.
    group: Vec<usize>,
    /// The loading of each group.
    loads: HashMap<usize, Vec<usize>>,
    /// The last key of each table.
    last_key: HashMap<usize, usize>,
    /// Which task restores an entry.
    built: HashMap<u32, usize>,
    /// The analyzing of each table.
    analyzed: HashMap<usize, usize>,
    /// Tables by the numbers of their entries.
    tables: HashMap<u32, usize>,
    tasks: Vec<Task>,
}

impl<'a> Plan<'a> {
    fn new(data: &'a [TableData], facts: &'a Facts) -> Self {
        let mut roots: BTreeMap<&QualifiedName, usize> = BTreeMap::new();
        let group = data
            .iter()
            .enumerate()
            .map(|(number, data)| {
                data.table.load_into.as_ref().map_or(number, |root| *roots.entry(root).or_insert(number))
            })
            .collect();
        let by_oid: HashMap<u32, usize> =
            data.iter().enumerate().map(|(number, data)| (data.table.oid, number)).collect();
        let tables = facts
            .entries
            .iter()
            .filter(|entry| entry.kind == Kind::Table)
            .filter_map(|entry| Some((entry.id, *by_oid.get(&entry.object.1)?)))
            .collect();
        Self {
            data,
            facts,
            bytes: data.iter().map(raw_bytes).collect(),
            group,
            loads: HashMap::new(),
            last_key: HashMap::new(),
            built: HashMap::new(),
            analyzed: HashMap::new(),
            tables,
            tasks: Vec::new(),
        }
    }

    fn add(&mut self, step: Step, needs: Vec<usize>, locks: Vec<(usize, Lock)>, cost: u64) -> usize {
        self.tasks.push(Task { step, shape: Shape { needs, locks, cost } });
        self.tasks.len() - 1
    }

    /// Largest first: what comes last is short.
    fn load(&mut self) {
        let total: u64 = self.bytes.iter().sum();
        let share = total / self.facts.jobs.max(1) as u64;
        let in_order = self.in_order();
        let is_in_order: HashSet<usize> = in_order.iter().copied().collect();
        for (table, data) in self.data.iter().enumerate().filter(|(table, _)| !is_in_order.contains(table)) {
            let bytes = self.bytes[table];
            let is_plain = data.table.is_heap && data.table.load_into.is_none();
            let frozen = is_plain
                && bytes >= self.facts.large_bytes
                // Only one connection can. A table that is most of all rows is loaded faster by several.
                && (data.chunks.len() == 1 || bytes <= share);
            let mut loads = Vec::new();
            if self.facts.contained.contains(&data.table.name) {
                if data.rows() > 0 {
                    loads.push(self.add(Step::LoadContained { table }, Vec::new(), Vec::new(), bytes));
                }
            } else if frozen {
                loads.push(self.add(Step::LoadFrozen { table }, Vec::new(), Vec::new(), bytes));
            } else {
                for (chunk, content) in data.chunks.iter().enumerate() {
                    if content.content.rows > 0 {
                        let cost = content.content.raw_bytes;
                        loads.push(self.add(Step::Load { table, chunk }, Vec::new(), Vec::new(), cost));
                    }
                }
            }
            self.loads.entry(self.group[table]).or_default().extend(loads);
        }
        self.load_in_order(&in_order);
    }

    /// The tables of `in_order` that are here, with all that are loaded through the same root.
    fn in_order(&self) -> Vec<usize> {
        let names: HashMap<&QualifiedName, usize> =
            self.data.iter().enumerate().map(|(number, data)| (&data.table.name, number)).collect();
        let mut seen = HashSet::new();
        let named = self.facts.in_order.iter().filter_map(|name| names.get(name));
        let groups = named.map(|table| self.group[*table]).filter(|group| seen.insert(*group));
        groups
            .flat_map(|group| (0..self.data.len()).filter(move |table| self.group[*table] == group))
            .collect()
    }

    /// Each chunk after the one before, the first of them after everything else.
    fn load_in_order(&mut self, tables: &[usize]) {
        let mut needs: Vec<usize> = (0..self.tasks.len()).collect();
        for &table in tables {
            let data = &self.data[table];
            let steps: Vec<(Step, u64)> = if self.facts.contained.contains(&data.table.name) {
                let has_rows = data.rows() > 0;
                has_rows.then_some((Step::LoadContained { table }, self.bytes[table])).into_iter().collect()
            } else {
                let chunks = data.chunks.iter().enumerate().filter(|(_, chunk)| chunk.content.rows > 0);
                chunks.map(|(chunk, it)| (Step::Load { table, chunk }, it.content.raw_bytes)).collect()
            };
            for (step, cost) in steps {
                let task = self.add(step, std::mem::take(&mut needs), Vec::new(), cost);
                needs.push(task);
                self.loads.entry(self.group[table]).or_default().push(task);
            }
        }
    }

    /// Whether an entry may use what reads tables: it comes when all of them are there.
    fn may_read_tables(&self, entry: &Entry, table: usize) -> bool {
        let is_known = |need: &u32| self.tables.contains_key(need) || self.facts.post_data.contains(need);
        self.facts.in_order.contains(&self.data[table].table.name) && !entry.needs.iter().all(is_known)
    }

    fn loads_of(&self, table: usize) -> Vec<usize> {
        self.loads.get(&self.group[table]).cloned().unwrap_or_default()
    }

    fn read_back(&mut self) {
        for (table, data) in self.data.iter().enumerate() {
            let ranges = page_ranges(&data.table, data.table.blocks, CHUNK_BLOCKS);
            let cost = self.bytes[table] / 2 / ranges.len().max(1) as u64;
            for range in ranges {
                let needs = self.loads_of(table);
                self.add(Step::ReadBack { table, range }, needs, vec![(table, Lock::Read)], cost);
            }
        }
    }

    /// The tables of the snapshot that an entry names.
    fn tables_of(&self, entry: &Entry) -> BTreeSet<usize> {
        entry.needs.iter().filter_map(|need| self.tables.get(need).copied()).collect()
    }

    fn is_post_data(&self, entry: &Entry) -> bool {
        self.facts.post_data.contains(&entry.id)
    }

    fn is_large(&self, table: usize) -> bool {
        self.bytes[table] >= self.facts.large_bytes
    }

    /// Large tables, and those that are at the other end of their foreign keys.
    fn wanted(&self) -> BTreeSet<usize> {
        let keys = self.facts.entries.iter().filter(|entry| entry.kind == Kind::ForeignKey);
        let ends =
            keys.map(|entry| self.tables_of(entry)).filter(|ends| ends.iter().any(|end| self.is_large(*end)));
        let large = (0..self.bytes.len()).filter(|table| self.is_large(*table));
        ends.flatten().chain(large).collect()
    }

    /// Keys first and one after another, which are quick when rows come in their order; then the other indexes.
    fn build(&mut self) {
        let facts = self.facts;
        let wanted = self.wanted();
        for is_key in [true, false] {
            for entry in facts.entries.iter().filter(|entry| facts.post_data.contains(&entry.id)) {
                let is_it = if is_key { is_key_entry(entry) } else { is_index_entry(entry) };
                let tables = self.tables_of(entry);
                let Some(&table) = tables.first() else { continue };
                let stands_alone =
                    tables.len() == 1 && !entry.needs.iter().any(|need| facts.post_data.contains(need));
                let is_late = facts.late.contains(&entry.id) || self.may_read_tables(entry, table);
                if !is_it || !stands_alone || is_late || !wanted.contains(&table) {
                    continue;
                }
                let mut needs = self.loads_of(table);
                needs.extend(self.last_key.get(&table));
                let cost = self.bytes[table] / 4 * self.slowness(entry);
                let lock = if is_key { Lock::Alone } else { Lock::Index };
                let task = self.add(Step::Build { entry: entry.id, table }, needs, vec![(table, lock)], cost);
                self.built.insert(entry.id, task);
                if is_key {
                    self.last_key.insert(table, task);
                }
            }
        }
    }

    fn slowness(&self, entry: &Entry) -> u64 {
        self.facts.methods.get(&entry.id).map_or(1, |method| method.slowness())
    }

    /// Tables whose indexes are all built here. Others, and those with statistics of their own, come later: ANALYZE looks at
    /// indexes on expressions as well. And so do parents, of whose heirs ANALYZE reads the rows.
    fn analyze(&mut self) {
        let mut later: HashSet<usize> = HashSet::new();
        let mut needs: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for entry in self.facts.entries.iter().filter(|entry| self.is_post_data(entry)) {
            if !(is_key_entry(entry) || is_index_entry(entry) || entry.kind == Kind::Statistics) {
                continue;
            }
            for table in self.tables_of(entry) {
                match self.built.get(&entry.id) {
                    Some(task) => needs.entry(table).or_default().push(*task),
                    None => {
                        later.insert(table);
                    }
                }
            }
        }
        for table in 0..self.bytes.len() {
            let is_parent = self.facts.in_trees.get(&self.data[table].table.name) == Some(&true);
            if !self.is_large(table) || later.contains(&table) || is_parent {
                continue;
            }
            let mut needs = needs.remove(&table).unwrap_or_default();
            needs.extend(self.loads_of(table));
            let cost = self.bytes[table].min(ANALYZE_BYTES) / 4;
            let task = self.add(Step::Analyze { table }, needs, vec![(table, Lock::Analyze)], cost);
            self.analyzed.insert(table, task);
        }
    }

    /// After the ANALYZE of both tables: then the planner knows that the indexes alone are enough.
    fn foreign_keys(&mut self) {
        let facts = self.facts;
        for entry in facts.entries.iter().filter(|entry| entry.kind == Kind::ForeignKey) {
            let ends = self.tables_of(entry);
            let is_tree = |table: &usize| {
                let table = &self.data[*table].table;
                table.load_into.is_some() || facts.in_trees.contains_key(&table.name)
            };
            // Both tables, or one that points to itself.
            let tables = entry.needs.iter().filter(|need| self.tables.contains_key(need)).count();
            let knows_all = tables == entry.needs.len() - self.keys_of(entry).len();
            if ends.is_empty()
                || ends.iter().any(is_tree)
                || !knows_all
                || !ends.iter().any(|end| self.is_large(*end))
            {
                continue;
            }
            let keys: Option<Vec<usize>> =
                self.keys_of(entry).iter().map(|key| self.built.get(key).copied()).collect();
            // Without a key of the other table among its needs it would be no foreign key.
            let Some(mut needs) = keys.filter(|keys| !keys.is_empty()) else { continue };
            for end in &ends {
                needs.extend(self.loads_of(*end));
                needs.extend(self.analyzed.get(end));
            }
            let cost = ends.iter().map(|end| self.bytes[*end]).sum::<u64>() / 5;
            let locks = ends.iter().map(|end| (*end, Lock::ForeignKey)).collect();
            let is_of = |end: &usize| {
                let name = &self.data[*end].table.name;
                let start = format!("FK CONSTRAINT {} {} ", name.schema.as_str(), name.name.as_str());
                entry.text.starts_with(&start)
            };
            let mut ends: Vec<usize> = ends.into_iter().collect();
            ends.sort_by_key(|end| !is_of(end));
            let task = self.add(Step::ForeignKey { entry: entry.id, ends }, needs, locks, cost);
            self.built.insert(entry.id, task);
        }
    }

    fn keys_of(&self, entry: &Entry) -> Vec<u32> {
        entry.needs.iter().copied().filter(|need| self.facts.post_data.contains(need)).collect()
    }
}

/// The bytes of its COPY text.
pub fn raw_bytes(data: &TableData) -> u64 {
    data.chunks.iter().map(|chunk| chunk.content.raw_bytes).sum()
}

/// A primary key, a unique or an exclusion constraint.
fn is_key_entry(entry: &Entry) -> bool {
    entry.kind == Kind::Constraint && entry.text.starts_with("CONSTRAINT ")
}

fn is_index_entry(entry: &Entry) -> bool {
    entry.kind == Kind::Index && entry.text.starts_with("INDEX ")
}

#[cfg(test)]
mod tests;
