//! What a statement did to tables beside changing rows: which locks it took, and which tables it wrote anew.
//!
//! One query of our own locks after a statement that may have taken some, on the migration's session: it is the only one
//! that can be asked, and it sees what is not committed. It must never be the reason why a migration fails. So it is not
//! asked while a setting of the file's own (a statement_timeout, a role) may hold; then it is asked once, at the end of
//! the file, when the settings are reset, and what it says belongs to the file as a whole.
//!
//! Looking at all locks takes longer the more there are. What certainly locked nothing but tables of the migration's own
//! ([`OwnTables`]) is not asked for: nobody else knows them. What locked nothing else but tables whose strongest lock is
//! known already is only asked which tables these are, and whether it wrote them anew ([`Question`]).
//!
//! A lock that was taken ahead of the statements ([`lock_ahead`]) belongs to the statement that needs it.

use std::collections::{BTreeMap, BTreeSet};

use common::{
    Error, Result,
    postgres::{Session, SimpleQueryMessage},
};
use serde::{Deserialize, Serialize};

use crate::lock_ahead;
use checks::TableFacts;
use sql::statement::{
    Class, Statement, StatementKind, TableName, Target,
    locks::{LockMode, TableLock},
    own_tables::{HARMLESS, OwnTables},
};

/// A lock that was not held before.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LockTaken {
    /// The table as a person writes it, by its name before the migration.
    pub table: String,
    /// `ACCESS EXCLUSIVE` and so on.
    pub mode: String,
}

/// What is new since it was last asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableFootprint {
    /// Locks that keep others waiting, on tables that were there before.
    #[serde(default)]
    pub locks: Vec<LockTaken>,
    /// Tables whose rows are in another file now: rewritten, or truncated.
    #[serde(default)]
    pub rewritten: Vec<String>,
}

impl TableFootprint {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.locks.is_empty() && self.rewritten.is_empty()
    }
}

/// Modes that make somebody wait for whom plain reading and writing is enough, and what else DDL takes.
const MODES: [(&str, &str); 5] = [
    ("ShareUpdateExclusiveLock", "SHARE UPDATE EXCLUSIVE"),
    ("ShareLock", "SHARE"),
    ("ShareRowExclusiveLock", "SHARE ROW EXCLUSIVE"),
    ("ExclusiveLock", "EXCLUSIVE"),
    ("AccessExclusiveLock", "ACCESS EXCLUSIVE"),
];

/// The mode that keeps everybody waiting.
const STRONGEST: (&str, &str) = MODES[4];

/// The first oid that is not PostgreSQL's own.
const FIRST_OID: u32 = 16_384;

/// What is to be asked of one statement.
#[derive(Debug)]
pub struct Question<'s> {
    /// It may change a setting.
    unsettles: bool,
    /// It may take a lock that keeps others waiting.
    locks: bool,
    /// The locks that it certainly takes at most, where it is enough to ask for their tables.
    named: Option<Vec<&'s TableLock>>,
    /// Tables whose rows were written since all locks were looked at: a trigger may have taken others.
    written: Vec<TableName>,
}

/// More tables than this are not asked for by their names: looking at all locks takes no longer then.
const NAMES_ASKED: usize = 20;

impl Question<'_> {
    /// There is nothing to ask before the next statement.
    pub fn is_idle(&self) -> bool {
        !self.locks
    }

    /// The tables that the statement named, and those that were written before it: the number of the name, the table, its
    /// file. A table where it can't be told from its name what else was locked gives no row.
    ///
    /// Sent right behind the statement, and read only if that succeeded.
    ///
    /// # Errors
    /// The statement failed, the connection is gone, or a signal cancelled the query.
    pub async fn ask(&self, session: &Session) -> Result<Vec<SimpleQueryMessage>> {
        let Some(named) = &self.named else { return Ok(Vec::new()) };
        // A statement reaches inheritance children too; relhassubclass stays true when the last one has gone.
        let named = named.iter().map(|lock| (&lock.table, "NOT c.relhassubclass"));
        let plain = "NOT (c.relhassubclass OR c.relhastriggers OR c.relhasrules)";
        let written = self.written.iter().map(|table| (table, plain));
        let one = |(number, (table, condition)): (usize, (&TableName, &str))| {
            format!(
                "SELECT {number}, c.oid, COALESCE(pg_catalog.pg_relation_filenode(c.oid), 0) FROM pg_catalog.pg_class c
                 WHERE c.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass({})
                   AND c.relkind OPERATOR(pg_catalog.=) 'r' AND {condition}",
                common::ident::literal(&lock_ahead::written(table))
            )
        };
        let all: Vec<String> = named.chain(written).enumerate().map(one).collect();
        session
            .simple_query(&all.join(" UNION ALL "))
            .await
            .map_err(|source| Error::postgres("could not read which tables a statement changed", source))
    }
}

/// Follows one transaction, statement by statement.
#[derive(Debug)]
pub struct Watch {
    /// Name of each table before the migration, and the files that it was seen to have: ROLLBACK TO gives an old one back.
    tables: BTreeMap<u32, (String, BTreeSet<u32>)>,
    query: String,
    locks: BTreeSet<(u32, String)>,
    /// Tables that were locked before the first statement.
    ahead: BTreeMap<TableName, u32>,
    /// The strongest lock on a table that a statement was told to need.
    needed: BTreeMap<u32, LockMode>,
    /// Something in the current file may have changed settings: not asked before its end.
    unsettled: bool,
    /// Something ran since it was last asked that may have taken a lock.
    due: bool,
    /// Tables whose rows were written since it was last asked.
    written: BTreeSet<TableName>,
    /// A statement was asked for its tables only. What code that nobody sees locked meanwhile (a default's, a view's) is
    /// found out at the end of the transaction.
    owed: bool,
    /// Tables of this transaction's own, whose locks tell nothing.
    own: OwnTables,
    /// An event trigger runs code at every change of the schema.
    event_triggers: bool,
    off: bool,
}

impl Watch {
    /// Begins with what the checks before the migration have read. Behind a fence of EXCLUSIVE locks, that mode tells
    /// nothing.
    pub fn new(tables: &BTreeMap<u32, TableFacts>, fenced: bool) -> Self {
        let modes: Vec<String> = MODES
            .iter()
            .filter(|(mode, _)| !(fenced && *mode == "ExclusiveLock"))
            .map(|(mode, _)| common::ident::literal(mode))
            .collect();
        let query = format!(
            "SELECT l.relation, l.mode, COALESCE(pg_catalog.pg_relation_filenode(l.relation), 0)
             FROM pg_catalog.pg_locks l WHERE l.locktype OPERATOR(pg_catalog.=) 'relation'
               AND l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()
               AND l.relation OPERATOR(pg_catalog.>=) {FIRST_OID}::pg_catalog.oid
               AND l.mode OPERATOR(pg_catalog.=) ANY (ARRAY[{}])",
            modes.join(", ")
        );
        let tables = tables
            .iter()
            .filter(|(_, facts)| facts.name.schema.as_str() != "safe_run")
            .map(|(oid, facts)| (*oid, (facts.name.short(), BTreeSet::from([facts.relfilenode]))))
            .collect();
        Self {
            tables,
            query,
            locks: BTreeSet::new(),
            ahead: BTreeMap::new(),
            needed: BTreeMap::new(),
            unsettled: false,
            due: false,
            written: BTreeSet::new(),
            owed: false,
            own: OwnTables::default(),
            event_triggers: true,
            off: false,
        }
    }

    /// Switches itself off where the role may not look at locks: a refused query would abort the transaction.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn prepare(&mut self, session: &Session) -> Result<()> {
        let row = session
            .query_one(
                "SELECT pg_catalog.has_table_privilege('pg_catalog.pg_locks', 'SELECT')
                    AND pg_catalog.has_table_privilege('pg_catalog.pg_class', 'SELECT')
                    AND pg_catalog.has_function_privilege('pg_catalog.to_regclass(pg_catalog.text)', 'EXECUTE')
                    AND pg_catalog.has_function_privilege('pg_catalog.pg_lock_status()', 'EXECUTE')
                    AND pg_catalog.has_function_privilege('pg_catalog.pg_relation_filenode(pg_catalog.regclass)', 'EXECUTE'),
                 EXISTS (SELECT FROM pg_catalog.pg_event_trigger WHERE evtenabled OPERATOR(pg_catalog.<>) 'D')",
                &[],
            )
            .await
            .map_err(|source| Error::postgres("could not ask for the right to see locks", source))?;
        // Where no table was there before, there is nothing to tell.
        self.off = !row.get::<_, bool>(0) || self.tables.is_empty();
        self.event_triggers = row.get(1);
        Ok(())
    }

    /// A new transaction with the session's own settings: no lock is held.
    pub fn begin(&mut self) {
        self.go_on();
        self.unsettled = false;
    }

    /// A new transaction in the middle of a file, whose settings stay.
    pub fn go_on(&mut self) {
        self.locks.clear();
        self.ahead.clear();
        self.needed.clear();
        self.own.forget();
        self.due = false;
        self.written.clear();
        self.owed = false;
    }

    /// These tables were locked before the first statement.
    ///
    /// # Errors
    /// As [`Watch::after`].
    pub async fn took_ahead(&mut self, session: &Session, tables: BTreeMap<TableName, u32>) -> Result<()> {
        if !tables.is_empty() {
            self.ask(session).await?;
        }
        self.ahead = tables;
        Ok(())
    }

    /// The locks that the statement needs and that were taken ahead.
    fn needs(&mut self, statement: &Statement) -> Vec<LockTaken> {
        if self.off {
            return Vec::new();
        }
        let mut found = Vec::new();
        for (name, mode) in lock_ahead::wanted([statement]) {
            let told = MODES.iter().any(|(_, words)| *words == mode.sql());
            let Some((oid, (table, _))) =
                self.ahead.get(&name).and_then(|oid| self.tables.get_key_value(oid)).filter(|_| told)
            else {
                continue;
            };
            if self.needed.get(oid).is_none_or(|before| *before < mode) {
                self.needed.insert(*oid, mode);
                found.push(LockTaken { table: table.clone(), mode: mode.sql().to_owned() });
            }
        }
        found
    }

    /// What is to be asked of `statement`, which runs next: [`Question::ask`] is sent with it, and its answer is for
    /// [`Watch::after`].
    ///
    /// Where the statement locks nothing but the tables that it names, and every lock that was taken before is known, it
    /// is enough to ask which tables these are.
    pub fn question<'s>(&mut self, statement: &'s Statement) -> Question<'s> {
        let unsettles = may_change_settings(&statement.class);
        let kept = self.own.keeps_to(statement).filter(|_| !self.event_triggers);
        let locks = !self.off && may_lock(&statement.class) && !kept.as_ref().is_some_and(Vec::is_empty);
        let asks = locks && !(self.due || self.unsettled || unsettles);
        let named = kept.filter(|_| asks && self.written.len() <= NAMES_ASKED);
        let written = if named.is_some() { self.written.iter().cloned().collect() } else { Vec::new() };
        self.written.extend(statement.class.effects.iter().filter_map(|effect| match &effect.target {
            Target::Table(table) => Some(table.clone()),
            Target::Schema(_) | Target::Everything => None,
        }));
        Question { unsettles, locks, named, written }
    }

    /// What `statement`, which has just succeeded, did; nothing where that can't be asked safely.
    ///
    /// # Errors
    /// The connection is gone, or a signal cancelled the query.
    pub async fn after(
        &mut self,
        session: &Session,
        statement: &Statement,
        question: &Question<'_>,
        answer: Result<Vec<SimpleQueryMessage>>,
    ) -> Result<TableFootprint> {
        self.unsettled |= question.unsettles;
        let known = question.named.is_some() && self.knows(question, &answer?);
        self.due |= question.locks && !known;
        if known {
            self.written.clear();
            self.owed = true;
        }
        let mut footprint =
            if self.unsettled || !self.due { TableFootprint::default() } else { self.ask(session).await? };
        footprint.locks.extend(self.needs(statement));
        footprint.locks.sort();
        footprint.locks.dedup();
        Ok(footprint)
    }

    /// Whether looking at all locks would tell nothing: each table that the statement names is one that was there before,
    /// a lock is known on it beside which the statement's own is no news, nothing inherits from it, and its rows are
    /// where they were.
    fn knows(&self, question: &Question<'_>, answer: &[SimpleQueryMessage]) -> bool {
        let named = question.named.as_deref().unwrap_or_default();
        let mut left: BTreeSet<usize> = (0..named.len() + question.written.len()).collect();
        for message in answer {
            let SimpleQueryMessage::Row(row) = message else { continue };
            let number = |column| row.get(column).and_then(|text| text.parse::<u32>().ok()).unwrap_or(0);
            let (place, oid, file) = (number(0) as usize, number(1), number(2));
            let known = named.get(place).is_none_or(|lock| {
                let held = |mode: &str| self.locks.contains(&(oid, mode.to_owned()));
                // CREATE INDEX takes this mode always; of ALTER TABLE only the server knows.
                let same = lock.mode == LockMode::Share && held("ShareLock");
                let there = self.tables.get(&oid).is_some_and(|(_, files)| files.contains(&file));
                there && (same || held(STRONGEST.0))
            });
            if known {
                left.remove(&place);
            }
        }
        left.is_empty()
    }

    /// What the file did that no statement of it was asked for. The session's settings have to be reset before. `last`: the
    /// transaction ends with it.
    ///
    /// # Errors
    /// As [`Watch::after`].
    pub async fn after_file(&mut self, session: &Session, last: bool) -> Result<TableFootprint> {
        let asked = if self.due || (last && self.owed) {
            self.ask(session).await?
        } else {
            TableFootprint::default()
        };
        // The settings are the session's own again: names may mean other tables.
        if std::mem::take(&mut self.unsettled) {
            self.own.forget();
        }
        Ok(asked)
    }

    async fn ask(&mut self, session: &Session) -> Result<TableFootprint> {
        self.due = false;
        self.written.clear();
        self.owed = false;
        if self.off {
            return Ok(TableFootprint::default());
        }
        let messages = session
            .simple_query(&self.query)
            .await
            .map_err(|source| Error::postgres("could not read which locks are held", source))?;
        let mut footprint = TableFootprint::default();
        let mut new: Vec<(u32, LockTaken)> = Vec::new();
        for message in &messages {
            let SimpleQueryMessage::Row(row) = message else { continue };
            let number = |column| row.get(column).and_then(|text| text.parse::<u32>().ok()).unwrap_or(0);
            let (oid, mode, file) = (number(0), row.get(1).unwrap_or_default(), number(2));
            let Some((table, files)) = self.tables.get_mut(&oid) else { continue };
            if self.locks.insert((oid, mode.to_owned())) {
                let mode = MODES.iter().find(|(name, _)| *name == mode).map_or(mode, |(_, words)| *words);
                new.push((oid, LockTaken { table: table.clone(), mode: mode.to_owned() }));
            }
            // A table that is gone has no file.
            if file != 0 && files.insert(file) {
                footprint.rewritten.push(table.clone());
            }
        }
        // Beside the strongest lock, another one on the same table makes nobody wait.
        let strongest = |oid: u32| self.locks.contains(&(oid, STRONGEST.0.to_owned()));
        new.retain(|(oid, lock)| lock.mode == STRONGEST.1 || !strongest(*oid));
        footprint.locks = new.into_iter().map(|(_, lock)| lock).collect();
        footprint.locks.sort();
        footprint.rewritten.sort();
        footprint.rewritten.dedup();
        Ok(footprint)
    }
}

/// Whether a setting may be another one afterwards: set here, or by code that can't be seen.
fn may_change_settings(class: &Class) -> bool {
    class.kind == StatementKind::Set
        || class.runs_code.is_some()
        || class.unread.is_some()
        || class.functions.iter().any(|function| !HARMLESS.contains(&function.name.as_str()))
}

/// Whether it may take a lock that keeps others waiting. Reading and writing rows does not.
fn may_lock(class: &Class) -> bool {
    let only_rows = matches!(
        class.kind,
        StatementKind::Select
            | StatementKind::Insert
            | StatementKind::Update
            | StatementKind::Delete
            | StatementKind::Merge
            | StatementKind::Copy
            | StatementKind::Set
            | StatementKind::TransactionControl(_)
    );
    !only_rows || class.calls_functions() || class.runs_code.is_some() || class.unread.is_some()
}
