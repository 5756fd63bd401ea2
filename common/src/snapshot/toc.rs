//! The table of contents of a schema archive, and which of its entries a part of the database needs. Pure.
//!
//! pg_dump writes into the archive on what every entry depends, from `pg_depend`; `pg_restore --list --verbose` prints
//! it. An entry is known by its number and by the catalog and oid of its object at the source, never by its name, which
//! `--list` does not quote.
//!
//! What it must never do: let a table through that was not asked for, because an empty table looks like lost rows; or
//! let something through that needs what is left out.

mod choose;

use std::collections::{BTreeSet, HashSet};

use crate::ident::printable;

pub use choose::{Choice, Others, Wish, choose};

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
