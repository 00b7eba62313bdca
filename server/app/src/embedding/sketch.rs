//! Rough vectors of texts, a hundred times as fast as the encoder's: sums of what the encoder takes its tokens for before it
//! looks at their surroundings.

use pith_context::{ContextError, Embedder};
use pith_model::encoder::WordPiece;
use pith_model::{EncoderFile, ModelError};

/// Steps of an eight-bit number on either side of 0.
const STEPS: f32 = 127.0;
/// Texts like these begin with the words that are used most.
const COMMON: &str = "the of and in to was";

/// Sums of tokens' vectors. Rare tokens weigh more: vocabularies are counted from text and hold the frequent ones first.
/// What tokens have in common on average is taken out.
#[derive(Debug)]
pub(super) struct Sketcher {
    identity: String,
    tokenizer: WordPiece,
    dimensions: usize,
    /// `dimensions` numbers a token, its weight in them.
    codes: Vec<i8>,
    /// What a token's numbers are multiplied by.
    scales: Vec<f32>,
}

impl Sketcher {
    /// Reads the vectors of the tokens of `file`.
    pub(super) fn read(file: EncoderFile) -> Result<Self, ModelError> {
        let (vocab, dimensions) = (file.config().vocab, file.config().hidden);
        let mut table =
            file.weights().read("embeddings.word_embeddings.weight", &[vocab, dimensions])?;
        let first = file.tokenizer().encode(COMMON)?.ids;
        let first = first[1..first.len() - 1].iter().min().map_or(0, |id| *id as usize);
        let rank = |token: usize| token.saturating_sub(first) as f32;
        let weight = |token: usize| (1.0 + rank(token)).ln().max(0.1);
        // How often a word of a rank is used, by Zipf's law as Mandelbrot corrected it.
        let mut mean = vec![0.0_f64; dimensions];
        let mut whole = 0.0_f64;
        for (token, row) in table.chunks_exact(dimensions).enumerate().skip(first) {
            let share = f64::from(weight(token)) / (f64::from(rank(token)) + 2.7);
            whole += share;
            mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += share * f64::from(*x));
        }
        let mut codes = Vec::with_capacity(table.len());
        let mut scales = Vec::with_capacity(vocab);
        for (token, row) in table.chunks_exact_mut(dimensions).enumerate() {
            row.iter_mut().zip(&mean).for_each(|(x, mean)| *x -= (mean / whole.max(1e-9)) as f32);
            let most = row.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
            let scale = if most > 0.0 { most / STEPS } else { 1.0 };
            codes.extend(row.iter().map(|x| (x / scale).round() as i8));
            scales.push(scale * weight(token));
        }
        let identity = format!("{}:sketch", file.fingerprint());
        Ok(Self { identity, tokenizer: file.into_tokenizer(), dimensions, codes, scales })
    }
}

impl Embedder for Sketcher {
    fn identity(&self) -> &str {
        &self.identity
    }

    fn dimensions(&self) -> usize {
        self.dimensions
    }

    fn embed(&self, texts: &[&str], out: &mut Vec<f32>) -> Result<(), ContextError> {
        for text in texts {
            let failed = |error: ModelError| ContextError::Embedder { message: error.to_string() };
            let tokens = self.tokenizer.encode(text).map_err(failed)?.ids;
            let start = out.len();
            out.resize(start + self.dimensions, 0.0);
            let sum = &mut out[start..];
            // The first and the last token are in every text.
            for token in tokens[1..tokens.len() - 1].iter().map(|token| *token as usize) {
                let codes = &self.codes[token * self.dimensions..][..self.dimensions];
                let scale = self.scales[token];
                sum.iter_mut().zip(codes).for_each(|(sum, code)| *sum += scale * f32::from(*code));
            }
            let length = sum.iter().map(|x| x * x).sum::<f32>().sqrt();
            match sum.first_mut() {
                // An empty text has a vector too.
                Some(first) if length == 0.0 => *first = 1.0,
                _ => sum.iter_mut().for_each(|x| *x /= length),
            }
        }
        Ok(())
    }
}
