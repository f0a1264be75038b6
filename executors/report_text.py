"""A report in words: quantities with their units, and the paragraph that tells what happened. Plain text, unescaped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from knowledge.base import format_bytes

LABELS = {
    "artifact_bytes": "File size",
    "peak_rss_bytes": "Peak resident memory",
    "decode_tps": "Decode",
    "prefill_tps": "Prefill",
    "ttft_ms": "Time to first token",
    "sentences_per_second": "Embedding",
    "sentence_ms": "One text",
    "load_seconds": "Load",
    "quality_retention": "Quality retention",
    "memory_ratio": "Bytes of 16-bit",
    "decode_ratio": "Decode against the reference",
    "kl_divergence": "Mean KL divergence",
    "same_top1": "Same top-1 token",
    "cosine_similarity": "Mean cosine",
    "top_overlap": "Same first ten",
    "embedding_ratio": "Embedding against the reference",
    "task_retention": "Right answers",
    "runtime_kl_divergence": "Runtime against these weights",
    "integrity": "Integrity",
    "smoke": "Smoke test",
}
TIMED = (
    "decode_tps", "prefill_tps", "ttft_ms", "sentences_per_second", "sentence_ms", "load_seconds", "peak_rss_bytes",
)  # fmt: skip
OPERATORS = {">=": "≥", "<=": "≤", "==": "="}
_SHARES = ("quality_retention", "memory_ratio", "same_top1", "top_overlap", "task_retention")
_UNITS = {
    "decode_tps": "tok/s", "prefill_tps": "tok/s", "ttft_ms": "ms", "sentences_per_second": "texts/s",
    "sentence_ms": "ms", "load_seconds": "s", "kl_divergence": "nats",
}  # fmt: skip
_VERDICTS = {
    "passed": "passed every required gate",
    "failed": "failed a required gate",
    "inconclusive": "could not be judged by every required gate: too little was measured",
    "error": "stopped at a step that failed",
    "interrupted": "was interrupted; its finished steps are kept",
}


def quantity(metric: str, value: float | None) -> str:
    """`value` with the unit of `metric`: `49.8 %`, `51.3 tok/s`, `128.6 MiB`; a dash where there is none."""
    if value is None:
        return "–"
    if metric.endswith("_bytes"):
        return format_bytes(value)
    if metric in _SHARES:
        return f"{100 * value:.1f} %"
    if metric in ("integrity", "smoke"):
        return "passed" if value else "failed"
    if metric == "cosine_similarity":
        return f"{value:.4f}"
    if metric in ("decode_ratio", "embedding_ratio"):
        return f"{value:.2f}x"
    if metric.endswith("kl_divergence"):
        return f"{value:.4f} nats"
    figure = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{figure} {_UNITS.get(metric, '')}".strip()


def interval(metric: str, low: float | None, high: float | None) -> str:
    """`low` to `high`, or a dash; one figure where both read the same."""
    if low is None or high is None:
        return "–"
    first, last = quantity(metric, low), quantity(metric, high)
    return first if first == last else f"{first} to {last}"


def summary(document: Mapping[str, Any]) -> list[str]:
    """The report in up to three paragraphs: what was made, whether it passed and at which figures; why this precision;
    what it was compared with."""
    verdict = [
        f"{document['model']} as {document['precision']} with {document['framework']} ({document['backend']}) "
        f"{_VERDICTS[document['status']]}."
    ]
    if error := document.get("error"):
        verdict.append(error["message"])
    kept = next((rung for rung in document["rungs"] if rung["chosen"]), None)
    if kept is not None:
        verdict += _figures(document, kept)
        verdict += _runtime(document)
    why = [*_climb(document["rungs"]), *_choice(document)]
    note = document["reference"]["note"]
    reference = [f"The reference: {note.rstrip('.')}."] if note else []
    return [" ".join(sentences) for sentences in (verdict, why, reference) if sentences]


def _figures(document: Mapping[str, Any], kept: Mapping[str, Any]) -> list[str]:
    facts = []
    if kept["quality_retention"] is not None:
        distribution = document["validation"]["distribution"]
        perplexity, tokens = distribution.get("perplexity", {}), distribution.get("tokens", 0)
        detail = ""
        if "artifact" in perplexity and "reference" in perplexity:
            detail = (
                f" (perplexity {perplexity['artifact']:.2f} against {perplexity['reference']:.2f} on {tokens:,} tokens)"
            )
        elif "cosine_similarity" in distribution:
            mean, least = distribution["cosine_similarity"]["mean"], distribution["cosine_similarity"]["min"]
            detail = f" (mean cosine {mean:.4f}, at least {least:.4f}, on {distribution['texts']} texts)"
        facts.append(f"keeps {quantity('quality_retention', kept['quality_retention'])} of the quality{detail}")
    if kept["memory_ratio"] is not None:
        facts.append(f"holds its weights in {quantity('memory_ratio', kept['memory_ratio'])} of the 16-bit bytes")
    if kept["decode_ratio"] is not None:
        facts.append(f"decodes {kept['decode_ratio']:.2f} times as fast")
    if (ratio := (document["performance"].get("embedding_ratio") or {}).get("value")) is not None:
        facts.append(f"embeds {ratio:.2f} times as fast")
    if not facts:
        return []
    return [f"Against the {document['reference']['precision']} reference it {_listed(facts)}."]


def _runtime(document: Mapping[str, Any]) -> list[str]:
    """What quantization lost and what the runtime does to it here, kept apart, where both were measured."""
    found = document["validation"].get("runtime") or {}
    gate = next((gate for gate in document["gates"] if gate["metric"] == "runtime_kl_divergence"), None)
    if "kl_divergence" not in found or gate is None:
        return []
    weights = (document["validation"]["distribution"].get("kl_divergence") or {}).get("mean")
    figure = quantity("kl_divergence", found["kl_divergence"]["mean"])
    words = (
        f"The weights were judged unpacked, in 32 bits: {quantity('kl_divergence', weights)} from the reference. "
        f"{document['framework']} on this {'/'.join(found.get('devices', ())) or 'machine'} computes {figure} "
        f"away from these weights"
    )
    if gate["result"] == "fail":
        return [f"{words}: a defect of the runtime here, which no quantization causes and no other device need share."]
    return [f"{words}: what it computes is what the weights say." if gate["result"] == "pass" else f"{words}."]


def _climb(rungs: list[dict[str, Any]]) -> list[str]:
    """What the rungs that were not kept gave."""
    sentences = []
    for rung in rungs:
        if not rung["chosen"]:
            quality, size = (quantity(metric, rung[metric]) for metric in ("quality_retention", "memory_ratio"))
            missed = f" (missed: {', '.join(rung['missed'])})" if rung["missed"] else ""
            text = f"{quality} of the quality in {size} of the bytes{missed}"
            sentences.append(f"{rung['precision']} was tried and not kept: {text}.")
    return sentences


def _choice(document: Mapping[str, Any]) -> list[str]:
    """Why the plan chose as it did, and what it predicted for precisions that were not tried."""
    why = document.get("why") or {}
    sentences = [
        f"{reason['text'].rstrip('.')}." for reason in why.get("reasons", []) if reason["rule"].startswith("gate.")
    ]
    tried = {rung["precision"] for rung in document["rungs"]}
    others = [
        f"{other['precision']} {quantity('quality_retention', other['quality_retention'])} of the quality in "
        f"{quantity('memory_ratio', other['memory_ratio'])} of the bytes"
        + (f" (would miss {' and '.join(other['would_miss'])})" if other["would_miss"] else "")
        for other in why.get("alternatives", [])
        if other["quality_retention"] is not None and other["precision"] not in tried
    ]
    if others:
        sentences.append(f"Of the other precisions the plan predicted: {_listed(others)}.")
    return sentences


def _listed(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
