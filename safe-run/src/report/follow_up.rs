//! Which commands a person can go on with after a run: to look, to go back, to repeat. Pure; never a secret: a URL comes
//! without its password, which libpq's own places (PGPASSWORD, .pgpass) can give.

use common::ident::shell_word;

use super::{Report, Verdict};

/// One command and what it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowUp {
    /// What it does, as a sentence for a person.
    pub purpose: String,
    /// The command line.
    pub command: String,
}

/// The command line of a run, for repeating it: secrets masked, and the database's URL left to DATABASE_URL where it has one.
pub fn invocation<'a>(words: impl IntoIterator<Item = &'a std::ffi::OsStr>) -> String {
    let words: Vec<&std::ffi::OsStr> = words.into_iter().collect();
    let own = words.iter().position(|word| *word == "--").unwrap_or(words.len());
    let masked = sql::masking::words(words.iter().copied());
    let mut out = vec!["safe-run".to_owned()];
    let mut names_database = false;
    for (index, (word, masked)) in words.iter().zip(&masked).enumerate().skip(1) {
        let is_masked = common::ident::printable(&word.to_string_lossy()) != *masked;
        let url_follows = |prefix: &str| masked.strip_prefix(prefix).map(|_| prefix.to_owned());
        let prefix = if names_database { Some(String::new()) } else { url_follows("--database-url=") };
        names_database = index < own && (masked == "-d" || masked == "--database-url");
        match prefix {
            Some(prefix) if index < own && is_masked => out.push(format!("{prefix}\"$DATABASE_URL\"")),
            _ => out.push(shell_word(masked)),
        }
    }
    out.join(" ")
}

/// The commands that fit the outcome, the most useful one first.
pub fn follow_ups(report: &Report) -> Vec<FollowUp> {
    let mut list = Vec::new();
    let mut add = |purpose: &str, command: String| {
        list.push(FollowUp { purpose: purpose.to_owned(), command });
    };
    let flag = |flag: &str, value: &str| {
        if value.is_empty() { String::new() } else { format!(" {flag} {}", shell_word(value)) }
    };
    let repo = flag("--repo", &report.repository);
    let place = format!("{}{repo}", flag("-d", &report.database_url));
    if report.verdict == Verdict::Unknown {
        add("Find out what became of the run, and finish its undo.", format!("safe-run recover{place}"));
    }
    if let Some(id) = &report.snapshot {
        match report.verdict {
            Verdict::Committed => {
                add(
                    "Look at the state before, in a new database beside the live one.",
                    format!("restore {id}{place}"),
                );
                add(
                    "Undo the run: put the state before in place of the live database, which is kept under another name. \
                     Rows written since the run would be missing.",
                    format!("restore {id} --replace{place}"),
                );
            }
            Verdict::Stopped => {
                add(
                    "Look at the state before, in a new database beside the live one.",
                    format!("restore {id}{place}"),
                );
                add(
                    "Go back to the state before. Rows written since the snapshot would be missing.",
                    format!("restore {id} --replace{place}"),
                );
            }
            _ => {}
        }
    }
    if let Some(kept) = report.undo.as_ref().and_then(|undo| undo.failed_database_kept_as.as_ref()) {
        add(
            "Drop the failed state when nobody needs to look at it any more (in psql).",
            format!("DROP DATABASE {};", common::Ident::new(&**kept)),
        );
    }
    let can_repeat = matches!(
        report.verdict,
        Verdict::RolledBack | Verdict::Restored | Verdict::Failed | Verdict::NotConnected | Verdict::Stopped
    );
    if can_repeat && !report.invocation.is_empty() {
        add("Run it again, once the cause is removed.", report.invocation.clone());
    }
    if !report.run.is_empty() {
        add("Print this report again.", format!("safe-run report {}{repo}", report.run));
    }
    list
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    fn shown(words: &[&str]) -> String {
        invocation(words.iter().map(OsStr::new))
    }

    #[test]
    fn an_invocation_is_repeatable_and_holds_no_secret() {
        for (words, line) in [
            (&["/usr/bin/safe-run", "--dir", "my files"][..], "safe-run --dir 'my files'"),
            (&["safe-run", "-d", "postgresql://a@b/c"], "safe-run -d postgresql://a@b/c"),
            (&["safe-run", "-d", "postgresql://a:pw@b/c"], "safe-run -d \"$DATABASE_URL\""),
            (
                &["safe-run", "--database-url=postgresql://a:pw@b/c"],
                "safe-run --database-url=\"$DATABASE_URL\"",
            ),
            (
                &["safe-run", "--", "x", "-d", "postgresql://a:pw@b/c"],
                "safe-run -- x -d 'postgresql://a:***@b/c'",
            ),
        ] {
            assert_eq!(shown(words), line);
        }
    }
}
