//! The work that reads tables: handed out to the sessions, the largest first, and small pieces many at a time.
//!
//! Most of what a small table costs is the way to the server and the savepoint around each query. So the first questions
//! of small pieces of one kind are sent together, each still undone before the next ([`CheckSession::query_many`]). Where
//! the server refuses one of them, nothing of the answers counts, and each piece is asked alone, as if it had been alone
//! from the start.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use common::{Progress, error, postgres::Client};

use crate::{
    carried::Carried, changed_rows, job::Job, options::Options, outcome::Outcome, question::Question,
    session::CheckSession,
};

/// Most pieces in one message. More gain nothing, and one that is refused makes all of them be asked again.
const TOGETHER: usize = 32;

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
