"""NNCF's weight compression as settings: typed, bounded, and checked against what the target device can take.

A recipe is a list of passes; each compresses the weights that an earlier one left. Which tensors a role such as
`ffn_gate` names in a graph is the executor's knowledge.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from knowledge.precisions import method_of, overrides_of, ratio_of, resolve_precision
from knowledge.records import Precision

Target = Literal["cpu", "gpu", "npu"]
NPU_GROUPS = (-1, 128)  # OpenVINO's guide for language models on the NPU


class CompressionPass(BaseModel):
    """One pass over the weights of the named `roles` (all that are left, without roles).

    `group_size` weights of a row share a scale (-1: the whole row); `ratio` of the weights get `mode`, the rest, the
    embedding and the head `backup_mode`. `awq` works without data; `scale_estimation` takes the calibration text.
    """

    model_config = ConfigDict(extra="forbid", defer_build=True)

    mode: Literal["int8_asym", "int8_sym", "int4_sym", "int4_asym", "nf4", "mxfp4"]
    group_size: Literal[-1, 16, 32, 64, 128, 256] = -1
    ratio: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    backup_mode: Literal["none", "int8_sym", "int8_asym"] = "int8_asym"
    roles: Annotated[list[Annotated[str, Field(pattern=r"^[a-z0-9_.]{1,48}$")]], Field(max_length=16)] = []
    awq: bool = False
    scale_estimation: bool = False

    @property
    def four_bit(self) -> bool:
        return not self.mode.startswith("int8")

    @model_validator(mode="after")
    def _whole(self) -> CompressionPass:
        if not self.four_bit and (self.group_size != -1 or self.ratio != 1 or self.awq or self.scale_estimation):
            raise ValueError("8-bit weights have one scale per row and neither ratio, AWQ nor scale estimation")
        return self


class Compression(BaseModel):
    """At most 8 passes for the device `target`; none leaves the weights in 16 bits."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    target: Target = "cpu"
    passes: Annotated[list[CompressionPass], Field(max_length=8)] = []

    @model_validator(mode="after")
    def _runs_on_target(self) -> Compression:
        if any(not step.roles for step in self.passes[:-1]):
            raise ValueError("a pass over all weights leaves nothing to the passes after it")
        for step in self.passes if self.target == "npu" else ():
            if step.mode not in ("int4_sym", "nf4") or step.group_size not in NPU_GROUPS or step.ratio != 1:
                raise ValueError("the NPU takes symmetric 4-bit weights, group 128 or channel-wise, at ratio 1.0")
        return self


def compression_of(precision: Precision, target: Target, method: str) -> dict[str, Any]:
    """The recipe of an OpenVINO precision for a target; `method` as in backends.csv, unless the precision names one."""
    method = method_of(precision) or method
    parts = [(role, resolve_precision(kind, precision.framework)[0]) for role, kind in overrides_of(precision)]
    steps = [_pass(kind, method) | {"roles": [role]} for role, kind in parts]
    return {"target": target, "passes": [*steps, _pass(precision, method)] if "mode" in precision.settings else steps}


def _pass(precision: Precision, method: str) -> dict[str, Any]:
    mode = str(precision.settings["mode"])
    if mode.startswith("int8"):
        return {"mode": mode}
    return {
        "mode": mode,
        "group_size": precision.group_size,
        "ratio": ratio_of(precision),
        "backup_mode": str(precision.settings["backup_mode"]),
        "awq": method == "awq",
        "scale_estimation": method == "scale-estimation",
    }
