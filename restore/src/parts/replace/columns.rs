//! Whether the live tables have the columns of the snapshot.

use common::{Error, QualifiedName, Result, postgres::Session};

use crate::parts::{
    scratch::{self, Column},
    select::Unit,
};

/// Refuses tables that are gone or whose columns are not the snapshot's.
pub async fn check_columns(scratch: &Session, live: &Session, units: &[Unit]) -> Result<()> {
    let mut problems = Vec::new();
    for unit in units {
        let name = unit.name.short();
        let Some(found) = scratch::columns(live, &unit.name).await? else {
            problems.push(no_such_table(&unit.name));
            continue;
        };
        let wanted = scratch::columns(scratch, &unit.name).await?.unwrap_or_default();
        problems.extend(differences(&wanted, &found).into_iter().map(|what| format!("{name}: {what}")));
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(not_as_in_the_snapshot(&problems))
}

/// What is said of a table that is not there.
pub fn no_such_table(name: &QualifiedName) -> String {
    format!("there is no table {} in the live database", name.short())
}

/// The refusal of live tables that can't take the rows.
pub fn not_as_in_the_snapshot(problems: &[String]) -> Error {
    Error::refused(format!("the live tables are not as in the snapshot: {}", problems.join("; "))).with_hint(
        "Leave --replace out: the tables come back beside the live ones, and their rows can be taken over by hand.",
    )
}

fn differences(wanted: &[Column], found: &[Column]) -> Vec<String> {
    let in_found = |name: &str| found.iter().find(|column| column.name == name);
    let mut out = Vec::new();
    for column in wanted {
        let name = common::ident::printable(&column.name);
        match in_found(&column.name) {
            None => out.push(format!("column {name} {} is missing", column.kind)),
            Some(other) if other.kind != column.kind => {
                out.push(format!("column {name} is {} and was {}", other.kind, column.kind));
            }
            Some(other) if other.is_generated != column.is_generated => {
                let word = |is: bool| if is { "generated" } else { "stored" };
                out.push(format!(
                    "column {name} is {} and was {}",
                    word(other.is_generated),
                    word(column.is_generated)
                ));
            }
            Some(_) => {}
        }
    }
    let added = found.iter().filter(|column| !wanted.iter().any(|other| other.name == column.name));
    out.extend(
        added.map(|column| {
            format!("column {} {} is new", common::ident::printable(&column.name), column.kind)
        }),
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_between_columns_is_named_and_their_order_is_none() {
        let column = |name: &str, kind: &str, is_generated| Column {
            name: name.into(),
            kind: kind.into(),
            is_generated,
        };
        let wanted = [column("a", "integer", false), column("b", "text", false), column("c", "text", true)];
        let found = [column("c", "text", false), column("a", "bigint", false), column("d", "date", false)];
        assert_eq!(
            differences(&wanted, &found),
            [
                "column a is bigint and was integer",
                "column b text is missing",
                "column c is stored and was generated",
                "column d date is new"
            ]
        );
        let turned = [wanted[2].clone(), wanted[0].clone(), wanted[1].clone()];
        assert!(differences(&wanted, &turned).is_empty());
    }
}
