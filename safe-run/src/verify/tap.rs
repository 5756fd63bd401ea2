//! Reads TAP (the Test Anything Protocol) as pgTAP writes it. Pure.

/// Something that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// The test's number; `None`: the plan itself.
    pub test: Option<u64>,
    what: String,
    /// The lines after it that begin with `#`.
    diagnostics: Vec<String>,
}

impl Failure {
    /// `test 3 failed: every order has items (have: 2, want: 0)`.
    pub fn told(&self) -> String {
        /// Diagnostics may hold whole result sets.
        const SHOWN: usize = 4;
        let mut told = match self.test {
            Some(number) if self.what.is_empty() => format!("test {number} failed"),
            Some(number) => format!("test {number} failed: {}", self.what),
            None => self.what.clone(),
        };
        if !self.diagnostics.is_empty() {
            told.push_str(&format!(
                " ({})",
                self.diagnostics[..self.diagnostics.len().min(SHOWN)].join("; ")
            ));
        }
        common::ident::printable(&told)
    }
}

/// Whether this looks like a line of TAP.
pub(super) fn is_tap(line: &str) -> bool {
    let line = line.trim_end();
    plan(line).is_some() || result(line).is_some()
}

/// What failed. `values` are what the queries returned, each with one line or more.
pub(super) fn failures(values: &[String]) -> Vec<Failure> {
    let mut failures: Vec<Failure> = Vec::new();
    let (mut planned, mut ran) = (None, 0_u64);
    // Whether the comments that follow belong to the last failure.
    let mut failing = false;
    for line in values.iter().flat_map(|value| value.lines()) {
        if let Some(tests) = plan(line) {
            planned = Some(tests);
        } else if let Some((ok, number, what)) = result(line) {
            ran += 1;
            let excused = directive(what, "TODO") || directive(what, "SKIP");
            failing = !ok && !excused;
            if failing {
                let what = what.trim_start_matches('-').trim().to_owned();
                failures.push(Failure { test: Some(number.unwrap_or(ran)), what, diagnostics: Vec::new() });
            }
        } else if let Some(why) = line.strip_prefix("Bail out!") {
            failures.push(Failure {
                test: None,
                what: format!("bailed out: {}", why.trim()),
                diagnostics: Vec::new(),
            });
            failing = false;
        } else if let (true, Some(text), Some(last)) = (failing, line.strip_prefix('#'), failures.last_mut())
        {
            let text = text.trim();
            // "Failed test 3: …" repeats what is known.
            if !text.is_empty() && !text.starts_with("Failed test") && !text.starts_with("Looks like") {
                last.diagnostics.push(text.to_owned());
            }
        }
    }
    let unkept = match planned {
        None => Some(
            "there is no plan in what it returned: SELECT * FROM finish() is missing, or no test ran"
                .to_owned(),
        ),
        Some(planned) if planned != ran => Some(format!("{planned} tests were planned, and {ran} ran")),
        Some(_) => None,
    };
    failures.extend(unkept.map(|what| Failure { test: None, what, diagnostics: Vec::new() }));
    failures
}

/// `1..3`.
fn plan(line: &str) -> Option<u64> {
    line.strip_prefix("1..")?.split_whitespace().next()?.parse().ok()
}

/// `ok 1 - what` and `not ok 2`: whether it is ok, its number, and what follows.
fn result(line: &str) -> Option<(bool, Option<u64>, &str)> {
    let (ok, rest) = match line.strip_prefix("not ok") {
        Some(rest) => (false, rest),
        None => (true, line.strip_prefix("ok")?),
    };
    if !rest.is_empty() && !rest.starts_with(' ') {
        return None;
    }
    let rest = rest.trim_start();
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let number = rest[..digits].parse().ok();
    Some((ok, number, rest[digits..].trim()))
}

fn directive(what: &str, word: &str) -> bool {
    what.rsplit_once('#').is_some_and(|(_, directive)| {
        directive.trim().get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Vec<String> {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        failures(&lines).iter().map(Failure::told).collect()
    }

    #[test]
    fn failures_are_found_with_their_reasons() {
        assert!(told("1..2\nok 1 - a\nok 2 - b").is_empty());
        assert!(told("ok 1\nok 2 - later plan\n1..2").is_empty());
        assert!(told("1..2\nnot ok 1 - x # TODO some day\nok 2 # SKIP no").is_empty());
        assert_eq!(
            told(
                "1..2\nok 1 - a\nnot ok 2 - b\n# Failed test 2: \"b\"\n#         have: 2\n#         want: 0\n# Looks like you failed 1 test of 2"
            ),
            ["test 2 failed: b (have: 2; want: 0)"]
        );
        assert_eq!(told("1..3\nok 1"), ["3 tests were planned, and 1 ran"]);
        assert!(told("ok 1")[0].starts_with("there is no plan"));
        assert_eq!(told("1..1\n    not ok 1 - inner\nok 1 - outer").len(), 0);
        assert_eq!(told("1..1\nok 1\nBail out! no extension"), ["bailed out: no extension"]);
    }

    #[test]
    fn ordinary_rows_are_not_taken_for_tap() {
        for row in ["okay", "1.5", "1..x", "nothing", "17", "ok-ish"] {
            assert!(!is_tap(row), "{row}");
        }
        for row in ["ok 1", "not ok 3 - x", "1..4"] {
            assert!(is_tap(row), "{row}");
        }
    }
}
