//! Snapshots of a database that a run of `safe-run` has not finished with: never in silence.

use common::{
    Error, Result,
    repository::{Repository, runs::Standing},
};

use crate::CreateOptions;

/// The tag that such a snapshot gets, with the run's id.
pub const TAG: &str = "unfinished-run";

/// Looks whether a run has left half of what it did in `database`. With `despite`, or where people go on working with it, the
/// snapshot shall bear that: as a note, which every restore repeats, and as a tag, which `list` shows.
///
/// # Errors
/// [`common::ErrorKind::Refused`] where a run did not finish, without `despite`.
pub fn mark(
    repository: &Repository,
    database: &str,
    despite: bool,
    options: &mut CreateOptions,
) -> Result<()> {
    let runs = repository.runs_that_changed(database)?;
    options.tell_fence = runs.is_empty();
    for (run, standing) in runs {
        let note = match standing {
            Standing::LeftBehind if !despite => {
                return Err(Error::refused(format!(
                    "run {run} on \"{database}\" did not finish: the database may hold half of what it did"
                ))
                .with_hint(
                    "Run `safe-run recover` first, which finishes the undo, or `safe-run recover --keep`. To take a snapshot of the \
                     database as it is now: --despite-unfinished-run.",
                ));
            }
            Standing::LeftBehind => {
                format!("run {run} had not finished when it was taken: it may hold half of what that run did")
            }
            Standing::AtWork => {
                format!("run {run} was at work when it was taken: it may hold half of what that run did")
            }
            Standing::Undecided => {
                format!("run {run} had failed, and nobody had decided about it: it holds what that run left")
            }
        };
        options.notes.push(note);
        options.tags.insert(TAG.to_owned(), run);
    }
    Ok(())
}
