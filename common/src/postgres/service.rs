//! The connection service file: named groups of settings. Pure: the caller reads the file.
//!
//! Source of the rules: "The Connection Service File" in libpq's documentation.

/// The `key=value` lines of the group `[name]`, in order; `None` when the file has no such group.
///
/// Only the first group of that name counts. A line that is neither a comment nor `key=value` gives its number (from 1) as the
/// error: its text may be half a password and must not be shown.
pub fn group(text: &str, name: &str) -> Result<Option<Vec<(String, String)>>, usize> {
    let mut found: Option<Vec<(String, String)>> = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(header) = line.strip_prefix('[') {
            if found.is_some() {
                break;
            }
            if header.strip_suffix(']') == Some(name) {
                found = Some(Vec::new());
            }
            continue;
        }
        if let Some(settings) = &mut found {
            let (key, value) = line.split_once('=').ok_or(index + 1)?;
            settings.push((key.trim_end().to_owned(), value.trim_start().to_owned()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FILE: &str = "# services\n[shop]\nhost=db.example.com\n port = 6000\n\n[other]\nhost=x\nbroken\n";

    #[test]
    fn the_group_is_found_by_name() {
        let shop = group(FILE, "shop").unwrap().unwrap();
        assert_eq!(
            shop,
            [("host".to_owned(), "db.example.com".to_owned()), ("port".to_owned(), "6000".to_owned())]
        );
        assert_eq!(group(FILE, "none"), Ok(None));
    }

    #[test]
    fn a_broken_line_is_named_by_its_number() {
        assert_eq!(group(FILE, "other"), Err(8));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in any::<String>()) {
            let _ = group(&text, "a");
        }
    }
}
