"""Looks for reasons not to believe a run."""

from __future__ import annotations

import reference
from cells import Cell, Place, Row
from results import Measured, Results

SPREAD = 0.10
# Cores that others may take before a measurement counts as disturbed.
TAKEN = 0.1
# A prefill has work for every thread: an engine that keeps fewer busy was hindered or set up wrong.
USED = 0.8
_PREFILL_TOKENS = 512


def notes(results: Results) -> list[str]:
    """One line for each thing a reader should know."""
    return [
        *_amx_unused(results),
        *_against_reference(results),
        *_idle_machine(results),
        *_threads(results),
        *_spreads(results),
    ]


def _amx_unused(results: Results) -> list[str]:
    """A compiler that does not see the tiles leaves them out without a word."""
    isa = results.about.get("llama", {}).get("isa")
    if isa is None or "amx_int8" not in results.flags or "AMX_INT8" in isa:
        return []
    return ["WARNING: this machine has AMX and llama.cpp was compiled without it"]


def _against_reference(results: Results) -> list[str]:
    if not reference.applies(results.flags, results.cores, results.threads):
        return [
            "there is no reference for the peers on this kind of machine (there is one for"
            f" {reference.CORES} cores with AVX-512 and AMX and as many threads): their threads, the spread of the"
            " rounds and the load of the machine are checked instead"
        ]
    found, other_kv = [], set()
    for known in reference.REFERENCES:
        entry = results.cells.get(known.cell)
        measured = entry[1].get(known.engine) if entry else None
        value = measured.median(known.figure) if measured else None
        if value is None:
            continue
        title = results.titles[known.engine]
        if (kv := results.about.get(known.engine, {}).get("kv")) != reference.KV[known.engine]:
            other_kv.add(f"{title} ran with {kv} KV and its reference is with {reference.KV[known.engine]}")
        elif value < reference.ENOUGH * known.value:
            found.append(
                f"WARNING: {title} is {1 - value / known.value:.0%} below its reference in {known.cell}"
                f" ({value:.0f} against {known.value:.0f} {known.figure})"
            )
    return found + [f"{what}: not compared" for what in sorted(other_kv)]


def _idle_machine(results: Results) -> list[str]:
    taken = [cores for _, _, measured in _entries(results) for cores in measured.cores_taken]
    disturbed = [cores for cores in taken if cores > TAKEN]
    if not disturbed:
        return []
    return [
        f"the machine was not idle: in {len(disturbed)} of {len(taken)} measurements others kept more than"
        f" {TAKEN} cores busy, {max(disturbed):.1f} at most"
    ]


def _threads(results: Results) -> list[str]:
    found = []
    for cell, engine, measured in _entries(results):
        shape = cell.shape
        if cell.place is Place.FRESH or shape.output_tokens > 1 or shape.prompt_tokens < _PREFILL_TOKENS:
            continue
        # pith's processes load a model in that time too, so theirs says nothing; nor do rounds in which others
        # had the cores.
        undisturbed = [used for used, taken in zip(measured.cores_used, measured.cores_taken) if taken <= TAKEN]
        if engine != "pith" and undisturbed and (busy := max(undisturbed)) < USED * results.threads:
            found.append(f"{results.titles[engine]} kept {busy:.1f} of {results.threads} cores busy in {cell.key}")
    return found


def _spreads(results: Results) -> list[str]:
    found = []
    for cell, engine, measured in _entries(results):
        for row in _wide(cell.rows, measured):
            spread = f"{measured.spread(row.figure):.0%} of their median"
            found.append(f"{results.titles[engine]}, {cell.key}: the rounds spread over {spread} ({row.figure})")
    return found


def _wide(rows: tuple[Row, ...], measured: Measured) -> list[Row]:
    return [row for row in rows if measured.spread(row.figure) > SPREAD]


def _entries(results: Results) -> list[tuple[Cell, str, Measured]]:
    return [(cell, engine, it) for cell, of in results.cells.values() for engine, it in of.items()]
