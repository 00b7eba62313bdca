//! An opened and checked model file.

use std::ops::Range;
use std::path::Path;

use crate::{ChatTemplate, Plan, Tokenizer};

/// Why a model cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// Reading failed.
    #[error("cannot read {path}: {source}")]
    Io { #[expect(missing_docs, reason = "named in the message")] path: String, #[expect(missing_docs, reason = "the cause")] source: std::io::Error },
    /// The file breaks its format.
    #[error("not a valid model file: {0}")]
    Invalid(String),
    /// The file is sound but asks for something pith does not know.
    #[error("unsupported model: {0}")]
    Unsupported(String),
}

/// Storage format of a tensor, by its GGUF name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are those of the format")]
#[allow(non_camel_case_types)]
pub enum TensorType { F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K }

/// A tensor of the file: `rows` of `cols` weights (a vector has one row).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Storage format.
    pub kind: TensorType,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// Bytes of one row.
    pub row_bytes: usize,
}

/// A model file whose header, plan, tensor shapes, tokenizer and template have all been checked.
#[derive(Debug)]
pub struct ModelFile {}

impl ModelFile {
    /// Opens and checks a GGUF file. Tensor data is not read.
    pub fn open(path: &Path) -> Result<Self, ModelError> { unimplemented!() }
    /// The architecture.
    pub fn plan(&self) -> &Plan { unimplemented!() }
    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer { unimplemented!() }
    /// The file's chat template, if it has one.
    pub fn template(&self) -> Option<&ChatTemplate> { unimplemented!() }
    /// `general.name`, or the file's stem.
    pub fn name(&self) -> &str { unimplemented!() }
    /// sha256 over header bytes, file length and sampled tensor bytes, hex: tells models apart in cache keys.
    pub fn fingerprint(&self) -> &str { unimplemented!() }
    /// The tensor called `name`; every tensor the plan needs exists with the shape it needs.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> { unimplemented!() }
    /// Reads rows `rows` of `name` into `out` (`rows.len() * row_bytes` long). Safe to call from several threads.
    pub fn read_rows(&self, name: &str, rows: Range<usize>, out: &mut [u8]) -> Result<(), ModelError> { unimplemented!() }
    /// Reads a whole F32/F16/BF16 vector or matrix as f32 (norms, biases).
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>, ModelError> { unimplemented!() }
}
