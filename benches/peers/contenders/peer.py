"""An engine in a worker process (`worker.py`)."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import install
from cells import Model
from contenders import Failed
from home import HERE, home
from shapes import Shape


class Peer:
    """llama.cpp or OpenVINO. A worker that died or hung is started anew by the next measurement."""

    def __init__(self, name: str, title: str, threads: int, kv: str, timeout_s: float) -> None:
        self.name, self.title = name, title
        self.about: dict[str, str] = {}
        self._threads, self._kv, self._timeout_s = threads, kv, timeout_s
        self._settings: dict[str, Any] = {}
        self._worker: _Worker | None = None
        self._past_cpu_s = 0.0

    def load(self, model: Model, path: str) -> None:
        """See `Contender`."""
        self._settings = {"model": path, "vocab": model.vocab, "threads": self._threads, "kv": self._kv}
        self._loaded()

    def unload(self) -> None:
        """See `Contender`."""
        if self._worker:
            self._past_cpu_s += self._worker.cpu_s()
            self._worker.end()
            self._worker = None

    def warm(self, shape: Shape) -> None:
        """See `Contender`."""
        self._ask("warm", shape)

    def measure(self, shape: Shape) -> dict[str, float]:
        """See `Contender`."""
        return self._ask("run", shape)

    def fresh(self, shape: Shape) -> dict[str, float]:
        """See `Contender`."""
        worker = _Worker(self.name)
        try:
            loaded = worker.ask("load", self._timeout_s, settings=self._settings)
            worker.ask("run", self._timeout_s, shape=shape.as_json())
            peak = worker.ask("peak", self._timeout_s)
        finally:
            self._past_cpu_s += worker.cpu_s()
            worker.end()
        return {"load_s": loaded["load_s"], **peak}

    def cpu_s(self) -> float:
        """See `Contender`."""
        return self._past_cpu_s + (self._worker.cpu_s() if self._worker else 0.0)

    def _ask(self, do: str, shape: Shape) -> dict[str, Any]:
        worker = self._loaded()
        try:
            return worker.ask(do, self._timeout_s, shape=shape.as_json())
        except Failed:
            self.unload()
            raise

    def _loaded(self) -> _Worker:
        if not self._worker:
            self._worker = _Worker(self.name)
            try:
                self.about = self._worker.ask("load", self._timeout_s, settings=self._settings)["about"]
            except Failed:
                self.unload()
                raise
        return self._worker


class _Worker:
    """The process, and the lines to and from it."""

    def __init__(self, name: str) -> None:
        self._log = home() / "log" / f"{name}.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [str(install.python()), str(HERE / "worker.py"), name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                # Else a failing assertion in llama.cpp starts a debugger.
                # Ctrl-C is the driver's: it ends its workers itself.
                start_new_session=True,
                env=os.environ | {"GGML_NO_BACKTRACE": "1"},
            )

    def ask(self, do: str, timeout_s: float, **arguments: Any) -> dict[str, Any]:
        """Sends one request and waits for its answer."""
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write((json.dumps({"do": do, **arguments}) + "\n").encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Failed(self._death()) from None
        answer = json.loads(self._line(timeout_s))
        if reason := answer.get("error"):
            raise Failed(reason)
        return answer

    def cpu_s(self) -> float:
        """User and system time of the process, all threads."""
        try:
            # The fields after the name, which may hold spaces; user and system time are the 14th and 15th of all.
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        """Ends the process, gently if it listens."""
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.close()
            self._process.wait(timeout=5)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            pass
        finally:
            # Also when a second Ctrl-C cuts the waiting short.
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._process.stdout.close()

    def _line(self, timeout_s: float) -> bytes:
        assert self._process.stdout
        out = self._process.stdout.fileno()
        until = time.monotonic() + timeout_s
        line = b""
        while not line.endswith(b"\n"):
            if not select.select([out], [], [], max(0.0, until - time.monotonic()))[0]:
                self._process.kill()
                raise Failed(f"no answer within {timeout_s:.0f} s")
            part = os.read(out, 1 << 16)
            if not part:
                raise Failed(self._death())
            line += part
        return line

    def _death(self) -> str:
        status = self._process.wait()
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        return f"its process died ({how}); what it said is in {self._log}"
