//! `pith.v1.Documents`: documents that stay, and searches over them.
//!
//! Everything that touches the disk runs on the preparers' threads. Between two parts of an upload none is held: a slow
//! caller keeps nobody waiting.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use pith_context::store::{ContentHash, Page, Store, Upload, Version};
use pith_proto::v1;
use pith_proto::v1::documents_server::Documents;
use pith_proto::v1::get_document_response::Part as Got;
use pith_proto::v1::put_document_request::Part;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::Api;
use super::gate::Caller;
use super::offsets::{Offsets, byte_at};
use super::status::ApiError;

mod content;
pub(super) mod counts;
mod search;
pub(super) mod sources;
mod validate;

/// Bytes of an upload that are gathered before they are written.
const WRITE_BYTES: usize = 1 << 20;
/// Bytes of a text or file in a message.
const PART_BYTES: usize = 64 << 10;

/// A version's text or file on its way out.
type Parts = Pin<Box<dyn Stream<Item = Result<v1::GetDocumentResponse, Status>> + Send>>;

impl Api {
    /// The store.
    fn store(&self) -> Result<Store, ApiError> {
        self.stored.get().cloned().map_err(|why| ApiError::NoStore(Arc::clone(why)))
    }

    /// Writes `data` to an upload that is not there yet if this is the first.
    async fn spool(&self, upload: Upload, data: Vec<u8>) -> Result<Upload, ApiError> {
        let work = move |_| {
            let mut upload = upload;
            upload.push(&data)?;
            Ok(upload)
        };
        self.preparers.run(work).await
    }

    /// Takes an upload in to its end. Whoever leaves before has stored nothing.
    async fn take_in(
        &self,
        caller: &Caller,
        mut parts: Streaming<v1::PutDocumentRequest>,
    ) -> Result<v1::PutDocumentResponse, Status> {
        let store = self.store()?;
        let Some(v1::PutDocumentRequest { part: Some(Part::Header(header)) }) =
            parts.message().await?
        else {
            return Err(ApiError::field("header", "must come first").into());
        };
        let header = validate::header(header)?;
        let embedder = self.serving.embedder();
        let tenant = Arc::clone(&caller.tenant.name);
        let mut upload = {
            let (store, tenant, id) = (store.clone(), Arc::clone(&tenant), header.id.clone());
            self.preparers.run(move |_| Ok(store.begin(&tenant, &id)?)).await?
        };
        let mut gathered = Vec::new();
        loop {
            // A call that its caller cancels can look like one that has ended: only the word itself is one.
            let data = match parts.message().await?.and_then(|message| message.part) {
                Some(Part::Data(data)) => data,
                Some(Part::End(_)) => break,
                Some(Part::Header(_)) => {
                    return Err(ApiError::field("header", "must come once").into());
                }
                None => return Err(ApiError::field("end", "must come last").into()),
            };
            gathered.extend_from_slice(&data);
            if gathered.len() >= WRITE_BYTES {
                upload = self.spool(upload, std::mem::take(&mut gathered)).await?;
            }
        }
        let (api, deadline) = (self.clone(), caller.deadline);
        let work = move |cancelled| {
            let mut upload = upload;
            upload.push(&gathered)?;
            drop(gathered);
            if upload.is_empty() {
                return Err(ApiError::field("data", "must be at least 1 byte"));
            }
            let file = upload.bytes()?;
            let embedder = embedder.as_deref();
            let content = content::prepare(header, file, embedder, deadline, &cancelled)?;
            let put = upload.commit(&content)?;
            api.count(&store, &tenant, &put.version.content, &content.text);
            if !put.purged.is_empty() {
                api.forget(&tenant);
            }
            Ok(put)
        };
        // A long document is read and embedded for a while: no prompt should wait for it.
        let put = self.embedders.run(work).await?;
        tracing::info!(version = put.version.version, bytes = put.version.text_bytes, "stored");
        Ok(v1::PutDocumentResponse { document: Some(document(put.version)), created: put.created })
    }

    /// Counts a stored text for the served model, if that is loaded, so that the first question need not. Blocks.
    fn count(&self, store: &Store, tenant: &str, content: &ContentHash, text: &str) {
        if let Some(served) = self.serving.ready() {
            counts::recall(store, tenant, content, text, &served, &self.shared.counts);
        }
    }

    /// Drops what is kept in memory of a tenant whose documents have gone: prepared documents, turns of chats, cached
    /// prompts. May block.
    fn forget(&self, tenant: &Arc<str>) {
        self.shared.prepared.forget(tenant);
        self.shared.selections.forget(tenant);
        if let Some(served) = self.serving.ready() {
            served.engine.forget(tenant);
        }
    }
}

#[tonic::async_trait]
impl Documents for Api {
    type GetDocumentStream = Parts;

    async fn put_document(
        &self,
        request: Request<Streaming<v1::PutDocumentRequest>>,
    ) -> Result<Response<v1::PutDocumentResponse>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(self.take_in(&caller, request.into_inner()).await?))
    }

    async fn get_document(
        &self,
        request: Request<v1::GetDocumentRequest>,
    ) -> Result<Response<Parts>, Status> {
        let caller = Caller::of(&request)?;
        let (store, tenant) = (self.store()?, Arc::clone(&caller.tenant.name));
        let range = validate::range(request.into_inner())?;
        let work = move |_| {
            let unknown = || ApiError::unknown_document("id", range.id.clone());
            if range.original {
                let found = store.original(&tenant, &range.id, range.version)?;
                let (version, file) = found.ok_or_else(unknown)?;
                let byte = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(file.len());
                let end = range.end.map_or(file.len(), byte);
                let parts = file[byte(range.start).min(end)..end].chunks(PART_BYTES);
                return Ok((version, parts.map(|part| Got::Data(part.to_vec())).collect()));
            }
            let stored = store.get(&tenant, &range.id, range.version)?.ok_or_else(unknown)?;
            let end = match range.end {
                None => stored.text.len(),
                Some(end) => at("end", range.unit, &stored.text, end)?,
            };
            let start = at("start", range.unit, &stored.text, range.start)?.min(end);
            Ok((stored.version, cut(&stored.text[start..end])))
        };
        let (version, parts) = self.preparers.run(work).await?;
        let parts = Outgoing { caller, head: Some(document(version)), parts };
        Ok(Response::new(Box::pin(parts)))
    }

    async fn list_documents(
        &self,
        request: Request<v1::ListDocumentsRequest>,
    ) -> Result<Response<v1::ListDocumentsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let (store, tenant) = (self.store()?, Arc::clone(&caller.tenant.name));
        let list = validate::list(request.into_inner())?;
        let work =
            move |_| Ok(store.list(&tenant, &list.prefix, list.from.as_deref(), list.count)?);
        let Page { documents, next } = self.preparers.run(work).await?;
        Ok(Response::new(v1::ListDocumentsResponse {
            documents: documents.into_iter().map(document).collect(),
            next_page_token: next.unwrap_or_default(),
        }))
    }

    async fn delete_document(
        &self,
        request: Request<v1::DeleteDocumentRequest>,
    ) -> Result<Response<v1::DeleteDocumentResponse>, Status> {
        let caller = Caller::of(&request)?;
        let (store, tenant) = (self.store()?, Arc::clone(&caller.tenant.name));
        let id = validate::id("id", request.into_inner().id)?;
        let api = self.clone();
        // The caches are purged by the work itself: a caller who leaves does not end it.
        let work = move |_| {
            let deleted = store.delete(&tenant, &id);
            api.forget(&tenant);
            match deleted? {
                Some(_) => Ok(()),
                None => Err(ApiError::unknown_document("id", id)),
            }
        };
        self.preparers.run(work).await?;
        Ok(Response::new(v1::DeleteDocumentResponse {}))
    }

    async fn search(
        &self,
        request: Request<v1::SearchRequest>,
    ) -> Result<Response<v1::SearchResponse>, Status> {
        let caller = Caller::of(&request)?;
        let store = self.store()?;
        let question = validate::search(request.into_inner())?;
        let embedder = self.serving.embedder();
        let work = move |cancelled| {
            let embedder = embedder.as_deref();
            search::search(&store, &caller, embedder, &question, &cancelled)
        };
        Ok(Response::new(self.preparers.run(work).await?))
    }
}

/// The byte that `units` units of `text` come to; its end beyond it.
fn at(
    field: &'static str,
    unit: v1::OffsetUnit,
    text: &str,
    units: u64,
) -> Result<usize, ApiError> {
    byte_at(unit, text, units)
        .ok_or_else(|| ApiError::field(field, "lies inside a character of the text"))
}

/// A version on the wire.
fn document(version: Version) -> v1::StoredDocument {
    v1::StoredDocument {
        id: version.id,
        version: version.version,
        title: version.title.unwrap_or_default(),
        mime: version.mime,
        metadata: version.metadata.into_iter().collect(),
        text_bytes: version.text_bytes,
        chunks: version.chunks,
        stored_at_unix: version.stored_at,
        embedder: version.embedder.unwrap_or_default(),
        original_bytes: version.original_bytes,
        glyphs_left_out: version.left_out,
    }
}

/// `text` in messages.
fn cut(text: &str) -> VecDeque<Got> {
    let (mut parts, mut rest) = (VecDeque::new(), text);
    while !rest.is_empty() {
        let (part, after) = rest.split_at(rest.floor_char_boundary(PART_BYTES));
        parts.push_back(Got::Text(part.to_owned()));
        rest = after;
    }
    parts
}

/// A version on its way out. Holds its place until it has left.
struct Outgoing {
    caller: Caller,
    head: Option<v1::StoredDocument>,
    parts: VecDeque<Got>,
}

impl Stream for Outgoing {
    type Item = Result<v1::GetDocumentResponse, Status>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        if Instant::now() >= self.caller.deadline && !self.parts.is_empty() {
            self.parts.clear();
            return std::task::Poll::Ready(Some(Err(ApiError::Deadline.into())));
        }
        let head = self.head.take().map(Got::Document);
        let part = head.or_else(|| self.parts.pop_front());
        std::task::Poll::Ready(part.map(|part| Ok(v1::GetDocumentResponse { part: Some(part) })))
    }
}
