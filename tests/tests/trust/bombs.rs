//! A snapshot of somebody else's making, in which every length, count and hash is right, and a few megabytes unpack to gigabytes: no
//! command fills the memory with them, in whatever codec, as a folder or as a tar.

use std::process::Command;

use common::snapshot::{
    chunk_writer::{ChunkWriter, Compressor},
    codec::{Codec, StoredChunk},
    manifest::Chunk,
};
use serde_json::json;
use tests::{Cluster, Outcome, Snapshots};

use crate::foreign::{drop_role, forge, with_snapshot};

/// Of the text of each bomb: far more than any command may have.
const BOMB_BYTES: usize = 3 << 30;
/// Address space in KiB. Of what looks at whole rows one row may fill a GiB, which is the longest that a server writes.
const FOR_ANY: u32 = 1_000_000;
const FOR_ROWS: u32 = 2_300_000;

/// Writes a chunk as `backup` does, of rows of `row_bytes` zeros.
fn bomb(path: &std::path::Path, codec: Codec, row_bytes: usize) -> StoredChunk {
    std::fs::remove_file(path).unwrap();
    let mut writer = ChunkWriter::create(path, 1 << 32, Compressor::new(codec).unwrap()).unwrap();
    let zeros = [b'0'; 1 << 16];
    for written in (0..BOMB_BYTES).step_by(zeros.len()) {
        writer.buffer().extend_from_slice(&zeros);
        if (written + zeros.len()).is_multiple_of(row_bytes) {
            writer.buffer().push(b'\n');
        }
        writer.added().unwrap();
    }
    let finished = writer.finish().unwrap();
    finished.unsynced.sync().unwrap();
    finished.stored
}

/// A program that has so much address space and no more. Few arenas, which would be most of it.
fn limited(snapshots: &Snapshots, kib: u32, program: &str, url: &str, arguments: &[&str]) -> Outcome {
    let command = snapshots.command(program, url, arguments);
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("ulimit -v {kib}; exec \"$@\""), "sh"]);
    limited.arg(command.get_program()).args(command.get_args());
    limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    limited.current_dir(snapshots.path()).env("MALLOC_ARENA_MAX", "2");
    let outcome = Outcome::of(&mut limited);
    assert!(!outcome.stderr.contains("memory allocation"), "{program} {arguments:?}: {outcome:?}");
    outcome
}

#[test]
fn a_bomb_whose_hashes_are_right_fills_the_memory_of_no_command() {
    for (codec, row_bytes) in
        [(Codec::Gzip(1), BOMB_BYTES), (Codec::Zstd(1), BOMB_BYTES), (Codec::Gzip(1), 1 << 20)]
    {
        let compress = codec.to_string();
        let (database, snapshots, id) =
            with_snapshot(Cluster::shared(18), "bombs", &["--compress", &compress]);
        let url = database.url();
        let stored = bomb(&snapshots.chunks(&id).remove(0), codec, row_bytes);
        assert!(stored.stored_bytes < 40 << 20, "{stored:?}");
        forge(&snapshots, &id, |manifest| {
            let chunk = manifest["tables"][0]["chunks"][0].as_object_mut().unwrap();
            let forged = Chunk {
                path: chunk["path"].as_str().unwrap().to_owned(),
                first_block: 0,
                end_block: None,
                content: stored.clone(),
                stored_in: None,
                read_in: None,
            };
            chunk.extend(serde_json::to_value(forged).unwrap().as_object().unwrap().clone());
        });
        let folder = snapshots.path();
        let (archive, file) = (folder.join("it.tar"), folder.join("it.sqlite3"));
        let (archive, file) = (archive.to_str().unwrap(), file.to_str().unwrap());
        let into = format!("{}_into", database.name());
        // One row is longer than any; many are rows like others.
        let (all, rows) = if row_bytes == BOMB_BYTES { (6, 6) } else { (0, 1) };
        let longer = "a row that is longer than PostgreSQL writes any";
        for (kib, program, arguments, code) in [
            (FOR_ANY, "backup", &["list"][..], 0),
            (FOR_ANY, "backup", &["show", &id], 0),
            (FOR_ANY, "backup", &["verify", &id], all),
            (FOR_ANY, "backup", &["export", &id, "-o", archive], 0),
            (FOR_ANY, "restore", &[archive, "--dry-run"], 0),
            (FOR_ANY, "restore", &[&id, "--dry-run"], 0),
            (FOR_ROWS, "backup", &["diff", &id, &url], rows),
            (FOR_ROWS, "backup", &["diff", &id, &id], 0),
            (FOR_ROWS, "backup", &["export", &id, "--sqlite", file], all),
        ] {
            let outcome = limited(&snapshots, kib, program, &url, arguments).expect(code);
            assert!(code != 6 || outcome.stderr.contains(longer), "{arguments:?}: {outcome:?}");
        }
        // A server takes no text of such a row, nor of a megabyte where a number belongs.
        for (program, arguments) in [
            ("restore", &[&id, "--into", &into][..]),
            ("restore", &[archive, "--into", &into]),
            ("restore", &[&id, "--table", "t", "--into", &into]),
            ("backup", &["drill", &id]),
        ] {
            let outcome = limited(&snapshots, FOR_ANY, program, &url, arguments);
            assert!([1, 6].contains(&outcome.code), "{program} {arguments:?}: {outcome:?}");
        }
        assert_eq!(database.family(), [database.name()], "{codec}");
        // Another repository takes the archive in as it is.
        let other = Snapshots::new();
        std::fs::create_dir_all(other.path()).unwrap();
        limited(&other, FOR_ANY, "backup", &url, &["import", archive]).expect(0);
        limited(&other, FOR_ANY, "backup", &url, &["verify", &id]).expect(all);
        drop_role(&database);
    }
}

/// A file without a block on the disk has any length.
#[test]
fn an_archive_of_the_schema_of_terabytes_is_read_by_no_command_into_memory() {
    let (database, snapshots, id) = with_snapshot(Cluster::shared(18), "sparse", &[]);
    let url = database.url();
    for name in ["schema.dump", "globals.sql", "database.sql", "sequences.sql", "README.txt"] {
        let path = snapshots.folder_of(&id).join(name);
        let good = std::fs::read(&path).unwrap();
        let bytes: u64 = 1 << 40;
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(bytes).unwrap();
        let manifest = std::fs::read(snapshots.folder_of(&id).join("manifest.json")).unwrap();
        forge(&snapshots, &id, |manifest| {
            let files = manifest["files"].as_array_mut().unwrap();
            files.iter_mut().find(|file| file["path"] == name).unwrap()["bytes"] = json!(bytes);
        });
        let file = snapshots.path().join("it.sqlite3");
        let words = ["export", &id, "--sqlite", file.to_str().unwrap()];
        let outcome = limited(&snapshots, FOR_ROWS, "backup", &url, &words);
        assert!(outcome.code == 6 || name != "schema.dump", "{outcome:?}");
        let words = ["prune", "--keep-last", "1", "--dry-run"];
        limited(&snapshots, FOR_ANY, "backup", &url, &words).expect(0);
        std::fs::write(&path, good).unwrap();
        std::fs::write(snapshots.folder_of(&id).join("manifest.json"), manifest).unwrap();
        let _ = std::fs::remove_file(file);
    }
    limited(&snapshots, FOR_ANY, "backup", &url, &["verify", &id]).expect(0);
    drop_role(&database);
}
