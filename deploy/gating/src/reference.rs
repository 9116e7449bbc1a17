//! The page of `gate.toml` in the book.

use crate::config::GateConfig;

/// A file with every key.
const EXAMPLE: &str = include_str!("reference.toml");

#[test]
fn the_book_lists_every_key_of_a_gate() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("gate.toml");
    std::fs::write(&file, EXAMPLE).expect("is written");
    let parsed = GateConfig::read(&file);
    assert!(parsed.is_ok(), "{:?}", parsed.err());
    let introduction = "`foreshadow gate --config FILE` reads this file. Relative paths start from its folder. With a `[score]` table \
                        ([keys](score-toml.md)), the gate scores both runs after each wave.";
    let schema = schemars::schema_for!(GateConfig);
    let example = reference::Example { file: "deploy/gating/src/reference.toml", text: EXAMPLE };
    let page = reference::keys("gate.toml", introduction, schema.as_value(), "gate", example);
    reference::assert_page("gate-toml.md", &page);
}
