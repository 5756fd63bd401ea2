//! Arrays as text: PostgreSQL's `{…}` and JSON's `[…]`.

use serde_json::value::RawValue;

use crate::value::Rule;

/// An element of an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Element {
    Null,
    Text(Vec<u8>),
    Array(Vec<Element>),
}

/// How deep PostgreSQL's arrays go.
const DIMENSIONS: usize = 6;

/// Reads an array in either form.
pub(crate) fn parse(text: &[u8]) -> Result<Vec<Element>, Rule> {
    let text = text.trim_ascii();
    match text.first() {
        Some(b'{') => {
            let mut at = 1;
            let elements = literal(text, &mut at, 1)?;
            if at == text.len() { Ok(elements) } else { Err(Rule::Array) }
        }
        Some(b'[') => json(std::str::from_utf8(text).map_err(|_| Rule::InvalidText)?, 1),
        _ => Err(Rule::Array),
    }
}

/// What follows `{`, to the matching `}`.
fn literal(text: &[u8], at: &mut usize, depth: usize) -> Result<Vec<Element>, Rule> {
    let mut elements = Vec::new();
    let skip_blanks = |at: &mut usize| {
        while text.get(*at).is_some_and(u8::is_ascii_whitespace) {
            *at += 1;
        }
    };
    skip_blanks(at);
    if text.get(*at) == Some(&b'}') {
        *at += 1;
        return Ok(elements);
    }
    loop {
        skip_blanks(at);
        elements.push(match text.get(*at) {
            Some(b'{') if depth < DIMENSIONS => {
                *at += 1;
                Element::Array(literal(text, at, depth + 1)?)
            }
            Some(b'"') => {
                *at += 1;
                Element::Text(quoted(text, at)?)
            }
            _ => bare(text, at)?,
        });
        skip_blanks(at);
        let next = text.get(*at);
        *at += 1;
        match next {
            Some(b',') => {}
            Some(b'}') => return Ok(elements),
            _ => return Err(Rule::Array),
        }
    }
}

fn quoted(text: &[u8], at: &mut usize) -> Result<Vec<u8>, Rule> {
    let mut element = Vec::new();
    loop {
        let byte = *text.get(*at).ok_or(Rule::Array)?;
        *at += 1;
        match byte {
            b'"' => return Ok(element),
            b'\\' => {
                element.push(*text.get(*at).ok_or(Rule::Array)?);
                *at += 1;
            }
            byte => element.push(byte),
        }
    }
}

fn bare(text: &[u8], at: &mut usize) -> Result<Element, Rule> {
    let mut element = Vec::new();
    let mut is_escaped = false;
    loop {
        match text.get(*at) {
            None | Some(b'"' | b'{') => return Err(Rule::Array),
            Some(b',' | b'}') => break,
            Some(b'\\') => {
                is_escaped = true;
                element.push(*text.get(*at + 1).ok_or(Rule::Array)?);
                *at += 2;
            }
            Some(byte) => {
                element.push(*byte);
                *at += 1;
            }
        }
    }
    let trimmed = if is_escaped { &element[..] } else { element.trim_ascii_end() };
    match trimmed {
        [] => Err(Rule::Array),
        null if !is_escaped && null.eq_ignore_ascii_case(b"null") => Ok(Element::Null),
        text => Ok(Element::Text(text.to_vec())),
    }
}

fn json(text: &str, depth: usize) -> Result<Vec<Element>, Rule> {
    let values: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| Rule::Array)?;
    let element = |value: &&RawValue| {
        let text = value.get();
        Ok(match text.as_bytes().first() {
            Some(b'"') => {
                Element::Text(serde_json::from_str::<String>(text).map_err(|_| Rule::JsonText)?.into_bytes())
            }
            Some(b'[') if depth < DIMENSIONS => Element::Array(json(text, depth + 1)?),
            Some(b'n') => Element::Null,
            Some(b'{' | b'[') => return Err(Rule::Array),
            _ => Element::Text(text.as_bytes().to_vec()),
        })
    };
    values.iter().map(element).collect()
}

/// Whether all arrays of one level are of one length, as PostgreSQL wants it.
pub(crate) fn is_regular(elements: &[Element]) -> bool {
    fn shape(elements: &[Element]) -> Option<Vec<usize>> {
        let mut shapes = elements.iter().map(|element| match element {
            Element::Array(inner) => shape(inner),
            _ => Some(Vec::new()),
        });
        let first = shapes.next().unwrap_or(Some(Vec::new()))?;
        if shapes.any(|other| other.as_ref() != Some(&first)) {
            return None;
        }
        Some(std::iter::once(elements.len()).chain(first).collect())
    }
    // `{{}}` would come back as `{}`.
    shape(elements).is_some_and(|shape| shape.len() == 1 || !shape.contains(&0))
}

/// Appends an element's text in quotes.
pub(crate) fn quote(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Element {
        Element::Text(text.as_bytes().to_vec())
    }

    #[test]
    fn both_forms_are_read() {
        for source in
            [r#"{a,"b,c",NULL,"NULL"}"#, r#"["a","b,c",null,"NULL"]"#, r#"{ a , "b\,c", null ,"NULL"}"#]
        {
            let expected = vec![text("a"), text("b,c"), Element::Null, text("NULL")];
            assert_eq!(parse(source.as_bytes()), Ok(expected), "{source}");
        }
        assert_eq!(parse(b"{}"), Ok(vec![]));
        assert_eq!(parse(b"[1, [2]]"), Ok(vec![text("1"), Element::Array(vec![text("2")])]));
        for bad in
            ["", "a,b", "{a", "{a,}", "{,}", "{a}b", "[{\"a\":1}]", "[0:1]={1,2}", "{\"a", "{{{{{{{1}}}}}}}"]
        {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(!is_regular(&parse(b"{1,{2}}").unwrap()) && !is_regular(&parse(b"{{1},{2,3}}").unwrap()));
        assert!(is_regular(&parse(b"{{1,2},{3,4}}").unwrap()) && is_regular(&[]));
    }

    proptest::proptest! {
        #[test]
        fn quoted_text_comes_back(values in proptest::collection::vec("\\PC{0,9}|[\\\\\",{}]{0,5}", 1..5)) {
            let mut array = vec![b'{'];
            for (at, value) in values.iter().enumerate() {
                if at > 0 {
                    array.push(b',');
                }
                quote(value.as_bytes(), &mut array);
            }
            array.push(b'}');
            proptest::prop_assert_eq!(parse(&array), Ok(values.iter().map(|value| text(value)).collect()));
        }
    }
}
