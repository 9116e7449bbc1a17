//! Parses every TOML example of the pages with the code that reads the file.

use crate::pages::{self, Block, Page};

/// A configuration that a page's part completes.
const BASE: &str = r#"agent = "a"
store = "store"
state-dir = "state"
[[route]]
edge = "model"
listen = "127.0.0.1:0"
upstream = "http://127.0.0.1:9"
"#;

/// Parses one example and returns the kind of file.
fn parse(block: &Block) -> Result<&'static str, String> {
    let text = &block.text;
    let variable = |_: &str| Some("value".to_owned());
    if text.starts_with("candidate = 1") {
        replayer::Candidate::parse(text, &variable).map(|_| "candidate").map_err(|error| error.to_string())
    } else if text.starts_with("policy = 1") {
        analyzer::Policy::parse(text).map(|_| "policy").map_err(|error| error.to_string())
    } else if text.starts_with("envelope = 1") {
        let file = |_: &str| Ok("{}".to_owned());
        envelope::Envelope::parse(text, &file).map(|_| "envelope").map_err(|error| error.to_string())
    } else if text.starts_with("[gate]") {
        // `every_command_runs` runs the gate with it.
        Ok("gate")
    } else {
        let text = if text.starts_with('[') { format!("{BASE}{text}") } else { text.clone() };
        let parsed = recorder::config::Config::parse_in(&text, &variable);
        parsed.map(|_| "configuration").map_err(|error| error.to_string())
    }
}

/// The reference has examples that its own tests parse, with every key.
fn is_reference(page: &Page) -> bool {
    page.path.starts_with("deploy/book/src/reference")
}

#[test]
fn every_toml_example_parses() {
    let mut counts = std::collections::BTreeMap::new();
    for page in pages::all().iter().filter(|page| !is_reference(page)) {
        for block in page.blocks().iter().filter(|block| block.language == "toml") {
            match parse(block) {
                Ok(kind) => *counts.entry(kind).or_insert(0) += 1,
                Err(error) => panic!("{}:{}: {error}\n{}", page.path.display(), block.line, block.text),
            }
        }
    }
    for (kind, least) in [("candidate", 4), ("policy", 3), ("envelope", 1), ("gate", 1), ("configuration", 5)]
    {
        assert!(
            counts.get(kind).is_some_and(|count| *count >= least),
            "too few examples of {kind}: {counts:?}"
        );
    }
}
