"""What physics says of caches and of memory, before anything is learned."""

from __future__ import annotations

from advisor import physics
from advisor.case import Case
from advisor.cost_model import Scale, likeness, traits_of
from advisor.workload import case_of_row
from knowledge.base import GIB

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


def test_npus_tell_of_each_other_within_one_vendor_only() -> None:
    cells = {"device_kind": "npu", "backend": "npu", "framework": "qnn"}
    one, other = (case(device=name, chip=name, **cells) for name in ("Snapdragon X Elite", "Snapdragon 8 Elite Gen 5"))
    scale = Scale(0.5, 0.12, generation=9.0)
    assert likeness(traits_of(one), traits_of(other), scale) > 0
    rkllm = case(device="Rockchip RK3588", chip="RK3588", **cells | {"framework": "rkllm"})
    assert likeness(traits_of(one), traits_of(rkllm), scale) == 0


def test_ollama_reserves_no_more_than_the_model_was_trained_for() -> None:
    cells = {"framework": "ollama", "memory_gb": "80"}
    short, long = case(model="Qwen2.5-7B-Instruct", **cells), case(model="gemma-4-26B-A4B-it", **cells)
    assert physics.memory_terms(short)[1] * GIB == short.cached_bytes(short.context)
    assert short.context < long.context == 262144
    assert 5.0 < physics.memory_terms(long)[1] < 5.4  # two key-value heads of 512 in five global layers
