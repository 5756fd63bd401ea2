//! Runs pg_restore over the schema archive, section by section. No error is ever ignored: each is either one of the
//! settings that an older server does not know, or a statement that has another form here (a foreign key that old
//! orphans violate, restored NOT VALID, and said; a word that only newer servers know), or it fails the restore with the
//! object's name.

mod forms;
mod make_owned;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use common::{
    Error, Progress, Result,
    ident::conninfo_value,
    postgres::{
        ConnectionSettings, Session,
        tools::{self, Tool},
        trust::Role,
    },
    snapshot::Manifest,
};

use crate::{
    broken_rules::BrokenRules,
    column_marks::{self, without_marks},
    contents::{Section, list_command, list_file, list_of},
    encoding,
    event_triggers::Silenced,
    function_settings::FunctionSettings,
    lent_paths::LentPaths,
    missing::{self, MissingObject},
    orphaned_keys::OrphanedKeys,
    owned::{Batch, Owned},
    passes,
    restore_errors::{self, RestoreError},
};

use forms::{not_valid_refused, not_valid_statement, without_logged, without_run_as_owner};

/// How to restore.
#[derive(Debug, Clone, Copy)]
pub struct ArchiveOptions<'a> {
    /// Parallel connections of pg_restore.
    pub jobs: usize,
    /// Leave owners and grants out.
    pub no_owner: bool,
    /// The entries to restore, in the archive's order; without them, all.
    pub entries: Option<&'a [u32]>,
    /// Leave tablespaces out.
    pub no_tablespaces: bool,
    /// Name what fails and go on: for a server that is older than the snapshot.
    pub keep_going: bool,
    /// What the sessions shall have set, as `-c name=value`.
    pub session: &'a str,
    /// Entries that were restored, or tried, before.
    pub ahead: Option<&'a Ahead>,
    /// Entries that their owners make.
    pub owned: Option<&'a Owned>,
    /// What may help where an entry fails.
    pub remedies: &'a Remedies,
}

/// What may help where an entry fails; it is tried once more then.
#[derive(Debug)]
pub struct Remedies {
    /// Functions that find nothing with an empty search path.
    pub paths: LentPaths,
    /// Event triggers that an extension has brought.
    pub event_triggers: Silenced,
    /// Constraints that rows break.
    pub broken_rules: BrokenRules,
    /// Foreign keys that rows break.
    pub orphaned_keys: OrphanedKeys,
    /// Settings of functions that the server does not accept.
    pub settings: FunctionSettings,
}

impl Remedies {
    /// Nothing is done yet.
    pub fn new(
        settings: &ConnectionSettings,
        manifest: &Manifest,
        skip_settings: bool,
        progress: &Progress,
    ) -> Self {
        let paths = LentPaths::new(settings, manifest, progress);
        let broken_rules = BrokenRules::new(settings, progress);
        let settings = FunctionSettings::new(skip_settings);
        let (event_triggers, orphaned_keys) = (Silenced::default(), OrphanedKeys::default());
        Self { paths, event_triggers, broken_rules, orphaned_keys, settings }
    }
}

/// Entries that were restored one by one, before the rest of the archive.
#[derive(Debug, Default)]
pub struct Ahead {
    /// These are there.
    pub done: BTreeSet<u32>,
    /// These failed, and are restored once more; what they say in that run is what counts.
    pub failed: BTreeSet<u32>,
}

/// Where the archive goes, and how.
pub(crate) struct Run<'a> {
    pub pg_restore: &'a Tool,
    pub settings: &'a ConnectionSettings,
    pub session: &'a Session,
    pub archive: &'a Path,
    section: Section,
    pub options: ArchiveOptions<'a>,
    /// What each number in the archive's list means.
    pub entries: BTreeMap<u32, String>,
    pub progress: &'a Progress,
}

/// Restores one section into the database that `settings` name; what could not be restored, and may be missing, comes back.
///
/// pg_restore's parallel jobs know which tables an entry names, but not the partitions and heirs that it reaches. So
/// two entries deadlock (a trigger on a partitioned table and a foreign key on its leaf), or two partitions' indexes
/// are attached at once, neither sees the other, and the parent's index stays invalid for ever. In a database with
/// inheritance only the building of indexes is parallel, which takes the time, and the rest comes one by one.
///
/// Foreign keys have a pass of their own, and comments come after all others.
pub async fn restore(
    pg_restore: &Tool,
    settings: &ConnectionSettings,
    session: &Session,
    archive: &Path,
    section: Section,
    options: ArchiveOptions<'_>,
    progress: &Progress,
) -> Result<Vec<MissingObject>> {
    let (finished, listed) = tools::capture(list_command(pg_restore, archive, section), "pg_restore").await?;
    if !finished.success {
        return Err(Error::failed(format!("pg_restore failed: {}", finished.stderr.trim())));
    }
    let listed = encoding::shown(session, listed).await?;
    let entries = missing::entries(&listed);
    let listed = only(&listed, options.entries, options.ahead);
    let run = Run { pg_restore, settings, session, archive, section, options, entries, progress };
    let jobs = options.jobs.max(1);
    if section == Section::PreData {
        let order: Vec<u32> = listed.lines().filter_map(passes::id).collect();
        if order.iter().any(|id| run.maker(*id).is_some()) {
            return run.batches(&order, 1).await;
        }
        let all = options.entries.is_none() && options.ahead.is_none_or(|ahead| ahead.done.is_empty());
        return if all {
            run.pass(None, 1).await
        } else {
            run.pass(Some(list_file(&listed)?.path()), 1).await
        };
    }
    let split = passes::split(&listed);
    if section == Section::EventTriggers {
        let entries = &split.event_triggers;
        return if entries.is_empty() {
            Ok(Vec::new())
        } else {
            run.pass(Some(list_file(entries)?.path()), 1).await
        };
    }
    let by_several = !(jobs > 1 && has_inheritance(session).await?);
    let mut missing = Vec::new();
    let late = options.owned.map(|owned| owned.late.clone()).unwrap_or_default();
    for pass in split.in_order(&late, by_several) {
        let jobs = if pass.in_parallel { jobs } else { 1 };
        let order: Vec<u32> = pass.list.lines().filter_map(passes::id).collect();
        missing.extend(if order.iter().any(|id| run.maker(*id).is_some()) {
            run.batches(&order, jobs).await?
        } else {
            run.pass(Some(list_file(&pass.list)?.path()), jobs).await?
        });
    }
    Ok(missing)
}

/// A list of the chosen entries, without those that are there already.
///
/// pg_restore does not choose them: see [`restore_command`].
fn only(listed: &str, chosen: Option<&[u32]>, ahead: Option<&Ahead>) -> String {
    let chosen: Option<BTreeSet<u32>> = chosen.map(|chosen| chosen.iter().copied().collect());
    let is_wanted = |line: &&str| {
        passes::id(line).is_none_or(|id| {
            chosen.as_ref().is_none_or(|chosen| chosen.contains(&id))
                && ahead.is_none_or(|ahead| !ahead.done.contains(&id))
        })
    };
    listed.split_inclusive('\n').filter(is_wanted).collect()
}

/// Restores one entry of the post-data section in a session of its own; whether it is there now. If it is not, that is said
/// nowhere: the run over the whole archive does it again.
pub async fn restore_one(
    pg_restore: &Tool,
    settings: &ConnectionSettings,
    archive: &Path,
    entry: u32,
    options: ArchiveOptions<'_>,
    progress: &Progress,
) -> Result<bool> {
    let list = list_of(&[entry])?;
    let mut command = restore_command(pg_restore, settings, None, options);
    command.arg("--use-list").arg(list.path()).arg(archive);
    let finished = tools::run(command, "pg_restore").await?;
    let (errors, others) = restore_errors::parse_restore_errors(&finished.stderr);
    let is_there =
        errors.iter().all(restore_errors::is_known_setting_error) && (finished.success || !errors.is_empty());
    if is_there {
        say(&others, progress);
    }
    Ok(is_there)
}

/// pg_restore into the database of `settings`, without the archive.
///
/// A section and a list exclude each other. Grants, comments and labels have no section of their own: pg_restore gives them that
/// of the entry before, and a list moves what is not in it to the front. One that begins with them would lose them, with exit code 0.
fn restore_command(
    pg_restore: &Tool,
    settings: &ConnectionSettings,
    section: Option<Section>,
    options: ArchiveOptions<'_>,
) -> tokio::process::Command {
    let mut command = tools::command_with(&pg_restore.path, settings, options.session);
    let database = conninfo_value(settings.database());
    command.arg("--no-password").arg(format!("--dbname=dbname={database}"));
    command.args(section.map(Section::flag));
    if options.no_owner {
        command.args(["--no-owner", "--no-privileges"]);
    }
    if options.no_tablespaces {
        command.arg("--no-tablespaces");
    }
    command
}

/// Passes on what pg_restore said beside its errors.
fn say(lines: &[String], progress: &Progress) {
    let is_told = |line: &&String| {
        line.strip_prefix("pg_restore: ").is_none_or(|rest| rest.starts_with("warning: "))
            && !line.trim().is_empty()
    };
    for line in lines.iter().filter(is_told) {
        progress.warn(format!("pg_restore says: {}", common::ident::printable(line)));
    }
}

async fn has_inheritance(session: &Session) -> Result<bool> {
    let row = session
        .query_one("SELECT EXISTS (SELECT FROM pg_catalog.pg_inherits)", &[])
        .await
        .map_err(|source| Error::postgres("could not look for partitioned tables", source))?;
    Ok(row.get(0))
}

impl Run<'_> {
    /// The owner that has to make an entry.
    pub fn maker(&self, id: u32) -> Option<&Role> {
        self.options.owned?.makers.get(&id)
    }

    /// Entries of which owners make some.
    async fn batches(&self, order: &[u32], jobs: usize) -> Result<Vec<MissingObject>> {
        let mut missing = Vec::new();
        for batch in self.options.owned.map(|owned| owned.batches(order)).unwrap_or_default() {
            missing.extend(match batch {
                Batch::Ours(ids) => self.pass(Some(list_of(&ids)?.path()), jobs).await?,
                Batch::Owner(ids) => make_owned::make(self, &ids).await?,
            });
        }
        Ok(missing)
    }

    /// Restores the entries of a list, or all.
    ///
    /// What parallel jobs say about their errors comes interleaved, so nothing is decided from it: if anything failed, the
    /// same entries are restored once more, one by one, and those that exist are skipped.
    async fn pass(&self, list: Option<&Path>, jobs: usize) -> Result<Vec<MissingObject>> {
        if jobs > 1 {
            let finished = self.pg_restore(list, jobs).await?;
            let (errors, others) = restore_errors::parse_restore_errors(&finished.stderr);
            if errors.iter().all(restore_errors::is_known_setting_error)
                && (finished.success || !errors.is_empty())
            {
                say(&others, self.progress);
                return Ok(Vec::new());
            }
        }
        let finished = self.pg_restore_with_a_place(list).await?;
        let (mut errors, others) = restore_errors::parse_restore_errors(&finished.stderr);
        say(&others, self.progress);
        if !finished.success && errors.is_empty() {
            return Err(Error::failed(format!("pg_restore failed: {}", finished.stderr.trim())));
        }
        errors.retain(|error| !restore_errors::is_known_setting_error(error));
        // Made by a parallel run before, or by one for this entry alone whose end was not seen.
        let tried = |error: &RestoreError| {
            let failed = self.options.ahead.map(|ahead| &ahead.failed);
            jobs > 1 || error.dump_id.is_some_and(|id| failed.is_some_and(|failed| failed.contains(&id)))
        };
        errors.retain(|error| !(tried(error) && is_there_already(error)));
        let errors = self.with_remedies(errors).await?;
        self.mend(&errors).await
    }

    /// What is left of the errors when those entries were restored once more with all that may help.
    async fn with_remedies(&self, errors: Vec<RestoreError>) -> Result<Vec<RestoreError>> {
        let is_lost = |error: &RestoreError| {
            let has_another_form = not_valid_statement(error).is_some()
                || without_logged(error).is_some()
                || without_run_as_owner(error).is_some()
                || without_marks(error).is_some();
            error.dump_id.is_some() && !has_another_form
        };
        if !errors.iter().any(is_lost) {
            return Ok(errors);
        }
        let remedies = self.options.remedies;
        let silenced = remedies.event_triggers.silence(self.session, self.progress).await?;
        let lent = remedies.paths.lend(false).await?;
        if !(silenced || lent) {
            return Ok(errors);
        }
        let mut seen = BTreeSet::new();
        // In the order of the archive, in which they failed.
        let failed: Vec<u32> =
            errors.iter().filter_map(|error| error.dump_id).filter(|id| seen.insert(*id)).collect();
        let list = list_of(&failed)?;
        let finished = self.pg_restore_with_a_place(Some(list.path())).await?;
        let (mut again, others) = restore_errors::parse_restore_errors(&finished.stderr);
        say(&others, self.progress);
        if !finished.success && again.is_empty() {
            return Err(Error::failed(format!("pg_restore failed: {}", finished.stderr.trim())));
        }
        // Some of an entry's statements had succeeded before.
        again.retain(|error| !restore_errors::is_known_setting_error(error) && !is_there_already(error));
        again.extend(errors.into_iter().filter(|error| error.dump_id.is_none()));
        Ok(again)
    }

    /// Again where there was no place for its session: one of ours that was just closed has its for a moment longer. Nothing was made, or
    /// tried, then.
    async fn pg_restore_with_a_place(&self, list: Option<&Path>) -> Result<tools::Finished> {
        let finished = tools::run_with_a_place("pg_restore", async || self.pg_restore(list, 1).await).await?;
        match tools::no_place("pg_restore", &finished.stderr) {
            Some(error) => Err(error),
            None => Ok(finished),
        }
    }

    async fn pg_restore(&self, list: Option<&Path>, jobs: usize) -> Result<tools::Finished> {
        let section = list.is_none().then_some(self.section);
        let mut command = restore_command(self.pg_restore, self.settings, section, self.options);
        if jobs > 1 {
            command.arg(format!("--jobs={jobs}"));
        } else {
            // Without it an error does not name the entry of the archive that it came from.
            command.arg("--verbose");
        }
        if let Some(list) = list {
            command.arg("--use-list").arg(list);
        }
        command.arg(self.archive);
        tools::run(command, "pg_restore").await
    }

    /// Statements that have another form here are run in that; every other error is a missing object or the end.
    async fn mend(&self, errors: &[RestoreError]) -> Result<Vec<MissingObject>> {
        let session = self.session;
        let (mut missing, mut fatal) = (Vec::new(), Vec::new());
        let (mut rewritten, mut has_marks) = (false, false);
        let mut failed_entries = BTreeSet::new();
        for error in errors {
            // The owner and the like of what could not be made: one object, one line.
            if error.dump_id.is_some_and(|id| failed_entries.contains(&id)) {
                continue;
            }
            let unmarked = without_marks(error);
            has_marks |= unmarked.is_some();
            if let Some(statement) =
                without_logged(error).or_else(|| without_run_as_owner(error)).or(unmarked)
                && session.batch_execute(&statement).await.is_ok()
            {
                rewritten = true;
                continue;
            }
            if let Some(name) = self.options.remedies.settings.make_without(session, error).await {
                self.progress.warn(name);
                rewritten = true;
                continue;
            }
            // What needs what was missing until now, and may have marks as well.
            let cleaned = error.statement.as_deref().filter(|_| has_marks).map(column_marks::cleaned);
            if rewritten
                && let Some(statement) = cleaned.as_ref().or(error.statement.as_ref())
                && session.batch_execute(statement).await.is_ok()
            {
                continue;
            }
            let Some(statement) = not_valid_statement(error) else {
                failed_entries.extend(error.dump_id);
                let mut object = self.describe(error);
                if is_superusers_grant(&object) {
                    object.reason = format!(
                        "only a superuser may grant rights on the server's own objects ({})",
                        object.reason
                    );
                    missing.push(object);
                } else {
                    fatal.push(object);
                }
                continue;
            };
            match session.batch_execute(&statement).await {
                Ok(()) => {
                    let keys = &self.options.remedies.orphaned_keys;
                    keys.add(error.entry.as_deref(), &first_line(&error.message));
                }
                // 42809: before 18 a foreign key of a partitioned table can't be NOT VALID.
                Err(source) if source.code().is_some_and(|code| code.code() == "42809") => {
                    let mut object = self.describe(error);
                    object.reason = not_valid_refused(session, &error.message);
                    missing.push(object);
                }
                Err(source) => {
                    let mut object = self.describe(error);
                    object.reason = format!("{} (NOT VALID: {source})", object.reason);
                    fatal.push(object);
                }
            }
        }
        if self.options.keep_going {
            missing.append(&mut fatal);
        }
        // The comment of a constraint that was left out.
        fatal.retain(|object| {
            let is_comment =
                object.definition.as_ref().is_some_and(|sql| sql.starts_with("COMMENT ON CONSTRAINT "));
            let goes = is_comment && object.reason.contains("does not exist");
            if goes {
                missing.push(object.clone());
            }
            !goes
        });
        if fatal.is_empty() {
            return Ok(missing);
        }
        let lines: Vec<String> = fatal.iter().map(MissingObject::line).collect();
        Err(Error::failed(format!(
            "{} object{} could not be restored:\n  {}",
            lines.len(),
            if lines.len() == 1 { "" } else { "s" },
            lines.join("\n  ")
        ))
        .with_hint(missing::hint(&fatal)))
    }

    fn describe(&self, error: &RestoreError) -> MissingObject {
        let listed = error.dump_id.and_then(|id| self.entries.get(&id)).cloned();
        let statement = || error.statement.as_deref().unwrap_or("archive").replace('\n', " ");
        MissingObject {
            object: listed.or_else(|| error.entry.clone()).unwrap_or_else(statement),
            reason: error.message.replace('\n', " "),
            definition: error.statement.as_deref().map(|statement| statement.trim().to_owned()),
        }
    }
}

/// Whether a role that is no superuser could not give a right on one of the server's own objects, which a database may have
/// granted (`GRANT SELECT ON pg_largeobject` lets a role back up large objects).
fn is_superusers_grant(object: &MissingObject) -> bool {
    object.object.starts_with("ACL pg_catalog ") && object.reason.starts_with("permission denied for ")
}

/// Whether an entry failed because the parallel run before had made it.
fn is_there_already(error: &RestoreError) -> bool {
    let message = error.message.trim_end();
    message.ends_with(" already exists")
        || message.ends_with(" already exists with same argument types")
        || (message.starts_with("multiple primary keys for table ") && message.ends_with(" are not allowed"))
}

fn first_line(text: &str) -> String {
    common::ident::printable(text.lines().next().unwrap_or_default())
}
