//! How far a run of many files has come, for a person who watches. It decides nothing.

use common::Progress;

/// With more files than this, they are counted on one line instead of told one by one.
const FILES_TOLD: usize = 10;

/// Tells how far it came: a line for each file, or one that counts them where there are many.
pub(crate) struct Teller<'a> {
    progress: &'a Progress,
    files: usize,
}

impl<'a> Teller<'a> {
    /// So many files are going to run.
    pub(crate) fn begin(files: usize, progress: &'a Progress) -> Self {
        let teller = Self { progress, files };
        if teller.counts() {
            progress.phase(format!("{files} migrations"), None);
        }
        teller
    }

    fn counts(&self) -> bool {
        self.files > FILES_TOLD
    }

    /// The file with this number, from 1, begins.
    pub(crate) fn file(&self, number: usize, name: String) {
        if self.counts() {
            self.progress.step(format!("{number} of {}: {name}", self.files));
        } else {
            self.progress.phase(name, None);
        }
    }

    /// It has ended.
    pub(crate) fn file_done(&self) {
        if !self.counts() {
            self.progress.done();
        }
    }
}

impl Drop for Teller<'_> {
    fn drop(&mut self) {
        if self.counts() {
            self.progress.done();
        }
    }
}
