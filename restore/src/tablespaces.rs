//! Where relations lie: `--map-tablespace OLD=NEW` and `--no-tablespaces`.
//!
//! pg_restore puts everything into the tablespaces of the snapshot or everything into the default one. For a mapping it is
//! told the second, and what the snapshot recorded is moved: tables while they are empty, indexes and materialized views
//! when they are there.

use std::collections::BTreeMap;

use common::{
    Error, Ident, Result,
    catalog::PlacedRelation,
    ident::{printable, shell_word},
    postgres::Session,
    snapshot::Manifest,
};

use crate::facts::{Choices, TargetFacts};

/// The tablespace of every server.
const DEFAULT: &str = "pg_default";

/// The name that stands for a tablespace of the snapshot on this server.
pub fn mapped<'a>(choices: &'a Choices, tablespace: &'a str) -> &'a str {
    if choices.no_tablespaces {
        return DEFAULT;
    }
    choices.map_tablespaces.iter().find(|(from, _)| from == tablespace).map_or(tablespace, |(_, to)| to)
}

/// Adds a reason for each tablespace that the server has not or the role may not use, with what would lie in it.
pub fn check(manifest: &Manifest, facts: &TargetFacts, choices: &Choices, reasons: &mut Vec<String>) {
    const SHOWN: usize = 5;
    let mut used: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let own = mapped(choices, &manifest.database.tablespace);
    used.entry(own).or_default().push("the database itself".to_owned());
    for relation in &manifest.placed {
        let name = format!("{} {}", relation.kind, relation.name.short());
        used.entry(mapped(choices, &relation.tablespace)).or_default().push(name);
    }
    for (tablespace, objects) in used {
        let more = objects.len().saturating_sub(SHOWN);
        let mut what = objects.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
        if more > 0 {
            what.push_str(&format!(" and {more} more"));
        }
        let name = printable(tablespace);
        if !facts.tablespaces.contains(tablespace) {
            reasons.push(format!(
                "the server has no tablespace \"{name}\" for {what} (--map-tablespace {} puts them elsewhere, \
                 --no-tablespaces puts everything into the default one)",
                shell_word(&format!("{name}=OTHER"))
            ));
        } else if tablespace != DEFAULT && !facts.usable_tablespaces.contains(tablespace) {
            reasons.push(format!(
                "the role may not use the tablespace \"{name}\" for {what} (GRANT CREATE ON TABLESPACE {} TO {})",
                printable(&common::Ident::new(tablespace).to_string()),
                printable(&common::Ident::new(&*facts.role).to_string())
            ));
        }
    }
    for (from, _) in &choices.map_tablespaces {
        let is_used = manifest.database.tablespace == *from
            || manifest.placed.iter().any(|relation| relation.tablespace == *from);
        if !is_used {
            reasons.push(format!(
                "the snapshot uses no tablespace \"{}\" that could be mapped",
                printable(from)
            ));
        }
    }
}

/// What has to be moved after pg_restore has put everything into the default tablespace, under the new names.
pub fn moves(manifest: &Manifest, choices: &Choices) -> Vec<PlacedRelation> {
    if choices.no_tablespaces || choices.map_tablespaces.is_empty() {
        return Vec::new();
    }
    let mut placed = manifest.placed.clone();
    for relation in &mut placed {
        relation.tablespace = mapped(choices, &relation.tablespace).to_owned();
    }
    placed
}

/// Moves what is of a kind that `now` takes. What could not be made is not there to be moved.
pub async fn place(session: &Session, moves: &[PlacedRelation], now: impl Fn(&str) -> bool) -> Result<()> {
    for relation in moves.iter().filter(|relation| now(relation.kind.as_str())) {
        let statement = format!(
            "ALTER {} IF EXISTS {} SET TABLESPACE {}",
            relation.kind.as_str().to_uppercase(),
            relation.name,
            Ident::new(&*relation.tablespace)
        );
        session.batch_execute(&statement).await.map_err(|source| {
            let what = format!("could not put {} into its tablespace", relation.name.short());
            Error::postgres(what, source)
        })?;
    }
    Ok(())
}
