//! What a snapshot does not bring back as it is.

use super::failed;
use crate::{
    Result,
    postgres::{Client, round_trip, sql},
};

/// What a snapshot does not bring back as it is.
pub(super) struct NotKept {
    /// All of it.
    pub(super) lines: Vec<String>,
    /// What a restored database certainly differs by.
    pub(super) differs: Vec<String>,
    /// How many of `differs`, from the first, are a reason for another undo.
    decisive: usize,
}

/// What a database that is restored from a snapshot of this one would certainly differ by, as far as another undo is better then: one
/// sentence each.
///
/// # Errors
/// The catalog can't be read.
pub async fn certain_differences(client: &Client) -> Result<Vec<String>> {
    let mut found = not_kept(client).await?;
    found.differs.truncate(found.decisive);
    Ok(found.differs)
}

pub(super) async fn not_kept(client: &Client) -> Result<NotKept> {
    let row = client.query_one(sql::HARD_TO_KEEP, &[]).await.map_err(failed("what is hard to keep"))?;
    let mut lines = Vec::new();
    let mut add = |column: &str, one: &str, many: &str, rest: &str| {
        let count: i64 = row.get(column);
        if count > 0 {
            let what = if count == 1 { one } else { many };
            lines.push(format!("{count} {what}: {rest}"));
        }
    };
    add(
        "foreign_tables",
        "foreign table",
        "foreign tables",
        "the definition is kept, the remote rows are not",
    );
    add(
        "populated_views",
        "materialized view",
        "materialized views",
        "filled again from the restored tables, so a stale one comes back fresh",
    );
    add(
        "slots",
        "logical replication slot",
        "logical replication slots",
        "a slot belongs to the old database",
    );
    add(
        "prepared",
        "prepared transaction",
        "prepared transactions",
        "what it changed is not part of the snapshot",
    );
    let known = lines.len();
    let mut add = |column: &str, one: &str, many: &str, rest: &str| {
        let count: i64 = row.get(column);
        if count > 0 {
            let what = if count == 1 { one } else { many };
            lines.push(format!("{count} {what}: {rest}"));
        }
    };
    add("subscriptions", "subscription", "subscriptions", "restored disabled and without a replication slot");
    add(
        "family_members",
        "operator or function added to a built-in operator family",
        "operators or functions added to built-in operator families",
        "pg_dump does not keep them",
    );
    add("shell_operators", "shell operator", "shell operators", "pg_dump does not keep them");
    if row.get("in_recovery") {
        add("unlogged", "unlogged table", "unlogged tables", "a standby has no rows of them");
        // nextval() writes its next 32 values to the log at once, and a standby sees only that.
        add("sequences", "sequence", "sequences", "a standby may show each up to 32 numbers ahead");
    }
    let told = round_trip::differences(client).await?;
    let mut differs: Vec<String> = lines.iter().skip(known).chain(&told.differ).cloned().collect();
    let decisive = differs.len();
    differs.extend(told.differ_little.iter().cloned());
    lines.extend(told.differ);
    lines.extend(told.differ_little);
    lines.extend(told.mean_the_same);
    Ok(NotKept { lines, differs, decisive })
}
