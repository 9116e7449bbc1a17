//! Grades: strict parsers of evaluators' output. An unexpected value is an error, never a grade.

use serde::Deserialize;

/// Longest stored reason, characters.
const MAX_REASON: usize = 2_000;

/// Longest stored error text, characters.
const MAX_DETAIL: usize = 500;

/// An evaluator's grade of one trial.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Grade {
    /// The agent did its work correctly.
    pub(crate) success: bool,
    /// Quality, 0 to 1.
    pub(crate) value: Option<f64>,
    /// Explanation by the evaluator.
    pub(crate) reason: Option<String>,
}

/// Output of a program or a service.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    success: Option<bool>,
    score: Option<f64>,
    reason: Option<String>,
}

/// Expected output of a program or a service, for error texts.
pub(crate) const EXPECTED: &str = "expected one JSON object {\"success\": true or false, \"score\": 0 to 1, \"reason\": text} with `success` or `score`";

/// Parses the output of a program or a service: exactly one JSON object. Without `success`, a `score` of at least
/// `threshold` is a success.
///
/// # Errors
/// The text names the expected and the found output.
pub(crate) fn parse(bytes: &[u8], threshold: f64) -> Result<Grade, String> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| format!("the output is not UTF-8 (byte {}); {EXPECTED}", error.valid_up_to()))?;
    let answer: Answer =
        serde_json::from_str(text).map_err(|error| format!("{error}, found {}; {EXPECTED}", quoted(text)))?;
    if let Some(score) = answer.score.filter(|score| !(0.0..=1.0).contains(score)) {
        return Err(format!("score is {score}; {EXPECTED}"));
    }
    let success = answer.success.or(answer.score.map(|score| score >= threshold));
    let success =
        success.ok_or_else(|| format!("{} has neither `success` nor `score`; {EXPECTED}", quoted(text)))?;
    Ok(Grade {
        success,
        value: answer.score,
        reason: answer.reason.map(|reason| shorten(&reason, MAX_REASON)),
    })
}

/// Answer of a judge.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct JudgeAnswer {
    verdict: String,
    #[serde(default)]
    reason: String,
}

/// Parses a judge's answer: exactly one JSON object whose `verdict` is the pass word or the fail word.
///
/// # Errors
/// The text names the expected and the found answer.
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
    let reason = (!answer.reason.is_empty()).then(|| shorten(&answer.reason, MAX_REASON));
    Ok(Grade { success, value: None, reason })
}

/// Quotes foreign text for an error: its first 120 characters, as a JSON string.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::String(shorten(text.trim(), 120)).to_string()
}

/// Shortens an error text for the `error` column.
pub(crate) fn detail(text: &str) -> String {
    shorten(text, MAX_DETAIL)
}

fn shorten(text: &str, max_chars: usize) -> String {
    match text.char_indices().nth(max_chars) {
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
        let parsed = |text: &str| parse(text.as_bytes(), 0.5).map(|grade| (grade.success, grade.value));
        assert_eq!(parsed(" {\"success\": true}\n"), Ok((true, None)));
        assert_eq!(parsed("{\"score\": 0.5}"), Ok((true, Some(0.5))));
        assert_eq!(parsed("{\"score\": 0.49, \"reason\": \"r\"}"), Ok((false, Some(0.49))));
        assert_eq!(parsed("{\"success\": false, \"score\": 1}"), Ok((false, Some(1.0))));
    }

    #[test]
    fn any_other_output_is_an_error_that_quotes_it() {
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
    fn a_judge_answers_with_one_of_two_words() {
        let parsed = |text: &str| parse_judge_answer(text, "pass", "fail").map(|grade| grade.success);
        assert_eq!(parsed("{\"verdict\": \"pass\", \"reason\": \"r\"}"), Ok(true));
        assert_eq!(parsed("{\"verdict\": \"fail\"}"), Ok(false));
        // Words of published judges that were asked for pass or fail.
        for word in ["satisfied", "satisfactory", "compliant", "correct", "PASS", "pass.", ""] {
            let error = parsed(&format!("{{\"verdict\": \"{word}\"}}")).expect_err(word);
            assert!(error.contains(&format!("verdict is \"{word}\"")), "{error}");
        }
        for text in [
            "pass",
            "```json\n{\"verdict\": \"pass\"}\n```",
            "{\"verdict\": \"pass\"}{\"verdict\": \"fail\"}",
        ] {
            assert!(parsed(text).is_err(), "{text}");
        }
        assert!(parsed("{\"verdict\": \"fail\", \"verdict\": \"pass\"}").is_err());
        assert!(parsed("{\"verdict\": \"pass\", \"override\": true}").is_err());
    }

    proptest! {
        #[test]
        fn no_output_makes_the_parsers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in ".{0,200}") {
            let _ = parse(&bytes, 0.5);
            let _ = parse_judge_answer(&text, "pass", "fail");
        }
    }
}
