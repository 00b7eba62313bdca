//! Citations: sentences of the answer tied to the sentences of the context that support them.
//!
//! The answer is cut into sentences as it streams. Each is compared with every kept sentence by the words both
//! hold, a word weighing as much as it is rare in the kept text (stop words nothing), and by the longest
//! run of words that stands in both alike:
//!
//! * A sentence of four content words or more is cited if one source holds at least [`MIN_SUPPORT`] of its weight, two
//!   of its content words, and a run of [`MIN_RUN`] of them (stop words between them aside). Up to [`MAX_SOURCES`] are named: each further one must hold at least [`MIN_GAIN`] of the weight
//!   that none before it holds.
//! * A shorter one ("Wilhelm Conrad Röntgen") is cited only where its words stand in one run, all of them.
//! * A number in the answer must stand in a source named; else nothing is cited: a changed number is no support.
//!
//! Everything else goes without a citation: a missing one is honest, a wrong one is not.

mod answer;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use crate::index::inverse_frequency;
use crate::index::terms::{Occurrence, Term, occurrences};
use crate::segment::segment;
use crate::{Compressed, Document, Packed, Span};
use answer::Answer;

/// Least share of an answer sentence's weight that its first source must hold.
const MIN_SUPPORT: f32 = 0.5;
/// Least length of the longest common run of content words: scattered words are no support.
const MIN_RUN: usize = 2;
/// Least share that a further source must add.
const MIN_GAIN: f32 = 0.2;
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
        let mut citer =
            Self { sources: Vec::new(), holders: HashMap::new(), answer: Answer::default() };
        for piece in &packed.pieces {
            let Span { document, start, .. } = piece.source;
            let text = &packed.text[piece.packed.clone()];
            let format =
                documents.get(document).map(|document| document.format).unwrap_or_default();
            for sentence in segment(text, format).sentences {
                let Range { start: from, end: to } = sentence.span;
                citer.push_source(
                    Span { document, start: start + from, end: start + to },
                    &text[from..to],
                );
            }
        }
        citer
    }

    /// As [`new`](Self::new), and where several sentences support an answer equally, prefers the one that
    /// scored best for the question.
    pub fn ranked(documents: &[Document], compressed: &Compressed) -> Self {
        let mut citer = Self::new(documents, &compressed.context);
        let mut kept = compressed.report.kept.iter().peekable();
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
            let enough = if first {
                gained >= MIN_SUPPORT && (phrase || best.terms.len() >= 2 && best.run >= MIN_RUN)
            } else {
                gained >= MIN_GAIN
            };
            if !enough {
                break;
            }
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
        (!sources.is_empty() && numbers_stand).then_some(Citation { answer, sources })
    }

    /// How much a term says about where an answer comes from; most if the kept text lacks it.
    fn weight(&self, term: Term) -> f32 {
        let found = self.holders.get(&term).map_or(0, Vec::len);
        inverse_frequency(self.sources.len() as f32, found as f32)
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
