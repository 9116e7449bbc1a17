//! The demo's output folder: taken safely, and filled with files that a user can copy.
//!
//! A folder that holds anything else than a former demo is never touched.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::error::DemoError;

/// Says that a folder was made by the demo.
const MARKER: &str = ".foreshadow-demo";
const MARKER_TEXT: &str = "This folder was made by `foreshadow demo`, which replaces what it made before.\n";
/// What the demo makes, and so what the next demo may delete.
const OURS: [&str; 13] = [
    "README.md",
    "foreshadow.toml",
    "tools.json",
    "faults.toml",
    "policy.toml",
    "root.key",
    "agents",
    "candidates",
    "store",
    "state",
    "runs",
    "reports",
    "seeds",
];

/// The output folder.
#[derive(Debug, Clone)]
pub struct OutputFolder(PathBuf);

impl OutputFolder {
    /// Takes an empty or missing folder, or one that a former demo made, whose output is deleted.
    pub fn claim(path: &Path) -> Result<Self, DemoError> {
        let folder = Self(path.to_owned());
        let shown = path.display();
        let marked = path.join(MARKER).symlink_metadata().is_ok_and(|found| found.is_file());
        let entries = match std::fs::read_dir(path) {
            Ok(mut entries) => entries.next().is_some(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            Err(error) => {
                let error = anyhow::Error::new(error);
                return Err(DemoError::Folder(error.context(format!(
                    "{shown} is no folder that can be written to; give another with --out"
                ))));
            }
        };
        if entries && !marked {
            return Err(DemoError::Folder(anyhow::anyhow!(
                "{shown} holds something that the demo did not make, so it is left alone; give an empty or a new folder with --out"
            )));
        }
        folder
            .clear()
            .with_context(|| format!("the output of the last demo in {shown} cannot be replaced"))?;
        std::fs::create_dir_all(path)
            .with_context(|| format!("folder {shown} cannot be made"))
            .map_err(DemoError::Folder)?;
        folder.write(MARKER, MARKER_TEXT)?;
        Ok(folder)
    }

    fn clear(&self) -> std::io::Result<()> {
        for name in OURS {
            let path = self.0.join(name);
            let gone = match path.symlink_metadata() {
                Ok(found) if found.is_dir() => std::fs::remove_dir_all(&path),
                Ok(_) => std::fs::remove_file(&path),
                Err(error) => Err(error),
            };
            match gone {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// The path of something in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The same as text, for what takes a location.
    pub fn location(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Writes a file into it; folders on the way are made.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.path(name);
        let made =
            path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(&path, text));
        made.with_context(|| format!("{} cannot be written", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_a_former_demo_and_keeps_what_is_not_its_own() {
        let scratch = tempfile::tempdir().expect("a folder");
        let path = scratch.path().join("new/demo");
        let folder = OutputFolder::claim(&path).expect("a missing folder is made");
        folder.write("runs/baseline/run.json", "{}").expect("written");
        std::fs::write(path.join("notes.txt"), "mine").expect("written");
        OutputFolder::claim(&path).expect("a former demo is replaced");
        assert!(!path.join("runs").exists());
        assert_eq!(std::fs::read_to_string(path.join("notes.txt")).expect("kept"), "mine");
    }

    #[test]
    fn leaves_other_folders_and_files_alone() {
        let scratch = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(scratch.path().join("store")).expect("made");
        let refused = OutputFolder::claim(scratch.path()).expect_err("not a demo's");
        assert!(refused.is_usage());
        assert!(scratch.path().join("store").exists());
        let file = scratch.path().join("file");
        std::fs::write(&file, "x").expect("written");
        assert!(OutputFolder::claim(&file).expect_err("a file").is_usage());
    }
}
