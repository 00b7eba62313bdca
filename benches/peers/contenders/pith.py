"""pith, by its own `pith bench offline`: a process for each measurement."""

from __future__ import annotations

import json
import resource
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from cells import Model
from contenders import Failed
from shapes import WARM_UP_TOKENS, Shape


class Pith:
    """The binary. Its figures leave out the load, and come after a warm-up in the same process."""

    name, title = "pith", "pith"

    def __init__(self, binary: Path, threads: int, kv: str, extra: list[str], timeout_s: float) -> None:
        self.about: dict[str, str] = {}
        self._binary, self._timeout_s = binary, timeout_s
        self._options = ["--threads", str(threads), *([] if kv == "own" else ["--kv-type", kv]), *extra]
        self._path = ""

    def load(self, model: Model, path: str) -> None:
        """See `Contender`."""
        self._path = path
        version = self._output([str(self._binary), "--version"]).strip()
        tried = self._bench(["4"], ["1"], 1)
        # Off unless an option turns it on; then the table must say so.
        speculation = tried.get("speculation", "off")
        isa = tried["executor"] + ("" if speculation == "off" else f", speculation {speculation}")
        self.about = {"version": version, "isa": isa, "kv": tried["kv_type"]}

    def unload(self) -> None:
        """See `Contender`."""

    def warm(self, shape: Shape) -> None:
        """See `Contender`. Every process warms itself."""

    def measure(self, shape: Shape) -> dict[str, float]:
        """See `Contender`. Several values of an option are run in turn: the first is the warm-up, the last counts."""
        prompts, outputs = [shape.prompt_tokens], [shape.output_tokens]
        if shape.output_tokens > 1:
            outputs = [2, *outputs]
        elif shape.prompt_tokens > 1:
            prompts = [min(WARM_UP_TOKENS, shape.prompt_tokens - 1), *prompts]
        measured = self._bench([str(n) for n in prompts], [str(n) for n in outputs], shape.streams)
        names = ("seconds", "prefill_tokens_per_s", "decode_tokens_per_s", "output_tokens_per_s")
        return {name: measured[name] for name in names if measured[name] is not None}

    def fresh(self, shape: Shape) -> dict[str, float]:
        """See `Contender`."""
        measured = self._bench([str(shape.prompt_tokens)], [str(shape.output_tokens)], shape.streams)
        return {"load_s": measured["load_s"], "peak_mib": measured["peak_rss_mib"]}

    def cpu_s(self) -> float:
        """See `Contender`."""
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    def _bench(self, prompts: list[str], outputs: list[str], streams: int) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            results = Path(folder) / "results.json"
            command = [str(self._binary), "bench", "offline", "--model", self._path, "--repeat", "1"]
            command += ["--prompt-tokens", ",".join(prompts), "--output-tokens", ",".join(outputs)]
            command += ["--streams", str(streams), "--json", str(results), *self._options]
            self._output(command)
            return json.loads(results.read_text())[-1]

    def _output(self, command: list[str]) -> str:
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=self._timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"no answer within {self._timeout_s:.0f} s") from None
        except OSError as error:
            raise Failed(f"cannot run {self._binary}: {error}") from None
        if done.returncode != 0:
            said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
            raise Failed(" ".join(said[:3]) or f"exit status {done.returncode}")
        return done.stdout
