//! The page of `foreshadow.toml` in the book.

use super::Config;

/// A file with every key.
const EXAMPLE: &str = include_str!("reference.toml");

#[test]
fn the_book_lists_every_key_of_the_configuration() {
    let parsed = Config::parse(EXAMPLE);
    // A build without Kafka refuses `[kafka]`.
    assert!(parsed.is_ok() || !cfg!(feature = "kafka"), "{:?}", parsed.err());
    let schema = schemars::schema_for!(Config);
    let introduction = "`foreshadow record` and `foreshadow archive` read this file, and every command that needs the keys of an \
                        encrypted store. `--config FILE` names it. `[score]` has its own [page](../how-to/score.md).";
    let example = reference::Example { file: "recorder/src/config/reference.toml", text: EXAMPLE };
    let page = reference::keys("foreshadow.toml", introduction, schema.as_value(), "", example);
    reference::assert_page("foreshadow-toml.md", &page);
}
