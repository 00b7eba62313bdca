//! What is stored of a document, and what comes back.

use std::collections::BTreeMap;
use std::ops::Range;

use sha2::{Digest as _, Sha256};

use super::{Limits, StoreError};
use crate::extract::Way;

/// Longest name of a document, bytes.
pub const MAX_ID_BYTES: usize = 128;
/// Most components of a vector: beyond, the sums of a dot product could overflow.
pub const MAX_DIMENSIONS: usize = 8192;
/// Most bytes of title, type and metadata together.
const MAX_HEADER_BYTES: usize = 1 << 20;

/// Name of a content: equal for the same content of one tenant, unlike for another's, so that nobody can find out
/// what others have stored.
pub type ContentHash = [u8; 32];

/// A document to be stored, with what was made of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Content {
    /// The text all offsets refer to.
    pub text: String,
    /// What was uploaded, unless that is the text byte for byte.
    pub original: Option<Original>,
    /// What was uploaded is of this kind.
    pub mime: String,
    /// Title, if any.
    pub title: Option<String>,
    /// The caller's notes.
    pub metadata: BTreeMap<String, String>,
    /// Whatever is to be had back with the text: not interpreted here.
    pub prepared: Vec<u8>,
    /// What searches find, in any order.
    pub chunks: Vec<Chunk>,
    /// [`Embedder::identity`](crate::Embedder::identity) of the model that made the vectors. Needed if there are any.
    pub embedder: Option<String>,
}

/// A file that text was extracted from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Original {
    /// The file.
    pub bytes: Vec<u8>,
    /// The way from the text back to it.
    pub way: Way,
    /// [`Extracted::left_out`](crate::Extracted::left_out).
    pub left_out: u64,
}

/// A stretch of text that a search may find.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Chunk {
    /// Bytes of the text.
    pub span: Range<usize>,
    /// Its terms, as often as they occur ([`crate::terms`]).
    pub terms: Vec<u64>,
    /// Its vector, of length 1.
    pub vector: Option<Vec<f32>>,
}

/// One version of a stored document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The document's name.
    pub id: String,
    /// Number of the version, from 1.
    pub version: u64,
    /// Name of upload, text, type, title and metadata together.
    pub content: ContentHash,
    /// Bytes of text.
    pub text_bytes: u64,
    /// Bytes of what was uploaded, the text itself or what it was extracted from.
    pub original_bytes: u64,
    /// Glyphs left out of the text, see [`Original::left_out`].
    pub left_out: u64,
    /// Chunks it was stored with.
    pub chunks: u64,
    /// When it was stored, seconds since 1970.
    pub stored_at: u64,
    /// What kind of document it is.
    pub mime: String,
    /// Title, if any.
    pub title: Option<String>,
    /// The caller's notes.
    pub metadata: BTreeMap<String, String>,
    /// Identity of the model that made the vectors.
    pub embedder: Option<String>,
}

/// A version with its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// What it is.
    pub version: Version,
    /// The text.
    pub text: String,
    /// The way back to what was uploaded ([`Store::original`](super::Store::original)), unless that is the text.
    pub way: Option<Way>,
    /// As it was stored.
    pub prepared: Vec<u8>,
}

/// What came of storing a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// The version that holds the content now.
    pub version: Version,
    /// Whether it is new; the same content as the latest version makes no new one.
    pub created: bool,
    /// Contents that went, for there were too many versions: to be purged from caches.
    pub purged: Vec<ContentHash>,
}

/// Some of a tenant's documents.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The latest version of each, by id.
    pub documents: Vec<Version>,
    /// Where the next page begins; `None`: this is the last.
    pub next: Option<String>,
}

impl Content {
    /// Whether it can be stored at all.
    pub(super) fn check(&self, limits: &Limits) -> Result<(), StoreError> {
        let bytes = (self.text.len() + self.prepared.len()) as u64;
        let largest = self.text.len().max(self.original.as_ref().map_or(0, |o| o.bytes.len()));
        if largest as u64 > limits.document_bytes || bytes > u64::from(u32::MAX) {
            return Err(StoreError::TooLarge { limit: limits.document_bytes });
        }
        let metadata: usize =
            self.metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
        let title = self.title.as_ref().map_or(0, String::len);
        if metadata + title + self.mime.len() > MAX_HEADER_BYTES {
            let message = format!("must have at most {MAX_HEADER_BYTES} bytes with title and type");
            return Err(StoreError::invalid("metadata", message));
        }
        let mut dimensions = None;
        for chunk in &self.chunks {
            if chunk.span.is_empty() || self.text.get(chunk.span.clone()).is_none() {
                let message = format!("{:?} is no stretch of the text", chunk.span);
                return Err(StoreError::invalid("chunks", message));
            }
            let Some(vector) = &chunk.vector else { continue };
            if self.embedder.is_none() {
                return Err(StoreError::invalid("embedder", "must be named with vectors"));
            }
            if !(1..=MAX_DIMENSIONS).contains(&vector.len())
                || *dimensions.get_or_insert(vector.len()) != vector.len()
                || !vector.iter().all(|component| component.is_finite())
            {
                let message = format!(
                    "must have vectors of one length, 1 to {MAX_DIMENSIONS} finite numbers"
                );
                return Err(StoreError::invalid("chunks", message));
            }
        }
        Ok(())
    }

    /// Name of what the caller gave.
    pub(super) fn hash(&self, salt: &[u8; 32]) -> ContentHash {
        let mut hasher = Sha256::new();
        let mut add = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        add(salt);
        add(self.mime.as_bytes());
        add(&[u8::from(self.title.is_some())]);
        add(self.title.as_deref().unwrap_or_default().as_bytes());
        add(&(self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            add(key.as_bytes());
            add(value.as_bytes());
        }
        add(self.text.as_bytes());
        // Another release may read the same file otherwise: then it is another content.
        if let Some(original) = &self.original {
            add(&original.bytes);
        }
        hasher.finalize().into()
    }

    /// Tells apart what was made of equal contents: another embedder, other chunks.
    pub(super) fn derived_hash(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update((self.prepared.len() as u64).to_le_bytes());
        hasher.update(&self.prepared);
        if let Some(original) = &self.original {
            let way = original.way.encode();
            hasher.update((way.len() as u64).to_le_bytes());
            hasher.update(way);
        }
        let embedder = self.embedder.as_deref().unwrap_or_default();
        hasher.update((embedder.len() as u64).to_le_bytes());
        hasher.update(embedder);
        for chunk in &self.chunks {
            let vector = chunk.vector.as_deref().unwrap_or_default();
            for number in [chunk.span.start, chunk.span.end, chunk.terms.len(), vector.len()] {
                hasher.update((number as u64).to_le_bytes());
            }
            for term in &chunk.terms {
                hasher.update(term.to_le_bytes());
            }
            for component in vector {
                hasher.update(component.to_le_bytes());
            }
        }
        hasher.finalize().into()
    }
}

/// Whether `id` can name a document.
pub(super) fn check_id(id: &str) -> Result<(), StoreError> {
    if (1..=MAX_ID_BYTES).contains(&id.len()) {
        return Ok(());
    }
    Err(StoreError::invalid("id", format!("must have 1 to {MAX_ID_BYTES} bytes")))
}
