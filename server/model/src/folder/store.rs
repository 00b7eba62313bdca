//! The tensors of a folder, under the names a plan has for them.

use std::collections::BTreeMap;

use super::config::{Config, Family};
use super::names;
use super::shards::Shards;
use crate::ModelError;
use crate::file::{self, Store, Tensor, TensorType};
use crate::safetensors::{Dtype, TensorEntry};

/// Tensors and the shards they lie in.
#[derive(Debug)]
pub(super) struct FolderStore {
    shards: Shards,
    tensors: BTreeMap<String, Placed>,
}

#[derive(Debug)]
struct Placed {
    /// Index into the shards.
    shard: usize,
    entry: TensorEntry,
    /// As it is handed out.
    tensor: Tensor,
    /// As it is stored, where that differs: the weights of Gemma's norms, which lack 1. They are handed out as f32, for
    /// the sum need not be a number of theirs.
    lacks_one: Option<Tensor>,
}

impl FolderStore {
    pub(super) fn new(shards: Shards, config: &Config) -> Result<Self, ModelError> {
        let mut tensors = BTreeMap::new();
        for (shard, file) in shards.files.iter().enumerate() {
            for (theirs, entry) in file.tensors.iter() {
                let Some(ours) = names::ours(theirs, config.family, config.tied) else { continue };
                let stored = tensor(theirs, entry)?;
                let norm = config.family == Family::Gemma3 && ours.ends_with("norm.weight");
                let summed = || Tensor::of_floats(TensorType::F32, stored.rows, stored.cols);
                let placed = match norm.then(summed).flatten() {
                    Some(tensor) => {
                        Placed { shard, entry: entry.clone(), tensor, lacks_one: Some(stored) }
                    }
                    None => Placed { shard, entry: entry.clone(), tensor: stored, lacks_one: None },
                };
                if tensors.insert(ours, placed).is_some() {
                    let why = format!("two of its tensors stand for {theirs:?}");
                    return Err(ModelError::Invalid(why));
                }
            }
        }
        Ok(Self { shards, tensors })
    }

    pub(super) fn len(&self) -> usize {
        self.tensors.len()
    }

    pub(super) fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor and its number of dimensions.
    pub(super) fn find(&self, name: &str) -> Option<(&Tensor, usize)> {
        self.tensors.get(name).map(|placed| (&placed.tensor, placed.entry.shape.len()))
    }
}

impl Store for FolderStore {
    fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name).map(|placed| &placed.tensor)
    }

    fn read(&self, name: &str, first: usize, out: &mut [u8]) -> Result<(), ModelError> {
        let placed = self.tensors.get(name).ok_or_else(|| file::missing(name))?;
        let shard = &self.shards.files[placed.shard].tensors;
        // Within the tensor, whose bytes have been counted.
        let from = |tensor: &Tensor| (first * tensor.row_bytes) as u64;
        let Some(stored) = &placed.lacks_one else {
            return shard.read_bytes(&placed.entry, from(&placed.tensor), out);
        };
        let rows = out.len() / placed.tensor.row_bytes.max(1);
        let mut bytes = vec![0; rows * stored.row_bytes];
        shard.read_bytes(&placed.entry, from(stored), &mut bytes)?;
        let floats = file::floats(stored.kind, &bytes);
        for (out, value) in out.as_chunks_mut::<4>().0.iter_mut().zip(floats) {
            *out = (value + 1.0).to_le_bytes();
        }
        Ok(())
    }
}

/// How `entry` is stored: a vector is one row.
fn tensor(name: &str, entry: &TensorEntry) -> Result<Tensor, ModelError> {
    let kind = match entry.dtype {
        Dtype::F32 => TensorType::F32,
        Dtype::F16 => TensorType::F16,
        Dtype::BF16 => TensorType::BF16,
        Dtype::Other => {
            let why = format!("tensor {name:?}, which is not in bf16, f16 or f32");
            return Err(ModelError::Unsupported(why));
        }
    };
    let shaped = match *entry.shape.as_slice() {
        [cols] => Tensor::of_floats(kind, 1, cols),
        [rows, cols] => Tensor::of_floats(kind, rows, cols),
        _ => None,
    };
    shaped.ok_or_else(|| {
        ModelError::Invalid(format!("tensor {name:?} cannot be of shape {:?}", entry.shape))
    })
}
