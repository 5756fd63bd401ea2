//! How an import is done: what the flags say, put together. Pure.

use chrono_tz::Tz;
use sqlite::target::{ColumnRule, EpochUnit, Target};

use super::choices::{BadValues, ColumnName, Existing, Map, Orphans};

/// How an import is done.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImportOptions {
    /// `--map`.
    pub maps: Vec<Map>,
    /// `--type`.
    pub types: Vec<(ColumnName, String)>,
    /// `--epoch`; without a column it is for all dates and times.
    pub epochs: Vec<(Option<ColumnName>, EpochUnit)>,
    /// `--skip-table`.
    pub skip_tables: Vec<String>,
    /// `--skip-column`.
    pub skip_columns: Vec<ColumnName>,
    /// `--timezone`.
    pub timezone: Option<Tz>,
    /// `--null-empty-strings`.
    pub null_empty_strings: bool,
    /// `--force-recreate` or `--append`.
    pub existing: Existing,
    /// `--bad-values`.
    pub bad_values: BadValues,
    /// `--orphans`.
    pub orphans: Orphans,
    /// `--fire-triggers`.
    pub fire_triggers: bool,
}

impl ImportOptions {
    /// The table that `--map` gives for one of SQLite, with its schema if that was given.
    pub fn map_of_table(&self, table: &str) -> Option<(Option<&str>, &str)> {
        self.maps.iter().find_map(|map| match map {
            Map::Table(from, schema, to) if from.eq_ignore_ascii_case(table) => {
                Some((schema.as_deref(), to.as_str()))
            }
            _ => None,
        })
    }

    /// The column that `--map` gives for one of SQLite.
    pub fn map_of_column(&self, name: &ColumnName) -> Option<&str> {
        self.maps.iter().find_map(|map| match map {
            Map::Column(from, to) if from.is(&name.table, &name.column) => Some(to.as_str()),
            _ => None,
        })
    }

    /// How the values of a column are converted.
    pub fn rule(&self, name: &ColumnName, target: Target, nullable: bool) -> ColumnRule {
        let mut rule = ColumnRule::new(target);
        rule.zone = self.timezone;
        // Where NULL is refused, an empty text can be nothing but itself.
        rule.empty_is_null = self.null_empty_strings && nullable;
        let own = |(of, _): &&(Option<ColumnName>, EpochUnit)| {
            of.as_ref().is_some_and(|of| of.is(&name.table, &name.column))
        };
        let all = |(of, _): &&(Option<ColumnName>, EpochUnit)| of.is_none();
        // For all means all dates: how long an interval is has nothing to do with an epoch.
        let is_interval = rule.target == Target::Interval;
        let for_all = || self.epochs.iter().rfind(all).filter(|_| !is_interval);
        if let Some((_, unit)) = self.epochs.iter().rfind(own).or_else(for_all) {
            rule.epoch = Some(*unit);
        }
        rule
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_for_all_columns_is_none_for_intervals() {
        let name = ColumnName { table: "t".to_owned(), column: "c".to_owned() };
        let rule = |epochs: Vec<(Option<ColumnName>, EpochUnit)>, target| {
            ImportOptions { epochs, ..ImportOptions::default() }.rule(&name, target, true).epoch
        };
        let for_all = || vec![(None, EpochUnit::Seconds)];
        assert_eq!(rule(for_all(), Target::Date), Some(EpochUnit::Seconds));
        assert_eq!(rule(for_all(), Target::Interval), Some(EpochUnit::Microseconds));
        let named = vec![(Some(name.clone()), EpochUnit::Seconds)];
        assert_eq!(rule(named, Target::Interval), Some(EpochUnit::Seconds));
    }
}
