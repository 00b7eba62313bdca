//! Sentences become terms, and terms become BM25 scores.
//!
//! Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009). A sentence is the
//! document of the formula; its title and headings and its neighbours are further fields in the manner of BM25F:
//! their occurrences count, weighted, towards a term's frequency before it saturates. Where what is asked for is
//! spread over a passage, the whole surroundings take the sentence's place: see [`Scores::around`].

pub(crate) mod terms;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ops::Range;

use terms::{Term, content_terms};

/// How fast repeated terms saturate.
const K1: f32 = 1.2;
/// As [`K1`], over the surroundings of a sentence.
const K_AROUND: f32 = 4.0;
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

/// Where a sentence stands in its document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) section: usize,
    pub(crate) chunk: usize,
}

/// The terms of a document's sentences.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Index {
    terms: Vec<Term>,
    /// Where each sentence's terms end in `terms`.
    ends: Vec<usize>,
    places: Vec<Place>,
    /// Distinct terms of the title and headings above, by section.
    headings: Vec<Vec<Term>>,
}

/// What the sentences of all documents score for a question.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Scores {
    /// BM25 of the sentence alone.
    pub(crate) lexical: Vec<f32>,
    /// With its headings and neighbours, as a share of the most a sentence could score; 0 to 1.
    pub(crate) share: Vec<f32>,
    /// As `share`, of everything around the sentence, nearer sentences counting more; empty unless asked for.
    pub(crate) around: Vec<f32>,
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

    /// As it was pushed: each sentence's terms and place, and the terms of each section's headings.
    pub(crate) fn from_terms<'a>(
        sentences: impl IntoIterator<Item = (&'a [Term], Place)>,
        headings: Vec<Vec<Term>>,
    ) -> Self {
        let mut index = Self { headings, ..Self::default() };
        for (terms, place) in sentences {
            index.terms.extend(terms);
            index.ends.push(index.terms.len());
            index.places.push(place);
        }
        index
    }

    /// Distinct terms of each section's headings.
    pub(crate) fn headings(&self) -> &[Vec<Term>] {
        &self.headings
    }

    /// Memory its terms take, in bytes.
    pub(crate) fn size(&self) -> usize {
        let headings: usize = self.headings.iter().map(|terms| 24 + 8 * terms.len()).sum();
        self.terms.len() * 8 + headings
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
}

/// Scores every sentence of `documents` for `query`. `decay`, if given, is what a term counts one sentence further away
/// in [`Scores::around`].
pub(crate) fn score(
    documents: &[&Index],
    query: &str,
    weights: Weights,
    decay: Option<f32>,
) -> Scores {
    let matches = Matches::new(documents, query);
    let sentences: usize = documents.iter().map(|document| document.len()).sum();
    let terms: usize = documents.iter().map(|document| document.terms.len()).sum();
    let average = (terms as f32 / sentences.max(1) as f32).max(1.0);
    let mut scores = Scores::default();
    let mut first = 0;
    for (number, document) in documents.iter().enumerate() {
        let of = Document { index: document, matches: &matches, number, first, average };
        of.near(weights, &mut scores);
        if let Some(decay) = decay {
            of.around(decay, &mut scores.around);
        }
        first += document.len();
    }
    scores
}

/// One document while it is scored.
struct Document<'a> {
    index: &'a Index,
    matches: &'a Matches,
    /// Place among the documents.
    number: usize,
    /// Number of its first sentence among all.
    first: usize,
    /// Terms of a sentence on average, over all documents.
    average: f32,
}

impl Document<'_> {
    fn hits(&self, sentence: usize) -> &[Hit] {
        self.matches.of(self.first + sentence)
    }

    /// What a term of a sentence is divided by for the sentence's length.
    fn norm(&self, sentence: usize) -> f32 {
        1.0 - B + B * self.index.terms(sentence).len() as f32 / self.average
    }

    /// [`Scores::lexical`] and [`Scores::share`].
    fn near(&self, weights: Weights, scores: &mut Scores) {
        let (index, matches) = (self.index, self.matches);
        let most = matches.most();
        let mut around = Frequencies::new(matches.weights.len());
        let mut chunk = Frequencies::new(matches.weights.len());
        let mut chunk_now = None;
        for sentence in 0..index.len() {
            let place = index.places[sentence];
            let norm = self.norm(sentence);
            let lexical = self
                .hits(sentence)
                .iter()
                .map(|hit| matches.saturated(hit.query, hit.count / norm))
                .sum();
            if weights.chunk > 0.0 && chunk_now != Some(place.chunk) {
                chunk_now = Some(place.chunk);
                chunk.clear();
                let members =
                    (sentence..index.len()).take_while(|&s| index.places[s].chunk == place.chunk);
                members
                    .flat_map(|s| self.hits(s))
                    .for_each(|hit| chunk.raise(hit.query, weights.chunk));
            }
            around.clear();
            for &query in &chunk.touched {
                around.add(query, chunk.counts[query]);
            }
            for hit in self.hits(sentence) {
                around.add(hit.query, hit.count / norm);
            }
            for &query in &matches.headings[self.number][place.section] {
                around.add(query, weights.heading);
            }
            let mut weight = weights.neighbor;
            for distance in 1..=weights.window {
                let sides = [sentence.checked_sub(distance), Some(sentence + distance)];
                for other in sides.into_iter().flatten().filter(|&other| other < index.len()) {
                    self.hits(other).iter().for_each(|hit| around.add(hit.query, weight));
                }
                weight *= weights.neighbor;
            }
            let total: f32 =
                around.touched.iter().map(|&q| matches.saturated(q, around.counts[q])).sum();
            scores.lexical.push(lexical);
            scores.share.push(if most > 0.0 { (total / most).min(1.0) } else { 0.0 });
        }
    }

    /// [`Scores::around`]: frequencies over the surroundings saturate later ([`K_AROUND`]), since there is more text.
    fn around(&self, decay: f32, scores: &mut Vec<f32>) {
        let (start, matches) = (scores.len(), self.matches);
        scores.resize(start + self.index.len(), 0.0);
        let most: f32 = matches.weights.iter().sum();
        if most <= 0.0 {
            return;
        }
        let mut of_term: Vec<Vec<(usize, f32)>> = vec![Vec::new(); matches.weights.len()];
        for sentence in 0..self.index.len() {
            for hit in self.hits(sentence) {
                of_term[hit.query].push((sentence, hit.count / self.norm(sentence)));
            }
        }
        let mut frequencies = vec![0.0; self.index.len()];
        for (weight, hits) in matches.weights.iter().zip(&of_term).filter(|(_, h)| !h.is_empty()) {
            frequencies.fill(0.0);
            hits.iter().for_each(|&(sentence, count)| frequencies[sentence] = count);
            smooth(&mut frequencies, decay);
            for (score, frequency) in scores[start..].iter_mut().zip(&frequencies) {
                *score += weight / most * frequency / (frequency + K_AROUND);
            }
        }
    }
}

/// Adds to each number all others, a step further away `decay` times as much: in place, in two passes.
pub(crate) fn smooth(values: &mut [f32], decay: f32) {
    let mut ahead = vec![0.0; values.len()];
    let mut sum = 0.0;
    for (ahead, value) in ahead.iter_mut().zip(values.iter()).rev() {
        *ahead = sum;
        sum = (sum + value) * decay;
    }
    let mut sum = 0.0;
    for (value, ahead) in values.iter_mut().zip(ahead) {
        sum = sum * decay + *value;
        *value = sum + ahead;
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
    /// Terms of the question in the headings of each document's sections.
    headings: Vec<Vec<Vec<usize>>>,
}

impl Matches {
    fn new(documents: &[&Index], query: &str) -> Self {
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
        let total: usize = documents.iter().map(|document| document.len()).sum();
        let mut hits: Vec<Hit> = Vec::new();
        let mut ends = Vec::with_capacity(total);
        let mut found = vec![0_u32; weights.len()];
        let sentences = documents
            .iter()
            .flat_map(|document| (0..document.len()).map(|sentence| document.terms(sentence)));
        for terms in sentences {
            let start = hits.len();
            for query in terms.iter().filter_map(|term| numbers.get(term).copied()) {
                if let Some(hit) = hits[start..].iter_mut().find(|hit| hit.query == query) {
                    hit.count += 1.0;
                } else {
                    hits.push(Hit { query, count: 1.0 });
                    found[query] += 1;
                }
            }
            ends.push(hits.len());
        }
        for (weight, &found) in weights.iter_mut().zip(&found) {
            *weight *= inverse_frequency(total as f32, found as f32);
        }
        let asked = |terms: &Vec<Term>| -> Vec<usize> {
            terms.iter().filter_map(|term| numbers.get(term).copied()).collect()
        };
        let headings = documents
            .iter()
            .map(|document| document.headings.iter().map(asked).collect())
            .collect();
        Self { weights, hits, ends, headings }
    }

    fn of(&self, sentence: usize) -> &[Hit] {
        let range: Range<usize> =
            if sentence == 0 { 0 } else { self.ends[sentence - 1] }..self.ends[sentence];
        &self.hits[range]
    }

    /// More than any sentence can score.
    fn most(&self) -> f32 {
        self.weights.iter().map(|weight| weight * (K1 + 1.0)).sum()
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
