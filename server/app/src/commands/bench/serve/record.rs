//! What became of one request. Times are seconds since the run began.

use pith_client::{Code, Error};

/// One request from its sending to its end.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Record {
    pub(super) sent: f64,
    /// Its last message, or its failure.
    pub(super) ended: f64,
    /// Messages that brought tokens.
    pub(super) chunks: Vec<Chunk>,
    pub(super) outcome: Result<Usage, Refused>,
}

/// A message with tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Chunk {
    pub(super) at: f64,
    pub(super) tokens: u32,
}

/// Tokens as the server counted them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) prompt: u32,
    /// Of those, found in the prefix cache.
    pub(super) cached: u32,
    pub(super) output: u32,
}

/// Why there is no answer, or only part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    /// The gRPC status as the protocol spells it: `RESOURCE_EXHAUSTED`.
    pub(super) status: &'static str,
    pub(super) message: String,
}

/// The times of a whole answer, seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Times {
    /// From sending to the first message with tokens.
    pub(super) ttft: f64,
    /// (`latency` - `ttft`) / (tokens - 1); `None` for an answer of one token.
    pub(super) tpot: Option<f64>,
    /// From sending to the last message with tokens.
    pub(super) latency: f64,
}

impl Record {
    /// The times, if it was answered with at least one token.
    pub(super) fn times(&self) -> Option<Times> {
        let usage = self.outcome.as_ref().ok()?;
        let (first, last) = (self.chunks.first()?, self.chunks.last()?);
        let (ttft, latency) = (first.at - self.sent, last.at - self.sent);
        let further = usage.output.saturating_sub(1);
        let tpot = (further > 0).then(|| (latency - ttft) / f64::from(further));
        Some(Times { ttft, tpot, latency })
    }

    /// Seconds between neighbouring messages with tokens.
    pub(super) fn gaps(&self) -> impl Iterator<Item = f64> {
        self.chunks.windows(2).map(|pair| pair[1].at - pair[0].at)
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Connect { .. } => Code::Unavailable,
            // A server that breaks the contract has a fault of its own.
            _ => error.code().unwrap_or(Code::Internal),
        };
        Self { status: name(code), message: error.to_string() }
    }
}

/// As the protocol spells it.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
