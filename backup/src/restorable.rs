//! What a restore of the snapshot could not make again, noted when it is taken.

use common::{
    Error, Progress, Result,
    postgres::{
        Session,
        obstacles::{self, Obstacle, Way},
    },
};

/// What a restore as this role, on this server, could not make again. A look that fails stops no backup.
///
/// `reader` is in a transaction that goes on afterwards, whatever becomes of the look.
pub(crate) async fn not_by_this_role(reader: &Session, progress: &Progress) -> Result<Vec<String>> {
    /// Named in the manifest; `backup check` lists all.
    const SHOWN: usize = 5;
    let failed = |source| Error::postgres("could not go on after a look at the role's rights", source);
    reader.batch_execute("SAVEPOINT look").await.map_err(failed)?;
    let looked = obstacles::find(reader).await;
    let end = if looked.is_ok() { "RELEASE look" } else { "ROLLBACK TO look; RELEASE look" };
    reader.batch_execute(end).await.map_err(failed)?;
    let found = match looked {
        Ok(found) => found,
        Err(error) => {
            progress.warn(format!("whether this role could restore the snapshot is not known: {error}"));
            return Ok(Vec::new());
        }
    };
    let in_the_way: Vec<&Obstacle> = found.iter().filter(|one| Way::Restore.is_stopped_by(one)).collect();
    if in_the_way.is_empty() {
        return Ok(Vec::new());
    }
    let role = common::ident::printable(reader.settings().user());
    let what = obstacles::lines(&in_the_way, SHOWN).join("; ");
    Ok(vec![format!(
        "restored as the role \"{role}\" on this server: {what} (`backup check` has what would help)"
    )])
}
