"""Own measurements answer for themselves and move others only a little."""

import math
from dataclasses import dataclass

import pytest

from advisor.calibration import Calibrated
from advisor.engines import Engine
from advisor.speed import Interval, Roofline, Work, ttft_ms
from knowledge.models import find_model
from probes.declared import declared_profile


@dataclass(frozen=True)
class Row:
    model: str
    precision: str
    measured: float
    mid: float | None
    framework: str = "llama.cpp"
    backend: str = "cpu"
    metric: str = "decode_tps"


def work(model: str = "Qwen2.5-1.5B-Instruct", precision: str = "Q4_K_M", bandwidth: float | None = 40.0) -> Work:
    engine = Engine("cpu", "intel", "CPU", "", "ram", bandwidth, None, None)
    return Work(find_model(model), "llama.cpp", "cpu", precision, 1.0e9, 0.0, engine, 7)


def test_the_same_configuration_is_answered_by_its_own_measurements() -> None:
    rows = [Row("Qwen/Qwen2.5-1.5B-Instruct", "Q4_K_M", tps, 20.0) for tps in (30.0, 31.0, 40.0)]
    answer = Calibrated(Roofline(), rows).decode_tps(work())
    assert answer.mid == 31.0
    assert "measured on this machine (3 runs)" in answer.basis
    once = Calibrated(Roofline(), rows[1:2]).decode_tps(work())
    assert (once.mid, "(1 run)" in once.basis) == (31.0, True)
    assert once.low < answer.low < 31.0 < answer.high < once.high, "repeats tell how far a machine scatters"


def test_one_measurement_moves_another_configuration_by_a_third() -> None:
    prior = Roofline().decode_tps(work())
    moved = Calibrated(Roofline(), [Row("other", "Q8_0", 40.0, 20.0)]).decode_tps(work())
    assert prior.mid
    assert moved.mid == pytest.approx(prior.mid * 2 ** (1 / 3))


def test_more_evidence_moves_and_narrows_more() -> None:
    models = ("one", "two", "three", "four")
    rows = [Row(model, "Q8_0", 40.0, 20.0) for model in models]
    found = [Calibrated(Roofline(), rows[:count]).decode_tps(work()) for count in range(5)]
    mids = [answer.mid or 0.0 for answer in found]
    widths = [(answer.high or 0.0) / (answer.low or 1.0) for answer in found]
    assert mids == sorted(mids)
    assert widths == sorted(widths, reverse=True)
    assert widths[4] > widths[0] ** 0.6


def test_no_interval_is_narrower_than_what_was_measured_here_scatters() -> None:
    steady = [Row(name, "Q8_0", 20.0, 20.0) for name in ("one", "two", "three")]
    scattered = [Row(name, "Q8_0", tps, 20.0) for name, tps in (("one", 5.0), ("two", 20.0), ("three", 80.0))]
    narrow, wide = (Calibrated(Roofline(), rows).decode_tps(work()) for rows in (steady, scattered))
    assert narrow.mid == pytest.approx(wide.mid)
    assert (wide.low or 0.0) < (narrow.low or 0.0)
    assert (wide.high or 0.0) > (narrow.high or math.inf)
    assert (wide.high or 0.0) > 16 * (wide.low or math.inf)


def test_a_plan_by_an_older_model_is_judged_by_the_model_of_today() -> None:
    """The row says that 1 tok/s was predicted; what counts is what the same model says of it now."""
    today = Roofline().decode_tps(work("Qwen2.5-0.5B-Instruct", "Q8_0")).mid
    assert today
    rows = [Row("Qwen/Qwen2.5-0.5B-Instruct", "Q8_0", 60.0, 1.0)]
    moved, plain = Calibrated(Roofline(), rows).decode_tps(work()).mid, Roofline().decode_tps(work()).mid
    assert moved
    assert plain
    assert moved / plain < 2.5


def test_repeats_of_one_configuration_count_once() -> None:
    one = Calibrated(Roofline(), [Row("other", "Q8_0", 40.0, 20.0)]).decode_tps(work())
    many = Calibrated(Roofline(), [Row("other", "Q8_0", 40.0, 20.0)] * 50).decode_tps(work())
    assert one.mid == many.mid


def test_another_backend_s_measurements_do_not_count() -> None:
    rows = [Row("other", "Q8_0", 40.0, 20.0, backend="cuda")]
    assert Calibrated(Roofline(), rows).decode_tps(work()) == Roofline().decode_tps(work())


def test_no_bandwidth_is_no_speed() -> None:
    answer = Roofline().decode_tps(work(bandwidth=None))
    assert (answer.low, answer.mid, answer.high) == (None, None, None)


def test_speed_is_ordered_and_bounded_by_bandwidth() -> None:
    answer = Roofline().decode_tps(work())
    assert answer.low
    assert answer.mid
    assert answer.high
    assert answer.low < answer.mid < answer.high <= 40e9 / 1e9


def test_the_first_token_waits_for_the_prompt() -> None:
    wait = ttft_ms(Interval(100, 200, 400, ""), Interval(10, 20, 40, ""), 512)
    assert wait.mid == pytest.approx(512 / 200 * 1e3 + 50)
    assert wait.low
    assert wait.high
    assert wait.low < wait.mid < wait.high


def test_the_corrections_that_are_shown_are_those_that_predictions_get() -> None:
    profile = declared_profile(ram_bytes=16 * 2**30, chip="Core Ultra 7 258V", os="linux")
    rows = [
        Row("other", "Q8_0", 40.0, 20.0),
        Row("more", "Q8_0", 40.0, 20.0),
        Row("one", "F16", 1.0, 2.0, metric="ttft_ms"),
    ]
    (shown,) = Calibrated(Roofline(), rows).corrections(profile)
    assert (shown.framework, shown.backend, shown.metric, shown.configurations) == ("llama.cpp", "cpu", "decode_tps", 2)
    plain, moved = Roofline().decode_tps(work()), Calibrated(Roofline(), rows).decode_tps(work())
    assert plain.mid
    assert moved.mid == pytest.approx(plain.mid * shown.factor)
    assert Calibrated(Roofline(), []).corrections(profile) == []
