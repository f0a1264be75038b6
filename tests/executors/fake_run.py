"""A small run without a framework: a plan, an executor whose worker makes small files, and a script to be killed.

`python fake_run.py FOLDER MODEL SECONDS [ID.RUNG:STATE]` runs the plan in FOLDER, each step taking about SECONDS, and
kills itself at that moment.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from advisor.constraints import Constraints
from advisor.plan import (
    AcquireSettings,
    BenchmarkSettings,
    ChecklistItem,
    ConvertSettings,
    Estimate,
    Gate,
    ModelSource,
    PackageSettings,
    Plan,
    QuantizeSettings,
    Rung,
    Step,
    TensorType,
    ValidateSettings,
    Work,
)
from advisor.plan_rows import Band, DiskNeed, MemoryNeed, Quality, Reason, Recommendation, Score
from executors.executor import Task
from executors.process import run_worker
from executors.runner import run_plan
from knowledge.base import AdvisorError
from probes.profile import CPU, HardwareProfile, MemoryPool

WORKER = Path(__file__).with_name("fake_worker.py")
MACHINE = HardwareProfile(
    origin="probed",
    fingerprint="machine-1",
    cpu=CPU(model="Test CPU", physical_cores=2),
    memory=(MemoryPool(id="ram", kind="ram", total_bytes=2**34),),
)
SIZE = 4 + 5 * 64 * 32
PARAMETERS = 20_000
QUALITY = {"Q8_0": 0.99, "Q6_K": 0.98, "Q5_0": 0.90, "Q8_0+ffn_gate=Q5_0": 0.985}
MEMORY = {"Q8_0": 0.53, "Q6_K": 0.51, "Q5_0": 0.39, "Q8_0+ffn_gate=Q5_0": 0.49}
PLANNED = ("Q8_0", ("Q6_K", "Q8_0+ffn_gate=Q5_0"))
MOMENTS = [
    f"{step}.{rung}:{state}"
    for rung, steps in enumerate(
        (
            ("acquire", "convert", "reference", "quantize", "integrity", "smoke", "distribution"),
            ("quantize", "integrity", "smoke", "distribution"),
            ("quantize", "integrity", "smoke", "distribution", "benchmark"),
        )
    )
    for step in steps
    for state in ("started", "done")
] + ["package.0:started", "package.0:done"]
CHECKS = (
    "artifact-hashes",
    "gates-passed",
    "size-matches-prediction",
    "performance-recorded",
    "licence-recorded",
    "model-card",
    "manifest-complete",
)


class FakeExecutor:
    """Figures by precision from QUALITY and MEMORY; `fail` maps a step's settings kind or tier to a failure."""

    def __init__(self, pids: Path, seconds: float = 0.0, fail: dict[str, str] | None = None) -> None:
        self.version = "fake 1"
        self.pids, self.seconds, self.fail = pids, seconds, fail or {}
        self.ran: list[str] = []

    def run(self, task: Task) -> dict[str, Any]:
        settings = task.settings
        name = getattr(settings, "tier", settings.kind)
        self.ran.append(name)
        request: dict[str, Any] = {"pids": str(self.pids), "seconds": self.seconds, "fail": self.fail.get(name)}
        if "output" in task.paths:
            source = task.paths.get("input") or task.paths["reference"]
            kind = task.made.precision if task.made else "F16"
            request |= {"input": str(source), "output": str(task.paths["output"]), "type": kind}
        request["answer"] = self.answer(name, task.made.precision if task.made else "")
        done = run_worker(
            Path(sys.executable),
            "fake",
            request,
            replace(task.watch, time_limit_seconds=60, silence_limit_seconds=60, rss_limit_bytes=None),
            worker=WORKER,
        )
        return {**done.result, "peak_rss_bytes": done.peak_rss_bytes}

    def answer(self, name: str, precision: str) -> dict[str, Any]:
        if name == "integrity":
            tensor_bytes = round(2 * PARAMETERS * MEMORY[precision])
            return {"status": "pass", "tensor_bytes": tensor_bytes, "parameters": PARAMETERS}
        if name == "distribution":
            return distribution(QUALITY[precision])
        if name == "benchmark":
            return {side: samples(speed) for side, speed in (("reference", 50.0), ("artifact", 75.0))}
        return {"status": "pass"}


def distribution(retention: float) -> dict[str, Any]:
    """The distribution tier of an artifact that keeps `retention` of the quality, sure to 0.002."""
    return {
        "status": "pass",
        "tokens": 3200,
        "perplexity": {"reference": 15.0, "artifact": 15.0 / retention, "ratio": 1 / retention, "stderr": 0.001},
        "kl_divergence": {"mean": 0.009, "p99": 0.1, "stderr": 0.001, "low95": 0.008, "high95": 0.010},
        "same_top1": {"value": 0.94, "stderr": 0.004, "low95": 0.93, "high95": 0.95},
        "retention": {"value": retention, "stderr": 0.001, "low95": retention - 0.002, "high95": retention + 0.002},
    }


def samples(decode: float) -> dict[str, list[float]]:
    series = {
        "decode_tps": decode,
        "prefill_tps": 4 * decode,
        "ttft_ms": 900.0,
        "load_seconds": 0.2,
        "peak_rss_bytes": 2e8,
    }
    return {metric: [value * (1 + 0.01 * n) for n in range(5)] for metric, value in series.items()}


def fake_plan(source: Path, precision: str = "Q8_0", ladder: tuple[str, ...] = (), **changes: Any) -> Plan:
    """A llama.cpp plan for the file `source`; `ladder` names its rungs; `changes` are Work's fields."""
    work = Work(
        model="org/Tiny-20K-Instruct",
        framework="llama.cpp",
        backend="cpu",
        precision=precision,
        context=512,
        licence="Apache-2.0",
        base_model="org/Tiny-20K-Instruct",
        reference_note="a test",
        steps=steps(source, precision),
        gates=gates(),
        predictions={
            "artifact_bytes": Band(low=SIZE * 0.99, mid=SIZE, high=SIZE * 1.01),
            "decode_tps": Band(low=40, mid=60, high=80),
            "quality_retention": Band(low=0.97, mid=0.99, high=1.0),
        },
        ladder=[
            Rung(
                precision=name,
                type=name.split("+")[0],
                tensor_types=overrides(name),
                expected_bytes=SIZE,
                why="the next thing",
                quality=Quality(
                    retention=Band(low=None, mid=0.98, high=None), metric="ppl", basis="measured", source="lab"
                ),
            )
            for name in ladder
        ],
        checklist=[
            ChecklistItem(id=check, phase="pre-deployment", text=f"Check {check}", kind="automatic", check=check)
            for check in CHECKS
        ]
        + [
            ChecklistItem(
                id="rollback", phase="deployment", text="Rollback was tried", kind="manual", why="it fails when needed"
            )
        ],
    )
    work = work.model_copy(update=changes)
    return Plan(
        status="ok",
        hardware=MACHINE,
        constraints=Constraints(model="tiny"),
        recommendations=[recommendation(rank, name) for rank, name in enumerate((precision, *ladder), start=1)],
        rejected=[],
        trace=[],
        plan=work,
    )


def recommendation(rank: int, precision: str) -> Recommendation:
    weights, unknown = round(2 * PARAMETERS * MEMORY[precision]), Band(low=None, mid=None, high=None)
    return Recommendation(
        rank=rank,
        pareto=True,
        model="org/Tiny-20K-Instruct",
        params_b=PARAMETERS / 1e9,
        framework="llama.cpp",
        backend="cpu",
        precision=precision,
        nominal_bits=8,
        precision_class="medium",
        context=512,
        memory=MemoryNeed(
            weights_bytes=weights,
            kv_bytes=5000,
            overhead_bytes=1000,
            total_bytes=weights + 6000,
            budget_bytes=10**6,
            pool="ram",
        ),
        disk=DiskNeed(download_bytes=0, peak_bytes=10**5, artifact_bytes=weights + 100),
        decode_tps=unknown,
        prefill_tps=unknown,
        ttft_ms=unknown,
        quality=Quality(
            retention=Band(low=None, mid=QUALITY[precision], high=None), metric="ppl", basis="measured", source="lab"
        ),
        reasons=[Reason(rule="gate.both-pass", text="It is expected to pass both gates.")],
        warnings=[],
        score=Score(total=1, speed=1, quality=1, memory=1, effort=1),
    )


def overrides(precision: str) -> list[TensorType]:
    pairs = [part.split("=") for part in precision.split("+")[1:]]
    return [TensorType(pattern=pattern, type=kind) for pattern, kind in pairs]


def steps(source: Path, precision: str) -> list[Step]:
    reference, model, scores = "work/reference.gguf", "work/model.gguf", "work/scores"
    settings: dict[str, Any] = {
        "acquire": AcquireSettings(source=ModelSource(kind="file", path=str(source)), output="work/source.gguf"),
        "convert": ConvertSettings(input="work/source.gguf", output=reference),
        "quantize": QuantizeSettings(
            input=reference,
            output=model,
            precision=precision,
            type=precision.split("+")[0],
            tensor_types=overrides(precision),
            expected_bytes=SIZE,
        ),
        "integrity": ValidateSettings(tier="integrity", reference=reference, expected_bytes=SIZE),
        "smoke": ValidateSettings(tier="smoke"),
        "reference": ValidateSettings(tier="reference", reference=reference),
        "distribution": ValidateSettings(tier="distribution", reference=reference),
        "benchmark": BenchmarkSettings(reference=reference),
        "package": PackageSettings(),
    }
    return [
        Step(
            id=name,
            kind=value.kind,
            framework="llama.cpp",
            settings=value,
            command=["echo", name],
            inputs=[],
            outputs=[scores] if name == "reference" else [],
            estimate=Estimate(seconds=1, peak_ram_bytes=None, disk_bytes=1000),
        )
        for name, value in settings.items()
    ]


def gates() -> list[Gate]:
    rows = [
        ("integrity", "integrity", "==", 1, "required"),
        ("smoke", "smoke", "==", 1, "required"),
        ("quality", "quality_retention", ">=", 0.95, "required"),
        ("memory", "memory_ratio", "<=", 0.5, "required"),
        ("decode", "decode_ratio", ">=", 2, "advisory"),
    ]
    return [Gate(id=i, metric=m, op=o, value=v, level=lv) for i, m, o, v, lv in rows]


def fake_model(path: Path) -> Path:
    path.write_bytes(b"GGUF" + os.urandom(5000))
    return path


def main() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and so inherit
    folder, model, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    moment = sys.argv[4] if len(sys.argv) > 4 else ""

    def listen(event: dict[str, Any]) -> None:
        if moment == f"{event.get('id')}.{event.get('rung')}:{event.get('state')}":
            os.kill(os.getpid(), signal.SIGKILL)

    plan = fake_plan(model, *PLANNED)
    executor = FakeExecutor(folder.with_suffix(".pids"), seconds)
    try:
        report = run_plan(plan, folder, machine=MACHINE, escalate=True, executor=executor, on_event=listen)
    except AdvisorError as error:
        print(error.code, error.message, sep=": ", file=sys.stderr)
        sys.exit(error.exit_code)
    print(report["status"])


if __name__ == "__main__":
    main()
