//! How many bytes of bodies go into one page.
//!
//! Pages are compressed apart, so all of them are smaller where each is larger; but a look-up reads whole pages, as they lie
//! in the file. So it is the compressed page whose size is chosen, and a sample says how much text comes to that: bodies that
//! repeat one another (an agent's sessions on one subject: to a twentieth) go into large pages, others into small ones.

/// Bytes of text in a page at most: a look-up decompresses all of it.
const MAX_PAGE_BYTES: usize = 8 << 20;

/// Bytes of text that are compressed to see what they come to.
const SAMPLE_BYTES: usize = 512 << 10;

/// The sample is taken from so many places.
const SAMPLE_RUNS: usize = 8;

/// Bytes that it takes from each.
const RUN_BYTES: usize = SAMPLE_BYTES / SAMPLE_RUNS;

/// zstd level of the sample: the quickest. The levels of the pages shrink a text somewhat more.
const SAMPLE_LEVEL: i32 = 1;

/// Bytes of text in a page, so that it takes about `compressed` bytes in the file.
pub(super) fn page_bytes<'a>(texts: impl Iterator<Item = &'a [u8]> + Clone, compressed: usize) -> usize {
    let sample = sample(texts);
    if sample.len() <= compressed {
        return MAX_PAGE_BYTES;
    }
    // Where it cannot be compressed (which only a lack of memory explains), as if it did not shrink.
    let small = zstd::bulk::compress(&sample, SAMPLE_LEVEL).map_or(sample.len(), |small| small.len());
    (compressed.saturating_mul(sample.len()) / small.max(1)).clamp(compressed, MAX_PAGE_BYTES)
}

/// Up to [`SAMPLE_BYTES`] of the texts, in runs that lie evenly over all of them.
fn sample<'a>(texts: impl Iterator<Item = &'a [u8]> + Clone) -> Vec<u8> {
    let total: usize = texts.clone().map(<[u8]>::len).sum();
    // Of little text the runs touch, and all of it is taken.
    let stride = (total / SAMPLE_RUNS).max(RUN_BYTES);
    let mut sample = Vec::with_capacity(total.min(SAMPLE_BYTES));
    let mut begin = 0;
    for text in texts {
        // What of the text lies in a run; a long one may lie in several.
        let mut at = begin;
        let end = begin + text.len();
        while at < end {
            let run_begin = at / stride * stride;
            let run_end = end.min(run_begin + RUN_BYTES);
            if at < run_end {
                sample.extend_from_slice(text.get(at - begin..run_end - begin).unwrap_or_default());
            }
            at = end.min(run_begin + stride);
        }
        begin = end;
    }
    sample.truncate(SAMPLE_BYTES);
    sample
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPRESSED: usize = 384 << 10;

    /// Bytes that no compressor shrinks.
    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    fn of(texts: &[Vec<u8>]) -> usize {
        page_bytes(texts.iter().map(Vec::as_slice), COMPRESSED)
    }

    #[test]
    fn a_page_holds_what_comes_to_its_compressed_size() {
        assert_eq!(of(&[]), MAX_PAGE_BYTES);
        assert_eq!(of(&[noise(1000)]), MAX_PAGE_BYTES, "less than a page is one page");
        assert_eq!(of(&[vec![7; 40 << 20]]), MAX_PAGE_BYTES);
        assert_eq!(of(&[noise(3 << 20)]), COMPRESSED);
        // Digits say less than half of what bytes can.
        let digits = hex::encode(noise(2 << 20)).into_bytes();
        let page = of(&digits.chunks(1000).map(<[u8]>::to_vec).collect::<Vec<_>>());
        assert!((COMPRESSED * 19 / 10..COMPRESSED * 2).contains(&page), "{page}");
        // What begins like nothing and goes on in one tone is seen as both.
        let page = of(&[noise(8 << 20), vec![7; 8 << 20]]);
        assert!((COMPRESSED * 19 / 10..COMPRESSED * 21 / 10).contains(&page), "{page}");
    }

    #[test]
    fn a_sample_is_taken_evenly() {
        let bytes = noise(5 << 20);
        let stride = bytes.len() / SAMPLE_RUNS;
        let expected: Vec<u8> = bytes.chunks(stride).flat_map(|chunk| &chunk[..RUN_BYTES]).copied().collect();
        for size in [1, 999, RUN_BYTES, stride - 1, stride, stride + 1, bytes.len()] {
            assert!(sample(bytes.chunks(size)) == expected, "in texts of {size} bytes");
        }
        assert_eq!(sample(bytes[..SAMPLE_BYTES].chunks(100)), bytes[..SAMPLE_BYTES]);
    }
}
