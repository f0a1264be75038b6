"""The seam to a framework: what the runner asks of an executor. A new framework is a module with one and a worker.

The runner keeps folders, keys, hashes, locks, ladders and reports; an executor turns one step into worker requests and
returns what it measured. It never decides paths: `Task.paths` are inside the run folder and checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from advisor.plan import (
    BenchmarkSettings,
    CalibrateSettings,
    ConvertSettings,
    QuantizeSettings,
    SensitivitySettings,
    ValidateSettings,
)
from executors.makers import Makers
from executors.process import Watch
from knowledge.base import EXIT_TOOLCHAIN_MISSING, AdvisorError
from knowledge.matrix import Kind
from knowledge.tables import extensions


@dataclass(frozen=True, slots=True)
class Task:
    """One step, made concrete.

    `paths`: `input` and `output` of convert, calibrate and quantize (and `imatrix`, if it takes one); `artifact`,
    `reference` (and `store`, the stored scores) of validate and benchmark; the reference tier writes its scores to
    `output`. `output` is a temporary name that does not exist: the runner renames it when the step is done. `made` says
    how the artifact was made, if it was quantized. `makers` has the worker that made something for the step before.
    """

    settings: (
        ConvertSettings
        | CalibrateSettings
        | SensitivitySettings
        | QuantizeSettings
        | ValidateSettings
        | BenchmarkSettings
    )
    paths: Mapping[str, Path]
    threads: int
    watch: Watch
    made: QuantizeSettings | None = None
    makers: Makers = field(default_factory=Makers)


class Executor(Protocol):
    """One framework. Methods are called in step order, never concurrently; each may raise AdvisorError, which ends the
    step (and, but for `cancelled`, is reported as its failure)."""

    @property
    def version(self) -> str:
        """The framework and its version, such as `llama-cpp-python 0.3.36`. Part of every step's key; called once per
        run, before any step. Imports nothing heavy. Raises `toolchain-missing` where the framework is not there."""

    def run(self, task: Task) -> dict[str, Any]:
        """Do one step, leave `paths["output"]` complete, and return what was measured (JSON values).

        convert, calibrate, quantize: whatever is worth telling. validate: the tier's part of report.json with `status`
        `pass` or `fail`; integrity adds `tensor_bytes` and `parameters`. benchmark: `{"reference": S, "artifact": S}`,
        where S maps each metric to its samples, pair by pair (`peak_rss_bytes` to one). `peak_rss_bytes`, where given,
        is the step's.
        """


_EXECUTORS: dict[tuple[str, Kind], tuple[str, str]] = {
    ("llama.cpp", "text"): ("executors.llamacpp", "LlamaCpp"),
    ("openvino", "text"): ("executors.openvino", "OpenVino"),
    ("openvino", "embedding"): ("executors.embedding", "OpenVinoEmbedding"),
    ("olive", "text"): ("executors.olive", "Olive"),
    ("olive", "embedding"): ("executors.embedding", "OliveEmbedding"),
    ("mlx", "text"): ("executors.mlx", "Mlx"),
}  # framework and kind of artifact: module and class, imported when a run needs them


def executor_for(framework: str, kind: Kind = "text") -> Executor:
    """The executor of a framework for a kind of artifact; AdvisorError `toolchain-missing` where advisor has none."""
    if framework in extensions() and kind == "text":
        from executors.own import Own

        return Own(framework)
    if (framework, kind) not in _EXECUTORS:
        what = "embedding models" if kind == "embedding" else "plans"
        raise AdvisorError(
            "toolchain-missing",
            f"advisor cannot run {framework} {what} yet.",
            "the plan's commands show how to do it with the framework's own tools",
            EXIT_TOOLCHAIN_MISSING,
        )
    module, name = _EXECUTORS[framework, kind]
    executor: Executor = getattr(import_module(module), name)()
    return executor
