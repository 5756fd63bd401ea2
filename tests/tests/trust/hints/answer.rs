//! Runs one command line, and keeps what it answered and which hints were given.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use tests::binaries;

/// Nobody listens there.
pub const NOWHERE: &str = "postgresql://u@127.0.0.1:1/db";

/// One answer, with the folder's own name masked, and the hints that were given. Words before the program that are `NAME=value`
/// go into its environment.
pub fn answer(folder: &Path, arguments: &[&str]) -> (String, String) {
    let trace = folder.join("hints.trace");
    let _ = std::fs::remove_file(&trace);
    let is_variable = |word: &&&str| word.split_once('=').is_some_and(|(name, _)| is_upper(name));
    let variables = arguments.iter().take_while(is_variable).count();
    let (environment, words) = arguments.split_at(variables);
    let (program, rest) = words.split_first().expect("a program");
    let place = folder.display().to_string();
    let filled = |argument: &&str| argument.replace("{URL}", NOWHERE).replace("{FOLDER}", &place);
    let mut command: Command = binaries::command(program);
    command.args(rest.iter().map(filled)).current_dir(folder).stdin(Stdio::null());
    command.env("HOME", folder).env("SAFE_RUN_HINT_TRACE", &trace).env("LC_ALL", "C");
    for (name, value) in environment.iter().filter_map(|word| word.split_once('=')) {
        command.env(name, filled(&value));
    }
    let output = command.output().expect("the program runs");
    let ended = output.status.code().map_or("killed".to_owned(), |code| format!("exit {code}"));
    let said = String::from_utf8_lossy(&output.stderr).replace(&place, "<folder>");
    // A report has its hint on stdout.
    let told = String::from_utf8_lossy(&output.stdout).replace(&place, "<folder>");
    let reported = told.lines().map(str::trim).filter(|line| line.starts_with("hint: "));
    let wanted = |line: &&str| line.starts_with("error: ") || line.starts_with("hint: ");
    let lines: Vec<&str> = said.lines().filter(wanted).chain(reported).collect();
    let answer = format!("$ {}\n{}\n{ended}\n", arguments.join(" "), lines.join("\n"));
    let given = std::fs::read_to_string(trace).unwrap_or_default();
    pass_on(&given);
    (answer, given)
}

fn is_upper(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_')
}

/// To the trace of the whole run, if one is written.
fn pass_on(given: &str) {
    let Some(path) = std::env::var_os("SAFE_RUN_HINT_TRACE") else { return };
    let mut all = std::fs::File::options().create(true).append(true).open(path).expect("the trace");
    std::io::Write::write_all(&mut all, given.as_bytes()).expect("the trace is written");
}

/// Dates, times and numbers of sessions are others in each run.
pub fn without_times(text: &str) -> String {
    let shape =
        |word: &str| -> String { word.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect() };
    let lines = text.lines().map(|line| {
        let mut before = "";
        let words = line.split(' ').map(|word| {
            let is_number_of = std::mem::replace(&mut before, word);
            match shape(word).trim_end_matches(['.', ',', ':', ')']) {
                "0000-00-00" => "<date>".to_owned(),
                "00:00:00Z" => "<time>".to_owned(),
                time if time.starts_with("00:00:00.") => "<time>)".to_owned(),
                number if matches!(is_number_of, "pid" | "(pid") && number.bytes().all(|b| b == b'0') => {
                    "<pid>".to_owned()
                }
                _ => word.to_owned(),
            }
        });
        words.collect::<Vec<_>>().join(" ")
    });
    lines.collect::<Vec<_>>().join("\n") + "\n"
}
