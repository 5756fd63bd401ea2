//! The COPY statements of both directions. Text format, in the server's own encoding, so that no byte is converted; an
//! explicit list of columns, so that generated ones are left out and a different column order does no harm.

use crate::{Error, Ident, Result, catalog::Table, ident::literal};

/// A half-open range of blocks; without an end it is open-ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRange {
    /// First block.
    pub first: u64,
    /// The block after the last one.
    pub end: Option<u64>,
}

impl BlockRange {
    /// The whole table.
    pub const ALL: Self = Self { first: 0, end: None };
}

/// Blocks per chunk: 64 MiB of heap with 8 KiB blocks. Large enough that a file is cheap, small enough that the last
/// worker does not work alone for long.
pub const CHUNK_BLOCKS: u64 = 8192;

/// The blocks of `table` that make a chunk of about `chunk_blocks`, with what their rows store out of line.
///
/// Halved until they do, so that borders stay where they are while the rows keep their kind: a table of documents may have
/// a hundred times its own size out of line, and would be one chunk for one connection otherwise.
pub fn own_chunk_blocks(table: &Table, chunk_blocks: u64) -> u64 {
    let times = table.all_blocks() / table.blocks.max(1);
    (chunk_blocks >> times.max(1).ilog2()).max(1)
}

/// Blocks per piece of a chunk: 128 KiB of heap. A later snapshot reads only the pieces that changed; the server needs a few
/// microseconds for each statement, and compression loses a few per cent in pieces of half the size.
pub const PIECE_BLOCKS: u64 = 16;

/// How large chunks and pieces are, in blocks; other sizes than the usual ones are for tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Blocks per chunk.
    pub chunk_blocks: u64,
    /// Blocks per piece of a chunk.
    pub piece_blocks: u64,
}

impl Default for Cut {
    fn default() -> Self {
        Self { chunk_blocks: CHUNK_BLOCKS, piece_blocks: PIECE_BLOCKS }
    }
}

impl Cut {
    /// Blocks per piece of the chunks of `table`. The more columns, the more a statement costs, and the larger they are.
    pub fn piece_of(self, table: &Table) -> u64 {
        /// Columns of a table for which the usual size was chosen.
        const COLUMNS: usize = 16;
        /// Largest factor: pieces of a megabyte.
        const MOST: usize = 8;
        let times = table.columns.len().div_ceil(COLUMNS).next_power_of_two().min(MOST) as u64;
        own_chunk_blocks(table, self.chunk_blocks).min(self.piece_blocks * times)
    }
}

/// The pieces of a chunk, in order; together they are exactly the chunk. `blocks` is the size of the table.
pub fn piece_ranges(range: BlockRange, blocks: u64, piece_blocks: u64) -> Vec<BlockRange> {
    let end = range.end.unwrap_or(blocks).max(range.first + 1);
    let count = (end - range.first).div_ceil(piece_blocks);
    (0..count)
        .map(|n| BlockRange {
            first: range.first + n * piece_blocks,
            end: if n + 1 < count { Some(range.first + (n + 1) * piece_blocks) } else { range.end },
        })
        .collect()
}

/// Whether its rows can be read by their blocks, which is a query. Of an extension's table only some are the user's.
pub fn has_page_ranges(table: &Table) -> bool {
    table.is_heap && table.extension_filter.is_none() && table.may_plan
}

/// Splits a table of `blocks` blocks into ranges of `chunk_blocks`, fewer where much is stored out of line.
///
/// Borders are multiples of the chunk size, so that a table that has grown keeps its earlier ranges. The last range is
/// open-ended: rows may lie on pages added after the size was read, and a closed range would silently lose them
/// (docs/exactness.md, E3).
pub fn page_ranges(table: &Table, blocks: u64, chunk_blocks: u64) -> Vec<BlockRange> {
    let chunk_blocks = own_chunk_blocks(table, chunk_blocks);
    let count = if !has_page_ranges(table) { 1 } else { blocks.div_ceil(chunk_blocks).max(1) };
    (0..count)
        .map(|n| BlockRange {
            first: n * chunk_blocks,
            end: (n + 1 < count).then_some((n + 1) * chunk_blocks),
        })
        .collect()
}

/// The statement that loads a chunk of `table` from stdin.
pub fn copy_in_statement(table: &Table, encoding: &str) -> String {
    copy_in(table, encoding, "")
}

/// The same, with rows that no later visitor has to look after. Only a transaction that made or emptied the table may.
pub fn copy_in_frozen_statement(table: &Table, encoding: &str) -> String {
    copy_in(table, encoding, "FREEZE, ")
}

fn copy_in(table: &Table, encoding: &str, freeze: &str) -> String {
    let target = table.load_into.as_ref().unwrap_or(&table.name);
    format!(
        "COPY {target}{} FROM STDIN ({freeze}FORMAT text, ENCODING {})",
        column_list(&table.columns),
        literal(encoding)
    )
}

/// The statement that reads a range of `table`, and of it only the rows that an extension's filter calls the user's.
///
/// Where queries on it may not be planned it is a plain COPY of the table, which evaluates nothing of its owner's.
///
/// # Errors
/// Nothing but a query could answer, and none may be planned: refused for a filter.
pub fn copy_out_statement(table: &Table, range: BlockRange, encoding: &str) -> Result<String> {
    let options = format!("TO STDOUT (FORMAT text, ENCODING {})", literal(encoding));
    if !table.may_plan {
        let name = table.name.short();
        if table.is_filtered() {
            return Err(Error::refused(format!(
                "to ask which rows of {name} are the user's, as the extension does that it belongs to, could run code of \
                 others with the rights of this role"
            ))
            .with_hint(
                "Run the command as the role that owns the table, or give the table to a superuser (ALTER TABLE … OWNER TO …).",
            ));
        }
        if range != BlockRange::ALL {
            return Err(Error::failed(format!("a part of {name} was asked for, which is only read whole")));
        }
        return Ok(format!("COPY {}{} {options}", table.name, column_list(&table.columns)));
    }
    let select = |condition: &str| {
        let columns: Vec<String> = table.columns.iter().map(ToString::to_string).collect();
        format!("COPY (SELECT {} FROM ONLY {} {condition}) {options}", columns.join(", "), table.name)
    };
    Ok(match &table.extension_filter {
        Some(filter) => select(filter),
        // The columns are the root's; before PostgreSQL 16 one of them may be a generated one here, which only SELECT reads.
        None if range == BlockRange::ALL && table.load_into.is_some() => select(""),
        None if range == BlockRange::ALL => {
            format!("COPY {}{} {options}", table.name, column_list(&table.columns))
        }
        None => {
            let end =
                range.end.map_or(String::new(), |end| format!(" AND ctid < '({end},0)'::pg_catalog.tid"));
            select(&format!("WHERE ctid >= '({},0)'::pg_catalog.tid{end}", range.first))
        }
    })
}

/// ` ("a", "b")`; nothing at all for a table without columns, which COPY takes as well.
fn column_list(columns: &[Ident]) -> String {
    if columns.is_empty() {
        return String::new();
    }
    let names: Vec<String> = columns.iter().map(ToString::to_string).collect();
    format!(" ({})", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::QualifiedName;
    use crate::catalog::LsnFields;

    fn table() -> Table {
        Table {
            oid: 1,
            name: QualifiedName::new("s", "t"),
            columns: vec!["a".into(), "B\"".into()],
            blocks: 30,
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
    fn statements_quote_names_and_name_the_encoding() {
        assert_eq!(
            copy_out_statement(&table(), BlockRange { first: 10, end: Some(20) }, "UTF8").unwrap(),
            "COPY (SELECT \"a\", \"B\"\"\" FROM ONLY \"s\".\"t\" WHERE ctid >= '(10,0)'::pg_catalog.tid AND ctid < \
             '(20,0)'::pg_catalog.tid) TO STDOUT (FORMAT text, ENCODING 'UTF8')"
        );
        assert_eq!(
            copy_out_statement(&table(), BlockRange::ALL, "LATIN1").unwrap(),
            "COPY \"s\".\"t\" (\"a\", \"B\"\"\") TO STDOUT (FORMAT text, ENCODING 'LATIN1')"
        );
    }

    #[test]
    fn what_may_not_be_planned_is_a_plain_copy_of_the_whole_table() {
        let mut table =
            Table { may_plan: false, load_into: Some(QualifiedName::new("s", "root")), ..table() };
        let whole = "COPY \"s\".\"t\" (\"a\", \"B\"\"\") TO STDOUT (FORMAT text, ENCODING 'UTF8')";
        assert_eq!(copy_out_statement(&table, BlockRange::ALL, "UTF8").unwrap(), whole);
        assert_eq!(page_ranges(&table, 1000, 64), [BlockRange::ALL]);
        table.extension_filter = Some(String::new());
        assert_eq!(copy_out_statement(&table, BlockRange::ALL, "UTF8").unwrap(), whole);
        assert!(copy_out_statement(&table, BlockRange { first: 1, end: None }, "UTF8").is_err());
        table.extension_filter = Some("WHERE i > 3".to_owned());
        assert!(copy_out_statement(&table, BlockRange::ALL, "UTF8").is_err());
    }

    #[test]
    fn long_rows_make_short_ranges() {
        let ranges = |blocks, toast_blocks| {
            let table = Table { blocks, toast_blocks, ..table() };
            let borders: Vec<u64> = page_ranges(&table, blocks, 64).iter().map(|range| range.first).collect();
            borders
        };
        assert_eq!(ranges(100, 0), [0, 64]);
        assert_eq!(ranges(100, 99), [0, 64]);
        assert_eq!(ranges(100, 100), [0, 32, 64, 96]);
        assert_eq!(ranges(100, 299), [0, 32, 64, 96]);
        // The rows of one page are never taken apart.
        assert_eq!(ranges(3, 1_000_000), [0, 1, 2]);
        assert_eq!(ranges(0, 0), [0]);
        assert_eq!(ranges(0, 10), [0]);
    }

    #[test]
    fn the_pieces_of_tables_with_many_columns_are_larger() {
        let blocks = |columns: usize, chunk_blocks| {
            let columns = vec!["c".into(); columns];
            Cut { chunk_blocks, piece_blocks: 16 }.piece_of(&Table { columns, ..table() })
        };
        assert_eq!(
            [0, 1, 16, 17, 33, 200, 1600].map(|columns| blocks(columns, 8192)),
            [16, 16, 16, 32, 64, 128, 128]
        );
        assert_eq!(blocks(1600, 4), 4);
    }

    #[test]
    fn pieces_are_exactly_their_chunk() {
        let pieces = |first, end, blocks| piece_ranges(BlockRange { first, end }, blocks, 16);
        let range = |first, end| BlockRange { first, end };
        assert_eq!(
            pieces(64, Some(100), 500),
            [range(64, Some(80)), range(80, Some(96)), range(96, Some(100))]
        );
        assert_eq!(pieces(64, None, 97), [range(64, Some(80)), range(80, Some(96)), range(96, None)]);
        // A table that was made shorter, or is empty.
        assert_eq!(pieces(64, None, 10), [range(64, None)]);
        assert_eq!(pieces(0, None, 0), [BlockRange::ALL]);
        assert_eq!(pieces(0, Some(1), 500), [range(0, Some(1))]);
    }

    #[test]
    fn an_extensions_filter_applies_to_its_configuration_table() {
        let mut table = table();
        table.extension_filter = Some("WHERE NOT builtin".into());
        assert!(
            copy_out_statement(&table, BlockRange::ALL, "UTF8")
                .unwrap()
                .contains("FROM ONLY \"s\".\"t\" WHERE NOT builtin)")
        );
    }

    #[test]
    fn a_table_without_columns_has_no_column_list() {
        let mut table = table();
        table.columns.clear();
        assert_eq!(
            copy_in_statement(&table, "UTF8"),
            "COPY \"s\".\"t\" FROM STDIN (FORMAT text, ENCODING 'UTF8')"
        );
    }
}
