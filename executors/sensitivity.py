"""Measure how much each group of tensors minds fewer bits, and make a mix of it (advisor.sensitivity).

The base and, one at a time, the base with one group lowered are quantized, compared with the 16-bit reference on a few
blocks of the calibration text, and deleted again: nothing is judged here on the text that the gates judge it on.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from advisor.plan import SensitivitySettings
from advisor.sensitivity import GROUPS, Lowered, choose_mix
from executors.executor import Task
from executors.validation import ask
from knowledge.base import write_json
from knowledge.gguf import model_from_gguf, read_gguf
from knowledge.precisions import resolve_precision
from knowledge.records import ModelSpec
from knowledge.weights import weights

TEXT = Path(__file__).parent / "data" / "calibration_text.txt"
BLOCK_TOKENS, WINDOW = 64, 512


def measure(task: Task, settings: SensitivitySettings) -> dict[str, Any]:
    """Write the measurements to `paths["output"]`, a JSON file, and return them.

    `measured` are rows of advisor.sensitivity.Lowered, the base first; `mix` is the chosen one with its `precision`,
    `tensor_types` and `expected_bytes`, None where no mix of these types fits `memory_ratio`.
    """
    reference, output = task.paths["reference"], task.paths["output"]
    spec = model_from_gguf(read_gguf(reference))
    groups = [group for group in GROUPS if any(group in tensor.name for tensor in spec.tensors)]
    scratch = output.with_name(f"models-{output.name}")  # a temporary name too: a killed run's is removed
    scratch.mkdir()
    measured: list[Lowered] = []
    peak = 0
    try:
        peak = _score(task, "reference", reference, scratch, settings.blocks)["peak_rss_bytes"]
        for number, group in enumerate(["", *groups]):
            words = f"lowering {group} alone" if group else f"measuring {settings.base}"
            task.watch.on_event({"type": "progress", "done": number, "total": len(groups) + 1, "text": words})
            one, used = _lowered(task, settings, spec, group, scratch)
            measured.append(one)
            peak = max(peak, used)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    found = choose_mix(measured[0], measured[1:], settings.memory_ratio * 2 * spec.params)
    document = {
        "base": settings.base,
        "lower": settings.lower,
        "tokens": settings.blocks * BLOCK_TOKENS,
        "measured": [asdict(one) for one in measured],
        "mix": None,
        "peak_rss_bytes": peak,
    }
    if found is not None:
        rules = [{"pattern": group, "type": settings.lower} for group in found.groups]
        name = precision_name(settings, found.groups)
        sizes = weights(spec, resolve_precision(name, "llama.cpp")[0])
        document["mix"] = {
            **asdict(found), "precision": name, "tensor_types": rules, "expected_bytes": sizes.file_bytes,
        }  # fmt: skip
    write_json(output, document)
    return document


def precision_name(settings: SensitivitySettings, groups: tuple[str, ...] | list[str]) -> str:
    """The canonical name of the base with these groups lowered."""
    return "+".join([settings.base, *(f"{group}={settings.lower}" for group in groups)])


def _lowered(
    task: Task, settings: SensitivitySettings, spec: ModelSpec, group: str, scratch: Path
) -> tuple[Lowered, int]:
    """Make and score one variant; the figures, and the peak memory."""
    model = scratch / "model.gguf"
    groups = [group] if group else []
    made = ask(
        {
            "op": "quantize",
            "input": str(task.paths["reference"]),
            "output": str(model),
            "type": settings.base,
            "tensor_types": [{"pattern": one, "type": settings.lower} for one in groups],
            "threads": task.threads,
        },
        task.watch,
    )
    scored = _score(task, "compare", model, scratch, settings.blocks)
    model.unlink()
    tokens, kl, _, nll_reference, nll = (math.fsum(column) for column in zip(*scored["blocks"], strict=True))
    sizes = weights(spec, resolve_precision(precision_name(settings, groups), "llama.cpp")[0])
    figures = Lowered(group, sizes.tensor_bytes, kl / tokens, (nll - nll_reference) / tokens)
    return figures, max(made.peak_rss_bytes, scored["peak_rss_bytes"])


def _score(task: Task, mode: str, model: Path, scratch: Path, blocks: int) -> dict[str, Any]:
    request = {
        "op": "score", "mode": mode, "model": str(model), "n_ctx": WINDOW, "threads": task.threads, "text": str(TEXT),
        "store": str(scratch / "scores"), "blocks": blocks, "block_tokens": BLOCK_TOKENS,
    }  # fmt: skip
    done = ask(request, task.watch)
    return {**done.result, "peak_rss_bytes": done.peak_rss_bytes}
