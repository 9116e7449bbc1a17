//! Every TOML example of the README is what the program reads; a part of a configuration is one with the whole one before it.

/// The fenced TOML blocks.
fn examples() -> Vec<String> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = std::fs::read_to_string(path).expect("README reads");
    let blocks = text.split("```toml\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn the_examples_parse() {
    let (mut candidates, mut policies, mut envelopes, mut configurations, mut parts) = (0, 0, 0, 0, 0);
    let mut whole = String::new();
    for example in examples() {
        if example.starts_with("candidate = 1") {
            candidates += 1;
            let parsed = replayer::Candidate::parse(&example, &|_| Some("key".to_owned()));
            assert!(parsed.is_ok(), "{example}\n{:?}", parsed.err());
        } else if example.starts_with("policy = 1") {
            policies += 1;
            let parsed = analyzer::Policy::parse(&example);
            assert!(parsed.is_ok(), "{example}\n{:?}", parsed.err());
        } else if example.starts_with("envelope = 1") {
            envelopes += 1;
            let parsed = envelope::Envelope::parse(&example, &|_| Ok("{}".to_owned()));
            assert!(parsed.is_ok(), "{example}\n{:?}", parsed.err());
        } else {
            if example.starts_with('[') {
                parts += 1;
                whole = format!("{whole}\n{example}");
            } else {
                configurations += 1;
                whole = example;
            }
            let parsed = recorder::config::Config::parse_in(&whole, &|_| Some("key".to_owned()));
            assert!(parsed.is_ok(), "{whole}\n{:?}", parsed.err());
        }
    }
    assert_eq!((candidates, policies, envelopes, configurations, parts), (2, 1, 1, 1, 2));
}
