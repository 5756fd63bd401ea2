//! The warnings of a plan as other programs read them: annotations of GitHub Actions, and SARIF.

use std::collections::BTreeSet;

use serde_json::json;

use super::{PlannedFile, text::warnings_as_text};

/// What stands for a rule where rows are lost.
const LOSS: &str = "unacknowledged-loss";

struct Annotation<'p> {
    file: &'p str,
    line: u32,
    rule: &'p str,
    text: String,
}

fn all(planned: &[PlannedFile]) -> impl Iterator<Item = Annotation<'_>> {
    planned.iter().flat_map(|file| {
        file.statements.iter().flat_map(move |statement| {
            let outlook = &statement.outlook;
            let losses = outlook.losses.iter().map(|_| (statement.line, LOSS));
            let findings = outlook.findings.iter().map(|finding| (finding.line, &*finding.rule));
            let places: Vec<(u32, &str)> = losses.chain(findings).collect();
            places.into_iter().zip(warnings_as_text(outlook)).map(move |((line, rule), text)| Annotation {
                file: &file.path,
                line,
                rule,
                text,
            })
        })
    })
}

/// One line for each warning, as a workflow prints it.
pub(super) fn github(planned: &[PlannedFile]) -> String {
    // As the runner reads them: percent signs and line ends in a value are escaped, in a property also what ends it.
    let value = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let property = |text: &str| value(text).replace(':', "%3A").replace(',', "%2C");
    all(planned)
        .map(|found| {
            format!(
                "::warning file={},line={},title={}::{}\n",
                property(found.file),
                found.line,
                property(found.rule),
                value(&found.text)
            )
        })
        .collect()
}

/// A log of one run, SARIF 2.1.0.
pub(super) fn sarif(planned: &[PlannedFile]) -> String {
    let found: Vec<Annotation<'_>> = all(planned).collect();
    let rules: BTreeSet<&str> = found.iter().map(|found| found.rule).collect();
    let rule = |id: &&str| match *id {
        LOSS => json!({"id": id}),
        _ => json!({"id": id, "helpUri": format!("https://squawkhq.com/docs/{id}")}),
    };
    let result = |found: &Annotation<'_>| {
        json!({
            "ruleId": found.rule,
            "level": "warning",
            "message": {"text": found.text},
            "locations": [{"physicalLocation": {
                "artifactLocation": {"uri": uri(found.file)},
                "region": {"startLine": found.line},
            }}],
        })
    };
    let log = json!({
        "version": "2.1.0",
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "runs": [{
            "tool": {"driver": {
                "name": "safe-run",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules.iter().map(rule).collect::<Vec<_>>(),
            }},
            "results": found.iter().map(result).collect::<Vec<_>>(),
        }],
    });
    format!("{log:#}\n")
}

/// A relative path as a relative reference: what means something in one is escaped (RFC 3986).
fn uri(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/!$&'()*+,;=@".contains(&byte);
    let path = path.strip_prefix("./").unwrap_or(path);
    path.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
