//! A read-only fence of a run, seen from a repository that knows nothing of the run. Pure.

use common::{
    catalog::{DatabaseSetting, DatabaseState},
    postgres::database::FENCED,
};

/// What a database is like that stands behind a run's read-only fence; which repository knows of the run, nobody can tell from here.
pub fn note(database: &DatabaseState) -> Option<String> {
    let is_fence = |setting: &DatabaseSetting| {
        setting.role.is_none() && setting.name == "default_transaction_read_only" && setting.value == FENCED
    };
    database.settings.iter().any(is_fence).then(|| {
        "the database stands behind the read-only fence of a run of safe-run that this repository does not know: unless that run is over and \
         only holds its fence, the snapshot may hold half of what it did; `safe-run status --repo` with that run's repository tells"
            .to_owned()
    })
}
