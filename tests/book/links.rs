//! Checks the links of the pages: each relative link names a file of the project, and each `#anchor` a heading of it.

use std::path::{Component, Path, PathBuf};

use regex::Regex;

use crate::pages::{self, Page, root};

/// The anchors that mdBook and GitHub give the headings of a page.
fn anchors(page: &str) -> Vec<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    let slug = |heading: &str| {
        let text = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = text.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
        kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
    };
    headings.map(slug).collect()
}

fn normalised(path: &Path) -> PathBuf {
    let mut found = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                found.pop();
            }
            Component::CurDir => {}
            Component::Normal(_) | Component::RootDir | Component::Prefix(_) => found.push(component),
        }
    }
    found
}

fn broken_links(page: &Page) -> Vec<String> {
    let link = Regex::new(r"\]\(([^)\s]+)\)").expect("is a pattern");
    let mut broken = Vec::new();
    for captures in link.captures_iter(&page.prose()) {
        let target = &captures[1];
        if target.starts_with("http://") || target.starts_with("https://") {
            continue;
        }
        let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
        let folder = page.path.parent().unwrap_or(Path::new(""));
        let path =
            root().join(if file.is_empty() { page.path.clone() } else { normalised(&folder.join(file)) });
        if !path.exists() {
            broken.push(format!("{}: {target}: no such file", page.path.display()));
        } else if !anchor.is_empty() {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            if !anchors(&text).iter().any(|found| found == anchor) {
                broken.push(format!("{}: {target}: no such heading", page.path.display()));
            }
        }
    }
    broken
}

#[test]
fn every_link_leads_to_a_page_and_a_heading() {
    let pages = pages::all();
    let broken: Vec<String> = pages.iter().flat_map(broken_links).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    let linked: usize = pages.iter().map(|page| page.text.matches("](").count()).sum();
    assert!(linked > 40, "only {linked} links were found");
}

#[test]
fn every_page_is_in_the_summary() {
    let summary = std::fs::read_to_string(root().join("deploy/book/src/SUMMARY.md")).expect("summary reads");
    for page in pages::book() {
        let name = page.path.strip_prefix("deploy/book/src").expect("a page").to_string_lossy().into_owned();
        assert!(
            name == "SUMMARY.md" || summary.contains(&format!("({name})")),
            "{name} is not in SUMMARY.md"
        );
    }
}

#[test]
fn every_file_of_the_map_of_behaviours_exists() {
    let page =
        pages::book().into_iter().find(|page| page.path.ends_with("contributing.md")).expect("the page");
    let file = Regex::new(r"\| `([^`]+\.rs)` \|").expect("is a pattern");
    let files: Vec<String> = file.captures_iter(&page.text).map(|found| found[1].to_owned()).collect();
    assert!(files.len() >= 30, "only {} behaviours are listed", files.len());
    let missing: Vec<&String> = files.iter().filter(|file| !root().join(file).exists()).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
