//! The header: names, types, shapes and ranges.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::{Dtype, TensorEntry};
use crate::ModelError;
use crate::json::Few;

/// Most dimensions of a tensor: more mean nothing here, and a short file could list very many.
const MAX_RANK: usize = 8;

/// Reads `text`; the tensors' bytes lie from `start` up to `end` in the file.
pub(super) fn read(
    text: &[u8],
    start: u64,
    end: u64,
) -> Result<BTreeMap<String, TensorEntry>, ModelError> {
    let Header(tensors) = serde_json::from_slice(text)
        .map_err(|error| ModelError::Invalid(format!("its header: {error}")))?;
    let mut entries = BTreeMap::new();
    let mut ranges = Vec::with_capacity(tensors.len());
    for (name, Raw { dtype, shape, data_offsets: (from, to) }) in tensors {
        let wrong = |why: &str| ModelError::Invalid(format!("tensor {name:?} {why}"));
        let (dtype, bits) = dtype_of(&dtype).ok_or_else(|| wrong("is of an unknown type"))?;
        let numbers = shape.0.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim));
        let bytes = numbers
            .and_then(|numbers| numbers.checked_mul(bits))
            .filter(|bits| bits.is_multiple_of(8))
            .map(|bits| bits / 8)
            .ok_or_else(|| wrong("is of an impossible size"))?;
        if to.checked_sub(from) != Some(bytes) || to > end - start {
            return Err(wrong("does not lie where its shape fits"));
        }
        ranges.push((from, to));
        let dims = shape.0.iter().map(|&dim| usize::try_from(dim)).collect::<Result<_, _>>();
        let shape = dims.map_err(|_| wrong("is of an impossible size"))?;
        let entry = TensorEntry { dtype, shape, offset: start + from, bytes };
        if entries.insert(name.clone(), entry).is_some() {
            return Err(ModelError::Invalid(format!("two tensors are called {name:?}")));
        }
    }
    ranges.sort_unstable();
    let mut reached = 0;
    for (from, to) in ranges {
        if from != reached {
            return Err(ModelError::Invalid("its tensors overlap or leave a gap".to_owned()));
        }
        reached = to;
    }
    if reached != end - start {
        let left = end - start - reached;
        return Err(ModelError::Invalid(format!("{left} of its bytes belong to no tensor")));
    }
    Ok(entries)
}

/// A type by its name, and its bits.
fn dtype_of(name: &str) -> Option<(Dtype, u64)> {
    Some(match name {
        "F32" => (Dtype::F32, 32),
        "F16" => (Dtype::F16, 16),
        "BF16" => (Dtype::BF16, 16),
        "F64" | "I64" | "U64" | "C64" => (Dtype::Other, 64),
        "I32" | "U32" => (Dtype::Other, 32),
        "I16" | "U16" => (Dtype::Other, 16),
        "I8" | "U8" | "BOOL" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" => (Dtype::Other, 8),
        "F6_E2M3" | "F6_E3M2" => (Dtype::Other, 6),
        "F4" => (Dtype::Other, 4),
        _ => return None,
    })
}

/// A tensor as the header has it.
#[derive(Deserialize)]
struct Raw {
    dtype: String,
    shape: Few<u64, MAX_RANK>,
    data_offsets: (u64, u64),
}

/// In the order of the file, doubles and all; `__metadata__` is skipped.
struct Header(Vec<(String, Raw)>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tensors;
        impl<'de> Visitor<'de> for Tensors {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut tensors = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        tensors.push((name, map.next_value()?));
                    }
                }
                Ok(Header(tensors))
            }
        }
        deserializer.deserialize_map(Tensors)
    }
}
