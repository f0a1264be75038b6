"""llama.cpp: plan steps as worker requests (executors/worker/llamacpp.py), results as the report's tiers."""

from __future__ import annotations

import os
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from advisor.plan import BenchmarkSettings, ConvertSettings, QuantizeSettings, ValidateSettings
from executors import validation
from executors.executor import Task, Watch
from executors.process import interpreter_for, run_worker
from knowledge.base import EXIT_STEP_FAILED, AdvisorError
from knowledge.gguf import model_from_gguf

FRAMEWORK = "llama.cpp"
SAMPLED = ("decode_tps", "prefill_tps", "ttft_ms", "load_seconds", "peak_rss_bytes")


class LlamaCpp:
    """The executor of llama.cpp through llama-cpp-python (see executors.executor.Executor)."""

    @property
    def version(self) -> str:
        interpreter_for(FRAMEWORK)
        try:
            return f"llama-cpp-python {version('llama-cpp-python')}"
        except PackageNotFoundError:
            return "llama-cpp-python"

    def run(self, task: Task) -> dict[str, Any]:
        settings = task.settings
        if isinstance(settings, ConvertSettings):
            return _convert(task, settings)
        if isinstance(settings, QuantizeSettings):
            return _quantize(task, settings.type, [t.model_dump() for t in settings.tensor_types], settings.expected_bytes)
        if isinstance(settings, ValidateSettings):
            return _validate(task, settings)
        return _benchmark(task, settings)


def _convert(task: Task, settings: ConvertSettings) -> dict[str, Any]:
    """The 16-bit reference: the source itself where it is one already, else the source dequantized."""
    source = task.paths["input"]
    weights = {tensor.dtype for tensor in model_from_gguf(source).tensors if tensor.dimensions > 1}
    if weights and weights <= {"F16", "BF16", "F32"}:
        _same_file(source, task.paths["output"])
        return {"source_types": sorted(str(dtype) for dtype in weights), "bytes": source.stat().st_size}
    return _quantize(task, settings.type, [], 0)
