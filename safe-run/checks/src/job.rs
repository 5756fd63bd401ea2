//! A piece of work that reads a table: what it asks, and what it does with the answer.

use common::error;

use crate::{
    catalogue::CheckKind,
    code, content, exclude, foreign_keys,
    model::Skipped,
    outcome::Outcome,
    question::Question,
    sequences,
    session::{Answer, CheckSession},
    structure, table_scan, unique,
};

/// Bytes up to which a piece of work is small: it is read in the time that its query takes to plan.
const SMALL_BYTES: i64 = 256 << 10;

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

impl Job {
    /// The work of looking at an index or a heap.
    pub fn of_structure(target: structure::Target, amcheck: &structure::Amcheck) -> Self {
        Self { size_bytes: target.size_bytes, work: Work::Structure(target, amcheck.clone()) }
    }

    pub fn is_small(&self) -> bool {
        self.size_bytes <= SMALL_BYTES
    }

    pub fn kind(&self) -> CheckKind {
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
    pub fn question(&self, session: &CheckSession<'_>) -> Result<Question, Skipped> {
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
    pub async fn run(&self, session: &CheckSession<'_>, out: &mut Outcome) -> error::Result<()> {
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
    pub async fn go_on(
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
