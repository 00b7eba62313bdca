//! Vectors of sentences, each read after its title and headings: they say what "it" is about.

use std::borrow::Cow;
use std::collections::HashMap;

use super::{Prepared, path};
use crate::segment::{Segments, Sentence, segment_document};
use crate::vectors::Vectors;
use crate::{ContextError, Document, Embedder};

/// Texts given to the embedder at once; between two such calls the caller may end the work.
const EMBED_AT_ONCE: usize = 256;
/// Most bytes of title and headings before a sentence when it is embedded.
const MAX_PATH_BYTES: usize = 160;
/// Stands between them and the sentence.
const JOINT: &str = ": ";

/// The title and headings of each section, as its sentences are embedded under them.
pub(super) fn paths(document: &Document, cut: &Segments) -> Vec<String> {
    let path = |section| {
        let mut path = path(document, cut, section).join(JOINT);
        path.truncate(path.floor_char_boundary(MAX_PATH_BYTES));
        path
    };
    cut.sections.iter().map(path).collect()
}

impl Prepared {
    /// Bytes that are embedded for each sentence of `document`, which it was made of.
    pub(crate) fn costs(&self, document: &Document) -> Vec<usize> {
        let paths = match &self.paths {
            Some(paths) => Cow::Borrowed(paths),
            None => Cow::Owned(paths(document, &segment_document(document))),
        };
        let cost = |sentence: &Sentence| match (paths[sentence.section].len(), sentence.heading) {
            (0, _) => sentence.span.len(),
            (path, true) => path,
            (path, false) => path + JOINT.len() + sentence.span.len(),
        };
        self.sentences.iter().map(cost).collect()
    }

    /// Whether a sentence has a vector.
    fn has(&self, sentence: usize) -> bool {
        self.vectors.as_ref().is_some_and(|vectors| vectors.has(sentence))
    }

    /// Whether some of the sentences that `wanted` says have no vector; also if there are none at all.
    pub(crate) fn lacks(&self, wanted: impl Fn(usize) -> bool) -> bool {
        let missing = |sentence| wanted(sentence) && !self.has(sentence);
        self.vectors.is_none() || (0..self.sentences.len()).any(missing)
    }

    /// Sees to it that the sentences that `wanted` says have vectors of `embedder`.
    pub(crate) fn embed(
        &mut self,
        document: &Document,
        embedder: &dyn Embedder,
        wanted: impl Fn(usize) -> bool,
        proceed: &mut dyn FnMut() -> Result<(), ContextError>,
    ) -> Result<(), ContextError> {
        let missing: Vec<usize> =
            (0..self.sentences.len()).filter(|&at| wanted(at) && !self.has(at)).collect();
        let vectors = self.vectors_of(document, embedder, &missing, proceed)?;
        self.vectors = Some(match &self.vectors {
            Some(before) => before.with(&vectors, &self.sentences),
            None => vectors,
        });
        Ok(())
    }

    /// Gives up to `most` of the sentences of `document`, which it was made of, that have no vector yet one of `embedder`.
    ///
    /// # Errors
    /// The embedder's.
    pub fn embed_more(
        &mut self,
        document: &Document,
        embedder: &dyn Embedder,
        most: usize,
    ) -> Result<(), ContextError> {
        let lacking = (0..self.sentences.len()).filter(|&sentence| !self.has(sentence));
        let end = lacking.take(most).last().map_or(0, |last| last + 1);
        self.embed(document, embedder, |sentence| sentence < end, &mut || Ok(()))
    }

    /// Gives all sentences vectors of `sketcher`, beside those of the embedder.
    pub(crate) fn sketch(
        &mut self,
        document: &Document,
        sketcher: &dyn Embedder,
        proceed: &mut dyn FnMut() -> Result<(), ContextError>,
    ) -> Result<(), ContextError> {
        let all: Vec<usize> = (0..self.sentences.len()).collect();
        self.sketch = Some(self.vectors_of(document, sketcher, &all, proceed)?);
        Ok(())
    }

    /// Vectors of some sentences, in order, and none of the others.
    fn vectors_of(
        &mut self,
        document: &Document,
        embedder: &dyn Embedder,
        wanted: &[usize],
        proceed: &mut dyn FnMut() -> Result<(), ContextError>,
    ) -> Result<Vectors, ContextError> {
        let read = || paths(document, &segment_document(document));
        let paths = self.paths.get_or_insert_with(read);
        let text = |sentence: &Sentence| match (&*paths[sentence.section], sentence.heading) {
            ("", _) => document.text[sentence.span.clone()].to_owned(),
            // A heading line stands in its own path.
            (path, true) => path.to_owned(),
            (path, false) => format!("{path}{JOINT}{}", &document.text[sentence.span.clone()]),
        };
        // "Yes." is said often in a meeting, and means the same each time.
        let mut places: HashMap<String, usize> = HashMap::new();
        let mut distinct: Vec<String> = Vec::new();
        let mut place_of = Vec::with_capacity(wanted.len());
        for &sentence in wanted {
            let text = text(&self.sentences[sentence]);
            let next = places.len();
            place_of.push(*places.entry(text.clone()).or_insert(next));
            if places.len() > next {
                distinct.push(text);
            }
        }
        let dimensions = embedder.dimensions();
        let mut vectors = Vec::with_capacity(distinct.len() * dimensions);
        for texts in distinct.chunks(EMBED_AT_ONCE) {
            proceed()?;
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            embedder.embed(&texts, &mut vectors)?;
        }
        if vectors.len() != distinct.len() * dimensions {
            let message = "the embedder did not give a vector for each text".to_owned();
            return Err(ContextError::Embedder { message });
        }
        let vectors = wanted
            .iter()
            .zip(place_of)
            .map(|(sentence, place)| (*sentence, &vectors[place * dimensions..][..dimensions]));
        Ok(Vectors::new(embedder.identity().into(), dimensions, vectors, &self.sentences))
    }
}
