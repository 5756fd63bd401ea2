//! The words in which the three tools say how something ended, and what was looked at. Pure; docs/verdicts.md is the table.
//!
//! A verdict is the first word that a person sees and `verdict` in the JSON. What it does not vouch for is part of it: what could
//! not be checked, what is different although no row is lost, what is missing. [`Account`] holds the three and makes the half
//! sentence that stands beside the word, so that no tool says "equal" or "passed" of what was not looked at.

use serde::{Deserialize, Serialize};

use crate::format::plural;

/// Writes the verdicts down once: none can be without a word, a tone, or a place in [`Verdict::ALL`].
macro_rules! verdicts {
    ($($(#[$meta:meta])* $name:ident = $word:literal, $tone:ident;)*) => {
        /// How it ended, in a word.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Verdict {
            $($(#[$meta])* $name,)*
        }

        impl Verdict {
            /// Every verdict.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The word that a person sees.
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }

            /// How it looks: whether all is well, somebody should look, or it failed.
            pub fn tone(self) -> Tone {
                match self {
                    $(Self::$name => Tone::$tone,)*
                }
            }
        }
    };
}

verdicts! {
    /// `backup create`: the whole database is in the snapshot.
    Snapshot = "SNAPSHOT", Good;
    /// `backup create`: a part of it is.
    PartialSnapshot = "PARTIAL SNAPSHOT", Good;
    /// `backup verify`: every file is as the manifest says.
    Ok = "OK", Good;
    /// `backup verify`: one is not.
    Damaged = "DAMAGED", Bad;
    /// `backup drill`: the snapshot was restored into a scratch database.
    DrillOk = "DRILL OK", Good;
    /// `backup check`: all four things are possible.
    Ready = "READY", Good;
    /// `backup check`: what was asked for is possible, and something else is not.
    ReadyFor = "READY to", Warning;
    /// `backup check`: what was asked for is not possible.
    NotReady = "NOT READY", Bad;
    /// `restore`, and a run that was undone by its snapshot or clone: the state of the snapshot is there.
    Restored = "RESTORED", Good;
    /// `restore --force`: objects that the older server does not know are not there.
    RestoredWithMissing = "RESTORED WITH OBJECTS MISSING", Bad;
    /// `restore --table --replace`: the live tables hold what the snapshot holds.
    Replaced = "REPLACED", Good;
    /// A run: nothing was pending.
    UpToDate = "UP TO DATE", Good;
    /// A run: what it did stands.
    Committed = "COMMITTED", Good;
    /// A run: its transaction was rolled back.
    RolledBack = "ROLLED BACK", Warning;
    /// A run: it failed, and its state is kept for a person to decide.
    Stopped = "STOPPED", Warning;
    /// A run: it failed before anything was changed.
    #[serde(rename = "failed")]
    NotRun = "NOT RUN", Bad;
    /// A run: the command ran, and never came to the database.
    NotConnected = "NOT CONNECTED", Bad;
    /// A run: the undo failed, or nobody knows.
    #[serde(rename = "unknown")]
    UnknownState = "UNKNOWN STATE", Bad;
    /// A run that was killed, or is still running.
    Unfinished = "UNFINISHED", Warning;
    /// `safe-run release`: the fence is lifted.
    Released = "RELEASED", Good;
    /// `safe-run check`: every check that was asked for ran, and every rule holds.
    Clean = "CLEAN", Good;
    /// `safe-run check`: every rule that could be checked holds, and some could not be.
    CleanSoFar = "CLEAN SO FAR", Warning;
    /// `safe-run check --strict`: some rule could not be checked.
    NotChecked = "NOT CHECKED", Bad;
    /// `safe-run check`: no check had anything to look at.
    NothingChecked = "NOTHING CHECKED", Bad;
    /// `safe-run check`: a rule does not hold.
    Violations = "VIOLATIONS", Bad;
}

/// The colours that carry meaning.
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

/// What stands before a line beneath a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Remark {
    /// It was in the snapshot, and is not there.
    Missing,
    /// It was asked for, and could not be looked at.
    NotChecked,
    /// It is not as it was, although no row is lost.
    Differs,
    /// It is good to know, and takes nothing away from the verdict.
    Note,
}

impl Remark {
    /// Every remark.
    pub const ALL: [Self; 4] = [Self::Missing, Self::NotChecked, Self::Differs, Self::Note];

    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::NotChecked => "not checked",
            Self::Differs => "differs",
            Self::Note => "note",
        }
    }

    /// The line: `differs: sequence a of an extension stood at 7`.
    pub fn line(self, text: &str) -> String {
        format!("{}: {text}", self.label())
    }
}

/// What a verdict does not vouch for, a phrase or sentence each.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// What was in the snapshot, and is not there.
    #[serde(default)]
    pub missing: Vec<String>,
    /// What could not be looked at.
    #[serde(default)]
    pub not_checked: Vec<String>,
    /// What is not as it was, although no row is lost.
    #[serde(default)]
    pub differs: Vec<String>,
}

impl Account {
    /// Whether the verdict vouches for everything.
    pub fn is_whole(&self) -> bool {
        self.missing.is_empty() && self.not_checked.is_empty() && self.differs.is_empty()
    }

    /// Takes another one in.
    pub fn add(&mut self, other: Self) {
        self.missing.extend(other.missing);
        self.not_checked.extend(other.not_checked);
        self.differs.extend(other.differs);
    }

    /// How many of each, as the half sentence that follows the verdict's own: empty, or `, but 1 thing could not be checked and 2
    /// things differ`.
    pub fn but(&self) -> String {
        let parts: Vec<String> = [
            (&self.missing, "thing is missing", "things are missing"),
            (&self.not_checked, "thing could not be checked", "things could not be checked"),
            (&self.differs, "thing differs", "things differ"),
        ]
        .into_iter()
        .filter(|(list, ..)| !list.is_empty())
        .map(|(list, one, many)| plural(list.len() as u64, one, many))
        .collect();
        match parts.as_slice() {
            [] => String::new(),
            [all] => format!(", but {all}"),
            [first @ .., last] => format!(", but {} and {last}", first.join(", ")),
        }
    }

    /// Every one with its label, the worst first.
    pub fn remarks(&self) -> impl Iterator<Item = (Remark, &str)> {
        self.missing
            .iter()
            .map(|text| (Remark::Missing, text.as_str()))
            .chain(self.not_checked.iter().map(|text| (Remark::NotChecked, text.as_str())))
            .chain(self.differs.iter().map(|text| (Remark::Differs, text.as_str())))
    }

    /// The lines beneath the verdict.
    pub fn lines(&self) -> Vec<String> {
        self.remarks().map(|(remark, text)| remark.line(text)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_verdict_has_a_word_of_its_own_in_text_and_in_json() {
        let words: HashSet<&str> = Verdict::ALL.iter().map(|verdict| verdict.word()).collect();
        assert_eq!(words.len(), Verdict::ALL.len());
        for verdict in Verdict::ALL {
            let json = serde_json::to_string(verdict).unwrap();
            assert_eq!(serde_json::from_str::<Verdict>(&json).unwrap(), *verdict);
        }
    }

    /// What is said of each account: nothing that is in it may be left out of the sentence.
    #[test]
    fn a_verdict_says_how_much_it_does_not_vouch_for() {
        let account = |missing: usize, not_checked: usize, differs: usize| Account {
            missing: vec!["a".to_owned(); missing],
            not_checked: vec!["b".to_owned(); not_checked],
            differs: vec!["c".to_owned(); differs],
        };
        let said: Vec<String> = [(0, 0, 0), (0, 1, 0), (0, 0, 2), (0, 1, 1), (1, 0, 0), (2, 1, 3)]
            .into_iter()
            .map(|(missing, not_checked, differs)| account(missing, not_checked, differs).but())
            .collect();
        insta::assert_snapshot!(said.join("\n"), @r"

        , but 1 thing could not be checked
        , but 2 things differ
        , but 1 thing could not be checked and 1 thing differs
        , but 1 thing is missing
        , but 2 things are missing, 1 thing could not be checked and 3 things differ
        ");
        assert_eq!(account(1, 1, 1).lines(), ["missing: a", "not checked: b", "differs: c"]);
    }
}
