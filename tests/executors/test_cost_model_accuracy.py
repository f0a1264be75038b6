"""The accuracy of the cost model is a regression test: no partition may get worse than the committed table by more than
its noise. Needs the extra `learn`; a minute on two cores."""

from __future__ import annotations

import json
from statistics import median
from typing import Any

import pytest

from advisor.cost_model import LEVEL
from knowledge.cost_arrays import load_arrays
from knowledge.tables import DATA

pytest.importorskip("sklearn", reason="the extra `learn` is not installed")

from executors.training.choices import DEFAULTS, Choices
from executors.training.crossing import crossings
from executors.training.dataset import load_dataset, of_target
from executors.training.evaluate import cross_validated, report, worse_than
from executors.training.export import document_of
from executors.training.fit import fit_target
from executors.training.forest import fit_forest

TABLE = DATA / "cost_model_accuracy.json"


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    dataset = load_dataset()
    return report(cross_validated(dataset.samples), dataset.left_out)


def partition(document: dict[str, Any], metric: str, kind: str = "all") -> dict[str, Any]:
    return next(
        p
        for p in document["partitions"]
        if (p["metric"], p["framework"], p["device_kind"], p["split"]) == (metric, "all", kind, "both")
    )


@pytest.mark.slow
def test_no_partition_is_worse_than_the_committed_table(found: dict[str, Any]) -> None:
    assert worse_than(json.loads(TABLE.read_text(encoding="utf-8")), found) == []


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["decode_tps", "prefill_tps", "peak_mem_gb"])
def test_what_is_learned_beats_every_baseline(found: dict[str, Any], metric: str) -> None:
    part = partition(found, metric)
    assert all(part["within_30"] > baseline["within_30"] for baseline in part["baselines"].values())


@pytest.mark.slow
def test_intervals_hold_as_often_as_they_say(found: dict[str, Any]) -> None:
    for metric in ("decode_tps", "prefill_tps", "ttft_ms", "peak_mem_gb"):
        assert abs(partition(found, metric)["coverage"] - LEVEL) < 0.06


@pytest.mark.slow
def test_the_shipped_arrays_are_what_training_gives() -> None:
    samples = of_target(load_dataset().samples, "memory")
    fresh = json.loads(json.dumps(document_of(fit_target(samples, "memory", DEFAULTS["memory"]))))
    shipped = load_arrays("memory")
    for key in ("parameters", "units", "scale", "trees"):
        assert fresh[key] == shipped[key], key


def test_of_runtimes_with_few_rows_nothing_but_physics_is_learned() -> None:
    samples = of_target(load_dataset().samples, "memory")
    target = fit_target(samples, "memory", DEFAULTS["memory"])
    rows: dict[str, list[float]] = {}
    for sample in samples:
        learned = target.predict(sample.case, sample.metric)[0] - target.physics(sample.case, sample.metric)
        rows.setdefault(sample.case.runtime, []).append(abs(learned))
    assert len(rows["openvino"]) >= DEFAULTS["memory"].least_rows > len(rows["mlx"])
    assert median(rows["openvino"]) > 10 * median(rows["mlx"])


@pytest.mark.parametrize("averaged", [0.0, 0.4, 1.0])
def test_exported_trees_predict_what_scikit_learn_predicts(averaged: float) -> None:
    import numpy as np

    chance = np.random.default_rng(0)
    rows = chance.normal(size=(300, 5))
    goal = (rows[:, 0] + np.sin(3 * rows[:, 1])) / 4 + chance.normal(size=300) / 10
    choices = Choices(trees=30, averaged=averaged, averaged_trees=20)
    trees, expected = fit_forest(rows, goal, np.ones(300), None, [0], choices)
    assert [trees.predict(list(row)) for row in rows] == pytest.approx(list(expected), abs=1e-4)


def test_trees_taught_by_a_smooth_fit_follow_it_where_nothing_was_measured() -> None:
    """A line, measured at both ends: what lies between is nearer to it with crossings than without."""
    import numpy as np

    ends = np.concatenate([np.linspace(0, 1, 40), np.linspace(3, 4, 40)])[:, None]
    middle = np.linspace(1.2, 2.8, 60)[:, None]
    errors = {}
    for taught, crossed in (("measured", None), ("crossed", middle)):
        choices = Choices(averaged=1.0, averaged_trees=30, columns=1.0, crossed_gamma=0.2)
        trees, _ = fit_forest(ends, ends[:, 0], np.ones(80), crossed, [], choices)
        errors[taught] = np.mean([abs(trees.predict([x]) - x) for x in middle[:, 0]])
    assert errors["crossed"] < 0.7 * errors["measured"]


def test_crossings_are_an_engine_and_another_sample_s_model_alike_in_bits() -> None:
    samples = of_target(load_dataset().samples, "decode")[:400]
    found = crossings(samples, 200)
    assert found == crossings(samples, 200)
    engines = {(s.case.chip, s.case.backend, s.case.bandwidth, s.case.rate, s.case.bits < 12) for s in samples}
    works = {(s.case.model, s.case.precision, s.case.weight_bytes, s.case.prompt, s.case.batch) for s in samples}
    for case, metric in found:
        assert (case.chip, case.backend, case.bandwidth, case.rate, case.bits < 12) in engines
        assert (case.model, case.precision, case.weight_bytes, case.prompt, case.batch) in works
        assert metric == "decode_tps"
    measured = {(s.case.chip, s.case.model) for s in samples}
    assert any((case.chip, case.model) not in measured for case, _ in found)


def test_a_partition_that_fell_is_named() -> None:
    part = {"metric": "decode_tps", "framework": "all", "device_kind": "all", "split": "both", "n": 1000}
    before = {"partitions": [part | {"within_30": 0.8, "coverage": 0.9}]}
    assert worse_than(before, {"partitions": [part | {"within_30": 0.78, "coverage": 0.9}]}) == []
    (words,) = worse_than(before, {"partitions": [part | {"within_30": 0.7, "coverage": 0.9}]})
    assert "within 30 % fell from 80.0% to 70.0%" in words
