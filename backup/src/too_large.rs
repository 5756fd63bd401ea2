//! Rows that no server can send: one row's text is at most 1 GB, and a bytea has two characters for each byte. Pure.

use common::Error;

/// The server's own words, which it does not translate: a value would need more memory than one may have.
const ALLOCATION: &str = "invalid memory alloc request size";

/// Whether the server refused to build a row's text because of its length.
fn is_too_large(error: &Error) -> bool {
    match error.sqlstate() {
        // program_limit_exceeded: the buffer of a row.
        Some("54000") => true,
        // internal_error: the text of one value.
        Some("XX000") => error.message().contains(ALLOCATION),
        _ => false,
    }
}

/// Names the tables and the ways out, if that is what happened while they were read.
pub(crate) fn explain(error: Error, mut tables: Vec<String>) -> Error {
    if !is_too_large(&error) || tables.is_empty() {
        return error;
    }
    tables.sort();
    tables.dedup();
    let which = match tables.as_slice() {
        [only] => format!("a row of {only} is"),
        several => format!("a row of one of these tables is: {}; it is", several.join(", ")),
    };
    error.context(format!("{which} too large for the server to send as text")).with_hint(
        "One row's text may have 1 GB, and a bytea takes two bytes of text for each of its own: pg_dump has the same limit. \
         `safe-run --snapshot clone` copies the database as it is stored; `backup create --exclude-table-data TABLE` makes a \
         snapshot without the table's rows.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(sqlstate: &str, message: &str) -> Error {
        Error::failed(message).with_sqlstate(sqlstate)
    }

    #[test]
    fn the_table_and_the_ways_out_are_named_for_a_row_that_is_too_large_and_for_no_other_error() {
        for (sqlstate, message) in [
            ("XX000", "could not copy rows out: invalid memory alloc request size 1200000003"),
            (
                "54000",
                "could not copy rows out: string buffer exceeds maximum allowed length (1073741823 bytes)",
            ),
            ("54000", "could not copy rows out: out of memory"),
        ] {
            let told = explain(error(sqlstate, message), vec!["files".into(), "files".into()]);
            let expected = format!("a row of files is too large for the server to send as text: {message}");
            assert_eq!(told.message(), expected);
            let hint = told.hint().unwrap_or_default();
            assert!(hint.contains("--snapshot clone") && hint.contains("--exclude-table-data"), "{hint}");
        }
        for (sqlstate, message) in
            [("XX000", "cache lookup failed"), ("53200", "out of memory"), ("57014", "canceled")]
        {
            let told = explain(error(sqlstate, message), vec!["files".into()]);
            assert_eq!((told.message(), told.hint()), (message, None));
        }
        let several = explain(error("54000", "x"), vec!["b".into(), "a".into()]);
        assert!(several.message().starts_with("a row of one of these tables is: a, b; it is too large"));
    }
}
