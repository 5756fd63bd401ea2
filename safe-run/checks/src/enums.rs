//! Enum labels that are gone, or in another order, in comparison with the state before.
//!
//! A label is followed by its oid, so that a renamed one is not gone; in a type that was made again, by its text: there the
//! columns were converted, and no row can have a label that the new type lacks. A type that was dropped is none of this: the
//! server refuses that while a column has it.

use common::{
    error::Result,
    ident::{QualifiedName, printable},
};

use crate::{
    accepted::Accepted,
    catalogue::CheckKind,
    model::{Finding, RuleKey, Severity},
    session::{CheckSession, number, text},
    states::{EnumType, Enums},
};

/// Every label in its order: type (oid, schema, name), label oid, label.
const LABELS: &str = r"
SELECT t.oid, n.nspname, t.typname, e.oid, e.enumlabel
FROM pg_enum e JOIN pg_type t ON t.oid = e.enumtypid JOIN pg_namespace n ON n.oid = t.typnamespace
ORDER BY t.oid, e.enumsortorder";

/// Reads them; `None` if the server refuses.
pub(super) async fn read(session: &CheckSession<'_>) -> Result<Option<Enums>> {
    let Some(rows) = session.state(CheckKind::Enums, LABELS).await? else { return Ok(None) };
    let mut enums = Enums::new();
    for row in &rows {
        enums
            .entry(number(row, 0))
            .or_insert_with(|| EnumType {
                name: QualifiedName::new(text(row, 1), text(row, 2)),
                labels: Vec::new(),
            })
            .labels
            .push((number(row, 3), text(row, 4)));
    }
    Ok(Some(enums))
}

/// What changed for the worse.
pub(super) fn compare(before: &Enums, after: &Enums, accepted: &Accepted) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (oid, then) in before {
        let same = after.get(oid);
        let remade = || after.iter().find(|(_, now)| now.name == then.name);
        let (now_oid, now, by_oid) = match (same, remade()) {
            (Some(now), _) => (*oid, now, true),
            (None, Some((now_oid, now))) => (*now_oid, now, false),
            (None, None) => continue,
        };
        let place_of = |label: &(u32, String)| {
            now.labels.iter().position(|known| if by_oid { known.0 == label.0 } else { known.1 == label.1 })
        };
        let key = |rule: &str| RuleKey {
            check: CheckKind::Enums,
            object_oid: now_oid,
            rule_oid: now_oid,
            rule: rule.to_owned(),
        };
        let name = now.name.short();
        let (mut gone, mut places) = (Vec::new(), Vec::new());
        for label in &then.labels {
            match place_of(label) {
                None => gone.push(label.1.clone()),
                Some(place) => {
                    places.push(place);
                    let called = &now.labels[place].1;
                    if *called != label.1 {
                        let detail = format!(
                            "label '{}' of enum {name} is called '{}' now",
                            printable(&label.1),
                            printable(called)
                        );
                        let mut note = Finding::state(key(&label.1), name.clone(), "renamed", detail);
                        note.severity = Severity::Note;
                        findings.push(note);
                    }
                }
            }
        }
        if !gone.is_empty() {
            let noun = if gone.len() == 1 { "label" } else { "labels" };
            let labels: Vec<String> = gone.iter().map(|label| format!("'{}'", printable(label))).collect();
            let left = if by_oid { "" } else { "; it was made again, and no row can have it any more" };
            let detail = format!("enum {name} lost {noun} {}{left}", labels.join(", "));
            let mut finding = Finding::state(key("labels"), name.clone(), "lost", detail);
            if !by_oid || accepted.labels(&then.name, &gone) {
                finding.severity = Severity::Note;
            }
            findings.push(finding);
        }
        if !places.is_sorted() {
            let order: Vec<String> =
                now.labels.iter().map(|(_, label)| format!("'{}'", printable(label))).collect();
            let detail = format!(
                "enum {name} sorts differently: its labels are {} now, so comparisons and ORDER BY change",
                order.join(", ")
            );
            findings.push(Finding::state(key("order"), name, "order", detail));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mood(oid: u32, labels: &[(u32, &str)]) -> Enums {
        let labels = labels.iter().map(|(oid, label)| (*oid, (*label).to_owned())).collect();
        [(oid, EnumType { name: QualifiedName::new("public", "mood"), labels })].into()
    }

    fn told(before: &Enums, after: &Enums) -> Vec<String> {
        compare(before, after, &Accepted::default()).into_iter().map(|finding| finding.detail).collect()
    }

    #[test]
    fn lost_and_reordered_labels_are_found_and_new_ones_are_fine() {
        let before = mood(1, &[(11, "sad"), (12, "ok"), (13, "glad")]);
        let grown = mood(1, &[(14, "low"), (11, "sad"), (12, "ok"), (15, "well"), (13, "glad")]);
        assert!(told(&before, &grown).is_empty());
        assert!(told(&before, &Enums::new()).is_empty());
        let renamed = mood(1, &[(11, "sad"), (12, "fine"), (13, "glad")]);
        assert_eq!(told(&before, &renamed), ["label 'ok' of enum mood is called 'fine' now"]);
        assert_eq!(compare(&before, &renamed, &Accepted::default())[0].severity, Severity::Note);
        let remade = mood(2, &[(23, "glad"), (21, "sad")]);
        assert_eq!(compare(&before, &remade, &Accepted::default())[0].severity, Severity::Note);
        // Taken out of the catalog: rows may have it still.
        let torn = mood(1, &[(11, "sad"), (13, "glad")]);
        assert_ne!(compare(&before, &torn, &Accepted::default())[0].severity, Severity::Note);
        assert_eq!(
            told(&before, &remade),
            [
                "enum mood lost label 'ok'; it was made again, and no row can have it any more",
                "enum mood sorts differently: its labels are 'glad', 'sad' now, so comparisons and ORDER BY change"
            ]
        );
    }
}
