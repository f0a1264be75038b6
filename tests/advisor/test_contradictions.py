"""Options that exclude each other whatever the machine are refused, and the refusal names both."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.constraints import Constraints
from advisor.contradictions import refuse_contradictions
from knowledge.base import EXIT_BAD_INPUT, AdvisorError
from knowledge.precisions import load_precisions


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({"framework": "mlx", "os": "windows"}, ("--framework mlx", "--os windows")),
        ({"framework": "mlx", "os": "android"}, ("--framework mlx", "--os android")),
        ({"framework": "openvino", "os": "android"}, ("--framework openvino", "--os android")),
        ({"framework": "openvino", "os": "ios"}, ("--framework openvino", "--os ios")),
        ({"framework": "olive", "os": "ios"}, ("--framework olive", "--os ios")),
        ({"framework": "llama.cpp", "precision": "nf4-cw"}, ("--framework llama.cpp", "--precision nf4-cw")),
        ({"framework": "mlx", "precision": "Q4_K_M"}, ("--framework mlx", "--precision Q4_K_M")),
    ],
)
def test_a_contradiction_names_both_sides(said: dict[str, str], named: tuple[str, str]) -> None:
    with pytest.raises(AdvisorError) as caught:
        refuse_contradictions(Constraints(**said))
    assert (caught.value.code, caught.value.exit_code) == ("contradiction", EXIT_BAD_INPUT)
    assert all(side in caught.value.message for side in named)
    assert caught.value.hint


@given(st.sampled_from(load_precisions()))
def test_a_framework_and_a_precision_of_its_own_never_contradict(precision: object) -> None:
    refuse_contradictions(Constraints(framework=precision.framework, precision=precision.name))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "said",
    [
        {"framework": "openvino", "vendor": "nvidia", "target": "gpu"},
        {"framework": "llama.cpp", "os": "ios"},
        {"os": "windows"},
        {"framework": "mlx", "os": "linux", "precision": "int4"},
        {"precision": "Q4_K_M"},
    ],
)
def test_what_only_cannot_run_on_a_machine_is_no_contradiction(said: dict[str, str]) -> None:
    refuse_contradictions(Constraints(**said))
