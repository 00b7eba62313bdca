"""The table says what was measured, and why where nothing was."""

from __future__ import annotations

import json
import unittest

import table
from tests.support import cell, fill, results


class Ratios(unittest.TestCase):
    def test_more_is_better_for_rates(self) -> None:
        made = results()
        at = cell("smollm2/prefill-512")
        for engine, value in {"openvino": 1334.0, "llama": 933.0, "pith": 4002.0}.items():
            fill(made, at.key, engine, "prefill_tokens_per_s", value)
        self.assertAlmostEqual(made.against_peers(at, at.rows[0]) or 0, 3.0)

    def test_less_is_better_for_time_and_memory(self) -> None:
        made = results()
        at = cell("smollm2/start-1")
        for engine, value in {"openvino": 9.0, "llama": 1.0, "pith": 0.5}.items():
            fill(made, at.key, engine, "load_s", value)
        self.assertAlmostEqual(made.against_peers(at, at.rows[0]) or 0, 2.0)

    def test_without_a_peer_or_without_pith_there_is_none(self) -> None:
        made = results()
        at = cell("smollm2/prefill-512")
        fill(made, at.key, "pith", "prefill_tokens_per_s", 1.0)
        self.assertIsNone(made.against_peers(at, at.rows[0]))
        made = results()
        fill(made, at.key, "llama", "prefill_tokens_per_s", 1.0)
        self.assertIsNone(made.against_peers(at, at.rows[0]))


class Markdown(unittest.TestCase):
    def test_a_row_holds_medians_ratio_and_target(self) -> None:
        made = results()
        fill(made, "smollm2/prefill-512", "openvino", "prefill_tokens_per_s", 1300, 1400, 1200)
        fill(made, "smollm2/prefill-512", "llama", "prefill_tokens_per_s", 900, 1000)
        fill(made, "smollm2/prefill-512", "pith", "prefill_tokens_per_s", 5200)
        self.assertIn("| prefill 512 tokens, tok/s | 1,300 | 950 | 5,200 | 4.00x | 4x |\n", table.markdown(made))

    def test_a_missing_figure_is_a_dash_with_its_reason(self) -> None:
        made = results()
        fill(made, "gemma3/prefill-512", "llama", "prefill_tokens_per_s", 270)
        made.of(cell("gemma3/prefill-512"), "openvino").reason = "cannot read the file"
        text = table.markdown(made)
        self.assertIn("| prefill 512 tokens, tok/s | – [1] | 270 | – [2] | – | – |\n", text)
        self.assertIn("- [1] OpenVINO GenAI: cannot read the file\n- [2] pith: not measured\n", text)

    def test_a_figure_that_no_round_has_is_told_apart_from_one_not_measured(self) -> None:
        made = results()
        for engine in made.titles:
            fill(made, "smollm2/run-8", engine, "output_tokens_per_s", 200)
        text = table.markdown(made)
        self.assertIn("| the same, decode alone, 8 streams, tok/s | – [1] | – [2] | – [3] | – | – |\n", text)
        self.assertIn("- [3] pith: no decode_tokens_per_s in any round (such a time did not occur)\n", text)

    def test_a_lost_round_is_marked(self) -> None:
        made = results()
        fill(made, "smollm2/decode-1", "llama", "decode_tokens_per_s", 112).reason = "its process died (SIGSEGV)"
        text = table.markdown(made)
        self.assertIn(" | 112 [2] | ", text)
        self.assertIn("- [2] llama.cpp: its process died (SIGSEGV)\n", text)

    def test_what_an_engine_says_cannot_break_the_table(self) -> None:
        self.assertIn("| pith | – | f16 | cpu amx / 2 |\n", table.markdown(results()))

    def test_notes_and_a_machine_without_amx_are_told(self) -> None:
        made = results(flags=frozenset({"avx2"}))
        made.notes = ["WARNING: something"]
        text = table.markdown(made)
        self.assertIn("; this one has none.", text)
        self.assertIn("- WARNING: something\n", text)


class Json(unittest.TestCase):
    def test_it_holds_medians_and_rounds(self) -> None:
        made = results()
        fill(made, "smollm2/run-8", "llama", "output_tokens_per_s", 1, 2, 4)
        (one,) = json.loads(json.dumps(table.as_json(made)))["cells"]
        self.assertEqual((one["cell"], one["engine"], one["streams"]), ("smollm2/run-8", "llama", 8))
        self.assertEqual((one["output_tokens_per_s"], one["decode_tokens_per_s"]), (2, None))
        self.assertEqual(len(one["rounds"]), 3)
