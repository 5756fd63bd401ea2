//! Which tables are read by page ranges, which are guarded for it, and which are read whole: docs/trust.md; docs/exactness.md, E4.

use std::{collections::HashMap, sync::Arc};

use common::{
    Error, Progress, Result,
    catalog::Table,
    postgres::{
        ConnectionSettings, Session,
        exported_snapshot::ExportedSnapshot,
        trust::{self, Others, Standing},
    },
    snapshot::copy_sql::{BlockRange, Cut, PIECE_BLOCKS, copy_out_statement},
};

use crate::planning_guard::PlanningGuard;

/// What keeps tables as they are while page ranges of them are read, by the tables' oids.
pub type Guards = HashMap<u32, Arc<PlanningGuard>>;

/// Decides which tables are read by page ranges, and which whole; says which of the larger ones are read whole, and why. Those that are
/// not ours and have no code of others now get a guard, where the role can have one.
pub(crate) async fn admit(
    settings: &ConnectionSettings,
    exported: &ExportedSnapshot<'_>,
    reader: &Session,
    tables: &mut [Table],
    cut: Cut,
    progress: &Progress,
) -> Result<Guards> {
    /// Tables of 8 MiB and more are worth two transactions of the guard's.
    const GUARDED_FROM_BLOCKS: u64 = 1024;
    let mut whole = trust::admit_by_oid(reader, tables, Others::MayInterfere).await?;
    // What can't be read at all is known before anything is.
    for table in tables.iter().filter(|table| table.is_filtered()) {
        copy_out_statement(table, BlockRange::ALL, "")?;
    }
    let mut guards = Guards::new();
    let from_blocks = GUARDED_FROM_BLOCKS.min(cut.chunk_blocks);
    let mut by_oid: HashMap<u32, &mut Table> = tables.iter_mut().map(|table| (table.oid, table)).collect();
    if !whole.is_empty() && exported.only_session().is_none() && can_guard(reader).await? {
        let fenced = exported.fenced(reader).await?;
        whole.retain(|standing| {
            let Some(table) = by_oid.get_mut(&standing.oid) else { return true };
            let is_guarded = standing.code.is_none()
                && table.is_heap
                && table.extension_filter.is_none()
                && table.all_blocks() > from_blocks;
            if is_guarded {
                table.may_plan = true;
                let guard = PlanningGuard::new(settings, standing, !fenced.contains(&standing.oid));
                guards.insert(standing.oid, Arc::new(guard));
            }
            !is_guarded
        });
    }
    let is_large = |standing: &Standing| {
        by_oid.get(&standing.oid).is_some_and(|table| table.all_blocks() > PIECE_BLOCKS)
    };
    if let Some(line) = trust::read_whole(&whole, is_large) {
        progress.note(line);
    }
    Ok(guards)
}

/// Whether this role can lock a schema's row here, which is a superuser's right, and no standby's.
async fn can_guard(reader: &Session) -> Result<bool> {
    let asked = "SELECT r.rolsuper AND NOT pg_catalog.pg_is_in_recovery() FROM pg_catalog.pg_roles r WHERE r.rolname = current_user";
    let row = reader.query_one(asked, &[]).await;
    Ok(row.map_err(|source| Error::postgres("could not ask for the rights of this role", source))?.get(0))
}
