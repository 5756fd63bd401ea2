//! Names that are different to SQLite, which compares them without the case of ASCII letters, and keeps tables, views and indexes
//! apart by nothing else.

use std::collections::HashSet;

/// Names that are taken.
#[derive(Debug, Default)]
pub(super) struct Names(HashSet<String>);

impl Names {
    /// Takes a name: this one, or with a number behind it if it is taken.
    pub fn take(&mut self, wanted: &str) -> String {
        let first = if wanted.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("sqlite_")) {
            // SQLite keeps these to itself.
            format!("_{wanted}")
        } else {
            wanted.to_owned()
        };
        let mut name = first.clone();
        let mut number = 2_u32;
        while !self.0.insert(name.to_ascii_lowercase()) {
            name = format!("{first}_{number}");
            number += 1;
        }
        name
    }

    /// Takes all of these, those in lower case first, and gives them back in their order.
    pub fn take_all(&mut self, wanted: &[String]) -> Vec<String> {
        let mut order: Vec<usize> = (0..wanted.len()).collect();
        order.sort_by_key(|at| wanted[*at] != wanted[*at].to_ascii_lowercase());
        let mut taken = vec![String::new(); wanted.len()];
        for at in order {
            taken[at] = self.take(&wanted[at]);
        }
        taken
    }
}

/// The name of what lies in a schema: `public` goes without saying.
pub(super) fn of(schema: &str, name: &str) -> String {
    if schema == "public" { name.to_owned() } else { format!("{schema}.{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_names_are_one_to_sqlite() {
        let wanted = ["Users", "users", "USERS_2", "sqlite_x", "ä", "Ä"].map(str::to_owned);
        let taken = Names::default().take_all(&wanted);
        assert_eq!(taken, ["Users_2", "users", "USERS_2_2", "_sqlite_x", "ä", "Ä"]);
        assert_eq!(of("public", "a") + &of("app", "b"), "aapp.b");
    }
}
