"""Any request on any machine: never a crash, never over budget, nothing unloadable, explained, deterministic, monotone.

Sixty examples here, two thousand in the slow suite, over all chips, products and models of the knowledge base.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planning import GIB, plan

from advisor.plan import Plan
from knowledge.base import AdvisorError
from knowledge.chips import load_chips, load_products
from knowledge.matrix import load_backends, load_frameworks
from knowledge.models import load_models
from knowledge.precisions import load_precisions

LOADABLE = {(b.framework, b.backend) for b in load_backends() if b.support != "unsupported"}
MODELS = [m.name for m in load_models()]
SYSTEMS = ["linux", "windows", "macos", "android", "ios"]
CLASSES = {1: "ultra-low", 2: "ultra-low", 3: "low", 4: "low", 5: "medium", 6: "medium", 7: "medium", 8: "medium"}

machines = st.one_of(
    st.fixed_dictionaries(
        {"chip": st.sampled_from([c.name for c in load_chips()])},
        optional={
            "ram_bytes": st.sampled_from([1, 2, 4, 6, 8, 12, 16, 32, 64, 128]).map(lambda g: g * GIB),
            "vram_bytes": st.sampled_from([2, 6, 8, 16, 24, 80]).map(lambda g: g * GIB),
        },
    ),
    st.fixed_dictionaries({"device": st.sampled_from([p.name for p in load_products()])}),
    st.fixed_dictionaries(
        {"ram_bytes": st.integers(GIB // 4, 256 * GIB)},
        optional={
            "vram_bytes": st.integers(GIB, 80 * GIB),
            "vendor": st.sampled_from(["intel", "amd", "nvidia", "apple", "qualcomm", "arm", "rockchip", "other"]),
        },
    ),
)
wishes = st.fixed_dictionaries(
    {
        # searching the whole catalogue takes ten times as long
        "model": st.one_of(*[st.sampled_from(MODELS)] * 9, st.none()),
    },
    optional={
        "target": st.sampled_from(["auto", "cpu", "gpu", "npu"]),
        "os": st.sampled_from(SYSTEMS),
        "priority": st.sampled_from(["balanced", "speed", "quality", "memory", "effort", "energy"]),
        "context": st.integers(1, 300_000),
        "concurrency": st.integers(1, 16),
        "kv_cache": st.sampled_from(["f16", "q8_0", "q4_0"]),
        "use_case": st.sampled_from(["chat", "code", "rag", "reasoning", "agent", "embedding", "vision", "speech"]),
        "power": st.sampled_from(["mains", "battery"]),
        "framework": st.sampled_from([f.name for f in load_frameworks()]),
        "precision": st.sampled_from([p.name for p in load_precisions()]),
        "min_decode_tps": st.floats(0.5, 200),
        "max_ttft_ms": st.floats(50, 60_000),
        "max_quality_loss_pct": st.floats(0, 50),
        "max_disk_bytes": st.integers(GIB // 8, 512 * GIB),
        "commercial": st.booleans(),
        "enterprise": st.booleans(),
        "cross_platform": st.booleans(),
        "offline": st.booleans(),
        "top": st.integers(1, 20),
    },
)


def sound(document: dict[str, Any], request: dict[str, Any]) -> None:
    assert document["status"] in ("ok", "needs_input", "infeasible")
    assert document["trace"]
    for row in document["recommendations"]:
        recommendation_is_sound(row, request, document["status"])
    scores = [row["score"]["total"] for row in document["recommendations"]]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) <= request.get("top", 5)
    assert all(row["rule"] and row["text"] and row["source"] for row in document["rejected"])
    assert all("unknown" not in row["change"] for row in document["rejected"])
    if document["status"] == "infeasible":
        assert document["rejected"]
    if document["status"] == "needs_input":
        assert document["question"]["text"]
        assert document["question"]["answer_with"]
    assert (document["plan"] is not None) == (document["status"] == "ok")
    Plan.model_validate(document)
    json.dumps(document, allow_nan=False)


def recommendation_is_sound(row: dict[str, Any], request: dict[str, Any], status: str) -> None:
    memory = row["memory"]
    assert 0 < memory["total_bytes"] <= memory["budget_bytes"]
    assert memory["total_bytes"] == memory["weights_bytes"] + memory["kv_bytes"] + memory["overhead_bytes"]
    assert (row["framework"], row["backend"]) in LOADABLE
    assert row["reasons"]
    assert row["precision_class"] == CLASSES.get(row["nominal_bits"], row["precision_class"])
    for band in (row["decode_tps"], row["prefill_tps"], row["ttft_ms"], row["quality"]["retention"]):
        ends = [band[key] for key in ("low", "mid", "high")]
        assert ends == [None] * 3 or ends == sorted(ends)
    if row["precision_class"] == "ultra-low" and not row["precision"].startswith("TQ"):  # lossless where admitted
        assert any("not recommended" in words for words in row["warnings"])
    if status != "ok":
        return
    if "context" in request:
        assert row["context"] == request["context"]
    if request.get("framework"):
        assert row["framework"] == request["framework"]
    if "max_quality_loss_pct" in request:
        assert row["quality"]["retention"]["low"] >= 1 - request["max_quality_loss_pct"] / 100 - 1e-4
    if "max_disk_bytes" in request:
        assert row["disk"]["peak_bytes"] <= request["max_disk_bytes"]
    if "min_decode_tps" in request and row["decode_tps"]["mid"] is not None:
        assert row["decode_tps"]["mid"] >= request["min_decode_tps"] * 0.999


def answered(request: dict[str, Any]) -> dict[str, Any] | None:
    """The plan, or None where the description of the machine was refused with words."""
    try:
        return plan(**request)
    except AdvisorError as error:
        refused = error
    assert refused.message
    assert refused.hint
    return None


def any_request_is_answered(machine: dict[str, Any], wish: dict[str, Any]) -> None:
    request = machine | wish
    document = answered(request)
    if document is None:
        return
    sound(document, request)
    if request["model"] is None:
        return
    if "ram_bytes" in machine and document["status"] == "ok":
        more_memory_is_never_worse(request, document)
    if document["recommendations"]:
        a_longer_context_is_never_smaller(request, document)


def more_memory_is_never_worse(request: dict[str, Any], document: dict[str, Any]) -> None:
    larger = answered(request | {"ram_bytes": 2 * request["ram_bytes"]})
    if larger is None:  # a board that does not come with so much
        return
    assert larger["status"] == "ok"
    best, before = (d["recommendations"][0]["score"]["total"] for d in (larger, document))
    assert best >= before - 1e-6


def a_longer_context_is_never_smaller(request: dict[str, Any], document: dict[str, Any]) -> None:
    first = document["recommendations"][0]
    again = request | {
        "context": first["context"] * 2,
        "framework": first["framework"],
        "precision": first["precision"],
    }
    longer = answered(again)
    for row in longer["recommendations"] if longer else ():
        if (row["backend"], row["precision"], row["device"]) == (first["backend"], first["precision"], first["device"]):
            assert row["memory"]["kv_bytes"] >= first["memory"]["kv_bytes"]


def examples(count: int) -> Callable[[Any], Any]:
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=count, deadline=None, suppress_health_check=checks)


@examples(40)
@given(machines, wishes)
def test_any_request_on_any_machine_is_answered_soundly(machine: dict[str, Any], wish: dict[str, Any]) -> None:
    any_request_is_answered(machine, wish)


@pytest.mark.slow
@examples(2000)
@given(machines, wishes)
def test_two_thousand_requests_are_answered_soundly(machine: dict[str, Any], wish: dict[str, Any]) -> None:
    any_request_is_answered(machine, wish)


@examples(20)
@given(machines, wishes)
def test_the_same_request_has_the_same_answer(machine: dict[str, Any], wish: dict[str, Any]) -> None:
    documents = [answered(machine | wish) for _ in range(2)]
    assert json.dumps(documents[0]) == json.dumps(documents[1])
