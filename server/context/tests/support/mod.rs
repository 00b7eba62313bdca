//! A language model whose token counts do not add up, and documents in a line.

use pith_context::{Budget, ContextError, Document, Format, LanguageModel, Mode, Policy};

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
