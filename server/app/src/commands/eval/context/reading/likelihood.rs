//! How likely the model finds the right answer.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Context, Failure, Meter, Reader, progress};
use crate::commands::eval::context::bootstrap::Interval;

/// In the order they are measured.
const CONTEXTS: [Context; 4] = [Context::Full, Context::Pith, Context::Random, Context::Nothing];

/// ln-probabilities of the first gold answer, in natural units.
#[derive(Debug, Serialize)]
pub(in crate::commands::eval::context) struct Likelihood {
    pub(in crate::commands::eval::context) questions: usize,
    /// By context.
    pub(in crate::commands::eval::context) contexts: BTreeMap<&'static str, Read>,
    /// By context: its ln p minus that in the full one, paired by question. Above 0: the answer became likelier.
    pub(in crate::commands::eval::context) change: BTreeMap<&'static str, Change>,
}

/// Means over questions.
#[derive(Debug, Serialize)]
pub(in crate::commands::eval::context) struct Read {
    pub(in crate::commands::eval::context) prompt_tokens: f64,
    /// Of the whole answer.
    pub(in crate::commands::eval::context) ln_p: Interval,
    /// Of the answer, divided by its tokens.
    pub(in crate::commands::eval::context) ln_p_per_token: Interval,
}

/// Differences from the full context.
#[derive(Debug, Serialize)]
pub(in crate::commands::eval::context) struct Change {
    pub(in crate::commands::eval::context) ln_p: Interval,
    pub(in crate::commands::eval::context) ln_p_per_token: Interval,
}

impl Reader<'_> {
    /// Scores the first gold answer of `most` questions in every context.
    pub(in crate::commands::eval::context) async fn likelihood(
        &self,
        most: usize,
    ) -> Result<Likelihood, Failure> {
        let meter = Meter::new(self.file)?;
        let questions = self.questions(most);
        let bar = progress::bar("likelihood", questions.len() as u64);
        let mut scored = [const { Vec::<Scored>::new() }; CONTEXTS.len()];
        for question in &questions {
            for (context, scored) in CONTEXTS.into_iter().zip(&mut scored) {
                let prompt = self.prompt(question, context, &meter)?;
                let logprobs = self.score(&prompt, &question.answers[0]).await?;
                let ln_p: f64 = logprobs.iter().map(|&logprob| f64::from(logprob)).sum();
                let per_token = ln_p / logprobs.len().max(1) as f64;
                scored.push(Scored { prompt_tokens: prompt.len() as f64, ln_p, per_token });
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        Likelihood::of(&scored).ok_or_else(|| Failure::new("no question has an answer to score"))
    }
}

#[derive(Debug, Clone, Copy)]
struct Scored {
    prompt_tokens: f64,
    ln_p: f64,
    per_token: f64,
}

impl Likelihood {
    fn of(scored: &[Vec<Scored>; CONTEXTS.len()]) -> Option<Self> {
        let full = &scored[0];
        let (mut contexts, mut change) = (BTreeMap::new(), BTreeMap::new());
        for (context, scored) in CONTEXTS.into_iter().zip(scored) {
            let of = |value: fn(&Scored) -> f64| {
                Interval::of(&scored.iter().map(value).collect::<Vec<_>>())
            };
            let tokens = scored.iter().map(|scored| scored.prompt_tokens).sum::<f64>();
            let read = Read {
                prompt_tokens: tokens / scored.len() as f64,
                ln_p: of(|scored| scored.ln_p)?,
                ln_p_per_token: of(|scored| scored.per_token)?,
            };
            contexts.insert(context.name(), read);
            if context != Context::Full {
                let of = |value: fn(&Scored) -> f64| {
                    let pairs = scored.iter().zip(full);
                    Interval::of(
                        &pairs.map(|(here, full)| value(here) - value(full)).collect::<Vec<_>>(),
                    )
                };
                let changed =
                    Change { ln_p: of(|s| s.ln_p)?, ln_p_per_token: of(|s| s.per_token)? };
                change.insert(context.name(), changed);
            }
        }
        Some(Self { questions: full.len(), contexts, change })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_paired_with_the_full_context() {
        let scored = |ln_p: [f64; 2]| {
            ln_p.map(|ln_p| Scored { prompt_tokens: 10.0, ln_p, per_token: ln_p / 2.0 }).to_vec()
        };
        // Questions differ a lot, contexts by exactly 1 for each.
        let all = [[-1.0, -9.0], [0.0, -8.0], [-3.0, -11.0], [-4.0, -9.0]].map(scored);
        let likelihood = Likelihood::of(&all).unwrap();
        let pith = &likelihood.change["pith"];
        assert_eq!((pith.ln_p.mean, pith.ln_p.low, pith.ln_p.high), (1.0, 1.0, 1.0));
        assert_eq!(pith.ln_p_per_token.mean, 0.5);
        assert_eq!(likelihood.change["nothing"].ln_p.mean, -1.5);
        assert_eq!(likelihood.contexts["full"].ln_p.mean, -5.0);
        assert!(Likelihood::of(&[const { Vec::new() }; 4]).is_none());
    }
}
