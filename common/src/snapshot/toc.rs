//! The table of contents of a schema archive, and which of its entries a part of the database needs. Pure.
//!
//! pg_dump writes into the archive on what every entry depends, from `pg_depend`; `pg_restore --list --verbose` prints
//! it. An entry is known by its number and by the catalog and oid of its object at the source, never by its name, which
//! `--list` does not quote.
//!
//! What it must never do: let a table through that was not asked for, because an empty table looks like lost rows; or
//! let something through that needs what is left out.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::ident::printable;

/// `pg_class` and other catalogs, whose oids are the same everywhere.
const PG_CLASS: u32 = 1259;
/// Object in which the entry is known: catalog and oid.
pub type ObjectId = (u32, u32);

/// What an entry is, as far as a choice depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A plain or partitioned table.
    Table,
    /// A view.
    View,
    /// A materialized view.
    MaterializedView,
    /// A foreign table.
    ForeignTable,
    /// A sequence.
    Sequence,
    /// An index.
    Index,
    /// A primary key, unique or exclusion constraint; a CHECK of its own.
    Constraint,
    /// A foreign key.
    ForeignKey,
    /// A default that stands alone.
    Default,
    /// A trigger.
    Trigger,
    /// A rule.
    Rule,
    /// A policy, and that row-level security is on.
    Policy,
    /// Extended statistics.
    Statistics,
    /// A partition's or an index's being part of another.
    Attach,
    /// That a table belongs to a publication.
    Publication,
    /// Grants.
    Acl,
    /// A comment.
    Comment,
    /// A label of a security provider.
    SecurityLabel,
    /// That a sequence belongs to a column.
    OwnedBy,
    /// An extension.
    Extension,
    /// What belongs to the database as a whole: event triggers, subscriptions, publications, default privileges.
    Global,
    /// Types, functions, schemas, operators …
    Other,
}

impl Kind {
    /// Relations that hold rows or show other relations' rows: they come only when asked for.
    fn is_relation(self) -> bool {
        matches!(self, Self::Table | Self::View | Self::MaterializedView | Self::ForeignTable)
    }

    /// What belongs to another entry and comes along with it.
    fn is_attached(self) -> bool {
        !self.is_relation() && !matches!(self, Self::Sequence | Self::Extension | Self::Global | Self::Other)
    }

    /// What says something about entries and brings none along.
    fn is_remark(self) -> bool {
        matches!(
            self,
            Self::Attach
                | Self::Publication
                | Self::Acl
                | Self::Comment
                | Self::SecurityLabel
                | Self::OwnedBy
        )
    }
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number in the archive.
    pub id: u32,
    /// Catalog and oid of its object at the source; zeros for what has none.
    pub object: ObjectId,
    /// What it is.
    pub kind: Kind,
    /// The entry in pg_restore's words, such as `TABLE app orders shop`.
    pub text: String,
    /// Numbers of the entries that it depends on.
    pub needs: Vec<u32>,
}

impl Entry {
    /// As a line of a list for `pg_restore --use-list`.
    pub fn line(&self) -> String {
        format!("{}; {} {} {}\n", self.id, self.object.0, self.object.1, self.text)
    }

    /// Whether a foreign key is this table's own, and not one that points to it. Everything else names one table alone.
    fn is_table_of(&self, entry: &Entry) -> bool {
        let Some(rest) = entry.text.strip_prefix("FK CONSTRAINT ") else { return true };
        let table = self.text.strip_prefix("TABLE ").and_then(|text| text.rsplit_once(' '));
        table.is_some_and(|(table, _)| rest.strip_prefix(table).is_some_and(|rest| rest.starts_with(' ')))
    }

    /// For messages: the entry without its owner.
    pub fn describe(&self) -> String {
        let text = self.text.rsplit_once(' ').map_or(&*self.text, |(before, _)| before);
        let (kind, rest) = match self.kind {
            Kind::MaterializedView => ("materialized view", text.strip_prefix("MATERIALIZED VIEW ")),
            Kind::ForeignTable => ("foreign table", text.strip_prefix("FOREIGN TABLE ")),
            Kind::ForeignKey => ("foreign key of", text.strip_prefix("FK CONSTRAINT ")),
            Kind::Policy if text.starts_with("ROW SECURITY ") => {
                ("row-level security of", text.strip_prefix("ROW SECURITY "))
            }
            _ => ("", None),
        };
        let name = |rest: &str| match rest.split_once(' ') {
            Some(("-", name)) => name.to_owned(),
            Some((schema, name)) => format!("{schema}.{name}"),
            None => rest.to_owned(),
        };
        let text = match rest {
            Some(rest) => format!("{kind} {}", name(rest)),
            None => match text.split_once(' ') {
                Some((kind, rest)) => format!("{} {}", kind.to_lowercase(), name(rest)),
                None => text.to_lowercase(),
            },
        };
        printable(&text)
    }
}

/// Reads what `pg_restore --list --verbose` printed. A line that is neither an entry nor its dependencies is a comment.
pub fn parse(listed: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for line in listed.lines() {
        if let Some(needs) = line.strip_prefix(";\tdepends on:") {
            if let Some(last) = entries.last_mut() {
                last.needs = needs.split_whitespace().filter_map(|number| number.parse().ok()).collect();
            }
            continue;
        }
        entries.extend(parse_entry(line));
    }
    entries
}

fn parse_entry(line: &str) -> Option<Entry> {
    let (id, rest) = line.split_once("; ")?;
    let mut words = rest.splitn(3, ' ');
    let object = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let text = words.next()?.to_owned();
    let kind = kind(object.0, &text);
    Some(Entry { id: id.parse().ok()?, object, kind, text, needs: Vec::new() })
}

fn kind(catalog: u32, text: &str) -> Kind {
    let is = |word: &str| text.starts_with(word);
    match catalog {
        PG_CLASS if is("TABLE ") => Kind::Table,
        PG_CLASS if is("VIEW ") => Kind::View,
        PG_CLASS if is("MATERIALIZED VIEW ") => Kind::MaterializedView,
        PG_CLASS if is("FOREIGN TABLE ") => Kind::ForeignTable,
        PG_CLASS if is("SEQUENCE ") => Kind::Sequence,
        PG_CLASS => Kind::Index,
        2606 if is("FK CONSTRAINT ") => Kind::ForeignKey,
        2606 => Kind::Constraint,
        2604 => Kind::Default,
        2620 => Kind::Trigger,
        2618 => Kind::Rule,
        3256 => Kind::Policy,
        3381 => Kind::Statistics,
        3079 => Kind::Extension,
        // pg_publication_rel, pg_publication_namespace.
        6106 | 6237 => Kind::Publication,
        // pg_publication, pg_subscription, pg_event_trigger, pg_default_acl, pg_database.
        6104 | 6100 | 3466 | 826 | 1262 => Kind::Global,
        0 if is("COMMENT ") => Kind::Comment,
        0 if is("ACL ") => Kind::Acl,
        0 if is("SECURITY LABEL ") => Kind::SecurityLabel,
        0 if is("TABLE ATTACH ") || is("INDEX ATTACH ") => Kind::Attach,
        0 if is("SEQUENCE OWNED BY ") => Kind::OwnedBy,
        0 if is("ROW SECURITY ") => Kind::Policy,
        0 => Kind::Global,
        _ => Kind::Other,
    }
}

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

/// The list for `pg_restore --use-list`.
pub fn list(entries: &[Entry], chosen: &BTreeSet<u32>) -> String {
    entries.iter().filter(|entry| chosen.contains(&entry.id)).map(Entry::line).collect()
}

/// The extension that has the operator classes of PostgreSQL's own types for exclusion constraints.
const CLASSES: &str = "EXTENSION - btree_gist ";

/// Whether [`add_operator_classes`] has something to look for.
pub fn may_lack_operator_classes(entries: &[Entry]) -> bool {
    entries.iter().any(|entry| entry.text.starts_with(CLASSES))
        && entries.iter().any(|entry| entry.kind == Kind::Constraint)
}

/// Lets exclusion constraints, and keys WITHOUT OVERLAPS, need the extension that has their operator classes. It is the index
/// that depends on it, and the archive has the constraint in its place, without what the index needs.
///
/// `script` is the post-data section as statements. Of two constraints with one name both count: an extension too many does no
/// harm.
pub fn add_operator_classes(entries: &mut [Entry], script: &str) {
    let Some(extension) = entries.iter().find(|entry| entry.text.starts_with(CLASSES)).map(|entry| entry.id)
    else {
        return;
    };
    let names: HashSet<&str> = script
        .lines()
        .filter_map(|line| line.strip_prefix("    ADD CONSTRAINT "))
        .filter_map(|rest| {
            let without_overlaps = || {
                let (name, columns) =
                    rest.split_once(" PRIMARY KEY (").or_else(|| rest.split_once(" UNIQUE ("))?;
                columns.contains(" WITHOUT OVERLAPS)").then_some(name)
            };
            rest.split_once(" EXCLUDE USING ").map(|(name, _)| name).or_else(without_overlaps)
        })
        .map(|name| name.trim_matches('"'))
        .collect();
    for entry in entries.iter_mut().filter(|entry| entry.kind == Kind::Constraint) {
        if names.iter().any(|name| entry.text.contains(&format!(" {name} "))) {
            entry.needs.push(extension);
        }
    }
}

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

/// The schema of an entry: the longest name that fits, because `--list` quotes nothing.
pub fn namespace<'a>(text: &str, schemas: &'a BTreeSet<String>) -> Option<&'a str> {
    const KINDS: [&str; 12] = [
        "OPERATOR CLASS ",
        "OPERATOR FAMILY ",
        "TEXT SEARCH CONFIGURATION ",
        "TEXT SEARCH DICTIONARY ",
        "TEXT SEARCH PARSER ",
        "TEXT SEARCH TEMPLATE ",
        "SHELL TYPE ",
        "MATERIALIZED VIEW ",
        "FOREIGN TABLE ",
        "FK CONSTRAINT ",
        "CHECK CONSTRAINT ",
        "SCHEMA - ",
    ];
    let rest = KINDS
        .iter()
        .find_map(|kind| text.strip_prefix(kind))
        .or_else(|| text.split_once(' ').map(|(_, rest)| rest))?;
    schemas
        .iter()
        .map(String::as_str)
        .filter(|schema| rest.strip_prefix(*schema).is_some_and(|rest| rest.starts_with(' ')))
        .max_by_key(|schema| schema.len())
}
