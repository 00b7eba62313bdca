//! One call: its deadline, its credentials, its tries.

use std::future::Future;

use tokio::time::{Instant, sleep, timeout_at};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Code, Request, Response, Status};

use crate::retry::Repeat;
use crate::{Error, Rejection, Retry};

/// What every try of a call shares.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) authorization: Option<MetadataValue<Ascii>>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) retry: Retry,
}

impl Call {
    /// Sends until it succeeds, fails for good or runs out of time. `send` makes one try.
    pub(crate) async fn run<M, R, F>(
        &self,
        repeat: Repeat,
        message: M,
        mut send: impl FnMut(Request<M>) -> F,
    ) -> Result<R, Error>
    where
        M: Clone,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        for attempt in 1.. {
            let status = match self.try_once(send(self.request(message.clone())?)).await? {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => status,
            };
            let Some(wait) = self.retry.wait(repeat, attempt, &status) else {
                return Err(status.into());
            };
            // A wait that outlasts the deadline would only hide why the call was refused.
            if self.deadline.is_some_and(|deadline| Instant::now() + wait >= deadline) {
                return Err(status.into());
            }
            sleep(wait).await;
        }
        Err(Error::Protocol("more tries than there are numbers"))
    }

    async fn try_once<T>(
        &self,
        send: impl Future<Output = Result<T, Status>>,
    ) -> Result<Result<T, Status>, Error> {
        match self.deadline {
            None => Ok(send.await),
            Some(deadline) => match timeout_at(deadline, send).await {
                // The transport watches the same clock, and calls what it ends so cancelled.
                Ok(Err(status))
                    if status.code() == Code::Cancelled
                        && status.message() == "Timeout expired" =>
                {
                    Err(Error::Rejected(Rejection::deadline().into()))
                }
                Ok(result) => Ok(result),
                Err(_) => Err(Error::Rejected(Rejection::deadline().into())),
            },
        }
    }

    fn request<M>(&self, message: M) -> Result<Request<M>, Error> {
        let mut request = Request::new(message);
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Rejected(Rejection::deadline().into()));
            }
            request.set_timeout(left);
        }
        Ok(request)
    }
}

/// Waits for `next` no longer than `deadline`.
pub(crate) async fn within<T>(
    deadline: Option<Instant>,
    next: impl Future<Output = Result<T, Status>>,
) -> Result<T, Error> {
    let item = match deadline {
        None => next.await,
        Some(deadline) => match timeout_at(deadline, next).await {
            Ok(item) => item,
            Err(_) => return Err(Error::Rejected(Rejection::deadline().into())),
        },
    };
    item.map_err(|status| match status.code() {
        // A connection that breaks under a stream arrives as UNKNOWN with h2's words.
        Code::Unknown if std::error::Error::source(&status).is_some() => {
            Status::unavailable("the connection was lost").into()
        }
        _ => status.into(),
    })
}
