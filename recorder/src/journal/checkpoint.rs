//! Checkpoint of the journal: the position up to which a sink has delivered its records, in a small file.
//!
//! The checkpoint may lag behind the deliveries: readers recognise a record that arrives twice by its journal and
//! position. The file names its journal, so a checkpoint of another journal does not apply.

use std::io::Write as _;
use std::path::{Path, PathBuf};

/// File name in the state directory.
const FILE: &str = "checkpoint";

/// The checkpoint of one journal.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    path: PathBuf,
    journal: String,
    saved: u64,
}

impl Checkpoint {
    /// Reads the file. A missing or malformed one, or one of another journal, counts as position 0.
    pub(crate) fn open(state_dir: &Path, journal: &str) -> Self {
        let path = state_dir.join(FILE);
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let position = text.trim_end().split_once(' ').filter(|(name, _)| *name == journal);
        let saved = position.and_then(|(_, position)| position.parse().ok()).unwrap_or(0);
        Self { path, journal: journal.to_owned(), saved }
    }

    /// Position before which every record is delivered.
    pub(crate) fn position(&self) -> u64 {
        self.saved
    }

    /// Saves a later position; an earlier one changes nothing. A crash leaves the old file or the new one.
    pub(crate) fn save(&mut self, position: u64) -> std::io::Result<()> {
        if position <= self.saved {
            return Ok(());
        }
        let staged = self.path.with_extension("tmp");
        let mut file = std::fs::File::create(&staged)?;
        writeln!(file, "{} {position}", self.journal)?;
        file.sync_all()?;
        std::fs::rename(&staged, &self.path)?;
        self.saved = position;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_belongs_to_its_journal_and_never_moves_back() {
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
