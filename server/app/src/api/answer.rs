//! The engine's events become the wire's, with citations between.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use pith_engine::TokenStream;
use pith_engine::request::{EngineError, Event, Finish, FinishReason, GeneratedToken};
use pith_proto::v1;
use pith_proto::v1::OffsetUnit;
use pith_proto::v1::generate_response::Event as Wire;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use super::gate::Caller;
use super::offsets::units;
use super::prepare::{Citing, Ruler, original, span};
use super::status::{ApiError, internal};

/// Messages between an answer and its socket. When they fill up the engine joins tokens and then lets the sequence
/// rest: a slow reader delays nobody but itself.
const BUFFERED: usize = 8;

/// An answer under way.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) tokens: Option<TokenStream>,
    pub(super) ready: VecDeque<Wire>,
    pub(super) citing: Option<Citing>,
    pub(super) unit: OffsetUnit,
    pub(super) logprobs: bool,
    pub(super) request_id: String,
    pub(super) model: String,
    pub(super) caller: Caller,
    /// When it went to the engine.
    pub(super) submitted: Instant,
    pub(super) text: String,
    pub(super) logprob_sum: f64,
    pub(super) logprob_count: u32,
}

impl Answer {
    /// The next message; `None` after the last. An error is the last.
    pub(super) async fn next(&mut self) -> Option<Result<Wire, ApiError>> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Some(Ok(ready));
            }
            let tokens = self.tokens.as_mut()?;
            // The engine minds the deadline too; this is for the wait for an engine that is stuck.
            let event =
                match tokio::time::timeout_at(self.caller.deadline.into(), tokens.next()).await {
                    Ok(event) => event.unwrap_or(Err(EngineError::ShutDown)),
                    Err(_) => Err(EngineError::DeadlineExceeded),
                };
            match event {
                Ok(Event::Tokens { text, tokens }) => self.push(text, &tokens),
                Ok(Event::Finished(finish)) => self.finish(finish),
                Err(error) => {
                    self.tokens = None;
                    tracing::info!(request_id = self.request_id, %error, "broke off");
                    return Some(Err(error.into()));
                }
            }
        }
    }

    fn push(&mut self, text: String, tokens: &[GeneratedToken]) {
        self.logprob_sum += tokens.iter().map(|token| f64::from(token.logprob)).sum::<f64>();
        self.logprob_count += u32::try_from(tokens.len()).unwrap_or(0);
        let token = |token: &GeneratedToken| v1::Token {
            id: token.id,
            logprob: self.logprobs.then_some(token.logprob),
        };
        let tokens = tokens.iter().map(token).collect();
        let citations =
            self.citing.as_mut().map_or_else(Vec::new, |citing| citing.citer.push(&text));
        self.text.push_str(&text);
        self.ready.push_back(Wire::Tokens(v1::TokenChunk { text, tokens }));
        self.cite(citations);
    }

    fn finish(&mut self, finish: Finish) {
        self.tokens = None;
        let citations = self.citing.as_mut().map_or_else(Vec::new, |citing| citing.citer.finish());
        self.cite(citations);
        let total = self.caller.arrived.elapsed();
        tracing::info!(
            request_id = self.request_id,
            prompt_tokens = finish.prompt_tokens,
            cached_tokens = finish.cached_tokens,
            completion_tokens = finish.completion_tokens,
            reason = ?FinishKind(&finish.reason),
            seconds = total.as_secs_f64(),
            "answered"
        );
        let (reason, matched_stop) = match finish.reason {
            FinishReason::StopToken(id) => {
                (v1::FinishReason::Stop, Some(v1::matched_stop::Stop::TokenId(id)))
            }
            FinishReason::StopString(text) => {
                (v1::FinishReason::Stop, Some(v1::matched_stop::Stop::Text(text)))
            }
            FinishReason::Length => (v1::FinishReason::Length, None),
            FinishReason::Aborted => (v1::FinishReason::Aborted, None),
        };
        let confidence = (self.logprob_count > 0).then(|| v1::Confidence {
            mean_logprob: self.logprob_sum / f64::from(self.logprob_count),
            calibrated: false,
        });
        self.ready.push_back(Wire::Final(v1::Final {
            request_id: std::mem::take(&mut self.request_id),
            model: std::mem::take(&mut self.model),
            usage: Some(v1::Usage {
                prompt_tokens: finish.prompt_tokens,
                cached_tokens: finish.cached_tokens,
                completion_tokens: finish.completion_tokens,
                draft_tokens: finish.draft_tokens,
                accepted_draft_tokens: finish.accepted_draft_tokens,
            }),
            finish_reason: reason.into(),
            matched_stop: matched_stop.map(|stop| v1::MatchedStop { stop: Some(stop) }),
            timings: Some(v1::Timings {
                prepare_seconds: (self.submitted - self.caller.arrived).as_secs_f64(),
                queue_seconds: finish.queue_seconds,
                prefill_seconds: finish.prefill_seconds,
                decode_seconds: finish.decode_seconds,
                total_seconds: total.as_secs_f64(),
            }),
            confidence,
        }));
    }

    fn cite(&mut self, citations: Vec<pith_context::Citation>) {
        let Some(citing) = &self.citing else { return };
        let wire = |each| Wire::Citation(citation(each, &citing.documents, self.unit, &self.text));
        self.ready.extend(citations.into_iter().map(wire));
    }

    /// Reads to the end.
    pub(super) async fn collect(mut self) -> Result<v1::GenerateUnaryResponse, ApiError> {
        let mut whole = v1::GenerateUnaryResponse::default();
        while let Some(event) = self.next().await {
            match event? {
                Wire::Report(report) => whole.report = Some(report),
                Wire::Tokens(chunk) => {
                    whole.text.push_str(&chunk.text);
                    if self.logprobs {
                        whole.tokens.extend(chunk.tokens);
                    }
                }
                Wire::Citation(citation) => whole.citations.push(citation),
                Wire::Final(last) => whole.r#final = Some(last),
            }
        }
        Ok(whole)
    }

    /// The answer as a response stream, produced by a task of its own: a panic in it ends this answer with INTERNAL
    /// and nothing else. Dropping the stream ends the task, and with it the request.
    pub(super) fn stream(mut self) -> AnswerStream {
        let (sender, receiver) = mpsc::channel(BUFFERED);
        let work = async move {
            while let Some(event) = self.next().await {
                let event = event
                    .map(|event| v1::GenerateResponse { event: Some(event) })
                    .map_err(Status::from);
                if sender.send(Some(event)).await.is_err() {
                    return;
                }
            }
            let _ = sender.send(None).await;
        };
        let task = tokio::spawn(tracing::Instrument::in_current_span(work));
        AnswerStream { receiver, done: false, _task: AbortOnDropHandle::new(task) }
    }
}

/// A citation on the wire; `answer` is the text so far.
fn citation(
    citation: pith_context::Citation,
    documents: &[Ruler],
    unit: OffsetUnit,
    answer: &str,
) -> v1::Citation {
    let at = |byte: usize| units(unit, answer.get(..byte).unwrap_or(answer));
    let source = |source: pith_context::Source| v1::Source {
        span: Some(span(documents, source.span)),
        cited_text: source.cited_text,
        score: source.score,
        original: original(documents, source.span),
    };
    v1::Citation {
        answer_start: at(citation.answer.start),
        answer_end: at(citation.answer.end),
        sources: citation.sources.into_iter().map(source).collect(),
    }
}

/// A finish reason without the caller's words, for the log.
struct FinishKind<'a>(&'a FinishReason);

impl std::fmt::Debug for FinishKind<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            FinishReason::StopToken(_) => "stop token",
            FinishReason::StopString(_) => "stop string",
            FinishReason::Length => "length",
            FinishReason::Aborted => "aborted",
        })
    }
}

/// See [`Answer::stream`].
#[derive(Debug)]
pub(crate) struct AnswerStream {
    /// `None` says that the end is the end; a channel that closes without it lost its task.
    receiver: mpsc::Receiver<Option<Result<v1::GenerateResponse, Status>>>,
    done: bool,
    _task: AbortOnDropHandle<()>,
}

impl Stream for AnswerStream {
    type Item = Result<v1::GenerateResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.done {
            return Poll::Ready(None);
        }
        let item = match std::task::ready!(self.receiver.poll_recv(context)) {
            Some(item) => item,
            None => Some(Err(internal("an answer's task panicked"))),
        };
        self.done = !matches!(item, Some(Ok(_)));
        Poll::Ready(item)
    }
}

#[cfg(test)]
mod tests {
    use pith_context::{Citer, Document, Packed, Piece, Span};
    use proptest::prelude::*;

    use super::*;

    /// The characters from `start` to `end`, counted in `unit`.
    fn cut(text: &str, unit: OffsetUnit, start: u64, end: u64) -> String {
        let (start, end) = (start as usize, end as usize);
        match unit {
            OffsetUnit::Utf8Byte => text[start..end].to_owned(),
            OffsetUnit::Utf16 => {
                let wide: Vec<u16> = text.encode_utf16().collect();
                String::from_utf16(&wide[start..end]).unwrap()
            }
            _ => text.chars().skip(start).take(end - start).collect(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn citations_are_where_they_say_in_every_unit(
            sentences in prop::collection::vec("(The|Das) (alte|old|größte) (Brücke|船|tower 🗼) (of|von) (Köln|Brigg) (fell|brannte) in 1[0-9]{3}\\. ", 1..6),
            own in "[a-zé漢😀 ]{0,12}\n",
            picked in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
            unit in prop::sample::select(vec![OffsetUnit::Utf8Byte, OffsetUnit::CodePoint, OffsetUnit::Utf16]),
        ) {
            let text = sentences.concat();
            let source = Span { document: 0, start: 0, end: text.len() };
            let packed = Packed {
                text: text.clone(),
                pieces: vec![Piece { source, packed: 0..text.len() }],
            };
            let documents = [Document { text: text.clone(), ..Document::default() }];
            let rulers = [Ruler::new("it", unit, &text)];
            let mut citer = Citer::new(&documents, &packed);
            let mut answer = own;
            for index in picked {
                answer.push_str(&sentences[index.index(sentences.len())]);
            }
            let mut cited = citer.push(&answer);
            cited.extend(citer.finish());
            prop_assert!(!cited.is_empty());
            for each in cited {
                let bytes = each.answer.clone();
                let wire = citation(each, &rulers, unit, &answer);
                prop_assert_eq!(cut(&answer, unit, wire.answer_start, wire.answer_end), &answer[bytes]);
                for source in wire.sources {
                    let span = source.span.unwrap();
                    prop_assert_eq!(cut(&text, unit, span.start, span.end), source.cited_text);
                }
            }
        }
    }
}
