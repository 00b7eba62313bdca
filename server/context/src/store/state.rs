//! What is open: the database and the vectors in memory.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use redb::{Database, ReadableDatabase as _, ReadableTable as _};

use super::change::{Change, Files};
use super::disk::Disk;
use super::document::ContentHash;
use super::tables::{SEGMENTS, SegmentRecord, TENANTS, VERSIONS, VersionRecord};
use super::vectors::{self, Segment};
use super::{StoreError, database, texts, upload};

/// A tenant's segments by number.
pub(super) type Segments = BTreeMap<u64, Arc<Segment>>;

/// What is open.
#[derive(Debug)]
pub(super) struct State {
    pub(super) database: Database,
    /// Vectors by tenant. A search takes its own copy of the map's handles and holds no lock.
    vectors: RwLock<HashMap<u32, Segments>>,
}

impl State {
    /// Opens what is in the folder and removes what no transaction knows.
    pub(super) fn open(disk: &Disk) -> Result<Self, StoreError> {
        let database = database::open(disk)?;
        for folder in [texts::FOLDER, vectors::FOLDER, upload::FOLDER] {
            disk.create_folder(Path::new(folder))?;
        }
        let read = database.begin_read()?;
        let mut files = HashSet::new();
        for entry in read.open_table(VERSIONS)?.iter()? {
            let (key, record) = entry?;
            let record = VersionRecord::decode(record.value())?;
            files.extend(record.files().map(|file| texts::file(key.value().0, file.number)));
        }
        let mut vectors: HashMap<u32, Segments> = HashMap::new();
        for entry in read.open_table(SEGMENTS)?.iter()? {
            let (key, record) = entry?;
            let (tenant, number) = key.value();
            let name = vectors::file(tenant, number);
            let segment =
                Segment::read(disk, &name, &SegmentRecord::decode(record.value())?, true)?;
            vectors.entry(tenant).or_default().insert(number, Arc::new(segment));
            files.insert(name);
        }
        for name in orphans(disk, &files)? {
            disk.remove(&name)?;
        }
        Ok(Self { database, vectors: RwLock::new(vectors) })
    }

    /// See [`Store::change_and_purge`]. `survived` becomes false where nobody knows what is committed.
    pub(super) fn change<T>(
        &self,
        disk: &Disk,
        tenant: &str,
        work: impl FnOnce(&mut Change<'_>) -> Result<Option<T>, StoreError>,
        survived: &mut bool,
    ) -> Result<Option<(T, Vec<ContentHash>)>, StoreError> {
        let write = database::begin_write(&self.database)?;
        let record = Change::tenant(&write, tenant)?;
        let segments = self.segments(record.number);
        let mut change = Change {
            write: &write,
            tenant: record,
            segments,
            files: Files::new(disk.clone()),
            purged: Vec::new(),
        };
        let Some(done) = work(&mut change)? else { return Ok(None) };
        let Change { tenant: record, segments, mut files, purged, .. } = change;
        write.open_table(TENANTS)?.insert(tenant, record.encode().as_slice())?;
        let committed = write.commit();
        files.keep();
        if let Err(error) = committed {
            *survived = false;
            return Err(error.into());
        }
        let mut vectors = self.vectors.write().unwrap_or_else(PoisonError::into_inner);
        vectors.insert(record.number, segments);
        drop(vectors);
        files.sweep()?;
        Ok(Some((done, purged)))
    }

    /// A tenant's vectors as they are now.
    pub(super) fn segments(&self, tenant: u32) -> Segments {
        let vectors = self.vectors.read().unwrap_or_else(PoisonError::into_inner);
        vectors.get(&tenant).cloned().unwrap_or_default()
    }
}

/// Files named as the store names them that are not among `known`.
pub(super) fn orphans(disk: &Disk, known: &HashSet<PathBuf>) -> Result<Vec<PathBuf>, StoreError> {
    let mut found = disk.list(Path::new(vectors::FOLDER))?;
    found.retain(|name| vectors::is_ours(name));
    for folder in disk.list(Path::new(texts::FOLDER))? {
        if texts::is_ours(&folder) {
            found.extend(disk.list(&folder)?.into_iter().filter(|name| texts::is_ours(name)));
        }
    }
    found.retain(|name| !known.contains(name));
    Ok(found)
}
