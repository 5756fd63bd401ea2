//! Flags that every command understands. Parsing touches nothing.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use crate::{Error, Result};

/// The database, the repository, and how to talk.
#[derive(Debug, Clone, Default, Args)]
pub struct SharedArgs {
    /// The database: a URL, a key=value string, or a name [default: DATABASE_URL, else libpq's PG* variables]
    #[arg(short, long, global = true, value_name = "URL", help_heading = "Connection")]
    pub database_url: Option<String>,

    /// Wait for a server that is starting, at most this long
    #[arg(long, global = true, value_name = "TIME", num_args = 0..=1, default_missing_value = "60s",
          value_parser = parse_duration, help_heading = "Connection")]
    pub wait: Option<Duration>,

    /// The folder that holds the snapshots [default: SAFE_RUN_REPO, else ./snapshots]
    #[arg(short, long, global = true, value_name = "DIR", help_heading = "Repository")]
    pub repo: Option<PathBuf>,

    /// Take the repository even if it belongs to another user or others may write in it [env: SAFE_RUN_TRUST_REPO=1]
    #[arg(long, global = true, help_heading = "Repository")]
    pub trust_repo: bool,

    /// Settings file [default: ./safe-run.toml if it exists]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Output")]
    pub config: Option<PathBuf>,

    /// Print the settings that hold and where each comes from, without secrets, and exit
    #[arg(long, global = true, help_heading = "Output")]
    pub show_config: bool,

    /// Print one JSON document on stdout, and progress as JSON lines on stderr
    #[arg(long, global = true, help_heading = "Output")]
    pub json: bool,

    /// Print only errors and results
    #[arg(short, long, global = true, help_heading = "Output")]
    pub quiet: bool,

    /// Print more
    #[arg(short, long, global = true, help_heading = "Output")]
    pub verbose: bool,

    /// Answer yes to every question
    #[arg(short, long, global = true, help_heading = "Output")]
    pub yes: bool,
}

/// Reads `500ms`, `2s`, `5m`, `1h`, `14d`, or a bare number of seconds.
pub fn parse_duration(text: &str) -> Result<Duration> {
    let invalid = || {
        Error::usage(format!("\"{text}\" is not a time")).with_hint("Write it as 500ms, 30s, 5m, 2h or 14d.")
    };
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| invalid())?;
    let seconds = |unit: u64| number.checked_mul(unit).map(Duration::from_secs).ok_or_else(invalid);
    match text[digits..].trim() {
        "ms" => Ok(Duration::from_millis(number)),
        "" | "s" => seconds(1),
        "m" | "min" => seconds(60),
        "h" => seconds(3600),
        "d" => seconds(86_400),
        _ => Err(invalid()),
    }
}

/// Reads `key=value`.
pub fn parse_tag(text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err(Error::usage(format!("\"{text}\" is not of the form key=value"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn reading_a_time_never_panics(text in ".{0,30}") {
            let _ = parse_duration(&text);
        }
    }

    #[test]
    fn durations_take_the_usual_units() {
        for (text, seconds) in [("5", 5), ("30s", 30), ("5m", 300), ("2h", 7200), ("14d", 1_209_600)] {
            assert_eq!(parse_duration(text).unwrap(), Duration::from_secs(seconds));
        }
        assert_eq!(parse_duration("500ms").unwrap(), Duration::from_millis(500));
        for text in ["", "s", "-1s", "5x", "99999999999999999999d", "18446744073709551615d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
