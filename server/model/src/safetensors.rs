//! Safetensors files: a JSON header that says where each tensor's bytes lie, then the bytes.
//!
//! Nothing in the header is believed: every range lies inside the file, has the bytes its shape needs, and together
//! the ranges tile what follows the header, as the format demands.

mod header;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::ModelError;
use crate::gguf::Source;
use crate::tensor::f16_to_f32;

/// Longest header. The largest known, of models with thousands of experts, take some MiB.
const MAX_HEADER: u64 = 8 << 20;
/// Bytes of each tensor that the fingerprint takes at its start, middle and end.
const SAMPLE: u64 = 512;

/// How a tensor's numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the format")]
pub enum Dtype {
    F32,
    F16,
    BF16,
    /// Anything else the format knows: its size is checked, its values are never read.
    Other,
}

/// A tensor of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorEntry {
    /// How its numbers are stored.
    pub dtype: Dtype,
    /// Its dimensions, outermost first.
    pub shape: Vec<usize>,
    /// First byte in the file.
    offset: u64,
    bytes: u64,
}

/// An opened file whose header has been checked.
#[derive(Debug)]
pub struct SafeTensors {
    source: Source,
    tensors: BTreeMap<String, TensorEntry>,
    header_sha256: [u8; 32],
}

impl SafeTensors {
    /// Opens a file and checks its header. No tensor's data is read.
    ///
    /// # Errors
    /// The file cannot be read, or breaks the format.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let source = Source::open(path)?;
        let mut length = [0; 8];
        if source.len() < 8 {
            return Err(ModelError::Invalid("it is too short for a header".to_owned()));
        }
        source.read_exact_at(&mut length, 0)?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER || length > source.len() - 8 {
            return Err(ModelError::Invalid(format!("its header would have {length} bytes")));
        }
        let mut text = vec![0; length as usize];
        source.read_exact_at(&mut text, 8)?;
        let tensors = header::read(&text, 8 + length, source.len())?;
        Ok(Self { source, tensors, header_sha256: Sha256::digest(&text).into() })
    }

    /// The tensor called `name`.
    pub fn get(&self, name: &str) -> Option<&TensorEntry> {
        self.tensors.get(name)
    }

    /// All tensors, in order of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &TensorEntry)> {
        self.tensors.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    /// Fills `out` with the bytes of a tensor of this file from byte `from` of it on. Safe to call from several threads.
    ///
    /// # Errors
    /// The tensor ends before `out` does, or the file cannot be read.
    pub(crate) fn read_bytes(
        &self,
        entry: &TensorEntry,
        from: u64,
        out: &mut [u8],
    ) -> Result<(), ModelError> {
        if from.checked_add(out.len() as u64).is_none_or(|end| end > entry.bytes) {
            return Err(ModelError::Invalid("a read past a tensor's end".to_owned()));
        }
        self.source.read_exact_at(out, entry.offset + from)
    }

    /// The numbers of `name`, which must have `shape`, as f32.
    ///
    /// # Errors
    /// There is no such tensor, it has another shape or no floats, or holds a number that is none.
    pub fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        let wrong = |why: String| ModelError::Invalid(format!("tensor {name} {why}"));
        let entry = self.get(name).ok_or_else(|| wrong("is missing".to_owned()))?;
        if entry.shape != shape {
            return Err(wrong(format!("is of shape {:?}, not {shape:?}", entry.shape)));
        }
        // No more than the file holds: checked when it was opened.
        let mut bytes = vec![0; entry.bytes as usize];
        self.source.read_exact_at(&mut bytes, entry.offset)?;
        let numbers: Vec<f32> = match entry.dtype {
            Dtype::F32 => bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            Dtype::F16 => halves(&bytes, f16_to_f32),
            Dtype::BF16 => halves(&bytes, |bits| f32::from_bits(u32::from(bits) << 16)),
            Dtype::Other => return Err(wrong("is not made of floats".to_owned())),
        };
        match numbers.iter().all(|number| number.is_finite()) {
            true => Ok(numbers),
            false => Err(wrong("holds a number that is none".to_owned())),
        }
    }

    /// sha256 over the header, the file's length and samples of each tensor, hex: tells models apart in cache keys.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn fingerprint(&self) -> Result<String, ModelError> {
        let mut hash = Sha256::new();
        hash.update(self.header_sha256);
        hash.update(self.source.len().to_le_bytes());
        let mut sample = [0; SAMPLE as usize];
        for entry in self.tensors.values() {
            let len = entry.bytes.min(SAMPLE);
            let last = entry.bytes - len;
            for at in [0, last / 2, last] {
                let sample = &mut sample[..len as usize];
                self.source.read_exact_at(sample, entry.offset + at)?;
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
}

fn halves(bytes: &[u8], convert: impl Fn(u16) -> f32) -> Vec<f32> {
    bytes.as_chunks::<2>().0.iter().map(|&bits| convert(u16::from_le_bytes(bits))).collect()
}
