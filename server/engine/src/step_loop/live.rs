//! Requests: on their way to the engine thread, and taken by it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::request::EngineError;
use crate::sequence::{Goal, SequenceId};
use crate::stream::{ScoreWriter, StreamWriter};

/// A request on its way to the engine thread.
pub(crate) struct Job {
    pub(crate) id: SequenceId,
    pub(crate) goal: Goal,
    /// Seed of the prefix cache; `None` = do not use it.
    pub(crate) tenant: Option<Arc<str>>,
    pub(crate) tokens: Vec<u32>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) aborted: Option<Arc<AtomicBool>>,
    pub(crate) output: Output,
    pub(crate) submitted: Instant,
}

/// Where a request's results go.
pub(crate) enum Output {
    Stream { writer: Box<StreamWriter>, stop_tokens: Vec<u32>, ignore_end: bool },
    Score(ScoreWriter),
}

/// A request the engine has taken.
pub(super) struct Live {
    pub(super) output: Output,
    pub(super) deadline: Option<Instant>,
    pub(super) aborted: Option<Arc<AtomicBool>>,
    pub(super) submitted: Instant,
    /// When a step first computed for it.
    pub(super) started: Option<Instant>,
    pub(super) paused: bool,
}

impl Live {
    pub(super) fn reader_gone(&self) -> bool {
        match &self.output {
            Output::Stream { writer, .. } => writer.closed(),
            Output::Score(writer) => writer.reply.is_closed(),
        }
    }

    pub(super) fn aborted(&self) -> bool {
        self.aborted.as_ref().is_some_and(|f| f.load(Ordering::Acquire))
    }

    pub(super) fn expired(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|d| now >= d)
    }
}

/// Ends a request with `error`.
pub(super) fn end_with(live: &mut Live, error: EngineError) {
    match &mut live.output {
        Output::Stream { writer, .. } => {
            writer.fail(error);
            writer.flush();
        }
        Output::Score(writer) => {
            let (closed, _) = tokio::sync::oneshot::channel();
            drop(std::mem::replace(&mut writer.reply, closed).send(Err(error)));
        }
    }
}
