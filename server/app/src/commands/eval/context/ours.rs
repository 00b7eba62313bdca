//! Selection as the server does it.

use pith_context::{
    Compressed, ContextError, Document, Embedder, LanguageModel, Mode, Policy, PreparedCache, Span,
    Tools, compress,
};

use super::budget::Budget;
use crate::commands::Failure;

/// Memory of documents prepared before.
const PREPARED_BYTES: usize = 512 << 20;

/// What selecting takes beside a model that counts.
pub(super) struct Ours<'a> {
    embedder: Option<&'a dyn Embedder>,
    embed_bytes: Option<usize>,
    prepared: PreparedCache,
}

impl<'a> Ours<'a> {
    pub(super) fn new(embedder: Option<&'a dyn Embedder>, embed_bytes: Option<usize>) -> Self {
        Self { embedder, embed_bytes, prepared: PreparedCache::new(PREPARED_BYTES) }
    }

    /// As it is, with nothing prepared, and `embedder` in the place of its own.
    pub(super) fn anew<'b>(&self, embedder: Option<&'b dyn Embedder>) -> Ours<'b> {
        Ours::new(embedder, self.embed_bytes)
    }

    /// What is kept of `documents` for `question` by a policy that states a budget and nothing else; `None` if the budget
    /// holds not even a sentence.
    pub(super) fn select(
        &self,
        documents: &[Document],
        question: &str,
        budget: Budget,
        model: &dyn LanguageModel,
    ) -> Result<Option<Compressed>, Failure> {
        let policy = Policy {
            mode: Mode::Retrieve,
            budget: budget.into(),
            query: question.to_owned(),
            ..Policy::default()
        };
        let tools = Tools {
            embedder: self.embedder,
            cache: Some(&self.prepared),
            embed_bytes: self.embed_bytes,
            tenant: "eval",
        };
        match compress(documents, &policy, None, model, tools) {
            Ok(compressed) => Ok(Some(compressed)),
            Err(ContextError::BudgetTooSmall { .. }) => Ok(None),
            Err(error) => Err(Failure::new(format!("selecting for {question:?}: {error}"))),
        }
    }
}

impl std::fmt::Debug for Ours<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ours").field("dense", &self.embedder.is_some()).finish_non_exhaustive()
    }
}

/// Where the kept passages stand, in order.
pub(super) fn passages(compressed: &Compressed) -> Vec<Span> {
    compressed.context.pieces.iter().map(|piece| piece.source).collect()
}

/// The kept sentences, best first; `None` if nothing was left out, so that nothing was ranked.
pub(super) fn ranking(compressed: &Compressed) -> Option<Vec<Span>> {
    if compressed.report.dropped.is_empty() {
        return None;
    }
    let mut kept: Vec<_> = compressed.report.kept.iter().collect();
    kept.sort_by_key(|kept| (kept.rank, kept.span));
    Some(kept.into_iter().map(|kept| kept.span).collect())
}
