//! Sentences are ranked for the question.
//!
//! What speaks for a sentence is put on one scale, its distance from the mean of all sentences in standard deviations,
//! and added up. Two kinds of questions are ranked differently:
//!
//! * One that asks for a **fact** wants the sentence that states it: its words (BM25 with headings and neighbours), its
//!   vector, alone, with its neighbours and as part of its chunk, the best sentence of its document, and whether
//!   it holds the kind of thing asked for.
//! * What was **said** about something, in a conversation above all, is spread over passages: words and vectors are
//!   smoothed over the surroundings, so that whole stretches rank together.
//!
//! Every weight below was tuned on the development halves of XQuAD (612 questions, span kept at 64 to 1,024 tokens)
//! and NQ (1,062 questions, 20 passages, answer kept at 5 to 50 %) for facts, and on QMSum's validation meetings (237
//! queries, evidence recall at 5 to 50 %) for what was said.

#[cfg(test)]
mod tests;

use crate::hints::Marks;
use crate::index::{self, Index, Weights, smooth};
use crate::prepared::Prepared;
use crate::question::Question;
use crate::segment::Sentence;
use crate::vectors::Nearness;
use crate::{Fusion, Policy};

/// A heading line says little by itself: its words count this much.
const HEADING_LINE: f32 = 0.25;

/// What headings, the chunk and neighbours count beside a sentence's own words.
const WEIGHTS: Weights = Weights { heading: 0.5, chunk: 0.1, neighbor: 0.3, window: 2 };
/// What words count beside vectors.
const LEXICAL: f32 = 0.6;
/// What a sentence's vector counts together with its neighbours', beside alone.
const WINDOW: f32 = 0.3;
/// What its chunk's vector counts.
const CHUNK: f32 = 0.3;
/// What the nearest sentence of its document counts.
const BEST: f32 = 0.6;
/// What holding the kind of thing asked for counts, with vectors and without.
const ANSWER: f32 = 1.5;
const ANSWER_LEXICAL: f32 = 0.5;
/// What the logarithm of its length counts, with vectors: they prefer short sentences, which say less.
const LENGTH: f32 = 0.2;

/// What a sentence counts one further away, in a conversation.
const DECAY_CONVERSATION: f32 = 0.97;
/// The same in prose, whose passages are shorter.
const DECAY_PROSE: f32 = 0.9;
/// Peaks count more than in proportion when vectors and words are smoothed: `exp` of this many deviations.
const PEAK: f32 = 0.5;
/// Of the words' share, what is smoothed as the question's terms; the rest is smoothed as BM25 of sentences.
const AROUND: f32 = 0.5;

/// The constant of reciprocal rank fusion (Cormack, Clarke and Büttcher, 2009).
const RANK_OFFSET: f32 = 60.0;
/// Least budget, in context tokens, at which a sentence brings its antecedent along: below, the room is worth more.
pub(crate) const MIN_ANTECEDENT_BUDGET: u32 = 256;
/// Widest neighbour window that stands for a fact; from there on it stands for what was said.
const MAX_FACT_WINDOW: u32 = 4;

/// A sentence and where it stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unit<'a> {
    pub(crate) document: usize,
    pub(crate) sentence: &'a Sentence,
}

/// What a sentence scored.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Score {
    /// BM25 of the sentence alone.
    pub(crate) lexical: f32,
    /// Cosine of its vector and the question's; 0 without one.
    pub(crate) dense: f32,
    /// How much of the question is in it, 0 to 1: its share of the words' weight and its cosine, weighted.
    pub(crate) relevance: f32,
    /// What it is ranked by. Comparable within a request only.
    pub(crate) value: f32,
}

/// What may be kept, best first.
#[derive(Debug)]
pub(crate) struct Ranking {
    /// Indices of units; those that `min_score` rules out are missing, so are pinned, protected and excluded ones.
    pub(crate) order: Vec<usize>,
    /// By unit.
    pub(crate) scores: Vec<Score>,
    /// By unit: its place in `order`, from 1; 0 if it is missing.
    pub(crate) places: Vec<u32>,
    /// Whether vectors had a part in it.
    pub(crate) dense: bool,
}

/// Documents and what is asked of them.
#[derive(Debug)]
pub(crate) struct Candidates<'a> {
    pub(crate) documents: &'a [&'a Prepared],
    pub(crate) units: &'a [Unit<'a>],
    pub(crate) marks: &'a Marks,
    /// How near each unit is to the question in meaning, if that is to count.
    pub(crate) near: Option<&'a Nearness>,
}

/// How a request is ranked.
struct Plan {
    near: Weights,
    lexical: f32,
    dense: f32,
    /// By document: the decay of its surroundings, if what was said is asked for.
    decay: Vec<Option<f32>>,
    fusion: Fusion,
}

impl Plan {
    fn new(candidates: &Candidates<'_>, question: &Question, policy: &Policy) -> Self {
        let decay = |document: &&Prepared| match policy.neighbor_window {
            None if document.conversation && !question.opens_with_it => Some(DECAY_CONVERSATION),
            None if question.discourse => Some(DECAY_PROSE),
            // The weight of the last sentence in the window is about a third of the first one's.
            Some(window) if window > MAX_FACT_WINDOW => Some(1.0 - 1.2 / window as f32),
            None | Some(_) => None,
        };
        let near = match policy.neighbor_window {
            Some(0) => Weights { window: 0, chunk: 0.0, ..WEIGHTS },
            Some(window) if window <= MAX_FACT_WINDOW => {
                Weights { window: window as usize, ..WEIGHTS }
            }
            None | Some(_) => WEIGHTS,
        };
        Self {
            near,
            lexical: policy.lexical_weight.unwrap_or(1.0),
            dense: if candidates.near.is_some() { policy.dense_weight.unwrap_or(1.0) } else { 0.0 },
            decay: candidates.documents.iter().map(decay).collect(),
            fusion: policy.fusion,
        }
    }
}

/// Ranks the units for the policy's question.
pub(crate) fn rank(candidates: &Candidates<'_>, policy: &Policy) -> Ranking {
    let Candidates { documents, units, marks, .. } = candidates;
    let question = Question::new(&policy.query);
    let plan = Plan::new(candidates, &question, policy);
    let indexes: Vec<&Index> = documents.iter().map(|document| &document.index).collect();
    // One pass serves all documents, so their surroundings share a decay: that of conversations, if there are any.
    let decay = plan.decay.iter().flatten().copied().reduce(f32::max);
    let mut words = index::score(&indexes, &policy.query, plan.near, decay);
    for (share, unit) in words.share.iter_mut().zip(*units) {
        if unit.sentence.heading {
            *share *= HEADING_LINE;
        }
    }
    let near = candidates.near.filter(|_| plan.dense > 0.0);

    let values = match plan.fusion {
        Fusion::Ranks => by_rank(&plan, &words.share, near),
        Fusion::Scores => {
            let mut values = facts(candidates, &plan, &question, &words.share, near);
            if decay.is_some() {
                let said = said(candidates, &plan, &words, near);
                for ((value, said), unit) in values.iter_mut().zip(said).zip(*units) {
                    if plan.decay[unit.document].is_some() {
                        *value = said;
                    }
                }
            }
            values
        }
    };
    // What is only estimated is ranked by, and not told.
    let dense = |unit: usize| {
        near.filter(|near| near.known.is_empty() || near.known[unit])
            .map_or(0.0, |near| near.alone[unit])
    };
    let whole = (plan.lexical + plan.dense).max(f32::MIN_POSITIVE);
    let scores: Vec<Score> = (0..units.len())
        .map(|unit| {
            let dense = dense(unit);
            let relevance = plan.lexical * words.share[unit] + plan.dense * dense.max(0.0);
            Score {
                lexical: words.lexical[unit],
                dense,
                relevance: (relevance / whole).clamp(0.0, 1.0),
                value: values[unit] + marks.emphasis(unit),
            }
        })
        .collect();
    let mut order: Vec<usize> = (0..units.len()).filter(|&unit| marks.is_free(unit)).collect();
    if let Some(least) = policy.min_score {
        order.retain(|&unit| scores[unit].relevance >= least);
    }
    order.sort_by(|&a, &b| scores[b].value.total_cmp(&scores[a].value).then(a.cmp(&b)));
    let mut places = vec![0; units.len()];
    for (place, &unit) in (1..).zip(&order) {
        places[unit] = place;
    }
    Ranking { order, scores, places, dense: plan.dense > 0.0 }
}

/// What speaks for each sentence to state a fact.
fn facts(
    candidates: &Candidates<'_>,
    plan: &Plan,
    question: &Question,
    share: &[f32],
    near: Option<&Nearness>,
) -> Vec<f32> {
    let units = candidates.units;
    let mut values = vec![0.0; units.len()];
    add(&mut values, plan.lexical * if near.is_some() { LEXICAL } else { 1.0 }, share);
    let cues = candidates.documents.iter().flat_map(|document| &document.cues);
    let answer = if near.is_some() { ANSWER } else { ANSWER_LEXICAL };
    for (value, cues) in values.iter_mut().zip(cues) {
        *value += answer * question.answered(cues);
    }
    if let Some(near) = near {
        add(&mut values, plan.dense, &near.alone);
        add(&mut values, plan.dense * WINDOW, &near.window);
        add(&mut values, plan.dense * CHUNK, &near.chunk);
        let mut best = vec![f32::MIN; candidates.documents.len()];
        for (unit, near) in units.iter().zip(&near.alone) {
            best[unit.document] = best[unit.document].max(*near);
        }
        let best: Vec<f32> = units.iter().map(|unit| best[unit.document]).collect();
        add(&mut values, plan.dense * BEST, &best);
        for (value, unit) in values.iter_mut().zip(units) {
            *value += LENGTH * (unit.sentence.span.len() as f32).ln();
        }
    }
    values
}

/// What speaks for each sentence as a part of a passage about the question.
fn said(
    candidates: &Candidates<'_>,
    plan: &Plan,
    words: &index::Scores,
    near: Option<&Nearness>,
) -> Vec<f32> {
    let mut values = vec![0.0; candidates.units.len()];
    add(&mut values, plan.lexical * AROUND, &words.around);
    let lexical = surroundings(candidates, plan, &words.lexical);
    add(&mut values, plan.lexical * (1.0 - AROUND), &lexical);
    if let Some(near) = near {
        add(&mut values, plan.dense, &surroundings(candidates, plan, &near.alone));
    }
    values
}

/// The mean of what stands around each sentence of a document, peaks weighing more, nearer sentences too.
fn surroundings(candidates: &Candidates<'_>, plan: &Plan, signal: &[f32]) -> Vec<f32> {
    let mut values: Vec<f32> = signal.to_vec();
    standardize(&mut values);
    values.iter_mut().for_each(|value| *value = (PEAK * *value).exp());
    let mut start = 0;
    for (document, decay) in candidates.documents.iter().zip(&plan.decay) {
        let of = start..start + document.sentences.len();
        start = of.end;
        let Some(decay) = decay else { continue };
        let mut weights = vec![1.0; of.len()];
        smooth(&mut weights, *decay);
        smooth(&mut values[of.clone()], *decay);
        values[of].iter_mut().zip(weights).for_each(|(value, weight)| *value /= weight);
    }
    values
}

/// Reciprocal rank fusion of words and vectors.
fn by_rank(plan: &Plan, share: &[f32], near: Option<&Nearness>) -> Vec<f32> {
    let mut values = vec![0.0; share.len()];
    let signals = [(plan.lexical, Some(share)), (plan.dense, near.map(|near| &*near.alone))];
    for (weight, signal) in signals {
        let Some(signal) = signal.filter(|_| weight > 0.0) else { continue };
        let mut order: Vec<usize> = (0..signal.len()).collect();
        order.sort_by(|&a, &b| signal[b].total_cmp(&signal[a]).then(a.cmp(&b)));
        // Equals share the rank of the first of them: where no word matches, words have no say.
        let mut shared = 0;
        for (rank, &unit) in order.iter().enumerate() {
            if signal[unit] != signal[order[shared]] {
                shared = rank;
            }
            values[unit] += weight / (RANK_OFFSET + 1.0 + shared as f32);
        }
    }
    // To the scale of the other fusion, in which emphasis counts.
    standardize(&mut values);
    values
}

/// Adds `weight` times `signal`, in deviations from its mean, to `values`.
fn add(values: &mut [f32], weight: f32, signal: &[f32]) {
    if weight == 0.0 {
        return;
    }
    let mut signal = signal.to_vec();
    standardize(&mut signal);
    values.iter_mut().zip(signal).for_each(|(value, signal)| *value += weight * signal);
}

/// Puts mean 0 and standard deviation 1; equal numbers become 0.
fn standardize(values: &mut [f32]) {
    let count = values.len().max(1) as f64;
    let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / count;
    let squares = values.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>();
    let deviation = (squares / count).sqrt();
    for value in values {
        let centred = f64::from(*value) - mean;
        *value = if deviation > 1e-9 { (centred / deviation) as f32 } else { 0.0 };
    }
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
