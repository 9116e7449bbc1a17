//! Link targets inside the page.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Escaped in a query value: all but letters, digits and `-._` (RFC 3986 section 2.3).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_');

/// The element id of a case: `case-` and the name, in which each byte but letters, digits, `-` and `.` becomes `_` and
/// its hexadecimal code. An id may hold no spaces, and a percent sign would be decoded by the browser.
pub(super) fn case_id(case: &str) -> String {
    let mut id = String::from("case-");
    for byte in case.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.') {
            id.push(char::from(byte));
        } else {
            id.push_str(&format!("_{byte:02x}"));
        }
    }
    id
}

/// Percent-encodes a value of the case filter's query (RFC 3986 section 2.1).
pub(super) fn query_value(value: &str) -> String {
    utf8_percent_encode(value, ESCAPED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_ids_are_plain_and_distinct() {
        assert_eq!(case_id("retail-12"), "case-retail-12");
        assert_eq!(case_id("a_b c"), "case-a_5fb_20c");
        assert_ne!(case_id("a b"), case_id("a_20b"));
    }

    #[test]
    fn query_values_hold_no_separators() {
        assert_eq!(query_value("a&b=c \"é\""), "a%26b%3Dc%20%22%C3%A9%22");
    }
}
