"""llama.cpp: plan steps as worker requests (executors/worker/llamacpp.py), answers as tiers of the report."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from advisor.plan import (
    CalibrateSettings,
    ConvertSettings,
    QuantizeSettings,
    SensitivitySettings,
    ValidateSettings,
)
from executors import sensitivity, tiers, validation
from executors.conversion import converted
from executors.executor import Task
from executors.folder import link_or_copy
from executors.integrity import integrity
from executors.interpreters import interpreter_for
from executors.process import run_worker
from executors.toolchain import installed_version
from knowledge.gguf import read_gguf

FRAMEWORK = "llama.cpp"
BINDING = "llama-cpp-python"
CALIBRATION_TEXT = Path(__file__).parent / "data" / "calibration_text.txt"
SIXTEEN_BIT = {"F16", "BF16"}


class LlamaCpp:
    """The executor of llama.cpp (see executors.executor.Executor)."""

    @property
    def version(self) -> str:
        interpreter_for(FRAMEWORK)
        try:
            return f"{BINDING} {installed_version(FRAMEWORK) or version(BINDING)}"
        except PackageNotFoundError:  # built or installed otherwise
            return BINDING

    def run(self, task: Task) -> dict[str, Any]:
        settings = task.settings
        if isinstance(settings, ConvertSettings):
            return _convert(task, settings)
        if isinstance(settings, CalibrateSettings):
            return _calibrate(task, settings)
        if isinstance(settings, SensitivitySettings):
            return sensitivity.measure(task, settings)
        if isinstance(settings, QuantizeSettings):
            return _quantize(task, settings.type, settings)
        if isinstance(settings, ValidateSettings):
            return tiers.validate(task, settings, FRAMEWORK, _integrity)
        return tiers.benchmark(task, settings, FRAMEWORK)


def _convert(task: Task, settings: ConvertSettings) -> dict[str, Any]:
    """The 16-bit reference: the source itself where its matrices are 16-bit, else the source dequantized; of a Hugging
    Face folder what llama.cpp's converter makes."""
    source = task.paths["input"]
    if source.is_dir():
        return converted(task, "to_gguf", FRAMEWORK)
    types = {tensor.dtype for tensor in read_gguf(source).tensors if tensor.dimensions > 1}
    if types & SIXTEEN_BIT and types <= SIXTEEN_BIT | {"F32"}:
        link_or_copy(source, task.paths["output"])
        return {"bytes": source.stat().st_size, "linked": True}
    return {**_quantize(task, settings.type, None), "linked": False}


def _calibrate(task: Task, settings: CalibrateSettings) -> dict[str, Any]:
    """The importance matrix of `input` over the shipped calibration text."""
    request = {
        "op": "imatrix",
        "model": str(task.paths["input"]),
        "output": str(task.paths["output"]),
        "text": str(CALIBRATION_TEXT),
        "tokens": settings.tokens,
        "threads": task.threads,
    }
    done = validation.ask(request, task.watch)
    return {**done.result, "peak_rss_bytes": done.peak_rss_bytes}


def _quantize(task: Task, kind: str, made: QuantizeSettings | None) -> dict[str, Any]:
    """Write `output` as `kind`, with the tensor types of `made`. Only dequantizing may start from a quantized file."""
    request = {
        "op": "quantize",
        "input": str(task.paths["input"]),
        "output": str(task.paths["output"]),
        "type": kind,
        "tensor_types": [rule.model_dump() for rule in made.tensor_types] if made else [],
        "imatrix": str(task.paths["imatrix"]) if made and made.imatrix else "",
        "threads": task.threads,
        "allow_requantize": made is None,
    }
    patient = task.watch.patient  # llama.cpp tells nothing while it quantizes
    done = run_worker(interpreter_for(FRAMEWORK), FRAMEWORK, request, patient)
    return {**done.result, "peak_rss_bytes": done.peak_rss_bytes}


def _integrity(task: Task, settings: ValidateSettings) -> dict[str, Any]:
    made = task.made
    return integrity(
        task.paths["artifact"],
        reference=task.paths.get("reference"),
        planned=(made.type, [(rule.pattern, rule.type) for rule in made.tensor_types]) if made else None,
        imatrix=bool(made and made.imatrix),
        expected_bytes=settings.expected_bytes,
        watch=task.watch,
    )
