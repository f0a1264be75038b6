"""Olive's weight quantization of an ONNX model for the CPU as settings: typed and bounded.

A recipe is a list of passes; each quantizes the matrices that an earlier one left. Which matrices a role such as
`ffn_gate` names in a graph is the executor's knowledge.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from knowledge.packing import DYNAMIC, is_made_by_passes
from knowledge.precisions import overrides_of, resolve_precision
from knowledge.records import ModelSpec, Precision

HEAD = "output"
HEAD_BITS, HEAD_BLOCK = 8, 32  # of Olive's QuantizeEmbeddingInt8 and ShareEmbeddingLmHead (olive-ai 0.13.0)


class OnnxPass(BaseModel):
    """One pass over the matrices of the named `roles` (all that are left, without roles): `block_size` weights of a row
    share a 32-bit scale, and with `k_quant` a zero point."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    algorithm: Literal["rtn", "k_quant"]
    bits: Literal[4, 8]
    block_size: Literal[16, 32, 64, 128, 256] = 32
    roles: Annotated[list[Annotated[str, Field(pattern=r"^[a-z0-9_.]{1,48}$")]], Field(max_length=16)] = []


class OnnxRecipe(BaseModel):
    """At most 8 passes; none leaves the weights in 32 bits.

    `dynamic`: no passes over a language model, but ONNX Runtime's dynamic quantization of a whole encoder to 8 bits.
    `embedding`: `int8-shared`, one table of 8 bits for embedding and head; `int8`; `float32`, shared where both are the
    same.
    """

    model_config = ConfigDict(extra="forbid", defer_build=True)

    passes: Annotated[list[OnnxPass], Field(max_length=8)] = []
    embedding: Literal["int8-shared", "int8", "float32"] = "float32"
    dynamic: bool = False

    @model_validator(mode="after")
    def _whole(self) -> OnnxRecipe:
        if self.dynamic and (self.passes or self.embedding != "float32"):
            raise ValueError("dynamic quantization takes the whole graph, and leaves nothing to passes")
        if any(not step.roles for step in self.passes[:-1]):
            raise ValueError("a pass over all matrices leaves nothing to the passes after it")
        if self.embedding == "int8-shared" and not self.passes:
            raise ValueError("the head has to be quantized before it can share the embedding's table")
        return self


def onnx_recipe(precision: Precision, spec: ModelSpec) -> dict[str, Any]:
    """The recipe of a precision for ONNX Runtime's CPU provider, the head always in 8 bits; empty where Olive's passes
    do not make it."""
    if precision.method == DYNAMIC:
        return {"dynamic": True}
    if precision.nominal_bits == 32:
        return {"passes": [], "embedding": "float32"}
    if not is_made_by_passes(precision):
        return {}
    parts = [(role, resolve_precision(kind, precision.framework)[0]) for role, kind in overrides_of(precision)]
    head = {"algorithm": "rtn", "bits": HEAD_BITS, "block_size": HEAD_BLOCK, "roles": [HEAD]}
    mixed = [_pass(kind) | {"roles": [role]} for role, kind in parts]
    shared = "int8-shared" if spec.tied_embeddings else "int8"
    return {"passes": [head, *mixed, _pass(precision)], "embedding": shared}


def _pass(precision: Precision) -> dict[str, Any]:
    kind = "k_quant" if str(precision.settings.get("algo", "rtn")).startswith("k_quant") else "rtn"
    return {"algorithm": kind, "bits": precision.nominal_bits, "block_size": precision.group_size}
