//! What tells two model files apart.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use crate::ModelError;
use crate::gguf::{Gguf, Source};

/// Bytes taken from the start, the middle and the end of each tensor. Fine-tunes change every
/// part of the tensors they touch, so a few bytes of each tensor tell them from their base.
const SAMPLE: u64 = 512;

/// sha256 over the header, the file's length and samples of each tensor, hex.
pub(super) fn of(source: &Source, gguf: &Gguf) -> Result<String, ModelError> {
    let mut hash = Sha256::new();
    hash.update(gguf.header_sha256);
    hash.update(source.len().to_le_bytes());
    let mut sample = [0; SAMPLE as usize];
    for entry in gguf.tensors.iter() {
        let len = entry.bytes.min(SAMPLE);
        let last = entry.bytes - len;
        for at in [0, last / 2, last] {
            let sample = &mut sample[..len as usize];
            source.read_exact_at(sample, entry.offset + at)?;
            hash.update(sample);
        }
    }
    let mut hex = String::with_capacity(64);
    for byte in hash.finalize() {
        // Writing to a string does not fail.
        let _ = write!(hex, "{byte:02x}");
    }
    Ok(hex)
}
