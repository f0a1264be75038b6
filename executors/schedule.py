"""From a plan to jobs: which steps run once, which run for every rung of the ladder, and where their files lie.

Rung 0 is the plan's own choice, rung K its `ladder[K-1]`. What a rung makes lies under `work/rungs/K/`; only the chosen
one reaches `artifact/`, through the package step. Everything that an untrusted plan could get wrong is refused here,
before anything runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from advisor.plan import (
    AcquireSettings,
    BenchmarkSettings,
    CalibrateSettings,
    ConvertSettings,
    Estimate,
    GuideSettings,
    PackageSettings,
    Plan,
    QuantizeSettings,
    SensitivitySettings,
    Settings,
    Step,
    TensorType,
    ValidateSettings,
    Work,
)
from advisor.plan_rows import Band
from advisor.quality import measured_retention
from executors.folder import PARTIAL
from knowledge.base import EXIT_INFEASIBLE, EXIT_NEEDS_INPUT, EXIT_TOOLCHAIN_MISSING, AdvisorError

MAX_STEPS = 200
MAX_RUNGS = 50
SCORES = "work/reference-scores"  # where the reference tier's log-probabilities lie unless the step's outputs say so


@dataclass(frozen=True, slots=True)
class Job:
    """A step with its place in the run folder. `name` is its folder under steps/; `inputs` maps what an input is to the
    executor (`input`, `imatrix`, `artifact`, `reference`, `store`) to its path; `output` is what it makes, if anything;
    `made` is how its rung's artifact is quantized."""

    name: str
    step: Step
    settings: Settings
    inputs: dict[str, str] = field(default_factory=dict)
    output: str = ""
    rung: int | None = None
    made: QuantizeSettings | None = None

    @property
    def is_benchmark(self) -> bool:
        return isinstance(self.settings, BenchmarkSettings)


@dataclass(frozen=True, slots=True)
class Schedule:
    """`shared` jobs run once and first; `rungs[k]` are the jobs of rung k in order; `package` closes the run.

    `searches` maps a rung whose precision is still to be measured to the job that finds it; `resolved` then gives the
    plan to schedule anew.
    """

    shared: tuple[Job, ...]
    rungs: tuple[tuple[Job, ...], ...]
    package: Job
    searches: dict[int, Job]
    artifacts: tuple[str, ...]  # what each rung makes: the artifact's path before packaging


def schedule(plan: Plan) -> Schedule:
    """All jobs of `plan`. AdvisorError: `not-executable` (nothing to run), `bad-plan` (it contradicts itself)."""
    work = plan.plan
    if plan.status != "ok" or work is None:
        message, hint = (
            "This plan decides nothing that could be run.",
            "see why with: advisor plan, and change what it asks",
        )
        code = EXIT_NEEDS_INPUT if plan.status == "needs_input" else EXIT_INFEASIBLE
        raise AdvisorError("not-executable", message, hint, code)
    _check(work)
    if not any(_makes(step) for step in work.steps):
        raise AdvisorError(
            "not-executable",
            f"None of the steps of this {work.framework} plan can be run by advisor yet.",
            "the plan's commands show how to do it with the framework's own tools",
            EXIT_TOOLCHAIN_MISSING,
        )
    store = next((_store(s) for s in work.steps if isinstance(s.settings, ValidateSettings) and _is_shared(s)), "")
    shared = tuple(_job(i, s, None, work, "", store) for i, s in _numbered(work.steps) if _is_shared(s))
    artifacts = tuple(_artifact(work, k) for k in range(len(work.ladder) + 1))
    rungs = tuple(
        tuple(
            _job(i, s, k, work, artifact, store)
            for i, s in _numbered(work.steps)
            if not _is_shared(s) and not isinstance(s.settings, PackageSettings)
        )
        for k, artifact in enumerate(artifacts)
    )
    package = next(
        _job(i, s, None, work, "", "") for i, s in _numbered(work.steps) if isinstance(s.settings, PackageSettings)
    )
    searches = {k: _search(work, k) for k, rung in enumerate(work.ladder, start=1) if rung.lower}
    result = Schedule(shared, rungs if _count(work, QuantizeSettings) else rungs[:1], package, searches, artifacts)
    _check_flow(result)
    return result


def resolved(plan: Plan, number: int, mix: Mapping[str, Any] | None) -> Plan:
    """`plan` with what the search found for rung `number`; without that rung and those after it where nothing was."""
    work = plan.plan
    assert work is not None
    rung = work.ladder[number - 1]
    ladder = work.ladder[: number - 1]
    if mix is not None:
        basis = "sum over the groups lowered alone"
        kept = measured_retention(mix["retention"], basis)
        retention = Band(low=kept.low, mid=kept.mid, high=kept.high, basis=basis)
        groups = " and ".join(mix["groups"]) or "no group"
        found = rung.model_copy(
            update={
                "precision": mix["precision"],
                "tensor_types": [TensorType(**rule) for rule in mix["tensor_types"]],
                "expected_bytes": mix["expected_bytes"],
                "lower": "",
                "quality": rung.quality.model_copy(update={"retention": retention}),
                "why": f"measured: {groups} in {rung.lower} is expected to cost {mix['kl_divergence']:.4f} nats",
            }
        )
        ladder = [*ladder, found, *work.ladder[number:]]
    return plan.model_copy(update={"plan": work.model_copy(update={"ladder": ladder})})


def rung_precision(work: Work, rung: int) -> str:
    return work.precision if rung == 0 else work.ladder[rung - 1].precision


def _numbered(steps: Sequence[Step]) -> list[tuple[int, Step]]:
    return list(enumerate(steps, start=1))


def _makes(step: Step) -> bool:
    return isinstance(step.settings, AcquireSettings | ConvertSettings | QuantizeSettings)


def _is_shared(step: Step) -> bool:
    """Acquire, reference, its scores and its importance matrix are the same for every rung."""
    if isinstance(step.settings, ValidateSettings):
        return step.settings.tier == "reference"
    return isinstance(step.settings, AcquireSettings | ConvertSettings | CalibrateSettings | GuideSettings)


def _count(work: Work, settings: type[QuantizeSettings | PackageSettings]) -> int:
    return sum(isinstance(step.settings, settings) for step in work.steps)


def _artifact(work: Work, rung: int) -> str:
    """What the rung makes: the output of its last making step (without a quantization, the last shared one's)."""
    quantized = [s.settings.output for s in work.steps if isinstance(s.settings, QuantizeSettings)]
    if quantized:
        return _rung_path(quantized[-1], rung)
    return [s.settings.output for s in work.steps if isinstance(s.settings, AcquireSettings | ConvertSettings)][-1]


def _rung_path(path: str, rung: int) -> str:
    """Where a rung puts what the plan puts at `path`; a path outside work/ stays, and is refused."""
    return f"work/rungs/{rung}/{path.removeprefix('work/')}" if path.startswith("work/") else path


def _search(work: Work, number: int) -> Job:
    """The job that finds the mix of a measured rung."""
    rung = work.ladder[number - 1]
    references = [s.settings.output for s in work.steps if isinstance(s.settings, ConvertSettings)]
    if not references:
        raise _bad("a rung measures against a 16-bit reference, which no step makes")
    output = f"work/rungs/{number}/sensitivity.json"
    settings = SensitivitySettings(
        reference=references[-1], output=output, base=rung.type, lower=rung.lower, memory_ratio=rung.memory_ratio
    )
    step = Step(
        id="sensitivity",
        kind="calibrate",
        framework=work.framework,
        title="Measure which tensors stand fewer bits",
        settings=settings,
        command=[],
        inputs=[settings.reference],
        outputs=[output],
        estimate=Estimate(seconds=None, peak_ram_bytes=None, disk_bytes=None),
    )
    name = f"{len(work.steps) + 1:02d}-sensitivity.r{number}"
    return Job(name, step, settings, {"reference": settings.reference}, output, number)


def _store(step: Step) -> str:
    return step.outputs[0] if step.outputs else SCORES


def _job(index: int, step: Step, rung: int | None, work: Work, artifact: str, store: str) -> Job:
    name = f"{index:02d}-{step.id}" + (f".r{rung}" if rung else "")
    settings = step.settings
    made_here = {s.settings.output for s in work.steps if isinstance(s.settings, QuantizeSettings)}

    def place(path: str) -> str:
        return _rung_path(path, rung) if rung is not None and path in made_here else path

    inputs: dict[str, str] = {}
    output = ""
    if isinstance(settings, QuantizeSettings):
        settings = _on_rung(settings, work, rung) if rung else settings
        inputs, output = {"input": place(settings.input)}, place(settings.output)
        if settings.imatrix:
            inputs["imatrix"] = settings.imatrix
    elif isinstance(settings, ConvertSettings | CalibrateSettings):
        inputs, output = {"input": settings.input}, settings.output
    elif isinstance(settings, AcquireSettings):
        output = settings.output
    elif isinstance(settings, ValidateSettings) and settings.tier == "reference":
        inputs, output = {"reference": settings.reference}, _store(step)
    elif isinstance(settings, ValidateSettings):
        inputs = {"artifact": artifact}
        if settings.reference:
            inputs["reference"] = settings.reference
        if settings.tier == "distribution":
            inputs["store"] = store
        if rung:
            settings = settings.model_copy(update={"expected_bytes": work.ladder[rung - 1].expected_bytes})
    elif isinstance(settings, BenchmarkSettings):
        inputs = {"artifact": artifact, "reference": settings.reference}
    elif isinstance(settings, PackageSettings):
        output = "artifact"
    quantized = next((s.settings for s in work.steps if isinstance(s.settings, QuantizeSettings)), None)
    made = _on_rung(quantized, work, rung) if quantized and rung else quantized
    return Job(name, step, settings, inputs, output, rung, made if rung is not None else None)


def _on_rung(settings: QuantizeSettings, work: Work, number: int) -> QuantizeSettings:
    rung = work.ladder[number - 1]
    matrix = next((s.settings.output for s in work.steps if isinstance(s.settings, CalibrateSettings)), "")
    return settings.model_copy(
        update={
            "precision": rung.precision,
            "type": rung.type,
            "tensor_types": rung.tensor_types,
            "imatrix": matrix if rung.imatrix else "",
            "compression": rung.compression,
            "onnx": rung.onnx,
            "workflow": rung.workflow,
            "mlx": rung.mlx,
            "expected_bytes": rung.expected_bytes,
        }
    )


def _check(work: Work) -> None:
    if len(work.steps) > MAX_STEPS or len(work.ladder) > MAX_RUNGS:
        raise _bad(f"it has more than {MAX_STEPS} steps or {MAX_RUNGS} rungs")
    ids = [step.id for step in work.steps]
    if len(set(ids)) != len(ids):
        raise _bad("two of its steps have the same id")
    for step in work.steps:
        if step.settings.kind not in (step.kind, "guide"):
            raise _bad(f"step {step.id} is of kind {step.kind} and has the settings of a {step.settings.kind} step")
        if step.framework != work.framework:
            raise _bad(f"step {step.id} is for {step.framework} in a plan for {work.framework}")
        if step.id.endswith(PARTIAL):
            raise _bad(f"step {step.id} has the name of what is temporary")
    if any(map(_makes, work.steps)) and (_count(work, PackageSettings) != 1 or _count(work, QuantizeSettings) > 1):
        raise _bad("it needs one package step and at most one quantize step")


def _check_flow(jobs: Schedule) -> None:
    """Every input is made by an earlier job, and no two jobs write to one place."""
    for number, rung in enumerate(jobs.rungs):
        made: list[str] = []
        search = [jobs.searches[number]] if number in jobs.searches else []
        for job in (*jobs.shared, *search, *rung, jobs.package):
            for path in job.inputs.values():
                if path not in made:
                    raise _bad(f"step {job.step.id} reads {path or 'reference scores'}, which no earlier step makes")
            if not job.output:
                continue
            parts = PurePosixPath(job.output).parts
            if job is not jobs.package and (
                parts[:1] != ("work",) or len(parts) < 2 or any(p.endswith(PARTIAL) for p in parts)
            ):
                raise _bad(f"step {job.step.id} writes {job.output}, which is no place under work/")
            if any(_overlap(job.output, other) for other in made):
                raise _bad(f"step {job.step.id} writes {job.output}, where another step writes")
            made.append(job.output)


def _overlap(one: str, other: str) -> bool:
    a, b = PurePosixPath(one.casefold()), PurePosixPath(other.casefold())
    return a == b or a in b.parents or b in a.parents


def _bad(what: str) -> AdvisorError:
    return AdvisorError("bad-plan", f"This plan cannot be run: {what}.", "make the plan anew with: advisor plan")
