//! Answers of a pass with writers at work that still hold behind the fence, and are not asked for again.
//!
//! An answer is taken over only when all of this is so (docs/exactness.md, E9); where anything is in doubt, the question is
//! asked again:
//!
//! - The question is the same, letter for letter: every field of the rule, its SQL, and the heaps that it reads.
//! - It was answered with a number of rows, not refused.
//! - No block of its tables changed in between, as the server's WAL summaries say: of the heaps, of their indexes, and of
//!   what is stored out of line. That is exact (docs/exactness.md, E5 and E6): whoever was at work at the first pass's snapshot
//!   wrote all he ever wrote after its base.
//! - The catalog's rows of its tables are the very same versions, and the columns' types are such that nothing but the
//!   blocks decides what the values are ([`wal_summary::forms`]).
//! - It calls nothing but PostgreSQL's own immutable functions and operators ([`ASK_AGAIN`]). What a function of the user
//!   reads, nobody knows, whatever it says of itself.
//!
//! Never taken over: whatever the catalog alone answers (it costs nothing), sequences (`setval` leaves no trace in a table),
//! code, amcheck, which looks at the pages as they are and not at a snapshot, and content, whose text has the names of enum
//! labels: these are printed as they are now, whatever the snapshot, and no lock on a table keeps them.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Deref,
};

use common::{
    digest::sha256_hex,
    error::{Error, Result},
    postgres::{
        Client,
        wal_summary::{self, Form, Point, or_why_not},
    },
    snapshot::wal_base::{Changes, Lsn, WalBase},
};

use crate::{
    catalogue::CheckKind,
    model::{CheckResults, RuleKey, TableRows, Wording},
    question::Question,
    session::{CheckSession, TextRow},
};

/// Blocks to a piece; the log is asked about nothing finer.
pub(super) const PIECE_BLOCKS: u64 = 8;

/// A table with more changed pieces is read whole: the rows of each block are named one by one.
pub(super) const MOST_PIECES: usize = 256;

/// The tables `$1` whose blocks the log tells of: oid, a hash of the versions (xmin) of every catalog row that says what they
/// are, and all their files: the heap, its indexes, and the same of what is stored out of line.
///
/// A row of the catalog that was changed, and one that was changed and changed back, has another xmin. VACUUM and ANALYZE
/// update theirs in place. The columns of `pg_class` are read and not `pg_relation_filenode`, which knows no snapshot.
const TABLES: &str = "
SELECT c.oid, pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(pg_catalog.concat_ws(E'\\n', c.xmin, n.xmin, c.relfilenode,
    (SELECT pg_catalog.string_agg(a.attnum || ' ' || a.xmin, ',' ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
      WHERE a.attrelid = c.oid AND a.attnum > 0),
    (SELECT pg_catalog.string_agg(d.oid || ' ' || d.xmin, ',' ORDER BY d.oid) FROM pg_catalog.pg_attrdef d WHERE d.adrelid = c.oid),
    (SELECT t.oid || ' ' || t.xmin || ' ' || t.relfilenode FROM pg_catalog.pg_class t WHERE t.oid = c.reltoastrelid),
    (SELECT pg_catalog.string_agg(x.oid || ' ' || x.xmin || ' ' || x.relfilenode || ' ' || i.xmin, ',' ORDER BY x.oid)
       FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
      WHERE i.indrelid = ANY (ARRAY[c.oid, c.reltoastrelid]))), 'UTF8')), 'hex'),
  ARRAY(SELECT c.relfilenode
    UNION ALL SELECT t.relfilenode FROM pg_catalog.pg_class t WHERE t.oid = c.reltoastrelid
    UNION ALL SELECT x.relfilenode FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
      WHERE i.indrelid = ANY (ARRAY[c.oid, c.reltoastrelid]))
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = ANY ($1) AND c.relkind = 'r' AND c.relpersistence = 'p' AND c.relfilenode <> 0";

/// Every table that could be in [`TABLES`].
const HEAPS: &str = "SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')";

/// What may have another answer although no block of its tables changed: kind, oid.
///
/// An expression is trusted if it consists of the nodes listed here, and calls what PostgreSQL brings (oids below 16384) and
/// calls immutable. Left out on purpose: CURRENT_TIMESTAMP and its like, casts through text, GREATEST, XML, JSON. `pg_depend`
/// would not do: it knows nothing of what PostgreSQL brings, `now()` included.
///
/// `all`: somebody gave a type of PostgreSQL, or one that is made of such types, another idea of what is equal. `keys`: a foreign
/// key may compare through a cast that is somebody's function. A foreign table below a partitioned one has no blocks here.
const ASK_AGAIN: &str = r"
WITH trees(kind, oid, tree) AS (
  SELECT 'constraint', oid, conbin::text FROM pg_catalog.pg_constraint WHERE conbin IS NOT NULL
  UNION ALL SELECT 'index', indexrelid, concat(indexprs::text, indpred::text)
    FROM pg_catalog.pg_index WHERE (indisunique OR indisexclusion) AND (indexprs IS NOT NULL OR indpred IS NOT NULL)
  UNION ALL SELECT 'parent', partrelid, partexprs::text FROM pg_catalog.pg_partitioned_table WHERE partexprs IS NOT NULL),
 found(kind, oid) AS (
  SELECT t.kind, t.oid FROM trees t
  WHERE EXISTS (SELECT FROM regexp_matches(t.tree, '\{([A-Z_0-9]+)', 'g') m WHERE m[1] <> ALL (ARRAY['VAR', 'CONST', 'OPEXPR',
      'FUNCEXPR', 'BOOLEXPR', 'NULLTEST', 'BOOLEANTEST', 'RELABELTYPE', 'SCALARARRAYOPEXPR', 'CASEEXPR', 'CASEWHEN', 'CASETESTEXPR',
      'COALESCEEXPR', 'ARRAYEXPR', 'DISTINCTEXPR', 'NULLIFEXPR', 'COERCETODOMAINVALUE', 'COLLATEEXPR']))
    OR EXISTS (SELECT FROM regexp_matches(t.tree, ':[a-z]*funcid ([0-9]+)', 'g') m LEFT JOIN pg_catalog.pg_proc p ON p.oid = m[1]::oid
      WHERE m[1] <> '0' AND (p.oid >= 16384 OR p.provolatile <> 'i') IS NOT FALSE)
    OR EXISTS (SELECT FROM regexp_matches(t.tree, ':opno ([0-9]+)', 'g') m LEFT JOIN pg_catalog.pg_operator o ON o.oid = m[1]::oid
      LEFT JOIN pg_catalog.pg_proc p ON p.oid = o.oprcode WHERE (o.oid >= 16384 OR p.provolatile <> 'i') IS NOT FALSE)
  UNION ALL SELECT 'index', indexrelid FROM pg_catalog.pg_index
    WHERE (indisunique OR indisexclusion) AND EXISTS (SELECT FROM unnest(indclass::oid[]) u WHERE u >= 16384)
  UNION ALL SELECT 'parent', partrelid FROM pg_catalog.pg_partitioned_table WHERE EXISTS (SELECT FROM unnest(partclass::oid[]) u WHERE u >= 16384)
  UNION ALL SELECT 'constraint', c.oid FROM pg_catalog.pg_constraint c WHERE c.contype IN ('f', 'x', 'p', 'u')
    AND EXISTS (SELECT FROM unnest(c.conpfeqop || c.conexclop) u LEFT JOIN pg_catalog.pg_operator o ON o.oid = u
      LEFT JOIN pg_catalog.pg_proc p ON p.oid = o.oprcode WHERE (o.oid >= 16384 OR p.provolatile <> 'i') IS NOT FALSE)
  UNION ALL SELECT 'constraint', c.oid FROM pg_catalog.pg_constraint c WHERE c.contype = 'f'
    AND EXISTS (SELECT FROM pg_catalog.pg_class r WHERE r.oid IN (c.conrelid, c.confrelid) AND r.relkind = 'p')
    AND EXISTS (SELECT FROM pg_catalog.pg_class r WHERE r.relkind = 'f' AND r.relispartition))
SELECT kind, oid FROM found WHERE kind <> 'parent'
UNION ALL SELECT 'constraint', c.oid FROM pg_catalog.pg_constraint c JOIN found f ON f.kind = 'index' AND f.oid = c.conindid WHERE c.contype <> 'f'
UNION ALL SELECT 'leaf', c.oid FROM pg_catalog.pg_class c WHERE c.relispartition AND c.relkind = 'r'
  AND EXISTS (SELECT FROM pg_catalog.pg_partition_ancestors(c.oid) a(relid) JOIN found f ON f.kind = 'parent' AND f.oid = a.relid)
UNION ALL SELECT 'all', 0 WHERE EXISTS (SELECT FROM pg_catalog.pg_opclass o JOIN pg_catalog.pg_am m ON m.oid = o.opcmethod
  JOIN pg_catalog.pg_type t ON t.oid = o.opcintype
  WHERE o.oid >= 16384 AND o.opcdefault AND m.amname IN ('btree', 'hash') AND (t.oid < 16384 OR t.typtype <> 'b'))
UNION ALL SELECT 'keys', 0 WHERE EXISTS (SELECT FROM pg_catalog.pg_cast c JOIN pg_catalog.pg_type s ON s.oid = c.castsource
  WHERE c.oid >= 16384 AND c.castmethod = 'f' AND c.casttarget < 16384 AND (s.oid < 16384 OR s.typtype <> 'b'))";

/// What a table's answers depend on beside its blocks, and where these are.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Table {
    form: Form,
    versions: String,
    files: Vec<u32>,
}

/// What has to be asked again whatever the blocks say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Again {
    all: bool,
    keys: bool,
    constraints: HashSet<u32>,
    indexes: HashSet<u32>,
    leaves: HashSet<u32>,
}

/// What a state of the database says of its tables.
#[derive(Debug, Clone)]
struct State {
    tables: BTreeMap<u32, Table>,
    again: Again,
}

impl State {
    async fn read(client: &Client) -> Result<Self> {
        let failed = |source| Error::postgres("could not read what the checks depend on", source);
        // The queries name functions and operators that somebody's own might hide.
        client.batch_execute("SET LOCAL search_path = pg_catalog").await.map_err(failed)?;
        let oids: Vec<u32> =
            client.query(HEAPS, &[]).await.map_err(failed)?.iter().map(|row| row.get(0)).collect();
        let mut forms = wal_summary::forms(client, &oids).await?;
        let mut tables = BTreeMap::new();
        for row in client.query(TABLES, &[&oids]).await.map_err(failed)? {
            let oid: u32 = row.get(0);
            if let Some(form) = forms.remove(&oid).filter(|form| form.fingerprint.is_some()) {
                tables.insert(oid, Table { form, versions: row.get(1), files: row.get(2) });
            }
        }
        let mut again = Again::default();
        for row in client.query(ASK_AGAIN, &[]).await.map_err(failed)? {
            let oid: u32 = row.get(1);
            match row.get::<_, String>(0).as_str() {
                "constraint" => drop(again.constraints.insert(oid)),
                "index" => drop(again.indexes.insert(oid)),
                "leaf" => drop(again.leaves.insert(oid)),
                "keys" => again.keys = true,
                _ => again.all = true,
            }
        }
        Ok(Self { tables, again })
    }
}

impl Again {
    fn contains(&self, key: &RuleKey, definition: &str) -> bool {
        self.all
            || match key.check {
                CheckKind::ForeignKeys => self.keys || self.constraints.contains(&key.rule_oid),
                CheckKind::Check | CheckKind::Exclude => self.constraints.contains(&key.rule_oid),
                // One without a definition is about what lies deeper in a type: the rules there are not in the question.
                CheckKind::Domains => definition.is_empty() || self.constraints.contains(&key.rule_oid),
                CheckKind::Unique => self.indexes.contains(&key.rule_oid),
                CheckKind::Partitions => self.leaves.contains(&key.object_oid),
                CheckKind::NotNull | CheckKind::Rows => false,
                _ => true,
            }
    }
}

/// The state that a first pass reads, and where in the log it is.
#[derive(Debug)]
pub struct Beginning {
    identity: (String, i64, u32),
    from: Lsn,
    to: Lsn,
    state: State,
}

impl Beginning {
    /// Reads it on `reader`, which has joined the pass's snapshot and is good for nothing else afterwards. `points` were read
    /// before that snapshot was taken.
    ///
    /// The inner error says why no answer of the pass can be taken over.
    pub async fn read(reader: &Client, points: &[Point]) -> Result<std::result::Result<Self, String>> {
        let read = async {
            if let Some(why) = wal_summary::unavailable(reader).await? {
                return Ok(Err(why));
            }
            let oldest = wal_summary::oldest_in_progress(reader).await?;
            let Some(from) = wal_summary::latest_safe(points, oldest) else {
                return Ok(Err("a transaction that was in progress began before this run".to_owned()));
            };
            let state = State::read(reader).await?;
            let identity = wal_summary::identity(reader).await?;
            Ok(Ok(Self { identity, from, to: wal_summary::position(reader).await?, state }))
        };
        or_why_not(read.await)
    }

    /// Ends the pass. `client` is outside of a transaction; a CHECKPOINT is run, so that the one behind the fence has less to
    /// do.
    pub async fn end(
        self,
        client: &Client,
        results: CheckResults,
    ) -> Result<std::result::Result<FirstPass, String>> {
        let settled = async {
            if let Some(why) = wal_summary::settle(client).await? {
                return Ok(Err(why));
            }
            let (system_identifier, timeline, database_oid) = self.identity;
            let anchor = wal_summary::anchor(client, timeline, self.to).await?;
            let Some(anchor) = anchor else {
                return Ok(Err("the first pass's place in the log is in no summary".to_owned()));
            };
            let base =
                WalBase { system_identifier, timeline, database_oid, from: self.from, to: self.to, anchor };
            Ok(Ok(FirstPass { results, base, state: self.state }))
        };
        or_why_not(settled.await)
    }
}

/// A pass with writers at work.
#[derive(Debug)]
pub struct FirstPass {
    results: CheckResults,
    base: WalBase,
    state: State,
}

impl FirstPass {
    /// What still holds in the later state that `reader` has joined (it is good for nothing else afterwards). `client` is
    /// outside of a transaction, on the same database.
    ///
    /// `first` still sees the first pass's state, where it could be kept: then of tables that changed a little only the changed
    /// rows are looked at again. [`Carried::release`] ends its transaction.
    ///
    /// The inner error says why nothing can be taken over.
    pub async fn hold_against(
        self,
        reader: &Client,
        client: &Client,
        first: Option<FirstState>,
    ) -> Result<std::result::Result<Carried, String>> {
        let compared = async {
            let (system, timeline, database) = wal_summary::identity(client).await?;
            let base = &self.base;
            if (&base.system_identifier, base.timeline, base.database_oid) != (&system, timeline, database) {
                return Ok(Err("the server was replaced by another one".to_owned()));
            }
            // After the later state was there: whatever it sees was written to the log before this.
            let position = wal_summary::position(client).await?;
            let now = State::read(reader).await?;
            if let Some(why) = wal_summary::settle(client).await? {
                return Ok(Err(why));
            }
            let changes = wal_summary::changes(client, base, position, PIECE_BLOCKS).await?;
            Ok(changes.map(|changes| (now, changes)))
        };
        let compared = or_why_not(compared.await)?;
        Ok(compared.map(|(now, changes)| {
            let unchanged = unchanged(&self.state, &now, &changes);
            let pieces = if first.is_some() { pieces(&self.state, &now, &changes) } else { HashMap::new() };
            Carried {
                results: self.results,
                unchanged,
                pieces,
                again: [self.state.again, now.again],
                first: tokio::sync::Mutex::new(first),
            }
        }))
    }
}

/// The tables of which everything is as it was.
fn unchanged(then: &State, now: &State, changes: &Changes) -> HashSet<u32> {
    let same = |oid: &u32, table: &Table| then.tables.get(oid) == Some(table);
    let touched = |table: &Table| table.files.iter().any(|file| changes.relations.contains_key(file));
    now.tables
        .iter()
        .filter(|(oid, table)| !changes.everything && same(oid, table) && !touched(table))
        .map(|(oid, _)| *oid)
        .collect()
}

/// The pieces of each heap that changed, where these are few and everything else about the table is as it was. Of a heap that was
/// shortened nothing is said.
fn pieces(then: &State, now: &State, changes: &Changes) -> HashMap<u32, Vec<u64>> {
    let mut pieces = HashMap::new();
    if changes.everything {
        return pieces;
    }
    for (oid, table) in &now.tables {
        if then.tables.get(oid) != Some(table) {
            continue;
        }
        match changes.relations.get(&table.form.filenode) {
            None => drop(pieces.insert(*oid, Vec::new())),
            Some(touched) if touched.limit_block.is_none() && touched.pieces.count() <= MOST_PIECES => {
                pieces.insert(*oid, touched.pieces.iter().collect());
            }
            Some(_) => {}
        }
    }
    pieces
}

/// A session whose transaction has joined the first pass's snapshot.
pub type FirstState = Box<dyn Deref<Target = Client> + Send + Sync>;

/// What a first pass answered, and of which tables that still holds.
pub struct Carried {
    results: CheckResults,
    unchanged: HashSet<u32>,
    pieces: HashMap<u32, Vec<u64>>,
    again: [Again; 2],
    first: tokio::sync::Mutex<Option<FirstState>>,
}

impl std::fmt::Debug for Carried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Carried").field("unchanged", &self.unchanged.len()).finish_non_exhaustive()
    }
}

/// A question as one word: equal only for questions that are equal in everything.
pub(super) fn question(work: &impl std::fmt::Debug, heaps: &[u32]) -> String {
    sha256_hex(format!("{heaps:?} {work:?}").as_bytes())
}

impl Carried {
    fn holds(&self, key: &RuleKey, definition: &str, question: &str, heaps: &[u32]) -> bool {
        heaps.iter().all(|heap| self.unchanged.contains(heap)) && self.is_answered(key, definition, question)
    }

    /// Whether the first pass was asked the same, and its answer depends on nothing but its tables.
    fn is_answered(&self, key: &RuleKey, definition: &str, question: &str) -> bool {
        self.results.questions.get(key).is_some_and(|asked| asked == question)
            && !self.again.iter().any(|again| again.contains(key, definition))
            && !self.was_refused(key)
    }

    /// Whether the first pass found no violation of the rule, for the same question.
    pub(super) fn was_clean(&self, key: &RuleKey, definition: &str, question: &str) -> bool {
        self.results.rules.get(key).is_some_and(|then| then.ran)
            && self.is_answered(key, definition, question)
            && !self.results.findings.iter().any(|finding| finding.key == *key)
    }

    /// The pieces of a heap that changed, if only some rows of it did.
    pub(super) fn pieces(&self, table: u32) -> Option<&[u64]> {
        self.pieces.get(&table).map(Vec::as_slice)
    }

    /// Runs a query in the first pass's state. Nothing: that state is not there any more, or the query was refused.
    pub(super) async fn at_first(&self, question: &Question) -> Option<Vec<TextRow>> {
        let first = self.first.lock().await;
        let client: &Client = first.as_ref()?;
        let session = CheckSession::open(client, 0).await.ok()?;
        let rows = session.ask(0, question).await;
        session.close().await.ok()?;
        rows.ok()?.ok()
    }

    /// Lets go of the first pass's state, and of the locks of whoever read it.
    pub async fn release(&self) {
        if let Some(first) = self.first.lock().await.take() {
            // A session that is gone has no locks.
            let _ = first.batch_execute("ROLLBACK").await;
        }
    }

    /// Whether something about this rule could not be looked at; the table's name alone decides.
    fn was_refused(&self, key: &RuleKey) -> bool {
        let Some(table) = self.results.tables.get(&key.object_oid) else { return true };
        let name = table.name.short();
        self.results
            .skipped
            .iter()
            .any(|skipped| skipped.check == key.check && skipped.object.starts_with(&name))
    }

    /// Puts the answer into `results`, if it still holds.
    pub(super) fn answer(
        &self,
        results: &mut CheckResults,
        key: &RuleKey,
        question: &str,
        heaps: &[u32],
    ) -> bool {
        let Some(state) = results.rules.get_mut(key) else { return false };
        let was_answered = self.results.rules.get(key).is_some_and(|then| then.ran);
        if !was_answered || !self.holds(key, &state.definition, question, heaps) {
            return false;
        }
        let findings = || self.results.findings.iter().filter(|finding| finding.key == *key);
        // What an expression raised depends on which row it came to first.
        if findings().any(|finding| !matches!(finding.wording, Wording::Rows { .. })) {
            return false;
        }
        state.ran = true;
        results.findings.extend(findings().cloned());
        results.carried_rules.insert(key.clone());
        true
    }

    /// The number of rows of a heap, if it is still the same. `table` is how the heap is called now.
    pub(super) fn rows(&self, oid: u32, table: &TableRows) -> Option<TableRows> {
        self.counted(oid, table).filter(|_| self.unchanged.contains(&oid)).cloned()
    }

    /// The number of rows that a heap had at the first pass.
    pub(super) fn counted(&self, oid: u32, table: &TableRows) -> Option<&TableRows> {
        self.results.rows.get(&oid).filter(|then| (&then.name, then.root) == (&table.name, table.root))
    }
}
