//! Every hint has a case that leads to it: the ledger `tests/hints.txt` names, for each sentence of the sources, a test in which it
//! is given. A hint that is added without a case fails here, and so does a line for a hint or a test that is gone.
//!
//! The ledger is made by running tests with `SAFE_RUN_HINT_TRACE=/absolute/path`, and then this file with
//! `SAFE_RUN_HINT_LEDGER=/the/same/path`: sentences keep the case that they have, and those without one get one if the trace has it, or
//! if a test compares with a piece of the sentence.

mod cases;
mod scan;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use scan::{Hints, fits, hints, root};

/// What stands in the place of a case where there is none.
const NONE: &str = "no case yet";

/// Hints without a case. The number only goes down: a new hint comes with its case.
const WITHOUT: usize = 246;

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
    for crate_name in ["common", "backup", "restore", "safe-run", "tests"] {
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
                    let name = case.rsplit("::").next().unwrap_or(case);
                    let name = name.rsplit(' ').next().unwrap_or(name);
                    if !functions.contains(name) {
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
    assert!(without <= WITHOUT, "{without} hints have no case, {WITHOUT} had none before");
}

/// Makes the ledger anew from the sources, the ledger as it is, and what tests were seen to give.
fn write(trace: &str) {
    let given: Vec<serde_json::Value> =
        trace.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let known = ledger();
    let functions = functions();
    let said = scan::said_in_tests();
    let mut text = String::from(
        "# Every hint of the sources, and a test that leads to it; tests/tests/hints/main.rs says how it is made.\n",
    );
    let all = hints();
    for (file, sentences) in &all {
        writeln!(text, "\n{file}").expect("a string");
        for sentence in sentences {
            let case = known.get(file).and_then(|known| known.get(sentence)).filter(|case| *case != NONE);
            let case = case
                .filter(|case| functions.contains(case.rsplit(['/', ' ', ':']).next().unwrap_or_default()));
            let case = case.cloned().or_else(|| seen(&given, file, sentence));
            let case = case.or_else(|| compared(&said, &all, sentence)).unwrap_or_else(|| NONE.to_owned());
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
            .min()
    };
    of(true).or_else(|| of(false))
}

/// The cases that need no server, word for word.
#[test]
fn wrong_commands_and_settings_are_answered_with_the_next_step() {
    let (said, given) = cases::answers();
    assert_met("wrong_commands_and_settings_are_answered_with_the_next_step", &given);
    insta::assert_snapshot!(said);
}

/// The cases of one small database, word for word.
#[test]
fn what_goes_wrong_with_a_small_database_is_answered_with_the_next_step() {
    let database = tests::Cluster::shared(18).fresh_database("hints");
    let (said, given) = cases::answers_of(&database);
    assert_met("what_goes_wrong_with_a_small_database_is_answered_with_the_next_step", &given);
    insta::assert_snapshot!(said);
}

/// Every hint that the ledger says is met in the test was given in it.
#[track_caller]
fn assert_met(test: &str, given: &str) {
    if let Some(trace) = std::env::var_os("SAFE_RUN_HINT_LEDGER") {
        let text = std::fs::read_to_string(&trace).unwrap_or_default();
        std::fs::write(trace, text + given).expect("the trace is written");
    }
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

/// The first test that compares what was said with a piece of the sentence which no other sentence has.
fn compared(said: &[(String, BTreeSet<String>)], all: &Hints, sentence: &str) -> Option<String> {
    let others: BTreeSet<&String> = all.values().flatten().filter(|other| *other != sentence).collect();
    let is_its = |text: &String| {
        scan::is_piece(sentence, text) && !others.iter().any(|other| other.contains(text.as_str()))
    };
    let found = said.iter().find(|(_, strings)| strings.iter().any(is_its));
    found.map(|(name, _)| name.clone())
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
