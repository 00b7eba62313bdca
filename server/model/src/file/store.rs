//! Where a model's tensors come from.

use std::fmt;

use super::{ModelError, Tensor, TensorType};
use crate::tensor::f16_to_f32;

/// Tensors by the names a plan has for them. What is handed out here is what was checked when it was opened, so that
/// [`super::ModelFile`] needs to look at ranges only.
pub(crate) trait Store: fmt::Debug + Send + Sync {
    /// The tensor called `name`.
    fn tensor(&self, name: &str) -> Option<&Tensor>;

    /// Fills `out` with whole rows of `name` from `first` on; the tensor has them. Called from several threads at once.
    fn read(&self, name: &str, first: usize, out: &mut [u8]) -> Result<(), ModelError>;
}

/// There is no tensor of that name.
pub(crate) fn missing(name: &str) -> ModelError {
    ModelError::Invalid(format!("there is no tensor {name}"))
}

/// The numbers that `bytes` of a `kind` made of floats hold.
pub(crate) fn floats(kind: TensorType, bytes: &[u8]) -> Vec<f32> {
    match kind {
        TensorType::F32 => {
            bytes.as_chunks::<4>().0.iter().map(|&value| f32::from_le_bytes(value)).collect()
        }
        TensorType::F16 => halves(bytes, f16_to_f32),
        _ => halves(bytes, |bits| f32::from_bits(u32::from(bits) << 16)),
    }
}

fn halves(bytes: &[u8], convert: impl Fn(u16) -> f32) -> Vec<f32> {
    bytes.as_chunks::<2>().0.iter().map(|&value| convert(u16::from_le_bytes(value))).collect()
}
