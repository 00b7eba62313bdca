//! The cache: which file lies where, and whether it is whole.
//!
//! ```text
//! $PITH_HOME, else $XDG_CACHE_HOME/pith, else $HOME/.cache/pith
//!   models/NAME/FILE...       under their final names only once whole and checked
//!   models/NAME/manifest.json sizes and hashes they had then
//!   models/hf/ORG/REPO/FILE   likewise, of `hf:ORG/REPO[:FILE]`; present means whole and checked
//!   documents/NAME/FILE...    likewise
//!   partial/NAME/             wheels of a fetch under way; gone when it is complete
//!   partial/NAME.lock         locked while a process fetches NAME
//!   partial/hf/               the same for hf:, laid out by the hf-hub crate
//!   partial/hf/locks/ORG--REPO
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::catalogue::{Entry, File};
use super::error::HubError;

/// Bytes read or written at once.
pub(super) const BUFFER_BYTES: usize = 1 << 20;

/// The folder models and documents are kept in.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

/// What a cached entry was when it was checked.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Manifest {
    files: BTreeMap<String, Stamp>,
}

/// Size and hash of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    bytes: u64,
    sha256: String,
}

impl Cache {
    /// A cache at `root`; nothing is created yet.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The cache the environment names.
    pub fn from_env() -> Result<Self, HubError> {
        let folder = |name: &str| {
            std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
        };
        let root = folder("PITH_HOME")
            .or_else(|| Some(folder("XDG_CACHE_HOME")?.join("pith")))
            .or_else(|| Some(folder("HOME")?.join(".cache/pith")));
        // A relative PITH_HOME must mean the same to pip, which may run elsewhere.
        let root = root.ok_or(HubError::NoHome)?;
        let root = std::path::absolute(&root).map_err(|e| HubError::io("find", &root, e))?;
        Ok(Self { root })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of an entry.
    pub fn folder(&self, entry: &Entry) -> PathBuf {
        self.root.join(entry.kind.folder()).join(&entry.name)
    }

    /// Where a file of an entry lies once it is whole.
    pub fn path(&self, entry: &Entry, file: &File) -> PathBuf {
        self.folder(entry).join(&file.name)
    }

    /// Where the unfinished things of an entry lie.
    pub(super) fn partial(&self, entry: &Entry) -> PathBuf {
        self.root.join("partial").join(&entry.name)
    }

    /// The file that is locked while an entry is fetched. It stays: removing it would let two
    /// processes lock two files of one name.
    pub(super) fn lock_path(&self, entry: &Entry) -> PathBuf {
        self.root.join("partial").join(format!("{}.lock", entry.name))
    }

    /// Whether every file has the size and, by the manifest, the hash it should. Reads no contents.
    pub fn has(&self, entry: &Entry) -> bool {
        let manifest = self.manifest(entry);
        entry.files.iter().all(|file| self.has_file(entry, file, &manifest))
    }

    /// The files of `entry` that are missing or not what they should be. Contents of files the
    /// manifest does not vouch for are read, so that a file put there by hand counts.
    pub(super) fn lacking<'a>(&self, entry: &'a Entry) -> Result<Vec<&'a File>, HubError> {
        let manifest = self.manifest(entry);
        let mut lacking = Vec::new();
        for file in &entry.files {
            if !self.has_file(entry, file, &manifest) && !self.verify_file(entry, file)? {
                lacking.push(file);
            }
        }
        Ok(lacking)
    }

    /// Reads every file and compares hashes; the first that differs or is missing is named.
    pub fn verify(&self, entry: &Entry) -> Result<Option<PathBuf>, HubError> {
        for file in &entry.files {
            if !self.verify_file(entry, file)? {
                return Ok(Some(self.path(entry, file)));
            }
        }
        Ok(None)
    }

    fn has_file(&self, entry: &Entry, file: &File, manifest: &Manifest) -> bool {
        let size = fs::metadata(self.path(entry, file)).map(|metadata| metadata.len());
        size.is_ok_and(|size| size == file.bytes)
            && manifest.files.get(&file.name) == Some(&Stamp::of(file))
    }

    fn verify_file(&self, entry: &Entry, file: &File) -> Result<bool, HubError> {
        let path = self.path(entry, file);
        if fs::metadata(&path).is_ok_and(|metadata| metadata.len() == file.bytes) {
            Ok(sha256(&path)? == file.sha256)
        } else {
            Ok(false)
        }
    }

    /// A manifest that is missing or unreadable vouches for nothing.
    fn manifest(&self, entry: &Entry) -> Manifest {
        let text = fs::read(self.folder(entry).join("manifest.json"));
        text.ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// Takes back [`Cache::vouch`].
    pub(super) fn distrust(&self, entry: &Entry) -> Result<(), HubError> {
        let path = self.folder(entry).join("manifest.json");
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(HubError::io("remove", &path, error))
            }
            _ => Ok(()),
        }
    }

    /// States that all files of `entry` have been checked.
    pub(super) fn vouch(&self, entry: &Entry) -> Result<(), HubError> {
        let path = self.folder(entry).join("manifest.json");
        let files = entry.files.iter().map(|file| (file.name.clone(), Stamp::of(file))).collect();
        let text = serde_json::to_vec_pretty(&Manifest { files })
            .map_err(|error| HubError::io("write", &path, error.into()))?;
        let mut whole = Whole::create(&path)?;
        whole.write(&text)?;
        whole.keep()
    }
}

impl Stamp {
    fn of(file: &File) -> Self {
        Self { bytes: file.bytes, sha256: file.sha256.clone() }
    }
}

/// A file that appears under its name only once it is whole and on the disk. Dropped before
/// [`Whole::keep`], it leaves nothing.
#[derive(Debug)]
pub(super) struct Whole {
    path: PathBuf,
    temporary: PathBuf,
    file: Option<fs::File>,
}

impl Whole {
    /// Opens a temporary file in the folder of `path`, so that the rename stays on one disk. The
    /// name is fixed (only the holder of the lock writes), so a killed process leaves at most one.
    pub(super) fn create(path: &Path) -> Result<Self, HubError> {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(|error| HubError::io("create", folder, error))?;
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".partial");
        let temporary = path.with_file_name(name);
        let file = fs::File::create(&temporary)
            .map_err(|error| HubError::io("create", &temporary, error))?;
        Ok(Self { path: path.to_owned(), temporary, file: Some(file) })
    }

    /// Appends.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(bytes).map_err(|error| HubError::io("write", &self.temporary, error))
    }

    /// Gives the file its name.
    pub(super) fn keep(mut self) -> Result<(), HubError> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let kept = file.sync_all().and_then(|()| {
            fs::rename(&self.temporary, &self.path)?;
            sync_folder(&self.path)
        });
        if kept.is_err() {
            // The failure to be told is the first one.
            let _ = fs::remove_file(&self.temporary);
        }
        kept.map_err(|error| HubError::io("write", &self.path, error))
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // What cannot be removed is overwritten by the next attempt.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Makes a rename survive a power cut.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Hash of a file's contents, lower-case hex.
pub(super) fn sha256(path: &Path) -> Result<String, HubError> {
    let read = |error| HubError::io("read", path, error);
    let mut file = fs::File::open(path).map_err(read)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hex(hasher)),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(read(error)),
        }
    }
}

/// Finishes a hash.
pub(super) fn hex(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
