//! Extensions in the version that the snapshot has. pg_dump writes `CREATE EXTENSION` without one, so that pg_restore makes the
//! server's default: other functions, other types, other rights. Where the version that was there is installed here beside
//! another default, the extension is made before the rest of the archive; where it is not, the difference is said.

use std::{collections::BTreeMap, path::Path};

use common::{
    Error, Progress, Result,
    ident::{literal, printable},
    postgres::{ConnectionSettings, Session, tools::Tool},
    snapshot::Manifest,
};

use crate::{
    archive::{self, Ahead, ArchiveOptions},
    contents::{self, Section},
};

/// What the server would make, and what else it could.
const AVAILABLE: &str = "
SELECT a.name::text, a.default_version::text,
       ARRAY(SELECT v.version::text FROM pg_catalog.pg_available_extension_versions v WHERE v.name = a.name)
FROM pg_catalog.pg_available_extensions a";

const INSTALLED: &str = "SELECT extname::text, extversion::text FROM pg_catalog.pg_extension";

/// Where the archive goes.
#[derive(Debug, Clone, Copy)]
pub struct To<'a> {
    /// The program.
    pub pg_restore: &'a Tool,
    /// The new database.
    pub settings: &'a ConnectionSettings,
    /// A session in it.
    pub session: &'a Session,
    /// The archive.
    pub archive: &'a Path,
}

/// Makes all extensions of the snapshot where one of them needs another version than the server's default: the schemas first,
/// which they lie in. The entries of the archive that are done then come back.
///
/// One that can't be made here is no failure yet: pg_restore tries it as it stands, and that counts.
pub async fn make(
    to: To<'_>,
    manifest: &Manifest,
    options: ArchiveOptions<'_>,
    progress: &Progress,
) -> Result<Ahead> {
    let mut done = Ahead::default();
    let wanted = versions(to.session, manifest).await?;
    if wanted.is_empty() {
        return Ok(done);
    }
    let entries = contents::entries(to.pg_restore, to.archive, Section::PreData).await?;
    let is_chosen = |id: &u32| options.entries.is_none_or(|chosen| chosen.contains(id));
    let schemas: Vec<u32> = entries
        .iter()
        .filter(|(id, text)| text.starts_with("SCHEMA - ") && is_chosen(id))
        .map(|(id, _)| *id)
        .collect();
    if !schemas.is_empty() {
        let options = ArchiveOptions { entries: Some(&schemas), ..options };
        let section = Section::PreData;
        archive::restore(to.pg_restore, to.settings, to.session, to.archive, section, options, progress)
            .await?;
        done.done.extend(schemas);
    }
    let mut waiting: Vec<(u32, String)> = Vec::new();
    for (id, text) in entries {
        let Some(name) = text.strip_prefix("EXTENSION - ").filter(|_| is_chosen(&id)) else { continue };
        let script = contents::script(to.pg_restore, to.archive, &[id]).await?;
        let statement = script.lines().find(|line| line.starts_with("CREATE EXTENSION "));
        let Some(statement) = statement.and_then(|line| line.strip_suffix(';')) else { continue };
        let version =
            wanted.get(name).map_or(String::new(), |version| format!(" VERSION {}", literal(version)));
        waiting.push((id, format!("{statement}{version}")));
    }
    // One may require another.
    loop {
        let before = waiting.len();
        let mut failed = Vec::new();
        for (id, statement) in waiting {
            match to.session.batch_execute(&statement).await {
                Ok(()) => {
                    done.done.insert(id);
                }
                Err(source) if source.code().is_none() => {
                    return Err(Error::postgres("could not make an extension", source));
                }
                Err(_) => failed.push((id, statement)),
            }
        }
        if failed.is_empty() || failed.len() == before {
            return Ok(done);
        }
        waiting = failed;
    }
}

/// The extensions whose version is available and not the server's default.
async fn versions(session: &Session, manifest: &Manifest) -> Result<BTreeMap<String, String>> {
    if manifest.extensions.iter().all(|extension| extension.name == "plpgsql") {
        return Ok(BTreeMap::new());
    }
    let rows = session
        .query(AVAILABLE, &[])
        .await
        .map_err(|source| Error::postgres("could not list the versions of extensions", source))?;
    let mut wanted = BTreeMap::new();
    for extension in &manifest.extensions {
        let Some(row) = rows.iter().find(|row| row.get::<_, String>(0) == extension.name) else { continue };
        let versions: Vec<String> = row.get(2);
        let is_default = row.get::<_, Option<String>>(1).as_ref() == Some(&extension.version);
        // template0 has plpgsql already.
        if !is_default && extension.name != "plpgsql" && versions.contains(&extension.version) {
            wanted.insert(extension.name.clone(), extension.version.clone());
        }
    }
    Ok(wanted)
}

/// Extensions that came back in another version: a sentence on each, by its name.
pub async fn differences(session: &Session, manifest: &Manifest) -> Result<BTreeMap<String, String>> {
    let rows = session
        .query(INSTALLED, &[])
        .await
        .map_err(|source| Error::postgres("could not list the extensions", source))?;
    let have: BTreeMap<String, String> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let differs = manifest.extensions.iter().filter_map(|extension| {
        let version = have.get(&extension.name).filter(|version| **version != extension.version)?;
        let said = printable(&format!(
            "extension {} is {version} and was {}, which this server does not have",
            extension.name, extension.version
        ));
        Some((extension.name.clone(), said))
    });
    Ok(differs.collect())
}
