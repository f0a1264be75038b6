"""`advisor knowledge frameworks|devices NAME`: what runs where, what cannot and why, each with its evidence."""

import pytest


@pytest.mark.parametrize(
    ("framework", "backend", "support"),
    [
        ("llama.cpp", "hexagon", "experimental"),
        ("openvino", "openvino-npu", "supported"),
        ("olive", "vitisai", "supported"),
        ("mlx", "metal", "supported"),
    ],
)
def test_a_framework_shows_its_places_with_evidence(call, framework: str, backend: str, support: str) -> None:
    (row,) = call("knowledge", "frameworks", framework, "--json").document["rows"]
    places = row["runs_on"]
    assert support in {place["support"] for place in places if place["backend"] == backend}
    assert all(place["source"] and place["text"] for place in places)
    assert "unsupported" in {place["support"] for place in places}
    assert backend in call("knowledge", "frameworks", framework).out


@pytest.mark.parametrize(
    ("device", "runs", "cannot"),
    [
        ("Raspberry Pi 5", "llama.cpp cpu", "openvino openvino-gpu"),
        ("Ryzen 7 7840U", "llama.cpp vulkan", "olive vitisai"),
        ("Ryzen AI 9 HX 370", "olive vitisai", "openvino openvino-npu"),
        ("Core Ultra 7 258V", "openvino openvino-npu", "mlx metal"),
        ("Apple M4 Max", "mlx metal", "openvino openvino-gpu"),
        ("Snapdragon 8 Gen 3", "llama.cpp hexagon", "openvino cpu"),
        ("RTX 4090", "llama.cpp cuda", "openvino openvino-gpu"),
        ("Tesla K80", "llama.cpp cpu", "llama.cpp cuda"),
        ("Jetson Orin Nano Super", "llama.cpp cuda", "olive tensorrt-rtx"),
    ],
)
def test_a_device_shows_what_runs_on_it_and_why_the_rest_does_not(call, device: str, runs: str, cannot: str) -> None:
    (row,) = call("knowledge", "devices", device, "--json").document["rows"]
    supports = {}
    for place in row["runs_on"]:
        supports.setdefault(f"{place['framework']} {place['backend']}", set()).add(place["support"])
    assert supports[runs] & {"supported", "experimental"}
    assert supports[cannot] == {"unsupported"}


def test_an_npu_that_nothing_serves_names_its_own_kit(call) -> None:
    (row,) = call("knowledge", "devices", "Orange Pi 5", "--json").document["rows"]
    assert "RKLLM" in " ".join(row["notes"])
    assert "RKLLM" in call("knowledge", "devices", "Orange Pi 5").out


def test_the_npu_row_says_the_driver_that_it_needs(call) -> None:
    (row,) = call("knowledge", "frameworks", "openvino", "--json").document["rows"]
    npu = next(p for p in row["runs_on"] if (p["backend"], p["support"]) == ("openvino-npu", "supported"))
    assert any("32.0.100.3104" in need for need in npu["needs"])
    assert npu["max_context"]
