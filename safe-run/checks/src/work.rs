//! The work that reads tables: handed out to the sessions, the largest first, and small pieces many at a time.
//!
//! Most of what a small table costs is the way to the server and the savepoint around each query. So the first questions
//! of small pieces of one kind are sent together, each still undone before the next ([`CheckSession::query_many`]). Where
//! the server refuses one of them, nothing of the answers counts, and each piece is asked alone, as if it had been alone
//! from the start.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use common::Progress;
use common::error;
use common::postgres::Client;

use super::carried::Carried;
use super::catalogue::CheckKind;
use super::model::{Options, Skipped};
use super::session::{Answer, CheckSession, HEAP_ONLY, OF_RULES};
use super::{
    Outcome, changed_rows, code, content, exclude, foreign_keys, sequences, structure, table_scan, unique,
};
use common::postgres::who_asks::Rights;

/// Bytes up to which a piece of work is small: it is read in the time that its query takes to plan.
const SMALL_BYTES: i64 = 256 << 10;

/// Most pieces in one message. More gain nothing, and one that is refused makes all of them be asked again.
const TOGETHER: usize = 32;

/// A piece of work that any session can do alone.
#[derive(Debug)]
pub(super) enum Work {
    ForeignKey(foreign_keys::ForeignKey),
    Scan(table_scan::Scan),
    Unique(unique::UniqueIndex),
    Exclude(exclude::Exclusion),
    Sequence(sequences::Sequence),
    Code(code::Code),
    Content(content::Hash),
    Structure(structure::Target, structure::Amcheck),
}

/// Work and its weight: the bytes that it reads.
#[derive(Debug)]
pub(super) struct Job {
    pub size_bytes: i64,
    pub work: Work,
}

/// What a piece of work asks first; what else it asks depends on the answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Question {
    /// Statements, each with its semicolon, that hold for this query alone.
    pub settings: String,
    /// One statement.
    pub sql: String,
    /// Its `search_path`, if it has one of its own.
    pub path: Option<String>,
    /// Who asks.
    pub rights: Rights,
}

impl Question {
    /// A query under the session's own settings, with its rights.
    pub fn plain(sql: String) -> Self {
        Self { sql, ..Self::default() }
    }

    /// A query under the session's own settings.
    pub fn of(rights: &Rights, sql: String) -> Self {
        Self { sql, rights: rights.clone(), ..Self::default() }
    }

    /// A query in which rows pass rules of their table.
    pub fn of_rules(rights: &Rights, sql: String) -> Self {
        Self { settings: OF_RULES.to_owned(), ..Self::of(rights, sql) }
    }

    /// The same, which no index may answer.
    pub fn of_heap(rights: &Rights, sql: String) -> Self {
        Self { settings: format!("{OF_RULES} {HEAP_ONLY}"), ..Self::of(rights, sql) }
    }
}

/// What is left to do.
#[derive(Debug)]
pub(super) struct Queue {
    jobs: Mutex<VecDeque<Job>>,
    sessions: usize,
    all: usize,
    progress: Option<Progress>,
}

impl Queue {
    /// `sessions` will take from it.
    pub fn new(mut jobs: Vec<Job>, sessions: usize, progress: Option<Progress>) -> Self {
        // Behind the large ones, what is of one kind lies together.
        jobs.sort_by_key(|job| {
            let large = if job.is_small() { 0 } else { job.size_bytes };
            (std::cmp::Reverse(large), job.kind())
        });
        Self { all: jobs.len(), jobs: Mutex::new(VecDeque::from(jobs)), sessions: sessions.max(1), progress }
    }

    /// The next piece, or the next small ones of one kind; none: there is nothing left.
    fn take(&self) -> Vec<Job> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        // The others get their share.
        let most = jobs.len().div_ceil(self.sessions).min(TOGETHER);
        let mut taken: Vec<Job> = Vec::new();
        while let Some(next) = jobs.front() {
            let fits = match taken.first() {
                None => true,
                Some(first) => {
                    taken.len() < most && first.is_small() && next.is_small() && first.kind() == next.kind()
                }
            };
            if !fits {
                break;
            }
            taken.extend(jobs.pop_front());
        }
        if let (Some(progress), Some(first)) = (&self.progress, taken.first()) {
            progress.step(format!("{} of {}: {}", self.all - jobs.len(), self.all, first.kind()));
        }
        taken
    }

    fn clear(&self) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Takes from the queue until it is empty. With answers from before the fence, only the rows are looked at that changed since
    /// where these are enough.
    pub async fn drain(
        &self,
        session: &CheckSession<'_>,
        carried: Option<&Carried>,
        out: &mut Outcome,
    ) -> error::Result<()> {
        loop {
            let jobs = self.take();
            let Some(first) = jobs.first() else { return Ok(()) };
            let (started, check) = (Instant::now(), first.kind());
            let done = async {
                let left = match carried {
                    Some(carried) => not_answered(jobs, carried, session, out).await?,
                    None => jobs,
                };
                run_together(&left, session, out).await
            };
            let done = done.await;
            *out.took.entry(check).or_default() += started.elapsed();
            if done.is_err() {
                // The others finish what they are at and leave their sessions in order.
                self.clear();
                return done;
            }
        }
    }
}

/// Takes from the queue until it is empty, between opening and closing the session, which is closed on every path.
pub(super) async fn work_off(client: &Client, options: &Options, queue: &Queue) -> error::Result<Outcome> {
    let session = CheckSession::open(client, options.parallel_workers).await?;
    let mut out = Outcome::default();
    let done = queue.drain(&session, options.carried.as_deref(), &mut out).await;
    let closed = session.close().await;
    done?;
    closed?;
    Ok(out)
}

/// The pieces that the changed rows alone do not answer.
async fn not_answered(
    jobs: Vec<Job>,
    carried: &Carried,
    session: &CheckSession<'_>,
    out: &mut Outcome,
) -> error::Result<Vec<Job>> {
    let mut left = Vec::with_capacity(jobs.len());
    for job in jobs {
        if !changed_rows::answer(&job.work, carried, session, out).await? {
            left.push(job);
        }
    }
    Ok(left)
}

/// Runs pieces of one kind. Their questions are sent together where all can be asked that way.
async fn run_together(jobs: &[Job], session: &CheckSession<'_>, out: &mut Outcome) -> error::Result<()> {
    let questions: Vec<Question> = jobs.iter().map_while(|job| job.question(session).ok()).collect();
    let answers = if jobs.len() > 1 && questions.len() == jobs.len() {
        session.query_many(&questions).await?
    } else {
        None
    };
    let Some(answers) = answers else {
        for job in jobs {
            job.run(session, out).await?;
        }
        return Ok(());
    };
    for (job, rows) in jobs.iter().zip(answers) {
        job.go_on(session, Ok(rows), out).await?;
    }
    Ok(())
}

impl Job {
    fn is_small(&self) -> bool {
        self.size_bytes <= SMALL_BYTES
    }

    fn kind(&self) -> CheckKind {
        match &self.work {
            Work::ForeignKey(_) => CheckKind::ForeignKeys,
            Work::Scan(_) => CheckKind::Rows,
            Work::Unique(_) => CheckKind::Unique,
            Work::Exclude(_) => CheckKind::Exclude,
            Work::Sequence(_) => CheckKind::Sequences,
            Work::Code(_) => CheckKind::Code,
            Work::Content(_) => CheckKind::Content,
            Work::Structure(..) => CheckKind::Structure,
        }
    }

    /// What it asks first.
    fn question(&self, session: &CheckSession<'_>) -> Result<Question, Skipped> {
        Ok(match &self.work {
            Work::ForeignKey(work) => work.question(),
            Work::Scan(work) => work.question(),
            Work::Unique(work) => work.question(),
            Work::Exclude(work) => work.question(),
            Work::Sequence(work) => work.question(),
            Work::Code(work) => work.question(session),
            Work::Content(work) => work.question(),
            Work::Structure(work, amcheck) => return work.question(amcheck),
        })
    }

    /// Does all of it.
    async fn run(&self, session: &CheckSession<'_>, out: &mut Outcome) -> error::Result<()> {
        match self.question(session) {
            Ok(question) => {
                let answer = session.ask(self.size_bytes, &question).await?;
                self.go_on(session, answer, out).await
            }
            Err(skipped) => {
                out.skipped.push(skipped);
                Ok(())
            }
        }
    }

    /// Reads the answer to its question, and asks what follows from it.
    async fn go_on(
        &self,
        session: &CheckSession<'_>,
        answer: Answer,
        out: &mut Outcome,
    ) -> error::Result<()> {
        let size_bytes = self.size_bytes;
        match &self.work {
            Work::ForeignKey(work) => work.go_on(session, size_bytes, answer, out).await,
            Work::Scan(work) => work.go_on(session, size_bytes, answer, out).await,
            Work::Unique(work) => work.go_on(session, size_bytes, answer, out).await,
            Work::Exclude(work) => work.go_on(session, size_bytes, answer, out).await,
            Work::Sequence(work) => work.go_on(session, answer, out).await,
            Work::Code(work) => work.go_on(session, answer, out).await,
            Work::Structure(work, _) => {
                work.read(answer, out);
                Ok(())
            }
            Work::Content(work) => {
                work.read(answer, out);
                Ok(())
            }
        }
    }
}
