//! Places of the page that a link can name.

/// The name under which a case can be linked to: `case-` and the name, all but plain characters as hexadecimal bytes.
pub(super) fn anchor(case: &str) -> String {
    let mut anchor = String::from("case-");
    for byte in case.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.') {
            anchor.push(char::from(byte));
        } else {
            anchor.push_str(&format!("_{byte:02x}"));
        }
    }
    anchor
}

/// A value of a link's query: all but plain characters as per cent codes (RFC 3986 section 2.1).
pub(super) fn encoded(value: &str) -> String {
    let mut encoded = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_anchor_is_plain_and_unique() {
        assert_eq!(anchor("retail-12"), "case-retail-12");
        assert_eq!(anchor("a_b c"), "case-a_5fb_20c");
        assert_ne!(anchor("a b"), anchor("a_20b"));
    }

    #[test]
    fn a_value_ends_where_it_ends() {
        assert_eq!(encoded("a&b=c \"é\""), "a%26b%3Dc%20%22%C3%A9%22");
    }
}
