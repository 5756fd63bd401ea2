//! Whether a snapshot can be the undo, and what it would lack.

use chrono::Utc;
use common::{
    Error, ErrorKind, Result,
    format::plural,
    ident::printable,
    postgres::{
        ConnectionSettings, Session, introspect,
        obstacles::{self, Obstacle, Way},
        tools, who_asks,
    },
    repository::proofs::{KnownLoss, KnownProof},
};

use super::{Impossible, SHOWN, fingerprint, rules, trial, workers};
use crate::run::{Context, Proof, loss_limits};

/// How a snapshot would bring the database back.
#[derive(Default)]
pub(super) struct ByFile {
    /// One line: what was done to know it.
    pub(super) how: String,
    /// What would be missing afterwards.
    pub(super) lacks: Vec<String>,
    /// Rows that would be lost.
    pub(super) loses: Vec<KnownLoss>,
    /// What our own checks change before the snapshot is taken: [`Proof::differs`].
    pub(super) moved: Option<String>,
}

impl ByFile {
    pub(super) fn is_whole(&self) -> bool {
        self.lacks.is_empty() && self.moved.is_none()
    }

    /// Lost rows make it no undo, unless all of them are given up by name: then they are what it lacks.
    fn unless_rows_are_lost(mut self, context: &Context) -> std::result::Result<Self, Impossible> {
        let limits = loss_limits(&context.options, &[]);
        let is_kept = |loss: &&KnownLoss| {
            let rows = i64::try_from(loss.rows).unwrap_or(i64::MAX);
            !limits.allows(std::slice::from_ref(&loss.table), rows)
        };
        let kept: Vec<&KnownLoss> = self.loses.iter().filter(is_kept).collect();
        if !kept.is_empty() {
            return Err(Impossible::by_losses(&kept));
        }
        self.lacks.extend(self.loses.drain(..).map(|loss| format!("rows: {}", loss.line)));
        Ok(self)
    }

    pub(super) fn all_lacks(&self) -> Vec<String> {
        self.lacks.iter().chain(&self.moved).cloned().collect()
    }

    /// Everything by name: who relies on this undo has nothing else to go by.
    pub(super) fn tell(self, proof: &mut Proof) {
        let lacks = self.all_lacks();
        let (named, more) = lacks.split_at(lacks.len().min(SHOWN));
        proof.lines.push(self.how);
        proof.lines.extend(named.iter().map(|lack| format!("the undo would lack {lack}")));
        if !more.is_empty() {
            proof.lines.push(format!("the undo would lack {}", first_of(more)));
        }
        proof.differs.extend(self.moved);
    }
}

pub(super) fn first_of(lines: &[String]) -> String {
    match lines {
        [] => String::new(),
        [one] => one.clone(),
        [first, rest @ ..] => {
            format!("{first}, and {} more", plural(rest.len() as u64, "thing", "things"))
        }
    }
}

/// Whether a snapshot can be the undo.
pub(super) async fn by_file(
    context: &Context,
    control: &Session,
) -> Result<std::result::Result<ByFile, Impossible>> {
    if let Err(error) = tools_and_room(context).await {
        return match error.kind() {
            ErrorKind::Refused => Ok(Err(Impossible { is_stored: false, ..Impossible::of(&error) })),
            _ => Err(error),
        };
    }
    let found = obstacles::find(&context.control).await?;
    let in_the_way: Vec<&Obstacle> = found.iter().filter(|one| Way::File.is_stopped_by(one)).collect();
    if !in_the_way.is_empty() {
        return Ok(Err(Impossible::by(&in_the_way)));
    }
    // Beside each other: both read all of the catalog.
    let second = context.connection.connect().await?;
    let (rules, catalog) = tokio::try_join!(rules::read(&context.control), fingerprint::read(&second))?;
    if rules.is_plain {
        second.close().await?;
        let how =
            "the undo is proved by the catalog: this role can make everything again, and no rule of a table \
                   runs code"
                .to_owned();
        let lacks = introspect::certain_differences(&context.control).await?;
        return Ok(Ok(ByFile { how, lacks, ..ByFile::default() }));
    }
    let key = fingerprint::with_rows(&second, &catalog, &rules.rows).await?;
    if let Some(key) = &key
        && let Some(known) = context.repository.recall_proof(key)?
    {
        let proved =
            "the undo is proved: nothing that it depends on has changed since a trial that succeeded";
        second.close().await?;
        let how = format!("{proved}{}", rules.left_out());
        let mut file = ByFile { how, lacks: known.lacks, loses: known.loses, moved: None };
        add_beside_the_trial(&mut file, &rules, &context.control).await?;
        return Ok(file.unless_rows_are_lost(context));
    }
    if let Some(why) = workers::without_answer(control).await? {
        return Ok(Err(Impossible::without_answer(why)));
    }
    let mut tried = trial::by_file(context, control, &rules).await?;
    if let Ok(file) = &mut tried {
        // The trial's rows are these only if they are so before it and after it.
        let now = fingerprint::with_rows(&second, &catalog, &rules.rows).await?;
        if let Some(key) = key.filter(|key| now.as_ref() == Some(key)) {
            let known = KnownProof { at: Utc::now(), lacks: file.lacks.clone(), loses: file.loses.clone() };
            context.repository.remember_proof(&key, &known)?;
        }
        add_beside_the_trial(file, &rules, &context.control).await?;
    }
    second.close().await?;
    Ok(tried.and_then(|file| file.unless_rows_are_lost(context)))
}

/// Adds what no trial tells, and so no known proof remembers.
async fn add_beside_the_trial(file: &mut ByFile, rules: &rules::Rules, session: &Session) -> Result<()> {
    // First: a message names one.
    file.lacks.splice(0..0, rules.uncertain());
    file.moved = moved_by_event_triggers(session).await?;
    Ok(())
}

/// What the checks of a run have changed in a database before its snapshot was taken, as far as its definitions tell.
///
/// # Errors
/// The catalog can't be read.
pub(crate) async fn moved_in(settings: &ConnectionSettings) -> Result<Option<String>> {
    let session = settings.connect().await?;
    let moved = moved_by_event_triggers(&session).await?;
    session.close().await?;
    Ok(moved)
}

/// Before PostgreSQL 17 nothing keeps an event trigger that is ENABLE ALWAYS or ENABLE REPLICA from firing where the checks make the
/// functions that ask as the owners of tables. What it writes there is rolled back; numbers of sequences are not.
async fn moved_by_event_triggers(session: &Session) -> Result<Option<String>> {
    if session.server_major() >= 17 {
        return Ok(None);
    }
    let failed = |source| Error::postgres("could not look for event triggers", source);
    // Only then are functions made, or the keys of an EXCLUDE constraint copied.
    let makes = format!(
        "SELECT EXISTS ({}) OR EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE conexclop IS NOT NULL)",
        who_asks::owners()
    );
    if !session.query_one(&makes, &[]).await.map_err(failed)?.get::<_, bool>(0) {
        return Ok(None);
    }
    let row = session
        .query_one(
            "SELECT pg_catalog.string_agg(pg_catalog.quote_ident(e.evtname), ', ' ORDER BY e.evtname) FROM pg_catalog.pg_event_trigger e
             WHERE e.evtenabled IN ('A', 'R') AND e.evtevent IN ('ddl_command_start', 'ddl_command_end')",
            &[],
        )
        .await
        .map_err(failed)?;
    Ok(row.get::<_, Option<String>>(0).map(|names| {
        printable(&format!(
            "numbers of sequences from which event triggers draw ({names}: ENABLE ALWAYS or REPLICA), which before PostgreSQL 17 fire \
             while the checks ask as the owners of tables"
        ))
    }))
}

/// What needs no look at the database's objects.
async fn tools_and_room(context: &Context) -> Result<()> {
    let major = context.control.server_major();
    let dump = tools::choose("pg_dump", &tools::installed("pg_dump").await, major)?;
    tools::choose("pg_restore", &tools::installed("pg_restore").await, dump.major)?;
    common::files::check_writable(context.repository.root())?;
    if context.options.skip_space_check {
        return Ok(());
    }
    let row = context
        .control
        .query_one(
            "SELECT COALESCE(pg_catalog.sum(GREATEST(c.relpages, 0)), 0)::bigint FROM pg_catalog.pg_class c
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind IN ('r', 't') AND n.nspname NOT IN ('pg_catalog', 'information_schema')",
            &[],
        )
        .await
        .map_err(|source| Error::postgres("could not read the sizes of the tables", source))?;
    let blocks = row.get::<_, i64>(0).unsigned_abs();
    backup::space::check(&context.repository, context.connection.database(), blocks, context.options.codec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_an_undo_would_lack_is_named() {
        let mut proof = Proof::default();
        let lacks = ["a grant".to_owned(), "an owner".to_owned()].to_vec();
        ByFile { how: "proved".to_owned(), lacks, moved: Some("numbers".to_owned()), ..ByFile::default() }
            .tell(&mut proof);
        let lack = |what: &str| format!("the undo would lack {what}");
        assert_eq!(proof.lines, ["proved".to_owned(), lack("a grant"), lack("an owner"), lack("numbers")]);
        assert_eq!(proof.differs, ["numbers"]);
        let lacks: Vec<String> = (0..SHOWN + 3).map(|n| n.to_string()).collect();
        let mut proof = Proof::default();
        ByFile { lacks, ..ByFile::default() }.tell(&mut proof);
        assert_eq!(proof.lines.len(), SHOWN + 2);
        assert_eq!(proof.lines.last(), Some(&lack("10, and 2 things more")));
    }
}
