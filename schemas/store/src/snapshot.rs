//! Snapshot: the data files that exist at one moment, and the last commit of each source.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::commit::{Commit, CommittedFile, commit_path};
use crate::table::Table;

/// Position and epoch of the last commit of a source, and the journals stored through it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// `first` of the last commit.
    pub(crate) first: u64,
    /// `epoch` of the last commit.
    pub(crate) epoch: u32,
    /// `next` of the last commit.
    pub(crate) next: u64,
    /// `journals` of the last commit.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) journals: BTreeMap<String, u64>,
}

impl Head {
    pub(crate) fn of(commit: &Commit) -> Self {
        let Commit { first, epoch, next, ref journals, .. } = *commit;
        Self { first, epoch, next, journals: journals.clone() }
    }

    /// Returns the slot of the next commit: its `first` and `epoch`.
    pub(crate) fn next_slot(&self) -> (u64, u32) {
        if self.first == self.next { (self.first, self.epoch + 1) } else { (self.next, 0) }
    }

    /// Returns the path of the last commit.
    pub(crate) fn path(&self, source: &str) -> String {
        commit_path(source, self.first, self.epoch)
    }
}

/// The files of one commit that still exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CommitFiles {
    /// Source of the commit.
    pub(crate) source: String,
    /// Path of the commit; paths sort by source, position, epoch.
    pub(crate) commit: String,
    /// The files.
    pub(crate) files: Vec<CommittedFile>,
}

/// Pointer to the older replacements of a folder: those that a checkpoint covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FolderReplacements {
    /// Path of the object with the map from replaced to current paths.
    pub(crate) object: String,
}

/// The data files that exist at one moment.
///
/// Covers a checkpoint and the commits after it. Replaced files are left out.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Files by path of the commit.
    commits: BTreeMap<String, CommitFiles>,
    /// Last commit of each source.
    heads: BTreeMap<String, Head>,
    /// Replacements of the commits after the checkpoint.
    replaced: HashMap<String, Option<String>>,
    /// Replacements that the checkpoint covers, by folder.
    older: BTreeMap<String, FolderReplacements>,
    /// Whether any commit ever had files.
    had_files: bool,
    /// Sources of which a commit between two others was not listed yet.
    gaps: BTreeSet<String>,
}

impl Snapshot {
    /// Builds the snapshot of some commits, with no checkpoint.
    #[must_use]
    pub fn new(commits: impl IntoIterator<Item = Commit>) -> Self {
        let mut snapshot = Self::default();
        commits.into_iter().for_each(|commit| snapshot.push(commit));
        snapshot
    }

    /// Starts from the state of a checkpoint.
    pub(crate) fn from_checkpoint(
        heads: BTreeMap<String, Head>,
        had_files: bool,
        commits: impl IntoIterator<Item = CommitFiles>,
        older: BTreeMap<String, FolderReplacements>,
    ) -> Self {
        let mut by_path: BTreeMap<String, CommitFiles> = BTreeMap::new();
        // A commit with files in several folders comes once per folder.
        for commit in commits {
            match by_path.get_mut(&commit.commit) {
                Some(known) => known.files.extend(commit.files),
                None => drop(by_path.insert(commit.commit.clone(), commit)),
            }
        }
        Self { commits: by_path, heads, replaced: HashMap::new(), older, had_files, gaps: BTreeSet::new() }
    }

    /// Adds a commit made after the others of its source.
    pub(crate) fn push(&mut self, commit: Commit) {
        let expected = self.heads.get(&commit.source).map_or((0, 0), Head::next_slot);
        if (commit.first, commit.epoch) != expected {
            self.gaps.insert(commit.source.clone());
        }
        self.heads.insert(commit.source.clone(), Head::of(&commit));
        let path = commit.path();
        self.replaced.extend(commit.replaces);
        if !commit.files.is_empty() {
            self.had_files = true;
            let files = CommitFiles { source: commit.source, commit: path.clone(), files: commit.files };
            self.commits.insert(path, files);
        }
    }

    /// Keeps only the commits of one source.
    #[must_use]
    pub fn of_source(mut self, source: &str) -> Self {
        self.commits.retain(|_, commit| commit.source == source);
        self.heads.retain(|other, _| other == source);
        self.had_files = !self.commits.is_empty();
        self
    }

    /// Lists the sources that ever made a commit.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        self.heads.keys().map(String::as_str)
    }

    /// Lists the existing files of a table, by source and position of their commit.
    pub fn files(&self, table: Table) -> impl Iterator<Item = &CommittedFile> {
        self.all_files().filter(move |file| file.table == table)
    }

    /// Lists the existing files of all tables, by source and position of their commit.
    pub fn all_files(&self) -> impl Iterator<Item = &CommittedFile> {
        let files = self.commits.values().flat_map(|commit| &commit.files);
        files.filter(|file| !self.replaced.contains_key(&file.path))
    }

    /// Returns the existing chunks files by path.
    pub(crate) fn chunk_files(&self) -> HashMap<&str, &CommittedFile> {
        self.files(Table::Chunks).map(|file| (file.path.as_str(), file)).collect()
    }

    /// Returns whether no commit ever had files.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.had_files
    }

    /// Returns the last commit of each source.
    pub(crate) fn heads(&self) -> &BTreeMap<String, Head> {
        &self.heads
    }

    /// Returns whether all commits of a source up to its last one are in the snapshot.
    ///
    /// A listing of a local directory that changes meanwhile may show a commit and miss the one before it.
    pub(crate) fn is_gapless(&self, source: &str) -> bool {
        !self.gaps.contains(source)
    }

    /// Lists the objects with the older replacements of some folders, or of all.
    pub(crate) fn older_replacements(&self, folders: Option<&BTreeSet<String>>) -> Vec<String> {
        let wanted =
            self.older.iter().filter(|(folder, _)| folders.is_none_or(|some| some.contains(*folder)));
        wanted.map(|(_, pointer)| pointer.object.clone()).collect()
    }

    /// Adds older replacements to those of the commits after the checkpoint.
    pub(crate) fn replacements(&self, older: HashMap<String, Option<String>>) -> Replacements {
        let mut map = older;
        map.extend(self.replaced.iter().map(|(old, new)| (old.clone(), new.clone())));
        Replacements(map)
    }
}

/// Maps replaced files to the files that have their rows now.
#[derive(Debug, Clone, Default)]
pub(crate) struct Replacements(HashMap<String, Option<String>>);

impl Replacements {
    /// Returns the file that has the rows of this one now: itself, or its replacement; `None` if the rows were deleted.
    pub(crate) fn current<'a>(&'a self, path: &'a str) -> Option<&'a str> {
        let mut path = path;
        // A path is replaced at most once, so the loop ends.
        while let Some(newer) = self.0.get(path) {
            path = newer.as_deref()?;
        }
        Some(path)
    }

    /// Returns whether a file was replaced.
    pub(crate) fn contains(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    /// Lists the paths of the replaced files.
    pub(crate) fn replaced(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Returns the number of replaced files.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Returns the folder of a data file below its table: `tenant=…/agent=…/date=…`.
pub(crate) fn folder_of(path: &str) -> &str {
    let below = path.split_once('/').map_or("", |(_, below)| below);
    below.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Returns the file name of a path.
pub(crate) fn name_of(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}
