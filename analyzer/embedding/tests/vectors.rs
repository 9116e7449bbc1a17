//! Vectors compared with the fp32 model, and their independence of batch, order and threads.

use embedding::{DIMENSIONS, Embedder, Vector, WINDOW};
use proptest::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Sample {
    text: String,
}

/// The 200 texts of `reference/make_sample`.
fn texts() -> Vec<String> {
    let lines = include_str!("../reference/sample.jsonl").lines();
    lines.map(|line| serde_json::from_str::<Sample>(line).expect("a line is a sample").text).collect()
}

/// The fp32 model's vectors of these texts.
fn full_model() -> Vec<[f64; DIMENSIONS]> {
    let (numbers, _) = include_bytes!("../reference/sample.i16").as_chunks();
    let numbers: Vec<f64> = numbers.iter().map(|bytes| f64::from(i16::from_le_bytes(*bytes))).collect();
    numbers.as_chunks().0.to_vec()
}

fn borrowed(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

fn cosine(a: &Vector, b: &[f64; DIMENSIONS]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let a = a.map(f64::from);
    dot(&a, b) / (dot(&a, &a) * dot(b, b)).sqrt()
}

fn bits(vectors: &[Vector]) -> Vec<[u32; DIMENSIONS]> {
    vectors.iter().map(|vector| vector.map(f32::to_bits)).collect()
}

#[test]
fn the_cosine_to_the_fp32_model_is_at_least_0_998() {
    let (texts, full) = (texts(), full_model());
    assert_eq!((texts.len(), full.len()), (200, 200));
    let vectors = Embedder::new().embed(&borrowed(&texts));
    for ((text, vector), full) in texts.iter().zip(&vectors).zip(&full) {
        let cosine = cosine(vector, full);
        assert!(cosine >= 0.998, "cosine {cosine} for {text:?}");
        let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
        assert!((length - 1.0).abs() < 1e-6, "length {length} for {text:?}");
    }
}

#[test]
fn a_vector_depends_on_its_text_only() {
    let texts: Vec<String> = texts().into_iter().step_by(3).collect();
    let embedder = Embedder::new();
    let together = bits(&embedder.embed(&borrowed(&texts)));
    let alone: Vec<[u32; DIMENSIONS]> =
        texts.iter().flat_map(|text| bits(&embedder.embed(&[text.as_str()]))).collect();
    assert!(alone == together, "alone differs from together");
    let mut reversed = borrowed(&texts);
    reversed.reverse();
    reversed.extend_from_within(..20);
    let mut reversed = bits(&embedder.embed(&reversed));
    reversed.truncate(texts.len());
    reversed.reverse();
    assert!(reversed == together, "reversed with repetitions differs");
    for threads in [1, 2, 7] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads start");
        assert!(pool.install(|| bits(&embedder.embed(&borrowed(&texts)))) == together, "{threads} threads");
    }
}

#[test]
fn the_end_of_a_long_text_changes_the_vector() {
    let embedder = Embedder::new();
    let long = "The parcel was handed to the neighbour at the door. ".repeat(60);
    let other = format!("{long} We have cancelled the order and refunded the whole price.");
    assert!(embedder.word_pieces(&long) > 2 * WINDOW);
    let vectors = embedder.embed(&[&long, &other, "The parcel was handed to the neighbour at the door."]);
    let similarity = |a: usize, b: usize| cosine(&vectors[a], &vectors[b].map(f64::from));
    assert!(similarity(0, 1) < 0.9999, "the last sentence changes nothing: {}", similarity(0, 1));
    assert!(similarity(0, 1) > 0.9 && similarity(0, 2) > 0.5, "{} {}", similarity(0, 1), similarity(0, 2));
}

#[test]
fn similar_texts_have_a_larger_cosine() {
    let texts =
        ["The cat sat on the mat.", "A feline was resting on a rug.", "Quarterly revenue rose by 3%."];
    let vectors = Embedder::new().embed(&texts);
    let similarity = |a: usize, b: usize| cosine(&vectors[a], &vectors[b].map(f64::from));
    assert!(similarity(0, 1) > 0.4 && similarity(0, 2) < 0.2, "{} {}", similarity(0, 1), similarity(0, 2));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn every_text_has_a_unit_vector(texts in prop::collection::vec(any::<String>(), 1..24)) {
        let vectors = Embedder::new().embed(&borrowed(&texts));
        prop_assert_eq!(vectors.len(), texts.len());
        for (vector, text) in vectors.iter().zip(&texts) {
            let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
            prop_assert!((length - 1.0).abs() < 1e-6, "length {} for {:?}", length, text);
        }
    }
}

#[test]
fn texts_without_words_are_embedded() {
    let embedder = Embedder::new();
    assert!(embedder.embed(&[]).is_empty());
    let vectors = embedder.embed(&["", " \n", "\0\u{7}"]);
    assert!(vectors[0].iter().all(|x| x.is_finite()));
    assert!(vectors[0] == vectors[1] && vectors[0] == vectors[2]);
}
