//! A clone of the database as it was ordered, what stands under its name, and its end. A database is never taken for a clone, and
//! never dropped, for its name alone: it has to bear the run's mark.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use common::{
    Error, Ident, Progress, Result,
    catalog::{DatabaseState, Grant},
    fault,
    files::write_private_file,
    postgres::{Session, database, database_copy::CopyOrder, introspect},
};
use serde::{Deserialize, Serialize};

use crate::journal::{PastRun, Step};

/// The file in the run's folder that holds what the clone is known by, and what it lacks.
const CLONE_FILE: &str = "clone.json";

/// A clone as it was ordered. Whether it is there is the server's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseClone {
    /// Its name.
    pub name: String,
    /// The name under which the failed database is kept when the clone takes its place.
    pub kept_as: String,
    /// Its connection limit until then: a random number, which can be set with its making.
    pub token: i32,
    /// The run.
    pub run: String,
    /// It stays after a success.
    pub keep: bool,
    /// What belongs to the database itself, as it was before the fence.
    pub state: DatabaseState,
}

impl DatabaseClone {
    /// Its comment while it is a clone.
    pub fn marker(&self) -> String {
        format!(
            "safe-run/{}: a clone of \"{}\" as it was before that run; `safe-run recover` uses or drops it",
            self.run, self.state.name
        )
    }

    /// What the server is asked for.
    pub fn order<'a>(&'a self, source: &'a str) -> CopyOrder<'a> {
        CopyOrder {
            source,
            copy: &self.name,
            token: self.token,
            collation_version: self.state.collation_version.as_deref(),
        }
    }

    /// How a person opens it, and gets rid of it.
    pub fn by_hand(&self) -> [String; 2] {
        let name = Ident::new(&*self.name);
        [
            format!("look into it: ALTER DATABASE {name} ALLOW_CONNECTIONS true CONNECTION LIMIT -1"),
            format!("when it is no longer needed: DROP DATABASE {name}"),
        ]
    }
}

impl DatabaseClone {
    /// What belongs to the database `name` itself and differs from the database that was cloned, as phrases. Comment and
    /// connection limit are the clone's own.
    pub async fn differences(&self, control: &Session, name: &str) -> Result<Vec<String>> {
        let found = introspect::database_state_of(control, name).await?;
        let wanted = &self.state;
        let mut differences = other_rights(wanted, &found);
        let mut differs = |what: &str, is_same: bool| {
            if !is_same {
                differences.push(format!("other {what}"));
            }
        };
        differs("tablespace", found.tablespace == wanted.tablespace);
        differs("encoding", found.encoding == wanted.encoding);
        differs(
            "locale",
            (&found.collate, &found.ctype, &found.locale_provider, &found.locale, &found.icu_rules)
                == (
                    &wanted.collate,
                    &wanted.ctype,
                    &wanted.locale_provider,
                    &wanted.locale,
                    &wanted.icu_rules,
                ),
        );
        differs("collation version", found.collation_version == wanted.collation_version);
        Ok(differences)
    }

    /// Writes it into the run's folder.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|source| Error::failed(format!("could not encode {CLONE_FILE}: {source}")))?;
        write_private_file(&dir.join(CLONE_FILE), &bytes)?;
        common::files::sync_dir(dir)
    }

    /// The clone that a past run ordered, if it had come that far.
    pub fn of_run(past: &PastRun) -> Result<Option<Self>> {
        if !past.steps.iter().any(|step| matches!(step, Step::Cloning { .. })) {
            return Ok(None);
        }
        let path = past.dir.join(CLONE_FILE);
        let bytes = common::files::read_plain(&path, common::files::MOST_FACTS)
            .map_err(|source| Error::io("read", &path, source))?;
        let clone = serde_json::from_slice(&bytes)
            .map_err(|source| Error::damaged(format!("{} can't be read: {source}", path.display())))?;
        Ok(Some(clone))
    }
}

/// What stands under a clone's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// No database has the name.
    Nothing,
    /// The clone, complete and closed since it was made.
    Closed(u32),
    /// The clone, and nobody had finished making it.
    HalfMade,
    /// Something that is not, or no longer, what the run made. The phrase says why.
    Foreign(String),
}

/// What differs of what no copy carries: owner, grants, settings and labels of the database itself; as phrases.
fn other_rights(wanted: &DatabaseState, found: &DatabaseState) -> Vec<String> {
    let sorted = |state: &DatabaseState| {
        state.acl.as_ref().map(|grants| {
            let key = |grant: &Grant| {
                format!("{:?} {} {} {}", grant.grantee, grant.privilege, grant.grantable, grant.grantor)
            };
            let mut keys: Vec<String> = grants.iter().map(key).collect();
            keys.sort();
            keys
        })
    };
    let settings = |state: &DatabaseState| {
        let mut keys: Vec<String> = state
            .settings
            .iter()
            .map(|setting| format!("{:?} {}={}", setting.role, setting.name, setting.value))
            .collect();
        keys.sort();
        keys
    };
    [
        ("owner", found.owner == wanted.owner),
        ("grants", sorted(found) == sorted(wanted)),
        ("settings", settings(found) == settings(wanted)),
        ("security labels", found.security_labels == wanted.security_labels),
    ]
    .into_iter()
    .filter(|(_, is_same)| !is_same)
    .map(|(what, _)| format!("other {what}"))
    .collect()
}

/// Refuses a database that could not be given all that belongs to the other one itself.
pub fn refuse_other_rights(wanted: &DatabaseState, found: &DatabaseState) -> Result<()> {
    let differences = other_rights(wanted, found);
    if differences.is_empty() {
        return Ok(());
    }
    Err(unlike(Error::failed(format!(
        "a copy of the database \"{}\" would not be like it: {}",
        wanted.name,
        differences.join("; ")
    ))))
}

/// Refused, because a copy can't be given all that belongs to the database itself.
pub fn unlike(error: Error) -> Error {
    error.with_kind(common::ErrorKind::Refused).with_hint("Use --snapshot file, or run it as a superuser.")
}

/// What stands under the clone's name now.
///
/// # Errors
/// The server can't be asked.
pub async fn look(control: &Session, clone: &DatabaseClone) -> Result<Found> {
    let row = control
        .query_opt(
            "SELECT oid, datallowconn, datconnlimit, pg_catalog.shobj_description(oid, 'pg_database')
             FROM pg_catalog.pg_database WHERE datname = $1",
            &[&clone.name],
        )
        .await
        .map_err(|source| Error::postgres("could not look up the clone", source))?;
    let Some(row) = row else { return Ok(Found::Nothing) };
    let (oid, open, limit): (u32, bool, i32) = (row.get(0), row.get(1), row.get(2));
    let comment: Option<String> = row.get(3);
    let is_marked = comment.as_deref() == Some(&*clone.marker());
    Ok(if limit != clone.token || (comment.is_some() && !is_marked) {
        Found::Foreign("it does not bear the mark of this run's clone".to_owned())
    } else if open {
        Found::Foreign("somebody has opened it, and may have written".to_owned())
    } else if is_marked {
        Found::Closed(oid)
    } else {
        Found::HalfMade
    })
}

/// Drops the clone if it is there and bears the run's mark; otherwise why not.
///
/// # Errors
/// Busy where the server did not answer in time. The session is free for the next statement then.
pub async fn drop_clone(control: &Session, clone: &DatabaseClone) -> Result<Option<String>> {
    match look(control, clone).await? {
        Found::Nothing => Ok(None),
        Found::Foreign(why) => Ok(Some(why)),
        Found::Closed(_) | Found::HalfMade => {
            database::drop_database_within(control, &clone.name, drop_patience()).await.map(|()| None)
        }
    }
}

/// A drop takes well below a second, and some more where a checkpoint has much to write.
fn drop_patience() -> Duration {
    Duration::from_secs(fault::number("safe-run.drop-patience").unwrap_or(60))
}

/// [`drop_clone`], which says for what it waits: the run is over, and only a copy that nobody needs is left.
pub async fn drop_in_time(
    control: &Session,
    clone: &DatabaseClone,
    progress: &Progress,
) -> Result<Option<String>> {
    let say_every = Duration::from_secs(5).min(drop_patience() / 2);
    let mut dropping = std::pin::pin!(drop_clone(control, clone));
    let began = Instant::now();
    loop {
        tokio::select! {
            dropped = &mut dropping => return dropped,
            () = tokio::time::sleep(say_every) => {}
        }
        progress.note(format!(
            "waiting for {} to drop the clone \"{}\" (server process {}), for {} s",
            control.settings().host_label(),
            clone.name,
            control.backend_pid(),
            began.elapsed().as_secs()
        ));
    }
}
