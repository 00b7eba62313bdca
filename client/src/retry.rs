//! When a refused call is tried again.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

use tonic::{Code, Status};

use crate::Rejection;

/// When a refused call is tried again.
///
/// Only UNAVAILABLE and RESOURCE_EXHAUSTED are: any call whose refusal says that it did not start (RetryInfo, or no
/// connection), and calls that change nothing whatever became of them. A stream that has begun is never repeated.
/// Waits double from `first` to `longest`, are shortened at random by up to half so that callers
/// refused together do not come back together, and are never shorter than the server asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Most tries, the first included; 1 = never again. Default: 4.
    pub attempts: u32,
    /// Wait after the first. Default: 100 ms.
    pub first: Duration,
    /// Longest wait; a server that asks for more is not waited for. Default: 5 s.
    pub longest: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 4, first: Duration::from_millis(100), longest: Duration::from_secs(5) }
    }
}

/// What may be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Changes nothing on the server: repeat whatever became of it.
    Idempotent,
    /// Costs tokens: repeat only what did not start.
    Unstarted,
}

impl Retry {
    /// Never tries again.
    #[must_use]
    pub fn never() -> Self {
        Self { attempts: 1, ..Self::default() }
    }

    /// How long to wait before try number `attempt + 1`; `None`: give up.
    pub(crate) fn wait(&self, repeat: Repeat, attempt: u32, status: &Status) -> Option<Duration> {
        let refused = matches!(status.code(), Code::Unavailable | Code::ResourceExhausted);
        if attempt >= self.attempts || !(refused || unsent(status)) {
            return None;
        }
        let asked = Rejection::from(status).retry_after;
        let unstarted = asked.is_some() || unconnected(status);
        // RESOURCE_EXHAUSTED without RetryInfo is a bound that will not move: a message too large.
        if !unstarted && (repeat == Repeat::Unstarted || status.code() == Code::ResourceExhausted) {
            return None;
        }
        let asked = asked.unwrap_or_default();
        if asked > self.longest {
            return None;
        }
        let step =
            self.first.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(self.longest);
        Some(step.mul_f64(1.0 - 0.5 * random_share()).max(asked))
    }
}

/// hyper's words for a request that was still waiting for its connection when that went away.
const UNSENT: &str = "operation was canceled";

/// Whether the call was never sent: the connection was told to go (a server draining) before its turn came. tonic
/// gives that the code of a call its own caller has cancelled.
pub(crate) fn unsent(status: &Status) -> bool {
    status.code() == Code::Cancelled
        && std::error::Error::source(status).is_some()
        && status.message() == UNSENT
}

/// Whether the call failed for want of a connection, so that the server never saw it.
fn unconnected(status: &Status) -> bool {
    if unsent(status) {
        return true;
    }
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return error.kind() == std::io::ErrorKind::ConnectionRefused;
        }
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// A number in `[0, 1)`, different each time: the hasher's keys are the standard library's only randomness.
fn random_share() -> f64 {
    let bits = RandomState::new().build_hasher().finish() >> 11;
    bits as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;

    fn refused(code: Code, after: Option<Duration>) -> Status {
        Status::with_error_details(
            code,
            "refused",
            after
                .map_or_else(ErrorDetails::new, |after| ErrorDetails::with_retry_info(Some(after))),
        )
    }

    #[test]
    fn a_generation_that_may_have_started_is_not_repeated() {
        let retry = Retry::default();
        let lost = refused(Code::Unavailable, None);
        assert_eq!(retry.wait(Repeat::Unstarted, 1, &lost), None);
        assert!(retry.wait(Repeat::Idempotent, 1, &lost).is_some());
        let full = refused(Code::ResourceExhausted, Some(Duration::from_millis(1)));
        assert!(retry.wait(Repeat::Unstarted, 1, &full).is_some());
    }

    #[test]
    fn bounds_that_do_not_move_are_not_tried_again() {
        let retry = Retry::default();
        for repeat in [Repeat::Idempotent, Repeat::Unstarted] {
            assert_eq!(retry.wait(repeat, 1, &refused(Code::ResourceExhausted, None)), None);
            assert_eq!(
                retry.wait(repeat, 1, &refused(Code::InvalidArgument, Some(Duration::ZERO))),
                None
            );
        }
    }

    #[test]
    fn waits_grow_keep_their_bounds_and_honour_the_server() {
        let retry = Retry { attempts: 9, ..Retry::default() };
        for attempt in 1..9 {
            let step = Duration::from_millis(100 << (attempt - 1)).min(retry.longest);
            let wait = retry
                .wait(Repeat::Unstarted, attempt, &refused(Code::Unavailable, Some(Duration::ZERO)))
                .unwrap();
            assert!(wait <= step && wait >= step / 2, "{attempt}: {wait:?}");
        }
        let asked = Duration::from_secs(3);
        assert_eq!(
            retry.wait(Repeat::Unstarted, 1, &refused(Code::Unavailable, Some(asked))),
            Some(asked)
        );
        assert_eq!(
            retry.wait(Repeat::Unstarted, 1, &refused(Code::Unavailable, Some(asked * 2))),
            None
        );
        assert_eq!(
            retry.wait(Repeat::Unstarted, 9, &refused(Code::Unavailable, Some(asked))),
            None
        );
    }
}
