//! How phases look while they last: bars on a terminal, plain lines elsewhere.

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::{Output, indented};
use crate::{Event, Progress, format, ident::printable, verdict::Tone};

/// A sink that renders for a person.
pub(super) fn progress(output: &Output) -> Progress {
    let renderer = Arc::new(Mutex::new(Renderer { output: output.clone(), phase: None }));
    if !output.terminal && !output.quiet {
        watch(&renderer);
    }
    Progress::new(move |event| renderer.lock().unwrap_or_else(PoisonError::into_inner).take(event))
}

/// Longest time that a phase says nothing where there is no terminal.
const SILENCE: Duration = Duration::from_secs(30);

/// Where no bar moves, a long phase says now and then that it lasts, whether events of it come or not: a thread of its own looks at
/// the clock, for as long as anybody can send events.
fn watch(renderer: &Arc<Mutex<Renderer>>) {
    let renderer = Arc::downgrade(renderer);
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let Some(renderer) = renderer.upgrade() else { return };
            let mut renderer = renderer.lock().unwrap_or_else(PoisonError::into_inner);
            let line = renderer.phase.as_mut().and_then(|phase| phase.still(Instant::now()));
            if let Some(line) = line {
                renderer.output.err_line(&renderer.output.paint(Tone::Dim, &line));
            }
        }
    });
}

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
    /// The last of its steps that was begun.
    step: Option<String>,
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

    /// What is said of a phase of which nothing was said for a while: that it lasts, and where it is.
    fn still(&mut self, now: Instant) -> Option<String> {
        if now.saturating_duration_since(self.told) < SILENCE {
            return None;
        }
        self.told = now;
        let took = format::seconds(now.saturating_duration_since(self.started));
        let place =
            self.step.clone().or_else(|| self.amount()).map_or(String::new(), |place| format!(": {place}"));
        Some(printable(&format!("still {}, for {took}{place}", self.what)))
    }

    /// How much of it is done; of an estimated total, as far as there is one.
    fn amount(&self) -> Option<String> {
        let done = format::bytes(self.worked);
        match self.bar.length().filter(|length| *length > 0) {
            Some(length) => Some(format!("{done} of about {}", format::bytes(length))),
            None => (self.worked > 0).then_some(done),
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

/// The template with what its fields hold.
fn style(has_total: bool, columns: u16) -> ProgressStyle {
    ProgressStyle::with_template(template(has_total, columns))
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
        .progress_chars("━╸ ")
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
                }
            }
            Event::Again { bytes } => {
                if let Some(phase) = &mut self.phase {
                    phase.work(bytes);
                }
            }
            Event::Step(what) => {
                if let Some(phase) = &mut self.phase {
                    phase.bar.set_message(printable(&format!("{}  {what}", phase.what)));
                    phase.step = Some(what);
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
        bar.set_style(style(total_bytes.is_some(), Self::columns()));
        bar.enable_steady_tick(Duration::from_millis(100));
        let now = Instant::now();
        self.phase =
            Some(Phase { what, started: now, told: now, bytes: 0, rows: 0, worked: 0, step: None, bar });
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
    use crate::cli::SharedArgs;

    /// A terminal of so many columns; what is written to it is kept.
    #[derive(Debug, Clone)]
    struct Terminal {
        columns: u16,
        said: Arc<Mutex<String>>,
    }

    impl indicatif::TermLike for Terminal {
        fn width(&self) -> u16 {
            self.columns
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(&format!("{text}\n"))
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.said.lock().unwrap().push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            self.write_str("\n")
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A line that wraps stays behind at each step, and a time that is left before anything is done is made up.
    #[test]
    fn a_bar_takes_one_line_of_any_terminal_and_tells_no_time_that_nobody_knows() {
        for columns in [40, 60, 79, 80, 200] {
            for total in [Some(64_000_000_000), None] {
                let terminal = Terminal { columns, said: Arc::default() };
                let target = ProgressDrawTarget::term_like(Box::new(terminal.clone()));
                let bar =
                    ProgressBar::with_draw_target(total, target).with_style(style(total.is_some(), columns));
                bar.set_message("copying \u{e4} table of a long name, in which many tables are ".repeat(4));
                bar.tick();
                let begun = terminal.said.lock().unwrap().clone();
                assert!(begun.contains("copying") && !begun.contains("left"), "{columns}: {begun}");
                bar.set_prefix(format::bytes(32_000_000_000));
                bar.set_position(32_000_000_000);
                bar.force_draw();
                let said = terminal.said.lock().unwrap().clone();
                assert!(!said.contains("iB"), "{said}");
                assert_eq!(said.contains("32.0 GB"), total.is_some(), "{columns}: {said}");
                let widest = said.lines().map(|line| line.chars().count()).max().unwrap();
                assert!(widest <= usize::from(columns), "{columns}: {widest}: {said}");
            }
        }
    }

    #[test]
    fn a_phase_of_which_nothing_is_heard_says_now_and_then_that_it_lasts() {
        let mut renderer = Renderer { output: Output::new(&SharedArgs::default()), phase: None };
        renderer.begin("checking".to_owned(), None);
        let phase = renderer.phase.as_mut().unwrap();
        let began = phase.started;
        let times = [29, 30, 59, 61].map(|seconds| began + Duration::from_secs(seconds));
        let said = times.map(|now| phase.still(now));
        assert_eq!(
            said,
            [
                None,
                Some("still checking, for 30 s".to_owned()),
                None,
                Some("still checking, for 1 min 01 s".to_owned())
            ]
        );
        renderer.take(Event::Step("foreign key a\u{1b}".to_owned()));
        let phase = renderer.phase.as_mut().unwrap();
        let later = phase.started + Duration::from_secs(100);
        assert_eq!(phase.still(later).unwrap(), "still checking, for 1 min 40 s: foreign key a\\u{1b}");
        renderer.begin("copying".to_owned(), Some(2_000_000));
        renderer.take(Event::Advance { bytes: 1_000_000, rows: 1 });
        let phase = renderer.phase.as_mut().unwrap();
        let later = phase.started + SILENCE;
        assert_eq!(phase.still(later).unwrap(), "still copying, for 30 s: 1.00 MB of about 2.00 MB");
    }
}
