//! Why a model cannot be used.

/// Why a model cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// Reading failed.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The file breaks its format.
    #[error("not a valid model file: {0}")]
    Invalid(String),
    /// The file is sound but asks for something pith does not know.
    #[error("unsupported model: {0}")]
    Unsupported(String),
}
