//! An opened and checked model.

mod fingerprint;
mod gguf;
mod store;

use std::ops::Range;
use std::path::Path;

pub use crate::error::ModelError;
use crate::folder;
use crate::random::{self, Shape};
pub use crate::tensor::{Tensor, TensorType};
use crate::{ChatTemplate, Plan, Tokenizer};
pub(crate) use store::{Store, floats, missing};

/// A model whose description, plan, tensor shapes, tokenizer and template have all been checked. Tensors go by the names
/// of GGUF files, wherever they come from.
#[derive(Debug)]
pub struct ModelFile {
    pub(crate) store: Box<dyn Store>,
    pub(crate) plan: Plan,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) template: Option<ChatTemplate>,
    pub(crate) name: String,
    pub(crate) fingerprint: String,
}

impl ModelFile {
    /// Opens and checks a GGUF file or a folder of `config.json`, `tokenizer.json` and safetensors, which may be named
    /// by one of these files too. Tensor data is not read, but for the few bytes of each that its
    /// fingerprint takes and the RoPE factors of the plan.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        match folder::named_by(path) {
            Some(folder) => folder::open(&folder),
            None => gguf::open(path),
        }
    }

    /// A model of `shape` without a file: its weights are random numbers, made when they are read, and the same
    /// every time. For measuring what does not depend on what the weights are.
    pub fn random(shape: Shape) -> Result<Self, ModelError> {
        random::model(shape)
    }

    /// The architecture.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The model's chat template, if it has one.
    pub fn template(&self) -> Option<&ChatTemplate> {
        self.template.as_ref()
    }

    /// `general.name`, or the name of the file without its extension or of the folder.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// sha256 over everything that describes the model, the lengths of its files and sampled tensor bytes, hex: tells
    /// models apart in cache keys.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The tensor called `name`; every tensor the plan needs exists with the shape it needs.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.store.tensor(name)
    }

    /// Reads rows `rows` of `name` into `out` (`rows.len() * row_bytes` long). Safe to call from
    /// several threads.
    pub fn read_rows(
        &self,
        name: &str,
        rows: Range<usize>,
        out: &mut [u8],
    ) -> Result<(), ModelError> {
        let tensor = self.tensor(name).ok_or_else(|| missing(name))?;
        if rows.start > rows.end || rows.end > tensor.rows {
            return Err(ModelError::Invalid(format!(
                "rows {rows:?} of tensor {name}, which has {}",
                tensor.rows
            )));
        }
        if rows.len().checked_mul(tensor.row_bytes) != Some(out.len()) {
            return Err(ModelError::Invalid(format!(
                "rows {rows:?} of tensor {name} do not take {} bytes",
                out.len()
            )));
        }
        self.store.read(name, rows.start, out)
    }

    /// Reads a whole F32/F16/BF16 vector or matrix as f32 (norms, biases).
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        let tensor = self.tensor(name).ok_or_else(|| missing(name))?;
        tensor.check_floats(name)?;
        // No more than its file holds: checked when it was opened.
        let mut bytes = vec![0; tensor.rows * tensor.row_bytes];
        self.store.read(name, 0, &mut bytes)?;
        Ok(floats(tensor.kind, &bytes))
    }
}
