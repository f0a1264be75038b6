"""A framework of the user's own: its steps as requests to the one worker file that it brings.

The folder ADVISOR_HOME/frameworks/NAME/ holds `worker.py` and the rows that it adds to the knowledge
(docs/adding-a-framework.md). The worker answers `convert`, `quantize`, `inspect`, `smoke`, `score`, `choices` and
`bench`; plans, folders, judging and reports are the same as for every framework.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from advisor.plan import BenchmarkSettings, ConvertSettings, QuantizeSettings, ValidateSettings
from executors import tiers
from executors.executor import Task, Watch
from executors.process import WorkerResult, interpreter_for, run_worker
from executors.validation import VERDICTS, ask, failed
from knowledge.base import AdvisorError
from knowledge.matrix import framework_named

ZERO_SHARE = 0.5  # of a tensor's scales: more than this is damage, unless the reference has them too


class Own:
    """The executor of the framework `name` (see executors.executor.Executor)."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def version(self) -> str:
        """The name and version that frameworks.toml gives it."""
        interpreter_for(self.name)
        row = framework_named(self.name)
        return f"{row.python} {row.version}"

    def run(self, task: Task) -> dict[str, Any]:
        settings = task.settings
        if isinstance(settings, ValidateSettings):
            return tiers.validate(task, settings, self.name, self._integrity)
        if isinstance(settings, BenchmarkSettings):
            return tiers.benchmark(task, settings, self.name)
        if isinstance(settings, ConvertSettings | QuantizeSettings):
            return self._make(task, settings)
        raise AdvisorError("bad-plan", f"{self.name} has no {settings.kind} step.", "make it anew: advisor plan")

    def _make(self, task: Task, settings: ConvertSettings | QuantizeSettings) -> dict[str, Any]:
        watch = task.watch
        request = {
            **settings.model_dump(mode="json", exclude={"kind", "input", "output", "imatrix"}),
            "op": settings.kind,
            "input": str(task.paths["input"]),
            "output": str(task.paths["output"]),
            "threads": task.threads,
        }
        done = run_worker(
            interpreter_for(self.name),
            self.name,
            request,
            log_path=watch.log_path,
            on_event=watch.on_event,
            time_limit_seconds=watch.time_limit_seconds,
            silence_limit_seconds=watch.silence_limit_seconds,
            rss_limit_bytes=watch.rss_limit_bytes,
            cancel=watch.cancel,
        )
        return {**done.result, "peak_rss_bytes": done.peak_rss_bytes}

    def _integrity(self, task: Task, settings: ValidateSettings) -> dict[str, Any]:
        """Tier 1: it parses, its tensors, shapes and tokenizer are the reference's, size as predicted, sound values."""
        artifact, reference = task.paths["artifact"], task.paths.get("reference")
        try:
            found = self._inspect(artifact, task.watch)
        except AdvisorError as error:
            if error.code not in VERDICTS:
                raise
            return {**failed("damaged-file", error.message), "checks": [_check("parse", error.message)]}
        seen, base = found.result, self._inspect(reference, task.watch).result if reference else None
        size = _bytes(artifact)
        checks = [_check("parse")]
        if base is not None:
            checks.append(_check("tensors", _other_tensors(seen, base)))
            same = seen["tokenizer_sha256"] == base["tokenizer_sha256"]
            checks.append(_check("tokenizer", "" if same else "The tokenizer is not the reference's."))
        if settings.expected_bytes:
            checks.append(_check("size", self._other_size(size, settings.expected_bytes)))
        checks.append(_check("values", _bad_values(seen, base)))
        wrong = next((check for check in checks if check["status"] == "fail"), None)
        return {
            **(failed(f"wrong-{wrong['id']}", wrong["text"]) if wrong else {"status": "pass"}),
            "checks": checks,
            "bytes": size,
            "tensor_bytes": sum(tensor["bytes"] for tensor in seen["tensors"]),
            "parameters": sum(tensor["elements"] for tensor in seen["tensors"]),
            "peak_rss_bytes": found.peak_rss_bytes,
        }

    def _inspect(self, model: Path, watch: Watch) -> WorkerResult:
        return ask({"op": "inspect", "model": str(model)}, watch, framework=self.name)

    def _other_size(self, size: int, expected: int) -> str:
        near = abs(size - expected) <= framework_named(self.name).size_tolerance * expected
        return "" if near else f"The model has {size} bytes and {expected} were predicted."


def _check(name: str, wrong: str = "") -> dict[str, str]:
    return {"id": name, "status": "fail" if wrong else "pass", "text": wrong}


def _bytes(model: Path) -> int:
    files = [model] if model.is_file() else [path for path in model.rglob("*") if path.is_file()]
    return sum(file.stat().st_size for file in files)


def _other_tensors(seen: Mapping[str, Any], base: Mapping[str, Any]) -> str:
    shapes, expected = ({t["name"]: t["shape"] for t in one["tensors"]} for one in (seen, base))
    if shapes == expected:
        return ""
    name = min(n for n in shapes.keys() | expected.keys() if shapes.get(n) != expected.get(n))
    return f"Tensor {name} is not as in the reference ({len(shapes)} tensors, the reference has {len(expected)})."


def _bad_values(seen: Mapping[str, Any], base: Mapping[str, Any] | None) -> str:
    zero = {t["name"] for t in base["tensors"] if t["zero_share"] > ZERO_SHARE} if base else set()
    for tensor in seen["tensors"]:
        if tensor["not_finite"]:
            return f"Tensor {tensor['name']} holds {tensor['not_finite']} values that are not numbers."
        if tensor["zero_share"] > ZERO_SHARE and tensor["name"] not in zero:
            return f"{tensor['zero_share']:.0%} of the scales of tensor {tensor['name']} are zero."
    return ""
