//! The statistics of the tables that were filled.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use common::{Error, postgres::Session};

use super::{Import, Way};
use crate::run::{Context, RunLog};

impl Import {
    /// Gathers statistics for the planner. Never fails the run.
    pub async fn analyze(&self, context: &Context, session: &Session, log: &mut RunLog) {
        let began = Instant::now();
        context.progress.phase("analyzing", None);
        let told = log.report.import.as_ref().map_or_else(Vec::new, |report| report.tables.clone());
        let names = self.names_to_analyze(session).await;
        let left: Mutex<VecDeque<_>> =
            Mutex::new(told.into_iter().map(|told| told.table).zip(names).collect());
        // It reads and computes: a second session makes use of a second processor.
        let second = if context.options.jobs > 1 { context.connection.connect().await.ok() } else { None };
        let notes = match &second {
            Some(second) => {
                let both = tokio::join!(analyze_all(session, &left), analyze_all(second, &left));
                [both.0, both.1].concat()
            }
            None => analyze_all(session, &left).await,
        };
        log.report.notes.extend(notes);
        context.progress.done();
        log.timed("analyze", began);
    }

    async fn names_to_analyze(&self, session: &Session) -> Vec<common::QualifiedName> {
        let plan = match &self.way {
            Way::Into(plan) => Ok(plan.clone()),
            Way::Make(made) => match super::target::read(session, &self.search_path).await {
                Ok(there) => made.settle(&there),
                Err(error) => Err(error),
            },
        };
        plan.map_or_else(
            |_| Vec::new(),
            |plan| plan.tables.into_iter().map(|table| table.target.name).collect(),
        )
    }
}

/// Analyzes tables as long as there are any. Gives what went wrong.
async fn analyze_all(
    session: &Session,
    left: &Mutex<VecDeque<(String, common::QualifiedName)>>,
) -> Vec<String> {
    let mut notes = Vec::new();
    loop {
        let next = left.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some((table, name)) = next else { return notes };
        if let Err(source) = session.batch_execute(&format!("ANALYZE {name}")).await {
            let error = Error::postgres(format!("could not analyze {table}"), source);
            notes.push(format!("{error}; autovacuum will do it"));
        }
    }
}
