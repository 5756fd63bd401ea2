//! `backup verify` finds every change of every file of a snapshot: each bit, each length, each file that is missing, added or
//! in another's place. The verification itself runs in this process, many thousand times; the program for a sample.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::repository::verify::{Depth, verify};
use common::repository::{Repository, StoredSnapshot};
use common::{ErrorKind, Result};
use tests::outcome::names_in;
use tests::{Cluster, Snapshots};

/// A small snapshot of several kinds of files, in `codec`.
fn snapshot(codec: &str) -> (Snapshots, String) {
    let database = Cluster::shared(18).fresh_database("verified");
    database.psql(
        "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY, t text); INSERT INTO t (t) VALUES ('one'), ('two');
         CREATE TABLE u (t text); INSERT INTO u VALUES ('one'), ('two');
         CREATE MATERIALIZED VIEW m AS SELECT count(*) FROM t; SELECT lo_from_bytea(7, 'a large object')",
    );
    let snapshots = Snapshots::new();
    let id = snapshots.create(&database, &["--compress", codec]);
    (snapshots, id)
}

/// What `backup verify` does with one snapshot.
fn verified(dir: &Path) -> Result<()> {
    verify(StoredSnapshot::open(dir)?, Depth::Content, 1, &|_| ()).map(drop)
}

/// What `restore` does before it makes anything.
fn verified_by_hashes(dir: &Path) -> Result<()> {
    verify(StoredSnapshot::open(dir)?, Depth::Hashes, 1, &|_| ()).map(drop)
}

#[track_caller]
fn assert_found(dir: &Path, what: &str) {
    for result in [verified(dir), verified_by_hashes(dir)] {
        let error = result.expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Damaged, "{what}: {error}");
    }
}

/// Every file below `dir`, as paths relative to it.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for name in names_in(dir) {
        let path = dir.join(&name);
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|below| Path::new(&name).join(below)));
        } else {
            found.push(name.into());
        }
    }
    found
}

fn copy_of(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in files(dir) {
        let target = copy.path().join(&file);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(dir.join(file), target).unwrap();
    }
    copy
}

/// Larger files get two flipped bits of each byte instead of all eight: their hash does not know one bit from another.
const SMALL: usize = 1000;

/// All versions of a file with one change: bits flipped, each byte 0x00 and 0xff, each shorter length, a byte more.
fn changes(good: &[u8]) -> impl Iterator<Item = (String, Vec<u8>)> {
    let with = |at: usize, byte: u8| {
        let mut bad = good.to_vec();
        bad[at] = byte;
        bad
    };
    let flips = (0..good.len()).flat_map(move |at| {
        let is_tried = move |bit: &usize| good.len() <= SMALL || [at % 8, (at + 5) % 8].contains(bit);
        (0..8)
            .filter(is_tried)
            .map(move |bit| (format!("bit {bit} of byte {at}"), with(at, good[at] ^ (1 << bit))))
    });
    let filled = if good.len() <= SMALL { good.len() } else { 0 };
    let fills = (0..filled).flat_map(move |at| {
        [0x00, 0xff]
            .into_iter()
            .filter(move |fill| *fill != good[at])
            .map(move |fill| (format!("byte {at} is {fill}"), with(at, fill)))
    });
    let cuts = (0..good.len()).map(|at| (format!("cut at {at}"), good[..at].to_vec()));
    let more = [0u8, b'\n', b' ']
        .into_iter()
        .map(move |byte| (format!("{byte} appended"), [good, &[byte]].concat()));
    flips.chain(fills).chain(cuts).chain(more)
}

/// Verifies every change of every file of a snapshot; returns how many there were.
fn every_change_is_found(dir: &Path) -> usize {
    let all = files(dir);
    let next = AtomicUsize::new(0);
    let tried = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                let copy = copy_of(dir);
                while let Some(file) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let path = copy.path().join(file);
                    let good = fs::read(&path).unwrap();
                    // The manifest is read again and again; of any other change it knows nothing.
                    let opened = StoredSnapshot::open(copy.path()).unwrap();
                    let is_manifest = file == Path::new("manifest.json");
                    for (what, bad) in changes(&good) {
                        fs::write(&path, &bad).unwrap();
                        let result = if is_manifest {
                            verified(copy.path())
                        } else {
                            verify(opened.clone(), Depth::Content, 1, &|_| ()).map(drop)
                        };
                        let error = result.expect_err(&format!("{}: {what}", file.display()));
                        assert_eq!(error.kind(), ErrorKind::Damaged, "{}: {what}: {error}", file.display());
                        tried.fetch_add(1, Ordering::Relaxed);
                    }
                    fs::write(&path, &good).unwrap();
                }
                verified(copy.path()).expect("put back as it was, it is whole");
            });
        }
    });
    tried.into_inner()
}

#[test]
fn every_changed_byte_and_every_length_of_every_file_is_found() {
    let (snapshots, id) = snapshot("zstd");
    let dir = snapshots.folder_of(&id);
    let names: Vec<String> = files(&dir).iter().map(|path| path.display().to_string()).collect();
    for name in [
        "manifest.json",
        "README.txt",
        "load.sh",
        "schema.dump",
        "sequences.sql",
        "views.sql",
        "database.sql",
        "globals.sql",
    ] {
        assert!(names.iter().any(|other| other == name), "{name} is not among {names:?}");
    }
    assert_eq!(names.iter().filter(|name| name.starts_with("data/")).count(), 2, "{names:?}");
    assert_eq!(names.iter().filter(|name| name.starts_with("large-objects/")).count(), 2, "{names:?}");
    let bytes: u64 = names.iter().map(|name| fs::metadata(dir.join(name)).unwrap().len()).sum();
    let tried = every_change_is_found(&dir);
    // Two flips and a cut for each byte at least.
    assert!(tried as u64 > 3 * bytes, "{tried} changes of {bytes} bytes");
}

#[test]
fn every_changed_bit_of_a_chunk_in_any_codec_is_found() {
    for codec in ["gzip", "none"] {
        let (snapshots, id) = snapshot(codec);
        let dir = snapshots.folder_of(&id);
        let opened = StoredSnapshot::open(&dir).unwrap();
        let path = snapshots.chunks(&id).remove(0);
        let good = fs::read(&path).unwrap();
        for (what, bad) in changes(&good) {
            fs::write(&path, &bad).unwrap();
            for depth in [Depth::Content, Depth::Hashes] {
                assert!(verify(opened.clone(), depth, 1, &|_| ()).is_err(), "{codec}: {what}");
            }
        }
    }
}

#[test]
fn a_file_that_is_missing_added_renamed_or_in_anothers_place_is_found() {
    let (snapshots, id) = snapshot("none");
    let whole = snapshots.folder_of(&id);
    verified(&whole).unwrap();
    for file in files(&whole) {
        let name = file.display();
        let copy = copy_of(&whole);
        let path = copy.path().join(&file);
        fs::remove_file(&path).unwrap();
        assert_found(copy.path(), &format!("{name} is missing"));
        fs::create_dir(&path).unwrap();
        let error = verified(copy.path()).expect_err("a folder instead of a file").to_string();
        assert!(error.contains(&*file.file_name().unwrap().to_string_lossy()), "{error}");

        let copy = copy_of(&whole);
        let path = copy.path().join(&file);
        fs::rename(&path, path.with_extension("renamed")).unwrap();
        assert_found(copy.path(), &format!("{name} is renamed"));
    }
    for added in
        ["added", ".hidden", "data/added", "large-objects/added", "new/folder/added", "data/1.0.copy.zst~"]
    {
        let copy = copy_of(&whole);
        let path = copy.path().join(added);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
        assert_found(copy.path(), &format!("{added} is added"));
    }
    // Two chunks of the same rows, byte for byte the same, may change places; these two may not.
    let chunks = snapshots.chunks(&id);
    assert_ne!(fs::read(&chunks[0]).unwrap(), fs::read(&chunks[1]).unwrap());
    let copy = copy_of(&whole);
    let [a, b] = [0, 1].map(|n| copy.path().join("data").join(chunks[n].file_name().unwrap()));
    fs::copy(&chunks[0], &b).unwrap();
    fs::copy(&chunks[1], &a).unwrap();
    assert_found(copy.path(), "two chunks have changed places");
    // A link that leads to the right bytes outside of the snapshot would not be there on the next machine.
    let copy = copy_of(&whole);
    let link = copy.path().join("data").join(chunks[0].file_name().unwrap());
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&chunks[0], &link).unwrap();
    assert_found(copy.path(), "a chunk is a link");
    // A whole snapshot under another's name.
    let other = snapshots.folder_of(&format!("2020{}", &id[4..]));
    fs::rename(&whole, &other).unwrap();
    let listed = Repository::open(&snapshots.path()).unwrap().list().unwrap();
    assert_eq!(listed[0].snapshot.as_ref().unwrap_err().kind(), ErrorKind::Damaged);
    snapshots.run_offline("backup", &["verify", "--all"]).expect(6).says(&["DAMAGED"]);
}

#[test]
fn the_program_says_what_the_library_finds() {
    let (snapshots, id) = snapshot("zstd");
    let dir = snapshots.folder_of(&id);
    for file in files(&dir) {
        let path = dir.join(&file);
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad.get_mut(middle).map_or_else(|| fs::write(&path, "x").unwrap(), |byte| *byte ^= 0x10);
        if !good.is_empty() {
            fs::write(&path, &bad).unwrap();
        }
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        snapshots.run_offline("backup", &["verify", &id]).fails(6, &[&name, "DAMAGED"]);
        fs::write(&path, &good).unwrap();
    }
    snapshots.run_offline("backup", &["verify", &id]).expect(0).says(&["OK "]);
}

/// The files beside the snapshots: what they say may be lost, but nothing wrong may come of it.
#[test]
fn damaged_facts_about_snapshots_are_errors_or_harmless() {
    let (snapshots, id) = snapshot("zstd");
    snapshots.run_offline("backup", &["verify", &id]).expect(0);
    snapshots.run_offline("backup", &["pin", &id, "--note", "audit"]).expect(0);
    let root = snapshots.path();
    let stored = Repository::open(&root).unwrap().list().unwrap().remove(0);

    // Without its log, or with a bad one, a snapshot counts at most as less proven than it is; never as good when it was bad.
    let log = root.join("verifications.jsonl");
    let good = fs::read(&log).unwrap();
    let failed = String::from_utf8(good.clone()).unwrap().replace("\"ok\":true", "\"ok\":false").into_bytes();
    assert_ne!(good, failed);
    let standing = || {
        let repository = Repository::open(&root).unwrap();
        repository.verifications().map(|all| all.get(&stored.id).cloned().unwrap_or_default())
    };
    for (what, bad) in changes(&good).chain(changes(&failed)) {
        let was_good = !what.is_empty() && bad.windows(9).any(|text| text == b"\"ok\":true");
        fs::write(&log, &bad).unwrap();
        if let Ok(standing) = standing() {
            assert!(was_good || !standing.is_good(), "{what}: {}", String::from_utf8_lossy(&bad));
        }
    }
    fs::write(&log, &good).unwrap();
    assert!(standing().unwrap().is_good());

    // A pin whose file is damaged still pins.
    let pin = root.join("pins").join(&id);
    let good = fs::read(&pin).unwrap();
    for (what, bad) in changes(&good) {
        fs::write(&pin, &bad).unwrap();
        let protections = Repository::open(&root).unwrap().protections().unwrap();
        let manifest = &stored.snapshot.as_ref().unwrap().manifest;
        assert!(protections.of(&stored.id, Some(manifest)).is_some(), "{what}");
    }

    // repository.json says only that this is a repository, and of which layout.
    let file = root.join("repository.json");
    let good = fs::read(&file).unwrap();
    for (what, bad) in changes(&good) {
        fs::write(&file, &bad).unwrap();
        match Repository::open(&root) {
            Ok(repository) => assert_eq!(repository.list().unwrap().len(), 1, "{what}"),
            Err(error) => {
                assert!([ErrorKind::Damaged, ErrorKind::Refused].contains(&error.kind()), "{what}: {error}");
            }
        }
        // Nobody takes it for an empty folder and makes a new repository there.
        let _ = Repository::open_or_create(&root);
        assert_eq!(fs::read(&file).unwrap(), bad, "{what}");
    }
    fs::write(&file, &good).unwrap();
    snapshots.run_offline("backup", &["verify", "--all"]).expect(0);
}
