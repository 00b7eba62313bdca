//! Free space.

use std::path::Path;

/// Bytes free to us on the disk that holds `folder` (or its nearest ancestor that exists), by
/// POSIX `statvfs`; `None` where it cannot be told. The standard library has no call for this.
pub(crate) fn free_bytes(folder: &Path) -> Option<u64> {
    let existing = folder.ancestors().find(|ancestor| ancestor.is_dir())?;
    let disk = rustix::fs::statvfs(existing).ok()?;
    // Blocks are counted in fragments, and some are kept for the superuser.
    disk.f_bavail.checked_mul(disk.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_does_not_exist_yet_is_measured_by_its_ancestor() {
        let folder = tempfile::tempdir().unwrap();
        let free = free_bytes(&folder.path().join("not/yet")).unwrap();
        assert!(free > 0);
    }

    #[test]
    fn a_disk_without_room_for_files_of_ours_has_no_free_bytes() {
        // Linux keeps no blocks for its process table.
        if cfg!(target_os = "linux") {
            assert_eq!(free_bytes(Path::new("/proc")), Some(0));
        }
    }
}
