"""Validation and timing as an executor's steps, the same for every framework: which tier asks what of its worker.

A framework brings its worker's operations `smoke`, `score`, `choices` and `bench` (executors.worker) and its own
integrity check; everything else about judging an artifact is here and in executors.validation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from advisor.plan import BenchmarkSettings, ValidateSettings
from executors import validation
from executors.executor import Task
from executors.folder import discard, staging
from executors.tasks import tasks
from knowledge.base import EXIT_STEP_FAILED, AdvisorError

Integrity = Callable[[Task, ValidateSettings], dict[str, Any]]


def validate(
    task: Task, settings: ValidateSettings, framework: str, integrity: Integrity, **options: Any
) -> dict[str, Any]:
    """The tier that `settings` names, as executors.executor.Executor.run has it. `options` go to the worker.

    Raises AdvisorError `bad-reference` where the reference itself cannot be scored.
    """
    paths = task.paths
    common = {"framework": framework, "threads": task.threads, "watch": task.watch, **options}
    if settings.tier == "integrity":
        return integrity(task, settings)
    if settings.tier == "smoke":
        budget = settings.memory_budget_bytes
        return validation.smoke(paths["artifact"], context=settings.context, memory_budget_bytes=budget, **common)
    if settings.tier == "reference":
        scored = validation.reference(
            paths["reference"],
            paths["output"],
            context=settings.context,
            blocks=settings.blocks,
            block_tokens=settings.block_tokens,
            **common,
        )
        if scored["status"] != "pass":
            raise AdvisorError(
                "bad-reference",
                f"The reference cannot be scored: {scored['reason']}",
                "start from another file of this model",
                EXIT_STEP_FAILED,
            )
        return scored
    if settings.tier == "runtime":
        store = staging(task.watch.log_path.with_name("own-scores"))
        try:
            return validation.runtime(
                paths["artifact"],
                store,
                context=settings.context,
                blocks=settings.blocks,
                block_tokens=settings.block_tokens,
                **common,
            )
        finally:
            discard(store)
    if settings.tier == "tasks":
        return tasks(paths["artifact"], paths["reference"], store=paths.get("store"), **common)
    return validation.distribution(paths["artifact"], paths["store"], context=settings.context, **common)


def benchmark(task: Task, settings: BenchmarkSettings, framework: str, **options: Any) -> dict[str, Any]:
    """A language model's reference and artifact, timed in pairs (see in_pairs)."""

    def sample(side: str) -> dict[str, float]:
        return validation.benchmark(
            task.paths[side],
            framework=framework,
            context=settings.context,
            prompt_tokens=settings.prompt_tokens,
            decode_tokens=settings.decode_tokens,
            threads=task.threads,
            watch=task.watch,
            **options,
        )

    return in_pairs(task, settings.pairs, sample)


def in_pairs(task: Task, pairs: int, sample: Callable[[str], dict[str, float]]) -> dict[str, Any]:
    """Reference and artifact in turn, so that a busy machine disturbs both; a first pair warms the page cache.

    `sample` times one side in a fresh process, `peak_rss_bytes` among its metrics.
    """
    samples: dict[str, dict[str, list[float]]] = {"reference": {}, "artifact": {}}
    for pair in range(pairs + 1):
        for side, series in samples.items():
            found = sample(side)
            if pair:
                for metric, value in found.items():
                    series.setdefault(metric, []).append(value)
        task.watch.on_event({"type": "progress", "done": pair, "total": pairs, "text": "timing in pairs"})
    peaks = samples["reference"]["peak_rss_bytes"] + samples["artifact"]["peak_rss_bytes"]
    return {**samples, "peak_rss_bytes": max(peaks)}
