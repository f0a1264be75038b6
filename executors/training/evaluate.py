"""Honest accuracy of the cost model: on chips and on models it has not seen, by partition, against baselines.

Everything is measured in one run on the same rows: the learned model by grouped cross-validation, the pure roofline
with published shares, the rule "0.55 x bandwidth / size" of a popular peer, and the nearest neighbour among the rows of
other groups. Given a file of measurements, the model as it is installed answers its rows instead.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from advisor.case import METRICS, Case
from advisor.cost_model import LEVEL, Estimate, value_of
from advisor.engines import Engine
from advisor.learned import load_predictor
from advisor.speed import Interval, Roofline, Work
from executors.training.dataset import Sample, load_dataset
from knowledge.measurements import Measurement
from knowledge.records import ModelSpec

if TYPE_CHECKING:
    from executors.training.fit import Trained

SCHEMA = "advisor.evaluate/1"
SPLITS = ("unseen chip", "unseen model")
BASELINES = ("roofline", "0.55 x bandwidth", "nearest neighbour")
_PEER_SHARE = 0.55  # AlexsJones/llmfit, llmfit-core/src/hardware.rs @3f44fd30: tokens/s = 0.55 x bandwidth / weights
_ALL = "all"


@dataclass(frozen=True, slots=True)
class Answered:
    """One sample with the model's answer for it, and the baselines' (None: no answer)."""

    sample: Sample
    split: str
    low: float
    mid: float
    high: float
    baselines: dict[str, float | None]

    @property
    def error(self) -> float:
        return abs(self.mid / self.sample.value - 1)

    @property
    def covered(self) -> bool:
        return self.low <= self.sample.value <= self.high


def is_core(sample: Sample) -> bool:
    """GPU or Apple, one sequence, weights within the memory."""
    case = sample.case
    fits = case.memory_gib is None or case.weight_bytes / 2**30 <= case.memory_gib * case.count
    return sample.device_kind in ("gpu", "apple") and case.batch == 1 and fits


# ---- answers


def cross_validated(samples: Sequence[Sample]) -> list[Answered]:
    """Every sample answered twice: by a model that saw no row of its chip, and by one that saw none of its model."""
    from executors.training.fit import TARGETS, train_target

    return answers_of([train_target(samples, name) for name in TARGETS], samples)


def answers_of(trained: Iterable[Trained], samples: Sequence[Sample]) -> list[Answered]:
    """What training found out about samples that were held out, next to the baselines."""
    groups = {"unseen chip": lambda sample: sample.chip, "unseen model": lambda sample: sample.model}
    answers = []
    for one in trained:
        for split, own in groups.items():
            pairs = [(h, s) for h, s in zip(one.errors, one.spreads, strict=True) if h.split == split]
            nearest = _nearest_values([held.sample for held, _ in pairs], samples, own)
            for (held, spread), neighbour in zip(pairs, nearest, strict=True):
                case, metric = held.sample.case, held.sample.metric
                below, above = one.target.reach(case)
                logs = (held.predicted - below * spread, held.predicted, held.predicted + above * spread)
                ends = [value_of(log, case, metric) for log in logs]
                others = _baselines(held.sample, neighbour)
                answers.append(Answered(held.sample, split, min(ends), ends[1], max(ends), others))
    return answers


def answered_as_installed(measurements: Iterable[Measurement]) -> list[Answered]:
    """The rows of a file, answered by the model as it is installed: an honest test only of rows it has not seen."""
    predictor = load_predictor()
    samples = load_dataset(measurements, bounds=False).samples
    nearest = _nearest_values(samples, load_dataset().samples, lambda sample: sample.chip)
    answers = []
    for sample, neighbour in zip(samples, nearest, strict=True):
        found: Estimate = predictor.estimate(sample.case, sample.metric)
        answers.append(Answered(sample, "given rows", found.low, found.mid, found.high, _baselines(sample, neighbour)))
    return answers


# ---- baselines


def _baselines(sample: Sample, neighbour: float | None) -> dict[str, float | None]:
    return {
        "roofline": roofline_value(sample.case, sample.metric),
        "0.55 x bandwidth": _peer_value(sample.case, sample.metric),
        "nearest neighbour": neighbour,
    }


def roofline_value(case: Case, metric: str) -> float | None:
    """What advisor.speed.Roofline says, with published shares and nothing learned; memory: weights, cache, 0.5 GiB."""
    if metric == "peak_mem_gb":
        tokens = (case.prompt or 0.0) + (case.answer or 128.0)
        return (case.weight_bytes + case.cache_bytes * tokens) / 2**30 + 0.5
    work = _work_of(case)
    if metric == "decode_tps":
        return Roofline().decode_tps(work).mid
    prefill: Interval = Roofline().prefill_tps(work)
    if metric == "prefill_tps" or prefill.mid is None:
        return prefill.mid
    decode = Roofline().decode_tps(work).mid
    return (case.prompt_tokens(metric) / prefill.mid + (1 / decode if decode else 0.0)) * 1e3


_ROOFLINE_BACKENDS = {
    ("llama.cpp", "npu"): "openvino-npu", ("openvino", "npu"): "openvino-npu", ("onnxruntime", "npu"): "qnn",
}  # fmt: skip
_ROOFLINE_FRAMEWORKS = {"mlx": "mlx", "openvino": "openvino", "onnxruntime": "olive"}


def _work_of(case: Case) -> Work:
    framework = _ROOFLINE_FRAMEWORKS.get(case.runtime, "llama.cpp")
    backend = _ROOFLINE_BACKENDS.get((framework, case.backend), case.backend)
    if backend == "npu":
        backend = "openvino-npu"
    kind = "cpu" if case.backend == "cpu" else "npu" if case.backend == "npu" else "gpu"
    engine = Engine(
        kind, case.vendor, case.chip, case.generation, "", case.bandwidth, case.rate, case.rate * case.low_bit_ratio
    )
    context = (case.prompt or 0.0) + (case.answer or 128.0) / 2
    spec = _spec_of(case)
    return Work(
        spec, framework, backend, case.precision, case.active_bytes, case.cache_bytes * context, engine,
        8 if kind == "cpu" else None,
    )  # fmt: skip


def _spec_of(case: Case) -> ModelSpec:
    return ModelSpec(
        name=case.model, architecture="", params=round(case.params), layers=case.layers, hidden=case.hidden,
        intermediate=0, heads=1, kv_heads=1, head_dim=1, vocab=case.vocab, tied_embeddings=True, context=0,
        attention=(), licence="", commercial_use="unknown", source="", active_params=round(case.active_params),
    )  # fmt: skip


def _peer_value(case: Case, metric: str) -> float | None:
    if metric == "decode_tps":
        return _PEER_SHARE * case.bandwidth * 1e9 / case.active_bytes
    return case.weight_bytes / 2**30 * 1.2 if metric == "peak_mem_gb" else None


def _nearest_values(
    asked: Sequence[Sample], known: Sequence[Sample], own: Callable[[Sample], str]
) -> list[float | None]:
    """For each sample, the value as it stands of the nearest known row of its metric that is of another group."""
    import numpy as np

    found: list[float | None] = [None] * len(asked)
    for metric in METRICS:
        rows = [index for index, sample in enumerate(asked) if sample.metric == metric]
        others = [sample for sample in known if sample.metric == metric]
        if not rows or not others:
            continue
        places = np.array([_place(sample.case) for sample in others])
        software = np.array([(sample.case.backend, sample.case.runtime) for sample in others])
        groups = np.array([own(sample) for sample in others])
        for index in rows:
            sample = asked[index]
            far = np.abs(places - np.array(_place(sample.case))).sum(axis=1)
            far += 2.0 * (software[:, 0] != sample.case.backend) + 1.0 * (software[:, 1] != sample.case.runtime)
            far[groups == own(sample)] = np.inf
            best = int(np.argmin(far))
            found[index] = others[best].value if np.isfinite(far[best]) else None
    return found


def _place(case: Case) -> tuple[float, ...]:
    prompt = math.log(case.prompt_tokens("ttft_ms"))
    return (math.log(case.bandwidth), math.log(case.rate), math.log(case.active_bytes), 0.5 * prompt)


# ---- the report


def report(answers: Sequence[Answered], left_out: dict[str, int]) -> dict[str, Any]:
    """The document of `advisor evaluate --json` (DESIGN section 6), with per-chip medians and interval widths added."""
    groups: dict[tuple[str, str, str, str], list[Answered]] = defaultdict(list)
    for answer in answers:
        sample = answer.sample
        for framework in (_ALL, sample.case.runtime):
            for kind in (_ALL, sample.device_kind):
                groups[(sample.metric, framework, kind, answer.split)].append(answer)
        groups[(sample.metric, _ALL, _ALL, "both")].append(answer)
        if is_core(sample):
            groups[(sample.metric, _ALL, "core", answer.split)].append(answer)
            groups[(sample.metric, _ALL, "core", "both")].append(answer)
    order = {metric: index for index, metric in enumerate(METRICS)}
    keys = sorted(groups, key=lambda key: (order[key[0]], key[1] != _ALL, key[1], key[2] != _ALL, key[2], key[3]))
    return {
        "schema": SCHEMA,
        "level": LEVEL,
        "rows": len({id(answer.sample) for answer in answers}),
        "left_out": left_out,
        "partitions": [_partition(key, groups[key]) for key in keys],
        "calibration": [_calibration(metric, answers) for metric in METRICS],
    }


def _partition(key: tuple[str, str, str, str], answers: Sequence[Answered]) -> dict[str, Any]:
    metric, framework, kind, split = key
    chips: dict[str, list[float]] = defaultdict(list)
    for answer in answers:
        chips[answer.sample.chip].append(answer.error)
    return {
        "metric": metric,
        "framework": framework,
        "device_kind": kind,
        "split": split,
        "n": len(answers),
        "answered": len(answers),
        **_accuracy([(answer.mid, answer.sample.value) for answer in answers]),
        "coverage": round(sum(answer.covered for answer in answers) / len(answers), 4),
        "width": round(median((answer.high - answer.low) / answer.mid for answer in answers), 3),
        "chips": len(chips),
        "mdape_of_chips": round(median(median(errors) for errors in chips.values()), 4),
        "baselines": {
            name: _accuracy([(answer.baselines[name], answer.sample.value) for answer in answers]) for name in BASELINES
        },
    }


def _accuracy(pairs: Sequence[tuple[float | None, float]]) -> dict[str, float | None]:
    """Median absolute error, share within 30 %, share off by more than a factor of two; an unanswered row is off."""
    errors = [abs(mid / value - 1) if mid else math.inf for mid, value in pairs]
    middle = median(errors)
    two = sum(not mid or abs(math.log(mid / value)) > math.log(2) for mid, value in pairs)
    return {
        "mdape": round(middle, 4) if math.isfinite(middle) else None,
        "within_30": round(sum(error <= 0.3 for error in errors) / len(errors), 4),
        "over_2x": round(two / len(pairs), 4),
    }


def _calibration(metric: str, answers: Sequence[Answered]) -> dict[str, Any]:
    """How often intervals of other widths would have held: the shipped ones scaled about their middle."""
    of_metric = [answer for answer in answers if answer.sample.metric == metric]
    points = []
    for scale in (0.25, 0.5, 0.75, 1.0, 1.25, 1.5):
        held = 0
        for answer in of_metric:
            off = math.log(answer.sample.value / answer.mid)
            held += scale * math.log(answer.low / answer.mid) <= off <= scale * math.log(answer.high / answer.mid)
        points.append({"scale": scale, "coverage": round(held / len(of_metric), 4) if of_metric else None})
    return {"metric": metric, "points": points}


def worse_than(table: dict[str, Any], found: dict[str, Any], *, least: int = 20) -> list[str]:
    """The partitions of `found` that are worse than in `table` by more than their noise, in words.

    Noise is two binomial standard deviations of the share within 30 %, and no less than three points: repeats and ties
    of folds move that much.
    """
    known = {_key(partition): partition for partition in table["partitions"]}
    sentences = []
    for partition in found["partitions"]:
        before = known.get(_key(partition))
        if before is None or partition["n"] < least:
            continue
        share, was = partition["within_30"], before["within_30"]
        noise = max(0.03, 2 * math.sqrt(max(was * (1 - was), 0.01) / partition["n"]))
        if share < was - noise:
            sentences.append(f"{' / '.join(_key(partition))}: within 30 % fell from {was:.1%} to {share:.1%}")
        if partition["coverage"] < min(0.8, before["coverage"]) - noise:
            sentences.append(f"{' / '.join(_key(partition))}: coverage fell to {partition['coverage']:.1%}")
    return sentences


def _key(partition: dict[str, Any]) -> tuple[str, str, str, str]:
    return partition["metric"], partition["framework"], partition["device_kind"], partition["split"]
