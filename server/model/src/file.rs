//! An opened and checked model file.

mod fingerprint;

use std::ops::Range;
use std::path::Path;

pub use crate::error::ModelError;
use crate::gguf::{Gguf, Source, TensorInfo, Tensors, read_vocab};
use crate::tensor::f16_to_f32;
pub use crate::tensor::{Tensor, TensorType};
use crate::tokenizer::Vocab;
use crate::{ChatTemplate, Plan, Tokenizer};

/// Most values of `rope_freqs.weight`: half of the widest head.
const MAX_ROPE_DIVISORS: usize = 512;

/// A model file whose header, plan, tensor shapes, tokenizer and template have all been checked.
#[derive(Debug)]
pub struct ModelFile {
    source: Source,
    tensors: Tensors,
    plan: Plan,
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    name: String,
    fingerprint: String,
}

impl ModelFile {
    /// Opens and checks a GGUF file. Tensor data is not read, but for the few bytes of each that
    /// its fingerprint takes and the RoPE factors of the plan.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let source = Source::open(path)?;
        let mut gguf = Gguf::read(&source)?;
        check_kind(&gguf)?;
        let vocab = read_vocab(&mut gguf.metadata)?;
        let rope_divisors = read_rope_divisors(&source, &gguf.tensors)?;
        let plan = Plan::read(&gguf, vocab.tokens.len(), rope_divisors.as_deref())?;
        let template = read_template(&gguf, &vocab)?;
        let name = name(&gguf, path)?;
        let fingerprint = fingerprint::of(&source, &gguf)?;
        let tensors = gguf.tensors;
        drop(gguf.metadata);
        let tokenizer = Tokenizer::from_vocab(vocab)?;
        Ok(Self { source, tensors, plan, tokenizer, template, name, fingerprint })
    }

    /// The architecture.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The file's chat template, if it has one.
    pub fn template(&self) -> Option<&ChatTemplate> {
        self.template.as_ref()
    }

    /// `general.name`, or the file's stem.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// sha256 over header bytes, file length and sampled tensor bytes, hex: tells models apart in
    /// cache keys.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The tensor called `name`; every tensor the plan needs exists with the shape it needs.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name).map(|entry| &entry.tensor)
    }

    /// Reads rows `rows` of `name` into `out` (`rows.len() * row_bytes` long). Safe to call from
    /// several threads.
    pub fn read_rows(
        &self,
        name: &str,
        rows: Range<usize>,
        out: &mut [u8],
    ) -> Result<(), ModelError> {
        let entry = self.entry(name)?;
        let tensor = &entry.tensor;
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
        // Inside the file, hence no overflow: checked when it was opened.
        self.source.read_exact_at(out, entry.offset + (rows.start * tensor.row_bytes) as u64)
    }

    /// Reads a whole F32/F16/BF16 vector or matrix as f32 (norms, biases).
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        read_floats(&self.source, self.entry(name)?)
    }

    fn entry(&self, name: &str) -> Result<&TensorInfo, ModelError> {
        self.tensors
            .get(name)
            .ok_or_else(|| ModelError::Invalid(format!("there is no tensor {name}")))
    }
}

/// Refuses files that hold something other than one whole model.
fn check_kind(gguf: &Gguf) -> Result<(), ModelError> {
    if let Some(kind) = gguf.metadata.str("general.type")?
        && kind != "model"
    {
        return Err(ModelError::Unsupported(format!("a file that holds a {kind:?}")));
    }
    if let Some(parts) = gguf.metadata.u32("split.count")?
        && parts > 1
    {
        return Err(ModelError::Unsupported(format!("a model split over {parts} files")));
    }
    Ok(())
}

fn read_rope_divisors(source: &Source, tensors: &Tensors) -> Result<Option<Vec<f32>>, ModelError> {
    match tensors.get("rope_freqs.weight") {
        None => Ok(None),
        Some(entry) if entry.tensor.rows != 1 || entry.tensor.cols > MAX_ROPE_DIVISORS => {
            Err(ModelError::Invalid("rope_freqs.weight does not fit the heads".to_owned()))
        }
        Some(entry) => read_floats(source, entry).map(Some),
    }
}

fn read_template(gguf: &Gguf, vocab: &Vocab) -> Result<Option<ChatTemplate>, ModelError> {
    let Some(text) = gguf.metadata.str("tokenizer.chat_template")? else {
        return Ok(None);
    };
    let piece = |id: Option<u32>| {
        id.and_then(|id| vocab.tokens.get(id as usize)).map_or("", String::as_str)
    };
    ChatTemplate::new(text, piece(vocab.bos), piece(vocab.eos))
        .map(Some)
        .map_err(|why| ModelError::Unsupported(why.to_string()))
}

fn name(gguf: &Gguf, path: &Path) -> Result<String, ModelError> {
    let stem = || path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let named = gguf.metadata.str("general.name")?.filter(|name| !name.trim().is_empty());
    Ok(named.map_or_else(stem, str::to_owned))
}

fn read_floats(source: &Source, entry: &TensorInfo) -> Result<Vec<f32>, ModelError> {
    let kind = entry.tensor.kind;
    if kind.block_len() != 1 {
        return Err(ModelError::Invalid(format!(
            "tensor {} of type {kind:?} is not made of floats",
            entry.name
        )));
    }
    // No more than the file holds: checked when it was opened.
    let mut bytes = vec![0; entry.tensor.rows * entry.tensor.row_bytes];
    source.read_exact_at(&mut bytes, entry.offset)?;
    Ok(match kind {
        TensorType::F32 => {
            let (values, _) = bytes.as_chunks::<4>();
            values.iter().map(|&value| f32::from_le_bytes(value)).collect()
        }
        TensorType::F16 => halves(&bytes, f16_to_f32),
        _ => halves(&bytes, |bits| f32::from_bits(u32::from(bits) << 16)),
    })
}

fn halves(bytes: &[u8], convert: impl Fn(u16) -> f32) -> Vec<f32> {
    let (values, _) = bytes.as_chunks::<2>();
    values.iter().map(|&value| convert(u16::from_le_bytes(value))).collect()
}
