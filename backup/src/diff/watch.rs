//! `--watch`: one comparison after the other, until a signal.
//!
//! While an application writes to both sides, rows differ that were written between the two readings. They are equal in the next round,
//! or differ in another way. A difference with the same content on both sides in two rounds is *settled*: nobody is about to mend it.

use std::time::{Duration, Instant};

use chrono::Utc;
use common::{
    Error, ErrorKind, Result,
    cli::{Output, output::JSON_SCHEMA},
    interrupt,
};

use super::{Question, Remembered, report::Difference, round, side::Named, tell};

/// Between two looks at signals while waiting.
const LOOK: Duration = Duration::from_millis(100);

pub(super) async fn run(
    question: &Question<'_>,
    mut sides: [Named; 2],
    pause: Duration,
    output: &Output,
) -> Result<u8> {
    let mut before: Option<Remembered> = None;
    let (mut number, mut notes) = (0, Vec::new());
    let mut last: Option<u8> = None;
    loop {
        match Box::pin(round(question, &sides, before.as_ref(), output)).await {
            Ok((mut difference, remembered)) => {
                number += 1;
                (difference.round, difference.at) = (Some(number), Some(Utc::now()));
                show(&difference, &mut notes, output)?;
                last = Some(u8::from(!difference.equal));
                before = Some(remembered);
                fix(&mut sides, &difference);
            }
            // The server restarts, somebody holds a lock: the next round may be luckier.
            Err(error)
                if interrupt::received().is_none() && error.kind() == ErrorKind::Busy && last.is_some() =>
            {
                number += 1;
                failed(&error, number, output)?;
                last = Some(error.kind().exit_code());
            }
            Err(error) => return last.filter(|_| interrupt::received().is_some()).ok_or(error),
        }
        let began = Instant::now();
        while began.elapsed() < pause && interrupt::received().is_none() {
            tokio::time::sleep(LOOK.min(pause)).await;
        }
        if interrupt::received().is_some() {
            return last.ok_or_else(|| Error::new(ErrorKind::Interrupted, "interrupted"));
        }
    }
}

/// The line of a round that came to nothing.
fn failed(error: &Error, number: u64, output: &Output) -> Result<()> {
    output.warn(&format!("round {number} failed, and the next one is tried: {error}"));
    if !output.is_json() {
        return Ok(());
    }
    let value = serde_json::json!({
        "schema": JSON_SCHEMA, "round": number, "at": Utc::now(),
        "error": {"message": error.message(), "exit_code": error.kind().exit_code()},
    });
    output.exactly(&format!("{value}\n"))
}

/// `latest` is the snapshot that it was in the first round.
fn fix(sides: &mut [Named; 2], difference: &Difference) {
    for (side, label) in sides.iter_mut().zip([&difference.a, &difference.b]) {
        if let Named::Snapshot(wanted) = side {
            wanted.clone_from(label);
        }
    }
}

fn show(difference: &Difference, notes: &mut Vec<String>, output: &Output) -> Result<()> {
    if output.is_json() {
        let mut value = serde_json::to_value(difference)
            .map_err(|source| Error::failed(format!("could not encode the result: {source}")))?;
        value["schema"] = JSON_SCHEMA.into();
        return output.exactly(&format!("{value}\n"));
    }
    if difference.round == Some(1) || difference.notes != *notes {
        tell(difference, output);
        notes.clone_from(&difference.notes);
    }
    output.data(&format!("{}\n", difference.round_line()))?;
    if difference.equal { Ok(()) } else { output.data(&difference.text(output)) }
}
