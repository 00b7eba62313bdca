//! The client's calls.

use std::time::Duration;

use pith_proto::v1;
use pith_proto::v1::compression_client::CompressionClient;
use pith_proto::v1::documents_client::DocumentsClient;
use pith_proto::v1::embeddings_client::EmbeddingsClient;
use pith_proto::v1::inference_client::InferenceClient;
use pith_proto::v1::models_client::ModelsClient;
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;

use crate::call::Call;
use crate::retry::Repeat;
use crate::{Answer, Connect, Error, Retry};

/// A connection to a server. Cheap to clone; calls share one HTTP/2 connection, which is made anew when lost.
#[derive(Debug, Clone)]
pub struct Client {
    inference: InferenceClient<Channel>,
    compression: CompressionClient<Channel>,
    embeddings: EmbeddingsClient<Channel>,
    pub(crate) documents: DocumentsClient<Channel>,
    models: ModelsClient<Channel>,
    authorization: Option<MetadataValue<Ascii>>,
    deadline: Option<Duration>,
    retry: Retry,
}

impl Client {
    /// Begins a connection to `endpoint`: `http://host:port` or `host:port`. Set what is wanted, then await it.
    pub fn connect(endpoint: impl Into<String>) -> Connect {
        Connect::new(endpoint)
    }

    pub(crate) fn new(
        channel: Channel,
        authorization: Option<MetadataValue<Ascii>>,
        deadline: Option<Duration>,
        retry: Retry,
        max_response_bytes: usize,
    ) -> Self {
        Self {
            inference: InferenceClient::new(channel.clone())
                .max_decoding_message_size(max_response_bytes),
            compression: CompressionClient::new(channel.clone())
                .max_decoding_message_size(max_response_bytes),
            documents: DocumentsClient::new(channel.clone())
                .max_decoding_message_size(max_response_bytes),
            embeddings: EmbeddingsClient::new(channel.clone())
                .max_decoding_message_size(max_response_bytes),
            models: ModelsClient::new(channel).max_decoding_message_size(max_response_bytes),
            authorization,
            deadline,
            retry,
        }
    }

    /// This connection with another deadline for each call, retries included.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { deadline: Some(deadline), ..self.clone() }
    }

    pub(crate) fn call(&self) -> Call {
        Call {
            authorization: self.authorization.clone(),
            deadline: self.deadline.map(|deadline| Instant::now() + deadline),
            retry: self.retry.clone(),
        }
    }

    /// Answers a prompt, streamed.
    ///
    /// # Errors
    /// [`Error::Rejected`] if the server refuses it; as do all calls below.
    pub async fn generate(&self, request: v1::GenerateRequest) -> Result<Answer, Error> {
        let (call, dry_run) = (self.call(), request.dry_run);
        let send = |request| {
            let mut inference = self.inference.clone();
            async move { inference.generate(request).await }
        };
        let stream = call.run(Repeat::Unstarted, request, send).await?;
        Ok(Answer::new(stream, call.deadline, dry_run))
    }

    /// Answers a prompt in one response.
    ///
    /// # Errors
    /// [`Error::Rejected`].
    pub async fn generate_unary(
        &self,
        request: v1::GenerateRequest,
    ) -> Result<v1::GenerateUnaryResponse, Error> {
        let send = |request| {
            let mut inference = self.inference.clone();
            async move { inference.generate_unary(request).await }
        };
        self.call().run(Repeat::Unstarted, request, send).await
    }

    /// Answers a chat, streamed.
    ///
    /// # Errors
    /// [`Error::Rejected`].
    pub async fn chat(&self, request: v1::ChatRequest) -> Result<Answer, Error> {
        let (call, dry_run) = (self.call(), request.dry_run);
        let send = |request| {
            let mut inference = self.inference.clone();
            async move { inference.chat(request).await }
        };
        let stream = call.run(Repeat::Unstarted, request, send).await?;
        Ok(Answer::new(stream, call.deadline, dry_run))
    }

    /// Answers a chat in one response.
    ///
    /// # Errors
    /// [`Error::Rejected`].
    pub async fn chat_unary(
        &self,
        request: v1::ChatRequest,
    ) -> Result<v1::GenerateUnaryResponse, Error> {
        let send = |request| {
            let mut inference = self.inference.clone();
            async move { inference.chat_unary(request).await }
        };
        self.call().run(Repeat::Unstarted, request, send).await
    }

    /// Packs documents for a question.
    ///
    /// # Errors
    /// [`Error::Rejected`].
    pub async fn compress(
        &self,
        request: v1::CompressRequest,
    ) -> Result<v1::CompressResponse, Error> {
        let send = |request| {
            let mut compression = self.compression.clone();
            async move { compression.compress(request).await }
        };
        self.call().run(Repeat::Idempotent, request, send).await
    }

    /// A vector for each text.
    ///
    /// # Errors
    /// [`Error::Rejected`].
    pub async fn embed(&self, request: v1::EmbedRequest) -> Result<v1::EmbedResponse, Error> {
        let send = |request| {
            let mut embeddings = self.embeddings.clone();
            async move { embeddings.embed(request).await }
        };
        self.call().run(Repeat::Idempotent, request, send).await
    }

    /// Documents in the order of a question.
    ///
    /// # Errors
    /// [`Error::Rejected`].
    pub async fn rerank(&self, request: v1::RerankRequest) -> Result<v1::RerankResponse, Error> {
        let send = |request| {
            let mut embeddings = self.embeddings.clone();
            async move { embeddings.rerank(request).await }
        };
        self.call().run(Repeat::Idempotent, request, send).await
    }

    /// Token ids of a text.
    ///
    /// # Errors
    /// [`Error::Rejected`].
    pub async fn tokenize(
        &self,
        request: v1::TokenizeRequest,
    ) -> Result<v1::TokenizeResponse, Error> {
        let send = |request| {
            let mut inference = self.inference.clone();
            async move { inference.tokenize(request).await }
        };
        self.call().run(Repeat::Idempotent, request, send).await
    }

    /// Text of token ids.
    ///
    /// # Errors
    /// [`Error::Rejected`].
    pub async fn detokenize(
        &self,
        request: v1::DetokenizeRequest,
    ) -> Result<v1::DetokenizeResponse, Error> {
        let send = |request| {
            let mut inference = self.inference.clone();
            async move { inference.detokenize(request).await }
        };
        self.call().run(Repeat::Idempotent, request, send).await
    }

    /// Ends a live request of this tenant; false if there is none of that name.
    ///
    /// # Errors
    /// [`Error::Rejected`].
    pub async fn abort(&self, request_id: impl Into<String>) -> Result<bool, Error> {
        let send = |request| {
            let mut inference = self.inference.clone();
            async move { inference.abort(request).await }
        };
        let request = v1::AbortRequest { request_id: request_id.into() };
        Ok(self.call().run(Repeat::Idempotent, request, send).await?.found)
    }

    /// Every served model.
    ///
    /// # Errors
    /// [`Error::Rejected`].
    pub async fn models(&self) -> Result<Vec<v1::Model>, Error> {
        let send = |request| {
            let mut models = self.models.clone();
            async move { models.list_models(request).await }
        };
        Ok(self.call().run(Repeat::Idempotent, v1::ListModelsRequest {}, send).await?.models)
    }

    /// The load of the server and of each of its models.
    ///
    /// # Errors
    /// [`Error::Rejected`].
    pub async fn load(&self) -> Result<v1::GetLoadResponse, Error> {
        let send = |request| {
            let mut models = self.models.clone();
            async move { models.get_load(request).await }
        };
        self.call().run(Repeat::Idempotent, v1::GetLoadRequest::default(), send).await
    }
}
