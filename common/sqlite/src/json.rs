//! JSON: whether a text is some, and one form for one value of `jsonb`.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::{decimal::Decimal, value::Rule};

/// Digits before and after the point that `numeric`, and so a number in jsonb, has at most.
const NUMERIC_DIGITS: (i64, i32) = (131_072, 16_383);

/// Levels of arrays and objects. Beyond that reading would need more stack with each.
const DEPTH: usize = 128;

/// Whether a text is JSON (RFC 8259), nested no deeper than 128 levels.
pub(crate) fn check(text: &str) -> Result<(), Rule> {
    if is_too_deep(text.as_bytes()) {
        return Err(Rule::Json);
    }
    serde_json::from_str::<serde::de::IgnoredAny>(text).map(|_| ()).map_err(|_| Rule::Json)
}

/// Whether brackets outside of strings are nested deeper than [`DEPTH`].
fn is_too_deep(text: &[u8]) -> bool {
    let (mut depth, mut in_string, mut is_escaped) = (0_usize, false, false);
    for byte in text {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH {
            return true;
        }
    }
    false
}

/// Appends the one form of a value: no blanks, keys sorted and the last of each kept, numbers without zeros that mean nothing.
pub(crate) fn canonical(text: &str, out: &mut Vec<u8>) -> Result<(), Rule> {
    check(text)?;
    write(text.trim_matches([' ', '\t', '\n', '\r']), out)
}

fn write(text: &str, out: &mut Vec<u8>) -> Result<(), Rule> {
    // What can't be read now though it is JSON is half of a surrogate pair.
    match text.as_bytes().first() {
        Some(b'{') => {
            let members: BTreeMap<String, &RawValue> =
                serde_json::from_str(text).map_err(|_| Rule::JsonText)?;
            out.push(b'{');
            for (at, (key, value)) in members.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_string(key, out)?;
                out.push(b':');
                write(value.get(), out)?;
            }
            out.push(b'}');
        }
        Some(b'[') => {
            let elements: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| Rule::JsonText)?;
            out.push(b'[');
            for (at, value) in elements.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write(value.get(), out)?;
            }
            out.push(b']');
        }
        Some(b'"') => {
            let string: String = serde_json::from_str(text).map_err(|_| Rule::JsonText)?;
            write_string(&string, out)?;
        }
        Some(b'-' | b'0'..=b'9') => write_number(text, out)?,
        // true, false, null
        _ => out.extend_from_slice(text.as_bytes()),
    }
    Ok(())
}

fn write_string(string: &str, out: &mut Vec<u8>) -> Result<(), Rule> {
    if string.contains('\0') {
        return Err(Rule::JsonText);
    }
    serde_json::to_writer(out, string).map_err(|_| Rule::JsonText)
}

fn write_number(text: &str, out: &mut Vec<u8>) -> Result<(), Rule> {
    let number = Decimal::parse(text.as_bytes()).ok_or(Rule::Range)?;
    if number.whole_digits() > NUMERIC_DIGITS.0 || number.exponent < -NUMERIC_DIGITS.1 {
        return Err(Rule::Range);
    }
    // Numbers of jsonb have no sign of zero.
    if number.is_negative && !number.is_zero() {
        out.push(b'-');
    }
    if number.is_zero() {
        out.push(b'0');
    }
    out.extend_from_slice(&number.digits);
    out.push(b'e');
    out.extend_from_slice(itoa::Buffer::new().format(number.exponent).as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(text: &str) -> Result<String, Rule> {
        let mut out = Vec::new();
        canonical(text, &mut out).map(|()| String::from_utf8(out).unwrap())
    }

    #[test]
    fn one_value_has_one_form() {
        for (one, other) in [
            (r#"{"b":1, "a":[1.0,  1e2]}"#, "{\"a\": [1, 100], \"b\": 1.00}"),
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
            (r#""\u00e4\/""#, "\"ä/\""),
            ("-0.0", "0"),
            (" null ", "null"),
        ] {
            assert_eq!(form(one), form(other), "{one}");
            assert!(form(one).is_ok());
        }
        assert_ne!(form("1"), form("\"1\""));
        assert_ne!(form("12345678901234567890"), form("12345678901234567891"));
    }

    #[test]
    fn what_jsonb_can_not_hold_is_refused() {
        assert_eq!(form(r#""\u0000""#), Err(Rule::JsonText));
        assert_eq!(form(r#"{"\u0000":1}"#), Err(Rule::JsonText));
        assert_eq!(form(r#""\ud800""#), Err(Rule::JsonText));
        assert_eq!(form("1e999999"), Err(Rule::Range));
        for text in ["", "NaN", "{'a':1}", "[1,]", "01", "\"a", "1 2", "\"\u{1}\""] {
            assert_eq!(form(text), Err(Rule::Json), "{text}");
        }
        assert_eq!(form(&"[".repeat(100_000)), Err(Rule::Json));
    }
}
