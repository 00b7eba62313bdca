"""The engines as the driver sees them: something that measures a shape, or says why it cannot."""

from __future__ import annotations

from typing import Protocol

from cells import Model
from shapes import Shape


class Failed(Exception):
    """Why an engine has no figure, in one line."""


class Contender(Protocol):
    """An engine under measurement."""

    name: str
    title: str
    about: dict[str, str]
    """`version`, `isa` and `kv`, once a model is loaded."""

    def load(self, model: Model, path: str) -> None:
        """Makes ready for runs on a model."""

    def unload(self) -> None:
        """Gives its memory back."""

    def warm(self, shape: Shape) -> None:
        """Runs what need not be timed before the first `measure` of a shape."""

    def measure(self, shape: Shape) -> dict[str, float]:
        """Figures of one run (`shapes.figures`)."""

    def fresh(self, shape: Shape) -> dict[str, float]:
        """In a process of its own: `load_s`, then a run of the shape, then `peak_mib`."""

    def cpu_s(self) -> float:
        """Processor time its processes have taken so far."""
