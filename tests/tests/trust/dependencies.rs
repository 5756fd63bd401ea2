//! What the programs are built from: packages of one registry, under the licences of `deny.toml`, each of ours used where it is named.
//! None of them is known to be unsound or attacked in the version that is used: `tests/advisories.toml` is a copy of what was known.
//! `cargo deny check` looks for newer advisories and for copies in several versions besides; it needs the network.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use super::hints::scan;
use semver::{Version, VersionReq};
use serde_json::Value;

/// The one place from which packages come.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Ours and all that they need where the tests run: of other systems nothing was fetched.
fn packages() -> Vec<Value> {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--all-features"])
        .args(["--filter-platform", &platform])
        .current_dir(scan::root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    metadata["packages"].as_array().expect("a list").clone()
}

/// The licences that `deny.toml` allows.
fn allowed() -> BTreeSet<String> {
    let text = fs::read_to_string(scan::root().join("deny.toml")).expect("it is there");
    let deny: toml::Table = text.parse().expect("it is TOML");
    let allowed = deny["licenses"]["allow"].as_array().expect("a list");
    allowed.iter().map(|licence| licence.as_str().expect("a text").to_owned()).collect()
}

fn is_allowed(licence: &str, allowed: &BTreeSet<String>) -> bool {
    let expression = spdx::Expression::parse_mode(licence, spdx::ParseMode::LAX);
    expression.is_ok_and(|expression| expression.evaluate(|wanted| allowed.contains(&wanted.to_string())))
}

#[test]
fn every_package_comes_from_the_registry_under_a_licence_that_is_allowed() {
    let allowed = allowed();
    assert!(is_allowed("MIT/Apache-2.0", &allowed) && is_allowed("GPL-3.0-only OR MIT", &allowed));
    assert!(!is_allowed("GPL-3.0-only AND MIT", &allowed) && !is_allowed("", &allowed));
    let packages = packages();
    assert!(packages.len() > 100, "{}", packages.len());
    for package in packages {
        let name = format!("{} {}", package["name"], package["version"]);
        let source = package["source"].as_str();
        assert!(source.is_none_or(|source| source == REGISTRY), "{name} comes from {source:?}");
        let licence = package["license"].as_str().unwrap_or_default();
        assert!(is_allowed(licence, &allowed), "{name}: the licence {licence:?} is not in deny.toml");
    }
}

#[test]
fn every_dependency_of_ours_is_used() {
    let mut unused = Vec::new();
    for package in packages().iter().filter(|package| package["source"].is_null()) {
        let folder =
            Path::new(package["manifest_path"].as_str().expect("a path")).parent().expect("a folder");
        for dependency in package["dependencies"].as_array().expect("a list") {
            let name = dependency["rename"].as_str().or(dependency["name"].as_str()).expect("a name");
            let folders: &[&str] = match dependency["kind"].as_str() {
                None => &["src"],
                Some("build") => &["build.rs"],
                Some(_) => &["src", "tests", "benches", "examples"],
            };
            let texts = folders.iter().flat_map(|name| texts(&folder.join(name)));
            if !texts.into_iter().any(|text| names(&text, &name.replace('-', "_"))) {
                unused.push(format!("{}: {name}", package["name"]));
            }
        }
    }
    assert_eq!(unused, Vec::<String>::new());
}

/// The names and versions in Cargo.lock that come from the registry: also those that other systems need.
fn locked() -> Vec<(String, Version)> {
    let text = fs::read_to_string(scan::root().join("Cargo.lock")).expect("it is there");
    let lock: toml::Table = text.parse().expect("it is TOML");
    let packages = lock["package"].as_array().expect("a list").iter();
    let word = |package: &toml::Value, key: &str| package[key].as_str().expect("a text").to_owned();
    packages
        .filter(|package| package.get("source").is_some())
        .map(|package| (word(package, "name"), word(package, "version").parse().expect("a version")))
        .collect()
}

/// Whether one of these requirements, as an advisory writes them, holds the version.
fn holds(requirements: &toml::Value, version: &Version) -> bool {
    requirements.as_array().expect("a list").iter().any(|requirement| {
        let requirement = requirement.as_str().expect("a text");
        requirement.parse::<VersionReq>().expect("a requirement").matches(version)
    })
}

#[test]
fn no_package_is_used_in_a_version_that_an_advisory_names() {
    let text = fs::read_to_string(scan::root().join("tests/advisories.toml")).expect("it is there");
    let known: toml::Table = text.parse().expect("it is TOML");
    let looked_for: BTreeSet<&str> =
        known["packages"].as_array().expect("a list").iter().filter_map(toml::Value::as_str).collect();
    let locked = locked();
    let not_looked_for: BTreeSet<&str> =
        locked.iter().map(|(name, _)| name.as_str()).filter(|name| !looked_for.contains(name)).collect();
    assert!(not_looked_for.is_empty(), "run scripts/advisories for {not_looked_for:?}");
    let advisories = known["advisory"].as_array().expect("a list");
    let applies = |name: &str, version: &Version| -> Vec<&str> {
        let of_it = advisories.iter().filter(|advisory| advisory["package"].as_str() == Some(name));
        let bad = of_it.filter(|advisory| {
            !holds(&advisory["patched"], version) && !holds(&advisory["unaffected"], version)
        });
        bad.filter_map(|advisory| advisory["id"].as_str()).collect()
    };
    assert_eq!(applies("time", &Version::new(0, 3, 46)), ["RUSTSEC-2026-0009"], "one that is known");
    for (name, version) in &locked {
        assert_eq!(applies(name, version), Vec::<&str>::new(), "{name} {version}");
    }
}

/// The Rust below a folder, or in a file.
fn texts(path: &Path) -> Vec<String> {
    if path.is_dir() {
        let entries = fs::read_dir(path).expect("it can be read");
        return entries.flat_map(|entry| texts(&entry.expect("an entry").path())).collect();
    }
    if path.extension().is_none_or(|end| end != "rs") {
        return Vec::new();
    }
    fs::read_to_string(path).into_iter().collect()
}

/// Whether the text has the name as a whole word.
fn names(text: &str, name: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(name)
        .any(|(at, _)| !text[..at].ends_with(is_word) && !text[at + name.len()..].starts_with(is_word))
}
