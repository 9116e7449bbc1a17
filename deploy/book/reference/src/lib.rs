//! Renders the reference pages of the book from the code that they describe.
//!
//! A test beside each configuration, command line, metric or table calls one of these functions and compares the result with the
//! page in `deploy/book/src/reference`. A missing key, flag, metric, reason or column fails that test.
//! `UPDATE_EXPECT=1 cargo test NAME` writes the page again. Nothing here is part of the binary.

mod command_line;
mod keys;

use std::path::PathBuf;

pub use command_line::command_line;
pub use keys::{Example, keys, keys_of_json, variants};

/// Compares a page of the reference with its generated text, or writes it with `UPDATE_EXPECT=1`.
///
/// # Panics
/// The page differs from `text`.
pub fn assert_page(name: &str, text: &str) {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../src/reference")).join(name);
    expect_test::ExpectFile { path, position: concat!(file!(), ":", line!()) }.assert_eq(text);
}

/// A Markdown table of `rows`; every row has as many cells as `head`.
#[must_use]
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let escape = |cell: &str| cell.replace('|', "\\|").replace('\n', " ");
    let mut text = format!("| {} |\n|{}\n", head.join(" | "), "---|".repeat(head.len()));
    for row in rows {
        let cells: Vec<String> = row.iter().map(|cell| escape(cell)).collect();
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    text
}
