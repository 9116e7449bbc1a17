//! Embedding of texts: batching, and the windows of long texts.

use std::collections::HashMap;
use std::ops::Range;

use pulp::Arch;
use rayon::prelude::*;

use crate::model::sums_of_states;
use crate::tokenizer::Tokenizer;
use crate::weights::{HIDDEN, POSITIONS, Row, Weights};

/// Length of a vector.
pub const DIMENSIONS: usize = HIDDEN;

/// Name of the model with the first digits of the SHA-256 of its weights. Vectors of different names are not comparable.
pub const MODEL: &str = "all-MiniLM-L6-v2/int8-4ce3269b";

/// Word pieces of a text per window: the 256 positions of the training, less `[CLS]` and `[SEP]`.
pub const WINDOW: usize = POSITIONS - 2;

/// A vector of Euclidean length 1. The dot product of two is their cosine, from -1 to 1.
pub type Vector = [f32; DIMENSIONS];

/// Word piece `[CLS]`.
const CLS: u16 = 101;
/// Word piece `[SEP]`.
const SEP: u16 = 102;

/// Word pieces per batch: enough to amortise the dequantisation of the weights, few enough to stay in cache.
const BATCH: usize = 384;

/// Smallest batch, when there are more threads than full batches.
const MIN_BATCH: usize = 48;

/// The model. Loading takes a few milliseconds; threads may share one.
#[derive(Debug)]
pub struct Embedder {
    tokenizer: Tokenizer,
    weights: Weights,
}

/// A window: the index of its text and a range of the text's word pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Window {
    text: usize,
    pieces: Range<usize>,
}

impl Default for Embedder {
    fn default() -> Self {
        Self::new()
    }
}

impl Embedder {
    /// Loads the compiled-in model.
    #[must_use]
    pub fn new() -> Self {
        Self { tokenizer: Tokenizer::compiled_in(), weights: Weights::compiled_in() }
    }

    /// Embeds texts: one vector for each, in the order of the texts. Repeated texts are embedded once.
    ///
    /// A text of more than [`WINDOW`] (254) word pieces is not truncated. It is split into the fewest windows, equal in
    /// size up to one piece. Each window passes the model by itself. The vector is the mean of the hidden states over
    /// the pieces of all windows, `[CLS]` and `[SEP]` of each included, normalised to length 1. Meaning that spans two
    /// windows is lost. Time and memory grow linearly with the text.
    ///
    /// An empty text has a vector too, equal to that of white space and control characters. The name of a special piece
    /// in a text, such as `[SEP]`, is tokenized as that piece, as in the model's own tokenizer.
    ///
    /// Runs on rayon's current thread pool.
    #[must_use]
    pub fn embed(&self, texts: &[&str]) -> Vec<Vector> {
        let (distinct, indexes) = distinct(texts);
        let vectors = self.embed_distinct(&distinct);
        indexes.into_iter().map(|index| vectors[index]).collect()
    }

    /// Counts the word pieces of a text; more than [`WINDOW`] need several windows.
    #[must_use]
    pub fn word_pieces(&self, text: &str) -> usize {
        self.tokenizer.pieces(text).len()
    }

    fn embed_distinct(&self, texts: &[&str]) -> Vec<Vector> {
        let pieces: Vec<Vec<u16>> = texts.par_iter().map(|text| self.tokenizer.pieces(text)).collect();
        let windows: Vec<Window> =
            pieces.iter().enumerate().flat_map(|(text, pieces)| windows(text, pieces.len())).collect();
        let total: usize = windows.iter().map(Window::size).sum();
        let most = (total / (4 * rayon::current_num_threads())).clamp(MIN_BATCH, BATCH);
        let sums: Vec<Vec<Row>> =
            batches(&windows, most).into_par_iter().map(|batch| self.sums(batch, &pieces)).collect();
        let mut means = vec![[0.0; DIMENSIONS]; texts.len()];
        for (window, sum) in windows.iter().zip(sums.iter().flatten()) {
            for (mean, x) in means[window.text].iter_mut().zip(sum) {
                *mean += f64::from(*x);
            }
        }
        means.iter().map(unit).collect()
    }

    fn sums(&self, windows: &[Window], pieces: &[Vec<u16>]) -> Vec<Row> {
        let add_markers = |window: &Window| {
            let mut framed = Vec::with_capacity(window.size());
            framed.push(CLS);
            framed.extend_from_slice(&pieces[window.text][window.pieces.clone()]);
            framed.push(SEP);
            framed
        };
        let framed: Vec<Vec<u16>> = windows.iter().map(add_markers).collect();
        let framed: Vec<&[u16]> = framed.iter().map(Vec::as_slice).collect();
        sums_of_states(Arch::new(), &self.weights, &framed)
    }
}

impl Window {
    /// Word pieces with `[CLS]` and `[SEP]`.
    fn size(&self) -> usize {
        self.pieces.len() + 2
    }
}

/// The distinct texts in the order of their first occurrence, and for each text its index among them.
fn distinct<'a>(texts: &[&'a str]) -> (Vec<&'a str>, Vec<usize>) {
    let mut known = HashMap::new();
    let mut first = Vec::new();
    let mut indexes = Vec::with_capacity(texts.len());
    for text in texts {
        indexes.push(*known.entry(*text).or_insert_with(|| {
            first.push(*text);
            first.len() - 1
        }));
    }
    (first, indexes)
}

/// Splits a number of word pieces into the fewest windows, equal in size up to one piece; one window for none.
fn windows(text: usize, pieces: usize) -> impl Iterator<Item = Window> {
    let count = pieces.div_ceil(WINDOW).max(1);
    let bound = move |number: usize| pieces * number / count;
    (0..count).map(move |number| Window { text, pieces: bound(number)..bound(number + 1) })
}

/// Splits the windows into batches of at most `most` word pieces; a longer window is a batch by itself.
fn batches(windows: &[Window], most: usize) -> Vec<&[Window]> {
    let mut batches = Vec::new();
    let (mut start, mut size) = (0, 0);
    for (number, window) in windows.iter().enumerate() {
        if size + window.size() > most && number > start {
            batches.push(&windows[start..number]);
            (start, size) = (number, 0);
        }
        size += window.size();
    }
    batches.push(&windows[start..]);
    batches
}

/// Normalises a sum to length 1. The sum is never zero: the last layer normalisation adds a bias to every state.
fn unit(sum: &[f64; DIMENSIONS]) -> Vector {
    let length = sum.iter().map(|x| x * x).sum::<f64>().sqrt();
    #[expect(clippy::cast_possible_truncation, reason = "a vector's numbers are f32, rounded once")]
    sum.map(|x| (x / length) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_few_and_equal_and_cover_all_pieces() {
        for pieces in [0, 1, 253, 254, 255, 508, 509, 1000, 250_000] {
            let cut: Vec<Range<usize>> = windows(0, pieces).map(|window| window.pieces).collect();
            assert_eq!(cut.len(), pieces.div_ceil(WINDOW).max(1));
            assert_eq!((cut[0].start, cut[cut.len() - 1].end), (0, pieces));
            assert!(cut.windows(2).all(|pair| pair[0].end == pair[1].start));
            let (least, most) = (cut.iter().map(Range::len).min(), cut.iter().map(Range::len).max());
            assert!(most <= least.map(|least| least + 1) && most <= Some(WINDOW), "{least:?} {most:?}");
        }
    }

    #[test]
    fn batches_contain_every_window_once() {
        let all: Vec<Window> =
            [3, 254, 20, 20, 7, 254, 254, 0].into_iter().flat_map(|n| windows(n, n)).collect();
        for most in [1, 48, 100, 384, 10_000] {
            let cut = batches(&all, most);
            assert_eq!(cut.concat(), all);
            for batch in cut {
                assert!(batch.len() == 1 || batch.iter().map(Window::size).sum::<usize>() <= most);
            }
        }
        assert_eq!(batches(&[], 48).concat(), []);
    }

    #[test]
    fn repeated_texts_are_embedded_once() {
        let (first, indexes) = distinct(&["b", "a", "b", "", "a"]);
        assert_eq!((first, indexes), (vec!["b", "a", ""], vec![0, 1, 0, 2, 1]));
    }
}
