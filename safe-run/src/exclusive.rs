//! The exclusive fence: for the time of the run the database has another name, and nobody else knows it.
//!
//! Its own name is taken meanwhile by an empty database that accepts no connection, so that clients get "not currently
//! accepting connections" and try again, and none of them finds its database gone and makes a new one. Both renames are
//! one transaction ([`database::swap`]), on the way in and on the way out: the live name always stands for something, and
//! a crash leaves one of two states that are told apart by their names. A superuser who looks into pg_database can still
//! connect to the other name.

use common::{
    Error, ErrorKind, Ident, Result, fault,
    ident::{literal, with_suffix},
    postgres::{
        ConnectionSettings, Session,
        database::{self, SwapNames},
    },
    random,
};

/// How the comment of the empty database begins, before the run's id.
pub const STANDS_IN: &str = "Empty. Stands in for a database while safe-run/";

/// The three names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hidden {
    /// The name that applications use.
    pub live: String,
    /// The database's name behind the fence.
    pub hidden: String,
    /// The name of the empty database before and after it stands in.
    pub placeholder: String,
}

impl Hidden {
    /// Fresh names for a run on `live`.
    pub fn new(live: &str) -> Result<Self> {
        let token = random::bits()? & 0xffff_ffff;
        Ok(Self {
            live: live.to_owned(),
            hidden: with_suffix(live, &format!("_hidden_{token:08x}")),
            placeholder: with_suffix(live, &format!("_closed_{token:08x}")),
        })
    }

    /// A name for the database that an undo replaces: it shall tell its origin, and not look like the hidden one.
    pub fn kept_as(&self) -> String {
        let token = self.hidden.rsplit('_').next().unwrap_or_default();
        with_suffix(&self.live, &format!("_replaced_{token}"))
    }
}

/// Refuses what a rename would leave behind or can't do, before anything is changed.
pub async fn refuse_obstacles(control: &Session, live: &str, own: &[i32]) -> Result<()> {
    let lacks = database::lacks_to_swap(control, live).await?;
    if !lacks.is_empty() {
        return Err(Error::refused(format!(
            "the database \"{live}\" can't be renamed for the run: {}",
            lacks.join("; ")
        ))
        .with_hint(
            "A database is renamed by its owner with CREATEDB, or by a superuser: run it as one of them, or with --fence read-only, for \
             which the owner needs no CREATEDB.",
        )
        .with_database_state(format!("The database \"{live}\" was not changed.")));
    }
    let mut reasons = database::swap_obstacles(control, live).await?;
    let prepared = database::prepared_transactions(control, live).await?;
    reasons.extend(prepared.iter().map(|gid| format!("prepared transaction {gid}")));
    reasons.extend(
        database::sessions_in_the_way(control, live, own)
            .await?
            .iter()
            .map(|session| format!("a session that the role may not end, {session}")),
    );
    if reasons.is_empty() {
        return Ok(());
    }
    Err(Error::refused(format!(
        "the database \"{live}\" can't be renamed for the run: {}",
        reasons.join("; ")
    ))
    .with_hint("End or drop what is named, or use another fence: --fence read-only.")
    .with_database_state(format!("The database \"{live}\" was not changed.")))
}

/// Hides the database. All of its sessions are ended.
///
/// # Errors
/// The names are as before; [`ErrorKind::Unknown`] if that can't be told.
pub async fn set(settings: &ConnectionSettings, control: &Session, names: &Hidden, run: &str) -> Result<()> {
    let Hidden { live, hidden, placeholder } = names;
    let closed = Ident::new(placeholder.as_str());
    let comment = format!("{STANDS_IN}{run} works on it; `safe-run recover` ends that.");
    let made = async {
        let create = format!("CREATE DATABASE {closed} TEMPLATE template0 ALLOW_CONNECTIONS false");
        let failed = |source| Error::postgres("could not make the database that stands in", source);
        control.batch_execute(&create).await.map_err(failed)?;
        fault::point("safe-run.placeholder");
        let comment = format!("COMMENT ON DATABASE {closed} IS {}", literal(&comment));
        let failed = |source| Error::postgres("could not describe the database that stands in", source);
        control.batch_execute(&comment).await.map_err(failed)?;
        let names = SwapNames { live: live.clone(), staged: placeholder.clone(), replaced: hidden.clone() };
        database::swap(settings, &names).await
    };
    match made.await {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::new(
            ErrorKind::Unknown,
            format!("the database \"{live}\" was gone when it was to be hidden"),
        )),
        Err(error) if error.kind() == ErrorKind::Unknown => Err(error),
        Err(error) => match database::drop_database(control, placeholder).await {
            Ok(()) => Err(error),
            Err(second) => {
                Err(error.context(format!("the empty database \"{placeholder}\" is left ({second})")))
            }
        },
    }
}

/// Gives the database its name back. Does what is still to be done, and can be done again.
pub async fn lift(settings: &ConnectionSettings, control: &Session, names: &Hidden) -> Result<()> {
    let Hidden { live, hidden, placeholder } = names;
    if database::exists(control, hidden).await? {
        refuse_foreign(control, names).await?;
        let swap = SwapNames { live: live.clone(), staged: hidden.clone(), replaced: placeholder.clone() };
        database::swap(settings, &swap).await?;
        fault::point("safe-run.unhidden");
    } else {
        refuse_lost(control, names).await?;
    }
    database::drop_database(control, placeholder).await
}

/// Refuses where the database has neither of its names: what the live name stands for is then nothing, or our empty one.
pub async fn refuse_lost(control: &Session, names: &Hidden) -> Result<()> {
    let Hidden { live, hidden, .. } = names;
    let row = control
        .query_one(
            "SELECT pg_catalog.count(*) FILTER (WHERE datname = $2) > 0, COALESCE(pg_catalog.bool_or(datname = $1 AND
                 (datallowconn OR NOT COALESCE(pg_catalog.starts_with(
                     pg_catalog.shobj_description(oid, 'pg_database'), $3), false))), false)
             FROM pg_catalog.pg_database WHERE datname IN ($1, $2)",
            &[live, hidden, &STANDS_IN],
        )
        .await
        .map_err(|source| Error::postgres("could not look up the database", source))?;
    if row.get(0) || row.get(1) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Unknown,
        format!(
            "the database \"{live}\" is gone: it was called \"{hidden}\" behind the fence, and there is no such database \
             any more"
        ),
    )
    .with_hint(format!(
        "Somebody has renamed or dropped it. If it is there under another name, rename it to \"{hidden}\" and run \
         `safe-run recover`; otherwise drop the empty \"{live}\", if there is one, and restore the run's snapshot: \
         `safe-run history` names the run, `restore` lists the snapshots."
    )))
}

/// Refuses to rename away a database that is not our empty one.
async fn refuse_foreign(control: &Session, names: &Hidden) -> Result<()> {
    let Hidden { live, hidden, .. } = names;
    let row = control
        .query_opt("SELECT datallowconn FROM pg_catalog.pg_database WHERE datname = $1", &[live])
        .await
        .map_err(|source| Error::postgres("could not look up the database", source))?;
    match row {
        Some(row) if row.get::<_, bool>(0) => Err(Error::new(
            ErrorKind::Unknown,
            format!("somebody has made or opened a database \"{live}\" while yours is called \"{hidden}\""),
        )
        .with_hint(format!(
            "Rename or drop that one, then run `safe-run recover`, which renames \"{hidden}\" back."
        ))),
        _ => Ok(()),
    }
}
