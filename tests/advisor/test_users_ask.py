"""What users of neighbouring tools reported, each as a claim about our decision; named after the thread."""

import json
from typing import Any

import pytest
from planning import GIB, plan

from advisor.constraints import Constraints
from advisor.decide import make_plan
from knowledge.models import find_model, load_models
from probes.declared import declared_profile
from probes.profile import GPU, NPU, HardwareProfile, MemoryPool, OperatingSystem

LUNAR_LAKE: dict[str, Any] = {"chip": "Core Ultra 7 258V", "ram_bytes": 32 * GIB, "os": "windows"}


def first(model: str | None = None, **request: Any) -> dict[str, Any]:
    best: dict[str, Any] = plan(model, **request)["recommendations"][0]
    return best


def rejections(document: dict[str, Any]) -> set[str]:
    return {row["rule"] for row in document["rejected"]}


def test_llmfit_806_a_model_recommended_for_a_machine_fits_it_when_it_is_named() -> None:
    request: dict[str, Any] = {"ram_bytes": 32 * GIB, "chip": "RTX 4090", "os": "linux", "top": 6}
    for row in plan(**request)["recommendations"]:
        named = plan(row["model"], framework=row["framework"], precision=row["precision"], **request)
        same = [r for r in named["recommendations"] if (r["backend"], r["device"]) == (row["backend"], row["device"])]
        assert [r["memory"] for r in same] == [row["memory"]]


def test_llmfit_449_292_a_speed_is_an_interval_with_its_basis_and_a_step_that_measures_it() -> None:
    document = plan("Llama-3.2-1B-Instruct", **LUNAR_LAKE)
    for row in document["recommendations"]:
        band = row["decode_tps"]
        assert band["low"] < band["mid"] < band["high"]
        assert band["basis"]
    assert "benchmark" in {step["kind"] for step in document["plan"]["steps"]}


def test_llmfit_257_a_format_that_the_gpu_generation_lacks_is_refused() -> None:
    request: dict[str, Any] = {"vram_bytes": 24 * GIB, "ram_bytes": 32 * GIB, "os": "linux", "framework": "mlx"}
    old = plan("Llama-3.2-1B-Instruct", chip="Tesla P40", **request)
    assert "cuda" not in {row["backend"] for row in old["recommendations"]}
    assert ("mlx", "cuda") in {(row["framework"], row["backend"]) for row in old["rejected"]}


def test_llmfit_526_a_4_bit_source_is_not_requantized_to_6_bits() -> None:
    from dataclasses import replace

    spec = replace(find_model("Qwen2.5-1.5B-Instruct"), source_precision="Q4_K_M", path="/models/alice.gguf")
    document = plan(spec, ram_bytes=8 * GIB, target="cpu", precision="Q6_K", framework="llama.cpp")
    assert document["status"] == "infeasible"
    assert "source.upscale" in rejections(document)


def test_llmfit_122_301_an_npu_without_a_driver_is_still_an_npu() -> None:
    profile = declared_profile(chip="Core Ultra 7 258V", ram_bytes=16 * GIB, os="linux")
    bare = profile.model_copy(update={"npus": (NPU(vendor="intel", generation="NPU 4000", state="driver-missing"),)})
    document = make_plan(Constraints(target="npu"), bare, find_model("Llama-3.2-1B-Instruct"))
    assert any("driver" in words for words in document["warnings"])
    assert document["recommendations"][0]["backend"] == "openvino-npu"


@pytest.mark.parametrize("described", [{"chip": "GB10"}, {"chip": "Core Ultra 7 155H", "ram_bytes": 16 * GIB}])
def test_llmfit_124_609_no_vram_is_not_no_gpu(described: dict[str, Any]) -> None:
    best = first("Llama-3.2-3B-Instruct", target="gpu", os="linux", **described)
    assert best["backend"] in ("cuda", "openvino-gpu", "vulkan", "sycl")
    assert best["memory"]["budget_bytes"] > 4 * GIB


def test_whichllm_76_79_nothing_unusably_slow_is_offered_to_a_small_board() -> None:
    document = plan(device="Raspberry Pi 5", ram_bytes=16 * GIB, os="linux", top=50)
    assert all(row["decode_tps"]["mid"] is None or row["decode_tps"]["mid"] >= 2 for row in document["recommendations"])
    assert "speed.unusable" in rejections(document)


def test_whichllm_pr_153_the_budget_of_a_mac_is_its_working_set() -> None:
    best = first("Llama-3.1-8B-Instruct", chip="Apple M2", ram_bytes=16 * GIB, os="macos")
    assert best["backend"] == "metal"
    assert best["memory"]["budget_bytes"] <= 0.75 * 16 * GIB


def test_a_mac_is_told_how_its_gpu_may_take_more_and_believed_that_it_does() -> None:
    mac = {"chip": "Apple M4 Pro", "ram_bytes": 24 * GIB, "os": "macos"}
    best = first("gemma-3-27b", **mac)
    assert best["backend"] == "cpu"
    assert any("sudo sysctl iogpu.wired_limit_mb=" in words for words in best["warnings"])
    lent = first("gemma-3-27b", vram_bytes=20 * GIB, **mac)
    assert lent["backend"] == "metal"
    assert not any("sysctl" in words for words in lent["warnings"])


def test_a_gpu_that_shares_memory_is_not_passed_over_because_it_may_take_less_of_it() -> None:
    halo = {"chip": "Ryzen AI Max+ 395", "ram_bytes": 128 * GIB, "os": "linux"}
    best = first("gpt-oss-120b", **halo)
    assert best["backend"] in ("vulkan", "rocm")
    assert best["memory"]["budget_bytes"] == 64 * GIB
    lent = first("gpt-oss-120b", vram_bytes=96 * GIB, **halo)
    assert lent["memory"]["budget_bytes"] == 96 * GIB


def test_openvino_34450_asymmetric_4_bits_are_refused_for_the_npu_before_any_download() -> None:
    document = plan("Qwen3-4B", precision="int4-asym-g128", target="npu", framework="openvino", **LUNAR_LAKE)
    assert document["status"] == "infeasible"
    assert "npu.symmetric" in rejections(document)
    assert document["plan"] is None


def test_ai_playground_564_an_npu_gets_no_model_without_evidence_that_it_loads() -> None:
    document = plan(target="npu", top=50, **LUNAR_LAKE)
    assert "architecture.no-evidence" in rejections(document)
    for row in document["recommendations"]:
        assert not any("is not known here" in words for words in row["warnings"])


def test_openvino_36270_the_vendor_s_own_framework_is_not_always_first() -> None:
    assert first("granite-4.0-h-tiny", target="gpu", **LUNAR_LAKE)["framework"] == "llama.cpp"
    theirs = first("granite-4.0-h-tiny", target="gpu", framework="openvino", **LUNAR_LAKE)
    assert "openvino issue 36270" in {reason["source"] for reason in theirs["reasons"]}


def test_optimum_intel_1708_olive_1962_an_export_that_needs_more_memory_than_there_is_is_said() -> None:
    document = plan("Qwen3-4B", framework="olive", ram_bytes=8 * GIB, os="linux", target="cpu")
    words = json.dumps([document["recommendations"], document["rejected"], document["warnings"]])
    assert "another" in words


def test_foundry_dev_tools_212_174_157_a_qnn_model_is_built_elsewhere_and_tied_to_its_driver() -> None:
    document = plan("Llama-3.2-1B-Instruct", chip="Snapdragon X Elite", ram_bytes=16 * GIB, os="windows", target="npu")
    best = document["recommendations"][0]
    assert best["backend"] == "qnn"
    assert any("driver" in words and "GPU host" in words for words in best["warnings"])
    assert {step["kind"]: step["host"] for step in document["plan"]["steps"]}["benchmark"] == "target"


def test_ai_hub_models_337_an_artifact_is_done_when_its_output_is_validated() -> None:
    work = plan("Llama-3.2-1B-Instruct", ram_bytes=8 * GIB, os="linux")["plan"]
    required = {gate["metric"] for gate in work["gates"] if gate["level"] == "required"}
    assert {"integrity", "smoke", "quality_retention"} <= required


def test_ollama_15474_a_container_s_limit_is_the_budget() -> None:
    pool = MemoryPool(id="ram", kind="ram", total_bytes=64 * GIB, available_bytes=60 * GIB, limit_bytes=3 * GIB)
    profile = HardwareProfile(origin="loaded", os=OperatingSystem(family="linux", container=True), memory=(pool,))
    document = make_plan(Constraints(target="cpu"), profile, find_model("Llama-3.1-8B-Instruct"))
    assert document["status"] == "infeasible"
    assert document["nearest"]["rule"] == "memory.fits"


def test_llama_cpp_17536_a_graphics_card_is_not_unified_memory() -> None:
    best = first("Llama-3.1-8B-Instruct", chip="RTX 4070", vram_bytes=12 * GIB, ram_bytes=64 * GIB, os="linux")
    assert best["backend"] == "cuda"
    assert best["memory"]["pool"] != "ram"
    assert best["memory"]["budget_bytes"] < 12 * GIB


def test_gguf_parser_go_42_45_a_split_model_is_said_to_be_the_least_certain() -> None:
    request: dict[str, Any] = {"chip": "RTX 4070", "vram_bytes": 12 * GIB, "ram_bytes": 64 * GIB, "os": "linux"}
    best = first("Qwen3-32B", framework="llama.cpp", target="gpu", **request)
    assert best["settings"]["n_gpu_layers"] > 0
    assert any("least certain" in words for words in best["warnings"])


@pytest.mark.parametrize("chip", ["Ryzen 7 7840U", "Apple M2", "RK3588"])
def test_gaia_23_lemonade_89_what_does_not_run_on_the_npu_says_so(chip: str) -> None:
    document = plan("Llama-3.2-1B-Instruct", chip=chip, ram_bytes=16 * GIB, target="npu")
    assert document["recommendations"]
    assert all("not on the NPU" in row["warnings"][0] for row in document["recommendations"])


@pytest.mark.parametrize("model", ["Llama-3.2-1B-Instruct", "Llama-3.1-8B-Instruct", None])
def test_executorch_14022_the_npu_is_for_energy_and_battery_and_not_for_speed_by_reflex(model: str | None) -> None:
    assert first(model, **LUNAR_LAKE)["backend"] != "openvino-npu"
    assert first(model, priority="speed", **LUNAR_LAKE)["backend"] != "openvino-npu"
    for wish in ({"priority": "energy"}, {"power": "battery"}):
        best = first(model, **wish, **LUNAR_LAKE)
        assert best["backend"] == "openvino-npu"
        assert any("often not faster" in words for words in best["warnings"])


def test_cascadia_37_an_npu_that_is_asked_for_is_answered_by_the_npu_with_its_price() -> None:
    document = plan("Llama-3.2-1B-Instruct", target="npu", **LUNAR_LAKE)
    assert document["recommendations"][0]["backend"] == "openvino-npu"
    assert any("saves power" in words for words in document["recommendations"][0]["warnings"])


def test_ultra_low_bits_on_a_small_model_are_warned_about_and_never_first_where_more_bits_fit() -> None:
    for spec in load_models():
        if spec.params_b > 4 or "chat" not in spec.use_cases:
            continue
        document = plan(spec, ram_bytes=32 * GIB, os="linux", target="cpu", top=20)
        best = document["recommendations"][0]
        assert best["precision_class"] != "ultra-low" or "bitnet" in spec.architecture, spec.name
    asked = first("Qwen2.5-0.5B-Instruct", ram_bytes=8 * GIB, precision="Q2_K", framework="llama.cpp")
    assert any("not recommended" in words for words in asked["warnings"])


@pytest.mark.parametrize("loss", [0.5, 1.0, 3.0, 10.0])
def test_the_quality_that_was_asked_for_holds_at_the_low_end(loss: float) -> None:
    request: dict[str, Any] = {"ram_bytes": 64 * GIB, "chip": "RTX 4090", "os": "linux", "top": 30}
    document = plan("Qwen3-8B", max_quality_loss_pct=loss, **request)
    assert all(row["quality"]["retention"]["low"] >= 1 - loss / 100 for row in document["recommendations"])
    lost = [row for row in document["rejected"] if row["rule"] == "quality.max-loss"]
    assert all("--max-quality-loss" in row["change"] for row in lost)


def test_what_runs_where_is_read_from_the_machine_and_not_from_its_name() -> None:
    card = GPU(vendor="nvidia", name="unnamed", kind="discrete", pool="vram", generation="cc 8.9", bandwidth_gbs=300.0)
    pools = (
        MemoryPool(id="ram", kind="ram", total_bytes=32 * GIB),
        MemoryPool(id="vram", kind="vram", total_bytes=8 * GIB),
    )
    profile = HardwareProfile(origin="loaded", os=OperatingSystem(family="linux"), memory=pools, gpus=(card,))
    best = make_plan(Constraints(), profile, find_model("Llama-3.2-1B-Instruct"))["recommendations"][0]
    assert (best["backend"], best["device"]) == ("cuda", "unnamed")
