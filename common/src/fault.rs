//! Named points at which the crash tests kill the process for real.
//!
//! In a release build a point is nothing. In a debug build, which is what the tests run, `SAFE_RUN_FAULT=name` sends
//! this process SIGKILL when it reaches the point of that name: no destructor runs and nothing is flushed, as in a
//! power cut. A debug build never reaches a user: `cargo install` and the release profile leave the points out.

/// Dies here if the environment says so: at once, or with `SAFE_RUN_FAULT=name#2` when it comes here for the second time.
/// `SAFE_RUN_FAULT_TRACE=path` writes every point that is passed into a file, a line each.
/// `SAFE_RUN_KILL_TRACE=path` writes the point at which it dies into a file, and the test that wanted it: what `scripts/test
/// --evidence` counts.
#[cfg(debug_assertions)]
pub fn point(name: &str) {
    static PASSED: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    note("SAFE_RUN_FAULT_TRACE", &format!("{name}\n"));
    let Ok(setting) = std::env::var("SAFE_RUN_FAULT") else { return };
    let (wanted, time) = match setting.split_once('#') {
        Some((wanted, time)) => (wanted, time.parse().unwrap_or(1)),
        None => (setting.as_str(), 1),
    };
    if wanted == name && PASSED.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1 == time {
        let test = std::env::var("NEXTEST_TEST_NAME").unwrap_or_default();
        note("SAFE_RUN_KILL_TRACE", &format!("{name} {test}\n"));
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        // The signal is not always delivered before the call returns.
        std::thread::sleep(std::time::Duration::from_secs(60));
    }
}

/// Adds a line to the file that a variable names, if it does.
#[cfg(debug_assertions)]
fn note(variable: &str, line: &str) {
    if let Some(path) = std::env::var_os(variable) {
        let opened = std::fs::File::options().create(true).append(true).open(path);
        let _ = opened.and_then(|mut file| std::io::Write::write_all(&mut file, line.as_bytes()));
    }
}

/// Nothing: this build has no fault points.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point(_name: &str) {}

/// In a debug build, `SAFE_RUN_FAULT_WAIT=name=path` makes the process wait at this point for as long as the file `path`
/// exists, and say so by the file `path.reached`: a test does to the world what a bad night would do.
#[cfg(debug_assertions)]
pub fn wait(name: &str) {
    let Ok(setting) = std::env::var("SAFE_RUN_FAULT_WAIT") else { return };
    if let Some((wanted, path)) = setting.split_once('=')
        && wanted == name
    {
        let _ = std::fs::write(format!("{path}.reached"), "");
        while std::path::Path::new(path).exists() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// Nothing: this build has no fault points.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn wait(_name: &str) {}

/// In a debug build, the number that `SAFE_RUN_FAULT_NUMBER=name=number` gives for this name: a test makes small what is
/// large.
#[cfg(debug_assertions)]
pub fn number(name: &str) -> Option<u64> {
    let setting = std::env::var("SAFE_RUN_FAULT_NUMBER").ok()?;
    let (wanted, number) = setting.split_once('=')?;
    (wanted == name).then(|| number.parse().ok())?
}

/// Nothing: this build has no fault points.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn number(_name: &str) -> Option<u64> {
    None
}

/// In a debug build, `SAFE_RUN_HINT_TRACE=path` writes every hint that is given into a file, a line of JSON each, with the source
/// file that gives it and the test that leads there: the ledger of hints (tests/hints.txt) is made from it.
#[cfg(debug_assertions)]
pub fn hint(file: &str, hint: &str) {
    if std::env::var_os("SAFE_RUN_HINT_TRACE").is_none() {
        return;
    }
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let line = serde_json::json!({
        "file": file, "hint": hint, "binary": variable("NEXTEST_BINARY_ID"), "test": variable("NEXTEST_TEST_NAME"),
    });
    note("SAFE_RUN_HINT_TRACE", &format!("{line}\n"));
}

/// Nothing: this build has no fault points.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn hint(_file: &str, _hint: &str) {}
