"""What this machine is, as far as the figures depend on it."""

from __future__ import annotations

import os
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_STAT = Path("/proc/stat")


def cpu_name() -> str:
    """As the CPU calls itself."""
    return _cpuinfo("model name") or "unknown CPU"


def cpu_flags() -> frozenset[str]:
    """The features the kernel reports."""
    return frozenset(_cpuinfo("flags").split())


def vector_sets(flags: frozenset[str]) -> list[str]:
    """The instruction sets that matter here, the widest last."""
    names = {
        "avx2": "AVX2",
        "avx_vnni": "AVX-VNNI",
        "avx512f": "AVX-512",
        "avx512_vnni": "AVX-512 VNNI",
        "avx512_bf16": "AVX-512 BF16",
        "amx_int8": "AMX int8",
        "amx_bf16": "AMX bf16",
    }
    return [name for flag, name in names.items() if flag in flags]


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))


def busy_s() -> float:
    """Time all cores together have worked since boot, for whomever; a hypervisor's theft counts."""
    # user nice system idle iowait irq softirq steal, in ticks
    ticks = [int(field) for field in _STAT.read_text().splitlines()[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def memory_gib() -> float:
    """Memory of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _cpuinfo(key: str) -> str:
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return ""
    found = (line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key)
    return next(found, "")
