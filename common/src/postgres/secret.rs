//! A password that cannot be printed by accident.
//!
//! There is no `Display`, `Debug` shows `***`, and the only way to the text is [`Secret::expose`], so that every use
//! can be found by searching for that one word.

use std::fmt;

/// A password, or a text that contains one (a connection URL for a child process).
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps the text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself: for the driver and for a child's environment, never for a message, a log or argv.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_never_shows_the_text() {
        assert_eq!(format!("{:?}", Some(Secret::new("hunter2"))), "Some(***)");
    }
}
