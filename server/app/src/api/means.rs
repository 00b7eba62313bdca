//! What requests share beside the model: documents prepared before, what turns of chats sent.

use std::sync::Arc;

use pith_context::{Embedder, PreparedCache, Selections, Tools};

/// What the server keeps for the context stage, over all requests.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    /// Documents made ready for questions.
    pub(crate) prepared: Arc<PreparedCache>,
    /// What turns of chats sent.
    pub(crate) selections: Arc<dyn Selections>,
}

/// What one request may use of it.
#[derive(Clone, Copy)]
pub(super) struct Means<'a> {
    pub(super) tools: Tools<'a>,
    pub(super) selections: &'a dyn Selections,
}

impl Shared {
    /// For a request of `tenant`.
    pub(super) fn means<'a>(
        &'a self,
        tenant: &'a str,
        embedder: Option<&'a dyn Embedder>,
    ) -> Means<'a> {
        let tools = Tools { embedder, cache: Some(&self.prepared), tenant };
        Means { tools, selections: &*self.selections }
    }
}
