//! What stands before every service: who calls, until when, and is there room.
//!
//! A layer, not a line in each method, so that a method added later is authenticated and bounded without anybody
//! remembering to. It runs before the message is read: callers without a key or a place cannot make the
//! server take memory.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::status::ApiError;
use crate::admission::{Admission, Permit};
use crate::tenants::{Tenant, Tenants};

/// Services anyone may call: probes have no keys, and contracts are no secret.
const OPEN: [&str; 3] = [
    "/grpc.health.v1.Health/",
    "/grpc.reflection.v1.ServerReflection/",
    "/grpc.reflection.v1alpha.ServerReflection/",
];
/// Calls that do no work: they take no place, so that they answer when all are taken.
const CONTROL: [&str; 2] = ["/pith.v1.Models/", "/pith.v1.Inference/Abort"];

/// Who calls and until when; in every authenticated request's extensions.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) arrived: Instant,
    /// The caller's deadline or the server's, whichever is sooner.
    pub(crate) deadline: Instant,
    /// The place taken, to be held as long as the call does anything. Control calls have none.
    pub(crate) _permit: Option<Arc<Permit>>,
}

impl Caller {
    /// The caller of a request that came through the gate.
    pub(crate) fn of<T>(request: &tonic::Request<T>) -> Result<Self, ApiError> {
        request
            .extensions()
            .get::<Self>()
            .cloned()
            .ok_or(ApiError::Internal("a call came past the gate"))
    }
}

/// What the gate goes by.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) tenants: Tenants,
    pub(crate) admission: Arc<Admission>,
    pub(crate) max_request: Duration,
}

/// Puts a [`Gate`] before a service.
#[derive(Debug, Clone)]
pub(crate) struct GateLayer(pub(crate) Arc<Door>);

impl<S> Layer<S> for GateLayer {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Gate<S> {
        Gate { inner, door: Arc::clone(&self.0) }
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Gate<S> {
    inner: S,
    door: Arc<Door>,
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<S, B> Service<Request<B>> for Gate<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Answer {
        if OPEN.iter().any(|open| request.uri().path().starts_with(open)) {
            return Box::pin(self.inner.call(request));
        }
        let caller = match self.door.caller(&request) {
            Ok(caller) => caller,
            Err(error) => {
                let status = Status::from(error);
                tracing::info!(method = request.uri().path(), code = ?status.code(), "refused");
                return Box::pin(async move { Ok(status.into_http()) });
            }
        };
        let deadline = caller.deadline;
        let span = tracing::info_span!("call", method = request.uri().path(), tenant = %caller.tenant.name);
        request.extensions_mut().insert(caller);
        let answer = {
            let _entered = span.enter();
            self.inner.call(request)
        };
        // Until the headers, which for a unary call is its whole life. tonic has a timer of its own for this, begun a
        // moment later, which would say CANCELLED. Streams carry the deadline on in `answer`.
        let answer = async move {
            match tokio::time::timeout_at(deadline.into(), answer).await {
                Ok(answer) => answer,
                Err(_) => Ok(Status::from(ApiError::Deadline).into_http()),
            }
        };
        Box::pin(tracing::Instrument::instrument(answer, span))
    }
}

impl Door {
    fn caller<B>(&self, request: &Request<B>) -> Result<Caller, ApiError> {
        let arrived = Instant::now();
        let header = |name: &str| request.headers().get(name).map(http::HeaderValue::as_bytes);
        let tenant = self.tenants.authenticate(header("authorization"))?;
        let timeout = match header("grpc-timeout") {
            None => self.max_request,
            Some(value) => parse_timeout(value)
                .ok_or(ApiError::field(
                    "grpc-timeout",
                    "must be 1 to 8 digits and one of H M S m u n",
                ))?
                .min(self.max_request),
        };
        if timeout.is_zero() {
            return Err(ApiError::Deadline);
        }
        let control = CONTROL.iter().any(|control| request.uri().path().starts_with(control));
        let permit = if control { None } else { Some(Arc::new(self.admission.admit(&tenant)?)) };
        Ok(Caller { tenant, arrived, deadline: arrived + timeout, _permit: permit })
    }
}

/// `grpc-timeout` as the gRPC protocol over HTTP/2 states it.
fn parse_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_the_protocol_says() {
        assert_eq!(parse_timeout(b"1H"), Some(Duration::from_secs(3600)));
        assert_eq!(parse_timeout(b"99999999M"), Some(Duration::from_secs(5_999_999_940)));
        assert_eq!(parse_timeout(b"250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse_timeout(b"7u"), Some(Duration::from_micros(7)));
        for wrong in ["", "1", "m", "100000000n", "-1S", "+1S", "1.5S", "1 S", "1s"] {
            assert_eq!(parse_timeout(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
