//! A file that is read at positions, from several threads at once.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::ModelError;

/// An open file and its length when it was opened.
///
/// Positioned reads, not a map: a file that is cut short under us is an error, not a signal.
#[derive(Debug)]
pub struct Source {
    file: File,
    path: String,
    len: u64,
}

impl Source {
    /// Opens a regular file.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let name = path.display().to_string();
        let failed = |source| ModelError::Io { path: name.clone(), source };
        // Asked before opening: opening a FIFO would wait for a writer.
        if !std::fs::metadata(path).map_err(failed)?.is_file() {
            return Err(ModelError::Invalid(format!("{name} is not a regular file")));
        }
        let file = File::open(path).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        Ok(Self { file, path: name, len })
    }

    /// Bytes.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Fills `out` with the bytes at `offset`.
    pub fn read_exact_at(&self, out: &mut [u8], offset: u64) -> Result<(), ModelError> {
        self.file
            .read_exact_at(out, offset)
            .map_err(|source| ModelError::Io { path: self.path.clone(), source })
    }
}
