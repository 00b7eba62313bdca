//! What can go wrong with `hf:ORG/REPO[:FILE]`, each with what to do about it.

use std::fmt;

/// Files named in a message before the rest is only counted.
const LISTED_FILES: usize = 20;

/// Why `hf:ORG/REPO[:FILE]` did not become a file.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// Not of the form `hf:ORG/REPO[:FILE]`.
    #[error("{0}")]
    Name(&'static str),
    /// The repository has no `.gguf` file.
    #[error("the repository has no .gguf file")]
    NoModel,
    /// The repository has several `.gguf` files and none was named.
    #[error("the repository has several .gguf files: {}", Listed(.0))]
    Several(Vec<String>),
    /// The file named is not among the repository's `.gguf` files.
    #[error("the repository has no such file; it has {}", Listed(.0))]
    NoSuchFile(Vec<String>),
    /// No such repository.
    #[error("no such repository ({said})")]
    NotFound {
        /// What the hub said.
        said: String,
    },
    /// Private, gated, or, to somebody unknown, not there at all: the hub does not tell these apart.
    #[error("the hub denies access: the repository is gated, private or not there ({said})")]
    Denied {
        /// What the hub said.
        said: String,
    },
    /// The hub wants fewer requests.
    #[error("the hub asks to wait ({said})")]
    Busy {
        /// What the hub said.
        said: String,
    },
    /// The hub could not be reached, or fell silent.
    #[error("the hub could not be reached ({said})")]
    Network {
        /// What the network said.
        said: String,
    },
    /// What arrived is not what the hub announced.
    #[error("{file} is not the file announced: {found}, expected {expected}")]
    Changed {
        /// Path in the repository.
        file: String,
        /// Size, or hash.
        expected: String,
        /// Size, or hash.
        found: String,
    },
    /// Any other failure.
    #[error("{said}")]
    Failed {
        /// What the hub, or the crate that talks to it, said.
        said: String,
    },
}

impl Reason {
    /// What to do about it; one line, for people. `name` is as given.
    pub(in crate::hub) fn hint(&self, name: &str) -> String {
        match self {
            Self::Name(_) => {
                "write hf:ORG/REPO, or hf:ORG/REPO:FILE.gguf to name one file of several".to_owned()
            }
            Self::NoModel => {
                "pith reads GGUF files: look for a repository that has them, often ORG/REPO-GGUF"
                    .to_owned()
            }
            Self::Several(files) | Self::NoSuchFile(files) => {
                let repository = name.splitn(3, ':').take(2).collect::<Vec<_>>().join(":");
                let file = files.first().map_or("FILE.gguf", String::as_str);
                format!("name one of them, such as {repository}:{file}")
            }
            Self::NotFound { .. } => "check the spelling of ORG/REPO".to_owned(),
            Self::Denied { .. } => {
                "check the spelling; accept the repository's terms on its page, then set HF_TOKEN to a token that may read it".to_owned()
            }
            Self::Busy { .. } => {
                "wait some minutes and run the same command again; HF_TOKEN raises the limit"
                    .to_owned()
            }
            Self::Network { .. } => {
                "check the network and HTTPS_PROXY, or set HF_ENDPOINT to a mirror; or download the file elsewhere and give its path".to_owned()
            }
            Self::Changed { .. } => {
                "it was removed: run the same command again, the repository may have changed meanwhile".to_owned()
            }
            Self::Failed { .. } => {
                "run the same command again; if it fails again, download the file and give its path"
                    .to_owned()
            }
        }
    }
}

/// Names with commas, the tail of a long list counted.
struct Listed<'a>(&'a [String]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no .gguf file");
        }
        let shown = &self.0[..self.0.len().min(LISTED_FILES)];
        f.write_str(&shown.join(", "))?;
        match self.0.len() - shown.len() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
