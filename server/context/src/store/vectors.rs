//! Segments: append-only files of eight-bit vectors, held in memory for searches.
//!
//! A file is a header, then records of equal length: the number of the chunk, a scale, a code per component. Length
//! and checksum are committed in the database. What lies beyond them was never acknowledged and is cut when the
//! store is opened. Committed bytes are never changed: a deletion writes what remains to a new segment and removes
//! the old file with its bytes. (Overwriting in place would save that copy, of a few MiB at most, but a crash in
//! the middle would leave a file that is neither of two states.)

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::StoreError;
use super::disk::Disk;
use super::dot::quantise;
use super::tables::SegmentRecord;

/// Where segments lie.
pub(super) const FOLDER: &str = "vectors";
const MAGIC: &[u8; 8] = b"pithvec1";
/// Magic and number of components.
const HEADER_BYTES: usize = 16;
/// Chunk and scale before the codes.
const RECORD_HEADER_BYTES: usize = 12;

/// Name of a segment's file.
pub(super) fn file(tenant: u32, segment: u64) -> PathBuf {
    Path::new(FOLDER).join(format!("{tenant}-{segment}.i8"))
}

/// Whether a file has a name such as [`file`] gives.
pub(super) fn is_ours(name: &Path) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    name.file_name().and_then(|name| name.to_str()).is_some_and(|name| {
        name.strip_suffix(".i8")
            .and_then(|name| name.split_once('-'))
            .is_some_and(|(tenant, segment)| number(tenant) && number(segment))
    })
}

/// Bytes that a vector takes.
pub(super) fn record_bytes(dimensions: usize) -> usize {
    RECORD_HEADER_BYTES + dimensions
}

/// A segment in memory.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) embedder: Arc<str>,
    pub(super) dimensions: usize,
    /// Chunk of each vector.
    pub(super) chunks: Vec<u64>,
    pub(super) scales: Vec<f32>,
    /// `dimensions` for each vector.
    pub(super) codes: Vec<i8>,
    /// Of everything in the file.
    hasher: Sha256,
}

impl Segment {
    pub(super) fn new(embedder: &str, dimensions: usize) -> Self {
        let mut segment = Self {
            embedder: embedder.into(),
            dimensions,
            chunks: Vec::new(),
            scales: Vec::new(),
            codes: Vec::new(),
            hasher: Sha256::new(),
        };
        let header = segment.header();
        segment.hasher.update(header);
        segment
    }

    fn header(&self) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(MAGIC);
        header[8..].copy_from_slice(&(self.dimensions as u64).to_le_bytes());
        header
    }

    /// Bytes of the file.
    pub(super) fn bytes(&self) -> u64 {
        (HEADER_BYTES + self.chunks.len() * record_bytes(self.dimensions)) as u64
    }

    /// What is to be committed.
    pub(super) fn record(&self) -> SegmentRecord {
        SegmentRecord {
            embedder: self.embedder.to_string(),
            dimensions: self.dimensions as u64,
            bytes: self.bytes(),
            digest: self.hasher.clone().finalize().into(),
        }
    }

    /// Adds the vector of `chunk`.
    pub(super) fn push(&mut self, chunk: u64, vector: &[f32]) {
        let scale = quantise(vector, &mut self.codes);
        self.push_record(chunk, scale);
    }

    /// Adds chunk and scale to codes that are there already.
    fn push_record(&mut self, chunk: u64, scale: f32) {
        self.chunks.push(chunk);
        self.scales.push(scale);
        let mut bytes = Vec::with_capacity(record_bytes(self.dimensions));
        self.put_record(self.chunks.len() - 1, &mut bytes);
        self.hasher.update(&bytes);
    }

    fn put_record(&self, at: usize, bytes: &mut Vec<u8>) {
        bytes.extend(self.chunks[at].to_le_bytes());
        bytes.extend(self.scales[at].to_le_bytes());
        let codes = &self.codes[at * self.dimensions..][..self.dimensions];
        bytes.extend(codes.iter().map(|&code| code as u8));
    }

    /// The bytes of the file from vector `from` on; from the header if that is the first.
    pub(super) fn encoded(&self, from: usize) -> Vec<u8> {
        let mut bytes = if from == 0 { self.header().to_vec() } else { Vec::new() };
        (from..self.chunks.len()).for_each(|at| self.put_record(at, &mut bytes));
        bytes
    }

    /// Whether a chunk of `range` has its vector here.
    pub(super) fn holds(&self, range: &Range<u64>) -> bool {
        self.chunks.iter().any(|chunk| range.contains(chunk))
    }

    /// What remains without the chunks `gone`.
    pub(super) fn without(&self, gone: &Range<u64>) -> Self {
        let mut rest = Self::new(&self.embedder, self.dimensions);
        for (at, &chunk) in self.chunks.iter().enumerate() {
            if !gone.contains(&chunk) {
                rest.codes.extend(&self.codes[at * self.dimensions..][..self.dimensions]);
                rest.push_record(chunk, self.scales[at]);
            }
        }
        rest
    }

    /// Reads a segment as committed. `cut`: cut off what was never acknowledged; else it is an error.
    pub(super) fn read(
        disk: &Disk,
        name: &Path,
        record: &SegmentRecord,
        cut: bool,
    ) -> Result<Self, StoreError> {
        let wrong = |what: String| StoreError::corrupt(name, what);
        let bytes = disk.read(name)?.ok_or_else(|| wrong("is missing".to_owned()))?;
        let (length, committed) = (bytes.len() as u64, record.bytes);
        if length < committed || (length > committed && !cut) {
            return Err(wrong(format!("has {length} bytes, {committed} were committed")));
        }
        // Not longer than the file.
        let bytes = &bytes[..committed as usize];
        let dimensions = usize::try_from(record.dimensions).unwrap_or(usize::MAX);
        let mut segment = Self::new(&record.embedder, dimensions);
        let (header, records) = bytes.split_at_checked(HEADER_BYTES).unwrap_or((bytes, &[]));
        // The header is in it already.
        segment.hasher.update(records);
        let digest: [u8; 32] = segment.hasher.clone().finalize().into();
        let size = record_bytes(dimensions);
        if digest != record.digest || header != segment.header() || records.len() % size != 0 {
            return Err(wrong("does not hold what was committed".to_owned()));
        }
        if length > committed {
            disk.cut(name, committed)?;
        }
        let count = records.len() / size;
        segment.chunks.reserve_exact(count);
        segment.scales.reserve_exact(count);
        segment.codes.reserve_exact(count * dimensions);
        for record in records.chunks_exact(size) {
            let mut chunk = [0; 8];
            let mut scale = [0; 4];
            chunk.copy_from_slice(&record[..8]);
            scale.copy_from_slice(&record[8..RECORD_HEADER_BYTES]);
            segment.chunks.push(u64::from_le_bytes(chunk));
            segment.scales.push(f32::from_le_bytes(scale));
            segment.codes.extend(record[RECORD_HEADER_BYTES..].iter().map(|&code| code as i8));
        }
        Ok(segment)
    }
}
