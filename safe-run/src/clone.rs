//! A copy of the database on its own server, made behind the fence: with it an undo is a swap of names, at any size.
//!
//! The copy is made by files, while nobody can be connected to the database, and accepts no connection from its first
//! moment on. So it is the state behind the fence, and nobody can have changed it; that, and what belongs to the database
//! itself (owner, grants, settings, labels), is looked at before it is used. Rows are not read again. A database is never
//! taken for a clone, and never dropped, for its name alone: it has to bear the run's mark.

use chrono::Utc;
use common::{
    Error, ErrorKind, Ident, Result,
    catalog::{DatabaseState, Grant},
    fault,
    ident::{literal, with_suffix},
    interrupt,
    postgres::{
        ConnectionSettings, Session,
        database::{self, SwapNames},
        database_copy::{self, CopyOrder},
        introspect,
    },
    random,
    repository::write_private_file,
    snapshot::readme::database_statements,
};
use restore::space;
use serde::{Deserialize, Serialize};
use std::{path::Path, time::Instant};

use crate::{
    fence::Fence,
    guarded::{Stage, settle_fence},
    journal::{Journal, PastRun, Step},
    report::{Report, UndoReport, Verdict},
    run::{Context, FenceChoice, RunLog, SnapshotChoice},
};

/// The file in the run's folder that holds what the clone is known by, and what it lacks.
const CLONE_FILE: &str = "clone.json";

/// A clone as it was ordered. Whether it is there is the server's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseClone {
    /// Its name.
    pub name: String,
    /// The name under which the failed database is kept when the clone takes its place.
    pub kept_as: String,
    /// Its connection limit until then: a random number, which can be set with its making.
    token: i32,
    /// The run.
    run: String,
    /// It stays after a success.
    keep: bool,
    /// What belongs to the database itself, as it was before the fence.
    state: DatabaseState,
}

impl DatabaseClone {
    /// Its comment while it is a clone.
    fn marker(&self) -> String {
        format!(
            "safe-run/{}: a clone of \"{}\" as it was before that run; `safe-run recover` uses or drops it",
            self.run, self.state.name
        )
    }

    fn order<'a>(&'a self, source: &'a str) -> CopyOrder<'a> {
        CopyOrder {
            source,
            copy: &self.name,
            token: self.token,
            collation_version: self.state.collation_version.as_deref(),
        }
    }

    /// How a person opens it, and gets rid of it.
    fn by_hand(&self) -> [String; 2] {
        let name = Ident::new(&*self.name);
        [
            format!("look into it: ALTER DATABASE {name} ALLOW_CONNECTIONS true CONNECTION LIMIT -1"),
            format!("when it is no longer needed: DROP DATABASE {name}"),
        ]
    }
}

/// What stands under a clone's name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    Nothing,
    /// The clone, complete and closed since it was made.
    Closed(u32),
    /// The clone, and nobody had finished making it.
    HalfMade,
    /// Something that is not, or no longer, what the run made. The phrase says why.
    Foreign(String),
}

/// What the undo is, for a plan.
pub fn undo_phrase(choice: SnapshotChoice) -> &'static str {
    match choice {
        SnapshotChoice::Clone => "a swap with the database's clone",
        SnapshotChoice::Both => "a swap with the database's clone, or else a restore of the snapshot",
        SnapshotChoice::File => "a restore of the snapshot",
        SnapshotChoice::None => "left to a person: there is no snapshot",
    }
}

/// Refuses flags that contradict each other.
pub fn refuse_usage(choice: SnapshotChoice, fence: FenceChoice, keep: bool) -> Result<()> {
    if keep && !choice.has_clone() {
        return Err(Error::usage("--keep-clone needs a clone").with_hint("Add --snapshot clone or both."));
    }
    if choice.has_clone() && matches!(fence, FenceChoice::None | FenceChoice::Lock) {
        return Err(Error::usage("a clone needs a fence that ends all sessions")
            .with_hint("Use --fence read-only or --fence exclusive with it, or leave --fence away."));
    }
    Ok(())
}

/// Refuses, before anybody's session is ended, what can't be copied or would be left behind by the swap.
pub async fn refuse_obstacles(context: &Context, control: &Session) -> Result<()> {
    if !context.options.snapshot.has_clone() {
        return Ok(());
    }
    let database = context.connection.database();
    let mut reasons = database::swap_obstacles(control, database).await?;
    let prepared = database::prepared_transactions(control, database).await?;
    reasons.extend(prepared.iter().map(|gid| format!("prepared transaction {gid}")));
    let row = control
        .query_one(
            "SELECT d.datistemplate, r.rolsuper OR r.rolcreatedb,
                    r.rolsuper OR pg_catalog.pg_has_role(d.datdba, 'USAGE')
             FROM pg_catalog.pg_database d, pg_catalog.pg_roles r
             WHERE d.datname = $1 AND r.rolname = current_user",
            &[&database],
        )
        .await
        .map_err(|source| Error::postgres("could not look up the database", source))?;
    if row.get(0) {
        reasons.push("it is a template database".to_owned());
    }
    if !row.get::<_, bool>(1) {
        reasons.push("the role lacks CREATEDB".to_owned());
    }
    if !row.get::<_, bool>(2) {
        reasons.push("the role is not the database's owner".to_owned());
    }
    let unchanged = || format!("The database \"{database}\" was not changed.");
    if !reasons.is_empty() {
        return Err(Error::refused(format!(
            "the database \"{database}\" can't be undone by a clone: {}",
            reasons.join("; ")
        ))
        .with_hint("Change what is named, or use --snapshot file.")
        .with_database_state(unchanged()));
    }
    let (text, is_too_little) = room(context, control).await?;
    if is_too_little && !context.options.skip_space_check {
        return Err(Error::refused(format!("the clone {text}"))
            .with_hint("Make room, use --snapshot file, or try all the same with --skip-space-check.")
            .with_database_state(unchanged()));
    }
    context.progress.note(format!("the clone {text}; the server makes two checkpoints for it"));
    Ok(())
}

/// What the clone needs on the disk of each tablespace, and whether that is clearly more than there is.
async fn room(context: &Context, control: &Session) -> Result<(String, bool)> {
    let failed = |source| Error::postgres("could not read the size of the database", source);
    let row = context
        .control
        .query_one(
            "SELECT pg_catalog.pg_database_size(d.oid), t.spcname::text FROM pg_catalog.pg_database d
             JOIN pg_catalog.pg_tablespace t ON t.oid = d.dattablespace WHERE d.datname = pg_catalog.current_database()",
            &[],
        )
        .await
        .map_err(failed)?;
    let (total, default): (i64, String) = (row.get(0), row.get(1));
    // From the planner's numbers, which need no lock: nobody may be kept waiting for an estimate.
    let rows = context
        .control
        .query(
            "SELECT t.spcname::text, pg_catalog.sum(GREATEST(c.relpages, 0)::bigint
                    * pg_catalog.current_setting('block_size')::bigint)::bigint
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_tablespace t ON t.oid = c.reltablespace
             WHERE t.spcname <> 'pg_global' GROUP BY 1",
            &[],
        )
        .await
        .map_err(failed)?;
    let mut parts: Vec<(String, u64)> =
        rows.iter().map(|row| (row.get(0), row.get::<_, i64>(1).unsigned_abs())).collect();
    let elsewhere: u64 = parts.iter().map(|(_, bytes)| bytes).sum();
    parts.insert(0, (default, total.unsigned_abs().saturating_sub(elsewhere)));
    let mut texts = Vec::new();
    let mut is_too_little = false;
    for (tablespace, bytes) in parts {
        let (text, too_little) = space::compare(bytes, &space::look(control, &tablespace).await);
        texts.push(text);
        is_too_little |= too_little;
    }
    Ok((texts.join("; "), is_too_little))
}

/// The clone's name, and that of the database which an undo replaces.
fn names(live: &str, stamp: &str) -> [String; 2] {
    ["clone", "replaced"].map(|kind| with_suffix(live, &format!("_{kind}_{stamp}")))
}

/// The time, and a number where an earlier run of the same second has taken the names.
async fn free_stamp(control: &Session, live: &str) -> Result<String> {
    let time = Utc::now().format("%Y%m%d_%H%M%S").to_string();
    let mut stamp = time.clone();
    let mut number = 1;
    loop {
        let [clone, kept_as] = names(live, &stamp);
        if !database::exists(control, &clone).await? && !database::exists(control, &kept_as).await? {
            return Ok(stamp);
        }
        number += 1;
        stamp = format!("{time}_{number}");
    }
}

/// Makes the clone if one is wanted, and gives the context with which to go on: every session of the database has ended.
///
/// # Errors
/// There is no clone then.
pub async fn make(
    context: &Context,
    control: &Session,
    log: &mut RunLog,
    state: &DatabaseState,
) -> Result<Option<Context>> {
    if !context.options.snapshot.has_clone() {
        return Ok(None);
    }
    interrupt::check()?;
    let live = log.report.database.clone();
    let stamp = free_stamp(control, &live).await?;
    let [name, kept_as] = names(&live, &stamp);
    let clone = DatabaseClone {
        name,
        kept_as,
        token: i32::try_from(random::bits()? % 0x7fff_0000).unwrap_or_default() + 0xffff,
        run: log.report.run.clone(),
        keep: context.options.keep_clone,
        state: state.clone(),
    };
    clone.write(log.journal.dir())?;
    log.journal.write(Step::Cloning { clone: clone.name.clone() })?;
    fault::point("safe-run.cloning");
    let began = Instant::now();
    context.progress.phase(format!("cloning the database to \"{}\"", clone.name), None);
    let made = fill(context, control, &clone).await;
    context.progress.done();
    let connection = context.connection.clone();
    let made = match made {
        // Our session has ended with all others.
        Ok(()) => crate::take_control(&connection).await,
        Err(error) => Err(error),
    };
    let control_session = match made {
        Ok(session) => session,
        Err(error) => {
            let _guard = interrupt::begin_undo();
            let error = match drop_clone(control, &clone).await {
                Ok(None) => error,
                Ok(Some(why)) => error.context(format!("\"{}\" was left: {why}", clone.name)),
                Err(second) => error.context(format!("the clone \"{}\" is left ({second})", clone.name)),
            };
            return Err(error.with_database_state(format!("The database \"{live}\" was not changed.")));
        }
    };
    log.timed("clone of the database", began);
    log.report.protection.push(format!(
        "clone \"{}\": a copy by files, made while nobody was connected; it accepts no connection",
        clone.name
    ));
    log.clone = Some(clone);
    fault::point("safe-run.cloned");
    Ok(Some(Context {
        connection,
        control: control_session,
        repository: context.repository.clone(),
        options: context.options.clone(),
        progress: context.progress.clone(),
        run: context.run.clone(),
        history: context.history.clone(),
        invocation: context.invocation.clone(),
    }))
}

/// Copies, and gives the copy what a copy does not carry, so that what can't be given is found out now.
async fn fill(context: &Context, control: &Session, clone: &DatabaseClone) -> Result<()> {
    database_copy::copy(&context.connection, &clone.order(context.connection.database())).await.map_err(
        |error| match error.sqlstate() {
            Some("42501") => error.with_kind(ErrorKind::Refused).with_hint(
                "A clone needs the database's owner, with CREATEDB; --snapshot file goes without it.",
            ),
            _ => error,
        },
    )?;
    fault::point("safe-run.clone-made");
    let marked =
        DatabaseState { comment: Some(clone.marker()), connection_limit: clone.token, ..clone.state.clone() };
    // One transaction: a clone with its marker is complete.
    let statements = database_statements(&marked, &clone.name).join("; ");
    let hint = "Use --snapshot file, or run it as a superuser.";
    control.batch_execute(&statements).await.map_err(|source| {
        Error::postgres(
            format!("could not give the clone \"{}\" the database's settings", clone.name),
            source,
        )
        .with_kind(ErrorKind::Refused)
        .with_hint(hint)
    })?;
    let differences = clone.differences(control, &clone.name).await?;
    if !differences.is_empty() {
        return Err(Error::refused(format!(
            "the clone \"{}\" is not like the database: {}",
            clone.name,
            differences.join("; ")
        ))
        .with_hint(hint));
    }
    match look(control, clone).await? {
        Found::Closed(_) => Ok(()),
        other => Err(Error::failed(format!("the clone \"{}\" is not as it was made: {other:?}", clone.name))),
    }
}

impl DatabaseClone {
    /// What belongs to the database `name` itself and differs from the database that was cloned, as phrases. Comment and
    /// connection limit are the clone's own.
    async fn differences(&self, control: &Session, name: &str) -> Result<Vec<String>> {
        let found = introspect::database_state_of(control, name).await?;
        let wanted = &self.state;
        let sorted = |state: &DatabaseState| {
            state.acl.as_ref().map(|grants| {
                let key = |grant: &Grant| {
                    format!("{:?} {} {} {}", grant.grantee, grant.privilege, grant.grantable, grant.grantor)
                };
                let mut keys: Vec<String> = grants.iter().map(key).collect();
                keys.sort();
                keys
            })
        };
        let settings = |state: &DatabaseState| {
            let mut keys: Vec<String> = state
                .settings
                .iter()
                .map(|setting| format!("{:?} {}={}", setting.role, setting.name, setting.value))
                .collect();
            keys.sort();
            keys
        };
        let mut differences = Vec::new();
        let mut differs = |what: &str, is_same: bool| {
            if !is_same {
                differences.push(format!("other {what}"));
            }
        };
        differs("owner", found.owner == wanted.owner);
        differs("grants", sorted(&found) == sorted(wanted));
        differs("settings", settings(&found) == settings(wanted));
        differs("security labels", found.security_labels == wanted.security_labels);
        differs("tablespace", found.tablespace == wanted.tablespace);
        differs("encoding", found.encoding == wanted.encoding);
        differs(
            "locale",
            (&found.collate, &found.ctype, &found.locale_provider, &found.locale, &found.icu_rules)
                == (
                    &wanted.collate,
                    &wanted.ctype,
                    &wanted.locale_provider,
                    &wanted.locale,
                    &wanted.icu_rules,
                ),
        );
        differs("collation version", found.collation_version == wanted.collation_version);
        Ok(differences)
    }

    fn write(&self, dir: &Path) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|source| Error::failed(format!("could not encode {CLONE_FILE}: {source}")))?;
        write_private_file(&dir.join(CLONE_FILE), &bytes)?;
        common::repository::sync_dir(dir)
    }

    /// The clone that a past run ordered, if it had come that far.
    pub fn of_run(past: &PastRun) -> Result<Option<Self>> {
        if !past.steps.iter().any(|step| matches!(step, Step::Cloning { .. })) {
            return Ok(None);
        }
        let path = past.dir.join(CLONE_FILE);
        let bytes = std::fs::read(&path).map_err(|source| Error::io("read", &path, source))?;
        let clone = serde_json::from_slice(&bytes)
            .map_err(|source| Error::damaged(format!("{} can't be read: {source}", path.display())))?;
        Ok(Some(clone))
    }
}

async fn look(control: &Session, clone: &DatabaseClone) -> Result<Found> {
    let row = control
        .query_opt(
            "SELECT oid, datallowconn, datconnlimit, pg_catalog.shobj_description(oid, 'pg_database')
             FROM pg_catalog.pg_database WHERE datname = $1",
            &[&clone.name],
        )
        .await
        .map_err(|source| Error::postgres("could not look up the clone", source))?;
    let Some(row) = row else { return Ok(Found::Nothing) };
    let (oid, open, limit): (u32, bool, i32) = (row.get(0), row.get(1), row.get(2));
    let comment: Option<String> = row.get(3);
    let is_marked = comment.as_deref() == Some(&*clone.marker());
    Ok(if limit != clone.token || (comment.is_some() && !is_marked) {
        Found::Foreign("it does not bear the mark of this run's clone".to_owned())
    } else if open {
        Found::Foreign("somebody has opened it, and may have written".to_owned())
    } else if is_marked {
        Found::Closed(oid)
    } else {
        Found::HalfMade
    })
}

/// Drops the clone if it is there and bears the run's mark; otherwise why not.
async fn drop_clone(control: &Session, clone: &DatabaseClone) -> Result<Option<String>> {
    match look(control, clone).await? {
        Found::Nothing => Ok(None),
        Found::Foreign(why) => Ok(Some(why)),
        Found::Closed(_) | Found::HalfMade => {
            database::drop_database(control, &clone.name).await.map(|()| None)
        }
    }
}

/// After a run that stands: the clone goes, or stays as it was told to; then its name.
pub async fn drop_or_keep(log: &mut RunLog, control: &Session) -> Option<String> {
    match log.clone.take() {
        Some(clone) if clone.keep => {
            log.report.notes.push(format!("the clone \"{}\" is kept (--keep-clone), closed", clone.name));
            log.report.next.extend(clone.by_hand());
            Some(clone.name)
        }
        clone => {
            log.clone = clone;
            drop_unneeded(log, control).await;
            None
        }
    }
}

/// Nobody needs the clone any more. A clone that stays is no failure of the run, and said.
pub async fn drop_unneeded(log: &mut RunLog, control: &Session) {
    let Some(clone) = log.clone.take() else { return };
    let why = match drop_clone(control, &clone).await {
        Ok(None) => return,
        Ok(Some(why)) => why,
        Err(error) => error.to_string(),
    };
    log.report.notes.push(format!("the clone \"{}\" was not dropped: {why}", clone.name));
    log.report.next.push(clone.by_hand()[1].clone());
}

/// The run stops for a person, who may want the clone.
pub fn leave(log: &mut RunLog) {
    let Some(clone) = log.clone.take() else { return };
    let report = &mut log.report;
    report.state = match &report.snapshot {
        Some(_) => format!("{} · so does the closed database \"{}\"", report.state, clone.name),
        None => format!(
            "database \"{}\" holds what the failed run left behind · the closed database \"{}\" holds the state before",
            report.database, clone.name
        ),
    };
    report.next.extend(clone.by_hand());
}

/// What became of an undo by clone.
pub enum Undone {
    /// It is over.
    Yes(Box<Report>),
    /// Nothing was changed: there is a snapshot to restore.
    No(Box<RunLog>),
}

/// Puts the clone in the place of the failed database. With `is_last`, a failure is the end of the run as well.
pub(crate) async fn undo(
    context: &Context,
    mut log: RunLog,
    control: &Session,
    standing: &mut Option<Fence>,
    (stage, error): (Stage, &Error),
    is_last: bool,
) -> Result<Undone> {
    let Some(mut clone) = log.clone.take() else { return Ok(Undone::No(Box::new(log))) };
    if let Some(Fence::Exclusive { names, .. }) = standing {
        clone.kept_as = names.kept_as();
    }
    let began = Instant::now();
    context.progress.note(format!("undoing by the clone: {}", error.message()));
    let read_only = context.options.hold_fence && matches!(standing, Some(Fence::ReadOnly { .. }));
    let swapped = async {
        let oid = ready(control, &clone).await?;
        // On a full disk the undo goes on without its line, and that is said.
        log.note_step(Step::UndoingByClone { oid, kept_as: clone.kept_as.clone() });
        fault::point("safe-run.undoing-by-clone");
        swap_in(&context.connection, &clone, read_only).await
    };
    let replaced = match swapped.await {
        Ok(replaced) => replaced,
        Err(second) if is_last || second.kind() == ErrorKind::Unknown => {
            log.report.undo = Some(UndoReport {
                how: "clone",
                seconds: began.elapsed().as_secs_f64(),
                failed_database_kept_as: None,
                error: Some((&second).into()),
            });
            log.report.state = format!(
                "database \"{}\" holds what the failed run left behind{}; database \"{}\" is left as well",
                log.report.database,
                standing.as_ref().map_or(String::new(), |fence| format!(", and {}", fence.state())),
                clone.name
            );
            log.report.next.push("safe-run recover".to_owned());
            return Ok(Undone::Yes(Box::new(log.finish(Verdict::Unknown, ErrorKind::Unknown.exit_code()))));
        }
        Err(second) => {
            let text = format!("the clone could not be used, the snapshot is restored instead: {second}");
            context.progress.warn(text.clone());
            log.report.notes.push(text);
            log.clone = Some(clone);
            return Ok(Undone::No(Box::new(log)));
        }
    };
    fault::point("safe-run.undone");
    let seconds = began.elapsed().as_secs_f64();
    log.timed("undo: the clone swapped in", began);
    log.note_step(Step::Undone);
    let kept_as = replaced.then(|| clone.kept_as.clone());
    let differences = clone.differences(control, context.connection.database()).await;
    let mut undo =
        UndoReport { how: "clone", seconds, failed_database_kept_as: kept_as.clone(), error: None };
    if let Some(error) = settle_fence(context, &mut log, control, standing.take(), kept_as.as_deref()).await {
        log.report.notes.push(format!("the fence could not be lifted: {error}"));
        log.report.next.push("safe-run recover".to_owned());
        undo.error = Some((&error).into());
        log.report.undo = Some(undo);
        return Ok(Undone::Yes(Box::new(log.finish(Verdict::Unknown, ErrorKind::Unknown.exit_code()))));
    }
    let report = &mut log.report;
    report.state = format!(
        "database \"{}\" is as it was before · its clone, made behind the fence and closed since, took its name; rows were not read again",
        report.database
    );
    report.notes.extend(not_as_before(differences, read_only));
    if let Some(kept_as) = &kept_as {
        report.notes.push(format!("the failed state is kept as database \"{kept_as}\""));
        report.next.push(format!("when it is no longer needed: DROP DATABASE {}", Ident::new(&**kept_as)));
    }
    report.undo = Some(undo);
    Ok(Undone::Yes(Box::new(log.finish(Verdict::Restored, stage.exit_code_undone(error)))))
}

/// A role that the run renamed or dropped is the server's, and no undo of a database brings it back.
fn not_as_before(differences: Result<Vec<String>>, held: bool) -> Vec<String> {
    match differences {
        Ok(differences) => differences
            .iter()
            .filter(|difference| !(held && difference.as_str() == "other settings"))
            .map(|difference| format!("NOT as before: the database itself has {difference}"))
            .collect(),
        Err(error) => vec![format!("the database's own settings could not be compared: {error}")],
    }
}

/// The clone's oid, if it may take the place of the database.
async fn ready(control: &Session, clone: &DatabaseClone) -> Result<u32> {
    let why = match look(control, clone).await? {
        Found::Closed(oid) => return Ok(oid),
        Found::Nothing => "it is gone".to_owned(),
        Found::HalfMade => "it was never finished".to_owned(),
        Found::Foreign(why) => why,
    };
    Err(Error::refused(format!("the clone \"{}\" can't be trusted: {why}", clone.name)).with_hint(
        "Look into it by hand; if it is right, rename it to the database's name with ALTER DATABASE … RENAME.",
    ))
}

/// Both renames, and what only the live database has, in one transaction. Whether a database had the name before.
async fn swap_in(settings: &ConnectionSettings, clone: &DatabaseClone, read_only: bool) -> Result<bool> {
    let live = settings.database();
    let names =
        SwapNames { live: live.to_owned(), staged: clone.name.clone(), replaced: clone.kept_as.clone() };
    let name = Ident::new(live);
    let comment = clone.state.comment.as_deref().map_or("NULL".to_owned(), literal);
    let limit = clone.state.connection_limit;
    let mut then = vec![
        format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true CONNECTION LIMIT {limit}"),
        format!("COMMENT ON DATABASE {name} IS {comment}"),
    ];
    if read_only {
        then.push(format!("ALTER DATABASE {name} SET default_transaction_read_only TO 'on'"));
    }
    database::swap_and(settings, &names, &then).await
}

/// For `recover`: undoes the killed run by its clone. False when that is not the way.
pub async fn recover_by(
    settings: &ConnectionSettings,
    control: &Session,
    past: &PastRun,
    journal: &mut Journal,
    what: &mut Vec<String>,
) -> Result<bool> {
    let Some(mut clone) = DatabaseClone::of_run(past)? else { return Ok(false) };
    let mut began = None;
    for step in &past.steps {
        match step {
            Step::UndoingByClone { oid, kept_as } => began = Some((*oid, kept_as.clone())),
            // The clone could not be used, and the snapshot is the undo.
            Step::Undoing { .. } => return Ok(false),
            _ => {}
        }
    }
    if let Some(names) = past.hidden() {
        clone.kept_as = names.kept_as();
    }
    if let Some((oid, kept_as)) = began {
        clone.kept_as = kept_as;
        let stands = control
            .query_opt(
                "SELECT FROM pg_catalog.pg_database WHERE oid = $1 AND datname = $2",
                &[&oid, &settings.database()],
            )
            .await
            .map_err(|source| Error::postgres("could not look up the clone", source))?;
        if stands.is_some() {
            what.push("its clone had taken the database's place".to_owned());
            return say_kept(control, &clone, what).await.map(|()| true);
        }
    }
    let has_file = past.steps.iter().any(|step| matches!(step, Step::SnapshotTaken { .. }));
    let oid = match ready(control, &clone).await {
        Ok(oid) => oid,
        Err(error) if has_file => {
            what.push(format!("the clone could not be used, the snapshot is restored instead: {error}"));
            return Ok(false);
        }
        Err(error) => return Err(error.with_kind(ErrorKind::Unknown)),
    };
    journal.write(Step::UndoingByClone { oid, kept_as: clone.kept_as.clone() })?;
    fault::point("safe-run.recovering");
    let read_only = past.holds_fence() && past.hidden().is_none();
    swap_in(settings, &clone, read_only).await?;
    journal.write(Step::Undone)?;
    what.push(
        "it was killed while it changed the database: its clone took the database's place now".to_owned(),
    );
    what.extend(not_as_before(clone.differences(control, settings.database()).await, read_only));
    say_kept(control, &clone, what).await.map(|()| true)
}

async fn say_kept(control: &Session, clone: &DatabaseClone, what: &mut Vec<String>) -> Result<()> {
    if database::exists(control, &clone.kept_as).await? {
        what.push(format!("the half-changed state is kept as database \"{}\"", clone.kept_as));
    }
    Ok(())
}

/// For `recover`, at the end: what is left of a clone goes, unless it was to stay.
pub async fn recover_leftover(
    control: &Session,
    past: &PastRun,
    verdict: &str,
    what: &mut Vec<String>,
) -> Result<()> {
    let Some(clone) = DatabaseClone::of_run(past)? else { return Ok(()) };
    let found = look(control, &clone).await?;
    if found == Found::Nothing {
        return Ok(());
    }
    let is_kept = verdict == Verdict::Stopped.word() || (clone.keep && verdict == Verdict::Committed.word());
    if is_kept {
        what.push(format!("the clone \"{}\" of the state before is kept, closed", clone.name));
        what.extend(clone.by_hand());
        return Ok(());
    }
    match drop_clone(control, &clone).await? {
        None => what.push(format!("the clone \"{}\" was dropped", clone.name)),
        Some(why) => what.push(format!("the database \"{}\" was left: {why}", clone.name)),
    }
    fault::point("safe-run.clone-dropped");
    Ok(())
}
