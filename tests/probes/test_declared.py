"""Declared machines: what is said is kept, what is assumed is said, what contradicts is refused; nothing leaks in."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from profile_leaves import without_source

from knowledge.base import EXIT_BAD_INPUT, EXIT_NEEDS_INPUT, GIB, AdvisorError, write_json
from probes.declared import declared_profile
from probes.profile import HardwareProfile, load_profile

VENDORS = ["intel", "amd", "nvidia", "apple", "qualcomm", "arm", "rockchip", "other"]
SYSTEMS = ["linux", "windows", "macos", "android", "ios"]
NAMES = [
    "Core Ultra 7 155H", "Ryzen 7 7840U", "Apple M2", "RTX 4090", "Snapdragon 8 Gen 3", "Raspberry Pi 5", "GB10",
    "Core i7-13700H + RTX 4060 Laptop", "Hailo-8", "Core Ultra 7 165H", "MacBook Air M2", "iPhone 15 Pro",
]  # fmt: skip


def outcome(said: dict[str, Any]) -> HardwareProfile | str:
    """The declared machine, or the code of the error."""
    try:
        return declared_profile(**said)
    except AdvisorError as error:
        return error.code


def test_an_npu_of_unknown_vendor_stays_unknown() -> None:
    profile = declared_profile(ram_bytes=8 * GIB, target="npu")
    (npu,) = profile.npus
    assert (npu.vendor, npu.generation, npu.state) == ("unknown", "", "unknown")
    assert profile.cpu.vendor == "unknown"
    assert profile.gpus == ()
    assert profile.os.family is None


@pytest.mark.parametrize(
    ("vendor", "generation"), [("intel", ""), ("amd", ""), ("qualcomm", ""), ("apple", "ANE"), ("rockchip", "RKNPU")]
)
def test_a_vendor_names_its_npu_but_not_a_generation_that_varies(vendor: str, generation: str) -> None:
    (npu,) = declared_profile(ram_bytes=8 * GIB, target="npu", vendor=vendor).npus
    assert (npu.vendor, npu.generation) == (vendor, generation)


@pytest.mark.parametrize(
    ("said", "pool"),
    [
        ({"device": "Jetson Orin Nano Super", "vram_bytes": 8 * GIB}, ("ram", "unified", 8 * GIB)),
        ({"chip": "Apple M2", "vram_bytes": 16 * GIB}, ("ram", "unified", 16 * GIB)),
        ({"device": "Raspberry Pi 5 8GB", "chip": "RX 6600", "vram_bytes": 8 * GIB}, ("vram0", "vram", 8 * GIB)),
    ],
)
def test_the_memory_of_graphics_is_a_card_s_or_the_one_that_a_mac_shares(
    said: dict[str, Any], pool: tuple[str, str, int]
) -> None:
    found = {(pool.id, pool.kind, pool.total_bytes) for pool in declared_profile(**said).memory}
    assert pool in found


def test_parts_in_parentheses_stay_together() -> None:
    profile = declared_profile(chip="Xeon Scalable 3rd gen (Ice Lake, e.g. 8380)", ram_bytes=64 * GIB)
    assert profile.chip == "Xeon Scalable 3rd gen (Ice Lake, e.g. 8380)"


def test_a_cpu_without_sse42_is_known_to_be_one() -> None:
    assert declared_profile(chip="Core 2 Quad Q8400", ram_bytes=4 * GIB).cpu.instruction_sets == ("sse4_1",)


def test_a_chip_answers_where_the_device_leaves_the_machine_open() -> None:
    profile = declared_profile(device="laptop", chip="Core Ultra 7 155H", ram_bytes=16 * GIB)
    assert profile.chip == "Core Ultra 7 155H"


def test_nvidia_makes_no_npu() -> None:
    profile = declared_profile(ram_bytes=8 * GIB, target="npu", vendor="nvidia")
    assert profile.npus == ()
    assert any("no NPU" in note for note in profile.notes)


@pytest.mark.parametrize(
    ("chip", "npu", "gpu"),
    [
        ("Core Ultra 7 155H", "NPU 3720", "Xe-LPG"),
        ("Core Ultra 7 258V", "NPU 4000", "Xe2"),
        ("Ryzen 7 7840U", "XDNA1", "gfx1103"),
        ("Ryzen AI 9 HX 370", "XDNA2", "gfx1150"),
        ("Snapdragon X Elite", "Hexagon v73", "Adreno X1-85"),
        ("Apple M2", "ANE", "8-10-core GPU"),
        ("Core Ultra 7 165H", "NPU 3720", "Xe-LPG"),
    ],
)
def test_a_laptop_chip_brings_cpu_gpu_and_npu_on_unified_memory(chip: str, npu: str, gpu: str) -> None:
    profile = declared_profile(chip=chip, ram_bytes=16 * GIB)
    assert [n.generation for n in profile.npus] == [npu]
    assert [g.generation for g in profile.gpus] == [gpu]
    assert [(pool.kind, pool.total_bytes) for pool in profile.memory] == [("unified", 16 * GIB)]
    assert profile.gpus[0].pool == profile.memory[0].id
    assert profile.cpu.arch in ("x86_64", "arm64")


def test_a_card_brings_its_own_memory() -> None:
    profile = declared_profile(chip="RTX 4090", ram_bytes=64 * GIB)
    assert {pool.id: (pool.kind, pool.total_bytes) for pool in profile.memory} == {
        "ram": ("ram", 64 * GIB),
        "vram0": ("vram", 24 * GIB),
    }
    (gpu,) = profile.gpus
    assert (gpu.vendor, gpu.kind, gpu.pool, gpu.generation, gpu.bandwidth_gbs) == (
        "nvidia",
        "discrete",
        "vram0",
        "cc 8.9",
        1008,
    )


def test_a_cpu_and_a_card_can_be_named_together() -> None:
    profile = declared_profile(chip="Ryzen 9 7950X + RTX 4090", ram_bytes=64 * GIB)
    assert profile.cpu.vendor == "amd"
    assert [gpu.name for gpu in profile.gpus] == ["RTX 4090"]


@pytest.mark.parametrize(
    ("chip", "ram", "vram", "lent"),
    [("Apple M4 Pro", 24, 20, 20), ("Apple M4 Pro", 24, 24, None), ("Ryzen AI Max+ 395", 128, 96, 96),
     ("Ryzen AI Max+ 395", None, 64, 64)],
)  # fmt: skip
def test_vram_of_a_machine_with_one_memory_is_the_gpu_s_share(
    chip: str, ram: int | None, vram: int, lent: int | None
) -> None:
    found = declared_profile(chip=chip, ram_bytes=ram and ram * GIB, vram_bytes=vram * GIB)
    (pool,) = found.memory
    assert pool.gpu_limit_bytes == (lent and lent * GIB)
    assert pool.total_bytes == (ram or 96) * GIB
    assert {gpu.pool for gpu in found.gpus} == {pool.id}


def test_vram_beside_an_integrated_gpu_is_a_card_of_the_named_vendor() -> None:
    profile = declared_profile(chip="Core Ultra 7 155H", vendor="nvidia", vram_bytes=8 * GIB, ram_bytes=32 * GIB)
    assert [(gpu.vendor, gpu.kind) for gpu in profile.gpus] == [("intel", "integrated"), ("nvidia", "discrete")]


def test_a_generic_card_has_no_generation() -> None:
    profile = declared_profile(vendor="nvidia", vram_bytes=8 * GIB, ram_bytes=32 * GIB, os="linux")
    (gpu,) = profile.gpus
    assert (gpu.vendor, gpu.generation, gpu.pool) == ("nvidia", "", "vram0")


@pytest.mark.parametrize(
    ("device", "gib"), [("Raspberry Pi 5 8GB", 8), ("Raspberry Pi 400", 4), ("Galaxy S24", 8), ("MacBook Neo", 8)]
)
def test_ram_is_taken_from_the_name_or_the_only_fit(device: str, gib: int) -> None:
    profile = declared_profile(device=device)
    assert profile.memory[0].total_bytes == gib * GIB
    assert profile.provenance["memory.0"].confidence != "low"


def test_the_smallest_fit_is_assumed_and_said() -> None:
    profile = declared_profile(device="Raspberry Pi 4")
    assert profile.memory[0].total_bytes == 1 * GIB
    assert profile.provenance["memory.0"].confidence == "low"
    assert any("--ram" in note for note in profile.notes)


@pytest.mark.parametrize(
    ("arguments", "family"),
    [
        ({"device": "Raspberry Pi 5"}, "linux"),
        ({"chip": "Apple M2"}, "macos"),
        ({"device": "iPhone 15 Pro"}, "ios"),
        ({"device": "iPad Pro M4"}, "ios"),
        ({"chip": "Snapdragon 8 Gen 3"}, "android"),
        ({"device": "Jetson Orin Nano"}, "linux"),
        ({"vendor": "apple"}, "macos"),
        ({"chip": "Core Ultra 7 155H"}, None),
        ({"chip": "Snapdragon X Elite"}, None),
        ({"chip": "RTX 4090"}, None),
    ],
)
def test_the_usual_system_is_inferred_where_there_is_one(arguments: dict[str, Any], family: str | None) -> None:
    profile = declared_profile(**arguments)
    assert profile.os.family == family
    if family:
        assert profile.provenance["os.family"].source.startswith("assumed")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"chip": "Apple M2", "os": "windows"}, ("windows", "Apple M2")),
        ({"vendor": "intel", "chip": "RTX 4090", "target": "npu"}, ("intel", "RTX 4090")),
        ({"vendor": "amd", "chip": "Core Ultra 7 155H"}, ("amd", "Core Ultra 7 155H")),
        ({"vendor": "apple", "os": "windows"}, ("apple", "windows")),
        ({"vendor": "nvidia", "os": "macos", "vram_bytes": 8 * GIB}, ("nvidia", "macos")),
        ({"device": "Raspberry Pi 5", "os": "windows"}, ("Raspberry Pi 5", "windows")),
        ({"device": "Raspberry Pi 5 8GB", "ram_bytes": 4 * GIB}, ("4.00 GiB", "8 GB")),
        ({"device": "Raspberry Pi 5", "chip": "Apple M2"}, ("Raspberry Pi 5", "Apple M2")),
        ({"chip": "RTX 4060 Ti 16GB", "vram_bytes": 8 * GIB}, ("8.00 GiB", "16 GB")),
        ({"device": "Raspberry Pi 5", "vram_bytes": 8 * GIB}, ("--vram", "Raspberry Pi 5")),
        ({"chip": "Apple M4 Pro", "vram_bytes": 32 * GIB, "ram_bytes": 24 * GIB}, ("--vram", "Apple M4 Pro")),
        ({"device": "Galaxy S24 Ultra", "vram_bytes": 8 * GIB, "ram_bytes": 12 * GIB}, ("--vram", "Galaxy S24 Ultra")),
        ({"device": "Steam Deck", "os": "macos"}, ("Steam Deck", "macos")),
    ],
)
def test_a_contradiction_names_both_sides(arguments: dict[str, Any], words: tuple[str, str]) -> None:
    with pytest.raises(AdvisorError) as caught:
        declared_profile(**arguments)
    assert (caught.value.code, caught.value.exit_code) == ("contradiction", EXIT_BAD_INPUT)
    assert all(word in caught.value.message for word in words)


@pytest.mark.parametrize(
    "arguments",
    [{"vendor": "nvidia", "ram_bytes": 16 * GIB, "target": "gpu"}, {"chip": "RTX 4090 Ti"}, {"chip": "RTX 3050"}],
)
def test_a_card_of_unknown_memory_is_asked_about(arguments: dict[str, Any]) -> None:
    with pytest.raises(AdvisorError) as caught:
        declared_profile(**arguments)
    assert caught.value.exit_code == EXIT_NEEDS_INPUT


def test_an_unknown_device_is_a_label_when_the_chip_is_known() -> None:
    profile = declared_profile(device="the laptop upstairs", chip="Core Ultra 7 258V")
    assert profile.device == "the laptop upstairs"
    assert profile.chip == "Core Ultra 7 258V"
    with pytest.raises(AdvisorError, match="the laptop upstairs"):
        declared_profile(device="the laptop upstairs")


arguments = st.fixed_dictionaries(
    {},
    optional={
        "ram_bytes": st.integers(2**28, 2**42),
        "vram_bytes": st.integers(2**28, 2**38),
        "chip": st.sampled_from(NAMES),
        "device": st.sampled_from(NAMES),
        "vendor": st.sampled_from(VENDORS),
        "os": st.sampled_from(SYSTEMS),
        "target": st.sampled_from(["auto", "cpu", "gpu", "npu"]),
        "power": st.sampled_from(["mains", "battery"]),
    },
)


@given(arguments)
def test_a_declared_machine_is_consistent_and_every_value_has_a_source(said: dict[str, Any]) -> None:
    profile = outcome(said)
    if isinstance(profile, str):
        assert profile in ("contradiction", "memory-unknown", "ambiguous-device")
        return
    assert without_source(profile) == []
    assert {gpu.pool for gpu in profile.gpus} <= {pool.id for pool in profile.memory}
    assert len({pool.id for pool in profile.memory}) == len(profile.memory)
    assert profile.origin == "declared"
    assert profile.fingerprint == ""
    if "os" in said:
        assert profile.os.family == said["os"]
    if "ram_bytes" in said:
        assert profile.main_memory is not None
        assert profile.main_memory.total_bytes == said["ram_bytes"]
    assert profile == declared_profile(**said), "the same words make the same machine"


def test_beside_a_named_card_the_usual_processor_is_assumed() -> None:
    profile = declared_profile(chip="RTX 3090", ram_bytes=64 * GIB)
    main = profile.main_memory
    assert main is not None
    assert main.bandwidth_range_gbs is not None
    slow, fast = main.bandwidth_range_gbs
    assert slow < (main.bandwidth_gbs or 0) < fast
    assert (profile.cpu.arch, profile.cpu.usual_cores, profile.cpu.vendor) == ("x86_64", 8, "unknown")
    assert profile.provenance["memory.0.bandwidth_gbs"].confidence == "low"
    assert any("is assumed; name it with --chip" in note for note in profile.notes)
    server = declared_profile(chip="A100 80GB", ram_bytes=512 * GIB)
    assert (server.cpu.usual_cores, server.main_memory and server.main_memory.bandwidth_gbs) == (None, None)
    named = declared_profile(chip="RTX 3090 + Ryzen 7 5800X", ram_bytes=64 * GIB).main_memory
    assert named is not None
    assert named.bandwidth_range_gbs is None


@given(arguments)
def test_nothing_of_this_machine_is_read(said: dict[str, Any]) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a declared profile read this machine")

    outcome(said)  # the tables of the knowledge base, and what a person added to them, are read once
    with pytest.MonkeyPatch.context() as patch:
        for name in ("uname", "cpu_count", "sysconf", "listdir"):
            patch.setattr(f"os.{name}", refuse)
        patch.setattr("subprocess.Popen", refuse)
        outcome(said)


def test_a_declared_profile_survives_saving_and_loading(tmp_path: Path) -> None:
    profile = declared_profile(device="Raspberry Pi 5", ram_bytes=8 * GIB)
    write_json(tmp_path / "pi.json", profile.as_json())
    assert load_profile(tmp_path / "pi.json") == profile.model_copy(update={"origin": "loaded"})


@pytest.mark.parametrize(
    ("chip", "cores", "performance"),
    [
        ("Snapdragon 8 Elite", 8, None),
        ("Snapdragon 8 Elite Gen 5", 8, None),
        ("SA8295P", 8, None),
        ("Snapdragon 8 Gen 3", 8, 6),
        ("QCS6490", 8, 4),
        ("Ryzen AI 9 HX 370", 12, 4),
        ("Core Ultra 7 155H", 16, 6),
    ],
)
def test_cores_that_share_one_name_are_all_fast(chip: str, cores: int, performance: int | None) -> None:
    cpu = declared_profile(chip=chip, ram_bytes=16 * GIB).cpu
    assert (cpu.physical_cores, cpu.performance_cores) == (cores, performance)


@pytest.mark.parametrize(
    "chip",
    [
        "2x RTX 3090", "2 x RTX 3090", "RTX 3090 x2", "RTX 3090 * 2", "dual RTX 3090", "Ryzen 7 5800X + two RTX 3090",
        "RTX 3090, RTX 3090",
    ],
)  # fmt: skip
def test_several_of_one_card_are_that_many_cards(chip: str) -> None:
    profile = declared_profile(chip=chip, ram_bytes=64 * GIB)
    assert [(gpu.name, gpu.pool) for gpu in profile.gpus] == [("RTX 3090", "vram0"), ("RTX 3090", "vram1")]
    assert [pool.total_bytes for pool in profile.memory if pool.kind == "vram"] == [24 * GIB] * 2


@pytest.mark.parametrize(("vram", "each"), [(24, 24), (48, 24), (20, 20)])
def test_vram_of_several_cards_is_each_one_s_or_all_of_it(vram: int, each: int) -> None:
    profile = declared_profile(chip="2x RTX 3090", vram_bytes=vram * GIB, ram_bytes=64 * GIB)
    assert [pool.total_bytes for pool in profile.memory if pool.kind == "vram"] == [each * GIB] * 2
    assert any("of all 2 cards" in note for note in profile.notes) == (vram == 48)


def test_vram_of_unlike_cards_is_that_of_the_one_that_is_sold_with_it() -> None:
    profile = declared_profile(chip="RTX 3090 + RTX 3060", vram_bytes=24 * GIB, ram_bytes=64 * GIB)
    assert [pool.total_bytes for pool in profile.memory if pool.kind == "vram"] == [24 * GIB, 12 * GIB]


def test_several_of_one_processor_are_said_to_be_planned_as_one() -> None:
    profile = declared_profile(chip="2x Core i7-12700", ram_bytes=64 * GIB)
    assert any(note.endswith("were named: one is planned for") for note in profile.notes)


@pytest.mark.parametrize("chip", ["Snapdragon X2 Elite", "Core Ultra X9 388H", "RTX 3090 + RTX 4090"])
def test_what_is_named_once_is_not_counted(chip: str) -> None:
    assert not any("were named" in note for note in declared_profile(chip=chip, ram_bytes=64 * GIB).notes)
