//! A walk through everything that is stored.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use redb::{ReadTransaction, ReadableTable as _, ReadableTableMetadata as _};

use super::document::ContentHash;
use super::postings::{self, BLOCK};
use super::state::{State, orphans};
use super::tables::{
    CONTENTS, COUNTS, EXTENTS, Extent, POSTINGS, SEGMENTS, SELECTION_AGES, SELECTION_CONTENTS,
    SELECTIONS, SegmentRecord, Selection, TENANTS, TERMS, Tenant, VERSIONS, VersionRecord,
};
use super::vectors::{self, Segment};
use super::{Store, StoreError, database, texts, upload};

/// What a store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Census {
    /// Tenants that have ever stored anything.
    pub tenants: u64,
    /// Documents.
    pub documents: u64,
    /// Their versions.
    pub versions: u64,
    /// Chunks of latest versions.
    pub chunks: u64,
    /// Vectors of those.
    pub vectors: u64,
    /// Terms in chunks, each once.
    pub postings: u64,
    /// Selections.
    pub selections: u64,
    /// Token counts, of each content and model.
    pub counts: u64,
}

/// A latest version as search knows it.
struct Latest {
    id: String,
    version: u64,
    chunks: u64,
    vectors: u64,
    /// Terms of its chunks as its postings have them.
    terms: u64,
    found_vectors: u64,
    found_terms: BTreeSet<u64>,
}

impl Store {
    /// Reads everything and compares each part with what the others say of it: every file, checksum, counter,
    /// posting, vector and selection belongs to a stored document, and no file is left over. Changes wait until it
    /// is done.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] names the first contradiction.
    pub fn check(&self) -> Result<Census, StoreError> {
        let _writer = self.0.writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.read(|read, state| {
            let mut walk = Walk { store: self, read, state, census: Census::default() };
            walk.files()?;
            let tenants = read.open_table(TENANTS)?;
            let mut numbers = BTreeSet::new();
            for entry in tenants.iter()? {
                let tenant = Tenant::decode(entry?.1.value())?;
                if !numbers.insert(tenant.number) {
                    return wrong("two tenants have one number");
                }
                walk.tenant(&tenant)?;
            }
            walk.census.tenants = numbers.len() as u64;
            walk.strangers(&numbers)?;
            Ok(walk.census)
        })
    }
}

fn wrong<T>(what: impl Into<String>) -> Result<T, StoreError> {
    Err(StoreError::corrupt(database::FILE, what))
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, said: T, is: T) -> Result<(), StoreError> {
    if said == is { Ok(()) } else { wrong(format!("{what}: {said:?} recorded, {is:?} found")) }
}

struct Walk<'a> {
    store: &'a Store,
    read: &'a ReadTransaction,
    state: &'a State,
    census: Census,
}

impl Walk<'_> {
    /// No file that nobody knows.
    fn files(&self) -> Result<(), StoreError> {
        let disk = &self.store.0.disk;
        let mut known: HashSet<PathBuf> = HashSet::new();
        for entry in self.read.open_table(VERSIONS)?.iter()? {
            let (key, record) = entry?;
            let record = VersionRecord::decode(record.value())?;
            known.extend(record.files().map(|file| texts::file(key.value().0, file.number)));
        }
        for entry in self.read.open_table(SEGMENTS)?.iter()? {
            let (tenant, number) = entry?.0.value();
            known.insert(vectors::file(tenant, number));
        }
        if let Some(name) = orphans(disk, &known)?.first() {
            return Err(StoreError::corrupt(name, "belongs to nothing"));
        }
        let uploads = disk.list(Path::new(upload::FOLDER))?;
        if uploads.len() as u64 > self.store.0.live_uploads.load(Ordering::Acquire) {
            return Err(StoreError::corrupt(&uploads[0], "is left over"));
        }
        Ok(())
    }

    /// No row of a tenant that does not exist.
    fn strangers(&self, tenants: &BTreeSet<u32>) -> Result<(), StoreError> {
        let census = &self.census;
        let rows = |table: &str, counted: u64, rows: u64| expect(table, counted, rows);
        rows("versions", census.versions, self.read.open_table(VERSIONS)?.len()?)?;
        rows("selections", census.selections, self.read.open_table(SELECTIONS)?.len()?)?;
        rows("counts", census.counts, self.read.open_table(COUNTS)?.len()?)?;
        let strange = |number: u32| !tenants.contains(&number);
        for entry in self.read.open_table(POSTINGS)?.iter()? {
            if strange(entry?.0.value().0) {
                return wrong("a posting of no tenant");
            }
        }
        for entry in self.read.open_table(EXTENTS)?.iter()? {
            if strange(entry?.0.value().0) {
                return wrong("an extent of no tenant");
            }
        }
        for entry in self.read.open_table(SEGMENTS)?.iter()? {
            if strange(entry?.0.value().0) {
                return wrong("a segment of no tenant");
            }
        }
        Ok(())
    }

    fn tenant(&mut self, tenant: &Tenant) -> Result<(), StoreError> {
        let mut latest = self.documents(tenant)?;
        self.extents(tenant, &latest)?;
        self.postings(tenant, &mut latest)?;
        self.vectors(tenant, &mut latest)?;
        for (first, of) in &latest {
            expect(&format!("vectors of {}", of.id), of.vectors, of.found_vectors)?;
            let distinct = self.read.open_table(TERMS)?;
            let terms = distinct.get((tenant.number, *first))?;
            let terms = terms.map_or_else(Vec::new, |terms| terms.value().to_vec());
            let found: Vec<u8> =
                of.found_terms.iter().flat_map(|term| term.to_le_bytes()).collect();
            expect(&format!("terms of {}", of.id), terms, found)?;
        }
        let all = (tenant.number, 0)..=(tenant.number, u64::MAX);
        let lists = self.read.open_table(TERMS)?.range(all)?.count();
        expect("lists of terms", latest.len(), lists)?;
        self.selections(tenant)
    }

    /// Versions, their files and their contents; gives what search must know.
    fn documents(&mut self, tenant: &Tenant) -> Result<BTreeMap<u64, Latest>, StoreError> {
        let mut latest: BTreeMap<String, (u64, VersionRecord)> = BTreeMap::new();
        let mut contents: HashMap<ContentHash, u64> = HashMap::new();
        let mut bytes = 0;
        let start = (tenant.number, "", 0);
        for entry in self.read.open_table(VERSIONS)?.range(start..)? {
            let (key, record) = entry?;
            let (number, id, version) = key.value();
            if number != tenant.number {
                break;
            }
            let record = VersionRecord::decode(record.value())?;
            let name = texts::file(number, record.file.number);
            let Some(stored) = texts::read(&self.store.0.disk, number, id, version, &record)?
            else {
                return Err(StoreError::corrupt(name, "is missing"));
            };
            expect("bytes of text", record.text_bytes, stored.text.len() as u64)?;
            expect("a way to an original", record.original.is_some(), stored.way.is_some())?;
            if let Some(original) = &record.original
                && texts::read_original(&self.store.0.disk, number, id, version, &record)?.is_none()
            {
                let name = texts::file(number, original.number);
                return Err(StoreError::corrupt(name, "is missing"));
            }
            bytes += record.file_bytes() + record.vector_bytes;
            *contents.entry(record.content).or_default() += 1;
            self.census.versions += 1;
            if let Some((_, before)) = latest.insert(id.to_owned(), (version, record)) {
                expect("vectors of an older version", before.vector_bytes + before.vectors, 0)?;
            }
        }
        expect("documents", tenant.documents, latest.len() as u64)?;
        expect("bytes", tenant.bytes, bytes + self.counts(tenant, &contents)?)?;
        let mut held = HashMap::new();
        let all = (tenant.number, &[0; 32])..=(tenant.number, &[u8::MAX; 32]);
        for entry in self.read.open_table(CONTENTS)?.range(all)? {
            let (key, count) = entry?;
            held.insert(*key.value().1, count.value());
        }
        expect("contents", held, contents)?;
        self.census.documents += latest.len() as u64;
        let known = |(id, (version, record)): (String, (u64, VersionRecord))| {
            let latest = Latest {
                id,
                version,
                chunks: record.chunks,
                vectors: record.vectors,
                terms: 0,
                found_vectors: 0,
                found_terms: BTreeSet::new(),
            };
            (record.first_chunk, latest)
        };
        Ok(latest.into_iter().filter(|(_, (_, r))| r.chunks > 0).map(known).collect())
    }

    /// Every count is of a content that is stored; gives their bytes.
    fn counts(
        &mut self,
        tenant: &Tenant,
        contents: &HashMap<ContentHash, u64>,
    ) -> Result<u64, StoreError> {
        let mut bytes = 0;
        let (low, high) = ([0; 32], [u8::MAX; 32]);
        let all = (tenant.number, &low, &low)..=(tenant.number, &high, &high);
        for entry in self.read.open_table(COUNTS)?.range(all)? {
            let (key, counts) = entry?;
            if !contents.contains_key(key.value().1) {
                return wrong("token counts of a content that is not stored");
            }
            bytes += counts.value().len() as u64;
            self.census.counts += 1;
        }
        Ok(bytes)
    }

    /// One extent for each latest version that has chunks.
    fn extents(
        &mut self,
        tenant: &Tenant,
        latest: &BTreeMap<u64, Latest>,
    ) -> Result<(), StoreError> {
        let mut found = 0;
        let mut chunks = 0;
        for entry in
            self.read.open_table(EXTENTS)?.range((tenant.number, 0)..=(tenant.number, u64::MAX))?
        {
            let (key, record) = entry?;
            let extent = Extent::decode(record.value())?;
            let Some(of) = latest.get(&key.value().1) else {
                return wrong(format!("an extent of {} belongs to nothing", extent.id));
            };
            expect("extent", (extent.id, extent.version), (&of.id, of.version))?;
            expect("chunks of an extent", extent.chunks(), of.chunks)?;
            found += 1;
            chunks += of.chunks;
        }
        expect("extents", latest.len(), found)?;
        expect("chunks", tenant.chunks, chunks)?;
        self.census.chunks += chunks;
        Ok(())
    }

    /// Every posting is of a chunk that is there.
    fn postings(
        &mut self,
        tenant: &Tenant,
        latest: &mut BTreeMap<u64, Latest>,
    ) -> Result<(), StoreError> {
        let all = (tenant.number, 0, 0)..=(tenant.number, u64::MAX, u64::MAX);
        for entry in self.read.open_table(POSTINGS)?.range(all)? {
            let (key, row) = entry?;
            let (_, block, term) = key.value();
            let mut orphan = postings::count(row.value())? == 0;
            postings::each(row.value(), |posting| {
                match owner(latest, block * BLOCK + u64::from(posting.place)) {
                    Some(of) => {
                        of.found_terms.insert(term);
                        of.terms += u64::from(posting.frequency);
                    }
                    None => orphan = true,
                }
                self.census.postings += 1;
            })?;
            if orphan {
                return wrong(format!("a posting of term {term:x} belongs to nothing"));
            }
        }
        expect("terms", tenant.terms, latest.values().map(|of| of.terms).sum())
    }

    /// Every vector is of a chunk that is there, in the file as in memory.
    fn vectors(
        &mut self,
        tenant: &Tenant,
        latest: &mut BTreeMap<u64, Latest>,
    ) -> Result<(), StoreError> {
        let held = self.state.segments(tenant.number);
        let mut found = 0;
        for entry in
            self.read.open_table(SEGMENTS)?.range((tenant.number, 0)..=(tenant.number, u64::MAX))?
        {
            let (key, record) = entry?;
            let record = SegmentRecord::decode(record.value())?;
            let name = vectors::file(tenant.number, key.value().1);
            let segment = Segment::read(&self.store.0.disk, &name, &record, false)?;
            if held.get(&key.value().1).is_none_or(|held| held.record() != record) {
                return Err(StoreError::corrupt(name, "is not what is in memory"));
            }
            for &chunk in &segment.chunks {
                match owner(latest, chunk) {
                    Some(of) => of.found_vectors += 1,
                    None => return Err(StoreError::corrupt(name, "has a vector of no chunk")),
                }
                self.census.vectors += 1;
            }
            found += 1;
        }
        expect("segments in memory", held.len(), found)
    }

    /// Every selection can be found by its key, its age and each of its contents, all stored.
    fn selections(&mut self, tenant: &Tenant) -> Result<(), StoreError> {
        let number = tenant.number;
        let (mut ages, mut by_content) = (BTreeMap::new(), BTreeSet::new());
        let contents = self.read.open_table(CONTENTS)?;
        let all = (number, &[0; 32])..=(number, &[u8::MAX; 32]);
        for entry in self.read.open_table(SELECTIONS)?.range(all)? {
            let (key, record) = entry?;
            let (key, record) = (*key.value().1, Selection::decode(record.value())?);
            ages.insert(record.age, key);
            for content in &record.contents {
                if contents.get((number, content))?.is_none() {
                    return wrong("a selection from a content that is not stored");
                }
                by_content.insert((*content, key));
            }
        }
        expect("selections", tenant.selections, ages.len() as u64)?;
        self.census.selections += ages.len() as u64;
        let mut found = BTreeMap::new();
        let all = (number, 0)..=(number, u64::MAX);
        for entry in self.read.open_table(SELECTION_AGES)?.range(all)? {
            let (age, key) = entry?;
            found.insert(age.value().1, *key.value());
        }
        expect("ages of selections", found, ages)?;
        let mut found = BTreeSet::new();
        let (low, high) = ([0; 32], [u8::MAX; 32]);
        let all = (number, &low, &low)..=(number, &high, &high);
        for entry in self.read.open_table(SELECTION_CONTENTS)?.range(all)? {
            let key = entry?.0;
            let (_, content, key) = key.value();
            found.insert((*content, *key));
        }
        expect("contents of selections", found, by_content)
    }
}

/// The latest version whose chunk this is.
fn owner(latest: &mut BTreeMap<u64, Latest>, chunk: u64) -> Option<&mut Latest> {
    let (first, of) = latest.range_mut(..=chunk).next_back()?;
    (chunk - first < of.chunks).then_some(of)
}
