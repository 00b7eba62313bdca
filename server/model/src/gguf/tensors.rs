//! Where tensors lie.

use super::metadata::excerpt;
use super::reader::HeaderReader;
use crate::ModelError;
use crate::file::{Tensor, TensorType};

/// Most tensors; a dense model of 126 layers has some 1200.
const MAX_TENSORS: u64 = 64 << 10;
/// Longest tensor name, bytes, as the format says.
const MAX_NAME: u64 = 64;
const MAX_DIMS: u32 = 4;
/// Least bytes of an entry: name length and one byte, dimensions, one of them, type, offset.
const LEAST_ENTRY: u64 = 8 + 1 + 4 + 8 + 4 + 8;

/// A tensor's entry in the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name.
    pub name: String,
    /// Storage and shape.
    pub tensor: Tensor,
    /// Dimensions beyond the trailing ones of length 1: 1 for a vector, 2 for a matrix.
    pub dims: u32,
    /// First byte in the file.
    pub offset: u64,
    /// Bytes.
    pub bytes: u64,
}

/// The tensors of a file: inside it, aligned, apart from each other, each name once.
#[derive(Debug, Default)]
pub struct Tensors {
    /// Sorted by name.
    entries: Vec<TensorInfo>,
}

impl Tensors {
    pub(super) fn read(
        reader: &mut HeaderReader<'_>,
        count: u64,
        alignment: u64,
    ) -> Result<Self, ModelError> {
        if count > MAX_TENSORS {
            return Err(ModelError::Invalid(format!("{count} tensors are too many")));
        }
        let capacity = reader.check_count(count, LEAST_ENTRY, "tensors")?;
        let mut entries = Vec::with_capacity(capacity);
        for _ in 0..count {
            entries.push(read_entry(reader, alignment)?);
        }
        // Data begins at the next aligned byte after the header; offsets are relative to it.
        let begin = reader.position().next_multiple_of(alignment);
        for entry in &mut entries {
            place(entry, begin, reader.file_len())?;
        }
        entries.sort_unstable_by_key(|entry| entry.offset);
        if let Some(two) =
            entries.windows(2).find(|two| two[0].offset + two[0].bytes > two[1].offset)
        {
            return Err(ModelError::Invalid(format!(
                "tensors {} and {} overlap",
                excerpt(&two[0].name),
                excerpt(&two[1].name)
            )));
        }
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        if let Some(two) = entries.windows(2).find(|two| two[0].name == two[1].name) {
            return Err(ModelError::Invalid(format!(
                "tensor {} is there twice",
                excerpt(&two[0].name)
            )));
        }
        Ok(Self { entries })
    }

    /// The tensor called `name`.
    pub fn get(&self, name: &str) -> Option<&TensorInfo> {
        let at = self.entries.binary_search_by(|entry| entry.name.as_str().cmp(name)).ok()?;
        Some(&self.entries[at])
    }

    /// Tensors in order of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &TensorInfo> {
        self.entries.iter()
    }
}

/// An entry whose offset is still relative to the data.
fn read_entry(reader: &mut HeaderReader<'_>, alignment: u64) -> Result<TensorInfo, ModelError> {
    let name = reader.string(MAX_NAME, "a tensor's name")?;
    let quoted = excerpt(&name);
    let invalid = |why: String| Err(ModelError::Invalid(format!("tensor {quoted} {why}")));
    if name.is_empty() {
        return invalid("has no name".to_owned());
    }
    let declared = reader.u32(&quoted)?;
    if !(1..=MAX_DIMS).contains(&declared) {
        return invalid(format!("has {declared} dimensions"));
    }
    let mut shape = [1; MAX_DIMS as usize];
    for len in &mut shape[..declared as usize] {
        *len = reader.u64(&quoted)?;
        if *len == 0 {
            return invalid("has a dimension of length 0".to_owned());
        }
    }
    let code = reader.u32(&quoted)?;
    let Some(kind) = TensorType::from_ggml(code) else {
        return match TensorType::unsupported_name(code) {
            Some(kind) => Err(ModelError::Unsupported(format!("tensor {quoted} of type {kind}"))),
            None => invalid(format!("has the unknown type {code}")),
        };
    };
    let offset = reader.u64(&quoted)?;
    if !offset.is_multiple_of(alignment) {
        return invalid(format!("begins at {offset}, not a multiple of {alignment}"));
    }
    let sizes = sizes(kind, &shape);
    let Some((rows, cols, row_bytes, bytes)) = sizes else {
        return invalid(format!("cannot be of shape {shape:?} and type {kind:?}"));
    };
    let dims = shape.iter().rposition(|&len| len != 1).map_or(1, |last| last as u32 + 1);
    let tensor = Tensor { kind, rows, cols, row_bytes };
    Ok(TensorInfo { name, tensor, dims, offset, bytes })
}

/// Rows, columns, bytes of a row and of the whole, unless one overflows or a row holds part of a
/// quantisation block.
fn sizes(kind: TensorType, shape: &[u64; 4]) -> Option<(usize, usize, usize, u64)> {
    let rows = shape[1].checked_mul(shape[2])?.checked_mul(shape[3])?;
    if !shape[0].is_multiple_of(kind.block_len() as u64) {
        return None;
    }
    let row_bytes = (shape[0] / kind.block_len() as u64).checked_mul(kind.block_bytes() as u64)?;
    let bytes = row_bytes.checked_mul(rows)?;
    Some((
        usize::try_from(rows).ok()?,
        usize::try_from(shape[0]).ok()?,
        usize::try_from(row_bytes).ok()?,
        bytes,
    ))
}

/// Makes the offset absolute and checks that the data is inside the file.
fn place(entry: &mut TensorInfo, begin: u64, file_len: u64) -> Result<(), ModelError> {
    let start = begin.checked_add(entry.offset);
    let end = start.and_then(|start| start.checked_add(entry.bytes));
    match (start, end) {
        (Some(start), Some(end)) if end <= file_len => {
            entry.offset = start;
            Ok(())
        }
        _ => Err(ModelError::Invalid(format!(
            "tensor {} reaches past the file's end",
            excerpt(&entry.name)
        ))),
    }
}
