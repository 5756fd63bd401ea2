//! Statements that run with the rights of the role that owns an object, and can't get ours back.
//!
//! Who owns a table has written what PostgreSQL evaluates when somebody asks about it: CHECK, domain, index and partition
//! expressions, the functions behind types, casts, operators, views. The planner evaluates immutable functions of
//! predicates and statistics too. All of that runs with the rights of who asks, and who asks here is mostly a superuser.
//!
//! `SET ROLE owner` would be no containment: such code can say RESET ROLE, because the session's user stays what it was.
//! What holds in SQL is a function that is SECURITY DEFINER and belongs to the owner. While it runs, the server has marked
//! the change of the user as local (`SECURITY_LOCAL_USERID_CHANGE`), and SET, RESET and `set_config` of `role` and
//! `session_authorization` are refused at every depth, also in a function's own SET clause (`GUC_NOT_WHILE_SEC_REST`,
//! PostgreSQL 14 to 19; parallel workers inherit the mark). The statement is parsed, planned and run inside of the
//! function, and so is the output of its values: each row comes back as the text of the whole row, which is nobody's code.
//!
//! [`AsOwner::create_sql`] makes such a function in the session's `pg_temp`. Why nobody else can use or change it:
//!
//! - Only its owner and the session's role may call it: what was granted to PUBLIC or by default privileges is taken away.
//!   Else code of one owner could call the function of another.
//! - Its owner may alter it: make it SECURITY INVOKER, and the next call would run as us. So **a function is good for one
//!   call**, and is then rolled back or made anew in the very next message, unless the transaction is read-only from before
//!   the first call until after the last (`SET LOCAL transaction_read_only = on` inside of a savepoint can't be undone in
//!   it, and no DDL runs then), or every call is in a savepoint that is rolled back.
//! - Event triggers don't fire for it where the session may keep them from it.
//!
//! What such code could leave behind in the session, and what shuts it:
//!
//! | | |
//! |---|---|
//! | settings (also timeouts, `client_encoding`, `search_path`), temporary objects, cursors (WITH HOLD too), LISTEN and NOTIFY, deferred triggers, SET CONSTRAINTS | the caller's ROLLBACK TO a savepoint before the call |
//! | COMMIT, ROLLBACK, savepoints of ours | refused by the server inside of a function in a transaction block |
//! | prepared statements: they survive every rollback, and the driver's have names that can be guessed, so `DEALLOCATE s3; PREPARE s3 AS …` would put another statement in the place of one of ours | [`forget_prepared_sql`], before the session prepares or runs a named statement again. Only text statements (`simple_query`) until then |
//! | advisory locks of the session, taken or *released* | nothing can: a session that holds such a lock of ours must not run foreign code, or look for its lock afterwards |
//! | a flood of notices | a session keeps a bounded number of them |
//!
//! A caller whose statements write, and are meant to stay, has no savepoint to roll back to. It must use a session for
//! nothing but the statements of one owner, make the function anew for each call, and close the session afterwards. COMMIT
//! itself runs the queries of cursors WITH HOLD, and before PostgreSQL 18 deferred triggers, with the rights of the session:
//! [`commit`] closes the ones, and refuses where the others could be.
//!
//! Where the function can't be made (a standby or a read-only transaction, a role that may not become the owner, no right to
//! temporary objects, no PL/pgSQL) the statement must not be run in another way: the caller says what it did not look at.

use tokio_postgres::SimpleQueryMessage;

use super::Client;
use crate::{
    Error, Result,
    ident::{literal, printable},
};

/// The path that a statement gets unless the caller names another: nothing but PostgreSQL's own.
pub const OWN_PATH: &str = "pg_catalog, pg_temp";

/// Takes away the statements that SQL has prepared since `since`, an expression of type timestamptz: the caller's
/// `statement_timestamp()` from before the first call. One of ours that lost its name that way is missing, and not replaced.
///
/// A statement of the driver is never touched: it is not "from SQL".
#[must_use]
pub fn forget_prepared_sql(since: &str) -> String {
    format!(
        "DO LANGUAGE plpgsql $safe_run$
DECLARE statement pg_catalog.text;
BEGIN
  FOR statement IN SELECT p.name FROM pg_catalog.pg_prepared_statements p
                   WHERE p.from_sql AND p.prepare_time OPERATOR(pg_catalog.>=) {since} LOOP
    EXECUTE pg_catalog.format('DEALLOCATE %I', statement);
  END LOOP;
END $safe_run$"
    )
}

/// How the rows of a query are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// One after the other, in the order in which the query gives them. Also for EXPLAIN and its like. Never in parallel.
    InOrder,
    /// As the server gives them, with parallel workers where it finds them useful. For a SELECT.
    InAnyOrder,
}

/// The function of one owner in one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AsOwner {
    owner: u32,
}

impl AsOwner {
    /// Statements of the role with this oid.
    #[must_use]
    pub fn of(owner: u32) -> Self {
        Self { owner }
    }

    /// The role's oid.
    #[must_use]
    pub fn owner(self) -> u32 {
        self.owner
    }

    /// The function's qualified name.
    #[must_use]
    pub fn function(self) -> String {
        format!("pg_temp.{PREFIX}{}", self.owner)
    }

    /// Makes the function, in place of one that is there. One statement.
    ///
    /// The server refuses it (42501) to a role that is neither a superuser nor may become the owner.
    #[must_use]
    pub fn create_sql(self) -> String {
        create(&format!("SELECT {}::pg_catalog.oid", self.owner), "RAISE;")
    }

    /// Runs the query `sql` and gives a column of text: each row as [`fields`] reads it. `path` is its `search_path`, as SET
    /// takes it.
    #[must_use]
    pub fn query_sql(self, sql: &str, path: &str, rows: Rows) -> String {
        match rows {
            Rows::InOrder => self.call(sql, path, "in order"),
            Rows::InAnyOrder => {
                // No column can have the name of the row: whatever it is called, the cast is the server's own.
                let whole = format!(
                    "SELECT safe_run_row_of_owner::pg_catalog.text FROM (\n{sql}\n) AS safe_run_row_of_owner"
                );
                self.call(&whole, path, "in any order")
            }
        }
    }

    /// Runs `sql`, which gives no rows, and gives one row: the number of rows that it touched, as text.
    #[must_use]
    pub fn run_sql(self, sql: &str, path: &str) -> String {
        self.call(sql, path, "count")
    }

    fn call(self, sql: &str, path: &str, how: &str) -> String {
        format!(
            "SELECT answer FROM {}({}::pg_catalog.text, {}::pg_catalog.text, {}::pg_catalog.text) AS answer",
            self.function(),
            literal(sql),
            literal(path),
            literal(how)
        )
    }
}

/// Tables that this transaction has written to and that have a deferred trigger, other than those of foreign keys, which the
/// server runs as the owners of the tables. What queues a trigger holds the lock of its table until the transaction ends,
/// and while it is queued neither the trigger nor the table can be dropped.
const BEFORE_COMMIT: &str = "CLOSE ALL; SET LOCAL search_path = pg_catalog, pg_temp;
SELECT DISTINCT t.tgrelid::regclass::text FROM pg_locks l JOIN pg_trigger t ON t.tgrelid = l.relation
LEFT JOIN pg_constraint k ON k.oid = t.tgconstraint
WHERE l.locktype = 'relation' AND l.pid = pg_backend_pid() AND t.tgdeferrable AND k.contype IS DISTINCT FROM 'f'
  AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
  AND l.mode = 'RowExclusiveLock'";

/// Commits the session's transaction, in which statements of an owner have run, without running anything of his.
///
/// # Errors
/// Refused where a deferred trigger could run. The transaction is still open then.
pub async fn commit(client: &Client) -> Result<()> {
    let failed = |source| Error::postgres("could not commit what was run as an owner", source);
    let messages = client.simple_query(BEFORE_COMMIT).await.map_err(failed)?;
    let table = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    if let Some(table) = table {
        return Err(Error::refused(format!(
            "code of the owner wrote to {}, which has a deferred trigger: the server would run it with the rights of this session",
            printable(table)
        )));
    }
    client.simple_query("COMMIT").await.map_err(failed)?;
    Ok(())
}

/// What the functions' names begin with; the oid of the role follows.
const PREFIX: &str = "safe_run_as_";

/// Makes the functions of all the roles that `owners` gives, a query with one column of type oid. One statement. Roles for
/// which it can't be are passed over: [`MADE`] tells which are there.
#[must_use]
pub fn create_for_all_sql(owners: &str) -> String {
    create(owners, "NULL;")
}

/// The owners whose functions are there in this session: oid.
pub const MADE: &str = "SELECT p.proowner FROM pg_catalog.pg_proc p
WHERE p.pronamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema() AND p.prosecdef
  AND p.proname OPERATOR(pg_catalog.=) (('safe_run_as_' OPERATOR(pg_catalog.||) p.proowner::pg_catalog.text)::pg_catalog.name)";

/// Whether `sqlstate` says that nobody's function can be made in this session: the database has no PL/pgSQL, or this role may not use
/// it. [`MADE`] gives none then, once the transaction is back where it was.
#[must_use]
pub fn can_not_be_made(sqlstate: Option<&str>) -> bool {
    // undefined_object, insufficient_privilege
    matches!(sqlstate, Some("42704" | "42501"))
}

/// As a superuser the function is made by us and given away; else the role is taken on for the time of making it. Inside of
/// the block nothing of the owner runs. `session_replication_role` keeps event triggers from firing, whose code might refuse
/// or write; from 17 on `event_triggers` keeps also those from it that are enabled for replicas or always.
fn create(owners: &str, refused: &str) -> String {
    format!(
        "DO LANGUAGE plpgsql $safe_run$
DECLARE
  owner pg_catalog.oid; grantee pg_catalog.oid; signature pg_catalog.text;
  role_before pg_catalog.text := pg_catalog.current_setting('role');
  replication_before pg_catalog.text := pg_catalog.current_setting('session_replication_role');
  triggers_before pg_catalog.text := pg_catalog.current_setting('event_triggers', true);
  me pg_catalog.oid; superuser pg_catalog.bool;
BEGIN
  SELECT r.oid, r.rolsuper INTO STRICT me, superuser FROM pg_catalog.pg_roles r
    WHERE r.rolname OPERATOR(pg_catalog.=) current_user;
  FOR owner IN {owners} LOOP
    signature := pg_catalog.format('pg_temp.{PREFIX}%s(pg_catalog.text, pg_catalog.text, pg_catalog.text)', owner);
    BEGIN
      IF superuser THEN
        PERFORM pg_catalog.set_config('session_replication_role', 'replica', true);
        IF triggers_before IS NOT NULL THEN PERFORM pg_catalog.set_config('event_triggers', 'off', true); END IF;
      ELSE
        EXECUTE pg_catalog.format('SET LOCAL ROLE %s', owner::pg_catalog.regrole);
      END IF;
      IF pg_catalog.to_regprocedure(signature) IS NOT NULL THEN EXECUTE 'DROP FUNCTION ' OPERATOR(pg_catalog.||) signature; END IF;
      EXECUTE pg_catalog.format($create${RUNNER}$create$, owner);
      EXECUTE pg_catalog.format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', signature);
      FOR grantee IN SELECT a.grantee FROM pg_catalog.pg_proc p, pg_catalog.aclexplode(p.proacl) a
                     WHERE p.oid OPERATOR(pg_catalog.=) pg_catalog.to_regprocedure(signature)
                       AND a.grantee OPERATOR(pg_catalog.<>) p.proowner LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON FUNCTION %s FROM %s', signature, grantee::pg_catalog.regrole);
      END LOOP;
      IF superuser THEN
        EXECUTE pg_catalog.format('ALTER FUNCTION %s OWNER TO %s', signature, owner::pg_catalog.regrole);
        PERFORM pg_catalog.set_config('session_replication_role', replication_before, true);
        IF triggers_before IS NOT NULL THEN PERFORM pg_catalog.set_config('event_triggers', triggers_before, true); END IF;
      ELSE
        EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO %s', signature, me::pg_catalog.regrole);
        PERFORM pg_catalog.set_config('role', role_before, true);
      END IF;
    EXCEPTION WHEN OTHERS THEN {refused}
    END;
  END LOOP;
END $safe_run$"
    )
}

/// The function, as a format: the oid of the role is its one argument, and every other percent sign is doubled.
///
/// The path is set last before the statement, so that nothing of the function itself is looked up in it. What a setting
/// makes of itself inside is the function's until it ends: it has its own SET clause for the path.
const RUNNER: &str = "CREATE FUNCTION pg_temp.safe_run_as_%s(statement pg_catalog.text, path pg_catalog.text, how pg_catalog.text)
RETURNS SETOF pg_catalog.text LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $runner$
DECLARE answer record; touched pg_catalog.int8;
BEGIN
  IF how OPERATOR(pg_catalog.=) 'in any order' THEN
    PERFORM pg_catalog.set_config('search_path', path, true);
    RETURN QUERY EXECUTE statement;
  ELSIF how OPERATOR(pg_catalog.=) 'in order' THEN
    PERFORM pg_catalog.set_config('search_path', path, true);
    FOR answer IN EXECUTE statement LOOP
      RETURN NEXT answer::pg_catalog.text;
    END LOOP;
  ELSE
    PERFORM pg_catalog.set_config('search_path', path, true);
    EXECUTE statement;
    GET DIAGNOSTICS touched = ROW_COUNT;
    RETURN NEXT touched::pg_catalog.text;
  END IF;
END $runner$";

/// The values of a row that came as text: `(17,"a b",,"")` is 17, `a b`, NULL and the empty text.
///
/// # Errors
/// It is not the text of a row.
pub fn fields(row: &str) -> Result<Vec<Option<String>>> {
    let broken = || Error::failed("the server's answer is not a row");
    let inner = row.strip_prefix('(').and_then(|row| row.strip_suffix(')')).ok_or_else(broken)?;
    let mut fields = Vec::new();
    let mut rest = inner.chars().peekable();
    loop {
        let mut value: Option<String> = None;
        let mut quoted = false;
        loop {
            match rest.next() {
                None if quoted => return Err(broken()),
                None => {
                    fields.push(value);
                    return Ok(fields);
                }
                Some(',') if !quoted => break,
                Some('"') if quoted && rest.peek() == Some(&'"') => {
                    rest.next();
                    value.get_or_insert_default().push('"');
                }
                Some('"') => {
                    quoted = !quoted;
                    value.get_or_insert_default();
                }
                Some('\\') => value.get_or_insert_default().push(rest.next().ok_or_else(broken)?),
                Some(other) => value.get_or_insert_default().push(other),
            }
        }
        fields.push(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_row_gives_its_values() {
        let some = |text: &str| Some(text.to_owned());
        for (row, values) in [
            ("(17,\"a b\",,\"\")", vec![some("17"), some("a b"), None, some("")]),
            ("()", vec![None]),
            ("(,)", vec![None, None]),
            (
                "(\"a\"\"b\",\"c\\\\d\",\"e,f\",\"(g)\")",
                vec![some("a\"b"), some("c\\d"), some("e,f"), some("(g)")],
            ),
            ("(\"line\nline\",ü)", vec![some("line\nline"), some("ü")]),
            ("(\"{\"\"1,2\"\",NULL}\")", vec![some("{\"1,2\",NULL}")]),
        ] {
            assert_eq!(fields(row).unwrap(), values, "{row}");
        }
        for broken in ["", "17", "(17", "(\"17)", "(\\)"] {
            assert!(fields(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn a_statement_is_one_literal_whatever_it_holds() {
        let sql = AsOwner::of(7).query_sql("SELECT 'it''s', $runner$\\$runner$", OWN_PATH, Rows::InOrder);
        assert_eq!(
            sql,
            "SELECT answer FROM pg_temp.safe_run_as_7( E'SELECT ''it''''s'', $runner$\\\\$runner$'::pg_catalog.text, \
             'pg_catalog, pg_temp'::pg_catalog.text, 'in order'::pg_catalog.text) AS answer"
        );
    }
}
