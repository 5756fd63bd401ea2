//! What the database says is applied, and what the folders hold: read in one place for every command.

use common::{
    Error, Result,
    format::plural,
    ident::{printable, shell_word},
    postgres::Session,
};

use super::{Invocation, args::FormatChoice};
use crate::{
    foreign::{self, Elsewhere, Unreadable},
    history::{History, Recorded},
};
use sql::{
    layout::{Format, Layout, detect::Seen, settings::Settings},
    migration::{self, DriftKind, MigrationFile, MigrationPlan},
    statement::{TableName, names},
    version::Version,
};

/// What is told of migrations that stand in another tool's history.
struct Refusal<'a> {
    elsewhere: &'a Elsewhere,
    /// Those that would run; `None` where the files could not be read as any layout's.
    pending: Option<Vec<&'a MigrationFile>>,
    planned: Option<(&'a State, &'a MigrationPlan<'a>)>,
    flags: String,
}

impl Refusal<'_> {
    fn error(&self, database: &str) -> Error {
        /// Names in the message; there may be thousands.
        const SHOWN: usize = 3;
        let table = self.elsewhere.table.short();
        let mut names: Vec<String> = match &self.pending {
            Some(files) => files.iter().map(|file| printable(&file.name())).collect(),
            None => self
                .elsewhere
                .paths
                .iter()
                .map(|path| printable(&path.file_name().unwrap_or_default().to_string_lossy()))
                .collect(),
        };
        let count = names.len();
        names.truncate(SHOWN);
        if count > SHOWN {
            names.push(format!("and {} more", count - SHOWN));
        }
        let whose = match self.elsewhere.tool {
            Some(tool) => format!(", the history of {tool}"),
            None => String::new(),
        };
        let verb = if count == 1 { "stands" } else { "stand" };
        Error::refused(format!(
            "{} {verb} in {table}{whose}: {}",
            plural(count as u64, "of these migrations", "of these migrations"),
            names.join(", ")
        ))
        .with_hint(self.ways_on(&table))
        .with_database_state(format!(
            "The database \"{database}\" was not changed: nothing was applied a second time."
        ))
    }

    /// Its tool, this tool from here on, or the table is something else.
    fn ways_on(&self, table: &str) -> String {
        let flags = &self.flags;
        let mut ways = Vec::new();
        let command = self.elsewhere.command.unwrap_or("COMMAND");
        ways.push(format!(
            "Let the tool that applied them go on, under protection: `safe-run -- {command}`."
        ));
        if let Some(format) = self.adoptable() {
            ways.push(format!(
                "Or go on in that history: `safe-run --format {format} --history-table {}`.",
                shell_word(table)
            ));
        }
        if let (Some(files), Some((state, plan))) = (&self.pending, self.planned) {
            ways.push(format!(
                "Or record them as applied, and go on with safe-run alone: `safe-run{flags} {}`.",
                record(files, state, plan)
            ));
        }
        ways.push(format!(
            "If {table} says nothing of these files: `--ignore-history {}`.",
            shell_word(&self.elsewhere.table.short())
        ));
        ways.join(" ")
    }

    /// The format that has such a history, under whatever name.
    fn adoptable(&self) -> Option<Format> {
        let seen = seen(self.elsewhere);
        let all =
            Format::ALL.into_iter().filter(|format| *format != Format::SafeRun && *format != Format::Dbmate);
        all.into_iter().find(|format| seen.format_if_called(format.table()) == Some(*format))
    }
}

/// The refusal where a history may be that is not read.
fn not_read(history: &Unreadable, database: &str) -> Error {
    let (name, tool) = (history.name.short(), history.tool);
    Error::refused(format!(
        "{name} is called like the history of {tool}, and is {}: whether it has these migrations is not known",
        history.kind
    ))
    .with_hint(format!(
        "Look at what stands in it. If {tool} has applied these files, let it go on: `safe-run -- {}`. If not: \
         `--ignore-history {}`.",
        history.command,
        shell_word(&name)
    ))
    .with_database_state(format!("The database \"{database}\" was not changed."))
}

/// The table as one that could be a history of an adopted tool.
fn seen(elsewhere: &Elsewhere) -> Seen {
    Seen { table: elsewhere.table.clone(), columns: elsewhere.columns.clone(), on_path: true }
}

/// `baseline` where that says exactly what stands there, else `stamp`.
fn record(files: &[&MigrationFile], state: &State, plan: &MigrationPlan<'_>) -> String {
    /// A longer command line helps nobody.
    const SHOWN: usize = 20;
    let newest = files.last().expect("there is one");
    let waiting: Vec<&MigrationFile> = plan.pending.iter().chain(&plan.held_back).copied().collect();
    let before = waiting.iter().take_while(|file| file.version != newest.version).count() + 1;
    if state.recorded.rows.is_empty() && before == files.len() {
        return format!("baseline {}", newest.version);
    }
    let mut words: Vec<String> = files.iter().take(SHOWN).map(|file| file.version.to_string()).collect();
    if files.len() > SHOWN {
        words.push("…".to_owned());
    }
    format!("stamp {}", words.join(" "))
}

/// The files and their history.
pub(super) struct State {
    /// Where it is recorded.
    pub history: History,
    /// In the order in which they run.
    pub files: Vec<MigrationFile>,
    /// What is applied.
    pub recorded: Recorded,
}

impl Invocation<'_> {
    /// The format that is asked for, on the command line or in the settings file.
    pub(super) fn wanted(&self) -> Result<Option<Format>> {
        match self.settings.format.as_deref() {
            Some(text) => Ok(FormatChoice::parse(text)?.format()),
            None => Ok(None),
        }
    }

    /// Finds out whose history it is. The folders are looked at before anything is asked of the server.
    pub(super) async fn find_history(&self, session: &Session) -> Result<History> {
        let signs = migration::signs(&self.settings.dirs)?;
        let wanted = self.wanted()?;
        let variable = |name: &str| self.settings.variable(name);
        let parameters = session.settings().parameters_of_others();
        let mut settings = Settings::read(&self.settings.dirs, variable, parameters)?;
        if let Some(table) = &self.migrations.history_table {
            settings.given(wanted, table);
        }
        let history = match History::find(session, wanted, &signs, &settings).await {
            Ok(history) => history,
            Err(error) => return Err(self.applied_elsewhere(session, None).await?.unwrap_or(error)),
        };
        let format = history.layout.format;
        match settings.unfollowed.iter().find(|(known, _)| *known == format) {
            None => Ok(history),
            Some((_, what)) => {
                Err(Error::refused(format!("{what} changes what {format} reads, and is not followed here"))
                    .with_hint("Let the tool itself migrate, under protection: `safe-run -- COMMAND`.")
                    .with_database_state("Nothing was changed."))
            }
        }
    }

    /// Reads the files and the history.
    pub(super) async fn state(&self, session: &Session, history: History) -> Result<State> {
        let mut files = match migration::load(&self.settings.dirs, history.layout) {
            Ok(files) => files,
            // Another tool's files, perhaps, and its history tells.
            Err(error) => return Err(self.applied_elsewhere(session, None).await?.unwrap_or(error)),
        };
        for text in &self.migrations.whole_file {
            let version = resolve(text, &files, history.layout)?;
            match files.iter_mut().find(|file| file.version == version) {
                Some(file) => file.as_whole(),
                None => {
                    return Err(Error::usage(format!("no migration has version {version}"))
                        .with_hint("`safe-run status` lists the versions that there are."));
                }
            }
        }
        let mut recorded = history.read(session).await?;
        for row in &mut recorded.rows {
            if let Some(file) = files.iter().find(|file| file.version == row.version) {
                find_original(file, row);
            }
        }
        Ok(State { history, files, recorded })
    }

    /// Refuses what another tool has applied already: it would run a second time.
    pub(super) async fn refuse_applied_elsewhere(
        &self,
        session: &Session,
        state: &State,
        plan: &MigrationPlan<'_>,
    ) -> Result<()> {
        if plan.pending.is_empty() && plan.held_back.is_empty() {
            return Ok(());
        }
        if let Some(refusal) = self.applied_elsewhere(session, Some((state, plan))).await? {
            return Err(refusal);
        }
        // Files that this history already has rows of were told from the other one when the first of them ran.
        if !state.recorded.rows.is_empty() {
            return Ok(());
        }
        let left_out = self.ignored_histories();
        let found = foreign::find_unreadable(session).await?;
        let stands =
            |it: &&Unreadable| it.name != state.history.table && !foreign::is_left_out(&it.name, &left_out);
        found.iter().find(stands).map_or(Ok(()), |it| Err(not_read(it, session.settings().database())))
    }

    /// The tables that say nothing of these files.
    fn ignored_histories(&self) -> Vec<TableName> {
        self.settings.ignore_history.iter().map(|text| names::parse(text)).collect()
    }

    /// The refusal, if migrations stand in another history; all files count where there is no plan.
    async fn applied_elsewhere(
        &self,
        session: &Session,
        planned: Option<(&State, &MigrationPlan<'_>)>,
    ) -> Result<Option<Error>> {
        let own = planned.map(|(state, _)| &state.history.table);
        let left_out = self.ignored_histories();
        let found = foreign::find(session, &self.settings.dirs, own, &left_out).await?;
        let database = session.settings().database();
        for elsewhere in &found {
            // The same history in another schema belongs to another tenant, who is not asked for.
            let is_tenant = planned.is_some_and(|(state, _)| {
                let own = &state.history.table;
                own.name == elsewhere.table.name
                    && own.schema != elsewhere.table.schema
                    && !state.recorded.rows.is_empty()
            });
            let pending: Option<Vec<&MigrationFile>> = planned.map(|(_, plan)| {
                let waiting = plan.pending.iter().chain(&plan.held_back).copied();
                waiting.filter(|file| elsewhere.has(&file.path)).collect()
            });
            // Tables of adopted tools are judged with the format; what is said there is more exact.
            let is_judged = planned.is_none() && {
                let seen = seen(elsewhere);
                seen.format_if_called(seen.table.name.as_str()).is_some()
            };
            if is_judged || is_tenant || pending.as_ref().is_some_and(Vec::is_empty) {
                continue;
            }
            let refusal = Refusal { elsewhere, pending, planned, flags: self.folder_flags() };
            return Ok(Some(refusal.error(database)));
        }
        Ok(None)
    }

    /// The flags that name the folders, for a command line that a person copies.
    fn folder_flags(&self) -> String {
        let dirs = self
            .migrations
            .dir
            .iter()
            .map(|dir| format!(" --dir {}", shell_word(&dir.display().to_string())));
        let format = self.migrations.format.map(|format| format!(" --format {}", format.name()));
        dirs.chain(format).collect()
    }

    /// Decides what is pending, and tells what changed without mattering.
    pub(super) fn plan_of<'s>(&self, state: &'s State) -> Result<MigrationPlan<'s>> {
        state.recorded.refuse_dirty(&state.history)?;
        let layout = state.history.layout;
        let version = |text: &String| resolve(text, &state.files, layout);
        let to = self.migrations.to.as_ref().map(version).transpose()?;
        let late: Vec<Version> =
            self.migrations.allow_out_of_order.iter().map(version).collect::<Result<_>>()?;
        let plan = migration::plan(&state.files, &state.recorded.rows, to.as_ref(), &late)?;
        self.tell_drift(&plan);
        Ok(plan)
    }

    fn tell_drift(&self, plan: &MigrationPlan<'_>) {
        for drift in &plan.drift {
            self.output.warn(&format!(
                "{} was edited after it was applied: only {} differ",
                drift.file.name(),
                drift.kind.what()
            ));
        }
        for squashed in &plan.squashed {
            self.output.say(&format!(
                "note: {} is applied, and its file is gone (older than every file)",
                squashed.version.as_str()
            ));
        }
    }
}

/// Tools record no more than a checksum. When it no longer fits, git may still have the text that does, and then it can be
/// told whether the change matters.
fn find_original(file: &MigrationFile, row: &mut migration::AppliedMigration) {
    if row.checksum_normalized.is_none()
        && !file.version.is_repeatable()
        && migration::classify_drift(file, row) == Some(DriftKind::Real)
    {
        let is_it = |text: &str| file.checksum_of(text) == row.checksum;
        row.checksum_normalized =
            migration::original(&file.path, is_it).and_then(|text| file.normalized_of(&text));
    }
}

/// The version that a person means: as it is recorded, or, where versions are names, a unique start of one.
pub(super) fn resolve(text: &str, files: &[MigrationFile], layout: Layout) -> Result<Version> {
    let exact = layout.version(text);
    if let Some(file) = exact.as_ref().and_then(|exact| files.iter().find(|file| file.version == *exact)) {
        return Ok(file.version.clone());
    }
    let starts: Vec<&MigrationFile> = files
        .iter()
        .filter(|file| {
            !text.is_empty() && layout.format.has_folders() && file.version.as_str().starts_with(text)
        })
        .collect();
    match (starts.as_slice(), exact) {
        ([only], _) => Ok(only.version.clone()),
        ([], Some(exact)) => Ok(exact),
        ([], None) => Err(Error::usage(format!("\"{text}\" is not a version"))
            .with_hint("A version is made of digits, such as 0007; `safe-run status` lists them.")),
        (several, _) => Err(Error::usage(format!("\"{text}\" is the start of {} versions", several.len()))
            .with_hint("Give more of it; `safe-run status` lists them.")),
    }
}
