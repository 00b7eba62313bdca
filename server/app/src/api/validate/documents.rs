//! A request's documents.

use std::collections::{BTreeMap, HashMap, HashSet};

use pith_context::extract::Media;
use pith_context::{Document, Format, Policy};
use pith_proto::v1;

use super::MAX_ID_BYTES;
use super::policy::policy;
use crate::api::documents::sources::Reference;
use crate::api::hints::{Hints, weight};
use crate::api::originals::{Originals, Unread};
use crate::api::status::ApiError;

const MAX_DOCUMENTS: usize = 256;
const MAX_TITLE_BYTES: usize = 512;
const MAX_METADATA: usize = 32;
const MAX_METADATA_KEY_BYTES: usize = 64;
const MAX_METADATA_VALUE_BYTES: usize = 1024;

/// Documents and what may be done to them.
#[derive(Debug)]
pub(in crate::api) struct Sources {
    /// Those to be read from a file have no text until `originals` has read them.
    pub(in crate::api) documents: Vec<Document>,
    /// Of those, the ones whose text is stored and yet to be read.
    pub(in crate::api) stored: Vec<Reference>,
    pub(in crate::api) originals: Originals,
    /// What is said about parts of them, until their text is known.
    pub(in crate::api) hints: Hints,
    pub(in crate::api) policy: Policy,
    /// What earlier turns of the chat sent stays where it is.
    pub(in crate::api) sticky: bool,
}

/// Documents and policy; what passages are chosen for is `question` unless the policy says otherwise.
pub(in crate::api) fn sources(
    documents: Vec<v1::Document>,
    policy: Option<v1::CompressionPolicy>,
    question: &str,
) -> Result<Sources, ApiError> {
    if documents.len() > MAX_DOCUMENTS {
        return Err(ApiError::field(
            "documents",
            format!("{} of them; at most {MAX_DOCUMENTS}", documents.len()),
        ));
    }
    let mut ids = HashSet::new();
    let mut checked = Vec::with_capacity(documents.len());
    let mut originals = Originals::default();
    let mut hints = Hints::default();
    let mut stored = Vec::new();
    for (index, mut each) in documents.into_iter().enumerate() {
        originals.unread.extend(unread(index, &mut each)?);
        hints.push(index, std::mem::take(&mut each.hints))?;
        let (each, reference) = document(index, each)?;
        stored.extend(reference);
        if !ids.insert(each.id.clone()) {
            return Err(ApiError::field(
                format!("documents[{index}].id"),
                format!("{:?} is taken", each.id),
            ));
        }
        checked.push(each);
    }
    let policy = policy.unwrap_or_default();
    let sticky = policy.sticky;
    let policy = self::policy(policy, question)?;
    Ok(Sources { documents: checked, stored, originals, hints, policy, sticky })
}

/// What of `document` has to be made text of, taken out of it.
fn unread(index: usize, document: &mut v1::Document) -> Result<Option<Unread>, ApiError> {
    let wrong = |field: &str, reason: String| {
        Err(ApiError::field(format!("documents[{index}].{field}"), reason))
    };
    let Some(media) = Media::of(&document.mime) else {
        return wrong("mime", format!("{:?} is not a type that can be read", document.mime));
    };
    if !document.stored_id.is_empty() {
        return match document.text.is_empty() && document.blob.is_empty() {
            true => Ok(None),
            false => wrong("stored_id", "must not be set beside text or blob".to_owned()),
        };
    }
    match (document.text.is_empty(), document.blob.is_empty()) {
        (false, false) => wrong("blob", "must not be set beside text".to_owned()),
        (true, true) => {
            wrong("text", "must not be empty, unless there is a blob or a stored_id".to_owned())
        }
        (false, true) if media.is_binary() => {
            wrong("mime", format!("{:?} is sent as blob, not as text", document.mime))
        }
        (false, true) if matches!(media, Media::Verbatim(_)) => Ok(None),
        (text, _) => {
            let field = if text { "blob" } else { "text" };
            let bytes = if text {
                std::mem::take(&mut document.blob)
            } else {
                std::mem::take(&mut document.text).into_bytes()
            };
            Ok(Some(Unread { document: index, field, mime: document.mime.clone(), bytes }))
        }
    }
}

fn document(
    index: usize,
    document: v1::Document,
) -> Result<(Document, Option<Reference>), ApiError> {
    let wrong = |field: &str, reason: String| {
        Err(ApiError::field(format!("documents[{index}].{field}"), reason))
    };
    if document.id.len() > MAX_ID_BYTES {
        return wrong("id", format!("must have at most {MAX_ID_BYTES} bytes"));
    }
    if let Err(reason) = title(&document.title) {
        return wrong("title", reason);
    }
    let reference = (!document.stored_id.is_empty())
        .then(|| {
            let media = Media::of(&document.mime).filter(|_| !document.mime.is_empty());
            Reference::parse(index, &document.stored_id, media)
        })
        .transpose()?;
    if let Err(reason) = metadata(&document.metadata) {
        return wrong("metadata", reason);
    }
    let format = match Media::of(&document.mime) {
        Some(Media::Verbatim(format)) => format,
        _ => Format::default(),
    };
    let id = match &reference {
        _ if !document.id.is_empty() => document.id,
        Some(reference) => reference.id().to_owned(),
        None => format!("doc-{}", index + 1),
    };
    let checked = Document {
        id,
        title: (!document.title.is_empty()).then_some(document.title),
        weight: match document.weight.map(weight).transpose() {
            Ok(weight) => weight.unwrap_or(1.0),
            Err(reason) => return wrong("weight", reason),
        },
        text: document.text,
        format,
        metadata: document.metadata.into_iter().collect::<BTreeMap<_, _>>(),
        pinned: document.pinned,
        ..Document::default()
    };
    Ok((checked, reference))
}

/// Whether `title` may be one; else what is wrong with it.
pub(in crate::api) fn title(title: &str) -> Result<(), String> {
    if title.len() <= MAX_TITLE_BYTES && !title.contains(['\n', '\r']) {
        return Ok(());
    }
    Err(format!("must be one line of at most {MAX_TITLE_BYTES} bytes"))
}

/// Whether a document may have `metadata`; else what is wrong with them.
pub(in crate::api) fn metadata(metadata: &HashMap<String, String>) -> Result<(), String> {
    let fits = |(key, value): (&String, &String)| {
        (1..=MAX_METADATA_KEY_BYTES).contains(&key.len()) && value.len() <= MAX_METADATA_VALUE_BYTES
    };
    if metadata.len() <= MAX_METADATA && metadata.iter().all(fits) {
        return Ok(());
    }
    Err(format!(
        "must have at most {MAX_METADATA} entries, keys of 1 to {MAX_METADATA_KEY_BYTES} bytes and values of at \
         most {MAX_METADATA_VALUE_BYTES}"
    ))
}
