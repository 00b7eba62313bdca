//! How a connection is made.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Endpoint;

use crate::{Client, Error, Retry};

/// Wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Pings while a call is open find dead peers that never sent a FIN.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// A ping unanswered for this long ends the connection.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Streams this client has cancelled that HTTP/2 remembers. A frame for a forgotten one counts as the peer's error,
/// and the default of 10 in 30 seconds is soon outrun by a caller that cancels a lot.
const RESET_STREAMS_REMEMBERED: usize = 4096;
/// How long each is remembered: longer than frames stay under way.
const RESET_STREAM_MEMORY: Duration = Duration::from_secs(10);
/// Largest response: a packed context and its report exceed tonic's 4 MiB.
const MAX_RESPONSE_BYTES: usize = 64 * 1024 * 1024;

/// A connection about to be made: set what is wanted, then `.await` it.
#[derive(Clone)]
#[must_use = "nothing is connected until this is awaited"]
pub struct Connect {
    endpoint: String,
    key: Option<String>,
    deadline: Option<Duration>,
    retry: Retry,
    lazy: bool,
}

impl Connect {
    pub(crate) fn new(endpoint: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            key: None,
            deadline: None,
            retry: Retry::default(),
            lazy: false,
        }
    }

    /// The tenant's key, sent as `authorization: Bearer KEY`. Default: none.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Time each call may take, retries included. Default: none, the server's own bound applies.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// When refused calls are tried again. Default: [`Retry::default`].
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Connect at the first call instead of now.
    pub fn lazy(mut self) -> Self {
        self.lazy = true;
        self
    }

    async fn open(self) -> Result<Client, Error> {
        // `host:port` is what people type, and what `--grpc-listen` takes.
        let uri = if self.endpoint.contains("://") {
            self.endpoint.clone()
        } else {
            format!("http://{}", self.endpoint)
        };
        let endpoint = Endpoint::from_shared(uri)
            .map_err(|error| Error::Endpoint(format!("{}: {error}", self.endpoint)))?
            .user_agent(concat!("pith-client/", env!("CARGO_PKG_VERSION")))
            .map_err(|error| Error::Endpoint(error.to_string()))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .http2_max_concurrent_reset_streams(RESET_STREAMS_REMEMBERED)
            .http2_reset_stream_duration(RESET_STREAM_MEMORY)
            // The server is the caller's own choice; the default of 1,024 per connection would end a channel after
            // that many late frames.
            .http2_max_local_error_reset_streams(None);
        let authorization: Option<MetadataValue<Ascii>> = match self.key {
            None => None,
            Some(key) => {
                let mut value: MetadataValue<Ascii> =
                    format!("Bearer {key}").parse().map_err(|_| {
                        Error::Endpoint("the key holds characters a header cannot".to_owned())
                    })?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let channel = if self.lazy {
            endpoint.connect_lazy()
        } else {
            endpoint
                .connect()
                .await
                .map_err(|source| Error::Connect { endpoint: self.endpoint.clone(), source })?
        };
        Ok(Client::new(channel, authorization, self.deadline, self.retry, MAX_RESPONSE_BYTES))
    }
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the key.
        f.debug_struct("Connect").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl IntoFuture for Connect {
    type Output = Result<Client, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.open())
    }
}
