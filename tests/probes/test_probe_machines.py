"""Whole machines through the whole path: composed fixtures, which show the path and prove no parser; one capture."""

import json
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from profile_leaves import without_source

from knowledge.base import write_json
from probes.probe import fingerprint, probe_machine
from probes.profile import HardwareProfile, load_profile
from probes.reader import LiveReader, ReplayReader

FIXTURES = Path(__file__).parent / "fixtures"
NAMES = sorted(path.stem for path in FIXTURES.glob("*.json"))
GIB = 2**30


def document(name: str) -> dict[str, object]:
    loaded: dict[str, object] = json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


def machine(name: str) -> HardwareProfile:
    return probe_machine(reader=ReplayReader(document(name)))


@pytest.mark.parametrize("name", NAMES)
def test_a_fixture_says_what_it_is(name: str) -> None:
    fixture = document(name)
    assert fixture["kind"] in ("real capture", "composed")
    assert fixture.get("source") if fixture["kind"] == "real capture" else fixture.get("about")


@pytest.mark.parametrize("name", NAMES)
def test_every_value_has_a_source_and_every_gpu_its_memory(name: str, tmp_path: Path) -> None:
    profile = machine(name)
    assert without_source(profile) == []
    assert {gpu.pool for gpu in profile.gpus} <= {pool.id for pool in profile.memory}
    assert profile.main_memory is not None
    assert profile.toolchains == (), "toolchains are this machine's"
    assert profile.main_memory.measured_bandwidth_gbs is None, "only this machine is measured"
    write_json(tmp_path / "profile.json", profile.as_json())
    assert load_profile(tmp_path / "profile.json") == profile.model_copy(update={"origin": "loaded"})


@pytest.mark.parametrize(
    ("name", "vendor", "generation", "state"),
    [
        ("core_ultra_linux", "intel", "NPU 3720", "ready"),
        ("core_ultra_no_npu_driver", "intel", "NPU 3720", "driver-missing"),
        ("core_ultra_windows", "intel", "NPU 4000", "ready"),
        ("ryzen_ai_300", "amd", "XDNA2", "ready"),
        ("ryzen_7840u", "amd", "XDNA1", "driver-missing"),
        ("strix_halo_carve_out", "amd", "XDNA2", "unknown"),
        ("snapdragon_x_windows", "qualcomm", "Hexagon v73", "ready"),
        ("apple_m2", "apple", "ANE", "unknown"),
        ("android_8_gen_3", "qualcomm", "Hexagon v75", "unknown"),
    ],
)
def test_npus_are_found_with_their_state(name: str, vendor: str, generation: str, state: str) -> None:
    assert [(npu.vendor, npu.generation, npu.state) for npu in machine(name).npus] == [(vendor, generation, state)]


@pytest.mark.parametrize("name", ["raspberry_pi_5", "rx_7900_xtx", "wsl2_rtx", "gb10", "guest_two_cores"])
def test_machines_without_an_npu_have_none(name: str) -> None:
    assert machine(name).npus == ()


@pytest.mark.parametrize(
    ("name", "gpus"),
    [
        ("core_ultra_linux", [("intel", "integrated", "Xe-LPG", "ram")]),
        ("core_ultra_windows", [("intel", "integrated", "Xe2", "ram")]),
        ("ryzen_ai_300", [("amd", "integrated", "gfx1150", "ram")]),
        ("strix_halo_carve_out", [("amd", "integrated", "gfx1151", "vram0")]),
        ("rx_7900_xtx", [("amd", "discrete", "gfx1100", "vram0"), ("amd", "integrated", "gfx1036", "ram")]),
        ("arc_a770", [("intel", "discrete", "Xe-HPG", "vram0")]),
        ("arc_b580", [("intel", "discrete", "Xe2", "vram0")]),
        ("rtx_laptop_linux", [("nvidia", "discrete", "cc 8.9", "vram0"), ("intel", "integrated", "Xe-LP", "ram")]),
        ("rtx_laptop_windows", [("nvidia", "discrete", "cc 8.9", "vram0"), ("intel", "integrated", "Xe-LP", "ram")]),
        ("wsl2_rtx", [("nvidia", "discrete", "cc 8.6", "vram0")]),
        ("gb10", [("nvidia", "integrated", "cc 12.1", "ram")]),
        ("jetson_orin_nano", [("nvidia", "integrated", "cc 8.7", "ram")]),
        ("raspberry_pi_5", [("broadcom", "integrated", "VideoCore VII", "ram")]),
        ("apple_m2", [("apple", "integrated", "10-core GPU", "ram")]),
        ("snapdragon_x_windows", [("qualcomm", "integrated", "Adreno X1-85", "ram")]),
        ("nvidia_without_driver", []),
        ("guest_two_cores", []),
    ],
)
def test_gpus_and_the_memory_they_compute_from(name: str, gpus: list[tuple[str, str, str, str]]) -> None:
    assert [(gpu.vendor, gpu.kind, gpu.generation, gpu.pool) for gpu in machine(name).gpus] == gpus


@pytest.mark.parametrize(
    ("name", "gib"),
    [("rtx_laptop_windows", 8), ("rtx_laptop_linux", 8), ("rx_7900_xtx", 24), ("arc_b580", 12), ("arc_a770", 16)],
)
def test_graphics_memory_is_the_cards(name: str, gib: int) -> None:
    pool = machine(name).pool("vram0")
    assert pool is not None
    assert pool.total_bytes == pytest.approx(gib * GIB, rel=0.01)


def test_no_vram_is_not_no_gpu() -> None:
    profile = machine("gb10")
    assert [pool.kind for pool in profile.memory] == ["unified"]
    assert profile.gpus[0].bandwidth_gbs == 273.2
    assert profile.cpu.performance_cores == 10


@pytest.mark.parametrize(
    ("name", "cores", "performance"),
    [
        ("core_ultra_linux", 16, 6),
        ("core_ultra_windows", 8, 4),
        ("rtx_laptop_windows", 14, 6),
        ("apple_m2", 8, 4),
        ("rx_7900_xtx", 16, None),
    ],
)
def test_physical_and_performance_cores(name: str, cores: int, performance: int | None) -> None:
    cpu = machine(name).cpu
    assert (cpu.physical_cores, cpu.performance_cores) == (cores, performance)


@pytest.mark.parametrize(
    ("name", "limit_gib", "left_gib", "cpus"),
    [
        ("container_cgroup_v2", 4, 3, 2.5),
        ("container_cgroup_v2_parent", 8, 4, 8),
        ("container_cgroup_v1", 2, 1.5, 1),
    ],
)
def test_a_containers_limits_are_the_smallest_of_all_parents_and_credit_the_page_cache(
    name: str, limit_gib: int, left_gib: float, cpus: float
) -> None:
    profile = machine(name)
    assert profile.main_memory is not None
    assert profile.main_memory.limit_bytes == limit_gib * GIB
    assert profile.main_memory.available_bytes == left_gib * GIB
    assert profile.cpu.usable_cores == cpus


def test_what_the_system_is() -> None:
    assert machine("wsl2_rtx").os.wsl
    assert machine("container_cgroup_v2").os.container
    assert not machine("core_ultra_linux").os.container
    assert machine("apple_m3_max_rosetta").os.rosetta
    assert machine("apple_m3_max_rosetta").cpu.arch == "arm64"
    assert machine("apple_m2").os.power == "battery"
    assert machine("core_ultra_linux").os.power == "mains"
    assert machine("android_8_gen_3").os.family == "android"
    assert machine("core_ultra_windows").os.family == "windows"


def test_what_the_system_lends_a_gpu_that_shares_memory() -> None:
    assert machine("apple_m3_max_rosetta").memory[0].gpu_limit_bytes == 30000 * 2**20
    assert machine("apple_m2").memory[0].gpu_limit_bytes is None
    lent = document("ryzen_ai_300")["files"]["/sys/bus/pci/devices/0000:c1:00.0/mem_info_gtt_total"]  # type: ignore[index]
    assert machine("ryzen_ai_300").memory[0].gpu_limit_bytes == int(lent)
    assert machine("strix_halo_carve_out").memory[0].gpu_limit_bytes is None  # its own pool is larger


def test_memory_tells_the_bins_of_an_apple_chip_apart() -> None:
    assert machine("apple_m3_max_rosetta").chip == "Apple M3 Max (30-core GPU)"


def test_disagreements_and_gaps_are_said() -> None:
    assert any("does not answer" in note for note in machine("nvidia_without_driver").notes)
    assert any("data sheet" in note for note in machine("arc_b580").notes)
    fixture = document("rtx_laptop_linux")
    assert isinstance(fixture["files"], dict)
    root = "/proc/driver/nvidia/gpus/0000:01:00.0/information"
    fixture["files"][root] = "Model: \t\t NVIDIA GeForce RTX 4050 Laptop GPU\nBus Location: \t 0000:01:00.0\n"
    notes = probe_machine(reader=ReplayReader(fixture)).notes
    assert any("RTX 4060" in note and "RTX 4050" in note for note in notes)


def test_a_fingerprint_is_of_the_hardware() -> None:
    assert machine("raspberry_pi_5").fingerprint != machine("raspberry_pi_4").fingerprint
    assert machine("core_ultra_linux").fingerprint != machine("core_ultra_windows").fingerprint
    profile = machine("rx_7900_xtx")
    busy = profile.memory[0].model_copy(update={"available_bytes": 1})
    assert fingerprint(profile.model_copy(update={"memory": (busy, *profile.memory[1:])})) == profile.fingerprint
    assert fingerprint(profile.model_copy(update={"gpus": ()})) != profile.fingerprint


GARBAGE = [
    "0x",
    "9" * 30,
    "{}",
    "[null]",
    "name, x\n,\n",
    "GPU0:\n\tdeviceName = ",
    "0::/../../..",
    "\0" * 9,
    "1-9999999999",
]
garbage = st.text(max_size=200) | st.sampled_from(GARBAGE)
json_values = st.none() | st.integers() | st.text(max_size=5) | st.lists(st.none() | st.integers(), max_size=2)
libraries = st.dictionaries(
    st.sampled_from(["nvml", "gputil", "psutil", "cpuinfo", "affinity", "platform"]),
    json_values | st.dictionaries(st.sampled_from(["name", "total_bytes", "flags", "count", "plugged"]), json_values),
)


def no_probe_failed(profile: HardwareProfile) -> bool:
    return not any("probe failed" in note for note in profile.notes)


@settings(max_examples=60)
@given(st.sampled_from(NAMES), st.data())
def test_no_text_makes_a_probe_fail(name: str, data: st.DataObject) -> None:
    fixture = document(name)
    for kind in ("files", "links", "commands"):
        read = fixture.get(kind)
        if isinstance(read, dict) and read:
            for key in data.draw(st.lists(st.sampled_from(sorted(read)), max_size=4)):
                read[key] = data.draw(garbage)
    profile = probe_machine(reader=ReplayReader(fixture))
    assert no_probe_failed(profile)
    assert without_source(profile) == []


@settings(max_examples=60)
@given(st.sampled_from(["core_ultra_windows", "rtx_laptop_linux", "guest_two_cores"]), libraries)
def test_no_library_answer_makes_a_probe_fail(name: str, answers: dict[str, object]) -> None:
    assert no_probe_failed(probe_machine(reader=ReplayReader({**document(name), "libraries": answers})))


def test_a_probe_that_fails_costs_only_itself() -> None:
    class Broken(ReplayReader):
        def names(self, path: str) -> list[str]:
            raise RuntimeError("a fault of the reader")

    profile = probe_machine(reader=Broken(document("core_ultra_linux")))
    assert any("gpu probe failed (RuntimeError)" in note for note in profile.notes)
    assert profile.cpu.model == "Intel(R) Core(TM) Ultra 7 155H"


def test_a_probe_that_hangs_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr("probes.probe.PROBE_SECONDS", 0.2)

    class Stuck(ReplayReader):
        def names(self, path: str) -> list[str]:
            if path == "/sys/class/accel":
                release.wait(20)
            return super().names(path)

    profile = probe_machine(reader=Stuck(document("core_ultra_linux")))
    release.set()
    assert any("npu probe did not finish" in note for note in profile.notes)
    assert profile.gpus, "the other probes are not held up"


def test_this_machine_can_be_probed_recorded_and_replayed() -> None:
    profile = probe_machine(bench=False)
    assert profile.cpu.logical_cores
    assert profile.main_memory is not None
    assert without_source(profile) == []
    reader = LiveReader()
    probe_machine(reader=reader)
    replayed = probe_machine(reader=ReplayReader(json.loads(json.dumps(reader.recorded()))))
    assert replayed.fingerprint == profile.fingerprint
    assert (replayed.cpu, replayed.gpus, replayed.npus) == (profile.cpu, profile.gpus, profile.npus)


def test_bandwidth_of_this_machine_is_plausible_and_says_how_it_was_measured() -> None:
    profile = probe_machine()
    main = profile.main_memory
    assert main is not None
    if main.measured_bandwidth_gbs is not None:
        assert 1 <= main.measured_bandwidth_gbs <= 2000
        assert "memchr" in profile.provenance["memory.0.measured_bandwidth_gbs"].source


def test_probing_is_deterministic() -> None:
    assert machine("rx_7900_xtx") == machine("rx_7900_xtx")


def test_graphics_that_a_driver_calls_by_no_name_of_their_own_have_the_rate_of_the_cpus_family() -> None:
    text = json.dumps(document("ryzen_7840u"))
    text = text.replace("7840U w/ Radeon  780M Graphics", "9900X3D").replace("0x15bf", "0x13c0")
    (gpu,) = probe_machine(reader=ReplayReader(json.loads(text))).gpus
    assert (gpu.kind, gpu.generation, gpu.fp16_tflops) == ("integrated", "gfx1036", 1.126)
