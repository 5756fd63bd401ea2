//! What a comparison found: one value, as text and as JSON. Pure.

use common::{
    cli::{Output, output::Tone},
    format,
    ident::printable,
};
use serde::Serialize;

use super::{
    compare::{How, Named, RowDifference},
    schema::{Change, ObjectChange},
    state::ValueChange,
};

/// A table that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableChange {
    /// Its name.
    pub table: String,
    /// What happened to it: `changed` when both sides have it.
    pub change: Change,
    /// Rows on the first side; nothing where they were not counted.
    pub rows_before: Option<u64>,
    /// Rows on the second side.
    pub rows_after: Option<u64>,
    /// Bytes of COPY text, where the first side is a snapshot.
    pub bytes_before: Option<u64>,
    /// Bytes of COPY text, where the second side is a snapshot.
    pub bytes_after: Option<u64>,
    /// Whether there are columns that only one side has: then the tables are never equal.
    pub columns_differ: bool,
    /// Columns that only the first side has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub columns_only_in_a: Vec<String>,
    /// Columns that only the second side has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub columns_only_in_b: Vec<String>,
    /// Whether the compared values of all rows are equal; nothing where only one side has the table.
    pub rows_equal: Option<bool>,
    /// Rows that only the first side has; nothing where nobody looked.
    pub only_in_a: Option<u64>,
    /// Rows that only the second side has.
    pub only_in_b: Option<u64>,
    /// Keys whose rows differ.
    pub differing: Option<u64>,
    /// Of the keys that differ those that differed in the round before with the same content; nothing in the first round.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settled: Option<u64>,
    /// The first rows that differ.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<RowDifference>,
}

/// Everything that differs.
#[derive(Debug, Clone, Serialize)]
pub struct Difference {
    /// The first side.
    pub a: String,
    /// The second side.
    pub b: String,
    /// With `--watch`: which round it is, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round: Option<u64>,
    /// With `--watch`: when the round ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<chrono::DateTime<chrono::Utc>>,
    /// Which of the two hold only a part of their database, and by which filters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub partial: Vec<String>,
    /// Whether nothing differs.
    pub equal: bool,
    /// Schema objects, where both sides are PostgreSQL's.
    pub schema_changes: Vec<ObjectChange>,
    /// Tables that differ.
    pub tables: Vec<TableChange>,
    /// Tables with the same rows.
    pub equal_tables: usize,
    /// Rows of these tables, on each side.
    pub equal_rows: u64,
    /// Sequences, extensions, large objects, materialized views, and state of the database itself.
    pub values: Vec<ValueChange>,
    /// Columns that can't be compared, and what else a person should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What an equal result speaks of.
    #[serde(skip)]
    pub of_what: &'static str,
}

impl Difference {
    /// The difference as a person reads it.
    pub fn text(&self, output: &Output) -> String {
        let mut text = format!("--- {}\n+++ {}\n", printable(&self.a), printable(&self.b));
        if self.equal {
            let tables = format::plural(self.equal_tables as u64, "table", "tables");
            return text + &format!("No difference: {}.\n", self.of_what.replace("{tables}", &tables));
        }
        self.objects(&mut text, output);
        self.rows(&mut text, output);
        if !self.values.is_empty() {
            text.push('\n');
            for value in &self.values {
                let show = |value: &Option<String>| value.as_deref().map_or("-".to_owned(), printable);
                let (before, after) = (show(&value.before), show(&value.after));
                text.push_str(&format!("{}: {before} -> {after}\n", printable(&value.what)));
            }
        }
        text
    }

    fn objects(&self, text: &mut String, output: &Output) {
        let paint = |line: &str| match line.chars().next() {
            Some('-') => output.paint(Tone::Bad, &printable(line)),
            Some('+') => output.paint(Tone::Good, &printable(line)),
            _ => printable(line),
        };
        for object in &self.schema_changes {
            let word = match object.change {
                Change::Added => "added",
                Change::Removed => "removed",
                Change::Changed => "changed",
            };
            let title = format!("\n{word}: {}", printable(&object.object));
            text.push_str(&output.paint(Tone::Strong, &title));
            text.push('\n');
            for line in &object.lines {
                text.push_str(format!("  {}", paint(line)).trim_end());
                text.push('\n');
            }
        }
    }

    fn rows(&self, text: &mut String, output: &Output) {
        if self.tables.is_empty() {
            return;
        }
        text.push('\n');
        text.push_str(&format::table(
            &["TABLE", "ROWS A", "ROWS B", "CHANGE", "SIZE A", "SIZE B", ""],
            &[false, true, true, true, true, true, false],
            &self.tables.iter().map(table_row).collect::<Vec<_>>(),
        ));
        let equal = format::plural(self.equal_tables as u64, "table is", "tables are");
        text.push_str(&format!("{equal} equal, row for row\n"));
        for table in &self.tables {
            for (side, columns) in [("A", &table.columns_only_in_a), ("B", &table.columns_only_in_b)] {
                if !columns.is_empty() {
                    let names: Vec<String> = columns.iter().map(|name| printable(name)).collect();
                    text.push_str(&format!(
                        "{}: only {side} has the column {}\n",
                        table.table,
                        names.join(", ")
                    ));
                }
            }
            let Some(counts) = counts(table) else { continue };
            text.push_str(&output.paint(Tone::Strong, &format!("\n{}: {counts}", table.table)));
            text.push('\n');
            for difference in &table.differences {
                text.push_str(&row_text(difference, output));
            }
            let groups =
                table.only_in_a.unwrap_or(0) + table.only_in_b.unwrap_or(0) + table.differing.unwrap_or(0);
            let told: u64 = table.differences.iter().map(|one| one.times).sum();
            if groups > told {
                text.push_str(&format!(
                    "  … and {} more (--first N shows more)\n",
                    format::count(groups - told)
                ));
            }
        }
    }

    /// The line of a round.
    pub fn round_line(&self) -> String {
        let at = self.at.map_or(String::new(), |at| at.format("%Y-%m-%dT%H:%M:%SZ").to_string());
        let number = self.round.unwrap_or(1);
        if self.equal {
            let tables = format::plural(self.equal_tables as u64, "table", "tables");
            let rows = format::plural(self.equal_rows, "row", "rows");
            return format!("{at} round {number}: equal ({tables}, {rows})");
        }
        let mut parts = Vec::new();
        let sum = |of: fn(&TableChange) -> Option<u64>| self.tables.iter().filter_map(of).sum::<u64>();
        let mut part = |count: u64, one: &str, many: &str| {
            if count > 0 {
                parts.push(format::plural(count, one, many));
            }
        };
        part(self.tables.len() as u64, "table differs", "tables differ");
        part(sum(|table| table.only_in_a), "row only in A", "rows only in A");
        part(sum(|table| table.only_in_b), "row only in B", "rows only in B");
        part(sum(|table| table.differing), "row differs", "rows differ");
        part(self.schema_changes.len() as u64, "object differs", "objects differ");
        part(self.values.len() as u64, "other difference", "other differences");
        let settled = match number {
            1 => String::new(),
            _ => format!("; settled since the round before: {}", format::count(sum(|table| table.settled))),
        };
        format!("{at} round {number}: {}{settled}", parts.join(", "))
    }
}

/// How many rows differ in which way; nothing where nobody looked or no row does.
fn counts(table: &TableChange) -> Option<String> {
    let mut parts = Vec::new();
    for (count, one, many) in [
        (table.only_in_a, "row only in A", "rows only in A"),
        (table.only_in_b, "row only in B", "rows only in B"),
        (table.differing, "row differs", "rows differ"),
    ] {
        if let Some(count) = count.filter(|count| *count > 0) {
            parts.push(format::plural(count, one, many));
        }
    }
    let settled =
        table.settled.map_or(String::new(), |settled| format!("; settled: {}", format::count(settled)));
    (!parts.is_empty()).then(|| format!("{}{settled}", parts.join(", ")))
}

/// Longest value that is shown, in characters; JSON has the whole.
const SHOWN_CHARS: usize = 200;

fn value_text(value: Option<&str>) -> String {
    match value {
        None => "NULL".to_owned(),
        Some(value) => {
            let shown: String = value.chars().take(SHOWN_CHARS).collect();
            let dots = if shown.len() < value.len() { "…" } else { "" };
            format!("'{}'{dots}", printable(&shown))
        }
    }
}

fn named_text(named: &[Named]) -> String {
    let parts: Vec<String> = named
        .iter()
        .map(|one| {
            let why = one.why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
            format!("{} = {}{why}", printable(&one.column), value_text(one.value.as_deref()))
        })
        .collect();
    parts.join(", ")
}

fn row_text(difference: &RowDifference, output: &Output) -> String {
    let settled = if difference.settled == Some(true) { "  (settled)" } else { "" };
    let key = named_text(&difference.key);
    match difference.how {
        How::Differs => {
            let mut text = format!("  {key}{settled}\n");
            for column in &difference.columns {
                let why = column.why.as_ref().map(|why| format!("  ({why})")).unwrap_or_default();
                let (a, b) = (value_text(column.a.as_deref()), value_text(column.b.as_deref()));
                text.push_str(&format!("    {}: {a} -> {b}{why}\n", printable(&column.column)));
            }
            text
        }
        how => {
            let (sign, tone) = if how == How::OnlyInA { ('-', Tone::Bad) } else { ('+', Tone::Good) };
            let times = match difference.times {
                1 => String::new(),
                times => format!("  ({} times)", format::count(times)),
            };
            let row = named_text(&difference.row);
            format!("{}{times}{settled}\n", output.paint(tone, &format!("  {sign} {row}")))
        }
    }
}

fn table_row(table: &TableChange) -> Vec<String> {
    let rows = |rows: Option<u64>| rows.map_or("-".to_owned(), format::count);
    let bytes = |bytes: Option<u64>| bytes.map_or("-".to_owned(), format::bytes);
    let (before, after) = (table.rows_before.unwrap_or(0), table.rows_after.unwrap_or(0));
    let change = match before.cmp(&after) {
        std::cmp::Ordering::Less => format!("+{}", format::count(after - before)),
        std::cmp::Ordering::Greater => format!("-{}", format::count(before - after)),
        std::cmp::Ordering::Equal => "0".to_owned(),
    };
    let note = match table.change {
        Change::Added => "new",
        Change::Removed => "gone",
        Change::Changed if table.columns_differ => "columns changed",
        Change::Changed if before == after => "content changed",
        Change::Changed => "",
    };
    vec![
        table.table.clone(),
        rows(table.rows_before),
        rows(table.rows_after),
        change,
        bytes(table.bytes_before),
        bytes(table.bytes_after),
        note.to_owned(),
    ]
}
