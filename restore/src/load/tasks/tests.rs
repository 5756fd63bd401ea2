use common::{
    catalog::{LsnFields, Table},
    snapshot::{RowHash, codec::StoredChunk, manifest::Chunk, toc},
};

use super::*;

fn table(oid: u32, name: &str, megabytes: &[u64]) -> TableData {
    let chunk = |(number, megabytes): (usize, &u64)| Chunk {
        path: format!("data/{oid}.{number}.copy"),
        first_block: number as u64 * CHUNK_BLOCKS,
        end_block: None,
        content: StoredChunk {
            rows: megabytes * 1000,
            raw_bytes: megabytes << 20,
            stored_bytes: 1,
            sha256: String::new(),
            row_hash: RowHash::default(),
        },
        stored_in: None,
        read_in: None,
    };
    TableData {
        table: Table {
            oid,
            name: QualifiedName::new("app", name),
            columns: vec!["id".into()],
            blocks: megabytes.len() as u64 * CHUNK_BLOCKS,
            toast_blocks: 0,
            is_heap: true,
            is_unlogged: false,
            load_into: None,
            extension_filter: None,
            may_plan: true,
            lsn_fields: LsnFields::default(),
        },
        chunks: megabytes.iter().enumerate().map(chunk).collect(),
        form: None,
    }
}

/// Four tables: a large one in two chunks, another, a small one that the first points to, a small one alone.
fn data() -> Vec<TableData> {
    vec![
        table(11, "items", &[40, 20]),
        table(12, "orders", &[90]),
        table(13, "kinds", &[1]),
        table(14, "notes", &[1]),
    ]
}

const LISTED: &str = "\
1; 1259 11 TABLE app items o
2; 1259 12 TABLE app orders o
3; 1259 13 TABLE app kinds o
4; 1259 14 TABLE app notes o
5; 1255 99 FUNCTION app f() o
10; 2606 21 CONSTRAINT app items items_pkey o
;	depends on: 1
11; 2606 22 CONSTRAINT app orders orders_pkey o
;	depends on: 2
12; 2606 23 CONSTRAINT app kinds kinds_pkey o
;	depends on: 3
13; 2606 24 CONSTRAINT app notes notes_pkey o
;	depends on: 4
14; 1259 25 INDEX app items_order o
;	depends on: 1
15; 1259 26 INDEX app items_f o
;	depends on: 1 5
16; 2606 27 CONSTRAINT app items items_once o
;	depends on: 1
20; 2606 31 FK CONSTRAINT app items items_order_fk o
;	depends on: 1 2 11
21; 2606 32 FK CONSTRAINT app items items_kind_fk o
;	depends on: 1 3 12
22; 2606 33 FK CONSTRAINT app notes notes_kind_fk o
;	depends on: 3 4 12
23; 2606 34 FK CONSTRAINT app orders orders_self_fk o
;	depends on: 2 11
30; 2606 35 CHECK CONSTRAINT app items positive o
;	depends on: 1
31; 2620 36 TRIGGER app items t o
;	depends on: 1 5
";

fn facts(listed: &str) -> Facts {
    let entries = toc::parse(listed);
    let post_data = entries.iter().map(|entry| entry.id).filter(|id| *id >= 10).collect();
    Facts { entries, post_data, large_bytes: 2 << 20, jobs: 2, reads_back: true, ..Facts::default() }
}

/// Every task that has to end before this one begins.
fn before(tasks: &[Task], task: usize) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut waiting = tasks[task].shape.needs.clone();
    while let Some(need) = waiting.pop() {
        if found.insert(need) {
            waiting.extend(&tasks[need].shape.needs);
        }
    }
    found
}

fn loads(tasks: &[Task], table: usize) -> BTreeSet<usize> {
    let is_load = |step: &Step| match step {
        Step::Load { table: of, .. } | Step::LoadFrozen { table: of } => *of == table,
        _ => false,
    };
    (0..tasks.len()).filter(|task| is_load(&tasks[*task].step)).collect()
}

fn position(tasks: &[Task], step: &Step) -> Option<usize> {
    tasks.iter().position(|task| task.step == *step)
}

fn building(tasks: &[Task], index: u32) -> Option<usize> {
    tasks.iter().position(|task| matches!(task.step, Step::Build { entry, .. } if entry == index))
}

fn foreign_key(tasks: &[Task], key: u32) -> Option<usize> {
    tasks.iter().position(|task| matches!(task.step, Step::ForeignKey { entry, .. } if entry == key))
}

#[test]
fn a_foreign_keys_own_table_is_named_first() {
    let tasks = tasks(&data(), &facts(LISTED));
    for (entry, expected) in [(20, vec![0, 1]), (21, vec![0, 2]), (23, vec![1])] {
        let Step::ForeignKey { ends, .. } = &tasks[foreign_key(&tasks, entry).unwrap()].step else {
            panic!()
        };
        assert_eq!(*ends, expected);
    }
}

#[test]
fn nothing_touches_a_table_before_all_of_it_is_loaded() {
    let tasks = tasks(&data(), &facts(LISTED));
    for (number, task) in tasks.iter().enumerate() {
        if matches!(task.step, Step::Load { .. } | Step::LoadFrozen { .. }) {
            continue;
        }
        assert!(!task.shape.locks.is_empty(), "{task:?}");
        for (table, _) in &task.shape.locks {
            assert!(loads(&tasks, *table).is_subset(&before(&tasks, number)), "{task:?}");
        }
    }
}

#[test]
fn every_table_is_loaded_once_and_read_back_once() {
    let data = data();
    let tasks = tasks(&data, &facts(LISTED));
    for (table, content) in data.iter().enumerate() {
        let steps = || tasks.iter().map(|task| &task.step);
        let frozen = steps().filter(|step| **step == Step::LoadFrozen { table }).count();
        let chunks: Vec<usize> = steps()
            .filter_map(|step| match step {
                Step::Load { table: of, chunk } if *of == table => Some(*chunk),
                _ => None,
            })
            .collect();
        let all: Vec<usize> = (0..content.chunks.len()).collect();
        assert!((frozen == 1 && chunks.is_empty()) || (frozen == 0 && chunks == all), "{table}: {chunks:?}");
        let read: Vec<BlockRange> = steps()
            .filter_map(|step| match step {
                Step::ReadBack { table: of, range } if *of == table => Some(*range),
                _ => None,
            })
            .collect();
        assert_eq!(read, page_ranges(&content.table, content.table.blocks, CHUNK_BLOCKS));
    }
}

#[test]
fn only_entries_that_need_nothing_else_of_the_section_come_ahead_and_in_order() {
    let tasks = tasks(&data(), &facts(LISTED));
    let built: BTreeSet<u32> = tasks
        .iter()
        .filter_map(|task| match task.step {
            Step::Build { entry, .. } | Step::ForeignKey { entry, .. } => Some(entry),
            _ => None,
        })
        .collect();
    // Not the small table's, and what builds nothing. The small table at the other end of a large one's key is needed.
    assert_eq!(built, BTreeSet::from([10, 11, 12, 14, 15, 16, 20, 21, 23]));
    let build = |entry| building(&tasks, entry).unwrap();
    for (key, needs) in [(20, vec![11]), (21, vec![12]), (23, vec![11])] {
        let before = before(&tasks, foreign_key(&tasks, key).unwrap());
        assert!(needs.iter().all(|need| before.contains(&build(*need))), "{key}");
    }
    // Two keys of one table would wait for each other's lock.
    assert!(before(&tasks, build(16)).contains(&build(10)) || before(&tasks, build(10)).contains(&build(16)));
    // ANALYZE looks at indexes on expressions.
    let analyze = before(&tasks, position(&tasks, &Step::Analyze { table: 0 }).unwrap());
    assert!(analyze.contains(&build(15)) && position(&tasks, &Step::Analyze { table: 3 }).is_none());
}

#[test]
fn what_needs_another_entry_of_the_section_is_left_to_pg_restore() {
    // A function that needs a primary key comes after it; so does an index that calls the function.
    let listed = LISTED.replace(
        ";\tdepends on: 1 5\n16;",
        ";\tdepends on: 1 40\n40; 1255 41 FUNCTION app late() o\n;\tdepends on: 11\n16;",
    );
    assert_ne!(listed, LISTED);
    let tasks = tasks(&data(), &facts(&listed));
    assert_eq!(building(&tasks, 15), None);
    // Its table is analyzed when the index is there.
    assert_eq!(position(&tasks, &Step::Analyze { table: 0 }), None);
    assert!(foreign_key(&tasks, 20).is_some());
}

#[test]
fn foreign_keys_and_statistics_of_trees_are_left_to_the_end() {
    let mut facts = facts(LISTED);
    facts.in_trees = HashMap::from([(QualifiedName::new("app", "orders"), true)]);
    let tasks = tasks(&data(), &facts);
    for entry in [20, 23] {
        assert_eq!(foreign_key(&tasks, entry), None);
    }
    assert_eq!(position(&tasks, &Step::Analyze { table: 1 }), None);
    assert!(building(&tasks, 11).is_some());
}

#[test]
fn rows_that_may_lie_in_any_partition_wait_for_all_of_them() {
    let mut data = data();
    for number in [0, 1] {
        data[number].table.load_into = Some(QualifiedName::new("app", "root"));
    }
    let tasks = tasks(&data, &facts(LISTED));
    let both: BTreeSet<usize> = loads(&tasks, 0).union(&loads(&tasks, 1)).copied().collect();
    for entry in [10, 11, 14] {
        assert!(both.is_subset(&before(&tasks, building(&tasks, entry).unwrap())), "{entry}");
    }
    // Through a partitioned table nothing can be frozen.
    assert!(!tasks.iter().any(|task| matches!(task.step, Step::LoadFrozen { table: 0 | 1 })));
}

#[test]
fn a_table_that_is_most_of_all_rows_is_loaded_by_several_connections() {
    let mut facts = facts(LISTED);
    let data = [table(11, "items", &[60, 60, 60]), table(12, "orders", &[20, 20])];
    let several = tasks(&data, &facts);
    assert_eq!((loads(&several, 0).len(), loads(&several, 1).len()), (3, 1));
    facts.jobs = 1;
    assert_eq!(loads(&tasks(&data, &facts), 0).len(), 1);
}

#[test]
fn a_table_gets_code_with_an_index_that_needs_more_than_tables() {
    assert_eq!(that_get_code(&data(), &facts(LISTED)), BTreeSet::from([0]));
    let without = LISTED.replace(";	depends on: 1 5\n16;", ";	depends on: 1\n16;");
    assert_eq!(that_get_code(&data(), &facts(&without)), BTreeSet::new(), "a trigger is no query's business");
    // What is read whole is one task.
    let mut data = data();
    data[0].table.may_plan = false;
    let tasks = tasks(&data, &facts(LISTED));
    let whole = tasks.iter().filter(|task| matches!(task.step, Step::ReadBack { table: 0, .. })).count();
    assert_eq!(whole, 1);
}
