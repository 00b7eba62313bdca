//! How much memory this process may use.

use std::fs;

/// Share of it that the KV cache takes unless the settings say otherwise.
const KV_SHARE: usize = 4;
/// And no more than this: beyond it a server on a CPU is out of time before it is out of KV.
const KV_CAP: usize = 4096 << 20;
/// Taken for the memory where the system does not tell.
const UNKNOWN: usize = 2048 << 20;

/// Bytes of KV cache: `mib` if it is not 0, else a share of the memory.
pub(super) fn kv_bytes(mib: usize) -> usize {
    match mib {
        0 => (usable() / KV_SHARE).min(KV_CAP),
        mib => mib << 20,
    }
}

/// The cgroup's limit or the machine's memory, whichever is less, in bytes.
fn usable() -> usize {
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let of_group = limits
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok()?.trim().parse::<usize>().ok());
    let of_machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    of_group.chain(of_machine).min().unwrap_or(UNKNOWN)
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn total(meminfo: &str) -> Option<usize> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read() {
        assert_eq!(total("MemTotal:       24581352 kB\nMemFree: 1 kB\n"), Some(24_581_352 * 1024));
        assert_eq!(total("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn what_is_configured_is_taken() {
        assert_eq!(kv_bytes(3), 3 << 20);
        assert!(kv_bytes(0) > 0 && kv_bytes(0) <= KV_CAP);
    }
}
