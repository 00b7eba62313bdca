//! Vectors of texts, each computed once in a run.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use pith_context::{ContextError, Embedder};

use crate::commands::{Failure, progress};

/// Texts embedded at once.
const BATCH: usize = 64;

/// An embedder that remembers: an embedder itself, so that what is compared shares its vectors.
pub(super) struct Vectors<'a> {
    inner: &'a dyn Embedder,
    known: Mutex<HashMap<String, Arc<[f32]>>>,
}

/// Vectors of some texts, in order.
#[derive(Debug)]
pub(super) struct Matrix {
    dimensions: usize,
    rows: Vec<f32>,
}

impl<'a> Vectors<'a> {
    pub(super) fn new(inner: &'a dyn Embedder) -> Self {
        Self { inner, known: Mutex::default() }
    }

    /// Embeds what is not known of `texts`, with a bar called `label`.
    pub(super) fn warm<T: AsRef<str>>(&self, label: &str, texts: &[T]) -> Result<(), Failure> {
        let mut seen = HashSet::new();
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let texts = texts.iter().map(AsRef::as_ref);
        let mut unknown: Vec<&str> =
            texts.filter(|text| !known.contains_key(*text) && seen.insert(*text)).collect();
        drop(known);
        // Texts of like length lie in one batch, where the longest decides.
        unknown.sort_by_key(|text| text.len());
        let bar = progress::bar(label, unknown.len() as u64);
        for batch in unknown.chunks(BATCH) {
            self.learn(batch).map_err(Failure::new)?;
            bar.inc(batch.len() as u64);
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// The vectors of `texts`.
    pub(super) fn matrix<T: AsRef<str>>(
        &self,
        label: &str,
        texts: &[T],
    ) -> Result<Matrix, Failure> {
        self.warm(label, texts)?;
        let mut rows = Vec::with_capacity(texts.len() * self.dimensions());
        let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
        self.embed(&texts, &mut rows).map_err(Failure::new)?;
        Ok(Matrix { dimensions: self.dimensions(), rows })
    }

    /// The vector of a text.
    pub(super) fn vector(&self, text: &str) -> Result<Vec<f32>, Failure> {
        let mut row = Vec::with_capacity(self.dimensions());
        self.embed(&[text], &mut row).map_err(Failure::new)?;
        Ok(row)
    }

    fn learn(&self, texts: &[&str]) -> Result<(), ContextError> {
        let mut rows = Vec::with_capacity(texts.len() * self.dimensions());
        self.inner.embed(texts, &mut rows)?;
        let rows = rows.chunks(self.dimensions().max(1)).map(Arc::from);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(texts.iter().map(|text| (*text).to_owned()).zip(rows));
        Ok(())
    }
}

impl Embedder for Vectors<'_> {
    fn identity(&self) -> &str {
        self.inner.identity()
    }

    fn dimensions(&self) -> usize {
        self.inner.dimensions()
    }

    fn sketcher(&self) -> Option<&dyn Embedder> {
        self.inner.sketcher()
    }

    fn embed(&self, texts: &[&str], out: &mut Vec<f32>) -> Result<(), ContextError> {
        let known = |text: &str| {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.get(text).cloned()
        };
        let unknown: Vec<&str> =
            texts.iter().copied().filter(|text| known(text).is_none()).collect();
        for batch in unknown.chunks(BATCH) {
            self.learn(batch)?;
        }
        for text in texts {
            let row = known(text).ok_or_else(|| ContextError::Embedder {
                message: "a text has no vector".to_owned(),
            })?;
            out.extend_from_slice(&row);
        }
        Ok(())
    }
}

impl fmt::Debug for Vectors<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vectors").field("identity", &self.identity()).finish_non_exhaustive()
    }
}

impl Matrix {
    /// Products of each row with `vector`: cosines, as vectors have length 1.
    pub(super) fn cosines(&self, vector: &[f32]) -> Vec<f32> {
        let dot = |row: &[f32]| row.iter().zip(vector).map(|(a, b)| a * b).sum();
        self.rows.chunks_exact(self.dimensions.max(1)).map(dot).collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Counts letters: texts of the same letters are alike.
    #[derive(Debug, Default)]
    pub(in crate::commands::eval::context) struct Letters {
        embedded: AtomicUsize,
    }

    impl Embedder for Letters {
        fn identity(&self) -> &str {
            "letters"
        }

        fn dimensions(&self) -> usize {
            26
        }

        fn embed(&self, texts: &[&str], out: &mut Vec<f32>) -> Result<(), ContextError> {
            self.embedded.fetch_add(texts.len(), Ordering::Relaxed);
            for text in texts {
                let mut row = [0_f32; 26];
                for byte in text.bytes().map(|byte| byte.to_ascii_lowercase()) {
                    if byte.is_ascii_lowercase() {
                        row[usize::from(byte - b'a')] += 1.0;
                    }
                }
                let length = row.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-9);
                out.extend(row.map(|x| x / length));
            }
            Ok(())
        }
    }

    #[test]
    fn a_text_is_embedded_once() {
        let letters = Letters::default();
        let vectors = Vectors::new(&letters);
        let matrix = vectors.matrix("texts", &["boat", "ship", "boat"]).unwrap();
        let cosines = matrix.cosines(&vectors.vector("Boat").unwrap());
        assert!(
            (cosines[0] - 1.0).abs() < 1e-6 && cosines[0] == cosines[2] && cosines[1] < 0.5,
            "{cosines:?}"
        );
        vectors.vector("ship").unwrap();
        assert_eq!(letters.embedded.load(Ordering::Relaxed), 3);
    }
}
