//! What speaks for each unit: its words, and its meaning.

use pith_context::Bm25;

use super::haystack::{Haystack, text};
use super::vectors::{Matrix, Vectors};
use crate::commands::Failure;

/// Units ready to be scored for many questions.
#[derive(Debug)]
pub(super) struct Searchable<'a> {
    bm25: Bm25,
    dense: Option<(Matrix, &'a Vectors<'a>)>,
}

/// What units score for one question.
#[derive(Debug, Default)]
pub(super) struct Signals {
    pub(super) bm25: Vec<f32>,
    /// Cosines; none without an embedder.
    pub(super) dense: Option<Vec<f32>>,
}

impl<'a> Searchable<'a> {
    /// The units of `haystack` by themselves.
    pub(super) fn plain(
        haystack: &Haystack<'_>,
        vectors: Option<&'a Vectors<'a>>,
    ) -> Result<Self, Failure> {
        let units = haystack.units.iter();
        Self::new(&units.map(|unit| text(haystack.documents, *unit)).collect::<Vec<_>>(), vectors)
    }

    /// Each unit after its document's title; `None` if no document has one.
    pub(super) fn titled(
        haystack: &Haystack<'_>,
        vectors: Option<&'a Vectors<'a>>,
    ) -> Result<Option<Self>, Failure> {
        if haystack.documents.iter().all(|document| document.title.is_none()) {
            return Ok(None);
        }
        let titled = haystack.units.iter().map(|unit| {
            let title = haystack.documents[unit.document].title.as_deref();
            let unit = text(haystack.documents, *unit);
            title.map_or_else(|| unit.to_owned(), |title| format!("{title}. {unit}"))
        });
        Self::new(&titled.collect::<Vec<_>>(), vectors).map(Some)
    }

    fn new<T: AsRef<str>>(texts: &[T], vectors: Option<&'a Vectors<'a>>) -> Result<Self, Failure> {
        let dense = match vectors {
            Some(vectors) => Some((vectors.matrix("sentences", texts)?, vectors)),
            None => None,
        };
        Ok(Self { bm25: Bm25::new(texts.iter().map(AsRef::as_ref)), dense })
    }

    pub(super) fn score(&self, question: &str) -> Result<Signals, Failure> {
        let dense = match &self.dense {
            Some((matrix, vectors)) => Some(matrix.cosines(&vectors.vector(question)?)),
            None => None,
        };
        Ok(Signals { bm25: self.bm25.score(question), dense })
    }
}
