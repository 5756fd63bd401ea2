//! What a person or a script sees: data on stdout, everything else on stderr; bars on a terminal, plain lines elsewhere,
//! JSON lines with `--json`.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::{args::SharedArgs, format};
use crate::{Error, Event, Progress, Result};

/// Version of every JSON document that the tools print.
pub const JSON_SCHEMA: u32 = 1;

/// Where and how to print.
#[derive(Debug, Clone)]
pub struct Output {
    json: bool,
    quiet: bool,
    verbose: bool,
    yes: bool,
    color: bool,
    terminal: bool,
}

/// The colours that carry meaning. Without a terminal, or with NO_COLOR, none is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// It went well.
    Good,
    /// Look at this.
    Warning,
    /// It failed.
    Bad,
    /// Less important.
    Dim,
    /// A heading.
    Strong,
}

#[derive(Serialize)]
struct Document<'a, T> {
    schema: u32,
    #[serde(flatten)]
    content: &'a T,
}

impl Output {
    /// Looks at the flags and the terminal.
    pub fn new(shared: &SharedArgs) -> Self {
        let terminal = io::stderr().is_terminal();
        let color = terminal
            && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self {
            json: shared.json,
            quiet: shared.quiet,
            verbose: shared.verbose,
            yes: shared.yes,
            color,
            terminal,
        }
    }

    /// Whether `--json` was given.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Whether `--verbose` was given.
    pub fn is_verbose(&self) -> bool {
        self.verbose
    }

    /// Text in a colour, where colours are wanted.
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        if !self.color {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Good => "1;32",
            Tone::Warning => "1;33",
            Tone::Bad => "1;31",
            Tone::Dim => "2",
            Tone::Strong => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// Writes data to stdout. A reader that has gone away is not an error of ours.
    pub fn data(&self, text: &str) -> Result<()> {
        match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
            Err(source) if source.kind() != io::ErrorKind::BrokenPipe => {
                Err(Error::failed(format!("could not write to stdout: {source}")).with_source(source))
            }
            _ => Ok(()),
        }
    }

    /// Prints one JSON document.
    pub fn document<T: Serialize>(&self, content: &T) -> Result<()> {
        let text = serde_json::to_string_pretty(&Document { schema: JSON_SCHEMA, content })
            .map_err(|source| Error::failed(format!("could not encode the result: {source}")))?;
        self.data(&(text + "\n"))
    }

    /// Says something to the person, unless `--quiet` or `--json` is on.
    pub fn say(&self, text: &str) {
        if !self.quiet && !self.json {
            self.err_line(text);
        }
    }

    /// Says something that must not be missed: also with `--quiet`.
    pub fn warn(&self, text: &str) {
        if self.json {
            self.json_line(&serde_json::json!({"event": "warning", "text": text}));
        } else {
            self.err_line(&format!("{} {text}", self.paint(Tone::Warning, "warning:")));
        }
    }

    /// One event of a program that runs for long: a line of text, or of JSON with `--json`; also with `--quiet`.
    pub fn event(&self, text: &str, value: &serde_json::Value) {
        if self.json {
            self.json_line(value);
        } else {
            self.err_line(text);
        }
    }

    /// A line on stderr, always.
    pub fn err_line(&self, text: &str) {
        // Nobody is left to be told when stderr is gone.
        let _ = writeln!(io::stderr(), "{text}");
    }

    fn json_line(&self, value: &serde_json::Value) {
        let _ = writeln!(io::stderr(), "{value}");
    }

    /// The error with its hint and what happened to the database.
    pub fn error(&self, error: &Error) {
        if self.json {
            self.json_line(&serde_json::json!({
                "event": "error", "schema": JSON_SCHEMA, "message": error.message(), "hint": error.hint(),
                "database": error.database_state(), "sqlstate": error.sqlstate(), "exit_code": error.kind().exit_code(),
            }));
            return;
        }
        self.err_line(&format!("{} {}", self.paint(Tone::Bad, "error:"), error.message()));
        if let Some(hint) = error.hint() {
            self.err_line(&format!("{} {hint}", self.paint(Tone::Strong, "hint:")));
        }
        if let Some(state) = error.database_state() {
            self.err_line(state);
        }
    }

    /// Whether questions can be asked.
    pub fn can_ask(&self) -> bool {
        self.terminal && io::stdin().is_terminal() && !self.json
    }

    /// Asks for a line of text; `None` without a terminal.
    pub fn ask(&self, question: &str) -> Result<Option<String>> {
        if !self.can_ask() {
            return Ok(None);
        }
        let failed = |source| Error::failed(format!("could not ask: {source}"));
        let mut stderr = io::stderr();
        write!(stderr, "{question} ").and_then(|()| stderr.flush()).map_err(failed)?;
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line).map_err(failed)?;
        Ok(Some(line.trim().to_owned()))
    }

    /// Lets a person confirm by typing `expected`; `--yes` answers it.
    ///
    /// # Errors
    /// Refused without a terminal and without `--yes`, or when something else was typed.
    pub fn confirm_typed(&self, question: &str, expected: &str) -> Result<()> {
        if self.yes {
            return Ok(());
        }
        match self.ask(question)? {
            Some(answer) if answer == expected => Ok(()),
            Some(_) => Err(Error::refused("not confirmed").with_database_state("Nothing was changed.")),
            None => Err(Error::refused("this needs a confirmation, and there is no terminal to ask on")
                .with_hint("Give --yes if you are sure.")
                .with_database_state("Nothing was changed.")),
        }
    }

    /// A progress sink that renders for this output.
    pub fn progress(&self) -> Progress {
        if self.json {
            let output = self.clone();
            return Progress::new(move |event| output.json_event(&event));
        }
        let renderer = Arc::new(Mutex::new(Renderer { output: self.clone(), phase: None }));
        Progress::new(move |event| renderer.lock().unwrap_or_else(PoisonError::into_inner).take(event))
    }

    fn json_event(&self, event: &Event) {
        match event {
            Event::Phase { what, total_bytes } => {
                self.json_line(
                    &serde_json::json!({"event": "phase", "what": what, "total_bytes": total_bytes}),
                );
            }
            Event::Note(text) => self.json_line(&serde_json::json!({"event": "note", "text": text})),
            Event::Warning(text) => self.warn(text),
            Event::Done => self.json_line(&serde_json::json!({"event": "done"})),
            Event::Advance { .. } => {}
        }
    }
}

struct Phase {
    what: String,
    started: Instant,
    bytes: u64,
    rows: u64,
    bar: ProgressBar,
}

struct Renderer {
    output: Output,
    phase: Option<Phase>,
}

impl Renderer {
    fn take(&mut self, event: Event) {
        match event {
            Event::Phase { what, total_bytes } => self.begin(what, total_bytes),
            Event::Advance { bytes, rows } => {
                if let Some(phase) = &mut self.phase {
                    phase.bytes += bytes;
                    phase.rows += rows;
                    // The total is an estimate: a bar that overruns it stands at its end and goes on counting.
                    if phase.bar.length().is_some_and(|length| phase.bytes > length) {
                        phase.bar.set_length(phase.bytes);
                    }
                    phase.bar.set_position(phase.bytes);
                }
            }
            Event::Done => self.end(),
            Event::Note(text) => {
                if !self.output.quiet {
                    self.line(&format!("{} {text}", self.output.paint(Tone::Dim, "note:")));
                }
            }
            Event::Warning(text) => {
                self.line(&format!("{} {text}", self.output.paint(Tone::Warning, "warning:")));
            }
        }
    }

    fn line(&self, text: &str) {
        match &self.phase {
            Some(phase) => phase.bar.suspend(|| self.output.err_line(text)),
            None => self.output.err_line(text),
        }
    }

    fn begin(&mut self, what: String, total_bytes: Option<u64>) {
        self.end();
        let visible = self.output.terminal && !self.output.quiet;
        let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(total_bytes, target).with_message(what.clone());
        let template = if total_bytes.is_some() {
            "{spinner} {msg}  {bar:24} {percent:>3} %  {bytes} at {bytes_per_sec}, {eta} left"
        } else {
            "{spinner} {msg}  {elapsed}"
        };
        bar.set_style(
            ProgressStyle::with_template(template)
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .progress_chars("━╸ "),
        );
        bar.enable_steady_tick(Duration::from_millis(100));
        self.phase = Some(Phase { what, started: Instant::now(), bytes: 0, rows: 0, bar });
    }

    fn end(&mut self) {
        let Some(phase) = self.phase.take() else { return };
        phase.bar.finish_and_clear();
        if self.output.quiet {
            return;
        }
        let took = phase.started.elapsed();
        let mut line = format!("{}: {}", phase.what, format::duration(took));
        if phase.bytes > 0 {
            line.push_str(&format!(", {}", format::bytes(phase.bytes)));
            if phase.rows > 0 {
                line.push_str(&format!(", {}", format::plural(phase.rows, "row", "rows")));
            }
            let seconds = took.as_secs_f64();
            if seconds > 0.5 {
                #[expect(
                    clippy::cast_precision_loss,
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss
                )]
                let rate = (phase.bytes as f64 / seconds) as u64;
                line.push_str(&format!(", {}/s", format::bytes(rate)));
            }
        }
        self.output.err_line(&self.output.paint(Tone::Dim, &line));
    }
}
