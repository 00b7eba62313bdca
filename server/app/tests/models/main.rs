//! The models of the catalogue, fetched on first use: their architecture, and their tokens beside llama.cpp's.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod plan;
mod tokenizer;
