//! A fence that a run left, seen from a repository that knows nothing of the run. Pure.

use common::catalog::{DatabaseSetting, DatabaseState};

/// What a database is like that a run left behind its read-only fence; which repository knows of the run, nobody can tell from here.
pub fn note(database: &DatabaseState) -> Option<String> {
    let is_fence = |setting: &DatabaseSetting| {
        setting.role.is_none() && setting.name == "default_transaction_read_only" && setting.value == "on"
    };
    database.settings.iter().any(is_fence).then(|| {
        "the database is set to be read-only (default_transaction_read_only), as an unfinished run of safe-run leaves it: if nobody else did \
         that, it may hold half of what the run did, and `safe-run recover --repo` with that run's repository finishes it"
            .to_owned()
    })
}
