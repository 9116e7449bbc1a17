//! Decompresses bodies by their `content-encoding`.
//!
//! A compressed body could hide a secret, so the recorder does not store a body that it cannot decompress. The
//! forwarded bytes stay compressed.

use hyper::HeaderMap;
use hyper::header::CONTENT_ENCODING;

use super::memory::EncodeMemory;

/// Encodings of one body that are undone; more are no use to anybody.
const MAX_ENCODINGS: usize = 4;

/// Bytes that are decompressed at a time.
const PART_BYTES: usize = 16 * 1024;

/// Largest result that is read once.
const FIRST_BYTES: usize = 1 << 20;

/// Largest window of zstd, as a power of two: 8 MiB.
const MAX_WINDOW_LOG: u32 = 23;

/// Decompresses a body to at most `limits.unpacked-bytes`. A truncated body gives its readable beginning.
///
/// # Errors
/// The encoding is unknown, the body is not in it, or the result is larger than its bound or than the memory left.
pub(super) fn decompress(
    headers: &HeaderMap,
    body: Vec<u8>,
    memory: &mut EncodeMemory<'_>,
) -> Result<Vec<u8>, String> {
    let mut body = body;
    let listed = headers.get_all(CONTENT_ENCODING).iter().map(|value| value.to_str().unwrap_or("?"));
    let listed = listed.collect::<Vec<_>>().join(",").to_ascii_lowercase();
    let encodings: Vec<&str> = listed.split(',').map(str::trim).filter(|one| !one.is_empty()).collect();
    if encodings.len() > MAX_ENCODINGS {
        return Err(format!("it has {} encodings, at most {MAX_ENCODINGS} are undone", encodings.len()));
    }
    // The server applied the last encoding last.
    for encoding in encodings.into_iter().rev() {
        if body.is_empty() {
            break;
        }
        let input = &body[..];
        body = match encoding {
            "identity" => body,
            "gzip" | "x-gzip" => read_bounded(|| Ok(flate2::read::MultiGzDecoder::new(input)), memory)?,
            "deflate" => inflate(input, memory)?,
            "br" => read_bounded(|| Ok(brotli_decompressor::Decompressor::new(input, 16 * 1024)), memory)?,
            "zstd" => read_bounded(|| unzstd(input), memory)?,
            other => return Err(format!("content-encoding {other:?} is not supported")),
        };
    }
    Ok(body)
}

/// `deflate` means zlib (RFC 9110, section 8.4.1.2), but some servers send raw deflate data.
fn inflate(body: &[u8], memory: &mut EncodeMemory<'_>) -> Result<Vec<u8>, String> {
    let zlib = read_bounded(|| Ok(flate2::read::ZlibDecoder::new(body)), memory);
    zlib.or_else(|_| read_bounded(|| Ok(flate2::read::DeflateDecoder::new(body)), memory))
}

fn unzstd(body: &[u8]) -> std::io::Result<impl std::io::Read> {
    let mut decoder = zstd::stream::read::Decoder::new(body)?;
    // RFC 9659: a content coding needs no larger window.
    decoder.window_log_max(MAX_WINDOW_LOG)?;
    Ok(decoder)
}

/// Reads a result into a buffer of its exact length. A result of more than [`FIRST_BYTES`] is read twice, first for its length
/// alone: a buffer that grows leaves its predecessors to the allocator, and they count as memory of the process.
fn read_bounded<R: std::io::Read>(
    open: impl Fn() -> std::io::Result<R>,
    memory: &mut EncodeMemory<'_>,
) -> Result<Vec<u8>, String> {
    let bound = memory.unpacked_bytes();
    let unreadable = |error: std::io::Error| format!("it cannot be decompressed ({error})");
    let (mut start, mut length) = (Vec::new(), 0);
    let mut part = [0; PART_BYTES];
    let mut reader = open().map_err(unreadable)?;
    loop {
        match reader.read(&mut part) {
            Ok(0) => break,
            Ok(count) if length + count > bound => {
                return Err(format!("it decompresses to more than {bound} bytes (limits.unpacked-bytes)"));
            }
            Ok(count) => {
                length += count;
                if length <= FIRST_BYTES {
                    start.extend_from_slice(&part[..count]);
                }
            }
            Err(error) if length == 0 => return Err(unreadable(error)),
            // Truncated in transit: the client got this beginning too.
            Err(_) => break,
        }
    }
    drop(reader);
    memory.charge(length)?;
    if length <= FIRST_BYTES {
        return Ok(start);
    }
    drop(start);
    let mut out = Vec::with_capacity(length);
    let mut reader = open().map_err(unreadable)?;
    while out.len() < length {
        match reader.read(&mut part) {
            Ok(0) | Err(_) => break,
            Ok(count) => out.extend_from_slice(&part[..count.min(length - out.len())]),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;
    use crate::capture::accounts::CaptureAccounts;

    /// Decompresses a body with this encoding where `limits.unpacked-bytes` and `limits.memory-bytes` are these.
    fn decompress_within(
        encoding: &str,
        body: Vec<u8>,
        unpacked: u64,
        memory: u64,
    ) -> Result<Vec<u8>, String> {
        let headers = HeaderMap::from_iter([(CONTENT_ENCODING, encoding.parse().expect("value"))]);
        let accounts = CaptureAccounts::for_tests(unpacked, memory);
        let result = decompress(&headers, body, &mut EncodeMemory::new(&accounts));
        assert_eq!(accounts.buffered(), 0, "all memory is given back");
        result
    }

    fn decompressed(encoding: &str, body: Vec<u8>, unpacked: u64) -> Result<Vec<u8>, String> {
        decompress_within(encoding, body, unpacked, 1 << 30)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text).expect("memory");
        encoder.finish().expect("memory")
    }

    #[test]
    fn decompresses_common_encodings() {
        let text = b"some text, some text, some text".to_vec();
        assert_eq!(decompressed("gzip", gzip(&text), 100), Ok(text.clone()));
        assert_eq!(decompressed("GZIP, gzip", gzip(&gzip(&text)), 100), Ok(text.clone()));
        let zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        let bare = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        let (mut zlib, mut bare) = (zlib, bare);
        zlib.write_all(&text).and_then(|()| bare.write_all(&text)).expect("memory");
        assert_eq!(decompressed("deflate", zlib.finish().expect("memory"), 100), Ok(text.clone()));
        assert_eq!(decompressed("deflate", bare.finish().expect("memory"), 100), Ok(text.clone()));
        let zstd = zstd::stream::encode_all(&text[..], 1).expect("memory");
        assert_eq!(decompressed("zstd", zstd, 100), Ok(text.clone()));
        // From the reference encoder: the text above at quality 5.
        let brotli = hex::decode("1b1e0000c4636c5d7df79a321862a808b2b1307d04").expect("hexadecimal digits");
        assert_eq!(decompressed("br", brotli, 100), Ok(text));
    }

    #[test]
    fn refuses_unknown_encodings_and_large_results() {
        assert!(decompressed("dcb", b"x".to_vec(), 100).is_err());
        assert!(decompressed("gzip", b"not compressed".to_vec(), 100).is_err());
        assert!(
            decompressed("gzip", gzip(&[b'a'; 5000]), 100)
                .is_err_and(|detail| detail.contains("more than 100"))
        );
        let cut = gzip(&(0..=255).cycle().take(3000).collect::<Vec<u8>>());
        assert!(decompressed("gzip", cut[..cut.len() - 9].to_vec(), 5000).is_ok_and(|body| !body.is_empty()));
    }

    #[test]
    fn a_result_past_the_memory_is_refused_and_a_long_one_is_complete() {
        let long: Vec<u8> = (0..3 << 20).map(|number: u32| (number % 251) as u8).collect();
        assert_eq!(decompress_within("gzip", gzip(&long), 4 << 20, 4 << 20), Ok(long.clone()));
        let refused = decompress_within("gzip", gzip(&long), 4 << 20, 2 << 20);
        assert!(refused.is_err_and(|detail| detail.contains("limits.memory-bytes")));
        assert!(
            decompressed(&["gzip"; 5].join(","), gzip(&long), 4 << 20)
                .is_err_and(|detail| detail.contains("5 encodings"))
        );
    }

    proptest! {
        #[test]
        fn never_panics(body in proptest::collection::vec(any::<u8>(), 0..200), encoding in prop_oneof!["gzip", "deflate", "br", "zstd"]) {
            let _ = decompressed(&encoding, body, 1000);
        }
    }
}
