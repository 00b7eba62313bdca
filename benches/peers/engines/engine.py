"""What a peer must be able to do inside its worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from shapes import Shape


@dataclass(frozen=True)
class Settings:
    """Equal for every engine, as far as it allows."""

    model: str
    vocab: int
    threads: int
    kv: str
    """`f16`, `int8`, or `own`: the engine's default."""


class Engine(Protocol):
    """A loaded model. It must not compute while nobody asks it to: its rivals are being measured then."""

    def describe(self) -> dict[str, str]:
        """`version`, `isa` and `kv`, in words."""

    def reserve(self, shape: Shape) -> None:
        """Makes room for a shape and those within it, where the engine has to."""

    def run(self, shape: Shape) -> list[list[float]]:
        """Answers all streams, greedily and to their full length, nothing cached from before.

        When each token of each stream arrived, in seconds since all were sent.
        """
