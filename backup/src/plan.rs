//! Cuts tables into page ranges. Pure: sizes come in, ranges come out.

use common::{
    catalog::Table,
    snapshot::copy_sql::{BlockRange, page_ranges},
};

/// One piece of work: a page range of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Index into the list of tables.
    pub table: usize,
    /// Its blocks.
    pub range: BlockRange,
}

/// Splits every table into page ranges, in the order of `tables` (largest first).
pub fn pieces(tables: &[Table], chunk_blocks: u64) -> Vec<Piece> {
    let ranges = |table: &Table| page_ranges(table, table.blocks, chunk_blocks);
    tables
        .iter()
        .enumerate()
        .flat_map(|(index, table)| ranges(table).into_iter().map(move |range| Piece { table: index, range }))
        .collect()
}

#[cfg(test)]
mod tests {
    use common::QualifiedName;

    use super::*;
    use common::catalog::LsnFields;

    fn table(blocks: u64) -> Table {
        Table {
            oid: 1,
            name: QualifiedName::new("s", "t"),
            columns: vec!["a".into(), "B".into()],
            blocks,
            toast_blocks: 0,
            is_heap: true,
            is_unlogged: false,
            load_into: None,
            extension_filter: None,
            may_plan: true,
            lsn_fields: LsnFields::default(),
        }
    }

    #[test]
    fn ranges_cover_every_block_once_and_the_last_is_open() {
        for blocks in [0, 1, 9, 10, 11, 25, 100] {
            let pieces = pieces(&[table(blocks)], 10);
            let mut next = 0;
            for piece in &pieces[..pieces.len() - 1] {
                assert_eq!(piece.range.first, next);
                next = piece.range.end.unwrap();
            }
            assert_eq!(pieces[pieces.len() - 1].range, BlockRange { first: next, end: None }, "{blocks}");
        }
    }

    #[test]
    fn a_table_that_grew_keeps_its_earlier_borders() {
        let small = pieces(&[table(25)], 10);
        let grown = pieces(&[table(47)], 10);
        assert_eq!(small[..2], grown[..2]);
    }

    #[test]
    fn other_access_methods_are_read_whole() {
        let mut other = table(1000);
        other.is_heap = false;
        assert_eq!(pieces(&[other], 10).len(), 1);
    }
}
