//! Free space.

use std::path::Path;
use std::process::{Command, Stdio};

/// Bytes free to us on the disk that holds `folder` (or its nearest ancestor that exists), by
/// POSIX `df`; `None` where it cannot be told. The standard library has no call for this.
pub(crate) fn free_bytes(folder: &Path) -> Option<u64> {
    let existing = folder.ancestors().find(|ancestor| ancestor.is_dir())?;
    let output = Command::new("df")
        .arg("-Pk")
        .arg(existing)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    parse(&String::from_utf8_lossy(&output.stdout))
}

/// The fourth column of the second line, in blocks of 1,024. Names of devices and mount points may
/// hold blanks, so the columns are found from the one that ends in `%`.
fn parse(output: &str) -> Option<u64> {
    let columns: Vec<&str> = output.lines().nth(1)?.split_whitespace().collect();
    let percent = columns.iter().position(|column| {
        column.strip_suffix('%').is_some_and(|digits| digits.parse::<u32>().is_ok())
    })?;
    let blocks: u64 = columns.get(percent.checked_sub(1)?)?.parse().ok()?;
    blocks.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn df_is_read_by_its_columns() {
        let plain = "Filesystem 1024-blocks Used Available Capacity Mounted on\n\
                     /dev/sda1 1000 400 600 40% /\n";
        assert_eq!(parse(plain), Some(600 * 1024));
        let blanks = "Filesystem 1024-blocks Used Available Capacity Mounted on\n\
                      my disk 1000 400 0 100% /media/50% off\n";
        assert_eq!(parse(blanks), Some(0));
        assert_eq!(parse("df: command failed\n"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn a_folder_that_does_not_exist_yet_is_measured_by_its_ancestor() {
        let folder = tempfile::tempdir().unwrap();
        let free = free_bytes(&folder.path().join("not/yet")).unwrap();
        assert!(free > 0);
    }
}
