//! GGUF: the container. A reader that trusts nothing.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3, little
//! endian. Lengths and counts are compared with the bytes that are left before anything is
//! allocated for them, sums and products are checked, and what a file declares twice is refused.

mod element;
mod metadata;
mod reader;
mod source;
mod tensors;
mod vocab;

pub use metadata::{Array, Metadata, Value};
pub use source::Source;
pub use tensors::{TensorInfo, Tensors};

pub(crate) use vocab::read_vocab;

use crate::ModelError;
use reader::HeaderReader;

const MAGIC: [u8; 4] = *b"GGUF";
/// `general.alignment` when the file does not say.
const DEFAULT_ALIGNMENT: u64 = 32;
/// Larger alignments serve no reader and let a padded offset run away.
const MAX_ALIGNMENT: u64 = 64 << 10;

/// The checked header of a GGUF file.
#[derive(Debug)]
pub struct Gguf {
    /// Version of the format: 2 or 3.
    pub version: u32,
    /// Key-value pairs.
    pub metadata: Metadata,
    /// Where each tensor lies and what it is.
    pub tensors: Tensors,
    /// Bytes of the header, padding to the first tensor excluded.
    pub header_len: u64,
    /// sha256 of the header.
    pub header_sha256: [u8; 32],
}

impl Gguf {
    /// Reads and checks the header of `source`. Tensor data is not read.
    pub fn read(source: &Source) -> Result<Self, ModelError> {
        let mut reader = HeaderReader::new(source);
        if reader.array::<4>("the magic")? != MAGIC {
            return Err(ModelError::Invalid("it does not begin with the GGUF magic".to_owned()));
        }
        let version = reader.u32("the version")?;
        check_version(version)?;
        let tensor_count = reader.u64("the number of tensors")?;
        let pair_count = reader.u64("the number of key-value pairs")?;
        let metadata = Metadata::read(&mut reader, pair_count)?;
        let alignment = alignment(&metadata)?;
        let tensors = Tensors::read(&mut reader, tensor_count, alignment)?;
        let (header_len, header_sha256) = reader.finish();
        Ok(Self { version, metadata, tensors, header_len, header_sha256 })
    }
}

fn check_version(version: u32) -> Result<(), ModelError> {
    match version {
        2 | 3 => Ok(()),
        0 => Err(ModelError::Invalid("GGUF version 0".to_owned())),
        // A small number in the high half is a small number with its bytes swapped.
        _ if version & 0xffff == 0 => {
            Err(ModelError::Unsupported("big-endian GGUF files".to_owned()))
        }
        _ => Err(ModelError::Unsupported(format!("GGUF version {version} (2 and 3 are)"))),
    }
}

fn alignment(metadata: &Metadata) -> Result<u64, ModelError> {
    let alignment = match metadata.get("general.alignment") {
        None => DEFAULT_ALIGNMENT,
        Some(&Value::U32(alignment)) => u64::from(alignment),
        Some(other) => {
            return Err(ModelError::Invalid(format!(
                "general.alignment is {}, not a u32",
                other.type_name()
            )));
        }
    };
    if !alignment.is_power_of_two() || alignment > MAX_ALIGNMENT {
        return Err(ModelError::Invalid(format!(
            "general.alignment is {alignment}, not a power of two up to {MAX_ALIGNMENT}"
        )));
    }
    Ok(alignment)
}
