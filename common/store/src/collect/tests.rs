//! Copies, deletions and collectors in any order, each killed at any step: what a record names is there, and in the end nothing else.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use common::digest::sha256_hex;
use proptest::prelude::*;

use super::{Condemned, LEASE_LIFE, Plan, Seen, plan};
use crate::layout::{object_key, sha256_of_key};

const HOUR: i64 = 3600;
const GRACE: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// A store in memory, with one clock.
#[derive(Default)]
struct World {
    now: i64,
    numbers: u64,
    objects: BTreeMap<String, i64>,
    records: BTreeMap<u64, Vec<String>>,
    leases: BTreeMap<String, i64>,
    condemned: BTreeMap<String, (i64, Vec<String>)>,
}

impl World {
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn check(&self) {
        for (id, keys) in &self.records {
            for key in keys {
                assert!(self.objects.contains_key(key), "record {id} names {key}, which is gone");
            }
        }
    }
}

enum Agent {
    Copy(Copy),
    Collect(Collect),
}

/// `Copies::send`, a request at a time.
#[derive(Default)]
struct Copy {
    step: u8,
    content: Vec<u8>,
    lease: String,
    renewed: i64,
    condemned: HashSet<String>,
    missing: VecDeque<String>,
    keys: Vec<String>,
}

impl Copy {
    /// False when it is done, or gave up.
    fn go(&mut self, world: &mut World) -> bool {
        match self.step {
            0 => {
                self.lease = format!("leases/{}", world.number());
                self.renew(world);
            }
            1 => self.condemned = world.condemned.values().flat_map(|(_, keys)| keys.clone()).collect(),
            2 => {
                let there: HashMap<String, String> = world
                    .objects
                    .keys()
                    .filter(|key| !self.condemned.contains(*key))
                    .map(|key| (sha256_of_key(key).unwrap().to_owned(), key.clone()))
                    .collect();
                for content in &self.content {
                    let sha256 = sha256_hex(&[*content]);
                    let key = there.get(&sha256).cloned().unwrap_or_else(|| {
                        let key = object_key(&sha256, world.number());
                        self.missing.push_back(key.clone());
                        key
                    });
                    self.keys.push(key);
                }
            }
            3 => {
                if let Some(key) = self.missing.pop_front() {
                    world.objects.insert(key, world.now);
                    if world.now - self.renewed > life() / 2 {
                        return false;
                    }
                    self.renew(world);
                    return true;
                }
            }
            4 => {
                if world.now - self.renewed > life() / 2 {
                    return false;
                }
                let id = world.number();
                world.records.insert(id, self.keys.clone());
            }
            _ => {
                world.leases.remove(&self.lease);
                return false;
            }
        }
        self.step += 1;
        true
    }

    fn renew(&mut self, world: &mut World) {
        self.renewed = world.now;
        world.leases.insert(self.lease.clone(), world.now);
    }
}

fn life() -> i64 {
    i64::try_from(LEASE_LIFE.as_secs()).unwrap()
}

/// `Copies::look` and `Copies::collect`, a request at a time.
#[derive(Default)]
struct Collect {
    step: u8,
    seen: Seen,
    plan: Plan,
}

impl Collect {
    fn go(&mut self, world: &mut World) -> bool {
        match self.step {
            0 => {
                self.seen.now = world.now;
                self.seen.leases = world.leases.clone().into_iter().collect();
            }
            1 => self.seen.named = world.records.values().flatten().cloned().collect(),
            2 => {
                let list = |(key, (at, keys)): (&String, &(i64, Vec<String>))| Condemned {
                    key: key.clone(),
                    at: *at,
                    keys: keys.clone(),
                };
                self.seen.condemned = world.condemned.iter().map(list).collect();
            }
            3 => {
                self.seen.objects = world.objects.iter().map(|(key, at)| (key.clone(), *at, 1)).collect();
                self.plan = plan(&self.seen, GRACE);
            }
            4 => {
                if let Some(key) = self.plan.delete.pop() {
                    world.objects.remove(&key);
                    return true;
                }
            }
            5 => {
                if let Some(key) = self.plan.done.pop() {
                    world.condemned.remove(&key);
                    return true;
                }
                if let Some(key) = self.plan.leases.pop() {
                    world.leases.remove(&key);
                    return true;
                }
            }
            _ => {
                if !self.plan.condemn.is_empty() {
                    let key = format!("condemned/{}", world.number());
                    world.condemned.insert(key, (world.now, self.plan.condemn.clone()));
                }
                return false;
            }
        }
        self.step += 1;
        true
    }
}

/// What happens next: who, what to begin, how much later.
type Event = (u8, u8, u8, Vec<u8>);

fn happen(world: &mut World, agents: &mut Vec<Agent>, (who, what, later, content): Event) {
    world.now += match later {
        0..=199 => i64::from(later),
        200..=239 => HOUR,
        240..=251 => 13 * HOUR,
        _ => 50 * HOUR,
    };
    match what {
        0..=11 => agents.push(Agent::Copy(Copy { content, ..Copy::default() })),
        12..=23 => agents.push(Agent::Collect(Collect::default())),
        24..=31 => {
            let ids: Vec<u64> = world.records.keys().copied().collect();
            if let Some(id) = ids.get(usize::from(who) % ids.len().max(1)) {
                world.records.remove(id);
            }
        }
        32..=39 if !agents.is_empty() => _ = agents.remove(usize::from(who) % agents.len()),
        _ if !agents.is_empty() => {
            let at = usize::from(who) % agents.len();
            // Some run on for a while, others are overtaken at every step.
            for _ in 0..=what % 5 {
                let goes_on = match &mut agents[at] {
                    Agent::Copy(copy) => copy.go(world),
                    Agent::Collect(collect) => collect.go(world),
                };
                world.check();
                if !goes_on {
                    agents.remove(at);
                    break;
                }
            }
        }
        _ => {}
    }
    world.check();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn whatever_is_killed_when_nothing_named_is_deleted_and_the_rest_goes_in_the_end(
        events in prop::collection::vec((any::<u8>(), any::<u8>(), any::<u8>(), prop::collection::vec(0_u8..6, 1..4)), 1..250)
    ) {
        let (mut world, mut agents) = (World { now: 1_000_000, ..World::default() }, Vec::new());
        for event in events {
            happen(&mut world, &mut agents, event);
        }
        // Everybody is dead, and three collectors come by, days apart.
        for _ in 0..3 {
            world.now += 50 * HOUR;
            let mut collector = Collect::default();
            while collector.go(&mut world) {}
            world.check();
        }
        let named: HashSet<&String> = world.records.values().flatten().collect();
        prop_assert!(world.objects.keys().all(|key| named.contains(key)), "garbage stays");
        prop_assert!(world.leases.is_empty(), "leases stay");
    }
}
