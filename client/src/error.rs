//! Why a call failed, with the server's details decoded.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::retry::unsent;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The endpoint or key cannot be used.
    #[error("invalid endpoint: {0}")]
    Endpoint(String),
    /// No connection.
    #[error("cannot connect to {endpoint}")]
    Connect {
        /// Where to.
        endpoint: String,
        /// Why not.
        source: tonic::transport::Error,
    },
    /// The call was refused or broke off.
    #[error(transparent)]
    Rejected(Box<Rejection>),
    /// The server broke the contract.
    #[error("the server broke the protocol: {0}")]
    Protocol(&'static str),
}

impl Error {
    /// The rejection, if the server gave one.
    #[must_use]
    pub fn rejection(&self) -> Option<&Rejection> {
        match self {
            Self::Rejected(rejection) => Some(rejection),
            _ => None,
        }
    }

    /// The status code of a rejection.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        self.rejection().map(|rejection| rejection.code)
    }
}

/// A call refused or broken off, and everything the server said about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Rejection {
    /// Status code.
    pub code: Code,
    /// For people.
    pub message: String,
    /// For programs: `PROMPT_TOO_LONG`, `UNKNOWN_MODEL`, `QUEUE_FULL` and the like.
    pub reason: Option<String>,
    /// Figures that go with the reason: `prompt_tokens`, `limit_tokens`.
    pub metadata: HashMap<String, String>,
    /// Fields at fault.
    pub violations: Vec<Violation>,
    /// Bounds that were hit.
    pub quotas: Vec<Quota>,
    /// The call did not start; it may be tried again after this long.
    pub retry_after: Option<Duration>,
}

/// A field at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Dotted path: `sampling.temperature`, `documents[2].id`.
    pub field: String,
    /// What it must be.
    pub description: String,
}

/// A bound that was hit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// Whose: `tenant:NAME`, `server`.
    pub subject: String,
    /// Which, and its size.
    pub description: String,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        // One violation is the message itself.
        if self.violations.len() > 1 {
            for violation in &self.violations {
                write!(f, "\n  {}: {}", violation.field, violation.description)?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Rejection {}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::Rejected(Box::new(Rejection::from(&status)))
    }
}

impl From<&Status> for Rejection {
    fn from(status: &Status) -> Self {
        // tonic's own timer, which runs beside the server's, reports CANCELLED.
        if std::error::Error::source(status)
            .is_some_and(|source| source.is::<tonic::TimeoutExpired>())
        {
            return Self::deadline();
        }
        if unsent(status) {
            let message = "the connection was closed before the call was sent".to_owned();
            return Self { code: Code::Unavailable, message, ..Self::deadline() };
        }
        let details = status.get_error_details();
        let (reason, metadata) = match details.error_info() {
            Some(info) => (Some(info.reason.clone()), info.metadata.clone()),
            None => (None, HashMap::new()),
        };
        Self {
            code: status.code(),
            message: status.message().to_owned(),
            reason,
            metadata,
            violations: details.bad_request().map_or_else(Vec::new, |bad| {
                let violation = |v: &tonic_types::FieldViolation| Violation {
                    field: v.field.clone(),
                    description: v.description.clone(),
                };
                bad.field_violations.iter().map(violation).collect()
            }),
            quotas: details.quota_failure().map_or_else(Vec::new, |failure| {
                let quota = |v: &tonic_types::QuotaViolation| Quota {
                    subject: v.subject.clone(),
                    description: v.description.clone(),
                };
                failure.violations.iter().map(quota).collect()
            }),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
        }
    }
}

impl Rejection {
    /// The deadline passed on this side.
    pub(crate) fn deadline() -> Self {
        Self {
            code: Code::DeadlineExceeded,
            message: "the deadline passed".to_owned(),
            reason: None,
            metadata: HashMap::new(),
            violations: Vec::new(),
            quotas: Vec::new(),
            retry_after: None,
        }
    }
}
