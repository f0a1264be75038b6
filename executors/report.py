"""report.json (DESIGN section 6): everything that a run found out, from its plan and what its steps kept.

`build` is a pure function of an Outcome; Markdown and HTML are renderings of its document (report_md, report_html).
Predictions are the plan's own, never recomputed.
"""

from __future__ import annotations

import math
import platform
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from advisor.plan import Plan, ValidateSettings, Work
from advisor.plan_rows import Band
from executors.folder import RunFolder
from executors.gates import GateResult, observe, status_of
from executors.report_text import TIMED
from executors.schedule import Job, rung_precision
from executors.steps import StepRecord
from executors.validation import paired_ratio, spread
from knowledge.base import AdvisorError, read_json, write_json
from knowledge.matrix import Kind, framework_named
from probes.profile import HardwareProfile

SCHEMA = "advisor.run/1"
FINAL = ("passed", "failed", "inconclusive")
PREDICTED: dict[Kind, tuple[str, ...]] = {
    "text": ("artifact_bytes", "peak_rss_bytes", "decode_tps", "prefill_tps", "ttft_ms", "quality_retention"),
    "embedding": ("artifact_bytes", "peak_rss_bytes", "sentences_per_second", "quality_retention"),
}
RUNG_FIGURES = (
    "quality_retention", "kl_divergence", "same_top1", "cosine_similarity", "memory_ratio", "decode_ratio",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Identity:
    """Who ran what where: kept in `RUN/run.json` when a run begins, so that going on later, elsewhere or with a newer
    framework does not relabel what was measured. `created` is UTC, ISO 8601."""

    run_id: str
    created: str
    framework_version: str
    environment: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rung:
    """One tried precision: 0 is the plan's choice. `size_bytes` is the size of its model files."""

    number: int
    size_bytes: int
    validation: dict[str, Any]
    performance: dict[str, Any]
    gates: tuple[GateResult, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What `build` needs. `chosen` indexes `rungs`; None while the run is not finished. `artifact` lists the files of
    artifact/ with their size and SHA-256, `source` is what the acquire step found, `sensitivity` what was measured to
    make a mix, if it was."""

    plan: Plan
    work: Work
    status: str
    identity: Identity
    steps: Sequence[StepRecord] = ()
    rungs: Sequence[Rung] = ()
    chosen: int | None = None
    artifact: Sequence[Mapping[str, Any]] = ()
    error: AdvisorError | None = None
    sensitivity: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)


def identify(
    folder: RunFolder, plan: Plan, machine: HardwareProfile, version_now: Callable[[], str], *, finished: bool
) -> Identity:
    """The identity in the folder, made now if this run is new.

    The framework's version is that of a finished run for good; what is unfinished goes on with today's, and since
    steps are keyed by it, they are done again if it changed.
    """
    path = folder.path("run.json")
    if not path.exists():
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        identity = Identity(uuid.uuid4().hex, created, version_now(), environment(plan, machine))
        write_json(path, asdict(identity))
        return identity
    try:
        identity = Identity(**read_json(path, "run identity"))
    except TypeError as error:
        raise AdvisorError("bad-run", f"{path} is damaged.", "remove that file and run again") from error
    if not finished and (now := version_now()) != identity.framework_version:
        identity = replace(identity, framework_version=now)
        write_json(path, asdict(identity))
    return identity


def environment(plan: Plan, machine: HardwareProfile) -> dict[str, Any]:
    """The machine and versions of a run: what a reader needs to judge its figures; no user, host or path names."""
    memory = machine.main_memory
    return {
        "advisor": _version("edge-advisor"),
        "python": platform.python_version(),
        "os": f"{machine.os.name} {machine.os.version}".strip() or platform.system(),
        "cpu": machine.cpu.model or machine.cpu.arch,
        "physical_cores": machine.cpu.physical_cores,
        "instruction_sets": list(machine.cpu.instruction_sets),
        "memory_bytes": (memory.limit_bytes or memory.total_bytes) if memory else None,
        "gpus": [gpu.name for gpu in machine.gpus],
        "threads": plan.plan.threads if plan.plan else 1,
        "fingerprint": machine.fingerprint,
        "planned_for": plan.hardware.device or plan.hardware.chip or plan.hardware.origin,
        "planned_for_this_machine": bool(machine.fingerprint) and machine.fingerprint == plan.hardware.fingerprint,
    }


def stored(folder: RunFolder) -> dict[str, Any] | None:
    """The finished report in the folder; None where there is none or it is damaged."""
    try:
        document = read_json(folder.path("report.json"), "report")
    except AdvisorError:
        return None
    usable = isinstance(document, dict) and document.get("schema") == SCHEMA and document.get("status") in FINAL
    return document if usable else None


def measured(jobs: Iterable[Job], metrics: Mapping[str, dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """`validation` and `performance` of the report, from what the finished jobs of a rung kept."""
    validation: dict[str, Any] = {"integrity": {}, "smoke": {}, "distribution": {}, "tasks": {}}
    performance: dict[str, Any] = {}
    for job in jobs:
        found = metrics.get(job.name)
        if found is None:
            continue
        if isinstance(job.settings, ValidateSettings):
            validation[job.settings.tier] = found
        elif job.is_benchmark:
            performance = timings(found)
    return validation, performance


def timings(samples: Mapping[str, Mapping[str, list[float]]]) -> dict[str, Any]:
    """`performance`: median, interquartile range, p95 and n of every series, and the paired ratio of the rates."""
    document: dict[str, Any] = {
        side: {metric: spread(samples[side][metric]) for metric in TIMED if samples[side].get(metric)}
        for side in ("reference", "artifact")
    }
    reference, artifact = (samples[side].get("decode_tps", []) for side in ("reference", "artifact"))
    if reference and artifact:
        document["decode_ratio"] = paired_ratio(reference, artifact)
    reference, artifact = (samples[side].get("sentences_per_second", []) for side in ("reference", "artifact"))
    if reference and artifact:
        document["embedding_ratio"] = paired_ratio(reference, artifact)
    return document


def build(outcome: Outcome) -> dict[str, Any]:
    """The document of report.json."""
    work = outcome.work
    kept = outcome.rungs[outcome.chosen] if outcome.chosen is not None else None
    empty: dict[str, Any] = {"integrity": {}, "smoke": {}, "distribution": {}, "tasks": {}}
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "status": outcome.status,
        "run_id": outcome.identity.run_id,
        "created": outcome.identity.created,
        "model": work.model,
        "base_model": work.base_model,
        "licence": work.licence,
        "source": dict(outcome.source),
        "kind": work.kind,
        "framework": work.framework,
        "framework_version": outcome.identity.framework_version,
        "backend": work.backend,
        "precision": rung_precision(work, kept.number if kept else 0),
        "reference": {"precision": _reference_precision(work), "note": work.reference_note},
        "artifact": {
            "path": "artifact",
            "bytes": sum(file["bytes"] for file in outcome.artifact),
            "files": [dict(file) for file in outcome.artifact],
        },
        "steps": [asdict(step) for step in outcome.steps],
        "validation": kept.validation if kept else empty,
        "performance": kept.performance if kept else {},
        "gates": [asdict(gate) for gate in kept.gates] if kept else [],
        "predicted_vs_measured": _comparison(work, kept) if kept else [],
        "rungs": [_rung(work, rung, outcome.chosen) for rung in outcome.rungs],
        "why": _why(outcome.plan, work),
        "memory": _memory(outcome.plan, kept),
        "environment": outcome.identity.environment,
        "next": _next(outcome),
    }
    if outcome.sensitivity:
        document["sensitivity"] = dict(outcome.sensitivity)
    if outcome.error is not None:
        document["error"] = outcome.error.as_json()["error"]
    return document


def _why(plan: Plan, work: Work) -> dict[str, Any]:
    """The plan's reasons for its choice, and what it expected of the model's other precisions, in the gates' terms."""
    chosen = next((r for r in plan.recommendations if r.rank == 1), None)
    if chosen is None:
        return {"reasons": [], "alternatives": []}
    header = chosen.disk.artifact_bytes - chosen.memory.weights_bytes
    expected = {
        rung.precision: (rung.quality.retention.mid, rung.expected_bytes - header, rung.quality.basis)
        for rung in work.ladder
        if not rung.lower
    } | {
        r.precision: (r.quality.retention.mid, r.memory.weights_bytes, r.quality.basis)
        for r in plan.recommendations
        if (r.model, r.framework) == (chosen.model, chosen.framework)
    }
    limits = {gate.metric: gate.value for gate in work.gates if gate.level == "required"}
    alternatives = []
    for name, (retention, weights, basis) in expected.items():
        if name.lower() in (work.precision.lower(), _reference_precision(work)):
            continue
        ratio = weights / (2e9 * chosen.params_b)
        misses = ["quality"] if retention is not None and retention < limits.get("quality_retention", 0.0) else []
        misses += ["memory"] if ratio > limits.get("memory_ratio", math.inf) else []
        alternatives.append(
            {
                "precision": name,
                "quality_retention": retention,
                "memory_ratio": ratio,
                "basis": basis,
                "would_miss": misses,
            }
        )
    return {"reasons": [{"rule": r.rule, "text": r.text} for r in chosen.reasons], "alternatives": alternatives}


def _memory(plan: Plan, kept: Rung | None) -> dict[str, Any]:
    """What the plan's choice was predicted to need, next to what was seen; empty for a further rung."""
    chosen = next((r for r in plan.recommendations if r.rank == 1), None)
    if chosen is None or kept is None or kept.number:
        return {}
    peak = observe("peak_rss_bytes", kept.validation, kept.performance).value
    return {**chosen.memory.model_dump(mode="json", exclude={"parts"}), "measured_peak_rss_bytes": peak}


def _reference_precision(work: Work) -> str:
    types = [step.settings.type for step in work.steps if step.settings.kind == "convert"]
    return types[0].lower() if types else "source"


def _rung(work: Work, rung: Rung, chosen: int | None) -> dict[str, Any]:
    """A rung with its figures, chosen or not."""
    step = work.ladder[rung.number - 1] if rung.number else None
    figures = {metric: observe(metric, rung.validation, rung.performance).value for metric in RUNG_FIGURES}
    return {
        "rung": rung.number,
        "precision": rung_precision(work, rung.number),
        "why": step.why if step else "The plan's choice.",
        "predicted_retention": step.quality.retention.mid if step else _band(work, "quality_retention").mid,
        "artifact_bytes": rung.size_bytes,
        **figures,
        "result": status_of(rung.gates),
        "missed": [gate.id for gate in rung.gates if gate.level == "required" and gate.result != "pass"],
        "chosen": rung.number == chosen,
    }


def _band(work: Work, metric: str) -> Band:
    return work.predictions.get(metric) or Band(low=None, mid=None, high=None)


def _comparison(work: Work, kept: Rung) -> list[dict[str, Any]]:
    """Predicted next to measured. For a further rung the plan predicted its size and quality only."""
    found = {
        "artifact_bytes": kept.size_bytes,
        "quality_retention": observe("quality_retention", kept.validation, kept.performance).value,
        **{
            m: ((kept.performance.get("artifact") or {}).get(m) or {}).get("median") for m in PREDICTED[work.kind][1:-1]
        },
    }
    bands = {metric: _band(work, metric) for metric in PREDICTED[work.kind]}
    if kept.number:
        rung = work.ladder[kept.number - 1]
        unknown = Band(low=None, mid=None, high=None)
        size, off = rung.expected_bytes, framework_named(work.framework).size_tolerance
        bands = dict.fromkeys(PREDICTED[work.kind], unknown) | {
            "quality_retention": rung.quality.retention,
            "artifact_bytes": Band(low=size * (1 - off), mid=size, high=size * (1 + off)) if size else unknown,
        }
    return [_line(metric, bands[metric], found[metric]) for metric in PREDICTED[work.kind]]


def _line(metric: str, band: Band, value: float | None) -> dict[str, Any]:
    within = None
    if band.low is not None and band.high is not None and value is not None:
        within = band.low <= value <= band.high
    return {"metric": metric, "low": band.low, "mid": band.mid, "high": band.high, "measured": value, "within": within}


def _next(outcome: Outcome) -> list[dict[str, str]]:
    """What to do now, as sentences with commands; RUN_DIR stands for the run's folder."""
    if outcome.status in ("interrupted", "error"):
        return [{"text": "Go on where the run stopped.", "command": "advisor run RUN_DIR"}]
    steps = []
    untried = len(outcome.work.ladder) - (len(outcome.rungs) - 1)
    if outcome.status != "passed" and untried > 0:
        following = outcome.work.ladder[len(outcome.rungs) - 1].precision
        steps.append(
            {"text": f"Try the next precision of the ladder, {following}.", "command": "advisor run RUN_DIR --escalate"}
        )
    steps.append({"text": "Check the deployment checklist.", "command": "advisor check RUN_DIR"})
    steps.append({"text": "See what this machine has measured so far.", "command": "advisor history"})
    framework = framework_named(outcome.work.framework).of(outcome.work.kind)
    if outcome.status == "passed" and outcome.artifact and framework.try_command:
        largest = max(outcome.artifact, key=lambda file: file["bytes"])
        command = framework.try_command.replace("{file}", largest["path"])
        steps.append({"text": framework.try_text, "command": command})
    return steps


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"
