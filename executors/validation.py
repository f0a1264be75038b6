"""Judge an artifact against its 16-bit reference: smoke test, distribution, timing (DESIGN section 5).

The model runs in a worker (executors.process); here its sums become figures with errors, and figures become verdicts.
A tier returns its part of report.json with `status` pass or fail and, when it fails, `code` and `reason`; what keeps a
tier from reaching a verdict (a worker that dies, hangs or outgrows its memory) raises AdvisorError.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from executors.interpreters import interpreter_for
from executors.process import Watch, Worker, WorkerResult
from knowledge.base import GIB, AdvisorError

Verdict = Literal["pass", "fail", "inconclusive"]

TEXT = Path(__file__).parent / "data" / "validation_text.txt"
FRAMEWORK = "llama.cpp"

RESAMPLES = 2000
MINIMUM_BLOCKS = 20  # below this no interval is claimed, and every sampled gate is inconclusive
MAXIMUM_BLOCKS = 500  # more are merged with their neighbours: the bootstrap stays under a second
LARGEST_EXPONENT = 300.0  # its square is still a double, however bad the garbage; the same in worker.scoring
MEMORY_MARGIN = 1.10  # of the budget, while the smoke test runs
VERDICTS = {  # what a worker finds wrong
    "cannot-load", "non-finite-logits", "tokenizer-mismatch", "damaged-file", "non-finite-vectors", "wrong-dimension",
    "equal-vectors",
}  # fmt: skip

# Greedy, without sampling: the answers are shown, not judged for sense (near ties flip them).
PROMPTS = (
    "The capital of France is",
    "def is_prime(n):",
    "Once upon a time, in a small village by the sea,",
)
CHAT = ({"role": "user", "content": "Name three colours of the rainbow."},)
ANSWER_TOKENS = 32
LONGEST_REPETITION = 20


def summarize(
    blocks: Sequence[Sequence[float]], *, kl_p99: float, kl_p999: float, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """The report's `distribution` from the sums of each block, `[tokens, kl, same_top1, nll_reference, nll_artifact]`.

    Nats throughout. `perplexity.ratio` is artifact / reference (1.05: five per cent worse), `retention.value` its
    inverse; the stderr of `perplexity` is the ratio's. Errors come from a bootstrap over blocks: whole blocks are drawn
    with replacement, both models' sums together, because tokens in a block are correlated and the design is paired.
    `low95` and `high95` are one-sided 95 % bounds, None with fewer than MINIMUM_BLOCKS blocks. Same input and seed,
    same output.
    """
    figures = _figures(column_sums(blocks))
    units = _merged(blocks)
    draw = random.Random(seed)
    drawn = [_figures(column_sums(draw.choices(units, k=len(units)))) for _ in range(resamples)]
    errors = {key: error_of([one[key] for one in drawn], len(blocks)) for key in figures}
    tokens = int(sum(block[0] for block in blocks))
    perplexity = {key: figures[key] for key in ("reference", "artifact", "ratio")}
    return {
        "tokens": tokens,
        "blocks": len(blocks),
        "perplexity": {**perplexity, **errors["ratio"]},
        "kl_divergence": {"mean": figures["kl"], "p99": kl_p99, "p999": kl_p999, **errors["kl"]},
        "same_top1": {"value": figures["same_top1"], **errors["same_top1"]},
        "retention": {"value": figures["retention"], **errors["retention"]},
        "method": f"paired bootstrap over {len(units)} blocks, {resamples} resamples",
    }


def judge(op: str, limit: float, low: float | None, high: float | None) -> Verdict:
    """Whether a figure between `low` and `high` (one-sided 95 % bounds; equal for an exact figure) keeps `op` `limit`.

    `>=` passes if low >= limit, fails if high < limit; `<=` the other way round; otherwise, and where a bound is None,
    inconclusive: few samples never pass. A bound that is not finite fails.
    """
    if low is None or high is None:
        return "inconclusive"
    if not (math.isfinite(low) and math.isfinite(high)):
        return "fail"
    if op == ">=":
        return "pass" if low >= limit else "fail" if high < limit else "inconclusive"
    if op == "<=":
        return "pass" if high <= limit else "fail" if low > limit else "inconclusive"
    raise ValueError(f"{op!r} is not an operator of a gate")


def paired_ratio(reference: Sequence[float], artifact: Sequence[float]) -> dict[str, float | None]:
    """Median of artifact / reference over the pairs, with one-sided 95 % bounds.

    The bounds are order statistics (the sign test turned round): exact for any distribution, None below 5 pairs, since
    the lowest of 4 lies above the median once in 16 times.
    """
    ratios = sorted(new / old for old, new in zip(reference, artifact, strict=True) if old > 0)
    n = len(ratios)
    rank, tail = 0, 0.5**n
    while tail <= 0.05:
        rank += 1
        tail += math.comb(n, rank) * 0.5**n
    bounds = (ratios[rank - 1], ratios[n - rank]) if rank else (None, None)
    return {"value": _quantile(ratios, 0.5) if ratios else None, "low95": bounds[0], "high95": bounds[1]}


def spread(samples: Sequence[float]) -> dict[str, float | int]:
    """`median`, `iqr`, `p95` and `n` of at least one sample (linear interpolation between order statistics)."""
    ordered = sorted(samples)
    iqr = _quantile(ordered, 0.75) - _quantile(ordered, 0.25)
    return {"median": _quantile(ordered, 0.5), "iqr": iqr, "p95": _quantile(ordered, 0.95), "n": len(ordered)}


def smoke(
    artifact: Path,
    *,
    framework: str = FRAMEWORK,
    context: int,
    memory_budget_bytes: int = 0,
    threads: int,
    watch: Watch,
    **options: Any,
) -> dict[str, Any]:
    """Tier 2: loads within the budget (+10 %), answers fixed prompts greedily with finite logits, does not repeat.

    Returns `{"status", "code", "reason", "answers": [{"prompt", "text", "tokens", "longest_repetition"}],
    "load_seconds", "peak_rss_bytes", "kv_bytes", "compute_bytes", "notes"}`.
    """
    request = {
        "op": "smoke", "model": str(artifact), "n_ctx": context, "threads": threads, "prompts": PROMPTS, "chat": CHAT,
        "max_tokens": ANSWER_TOKENS, **options,
    }  # fmt: skip
    try:
        done = ask(request, watch, memory_budget_bytes, framework=framework)
    except AdvisorError as error:
        return verdict(error)
    result = {**done.result, "peak_rss_bytes": done.peak_rss_bytes}
    for answer in result["answers"]:
        if answer["longest_repetition"] > LONGEST_REPETITION:
            return {**failed("repetition", f"It repeats one token without end after {answer['prompt']!r}."), **result}
    if not any(answer["text"].strip() for answer in result["answers"]):
        return {**failed("empty-answers", "It answers nothing to any prompt."), **result}
    return {"status": "pass", **result}


def reference(
    model: Path,
    store: Path,
    *,
    framework: str = FRAMEWORK,
    context: int,
    blocks: int,
    block_tokens: int,
    threads: int,
    watch: Watch,
    **options: Any,
) -> dict[str, Any]:
    """Score `model` on the shipped text and keep its log-probabilities in the folder `store` (see worker.scoring).

    Windows hold as many blocks as fit `context`, so a token sees from 0 to `context` tokens before it, 224 on average
    at 512. Returns `{"status", "tokens", "blocks", "perplexity", "bytes", "seconds", "peak_rss_bytes"}`.
    """
    request = {
        "op": "score", "mode": "reference", "model": str(model), "n_ctx": context, "threads": threads,
        "text": str(TEXT), "store": str(store), "blocks": blocks, "block_tokens": block_tokens, **options,
    }  # fmt: skip
    try:
        done = ask(request, watch, framework=framework)
    except AdvisorError as error:
        return verdict(error)
    index = done.result
    return {
        "status": "pass",
        "tokens": index["rows"],
        "blocks": index["rows"] // index["block_tokens"],
        "perplexity": index["perplexity"],
        "bytes": index["bytes"],
        "seconds": done.seconds,
        "peak_rss_bytes": done.peak_rss_bytes,
    }


def distribution(
    artifact: Path,
    store: Path,
    *,
    framework: str = FRAMEWORK,
    context: int,
    threads: int,
    watch: Watch,
    seed: int = 0,
    **options: Any,
) -> dict[str, Any]:
    """Tier 3: the artifact against a stored reference on the same token ids, in the same windows.

    `summarize` with `status`, `seconds` and `peak_rss_bytes`. Fails with `tokenizer-mismatch` or `non-finite-logits`;
    whether the figures are good enough is the gates' business (`judge`).
    """
    request = {
        "op": "score", "mode": "compare", "model": str(artifact), "n_ctx": context, "threads": threads,
        "text": str(TEXT), "store": str(store), **options,
    }  # fmt: skip
    try:
        done = ask(request, watch, framework=framework)
    except AdvisorError as error:
        return verdict(error)
    found = done.result
    figures = summarize(found["blocks"], kl_p99=found["kl_p99"], kl_p999=found["kl_p999"], seed=seed)
    identity = {key: found[key] for key in ("text_sha256", "tokens_sha256") if found.get(key)}
    told = {key: found[key] for key in ("devices",) if found.get(key)}
    return {
        "status": "pass",
        **figures,
        **identity,
        **told,
        "seconds": done.seconds,
        "peak_rss_bytes": done.peak_rss_bytes,
    }


def runtime(
    artifact: Path,
    store: Path,
    *,
    framework: str = FRAMEWORK,
    context: int,
    blocks: int,
    block_tokens: int,
    threads: int,
    watch: Watch,
    **options: Any,
) -> dict[str, Any]:
    """What the runtime makes of an artifact, against the artifact's own weights computed in 32 bits: kernels, and not
    what quantization lost.

    For a framework whose worker knows `exact` (true: the weights themselves; false: as users run them). `store` is a
    folder for the log-probabilities of the former. Returns what `distribution` does, `reference` being the weights.
    """
    common: dict[str, Any] = {
        "framework": framework, "context": context, "threads": threads, "watch": watch, **options,
    }  # fmt: skip
    own = reference(artifact, store, blocks=blocks, block_tokens=block_tokens, exact=True, **common)
    if own["status"] != "pass":
        return own
    found = distribution(artifact, store, exact=False, **common)
    peak = max(own["peak_rss_bytes"], found.get("peak_rss_bytes", 0))
    return {**found, "seconds": own["seconds"] + found.get("seconds", 0.0), "peak_rss_bytes": peak}


def benchmark(
    model: Path,
    worker: Worker,
    *,
    context: int,
    prompt_tokens: int,
    decode_tokens: int,
    threads: int,
    watch: Watch,
    **options: Any,
) -> dict[str, float]:
    """One sample, the model loaded anew and warmed up: `load_seconds`, `prefill_tps`, `ttft_ms`, `decode_tps`,
    `peak_rss_bytes`."""
    request = {
        "op": "bench", "model": str(model), "n_ctx": context, "threads": threads, "text": str(TEXT),
        "prompt_tokens": prompt_tokens, "decode_tokens": decode_tokens, **options,
    }  # fmt: skip
    done = ask_again(request, watch, worker)
    timed = {key: done.result[key] for key in ("load_seconds", "prefill_tps", "ttft_ms", "decode_tps")}
    return {**timed, "peak_rss_bytes": done.peak_rss_bytes}


def open_worker(watch: Watch, *, framework: str = FRAMEWORK, worker: str = "") -> Worker:
    """The framework's worker, or `worker` in its interpreter; see Worker."""
    return Worker(interpreter_for(framework), worker or framework, watch.log_path)


def ask(
    request: dict[str, Any],
    watch: Watch,
    memory_budget_bytes: int = 0,
    *,
    framework: str = FRAMEWORK,
    worker: str = "",
) -> WorkerResult:
    """The answer of a fresh worker (see open_worker), within the watch's limits and, where there is one, the memory
    budget."""
    with open_worker(watch, framework=framework, worker=worker) as fresh:
        return fresh.ask(request, _bounded(watch, memory_budget_bytes))


def ask_again(request: dict[str, Any], watch: Watch, worker: Worker) -> WorkerResult:
    """The answer of a worker that stays for other requests."""
    return worker.ask(request, _bounded(watch), stay=True)


def _bounded(watch: Watch, memory_budget_bytes: int = 0) -> Watch:
    limit = watch.rss_limit_bytes
    if memory_budget_bytes:
        budget = round(MEMORY_MARGIN * memory_budget_bytes)
        limit = min(limit, budget) if limit is not None else budget
    # Addresses are more than memory (mapped files, stacks, libraries): a backstop for growth between two looks.
    addresses = None if limit is None else 2 * limit + 4 * GIB
    return replace(watch, rss_limit_bytes=limit, address_limit_bytes=addresses)


def verdict(error: AdvisorError) -> dict[str, Any]:
    """A failed tier if the worker found the model itself wrong; otherwise the error goes on."""
    if error.code not in VERDICTS:
        raise error
    return failed(error.code, error.message)


def failed(code: str, reason: str) -> dict[str, Any]:
    return {"status": "fail", "code": code, "reason": reason}


def column_sums(blocks: Sequence[Sequence[float]]) -> list[float]:
    return [math.fsum(column) for column in zip(*blocks, strict=True)]


def _merged(blocks: Sequence[Sequence[float]]) -> list[list[float]]:
    """The blocks, neighbours added together where there are more than MAXIMUM_BLOCKS."""
    size = -(-len(blocks) // MAXIMUM_BLOCKS)
    return [column_sums(blocks[start : start + size]) for start in range(0, len(blocks), size)]


def _figures(total: Sequence[float]) -> dict[str, float]:
    tokens, kl, same, nll_reference, nll_artifact = total
    difference = (nll_artifact - nll_reference) / tokens
    return {
        "reference": _exp(nll_reference / tokens),
        "artifact": _exp(nll_artifact / tokens),
        "ratio": _exp(difference),
        "retention": _exp(-difference),
        "kl": kl / tokens,
        "same_top1": same / tokens,
    }


def _exp(x: float) -> float:
    return math.exp(min(x, LARGEST_EXPONENT))


def error_of(drawn: Sequence[float], blocks: int) -> dict[str, float | None]:
    """`stderr`, `low95` and `high95` of a figure by its bootstrap resamples; None below MINIMUM_BLOCKS blocks."""
    if blocks < MINIMUM_BLOCKS:
        return {"stderr": None, "low95": None, "high95": None}
    ordered = sorted(drawn)
    mean = math.fsum(drawn) / len(drawn)
    stderr = math.sqrt(math.fsum((one - mean) ** 2 for one in drawn) / (len(drawn) - 1))
    return {"stderr": stderr, "low95": _quantile(ordered, 0.05), "high95": _quantile(ordered, 0.95)}


def _quantile(ordered: Sequence[float], share: float) -> float:
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)
