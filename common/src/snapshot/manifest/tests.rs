use super::*;
use crate::{
    QualifiedName,
    catalog::{LsnFields, Table},
    snapshot::codec::{RowHash, StoredChunk},
};

pub(crate) fn example() -> Manifest {
    let at = DateTime::from_timestamp(1_795_000_000, 123_000_000).unwrap();
    let content = StoredChunk {
        rows: 3,
        raw_bytes: 30,
        stored_bytes: 20,
        sha256: "ab".repeat(32),
        row_hash: RowHash::default(),
    };
    Manifest {
        format: FORMAT,
        id: SnapshotId::new(at, "shop", 7),
        kind: Kind::Manual,
        name: None,
        tags: BTreeMap::new(),
        taken_at: at,
        finished_at: at,
        tool_version: "0.1.0".into(),
        server: Server { version_num: 150_018, version: "15.18".into(), in_recovery: false, wal_lsn: None },
        pg_dump_version: "15.18".into(),
        pg_dump_major: 15,
        database: DatabaseState {
            name: "shop".into(),
            encoding: "UTF8".into(),
            collate: "C".into(),
            ctype: "C".into(),
            locale_provider: crate::catalog::LocaleProvider::parse("libc").unwrap(),
            locale: None,
            icu_rules: None,
            collation_version: None,
            owner: "shop".into(),
            tablespace: "pg_default".into(),
            connection_limit: -1,
            is_template: false,
            comment: None,
            acl: None,
            settings: vec![],
            security_labels: vec![],
        },
        database_bytes: None,
        placed: vec![],
        codec: Codec::default(),
        tables: vec![TableData {
            table: Table {
                oid: 16_400,
                name: QualifiedName::new("public", "odd \"name\"\n"),
                columns: vec!["id".into()],
                blocks: 1,
                toast_blocks: 0,
                is_heap: true,
                is_unlogged: false,
                load_into: None,
                extension_filter: None,
                may_plan: false,
                lsn_fields: LsnFields::default(),
            },
            chunks: vec![Chunk {
                path: "data/1.0.copy.zst".into(),
                first_block: 0,
                end_block: None,
                content,
                stored_in: None,
                read_in: None,
            }],
            form: None,
        }],
        wal_base: None,
        reading: None,
        partitioned: vec![],
        inherits: vec![],
        partial: None,
        sequences: vec![],
        large_objects: None,
        extensions: vec![],
        materialized_views: vec![],
        roles: vec![],
        role_passwords: false,
        grants: vec![],
        revoked: None,
        builtin_rights: None,
        lacks_public: false,
        differs: None,
        extension_tables: None,
        extension_objects: None,
        extension_sequences: vec![],
        generated: None,
        not_kept: vec![],
        owners: BTreeMap::new(),
        collations: vec![],
        cost: None,
        files: vec![],
    }
}

#[test]
fn a_manifest_reads_back() {
    let manifest = example();
    assert_eq!(Manifest::from_bytes(&manifest.to_bytes().unwrap()).unwrap(), manifest);
}

#[test]
fn manifests_of_the_format_before_are_read_and_those_of_a_later_one_are_not() {
    let read = |format, is_partial: bool| {
        let partial = is_partial.then(Partial::default);
        let manifest = Manifest { format, partial, ..example() };
        Manifest::from_bytes(&manifest.to_bytes().unwrap()).is_ok_and(|read| read == manifest)
    };
    assert!([1, FORMAT].into_iter().all(|format| read(format, false) && !read(format, true)));
    assert!([2, PARTIAL_FORMAT].into_iter().all(|format| read(format, true) && !read(format, false)));
    assert!(!read(PARTIAL_FORMAT + 1, false) && !read(PARTIAL_FORMAT + 1, true) && !read(0, false));
}

#[test]
fn every_flipped_bit_and_every_truncation_of_a_manifest_is_found() {
    let good = example().to_bytes().unwrap();
    for position in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[position] ^= 1 << bit;
            assert!(Manifest::from_bytes(&bad).is_err(), "flip at {position}.{bit}");
        }
        assert!(Manifest::from_bytes(&good[..position]).is_err(), "cut at {position}");
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
        proptest::prop_assert!(Manifest::from_bytes(&bytes).is_err());
    }

    #[test]
    fn only_plain_names_below_the_snapshot_are_paths(path in ".{0,40}") {
        if manifest_check::is_safe_path(&path) {
            let joined = std::path::Path::new("/snapshot").join(&path);
            proptest::prop_assert!(joined.starts_with("/snapshot"));
            proptest::prop_assert!(joined.components().all(|part| part != std::path::Component::ParentDir));
        }
    }
}

#[test]
fn a_manifest_cannot_name_files_elsewhere() {
    for path in ["../x", "/etc/passwd", "data/../../x", "data//x", "", "manifest.json", "data/.x", "a\\b"] {
        let mut manifest = example();
        manifest.tables[0].chunks[0].path = path.into();
        let error = Manifest::from_bytes(&manifest.encode().unwrap()).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Damaged, "{path}");
    }
}
