//! The manifest: what a snapshot holds and what every one of its files must look like. Written last: a snapshot exists
//! if and only if its manifest does.
//!
//! On disk it is one line of JSON, `{"sha256":"…","snapshot":{…}}`, whose hash is over the exact bytes of `snapshot`.
//! The envelope is compared byte for byte, so that no flipped bit anywhere in the file goes unnoticed.

mod not_stored;
mod part;
mod stored;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{Codec, SnapshotId, codec::hex, cost::Cost, manifest_check, wal_base::WalBase};
use crate::{
    Error, Result,
    catalog::{
        BuiltinRights, DatabaseState, Extension, MaterializedView, NamedCollation, ObjectGrant,
        PartitionedTable, PlacedRelation, Role, Sequence,
    },
};

pub use not_stored::{Counted, ExtensionObjects, ExtensionTable, GeneratedColumns};
pub use part::{Filters, Partial};
pub use stored::{Chunk, FileEntry, LargeObjects, TableData};

/// Version of the format. A change that an older reader would misread raises it: 1 had one frame in each file.
pub const FORMAT: u32 = 3;

/// Version of the format of a snapshot that holds only a part of its database. Another number, so that a reader that does
/// not know of parts refuses it instead of taking it for the whole.
pub const PARTIAL_FORMAT: u32 = 4;

/// What can be read: whole and partial ones, of this version and of the one before.
const READABLE_FORMATS: [u32; 4] = [1, 2, FORMAT, PARTIAL_FORMAT];

/// The manifest's file name within a snapshot.
pub const MANIFEST_FILE: &str = "manifest.json";
/// Longest manifest that is read, in bytes; it is held in memory, and one with a million chunks has about this size.
pub const MAX_MANIFEST_BYTES: u64 = 512 << 20;
/// Largest archive of a schema that is read into memory: a million tables have some 500 MB.
pub const MAX_SCHEMA_BYTES: u64 = 1 << 30;
/// pg_dump's custom archive of the schema.
pub const SCHEMA_FILE: &str = "schema.dump";
/// How to restore with stock tools.
pub const README_FILE: &str = "README.txt";
/// The shell script that the README names.
pub const LOAD_SCRIPT_FILE: &str = "load.sh";
/// Entries of the archive that belong to a partial snapshot, for `pg_restore --use-list`.
pub const LIST_FILE: &str = "schema.list";
/// `setval` for every sequence.
pub const SEQUENCES_FILE: &str = "sequences.sql";
/// `REFRESH` for every materialized view that was filled.
pub const VIEWS_FILE: &str = "views.sql";
/// Database-level settings, owner, grants and comment.
pub const DATABASE_FILE: &str = "database.sql";
/// The roles that the schema names, without passwords.
pub const GLOBALS_FILE: &str = "globals.sql";
/// Folder of the chunks.
pub const DATA_DIR: &str = "data";
/// Folder of the large objects.
pub const LARGE_OBJECTS_DIR: &str = "large-objects";

/// Why a snapshot was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// `backup create`.
    Manual,
    /// `backup schedule`.
    Scheduled,
    /// `safe-run`, before a migration.
    PreMigration,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Manual => "manual",
            Self::Scheduled => "scheduled",
            Self::PreMigration => "pre-migration",
        })
    }
}

/// The server that the snapshot was read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// `server_version_num`, such as 150018.
    pub version_num: i32,
    /// `server_version`, such as `15.18 (Debian 15.18-0+deb12u1)`.
    pub version: String,
    /// Whether it was a hot standby.
    pub in_recovery: bool,
    /// WAL position right after the snapshot was taken, when the role may read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wal_lsn: Option<String>,
}

impl Server {
    /// The major version, such as 15.
    pub fn major(&self) -> u32 {
        self.version_num.unsigned_abs() / 10_000
    }
}

/// How much of the tables was read, and how much taken over from an earlier snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// Chunks of all tables.
    pub chunks: u64,
    /// Those that were read, as a whole or in part.
    pub chunks_read: u64,
    /// Those of which only the pieces were read that had changed.
    #[serde(default)]
    pub chunks_in_part: u64,
    /// Those whose file is one of an earlier snapshot, read or not.
    pub chunks_shared: u64,
    /// Length of their files.
    pub bytes_shared: u64,
    /// The snapshot that was compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier: Option<SnapshotId>,
    /// Why all chunks were read, where no chunk could have been taken over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_all: Option<String>,
}

/// Everything known about a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`], or [`PARTIAL_FORMAT`].
    pub format: u32,
    /// Also the folder's name.
    pub id: SnapshotId,
    /// Why it was taken.
    pub kind: Kind,
    /// A name given by a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `--tag k=v`.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// When PostgreSQL's snapshot was taken: the state that is stored is the state at this moment.
    pub taken_at: DateTime<Utc>,
    /// When the last byte was written.
    pub finished_at: DateTime<Utc>,
    /// Version of the tool that wrote it.
    pub tool_version: String,
    /// The server.
    pub server: Server,
    /// `pg_dump --version` of the client that wrote the schema archive; pg_restore must not be older.
    pub pg_dump_version: String,
    /// Major version of that client.
    pub pg_dump_major: u32,
    /// Database-level state.
    pub database: DatabaseState,
    /// From where in the log a later snapshot can tell what changed, where the server tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wal_base: Option<WalBase>,
    /// How much was read for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reading: Option<Reading>,
    /// Size of the whole database on the server's disk, indexes and bloat included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_bytes: Option<u64>,
    /// What lies in another tablespace than the database's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub placed: Vec<PlacedRelation>,
    /// Codec of every chunk.
    pub codec: Codec,
    /// Tables, largest first.
    pub tables: Vec<TableData>,
    /// Partitioned tables, which have no rows of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partitioned: Vec<PartitionedTable>,
    /// Which table is a partition or an heir of which: oids of child and parent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inherits: Vec<(u32, u32)>,
    /// Set when it holds only a part of the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial: Option<Partial>,
    /// Sequences, read after the data.
    pub sequences: Vec<Sequence>,
    /// Large objects, when there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub large_objects: Option<LargeObjects>,
    /// Extensions and their versions.
    pub extensions: Vec<Extension>,
    /// Materialized views in refresh order.
    pub materialized_views: Vec<MaterializedView>,
    /// Roles that the schema names, without passwords.
    pub roles: Vec<Role>,
    /// Whether `globals.sql` holds the roles' password hashes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub role_passwords: bool,
    /// Privileges on objects beyond what holds for every object of its kind; a restore is compared with them. Without
    /// `revoked`, all that were written down, those that hold anyway among them.
    #[serde(default)]
    pub grants: Vec<ObjectGrant>,
    /// Rights that everybody has on an object of its kind and that were taken away. Not there in snapshots of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Vec<ObjectGrant>>,
    /// Rights on what PostgreSQL itself brought, where somebody has changed them. Not there in snapshots of a part and of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builtin_rights: Option<BuiltinRights>,
    /// The schema public, which every new database has, was gone. pg_dump says nothing of it. Never in snapshots of a part.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lacks_public: bool,
    /// What this snapshot does not bring back, one sentence each.
    #[serde(default)]
    pub not_kept: Vec<String>,
    /// Those of `not_kept` by which a restored database certainly differs. Not there in snapshots of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub differs: Option<Vec<String>>,
    /// Tables of extensions whose rows pg_dump does not write. Not there in snapshots of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extension_tables: Option<Vec<ExtensionTable>>,
    /// What each extension owned. Not there in snapshots of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extension_objects: Option<BTreeMap<String, ExtensionObjects>>,
    /// Sequences of extensions that are no configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extension_sequences: Vec<Sequence>,
    /// Generated columns whose values were read and not stored. Not there in snapshots of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generated: Option<Vec<GeneratedColumns>>,
    /// Who owns what, by role; a restore is compared with it. Names as PostgreSQL identifies objects.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub owners: BTreeMap<String, Vec<String>>,
    /// Collations that columns, indexes and types name, beside the database's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub collations: Vec<NamedCollation>,
    /// Where the time of copying rows went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// Every file but the chunks and the manifest.
    pub files: Vec<FileEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    sha256: String,
    #[serde(borrow)]
    snapshot: &'a RawValue,
}

impl Manifest {
    /// The bytes of `manifest.json`.
    ///
    /// # Errors
    /// For a manifest that [`Manifest::from_bytes`] would not take: it would be a snapshot that nobody can restore.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        if let Some(problem) = manifest_check::problem(self) {
            return Err(Error::failed(format!("the snapshot's manifest {problem}"))
                .with_hint("No snapshot was made. This is a defect, please report it with this message."));
        }
        self.encode()
    }

    /// The bytes of a manifest that says anything.
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let unencodable = |source: serde_json::Error| {
            Error::failed(format!("could not encode the manifest: {source}")).with_source(source)
        };
        let body = serde_json::to_string(self).map_err(unencodable)?;
        let raw: &RawValue = serde_json::from_str(&body).map_err(unencodable)?;
        let envelope = Envelope { sha256: hex(&Sha256::digest(body.as_bytes())), snapshot: raw };
        let mut bytes = serde_json::to_vec(&envelope).map_err(unencodable)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads a manifest back and checks it against its own hash.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Damaged`] for anything but exactly what [`Manifest::to_bytes`] wrote, for a format of another
    /// version, and for words, numbers and paths that no backup writes, with the field that has them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let damaged = |problem: String| {
            Error::damaged(problem).with_hint(
                "The snapshot can't be trusted. Restore another one, or copy this manifest back from a second copy.",
            )
        };
        let envelope: Envelope = serde_json::from_slice(bytes)
            .map_err(|source| damaged(format!("manifest.json is not a manifest: {source}")))?;
        let body = envelope.snapshot.get();
        if hex(&Sha256::digest(body.as_bytes())) != envelope.sha256 {
            return Err(damaged("manifest.json does not match its own checksum".to_owned()));
        }
        let mut canonical = serde_json::to_vec(&envelope)
            .map_err(|source| damaged(format!("manifest.json can't be read: {source}")))?;
        canonical.push(b'\n');
        if canonical != bytes {
            return Err(damaged("manifest.json was changed after it was written".to_owned()));
        }
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let version: Version = serde_json::from_str(body)
            .map_err(|source| damaged(format!("manifest.json has no format version: {source}")))?;
        if !READABLE_FORMATS.contains(&version.format) {
            return Err(Error::damaged(format!(
                "manifest.json has format {}, and this version of the tool reads formats 1 to {PARTIAL_FORMAT}",
                version.format
            ))
            .with_hint("Use the version of the tool that wrote the snapshot, or a newer one."));
        }
        let manifest: Self = serde_json::from_str(body)
            .map_err(|source| damaged(format!("manifest.json can't be read: {source}")))?;
        if manifest.partial.is_some() != [2, PARTIAL_FORMAT].contains(&manifest.format) {
            return Err(damaged("manifest.json contradicts itself about being partial".to_owned()));
        }
        if manifest_check::holds_nul(body) {
            return Err(damaged(
                "manifest.json holds the character U+0000, which no text of PostgreSQL has".to_owned(),
            ));
        }
        match manifest_check::problem(&manifest) {
            Some(problem) => Err(damaged(format!("manifest.json {problem}"))),
            None => Ok(manifest),
        }
    }

    /// Every chunk: tables first, then large objects.
    pub fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        let objects = self.large_objects.iter().flat_map(|lo| std::iter::once(&lo.metadata).chain(&lo.pages));
        self.tables.iter().flat_map(|table| &table.chunks).chain(objects)
    }

    /// Every path in the snapshot but the manifest's own.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.chunks().map(|chunk| chunk.path.as_str()).chain(self.files.iter().map(|file| file.path.as_str()))
    }

    /// Rows of all tables.
    pub fn rows(&self) -> u64 {
        sum(self.tables.iter().map(TableData::rows))
    }

    /// Bytes of COPY text of all chunks.
    pub fn raw_bytes(&self) -> u64 {
        sum(self.chunks().map(|chunk| chunk.content.raw_bytes))
    }

    /// Bytes on disk of all files but the manifest.
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes_checked().unwrap_or(u64::MAX)
    }

    /// Like [`Manifest::stored_bytes`]; `None` for a sum that can't be, in a manifest from elsewhere.
    pub fn stored_bytes_checked(&self) -> Option<u64> {
        let chunks = self.chunks().map(|chunk| chunk.content.stored_bytes);
        let files = self.files.iter().map(|file| file.bytes);
        chunks.chain(files).try_fold(0u64, u64::checked_add)
    }

    /// Whether it holds only a part of its database.
    pub fn is_partial(&self) -> bool {
        self.partial.is_some()
    }

    /// `manual`, `scheduled` and so on, and `PARTIAL` where that has to be known.
    pub fn kind_cell(&self) -> String {
        if self.is_partial() { format!("{} PARTIAL", self.kind) } else { self.kind.to_string() }
    }

    /// How long it took.
    pub fn took(&self) -> std::time::Duration {
        (self.finished_at - self.taken_at).to_std().unwrap_or_default()
    }
}

/// A manifest from elsewhere may hold any numbers: a sum that does not fit stops at the largest.
fn sum(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, u64::saturating_add)
}

#[cfg(test)]
pub(crate) mod tests;
