//! Who had the workers for how long.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A caller that started no job for so long has nothing to do: longer than what an engine does between two kernels, or
/// two steps.
const IDLE: Duration = Duration::from_micros(500);

/// How often a background caller looks whether it may go on.
const NAP: Duration = Duration::from_micros(50);

/// The account of background jobs. Reading and writing it takes some fifty nanoseconds a job.
#[derive(Debug)]
pub(super) struct Share {
    /// What the times below count from.
    begun: Instant,
    /// Nanoseconds that background jobs took and the others have not had since.
    owed: AtomicU64,
    /// When the last job of another caller ended, nanoseconds.
    last: AtomicU64,
    /// Other callers with a job that waits or runs.
    active: AtomicUsize,
}

impl Default for Share {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            owed: AtomicU64::new(0),
            last: AtomicU64::new(0),
            active: AtomicUsize::new(0),
        }
    }
}

impl Share {
    fn now(&self) -> u64 {
        self.begun.elapsed().as_nanos() as u64
    }

    /// Runs a job of a caller that waits for nobody.
    pub(super) fn foreground<T>(&self, job: impl FnOnce() -> T) -> T {
        let from = self.now();
        self.active.fetch_add(1, Ordering::Relaxed);
        let result = job();
        self.active.fetch_sub(1, Ordering::Relaxed);
        let now = self.now();
        self.last.store(now, Ordering::Relaxed);
        let owed = self.owed.load(Ordering::Relaxed);
        if owed > 0 {
            // Of two that pay at once, one may be forgotten: the account is kept for fairness, not for ever.
            self.owed.store(owed.saturating_sub(now - from), Ordering::Relaxed);
        }
        result
    }

    /// Runs a background job and notes what it took.
    pub(super) fn background<T>(&self, job: impl FnOnce() -> T) -> T {
        let from = self.now();
        let result = job();
        self.owed.fetch_add(self.now() - from, Ordering::Relaxed);
        result
    }

    /// Waits until nothing is owed, or nobody is there to pay.
    pub(super) fn wait(&self) {
        while self.owed.load(Ordering::Relaxed) > 0 {
            let idle = self.now().saturating_sub(self.last.load(Ordering::Relaxed));
            if self.active.load(Ordering::Relaxed) == 0 && idle > IDLE.as_nanos() as u64 {
                self.owed.store(0, Ordering::Relaxed);
                return;
            }
            std::thread::sleep(NAP);
        }
    }
}
