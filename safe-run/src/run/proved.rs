//! What was found out about the undo before anything began; [`crate::proof`] finds it out.

/// What was found out before the run.
#[derive(Debug, Clone, Default)]
pub struct Proof {
    /// What was done, and what it means for the run; one sentence each.
    pub lines: Vec<String>,
    /// The clone is the undo, and the snapshot only a copy: it need not be restorable here.
    pub snapshot_is_spare: bool,
    /// The clone may be the undo, should the snapshot turn out to be none: `--snapshot auto`.
    pub may_clone: bool,
    /// Workers of extensions that the run ends: looked for afterwards.
    pub workers: Vec<Worker>,
    /// What stands otherwise after an undo by the snapshot, though no restore knows: the checks did it before the snapshot was taken.
    pub differs: Vec<String>,
}

/// Workers of one kind in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// What the server calls them, such as `pg_cron launcher`.
    pub kind: String,
    /// How many there are.
    pub count: i64,
}
