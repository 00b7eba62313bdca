//! Compiled kernels on disk, so that a machine compiles each but once.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest as _, Sha256};

/// Bytes of the digest that a file begins with, of what follows it.
const DIGEST: usize = 32;

/// A folder with a file for each thing compiled, named by a digest of all that it was compiled from.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    folder: PathBuf,
}

/// Names what was compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key(String);

impl Key {
    /// Of `parts`: whatever the compiled code depends on.
    pub(super) fn of(parts: &[&str]) -> Self {
        let mut digest = Sha256::new();
        for part in parts {
            // Lengths keep apart what only reads alike in one piece.
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part.as_bytes());
        }
        Self(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl Cache {
    pub(super) fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// `$PITH_HOME/kernels`, else `$XDG_CACHE_HOME/pith/kernels`, else `$HOME/.cache/pith/kernels`; none where none of them
    /// is set.
    pub(super) fn from_env() -> Option<Self> {
        let folder = |name: &str| {
            std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
        };
        let home = folder("PITH_HOME")
            .or_else(|| Some(folder("XDG_CACHE_HOME")?.join("pith")))
            .or_else(|| Some(folder("HOME")?.join(".cache/pith")))?;
        Some(Self::at(home.join("kernels")))
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.folder.join(format!("{}.cubin", key.0))
    }

    /// What was kept under `key`; none too if the file is not what was written.
    pub(super) fn get(&self, key: &Key) -> Option<Vec<u8>> {
        let mut bytes = fs::read(self.path(key)).ok()?;
        let (digest, content) = bytes.split_at_checked(DIGEST)?;
        if Sha256::digest(content).as_slice() != digest {
            return None;
        }
        bytes.drain(..DIGEST);
        Some(bytes)
    }

    /// Keeps `content`. A reader sees all of it or nothing, whoever else writes.
    pub(super) fn put(&self, key: &Key, content: &[u8]) -> io::Result<()> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        fs::create_dir_all(&self.folder)?;
        let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let partial = self.folder.join(format!("{}.{process}.{number}.partial", key.0));
        let written = write(&partial, content).and_then(|()| fs::rename(&partial, self.path(key)));
        if written.is_err() {
            // What cannot be written can seldom be removed, and does no harm.
            let _ = fs::remove_file(&partial);
        }
        written
    }
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = fs::File::create_new(path)?;
    file.write_all(Sha256::digest(content).as_slice())?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_got() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().join("deep/inside"));
        let key = Key::of(&["source", "sm_90a"]);
        assert_eq!(cache.get(&key), None);
        for content in [&b"first"[..], b"", b"second"] {
            cache.put(&key, content).unwrap();
            assert_eq!(cache.get(&key).unwrap(), content);
        }
        assert_eq!(cache.get(&Key::of(&["source", "sm_80"])), None);
        // Nothing but the one file is left.
        assert_eq!(fs::read_dir(folder.path().join("deep/inside")).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_file_is_as_good_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, key) = (Cache::at(folder.path()), Key::of(&["source"]));
        cache.put(&key, b"machine code").unwrap();
        let whole = fs::read(cache.path(&key)).unwrap();
        for length in 0..whole.len() {
            fs::write(cache.path(&key), &whole[..length]).unwrap();
            assert_eq!(cache.get(&key), None, "{length} bytes");
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(cache.path(&key), damaged).unwrap();
            assert_eq!(cache.get(&key), None, "byte {at}");
        }
        cache.put(&key, b"machine code").unwrap();
        assert_eq!(cache.get(&key).unwrap(), b"machine code");
    }

    #[test]
    fn parts_are_kept_apart() {
        assert_ne!(Key::of(&["ab", "c"]), Key::of(&["a", "bc"]));
        assert_ne!(Key::of(&["abc"]), Key::of(&["abc", ""]));
        assert_eq!(Key::of(&["a", "b"]), Key::of(&["a", "b"]));
    }

    #[test]
    fn writers_do_not_disturb_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, key) = (Cache::at(folder.path()), Key::of(&["source"]));
        let content = vec![7u8; 100_000];
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        cache.put(&key, &content).unwrap();
                        assert_eq!(cache.get(&key).as_deref(), Some(&content[..]));
                    }
                });
            }
        });
    }
}
