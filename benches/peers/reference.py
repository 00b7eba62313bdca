"""What the peers are known to do on one kind of machine, so that a run which mistreats a peer is seen.

Measured on an idle virtual machine of 2 cores of Sapphire Rapids (AVX-512, AMX), with 2 threads, each engine with its
own default for keys and values; SmolLM2-135M-Instruct Q4_1 and Gemma-3-270M Q4_K_M.
"""

from __future__ import annotations

from dataclasses import dataclass

FLAGS = frozenset({"avx512f", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16"})
CORES = THREADS = 2
KV = {"llama": "f16", "openvino": "u8"}
# Below this part of the reference, a run says so.
ENOUGH = 0.9


@dataclass(frozen=True)
class Reference:
    """A peer's figure, in tokens per second."""

    engine: str
    cell: str
    figure: str
    value: float


_PREFILL, _DECODE, _WHOLE = "prefill_tokens_per_s", "decode_tokens_per_s", "output_tokens_per_s"

REFERENCES = [
    Reference("llama", "smollm2/prefill-512", _PREFILL, 933),
    Reference("llama", "smollm2/prefill-2048", _PREFILL, 395),
    Reference("llama", "smollm2/prefill-7000", _PREFILL, 153),
    Reference("llama", "smollm2/decode-1", _DECODE, 112),
    Reference("llama", "smollm2/run-8", _DECODE, 169),
    Reference("llama", "smollm2/run-32", _DECODE, 178),
    Reference("llama", "smollm2/run-32", _WHOLE, 127),
    Reference("llama", "smollm2/run-64", _DECODE, 164),
    Reference("llama", "smollm2/run-64", _WHOLE, 115),
    Reference("llama", "gemma3/prefill-512", _PREFILL, 270),
    Reference("llama", "gemma3/prefill-2048", _PREFILL, 254),
    Reference("llama", "gemma3/decode-1", _DECODE, 47),
    # Its prefills were of 439, 1,751 and 5,982 tokens.
    Reference("openvino", "smollm2/prefill-512", _PREFILL, 1334),
    Reference("openvino", "smollm2/prefill-2048", _PREFILL, 1119),
    Reference("openvino", "smollm2/prefill-7000", _PREFILL, 577),
    Reference("openvino", "smollm2/decode-1", _DECODE, 39),
    Reference("openvino", "smollm2/run-8", _WHOLE, 171),
    Reference("openvino", "smollm2/run-32", _WHOLE, 316),
    Reference("openvino", "smollm2/run-64", _WHOLE, 391),
]


def applies(flags: frozenset[str], cores: int, threads: int) -> bool:
    """Whether a machine is of the reference's kind."""
    return flags >= FLAGS and cores == CORES and threads == THREADS
