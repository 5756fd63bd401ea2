//! The undo is proved before anything begins, with everybody still at work: what the catalog tells first, then a trial where
//! no catalog tells. A run whose undo can't be proved is refused, or gets the undo that can.
//!
//! In this order, and nothing is changed by it: the tools and the disk; what this role on this server could not make again
//! ([`common::postgres::obstacles`]); and a restore of all definitions, with the rows of those tables whose own rules run code,
//! into a scratch database ([`trial`]). A trial that succeeded is remembered by a fingerprint of everything that it depends on.

mod by_file;
mod fingerprint;
pub(crate) mod place;
mod rules;
mod trial;
mod workers;

use common::{
    Error, ErrorKind, Result,
    postgres::{
        Session,
        obstacles::{self, Obstacle, Way},
    },
    repository::proofs::KnownLoss,
};

use crate::{
    clone, fence,
    report::{Report, document},
    run::{Context, FenceChoice, OnFailure, Proof, SnapshotChoice},
};

pub(crate) use by_file::moved_in;
use by_file::{ByFile, by_file, first_of};

/// Obstacles that a message names; `backup check` lists them all.
const SHOWN: usize = 10;

/// Why an undo is impossible, with what would help.
struct Impossible {
    reasons: Vec<String>,
    helps: Vec<String>,
    /// A snapshot can be taken all the same.
    is_stored: bool,
}

impl Impossible {
    fn by(obstacles: &[&Obstacle]) -> Self {
        let mut helps: Vec<String> = Vec::new();
        for help in obstacles.iter().take(SHOWN).flat_map(|obstacle| &obstacle.helps) {
            if !helps.contains(help) {
                helps.push(help.clone());
            }
        }
        Self {
            reasons: obstacles::lines(obstacles, SHOWN),
            helps,
            is_stored: !obstacles.iter().any(|obstacle| Way::Backup.is_stopped_by(obstacle)),
        }
    }

    fn of(error: &Error) -> Self {
        let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
        Self { reasons: vec![format!("{}{hint}", error.message())], helps: Vec::new(), is_stored: true }
    }

    /// Rows that no snapshot holds, and that nobody has given up.
    fn by_losses(losses: &[&KnownLoss]) -> Self {
        let lines = losses.iter().take(SHOWN).map(|loss| format!("it would lose rows: {}", loss.line));
        let mut reasons: Vec<String> = lines.collect();
        if losses.len() > SHOWN {
            reasons.push(format!("and {} more", losses.len() - SHOWN));
        }
        let flags: Vec<String> =
            losses.iter().map(|loss| format!("--allow-loss {}", loss.table.short())).collect();
        let help = format!("{} gives them up, should the undo be needed.", flags.join(" "));
        Self { reasons, helps: vec![help], is_stored: true }
    }

    fn without_answer(why: String) -> Self {
        let help = "Update the extension and restart the server.".to_owned();
        Self { reasons: vec![why], helps: vec![help], is_stored: true }
    }

    fn text(&self) -> String {
        self.reasons.join("; ")
    }
}

/// Decides which undo the run has, and refuses one without any.
///
/// # Errors
/// Refused with every reason, and with what would help. The database was not changed, and nobody was disconnected.
pub async fn settle(context: &mut Context) -> Result<()> {
    let control = fence::control(&context.connection).await?;
    trial::sweep(context, &control).await;
    let settled = choose(context, &control).await;
    control.close().await?;
    let state = || format!("The database \"{}\" was not changed.", context.connection.database());
    let (choice, proof) = settled.map_err(|error| match error.database_state() {
        Some(_) => error,
        None => error.with_database_state(state()),
    })?;
    for line in &proof.lines {
        context.progress.note(line.clone());
    }
    context.options.snapshot = choice;
    context.proof = proof;
    Ok(())
}

async fn choose(context: &Context, control: &Session) -> Result<(SnapshotChoice, Proof)> {
    let options = &context.options;
    let wanted = options.snapshot;
    let mut proof = Proof { may_clone: wanted == SnapshotChoice::Auto, ..Proof::default() };
    // Told to stop, nobody relies on the snapshot but a person who looks first; without a fence a person decides too.
    let is_undone = match options.on_failure {
        Some(choice) => choice == OnFailure::Undo,
        None => options.fence != FenceChoice::None,
    };
    let choice = match wanted {
        SnapshotChoice::None => wanted,
        SnapshotChoice::Auto if options.on_failure == Some(OnFailure::Stop) => SnapshotChoice::File,
        SnapshotChoice::File if options.on_failure == Some(OnFailure::Stop) => wanted,
        SnapshotChoice::Clone | SnapshotChoice::Both => {
            if let Some(why) = by_clone(context, control).await? {
                return Err(refused("by a clone", &why)
                    .with_hint(hint(&why.helps, "Change what is named, or use --snapshot file.")));
            }
            if wanted == SnapshotChoice::Both && is_undone {
                match by_file(context, control).await? {
                    Ok(file) => file.tell(&mut proof),
                    Err(why) => {
                        proof.snapshot_is_spare = true;
                        proof.lines.push(format!(
                            "the clone is the only undo; a restore of the snapshot would fail: {}",
                            why.text()
                        ));
                    }
                }
            }
            wanted
        }
        SnapshotChoice::File | SnapshotChoice::Auto => {
            let file = by_file(context, control).await?;
            match file {
                Ok(file) if file.is_whole() || wanted == SnapshotChoice::File => {
                    file.tell(&mut proof);
                    SnapshotChoice::File
                }
                Err(why) if wanted == SnapshotChoice::File && is_undone => {
                    let other = "--snapshot auto takes a clone where that can be the undo, and --on-failure stop \
                                 --snapshot none goes without an undo.";
                    return Err(refused("by a snapshot", &why).with_hint(hint(&why.helps, other)));
                }
                file => instead_of_file(context, control, file, is_undone, &mut proof).await?,
            }
        }
    };
    let ends_workers = choice.has_clone() || options.fence == FenceChoice::Exclusive;
    let workers = workers::connected(control, context.connection.database()).await?;
    if ends_workers {
        workers::refuse(&workers, options.end_workers)?;
    }
    proof.workers = workers;
    Ok((choice, proof))
}

/// `--snapshot auto` where the snapshot can't be all of the undo: the clone, if that can.
async fn instead_of_file(
    context: &Context,
    control: &Session,
    file: std::result::Result<ByFile, Impossible>,
    is_undone: bool,
    proof: &mut Proof,
) -> Result<SnapshotChoice> {
    let clone = if matches!(context.options.fence, FenceChoice::None | FenceChoice::Lock) {
        Some(Impossible {
            reasons: vec!["a clone needs a fence that ends all sessions".to_owned()],
            helps: Vec::new(),
            is_stored: true,
        })
    } else {
        by_clone(context, control).await?
    };
    match (file, clone) {
        (file, None) => {
            let why = match &file {
                Ok(file) => format!("a restore of the snapshot would lack {}", first_of(&file.all_lacks())),
                Err(why) => format!("a restore of the snapshot would fail: {}", why.text()),
            };
            proof.snapshot_is_spare = true;
            proof.lines.push(format!("the undo is a clone, made behind the fence, because {why}"));
            // What this role can't read can't be stored either.
            let is_stored = file.map_or_else(|why| why.is_stored, |_| true);
            Ok(if is_stored { SnapshotChoice::Both } else { SnapshotChoice::Clone })
        }
        (Ok(file), Some(_)) => {
            file.tell(proof);
            Ok(SnapshotChoice::File)
        }
        (Err(file), Some(_)) if !is_undone => {
            proof.lines.push(format!("this role could not restore the snapshot here: {}", file.text()));
            Ok(SnapshotChoice::File)
        }
        (Err(file), Some(clone)) => {
            let mut helps = file.helps.clone();
            helps.extend(clone.helps.iter().filter(|help| !file.helps.contains(help)).cloned());
            let error = Error::refused(format!(
                "an undo would not be possible: by a snapshot: {}; by a clone: {}",
                file.text(),
                clone.text()
            ));
            let other = if trial::is_superuser(control).await? {
                "--on-failure stop --snapshot none goes without an undo."
            } else {
                "A superuser has rights for more, and --on-failure stop --snapshot none goes without an undo."
            };
            Err(error.with_hint(hint(&helps, other)))
        }
    }
}

fn refused(how: &str, why: &Impossible) -> Error {
    Error::refused(format!("an undo {how} would not be possible: {}", why.text()))
}

fn hint(helps: &[String], other: &str) -> String {
    if helps.is_empty() { other.to_owned() } else { format!("What would help: {} {other}", helps.join(" ")) }
}

/// Whether the clone can be the undo after all, now that the fence stands and the snapshot can't: `why`.
///
/// # Errors
/// Refused where it was not asked for, or can't be.
pub(crate) async fn by_clone_instead(context: &Context, control: &Session, why: &str) -> Result<()> {
    let error = Error::refused(format!("an undo by a snapshot would not be possible: {why}"));
    let may_clone = context.proof.may_clone
        && !matches!(context.options.fence, FenceChoice::None | FenceChoice::Lock)
        && (context.proof.workers.is_empty() || context.options.end_workers);
    if !may_clone {
        return Err(error.with_hint(
            "Repair the rows or the rule, or take --snapshot clone, which copies them as they are; --on-failure stop --snapshot none \
             goes without an undo.",
        ));
    }
    let Some(clone) = by_clone(context, control).await? else { return Ok(()) };
    Err(Error::refused(format!("{}; by a clone: {}", error.message(), clone.text())).with_hint(hint(
        &clone.helps,
        "A superuser has rights for more, and --on-failure stop --snapshot none goes without an undo.",
    )))
}

/// After the run: says which workers of extensions it ended for good.
pub(crate) async fn look_for_workers(context: &Context, mut report: Report) -> Result<Report> {
    if context.proof.workers.is_empty() {
        return Ok(report);
    }
    // The run is over, whatever becomes of this.
    let sentence = match fence::control(&context.connection).await {
        Ok(control) => {
            let sentence = workers::gone(&control, &report.database, &context.proof.workers).await;
            let _ = control.close().await;
            sentence
        }
        Err(error) => Some(workers::not_known(&error)),
    };
    if let Some(sentence) = sentence {
        report.notes.push(sentence);
        let dir = context.repository.runs_dir().join(&report.run);
        if let Err(error) = document::store(&report, &dir) {
            report.notes.push(format!("the report could not be written again: {error}"));
        }
    }
    Ok(report)
}

/// Why a clone can't be the undo; `None` if it can.
async fn by_clone(context: &Context, control: &Session) -> Result<Option<Impossible>> {
    let found = obstacles::find(&context.control).await?;
    let in_the_way: Vec<&Obstacle> = found.iter().filter(|one| Way::Clone.is_stopped_by(one)).collect();
    if !in_the_way.is_empty() {
        return Ok(Some(Impossible::by(&in_the_way)));
    }
    if let Some(why) = workers::without_answer(control).await? {
        return Ok(Some(Impossible::without_answer(why)));
    }
    let proved = async {
        clone::refuse_obstacles(context, control).await?;
        trial::of_database_state(context, control).await
    };
    match proved.await {
        Ok(()) => Ok(None),
        Err(error) if error.kind() == ErrorKind::Refused => Ok(Some(Impossible::of(&error))),
        Err(error) => Err(error),
    }
}
