//! Generates a text that a regular expression matches, to build mutants of forbidden patterns.

use regex::Regex;
use regex_syntax::Parser;
use regex_syntax::hir::{Class, Hir, HirKind};

/// Longest text generated.
const MAX_SAMPLE: usize = 4_096;

/// A matching text; `None` if none was found, as for a pattern that matches nothing.
pub(super) fn matching(regex: &Regex) -> Option<String> {
    let hir = Parser::new().parse(regex.as_str()).ok()?;
    let mut text = String::new();
    write(&hir, &mut text)?;
    // A word boundary can need a non-word character before and after.
    let padded = format!(" {text} ");
    [text, padded].into_iter().find(|text| regex.is_match(text))
}

fn write(hir: &Hir, text: &mut String) -> Option<()> {
    if text.len() > MAX_SAMPLE {
        return None;
    }
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => Some(()),
        HirKind::Literal(literal) => {
            text.push_str(std::str::from_utf8(&literal.0).ok()?);
            Some(())
        }
        HirKind::Class(class) => {
            text.push(member(class)?);
            Some(())
        }
        HirKind::Repetition(repetition) => {
            for _ in 0..repetition.min {
                write(&repetition.sub, text)?;
            }
            Some(())
        }
        HirKind::Capture(capture) => write(&capture.sub, text),
        HirKind::Concat(parts) => parts.iter().try_for_each(|part| write(part, text)),
        HirKind::Alternation(branches) => {
            let before = text.len();
            branches.iter().find_map(|branch| {
                text.truncate(before);
                write(branch, text)
            })
        }
    }
}

/// A printable character of the class, if it has one.
fn member(class: &Class) -> Option<char> {
    match class {
        Class::Unicode(class) => {
            let readable = |c: &char| c.is_ascii_alphanumeric();
            let ranges = || class.ranges().iter();
            let ascii = ranges().flat_map(|range| (range.start()..=range.end().min('z')).take(128));
            ascii
                .clone()
                .find(readable)
                .or_else(|| ranges().next().map(regex_syntax::hir::ClassUnicodeRange::start))
        }
        Class::Bytes(class) => {
            class.ranges().iter().map(|range| char::from(range.start())).find(char::is_ascii)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_matches_its_pattern() {
        for pattern in [
            "secret",
            r"\b4[0-9]{15}\b",
            r"(?i)begin (rsa|ec) private key",
            r"^[A-Z]{2}\d{2}[A-Z0-9]{4,30}$",
            r"[^a-z]+x?",
            r"\d\s\S",
            r"a|b|",
            r"(?:IBAN:)?\s*DE\d{20}",
        ] {
            let regex = Regex::new(pattern).expect("a pattern");
            let text = matching(&regex).expect(pattern);
            assert!(regex.is_match(&text), "{pattern} does not match {text:?}");
        }
    }

    #[test]
    fn a_pattern_that_nothing_matches_has_no_sample() {
        for pattern in [r"[^\s\S]", r"a\bb", r"x^y", "a{5000}"] {
            assert_eq!(matching(&Regex::new(pattern).expect("a pattern")), None, "{pattern}");
        }
    }

    proptest::proptest! {
        #[test]
        fn literals_are_their_own_sample(text in "\\PC{1,20}") {
            let regex = Regex::new(&regex::escape(&text)).expect("a literal");
            proptest::prop_assert_eq!(matching(&regex), Some(text));
        }
    }
}
