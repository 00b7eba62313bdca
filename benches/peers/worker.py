"""A peer in a process of its own: requests come as lines of JSON, answers go as lines of JSON.

Run in the peers' environment: `python worker.py llama`. Between requests it blocks on its standard input. What the
engines print goes to standard error, which the driver keeps as a log.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from engines.engine import Engine, Settings
from shapes import Shape, figures


def resident_kib(field: str) -> int:
    """`VmRSS` (now) or `VmHWM` (at most so far) of this process."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field + ":"))


def engine(name: str) -> Callable[[Settings], Engine]:
    """Loads an engine's library; what is returned loads a model."""
    if name == "llama":
        from engines.llama import Llama

        return Llama
    if name == "openvino":
        from engines.openvino import OpenVino

        return OpenVino
    raise ValueError(f"no engine is called {name}")


class Worker:
    """One engine, at most one model."""

    def __init__(self, name: str) -> None:
        # What the interpreter holds is not the engine's.
        self._own_kib = resident_kib("VmRSS")
        self._make = engine(name)
        self._engine: Engine | None = None

    def load(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Loads the model and has its first token; the library is there already."""
        began = time.perf_counter()
        self._engine = self._make(Settings(**settings))
        self._engine.run(Shape(4, 1))
        load_s = time.perf_counter() - began
        return {"load_s": load_s, "about": self._engine.describe()}

    def warm(self, shape: dict[str, int]) -> dict[str, Any]:
        """Room for a shape, and an untimed run."""
        assert self._engine, "load comes first"
        asked = Shape(**shape)
        self._engine.reserve(asked)
        self._engine.run(asked.warm_up())
        return {}

    def run(self, shape: dict[str, int]) -> dict[str, Any]:
        """Figures of one run."""
        assert self._engine, "load comes first"
        asked = Shape(**shape)
        return figures(self._engine.run(asked), asked)

    def peak(self) -> dict[str, Any]:
        """Most memory the process held, less what the bare interpreter did."""
        return {"peak_mib": (resident_kib("VmHWM") - self._own_kib) / 1024}


def main() -> None:
    """Answers until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    made: Worker | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            made = made or Worker(sys.argv[1])
            answer = getattr(made, request.pop("do"))(**request)
        except Exception as error:  # noqa: BLE001: whatever a peer throws is told, not lost
            lines = str(error).strip().splitlines() or [type(error).__name__]
            answer = {"error": " ".join(part.strip() for part in lines)}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
