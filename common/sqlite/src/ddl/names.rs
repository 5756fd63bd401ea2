//! Names of constraints and indexes: PostgreSQL wants more of them to differ than SQLite does.

use std::collections::HashSet;

use common::ident::{Ident, MAX_IDENT_BYTES, with_suffix};

/// The names of tables and indexes in one schema.
#[derive(Debug, Default)]
pub(super) struct Names(HashSet<String>);

/// Columns that every table of PostgreSQL has already.
const SYSTEM_COLUMNS: [&str; 6] = ["tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"];

impl Names {
    /// For the columns of a table.
    pub fn of_columns() -> Self {
        Self(SYSTEM_COLUMNS.iter().map(|name| (*name).to_owned()).collect())
    }

    /// The name itself, or shortened and numbered until no other is the same. Says whether it had to be changed.
    pub fn take(&mut self, name: &str) -> (Ident, bool) {
        let fits = !name.is_empty() && name.len() <= MAX_IDENT_BYTES;
        if fits && self.0.insert(name.to_owned()) {
            return (Ident::new(name), false);
        }
        let base = if name.is_empty() { "unnamed" } else { name };
        let mut tried = with_suffix(base, "");
        let mut number = 1;
        while !self.0.insert(tried.clone()) {
            number += 1;
            tried = with_suffix(base, &format!("_{number}"));
        }
        (Ident::new(tried), true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_names_are_the_same_and_all_fit() {
        let mut names = Names::default();
        let long = "ä".repeat(40);
        let taken: Vec<String> = ["a", "A", "a", "", "", &long, &long]
            .iter()
            .map(|name| names.take(name).0.as_str().to_owned())
            .collect();
        assert_eq!(taken[..5], ["a", "A", "a_2", "unnamed", "unnamed_2"]);
        assert!(taken[5] != taken[6] && taken.iter().all(|name| name.len() <= MAX_IDENT_BYTES));
    }
}
