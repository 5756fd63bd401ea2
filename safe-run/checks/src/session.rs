//! One session that runs the checks and is left exactly as it was found.
//!
//! Everything happens inside a savepoint that is rolled back at the end, so that no setting, lock or role leaks into
//! the migration's transaction. Every query has a savepoint of its own: a refused query never aborts the transaction.
//! The session is read-only meanwhile, so that a function in a CHECK cannot write. What would evaluate code of a role that is
//! not trusted is asked as the owner of the object (`common::postgres::who_asks`), by functions that are made before the session is read-only,
//! are rolled back with everything else, and can't be altered in between.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use common::{
    error::{Error, Result},
    postgres::{
        Client, DriverError, SimpleQueryMessage,
        as_owner::{self, OWN_PATH, Rows},
        who_asks::{self, Rights, Standings},
    },
};

use crate::{
    catalogue::CheckKind,
    model::{Skipped, WHOLE_CHECK},
    question::Question,
};

/// One row as text, as the server prints it.
pub(super) type TextRow = Vec<Option<String>>;

/// What has to hold before anything is looked up. `ROLE NONE` because a migration may have left `SET ROLE` behind;
/// `statement_timeout` is off so that SQLSTATE 57014 can only mean that a person cancelled.
const FIRST: &str = "SET LOCAL ROLE NONE; SET LOCAL search_path = ''; SET LOCAL statement_timeout = 0;";

/// The path that a new session of this role has in this database, whatever SET has made of it since, and when this is.
const PATH: &str =
    "SELECT reset_val, extract(epoch FROM pg_catalog.statement_timestamp()) FROM pg_catalog.pg_settings
WHERE name = 'search_path'";

/// Settings of every pass. With `constraint_exclusion` the planner would believe the very constraints that are in question.
const SETTINGS: &str = "SET LOCAL transaction_read_only = on;
SET LOCAL timezone = 'UTC';
SET LOCAL datestyle = 'ISO';
SET LOCAL intervalstyle = 'postgres';
SET LOCAL extra_float_digits = 3;
SET LOCAL bytea_output = 'hex';
SET LOCAL row_security = off;
SET LOCAL quote_all_identifiers = off;
SET LOCAL xmloption = 'content';
SET LOCAL constraint_exclusion = off;
SET LOCAL jit = off;
SET LOCAL check_function_bodies = off;
SET LOCAL enable_hashagg = on;
SET LOCAL enable_hashjoin = on;
SET LOCAL enable_mergejoin = on;
SET LOCAL enable_seqscan = on;
SET LOCAL work_mem = '64MB'";

/// Heap size in bytes from which a query may use PostgreSQL's own workers: starting one costs milliseconds.
const PARALLEL_FROM_BYTES: i64 = 32 << 20;

/// A query that the server refused, without harm to the transaction.
#[derive(Debug)]
pub(super) struct RefusedQuery {
    /// The five-character code.
    pub sqlstate: String,
    /// The server's message.
    pub message: String,
}

/// What the server said to a query: its rows, or why not.
pub(super) type Answer = Result<Vec<TextRow>, RefusedQuery>;

/// A session inside the pass's savepoint.
pub(super) struct CheckSession<'a> {
    client: &'a Client,
    owns_transaction: bool,
    parallel_workers: u32,
    search_path: String,
    /// The roles as which this session can ask.
    owners: BTreeSet<u32>,
    /// When the session was opened, by the server's clock, in seconds since 1970.
    opened: String,
    refused: Mutex<Vec<Skipped>>,
}

impl<'a> CheckSession<'a> {
    /// Opens the savepoint, or a transaction of its own where there is none, and applies the settings.
    pub async fn open(client: &'a Client, parallel_workers: u32) -> Result<Self> {
        match Self::open_with(client, parallel_workers, None, false).await? {
            Ok(session) => Ok(session),
            Err(_) => Err(Error::failed("the checks' session was not opened")),
        }
    }

    /// [`Self::open`], after `prelude` has run inside the savepoint: a query that has to give a row, and statements
    /// that may write, because the session is not read-only yet. All of it is taken back by [`Self::close`].
    ///
    /// The inner error: the query gave none, or the statements were refused; the session is as it was found.
    /// `writable` begins a transaction of its own that may write, at READ COMMITTED.
    pub async fn open_with(
        client: &'a Client,
        parallel_workers: u32,
        prelude: Option<(&str, &str)>,
        writable: bool,
    ) -> Result<Result<Self, Option<RefusedQuery>>> {
        let failed = |error| Error::postgres("could not start the checks", error);
        // A session that may write is in no transaction, and the server would log that it was asked for a savepoint.
        let in_transaction = !writable
            && match client.batch_execute("SAVEPOINT safe_run_checks").await {
                Ok(()) => true,
                Err(error) => {
                    let error = failed(error);
                    // no_active_sql_transaction
                    if error.sqlstate() != Some("25P01") {
                        return Err(error);
                    }
                    false
                }
            };
        if !in_transaction {
            // Not READ ONLY: it is set inside of the savepoint, once the functions that ask as an owner are made.
            let mode = if writable { "READ COMMITTED READ WRITE" } else { "REPEATABLE READ" };
            let begin = format!("BEGIN ISOLATION LEVEL {mode}; SAVEPOINT safe_run_checks");
            client.batch_execute(&begin).await.map_err(failed)?;
        }
        let mut session = Self {
            client,
            owns_transaction: !in_transaction,
            parallel_workers,
            search_path: String::new(),
            owners: BTreeSet::new(),
            opened: String::new(),
            refused: Mutex::default(),
        };
        if let Some((query, statements)) = prelude {
            let there = match session.query(query).await {
                Ok(there) => there,
                Err(error) => return session.give_up(error).await,
            };
            let refused = match there {
                Ok(rows) if rows.is_empty() => Some(None),
                Ok(_) => client.batch_execute(statements).await.err().map(|error| {
                    let error = Error::postgres("a check failed", error);
                    Some(RefusedQuery {
                        sqlstate: error.sqlstate().unwrap_or_default().to_owned(),
                        message: error.message().replacen("a check failed: ", "", 1),
                    })
                }),
                Err(refused) => Some(Some(refused)),
            };
            if let Some(refused) = refused {
                session.close().await?;
                return Ok(Err(refused));
            }
        }
        match session.prepare().await {
            Ok(()) => Ok(Ok(session)),
            Err(error) => {
                let error = Error::postgres("could not prepare the session for the checks", error);
                session.give_up(error).await
            }
        }
    }

    /// Applies the settings, after the functions are made for the owners that are not trusted, if there are any.
    async fn prepare(&mut self) -> Result<(), DriverError> {
        let owners = who_asks::owners();
        let begin = format!("{FIRST} {PATH}; {owners}; SAVEPOINT safe_run_settings; {SETTINGS}");
        let mut rows = self.client.simple_query(&begin).await?.into_iter().filter_map(text_row);
        let first = rows.next().unwrap_or_default();
        (self.search_path, self.opened) = (text(&first, 0), text(&first, 1));
        if rows.next().is_none() {
            return Ok(());
        }
        // Back to where it may be written.
        let make = format!(
            "ROLLBACK TO SAVEPOINT safe_run_settings; {}; {}; {SETTINGS}",
            as_owner::create_for_all_sql(&owners),
            as_owner::MADE
        );
        let made = match self.client.simple_query(&make).await {
            Err(error) if as_owner::can_not_be_made(error.code().map(|code| code.code())) => {
                let again = format!("ROLLBACK TO SAVEPOINT safe_run_settings; {SETTINGS}");
                return self.client.batch_execute(&again).await;
            }
            made => made?,
        };
        self.owners = made.into_iter().filter_map(text_row).map(|row| number(&row, 0)).collect();
        Ok(())
    }

    async fn give_up<T>(self, error: Error) -> Result<T> {
        self.close().await?;
        Err(error)
    }

    /// Puts the session back into the state in which it was found.
    pub async fn close(self) -> Result<()> {
        let back = if self.owns_transaction {
            "ROLLBACK"
        } else {
            "ROLLBACK TO SAVEPOINT safe_run_checks; RELEASE SAVEPOINT safe_run_checks"
        };
        // The clock's text may have been rounded.
        let since = format!(
            "pg_catalog.to_timestamp({}::pg_catalog.float8 OPERATOR(pg_catalog.-) 0.000002::pg_catalog.float8)",
            self.opened
        );
        let sql = match self.owners.is_empty() {
            true => back.to_owned(),
            false => format!("{back}; {}", as_owner::forget_prepared_sql(&since)),
        };
        self.client
            .batch_execute(&sql)
            .await
            .map_err(|error| Error::postgres("could not leave the checks' savepoint", error))
    }

    /// The `search_path` that sessions of this role normally have.
    pub fn own_search_path(&self) -> String {
        self.search_path.clone()
    }

    /// Who may ask about what.
    pub async fn standings(&self) -> Result<Standings> {
        Standings::read(self.client, self.owners.clone()).await
    }

    /// Runs `sql`, one statement, in a savepoint of its own.
    ///
    /// The outer result is an error when the run cannot go on: connection lost, query cancelled by a person.
    pub async fn query(&self, sql: &str) -> Result<Answer> {
        self.ask(0, &Question::plain(sql.to_owned())).await
    }

    /// Asks `question` about a table of `size_bytes`, in a savepoint of its own, as whoever has the right to.
    pub async fn ask(&self, size_bytes: i64, question: &Question) -> Result<Answer> {
        let parallel = if self.parallel_workers > 0 && size_bytes >= PARALLEL_FROM_BYTES {
            format!(
                "SET LOCAL max_parallel_workers_per_gather = {}; SET LOCAL parallel_setup_cost = 0; \
                 SET LOCAL parallel_tuple_cost = 0; SET LOCAL min_parallel_table_scan_size = 0;",
                self.parallel_workers
            )
        } else {
            String::new()
        };
        let rows = if parallel.is_empty() { Rows::InOrder } else { Rows::InAnyOrder };
        let asked = match asked(question, rows) {
            Ok(asked) => asked,
            Err(refused) => return Ok(Err(refused)),
        };
        // One round trip. On an error the server skips the rest, so the savepoint is still there to roll back to.
        let batch = format!(
            "SAVEPOINT safe_run_check;{parallel}{asked}\
             ROLLBACK TO SAVEPOINT safe_run_check; RELEASE SAVEPOINT safe_run_check"
        );
        match self.client.simple_query(&batch).await {
            Ok(messages) => {
                let rows = messages.into_iter().filter_map(text_row).collect();
                Ok(Ok(answered(question, rows)?))
            }
            Err(error) => self.leave_refused(error).await.map(Err),
        }
    }

    /// The rows of several queries in one round trip, each undone before the next one, with its settings: none sees
    /// anything of another. For small tables: no parallel workers.
    ///
    /// `None`: the server refused one of them, and there is no answer at all; each has to be asked alone.
    pub async fn query_many(&self, questions: &[Question]) -> Result<Option<Vec<Vec<TextRow>>>> {
        let mut each = String::new();
        for question in questions {
            let Ok(asked) = asked(question, Rows::InOrder) else { return Ok(None) };
            each.push_str(&asked);
            each.push_str("ROLLBACK TO SAVEPOINT safe_run_check;");
        }
        let batch = format!("SAVEPOINT safe_run_check;{each}RELEASE SAVEPOINT safe_run_check");
        let messages = match self.client.simple_query(&batch).await {
            Ok(messages) => messages,
            Err(error) => return self.leave_refused(error).await.map(|_| None),
        };
        // Settings and savepoints give no rows, and describe none.
        let mut answers: Vec<Vec<TextRow>> = Vec::with_capacity(questions.len());
        for message in messages {
            if matches!(message, SimpleQueryMessage::RowDescription(_)) {
                answers.push(Vec::new());
            } else if let (Some(row), Some(rows)) = (text_row(message), answers.last_mut()) {
                rows.push(row);
            }
        }
        if answers.len() != questions.len() {
            return Ok(None);
        }
        let answers = questions.iter().zip(answers).map(|(question, rows)| answered(question, rows));
        answers.collect::<Result<_>>().map(Some)
    }

    /// After a refused query: back to before it. An error when the run cannot go on.
    async fn leave_refused(&self, error: DriverError) -> Result<RefusedQuery> {
        let error = Error::postgres("a check failed", error);
        let refused = match error.sqlstate() {
            // query_canceled, operator intervention, lost connection: the run has to stop
            None => return Err(error),
            Some(code) if code.starts_with("57") || code.starts_with("08") => return Err(error),
            Some(code) => RefusedQuery {
                sqlstate: code.to_owned(),
                message: error.message().replacen("a check failed: ", "", 1),
            },
        };
        let failed = |error| Error::postgres("could not leave a check's savepoint", error);
        let undo = "ROLLBACK TO SAVEPOINT safe_run_check; RELEASE SAVEPOINT safe_run_check";
        match self.client.batch_execute(undo).await.map_err(failed) {
            Ok(()) => {}
            // The message could not even be read, and its savepoint was never made: back to the pass's own.
            Err(error) if error.sqlstate() == Some("3B001") => {
                let undo = format!("ROLLBACK TO SAVEPOINT safe_run_checks; {SETTINGS}");
                self.client.batch_execute(&undo).await.map_err(failed)?;
            }
            Err(error) => return Err(error),
        }
        Ok(refused)
    }

    /// Lists what `check` has to look at. If the server refuses, the whole check is recorded as skipped.
    pub async fn catalog(&self, check: CheckKind, sql: &str) -> Result<Vec<TextRow>> {
        Ok(self.query(sql).await?.unwrap_or_else(|refused| {
            self.refused.lock().unwrap_or_else(PoisonError::into_inner).push(Skipped {
                check,
                object: WHOLE_CHECK.to_owned(),
                why: refused.message,
                counts_for_strict: true,
            });
            Vec::new()
        }))
    }

    /// [`Self::catalog`] for a state that is compared with another one: `None` if it could not be read.
    pub async fn state(&self, check: CheckKind, sql: &str) -> Result<Option<Vec<TextRow>>> {
        let known = self.refused.lock().unwrap_or_else(PoisonError::into_inner).len();
        let rows = self.catalog(check, sql).await?;
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner).len() > known;
        Ok((!refused).then_some(rows))
    }

    /// The checks that [`Self::catalog`] recorded as skipped.
    pub fn take_refused(&self) -> Vec<Skipped> {
        std::mem::take(&mut self.refused.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A query on the catalog without which nothing can be checked: if it fails, the pass fails.
    pub async fn required(&self, what: &str, sql: &str) -> Result<Vec<TextRow>> {
        self.query(sql)
            .await?
            .map_err(|refused| Error::failed(format!("could not read {what}: {}", refused.message)))
    }
}

/// The statements of a question: its settings, and the query as whoever has the right to ask it.
fn asked(question: &Question, rows: Rows) -> Result<String, RefusedQuery> {
    let Question { settings, sql, path, rights } = question;
    Ok(match rights {
        Rights::Session => {
            let path = path.as_deref().map_or(String::new(), |path| {
                let path = if is_empty_path(path) { "''" } else { path };
                format!("SET LOCAL search_path = {path};")
            });
            format!("{settings}{path}\n{sql}\n;")
        }
        Rights::Owner(owner, _) => {
            let path = path.as_deref().map_or(OWN_PATH, |path| if is_empty_path(path) { "" } else { path });
            format!("{settings}\n{};", owner.query_sql(sql, path, rows))
        }
        // insufficient_privilege
        Rights::Nobody(why) => {
            return Err(RefusedQuery { sqlstate: "42501".to_owned(), message: why.clone() });
        }
    })
}

/// An empty path is printed as `""`, or as nothing since 19; SET takes neither.
fn is_empty_path(path: &str) -> bool {
    matches!(path.trim(), "" | "\"\"")
}

/// The rows of an answer, whoever asked.
fn answered(question: &Question, rows: Vec<TextRow>) -> Result<Vec<TextRow>> {
    match question.rights {
        Rights::Owner(..) => rows.iter().map(|row| as_owner::fields(&text(row, 0))).collect(),
        _ => Ok(rows),
    }
}

fn text_row(message: SimpleQueryMessage) -> Option<TextRow> {
    match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
        }
        _ => None,
    }
}

/// Column `column` of `row`; NULL reads as the empty string.
pub(super) fn text(row: &TextRow, column: usize) -> String {
    row.get(column).cloned().flatten().unwrap_or_default()
}

/// Column `column` of `row` as a number; NULL reads as 0.
pub(super) fn number<T: std::str::FromStr + Default>(row: &TextRow, column: usize) -> T {
    row.get(column).and_then(Option::as_deref).and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Column `column` of `row` as a boolean; NULL reads as false.
pub(super) fn flag(row: &TextRow, column: usize) -> bool {
    row.get(column).and_then(Option::as_deref).is_some_and(|text| text == "t" || text == "true")
}
