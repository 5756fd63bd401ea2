//! Which name of PostgreSQL one of SQLite means. Pure.
//!
//! Names are matched exactly first; where that finds nothing, without the case of ASCII letters if that leaves one. Of several tables
//! the one whose schema is on the search_path is meant.

use common::QualifiedName;

/// Places of the names that are `wanted`, or, where none is, of those that differ from it by the case of ASCII letters alone.
pub fn candidates<'n>(wanted: &str, names: impl Iterator<Item = &'n str>) -> Vec<usize> {
    let names: Vec<&str> = names.collect();
    let places = |is_it: &dyn Fn(&str) -> bool| {
        let found = names.iter().enumerate().filter(|(_, name)| is_it(name));
        found.map(|(place, _)| place).collect::<Vec<_>>()
    };
    let exact = places(&|name| name == wanted);
    if exact.is_empty() { places(&|name| name.eq_ignore_ascii_case(wanted)) } else { exact }
}

/// Whether a name of SQLite is `schema.table`: so `backup export --sqlite` names what is not in the schema public.
pub fn is_qualified(wanted: &str, table: &QualifiedName) -> bool {
    let (schema, name) = (table.schema.as_str(), table.name.as_str());
    wanted.strip_prefix(schema).and_then(|rest| rest.strip_prefix('.')) == Some(name)
}

/// The only one; of several the only one that a plain name can mean.
pub fn choose(found: &[usize], is_visible: impl Fn(usize) -> bool) -> Option<usize> {
    match found {
        [] => None,
        [only] => Some(*only),
        several => {
            let mut visible = several.iter().filter(|place| is_visible(**place));
            visible.next().filter(|_| visible.next().is_none()).copied()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exact_name_comes_first_and_nothing_is_guessed() {
        let names = ["Orders", "orders", "ORDERS", "Users"];
        let find = |wanted| candidates(wanted, names.into_iter());
        assert_eq!(find("orders"), [1]);
        assert_eq!(find("users"), [3]);
        assert_eq!(find("oRDERS"), [0, 1, 2]);
        assert_eq!(find("none"), [0_usize; 0]);
        assert_eq!(choose(&[3], |_| false), Some(3));
        assert_eq!(choose(&[0, 1], |place| place == 1), Some(1));
        assert_eq!(choose(&[0, 1], |_| true), None);
    }
}
