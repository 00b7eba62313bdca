//! Where a request's documents are laid out: their texts fetched and read, and what earlier requests left to work with.

use std::sync::Arc;
use std::time::Instant;

use pith_context::store::{ContentHash, Store};
use pith_context::{
    Document, Embedder, Prepared, PreparedCache, PreparedKey, SelectionKey, Selections, Tools,
};
use pith_proto::v1::OffsetUnit;

use super::documents::{counts, sources};
use super::status::ApiError;
use super::validate::Sources;
use super::{Api, Rest, hints, originals};
use crate::boot::Served;
use crate::language_model::Cancelled;
use crate::prompt::TokenCounts;

/// What the server keeps for the context stage, over all requests.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    /// Documents made ready for questions.
    pub(crate) prepared: Arc<PreparedCache>,
    /// What turns of chats sent.
    pub(crate) selections: Arc<dyn Selections>,
    /// Tokens of what was counted before.
    pub(crate) counts: Arc<TokenCounts>,
    /// Most bytes embedded for a request.
    pub(crate) embed_bytes: Option<usize>,
    /// Where the rest is left.
    pub(crate) rest: Rest,
}

/// All that preparing a request needs beside the model, to be taken to the preparers' threads.
pub(super) struct Desk {
    shared: Shared,
    turns: Turns,
    embedder: Option<Arc<dyn Embedder>>,
}

/// What turns of chats sent: in memory, and for chats about stored documents with these, so that it survives a restart and
/// goes when they go.
#[derive(Debug)]
struct Turns {
    recent: Arc<dyn Selections>,
    /// Set if the request has stored documents.
    store: Option<Store>,
    /// Theirs.
    contents: Vec<ContentHash>,
}

impl Selections for Turns {
    fn get(&self, key: &SelectionKey) -> Option<Vec<u8>> {
        self.recent.get(key).or_else(|| {
            let found = self.store.as_ref()?.selection(&key.tenant, &key.digest);
            found.inspect_err(|error| tracing::warn!(%error, "a turn cannot be read")).ok()?
        })
    }

    fn put(&self, key: &SelectionKey, value: Vec<u8>) {
        if let Some(store) = &self.store {
            let kept = store.put_selection(&key.tenant, key.digest, &value, &self.contents);
            match kept {
                Ok(true) => {}
                // A document went while its chat was prepared: nothing of it is to stay.
                Ok(false) => return,
                // The next turn does without, as after any forgetting.
                Err(error) => tracing::warn!(%error, "a turn cannot be kept"),
            }
        }
        self.recent.put(key, value);
    }

    fn forget(&self, tenant: &str) {
        self.recent.forget(tenant);
    }
}

/// What one request may use.
#[derive(Clone, Copy)]
pub(super) struct Means<'a> {
    pub(super) tools: Tools<'a>,
    pub(super) selections: &'a dyn Selections,
    pub(super) counts: &'a TokenCounts,
}

impl Api {
    /// The desk of a request with these `sources`.
    pub(super) fn desk(&self, sources: &Sources) -> Result<Desk, ApiError> {
        Ok(Desk {
            shared: self.shared.clone(),
            turns: Turns {
                recent: Arc::clone(&self.shared.selections),
                store: self.store_for(sources)?,
                contents: Vec::new(),
            },
            embedder: self.serving.embedder(),
        })
    }
}

impl Desk {
    /// Gives every document of `sources` its text and hints, for a prompt of `served`: from the store, from files, as it
    /// was sent. Blocks.
    pub(super) fn read(
        &mut self,
        sources: &mut Sources,
        tenant: &str,
        served: &Served,
        unit: OffsetUnit,
        deadline: Instant,
        cancelled: &Cancelled,
    ) -> Result<(), ApiError> {
        let keep =
            |store: &Store, content: &ContentHash, document: &Document, prepared: Option<&[u8]>| {
                if let Some(prepared) = prepared {
                    self.keep(tenant, document, prepared);
                }
                counts::recall(store, tenant, content, &document.text, served, &self.shared.counts);
            };
        let contents = sources::resolve(sources, self.turns.store.as_ref(), tenant, unit, keep)?;
        self.turns.contents = contents;
        originals::read(sources, unit, deadline, cancelled)?;
        hints::resolve(sources, unit)
    }

    /// For a request of `tenant`.
    pub(super) fn means<'a>(&'a self, tenant: &'a str) -> Means<'a> {
        let Shared { prepared, counts, embed_bytes, .. } = &self.shared;
        let tools = Tools {
            embedder: self.embedder.as_deref(),
            cache: Some(prepared),
            embed_bytes: *embed_bytes,
            tenant,
        };
        Means { tools, selections: &self.turns, counts }
    }

    /// To be called when a request of `tenant` got what it needs of its documents: what of them was not embedded is, later.
    pub(super) fn leave(&self, tenant: &str, documents: &[Document]) {
        if let Some(embedder) = self.embedder.as_ref().filter(|_| self.shared.embed_bytes.is_some())
        {
            self.shared.rest.leave(tenant, documents, embedder);
        }
    }

    /// Takes what was stored with `document` for as good as prepared just now, if it would come out the same.
    fn keep(&self, tenant: &str, document: &Document, bytes: &[u8]) {
        let maker = self.embedder.as_ref().map_or("", |embedder| embedder.identity());
        let key = PreparedKey::new(tenant, document, maker);
        if self.shared.prepared.get(&key).is_some_and(|kept| kept.is_embedded() || maker.is_empty())
        {
            return;
        }
        let prepared = Prepared::decode(bytes, document).filter(|kept| kept.maker() == maker);
        if let Some(prepared) = prepared {
            self.shared.prepared.put(key, Arc::new(prepared));
        }
    }
}
