"""Olive and ONNX Runtime GenAI: steps as worker requests (executors/worker/olive.py), answers as the report's tiers.

The reference is the 32-bit ONNX model that Olive's ModelBuilder pass makes of a Hugging Face folder (a GGUF becomes one
first, see executors.hf_folder); Olive's weight-only passes quantize it. What Olive says of a pass proves nothing: the
worker loads and runs what was made before the step counts as done.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from advisor.onnx_recipe import OnnxPass, OnnxRecipe
from advisor.plan import ConvertSettings, QuantizeSettings, ValidateSettings
from executors import tiers
from executors.conversion import converted_by_older
from executors.executor import Task
from executors.hf_folder import hf_folder
from executors.interpreters import interpreter_for
from executors.olive_target import optimize, prepare
from executors.onnx_integrity import integrity
from executors.toolchain import installed_version
from executors.toolchain_lock import recipes
from knowledge.base import EXIT_STEP_FAILED, EXIT_TOOLCHAIN_MISSING, AdvisorError
from knowledge.hf_config import hf_parts

FRAMEWORK = "olive"
RECORD = "olive.json"  # in the step's folder: what `olive run --config` was given
SCRATCH = "olive-scratch"  # beside what is made: Olive's caches, copies and home
BUILDING = ("olive-ai", "onnxruntime-genai")  # whose versions the recipes depend on
_HINTS = {
    "wrong-version": f"advisor toolchain install {FRAMEWORK}",
    "nothing-made": "the step's log has Olive's own words; plan for another precision or framework",
    "renamed-output": "this Olive names outputs otherwise than its recipes expect: plan for another precision",
    "does-not-load": "ONNX Runtime's words are in the step's log; plan for another precision",
}


class Olive:
    """The executor of Olive (see executors.executor.Executor)."""

    @property
    def version(self) -> str:
        interpreter_for(FRAMEWORK)
        return f"olive-ai {installed_version(FRAMEWORK)}".strip()

    def run(self, task: Task) -> dict[str, Any]:
        settings = task.settings
        if isinstance(settings, ConvertSettings) and settings.format == "onnx":
            return _build(task)
        if isinstance(settings, ConvertSettings) and settings.workflow is not None:
            return prepare(task, settings.workflow)
        if isinstance(settings, QuantizeSettings) and settings.onnx is not None:
            return _quantize(task, settings.onnx)
        if isinstance(settings, QuantizeSettings) and settings.workflow is not None:
            with _hinting():
                return optimize(task, settings.workflow, task.paths["output"].parent / SCRATCH)
        if isinstance(settings, ValidateSettings):
            return tiers.validate(task, settings, FRAMEWORK, _integrity)
        if settings.kind == "benchmark":
            return tiers.benchmark(task, settings, FRAMEWORK)
        raise AdvisorError("bad-plan", f"Olive cannot do this {settings.kind} step.", "make it anew: advisor plan")


def _build(task: Task) -> dict[str, Any]:
    """The 32-bit model folder of a Hugging Face folder, or of a GGUF by way of one."""
    source = task.paths["input"]
    folder = source if source.is_dir() else hf_folder(source, task.watch, framework=FRAMEWORK)
    return make(task, {"op": "build", "input": str(folder), "older": converted_by_older(folder, FRAMEWORK)})


def _quantize(task: Task, recipe: OnnxRecipe) -> dict[str, Any]:
    passes = [{**step.model_dump(exclude={"roles"}), "parts": parts_of(step.roles)} for step in recipe.passes]
    request = {"op": "quantize", "input": str(task.paths["input"]), "passes": passes, "embedding": recipe.embedding}
    return make(task, request)


def parts_of(roles: list[str]) -> list[str]:
    """What the matrices of `roles` (GGUF's names) have in their nodes' names; AdvisorError `bad-plan` for others."""
    parts = [part.removeprefix("self_").replace(".", "/") for role in roles for part in hf_parts(role)]
    if roles and not parts:
        raise AdvisorError(
            "bad-plan", f"No weights are called {', '.join(roles)}.", "name roles such as ffn_gate or ffn_down"
        )
    return parts


def make(task: Task, request: dict[str, Any], worker: str = FRAMEWORK) -> dict[str, Any]:
    """Let `worker`, in Olive's interpreter, make `output`; its answer with `peak_rss_bytes`."""
    pins = recipes()[FRAMEWORK].pins
    asking = {
        **request,
        "output": str(task.paths["output"].absolute()),
        "versions": {name: pins[name] for name in BUILDING},
        "record": str(task.watch.log_path.with_name(RECORD).absolute()),
        "threads": task.threads,
    }
    scratch = task.paths["output"].parent / SCRATCH
    keep = request["op"] == "build"  # a quantization follows
    with _hinting():
        done = task.makers.ask(FRAMEWORK, asking, task.watch, worker=worker, scratch=scratch, keep=keep)
    return {**done.result, "peak_rss_bytes": done.peak_rss_bytes}


@contextmanager
def _hinting() -> Iterator[None]:
    """What to do about the errors of this framework's worker."""
    try:
        yield
    except AdvisorError as error:
        if error.code not in _HINTS:
            raise
        code = EXIT_TOOLCHAIN_MISSING if error.code == "wrong-version" else EXIT_STEP_FAILED
        raise AdvisorError(error.code, error.message, _HINTS[error.code], code) from error


def _integrity(task: Task, settings: ValidateSettings) -> dict[str, Any]:
    """What was made for another provider has a graph of its own: it is compared with nothing."""
    made = task.made.onnx if task.made else None
    planned: list[tuple[OnnxPass, list[str]]] | None = None
    if made is not None:
        planned = [(step, parts_of(step.roles)) for step in made.passes]
    elsewhere = task.made is not None and task.made.workflow is not None
    return integrity(
        task.paths["artifact"],
        reference=None if elsewhere else task.paths.get("reference"),
        planned=planned,
        expected_bytes=0 if elsewhere else settings.expected_bytes,
        watch=task.watch,
    )
