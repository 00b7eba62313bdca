//! BM25 of plain texts: the words of the context stage, for whoever ranks texts that are no documents.

use crate::index::{self, Index, Place, Weights};

/// A sentence stands for itself.
const ALONE: Weights = Weights { heading: 0.0, chunk: 0.0, neighbor: 0.0, window: 0 };

/// Texts whose terms are known, to be scored for many queries.
#[derive(Debug)]
pub struct Bm25(Index);

impl Bm25 {
    /// Reads `texts`.
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut index = Index::default();
        index.push_section([]);
        for text in texts {
            index.push(text, Place { section: 0, chunk: 0 });
        }
        Self(index)
    }

    /// BM25 (k1 1.2, b 0.75) of each text for `query`, in order; 0 where they share no word that is searched for.
    /// Comparable among these texts and for one query only.
    pub fn score(&self, query: &str) -> Vec<f32> {
        index::score(&[&self.0], query, ALONE, None).lexical
    }
}

/// As [`Bm25::score`], of texts that are scored once.
#[must_use]
pub fn bm25(texts: &[&str], query: &str) -> Vec<f32> {
    Bm25::new(texts.iter().copied()).score(query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rare_word_counts_more_than_a_common_one() {
        let texts = ["the harbour has a lighthouse", "the harbour has ships", "harbour"];
        let scores = Bm25::new(texts).score("harbour lighthouse");
        assert!(scores[0] > scores[1] && scores[1] > 0.0, "{scores:?}");
        // One hit in a shorter text weighs more.
        assert!(scores[2] > scores[1], "{scores:?}");
        assert_eq!(Bm25::new(texts).score("whales"), [0.0; 3]);
        assert!(Bm25::new([]).score("whales").is_empty());
    }

    #[test]
    fn scores_are_those_of_the_formula() {
        // One of two texts, both of two terms, holds the term once: ln(1 + 1.5 / 1.5) * 2.2 / 2.2.
        let scores = Bm25::new(["red boat", "blue boat"]).score("red");
        assert!((scores[0] - 2f32.ln()).abs() < 1e-6, "{scores:?}");
    }

    #[test]
    fn rare_words_in_short_texts_score_most() {
        let texts = [
            "The bridge is old.",
            "The bridge over the weir is old, and so is the bridge over the river.",
            "The weir is new.",
            "Nothing of the kind.",
        ];
        let scores = bm25(&texts, "Which weir is it?");
        assert!(scores[2] > scores[1] && scores[1] > 0.0, "{scores:?}");
        assert_eq!((scores[0], scores[3]), (0.0, 0.0));
        assert_eq!(bm25(&texts, "of the"), [0.0; 4]);
        assert!(bm25(&[], "weir").is_empty());
        // A neighbour's words are its own.
        assert_eq!(bm25(&["weir", "mill"], "weir")[1], 0.0);
    }
}
