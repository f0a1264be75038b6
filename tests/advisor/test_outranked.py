"""What would run and is not shown says what it lost by, and is found with the words that it names."""

import re
from typing import Any

import pytest
from planning import GIB, plan

REQUESTS: list[dict[str, Any]] = [
    {"chip": "Core Ultra 7 258V", "ram_bytes": 32 * GIB, "os": "windows", "top": 2},
    {"chip": "Ryzen AI 9 HX 370", "ram_bytes": 32 * GIB, "os": "windows", "top": 2},
    {"chip": "RTX 4090", "ram_bytes": 64 * GIB, "os": "linux", "top": 1},
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request["chip"])
def test_what_fell_behind_says_why_and_how_to_have_it(request_: dict[str, Any]) -> None:
    document = plan("Llama-3.2-3B-Instruct", **request_)
    shown = {(row["framework"], row["backend"]) for row in document["recommendations"]}
    assert document["outranked"]
    for row in document["outranked"]:
        assert (row["framework"], row["backend"]) not in shown
        scores = [float(number) for number in re.findall(r"(?:scores|ours) ([\d.]+)", row["text"])]
        assert scores[0] <= scores[1]
        framework, target = re.findall(r"--framework (\S+) --target (\S+)", row["change"])[0]
        again = plan("Llama-3.2-3B-Instruct", **request_ | {"framework": framework, "target": target})
        assert (row["framework"], row["backend"]) in {(r["framework"], r["backend"]) for r in again["recommendations"]}


def test_the_rule_that_cost_it_most_is_named() -> None:
    rows = {row["backend"]: row for row in plan("Llama-3.2-3B-Instruct", **REQUESTS[0])["outranked"]}
    assert rows["openvino-npu"]["rule"] in ("prefer.npu-not-by-reflex", "gate.quality-penalty")
    assert rows["openvino-npu"]["source"]
