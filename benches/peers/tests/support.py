"""Results without an engine."""

from __future__ import annotations

from cells import CELLS, Cell
from results import Measured, Results

AMX = frozenset({"avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16"})


def cell(key: str) -> Cell:
    """The cell of the real table."""
    return next(cell for cell in CELLS if cell.key == key)


def results(flags: frozenset[str] = AMX, kv: str = "f16", threads: int = 2) -> Results:
    """Nothing measured, on a machine of 2 cores."""
    titles = {"openvino": "OpenVINO GenAI", "llama": "llama.cpp", "pith": "pith"}
    made = Results({"cpu": "a CPU"}, flags, 2, threads, kv, 3, titles)
    made.about = {"openvino": {"kv": "u8"}, "llama": {"kv": "f16", "isa": "AVX2, AMX_INT8"}, "pith": {"kv": "f16", "isa": "cpu amx | 2"}}
    return made


def fill(made: Results, key: str, engine: str, figure: str, *values: float) -> Measured:
    """Rounds of one figure."""
    measured = made.of(cell(key), engine)
    for n, value in enumerate(values):
        if len(measured.runs) <= n:
            measured.runs.append({})
        measured.runs[n][figure] = value
    return measured
