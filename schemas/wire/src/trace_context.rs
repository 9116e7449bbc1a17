//! Identifiers of a trace in request headers: the trace id of `traceparent` and the members of `baggage`.
//!
//! Sources: W3C Trace Context, section 3.2 (<https://www.w3.org/TR/trace-context/>) and W3C Baggage, section 3.2
//! (<https://www.w3.org/TR/baggage/>). MCP carries both values in `_meta` under the same names.
//!
//! The trace id is the only part of `traceparent` that is read: a header whose version, parent id or flags are invalid
//! still identifies its trace.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// Hexadecimal digits of a trace id.
pub const TRACE_ID_DIGITS: usize = 32;

/// Members that are read from one `baggage` value. W3C Baggage obliges a proxy to carry 64.
pub const MAX_BAGGAGE_MEMBERS: usize = 180;

/// The trace id of a `traceparent` value (`version-traceid-parentid-flags`), in lower case.
///
/// Returns `None` unless the id is 32 hexadecimal digits that are not all zero.
#[must_use]
pub fn trace_id(traceparent: &str) -> Option<String> {
    let id = traceparent.trim().split('-').nth(1)?;
    let is_valid = id.len() == TRACE_ID_DIGITS
        && id.bytes().all(|byte| byte.is_ascii_hexdigit())
        && id.bytes().any(|byte| byte != b'0');
    is_valid.then(|| id.to_ascii_lowercase())
}

/// Writes a sampled `traceparent` value of version 00. The ids are lower-case hexadecimal digits: 32 of the trace, 16 of
/// the parent.
#[must_use]
pub fn traceparent(trace_id: &str, parent_id: &str) -> String {
    format!("00-{trace_id}-{parent_id}-01")
}

/// The members of a `baggage` value as key and percent-decoded value, without their properties.
///
/// Members without `=` are skipped, and so are all past [`MAX_BAGGAGE_MEMBERS`]. Bytes that are not UTF-8 after
/// decoding become U+FFFD.
pub fn baggage(header: &str) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
    header.split(',').take(MAX_BAGGAGE_MEMBERS).filter_map(|member| {
        let (key, value) = member.split(';').next()?.split_once('=')?;
        Some((key.trim(), percent_decode_str(value.trim()).decode_utf8_lossy()))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "0af7651916cd43dd8448eb211c80319c";

    #[test]
    fn reads_the_trace_id() {
        let header = traceparent(ID, "b7ad6b7169203331");
        assert_eq!(trace_id(&header).as_deref(), Some(ID));
        assert_eq!(trace_id(&header.to_ascii_uppercase()).as_deref(), Some(ID));
        assert_eq!(trace_id(&format!(" 00-{ID}-0000000000000000-00 ")).as_deref(), Some(ID));
    }

    #[test]
    fn rejects_a_trace_id_that_identifies_nothing() {
        let zero = "0".repeat(TRACE_ID_DIGITS);
        let not_hex = format!("g{}", &ID[1..]);
        for header in
            ["", "garbage", "00", "00-000-0-0", &traceparent(&zero, "1"), &traceparent(&not_hex, "1")]
        {
            assert_eq!(trace_id(header), None, "{header:?}");
        }
    }

    #[test]
    fn reads_baggage_members_without_their_properties() {
        let header = "a=1, session.id=chat%2042;p=1;q=a%20b ,bare,b=x=y,c=";
        let members: Vec<_> = baggage(header).collect();
        let expected = [("a", "1"), ("session.id", "chat 42"), ("b", "x=y"), ("c", "")];
        assert_eq!(members, expected.map(|(key, value)| (key, Cow::from(value))));
    }

    #[test]
    fn reads_a_bounded_number_of_baggage_members() {
        let header = "a=1,".repeat(MAX_BAGGAGE_MEMBERS + 9);
        assert_eq!(baggage(&header).count(), MAX_BAGGAGE_MEMBERS);
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,100}") {
            let _ = trace_id(&text);
            let _ = baggage(&text).count();
        }
    }
}
