//! No file of the programs is longer than a reader can hold, but for tables. The length and the depth of functions are clippy's to look at.

use super::hints::scan;

/// Most lines of a file.
const MOST: usize = 500;

/// Files that are one table each, and may be longer.
const TABLES: [&str; 1] = ["common/src/postgres/sql.rs"];

#[test]
fn no_file_of_the_programs_has_more_than_500_lines_but_tables() {
    let root = scan::root();
    let mut seen = 0;
    let mut long = Vec::new();
    for file in scan::CRATES.iter().flat_map(|name| scan::every_file(&root.join(name).join("src"))) {
        let name = file.strip_prefix(&root).unwrap().display().to_string();
        let lines = std::fs::read_to_string(&file).unwrap().lines().count();
        seen += 1;
        if lines > MOST && !TABLES.contains(&&*name) {
            long.push(format!("{name}: {lines}"));
        }
    }
    assert!(seen > 300, "only {seen} files were found");
    assert!(long.is_empty(), "split these by what they do: {long:#?}");
}
