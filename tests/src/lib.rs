//! What the tests stand on: real throw-away servers, nasty databases, and an oracle that is not ours.
//!
//! - [`cluster`]: servers of every supported major version, one fresh database per test
//! - [`psql`]: PostgreSQL's own client tools, run as processes; held-open sessions for locks and transactions
//! - [`oracle`]: is this database the same as that one? By `pg_dump` and row hashes
//! - [`ledger`]: an application that writes all the time and notes on another server what was acknowledged
//! - [`fixtures`]: a database with everything in it, and a realistic one
//! - [`random_schema`]: databases that a seed makes, with odd names, types, constraints and rows
//! - [`binaries`]: finds the built `backup`, `restore` and `safe-run`
//! - [`json_schema`]: does this document fit that schema?
//! - [`other_tools`]: the real migration tools that PyPI and npm have
//! - [`outcome`]: runs them as a user does, and holds what they said and how they ended
//! - [`daemon`]: `backup schedule` as a process, asked over HTTP
//! - [`writes`]: one row into every table, as an application would after a restore
//! - [`planted`]: code of a low role in every place where PostgreSQL evaluates some, which tells as whom it ran
//! - [`protected_run`]: `safe-run` in a folder of its own, and what the oracle says about its database
//!
//! Nothing here may use the code under test, nor a PostgreSQL driver: an oracle that shares a bug with the
//! tool that it judges is blind to it. A missing server is a failure, never a skip.

pub mod binaries;
pub mod cluster;
pub mod daemon;
pub mod fixtures;
mod installation;
pub mod json_schema;
pub mod ledger;
pub mod oracle;
pub mod other_tools;
pub mod outcome;
pub mod planted;
pub mod protected_run;
pub mod psql;
pub mod random_schema;
mod servers;
pub mod writes;

pub use cluster::{Cluster, Database, Options};
pub use daemon::Daemon;
pub use ledger::Application;
pub use oracle::Fingerprint;
pub use outcome::{Outcome, Snapshots};
pub use planted::Planted;
pub use protected_run::{Ended, ProtectedRun, Running, until};
pub use psql::Session;

/// Runs one test body on every supported major version, as separate tests `name::postgresql_14` and so on.
///
/// ```ignore
/// tests::on_every_major! {
///     fn renames_commit_together(cluster: &Cluster) { … }
/// }
/// ```
#[macro_export]
macro_rules! on_every_major {
    ($($(#[$meta:meta])* fn $name:ident($cluster:ident: &Cluster) $body:block)+) => { $(
        $(#[$meta])*
        mod $name {
            use super::*;
            fn body($cluster: &$crate::Cluster) $body
            #[test] fn postgresql_14() { body($crate::Cluster::shared(14)); }
            #[test] fn postgresql_15() { body($crate::Cluster::shared(15)); }
            #[test] fn postgresql_16() { body($crate::Cluster::shared(16)); }
            #[test] fn postgresql_17() { body($crate::Cluster::shared(17)); }
            #[test] fn postgresql_18() { body($crate::Cluster::shared(18)); }
            #[test] fn postgresql_19() { body($crate::Cluster::shared(19)); }
        }
    )+ };
}

#[cfg(test)]
mod unit {
    use std::path::Path;

    /// All Rust sources of the workspace in one text.
    fn sources(folder: &Path, text: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                sources(&path, text);
            } else if name.ends_with(".rs") {
                text.push_str(&std::fs::read_to_string(&path).unwrap());
            }
        }
    }

    /// A file that no suite names is never compiled, and its tests never run.
    #[test]
    fn every_file_of_tests_belongs_to_a_suite() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let mut suites: Vec<String> = Vec::new();
        for suite in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            assert!(suite.join("main.rs").exists(), "{} is no suite", suite.display());
            suites.push(suite.file_name().unwrap().to_string_lossy().into_owned());
            are_modules(&suite, &suite.join("main.rs"));
        }
        suites.sort_unstable();
        assert_eq!(suites, ["backup_restore", "checks", "safe_run", "sqlite", "trust"]);
    }

    /// What the deploy files say of each other: a secret that is read is mounted and lies beside the file, a unit that is started is there.
    #[test]
    fn what_the_deploy_files_need_is_named_where_it_lies() {
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
        let compose = std::fs::read_to_string(deploy.join("docker/compose.yaml")).unwrap();
        let mounted = compose.lines().find_map(|line| line.trim().strip_prefix("secrets: [")).unwrap();
        let mounted: Vec<&str> = mounted.trim_end_matches(']').split(", ").collect();
        let read: std::collections::BTreeSet<&str> = compose
            .split("/run/secrets/")
            .skip(1)
            .map(|rest| rest.split(|c: char| !(c.is_alphanumeric() || c == '-')).next().unwrap())
            .collect();
        assert_eq!(read, mounted.into_iter().collect());
        assert!(compose.contains("#   cd deploy/docker\n"), "paths of secrets count from the file");
        for name in read {
            assert!(compose.contains(&format!("\n  {name}:\n    file: {name}\n")), "{name}");
            assert!(
                compose.contains(&format!("> {name}\n")) || compose.contains(&format!("> {name};")),
                "{name}"
            );
        }
        let mut units = 0;
        for entry in std::fs::read_dir(deploy.join("systemd")).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            let steps = text.lines().filter_map(|line| line.strip_prefix("#   "));
            let steps: Vec<&str> = steps.collect();
            for step in steps
                .iter()
                .filter(|step| step.starts_with("install -m 06") || step.starts_with("install -m 0644"))
            {
                let sources = step
                    .split_whitespace()
                    .filter(|word| word.starts_with("../") || word.starts_with("safe-run-"));
                for source in sources.filter(|word| !word.ends_with('/')) {
                    assert!(deploy.join("systemd").join(source).exists(), "{source}: {step}");
                    units += 1;
                }
            }
            let is_installed = steps.iter().any(|step| step.starts_with("systemctl enable --now "));
            assert!(
                steps.is_empty() || is_installed && steps.contains(&"systemctl daemon-reload"),
                "{steps:?}"
            );
        }
        assert!(units >= 4, "{units}");
    }

    /// Each file in `folder` is a module of `parent`.
    fn are_modules(folder: &Path, parent: &Path) {
        let named = std::fs::read_to_string(parent).unwrap();
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "snapshots" {
                    are_modules(&path, &path.with_extension("rs"));
                }
            } else if path != *parent {
                assert!(
                    named
                        .lines()
                        .any(|line| line.ends_with(&format!("mod {name};")) && !line.starts_with("//")),
                    "{} is named by no `mod` of {}",
                    path.display(),
                    parent.display()
                );
            }
        }
    }

    #[test]
    fn every_test_that_the_list_of_hazards_names_exists() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut text = String::new();
        sources(&root, &mut text);
        let list = std::fs::read_to_string(root.join("tests/HAZARDS.md")).unwrap();
        let rows = list.lines().filter(|line| line.starts_with("| ")).skip(1);
        let mut count = 0;
        for row in rows {
            let names: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
            assert!(!names.is_empty(), "no test: {row}");
            for name in names {
                assert!(text.contains(&format!("fn {name}(")), "there is no test {name}: {row}");
                count += 1;
            }
        }
        assert!(count > 50, "{count} tests");
        // In prose and lists a name of a test is told by its length.
        for name in list.split('`').skip(1).step_by(2).filter(|name| name.matches('_').count() > 3) {
            assert!(text.contains(&format!("fn {name}(")), "there is no test {name}");
        }
    }

    #[test]
    fn every_test_and_module_that_the_evidence_names_exists() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut text = String::new();
        sources(&root, &mut text);
        let list = std::fs::read_to_string(root.join("docs/evidence.md")).unwrap();
        let rows = list.lines().filter(|line| line.starts_with("| ") && line.ends_with("` |"));
        assert!(rows.clone().count() > 10, "{list}");
        for name in rows.flat_map(|row| row.split('`').skip(1).step_by(2)) {
            let found = match name.strip_suffix("::") {
                Some(module) => text.contains(&format!("\nmod {module};")),
                None => text.contains(&format!("fn {name}(")),
            };
            assert!(found, "docs/evidence.md names {name}, which there is not");
        }
    }
}
