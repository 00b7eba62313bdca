//! A run: requests sent as the load says, over real connections, and a record of each.
//!
//! The load generator often shares its cores with the server, so it does as little as it can while a run goes on: one
//! task per request under way, an instant per message, no arithmetic.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pith_client::{Answer, Client, Error, Event, v1};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::load::{Load, Open};
use super::record::{Chunk, Record, Refused, Usage};
use crate::commands::random::Random;

/// Records on their way to the collector.
const BUFFERED: usize = 256;

/// What to ask.
#[derive(Debug, Clone)]
pub(super) enum Ask {
    Generate(v1::GenerateRequest),
    Chat(v1::ChatRequest),
}

/// How a run went.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Driven {
    /// In the order in which they ended.
    pub(super) records: Vec<Record>,
    /// Sent, and not ended when the run was told to stop.
    pub(super) cut_off: usize,
    /// It was told to stop.
    pub(super) interrupted: bool,
}

/// Sends `asks`, spread evenly over `clients`, and waits for their ends or for `stop`. `random` decides the
/// arrivals of an open loop; `ended` is called as each ends.
pub(super) async fn drive(
    clients: &[Client],
    asks: Vec<Ask>,
    load: Load,
    random: &mut Random,
    stop: &CancellationToken,
    mut ended: impl FnMut(),
) -> Driven {
    let (records, mut recorded) = mpsc::channel(BUFFERED);
    let sent = Arc::new(AtomicUsize::new(0));
    let count = asks.len();
    let line = Arc::new(Line {
        clients: clients.to_vec(),
        asks,
        next: AtomicUsize::new(0),
        sent: Arc::clone(&sent),
        records,
        began: Instant::now(),
    });
    let work = match load {
        Load::Closed { concurrency } => tokio::spawn(closed(line, concurrency)),
        Load::Open(open) => tokio::spawn(arriving(line, open, open.arrivals(count, random))),
    };
    // Ends what is under way if this is dropped or stopped.
    let work = AbortOnDropHandle::new(work);
    let mut driven = Driven { records: Vec::with_capacity(count), cut_off: 0, interrupted: false };
    loop {
        tokio::select! {
            record = recorded.recv() => match record {
                Some(record) => {
                    driven.records.push(record);
                    ended();
                }
                None => break,
            },
            () = stop.cancelled() => {
                driven.interrupted = true;
                break;
            }
        }
    }
    drop(work);
    driven.cut_off = sent.load(Ordering::Relaxed).saturating_sub(driven.records.len());
    driven
}

/// What the tasks of a run share. The channel closes with the last of them.
struct Line {
    clients: Vec<Client>,
    asks: Vec<Ask>,
    /// Of `asks`, for closed loops.
    next: AtomicUsize,
    sent: Arc<AtomicUsize>,
    records: mpsc::Sender<Record>,
    began: Instant,
}

/// `concurrency` clients that send one request after another until none is left.
async fn closed(line: Arc<Line>, concurrency: u32) {
    let mut clients = JoinSet::new();
    for client in 0..concurrency as usize {
        let line = Arc::clone(&line);
        clients.spawn(async move {
            loop {
                let next = line.next.fetch_add(1, Ordering::Relaxed);
                let Some(ask) = line.asks.get(next) else { break };
                line.send(client, ask).await;
            }
        });
    }
    drop(line);
    while clients.join_next().await.is_some() {}
}

/// Requests that come when their time has come.
async fn arriving(line: Arc<Line>, open: Open, arrivals: Vec<f64>) {
    let most = open.max_concurrency.map_or(Semaphore::MAX_PERMITS, |most| most as usize);
    let places = Arc::new(Semaphore::new(most));
    let mut requests = JoinSet::new();
    for (index, arrival) in arrivals.into_iter().enumerate() {
        sleep_until(line.began + Duration::from_secs_f64(arrival)).await;
        let (line, places) = (Arc::clone(&line), Arc::clone(&places));
        requests.spawn(async move {
            let (Ok(_place), Some(ask)) = (places.acquire().await, line.asks.get(index)) else {
                return;
            };
            line.send(index, ask).await;
        });
    }
    drop(line);
    while requests.join_next().await.is_some() {}
}

impl Line {
    /// Sends one request on connection `which` (counted round) and records it.
    async fn send(&self, which: usize, ask: &Ask) {
        let Some(client) = self.clients.get(which % self.clients.len().max(1)) else { return };
        let ask = ask.clone();
        self.sent.fetch_add(1, Ordering::Relaxed);
        let sent = self.now();
        let mut chunks = Vec::new();
        let outcome = self.read(client, ask, &mut chunks).await.map_err(Refused::from);
        let record = Record { sent, ended: self.now(), chunks, outcome };
        // Nobody collects any more if the run was stopped.
        let _ = self.records.send(record).await;
    }

    async fn read(
        &self,
        client: &Client,
        ask: Ask,
        chunks: &mut Vec<Chunk>,
    ) -> Result<Usage, Error> {
        let mut answer: Answer = match ask {
            Ask::Generate(request) => client.generate(request).await?,
            Ask::Chat(request) => client.chat(request).await?,
        };
        while let Some(event) = answer.next().await? {
            match event {
                Event::Tokens(chunk) if !chunk.tokens.is_empty() => {
                    let tokens = u32::try_from(chunk.tokens.len()).unwrap_or(u32::MAX);
                    chunks.push(Chunk { at: self.now(), tokens });
                }
                Event::Final(v1::Final { usage: Some(usage), .. }) => {
                    return Ok(Usage {
                        prompt: usage.prompt_tokens,
                        cached: usage.cached_tokens,
                        output: usage.completion_tokens,
                    });
                }
                _ => {}
            }
        }
        Err(Error::Protocol("an answer ended without its usage"))
    }

    fn now(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }
}
