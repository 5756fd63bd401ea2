//! One scan per table: its rows, and the violations of its CHECK, NOT NULL, domain and partition rules, counted together.
//! The rules come from a file for each check.
//!
//! Only a rule that is violated costs a second scan, which fetches the keys. A rule whose expression raises is counted
//! alone, so that it cannot hide the others.

use std::collections::BTreeMap;

use common::{
    error::Result,
    ident::{QualifiedName, printable, with_suffix},
    postgres::who_asks::{Rights, Standings},
};

use crate::{
    catalogue::{CheckKind, Level},
    check_constraints, domains,
    model::{CheckResults, Finding, Severity, Skipped, TableRows},
    not_null,
    options::Options,
    outcome::Outcome,
    partitions,
    question::Question,
    rule::{RULES_PER_SCAN, Repair, Rule},
    session::{Answer, CheckSession, RefusedQuery, number, text},
    violations::{self, Subject, Violations},
};

/// The key of a table's rows: the primary key's columns, as an expression of type text. A type of somebody's own is printed and
/// not cast: a cast is his function, and would say what he likes.
const PRIMARY_KEYS: &str = r"
SELECT i.indrelid,
  CASE WHEN count(*) = 1 THEN min(format(CASE WHEN a.atttypid < 16384 THEN '%I::text' ELSE 'pg_catalog.format(''%%s'', %I)' END, a.attname))
       ELSE format('ROW(%s)::text', string_agg(format('%I', a.attname), ', ' ORDER BY k.i)) END
FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, i)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
WHERE i.indisprimary AND c.relkind = 'r' AND k.i <= i.indnkeyatts
GROUP BY i.indrelid";

/// The scan of one heap.
#[derive(Debug)]
pub(super) struct Scan {
    pub table: u32,
    pub rules: Vec<Rule>,
    pub counts_rows: bool,
    name: QualifiedName,
    root: Option<u32>,
    /// The primary key as text; `None` where there is none.
    row_key: Option<String>,
    pub rights: Rights,
    /// The session's own path leads into no schema in which somebody else could put what is looked up.
    may_use_path: bool,
}

/// A scan for every heap, with every rule that is wanted.
pub(super) async fn list(
    session: &CheckSession<'_>,
    standings: &Standings,
    results: &mut CheckResults,
    options: &Options,
) -> Result<Vec<Scan>> {
    let counts_rows = options.wants(CheckKind::Rows);
    let mut rules: BTreeMap<u32, Vec<Rule>> = BTreeMap::new();
    let mut add = |more: Vec<(u32, Rule)>| {
        more.into_iter().for_each(|(table, rule)| rules.entry(table).or_default().push(rule));
    };
    if options.wants(CheckKind::Check) {
        add(check_constraints::rules(session).await?);
    }
    if options.wants(CheckKind::NotNull) {
        add(not_null::rules(session).await?);
    }
    if options.wants(CheckKind::Domains) {
        add(domains::rules(session).await?);
    }
    if options.wants(CheckKind::Partitions) && options.level > Level::Fast {
        let (rules, skipped) = partitions::rules(session, standings, &results.tables).await?;
        add(rules);
        results.skipped.extend(skipped);
    }
    let mut keys: BTreeMap<u32, String> = BTreeMap::new();
    if !rules.is_empty() {
        for row in session.required("the primary keys", PRIMARY_KEYS).await? {
            keys.insert(number(&row, 0), text(&row, 1));
        }
    }
    let path_is_open = standings.path_is_open(&session.own_search_path());
    Ok(results
        .tables
        .iter()
        .filter(|(_, facts)| facts.kind == 'r')
        .map(|(oid, facts)| Scan {
            table: *oid,
            rules: rules.remove(oid).unwrap_or_default(),
            counts_rows,
            name: facts.name.clone(),
            root: facts.root,
            row_key: keys.remove(oid),
            rights: standings.of(*oid),
            may_use_path: standings.of(*oid) != Rights::Session || !path_is_open,
        })
        .filter(|scan| scan.counts_rows || !scan.rules.is_empty())
        .collect())
}

impl Scan {
    /// Counts the rows and the violations of the first rules.
    pub fn question(&self) -> Question {
        let (rules, _) = self.rules.split_at(self.rules.len().min(RULES_PER_SCAN));
        Question::of_rules(&self.rights, self.counts(rules))
    }

    /// The rows, and the violations of each of `rules`.
    fn counts(&self, rules: &[Rule]) -> String {
        let filters: Vec<String> =
            rules.iter().map(|rule| format!(",\n count(*) FILTER (WHERE {})", rule.violated)).collect();
        format!("SELECT count(*){} FROM ONLY {}", filters.concat(), self.name)
    }

    /// Counts the violations of the rules that are left, and fetches those that were found.
    pub async fn go_on(
        &self,
        session: &CheckSession<'_>,
        size_bytes: i64,
        answer: Answer,
        out: &mut Outcome,
    ) -> Result<()> {
        let (first, more) = self.rules.split_at(self.rules.len().min(RULES_PER_SCAN));
        self.read(session, size_bytes, first, answer, true, out).await?;
        for rules in more.chunks(RULES_PER_SCAN) {
            let question = Question::of_rules(&self.rights, self.counts(rules));
            let answer = session.ask(size_bytes, &question).await?;
            self.read(session, size_bytes, rules, answer, false, out).await?;
        }
        Ok(())
    }

    async fn read(
        &self,
        session: &CheckSession<'_>,
        size_bytes: i64,
        rules: &[Rule],
        answer: Answer,
        records_rows: bool,
        out: &mut Outcome,
    ) -> Result<()> {
        match answer {
            Ok(rows) => {
                let Some(row) = rows.first() else { return Ok(()) };
                if records_rows {
                    self.record_rows(number(row, 0), out);
                }
                for (index, rule) in rules.iter().enumerate() {
                    out.ran.push(rule.key.clone());
                    if number::<i64>(row, index + 1) > 0 {
                        self.fetch(session, size_bytes, rule, out).await?;
                    }
                }
            }
            Err(refused) => {
                self.scan_one_by_one(session, size_bytes, rules, records_rows, &refused, out).await?;
            }
        }
        Ok(())
    }

    /// The rows at `places`, and the violations among them.
    pub fn counts_among(&self, places: &str) -> String {
        format!("{} WHERE ctid = ANY ({places})", self.counts(&self.rules))
    }

    /// The rows at `places`.
    pub fn rows_among(&self, places: &str) -> String {
        format!("{} WHERE ctid = ANY ({places})", self.counts(&[]))
    }

    /// After a refusal of the whole scan: the rows alone, then every rule alone.
    async fn scan_one_by_one(
        &self,
        session: &CheckSession<'_>,
        size_bytes: i64,
        rules: &[Rule],
        records_rows: bool,
        refused: &RefusedQuery,
        out: &mut Outcome,
    ) -> Result<()> {
        let count = format!("SELECT count(*) FROM ONLY {}", self.name);
        match session.ask(size_bytes, &Question::of(&self.rights, count)).await? {
            Ok(rows) => {
                if let (true, Some(row)) = (records_rows, rows.first()) {
                    self.record_rows(number(row, 0), out);
                }
            }
            Err(_) => {
                // The table itself cannot be read: one line, not one for every rule.
                out.skipped.push(Skipped {
                    check: if self.counts_rows { CheckKind::Rows } else { CheckKind::Check },
                    object: self.name.short(),
                    why: match rules.len() {
                        0 => refused.message.clone(),
                        many => format!("{} (its {many} rules were not checked either)", refused.message),
                    },
                    counts_for_strict: true,
                });
                return Ok(());
            }
        }
        for rule in rules {
            let sql = format!("SELECT count(*) FILTER (WHERE {}) FROM ONLY {}", rule.violated, self.name);
            let question = Question::of_rules(&self.rights, sql);
            match session.ask(size_bytes, &question).await? {
                Ok(rows) => {
                    out.ran.push(rule.key.clone());
                    if rows.first().is_some_and(|row| number::<i64>(row, 0) > 0) {
                        self.fetch(session, size_bytes, rule, out).await?;
                    }
                }
                Err(refused) => self.refused(session, size_bytes, rule, refused, question, out).await?,
            }
        }
        Ok(())
    }

    /// A rule that cannot be evaluated: a violation if its own expression raises, else skipped.
    async fn refused(
        &self,
        session: &CheckSession<'_>,
        size_bytes: i64,
        rule: &Rule,
        refused: RefusedQuery,
        question: Question,
        out: &mut Outcome,
    ) -> Result<()> {
        // A function in the expression may need the path that the session normally has.
        let with_path = Question { path: Some(session.own_search_path()), ..question };
        if self.may_use_path
            && let Ok(rows) = session.ask(size_bytes, &with_path).await?
        {
            out.ran.push(rule.key.clone());
            let count: i64 = rows.first().map_or(0, |row| number(row, 0));
            if count > 0 {
                let found = Violations { count, ..Violations::default() };
                out.findings.push(violations::finding(self.subject(rule), found));
            }
            return Ok(());
        }
        // Undefined function, object, table: what the path would have found.
        let needs_path = matches!(refused.sqlstate.as_str(), "42883" | "42704" | "42P01");
        let unable = (needs_path && !self.may_use_path)
            || refused.sqlstate == "42501"
            || refused.sqlstate.starts_with("53")
            || refused.sqlstate.starts_with("55");
        if unable {
            out.skipped.push(Skipped {
                check: rule.key.check,
                object: format!("{} ({})", self.name.short(), printable(&rule.label)),
                why: refused.message,
                counts_for_strict: true,
            });
            return Ok(());
        }
        out.ran.push(rule.key.clone());
        let how = match rule.key.check {
            // Integrity constraint violation, by a value that was read again.
            CheckKind::Domains if refused.sqlstate.starts_with("23") => "is violated",
            _ => "cannot be evaluated",
        };
        let detail = format!("{} {how}: {}", self.place(rule), refused.message);
        let mut finding = Finding::state(rule.key.clone(), self.name.short(), &refused.sqlstate, detail);
        finding.severity = rule.severity;
        finding.definition = rule.definition.clone();
        out.findings.push(finding);
        Ok(())
    }

    /// What the answer about a rule depends on beside the rule.
    pub fn context(&self) -> impl std::fmt::Debug {
        (&self.name, &self.row_key)
    }

    /// The table, of which no row was counted.
    pub fn no_rows(&self) -> TableRows {
        TableRows { name: self.name.clone(), rows: 0, root: self.root }
    }

    fn record_rows(&self, rows: i64, out: &mut Outcome) {
        if self.counts_rows {
            out.rows.insert(self.table, TableRows { rows, ..self.no_rows() });
        }
    }

    /// Fetches the keys of the rows that violate `rule`.
    ///
    /// `IS TRUE` keeps the planner of 17 and later from answering an `IS NULL` inside the expression by `attnotnull`.
    ///
    /// A table without a primary key gives no hash: a hash of the whole row would change with every added column, and
    /// old violations would look new.
    async fn fetch(
        &self,
        session: &CheckSession<'_>,
        size_bytes: i64,
        rule: &Rule,
        out: &mut Outcome,
    ) -> Result<()> {
        let key = self.row_key.as_deref().unwrap_or("''::text");
        let grouped = format!(
            "SELECT {key} AS k, count(*) AS n FROM ONLY {} WHERE ({}) IS TRUE GROUP BY 1",
            self.name, rule.violated
        );
        match violations::fetch(session, size_bytes, Question::of_rules(&self.rights, grouped)).await? {
            Ok(mut found) => {
                if self.row_key.is_none() {
                    found.hash.clear();
                    found.keys.clear();
                }
                out.findings.push(violations::finding(self.subject(rule), found));
            }
            Err(refused) => out.skipped.push(Skipped {
                check: rule.key.check,
                object: format!("{} ({})", self.name.short(), printable(&rule.label)),
                why: format!("its violations could be counted but not listed: {}", refused.message),
                counts_for_strict: true,
            }),
        }
        Ok(())
    }

    fn subject<'a>(&self, rule: &'a Rule) -> Subject<'a> {
        Subject {
            key: &rule.key,
            object: self.name.short(),
            severity: rule.severity,
            definition: &rule.definition,
            one: "row violates",
            many: "rows violate",
            place: self.place(rule),
            repair_sql: (rule.severity == Severity::Failure).then(|| self.repair_sql(rule)),
        }
    }

    /// `CHECK total_positive of orders`, `NOT NULL of orders.total`, `the domain of orders.email (email)`.
    fn place(&self, rule: &Rule) -> String {
        let (table, label) = (self.name.short(), printable(&rule.label));
        let mut place = match rule.key.check {
            CheckKind::NotNull => format!("NOT NULL of {table}.{label}"),
            CheckKind::Domains => format!("the domain of {table}.{label}"),
            CheckKind::Partitions => format!("the partition bound of {table}"),
            _ => format!("CHECK {label} of {table}"),
        };
        if rule.severity == Severity::Note {
            place.push_str(", which is not enforced for them");
        }
        if rule.volatile {
            place.push_str(", an expression that is not immutable");
        }
        place
    }

    /// `IS TRUE` for the reason that [`Self::fetch`] has.
    fn repair_sql(&self, rule: &Rule) -> String {
        let table = &self.name;
        let violated = format!("({}) IS TRUE", rule.violated);
        match &rule.repair {
            Repair::Aside => {
                let suffix = match rule.key.check {
                    CheckKind::NotNull => "_nulls",
                    _ => "_violations",
                };
                let name = with_suffix(table.name.as_str(), suffix);
                let aside = QualifiedName::new(table.schema.clone(), name.as_str());
                format!(
                    "BEGIN ISOLATION LEVEL REPEATABLE READ;\n\
                     CREATE TABLE {aside} AS SELECT * FROM ONLY {table} WHERE {violated};\n\
                     DELETE FROM ONLY {table} WHERE {violated};\nCOMMIT;"
                )
            }
            Repair::Default => {
                let column = common::ident::Ident::new(rule.label.as_str());
                format!("UPDATE ONLY {table} SET {column} = DEFAULT WHERE {violated};")
            }
            Repair::Reinsert(root, columns) => format!(
                "WITH moved AS (DELETE FROM ONLY {table} WHERE {violated} RETURNING {columns})\n\
                 INSERT INTO {root} ({columns}) SELECT {columns} FROM moved;"
            ),
        }
    }
}
