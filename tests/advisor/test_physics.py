"""What physics says of caches and of memory, before anything is learned."""

from __future__ import annotations

import pytest

from advisor import physics
from advisor.case import Case
from advisor.cost_model import Scale, likeness, traits_of
from advisor.workload import case_of_row
from knowledge.base import GIB
from knowledge.models import find_model

START = physics.MEMORY_START["any"]


def case(**cells: str) -> Case:
    row = {"device": "RTX 3090", "device_kind": "gpu", "chip": "RTX 3090", "framework": "llama.cpp", "backend": "cuda",
           "precision": "Q4_K_M", "batch": "1", "model": "gemma-3-4b-it", "metric": "decode_tps"} | cells  # fmt: skip
    found, _ = case_of_row(row)
    assert found is not None
    return found


def test_layers_with_a_window_cache_no_more_than_that() -> None:
    gemma = case()
    assert gemma.window > 0
    assert 0 < gemma.window_bytes < gemma.cache_bytes
    assert gemma.cached_bytes(100) == gemma.cache_bytes * 100
    further = gemma.cached_bytes(60_000) - gemma.cached_bytes(50_000)
    assert further == (gemma.cache_bytes - gemma.window_bytes) * 10_000


def test_only_layers_that_attend_count_what_a_prompt_is_compared_with() -> None:
    windowed, full = case(), case(model="Llama-3.2-3B-Instruct")
    llama = find_model("Llama-3.2-3B-Instruct")
    assert full.attended(1000) == llama.layers * llama.heads * llama.head_dim * 1000 * 1000 / 2
    short = (windowed.queries + windowed.window_queries) * windowed.window**2 / 2
    assert windowed.attended(windowed.window) == short
    twice = windowed.attended(20_000) - windowed.attended(10_000)
    assert twice == windowed.queries * 1.5e8 + windowed.window_queries * windowed.window * 10_000
    hybrid = find_model("LFM2-1.2B")
    attending = sum(group.layers for group in hybrid.attention if group.kind == "full")
    assert attending < hybrid.layers
    assert case(model="LFM2-1.2B").queries == attending * hybrid.heads * hybrid.head_dim


def test_layers_that_use_the_cache_of_others_look_as_far_as_those() -> None:
    """Gemma 4 E2B: 28 layers with heads of 256 look through a window, 7 with heads of 512 at everything."""
    small = case(model="gemma-4-E2B-it")
    assert (small.queries, small.window_queries) == (7 * 8 * 512, 28 * 8 * 256)


@pytest.mark.parametrize(
    ("model", "precision", "published"),
    # the sizes that ollama.com/library/gemma4 and /gemma3 tell, 10^9 bytes
    [("gemma4:e2b", "Q4_K_M", 7.2), ("gemma4:e4b", "Q4_K_M", 9.6), ("gemma4:26b", "Q8_0", 28.0),
     ("gemma3:4b", "Q4_K_M", 3.3)],
)  # fmt: skip
def test_ollama_packs_encoders_and_embeddings_of_layers_in_16_bits(
    model: str, precision: str, published: float
) -> None:
    packed = case(framework="ollama", model=model, precision=precision)
    assert packed.weight_bytes / 1e9 == pytest.approx(published, rel=0.015)
    plain = case(model=model, precision=precision)
    assert packed.weight_bytes > plain.weight_bytes
    assert (packed.bits, packed.active_bytes) == (plain.bits, plain.active_bytes)


@pytest.mark.parametrize(
    ("model", "runtime"), [("qwen3.5:9b-mlx", "mlx"), ("north-mini:mlx-nvfp4", "mlx"), ("qwen3.5:9b", "ollama")]
)
def test_tags_of_ollama_say_what_runs_them(model: str, runtime: str) -> None:
    asked = case(framework="ollama", model=model, params_b="9", chip="Apple M5 Max", device="", device_kind="apple")
    assert asked.runtime == runtime


def test_ollama_reserves_its_context_by_the_memory_of_the_gpu() -> None:
    sizes = {gib: physics.memory_terms(case(framework="ollama", memory_gb=gib))[1] for gib in ("12", "24", "48")}
    assert sizes["12"] < sizes["24"] < sizes["48"]
    short, long = (
        physics.memory_terms(case(framework="ollama", memory_gb="24", prompt_tokens=n)) for n in ("9", "999")
    )
    assert short == long


def test_longer_prompts_never_need_less_memory() -> None:
    for framework in ("mlx", "llama.cpp", "openvino", "ollama"):
        needs = [physics.memory_gib(case(framework=framework, prompt_tokens=str(n)), START) for n in (1, 500, 9000)]
        assert needs == sorted(needs)


def test_reach_brings_cards_closer_but_not_processors() -> None:
    near, far = Scale(0.3, 0.1), Scale(0.3, 0.1, reach=2.5)
    cards = traits_of(case()), traits_of(case(device="RTX 3060", chip="RTX 3060"))
    assert likeness(*cards, far) > likeness(*cards, near)
    cells = {"device_kind": "cpu", "backend": "cpu"}
    processors = (
        traits_of(case(device="Core i7-7820HQ", chip="Core i7-7820HQ", **cells)),
        traits_of(case(device="Intel N150", chip="Intel N150", **cells)),
    )
    assert likeness(*processors, far) == likeness(*processors, near)


def test_cards_of_another_generation_tell_nothing_where_generations_are_set_apart() -> None:
    apart = Scale(0.5, 0.12, reach=20.0, generation=9.0)
    ampere, small, ada = (traits_of(case(device=name, chip=name)) for name in ("RTX 3090", "RTX 3060", "RTX 4090"))
    assert likeness(ampere, ada, apart) < 0.02 * likeness(ampere, small, apart)


def test_npus_tell_of_each_other_within_one_vendor_and_phones_of_phones() -> None:
    cells = {"device_kind": "npu", "backend": "npu", "framework": "qnn"}
    names = ("Snapdragon X Elite", "Snapdragon X2 Elite", "Snapdragon 8 Elite Gen 5", "Snapdragon 8 Gen 3")
    laptop, newer, phone, older = (traits_of(case(device=name, chip=name, **cells)) for name in names)
    scale = Scale(0.5, 0.12, generation=9.0)
    assert likeness(laptop, newer, scale) > 0 < likeness(phone, older, scale)
    assert likeness(laptop, phone, scale) == 0
    rkllm = case(device="Rockchip RK3588", chip="RK3588", **cells | {"framework": "rkllm"})
    assert likeness(laptop, traits_of(rkllm), scale) == 0


def test_ollama_reserves_no_more_than_the_model_was_trained_for() -> None:
    cells = {"framework": "ollama", "memory_gb": "80"}
    short, long = case(model="Qwen2.5-7B-Instruct", **cells), case(model="gemma-4-26B-A4B-it", **cells)
    assert physics.memory_terms(short)[1] * GIB == short.cached_bytes(short.context)
    assert short.context < long.context == 262144
    assert 5.0 < physics.memory_terms(long)[1] < 5.4  # two key-value heads of 512 in five global layers


def test_embeddings_for_each_layer_are_no_experts() -> None:
    """Both read a part of their weights for a token; only experts are multiplied in smaller batches."""
    small, mixture, dense = (case(model=name) for name in ("gemma-4-E2B-it", "Qwen3-30B-A3B", "Qwen3-4B"))
    assert [one.is_moe for one in (small, mixture, dense)] == [False, True, False]
    assert [one.is_scattered for one in (small, mixture, dense)] == [True, True, False]
