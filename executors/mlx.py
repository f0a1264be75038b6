"""MLX: plan steps as worker requests (executors/worker/mlx.py), answers as tiers of the report.

The reference is the 16-bit MLX folder of a Hugging Face folder, in the type that this has (the embedded model becomes a
Hugging Face folder first, see executors.hf_folder); mlx-lm packs it. Weights are judged unpacked in 32 bits, whatever
the kernels of the machine do; what the runtime makes of them is a tier of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from advisor.mlx_recipe import RECIPES, MlxRecipe
from advisor.plan import ConvertSettings, QuantizeSettings, ValidateSettings
from executors import inspected, tiers
from executors.executor import Task
from executors.hf_folder import hf_folder
from executors.inspected import Tensor
from executors.interpreters import interpreter_for
from executors.toolchain import installed_version
from knowledge.base import EXIT_STEP_FAILED, AdvisorError

FRAMEWORK = "mlx"
_KEPT = (8, 64)  # what some architectures of mlx-lm give their routers and output layers, whatever was asked for
_UNPACKED = ("float16", "bfloat16", "float32")
_KEPT_SHARE = 0.1  # of the memory that a worker may hold, for matrices that stay unpacked
_HINTS = {
    "cannot-load": "mlx-lm knows the architectures of its models folder; plan for llama.cpp otherwise",
    "convert-failed": "the step's log has MLX's own words; plan for another precision",
}


class Mlx:
    """The executor of MLX (see executors.executor.Executor)."""

    @property
    def version(self) -> str:
        interpreter_for(FRAMEWORK)
        return f"mlx-lm {installed_version(FRAMEWORK)}".strip()

    def run(self, task: Task) -> dict[str, Any]:
        settings = task.settings
        if isinstance(settings, ConvertSettings) and settings.format == FRAMEWORK:
            source = task.paths["input"]
            folder = source if source.is_dir() else hf_folder(source, task.watch, framework=FRAMEWORK)
            return _make(task, {"op": "convert", "input": str(folder), "type": settings.type})
        if isinstance(settings, QuantizeSettings) and settings.mlx is not None:
            packing = settings.mlx.model_dump()
            return _make(task, {"op": "quantize", "input": str(task.paths["input"]), "packing": packing})
        if isinstance(settings, ValidateSettings):
            kept = round(_KEPT_SHARE * (task.watch.rss_limit_bytes or 0))
            more = {"kept_bytes": kept} if kept else {}
            return tiers.validate(task, settings, FRAMEWORK, _integrity, blas_threads=task.threads, **more)
        if settings.kind == "benchmark":
            return tiers.benchmark(task, settings, FRAMEWORK)
        raise AdvisorError("bad-plan", f"MLX cannot do this {settings.kind} step.", "make it anew: advisor plan")


def _make(task: Task, request: dict[str, Any]) -> dict[str, Any]:
    asking = {**request, "output": str(task.paths["output"])}
    try:
        done = task.makers.ask(FRAMEWORK, asking, task.watch, keep=request["op"] == "convert")
    except AdvisorError as error:
        if error.code not in _HINTS:
            raise
        raise AdvisorError(error.code, error.message, _HINTS[error.code], EXIT_STEP_FAILED) from error
    return {**done.result, "peak_rss_bytes": done.peak_rss_bytes}


def _integrity(task: Task, settings: ValidateSettings) -> dict[str, Any]:
    recipe = task.made.mlx if task.made else None
    return inspected.integrity(
        task.paths["artifact"],
        FRAMEWORK,
        reference=task.paths.get("reference"),
        expected_bytes=settings.expected_bytes,
        watch=task.watch,
        other_types=None if recipe is None else lambda seen, base: other_types(recipe, seen, base),
    )


def other_types(recipe: MlxRecipe, seen: Sequence[Tensor], base: Sequence[Tensor]) -> str:
    """Which tensor is not stored as `recipe` has it; empty if none.

    Every matrix of the reference whose rows are whole groups is packed: with the recipe's bits, or those that a mix or
    the architecture gives some layers; what the reference has packed already stays as it is. What it packs is the same
    in each: so the count of types tells a mix.
    """
    if recipe.bits == 16:
        return next((f"{t['name']} is {t['type']} and {recipe.mode} was planned." for t in seen
                     if t["elements"] > 1 and t["type"] not in (recipe.mode, "float32")), "")  # fmt: skip
    bits = RECIPES.get(recipe.recipe, (recipe.bits,))
    allowed = {_type(recipe.mode, one, recipe.group_size) for one in bits}
    kept = _type("affine", *_KEPT)
    packed = {t["name"]: t["type"] for t in base if t["type"] not in _UNPACKED}
    matrices = {
        t["name"]
        for t in base
        if len(t["shape"]) > 1 and t["shape"][-1] % recipe.group_size == 0 and not t["name"].endswith(".bias")
    }
    for tensor in seen:
        name = tensor["name"]
        if name in matrices and tensor["type"] not in allowed | {kept, packed.get(name)}:
            planned = " or ".join(sorted(allowed))
            return f"{name} is stored as {tensor['type']} and {planned} was planned."
    missing = allowed - {tensor["type"] for tensor in seen}
    return f"Nothing is stored as {min(missing)}, which was planned." if missing else ""


def _type(mode: str, bits: int, group_size: int) -> str:
    return f"{mode} {bits}, {group_size} per group"
