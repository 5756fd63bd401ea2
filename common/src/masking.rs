//! Takes passwords out of text that is shown and stored: connection strings, assignments, and values that follow a name such
//! as PASSWORD, in SQL, in messages of a server and on command lines. Pure.
//!
//! In doubt it masks too much: a report that hides a harmless word is a nuisance, one that shows a password is a leak.

use std::borrow::Cow;

/// What stands in a secret's place.
pub const MASK: &str = "***";

/// Whether a name is one of a secret: of an option, a variable, a key, a column.
pub fn names_secret(name: &str) -> bool {
    let lower = name.to_lowercase();
    // Files of them, and settings about them, are told.
    let is_about = ["passfile", "password-file", "password_file", "password_encryption", "passwordcheck"];
    if is_about.iter().any(|about| lower.ends_with(about)) {
        return false;
    }
    let within = ["password", "passwd", "passphrase", "passcode", "secret", "credential", "bearer"];
    let at_the_end = [
        "pwd",
        "pswd",
        "pass",
        "_pw",
        "-pw",
        ".pw",
        "token",
        "signature",
        "accesskey",
        "accountkey",
        "privatekey",
        "apikey",
    ];
    let keys = [
        "api",
        "access",
        "account",
        "private",
        "encryption",
        "signing",
        "master",
        "jwt",
        "auth",
        "storage",
        "shared",
    ];
    let is_key = |end: &str| {
        let kind = lower.strip_suffix(end).unwrap_or_default();
        keys.iter().any(|key| kind.ends_with(key))
    };
    let alone = ["pw", "psw", "sig", "auth", "_auth"];
    // A variable of the environment.
    let harmless =
        ["PRIMARY_KEY", "FOREIGN_KEY", "PUBLIC_KEY", "UNIQUE_KEY", "PARTITION_KEY", "SORT_KEY", "CACHE_KEY"];
    let is_variable = name.ends_with("_KEY") && !harmless.iter().any(|known| name.ends_with(known));
    is_variable
        || is_key("_key")
        || is_key("-key")
        || within.iter().any(|word| lower.contains(word))
        || at_the_end.iter().any(|end| lower.ends_with(end))
        || alone.contains(&lower.trim_start_matches('-'))
}

/// Any text that may hold a URL, a `key=value` connection string, an assignment, or SQL.
pub fn text(text: &str) -> String {
    connection(&words(&after_names(&headers(text))))
}

/// Masks what stands in a word without a name: `user:x@host`, and a line of a password file.
fn words(text: &str) -> String {
    let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '(' | ',');
    text.split_inclusive(ends)
        .map(|piece| {
            let word = piece.trim_end_matches(ends);
            let begins = secret_of_a_word(word).filter(|(begin, end)| begin < end);
            begins.map_or_else(
                || piece.to_owned(),
                |(begin, end)| format!("{}{MASK}{}", &piece[..begin], &piece[end..]),
            )
        })
        .collect()
}

/// Where the secret of a word is.
fn secret_of_a_word(word: &str) -> Option<(usize, usize)> {
    if word.contains("://") {
        return None;
    }
    let fields: Vec<&str> = word.splitn(5, ':').collect();
    // `host:port:database:user:password`; an address of IPv6 has other fields.
    let is_port = |field: &str| {
        field == "*"
            || !field.is_empty() && field.len() <= 5 && field.bytes().all(|byte| byte.is_ascii_digit())
    };
    if fields.len() == 5 && is_port(fields[1]) && fields.iter().all(|field| !field.is_empty()) {
        return Some((word.len() - fields[4].len(), word.len()));
    }
    let at = word.rfind('@')?;
    let colon = word[..at].find(':')?;
    let is_host = word[at + 1..].starts_with(|c: char| c.is_alphanumeric() || c == '[');
    (is_host && colon > 0 && !word[colon + 1..].starts_with(':')).then_some((colon + 1, at))
}

/// Headers of HTTP whose values let somebody in, as they stand in the words of curl and the like.
const HEADERS: [&str; 5] = ["authorization:", "x-api-key:", "x-auth-token:", "x-vault-token:", "cookie:"];

/// Masks what follows a header's name, up to a quotation mark or the end of the line.
pub fn headers(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    while let Some(after) =
        HEADERS.iter().filter_map(|name| lower[done..].find(name).map(|at| done + at + name.len())).min()
    {
        out.push_str(&text[done..after]);
        let value = &text[after..];
        let ends = value.find(['\'', '"', '\n']).unwrap_or(value.len());
        if !value[..ends].trim().is_empty() {
            out.push(' ');
            out.push_str(MASK);
        }
        done = after + ends;
    }
    out + &text[done..]
}

/// One word, or one literal, that may be a URL or a `key=value` connection string.
pub fn connection(text: &str) -> String {
    let mut masked = key_values(text);
    if let Some(scheme) = masked.find("://") {
        let after = scheme + 3;
        if let Some(at) = masked[after..].rfind('@') {
            let user = &masked[after..after + at];
            if let Some(colon) = user.find(':') {
                masked.replace_range(after + colon + 1..after + at, MASK);
            } else if is_web(&masked[..scheme])
                && !user.contains(['/', '?', '#'])
                && !user.contains(char::is_whitespace)
            {
                // A token alone.
                masked.replace_range(after..after + at, MASK);
            }
        }
    }
    masked
}

/// Whether a text ends with the scheme of a web address.
fn is_web(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let scheme = lower.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '+').next().unwrap_or_default();
    ["http", "https"].contains(&scheme.strip_prefix("git+").unwrap_or(scheme))
}

/// A message that may name a URL which somebody gave in the wrong place: of each URL the password alone, before its `@` and among its
/// settings. For text of ours, of which nothing else is in doubt.
pub fn urls(text: &str) -> Cow<'_, str> {
    if !text.contains("://") {
        return Cow::Borrowed(text);
    }
    let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '`');
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let begins = rest[..at].rfind(ends).map_or(0, |before| before + char_len(rest, before));
        let mut length = rest[at..].find(ends).unwrap_or(rest.len() - at);
        if rest[at + 3..at + length].contains(':') && !rest[at..at + length].contains('@') {
            // A password with a blank or a quotation mark in it: up to the last @ of the line, since it may hold that too.
            let line = rest[at..].find('\n').unwrap_or(rest.len() - at);
            length = rest[at..at + line].rfind('@').map_or(length, |last| last + 1);
        }
        out.push_str(&rest[..begins]);
        out.push_str(&connection(&rest[begins..at + length]));
        rest = &rest[at + length..];
    }
    Cow::Owned(out + rest)
}

/// [`urls`], and the passwords of `key=value` connection strings.
pub fn message(text: &str) -> Cow<'_, str> {
    let masked = urls(text);
    if masked.contains('=') {
        return Cow::Owned(key_values(&masked));
    }
    masked
}

/// Masks the value of each `…password=…`, `passwd=` and `pwd=`.
fn key_values(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(equals) = rest.find('=') {
        let (key, value) = rest.split_at(equals + 1);
        out.push_str(key);
        let name = key[..equals].trim_end();
        let name = &name[name.rfind(|c: char| !is_key(c)).map_or(0, |at| at + char_len(name, at))..];
        rest = value;
        if names_secret(name) {
            let blank = value.len() - value.trim_start().len();
            out.push_str(&value[..blank]);
            out.push_str(MASK);
            rest = &value[blank + value_length(&value[blank..])..];
        }
    }
    out + rest
}

fn char_len(text: &str, at: usize) -> usize {
    text[at..].chars().next().map_or(0, char::len_utf8)
}

fn is_key(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '-'
}

/// Length of a libpq value: quoted with backslash escapes, or up to a blank or `&`, unless a backslash protects that.
fn value_length(value: &str) -> usize {
    if value.starts_with('"') {
        return double_quoted_length(value);
    }
    if value.starts_with('\'') {
        let mut escaped = false;
        for (at, c) in value.char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '\'' => return at + 1,
                _ => {}
            }
        }
        return value.len();
    }
    let mut escaped = false;
    let ends = |c: char| {
        let is_end = !escaped && (c.is_whitespace() || c == '&');
        escaped = c == '\\' && !escaped;
        is_end
    };
    value.find(ends).unwrap_or(value.len())
}

/// Masks each quoted text behind a name of a secret: `PASSWORD 'x'`, `IDENTIFIED BY 'x'`, `"password": "x"`,
/// `password => $$x$$`. It needs no SQL around: quotes before it may be those of a sentence or of a shell.
pub fn after_names(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = String::new();
    while let Some(start) = rest.find(is_key) {
        let end = rest[start..].find(|c| !is_key(c)).map_or(rest.len(), |length| start + length);
        let name = &rest[start..end];
        let is_secret = names_secret(name)
            || (name.eq_ignore_ascii_case("by") && before.eq_ignore_ascii_case("identified"));
        name.clone_into(&mut before);
        out.push_str(&rest[..end]);
        rest = &rest[end..];
        if let Some((arguments, length)) = masked_arguments(&before, rest) {
            out.push_str(&arguments);
            rest = &rest[length..];
            continue;
        }
        let between = if is_secret { end_of_a_quoted_name(rest) } else { 0 };
        out.push_str(&rest[..between]);
        rest = &rest[between..];
        let found = if between > 0 && rest.starts_with('"') {
            Some((0, double_quoted_length(rest)))
        } else {
            is_secret.then(|| quoted(rest)).flatten()
        };
        if found.is_none()
            && is_secret
            && let Some((open, length)) = after_a_colon(&before, rest)
        {
            out.push_str(&rest[..open]);
            out.push_str(MASK);
            rest = &rest[open + length..];
        } else if let Some((open, length)) = found {
            let quote = match &rest[open..=open] {
                "$" => "'",
                "'" => &rest[open..open + quotes_around(&rest[open..])],
                quote => quote,
            };
            // The quote stays where a backslash protects it.
            out.push_str(&rest[..open]);
            out.push_str(&format!("{quote}{MASK}{quote}"));
            rest = &rest[open + length..];
        }
    }
    out + rest
}

/// Functions of pgcrypto, one of whose arguments is a key or a password.
const CRYPTO: [&str; 9] = [
    "crypt",
    "hmac",
    "encrypt",
    "encrypt_iv",
    "decrypt",
    "decrypt_iv",
    "pgp_sym_encrypt",
    "pgp_sym_decrypt",
    "pgp_pub_decrypt",
];

/// The arguments of one of [`CRYPTO`] with every literal masked, and how long they are.
fn masked_arguments(name: &str, text: &str) -> Option<(String, usize)> {
    if !CRYPTO.contains(&name.to_ascii_lowercase().as_str()) || !text.trim_start().starts_with('(') {
        return None;
    }
    let (mut out, mut at, mut depth) = (String::new(), 0, 0_u32);
    while let Some(c) = text[at..].chars().next() {
        if c == '\'' {
            let (quotes, length) = single_quoted(&text[at..]);
            let quote = &text[at..at + quotes];
            out.push_str(&format!("{quote}{MASK}{quote}"));
            at += length;
            continue;
        }
        depth = match c {
            '(' => depth + 1,
            ')' => depth - 1,
            _ => depth,
        };
        out.push(c);
        at += c.len_utf8();
        if c == ')' && depth == 0 {
            break;
        }
    }
    Some((out, at))
}

/// How many quotes stand around the literal that begins here, and its whole length.
fn single_quoted(text: &str) -> (usize, usize) {
    let quotes = quotes_around(text);
    let length = match text[quotes..].find(&"'".repeat(quotes)) {
        Some(inner) if quotes > 1 => quotes + inner + quotes,
        _ => literal_length(text, false),
    };
    (quotes, length)
}

/// The length of what stands between `'password'` and `'x'`, where both are arguments or elements of a list.
fn end_of_a_quoted_name(text: &str) -> usize {
    let Some(rest) = text.strip_prefix(['\'', '"']) else { return 0 };
    let Some(value) = rest.trim_start().strip_prefix(',') else { return 0 };
    let value = value.trim_start();
    if value.starts_with(['\'', '"', '$']) || value.starts_with("E'") {
        // A double quote has to follow an assignment, of which the comma is one.
        text.len() - value.len()
    } else {
        0
    }
}

/// Where an unquoted word begins behind a colon, and its length: `Private-Token: x`. In prose more words follow: `no password: give one`.
fn after_a_colon(name: &str, text: &str) -> Option<(usize, usize)> {
    let value = text.strip_prefix(':')?;
    let word = value.trim_start_matches([' ', '\t']);
    let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',' | ')' | '}');
    let length = word.find(ends).unwrap_or(word.len());
    let is_word =
        length > 0 && !value.starts_with([':', '=', '/']) && !word.starts_with(['$', '{', '[', '(', '@']);
    let is_prose = !name.contains(['-', '_']) && word[length..].starts_with([' ', '\t']);
    (is_word && !is_prose).then_some((text.len() - word.len(), length))
}

/// Where a quoted text begins behind a name, and its length; nothing if something else follows.
fn quoted(text: &str) -> Option<(usize, usize)> {
    let mut at = 0;
    let mut assigned = false;
    // What may stand between: the end of a quoted name, blanks, an assignment, a comment, the beginning of arguments.
    loop {
        let rest = &text[at..];
        let c = rest.chars().next()?;
        if rest.starts_with("/*") {
            at += rest.find("*/")? + 2;
        } else if rest.starts_with("--") && rest[2..].contains('\n') {
            at += rest.find('\n')?;
        } else if c.is_whitespace() || c == '(' || (c == ')' && !assigned) || c == '\\' {
            at += c.len_utf8();
        } else if matches!(c, '=' | ':' | '>') {
            assigned = true;
            at += 1;
        } else if c == '"' && !assigned && text[..at].bytes().all(|byte| byte == b'\\') {
            at += 1;
        } else if !assigned && starts_with_to(rest) {
            assigned = true;
            at += 2;
        } else if matches!(c, 'e' | 'E') && rest[1..].starts_with('\'') {
            return Some((at + 1, literal_length(&rest[1..], true)));
        } else if matches!(c, 'u' | 'U') && rest[1..].starts_with("&'") {
            return Some((at + 2, literal_length(&rest[2..], false)));
        } else if c == '\'' {
            return Some((at, single_quoted(rest).1));
        } else if c == '"' && assigned {
            return Some((at, double_quoted_length(rest)));
        } else if c == '$' {
            let tag = rest[1..].find('$').map(|end| &rest[..end + 2])?;
            if !tag[1..tag.len() - 1].chars().all(|c| c.is_alphanumeric() || c == '_') {
                return None;
            }
            let length = rest[tag.len()..].find(tag).map_or(rest.len(), |end| end + 2 * tag.len());
            return Some((at, length));
        } else {
            return None;
        }
    }
}

/// Whether a text begins with the word TO, which assigns in SET.
fn starts_with_to(text: &str) -> bool {
    text.get(..2).is_some_and(|word| word.eq_ignore_ascii_case("to"))
        && text[2..].starts_with(char::is_whitespace)
}

/// How many quotes stand around the text that begins here: within a literal each is doubled, `''x''`, and in a literal of that
/// literal twice. An empty literal has one on each side.
fn quotes_around(text: &str) -> usize {
    let run = text.len() - text.trim_start_matches('\'').len();
    let is_within_a_literal = run > 0 && run.is_multiple_of(2) && text[run..].contains(&"'".repeat(run));
    if is_within_a_literal { run } else { 1 }
}

/// Length of a literal that begins here; a quote in it is doubled, or escaped where backslashes mean something. All the rest
/// where it never ends.
fn literal_length(text: &str, backslashes: bool) -> usize {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' if backslashes => drop(chars.next()),
            '\'' if chars.next_if(|(_, next)| *next == '\'').is_none() => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn double_quoted_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests;
