"""The decision as claims: each a case that somebody would ask about."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planning import plan

from advisor.constraints import Constraints
from advisor.decide import make_plan
from advisor.learned import load_predictor
from advisor.plan import Plan
from advisor.workload import case_of_row
from knowledge.models import embedded_model, find_model, load_models
from probes.declared import declared_profile

GIB = 2**30


def names(document: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    return [(r["model"], r["framework"], r["backend"], r["precision"]) for r in document["recommendations"]]


def test_the_document_is_the_contract_s() -> None:
    document = plan(ram_bytes=16 * GIB, os="linux")
    assert Plan.model_validate(document).as_json()["status"] == "ok"


def test_the_same_request_gives_the_same_bytes() -> None:
    first, second = (json.dumps(plan(ram_bytes=8 * GIB, target="npu")) for _ in range(2))
    assert first == second


def test_an_unknown_npu_asks_and_answers_per_vendor() -> None:
    document = plan(ram_bytes=8 * GIB, target="npu")
    assert document["status"] == "needs_input"
    frameworks = {o["vendor"]: o["recommendation"]["framework"] for o in document["question"]["options"]}
    assert frameworks == {
        "intel": "openvino", "amd": "olive", "qualcomm": "olive", "apple": "mlx", "rockchip": "llama.cpp"
    }  # fmt: skip
    assert all("not on the NPU" in r["warnings"][0] for r in document["recommendations"])
    assert {r["backend"] for r in document["recommendations"]} == {"cpu"}


def test_every_answer_has_its_rules() -> None:
    for option in plan(ram_bytes=8 * GIB, target="npu")["question"]["options"]:
        assert any(reason["rule"] for reason in option["recommendation"]["reasons"]), option["vendor"]


@pytest.mark.parametrize(
    ("vendor", "framework", "backend"),
    [
        ("intel", "openvino", "openvino-npu"),
        ("amd", "olive", "vitisai"),
        ("qualcomm", "olive", "qnn"),
        ("apple", "mlx", "metal"),
        ("rockchip", "llama.cpp", "cpu"),
    ],
)
def test_the_npu_vendor_decides_the_framework(vendor: str, framework: str, backend: str) -> None:
    best = plan(ram_bytes=8 * GIB, target="npu", vendor=vendor)["recommendations"][0]
    assert (best["framework"], best["backend"]) == (framework, backend)


def test_the_intel_npu_gets_symmetric_four_bits_only() -> None:
    document = plan(ram_bytes=16 * GIB, target="npu", vendor="intel", os="windows", top=50)
    ours = [r for r in document["recommendations"] if r["framework"] in ("openvino", "olive")]
    assert ours
    assert all(r["nominal_bits"] == 4 and "asym" not in r["precision"] for r in ours)


def test_asymmetric_weights_are_refused_on_the_intel_npu_with_the_rule() -> None:
    document = plan(model="Qwen3-4B", target="npu", vendor="intel", ram_bytes=16 * GIB, precision="int4-asym-g128")
    assert document["status"] == "infeasible"
    assert "npu.symmetric" in {r["rule"] for r in document["rejected"]}


def test_group_size_must_divide_channel_width() -> None:
    document = plan(model="SmolLM2-135M-Instruct", ram_bytes=8 * GIB, precision="int4-sym-g128")
    rejected = [r for r in document["rejected"] if r["rule"] == "precision.group-divides"]
    assert rejected
    assert "576" in rejected[0]["text"]


def test_a_quantized_source_is_never_upscaled() -> None:
    from dataclasses import replace

    small = replace(find_model("Qwen2.5-1.5B-Instruct"), source_precision="Q4_0", path="/models/x.gguf")
    document = plan(model=small, ram_bytes=8 * GIB, target="cpu", top=50)
    assert {r["nominal_bits"] for r in document["recommendations"]} <= {2, 3, 4}
    assert "source.upscale" in {r["rule"] for r in document["rejected"]}


def test_the_embedded_model_gets_the_mix_that_passes_both_gates() -> None:
    document = plan(model=embedded_model(), ram_bytes=8 * GIB, os="linux")
    best = document["recommendations"][0]
    assert best["precision"] == "Q8_0+ffn_gate=Q5_0"
    assert best["quality"]["basis"] == "measured"
    assert "Q4_1" not in {r["precision"] for r in document["recommendations"]}
    kinds = [s["settings"]["kind"] for s in document["plan"]["steps"]]
    assert kinds == ["acquire", "convert", "quantize", *["validate"] * 4, "benchmark", "package"]
    assert document["plan"]["ladder"][0]["precision"] == "Q8_0+ffn_gate=Q5_1+ffn_up=Q5_1"


def test_an_asked_precision_leaves_the_ladder_open() -> None:
    document = plan(model=embedded_model(), ram_bytes=8 * GIB, os="linux", framework="llama.cpp", precision="Q4_K_M")
    assert document["recommendations"][0]["precision"] == "Q4_K_M"
    assert document["plan"]["ladder"][0]["precision"] == "Q8_0+ffn_gate=Q5_0"


def test_a_dropped_in_rule_changes_the_answer(tmp_path: Path) -> None:
    (tmp_path / "90-site.toml").write_text(
        'stage = "static"\n[[rule]]\nid = "site.no-mlx"\nwhen = { fact = "framework", value = "mlx" }\n'
        'effect = "reject"\ntext = "{framework} is not allowed here."\nsource = "our policy"\n',
        encoding="utf-8",
    )
    asked = Constraints(ram_bytes=16 * GIB, chip="Apple M2", os="macos")
    profile = declared_profile(ram_bytes=16 * GIB, chip="Apple M2", os="macos")
    before = make_plan(asked, profile, None)
    after = make_plan(asked, profile, None, extra_rules=(tmp_path,))
    assert "mlx" in {r["framework"] for r in before["recommendations"]}
    assert "mlx" not in {r["framework"] for r in after["recommendations"]}
    assert "site.no-mlx" in {r["rule"] for r in after["rejected"]}


def test_too_little_memory_names_what_came_closest() -> None:
    document = plan(model="Llama-3.1-8B-Instruct", ram_bytes=4 * GIB, os="linux")
    assert document["status"] == "infeasible"
    assert document["nearest"]["rule"] == "memory.fits"
    assert any("Closest" in w and "more" in w for w in document["warnings"])


def test_an_asked_context_beyond_the_model_is_refused_with_what_would_do() -> None:
    document = plan(model="SmolLM2-135M-Instruct", ram_bytes=8 * GIB, context=100_000)
    assert document["status"] == "infeasible"
    assert any(r["rule"] == "model.context" and "--context 8192" in r["change"] for r in document["rejected"])


def test_a_speed_floor_rejects_with_the_speed() -> None:
    document = plan(device="Raspberry Pi 5", ram_bytes=8 * GIB, min_decode_tps=1000)
    assert document["status"] == "infeasible"
    assert any(r["rule"] == "speed.asked" and "tok/s" in r["text"] for r in document["rejected"])


@pytest.mark.parametrize("chip", ["Core Ultra 7 155H", "Apple M2", "RTX 4090", "Snapdragon X Elite"])
@pytest.mark.parametrize("model", ["Llama-3.2-1B-Instruct", "Llama-3.1-8B-Instruct"])
def test_a_priority_moves_its_own_axis(chip: str, model: str) -> None:
    balanced, fast, good, small, easy = (
        plan(model, priority=priority, chip=chip, ram_bytes=16 * GIB)["recommendations"][0]
        for priority in ("balanced", "speed", "quality", "memory", "effort")
    )
    assert fast["decode_tps"]["mid"] >= balanced["decode_tps"]["mid"]
    assert good["score"]["quality"] >= balanced["score"]["quality"]
    assert small["memory"]["total_bytes"] <= balanced["memory"]["total_bytes"]
    assert easy["score"]["effort"] >= balanced["score"]["effort"]


def test_enterprise_and_cross_platform_prefer_what_the_course_says() -> None:
    request: dict[str, Any] = {"ram_bytes": 16 * GIB, "os": "windows", "chip": "Core Ultra 7 155H"}
    assert plan(enterprise=True, **request)["recommendations"][0]["framework"] == "olive"
    assert plan(cross_platform=True, **request)["recommendations"][0]["framework"] == "llama.cpp"


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([m.name for m in load_models()]), st.integers(2, 64), st.integers(1, 64))
def test_more_memory_never_makes_a_plan_infeasible(name: str, gib: int, more: int) -> None:
    small = plan(model=name, ram_bytes=gib * GIB, os="linux")
    large = plan(model=name, ram_bytes=(gib + more) * GIB, os="linux")
    assert small["status"] != "ok" or large["status"] == "ok"


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([m.name for m in load_models()]), st.sampled_from([512, 2048]))
def test_a_longer_context_never_needs_less_memory(name: str, context: int) -> None:
    request: dict[str, Any] = {"ram_bytes": 512 * GIB, "os": "linux", "framework": "llama.cpp", "precision": "Q4_K_M"}
    first, second = (plan(model=name, context=c, **request)["recommendations"] for c in (context, 2 * context))
    if first and second:
        assert second[0]["memory"]["kv_bytes"] >= first[0]["memory"]["kv_bytes"]
        assert second[0]["memory"]["total_bytes"] >= first[0]["memory"]["total_bytes"]


def test_a_plan_for_one_token_of_context_is_still_one_that_can_be_run() -> None:
    document = plan("Llama-3.2-1B-Instruct", ram_bytes=8 * GIB, os="linux", context=1)
    assert Plan.model_validate(document).status == "ok"


@pytest.mark.parametrize("chip", ["Ryzen 7 5700X", "Ryzen 7 5800X3D", "EPYC 9124", "Xeon Gold 6248R"])
def test_a_cpu_of_unknown_cores_is_as_fast_as_those_usual_of_its_family_and_no_thread_count_is_shown(chip: str) -> None:
    document = plan(
        "Llama-3.1-8B-Instruct", ram_bytes=64 * GIB, os="linux", target="cpu", chip=chip,
        framework="llama.cpp", precision="Q4_K_M",
    )  # fmt: skip
    cpu, speed = document["hardware"]["cpu"], document["recommendations"][0]["decode_tps"]
    assert cpu["physical_cores"] is None
    assert any(f"{cpu['usual_cores']} that are usual are assumed" in note for note in document["hardware"]["notes"])
    row = {
        "device": chip, "device_kind": "cpu", "chip": chip, "framework": "llama.cpp", "backend": "cpu",
        "model": "Llama-3.1-8B-Instruct", "precision": "Q4_K_M", "prompt_tokens": "2048", "gen_tokens": "128",
    }  # fmt: skip
    case, notes = case_of_row(row)
    assert case
    assert f"number of cores not known, the usual {cpu['usual_cores']} assumed" in notes
    assert speed["mid"] == pytest.approx(load_predictor().estimate(case, "decode_tps").mid, rel=0.2)
    assert speed["high"] > 4 * speed["low"], "half and twice the cores are in the interval"
    (bench,) = [step for step in document["plan"]["steps"] if step["kind"] == "benchmark"]
    assert "-t" not in bench["command"]
    assert document["plan"]["threads"] == cpu["usual_cores"] - 1


def test_what_is_expected_to_be_fast_enough_goes_before_what_nobody_can_tell() -> None:
    """Of the CPU beside an RTX 3060 nothing is known: its answers are warned of and come last."""
    for floor in ({"max_ttft_ms": 200}, {"min_decode_tps": 60}):
        document = plan(chip="RTX 3060", ram_bytes=32 * GIB, os="linux", top=12, **floor)
        known = [row["decode_tps"]["mid"] is not None for row in document["recommendations"]]
        assert known == sorted(known, reverse=True)
        assert known[0]
        for row in document["recommendations"]:
            told = any("not checked" in words or "are not checked" in words for words in row["warnings"])
            assert told == (row["decode_tps"]["mid"] is None)


def test_a_wait_is_told_with_the_prompt_that_it_is_for() -> None:
    row = plan("Llama-3.2-1B-Instruct", device="Raspberry Pi 5", ram_bytes=8 * GIB, os="linux")["recommendations"][0]
    (wait,) = [reason["text"] for reason in row["reasons"] if reason["rule"] == "prefer.quick-start"]
    told = wait.removeprefix("The first word comes ").partition(" s after a prompt of 512 tokens")[0]
    assert float(told) == pytest.approx(row["ttft_ms"]["mid"] / 1000, abs=0.51)


def test_no_option_on_the_front_is_beaten_in_everything_and_speed_counts_beyond_enough() -> None:
    document = plan(chip="Ryzen AI Max+ 395", ram_bytes=128 * GIB, os="linux", top=12)
    rows = document["recommendations"]
    fastest = max(rows, key=lambda row: row["decode_tps"]["mid"] or 0.0)
    assert fastest["pareto"]
    assert rows[0]["backend"] != "cpu"


def test_a_precision_that_leaves_next_to_nothing_is_not_recommended_unless_it_is_named() -> None:
    board: dict[str, Any] = {"device": "Raspberry Pi Zero 2 W", "os": "linux"}
    document = plan(**board)
    assert document["status"] == "infeasible"
    assert any(row["rule"] == "quality.unusable" for row in document["rejected"])
    asked = plan("SmolLM2-135M-Instruct", precision="Q2_K", **board)
    assert all(row["quality"]["retention"]["mid"] < 0.5 for row in asked["recommendations"])
    assert asked["status"] == "ok"


def test_of_cards_of_two_generations_every_option_uses_one_and_says_so() -> None:
    said = plan("Qwen3-4B", chip="RTX 3090 + RTX 4090", ram_bytes=64 * GIB, os="linux")["assumptions"]
    assert any("spread over cards of one generation only" in words for words in said)


def test_one_chip_under_another_name_reads_a_prompt_at_the_same_speed() -> None:
    named = ("Ryzen 7 8840HS", "Radeon 780M", "Ryzen 7 7840HS", "Ryzen 7 8840U", "Ryzen Z1 Extreme")
    asked = {"ram_bytes": 32 * GIB, "os": "windows", "target": "gpu", "framework": "llama.cpp"}
    plans = [plan("gpt-oss-20b", chip=name, **asked) for name in named]
    first = [document["recommendations"][0]["ttft_ms"]["mid"] for document in plans]
    assert max(first) < 1.3 * min(first)


def test_others_are_shown_where_the_best_scores_below_zero() -> None:
    asked: dict[str, Any] = {"chip": "Core Ultra 7 258V", "ram_bytes": 32 * GIB, "os": "linux", "precision": "Q2_K"}
    rows = plan("Llama-3.3-70B-Instruct", **asked)["recommendations"]
    assert rows[0]["score"]["total"] < 0
    assert len(rows) > 1
