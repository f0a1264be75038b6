"""Models that a GPU's memory is too small for: how many layers go there, and what is said about it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.constraints import Constraints
from advisor.decide import make_plan
from advisor.engines import Engine, engines_of
from advisor.memory import Budget, memory_need
from advisor.offload import BUFFER_MARGIN, Split, split_model
from knowledge.models import find_model
from knowledge.precisions import resolve_precision
from knowledge.weights import weights
from probes.declared import declared_profile

GIB = 2**30
CPU = Engine("cpu", "intel", "CPU", "", "ram", 60.0, None, None)
DENSE, EXPERTS = "Llama-3.1-8B-Instruct", "Qwen3-30B-A3B"


def split(model: str, vram: int, ram: int | None = 64 * GIB, precision: str = "Q8_0", cards: int = 1) -> Split | None:
    spec = find_model(model)
    sizes = weights(spec, resolve_precision(precision, "llama.cpp")[0])
    on_gpu, on_cpu = (memory_need(spec, sizes, "llama.cpp", backend, 4096) for backend in ("cuda", "cpu"))
    gpus = [Budget(vram, f"vram{index}", (), vram) for index in range(cards)]
    return split_model(spec, sizes, on_gpu, on_cpu, gpus, None if ram is None else Budget(ram, "ram", (), ram), CPU)


def plan(model: str, vram_gib: int, ram_gib: int, **request: Any) -> dict[str, Any]:
    asked = Constraints(
        model=model, vendor="nvidia", vram_bytes=vram_gib * GIB, ram_bytes=ram_gib * GIB, os="linux", **request
    )
    profile = declared_profile(
        ram_bytes=asked.ram_bytes, vram_bytes=asked.vram_bytes, vendor="nvidia", os="linux", chip=asked.chip
    )
    return make_plan(asked, profile, find_model(model))


@given(st.integers(1, 16), st.integers(1, 16))
def test_more_memory_never_means_fewer_layers_on_the_gpu(one: int, other: int) -> None:
    small, large = (split(DENSE, size * GIB) for size in sorted((one, other)))
    if small is not None:
        assert large is not None
        assert small.gpu_layers <= large.gpu_layers
        assert small.ram_share >= large.ram_share


@pytest.mark.parametrize(("model", "vram_gib"), [(DENSE, 4), (DENSE, 6), (EXPERTS, 4), (EXPERTS, 8), (EXPERTS, 16)])
def test_what_lies_where_adds_up_and_fits(model: str, vram_gib: int) -> None:
    found = split(model, vram_gib * GIB)
    assert found is not None
    parts = {name: size for name, size, _ in found.need.parts}
    there = sum(size for name, size in parts.items() if name.endswith("on the GPU"))
    here = sum(size for name, size in parts.items() if name.endswith("in main memory"))
    assert there + here == sum(parts.values()) == found.need.total_bytes
    assert min(parts.values()) >= 0
    assert there <= vram_gib * GIB
    assert here <= 64 * GIB
    assert all(source for _, _, source in found.need.parts)
    assert 0 < found.ram_share < 1
    assert found.budget.pool == "vram+ram"


def test_compute_buffers_get_a_margin() -> None:
    spec = find_model(DENSE)
    sizes = weights(spec, resolve_precision("Q8_0", "llama.cpp")[0])
    found = split(DENSE, 6 * GIB)
    assert found is not None
    buffers = next(size for name, size, _ in found.need.parts if name == "compute buffers on the GPU")
    assert buffers == round(BUFFER_MARGIN * memory_need(spec, sizes, "llama.cpp", "cuda", 4096).overhead_bytes)


def test_of_a_mixture_only_experts_stay_behind_where_the_rest_fits() -> None:
    found = split(EXPERTS, 8 * GIB)
    assert found is not None
    layers = find_model(EXPERTS).layers
    assert found.gpu_layers == layers + 1
    assert 0 < found.cpu_expert_layers < layers
    assert found.settings == {"n_gpu_layers": layers + 1, "n_cpu_moe": found.cpu_expert_layers}
    whole_layers = split(EXPERTS, 2 * GIB)
    assert whole_layers is not None
    assert whole_layers.cpu_expert_layers == 0
    assert whole_layers.gpu_layers < layers
    assert found.ram_share < whole_layers.ram_share


def test_no_split_where_not_a_layer_fits_or_main_memory_is_too_small() -> None:
    assert split(DENSE, GIB // 4) is None
    assert split(DENSE, 4 * GIB, ram=2 * GIB) is None


@given(st.integers(1, 12), st.integers(2, 6), st.sampled_from([DENSE, EXPERTS]))
def test_further_cards_take_layers_from_main_memory(vram_gib: int, cards: int, model: str) -> None:
    fewer, more = split(model, vram_gib * GIB, cards=cards - 1), split(model, vram_gib * GIB, cards=cards)
    if fewer is None:
        return
    assert more is not None
    assert more.cards <= cards
    assert more.ram_share <= fewer.ram_share + 0.05  # a layer lies on one card
    assert sum(size for _, size, _ in more.need.parts) == more.need.total_bytes
    assert min(size for _, size, _ in more.need.parts) >= 0
    there = sum(size for name, size, _ in more.need.parts if "on the GPU" in name)
    assert there <= vram_gib * GIB * more.cards


def test_a_model_that_two_cards_hold_needs_no_main_memory() -> None:
    found = split(DENSE, 6 * GIB, ram=None, cards=2)
    assert found is not None
    assert (found.ram_share, found.budget.pool, found.cards) == (0.0, "vram0+vram1", 2)
    assert found.settings == {"n_gpu_layers": find_model(DENSE).layers + 1, "split_mode": "layer"}
    assert found.need.total_bytes <= found.budget.bytes
    assert split(DENSE, 3 * GIB, ram=None, cards=2) is None


def test_a_model_that_one_card_is_too_small_for_is_spread_over_two() -> None:
    def best(chip: str, model: str | None = "Llama-3.3-70B-Instruct") -> dict[str, Any]:
        asked = Constraints(model=model, chip=chip, ram_bytes=64 * GIB, os="linux", priority="quality")
        profile = declared_profile(ram_bytes=64 * GIB, chip=chip, os="linux")
        return make_plan(asked, profile, find_model(model) if model else None)

    one, two = best("Ryzen 9 7950X + RTX 3090"), best("Ryzen 9 7950X + 2x RTX 3090")
    row = next(row for row in two["recommendations"] if row["memory"]["pool"] == "vram0+vram1")
    assert row["device"] == "2x RTX 3090"
    assert row["settings"]["split_mode"] == "layer"
    assert row["decode_tps"]["mid"] > 3 * one["recommendations"][0]["decode_tps"]["mid"]
    assert any(words.startswith("Spread over 2 cards") for words in row["warnings"])
    assert two["recommendations"][0]["decode_tps"]["mid"] > one["recommendations"][0]["decode_tps"]["mid"]
    rows = [(row["backend"], row["precision"]) for row in two["recommendations"]]
    assert len(rows) == len(set(rows))


def test_the_card_with_most_memory_free_comes_first() -> None:
    profile = declared_profile(chip="2x RTX 3090", ram_bytes=64 * GIB, os="linux")
    used = {"vram0": 2 * GIB, "vram1": 20 * GIB}
    memory = [pool.model_copy(update={"available_bytes": used.get(pool.id)}) for pool in profile.memory]
    machine = profile.model_copy(update={"memory": tuple(memory)})
    (card,) = (engine for engine in engines_of(machine) if engine.kind == "gpu")
    assert (card.pool, [other.pool for other in card.others]) == ("vram1", ["vram0"])
    best = make_plan(Constraints(model=DENSE, os="linux"), machine, find_model(DENSE))["recommendations"][0]
    assert best["memory"]["pool"] == "vram1"


def test_unlike_cards_of_one_generation_share_a_model_and_of_two_do_not() -> None:
    def rows(chip: str) -> list[dict[str, Any]]:
        asked = Constraints(model="Qwen3-32B", chip=chip, ram_bytes=64 * GIB, os="linux", precision="Q6_K")
        profile = declared_profile(ram_bytes=64 * GIB, chip=chip, os="linux")
        return make_plan(asked, profile, find_model("Qwen3-32B"))["recommendations"]

    host = "Ryzen 9 7950X + RTX 3090"
    (alike,) = (row for row in rows(f"{host} + RTX 3090") if row["backend"] == "cuda")
    (unlike,) = (row for row in rows(f"{host} + RTX 3060 12GB") if row["backend"] == "cuda")
    assert (unlike["device"], unlike["memory"]["pool"]) == ("RTX 3090 + RTX 3060", "vram0+vram1")
    assert unlike["decode_tps"]["mid"] < alike["decode_tps"]["mid"]
    assert not any("vram1" in row["memory"]["pool"] for row in rows(f"{host} + RTX 4070"))


def test_a_plan_says_how_a_model_is_split() -> None:
    document = plan(DENSE, 8, 32, framework="llama.cpp", precision="Q8_0", target="gpu")
    best = document["recommendations"][0]
    layers = best["settings"]["n_gpu_layers"]
    assert 0 < layers < 32
    assert best["memory"]["pool"] == "vram+ram"
    assert best["memory"]["total_bytes"] <= best["memory"]["budget_bytes"]
    assert any(f"Only {layers} of 33 layers" in warning for warning in best["warnings"])
    benchmark = next(step for step in document["plan"]["steps"] if step["kind"] == "benchmark")
    command = benchmark["command"]
    assert command[command.index("--n-gpu-layers") + 1] == str(layers)


def test_a_split_model_is_slower_than_one_that_fits() -> None:
    chip = {"chip": "RTX 4060", "framework": "llama.cpp", "precision": "Q8_0", "target": "gpu"}
    whole, part = (plan(DENSE, vram, 32, **chip)["recommendations"][0] for vram in (16, 8))
    assert "n_gpu_layers" not in whole["settings"]
    assert whole["decode_tps"]["mid"] is not None
    assert part["decode_tps"]["mid"] is None or part["decode_tps"]["mid"] < whole["decode_tps"]["mid"]


def test_a_model_that_fits_is_not_split_and_a_catalogue_never_is() -> None:
    assert all("n_gpu_layers" not in r["settings"] for r in plan(DENSE, 24, 32)["recommendations"])
    asked = Constraints(vendor="nvidia", vram_bytes=8 * GIB, ram_bytes=32 * GIB, os="linux")
    profile = declared_profile(ram_bytes=32 * GIB, vram_bytes=8 * GIB, vendor="nvidia", os="linux")
    catalogue = make_plan(asked, profile, None)
    assert all("n_gpu_layers" not in r["settings"] for r in catalogue["recommendations"])


def test_what_fits_the_gpu_goes_before_a_split_whose_speed_nobody_knows() -> None:
    document = plan(DENSE, 12, 64, context=65536, kv_cache="q8_0")
    assert "n_gpu_layers" not in document["recommendations"][0]["settings"]
    split_rows = [row for row in document["recommendations"] if "n_gpu_layers" in row["settings"]]
    assert all(row["score"]["memory"] == 0 for row in split_rows)


def test_a_split_beside_an_unnamed_processor_has_a_speed_that_holds_for_slow_and_fast_memory() -> None:
    def speed(chip: str) -> dict[str, float]:
        asked = Constraints(model="Mixtral-8x7B-Instruct-v0.1", chip=chip, ram_bytes=64 * GIB, precision="Q4_K_M")
        profile = declared_profile(chip=chip, ram_bytes=64 * GIB)
        (row, *_) = make_plan(asked, profile, find_model(asked.model or ""))["recommendations"]
        assert row["memory"]["pool"] == "vram+ram"
        found: dict[str, float] = row["decode_tps"]
        return found

    unnamed, named = speed("RTX 3090"), speed("RTX 3090 + Ryzen 7 5800X")
    assert unnamed["low"] < named["mid"] < unnamed["high"]
    assert unnamed["high"] / unnamed["low"] > 1.3 * named["high"] / named["low"]
