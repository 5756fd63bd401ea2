//! The only way for text to get into a page of ours. Pure.
//!
//! Names and SQL come from a database and may be hostile: markup is escaped, and what could move the cursor, hide or turn
//! around other text is shown as what it is. Text goes between tags, or into attributes in double quotes.

/// `text` as HTML.
pub fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            // The control pictures: U+2400 for NUL and so on.
            '\0'..='\x1f' => out.push(char::from_u32(0x2400 + u32::from(c)).unwrap_or('\u{fffd}')),
            '\x7f' => out.push('\u{2421}'),
            _ if c.is_control() || crate::ident::is_invisible(c) => {
                out.push_str(&format!("\\u{{{:x}}}", u32::from(c)));
            }
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn markup_and_what_can_not_be_seen_are_shown_as_they_are() {
        assert_eq!(super::text("<a b=\"c\">'&"), "&lt;a b=&quot;c&quot;&gt;&#39;&amp;");
        assert_eq!(super::text("a\u{1b}[2Jb\u{202e}c\r\n"), "a\u{241b}[2Jb\\u{202e}c\u{240d}\n");
    }
}
