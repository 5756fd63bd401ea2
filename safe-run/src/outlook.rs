//! What pending statements will do to the live database: who waits for which table, and which rows go. Read off the statements' texts
//! ([`sql::statement`], [`sql::lint`]) and the catalog; nothing of them is run.
//!
//! It must not say more than is so. A name that can't be resolved gives no line, and neither does a table that a statement before makes.
//! What is not visible in the text (a DO block, a function) is said to be unknown.

mod efforts;
mod facts;
mod known;
mod pace;
mod types;

use std::collections::BTreeSet;

use common::{Result, postgres::Session};
use serde::Serialize;
use sql::{
    lint::{self, Concern, Finding},
    migration::MigrationFile,
    statement::{
        Class, Effect, Statement, StatementKind, TableName, Target,
        changes::{Change, Task},
        locks::{self, LockMode, Removed},
    },
};

pub use efforts::{Effort, What};
use facts::{Catalog, Wanted};
use known::Known;
pub use known::{Sight, Table, sight};
pub use pace::Estimate;
use pace::Pace;

/// A lock on a table that is there before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedLock {
    /// The table as a person writes it; that of the index, where an index is named.
    pub table: String,
    /// `ACCESS EXCLUSIVE` and so on.
    pub mode: &'static str,
    /// Whom it keeps waiting.
    pub blocks: Blocked,
    /// Rows of the table and its partitions, as the last ANALYZE and the statistics know them.
    pub rows: Option<u64>,
    /// Bytes of their heaps, as the last ANALYZE knew them.
    pub bytes: u64,
}

/// Whom a lock keeps waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blocked {
    /// Everybody.
    ReadsAndWrites,
    /// Those who change rows.
    Writes,
    /// Other changes of the schema, and VACUUM.
    Schema,
}

/// A table whose rows all go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedLoss {
    /// The table as a person writes it.
    pub table: String,
    /// How many, as the last ANALYZE and the statistics know them.
    pub rows: Option<u64>,
    /// The flag that lets them go.
    pub flag: String,
}

/// A rule that the statement breaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// The rule, as squawk calls it.
    pub rule: String,
    /// What it is about.
    pub concern: Concern,
    /// Line in the file, from 1.
    pub line: u32,
    /// What happens.
    pub message: String,
    /// What to do instead.
    pub help: Option<String>,
}

/// What one statement will do.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Outlook {
    /// Locks that keep others waiting.
    pub locks: Vec<PlannedLock>,
    /// What it does with all rows of a table.
    pub efforts: Vec<Effort>,
    /// Rows that nobody has acknowledged to lose.
    pub losses: Vec<PlannedLoss>,
    /// Rules that it breaks.
    pub findings: Vec<Warning>,
    /// Why more may happen than stands here, as a phrase: "DO block".
    pub unknown: Option<String>,
}

impl Outlook {
    /// How many warnings a person should look at.
    pub fn warnings(&self) -> usize {
        self.losses.len() + self.findings.len()
    }
}

/// Looks at all of them, in their order: by file, by statement. A loss that `allows` is not told.
///
/// # Errors
/// The catalog can't be read.
pub async fn look(
    session: &Session,
    sight: &Sight,
    files: &[&MigrationFile],
    allows: impl Fn(&Table) -> bool,
) -> Result<Vec<Vec<Outlook>>> {
    let mut names = Names::default();
    let mut asked: Vec<Vec<Asked<'_>>> = Vec::new();
    for file in files {
        names.is_path_known = true;
        asked.push(file.statements.iter().map(|statement| names.pass(statement)).collect());
    }
    let all = || asked.iter().flatten();
    let locked = all().flat_map(|asked| &asked.locks).map(|(name, _)| name);
    let worked = all().flat_map(|asked| &asked.meant).map(|(_, name)| name);
    let names: BTreeSet<TableName> =
        locked.chain(worked).chain(all().flat_map(|asked| &asked.gone)).cloned().collect();
    let schemas: Vec<&str> = all().flat_map(|asked| asked.schemas.iter().copied()).collect();
    let known = Known::read(session, &sight.path, names, &schemas).await?;
    let mut wanted = Wanted::default();
    for asked in all() {
        let meant = asked.meant.iter().filter_map(|(_, name)| known.table(name));
        wanted.tables.extend(meant.map(|table| table.oid));
        if let Some(task) = &asked.task {
            efforts::want(task, &mut wanted);
        }
    }
    let mut catalog = Catalog::read(session, &sight.path, &wanted).await?;
    let mut outlooks: Vec<Vec<Outlook>> = Vec::new();
    for (file, asked) in files.iter().zip(asked) {
        let findings =
            lint::lint(&file.sql, &file.statements, session.server_major(), file.no_transaction.is_none());
        catalog.types.is_utc = Some(sight.is_utc);
        let of = |(number, asked): (usize, Asked<'_>)| {
            let mine = findings.iter().filter(|finding| finding.statement == number);
            asked.outlook(&known, &mut catalog, mine, &allows)
        };
        outlooks.push(asked.into_iter().enumerate().map(of).collect());
    }
    estimate(session, &mut outlooks).await?;
    Ok(outlooks)
}

/// Says how long it may take, where that is long.
async fn estimate(session: &Session, outlooks: &mut [Vec<Outlook>]) -> Result<()> {
    let mut long: Vec<&mut Effort> = outlooks
        .iter_mut()
        .flatten()
        .flat_map(|outlook| &mut outlook.efforts)
        .filter(|effort| pace::is_long(effort))
        .collect();
    if !long.is_empty() {
        let pace = Pace::measure(session).await?;
        long.iter_mut().for_each(|effort| effort.estimate = pace.estimate(effort));
    }
    Ok(())
}

/// What a statement names, by the names that its tables have before the run.
struct Asked<'s> {
    class: &'s Class,
    locks: Vec<(TableName, LockMode)>,
    /// What is taken off a table, with the foreign keys that it is a part of.
    removed: Vec<(TableName, Removed)>,
    /// Tables that lose all rows.
    gone: Vec<TableName>,
    /// Schemas that go with all their tables.
    schemas: Vec<&'s str>,
    /// It names a table that is there before, or one that can't be told.
    is_of_old: bool,
    /// It may lock tables that its words do not name.
    may_lock_more: bool,
    /// It sets the time zone.
    sets_zone: bool,
    /// What it does with the rows of tables.
    task: Option<Task>,
    /// The tables of the task: as it names them, and by their names before the run.
    meant: Vec<(TableName, TableName)>,
}

/// Names as the statements before have left them.
#[derive(Default)]
struct Names {
    made: Vec<TableName>,
    /// New name, name before the run.
    renamed: Vec<(TableName, TableName)>,
    /// No statement of the file has changed the search path.
    is_path_known: bool,
}

impl Names {
    /// The name before the run; nothing for what the run made, or what can't be told.
    fn before(&self, name: &TableName) -> Option<TableName> {
        if let Some((_, old)) = self.renamed.iter().rev().find(|(new, _)| new.can_be(name)) {
            return Some(old.clone());
        }
        let is_made = self.made.iter().any(|made| made.can_be(name));
        (!is_made && (self.is_path_known || name.schema.is_some())).then(|| name.clone())
    }

    fn is_made(&self, name: &TableName) -> bool {
        self.made.iter().any(|made| made.can_be(name))
    }

    fn pass<'s>(&mut self, statement: &'s Statement) -> Asked<'s> {
        let class = &statement.class;
        let text = &statement.text;
        let may_lock_more = locks::reaches_unnamed(text);
        let task = Task::read(text);
        let written = task.iter().flat_map(efforts::tables);
        let meant = written.filter_map(|name| Some((name.clone(), self.before(name)?))).collect();
        let sets = |what: &str| class.kind == StatementKind::Set && text.to_ascii_lowercase().contains(what);
        let mut asked = Asked {
            class,
            meant,
            task,
            sets_zone: sets("zone") || sets("all"),
            may_lock_more,
            locks: Vec::new(),
            removed: Vec::new(),
            gone: Vec::new(),
            schemas: Vec::new(),
            is_of_old: false,
        };
        asked.removed.extend(
            locks::removed(text)
                .into_iter()
                .filter_map(|(table, removed)| Some((self.before(&table)?, removed))),
        );
        for lock in class.locks.iter().chain(&locks::of_maintenance(text)) {
            asked.is_of_old |= !self.is_made(&lock.table);
            asked.locks.extend(self.before(&lock.table).map(|table| (table, lock.mode)));
        }
        for effect in
            class.effects.iter().filter(|effect| matches!(effect.effect, Effect::Truncate | Effect::Drop))
        {
            match &effect.target {
                Target::Table(name) => asked.gone.extend(self.before(name)),
                Target::Schema(schema) => asked.schemas.push(schema),
                Target::Everything => {}
            }
        }
        asked.is_of_old |= class.locks.is_empty();
        self.is_path_known &= !sets("search_path");
        for (old, new) in &class.renames {
            if let Some(before) = self.before(old) {
                self.renamed.push((new.clone(), before));
            } else if self.is_made(old) {
                self.made.push(new.clone());
            }
        }
        self.made.extend(class.creates.iter().cloned());
        asked
    }
}

impl Asked<'_> {
    fn outlook<'f>(
        self,
        known: &Known,
        catalog: &mut Catalog,
        findings: impl Iterator<Item = &'f Finding>,
        allows: impl Fn(&Table) -> bool,
    ) -> Outlook {
        let mut locks: Vec<PlannedLock> = Vec::new();
        let named = self.locks.iter().filter_map(|(name, mode)| Some((known.table(name)?, *mode)));
        let other_ends =
            self.removed.iter().filter_map(|(name, removed)| Some((known.table(name)?, removed)));
        let other_ends = other_ends.flat_map(|(table, removed)| known.other_ends(table, removed));
        let defaults = self.default_partitions(known, catalog);
        let unnamed = other_ends.chain(defaults).map(|table| (table, LockMode::AccessExclusive));
        for (table, mode) in named.chain(unnamed) {
            let lock = planned(table, mode);
            match locks.iter_mut().find(|known| known.table == lock.table) {
                Some(known) if known.blocks > lock.blocks => *known = lock,
                Some(_) => {}
                None => locks.push(lock),
            }
        }
        let of_schemas = || self.schemas.iter().flat_map(|schema| known.of_schema(schema));
        locks.extend(of_schemas().map(|table| planned(table, LockMode::AccessExclusive)));
        let gone = self.gone.iter().filter_map(|name| known.table(name)).chain(of_schemas());
        let mut losses: Vec<PlannedLoss> = gone
            .filter(|table| table.has_rows_of_its_own && table.rows != Some(0) && !allows(table))
            .map(|table| PlannedLoss {
                table: table.name.short(),
                rows: table.rows,
                flag: format!("--allow-loss {}", common::ident::shell_word(&table.name.short())),
            })
            .collect();
        losses.dedup();
        let findings = findings
            .filter(|_| self.is_of_old)
            .map(|finding| Warning {
                rule: finding.rule.clone(),
                concern: finding.concern,
                line: finding.line,
                message: finding.message.clone(),
                help: finding.help.clone(),
            })
            .collect();
        let unread = self.class.unread.as_ref().map(|_| "safe-run could not read it".to_owned());
        let more = self.may_lock_more.then(|| "it reaches tables that it does not name".to_owned());
        if self.sets_zone {
            catalog.types.is_utc = None;
        }
        let efforts = match &self.task {
            Some(task) => efforts::judge(task, known, catalog, |name| self.meant(known, name)),
            None => Vec::new(),
        };
        Outlook {
            locks,
            efforts,
            losses,
            findings,
            unknown: self.class.runs_code.clone().or(unread).or(more),
        }
    }

    /// The table that the task means by a name.
    fn meant<'k>(&self, known: &'k Known, name: &TableName) -> Option<&'k Table> {
        self.meant.iter().find(|(written, _)| written == name).and_then(|(_, before)| known.table(before))
    }

    /// What gets a new partition looks whether its default one has rows of it.
    fn default_partitions<'k>(&self, known: &'k Known, catalog: &Catalog) -> Vec<&'k Table> {
        let parent = match &self.task {
            Some(Task::NewPartition(parent)) => parent,
            Some(Task::Alter { table, changes, .. })
                if changes.iter().any(|change| matches!(change, Change::Attach { .. })) =>
            {
                table
            }
            _ => return Vec::new(),
        };
        let facts = self.meant(known, parent).and_then(|table| catalog.tables.get(&table.oid));
        let default = facts.and_then(|facts| facts.partitioned.as_ref()?.default);
        default.and_then(|oid| known.default_partition(oid)).into_iter().collect()
    }
}

fn planned(table: &Table, mode: LockMode) -> PlannedLock {
    let blocks = match mode {
        LockMode::AccessExclusive => Blocked::ReadsAndWrites,
        LockMode::Exclusive | LockMode::ShareRowExclusive | LockMode::Share => Blocked::Writes,
        LockMode::ShareUpdateExclusive | LockMode::RowExclusive => Blocked::Schema,
    };
    PlannedLock { table: table.name.short(), mode: mode.sql(), blocks, rows: table.rows, bytes: table.bytes }
}
