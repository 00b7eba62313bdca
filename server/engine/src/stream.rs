//! The stream of one request's events, from the engine thread to its reader.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use crate::detokenize::Detokenizer;
use crate::request::{EngineError, Event, Finish, GeneratedToken};

/// Events a stream buffers before its writer starts to join them.
const CHANNEL_EVENTS: usize = 32;
/// Tokens joined in the writer before the sequence is paused: a reader this far behind gets no more of the machine
/// until it has caught up, and nobody else waits for it. What a step under way brings, a draft's tokens among it, comes
/// on top.
const LAG_TOKENS: usize = 64;

type Item = Result<Event, EngineError>;

/// Tenant and request id.
type Key = (Arc<str>, String);

/// Live requests, with the flag that aborts them.
#[derive(Debug, Default)]
pub(crate) struct Registry(Mutex<HashMap<Key, Arc<AtomicBool>>>);

impl Registry {
    /// Enters a request; `None` if the id is in use.
    pub(crate) fn enter(
        self: &Arc<Self>,
        tenant: &Arc<str>,
        id: &str,
    ) -> Option<(Entry, Arc<AtomicBool>)> {
        let key = (Arc::clone(tenant), id.to_owned());
        let mut live = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if live.contains_key(&key) {
            return None;
        }
        let flag = Arc::new(AtomicBool::new(false));
        live.insert(key.clone(), Arc::clone(&flag));
        Some((Entry { registry: Arc::clone(self), key }, flag))
    }

    /// The abort flag of a live request.
    pub(crate) fn flag(&self, tenant: &str, id: &str) -> Option<Arc<AtomicBool>> {
        let live = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        live.get(&(Arc::from(tenant), id.to_owned())).cloned()
    }
}

/// A request's entry in the registry, for as long as its reader lives.
#[derive(Debug)]
pub(crate) struct Entry {
    registry: Arc<Registry>,
    key: Key,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.registry.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// The events of one request. Dropping it cancels the request: its blocks are free within one step.
#[derive(Debug)]
pub struct TokenStream {
    events: mpsc::Receiver<Item>,
    done: bool,
    _entry: Entry,
}

impl TokenStream {
    pub(crate) fn new(entry: Entry) -> (Self, mpsc::Sender<Item>) {
        let (sender, events) = mpsc::channel(CHANNEL_EVENTS);
        (Self { events, done: false, _entry: entry }, sender)
    }

    /// The next event; `None` after [`Event::Finished`] or an error.
    pub async fn next(&mut self) -> Option<Item> {
        if self.done {
            return None;
        }
        let item = self.events.recv().await;
        Some(self.note(item))
    }

    /// As [`Self::next`], for threads outside an async runtime.
    pub fn next_blocking(&mut self) -> Option<Item> {
        if self.done {
            return None;
        }
        let item = self.events.blocking_recv();
        Some(self.note(item))
    }

    fn note(&mut self, item: Option<Item>) -> Item {
        // A channel that closes without a last event belonged to an engine that is gone.
        let item = item.unwrap_or(Err(EngineError::ShutDown));
        self.done = !matches!(item, Ok(Event::Tokens { .. }));
        item
    }
}

/// The engine thread's end of a [`TokenStream`].
#[derive(Debug)]
pub(crate) struct StreamWriter {
    events: mpsc::Sender<Item>,
    detokenizer: Detokenizer,
    text: String,
    tokens: Vec<GeneratedToken>,
    /// Tokens taken in since the beginning.
    taken: usize,
    last: Option<Item>,
    /// When the first token came.
    pub(crate) first_token: Option<Instant>,
}

impl StreamWriter {
    pub(crate) fn new(events: mpsc::Sender<Item>, stops: Vec<String>) -> Self {
        Self {
            events,
            detokenizer: Detokenizer::new(stops),
            text: String::new(),
            tokens: Vec::new(),
            taken: 0,
            last: None,
            first_token: None,
        }
    }

    /// Takes in a token and the bytes to show for it; the stop string it completed, if any.
    pub(crate) fn push(&mut self, token: GeneratedToken, shown: &[u8]) -> Option<String> {
        self.first_token.get_or_insert_with(Instant::now);
        self.tokens.push(token);
        self.taken += 1;
        self.text.push_str(&self.detokenizer.push(shown));
        self.detokenizer.stopped().map(str::to_owned)
    }

    /// Tokens taken in since the beginning.
    pub(crate) fn taken(&self) -> usize {
        self.taken
    }

    /// Sends what is ready if the reader has room; true once everything, the last event included, is sent.
    pub(crate) fn flush(&mut self) -> bool {
        if !self.tokens.is_empty() || !self.text.is_empty() {
            let event = Event::Tokens {
                text: std::mem::take(&mut self.text),
                tokens: std::mem::take(&mut self.tokens),
            };
            match self.events.try_send(Ok(event)) {
                Ok(()) => {}
                Err(TrySendError::Full(Ok(Event::Tokens { text, tokens }))) => {
                    (self.text, self.tokens) = (text, tokens);
                    return false;
                }
                Err(_) => {}
            }
        }
        let Some(last) = self.last.take() else { return false };
        match self.events.try_send(last) {
            Err(TrySendError::Full(last)) => {
                self.last = Some(last);
                false
            }
            _ => true,
        }
    }

    /// Ends the stream: held-back text goes out, then `finish`.
    pub(crate) fn finish(&mut self, finish: Finish) {
        let rest = self.detokenizer.finish();
        self.text.push_str(&rest);
        self.last = Some(Ok(Event::Finished(finish)));
    }

    /// Ends the stream with an error.
    pub(crate) fn fail(&mut self, error: EngineError) {
        self.last = Some(Err(error));
    }

    /// Whether the reader is so far behind that the sequence should pause.
    pub(crate) fn lagging(&self) -> bool {
        self.tokens.len() >= LAG_TOKENS
    }

    /// Whether the reader is gone.
    pub(crate) fn closed(&self) -> bool {
        self.events.is_closed()
    }
}

/// The engine thread's end of a score request.
#[derive(Debug)]
pub(crate) struct ScoreWriter {
    pub(crate) reply: oneshot::Sender<Result<Vec<f32>, EngineError>>,
    pub(crate) logprobs: Vec<f32>,
    pub(crate) from: usize,
}

impl ScoreWriter {
    /// Takes in likelihoods of tokens from index `first` on. After a preemption some come a second time.
    pub(crate) fn take(&mut self, first: usize, logprobs: &[f32]) {
        self.logprobs.truncate(first.saturating_sub(self.from));
        self.logprobs.extend_from_slice(logprobs);
    }
}
