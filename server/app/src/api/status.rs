//! The one table from errors to `google.rpc` statuses.
//!
//! Every refusal carries an ErrorInfo whose reason a program can branch on, and whichever of BadRequest,
//! QuotaFailure and RetryInfo fits. RetryInfo means that the call did not start. What went wrong inside the server is
//! logged and not told.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use pith_context::ContextError;
use pith_context::extract::ExtractError;
use pith_context::store::StoreError;
use pith_engine::encoder::EncoderError;
use pith_engine::request::{EngineError, SubmitError};
use pith_kernels::device::DeviceError;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::admission::Refusal;
use crate::prompt::PromptError;
use crate::tenants::AuthError;

/// `ErrorInfo.domain` of everything said here.
const DOMAIN: &str = "pith.v1";
/// When a refused caller may come back: about as long as a short answer takes.
const RETRY: Duration = Duration::from_secs(1);

/// Why a call is refused or breaks off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("{field}: {reason}")]
    Field { field: Cow<'static, str>, reason: Cow<'static, str> },
    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("there is no model {asked:?}; this server has {served:?}")]
    UnknownModel { asked: String, served: String },
    #[error("the model is still being loaded")]
    Loading,
    #[error("the model could not be loaded")]
    NotServed,
    #[error("this server has no embedder")]
    NoEmbedder,
    #[error("the embedder is still being loaded")]
    EmbedderLoading,
    #[error(transparent)]
    Encoder(#[from] EncoderError),
    #[error(transparent)]
    Prompt(#[from] PromptError),
    #[error(transparent)]
    Context(#[from] ContextError),
    #[error("{field}: {error}")]
    Extract { field: String, error: ExtractError },
    #[error(transparent)]
    Submit(#[from] SubmitError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("there is no store of documents: {0}")]
    NoStore(Arc<str>),
    #[error("there is no stored document {id:?}")]
    UnknownDocument { field: Cow<'static, str>, id: String },
    #[error("the deadline passed")]
    Deadline,
    #[error("{0}")]
    Internal(&'static str),
}

impl ApiError {
    /// A field is not what it must be.
    pub(crate) fn field(
        field: impl Into<Cow<'static, str>>,
        reason: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::Field { field: field.into(), reason: reason.into() }
    }

    /// A field names a document that the tenant does not have, whoever else may.
    pub(crate) fn unknown_document(field: impl Into<Cow<'static, str>>, id: String) -> Self {
        Self::UnknownDocument { field: field.into(), id }
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let message = error.to_string();
        match error {
            ApiError::Field { field, reason } => {
                invalid(message, "INVALID_FIELD", &field, &reason, [])
            }
            ApiError::Auth(_) => {
                let details = info("UNAUTHENTICATED", []);
                Self::with_error_details(Code::Unauthenticated, message, details)
            }
            ApiError::Refused(refusal) => refused(&refusal, message),
            ApiError::UnknownModel { asked, served } => {
                let mut details =
                    info("UNKNOWN_MODEL", [("model", asked.clone()), ("served", served)]);
                details.set_resource_info("model", asked, "", "not served here");
                details.add_bad_request_violation("model", message.clone());
                Self::with_error_details(Code::NotFound, message, details)
            }
            ApiError::Loading => later(Code::Unavailable, message, "LOADING"),
            // Coming back does not help: no RetryInfo.
            ApiError::NotServed => {
                Self::with_error_details(Code::Unavailable, message, info("NOT_SERVED", []))
            }
            ApiError::NoEmbedder => {
                Self::with_error_details(Code::FailedPrecondition, message, info("NO_EMBEDDER", []))
            }
            ApiError::EmbedderLoading => later(Code::Unavailable, message, "LOADING"),
            // Embedding stops only when the caller has left or its deadline has passed.
            ApiError::Encoder(EncoderError::Stopped) => ApiError::Deadline.into(),
            // The next call opens it again.
            ApiError::Encoder(EncoderError::Device(DeviceError::Lost(why))) => {
                tracing::error!(why, "the embedder's device was lost");
                later(Code::Unavailable, "the embedder's device was lost".to_owned(), "DEVICE_LOST")
            }
            ApiError::Encoder(error) => internal(&error.to_string()),
            ApiError::Prompt(error) => {
                invalid(message, "TEMPLATE_REFUSED", "messages", &error.to_string(), [])
            }
            ApiError::Context(error) => context(error, message),
            ApiError::Extract { field, error } => extract(&field, &error, message),
            ApiError::Submit(error) => submit(error, message),
            ApiError::Engine(error) => engine(&error, message),
            ApiError::Store(error) => store(error, message),
            ApiError::NoStore(_) => {
                Self::with_error_details(Code::FailedPrecondition, message, info("NO_STORE", []))
            }
            ApiError::UnknownDocument { field, id } => {
                let mut details = info("UNKNOWN_DOCUMENT", [("document", id.clone())]);
                details.set_resource_info("document", id, "", "not stored by this tenant");
                details.add_bad_request_violation(field, message.clone());
                Self::with_error_details(Code::NotFound, message, details)
            }
            ApiError::Deadline => engine(&EngineError::DeadlineExceeded, message),
            ApiError::Internal(what) => internal(what),
        }
    }
}

/// What the caller is told of a fault of the server's own.
pub(crate) fn internal(what: &str) -> Status {
    tracing::error!(what, "internal error");
    Status::with_error_details(Code::Internal, "internal error", info("INTERNAL", []))
}

fn refused(refusal: &Refusal, message: String) -> Status {
    let quota = |subject: String, limit: usize| {
        let mut details = info("IN_FLIGHT_LIMIT", [("limit", limit.to_string())]);
        details.set_retry_info(Some(RETRY));
        details.add_quota_failure_violation(subject, format!("at most {limit} calls in progress"));
        Status::with_error_details(Code::ResourceExhausted, message.clone(), details)
    };
    match refusal {
        Refusal::Draining => later(Code::Unavailable, message.clone(), "DRAINING"),
        Refusal::ServerFull { limit } => quota("server".to_owned(), *limit),
        Refusal::TenantFull { tenant, limit } => quota(format!("tenant:{tenant}"), *limit),
    }
}

fn context(error: ContextError, message: String) -> Status {
    match error {
        ContextError::Overflow { prompt_tokens, limit } => {
            too_long(prompt_tokens as usize, limit as usize)
        }
        ContextError::BudgetTooSmall { needed, budget } => {
            let figures =
                [("needed_tokens", needed.to_string()), ("budget_tokens", budget.to_string())];
            invalid(message.clone(), "BUDGET_TOO_SMALL", "policy.budget", &message, figures)
        }
        ContextError::PinnedTooLarge { needed, budget } => {
            let figures =
                [("needed_tokens", needed.to_string()), ("budget_tokens", budget.to_string())];
            invalid(message.clone(), "PINNED_TOO_LARGE", "policy.budget", &message, figures)
        }
        ContextError::Policy { field, message: wrong } => {
            invalid(message, "INVALID_FIELD", &format!("policy.{field}"), &wrong, [])
        }
        ContextError::Hint { document, field, message: wrong } => {
            let wrong = format!("of {document:?}: {wrong}");
            invalid(message, "INVALID_FIELD", &format!("documents.{field}"), &wrong, [])
        }
        // Counting stops only when the caller has left or its deadline has passed.
        ContextError::Model { .. } => {
            engine(&EngineError::DeadlineExceeded, "the deadline passed".to_owned())
        }
        ContextError::Embedder { message: what } => internal(&what),
    }
}

fn extract(field: &str, error: &ExtractError, message: String) -> Status {
    let reason = match error {
        ExtractError::Cancelled => {
            return engine(&EngineError::DeadlineExceeded, "the deadline passed".to_owned());
        }
        ExtractError::TooLarge { what, limit } => {
            let figures = [("what", (*what).to_owned()), ("limit", limit.to_string())];
            return invalid(message, "DOCUMENT_TOO_LARGE", field, &error.to_string(), figures);
        }
        ExtractError::Encoding { offset, .. } | ExtractError::UnknownEncoding { offset, .. } => {
            let figures = [("byte_offset", offset.to_string())];
            return invalid(message, "INVALID_ENCODING", field, &error.to_string(), figures);
        }
        ExtractError::Media { .. } => "INVALID_FIELD",
        ExtractError::Malformed { .. } => "MALFORMED_DOCUMENT",
        ExtractError::Encrypted => "ENCRYPTED_DOCUMENT",
        ExtractError::NoText => "NO_TEXT",
    };
    invalid(message, reason, field, &error.to_string(), [])
}

fn store(error: StoreError, message: String) -> Status {
    let full = |reason: &str, subject: &str, message: String, limit: Option<u64>| {
        let mut details = info(reason, []);
        if let Some(limit) = limit {
            details = info(reason, [("limit", limit.to_string())]);
        }
        details.add_quota_failure_violation(subject, message.clone());
        // Room does not come by itself: no RetryInfo.
        Status::with_error_details(Code::ResourceExhausted, message, details)
    };
    match error {
        StoreError::TooLarge { limit } => {
            let figures = [("limit_bytes", limit.to_string())];
            invalid(message.clone(), "DOCUMENT_TOO_LARGE", "data", &message, figures)
        }
        StoreError::Invalid { field, message: wrong } => {
            invalid(message, "INVALID_FIELD", field, &wrong, [])
        }
        StoreError::Quota { what, limit } => {
            full("STORE_QUOTA", &format!("tenant:{what}"), message, Some(limit))
        }
        StoreError::Full { file } => {
            tracing::error!(file = %file.display(), "the store's disk is full");
            full("STORE_FULL", "server", "the server has no room to store it".to_owned(), None)
        }
        other => internal(&other.to_string()),
    }
}

/// The prompt does not fit: both counts, for people and for programs.
fn too_long(prompt_tokens: usize, limit: usize) -> Status {
    let message = format!(
        "the prompt has {prompt_tokens} tokens; this request leaves room for at most {limit}"
    );
    let figures =
        [("prompt_tokens", prompt_tokens.to_string()), ("limit_tokens", limit.to_string())];
    invalid(message.clone(), "PROMPT_TOO_LONG", "prompt", &message, figures)
}

fn submit(error: SubmitError, message: String) -> Status {
    match error {
        SubmitError::Invalid { field, reason } => {
            invalid(message, "INVALID_FIELD", field, &reason, [])
        }
        SubmitError::TooLong { prompt_tokens, max_tokens, limit } => {
            let figures = [
                ("prompt_tokens", prompt_tokens.to_string()),
                ("max_tokens", max_tokens.to_string()),
                ("limit_tokens", limit.to_string()),
            ];
            // A prompt that fits by itself asks for too long an answer.
            let field = if prompt_tokens < limit { "stop.max_tokens" } else { "prompt" };
            invalid(message.clone(), "PROMPT_TOO_LONG", field, &message, figures)
        }
        SubmitError::QueueFull { limit, .. } => {
            let mut details = info("QUEUE_FULL", [("limit", limit.to_string())]);
            details.set_retry_info(Some(RETRY));
            details
                .add_quota_failure_violation("server", format!("at most {limit} requests waiting"));
            Status::with_error_details(Code::ResourceExhausted, message, details)
        }
        SubmitError::DuplicateId(_) => {
            let mut details = info("DUPLICATE_REQUEST_ID", []);
            details.add_bad_request_violation("request_id", message.clone());
            Status::with_error_details(Code::AlreadyExists, message, details)
        }
        SubmitError::Unavailable => later(Code::Unavailable, message, "ENGINE_UNAVAILABLE"),
    }
}

fn engine(error: &EngineError, message: String) -> Status {
    match error {
        EngineError::DeadlineExceeded => {
            Status::with_error_details(Code::DeadlineExceeded, message, info("DEADLINE", []))
        }
        // It had started: no RetryInfo.
        EngineError::ShutDown => Status::with_error_details(
            Code::Unavailable,
            "the server shut down",
            info("SHUT_DOWN", []),
        ),
        EngineError::Failed(why) => internal(why),
    }
}

fn info<const N: usize>(reason: &str, figures: [(&str, String); N]) -> ErrorDetails {
    let metadata: HashMap<String, String> =
        figures.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    ErrorDetails::with_error_info(reason, DOMAIN, metadata)
}

fn invalid<const N: usize>(
    message: String,
    reason: &str,
    field: &str,
    description: &str,
    figures: [(&str, String); N],
) -> Status {
    let mut details = info(reason, figures);
    details.add_bad_request_violation(field, description);
    Status::with_error_details(Code::InvalidArgument, message, details)
}

fn later(code: Code, message: String, reason: &str) -> Status {
    let mut details = info(reason, []);
    details.set_retry_info(Some(RETRY));
    Status::with_error_details(code, message, details)
}
