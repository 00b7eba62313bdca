//! The way back: copies into pinned memory that are waited for later, by whoever asked for them.

use std::collections::HashMap;

use super::handles::{Event, Pinned, Stream};
use super::library::driver::cuMemcpyDtoHAsync_v2;
use super::status::check;
use crate::device::DeviceError;

/// Bytes of the smallest buffer.
const SMALLEST: usize = 4 << 10;
/// Beyond this many bytes buffers are not twice as large as the next smaller one: what is pinned is missing elsewhere.
const LARGE: usize = 16 << 20;
/// Most bytes of buffers that are kept for later: pinning memory takes milliseconds.
const KEPT: usize = 256 << 20;

/// A buffer, and when what was last asked for is in it.
#[derive(Debug)]
pub(super) struct Slot {
    memory: Pinned,
    done: Event,
}

/// A download under way.
#[derive(Debug)]
pub(super) struct Waiting {
    slot: Slot,
    bytes: usize,
}

/// Downloads under way, and buffers for later ones.
#[derive(Debug, Default)]
pub(super) struct Downloads {
    waiting: HashMap<u64, Waiting>,
    free: Vec<Slot>,
    /// Bytes in `free`.
    kept: usize,
}

impl Downloads {
    /// Queues a copy of `bytes` at `from`.
    ///
    /// # Safety
    /// They are allocated on the card.
    pub(super) unsafe fn begin(
        &mut self,
        stream: &Stream,
        ticket: u64,
        from: u64,
        bytes: usize,
    ) -> Result<(), DeviceError> {
        let slot = self.slot(bytes)?;
        if bytes > 0 {
            let to = slot.memory.as_ptr();
            // SAFETY: the buffer is at least as long, and kept until the event behind the copy has come; the rest is
            // the caller's. What an earlier download of the buffer left under way is done before, being queued before.
            let status = unsafe { cuMemcpyDtoHAsync_v2(to.cast(), from, bytes, stream.0) };
            check(status, "copying from it")?;
        }
        slot.done.record(stream)?;
        self.waiting.insert(ticket, Waiting { slot, bytes });
        Ok(())
    }

    /// The smallest free buffer that `bytes` fit into, or a new one.
    fn slot(&mut self, bytes: usize) -> Result<Slot, DeviceError> {
        let fitting = self.free.iter().enumerate().filter(|(_, slot)| slot.memory.len() >= bytes);
        if let Some((index, _)) = fitting.min_by_key(|(_, slot)| slot.memory.len()) {
            let slot = self.free.swap_remove(index);
            self.kept -= slot.memory.len();
            return Ok(slot);
        }
        Ok(Slot { memory: Pinned::new(capacity(bytes))?, done: Event::untimed()? })
    }

    /// Takes a download out, to be waited for by the caller; none if there is none.
    pub(super) fn take(&mut self, ticket: u64) -> Option<Waiting> {
        self.waiting.remove(&ticket)
    }

    /// Keeps a buffer for later.
    pub(super) fn give_back(&mut self, waiting: Waiting) {
        let Waiting { slot, .. } = waiting;
        if self.kept + slot.memory.len() <= KEPT {
            self.kept += slot.memory.len();
            self.free.push(slot);
        } else if slot.done.wait().is_err() {
            // The card may still write to it.
            std::mem::forget(slot);
        }
    }
}

impl Waiting {
    /// Waits for the copy and hands it to `to`.
    pub(super) fn fetch(&self, to: &mut [u8]) -> Result<(), DeviceError> {
        if to.len() != self.bytes {
            let (asked, there) = (to.len(), self.bytes);
            return Err(DeviceError::Shape(format!("{asked} bytes of a download of {there}")));
        }
        self.slot.done.wait()?;
        // SAFETY: as many bytes are there, all initialised, and the card has written them.
        let from = unsafe { std::slice::from_raw_parts(self.slot.memory.as_ptr(), self.bytes) };
        to.copy_from_slice(from);
        Ok(())
    }
}

/// Bytes of a new buffer for `bytes`: few sizes, so that buffers fit again.
fn capacity(bytes: usize) -> usize {
    if bytes > LARGE {
        return bytes.next_multiple_of(LARGE);
    }
    bytes.next_power_of_two().max(SMALLEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_in_few_sizes() {
        let cases = [
            (0, SMALLEST),
            (SMALLEST, SMALLEST),
            (SMALLEST + 1, 2 * SMALLEST),
            (LARGE, LARGE),
            (LARGE + 1, 2 * LARGE),
            (5 * LARGE / 2, 3 * LARGE),
        ];
        for (bytes, wanted) in cases {
            assert_eq!(capacity(bytes), wanted, "{bytes} bytes");
        }
    }
}
