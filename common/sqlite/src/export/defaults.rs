//! Defaults: constants in the form in which they are stored, the clock, and random UUIDs.

use super::{
    expression::{Scope, Value},
    kind::Kind,
    literals,
    types::{Form, SqliteType},
};

/// The clock of SQLite is that of UTC, with whole seconds.
const NOW: &str = "CURRENT_TIMESTAMP";

/// What PostgreSQL's clocks are called in a default.
const CLOCKS: [&str; 5] =
    ["current_timestamp", "now()", "statement_timestamp()", "transaction_timestamp()", "clock_timestamp()"];

/// A version 4 UUID.
const RANDOM_UUID: &str = "(lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-' || \
     substr('89AB', 1 + (random() & 3), 1) || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6))))";

/// Translates a default; `None` where it is NULL.
pub(super) fn translate(sql: &str, column: &SqliteType, scope: &Scope<'_>) -> Result<Option<String>, String> {
    if let Some(clock) = clock(sql, column.form) {
        return clock.map(Some);
    }
    if is_random_uuid(sql) {
        return match column.form {
            Form::Uuid | Form::Text => Ok(Some(RANDOM_UUID.to_owned())),
            _ => Err("a UUID in a column of another type".to_owned()),
        };
    }
    let Value { sql, kind, word } = scope.translate(sql)?;
    if kind == Kind::Null || sql == "NULL" {
        return Ok(None);
    }
    if let Some(word) = word {
        return literals::constant(&word, column).map(Some);
    }
    let expected = Kind::of(column);
    if kind == expected || (kind.is_number() && expected.is_number()) {
        Ok(Some(format!("({sql})")))
    } else {
        Err("it gives another kind of value than the column".to_owned())
    }
}

/// The text in lower case, without blanks at the ends and without brackets around all of it.
fn bare(sql: &str) -> String {
    let mut text = sql.trim();
    while let Some(inner) = text.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
        let mut depth = 0_i32;
        let closes_early = inner.chars().any(|c| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            depth < 0
        });
        if closes_early {
            break;
        }
        text = inner.trim();
    }
    text.to_ascii_lowercase()
}

fn is_random_uuid(sql: &str) -> bool {
    let text = bare(sql);
    let text = bare(text.strip_suffix("::text").unwrap_or(&text));
    let name = text.rsplit_once('.').map_or(text.as_str(), |(_, name)| name);
    matches!(name, "gen_random_uuid()" | "uuid_generate_v4()" | "uuidv4()")
}

/// The clock, if a default is one.
fn clock(sql: &str, form: Form) -> Option<Result<String, String>> {
    let text = bare(sql);
    if is_seconds(&text) {
        return Some(match form {
            Form::Integer => Ok("(unixepoch())".to_owned()),
            _ => Err("seconds in a column of another type".to_owned()),
        });
    }
    if let Some(format) = text.strip_prefix("to_char(").and_then(|rest| rest.strip_suffix("::text)")) {
        let (moment, format) = format.rsplit_once(", ")?;
        let known = match format {
            "'yyyy-mm-dd hh24:mi:ss'" => NOW,
            "'yyyy-mm-dd'" => "CURRENT_DATE",
            "'hh24:mi:ss'" => "CURRENT_TIME",
            _ => return None,
        };
        return (is_utc(&bare(moment)) && form == Form::Text).then(|| Ok(known.to_owned()));
    }
    let (moment, cast) = match text.rsplit_once("::") {
        Some((moment, "date")) => (bare(moment), Some(Form::Date)),
        Some((moment, "time(0) without time zone" | "time without time zone")) => {
            (bare(moment), Some(Form::Time))
        }
        _ => (text, None),
    };
    let is_moment = is_utc(&moment)
        || CLOCKS.contains(&moment.as_str())
        || matches!(moment.as_str(), "localtimestamp" | "current_date" | "localtime" | "current_time");
    if !is_moment {
        return None;
    }
    if cast.is_some_and(|cast| cast != form) {
        return Some(Err("the clock in a column of another type".to_owned()));
    }
    Some(match form {
        Form::TimestampTz => Ok("(strftime('%Y-%m-%d %H:%M:%S', 'now') || '+00:00')".to_owned()),
        Form::Timestamp => Ok(NOW.to_owned()),
        Form::Date => Ok("CURRENT_DATE".to_owned()),
        Form::Time => Ok("CURRENT_TIME".to_owned()),
        _ => Err("the clock in a column of another type".to_owned()),
    })
}

/// The clock in UTC, without a zone.
fn is_utc(text: &str) -> bool {
    let text = bare(text);
    if let Some(moment) = text.strip_suffix(" at time zone 'utc'::text") {
        return CLOCKS.contains(&bare(moment).as_str());
    }
    text.strip_prefix("timezone('utc'::text, ")
        .and_then(|rest| rest.strip_suffix(')'))
        .is_some_and(|moment| CLOCKS.contains(&bare(moment).as_str()))
}

/// Seconds since 1970.
fn is_seconds(text: &str) -> bool {
    text.strip_suffix("::bigint")
        .or_else(|| text.strip_suffix("::integer"))
        .map(bare)
        .and_then(|text| text.strip_prefix("floor(").and_then(|rest| rest.strip_suffix(')')).map(bare))
        .and_then(|text| {
            text.strip_prefix("extract(epoch from ").and_then(|rest| rest.strip_suffix(')')).map(bare)
        })
        .is_some_and(|moment| CLOCKS.contains(&moment.as_str()))
}
