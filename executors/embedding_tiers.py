"""Judge the artifact of an encoder against its full-precision reference: smoke test, agreement, timing.

The texts are our own (data/sentences.jsonl): groups of a query, passages that answer it and sentences that say the same
thing twice. A worker embeds them (executors/worker/encoding.py); here its sums become figures with errors.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from advisor.plan import BenchmarkSettings, ValidateSettings
from executors import validation
from executors.executor import Task
from executors.process import Worker, WorkerResult
from executors.tiers import in_pairs
from executors.validation import RESAMPLES, column_sums, error_of, failed
from knowledge.base import EXIT_STEP_FAILED, AdvisorError
from knowledge.pooling import Pooling, read_pooling

SENTENCES = Path(__file__).parent / "data" / "sentences.jsonl"
TIMED = ("load_seconds", "sentence_ms", "sentences_per_second")

Integrity = Callable[[Task, ValidateSettings], dict[str, Any]]


@cache
def groups() -> tuple[dict[str, Any], ...]:
    """The shipped texts: `topic`, `query`, `passages`, `sentences` each."""
    lines = SENTENCES.read_text(encoding="utf-8").splitlines()
    return tuple(json.loads(line) for line in lines if line.strip())


def worker_of(framework: str) -> str:
    """The worker that serves the encoders of a framework."""
    return f"{framework}-embedding"


def pooled(pooling: Pooling) -> dict[str, Any]:
    """What a worker has to know of the pooling."""
    return {"pooling": pooling.mode, "max_tokens": pooling.max_tokens, "dimension": pooling.dimension}


def summarize(found: dict[str, Any], *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Any]:
    """The report's `distribution` of an encoder from what worker.agreement returns for each group.

    `cosine_similarity` (its mean over texts, and the lowest), `centred_cosine`, `rank_correlation`, `top_overlap`,
    `ndcg` of both sides and their ratio; each with the error of a bootstrap over groups, queries and texts together.
    `retention` is the least of three, so that none can make up for another: the centred cosine (vectors that point
    elsewhere), the rank correlation (another order) and the ratio of nDCG (the right answers further down, which no
    reference is needed to see). 1 is the reference itself; random weights give a centred cosine of about 0.
    """
    rows: Sequence[Sequence[float]] = found["groups"]
    figures = _figures(column_sums(rows), len(rows))
    draw = random.Random(seed)
    drawn = [_figures(column_sums(draw.choices(rows, k=len(rows))), len(rows)) for _ in range(resamples)]
    errors = {key: error_of([one[key] for one in drawn], len(rows)) for key in figures}
    value = {key: {"value": figures[key], **errors[key]} for key in figures}
    return {
        "texts": found["texts"],
        "tokens": found["tokens"],
        "queries": len(rows),
        "documents": found["documents"],
        "dimension": found["dimension"],
        "cosine_similarity": {"mean": figures["cosine"], "min": found["cosine_min"], **errors["cosine"]},
        "centred_cosine": value["centred"],
        "rank_correlation": value["ranks"],
        "top_overlap": {**value["top"], "top": found["top"]},
        "ndcg": {
            "reference": figures["ndcg_reference"],
            "artifact": figures["ndcg_artifact"],
            "ratio": figures["ndcg"],
            **errors["ndcg"],
        },
        "retention": value["retention"],
        "method": f"paired bootstrap over {len(rows)} groups of texts, {resamples} resamples",
    }


def _figures(total: Sequence[float], groups_drawn: int) -> dict[str, float]:
    texts, cosine, centred, ranks, top, reference, artifact = total
    ratio = artifact / reference if reference else 0.0
    found = {"cosine": cosine / texts, "centred": centred / texts, "ranks": ranks / groups_drawn}
    return {
        **found,
        "top": top / groups_drawn,
        "ndcg_reference": reference / groups_drawn,
        "ndcg_artifact": artifact / groups_drawn,
        "ndcg": ratio,
        "retention": min(found["centred"], found["ranks"], ratio),
    }


def validate(task: Task, settings: ValidateSettings, framework: str, integrity: Integrity) -> dict[str, Any]:
    """The tier that `settings` names, as executors.executor.Executor.run has it.

    Raises AdvisorError `bad-reference` where the reference itself gives no vectors.
    """
    if settings.tier == "integrity":
        return integrity(task, settings)
    if settings.tier == "reference":
        try:
            return _reference(task, framework)
        except AdvisorError as error:
            if error.code not in validation.VERDICTS:
                raise
            message = f"The reference gives no vectors: {error.message}"
            hint = "start from another copy of this model"
            raise AdvisorError("bad-reference", message, hint, EXIT_STEP_FAILED) from error
    tiers = {"smoke": _smoke, "distribution": _distribution}
    if settings.tier not in tiers:
        message = f"An embedding model has no {settings.tier} tier."
        raise AdvisorError("bad-plan", message, "make it anew: advisor plan")
    try:
        return {"status": "pass", **tiers[settings.tier](task, settings, framework)}
    except AdvisorError as error:
        if error.code not in {*validation.VERDICTS, "bad-checkpoint"}:
            raise
        return failed(error.code, error.message)


def _reference(task: Task, framework: str) -> dict[str, Any]:
    done = _embed(task, framework, "reference", task.paths["reference"], task.paths["output"])
    index = {key: done.result[key] for key in ("texts", "tokens", "dimension", "bytes")}
    return {"status": "pass", **index, "seconds": done.seconds, "peak_rss_bytes": done.peak_rss_bytes}


def _smoke(task: Task, settings: ValidateSettings, framework: str) -> dict[str, Any]:
    """Loads within the budget (+10 %) and gives texts that have nothing in common finite, different vectors."""
    texts = [group["query"] for group in groups()[:8]]
    request = {"op": "smoke", "texts": texts, **_common(task, task.paths["artifact"])}
    budget = settings.memory_budget_bytes
    done = validation.ask(request, task.watch, budget, framework=framework, worker=worker_of(framework))
    return {**done.result, "peak_rss_bytes": done.peak_rss_bytes}


def _distribution(task: Task, _: ValidateSettings, framework: str) -> dict[str, Any]:
    done = _embed(task, framework, "compare", task.paths["artifact"], task.paths["store"])
    told = {key: done.result[key] for key in ("devices", "text_sha256", "tokens_sha256")}
    return {**summarize(done.result), **told, "seconds": done.seconds, "peak_rss_bytes": done.peak_rss_bytes}


def _embed(task: Task, framework: str, mode: str, model: Path, store: Path) -> WorkerResult:
    request = {
        "op": "embed", "mode": mode, "store": str(store), "groups": list(groups()), "exact": True,
        **_common(task, model),
    }  # fmt: skip
    return validation.ask(request, task.watch, framework=framework, worker=worker_of(framework))


def _common(task: Task, model: Path) -> dict[str, Any]:
    return {"model": str(model), "threads": task.threads, **pooled(read_pooling(model))}


def benchmark(task: Task, settings: BenchmarkSettings, framework: str) -> dict[str, Any]:
    """An encoder's reference and artifact, timed in pairs, one text after the other (see executors.tiers.in_pairs)."""

    def open_worker() -> Worker:
        return validation.open_worker(task.watch, framework=framework, worker=worker_of(framework))

    def sample(side: str, worker: Worker) -> dict[str, float]:
        request = {"op": "bench", "groups": list(groups()), **_common(task, task.paths[side])}
        done = validation.ask_again(request, task.watch, worker)
        return {metric: done.result[metric] for metric in TIMED} | {"peak_rss_bytes": done.peak_rss_bytes}

    return in_pairs(task, settings.pairs, open_worker, sample)
