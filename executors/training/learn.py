"""`advisor learn`: retrain the cost model from the knowledge base's measurements and this machine's own history."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from executors.history import list_history
from executors.training.card import write_card
from executors.training.dataset import Dataset, Sample, load_dataset
from executors.training.evaluate import answers_of, report
from knowledge.base import GIB, AdvisorError, write_json
from knowledge.cost_arrays import own_folder
from knowledge.measurements import Measurement

_HISTORY_METRICS = ("decode_tps", "prefill_tps", "ttft_ms")


def learn(folder: Path | None = None, *, history: bool = True, card: Path | None = None) -> dict[str, Any]:
    """Train every target and write it, with its accuracy, to `folder` (default: ADVISOR_HOME/cost_model); what was
    learned, in figures. `card` is a model card whose accuracy table is written anew.

    Raises AdvisorError `learn-missing` where scikit-learn is not installed.
    """
    try:
        from executors.training.export import write_target
        from executors.training.fit import TARGETS, train_target
    except ImportError as error:
        hint = "pip install 'edge-advisor[learn]'"
        raise AdvisorError("learn-missing", f"Training needs scikit-learn ({error.name} is absent).", hint) from error
    dataset = load_dataset()
    own = own_samples() if history else ()
    samples: Sequence[Sample] = (*dataset.samples, *own)
    into = folder or own_folder()
    prefix = "cost_model_" if folder is not None else ""
    summary, found = {}, []
    for name in TARGETS:
        trained = train_target(samples, name)
        found.append(trained)
        write_target(trained.target, into / f"{prefix}{name}.json")
        units, usual = trained.target.units, trained.target.quantiles["any"]
        summary[name] = {"rows": sum(u.rows for u in units), "engines": len(units), "quantiles": list(usual)}
    accuracy = report(answers_of(found, samples), dataset.left_out)
    write_json(into / f"{prefix}accuracy.json", accuracy)
    if card is not None:
        write_card(card, accuracy)
    return {
        "schema": "advisor.learn/1",
        "folder": str(into),
        "rows": len(dataset.samples),
        "own_rows": len(own),
        "left_out": dataset.left_out,
        "targets": summary,
    }


def own_samples() -> tuple[Sample, ...]:
    """This machine's history as samples: the median of each configuration, so that it weighs as one row does."""
    rows = list_history()
    if not rows:
        return ()
    from probes.probe import probe_machine

    profile = probe_machine(bench=False)
    pool = profile.main_memory
    grouped: dict[tuple[str, ...], list[float]] = {}
    for row in rows:
        if row.fingerprint == profile.fingerprint and row.metric in _HISTORY_METRICS:
            key = (row.framework, row.backend, row.model, row.precision, row.metric)
            grouped.setdefault(key, []).append(row.measured)
    measured = []
    for (framework, backend, model, precision, metric), values in sorted(grouped.items()):
        cells = {
            "device": profile.cpu.model, "device_kind": "cpu" if backend == "cpu" else "gpu", "chip": profile.cpu.model,
            "memory_gb": f"{pool.total_bytes / GIB:.1f}" if pool else "",
            "bandwidth_gbs": f"{pool.bandwidth_gbs or pool.measured_bandwidth_gbs or ''}" if pool else "",
            "framework": framework, "backend": backend, "framework_version": "", "model": model, "params_b": "",
            "active_params_b": "", "precision": precision, "file_size_gib": "", "batch": "1", "prompt_tokens": "",
            "gen_tokens": "", "metric": metric,
        }  # fmt: skip
        middle = sorted(values)[len(values) // 2]
        measured.append(Measurement(0, "own history", cells, middle, len(values)))
    found: Dataset = load_dataset(measured, bounds=False)
    return found.samples
