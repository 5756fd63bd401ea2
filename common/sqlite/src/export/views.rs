//! Views: of tables that are joined and filtered.

use super::{
    ExportPlan, Untranslated,
    names::{self, Names},
    structure::Structure,
};

/// Adds those that have a translation.
pub(super) fn add(structure: &Structure, _taken: &mut Names, made: &mut ExportPlan) {
    for view in &structure.views {
        made.untranslated.push(Untranslated {
            what: format!("view {}", common::ident::printable(&names::of(&view.name.0, &view.name.1))),
            sql: view.sql.clone(),
            reason: "its query is not translated".to_owned(),
        });
    }
}
