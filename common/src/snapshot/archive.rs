//! The table of contents of pg_dump's custom archive, read without pg_restore: what each object is, the statement that makes it,
//! and what it depends on. The format is pg_dump's own (`pg_backup_archiver.c`); its table of contents is never compressed.
//!
//! The bytes may come from anybody: every length is compared with what is left, and nothing of a version that is not known here is
//! guessed at.

use crate::{Error, Result};

/// One object of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveEntry {
    /// Its number in the archive.
    pub id: u32,
    /// The catalog that has it, and its oid there; 0 where it has none.
    pub object: (u32, u32),
    /// Its name; of what belongs to a table the table's name stands before it.
    pub tag: String,
    /// What it is, such as `TABLE` or `FK CONSTRAINT`.
    pub kind: String,
    /// The statements that make it.
    pub definition: String,
    /// Its schema, where it is in one.
    pub schema: Option<String>,
    /// The numbers of the entries that it depends on.
    pub needs: Vec<u32>,
}

/// Versions of the format (major × 256 + minor) that are read: those of pg_dump 12 and later.
const VERSIONS: std::ops::RangeInclusive<u32> = 0x10e..=0x110;
/// From here on the header names the compression by a byte.
const WITH_ALGORITHM: u32 = 0x10f;
/// From here on an entry has the kind of its relation.
const WITH_RELATION_KIND: u32 = 0x110;
/// More entries than any archive has: each has dozens of bytes.
const BYTES_OF_ENTRY: usize = 32;

/// Reads the entries. `decode` turns the archive's encoding into text; `None` where it can't.
///
/// # Errors
/// [`crate::ErrorKind::Damaged`] for what is no such archive, ends early, or has a version that is not known.
pub fn entries(bytes: &[u8], decode: impl Fn(&[u8]) -> Option<String>) -> Result<Vec<ArchiveEntry>> {
    let mut reader = Reader { rest: bytes, integer_bytes: 4, decode };
    let version = reader.header()?;
    let count = usize::try_from(reader.integer()?).map_err(|_| damaged("it has a negative count"))?;
    if count > bytes.len() / BYTES_OF_ENTRY {
        return Err(damaged("it counts more entries than it can hold"));
    }
    (0..count).map(|_| reader.entry(version)).collect()
}

fn damaged(what: &str) -> Error {
    Error::damaged(format!("the archive of the schema can't be read: {what}"))
}

struct Reader<'a, D> {
    rest: &'a [u8],
    integer_bytes: usize,
    decode: D,
}

impl<'a, D: Fn(&[u8]) -> Option<String>> Reader<'a, D> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or_else(|| damaged("it ends early"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    /// A sign, and the bytes of the number, the low one first.
    fn integer(&mut self) -> Result<i64> {
        let is_negative = self.byte()? != 0;
        let bytes = self.take(self.integer_bytes)?;
        let value = bytes.iter().rev().fold(0_i64, |sum, byte| sum << 8 | i64::from(*byte));
        Ok(if is_negative { -value } else { value })
    }

    /// A length (−1: none at all), and the bytes.
    fn text(&mut self) -> Result<Option<String>> {
        let Ok(length) = usize::try_from(self.integer()?) else { return Ok(None) };
        let bytes = self.take(length)?;
        (self.decode)(bytes).map(Some).ok_or_else(|| damaged("a text is not in the database's encoding"))
    }

    fn number(&mut self) -> Result<u32> {
        let text = self.text()?.unwrap_or_default();
        text.parse().map_err(|_| damaged("a text is no number"))
    }

    fn header(&mut self) -> Result<u32> {
        if self.take(5)? != b"PGDMP" {
            return Err(damaged("it does not begin like one of pg_dump"));
        }
        let (major, minor, _revision) = (self.byte()?, self.byte()?, self.byte()?);
        let version = u32::from(major) << 8 | u32::from(minor);
        if !VERSIONS.contains(&version) {
            return Err(damaged(&format!(
                "this version of the tool does not know its format {major}.{minor}"
            )));
        }
        self.integer_bytes = usize::from(self.byte()?);
        let offset_bytes = self.byte()?;
        let format = self.byte()?;
        // Integers of 32 bits and offsets of 64 are what every pg_dump of these versions writes; the format 1 is `custom`.
        if self.integer_bytes != 4 || offset_bytes != 8 || format != 1 {
            return Err(damaged("its header is not that of a custom archive"));
        }
        if version >= WITH_ALGORITHM {
            self.byte()?;
        } else {
            self.integer()?;
        }
        // When it was made, in seven numbers.
        for _ in 0..7 {
            self.integer()?;
        }
        // The database, and the versions of the server and of pg_dump.
        for _ in 0..3 {
            self.text()?;
        }
        Ok(version)
    }

    fn entry(&mut self, version: u32) -> Result<ArchiveEntry> {
        let id = u32::try_from(self.integer()?).map_err(|_| damaged("an entry's number is negative"))?;
        let _has_data = self.integer()?;
        let object = (self.number()?, self.number()?);
        let tag = self.text()?.unwrap_or_default();
        let kind = self.text()?.unwrap_or_default();
        let _section = self.integer()?;
        let definition = self.text()?.unwrap_or_default();
        let (_drop, _copy) = (self.text()?, self.text()?);
        let schema = self.text()?.filter(|schema| !schema.is_empty());
        let (_tablespace, _access_method) = (self.text()?, self.text()?);
        if version >= WITH_RELATION_KIND {
            self.integer()?;
        }
        let (_owner, _with_oids) = (self.text()?, self.text()?);
        let mut needs = Vec::new();
        while let Some(need) = self.text()? {
            needs.push(need.parse().map_err(|_| damaged("a dependency is no number"))?);
        }
        // Where the rows lie, of which a schema has none.
        self.take(9)?;
        Ok(ArchiveEntry { id, object, tag, kind, definition, schema, needs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn integer(value: i32, out: &mut Vec<u8>) {
        out.push(u8::from(value < 0));
        out.extend_from_slice(&value.unsigned_abs().to_le_bytes());
    }

    fn text(text: &str, out: &mut Vec<u8>) {
        integer(i32::try_from(text.len()).unwrap(), out);
        out.extend_from_slice(text.as_bytes());
    }

    fn archive(minor: u8) -> Vec<u8> {
        let mut out = b"PGDMP\x01".to_vec();
        out.extend_from_slice(&[minor, 0, 4, 8, 1]);
        if minor >= 15 {
            out.push(1);
        } else {
            integer(-1, &mut out);
        }
        (0..7).for_each(|at| integer(at, &mut out));
        ["shop", "18.1", "18.1"].iter().for_each(|part| text(part, &mut out));
        integer(1, &mut out);
        integer(215, &mut out);
        integer(0, &mut out);
        ["1259", "16400", "orders", "TABLE"].iter().for_each(|part| text(part, &mut out));
        integer(2, &mut out);
        ["CREATE TABLE …;\n", "DROP TABLE …", "", "app", "", "heap"]
            .iter()
            .for_each(|part| text(part, &mut out));
        if minor >= 16 {
            integer(114, &mut out);
        }
        ["shop", "false", "6"].iter().for_each(|part| text(part, &mut out));
        integer(-1, &mut out);
        out.extend_from_slice(&[3; 9]);
        out
    }

    fn read(bytes: &[u8]) -> Result<Vec<ArchiveEntry>> {
        entries(bytes, |bytes| String::from_utf8(bytes.to_vec()).ok())
    }

    #[test]
    fn entries_of_every_known_version_are_read() {
        for minor in 14..=16 {
            let found = read(&archive(minor)).unwrap();
            assert_eq!(found.len(), 1);
            assert_eq!((found[0].id, found[0].object), (215, (1259, 16400)));
            assert_eq!((found[0].tag.as_str(), found[0].kind.as_str()), ("orders", "TABLE"));
            assert_eq!(
                (found[0].definition.as_str(), found[0].needs.as_slice()),
                ("CREATE TABLE …;\n", &[6][..])
            );
            assert_eq!(found[0].schema.as_deref(), Some("app"));
        }
        assert!(read(&archive(17)).unwrap_err().message().contains("format 1.17"));
    }

    #[test]
    fn an_archive_that_ends_anywhere_is_damaged() {
        let whole = archive(16);
        for length in 0..whole.len() {
            assert_eq!(read(&whole[..length]).unwrap_err().kind(), crate::ErrorKind::Damaged, "{length}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(at in 0_usize..300, byte: u8) {
            let mut bytes = archive(16);
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = read(&bytes);
        }
    }
}
