//! Calls about stored documents.

use std::sync::Arc;

use pith_proto::v1;
use pith_proto::v1::get_document_response::Part as Got;
use pith_proto::v1::put_document_request::Part;
use tonic::Request;

use crate::call::within;
use crate::retry::Repeat;
use crate::{Client, Error};

/// Bytes of a file in a message.
const PART_BYTES: usize = 64 << 10;

impl Client {
    /// Stores a document, a text or a file of the header's type, sent in parts; the same content as its latest version
    /// makes no new one.
    ///
    /// # Errors
    /// [`Error::Rejected`] if the server refuses it; as do all calls below.
    pub async fn put_document(
        &self,
        header: v1::PutDocumentHeader,
        file: impl Into<Vec<u8>>,
    ) -> Result<v1::PutDocumentResponse, Error> {
        let send = |request: Request<(v1::PutDocumentHeader, Arc<[u8]>)>| {
            let mut documents = self.documents.clone();
            let request = request.map(|(header, file)| tokio_stream::iter(parts(header, file)));
            async move { documents.put_document(request).await }
        };
        self.call().run(Repeat::Idempotent, (header, file.into().into()), send).await
    }

    /// A version of a document and its text, or the part of it that is asked for.
    ///
    /// # Errors
    /// [`Error::Rejected`].
    pub async fn get_document(
        &self,
        request: v1::GetDocumentRequest,
    ) -> Result<(v1::StoredDocument, String), Error> {
        let mut text = String::new();
        let take = |part| match part {
            Got::Text(part) => text.push_str(&part),
            Got::Data(_) | Got::Document(_) => {}
        };
        let document = self.get(request, take).await?;
        Ok((document, text))
    }

    /// A version of a document and the file that was uploaded, or the part of it that is asked for, byte for byte.
    ///
    /// # Errors
    /// [`Error::Rejected`].
    pub async fn get_original(
        &self,
        request: v1::GetDocumentRequest,
    ) -> Result<(v1::StoredDocument, Vec<u8>), Error> {
        let mut file = Vec::new();
        let take = |part| match part {
            Got::Data(part) => file.extend(part),
            Got::Text(_) | Got::Document(_) => {}
        };
        let document = self.get(v1::GetDocumentRequest { original: true, ..request }, take).await?;
        Ok((document, file))
    }

    /// Gives the parts after the first to `take`.
    async fn get(
        &self,
        request: v1::GetDocumentRequest,
        mut take: impl FnMut(Got),
    ) -> Result<v1::StoredDocument, Error> {
        let send = |request| {
            let mut documents = self.documents.clone();
            async move { documents.get_document(request).await }
        };
        let call = self.call();
        let mut stream = call.run(Repeat::Idempotent, request, send).await?;
        let mut document = None;
        while let Some(message) = within(call.deadline, stream.message()).await? {
            match message.part {
                Some(Got::Document(head)) => document = Some(head),
                Some(part) => take(part),
                // Of a newer server.
                None => {}
            }
        }
        document.ok_or(Error::Protocol("the document came without its head"))
    }

    /// A page of the stored documents.
    ///
    /// # Errors
    /// [`Error::Rejected`].
    pub async fn list_documents(
        &self,
        request: v1::ListDocumentsRequest,
    ) -> Result<v1::ListDocumentsResponse, Error> {
        let send = |request| {
            let mut documents = self.documents.clone();
            async move { documents.list_documents(request).await }
        };
        self.call().run(Repeat::Idempotent, request, send).await
    }

    /// Removes every version of a document and all that was made of it.
    ///
    /// # Errors
    /// [`Error::Rejected`]; NOT_FOUND if there is no such document.
    pub async fn delete_document(&self, id: impl Into<String>) -> Result<(), Error> {
        let send = |request| {
            let mut documents = self.documents.clone();
            async move { documents.delete_document(request).await }
        };
        let request = v1::DeleteDocumentRequest { id: id.into() };
        // Not repeated once it may have happened: the second try would say that there is no such document.
        self.call().run(Repeat::Unstarted, request, send).await?;
        Ok(())
    }

    /// The chunks of the stored documents that serve a query best.
    ///
    /// # Errors
    /// [`Error::Rejected`].
    pub async fn search(&self, request: v1::SearchRequest) -> Result<v1::SearchResponse, Error> {
        let send = |request| {
            let mut documents = self.documents.clone();
            async move { documents.search(request).await }
        };
        self.call().run(Repeat::Idempotent, request, send).await
    }
}

/// The messages of an upload, made as they are sent.
fn parts(
    header: v1::PutDocumentHeader,
    file: Arc<[u8]>,
) -> impl Iterator<Item = v1::PutDocumentRequest> + Send + 'static {
    let data = (0..file.len()).step_by(PART_BYTES).map(move |start| {
        let end = file.len().min(start + PART_BYTES);
        Part::Data(file[start..end].to_vec())
    });
    let header = std::iter::once(Part::Header(header));
    let end = std::iter::once(Part::End(v1::PutDocumentEnd {}));
    header.chain(data).chain(end).map(|part| v1::PutDocumentRequest { part: Some(part) })
}
