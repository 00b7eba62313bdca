//! Threads bound to CPUs, where the system can.

/// The CPUs this process may use, ascending; empty where the system does not say.
#[cfg(target_os = "linux")]
pub(super) fn allowed() -> Vec<usize> {
    // SAFETY: an all-zero set is a valid one; the call fills it.
    let (set, failed) = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        let failed = libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) != 0;
        (set, failed)
    };
    if failed {
        return Vec::new(); // more CPUs than the set has room for
    }
    // SAFETY: `cpu` is below the set's size.
    (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect()
}

/// Binds the calling thread to `cpu`; where that is refused it stays free.
#[cfg(target_os = "linux")]
pub(super) fn to(cpu: usize) {
    // SAFETY: an all-zero set is a valid one, and `cpu` came from `allowed`.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn allowed() -> Vec<usize> {
    Vec::new()
}

#[cfg(not(target_os = "linux"))]
pub(super) fn to(_cpu: usize) {}
