"""Encoders (sentence-embedding models), the second kind of artifact: plan steps as worker requests, by framework.

The reference is the checkpoint itself in 32 bits, in the framework's own format; the artifact has its weights in 8.
What a framework brings is how to make both; judging them is the same code (executors.embedding_tiers).
"""

from __future__ import annotations

from typing import Any

from advisor.plan import ConvertSettings, QuantizeSettings, ValidateSettings
from executors import embedding_tiers, olive, openvino
from executors.conversion import TOOLCHAIN, exported
from executors.embedding_integrity import integrity
from executors.embedding_tiers import pooled, worker_of
from executors.executor import Task
from executors.ir_integrity import MODEL, TOKENIZER
from executors.tokens import checkpoint_ids, compared, model_ids
from knowledge.base import AdvisorError
from knowledge.pooling import read_pooling

_PACKED = {"int8_asym": "u8", "int8_sym": "i8"}
_ONNX_TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
_ONNX_PAPERS = ("config.json", *_ONNX_TOKENIZER)


class OpenVinoEmbedding:
    """Encoders with OpenVINO: exported by optimum, compressed by NNCF (see executors.executor.Executor)."""

    @property
    def version(self) -> str:
        return openvino.OpenVino().version

    def run(self, task: Task) -> dict[str, Any]:
        settings = task.settings
        if isinstance(settings, ConvertSettings) and settings.format == openvino.FRAMEWORK:
            return _export(task)
        if isinstance(settings, QuantizeSettings) and settings.compression is not None:
            return openvino.compress(task, settings, read_pooling(task.paths["input"]).papers)
        if isinstance(settings, ValidateSettings):
            return embedding_tiers.validate(task, settings, openvino.FRAMEWORK, self._integrity)
        if settings.kind == "benchmark":
            return embedding_tiers.benchmark(task, settings, openvino.FRAMEWORK)
        raise _refused(settings.kind)

    def _integrity(self, task: Task, settings: ValidateSettings) -> dict[str, Any]:
        made = task.made.compression if task.made else None
        return integrity(
            task.paths["artifact"],
            openvino.FRAMEWORK,
            graph=MODEL,
            tokenizer=TOKENIZER,
            reference=task.paths.get("reference"),
            packed=_PACKED.get(made.passes[0].mode) if made else None,
            expected_bytes=settings.expected_bytes,
            watch=task.watch,
        )


class OliveEmbedding:
    """Encoders with ONNX Runtime: exported and quantized by Olive's passes (see executors.executor.Executor)."""

    @property
    def version(self) -> str:
        return olive.Olive().version

    def run(self, task: Task) -> dict[str, Any]:
        settings = task.settings
        if isinstance(settings, ConvertSettings) and settings.format == "onnx":
            return _onnx(task, "build")
        if isinstance(settings, QuantizeSettings) and settings.onnx is not None and settings.onnx.dynamic:
            return _onnx(task, "quantize")
        if isinstance(settings, ValidateSettings):
            return embedding_tiers.validate(task, settings, olive.FRAMEWORK, self._integrity)
        if settings.kind == "benchmark":
            return embedding_tiers.benchmark(task, settings, olive.FRAMEWORK)
        raise _refused(settings.kind)

    def _integrity(self, task: Task, settings: ValidateSettings) -> dict[str, Any]:
        return integrity(
            task.paths["artifact"],
            olive.FRAMEWORK,
            graph=("model.onnx",),
            tokenizer=_ONNX_TOKENIZER,
            reference=task.paths.get("reference"),
            packed="u8" if task.made else None,
            expected_bytes=settings.expected_bytes,
            watch=task.watch,
        )


def _export(task: Task) -> dict[str, Any]:
    """The 32-bit OpenVINO folder of a checkpoint, its tokens compared with the checkpoint's own."""
    source = task.paths["input"]
    pooling = read_pooling(source)
    made = exported(task, "to_ir", encoder=True, papers=pooling.papers)
    limit, framework = pooling.max_tokens, openvino.FRAMEWORK
    readers = checkpoint_ids(source, TOOLCHAIN, task.watch, max_tokens=limit)
    expected = readers.get("tokenizers") or readers["transformers"]
    ids = model_ids(task.paths["output"], framework, task.watch, worker=worker_of(framework), max_tokens=limit)
    return {**made, **compared(expected, ids, "The OpenVINO model")}


def _onnx(task: Task, op: str) -> dict[str, Any]:
    source = task.paths["input"]
    pooling = read_pooling(source)
    papers = [name for name in (*_ONNX_PAPERS, *pooling.papers) if (source / name).is_file()]
    request = {"op": op, "input": str(source.absolute()), "papers": papers, **pooled(pooling)}
    return olive.make(task, request, worker_of(olive.FRAMEWORK))


def _refused(kind: str) -> AdvisorError:
    return AdvisorError("bad-plan", f"This {kind} step is none of an embedding model.", "make it anew: advisor plan")
