//! What an evaluator answers, parsed strictly: a word that is not foreseen is an error, never a score.

use serde::Deserialize;

/// The longest reason that is kept, in characters.
const MAX_REASON: usize = 2_000;

/// The longest text of a failed evaluation that is kept, in characters.
const MAX_DETAIL: usize = 500;

/// What an evaluator says of a trial.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Grade {
    /// Whether the work was done right.
    pub(crate) success: bool,
    /// How well, from 0 to 1.
    pub(crate) value: Option<f64>,
    /// Why.
    pub(crate) reason: Option<String>,
}

/// The answer of a program or a service.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    success: Option<bool>,
    score: Option<f64>,
    reason: Option<String>,
}

/// What a program or a service should have answered.
pub(crate) const EXPECTED: &str = "expected one JSON object {\"success\": true or false, \"score\": 0 to 1, \"reason\": text} with `success` or `score`";

/// Reads the answer of a program or a service: one JSON object and nothing else. Without `success`, a `score` from
/// `threshold` on is one.
///
/// # Errors
/// Says what was expected and what was found.
pub(crate) fn parse(bytes: &[u8], threshold: f64) -> Result<Grade, String> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| format!("the answer is not UTF-8 (byte {}); {EXPECTED}", error.valid_up_to()))?;
    let answer: Answer =
        serde_json::from_str(text).map_err(|error| format!("{error}, found {}; {EXPECTED}", quoted(text)))?;
    if let Some(score) = answer.score.filter(|score| !(0.0..=1.0).contains(score)) {
        return Err(format!("score is {score}; {EXPECTED}"));
    }
    let success = answer.success.or(answer.score.map(|score| score >= threshold));
    let success = success.ok_or_else(|| format!("neither is there in {}; {EXPECTED}", quoted(text)))?;
    Ok(Grade { success, value: answer.score, reason: answer.reason.map(|reason| cut(&reason, MAX_REASON)) })
}

/// The answer of a judge.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct JudgeAnswer {
    verdict: String,
    #[serde(default)]
    reason: String,
}

/// Reads a judge's answer: one JSON object whose `verdict` is one of two words.
///
/// # Errors
/// Says what was expected and what was found.
pub(crate) fn parse_judge_answer(text: &str, pass: &str, fail: &str) -> Result<Grade, String> {
    let expected =
        format!("expected one JSON object {{\"verdict\": \"{pass}\" or \"{fail}\", \"reason\": text}}");
    let answer: JudgeAnswer =
        serde_json::from_str(text).map_err(|error| format!("{error}, found {}; {expected}", quoted(text)))?;
    let success = if answer.verdict == pass {
        true
    } else if answer.verdict == fail {
        false
    } else {
        return Err(format!("verdict is {}; {expected}", quoted(&answer.verdict)));
    };
    let reason = (!answer.reason.is_empty()).then(|| cut(&answer.reason, MAX_REASON));
    Ok(Grade { success, value: None, reason })
}

/// A text of somebody else's in an error: its beginning, as a JSON string.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::String(cut(text.trim(), 120)).to_string()
}

/// What is kept of the description of a failure.
pub(crate) fn detail(text: &str) -> String {
    cut(text, MAX_DETAIL)
}

fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_success_score_or_both() {
        let said = |text: &str| parse(text.as_bytes(), 0.5).map(|said| (said.success, said.value));
        assert_eq!(said(" {\"success\": true}\n"), Ok((true, None)));
        assert_eq!(said("{\"score\": 0.5}"), Ok((true, Some(0.5))));
        assert_eq!(said("{\"score\": 0.49, \"reason\": \"r\"}"), Ok((false, Some(0.49))));
        assert_eq!(said("{\"success\": false, \"score\": 1}"), Ok((false, Some(1.0))));
    }

    #[test]
    fn everything_else_is_an_error_that_says_what_was_found() {
        for text in [
            "",
            "true",
            "{}",
            "{\"sucess\": true}",
            "{\"success\": \"true\"}",
            "{\"success\": true} trailing",
            "{\"success\": true, \"success\": false}",
            "{\"score\": 1.01}",
            "{\"score\": -0.1}",
            "{\"score\": 1e999}",
        ] {
            let error = parse(text.as_bytes(), 0.5).expect_err(text);
            assert!(error.contains("expected one JSON object"), "{error}");
        }
        assert!(parse(&[0xff, 0xfe], 0.5).expect_err("binary").contains("not UTF-8"));
        let long =
            parse(format!("{{\"x\": \"{}\"}}", "y".repeat(100_000)).as_bytes(), 0.5).expect_err("long");
        assert!(long.len() < 1000, "{}", long.len());
    }

    #[test]
    fn a_verdict_is_one_of_two_words() {
        let said = |text: &str| parse_judge_answer(text, "pass", "fail").map(|said| said.success);
        assert_eq!(said("{\"verdict\": \"pass\", \"reason\": \"r\"}"), Ok(true));
        assert_eq!(said("{\"verdict\": \"fail\"}"), Ok(false));
        // The words that published judges used where they were asked for pass or fail.
        for word in ["satisfied", "satisfactory", "compliant", "correct", "PASS", "pass.", ""] {
            let error = said(&format!("{{\"verdict\": \"{word}\"}}")).expect_err(word);
            assert!(error.contains(&format!("verdict is \"{word}\"")), "{error}");
        }
        for text in [
            "pass",
            "```json\n{\"verdict\": \"pass\"}\n```",
            "{\"verdict\": \"pass\"}{\"verdict\": \"fail\"}",
        ] {
            assert!(said(text).is_err(), "{text}");
        }
        assert!(said("{\"verdict\": \"fail\", \"verdict\": \"pass\"}").is_err());
        assert!(said("{\"verdict\": \"pass\", \"override\": true}").is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in ".{0,200}") {
            let _ = parse(&bytes, 0.5);
            let _ = parse_judge_answer(&text, "pass", "fail");
        }
    }
}
