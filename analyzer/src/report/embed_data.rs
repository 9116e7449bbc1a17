//! Data inside the page: compressed text, JSON, and the digests that allow inline scripts and styles.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::DeflateEncoder;
use sha2::{Digest as _, Sha256};

/// Raw DEFLATE (RFC 1951) in base64. No character of it can end the element that holds it.
pub(super) fn compressed(text: &str) -> String {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text.as_bytes()).expect("writing to a vector never fails");
    STANDARD.encode(encoder.finish().expect("writing to a vector never fails"))
}

/// The hash source of an inline script or style in a content security policy (CSP level 3).
pub(super) fn csp_hash(text: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text.as_bytes())))
}

/// JSON that cannot end the script element that holds it.
pub(super) fn json_for_script(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

#[cfg(test)]
pub(super) fn decompressed(compressed: &str) -> String {
    use std::io::Read as _;
    let bytes = STANDARD.decode(compressed).expect("base64");
    let mut text = String::new();
    flate2::read::DeflateDecoder::new(bytes.as_slice()).read_to_string(&mut text).expect("deflate");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressed_text_is_base64_and_decompresses_to_itself() {
        let text = "</script><!-- \u{202e} ".repeat(1000);
        let small = compressed(&text);
        assert!(small.len() < text.len() / 20, "{}", small.len());
        assert!(small.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')));
        assert_eq!(decompressed(&small), text);
    }

    #[test]
    fn csp_hashes_are_those_that_browsers_compute() {
        // The example of CSP level 3: the digest of alert('Hello, world.');
        assert_eq!(
            csp_hash("alert('Hello, world.');"),
            "'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng='"
        );
    }
}
