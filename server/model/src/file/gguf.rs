//! A model in one GGUF file.

use std::path::Path;

use super::store::{self, Store, floats};
use super::{ModelError, ModelFile, Tensor, fingerprint};
use crate::gguf::{Gguf, Source, TensorInfo, Tensors, read_vocab};
use crate::tokenizer::Vocab;
use crate::{ChatTemplate, Plan, Tokenizer};

/// Most values of `rope_freqs.weight`: half of the widest head.
const MAX_ROPE_DIVISORS: usize = 512;

/// The tensors of one file.
#[derive(Debug)]
struct GgufStore {
    source: Source,
    tensors: Tensors,
}

impl Store for GgufStore {
    fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name).map(|entry| &entry.tensor)
    }

    fn read(&self, name: &str, first: usize, out: &mut [u8]) -> Result<(), ModelError> {
        let entry = self.tensors.get(name).ok_or_else(|| store::missing(name))?;
        // Inside the file, hence no overflow: checked when it was opened.
        self.source.read_exact_at(out, entry.offset + (first * entry.tensor.row_bytes) as u64)
    }
}

/// Opens and checks a file.
pub(super) fn open(path: &Path) -> Result<ModelFile, ModelError> {
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
    let store = Box::new(GgufStore { source, tensors });
    Ok(ModelFile { store, plan, tokenizer, template, name, fingerprint })
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

fn read_floats(source: &Source, entry: &TensorInfo) -> Result<Vec<f32>, ModelError> {
    entry.tensor.check_floats(&entry.name)?;
    // No more than the file holds: checked when it was opened.
    let mut bytes = vec![0; entry.tensor.rows * entry.tensor.row_bytes];
    source.read_exact_at(&mut bytes, entry.offset)?;
    Ok(floats(entry.tensor.kind, &bytes))
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
