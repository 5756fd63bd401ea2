//! What happens while it happens, as values. Tools emit them; how they look is decided elsewhere.

use std::sync::Arc;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A phase begins; `total_bytes` when its size is known beforehand (an estimate).
    Phase {
        /// What is done, such as "copying rows".
        what: String,
        /// Expected amount of work, bytes.
        total_bytes: Option<u64>,
    },
    /// Work was done since the last such event.
    Advance {
        /// Bytes of it.
        bytes: u64,
        /// Rows of it.
        rows: u64,
    },
    /// Work that belongs to the phase and is no amount of its own, such as reading back what was written: the bar moves, and what
    /// is told at the end stays the amount.
    Again {
        /// Bytes of it.
        bytes: u64,
    },
    /// The phase has come to another of its many parts.
    Step(String),
    /// The phase is over.
    Done,
    /// Something that a person should know, one sentence.
    Note(String),
    /// Something that a person should look at, one sentence.
    Warning(String),
}

/// Takes events, from any thread.
#[derive(Clone)]
pub struct Progress(Arc<dyn Fn(Event) + Send + Sync>);

impl Progress {
    /// Sends every event to `sink`.
    pub fn new(sink: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self(Arc::new(sink))
    }

    /// Drops every event.
    pub fn none() -> Self {
        Self::new(|_| {})
    }

    /// Emits one event.
    pub fn emit(&self, event: Event) {
        (self.0)(event);
    }

    /// [`Event::Phase`].
    pub fn phase(&self, what: impl Into<String>, total_bytes: Option<u64>) {
        self.emit(Event::Phase { what: what.into(), total_bytes });
    }

    /// [`Event::Advance`].
    pub fn advance(&self, bytes: u64, rows: u64) {
        self.emit(Event::Advance { bytes, rows });
    }

    /// This progress for work that goes over the same bytes once more: [`Event::Again`] in the place of [`Event::Advance`].
    #[must_use]
    pub fn again(&self) -> Self {
        let all = self.clone();
        Self::new(move |event| match event {
            Event::Advance { bytes, .. } => all.emit(Event::Again { bytes }),
            event => all.emit(event),
        })
    }

    /// [`Event::Step`].
    pub fn step(&self, what: impl Into<String>) {
        self.emit(Event::Step(what.into()));
    }

    /// [`Event::Done`].
    pub fn done(&self) {
        self.emit(Event::Done);
    }

    /// [`Event::Note`].
    pub fn note(&self, text: impl Into<String>) {
        self.emit(Event::Note(text.into()));
    }

    /// [`Event::Warning`].
    pub fn warn(&self, text: impl Into<String>) {
        self.emit(Event::Warning(text.into()));
    }
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Progress")
    }
}
