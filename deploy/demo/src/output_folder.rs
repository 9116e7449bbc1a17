//! The demo's output folder. A folder with other contents than an earlier demo is never changed.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::error::DemoError;

/// Marks a folder that the demo created.
const MARKER: &str = ".foreshadow-demo";
const MARKER_TEXT: &str = "`foreshadow demo` created this folder. The next demo replaces its files.\n";
/// Files and folders of the demo; the next demo deletes only these.
const CREATED: [&str; 13] = [
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

/// The output folder of a demo.
#[derive(Debug, Clone)]
pub struct OutputFolder(PathBuf);

impl OutputFolder {
    /// Claims an empty or missing folder, or one of an earlier demo, whose output is deleted.
    ///
    /// # Errors
    /// The folder has other contents or cannot be written.
    pub fn claim(path: &Path) -> Result<Self, DemoError> {
        let folder = Self(path.to_owned());
        let shown = path.display();
        let marked = path.join(MARKER).symlink_metadata().is_ok_and(|found| found.is_file());
        let entries = match std::fs::read_dir(path) {
            Ok(mut entries) => entries.next().is_some(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            Err(error) => {
                let error = anyhow::Error::new(error);
                return Err(DemoError::Folder(
                    error.context(format!("{shown} is not a writable folder; name another with --out DIR")),
                ));
            }
        };
        if entries && !marked {
            return Err(DemoError::Folder(anyhow::anyhow!(
                "{shown} contains files of something else than a demo and is not changed; name an empty or new folder with --out DIR"
            )));
        }
        folder
            .clear()
            .with_context(|| format!("the output of the earlier demo in {shown} cannot be deleted"))?;
        std::fs::create_dir_all(path)
            .with_context(|| format!("folder {shown} cannot be created"))
            .map_err(DemoError::Folder)?;
        folder.write(MARKER, MARKER_TEXT)?;
        Ok(folder)
    }

    fn clear(&self) -> std::io::Result<()> {
        for name in CREATED {
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

    /// Path of a file or folder in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// [`Self::path`] as text, for a store or run location.
    pub fn location(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Writes a file and creates its parent folders.
    ///
    /// # Errors
    /// The file cannot be written; the error names its path.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.path(name);
        let written =
            path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(&path, text));
        written.with_context(|| format!("{} cannot be written", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_an_earlier_demo_and_keeps_other_files() {
        let scratch = tempfile::tempdir().expect("a folder");
        let path = scratch.path().join("new/demo");
        let folder = OutputFolder::claim(&path).expect("a missing folder is created");
        folder.write("runs/baseline/run.json", "{}").expect("written");
        std::fs::write(path.join("notes.txt"), "mine").expect("written");
        OutputFolder::claim(&path).expect("an earlier demo is replaced");
        assert!(!path.join("runs").exists());
        assert_eq!(std::fs::read_to_string(path.join("notes.txt")).expect("kept"), "mine");
    }

    #[test]
    fn refuses_other_folders_and_files() {
        let scratch = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(scratch.path().join("store")).expect("created");
        let refused = OutputFolder::claim(scratch.path()).expect_err("not a demo's");
        assert!(refused.is_usage());
        assert!(scratch.path().join("store").exists());
        let file = scratch.path().join("file");
        std::fs::write(&file, "x").expect("written");
        assert!(OutputFolder::claim(&file).expect_err("a file").is_usage());
    }
}
