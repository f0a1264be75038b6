"""Several runs side by side: `advisor report compare RUN...`. Reads what the runs' reports say, measures nothing.

Perplexities of different runtimes can be compared only on the same tokens of the same text: the 16-bit references are
put next to each other with what they were scored on, and where that differs, it is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from executors.folder import existing_folder, resuming
from executors.gates import observe
from executors.report import FINAL, SCHEMA
from executors.report_md import code, escape, table
from executors.report_text import LABELS, quantity
from knowledge.base import AdvisorError, read_json

COMPARE_SCHEMA = "advisor.compare/1"
MAX_RUNS = 50
FIGURES = (
    "artifact_bytes", "memory_ratio", "quality_retention", "perplexity_ratio", "kl_divergence", "same_top1",
    "decode_ratio", "decode_tps", "peak_rss_bytes", "load_seconds",
)  # fmt: skip
ENCODER_FIGURES = ("cosine_similarity", "top_overlap", "embedding_ratio", "sentences_per_second")
TEXT_ALONE = {"perplexity_ratio", "kl_divergence", "same_top1", "decode_ratio", "decode_tps"}  # figures of text
WORDS = LABELS | {"perplexity_ratio": "Perplexity ratio", "decode_tps": "Decode"}


def compare_runs(folders: Sequence[Path]) -> dict[str, Any]:
    """`{"schema", "runs": [...], "references": [...], "notes": [...]}` of finished runs, in the order given.

    A run has `name`, `kind`, `model`, `framework`, `backend`, `precision`, `status` and the FIGURES and ENCODER_FIGURES
    (None: not measured). A
    reference has `runs`, `framework`, `precision`, `perplexity` and `tokens`; runs with the same figure share one.
    Raises AdvisorError: `not-a-run`, `unfinished-run`, `bad-report`, `too-many`.
    """
    if len(folders) > MAX_RUNS:
        raise AdvisorError("too-many", f"{len(folders)} runs are more than {MAX_RUNS}.", "name fewer runs")
    reports = [_report(folder) for folder in folders]
    names = _names(folders)
    try:
        runs = [_run(name, report) for name, report in zip(names, reports, strict=True)]
        references = _references(names, reports)
        notes = _notes(reports)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        hint = "run it again with: advisor run RUN_DIR"
        raise AdvisorError("bad-report", "A report is damaged: it lacks what every report has.", hint) from error
    return {"schema": COMPARE_SCHEMA, "runs": runs, "references": references, "notes": notes}


def markdown(document: Mapping[str, Any]) -> str:
    """The document as two Markdown tables: figures by run, and the references."""
    header = ("", *(code(run["name"]) for run in document["runs"]))
    lines = ["# Runs compared", "", *table(header, ([escape(w) for w in row] for row in figure_rows(document)))]
    if rows := reference_rows(document):
        lines += ["## References", "", *table(REFERENCE_COLUMNS, map(_escaped, rows))]
    lines += [*(f"- {escape(note)}" for note in document["notes"]), ""]
    return "\n".join(lines)


REFERENCE_COLUMNS = ("framework", "16-bit reference", "perplexity", "tokens", "runs")


def figure_rows(document: Mapping[str, Any]) -> list[list[str]]:
    """A row per fact and figure, a column per run, in words."""
    runs = document["runs"]
    facts = [
        [key, *(str(run[key]) for run in runs)] for key in ("model", "framework", "backend", "precision", "status")
    ]
    told = [m for m in ENCODER_FIGURES if any(run[m] is not None for run in runs)]
    hidden = set() if any(run["kind"] == "text" for run in runs) else TEXT_ALONE
    shown = [*(m for m in FIGURES if m not in hidden), *told]
    return facts + [[WORDS[m], *(quantity(m, run[m]) for run in runs)] for m in shown]


def reference_rows(document: Mapping[str, Any]) -> list[list[str]]:
    return [
        [r["framework"], r["precision"], f"{r['perplexity']:.3f}", f"{r['tokens']:,}", ", ".join(r["runs"])]
        for r in document["references"]
    ]


def _escaped(row: Sequence[str]) -> list[str]:
    return [escape(cell) for cell in row]


def _report(path: Path) -> dict[str, Any]:
    folder = existing_folder(path)
    file = folder.path("report.json")
    if not file.is_file():
        hint = f"finish it with: {resuming(path)}"
        raise AdvisorError("unfinished-run", f"The run in {path} has no report yet.", hint)
    document = read_json(file, "report")
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise AdvisorError("bad-report", f"{file} is no report of a run.", "name the folder of an advisor run")
    if document.get("status") not in FINAL:
        hint = f"finish it with: {resuming(path)}"
        raise AdvisorError("unfinished-run", f"The run in {path} is not finished ({document.get('status')}).", hint)
    return document


def _names(folders: Sequence[Path]) -> list[str]:
    """Short names that tell the runs apart: their folders', numbered where two are the same."""
    short = [folder.resolve().name for folder in folders]
    return [name if short.count(name) == 1 else f"{name} ({n})" for n, name in enumerate(short, start=1)]


def _run(name: str, report: Mapping[str, Any]) -> dict[str, Any]:
    validation, performance = report["validation"], report["performance"]
    seen = {
        metric: observe(metric, validation, performance).value
        for metric in (
            "memory_ratio",
            "quality_retention",
            "kl_divergence",
            "same_top1",
            "decode_ratio",
            "peak_rss_bytes",
            "cosine_similarity",
            "top_overlap",
        )
    }
    timed = performance.get("artifact") or {}
    files = [file["bytes"] for file in report["artifact"]["files"] if not _beside(file["path"])]
    return {
        "name": name,
        "kind": report.get("kind", "text"),
        **{key: report[key] for key in ("model", "framework", "backend", "precision", "status")},
        **seen,
        "artifact_bytes": sum(files) or None,
        "perplexity_ratio": (validation["distribution"].get("perplexity") or {}).get("ratio"),
        **{key: (timed.get(key) or {}).get("median") for key in ("decode_tps", "load_seconds", "sentences_per_second")},
        "embedding_ratio": (performance.get("embedding_ratio") or {}).get("value"),
    }


def _beside(path: str) -> bool:
    """Whether a file of an artifact is not the model: its card and its sums."""
    return path.rpartition("/")[2] in ("README.md", "SHA256SUMS")


def _scored(report: Mapping[str, Any]) -> Mapping[str, Any] | None:
    found = report["validation"]["distribution"]
    return found if "perplexity" in found else None


def _references(names: Sequence[str], reports: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for name, report in zip(names, reports, strict=True):
        found = _scored(report)
        if found is None:
            continue
        row = {
            "framework": report["framework"],
            "precision": report["reference"]["precision"],
            "perplexity": float(found["perplexity"]["reference"]),
            "tokens": int(found["tokens"]),
            "text_sha256": found.get("text_sha256"),
            "tokens_sha256": found.get("tokens_sha256"),
            "note": report["reference"]["note"],
        }
        key = (row["framework"], row["precision"], round(row["perplexity"], 6), row["tokens_sha256"], row["tokens"])
        rows.setdefault(key, {**row, "runs": []})["runs"].append(name)
    return list(rows.values())


def _notes(reports: Sequence[Mapping[str, Any]]) -> list[str]:
    """What keeps the figures from being compared."""
    notes = []
    models = list(dict.fromkeys(report["model"] for report in reports))
    if len(models) > 1:
        notes.append(
            f"These are runs of different models ({', '.join(models)}): their perplexities tell nothing apart."
        )
    scored = [found for report in reports if (found := _scored(report))]
    if len(scored) > 1:
        notes.append(_same_text(scored))
    machines = {report["environment"].get("fingerprint") for report in reports}
    if len(machines) > 1:
        notes.append("They ran on different machines: speeds and memory are not compared, ratios are.")
    return notes


def _same_text(scored: Sequence[Mapping[str, Any]]) -> str:
    texts, tokens = ({found.get(key) for found in scored} for key in ("text_sha256", "tokens_sha256"))
    if None in texts | tokens:
        return "Not every report tells on which text and tokens it was scored: compare perplexities with care."
    if len(texts) > 1:
        return "The references were scored on different texts: their perplexities cannot be compared."
    if len(tokens) > 1:
        return "The references saw other tokens of the same text: their perplexities cannot be compared."
    return "All references were scored on the same tokens of the same text: their perplexities can be compared."
