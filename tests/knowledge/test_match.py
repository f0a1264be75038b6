"""Names of hardware: shorthand, driver strings, products, families, and what must not be guessed."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowledge.base import EXIT_NEEDS_INPUT, AdvisorError
from knowledge.chips import load_chips, load_products, load_unserved, npu_generation
from knowledge.match import chips_named, family_of, find_chip, match_hardware
from knowledge.names import normalize


def outcome(text: str) -> str:
    """How a name is answered: by a row, by its family, or the code of the error."""
    try:
        return "row" if match_hardware(text).chip in load_chips() else "family"
    except AdvisorError as error:
        return error.code


@pytest.mark.parametrize(
    ("text", "chip"),
    [
        ("M2", "Apple M2"),
        ("m2pro", "Apple M2 Pro"),
        ("4090", "RTX 4090"),
        ("RTX4090", "RTX 4090"),
        ("4060Ti", "RTX 4060 Ti"),
        ("NVIDIA GeForce RTX 4060 Laptop GPU", "RTX 4060 Laptop"),
        ("RTX 4070 mobile", "RTX 4070 Laptop"),
        ("7840U", "Ryzen 7 7840U (Radeon 780M)"),
        ("Ryzen 7 PRO 7840U", "Ryzen 7 7840U (Radeon 780M)"),
        ("AMD Ryzen 7 7840U w/ Radeon  780M Graphics", "Ryzen 7 7840U (Radeon 780M)"),
        ("HX 370", "Ryzen AI 9 HX 370 (Radeon 890M)"),
        ("Ryzen AI 9 HX 370", "Ryzen AI 9 HX 370 (Radeon 890M)"),
        ("AMD RYZEN AI MAX+ 395 w/ Radeon 8060S", "Ryzen AI Max+ 395 (Radeon 8060S)"),
        ("Ryzen AI Max 395", "Ryzen AI Max+ 395 (Radeon 8060S)"),
        ("155H", "Core Ultra 7 155H"),
        ("Intel(R) Core(TM) Ultra 7 155H", "Core Ultra 7 155H"),
        ("Intel® Core™ Ultra 7 258V", "Core Ultra 7 258V"),
        ("Dell XPS 13 with Core Ultra 7 258V laptop", "Core Ultra 7 258V"),
        ("Snapdragon X Elite", "Snapdragon X Elite"),
        ("Snapdragon(R) X Elite - X1E80100 - Qualcomm(R) Oryon(TM) CPU", "Snapdragon X Elite"),
        ("X1E-80-100", "Snapdragon X Elite"),
        ("8gen3", "Snapdragon 8 Gen 3"),
        ("RX 7900 XTX", "RX 7900 XTX"),
        ("AMD Radeon RX 7900 XT", "RX 7900 XT"),
        ("Jetson Orin Nano", "Jetson Orin Nano 8GB"),
        ("GB10", "GB10"),
        ("DGX Spark", "GB10"),
        ("Pi 4", "BCM2711 (Raspberry Pi 4/400/CM4)"),
        ("rpi5", "BCM2712 (Raspberry Pi 5/500/CM5)"),
        ("Raspberry Pi 4 Model B Rev 1.5", "BCM2711 (Raspberry Pi 4/400/CM4)"),
        ("Orange Pi 5", "Rockchip RK3588/RK3588S"),
        ("Galaxy S24 Ultra", "Snapdragon 8 Gen 3"),
        ("iPhone 15 Pro", "Apple A17 Pro"),
        ("MacBook Pro 16 M3 Max 64GB", "Apple M3 Max"),
        ("RTX 3080 12GB", "RTX 3080 12GB"),
        ("RTX 3080", "RTX 3080"),
        ("Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz", "Xeon E5-2680 v4 / E5-2690 v4"),
        ("Tesla T4", "T4"),
    ],
)
def test_people_and_drivers_are_understood(text: str, chip: str) -> None:
    assert find_chip(text).name == chip


@pytest.mark.parametrize(
    ("text", "chip", "gib"),
    [
        ("Raspberry Pi 5 8GB", "BCM2712 (Raspberry Pi 5/500/CM5)", 8),
        ("raspberry pi4 4 GB", "BCM2711 (Raspberry Pi 4/400/CM4)", 4),
        ("Orange Pi 5 Plus 16GB", "Rockchip RK3588/RK3588S", 16),
        ("Radxa Rock 5C", "Rockchip RK3588/RK3588S", None),
        ("Nvidia Jetson Orin Nano Super 8GB", "Jetson Orin Nano 8GB Super", 8),
        ("reComputer J4012", "Jetson Orin NX 16GB", None),
        ("NVIDIA DGX Spark 128GB", "GB10", 128),
        ("MacBook Pro M4 Max 64GB", "Apple M4 Max", 64),
        ("MacBook Pro 16-inch M1 Max 32GB", "Apple M1 Max", 32),
        ("Mac Mini M4 Pro 48GB", "Apple M4 Pro", 48),
        ("iPad Pro M5", "Apple M5", None),
        ("iPhone 13 Pro", "Apple A15 Bionic", None),
        ("Steam Deck OLED", "AMD Custom APU 0405 (Steam Deck)", None),
        ("ROG Xbox Ally X", "Ryzen AI Z2 Extreme", None),
        ("GMKtec EVO-X2 128GB", "Ryzen AI Max+ 395 (Radeon 8060S)", 128),
        ("Minisforum UM790 Pro", "Ryzen 9 7940HS (Radeon 780M)", None),
        ("Beelink SER9 32 GB", "Ryzen AI 9 HX 370 (Radeon 890M)", 32),
        ("ThinkPad X1 Carbon Gen 12", "Core Ultra 7 155H", None),
        ("Surface Pro 12", "Snapdragon X Plus", None),
        ("HP OmniBook X", "Snapdragon X Elite", None),
        ("Samsung Galaxy Z Fold 6", "Snapdragon 8 Gen 3", None),
        ("Pixel 7 Pro", "Google Tensor G2", None),
        ("Xiaomi 15 Ultra", "Snapdragon 8 Elite", None),
        ("AWS g5.xlarge", "A10G", None),
        ("g4dn.xlarge", "T4", None),
        ("NVIDIA GeForce GTX 970", "GTX 970", None),
        ("P100", "Tesla P100 PCIe 16GB", None),
    ],
)
def test_what_people_own_is_known_by_the_names_they_use(text: str, chip: str, gib: float | None) -> None:
    match = match_hardware(text)
    assert match.chip.name == chip
    assert match.memory_gib == gib


@pytest.mark.parametrize(
    ("text", "vendor", "npu"),
    [
        ("Core Ultra 7 165H", "intel", "NPU 3720"),
        ("Intel(R) Core(TM) Ultra 5 238V", "intel", "NPU 4000"),
        ("Core Ultra 9 386H", "intel", "NPU 5010"),
        ("Lunar Lake", "intel", "NPU 4000"),
        ("Core Ultra", "intel", "NPU"),
        ("Ryzen 5 8640HS", "amd", "XDNA1"),
        ("Ryzen AI 7 345", "amd", "XDNA2"),
        ("Ryzen 5 7540U", "amd", ""),
        ("Ryzen 5 5600G", "amd", ""),
        ("i7-8650U", "intel", ""),
        ("Snapdragon X2 Plus", "qualcomm", "Hexagon v81"),
        ("Apple M6", "apple", "ANE"),
        ("FX-8350", "amd", ""),
        ("Core 2 Duo E8400", "intel", ""),
        ("i7-920", "intel", ""),
    ],
)
def test_a_part_without_a_row_gets_what_its_family_is_known_for(text: str, vendor: str, npu: str) -> None:
    match = match_hardware(text)
    assert (match.chip.vendor, npu_generation(match.chip)) == (vendor, npu)
    assert match.confidence != "high"
    assert match.notes


@pytest.mark.parametrize("text", ["A100", "H100", "RTX 3050", "RTX 6000", "MacBook Air", "Raspberry Pi", "tegra234"])
def test_a_name_that_means_different_machines_is_asked_about(text: str) -> None:
    with pytest.raises(AdvisorError) as caught:
        find_chip(text)
    assert caught.value.code == "ambiguous-device"
    assert caught.value.exit_code == EXIT_NEEDS_INPUT
    assert "," in caught.value.message


@pytest.mark.parametrize(
    ("text", "gib", "chip"),
    [
        ("RTX 3050", 6, "RTX 3050 6GB"),
        ("RTX 3060", 8, "RTX 3060 8GB"),
        ("RTX 2060", 12, "RTX 2060 12GB"),
        ("Apple M3 Max", 36, "Apple M3 Max (30-core GPU)"),
        ("Jetson Orin Nano", 4, "Jetson Orin Nano 4GB"),
    ],
)
def test_memory_tells_variants_apart(text: str, gib: float, chip: str) -> None:
    assert match_hardware(text, memory_gib=gib).chip.name == chip
    assert match_hardware(f"{text} {gib}GB").chip.name == chip


@pytest.mark.parametrize(
    ("text", "near"), [("RTX 4095", "RTX 4090"), ("RTX 509", "RTX 5090"), ("Rasbery Pi 5", "Raspberry Pi 5")]
)
def test_an_unknown_name_is_answered_with_the_nearest(text: str, near: str) -> None:
    with pytest.raises(AdvisorError) as caught:
        find_chip(text)
    assert caught.value.code == "unknown-chip"
    assert near in caught.value.hint


@pytest.mark.parametrize("text", ["", "   ", "Banana 3000", "RTX 9999", "AMD RTX 4090", "gpu", "©®™"])
def test_what_names_nothing_is_refused(text: str) -> None:
    with pytest.raises(AdvisorError) as caught:
        find_chip(text)
    assert caught.value.code == "unknown-chip"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("PlayStation 5", "console"),
        ("Xbox Series X", "console"),
        ("ESP32-S3", "microcontroller"),
        ("Arduino Nano", "microcontroller"),
        ("Raspberry Pi Pico W", "microcontroller"),
        ("Raspberry Pi Zero W", "ARMv6"),
        ("Raspberry Pi 2", "ARMv7"),
    ],
)
def test_what_no_framework_runs_on_is_refused_with_the_reason_and_another_way(text: str, said: str) -> None:
    with pytest.raises(AdvisorError) as caught:
        find_chip(text)
    assert caught.value.code == "unserved-device"
    assert said in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("text", ["laptop", "my computer", "Copilot+ PC", "Intel NPU", "UHD 630", "Intel HD 4000"])
def test_a_kind_of_machine_is_asked_about_with_how_to_say_it(text: str) -> None:
    with pytest.raises(AdvisorError) as caught:
        find_chip(text)
    assert (caught.value.code, caught.value.exit_code) == ("ambiguous-device", EXIT_NEEDS_INPUT)
    assert "--" in caught.value.hint


def test_every_unserved_name_has_a_reason_a_way_out_and_a_source() -> None:
    for row in load_unserved():
        assert row.text
        assert row.hint
        assert row.source
        names = [name for chip in load_chips() for name in (chip.name, *(() if row.ask else chip.aliases))]
        assert not [name for name in names if row.pattern.search(normalize(name))]
        assert not any(row.pattern.search(normalize(p.name)) for p in load_products())


@pytest.mark.parametrize("text", ["RTX 4090 Ti", "RX 7900", "Ryzen 7 5800X3D", "i9-13900KS", "Ryzen 5 5600G"])
def test_another_product_of_a_similar_name_is_not_mistaken_for_it(text: str) -> None:
    assert outcome(text) in ("family", "ambiguous-device", "unknown-chip")


def test_a_shared_driver_name_gives_every_chip_that_it_can_mean() -> None:
    assert {chip.name for chip in chips_named("Orin (nvgpu)")} >= {"Jetson Orin Nano 8GB", "Jetson AGX Orin 64GB"}
    assert [chip.name for chip in chips_named("NVIDIA GeForce RTX 3060", memory_gib=12)] == ["RTX 3060"]
    assert chips_named("llvmpipe (LLVM 15.0.7, 256 bits)") == ()


@given(st.text(max_size=60))
def test_any_text_is_a_match_or_one_clear_error(text: str) -> None:
    assert outcome(text) in ("row", "family", "unknown-chip", "ambiguous-device", "unserved-device")


@given(st.sampled_from(load_chips()), st.sampled_from([str.upper, str.lower, lambda name: name.replace(" ", "-")]))
def test_case_and_separators_do_not_matter(chip: object, spell: object) -> None:
    assert find_chip(spell(chip.name)) == find_chip(chip.name)


@given(st.text(max_size=200))
def test_normalizing_is_idempotent_enough_to_compare(text: str) -> None:
    clean = normalize(text)
    assert not re.search(r"[^a-z0-9. ]", clean)
    assert clean == clean.strip()


def test_families_are_tried_in_order() -> None:
    family = family_of("AMD Ryzen AI 9 HX 375")
    assert family is not None
    assert family.generation == "gfx1150; XDNA2"
