//! A document's sentences as vectors of eight-bit numbers, and how near they are to a question.
//!
//! A sentence is also looked at with its neighbours, and as a part of its chunk: the vector of a group is the sum of its
//! sentences', scaled to length 1. Its product with a question is then the sum of theirs over the group's length, which
//! is all that is kept of it.

use std::ops::Range;
use std::sync::Arc;

use crate::segment::Sentence;

/// How much a neighbour's vector counts beside a sentence's own.
const NEIGHBOR: f32 = 0.5;
/// Steps of an eight-bit number on either side of 0.
const STEPS: f32 = 127.0;

/// The vectors of a document's sentences.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Vectors {
    /// [`Embedder::identity`](crate::Embedder::identity) of what made them.
    pub(crate) maker: Arc<str>,
    pub(crate) dimensions: usize,
    /// `dimensions` numbers a sentence.
    pub(crate) codes: Vec<i8>,
    /// What a sentence's numbers are multiplied by; 0 where it has no vector yet.
    pub(crate) scales: Vec<f32>,
    /// Length of the sum of a sentence's vector and its neighbours'.
    windows: Vec<f32>,
    /// Length of the sum of the vectors of each chunk.
    chunks: Vec<f32>,
}

/// How near a document's sentences are to a question: cosines, -1 to 1.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Nearness {
    /// The sentence alone, under its title and headings.
    pub(crate) alone: Vec<f32>,
    /// With the sentences beside it.
    pub(crate) window: Vec<f32>,
    /// Its chunk.
    pub(crate) chunk: Vec<f32>,
    /// Sentences whose nearness is known; it is estimated for the others. Empty: all.
    pub(crate) known: Vec<bool>,
}

impl Nearness {
    /// Of as many sentences, of which nothing is looked at.
    pub(crate) fn zero(sentences: usize) -> Self {
        let zero = vec![0.0; sentences];
        Self { alone: zero.clone(), window: zero.clone(), chunk: zero, known: Vec::new() }
    }

    /// Adds that of the next document, all of it known.
    pub(crate) fn extend(&mut self, next: Self) {
        self.alone.extend(next.alone);
        self.window.extend(next.window);
        self.chunk.extend(next.chunk);
    }

    /// Of some sentences, told by their numbers; all of it known.
    pub(crate) fn of(&self, sentences: &[usize]) -> Self {
        let of = |signal: &[f32]| sentences.iter().map(|&sentence| signal[sentence]).collect();
        let (alone, window, chunk) = (of(&self.alone), of(&self.window), of(&self.chunk));
        Self { alone, window, chunk, known: Vec::new() }
    }
}

impl Vectors {
    /// Rounds `vectors`, `dimensions` numbers each for some of `sentences`, told by their numbers.
    pub(crate) fn new<'a>(
        maker: Arc<str>,
        dimensions: usize,
        vectors: impl IntoIterator<Item = (usize, &'a [f32])>,
        sentences: &[Sentence],
    ) -> Self {
        let mut codes = vec![0; sentences.len() * dimensions];
        let mut scales = vec![0.0; sentences.len()];
        for (sentence, vector) in vectors {
            let most = vector.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
            let scale = if most > 0.0 { most / STEPS } else { 1.0 };
            let codes = &mut codes[sentence * dimensions..][..dimensions];
            codes.iter_mut().zip(vector).for_each(|(code, x)| *code = (x / scale).round() as i8);
            scales[sentence] = scale;
        }
        Self::from_codes(maker, dimensions, codes, scales, sentences)
    }

    /// From rounded numbers, as they are kept.
    pub(crate) fn from_codes(
        maker: Arc<str>,
        dimensions: usize,
        codes: Vec<i8>,
        scales: Vec<f32>,
        sentences: &[Sentence],
    ) -> Self {
        let (windows, chunks) = (Vec::new(), Vec::new());
        let mut vectors = Self { maker, dimensions, codes, scales, windows, chunks };
        let mut sum = vec![0.0; dimensions];
        for sentence in 0..sentences.len() {
            sum.fill(0.0);
            for (other, weight) in neighbors(sentence, sentences.len()) {
                vectors.add(other, weight, &mut sum);
            }
            vectors.windows.push(length(&sum));
        }
        let mut sentence = 0;
        for chunk in sentences.chunk_by(|a, b| a.chunk == b.chunk) {
            sum.fill(0.0);
            for at in sentence..sentence + chunk.len() {
                vectors.add(at, 1.0, &mut sum);
            }
            vectors.chunks.push(length(&sum));
            sentence += chunk.len();
        }
        vectors
    }

    /// Whether a sentence has a vector.
    pub(crate) fn has(&self, sentence: usize) -> bool {
        self.scales[sentence] != 0.0
    }

    /// With those of `more`, of the same sentences.
    pub(crate) fn with(&self, more: &Self, sentences: &[Sentence]) -> Self {
        self.pick(sentences, |sentence| match more.has(sentence) {
            true => Some(more),
            false => Some(self),
        })
    }

    /// Those of the sentences that `wanted` says, as if there were no others.
    pub(crate) fn only(&self, wanted: &[bool], sentences: &[Sentence]) -> Self {
        self.pick(sentences, |sentence| wanted[sentence].then_some(self))
    }

    /// The vector of each sentence from where `from` says.
    fn pick<'a>(&self, sentences: &[Sentence], from: impl Fn(usize) -> Option<&'a Self>) -> Self {
        let dimensions = self.dimensions;
        let mut codes = vec![0; self.codes.len()];
        let mut scales = vec![0.0; self.scales.len()];
        for (sentence, codes) in codes.chunks_exact_mut(dimensions).enumerate() {
            if let Some(from) = from(sentence) {
                codes.copy_from_slice(&from.codes[sentence * dimensions..][..dimensions]);
                scales[sentence] = from.scales[sentence];
            }
        }
        Self::from_codes(Arc::clone(&self.maker), dimensions, codes, scales, sentences)
    }

    /// The sum of some sentences' vectors, scaled to length 1.
    pub(crate) fn sum(&self, sentences: Range<usize>) -> Vec<f32> {
        let mut sum = vec![0.0; self.dimensions];
        sentences.for_each(|sentence| self.add(sentence, 1.0, &mut sum));
        let length = length(&sum);
        sum.iter_mut().for_each(|x| *x /= length);
        sum
    }

    /// Adds `weight` times a sentence's vector to `sum`.
    fn add(&self, sentence: usize, weight: f32, sum: &mut [f32]) {
        let codes = &self.codes[sentence * self.dimensions..][..self.dimensions];
        let scale = weight * self.scales[sentence];
        for (sum, code) in sum.iter_mut().zip(codes) {
            *sum += scale * f32::from(*code);
        }
    }

    /// How near each sentence is to `question`, a vector of length 1 and as many dimensions.
    pub(crate) fn nearness(&self, question: &[f32], sentences: &[Sentence]) -> Nearness {
        let dot = |(codes, scale): (&[i8], &f32)| -> f32 {
            // Sixteen sums side by side, so that the compiler may use wide registers.
            let mut sums = [0.0_f32; 16];
            for (codes, question) in codes.chunks(16).zip(question.chunks(16)) {
                for ((sum, code), question) in sums.iter_mut().zip(codes).zip(question) {
                    *sum += f32::from(*code) * question;
                }
            }
            sums.iter().sum::<f32>() * scale
        };
        let alone: Vec<f32> =
            self.codes.chunks_exact(self.dimensions).zip(&self.scales).map(dot).collect();
        let window = |sentence: usize| {
            let sum: f32 =
                neighbors(sentence, alone.len()).map(|(other, weight)| weight * alone[other]).sum();
            sum / self.windows[sentence]
        };
        let window = (0..alone.len()).map(window).collect();
        // Chunks are numbered from 0 in the order of their sentences.
        let mut chunk = vec![0.0; self.chunks.len()];
        for (of, near) in sentences.iter().zip(&alone) {
            chunk[of.chunk] += near / self.chunks[of.chunk];
        }
        let chunk = sentences.iter().map(|sentence| chunk[sentence.chunk]).collect();
        Nearness { alone, window, chunk, known: Vec::new() }
    }
}

/// A sentence and those beside it, with their weights.
fn neighbors(sentence: usize, sentences: usize) -> impl Iterator<Item = (usize, f32)> {
    [
        sentence.checked_sub(1).map(|before| (before, NEIGHBOR)),
        Some((sentence, 1.0)),
        Some((sentence + 1, NEIGHBOR)).filter(|(after, _)| *after < sentences),
    ]
    .into_iter()
    .flatten()
}

/// Length of a vector; 1 for the zero vector, which may be divided by.
fn length(vector: &[f32]) -> f32 {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    if length > 0.0 { length } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentence(chunk: usize) -> Sentence {
        Sentence { span: 0..1, section: 0, chunk, block: 0, heading: false }
    }

    #[test]
    fn groups_are_as_near_as_their_scaled_sums() {
        let raw: [[f32; 3]; 4] =
            [[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]];
        let sentences = [sentence(0), sentence(0), sentence(1), sentence(1)];
        let vectors =
            Vectors::new("test".into(), 3, raw.iter().map(|x| &x[..]).enumerate(), &sentences);
        let question = [0.0, 1.0, 0.0];
        let near = vectors.nearness(&question, &sentences);
        let cosine = |weights: [f32; 4]| {
            let mut sum = [0.0; 3];
            for (vector, weight) in raw.iter().zip(weights) {
                sum.iter_mut().zip(vector).for_each(|(sum, x)| *sum += weight * x);
            }
            sum[1] / length(&sum)
        };
        let close = |a: f32, b: f32| assert!((a - b).abs() < 0.01, "{a} {b}");
        for (at, raw) in raw.iter().enumerate() {
            close(near.alone[at], raw[1]);
        }
        close(near.window[0], cosine([1.0, 0.5, 0.0, 0.0]));
        close(near.window[1], cosine([0.5, 1.0, 0.5, 0.0]));
        close(near.window[3], cosine([0.0, 0.0, 0.5, 1.0]));
        close(near.chunk[0], cosine([1.0, 1.0, 0.0, 0.0]));
        close(near.chunk[3], cosine([0.0, 0.0, 1.0, 1.0]));
    }

    #[test]
    fn nothing_is_near_a_document_without_sentences_or_a_zero_vector() {
        let none = Vectors::new("test".into(), 2, [], &[]);
        assert_eq!(none.nearness(&[1.0, 0.0], &[]), Nearness::default());
        let zero = Vectors::new("test".into(), 2, [(0, &[0.0, 0.0][..])], &[sentence(0)]);
        assert_eq!(zero.nearness(&[1.0, 0.0], &[sentence(0)]).window, [0.0]);
    }
}
