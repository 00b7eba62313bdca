//! Steps that failed, and a device that was lost.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::StepLoop;
use crate::executor::ExecutorError;
use crate::request::EngineError;
use crate::sequence::SequenceId;

/// Steps that may fail one after another before the engine is declared unhealthy for good.
const MAX_FAILURES: u32 = 3;
/// How often a lost device is looked for.
const REVIVAL: Duration = Duration::from_secs(5);

impl StepLoop {
    pub(super) fn executor_failed(&mut self, error: &ExecutorError) {
        tracing::error!(%error, "a step failed; its sequences end");
        if matches!(error, ExecutorError::Lost(_)) {
            self.shared.healthy.store(false, Ordering::Release);
            self.lost = Some(Instant::now());
            self.fail_running(&error.to_string(), true);
            return;
        }
        self.failures += 1;
        if self.failures >= MAX_FAILURES {
            tracing::error!(
                "{MAX_FAILURES} steps failed one after another; the engine takes no more requests"
            );
            self.shared.healthy.store(false, Ordering::Release);
        }
        let everything = self.failures >= MAX_FAILURES;
        self.fail_running(&error.to_string(), everything);
    }

    /// Looks for the lost device, and carries on where it is back.
    pub(super) fn revive(&mut self) {
        match self.executor.revive() {
            Ok(()) => {
                tracing::info!("the device is back; the engine starts afresh");
                self.scheduler = self.scheduler.anew(self.executor.capabilities());
                self.lost = None;
                self.failures = 0;
                self.shared.healthy.store(true, Ordering::Release);
            }
            Err(error) => {
                tracing::error!(%error, "the device is not back");
                self.lost = Some(Instant::now() + REVIVAL);
            }
        }
        self.publish_load();
    }

    /// Ends every running request (`everything`: every waiting one too) and starts from an empty KV pool.
    pub(super) fn fail_running(&mut self, why: &str, everything: bool) {
        // Steps still queued in the executor are of the past.
        for ticket in std::mem::take(&mut self.tickets) {
            drop(self.executor.wait(ticket));
        }
        let mut gone: Vec<SequenceId> = self.scheduler.reset().into_iter().map(|s| s.id).collect();
        if everything {
            gone = self.live.keys().copied().collect();
        }
        for id in gone {
            self.end(id, Err(EngineError::Failed(why.to_owned())));
        }
        self.publish_load();
    }
}
