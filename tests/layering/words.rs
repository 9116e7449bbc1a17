//! Finds words that the project has given up.
//!
//! `retired/*.txt` hold one regular expression a line. A tracked source, script, configuration or page that matches one
//! fails the test, so that an old name does not come back with a copied line.

use std::path::{Path, PathBuf};

use regex::Regex;

/// Endings of the files that are searched.
const SEARCHED: [&str; 11] = ["rs", "toml", "md", "py", "sh", "js", "css", "html", "json", "yaml", "txt"];

/// Paths that keep old words: recorded data, stored formats, history, and the lists themselves.
const EXCLUDED: [&str; 8] = [
    "CHANGELOG.md",
    "Cargo.lock",
    "tests/data/",
    "tests/fixtures/",
    "schemas/store/fixtures/",
    "tests/layering/retired/",
    "analyzer/embedding/weights/",
    "analyzer/src/report/page/charts/plot.js",
];

/// A retired word and where its rule is written.
struct Retired {
    word: Regex,
    rule: String,
}

fn retired(root: &Path) -> Vec<Retired> {
    let mut lists: Vec<PathBuf> = std::fs::read_dir(root.join("tests/layering/retired"))
        .expect("the lists are there")
        .map(|entry| entry.expect("entry reads").path())
        .collect();
    lists.sort();
    let mut found = Vec::new();
    for list in lists {
        let text = std::fs::read_to_string(&list).expect("list reads");
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let rule = format!("{}:{number}", list.file_name().expect("has a name").to_string_lossy());
            let word = Regex::new(line).unwrap_or_else(|error| panic!("{rule}: {error}"));
            found.push(Retired { word, rule });
        }
    }
    found
}

fn tracked(root: &Path) -> Vec<String> {
    let listed =
        std::process::Command::new("git").arg("ls-files").current_dir(root).output().expect("git runs");
    assert!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
    String::from_utf8(listed.stdout).expect("paths are UTF-8").lines().map(str::to_owned).collect()
}

fn is_searched(root: &Path, path: &str) -> bool {
    if EXCLUDED.iter().any(|excluded| path.starts_with(excluded)) {
        return false;
    }
    match Path::new(path).extension() {
        Some(extension) => SEARCHED.iter().any(|searched| extension == *searched),
        // Scripts without an ending.
        None => std::fs::read(root.join(path)).is_ok_and(|bytes| bytes.starts_with(b"#!")),
    }
}

#[test]
fn no_file_says_a_retired_word() {
    let root = crate::root();
    let retired = retired(&root);
    assert!(retired.len() > 100, "only {} retired words are listed", retired.len());
    let (mut searched, mut hits) = (0, Vec::new());
    for path in tracked(&root) {
        if !is_searched(&root, &path) {
            continue;
        }
        // A deleted file that git still tracks.
        let Ok(text) = std::fs::read_to_string(root.join(&path)) else { continue };
        searched += 1;
        for (number, line) in (1..).zip(text.lines()) {
            for Retired { word, rule } in &retired {
                if let Some(hit) = word.find(line) {
                    hits.push(format!("{path}:{number}: `{}` ({rule})", hit.as_str()));
                }
            }
        }
    }
    assert!(searched > 300, "only {searched} files were searched");
    assert!(hits.is_empty(), "{} retired words:\n{}", hits.len(), hits.join("\n"));
}
