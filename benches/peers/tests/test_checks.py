"""What makes a run suspicious is said."""

from __future__ import annotations

import unittest

import checks
from tests.support import fill, results

_PREFILL = "prefill_tokens_per_s"


class AgainstReference(unittest.TestCase):
    def test_a_peer_far_below_its_reference_is_a_warning(self) -> None:
        made = results()
        fill(made, "smollm2/prefill-512", "llama", _PREFILL, 830, 831, 832)
        notes = checks.notes(made)
        self.assertEqual(len(notes), 1)
        self.assertTrue(notes[0].startswith("WARNING: llama.cpp is 11% below its reference in smollm2/prefill-512"))

    def test_one_within_ten_percent_is_not(self) -> None:
        made = results()
        fill(made, "smollm2/prefill-512", "llama", _PREFILL, 845, 846, 847)
        fill(made, "smollm2/decode-1", "openvino", "decode_tokens_per_s", 60, 60, 60)
        self.assertEqual(checks.notes(made), [])

    def test_a_llama_without_the_tiles_of_the_machine_is_a_warning(self) -> None:
        made = results()
        made.about["llama"]["isa"] = "AVX2, AVX512"
        self.assertEqual(checks.notes(made), ["WARNING: this machine has AMX and llama.cpp was compiled without it"])

    def test_another_kv_type_is_not_compared_but_said(self) -> None:
        made = results()
        made.about["openvino"] = {"kv": "f16"}
        fill(made, "smollm2/prefill-512", "openvino", _PREFILL, 100)
        fill(made, "smollm2/prefill-2048", "openvino", _PREFILL, 100)
        self.assertEqual(
            checks.notes(made), ["OpenVINO GenAI ran with f16 KV and its reference is with u8: not compared"]
        )

    def test_another_machine_or_number_of_threads_has_no_reference(self) -> None:
        for made in (results(flags=frozenset({"avx2"})), results(threads=1)):
            fill(made, "smollm2/prefill-512", "llama", _PREFILL, 1)
            notes = checks.notes(made)
            self.assertEqual(len(notes), 1)
            self.assertTrue(notes[0].startswith("there is no reference"))


class Disturbance(unittest.TestCase):
    def test_rounds_that_differ_are_said(self) -> None:
        made = results()
        fill(made, "smollm2/decode-1", "pith", "decode_tokens_per_s", 100, 104, 111)
        fill(made, "smollm2/run-1", "pith", "output_tokens_per_s", 100, 101, 109)
        self.assertEqual(
            checks.notes(made),
            ["pith, smollm2/decode-1: the rounds spread over 11% of their median (decode_tokens_per_s)"],
        )

    def test_others_at_work_are_said(self) -> None:
        made = results()
        fill(made, "smollm2/decode-1", "pith", "decode_tokens_per_s", 100).cores_taken = [0.05, 0.9]
        notes = checks.notes(made)
        self.assertEqual(len(notes), 1)
        self.assertIn("in 1 of 2 measurements", notes[0])

    def test_a_peer_on_too_few_threads_is_said_for_prefill_alone(self) -> None:
        made = results()
        for key, figure, taken in (
            ("smollm2/prefill-2048", _PREFILL, 0.0),
            ("smollm2/prefill-7000", _PREFILL, 1.0),
            ("smollm2/decode-1", "decode_tokens_per_s", 0.0),
        ):
            measured = fill(made, key, "llama", figure, 500)
            measured.cores_used, measured.cores_taken = [1.0, 1.1], [taken, taken]
        notes = [note for note in checks.notes(made) if "cores busy in smollm2" in note]
        self.assertEqual(notes, ["llama.cpp kept 1.1 of 2 cores busy in smollm2/prefill-2048"])
