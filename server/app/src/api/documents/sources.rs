//! Stored documents that stand in a request by their ids.

use pith_context::Document;
use pith_context::store::{ContentHash, MAX_ID_BYTES, Store};

use super::super::Api;
use super::super::status::ApiError;
use super::super::validate::{Sources, format};

/// Most bytes of stored texts in one request: as much as one document may have unless the settings say otherwise.
const MAX_BYTES: u64 = 64 << 20;

/// A document of a request whose text is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Reference {
    /// Its place in the request.
    pub(in super::super) index: usize,
    id: String,
    version: Option<u64>,
    /// Whether the request says how it is to be read.
    pub(in super::super) has_format: bool,
}

impl Reference {
    /// What `stored_id` of the document at `index` names: "id" or "id@version".
    pub(in super::super) fn parse(
        index: usize,
        stored_id: &str,
        has_format: bool,
    ) -> Result<Self, ApiError> {
        let wrong = |reason: String| ApiError::field(field(index), reason);
        let (id, version) = match stored_id.split_once('@') {
            None => (stored_id, None),
            Some((id, version)) => match version.parse() {
                Ok(version) if version > 0 => (id, Some(version)),
                _ => return Err(wrong("must be \"id\" or \"id@version\"".to_owned())),
            },
        };
        if !(1..=MAX_ID_BYTES).contains(&id.len()) {
            return Err(wrong(format!("must name a document by 1 to {MAX_ID_BYTES} bytes")));
        }
        Ok(Self { index, id: id.to_owned(), version, has_format })
    }

    /// Name of the document without its version.
    pub(in super::super) fn id(&self) -> &str {
        &self.id
    }
}

fn field(index: usize) -> String {
    format!("documents[{index}].stored_id")
}

impl Api {
    /// The store, if `sources` need one.
    pub(in super::super) fn store_for(&self, sources: &Sources) -> Result<Option<Store>, ApiError> {
        if sources.stored.is_empty() { Ok(None) } else { self.store().map(Some) }
    }
}

/// Puts the stored texts of `tenant` in their places. What was prepared when a document was stored is given to `keep`,
/// unless the request reads it otherwise. Gives the contents they came from. Blocks.
pub(in super::super) fn resolve(
    sources: &mut Sources,
    store: Option<&Store>,
    tenant: &str,
    keep: impl Fn(&Document, &[u8]),
) -> Result<Vec<ContentHash>, ApiError> {
    let Some(store) = store else { return Ok(Vec::new()) };
    let (mut bytes, mut contents) = (0, Vec::new());
    for Reference { index, id, version, has_format } in std::mem::take(&mut sources.stored) {
        let unknown = || ApiError::unknown_document(field(index), id.clone());
        // Known before the text is read.
        let size = store.describe(tenant, &id, version)?.ok_or_else(unknown)?.text_bytes;
        bytes += size;
        if bytes > MAX_BYTES {
            let reason =
                format!("the stored documents up to this one exceed {MAX_BYTES} bytes of text");
            return Err(ApiError::field(field(index), reason));
        }
        let stored = store.get(tenant, &id, version)?.ok_or_else(unknown)?;
        contents.push(stored.version.content);
        let document = &mut sources.documents[index];
        document.text = stored.text;
        if !has_format {
            document.format = format(&stored.version.mime)
                .map_err(|reason| ApiError::field(field(index), reason))?;
        }
        let as_stored = !has_format && document.title.is_none();
        if document.title.is_none() {
            document.title = stored.version.title;
        }
        if document.metadata.is_empty() {
            document.metadata = stored.version.metadata;
        }
        if as_stored {
            keep(document, &stored.prepared);
        }
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_versions_are_told_apart() {
        let parsed = |text: &str| Reference::parse(3, text, false).map(|r| (r.id, r.version));
        assert_eq!(parsed("guide").unwrap(), ("guide".to_owned(), None));
        assert_eq!(parsed("a/b c@12").unwrap(), ("a/b c".to_owned(), Some(12)));
        let long = "x".repeat(129);
        for wrong in ["@1", "guide@", "guide@0", "guide@x", "guide@1@2", "guide@-1", &long] {
            let error = parsed(wrong).unwrap_err().to_string();
            assert!(error.starts_with("documents[3].stored_id"), "{wrong}: {error}");
        }
    }
}
