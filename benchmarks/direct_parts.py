"""What the plain scripts of overhead.py share: parts timed one by one, and the loops over a model that each of them
brings (`tokens(text)`, `feed(tokens, position, every)`, `clear()`, `close()`, `batch`). numpy alone.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Job = dict[str, Any]
WARM_UP = 8  # tokens


def run_parts(parts: Mapping[str, Callable[[Job, str], None]]) -> None:
    """Do the parts (or the one that the job names in `only`) of the job on standard input; print their seconds."""
    job = json.load(sys.stdin)
    text = Path(job["text"]).read_text(encoding="utf-8")
    seconds = {}
    for part, work in parts.items():
        if job.get("only", part) != part:
            continue
        start = time.perf_counter()
        work(job, text)
        seconds[part] = round(time.perf_counter() - start, 3)
    print(json.dumps(seconds))


def smoke(model: Any, job: Job) -> None:
    """Greedy answers to the prompts."""
    for prompt in job["prompts"]:
        generate(model, model.tokens(prompt), job["answer_tokens"])


def distribution(open_model: Callable[[str], Any], job: Job, text: str) -> None:
    """Perplexity of both and the mean KL divergence, over the same tokens in the same windows."""
    window = (job["context"] - 1) // job["block_tokens"] * job["block_tokens"]
    reference = open_model(job["reference"])
    tokens = reference.tokens(text)[: job["blocks"] * job["block_tokens"] + 1]
    rows, done, kept = len(tokens) - 1, 0, None
    for logits, _ in _windows(reference, tokens, window):
        if kept is None:
            kept = np.memmap(job["scores"], np.float16, "w+", shape=(rows, logits.shape[1]))
        kept[done : done + len(logits)] = _log_softmax(logits)
        done += len(logits)
    assert kept is not None
    artifact = open_model(job["artifact"])
    nll, kl, done = 0.0, 0.0, 0
    for logits, targets in _windows(artifact, tokens, window):
        q, p = _log_softmax(logits), kept[done : done + len(logits)].astype(np.float32)
        nll -= float(q[np.arange(len(targets)), targets].sum())
        kl += float((np.exp(p) * (p - q)).sum())
        done += len(logits)
    print(f"perplexity {np.exp(nll / rows):.3f}, KL divergence {kl / rows:.4f}", file=sys.stderr)


def benchmark(open_model: Callable[[str], Any], job: Job, text: str) -> None:
    """A warming pair and then the timed ones, reference and artifact in turn, each loaded anew and warmed up."""
    for _ in range(job["pairs"] + 1):
        for path in (job["reference"], job["artifact"]):
            model = open_model(path)
            prompt = model.tokens(text)[: job["prompt_tokens"]]
            generate(model, prompt[:WARM_UP], 1)
            generate(model, prompt, job["decode_tokens"])
            model.close()


def generate(model: Any, prompt: np.ndarray, count: int) -> None:
    model.clear()
    for start in range(0, len(prompt), model.batch):
        logits = model.feed(prompt[start : start + model.batch], start, False)
    for made in range(count):
        logits = model.feed(np.array([logits[-1].argmax()]), len(prompt) + made, False)


def _windows(model: Any, tokens: np.ndarray, window: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(1, len(tokens), window):
        model.clear()
        targets = tokens[start : start + window]
        for at in range(0, len(targets), model.batch):
            here = targets[at : at + model.batch]
            yield model.feed(tokens[start - 1 + at : start - 1 + at + len(here)], at, True), here


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    result: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
