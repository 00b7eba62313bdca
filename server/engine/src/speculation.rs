//! Prompt-lookup speculation: drafts of what a sequence will say, taken from what it has said.
//!
//! Answers repeat their context: quotes, names, code, numbers. Where the last tokens of a sequence
//! stand earlier in it, the tokens that followed them there are a draft. A step computes draft and
//! last token together, every row of them is sampled as it would be alone, and what was sampled is
//! kept up to and including the first token that differs from the draft. The draft has no part in
//! the choice of a token: with it or without, the tokens are the same.
//!
//! A sequence follows its source whether or not anything is drafted, so how often a source is right
//! is measured for free, and drafting begins and ends where the [`Acceptance`] says that it pays
//! (the scheduler weighs it against what rows cost).

mod acceptance;
mod ngrams;
#[cfg(test)]
mod tests;

pub use acceptance::Acceptance;
pub use ngrams::{Ngrams, Source};

/// What is known of one sequence's habit to repeat itself.
#[derive(Debug)]
pub struct Speculation {
    ngrams: Ngrams,
    /// What the sequence is repeating now.
    source: Option<Source>,
    acceptance: Acceptance,
}

impl Speculation {
    /// For a sequence of at most `longest` tokens; nothing is indexed yet.
    pub fn new(longest: usize) -> Self {
        Self { ngrams: Ngrams::new(longest), source: None, acceptance: Acceptance::recent() }
    }

    /// Takes in the last of `tokens`: was it what the source said? What it teaches goes to `everyone` too.
    pub fn observe(&mut self, tokens: &[u32], everyone: &mut Acceptance) {
        let Some((&token, before)) = tokens.split_last() else { return };
        if let Some(source) = &mut self.source {
            let right = before.get(source.next) == Some(&token);
            self.acceptance.learn(source.length, right);
            everyone.learn(source.length, right);
            if right {
                source.next += 1;
                source.length += 1;
            } else {
                self.source = None;
            }
        }
        self.ngrams.extend(tokens);
        if self.source.is_none() {
            self.source = self.ngrams.longest_match(tokens);
        }
    }

    /// For each token of a draft in turn, the chance that it and all before it are accepted: ever smaller, without
    /// end. Nothing without a source.
    pub fn chances<'a>(&'a self, everyone: &'a Acceptance) -> impl Iterator<Item = f64> + 'a {
        self.source.iter().flat_map(move |source| {
            (source.length..).scan(1.0, move |all, length| {
                *all *= self.acceptance.chance(length, everyone.alone(length));
                Some(*all)
            })
        })
    }

    /// A draft of `count` tokens after `tokens`; none without a source. Where the source runs into the end of
    /// `tokens`, the sequence is going in circles, and so does the draft.
    pub fn draft(&self, tokens: &[u32], count: usize) -> Vec<u32> {
        let repeated = self.source.and_then(|source| tokens.get(source.next..)).unwrap_or_default();
        repeated.iter().copied().cycle().take(count).collect()
    }
}
