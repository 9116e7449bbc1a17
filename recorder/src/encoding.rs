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
            "zstd" => read_bounded(
                zstd::stream::read::Decoder::new(&body[..]).map_err(|error| error.to_string())?,
                bound,
            )?,
            other => return Err(format!("its encoding {other:?} cannot be read")),
        };
    }
    Ok(body)
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
