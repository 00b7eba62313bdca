"""What an engine is asked to do, and what came of it: the same definitions for all engines.

They are those of `pith bench offline` (`server/app/src/commands/bench/run.rs`), prompts included.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

_MASK = 2**64 - 1

# Tokens that warm an engine up before a cell: enough for its longest step.
WARM_UP_TOKENS = 512


@dataclass(frozen=True)
class Shape:
    """Some streams that begin together, each with a prompt and an answer of so many tokens."""

    prompt_tokens: int
    output_tokens: int
    streams: int = 1

    def warm_up(self) -> Shape:
        """The untimed run before it: the same, on a shorter prompt."""
        return Shape(min(self.prompt_tokens, WARM_UP_TOKENS), self.output_tokens, self.streams)

    def prompts(self, vocab: int) -> list[list[int]]:
        """Equal ids for every engine: ids spread over the vocabulary by a fixed rule."""
        return [prompt(self.prompt_tokens, vocab, 1 << 20 | n) for n in range(self.streams)]

    def as_json(self) -> dict[str, int]:
        """For a worker's standard input."""
        return asdict(self)


def prompt(length: int, vocab: int, salt: int) -> list[int]:
    """The ids of one prompt, by pith's rule."""
    state = salt * 0x9E37_79B9_7F4A_7C15 & _MASK | 1
    ids = []
    for _ in range(length):
        state ^= state << 13 & _MASK
        state ^= state >> 7
        state ^= state << 17 & _MASK
        ids.append(state % vocab)
    return ids


def figures(arrivals: list[list[float]], shape: Shape) -> dict[str, float]:
    """Figures of a run from when each token of each stream arrived, in seconds since all were sent.

    `prefill_tokens_per_s`: prompt tokens until the last stream had its first token. `decode_tokens_per_s`: tokens
    from then until the first stream ended; absent if there is no such time. `output_tokens_per_s`: all answers'
    tokens over the time of the whole run, prompts included.
    """
    short = [len(stream) for stream in arrivals if len(stream) != shape.output_tokens]
    if short or len(arrivals) != shape.streams:
        raise ValueError(f"asked for {shape}, got answers of {[len(stream) for stream in arrivals]} tokens")
    started = max(stream[0] for stream in arrivals)
    ended = min(stream[-1] for stream in arrivals)
    seconds = max(stream[-1] for stream in arrivals)
    made = {
        "seconds": seconds,
        "prefill_tokens_per_s": shape.prompt_tokens * shape.streams / started,
        "output_tokens_per_s": shape.output_tokens * shape.streams / seconds,
    }
    if ended > started:
        tokens = sum(started < at <= ended for stream in arrivals for at in stream)
        made["decode_tokens_per_s"] = tokens / (ended - started)
    return made
