//! The page of the `[score]` table in the book.

use crate::config::ScoreConfig;

#[test]
fn the_book_lists_every_key_of_the_score_table() {
    let introduction = "`foreshadow score RUN --config FILE` reads the `[score]` table of the file, and `foreshadow gate` reads it from \
                        its own file. `foreshadow score --template` prints this example.";
    let schema = schemars::schema_for!(ScoreConfig);
    let example = reference::Example { file: "deploy/scoring/src/template.toml", text: crate::TEMPLATE };
    let page = reference::keys("The [score] table", introduction, schema.as_value(), "score", example);
    reference::assert_page("score-toml.md", &page);
}
