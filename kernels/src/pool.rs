//! The process-wide worker pool: spin-then-park threads that share one job at a time.

/// A task of a job panicked; the job's other tasks were run or skipped, none is still running.
#[derive(Debug, thiserror::Error)]
#[error("a worker panicked: {0}")]
pub struct PoolError(pub String);

/// A fixed set of workers. The calling thread is worker 0, so `threads = 1` spawns none.
///
/// Cheap to clone; the threads end when the last clone is dropped. Jobs from several callers
/// (engine threads of several models) are run one after another, in the order they arrive.
#[derive(Debug, Clone)]
pub struct Pool {}

impl Pool {
    /// A pool of `threads` workers (0 = the CPUs this process may use, cgroup limits included).
    pub fn new(threads: usize) -> Self { unimplemented!() }
    /// Workers, the caller included.
    pub fn threads(&self) -> usize { unimplemented!() }
    /// Calls `task(0..tasks)`, each index once, on all workers; returns when all are done.
    /// A panic in a task ends the job and is returned, never left hanging.
    pub fn run(&self, tasks: usize, task: impl Fn(usize) + Sync) -> Result<(), PoolError> { unimplemented!() }
    /// Splits `data` into chunks of `chunk` elements (the last may be shorter) and calls
    /// `task(chunk_index, chunk)` for each, in parallel.
    pub fn chunks<T: Send>(&self, data: &mut [T], chunk: usize, task: impl Fn(usize, &mut [T]) + Sync) -> Result<(), PoolError> { unimplemented!() }
}
