"""Writes dequantize.bin: random blocks of every format and what the `gguf` package makes of them.

    pip install gguf==0.19.0 numpy==2.4.6
    python generate.py

For each format, in the order of `Quant::ALL`: the blocks of two rows of 512 weights, then 1,024 f32.
Scales are finite and ordinary: bytes of an f16 scale are drawn as numbers, the rest as bytes.
"""

import pathlib

import gguf
import numpy as np

FORMATS = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]
SCALES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
          "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}
WEIGHTS = 1024

random = np.random.default_rng(20)
out = bytearray()
for name in FORMATS:
    kind = gguf.GGMLQuantizationType[name]
    length, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (WEIGHTS // length, size), dtype=np.uint8)
    numbers = random.standard_normal((WEIGHTS // length, 2)).astype(np.float32)
    if name == "F32":
        blocks = numbers[:, :1].copy().view(np.uint8)
    elif name == "F16":
        blocks = numbers[:, :1].astype(np.float16).view(np.uint8)
    elif name == "BF16":
        blocks = (numbers[:, :1].copy().view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    for i, at in enumerate(SCALES.get(name, [])):
        blocks[:, at:at + 2] = numbers[:, i:i + 1].astype(np.float16).view(np.uint8)
    flat = blocks.reshape(2, -1)
    weights = flat.view(np.float32) if name == "F32" else (
        flat.view(np.float16).astype(np.float32) if name == "F16" else gguf.dequantize(flat, kind))
    assert weights.size == WEIGHTS and np.isfinite(weights).all()
    out += flat.tobytes() + weights.astype("<f4").tobytes()
pathlib.Path(__file__).with_name("dequantize.bin").write_bytes(bytes(out))
