//! Time zones, as a person names them.

use chrono_tz::Tz;
use common::{Error, Result, ident::printable};

/// Reads the name of a time zone, such as `Europe/Berlin`.
pub fn parse_zone(name: &str) -> Result<Tz> {
    name.parse().map_err(|_| {
        Error::usage(format!("\"{}\" is not a time zone", printable(name)))
            .with_hint("Name it as the IANA database does, such as Europe/Berlin, America/New_York or UTC.")
    })
}
