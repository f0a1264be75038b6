"""Integrity of the data files about models, precisions, quality and memory: sources, ranges, nothing twice."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

from knowledge.ggml import ggml_types
from knowledge.licences import licences
from knowledge.precisions import load_precisions, resolve_precision
from knowledge.quality import load_quality, load_quality_curve
from knowledge.records import TENSOR_ROLES

DATA = Path(__file__).parents[2] / "knowledge" / "data"
TABLES = ["models.csv", "precisions.csv", "ggml_types.csv", "tokenizers.csv", "quality.csv", "quality_curve.csv",
          "overheads.csv", "licences.csv", "scores.csv", "metrics.csv", "serving.csv"]  # fmt: skip


def table(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", TABLES)
def test_every_row_names_its_source_and_fills_its_columns(name: str) -> None:
    for row in table(name):
        assert row["source"].strip()
        assert None not in row
        assert None not in row.values()
        assert not re.search(r"/work/|/home/|/root/|https?://", " ".join(row.values()))


@pytest.mark.parametrize("name", ["models.csv", "licences.csv", "tokenizers.csv"])
def test_tables_are_sorted_so_that_a_difference_reads_well(name: str) -> None:
    first = [next(iter(row.values())).lower() for row in table(name)]
    key = [int(value) for value in first] if name == "tokenizers.csv" else first
    assert len(set(first)) == len(first)
    if name != "licences.csv":
        assert key == sorted(key)


def test_a_fact_is_general_knowledge_or_names_where_it_stands() -> None:
    for row in (*table("models.csv"), *table("scores.csv")):
        for text in (row["source"], row.get("notes", "")):
            assert text.count("general knowledge") == text.count("general knowledge, unverified")


def test_licences_are_lower_case_and_known_words() -> None:
    assert set(licences().values()) <= {"yes", "no", "conditions"}
    assert all(name == name.lower() for name in licences())


def test_quality_rows_are_within_bounds_and_not_repeated() -> None:
    keys = [(r.framework, r.precision, r.model, r.method) for r in load_quality()]
    assert len(set(keys)) == len(keys)
    for row in load_quality():
        assert 0 < row.retention < 1.01
        assert row.kl_divergence is None or 0 <= row.kl_divergence < 5
        assert row.same_top1 is None or 0.3 < row.same_top1 <= 1
        assert 0.01 < row.params_b < 100
        assert row.metric


def test_quality_rows_are_of_precisions_that_exist() -> None:
    for row in load_quality():
        assert [p.name for p in resolve_precision(row.precision, row.framework)] == [row.precision]


def test_plain_quantization_comes_before_calibrated() -> None:
    for framework in {row.framework for row in load_quality()}:
        plain = [row.method == "data-free" for row in load_quality() if row.framework == framework]
        assert plain == sorted(plain, reverse=True)


def test_quality_falls_with_the_bits_per_weight() -> None:
    curve = load_quality_curve()
    assert [bits for bits, _ in curve] == sorted(bits for bits, _ in curve)
    assert [loss for _, loss in curve] == sorted((loss for _, loss in curve), reverse=True)


def test_retention_and_divergence_rank_llama_3_8b_alike() -> None:
    rows = [r for r in load_quality() if r.model == "meta-llama/Meta-Llama-3-8B" and r.method == "data-free"]
    ranked = sorted((r for r in rows if r.kl_divergence), key=lambda r: r.kl_divergence or 0)
    losses = [1 - r.retention for r in ranked]
    assert all(b > 0.8 * a for a, b in pairwise(losses))


def test_pieces_of_architectures_exist_and_have_known_roles() -> None:
    document = tomllib.loads((DATA / "architectures.toml").read_text(encoding="utf-8"))
    pieces = document["pieces"]
    assert {piece[1] for piece in pieces.values()} <= set(TENSOR_ROLES)
    for name, architecture in document["architectures"].items():
        for key in ("top", "every", "attention", "recurrent", "dense", "moe"):
            assert all(piece in pieces for piece in architecture.get(key, "").split()), name
        assert architecture.get("dense") or architecture.get("moe")


def test_every_catalogue_architecture_is_described_or_said_to_be_incomplete() -> None:
    document = tomllib.loads((DATA / "architectures.toml").read_text(encoding="utf-8"))
    for row in table("models.csv"):
        assert row["architecture"] in document["architectures"] or "not known tensor by tensor" in row["notes"]


def test_mixtures_use_only_known_conditions() -> None:
    document = tomllib.loads((DATA / "gguf_mixtures.toml").read_text(encoding="utf-8"))
    known = {"gqa>=4", "experts>=4", "experts==8", "imatrix", "falcon", "70B", "misfit", "base=Q8_0", "stacked",
             "middle", "more_bits"}  # fmt: skip
    names = set(document["ids"]) | set(document["sets"]) | {"*"}
    for rules in document["rules"].values():
        for files, conditions, kind in rules:
            assert set(files.split()) <= names
            assert kind in ggml_types()
            for condition in conditions.split():
                assert condition.removeprefix("!") in known or re.fullmatch(r"first[:/]\d+", condition)


def test_knowledge_for_a_plan_loads_within_its_budget() -> None:
    code = (
        "import time; a = time.process_time()\n"
        "from knowledge.models import load_models, find_model\n"
        "from knowledge.precisions import load_precisions\n"
        "from knowledge.weights import weights\n"
        "b = time.process_time()\n"
        "load_models(); p = load_precisions(); weights(find_model('qwen3:4b'), p[9])\n"
        "print(time.process_time() - b)"
    )
    runs = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout) for _ in range(3)
    ]
    assert min(runs) < 0.06


def test_precision_bits_count_their_scales() -> None:
    for precision in load_precisions():
        if precision.scheme == "mlx" and precision.method == "affine" and not precision.native_only:
            assert precision.bits == precision.nominal_bits + 32 / precision.group_size
        if precision.scheme == "openvino" and precision.group_size > 0:
            scale = 8 if precision.name == "mxfp4" else 16
            zero_point = 0 if precision.symmetric else 4
            assert precision.bits == 4 + (scale + zero_point) / precision.group_size
