//! The files of a new migration: named as the folder's own tool would name them, with the version after the newest that is
//! there. Pure: what lies in the folder and the time come in, names and texts come out.
//!
//! It must never give a version that sorts before one that is there: such a file would be late at once.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use common::{Error, Result};

use crate::layout::{Format, Layout, refinery};
use crate::version::{FileName, Version};

/// A version of this many digits or more is a time, or a date.
const DIGITS_OF_A_TIME: usize = 8;

/// A file to make, below the migrations' folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFile {
    /// Its path.
    pub path: PathBuf,
    /// What stands in it.
    pub text: String,
}

/// The files of a new migration called `title`, in a folder of this format with these entries.
///
/// # Errors
/// Usage: the title has no letters; the newest version can't be followed by another.
pub fn new_files(
    format: Format,
    entries: &[String],
    title: &str,
    now: DateTime<Utc>,
) -> Result<Vec<NewFile>> {
    let words: String = title
        .trim()
        .chars()
        .map(|c| if c.is_alphanumeric() { c.to_ascii_lowercase() } else { '_' })
        .collect();
    if words.trim_matches('_').is_empty() {
        return Err(Error::usage("the name has no letters")
            .with_hint("Say what the migration does: add_orders_status."));
    }
    let newest = newest(format, entries);
    let version = next(format, newest.as_ref(), now).ok_or_else(|| {
        Error::usage(format!(
            "no version comes after {}",
            newest.map_or(String::new(), |newest| newest.as_str().to_owned())
        ))
        .with_hint("Make the file by hand, or name the right tool with --format.")
    })?;
    let note = format!("-- {}\n", title.trim());
    let file = |path: String, text: String| NewFile { path: path.into(), text };
    let pairs = entries.iter().any(|name| name.ends_with(".up.sql"));
    Ok(match format {
        Format::Dbmate => vec![file(
            format!("{version}_{words}.sql"),
            format!("-- migrate:up\n{note}\n\n-- migrate:down\n\n"),
        )],
        Format::Goose => {
            vec![file(
                format!("{version}_{words}.sql"),
                format!("-- +goose Up\n{note}\n\n-- +goose Down\n\n"),
            )]
        }
        Format::Flyway | Format::Refinery => {
            // Nothing but word characters, and no second separator.
            vec![file(format!("V{version}__{}.sql", words.trim_matches('_')), note)]
        }
        Format::Diesel => vec![
            file(format!("{version}_{words}/up.sql"), note),
            file(format!("{version}_{words}/down.sql"), "-- takes back what up.sql does\n".to_owned()),
        ],
        Format::Prisma => vec![file(format!("{version}_{words}/migration.sql"), note)],
        Format::GolangMigrate => pair(&version, &words, note),
        Format::Sqlx | Format::SafeRun if pairs => pair(&version, &words, note),
        Format::Sqlx | Format::SafeRun => vec![file(format!("{version}_{words}.sql"), note)],
    })
}

fn pair(version: &str, words: &str, note: String) -> Vec<NewFile> {
    let down = format!("-- takes back what {version}_{words}.up.sql does\n");
    [("up", note), ("down", down)]
        .into_iter()
        .map(|(way, text)| NewFile { path: format!("{version}_{words}.{way}.sql").into(), text })
        .collect()
}

/// The newest version that is there.
fn newest(format: Format, entries: &[String]) -> Option<Version> {
    let layout = Layout { wide_versions: true, ..Layout::of(format) };
    let versions = entries.iter().filter_map(|name| match layout.file_name(name) {
        FileName::Migration { version, .. }
        | FileName::AnyOrder { version, .. }
        | FileName::Foreign { version, .. } => Some(version),
        FileName::Ignored | FileName::Wrong(_) => None,
    });
    versions.filter(|version| !version.is_repeatable()).max()
}

/// The version after it, as the tool would write it: the time where the newest is a time or there is none, else the next
/// number in as many digits.
fn next(format: Format, newest: Option<&Version>, now: DateTime<Utc>) -> Option<String> {
    let time = now.format("%Y%m%d%H%M%S").to_string();
    let time = match format {
        Format::Diesel => now.format("%Y-%m-%d-%H%M%S").to_string(),
        _ => time,
    };
    let Some(newest) = newest else {
        let numbered = matches!(format, Format::Flyway | Format::Refinery);
        return Some(if numbered { "1".to_owned() } else { time });
    };
    // Prisma's and diesel's versions are more than their digits.
    let text: String = match format {
        Format::Prisma => newest.as_str().chars().take_while(char::is_ascii_digit).collect(),
        Format::Diesel => newest.as_str().replace('-', ""),
        _ => newest.as_str().to_owned(),
    };
    let narrow = format == Format::Refinery && !refinery::is_wide(newest);
    let is_time = text.len() >= DIGITS_OF_A_TIME && text.bytes().all(|b| b.is_ascii_digit()) && !narrow;
    if is_time && sorts_after(format, &time, &text) {
        return Some(time);
    }
    // The last part of `1.2`, with its zeros.
    let start = text.rfind(|c: char| !c.is_ascii_digit()).map_or(0, |at| at + 1);
    let (head, last) = text.split_at(start);
    let number: u128 = last.parse().ok()?;
    let next = format!("{head}{:0width$}", number.checked_add(1)?, width = last.len());
    sorts_after(format, &next, &text).then_some(next)
}

/// Whether the tool would run the one after the other.
fn sorts_after(format: Format, later: &str, earlier: &str) -> bool {
    if matches!(format, Format::Dbmate | Format::Diesel | Format::Prisma) {
        return later.replace('-', "").as_str() > earlier;
    }
    match (Version::parse(later), Version::parse(earlier)) {
        (Some(later), Some(earlier)) => later > earlier,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;

    use super::*;

    fn made(format: Format, entries: &[&str]) -> Vec<String> {
        let entries: Vec<String> = entries.iter().map(|&name| name.to_owned()).collect();
        let now = Utc.with_ymd_and_hms(2026, 11, 21, 3, 41, 49).unwrap();
        match new_files(format, &entries, "Add orders' status", now) {
            Ok(files) => files.iter().map(|file| file.path.display().to_string()).collect(),
            Err(error) => vec![error.to_string()],
        }
    }

    #[test]
    fn names_are_as_the_tools_write_them() {
        let name = "add_orders__status";
        for (format, there, expected) in [
            (Format::SafeRun, &[][..], vec![format!("20261121034149_{name}.sql")]),
            (Format::SafeRun, &["0001_a.sql", "0009_b.sql"], vec![format!("0010_{name}.sql")]),
            (Format::SafeRun, &["1.2.3_a.sql"], vec![format!("1.2.4_{name}.sql")]),
            (Format::SafeRun, &["20240101_a.sql"], vec![format!("20261121034149_{name}.sql")]),
            // Somebody's clock is ahead.
            (Format::SafeRun, &["20991231235959_a.sql"], vec![format!("20991231235960_{name}.sql")]),
            (Format::Sqlx, &["20240101000000_a.sql"], vec![format!("20261121034149_{name}.sql")]),
            (
                Format::Sqlx,
                &["1_a.up.sql", "1_a.down.sql"],
                vec![format!("2_{name}.up.sql"), format!("2_{name}.down.sql")],
            ),
            (
                Format::GolangMigrate,
                &["000009_a.up.sql"],
                vec![format!("000010_{name}.up.sql"), format!("000010_{name}.down.sql")],
            ),
            (Format::Dbmate, &["20240101000000_a.sql"], vec![format!("20261121034149_{name}.sql")]),
            // As text, 10 would come before 9.
            (Format::Dbmate, &["9_a.sql"], vec!["no version comes after 9".to_owned()]),
            (Format::Dbmate, &["009_a.sql"], vec![format!("010_{name}.sql")]),
            (Format::Goose, &["00001_a.sql", "00002_b.go"], vec![format!("00003_{name}.sql")]),
            (Format::Flyway, &[], vec![format!("V1__{name}.sql")]),
            (Format::Flyway, &["V1.9__a.sql", "R__v.sql"], vec![format!("V1.10__{name}.sql")]),
            (Format::Flyway, &["V20240101120000__a.sql"], vec![format!("V20261121034149__{name}.sql")]),
            (Format::Refinery, &["V1__a.sql", "U4__b.sql"], vec![format!("V5__{name}.sql")]),
            // An int4 has no room for a time.
            (Format::Refinery, &["V20240101__a.sql"], vec![format!("V20240102__{name}.sql")]),
            (Format::Refinery, &["V20240101120000__a.sql"], vec![format!("V20261121034149__{name}.sql")]),
            (
                Format::Diesel,
                &["2024-01-01-000000_a"],
                vec![
                    format!("2026-11-21-034149_{name}/up.sql"),
                    format!("2026-11-21-034149_{name}/down.sql"),
                ],
            ),
            (Format::Prisma, &["20240101000000_a"], vec![format!("20261121034149_{name}/migration.sql")]),
        ] {
            assert_eq!(made(format, there), expected, "{format} {there:?}");
        }
    }

    #[test]
    fn what_is_made_is_read_as_the_newest_and_can_run() {
        for format in Format::ALL {
            let files = new_files(format, &[], "x", Utc::now()).unwrap();
            let layout = Layout::of(format);
            let name = files[0].path.components().next().unwrap().as_os_str().to_str().unwrap().to_owned();
            assert!(matches!(layout.file_name(&name), FileName::Migration { .. }), "{name}");
            assert!(layout.sections(&files[0].text).is_ok(), "{format}");
            assert!(newest(format, std::slice::from_ref(&name)).is_some(), "{name}");
        }
    }
}
