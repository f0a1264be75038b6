"""Judge an artifact against its 16-bit reference: integrity, smoke, distribution (DESIGN section 5).

The model runs in a worker (executors.process); here its sums become figures with errors, and figures become verdicts.
No numpy. A tier returns its part of report.json with `status` pass or fail and, when it fails, `code` and `reason`;
what keeps a tier from reaching a verdict (a worker that dies, hangs or outgrows its memory) raises AdvisorError.
"""

from __future__ import annotations

import math
import random
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

Verdict = Literal["pass", "fail", "inconclusive"]

LIMITS = Path(__file__).parent / "data" / "validation_limits.toml"
TEXT = Path(__file__).parent / "data" / "validation_text.txt"

RESAMPLES = 2000
MINIMUM_BLOCKS = 20  # below this no interval is claimed, and every sampled gate is inconclusive


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
    raise NotImplementedError


def judge(op: str, limit: float, low: float | None, high: float | None) -> Verdict:
    """Whether a figure between `low` and `high` (one-sided 95 % bounds; equal for an exact figure) keeps `op` `limit`.

    `>=` passes if low >= limit, fails if high < limit; `<=` the other way round; otherwise, and where a bound is None,
    inconclusive: few samples never pass. A bound that is not finite fails.
    """
    raise NotImplementedError


def limits_for(precision_class: str) -> dict[str, float | str]:
    """The default limits of a nominal class of bits, `16-bit`, `8-bit`, `5-6-bit`, `4-bit`, `3-bit`, `2-bit`:
    `kl_divergence`, `same_top1`, `perplexity_increase`, `retention`, `source`."""
    raise NotImplementedError


def paired_ratio(reference: Sequence[float], artifact: Sequence[float], *, seed: int = 0) -> dict[str, float | None]:
    """Median of artifact / reference over the pairs, with one-sided 95 % bootstrap bounds (None below 5 pairs)."""
    raise NotImplementedError


def spread(samples: Sequence[float]) -> dict[str, float | int]:
    """`median`, `iqr`, `p95` and `n` of samples (linear interpolation between order statistics)."""
    raise NotImplementedError


def integrity(
    artifact: Path,
    *,
    reference: Path | None = None,
    expected_types: Mapping[str, str] | None = None,
    expected_bytes: int = 0,
    log_path: Path,
    **watch: Any,
) -> dict[str, Any]:
    """Tier 1 on a GGUF: nothing is run. `expected_types` maps tensor names to planned ggml types.

    Returns `{"status", "code", "reason", "checks": [{"id", "status", "text"}], "bytes", "sha256", "tensors", "types"}`:
    it parses, its tensors and shapes are the reference's, types as planned, size within 0.5 % of `expected_bytes`, no
    scale that is NaN or infinite and no weight whose scales are zero.
    """
    raise NotImplementedError


def smoke(
    artifact: Path, *, context: int, memory_budget_bytes: int = 0, threads: int, log_path: Path, **watch: Any
) -> dict[str, Any]:
    """Tier 2: loads within the budget (+10 %), answers fixed prompts greedily with finite logits, does not repeat.

    Returns `{"status", "code", "reason", "answers": [{"prompt", "text", "tokens"}], "load_seconds", "peak_rss_bytes",
    "kv_bytes", "compute_bytes", "notes"}`.
    """
    raise NotImplementedError


def reference(
    model: Path,
    store: Path,
    *,
    context: int,
    blocks: int,
    block_tokens: int,
    threads: int,
    log_path: Path,
    **watch: Any,
) -> dict[str, Any]:
    """Score `model` on the shipped text and keep its log-probabilities in the folder `store` (replaced).

    Returns `{"tokens", "blocks", "perplexity", "bytes", "seconds", "peak_rss_bytes", "sha256"}`.
    """
    raise NotImplementedError


def distribution(
    artifact: Path, store: Path, *, threads: int, log_path: Path, seed: int = 0, **watch: Any
) -> dict[str, Any]:
    """Tier 3: the artifact against a stored reference on the same token ids. `summarize`, plus `status`, `code`,
    `reason`, `seconds`, `peak_rss_bytes`. Fails with `tokenizer-mismatch` or `non-finite-logits`; whether the figures
    are good enough is the gates' business (`judge`)."""
    raise NotImplementedError


def benchmark(
    model: Path, *, context: int, prompt_tokens: int, decode_tokens: int, threads: int, log_path: Path, **watch: Any
) -> dict[str, float]:
    """One sample in a fresh process: `load_seconds`, `prefill_tps`, `ttft_ms`, `decode_tps`, `peak_rss_bytes`."""
    raise NotImplementedError
