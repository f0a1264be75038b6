"""`--compare course`: what the course's tree would say, whether we agree, and why we depart."""

from typing import Any

import pytest
from planning import GIB, plan


def compared(model: str | None = None, **request: Any) -> dict[str, Any]:
    course: dict[str, Any] = plan(model, compare="course", **request)["course"]
    return course


@pytest.mark.parametrize(
    ("request_", "framework", "matrix"),
    [
        ({"chip": "Apple M2", "ram_bytes": 16 * GIB, "os": "macos"}, "mlx", ("mlx", "llama.cpp")),
        ({"chip": "Core Ultra 7 155H", "ram_bytes": 16 * GIB}, "openvino", ("openvino", "olive")),
        ({"chip": "Ryzen AI 9 HX 370", "ram_bytes": 32 * GIB, "enterprise": True}, "olive", None),
        ({"device": "Raspberry Pi 5", "ram_bytes": 8 * GIB}, "llama.cpp", ("llama.cpp", "openvino")),
        ({"chip": "Snapdragon 8 Gen 3", "ram_bytes": 8 * GIB, "os": "android"}, "llama.cpp", ("llama.cpp", "openvino")),
    ],
)
def test_the_course_s_tree_is_followed(
    request_: dict[str, Any], framework: str, matrix: tuple[str, str] | None
) -> None:
    course = compared("Llama-3.2-1B-Instruct", **request_)
    assert course["tree"]["framework"] == framework
    assert (course["matrix"] and (course["matrix"]["first"], course["matrix"]["second"])) == matrix


def test_size_decides_the_framework_in_the_course_and_not_here() -> None:
    request: dict[str, Any] = {"chip": "RTX 4090", "ram_bytes": 64 * GIB, "os": "linux"}
    small, large = compared("Llama-3.2-3B-Instruct", **request), compared("Llama-3.1-8B-Instruct", **request)
    assert (small["tree"]["framework"], large["tree"]["framework"]) == ("llama.cpp", "olive")
    assert large["why"][-1]["text"].startswith("The claim itself (wrong): size says nothing about the framework")
    assert "scores" in large["why"][0]["text"]


def test_agreement_needs_no_reasons() -> None:
    course = compared("Llama-3.2-3B-Instruct", device="Raspberry Pi 5", ram_bytes=8 * GIB)
    assert course["agrees"]
    assert course["why"] == []


def test_a_framework_that_cannot_run_is_answered_by_the_rule_that_says_so() -> None:
    course = compared("Llama-3.2-1B-Instruct", chip="Apple M2", ram_bytes=8 * GIB, framework="llama.cpp")
    assert not course["agrees"]
    assert "mlx" in course["why"][0]["text"]
    assert course["why"][0]["source"].startswith("rule framework.asked")


@pytest.mark.parametrize("request_", [{"target": "npu", "ram_bytes": 8 * GIB}, {"ram_bytes": GIB // 16}])
def test_without_a_recommendation_the_course_is_still_shown(request_: dict[str, Any]) -> None:
    course = compared(**request_)
    assert course["ours"] == "no recommendation"
    assert course["tree"]["framework"] == "llama.cpp"


def test_nobody_is_compared_who_did_not_ask() -> None:
    assert "course" not in plan("Llama-3.2-1B-Instruct", ram_bytes=8 * GIB)
