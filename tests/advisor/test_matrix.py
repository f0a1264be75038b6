"""What runs where, against an oracle of its own: no chip of the knowledge base is offered a backend it cannot load."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.candidates import backends_for
from advisor.constraints import Constraints
from advisor.decide import make_plan
from advisor.engines import Engine, engines_of
from knowledge.base import GIB
from knowledge.chips import load_chips, npu_generation, npu_kit, systems_of
from knowledge.matrix import Backend, load_backends, load_frameworks, rows_for
from knowledge.models import find_model
from knowledge.records import Chip
from knowledge.sources import load_sources
from probes.declared import declared_profile

Where = Callable[[Engine], bool]


def capability(engine: Engine) -> float:
    """CUDA compute capability of a generation such as `cc 8.9`; 99 where it is not known."""
    found = re.match(r"cc (\d+\.\d+)", engine.generation)
    return float(found[1]) if found else 99.0


def hexagon(engine: Engine) -> int:
    found = re.match(r"Hexagon v(\d+)", engine.generation)
    return int(found[1]) if found else 99 if not engine.generation else 0


def is_a(kind: str, vendor: str | None, *systems: str) -> Where:
    """An engine of the kind and vendor, on one of the systems or on one that was not said."""
    return lambda e: e.kind == kind and vendor in (e.vendor, None) and (e.os is None or e.os in systems)


def cpu_on(*systems: str) -> Where:
    here = is_a("cpu", None, *systems)
    return lambda e: here(e) and e.arch in ("x86_64", "arm64", "unknown")


def nvidia_from(least: float, *systems: str) -> Where:
    here = is_a("gpu", "nvidia", *systems)
    return lambda e: here(e) and capability(e) >= least


def has_vulkan(e: Engine) -> bool:
    without = re.match(r"gfx9(08|0a|4|5)|Gen7" + ("" if e.os in ("android", None) else "|Mali"), e.generation)
    return e.kind == "gpu" and e.vendor not in ("apple", "broadcom") and not without and capability(e) >= 5


def has_rocm(e: Engine) -> bool:
    """On Windows only what llama.cpp's release is built for; on Linux a sibling's kernels can be forced."""
    built = "" if e.os != "windows" else r"(?!gfx1103|gfx103[3-7]|gfx115[2-9])"
    loads = re.match(rf"{built}(?!gfx([789]0[0-6c]|101|8))", e.generation)
    return is_a("gpu", "amd", *DESKTOP)(e) and bool(loads)


def has_sycl(e: Engine) -> bool:
    return is_a("gpu", "intel", *DESKTOP)(e) and (not e.generation or e.generation.startswith("Xe"))


def intel_graphics(e: Engine) -> bool:
    return is_a("gpu", "intel", *DESKTOP)(e) and not e.generation.startswith("Gen7")


def hexagon_from_v73(e: Engine) -> bool:
    return (e.kind, e.vendor) == ("npu", "qualcomm") and hexagon(e) >= 73


DESKTOP = ("linux", "windows")
# Written from the vendors' and frameworks' support pages, not from backends.csv.
LOADS: dict[tuple[str, str], Where] = {
    ("llama.cpp", "cpu"): lambda e: e.kind == "cpu",
    ("llama.cpp", "cuda"): nvidia_from(5.0, *DESKTOP),
    ("llama.cpp", "rocm"): has_rocm,
    ("llama.cpp", "vulkan"): has_vulkan,
    ("llama.cpp", "sycl"): has_sycl,
    ("llama.cpp", "metal"): is_a("gpu", "apple", "macos", "ios"),
    ("llama.cpp", "opencl"): is_a("gpu", "qualcomm", "android", *DESKTOP),
    ("llama.cpp", "hexagon"): hexagon_from_v73,
    ("llama.cpp", "openvino-npu"): is_a("npu", "intel", *DESKTOP),
    ("openvino", "cpu"): cpu_on("linux", "windows", "macos"),
    ("openvino", "openvino-gpu"): intel_graphics,
    ("openvino", "openvino-npu"): is_a("npu", "intel", *DESKTOP),
    ("olive", "cpu"): cpu_on("linux", "windows", "macos", "android"),
    ("olive", "cuda"): nvidia_from(6.1, *DESKTOP),
    ("olive", "tensorrt-rtx"): lambda e: nvidia_from(7.5, *DESKTOP)(e) and e.arch != "arm64",
    ("olive", "directml"): lambda e: is_a("gpu", None, "windows")(e) and e.vendor in ("nvidia", "amd", "intel"),
    ("olive", "webgpu"): is_a("gpu", None, "linux", "windows", "macos"),
    ("olive", "openvino-gpu"): intel_graphics,
    ("olive", "openvino-npu"): is_a("npu", "intel", *DESKTOP),
    ("olive", "vitisai"): lambda e: is_a("npu", "amd", *DESKTOP)(e) and e.generation != "XDNA1",
    ("olive", "qnn"): hexagon_from_v73,
    ("mlx", "metal"): is_a("gpu", "apple", "macos", "ios"),
    ("mlx", "cuda"): nvidia_from(7.5, "linux"),
    ("mlx", "cpu"): cpu_on("linux"),
}


def offered(engine: Engine) -> list[Backend]:
    """The rows that would be planned for: neither said to be impossible nor of another system, architecture, chip."""
    return [
        row
        for row in backends_for(engine)
        if row.support != "unsupported"
        and row.serves_generation(engine.generation)
        and row.serves_os(engine.os)
        and row.serves_arch(engine.arch)
    ]


Places = list[tuple[Chip, Engine, Backend]]


@pytest.fixture(scope="module")
def places() -> Places:
    """Every chip's engines, on each system that its kind runs and on an unknown one, with what they are offered."""
    found: Places = []
    for chip in load_chips():
        here = engines_of(declared_profile(chip=chip.name))
        for system in (*systems_of(chip.vendor, chip.kind).systems, None):
            for engine in (replace(engine, os=system) for engine in here):
                found += [(chip, engine, row) for row in offered(engine)]
    return found


def test_no_chip_is_offered_a_backend_that_it_cannot_load(places: Places) -> None:
    wrong = {
        (chip.name, engine.os, row.framework, row.backend, engine.generation)
        for chip, engine, row in places
        if not LOADS[row.framework, row.backend](engine)
    }
    assert not wrong


def test_every_machine_can_run_llama_cpp_on_its_cpu(places: Places) -> None:
    served = {chip.name for chip, engine, row in places if (row.framework, engine.kind) == ("llama.cpp", "cpu")}
    assert served == {chip.name for chip in load_chips()}


def test_every_npu_is_served_or_its_own_kit_is_named(places: Places) -> None:
    served = {engine.generation for _, engine, row in places if engine.kind == "npu"}
    generations = {(chip.vendor, npu_generation(chip)) for chip in load_chips() if npu_generation(chip)}
    left = {(vendor, name) for vendor, name in generations if name not in served and npu_kit(vendor, name) is None}
    assert not left


def test_an_npu_that_nothing_serves_is_answered_with_what_does() -> None:
    document = plan(target="npu", device="Orange Pi 5", ram_bytes=8 * GIB)
    assert "RKLLM" in " ".join(document["warnings"])
    assert all("not on the NPU" in r["warnings"][0] for r in document["recommendations"])
    assert "RKLLM" not in " ".join(plan(target="cpu", device="Orange Pi 5", ram_bytes=8 * GIB)["warnings"])
    named = plan(chip="Hailo-8", ram_bytes=8 * GIB)
    assert "HailoRT" in " ".join(named["assumptions"])


def test_a_board_without_a_gpu_is_not_asked_for_its_gpu() -> None:
    board = plan(device="reCamera", target="gpu")
    assert (board["status"], [r["rule"] for r in board["rejected"]]) == ("infeasible", ["gpu.absent"])
    assert plan(chip="EPYC 7763", ram_bytes=64 * GIB, target="gpu")["status"] == "needs_input"  # a card may be in it
    assert plan(device="Jetson Orin Nano", target="gpu")["status"] == "ok"


@pytest.mark.parametrize("board", ["Raspberry Pi 5", "Raspberry Pi 4", "Orange Pi 5"])
def test_graphics_of_a_board_that_llama_cpp_runs_badly_on_are_not_offered(board: str) -> None:
    document = plan(device=board, ram_bytes=8 * GIB, target="gpu", os="linux")
    assert document["status"] == "infeasible"
    (said,) = [r for r in document["rejected"] if r["backend"] == "vulkan"]
    assert said["rule"] == "backend.unsupported"
    assert "llama.cpp issues" in said["text"]
    assert plan(device=board, ram_bytes=8 * GIB, os="linux")["recommendations"][0]["backend"] == "cpu"


def test_a_gpu_that_the_windows_release_has_no_kernels_for_gets_vulkan_and_is_told_why() -> None:
    document = plan(chip="Ryzen AI 7 350", ram_bytes=16 * GIB, os="windows")
    assert "vulkan" in {r["backend"] for r in document["recommendations"]}
    (said,) = [r for r in document["rejected"] if r["backend"] == "rocm"]
    assert said["rule"] == "backend.unsupported"
    assert "invalid device function" in said["text"]


def backends(vendor: str, generation: str, os: str | None, kind: str = "gpu", arch: str = "x86_64") -> set[str]:
    engine = Engine(kind, vendor, "x", generation, "ram", None, None, None, os=os, arch=arch)
    return {f"{row.framework}/{row.backend}" for row in offered(engine)}


@pytest.mark.parametrize(
    ("generation", "os", "rocm", "vulkan"),
    [
        ("gfx1100", "linux", True, True), ("gfx1100", "windows", True, True), ("gfx1030", "linux", True, True),
        ("gfx1030", "windows", True, True), ("gfx1032", "windows", True, True), ("gfx942", "linux", True, False),
        ("gfx1103", "windows", False, True), ("gfx1103", "linux", True, True), ("gfx1150", "windows", True, True),
        ("gfx1152", "windows", False, True), ("gfx1152", "linux", True, True), ("gfx1036", "windows", False, True),
        ("gfx942", "windows", False, False), ("gfx906", "linux", False, True), ("gfx803", "linux", False, True),
        ("gfx1151", "windows", True, True), ("gfx1201", "linux", True, True), ("", "linux", True, True),
    ],
)  # fmt: skip
def test_rocm_serves_the_radeon_and_instinct_generations_of_each_system(
    generation: str, os: str, rocm: bool, vulkan: bool
) -> None:
    found = backends("amd", generation, os)
    assert ("llama.cpp/rocm" in found) is rocm
    assert ("llama.cpp/vulkan" in found) is vulkan


@pytest.mark.parametrize(
    ("generation", "expected"),
    [
        ("cc 3.7", set()),
        ("cc 5.2", {"llama.cpp/cuda", "llama.cpp/vulkan"}),
        ("cc 6.1", {"llama.cpp/cuda", "llama.cpp/vulkan", "olive/cuda"}),
        ("cc 7.0", {"llama.cpp/cuda", "llama.cpp/vulkan", "olive/cuda"}),
        ("cc 7.5", {"llama.cpp/cuda", "llama.cpp/vulkan", "olive/cuda", "olive/tensorrt-rtx", "mlx/cuda"}),
        ("cc 8.9", {"llama.cpp/cuda", "llama.cpp/vulkan", "olive/cuda", "olive/tensorrt-rtx", "mlx/cuda"}),
        ("cc 12.0", {"llama.cpp/cuda", "llama.cpp/vulkan", "olive/cuda", "olive/tensorrt-rtx", "mlx/cuda"}),
        ("cc 13.0", {"llama.cpp/cuda", "llama.cpp/vulkan", "olive/cuda", "olive/tensorrt-rtx", "mlx/cuda"}),
        ("", {"llama.cpp/cuda", "llama.cpp/vulkan", "olive/cuda", "olive/tensorrt-rtx", "mlx/cuda"}),
    ],
)
def test_the_compute_capability_decides_on_nvidia(generation: str, expected: set[str]) -> None:
    assert backends("nvidia", generation, "linux") - {"olive/webgpu"} == expected


GENERATIONS: dict[tuple[str, str], list[str]] = {
    ("gpu", "nvidia"): ["", "cc 3.0", "cc 7.2", "cc 13.1", "weird"],
    ("gpu", "amd"): ["", "gfx1310", "gfx90a", "gfx1036", "gfx803", "weird"],
    ("gpu", "intel"): ["", "Xe4", "Gen7.5", "Gen9", "weird"],
    ("gpu", "qualcomm"): ["", "Adreno 940", "Adreno 505"],
    ("gpu", "broadcom"): ["", "VideoCore IV", "VideoCore VIII"],
    ("gpu", "apple"): ["", "99-core GPU"],
    ("gpu", "other"): ["", "weird"],
    ("npu", "intel"): ["", "NPU 3720", "NPU 6000"],
    ("npu", "amd"): ["", "XDNA1", "XDNA3"],
    ("npu", "qualcomm"): ["", "Hexagon", "Hexagon v68", "Hexagon v91"],
    ("npu", "apple"): ["ANE"],
    ("npu", "other"): ["", "Hailo-9"],
    ("cpu", "intel"): [""],
    ("cpu", "unknown"): [""],
}
engines = st.builds(
    lambda part, os, arch: Engine(part[0], part[1], "x", part[2], "ram", None, None, None, os=os, arch=arch),
    st.sampled_from([(*kind, name) for kind, names in GENERATIONS.items() for name in names]),
    st.sampled_from(["linux", "windows", "macos", "android", "ios", None]),
    st.sampled_from(["x86_64", "arm64", "armv7", "riscv64", "unknown"]),
)


@given(engines)
def test_hardware_that_nobody_has_seen_yet_is_offered_nothing_of_another_kind(engine: Engine) -> None:
    for row in offered(engine):
        assert LOADS[row.framework, row.backend](engine), (row.framework, row.backend)


@given(engines)
def test_of_a_backend_that_runs_nothing_says_that_it_does_not(engine: Engine) -> None:
    runs = {(row.framework, row.backend) for row in offered(engine)}
    said = [(row.framework, row.backend) for row in backends_for(engine) if row not in offered(engine)]
    assert not runs & set(said)
    assert len(said) == len(set(said))


def test_nvidia_on_arm_has_no_wheel_of_onnx_runtime_genai() -> None:
    rows = rows_for("gpu", "nvidia", "cc 8.7", "linux", "arm64")
    assert {row.support for row in rows if (row.framework, row.backend) == ("olive", "cuda")} == {"experimental"}
    assert not any(row.backend == "tensorrt-rtx" and row.serves_arch("arm64") for row in rows)


def test_a_habana_card_is_no_core_ultra_npu() -> None:
    assert backends("intel", "Gaudi", "linux", kind="npu") == set()
    assert "openvino/openvino-npu" in backends("intel", "NPU 4000", "linux", kind="npu")
    assert "openvino/openvino-npu" in backends("intel", "", "windows", kind="npu")


def test_a_backend_is_rejected_once_and_with_the_reason_of_this_machine() -> None:
    for chip, os in (("RX 7900 XTX", "linux"), ("MI300X", "linux"), ("RTX 4090", "windows"), ("RX 6600", "linux")):
        document = plan(chip=chip, os=os, ram_bytes=32 * GIB)
        said = [(r["framework"], r["backend"], r["rule"]) for r in document["rejected"] if r["model"] is None]
        loaded = {(r["framework"], r["backend"]) for r in document["recommendations"]}
        platform = [row[:2] for row in said if row[2].startswith("backend.")]
        assert len(platform) == len(set(platform))
        assert not loaded & set(platform)


def plan(**request: Any) -> dict[str, Any]:
    asked = Constraints(**request)
    profile = declared_profile(
        ram_bytes=asked.ram_bytes, vram_bytes=asked.vram_bytes, chip=asked.chip, device=asked.device,
        vendor=asked.vendor, os=asked.os, target=asked.target,
    )  # fmt: skip
    return make_plan(asked, profile, find_model("Llama-3.2-1B-Instruct"))


def test_every_row_of_the_matrix_carries_its_evidence() -> None:
    known = {source.id for source in load_sources()}
    for row in load_backends():
        where = f"{row.framework}/{row.backend} {sorted(row.vendors)}"
        assert row.text, where
        assert not row.text.endswith("."), where
        assert row.source, where
        assert row.support in ("supported", "experimental", "unsupported", "outside"), where
        for source in row.source.split("; "):
            assert source in known or " " in source, f"{where}: {source}"
        assert bool(row.precisions) is (row.support in ("supported", "experimental")), where
    assert all(row.version and row.source in known for row in load_frameworks())


def test_places_that_are_not_planned_for_are_only_shown() -> None:
    outside = [row for row in load_backends() if row.support == "outside"]
    assert {"browser"} <= {system for row in outside for system in row.os}
    for row in outside:
        for vendor in ("intel", "nvidia", "qualcomm", "unknown"):
            assert row not in rows_for(row.engine, vendor, "", None, "x86_64")
