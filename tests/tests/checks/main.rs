//! The checks against real servers: every violation is made by the way it happens in life, or by editing the catalog.

mod as_owner;
mod carried;
mod code;
mod columns;
mod foreign_keys;
mod many;
mod partitions;
mod rows;
mod sessions;
mod states;
mod structure;
mod switches;
mod unique;
mod whole;

use std::sync::atomic::{AtomicU32, Ordering};

use checks::{
    Accepted, CheckKind, CheckResults, Comparison, Expectation, FailOn, Finding, Level, LossLimits, Options,
    RowComparison, Severity, compare, compare_announced, compare_content, compare_rows, run, run_parallel,
    run_with_scratch, untouched,
};
use common::postgres::Client;
use tests::Cluster;
use tokio_postgres::{Config, NoTls};

static DATABASES: AtomicU32 = AtomicU32::new(0);

/// A fresh database on one server.
struct Database {
    config: Config,
    client: Client,
    version: i32,
    fresh: tests::Database<'static>,
}

/// Runs `test` on every major version, each time in a database of its own.
async fn on_every_server(test: impl AsyncFn(&Database)) {
    for major in tests::cluster::majors() {
        eprintln!("on PostgreSQL {major}");
        let cluster = Cluster::shared(major);
        let fresh = cluster.fresh_database("checks");
        let config: Config = fresh.url().parse().unwrap();
        let client = connect(&config).await;
        let version = i32::try_from(major).unwrap();
        test(&Database { config, client, version, fresh }).await;
    }
}

async fn connect(config: &Config) -> Client {
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client.into()
}

impl Database {
    /// Fills it with whatever PostgreSQL can hold.
    fn load_everything(&self) {
        tests::fixtures::load_everything(&self.fresh);
    }

    /// A fresh role; the test drops it.
    async fn role(&self, name: &str) -> Role {
        let number = DATABASES.fetch_add(1, Ordering::Relaxed);
        let role = Role { name: format!("safe_run_{name}_{}_{number}", std::process::id()) };
        self.sql(&format!("CREATE ROLE {} LOGIN", role.quoted())).await;
        role
    }

    async fn sql(&self, sql: &str) {
        if let Err(error) = self.client.batch_execute(sql).await {
            panic!("{error:?} in {sql}");
        }
    }

    /// Every check of the default level but advice, which has tests of its own.
    async fn checked(&self) -> CheckResults {
        self.checked_with(Options { skip: vec![CheckKind::Advice], ..Options::default() }).await
    }

    async fn checked_with(&self, options: Options) -> CheckResults {
        run(&self.client, &options).await.unwrap()
    }
}

/// A role of one test; the server is shared.
struct Role {
    name: String,
}

impl Role {
    fn quoted(&self) -> String {
        format!("\"{}\"", self.doubled())
    }

    fn doubled(&self) -> String {
        self.name.replace('"', "\"\"")
    }
}

fn details(findings: &[Finding]) -> Vec<&str> {
    findings.iter().map(|finding| finding.detail.as_str()).collect()
}

fn failures(results: &CheckResults) -> Vec<&str> {
    results
        .findings
        .iter()
        .filter(|finding| finding.severity == Severity::Failure)
        .map(|finding| finding.detail.as_str())
        .collect()
}

fn compared(before: &CheckResults, after: &CheckResults) -> Comparison {
    compare(before, after, FailOn::New)
}

fn rows_compared(before: &CheckResults, after: &CheckResults, expected: &Expectation) -> RowComparison {
    compare_rows(before, after, |_| expected.clone(), &LossLimits::default())
}

const SHOP: &str = "
CREATE TABLE orders (id int PRIMARY KEY, total numeric NOT NULL CONSTRAINT total_positive CHECK (total > 0));
CREATE TABLE order_items (id serial PRIMARY KEY, order_id int REFERENCES orders (id), qty int);
INSERT INTO orders SELECT n, n FROM generate_series(1, 100) n;
INSERT INTO order_items (order_id, qty) SELECT n, 1 FROM generate_series(1, 100) n;";

/// Deletes orders and leaves their items: what happens when triggers are off.
const MAKE_ORPHANS: &str = "
SET session_replication_role = replica;
DELETE FROM orders WHERE id IN (17, 18, 44);
SET session_replication_role = origin;";
