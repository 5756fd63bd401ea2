//! What a restore of a whole database did, and what its verdict does not vouch for.

use common::{Account, Verdict, ident::printable};
use serde::Serialize;

use crate::{differences::LostRows, load::Spent, missing::MissingObject, plan::RestorePlan};

/// What a restore did.
#[derive(Debug, Clone, Serialize)]
pub struct RestoreReport {
    /// The plan that was carried out.
    pub plan: RestorePlan,
    /// The database that now holds the snapshot.
    pub database: String,
    /// Grants that could not be given, as phrases: `SELECT on table app.orders to reader`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing_grants: Vec<String>,
    /// Grants that could not be taken back: somebody may do more than in the snapshot.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_grants: Vec<String>,
    /// Objects that belong to another role than in the snapshot, as phrases.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_owners: Vec<String>,
    /// Objects of the snapshot that the database lacks. It has then not taken the place of another, unless that was wanted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<MissingObject>,
    /// What else is not as in the snapshot, one sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<String>,
    /// What of the differences the rows decided: of a trial with some of the rows, what is known for certain.
    #[serde(skip)]
    pub by_rows: Vec<String>,
    /// Those of the differences that are rows which the snapshot does not hold.
    #[serde(skip)]
    pub lost_rows: Vec<LostRows>,
    /// What could not be compared with the snapshot, one sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_checked: Vec<String>,
    /// Under which name the replaced database still exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced_as: Option<String>,
    /// How long it took, seconds.
    pub seconds: f64,
    /// What the connections did for how long, all of them together.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub spent: Vec<Spent>,
}

impl RestoreReport {
    /// How it ended, in a word.
    pub fn verdict(&self) -> Verdict {
        if self.missing.is_empty() { Verdict::Restored } else { Verdict::RestoredWithMissing }
    }

    /// Everything that the verdict does not vouch for, one sentence each. What is said of the database goes by this: nothing
    /// that is here may be left out of a verdict.
    pub fn account(&self) -> Account {
        let sentence = |head: &'static str| move |phrase: &String| format!("{head} {phrase}");
        let differs = self
            .missing_grants
            .iter()
            .map(sentence("the role may not grant"))
            .chain(self.extra_grants.iter().map(sentence("the role may not take back")))
            .chain(self.other_owners.iter().cloned())
            .chain(self.differences.iter().cloned());
        Account {
            missing: self.missing.iter().map(MissingObject::line).collect(),
            not_checked: self.not_checked.clone(),
            differs: differs.collect(),
        }
    }

    /// For an undo: says of the roles that were gone and had to be made that they are not all that they were.
    pub fn account_for_made_roles(&mut self) {
        self.differences.extend(self.plan.create_roles.iter().map(|role| {
            format!(
                "the role \"{}\" was gone and was made again, without its password and its members",
                printable(role)
            )
        }));
    }

    /// The verdict on a live database, as a sentence's end: `is as it was before`.
    pub fn as_before(&self) -> String {
        let account = self.account();
        match account.is_whole() {
            true => "is as it was before".to_owned(),
            false => format!("has its rows of before{}", account.but()),
        }
    }
}
