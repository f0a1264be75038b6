"""Integrity of the published measurements, and of the names that they are joined by."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from knowledge.measurements import COLUMNS, load_measurements, measurement_sources, read_measurements, suspect_reasons
from knowledge.model_names import model_facts
from knowledge.precision_names import bits_named
from knowledge.systems_named import system_facts
from knowledge.tables import DATA

RAW = read_measurements(DATA / "measurements.csv")
METRICS = {"decode_tps": (0.01, 5000), "prefill_tps": (0.1, 200_000), "ttft_ms": (1, 2e6), "peak_mem_gb": (0.05, 600)}


def test_every_row_has_a_source_a_device_a_model_and_a_plausible_value() -> None:
    sources = {source["source_id"] for source in measurement_sources()}
    for found in RAW:
        assert found.source in sources, found.line
        assert found.row["device"]
        assert found.row["chip"]
        assert found.row["model"]
        low, high = METRICS[found.metric]
        assert low <= found.value <= high, found


def test_every_source_says_where_and_under_what_licence() -> None:
    for source in measurement_sources():
        assert source["repository"]
        assert source["version"]
        assert source["licence"]


def test_every_suspect_is_a_row_of_the_source_it_names() -> None:
    rows = {found.line: found for found in RAW}
    with (DATA / "measurement_suspects.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            assert rows[int(row["line"])].source == row["source_id"]
            assert row["reason"]


def test_wrong_figures_are_left_out_and_repeats_are_one_row() -> None:
    lines = {found.line for found in load_measurements()}
    wrong = {line for line, reason in suspect_reasons().items() if "impossible" in reason or "memory below" in reason}
    assert wrong
    assert not lines & wrong
    columns = [column for column in COLUMNS if column != "framework_version"]
    keys = [(found.source, *(found.row[column] for column in columns)) for found in load_measurements()]
    assert len(keys) == len(set(keys))
    assert sum(found.count for found in load_measurements()) > 1.2 * len(keys)


def test_no_row_names_a_folder_of_somebody_s_machine() -> None:
    text = (DATA / "measurements.csv").read_text(encoding="utf-8")
    assert not re.search(r"/home/|/root/|/Users/|/work/", text)


def test_every_chip_of_the_measurements_is_one_of_ours_with_a_bandwidth() -> None:
    for found in RAW:
        memory = float(found.row["memory_gb"]) if found.row["memory_gb"] else None
        system = system_facts(found.row["device"], found.row["chip"], memory)
        assert system.chip, found.row["device"]
        assert system.chip.bandwidth_gbs, found.row["device"]


@pytest.mark.parametrize(
    ("device", "chip", "name", "count"),
    [
        ("A40 48GB * 4", "4x A40", "A40", 4),
        ("Pi CM5 - 16GB (Nvidia RTX 3060)", "RTX 3060", "RTX 3060", 1),
        ("Pi CM5 - 16GB (Nvidia RTX 2080 Ti)", "RTX 2080", "RTX 2080 Ti", 1),
        ("Ryzen 9 5950X (Nvidia 4070)", "", "RTX 4070", 1),
        ("M1 Max Mac Studio (10 core - 64GB)", "", "Apple M1 Max", 1),
        ("", "2x 4090", "RTX 4090", 2),
    ],
)
def test_a_device_is_recognized_by_whatever_name(device: str, chip: str, name: str, count: int) -> None:
    found = system_facts(device, chip, None)
    assert found.chip
    assert (found.chip.name, found.count) == (name, count)


def test_an_unknown_device_is_no_error() -> None:
    assert system_facts("", "", None).chip is None
    assert system_facts("\x00\ud800 toaster" * 50, "9x", 1.0).chip is None


@pytest.mark.parametrize(
    ("name", "params_b", "active_b"),
    [
        ("Qwen_Qwen3-30B-A3B-Thinking-2507-Q4_K_M.gguf", 30.5, 3.35),
        ("qwen3moe 30B.A3B Q4_0", 30.5, 3.35),
        ("qwen 3 30 - A3B", 30.5, 3.35),
        ("llama_v3_2_3b_instruct", 3.21, 3.21),
        ("gemma3:270m", 0.268, 0.268),
        ("qwen3-06b-Q3_K_M", 0.596, 0.596),
        ("shisa-v2-llama3.3-70b.i1-Q4_K_M", 70.6, 70.6),
        ("llama4 17Bx16E Scout IQ1_S", 107.8, 17.2),
        ("gpt-oss:20b", 20.9, 3.6),
        ("bloomz-7b1", 7.07, 7.07),
        ("somebody/never-heard-of-13B-GGUF", 13, 13),
        ("never-heard-of 60B-A6B", 60, 6),
    ],
)
def test_a_model_is_recognized_by_whatever_name(name: str, params_b: float, active_b: float) -> None:
    found = model_facts(name)
    assert found
    assert found.params / 1e9 == pytest.approx(params_b, rel=0.02)
    assert found.active_params / 1e9 == pytest.approx(active_b, rel=0.03)


def test_the_size_in_the_name_counts_where_the_column_contradicts_it() -> None:
    found = model_facts("mlx-community/Qwen3.5-9B-MLX-8bit", 3.0)
    assert found
    assert found.params == pytest.approx(8.95e9, rel=0.02)


def test_a_model_without_name_or_size_is_unknown() -> None:
    assert model_facts("Coder") is None
    assert model_facts("") is None
    assert model_facts("x" * 5000) is None


@pytest.mark.parametrize(
    ("precision", "framework", "bits"),
    [
        ("GGUF UD-Q4_K_XL", "llama.cpp", 4.85), ("Q4_0", "llama.cpp", 4.55), ("MLX 4bit", "mlx", 4.5),
        ("w8a8", "rkllm", 8.5), ("q5 g32", "mlx", 6.0), ("INT4-MIXED", "openvino", 4.6), ("AWQ", "vllm", 4.5),
        ("NVFP4", "vllm", 4.7), ("EXL2 4.0bpw", "exllama", 4.1), ("fp8", "vllm", 8.1), ("bf16", "mlx", 16),
        ("float32", "onnxruntime", 32),
    ],
)  # fmt: skip
def test_a_precision_is_recognized_by_whatever_name(precision: str, framework: str, bits: float) -> None:
    found = bits_named(precision, "", framework)
    assert found.bits == pytest.approx(bits, abs=0.02)
    assert not found.assumed


def test_a_precision_nobody_states_is_the_runtimes_default_and_said_to_be_assumed() -> None:
    assert bits_named("", "Qwen3-8B", "mlx").name == "4bit"
    found = bits_named("???", "Qwen3-8B", "llama.cpp")
    assert (found.name, found.assumed) == ("q4_k_m", True)


def test_shapes_of_further_models_are_sorted_bounded_and_sourced() -> None:
    with (Path(DATA) / "model_shapes.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == sorted(row["name"] for row in rows)
    for row in rows:
        assert row["source"]
        assert 0.01 <= float(row["params_b"]) <= 1100
        assert not row["active_b"] or float(row["active_b"]) < float(row["params_b"])
        assert 8 <= int(row["layers"]) <= 130
