//! A language model whose token counts do not add up, and documents in a line.

use pith_context::{Budget, ContextError, Document, Embedder, Format, LanguageModel, Mode, Policy};

/// Tokens are runs of letters, of white space or of marks, one for every three characters begun: joining two texts
/// merges tokens at the joint, and a joint with the template's own words does too.
pub(crate) struct Runs {
    /// What `count` gives for each token there is, in tenths: 10 is honest, 0 says that everything is free.
    pub(crate) honesty: u32,
}

impl Runs {
    pub(crate) fn tokens(text: &str) -> u32 {
        let kind = |c: char| {
            if c.is_alphanumeric() {
                0
            } else if c.is_whitespace() {
                1
            } else {
                2
            }
        };
        let (mut tokens, mut run, mut last) = (0, 0, 3);
        for c in text.chars() {
            run = if kind(c) == last { run + 1 } else { 0 };
            last = kind(c);
            tokens += u32::from(run % 3 == 0);
        }
        tokens
    }
}

impl LanguageModel for Runs {
    fn count(&self, text: &str) -> u32 {
        Self::tokens(text) * self.honesty / 10
    }

    fn prompt_tokens(&self, context: &str) -> Result<u32, ContextError> {
        let read = if context.is_empty() { String::new() } else { format!("Read this: {context}") };
        Ok(Self::tokens(&format!("<user>{read} Then answer.<assistant>")))
    }
}

pub(crate) fn document(text: &str, format: Format) -> Document {
    Document { text: text.to_owned(), format, ..Document::default() }
}

pub(crate) fn retrieve(query: &str, budget: Budget) -> Policy {
    Policy { mode: Mode::Retrieve, budget, query: query.to_owned(), ..Policy::default() }
}

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
