//! Token counts kept with stored documents: a long text is counted once for a model, not once for a server.

use pith_context::store::{ContentHash, ModelHash, Store};
use sha2::{Digest as _, Sha256};

use crate::boot::Served;
use crate::prompt::{Counting, TokenCounts};

/// Shorter texts are counted in less time than it takes to keep their counts, bytes.
const MIN_BYTES: usize = 16 << 10;

/// Makes the counts of a stored content's `text` known: those of an earlier server, or counted now and kept. Blocks.
pub(in super::super) fn recall(
    store: &Store,
    tenant: &str,
    content: &ContentHash,
    text: &str,
    served: &Served,
    counts: &TokenCounts,
) {
    let counting = Counting { counts, tenant, model: served.file.fingerprint() };
    let tokenizer = served.file.tokenizer();
    if text.len() < MIN_BYTES || counting.knows(tokenizer, text) {
        return;
    }
    let model = model(served);
    let saved = store.counts(tenant, content, &model).unwrap_or_else(|error| {
        tracing::warn!(%error, "token counts cannot be read");
        None
    });
    if saved.is_some_and(|saved| counting.restore(text, &saved)) {
        return;
    }
    let saved = counting.save(tokenizer, text);
    // The next server counts anew, as this did.
    if let Err(error) = store.put_counts(tenant, content, &model, &saved) {
        tracing::warn!(%error, "token counts cannot be kept");
    }
}

/// Names what counted: the model and this release, for another may cut texts or count tokens otherwise.
fn model(served: &Served) -> ModelHash {
    let mut hash = Sha256::new();
    for part in [env!("CARGO_PKG_VERSION"), served.file.fingerprint()] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}
