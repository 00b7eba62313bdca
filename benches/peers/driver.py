"""Runs the cells: every engine in turn within a round, so that what disturbs the machine disturbs all."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable

import machine
from cells import Cell, Model, Place, Rounds
from contenders import Contender, Failed
from results import Measured, Results


def measure(results: Results, contenders: list[Contender], cells: list[Cell], paths: dict[str, str]) -> None:
    """Fills `results` as it goes, so that an interrupted run leaves what it has."""
    for model in dict.fromkeys(cell.model for cell in cells):
        of_model = [cell for cell in cells if cell.model == model]
        ready = _loaded(results, contenders, model, paths[model.name], of_model)
        try:
            for cell in of_model:
                _cell(results, ready, cell)
        finally:
            for contender in contenders:
                contender.unload()


def _loaded(
    results: Results, contenders: list[Contender], model: Model, path: str, cells: list[Cell]
) -> list[Contender]:
    """Those that can read the model."""
    ready = []
    for contender in contenders:
        try:
            contender.load(model, path)
            results.about[contender.name] = contender.about
            ready.append(contender)
        except Failed as failed:
            _say(f"{contender.title} cannot run {model.title}: {failed}")
            for cell in cells:
                results.of(cell, contender.name).reason = str(failed)
    return ready


def _cell(results: Results, contenders: list[Contender], cell: Cell) -> None:
    ready = list(_warmed(results, contenders, cell)) if cell.place is Place.RESIDENT else list(contenders)
    rounds = 1 if cell.rounds is Rounds.ONE else results.repeat
    for n in range(rounds):
        # Who is first changes from round to round.
        first = n % max(len(ready), 1)
        for contender in ready[first:] + ready[:first]:
            _once(results.of(cell, contender.name), contender, cell)
            _say(f"{cell.key}, round {n + 1} of {rounds}: {_told(results, contender, cell)}")


def _warmed(results: Results, contenders: list[Contender], cell: Cell) -> Iterable[Contender]:
    for contender in contenders:
        try:
            contender.warm(cell.shape)
            yield contender
        except Failed as failed:
            results.of(cell, contender.name).reason = str(failed)
            _say(f"{cell.key}: {contender.title}: {failed}")


def _once(measured: Measured, contender: Contender, cell: Cell) -> None:
    """One measurement, with who kept the cores busy meanwhile. What fails once leaves its reason."""
    began, all_s, own_s = time.monotonic(), machine.busy_s(), contender.cpu_s()
    try:
        run = contender.measure(cell.shape) if cell.place is Place.RESIDENT else contender.fresh(cell.shape)
    except Failed as failed:
        measured.reason = str(failed)
        return
    measured.runs.append(run)
    took = time.monotonic() - began
    own_s = contender.cpu_s() - own_s
    measured.cores_used.append(own_s / took)
    measured.cores_taken.append(max(0.0, machine.busy_s() - all_s - own_s) / took)


def _told(results: Results, contender: Contender, cell: Cell) -> str:
    measured = results.of(cell, contender.name)
    if not measured.runs:
        return f"{contender.title}: {measured.reason}"
    figures = (f"{measured.runs[-1][row.figure]:.2f} {row.unit}" for row in cell.rows if row.figure in measured.runs[-1])
    return f"{contender.title} {', '.join(figures)}"


def _say(what: str) -> None:
    print(f"peers: {what}", file=sys.stderr, flush=True)
