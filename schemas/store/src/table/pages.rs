//! The page size of bodies.
//!
//! Pages are compressed separately, so larger pages make a smaller file; but a point lookup reads entire compressed pages. So
//! the compressed size of a page is fixed, and a sample estimates how much text it takes: repetitive bodies (an agent's sessions
//! on one subject shrink to a twentieth) go into large pages, others into small ones.

/// Maximum bytes of text in a page; a point lookup decompresses all of them.
const MAX_PAGE_BYTES: usize = 8 << 20;

/// Bytes of text in the sample.
const SAMPLE_BYTES: usize = 512 << 10;

/// Runs of the sample, spread evenly over the text.
const SAMPLE_RUNS: usize = 8;

/// Bytes of one run.
const RUN_BYTES: usize = SAMPLE_BYTES / SAMPLE_RUNS;

/// zstd level of the sample: the fastest. The levels of the pages compress somewhat better.
const SAMPLE_LEVEL: i32 = 1;

/// Estimates the bytes of text that compress to about `compressed` bytes.
pub(super) fn page_bytes<'a>(texts: impl Iterator<Item = &'a [u8]> + Clone, compressed: usize) -> usize {
    let sample = sample(texts);
    if sample.len() <= compressed {
        return MAX_PAGE_BYTES;
    }
    // A failed compression (out of memory) counts as no compression.
    let small = zstd::bulk::compress(&sample, SAMPLE_LEVEL).map_or(sample.len(), |small| small.len());
    (compressed.saturating_mul(sample.len()) / small.max(1)).clamp(compressed, MAX_PAGE_BYTES)
}

/// Up to [`SAMPLE_BYTES`] of the texts, in runs that are spread evenly over all of them.
fn sample<'a>(texts: impl Iterator<Item = &'a [u8]> + Clone) -> Vec<u8> {
    let total: usize = texts.clone().map(<[u8]>::len).sum();
    // The runs of a short text touch, so the sample is all of it.
    let stride = (total / SAMPLE_RUNS).max(RUN_BYTES);
    let mut sample = Vec::with_capacity(total.min(SAMPLE_BYTES));
    let mut begin = 0;
    for text in texts {
        // Copies the parts of the text that are in a run; a long text may overlap several.
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

    /// Incompressible bytes.
    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    fn of(texts: &[Vec<u8>]) -> usize {
        page_bytes(texts.iter().map(Vec::as_slice), COMPRESSED)
    }

    #[test]
    fn a_page_compresses_to_the_requested_size() {
        assert_eq!(of(&[]), MAX_PAGE_BYTES);
        assert_eq!(of(&[noise(1000)]), MAX_PAGE_BYTES, "less than a page is one page");
        assert_eq!(of(&[vec![7; 40 << 20]]), MAX_PAGE_BYTES);
        assert_eq!(of(&[noise(3 << 20)]), COMPRESSED);
        // Hexadecimal digits compress to a little more than half.
        let digits = hex::encode(noise(2 << 20)).into_bytes();
        let page = of(&digits.chunks(1000).map(<[u8]>::to_vec).collect::<Vec<_>>());
        assert!((COMPRESSED * 19 / 10..COMPRESSED * 2).contains(&page), "{page}");
        // Half noise and half constant bytes: the sample has both.
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
