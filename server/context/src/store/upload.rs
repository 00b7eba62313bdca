//! A document on its way in: spooled to a file of its own, not part of the store until it is committed.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::{Content, Put, Store, StoreError, document};

/// Where uploads lie. Whatever is there when the store is opened is left over and removed.
pub(super) const FOLDER: &str = "uploads";

/// A document on its way in. Dropped, it leaves nothing.
#[derive(Debug)]
pub struct Upload {
    store: Store,
    tenant: String,
    id: String,
    name: PathBuf,
    file: File,
    bytes: u64,
}

impl Store {
    /// Begins an upload of a document called `id`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn begin(&self, tenant: &str, id: &str) -> Result<Upload, StoreError> {
        document::check_id(id)?;
        let number = self.0.uploads.fetch_add(1, Ordering::Relaxed);
        let name = Path::new(FOLDER).join(number.to_string());
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(self.0.disk.path(&name))
            .map_err(|error| StoreError::io(&name, error))?;
        self.0.live_uploads.fetch_add(1, Ordering::AcqRel);
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        Ok(Upload { store: self.clone(), tenant, id, name, file, bytes: 0 })
    }
}

impl Upload {
    /// Adds the next bytes.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] beyond [`Limits::document_bytes`](super::Limits::document_bytes); a full disk.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let limit = self.store.limits().document_bytes;
        self.bytes += bytes.len() as u64;
        if self.bytes > limit {
            return Err(StoreError::TooLarge { limit });
        }
        let mut write = || {
            self.store.0.disk.spend(bytes.len())?;
            self.file.write_all(bytes)
        };
        write().map_err(|error| StoreError::io(&self.name, error))
    }

    /// Bytes so far.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.bytes
    }

    /// Whether nothing has come yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Everything that came.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn bytes(&self) -> Result<Vec<u8>, StoreError> {
        let missing = || StoreError::corrupt(&self.name, "is missing");
        self.store.0.disk.read(&self.name)?.ok_or_else(missing)
    }

    /// Stores what was made of it, as [`Store::put`] does, and ends the upload.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub fn commit(self, content: &Content) -> Result<Put, StoreError> {
        self.store.put(&self.tenant, &self.id, content)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // Should it stay, it goes when the store is opened.
        let _ = self.store.0.disk.remove(&self.name);
        self.store.0.live_uploads.fetch_sub(1, Ordering::AcqRel);
    }
}
