//! `restore SNAPSHOT --table … --schema …`: from the arguments to the report.

use std::{collections::BTreeMap, time::Instant};

use chrono::Utc;
use common::{
    Account, Error, ErrorKind, Progress, QualifiedName, Result, Verdict,
    cli::{Output, Settings},
    format,
    postgres::{ConnectionSettings, Session, tools, trust},
    repository::{
        StoredSnapshot,
        verify::{VerifiedSnapshot, verify_part},
    },
    snapshot::toc::{self, Choice, Entry, Kind},
};
use serde::Serialize;

use super::{
    beside::{self, Sides},
    dry_run,
    plan::{self, FreeNames, Mode, PartPlan},
    replace::{self, ReplaceOptions},
    rights, scratch,
    select::{self, Selection},
};
use crate::{
    RestoreOptions, Target,
    contents::{self, Section},
    event_triggers, owned,
    plan::time_suffix,
    stage::StagedDatabase,
};

/// What was asked for.
#[derive(Debug)]
pub struct PartRequest<'a> {
    /// `--table`.
    pub tables: &'a [String],
    /// `--schema`.
    pub schemas: &'a [String],
    /// `--into`.
    pub into: Option<&'a str>,
    /// `--replace`.
    pub replace: bool,
    /// `--drop-replaced`.
    pub drop_replaced: bool,
    /// `--run-owners-code`.
    pub run_owners_code: bool,
    /// `--dry-run`.
    pub dry_run: bool,
}

impl PartRequest<'_> {
    /// Whether tables were named at all; otherwise the whole snapshot is meant.
    pub fn is_some(&self) -> bool {
        !(self.tables.is_empty() && self.schemas.is_empty())
    }

    fn mode(&self) -> Mode {
        match (self.into, self.replace) {
            (Some(_), _) => Mode::Into,
            (None, true) => Mode::Replace,
            (None, false) => Mode::Beside,
        }
    }
}

/// What was done.
#[derive(Debug, Serialize)]
struct Report {
    verdict: Verdict,
    plan: PartPlan,
    /// What the live database did not have and got, beside the tables.
    made: Vec<String>,
    /// What the verdict does not vouch for.
    account: Account,
    seconds: f64,
}

/// The JSON of a dry run.
#[derive(Debug, Serialize)]
struct DryRun<'a> {
    #[serde(flatten)]
    plan: &'a PartPlan,
    account: &'a Account,
}

/// What the plan stands on.
struct Prepared {
    part: StoredSnapshot,
    selection: Selection,
    plan: PartPlan,
    /// New names of the tables, beside.
    becomes: BTreeMap<QualifiedName, QualifiedName>,
    /// Who owned each table, where that role is not the session's own, beside.
    owners: BTreeMap<QualifiedName, String>,
    /// For each table, what keeps its content, in place.
    kept_as: Vec<Option<QualifiedName>>,
    suffix: String,
    run_owners_code: bool,
}

/// What the live database got.
#[derive(Debug, Default)]
struct Done {
    /// Beside the tables.
    made: Vec<String>,
    /// What is not as in the snapshot, one sentence each.
    differs: Vec<String>,
}

/// Runs it.
pub async fn run(
    request: &PartRequest<'_>,
    settings: &Settings,
    connection: &ConnectionSettings,
    maintenance: &Session,
    snapshot: StoredSnapshot,
    options: RestoreOptions,
    output: &Output,
) -> Result<u8> {
    let started = Instant::now();
    let need = maintenance.server_major().max(snapshot.manifest.pg_dump_major);
    let pg_restore = tools::choose("pg_restore", &tools::installed("pg_restore").await, need)?;
    let prepared = prepare(request, connection, &snapshot, &pg_restore).await?;
    let plan = &prepared.plan;
    let (target, scratch) = database_to_make(&prepared, connection.database(), options.clone());
    let units = (plan.mode, &*prepared.selection.units);
    let asked =
        dry_run::Asked { keeps: prepared.kept_as.iter().any(Option::is_some), is_dry: request.dry_run };
    dry_run::refuse(connection, maintenance, &prepared.part, &target, &scratch, units, asked).await?;
    if request.dry_run {
        let not_checked =
            if plan.mode == Mode::Into { vec![] } else { vec![dry_run::NOT_CHECKED.to_owned()] };
        let account = Account { not_checked, ..Account::default() };
        if output.is_json() {
            output.document(&DryRun { plan, account: &account })?;
        } else {
            let lines: String = account.lines().iter().map(|line| format!("  {line}\n")).collect();
            output.data(&format!("{}{lines}", plan.describe()))?;
        }
        return Ok(0);
    }
    output.say(plan.describe().trim_end());
    if plan.mode == Mode::Replace {
        let names: Vec<&str> = plan.tables.iter().map(|table| table.table.as_str()).collect();
        let names = names.join(" ");
        let question = match plan.tables.len() {
            1 => "Type the table's name to go on:".to_owned(),
            _ => format!("Type the tables' names ({names}) to go on:"),
        };
        output.confirm_typed(&question, &names)?;
    }
    let progress = output.progress();
    let verified = verified(prepared.part.clone(), options.jobs, &progress).await?;
    let (made, account) = match plan.mode {
        Mode::Into => {
            (Vec::new(), into(request, connection, maintenance, &verified, options, &progress).await?)
        }
        Mode::Beside | Mode::Replace => {
            let made =
                with_scratch(connection, maintenance, &verified, &prepared, settings, options, &progress);
            let Done { made, differs } = made.await?;
            (made, Account { differs, ..Account::default() })
        }
    };
    analyze(connection, &prepared, output).await;
    let seconds = started.elapsed().as_secs_f64();
    let verdict = if prepared.plan.mode == Mode::Replace { Verdict::Replaced } else { Verdict::Restored };
    let report = Report { verdict, plan: prepared.plan, made, account, seconds };
    let told = match output.is_json() {
        true => output.document(&report),
        false => print(&report, connection, output),
    };
    told.map_err(|error| error.with_database_state("The tables are restored."))?;
    Ok(0)
}

async fn prepare(
    request: &PartRequest<'_>,
    connection: &ConnectionSettings,
    snapshot: &StoredSnapshot,
    pg_restore: &tools::Tool,
) -> Result<Prepared> {
    let manifest = &snapshot.manifest;
    let mode = request.mode();
    let selection = Selection::find(manifest, request.tables, request.schemas)?;
    let mut entries = contents::contents(pg_restore, &contents::archive(snapshot)).await?;
    if toc::may_lack_operator_classes(&entries) {
        let script = contents::post_data_script(pg_restore, &contents::archive(snapshot)).await?;
        toc::add_operator_classes(&mut entries, &script);
    }
    let choice = choose(snapshot, &entries, &selection, mode)?;
    let part = StoredSnapshot {
        dir: snapshot.dir.clone(),
        manifest: select::narrow(manifest, &entries, &selection, &choice),
    };
    let suffix = time_suffix(Utc::now());
    let mut becomes = BTreeMap::new();
    let mut kept = BTreeMap::new();
    let mut owners = BTreeMap::new();
    let mut firing = None;
    if mode != Mode::Into {
        let live = connection.connect().await?;
        firing = event_triggers::firing(&live).await?;
        let chosen: Vec<Entry> =
            entries.iter().filter(|entry| choice.entries.contains(&entry.id)).cloned().collect();
        if !request.run_owners_code {
            rights::refuse(&code(mode, &live, pg_restore, snapshot, &chosen, &selection).await?)?;
        }
        if mode == Mode::Beside {
            owners = rights::owners(&chosen, &part.manifest, &trust::roles(&live).await?);
        }
        let mut free = FreeNames::new(scratch::taken(&live).await?);
        live.close().await?;
        for unit in &selection.units {
            if mode == Mode::Beside {
                becomes.insert(unit.name.clone(), free.take(&unit.name, &format!("_restored_{suffix}"))?);
            } else if !request.drop_replaced {
                kept.insert(unit.name.clone(), free.take(&unit.name, &format!("_replaced_{suffix}"))?);
            }
        }
    }
    let names = |name: &QualifiedName| (becomes.get(name).unwrap_or(name).clone(), kept.get(name).cloned());
    let database = request.into.unwrap_or(connection.database());
    let mut plan = plan::plan(manifest, &part.manifest, &selection, &choice, mode, database, names);
    plan.notes.extend(firing);
    let kept_as = selection.units.iter().map(|unit| kept.get(&unit.name).cloned()).collect();
    let run_owners_code = request.run_owners_code;
    Ok(Prepared { part, selection, plan, becomes, owners, kept_as, suffix, run_owners_code })
}

/// What would be run that is not of trusted roles.
async fn code(
    mode: Mode,
    live: &Session,
    pg_restore: &tools::Tool,
    snapshot: &StoredSnapshot,
    chosen: &[Entry],
    selection: &Selection,
) -> Result<rights::Code> {
    if mode == Mode::Replace {
        return rights::of_live(live, &selection.units).await;
    }
    let roles = trust::roles(live).await?;
    let archive = contents::archive(snapshot);
    let post_data = contents::post_data_entries(pg_restore, &archive).await?;
    let exclusions = owned::look::exclusions(pg_restore, &archive, chosen, &post_data).await?;
    Ok(rights::of_entries(chosen, &roles, &exclusions))
}

fn choose(snapshot: &StoredSnapshot, entries: &[Entry], selection: &Selection, mode: Mode) -> Result<Choice> {
    let without: &[Kind] = match mode {
        Mode::Into => &[Kind::Publication],
        Mode::Beside | Mode::Replace => &beside::WITHOUT,
    };
    select::choose(&snapshot.manifest, entries, selection, without, mode == Mode::Into)
}

/// Checks length and hash of the files that are needed, and of no others.
async fn verified(snapshot: StoredSnapshot, jobs: usize, progress: &Progress) -> Result<VerifiedSnapshot> {
    progress.phase("verifying what is needed of the snapshot", Some(snapshot.manifest.stored_bytes()));
    let sink = progress.clone();
    let verified =
        tokio::task::spawn_blocking(move || verify_part(snapshot, jobs, &|bytes| sink.advance(bytes, 0)))
            .await
            .map_err(|source| Error::failed(format!("the verification died: {source}")))?
            .map_err(|error| error.with_database_state("No database was changed."))?;
    progress.done();
    Ok(verified)
}

/// A new database with nothing but the tables and what they need.
async fn into(
    request: &PartRequest<'_>,
    connection: &ConnectionSettings,
    maintenance: &Session,
    verified: &VerifiedSnapshot,
    options: RestoreOptions,
    progress: &Progress,
) -> Result<Account> {
    let target = Target::Into(request.into.unwrap_or_default().to_owned());
    let plan = crate::whole::prepare(connection, maintenance, verified.snapshot(), &target, &options).await?;
    let report = crate::whole::execute(connection, maintenance, verified, plan, &options, progress).await?;
    if !report.missing.is_empty() {
        let lines: Vec<String> = report.missing.iter().map(|object| object.line()).collect();
        return Err(Error::failed(format!("some objects could not be restored:\n  {}", lines.join("\n  ")))
            .with_hint("The new database holds everything else. Restore into a server of the snapshot's version, or make them by hand.")
            .with_database_state("The live database was not changed."));
    }
    Ok(report.account())
}

/// The new database that the work needs: the one that was asked for, or a scratch database.
fn database_to_make(
    prepared: &Prepared,
    live: &str,
    mut options: RestoreOptions,
) -> (Target, RestoreOptions) {
    if prepared.plan.mode == Mode::Into {
        return (Target::Into(prepared.plan.database.clone()), options);
    }
    // Nothing of the scratch database but definitions goes on: whoever restores owns the tables.
    options.choices.no_owner = true;
    options.choices.create_roles = false;
    options.choices.no_tablespaces = true;
    let name = common::ident::with_suffix(live, &format!("_restored_{}", prepared.suffix));
    (Target::Into(name), options)
}

/// Makes the scratch database, does the work, and drops it again on every path.
async fn with_scratch(
    connection: &ConnectionSettings,
    maintenance: &Session,
    verified: &VerifiedSnapshot,
    prepared: &Prepared,
    settings: &Settings,
    options: RestoreOptions,
    progress: &Progress,
) -> Result<Done> {
    let live = connection.database();
    let unchanged = |error: Error| {
        let error =
            if error.sqlstate() == Some("42501") { error.with_kind(ErrorKind::Refused) } else { error };
        if error.kind() == ErrorKind::Unknown {
            return error;
        }
        error.with_database_state(format!(
            "The database \"{}\" was not changed.",
            common::ident::printable(live)
        ))
    };
    let (target, options) = database_to_make(prepared, live, options);
    let restore_plan =
        crate::whole::prepare(connection, maintenance, verified.snapshot(), &target, &options).await?;
    let staged = StagedDatabase::create(maintenance, connection, verified, &restore_plan, progress)
        .await
        .map_err(unchanged)?;
    let result = work(connection, &staged, verified, &restore_plan, prepared, settings, progress).await;
    let name = staged.name().to_owned();
    let dropped = staged.discard(maintenance, progress).await;
    match (result, dropped) {
        (Ok(made), Ok(())) => Ok(made),
        (Ok(made), Err(second)) => {
            progress.warn(format!(
                "the scratch database \"{name}\" could not be dropped ({second}); drop it by hand"
            ));
            Ok(made)
        }
        (Err(error), Ok(())) => Err(unchanged(error)),
        (Err(error), Err(second)) => {
            let error = unchanged(error);
            let state = error.database_state().unwrap_or_default().to_owned();
            Err(error.with_database_state(format!(
                "{state} The scratch database \"{name}\" could not be dropped ({second}); drop it by hand."
            )))
        }
    }
}

async fn work(
    connection: &ConnectionSettings,
    staged: &StagedDatabase,
    verified: &VerifiedSnapshot,
    restore_plan: &crate::RestorePlan,
    prepared: &Prepared,
    settings: &Settings,
    progress: &Progress,
) -> Result<Done> {
    let major = verified.snapshot().manifest.pg_dump_major;
    let server = connection.connect().await?;
    let pg_dump = tools::choose_pg_dump(&tools::installed("pg_dump").await, server.server_version_num())?;
    let need = major.max(pg_dump.major).max(server.server_major());
    server.close().await?;
    let pg_restore = tools::choose("pg_restore", &tools::installed("pg_restore").await, need)?;
    let beside = prepared.plan.mode == Mode::Beside;
    let sections: &[Section] =
        if beside { &[Section::PreData, Section::PostData] } else { &[Section::PreData] };
    progress.phase("making the definitions in a scratch database", None);
    let session =
        scratch::define(staged, connection, verified, restore_plan, &pg_restore, sections, progress).await?;
    progress.done();
    let made = if beside {
        let sides = Sides { live: connection, scratch: &session, pg_dump: &pg_dump, pg_restore: &pg_restore };
        let suffix = format!("_restored_{}", prepared.suffix);
        let made =
            beside::restore(&sides, verified, &prepared.becomes, &prepared.owners, &suffix, progress).await?;
        Done { made: made.objects, differs: made.differs }
    } else {
        let options = ReplaceOptions {
            kept_as: prepared.kept_as.clone(),
            lock_timeout: settings.lock_timeout,
            lock_retries: settings.lock_retries,
            run_owners_code: prepared.run_owners_code,
        };
        let selection = &prepared.selection;
        let differs = replace::replace(connection, &session, verified, selection, &options, progress).await?;
        Done { differs, ..Done::default() }
    };
    session.close().await?;
    Ok(made)
}

/// Statistics for the planner. The restore has succeeded: without them it is only slower.
async fn analyze(connection: &ConnectionSettings, prepared: &Prepared, output: &Output) {
    if prepared.plan.mode == Mode::Into {
        return;
    }
    let analyzed = async {
        let session = connection.connect().await?;
        for unit in &prepared.selection.units {
            let name = prepared.becomes.get(&unit.name).unwrap_or(&unit.name);
            session
                .batch_execute(&format!("ANALYZE {name}"))
                .await
                .map_err(|source| Error::postgres(format!("could not analyze {}", name.short()), source))?;
        }
        session.close().await
    };
    if let Err(error) = analyzed.await {
        output.warn(&format!("{error}; autovacuum does it sooner or later"));
    }
}

fn print(report: &Report, connection: &ConnectionSettings, output: &Output) -> Result<()> {
    let took = format::duration(std::time::Duration::from_secs_f64(report.seconds));
    let plan = &report.plan;
    output.say(&format!(
        "{} {} of {} in \"{}\": {} compared with the snapshot and equal{}, in {took}",
        output.verdict(report.verdict),
        format::plural(plan.tables.len() as u64, "table", "tables"),
        plan.snapshot,
        common::ident::printable(&plan.database),
        format::plural(plan.rows, "row", "rows"),
        report.account.but(),
    ));
    for line in report.account.lines() {
        output.warn(&line);
    }
    for object in &report.made {
        output.say(&format!("         also made, because it was missing: {object}"));
    }
    for table in &plan.tables {
        if let Some(kept) = &table.kept_as {
            output.say(&format!("         what {} held is kept in {kept}", table.table));
        }
    }
    if plan.mode == Mode::Into {
        let url = connection.without_application_name().with_database(&plan.database).redacted_url();
        return output.data(&format!("{url}\n"));
    }
    let names: String = plan.tables.iter().map(|table| format!("{}\n", table.becomes)).collect();
    output.data(&names)
}
