//! Bounds of every field of `pith.v1.Documents`.

use std::collections::BTreeMap;

use pith_context::extract::Media;
use pith_context::store::{FusionWeights, MAX_HITS, MAX_ID_BYTES, MAX_PAGE};
use pith_proto::v1;
use pith_proto::v1::OffsetUnit;

use super::super::status::ApiError;
use super::super::validate;

const DEFAULT_PAGE: usize = 100;
const DEFAULT_HITS: usize = 10;
const MAX_FILTER: usize = 1024;
const MAX_WEIGHT: f32 = 1000.0;

/// What a document to be stored is.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) id: String,
    pub(super) title: Option<String>,
    /// Never empty.
    pub(super) mime: String,
    pub(super) metadata: BTreeMap<String, String>,
}

/// Part of a version.
#[derive(Debug)]
pub(super) struct Range {
    pub(super) id: String,
    pub(super) version: Option<u64>,
    pub(super) unit: OffsetUnit,
    pub(super) start: u64,
    pub(super) end: Option<u64>,
    /// Of the file that was uploaded, in bytes.
    pub(super) original: bool,
}

/// A page of documents.
#[derive(Debug)]
pub(super) struct List {
    pub(super) prefix: String,
    pub(super) from: Option<String>,
    pub(super) count: usize,
}

/// A search.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) text: String,
    pub(super) count: usize,
    pub(super) documents: Option<Vec<String>>,
    pub(super) weights: FusionWeights,
    pub(super) unit: OffsetUnit,
}

pub(super) fn header(header: v1::PutDocumentHeader) -> Result<Header, ApiError> {
    let id = id("header.id", header.id)?;
    if id.contains(|c: char| c == '@' || c.is_control()) {
        let reason = "must hold neither control characters nor \"@\"";
        return Err(ApiError::field("header.id", reason));
    }
    let wrong = |field: &str, reason| ApiError::field(format!("header.{field}"), reason);
    validate::title(&header.title).map_err(|reason| wrong("title", reason))?;
    validate::metadata(&header.metadata).map_err(|reason| wrong("metadata", reason))?;
    if Media::of(&header.mime).is_none() {
        return Err(wrong("mime", format!("{:?} is not a type that can be read", header.mime)));
    }
    let mime = if header.mime.is_empty() { "text/plain".to_owned() } else { header.mime };
    Ok(Header {
        id,
        title: (!header.title.is_empty()).then_some(header.title),
        mime,
        metadata: header.metadata.into_iter().collect(),
    })
}

pub(super) fn id(field: &'static str, id: String) -> Result<String, ApiError> {
    if (1..=MAX_ID_BYTES).contains(&id.len()) {
        return Ok(id);
    }
    Err(ApiError::field(field, format!("must have 1 to {MAX_ID_BYTES} bytes")))
}

pub(super) fn range(request: v1::GetDocumentRequest) -> Result<Range, ApiError> {
    if request.end.is_some_and(|end| end < request.start) {
        return Err(ApiError::field("end", "must not be less than start"));
    }
    Ok(Range {
        id: id("id", request.id)?,
        version: (request.version > 0).then_some(request.version),
        unit: validate::unit("offset_unit", request.offset_unit)?,
        start: request.start,
        end: request.end,
        original: request.original,
    })
}

pub(super) fn list(request: v1::ListDocumentsRequest) -> Result<List, ApiError> {
    for (field, text) in [("prefix", &request.prefix), ("page_token", &request.page_token)] {
        if text.len() > MAX_ID_BYTES {
            return Err(ApiError::field(field, format!("must have at most {MAX_ID_BYTES} bytes")));
        }
    }
    if !request.page_token.starts_with(&request.prefix) && !request.page_token.is_empty() {
        return Err(ApiError::field("page_token", "is of a list with another prefix"));
    }
    let count = match request.page_size as usize {
        0 => DEFAULT_PAGE,
        count if count <= MAX_PAGE => count,
        _ => return Err(ApiError::field("page_size", format!("must be 1 to {MAX_PAGE}"))),
    };
    let from = (!request.page_token.is_empty()).then_some(request.page_token);
    Ok(List { prefix: request.prefix, from, count })
}

pub(super) fn search(request: v1::SearchRequest) -> Result<Question, ApiError> {
    if request.query.trim().is_empty() {
        return Err(ApiError::field("query", "must not be blank"));
    }
    validate::query(&request.query)?;
    let count = match request.top_k as usize {
        0 => DEFAULT_HITS,
        count if count <= MAX_HITS => count,
        _ => return Err(ApiError::field("top_k", format!("must be 1 to {MAX_HITS}"))),
    };
    if request.document_ids.len() > MAX_FILTER {
        return Err(ApiError::field("document_ids", format!("must be at most {MAX_FILTER}")));
    }
    if let Some(index) =
        request.document_ids.iter().position(|id| !(1..=MAX_ID_BYTES).contains(&id.len()))
    {
        let reason = format!("must have 1 to {MAX_ID_BYTES} bytes");
        return Err(ApiError::field(format!("document_ids[{index}]"), reason));
    }
    let weight = |field: &'static str, given: Option<f32>, usual: f32| match given {
        None => Ok(usual),
        // NaN is in no range.
        Some(weight) if (0.0..=MAX_WEIGHT).contains(&weight) => Ok(weight),
        Some(weight) => {
            Err(ApiError::field(field, format!("is {weight}; it must be 0 to {MAX_WEIGHT}")))
        }
    };
    let usual = FusionWeights::default();
    let weights = FusionWeights {
        lexical: weight("lexical_weight", request.lexical_weight, usual.lexical)?,
        dense: weight("dense_weight", request.dense_weight, usual.dense)?,
    };
    if weights.lexical + weights.dense == 0.0 {
        return Err(ApiError::field("dense_weight", "must be above 0 if lexical_weight is 0"));
    }
    Ok(Question {
        text: request.query,
        count,
        documents: (!request.document_ids.is_empty()).then_some(request.document_ids),
        weights,
        unit: validate::unit("offset_unit", request.offset_unit)?,
    })
}
