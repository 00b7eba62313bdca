//! Model files, whole and hostile: what opens, what is refused, and what refusing may cost.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod allocation;
mod container;
mod damage;
mod encoder;
mod folder_tokenizers;
mod folder_writer;
mod folders;
mod plans;
mod random;
mod read;
mod round_trip;
mod templates;
mod tiny;
mod writer;

use std::io::Write;

use pith_model::gguf::{Gguf, Source};
use pith_model::{ModelError, ModelFile};
use tempfile::NamedTempFile;

#[global_allocator]
static ALLOCATOR: allocation::Counting = allocation::Counting;

/// A file on disk with these bytes.
fn on_disk(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::with_suffix(".gguf").unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn open(bytes: &[u8]) -> Result<ModelFile, ModelError> {
    ModelFile::open(on_disk(bytes).path())
}

/// The container alone: whether the bytes are a GGUF file, of a model or not.
fn read_container(bytes: &[u8]) -> Result<Gguf, ModelError> {
    Gguf::read(&Source::open(on_disk(bytes).path())?)
}

/// The complaint, which must be about the contents and say `part`.
fn assert_refused<T: std::fmt::Debug>(result: Result<T, ModelError>, part: &str, case: &str) {
    match result {
        Err(error @ (ModelError::Invalid(_) | ModelError::Unsupported(_))) => {
            let said = error.to_string();
            assert!(said.contains(part), "{case}: {said:?} does not say {part:?}");
        }
        other => panic!("{case}: {other:?} instead of a refusal that says {part:?}"),
    }
}
