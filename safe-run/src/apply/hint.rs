//! What to do about the errors that people meet in migrations.

use sql::layout::Format;

/// How a file of this format says that it runs without a transaction.
fn without_transaction(format: Format) -> &'static str {
    match format {
        Format::SafeRun => "with `-- safe-run: no-transaction` at its top",
        Format::Sqlx => "with `-- no-transaction` as its first line",
        Format::Dbmate => "with `-- migrate:up transaction:false`",
        Format::Goose => "with `-- +goose NO TRANSACTION` at its top",
        Format::Flyway => "with `executeInTransaction=false` in its .conf",
        Format::Diesel => "with `run_in_transaction = false` in its metadata.toml",
        Format::GolangMigrate | Format::Refinery | Format::Prisma => "and alone in it",
    }
}

/// What to do about the errors that people meet in migrations, where the server itself gives no hint.
pub(super) fn hint_for(sqlstate: &str, format: Format) -> Option<String> {
    let hint = match sqlstate {
        // What is known to run only outside of one did not come here: it hides in a DO block, a function, a procedure.
        "25001" => format!(
            "What runs only outside of a transaction can't stand in a function or a DO block: write it by itself, into a \
             file of its own, {}. SET TRANSACTION has to come before any query.",
            without_transaction(format)
        ),
        "55P03" => "Another session holds a lock that the statement needs. Try again; a longer --lock-timeout waits longer, but not for NOWAIT.".to_owned(),
        "42501" => "Run the migrations as a role that may do this.".to_owned(),
        _ => return None,
    };
    Some(hint)
}
