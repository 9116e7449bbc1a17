//! Removes hop-by-hop headers (RFC 9110, section 7.6.1), which belong to one connection.
//!
//! The other headers keep their order.

use hyper::HeaderMap;
use hyper::header::{CONNECTION, HeaderName, HeaderValue, TE, UPGRADE};

/// Hop-by-hop headers that need not be named in `connection`.
const HOP_BY_HOP: [&str; 6] =
    ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"];

/// Removes the hop-by-hop headers. `TE: trailers` stays: it addresses the other end, not this hop.
pub(super) fn strip_hop_by_hop(headers: HeaderMap) -> HeaderMap {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let drops = |name: &HeaderName| HOP_BY_HOP.contains(&name.as_str()) || named.contains(name);
    if !headers.keys().any(drops) {
        return headers;
    }
    let trailers = wants_trailers(&headers);
    let mut kept = HeaderMap::with_capacity(headers.len());
    let mut last = None;
    // `HeaderMap::remove` changes the order of the others, so this builds a new map.
    for (name, value) in headers {
        // The second and later values of a header come without its name.
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

/// The protocol of the `upgrade` header, if `connection` asks for an upgrade.
pub(super) fn upgrade_protocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let options = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let wanted =
        options.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("upgrade"));
    headers.get(UPGRADE).filter(|_| wanted).cloned()
}

fn wants_trailers(headers: &HeaderMap) -> bool {
    let listed = headers.get_all(TE).iter().filter_map(|value| value.to_str().ok());
    listed.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("trailers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strips_hop_by_hop_headers_and_keeps_the_order() {
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
        let kept = strip_hop_by_hop(headers);
        let pairs: Vec<_> =
            kept.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("text"))).collect();
        assert_eq!(pairs, [("x-b", "1"), ("x-b", "4"), ("x-a", "3"), ("te", "trailers")]);
    }
}
