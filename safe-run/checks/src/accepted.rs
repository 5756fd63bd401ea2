//! What the author of a migration says about owners, grants and enum labels: changes that are then shown and do not fail.
//! Pure. Whatever fits no object accepts nothing.

use common::ident::QualifiedName;

use super::catalogue::CheckKind;
use super::model::Finding;
use sql::statement::TableName;

/// Changes that are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Owners and grants of objects that stay: the SQL has a GRANT, REVOKE or OWNER, or cannot be seen.
    pub privileges: bool,
    /// Enum types that may lose these labels; any of them if none is listed.
    pub lost_labels: Vec<(TableName, Vec<String>)>,
    /// Objects that may lose grants, also when they are made again.
    pub lost_grants: Vec<TableName>,
}

impl Accepted {
    /// Whether the type may lose all of these labels.
    pub(super) fn labels(&self, name: &QualifiedName, gone: &[String]) -> bool {
        let mut listed = self.lost_labels.iter().filter(|(written, _)| means(written, name)).peekable();
        if listed.peek().is_none() {
            return false;
        }
        let labels: Vec<&Vec<String>> = listed.map(|(_, labels)| labels).collect();
        gone.iter().all(|label| labels.iter().any(|list| list.is_empty() || list.contains(label)))
    }

    /// Whether the object may lose grants.
    pub(super) fn grants(&self, name: &QualifiedName) -> bool {
        self.lost_grants.iter().any(|written| means(written, name))
    }
}

/// Whether a written name means the object: without a schema it means any of that name.
fn means(written: &TableName, name: &QualifiedName) -> bool {
    written.name == name.name.as_str()
        && written.schema.as_ref().is_none_or(|schema| *schema == name.schema.as_str())
}

/// How a failing finding is accepted, where the migration can say so.
pub fn how_to_accept(finding: &Finding) -> Option<String> {
    let directive = match finding.key.check {
        CheckKind::Enums if finding.key.rule == "labels" => "allow-lost-labels",
        CheckKind::Privileges if finding.key.rule.starts_with("grants of ") => "allow-lost-grants",
        CheckKind::Triggers => {
            return Some("If that is meant, run it with `--skip triggers`: what is switched off is then not looked at.".to_owned());
        }
        _ => return None,
    };
    Some(format!(
        "If that is meant, say so with `--{directive} NAME`, or with `-- safe-run: {directive} NAME` in the migration."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sql::statement::names;

    #[test]
    fn only_what_is_named_is_accepted() {
        let accepted = Accepted {
            privileges: false,
            lost_labels: vec![
                (names::parse("mood"), vec!["ok".into()]),
                (names::parse("app.\"Size\""), Vec::new()),
            ],
            lost_grants: vec![names::parse("app.totals")],
        };
        let gone = |list: &[&str]| list.iter().map(|label| (*label).to_owned()).collect::<Vec<_>>();
        let mood = QualifiedName::new("public", "mood");
        assert!(accepted.labels(&mood, &gone(&["ok"])));
        assert!(!accepted.labels(&mood, &gone(&["ok", "sad"])));
        assert!(accepted.labels(&QualifiedName::new("app", "Size"), &gone(&["S", "M"])));
        assert!(!accepted.labels(&QualifiedName::new("app", "size"), &gone(&["S"])));
        assert!(accepted.grants(&QualifiedName::new("app", "totals")));
        assert!(!accepted.grants(&QualifiedName::new("public", "totals")));
        assert!(!Accepted::default().labels(&mood, &[]));
    }
}
