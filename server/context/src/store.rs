//! Stored documents: texts, what was prepared of them, and searches over all of a tenant's.
//!
//! ```text
//! lock                  held by the process that has the folder open
//! store.redb            versions, term statistics, selections, and what every other file must hold
//! documents/TENANT/N    a version's text, or what it was extracted from (`texts`)
//! vectors/TENANT-N.i8   vectors of chunks in eight bits (`vectors`)
//! uploads/N             documents on their way in (`upload`)
//! ```
//!
//! Every change is one transaction of the database (`change`): after a crash at any moment the store holds what was
//! last acknowledged, and files that no transaction knows go when it is opened. Everything is kept by tenant, and
//! hashes are salted with a secret of the tenant, so that equal contents of two tenants have nothing in common.
//! [`Store::check`] walks through everything.
//!
//! Deleting a document removes its files, and with them its words and vectors. What the database held of it (its
//! id, hashes of its terms, selections) stands in freed pages until they are used again.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use redb::{ReadTransaction, ReadableDatabase as _};

mod change;
mod check;
mod codec;
mod counts;
mod database;
mod disk;
mod document;
mod dot;
mod error;
mod postings;
mod search;
mod selections;
mod state;
mod tables;
#[cfg(test)]
mod tests;
mod texts;
mod upload;
mod vectors;

use change::Change;
pub use check::Census;
pub use counts::ModelHash;
use disk::Disk;
pub use document::{
    Chunk, Content, ContentHash, MAX_DIMENSIONS, MAX_ID_BYTES, Original, Page, Put, Stored, Version,
};
pub use error::StoreError;
pub use search::{FusionWeights, Hit, MAX_HITS, Query};
use state::State;
use tables::{TENANTS, Tenant, VERSIONS, VersionRecord};
pub use upload::Upload;

/// The file that is locked.
const LOCK: &str = "lock";
/// Most documents of a page.
pub const MAX_PAGE: usize = 1000;

/// Bounds of a store. Those of a tenant hold for each alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest upload, and largest text, bytes.
    pub document_bytes: u64,
    /// Versions kept of a document; older ones go.
    pub versions: u64,
    /// Documents of a tenant.
    pub tenant_documents: u64,
    /// Bytes of a tenant: texts of all versions with what was prepared of them, uploads, vectors and token counts.
    pub tenant_bytes: u64,
    /// Selections kept of a tenant; older ones go.
    pub selections: u64,
    /// Largest selection, bytes.
    pub selection_bytes: u64,
    /// Length at which a segment of vectors is full, bytes: what a deletion may have to write anew.
    pub segment_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            document_bytes: 64 << 20,
            versions: 8,
            tenant_documents: 1_000_000,
            tenant_bytes: 16 << 30,
            selections: 4096,
            selection_bytes: 1 << 20,
            segment_bytes: 8 << 20,
        }
    }
}

#[derive(Debug)]
struct Inner {
    disk: Disk,
    limits: Limits,
    /// Held by whoever changes something.
    writer: Mutex<()>,
    /// `None` after a failure that the database did not survive, until it could be opened anew.
    state: RwLock<Option<State>>,
    /// Number of the next upload.
    uploads: AtomicU64,
    live_uploads: AtomicU64,
    /// Last, so that the folder is free only when everything is closed.
    _lock: File,
}

/// A store of documents in a folder of its own. Cheap to clone. Every call blocks for as long as the disk takes.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

impl Store {
    /// Opens the store in `folder`, which is made if need be, and takes back what a crash left unfinished.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::Schema`], [`StoreError::Corrupt`] and failures of the disk. A folder
    /// that holds other things and no store is refused.
    pub fn open(folder: &Path, limits: Limits) -> Result<Self, StoreError> {
        Self::open_on(Disk::new(folder), limits)
    }

    fn open_on(disk: Disk, limits: Limits) -> Result<Self, StoreError> {
        disk.create_folder(Path::new(""))?;
        let lock = database::lock(&disk)?;
        if !disk.path(Path::new(database::FILE)).exists()
            && disk
                .list(Path::new(""))?
                .iter()
                .any(|name| name != Path::new(LOCK) && name != Path::new(database::UNFINISHED))
        {
            return Err(StoreError::invalid("folder", "holds other things and no store"));
        }
        let state = State::open(&disk)?;
        for name in disk.list(Path::new(upload::FOLDER))? {
            disk.remove(&name)?;
        }
        Ok(Self(Arc::new(Inner {
            disk,
            limits,
            writer: Mutex::new(()),
            state: RwLock::new(Some(state)),
            uploads: AtomicU64::new(0),
            live_uploads: AtomicU64::new(0),
            _lock: lock,
        })))
    }

    /// Its bounds.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Stores `content` as the next version of `id`. The same content as the latest version makes no new one; if other
    /// things were made of it (by another embedder, say), they take the place of the old. Versions beyond
    /// [`Limits::versions`] go, the oldest first.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is stored then.
    pub fn put(&self, tenant: &str, id: &str, content: &Content) -> Result<Put, StoreError> {
        document::check_id(id)?;
        let limits = &self.0.limits;
        content.check(limits)?;
        let work = |change: &mut Change<'_>| {
            let number = change.tenant.number;
            let mut kept = versions(&change.write.open_table(VERSIONS)?, number, id)?;
            let latest = kept.last().cloned();
            let hash = content.hash(&change.tenant.salt);
            let version = match &latest {
                None => {
                    if change.tenant.documents >= limits.tenant_documents {
                        let limit = limits.tenant_documents;
                        return Err(StoreError::Quota { what: "documents", limit });
                    }
                    change.tenant.documents += 1;
                    1
                }
                Some((version, record)) if record.content == hash => {
                    if record.derived == content.derived_hash() {
                        return Ok(None);
                    }
                    change.purge(id, *version, record, true)?;
                    kept.pop();
                    *version
                }
                Some((version, record)) => {
                    change.supersede(id, *version, record.clone())?;
                    version + 1
                }
            };
            let surplus = (kept.len() as u64 + 1).saturating_sub(limits.versions.max(1));
            for (version, record) in kept.drain(..surplus as usize) {
                change.purge(id, version, &record, false)?;
            }
            let record = change.insert(id, version, content, limits)?;
            let created = latest.is_none_or(|(latest, _)| latest != version);
            Ok(Some((version, record, created)))
        };
        let (stored, purged) = match self.change_and_purge(tenant, work)? {
            Some((stored, purged)) => (Some(stored), purged),
            None => (None, Vec::new()),
        };
        let created = stored.as_ref().is_some_and(|(_, _, created)| *created);
        let number = stored.map(|(version, _, _)| version);
        let version = self.describe(tenant, id, number)?;
        // Gone only if somebody else has deleted it meanwhile.
        let version = version.ok_or_else(|| StoreError::invalid("id", "was deleted meanwhile"))?;
        Ok(Put { version, created, purged })
    }

    /// A version of `id` with its text; the latest if none is named.
    ///
    /// # Errors
    /// [`StoreError`]. That there is none is no error.
    pub fn get(
        &self,
        tenant: &str,
        id: &str,
        version: Option<u64>,
    ) -> Result<Option<Stored>, StoreError> {
        self.find(tenant, id, version, texts::read)
    }

    /// What was uploaded as a version of `id`, byte for byte; the latest if none is named.
    ///
    /// # Errors
    /// [`StoreError`]. That there is none is no error.
    pub fn original(
        &self,
        tenant: &str,
        id: &str,
        version: Option<u64>,
    ) -> Result<Option<(Version, Vec<u8>)>, StoreError> {
        self.find(tenant, id, version, texts::read_original)
    }

    /// As [`Self::get`], without the text.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn describe(
        &self,
        tenant: &str,
        id: &str,
        version: Option<u64>,
    ) -> Result<Option<Version>, StoreError> {
        self.find(tenant, id, version, texts::describe)
    }

    /// Finds a version and what `open` makes of its file.
    fn find<T>(
        &self,
        tenant: &str,
        id: &str,
        version: Option<u64>,
        open: impl Fn(&Disk, u32, &str, u64, &VersionRecord) -> Result<Option<T>, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let mut missing = None;
        loop {
            let found = self.read(|read, _| {
                let Some(tenant) = Tenant::find(&read.open_table(TENANTS)?, tenant)? else {
                    return Ok(None);
                };
                let versions = read.open_table(VERSIONS)?;
                let found = match version {
                    None => VersionRecord::latest(&versions, tenant.number, id)?,
                    Some(version) => match versions.get((tenant.number, id, version))? {
                        None => None,
                        Some(record) => Some((version, VersionRecord::decode(record.value())?)),
                    },
                };
                Ok(found.map(|(version, record)| (tenant.number, version, record)))
            })?;
            let Some((number, version, record)) = found else { return Ok(None) };
            if let Some(found) = open(&self.0.disk, number, id, version, &record)? {
                return Ok(Some(found));
            }
            // Deleted between the two looks, unless the database still knows it.
            if missing.replace(record.file.number) == Some(record.file.number) {
                let mut files = record.files().map(|file| texts::file(number, file.number));
                let lost = files.find(|name| !self.0.disk.path(name).exists());
                let name = lost.unwrap_or_else(|| texts::file(number, record.file.number));
                return Err(StoreError::corrupt(name, "is missing"));
            }
        }
    }

    /// A page of the documents whose ids begin with `prefix`, in order of their ids, from `from` (a [`Page::next`])
    /// on. At most `count` and [`MAX_PAGE`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn list(
        &self,
        tenant: &str,
        prefix: &str,
        from: Option<&str>,
        count: usize,
    ) -> Result<Page, StoreError> {
        let count = count.clamp(1, MAX_PAGE);
        let found = self.read(|read, _| {
            let Some(tenant) = Tenant::find(&read.open_table(TENANTS)?, tenant)? else {
                return Ok(None);
            };
            let versions = read.open_table(VERSIONS)?;
            let start = from.unwrap_or(prefix).max(prefix);
            let mut found: Vec<(String, u64, VersionRecord)> = Vec::new();
            for entry in versions.range((tenant.number, start, 0)..)? {
                let (key, record) = entry?;
                let (number, id, version) = key.value();
                if number != tenant.number || !id.starts_with(prefix) {
                    break;
                }
                let record = VersionRecord::decode(record.value())?;
                // Later versions come later.
                if let Some(last) = found.last_mut().filter(|last| last.0 == id) {
                    (last.1, last.2) = (version, record);
                } else if found.len() > count {
                    break;
                } else {
                    found.push((id.to_owned(), version, record));
                }
            }
            Ok(Some((tenant.number, found)))
        })?;
        let Some((tenant, mut found)) = found else { return Ok(Page::default()) };
        let mut page = Page::default();
        if found.len() > count {
            page.next = found.pop().map(|(id, _, _)| id);
        }
        for (id, version, record) in found {
            // What was deleted meanwhile is not listed.
            page.documents.extend(texts::describe(&self.0.disk, tenant, &id, version, &record)?);
        }
        Ok(page)
    }

    /// Removes every version of `id` and all that came of them. Gives the contents that no document holds any more,
    /// to be purged from caches; `None` if there is no such document.
    ///
    /// # Errors
    /// [`StoreError`]. A file that cannot be removed is named; the document is gone nevertheless, and the file goes
    /// when the store is opened.
    pub fn delete(&self, tenant: &str, id: &str) -> Result<Option<Vec<ContentHash>>, StoreError> {
        let work = |change: &mut Change<'_>| {
            let number = change.tenant.number;
            let kept = versions(&change.write.open_table(VERSIONS)?, number, id)?;
            let Some(last) = kept.len().checked_sub(1) else { return Ok(None) };
            for (at, (version, record)) in kept.into_iter().enumerate() {
                change.purge(id, version, &record, at == last)?;
            }
            change.tenant.documents -= 1;
            Ok(Some(()))
        };
        Ok(self.change_and_purge(tenant, work)?.map(|((), purged)| purged))
    }

    /// Looks at what is committed.
    fn read<T>(
        &self,
        work: impl FnOnce(&ReadTransaction, &State) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let state = self.state()?;
        let Some(state) = &*state else { return Err(closed()) };
        work(&state.database.begin_read()?, state)
    }

    /// Does `work` in one transaction; `None` of it means that there is nothing to change.
    fn change<T>(
        &self,
        tenant: &str,
        work: impl FnOnce(&mut Change<'_>) -> Result<Option<T>, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        Ok(self.change_and_purge(tenant, work)?.map(|(done, _)| done))
    }

    /// As [`Self::change`], and tells which contents went.
    fn change_and_purge<T>(
        &self,
        tenant: &str,
        work: impl FnOnce(&mut Change<'_>) -> Result<Option<T>, StoreError>,
    ) -> Result<Option<(T, Vec<ContentHash>)>, StoreError> {
        let _writer = self.0.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut survived = true;
        let result = {
            let state = self.state()?;
            let Some(state) = &*state else { return Err(closed()) };
            state.change(&self.0.disk, tenant, work, &mut survived)
        };
        if let Err(error) = &result {
            survived &= !error.breaks_database();
        }
        if !survived {
            let mut state = self.0.state.write().unwrap_or_else(PoisonError::into_inner);
            // Closed first. Should it not open, the next call tries again.
            *state = None;
            *state = State::open(&self.0.disk).ok();
        }
        result
    }

    /// What is open; opened anew if the last attempt failed.
    fn state(&self) -> Result<RwLockReadGuard<'_, Option<State>>, StoreError> {
        let state = self.0.state.read().unwrap_or_else(PoisonError::into_inner);
        if state.is_some() {
            return Ok(state);
        }
        drop(state);
        let mut state = self.0.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.is_none() {
            *state = Some(State::open(&self.0.disk)?);
        }
        drop(state);
        Ok(self.0.state.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Every version of a document, oldest first.
fn versions(
    versions: &impl redb::ReadableTable<(u32, &'static str, u64), &'static [u8]>,
    tenant: u32,
    id: &str,
) -> Result<Vec<(u64, VersionRecord)>, StoreError> {
    let mut found = Vec::new();
    for entry in versions.range((tenant, id, 0)..=(tenant, id, u64::MAX))? {
        let (key, record) = entry?;
        found.push((key.value().2, VersionRecord::decode(record.value())?));
    }
    Ok(found)
}

fn closed() -> StoreError {
    StoreError::Database("it could not be opened again after a failure".to_owned())
}

/// Seconds since 1970.
fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

/// A secret nobody can guess.
fn salt() -> Result<[u8; 32], StoreError> {
    use std::io::Read as _;
    let name = "/dev/urandom";
    let mut salt = [0; 32];
    let read = File::open(name).and_then(|mut file| file.read_exact(&mut salt));
    read.map_err(|error| StoreError::io(name, error))?;
    Ok(salt)
}
