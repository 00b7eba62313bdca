//! What the engine tells of itself: its load, and whether its blocks add up.

use std::sync::atomic::Ordering;

use super::StepLoop;
use crate::request::Load;

impl StepLoop {
    /// The books are checked whenever the engine falls idle.
    pub(super) fn check_books(&mut self) {
        if std::mem::replace(&mut self.checked, true) {
            return;
        }
        self.publish_load();
        let used = self.scheduler.blocks().used;
        let books = self.scheduler.check().and_then(|()| match used {
            0 => Ok(()),
            n => Err(format!("{n} blocks in use by nobody")),
        });
        if let Err(problem) = books {
            tracing::error!(problem, "KV blocks do not add up");
            self.shared.inconsistencies.fetch_add(1, Ordering::AcqRel);
        }
    }

    pub(super) fn publish_load(&mut self) {
        let counts = self.scheduler.blocks();
        let totals = self.scheduler.totals();
        let pace = self.scheduler.pace();
        self.shared.load.store(&Load {
            waiting: self.scheduler.waiting(),
            waiting_tokens: self.scheduler.waiting_tokens(),
            running: self.scheduler.running(),
            blocks_free: counts.free,
            blocks_cached: counts.cached,
            blocks_used: counts.used,
            blocks_total: counts.free + counts.cached + counts.used,
            block_size: self.executor.capabilities().block_size,
            prefix_queries: totals.prefix_queries,
            prefix_hits: totals.prefix_hits,
            preemptions: totals.preemptions,
            steps: totals.steps,
            prefill_tokens: totals.prefill_tokens,
            generated_tokens: self.generated_tokens,
            draft_tokens: totals.draft_tokens,
            accepted_draft_tokens: totals.accepted_draft_tokens,
            prefill_tokens_per_s: pace.prefill_tokens_per_s(),
            decode_step_seconds: pace
                .decode_seconds(self.scheduler.running().max(1))
                .unwrap_or(0.0),
            computed_seconds: self.computed_seconds,
        });
    }
}
