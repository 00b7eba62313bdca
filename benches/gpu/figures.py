#!/usr/bin/env python3
"""What the logs and results of a check come to: one line of text each, held to the targets.

    figures.py NAME FILE...

Leaves with 0 where the target is met or there is none, with 1 where it is missed, with 2 where the files do not tell.
"""

import csv
import json
import re
import sys
from pathlib import Path

# Weights that a decode step reads and a prompt's token is multiplied with, and bytes of keys and values of a token in bfloat16: the
# vocabulary is read by every decode step, and for a prompt's last token alone.
SHAPES = {
    "llama-3.1-8b": dict(layers=6_979_321_856, vocabulary=525_336_576, kv_bytes=131_072, attention_width=32 * 4096),
    "llama-3.2-1b": dict(layers=973_078_528, vocabulary=262_668_288, kv_bytes=32_768, attention_width=16 * 2048),
}


class Unknown(Exception):
    """The files do not tell."""


def read(path):
    """A file of results."""
    try:
        return json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise Unknown(f"no results: {error}") from error


def log(path):
    """A log's text."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError as error:
        raise Unknown(f"no log: {error}") from error


def combination(results, **wanted):
    """The result of the run with these numbers of tokens and streams."""
    for result in results:
        if all(result[key] == value for key, value in wanted.items()):
            return result
    raise Unknown(f"no run of {wanted}")


def shape_of(result):
    """Sizes of a model of random weights."""
    for name, sizes in SHAPES.items():
        if result["model"].startswith(name):
            return sizes
    raise Unknown(f"{result['model']} is no known shape")


def tests(path):
    """Tests of a binary."""
    text = log(path)
    found = re.search(r"test result: \w+\. (\d+) passed; (\d+) failed", text)
    if not found:
        raise Unknown("the tests came to no end")
    passed, failed = int(found[1]), int(found[2])
    over = text.count("passed over on a card")
    return f"{passed} passed, {over} of them only for the host; {failed} failed", failed == 0 and passed > 0


def sanitizer(path):
    """Errors that compute-sanitizer found; `ERROR SUMMARY` is memcheck's, `RACECHECK SUMMARY` racecheck's."""
    text = log(path)
    found = re.search(r"(?:ERROR|RACECHECK) SUMMARY: (\d+) (?:errors?|hazards? displayed)", text)
    if not found:
        raise Unknown("no summary: it did not come to its end, or does not work here")
    ran = re.search(r"test result: \w+\. (\d+) passed; (\d+) failed", text)
    tests_run = f"{ran[1]} tests" if ran else "tests that came to no end"
    sound = int(found[1]) == 0 and ran is not None and ran[2] == "0"
    return f"{found[1]} found in {tests_run}", sound


def agree(path, status):
    """Logits of a device beside the CPU's; `status` is what the comparison left with."""
    text = log(path)
    logits = re.search(r"logits differ by (\S+) at most, (\S+) on average; argmax the same for (\S+) %", text)
    apart = re.search(r"perplexity \S+ beside \S+, (\S+) % apart", text)
    if not logits or not apart:
        raise Unknown(text.strip().splitlines()[-1] if text.strip() else "nothing was said")
    most, mean, argmax = logits.groups()
    return f"at most {most}, mean {mean}, argmax {argmax} %, perplexity {apart[1]} % apart", status == "0"


def perplexity(cpu, card):
    """Perplexities of CPU and card over the same windows: within 1 %."""
    cpu, card = read(cpu), read(card)
    if cpu["tokens"] != card["tokens"]:
        raise Unknown(f"{cpu['tokens']} and {card['tokens']} tokens were scored")
    apart = 100 * abs(card["perplexity"] / cpu["perplexity"] - 1)
    return f"{card['perplexity']:.3f} beside the CPU's {cpu['perplexity']:.3f}, {apart:.2f} % apart", apart <= 1


def device(path):
    """Ceilings of a card, and the least and best shares of what has a target: prompts' attention at 60 % of the product's rate."""
    results = read(path)
    share = lambda name, rows: [
        k["share"] for k in results["kernels"] if k["name"].startswith(name) and k["rows"] == rows and k["share"] is not None
    ]
    one_row = share("gemv", 1)
    longest = max((k["rows"] for k in results["kernels"] if k["name"].startswith("prefill")), default=0)
    prompts = share("prefill attention", longest)
    product = results["product_tflop_per_s"]
    parts = [f"copy {results['copy_gb_per_s']:.0f} GB/s", f"product {product:.0f} TFLOP/s" if product else "no product"]
    if one_row:
        parts.append(f"gemv {100 * min(one_row):.0f} to {100 * max(one_row):.0f} %")
    if prompts:
        parts.append(f"prefill attention {100 * max(prompts):.0f} %")
    failed = [k for k in results["kernels"] if k["error"] and not k["name"].startswith("cublaslt")]
    if failed:
        parts.append(f"{len(failed)} failed")
    return ", ".join(parts), bool(prompts) and max(prompts) >= 0.6 and not failed


def decode(offline, ceilings):
    """One stream's decode: bytes of weights, keys and values per second, at 80 % of the copy's."""
    results = read(offline)
    result = combination([r for r in results if r["decode_tokens_per_s"]], streams=1)
    sizes = shape_of(result)
    context = result["prompt_tokens"] + result["output_tokens"] / 2
    per_token = 2 * (sizes["layers"] + sizes["vocabulary"]) + context * sizes["kv_bytes"]
    rate = result["decode_tokens_per_s"] * per_token
    share = rate / (read(ceilings)["copy_gb_per_s"] * 1e9)
    return f"{result['decode_tokens_per_s']:.1f} tok/s, {rate / 1e9:.0f} GB/s, {100 * share:.0f} % of the copy's", share >= 0.8


def prefill(offline, ceilings):
    """Prompts of many streams: operations per second, at 60 % of the product's."""
    results = read(offline)
    result = max((r for r in results if r["output_tokens"] == 1), key=lambda r: r["streams"], default=None)
    if result is None:
        raise Unknown("no run of prompts alone")
    sizes, product = shape_of(result), read(ceilings)["product_tflop_per_s"]
    if not product:
        raise Unknown("the rate of products is not known")
    tokens = result["prompt_tokens"]
    per_token = 2 * sizes["layers"] + 2 * sizes["vocabulary"] / tokens + 2 * sizes["attention_width"] * tokens
    rate = result["prefill_tokens_per_s"] * per_token / 1e12
    share = rate / product
    return f"{result['prefill_tokens_per_s']:.0f} tok/s, {rate:.0f} TFLOP/s, {100 * share:.0f} % of the product's", share >= 0.6


def crowd(results):
    """The run of the most streams with long answers."""
    return max((r for r in results if r["output_tokens"] > 1), key=lambda r: r["streams"], default=None)


def throughput(offline, target):
    """Output tokens per second of the largest crowd."""
    result = crowd(read(offline))
    if result is None:
        raise Unknown("no such run")
    rate = result["output_tokens_per_s"]
    return f"{rate:.0f} tok/s of {result['streams']} streams, gap p99 {result['itl_ms_p99']:.0f} ms", rate >= float(target)


def outside(offline):
    """Share of the time between steps, by the engine's own account: under 5 %."""
    result = crowd(read(offline))
    if result is None:
        raise Unknown("no such run")
    share = 1 - result["busy_share"]
    return f"{100 * share:.1f} % of the time between steps", share < 0.05


def streams(offline):
    """Output tokens per second by streams, with the bandwidth where the shape is known."""
    results = read(offline)
    parts = [f"{r['streams']}: {r['output_tokens_per_s']:.0f}" for r in results]
    return "tok/s " + ", ".join(parts), bool(parts)


def share_of_copy(offline, ceilings):
    """As `streams`, with the share of the copy's bandwidth that decode steps take for weights, keys and values."""
    text, _ = streams(offline)
    copy = read(ceilings)["copy_gb_per_s"] * 1e9
    shares = []
    for result in read(offline):
        if result["decode_tokens_per_s"]:
            sizes, context = shape_of(result), result["prompt_tokens"] + result["output_tokens"] / 2
            steps = result["decode_tokens_per_s"] / result["streams"]
            step = 2 * (sizes["layers"] + sizes["vocabulary"]) + result["streams"] * context * sizes["kv_bytes"]
            shares.append(f"{100 * steps * step / copy:.0f}")
    return f"{text}; decode at {', '.join(shares) or '-'} % of the copy's", True


def peer(peers, offline):
    """Output tokens per second of pith and a peer at the same shape: at least three times as many."""
    lines = [line for line in log(peers).splitlines() if line.startswith("{")]
    if not lines:
        raise Unknown("the peer has no result")
    other = json.loads(lines[-1])
    ours = combination(read(offline), **{key: other[key] for key in ["streams", "prompt_tokens", "output_tokens"]})
    ratio = ours["output_tokens_per_s"] / other["output_tokens_per_s"]
    return f"{ratio:.1f} times its {other['output_tokens_per_s']:.0f} tok/s ({other['peer'].split(',')[0]})", ratio >= 3


def trace(path):
    """Share of the time in which no kernel ran, in the second half of a trace of nsys (`cuda_gpu_trace`, CSV): under 5 %."""
    rows = [row for row in csv.reader(log(path).splitlines()) if len(row) > 2]
    head = next((at for at, row in enumerate(rows) if row[0].startswith("Start")), None)
    if head is None:
        raise Unknown("no trace")
    spans = []
    for row in rows[head + 1:]:
        try:
            begin, length = float(row[0]), float(row[1])
        except ValueError:
            continue
        spans.append((begin, begin + length))
    if len(spans) < 2:
        raise Unknown("nothing was traced")
    spans.sort()
    half = (spans[0][0] + max(end for _, end in spans)) / 2
    spans = [span for span in spans if span[0] >= half]
    if not spans:
        raise Unknown("nothing ran in the second half")
    busy, reached = 0.0, spans[0][0]
    for begin, end in spans:
        busy += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    share = 1 - busy / (reached - spans[0][0])
    return f"{100 * share:.1f} % of the time without a kernel", share < 0.05


FIGURES = [tests, sanitizer, agree, perplexity, device, decode, prefill, throughput, outside, streams, share_of_copy, peer, trace]


def main():
    """0, 1 or 2."""
    named = {figure.__name__.replace("_", "-"): figure for figure in FIGURES}
    if len(sys.argv) < 2 or sys.argv[1] not in named:
        print(f"usage: figures.py {'|'.join(named)} FILE...", file=sys.stderr)
        return 2
    try:
        text, met = named[sys.argv[1]](*sys.argv[2:])
    except (Unknown, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        print(f"{error}" if isinstance(error, Unknown) else f"cannot be read: {error!r}")
        return 2
    print(text)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
