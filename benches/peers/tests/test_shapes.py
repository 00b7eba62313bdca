"""Prompts and figures mean what they mean in `pith bench offline`."""

from __future__ import annotations

import unittest

from shapes import Shape, figures, prompt


class Prompts(unittest.TestCase):
    def test_the_ids_are_those_of_pith(self) -> None:
        # What the `prompt` of server/app/src/commands/bench/run.rs gives.
        self.assertEqual(prompt(8, 49_152, 1 << 20), [65, 20737, 44387, 12921, 11229, 11722, 3089, 37577])
        last = [60153, 230764, 82278, 176740, 220672, 18620, 151341, 243955]
        self.assertEqual(Shape(8, 1, 64).prompts(262_144)[63], last)

    def test_each_stream_has_a_prompt_of_its_own(self) -> None:
        prompts = Shape(20, 1, 8).prompts(49_152)
        self.assertEqual(len({tuple(ids) for ids in prompts}), 8)
        self.assertTrue(all(len(ids) == 20 for ids in prompts))

    def test_a_warm_up_is_short_but_as_wide(self) -> None:
        self.assertEqual(Shape(7000, 1, 3).warm_up(), Shape(512, 1, 3))
        self.assertEqual(Shape(16, 128).warm_up(), Shape(16, 128))


class Figures(unittest.TestCase):
    def test_they_follow_their_definitions(self) -> None:
        # Two streams of four tokens: the second starts at 2 s, the first ends at 4 s.
        made = figures([[1.0, 2.0, 3.0, 4.0], [2.0, 3.0, 4.0, 5.0]], Shape(10, 4, 2))
        expected = {
            "seconds": 5.0,
            "prefill_tokens_per_s": 10.0,
            "decode_tokens_per_s": 2.0,
            "output_tokens_per_s": 8 / 5,
        }
        self.assertEqual(made, expected)

    def test_without_a_time_of_decoding_alone_there_is_no_rate_of_it(self) -> None:
        self.assertNotIn("decode_tokens_per_s", figures([[1.0], [2.0]], Shape(10, 1, 2)))

    def test_an_answer_that_is_too_short_is_an_error(self) -> None:
        with self.assertRaises(ValueError):
            figures([[1.0, 2.0], [1.0]], Shape(10, 2, 2))
        with self.assertRaises(ValueError):
            figures([[1.0, 2.0]], Shape(10, 2, 2))
