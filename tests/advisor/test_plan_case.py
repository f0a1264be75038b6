"""What a plan asks the cost model is what it learned from: the same engine is the same case in a row and in a plan."""

from __future__ import annotations

from typing import Any

import pytest
from planning import GIB, plan

from advisor.cost_model import traits_of
from advisor.engines import default_threads, engines_of, fast_cores
from advisor.learned import case_of_work
from advisor.speed import Work
from advisor.workload import case_of_row
from knowledge.models import find_model
from probes.declared import declared_profile
from probes.profile import CPU

MODEL = "Llama-3.2-3B-Instruct"
ENGINES = [
    ("Raspberry Pi 5", "sbc", "cpu", "cpu"),
    ("Radxa Orion O6", "sbc", "cpu", "cpu"),
    ("Snapdragon 8 Gen 3", "mobile", "cpu", "cpu"),
    ("Apple M4", "apple", "cpu", "cpu"),
    ("Core Ultra 7 155H", "cpu", "cpu", "cpu"),
    ("Ryzen 7 7840HS", "cpu", "cpu", "cpu"),
    ("EPYC Milan (7763, 7713)", "cpu", "cpu", "cpu"),
    ("RTX 4090", "gpu", "cuda", "gpu"),
    ("RX 7900 XTX", "gpu", "vulkan", "gpu"),
    ("Apple M3 Max", "apple", "metal", "gpu"),
    ("Ryzen AI Max+ 395", "gpu", "vulkan", "gpu"),
    ("Jetson AGX Orin 64GB", "gpu", "cuda", "gpu"),
]


def planned(chip: str, backend: str, kind: str) -> Any:
    profile = declared_profile(chip=chip, ram_bytes=64 * GIB)
    engine = next(engine for engine in engines_of(profile) if engine.kind == kind)
    work = Work(find_model(MODEL), "llama.cpp", backend, "Q4_K_M", 2.0e9, 0.0, engine, default_threads(profile))
    return case_of_work(work, 512.0, 128.0)


@pytest.mark.parametrize(("chip", "device_kind", "backend", "kind"), ENGINES, ids=lambda value: str(value))
def test_an_engine_is_the_same_case_in_a_plan_and_in_a_row(
    chip: str, device_kind: str, backend: str, kind: str
) -> None:
    row = {
        "device": chip, "device_kind": device_kind, "chip": chip, "framework": "llama.cpp", "backend": backend,
        "model": MODEL, "precision": "Q4_K_M", "metric": "decode_tps", "prompt_tokens": "512", "memory_gb": "64",
    }  # fmt: skip
    learned, _ = case_of_row(row)
    assert learned is not None
    asked, known = traits_of(planned(chip, backend, kind)), traits_of(learned)
    for name in ("chip", "backend", "family", "runtime", "vendor", "kind", "generation", "bandwidth", "low_bits"):
        assert getattr(asked, name) == pytest.approx(getattr(known, name)), name
    assert known.rate - 0.36 <= asked.rate <= known.rate + 0.01, "a core is left to the rest of the machine"


@pytest.mark.parametrize(
    ("physical", "performance", "fast"),
    [(16, 6, 6), (12, 2, 6), (10, 4, 4), (9, 3, 4), (4, None, 4), (6, 2, 3), (None, None, None)],
)
def test_a_few_fast_cores_are_not_left_alone(physical: int | None, performance: int | None, fast: int | None) -> None:
    """A Core Ultra 7 155U, with two fast cores of twelve, was planned to run on one thread."""
    assert fast_cores(CPU(physical_cores=physical, performance_cores=performance)) == fast


def test_no_decode_is_faster_than_the_weights_can_be_read() -> None:
    """A 14B model at 28 tok/s on an NPU that reads 120 GB/s was inside an interval."""
    asked: dict[str, Any] = {"chip": "Ryzen AI 9 HX 370", "ram_bytes": 32 * GIB, "os": "windows", "target": "npu"}
    rows = plan("phi-4", **asked)["recommendations"]
    assert rows
    for row in rows:
        assert row["decode_tps"]["high"] * 0.9 * row["memory"]["weights_bytes"] < 1.25 * 128e9
