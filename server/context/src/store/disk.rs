//! Files of the store's folder. Every byte the store writes passes here, so that tests can fill the disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use super::StoreError;

/// The folder and what may be written to it. Paths are relative to it.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    root: PathBuf,
    #[cfg(test)]
    pub(super) room: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl Disk {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            #[cfg(test)]
            room: std::sync::Arc::new(u64::MAX.into()),
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn path(&self, name: &Path) -> PathBuf {
        self.root.join(name)
    }

    /// Takes `bytes` off what the disk holds; only in tests does it end before the disk does.
    #[cfg_attr(
        not(test),
        expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "for tests")
    )]
    pub(super) fn spend(&self, bytes: usize) -> io::Result<()> {
        #[cfg(test)]
        {
            use std::sync::atomic::Ordering;
            let spend = |room: u64| room.checked_sub(bytes as u64);
            if self.room.fetch_update(Ordering::SeqCst, Ordering::SeqCst, spend).is_err() {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        let _ = bytes;
        Ok(())
    }

    pub(super) fn create_folder(&self, name: &Path) -> Result<(), StoreError> {
        fs::create_dir_all(self.path(name)).map_err(|error| StoreError::io(name, error))
    }

    /// Writes a whole file and waits until it and its name are on the disk.
    pub(super) fn write(&self, name: &Path, parts: &[&[u8]]) -> Result<(), StoreError> {
        let write = || {
            let mut file = File::create(self.path(name))?;
            for part in parts {
                self.spend(part.len())?;
                file.write_all(part)?;
            }
            file.sync_all()?;
            self.sync_folder(name)
        };
        write().map_err(|error| StoreError::io(name, error))
    }

    /// Writes `bytes` from `at` on, which becomes the end of the file, and waits until they are on the disk.
    pub(super) fn append(&self, name: &Path, at: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let append = || {
            let mut file = OpenOptions::new().write(true).open(self.path(name))?;
            file.set_len(at)?;
            file.seek(SeekFrom::Start(at))?;
            self.spend(bytes.len())?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        append().map_err(|error| StoreError::io(name, error))
    }

    /// Gives a file another name, for good.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> Result<(), StoreError> {
        let rename = || {
            fs::rename(self.path(from), self.path(to))?;
            self.sync_folder(to)
        };
        rename().map_err(|error| StoreError::io(to, error))
    }

    /// Cuts a file.
    pub(super) fn cut(&self, name: &Path, length: u64) -> Result<(), StoreError> {
        let cut = || {
            let file = OpenOptions::new().write(true).open(self.path(name))?;
            file.set_len(length)?;
            file.sync_all()
        };
        cut().map_err(|error| StoreError::io(name, error))
    }

    /// Removes a file; that it is gone already is no error.
    pub(super) fn remove(&self, name: &Path) -> Result<(), StoreError> {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::io(name, error))
            }
            _ => Ok(()),
        }
    }

    /// The whole file; `None` if there is none.
    pub(super) fn read(&self, name: &Path) -> Result<Option<Vec<u8>>, StoreError> {
        match fs::read(self.path(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io(name, error)),
        }
    }

    /// The first bytes of a file, at most `count`; `None` if there is none.
    pub(super) fn read_head(&self, name: &Path, count: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let read = || {
            let mut head = Vec::new();
            File::open(self.path(name))?.take(count).read_to_end(&mut head)?;
            Ok(head)
        };
        match read() {
            Ok(head) => Ok(Some(head)),
            Err(error) if io::Error::kind(&error) == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io(name, error)),
        }
    }

    /// Names in a folder, with the folder's before them. None if there is no such folder.
    pub(super) fn list(&self, folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
        let wrong = |error| StoreError::io(folder, error);
        let entries = match fs::read_dir(self.path(folder)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(wrong(error)),
        };
        entries.map(|entry| Ok(folder.join(entry.map_err(wrong)?.file_name()))).collect()
    }

    /// Makes the names in a file's folder survive a power cut.
    fn sync_folder(&self, name: &Path) -> io::Result<()> {
        let path = self.path(name);
        File::open(path.parent().unwrap_or(&self.root))?.sync_all()
    }
}
