//! The step loop: the one thread that owns scheduler, executor and streams.
//!
//! A turn is: take in what has come, drop what is over, plan and submit, wait for the oldest step,
//! hand out what it brought. Nothing in it takes a lock or waits for a reader.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use crate::detokenize::Vocabulary;
use crate::engine::Shared;
use crate::executor::{Executor, Ticket};
use crate::request::{EngineError, Finish, FinishReason, GeneratedToken};
use crate::scheduler::{Progress, Scheduler, SchedulerConfig};
use crate::sequence::{Sequence, SequenceId};
use crate::stream::ScoreWriter;

mod books;
mod failures;
mod live;

pub(crate) use live::{Job, Output};

use live::{Live, end_with};

/// How often an engine whose streams are all paused looks whether a reader has caught up.
const POLL: Duration = Duration::from_millis(5);

/// What the handle sends the engine thread.
pub(crate) enum Message {
    /// A request.
    Job(Box<Job>),
    /// Drop what is cached for a tenant.
    Forget(Box<str>),
    /// Look at the flags.
    Wake,
}

/// See the module.
pub(crate) struct StepLoop {
    executor: Box<dyn Executor>,
    vocabulary: Arc<dyn Vocabulary>,
    scheduler: Scheduler,
    inbox: Receiver<Message>,
    shared: Arc<Shared>,
    live: HashMap<SequenceId, Live>,
    /// Live requests no step has computed for, in order of arrival.
    queued: Vec<SequenceId>,
    /// Ended streams whose reader has yet to take the last events.
    closing: Vec<Live>,
    tickets: VecDeque<Ticket>,
    failures: u32,
    /// The executor lost its device; when it is looked for next.
    lost: Option<Instant>,
    checked: bool,
    /// Tokens handed out since start.
    generated_tokens: u64,
    /// Seconds the executor computed since start.
    computed_seconds: f64,
}

impl StepLoop {
    pub(crate) fn new(
        executor: Box<dyn Executor>,
        vocabulary: Arc<dyn Vocabulary>,
        config: SchedulerConfig,
        inbox: Receiver<Message>,
        shared: Arc<Shared>,
    ) -> Self {
        let scheduler = Scheduler::new(executor.capabilities(), config);
        let mut step_loop = Self {
            executor,
            vocabulary,
            scheduler,
            inbox,
            shared,
            live: HashMap::new(),
            queued: Vec::new(),
            closing: Vec::new(),
            tickets: VecDeque::new(),
            failures: 0,
            lost: None,
            checked: false,
            generated_tokens: 0,
            computed_seconds: 0.0,
        };
        step_loop.publish_load();
        step_loop
    }

    /// Runs until stopped or until every handle is gone.
    pub(crate) fn run(mut self) {
        loop {
            match catch_unwind(AssertUnwindSafe(|| self.turn())) {
                Ok(true) => {}
                Ok(false) => break,
                Err(panic) => {
                    let text = panic_text(panic.as_ref());
                    tracing::error!(panic = text, "the step loop panicked; starting afresh");
                    self.scheduler = self.scheduler.anew(self.executor.capabilities());
                    self.fail_running(&format!("internal error: {text}"), true);
                }
            }
        }
        for (_, mut live) in std::mem::take(&mut self.live) {
            end_with(&mut live, EngineError::ShutDown);
        }
        self.shared.live.store(0, Ordering::Release);
        self.shared.healthy.store(false, Ordering::Release);
    }

    /// One turn; false when it is over.
    fn turn(&mut self) -> bool {
        if !self.take_in() {
            return false;
        }
        self.drop_what_is_over();
        self.flush();
        if let Some(next) = self.lost {
            if Instant::now() >= next {
                self.revive();
            } else {
                self.fail_running("the device was lost", true);
            }
            return true;
        }
        while self.tickets.len() < self.executor.capabilities().depth.max(1) {
            let Some(step) = self.scheduler.plan() else { break };
            self.note_started();
            match self.executor.submit(step) {
                Ok(ticket) => self.tickets.push_back(ticket),
                Err(error) => {
                    self.executor_failed(&error);
                    return true;
                }
            }
        }
        if let Some(ticket) = self.tickets.pop_front() {
            match self.executor.wait(ticket) {
                Ok(outcome) => {
                    self.failures = 0;
                    self.computed_seconds += outcome.seconds;
                    let progress = self.scheduler.complete(outcome);
                    self.hand_out(progress);
                }
                Err(error) => self.executor_failed(&error),
            }
        }
        self.publish_load();
        true
    }

    /// Takes in new requests; blocks while there is nothing to do. False when it is time to end.
    fn take_in(&mut self) -> bool {
        loop {
            if self.shared.stop.load(Ordering::Acquire) {
                return false;
            }
            let idle = self.live.is_empty() && self.closing.is_empty() && self.tickets.is_empty();
            let message = match self.inbox.try_recv() {
                Err(TryRecvError::Empty) if idle => {
                    self.check_books();
                    match self.lost {
                        None => self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                        Some(next) => {
                            self.inbox.recv_timeout(next.saturating_duration_since(Instant::now()))
                        }
                    }
                }
                Err(TryRecvError::Empty) if self.advancing() => return true,
                // Every stream is paused or closing: look again when a reader may have caught up.
                Err(TryRecvError::Empty) => self.inbox.recv_timeout(POLL),
                Err(TryRecvError::Disconnected) => Err(RecvTimeoutError::Disconnected),
                Ok(message) => Ok(message),
            };
            match message {
                Ok(Message::Job(job)) => self.start(*job),
                Ok(Message::Forget(tenant)) => {
                    self.checked = false;
                    self.scheduler.forget(&tenant);
                    self.publish_load();
                }
                Ok(Message::Wake) => {}
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    /// Whether a turn would compute something.
    fn advancing(&self) -> bool {
        !self.tickets.is_empty() || self.live.values().any(|l| !l.paused)
    }

    fn start(&mut self, job: Job) {
        self.checked = false;
        let root = job.tenant.as_ref().map(|tenant| self.scheduler.root(tenant));
        self.scheduler.add(Sequence::new(job.id, job.goal, root, job.tokens));
        self.queued.push(job.id);
        self.live.insert(
            job.id,
            Live {
                output: job.output,
                deadline: job.deadline,
                aborted: job.aborted,
                submitted: job.submitted,
                started: None,
                paused: false,
            },
        );
    }

    /// Marks requests whose first step has just been planned.
    fn note_started(&mut self) {
        let now = Instant::now();
        let (scheduler, live, shared) = (&self.scheduler, &mut self.live, &self.shared);
        self.queued.retain(|id| {
            let started = scheduler.get(*id).is_some_and(|s| s.last_step.is_some());
            if started {
                shared.queued.fetch_sub(1, Ordering::AcqRel);
                if let Some(live) = live.get_mut(id) {
                    live.started = Some(now);
                }
            }
            !started
        });
    }

    /// Ends requests whose reader is gone, whose deadline has passed or that were aborted: queued,
    /// in prefill or decoding alike.
    fn drop_what_is_over(&mut self) {
        let now = Instant::now();
        let over: Vec<SequenceId> = self
            .live
            .iter()
            .filter(|(_, l)| l.reader_gone() || l.expired(now) || l.aborted())
            .map(|(&id, _)| id)
            .collect();
        for id in over {
            let expired = self.live.get(&id).is_some_and(|l| l.expired(now));
            if expired {
                self.end(id, Err(EngineError::DeadlineExceeded));
            } else {
                self.end(id, Ok(FinishReason::Aborted));
            }
        }
        self.closing.retain_mut(|l| {
            let Output::Stream { writer, .. } = &mut l.output else { return false };
            !writer.closed() && !writer.flush()
        });
    }

    /// Sends what readers had no room for, and pauses or resumes their sequences.
    fn flush(&mut self) {
        for (&id, live) in &mut self.live {
            let Output::Stream { writer, .. } = &mut live.output else { continue };
            writer.flush();
            if writer.lagging() != live.paused {
                live.paused = !live.paused;
                self.scheduler.set_paused(id, live.paused);
            }
        }
    }

    fn hand_out(&mut self, progress: Vec<Progress>) {
        for item in progress {
            match item {
                Progress::Tokens { id, tokens } => self.hand_out_tokens(id, &tokens),
                Progress::Failed { id, why } => self.end(id, Err(EngineError::Failed(why))),
                Progress::Scored { id, first, logprobs, done } => {
                    let Some(Live { output: Output::Score(writer), .. }) = self.live.get_mut(&id)
                    else {
                        continue;
                    };
                    writer.take(first, &logprobs);
                    if done {
                        self.end(id, Ok(FinishReason::Length));
                    }
                }
            }
        }
    }

    /// Hands out tokens up to the one that ends the answer; what a draft brought beyond it was never said.
    fn hand_out_tokens(&mut self, id: SequenceId, tokens: &[GeneratedToken]) {
        let Some(Live { output: Output::Stream { writer, stop_tokens, ignore_end }, .. }) =
            self.live.get_mut(&id)
        else {
            return;
        };
        let most = self.scheduler.get(id).map_or(usize::MAX, |s| s.longest() - s.prompt);
        let mut reason = None;
        for &token in tokens {
            let ends = (!*ignore_end && self.vocabulary.end_tokens().contains(&token.id))
                || stop_tokens.contains(&token.id);
            let shown = if ends { &[] } else { self.vocabulary.bytes(token.id) };
            let stopped = writer.push(token, shown);
            self.generated_tokens += 1;
            reason = if ends {
                Some(FinishReason::StopToken(token.id))
            } else if let Some(stop) = stopped {
                Some(FinishReason::StopString(stop))
            } else {
                (writer.taken() >= most).then_some(FinishReason::Length)
            };
            if reason.is_some() {
                break;
            }
        }
        writer.flush();
        if let Some(reason) = reason {
            self.end(id, Ok(reason));
        }
    }

    /// Ends a request: out of the scheduler, its last event on the way.
    fn end(&mut self, id: SequenceId, how: Result<FinishReason, EngineError>) {
        let Some(mut live) = self.live.remove(&id) else { return };
        let sequence = self.scheduler.remove(id);
        self.retire(id);
        match (how, &mut live.output) {
            (Err(error), _) => end_with(&mut live, error),
            (Ok(_), Output::Score(_)) => {
                if let Output::Score(ScoreWriter { reply, logprobs, .. }) = live.output {
                    // The reader may have gone; then nobody wants it.
                    drop(reply.send(Ok(logprobs)));
                }
                return;
            }
            (Ok(reason), Output::Stream { writer, .. }) => {
                let started = live.started.unwrap_or_else(Instant::now);
                let first = writer.first_token.unwrap_or_else(Instant::now);
                writer.finish(Finish {
                    reason,
                    prompt_tokens: sequence.as_ref().map_or(0, |s| s.prompt) as u32,
                    cached_tokens: sequence.as_ref().map_or(0, |s| s.cached) as u32,
                    completion_tokens: writer.taken() as u32,
                    queue_seconds: (started - live.submitted).as_secs_f64(),
                    prefill_seconds: first.saturating_duration_since(started).as_secs_f64(),
                    decode_seconds: first.elapsed().as_secs_f64(),
                    preemptions: sequence.as_ref().map_or(0, |s| s.preemptions),
                    draft_tokens: sequence.as_ref().map_or(0, |s| s.draft_tokens),
                    accepted_draft_tokens: sequence.as_ref().map_or(0, |s| s.accepted_draft_tokens),
                });
            }
        }
        if let Output::Stream { writer, .. } = &mut live.output
            && !writer.flush()
            && !writer.closed()
        {
            self.closing.push(live);
        }
    }

    /// Takes an ended request out of the counts.
    fn retire(&mut self, id: SequenceId) {
        self.shared.live.fetch_sub(1, Ordering::AcqRel);
        if let Some(at) = self.queued.iter().position(|&q| q == id) {
            self.queued.remove(at);
            self.shared.queued.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "unknown panic".to_owned())
}
