//! Citations: sentences of the answer tied to the sentences of the context that support them.
//!
//! The answer is cut into sentences as it streams. Each is compared with every kept sentence by the words both
//! hold, a word weighing as much as it is rare in the kept text (stop words nothing), and by the longest
//! run of words that stands in both alike:
//!
//! * A sentence of four content words or more is cited if one source holds at least [`MIN_SUPPORT`] of its weight, or up
//!   to [`MAX_SOURCES`] hold [`MIN_JOINT_SUPPORT`] together, the first of them [`MIN_FIRST`] and each further one
//!   [`MIN_GAIN`] that none before it holds. Each must share a run of [`MIN_RUN`] content words with it (stop words
//!   between them aside).
//! * A shorter one ("Wilhelm Conrad Röntgen") is cited only where its words stand in one run, all of them.
//! * A number in the answer must stand in a source named; else nothing is cited: a changed number is no support.
//!
//! Everything else goes without a citation: a missing one is honest, a wrong one is not.
//!
//! The thresholds were tuned on answers made from the development half of XQuAD: sentences that hold a gold answer,
//! paraphrased, cut, joined and restated, beside restated questions with another's answer.

mod answer;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use crate::index::inverse_frequency;
use crate::index::terms::{Occurrence, Term, occurrences};
use crate::segment::segment_part;
use crate::{Compressed, Document, KeptSpan, Packed, Span};
use answer::Answer;

/// Least share of an answer sentence's weight that a source must hold to stand alone.
const MIN_SUPPORT: f32 = 0.6;
/// Least share that several sources must hold together: a sentence pieced together of two facts can be false where
/// either is true.
const MIN_JOINT_SUPPORT: f32 = 0.9;
/// Least share that the best of several sources must hold.
const MIN_FIRST: f32 = 0.4;
/// Least length of the longest common run of content words: scattered words are no support.
const MIN_RUN: usize = 2;
/// Least share that a further source must add.
const MIN_GAIN: f32 = 0.25;
/// What a word weighs that the kept text lacks, beside the rarest it has: it may be a synonym or the question's. A number
/// that is missing is no matter of weight, it forbids the citation.
const MISSING_WEIGHT: f32 = 0.3;
/// Most sources of one answer sentence.
const MAX_SOURCES: usize = 3;
/// Content words from which on a sentence is compared word by word, not as a phrase.
const MIN_SENTENCE_WORDS: usize = 4;
/// Weight of the longest common run beside that of common words, where sources are compared.
const RUN_WEIGHT: f32 = 0.25;
/// Weight of the score for the question, where all else is equal.
const RANK_WEIGHT: f32 = 0.01;

/// Sources of one sentence of the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Citation {
    /// Bytes of the whole answer (everything pushed so far), without surrounding white space.
    pub answer: Range<usize>,
    /// Best first; never empty, at most three.
    pub sources: Vec<Source>,
}

/// A sentence of a document that supports the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Where it stands; always inside a kept piece.
    pub span: Span,
    /// The text there: `documents[span.document].text[span.start..span.end] == cited_text`, always.
    pub cited_text: String,
    /// Share of the answer sentence's weight (rare words weigh more) found in the source, 0 to 1.
    pub score: f32,
}

/// Finds citations while an answer streams. Owns what it needs; cost grows with the kept text, not the documents.
#[derive(Debug)]
pub struct Citer {
    sources: Vec<Kept>,
    /// Sources that hold a term, in order.
    holders: HashMap<Term, Vec<usize>>,
    answer: Answer,
}

/// A kept sentence.
#[derive(Debug)]
struct Kept {
    span: Span,
    text: String,
    words: Vec<Occurrence>,
    /// What it scored for the question, 0 to 1.
    rank: f32,
}

impl Citer {
    /// Prepares to cite what `packed` keeps of `documents`, the same that were compressed.
    pub fn new(documents: &[Document], packed: &Packed) -> Self {
        Self::over(documents, [packed], &[])
    }

    /// As [`new`](Self::new), and where several sentences support an answer equally, prefers the one that
    /// scored best for the question.
    pub fn ranked(documents: &[Document], compressed: &Compressed) -> Self {
        Self::over(documents, [&compressed.context], &compressed.report.kept)
    }

    /// As [`ranked`](Self::ranked), for several contexts (those of a chat's turns): what any of them keeps may be cited.
    /// `kept`: the report's spans, sorted.
    pub fn over<'a>(
        documents: &[Document],
        contexts: impl IntoIterator<Item = &'a Packed>,
        kept: &[KeptSpan],
    ) -> Self {
        let mut citer =
            Self { sources: Vec::new(), holders: HashMap::new(), answer: Answer::default() };
        let passage = |packed: &'a Packed| {
            packed.pieces.iter().map(|piece| (piece.source, &packed.text[piece.packed.clone()]))
        };
        let mut passages: Vec<(Span, &str)> = contexts.into_iter().flat_map(passage).collect();
        passages.sort_unstable();
        for (Span { document, start, end }, text) in passages {
            let Some(source) = documents.get(document) else { continue };
            for sentence in segment_part(source, start..end).sentences {
                let Range { start: from, end: to } = sentence.span;
                citer.push_source(
                    Span { document, start: start + from, end: start + to },
                    &text[from..to],
                );
            }
        }
        let mut kept = kept.iter().peekable();
        for source in &mut citer.sources {
            // Both are sorted: the kept span that holds the source's first byte.
            while kept
                .next_if(|kept| {
                    (kept.span.document, kept.span.end) <= (source.span.document, source.span.start)
                })
                .is_some()
            {}
            source.rank = kept.peek().map_or(0.0, |kept| kept.score);
        }
        citer
    }

    fn push_source(&mut self, span: Span, text: &str) {
        let words = occurrences(text);
        let number = self.sources.len();
        for word in words.iter().filter(|word| !word.stop) {
            let holders = self.holders.entry(word.term).or_default();
            if holders.last() != Some(&number) {
                holders.push(number);
            }
        }
        self.sources.push(Kept { span, text: text.to_owned(), words, rank: 0.0 });
    }

    /// Takes the next part of the answer, cut anywhere, and gives the citations of the sentences it completes.
    /// A sentence is complete when the next one or a new line has begun. How the answer is cut into
    /// parts changes nothing but when citations come out.
    pub fn push(&mut self, text: &str) -> Vec<Citation> {
        self.answer.push(text);
        let mut citations = Vec::new();
        while let Some((span, sentence)) = self.answer.next_complete() {
            citations.extend(self.cite(span, &sentence));
        }
        citations
    }

    /// The answer is over: citations of what is still pending. Later calls give nothing.
    pub fn finish(&mut self) -> Vec<Citation> {
        let mut citations = Vec::new();
        while let Some((span, sentence)) = self.answer.next_pending() {
            citations.extend(self.cite(span, &sentence));
        }
        citations
    }

    /// The citation of one sentence, if the kept text supports it.
    fn cite(&self, answer: Range<usize>, sentence: &str) -> Option<Citation> {
        let words = occurrences(answer::claim(sentence));
        let mut weights: HashMap<Term, f32> = HashMap::new();
        for word in words.iter().filter(|word| !word.stop) {
            weights.entry(word.term).or_insert_with(|| self.weight(word.term));
        }
        let total: f32 = sorted(&weights).map(|(_, weight)| weight).sum();
        if weights.is_empty() || total <= 0.0 {
            return None;
        }
        let phrase = weights.len() < MIN_SENTENCE_WORDS;
        let words: Vec<Term> =
            words.iter().filter(|word| phrase || !word.stop).map(|word| word.term).collect();
        let mut candidates = self.candidates(&weights, &words, phrase);
        if phrase {
            candidates.retain(|candidate| candidate.run == words.len());
        }
        let mut covered: HashSet<Term> = HashSet::new();
        let mut sources = Vec::new();
        let mut support = 0.0;
        while sources.len() < MAX_SOURCES {
            let gain = |candidate: &Candidate| -> f32 {
                let new = candidate.terms.iter().filter(|term| !covered.contains(*term));
                new.map(|term| weights[term]).sum::<f32>() / total
            };
            let value = |candidate: &Candidate| {
                let run = candidate.run as f32 / words.len() as f32;
                gain(candidate)
                    + RUN_WEIGHT * run
                    + RANK_WEIGHT * self.sources[candidate.source].rank
            };
            // The first of the best: candidates are in order of the text.
            let best = candidates
                .iter()
                .map(|c| (value(c), c))
                .reduce(|a, b| if b.0 > a.0 { b } else { a });
            let Some((_, best)) = best else { break };
            let (gained, first) = (gain(best), sources.is_empty());
            let related = phrase || best.terms.len() >= 2 && best.run >= MIN_RUN;
            let least = if first { MIN_FIRST } else { MIN_GAIN };
            if gained < least || !related {
                break;
            }
            support += gained;
            covered.extend(best.terms.iter().copied());
            let kept = &self.sources[best.source];
            let share = best.terms.iter().map(|term| weights[term]).sum::<f32>() / total;
            sources.push(Source {
                span: kept.span,
                cited_text: kept.text.clone(),
                score: share.min(1.0),
            });
            let named = best.source;
            candidates.retain(|candidate| candidate.source != named);
        }
        let numbers_stand =
            weights.keys().filter(|term| term.is_number()).all(|term| covered.contains(term));
        let enough = if sources.len() > 1 { MIN_JOINT_SUPPORT } else { MIN_SUPPORT };
        (support >= enough && numbers_stand).then_some(Citation { answer, sources })
    }

    /// How much a term says about where an answer comes from: the rarer in the kept text, the more.
    fn weight(&self, term: Term) -> f32 {
        let sentences = self.sources.len() as f32;
        match self.holders.get(&term) {
            Some(holders) => inverse_frequency(sentences, holders.len() as f32),
            None => MISSING_WEIGHT * inverse_frequency(sentences, 0.0),
        }
    }

    /// Kept sentences with a word of the answer's, in order of the text. In a phrase stop words are part of the run.
    fn candidates(
        &self,
        weights: &HashMap<Term, f32>,
        words: &[Term],
        phrase: bool,
    ) -> Vec<Candidate> {
        let mut shared: HashMap<usize, Vec<Term>> = HashMap::new();
        for (term, _) in sorted(weights) {
            for &source in self.holders.get(&term).into_iter().flatten() {
                shared.entry(source).or_default().push(term);
            }
        }
        let run = |source: usize| {
            let words_there = self.sources[source].words.iter().filter(|word| phrase || !word.stop);
            longest_run(words, &words_there.map(|word| word.term).collect::<Vec<_>>())
        };
        let mut candidates: Vec<Candidate> = shared
            .into_iter()
            .map(|(source, terms)| Candidate { source, terms, run: run(source) })
            .collect();
        candidates.sort_unstable_by_key(|candidate| candidate.source);
        candidates
    }
}

/// A kept sentence that shares words with the answer's.
#[derive(Debug)]
struct Candidate {
    source: usize,
    /// The content terms both hold.
    terms: Vec<Term>,
    /// Length of the longest run of words in both; in a sentence, of content words.
    run: usize,
}

/// Terms in an order that is the same in every run, so that sums are too.
fn sorted(weights: &HashMap<Term, f32>) -> impl Iterator<Item = (Term, f32)> {
    let mut weights: Vec<(Term, f32)> =
        weights.iter().map(|(term, weight)| (*term, *weight)).collect();
    weights.sort_unstable_by_key(|(term, _)| *term);
    weights.into_iter()
}

/// Length of the longest run of words standing in both. Both are sentences, so the product of lengths is small.
fn longest_run(a: &[Term], b: &[Term]) -> usize {
    let mut ending = vec![0_usize; b.len() + 1];
    let mut longest = 0;
    for x in a {
        for at in (0..b.len()).rev() {
            ending[at + 1] = if *x == b[at] { ending[at] + 1 } else { 0 };
            longest = longest.max(ending[at + 1]);
        }
    }
    longest
}
