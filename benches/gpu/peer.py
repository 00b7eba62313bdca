#!/usr/bin/env python3
"""transformers' continuous batching over a model of a known shape and random weights, beside pith on the same card.

Prints one JSON line: what was run and output tokens per second over the whole run, prompts included. Greedy, no end token, so that every
request yields exactly the tokens asked for; the first, short run warms up and is not counted.
"""

import argparse
import json
import random
import sys
import time

# Published dimensions, as `pith bench offline --random-weights` has them.
SHAPES = {
    "llama-3.1-8b": dict(
        vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
        num_attention_heads=32, num_key_value_heads=8, head_dim=128, tie_word_embeddings=False),
    "llama-3.2-1b": dict(
        vocab_size=128256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16,
        num_attention_heads=32, num_key_value_heads=8, head_dim=64, tie_word_embeddings=True),
    "tiny": dict(
        vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, tie_word_embeddings=True),
}


def model(shape, device):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(max_position_embeddings=16384, rope_theta=500000.0, **SHAPES[shape])
    config._attn_implementation = "paged|sdpa"
    torch.manual_seed(1)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        made = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    return made.eval()


def run(made, prompts, output_tokens):
    from transformers import GenerationConfig

    config = GenerationConfig(
        max_new_tokens=output_tokens, do_sample=False, eos_token_id=-1, pad_token_id=0, use_cuda_graph=True)
    begun = time.perf_counter()
    outputs = made.generate_batch(prompts, generation_config=config, progress_bar=False)
    seconds = time.perf_counter() - begun
    tokens = [len(output.generated_tokens) for output in outputs.values()]
    if len(tokens) != len(prompts) or min(tokens) != output_tokens:
        sys.exit(f"{len(tokens)} of {len(prompts)} answered, the shortest with {min(tokens, default=0)} tokens")
    return sum(tokens) / seconds, seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=sorted(SHAPES), default="llama-3.1-8b")
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--prompt-tokens", type=int, default=1000)
    parser.add_argument("--output-tokens", type=int, default=1000)
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()

    import torch
    import transformers

    made = model(arguments.shape, arguments.device)
    draw = random.Random(1)
    vocab = SHAPES[arguments.shape]["vocab_size"]
    prompts = [[draw.randrange(vocab) for _ in range(arguments.prompt_tokens)] for _ in range(arguments.streams)]
    run(made, prompts[:2], min(8, arguments.output_tokens))
    rate, seconds = run(made, prompts, arguments.output_tokens)
    print(json.dumps({
        "peer": f"transformers {transformers.__version__}, torch {torch.__version__}",
        "shape": arguments.shape,
        "streams": arguments.streams,
        "prompt_tokens": arguments.prompt_tokens,
        "output_tokens": arguments.output_tokens,
        "seconds": round(seconds, 3),
        "output_tokens_per_s": round(rate, 1),
    }))


if __name__ == "__main__":
    main()
