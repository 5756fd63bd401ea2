//! SQLite's own binary JSON (its JSONB), which `jsonb(…)` makes, as a text. Its format: <https://sqlite.org/jsonb.html>.
//!
//! Decides which text a value is. It never guesses: what is damaged, or has a form that only JSON5 has, is none.

/// Levels of arrays and objects: each is a call.
const DEPTH: usize = 128;

/// Appends the text of a value. `false`: the bytes are not one, and what was appended means nothing.
pub(crate) fn write_text(bytes: &[u8], out: &mut Vec<u8>) -> bool {
    write(bytes, DEPTH, out).is_some_and(<[u8]>::is_empty)
}

/// Writes the element that the bytes begin with, and gives what is behind it.
fn write<'a>(bytes: &'a [u8], levels: usize, out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let (kind, content, rest) = element(bytes)?;
    match kind {
        0..=2 if content.is_empty() => {
            out.extend_from_slice([&b"null"[..], b"true", b"false"][usize::from(kind)]);
        }
        3 => {
            let digits = content.strip_prefix(b"-").unwrap_or(content);
            if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
                return None;
            }
            out.extend_from_slice(content);
        }
        5 => {
            if content.is_empty() || !content.iter().all(|byte| b"0123456789.+-eE".contains(byte)) {
                return None;
            }
            out.extend_from_slice(content);
        }
        7 | 8 | 10 => write_string(kind, content, out)?,
        11 => write_members(content, b"[]", levels.checked_sub(1)?, out)?,
        12 => write_members(content, b"{}", levels.checked_sub(1)?, out)?,
        _ => return None,
    }
    Some(rest)
}

/// The kind, the content, and what is behind it. A size below 12 is in the first byte, any other in 1, 2, 4 or 8 bytes behind.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (head, rest) = bytes.split_first()?;
    let (size, rest) = match head >> 4 {
        size @ 0..=11 => (usize::from(size), rest),
        code => {
            let (digits, rest) = rest.split_at_checked(1 << (code - 12))?;
            let size = digits.iter().fold(0_u64, |size, byte| (size << 8) | u64::from(*byte));
            (usize::try_from(size).ok()?, rest)
        }
    };
    let (content, rest) = rest.split_at_checked(size)?;
    Some((head & 15, content, rest))
}

/// Without anything to escape (7), with JSON's escapes (8), or without escapes though there should be (10).
fn write_string(kind: u8, content: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let text = std::str::from_utf8(content).ok()?;
    if kind == 10 {
        return serde_json::to_writer(out, text).ok();
    }
    let mut is_escaped = false;
    for byte in content {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if kind == 8 => is_escaped = true,
            b'"' | b'\\' => return None,
            _ => {}
        }
    }
    if is_escaped {
        return None;
    }
    out.push(b'"');
    out.extend_from_slice(content);
    out.push(b'"');
    Some(())
}

/// The elements of an array, or the labels and values of an object.
fn write_members(mut content: &[u8], brackets: &[u8; 2], levels: usize, out: &mut Vec<u8>) -> Option<()> {
    let is_object = brackets == b"{}";
    out.push(brackets[0]);
    while !content.is_empty() {
        if out.last() != Some(&brackets[0]) {
            out.push(b',');
        }
        if is_object {
            let (kind, label, rest) = element(content)?;
            if !matches!(kind, 7 | 8 | 10) {
                return None;
            }
            write_string(kind, label, out)?;
            out.push(b':');
            content = rest;
        }
        content = write(content, levels, out)?;
    }
    out.push(brackets[1]);
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rusqlite::Connection;
    use serde_json::Value;

    use super::*;

    fn text_of(bytes: &[u8]) -> Option<String> {
        let mut out = Vec::new();
        write_text(bytes, &mut out).then(|| String::from_utf8(out).unwrap())
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,20}|[\"\\\\\u{1}/ü]{0,9}|x{240,300}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 60, 8, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                proptest::collection::btree_map(".{0,9}", inner, 0..8)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// The oracle is SQLite, which makes the binary form.
        #[test]
        fn what_sqlite_makes_is_the_same_json(value in values(), is_pretty: bool) {
            let text = if is_pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let text = text.unwrap();
            let made: Vec<u8> = Connection::open_in_memory().unwrap()
                .query_row("SELECT jsonb(?)", [&text], |row| row.get(0)).unwrap();
            let read = text_of(&made).expect("SQLite made it");
            let [read, value] = [&read, &text].map(|text| serde_json::from_str::<Value>(text).unwrap());
            prop_assert_eq!(read, value);
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = text_of(&bytes);
        }
    }

    #[test]
    fn what_is_damaged_or_json5_is_none() {
        for bytes in [
            &b""[..],
            b"\x01\x01",      // two values
            b"\x33" as &[u8], // shorter than it says
            b"\x331,2",       // no integer
            b"\x37a\"b",      // a quote where none is
            b"\x18\\",        // an escape of nothing
            b"\x110",         // true with a content
            b"\x2c\x131",     // a label that is a number
            b"\x2c\x17a",     // a label without a value
            b"\x340xf",       // hexadecimal
            b"\x26.5",        // no digit before the point
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            assert_eq!(text_of(bytes), None, "{bytes:?}");
        }
        let deep = (0..200).fold(vec![0_u8], |inner, _| {
            let size = u8::try_from(inner.len() >> 8).unwrap();
            [vec![0xdb, size, (inner.len() & 255) as u8], inner].concat()
        });
        assert_eq!(text_of(&deep), None);
        assert_eq!(text_of(b"\x18\"").as_deref(), None);
        assert_eq!(text_of(b"\x1a\"").as_deref(), Some(r#""\"""#));
        assert_eq!(text_of(b"\xc3\x011").as_deref(), Some("1"), "a size in a byte of its own");
    }
}
