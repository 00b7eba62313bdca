//! What this process has taken of the machine.

/// Most memory it ever held, MiB, where the system says so (`VmHWM` of Linux).
pub(super) fn peak_rss_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(target_os = "linux")]
    fn the_peak_is_some_megabytes() {
        assert!(super::peak_rss_mib().is_some_and(|mib| mib > 1.0));
    }
}
