//! Defaults, generated columns and domains, as far as SQLite can have them.

use common::ident::printable;

use super::{CheckDesign, TableDesign, key_of};
use crate::{
    export::{
        Untranslated, defaults,
        expression::{Known, Scope},
        kind::Kind,
        structure::{Column, Structure},
    },
    sql::quoted,
    target::Target,
};

pub(super) fn add_defaults(
    columns: &[Column],
    design: &mut TableDesign,
    structure: &Structure,
    untranslated: &mut Vec<Untranslated>,
) {
    let scope = Scope { columns: &[], types: &structure.types, is_lenient: false, is_checked: false };
    for (at, column) in columns.iter().enumerate().filter(|(_, column)| column.generated.is_none()) {
        let of_domain =
            || structure.types.domains(&column.type_name).iter().find_map(|domain| domain.default.clone());
        let Some(default) = column.default.clone().or_else(of_domain) else { continue };
        let is_counted = structure
            .owned
            .iter()
            .any(|(table, name, _)| *table == key_of(&design.source) && *name == column.name);
        match defaults::translate(&default, &design.columns[at].stored, &scope) {
            Ok(translated) => design.columns[at].default = translated,
            // The sequence of a key is AUTOINCREMENT; of another column it is told with the sequence.
            Err(_) if is_counted && default.contains("nextval(") => {}
            Err(reason) => untranslated.push(Untranslated {
                what: format!("default of column {}.{}", design.source.short(), printable(&column.name)),
                sql: default,
                reason,
            }),
        }
    }
}

/// Generated columns: no snapshot has their values.
pub(super) fn add_generated(
    columns: &[Column],
    design: &mut TableDesign,
    structure: &Structure,
    untranslated: &mut Vec<Untranslated>,
) {
    let mut left_out = Vec::new();
    let known: Vec<Known> = design
        .known()
        .into_iter()
        .zip(columns)
        .filter(|(_, column)| column.generated.is_none())
        .map(|(known, _)| known)
        .collect();
    let scope = Scope { columns: &known, types: &structure.types, is_lenient: false, is_checked: false };
    for (at, column) in columns.iter().enumerate() {
        let Some(generated) = &column.generated else { continue };
        let translated = scope.translate(&generated.expression).and_then(|value| {
            let expected = design.columns[at].kind;
            // No value is there to compare with: only what can't be rounded, cut or NaN.
            let is_plain = matches!(
                &design.columns[at].stored.target,
                Target::Text | Target::Bool | Target::Int2 | Target::Int4 | Target::Int8
            );
            let is_same =
                is_plain && (value.kind == expected || (value.kind == Kind::Word && expected == Kind::Text));
            if is_same {
                Ok(value.sql)
            } else {
                Err("it gives another kind of value than the column".to_owned())
            }
        });
        match translated {
            Ok(sql) => design.columns[at].generated = Some((sql, generated.is_stored)),
            Err(reason) => {
                left_out.push(at);
                untranslated.push(Untranslated {
                    what: format!("generated column {}.{}", design.source.short(), printable(&column.name)),
                    sql: generated.expression.clone(),
                    reason: format!(
                        "{reason}; a snapshot does not hold what PostgreSQL computes: the column is left out"
                    ),
                });
            }
        }
    }
    let mut at = 0;
    design.columns.retain(|_| {
        at += 1;
        !left_out.contains(&(at - 1))
    });
}

/// What a type demands of its values: labels of enums, lengths, and the CHECKs of domains.
pub(super) fn add_domains(
    columns: &[Column],
    design: &mut TableDesign,
    structure: &Structure,
    untranslated: &mut Vec<Untranslated>,
) {
    let mut checks = Vec::new();
    for column in &design.columns {
        let name = quoted(&column.name);
        let condition = match &column.stored.target {
            Target::Enum(labels) => {
                let labels: Vec<String> =
                    labels.iter().map(|label| super::super::literals::text(label)).collect();
                format!("{name} IN ({})", labels.join(", "))
            }
            Target::Varchar(n) => format!("length({name}) <= {n}"),
            _ => continue,
        };
        checks.push(CheckDesign { name: String::new(), condition, sql: String::new(), is_valid: true });
    }
    for column in columns {
        let Some(designed) = design.columns.iter().find(|designed| designed.source == column.name) else {
            continue;
        };
        let value = [Known {
            table: String::new(),
            name: "VALUE".to_owned(),
            sql: quoted(&designed.name),
            kind: designed.kind,
        }];
        let scope = Scope { columns: &value, types: &structure.types, is_lenient: false, is_checked: false };
        for sql in structure.types.domains(&column.type_name).iter().flat_map(|domain| &domain.checks) {
            match scope.condition(sql) {
                Ok(condition) => checks.push(CheckDesign {
                    name: String::new(),
                    condition,
                    sql: sql.clone(),
                    is_valid: true,
                }),
                Err(reason) => untranslated.push(Untranslated {
                    what: format!(
                        "CHECK of the domain of column {}.{}",
                        design.source.short(),
                        printable(&column.name)
                    ),
                    sql: sql.clone(),
                    reason,
                }),
            }
        }
    }
    design.checks.extend(checks);
}
