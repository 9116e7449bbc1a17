//! Reads the pages: their text, their code blocks, and the files that their code blocks make.

use std::path::{Path, PathBuf};

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the workspace").to_owned()
}

/// One page.
#[derive(Debug)]
pub(crate) struct Page {
    /// From the root of the workspace.
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// A fenced code block.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// Line of the opening fence, from 1.
    pub(crate) line: usize,
    /// The first word after the fence.
    pub(crate) language: String,
    /// The words after the language, for example `exit=3`.
    pub(crate) options: Vec<String>,
    /// The name in `<!-- file: NAME -->` on the line before.
    pub(crate) file: Option<String>,
    pub(crate) text: String,
}

/// The pages of the book.
pub(crate) fn book() -> Vec<Page> {
    let mut paths = Vec::new();
    collect(&root().join("deploy/book/src"), &mut paths);
    paths.sort();
    assert!(paths.len() > 20, "the book has only {} pages", paths.len());
    paths.iter().map(|path| read(path)).collect()
}

/// The pages of the book, and the README.
pub(crate) fn all() -> Vec<Page> {
    let mut pages = book();
    pages.push(read(&root().join("README.md")));
    pages
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("folder reads") {
        let path = entry.expect("entry reads").path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

fn read(path: &Path) -> Page {
    let text = std::fs::read_to_string(path).expect("page reads");
    Page { path: path.strip_prefix(root()).expect("in the workspace").to_owned(), text }
}

impl Page {
    /// The code blocks in order.
    pub(crate) fn blocks(&self) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        let (mut open, mut file): (Option<Block>, Option<String>) = (None, None);
        for (line, text) in (1..).zip(self.text.lines()) {
            match (&mut open, text.trim_start().strip_prefix("```")) {
                (None, Some(info)) => {
                    let mut words = info.split_whitespace().map(str::to_owned);
                    open = Some(Block {
                        line,
                        language: words.next().unwrap_or_default(),
                        options: words.collect(),
                        file: file.take(),
                        text: String::new(),
                    });
                }
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(block), None) => {
                    block.text.push_str(text);
                    block.text.push('\n');
                }
                (None, None) => {
                    let name =
                        text.trim().strip_prefix("<!-- file: ").and_then(|rest| rest.strip_suffix(" -->"));
                    if name.is_some() || !text.trim().is_empty() {
                        file = name.map(str::to_owned);
                    }
                }
            }
        }
        assert!(open.is_none(), "{}: a code block is not closed", self.path.display());
        blocks
    }

    /// The text outside of code blocks.
    pub(crate) fn prose(&self) -> String {
        let mut inside = false;
        let mut prose = String::new();
        for line in self.text.lines() {
            if line.trim_start().starts_with("```") {
                inside = !inside;
            } else if !inside {
                prose.push_str(line);
            }
            prose.push('\n');
        }
        prose
    }
}

#[test]
fn a_file_comment_names_the_next_block_only() {
    let text = "<!-- file: a.toml -->\n```toml\nx = 1\n```\n\n```sh exit=3\ntrue\n```\n".to_owned();
    let blocks = Page { path: PathBuf::from("p.md"), text }.blocks();
    assert_eq!(blocks.len(), 2);
    assert_eq!((blocks[0].file.as_deref(), blocks[0].text.as_str()), (Some("a.toml"), "x = 1\n"));
    assert_eq!((blocks[1].file.as_deref(), blocks[1].options.as_slice()), (None, &["exit=3".to_owned()][..]));
}
