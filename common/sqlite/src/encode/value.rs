//! One value as a field of COPY text and in canonical form, by the rule of its column.

use super::{Scratch, number, time};
use crate::{
    array::{self, Element},
    binary_json,
    canonical::CanonicalRow,
    copy, json,
    target::{ColumnRule, Target},
    value::{Cell, Rule},
};

/// Writes one value. After an error what was written means nothing.
pub(crate) fn convert(
    cell: Cell<'_>,
    rule: &ColumnRule,
    out: &mut Vec<u8>,
    canonical: &mut CanonicalRow,
    scratch: &mut Scratch,
) -> Result<(), Rule> {
    match cell {
        Cell::Null => {
            null(out, canonical);
            return Ok(());
        }
        Cell::Text(b"") if rule.empty_is_null => {
            null(out, canonical);
            return Ok(());
        }
        Cell::BrokenText(_) => return Err(Rule::InvalidText),
        _ => {}
    }
    match &rule.target {
        Target::Text | Target::Other(_) => text(cell, None, out, canonical),
        Target::Varchar(n) => text(cell, Some(*n), out, canonical),
        Target::Char(n) => padded(cell, *n, out, canonical),
        Target::Int8 => number::integer(cell, i64::MIN..=i64::MAX, out, canonical),
        Target::Int4 => number::integer(cell, i64::from(i32::MIN)..=i64::from(i32::MAX), out, canonical),
        Target::Int2 => number::integer(cell, i64::from(i16::MIN)..=i64::from(i16::MAX), out, canonical),
        Target::Bool => bool(cell, out, canonical),
        Target::Float8 => number::float8(cell, out, canonical, scratch),
        Target::Float4 => number::float4(cell, out, canonical, scratch),
        Target::Numeric(limit) => number::numeric(cell, *limit, out, canonical, scratch),
        Target::Bytea => bytea(cell, out, canonical),
        Target::Date => time::date(cell, rule, out, canonical, scratch),
        Target::Time(digits) => time::time(cell, *digits, rule, out, canonical, scratch),
        Target::Timestamp(digits) => time::timestamp(cell, (*digits, false), rule, out, canonical, scratch),
        Target::TimestampTz(digits) => time::timestamp(cell, (*digits, true), rule, out, canonical, scratch),
        Target::Interval => time::interval(cell, rule, out, canonical, scratch),
        Target::Uuid => uuid(cell, out, canonical, scratch),
        Target::Json => json_text(cell, out, canonical, scratch),
        Target::Jsonb => jsonb(cell, out, canonical, scratch),
        Target::Enum(labels) => label(cell, labels, out, canonical),
        Target::Array(element) => array_of(cell, element, rule, out, canonical, scratch),
    }
}

fn null(out: &mut Vec<u8>, canonical: &mut CanonicalRow) {
    out.extend_from_slice(b"\\N");
    canonical.null();
}

fn utf8(bytes: &[u8]) -> Result<&str, Rule> {
    std::str::from_utf8(bytes).map_err(|_| Rule::InvalidText)
}

fn put_text(text: &[u8], out: &mut Vec<u8>, canonical: &mut CanonicalRow) -> Result<(), Rule> {
    canonical.text(text);
    copy::escape(text, out)
}

/// The text itself; of a number its decimal form, of a double the shortest one.
fn text(
    cell: Cell<'_>,
    most: Option<u32>,
    out: &mut Vec<u8>,
    canonical: &mut CanonicalRow,
) -> Result<(), Rule> {
    let check = |text: &str| match most {
        // A character has a byte at least.
        Some(n) if text.len() > n as usize && text.chars().count() > n as usize => Err(Rule::Length),
        _ => Ok(()),
    };
    match cell {
        Cell::Text(bytes) => {
            check(utf8(bytes)?)?;
            put_text(bytes, out, canonical)
        }
        Cell::Integer(value) => {
            let mut buffer = itoa::Buffer::new();
            let text = buffer.format(value);
            check(text)?;
            put_text(text.as_bytes(), out, canonical)
        }
        Cell::Real(value) => {
            let mut buffer = zmij::Buffer::new();
            let text = number::shown(value, &mut buffer);
            check(text)?;
            put_text(text.as_bytes(), out, canonical)
        }
        _ => Err(Rule::StorageClass),
    }
}

/// `char(n)`: blanks at the end mean nothing, here and there.
fn padded(cell: Cell<'_>, n: u32, out: &mut Vec<u8>, canonical: &mut CanonicalRow) -> Result<(), Rule> {
    let Cell::Text(bytes) = cell else {
        return text(cell, Some(n), out, canonical);
    };
    let value = utf8(bytes)?;
    if value.len() > n as usize && value.chars().count() > n as usize {
        return Err(Rule::Length);
    }
    canonical.text(value.trim_end_matches(' ').as_bytes());
    copy::escape(bytes, out)
}

fn bool(cell: Cell<'_>, out: &mut Vec<u8>, canonical: &mut CanonicalRow) -> Result<(), Rule> {
    let value = match cell {
        Cell::Integer(0) => false,
        Cell::Integer(1) => true,
        Cell::Real(1.0) => true,
        Cell::Real(value) if value == 0.0 && value.is_sign_positive() => false,
        Cell::Text(text) => boolean_word(text).ok_or(Rule::NotBoolean)?,
        Cell::Blob(_) => return Err(Rule::StorageClass),
        _ => return Err(Rule::NotBoolean),
    };
    out.push(if value { b't' } else { b'f' });
    canonical.bool(value);
    Ok(())
}

/// What a word means as a boolean, as PostgreSQL reads whole words.
pub(crate) fn boolean_word(text: &[u8]) -> Option<bool> {
    let text = text.trim_ascii();
    let is = |words: &[&str]| words.iter().any(|word| text.eq_ignore_ascii_case(word.as_bytes()));
    if is(&["t", "true", "1", "y", "yes", "on"]) {
        Some(true)
    } else if is(&["f", "false", "0", "n", "no", "off"]) {
        Some(false)
    } else {
        None
    }
}

/// The bytes; of text its bytes as UTF-8.
fn bytea(cell: Cell<'_>, out: &mut Vec<u8>, canonical: &mut CanonicalRow) -> Result<(), Rule> {
    let (Cell::Blob(bytes) | Cell::Text(bytes)) = cell else { return Err(Rule::StorageClass) };
    copy::bytea(bytes, out);
    canonical.bytes(bytes);
    Ok(())
}

fn uuid(
    cell: Cell<'_>,
    out: &mut Vec<u8>,
    canonical: &mut CanonicalRow,
    scratch: &mut Scratch,
) -> Result<(), Rule> {
    let value = match cell {
        Cell::Blob(bytes) => <[u8; 16]>::try_from(bytes).map_err(|_| Rule::Uuid)?,
        Cell::Text(text) => parse_uuid(text, &mut scratch.bytes).ok_or(Rule::Uuid)?,
        _ => return Err(Rule::StorageClass),
    };
    for (at, byte) in value.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        out.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    canonical.uuid(value);
    Ok(())
}

/// 32 hexadecimal digits, or 36 characters with four hyphens in their places; in braces or behind `urn:uuid:` too.
pub(crate) fn parse_uuid(text: &[u8], buffer: &mut Vec<u8>) -> Option<[u8; 16]> {
    let text = text.trim_ascii();
    let text = text.strip_prefix(b"urn:uuid:").unwrap_or(text);
    let text = text.strip_prefix(b"{").and_then(|rest| rest.strip_suffix(b"}")).unwrap_or(text);
    let mut digits = [0; 32];
    match text.len() {
        32 => digits.copy_from_slice(text),
        36 if [8, 13, 18, 23].iter().all(|at| text[*at] == b'-') => {
            let kept = text.iter().filter(|byte| **byte != b'-');
            if kept.clone().count() != 32 {
                return None;
            }
            digits.iter_mut().zip(kept).for_each(|(to, from)| *to = *from);
        }
        _ => return None,
    }
    if copy::unhex(&digits, buffer) { <[u8; 16]>::try_from(buffer.as_slice()).ok() } else { None }
}

/// The JSON text of a value: text as it is, numbers as JSON writes them, of a blob the text that it is, be it in SQLite's own binary
/// form. Some blobs are both, and mean two things (`3123` is the number 123 there): they are refused.
fn json_source<'a>(cell: Cell<'a>, scratch: &'a mut Scratch) -> Result<&'a str, Rule> {
    match cell {
        Cell::Text(bytes) => utf8(bytes),
        Cell::Blob(bytes) => {
            scratch.bytes.clear();
            if !binary_json::write_text(bytes, &mut scratch.bytes) {
                utf8(bytes)
            } else if utf8(bytes).is_ok_and(|text| json::check(text).is_ok()) {
                Err(Rule::Json)
            } else {
                utf8(&scratch.bytes)
            }
        }
        Cell::Integer(value) => {
            scratch.bytes.clear();
            scratch.bytes.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
            utf8(&scratch.bytes)
        }
        Cell::Real(value) if value.is_finite() => {
            scratch.bytes.clear();
            scratch.bytes.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
            utf8(&scratch.bytes)
        }
        Cell::Real(_) => Err(Rule::NotFinite),
        _ => Err(Rule::StorageClass),
    }
}

fn json_text(
    cell: Cell<'_>,
    out: &mut Vec<u8>,
    canonical: &mut CanonicalRow,
    scratch: &mut Scratch,
) -> Result<(), Rule> {
    let source = json_source(cell, scratch)?;
    json::check(source)?;
    put_text(source.as_bytes(), out, canonical)
}

fn jsonb(
    cell: Cell<'_>,
    out: &mut Vec<u8>,
    canonical: &mut CanonicalRow,
    scratch: &mut Scratch,
) -> Result<(), Rule> {
    let source = json_source(cell, scratch)?;
    let mut form = Vec::with_capacity(source.len());
    json::canonical(source, &mut form)?;
    canonical.jsonb(&form);
    copy::escape(source.as_bytes(), out)
}

fn label(
    cell: Cell<'_>,
    labels: &[String],
    out: &mut Vec<u8>,
    canonical: &mut CanonicalRow,
) -> Result<(), Rule> {
    let Cell::Text(bytes) = cell else { return Err(Rule::StorageClass) };
    if labels.iter().any(|label| label.as_bytes() == bytes) {
        put_text(bytes, out, canonical)
    } else {
        Err(Rule::EnumLabel)
    }
}

fn array_of(
    cell: Cell<'_>,
    element: &Target,
    rule: &ColumnRule,
    out: &mut Vec<u8>,
    canonical: &mut CanonicalRow,
    scratch: &mut Scratch,
) -> Result<(), Rule> {
    let Cell::Text(bytes) = cell else { return Err(Rule::StorageClass) };
    utf8(bytes)?;
    let elements = array::parse(bytes)?;
    if !array::is_regular(&elements) {
        return Err(Rule::Array);
    }
    let rule = ColumnRule { target: element.clone(), empty_is_null: false, ..rule.clone() };
    let mut literal = Vec::with_capacity(bytes.len() + 16);
    put_elements(&elements, &rule, &mut literal, canonical, scratch)?;
    copy::escape(&literal, out)
}

fn put_elements(
    elements: &[Element],
    rule: &ColumnRule,
    literal: &mut Vec<u8>,
    canonical: &mut CanonicalRow,
    scratch: &mut Scratch,
) -> Result<(), Rule> {
    canonical.array(elements.len());
    literal.push(b'{');
    for (at, element) in elements.iter().enumerate() {
        if at > 0 {
            literal.push(b',');
        }
        match element {
            Element::Null => {
                literal.extend_from_slice(b"NULL");
                canonical.null();
            }
            Element::Array(inner) => put_elements(inner, rule, literal, canonical, scratch)?,
            Element::Text(text) => {
                let (mut field, mut plain, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
                let cell = element_cell(text, &rule.target, &mut bytes)?;
                convert(cell, rule, &mut field, canonical, scratch)?;
                copy::unescape(&field, &mut plain);
                array::quote(&plain, literal);
            }
        }
    }
    literal.push(b'}');
    Ok(())
}

/// The value of an element: of `bytea` in PostgreSQL's own form the bytes that its digits stand for.
fn element_cell<'a>(text: &'a [u8], target: &Target, bytes: &'a mut Vec<u8>) -> Result<Cell<'a>, Rule> {
    match (target, text.strip_prefix(b"\\x")) {
        (Target::Bytea, Some(digits)) if copy::unhex(digits, bytes) => Ok(Cell::Blob(bytes)),
        // The older form, in which a backslash begins three octal digits.
        (Target::Bytea, _) if text.contains(&b'\\') => Err(Rule::Array),
        _ => Ok(Cell::Text(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(cell: Cell<'_>, target: Target) -> Result<Vec<u8>, Rule> {
        let (mut out, mut plain) = (Vec::new(), Vec::new());
        convert(
            cell,
            &ColumnRule::new(target),
            &mut out,
            &mut CanonicalRow::default(),
            &mut Scratch::default(),
        )?;
        copy::unescape(&out, &mut plain);
        Ok(plain)
    }

    #[test]
    fn sqlites_own_jsonb_is_read_and_a_blob_that_is_also_a_text_is_refused() {
        for target in [Target::Json, Target::Jsonb] {
            for blob in [&b"3123"[..], b"51.5", b"7123", b"[71]\n\n"] {
                assert_eq!(sent(Cell::Blob(blob), target.clone()), Err(Rule::Json), "{blob:?}");
            }
            for blob in [&b"1234"[..], b"312", b"{\"a\":12}", b"[3123]", b"true", b"\"ab\""] {
                assert_eq!(sent(Cell::Blob(blob), target.clone()).as_deref(), Ok(blob), "{blob:?}");
            }
            for (blob, text) in [
                (
                    &b"\xcc\x0e\x17a\xbb\x131\x352.5\x00\x27\xc3\xbc\x01"[..],
                    "{\"a\":[1,2.5,null,\"ü\",true]}",
                ),
                (b"\x135", "5"),
                (b"\x0b", "[]"),
            ] {
                assert_eq!(sent(Cell::Blob(blob), target.clone()).as_deref(), Ok(text.as_bytes()), "{text}");
            }
            assert_eq!(sent(Cell::Text(b"3123"), target).as_deref(), Ok(&b"3123"[..]));
        }
    }

    #[test]
    fn elements_of_bytea_are_read_as_postgresql_writes_them() {
        let array = || Target::Array(Box::new(Target::Bytea));
        for (text, literal) in [
            (r#"{"\\x00ff"}"#, r#"{"\\x00ff"}"#),
            (r#"["\\x00FF"]"#, r#"{"\\x00ff"}"#),
            (r#"{ab}"#, r#"{"\\x6162"}"#),
        ] {
            assert_eq!(
                sent(Cell::Text(text.as_bytes()), array()).as_deref(),
                Ok(literal.as_bytes()),
                "{text}"
            );
        }
        for text in [r#"{"\\x0"}"#, r#"{"\\xzz"}"#, r#"{"a\\000"}"#] {
            assert_eq!(sent(Cell::Text(text.as_bytes()), array()), Err(Rule::Array), "{text}");
        }
    }
}
