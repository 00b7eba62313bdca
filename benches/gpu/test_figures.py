"""What logs and results are read as. `python3 -m unittest` in this folder."""

import json
import tempfile
import unittest
from pathlib import Path

import figures


def run(model="llama-3.1-8b (random weights)", prompt=1000, output=1000, streams=1, rate=200.0, decode=200.0, **more):
    """A result of `pith bench offline`."""
    return dict(
        model=model, prompt_tokens=prompt, output_tokens=output, streams=streams, output_tokens_per_s=rate,
        decode_tokens_per_s=decode, prefill_tokens_per_s=50_000.0, itl_ms_p99=20.0, busy_share=0.97) | more


def ceilings(**more):
    """A result of `pith bench device`."""
    kernel = lambda name, rows, share, error=None: dict(name=name, rows=rows, share=share, error=error)
    return dict(copy_gb_per_s=4000.0, product_tflop_per_s=800.0, kernels=[
        kernel("gemv qkv bf16", 1, 0.85), kernel("gemv out bf16", 1, 0.8),
        kernel("prefill attention mma", 8192, 0.5), kernel("prefill attention wgmma", 8192, 0.65),
        kernel("cublaslt qkv", 16, None, "no device")]) | more


class Figures(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def file(self, content, name="a"):
        path = self.folder / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    def test_tests_are_counted(self):
        good = "passed over on a card: x\ntest result: ok. 70 passed; 0 failed; 0 ignored\n"
        self.assertEqual(figures.tests(self.file(good)), ("70 passed, 1 of them only for the host; 0 failed", True))
        self.assertFalse(figures.tests(self.file("test result: FAILED. 70 passed; 2 failed;"))[1])
        for text in ["", "running 70 tests"]:
            with self.assertRaises(figures.Unknown):
                figures.tests(self.file(text))

    def test_sanitizers_are_read_with_the_tests_they_watched(self):
        ended = "test result: ok. 70 passed; 0 failed;\n"
        self.assertTrue(figures.sanitizer(self.file(ended + "========= ERROR SUMMARY: 0 errors"))[1])
        self.assertFalse(figures.sanitizer(self.file(ended + "========= ERROR SUMMARY: 1 error"))[1])
        # Nothing was watched.
        self.assertFalse(figures.sanitizer(self.file("========= ERROR SUMMARY: 0 errors"))[1])
        races = "========= RACECHECK SUMMARY: 2 hazards displayed (2 errors, 0 warnings)"
        self.assertEqual(figures.sanitizer(self.file(ended + races)), ("2 found in 70 tests", False))
        with self.assertRaises(figures.Unknown):
            figures.sanitizer(self.file(ended))

    def test_perplexities_are_one_percent_apart(self):
        one = self.file(dict(perplexity=18.0, tokens=9))
        self.assertTrue(figures.perplexity(one, self.file(dict(perplexity=18.17, tokens=9), "b"))[1])
        self.assertFalse(figures.perplexity(one, self.file(dict(perplexity=18.2, tokens=9), "b"))[1])
        with self.assertRaises(figures.Unknown):
            figures.perplexity(one, self.file(dict(perplexity=18.0, tokens=8), "b"))

    def test_agreement_is_what_the_comparison_left_with(self):
        said = "logits differ by 0.5 at most, 0.01 on average; argmax the same for 99 %\nperplexity 2 beside 2, 0.1 % apart\n"
        self.assertTrue(figures.agree(self.file(said), "0")[1])
        self.assertFalse(figures.agree(self.file(said), "1")[1])
        with self.assertRaisesRegex(figures.Unknown, "no driver"):
            figures.agree(self.file("agree: no driver\n"), "2")

    def test_a_card_is_held_to_its_best_attention_of_prompts(self):
        text, met = figures.device(self.file(ceilings()))
        self.assertTrue(met)
        self.assertIn("gemv 80 to 85 %", text)
        failed = ceilings()
        failed["kernels"][0]["error"] = "kernel gemv: lost"
        self.assertFalse(figures.device(self.file(failed))[1])
        slow = ceilings()
        slow["kernels"][3]["share"] = 0.59
        self.assertFalse(figures.device(self.file(slow))[1])

    def test_decode_is_held_to_the_copy(self):
        # 15.0 GB of weights and 0.2 of keys and values, 200 times a second.
        text, met = figures.decode(self.file([run(output=1, decode=None), run()]), self.file(ceilings(), "b"))
        self.assertEqual((text, met), ("200.0 tok/s, 3041 GB/s, 76 % of the copy's", False))
        self.assertTrue(figures.decode(self.file([run(decode=215.0)]), self.file(ceilings(), "b"))[1])
        with self.assertRaises(figures.Unknown):
            figures.decode(self.file([run(streams=4)]), self.file(ceilings(), "b"))

    def test_prompts_are_held_to_the_product(self):
        results = self.file([run(output=1, streams=1, prefill_tokens_per_s=1.0), run(output=1, streams=256)])
        text, met = figures.prefill(results, self.file(ceilings(), "b"))
        self.assertEqual((text, met), ("50000 tok/s, 711 TFLOP/s, 89 % of the product's", True))
        with self.assertRaises(figures.Unknown):
            figures.prefill(results, self.file(ceilings(product_tflop_per_s=None), "b"))

    def test_crowds_have_their_rates(self):
        results = self.file([run(output=1, streams=256), run(streams=256, rate=9500.0), run()])
        self.assertTrue(figures.throughput(results, "9000")[1])
        self.assertFalse(figures.throughput(results, "11000")[1])
        self.assertEqual(figures.outside(results), ("3.0 % of the time between steps", True))
        self.assertFalse(figures.outside(self.file([run(busy_share=0.9)]))[1])

    def test_a_peer_is_compared_at_its_own_shape(self):
        other = dict(peer="transformers 5, torch 2", streams=256, prompt_tokens=1000, output_tokens=1000, output_tokens_per_s=3000.0)
        said = self.file("$ python3 peer.py\nwarning\n" + json.dumps(other) + "\n")
        ours = lambda rate: self.file([run(streams=256, rate=rate)], "b")
        self.assertEqual(figures.peer(said, ours(9600.0)), ("3.2 times its 3000 tok/s (transformers 5)", True))
        self.assertFalse(figures.peer(said, ours(8900.0))[1])
        with self.assertRaises(figures.Unknown):
            figures.peer(self.file("died"), ours(9600.0))

    def test_a_trace_has_gaps(self):
        head = "noise\nStart (ns),Duration (ns),CorrId,Name\n"
        rows = "0,10,1,a\n100,45,1,a\n140,10,1,b\n154,46,1,c\n"
        # From 100 on: 45, then 5 more, a gap of 4, 46.
        self.assertEqual(figures.trace(self.file(head + rows)), ("4.0 % of the time without a kernel", True))
        with self.assertRaises(figures.Unknown):
            figures.trace(self.file(head))

    def test_shares_of_the_copy_count_steps(self):
        small = run(model="llama-3.2-1b (random weights)", prompt=256, output=256, streams=32, rate=1.0, decode=32_000.0)
        text, _ = figures.share_of_copy(self.file([small]), self.file(ceilings(), "b"))
        # A thousand steps a second of 2.5 GB and 0.4 of keys and values.
        self.assertTrue(text.endswith("decode at 72 % of the copy's"), text)
        self.assertEqual(figures.streams(self.file([run(), run(streams=32, rate=9.0)])), ("tok/s 1: 200, 32: 9", True))


if __name__ == "__main__":
    unittest.main()
