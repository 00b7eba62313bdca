//! Sentences are ranked for the question.

#[cfg(test)]
mod tests;

use crate::Policy;
use crate::index::{Index, Score, Weights};
use crate::segment::Sentence;

/// A heading line says little by itself: its score counts this much.
const HEADING_LINE: f32 = 0.25;

/// A sentence and where it stands. Section, chunk and block numbers are unique over all documents.
#[derive(Debug)]
pub(crate) struct Unit {
    pub(crate) document: usize,
    pub(crate) sentence: Sentence,
}

/// What may be kept, best first.
#[derive(Debug)]
pub(crate) struct Ranking {
    /// Indices of units; those that `min_score` and `top_k` rule out are missing, so are pinned ones.
    pub(crate) order: Vec<usize>,
    /// By unit.
    pub(crate) scores: Vec<Score>,
}

/// What headings, the chunk and neighbours count beside a sentence. Tuned on the development halves of XQuAD
/// (span kept at 64 to 1,024 tokens) and NQ (answer kept at 5 to 50 %), where they beat the sentence alone at every
/// budget; so the window does not depend on it.
const WEIGHTS: Weights = Weights { heading: 0.5, chunk: 0.1, neighbor: 0.3, window: 2 };
/// Least budget, in context tokens, at which a sentence brings its antecedent along: below, the room is worth more.
pub(crate) const MIN_ANTECEDENT_BUDGET: u32 = 256;

/// Ranks the units of unpinned documents for the policy's question.
pub(crate) fn rank(index: &Index, units: &[Unit], pinned: &[bool], policy: &Policy) -> Ranking {
    let weights = match policy.neighbor_window {
        None => WEIGHTS,
        Some(0) => Weights { window: 0, chunk: 0.0, ..WEIGHTS },
        Some(window) => Weights { window: window as usize, ..WEIGHTS },
    };
    let mut scores = index.score(&policy.query, weights);
    for (score, unit) in scores.iter_mut().zip(units) {
        if unit.sentence.heading {
            score.share *= HEADING_LINE;
        }
    }
    let mut order: Vec<usize> =
        (0..units.len()).filter(|&unit| !pinned[units[unit].document]).collect();
    if let Some(least) = policy.min_score {
        order.retain(|&unit| scores[unit].share >= least);
    }
    order.sort_by(|&a, &b| scores[b].share.total_cmp(&scores[a].share).then(a.cmp(&b)));
    Ranking { order, scores }
}

/// Opening words that point back at the sentence before.
const POINTERS: &[&str] = &[
    "he", "she", "it", "they", "him", "them", "his", "her", "hers", "its", "their", "theirs",
    "this", "that", "these", "those", "such", "both", "neither",
];

/// Whether a sentence opens with a word that points back at the sentence before.
pub(crate) fn leans_on_previous(sentence: &str) -> bool {
    let opening = sentence.trim_start_matches(|c: char| !c.is_alphanumeric());
    let word = opening.split(|c: char| !c.is_alphabetic()).next().unwrap_or("");
    word.len() <= 7 && POINTERS.contains(&word.to_lowercase().as_str())
}
