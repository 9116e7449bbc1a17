//! Decompresses bodies by their `content-encoding`.
//!
//! A compressed body could hide a secret, so the recorder does not store a body that it cannot decompress. The
//! forwarded bytes stay compressed.

use std::io::Read as _;

use hyper::HeaderMap;
use hyper::header::CONTENT_ENCODING;

/// Decompresses a body to at most `bound` bytes. A truncated body gives its readable beginning.
///
/// # Errors
/// The encoding is unknown, the body is not in it, or the result is larger than `bound`.
pub(super) fn decompress(headers: &HeaderMap, body: Vec<u8>, bound: usize) -> Result<Vec<u8>, String> {
    let mut body = body;
    let listed = headers.get_all(CONTENT_ENCODING).iter().map(|value| value.to_str().unwrap_or("?"));
    let listed = listed.collect::<Vec<_>>().join(",").to_ascii_lowercase();
    // The server applied the last encoding last.
    for encoding in listed.split(',').rev().map(str::trim).filter(|encoding| !encoding.is_empty()) {
        if body.is_empty() {
            break;
        }
        body = match encoding {
            "identity" => body,
            "gzip" | "x-gzip" => read_bounded(flate2::read::MultiGzDecoder::new(&body[..]), bound)?,
            "deflate" => inflate(&body, bound)?,
            "br" => read_bounded(brotli_decompressor::Decompressor::new(&body[..], 16 * 1024), bound)?,
            "zstd" => {
                let decoder =
                    zstd::stream::read::Decoder::new(&body[..]).map_err(|error| error.to_string())?;
                read_bounded(decoder, bound)?
            }
            other => return Err(format!("content-encoding {other:?} is not supported")),
        };
    }
    Ok(body)
}

/// `deflate` means zlib (RFC 9110, section 8.4.1.2), but some servers send raw deflate data.
fn inflate(body: &[u8], bound: usize) -> Result<Vec<u8>, String> {
    let zlib = read_bounded(flate2::read::ZlibDecoder::new(body), bound);
    zlib.or_else(|_| read_bounded(flate2::read::DeflateDecoder::new(body), bound))
}

fn read_bounded(reader: impl std::io::Read, bound: usize) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut reader = reader.take(bound as u64 + 1);
    let mut part = [0; 16 * 1024];
    loop {
        match reader.read(&mut part) {
            Ok(0) => break,
            Ok(count) => out.extend_from_slice(&part[..count]),
            Err(error) if out.is_empty() => return Err(format!("it cannot be decompressed ({error})")),
            // Truncated in transit: the client got this beginning too.
            Err(_) => break,
        }
    }
    if out.len() > bound { Err(format!("it decompresses to more than {bound} bytes")) } else { Ok(out) }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn headers(encoding: &str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_ENCODING, encoding.parse().expect("value"))])
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text).expect("memory");
        encoder.finish().expect("memory")
    }

    #[test]
    fn decompresses_common_encodings() {
        let text = b"some text, some text, some text".to_vec();
        assert_eq!(decompress(&headers("gzip"), gzip(&text), 100), Ok(text.clone()));
        assert_eq!(decompress(&headers("GZIP, gzip"), gzip(&gzip(&text)), 100), Ok(text.clone()));
        let zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        let bare = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        let (mut zlib, mut bare) = (zlib, bare);
        zlib.write_all(&text).and_then(|()| bare.write_all(&text)).expect("memory");
        assert_eq!(decompress(&headers("deflate"), zlib.finish().expect("memory"), 100), Ok(text.clone()));
        assert_eq!(decompress(&headers("deflate"), bare.finish().expect("memory"), 100), Ok(text.clone()));
        let zstd = zstd::stream::encode_all(&text[..], 1).expect("memory");
        assert_eq!(decompress(&headers("zstd"), zstd, 100), Ok(text.clone()));
        // From the reference encoder: the text above at quality 5.
        let brotli = hex::decode("1b1e0000c4636c5d7df79a321862a808b2b1307d04").expect("hexadecimal digits");
        assert_eq!(decompress(&headers("br"), brotli, 100), Ok(text));
    }

    #[test]
    fn refuses_unknown_encodings_and_large_results() {
        assert!(decompress(&headers("dcb"), b"x".to_vec(), 100).is_err());
        assert!(decompress(&headers("gzip"), b"not compressed".to_vec(), 100).is_err());
        assert!(
            decompress(&headers("gzip"), gzip(&[b'a'; 5000]), 100)
                .is_err_and(|detail| detail.contains("more than 100"))
        );
        let cut = gzip(&(0..=255).cycle().take(3000).collect::<Vec<u8>>());
        assert!(
            decompress(&headers("gzip"), cut[..cut.len() - 9].to_vec(), 5000)
                .is_ok_and(|body| !body.is_empty())
        );
    }

    proptest! {
        #[test]
        fn never_panics(body in proptest::collection::vec(any::<u8>(), 0..200), encoding in prop_oneof!["gzip", "deflate", "br", "zstd"]) {
            let _ = decompress(&headers(&encoding), body, 1000);
        }
    }
}
