//! The commands that look at past runs: history, report. What `status` and `plan` share stands here too.

use std::path::Path;

use common::{
    Error, ErrorKind, Result, format,
    postgres::{ConnectionSettings, Session},
    repository::{Repository, output_file::settle},
};
use serde::Serialize;

use super::{Invocation, state::State};
use crate::{
    journal, release,
    report::{document, html, targets},
};

impl Invocation<'_> {
    /// What is applied and what the folders hold, for a command that changes nothing.
    pub(super) async fn read_only_state(&self, connection: &ConnectionSettings) -> Result<(Session, State)> {
        let session = connection
            .connect()
            .await
            .map_err(|error| release::explain_closed(error, &self.settings.repo, connection.database()))?;
        let history = self.find_history(&session).await?;
        let state = self.state(&session, history).await?;
        Ok((session, state))
    }

    pub(super) fn history(&self) -> Result<u8> {
        let runs = journal::past_runs(&Repository::open(&self.settings.repo)?)?;
        #[derive(Serialize)]
        struct Line {
            run: String,
            began_at: Option<chrono::DateTime<chrono::Utc>>,
            database: String,
            verdict: String,
            exit_code: Option<u8>,
            what: String,
        }
        let lines: Vec<Line> = runs
            .iter()
            .map(|run| Line {
                run: run.run.clone(),
                began_at: run.began_at,
                database: run.database().unwrap_or_default().to_owned(),
                verdict: run
                    .finished()
                    .map_or(common::Verdict::Unfinished.word(), |(_, verdict)| verdict)
                    .to_owned(),
                exit_code: run.finished().map(|(code, _)| code),
                what: run.what().to_owned(),
            })
            .collect();
        if self.output.is_json() {
            self.output.document(&serde_json::json!({"runs": lines}))?;
            return Ok(0);
        }
        if lines.is_empty() {
            self.output.say("No runs yet.");
            return Ok(0);
        }
        let rows: Vec<Vec<String>> = lines
            .into_iter()
            .map(|line| {
                let code = line.exit_code.map_or("-".to_owned(), |code| code.to_string());
                let mut what: String = line.what.chars().take(60).collect();
                if what.len() < line.what.len() {
                    what.push('…');
                }
                vec![line.run, line.database, line.verdict, code, what]
            })
            .collect();
        self.output.data(&format::table(
            &["RUN", "DATABASE", "VERDICT", "EXIT", "WHAT"],
            &[false, false, false, true, false],
            &rows,
        ))?;
        Ok(0)
    }

    pub(super) fn report(&self, wanted: Option<&str>, page: Option<&Path>) -> Result<u8> {
        let target = match page {
            Some(path) if path.as_os_str() != "-" => Some(settle("--html", path)?),
            _ => None,
        };
        let runs = journal::past_runs(&Repository::open(&self.settings.repo)?)?;
        let matching: Vec<_> =
            runs.iter().filter(|run| wanted.is_none_or(|wanted| run.run.starts_with(wanted))).collect();
        let run = match (wanted, matching.as_slice()) {
            (_, []) => {
                return Err(Error::new(ErrorKind::NoSuchSnapshot, "there is no such run")
                    .with_hint("Run `safe-run history`."));
            }
            (None, [.., last]) | (Some(_), [last]) => last,
            (Some(wanted), _) => {
                return Err(Error::usage(format!("\"{wanted}\" is the start of several runs"))
                    .with_hint("Give more characters of the id."));
            }
        };
        let report = document::load(&run.dir)?.ok_or_else(|| {
            Error::failed(format!("run {} has no report: it was killed", run.run))
                .with_hint("Run `safe-run recover`, or read its journal.jsonl.")
        })?;
        match (page, target) {
            (_, Some(file)) => {
                targets::write(&file, html::page(&report).as_bytes())?;
                self.output.say(&format!("written: {}", file.display()));
            }
            (Some(_), None) => self.output.exactly(&html::page(&report))?,
            (None, None) if self.output.is_json() => self.output.exactly(&document::to_json(&report)?)?,
            (None, None) => self.print_with(&report, true)?,
        }
        Ok(0)
    }
}
