//! What the parsed SQL lets us expect of every table's row count.
//!
//! Pure: statements, the catalog's facts and the way to resolve names come in, expectations come out. It must never
//! expect less than it can prove: a name that can't be resolved, code that can't be seen and syntax that can't be read
//! make every table [`RowExpectation::Unknown`], and the comparison fails on any loss there that nobody allowed.
//!
//! | seen in the migration | expected |
//! |---|---|
//! | nothing that reaches the table | equal |
//! | INSERT, COPY | not fewer |
//! | UPDATE | equal, with other values |
//! | DELETE, or ON DELETE CASCADE child of one | fewer allowed |
//! | TRUNCATE, DROP | must be acknowledged, if it held rows |
//! | DO, CALL, volatile function, MERGE, triggers, a change of the schema where an event trigger fires | unknown |

use std::collections::{BTreeMap, BTreeSet};

use crate::statement::{Class, Effect, StatementKind, TableName, Target};

/// What the catalog knew before the migration.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Every ordinary and partitioned table.
    pub tables: Vec<TableFact>,
    /// Partitions and inheritance children.
    pub children: Vec<ChildFact>,
    /// Foreign keys.
    pub foreign_keys: Vec<ForeignKeyFact>,
    /// User triggers and rules that fire on a change of rows; internal triggers do not count.
    pub triggers: Vec<TriggerFact>,
    /// An event trigger that fires on changes of the schema: its code can change any table, as one that logs them does.
    pub event_trigger: Option<String>,
}

/// A table before the migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableFact {
    /// Its `pg_class.oid`.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// `relkind = 'p'`.
    pub partitioned: bool,
}

/// One row of `pg_inherits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChildFact {
    /// The partition or child.
    pub child: u32,
    /// The partitioned table or parent.
    pub parent: u32,
}

/// One foreign key: what happens to `referencing` when rows of `referenced` go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForeignKeyFact {
    /// `pg_constraint.conrelid`.
    pub referencing: u32,
    /// `pg_constraint.confrelid`.
    pub referenced: u32,
    /// `confdeltype = 'c'`.
    pub on_delete_cascade: bool,
    /// `SET NULL`, `SET DEFAULT`, or `ON UPDATE CASCADE`: rows of `referencing` get other values.
    pub changes_values: bool,
}

/// A user trigger or rule: its code can change any table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TriggerFact {
    /// The table it is on.
    pub table: u32,
    /// Its name.
    pub name: String,
    /// It fires on INSERT.
    pub on_insert: bool,
    /// It fires on UPDATE.
    pub on_update: bool,
    /// It fires on DELETE.
    pub on_delete: bool,
    /// It fires on TRUNCATE.
    pub on_truncate: bool,
}

/// What a table's row count may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowExpectation {
    /// As many rows as before.
    Equal,
    /// As many rows as before, with other values.
    Updated,
    /// As many or more.
    NotFewer,
    /// Fewer are allowed, shown, and fail above `--max-loss`.
    FewerAllowed,
    /// All rows go: if there were any, `--allow-loss` or an annotation must say that this is meant.
    MustAcknowledge {
        /// What takes them, as a phrase: "TRUNCATE orders".
        why: String,
    },
    /// Cannot be told: any loss fails unless `--allow-loss` allows it; more rows are fine.
    Unknown {
        /// Why not, as a phrase: "DO block".
        why: String,
    },
}

/// What is known so far about one table, before it becomes a [`RowExpectation`].
#[derive(Debug, Clone, Default)]
struct Seen {
    updated: bool,
    inserted: bool,
    deleted: bool,
    removed: Option<String>,
    unknown: Option<String>,
}

impl Seen {
    /// The loss of everything outranks the unknown: it is certain, and has to be acknowledged in either case.
    fn expectation(self) -> RowExpectation {
        match self {
            Self { removed: Some(why), .. } => RowExpectation::MustAcknowledge { why },
            Self { unknown: Some(why), .. } => RowExpectation::Unknown { why },
            Self { deleted: true, .. } => RowExpectation::FewerAllowed,
            Self { inserted: true, .. } => RowExpectation::NotFewer,
            Self { updated: true, .. } => RowExpectation::Updated,
            _ => RowExpectation::Equal,
        }
    }
}

/// What to expect of every table in `facts`, by oid.
///
/// `statements` are those of all pending migrations, in order. `resolve` gives every table that a name can mean: none,
/// one, or several where the search path is not known (all of them are then taken as reached). See [`by_name`].
/// `may_write` tells whether a function can change rows: false for those of `pg_catalog`, and for those that are
/// immutable or stable.
pub fn expectations<'a>(
    statements: impl IntoIterator<Item = &'a Class>,
    facts: &Facts,
    resolve: impl Fn(&TableName) -> Vec<u32>,
    may_write: impl Fn(&TableName) -> bool,
) -> BTreeMap<u32, RowExpectation> {
    let mut reading = Reading {
        facts,
        seen: facts.tables.iter().map(|table| (table.oid, Seen::default())).collect(),
        created: BTreeSet::new(),
        renamed: BTreeMap::new(),
    };
    for class in statements {
        reading.read(class, &resolve, &may_write);
    }
    reading.seen.into_iter().map(|(oid, seen)| (oid, seen.expectation())).collect()
}

/// The tables that a written name can mean, whatever the search path: a qualified name exactly, any other by name alone.
pub fn by_name(facts: &Facts, name: &TableName) -> Vec<u32> {
    facts
        .tables
        .iter()
        .filter(|table| {
            table.name == name.name && name.schema.as_ref().is_none_or(|schema| *schema == table.schema)
        })
        .map(|table| table.oid)
        .collect()
}

struct Reading<'a> {
    facts: &'a Facts,
    seen: BTreeMap<u32, Seen>,
    /// Tables that the migrations made themselves: nothing to compare.
    created: BTreeSet<TableName>,
    /// New names of old tables.
    renamed: BTreeMap<TableName, Vec<u32>>,
}

impl Reading<'_> {
    fn read(
        &mut self,
        class: &Class,
        resolve: &dyn Fn(&TableName) -> Vec<u32>,
        may_write: &dyn Fn(&TableName) -> bool,
    ) {
        if let Some(problem) = &class.unread {
            self.everything(&format!("a statement that could not be read: {problem}"));
        }
        if let Some(code) = &class.runs_code {
            self.everything(code);
        }
        let changes_schema =
            matches!(class.kind, StatementKind::Ddl | StatementKind::Drop | StatementKind::CreateFunction)
                || !class.creates.is_empty();
        if let Some(trigger) = self.facts.event_trigger.as_ref().filter(|_| changes_schema) {
            self.everything(&format!("event trigger {trigger}"));
        }
        if let Some(function) = class.functions.iter().find(|function| may_write(function)) {
            self.everything(&format!("function {function}"));
        }
        for effect in &class.effects {
            match &effect.target {
                Target::Everything => self.everything("a statement that can reach any table"),
                Target::Schema(schema) => {
                    let tables = self.facts.tables.iter().filter(|table| table.schema == *schema);
                    for oid in tables.map(|table| table.oid).collect::<Vec<_>>() {
                        self.removed(oid, &format!("DROP SCHEMA {schema}"));
                    }
                }
                Target::Table(name) => match self.meant(name, resolve) {
                    Meant::Old(oids) => {
                        oids.into_iter().for_each(|oid| self.reach(oid, name, effect.effect, effect.cascade));
                    }
                    Meant::New => {}
                    // A view, a temporary table, another database's name: whatever it is, rows may go through it.
                    Meant::NotKnown => {
                        self.everything(&format!("{name}, which is no table that was there before"));
                    }
                },
            }
        }
        self.created.extend(class.creates.iter().cloned());
        for (old, new) in &class.renames {
            match self.meant(old, resolve) {
                Meant::Old(oids) => {
                    self.created.remove(new);
                    self.renamed.insert(new.clone(), oids);
                }
                Meant::New => {
                    self.created.insert(new.clone());
                }
                Meant::NotKnown => {}
            }
        }
    }

    fn meant(&self, name: &TableName, resolve: &dyn Fn(&TableName) -> Vec<u32>) -> Meant {
        // `shop.orders` and `orders` may be the same: a schema that one side leaves out matches any.
        let same = |other: &TableName| {
            other.name == name.name
                && (other.schema.is_none() || name.schema.is_none() || other.schema == name.schema)
        };
        let mut oids = resolve(name);
        oids.extend(
            self.renamed.iter().filter(|(new, _)| same(new)).flat_map(|(_, oids)| oids.iter().copied()),
        );
        oids.sort_unstable();
        oids.dedup();
        if !oids.is_empty() {
            Meant::Old(oids)
        } else if self.created.iter().any(same) {
            Meant::New
        } else {
            Meant::NotKnown
        }
    }

    /// One effect on one table, its children, and what its foreign keys and triggers pass on.
    fn reach(&mut self, oid: u32, name: &TableName, effect: Effect, cascade: bool) {
        let family = self.family(oid);
        match effect {
            Effect::Insert => {
                self.mark(&family, |seen| seen.inserted = true);
                self.ancestors(oid)
                    .into_iter()
                    .for_each(|parent| self.mark(&[parent], |seen| seen.inserted = true));
                self.fire(&family, |trigger| trigger.on_insert);
            }
            Effect::Update => {
                self.mark(&family, |seen| seen.updated = true);
                self.mark(&self.ancestors(oid), |seen| seen.updated = true);
                self.pass_on_values(&family);
                let moves = self.facts.tables.iter().any(|table| table.oid == oid && table.partitioned);
                if moves {
                    let why =
                        format!("UPDATE {name} can move rows between its partitions: compare their sum");
                    let leaves: Vec<u32> = family.iter().copied().filter(|&member| member != oid).collect();
                    self.mark(&leaves, |seen| {
                        seen.unknown.get_or_insert_with(|| why.clone());
                    });
                }
                self.fire(&family, |trigger| trigger.on_update);
            }
            Effect::Delete => self.delete(oid),
            Effect::Truncate => self.truncate(oid, name, cascade),
            Effect::Drop => {
                // CASCADE also drops partitions and children; without it the server refuses if there are children.
                let why = format!("DROP TABLE {name}");
                family.into_iter().for_each(|member| self.removed(member, &why));
                self.mark(&self.ancestors(oid), |seen| seen.deleted = true);
            }
            Effect::Unknown => {
                let why = format!("a statement that changes {name} in a way that cannot be told");
                self.mark(&family, |seen| {
                    seen.unknown.get_or_insert_with(|| why.clone());
                });
                self.fire(&family, |_| true);
                // A MERGE may delete, and deleting passes on.
                for child in self.cascade(&family) {
                    self.mark(&[child], |seen| {
                        seen.unknown.get_or_insert_with(|| why.clone());
                    });
                }
            }
        }
    }

    fn delete(&mut self, oid: u32) {
        let mut reached = self.family(oid);
        reached.extend(self.cascade(&reached));
        self.mark(&reached, |seen| seen.deleted = true);
        let above: Vec<u32> = reached.iter().flat_map(|&member| self.ancestors(member)).collect();
        self.mark(&above, |seen| seen.deleted = true);
        self.pass_on_values(&reached);
        self.fire(&reached, |trigger| trigger.on_delete);
    }

    fn truncate(&mut self, oid: u32, name: &TableName, cascade: bool) {
        let mut reached = self.family(oid);
        if cascade {
            // TRUNCATE … CASCADE empties every table that references, whatever its ON DELETE says.
            let mut next = 0;
            while next < reached.len() {
                let keys = self.facts.foreign_keys.iter().filter(|key| key.referenced == reached[next]);
                let more: Vec<u32> = keys.flat_map(|key| self.family(key.referencing)).collect();
                add_new(&mut reached, more);
                next += 1;
            }
        }
        let why = if cascade { format!("TRUNCATE {name} CASCADE") } else { format!("TRUNCATE {name}") };
        reached.iter().for_each(|&member| self.removed(member, &why));
        let above: Vec<u32> = reached.iter().flat_map(|&member| self.ancestors(member)).collect();
        self.mark(&above, |seen| seen.deleted = true);
        self.fire(&reached, |trigger| trigger.on_truncate);
    }

    /// The table with all its partitions and children.
    fn family(&self, oid: u32) -> Vec<u32> {
        let mut family = vec![oid];
        let mut next = 0;
        while next < family.len() {
            let children =
                self.facts.children.iter().filter(|fact| fact.parent == family[next]).map(|fact| fact.child);
            let children: Vec<u32> = children.collect();
            add_new(&mut family, children);
            next += 1;
        }
        family
    }

    fn ancestors(&self, oid: u32) -> Vec<u32> {
        let mut line = vec![oid];
        let mut next = 0;
        while next < line.len() {
            let parents: Vec<u32> = self
                .facts
                .children
                .iter()
                .filter(|fact| fact.child == line[next])
                .map(|fact| fact.parent)
                .collect();
            add_new(&mut line, parents);
            next += 1;
        }
        line.split_off(1)
    }

    /// Tables that lose rows through ON DELETE CASCADE when `from` does.
    fn cascade(&self, from: &[u32]) -> Vec<u32> {
        self.along_keys(from, |key| key.on_delete_cascade)
    }

    /// Tables that refer to `from` by the keys to follow, directly or through others. A key on a partitioned table holds
    /// for its partitions, so the way up counts as well.
    fn along_keys(&self, from: &[u32], follow: impl Fn(&ForeignKeyFact) -> bool) -> Vec<u32> {
        let mut reached = from.to_vec();
        let mut next = 0;
        while next < reached.len() {
            let mut line = self.ancestors(reached[next]);
            line.push(reached[next]);
            let keys = self.facts.foreign_keys.iter();
            let keys = keys.filter(|key| follow(key) && line.contains(&key.referenced));
            let more: Vec<u32> = keys.flat_map(|key| self.family(key.referencing)).collect();
            add_new(&mut reached, more);
            next += 1;
        }
        reached.split_off(from.len())
    }

    /// Tables whose rows get other values through a foreign key when rows of `from` change or go.
    fn pass_on_values(&mut self, from: &[u32]) {
        let passed_on = self.along_keys(from, |key| key.changes_values);
        let above: Vec<u32> = passed_on.iter().flat_map(|&member| self.ancestors(member)).collect();
        self.mark(&passed_on, |seen| seen.updated = true);
        self.mark(&above, |seen| seen.updated = true);
    }

    /// Triggers of the reached tables can do anything to any table.
    fn fire(&mut self, tables: &[u32], fires: impl Fn(&TriggerFact) -> bool) {
        let trigger =
            self.facts.triggers.iter().find(|trigger| tables.contains(&trigger.table) && fires(trigger));
        if let Some(trigger) = trigger {
            self.everything(&format!("trigger {}", trigger.name));
        }
    }

    fn removed(&mut self, oid: u32, why: &str) {
        self.mark(&[oid], |seen| {
            seen.removed.get_or_insert_with(|| why.to_owned());
        });
    }

    fn everything(&mut self, why: &str) {
        for seen in self.seen.values_mut() {
            seen.unknown.get_or_insert_with(|| why.to_owned());
        }
    }

    fn mark(&mut self, tables: &[u32], change: impl Fn(&mut Seen)) {
        for oid in tables {
            if let Some(seen) = self.seen.get_mut(oid) {
                change(seen);
            }
        }
    }
}

enum Meant {
    /// Tables that were there before.
    Old(Vec<u32>),
    /// A table that the migrations made.
    New,
    NotKnown,
}

fn add_new(known: &mut Vec<u32>, more: Vec<u32>) {
    for oid in more {
        if !known.contains(&oid) {
            known.push(oid);
        }
    }
}

#[cfg(test)]
mod tests;
