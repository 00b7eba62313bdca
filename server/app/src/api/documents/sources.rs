//! Stored documents that stand in a request by their ids.

use pith_context::extract::{self, Media, Way};
use pith_context::store::{ContentHash, MAX_ID_BYTES, Store, Stored, Version};
use pith_context::{Document, Format};
use pith_proto::v1::OffsetUnit;

use super::super::Api;
use super::super::originals::Original;
use super::super::status::ApiError;
use super::super::validate::Sources;

/// Most bytes of stored texts in one request: as much as one document may have unless the settings say otherwise.
const MAX_BYTES: u64 = 64 << 20;

/// A document of a request whose text is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Reference {
    /// Its place in the request.
    pub(in super::super) index: usize,
    id: String,
    version: Option<u64>,
    /// What the request says it is.
    media: Option<Media>,
}

impl Reference {
    /// What `stored_id` of the document at `index` names: "id" or "id@version".
    pub(in super::super) fn parse(
        index: usize,
        stored_id: &str,
        media: Option<Media>,
    ) -> Result<Self, ApiError> {
        let wrong = |reason: String| ApiError::field(field(index, "stored_id"), reason);
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
        Ok(Self { index, id: id.to_owned(), version, media })
    }

    /// Name of the document without its version.
    pub(in super::super) fn id(&self) -> &str {
        &self.id
    }

    /// How a stored document of type `mime` is read, and whether that is as it was when it was stored.
    fn format(&self, mime: &str) -> Result<(Format, bool), ApiError> {
        match (Media::of(mime), self.media) {
            (Some(Media::Verbatim(format)), None) => Ok((format, true)),
            (Some(Media::Verbatim(stored)), Some(Media::Verbatim(format))) => {
                Ok((format, format == stored))
            }
            // Read when it was stored: its elements say how.
            (Some(stored), None) if !matches!(stored, Media::Verbatim(_)) => {
                Ok((Format::default(), true))
            }
            (Some(stored), Some(asked)) if stored == asked => Ok((Format::default(), true)),
            _ => {
                let reason = format!("must agree with the stored document's, {mime:?}");
                Err(ApiError::field(field(self.index, "mime"), reason))
            }
        }
    }
}

fn field(index: usize, name: &str) -> String {
    format!("documents[{index}].{name}")
}

impl Api {
    /// The store, if `sources` need one.
    pub(in super::super) fn store_for(&self, sources: &Sources) -> Result<Option<Store>, ApiError> {
        if sources.stored.is_empty() { Ok(None) } else { self.store().map(Some) }
    }
}

/// The source of a stored page, which its origins refer to; `None` if it has gone.
pub(super) fn source(
    store: &Store,
    tenant: &str,
    version: &Version,
) -> Result<Option<String>, ApiError> {
    let Version { id, version: number, mime, .. } = version;
    let Some((_, file)) = store.original(tenant, id, Some(*number))? else { return Ok(None) };
    match extract::source(&file, mime) {
        Ok(source) => Ok(Some(source.into_owned())),
        // It was read when it was stored.
        Err(_) => Err(ApiError::Internal("a stored page cannot be decoded any more")),
    }
}

/// Puts the stored texts of `tenant` in their places, with the way back to what was uploaded; `unit`: what offsets of that
/// count. Each content is given to `keep`, with what was prepared when it was stored unless the request reads it
/// otherwise. Gives the contents they came from. Blocks.
pub(in super::super) fn resolve(
    sources: &mut Sources,
    store: Option<&Store>,
    tenant: &str,
    unit: OffsetUnit,
    keep: impl Fn(&Store, &ContentHash, &Document, Option<&[u8]>),
) -> Result<Vec<ContentHash>, ApiError> {
    let Some(store) = store else { return Ok(Vec::new()) };
    let (mut bytes, mut contents) = (0, Vec::new());
    for reference in std::mem::take(&mut sources.stored) {
        let Reference { index, id, version, .. } = &reference;
        let (index, version) = (*index, *version);
        let unknown = || ApiError::unknown_document(field(index, "stored_id"), id.clone());
        // Known before the text is read.
        let size = store.describe(tenant, id, version)?.ok_or_else(unknown)?.text_bytes;
        bytes += size;
        if bytes > MAX_BYTES {
            let reason =
                format!("the stored documents up to this one exceed {MAX_BYTES} bytes of text");
            return Err(ApiError::field(field(index, "stored_id"), reason));
        }
        let Stored { version, text, way, prepared } =
            store.get(tenant, id, version)?.ok_or_else(unknown)?;
        contents.push(version.content);
        let document = &mut sources.documents[index];
        document.text = text;
        document.stored = true;
        let as_stored;
        (document.format, as_stored) = reference.format(&version.mime)?;
        if let Some(Way { elements, origins }) = way {
            document.elements = elements;
            let source = || {
                let unknown = || ApiError::unknown_document(field(index, "stored_id"), id.clone());
                source(store, tenant, &version)?.ok_or_else(unknown)
            };
            sources.originals.note(index, Original::new(origins, unit, source)?);
        }
        sources.originals.warn(&document.id, version.left_out);
        let prepared = prepared.as_slice();
        let prepared = (as_stored && document.title.is_none()).then_some(prepared);
        if document.title.is_none() {
            document.title = version.title;
        }
        if document.metadata.is_empty() {
            document.metadata = version.metadata;
        }
        keep(store, &version.content, document, prepared);
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_versions_are_told_apart() {
        let parsed = |text: &str| Reference::parse(3, text, None).map(|r| (r.id, r.version));
        assert_eq!(parsed("guide").unwrap(), ("guide".to_owned(), None));
        assert_eq!(parsed("a/b c@12").unwrap(), ("a/b c".to_owned(), Some(12)));
        let long = "x".repeat(129);
        for wrong in ["@1", "guide@", "guide@0", "guide@x", "guide@1@2", "guide@-1", &long] {
            let error = parsed(wrong).unwrap_err().to_string();
            assert!(error.starts_with("documents[3].stored_id"), "{wrong}: {error}");
        }
    }
}
