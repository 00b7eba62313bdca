//! What the context stage needs of an embedding model.

use crate::ContextError;

/// A model that turns texts into vectors whose dot products say how near two texts are in meaning.
///
/// Optional everywhere: without one, words alone speak for a sentence, and the report says so.
pub trait Embedder: Send + Sync {
    /// Tells vectors of different making apart: changes whenever the same text would get another vector (weights,
    /// tokenizer, pooling, precision). Part of the key under which vectors are kept.
    fn identity(&self) -> &str;

    /// Components of a vector.
    fn dimensions(&self) -> usize;

    /// Appends a vector of length 1 for each of `texts` to `out`, in order: `texts.len() * dimensions()` numbers. A
    /// text longer than the model takes is cut at its end; an empty one has a vector too. The same text has
    /// the same vector, whatever stands beside it.
    ///
    /// # Errors
    /// [`ContextError::Embedder`] if the model fails; nothing is kept of the call.
    fn embed(&self, texts: &[&str], out: &mut Vec<f32>) -> Result<(), ContextError>;

    /// A far faster one whose vectors say roughly the same: of a long document it tells which sentences are worth this
    /// one's time. `None`: words alone tell.
    fn sketcher(&self) -> Option<&dyn Embedder> {
        None
    }
}
