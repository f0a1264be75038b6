"""MLX without MLX: what a plan asks for, where it is offered, and what integrity says of what a worker found."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from advisor.constraints import Constraints
from advisor.decide import make_plan
from advisor.mlx_recipe import MlxRecipe
from advisor.plan import BenchmarkSettings, GuideSettings, Plan, QuantizeSettings, ValidateSettings
from executors.executor import executor_for
from executors.mlx import other_types
from executors.schedule import schedule
from knowledge.base import EXIT_TOOLCHAIN_MISSING, AdvisorError
from knowledge.models import embedded_model
from probes.declared import declared_profile
from probes.profile import HardwareProfile

LINUX = declared_profile(ram_bytes=2**34, vendor="intel", os="linux", target="cpu")
MAC = declared_profile(ram_bytes=2**34, chip="Apple M4", os="macos")


def mlx_plan(profile: HardwareProfile = LINUX, **asked: Any) -> Plan:
    request = Constraints(model="embedded", framework="mlx", **asked)
    return Plan.model_validate(make_plan(request, profile, embedded_model()))


def settings_of(plan: Plan, step: str) -> Any:
    assert plan.plan is not None
    return next(one.settings for one in plan.plan.steps if one.id == step)


def test_on_linux_it_is_produced_when_asked_for_and_said_to_be_a_functional_test() -> None:
    plan = mlx_plan()
    assert plan.plan is not None
    assert (plan.plan.backend, plan.plan.precision) == ("cpu", "6bit-g64")
    assert any("functional test" in words for words in plan.recommendations[0].warnings)
    assert schedule(plan).artifacts[0] == "work/rungs/0/model"


def test_on_linux_it_is_never_recommended_unasked() -> None:
    request = Constraints(model="embedded", target="cpu", top=50)
    plan = Plan.model_validate(make_plan(request, LINUX, embedded_model()))
    assert "mlx" not in {row.framework for row in plan.recommendations}
    rejected = next(row for row in plan.rejected if row.framework == "mlx" and row.backend == "cpu")
    assert (rejected.rule, rejected.change) == ("mlx.cpu-unasked", "ask for it with --framework mlx")


def test_the_plan_says_how_to_pack_in_types_that_are_checked() -> None:
    quantize = settings_of(mlx_plan(precision="4bit-g32"), "quantize")
    assert isinstance(quantize, QuantizeSettings)
    assert quantize.mlx == MlxRecipe(mode="affine", bits=4, group_size=32)
    assert settings_of(mlx_plan(precision="mixed-4-6"), "quantize").mlx.recipe == "mixed_4_6"
    assert settings_of(mlx_plan(precision="mxfp4"), "quantize").mlx.mode == "mxfp4"
    assert settings_of(mlx_plan(precision="bf16"), "quantize").mlx == MlxRecipe(mode="bfloat16", bits=16, group_size=0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "affine", "bits": 7, "group_size": 64},
        {"mode": "affine", "bits": 4, "group_size": 48},
        {"mode": "affine", "bits": 4, "group_size": 16},
        {"mode": "mxfp4", "bits": 4, "group_size": 64},
        {"mode": "bfloat16", "bits": 16, "group_size": 64},
        {"mode": "affine", "bits": 16, "group_size": 0},
        {"mode": "affine", "bits": 3, "group_size": 64, "recipe": "mixed_4_6"},
        {"mode": "affine", "bits": 4, "group_size": 64, "recipe": "os.system"},
    ],
    ids=str,
)
def test_a_recipe_that_mlx_has_not_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MlxRecipe(**wrong)


def test_the_runtime_is_judged_apart_and_cannot_fail_the_artifact() -> None:
    plan = mlx_plan()
    runtime = settings_of(plan, "runtime")
    assert isinstance(runtime, ValidateSettings)
    assert runtime.blocks >= 20  # below that no gate can be judged
    assert plan.plan is not None
    gate = next(gate for gate in plan.plan.gates if gate.id == "runtime")
    assert (gate.level, gate.against) == ("advisory", "its own weights")


def test_what_needs_a_mac_is_done_on_one_and_left_to_people_elsewhere() -> None:
    described = mlx_plan(MAC)
    assert described.plan is not None
    assert described.plan.backend == "metal"
    for step in ("smoke", "runtime", "benchmark"):
        assert isinstance(settings_of(described, step), GuideSettings)
    assert isinstance(settings_of(described, "distribution"), ValidateSettings)
    on_it = mlx_plan(MAC.model_copy(update={"origin": "probed", "fingerprint": "mac"}))
    timed = settings_of(on_it, "benchmark")
    assert isinstance(timed, BenchmarkSettings)
    assert (timed.prompt_tokens, timed.decode_tokens) == (128, 32)


def test_without_mlx_its_plan_is_refused_with_how_to_install_it() -> None:
    with pytest.raises(AdvisorError) as caught:
        _ = executor_for("mlx").version
    assert (caught.value.code, caught.value.exit_code) == ("toolchain-missing", EXIT_TOOLCHAIN_MISSING)
    assert caught.value.hint == "advisor toolchain install mlx"


# ---- integrity

FOUR = MlxRecipe(mode="affine", bits=4, group_size=64)


def tensor(name: str, kind: str, columns: int = 64) -> dict[str, Any]:
    return {"name": name, "shape": [8, columns], "elements": 8 * columns, "type": kind}


BASE = [tensor("q_proj.weight", "float16"), tensor("odd.weight", "float16", 72)]


def test_weights_packed_as_planned_pass() -> None:
    made = [tensor("q_proj.weight", "affine 4, 64 per group"), tensor("odd.weight", "float16", 72)]
    assert other_types(FOUR, made, BASE) == ""


@pytest.mark.parametrize(
    "kind", ["affine 3, 64 per group", "affine 4, 32 per group", "mxfp4 4, 32 per group", "float16"]
)
def test_a_weight_packed_otherwise_is_named(kind: str) -> None:
    made = [tensor("q_proj.weight", kind), tensor("odd.weight", "float16", 72)]
    assert "q_proj.weight is stored as" in other_types(FOUR, made, BASE)


def test_a_mix_that_gave_no_layer_more_bits_is_found() -> None:
    mix = MlxRecipe(mode="affine", bits=4, group_size=64, recipe="mixed_4_6")
    low, high = tensor("a.weight", "affine 4, 64 per group"), tensor("b.weight", "affine 6, 64 per group")
    assert other_types(mix, [low, high], [low, high]) == ""
    assert "Nothing is stored as affine 6" in other_types(mix, [low], [low])


def test_a_16_bit_artifact_in_another_type_is_found() -> None:
    plain = MlxRecipe(mode="bfloat16", bits=16, group_size=0)
    assert "q_proj.weight is float16" in other_types(plain, BASE, BASE)


def test_how_fast_it_is_on_a_cpu_is_not_guessed_from_metal() -> None:
    (best, *_), (mac, *_) = mlx_plan().recommendations, mlx_plan(MAC).recommendations
    assert (best.decode_tps.low, best.decode_tps.mid, best.decode_tps.high) == (None, None, None)
    assert "functional test" in best.prefill_tps.basis
    assert mac.decode_tps.mid
