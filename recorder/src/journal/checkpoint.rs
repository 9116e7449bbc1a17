//! How far the journal has been handed on, to Kafka or to the store: a small file beside it.
//!
//! It may lag: what is handed on twice is told by its position. It is bound to the journal by its name, so a journal that
//! was made anew begins at its beginning.

use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Name of the file in the state directory.
const FILE: &str = "checkpoint";

/// The file.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    path: PathBuf,
    journal: String,
    written: u64,
}

impl Checkpoint {
    /// Reads the file; one that is missing, of another journal or broken says nothing.
    pub(crate) fn open(state_dir: &Path, journal: &str) -> Self {
        let path = state_dir.join(FILE);
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let position = text.trim_end().split_once(' ').filter(|(name, _)| *name == journal);
        let written = position.and_then(|(_, position)| position.parse().ok()).unwrap_or(0);
        Self { path, journal: journal.to_owned(), written }
    }

    /// Everything before this is handed on.
    pub(crate) fn position(&self) -> u64 {
        self.written
    }

    /// Writes a position that has moved on; the file is the old one or the new one at any moment.
    pub(crate) fn save(&mut self, position: u64) -> std::io::Result<()> {
        if position <= self.written {
            return Ok(());
        }
        let staged = self.path.with_extension("tmp");
        let mut file = std::fs::File::create(&staged)?;
        writeln!(file, "{} {position}", self.journal)?;
        file.sync_all()?;
        std::fs::rename(&staged, &self.path)?;
        self.written = position;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_of_its_journal_and_never_goes_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut checkpoint = Checkpoint::open(folder.path(), "j");
        assert_eq!(checkpoint.position(), 0);
        checkpoint.save(7).expect("writes");
        checkpoint.save(3).expect("writes");
        assert_eq!(Checkpoint::open(folder.path(), "j").position(), 7);
        assert_eq!(Checkpoint::open(folder.path(), "other").position(), 0);
        std::fs::write(folder.path().join(FILE), "j seven").expect("writes");
        assert_eq!(Checkpoint::open(folder.path(), "j").position(), 0);
    }
}
