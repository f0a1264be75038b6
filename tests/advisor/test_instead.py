"""A model that cannot run is answered by what can, and every change that is named is computed: made, it holds."""

import re
from typing import Any

import pytest
from planning import GIB, plan

from knowledge.models import find_model


def kinds(document: dict[str, Any]) -> list[str]:
    return [way["change"] for way in document["instead"]]


def test_a_model_too_large_is_answered_by_a_smaller_relative_and_by_the_memory_it_needs() -> None:
    document = plan("Llama-3.1-8B-Instruct", ram_bytes=4 * GIB, os="linux")
    relative = next(way for way in document["instead"] if "smaller model" in way["change"])
    assert relative["recommendation"]["model"] == "meta-llama/Llama-3.2-3B-Instruct"
    assert relative["recommendation"]["precision_class"] != "ultra-low"
    memory = next(way["change"] for way in document["instead"] if "machine" in way["change"])
    larger = int(re.findall(r"(\d+) GB", memory)[0])
    assert plan("Llama-3.1-8B-Instruct", ram_bytes=larger * GIB, os="linux")["status"] == "ok"


def test_a_precision_that_was_insisted_on_is_given_up_first() -> None:
    document = plan("SmolLM2-135M-Instruct", ram_bytes=8 * GIB, precision="int4-sym-g128")
    assert kinds(document)[0] == "without --precision"


@pytest.mark.parametrize(
    ("request_", "change"),
    [
        ({"framework": "mlx", "os": "android"}, "without --framework"),
        ({"max_quality_loss_pct": 0.01, "precision": "Q8_0"}, "without --max-quality-loss"),
        ({"context": 100_000}, "with --context 8192"),
    ],
)
def test_one_thing_less_is_offered(request_: dict[str, Any], change: str) -> None:
    document = plan("SmolLM2-135M-Instruct", ram_bytes=8 * GIB, **request_)
    assert document["status"] == "infeasible"
    assert change in kinds(document)


def test_several_wishes_are_given_up_together_where_one_is_not_enough() -> None:
    document = plan("Qwen3-8B", ram_bytes=8 * GIB, os="windows", target="npu", vendor="intel", context=16384)
    assert document["status"] == "infeasible"
    assert any(way["recommendation"] for way in document["instead"])


def test_a_model_that_is_slow_here_has_a_faster_relative() -> None:
    mac = {"chip": "Apple M4 Pro", "ram_bytes": 24 * GIB, "os": "macos"}
    document = plan("gemma-3-27b", **mac)
    (way,) = document["instead"]
    assert way["change"] == "a smaller model of the family, gemma-3-12b-it"
    assert way["recommendation"]["backend"] == "metal"
    assert "tok/s" in way["text"]
    assert "instead" not in plan("gemma-3-27b", vram_bytes=20 * GIB, **mac)


def test_a_model_that_loses_much_here_has_a_relative_that_does_not() -> None:
    document = plan("Qwen3-30B-A3B", chip="Core Ultra 5 125H", ram_bytes=16 * GIB, os="windows")
    best = document["recommendations"][0]
    assert best["quality"]["retention"]["mid"] < 0.95
    (way,) = document["instead"]
    assert way["recommendation"]["params_b"] < best["params_b"]
    assert not any("quality gate" in words for words in way["recommendation"]["warnings"])


def test_what_another_way_of_the_same_model_offers_needs_no_relative() -> None:
    document = plan("Phi-4-mini-instruct", target="npu", vendor="qualcomm", ram_bytes=16 * GIB)
    assert document["recommendations"][0]["quality"]["retention"]["mid"] < 0.95
    assert document["recommendations"][1]["quality"]["retention"]["mid"] > 0.95
    assert "instead" not in document


def test_a_relative_is_really_smaller() -> None:
    document = plan("Phi-4-mini-instruct", ram_bytes=3 * GIB)
    assert not any("Phi-3" in change for change in kinds(document))


def test_a_model_that_fits_has_nothing_instead() -> None:
    assert "instead" not in plan("Llama-3.2-1B-Instruct", ram_bytes=8 * GIB)


def named(document: dict[str, Any], rule: str, pattern: str) -> list[tuple[dict[str, Any], str]]:
    found = ((r, re.search(pattern, r["change"])) for r in document["rejected"] if r["rule"] == rule)
    return [(row, match[1]) for row, match in found if match]


def test_the_context_that_would_fit_fits() -> None:
    request: dict[str, Any] = {"ram_bytes": 8 * GIB, "os": "windows", "framework": "llama.cpp", "precision": "Q4_K_M"}
    document = plan("Qwen3-4B", context=32768, **request)
    ((_, context), *_) = named(document, "memory.fits", r"--context (\d+)")
    assert plan("Qwen3-4B", context=int(context), **request)["status"] == "ok"
    assert plan("Qwen3-4B", context=int(context) + 256, **request)["status"] == "infeasible"


def test_the_cache_type_that_would_fit_fits() -> None:
    request: dict[str, Any] = {"ram_bytes": 8 * GIB, "os": "windows", "framework": "llama.cpp", "precision": "Q4_K_M"}
    document = plan("Qwen3-4B", context=24576, **request)
    ((_, kind), *_) = named(document, "memory.fits", r"--kv-cache (q\d_0)")
    assert plan("Qwen3-4B", context=24576, kv_cache=kind, **request)["status"] == "ok"


def test_the_missing_memory_is_what_is_missing() -> None:
    document = plan("Llama-3.1-8B-Instruct", ram_bytes=4 * GIB, os="linux", framework="llama.cpp", precision="Q4_K_M")
    assert document["nearest"]["change"].startswith("with ")
    assert find_model("Llama-3.1-8B-Instruct").params_b == pytest.approx(8.03, abs=0.01)
    needed, usable = map(float, re.findall(r"([\d.]+) GiB", document["nearest"]["text"]))
    (_, missing) = named(document, "memory.fits", r"with ([\d.]+) GiB more memory")[0]
    assert float(missing) == pytest.approx(needed - usable, abs=0.011)


@pytest.mark.parametrize(
    ("asked", "rule", "pattern", "field"),
    [
        ({"min_decode_tps": 1000.0}, "speed.asked", r"--min-decode-tps ([\d.]+)", "min_decode_tps"),
        ({"max_ttft_ms": 1.0}, "ttft.asked", r"--max-ttft-ms ([\d.]+)", "max_ttft_ms"),
        ({"max_quality_loss_pct": 0.01}, "quality.max-loss", r"--max-quality-loss ([\d.]+)", "max_quality_loss_pct"),
    ],
)
def test_the_limit_that_would_hold_holds(asked: dict[str, float], rule: str, pattern: str, field: str) -> None:
    request: dict[str, Any] = {"device": "Raspberry Pi 5", "ram_bytes": 8 * GIB, "framework": "llama.cpp"}
    document = plan("Llama-3.2-1B-Instruct", precision="Q4_K_M", **request, **asked)
    (_, limit) = named(document, rule, pattern)[0]
    assert plan("Llama-3.2-1B-Instruct", precision="Q4_K_M", **request, **{field: float(limit)})["status"] == "ok"


def test_the_precision_that_would_divide_divides() -> None:
    document = plan("SmolLM2-135M-Instruct", ram_bytes=8 * GIB, framework="openvino", precision="int4-sym-g128")
    ((_, precision), *_) = named(document, "precision.group-divides", r"--precision (\S+)")
    again = plan("SmolLM2-135M-Instruct", ram_bytes=8 * GIB, framework="openvino", precision=precision)
    assert "precision.group-divides" not in {row["rule"] for row in again["rejected"]}


@pytest.mark.parametrize("change", ["with --use-case embedding", "with --framework llama.cpp"])
def test_a_model_that_is_made_for_something_else_or_loaded_by_another_says_so(change: str) -> None:
    changes = {row["change"] for row in plan(ram_bytes=16 * GIB, os="linux")["rejected"]}
    assert change in changes


def test_the_system_that_has_the_backend_has_it() -> None:
    request: dict[str, Any] = {"chip": "Ryzen AI 9 HX 370", "ram_bytes": 32 * GIB}
    document = plan("Llama-3.2-1B-Instruct", os="linux", framework="olive", **request)
    lost = [row for row in document["rejected"] if row["rule"] == "backend.os"]
    assert lost
    for row in lost:
        system = row["change"].removeprefix("on ").partition(",")[0]
        again = plan("Llama-3.2-1B-Instruct", os=system, framework="olive", **request)
        assert (row["backend"], "backend.os") not in {(r["backend"], r["rule"]) for r in again["rejected"]}


def test_a_catalogue_too_large_says_how_much_would_be_the_least() -> None:
    rows = [row for row in plan(ram_bytes=4 * GIB, os="linux")["rejected"] if "models from" in row["text"]]
    assert rows
    assert all(re.fullmatch(r"with at least [\d.]+ [GM]iB more memory", row["change"]) for row in rows)
