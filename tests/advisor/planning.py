"""A plan for a declared machine, as the command makes it."""

from typing import Any

from advisor.constraints import Constraints
from advisor.decide import make_plan
from knowledge.models import find_model
from knowledge.records import ModelSpec
from probes.declared import declared_profile

GIB = 2**30


def plan(model: ModelSpec | str | None = None, compare: str | None = None, **request: Any) -> dict[str, Any]:
    if isinstance(model, str):
        model = find_model(model)
    asked = Constraints(model=model.name if model else None, **request)
    profile = declared_profile(
        ram_bytes=asked.ram_bytes, vram_bytes=asked.vram_bytes, chip=asked.chip, device=asked.device,
        vendor=asked.vendor, os=asked.os, target=asked.target, power=asked.power,
    )  # fmt: skip
    return make_plan(asked, profile, model, compare=compare)
