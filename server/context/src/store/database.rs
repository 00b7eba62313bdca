//! The database file: opened, its schema checked, its writes counted.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use redb::backends::FileBackend;
use redb::{Builder, Database, ReadableDatabase as _, StorageBackend, WriteTransaction};

use super::StoreError;
use super::disk::Disk;
use super::tables::META;

/// Its name in the store's folder.
pub(super) const FILE: &str = "store.redb";
/// Its name until it has its tables: a crash before that leaves no database.
pub(super) const UNFINISHED: &str = "store.redb.new";
/// Version of everything in the folder. A change of any record, table or file raises it.
pub(super) const SCHEMA: u64 = 2;
/// The oldest that is read. Schema 1 knew neither originals nor token counts; its records read as such without them.
const OLDEST: u64 = 1;
/// Memory for pages read; the system keeps others.
const CACHE_BYTES: usize = 64 << 20;

/// Opens the database, or makes it. One of an older schema becomes one of this; nothing is written to one that is not
/// read.
pub(super) fn open(disk: &Disk) -> Result<Database, StoreError> {
    if !disk.path(Path::new(FILE)).exists() {
        disk.remove(Path::new(UNFINISHED))?;
        let database = open_file(disk, UNFINISHED)?;
        let write = begin_write(&database)?;
        write.open_table(META)?.insert("schema", SCHEMA)?;
        super::tables::create(&write)?;
        write.commit()?;
        drop(database);
        disk.rename(Path::new(UNFINISHED), Path::new(FILE))?;
    }
    let database = open_file(disk, FILE)?;
    let found = match database.begin_read()?.open_table(META) {
        Ok(meta) => meta.get("schema")?.map_or(0, |schema| schema.value()),
        Err(_) => 0,
    };
    if !(OLDEST..=SCHEMA).contains(&found) {
        return Err(StoreError::Schema { found, expected: SCHEMA });
    }
    if found < SCHEMA {
        let write = begin_write(&database)?;
        super::tables::create(&write)?;
        write.open_table(META)?.insert("schema", SCHEMA)?;
        write.commit()?;
    }
    Ok(database)
}

fn open_file(disk: &Disk, name: &str) -> Result<Database, StoreError> {
    let open = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(disk.path(Path::new(name)));
    let file = FileBackend::new(open.map_err(|error| StoreError::io(name, error))?)?;
    let backend = Backend { file, disk: disk.clone() };
    Ok(Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(backend)?)
}

/// A transaction whose commit keeps what opening after a crash needs, which otherwise would read everything.
pub(super) fn begin_write(database: &Database) -> Result<WriteTransaction, StoreError> {
    let mut write = database.begin_write()?;
    write.set_quick_repair(true);
    Ok(write)
}

/// Holds the folder, until dropped.
pub(super) fn lock(disk: &Disk) -> Result<File, StoreError> {
    let name = Path::new(super::LOCK);
    let wrong = |error| StoreError::io(name, error);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(disk.path(name))
        .map_err(wrong)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(StoreError::InUse { folder: disk.root().to_owned() })
        }
        Err(std::fs::TryLockError::Error(error)) => Err(wrong(error)),
    }
}

/// The file, with writes that ask the disk first. It needs no lock of its own: the folder has one.
#[derive(Debug)]
struct Backend {
    file: FileBackend,
    disk: Disk,
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.spend(data.len())?;
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}
