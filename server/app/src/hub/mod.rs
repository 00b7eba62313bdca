//! The hub: a name becomes a file or a folder on disk, fetched on first use.
//!
//! [`resolve`] is all that most callers need. It blocks, and may take minutes.

pub mod cache;
pub mod catalogue;
pub(crate) mod disk;
pub mod error;
mod fetch;
#[cfg(feature = "hf")]
pub mod hf;
pub mod pip;
pub mod progress;
mod wheel;

use std::path::{Path, PathBuf};

pub use cache::Cache;
pub use catalogue::{Catalogue, Entry, Kind};
pub use error::HubError;
pub use pip::Pip;
pub use progress::Progress;

/// The name of the chat model used when none is named.
pub const DEFAULT_MODEL: &str = "smollm2";

/// A name that has become a file or a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Canonical name, or the file's name without its extension, or the folder's name.
    pub name: String,
    /// The file; of a fetched model of several files, the one with the weights; or the folder of a model in
    /// safetensors.
    pub path: PathBuf,
}

/// A catalogue, a cache, and pip between them.
#[derive(Debug, Clone)]
pub struct Hub {
    catalogue: Catalogue,
    cache: Cache,
    pip: Pip,
    progress: Progress,
}

/// Turns the path of a file or a folder, a catalogue name or `hf:ORG/REPO[:FILE]` into what lies on disk, with the cache
/// and the Python the environment names. Fetches on first use; blocks meanwhile.
pub fn resolve(name_or_path: &str) -> Result<Resolved, HubError> {
    Hub::from_env()?.resolve(name_or_path)
}

/// As [`resolve`], for an embedder: a folder, or a catalogue name. The folder it lies in.
pub fn resolve_embedder(name_or_path: &str) -> Result<Resolved, HubError> {
    Hub::from_env()?.resolve_embedder(name_or_path)
}

impl Hub {
    /// The built-in catalogue, and the cache and Python the environment names.
    pub fn from_env() -> Result<Self, HubError> {
        Ok(Self::new(
            Catalogue::builtin()?,
            Cache::from_env()?,
            Pip::from_env(),
            Progress::detect(),
        ))
    }

    /// A hub of these.
    pub fn new(catalogue: Catalogue, cache: Cache, pip: Pip, progress: Progress) -> Self {
        Self { catalogue, cache, pip, progress }
    }

    /// What can be fetched by name.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Where it is kept.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// What fetches it.
    pub fn pip(&self) -> &Pip {
        &self.pip
    }

    /// See [`resolve`]. A file on disk goes before a name of the catalogue, and so does a folder of a model: one that
    /// has a `config.json`, or is named by a file of it.
    pub fn resolve(&self, name_or_path: &str) -> Result<Resolved, HubError> {
        if let Some(repository) = name_or_path.strip_prefix("hf:") {
            return self.resolve_huggingface(repository);
        }
        let path = Path::new(name_or_path);
        if let Some(folder) = pith_model::folder::named_by(path)
            && folder.join("config.json").is_file()
        {
            return Ok(Resolved { name: folder_name(&folder), path: folder });
        }
        if path.is_file() {
            return Ok(Resolved { name: stem(path), path: path.to_owned() });
        }
        match self.catalogue.find(name_or_path) {
            Some(entry) => self.pull(entry),
            None if path.is_dir() => Err(HubError::NoModel(path.to_owned())),
            None if looks_like_a_path(path) => Err(HubError::FileNotFound(path.to_owned())),
            None => Err(self.catalogue.unknown(name_or_path)),
        }
    }

    /// Turns a folder or the name of an embedder into a folder on disk. A folder goes before a name.
    pub fn resolve_embedder(&self, name_or_path: &str) -> Result<Resolved, HubError> {
        let path = Path::new(name_or_path);
        if path.is_dir() {
            return Ok(Resolved { name: folder_name(path), path: path.to_owned() });
        }
        match self.embedder(name_or_path) {
            Some(entry) => Ok(Resolved { path: self.cache.folder(entry), ..self.pull(entry)? }),
            None if looks_like_a_path(path) => Err(HubError::FileNotFound(path.to_owned())),
            None => {
                let embedders = self.catalogue.entries.iter().filter(|e| e.kind == Kind::Embedder);
                let known: Vec<&str> = embedders.map(Entry::short_name).collect();
                let (name, known) = (name_or_path.to_owned(), known.join(", "));
                Err(HubError::UnknownEmbedder { name, known })
            }
        }
    }

    /// Whether [`Hub::resolve_embedder`] would fetch nothing.
    pub fn has_embedder(&self, name_or_path: &str) -> bool {
        Path::new(name_or_path).is_dir()
            || self.embedder(name_or_path).is_some_and(|entry| self.cache.has(entry))
    }

    fn embedder(&self, name: &str) -> Option<&Entry> {
        self.catalogue.find(name).filter(|entry| entry.kind == Kind::Embedder)
    }

    /// Makes sure that `entry` is in the cache, whole.
    pub fn pull(&self, entry: &Entry) -> Result<Resolved, HubError> {
        if !self.cache.has(entry) {
            let Self { cache, pip, progress, .. } = self;
            fetch::Fetch { cache, pip, progress: *progress, entry }.run()?;
        }
        let path = match entry.files.first() {
            Some(file) => self.cache.path(entry, file),
            None => self.cache.folder(entry),
        };
        Ok(Resolved { name: entry.name.clone(), path })
    }

    /// Reads every file of `entry` and compares hashes. One that differs is no longer taken for
    /// whole: the next use fetches it again.
    pub fn verify(&self, entry: &Entry) -> Result<bool, HubError> {
        let whole = self.cache.verify(entry)?.is_none();
        if !whole {
            self.cache.distrust(entry)?;
        }
        Ok(whole)
    }

    #[cfg(feature = "hf")]
    fn resolve_huggingface(&self, repository: &str) -> Result<Resolved, HubError> {
        let name = hf::Name::parse(repository)?;
        let path =
            hf::Fetch { cache: &self.cache, progress: self.progress, endpoint: None }.run(&name)?;
        Ok(Resolved { name: stem(&path), path })
    }

    #[cfg(not(feature = "hf"))]
    fn resolve_huggingface(&self, repository: &str) -> Result<Resolved, HubError> {
        Err(HubError::NoHuggingFace { name: format!("hf:{repository}") })
    }
}

/// The name of a folder, wherever it was named from.
fn folder_name(path: &Path) -> String {
    let named = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let absolute = || path.canonicalize().ok().and_then(|path| named(&path));
    named(path).or_else(absolute).unwrap_or_default()
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Whether somebody who wrote this meant a file.
fn looks_like_a_path(path: &Path) -> bool {
    path.components().count() > 1
        || path.is_absolute()
        || path.exists()
        || path.extension().is_some_and(|extension| {
            ["gguf", "safetensors"].iter().any(|known| extension == *known)
        })
}
