//! The hub's side of a fetch: what a repository holds, and one file of it, through the hf-hub crate.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hf_hub::progress::{DownloadEvent, ProgressEvent, ProgressHandler};
use hf_hub::repository::RepoTreeEntry;
use hf_hub::{HFClient, HFError, HFRepository, RepoTypeModel};
use tokio_stream::StreamExt as _;

use super::{Name, Reason};
use crate::hub::HubError;
use crate::hub::progress::Meter;

/// Longest wait for the list of files. The system's own wait for a network that swallows packets
/// is minutes, once for every attempt.
const LIST_PATIENCE: Duration = Duration::from_secs(25);
/// Longest time a download may bring nothing.
const STALL_PATIENCE: Duration = Duration::from_secs(60);
/// How often progress is shown and looked after.
const TICK: Duration = Duration::from_millis(200);
/// Attempts after the first, per request; their pauses add up to at most 1.4 s.
const RETRIES: usize = 3;
/// Length of a sha256 in hex. Etags of files in git itself are shorter.
const SHA256_DIGITS: usize = 64;

/// A repository on the hub.
#[derive(Debug)]
pub(super) struct Remote<'a> {
    pub(super) name: &'a Name,
    /// Where the crate keeps what it is about.
    pub(super) folder: PathBuf,
    pub(super) endpoint: Option<&'a str>,
}

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RemoteFile {
    /// Path in the repository.
    pub(super) path: String,
    pub(super) bytes: u64,
    /// Hex, if the list tells it.
    pub(super) sha256: Option<String>,
}

/// A file that came down.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) path: PathBuf,
    /// Hex, if its etag tells it: large files are named by their hash.
    pub(super) sha256: Option<String>,
}

impl Remote<'_> {
    /// All files of the repository's main branch.
    pub(super) fn list(&self) -> Result<Vec<RemoteFile>, HubError> {
        self.ask(async |repository| {
            let listed = async {
                let mut entries = pin!(repository.list_tree().recursive(true).send()?);
                let mut files = Vec::new();
                while let Some(entry) = entries.next().await {
                    if let RepoTreeEntry::File { path, size, lfs, .. } = entry? {
                        files.push(RemoteFile {
                            path,
                            bytes: size,
                            sha256: lfs.and_then(|lfs| lfs.sha256).and_then(|hash| digest(&hash)),
                        });
                    }
                }
                Ok::<_, HFError>(files)
            };
            match tokio::time::timeout(LIST_PATIENCE, listed).await {
                Ok(listed) => listed.map_err(|error| self.failure(error)),
                Err(_) => Err(self.silent(LIST_PATIENCE)),
            }
        })
    }

    /// Brings `file` into the crate's storage.
    pub(super) fn download(&self, file: &RemoteFile, meter: &Meter) -> Result<Arrived, HubError> {
        let pointer = self.ask(async |repository| {
            let count = Arc::new(Count::default());
            let request = repository.download_file().filename(&file.path);
            let mut download = pin!(request.progress(Arc::clone(&count)).send());
            let (mut before, mut since) = (0, Instant::now());
            loop {
                if let Ok(done) = tokio::time::timeout(TICK, download.as_mut()).await {
                    return done.map_err(|error| self.failure(error));
                }
                let bytes = count.0.load(Ordering::Relaxed);
                meter.at(bytes);
                if bytes != before {
                    (before, since) = (bytes, Instant::now());
                } else if since.elapsed() > STALL_PATIENCE {
                    return Err(self.silent(STALL_PATIENCE));
                }
            }
        })?;
        // The crate answers with a link to a file that is named by its etag.
        let resolve =
            |path: &Path| fs::canonicalize(path).map_err(|e| HubError::io("read", path, e));
        let path = resolve(&pointer)?;
        if !path.starts_with(resolve(&self.folder)?) {
            let said = format!("the file was put outside {}", self.folder.display());
            return Err(self.refuse(Reason::Failed { said }));
        }
        let sha256 = path.file_name().and_then(|name| digest(name.to_str()?));
        Ok(Arrived { path, sha256 })
    }

    /// The crate's folder for this repository.
    pub(super) fn storage(&self) -> PathBuf {
        self.folder.join(format!("models--{}--{}", self.name.org, self.name.repo))
    }

    /// Works with the repository on a thread of its own: callers may be inside a runtime or not.
    fn ask<T: Send>(
        &self,
        work: impl AsyncFnOnce(HFRepository<RepoTypeModel>) -> Result<T, HubError> + Send,
    ) -> Result<T, HubError> {
        let ask = || {
            let failed = |error: io::Error| self.refuse(Reason::Failed { said: error.to_string() });
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(failed)?;
            let answer = runtime.block_on(async {
                // Here, as connections end with the runtime that opened them.
                let client = self.client().map_err(|error| self.failure(error))?;
                work(client.model(&self.name.org, &self.name.repo)).await
            });
            // Names are looked up on threads that cannot be stopped; nobody waits for them.
            runtime.shutdown_background();
            answer
        };
        thread::scope(|scope| scope.spawn(ask).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn client(&self) -> Result<HFClient, HFError> {
        let builder = HFClient::builder()
            .cache_dir(&self.folder)
            .user_agent(concat!("pith/", env!("CARGO_PKG_VERSION")))
            .retry_max_attempts(RETRIES);
        match self.endpoint {
            Some(endpoint) => builder.endpoint(endpoint).build(),
            None => builder.build(),
        }
    }

    fn refuse(&self, reason: Reason) -> HubError {
        HubError::HuggingFace { name: self.name.to_string(), reason }
    }

    fn silent(&self, patience: Duration) -> HubError {
        self.refuse(Reason::Network { said: format!("nothing came for {} s", patience.as_secs()) })
    }

    /// Sorts what the crate says.
    fn failure(&self, error: HFError) -> HubError {
        if let Some(kind) = disk_trouble(&error) {
            return HubError::io("write", &self.folder, kind.into());
        }
        let said = causes(&error);
        self.refuse(match error {
            HFError::AuthRequired { .. } | HFError::Forbidden { .. } => Reason::Denied { said },
            HFError::RepoNotFound { .. }
            | HFError::EntryNotFound { .. }
            | HFError::RevisionNotFound { .. } => Reason::NotFound { said },
            HFError::RateLimited { .. } => Reason::Busy { said },
            HFError::Http { context } => match context.status.as_u16() {
                401 | 403 => Reason::Denied { said },
                404 => Reason::NotFound { said },
                429 | 503 => Reason::Busy { said },
                _ => Reason::Failed { said },
            },
            HFError::Request { source, .. } if !source.is_builder() && !source.is_decode() => {
                Reason::Network { said }
            }
            HFError::Io(source) => return HubError::io("write", &self.folder, source),
            _ => Reason::Failed { said },
        })
    }
}

/// Bytes that have come so far.
#[derive(Debug, Default)]
struct Count(AtomicU64);

impl ProgressHandler for Count {
    fn on_progress(&self, event: &ProgressEvent) {
        let bytes = match event {
            ProgressEvent::Download(DownloadEvent::Progress { files }) => {
                files.iter().map(|file| file.bytes_completed).max().unwrap_or(0)
            }
            ProgressEvent::Download(DownloadEvent::AggregateProgress {
                bytes_completed, ..
            }) => *bytes_completed,
            _ => return,
        };
        self.0.fetch_max(bytes, Ordering::Relaxed);
    }
}

/// A sha256 in lower-case hex, if `text` is one.
fn digest(text: &str) -> Option<String> {
    (text.len() == SHA256_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .then(|| text.to_ascii_lowercase())
}

/// A full disk or a folder not ours, however deep below `error`.
fn disk_trouble(error: &HFError) -> Option<io::ErrorKind> {
    chain(error).find_map(|cause| {
        let kind = cause.downcast_ref::<io::Error>()?.kind();
        matches!(
            kind,
            io::ErrorKind::StorageFull
                | io::ErrorKind::QuotaExceeded
                | io::ErrorKind::FileTooLarge
                | io::ErrorKind::ReadOnlyFilesystem
        )
        .then_some(kind)
    })
}

/// What `error` says and why, outermost first, each only once.
fn causes(error: &HFError) -> String {
    let mut said = String::new();
    for cause in chain(error).map(ToString::to_string) {
        if said.is_empty() {
            said = cause;
        } else if !said.contains(&cause) {
            said = format!("{said}: {cause}");
        }
    }
    said
}

fn chain<'a>(error: &'a HFError) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error as &'a (dyn Error + 'static)), |error| (*error).source())
}
