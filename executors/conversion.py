"""A Hugging Face folder made the 16-bit model of a framework, in the `export` environment; its tokenizer is compared
with the folder's own before anything is measured on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from executors.executor import Task
from executors.interpreters import interpreter_for
from executors.process import run_worker
from executors.tokens import checkpoint_ids, compared, model_ids
from executors.toolchain import installed_version
from knowledge.base import MIB, printable, read_json
from knowledge.conversions import needs_older
from knowledge.hf_config import architecture_of, config_of

TOOLCHAIN = "export"


def converted(task: Task, op: str, framework: str) -> dict[str, Any]:
    """Write `output` of `framework` from the folder `input` by the operation `op` of the export worker.

    `{"bytes", "seconds", "compared_tokens", "unusual_text_differs", "peak_rss_bytes"}`. Raises AdvisorError
    `toolchain-missing` (exit 6), `unserved-architecture`, `unsupported-tokenizer`, `tokenizer-mismatch`,
    `convert-failed`.
    """
    made = exported(task, op, older=converted_by_older(task.paths["input"], framework))
    readers = checkpoint_ids(task.paths["input"], TOOLCHAIN, task.watch)
    expected = readers.get("transformers") or readers["tokenizers"]
    same = compared(expected, model_ids(task.paths["output"], framework, task.watch), f"The {framework} model")
    return {**made, **same}


def exported(task: Task, op: str, **options: Any) -> dict[str, Any]:
    """The same without a look at the tokenizers; `options` go to the worker."""
    source, watch = task.paths["input"], task.watch
    request = {
        "op": op,
        "input": str(source),
        "output": str(task.paths["output"]),
        "type": getattr(task.settings, "type", ""),
        "architecture": _architecture(source),
        **options,
    }
    installed_version(TOOLCHAIN)
    patient = watch.patient  # the converters tell nothing that could be heard
    done = run_worker(interpreter_for(TOOLCHAIN), TOOLCHAIN, request, patient)
    return {**done.result, "peak_rss_bytes": done.peak_rss_bytes}


def converted_by_older(folder: Path, framework: str) -> bool:
    """Whether the checkpoint is converted for `framework` by the older transformers of the environment."""
    return needs_older(architecture_of(config_of(_config(folder))), framework)


def _architecture(folder: Path) -> str:
    """The class that config.json names, for words."""
    names = _config(folder).get("architectures")
    return printable(str(names[0]), 80) if isinstance(names, list) and names else "such"


def _config(folder: Path) -> dict[str, Any]:
    document = read_json(folder / "config.json", "model configuration", limit_bytes=4 * MIB)
    return document if isinstance(document, dict) else {}
