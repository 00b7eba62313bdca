//! The header as a stream of bounded reads.

use sha2::{Digest, Sha256};

use super::Source;
use crate::ModelError;

/// Longest header. The largest known (256 k tokens with merges) take some 10 MiB.
const MAX_HEADER: u64 = 256 << 20;
/// Longest string: tokenizer files stored whole are the largest known, at some 20 MiB.
const MAX_STRING: u64 = 64 << 20;
/// Bytes fetched at a time.
const CHUNK: u64 = 64 << 10;

/// Reads a header front to back, never past the file's end or the header's cap.
pub(super) struct HeaderReader<'a> {
    source: &'a Source,
    /// First byte that may not be read.
    limit: u64,
    /// Offset in the file of the next byte.
    position: u64,
    chunk: Vec<u8>,
    /// Bytes of `chunk` already handed out.
    used: usize,
    hash: Sha256,
}

impl<'a> HeaderReader<'a> {
    pub(super) fn new(source: &'a Source) -> Self {
        Self {
            source,
            limit: source.len().min(MAX_HEADER),
            position: 0,
            chunk: Vec::new(),
            used: 0,
            hash: Sha256::new(),
        }
    }

    /// Bytes that can still be read.
    pub(super) fn remaining(&self) -> u64 {
        self.limit - self.position
    }

    /// Offset of the next byte in the file.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Length of the whole file.
    pub(super) fn file_len(&self) -> u64 {
        self.source.len()
    }

    /// Whether `count` things of at least `least` bytes each fit into what is left. Called before
    /// anything is allocated for them.
    pub(super) fn check_count(
        &self,
        count: u64,
        least: u64,
        what: &str,
    ) -> Result<usize, ModelError> {
        match count.checked_mul(least) {
            Some(bytes) if bytes <= self.remaining() => usize::try_from(count)
                .map_err(|_| ModelError::Invalid(format!("{count} {what} are too many"))),
            _ => Err(ModelError::Invalid(format!(
                "{count} {what} cannot fit into the {} bytes left",
                self.remaining()
            ))),
        }
    }

    /// Fills `out`.
    pub(super) fn fill(&mut self, mut out: &mut [u8], what: &str) -> Result<(), ModelError> {
        if self.remaining() < out.len() as u64 {
            return Err(ModelError::Invalid(format!("it ends inside {what}")));
        }
        while !out.is_empty() {
            if self.used == self.chunk.len() {
                self.refill()?;
            }
            let len = out.len().min(self.chunk.len() - self.used);
            let (head, tail) = out.split_at_mut(len);
            head.copy_from_slice(&self.chunk[self.used..self.used + len]);
            self.used += len;
            self.position += len as u64;
            out = tail;
        }
        Ok(())
    }

    fn refill(&mut self) -> Result<(), ModelError> {
        self.hash.update(&self.chunk);
        let len = self.remaining().min(CHUNK);
        self.chunk.resize(len as usize, 0);
        self.used = 0;
        self.source.read_exact_at(&mut self.chunk, self.position)
    }

    pub(super) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], ModelError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, what)?;
        Ok(bytes)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, ModelError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64, ModelError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A length-prefixed UTF-8 string of at most `longest` bytes.
    pub(super) fn string(&mut self, longest: u64, what: &str) -> Result<String, ModelError> {
        let len = self.u64(what)?;
        if len > longest.min(MAX_STRING) {
            return Err(ModelError::Invalid(format!("{what} is {len} bytes long")));
        }
        let mut bytes = vec![0; self.check_count(len, 1, "bytes of a string")?];
        self.fill(&mut bytes, what)?;
        String::from_utf8(bytes).map_err(|_| ModelError::Invalid(format!("{what} is not UTF-8")))
    }

    /// A string value or an element of one.
    pub(super) fn text(&mut self, what: &str) -> Result<String, ModelError> {
        self.string(MAX_STRING, what)
    }

    /// Length and sha256 of everything read.
    pub(super) fn finish(mut self) -> (u64, [u8; 32]) {
        self.hash.update(&self.chunk[..self.used]);
        (self.position, self.hash.finalize().into())
    }
}
