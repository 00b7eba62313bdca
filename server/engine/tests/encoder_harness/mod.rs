//! Tiny encoders, the texts they were asked, and what the reference answered.

use std::path::{Path, PathBuf};

use pith_engine::encoder::Encoder;
use pith_model::EncoderFile;

pub(crate) const FIXTURES: [&str; 2] = ["tiny", "odd"];

pub(crate) struct Case {
    pub(crate) text: String,
    pub(crate) ids: Vec<u32>,
    pub(crate) vector: Vec<f32>,
}

fn folder() -> PathBuf {
    // Tests that were carried to another machine are told by the variable cargo sets too.
    let crate_folder = std::env::var_os("CARGO_MANIFEST_DIR");
    let crate_folder = crate_folder.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&crate_folder).join("tests/fixtures/encoder")
}

pub(crate) fn cases(name: &str) -> Vec<Case> {
    let text = std::fs::read_to_string(folder().join(format!("{name}.golden.json"))).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let numbers = |row: &serde_json::Value| -> Vec<f64> {
        row.as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect()
    };
    let case = |case: &serde_json::Value| Case {
        text: case["text"].as_str().unwrap().to_owned(),
        ids: numbers(&case["ids"]).into_iter().map(|id| id as u32).collect(),
        vector: numbers(&case["vector"]).into_iter().map(|x| x as f32).collect(),
    };
    json["cases"].as_array().unwrap().iter().map(case).collect()
}

pub(crate) fn open(name: &str) -> EncoderFile {
    EncoderFile::open(&folder().join(name)).unwrap()
}

pub(crate) fn embed(encoder: &Encoder, texts: &[&str]) -> Vec<Vec<f32>> {
    let mut out = Vec::new();
    let embedded = encoder.embed(texts, &mut out, || true).unwrap();
    assert_eq!((embedded.len(), out.len()), (texts.len(), texts.len() * encoder.dimensions()));
    out.chunks(encoder.dimensions()).map(<[f32]>::to_vec).collect()
}

/// Of two vectors of length 1, by their cosine.
pub(crate) fn distance(a: &[f32], b: &[f32]) -> f32 {
    1.0 - a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>()
}
