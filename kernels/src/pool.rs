//! The process-wide worker pool: spin-then-park threads that share one job at a time.
//!
//! A job is a counter: whoever takes index `i` runs task `i`. A worker that sleeps through a job is
//! never waited for: it joins an open job by a compare-and-swap on [`Shared::state`], and the caller
//! closes the job before it waits for those inside. Nothing is allocated per job.

mod pin;
mod share;

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use share::Share;

/// A task of a job panicked; the job's other tasks were run or skipped, none is still running.
#[derive(Debug, thiserror::Error)]
#[error("a worker panicked: {0}")]
pub struct PoolError(pub String);

/// How long a waiting thread spins before it parks. Longer than the gap between two kernels of a
/// step (a few microseconds), far shorter than a time slice.
const SPIN: Duration = Duration::from_micros(50);

/// A fixed set of workers. The calling thread is worker 0, so `threads = 1` spawns none.
///
/// Cheap to clone; the threads end when the last clone is dropped. Jobs from several callers
/// (engine threads of several models) are run one after another, in the order they arrive; those of a
/// [`Pool::background`] take half of the time at most while others have jobs. A job
/// started inside a task runs on the thread that started it.
#[derive(Debug, Clone)]
pub struct Pool {
    workers: Arc<Workers>,
    background: bool,
}

impl Pool {
    /// A pool of `threads` workers (0 = the CPUs this process may use, cgroup limits included).
    /// Where the system refuses a thread, the pool has fewer.
    pub fn new(threads: usize) -> Self {
        Self::over(threads, Vec::new())
    }

    /// As [`Pool::new`], each worker bound to a CPU of its own (in turn, where there are more workers). A thread that
    /// runs a job is worker 0, and is bound by its first one.
    pub fn pinned(threads: usize) -> Self {
        Self::over(threads, pin::allowed())
    }

    fn over(threads: usize, cpus: Vec<usize>) -> Self {
        let threads = match threads {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
            n => n,
        };
        let shared = Arc::new(Shared::default());
        let handles = (1..threads)
            .map_while(|i| {
                let shared = Arc::clone(&shared);
                let cpu = cpus.get(i % cpus.len().max(1)).copied();
                let builder = std::thread::Builder::new().name(format!("pith-worker-{i}"));
                let work = move || {
                    cpu.into_iter().for_each(pin::to);
                    shared.work();
                };
                builder.spawn(work).ok()
            })
            .collect();
        let workers = Workers { shared, handles, caller_cpu: cpus.first().copied() };
        Self { workers: Arc::new(workers), background: false }
    }

    /// The same workers for long work in short jobs. Taking turns by the job would be unfair to callers whose jobs are
    /// shorter still: a job started here waits until theirs have had as long as the one before it took, or have
    /// nothing to do.
    #[must_use]
    pub fn background(&self) -> Self {
        Self { background: true, ..self.clone() }
    }

    /// Workers, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.handles.len() + 1
    }

    /// Calls `task(0..tasks)`, each index once, on all workers; returns when all are done.
    /// A panic in a task ends the job and is returned, never left hanging.
    pub fn run(&self, tasks: usize, task: impl Fn(usize) + Sync) -> Result<(), PoolError> {
        if let Some(cpu) = self.workers.caller_cpu
            && !PINNED.replace(true)
        {
            pin::to(cpu);
        }
        if tasks <= 1 || self.threads() == 1 || IN_TASK.get() {
            return inside_task(|| (0..tasks).for_each(&task)).map_err(PoolError);
        }
        let shared = &self.workers.shared;
        if self.background {
            shared.share.wait();
            return shared.share.background(|| shared.submit(tasks, &task));
        }
        shared.share.foreground(|| shared.submit(tasks, &task))
    }

    /// Splits `data` into chunks of `chunk` elements (the last may be shorter) and calls
    /// `task(chunk_index, chunk)` for each, in parallel.
    /// # Panics
    /// If `chunk` is 0.
    pub fn chunks<T: Send>(
        &self,
        data: &mut [T],
        chunk: usize,
        task: impl Fn(usize, &mut [T]) + Sync,
    ) -> Result<(), PoolError> {
        assert!(chunk > 0, "chunks of 0 elements");
        let len = data.len();
        let base = Shards(data.as_mut_ptr());
        self.run(len.div_ceil(chunk), |i| {
            let start = i * chunk;
            // SAFETY: chunk `i` lies inside `data`, and `run` hands out each index once, so no
            // two tasks see the same element; `data` stays borrowed until `run` returns.
            task(i, unsafe { base.slice(start, chunk.min(len - start)) });
        })
    }
}

/// A base pointer shared by tasks that each touch their own part of what it points at.
pub(crate) struct Shards<T>(*mut T);

impl<T> Clone for Shards<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shards<T> {}

// SAFETY: the pointer is only turned into slices by `slice`, whose contract forbids overlap.
unsafe impl<T: Send> Send for Shards<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shards<T> {}

impl<T> Shards<T> {
    pub(crate) fn new(data: &mut [T]) -> Self {
        Self(data.as_mut_ptr())
    }

    /// # Safety
    /// `start..start + len` must lie inside the slice this was made from, which must still be
    /// mutably borrowed for `'a`, and no two live slices may overlap.
    pub(crate) unsafe fn slice<'a>(self, start: usize, len: usize) -> &'a mut [T] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), len) }
    }
}

thread_local! {
    /// Whether this thread is running a task: a job started then runs in place, or it would wait
    /// for the job it is part of.
    static IN_TASK: Cell<bool> = const { Cell::new(false) };
    /// Whether a pinned pool has bound this thread.
    static PINNED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `body` marked as a task, its panic turned into text.
fn inside_task(body: impl FnOnce()) -> Result<(), String> {
    let before = IN_TASK.replace(true);
    let result = catch_unwind(AssertUnwindSafe(body));
    IN_TASK.set(before);
    result.map_err(|payload| describe(payload.as_ref()))
}

fn describe(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a value that is no text".to_owned()
    }
}

/// The threads, joined when the last [`Pool`] goes.
#[derive(Debug)]
struct Workers {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
    /// Where threads that run jobs are bound to, if anywhere.
    caller_cpu: Option<usize>,
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(lock(&self.shared.bed));
        self.shared.wake.notify_all();
        let me = std::thread::current().id();
        for handle in self.handles.drain(..) {
            if handle.thread().id() != me {
                let _ = handle.join(); // tasks' panics are caught, a worker itself does not panic
            }
        }
    }
}

/// The job all workers look at: a borrowed closure with its type erased.
#[derive(Debug, Clone, Copy)]
struct Job {
    tasks: usize,
    closure: *const (),
    call: unsafe fn(*const (), usize),
}

/// # Safety
/// `closure` must point at a live `F`.
unsafe fn call<F: Fn(usize) + Sync>(closure: *const (), index: usize) {
    // SAFETY: the caller's promise.
    unsafe { (*closure.cast::<F>())(index) }
}

/// Bit of [`Shared::state`]: the job may be joined.
const OPEN: u64 = 1 << 16;
/// One step of the job number in [`Shared::state`].
const JOB: u64 = 1 << 17;
/// The joined workers in [`Shared::state`].
const JOINED: u64 = OPEN - 1;

/// A value alone on its cache lines, so that taking tasks does not slow reading the state.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded<T>(T);

#[derive(Debug, Default)]
struct Shared {
    /// Job number, the open bit, and how many workers are inside the job.
    state: Padded<AtomicU64>,
    /// The next task to take.
    next: Padded<AtomicUsize>,
    /// Written by the caller whose turn it is while the job is closed and empty.
    job: JobSlot,
    /// The first panic of the job.
    panic: Mutex<Option<String>>,
    stop: AtomicBool,
    /// Parked workers, changed under `bed`.
    sleepers: AtomicUsize,
    bed: Mutex<()>,
    wake: Condvar,
    /// Whether the caller parked until the last worker leaves.
    caller_waits: AtomicBool,
    left: Condvar,
    turns: Mutex<Turns>,
    turn: Condvar,
    /// What background jobs owe the others.
    share: Share,
}

/// First come, first served: a plain mutex promises no order.
#[derive(Debug, Default)]
struct Turns {
    next: u64,
    serving: u64,
}

#[derive(Debug, Default)]
struct JobSlot(UnsafeCell<Option<Job>>);

// SAFETY: written only by the caller that holds the turn, while the job is closed and no worker is
// inside; read only by workers inside an open job. `Shared::state` orders the two.
unsafe impl Sync for JobSlot {}
// SAFETY: the closure behind the pointer is `Sync` (bound of `submit`).
unsafe impl Send for JobSlot {}

/// No code that panics runs under these locks, so a poisoned one is still consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Runs a job with the calling thread as worker 0.
    fn submit<F: Fn(usize) + Sync>(&self, tasks: usize, task: &F) -> Result<(), PoolError> {
        self.take_turn();
        let job = Job { tasks, closure: std::ptr::from_ref(task).cast(), call: call::<F> };
        // SAFETY: it is our turn, and the last job was closed and left before its turn ended.
        unsafe { *self.job.0.get() = Some(job) };
        self.next.0.store(0, Ordering::Relaxed);
        let number = self.state.0.load(Ordering::Relaxed) & !(JOB - 1);
        self.state.0.store(number.wrapping_add(JOB) | OPEN, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            drop(lock(&self.bed)); // a worker between its last look and its sleep holds this
            self.wake.notify_all();
        }
        self.take_tasks(&job);
        self.state.0.fetch_and(!OPEN, Ordering::SeqCst);
        self.wait_until_left();
        let panic = lock(&self.panic).take();
        self.end_turn();
        panic.map_or(Ok(()), |text| Err(PoolError(text)))
    }

    fn take_turn(&self) {
        let mut turns = lock(&self.turns);
        let mine = turns.next;
        turns.next += 1;
        while turns.serving != mine {
            turns = self.turn.wait(turns).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn end_turn(&self) {
        let mut turns = lock(&self.turns);
        turns.serving += 1;
        let waiting = turns.next != turns.serving;
        drop(turns);
        if waiting {
            self.turn.notify_all();
        }
    }

    /// Takes tasks until none is left or one panics.
    fn take_tasks(&self, job: &Job) {
        let result = inside_task(|| {
            loop {
                let index = self.next.0.fetch_add(1, Ordering::Relaxed);
                if index >= job.tasks {
                    return;
                }
                // SAFETY: the closure lives until `submit` returns, which waits for all of us.
                unsafe { (job.call)(job.closure, index) };
            }
        });
        if let Err(text) = result {
            self.next.0.store(usize::MAX / 2, Ordering::Relaxed);
            lock(&self.panic).get_or_insert(text);
        }
    }

    /// Waits until no worker is inside the (closed) job.
    fn wait_until_left(&self) {
        let inside = || self.state.0.load(Ordering::SeqCst) & JOINED != 0;
        if !inside() || spin_until(|| !inside()) {
            return;
        }
        let mut bed = lock(&self.bed);
        self.caller_waits.store(true, Ordering::SeqCst);
        while inside() {
            bed = self.left.wait(bed).unwrap_or_else(PoisonError::into_inner);
        }
        self.caller_waits.store(false, Ordering::SeqCst);
    }

    /// A worker's life.
    fn work(&self) {
        let mut done = 0; // number of the job last joined
        while !self.stop.load(Ordering::SeqCst) {
            if self.join(&mut done) {
                continue;
            }
            let news = || self.open_after(done).is_some() || self.stop.load(Ordering::SeqCst);
            if spin_until(news) {
                continue;
            }
            let mut bed = lock(&self.bed);
            self.sleepers.fetch_add(1, Ordering::SeqCst);
            while !news() {
                bed = self.wake.wait(bed).unwrap_or_else(PoisonError::into_inner);
            }
            self.sleepers.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// The state, if it shows an open job other than number `done`.
    fn open_after(&self, done: u64) -> Option<u64> {
        let state = self.state.0.load(Ordering::SeqCst);
        (state & OPEN != 0 && state / JOB != done).then_some(state)
    }

    /// Joins the open job, if there is one, and works on it.
    fn join(&self, done: &mut u64) -> bool {
        let Some(state) = self.open_after(*done) else { return false };
        let joined = self.state.0.compare_exchange_weak(
            state,
            state + 1,
            Ordering::SeqCst,
            Ordering::SeqCst,
        );
        if joined.is_err() {
            return true; // somebody else joined or the job closed: look again
        }
        *done = state / JOB;
        // SAFETY: we are counted inside an open job, so the slot was written before and is not
        // written again until we leave.
        if let Some(job) = unsafe { *self.job.0.get() } {
            self.take_tasks(&job);
        }
        let before = self.state.0.fetch_sub(1, Ordering::SeqCst);
        if before & JOINED == 1 && self.caller_waits.load(Ordering::SeqCst) {
            drop(lock(&self.bed));
            self.left.notify_all();
        }
        true
    }
}

/// Spins until `ready` or the spin time is over; says whether it became ready.
fn spin_until(ready: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    loop {
        for _ in 0..32 {
            if ready() {
                return true;
            }
            std::hint::spin_loop();
        }
        if start.elapsed() > SPIN {
            return false;
        }
    }
}

#[cfg(test)]
mod tests;
