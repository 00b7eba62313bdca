"""The results as Markdown for people and JSON for machines."""

from __future__ import annotations

from typing import Any

from cells import Cell, Row
from results import Results

_DASH = "–"


def markdown(results: Results) -> str:
    """The side-by-side table, what the engines are, and the notes."""
    machine = ", ".join(results.machine.values())
    lines = [
        "# pith and its peers",
        "",
        f"{machine}. Threads: {results.threads}. KV asked for: {results.kv}. Rounds: {results.repeat}, of which the median.",
        "",
        *_engines(results),
    ]
    reasons: list[str] = []
    for title in dict.fromkeys(cell.model.title for cell, _ in results.cells.values()):
        lines += ["", f"## {title}", "", *_rows(results, title, reasons)]
    lines += ["", f"Targets are for machines with AMX{'' if 'amx_bf16' in results.flags else '; this one has none'}."]
    if reasons:
        lines += ["", *(f"- [{n}] {reason}" for n, reason in enumerate(reasons, 1))]
    if results.notes:
        lines += ["", "## Notes", "", *(f"- {note}" for note in results.notes)]
    return "\n".join(lines) + "\n"


def as_json(results: Results) -> dict[str, Any]:
    """Medians and every round."""
    cells = []
    for cell, of in results.cells.values():
        for engine, measured in of.items():
            figures = {row.figure: measured.median(row.figure) for row in cell.rows}
            cells.append(
                {
                    "cell": cell.key,
                    "model": cell.model.name,
                    **cell.shape.as_json(),
                    "engine": engine,
                    **figures,
                    "rounds": measured.runs,
                    "cores_used": measured.cores_used,
                    "cores_taken_by_others": measured.cores_taken,
                    "reason": measured.reason or None,
                }
            )
    return {
        "machine": results.machine,
        "threads": results.threads,
        "kv": results.kv,
        "repeat": results.repeat,
        "engines": results.about,
        "cells": cells,
        "notes": results.notes,
    }


def _engines(results: Results) -> list[str]:
    lines = ["| engine | version | KV | instruction set |", "|---|---|---|---|"]
    for engine, title in results.titles.items():
        about = results.about.get(engine, {})
        cells = [_escaped(about.get(key, _DASH)) for key in ("version", "kv", "isa")]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def _rows(results: Results, model: str, reasons: list[str]) -> list[str]:
    titles = list(results.titles.values())
    lines = [
        f"| work | {' | '.join(titles)} | against the better peer | target |",
        f"|---|{'---:|' * len(titles)}---:|---|",
    ]
    for cell, _ in results.cells.values():
        if cell.model.title == model:
            lines += [_line(results, cell, row, reasons) for row in cell.rows]
    return lines


def _line(results: Results, cell: Cell, row: Row, reasons: list[str]) -> str:
    figures = [_figure(results, cell, row, engine, reasons) for engine in results.titles]
    times = results.against_peers(cell, row)
    against = _DASH if times is None else f"{times:.2f}x"
    return f"| {row.title}, {row.unit} | {' | '.join(figures)} | {against} | {row.target or _DASH} |"


def _figure(results: Results, cell: Cell, row: Row, engine: str, reasons: list[str]) -> str:
    """The median; a dash with its reason where there is none, and a mark where a round was lost."""
    measured = results.of(cell, engine)
    value = measured.median(row.figure)
    shown = _DASH if value is None else _number(value)
    if value is not None and not measured.reason:
        return shown
    absent = f"no {row.figure} in any round (such a time did not occur)" if measured.runs else "not measured"
    reason = f"{results.titles[engine]}: {measured.reason or absent}"
    if reason not in reasons:
        reasons.append(reason)
    return f"{shown} [{reasons.index(reason) + 1}]"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _escaped(text: str) -> str:
    return text.replace("|", "/")
