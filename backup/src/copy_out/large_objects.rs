//! Large objects: who they are, and their pages.

use common::{
    Error, Progress, Result,
    files::create_private_dir,
    postgres::{ConnectionSettings, Session, exported_snapshot::ExportedSnapshot},
    repository::PartialSnapshot,
    snapshot::manifest::{Chunk, LARGE_OBJECTS_DIR, LargeObjects},
};

use super::{
    CopyOptions,
    job::{ChunkName, Job, Source},
    worker::run,
};

/// Large objects per chunk: bounds the work that is lost or done alone, not the size.
const OBJECTS_PER_CHUNK: i64 = 20_000;

/// Who the large objects are.
pub(crate) const LARGE_OBJECTS: &str = "COPY (SELECT oid, pg_catalog.pg_get_userbyid(lomowner), lomacl::pg_catalog.text, \
     pg_catalog.obj_description(oid, 'pg_largeobject') FROM pg_catalog.pg_largeobject_metadata ORDER BY oid) TO STDOUT";

/// Makes sure that the role may read their content.
pub(crate) async fn may_read_large_objects(reader: &Session, count: u64) -> Result<()> {
    let failed = |source| Error::postgres("could not read the large objects", source);
    let may_read: bool = reader
        .query_one("SELECT pg_catalog.has_table_privilege('pg_catalog.pg_largeobject', 'SELECT')", &[])
        .await
        .map_err(failed)?
        .get(0);
    if !may_read {
        return Err(Error::refused(format!("the role may not read the database's {count} large objects"))
            .with_hint(format!(
                "Run `GRANT SELECT ON pg_catalog.pg_largeobject TO {}` in this database as a superuser.",
                common::ident::printable(&common::Ident::new(reader.settings().user()).to_string())
            )));
    }
    Ok(())
}

/// Copies the large objects, if there are any.
pub async fn large_objects(
    settings: &ConnectionSettings,
    exported: &ExportedSnapshot<'_>,
    reader: &Session,
    partial: &PartialSnapshot,
    count: u64,
    options: CopyOptions,
    progress: &Progress,
) -> Result<Option<LargeObjects>> {
    if count == 0 {
        return Ok(None);
    }
    let failed = |source| Error::postgres("could not read the large objects", source);
    may_read_large_objects(reader, count).await?;
    create_private_dir(&partial.dir().join(LARGE_OBJECTS_DIR))?;
    let borders = reader
        .query(
            "SELECT oid FROM (SELECT oid, pg_catalog.row_number() OVER (ORDER BY oid) AS n
             FROM pg_catalog.pg_largeobject_metadata) o WHERE (n - 1) % $1 = 0 ORDER BY oid",
            &[&OBJECTS_PER_CHUNK],
        )
        .await
        .map_err(failed)?;
    let borders: Vec<u32> = borders.iter().map(|row| row.get(0)).collect();
    let job = |name: String, statement: String| {
        let path = format!("{LARGE_OBJECTS_DIR}/{name}{}", options.codec.extension());
        Job {
            source: Source::Statement(statement),
            is_small: false,
            path: partial.dir().join(&path),
            chunk: ChunkName { path, first_block: 0, end_block: None },
        }
    };
    let mut jobs = vec![job("objects".to_owned(), LARGE_OBJECTS.to_owned())];
    for (n, first) in borders.iter().enumerate() {
        let end = borders.get(n + 1).map_or(String::new(), |end| format!(" AND loid < {end}"));
        jobs.push(job(
            format!("pages.{first}"),
            format!(
                "COPY (SELECT loid, pageno, data FROM pg_catalog.pg_largeobject WHERE loid >= {first}{end} \
                 ORDER BY loid, pageno) TO STDOUT"
            ),
        ));
    }
    let (chunks, _) = run(settings, exported, jobs, None, options, progress).await?;
    let mut chunks: Vec<Chunk> = chunks.into_iter().map(|(_, chunk)| chunk).collect();
    let metadata = chunks.remove(0);
    if metadata.content.rows != count {
        return Err(Error::failed(format!(
            "read {} large objects instead of {count}",
            metadata.content.rows
        )));
    }
    Ok(Some(LargeObjects { count, metadata, pages: chunks }))
}
