//! What a person is told of what was taken over.

use common::{Progress, snapshot::manifest::Reading};

/// Tells what was taken over, and why not. `not_linked` are the reasons why unchanged chunks could not be linked, `too_old`
/// is how many were not.
pub fn tell(reading: &Reading, not_linked: &[String], too_old: u64, progress: &Progress) {
    use common::format::{count, plural};
    let same = |n: u64| match &reading.earlier {
        Some(earlier) if n > 0 => {
            format!("; {} the same as in {earlier}, stored once", plural(n, "is", "are"))
        }
        _ => String::new(),
    };
    let Reading { chunks, chunks_read, chunks_in_part, chunks_shared, .. } = *reading;
    let linked = chunks - chunks_read;
    let in_part = match chunks_in_part {
        0 => String::new(),
        all if all == chunks_read => " (only what had changed in them)".to_owned(),
        some => format!(" (of {} only what had changed)", count(some)),
    };
    match (&reading.why_all, &reading.earlier) {
        (Some(why), _) => {
            progress.note(format!(
                "read all {}: {why}{}",
                plural(chunks, "chunk", "chunks"),
                same(chunks_shared)
            ));
        }
        (None, Some(earlier)) => progress.note(format!(
            "read {} of {} chunks{in_part}, reused {} of {earlier}{}",
            count(chunks_read),
            count(chunks),
            count(linked),
            same(chunks_shared.saturating_sub(linked)),
        )),
        (None, None) => {}
    }
    if too_old > 0 {
        let chunks = plural(too_old, "unchanged chunk was", "unchanged chunks were");
        progress.note(format!("{chunks} stored longer ago than --full-every says, and stored again"));
    }
    if let Some(first) = not_linked.first() {
        let chunks = plural(not_linked.len() as u64, "unchanged chunk was", "unchanged chunks were");
        progress.warn(format!("{chunks} read again: a link to the earlier file can't be made ({first})"));
    }
}
