"""The table: which work is measured on which model, and which rows come of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatch

from shapes import Shape


@dataclass(frozen=True)
class Model:
    """A model that `pith pull` fetches."""

    name: str
    title: str
    vocab: int


class Place(Enum):
    """Where a cell is measured."""

    RESIDENT = "a process that has the model loaded and is warm"
    FRESH = "a process of its own, started for it"


class Rounds(Enum):
    """How often a cell is measured."""

    ALL = "as often as asked for"
    ONE = "once: it hardly varies and takes long"


@dataclass(frozen=True)
class Row:
    """One line of the table: a figure of a cell."""

    title: str
    figure: str
    unit: str
    target: str = ""
    lower_is_better: bool = False


@dataclass(frozen=True)
class Cell:
    """Work that every engine does, and the rows it fills."""

    key: str
    model: Model
    shape: Shape
    rows: tuple[Row, ...]
    place: Place = Place.RESIDENT
    rounds: Rounds = Rounds.ALL
    quick: bool = False


SMOLLM2 = Model("smollm2", "SmolLM2-135M-Instruct Q4_1", 49_152)
GEMMA3 = Model("gemma3", "Gemma-3-270M Q4_K_M", 262_144)

_SHORT_PROMPT = 16


def select(patterns: list[str], quick: bool) -> list[Cell]:
    """The cells whose key matches a pattern (`smollm2/*`), all without patterns."""
    offered = [cell for cell in CELLS if cell.quick or not quick]
    return [cell for cell in offered if not patterns or any(fnmatch(cell.key, one) for one in patterns)]


def _prefill(model: Model, tokens: int, target: str, *, quick: bool = False) -> Cell:
    row = Row(f"prefill {tokens:,} tokens", "prefill_tokens_per_s", "tok/s", target)
    return Cell(f"{model.name}/prefill-{tokens}", model, Shape(tokens, 1), (row,), quick=quick)


def _decode(model: Model) -> Cell:
    row = Row("decode, 1 stream", "decode_tokens_per_s", "tok/s", "1.5x or 80 % of bandwidth")
    return Cell(f"{model.name}/decode-1", model, Shape(_SHORT_PROMPT, 128), (row,), quick=True)


def _whole_run(model: Model, streams: int, target: str = "", *, quick: bool = False) -> Cell:
    of = f"{streams} stream{'s' if streams > 1 else ''}"
    rows = [Row(f"128 in + 128 out, {of}, whole run", "output_tokens_per_s", "tok/s", target)]
    if streams > 1:
        rows.append(Row(f"the same, decode alone, {of}", "decode_tokens_per_s", "tok/s"))
    return Cell(f"{model.name}/run-{streams}", model, Shape(128, 128, streams), tuple(rows), quick=quick)


def _start(model: Model) -> Cell:
    rows = (
        Row("load to first token, warm file cache", "load_s", "s", "under 1 s", lower_is_better=True),
        Row("peak memory, 1 stream", "peak_mib", "MiB", "panels + KV + 200 MiB", lower_is_better=True),
    )
    return Cell(f"{model.name}/start-1", model, Shape(128, 128), rows, Place.FRESH, quick=True)


def _peak(model: Model, streams: int) -> Cell:
    row = Row(f"peak memory, {streams} streams", "peak_mib", "MiB", "panels + KV + 200 MiB", lower_is_better=True)
    key = f"{model.name}/peak-{streams}"
    return Cell(key, model, Shape(128, 128, streams), (row,), Place.FRESH, Rounds.ONE)


CELLS = [
    _prefill(SMOLLM2, 512, "4x", quick=True),
    _prefill(SMOLLM2, 2048, ""),
    _prefill(SMOLLM2, 7000, "4x"),
    _decode(SMOLLM2),
    _whole_run(SMOLLM2, 1),
    _whole_run(SMOLLM2, 8, quick=True),
    _whole_run(SMOLLM2, 32, "5x"),
    _whole_run(SMOLLM2, 64, "6x (int8 KV)"),
    _start(SMOLLM2),
    _peak(SMOLLM2, 64),
    _prefill(GEMMA3, 512, "", quick=True),
    _prefill(GEMMA3, 2048, "8x"),
    _decode(GEMMA3),
    _start(GEMMA3),
]
