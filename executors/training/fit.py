"""Fit the cost model to samples: physics per backend, effects of engines, trees on the rest, spread, quantiles.

Deterministic: the same samples give the same arrays. numpy, scipy and scikit-learn (the extra `learn`) are imported
here only; `fit_target` is used for the shipped model and for every fold of its evaluation alike.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
from scipy.optimize import minimize

from advisor import physics
from advisor.cost_features import FEATURES, INCREASING, MEMORY_FEATURES, features
from advisor.cost_model import (
    LEVEL,
    TARGET_OF,
    Scale,
    Target,
    Traits,
    Trees,
    Unit,
    group_of,
    likeness,
    parameters_key,
    traits_of,
)
from executors.training.choices import DEFAULTS, Choices
from executors.training.crossing import crossings
from executors.training.dataset import Sample, folds_of, of_target, weights_of
from executors.training.forest import boosted, export_trees, fit_forest

Array = Any  # numpy arrays of floats: their stubs tell shapes apart that do not matter here

TARGETS = ("decode", "prompt", "first", "memory")
FOLDS = 6


_UNIT_NOISE = 0.2  # standard deviation of one model's residual about its engine's effect
_CPU_LAYER = 0.4  # of the logarithm of a CPU's time a layer: it launches nothing
_ERRORS_TO_WIDEN = 20  # of a group, before its own quantiles count where they are wider
_CLIP = 2.0  # residuals beyond a factor of 7 pull no more than this
_NO_TREES = Trees(0.0, ())


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A sample predicted by a model that had not seen its group: log of the prediction, and evidence."""

    sample: Sample
    split: str
    predicted: float
    evidence: float


# ---- physics


def fit_physics(samples: Sequence[Sample], target: str) -> dict[str, list[float]]:
    """The parameters of advisor.physics by `parameters_key`, pulled to their start."""
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(parameters_key(target, sample.case), []).append(sample)
    weight = dict(zip(map(id, samples), weights_of(samples), strict=True))
    starts: dict[str, Sequence[float]]
    if target == "memory":
        start_of = physics.MEMORY_START
        starts = {key: start_of.get(key, start_of["any"]) for key in (*start_of, *groups)}
        groups["any"] = list(samples)
    else:
        starts = dict(physics.DECODE_START if target == "decode" else physics.PROMPT_START)
        starts |= {key: starts["npu"] for key in groups if key.endswith(" npu")}
        if target != "decode":  # cached prompts are decode's matter
            groups = {key: [s for s in members if not s.case.is_cached] for key, members in groups.items()}
    found = {}
    for key, start in sorted(starts.items()):
        members = groups.get(key, [])
        found[key] = [float(value) for value in start]
        if len(members) >= 6:
            loss = _loss(members, target, start, np.array([weight[id(s)] for s in members]))
            best = minimize(loss, start, method="Nelder-Mead", options={"maxiter": 500})
            found[key] = [round(float(value), 5) for value in best.x]
    return found


def _loss(samples: Sequence[Sample], target: str, start: Sequence[float], weight: Array) -> Callable[[Array], float]:
    logs = np.array([sample.log for sample in samples])
    mixture = np.array([s.case.is_scattered if target == "decode" else s.case.is_moe for s in samples])
    begin = np.array(start)
    if target == "decode":
        terms = np.array([physics.decode_terms(s.case) for s in samples]).T
        on_cpu = all(s.case.backend == "cpu" for s in samples)
        batch = np.array([s.case.batch for s in samples]) ** 0.8

        def predict(p: Array) -> Array:
            reading = terms[0] * np.where(mixture, math.exp(p[3]), 1.0) * (1 + math.exp(-p[0]))
            return (reading + math.exp(p[1]) * terms[2] + math.exp(p[2]) * terms[1]) / batch

        width = np.array([1.0, _CPU_LAYER if on_cpu else 1.0, 1.0, 0.4])
    elif target in ("prompt", "first"):
        terms = np.array([physics.prompt_terms(s.case, s.metric) for s in samples]).T
        batch = np.array([s.case.batch if s.metric == "ttft_ms" else 1.0 for s in samples])

        def predict(p: Array) -> Array:
            work = terms[0] / np.where(mixture, math.exp(p[3]), 1.0) + math.exp(p[2]) * terms[1]
            return (work / math.exp(p[0]) + terms[2] / 0.6 + math.exp(p[1]) * terms[3]) * batch

        width = np.array([1.0, 1.0, 0.7, 0.4])
    else:
        terms = np.array([physics.memory_terms(s.case) for s in samples]).T

        def predict(p: Array) -> Array:
            added = terms[1] * math.exp(p[2]) + terms[2] * math.exp(p[3]) + math.exp(p[1])
            return terms[0] * (1 + math.exp(p[0])) + added

        width = np.array([0.5, 0.7, 0.4, 0.4])

    def loss(p: Array) -> float:
        p = np.clip(p, -12, 8)
        residual = logs - np.log(predict(p))
        return float((weight * np.sqrt(residual**2 + 0.01)).sum() + 1.2 * (((p - begin) / width) ** 2).sum())

    return loss


# ---- effects


def fit_effects(samples: Sequence[Sample], residuals: Array, scale: Scale) -> list[Unit]:
    """Kriging weights of every measured engine (chip, backend, runtime) from the medians of its residuals."""
    members: dict[Traits, list[int]] = {}
    for index, sample in enumerate(samples):
        members.setdefault(traits_of(sample.case), []).append(index)
    traits = sorted(members, key=repr)
    medians = np.array([median(float(residuals[i]) for i in members[t]) for t in traits])
    models = [len({samples[i].model for i in members[t]}) for t in traits]
    covariance = np.array([[likeness(one, other, scale) for other in traits] for one in traits])
    effective = [min(8.0, n + 0.15 * (len(members[t]) - n)) for n, t in zip(models, traits, strict=True)]
    weights = np.linalg.solve(covariance + np.diag(_UNIT_NOISE**2 / np.array(effective)), medians)
    return [
        Unit(t, _unit_name(samples[members[t][0]]), round(float(w), 6), n, len(members[t]))
        for t, w, n in zip(traits, weights, models, strict=True)
    ]


def _unit_name(sample: Sample) -> str:
    return f"{sample.case.runtime} ({sample.case.backend}) on {sample.chip}"


# ---- one target


def fit_target(samples: Sequence[Sample], name: str, choices: Choices) -> Target:
    """The target `name` fitted to `samples` (of that target), without its spread."""
    parameters = fit_physics(samples, name)
    scale = Scale(choices.shared_effect, choices.own_effect, choices.reach, choices.generation)
    target = Target(name, parameters, [], scale, _NO_TREES, _NO_TREES, {})
    prior = np.array([target.physics(s.case, s.metric) for s in samples])
    residual = np.clip(np.array([s.log for s in samples]) - prior, -_CLIP, _CLIP)
    rows_of = Counter(sample.case.runtime for sample in samples)
    residual *= [
        rows_of[sample.case.runtime] >= choices.least_rows and group_of(sample.case) not in choices.alone
        for sample in samples
    ]
    rows = np.array([features(s.case, s.metric) for s in samples])
    weight = np.array(weights_of(samples))
    increasing = [(*FEATURES, *MEMORY_FEATURES).index(feature) for feature in INCREASING[name]]
    crossed = None
    if choices.crossings:
        crossed = np.array([features(case, metric) for case, metric in crossings(samples, choices.crossings)])
    learned = np.zeros(len(samples))
    for _ in range(choices.rounds):
        units = fit_effects(samples, residual - learned, scale)
        target.units = [replace(unit, weight=round(choices.effects * unit.weight, 6)) for unit in units]
        target._effects.clear()
        effect = np.array([target.effect(traits_of(s.case))[0] for s in samples])
        target.trees, learned = fit_forest(rows, residual - effect, weight, crossed, increasing, choices)
    return target


def held_out(
    samples: Sequence[Sample],
    name: str,
    split: str,
    group: Callable[[Sample], str],
    choices: Choices,
    folds: int = FOLDS,
) -> list[HeldOut]:
    """Every sample predicted by a model that saw no sample of its group."""
    fold = folds_of(samples, group, folds)
    found = []
    for index in sorted(set(fold)):
        seen = [s for s, f in zip(samples, fold, strict=True) if f != index]
        target = fit_target(seen, name, choices)
        for sample, place in zip(samples, fold, strict=True):
            if place == index:
                mean, _, evidence, _, _ = target.predict(sample.case, sample.metric)
                found.append(HeldOut(sample, split, mean, evidence))
    return found


def by_chip(sample: Sample) -> str:
    return sample.chip


def by_model(sample: Sample) -> str:
    return sample.model


# ---- spread


def fit_spread(errors: Sequence[HeldOut], folds: int = 4) -> tuple[Trees, dict[str, tuple[float, float]], list[float]]:
    """Trees for the logarithm of the expected error, the quantiles that scale it to LEVEL, and each error's own spread
    by trees that had not seen its chip (so that the quantiles hold for chips not seen)."""
    rows = np.array([[*features(e.sample.case, e.sample.metric), e.evidence] for e in errors])
    off = np.array([e.sample.log - e.predicted for e in errors])
    goal = np.log(np.abs(off) + 0.03)
    weight = np.array(weights_of([e.sample for e in errors]))
    free = [0] * rows.shape[1]
    settings = {"max_iter": 20, "max_leaf_nodes": 5, "learning_rate": 0.2, "min_samples_leaf": 9}
    fold = np.array(folds_of([e.sample for e in errors], by_chip, folds))
    honest = np.zeros(len(errors))
    for index in range(folds):
        inside = fold != index
        if inside.all() or not inside.any():
            continue
        trees = export_trees(boosted(rows[inside], goal[inside], weight[inside], free, **settings))
        honest[~inside] = [trees.predict(list(row)) for row in rows[~inside]]
    final = export_trees(boosted(rows, goal, weight, free, **settings))
    ratio = off / np.exp(honest)
    usual = _quantiles(ratio, weight)
    quantiles = {"any": usual}
    members: dict[str, list[int]] = {}
    for index, error in enumerate(errors):
        members.setdefault(group_of(error.sample.case), []).append(index)
    for group, own in sorted(members.items()):
        below, above = _quantiles(ratio[own], np.ones(len(own))) if len(own) >= _ERRORS_TO_WIDEN else usual
        quantiles[group] = (max(below, usual[0]), max(above, usual[1]))
    quantiles["unmeasured"] = (max(low for low, _ in quantiles.values()), max(high for _, high in quantiles.values()))
    return final, quantiles, [float(value) for value in np.exp(honest)]


def _quantiles(ratio: Array, weight: Array) -> tuple[float, float]:
    """How many spreads below and above the prediction LEVEL of the errors lie between."""
    tail = (1 - LEVEL) / 2
    order = np.argsort(ratio)
    share = np.cumsum(weight[order]) / weight.sum()
    low = ratio[order][min(len(order) - 1, int(np.searchsorted(share, tail)))]
    high = ratio[order][min(len(order) - 1, int(np.searchsorted(share, 1 - tail)))]
    return round(max(0.1, -float(low)), 4), round(max(0.1, float(high)), 4)


# ---- everything


@dataclass(frozen=True, slots=True)
class Trained:
    target: Target
    errors: list[HeldOut]
    spreads: list[float]


def train_target(samples: Sequence[Sample], name: str, choices: Choices | None = None) -> Trained:
    """The target with its spread, from errors on chips and models held out; and those errors."""
    choices = choices or DEFAULTS[name]
    members = of_target(samples, name)
    errors = held_out(members, name, "unseen chip", by_chip, choices)
    errors += held_out(members, name, "unseen model", by_model, choices)
    errors = [error for error in errors if TARGET_OF[error.sample.metric] == name]
    target = fit_target(members, name, choices)
    target.spread, target.quantiles, spreads = fit_spread(errors)
    return Trained(target, errors, spreads)
