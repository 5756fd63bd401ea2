//! The file that can be replayed: what others committed since the snapshot, in the order of their commits, as SQL for the
//! restored database. Pure but for where it writes to.
//!
//! It is one transaction: all of it, or nothing. Triggers and foreign keys are off while it runs, because the log holds what
//! they did as changes of their own.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::File,
    io::{self, BufWriter, Seek, SeekFrom, Write},
};

use common::{
    QualifiedName,
    catalog::Sequence,
    format::plural,
    ident::{literal, printable},
};

use super::{
    attribution::{Attribution, Whose},
    decoding::{Change, Line, Row},
    known::{Known, KnownTable},
    statement::{self, LeftOut, Written},
};
use crate::version_tables;

/// What is in the file, and what is not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Transactions that are certainly others'.
    pub others: u64,
    /// Transactions that may be the run's or others'.
    pub unknown: u64,
    /// Transactions of the run, which are left out.
    pub ours: u64,
    /// Changed rows in the file.
    pub changes: u64,
    /// Changes that can't be replayed: the table and why, and how many. The file stops at each.
    pub impossible: BTreeMap<String, u64>,
    /// Changed rows of tables that the snapshot has not.
    pub new_tables: BTreeMap<String, u64>,
    /// Materialized views that were refreshed.
    pub views: BTreeSet<String>,
    /// Histories of migration tools that others wrote to, which are left out.
    pub histories: BTreeSet<String>,
    /// Columns.
    pub left_out: LeftOut,
    /// Per table: rows that others inserted, updated, deleted; then those of which nobody knows.
    pub tables: BTreeMap<String, [[u64; 3]; 2]>,
}

impl Summary {
    /// Transactions in the file.
    pub fn transactions(&self) -> u64 {
        self.others + self.unknown
    }
}

/// Writes the transactions, one line of the plugin after the other.
pub struct Script<'k, W> {
    known: HashMap<&'k QualifiedName, &'k KnownTable>,
    attribution: &'k Attribution,
    out: W,
    current: Option<Current>,
    summary: Summary,
}

struct Current {
    xid: u32,
    whose: Option<Whose>,
    has_begun: bool,
    /// Where its text begins, and what was counted before, as long as it may turn out to be the run's.
    before: Option<(u64, Summary)>,
}

/// Where the text goes: what was written since a mark can be taken back.
pub trait Target: Write {
    /// Here.
    fn mark(&mut self) -> io::Result<u64>;
    /// Takes back what came after the mark.
    fn back_to(&mut self, mark: u64) -> io::Result<()>;
}

impl Target for BufWriter<File> {
    fn mark(&mut self) -> io::Result<u64> {
        self.stream_position()
    }

    fn back_to(&mut self, mark: u64) -> io::Result<()> {
        self.seek(SeekFrom::Start(mark))?;
        self.get_ref().set_len(mark)
    }
}

impl<'k, W: Target> Script<'k, W> {
    /// Begins it.
    pub fn new(known: &'k Known, attribution: &'k Attribution, out: W) -> Self {
        Self { known: known.by_name(), attribution, out, current: None, summary: Summary::default() }
    }

    /// Takes the next line.
    pub fn line(&mut self, line: &Line) -> io::Result<()> {
        match line {
            Line::Begin(xid) => {
                let whose = self.attribution.whose(*xid);
                let before = match whose {
                    Some(Whose::Unknown) => Some((self.out.mark()?, self.summary.clone())),
                    _ => None,
                };
                self.current = Some(Current { xid: *xid, whose, has_begun: false, before });
                Ok(())
            }
            Line::Commit { at, .. } => self.commit(at),
            Line::Change(change) => self.change(change),
            Line::Truncate(tables) => self.truncate(tables),
            Line::Message => Ok(()),
        }
    }

    /// Ends it.
    pub fn finish(mut self) -> io::Result<(W, Summary)> {
        self.out.flush()?;
        Ok((self.out, self.summary))
    }

    /// Whether the change that comes is for the file; then its transaction has its heading.
    fn begins(&mut self) -> io::Result<Option<(u32, Whose)>> {
        let Some(current) = &mut self.current else {
            return Err(io::Error::other("a change outside of a transaction"));
        };
        let Some(whose) = current.whose else { return Ok(None) };
        if !current.has_begun {
            current.has_begun = true;
            match whose {
                Whose::Ours => self.summary.ours += 1,
                Whose::Unknown => self.summary.unknown += 1,
                Whose::Others => self.summary.others += 1,
            }
            if whose != Whose::Ours {
                let by =
                    if whose == Whose::Others { "by others" } else { "by the run or by others: unknown" };
                writeln!(self.out, "\n-- transaction {}, {by}", current.xid)?;
            }
        }
        Ok((whose != Whose::Ours).then_some((current.xid, whose)))
    }

    fn change(&mut self, change: &Change) -> io::Result<()> {
        if self.is_history(change) {
            return self.migrates(&change.table);
        }
        let Some((xid, whose)) = self.begins()? else { return Ok(()) };
        let name = change.table.short();
        let Some(table) = self.known.get(&change.table).copied() else {
            *self.summary.new_tables.entry(name).or_default() += 1;
            return Ok(());
        };
        if table.kind == "m" {
            self.summary.views.insert(name);
            return Ok(());
        }
        let (verb, place) = match &change.row {
            Row::Insert(_) => ("INSERT into", 0),
            Row::Update { .. } => ("UPDATE of", 1),
            Row::Delete(_) => ("DELETE from", 2),
        };
        let what = format!("transaction {xid}");
        match statement::write(table, &change.row, &what, &mut self.summary.left_out) {
            Written::Sql(sql) => writeln!(self.out, "{sql};")?,
            Written::Nothing => {}
            Written::Impossible(why) => {
                *self.summary.impossible.entry(format!("{name}: {why}")).or_default() += 1;
                let text = format!(
                    "safe-run: {what}, {verb} {name} can't be replayed: {why}; do it by hand, then delete this line"
                );
                writeln!(self.out, "{};", statement::refusal(&text))?;
            }
        }
        self.count(name, whose, place);
        Ok(())
    }

    fn is_history(&self, change: &Change) -> bool {
        let (Row::Insert(fields) | Row::Update { new: fields, .. } | Row::Delete(fields)) = &change.row;
        match self.known.get(&change.table) {
            Some(table) => table.is_history,
            // A tool's first migration makes it.
            None => {
                let has = |name: &str| fields.iter().any(|field| field.name == name);
                change.table.schema.as_str() == "safe_run"
                    || version_tables::is_history(change.table.name.as_str(), has)
            }
        }
    }

    /// The transaction writes into the history of a migration tool. Of those that may be the run's it is the run's then, all of
    /// it. Nobody's line of a history is replayed: what it records is not there.
    fn migrates(&mut self, history: &QualifiedName) -> io::Result<()> {
        let Some(current) = &mut self.current else {
            return Err(io::Error::other("a change outside of a transaction"));
        };
        match (current.whose, current.before.take()) {
            (Some(Whose::Unknown), Some((mark, summary))) => {
                self.out.back_to(mark)?;
                self.summary = summary;
                self.summary.ours += 1;
                current.whose = Some(Whose::Ours);
                current.has_begun = true;
            }
            (Some(Whose::Others), _) => {
                self.summary.histories.insert(history.short());
            }
            _ => {}
        }
        Ok(())
    }

    fn count(&mut self, table: String, whose: Whose, place: usize) {
        self.summary.changes += 1;
        let counts = self.summary.tables.entry(table).or_default();
        let row = &mut counts[usize::from(whose == Whose::Unknown)];
        if let Some(count) = row.get_mut(place) {
            *count += 1;
        }
    }

    fn truncate(&mut self, tables: &[QualifiedName]) -> io::Result<()> {
        let Some((_, whose)) = self.begins()? else { return Ok(()) };
        let mut known = Vec::new();
        for name in tables {
            match self.known.get(name) {
                Some(table) if table.kind != "m" => known.push(*table),
                Some(_) => {
                    self.summary.views.insert(name.short());
                }
                None => *self.summary.new_tables.entry(name.short()).or_default() += 1,
            }
        }
        if let Some(sql) = statement::truncate(&known) {
            writeln!(self.out, "{sql};")?;
            for table in known {
                self.count(table.name.short(), whose, 2);
            }
        }
        Ok(())
    }

    fn commit(&mut self, at: &str) -> io::Result<()> {
        match self.current.take() {
            Some(Current { xid, whose: Some(Whose::Others | Whose::Unknown), has_begun: true, .. }) => {
                writeln!(self.out, "-- end of transaction {xid}, committed {at}")
            }
            _ => Ok(()),
        }
    }
}

/// What a person reads first, and the settings under which the statements mean what they say.
pub fn heading(summary: &Summary, database: &str, run: &str, snapshot: &str) -> String {
    let mut text = format!(
        "-- What was written to the database \"{}\" after snapshot {snapshot} was taken.\n\
         -- Saved by safe-run, run {run}. It holds rows of the database: keep it as private as these.\n--\n\
         -- {}, {} in the order of their commits. All of it is one transaction: all is replayed, or nothing.\n",
        printable(database),
        plural(summary.transactions(), "transaction", "transactions"),
        plural(summary.changes, "changed row", "changed rows"),
    );
    let mut line = |sentence: String| text.push_str(&format!("-- {sentence}\n"));
    for (table, [others, unknown]) in &summary.tables {
        let counts = |[inserted, updated, deleted]: &[u64; 3]| {
            format!("{inserted} inserted, {updated} updated, {deleted} deleted")
        };
        if others.iter().any(|&count| count > 0) {
            line(format!("  {table}: {} by others", counts(others)));
        }
        if unknown.iter().any(|&count| count > 0) {
            line(format!("  {table}: {} by the run or by others: unknown", counts(unknown)));
        }
    }
    for sentence in sentences(summary) {
        line(sentence);
    }
    line("Not in the log, and so not here: changes of the schema, large objects, unlogged tables. Sequences are set".to_owned());
    line("forward at the end. Replay it once, on the restored database, as a superuser (or a role with SET on the".to_owned());
    line("parameter session_replication_role): triggers and foreign keys do not fire, because what they did is here as".to_owned());
    line("changes of their own. `safe-run check` afterwards finds rows that refer to no row.".to_owned());
    text.push_str(
        "--\n--   psql -X -q -o /dev/null -v ON_ERROR_STOP=1 -f THIS_FILE -d DATABASE\n\n\
         BEGIN TRANSACTION ISOLATION LEVEL READ COMMITTED READ WRITE;\n\
         SET LOCAL client_encoding = 'UTF8';\n\
         SET LOCAL standard_conforming_strings = on;\n\
         SET LOCAL \"DateStyle\" = 'ISO, YMD';\n\
         SET LOCAL \"IntervalStyle\" = 'postgres';\n\
         SET LOCAL \"TimeZone\" = 'UTC';\n\
         SET LOCAL extra_float_digits = 3;\n\
         SET LOCAL bytea_output = 'hex';\n\
         SET LOCAL lc_monetary = 'C';\n\
         SET LOCAL xmloption = 'content';\n\
         SET LOCAL array_nulls = on;\n\
         SET LOCAL row_security = off;\n\
         SET LOCAL statement_timeout = 0;\n\
         SET LOCAL lock_timeout = 0;\n\
         SET LOCAL idle_in_transaction_session_timeout = 0;\n\
         SET LOCAL session_replication_role = 'replica';\n\
         SET CONSTRAINTS ALL DEFERRED;\n",
    );
    text
}

/// What a person has to know of it, in the file and in the report. Never a row.
pub fn sentences(summary: &Summary) -> Vec<String> {
    let mut list = Vec::new();
    if summary.unknown > 0 {
        list.push(format!(
            "{} may be the run's own or others', and nobody can tell: look at those marked \"unknown\", and delete the run's \
             from the file before you replay it",
            plural(summary.unknown, "transaction", "transactions")
        ));
    }
    if summary.ours > 0 {
        list.push(format!(
            "{} of the run itself {} left out",
            plural(summary.ours, "transaction", "transactions"),
            if summary.ours == 1 { "was" } else { "were" }
        ));
    }
    for (what, count) in &summary.impossible {
        list.push(format!(
            "{} can't be replayed, and the replay stops there until you have done it by hand: {what}",
            plural(*count, "change", "changes")
        ));
    }
    for (table, count) in &summary.new_tables {
        list.push(format!(
            "{} of {table} {} left out: the snapshot has no such table",
            plural(*count, "change", "changes"),
            if *count == 1 { "was" } else { "were" }
        ));
    }
    let names = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(", ");
    if !summary.left_out.columns.is_empty() {
        let columns = names(&summary.left_out.columns);
        list.push(format!("columns that the snapshot has not were left out: {columns}"));
    }
    if !summary.left_out.defaults.is_empty() {
        let columns = names(&summary.left_out.defaults);
        list.push(format!("columns that rows lacked get their defaults: {columns}"));
    }
    if !summary.histories.is_empty() {
        list.push(format!(
            "others have run migrations meanwhile, and what those recorded was left out: {}",
            names(&summary.histories)
        ));
    }
    if !summary.views.is_empty() {
        list.push(format!("materialized views to refresh: {}", names(&summary.views)));
    }
    list
}

/// The end of the file: sequences that moved are set to where they stood at the end, and never back.
pub fn ending(before: &[Sequence], now: &[Sequence]) -> String {
    let mut text = String::new();
    for sequence in now {
        let moved = before.iter().any(|old| {
            old.name == sequence.name
                && (old.last_value, old.is_called) != (sequence.last_value, sequence.is_called)
        });
        if !moved {
            continue;
        }
        if text.is_empty() {
            text.push_str("\n-- sequences\n");
        }
        let name = literal(&sequence.name.to_string());
        let comparison = if sequence.increment < 0 { ">" } else { "<" };
        text.push_str(&format!(
            "SELECT pg_catalog.setval({}::pg_catalog.regclass, {value}, {called}) FROM {sequence} \
             WHERE last_value OPERATOR(pg_catalog.{comparison}) {value} OR (last_value OPERATOR(pg_catalog.=) {value} AND NOT is_called);\n",
            name.trim_start(),
            value = sequence.last_value,
            called = sequence.is_called,
            sequence = sequence.name,
        ));
    }
    text.push_str("\nCOMMIT;\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{journal::Step, writes::decoding::parse};

    impl Target for Vec<u8> {
        fn mark(&mut self) -> io::Result<u64> {
            Ok(self.len() as u64)
        }

        fn back_to(&mut self, mark: u64) -> io::Result<()> {
            self.truncate(usize::try_from(mark).unwrap());
            Ok(())
        }
    }

    fn script(lines: &[&str]) -> (String, Summary) {
        let known = Known::default();
        let steps = [
            Step::SavingSince { snapshot: "10:10:".to_owned() },
            Step::OwnTransaction { xid: 11 },
            Step::UnknownFrom { xid: 20 },
        ];
        let attribution = Attribution::of(&steps).unwrap();
        let mut script = Script::new(&known, &attribution, Vec::new());
        for line in lines {
            script.line(&parse(line).unwrap()).unwrap();
        }
        let (out, summary) = script.finish().unwrap();
        (String::from_utf8(out).unwrap(), summary)
    }

    #[test]
    fn what_is_in_the_snapshot_or_ours_is_left_out_and_counted() {
        let row = "table public.t: INSERT: a[integer]:1";
        let (out, summary) = script(&[
            "BEGIN 9",
            row,
            "COMMIT 9",
            "BEGIN 11",
            row,
            row,
            "COMMIT 11",
            "BEGIN 12",
            row,
            "COMMIT 12",
            "BEGIN 13",
            "COMMIT 13",
            "BEGIN 21",
            row,
            "COMMIT 21 (at now)",
        ]);
        assert_eq!((summary.ours, summary.others, summary.unknown), (1, 1, 1));
        assert_eq!(summary.new_tables.get("t"), Some(&2));
        assert!(
            out.contains("-- transaction 12, by others\n")
                && out.contains("21, by the run or by others: unknown")
        );
        assert!(out.contains("committed now") && !out.contains("transaction 11"));
    }

    #[test]
    fn who_writes_into_a_tools_history_is_the_run_with_all_of_its_transaction() {
        let (row, history) =
            ("table public.t: INSERT: a[integer]:1", "table safe_run.migrations: INSERT: a[integer]:1");
        let (out, summary) = script(&[
            "BEGIN 21",
            row,
            "COMMIT 21",
            "BEGIN 22",
            row,
            history,
            row,
            "COMMIT 22",
            "BEGIN 23",
            row,
            "COMMIT 23",
            "BEGIN 12",
            row,
            history,
            "COMMIT 12",
        ]);
        assert_eq!((summary.ours, summary.others, summary.unknown), (1, 1, 2));
        assert_eq!(summary.new_tables.get("t"), Some(&3));
        assert!(
            out.contains("transaction 21,")
                && out.contains("transaction 23,")
                && !out.contains("transaction 22")
        );
        assert!(sentences(&summary).join(" ").contains("left out: safe_run.migrations"));
    }

    #[test]
    fn a_name_can_forge_no_line_of_the_file() {
        let (out, summary) =
            script(&["BEGIN 12", "table public.\"a\nDROP TABLE b; --\": INSERT: a[integer]:1", "COMMIT 12"]);
        let heading = heading(&summary, "d\nDROP", "r", "s");
        assert!(!out.contains("\nDROP") && !sentences(&summary).join("\n").contains("\nDROP"));
        assert!(heading.contains("a\\nDROP TABLE b"));
    }
}
