//! What pg_restore says on its error output, taken apart.

/// One error of pg_restore: the server's message and the statement that caused it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreError {
    /// The number of that entry in `pg_restore --list`.
    pub dump_id: Option<u32>,
    /// The archive entry it came from, such as `INDEX orders_user_id_idx`, when pg_restore named it.
    pub entry: Option<String>,
    /// The server's message.
    pub message: String,
    /// The statement.
    pub statement: Option<String>,
}

/// Takes pg_restore's error output apart. Lines that are neither an error nor part of one are returned as they are.
pub fn parse_restore_errors(stderr: &str) -> (Vec<RestoreError>, Vec<String>) {
    /// What a line without a prefix goes on with: names and statements have newlines in them.
    #[derive(PartialEq)]
    enum Within {
        Nothing,
        Remark,
        Message,
        Statement,
    }
    let mut errors: Vec<RestoreError> = Vec::new();
    let mut others = Vec::new();
    let mut entry = None;
    let mut dump_id = None;
    let mut within = Within::Nothing;
    // Not `lines`, which takes a carriage return for a part of the line's end: it may be in the middle of a name.
    for line in stderr.strip_suffix('\n').unwrap_or(stderr).split('\n').filter(|_| !stderr.is_empty()) {
        if let Some(rest) = line.strip_prefix("pg_restore: from TOC entry ") {
            dump_id = rest.split(';').next().and_then(|id| id.parse().ok());
            // `215; 1259 16395 TABLE orders shop`: the numbers say nothing to a person.
            let name: Vec<&str> = rest.split(' ').skip(3).collect();
            entry = Some(name.join(" "));
            within = Within::Remark;
        } else if line.starts_with("pg_restore: while ")
            || line.starts_with("pg_restore: warning: errors ignored")
        {
            within = Within::Remark;
        } else if let Some(message) = line.strip_prefix("pg_restore: error: ") {
            let message = message.strip_prefix("could not execute query: ").unwrap_or(message);
            let message = message.strip_prefix("ERROR:  ").unwrap_or(message);
            errors.push(RestoreError {
                dump_id,
                entry: entry.clone(),
                message: message.to_owned(),
                statement: None,
            });
            within = Within::Message;
        } else if line.starts_with("pg_restore: ") {
            // What --verbose says before each entry ends the statement of the one before.
            within = Within::Remark;
            others.push(line.to_owned());
        } else if let Some(last) = errors.last_mut()
            && let Some(statement) = line.strip_prefix("Command was: ")
            && within == Within::Message
        {
            last.statement = Some(statement.to_owned());
            within = Within::Statement;
        } else {
            match (&within, errors.last_mut()) {
                (Within::Statement, Some(RestoreError { statement: Some(statement), .. })) => {
                    statement.push('\n');
                    statement.push_str(line);
                }
                // DETAIL, HINT and CONTEXT lines of the server belong to its error.
                (Within::Message, Some(last)) => {
                    last.message.push('\n');
                    last.message.push_str(line);
                }
                (Within::Remark, _) => {}
                _ => others.push(line.to_owned()),
            }
        }
    }
    (errors, others)
}

/// Whether an error is one of the settings that a newer client writes and an older server does not know. Exactly
/// these, and nothing else, may fail.
pub fn is_known_setting_error(error: &RestoreError) -> bool {
    error.message == "unrecognized configuration parameter \"transaction_timeout\""
        && error.statement.as_deref().map(str::trim_end) == Some("SET transaction_timeout = 0;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_pg_restore_are_taken_apart() {
        let stderr = "pg_restore: while PROCESSING TOC:\n\
            pg_restore: from TOC entry 3456; 2606 16401 FK CONSTRAINT orders orders_user_fk shop\n\
            pg_restore: error: could not execute query: ERROR:  insert or update on table \"orders\" violates\n\
            DETAIL:  Key (user_id)=(3) is not present in table \"users\".\n\
            Command was: ALTER TABLE ONLY public.orders\n    ADD CONSTRAINT x;\n\n\n\
            pg_restore: warning: errors ignored on restore: 1\n";
        let (errors, others) = parse_restore_errors(stderr);
        assert_eq!(errors.len(), 1);
        assert!(others.is_empty(), "{others:?}");
        assert_eq!(errors[0].entry.as_deref(), Some("FK CONSTRAINT orders orders_user_fk shop"));
        assert!(errors[0].message.ends_with("is not present in table \"users\"."));
        assert!(
            errors[0].statement.as_ref().is_some_and(|statement| statement.contains("ADD CONSTRAINT x;"))
        );
    }

    #[test]
    fn a_carriage_return_in_a_name_is_kept() {
        let stderr = "pg_restore: error: could not execute query: ERROR:  x\n\
            Command was: ALTER TABLE ONLY public.t\n    ADD CONSTRAINT \"odd\r\nname\r\" FOREIGN KEY (i);\n\n";
        let (errors, _) = parse_restore_errors(stderr);
        assert!(
            errors[0].statement.as_ref().is_some_and(|text| text.contains("\"odd\r\nname\r\" FOREIGN KEY"))
        );
    }

    proptest::proptest! {
        #[test]
        fn whatever_pg_restore_says_no_error_line_is_lost(
            lines in proptest::collection::vec(
                proptest::prop_oneof![
                    proptest::strategy::Just("pg_restore: error: could not execute query: ERROR:  x".to_owned()),
                    proptest::strategy::Just("pg_restore: from TOC entry 1; 2 3 TABLE t".to_owned()),
                    proptest::strategy::Just("Command was: SELECT 1;".to_owned()),
                    ".{0,30}",
                ],
                0..12,
            )
        ) {
            let (errors, _) = parse_restore_errors(&lines.join("\n"));
            let said = lines.join("\n").split('\n').filter(|line| line.starts_with("pg_restore: error: ")).count();
            proptest::prop_assert_eq!(errors.len(), said);
        }
    }

    #[test]
    fn only_the_known_setting_may_fail() {
        let error = |message: &str, statement: &str| RestoreError {
            dump_id: None,
            entry: None,
            message: message.into(),
            statement: Some(statement.into()),
        };
        let unknown = "unrecognized configuration parameter \"transaction_timeout\"";
        assert!(is_known_setting_error(&error(unknown, "SET transaction_timeout = 0;\n")));
        assert!(!is_known_setting_error(&error(unknown, "ALTER DATABASE x SET transaction_timeout = 0;")));
        assert!(!is_known_setting_error(&error("unrecognized configuration parameter \"x\"", "SET x = 0;")));
    }
}
