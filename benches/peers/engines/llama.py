"""llama.cpp through the low-level calls of llama-cpp-python, as its own batched benchmark uses it."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path

import llama_cpp
import numpy

import install
from engines.engine import Settings
from shapes import Shape

# Rows of a matrix product, llama.cpp's default.
_UBATCH = 512
_KV_TYPES = {"f16": llama_cpp.GGML_TYPE_F16, "own": llama_cpp.GGML_TYPE_F16, "int8": llama_cpp.GGML_TYPE_Q8_0}
_KV_NAMES = {llama_cpp.GGML_TYPE_F16: "f16", llama_cpp.GGML_TYPE_Q8_0: "q8_0"}
_WARNING, _ERROR = 3, 4


class Llama:
    """A model and, for the shape at hand, a context of just its size."""

    def __init__(self, settings: Settings) -> None:
        _quiet()
        llama_cpp.llama_backend_init()
        self._settings = settings
        self._pool = _ThreadPool(settings.threads)
        self._model = llama_cpp.llama_model_load_from_file(
            settings.model.encode(), llama_cpp.llama_model_default_params()
        )
        if not self._model:
            raise RuntimeError(f"llama.cpp cannot read {Path(settings.model).name}")
        vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        if vocab != settings.vocab:
            raise RuntimeError(f"the vocabulary has {vocab} tokens, not {settings.vocab}: prompts would differ")
        self._shape: Shape | None = None
        self._context: llama_cpp.llama_context_p | None = None

    def describe(self) -> dict[str, str]:
        """See `Engine`."""
        info = llama_cpp.llama_print_system_info().decode()
        on = [part.split("=")[0].strip() for part in info.replace(":", "|").split("|") if part.strip().endswith("= 1")]
        return {
            "version": f"llama-cpp-python {llama_cpp.__version__}, compiled by {install.compiler()}",
            "isa": ", ".join(on),
            "kv": _KV_NAMES[_KV_TYPES[self._settings.kv]],
        }

    def reserve(self, shape: Shape) -> None:
        """See `Engine`."""
        if self._shape and _fits(shape, self._shape):
            return
        if self._context:
            llama_cpp.llama_free(self._context)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = shape.streams * _tokens(shape)
        params.n_batch = _batch(shape)
        params.n_ubatch = _UBATCH
        params.n_seq_max = shape.streams
        params.n_threads = params.n_threads_batch = self._settings.threads
        params.type_k = params.type_v = _KV_TYPES[self._settings.kv]
        # Streams that share no prefix are faster with caches of their own.
        params.kv_unified = False
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        if not self._context:
            raise RuntimeError(f"llama.cpp makes no context for {shape}")
        self._pool.attach(self._context)
        self._shape = shape

    def run(self, shape: Shape) -> list[list[float]]:
        """See `Engine`. All streams step together, so that their tokens arrive at once."""
        self.reserve(shape)
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), False)
        prompts = shape.prompts(self._settings.vocab)
        rows = [(id_, at, n, at + 1 == len(ids)) for n, ids in enumerate(prompts) for at, id_ in enumerate(ids)]
        batch = llama_cpp.llama_batch_init(max(len(rows), 1), 0, 1)
        arrivals = []
        try:
            self._pool.resume()
            began = time.perf_counter()
            for step in range(shape.output_tokens):
                if step > 0:
                    at = shape.prompt_tokens + step - 1
                    rows = [(int(id_), at, n, True) for n, id_ in enumerate(sampled)]
                sampled = self._decode(batch, rows, shape.streams)
                arrivals.append(time.perf_counter() - began)
        finally:
            self._pool.pause()
            llama_cpp.llama_batch_free(batch)
        return [list(arrivals) for _ in range(shape.streams)]

    def _decode(self, batch: llama_cpp.llama_batch, rows: list[tuple[int, int, int, bool]], streams: int) -> numpy.ndarray:
        """Computes rows of (token, position, stream, wants a token); the likeliest next token of each stream."""
        batch.n_tokens = len(rows)
        for i, (token, at, stream, last) in enumerate(rows):
            batch.token[i] = token
            batch.pos[i] = at
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = stream
            batch.logits[i] = last
        failed = llama_cpp.llama_decode(self._context, batch)
        if failed:
            raise RuntimeError(f"llama_decode returned {failed}")
        # One row of logits for each row that wanted it, in the order of the batch.
        logits = llama_cpp.llama_get_logits(self._context)
        return numpy.ctypeslib.as_array(logits, (streams, self._settings.vocab)).argmax(axis=1)


def _fits(shape: Shape, reserved: Shape) -> bool:
    same = shape.streams == reserved.streams
    return same and _tokens(shape) <= _tokens(reserved) and _batch(shape) <= _batch(reserved)


def _tokens(shape: Shape) -> int:
    """Of one stream, in the steps of 256 that llama.cpp rounds a context to."""
    return -(-(shape.prompt_tokens + shape.output_tokens) // 256) * 256


def _batch(shape: Shape) -> int:
    """All prompts go in one call, which llama.cpp cuts up itself."""
    return max(shape.streams * shape.prompt_tokens, _UBATCH)


class _ThreadPool:
    """ggml's threads, kept from step to step. Paused they sleep, where a pool made by each step would cost the peer.

    The Python package does not bind these calls. They are looked up through libllama, for a wheel holds copies of each
    library under several names, and threads of a second copy would compute on tables that nobody filled.
    """

    def __init__(self, threads: int) -> None:
        self._library = ctypes.CDLL(str(Path(llama_cpp.__file__).parent / "lib" / "libllama.so"))
        params = _ThreadPoolParams()
        self._library.ggml_threadpool_params_init(ctypes.byref(params), ctypes.c_int(threads))
        params.paused = True
        self._library.ggml_threadpool_new.restype = ctypes.c_void_p
        self._pool = ctypes.c_void_p(self._library.ggml_threadpool_new(ctypes.byref(params)))
        if not self._pool:
            raise RuntimeError("ggml makes no thread pool")

    def attach(self, context: llama_cpp.llama_context_p) -> None:
        """Lets a context compute on these threads."""
        self._library.llama_attach_threadpool(ctypes.c_void_p(context), self._pool, self._pool)

    def resume(self) -> None:
        """Before work."""
        self._library.ggml_threadpool_resume(self._pool)

    def pause(self) -> None:
        """After it."""
        self._library.ggml_threadpool_pause(self._pool)


class _ThreadPoolParams(ctypes.Structure):
    """`ggml_threadpool_params` of ggml.h."""

    _fields_ = [
        ("cpumask", ctypes.c_bool * 512),
        ("n_threads", ctypes.c_int),
        ("prio", ctypes.c_int),
        ("poll", ctypes.c_uint32),
        ("strict_cpu", ctypes.c_bool),
        ("paused", ctypes.c_bool),
    ]


@llama_cpp.llama_log_callback
def _log(level: int, text: bytes, _data: ctypes.c_void_p) -> None:
    if level in (_WARNING, _ERROR):
        print(text.decode(errors="replace"), end="", flush=True)


def _quiet() -> None:
    """Warnings and errors only."""
    llama_cpp.llama_log_set(_log, ctypes.c_void_p(0))
