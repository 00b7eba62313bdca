//! The way to the card: through pinned memory, which the card reads by itself while the next piece is copied there.

use std::sync::{Mutex, PoisonError};

use super::handles::{Event, Pinned, Stream};
use super::library::driver::cuMemcpyHtoDAsync_v2;
use super::status::check;
use crate::device::DeviceError;

/// Bytes of a buffer. A transfer as long takes the bus some 300 microseconds, beside which its start is nothing.
const BUFFER: usize = 16 << 20;
/// One is filled while one is read; the third is for when filling and reading take turns at being late.
const BUFFERS: usize = 3;
/// Small pieces share a buffer, at distances of this.
const ALIGNMENT: usize = 64;
/// From this many bytes on, several threads copy: one fills a buffer at a fifth of what the bus takes from it.
const WIDE: usize = 4 << 20;
/// Threads that copy large pieces, and bytes that one takes at once.
const THREADS: usize = 6;
const PART: usize = 512 << 10;

#[derive(Debug)]
struct Buffer {
    memory: Pinned,
    /// When the card has read all of it.
    read: Event,
    /// Whether `read` was ever recorded.
    used: bool,
}

/// A ring of buffers.
#[derive(Debug)]
pub(super) struct Staging {
    buffers: Vec<Buffer>,
    /// The one that is being filled, and as far as this.
    current: usize,
    filled: usize,
}

impl Staging {
    pub(super) fn new() -> Result<Self, DeviceError> {
        let buffer =
            |_| Ok(Buffer { memory: Pinned::new(BUFFER)?, read: Event::untimed()?, used: false });
        let buffers = (0..BUFFERS).map(buffer).collect::<Result<_, DeviceError>>()?;
        Ok(Self { buffers, current: 0, filled: 0 })
    }

    /// Queues copies of `from` to `to`; `from` has been read when this returns.
    ///
    /// # Safety
    /// `from.len()` bytes at `to` are allocated on the card.
    pub(super) unsafe fn upload(
        &mut self,
        stream: &Stream,
        mut to: u64,
        mut from: &[u8],
    ) -> Result<(), DeviceError> {
        while !from.is_empty() {
            if self.filled == BUFFER {
                self.turn(stream)?;
            }
            let (piece, rest) = from.split_at(from.len().min(BUFFER - self.filled));
            let memory = &self.buffers[self.current].memory;
            // SAFETY: `piece` fits behind what is filled; nobody reads there since `turn` waited, and `self` is ours alone.
            let room = unsafe {
                std::slice::from_raw_parts_mut(memory.as_ptr().add(self.filled), piece.len())
            };
            copy(room, piece);
            // SAFETY: the bytes stay as they are until the event that is recorded behind this has come; the rest is
            // the caller's.
            let status =
                unsafe { cuMemcpyHtoDAsync_v2(to, room.as_ptr().cast(), piece.len(), stream.0) };
            check(status, "copying to it")?;
            self.filled = (self.filled + piece.len()).next_multiple_of(ALIGNMENT);
            to += piece.len() as u64;
            from = rest;
        }
        Ok(())
    }

    /// Goes on to the next buffer, once the card is done with it.
    fn turn(&mut self, stream: &Stream) -> Result<(), DeviceError> {
        let full = &mut self.buffers[self.current];
        full.read.record(stream)?;
        full.used = true;
        self.current = (self.current + 1) % BUFFERS;
        self.filled = 0;
        let next = &self.buffers[self.current];
        if next.used
            && let Err(error) = next.read.wait()
        {
            // What is in it may still be read: the next upload must wait again.
            self.filled = BUFFER;
            return Err(error);
        }
        Ok(())
    }
}

/// Copies `from`, as long as `to`, with some threads if it is long.
fn copy(to: &mut [u8], from: &[u8]) {
    if from.len() < WIDE {
        to.copy_from_slice(from);
        return;
    }
    let parts = Mutex::new(to.chunks_mut(PART).zip(from.chunks(PART)));
    let work = || {
        loop {
            let next = parts.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((to, from)) = next else { break };
            to.copy_from_slice(from);
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 1..cores.min(THREADS) {
            // Where no thread can be had, this one does all.
            let _ = std::thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_copies_are_whole() {
        for len in [0, 1, WIDE - 1, WIDE, WIDE + 1, 3 * WIDE + PART / 2 + 7] {
            let from: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            let mut to = vec![0xff; len];
            copy(&mut to, &from);
            assert_eq!(to, from, "{len} bytes");
        }
    }
}
