"""The chip data itself: ranges, sources, physical bounds, references between the files."""

import re
from collections import Counter

import pytest

from knowledge.chips import (
    gpu_generation,
    load_chips,
    load_families,
    load_products,
    load_vendors,
    npu_generation,
    systems_of,
)  # fmt: skip
from knowledge.match import find_chip
from knowledge.names import compact
from knowledge.records import Chip, ChipFamily

SYSTEMS = {"linux", "windows", "macos", "android", "ios"}
KINDS = {"gpu", "igpu", "apple", "cpu", "sbc", "mobile", "npu"}
# GB/s: from a Raspberry Pi Zero to eight stacks of HBM3e.
SLOWEST, FASTEST = 2, 8200
# TOPS: the INT8 rate of the fastest accelerator in the data, with room.
HIGHEST_RATE = 6000


def test_chip_names_are_unique() -> None:
    assert not [name for name, count in Counter(compact(chip.name) for chip in load_chips()).items() if count > 1]


def test_every_chip_has_source_confidence_and_known_kind() -> None:
    for chip in load_chips():
        assert len(chip.source) > 5, chip.name
        assert chip.confidence in {"high", "medium", "low"}, chip.name
        assert chip.kind in KINDS, chip.name
        assert chip.vendor == chip.vendor.lower(), chip.name


def test_bandwidths_are_physically_possible_and_inside_what_boards_fit() -> None:
    for chip in load_chips():
        if chip.bandwidth_gbs is None:
            assert chip.kind == "npu", f"{chip.name}: only a chip without memory of its own lacks a bandwidth"
            continue
        assert SLOWEST <= chip.bandwidth_gbs <= FASTEST, chip.name
        slow, fast = chip.bandwidth_min_gbs or chip.bandwidth_gbs, chip.bandwidth_max_gbs or chip.bandwidth_gbs
        assert slow * 0.999 <= chip.bandwidth_gbs <= fast * 1.001, chip.name


def test_rates_are_positive_and_16_bit_is_never_slower_than_32() -> None:
    for chip in load_chips():
        for figure in (chip.fp16_tflops, chip.fp32_tflops, chip.int8_tops, chip.npu_tops):
            assert figure is None or 0 < figure < HIGHEST_RATE, chip.name
        if chip.fp16_tflops and chip.fp32_tflops:
            assert chip.fp16_tflops >= chip.fp32_tflops * 0.95, f"{chip.name}: software would convert"
        if chip.fp16_acc16_tflops and chip.fp16_tflops:
            assert 0.99 <= chip.fp16_acc16_tflops / chip.fp16_tflops <= 2.01, chip.name


def test_memory_sizes_are_sorted_and_possible() -> None:
    for chip in load_chips():
        assert all(0.25 <= size <= 1024 for size in chip.memory_gib), chip.name
        assert list(chip.memory_gib) == sorted(set(chip.memory_gib)), chip.name


def test_every_chip_is_found_by_its_own_name() -> None:
    assert [chip.name for chip in load_chips() if find_chip(chip.name) != chip] == []


def test_soc_kinds_have_unified_memory_and_cards_do_not() -> None:
    for chip in load_chips():
        if chip.kind in ("apple", "mobile", "sbc"):
            assert chip.unified_memory, chip.name
        if chip.kind == "gpu":
            assert not chip.unified_memory, chip.name
            assert chip.memory_gib, chip.name
            assert gpu_generation(chip), chip.name


def test_generations_of_the_npus_are_the_words_that_rules_are_written_in() -> None:
    words = re.compile(r"NPU \d{4}$|XDNA[12]$|Hexagon v\d\d( x2)?$|RKNPU|ANE$|APU|NPU|[eE]dge TPU|Hailo|RK182x|Metis")
    found = {npu_generation(chip) for chip in load_chips()}
    assert all(words.match(generation) or generation == "Hexagon" for generation in found - {""})
    assert {"NPU 3720", "NPU 4000", "NPU 5010", "XDNA1", "XDNA2", "Hexagon v73", "ANE"} <= found


def test_products_name_chips_that_exist_and_sizes_that_the_chips_know() -> None:
    chips = {chip.name: chip for chip in load_chips()}
    for product in load_products():
        assert product.source
        assert product.confidence in {"high", "medium", "low"}
        assert product.os is None or product.os in SYSTEMS
        assert product.chips
        assert set(product.chips) <= chips.keys(), product.name
        for name in product.chips:
            if product.os and chips[name].kind != "cpu":
                systems = systems_of(chips[name].vendor, chips[name].kind).systems
                assert product.os in systems, product.name


def test_product_names_and_aliases_are_unique() -> None:
    names = [
        name for product in load_products() for name in {compact(name) for name in (product.name, *product.aliases)}
    ]
    assert not [name for name, count in Counter(names).items() if count > 1]


def test_families_are_valid_patterns_with_sources() -> None:
    for family in load_families():
        re.compile(family.pattern)
        assert family.source
        assert family.confidence in {"medium", "low"}, "a family is never a data sheet"
        assert family.kind in KINDS
        assert family.bandwidth_gbs is None or SLOWEST <= family.bandwidth_gbs <= FASTEST
        assert (family.usual_cores is None) == (family.kind == "gpu"), family.family


def test_graphics_that_a_backend_serves_have_a_rate_by_chip_and_by_family() -> None:
    served = re.compile(r"gfx|Xe|Gen(?:9|1)")
    rows: list[Chip | ChipFamily] = [*load_chips(), *load_families()]
    without = [row for row in rows if row.kind == "igpu" and served.match(row.generation) and not row.fp16_tflops]
    assert not without


def test_vendors_and_systems_use_known_words() -> None:
    for line in load_vendors().values():
        assert line.arch in {"x86_64", "arm64", "unknown"}
        assert line.source
        assert set(systems_of(line.vendor, "any").systems) <= SYSTEMS
    for kind in KINDS:
        row = systems_of("any", kind)
        assert row.systems
        assert row.default_os is None or row.default_os in row.systems


@pytest.mark.parametrize(
    ("name", "gbs"),
    [("RTX 4090", 1008), ("Apple M2", 102.4), ("BCM2712 (Raspberry Pi 5/500/CM5)", 17.1), ("Core Ultra 7 258V", 136.5),
     ("RTX 2080 Ti", 616), ("GB10", 273.2), ("Apple M4 Max", 546.1)],
)  # fmt: skip
def test_known_bandwidths(name: str, gbs: float) -> None:
    assert find_chip(name).bandwidth_gbs == pytest.approx(gbs, rel=0.002)
