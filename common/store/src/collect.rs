//! Which objects nothing names any more: condemned first, deleted by a later run. The plan is *pure*.

use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};

use common::{Error, Result, fault};

use crate::{
    Copies,
    layout::{self, CONDEMNED, LEASES, OBJECTS},
};

/// A lease that was not renewed for this long belongs to a copy that died. A copy gives up after half of it.
pub const LEASE_LIFE: Duration = Duration::from_secs(24 * 3600);

/// A list of objects that must not be referenced any more.
#[derive(Debug, Clone)]
pub struct Condemned {
    /// Its key.
    pub key: String,
    /// When it was put, by the store's clock, in seconds.
    pub at: i64,
    /// The objects.
    pub keys: Vec<String>,
}

/// What a collector saw, in this order: leases, records, condemned, objects.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Now, by the store's clock.
    pub now: i64,
    /// Leases, with the time of their last renewal.
    pub leases: Vec<(String, i64)>,
    /// Objects that a record names.
    pub named: HashSet<String>,
    /// What is condemned.
    pub condemned: Vec<Condemned>,
    /// Every object, with its time and size.
    pub objects: Vec<(String, i64, u64)>,
}

/// What a collector does, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Objects that go.
    pub delete: Vec<String>,
    /// Lists of which no object is left then: they go after the objects.
    pub done: Vec<String>,
    /// Leases of copies that died.
    pub leases: Vec<String>,
    /// Objects to be condemned.
    pub condemn: Vec<String>,
    /// Bytes that go.
    pub bytes: u64,
    /// Whether a running copy keeps everything.
    pub is_held: bool,
}

/// Decides. Nothing goes while a copy runs, and nothing that is condemned for less than `grace`.
pub fn plan(seen: &Seen, grace: Duration) -> Plan {
    let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let is_old = |at: i64, than: Duration| seen.now.saturating_sub(at) > seconds(than);
    let (dead, live): (Vec<_>, Vec<_>) = seen.leases.iter().partition(|(_, at)| is_old(*at, LEASE_LIFE));
    let mut plan = Plan {
        is_held: !live.is_empty(),
        leases: dead.into_iter().map(|(key, _)| key.clone()).collect(),
        ..Plan::default()
    };
    let condemned: HashSet<&str> =
        seen.condemned.iter().flat_map(|list| &list.keys).map(String::as_str).collect();
    if !plan.is_held {
        let ripe: Vec<&Condemned> = seen.condemned.iter().filter(|list| is_old(list.at, grace)).collect();
        let going: BTreeSet<&str> = ripe.iter().flat_map(|list| &list.keys).map(String::as_str).collect();
        for (key, _, bytes) in &seen.objects {
            if going.contains(key.as_str()) && !seen.named.contains(key) {
                plan.delete.push(key.clone());
                plan.bytes += bytes;
            }
        }
        let left: HashSet<&str> = seen
            .objects
            .iter()
            .filter(|(key, ..)| seen.named.contains(key))
            .map(|(key, ..)| key.as_str())
            .collect();
        let is_gone = |list: &Condemned| !list.keys.iter().any(|key| left.contains(key.as_str()));
        plan.done = ripe.into_iter().filter(|list| is_gone(list)).map(|list| list.key.clone()).collect();
    }
    plan.condemn = seen
        .objects
        .iter()
        .filter(|(key, at, _)| {
            // What is young may belong to a copy whose lease this collector did not see.
            is_old(*at, grace) && !seen.named.contains(key) && !condemned.contains(key.as_str())
        })
        .filter(|(key, ..)| layout::sha256_of_key(key).is_some())
        .map(|(key, ..)| key.clone())
        .collect();
    plan
}

impl Copies {
    /// Looks at everything, and plans. Names nothing that a record which can't be read may name.
    ///
    /// # Errors
    /// Damaged where a record can't be read: what it named is not known.
    pub async fn look(&self, grace: Duration) -> Result<Plan> {
        let probe = format!("{LEASES}/collector-{}", common::random::hex_id()?);
        // Leases before records: see the crate's own text.
        self.storage.put(&probe, b"what time is it?\n".to_vec()).await?;
        let leases = self.storage.list(LEASES).await;
        self.storage.delete(&probe).await?;
        let leases = leases?;
        let now =
            leases.iter().find(|lease| lease.key == probe).map(|lease| lease.modified).ok_or_else(|| {
                Error::failed("the store does not list what was just put there, so nothing is deleted")
            })?;
        let leases =
            leases.into_iter().filter(|lease| lease.key != probe && !lease.key.contains("/collector-"));
        let mut seen = Seen {
            now,
            leases: leases.map(|lease| (lease.key, lease.modified)).collect(),
            ..Seen::default()
        };
        for listed in self.list().await? {
            let record = listed.record.map_err(|error| error.context(&listed.id).with_hint(
                "Which objects it needs is not known, and nothing is deleted. Delete the snapshot, or put its record back.",
            ))?;
            seen.named.extend(record.files.into_iter().map(|file| file.object));
        }
        seen.condemned = self.condemned().await?;
        let objects = self.storage.list(OBJECTS).await?;
        seen.objects =
            objects.into_iter().map(|object| (object.key, object.modified, object.bytes)).collect();
        Ok(plan(&seen, grace))
    }

    /// Does what the plan says. Killed at any step, it leaves what the next one finishes.
    pub async fn collect(&self, plan: &Plan) -> Result<()> {
        for key in &plan.delete {
            common::interrupt::check()?;
            self.storage.delete(key).await?;
            fault::point("collect:object");
        }
        fault::point("collect:deleted");
        for key in plan.done.iter().chain(&plan.leases) {
            self.storage.delete(key).await?;
        }
        if !plan.condemn.is_empty() {
            let key = format!("{CONDEMNED}/{}.json", common::random::hex_id()?);
            self.storage.put(&key, layout::encode(&plan.condemn)?).await?;
            fault::point("collect:condemned");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
