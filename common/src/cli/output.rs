//! What a person or a script sees: data on stdout, everything else on stderr; bars on a terminal, plain lines elsewhere,
//! JSON lines with `--json`.
//!
//! All text for people goes through [`Output::shown`], whoever made it: names, messages of servers and arguments may hold
//! what moves the cursor, sets the terminal's title or turns text around, and are shown with escapes. JSON is not text for
//! people: it holds the exact values.

use std::{
    fmt,
    io::{self, BufRead, IsTerminal, Write},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde::Serialize;

use super::{args::SharedArgs, format};
pub use crate::verdict::Tone;
use crate::{
    Error, Event, Progress, Result,
    ident::{printable, visible},
    verdict::Verdict,
};

/// Version of every JSON document that the tools print.
pub const JSON_SCHEMA: u32 = 1;

/// Where and how to print.
#[derive(Debug, Clone)]
pub struct Output {
    json: bool,
    quiet: bool,
    verbose: bool,
    yes: bool,
    /// What stands for colours in a text until it is written; without, there are none.
    marks: Option<Marks>,
    terminal: bool,
    /// Something is on stdout: no second document goes there.
    answered: Arc<AtomicBool>,
}

/// Every tone.
const TONES: [Tone; 5] = [Tone::Good, Tone::Warning, Tone::Bad, Tone::Dim, Tone::Strong];

/// What a terminal is told. Without a terminal, or with NO_COLOR, it is told nothing.
fn sequence(tone: Tone) -> &'static str {
    match tone {
        Tone::Good => "\x1b[1;32m",
        Tone::Warning => "\x1b[1;33m",
        Tone::Bad => "\x1b[1;31m",
        Tone::Dim => "\x1b[2m",
        Tone::Strong => "\x1b[1m",
    }
}

/// Ends a colour.
const PLAIN: &str = "\x1b[0m";

/// Characters of the second private-use plane, others in each process: a text that holds a colour already is told from one
/// that pretends to, and only ours become what a terminal obeys.
#[derive(Debug, Clone, Copy)]
struct Marks {
    first: u32,
}

impl Marks {
    /// First of the plane, and how many places there are for the marks.
    const PLANE: (u32, u32) = (0x10_0000, 0xff00);

    fn new() -> Option<Self> {
        let place = u32::try_from(crate::random::bits().ok()? % u64::from(Self::PLANE.1)).ok()?;
        Some(Self { first: Self::PLANE.0 + place })
    }

    fn character(self, number: usize) -> char {
        u32::try_from(number).ok().and_then(|number| char::from_u32(self.first + number)).unwrap_or(' ')
    }

    fn of(self, tone: Tone) -> char {
        self.character(TONES.iter().position(|one| *one == tone).unwrap_or(0))
    }

    fn end(self) -> char {
        self.character(TONES.len())
    }

    /// The text as a terminal shows it in colours.
    fn painted(self, text: &str) -> String {
        let mut out = String::with_capacity(text.len() + 32);
        for c in text.chars() {
            match TONES.into_iter().find(|tone| self.of(*tone) == c) {
                Some(tone) => out.push_str(sequence(tone)),
                None if c == self.end() => out.push_str(PLAIN),
                None => out.push(c),
            }
        }
        out
    }
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
            marks: color.then(Marks::new).flatten(),
            terminal,
            answered: Arc::default(),
        }
    }

    /// A text as it is written for a person.
    fn shown(&self, text: &str) -> String {
        let visible = visible(text);
        self.marks.map_or_else(|| visible.to_string(), |marks| marks.painted(&visible))
    }

    /// Whether `--json` was given.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Whether `--verbose` was given.
    pub fn is_verbose(&self) -> bool {
        self.verbose
    }

    /// Text in a colour, where colours are wanted. For texts that this value writes, and for nothing else.
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        match self.marks {
            Some(marks) => format!("{}{text}{}", marks.of(tone), marks.end()),
            None => text.to_owned(),
        }
    }

    /// The word of a verdict in its colour.
    pub fn verdict(&self, verdict: Verdict) -> String {
        self.paint(verdict.tone(), verdict.word())
    }

    /// Writes a text for people to stdout. A reader that has gone away is not an error of ours.
    pub fn data(&self, text: &str) -> Result<()> {
        self.exactly(&self.shown(text))
    }

    /// Writes to stdout what is for a program, such as JSON or a page, and is as it is.
    pub fn exactly(&self, text: &str) -> Result<()> {
        self.take_stdout();
        match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
            Err(source) if source.kind() != io::ErrorKind::BrokenPipe => {
                Err(Error::failed(format!("could not write to stdout: {source}")).with_source(source))
            }
            _ => Ok(()),
        }
    }

    /// Says that stdout has, or will have, something of the command's own: an error adds no document to it.
    pub fn take_stdout(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    /// Prints one JSON document.
    pub fn document<T: Serialize>(&self, content: &T) -> Result<()> {
        let text = serde_json::to_string_pretty(&Document { schema: JSON_SCHEMA, content })
            .map_err(|source| Error::failed(format!("could not encode the result: {source}")))?;
        self.exactly(&(text + "\n"))
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
            self.err_line(&format!("{} {}", self.paint(Tone::Warning, "warning:"), indented(text)));
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
        let _ = writeln!(io::stderr(), "{}", self.shown(text));
    }

    fn json_line(&self, value: &serde_json::Value) {
        let _ = writeln!(io::stderr(), "{value}");
    }

    /// The error with its hint and what happened to the database. With `--json`, an event on stderr, and the document on stdout
    /// unless the command has written one.
    pub fn error(&self, error: &Error) {
        if self.json {
            let mut value = error_value(error);
            value["event"] = "error".into();
            value["schema"] = JSON_SCHEMA.into();
            self.json_line(&value);
            if !self.answered.load(Ordering::Relaxed) {
                // Nobody is left to be told when stdout is gone too.
                let _ = self.document(&serde_json::json!({"error": error_value(error)}));
            }
            return;
        }
        self.err_line(&format!("{} {}", self.paint(Tone::Bad, "error:"), indented(error.message())));
        if let Some(hint) = error.hint() {
            self.err_line(&format!("{} {}", self.paint(Tone::Strong, "hint:"), indented(hint)));
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
        write!(stderr, "{} ", self.shown(question)).and_then(|()| stderr.flush()).map_err(failed)?;
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
            Event::Step(what) => self.json_line(&serde_json::json!({"event": "step", "what": what})),
            Event::Done => self.json_line(&serde_json::json!({"event": "done"})),
            Event::Advance { .. } | Event::Again { .. } => {}
        }
    }
}

/// An error as a value.
fn error_value(error: &Error) -> serde_json::Value {
    serde_json::json!({
        "message": error.message(), "hint": error.hint(), "database": error.database_state(),
        "sqlstate": error.sqlstate(), "exit_code": error.kind().exit_code(),
    })
}

/// A message of several lines, of a server for example: none of the later ones looks like one of ours.
fn indented(text: &str) -> String {
    let lines: Vec<String> = text
        .split('\n')
        .enumerate()
        .map(|(number, line)| {
            let is_ours = number == 0 || line.is_empty() || line.starts_with(' ');
            if is_ours { line.to_owned() } else { format!("  {line}") }
        })
        .collect();
    lines.join("\n")
}

/// Longest time that a phase of many steps says nothing where there is no terminal.
const SILENCE: Duration = Duration::from_secs(30);

struct Phase {
    what: String,
    started: Instant,
    /// When it was last said where it is.
    told: Instant,
    /// The amount that is told.
    bytes: u64,
    rows: u64,
    /// The work that moves the bar.
    worked: u64,
    bar: ProgressBar,
}

impl Phase {
    fn work(&mut self, bytes: u64) {
        self.worked += bytes;
        // The total is an estimate: a bar that overruns it stands at its end and goes on counting.
        if self.bar.length().is_some_and(|length| self.worked > length) {
            self.bar.set_length(self.worked);
        }
        self.bar.set_position(self.worked);
    }

    /// How much of it is done; of an estimated total, as far as there is one.
    fn amount(&self) -> String {
        let done = format::bytes(self.worked);
        match self.bar.length().filter(|length| *length > 0) {
            Some(length) => format!("{done} of about {}", format::bytes(length)),
            None => done,
        }
    }
}

/// How a phase looks while it lasts. It never takes more than one line: a line that wraps is left behind at every step, so what is
/// done is cut to what fits.
fn template(has_total: bool, columns: u16) -> &'static str {
    /// Narrower terminals have no place for a bar beside the words.
    const BAR_FROM: u16 = 80;
    match (has_total, columns >= BAR_FROM) {
        (true, true) => "{spinner} {wide_msg} {bar:20} {percent:>3} %  {prefix}{left}",
        (true, false) => "{spinner} {wide_msg} {percent:>3} %  {prefix}{left}",
        (false, _) => "{spinner} {wide_msg} {took}",
    }
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
                    phase.bar.set_prefix(format::bytes(phase.bytes));
                    phase.work(bytes);
                    self.tell_now_and_then(Phase::amount);
                }
            }
            Event::Again { bytes } => {
                if let Some(phase) = &mut self.phase {
                    phase.work(bytes);
                    self.tell_now_and_then(Phase::amount);
                }
            }
            Event::Step(what) => {
                if let Some(phase) = &mut self.phase {
                    phase.bar.set_message(printable(&format!("{}  {what}", phase.what)));
                    self.tell_now_and_then(|_| what);
                }
            }
            Event::Done => self.end(),
            Event::Note(text) => {
                if !self.output.quiet {
                    let note = self.output.paint(Tone::Dim, "note:");
                    self.line(&format!("{note} {}", indented(&text)));
                }
            }
            Event::Warning(text) => {
                let warning = self.output.paint(Tone::Warning, "warning:");
                self.line(&format!("{warning} {}", indented(&text)));
            }
        }
    }

    /// Where no bar moves, a long phase says now and then where it is.
    fn tell_now_and_then(&mut self, place: impl FnOnce(&Phase) -> String) {
        let Some(phase) = &mut self.phase else { return };
        if self.output.terminal || self.output.quiet || phase.told.elapsed() <= SILENCE {
            return;
        }
        phase.told = Instant::now();
        let took = format::duration(phase.started.elapsed());
        let line = printable(&format!("{}, for {took}: {}", phase.what, place(phase)));
        self.output.err_line(&self.output.paint(Tone::Dim, &line));
    }

    fn line(&self, text: &str) {
        match &self.phase {
            Some(phase) => phase.bar.suspend(|| self.output.err_line(text)),
            None => self.output.err_line(text),
        }
    }

    fn columns() -> u16 {
        /// Where the terminal does not say.
        const USUAL: u16 = 80;
        rustix::termios::tcgetwinsize(io::stderr())
            .map_or(USUAL, |size| if size.ws_col == 0 { USUAL } else { size.ws_col })
    }

    fn begin(&mut self, what: String, total_bytes: Option<u64>) {
        self.end();
        let visible = self.output.terminal && !self.output.quiet;
        let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(total_bytes, target).with_message(printable(&what));
        let style = ProgressStyle::with_template(template(total_bytes.is_some(), Self::columns()))
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .with_key("left", |state: &ProgressState, text: &mut dyn fmt::Write| {
                // Nothing is done yet: nobody knows. Less than a second is not worth saying.
                if state.pos() > 0 && state.eta() >= Duration::from_secs(1) {
                    let _ = write!(text, ", {} left", format::seconds(state.eta()));
                }
            })
            .with_key("took", |state: &ProgressState, text: &mut dyn fmt::Write| {
                let _ = write!(text, "{}", format::seconds(state.elapsed()));
            })
            .progress_chars("━╸ ");
        bar.set_style(style);
        bar.enable_steady_tick(Duration::from_millis(100));
        let now = Instant::now();
        self.phase = Some(Phase { what, started: now, told: now, bytes: 0, rows: 0, worked: 0, bar });
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

#[cfg(test)]
mod tests {
    use super::*;

    fn output(marks: Option<Marks>) -> Output {
        Output { marks, ..Output::new(&SharedArgs::default()) }
    }

    #[test]
    fn only_colours_of_ours_reach_a_terminal() {
        let hostile = "\u{1b}[1;31mfake\u{1b}[0m\u{7}\u{202e}";
        let shown = "\\u{1b}[1;31mfake\\u{1b}[0m\\u{7}\\u{202e}";
        let colored = output(Marks::new());
        let painted = format!("{} {hostile}", colored.paint(Tone::Bad, hostile));
        assert_eq!(colored.shown(&painted), format!("\u{1b}[1;31m{shown}\u{1b}[0m {shown}"));
        let plain = output(None);
        assert_eq!(plain.shown(&plain.paint(Tone::Bad, hostile)), shown);
        assert_eq!(plain.shown("a\n\tb"), "a\n\tb");
    }

    #[test]
    fn a_message_of_several_lines_does_not_forge_a_hint() {
        assert_eq!(indented("a\nhint: drop it\n  b\n\nc"), "a\n  hint: drop it\n  b\n\n  c");
    }
}
