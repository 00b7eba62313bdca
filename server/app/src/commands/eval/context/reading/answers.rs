//! What the model answers.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{ANSWER_TOKENS, Context, Failure, Meter, Reader, progress};
use crate::commands::eval::context::bootstrap::Interval;
use crate::commands::eval::context::normal::{exact_match, f1, gold_inside};

/// In the order they are answered from.
const CONTEXTS: [Context; 3] = [Context::Full, Context::Pith, Context::Random];

/// Greedy answers beside the gold ones.
#[derive(Debug, Serialize)]
pub(in crate::commands::eval::context) struct Answers {
    pub(in crate::commands::eval::context) questions: usize,
    pub(in crate::commands::eval::context) max_tokens: u32,
    /// By context.
    pub(in crate::commands::eval::context) contexts: BTreeMap<&'static str, Worth>,
    /// Ours minus that of another context, paired by question.
    pub(in crate::commands::eval::context) pith_minus: BTreeMap<&'static str, Worth>,
}

/// Means over questions, 0 to 1 each.
#[derive(Debug, Serialize)]
pub(in crate::commands::eval::context) struct Worth {
    /// The answer is a gold one, normalised.
    pub(in crate::commands::eval::context) exact_match: Interval,
    /// F1 of its words against the nearest gold answer's.
    pub(in crate::commands::eval::context) f1: Interval,
    /// A gold answer stands in it.
    pub(in crate::commands::eval::context) gold_inside: Interval,
}

impl Reader<'_> {
    /// Asks `most` questions in every context.
    pub(in crate::commands::eval::context) async fn answers(
        &self,
        most: usize,
    ) -> Result<Answers, Failure> {
        let meter = Meter::new(self.file)?;
        let questions = self.questions(most);
        let bar = progress::bar("answers", questions.len() as u64);
        let mut judged = [const { Vec::<[f64; 3]>::new() }; CONTEXTS.len()];
        for (number, question) in questions.iter().enumerate() {
            for (context, judged) in CONTEXTS.into_iter().zip(&mut judged) {
                let prompt = self.prompt(question, context, &meter)?;
                let id = format!("answer-{number}-{}", context.name());
                let answer = self.generate(id, prompt, ANSWER_TOKENS).await?;
                let golds = &question.answers;
                judged.push([
                    exact_match(&answer, golds),
                    f1(&answer, golds),
                    gold_inside(&answer, golds),
                ]);
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        Answers::of(&judged)
            .ok_or_else(|| Failure::new("no question has an answer to compare with"))
    }
}

impl Answers {
    fn of(judged: &[Vec<[f64; 3]>; CONTEXTS.len()]) -> Option<Self> {
        let [full, pith, random] = judged;
        let minus = |other: &[[f64; 3]]| {
            let pairs = pith.iter().zip(other);
            Worth::of(
                &pairs.map(|(a, b)| [a[0] - b[0], a[1] - b[1], a[2] - b[2]]).collect::<Vec<_>>(),
            )
        };
        Some(Self {
            questions: full.len(),
            max_tokens: ANSWER_TOKENS,
            contexts: CONTEXTS
                .into_iter()
                .zip(judged)
                .map(|(context, judged)| Some((context.name(), Worth::of(judged)?)))
                .collect::<Option<_>>()?,
            pith_minus: BTreeMap::from([
                (Context::Full.name(), minus(full)?),
                (Context::Random.name(), minus(random)?),
            ]),
        })
    }
}

impl Worth {
    fn of(judged: &[[f64; 3]]) -> Option<Self> {
        let of =
            |at: usize| Interval::of(&judged.iter().map(|judged| judged[at]).collect::<Vec<_>>());
        Some(Self { exact_match: of(0)?, f1: of(1)?, gold_inside: of(2)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_is_compared_question_by_question() {
        let full = vec![[1.0, 1.0, 1.0], [0.0, 0.5, 0.0]];
        let pith = vec![[1.0, 1.0, 1.0], [0.0, 0.75, 1.0]];
        let random = vec![[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]];
        let answers = Answers::of(&[full, pith, random]).unwrap();
        assert_eq!(answers.contexts["full"].f1.mean, 0.75);
        assert_eq!(answers.pith_minus["full"].f1.mean, 0.125);
        assert_eq!(answers.pith_minus["full"].exact_match.mean, 0.0);
        assert_eq!(answers.pith_minus["random"].gold_inside.mean, 1.0);
    }
}
