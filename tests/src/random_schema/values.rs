//! Types and their values: extremes, nothing, and what breaks naive code.

use super::Random;
use crate::psql::quote_literal;

/// A column's type.
#[derive(Clone)]
pub(super) struct Type {
    /// As SQL names it.
    pub sql: String,
    pub class: Class,
    /// 0: no B-tree; 1: B-tree; 2: B-tree and hash.
    pub rank: u8,
}

#[derive(Clone)]
pub(super) enum Class {
    /// Literals or expressions, each to be cast to the type.
    Literals(Vec<String>),
    /// Anything.
    Text,
    Domain(Box<Type>),
    Composite(Vec<Type>),
    Array(Box<Type>),
}

impl Type {
    pub fn of(sql: &str, class: Class, rank: u8) -> Type {
        Type { sql: sql.to_owned(), class, rank }
    }

    pub fn is_domain(&self) -> bool {
        matches!(self.class, Class::Domain(_))
    }

    /// Also a domain over an array, which `ARRAY[…]` takes for one more dimension.
    pub fn is_array(&self) -> bool {
        match &self.class {
            Class::Domain(base) => base.is_array(),
            _ => self.sql.ends_with("[]"),
        }
    }
}

/// An expression of exactly this type that may be a default: without a query in it.
pub(super) fn constant(random: &mut Random, kind: &Type) -> String {
    loop {
        let value = value(random, kind);
        if !value.contains(LONG) {
            return value;
        }
    }
}

/// Long enough to be stored apart, and not to be compressed away.
const LONG: &str = "(SELECT string_agg(sha256(i::text::bytea), '') FROM generate_series(1, 300) i)";

/// An expression of exactly this type.
pub(super) fn value(random: &mut Random, kind: &Type) -> String {
    let plain = match &kind.class {
        Class::Literals(values) => random.pick(values).clone(),
        Class::Text => match random.percent(5) {
            true => format!("repeat({}, 2000)", quote_literal("long 'ß'\n")),
            false => quote_literal(&word(random, 300)),
        },
        Class::Domain(base) => value(random, base),
        Class::Composite(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|field| if random.percent(20) { "NULL".to_owned() } else { value(random, field) })
                .collect();
            format!("ROW({})", fields.join(", "))
        }
        Class::Array(of) => {
            let list = |random: &mut Random, count: usize| {
                let values: Vec<String> = (0..count)
                    .map(|_| if random.percent(15) { "NULL".to_owned() } else { value(random, of) })
                    .collect();
                format!("ARRAY[{}]::{}[]", values.join(", "), of.sql)
            };
            match random.below(6) {
                0 => "'{}'".to_owned(),
                1 => format!("ARRAY[{}, {}]", list(random, 2), list(random, 2)),
                // Not as a literal: a box separates elements by semicolons.
                2 => format!("array_fill(NULL::{}, ARRAY[3], ARRAY[-2])", of.sql),
                _ => {
                    let count = random.below(4);
                    list(random, count)
                }
            }
        }
    };
    format!("({plain})::{}", kind.sql)
}

/// A piece of text that looks harmless to nobody, of at most so many bytes.
pub(super) fn word(random: &mut Random, max: usize) -> String {
    const PIECES: [&str; 40] = [
        "a", "B", "x1", "_", " ", "  ", "'", "\"", "\\", "\\.", "\\N", "\t", "\n", "\r", "\r\n", "$$", "$1",
        "%s", "%I", ";", "--", "/*", "select", "TABLE", "user", "é", "ß", "Ω", "表", "🦀", "e\u{301}",
        "\u{200b}", "\u{7f}", "\u{1}", "{", "}", ",", "(", ".", ":x",
    ];
    const WHOLE: [&str; 14] = [
        "select", "user", "order", "table", "group", "null", "true", "default", "ctid_", "oid", "public_",
        "\\.", "\\N", "NULL",
    ];
    if random.percent(15) {
        return (*random.pick(&WHOLE)).to_owned();
    }
    let mut text = String::new();
    for _ in 0..random.below(9) {
        let piece = *random.pick(&PIECES);
        if text.len() + piece.len() <= max {
            text.push_str(piece);
        }
    }
    text
}

/// Every common built-in type of this major version.
pub(super) fn builtin_types(major: u32) -> Vec<Type> {
    let mut types = vec![
        Type::of("text", Class::Text, 2),
        Type::of("varchar(20)", Class::Text, 2),
        Type::of("char(7)", Class::Text, 2),
        Type::of("name", Class::Text, 2),
    ];
    let mut add = |sql: &str, rank: u8, values: &[&str]| {
        let values = values.iter().map(|value| quote_literal(value)).collect();
        types.push(Type::of(sql, Class::Literals(values), rank));
    };
    add("smallint", 2, &["-32768", "0", "32767"]);
    add("int", 2, &["-2147483648", "-1", "0", "42", "2147483647"]);
    add("bigint", 2, &["-9223372036854775808", "0", "9223372036854775807"]);
    add(
        "numeric",
        2,
        &[
            "0",
            "-0.000",
            "1e-300",
            "123456789012345678901234567890.123456789",
            "NaN",
            "Infinity",
            "-Infinity",
            "1.10",
        ],
    );
    add("numeric(12,4)", 2, &["0", "-99999999.9999", "1.5", "NaN"]);
    add("real", 2, &["0", "-0", "1e-45", "3.4028235e38", "NaN", "Infinity", "0.1"]);
    add(
        "double precision",
        2,
        &["0", "-0", "5e-324", "1.7976931348623157e308", "NaN", "-Infinity", "0.1", "0.30000000000000004"],
    );
    add("boolean", 2, &["t", "f"]);
    add("date", 2, &["4713-01-01 BC", "infinity", "2024-02-29", "5874897-12-31"]);
    add("time", 2, &["00:00", "24:00:00", "12:34:56.789012"]);
    add("timetz", 2, &["00:00+15:59", "24:00:00-15:59", "12:34:56.789012+05:30"]);
    add(
        "timestamp",
        2,
        &["4713-01-01 00:00:00 BC", "294276-12-31 23:59:59.999999", "-infinity", "2024-10-27 02:30:00"],
    );
    add(
        "timestamp(3) with time zone",
        2,
        &["1883-11-18 12:00:00.123+00", "infinity", "2024-10-27 02:30:00+02"],
    );
    add(
        "uuid",
        2,
        &[
            "00000000-0000-0000-0000-000000000000",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        ],
    );
    add("money", 1, &["-92233720368547758.08", "0", "92233720368547758.07"]);
    add(
        "interval",
        2,
        &["0", "-1 year 2 mons -3 days 04:05:06.7", "178000000 years", "1 microsecond", "-178000000 years"],
    );
    add("interval day to second(3)", 2, &["1 12:00:00.123", "-1 day"]);
    add("bytea", 0, &["", "\\x00", "\\x5c2e0a", "\\xdeadbeef00"]);
    add("json", 0, &["{\"a\": 1, \"a\": [null, \"\\u00e9\\\\\"]}", " [ ] ", "\"\\n\"", "null"]);
    add("jsonb", 0, &["{\"a\": 1, \"a\": [null, \"é\\\\\"]}", "[]", "\"\\n\"", "null", "1e300", "{}"]);
    add("jsonpath", 0, &["$.a[*] ? (@.b > 1)", "strict $", "$.\"a\\\"b\""]);
    add("inet", 2, &["0.0.0.0/0", "::1", "192.168.1.5/24", "fe80::1/64"]);
    add("cidr", 2, &["10.0.0.0/8", "::/0"]);
    add("macaddr", 2, &["08:00:2b:01:02:03"]);
    add("macaddr8", 2, &["08:00:2b:01:02:03:04:05"]);
    add("bit(5)", 1, &["10101", "00000"]);
    add("varbit", 1, &["", "1", "10101010101"]);
    add("point", 0, &["(0,-0)", "(1e300,Infinity)", "(NaN,1)"]);
    add("line", 0, &["{1,2,3}", "{0,-1,5}"]);
    add("lseg", 0, &["[(0,0),(1,1)]"]);
    add("box", 0, &["(1,1),(0,0)"]);
    add("path", 0, &["[(0,0),(1,1)]", "((0,0),(1,1),(2,0))"]);
    add("polygon", 0, &["((0,0),(1,1),(2,0))"]);
    add("circle", 0, &["<(1,2),3>"]);
    add("tsvector", 0, &["", "'a':1A,2 'it''s':3", "'\\\\' 'new\nline'"]);
    add("tsquery", 0, &["a & !b | 'c d':*", ""]);
    add("int4range", 2, &["empty", "[1,5)", "(,)", "[2147483646,2147483647)"]);
    add("numrange", 2, &["empty", "[1.10,2]", "(,NaN]", "[-Infinity,0)"]);
    add("tsrange", 2, &["[2024-01-01,infinity)", "empty"]);
    add("tstzrange", 2, &["[2024-01-01 00:00+00,)", "(,)"]);
    add("daterange", 2, &["[2024-01-01,2024-02-29]", "empty"]);
    add("int8multirange", 2, &["{}", "{[1,3),[5,9)}"]);
    add("datemultirange", 2, &["{(,2024-01-01),[2025-01-01,)}"]);
    add("pg_lsn", 2, &["0/0", "FFFFFFFF/FFFFFFFF"]);
    add("oid", 2, &["0", "4294967295"]);
    add("\"char\"", 2, &["", "a", "\\"]);
    add("xid8", 2, &["0", "18446744073709551615"]);
    add("int[]", 0, &["{}", "{1,NULL,3}", "[0:1]={7,8}", "{{1,2},{3,4}}"]);
    add("text[]", 0, &["{}", "{NULL,\"NULL\",\"\",\"a,b\",\"\\\\\",\"\\\"\",\"\n\"}", "{{a},{b}}"]);
    if major >= 17 {
        add("interval", 2, &["infinity", "-infinity"]);
    }
    types.push(Type::of("bytea", Class::Literals(vec![LONG.to_owned(), "'\\x'".to_owned()]), 0));
    types
}
