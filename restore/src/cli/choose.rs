//! Which snapshot is meant: the one that is named, or one from a list.

use chrono::Utc;
use common::{
    Error, ErrorKind, Result, Verdict,
    cli::{Output, facts::Facts},
    format,
    repository::{Listed, Repository},
};

use super::Cli;

/// The snapshot from the command line, or from a list on a terminal; without a terminal the list is all there is.
pub(super) fn choose(cli: &Cli, repository: &Repository, output: &Output) -> Result<Option<String>> {
    if let Some(wanted) = &cli.snapshot {
        return Ok(Some(wanted.clone()));
    }
    let listed = repository.list()?;
    if listed.is_empty() {
        return Err(Error::new(
            ErrorKind::NoSuchSnapshot,
            format!("the repository {} holds no snapshots", repository.root().display()),
        )
        .with_hint("Take one with `backup create`."));
    }
    if output.is_json() {
        return Err(Error::usage("no snapshot was named; `backup list --json` has their ids"));
    }
    output.data(&numbered_table(&listed, &Facts::read(repository)?))?;
    let Some(answer) = output.ask("Restore which snapshot? (number, id, or nothing to stop)")? else {
        output.say("Name one of these snapshots: restore SNAPSHOT");
        return Ok(None);
    };
    if answer.is_empty() {
        return Ok(None);
    }
    let by_number = answer.parse::<usize>().ok().and_then(|number| listed.get(number.wrapping_sub(1)));
    Ok(Some(by_number.map_or(answer, |entry| entry.id.to_string())))
}

fn numbered_table(listed: &[Listed], facts: &Facts) -> String {
    let now = Utc::now();
    let rows: Vec<Vec<String>> = listed
        .iter()
        .enumerate()
        .map(|(index, entry)| {
            let number = (index + 1).to_string();
            match &entry.snapshot {
                Ok(snapshot) => {
                    let manifest = &snapshot.manifest;
                    let age = (now - manifest.taken_at).to_std().unwrap_or_default();
                    vec![
                        number,
                        manifest.id.to_string(),
                        format::age(age),
                        common::ident::printable(&manifest.database.name),
                        manifest.kind_cell(),
                        format::count(manifest.rows()),
                        format::bytes(manifest.stored_bytes()),
                        facts.verified_cell(&manifest.id, now),
                        facts.pin_cell(&manifest.id).to_owned(),
                    ]
                }
                Err(_) => vec![number, entry.id.to_string(), Verdict::Damaged.word().to_owned()],
            }
        })
        .collect();
    format::table(
        &["#", "ID", "AGE", "DATABASE", "KIND", "ROWS", "STORED", "VERIFIED", "PIN"],
        &[true, false, true, false, false, true, true, false, false],
        &rows,
    )
}
