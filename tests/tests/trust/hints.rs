//! Every hint has a case that leads to it: the ledger `tests/hints.txt` names, for each sentence of the sources, a test in which it
//! is given. A hint that is added without a case fails here, and so does a line for a hint or a test that is gone.
//!
//! The ledger is made by running tests with `SAFE_RUN_HINT_TRACE=/absolute/path`, and then this file with
//! `SAFE_RUN_HINT_LEDGER=/the/same/path`: sentences keep the case that they have, and those without one get one if the trace has it.
//! A whole run of `scripts/test` traces too, and at its end each case has to have given its hint in the test that the ledger names.

mod answer;
mod lines;
pub mod scan;
mod seldom;
mod steps;
mod stories;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use scan::{Hints, fits, hints, root};

/// What stands in the place of a case where there is none.
const NONE: &str = "no case yet";

/// Case by sentence, by file.
type Ledger = BTreeMap<String, BTreeMap<String, String>>;

fn path() -> std::path::PathBuf {
    root().join("tests/hints.txt")
}

/// `file`, below it sentences, below each its case.
fn ledger() -> Ledger {
    let text = std::fs::read_to_string(path()).unwrap_or_default();
    let mut ledger = Ledger::new();
    let (mut file, mut sentence) = (String::new(), String::new());
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        if let Some(case) = line.strip_prefix("    ") {
            ledger.entry(file.clone()).or_default().insert(sentence.clone(), case.to_owned());
        } else if let Some(text) = line.strip_prefix("  ") {
            sentence = text.replace("\\n", "\n");
        } else {
            line.clone_into(&mut file);
        }
    }
    ledger
}

/// Names of test functions, and of what their macros make of them.
fn functions() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for crate_name in scan::CRATES.into_iter().chain(["tests"]) {
        let mut files = scan::every_file(&root().join(crate_name).join("src"));
        if crate_name == "tests" {
            files.extend(scan::every_file(&root().join("tests/tests")));
        }
        for file in files {
            let text = std::fs::read_to_string(file).expect("a source file");
            names.extend(text.split(|c: char| !(c.is_alphanumeric() || c == '_')).map(str::to_owned));
        }
    }
    names
}

/// The function of `tests::file module::function`; where a macro makes one for each major, the module is named for it.
fn name_of(case: &str) -> &str {
    let path = case.rsplit(' ').next().unwrap_or(case);
    let mut names = path.rsplit("::").skip_while(|name| name.starts_with("postgresql_"));
    names.next().unwrap_or(path)
}

#[test]
fn every_hint_has_a_case_that_leads_to_it() {
    if let Some(trace) = std::env::var_os("SAFE_RUN_HINT_LEDGER") {
        write(&std::fs::read_to_string(trace).expect("the trace"));
    }
    let (ledger, functions) = (ledger(), functions());
    let mut wrong = String::new();
    let mut without = 0;
    let all = hints();
    for (file, sentences) in &all {
        for sentence in sentences {
            match ledger.get(file).and_then(|known| known.get(sentence)) {
                None => writeln!(wrong, "not in the ledger: {file}: {sentence}").expect("a string"),
                Some(case) if case == NONE => without += 1,
                Some(case) => {
                    if !functions.contains(name_of(case)) {
                        writeln!(wrong, "its case is gone: {file}: {sentence}: {case}").expect("a string");
                    }
                }
            }
        }
    }
    for (file, sentences) in &ledger {
        for sentence in sentences.keys() {
            if !all.get(file).is_some_and(|known| known.contains(sentence)) {
                writeln!(wrong, "in the ledger and not in the sources: {file}: {sentence}")
                    .expect("a string");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert_eq!(without, 0, "hints have no case");
}

/// Makes the ledger anew from the sources, the ledger as it is, and what tests were seen to give.
fn write(trace: &str) {
    let given: Vec<serde_json::Value> =
        trace.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let known = ledger();
    let functions = functions();
    let mut text = String::from(
        "# Every hint of the sources, and a test that leads to it; tests/tests/trust/hints.rs says how it is made.\n",
    );
    let all = hints();
    for (file, sentences) in &all {
        writeln!(text, "\n{file}").expect("a string");
        for sentence in sentences {
            let case = known.get(file).and_then(|known| known.get(sentence)).filter(|case| *case != NONE);
            let case = case.filter(|case| functions.contains(name_of(case)));
            let case = case.cloned().or_else(|| seen(&given, file, sentence));
            let case = case.unwrap_or_else(|| NONE.to_owned());
            writeln!(text, "  {}\n    {case}", sentence.replace('\n', "\\n")).expect("a string");
        }
    }
    std::fs::write(path(), text).expect("the ledger is written");
}

/// The first test by name that was given the hint. The place is the caller's: a hint that another file makes counts there too.
fn seen(given: &[serde_json::Value], file: &str, sentence: &str) -> Option<String> {
    let of = |same_file: bool| {
        given
            .iter()
            .filter(|line| !same_file || line["file"] == file)
            .filter(|line| line["hint"].as_str().is_some_and(|hint| fits(sentence, hint)))
            .filter_map(|line| {
                let (binary, test) = (line["binary"].as_str()?, line["test"].as_str()?);
                (!test.is_empty()).then(|| format!("{binary} {test}"))
            })
            // Those of this file are compared word for word.
            .min_by_key(|case| (!case.starts_with("tests::trust hints::"), case.clone()))
    };
    of(true).or_else(|| of(false))
}

/// The cases that need no server, word for word.
#[test]
fn wrong_commands_and_settings_are_answered_with_the_next_step() {
    let (said, given) = lines::answers();
    assert_met("wrong_commands_and_settings_are_answered_with_the_next_step", &given);
    insta::assert_snapshot!(said);
}

#[test]
fn what_is_no_server_or_lets_nobody_in_is_answered_with_the_next_step() {
    let (said, given) = wire::answers();
    assert_met("what_is_no_server_or_lets_nobody_in_is_answered_with_the_next_step", &given);
    insta::assert_snapshot!(said);
}

/// Stories on databases of their own, word for word.
macro_rules! stories {
    ($($name:ident: $setup:expr, $steps:expr;)*) => {$(
        #[test]
        fn $name() {
            let database = tests::Cluster::shared(18).fresh_database("hints");
            let (said, given) = steps::story(&database, $setup, $steps);
            assert_met(stringify!($name), &given);
            insta::assert_snapshot!(said);
        }
    )*};
}

stories! {
    what_goes_wrong_with_a_small_database_is_answered_with_the_next_step: steps::SMALL, steps::STEPS;
    what_a_role_may_not_is_answered_with_the_next_step: stories::ROLES, stories::RIGHTS;
    what_a_part_of_a_snapshot_lacks_is_answered_with_the_next_step: stories::TABLES, stories::PARTS;
    what_is_wrong_with_a_repository_is_answered_with_the_next_step: steps::SMALL, stories::REPOSITORY;
    what_is_wrong_with_a_history_is_answered_with_the_next_step: steps::SMALL, stories::HISTORIES;
    what_seldom_happens_is_answered_with_the_next_step: steps::SMALL, seldom::SELDOM;
    what_a_role_that_may_much_may_not_is_answered_with_the_next_step: seldom::MIGHTY, seldom::LIMITS;
}

/// After a whole run: `SAFE_RUN_HINT_SEEN` names its trace.
#[test]
#[ignore = "needs the trace of a whole run, which scripts/test gives it"]
fn every_case_of_the_ledger_gave_its_hint_in_this_run() {
    let trace = std::env::var_os("SAFE_RUN_HINT_SEEN").expect("scripts/test names the trace");
    let trace = std::fs::read_to_string(trace).expect("the trace");
    let given: Vec<serde_json::Value> =
        trace.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let mut wrong = String::new();
    for (file, sentences) in &ledger() {
        for (sentence, case) in sentences.iter().filter(|(_, case)| *case != NONE) {
            let is_its = |line: &serde_json::Value| {
                line["test"].as_str().is_some_and(|test| name_of(test) == name_of(case))
                    && line["hint"].as_str().is_some_and(|hint| fits(sentence, hint))
            };
            if !given.iter().any(is_its) {
                writeln!(wrong, "{file}: {sentence}: not given by {case}").expect("a string");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Every hint that the ledger says is met in the test was given in it.
#[track_caller]
fn assert_met(test: &str, given: &str) {
    let given: Vec<serde_json::Value> =
        given.lines().map(|line| serde_json::from_str(line).expect("a line of the trace")).collect();
    for (file, sentences) in &ledger() {
        for sentence in
            sentences.iter().filter(|(_, case)| case.ends_with(test)).map(|(sentence, _)| sentence)
        {
            let is_given =
                |line: &serde_json::Value| line["hint"].as_str().is_some_and(|hint| fits(sentence, hint));
            assert!(given.iter().any(is_given), "{file}: {sentence}: not given by {test}");
        }
    }
}

#[test]
fn the_scan_finds_hints_wherever_they_are_made() {
    let source = r#"
        const HELP: &str = "Do what stands in a constant.";
        const OTHER: &str = "Not a hint at all here.";
        fn direct() { Error::failed("x").with_hint("Do this at once, please.") }
        fn formatted(n: u8) { error.with_hint(format!("Run `it {}` again.", n)).with_database_state("Nothing was changed at all.") }
        fn named() { error.with_hint(HELP) }
        fn hint_of(n: u8) -> &'static str { match n { 0 => "Do the first thing.", _ => "too short" } }
        fn elsewhere() { let what = "Take it from a variable."; error.with_hint(what) }
        fn unrelated() { say("Nobody is told of this."); }
        #[cfg(test)] mod tests { fn f() { error.with_hint("Only a test says so.") } }
    "#;
    let found: Vec<String> = scan::of(source).expect("it parses").into_iter().collect();
    assert_eq!(
        found,
        [
            "Do the first thing.",
            "Do this at once, please.",
            "Do what stands in a constant.",
            "Run `it {}` again.",
            "Take it from a variable.",
        ]
    );
    assert!(fits("Run `it {}` again, {{x}}.", "Run `it 3` again, {x}."));
    assert!(!fits("Run `it {}` again.", "Run `that 3` again."));
    let _: Hints = hints();
}
