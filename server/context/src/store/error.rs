//! Why the store could not do what was asked.

use std::io;
use std::path::{Path, PathBuf};

use super::database;

/// Why the store could not do what was asked. Files are named from the store's folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process (or another handle of this one) has the folder open.
    #[error("the store {folder} is in use by another process")]
    InUse {
        /// The store's folder.
        folder: PathBuf,
    },
    /// The folder was written by another release. It is left as it is.
    #[error(
        "the store has schema version {found}, this release reads versions up to {expected}: serve it with the release that wrote it, or name another folder"
    )]
    Schema {
        /// What the folder says.
        found: u64,
        /// The latest that is known here.
        expected: u64,
    },
    /// What was committed is no longer what the file holds.
    #[error("{file}: {what}")]
    Corrupt {
        /// Which.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A document is larger than [`Limits::document_bytes`](super::Limits::document_bytes).
    #[error("the document has more than {limit} bytes")]
    TooLarge {
        /// Most bytes.
        limit: u64,
    },
    /// The tenant has no room for it.
    #[error("the tenant may store at most {limit} {what}")]
    Quota {
        /// "bytes" or "documents".
        what: &'static str,
        /// Most of them.
        limit: u64,
    },
    /// The disk is full; nothing was stored.
    #[error("{file}: the disk is full")]
    Full {
        /// What could not be written.
        file: PathBuf,
    },
    /// What is to be stored contradicts itself.
    #[error("{field} {message}")]
    Invalid {
        /// Name of the argument.
        field: &'static str,
        /// What is wrong with it, to be read after the field's name.
        message: String,
    },
    /// Reading or writing failed; nothing was stored.
    #[error("{file}: {source}")]
    Io {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The database failed otherwise.
    #[error("the database failed: {0}")]
    Database(String),
}

impl StoreError {
    /// `source` on `file`; a full disk by its own name.
    pub(super) fn io(file: impl AsRef<Path>, source: io::Error) -> Self {
        let file = file.as_ref().to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { file },
            _ => Self::Io { file, source },
        }
    }

    pub(super) fn corrupt(file: impl AsRef<Path>, what: impl Into<String>) -> Self {
        Self::Corrupt { file: file.as_ref().to_owned(), what: what.into() }
    }

    pub(super) fn invalid(field: &'static str, message: impl Into<String>) -> Self {
        Self::Invalid { field, message: message.into() }
    }

    /// Whether the database takes no more calls until it is opened anew.
    pub(super) fn breaks_database(&self) -> bool {
        match self {
            Self::Full { file } | Self::Io { file, .. } => file == Path::new(database::FILE),
            Self::Database(_) => true,
            _ => false,
        }
    }
}

impl From<redb::Error> for StoreError {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(source) => Self::io(database::FILE, source),
            redb::Error::Corrupted(what) => Self::corrupt(database::FILE, what),
            other => Self::Database(other.to_string()),
        }
    }
}

macro_rules! from_redb {
    ($($kind:ident),*) => {$(
        impl From<redb::$kind> for StoreError {
            fn from(error: redb::$kind) -> Self {
                redb::Error::from(error).into()
            }
        }
    )*};
}
from_redb!(StorageError, TableError, TransactionError, CommitError, DatabaseError);
