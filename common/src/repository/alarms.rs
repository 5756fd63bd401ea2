//! Alarms: a snapshot that is strangely unlike the one before it. While one is open, nothing of its database is pruned,
//! until a person has looked and said so.
//!
//! One file `alarms/<id>` per alarm, which also says who acknowledged it, when and why. A file that can't be read is an open
//! alarm: doubt never deletes.

use std::{fs, path::PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::Repository;
use crate::{
    Error, ErrorKind, Result,
    files::{MOST_FACTS, create_private_dir, read_plain, replace_private_file},
    snapshot::SnapshotId,
};

/// Folder of the alarms below the repository.
pub(super) const ALARMS: &str = "alarms";

/// Who looked at an alarm, when, and what they made of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledgement {
    /// A person.
    pub who: String,
    /// When.
    pub at: DateTime<Utc>,
    /// Why it is no loss, or what was done.
    pub why: String,
}

/// One alarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// The snapshot that is unlike its predecessor.
    pub id: SnapshotId,
    /// Its database; `None` when the alarm's file can't be read, which concerns all of them.
    pub database: Option<String>,
    /// The snapshot that it was compared with.
    pub predecessor: Option<SnapshotId>,
    /// When it was raised.
    pub at: Option<DateTime<Utc>>,
    /// What is strange, one sentence each.
    pub findings: Vec<String>,
    /// `None` while it is open.
    #[serde(default)]
    pub acknowledged: Option<Acknowledgement>,
}

impl Alarm {
    /// Whether nobody has acknowledged it.
    pub fn is_open(&self) -> bool {
        self.acknowledged.is_none()
    }

    /// Whether it holds the pruning of a database.
    pub fn holds(&self, database: &str) -> bool {
        self.is_open() && self.database.as_deref().is_none_or(|name| name == database)
    }
}

impl Repository {
    /// Writes an alarm, new or acknowledged.
    pub fn write_alarm(&self, alarm: &Alarm) -> Result<()> {
        create_private_dir(&self.alarms_dir())?;
        let bytes = serde_json::to_vec(alarm).map_err(|source| {
            Error::failed(format!("could not encode the alarm of {}: {source}", alarm.id))
        })?;
        replace_private_file(&self.alarms_dir().join(alarm.id.as_str()), &bytes)
    }

    /// Every alarm, oldest first.
    pub fn alarms(&self) -> Result<Vec<Alarm>> {
        let dir = self.alarms_dir();
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(Error::io("read", &dir, source)),
        };
        let mut alarms = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|source| Error::io("read", &dir, source))?;
            let name = entry.file_name();
            let Some(id) = name.to_str().and_then(|name| SnapshotId::parse(name).ok()) else { continue };
            let read = read_plain(&entry.path(), MOST_FACTS)
                .ok()
                .and_then(|bytes| serde_json::from_slice(&bytes).ok());
            alarms.push(read.filter(|alarm: &Alarm| alarm.id == id).unwrap_or_else(|| Alarm {
                id,
                database: None,
                predecessor: None,
                at: None,
                findings: vec!["the alarm's file can't be read".to_owned()],
                acknowledged: None,
            }));
        }
        alarms.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(alarms)
    }

    /// Acknowledges the alarm whose id begins with `wanted`.
    ///
    /// # Errors
    /// No such alarm, several, or one that was acknowledged before.
    pub fn acknowledge(&self, wanted: &str, acknowledgement: Acknowledgement) -> Result<Alarm> {
        let wanted_shown = crate::ident::printable(wanted);
        let mut found: Vec<Alarm> =
            self.alarms()?.into_iter().filter(|alarm| alarm.id.as_str().starts_with(wanted)).collect();
        let list = "Run `backup acknowledge` without an id to see the alarms that are open.";
        if found.len() > 1 {
            return Err(Error::usage(format!("\"{wanted_shown}\" is the start of several alarms' ids"))
                .with_hint(list));
        }
        let Some(mut alarm) = found.pop() else {
            return Err(
                Error::new(ErrorKind::NoSuchSnapshot, format!("no alarm \"{wanted_shown}\"")).with_hint(list)
            );
        };
        if let Some(earlier) = &alarm.acknowledged {
            return Err(Error::refused(format!(
                "the alarm of {} was acknowledged by {} on {} (\"{}\")",
                alarm.id,
                crate::ident::printable(&earlier.who),
                earlier.at.format("%Y-%m-%d %H:%M:%SZ"),
                crate::ident::printable(&earlier.why)
            ))
            .with_hint("Nothing is left to do: it holds no pruning any more."));
        }
        alarm.acknowledged = Some(acknowledgement);
        self.write_alarm(&alarm)?;
        Ok(alarm)
    }

    fn alarms_dir(&self) -> PathBuf {
        self.root().join(ALARMS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_holds_its_database_until_somebody_says_why_it_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let repository = Repository::open_or_create(&dir.path().join("r")).unwrap();
        assert!(repository.alarms().unwrap().is_empty());
        let at = DateTime::from_timestamp(1_795_000_000, 0).unwrap();
        let id = SnapshotId::new(at, "shop", 7);
        let alarm = Alarm {
            id: id.clone(),
            database: Some("shop".into()),
            predecessor: None,
            at: Some(at),
            findings: vec!["table orders is gone".into()],
            acknowledged: None,
        };
        repository.write_alarm(&alarm).unwrap();
        assert!(alarm.holds("shop") && !alarm.holds("other"));
        let acknowledgement = Acknowledgement { who: "ada".into(), at, why: "moved".into() };
        assert!(!repository.acknowledge("2026", acknowledgement.clone()).unwrap().holds("shop"));
        assert_eq!(repository.alarms().unwrap()[0].acknowledged, Some(acknowledgement.clone()));
        let again = repository.acknowledge(id.as_str(), acknowledgement.clone()).unwrap_err();
        assert!(again.message().contains("ada"), "{again}");
        assert_eq!(
            repository.acknowledge("1999", acknowledgement).unwrap_err().kind(),
            ErrorKind::NoSuchSnapshot
        );
        fs::write(repository.alarms_dir().join(id.as_str()), b"garb").unwrap();
        assert!(
            repository.alarms().unwrap()[0].holds("any"),
            "what can't be read is open, for every database"
        );
    }
}
