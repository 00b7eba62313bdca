//! An embedder without a model.

use pith_context::{ContextError, Embedder};

/// Vectors of words by their letters: alike for words that begin alike, and the same on every machine.
pub(crate) struct Letters;

impl Embedder for Letters {
    fn identity(&self) -> &str {
        "letters"
    }

    fn dimensions(&self) -> usize {
        32
    }

    fn embed(&self, texts: &[&str], out: &mut Vec<f32>) -> Result<(), ContextError> {
        for text in texts {
            let mut vector = [0.0_f32; 32];
            for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
                let hash = word
                    .to_lowercase()
                    .chars()
                    .take(4)
                    .fold(7_usize, |hash, c| hash.wrapping_mul(31).wrapping_add(c as usize));
                vector[hash % 32] += 1.0;
            }
            let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-6);
            out.extend(vector.map(|x| x / length));
        }
        Ok(())
    }
}
