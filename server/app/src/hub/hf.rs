//! `hf:ORG/REPO[:FILE]`: one GGUF file out of a repository of the Hugging Face hub.
//!
//! Nothing pins these files as the catalogue pins its own: what is checked is that the file that
//! arrived has the size and the hash the hub announces. `HF_TOKEN`, `HF_ENDPOINT` and the proxy
//! variables mean what they mean to the hf-hub crate, which does the talking.

mod name;
mod reason;
mod remote;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};

pub use name::Name;
pub use reason::Reason;
use remote::{Arrived, Remote, RemoteFile};

use super::cache::{Cache, sha256, sync_folder};
use super::error::HubError;
use super::fetch::{check_room, hold, remove};
use super::progress::Progress;

/// What a fetch from the hub works with.
#[derive(Debug)]
pub(super) struct Fetch<'a> {
    pub(super) cache: &'a Cache,
    pub(super) progress: Progress,
    /// Instead of the one the environment or the crate names.
    pub(super) endpoint: Option<&'a str>,
}

impl Fetch<'_> {
    /// Where the file of that name lies, fetched if it is not there yet. With no FILE given, the
    /// only one of that repository in the cache is meant, and only then the hub is asked.
    pub(super) fn run(&self, name: &Name) -> Result<PathBuf, HubError> {
        if let Some(path) = self.cached(name) {
            return Ok(path);
        }
        let lock = format!("{}--{}", name.org, name.repo);
        let lock = self.partial().join("locks").join(lock);
        let _lock = hold(&lock, &name.to_string(), self.progress)?;
        // Another process may have finished it while we waited.
        if let Some(path) = self.cached(name) {
            return Ok(path);
        }
        self.progress.say(&format!("{name}: licence and terms are those of the repository"));
        let remote = Remote { name, folder: self.partial(), endpoint: self.endpoint };
        let file = choose(name, remote.list()?)?;
        let to = self.folder(name).join(&file.path);
        if !to.is_file() {
            check_room(self.cache.root(), file.bytes)?;
            let meter = self.progress.start(&format!("fetching {}", file.path), file.bytes);
            let arrived = remote.download(&file, &meter)?;
            let kept = keep(name, &file, &arrived, &to);
            // Of no use any more: it has moved, or it is not what it should be.
            let removed = remove(&remote.storage());
            kept?;
            removed?;
            meter.done();
        }
        Ok(to)
    }

    fn cached(&self, name: &Name) -> Option<PathBuf> {
        let folder = self.folder(name);
        match &name.file {
            Some(file) => Some(folder.join(file)).filter(|path| path.is_file()),
            None => {
                let mut found = Vec::new();
                collect_models(&folder, &mut found);
                found.pop().filter(|_| found.is_empty())
            }
        }
    }

    fn folder(&self, name: &Name) -> PathBuf {
        self.cache.root().join("models/hf").join(&name.org).join(&name.repo)
    }

    fn partial(&self) -> PathBuf {
        self.cache.root().join("partial/hf")
    }
}

/// The one file that `name` means.
fn choose(name: &Name, mut files: Vec<RemoteFile>) -> Result<RemoteFile, HubError> {
    files.retain(|file| name::is_model_path(&file.path));
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let paths = |files: &[RemoteFile]| files.iter().map(|file| file.path.clone()).collect();
    let reason = match &name.file {
        Some(wanted) => match files.iter().position(|file| file.path == *wanted) {
            Some(index) => return Ok(files.swap_remove(index)),
            None => Reason::NoSuchFile(paths(&files)),
        },
        None => match files.pop() {
            None => Reason::NoModel,
            Some(only) if files.is_empty() => return Ok(only),
            Some(last) => {
                files.push(last);
                Reason::Several(paths(&files))
            }
        },
    };
    Err(HubError::HuggingFace { name: name.to_string(), reason })
}

/// Checks what arrived against what was announced and gives it its final name. Both lie on one
/// disk, so the rename is atomic.
fn keep(name: &Name, file: &RemoteFile, arrived: &Arrived, to: &Path) -> Result<(), HubError> {
    let changed = |expected: String, found: String| HubError::HuggingFace {
        name: name.to_string(),
        reason: Reason::Changed { file: file.path.clone(), expected, found },
    };
    let from = &arrived.path;
    let opened = fs::File::open(from).map_err(|error| HubError::io("read", from, error))?;
    let metadata = opened.metadata().map_err(|error| HubError::io("read", from, error))?;
    if metadata.len() != file.bytes {
        return Err(changed(format!("{} bytes", file.bytes), format!("{} bytes", metadata.len())));
    }
    if let Some(expected) = file.sha256.as_ref().or(arrived.sha256.as_ref()) {
        let found = sha256(from)?;
        if found != *expected {
            return Err(changed(format!("sha256 {expected}"), format!("sha256 {found}")));
        }
    }
    opened.sync_all().map_err(|error| HubError::io("write", from, error))?;
    let folder = to.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|error| HubError::io("create", folder, error))?;
    fs::rename(from, to)
        .and_then(|()| sync_folder(to))
        .map_err(|error| HubError::io("write", to, error))
}

/// Model files under `folder`; none where it cannot be read.
fn collect_models(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect_models(&path, found);
        } else if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) {
            found.push(path);
        }
    }
}
