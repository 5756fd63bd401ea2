//! `backup verify`.

use common::{
    ErrorKind, Result, Verdict,
    cli::{Output, Settings},
    repository::{Repository, StoredSnapshot, verifications::How, verify},
    snapshot::SnapshotId,
};
use serde::Serialize;

use crate::manage;

#[derive(Debug, clap::Args)]
pub(super) struct VerifyArgs {
    /// Ids, unique starts of ids, or latest
    #[arg(required_unless_present = "all", value_name = "SNAPSHOT")]
    pub(super) snapshots: Vec<String>,
    /// Every snapshot of the repository
    #[arg(long, conflicts_with = "snapshots")]
    pub(super) all: bool,
}

pub(super) fn verify_all(args: &VerifyArgs, settings: &Settings, output: &Output) -> Result<u8> {
    #[derive(Serialize)]
    struct Verified {
        id: String,
        verdict: Verdict,
        ok: bool,
        problem: Option<String>,
    }
    let repository = Repository::open(&settings.repo)?;
    // Before the look: what is deleted in between would be taken for damaged.
    let _lock = repository.lock_reading()?;
    let snapshots: Vec<(String, Result<StoredSnapshot>)> = if args.all {
        let listed = repository.list()?;
        listed.into_iter().map(|entry| (entry.id.to_string(), entry.snapshot)).collect()
    } else {
        let mut found = Vec::new();
        for wanted in &args.snapshots {
            let entry = manage::find_entry(settings, wanted)?;
            found.push((entry.id.to_string(), entry.snapshot));
        }
        found
    };
    let progress = output.progress();
    let jobs = crate::default_jobs();
    let seen = verify::Seen::default();
    let mut results = Vec::new();
    for (id, snapshot) in snapshots {
        let started = std::time::Instant::now();
        let result = snapshot.and_then(|snapshot| {
            progress.phase(format!("verifying {id}"), Some(snapshot.manifest.stored_bytes()));
            let done = verify::verify_one_of(snapshot, verify::Depth::Content, jobs, &seen, &|bytes| {
                progress.advance(bytes, 0);
            });
            progress.done();
            done
        });
        common::interrupt::check()?;
        if let Err(error) = &result
            && !output.is_json()
        {
            output.error(error);
        }
        let is_damaged = result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Damaged);
        if let (Ok(id), true) = (SnapshotId::parse(&id), result.is_ok() || is_damaged) {
            let seconds = started.elapsed().as_secs_f64();
            manage::record(&repository, &id, How::Hash, seconds, result.is_ok(), output);
        }
        results.push(Verified {
            id,
            verdict: match &result {
                Ok(_) => Verdict::Ok,
                Err(_) if is_damaged => Verdict::Damaged,
                // A file that may not be read, for example: nothing is known of it.
                Err(_) => Verdict::NotChecked,
            },
            ok: result.is_ok(),
            problem: result.err().map(|error| error.to_string()),
        });
    }
    let damaged = results.iter().filter(|result| !result.ok).count();
    if output.is_json() {
        #[derive(Serialize)]
        struct Document<'a> {
            verified: &'a [Verified],
        }
        output.document(&Document { verified: &results })?;
    } else {
        for result in &results {
            let word = format!("{:<11}", result.verdict.word());
            output.say(&format!("{}  {}", output.paint(result.verdict.tone(), &word), result.id));
        }
    }
    Ok(if damaged == 0 { 0 } else { ErrorKind::Damaged.exit_code() })
}
