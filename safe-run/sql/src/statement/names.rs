//! Names as PostgreSQL reads them, and the functions whose effects a ROLLBACK does not undo.

use super::TableName;
use crate::token::{Token, TokenKind, tokens};

use common::ident::MAX_IDENT_BYTES;

/// Reads `[database.][schema.]name`: unquotes, folds unquoted parts to lower case, cuts at 63 bytes.
pub fn parse(text: &str) -> TableName {
    let mut parts: Vec<String> = tokens(text, 0)
        .map_while(Result::ok)
        .filter(|token| token.is_significant() && !token.is_symbol('.'))
        .map(|token| part(&token, text))
        .collect();
    let name = parts.pop().unwrap_or_default();
    TableName { schema: parts.pop(), name }
}

fn part(token: &Token, text: &str) -> String {
    let text = token.text(text);
    let mut name = match token.kind {
        TokenKind::QuotedIdent if text.starts_with('"') => {
            text.get(1..text.len() - 1).unwrap_or_default().replace("\"\"", "\"")
        }
        TokenKind::Word => text.to_ascii_lowercase(),
        _ => text.to_owned(),
    };
    let mut end = name.len().min(MAX_IDENT_BYTES);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.truncate(end);
    name
}

/// What calling `function` does that stays after a ROLLBACK, as a phrase.
///
/// `nextval` is left out: every INSERT with a default moves a sequence, and gaps in sequences are harmless.
pub(crate) fn outside_transaction(function: &TableName) -> Option<String> {
    let name = function.name.as_str();
    let what = match name {
        "setval" => "moves a sequence",
        "lo_export" | "pg_file_write" | "pg_file_unlink" | "pg_file_rename" => "writes a file on the server",
        "pg_terminate_backend" | "pg_cancel_backend" => "ends another session or its query",
        "pg_reload_conf"
        | "pg_rotate_logfile"
        | "pg_promote"
        | "pg_switch_wal"
        | "pg_create_restore_point" => "acts on the whole server",
        "pg_advisory_lock"
        | "pg_advisory_lock_shared"
        | "pg_try_advisory_lock"
        | "pg_try_advisory_lock_shared" => "takes a lock that the session keeps",
        "pg_create_physical_replication_slot"
        | "pg_create_logical_replication_slot"
        | "pg_copy_physical_replication_slot"
        | "pg_copy_logical_replication_slot"
        | "pg_drop_replication_slot"
        | "pg_replication_slot_advance" => "changes a replication slot",
        "http" | "http_get" | "http_post" | "http_put" | "http_patch" | "http_delete" => {
            "calls another system"
        }
        _ if name.starts_with("dblink") => "works in another database session",
        _ if name.starts_with("pg_stat_reset") => "resets statistics",
        _ if matches!(function.schema.as_deref(), Some("aws_s3" | "aws_lambda" | "net")) => {
            "calls another system"
        }
        _ => return None,
    };
    Some(format!("{name} {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_folded_unquoted_and_cut_as_the_server_does() {
        let name = |text: &str| parse(text).to_string();
        assert_eq!(name("Orders"), "orders");
        assert_eq!(name(r#" "Sh""op" . /* c */ Orders "#), "Sh\"op.orders");
        assert_eq!(name("db.s.t"), "s.t");
        assert_eq!(name(&"ü".repeat(40)).len(), 62);
    }
}
