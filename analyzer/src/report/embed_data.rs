//! What lies in the page beside its markup: compressed data, and scripts and styles named by their digests.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::DeflateEncoder;
use sha2::{Digest as _, Sha256};

/// Raw DEFLATE (RFC 1951) in base64: plain letters, so nothing in it can end the element that it lies in.
pub(super) fn packed(text: &str) -> String {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text.as_bytes()).expect("a vector takes everything");
    STANDARD.encode(encoder.finish().expect("a vector takes everything"))
}

/// How a content security policy names an inline script or style (CSP level 3, hash-source).
pub(super) fn source(text: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text.as_bytes())))
}

/// JSON that cannot end the script element that it lies in.
pub(super) fn script_safe(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

#[cfg(test)]
pub(super) fn unpacked(packed: &str) -> String {
    use std::io::Read as _;
    let bytes = STANDARD.decode(packed).expect("base64");
    let mut text = String::new();
    flate2::read::DeflateDecoder::new(bytes.as_slice()).read_to_string(&mut text).expect("deflate");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_back_and_is_plain_letters() {
        let text = "</script><!-- \u{202e} ".repeat(1000);
        let small = packed(&text);
        assert!(small.len() < text.len() / 20, "{}", small.len());
        assert!(small.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')));
        assert_eq!(unpacked(&small), text);
    }

    #[test]
    fn a_digest_is_what_browsers_compute() {
        // The example of CSP level 3: the digest of alert('Hello, world.');
        assert_eq!(
            source("alert('Hello, world.');"),
            "'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng='"
        );
    }
}
