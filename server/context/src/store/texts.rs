//! A file for each version: type, title, metadata and embedder, then the text and what was prepared of it.
//!
//! The caller's words stand nowhere else, so that removing the file removes them: freed pages of the database keep
//! their bytes until they are used again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::codec::{Reader, Writer};
use super::disk::Disk;
use super::tables::VersionRecord;
use super::{Content, StoreError, Stored, Version};

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
}

/// The head of a file that holds `content`; text and prepared bytes follow.
pub(super) fn head(content: &Content) -> Vec<u8> {
    let mut header = Writer::default();
    header.bytes(content.mime.as_bytes()).optional(content.title.as_deref());
    header.optional(content.embedder.as_deref()).u64(content.metadata.len() as u64);
    for (key, value) in &content.metadata {
        header.bytes(key.as_bytes()).bytes(value.as_bytes());
    }
    header.u64(content.text.len() as u64);
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
            let text_bytes = usize::try_from(reader.u64()?).unwrap_or(usize::MAX);
            Ok::<_, StoreError>(Self { mime, title, embedder, metadata, text_bytes })
        };
        decode().ok()
    }

    fn version(self, id: &str, version: u64, record: &VersionRecord) -> Version {
        Version {
            id: id.to_owned(),
            version,
            content: record.content,
            text_bytes: record.text_bytes,
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
    let name = file(tenant, record.file);
    let wrong = || StoreError::corrupt(&name, "is no document");
    let Some(mut head) = disk.read_head(&name, HEAD_BYTES)? else { return Ok(None) };
    let end = header_end(&head).filter(|&end| end as u64 <= record.file_bytes).ok_or_else(wrong)?;
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
    let name = file(tenant, record.file);
    let Some(bytes) = disk.read(&name)? else { return Ok(None) };
    if bytes.len() as u64 != record.file_bytes
        || <[u8; 32]>::from(Sha256::digest(&bytes)) != record.file_digest
    {
        return Err(StoreError::corrupt(name, "does not hold what was committed"));
    }
    let take = || {
        let end = header_end(&bytes)?;
        let header = Header::decode(bytes.get(HEADER_AT..end)?)?;
        let (text, prepared) = bytes[end..].split_at_checked(header.text_bytes)?;
        let text = std::str::from_utf8(text).ok()?.to_owned();
        let version = header.version(id, version, record);
        Some(Stored { version, text, prepared: prepared.to_owned() })
    };
    take().map(Some).ok_or_else(|| StoreError::corrupt(&name, "is no document"))
}
