"""MLX's weight quantization as settings: typed and bounded."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from knowledge.records import Precision

# mlx-lm 0.32.2 convert.py: the bits that most layers and that the sensitive ones get.
RECIPES = {"mixed_2_6": (2, 6), "mixed_3_4": (3, 4), "mixed_3_6": (3, 6), "mixed_4_6": (4, 6)}
# mlx python/src/ops.cpp @846d176, quantize: what the other modes than affine take.
_FIXED = {"mxfp4": (4, 32), "nvfp4": (4, 16), "mxfp8": (8, 32)}


class MlxRecipe(BaseModel):
    """`group_size` weights of a row share a scale (and, `affine`, a bias); `recipe` is a mix of mlx-lm's own.

    16 bits: the weights stay in `mode`, float16 or bfloat16.
    """

    model_config = ConfigDict(extra="forbid", defer_build=True)

    mode: Literal["affine", "mxfp4", "nvfp4", "mxfp8", "float16", "bfloat16"]
    bits: Literal[2, 3, 4, 5, 6, 8, 16]
    group_size: Literal[0, 16, 32, 64, 128]
    recipe: Literal["", "mixed_2_6", "mixed_3_4", "mixed_3_6", "mixed_4_6"] = ""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if (self.bits == 16) != (self.mode in ("float16", "bfloat16")) or (self.bits == 16) != (self.group_size == 0):
            raise ValueError("16-bit weights are float16 or bfloat16 and have no groups, others have")
        if self.mode == "affine" and self.group_size == 16:
            raise ValueError("affine groups are of 32, 64 or 128 weights")
        if self.mode in _FIXED and _FIXED[self.mode] != (self.bits, self.group_size):
            raise ValueError(f"{self.mode} has {_FIXED[self.mode][0]} bits and groups of {_FIXED[self.mode][1]}")
        if self.recipe and (self.mode != "affine" or RECIPES[self.recipe][0] != self.bits):
            raise ValueError(f"{self.recipe} is affine with {RECIPES[self.recipe][0]} bits")
        return self


def mlx_recipe(precision: Precision) -> dict[str, Any]:
    """The recipe of an MLX precision."""
    read = precision.settings
    if "q_bits" not in read:
        return {"mode": str(read["dtype"]), "bits": 16, "group_size": 0}
    return {
        "mode": str(read["q_mode"]),
        "bits": int(str(read["q_bits"])),
        "group_size": int(str(read["q_group_size"])),
        "recipe": str(read.get("q_recipe", "")),
    }
