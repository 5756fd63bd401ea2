//! Where `--report` and `--report-json` write. Looked at before anything runs, because a run whose report can't be written
//! is a bad surprise; written at the end in one step, whatever became of the run.

use std::path::{Path, PathBuf};

use common::{Error, Result, files::write_new_file, repository::output_file::settle};

use super::{Report, document, html};

/// The files that a person asked for.
#[derive(Debug, Clone, Default)]
pub struct Targets {
    /// `--report`.
    pub html: Option<PathBuf>,
    /// `--report-json`.
    pub json: Option<PathBuf>,
}

impl Targets {
    /// Looks whether the files can be written, and settles where they are.
    ///
    /// # Errors
    /// Usage: no such folder, not writable, not a file, or both are the same file.
    pub fn check(html: Option<&Path>, json: Option<&Path>) -> Result<Self> {
        let targets = Self {
            html: html.map(|path| settle("--report", path)).transpose()?,
            json: json.map(|path| settle("--report-json", path)).transpose()?,
        };
        if targets.html.is_some() && targets.html == targets.json {
            return Err(Error::usage("--report and --report-json name the same file")
                .with_hint("Give each a file of its own."));
        }
        Ok(targets)
    }

    /// Writes what was asked for, and gives what could not be written: the outcome of the run is what it is.
    pub fn write(&self, report: &Report) -> Vec<Error> {
        let page = self.html.as_ref().map(|path| write(path, html::page(report).as_bytes()));
        let document = self.json.as_ref().map(|path| write(path, document::to_json(report)?.as_bytes()));
        [page, document].into_iter().flatten().filter_map(Result::err).collect()
    }
}

/// Writes one report in one step: a reader sees the old file or the new one.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    write_new_file(path, true, |mut file| {
        file.write_all(bytes).map_err(|source| Error::io("write", path, source))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_replaced_by_a_file_is_refused_before_anything_runs() {
        let dir = tempfile::tempdir().unwrap();
        let in_dir = |name: &str| dir.path().join(name);
        for path in
            [PathBuf::from("/dev/null"), dir.path().to_owned(), in_dir("missing/run.html"), in_dir("x/")]
        {
            let error = Targets::check(Some(&path), None).unwrap_err();
            assert_eq!(error.kind(), common::ErrorKind::Usage, "{}", path.display());
        }
        let file = in_dir("run");
        assert!(Targets::check(Some(&file), Some(&in_dir("./run"))).is_err(), "both are the same file");
        assert!(Targets::check(Some(&file), Some(&in_dir("run.json"))).is_ok());
    }

    #[test]
    fn a_link_is_not_followed_wherever_it_leads() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("real.html"), dir.path().join("link.html"));
        std::fs::write(&file, "old").unwrap();
        for target in [&file, &dir.path().join("nowhere")] {
            std::os::unix::fs::symlink(target, &link).unwrap();
            let error = settle("--report", &link).unwrap_err();
            assert!(error.kind() == common::ErrorKind::Usage && error.message().contains("link"), "{error}");
            // Made in the meantime, it is replaced itself.
            write(&link, b"new").unwrap();
            assert!(!link.is_symlink() && std::fs::read(&file).unwrap() == b"old");
            std::fs::remove_file(&link).unwrap();
        }
        assert!(!dir.path().join("nowhere").exists());
    }
}
