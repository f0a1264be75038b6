"""Every option of `advisor plan` reaches the decision as what it says."""

from typing import Any

import pytest

from advisor.constraints import Constraints, Weights
from knowledge.base import GIB, AdvisorError
from ui.command import Parser
from ui.plan_options import FLAGS, OPTIONS, add_constraints, constraints_from
from ui.verbs_plan import describes_another

GOOD: list[tuple[list[str], str, Any]] = [
    (["--ram", "8GB"], "ram_bytes", 8 * GIB),
    (["--vram=6GiB"], "vram_bytes", 6 * GIB),
    (["--target", "NPU"], "target", "npu"),
    (["--vendor", "Intel"], "vendor", "intel"),
    (["--chip", "Core Ultra 7 155H"], "chip", "Core Ultra 7 155H"),
    (["--device", "Raspberry Pi 5"], "device", "Raspberry Pi 5"),
    (["--profile", "a machine.json"], "profile", "a machine.json"),
    (["--os", "windows"], "os", "windows"),
    (["--context", "8192"], "context", 8192),
    (["--concurrency", "4"], "concurrency", 4),
    (["--use-case", "rag"], "use_case", "rag"),
    (["--priority", "quality"], "priority", "quality"),
    (["--power", "battery"], "power", "battery"),
    (["--min-decode-tps", "12.5"], "min_decode_tps", 12.5),
    (["--max-ttft-ms", "800"], "max_ttft_ms", 800.0),
    (["--max-quality-loss", "1%"], "max_quality_loss_pct", 1.0),
    (["--max-disk", "8GB"], "max_disk_bytes", 8 * 10**9),
    (["--framework", "llama.cpp"], "framework", "llama.cpp"),
    (["--precision", "Q4_K_M"], "precision", "Q4_K_M"),
    (["--kv-cache", "q8_0"], "kv_cache", "q8_0"),
    (["--weights", "speed=3, quality=1"], "weights", Weights(speed=3, quality=1)),
    (["--top", "3"], "top", 3),
    (["--enterprise"], "enterprise", True),
    (["--cross-platform"], "cross_platform", True),
    (["--commercial"], "commercial", True),
    (["--offline"], "offline", True),
    (["--tasks"], "tasks", True),
    (["Qwen2.5-3B-Instruct"], "model", "Qwen2.5-3B-Instruct"),
]


def read(*arguments: str) -> Constraints:
    parser = Parser("plan", "")
    add_constraints(parser)
    return constraints_from(parser.parse(arguments))


@pytest.mark.parametrize(
    ("arguments", "field", "value"), GOOD, ids=lambda part: " ".join(part) if isinstance(part, list) else ""
)
def test_an_option_is_read(arguments: list[str], field: str, value: Any) -> None:
    assert getattr(read(*arguments), field) == value


def test_every_constraint_has_an_option_and_every_option_a_test() -> None:
    fields = {option.field for option in OPTIONS} | {field for _, field, _ in FLAGS} | {"model"}
    assert fields == set(Constraints.model_fields) == {field for _, field, _ in GOOD}


def test_nothing_given_is_the_defaults() -> None:
    assert read() == Constraints()


@pytest.mark.parametrize("size", ["8", "8GB", "8gb", "8GiB", "8192MB", "8192MiB", " 8 GB "])
def test_memory_is_binary_in_every_spelling(size: str) -> None:
    assert read("--ram", size).ram_bytes == 8 * GIB


def test_options_may_stand_before_and_after_the_model() -> None:
    assert read("--ram", "8GB", "embedded", "--top", "2").model == "embedded"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--context", "0"], "--context"),
        (["--top", "101"], "--top"),
        (["--min-decode-tps", "inf"], "--min-decode-tps"),
        (["--max-quality-loss", "101"], "--max-quality-loss"),
        (["--target", "tpu"], "auto, cpu, gpu, npu"),
        (["--chip", " "], "--chip is empty"),
    ],
)
def test_a_bad_value_names_its_option(arguments: list[str], words: str) -> None:
    with pytest.raises(AdvisorError) as caught:
        read(*arguments)
    assert words in caught.value.message


@pytest.mark.parametrize(
    "arguments", [["--ram", "8GB"], ["--vram", "8GB"], ["--chip", "x"], ["--device", "x"], ["--os", "ios"]]
)
def test_a_described_machine_is_another_one(arguments: list[str]) -> None:
    assert describes_another(read(*arguments))


@pytest.mark.parametrize(
    "arguments", [[], ["--target", "npu"], ["--vendor", "intel"], ["--context", "8192"], ["embedded"]]
)
def test_what_is_asked_of_this_machine_is_not_another_one(arguments: list[str]) -> None:
    assert not describes_another(read(*arguments))


@pytest.mark.parametrize(
    "text", ["speed", "speed=", "speed=x", "speed=-1", "speed=1,speed=2", "luck=3", "=", "speed=inf"]
)
def test_weights_that_weigh_nothing_are_refused(text: str) -> None:
    with pytest.raises(AdvisorError) as refused:
        read("--weights", text)
    assert refused.value.message.startswith("--weights:")
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("weights", [{}, {"speed": 0}, {"speed": 2, "quality": 6}])
def test_weights_become_shares_of_one(weights: dict[str, float]) -> None:
    assert sum(Weights(**weights).shares().values()) == pytest.approx(1)
