//! What there is to look at: the catalog is read, what it answers alone is answered, and what reads tables becomes a list of jobs.

use std::time::Instant;

use common::{
    error::Result,
    format::plural,
    postgres::{Client, who_asks::Standings},
};

use crate::{
    advice, carried,
    catalogue::{CheckKind, Level},
    code, collations, content, enforcement, enums, exclude, foreign_keys, indexes,
    job::{Job, Work},
    maybe_wrong,
    model::{CheckResults, RuleKey, RuleState, Skipped},
    options::Options,
    partitions, privileges, replica_identity, sequences,
    session::CheckSession,
    statistics, structure, table_scan, tables, triggers, unique, untouched,
};

/// What the catalog said.
pub(super) struct Planned {
    pub results: CheckResults,
    pub jobs: Vec<Job>,
    /// What can only be looked at with an extension that is not there.
    pub to_create_for: Vec<structure::Target>,
}

/// [`plan`] between opening and closing the session, which is closed on every path.
pub(super) async fn list(client: &Client, options: &Options) -> Result<Planned> {
    let session = CheckSession::open(client, options.parallel_workers).await?;
    let planned = plan(&session, options).await;
    let refused = session.take_refused();
    let closed = session.close().await;
    let mut planned = planned?;
    closed?;
    planned.results.skipped.extend(refused);
    Ok(planned)
}

/// The job of a view or a function, whose rule is noted.
pub(super) fn code_job(work: code::Code, results: &mut CheckResults) -> Job {
    results.rules.insert(work.key.clone(), RuleState::default());
    Job { size_bytes: 0, work: Work::Code(work) }
}

/// Reads the catalog, runs the checks that need nothing else, and lists the work that reads tables.
async fn plan(session: &CheckSession<'_>, options: &Options) -> Result<Planned> {
    let results = CheckResults {
        level: options.level,
        tables: tables::list(session).await?,
        ..CheckResults::default()
    };
    let standings = session.standings().await?;
    let mut plan = Plan { session, options, standings, results, jobs: Vec::new() };
    run_on_catalog(session, options, &mut plan.results).await?;
    if options.wants(CheckKind::ForeignKeys) {
        plan.foreign_keys().await?;
    }
    plan.scans().await?;
    if options.wants(CheckKind::Unique) {
        plan.unique_indexes().await?;
    }
    if options.wants(CheckKind::Exclude) {
        plan.exclusions().await?;
    }
    if options.wants(CheckKind::Sequences) {
        plan.sequences().await?;
    }
    if options.wants(CheckKind::Code) {
        plan.code().await?;
    }
    if options.wants(CheckKind::Content) {
        plan.content().await?;
    }
    let to_create_for =
        if options.wants(CheckKind::Structure) { plan.structure().await? } else { Vec::new() };
    plan.note_what_is_not_read();
    Ok(Planned { results: plan.results, jobs: plan.jobs, to_create_for })
}

/// The plan in the making, and what each of its steps asks.
struct Plan<'a> {
    session: &'a CheckSession<'a>,
    options: &'a Options,
    standings: Standings,
    results: CheckResults,
    jobs: Vec<Job>,
}

impl Plan<'_> {
    async fn foreign_keys(&mut self) -> Result<()> {
        for work in foreign_keys::list(self.session, &self.standings).await? {
            let mut heaps = tables::heaps(&self.results.tables, work.table);
            heaps.extend(tables::heaps(&self.results.tables, work.referenced));
            let size_bytes = tables::size(&self.results.tables, &heaps);
            let question = || carried::question(&work, &heaps);
            if self.note_rule(&work.key, &work.definition, &heaps, question) {
                self.jobs.push(Job { size_bytes, work: Work::ForeignKey(work) });
            }
        }
        Ok(())
    }

    /// Every heap, with those of its rules that have to be looked at.
    async fn scans(&mut self) -> Result<()> {
        let scans = table_scan::list(self.session, &self.standings, &mut self.results, self.options).await?;
        for mut work in scans {
            let mut rules = std::mem::take(&mut work.rules);
            rules.retain(|rule| {
                let question = || carried::question(&(work.context(), rule), &[work.table]);
                self.note_rule(&rule.key, &rule.definition, &[work.table], question)
            });
            work.rules = rules;
            let untouched = self.options.level < Level::Deep && self.options.untouched.contains(&work.table);
            let counted = work.counts_rows && self.take_over_rows(&work);
            if !work.rules.is_empty() || (work.counts_rows && !untouched && !counted) {
                let size_bytes = tables::size(&self.results.tables, &[work.table]);
                self.jobs.push(Job { size_bytes, work: Work::Scan(work) });
            }
        }
        Ok(())
    }

    async fn unique_indexes(&mut self) -> Result<()> {
        for work in unique::list(self.session, &self.standings).await? {
            let (table, question) = ([work.key.object_oid], || carried::question(&work, &[]));
            if self.note_rule(&work.key, &work.definition, &table, question) {
                let size_bytes = tables::size(&self.results.tables, &table);
                self.jobs.push(Job { size_bytes, work: Work::Unique(work) });
            }
        }
        Ok(())
    }

    async fn exclusions(&mut self) -> Result<()> {
        for work in exclude::list(self.session, &self.standings).await? {
            let (table, question) = ([work.key.object_oid], || carried::question(&work, &[]));
            if !self.note_rule(&work.key, &work.definition, &table, question) {
                continue;
            }
            let size_bytes = tables::size(&self.results.tables, &table);
            if self.options.level < Level::Deep && size_bytes > exclude::SELF_JOIN_BYTES {
                self.results.skipped.push(work.too_large());
            } else {
                self.jobs.push(Job { size_bytes, work: Work::Exclude(work) });
            }
        }
        Ok(())
    }

    /// Never passed over: setval leaves no trace in the table, and max() of a unique column is an index look-up.
    async fn sequences(&mut self) -> Result<()> {
        for work in sequences::list(self.session, &self.standings).await? {
            let state = RuleState { ran: false, definition: String::new() };
            self.results.rules.insert(work.key.clone(), state);
            self.jobs.push(Job { size_bytes: 0, work: Work::Sequence(work) });
        }
        Ok(())
    }

    async fn code(&mut self) -> Result<()> {
        let mut code = code::views(self.session, &self.standings).await?;
        if !self.options.functions_later {
            code.extend(code::functions(self.session, &self.standings).await?);
        }
        self.jobs.extend(code.into_iter().map(|work| code_job(work, &mut self.results)));
        Ok(())
    }

    async fn content(&mut self) -> Result<()> {
        for work in content::list(self.session, &self.standings, self.options).await? {
            let size_bytes = tables::size(&self.results.tables, &[work.key.object_oid]);
            self.jobs.push(Job { size_bytes, work: Work::Content(work) });
        }
        Ok(())
    }

    /// Gives back what only amcheck can look at, where it is not installed.
    async fn structure(&mut self) -> Result<Vec<structure::Target>> {
        let structure::Plan { targets, amcheck } =
            structure::plan(self.session, &mut self.results, self.options).await?;
        for target in &targets {
            self.results.rules.insert(target.key.clone(), RuleState::default());
        }
        let Some(amcheck) = amcheck else { return Ok(targets) };
        self.jobs.extend(targets.into_iter().map(|target| Job::of_structure(target, &amcheck)));
        Ok(Vec::new())
    }

    /// Says which tables are not read at this level, and why.
    fn note_what_is_not_read(&mut self) {
        let Self { options, results, .. } = self;
        if options.level == Level::Standard {
            results.untouched =
                results.tables.keys().copied().filter(|table| options.untouched.contains(table)).collect();
            results.skipped.extend(untouched::skipped(results));
        }
        if options.level < Level::Deep && !options.made.is_empty() {
            results.skipped.push(Skipped {
                check: CheckKind::Rows,
                object: plural(options.made.len() as u64, "new table", "new tables"),
                why: "PostgreSQL has just looked at every row for each of their keys, constraints and indexes: not read again for them"
                    .to_owned(),
                counts_for_strict: false,
            });
        }
    }

    /// Records that the rule exists; `true` if it has to be looked at. `question` is everything that the answer depends on
    /// but the content of `heaps`; see [`carried::question`].
    fn note_rule(
        &mut self,
        key: &RuleKey,
        definition: &str,
        heaps: &[u32],
        question: impl Fn() -> String,
    ) -> bool {
        let Self { options, results, .. } = self;
        results.rules.insert(key.clone(), RuleState { ran: false, definition: definition.to_owned() });
        if options.was_just_made(heaps) {
            if let Some(state) = results.rules.get_mut(key) {
                state.ran = true;
            }
            return false;
        }
        if options.is_first {
            results.questions.insert(key.clone(), question());
        }
        if let Some(carried) = &options.carried
            && carried.answer(results, key, &question(), heaps)
        {
            return false;
        }
        !options.passes_over(key, heaps)
    }

    /// Whether a pass before the fence has counted the heap's rows, and they are still as many.
    fn take_over_rows(&mut self, scan: &table_scan::Scan) -> bool {
        let Some(carried) = &self.options.carried else { return false };
        let Some(rows) = carried.rows(scan.table, &scan.no_rows()) else { return false };
        self.results.rows.insert(scan.table, rows);
        self.results.carried_rows.insert(scan.table);
        true
    }
}

/// The checks that the catalog answers, and the states that are compared with another pass.
async fn run_on_catalog(
    session: &CheckSession<'_>,
    options: &Options,
    results: &mut CheckResults,
) -> Result<()> {
    for check in CheckKind::ALL.into_iter().filter(|check| options.wants(*check)) {
        let started = Instant::now();
        let findings = match check {
            CheckKind::Indexes => indexes::run(session).await?,
            CheckKind::Triggers => {
                results.states.constraints = enforcement::read(session).await?;
                triggers::run(session).await?
            }
            CheckKind::Partitions => partitions::run(session).await?,
            CheckKind::ReplicaIdentity => replica_identity::run(session).await?,
            CheckKind::Collations => collations::run(session).await?,
            CheckKind::Advice => {
                let mut notes = advice::run(session).await?;
                notes.extend(maybe_wrong::run(session).await?);
                notes
            }
            CheckKind::Privileges => {
                results.states.privileges = privileges::read(session).await?;
                Vec::new()
            }
            CheckKind::Enums => {
                results.states.enums = enums::read(session).await?;
                Vec::new()
            }
            CheckKind::Statistics => {
                results.states.statistics = statistics::read(session).await?;
                Vec::new()
            }
            _ => continue,
        };
        results.took.insert(check, started.elapsed());
        for finding in findings {
            results.rules.insert(finding.key.clone(), RuleState { ran: true, definition: String::new() });
            results.findings.push(finding);
        }
    }
    Ok(())
}
