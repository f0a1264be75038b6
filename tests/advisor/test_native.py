"""Models trained for quantized weights run as they were published, where the framework can."""

from typing import Any

import planning
import pytest

from advisor.constraints import Constraints
from advisor.decide import make_plan
from advisor.limits import reference_bytes
from knowledge.models import find_model
from knowledge.native import native_precision, published_bytes
from probes.declared import declared_profile

GIB = 2**30


def plan(model: str, ram_gib: int, **request: Any) -> dict[str, Any]:
    asked = Constraints(model=model, ram_bytes=ram_gib * GIB, os="linux", **request)
    return make_plan(asked, declared_profile(ram_bytes=asked.ram_bytes, os="linux"), find_model(model))


def test_gpt_oss_runs_in_the_precision_it_was_trained_for() -> None:
    best = plan("gpt-oss-20b", 32)["recommendations"][0]
    assert (best["framework"], best["precision"]) == ("llama.cpp", "MXFP4_MOE")
    assert best["quality"]["retention"]["low"] > 0.99
    assert not any("again" in words for words in best["warnings"])


def test_another_four_bit_type_is_ruled_out_unless_it_is_asked_for() -> None:
    document = plan("gpt-oss-20b", 32, framework="llama.cpp")
    assert {row["precision"] for row in document["recommendations"]} == {"MXFP4_MOE"}
    assert any(row["rule"] == "source.native" and row["precision"] == "IQ4_XS" for row in document["rejected"])
    asked = plan("gpt-oss-20b", 32, precision="IQ4_XS")["recommendations"][0]
    assert asked["precision"] == "IQ4_XS"
    assert any("quantizing them again" in words for words in asked["warnings"])


def test_a_native_precision_is_for_no_other_model() -> None:
    document = plan("Qwen2.5-1.5B-Instruct", 16, precision="MXFP4_MOE")
    assert document["status"] == "infeasible"
    assert any(row["rule"] == "precision.native-only" for row in document["rejected"])


@pytest.mark.parametrize(
    ("model", "gb"),
    [("gpt-oss-20b", 13.76), ("gpt-oss-120b", 65.25), ("BitNet-b1.58-2B-4T", 1.18)],  # the safetensors on Hugging Face
)
def test_what_is_downloaded_is_what_is_published(model: str, gb: float) -> None:
    assert published_bytes(find_model(model)) / 1e9 == pytest.approx(gb, rel=0.02)


@pytest.mark.parametrize(("framework", "gb"), [("llama.cpp", 13.76), ("mlx", 13.76), ("openvino", 41.83)])
def test_a_converter_that_keeps_the_published_weights_needs_no_sixteen_bits_of_them(framework: str, gb: float) -> None:
    spec = find_model("gpt-oss-20b")
    assert reference_bytes(spec, framework) / 1e9 == pytest.approx(gb, rel=0.02)
    best = plan("gpt-oss-20b", 32, framework="llama.cpp")["recommendations"][0]
    assert best["disk"]["peak_bytes"] < 40e9


def test_sixteen_bit_weights_have_no_native_precision() -> None:
    assert native_precision("BF16", "llama.cpp") is None
    assert native_precision("", "llama.cpp") is None


def test_ternary_weights_are_kept_as_they_were_trained_where_they_can_be_multiplied() -> None:
    document = plan("BitNet-b1.58-2B-4T", 16)
    best = document["recommendations"][0]
    assert (best["framework"], best["backend"], best["precision"]) == ("llama.cpp", "cpu", "TQ2_0")
    assert best["quality"]["retention"]["low"] > 0.99
    assert not any("2 bits" in words for words in best["warnings"])
    assert plan("BitNet-b1.58-2B-4T", 16, precision="TQ1_0")["status"] == "ok"
    on_cuda = planning.plan(
        "BitNet-b1.58-2B-4T", precision="TQ2_0", chip="RTX 4060", ram_bytes=16 * GIB, os="linux", target="gpu"
    )
    assert any(row["rule"] == "precision.ternary-backend" and row["backend"] == "cuda" for row in on_cuda["rejected"])
    assert not any(row["backend"] == "cuda" for row in on_cuda["recommendations"])


def test_what_runs_weights_as_they_were_published_goes_first() -> None:
    mac: dict[str, Any] = {"chip": "Apple M4 Max", "ram_bytes": 128 * GIB, "os": "macos"}
    rows = planning.plan("gpt-oss-20b", **mac)["recommendations"]
    kept = {(row["framework"], row["precision"]) for row in rows}
    assert kept == {("llama.cpp", "MXFP4_MOE"), ("mlx", "mxfp4-q8")}
    assert all(row["quality"]["retention"]["low"] > 0.99 and not row["warnings"] for row in rows)
