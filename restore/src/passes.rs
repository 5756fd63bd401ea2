//! The order in which the post-data section is restored. Pure.

use std::collections::BTreeSet;

/// The post-data section in parts.
#[derive(Debug, Default)]
pub struct Passes {
    /// What builds an index: an index, a primary key, a unique or exclusion constraint; and what such an index may need.
    pub indexes: String,
    /// Everything else.
    pub others: String,
    /// Foreign keys.
    pub foreign_keys: String,
    /// Comments and labels.
    pub last: String,
    /// Event triggers, with their comments and labels.
    pub event_triggers: String,
}

/// Entries that are restored by one run of pg_restore.
#[derive(Debug, PartialEq, Eq)]
pub struct Pass {
    /// The list.
    pub list: String,
    /// Whether it may be restored by several connections.
    pub in_parallel: bool,
}

impl Passes {
    /// The parts in their order. `by_several`: whether all that is no index may be restored by several connections.
    ///
    /// Foreign keys come after all that they may need, and comments last. To check one, PostgreSQL plans a query of both
    /// tables, which computes what is constant in their indexes and statistics: so what is in `late` comes after them.
    pub fn in_order(self, late: &BTreeSet<u32>, by_several: bool) -> Vec<Pass> {
        let pass = |list: String, in_parallel: bool| Pass { list, in_parallel };
        let passes = if late.is_empty() {
            let (indexes, others) = if by_several {
                (self.indexes + &self.others, String::new())
            } else {
                (self.indexes, self.others)
            };
            vec![
                pass(indexes, true),
                pass(others, by_several),
                pass(self.foreign_keys, by_several),
                pass(self.last, false),
            ]
        } else {
            let (late_indexes, indexes) = apart(&self.indexes, |id, _| late.contains(&id));
            // A key of a partitioned table is one when those of its partitions are attached.
            let (attached, others) =
                apart(&self.others, |id, entry| entry.starts_with("INDEX ATTACH ") && !late.contains(&id));
            vec![
                pass(indexes, true),
                pass(attached, by_several),
                pass(self.foreign_keys, by_several),
                pass(late_indexes, true),
                pass(others, by_several),
                pass(self.last, false),
            ]
        };
        passes.into_iter().filter(|pass| !pass.list.is_empty()).collect()
    }
}

/// The number of an entry in a line of a list.
pub fn id(line: &str) -> Option<u32> {
    line.split(';').next()?.parse().ok()
}

/// A list in two: the lines of which `is_first` holds, by number and entry, and the others.
pub fn apart(list: &str, is_first: impl Fn(u32, &str) -> bool) -> (String, String) {
    list.split_inclusive('\n').partition(|line| id(line).is_some_and(|id| is_first(id, entry(line))))
}

/// A line is `3456; 2606 16401 CONSTRAINT schema name owner`.
fn entry(line: &str) -> &str {
    line.splitn(4, ' ').nth(3).unwrap_or_default()
}

/// Takes a list apart.
///
/// An index in a schema named ATTACH is taken for the attaching of one: it is built later, in its order, and that is all.
pub fn split(listed: &str) -> Passes {
    let mut passes = Passes::default();
    for line in listed.lines().filter(|line| !line.starts_with(';')) {
        let entry = entry(line);
        let is = |kind: &str| entry.starts_with(kind);
        // What groups by a primary key comes after it. Indexes of such a view come after it in turn.
        let is_postponed = is("MATERIALIZED VIEW ")
            || is("VIEW ")
            || is("FUNCTION ")
            || is("PROCEDURE ")
            || is("AGGREGATE ")
            || (is("RULE ") && entry.contains(" _RETURN "));
        let part = if is("CONSTRAINT ") || (is("INDEX ") && !is("INDEX ATTACH ")) || is_postponed {
            &mut passes.indexes
        } else if is("FK CONSTRAINT ") {
            &mut passes.foreign_keys
        } else if is("EVENT TRIGGER ")
            || is("COMMENT - EVENT TRIGGER ")
            || is("SECURITY LABEL - EVENT TRIGGER ")
        {
            &mut passes.event_triggers
        } else if is("COMMENT ") || is("SECURITY LABEL ") {
            &mut passes.last
        } else {
            &mut passes.others
        };
        part.push_str(line);
        part.push('\n');
    }
    passes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_builds_an_index_is_built_in_parallel() {
        let listed = "; Archive created at 2026-11-21\n\
            1; 1259 11 INDEX app events_body postgres\n\
            2; 2606 12 CONSTRAINT app a a_pkey postgres\n\
            3; 0 0 INDEX ATTACH app events_1_body postgres\n\
            4; 2606 13 FK CONSTRAINT app b b_a_fk postgres\n\
            5; 2606 14 CHECK CONSTRAINT app b positive postgres\n\
            6; 2620 15 TRIGGER app b INDEX postgres\n\
            7; 0 0 COMMENT app CONSTRAINT b_a_fk ON b postgres\n\
            8; 3466 17 EVENT TRIGGER - e postgres\n\
            9; 0 0 COMMENT - EVENT TRIGGER e postgres\n\
            10; 1259 18 MATERIALIZED VIEW app by_key postgres\n\
            11; 1259 19 INDEX app of_by_key postgres\n\
            12; 2618 20 RULE app v _RETURN postgres\n\
            13; 2618 21 RULE app t noting postgres\n";
        let passes = split(listed);
        let ids = |list: &str| list.lines().filter_map(|line| line.split(';').next()).collect::<String>();
        assert_eq!(ids(&passes.indexes), "12101112");
        assert_eq!(ids(&passes.others), "35613");
        assert_eq!(ids(&passes.foreign_keys), "4");
        assert_eq!(ids(&passes.last), "7");
        assert_eq!(ids(&passes.event_triggers), "89");
    }

    #[test]
    fn what_holds_code_comes_after_the_foreign_keys_and_with_it_what_needs_it() {
        let listed = "1; 1259 11 INDEX app plain o\n2; 1259 12 INDEX app computed o\n\
            3; 0 0 INDEX ATTACH app plain_1 o\n4; 0 0 INDEX ATTACH app computed_1 o\n\
            5; 2606 13 FK CONSTRAINT app b b_a_fk o\n6; 3381 14 STATISTICS app s o\n7; 0 0 COMMENT app s o\n";
        let ids = |pass: &Pass| pass.list.lines().filter_map(id).map(|id| id.to_string()).collect::<String>();
        let order = |late: &[u32], by_several| -> Vec<String> {
            split(listed).in_order(&late.iter().copied().collect(), by_several).iter().map(ids).collect()
        };
        assert_eq!(order(&[2, 4, 6], false), ["1", "3", "5", "2", "46", "7"]);
        assert_eq!(order(&[2, 4, 6], true), ["1", "3", "5", "2", "46", "7"]);
        assert_eq!(order(&[], false), ["12", "346", "5", "7"]);
        assert_eq!(order(&[], true), ["12346", "5", "7"]);
    }
}
