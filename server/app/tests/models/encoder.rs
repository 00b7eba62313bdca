//! all-MiniLM-L6-v2: tokens and vectors beside those of transformers.

use pith_engine::encoder::{Encoder, Precision, ROWS};
use pith_kernels::{Isa, Pool};
use pith_model::EncoderFile;
use pith_server::hub::Hub;
use serde::Deserialize;

/// Largest cosine distance from the reference in eight bits on the CPU. Seen: 2.1e-3, of a single full stop.
const DISTANCE: f32 = 1e-2;

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
pub(crate) struct Case {
    pub(crate) text: String,
    ids: Vec<u32>,
    /// In units of 1/10000.
    vector: Vec<i32>,
}

pub(crate) fn golden() -> Vec<Case> {
    let text = include_str!("../../../engine/tests/fixtures/encoder/minilm.json");
    serde_json::from_str::<Golden>(text).unwrap().cases
}

/// Fetches the model on first use.
pub(crate) fn open() -> EncoderFile {
    let found = Hub::from_env().unwrap().resolve_embedder("minilm").unwrap();
    assert_eq!(found.name, "all-minilm-l6-v2");
    EncoderFile::open(&found.path).unwrap()
}

pub(crate) fn embed(encoder: &Encoder, texts: &[&str]) -> Vec<Vec<f32>> {
    let mut out = Vec::new();
    encoder.embed(texts, &mut out, || true).unwrap();
    out.chunks(encoder.dimensions()).map(<[f32]>::to_vec).collect()
}

#[test]
fn minilm_agrees_with_transformers() {
    let file = open();
    let config = file.config();
    assert_eq!((config.layers, config.hidden, config.heads, config.max_tokens), (6, 384, 12, 256));
    let cases = golden();
    for Case { text, ids, .. } in &cases {
        let encoding = file.tokenizer().encode(text).unwrap();
        assert_eq!(encoding.ids, *ids, "{text:?}");
        assert_eq!(encoding.truncated, ids.len() == 256, "{text:?}");
    }
    assert!(cases.iter().any(|case| case.ids.len() == 256) && cases[0].text.is_empty());

    let texts: Vec<&str> = cases.iter().map(|case| &*case.text).collect();
    let encoder = Encoder::load(file, Isa::detect(), Pool::new(2), Precision::EightBit).unwrap();
    let vectors = embed(&encoder, &texts);
    println!("{}", near(&cases, &vectors, DISTANCE));

    // Each alone, and on one thread, has the same bits.
    assert!(cases.iter().map(|case| case.ids.len()).sum::<usize>() > 3 * ROWS);
    let single = Encoder::load(open(), Isa::detect(), Pool::new(1), Precision::EightBit).unwrap();
    for (text, vector) in texts.iter().zip(&vectors) {
        assert!(embed(&single, &[text])[0] == *vector, "{text:?}");
    }
}

/// Each vector is 1 long and within `most` of the reference's; which is farthest.
pub(crate) fn near(cases: &[Case], vectors: &[Vec<f32>], most: f32) -> String {
    let mut worst = (0.0f32, "");
    for (case, vector) in cases.iter().zip(vectors) {
        // The reference's are rounded, and as much longer or shorter than 1.
        let reference = case.vector.iter().map(|&x| (x as f32 / 10_000.0).powi(2)).sum::<f32>();
        let dots = vector.iter().zip(&case.vector).map(|(a, &b)| a * b as f32 / 10_000.0);
        let distance = 1.0 - dots.sum::<f32>() / reference.sqrt();
        assert!(distance < most, "{:?}: {distance}", case.text);
        if distance > worst.0 {
            worst = (distance, &case.text);
        }
        let length = vector.iter().map(|x| x * x).sum::<f32>();
        assert!((length - 1.0).abs() < 1e-5, "{length}");
    }
    format!("farthest from the reference: {:.1e}, {:?}", worst.0, worst.1)
}

#[test]
fn translations_are_near_and_other_things_are_not() {
    let encoder = Encoder::load(open(), Isa::detect(), Pool::new(2), Precision::EightBit).unwrap();
    let texts = [
        "What is the capital of France?",
        "The capital of France is Paris.",
        "Mitochondria make most of a cell's energy.",
    ];
    let vectors = embed(&encoder, &texts);
    let cosine = |a: usize, b: usize| -> f32 {
        vectors[a].iter().zip(&vectors[b]).map(|(a, b)| a * b).sum()
    };
    assert!(cosine(0, 1) > 0.7 && cosine(0, 2) < 0.2, "{} {}", cosine(0, 1), cosine(0, 2));
}
