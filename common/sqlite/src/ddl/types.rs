//! Which type a column gets: by the declared one where what it holds agrees, by what it holds otherwise.

use crate::{
    scan::ColumnScan,
    schema::Column,
    target::{EpochUnit, Target},
};

/// A chosen type.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Chosen {
    pub target: Target,
    /// What a number means, if the type is a date's.
    pub epoch: Option<EpochUnit>,
    /// Why, in a few words.
    pub reason: String,
    /// Whether the declared type would have been another.
    pub is_surprising: bool,
}

/// Integers that a double holds exactly, and all between.
const EXACT: i64 = 1 << 53;

pub(super) fn choose(column: &Column, scan: &ColumnScan, is_rowid: bool) -> Chosen {
    let declared = column.declared_type.trim().to_ascii_uppercase();
    let (name, arguments) = split(&declared);
    let said =
        if declared.is_empty() { "no declared type".to_owned() } else { format!("declared {declared}") };
    let chosen = |target: Target, epoch: Option<EpochUnit>, reason: String| Chosen {
        target,
        epoch,
        reason,
        is_surprising: false,
    };
    if is_rowid {
        return chosen(Target::Int8, None, "the rowid".to_owned());
    }
    let by_name = by_name(&name, &arguments, scan);
    match by_name {
        Some((target, epoch)) => {
            let unit = epoch.map(|unit| format!(", numbers are {unit}")).unwrap_or_default();
            chosen(target, epoch, format!("{said}{unit}"))
        }
        None => {
            let (target, holds) = by_content(scan, column);
            let is_known = !matches!(name.as_str(), "" | "ANY");
            Chosen { target, epoch: None, reason: format!("{said}, {holds}"), is_surprising: is_known }
        }
    }
}

/// `DECIMAL(10, 2)` → `DECIMAL`, [10, 2]; blanks within the name are single.
fn split(declared: &str) -> (String, Vec<u32>) {
    let (name, rest) = declared.split_once('(').unwrap_or((declared, ""));
    let (arguments, after) = rest.split_once(')').unwrap_or((rest, ""));
    let numbers = arguments.split(',').map_while(|part| part.trim().parse().ok()).collect();
    let words: Vec<&str> = name.split_whitespace().chain(after.split_whitespace()).collect();
    (words.join(" "), numbers)
}

/// What the declared type asks for, if everything in the column fits it.
fn by_name(name: &str, arguments: &[u32], scan: &ColumnScan) -> Option<(Target, Option<EpochUnit>)> {
    let has = |part: &str| name.contains(part);
    let plain = |target: Target, fits: bool| fits.then_some((target, None));
    let only_texts = scan.texts == scan.values();
    let filled = scan.filled_texts();
    if has("BOOL") || (name == "TINYINT" && arguments == [1]) || name == "BIT" {
        let words = scan.forms.booleans == filled && scan.empty_texts == 0;
        let bits = scan.integer_range.is_none_or(|(low, high)| low >= 0 && high <= 1);
        return plain(Target::Bool, words && bits && scan.reals + scan.blobs == 0)
            .or_else(|| plain(Target::Int8, has("INT") && scan.integers == scan.values()));
    }
    if has("DATETIME") || has("TIMESTAMP") || name == "DATE" {
        return moment(name, scan);
    }
    if name == "TIME" {
        return plain(Target::Time(6), only_texts && scan.forms.times == filled && scan.empty_texts == 0);
    }
    if matches!(name, "UUID" | "GUID" | "UNIQUEIDENTIFIER") {
        let fits = scan.forms.uuids == filled && scan.empty_texts == 0 && scan.blobs_of_16 == scan.blobs;
        return plain(Target::Uuid, fits && scan.integers + scan.reals == 0);
    }
    if matches!(name, "JSON" | "JSONB") {
        let target = if name == "JSON" { Target::Json } else { Target::Jsonb };
        let fits = scan.forms.json == filled && scan.empty_texts == 0 && scan.blobs == 0;
        return plain(target, fits && scan.infinite == 0);
    }
    if has("INT") {
        return plain(Target::Int8, scan.integers == scan.values());
    }
    if has("CHAR") || has("CLOB") || has("TEXT") {
        let length = arguments.first().copied().filter(|n| u64::from(*n) >= scan.longest_text && *n > 0);
        let target = match length.filter(|_| has("CHAR")) {
            Some(n) => Target::Varchar(n),
            None => Target::Text,
        };
        return plain(target, only_texts);
    }
    if has("BLOB") || has("BINARY") || has("BYTEA") {
        return plain(Target::Bytea, scan.blobs == scan.values());
    }
    if has("REAL") || has("FLOA") || has("DOUB") {
        return plain(Target::Float8, doubles_hold(scan));
    }
    if has("DEC") || has("NUMERIC") || has("NUMBER") || has("MONEY") {
        return numeric(arguments, scan);
    }
    None
}

fn doubles_hold(scan: &ColumnScan) -> bool {
    let exact = scan.integer_range.is_none_or(|(low, high)| low >= -EXACT && high <= EXACT);
    exact && scan.texts + scan.blobs == 0
}

fn numeric(arguments: &[u32], scan: &ColumnScan) -> Option<(Target, Option<EpochUnit>)> {
    if scan.blobs > 0 || scan.forms.decimals != scan.filled_texts() || scan.empty_texts > 0 {
        return None;
    }
    let whole =
        scan.integer_range.map_or(0, |(low, high)| digits(low).max(digits(high))).max(scan.whole_digits);
    let limit = match *arguments {
        [precision, scale] => Some((precision, scale)),
        [precision] => Some((precision, 0)),
        _ => None,
    };
    let fits = |(precision, scale): &(u32, u32)| {
        (1..=1000).contains(precision)
            && scale <= precision
            && scan.decimal_places <= u64::from(*scale)
            && whole <= u64::from(precision - scale)
            && scan.infinite == 0
    };
    let limit = limit.filter(fits).and_then(|(p, s)| Some((u16::try_from(p).ok()?, i16::try_from(s).ok()?)));
    Some((Target::Numeric(limit), None))
}

fn digits(value: i64) -> u64 {
    u64::from(value.unsigned_abs().checked_ilog10().map_or(0, |log| log + 1))
}

/// A date, a timestamp with or without a zone.
fn moment(name: &str, scan: &ColumnScan) -> Option<(Target, Option<EpochUnit>)> {
    let forms = scan.forms;
    let known = forms.dates + forms.timestamps + forms.timestamps_with_offset;
    if known != scan.filled_texts() || scan.empty_texts + scan.blobs > 0 {
        return None;
    }
    let epoch = match (scan.integers, scan.reals) {
        (0, 0) => None,
        (_, 0) => Some(scan.epoch_unit()?),
        (0, _) => Some(real_unit(scan.real_range?)?),
        _ => return None,
    };
    let wants_zone = name.contains("TZ") || name.contains("WITH TIME ZONE");
    let target = if epoch.is_none() && forms.dates == scan.texts && name == "DATE" {
        Target::Date
    } else if forms.timestamps_with_offset > 0
        || (scan.texts == 0 && epoch.is_some())
        || (scan.texts == 0 && wants_zone)
    {
        Target::TimestampTz(6)
    } else {
        Target::Timestamp(6)
    };
    Some((target, epoch))
}

/// Julian days between 1900 and 2100, or seconds between 1980 and 2100.
fn real_unit((low, high): (f64, f64)) -> Option<EpochUnit> {
    if low >= 2_415_020.0 && high <= 2_488_070.0 {
        Some(EpochUnit::JulianDay)
    } else if low >= 315_532_800.0 && high <= 4_102_444_800.0 {
        Some(EpochUnit::Seconds)
    } else {
        None
    }
}

/// The type that holds most of it, and what it holds in words.
fn by_content(scan: &ColumnScan, column: &Column) -> (Target, String) {
    let counts =
        [(scan.integers, "integers"), (scan.reals, "reals"), (scan.texts, "texts"), (scan.blobs, "blobs")];
    let held: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{count} {name}"))
        .collect();
    let holds =
        if held.is_empty() { "holds nothing".to_owned() } else { format!("holds {}", held.join(", ")) };
    let target = match (scan.integers > 0, scan.reals > 0, scan.texts > 0, scan.blobs > 0) {
        (_, _, false, true) | (false, false, true, true) => Target::Bytea,
        (true, false, false, false) => Target::Int8,
        (_, true, false, false) if doubles_hold(scan) => Target::Float8,
        (_, true, false, false) => Target::Numeric(None),
        (false, false, false, false) if column.affinity == crate::schema::Affinity::Numeric => {
            Target::Numeric(None)
        }
        _ => Target::Text,
    };
    (target, holds)
}

/// Whether everything in a column fits another type: that of the column to which a foreign key leads.
pub(super) fn fits(scan: &ColumnScan, target: &Target) -> bool {
    match target {
        Target::Int8 => scan.integers == scan.values(),
        Target::Text => scan.texts == scan.values(),
        Target::Varchar(n) => scan.texts == scan.values() && scan.longest_text <= u64::from(*n),
        Target::Uuid => {
            scan.forms.uuids == scan.filled_texts()
                && scan.empty_texts + scan.integers + scan.reals == 0
                && scan.blobs_of_16 == scan.blobs
        }
        _ => scan.values() == 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{scan::TextForms, schema::Affinity};

    fn column(declared: &str) -> Column {
        Column {
            name: "c".to_owned(),
            declared_type: declared.to_owned(),
            affinity: Affinity::of(declared),
            is_not_null: false,
            default: None,
            collation: None,
            generated: None,
        }
    }

    fn texts(count: u64, forms: TextForms) -> ColumnScan {
        ColumnScan { texts: count, longest_text: 19, forms, ..ColumnScan::default() }
    }

    fn integers(low: i64, high: i64) -> ColumnScan {
        ColumnScan { integers: 2, integer_range: Some((low, high)), ..ColumnScan::default() }
    }

    #[test]
    fn the_declared_type_holds_where_the_values_agree() {
        let stamps = TextForms { timestamps: 2, ..TextForms::default() };
        let dates = TextForms { dates: 2, ..TextForms::default() };
        let zoned = TextForms { timestamps_with_offset: 1, timestamps: 1, ..TextForms::default() };
        let nothing = ColumnScan::default();
        for (declared, scan, target) in [
            ("BOOLEAN", integers(0, 1), Target::Bool),
            ("BOOLEAN", integers(0, 2), Target::Int8),
            ("tinyint(1)", integers(0, 1), Target::Bool),
            ("tinyint(1)", integers(0, 7), Target::Int8),
            ("DATETIME", texts(2, stamps), Target::Timestamp(6)),
            ("DATETIME", texts(2, zoned), Target::TimestampTz(6)),
            ("datetime", integers(1_700_000_000_000, 1_700_000_000_001), Target::TimestampTz(6)),
            ("datetime", integers(0, 1_700_000_000_001), Target::Int8),
            ("datetime", texts(2, TextForms::default()), Target::Text),
            ("timestamp with time zone", nothing.clone(), Target::TimestampTz(6)),
            ("DATE", texts(2, dates), Target::Date),
            ("DATE", texts(2, stamps), Target::Timestamp(6)),
            ("VARCHAR(20)", texts(2, TextForms::default()), Target::Varchar(20)),
            ("VARCHAR(5)", texts(2, TextForms::default()), Target::Text),
            ("DECIMAL(10,2)", integers(1, 99_999_999), Target::Numeric(Some((10, 2)))),
            ("DECIMAL(10,2)", integers(1, 999_999_999), Target::Numeric(None)),
            ("REAL", integers(1, i64::MAX), Target::Int8),
            ("BLOB", texts(2, TextForms::default()), Target::Text),
            ("", nothing.clone(), Target::Text),
            ("INTEGER", nothing, Target::Int8),
            ("POINT", texts(2, TextForms::default()), Target::Text),
            ("JSON", texts(2, TextForms { json: 2, ..TextForms::default() }), Target::Json),
            ("uuid", texts(2, TextForms { uuids: 1, ..TextForms::default() }), Target::Text),
        ] {
            assert_eq!(choose(&column(declared), &scan, false).target, target, "{declared} {scan:?}");
        }
    }
}
