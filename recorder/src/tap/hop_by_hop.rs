//! Hop-by-hop headers (RFC 9110, section 7.6.1): they belong to one connection and are not forwarded.
//!
//! Everything else passes in its order.

use hyper::HeaderMap;
use hyper::header::{CONNECTION, HeaderName, HeaderValue, TE, UPGRADE};

const HOP: [&str; 6] = ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"];

/// The headers that go on; `TE: trailers` is kept, for it asks the other end, not this hop.
pub(super) fn forwarded(headers: HeaderMap) -> HeaderMap {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let drops = |name: &HeaderName| HOP.contains(&name.as_str()) || named.contains(name);
    if !headers.keys().any(drops) {
        return headers;
    }
    let trailers = wants_trailers(&headers);
    let mut kept = HeaderMap::with_capacity(headers.len());
    let mut last = None;
    // Taking one out would change the order of the others, so the map is made anew.
    for (name, value) in headers {
        // A repeated header comes without its name from the second on.
        last = name.or(last);
        if let Some(name) = last.as_ref().filter(|name| !drops(name)) {
            kept.append(name.clone(), value);
        }
    }
    if trailers {
        kept.insert(TE, HeaderValue::from_static("trailers"));
    }
    kept
}

/// The protocol that a request or answer wants to change to.
pub(super) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let listed = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let asked =
        listed.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("upgrade"));
    headers.get(UPGRADE).filter(|_| asked).cloned()
}

fn wants_trailers(headers: &HeaderMap) -> bool {
    let listed = headers.get_all(TE).iter().filter_map(|value| value.to_str().ok());
    listed.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("trailers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_what_belongs_to_the_hop_and_keeps_the_order() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-b", "1"),
            ("connection", "close, X-Mine"),
            ("x-mine", "2"),
            ("x-a", "3"),
            ("te", "gzip, trailers"),
            ("x-b", "4"),
            ("transfer-encoding", "chunked"),
        ] {
            headers.append(name, value.parse().expect("value"));
        }
        let kept = forwarded(headers);
        let pairs: Vec<_> =
            kept.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("text"))).collect();
        assert_eq!(pairs, [("x-b", "1"), ("x-b", "4"), ("x-a", "3"), ("te", "trailers")]);
    }
}
