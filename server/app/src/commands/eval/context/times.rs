//! How long selecting takes: documents seen for the first time, and seen again.

use std::time::{Duration, Instant};

use pith_context::Embedder;
use serde::Serialize;

use super::meter::frame;
use super::selection::Run;
use crate::commands::Failure;
use crate::commands::quantile::quantile;
use crate::language_model::{Cancelled, Counting};

/// Questions that are timed.
const QUESTIONS: usize = 20;
/// No selection takes so long.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Seconds of a selection, one at a time, counted as the server counts.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Times {
    pub(super) questions: usize,
    /// Context tokens of everything, mean.
    pub(super) context_tokens: f64,
    pub(super) cold: Seconds,
    /// The same question about the same documents right after.
    pub(super) again: Seconds,
}

/// Quantiles.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Seconds {
    pub(super) p50: f64,
    pub(super) p95: f64,
}

impl Seconds {
    fn of(values: &[f64]) -> Self {
        Self { p50: quantile(values, 0.5), p95: quantile(values, 0.95) }
    }
}

impl Times {
    /// Of the first questions of `run`, at the budget that is looked at for ranks.
    pub(super) fn measure(run: &Run<'_>, embedder: Option<&dyn Embedder>) -> Result<Self, Failure> {
        let budget = run.budgets[run.ranked_at];
        let (mut cold, mut again, mut tokens) = (Vec::new(), Vec::new(), Vec::new());
        for question in run.dataset.questions.iter().take(QUESTIONS) {
            let frame = frame(run.file, &question.text)?;
            let counting = Counting {
                frame: &frame,
                question: Some(0),
                cancelled: Cancelled::default(),
                deadline: Instant::now() + PATIENCE,
            };
            let documents = &run.dataset.haystacks[question.haystack];
            // Nothing is known of the documents the first time.
            let ours = run.ours.anew(embedder);
            for seconds in [&mut cold, &mut again] {
                let began = Instant::now();
                let compressed = ours.select(documents, &question.text, budget, &counting)?;
                seconds.push(began.elapsed().as_secs_f64());
                tokens.extend(
                    compressed.map(|compressed| f64::from(compressed.report.tokens_before)),
                );
            }
        }
        Ok(Self {
            questions: cold.len(),
            context_tokens: tokens.iter().sum::<f64>() / tokens.len().max(1) as f64,
            cold: Seconds::of(&cold),
            again: Seconds::of(&again),
        })
    }
}
