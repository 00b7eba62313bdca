//! The tables of the database and what their records hold. Keys begin with the number of the tenant.

use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::StoreError;
use super::codec::{Reader, Writer, malformed};
use super::counts::ModelHash;
use super::document::ContentHash;

/// "schema": version of everything.
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Name of a tenant: [`Tenant`].
pub(super) const TENANTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("tenants");
/// Tenant, document, version: [`VersionRecord`].
pub(super) const VERSIONS: TableDefinition<'_, (u32, &str, u64), &[u8]> =
    TableDefinition::new("versions");
/// Tenant, content: versions that hold it.
pub(super) const CONTENTS: TableDefinition<'_, (u32, &ContentHash), u64> =
    TableDefinition::new("contents");
/// Tenant, first chunk: [`Extent`] of a latest version.
pub(super) const EXTENTS: TableDefinition<'_, (u32, u64), &[u8]> = TableDefinition::new("extents");
/// Tenant, first chunk: the distinct terms of a latest version, eight bytes each.
pub(super) const TERMS: TableDefinition<'_, (u32, u64), &[u8]> = TableDefinition::new("terms");
/// Tenant, block of chunks, term: rows of [`super::postings`]. Blocks come before terms, so that storing a document
/// touches neighbouring pages; a search looks into each block for each of its terms.
pub(super) const POSTINGS: TableDefinition<'_, (u32, u64, u64), &[u8]> =
    TableDefinition::new("postings");
/// Tenant, segment: [`SegmentRecord`].
pub(super) const SEGMENTS: TableDefinition<'_, (u32, u64), &[u8]> =
    TableDefinition::new("segments");
/// Tenant, key: [`Selection`].
pub(super) const SELECTIONS: TableDefinition<'_, (u32, &[u8; 32]), &[u8]> =
    TableDefinition::new("selections");
/// Tenant, age: key of a selection.
pub(super) const SELECTION_AGES: TableDefinition<'_, (u32, u64), &[u8; 32]> =
    TableDefinition::new("selection_ages");
/// Tenant, content, key of a selection made from it.
pub(super) const SELECTION_CONTENTS: TableDefinition<'_, (u32, &ContentHash, &[u8; 32]), ()> =
    TableDefinition::new("selection_contents");

/// Tenant, content, model: tokens of the content's text, not interpreted here.
pub(super) const COUNTS: TableDefinition<'_, (u32, &ContentHash, &ModelHash), &[u8]> =
    TableDefinition::new("counts");

/// Makes every table, so that reading needs no case for a missing one.
pub(super) fn create(write: &WriteTransaction) -> Result<(), StoreError> {
    write.open_table(TENANTS)?;
    write.open_table(VERSIONS)?;
    write.open_table(CONTENTS)?;
    write.open_table(EXTENTS)?;
    write.open_table(TERMS)?;
    write.open_table(POSTINGS)?;
    write.open_table(SEGMENTS)?;
    write.open_table(SELECTIONS)?;
    write.open_table(SELECTION_AGES)?;
    write.open_table(SELECTION_CONTENTS)?;
    write.open_table(COUNTS)?;
    Ok(())
}

/// A tenant: its secret, its counters and what it has. Numbers are never used twice.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Tenant {
    /// First part of every other key.
    pub(super) number: u32,
    /// Goes before whatever is hashed.
    pub(super) salt: [u8; 32],
    pub(super) next_file: u64,
    pub(super) next_chunk: u64,
    pub(super) next_segment: u64,
    pub(super) next_age: u64,
    /// Documents stored.
    pub(super) documents: u64,
    /// Bytes of their files, all versions, of vectors and of token counts.
    pub(super) bytes: u64,
    /// Chunks of latest versions.
    pub(super) chunks: u64,
    /// Terms of those chunks, repetitions counted.
    pub(super) terms: u64,
    /// Selections kept.
    pub(super) selections: u64,
}

impl Tenant {
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader(bytes);
        Ok(Self {
            number: u32::try_from(reader.u64()?).map_err(|_| malformed())?,
            salt: reader.array()?,
            next_file: reader.u64()?,
            next_chunk: reader.u64()?,
            next_segment: reader.u64()?,
            next_age: reader.u64()?,
            documents: reader.u64()?,
            bytes: reader.u64()?,
            chunks: reader.u64()?,
            terms: reader.u64()?,
            selections: reader.u64()?,
        })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.u64(u64::from(self.number)).raw(&self.salt);
        for number in [
            self.next_file,
            self.next_chunk,
            self.next_segment,
            self.next_age,
            self.documents,
            self.bytes,
            self.chunks,
            self.terms,
            self.selections,
        ] {
            writer.u64(number);
        }
        writer.0
    }

    /// The tenant called `name`, if it has ever stored anything.
    pub(super) fn find(
        tenants: &impl ReadableTable<&'static str, &'static [u8]>,
        name: &str,
    ) -> Result<Option<Self>, StoreError> {
        tenants.get(name)?.map(|record| Self::decode(record.value())).transpose()
    }
}

/// A file as committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileRecord {
    /// Its name.
    pub(super) number: u64,
    pub(super) bytes: u64,
    pub(super) digest: [u8; 32],
}

impl FileRecord {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, StoreError> {
        Ok(Self { number: reader.u64()?, bytes: reader.u64()?, digest: reader.array()? })
    }

    fn encode(&self, writer: &mut Writer) {
        writer.u64(self.number).u64(self.bytes).raw(&self.digest);
    }
}

/// A version of a document; its text, title and the like are in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct VersionRecord {
    pub(super) file: FileRecord,
    /// What was uploaded, if it is not the text. Schema 1 has none.
    pub(super) original: Option<FileRecord>,
    pub(super) content: ContentHash,
    /// [`Content::derived_hash`](super::Content::derived_hash).
    pub(super) derived: [u8; 32],
    pub(super) text_bytes: u64,
    pub(super) stored_at: u64,
    /// First of its chunks. What search needs is kept for the latest version only.
    pub(super) first_chunk: u64,
    pub(super) chunks: u64,
    /// Vectors of its chunks.
    pub(super) vectors: u64,
    /// Bytes those take.
    pub(super) vector_bytes: u64,
}

impl VersionRecord {
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader(bytes);
        let mut record = Self {
            file: FileRecord::decode(&mut reader)?,
            original: None,
            content: reader.array()?,
            derived: reader.array()?,
            text_bytes: reader.u64()?,
            stored_at: reader.u64()?,
            first_chunk: reader.u64()?,
            chunks: reader.u64()?,
            vectors: reader.u64()?,
            vector_bytes: reader.u64()?,
        };
        if !reader.0.is_empty() {
            record.original = Some(FileRecord::decode(&mut reader)?);
        }
        Ok(record)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        self.file.encode(&mut writer);
        writer.raw(&self.content).raw(&self.derived).u64(self.text_bytes).u64(self.stored_at);
        writer.u64(self.first_chunk).u64(self.chunks).u64(self.vectors).u64(self.vector_bytes);
        if let Some(original) = &self.original {
            original.encode(&mut writer);
        }
        writer.0
    }

    /// Its files.
    pub(super) fn files(&self) -> impl Iterator<Item = &FileRecord> {
        std::iter::once(&self.file).chain(&self.original)
    }

    /// Bytes of its files.
    pub(super) fn file_bytes(&self) -> u64 {
        self.files().map(|file| file.bytes).sum()
    }

    /// The latest version of a document and its number.
    pub(super) fn latest(
        versions: &impl ReadableTable<(u32, &'static str, u64), &'static [u8]>,
        tenant: u32,
        id: &str,
    ) -> Result<Option<(u64, Self)>, StoreError> {
        let Some(entry) = versions.range((tenant, id, 0)..=(tenant, id, u64::MAX))?.next_back()
        else {
            return Ok(None);
        };
        let (key, record) = entry?;
        Ok(Some((key.value().2, Self::decode(record.value())?)))
    }
}

/// Where the chunks of a latest version belong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Extent<'a> {
    pub(super) id: &'a str,
    pub(super) version: u64,
    /// Number of terms of all chunks, repetitions counted.
    pub(super) terms: u64,
    /// First and last byte of each chunk, four bytes each: a chunk's stand at its place.
    spans: &'a [u8],
}

impl<'a> Extent<'a> {
    pub(super) fn encode(
        id: &str,
        version: u64,
        terms: u64,
        spans: impl Iterator<Item = std::ops::Range<usize>>,
    ) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.bytes(id.as_bytes()).u64(version).u64(terms);
        for span in spans {
            // Texts are shorter than 4 GiB.
            for end in [span.start, span.end] {
                writer.raw(&u32::try_from(end).unwrap_or(u32::MAX).to_le_bytes());
            }
        }
        writer.0
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, StoreError> {
        let mut reader = Reader(bytes);
        let id = std::str::from_utf8(reader.bytes()?).map_err(|_| malformed())?;
        let (version, terms) = (reader.u64()?, reader.u64()?);
        Ok(Self { id, version, terms, spans: reader.0 })
    }

    /// Number of chunks.
    pub(super) fn chunks(&self) -> u64 {
        self.spans.len() as u64 / 8
    }

    /// Bytes of the text that chunk `place` of the version covers.
    pub(super) fn span(&self, place: u64) -> Option<std::ops::Range<usize>> {
        let at = usize::try_from(place).ok()?.checked_mul(8)?;
        let ends = self.spans.get(at..at.checked_add(8)?)?;
        let end = |at: usize| {
            u32::from_le_bytes([ends[at], ends[at + 1], ends[at + 2], ends[at + 3]]) as usize
        };
        Some(end(0)..end(4))
    }
}

/// A segment of vectors as committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SegmentRecord {
    pub(super) embedder: String,
    pub(super) dimensions: u64,
    pub(super) bytes: u64,
    pub(super) digest: [u8; 32],
}

impl SegmentRecord {
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader(bytes);
        Ok(Self {
            embedder: reader.text()?,
            dimensions: reader.u64()?,
            bytes: reader.u64()?,
            digest: reader.array()?,
        })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.bytes(self.embedder.as_bytes()).u64(self.dimensions).u64(self.bytes);
        writer.raw(&self.digest);
        writer.0
    }
}

/// A selection that is to be found again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Selection {
    pub(super) age: u64,
    pub(super) contents: Vec<ContentHash>,
    pub(super) value: Vec<u8>,
}

impl Selection {
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader(bytes);
        let age = reader.u64()?;
        let contents = (0..reader.u64()?).map(|_| reader.array()).collect::<Result<_, _>>()?;
        Ok(Self { age, contents, value: reader.bytes()?.to_owned() })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.u64(self.age).u64(self.contents.len() as u64);
        for content in &self.contents {
            writer.raw(content);
        }
        writer.bytes(&self.value);
        writer.0
    }
}
