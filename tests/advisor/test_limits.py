"""Hard limits, each with the case that it is for: what would not load, fit or convert is refused or said."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.constraints import Constraints
from advisor.decide import make_plan
from advisor.limits import largest_tensor_bytes
from advisor.memory import memory_need
from knowledge.base import GIB
from knowledge.models import embedded_model, find_model
from knowledge.precisions import resolve_precision
from knowledge.requirements import is_older, load_requirements
from knowledge.weights import weights
from probes.declared import declared_profile
from probes.profile import HardwareProfile

Change = Callable[[HardwareProfile], HardwareProfile]


def plan(model: str, change: Change = lambda profile: profile, **request: Any) -> dict[str, Any]:
    """The plan for a named model on a declared machine, of which `change` may say more."""
    asked = Constraints(**{"model": model, "top": 20, **request})
    machine = {
        name: getattr(asked, name) for name in ("ram_bytes", "vram_bytes", "chip", "device", "vendor", "os", "target")
    }
    return make_plan(asked, change(declared_profile(**machine)), find_model(model))


def rejected(document: dict[str, Any]) -> set[str]:
    return {r["rule"] for r in document["rejected"]}


def chosen(document: dict[str, Any]) -> set[tuple[str, str, str]]:
    return {(r["framework"], r["backend"], r["precision"]) for r in document["recommendations"]}


def warnings(document: dict[str, Any]) -> str:
    return " ".join(words for r in document["recommendations"] for words in r["warnings"])


LAPTOP: dict[str, Any] = {"chip": "Core Ultra 7 155H", "ram_bytes": 32 * GIB, "os": "windows", "target": "npu"}


def with_npu_driver(version: str) -> Change:
    return lambda profile: profile.model_copy(
        update={"npus": tuple(npu.model_copy(update={"driver": version}) for npu in profile.npus)}
    )


def with_gpu_driver(version: str) -> Change:
    return lambda profile: profile.model_copy(
        update={"gpus": tuple(gpu.model_copy(update={"driver": version}) for gpu in profile.gpus)}
    )


def with_os(**update: Any) -> Change:
    return lambda profile: profile.model_copy(update={"os": profile.os.model_copy(update=update)})


def with_disk(**update: Any) -> Change:
    return lambda profile: profile.model_copy(update={"disk": profile.disk.model_copy(update=update)})


@pytest.mark.parametrize(("version", "served"), [("32.0.100.3104", True), ("32.0.100.2408", False), ("", True)])
def test_an_npu_driver_that_is_too_old_is_named_with_the_one_that_is_needed(version: str, served: bool) -> None:
    document = plan("Llama-3.2-1B-Instruct", with_npu_driver(version), **LAPTOP)
    assert ("openvino", "openvino-npu", "int4-sym-g128") in chosen(document) or not served
    told = [r["text"] for r in document["rejected"] if r["rule"] == "requirement.unmet"]
    assert bool(told) is not served
    assert all("32.0.100.3104" in text and "32.0.100.2408" in text for text in told)


def test_a_system_below_the_least_is_refused() -> None:
    assert "requirement.unmet" in rejected(plan("Llama-3.2-1B-Instruct", with_os(version="10.0.19045"), **LAPTOP))
    mac: dict[str, Any] = {"chip": "Apple M2", "ram_bytes": 16 * GIB, "os": "macos"}
    assert not any(row[0] == "mlx" for row in chosen(plan("Llama-3.2-1B-Instruct", with_os(version="13.6"), **mac)))
    assert any(row[0] == "mlx" for row in chosen(plan("Llama-3.2-1B-Instruct", with_os(version="15.1"), **mac)))


def test_mlx_does_not_run_under_rosetta() -> None:
    mac: dict[str, Any] = {"chip": "Apple M2", "ram_bytes": 16 * GIB, "os": "macos"}
    document = plan("Llama-3.2-1B-Instruct", with_os(rosetta=True), **mac)
    assert "requirement.rosetta" in rejected(document)
    assert not any(framework == "mlx" for framework, *_ in chosen(document))


@pytest.mark.parametrize(("driver", "served"), [("535.183.01", False), ("560.35", True), ("32.0.15.5599", True)])
def test_a_cuda_driver_is_compared_only_with_one_that_counts_alike(driver: str, served: bool) -> None:
    document = plan("Llama-3.2-1B-Instruct", with_gpu_driver(driver), chip="RTX 3060", ram_bytes=32 * GIB, os="linux")
    assert (("llama.cpp", "cuda") in {row[:2] for row in chosen(document)}) is served


@given(st.lists(st.integers(0, 999), min_size=1, max_size=4), st.lists(st.integers(0, 999), min_size=1, max_size=4))
def test_versions_are_ordered_as_numbers(one: list[int], other: list[int]) -> None:
    mine, least = (".".join(map(str, parts)) for parts in (one, other))
    answer = is_older(mine, least)
    if answer is None:
        assert len(str(one[0])) != len(str(other[0]))
    elif len(one) == len(other):
        assert answer is (one < other)
    assert is_older(mine, mine) is False
    assert is_older("not a version", least) is None


def test_requirements_name_a_minimum_and_a_source() -> None:
    for row in load_requirements():
        assert row.minimum
        assert row.source
        assert row.text
        assert row.component in ("npu-driver", "gpu-driver", "os", "kernel", "runtime", "python", "libc", "jetpack")


def test_tensorrt_for_rtx_is_not_for_gtx() -> None:
    assert "gpu.no-tensor-cores" in rejected(plan("Llama-3.2-1B-Instruct", chip="GTX 1650", framework="olive"))
    assert "gpu.no-tensor-cores" not in rejected(plan("Llama-3.2-1B-Instruct", chip="RTX 2060", framework="olive"))


def test_nf4_runs_on_lunar_lake_and_not_on_meteor_lake() -> None:
    old = plan("Llama-3.2-1B-Instruct", **{**LAPTOP, "precision": "nf4-cw"})
    new = plan("Llama-3.2-1B-Instruct", **{**LAPTOP, "precision": "nf4-cw", "chip": "Core Ultra 7 258V"})
    assert "npu.nf4-generation" in rejected(old)
    assert ("openvino", "openvino-npu", "nf4-cw") in chosen(new)


def test_an_npu_answers_one_request_at_a_time() -> None:
    assert "backend.concurrency" in rejected(plan("Llama-3.2-1B-Instruct", **LAPTOP, concurrency=2))
    assert "backend.concurrency" not in rejected(plan("Llama-3.2-1B-Instruct", **LAPTOP))


def test_awq_needs_turing() -> None:
    request: dict[str, Any] = {"framework": "olive", "precision": "int4-awq-g128", "ram_bytes": 32 * GIB, "os": "linux"}
    assert "precision.awq-capability" in rejected(plan("Llama-3.2-1B-Instruct", chip="GTX 1080 Ti", **request))
    assert "precision.awq-capability" not in rejected(plan("Llama-3.2-1B-Instruct", chip="RTX 3060", **request))


@pytest.mark.parametrize(
    ("precision", "old", "new"),
    [("bf16", "RTX 2060", "RTX 3060"), ("mxfp8", "RTX 3060", "RTX 4090"), ("mxfp4", "RTX 4090", "RTX 5090")],
)
def test_a_number_format_without_arithmetic_in_the_gpu_is_said_to_save_no_time(
    precision: str, old: str, new: str
) -> None:
    request: dict[str, Any] = {"framework": "mlx", "precision": precision, "os": "linux", "target": "gpu"}
    assert "compute capability" in warnings(plan("Llama-3.2-1B-Instruct", chip=old, **request))
    assert "(compute capability" not in warnings(plan("Llama-3.2-1B-Instruct", chip=new, **request))


def test_blocks_of_a_quantized_cache_must_divide_the_heads() -> None:
    mac: dict[str, Any] = {"chip": "Apple M2", "ram_bytes": 32 * GIB, "os": "macos", "framework": "mlx"}
    assert "kv.block-divides" in rejected(
        plan("Phi-3-mini-4k-instruct", **mac, kv_cache="q8_0")
    )  # 96 wide, groups of 64
    assert "kv.block-divides" not in rejected(plan("Phi-3-mini-4k-instruct", **mac))
    assert "kv.block-divides" not in rejected(plan("Llama-3.2-1B-Instruct", **mac, kv_cache="q8_0"))


def test_mlx_cannot_quantize_a_sliding_window() -> None:
    mac: dict[str, Any] = {"chip": "Apple M2", "ram_bytes": 32 * GIB, "os": "macos"}
    document = plan("gemma-3-4b-it", **mac, kv_cache="q8_0")
    assert "kv.sliding-window" in rejected(document)
    assert not any(framework == "mlx" for framework, *_ in chosen(document))
    assert any(framework == "llama.cpp" for framework, *_ in chosen(document))


def test_a_quantized_cache_needs_flash_attention_and_the_plan_says_so() -> None:
    document = plan("Llama-3.2-1B-Instruct", chip="RTX 3060", framework="llama.cpp", kv_cache="q8_0")
    assert all("flash attention" in str(r["reasons"]) for r in document["recommendations"])


def test_the_largest_buffer_is_a_whole_embedding_or_one_layer() -> None:
    model = find_model("gemma-3-4b-it")
    sizes = weights(model, resolve_precision("Q8_0", "llama.cpp")[0])
    need = memory_need(model, sizes, "llama.cpp", "cpu", 4096)
    assert largest_tensor_bytes(model, sizes, need) == sizes.by_role["token_embd"]
    long = memory_need(model, sizes, "llama.cpp", "cpu", 131_072 * 16)
    assert largest_tensor_bytes(model, sizes, long) > sizes.by_role["token_embd"]


def test_a_buffer_that_the_driver_does_not_allocate_is_refused() -> None:
    adreno: dict[str, Any] = {"chip": "Snapdragon X Elite", "ram_bytes": 64 * GIB, "os": "windows", "target": "gpu"}
    document = plan("Qwen2.5-7B-Instruct", **adreno, framework="llama.cpp", precision="F16")  # 1.01 GiB of embeddings
    assert "memory.allocation" in rejected(document)
    assert not any(backend == "opencl" for _, backend, _ in chosen(document))
    assert "memory.allocation" not in rejected(
        plan("Qwen2.5-7B-Instruct", **adreno, framework="llama.cpp", precision="Q4_0")
    )


def test_fallbacks_of_k_quants_are_said() -> None:
    small = plan("SmolLM2-135M-Instruct", ram_bytes=4 * GIB, target="cpu", framework="llama.cpp", precision="Q4_K_M")
    assert "256 does not divide" in warnings(small)
    even = plan("Llama-3.2-1B-Instruct", ram_bytes=4 * GIB, target="cpu", framework="llama.cpp", precision="Q4_K_M")
    assert "256 does not divide" not in warnings(even)


def test_a_fat_disk_holds_no_file_of_four_gigabytes() -> None:
    request: dict[str, Any] = {"ram_bytes": 32 * GIB, "os": "linux", "framework": "llama.cpp", "precision": "Q4_K_M"}
    document = plan("Llama-3.1-8B-Instruct", with_disk(filesystem="vfat"), **request)
    assert "disk.fat" in rejected(document)
    assert document["status"] == "infeasible"
    assert plan("Llama-3.1-8B-Instruct", with_disk(filesystem="exfat"), **request)["status"] == "ok"
    assert plan("Llama-3.2-1B-Instruct", with_disk(filesystem="vfat"), **request)["status"] == "ok"


def test_a_full_disk_refuses_and_a_tight_one_sends_the_making_elsewhere() -> None:
    request: dict[str, Any] = {"ram_bytes": 32 * GIB, "os": "linux", "framework": "llama.cpp", "precision": "Q4_K_M"}
    full = plan("Llama-3.1-8B-Instruct", with_disk(free_bytes=2 * GIB), **request)
    assert "disk.full" in rejected(full)
    tight = plan("Llama-3.1-8B-Instruct", with_disk(free_bytes=10 * GIB), **request)
    assert tight["status"] == "ok"
    assert "another host" in warnings(tight)
    assert "another host" not in warnings(plan("Llama-3.1-8B-Instruct", with_disk(free_bytes=200 * GIB), **request))


def test_a_machine_too_small_to_compress_on_is_sent_to_another_host() -> None:
    request: dict[str, Any] = {"chip": "Core Ultra 7 155H", "os": "windows", "framework": "openvino", "target": "npu"}
    assert "another host" in warnings(plan("Qwen3-4B", ram_bytes=10 * GIB, **request))
    assert "another host" not in warnings(plan("Qwen3-4B", ram_bytes=64 * GIB, **request))


def test_a_phone_only_runs_what_a_computer_makes() -> None:
    phone = plan("Llama-3.2-1B-Instruct", device="Galaxy S24 Ultra")
    assert all("made on a computer" in str(r["reasons"]) for r in phone["recommendations"])


def test_the_embedded_model_is_not_refused_by_any_of_this() -> None:
    spec = embedded_model()
    document = make_plan(Constraints(), declared_profile(ram_bytes=4 * GIB, os="linux"), spec)
    assert document["status"] == "ok"
