//! An application that writes all the time, over several connections, and notes every acknowledged write on *another*
//! server: what is acknowledged must be there in the end, and what is there must have been written.
//!
//! Each write is one INSERT in a transaction of its own. The client knows one of three things about it: acknowledged,
//! refused (the server said an error and goes on), or nothing, when the connection broke. It does what applications do:
//! it comes back after every failure.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::cluster::{Cluster, Database};
use crate::psql;

/// How many connections write.
const WRITERS: u64 = 3;

/// The application while it runs.
pub struct Application<'l> {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    writers: Vec<JoinHandle<BTreeSet<u64>>>,
    url: String,
    ledger: Database<'l>,
}

/// What became of the writes.
pub struct Ledger {
    /// Those that were acknowledged, as the other server has them.
    pub acknowledged: BTreeSet<u64>,
    /// Those of which nobody knows.
    pub unknown: BTreeSet<u64>,
    /// Those that are in the database.
    pub there: BTreeSet<u64>,
    /// How many were refused.
    pub refused: u64,
}

impl<'l> Application<'l> {
    /// Makes the table `writes` in `database` and begins to write to it. The ledger is on `other`.
    pub fn start(database: &Database<'_>, other: &'l Cluster) -> Application<'l> {
        database.psql(
            "CREATE TABLE writes (id bigint PRIMARY KEY, by int NOT NULL, note text NOT NULL DEFAULT 'x')",
        );
        let ledger = other.fresh_database("ledger");
        ledger.psql("CREATE TABLE acknowledged (id bigint PRIMARY KEY)");
        let (stop, acknowledged, refused) = <(Arc<AtomicBool>, Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        let writers = (0..WRITERS)
            .map(|writer| {
                let (url, ledger) = (database.url(), ledger.url());
                let (stop, acknowledged, refused) = (stop.clone(), acknowledged.clone(), refused.clone());
                std::thread::spawn(move || {
                    let mut book = psql::Session::open(&ledger);
                    let mut session: Option<psql::Session> = None;
                    let mut unknown = BTreeSet::new();
                    let mut next = writer * 1_000_000;
                    while !stop.load(Ordering::SeqCst) {
                        let Some(open) = session.as_mut() else {
                            // Not even a connection: nothing was written.
                            session = psql::Session::try_open(&url);
                            std::thread::sleep(Duration::from_millis(20));
                            continue;
                        };
                        next += 1;
                        match open.try_run(&format!("INSERT INTO writes (id, by) VALUES ({next}, {writer})"))
                        {
                            Ok(said) if !said.contains("(psql ended)") => {
                                book.run(&format!("INSERT INTO acknowledged VALUES ({next})"));
                                acknowledged.fetch_add(1, Ordering::SeqCst);
                            }
                            Err(error)
                                if !error.contains("(psql ended)") && !error.contains("connection") =>
                            {
                                refused.fetch_add(1, Ordering::SeqCst);
                            }
                            Ok(_) | Err(_) => {
                                unknown.insert(next);
                                session = None;
                            }
                        }
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    unknown
                })
            })
            .collect();
        Application { stop, acknowledged, refused, writers, url: database.url(), ledger }
    }

    /// How many writes were acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Waits until more writes are acknowledged than now: the application works.
    #[track_caller]
    pub fn until_it_writes(&self) {
        let before = self.acknowledged();
        crate::until("the application writes", || self.acknowledged() > before + 5);
    }

    /// Ends it and settles the accounts.
    pub fn stop(self) -> Ledger {
        self.stop.store(true, Ordering::SeqCst);
        let unknown =
            self.writers.into_iter().flat_map(|writer| writer.join().expect("a writer does not panic"));
        let unknown = unknown.collect();
        let ids = |text: String| text.lines().map(|id| id.parse().expect("an id")).collect();
        Ledger {
            acknowledged: ids(self.ledger.psql("SELECT id FROM acknowledged")),
            unknown,
            there: ids(psql::run(&self.url, "SELECT id FROM writes")),
            refused: self.refused.load(Ordering::SeqCst),
        }
    }
}

impl Ledger {
    /// Acknowledged writes that are gone.
    pub fn lost(&self) -> BTreeSet<u64> {
        self.acknowledged.difference(&self.there).copied().collect()
    }

    /// Panics unless every acknowledged write is there, and nothing that nobody wrote.
    #[track_caller]
    pub fn assert_exact(&self) {
        assert_eq!(self.lost(), BTreeSet::new(), "acknowledged writes are lost");
        self.assert_nothing_invented();
    }

    /// Panics if something is there that was refused.
    #[track_caller]
    pub fn assert_nothing_invented(&self) {
        let invented: Vec<&u64> = self
            .there
            .iter()
            .filter(|id| !self.acknowledged.contains(id) && !self.unknown.contains(id))
            .collect();
        assert!(invented.is_empty(), "writes are there that were refused: {invented:?}");
    }
}
