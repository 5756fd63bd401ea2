//! Rows that refer to a row that does not exist.
//!
//! The semantics are those of PostgreSQL's own check when a constraint is added. It is the only thing that finds
//! orphans under a *validated* constraint: rows written under `session_replication_role=replica` or with the internal
//! triggers disabled. The repair is shown, never run.

use common::{
    error::Result,
    ident::{QualifiedName, printable, with_suffix},
    postgres::{
        sql::FOREIGN_KEYS,
        who_asks::{Rights, Standings},
    },
};

use crate::{
    catalogue::CheckKind,
    model::{RuleKey, Severity},
    outcome::Outcome,
    question::Question,
    session::{Answer, CheckSession, flag, number, text},
    violations::{self, Subject},
};

/// One foreign key.
#[derive(Debug)]
pub(super) struct ForeignKey {
    pub key: RuleKey,
    pub definition: String,
    pub table: u32,
    pub referenced: u32,
    enforced: bool,
    table_name: QualifiedName,
    referenced_name: QualifiedName,
    columns: String,
    referenced_columns: String,
    key_sql: String,
    orphans_sql: String,
    pub rights: Rights,
}

/// Every foreign key of the database.
pub(super) async fn list(session: &CheckSession<'_>, standings: &Standings) -> Result<Vec<ForeignKey>> {
    let rows = session.catalog(CheckKind::ForeignKeys, FOREIGN_KEYS).await?;
    Ok(rows
        .iter()
        .map(|row| ForeignKey {
            key: RuleKey {
                check: CheckKind::ForeignKeys,
                object_oid: number(row, 1),
                rule_oid: number(row, 0),
                rule: text(row, 3),
            },
            definition: text(row, 6),
            table: number(row, 1),
            referenced: number(row, 2),
            enforced: flag(row, 4),
            table_name: QualifiedName::new(text(row, 7), text(row, 8)),
            referenced_name: QualifiedName::new(text(row, 9), text(row, 10)),
            columns: text(row, 11),
            referenced_columns: text(row, 12),
            key_sql: text(row, 13),
            orphans_sql: text(row, 14),
            rights: standings.of(number(row, 1)).and(&standings.of(number(row, 2))),
        })
        .collect())
}

impl ForeignKey {
    /// Counts the orphans.
    pub fn question(&self) -> Question {
        Question::of(&self.rights, format!("SELECT count(*) {}", self.orphans_sql))
    }

    /// Fetches their keys, only if there are any.
    pub async fn go_on(
        &self,
        session: &CheckSession<'_>,
        size_bytes: i64,
        count: Answer,
        out: &mut Outcome,
    ) -> Result<()> {
        let grouped = format!("SELECT {} AS k, count(*) AS n {} GROUP BY 1", self.key_sql, self.orphans_sql);
        let question = Question::of(&self.rights, grouped);
        let fetched = violations::fetch_if_any(session, size_bytes, count, question).await?;
        violations::settle(out, &self.key, &self.table_name, fetched, || self.subject());
        Ok(())
    }

    /// Counts the orphans among the rows at `places`.
    pub fn orphans_among(&self, places: &str) -> String {
        format!("SELECT count(*) {} AND fk.ctid = ANY ({places})", self.orphans_sql)
    }

    /// The keys that the rows at `places` of the referenced table have, which is no partitioned one.
    pub fn referenced_among(&self, places: &str) -> String {
        format!(
            "SELECT ROW({})::text, 1 FROM ONLY {} WHERE ctid = ANY ({places})",
            self.referenced_columns, self.referenced_name
        )
    }

    fn subject(&self) -> Subject<'_> {
        let side = |table: &QualifiedName, columns: &str| {
            if self.key_sql.starts_with("ROW(") {
                format!("{}.({})", table.short(), printable(columns))
            } else {
                format!("{}.{}", table.short(), printable(columns))
            }
        };
        let mut place = format!(
            "in {} -> {}",
            side(&self.table_name, &self.columns),
            side(&self.referenced_name, &self.referenced_columns)
        );
        if !self.enforced {
            place.push_str(", a constraint that is NOT ENFORCED");
        }
        Subject {
            key: &self.key,
            object: self.table_name.short(),
            severity: if self.enforced { Severity::Failure } else { Severity::Note },
            definition: &self.definition,
            one: "orphan",
            many: "orphans",
            place,
            repair_sql: Some(self.repair_sql()),
        }
    }

    /// Moves the orphans aside. Both statements select the same rows only in one transaction at one snapshot.
    fn repair_sql(&self) -> String {
        let aside = QualifiedName::new(
            self.table_name.schema.clone(),
            with_suffix(self.table_name.name.as_str(), "_orphans").as_str(),
        );
        let from = &self.orphans_sql;
        format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ;\n\
             CREATE TABLE {aside} AS SELECT fk.* {from};\n\
             DELETE {from};\n\
             COMMIT;"
        )
    }
}
