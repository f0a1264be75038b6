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
from executors.process import Worker
from executors.tasks import tasks
from knowledge.base import EXIT_STEP_FAILED, AdvisorError

PEAK = "peak_rss_bytes"
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

    def sample(side: str, worker: Worker) -> dict[str, float]:
        return validation.benchmark(
            task.paths[side],
            worker,
            context=settings.context,
            prompt_tokens=settings.prompt_tokens,
            decode_tokens=settings.decode_tokens,
            threads=task.threads,
            watch=task.watch,
            **options,
        )

    return in_pairs(task, settings.pairs, lambda: validation.open_worker(task.watch, framework=framework), sample)


def in_pairs(
    task: Task, pairs: int, worker: Callable[[], Worker], sample: Callable[[str, Worker], dict[str, float]]
) -> dict[str, Any]:
    """Reference and artifact in turn, so that a busy machine disturbs both; a first pair warms the page cache.

    Each side has a process of its own, made by `worker`; `sample` loads the side anew in it and times it. The memory of
    a side, `peak_rss_bytes`, is that of its first load: allocators keep some of what is freed.
    """
    samples: dict[str, dict[str, list[float]]] = {"reference": {}, "artifact": {}}
    with worker() as reference, worker() as artifact:
        for pair in range(pairs + 1):
            for side, process in (("reference", reference), ("artifact", artifact)):
                for metric, value in sample(side, process).items():
                    if (metric == PEAK) == (pair == 0):
                        samples[side].setdefault(metric, []).append(value)
            task.watch.on_event({"type": "progress", "done": pair, "total": pairs, "text": "timing in pairs"})
    return {**samples, PEAK: max(samples["reference"][PEAK] + samples["artifact"][PEAK])}
