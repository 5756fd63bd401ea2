//! Statements of an archive that have another form here: what the server refuses as it is written, and takes otherwise.

use common::postgres::Session;

use crate::restore_errors::RestoreError;

/// Why a foreign key that existing rows violate is left out.
pub(super) fn not_valid_refused(session: &Session, why: &str) -> String {
    format!(
        "left out, because old orphans violate it and PostgreSQL {} has no NOT VALID foreign keys on partitioned tables: {}",
        session.server_major(),
        why.replace('\n', " ")
    )
}

/// A foreign key that existing rows violate, as a statement that leaves those rows alone.
///
/// Rows that were orphans in the source, where nothing complained, must not make a snapshot unrestorable.
pub(super) fn not_valid_statement(error: &RestoreError) -> Option<String> {
    let statement = error.statement.as_deref()?.trim_end().strip_suffix(';')?;
    // Not the entry's name: with several jobs that line may belong to another worker's error.
    let is_foreign_key = statement.starts_with("ALTER TABLE ")
        && statement.contains("\n    ADD CONSTRAINT ")
        && statement.contains(" FOREIGN KEY (");
    // pg_restore gives no SQLSTATE; the C locale's text of 23503 is the only sign there is.
    let is_violation = error.message.contains("violates foreign key constraint");
    (is_foreign_key && is_violation).then(|| format!("{statement} NOT VALID"))
}

/// The identity column of an unlogged table, as servers before 15 understand it.
///
/// Their sequences are always logged. pg_dump 15 and later says so where the table is not, in a word that these servers
/// do not know.
pub(super) fn without_logged(error: &RestoreError) -> Option<String> {
    const LOGGED: &str = "\n    LOGGED\n";
    let statement = error.statement.as_deref()?;
    let is_refused = error.message.starts_with("syntax error at or near \"LOGGED\"");
    let is_identity = statement.starts_with("ALTER TABLE ") && statement.contains(" ADD GENERATED ");
    // The last one: names come before it, numbers after.
    let (before, after) = statement.rsplit_once(LOGGED)?;
    (is_refused && is_identity).then(|| format!("{before}\n{after}"))
}

/// A subscription as servers before 16 understand it.
///
/// There all of them do what this option says, and pg_dump 16 and later writes it out.
pub(super) fn without_run_as_owner(error: &RestoreError) -> Option<String> {
    let statement = error.statement.as_deref()?;
    let is_refused = error.message.starts_with("unrecognized subscription parameter: \"run_as_owner\"");
    // The last one: what is connected to, and names, come before the options.
    let (before, after) = statement.rsplit_once(", run_as_owner = true")?;
    (is_refused && statement.starts_with("CREATE SUBSCRIPTION ")).then(|| format!("{before}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_older_servers_do_not_know_of_a_subscription_is_left_out_and_nothing_else() {
        let error = |message: &str, statement: &str| RestoreError {
            message: message.to_owned(),
            statement: Some(statement.to_owned()),
            dump_id: None,
            entry: None,
        };
        let refused = "unrecognized subscription parameter: \"run_as_owner\"";
        let sql = "CREATE SUBSCRIPTION \"a, run_as_owner = true\" CONNECTION 'x' PUBLICATION p WITH (connect = false, slot_name = 's', run_as_owner = true, origin = none);";
        assert_eq!(
            without_run_as_owner(&error(refused, sql)).unwrap(),
            "CREATE SUBSCRIPTION \"a, run_as_owner = true\" CONNECTION 'x' PUBLICATION p WITH (connect = false, slot_name = 's', origin = none);"
        );
        assert_eq!(without_run_as_owner(&error("syntax error", sql)), None);
        assert_eq!(
            without_run_as_owner(&error(refused, "COMMENT ON SUBSCRIPTION s IS ', run_as_owner = true'")),
            None
        );
    }
}
