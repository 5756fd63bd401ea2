//! Any rows go into a file and are read back from it with equal values.

use common::{QualifiedName, ident::Ident};
use proptest::prelude::*;

use super::{
    Batch, Encoding, ExportPlan, Filled, Lines, TableDesign, Writer, design::ColumnDesign, kind::Kind,
    read_back, types::SqliteType,
};
use crate::{copy, dates, decimal::Decimal, target::Target};

const TYPES: [&str; 16] = [
    "bigint",
    "double precision",
    "real",
    "numeric",
    "numeric(12,3)",
    "numeric(40,9)",
    "text",
    "character(9)",
    "bytea",
    "boolean",
    "date",
    "time without time zone",
    "timestamp without time zone",
    "timestamp with time zone",
    "interval",
    "jsonb",
];

fn design(is_strict: bool) -> TableDesign {
    let types: Vec<SqliteType> =
        TYPES.iter().map(|name| SqliteType::new(Target::parse(name, None))).collect();
    let columns = types.into_iter().enumerate().filter(|(_, stored)| !is_strict || stored.strict().is_some());
    TableDesign {
        name: "odd \"name\"".to_owned(),
        source: QualifiedName::new("public", "t"),
        oids: Vec::new(),
        is_strict,
        columns: columns
            .map(|(at, stored)| ColumnDesign {
                name: format!("c {at}"),
                source: format!("c{at}"),
                kind: Kind::of(&stored),
                stored,
                is_any: false,
                is_not_null: false,
                is_nocase: false,
                default: None,
                generated: None,
            })
            .collect(),
        primary_key: Vec::new(),
        rowid: None,
        is_autoincrement: false,
        counter: None,
        uniques: Vec::new(),
        checks: Vec::new(),
        foreign_keys: Vec::new(),
    }
}

/// A field of COPY text as PostgreSQL writes a value of this type.
fn field(target: &Target) -> BoxedStrategy<Vec<u8>> {
    let bytes = |text: String| text.into_bytes();
    let decimal = |whole: &str, fraction: &str| {
        format!("-?[1-9][0-9]{{0,{whole}}}(\\.[0-9]{{1,{fraction}}})?|0(\\.[0-9]{{1,{fraction}}})?|NaN")
    };
    let matching = |pattern: &str| {
        proptest::string::string_regex(pattern).expect("a pattern").prop_map(String::into_bytes).boxed()
    };
    let value = match target {
        Target::Int8 => any::<i64>().prop_map(move |value| bytes(value.to_string())).boxed(),
        Target::Float8 => any::<f64>().prop_map(|value| shown(value, |value| format!("{value:e}"))).boxed(),
        Target::Float4 => {
            // PostgreSQL's digits, which are not always the ones of Rust's own.
            any::<f32>()
                .prop_map(|value| {
                    shown(f64::from(value), |_| {
                        let mut decimal = Decimal::default();
                        assert!(decimal.read_f32(value));
                        let digits =
                            if value == 0.0 { "0".into() } else { String::from_utf8_lossy(&decimal.digits) };
                        let sign = if decimal.is_negative { "-" } else { "" };
                        format!("{sign}{digits}e{}", decimal.exponent)
                    })
                })
                .boxed()
        }
        Target::Numeric(None) => matching(&decimal("25", "20")),
        Target::Numeric(Some((12, _))) => matching(&decimal("8", "3")),
        Target::Numeric(_) => matching(&decimal("30", "9")),
        Target::Text => "\\PC{0,40}|[\t\n\\\\N'\"]{0,9}"
            .prop_map(|text| {
                let mut field = Vec::new();
                copy::escape(text.as_bytes(), &mut field).expect("no byte 0");
                field
            })
            .boxed(),
        Target::Char(_) => matching("[a-z ]{9}"),
        Target::Bytea => any::<Vec<u8>>()
            .prop_map(|value| {
                let mut field = Vec::new();
                copy::bytea(&value, &mut field);
                field
            })
            .boxed(),
        Target::Bool => matching("t|f"),
        Target::Date => (dates::FIRST_DAY..=dates::LAST_DAY)
            .prop_map(|day| {
                let mut field = Vec::new();
                dates::write_date(day, &mut field);
                field
            })
            .boxed(),
        Target::Time(_) => {
            matching("(0[0-9]|1[0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{0,5}[1-9])?|24:00:00")
        }
        Target::Timestamp(_) | Target::TimestampTz(_) => {
            let has_zone = matches!(target, Target::TimestampTz(_));
            prop_oneof![
                9 => (-200_000_000_000_000_000_i64..9_000_000_000_000_000_000).prop_map(move |micros| {
                    let mut field = Vec::new();
                    dates::write_timestamp(micros, has_zone, &mut field);
                    field
                }),
                1 => matching("-?infinity"),
            ]
            .boxed()
        }
        Target::Interval => matching(
            "(-?[1-9][0-9]{0,3} mons )?(-?[1-9][0-9]{0,3} days )?-?[0-9]{2}:[0-5][0-9]:[0-5][0-9]|-?infinity",
        ),
        _ => matching("\\{\"a\": [1-9][0-9]{0,29}\\}|\\[1\\.[0-9]{1,9}, null\\]|\"[a-z]{0,5}\"|[1-9]|true"),
    };
    prop_oneof![1 => Just(b"\\N".to_vec()), 6 => value].boxed()
}

fn shown(value: f64, digits: impl Fn(f64) -> String) -> Vec<u8> {
    let text = match value {
        value if value.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "Infinity".to_owned(),
        f64::NEG_INFINITY => "-Infinity".to_owned(),
        value => digits(value),
    };
    text.into_bytes()
}

fn lines(design: &TableDesign) -> impl Strategy<Value = Vec<u8>> + use<> {
    let fields: Vec<_> = design.columns.iter().map(|column| field(&column.stored.target)).collect();
    proptest::collection::vec(fields, 1..20).prop_map(|rows| {
        let line = |row: &Vec<Vec<u8>>| [row.join(&b'\t'), b"\n".to_vec()].concat();
        rows.iter().map(line).collect::<Vec<_>>().concat()
    })
}

/// Writes lines into a file, with ANY where it is asked for, and compares what is read back.
fn goes_and_comes_back(mut design: TableDesign, lines: &[u8]) {
    let names: Vec<Ident> = design.columns.iter().map(|column| Ident::new(column.source.as_str())).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    let writer = Writer::new(file.path()).unwrap();
    let written = loop {
        writer.create(&design).unwrap();
        let mut cut = Lines::new(&design, &names, Encoding::Utf8).unwrap();
        // In pieces that end anywhere.
        let batches: Vec<Batch> = lines.chunks(70).filter_map(|piece| cut.take(piece).unwrap()).collect();
        let mut batches = batches.into_iter();
        match writer.fill(&design, || Ok(batches.next())).unwrap() {
            Filled::All(written) => break written,
            Filled::NeedsAny(column) => design.widen(column),
        }
        writer.drop_table(&design).unwrap();
    };
    let mut plan = ExportPlan { tables: vec![design], ..ExportPlan::default() };
    writer.finish(&mut plan, &|_| {}).unwrap();
    assert_eq!(written.rows, lines.split(|byte| *byte == b'\n').count() as u64 - 1);
    assert_eq!(read_back(file.path(), &plan.tables, &|_| {}).unwrap(), [written]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn rows_of_any_values_are_read_back_equal(lines in lines(&design(false))) {
        goes_and_comes_back(design(false), &lines);
    }

    #[test]
    fn rows_of_strict_tables_are_read_back_equal(lines in lines(&design(true))) {
        goes_and_comes_back(design(true), &lines);
    }
}

#[test]
fn a_changed_value_is_another_fingerprint() {
    let design = design(true);
    let names: Vec<Ident> = design.columns.iter().map(|column| Ident::new(column.source.as_str())).collect();
    let line = |first: &str| {
        let fields: Vec<&str> =
            std::iter::once(first).chain(std::iter::repeat_n("\\N", names.len() - 1)).collect();
        format!("{}\n", fields.join("\t"))
    };
    let print = |first: &str| {
        let mut lines = Lines::new(&design, &names, Encoding::Utf8).unwrap();
        lines.take(line(first).as_bytes()).unwrap().unwrap().fingerprint
    };
    assert_eq!(print("1"), print("1"));
    assert_ne!(print("1"), print("2"));
    assert_ne!(print("0"), print("\\N"));
}
