"""How a precision is made, as the settings of a quantize step or a rung: one entry per scheme that advisor runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from advisor.compression import Target, compression_of
from advisor.judging import Judged
from advisor.mlx_recipe import mlx_recipe
from advisor.olive_workflow import workflow_for
from advisor.onnx_recipe import onnx_recipe
from knowledge.hf_config import hf_parts
from knowledge.matrix import framework_named
from knowledge.precisions import overrides_of


def recipe_of(judged: Judged) -> dict[str, Any]:
    """The fields of advisor.plan's QuantizeSettings and Rung that say how to quantize; none where advisor does not."""
    row = framework_named(judged.option.backend.framework)
    if not row.executor:
        return {}
    make = _OF_FRAMEWORK.get(row.name) or _RECIPES.get(judged.option.precision.scheme)
    return make(judged) if make else {}


def nncf_script(compression: dict[str, Any]) -> str:
    """A recipe as the Python that a person would type, from work/reference-ir to work/model."""
    lines = ["import nncf, openvino as ov", 'm = ov.Core().read_model("work/reference-ir/openvino_model.xml")']
    for step in compression["passes"]:
        options = [f"mode=nncf.CompressWeightsMode.{step['mode'].upper()}"]
        if "group_size" in step:
            backup = f"nncf.BackupMode.{step['backup_mode'].upper()}"
            options += [f"group_size={step['group_size']}", f"ratio={step['ratio']:g}", f"backup_mode={backup}"]
        options += [f"{name}=True" for name in ("awq", "scale_estimation") if step.get(name)]
        options += ["dataset=nncf.Dataset(SAMPLES)"] if step.get("scale_estimation") else []
        if step.get("roles"):
            parts = "|".join(part for role in step["roles"] for part in hf_parts(role))
            options.append(f'ignored_scope=nncf.IgnoredScope(patterns=["^(?!.*({parts})).*$"])')
        lines.append(f"m = nncf.compress_weights(m, {', '.join(options)})")
    return "; ".join([*lines, 'ov.save_model(m, "work/model/openvino_model.xml", compress_to_fp16=False)'])


def _gguf(judged: Judged) -> dict[str, Any]:
    precision = judged.option.precision
    return {
        "type": str(precision.settings["type"]),
        "tensor_types": [{"pattern": pattern, "type": kind} for pattern, kind in overrides_of(precision)],
    }


def _nncf(judged: Judged) -> dict[str, Any]:
    option = judged.option
    return {"compression": compression_of(option.precision, _TARGETS[option.engine.kind], option.backend.method)}


def _olive(judged: Judged) -> dict[str, Any]:
    """Passes over an ONNX model for the CPU; elsewhere a whole workflow for the host that has the provider."""
    option = judged.option
    if option.backend.backend == "cpu":
        recipe = onnx_recipe(option.precision, option.spec)
        return {"onnx": recipe} if recipe else {}
    workflow = workflow_for(option.backend.backend, option.precision.name)
    return {"workflow": workflow} if workflow else {}


def _mlx(judged: Judged) -> dict[str, Any]:
    return {"mlx": mlx_recipe(judged.option.precision)}


_TARGETS: dict[str, Target] = {"cpu": "cpu", "gpu": "gpu", "npu": "npu"}
_RECIPES: dict[str, Callable[[Judged], dict[str, Any]]] = {
    "gguf": _gguf,
    "openvino": _nncf,
    "mlx": _mlx,
}
_OF_FRAMEWORK: dict[str, Callable[[Judged], dict[str, Any]]] = {"olive": _olive}  # whatever the scheme
