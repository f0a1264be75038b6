"""The quality that is predicted, against what was published and measured."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.constraints import Constraints
from advisor.decide import make_plan
from advisor.quality import predict_retention
from knowledge.base import AdvisorError
from knowledge.models import find_model, load_models
from knowledge.precisions import load_precisions, resolve_precision
from knowledge.quality import QualityRow, load_quality
from knowledge.records import ModelSpec, Precision
from knowledge.weights import weights
from probes.declared import declared_profile

ROWS = [row for row in load_quality() if resolve_precision(row.precision, row.framework)[0].nominal_bits < 16]


def model_of(row: QualityRow) -> ModelSpec:
    """The catalogue's model of a row, or one of its name and size where the catalogue has none."""
    try:
        return find_model(row.model)
    except AdvisorError:
        shape = find_model("Llama-3.1-8B-Instruct")
        return replace(shape, name=row.model, hf_id=row.model, aliases=(), params=round(row.params_b * 1e9))


def precision_of(row: QualityRow) -> Precision:
    name = row.precision
    if row.method == "imatrix":
        name += "+imatrix"
    return resolve_precision(name, row.framework)[0]


def held(row: QualityRow, others: list[QualityRow]) -> bool:
    """Whether what was published lies in the interval that the other rows give (a gain counts as lossless)."""
    precision = precision_of(row)
    found = predict_retention(model_of(row), precision, precision.bits + 0.35, row.method, others)
    return found.low - 0.003 <= min(row.retention, 1.0) <= found.high + 0.003


def test_nine_of_ten_rows_lie_in_the_interval_that_the_others_give() -> None:
    outside = [row for row in ROWS if not held(row, [other for other in ROWS if other is not row])]
    assert len(ROWS) >= 120
    assert len(outside) <= 0.1 * len(ROWS), [(row.precision, row.model, row.retention) for row in outside]


@pytest.mark.parametrize("framework", ["llama.cpp", "openvino", "mlx"])
def test_every_framework_is_held_about_as_well(framework: str) -> None:
    rows = [row for row in ROWS if row.framework == framework]
    outside = [row for row in rows if not held(row, [other for other in ROWS if other is not row])]
    assert len(outside) <= 0.17 * len(rows)


def test_most_rows_of_a_model_that_nobody_measured_are_held() -> None:
    outside = [row for row in ROWS if not held(row, [other for other in ROWS if other.model != row.model])]
    assert len(outside) <= 0.25 * len(ROWS)


def test_what_was_measured_on_the_model_is_taken_as_it_is() -> None:
    spec = find_model("SmolLM2-135M-Instruct")
    found = predict_retention(spec, resolve_precision("Q4_K_M", "llama.cpp")[0], 6.17)
    assert found.basis == "measured"
    assert found.mid == pytest.approx(0.925, abs=1e-6)


def test_a_smaller_model_loses_more() -> None:
    precision = resolve_precision("Q3_K_M", "llama.cpp")[0]
    small, large = (predict_retention(find_model(n), precision, 4.0).mid for n in ("Qwen3-0.6B", "Qwen3-32B"))
    assert small < large


def test_a_precision_without_evidence_is_said_to_have_none() -> None:
    spec = find_model("Qwen3-8B")
    found = predict_retention(spec, resolve_precision("w8a8-cw", "olive")[0], 8.0, "static", [])
    assert "no evidence" in found.source
    assert found.basis == "assumed"
    assert found.high - found.low > 0.001


@given(model=st.sampled_from(load_models()), precision=st.sampled_from(load_precisions()))
def test_every_precision_of_every_model_has_an_interval(model: ModelSpec, precision: Precision) -> None:
    found = predict_retention(model, precision, max(2.0, precision.bits))
    assert 0 < found.low <= found.mid <= found.high <= 1
    assert found.source


@pytest.mark.parametrize("model", ["Qwen3-8B", "Llama-3.3-70B-Instruct"])
def test_more_bits_of_a_kind_keep_more(model: str) -> None:
    spec = find_model("Qwen3-0.6B")
    types = ["Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0"]
    kept = [
        predict_retention(spec, p, weights(spec, p).bits_per_weight).mid
        for p in (resolve_precision(name, "llama.cpp")[0] for name in types)
    ]
    assert kept == sorted(kept)


@pytest.mark.parametrize(
    ("framework", "name", "low"),
    [
        ("llama.cpp", "F16", 1.0), ("llama.cpp", "BF16", 1.0),
        ("llama.cpp", "F32", 1.0), ("openvino", "f16", 1.0),
        ("olive", "f32", 1.0), ("olive", "bf16", 0.998),
        ("mlx", "bf16", 1.0), ("mlx", "f16", 0.998),
    ],
)  # fmt: skip
def test_the_reference_keeps_all_of_itself_and_other_16_bit_types_round(framework: str, name: str, low: float) -> None:
    spec = find_model("Qwen3-0.6B")
    assert spec.source_precision == "bf16"
    found = predict_retention(spec, resolve_precision(name, framework)[0], 16.0)
    assert (found.low, found.mid, found.high) == (low, 1.0, 1.0)


@pytest.mark.parametrize(
    "machine",
    [{"framework": name, "os": "linux"} for name in ("llama.cpp", "openvino", "olive")]
    + [{"framework": "mlx", "chip": "Apple M4 Max"}],
    ids=lambda machine: machine["framework"],
)
def test_no_loss_at_all_is_answered_by_the_reference_precision(machine: dict[str, str]) -> None:
    request = Constraints(model="Qwen3-0.6B", ram_bytes=64 * 2**30, max_quality_loss_pct=0, **machine)
    profile = declared_profile(ram_bytes=request.ram_bytes, chip=request.chip, os=request.os)
    document = make_plan(request, profile, find_model("Qwen3-0.6B"))
    assert document["status"] == "ok"
    assert {row["nominal_bits"] for row in document["recommendations"]} <= {16, 32}
