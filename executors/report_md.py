"""report.md: the report as a person would put it into a pull request. Every string of a plan or model is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from executors import report_sensitivity
from executors.report_text import LABELS, OPERATORS, TIMED, interval, quantity, summary
from knowledge.base import format_bytes, printable

_SPECIAL = re.compile(r"^[>+-]|[\\`*\[\]<|#~&@]|(?<!\w)_|_(?!\w)")


def escape(value: object) -> str:
    """`value` as Markdown prose: on one line, nothing in it is markup, a mention or HTML."""
    entities = {"<": "&lt;", ">": "&gt;", "&": "&amp;", "@": "&#64;"}
    return _SPECIAL.sub(lambda m: entities.get(m[0], f"\\{m[0]}"), printable(str(value), 2000))


def code(value: object) -> str:
    """`value` as a code span, fit for a table cell."""
    return f"`{printable(str(value), 400).replace('`', chr(39)).replace('|', chr(92) + '|')}`"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table of cells that are escaped already, as lines, with the empty line that ends it."""
    lines = [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]
    return [*lines, ""]


def render(document: Mapping[str, Any]) -> str:
    """The Markdown of a report document."""
    lines = [
        f"# {escape(document['model'])} as {escape(document['precision'])}: {document['status']}",
        "",
        *(line for paragraph in summary(document) for line in (escape(paragraph), "")),
        *gates(document),
        *comparison(document),
        *quality(document),
        *performance(document),
        *_rungs(document["rungs"]),
        *_sensitivity(document.get("sensitivity")),
        *_files(document["artifact"]),
        *_steps(document["steps"]),
        *_environment(document["environment"]),
    ]
    lines += ["## Next", "", *(f"- {escape(step['text'])} {code(step['command'])}" for step in document["next"]), ""]
    return "\n".join(lines)


def gates(document: Mapping[str, Any]) -> list[str]:
    rows = [
        (
            code(gate["id"]),
            gate["level"],
            f"{OPERATORS[gate['op']]} {quantity(gate['metric'], gate['value'])}",
            quantity(gate["metric"], gate["observed"]),
            f"**{gate['result']}**",
            escape(gate["text"]),
        )
        for gate in document["gates"]
    ]
    header = ("gate", "level", "limit", "observed", "result", "")
    return ["## Gates", "", *table(header, rows)] if rows else []


def comparison(document: Mapping[str, Any]) -> list[str]:
    rows = [
        (
            LABELS[row["metric"]],
            quantity(row["metric"], row["mid"]),
            interval(row["metric"], row["low"], row["high"]),
            quantity(row["metric"], row["measured"]),
            {True: "yes", False: "no", None: "–"}[row["within"]],
        )
        for row in document["predicted_vs_measured"]
    ]
    header = ("", "predicted", "interval", "measured", "within")
    return ["## Predicted and measured", "", *table(header, rows)] if rows else []


def quality(document: Mapping[str, Any]) -> list[str]:
    """The distribution tier: figures with their standard errors."""
    found = document["validation"]["distribution"]
    if "cosine_similarity" in found:
        return _agreement(found)
    if "perplexity" not in found:
        return []
    perplexity, divergence, top1 = found["perplexity"], found["kl_divergence"], found["same_top1"]
    rows = [
        ("Perplexity, reference", f"{perplexity['reference']:.3f}", ""),
        ("Perplexity, artifact", f"{perplexity['artifact']:.3f}", ""),
        ("Perplexity ratio", f"{perplexity['ratio']:.4f}", _error(perplexity)),
        ("Mean KL divergence (nats)", f"{divergence['mean']:.4f}", _error(divergence)),
        ("99th percentile of KL (nats)", f"{divergence['p99']:.4f}", ""),
        ("Same top-1 token", f"{top1['value']:.4f}", _error(top1)),
    ]
    rows += _runtime(document)
    text = f"Teacher forcing on {found['tokens']:,} tokens; standard errors from a bootstrap over blocks."
    return ["## Quality", "", text, "", *table(("", "value", "standard error"), rows), *_tasks(document)]


def _agreement(found: Mapping[str, Any]) -> list[str]:
    """The same of an encoder: how far its vectors and rankings are the reference's."""
    cosine, ndcg = found["cosine_similarity"], found["ndcg"]
    rows = [
        ("Cosine to the reference's vector, mean", f"{cosine['mean']:.4f}", _error(cosine)),
        ("Cosine to the reference's vector, least", f"{cosine['min']:.4f}", ""),
        *(
            (words, f"{found[key]['value']:.4f}", _error(found[key]))
            for key, words in (
                ("centred_cosine", "The same, the mean vector taken off"),
                ("rank_correlation", "Rank correlation of a query's documents"),
                ("top_overlap", f"Same documents among the first {found['top_overlap']['top']}"),
            )
        ),
        ("nDCG of the reference, artifact", f"{ndcg['reference']:.4f}, {ndcg['artifact']:.4f}", ""),
        ("nDCG, artifact over reference", f"{ndcg['ratio']:.4f}", _error(ndcg)),
    ]
    text = (
        f"{found['texts']} texts, {found['queries']} queries put to {found['documents']} documents; standard errors "
        "from a bootstrap over groups of texts."
    )
    return ["## Quality", "", text, "", *table(("", "value", "standard error"), rows)]


def _runtime(document: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The runtime tier, where it ran: what the runtime makes of the artifact's own weights."""
    found = document["validation"].get("runtime") or {}
    if "kl_divergence" not in found:
        return []
    divergence, top1, where = found["kl_divergence"], found["same_top1"], f"({found['tokens']:,} tokens)"
    return [
        (f"Runtime against these weights: mean KL (nats) {where}", f"{divergence['mean']:.4f}", _error(divergence)),
        ("Runtime against these weights: same top-1 token", f"{top1['value']:.4f}", _error(top1)),
    ]


def _tasks(document: Mapping[str, Any]) -> list[str]:
    """The tasks tier, where it ran: one sentence."""
    found = document["validation"].get("tasks") or {}
    if "questions" not in found:
        return []
    count, accuracy = found["questions"], found["accuracy"]
    artifact, reference = (round(accuracy[side] * count) for side in ("artifact", "reference"))
    alike = round(found["agreement"] * count)
    return [f"Of {count} questions it answers {artifact} right, the reference {reference}, and {alike} alike.", ""]


def performance(document: Mapping[str, Any]) -> list[str]:
    found = document["performance"]
    metrics = [m for m in TIMED if m in found.get("artifact", {})]
    rows = [(LABELS[m], _series(m, found["reference"].get(m)), _series(m, found["artifact"][m])) for m in metrics]
    if not rows:
        return []
    lines = table(("median (interquartile range, p95, n)", "reference", "artifact"), rows)
    for name, what in (("decode_ratio", "Decode"), ("embedding_ratio", "Embedding")):
        if (value := (found.get(name) or {}).get("value")) is not None:
            lines += [f"{what}, measured in pairs: {quantity(name, value)} the reference.", ""]
    return ["## Performance", "", *lines]


def _error(figure: Mapping[str, Any]) -> str:
    return "–" if figure.get("stderr") is None else f"{figure['stderr']:.4f}"


def _series(metric: str, series: Mapping[str, Any] | None) -> str:
    if not series:
        return "–"
    middle, spread, p95 = (quantity(metric, series[key]) for key in ("median", "iqr", "p95"))
    return f"{middle} ({spread}, {p95}, {series['n']})"


def _rungs(rungs: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [
        (
            str(rung["rung"]),
            code(rung["precision"]),
            *(quantity(m, rung[m]) for m in ("quality_retention", "kl_divergence", "memory_ratio", "decode_ratio")),
            rung["result"] + (", kept" if rung["chosen"] else ""),
            escape(rung["why"]),
        )
        for rung in rungs
    ]
    header = ("rung", "precision", "quality", "KL", "bytes of 16-bit", "decode", "result", "why")
    return ["## Rungs tried", "", *table(header, rows)] if rows else []


def _sensitivity(found: Mapping[str, Any] | None) -> list[str]:
    """What each group of tensors lost alone, and which were lowered together."""
    rows = [
        (code(one.name), f"{one.nats_added:.4f}", format_bytes(one.bytes_saved), "yes" if one.lowered else "no")
        for one in report_sensitivity.ranked(found)
    ]
    if found is None or not rows:
        return []
    header = ("group", "nats added", "saved", "lowered")
    return ["## Sensitivity", "", escape(report_sensitivity.about(found)), "", *table(header, rows)]


def _files(artifact: Mapping[str, Any]) -> list[str]:
    rows = [(code(file["path"]), format_bytes(file["bytes"]), code(file["sha256"])) for file in artifact["files"]]
    return ["## Artifact", "", *table(("file", "size", "SHA-256"), rows)] if rows else []


def _steps(steps: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [
        (
            code(step["id"] + (f" (rung {step['rung']})" if step["rung"] else "")),
            step["status"],
            f"{step['seconds']:.1f} s",
            format_bytes(step["peak_rss_bytes"]) if step["peak_rss_bytes"] else "–",
            str(step["attempts"]),
        )
        for step in steps
    ]
    return ["## Steps", "", *table(("step", "status", "time", "peak memory", "attempts"), rows)] if rows else []


def _environment(environment: Mapping[str, Any]) -> list[str]:
    rows = [
        (escape(key.replace("_", " ")), escape(environment_value(key, value))) for key, value in environment.items()
    ]
    return ["## Environment", "", *table(("", ""), rows)]


def environment_value(key: str, value: Any) -> str:
    """A value of the report's `environment` for people."""
    if value in (None, "", []):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key.endswith("_bytes") and isinstance(value, int):
        return format_bytes(value)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
