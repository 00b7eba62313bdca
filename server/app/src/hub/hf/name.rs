//! `ORG/REPO[:FILE]`, taken apart and checked: its parts become folders of the cache and parts of
//! addresses.

use super::Reason;
use crate::hub::HubError;

/// Longest ORG or REPO the hub has, bytes.
const PART_BYTES: usize = 96;
/// Longest FILE taken, bytes.
const FILE_BYTES: usize = 512;

/// A repository, and maybe one file of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// Who it belongs to.
    pub org: String,
    /// What it is called.
    pub repo: String,
    /// Path of a file in it, forward slashes.
    pub file: Option<String>,
}

impl Name {
    /// Takes `ORG/REPO[:FILE]` apart.
    pub fn parse(text: &str) -> Result<Self, HubError> {
        let refuse = |why| {
            Err(HubError::HuggingFace { name: format!("hf:{text}"), reason: Reason::Name(why) })
        };
        let (repository, file) = match text.split_once(':') {
            Some((repository, file)) => (repository, Some(file)),
            None => (text, None),
        };
        let Some((org, repo)) = repository.split_once('/') else {
            return refuse("a repository is named ORG/REPO");
        };
        if !is_part(org) || !is_part(repo) {
            return refuse("ORG and REPO consist of letters, digits and single - _ . between them");
        }
        if file.is_some_and(|file| !is_model_path(file)) {
            return refuse("FILE must be a plain path in the repository that ends in .gguf");
        }
        Ok(Self { org: org.to_owned(), repo: repo.to_owned(), file: file.map(str::to_owned) })
    }
}

/// As it was given.
impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "hf:{}/{}", self.org, self.repo)?;
        self.file.iter().try_for_each(|file| write!(f, ":{file}"))
    }
}

/// The hub's own rules for ORG and REPO. That no part holds `--` keeps `ORG--REPO` unambiguous.
fn is_part(part: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let edge =
        |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    part.len() <= PART_BYTES
        && part.bytes().all(plain)
        && edge(part.bytes().next())
        && edge(part.bytes().last())
        && !part.contains("--")
        && !part.contains("..")
}

/// Whether `path` names a model file and stays inside the folder it is joined to, on any system.
pub(super) fn is_model_path(path: &str) -> bool {
    let plain = |part: &str| {
        // Leading dots are hidden files, `.` and `..`; a colon is a drive or a stream elsewhere.
        !part.is_empty()
            && !part.starts_with('.')
            && !part.contains(|c: char| c.is_control() || matches!(c, '\\' | ':'))
    };
    path.len() <= FILE_BYTES
        && path.split('/').all(plain)
        && path.rsplit_once('.').is_some_and(|(stem, extension)| {
            !stem.is_empty() && !stem.ends_with('/') && extension.eq_ignore_ascii_case("gguf")
        })
}
