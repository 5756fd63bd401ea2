//! Sequences are not transactional: a ROLLBACK leaves them where the migration put them. A sequence that stands behind
//! where it stood would hand out values again that are taken, so it is put back. One that stands ahead is left alone and
//! said: other sessions may have taken values from it, and gaps do no harm (docs/exactness.md, E12).

use common::{
    Error, Result,
    catalog::Sequence,
    postgres::{Client, introspect},
};

/// The file in the run's folder that holds where the sequences stood.
pub const SEQUENCES_FILE: &str = "sequences.json";

/// What was found after a ROLLBACK.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PutBack {
    /// Sequences that were set to where they stood, as sentences.
    pub restored: Vec<String>,
    /// Sequences that stand ahead of where they stood, as sentences.
    pub ahead: Vec<String>,
}

/// Compares the sequences with `before` and puts back those that moved backwards.
pub async fn put_back(client: &Client, before: &[Sequence]) -> Result<PutBack> {
    let now = introspect::sequences(client).await?;
    let mut result = PutBack::default();
    for old in before {
        let Some(new) = now.iter().find(|new| new.oid == old.oid) else { continue };
        match movement(old, new) {
            Movement::None => {}
            Movement::Ahead => result.ahead.push(format!(
                "sequence {} went from {} to {} and was left there: a gap does no harm",
                old.name.short(),
                old.last_value,
                new.last_value
            )),
            Movement::Back => {
                // In one statement that looks again: another session may have taken values meanwhile, and the name may mean
                // another sequence, which is left alone.
                let oid = new.oid;
                let comparison = if old.increment < 0 { ">" } else { "<" };
                client
                    .batch_execute(&format!(
                        "SELECT pg_catalog.setval({oid}::pg_catalog.oid::pg_catalog.regclass, {old_value}, {called}) FROM {sequence}
                         WHERE tableoid = {oid} AND (last_value {comparison} {old_value} OR (last_value = {old_value} AND NOT is_called))",
                        old_value = old.last_value,
                        called = old.is_called,
                        sequence = new.name,
                    ))
                    .await
                    .map_err(|source| {
                        Error::postgres(format!("could not put the sequence {} back", old.name.short()), source)
                    })?;
                result.restored.push(format!(
                    "sequence {} was put back from {} to {}",
                    old.name.short(),
                    new.last_value,
                    old.last_value
                ));
            }
        }
    }
    Ok(result)
}

#[derive(Debug, PartialEq, Eq)]
enum Movement {
    None,
    Ahead,
    Back,
}

fn movement(old: &Sequence, new: &Sequence) -> Movement {
    let position = |sequence: &Sequence| {
        let value = i128::from(sequence.last_value);
        if sequence.is_called { value * 2 + i128::from(sequence.increment.signum()) } else { value * 2 }
    };
    let (before, after) = (position(old), position(new));
    let (before, after) = if old.increment < 0 { (-before, -after) } else { (before, after) };
    match after.cmp(&before) {
        std::cmp::Ordering::Equal => Movement::None,
        std::cmp::Ordering::Greater => Movement::Ahead,
        std::cmp::Ordering::Less => Movement::Back,
    }
}

#[cfg(test)]
mod tests {
    use common::QualifiedName;

    use super::*;

    fn at(last_value: i64, is_called: bool, increment: i64) -> Sequence {
        Sequence { oid: 1, name: QualifiedName::new("s", "q"), last_value, is_called, increment }
    }

    #[test]
    fn a_sequence_that_would_repeat_a_value_has_moved_back() {
        assert_eq!(movement(&at(5, true, 1), &at(5, false, 1)), Movement::Back);
        assert_eq!(movement(&at(5, true, 1), &at(1, false, 1)), Movement::Back);
        assert_eq!(movement(&at(5, true, 1), &at(5, true, 1)), Movement::None);
        assert_eq!(movement(&at(5, false, 1), &at(5, true, 1)), Movement::Ahead);
        assert_eq!(movement(&at(-5, true, -1), &at(-1, true, -1)), Movement::Back);
        assert_eq!(movement(&at(-5, true, -1), &at(-9, true, -1)), Movement::Ahead);
    }
}
