//! Takes passwords out of what is shown and stored: words of command lines and SQL. Pure.
//!
//! In doubt it masks too much: a report that hides a harmless word is a nuisance, one that shows a password is a leak.

use common::{
    ident::printable,
    masking::{self, MASK, connection},
};

use crate::token::{TokenKind, tokens};

/// How deep dollar-quoted bodies are looked into: a body in a body in a body.
const DEPTH: u32 = 4;

/// The words of a command for people: passwords masked, control characters escaped.
pub fn words<'a>(words: impl IntoIterator<Item = &'a std::ffi::OsStr>) -> Vec<String> {
    let mut before = Before::default();
    let mut is_script = false;
    let mut masked = Vec::new();
    for word in words {
        // What a line end is has to be seen: `PASSWORD -- why` and the literal on the next line.
        let text = word.to_string_lossy();
        masked.push(printable(&before.shows(&text).unwrap_or_else(|| within_a_word(&text, is_script))));
        // `sh -c`, `bash -lc`, `psql --command`: what follows is a text with words of its own.
        is_script = text.starts_with('-') && (text.ends_with('c') || text.ends_with("-command"));
        before.passes(&text);
    }
    masked
}

/// What stands before a word of a command.
#[derive(Default)]
struct Before {
    after: After,
    /// A program whose short options take a password.
    is_client: bool,
}

/// What the next word is.
#[derive(Clone, Copy, Default)]
enum After {
    #[default]
    Nothing,
    Secret,
    PortOrSecret,
    UserAndSecret,
}

impl Before {
    /// The word as it is shown, if what is before it says that a secret is in it.
    fn shows(&self, text: &str) -> Option<String> {
        if text.starts_with('-') {
            let joined = text.strip_prefix("-p").filter(|value| self.is_client && !value.is_empty());
            return joined.map(|_| format!("-p{MASK}"));
        }
        match self.after {
            After::Secret => Some(MASK.to_owned()),
            // A port of PostgreSQL's tools, a password of others.
            After::PortOrSecret if !text.bytes().all(|byte| byte.is_ascii_digit()) => Some(MASK.to_owned()),
            After::UserAndSecret => text.split_once(':').map(|(user, _)| format!("{user}:{MASK}")),
            _ => None,
        }
    }

    fn passes(&mut self, text: &str) {
        let program = text.rsplit('/').next().unwrap_or_default();
        self.is_client |=
            ["mysql", "mariadb", "sshpass", "redis-cli"].iter().any(|name| program.starts_with(name));
        self.after = match text {
            "-p" | "-P" => After::PortOrSecret,
            "-u" | "--user" | "-U" | "--proxy-user" => After::UserAndSecret,
            "-a" if self.is_client => After::Secret,
            _ if !text.starts_with('-') || text.contains('=') || text.starts_with("--no-") => After::Nothing,
            // It is read elsewhere.
            _ if text.ends_with("-stdin") => After::Nothing,
            _ if is_secret_option(text.trim_end()) => After::Secret,
            _ => After::Nothing,
        };
    }
}

/// Whether an option's value is a secret. A key is, unless it is known to be of another kind; that of a file is hidden with it.
fn is_secret_option(name: &str) -> bool {
    const OTHER_KEYS: [&str; 8] =
        ["primary", "foreign", "public", "unique", "partition", "sort", "cache", "idempotency"];
    let lower = name.to_ascii_lowercase();
    let of_a_key = lower.strip_suffix("key").filter(|_| name.starts_with('-'));
    masking::names_secret(name)
        || of_a_key.is_some_and(|kind| {
            kind.ends_with(['-', '_'])
                && !OTHER_KEYS.iter().any(|other| kind.trim_end_matches(['-', '_']).ends_with(other))
        })
}

/// One word, which may be a script with words and SQL of its own.
fn within_a_word(text: &str, is_script: bool) -> String {
    // A value of one word may hold blanks, whatever it is.
    if !is_script
        && let Some((name, value)) = text.split_once('=')
        && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'))
        && is_secret_option(name)
        && !value.is_empty()
    {
        return format!("{name}={MASK}");
    }
    let masked = masking::text(&piped(text));
    if !masked.contains(char::is_whitespace) {
        return masked;
    }
    // `sh -c "tool --password x"`: the blanks stay as they are.
    let mut before = Before::default();
    let mut out = String::with_capacity(masked.len());
    for piece in masked.split_inclusive(char::is_whitespace) {
        let word = piece.trim_end();
        // `mkdir -p folder` is more likely in a script than a password is.
        let is_folder = matches!(before.after, After::PortOrSecret) && !before.is_client;
        let shown = if word.is_empty() || is_folder { None } else { before.shows(word) };
        out.push_str(shown.as_deref().unwrap_or(word));
        out.push_str(&piece[word.len()..]);
        if !word.is_empty() {
            before.passes(word);
        }
    }
    out
}

/// A shell's text in which what is written into a pipe is masked where the program behind it reads a secret there, as in
/// `echo x | docker login --password-stdin`; what a here-string gives it as well.
fn piped(text: &str) -> String {
    if !reads_secret(text) {
        return text.to_owned();
    }
    let stages = stages(text);
    let is_piped = |number: usize| {
        let rest = &text[stages[number].1..];
        rest.starts_with('|') && !rest.starts_with("||")
    };
    let mut out = text[..stages[0].0].to_owned();
    for (number, &(start, end)) in stages.iter().enumerate() {
        let stage = &text[start..end];
        let later = (number..stages.len() - 1).take_while(|at| is_piped(*at)).map(|at| at + 1);
        let is_secret = later.map(|at| &text[stages[at].0..stages[at].1]).any(reads_secret_itself);
        let written = stage.len() - stage.trim_start().len();
        let program = stage[written..].find(char::is_whitespace).map(|length| written + length);
        match program {
            // What a group of commands wrote.
            _ if is_secret && stage.trim_start().starts_with(['}', ')']) => {
                out = format!("{MASK} {}", stage.trim_start());
            }
            Some(program) if is_secret => out.push_str(&format!("{} {MASK} ", &stage[..program])),
            _ => match stage.find("<<<").filter(|_| reads_secret_itself(stage)) {
                Some(here) => out.push_str(&format!("{}<<< {MASK}", &stage[..here])),
                // A script within a script.
                None => out.push_str(&quoted_scripts(stage)),
            },
        }
        out.push_str(&text[end..stages.get(number + 1).map_or(text.len(), |next| next.0)]);
    }
    out
}

/// Whether a program in the text reads a secret from its standard input.
fn reads_secret(text: &str) -> bool {
    let words =
        text.split(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ';' | '|' | '&' | ')' | '`'));
    let mut words =
        words.map(|word| word.split('=').next().unwrap_or_default()).filter(|word| !word.is_empty());
    words.any(|word| {
        let is_told =
            word.strip_suffix("-stdin").is_some_and(|name| word.starts_with('-') && is_secret_option(name));
        is_told
            || ["chpasswd", "--with-token", "passwd"].contains(&word.rsplit('/').next().unwrap_or_default())
    })
}

/// The same, where it is not in a text within quotes.
fn reads_secret_itself(stage: &str) -> bool {
    let mut quote = None;
    let outside: String = stage
        .chars()
        .map(|c| match quote {
            Some(open) => {
                quote = quote.filter(|_| open != c);
                ' '
            }
            None => {
                quote = ['"', '\''].contains(&c).then_some(c);
                if quote.is_some() { ' ' } else { c }
            }
        })
        .collect();
    reads_secret(&outside)
}

/// The simple commands of a shell's text: where each begins, and where what separates it from the next does.
fn stages(text: &str) -> Vec<(usize, usize)> {
    let (mut stages, mut start, mut quote, mut is_escaped, mut before) = (Vec::new(), 0, None, false, ' ');
    for (at, c) in text.char_indices() {
        match quote {
            _ if is_escaped => is_escaped = false,
            Some('\'') if c != '\'' => {}
            _ if c == '\\' => is_escaped = true,
            Some(open) => quote = Some(open).filter(|_| open != c),
            None if ['"', '\''].contains(&c) => quote = Some(c),
            // `2>&1` ends nothing.
            None if c == '&' && ['<', '>'].contains(&before) => {}
            None if ['|', ';', '&', '\n', '('].contains(&c) => {
                if at > start {
                    stages.push((start, at));
                }
                start = at + 1;
            }
            None => {}
        }
        before = c;
    }
    stages.push((start, text.len()));
    stages
}

/// [`piped`] of each text within quotes.
fn quoted_scripts(stage: &str) -> String {
    let mut out = String::with_capacity(stage.len());
    let mut rest = stage;
    while let Some(open) = rest.find(['"', '\'']) {
        let quote = char::from(rest.as_bytes()[open]);
        let Some(length) = rest[open + 1..].find(quote) else { break };
        out.push_str(&rest[..=open]);
        out.push_str(&piped(&rest[open + 1..open + 1 + length]));
        out.push(quote);
        rest = &rest[open + 2 + length..];
    }
    out + rest
}

/// The beginning of a long SQL text, passwords masked: at most `max` characters of it are looked at.
pub fn sql_beginning(text: &str, max: usize) -> String {
    let end = text.char_indices().nth(max).map_or(text.len(), |(end, _)| end);
    sql(&text[..end])
}

/// SQL with its passwords masked: the literal after PASSWORD, and connection strings within literals, comments and bodies.
pub fn sql(text: &str) -> String {
    // What follows a name in any text comes second: it finds what no lexer does, such as SQL within SQL.
    masking::after_names(&masking::headers(&sql_within(text, DEPTH)))
}

fn sql_within(text: &str, depth: u32) -> String {
    let mut out = String::with_capacity(text.len());
    let mut is_secret = false;
    for token in tokens(text, 0) {
        let token = match token {
            Ok(token) => token,
            // A literal that never ends: all the rest is in it.
            Err(unterminated) => {
                let rest = &text[unterminated.start..];
                out.push_str(&match rest.strip_prefix('$').and_then(|rest| rest.find('$')) {
                    _ if is_secret => quoted(MASK),
                    Some(end) if depth > 0 => {
                        let (tag, inner) = rest.split_at(end + 2);
                        format!("{tag}{}", sql_within(inner, depth - 1))
                    }
                    _ => connection(rest),
                });
                break;
            }
        };
        let piece = token.text(text);
        match token.kind {
            TokenKind::Str | TokenKind::DollarStr if is_secret => out.push_str(&quoted(MASK)),
            TokenKind::Str => out.push_str(&literal(piece)),
            TokenKind::LineComment | TokenKind::BlockComment => out.push_str(&connection(piece)),
            TokenKind::DollarStr => out.push_str(&body(piece, depth)),
            _ => out.push_str(piece),
        }
        let passes_on = [':', '='].iter().any(|&symbol| token.is_symbol(symbol));
        if token.is_significant() && !passes_on {
            let is_name = matches!(token.kind, TokenKind::Word | TokenKind::QuotedIdent);
            is_secret = is_name && masking::names_secret(piece.trim_matches('"'));
        }
    }
    out
}

fn quoted(text: &str) -> String {
    format!("'{text}'")
}

/// A string literal whose value may be a connection string, within which a quote is written twice.
fn literal(piece: &str) -> String {
    let Some(open) = piece.find('\'').filter(|open| piece.len() > open + 1) else { return piece.to_owned() };
    let value = piece[open + 1..piece.len() - 1].replace("''", "'");
    let masked = connection(&value);
    if masked == value {
        return piece.to_owned();
    }
    format!("{}'{}'", &piece[..open], masked.replace('\'', "''"))
}

/// A dollar-quoted string: mostly the body of a function.
fn body(piece: &str, depth: u32) -> String {
    let tag = piece[1..].find('$').map_or(piece.len(), |end| end + 2);
    match piece.get(tag..piece.len().saturating_sub(tag)) {
        Some(inner) if depth > 0 => {
            let inner = connection_if_it_is_one(&sql_within(inner, depth - 1));
            format!("{}{inner}{}", &piece[..tag], &piece[..tag])
        }
        _ => connection(piece),
    }
}

/// `$$host=db password=x$$` is no SQL: nothing in it is a literal.
fn connection_if_it_is_one(text: &str) -> String {
    let is_code = text.contains(';') || text.contains('\n');
    if is_code { text.to_owned() } else { connection(text) }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    #[test]
    fn passwords_in_words_are_masked() {
        for (command, masked) in [
            (
                &["tool", "--password", "s3cret", "-x", "--no-password", "-w"][..],
                &["tool", "--password", "***", "-x", "--no-password", "-w"][..],
            ),
            (
                &["env", "PGPASSWORD=s3cret", "psql", "-p", "5432", "-c", "alter role r password 's3cret'"],
                &["env", "PGPASSWORD=***", "psql", "-p", "5432", "-c", "alter role r password '***'"],
            ),
            (&["mysql", "-p", "s3cret", "-u", "app"], &["mysql", "-p", "***", "-u", "app"]),
            (&["curl", "-u", "app:s3cret", "https://h/"], &["curl", "-u", "app:***", "https://h/"]),
            (&["/usr/bin/mysqldump", "-ps3cret", "app"], &["/usr/bin/mysqldump", "-p***", "app"]),
            (&["redis-cli", "-a", "s3cret", "ping"], &["redis-cli", "-a", "***", "ping"]),
            (&["curl", "--oauth2-bearer", "s3cret"], &["curl", "--oauth2-bearer", "***"]),
            (&["git", "clone", "https://s3cret@h/a.git"], &["git", "clone", "https://***@h/a.git"]),
            (
                &[
                    "sh",
                    "-c",
                    "curl -u app:s3cret https://h/; mkdir -p a/b; sshpass -p s3cret ssh h; mysql -ps3cret",
                ],
                &["sh", "-c", "curl -u app:*** https://h/; mkdir -p a/b; sshpass -p *** ssh h; mysql -p***"],
            ),
            (&["find", ".", "-print"], &["find", ".", "-print"]),
            (
                &[
                    "sh",
                    "-c",
                    "x=1; echo 's3;c|ret' | docker login -u me --password-stdin && echo done | cat",
                ],
                &["sh", "-c", "x=1; echo *** | docker login -u me --password-stdin && echo done | cat"],
            ),
            (
                &["sh", "-c", "bash -c \"printf %s s3cret | vault login --token-stdin\""],
                &["sh", "-c", "bash -c \"printf *** | vault login --token-stdin\""],
            ),
            (
                &["sh", "-c", "{ echo s3cret; } | tr x y | tool --secret-stdin"],
                &["sh", "-c", "*** } | tr *** | tool --secret-stdin"],
            ),
            (
                &["sh", "-c", "(printf s3cret) 2>&1 | tee a 2>&1 | tool --pass-stdin; false || echo no"],
                &["sh", "-c", "(printf *** | tee *** | tool --pass-stdin; false || echo no"],
            ),
            (
                &["sh", "-c", "gh auth login --with-token <<< s3cret; echo app:s3cret|chpasswd"],
                &["sh", "-c", "gh auth login --with-token *** ***; echo *** |chpasswd"],
            ),
            (
                &[
                    "tool",
                    "--key",
                    "s3cret",
                    "--pass",
                    "s3cret",
                    "--secret=s3cret",
                    "--ssh-key=s3cret",
                    "--token",
                    "s3cret",
                ],
                &["tool", "--key", "***", "--pass", "***", "--secret=***", "--ssh-key=***", "--token", "***"],
            ),
            (
                &["tool", "--primary-key", "id", "--monkey", "x"],
                &["tool", "--primary-key", "id", "--monkey", "x"],
            ),
            (
                &["psql", "-c", "alter role r password -- why\n's3cret'"],
                &["psql", "-c", "alter role r password -- why\\n'***'"],
            ),
            (
                &[
                    "sh",
                    "-c",
                    "PGPASSWORD=s3cret psql -c \"alter role r password 's3cret'\" && t --token s3cret x",
                ],
                &["sh", "-c", "PGPASSWORD=*** psql -c \"alter role r password '***'\" && t --token *** x"],
            ),
            (
                &["psql", "-d", "host=db password=s3cret", "-v", "pw=s3cret"],
                &["psql", "-d", "host=db password=***", "-v", "pw=***"],
            ),
            (
                &["psql", "-c", "CREATE USER MAPPING FOR a SERVER s OPTIONS (user 'a', password 's3cret')"],
                &["psql", "-c", "CREATE USER MAPPING FOR a SERVER s OPTIONS (user 'a', password '***')"],
            ),
            (
                &["env", "PGPASSWORD=s3cret with blanks", "tool", "--password=s3cret and more"],
                &["env", "PGPASSWORD=***", "tool", "--password=***"],
            ),
            (
                &["psql", "-v", "db_pw=s3cret", "--set=pw=s3cret"],
                &["psql", "-v", "db_pw=***", "--set=pw=***"],
            ),
            (&["psql", "-c", "select 1", "-f", "a b"], &["psql", "-c", "select 1", "-f", "a b"]),
        ] {
            let command: Vec<OsString> = command.iter().map(OsString::from).collect();
            assert_eq!(words(command.iter().map(OsString::as_os_str)), masked);
        }
    }

    #[test]
    fn passwords_in_sql_are_masked() {
        for (text, masked) in [
            ("ALTER ROLE app PASSWORD 's3cret' LOGIN", "ALTER ROLE app PASSWORD '***' LOGIN"),
            (
                "CREATE ROLE a ENCRYPTED PASSWORD /* x */ E's3\\'cret'",
                "CREATE ROLE a ENCRYPTED PASSWORD /* x */ '***'",
            ),
            (
                "CREATE USER MAPPING FOR a SERVER s OPTIONS (user 'a', \"password\" 's3cret')",
                "CREATE USER MAPPING FOR a SERVER s OPTIONS (user 'a', \"password\" '***')",
            ),
            (
                "CREATE SUBSCRIPTION s CONNECTION 'host=a password=s3cret' PUBLICATION p",
                "CREATE SUBSCRIPTION s CONNECTION 'host=a password=***' PUBLICATION p",
            ),
            ("SELECT dblink('password=''s3 cret'' host=a')", "SELECT dblink('password=*** host=a')"),
            (
                "SELECT dblink_connect('postgresql://a:s3cret@b/c')",
                "SELECT dblink_connect('postgresql://a:***@b/c')",
            ),
            (
                "DO $x$ BEGIN ALTER ROLE a PASSWORD 's3cret'; END $x$",
                "DO $x$ BEGIN ALTER ROLE a PASSWORD '***'; END $x$",
            ),
            ("SELECT dblink($$host=a password=s3cret$$)", "SELECT dblink($$host=a password=***$$)"),
            (
                "UPDATE users SET password = 's3cret', name = 'b'",
                "UPDATE users SET password = '***', name = 'b'",
            ),
            ("SELECT 1 -- postgresql://a:s3cret@b/c", "SELECT 1 -- postgresql://a:***@b/c"),
            ("ALTER ROLE app PASSWORD 's3cr", "ALTER ROLE app PASSWORD '***'"),
            (
                "DO $x$ BEGIN ALTER ROLE a PASSWORD 's3cret'; EN",
                "DO $x$ BEGIN ALTER ROLE a PASSWORD '***'; EN",
            ),
            (
                "COPY t FROM PROGRAM 'curl -H \"Authorization: Bearer s3cret\" https://h'",
                "COPY t FROM PROGRAM 'curl -H \"Authorization: ***\" https://h'",
            ),
            (
                "ALTER SUBSCRIPTION s CONNECTION 'host=a password=''s3 cret'' dbname=b'",
                "ALTER SUBSCRIPTION s CONNECTION 'host=a password=*** dbname=b'",
            ),
            ("CREATE USER a IDENTIFIED BY 's3cret'", "CREATE USER a IDENTIFIED BY '***'"),
            (
                "EXECUTE 'ALTER ROLE a PASSWORD ''s3cret'' LOGIN'",
                "EXECUTE 'ALTER ROLE a PASSWORD ''***'' LOGIN'",
            ),
            (
                "SELECT 'it''s', password FROM t WHERE a = 'b=c'",
                "SELECT 'it''s', password FROM t WHERE a = 'b=c'",
            ),
        ] {
            assert_eq!(sql(text), masked);
        }
    }

    proptest::proptest! {
        #[test]
        fn masking_never_panics(text in "([a-z ='\"$@:/-]|password|://|é){0,60}") {
            let _ = (sql(&text), connection(&text));
        }

        #[test]
        fn the_password_of_a_role_is_never_shown(password in "[a-zA-Z0-9]{8,20}", before in "[ \n]{1,3}", dollar: bool) {
            let literal = if dollar { format!("$q${password}$q$") } else { format!("'{password}'") };
            let text = format!("ALTER ROLE app WITH{before}Password{before}{literal}");
            proptest::prop_assert!(!sql(&text).contains(&password));
        }
    }
}
