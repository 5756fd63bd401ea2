//! The fields of COPY text.

use crate::value::Rule;

/// How many bytes are looked at in one step: enough for the compiler to use wide registers.
const STEP: usize = 32;

fn is_special(byte: u8) -> bool {
    matches!(byte, 0 | b'\t' | b'\n' | b'\r' | b'\\')
}

/// Appends text as a field.
///
/// # Errors
/// [`Rule::ZeroByte`]
pub(crate) fn escape(text: &[u8], out: &mut Vec<u8>) -> Result<(), Rule> {
    for piece in text.chunks(STEP) {
        // No early exit: the whole piece is looked at without a branch.
        if !piece.iter().fold(false, |found, byte| found | is_special(*byte)) {
            out.extend_from_slice(piece);
            continue;
        }
        for byte in piece {
            match byte {
                0 => return Err(Rule::ZeroByte),
                b'\t' => out.extend_from_slice(b"\\t"),
                b'\n' => out.extend_from_slice(b"\\n"),
                b'\r' => out.extend_from_slice(b"\\r"),
                b'\\' => out.extend_from_slice(b"\\\\"),
                byte => out.push(*byte),
            }
        }
    }
    Ok(())
}

/// A field without its backslashes.
pub fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    unescape(field, &mut out);
    out
}

/// Takes the backslashes of a field away.
pub(crate) fn unescape(field: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let mut rest = field;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        let Some(escaped) = rest.get(at + 1) else { break };
        out.push(match escaped {
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 11,
            other => *other,
        });
        rest = &rest[at + 2..];
    }
    out.extend_from_slice(rest);
}

/// Appends bytes as a field of `bytea`.
pub(crate) fn bytea(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(b"\\\\x");
    out.reserve(bytes.len() * 2);
    out.extend(
        bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]),
    );
}

/// The bytes of an even number of hexadecimal digits.
pub(crate) fn unhex(digits: &[u8], out: &mut Vec<u8>) -> bool {
    out.clear();
    let (pairs, rest) = digits.as_chunks::<2>();
    for [high, low] in pairs {
        match (nibble(*high), nibble(*low)) {
            (Some(high), Some(low)) => out.push(high << 4 | low),
            _ => return false,
        }
    }
    rest.is_empty()
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn a_field_comes_back(text in "(\\PC|[\t\n\r\\\\.N]){0,80}") {
            let (mut field, mut back) = (Vec::new(), Vec::new());
            escape(text.as_bytes(), &mut field).unwrap();
            proptest::prop_assert!(!field.iter().any(|byte| matches!(byte, b'\t' | b'\n' | b'\r')));
            proptest::prop_assert_ne!(&field[..], b"\\N");
            unescape(&field, &mut back);
            proptest::prop_assert_eq!(back, text.as_bytes());
        }

        #[test]
        fn bytes_come_back(bytes: Vec<u8>) {
            let (mut field, mut back) = (Vec::new(), Vec::new());
            bytea(&bytes, &mut field);
            proptest::prop_assert!(field.starts_with(b"\\\\x") && unhex(&field[3..], &mut back));
            proptest::prop_assert_eq!(back, bytes);
        }
    }

    #[test]
    fn the_byte_0_is_refused_wherever_it_is() {
        for at in [0, 31, 32, 70] {
            let mut text = vec![b'a'; 71];
            text[at] = 0;
            assert_eq!(escape(&text, &mut Vec::new()), Err(Rule::ZeroByte));
        }
    }
}
