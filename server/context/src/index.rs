//! Sentences become terms, and terms become BM25 scores.
//!
//! Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009). A sentence is the
//! document of the formula; its title and headings and its neighbours are further fields in the manner of BM25F:
//! their occurrences count, weighted, towards a term's frequency before it saturates.

pub(crate) mod terms;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ops::Range;

use terms::{Term, content_terms};

/// How fast repeated terms saturate.
const K1: f32 = 1.2;
/// How much a long sentence's terms are discounted.
const B: f32 = 0.75;
/// Distinct terms of a question that are looked for, so that a pasted page costs no more than a long question.
const MAX_QUERY_TERMS: usize = 256;

/// What the other fields count beside the sentence itself, in occurrences.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Weights {
    /// A term of the title or a heading above.
    pub(crate) heading: f32,
    /// A term of the same chunk.
    pub(crate) chunk: f32,
    /// A term of the next sentence on either side; each further one counts this much less again.
    pub(crate) neighbor: f32,
    /// Sentences on either side that are looked at.
    pub(crate) window: usize,
}

/// Where a sentence stands, in numbers that are unique over all documents.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) document: usize,
    pub(crate) section: usize,
    pub(crate) chunk: usize,
}

/// The terms of all sentences.
#[derive(Debug, Default)]
pub(crate) struct Index {
    terms: Vec<Term>,
    /// Where each sentence's terms end in `terms`.
    ends: Vec<usize>,
    places: Vec<Place>,
    /// Distinct terms of the title and headings above, by section.
    headings: Vec<Vec<Term>>,
}

/// What a sentence scores for a question.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Score {
    /// BM25 of the sentence alone.
    pub(crate) lexical: f32,
    /// With its headings and neighbours, as a share of the most a sentence could score; 0 to 1.
    pub(crate) share: f32,
}

impl Index {
    /// Adds the next section: `headings` are its document's title and the headings it stands under.
    pub(crate) fn push_section<'a>(&mut self, headings: impl IntoIterator<Item = &'a str>) {
        let mut terms: Vec<Term> = headings.into_iter().flat_map(content_terms).collect();
        terms.sort_unstable();
        terms.dedup();
        self.headings.push(terms);
    }

    /// Adds the next sentence.
    pub(crate) fn push(&mut self, text: &str, place: Place) {
        self.terms.extend(content_terms(text));
        self.ends.push(self.terms.len());
        self.places.push(place);
    }

    /// Number of sentences.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The terms of a sentence.
    pub(crate) fn terms(&self, sentence: usize) -> &[Term] {
        let start = if sentence == 0 { 0 } else { self.ends[sentence - 1] };
        &self.terms[start..self.ends[sentence]]
    }

    /// Scores every sentence for `query`.
    pub(crate) fn score(&self, query: &str, weights: Weights) -> Vec<Score> {
        let matches = Matches::new(self, query);
        let average = (self.terms.len() as f32 / self.len().max(1) as f32).max(1.0);
        let most: f32 = matches.weights.iter().map(|weight| weight * (K1 + 1.0)).sum();
        let mut around = Frequencies::new(matches.weights.len());
        let mut chunk = Frequencies::new(matches.weights.len());
        let mut chunk_now = None;
        let mut scores = Vec::with_capacity(self.len());
        for sentence in 0..self.len() {
            let place = self.places[sentence];
            let norm = 1.0 - B + B * self.terms(sentence).len() as f32 / average;
            let lexical = matches
                .of(sentence)
                .iter()
                .map(|hit| matches.saturated(hit.query, hit.count / norm))
                .sum();
            if weights.chunk > 0.0 && chunk_now != Some(place.chunk) {
                chunk_now = Some(place.chunk);
                chunk.clear();
                let members =
                    (sentence..self.len()).take_while(|&s| self.places[s].chunk == place.chunk);
                members
                    .flat_map(|s| matches.of(s))
                    .for_each(|hit| chunk.raise(hit.query, weights.chunk));
            }
            around.clear();
            for &query in &chunk.touched {
                around.add(query, chunk.counts[query]);
            }
            for hit in matches.of(sentence) {
                around.add(hit.query, hit.count / norm);
            }
            for &query in &matches.headings[place.section] {
                around.add(query, weights.heading);
            }
            let mut weight = weights.neighbor;
            for distance in 1..=weights.window {
                for other in [sentence.checked_sub(distance), Some(sentence + distance)]
                    .into_iter()
                    .flatten()
                {
                    if self.places.get(other).is_some_and(|p| p.document == place.document) {
                        matches.of(other).iter().for_each(|hit| around.add(hit.query, weight));
                    }
                }
                weight *= weights.neighbor;
            }
            let total: f32 =
                around.touched.iter().map(|&q| matches.saturated(q, around.counts[q])).sum();
            scores.push(Score {
                lexical,
                share: if most > 0.0 { (total / most).min(1.0) } else { 0.0 },
            });
        }
        scores
    }
}

/// A term of the question in a sentence.
#[derive(Debug, Clone, Copy)]
struct Hit {
    query: usize,
    count: f32,
}

/// Where the question's terms occur.
#[derive(Debug)]
struct Matches {
    /// Inverse document frequency of each distinct term, times its count in the question.
    weights: Vec<f32>,
    hits: Vec<Hit>,
    ends: Vec<usize>,
    /// Terms of the question in each section's headings.
    headings: Vec<Vec<usize>>,
}

impl Matches {
    fn new(index: &Index, query: &str) -> Self {
        let mut numbers: HashMap<Term, usize> = HashMap::new();
        let mut weights: Vec<f32> = Vec::new();
        for term in content_terms(query) {
            match numbers.get(&term) {
                Some(&number) => weights[number] += 1.0,
                None if weights.len() < MAX_QUERY_TERMS => {
                    numbers.insert(term, weights.len());
                    weights.push(1.0);
                }
                None => {}
            }
        }
        let mut hits: Vec<Hit> = Vec::new();
        let mut ends = Vec::with_capacity(index.len());
        let mut found = vec![0_u32; weights.len()];
        for sentence in 0..index.len() {
            let start = hits.len();
            for query in index.terms(sentence).iter().filter_map(|term| numbers.get(term).copied())
            {
                if let Some(hit) = hits[start..].iter_mut().find(|hit| hit.query == query) {
                    hit.count += 1.0;
                } else {
                    hits.push(Hit { query, count: 1.0 });
                    found[query] += 1;
                }
            }
            ends.push(hits.len());
        }
        let total = index.len() as f32;
        for (weight, &found) in weights.iter_mut().zip(&found) {
            *weight *= inverse_frequency(total, found as f32);
        }
        let headings = index.headings.iter();
        let headings = headings
            .map(|terms| terms.iter().filter_map(|t| numbers.get(t).copied()).collect())
            .collect();
        Self { weights, hits, ends, headings }
    }

    fn of(&self, sentence: usize) -> &[Hit] {
        let range: Range<usize> =
            if sentence == 0 { 0 } else { self.ends[sentence - 1] }..self.ends[sentence];
        &self.hits[range]
    }

    /// A term's share in the score at a (length-normalised) frequency.
    fn saturated(&self, query: usize, frequency: f32) -> f32 {
        self.weights[query] * frequency * (K1 + 1.0) / (frequency + K1)
    }
}

/// How much a term says that `found` of `total` sentences hold; above 0 for every term.
pub(crate) fn inverse_frequency(total: f32, found: f32) -> f32 {
    (1.0 + (total - found + 0.5) / (found + 0.5)).ln()
}

/// Frequencies of the question's terms around one sentence.
struct Frequencies {
    counts: Vec<f32>,
    touched: Vec<usize>,
}

impl Frequencies {
    fn new(terms: usize) -> Self {
        Self { counts: vec![0.0; terms], touched: Vec::new() }
    }

    fn clear(&mut self) {
        for query in self.touched.drain(..) {
            self.counts[query] = 0.0;
        }
    }

    fn add(&mut self, query: usize, count: f32) {
        if self.counts[query] == 0.0 {
            self.touched.push(query);
        }
        self.counts[query] += count;
    }

    fn raise(&mut self, query: usize, count: f32) {
        if self.counts[query] == 0.0 {
            self.touched.push(query);
        }
        self.counts[query] = self.counts[query].max(count);
    }
}
