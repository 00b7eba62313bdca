//! The models of the catalogue, fetched on first use: their architecture, their tokens beside llama.cpp's, and vectors
//! beside those of transformers.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[cfg(feature = "card")]
mod card;
mod encoder;
mod plan;
mod tokenizer;
