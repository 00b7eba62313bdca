//! The served model as the context stage sees it: token counts of the final prompt.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use pith_context::{ChatModel, ContextError, LanguageModel};

use crate::prompt::{Frame, Placed};

/// Set when nobody waits for the result any more.
#[derive(Debug, Clone, Default)]
pub struct Cancelled(Arc<AtomicBool>);

impl Cancelled {
    /// Cancels when the returned guard is dropped.
    #[must_use]
    pub fn on_drop(&self) -> CancelOnDrop {
        CancelOnDrop(self.clone())
    }

    /// Whether somebody waits for the result still, and `deadline` has not passed.
    #[must_use]
    pub fn awaited_until(&self, deadline: Instant) -> bool {
        !self.is_set() && Instant::now() < deadline
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Cancels when dropped.
#[derive(Debug)]
pub struct CancelOnDrop(Cancelled);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// Counts the tokens of one request's prompt, until its caller leaves or its deadline passes: packing a
/// large document takes a while, and a blocking thread cannot be dropped as a future can.
#[derive(Debug)]
pub struct Counting<'a> {
    /// The prompt the context will stand in.
    pub frame: &'a Frame<'a>,
    /// The message before which it stands; `None` if there are no documents.
    pub question: Option<usize>,
    /// Set when the caller has left.
    pub cancelled: Cancelled,
    /// No count is begun after it.
    pub deadline: Instant,
}

impl LanguageModel for Counting<'_> {
    fn count(&self, text: &str) -> u32 {
        u32::try_from(self.frame.count_alone(text)).unwrap_or(u32::MAX)
    }

    fn prompt_tokens(&self, context: &str) -> Result<u32, ContextError> {
        match self.question {
            Some(question) => self.chat_tokens(&[(question, context)]),
            None => self.chat_tokens(&[]),
        }
    }

    fn proceed(&self) -> Result<(), ContextError> {
        if !self.cancelled.awaited_until(self.deadline) {
            return Err(ContextError::Model { message: "nobody waits for it any more".to_owned() });
        }
        Ok(())
    }
}

impl ChatModel for Counting<'_> {
    fn chat_tokens(&self, contexts: &[(usize, &str)]) -> Result<u32, ContextError> {
        self.proceed()?;
        let placed = |&(message, text): &(usize, _)| Placed { message, text };
        let contexts: Vec<Placed<'_>> = contexts.iter().map(placed).collect();
        Ok(u32::try_from(self.frame.count(&contexts)).unwrap_or(u32::MAX))
    }
}
