//! The frame of every binary: runtime, signals, the error's last words, the exit code.

use std::{
    future::Future,
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use super::{Output, SharedArgs};
use crate::{Error, Result, interrupt, postgres::ConnectionSettings};

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
        Err(error) => return usage(&error),
    };
    let output = Output::new(shared(&cli));
    run(&output, flow(&cli, &output))
}

/// Prints what clap has to say: help and version on stdout with exit code 0, a usage error on stderr with 2.
fn usage(error: &clap::Error) -> ExitCode {
    // A reader that has gone away is not an error of ours.
    let _ = error.print();
    // clap shows the message of a value that was refused, but not its hint.
    let refused = std::error::Error::source(error).and_then(|source| source.downcast_ref::<Error>());
    if let Some(hint) = refused.and_then(Error::hint) {
        let _ = writeln!(io::stderr(), "hint: {hint}");
    }
    ExitCode::from(if error.use_stderr() { 2 } else { 0 })
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
