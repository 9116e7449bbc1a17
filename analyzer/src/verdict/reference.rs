//! The pages of `verdict.json` and of the reason codes in the book.

use super::{ReasonCode, Verdict};

#[test]
fn the_book_lists_every_field_of_the_verdict() {
    let schema = schemars::schema_for!(Verdict);
    let introduction = "`foreshadow analyze` and `foreshadow gate` write `verdict.json`. Readers ignore fields that they do not know. \
                        The JSON Schema is `schemas/verdict.schema.json`.";
    reference::assert_page(
        "verdict.md",
        &reference::keys_of_json("verdict.json", introduction, schema.as_value()),
    );
}

#[test]
fn the_book_lists_every_reason_code() {
    let schema = schemars::schema_for!(ReasonCode);
    let codes = reference::variants(schema.as_value());
    assert!(codes.len() > 10, "only {} reason codes", codes.len());
    let rows: Vec<Vec<String>> =
        codes.into_iter().map(|(code, meaning)| vec![format!("`{code}`"), meaning]).collect();
    let table = reference::table(&["code", "meaning"], &rows);
    let text = format!(
        "# Reason codes\n\nEvery reason of a verdict has one of these codes. The list is closed: a new code is a new version of \
         Foreshadow.\n\n{table}"
    );
    reference::assert_page("reason-codes.md", &text);
}
