//! The frame of every binary: runtime, signals, the error's last words, the exit code.

use std::{
    future::Future,
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use super::{Output, SharedArgs};
use crate::{
    Error, Result,
    ident::{printable, visible},
    interrupt, masking,
    postgres::{ConnectionSettings, login},
};

/// Runs a flow to its end and turns its result into the process's exit code.
///
/// The flow returns its own code for outcomes that are not errors (such as "migrations pending").
fn run<F>(output: &Output, flow: F) -> ExitCode
where
    F: Future<Output = Result<u8>>,
{
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => {
            output.error(&Error::failed(format!("could not start: {source}")));
            return ExitCode::from(1);
        }
    };
    let result = runtime.block_on(async {
        let told = output.clone();
        let listener = tokio::spawn(interrupt::listen(move |_, undoing| {
            told.err_line(if undoing {
                "An undo is running; it is finished first. Please wait."
            } else {
                "Stopping: cancelling statements and cleaning up."
            });
        }));
        let result = flow.await;
        listener.abort();
        result
    });
    // Blocking threads that still read a file must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(2));
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let error = interrupt::explain(error);
            output.error(&error);
            ExitCode::from(error.kind().exit_code())
        }
    }
}

/// The whole of a binary: parses the command line, runs the flow, and returns the exit code.
pub fn main<C, F>(shared: fn(&C) -> &SharedArgs, flow: F) -> ExitCode
where
    C: clap::Parser,
    F: AsyncFnOnce(&C, &Output) -> Result<u8>,
{
    let cli = match C::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error, &C::command()),
    };
    let output = Output::new(shared(&cli));
    let told = output.clone();
    login::tell_with(move |warning| told.warn(warning));
    run(&output, flow(&cli, &output))
}

/// Prints what clap has to say: help and version on stdout with exit code 0, a usage error on stderr with 2.
fn usage(error: &clap::Error, command: &clap::Command) -> ExitCode {
    // A reader that has gone away is not an error of ours. The arguments are in it as they were given.
    let text = masking::message(&error.render().to_string()).into_owned();
    let shown = visible(&text);
    let _ = if error.use_stderr() && shown != error.render().to_string() {
        write!(io::stderr(), "{shown}")
    } else {
        error.print()
    };
    // clap shows the message of a value that was refused, but not its hint.
    let refused = std::error::Error::source(error).and_then(|source| source.downcast_ref::<Error>());
    let meant = meant_command(error, command).map(|hint| masking::urls(&hint).into_owned());
    let hints = [meant, refused.and_then(Error::hint).map(str::to_owned)];
    for hint in hints.iter().flatten() {
        let _ = writeln!(io::stderr(), "hint: {}", visible(hint));
    }
    if error.use_stderr() && asks_for_json(std::env::args_os().skip(1)) {
        let message = text.trim_start_matches("error: ").split("\n\n").next().unwrap_or_default();
        let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
        let hint = hints.into_iter().flatten().next();
        let document = serde_json::json!({
            "schema": super::output::JSON_SCHEMA,
            "error": {"message": message, "hint": hint, "database": null, "sqlstate": null, "exit_code": 2},
        });
        let _ = writeln!(io::stdout(), "{document:#}");
    }
    ExitCode::from(if error.use_stderr() { 2 } else { 0 })
}

/// Whether the command line, which could not be read, has `--json` in it, and not in a command of somebody else.
fn asks_for_json(arguments: impl Iterator<Item = std::ffi::OsString>) -> bool {
    arguments.take_while(|word| word != "--").any(|word| word == "--json")
}

/// Where a program takes a command of somebody else, a mistyped word of its own is an argument too many for clap: which
/// word may be meant, or where the other command goes.
fn meant_command(error: &clap::Error, command: &clap::Command) -> Option<String> {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidArg) else { return None };
    if word.starts_with('-') || !command.has_subcommands() {
        return None;
    }
    let name = command.get_name();
    let near = command
        .get_subcommands()
        .map(clap::Command::get_name)
        .min_by_key(|known| strsim::osa_distance(word, known))?;
    // A third of its letters may be wrong, and one in a short word.
    if strsim::osa_distance(word, near) <= (near.len() / 3).max(1) {
        return Some(format!("Did you mean `{name} {near}`?"));
    }
    let takes_commands = command.get_positionals().any(clap::Arg::is_last_set);
    takes_commands.then(|| format!("A command to run goes after `--`: {name} -- {} …", printable(word)))
}

/// Time since the machine started, by the clock that systemd compares with.
pub fn monotonic() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// With `--wait`, waits until the server takes connections; without it, does nothing.
pub async fn wait_for_server(
    settings: &ConnectionSettings,
    limit: Option<Duration>,
    output: &Output,
) -> Result<()> {
    let Some(limit) = limit else { return Ok(()) };
    let mut told = false;
    let session = settings
        .connect_waiting(limit, |error| {
            if !told {
                output.say(&format!("waiting for the server: {error}"));
                told = true;
            }
        })
        .await?;
    session.close().await
}
