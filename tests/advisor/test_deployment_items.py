"""The deployment checklist holds every item of the course in its phase, made concrete for what was planned."""

from typing import Any

import pytest
from planning import GIB, plan

from knowledge.course import load_course

REQUESTS: list[dict[str, Any]] = [
    {"device": "Raspberry Pi 5", "ram_bytes": 8 * GIB, "os": "linux"},
    {"chip": "Core Ultra 7 258V", "ram_bytes": 32 * GIB, "os": "windows", "target": "npu"},
    {"chip": "Apple M2", "ram_bytes": 16 * GIB, "os": "macos"},
    {"chip": "Snapdragon 8 Gen 3", "ram_bytes": 12 * GIB, "os": "android"},
    {"ram_bytes": 8 * GIB},
]


def items(**request: Any) -> list[dict[str, str]]:
    found: list[dict[str, str]] = plan("Llama-3.2-1B-Instruct", **request)["plan"]["checklist"]
    return found


@pytest.mark.parametrize("phase", load_course()["checklist"], ids=lambda row: row["phase"])
def test_every_item_of_the_course_is_there_in_its_phase(phase: dict[str, Any]) -> None:
    assert len(phase["items"]) == len(phase["ours"]) == {"pre-deployment": 7}.get(phase["phase"], 6)
    there = {item["id"] for item in items(**REQUESTS[0]) if item["phase"] == phase["phase"]}
    assert set(phase["ours"]) <= there


@pytest.mark.parametrize("request_", REQUESTS, ids=str)
def test_items_are_concrete(request_: dict[str, Any]) -> None:
    found = items(**request_)
    words = " ".join(item[key] for item in found for key in ("text", "why", "how"))
    assert "{" not in words
    assert len({item["id"] for item in found}) == len(found)
    headroom = next(item["text"] for item in found if item["id"] == "memory-headroom")
    assert "GiB" in headroom
    named = request_.get("device") or request_.get("chip")
    assert named is None or named in headroom


@pytest.mark.parametrize(
    ("request_", "tool"),
    list(zip(REQUESTS, ("powercap", "powercfg", "powermetrics", "dumpsys", "counters"), strict=True)),
)
def test_what_to_watch_is_the_system_s_own_tool(request_: dict[str, Any], tool: str) -> None:
    assert tool in next(item["how"] for item in items(**request_) if item["id"] == "resources")


def test_an_npu_brings_its_own_items() -> None:
    ids = {item["id"] for item in items(**REQUESTS[1])}
    assert {"npu-driver", "npu-run", "npu-static-shapes", "npu-cache"} <= ids
    assert not {"npu-driver", "npu-run"} & {item["id"] for item in items(**REQUESTS[0])}
