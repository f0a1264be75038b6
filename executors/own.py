"""A framework of the user's own: its steps as requests to the one worker file that it brings.

The folder ADVISOR_HOME/frameworks/NAME/ holds `worker.py` and the rows that it adds to the knowledge
(docs/adding-a-framework.md). The worker answers `convert`, `quantize`, `inspect`, `smoke`, `score`, `choices` and
`bench`; plans, folders, judging and reports are the same as for every framework.
"""

from __future__ import annotations

from typing import Any

from advisor.plan import BenchmarkSettings, ConvertSettings, QuantizeSettings, ValidateSettings
from executors import inspected, tiers
from executors.executor import Task
from executors.interpreters import interpreter_for
from executors.process import run_worker
from knowledge.base import AdvisorError
from knowledge.matrix import framework_named


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
        request = {
            **settings.model_dump(mode="json", exclude={"kind", "input", "output", "imatrix"}),
            "op": settings.kind,
            "input": str(task.paths["input"]),
            "output": str(task.paths["output"]),
            "threads": task.threads,
        }
        done = run_worker(interpreter_for(self.name), self.name, request, task.watch)
        return {**done.result, "peak_rss_bytes": done.peak_rss_bytes}

    def _integrity(self, task: Task, settings: ValidateSettings) -> dict[str, Any]:
        return inspected.integrity(
            task.paths["artifact"],
            self.name,
            reference=task.paths.get("reference"),
            expected_bytes=settings.expected_bytes,
            watch=task.watch,
        )
