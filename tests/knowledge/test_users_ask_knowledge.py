"""What users of neighbouring tools reported about memory, context, experts, windows, licences and offline use.

Each is a claim named after its thread (repository and number)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from house_checkpoint import LAB
from hub_server import Hub

from advisor.constraints import Constraints
from advisor.decide import make_plan
from advisor.memory import budget, kv_bytes, memory_need
from knowledge.base import GIB, AdvisorError
from knowledge.gguf_model import model_of_file
from knowledge.licences import commercial_use
from knowledge.models import find_model, load_models
from knowledge.precisions import resolve_precision
from knowledge.records import AttentionGroup
from knowledge.store import find_model as find_any
from knowledge.weights import weights
from probes.declared import declared_profile
from probes.profile import MemoryPool


def plan(model: str | None, **request: object) -> dict:  # type: ignore[type-arg]
    asked = Constraints.model_validate({"model": model, "os": "linux", "target": "cpu", **request})
    profile = declared_profile(ram_bytes=asked.ram_bytes, os=asked.os, target=asked.target, chip=asked.chip)
    return make_plan(asked, profile, find_model(model) if model else None)


def test_the_planned_context_is_told_and_never_the_longest_by_itself__llmfit_302() -> None:
    """26 GB were estimated because all of a 262K context was assumed."""
    best = plan("Qwen3-4B-Instruct-2507", ram_bytes=16 * GIB)["recommendations"][0]
    assert find_model("Qwen3-4B-Instruct-2507").context == 262144
    assert best["context"] == 4096
    asked = plan("Qwen3-4B-Instruct-2507", ram_bytes=64 * GIB, context=262144, precision=best["precision"])
    assert asked["recommendations"][0]["memory"]["kv_bytes"] > 60 * best["memory"]["kv_bytes"]


def test_the_cache_is_a_part_of_its_own__llmfit_302() -> None:
    memory = plan("Qwen3-4B", ram_bytes=16 * GIB)["recommendations"][0]["memory"]
    assert memory["kv_bytes"] == 4096 * 2 * 36 * 8 * 128 * 2
    assert sum(part[1] for part in map(tuple_of, memory["parts"])) == memory["total_bytes"]


def tuple_of(part: dict) -> tuple[str, int]:  # type: ignore[type-arg]
    return part["name"], part["bytes"]


@pytest.mark.parametrize("name", [m.name for m in load_models() if m.is_moe])
def test_moe_memory_counts_all_experts_and_speed_the_active_ones__llmfit_230(name: str) -> None:
    """122 billion parameters were recommended for a 48 GB Mac, because 10 billion are active."""
    spec = find_model(name)
    sizes = weights(spec, resolve_precision("Q4_K_M", "llama.cpp")[0])
    need = memory_need(spec, sizes, "llama.cpp", "cpu", 4096)
    assert need.weights_bytes > 0.5 * spec.params
    assert 0 < spec.active_params < 0.5 * spec.params


def test_a_moe_that_only_its_active_part_would_fit_is_refused__llmfit_230() -> None:
    document = plan("gpt-oss-120b", ram_bytes=48 * GIB)
    assert document["status"] == "infeasible"
    assert {row["rule"] for row in document["rejected"]} >= {"memory.fits"}


def test_what_fits_by_catalogue_fits_by_name__llmfit_806() -> None:
    """One fit function: 31 billion parameters were "Perfect" on 24 GB in one mode only."""
    for row in plan(None, ram_bytes=24 * GIB)["recommendations"]:
        named = plan(
            row["model"].split("/")[-1], ram_bytes=24 * GIB, precision=row["precision"], framework=row["framework"]
        )
        assert named["recommendations"][0]["memory"] == row["memory"]


def test_sliding_window_layers_are_counted_and_only_for_their_window__hf_mem_60__omlx_2725() -> None:
    gemma = find_model("gemma-3-12b-it")
    all_full = replace(gemma, attention=(AttentionGroup("full", 48, 8, 256, 256),))
    no_window = replace(gemma, attention=tuple(g for g in gemma.attention if g.kind == "full"))
    at = 32768
    assert kv_bytes(no_window, at) < kv_bytes(gemma, at) < 0.3 * kv_bytes(all_full, at)
    window = next(g for g in gemma.attention if g.kind == "window")
    assert kv_bytes(gemma, at) - kv_bytes(no_window, at) == window.layers * (1024 + 512) * 8 * 512 * 2


def test_a_hybrid_keeps_a_cache_for_its_attention_layers_only__omlx_2725() -> None:
    """Four times too much was estimated: three of four layers keep a constant state."""
    qwen = find_model("Qwen3.5-9B")
    full = next(g for g in qwen.attention if g.kind == "full")
    state = kv_bytes(qwen, 256) - 256 * full.layers * full.kv_heads * 512 * 2
    assert kv_bytes(qwen, 131072) == state + 131072 * full.layers * full.kv_heads * 512 * 2
    assert full.layers * 4 == qwen.layers


def test_a_latent_cache_is_not_counted_by_heads__hf_mem_60() -> None:
    spec = find_model("DeepSeek-V2-Lite-Chat")
    assert kv_bytes(spec, 4096) == 27 * 4096 * 576 * 2


def test_the_estimate_of_a_small_model_is_not_twice_what_it_needs__lms_499__gpustack_2412() -> None:
    """22.9 GB were estimated and 11.5 used; 13.8 GiB and 0.9. Over-estimating costs trust too: what a known model of
    135 million parameters took here in llama.cpp (180 to 290 MB resident with 4,096 tokens) bounds its estimate."""
    spec = find_model("SmolLM2-135M-Instruct")
    sizes = weights(spec, resolve_precision("Q8_0", "llama.cpp")[0])
    need = memory_need(spec, sizes, "llama.cpp", "cpu", 4096)
    assert sizes.tensor_bytes < need.total_bytes < 400e6


def test_the_container_s_limit_bounds_the_budget__ollama_15474() -> None:
    profile = declared_profile(ram_bytes=64 * GIB, os="linux", target="cpu")
    pool = MemoryPool(id="ram", kind="ram", total_bytes=64 * GIB, available_bytes=60 * GIB, limit_bytes=8 * GIB)
    boxed = profile.model_copy(update={"memory": (pool,)})
    assert budget(boxed, "ram", "cpu").bytes == 8 * GIB


def test_an_unknown_licence_is_carried_as_unknown__transformers_js_1487(hub: Hub) -> None:
    hub.repos[LAB].card = {}
    hub.repos[LAB].files["README.md"] = b"# no front matter"
    spec = find_any(LAB)
    assert (spec.licence, spec.commercial_use) == ("unknown", "unknown")
    assert commercial_use("some licence of somebody") == "unknown"


def test_the_licence_of_the_base_is_carried_into_the_plan__transformers_js_1487() -> None:
    document = plan("DeepSeek-R1-Distill-Llama-8B", ram_bytes=16 * GIB)
    assert "Llama 3.1" in document["plan"]["licence"]
    refused = plan("Qwen2.5-3B-Instruct", ram_bytes=16 * GIB, commercial=True)
    assert refused["status"] == "infeasible"


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_asks_nobody__optimum_1796(hub: Hub, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(AdvisorError, match="neither in the catalogue nor in the cache"):
        find_any(LAB)
    assert find_any("Qwen/Qwen3-8B").name == "Qwen3-8B"
    assert not hub.requests


def test_context_beyond_the_model_is_refused_before_anything_is_downloaded__llmfit_302() -> None:
    document = plan("Qwen2.5-7B-Instruct", ram_bytes=64 * GIB, context=131072)
    assert document["status"] == "infeasible"
    assert {row["rule"] for row in document["rejected"]} >= {"model.context"}


def test_an_embedding_in_a_gguf_s_own_type_is_sized_from_its_header__lms_499(small_gguf: Path) -> None:
    from knowledge.gguf import read_gguf

    spec = model_of_file(read_gguf(small_gguf))
    assert weights(spec, resolve_precision("F16", "llama.cpp")[0]).tensor_bytes == sum(
        tensor.stored_bytes or 0 for tensor in spec.tensors
    )
