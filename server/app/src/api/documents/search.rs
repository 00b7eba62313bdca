//! A search: the question's terms and vector, the hits' texts and offsets.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use pith_context::Embedder;
use pith_context::store::{Hit, Query, Store};
use pith_proto::v1;
use pith_proto::v1::OffsetUnit;

use super::super::gate::Caller;
use super::super::originals::Original;
use super::super::status::ApiError;
use super::Offsets;
use super::sources::source;
use super::validate::Question;
use crate::language_model::Cancelled;

pub(super) fn search(
    store: &Store,
    caller: &Caller,
    embedder: Option<&dyn Embedder>,
    question: &Question,
    cancelled: &Cancelled,
) -> Result<v1::SearchResponse, ApiError> {
    let terms: Vec<u64> = pith_context::terms(&question.text).collect();
    let mut vector = Vec::new();
    let embedder = embedder.filter(|_| question.weights.dense > 0.0);
    if let Some(embedder) = embedder {
        embedder.embed(&[&question.text], &mut vector)?;
    }
    let query = Query {
        terms: &terms,
        vector: embedder.map(|embedder| (embedder.identity(), &vector[..])),
        count: question.count,
        documents: question.documents.as_deref(),
        weights: question.weights,
    };
    let tenant = &caller.tenant.name;
    let hits = store.search(tenant, &query)?;
    // Each text is read once, for all of its hits.
    let mut texts: HashMap<(&str, u64), Option<Found>> = HashMap::new();
    let mut found = Vec::with_capacity(hits.len());
    for hit in &hits {
        if !cancelled.awaited_until(caller.deadline) {
            return Err(ApiError::Deadline);
        }
        let ruled = match texts.entry((hit.id.as_str(), hit.version)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                unknown.insert(Found::read(store, tenant, hit, question.unit)?)
            }
        };
        // What was deleted meanwhile is not found.
        let Some(Found { text, offsets, original }) = ruled else { continue };
        found.push(v1::SearchHit {
            span: Some(v1::Span {
                document_id: hit.id.clone(),
                start: offsets.at(hit.span.start),
                end: offsets.at(hit.span.end),
            }),
            version: hit.version,
            text: text[hit.span.clone()].to_owned(),
            score: hit.score,
            lexical: hit.lexical,
            dense: hit.dense,
            original: original.as_ref().and_then(|original| original.of(hit.span.clone())),
        });
    }
    let embedder = embedder.map_or_else(String::new, |embedder| embedder.identity().to_owned());
    Ok(v1::SearchResponse { hits: found, embedder })
}

/// A version that something was found in.
struct Found {
    text: String,
    offsets: Offsets,
    original: Option<Original>,
}

impl Found {
    /// The version of `hit`; `None` if it has gone.
    fn read(
        store: &Store,
        tenant: &str,
        hit: &Hit,
        unit: OffsetUnit,
    ) -> Result<Option<Self>, ApiError> {
        let Some(stored) = store.get(tenant, &hit.id, Some(hit.version))? else { return Ok(None) };
        let original = match stored.way {
            None => None,
            Some(way) => {
                let gone = || ApiError::unknown_document("id", hit.id.clone());
                let source = || source(store, tenant, &stored.version)?.ok_or_else(gone);
                match Original::new(way.origins, unit, source) {
                    Err(ApiError::UnknownDocument { .. }) => return Ok(None),
                    original => original?,
                }
            }
        };
        let offsets = Offsets::new(unit, &stored.text);
        Ok(Some(Self { text: stored.text, offsets, original }))
    }
}
