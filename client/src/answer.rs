//! A streamed answer as typed events.

use std::time::Duration;

use pith_proto::v1;
use pith_proto::v1::generate_response::Event as Wire;
use tokio::time::Instant;
use tonic::Streaming;

use crate::Error;
use crate::call::within;

/// The server ends a stream at the deadline itself and says what it has; this side waits a little longer for that, and no
/// longer, should the server be gone.
const DEADLINE_GRACE: Duration = Duration::from_millis(500);

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// What became of the documents. First, if there are any.
    Report(v1::CompressionReport),
    /// Text and tokens.
    Tokens(v1::TokenChunk),
    /// Sources of text already given.
    Citation(v1::Citation),
    /// Usage, why it ended, times. Last.
    Final(v1::Final),
}

/// A streamed answer. Dropping it cancels the request: the server frees what it holds within one step.
#[derive(Debug)]
pub struct Answer {
    stream: Streaming<v1::GenerateResponse>,
    deadline: Option<Instant>,
    dry_run: bool,
    done: bool,
}

impl Answer {
    pub(crate) fn new(
        stream: Streaming<v1::GenerateResponse>,
        deadline: Option<Instant>,
        dry_run: bool,
    ) -> Self {
        Self {
            stream,
            deadline: deadline.map(|deadline| deadline + DEADLINE_GRACE),
            dry_run,
            done: false,
        }
    }

    /// The next event; `None` after the last.
    ///
    /// # Errors
    /// [`Error::Rejected`] if the server ended the answer early (deadline, drain, failure); nothing follows.
    pub async fn next(&mut self) -> Result<Option<Event>, Error> {
        if self.done {
            return Ok(None);
        }
        let item = within(self.deadline, self.stream.message()).await;
        let event = match item {
            Ok(Some(v1::GenerateResponse { event: Some(event) })) => event,
            // A field number this build does not know: an event of a newer server.
            Ok(Some(v1::GenerateResponse { event: None })) => return Box::pin(self.next()).await,
            Ok(None) if self.dry_run => {
                self.done = true;
                return Ok(None);
            }
            Ok(None) => {
                self.done = true;
                return Err(Error::Protocol("the stream ended without its final message"));
            }
            Err(error) => {
                self.done = true;
                return Err(error);
            }
        };
        Ok(Some(match event {
            Wire::Report(report) => Event::Report(report),
            Wire::Tokens(chunk) => Event::Tokens(chunk),
            Wire::Citation(citation) => Event::Citation(citation),
            Wire::Final(last) => {
                self.done = true;
                Event::Final(last)
            }
        }))
    }

    /// Reads to the end and joins the pieces.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn collect(mut self) -> Result<v1::GenerateUnaryResponse, Error> {
        let mut whole = v1::GenerateUnaryResponse::default();
        while let Some(event) = self.next().await? {
            match event {
                Event::Report(report) => whole.report = Some(report),
                Event::Tokens(chunk) => {
                    whole.text.push_str(&chunk.text);
                    whole.tokens.extend(chunk.tokens);
                }
                Event::Citation(citation) => whole.citations.push(citation),
                Event::Final(last) => whole.r#final = Some(last),
            }
        }
        Ok(whole)
    }
}
