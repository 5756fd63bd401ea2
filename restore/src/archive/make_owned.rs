//! Makes entries of the archive as their owner, through [`AsOwner`]: with no way back to the rights of whoever restores.
//!
//! The statements are those that pg_restore would run. Each batch is one transaction of a session of its own. For its time the
//! owner gets what he needs of the schemas, and does not have: he may not have it any more. What he made there beside it is refused
//! ([`crate::left_behind`]).

use std::collections::BTreeSet;

use common::{
    Error, Ident, Result,
    postgres::{
        Session,
        as_owner::{self, AsOwner},
        tools,
        trust::Role,
    },
    snapshot::toc,
};

use super::{Run, forms};
use crate::{
    column_marks, contents, encoding,
    left_behind::Contents,
    lent_paths,
    lent_tables::{Aside, Loans},
    missing::MissingObject,
    restore_errors::RestoreError,
};

/// Makes entries, in their order; those that could not be made come back.
///
/// # Errors
/// As those of pg_restore: an entry that can't be made, unless missing objects are named and passed over.
pub async fn make(run: &Run<'_>, ids: &[u32]) -> Result<Vec<MissingObject>> {
    let (mut missing, mut left_out) = (Vec::new(), Vec::new());
    let mut rest = ids;
    while let Some(role) = rest.first().and_then(|id| run.maker(*id)) {
        // What is lent is lent for one entry.
        let is_lent = |id: &u32| run.options.owned.is_some_and(|owned| owned.lent.contains_key(id));
        let is_his = |id: &&u32| run.maker(**id) == Some(role) && !is_lent(id);
        let (batch, others) = rest.split_at(rest.iter().take_while(is_his).count().max(1));
        rest = others;
        if attempt(run, role, batch, Form::AsStored).await.is_ok() {
            continue;
        }
        // All of it was taken back. One by one, each says what is wrong with it.
        for id in batch {
            let (is_left_out, reason) = match one(run, role, *id).await {
                Ok(None) => continue,
                Ok(Some(why)) => (true, why),
                Err(error) => (false, format!("as its owner \"{}\": {}", role.name, error.message())),
            };
            let object = run.entries.get(id).cloned().unwrap_or_else(|| format!("entry {id}"));
            let definition = contents::script(run.pg_restore, run.archive, &[*id]).await.ok();
            let object = MissingObject { object, reason, definition };
            if is_left_out {
                left_out.push(object);
            } else {
                missing.push(object);
            }
        }
    }
    if missing.is_empty() || run.options.keep_going {
        missing.extend(left_out);
        return Ok(missing);
    }
    let lines: Vec<String> = missing.iter().map(MissingObject::line).collect();
    Err(Error::failed(format!("what its owner has to make could not be restored:\n  {}", lines.join("\n  "))).with_hint(
        "Its definition calls functions, which run with the rights of the owner alone (docs/trust.md). Give the role what it lacks where \
         the snapshot comes from (a table that INHERITS from another needs the same owner as that), or restore with --no-owner.",
    ))
}

/// What is changed in the statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    AsStored,
    /// Without options of columns that this server does not know.
    WithoutMarks,
    /// A foreign key that rows violate.
    NotValid,
}

/// Makes an entry; why it was left out, if it was.
async fn one(run: &Run<'_>, role: &Role, id: u32) -> Result<Option<String>> {
    let Err(error) = attempt(run, role, &[id], Form::AsStored).await else { return Ok(None) };
    if error.message().contains("unrecognized parameter \"pg_attver\"") {
        return attempt(run, role, &[id], Form::WithoutMarks).await.map(|()| None);
    }
    if error.sqlstate() == Some("23503") {
        return match attempt(run, role, &[id], Form::NotValid).await {
            // Before 18 a foreign key of a partitioned table can't be NOT VALID.
            Err(refused) if refused.sqlstate() == Some("42809") => {
                Ok(Some(forms::not_valid_refused(run.session, error.message())))
            }
            Err(refused) => Err(refused),
            Ok(()) => {
                let entry = run.entries.get(&id).map(String::as_str);
                run.options.remedies.orphaned_keys.add(entry, error.message());
                Ok(None)
            }
        };
    }
    let remedies = run.options.remedies;
    let silenced = remedies.event_triggers.silence(run.session, run.progress).await?;
    let may_be_a_name = lent_paths::may_be_a_name(&error);
    if silenced || (may_be_a_name && remedies.paths.lend(false).await?) {
        return attempt(run, role, &[id], Form::AsStored).await.map(|()| None);
    }
    Err(error)
}

async fn attempt(run: &Run<'_>, role: &Role, ids: &[u32], form: Form) -> Result<()> {
    let (head, body) = statements(run, ids).await?;
    let body = match form {
        Form::AsStored => body,
        Form::WithoutMarks => column_marks::cleaned(&body),
        Form::NotValid => not_valid(&body)?,
    };
    // Sessions of their own: each has run code of one owner.
    for aside in perform(run, role, ids, &head, &body).await? {
        let more = perform(run, &aside.owner, &[aside.entry], &head, &aside.sql).await?;
        debug_assert!(more.is_empty(), "a constraint needs nothing of others");
    }
    Ok(())
}

/// Runs the statements `body` as the role, in one transaction; what was taken away for that, and has to come back, is given.
async fn perform(run: &Run<'_>, role: &Role, ids: &[u32], head: &str, body: &str) -> Result<Vec<Aside>> {
    let session = run.settings.connect().await?;
    let failed = |source| Error::postgres("the server does not take it", source);
    session.batch_execute(crate::sessions::STATEMENT).await.map_err(failed)?;
    session.batch_execute(head).await.map_err(failed)?;
    let lacking = lacking(&session, run, role, ids, &format!("\n{head}{body}")).await?;
    session.batch_execute("BEGIN").await.map_err(failed)?;
    let name = Ident::new(role.name.as_str());
    for lent in &lacking {
        session.batch_execute(&format!("GRANT {} TO {name}", lent.privilege)).await.map_err(failed)?;
    }
    let loans = Loans::give(&session, run.options.owned, role, ids, body).await?;
    let owner = AsOwner::of(role.oid);
    session.batch_execute(&owner.create_sql()).await.map_err(failed)?;
    let lent: Vec<String> =
        lacking.iter().filter_map(|lent| Some(lent.creates_in.as_ref()?.clone())).collect();
    let before = Contents::of(&session, &lent).await?;
    // From here on only text statements: nothing may be prepared where code of somebody else has been.
    session.simple_query(&owner.run_sql(body, "")).await.map_err(failed)?;
    for lent in &lacking {
        session.batch_execute(&format!("REVOKE {} FROM {name}", lent.privilege)).await.map_err(failed)?;
    }
    let made: Vec<&str> = ids.iter().filter_map(|id| run.entries.get(id)).map(String::as_str).collect();
    Contents::of(&session, &lent).await?.check_made(&before, &made)?;
    let aside = loans.take_back(&session).await?;
    as_owner::commit(&session).await?;
    session.close().await?;
    Ok(aside)
}

/// The statements of entries: what pg_restore sets first, and the entries themselves.
async fn statements(run: &Run<'_>, ids: &[u32]) -> Result<(String, String)> {
    let list = contents::list_of(ids)?;
    let mut command = tools::offline_command(&run.pg_restore.path);
    command.args(["--file=-", "--no-owner", "--no-privileges"]);
    if run.options.no_tablespaces {
        command.arg("--no-tablespaces");
    }
    command.arg("--use-list").arg(list.path()).arg(run.archive);
    let (finished, printed) = tools::capture(command, "pg_restore").await?;
    if !finished.success {
        return Err(Error::failed(format!("pg_restore failed: {}", finished.stderr.trim())));
    }
    let text = encoding::exact(run.session, printed).await?;
    let text = contents::for_the_server(&text, run.session.server_major());
    let at = text.find("\n-- Name: ").map_or(text.len(), |at| at + 1);
    let (head, body) = text.split_at(at);
    // It is sent as UTF-8, whatever the archive is in.
    let is_encoding = |line: &&str| line.starts_with("SET client_encoding = ");
    let head = head.split_inclusive('\n').filter(|line| !is_encoding(line)).collect();
    Ok((head, body.to_owned()))
}

/// The foreign key of the statements, for rows that violate it.
fn not_valid(body: &str) -> Result<String> {
    let at = body.find("\nALTER TABLE ").map(|at| at + 1);
    let statement = at.and_then(|at| body[at..].split_inclusive(";\n").next());
    let error = RestoreError {
        dump_id: None,
        entry: None,
        message: "violates foreign key constraint".to_owned(),
        statement: statement.map(str::to_owned),
    };
    forms::not_valid_statement(&error)
        .ok_or_else(|| Error::failed("the statement of a foreign key is not what it is in an archive"))
}

/// What the role lacks, and gets for the time of one batch.
struct Lent {
    /// As `CREATE ON SCHEMA "app"`.
    privilege: String,
    /// The schema in which he may make things with it.
    creates_in: Option<String>,
}

impl Lent {
    fn new(privilege: String) -> Self {
        Self { privilege, creates_in: None }
    }
}

/// What the role lacks: CREATE where the entries lie, and USAGE where what they need lies.
async fn lacking(
    session: &Session,
    run: &Run<'_>,
    role: &Role,
    ids: &[u32],
    body: &str,
) -> Result<Vec<Lent>> {
    const SCHEMAS: &str =
        "SELECT n.nspname::pg_catalog.text, pg_catalog.has_schema_privilege($1::pg_catalog.oid, n.oid, 'USAGE'),
        pg_catalog.has_schema_privilege($1::pg_catalog.oid, n.oid, 'CREATE')
        FROM pg_catalog.pg_namespace n WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";
    const OF_EXTENSIONS: &str = "SELECT n.nspname::pg_catalog.text FROM pg_catalog.pg_extension e
        JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace OR EXISTS (SELECT FROM pg_catalog.pg_depend d
          WHERE d.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.objid = n.oid AND d.deptype = 'e'
            AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid = e.oid)
        WHERE e.extname = ANY ($1)";
    const TABLESPACES: &str = "SELECT t.spcname::pg_catalog.text FROM pg_catalog.pg_tablespace t
        WHERE t.spcname <> 'pg_global' AND NOT pg_catalog.has_tablespace_privilege($1::pg_catalog.oid, t.oid, 'CREATE')";
    let failed = |source| Error::postgres("could not look at the rights of the owner", source);
    let rows = session.query(SCHEMAS, &[&role.oid]).await.map_err(failed)?;
    let names: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
    let lie_in: BTreeSet<&str> =
        ids.iter().filter_map(|id| toc::namespace(run.entries.get(id)?, &names)).collect();
    let needed = run.options.owned.map(|owned| owned.needed(ids)).unwrap_or_default();
    let mut used: BTreeSet<String> = lie_in.iter().map(|name| (*name).to_owned()).collect();
    used.extend(
        needed.iter().filter_map(|id| toc::namespace(run.entries.get(id)?, &names)).map(str::to_owned),
    );
    let extensions: Vec<&str> =
        needed.iter().filter_map(|id| run.entries.get(id)?.strip_prefix("EXTENSION - ")).collect();
    for row in &session.query(OF_EXTENSIONS, &[&extensions]).await.map_err(failed)? {
        used.insert(row.get(0));
    }
    let mut lacking = Vec::new();
    for row in &rows {
        let name: String = row.get(0);
        let schema = Ident::new(name.as_str());
        if !row.get::<_, bool>(1) && used.contains(&name) {
            lacking.push(Lent::new(format!("USAGE ON SCHEMA {schema}")));
        }
        if !row.get::<_, bool>(2) && lie_in.contains(name.as_str()) {
            let privilege = format!("CREATE ON SCHEMA {schema}");
            lacking.push(Lent { privilege, creates_in: Some(name) });
        }
    }
    const PLACE: &str = "\nSET default_tablespace = ";
    if body.matches(PLACE).count() > body.matches(&format!("{PLACE}''")).count() {
        for row in &session.query(TABLESPACES, &[&role.oid]).await.map_err(failed)? {
            let place = Ident::new(row.get::<_, String>(0));
            lacking.push(Lent::new(format!("CREATE ON TABLESPACE {place}")));
        }
    }
    Ok(lacking)
}
