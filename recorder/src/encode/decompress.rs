//! Bodies that were packed for the wire (`content-encoding`), unpacked for the record.
//!
//! A packed body could hide a secret, so one that cannot be unpacked is not stored. What is forwarded stays packed.

use std::io::Read as _;

use hyper::HeaderMap;
use hyper::header::CONTENT_ENCODING;

/// The body as it was before it was packed, at most `bound` bytes of it.
///
/// A body that was cut off gives what can be read of it.
///
/// # Errors
/// The encoding is not known, or the body is not in it, or it grows past the bound.
pub(crate) fn unpack(headers: &HeaderMap, body: Vec<u8>, bound: usize) -> Result<Vec<u8>, String> {
    let mut body = body;
    let listed = headers.get_all(CONTENT_ENCODING).iter().map(|value| value.to_str().unwrap_or("?"));
    let listed = listed.collect::<Vec<_>>().join(",").to_ascii_lowercase();
    // The last one was applied last.
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
            other => return Err(format!("its encoding {other:?} cannot be read")),
        };
    }
    Ok(body)
}

/// `deflate` means zlib (RFC 9110, section 8.4.1.2), but some servers send the bare form.
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
            Err(error) if out.is_empty() => return Err(format!("it cannot be unpacked ({error})")),
            // Cut off on its way: what came before is what the client had too.
            Err(_) => break,
        }
    }
    if out.len() > bound { Err(format!("it unpacks to more than {bound} bytes")) } else { Ok(out) }
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
    fn unpacks_what_is_common() {
        let text = b"some text, some text, some text".to_vec();
        assert_eq!(unpack(&headers("gzip"), gzip(&text), 100), Ok(text.clone()));
        assert_eq!(unpack(&headers("GZIP, gzip"), gzip(&gzip(&text)), 100), Ok(text.clone()));
        let zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        let bare = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        let (mut zlib, mut bare) = (zlib, bare);
        zlib.write_all(&text).and_then(|()| bare.write_all(&text)).expect("memory");
        assert_eq!(unpack(&headers("deflate"), zlib.finish().expect("memory"), 100), Ok(text.clone()));
        assert_eq!(unpack(&headers("deflate"), bare.finish().expect("memory"), 100), Ok(text.clone()));
        let zstd = zstd::stream::encode_all(&text[..], 1).expect("memory");
        assert_eq!(unpack(&headers("zstd"), zstd, 100), Ok(text.clone()));
        // Written by the reference encoder: quality 5, the text above.
        let brotli = hex::decode("1b1e0000c4636c5d7df79a321862a808b2b1307d04").expect("hexadecimal digits");
        assert_eq!(unpack(&headers("br"), brotli, 100), Ok(text));
    }

    #[test]
    fn refuses_what_it_cannot_see_through() {
        assert!(unpack(&headers("dcb"), b"x".to_vec(), 100).is_err());
        assert!(unpack(&headers("gzip"), b"not packed".to_vec(), 100).is_err());
        assert!(
            unpack(&headers("gzip"), gzip(&[b'a'; 5000]), 100)
                .is_err_and(|detail| detail.contains("more than 100"))
        );
        let cut = gzip(&(0..=255).cycle().take(3000).collect::<Vec<u8>>());
        assert!(
            unpack(&headers("gzip"), cut[..cut.len() - 9].to_vec(), 5000).is_ok_and(|body| !body.is_empty())
        );
    }

    proptest! {
        #[test]
        fn never_panics(body in proptest::collection::vec(any::<u8>(), 0..200), encoding in prop_oneof!["gzip", "deflate", "br", "zstd"]) {
            let _ = unpack(&headers(&encoding), body, 1000);
        }
    }
}
