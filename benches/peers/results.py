"""What has been measured, and how it is summed up."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

from cells import Cell, Row


@dataclass
class Measured:
    """One engine in one cell: a list of figures, one per round, or why there is none."""

    runs: list[dict[str, float]] = field(default_factory=list)
    reason: str = ""
    cores_used: list[float] = field(default_factory=list)
    """Cores the engine kept busy, per round."""
    cores_taken: list[float] = field(default_factory=list)
    """Cores that everything else on the machine kept busy meanwhile."""

    def values(self, figure: str) -> list[float]:
        """That figure of each round that has it."""
        return [run[figure] for run in self.runs if figure in run]

    def median(self, figure: str) -> float | None:
        """The middle of the rounds."""
        values = self.values(figure)
        return median(values) if values else None

    def spread(self, figure: str) -> float:
        """Largest less smallest, as a part of the median."""
        values = self.values(figure)
        return (max(values) - min(values)) / median(values) if values else 0.0


@dataclass
class Results:
    """All of a run of the table."""

    machine: dict[str, str]
    flags: frozenset[str]
    cores: int
    threads: int
    kv: str
    repeat: int
    titles: dict[str, str]
    """Of the engines, in the order of the table's columns; pith is the last."""
    about: dict[str, dict[str, str]] = field(default_factory=dict)
    cells: dict[str, tuple[Cell, dict[str, Measured]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def of(self, cell: Cell, engine: str) -> Measured:
        """The entry of an engine in a cell, made where there is none."""
        return self.cells.setdefault(cell.key, (cell, {}))[1].setdefault(engine, Measured())

    def against_peers(self, cell: Cell, row: Row) -> float | None:
        """How many times better pith is than the better of its peers; none without either."""
        medians = {engine: self.of(cell, engine).median(row.figure) for engine in self.titles}
        pith = medians.pop("pith", None)
        peers = [value for value in medians.values() if value]
        if not pith or not peers:
            return None
        return min(peers) / pith if row.lower_is_better else pith / max(peers)
