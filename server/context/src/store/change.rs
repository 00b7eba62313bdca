//! A change: one transaction of the database and the files that go with it.
//!
//! Files are written before the commit and removed after it, so that what is committed always has its files. A change
//! that fails takes back what it wrote; what a crash leaves is taken back when the store is opened.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use redb::{ReadableTable as _, WriteTransaction};
use sha2::{Digest as _, Sha256};

use super::disk::Disk;
use super::document::ContentHash;
use super::postings::{self, BLOCK, Posting};
use super::state::Segments;
use super::tables::{
    CONTENTS, EXTENTS, Extent, FileRecord, POSTINGS, SEGMENTS, TENANTS, TERMS, Tenant, VERSIONS,
    VersionRecord,
};
use super::vectors::{self, Segment};
use super::{Content, Limits, StoreError, counts, selections, texts};

/// A change of what one tenant has, not yet committed.
pub(super) struct Change<'a> {
    pub(super) write: &'a WriteTransaction,
    pub(super) tenant: Tenant,
    /// The tenant's vectors as they will be.
    pub(super) segments: Segments,
    pub(super) files: Files,
    /// Contents that no version holds any more.
    pub(super) purged: Vec<ContentHash>,
}

/// Files of a change.
pub(super) struct Files {
    disk: Disk,
    /// Removed if the change is dropped.
    created: Vec<PathBuf>,
    /// Cut if the change is dropped, and where.
    lengthened: Vec<(PathBuf, u64)>,
    /// Removed once it is committed.
    doomed: Vec<PathBuf>,
}

impl Files {
    pub(super) fn new(disk: Disk) -> Self {
        Self { disk, created: Vec::new(), lengthened: Vec::new(), doomed: Vec::new() }
    }

    fn create(&mut self, name: PathBuf, parts: &[&[u8]]) -> Result<(), StoreError> {
        self.created.push(name.clone());
        self.disk.write(&name, parts)
    }

    fn lengthen(&mut self, name: PathBuf, at: u64, bytes: &[u8]) -> Result<(), StoreError> {
        self.lengthened.push((name.clone(), at));
        self.disk.append(&name, at, bytes)
    }

    /// Nothing is taken back any more: the change is committed, or nobody knows whether it is.
    pub(super) fn keep(&mut self) {
        self.created.clear();
        self.lengthened.clear();
    }

    /// Removes what the committed change left behind.
    pub(super) fn sweep(&mut self) -> Result<(), StoreError> {
        let removed: Vec<_> = self.doomed.drain(..).map(|name| self.disk.remove(&name)).collect();
        removed.into_iter().collect()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // What cannot be taken back now is when the store is opened, or overwritten by the next change.
        for (name, length) in self.lengthened.drain(..) {
            let _ = self.disk.cut(&name, length);
        }
        for name in self.created.drain(..) {
            let _ = self.disk.remove(&name);
        }
    }
}

impl Change<'_> {
    /// The tenant called `name`; a new one gets a number and a secret.
    pub(super) fn tenant(write: &WriteTransaction, name: &str) -> Result<Tenant, StoreError> {
        let tenants = write.open_table(TENANTS)?;
        if let Some(tenant) = Tenant::find(&tenants, name)? {
            return Ok(tenant);
        }
        let mut most = 0;
        for entry in tenants.iter()? {
            most = most.max(Tenant::decode(entry?.1.value())?.number);
        }
        Ok(Tenant { number: most + 1, salt: super::salt()?, ..Tenant::default() })
    }

    /// Stores `content` as `version` of `id`.
    pub(super) fn insert(
        &mut self,
        id: &str,
        version: u64,
        content: &Content,
        limits: &Limits,
    ) -> Result<VersionRecord, StoreError> {
        let way = content.original.as_ref().map_or_else(Vec::new, |original| original.way.encode());
        let head = texts::head(content, &way);
        self.files.disk.create_folder(&texts::folder(self.tenant.number))?;
        let file =
            self.create(&[&head, content.text.as_bytes(), &way, &content.prepared], limits)?;
        let original = content.original.as_ref();
        let original =
            original.map(|original| self.create(&[&original.bytes], limits)).transpose()?;
        let vectors = content.chunks.iter().filter_map(|chunk| chunk.vector.as_ref());
        let mut record = VersionRecord {
            file,
            original,
            content: content.hash(&self.tenant.salt),
            derived: content.derived_hash(),
            text_bytes: content.text.len() as u64,
            stored_at: super::now(),
            first_chunk: self.tenant.next_chunk,
            chunks: content.chunks.len() as u64,
            vectors: vectors.clone().count() as u64,
            vector_bytes: vectors.map(|v| vectors::record_bytes(v.len()) as u64).sum(),
        };
        self.spend(record.vector_bytes, limits)?;
        self.tenant.next_chunk += record.chunks;
        self.insert_vectors(content, record.first_chunk, limits)?;
        let terms = self.insert_postings(content, record.first_chunk)?;
        let spans = content.chunks.iter().map(|chunk| chunk.span.clone());
        let extent = Extent::encode(id, version, terms, spans);
        if record.chunks > 0 {
            let mut extents = self.write.open_table(EXTENTS)?;
            extents.insert((self.tenant.number, record.first_chunk), extent.as_slice())?;
        } else {
            // Nothing to be found: no extent, and none to be taken for another's.
            record.first_chunk = 0;
        }
        self.tenant.chunks += record.chunks;
        self.tenant.terms += terms;
        self.save(id, version, &record)?;
        let mut contents = self.write.open_table(CONTENTS)?;
        let key = (self.tenant.number, &record.content);
        let held = contents.get(key)?.map_or(0, |held| held.value());
        contents.insert(key, held + 1)?;
        Ok(record)
    }

    /// Takes `bytes` off what the tenant may store.
    pub(super) fn spend(&mut self, bytes: u64, limits: &Limits) -> Result<(), StoreError> {
        self.tenant.bytes += bytes;
        if self.tenant.bytes > limits.tenant_bytes {
            return Err(StoreError::Quota { what: "bytes", limit: limits.tenant_bytes });
        }
        Ok(())
    }

    /// Writes a file of `parts`.
    fn create(&mut self, parts: &[&[u8]], limits: &Limits) -> Result<FileRecord, StoreError> {
        let bytes = parts.iter().map(|part| part.len() as u64).sum();
        self.spend(bytes, limits)?;
        let mut digest = Sha256::new();
        parts.iter().for_each(|part| digest.update(part));
        let number = self.tenant.next_file;
        self.tenant.next_file += 1;
        self.files.create(texts::file(self.tenant.number, number), parts)?;
        Ok(FileRecord { number, bytes, digest: digest.finalize().into() })
    }

    fn save(&self, id: &str, version: u64, record: &VersionRecord) -> Result<(), StoreError> {
        let mut versions = self.write.open_table(VERSIONS)?;
        versions.insert((self.tenant.number, id, version), record.encode().as_slice())?;
        Ok(())
    }

    /// Adds the chunks' vectors to segments that have room, then to new ones.
    fn insert_vectors(
        &mut self,
        content: &Content,
        first: u64,
        limits: &Limits,
    ) -> Result<(), StoreError> {
        let embedder = content.embedder.as_deref().unwrap_or_default();
        let mut vectors = content
            .chunks
            .iter()
            .zip(first..)
            .filter_map(|(chunk, number)| Some((number, chunk.vector.as_deref()?)))
            .peekable();
        while let Some(&(_, vector)) = vectors.peek() {
            let size = vectors::record_bytes(vector.len()) as u64;
            let fits = |segment: &Segment| segment.bytes() + size <= limits.segment_bytes;
            let with_room = self.segments.iter().find(|(_, segment)| {
                *segment.embedder == *embedder
                    && segment.dimensions == vector.len()
                    && fits(segment)
            });
            let (number, mut segment) = match with_room {
                Some((&number, segment)) => (number, segment.as_ref().clone()),
                None => (self.next_segment(), Segment::new(embedder, vector.len())),
            };
            let (from, at) = (segment.chunks.len(), segment.bytes());
            // At least one, should a segment hold none by the limits.
            while let Some((chunk, vector)) =
                vectors.next_if(|_| segment.chunks.len() == from || fits(&segment))
            {
                segment.push(chunk, vector);
            }
            let name = vectors::file(self.tenant.number, number);
            if from == 0 {
                self.files.create(name, &[&segment.encoded(0)])?;
            } else {
                self.files.lengthen(name, at, &segment.encoded(from))?;
            }
            self.save_segment(number, segment)?;
        }
        Ok(())
    }

    fn next_segment(&mut self) -> u64 {
        self.tenant.next_segment += 1;
        self.tenant.next_segment - 1
    }

    fn save_segment(&mut self, number: u64, segment: Segment) -> Result<(), StoreError> {
        let mut segments = self.write.open_table(SEGMENTS)?;
        segments.insert((self.tenant.number, number), segment.record().encode().as_slice())?;
        self.segments.insert(number, Arc::new(segment));
        Ok(())
    }

    /// Adds the chunks' terms to the postings and gives their number.
    fn insert_postings(&mut self, content: &Content, first: u64) -> Result<u64, StoreError> {
        let mut rows: BTreeMap<(u64, u64), Vec<Posting>> = BTreeMap::new();
        let (mut total, mut distinct) = (0, BTreeSet::new());
        for (chunk, number) in content.chunks.iter().zip(first..) {
            let mut terms = chunk.terms.clone();
            terms.sort_unstable();
            total += terms.len() as u64;
            for run in terms.chunk_by(|a, b| a == b) {
                distinct.insert(run[0]);
                rows.entry((number / BLOCK, run[0])).or_default().push(Posting {
                    place: (number % BLOCK) as u32,
                    frequency: u32::try_from(run.len()).unwrap_or(u32::MAX),
                    length: u32::try_from(terms.len()).unwrap_or(u32::MAX),
                });
            }
        }
        let mut postings = self.write.open_table(POSTINGS)?;
        for ((block, term), added) in rows {
            let key = (self.tenant.number, block, term);
            let mut row = postings.get(key)?.map_or_else(Vec::new, |row| row.value().to_vec());
            postings::append(&mut row, &added)?;
            postings.insert(key, row.as_slice())?;
        }
        let distinct: Vec<u8> = distinct.into_iter().flat_map(u64::to_le_bytes).collect();
        if !content.chunks.is_empty() {
            let mut terms = self.write.open_table(TERMS)?;
            terms.insert((self.tenant.number, first), distinct.as_slice())?;
        }
        Ok(total)
    }

    /// Takes a version that is no longer the latest out of what searches see. Its text stays.
    pub(super) fn supersede(
        &mut self,
        id: &str,
        version: u64,
        mut record: VersionRecord,
    ) -> Result<(), StoreError> {
        self.remove_from_search(&record)?;
        record.vectors = 0;
        record.vector_bytes = 0;
        self.save(id, version, &record)
    }

    /// Removes a version and all that came of it.
    pub(super) fn purge(
        &mut self,
        id: &str,
        version: u64,
        record: &VersionRecord,
        latest: bool,
    ) -> Result<(), StoreError> {
        if latest {
            self.remove_from_search(record)?;
        }
        self.write.open_table(VERSIONS)?.remove((self.tenant.number, id, version))?;
        self.tenant.bytes -= record.file_bytes();
        let tenant = self.tenant.number;
        self.files.doomed.extend(record.files().map(|file| texts::file(tenant, file.number)));
        let key = (self.tenant.number, &record.content);
        let mut contents = self.write.open_table(CONTENTS)?;
        let held = contents.get(key)?.map_or(0, |held| held.value());
        if held > 1 {
            contents.insert(key, held - 1)?;
            return Ok(());
        }
        contents.remove(key)?;
        drop(contents);
        self.purged.push(record.content);
        counts::remove_of(self, &record.content)?;
        selections::remove_of(self, &record.content)
    }

    /// Removes chunks, postings and vectors of a latest version.
    fn remove_from_search(&mut self, record: &VersionRecord) -> Result<(), StoreError> {
        self.tenant.bytes -= record.vector_bytes;
        if record.chunks == 0 {
            return Ok(());
        }
        let tenant = self.tenant.number;
        let chunks = record.first_chunk..record.first_chunk + record.chunks;
        if let Some(extent) = self.write.open_table(EXTENTS)?.remove((tenant, chunks.start))? {
            self.tenant.terms -= Extent::decode(extent.value())?.terms;
        }
        self.tenant.chunks -= record.chunks;
        let distinct = match self.write.open_table(TERMS)?.remove((tenant, chunks.start))? {
            None => Vec::new(),
            Some(terms) => terms.value().to_vec(),
        };
        self.remove_postings(&distinct, &chunks)?;
        if record.vectors > 0 {
            self.remove_vectors(&chunks)?;
        }
        Ok(())
    }

    /// Removes the postings of `terms` (eight bytes each) in `chunks`.
    fn remove_postings(&self, terms: &[u8], chunks: &Range<u64>) -> Result<(), StoreError> {
        let mut postings = self.write.open_table(POSTINGS)?;
        for block in chunks.start / BLOCK..=(chunks.end - 1) / BLOCK {
            let start = chunks.start.max(block * BLOCK) - block * BLOCK;
            let end = chunks.end.min((block + 1) * BLOCK) - block * BLOCK;
            for term in terms.chunks_exact(8) {
                let mut bytes = [0; 8];
                bytes.copy_from_slice(term);
                let key = (self.tenant.number, block, u64::from_le_bytes(bytes));
                let rest = match postings.get(key)? {
                    None => continue,
                    Some(row) => postings::without(row.value(), start as u32..end as u32)?,
                };
                if rest.is_empty() {
                    postings.remove(key)?;
                } else {
                    postings.insert(key, rest.as_slice())?;
                }
            }
        }
        Ok(())
    }

    /// Writes what remains of segments that hold vectors of `chunks`; the old files go with the commit.
    fn remove_vectors(&mut self, chunks: &Range<u64>) -> Result<(), StoreError> {
        let holding: Vec<(u64, Arc<Segment>)> = self
            .segments
            .iter()
            .filter(|(_, segment)| segment.holds(chunks))
            .map(|(&number, segment)| (number, Arc::clone(segment)))
            .collect();
        for (number, segment) in holding {
            self.segments.remove(&number);
            self.write.open_table(SEGMENTS)?.remove((self.tenant.number, number))?;
            self.files.doomed.push(vectors::file(self.tenant.number, number));
            let rest = segment.without(chunks);
            if !rest.chunks.is_empty() {
                let number = self.next_segment();
                let name = vectors::file(self.tenant.number, number);
                self.files.create(name, &[&rest.encoded(0)])?;
                self.save_segment(number, rest)?;
            }
        }
        Ok(())
    }
}
