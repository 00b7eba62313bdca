"""The table holds what it should."""

from __future__ import annotations

import unittest

import reference
from cells import CELLS, Place, select


class Cells(unittest.TestCase):
    def test_keys_are_unique(self) -> None:
        self.assertEqual(len({cell.key for cell in CELLS}), len(CELLS))

    def test_patterns_choose(self) -> None:
        keys = [cell.key for cell in select(["gemma3/*", "*/run-64"], quick=False)]
        self.assertEqual(keys[0], "smollm2/run-64")
        self.assertTrue(all(key.startswith("gemma3/") for key in keys[1:]))
        self.assertEqual(select(["nothing"], quick=False), [])
        self.assertEqual(select([], quick=False), CELLS)

    def test_a_quick_run_has_both_models_and_no_long_cell(self) -> None:
        quick = select([], quick=True)
        self.assertEqual({cell.model.name for cell in quick}, {"smollm2", "gemma3"})
        self.assertTrue(all(cell.shape.prompt_tokens <= 512 and cell.shape.streams <= 8 for cell in quick))

    def test_every_reference_is_a_row(self) -> None:
        rows = {(cell.key, row.figure) for cell in CELLS if cell.place is Place.RESIDENT for row in cell.rows}
        for known in reference.REFERENCES:
            self.assertIn((known.cell, known.figure), rows)
