//! The one transaction that changes the live database: rows in, rows compared, COMMIT with a known outcome.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Mutex, PoisonError},
};

use common::{
    Error, ErrorKind, Progress, QualifiedName, Result,
    catalog::Table,
    interrupt,
    postgres::{
        ConnectionSettings, Session, copy, lsn_columns,
        names::{self, Schemas},
        trust::{self, Others},
    },
    repository::StoredSnapshot,
    snapshot::{
        RowHash,
        copy_sql::{BlockRange, copy_in_statement, copy_out_statement},
        manifest::TableData,
    },
};

use crate::lent_paths::{self, LentPaths};

/// A transaction that is open in a session of its own. Dropped, or with the process gone, the server takes all of it back.
#[derive(Debug)]
pub struct LiveTransaction {
    session: Session,
    id: String,
    /// Functions that have a search path until it commits.
    lent: Vec<String>,
    /// Of the schemas when it began: its statements find tables by their names.
    schemas: Schemas,
    /// Those of them that its statements may name. What others do with the rest meanwhile is their own affair.
    named: Mutex<HashSet<String>>,
}

impl LiveTransaction {
    /// Begins.
    pub async fn begin(settings: &ConnectionSettings) -> Result<Self> {
        let session = settings.connect().await?;
        let failed = |source| Error::postgres("could not begin a transaction in the live database", source);
        session.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE").await.map_err(failed)?;
        let row = session
            .query_one("SELECT pg_catalog.pg_current_xact_id()::pg_catalog.text", &[])
            .await
            .map_err(failed)?;
        let schemas = Schemas::seen_by(&session).await?;
        Ok(Self { id: row.get(0), lent: Vec::new(), session, schemas, named: Mutex::default() })
    }

    /// Lends search paths to functions. Nobody else sees that: they are taken back before the transaction commits.
    pub async fn lend(&mut self, paths: &LentPaths) -> Result<()> {
        self.lent = paths.lend_within(&self.session).await?;
        Ok(())
    }

    /// Its session.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Runs statements.
    pub async fn run(&self, what: &str, statements: &str) -> Result<()> {
        interrupt::check()?;
        self.note(statements);
        self.session.batch_execute(statements).await.map_err(|source| Error::postgres(what, source))
    }

    /// Remembers which schemas a text may name. A name that is written in more than one way counts always.
    fn note(&self, text: &str) {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        for name in self.schemas.names() {
            if !named.contains(name) && (name.contains(['"', '\'', '\\']) || text.contains(name)) {
                named.insert(name.to_owned());
            }
        }
    }

    /// Loads the chunks of a table into `target`, which has its columns, and compares rows and content.
    ///
    /// # Errors
    /// Damaged when a chunk is; the transaction can only be given up then.
    pub async fn load(
        &self,
        snapshot: &StoredSnapshot,
        data: &TableData,
        target: &QualifiedName,
        through: Option<&QualifiedName>,
        progress: &Progress,
    ) -> Result<()> {
        let manifest = &snapshot.manifest;
        let mut table = data.table.clone();
        table.name = target.clone();
        table.load_into = through.cloned();
        let statement = copy_in_statement(&table, &manifest.database.encoding);
        self.note(&statement);
        for chunk in data.chunks.iter().filter(|chunk| chunk.content.rows > 0) {
            interrupt::check()?;
            let path = snapshot.path(&chunk.path);
            let rows = copy::in_from_file(
                &self.session,
                &statement,
                &path,
                manifest.codec,
                &chunk.content,
                progress,
            )
            .await
            .map_err(|error| error.context(data.table.name.short()))?;
            if rows != chunk.content.rows {
                return Err(Error::failed(format!(
                    "{}: the server took {rows} rows instead of {}",
                    data.table.name.short(),
                    chunk.content.rows
                )));
            }
            progress.advance(0, rows);
        }
        Ok(())
    }

    /// Reads tables back and compares them with the manifest. Those with the same key are compared together: their rows may
    /// lie in other partitions now.
    pub async fn compare(
        &self,
        snapshot: &StoredSnapshot,
        tables: &[(&TableData, QualifiedName)],
        progress: &Progress,
    ) -> Result<()> {
        let encoding = &snapshot.manifest.database.encoding;
        let mut sums: BTreeMap<QualifiedName, [(u64, RowHash); 2]> = BTreeMap::new();
        let target =
            |(data, name): &(&TableData, QualifiedName)| Table { name: name.clone(), ..data.table.clone() };
        let mut targets: Vec<Table> = tables.iter().map(target).collect();
        trust::admit_by_name(&self.session, targets.iter_mut(), Others::MayInterfere).await?;
        lsn_columns::mark(&self.session, snapshot.manifest.server.major(), targets.iter_mut()).await?;
        for ((data, _), table) in tables.iter().zip(&targets) {
            interrupt::check()?;
            let statement = copy_out_statement(table, BlockRange::ALL, encoding)?;
            self.note(&statement);
            let (rows, hash) =
                copy::hash_rows_of(&self.session, &statement, &table.lsn_fields, progress).await?;
            let key = data.table.load_into.clone().unwrap_or_else(|| data.table.name.clone());
            let [want, have] = sums.entry(key).or_default();
            want.0 += data.rows();
            want.1.merge(data.row_hash());
            have.0 += rows;
            have.1.merge(hash);
        }
        for (name, [want, have]) in &sums {
            if want != have {
                return Err(differs(name, want.0, have.0));
            }
        }
        Ok(())
    }

    /// Why it did not come to its end: `error`, or where a schema was renamed meanwhile, that. What a statement then met under a name
    /// was another table.
    pub async fn because(self, settings: &ConnectionSettings, error: Error) -> Error {
        if !matches!(error.kind(), ErrorKind::Failed | ErrorKind::Refused) {
            return error;
        }
        let Ok(now) = Schemas::now(settings).await else { return error };
        match self.same_schemas(&now, self.schemas.names()) {
            Err(renamed) => names::changed(format!("{} ({})", renamed.message(), error.message())),
            Ok(()) => error,
        }
    }

    fn same_schemas(&self, now: &Schemas, names: HashSet<&str>) -> Result<()> {
        self.schemas.check_same(now, &names.into_iter().filter(|name| !name.starts_with("pg_")).collect())
    }

    /// Commits, if the names of tables mean what they meant when it began.
    ///
    /// # Errors
    /// Busy where a schema was renamed or swapped meanwhile: nothing is changed then.
    /// [`ErrorKind::Unknown`] only when the connection broke meanwhile and the outcome can't be read.
    pub async fn commit(self, settings: &ConnectionSettings) -> Result<()> {
        interrupt::check()?;
        lent_paths::take_back_in(&self.session, &self.lent).await?;
        let now = Schemas::seen_by(&self.session).await?;
        let named = self.named.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.same_schemas(&now, named.iter().map(String::as_str).collect())?;
        common::fault::point("parts.before-commit");
        let _undo = interrupt::begin_undo().await;
        match self.session.batch_execute("COMMIT").await {
            Ok(()) => {
                // Committed: how the session ends changes nothing any more.
                let _ = self.session.close().await;
                Ok(())
            }
            Err(source) => {
                let error = Error::postgres("could not commit", source);
                if !self.session.is_closed() {
                    return Err(error);
                }
                match outcome(settings, &self.id).await {
                    Ok(Some(true)) => Ok(()),
                    Ok(Some(false)) => Err(error),
                    Ok(None) => Err(error
                        .with_kind(ErrorKind::Unknown)
                        .context("it is unknown whether the tables were restored")),
                    Err(second) => Err(error
                        .with_kind(ErrorKind::Unknown)
                        .context(format!("it is unknown whether the tables were restored ({second})"))),
                }
            }
        }
    }
}

/// Rows or content differ.
pub fn differs(name: &QualifiedName, want: u64, have: u64) -> Error {
    let what = if want == have {
        format!("{}: {have} rows, but their content differs from the snapshot", name.short())
    } else {
        format!("{}: {have} rows instead of the snapshot's {want}", name.short())
    };
    Error::failed(what).with_hint(
        "A rule, trigger or type of the database changes rows as they are written. Restore the table into a database of its \
         own (--into NAME) and compare.",
    )
}

/// What became of a transaction: committed or not, or nothing while it is still running.
async fn outcome(settings: &ConnectionSettings, id: &str) -> Result<Option<bool>> {
    let session = settings.connect().await?;
    let row = session
        .query_one("SELECT pg_catalog.pg_xact_status($1::pg_catalog.text::pg_catalog.xid8)", &[&id])
        .await
        .map_err(|source| Error::postgres("could not ask for the fate of the transaction", source))?;
    Ok(match row.get::<_, Option<String>>(0).as_deref() {
        Some("committed") => Some(true),
        Some("aborted") => Some(false),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_came_out_otherwise_are_counted_and_told_with_the_next_step() {
        let name = QualifiedName::new("public", "t");
        let content = differs(&name, 3, 3);
        assert_eq!(content.message(), "t: 3 rows, but their content differs from the snapshot");
        assert_eq!(differs(&name, 3, 2).message(), "t: 2 rows instead of the snapshot's 3");
        assert_eq!(
            content.hint(),
            Some(
                "A rule, trigger or type of the database changes rows as they are written. Restore the table into a database of its \
                 own (--into NAME) and compare."
            )
        );
    }
}
