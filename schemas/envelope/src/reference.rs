//! The page of `envelope.toml` in the book.

use crate::Envelope;
use crate::file::EnvelopeFile;

/// A file with every key.
const EXAMPLE: &str = include_str!("reference.toml");

#[test]
fn the_book_lists_every_key_of_the_envelope() {
    let parsed = Envelope::parse(EXAMPLE, &|name| Err(format!("{name} is not in the example")));
    assert!(parsed.is_ok(), "{:?}", parsed.err());
    let introduction = "`foreshadow analyze --envelope FILE` and `foreshadow gate` read this file. See \
                        [set a policy and an envelope](../how-to/policy.md).";
    let schema = schemars::schema_for!(EnvelopeFile);
    let example = reference::Example { file: "schemas/envelope/src/reference.toml", text: EXAMPLE };
    let page = reference::keys("envelope.toml", introduction, schema.as_value(), "", example);
    reference::assert_page("envelope-toml.md", &page);
}
