"""OpenVINO GenAI: its continuous batching, stepped from here so that every token has a time."""

from __future__ import annotations

import time
from pathlib import Path

import numpy
import openvino
import openvino_genai

from engines.engine import Settings
from shapes import Shape

_KV_TYPES = {"f16": "f16", "int8": "u8"}


class OpenVino:
    """A pipeline that reads the GGUF file itself. Its prefix cache is off by default, and said to be."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        schedule = openvino_genai.SchedulerConfig()
        schedule.enable_prefix_caching = False
        properties: dict[str, object] = {"INFERENCE_NUM_THREADS": settings.threads}
        if settings.kv in _KV_TYPES:
            properties["KV_CACHE_PRECISION"] = _KV_TYPES[settings.kv]
        try:
            self._pipeline = openvino_genai.ContinuousBatchingPipeline(settings.model, schedule, "CPU", properties)
        except RuntimeError as error:
            # Behind the check and the place in its source that failed stands what is wrong.
            wrong = str(error).strip().splitlines()[-1].rpartition(".cpp:")[2]
            raise RuntimeError(f"it cannot read {Path(settings.model).name}: {wrong}") from error
        self._requests = 0

    def describe(self) -> dict[str, str]:
        """See `Engine`."""
        core = openvino.Core()
        precision = core.get_property("CPU", "INFERENCE_PRECISION_HINT").get_type_name()
        capabilities = ", ".join(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        own_kv = core.get_property("CPU", "KV_CACHE_PRECISION").get_type_name()
        return {
            "version": f"openvino-genai {openvino_genai.get_version()}",
            "isa": f"computes in {precision}; capable of {capabilities}",
            "kv": _KV_TYPES.get(self._settings.kv, own_kv),
        }

    def reserve(self, shape: Shape) -> None:
        """See `Engine`. Its cache grows as it is needed."""

    def run(self, shape: Shape) -> list[list[float]]:
        """See `Engine`."""
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = shape.output_tokens
        config.ignore_eos = True
        config.do_sample = False
        config.apply_chat_template = False
        prompts = [numpy.array([ids], dtype=numpy.int64) for ids in shape.prompts(self._settings.vocab)]
        began = time.perf_counter()
        handles = []
        for ids in prompts:
            handles.append(self._pipeline.add_request(self._requests, openvino.Tensor(ids), config))
            self._requests += 1
        arrivals: list[list[float]] = [[] for _ in handles]
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
            now = time.perf_counter() - began
            for handle, stream in zip(handles, arrivals):
                while handle.can_read():
                    for output in handle.read().values():
                        stream.extend(now for _ in output.generated_ids)
        return arrivals
