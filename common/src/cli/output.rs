//! What a person or a script sees: data on stdout, everything else on stderr; bars on a terminal, plain lines elsewhere,
//! JSON lines with `--json`.
//!
//! All text for people goes through [`Output::shown`], whoever made it: names, messages of servers and arguments may hold
//! what moves the cursor, sets the terminal's title or turns text around, and are shown with escapes. JSON is not text for
//! people: it holds the exact values.

mod phases;

use std::{
    io::{self, BufRead, IsTerminal, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::Serialize;

use super::args::SharedArgs;
pub use crate::verdict::Tone;
use crate::{Error, Event, Progress, Result, ident::visible, verdict::Verdict};

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
        let _ = writeln!(io::stderr(), "{}", self.shown(&crate::masking::urls(text)));
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
        phases::progress(self)
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
