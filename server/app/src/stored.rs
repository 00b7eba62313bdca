//! The store of documents as the settings have it.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use pith_context::store::{Limits, Store};

use crate::config;

/// The store, or why there is none.
#[derive(Debug, Clone)]
pub(crate) struct Stored(Result<Store, Arc<str>>);

impl Stored {
    /// Opens the store that `settings` name. Blocks.
    ///
    /// A folder that is named must open. The usual one may be taken by another server of this user or may not be
    /// writable; then the server goes on without stored documents, and calls about them say why.
    pub(crate) fn open(settings: &config::Store) -> anyhow::Result<Self> {
        let limits = Limits {
            document_bytes: (settings.max_document_mib as u64) << 20,
            versions: settings.max_versions,
            tenant_documents: settings.max_documents,
            tenant_bytes: settings.max_tenant_mib << 20,
            ..Limits::default()
        };
        match settings.dir.as_str() {
            "off" => Ok(Self::none("the settings turn it off")),
            "" => Ok(usual_folder().map_or_else(
                || Self::none("no home folder is known"),
                |folder| match Store::open(&folder, limits) {
                    Ok(store) => Self(Ok(store)),
                    Err(error) => {
                        tracing::warn!(%error, "documents are not stored; store.dir names another folder");
                        Self::none(&error.to_string())
                    }
                },
            )),
            folder => Store::open(folder.as_ref(), limits)
                .map(|store| Self(Ok(store)))
                .with_context(|| format!("cannot open the store {folder}")),
        }
    }

    fn none(why: &str) -> Self {
        Self(Err(why.into()))
    }

    /// The store, or why there is none.
    pub(crate) fn get(&self) -> Result<&Store, &Arc<str>> {
        self.0.as_ref()
    }
}

/// `$PITH_HOME/store`, else `$XDG_STATE_HOME/pith/store`, else `$HOME/.local/state/pith/store`.
fn usual_folder() -> Option<PathBuf> {
    let folder =
        |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let root = folder("PITH_HOME")
        .or_else(|| Some(folder("XDG_STATE_HOME")?.join("pith")))
        .or_else(|| Some(folder("HOME")?.join(".local/state/pith")))?;
    std::path::absolute(root.join("store")).ok()
}
