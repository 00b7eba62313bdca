//! A file for each version: type, title, metadata and embedder, then the text, the way back to what was uploaded and
//! what was prepared of it. What was uploaded has a file of its own where it is not the text, for a question needs one of
//! the two as a rule.
//!
//! The caller's words stand nowhere else, so that removing the file removes them: freed pages of the database keep
//! their bytes until they are used again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::codec::{Reader, Writer};
use super::disk::Disk;
use super::tables::{FileRecord, VersionRecord};
use super::{Content, StoreError, Stored, Version};
use crate::extract::Way;

/// Where the files lie, in a folder for each tenant.
pub(super) const FOLDER: &str = "documents";
const MAGIC: &[u8; 8] = b"pithdoc1";
/// Magic and length of the header.
const HEADER_AT: usize = 16;
/// Read of a file to learn its title; a longer header takes a second look.
const HEAD_BYTES: u64 = 4096;

/// Folder of a tenant's files.
pub(super) fn folder(tenant: u32) -> PathBuf {
    Path::new(FOLDER).join(tenant.to_string())
}

/// Name of a version's file.
pub(super) fn file(tenant: u32, number: u64) -> PathBuf {
    folder(tenant).join(number.to_string())
}

/// Whether a file or folder has a name such as [`file`] or [`folder`] gives.
pub(super) fn is_ours(name: &Path) -> bool {
    let name = name.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit())
}

/// What stands before the text.
#[derive(Debug)]
struct Header {
    mime: String,
    title: Option<String>,
    embedder: Option<String>,
    metadata: BTreeMap<String, String>,
    text_bytes: usize,
    /// Of the way to the original; 0: the text was uploaded as it is.
    way_bytes: usize,
    left_out: u64,
}

/// The head of a file that holds `content`; text, `way` and prepared bytes follow.
pub(super) fn head(content: &Content, way: &[u8]) -> Vec<u8> {
    let mut header = Writer::default();
    header.bytes(content.mime.as_bytes()).optional(content.title.as_deref());
    header.optional(content.embedder.as_deref()).u64(content.metadata.len() as u64);
    for (key, value) in &content.metadata {
        header.bytes(key.as_bytes()).bytes(value.as_bytes());
    }
    header.u64(content.text.len() as u64);
    if let Some(original) = &content.original {
        header.u64(way.len() as u64).u64(original.left_out);
    }
    let mut head = Writer::default();
    head.raw(MAGIC).bytes(&header.0);
    head.0
}

impl Header {
    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let mut decode = || {
            let (mime, title, embedder) = (reader.text()?, reader.optional()?, reader.optional()?);
            let mut metadata = BTreeMap::new();
            for _ in 0..reader.u64()? {
                metadata.insert(reader.text()?, reader.text()?);
            }
            let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
            let text_bytes = size(reader.u64()?);
            let (way_bytes, left_out) = match reader.0 {
                [] => (0, 0),
                _ => (size(reader.u64()?), reader.u64()?),
            };
            Ok::<_, StoreError>(Self {
                mime,
                title,
                embedder,
                metadata,
                text_bytes,
                way_bytes,
                left_out,
            })
        };
        decode().ok()
    }

    fn version(self, id: &str, version: u64, record: &VersionRecord) -> Version {
        Version {
            id: id.to_owned(),
            version,
            content: record.content,
            text_bytes: record.text_bytes,
            original_bytes: record.original.as_ref().map_or(record.text_bytes, |file| file.bytes),
            left_out: self.left_out,
            chunks: record.chunks,
            stored_at: record.stored_at,
            mime: self.mime,
            title: self.title,
            metadata: self.metadata,
            embedder: self.embedder,
        }
    }
}

/// Where the header of a file that begins with `head` ends.
fn header_end(head: &[u8]) -> Option<usize> {
    let length = head.get(8..HEADER_AT)?.try_into().ok().map(u64::from_le_bytes)?;
    if head[..8] != *MAGIC {
        return None;
    }
    HEADER_AT.checked_add(usize::try_from(length).ok()?)
}

/// What is known of a version without reading its text; `None` if the file is gone.
pub(super) fn describe(
    disk: &Disk,
    tenant: u32,
    id: &str,
    version: u64,
    record: &VersionRecord,
) -> Result<Option<Version>, StoreError> {
    let name = file(tenant, record.file.number);
    let wrong = || StoreError::corrupt(&name, "is no document");
    let Some(mut head) = disk.read_head(&name, HEAD_BYTES)? else { return Ok(None) };
    let end = header_end(&head).filter(|&end| end as u64 <= record.file.bytes).ok_or_else(wrong)?;
    if end > head.len() {
        let Some(longer) = disk.read_head(&name, end as u64)? else { return Ok(None) };
        head = longer;
    }
    let header = head.get(HEADER_AT..end).and_then(Header::decode).ok_or_else(wrong)?;
    Ok(Some(header.version(id, version, record)))
}

/// A version whole, its checksum compared; `None` if the file is gone.
pub(super) fn read(
    disk: &Disk,
    tenant: u32,
    id: &str,
    version: u64,
    record: &VersionRecord,
) -> Result<Option<Stored>, StoreError> {
    let name = file(tenant, record.file.number);
    let Some(mut bytes) = read_file(disk, &name, &record.file)? else { return Ok(None) };
    let take = || {
        let end = header_end(&bytes)?;
        let header = Header::decode(bytes.get(HEADER_AT..end)?)?;
        let (text, rest) = bytes[end..].split_at_checked(header.text_bytes)?;
        let text = std::str::from_utf8(text).ok()?.to_owned();
        let (way, prepared) = rest.split_at_checked(header.way_bytes)?;
        let way = match way {
            [] => None,
            way => Some(Way::decode(way, &text)?),
        };
        Some((header.version(id, version, record), text, way, bytes.len() - prepared.len()))
    };
    let (version, text, way, prepared) =
        take().ok_or_else(|| StoreError::corrupt(&name, "is no document"))?;
    // By far the longest part, left where it is.
    bytes.drain(..prepared);
    Ok(Some(Stored { version, text, way, prepared: bytes }))
}

/// What was uploaded as a version; `None` if the file is gone.
pub(super) fn read_original(
    disk: &Disk,
    tenant: u32,
    id: &str,
    version: u64,
    record: &VersionRecord,
) -> Result<Option<(Version, Vec<u8>)>, StoreError> {
    let Some(original) = &record.original else {
        let stored = read(disk, tenant, id, version, record)?;
        return Ok(stored.map(|stored| (stored.version, stored.text.into_bytes())));
    };
    let Some(described) = describe(disk, tenant, id, version, record)? else { return Ok(None) };
    let bytes = read_file(disk, &file(tenant, original.number), original)?;
    Ok(bytes.map(|bytes| (described, bytes)))
}

/// A whole file, its checksum compared; `None` if it is gone.
fn read_file(disk: &Disk, name: &Path, record: &FileRecord) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(bytes) = disk.read(name)? else { return Ok(None) };
    if bytes.len() as u64 != record.bytes
        || <[u8; 32]>::from(Sha256::digest(&bytes)) != record.digest
    {
        return Err(StoreError::corrupt(name, "does not hold what was committed"));
    }
    Ok(Some(bytes))
}
