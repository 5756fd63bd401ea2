//! A report as a JSON document, out and in. `docs/safe-run-report.schema.json` describes it; a change that an older reader
//! would misread raises the version that every document carries.

use std::path::Path;

use common::{
    Error, Result,
    cli::output::JSON_SCHEMA,
    files::{create_private_dir, read_plain_text, replace_private_file},
};
use serde::{Deserialize, Serialize};

use super::Report;
use crate::journal::{REPORT_FILE, REPORT_TEXT_FILE};

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    #[serde(flatten)]
    report: &'a Report,
}

/// The document, ending in a line break.
pub fn to_json(report: &Report) -> Result<String> {
    let text = serde_json::to_string_pretty(&Document { schema: JSON_SCHEMA, report })
        .map_err(|source| Error::failed(format!("could not encode the report: {source}")))?;
    Ok(text + "\n")
}

/// Reads a document of this version.
pub fn from_json(text: &str) -> Result<Report> {
    #[derive(Deserialize)]
    struct Version {
        schema: u32,
    }
    let unreadable = |source: serde_json::Error| Error::damaged(format!("it is not a report: {source}"));
    let version: Version = serde_json::from_str(text).map_err(unreadable)?;
    if version.schema != JSON_SCHEMA {
        return Err(Error::damaged(format!(
            "it has the schema {}, and this version of the tool reads schema {JSON_SCHEMA}",
            version.schema
        ))
        .with_hint("Use the version of the tool that made the run."));
    }
    serde_json::from_str(text).map_err(unreadable)
}

/// Writes the report into the run's folder, as JSON and as text; an earlier one of the same run is replaced.
pub fn store(report: &Report, dir: &Path) -> Result<()> {
    create_private_dir(dir)?;
    replace_private_file(&dir.join(REPORT_FILE), to_json(report)?.as_bytes())?;
    let text = report.text(true, |_, word| word.to_owned());
    replace_private_file(&dir.join(REPORT_TEXT_FILE), common::ident::visible(&text).as_bytes())
}

/// Reads the report of a run's folder; `None` when it has none.
pub fn load(dir: &Path) -> Result<Option<Report>> {
    let path = dir.join(REPORT_FILE);
    let text = match read_plain_text(&path) {
        Ok(text) => text,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::io("read", &path, source)),
    };
    from_json(&text).map(Some).map_err(|error| error.context(format!("{} can't be read", path.display())))
}
