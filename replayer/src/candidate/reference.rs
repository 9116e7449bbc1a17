//! The page of `candidate.toml` in the book.

use super::Candidate;
use super::sections::CandidateFile;

/// A file with every key of a service; the keys of a program are commented out.
const EXAMPLE: &str = include_str!("reference.toml");

#[test]
fn the_book_lists_every_key_of_the_candidate_file() {
    let parsed = Candidate::parse(EXAMPLE, &|_| Some("value".to_owned()));
    assert!(parsed.is_ok(), "{:?}", parsed.err());
    let schema = schemars::schema_for!(CandidateFile);
    let introduction =
        "`foreshadow replay --candidate FILE` and the candidates of `gate.toml` read this file.";
    let example = reference::Example { file: "replayer/src/candidate/reference.toml", text: EXAMPLE };
    let page = reference::keys("candidate.toml", introduction, schema.as_value(), "", example);
    reference::assert_page("candidate-toml.md", &page);
}
