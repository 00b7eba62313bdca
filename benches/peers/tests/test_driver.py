"""Rounds are interleaved, and an engine that fails leaves its reason."""

from __future__ import annotations

import unittest
from unittest import mock

import driver
from cells import Model
from contenders import Contender, Failed
from shapes import Shape
from tests.support import cell, results


class Fake:
    """Does nothing, and writes down that it did."""

    def __init__(self, name: str, log: list[str], fails: str = "") -> None:
        self.name = self.title = name
        self.about = {"kv": "f16"}
        self._log, self._fails = log, fails

    def load(self, model: Model, path: str) -> None:
        self._do("load")

    def unload(self) -> None:
        self._log.append(f"{self.name} unload")

    def warm(self, shape: Shape) -> None:
        self._do("warm")

    def measure(self, shape: Shape) -> dict[str, float]:
        self._do("measure")
        return {"prefill_tokens_per_s": 1.0}

    def fresh(self, shape: Shape) -> dict[str, float]:
        self._do("fresh")
        return {"load_s": 1.0, "peak_mib": 1.0}

    def cpu_s(self) -> float:
        return 0.0

    def _do(self, what: str) -> None:
        self._log.append(f"{self.name} {what}")
        if what == self._fails:
            raise Failed(f"cannot {what}")


class Driver(unittest.TestCase):
    def setUp(self) -> None:
        self.log: list[str] = []
        self.results = results()
        quiet = mock.patch("driver._say")
        quiet.start()
        self.addCleanup(quiet.stop)

    def run_on(self, contenders: list[Contender], key: str) -> None:
        driver.measure(self.results, contenders, [cell(key)], {"smollm2": "a file"})

    def test_engines_take_turns_within_a_round_and_the_first_changes(self) -> None:
        self.run_on([Fake("llama", self.log), Fake("pith", self.log)], "smollm2/prefill-512")
        measured = [line.split()[0] for line in self.log if line.endswith("measure")]
        self.assertEqual(measured, ["llama", "pith", "pith", "llama", "llama", "pith"])
        self.assertEqual(self.log[-2:], ["llama unload", "pith unload"])

    def test_one_that_cannot_load_or_warm_up_is_left_out_with_its_reason(self) -> None:
        for fails in ("load", "warm"):
            self.log.clear()
            self.results = results()
            self.run_on([Fake("llama", self.log, fails), Fake("pith", self.log)], "smollm2/prefill-512")
            self.assertEqual(self.results.of(cell("smollm2/prefill-512"), "llama").reason, f"cannot {fails}")
            self.assertNotIn("llama measure", self.log)
            self.assertEqual(self.log.count("pith measure"), 3)

    def test_a_failing_round_leaves_its_reason_and_the_others_go_on(self) -> None:
        self.run_on([Fake("llama", self.log, "measure"), Fake("pith", self.log)], "smollm2/prefill-512")
        self.assertEqual(self.results.of(cell("smollm2/prefill-512"), "llama").reason, "cannot measure")
        self.assertEqual(len(self.results.of(cell("smollm2/prefill-512"), "pith").runs), 3)

    def test_memory_is_measured_once_in_a_process_of_its_own(self) -> None:
        self.run_on([Fake("llama", self.log)], "smollm2/peak-64")
        self.assertEqual(self.log, ["llama load", "llama fresh", "llama unload"])
