//! The words in which the three tools say how something ended, and what was looked at. Pure; docs/verdicts.md is the table.
//!
//! A verdict is the first word that a person sees and `verdict` in the JSON. What it does not vouch for is part of it: what could
//! not be checked, what is different although no row is lost, what is missing. [`Account`] holds the three and makes the half
//! sentence that stands beside the word, so that no tool says "equal" or "passed" of what was not looked at.

use serde::{Deserialize, Serialize};

use crate::cli::format::plural;

/// How it ended, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// `backup create`: the whole database is in the snapshot.
    Snapshot,
    /// `backup create`: a part of it is.
    PartialSnapshot,
    /// `backup verify`: every file is as the manifest says.
    Ok,
    /// `backup verify`: one is not.
    Damaged,
    /// `backup drill`: the snapshot was restored into a scratch database.
    DrillOk,
    /// `backup check`: all four things are possible.
    Ready,
    /// `backup check`: what was asked for is possible, and something else is not.
    ReadyFor,
    /// `backup check`: what was asked for is not possible.
    NotReady,
    /// `restore`, and a run that was undone by its snapshot or clone: the state of the snapshot is there.
    Restored,
    /// `restore --force`: objects that the older server does not know are not there.
    RestoredWithMissing,
    /// `restore --table --replace`: the live tables hold what the snapshot holds.
    Replaced,
    /// A run: nothing was pending.
    UpToDate,
    /// A run: what it did stands.
    Committed,
    /// A run: its transaction was rolled back.
    RolledBack,
    /// A run: it failed, and its state is kept for a person to decide.
    Stopped,
    /// A run: it failed before anything was changed.
    #[serde(rename = "failed")]
    NotRun,
    /// A run: the undo failed, or nobody knows.
    #[serde(rename = "unknown")]
    UnknownState,
    /// A run that was killed, or is still running.
    Unfinished,
    /// `safe-run release`: the fence is lifted.
    Released,
    /// `safe-run check`: every check that was asked for ran, and every rule holds.
    Clean,
    /// `safe-run check`: every rule that could be checked holds, and some could not be.
    CleanSoFar,
    /// `safe-run check --strict`: some rule could not be checked.
    NotChecked,
    /// `safe-run check`: no check had anything to look at.
    NothingChecked,
    /// `safe-run check`: a rule does not hold.
    Violations,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: [Self; 24] = [
        Self::Snapshot,
        Self::PartialSnapshot,
        Self::Ok,
        Self::Damaged,
        Self::DrillOk,
        Self::Ready,
        Self::ReadyFor,
        Self::NotReady,
        Self::Restored,
        Self::RestoredWithMissing,
        Self::Replaced,
        Self::UpToDate,
        Self::Committed,
        Self::RolledBack,
        Self::Stopped,
        Self::NotRun,
        Self::UnknownState,
        Self::Unfinished,
        Self::Released,
        Self::Clean,
        Self::CleanSoFar,
        Self::NotChecked,
        Self::NothingChecked,
        Self::Violations,
    ];

    /// The word that a person sees.
    pub fn word(self) -> &'static str {
        match self {
            Self::Snapshot => "SNAPSHOT",
            Self::PartialSnapshot => "PARTIAL SNAPSHOT",
            Self::Ok => "OK",
            Self::Damaged => "DAMAGED",
            Self::DrillOk => "DRILL OK",
            Self::Ready => "READY",
            Self::ReadyFor => "READY to",
            Self::NotReady => "NOT READY",
            Self::Restored => "RESTORED",
            Self::RestoredWithMissing => "RESTORED WITH OBJECTS MISSING",
            Self::Replaced => "REPLACED",
            Self::UpToDate => "UP TO DATE",
            Self::Committed => "COMMITTED",
            Self::RolledBack => "ROLLED BACK",
            Self::Stopped => "STOPPED",
            Self::NotRun => "NOT RUN",
            Self::UnknownState => "UNKNOWN STATE",
            Self::Unfinished => "UNFINISHED",
            Self::Released => "RELEASED",
            Self::Clean => "CLEAN",
            Self::CleanSoFar => "CLEAN SO FAR",
            Self::NotChecked => "NOT CHECKED",
            Self::NothingChecked => "NOTHING CHECKED",
            Self::Violations => "VIOLATIONS",
        }
    }

    /// How it looks: whether all is well, somebody should look, or it failed.
    pub fn tone(self) -> Tone {
        match self {
            Self::Snapshot
            | Self::PartialSnapshot
            | Self::Ok
            | Self::DrillOk
            | Self::Ready
            | Self::Restored
            | Self::Replaced
            | Self::UpToDate
            | Self::Committed
            | Self::Released
            | Self::Clean => Tone::Good,
            Self::ReadyFor | Self::RolledBack | Self::Stopped | Self::Unfinished | Self::CleanSoFar => {
                Tone::Warning
            }
            Self::Damaged
            | Self::NotReady
            | Self::RestoredWithMissing
            | Self::NotRun
            | Self::UnknownState
            | Self::NotChecked
            | Self::NothingChecked
            | Self::Violations => Tone::Bad,
        }
    }
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
            let json = serde_json::to_string(&verdict).unwrap();
            assert_eq!(serde_json::from_str::<Verdict>(&json).unwrap(), verdict);
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
